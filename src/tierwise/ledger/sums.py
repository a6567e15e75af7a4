"""Reads the roll-up: the sums of any choice of calls, out of the coarsest rows that have them.

A time is read in pieces: whole UTC days from the rows by the day, the hours at its ends from the rows by the hour; what
is not folded yet from `rollup_recent`; and calls that are open from their own rows. Where rows by the hour are no
longer kept, times are widened to whole days. A session has few calls: its sums come from its rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tierwise.ledger.counts import NO_COUNTS, Counts
from tierwise.ledger.filter import Dimension, Filter, condition
from tierwise.ledger.folding import CUTS, DAY, HOUR, cut_of
from tierwise.ledger.rollup import KEY, MS_PER_HOUR, SCAN, SUMS, Totals

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = [
    "Snapshot",
    "Span",
    "Stretches",
    "Sum",
    "extent",
    "is_by_day",
    "is_whole",
    "read_sums",
    "scan_sums",
    "snapshot",
    "values_of",
    "widened",
]

Snapshot: TypeAlias = sqlite3.Connection  # for the functions of this package alone


@dataclass(frozen=True, slots=True)
class Sum:
    """The sums of one group. `stretch` is which stretch of time it is, counted from 0; 0 where none are told apart."""

    key: tuple[str, ...]
    stretch: int
    totals: Totals
    counts: Counts


class Span(NamedTuple):
    """A time in hours since 1970, as the roll-up can answer it; None where it is open."""

    since: int | None
    until: int | None


@dataclass(frozen=True, slots=True)
class Stretches:
    """How a time is cut: so many hours each, from an hour on."""

    origin: int
    hours: int


def widened(connection: sqlite3.Connection, since_ms: int | None, until_ms: int | None) -> Span:
    """The time in whole hours; in whole days where the roll-up no longer knows hours."""
    hours_since = _hours_since(connection)

    def whole(at_ms: int | None, *, up: bool) -> int | None:
        if at_ms is None:
            return None
        hour = -(-at_ms // MS_PER_HOUR) if up else at_ms // MS_PER_HOUR
        if hour >= hours_since:
            return hour
        return -(-hour // DAY) * DAY if up else hour // DAY * DAY

    return Span(whole(since_ms, up=False), whole(until_ms, up=True))


def snapshot(ledger: Ledger) -> AbstractContextManager[Snapshot]:
    """The ledger as it is now, for several readings.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    return ledger._reading()


def read_sums(
    connection: sqlite3.Connection,
    by: Sequence[Dimension],
    where: Filter,
    *,
    stretches: Stretches | None = None,
    columns: Collection[str] = SUMS,
    counts: bool = False,
) -> list[Sum]:
    """Sums of the filter's calls (times widened) by these dimensions and stretches, ordered by them.

    Only the named `columns` are read; the others are 0.
    """
    span = widened(connection, where.since_ms, where.until_ms)
    if where.session is not None or where.status is not None:
        exact = replace(
            where,
            since_ms=None if span.since is None else span.since * MS_PER_HOUR,
            until_ms=None if span.until is None else span.until * MS_PER_HOUR,
        )
        return scan_sums(connection, by, exact, stretches=stretches, counts=counts)
    by_hours = stretches is not None and (stretches.hours % DAY != 0 or stretches.origin % DAY != 0)
    source, values = _source(connection, by, where, span, columns, by_hours=by_hours)
    return _grouped(connection, source, values, by, stretches, columns, "sum_counts(counts)" if counts else None)


def scan_sums(
    connection: sqlite3.Connection,
    by: Sequence[Dimension],
    where: Filter,
    *,
    stretches: Stretches | None = None,
    counts: bool = False,
) -> list[Sum]:
    """The same sums from the rows, however many there are; times are taken as they are."""
    inner, values = condition(replace(where, tier=None, model=None))
    outer = [f"{name} = ?" for name in ("tier", "model") if getattr(where, name) is not None]
    values += [getattr(where, name) for name in ("tier", "model") if getattr(where, name) is not None]
    source = f"({SCAN.format(where=inner)}){' WHERE ' if outer else ''}{' AND '.join(outer)}"
    return _grouped(connection, source, values, by, stretches, SUMS, "count_names(counted)" if counts else None)


def extent(connection: sqlite3.Connection, where: Filter = Filter()) -> Span:
    """The hours in which the filter's calls begin: from, and up to but not including. None where there are none.

    Of long ago, whole days.
    """
    span = widened(connection, where.since_ms, where.until_ms)
    first, last = _first_and_last(connection, where, span, by_hours=False)
    if first is None or last is None:
        return Span(None, None)
    # The days are known; within the first and the last one the hours may be.
    hours_since = _hours_since(connection)
    if first >= hours_since:
        day = Span(max(first, span.since or 0), first // DAY * DAY + DAY)
        first = _first_and_last(connection, where, day, by_hours=True)[0] or first
    if last >= hours_since and last // DAY * DAY >= hours_since:
        day = Span(last // DAY * DAY, last + 1)
        last = _first_and_last(connection, where, day, by_hours=True)[1] or last
    return Span(first, last + 1)


def _first_and_last(
    connection: sqlite3.Connection, where: Filter, span: Span, *, by_hours: bool
) -> tuple[int | None, int | None]:
    source, values = _source(connection, (), where, span, ("calls",), by_hours=by_hours)
    sql = f"SELECT min(hour), max(last) FROM {source} WHERE calls > 0"  # noqa: S608 names of this module
    found: tuple[int | None, int | None] = connection.execute(sql, values).fetchone()
    return found


def values_of(connection: sqlite3.Connection, dimension: Dimension) -> list[str]:
    """What occurs in a dimension, in order."""
    if dimension in CUTS:
        found = _known(connection, dimension)
    else:
        rows = connection.execute(
            f"SELECT DISTINCT {dimension} FROM rollup WHERE span_hours = {DAY} AND cut = 0"  # noqa: S608 names and numbers
        )
        found = [row[0] for row in rows]
    recent = connection.execute(f"SELECT DISTINCT {dimension} FROM rollup_recent")  # noqa: S608 as above
    return sorted({*found, *(row[0] for row in recent)})


def is_by_day(connection: sqlite3.Connection, hour: int) -> bool:
    """Whether so long ago only whole days are known."""
    return hour < _hours_since(connection)


def _hours_since(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT hours_since FROM rollup_state").fetchone()[0]
    return found


def _known(connection: sqlite3.Connection, dimension: Dimension) -> list[str]:
    """What occurs in a dimension, of what is folded: one look into the index for each, not a scan."""
    where = f"span_hours = {DAY} AND cut = {CUTS[dimension]}"
    where += "".join(f" AND {name} = ''" for name in CUTS if name != dimension and _before(name, dimension))
    rows = connection.execute(
        f"WITH RECURSIVE found (name) AS (SELECT min({dimension}) FROM rollup WHERE {where} UNION ALL "  # noqa: S608 names and numbers
        f"SELECT (SELECT min({dimension}) FROM rollup WHERE {where} AND {dimension} > found.name) FROM found "
        "WHERE found.name IS NOT NULL) SELECT name FROM found WHERE name IS NOT NULL"
    )
    return [row[0] for row in rows]


def _before(one: Dimension, other: Dimension) -> bool:
    names = list(CUTS)
    return names.index(one) < names.index(other)


def _source(
    connection: sqlite3.Connection,
    by: Sequence[str],
    where: Filter,
    span: Span,
    columns: Collection[str],
    *,
    by_hours: bool = False,
) -> tuple[str, list[object]]:
    """A subquery with the rows to be added up, and its values."""
    kept = {name for name in CUTS if name in by or getattr(where, name) is not None}
    names = ", ".join((*KEY, *(name for name in SUMS if name in columns), "counts"))
    last = "hour + span_hours - 1 AS last"
    conditions = [f"span_hours = ? AND cut = {cut_of(kept)}"]
    values: list[object] = []
    for name in CUTS:
        wanted = getattr(where, name)
        if name not in kept:
            conditions.append(f"{name} = ''")
        elif wanted is not None:
            conditions.append(f"{name} = ?")
            values.append(wanted)
        elif span.since is not None:
            # So that the index can go on to the time, which stands behind this column.
            conditions.append(f"{name} IN (SELECT value FROM json_each(?))")  # noqa: S608 names of this module
            values.append(json.dumps(_known(connection, name)))
    loose = [(name, getattr(where, name)) for name in ("tier", "model") if getattr(where, name) is not None]
    conditions += [f"{name} = ?" for name, _ in loose]
    values += [value for _, value in loose]
    parts: list[str] = []
    all_values: list[object] = []

    def add(text: str, given: Sequence[object], since: int | None, until: int | None) -> None:
        for operator, hour in ((">=", since), ("<", until)):
            if hour is not None:
                text += f" AND hour {operator} {hour}"
        parts.append(text)
        all_values.extend(given)

    for hours, since, until in _pieces(span, _hours_since(connection), by_hours=by_hours):
        text = f"SELECT {names}, {last} FROM rollup WHERE {' AND '.join(conditions)}"  # noqa: S608 names of this module
        add(text, [hours, *values], since, until)
    exact = [(name, getattr(where, name)) for name in (*CUTS, "tier", "model") if getattr(where, name) is not None]
    text = f"SELECT {names}, hour FROM rollup_recent WHERE 1{''.join(f' AND {name} = ?' for name, _ in exact)}"  # noqa: S608 as above
    add(text, [value for _, value in exact], span.since, span.until)
    parts.append(_open_calls(names, exact, span))
    all_values.extend(value for _, value in exact)
    return f"({' UNION ALL '.join(parts)})", all_values


def _open_calls(names: str, exact: Sequence[tuple[str, str]], span: Span) -> str:
    """Rows of the calls that have not ended, which are not in the roll-up: `calls_unfinished` has them."""
    where = "writer IS NOT NULL AND status = 'open'"
    where += "".join(f" AND coalesce({name}, '') = ?" for name, _ in exact if name in CUTS)
    for operator, hour in ((">=", span.since), ("<", span.until)):
        if hour is not None:  # + keeps SQLite from looking through the whole time instead
            where += f" AND +started_at_ms {operator} {hour * MS_PER_HOUR}"
    counts = "iif(counted IS NULL, '{}', json_object(CAST(counted AS TEXT), 1))"
    text = f"SELECT {names.removesuffix('counts')}{counts}, hour "
    text += f"FROM ({SCAN.format(where=where)}) WHERE 1"
    return text + "".join(f" AND {name} = ?" for name, _ in exact if name not in CUTS)


def _pieces(span: Span, hours_since: int, *, by_hours: bool) -> list[tuple[int, int | None, int | None]]:
    """The time as rows by the day and by the hour have it."""
    since, until = span
    if by_hours and since is not None and since >= hours_since:
        return [(HOUR, since, until)]
    first = None if since is None else -(-since // DAY) * DAY
    last = None if until is None else until // DAY * DAY
    if first is not None and last is not None and first > last:
        return [(HOUR, since, until)]
    found: list[tuple[int, int | None, int | None]] = []
    if since is not None and since != first:
        found.append((HOUR, since, first))
    if first is None or last is None or first < last:
        found.append((DAY, first, last))
    if until is not None and until != last:
        found.append((HOUR, last, until))
    return found


def _grouped(  # noqa: PLR0917 parts of one statement
    connection: sqlite3.Connection,
    source: str,
    values: list[object],
    by: Sequence[Dimension],
    stretches: Stretches | None,
    columns: Collection[str],
    counts: str | None,
) -> list[Sum]:
    keys = ["date(hour * 3600, 'unixepoch') AS day" if name == "day" else name for name in by]
    groups: list[str] = list(by)
    if stretches is not None:
        keys.append(f"(hour - {stretches.origin}) / {stretches.hours} AS stretch")
        groups.append("stretch")
    wanted = [name for name in SUMS if name in columns]
    cells = [*keys, *(f"coalesce(sum({name}), 0)" for name in wanted), *([counts] if counts else [])]
    sql = f"SELECT {', '.join(cells)} FROM {source}"  # noqa: S608 names of this module
    if groups:
        # What was taken off again has left rows of zeros.
        there = [f"sum({name}) <> 0" for name in ("calls", "attempts") if name in columns]
        having = f" HAVING {' OR '.join(there)}" if there else ""
        sql += f" GROUP BY {', '.join(groups)}{having} ORDER BY {', '.join(groups)}"
    found: list[Sum] = []
    width = len(by)
    for row in connection.execute(sql, values):
        stretch = row[width] if stretches is not None else 0
        start = width + (stretches is not None)
        totals = Totals(**dict(zip(wanted, row[start : start + len(wanted)], strict=True)))
        found.append(Sum(row[:width], stretch, totals, Counts.of(row[-1] or "{}") if counts else NO_COUNTS))
    return found


def is_whole(connection: sqlite3.Connection, where: Filter) -> bool:
    """Whether the roll-up can answer the filter exactly as it is."""
    if where.session is not None or where.status is not None:
        return False
    span = widened(connection, where.since_ms, where.until_ms)
    return all(
        at_ms is None or (hour is not None and hour * MS_PER_HOUR == at_ms)
        for at_ms, hour in ((where.since_ms, span.since), (where.until_ms, span.until))
    )
