"""Looking after a ledger that grows for years: its size, whether it is sound, copies of it, old calls out of it.

All of it works while other processes write. What takes long is done in pieces, each a short transaction.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger.connection import explain
from tierwise.ledger.counts import NO_COUNTS, Counts
from tierwise.ledger.filter import Dimension, Filter
from tierwise.ledger.folding import CUTS, forget_before, gather_before, summed_calls, week_of
from tierwise.ledger.rollup import MS_PER_DAY, MS_PER_HOUR, SUMS
from tierwise.ledger.sums import Stretches, Sum, extent, is_by_day, read_sums, scan_sums

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = ["LedgerSize", "Pruned", "backup", "ledger_size", "prune", "shrink", "verify"]

_CALLS_AT_ONCE = 500  # that one transaction removes: some milliseconds
_PIECE_MS = 7 * MS_PER_DAY  # whose sums are compared at once
_SHOWN = 20  # faults that are told one by one


@dataclass(frozen=True, slots=True)
class LedgerSize:
    """How large a ledger is. Calls that were pruned are in the roll-up alone."""

    path: Path
    database_bytes: int
    log_bytes: int  # written, and not yet moved into the database
    free_bytes: int  # in the database, for what comes
    calls: int
    attempts: int
    pruned_calls: int
    pruned_before_ms: int | None  # None: nothing was pruned
    first_ms: int | None  # of the first call, to the hour or day; None: there are no calls
    last_ms: int | None
    waiting: tuple[Path, ...]  # spools
    bytes: int  # what it takes on the disk, the log included
    is_behind: bool  # whether the roll-up is still being made; what it lacks is read from the rows


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed."""

    before_ms: int  # the UTC midnight before which calls began
    calls: int
    attempts: int
    kept_rollups: bool


def ledger_size(ledger: Ledger) -> LedgerSize:
    """How large the ledger is. Reads sums, not rows.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with ledger._reading() as connection:
        page, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "freelist_count"))
        pruned_before_ms = _pruned_before_ms(connection)
        there = read_sums(connection, (), Filter(since_ms=pruned_before_ms), columns=("calls", "attempts"))[0].totals
        all_calls = read_sums(connection, (), Filter(), columns=("calls",))[0].totals.calls
        span = extent(connection)
        is_behind = summed_calls(connection).is_behind
    log = Path(f"{ledger.path}-wal")
    database, logged = ledger.path.stat().st_size, log.stat().st_size if log.exists() else 0
    return LedgerSize(
        path=ledger.path,
        database_bytes=database,
        log_bytes=logged,
        free_bytes=page * free,
        calls=there.calls,
        attempts=there.attempts,
        pruned_calls=all_calls - there.calls,
        pruned_before_ms=pruned_before_ms or None,
        first_ms=None if span.since is None else span.since * MS_PER_HOUR,
        last_ms=None if span.until is None else span.until * MS_PER_HOUR,
        waiting=tuple(ledger.waiting()),
        bytes=database + logged,
        is_behind=is_behind,
    )


def prune(ledger: Ledger, before_ms: int, *, keep_rollups: bool) -> Pruned:
    """Removes calls that began before a moment (its UTC midnight), with all that is known of each; open ones stay.

    With `keep_rollups` they stay in every sum, by day, project, key, task type, tier and model. The file keeps its
    size: what comes takes the free place (`shrink`).

    Raises:
        LedgerError: the ledger cannot be written. What was removed until then stays removed; it may be called again.
    """
    before_ms = before_ms // MS_PER_DAY * MS_PER_DAY
    calls = attempts = 0
    # First of all: what goes is in the sums, and from now on nobody makes those anew from rows that are going.
    is_summed = False
    while not is_summed:
        if ledger.is_behind:
            ledger.rebuild_rollup()
        with ledger._summing() as connection:
            gather_before(connection, before_ms)
        with ledger._transaction() as connection:
            is_summed = not summed_calls(connection).is_behind  # else somebody has begun anew just now
            if is_summed:
                connection.execute("UPDATE rollup_state SET pruned_before_ms = max(pruned_before_ms, ?)", (before_ms,))
    while True:
        with ledger._transaction() as connection:
            found = connection.execute(
                "SELECT call_id FROM calls WHERE started_at_ms < ? AND status <> 'open' ORDER BY started_at_ms LIMIT ?",
                (before_ms, _CALLS_AT_ONCE),
            ).fetchall()
            ids = json.dumps([row[0] for row in found])
            for table in ("feedback", "captured", "attempts", "calls"):
                removed = connection.execute(
                    f"DELETE FROM {table} WHERE call_id IN (SELECT value FROM json_each(?))",  # noqa: S608 names of the schema
                    (ids,),
                ).rowcount
                calls += removed if table == "calls" else 0
                attempts += removed if table == "attempts" else 0
        if len(found) < _CALLS_AT_ONCE:
            break
    if not keep_rollups:
        with ledger._transaction() as connection:
            forget_before(connection, before_ms)
    return Pruned(before_ms, calls, attempts, keep_rollups)


def shrink(ledger: Ledger) -> None:
    """Gives what is free in the file back to the disk. Needs as much again while it runs, and that nobody else writes.

    Raises:
        LedgerError: it cannot be done now.
    """
    with ledger._lock:
        connection = ledger._open()
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise explain(error, ledger.path) from error


def backup(ledger: Ledger, target: Path) -> int:
    """Writes a copy of the ledger as it is now into a new file, while others go on writing. Returns its bytes.

    Raises:
        LedgerError: the ledger cannot be read, or the copy not be written; then there is none.
    """
    if target.exists():
        raise LedgerUnavailable(f"{target} is there already; name a new file for the copy")
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with ledger._reading() as source:
            copy = sqlite3.connect(partial)
            try:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, to be moved about
            finally:
                copy.close()
        partial.rename(target)
    except (sqlite3.Error, OSError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise LedgerUnavailable(
            f"no copy of the ledger {ledger.path} could be written to {target} ({error}); check free space and "
            "permissions"
        ) from error
    return target.stat().st_size


def verify(ledger: Ledger) -> list[str]:
    """What is wrong with the ledger, in words; empty where nothing is. Reads all of it.

    Checks the file itself, that the roll-up is the sum of the rows, that every attempt and every feedback has its call,
    and that budgets are the sum of what was reserved for them.

    Raises:
        LedgerError: it cannot be read at all.
    """
    found = ledger.check()
    if found:
        return [f"the file is damaged: {fault}; `tierwise doctor --recover` saves what can be read" for fault in found]
    with ledger._reading() as connection:
        connection.execute("BEGIN")  # one state of the ledger for all that follows
        found = [
            *_orphans(connection),
            *_wrong_budgets(connection),
            *_wrong_sums(connection, _pruned_before_ms(connection)),
        ]
    return found if len(found) <= _SHOWN else [*found[:_SHOWN], f"… and {len(found) - _SHOWN} more"]


def _pruned_before_ms(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT pruned_before_ms FROM rollup_state").fetchone()[0]
    return found


def _orphans(connection: sqlite3.Connection) -> Iterator[str]:
    for table in ("attempts", "feedback"):
        sql = f"SELECT count(*) FROM {table} WHERE call_id NOT IN (SELECT call_id FROM calls)"  # noqa: S608 names of the schema
        (count,) = connection.execute(sql).fetchone()
        if count:
            yield f"{count} rows of {table} are of no call that is there"


def _wrong_budgets(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT budget_id, sum(spent), sum(reserved) FROM (SELECT budget_id, period_start_ms, spent_nanousd AS spent, "
        "reserved_nanousd AS reserved FROM budget_state UNION ALL SELECT budget_id, period_start_ms, "
        "-coalesce(settled_nanousd, 0), -iif(settled_nanousd IS NULL, reserved_nanousd, 0) FROM reservations) "
        "GROUP BY budget_id, period_start_ms HAVING sum(spent) <> 0 OR sum(reserved) <> 0"
    )
    for budget_id, _, _ in rows:
        yield f"budget {budget_id} is not the sum of its reservations"


def _wrong_sums(connection: sqlite3.Connection, since_ms: int) -> Iterator[str]:
    first, last = connection.execute(
        "SELECT min(started_at_ms), max(started_at_ms) FROM calls WHERE started_at_ms >= ?", (since_ms,)
    ).fetchone()
    everything: tuple[Dimension, ...] = ("day", *CUTS, "tier", "model")
    cuts = [kept for size in range(len(CUTS) + 1) for kept in combinations(CUTS, size)]
    # Whole weeks, as the roll-up has them: with their days told apart they are read by the day, else by the week.
    for start in range(week_of((first or 0) // MS_PER_HOUR) * MS_PER_HOUR, (last or 0) + 1, _PIECE_MS):
        if first is None:
            return
        where = Filter(since_ms=max(start, since_ms), until_ms=start + _PIECE_MS)
        rows = scan_sums(connection, everything, where, counts=True)
        for kept, by_day in product(cuts, (True, False)):
            by = tuple(name for name in everything if (name not in CUTS or name in kept) and (by_day or name != "day"))
            places = [everything.index(name) for name in by]
            right = _added_up(rows, places)
            wrong = _differences(right, _added_up(read_sums(connection, by, where, counts=True), range(len(by))))
            yield from (f"the roll-up of {' '.join(filter(None, key))} is not the sum of its rows" for key in wrong)
        if not is_by_day(connection, start // MS_PER_HOUR):
            hours = Stretches(start // MS_PER_HOUR, 1)
            of_rows = scan_sums(connection, (), where, stretches=hours, counts=True)
            if of_rows != read_sums(connection, (), where, stretches=hours, counts=True):
                yield f"the roll-up by the hour of the week from {start} is not the sum of its rows"


_Added = dict[tuple[str, ...], tuple[tuple[int, ...], Counts]]


def _added_up(found: list[Sum], places: range | list[int]) -> _Added:
    sums: _Added = {}
    for one in found:
        key = tuple(one.key[place] for place in places)
        values, counts = sums.get(key, ((0,) * len(SUMS), NO_COUNTS))
        more = [getattr(one.totals, name) for name in SUMS]
        sums[key] = tuple(a + b for a, b in zip(values, more, strict=True)), counts + one.counts
    return sums


def _differences(one: _Added, other: _Added) -> list[tuple[str, ...]]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
