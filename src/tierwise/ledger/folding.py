"""Where the sums of `tierwise.ledger.rollup` are kept, so that writing them is cheap and any view of them is too.

Theory of operation
-------------------
A call that ends moves one row, or a few, of `rollup_recent`: the sums of an hour by everything that calls differ in.
That is all that its transaction does. What has gathered there is *folded* once in a while, in a transaction of its own:
added to the rows of `rollup`, and taken out. So the sum of both tables is at any moment that of all calls that have
ended, and one that changes long afterwards is a row of differences in `rollup_recent`, folded like any other.

`rollup` has the same sums in sixteen ways: for each hour and for each UTC day, and for each choice of which of
project, key and task type are told apart (`cut`, a sum of bits); those that are not are empty. Tier and model always
are: there are few. A view reads the coarsest rows that can answer it, some thousands instead of millions.

Sums by the hour are kept for five weeks (`hours_since` in `rollup_state`), by the day for ever. Calls that were pruned
(`pruned_before_ms`) are in the sums alone, so these are not made anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping

from tierwise.ledger.filter import Dimension
from tierwise.ledger.rollup import COLUMNS, KEY, MS_PER_DAY, MS_PER_HOUR, SCAN, SUMS

__all__ = [
    "CUTS",
    "DAY",
    "HOUR",
    "MOST_RECENT",
    "cut_of",
    "fold",
    "forget_before",
    "rebuild",
    "wants_folding",
]

HOUR, DAY = 1, 24  # what `span_hours` may be
CUTS: Mapping[Dimension, int] = {"project": 1, "key_id": 2, "task_type": 4}
MOST_RECENT = 4000  # rows that may gather: what is read with every view, and how long a fold takes
_HOURS_KEPT = 35 * 24
_PIECE_MS = 7 * MS_PER_DAY
_NAMES = ", ".join(("span_hours", "cut", "project", "key_id", "task_type", "hour", "tier", "model", *SUMS, "counts"))


def cut_of(dimensions: Collection[str]) -> int:
    """The cut in which these are told apart, and no others."""
    return sum(bit for name, bit in CUTS.items() if name in dimensions)


_ALL = ", ".join(COLUMNS)
_SUMMED = ", ".join([*(f"sum({name})" for name in SUMS), "sum_counts(counts)"])


def _fold_into(source: str, span_hours: int, cut: int) -> str:
    kept = [name for name, bit in CUTS.items() if cut & bit]
    cells = ", ".join(name if cut & bit else "''" for name, bit in CUTS.items())
    changes = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
    return (
        f"INSERT INTO rollup ({_NAMES}) SELECT {span_hours}, {cut}, {cells}, hour, tier, model, {_SUMMED} "  # noqa: S608 names and numbers of this module
        f"FROM {source} WHERE hour >= ? GROUP BY {', '.join(['hour', *kept, 'tier', 'model'])} "
        f"ON CONFLICT DO UPDATE SET {changes}, counts = CASE '{{}}' WHEN excluded.counts THEN counts "
        "WHEN counts THEN excluded.counts ELSE add_counts(counts, excluded.counts) END"
    )


_BY_HOUR, _BY_DAY = (
    [_fold_into(source, span, cut) for cut in range(sum(CUTS.values()) + 1)]
    for source, span in (("rollup_recent", HOUR), ("temp.folding", DAY))
)
_BEGIN_DAYS = f"CREATE TEMP TABLE IF NOT EXISTS folding AS SELECT {_ALL} FROM rollup_recent WHERE 0"  # noqa: S608 as above
# The days' sums are made once, and then cut: of a day with many calls that is a tenth of the work.
_GATHER_DAYS = (
    f"INSERT INTO temp.folding SELECT hour - hour % {DAY} AS day, {', '.join(KEY[1:])}, {_SUMMED} FROM rollup_recent "  # noqa: S608 as above
    f"GROUP BY day, {', '.join(KEY[1:])}"
)
_ENDED = "status <> 'open' AND started_at_ms >= ? AND started_at_ms < ?"
_GATHER = (
    f"INSERT INTO rollup_recent ({', '.join(COLUMNS)}) SELECT {', '.join(KEY)}, "  # noqa: S608 column names only
    f"{', '.join(f'sum({name})' for name in SUMS)}, count_names(counted) "
    f"FROM ({SCAN.format(where=_ENDED)}) GROUP BY {', '.join(KEY)}"
)


def wants_folding(connection: sqlite3.Connection, now_ms: int) -> bool:
    """Whether an hour is over, or much has gathered."""
    hour = now_ms // MS_PER_HOUR
    if connection.execute("SELECT 1 FROM rollup_recent WHERE hour < ? LIMIT 1", (hour,)).fetchone():
        return True
    return bool(connection.execute("SELECT 1 FROM rollup_recent LIMIT 1 OFFSET ?", (MOST_RECENT,)).fetchone())


def fold(connection: sqlite3.Connection, now_ms: int) -> None:
    """Folds all that has gathered, inside the caller's transaction."""
    (since,) = connection.execute("SELECT hours_since FROM rollup_state").fetchone()
    day = now_ms // MS_PER_HOUR // DAY * DAY
    hours_since = max(since, day - _HOURS_KEPT)
    connection.execute(_BEGIN_DAYS)
    connection.execute(_GATHER_DAYS)
    for statement in _BY_HOUR:
        connection.execute(statement, (hours_since,))
    for statement in _BY_DAY:
        connection.execute(statement, (0,))
    connection.execute("DELETE FROM temp.folding")
    connection.execute("DELETE FROM rollup_recent")
    if hours_since > since:
        connection.execute("UPDATE rollup_state SET hours_since = ?", (hours_since,))
        _forget(connection, HOUR, hours_since)


def rebuild(connection: sqlite3.Connection, now_ms: int) -> None:
    """Makes the roll-up anew from the rows, inside the caller's transaction; what was pruned stays as it is."""
    fold(connection, now_ms)
    (pruned_before_ms,) = connection.execute("SELECT pruned_before_ms FROM rollup_state").fetchone()
    connection.execute("DELETE FROM rollup WHERE hour >= ?", (pruned_before_ms // MS_PER_HOUR,))
    first, last = connection.execute("SELECT min(started_at_ms), max(started_at_ms) FROM calls").fetchone()
    if first is None:
        return
    # A piece at a time: what is sorted and gathered stays in memory.
    for since_ms in range(max(first // MS_PER_DAY * MS_PER_DAY, pruned_before_ms), last + 1, _PIECE_MS):
        connection.execute(_GATHER, (since_ms, since_ms + _PIECE_MS))
        if connection.execute("SELECT 1 FROM rollup_recent LIMIT 1").fetchone():
            fold(connection, now_ms)


def forget_before(connection: sqlite3.Connection, before_ms: int, now_ms: int) -> None:
    """Leaves nothing in the roll-up of the time before a UTC midnight, inside the caller's transaction."""
    fold(connection, now_ms)
    hour = before_ms // MS_PER_HOUR
    for span in (HOUR, DAY):
        _forget(connection, span, hour)


def _forget(connection: sqlite3.Connection, span_hours: int, before_hour: int) -> None:
    connection.execute("DELETE FROM rollup WHERE span_hours = ? AND hour < ?", (span_hours, before_hour))
