"""Reads the roll-up: the sums of any choice of calls, out of the coarsest rows that have them.

A time is read in pieces: whole weeks from the rows by the week, the days and hours at its ends from those by the day
and by the hour; what is not folded yet from `rollup_recent`; and the calls that the roll-up has not taken in, open ones
among them, from their own rows. Where rows by the hour are no longer kept, times are widened to whole days. A session
has few calls: its sums come from its rows.
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
from tierwise.ledger.folding import (
    AT_OR_AFTER,
    BEFORE,
    CUTS,
    DAY,
    HOUR,
    WEEK,
    Place,
    SummedCalls,
    cut_of,
    summed_calls,
    week_of,
)
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
    source, values = _source(connection, by, where, span, columns, _coarsest(by, stretches))
    return _grouped(connection, source, values, by, stretches, columns, "sum_counts(counts)" if counts else None)


def _coarsest(by: Collection[str], stretches: Stretches | None) -> int:
    """The longest span whose rows stand within one group each."""
    if stretches is None:
        return DAY if "day" in by else WEEK
    for span in (WEEK, DAY):
        if stretches.hours % span == 0 and stretches.origin == _floor(stretches.origin, span):
            return min(span, DAY) if "day" in by else span
    return HOUR


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
    first, last = _first_and_last(connection, where, span, DAY)
    if first is None or last is None:
        return Span(None, None)
    # The days are known; within the first and the last one the hours may be.
    hours_since = _hours_since(connection)
    if first >= hours_since:
        day = Span(max(first, span.since or 0), first // DAY * DAY + DAY)
        first = _first_and_last(connection, where, day, HOUR)[0] or first
    if last >= hours_since and last // DAY * DAY >= hours_since:
        day = Span(last // DAY * DAY, last + 1)
        last = _first_and_last(connection, where, day, HOUR)[1] or last
    return Span(first, last + 1)


def _first_and_last(
    connection: sqlite3.Connection, where: Filter, span: Span, coarsest: int
) -> tuple[int | None, int | None]:
    source, values = _source(connection, (), where, span, ("calls",), coarsest)
    sql = f"SELECT min(hour), max(last) FROM {source} WHERE calls > 0"  # noqa: S608 names of this module
    found: tuple[int | None, int | None] = connection.execute(sql, values).fetchone()
    return found


def values_of(connection: sqlite3.Connection, dimension: Dimension) -> list[str]:
    """What occurs in a dimension, in order; of calls that are still to be summed up, nothing."""
    if dimension in CUTS:
        found = _known(connection, dimension)
    else:
        rows = connection.execute(
            f"SELECT DISTINCT {dimension} FROM rollup WHERE span_hours = {DAY} AND cut = 0"  # noqa: S608 names and numbers
        )
        found = [row[0] for row in rows]
    summed = summed_calls(connection)
    at, call_id = summed.until
    beyond = SCAN.format(where=AT_OR_AFTER.format(at=at, id="?"))
    recent = connection.execute(
        f"SELECT {dimension} FROM rollup_recent UNION SELECT {dimension} FROM ({beyond})",  # noqa: S608 as above
        (call_id,),
    )
    return sorted({*found, *(row[0] for row in recent)})


def is_by_day(connection: sqlite3.Connection, hour: int) -> bool:
    """Whether so long ago only whole days are known."""
    return hour < _hours_since(connection)


def _hours_since(connection: sqlite3.Connection) -> int:
    return summed_calls(connection).hours_since


def _floor(hour: int, span: int) -> int:
    """Where the span of an hour begins."""
    return week_of(hour) if span == WEEK else hour // span * span


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


def _source(  # noqa: PLR0917 parts of one statement
    connection: sqlite3.Connection,
    by: Sequence[str],
    where: Filter,
    span: Span,
    columns: Collection[str],
    coarsest: int,
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
    summed = summed_calls(connection)
    rolled = span
    if summed.is_stale:  # what stands in the roll-up of a later time is of no account
        pruned_before = summed.pruned_before_ms // MS_PER_HOUR
        rolled = Span(span.since, pruned_before if span.until is None else min(span.until, pruned_before))

    if coarsest == HOUR and (span.since is None or span.since < summed.hours_since):
        coarsest = DAY
    for hours, since, until in _pieces(rolled, coarsest):
        parts.append(
            f"SELECT {names}, {last} FROM rollup WHERE {' AND '.join(conditions)}{_times('hour', since, until)}"  # noqa: S608 names of this module
        )
        all_values += [hours, *values]
    exact = [(name, getattr(where, name)) for name in (*CUTS, "tier", "model") if getattr(where, name) is not None]
    chosen = "".join(f" AND {name} = ?" for name, _ in exact) + _times("hour", *span)
    parts.append(f"SELECT {names}, hour FROM rollup_recent WHERE 1{chosen}")  # noqa: S608 as above
    all_values += [value for _, value in exact]
    for chosen, call_ids in _not_summed(summed, span):
        parts.append(_from_rows(chosen, names, exact))
        all_values += [*call_ids, *(value for _, value in exact)]
    return f"({' UNION ALL '.join(parts)})", all_values


_OPEN_BATCHES = "SELECT batch_id FROM batches WHERE ended_at_ms IS NULL"


def _not_summed(summed: SummedCalls, span: Span) -> list[tuple[str, list[str]]]:
    """Which calls of a time the roll-up lacks, as conditions on `calls`, with the ids that they ask for.

    Each has one bound to either side: of two, SQLite might go by the wider one.
    """
    since, until = (None if hour is None else Place(hour * MS_PER_HOUR, "") for hour in span)
    # + keeps SQLite from looking through the whole time for the few that are open.
    times = _times("+started_at_ms", *span, of=MS_PER_HOUR)
    found: list[tuple[str, list[str]]] = [
        (f"writer IS NOT NULL AND status = 'open'{times}", []),  # so that `calls_unfinished` has them
        (
            f"batch_id IN ({_OPEN_BATCHES}) AND status = 'open' AND writer IS NULL{times}",
            [],
        ),  # and these `calls_by_batch`
    ]
    pieces: list[tuple[Place, Place | None]] = [(summed.until, None)]
    if summed.is_behind:
        pieces.append((Place(summed.pruned_before_ms, ""), summed.since))
    for begin, end in pieces:
        first = begin if since is None else max(begin, since)
        last = min((place for place in (end, until) if place is not None), default=None)
        if last is None:
            found.append((f"status <> 'open' AND {_from(first)}", [first.call_id]))
        elif first < last:
            chosen = f"status <> 'open' AND {_from(first)} AND {BEFORE.format(at=last.at_ms, id='?')}"
            found.append((chosen, [first.call_id, last.call_id]))
    return found


def _from(place: Place) -> str:
    return AT_OR_AFTER.format(at=place.at_ms, id="?")


def _from_rows(chosen: str, names: str, exact: Sequence[tuple[str, str]]) -> str:
    """Rows as the roll-up would have them, of calls that are not in it."""
    where = chosen + "".join(f" AND coalesce({name}, '') = ?" for name, _ in exact if name in CUTS)
    counts = "iif(counted IS NULL, '{}', json_object(CAST(counted AS TEXT), 1))"
    text = f"SELECT {names.removesuffix('counts')}{counts}, hour FROM ({SCAN.format(where=where)}) WHERE 1"  # noqa: S608 as above
    return text + "".join(f" AND {name} = ?" for name, _ in exact if name not in CUTS)


def _times(column: str, since: int | None, until: int | None, of: int = 1) -> str:
    """A condition for a time in hours, with AND before it."""
    found = "" if since is None else f" AND {column} >= {since * of}"
    return found if until is None else f"{found} AND {column} < {until * of}"


def _pieces(span: Span, coarsest: int) -> list[tuple[int, int | None, int | None]]:
    """The time as rows of each span have it: whole weeks in the middle, days beside them, hours at the ends."""
    since, until = span
    if since is not None and until is not None and since >= until:
        return []
    if coarsest == HOUR:
        return [(HOUR, since, until)]
    finer = DAY if coarsest == WEEK else HOUR
    first = None if since is None else _floor(since + coarsest - 1, coarsest)
    last = None if until is None else _floor(until, coarsest)
    if first is not None and last is not None and first >= last:
        return _pieces(span, finer)
    before = [] if since is None else _pieces(Span(since, first), finer)
    after = [] if until is None else _pieces(Span(last, until), finer)
    return [*before, (coarsest, first, last), *after]


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
    start = width + (stretches is not None)
    end = start + len(wanted)
    for row in connection.execute(sql, values):
        totals = Totals(**dict(zip(wanted, row[start:end], strict=True)))
        stretch = row[width] if stretches is not None else 0
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
