"""Where the sums of `tierwise.ledger.rollup` are kept, so that writing them is cheap and any view of them is too.

Theory of operation
-------------------
Calls have an order: when they began, and then their id. The roll-up is at any moment the sum of the calls that have
ended and stand in one stretch of that order, from `since` to `until` (`rollup_state`). What stands outside of it, and
what is open, is read from its rows; so every view is right at every moment, and a call that ends costs its transaction
nothing. The stretch grows:

- upwards, as calls come: when some hundred stand beyond it, all but the latest are *gathered* into `rollup_recent`, the
  sums of an hour by everything that calls differ in. A call that is written after the stretch has come over it (it took
  long, or waited in a spool) moves a row there itself, by what it changes.
- downwards, when the sums are made anew (an old ledger, or `tierwise ledger rebuild`): the stretch begins empty, and
  takes in what is before it piece by piece, the latest first. Whoever is killed in between leaves it as it is, and
  anybody goes on. Rows that were there before such a beginning are of no account, and removed first (`is_stale`).

What has gathered is *folded* once in a while: added to `rollup`, and taken out. `rollup` has the same sums in 24 ways:
for each hour, UTC day and week (from Monday, UTC), and for each choice of which of project, key and task type are told
apart (`cut`, a sum of bits); those that are not are empty. Tier and model always are: there are few. A view reads the
coarsest rows that can answer it, some thousands instead of millions.

All of it is done in short transactions. What takes long, adding up, is done before the lock is taken, in temporary
tables; under the lock it is seen whether that still holds, and merged.

Sums by the hour are kept for five weeks (`hours_since`), by day and week for ever. Calls that were pruned
(`pruned_before_ms`) are in the sums alone, so these are not made anew; of that time every call counts as summed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from tierwise.ledger.filter import Dimension
from tierwise.ledger.rollup import ADD_UP, COLUMNS, KEY, MS_PER_HOUR, SCAN, SUMS

__all__ = [
    "CUTS",
    "DAY",
    "HOUR",
    "MOST_BEYOND",
    "WEEK",
    "Extended",
    "Place",
    "SummedCalls",
    "begin_anew",
    "cut_of",
    "extend",
    "fold",
    "forget_before",
    "gather",
    "gather_before",
    "make_weeks",
    "summed_calls",
    "wants_folding",
    "wants_gathering",
    "week_of",
]

HOUR, DAY, WEEK = 1, 24, 7 * 24  # what `span_hours` may be
CUTS: Mapping[Dimension, int] = {"project": 1, "key_id": 2, "task_type": 4}
MOST_BEYOND = 1024  # calls that may stand beyond the stretch: they are read with every view
_LEFT_BEYOND = 512  # of which so many stay there: the latest, which may not have ended yet
_GATHERED_AT_ONCE = 2048
_MOST_RECENT = 1000  # rows that may gather: they are read with every view, and folded under the lock
_MERGED_AT_ONCE = 10_000  # rows under one lock: some tens of milliseconds
_REMOVED_AT_ONCE = 5_000
_EXTENDED_AT_ONCE = 8_000  # calls
_HOURS_KEPT = 35 * 24
_TO_MONDAY = 3 * 24  # 1970-01-01 was a Thursday
_PLACE = ("span_hours", "cut", "project", "key_id", "task_type", "hour", "tier", "model")
_NAMES = ", ".join((*_PLACE, *SUMS, "counts"))
_EVERYTHING = sum(CUTS.values())
# Of which cut another is made: of the smallest that knows enough.
_PARENT: Mapping[int, int] = {6: 7, 5: 7, 4: 5, 3: 7, 2: 3, 1: 3, 0: 1}


class Place(NamedTuple):
    """Where a call stands in the order of all calls."""

    at_ms: int
    call_id: str


BEFORE_ALL = Place(-(2**62), "")


class SummedCalls(NamedTuple):
    """Which of the calls that have ended are in the roll-up; `tierwise.ledger.folding` tells more."""

    since: Place
    until: Place  # exclusive
    pruned_before_ms: int
    hours_since: int
    is_stale: bool
    changes: int  # counts those of calls that are still to be summed

    def __contains__(self, place: object) -> bool:
        return isinstance(place, tuple) and (
            self.since <= place < self.until or place[0] < self.pruned_before_ms  # the stretch first: it is the rule
        )

    @property
    def is_behind(self) -> bool:
        """Whether the stretch still has to grow downwards."""
        return self.is_stale or self.since > BEFORE_ALL

    def is_beyond(self, place: Place) -> bool:
        """Whether a call is one that the stretch will take in when it grows upwards."""
        return self.pruned_before_ms <= place.at_ms and self.until <= place

    def is_before(self, place: Place) -> bool:
        """Whether a call is one that the stretch will take in when it grows downwards."""
        return self.pruned_before_ms <= place.at_ms and place < self.since


class Extended(NamedTuple):
    """What became of growing downwards."""

    is_done: bool
    is_ours: bool  # False: somebody else was faster
    calls: int  # to take next, so that the lock is held for some tens of milliseconds
    reached_ms: int  # back to when calls are summed


_STATE = (
    "SELECT since_ms, since_id, until_ms, until_id, pruned_before_ms, hours_since, is_stale, changes FROM rollup_state"
)


def summed_calls(connection: sqlite3.Connection) -> SummedCalls:
    """What stands in the roll-up now."""
    row = connection.execute(_STATE).fetchone()
    return SummedCalls(Place(*row[:2]), Place(*row[2:4]), row[4], row[5], bool(row[6]), row[7])


def cut_of(dimensions: Collection[str]) -> int:
    """The cut in which these are told apart, and no others."""
    return sum(bit for name, bit in CUTS.items() if name in dimensions)


def week_of(hour: int) -> int:
    """The hour in which the week of an hour begins."""
    return hour - (hour + _TO_MONDAY) % WEEK


_SUMMED = ", ".join([*(f"sum({name})" for name in SUMS), "sum_counts(counts)"])
_BEGINS = {
    HOUR: "hour",
    DAY: f"hour - ((hour % {DAY}) + {DAY}) % {DAY}",  # SQLite's % has the sign of its left side
    WEEK: f"hour - (((hour + {_TO_MONDAY}) % {WEEK}) + {WEEK}) % {WEEK}",
}


def _cut_out(span_hours: int, cut: int, source: str) -> str:
    """A statement that adds up rows of the source for one span and cut."""
    cells = [name if cut & bit else "''" for name, bit in CUTS.items()]
    kept = [name for name, bit in CUTS.items() if cut & bit]
    return (
        f"INSERT INTO temp.rolled ({_NAMES}) SELECT {span_hours}, {cut}, {', '.join(cells)}, "  # noqa: S608 names and numbers of this module
        f"{_BEGINS[span_hours]} AS begins, tier, model, {_SUMMED} FROM {source} "
        f"GROUP BY {', '.join([*kept, 'begins', 'tier', 'model'])}"
    )


_PREPARE = (
    f"CREATE TEMP TABLE IF NOT EXISTS gathered ({', '.join(COLUMNS)})",
    f"CREATE TEMP TABLE IF NOT EXISTS rolled ({_NAMES}, PRIMARY KEY ({', '.join(_PLACE)})) WITHOUT ROWID",
    "DELETE FROM temp.gathered",
    "DELETE FROM temp.rolled",
)
_ROLL_HOURS = _cut_out(HOUR, _EVERYTHING, "temp.gathered WHERE hour >= ?")
_ROLL = (
    _cut_out(DAY, _EVERYTHING, "temp.gathered"),
    _cut_out(WEEK, _EVERYTHING, f"temp.rolled WHERE span_hours = {DAY} AND cut = {_EVERYTHING}"),
    *(
        _cut_out(span, cut, f"temp.rolled WHERE span_hours = {span} AND cut = {parent}")
        for span in (HOUR, DAY, WEEK)
        for cut, parent in _PARENT.items()
    ),
)
_MERGE = f"INSERT INTO rollup ({_NAMES}) SELECT {_NAMES} FROM temp.rolled WHERE true {ADD_UP}"  # noqa: S608 as above
_ALL = ", ".join(COLUMNS)
_GATHER = (
    f"INTO {{target}} ({_ALL}) SELECT {', '.join(KEY)}, "  # noqa: S608 as above
    f"{', '.join(f'sum({name})' for name in SUMS)}, count_names(counted) "
    f"FROM ({SCAN}) WHERE true GROUP BY {', '.join(KEY)}"
)
_ENDED = "status <> 'open' AND {where}"
AT_OR_AFTER = "started_at_ms >= {at} AND (started_at_ms > {at} OR call_id >= {id})"
BEFORE = "started_at_ms <= {at} AND (started_at_ms < {at} OR call_id < {id})"
_BETWEEN = f"{AT_OR_AFTER.format(at='?1', id='?2')} AND {BEFORE.format(at='?3', id='?4')}"


@contextmanager
def _transaction(connection: sqlite3.Connection, *, write: bool) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def _hours_since(summed: SummedCalls, now_ms: int) -> int:
    return max(summed.hours_since, now_ms // MS_PER_HOUR // DAY * DAY - _HOURS_KEPT)


def _merge(connection: sqlite3.Connection, hours_since: int) -> None:
    """Adds what `_roll` made to the roll-up, and lets go of the hours that are no longer kept."""
    connection.execute(_MERGE)
    if connection.execute("UPDATE rollup_state SET hours_since = ?1 WHERE hours_since < ?1", (hours_since,)).rowcount:
        connection.execute("DELETE FROM rollup WHERE span_hours = ? AND hour < ?", (HOUR, hours_since))


def _roll(connection: sqlite3.Connection, hours_since: int) -> int:
    """Adds up what is in `temp.gathered`, for every span and cut, into `temp.rolled`; how many rows that makes."""
    connection.execute(_ROLL_HOURS, (hours_since,))
    for statement in _ROLL:
        connection.execute(statement)
    found: int = connection.execute("SELECT count(*) FROM temp.rolled").fetchone()[0]
    return found


def _begin_rolling(connection: sqlite3.Connection) -> None:
    for statement in _PREPARE:
        connection.execute(statement)


# Upwards


def wants_gathering(connection: sqlite3.Connection, now_ms: int) -> bool:
    """Whether many calls stand beyond the stretch."""
    return _beyond(connection, summed_calls(connection), now_ms, MOST_BEYOND) is not None


def gather(connection: sqlite3.Connection, now_ms: int, *, left: int | None = None) -> bool:
    """Takes calls that stand beyond the stretch into it, all but the latest; whether there are more to take."""
    with _transaction(connection, write=True):
        summed = summed_calls(connection)
        until = _beyond(connection, summed, now_ms, _LEFT_BEYOND if left is None else left)
        if until is None:
            return False
        return _gather_to(connection, summed, until)


def gather_before(connection: sqlite3.Connection, before_ms: int) -> None:
    """Takes all calls that began before a moment into the stretch, in transactions of its own."""
    until, is_more = Place(before_ms, ""), True
    while is_more:
        with _transaction(connection, write=True):
            summed = summed_calls(connection)
            is_more = summed.until < until and _gather_to(connection, summed, until)


def _beyond(connection: sqlite3.Connection, summed: SummedCalls, now_ms: int, left: int) -> Place | None:
    """Up to where the stretch may come so that so many calls stay beyond it. A clock that is fast is not followed."""
    row = connection.execute(
        f"SELECT started_at_ms, call_id FROM calls WHERE {AT_OR_AFTER.format(at='?1', id='?2')} "  # noqa: S608 names of this module
        "AND started_at_ms <= ?3 ORDER BY started_at_ms DESC, call_id DESC LIMIT 1 OFFSET ?4",
        (*summed.until, now_ms, left),
    ).fetchone()
    return None if row is None else Place(row[0], f"{row[1]}\x01")


def _gather_to(connection: sqlite3.Connection, summed: SummedCalls, until: Place) -> bool:
    row = connection.execute(
        f"SELECT started_at_ms, call_id FROM calls WHERE {AT_OR_AFTER.format(at='?1', id='?2')} "  # noqa: S608 as above
        "ORDER BY started_at_ms, call_id LIMIT 1 OFFSET ?3",
        (*summed.until, _GATHERED_AT_ONCE),
    ).fetchone()
    is_more = row is not None and Place(*row) < until
    if is_more:
        until = Place(*row)
    connection.execute(
        f"INSERT {_GATHER.format(target='rollup_recent', where=_ENDED.format(where=_BETWEEN))} {ADD_UP}",
        (*max(summed.until, Place(summed.pruned_before_ms, "")), *until),
    )
    connection.execute("UPDATE rollup_state SET until_ms = ?, until_id = ?", until)
    return is_more


# Folding


def wants_folding(connection: sqlite3.Connection) -> bool:
    """Whether much has gathered."""
    return bool(connection.execute("SELECT 1 FROM rollup_recent LIMIT 1 OFFSET ?", (_MOST_RECENT,)).fetchone())


def fold(connection: sqlite3.Connection, now_ms: int) -> None:
    """Folds all that has gathered, in transactions of its own; not among stale rows, with which it would be removed."""
    if summed_calls(connection).is_stale:
        return
    _begin_rolling(connection)
    with _transaction(connection, write=False):
        hours_since = _copy_recent(connection, now_ms)
    with _transaction(connection, write=True):
        if summed_calls(connection).is_stale:
            return
        if not _is_as_copied(connection):
            connection.execute("DELETE FROM temp.gathered")
            connection.execute("DELETE FROM temp.rolled")
            hours_since = _copy_recent(connection, now_ms)
        _merge(connection, hours_since)
        connection.execute("DELETE FROM rollup_recent")


def _copy_recent(connection: sqlite3.Connection, now_ms: int) -> int:
    hours_since = _hours_since(summed_calls(connection), now_ms)
    connection.execute(f"INSERT INTO temp.gathered ({_ALL}) SELECT {_ALL} FROM rollup_recent")  # noqa: S608 names of this module
    _roll(connection, hours_since)
    return hours_since


def _is_as_copied(connection: sqlite3.Connection) -> bool:
    (one, other) = connection.execute(
        "SELECT (SELECT count(*) FROM rollup_recent), (SELECT count(*) FROM temp.gathered)"
    ).fetchone()
    changed = f"SELECT {_ALL} FROM rollup_recent EXCEPT SELECT {_ALL} FROM temp.gathered LIMIT 1"  # noqa: S608 as above
    return one == other and connection.execute(changed).fetchone() is None


# Downwards


def begin_anew(connection: sqlite3.Connection) -> None:
    """Leaves nothing in the stretch, inside the caller's transaction; what was pruned stays in the sums."""
    summed = summed_calls(connection)
    (last,) = connection.execute("SELECT max(started_at_ms) FROM calls").fetchone()
    ends = [end for end in (None if last is None else last + 1, summed.pruned_before_ms or None) if end is not None]
    place = Place(max(ends), "") if ends else BEFORE_ALL
    hour = summed.pruned_before_ms // MS_PER_HOUR
    connection.execute("DELETE FROM rollup_recent WHERE hour >= ?", (hour,))
    if summed.pruned_before_ms:
        _make_week(connection, week_of(hour), hour)
    is_stale = connection.execute("SELECT 1 FROM rollup LIMIT 1").fetchone() is not None
    connection.execute(
        "UPDATE rollup_state SET since_ms = ?1, since_id = ?2, until_ms = ?1, until_id = ?2, is_stale = ?3",
        (*place, is_stale),
    )


def extend(connection: sqlite3.Connection, now_ms: int, *, calls: int = 2_000) -> Extended:
    """Lets the stretch grow downwards by so many calls, or fewer, in transactions of its own."""
    summed = summed_calls(connection)
    if summed.is_stale:
        return _remove_stale(connection, calls)
    if not summed.is_behind:
        return Extended(True, True, calls, summed.since.at_ms)
    while True:
        _begin_rolling(connection)
        with _transaction(connection, write=False):
            summed = summed_calls(connection)
            since = _earlier(connection, summed, calls)
            connection.execute(
                f"INSERT {_GATHER.format(target='temp.gathered', where=_ENDED.format(where=_BETWEEN))}",
                (*max(since, Place(summed.pruned_before_ms, "")), *summed.since),
            )
            hours_since = _hours_since(summed, now_ms)
            rows = _roll(connection, hours_since)
        if rows <= _MERGED_AT_ONCE or calls == 1:
            break
        calls = max(1, calls // 2)
    with _transaction(connection, write=True):
        if summed_calls(connection)._replace(until=summed.until) != summed:
            return Extended(False, False, calls, summed.since.at_ms)  # or one of these calls was written
        _merge(connection, hours_since)
        connection.execute("UPDATE rollup_state SET since_ms = ?, since_id = ?", since)
    if rows < _MERGED_AT_ONCE // 4:
        calls = min(calls * 2, _EXTENDED_AT_ONCE)
    return Extended(since == BEFORE_ALL, True, calls, since.at_ms)


def _earlier(connection: sqlite3.Connection, summed: SummedCalls, calls: int) -> Place:
    """The place so many calls before the stretch, or before all."""
    row = connection.execute(
        f"SELECT started_at_ms, call_id FROM calls WHERE {BEFORE.format(at='?1', id='?2')} AND started_at_ms >= ?3 "  # noqa: S608 names of this module
        "ORDER BY started_at_ms DESC, call_id DESC LIMIT 1 OFFSET ?4",
        (*summed.since, summed.pruned_before_ms, calls - 1),
    ).fetchone()
    return BEFORE_ALL if row is None else Place(*row)


def _remove_stale(connection: sqlite3.Connection, calls: int) -> Extended:
    with _transaction(connection, write=True):
        summed = summed_calls(connection)
        place = ", ".join(_PLACE)
        removed = connection.execute(
            f"DELETE FROM rollup WHERE ({place}) IN (SELECT {place} FROM rollup WHERE hour >= ? LIMIT ?)",  # noqa: S608 as above
            (summed.pruned_before_ms // MS_PER_HOUR, _REMOVED_AT_ONCE),
        ).rowcount
        if removed < _REMOVED_AT_ONCE:
            connection.execute("UPDATE rollup_state SET is_stale = 0")
    return Extended(removed < _REMOVED_AT_ONCE and summed.since == BEFORE_ALL, True, calls, summed.since.at_ms)


# Pruning


def forget_before(connection: sqlite3.Connection, before_ms: int) -> None:
    """Leaves nothing in the roll-up of the time before a UTC midnight, inside the caller's transaction."""
    hour = before_ms // MS_PER_HOUR
    connection.execute("DELETE FROM rollup_recent WHERE hour < ?", (hour,))
    connection.execute("DELETE FROM rollup WHERE hour < ?", (hour,))
    _make_week(connection, week_of(hour), week_of(hour) + WEEK)


def make_weeks(connection: sqlite3.Connection, before_hour: int) -> None:
    """Makes the sums by week of the time before an hour anew from those by day, inside the caller's transaction."""
    _make_week(connection, None, week_of(before_hour) + WEEK)


def _make_week(connection: sqlite3.Connection, since: int | None, until: int) -> None:
    """Makes the sums by week anew from the days from one hour to another."""
    times = f"hour < {until}" if since is None else f"hour >= {since} AND hour < {until}"
    connection.execute(f"DELETE FROM rollup WHERE span_hours = {WEEK} AND {times}")  # noqa: S608 names and numbers of this module
    connection.execute(
        f"INSERT INTO rollup ({_NAMES}) SELECT {WEEK}, cut, project, key_id, task_type, {_BEGINS[WEEK]} AS begins, "  # noqa: S608 as above
        f"tier, model, {_SUMMED} FROM rollup WHERE span_hours = {DAY} AND {times} "
        "GROUP BY cut, project, key_id, task_type, begins, tier, model"
    )
