"""Budgets: how much may be spent on a key, on a project or on everything, in a day, a month or for good.

Theory of operation
-------------------
What a call may cost at most is *reserved* before it leaves, and *settled* with what it did cost. Both are one
transaction that nobody else can write in, so however many calls of however many processes ask at once, what is spent
and reserved together never exceeds a hard budget because of them. (A call that turns out dearer than was reserved for
it is settled at what it cost all the same: money that is gone is counted.) A call that costs nothing is never refused.

`reservations` has a row for each call and each budget that it counts against; `budget_state` is their sums. Whatever
changes a row moves its sum in the same transaction; `rebuild` makes the sums anew, and finds them as they were.

A reservation is charged to the period in which it was made, also where its call ends after midnight (UTC).

Rows do not stay for ever. What is settled is taken out when its period is over; what is a day old in one that is not,
is added up in one row for each budget, which has no call. Both happen some rows at a time, in the transactions of calls
that come. A new budget begins with such a row: what the ledger says was spent in its period before.

A batch is reserved as one, under its own id, and settled once all of its results are known, never by a process's end.

A process that is killed settles nothing. What it had reserved is settled for it, at what the ledger has on record as
the cost of that call: when a ledger is opened, and before anybody is refused. Where it cannot be told whether a
process still runs (it is of another container), that is done once no call can have taken so long.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from tierwise.core.errors import LedgerError
from tierwise.core.money import format_usd, nanousd_to_usd
from tierwise.ledger.process import is_alive
from tierwise.ledger.rollup import MS_PER_DAY

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = [
    "MOST_NANOUSD",
    "Budget",
    "BudgetExceeded",
    "BudgetPeriod",
    "BudgetScope",
    "BudgetStanding",
    "Budgets",
    "Reservation",
    "ReservationRequest",
    "period_end_ms",
    "period_start_ms",
    "rebuild_state",
    "settle_one",
    "settle_what_is_left",
]

MOST_NANOUSD = 10**18  # a billion dollars: sums of such amounts still fit SQLite's integers
_FRESH_MS = 1000  # a budget that another process sets or removes is known here after so long
_LONGEST_CALL_MS = 3_600_000
_CARRIED = ""  # in the place of a call: what calls have cost that have no row of their own, before all ids in order
_CARRIED_AFTER_MS = MS_PER_DAY
_LOOKED_AT = 128  # rows in one transaction
_NOTHING_OLD_MS = 60_000  # where there was nothing to take out, it is not looked for sooner


class BudgetScope(StrEnum):
    """Which calls count."""

    KEY = "key"
    PROJECT = "project"
    ALL = "all"


class BudgetPeriod(StrEnum):
    """When a budget begins anew."""

    DAY = "day"  # at midnight, UTC
    MONTH = "month"  # on the first, at midnight, UTC
    TOTAL = "total"  # never


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit. `subject` is the id of a key or the name of a project; empty where all calls count."""

    budget_id: str
    scope: BudgetScope
    subject: str
    period: BudgetPeriod
    limit_nanousd: int
    hard: bool  # otherwise a call that exceeds it is let through, with a warning
    created_at_ms: int

    def __str__(self) -> str:
        whose = "all calls" if self.scope is BudgetScope.ALL else f"{self.scope} {self.subject!r}"
        how_long = "in total" if self.period is BudgetPeriod.TOTAL else f"a {self.period}"
        return f"budget {self.budget_id} of {whose}, {_usd(self.limit_nanousd)} {how_long}"


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """A budget, and how much of it is used in the current period."""

    budget: Budget
    spent_nanousd: int
    reserved_nanousd: int  # by calls that run
    resets_at_ms: int | None  # None: never

    @property
    def left_nanousd(self) -> int:
        """What a next call may cost."""
        return max(0, self.budget.limit_nanousd - self.spent_nanousd - self.reserved_nanousd)


@dataclass(frozen=True, slots=True)
class BudgetExceeded:
    """A budget has no room for a call: which, how much is left, when it begins anew (None: never)."""

    budget: Budget
    left_nanousd: int
    resets_at_ms: int | None
    wanted_nanousd: int

    def __str__(self) -> str:
        if self.resets_at_ms is None:
            then = "it does not reset: raise it with `tierwise budgets set`"
        else:
            moment = datetime.fromtimestamp(self.resets_at_ms / 1000, UTC)
            then = f"it resets at {moment:%Y-%m-%dT%H:%MZ}"
        return (
            f"{self.budget}: {_usd(self.left_nanousd)} is left, and this call may cost up to "
            f"{_usd(self.wanted_nanousd)}; {then}"
        )


@dataclass(frozen=True, slots=True)
class ReservationRequest:
    """What a call may cost at most, and whose budgets it counts against."""

    call_id: str
    amount_nanousd: int
    key_id: str | None = None
    project: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.amount_nanousd <= MOST_NANOUSD:
            raise ValueError(f"amount_nanousd must be from 0 to {MOST_NANOUSD}, not {self.amount_nanousd}")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A call that may go. `budgets` it counts against, and `warnings` of soft ones that it may exceed."""

    call_id: str
    budgets: tuple[Budget, ...] = ()
    warnings: tuple[BudgetExceeded, ...] = ()


def period_start_ms(period: BudgetPeriod, now_ms: int) -> int:
    """When the period began that this moment is in."""
    match period:
        case BudgetPeriod.DAY:
            return now_ms - now_ms % MS_PER_DAY
        case BudgetPeriod.MONTH:
            first = datetime.fromtimestamp(now_ms / 1000, UTC).replace(day=1)
            return int(datetime(first.year, first.month, 1, tzinfo=UTC).timestamp()) * 1000
        case BudgetPeriod.TOTAL:
            return 0
        case _:
            assert_never(period)


def period_end_ms(period: BudgetPeriod, now_ms: int) -> int | None:
    """When the next period begins; None where there is no next one."""
    start = period_start_ms(period, now_ms)
    match period:
        case BudgetPeriod.DAY:
            return start + MS_PER_DAY
        case BudgetPeriod.MONTH:
            return period_start_ms(period, start + 31 * MS_PER_DAY)
        case BudgetPeriod.TOTAL:
            return None
        case _:
            assert_never(period)


class Budgets:
    """The budgets in a ledger, for any number of threads and processes.

    Where no budget applies to a call, nothing is read or written for it: which budgets there are is read anew once a
    second at most.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read_at_ms: int | None = None  # None: to be read before the next answer
        self._ever_read = False
        self._by_subject: dict[tuple[BudgetScope, str], tuple[Budget, ...]] = {}
        self._looked_for_dead_at_ms: int | None = None
        self._look_for_old_at_ms = 0
        # What calls cost (None: were never sent) that is not in the database yet. While one waits its reservation
        # stands, and should this process end, it is settled from the ledger's record of the call.
        self._waiting: dict[str, int | None] = {}
        self._waiting_lock = threading.Lock()  # never held while the database is used

    # On the way of a call

    def applying(self, now_ms: int, *, key_id: str | None = None, project: str | None = None) -> tuple[Budget, ...]:
        """The budgets that such a call counts against, as known a second ago at most.

        Raises:
            LedgerError: the ledger cannot be read, and never could.
        """
        read_at = self._read_at_ms
        if read_at is None or not 0 <= now_ms - read_at < _FRESH_MS:
            self._read(now_ms)
        found = self._by_subject
        if not found:
            return ()
        return (
            *found.get((BudgetScope.ALL, ""), ()),
            *(found.get((BudgetScope.KEY, key_id), ()) if key_id is not None else ()),
            *(found.get((BudgetScope.PROJECT, project), ()) if project is not None else ()),
        )

    def reserve(
        self, call_id: str, amount_nanousd: int, now_ms: int, *, key_id: str | None = None, project: str | None = None
    ) -> Reservation | BudgetExceeded:
        """Sets aside what a call may cost at most, in all budgets that it counts against or in none.

        Again for the same call, it sets aside so much more; `settle` takes the cost of the whole call. Every
        reservation must be settled or released.

        Raises:
            LedgerError: the ledger cannot be written, so nobody can tell whether there is room.
        """
        if not self.applying(now_ms, key_id=key_id, project=project):
            return Reservation(call_id)
        return self.reserve_many([ReservationRequest(call_id, amount_nanousd, key_id, project)], now_ms)[0]

    def reserve_many(self, requests: Sequence[ReservationRequest], now_ms: int) -> list[Reservation | BudgetExceeded]:
        """`reserve` for many calls in one transaction, in order.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        wanted = [
            (request, self.applying(now_ms, key_id=request.key_id, project=request.project)) for request in requests
        ]
        if not any(budgets for _, budgets in wanted):
            return [Reservation(request.call_id) for request in requests]
        with self._ledger._transaction() as connection:
            written = self._write_waiting(connection)
            if now_ms >= self._look_for_old_at_ms and not _take_out_old(connection, now_ms):
                self._look_for_old_at_ms = now_ms + _NOTHING_OLD_MS
            answers = [self._reserve(connection, request, budgets, now_ms) for request, budgets in wanted]
        self._forget(written)
        return answers

    def settle(self, reservation: Reservation, actual_nanousd: int) -> None:
        """Replaces what was set aside for a call by what it cost. Settled again in that hour, the last figure counts.

        Never raises because of the ledger: while that cannot be written, the settlement waits for the next time.
        """
        self.settle_later(reservation, actual_nanousd)
        self.write_waiting()

    def release(self, reservation: Reservation) -> None:
        """Gives back what was set aside for a call that was never sent. Does nothing where it is settled.

        Never raises because of the ledger, as `settle`.
        """
        self.release_later(reservation)
        self.write_waiting()

    def settle_later(self, reservation: Reservation, actual_nanousd: int) -> None:
        """`settle` in the next transaction, whatever that is for: for callers that settle many."""
        if not 0 <= actual_nanousd <= MOST_NANOUSD:
            raise ValueError(f"actual_nanousd must be from 0 to {MOST_NANOUSD}, not {actual_nanousd}")
        if reservation.budgets:
            with self._waiting_lock:
                self._waiting[reservation.call_id] = actual_nanousd

    def release_later(self, reservation: Reservation) -> None:
        """`release` in the next transaction."""
        if reservation.budgets:
            with self._waiting_lock:
                self._waiting.setdefault(reservation.call_id, None)

    def write_waiting(self) -> bool:
        """Writes what waits, in one transaction; False where the ledger does not take it now."""
        if self._waiting:
            try:
                with self._ledger._transaction() as connection:
                    written = self._write_waiting(connection)
            except LedgerError:
                return False
            self._forget(written)
        return True

    @property
    def waiting(self) -> int:
        """Calls whose settlement or release is not in the database yet."""
        return len(self._waiting)

    # Setting and showing them

    def set(
        self,
        scope: BudgetScope,
        subject: str,
        period: BudgetPeriod,
        limit_nanousd: int,
        now_ms: int,
        *,
        hard: bool = True,
    ) -> Budget:
        """Makes a budget, or changes the limit of the one that is there; what is spent of that stays spent.

        A new budget begins with what the ledger says that the gateway's calls have cost in its period; calls of older
        versions did not record their key, and those that were pruned are gone. What runs just now counts with
        what it has cost by now.

        Raises:
            ValueError: a limit out of range, or a subject where there is none, or none where there is one.
            LedgerError: the ledger cannot be written.
        """
        if not 0 <= limit_nanousd <= MOST_NANOUSD:
            raise ValueError(f"limit_nanousd must be from 0 to {MOST_NANOUSD}, not {limit_nanousd}")
        if (scope is BudgetScope.ALL) != (subject == ""):
            raise ValueError(f"a budget of scope {scope} with subject {subject!r}: only one of all calls has none")
        start_ms, new_id = period_start_ms(period, now_ms), os.urandom(4).hex()
        with self._ledger._reading() as connection:  # not in the transaction: it may take a while, and nobody waits
            spent = _spent_since(connection, scope, subject, start_ms)
        with self._ledger._transaction() as connection:
            connection.execute(
                "INSERT INTO budgets (budget_id, scope, subject, period, limit_nanousd, hard, created_at_ms) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope, subject, period) "
                "DO UPDATE SET limit_nanousd = excluded.limit_nanousd, hard = excluded.hard",
                (new_id, scope.value, subject, period.value, limit_nanousd, int(hard), now_ms),
            )
            row = connection.execute(
                f"{_SELECT_BUDGETS} WHERE scope = ? AND subject = ? AND period = ?",
                (scope.value, subject, period.value),
            ).fetchone()
            if spent and row[0] == new_id:
                _carry(connection, new_id, start_ms, spent, now_ms)
                connection.execute(_MOVE_STATE, (new_id, start_ms, spent, 0))
        self._read_at_ms = None
        return _budget(row)

    def remove(self, budget_id: str) -> Budget | None:
        """Removes a budget and what it knows of calls; None where there is none of that id.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._ledger._transaction() as connection:
            row = connection.execute(f"{_SELECT_BUDGETS} WHERE budget_id = ?", (budget_id,)).fetchone()
            for table in ("budgets", "budget_state", "reservations"):
                connection.execute(f"DELETE FROM {table} WHERE budget_id = ?", (budget_id,))  # noqa: S608 names of this module
        self._read_at_ms = None
        return None if row is None else _budget(row)

    def standings(self, now_ms: int) -> list[BudgetStanding]:
        """All budgets, and how much of each is used now.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._ledger._reading() as connection:
            connection.execute("BEGIN")  # all of one moment
            budgets = [_budget(row) for row in connection.execute(f"{_SELECT_BUDGETS} ORDER BY scope, subject, period")]
            standings = []
            for budget in budgets:
                start_ms = period_start_ms(budget.period, now_ms)
                _, _, spent, reserved = connection.execute(_SELECT_STANDING, (start_ms, budget.budget_id)).fetchone()
                standings.append(BudgetStanding(budget, spent, reserved, period_end_ms(budget.period, now_ms)))
        return standings

    def rebuild(self) -> None:
        """Computes what is spent and reserved anew, from the calls.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._ledger._transaction() as connection:
            rebuild_state(connection)

    # Inside

    def _read(self, now_ms: int) -> None:
        try:
            if not self._ever_read:
                self._ledger.open()  # makes it, and brings it up to date
            with self._ledger._snapshot() as connection:
                rows = connection.execute(f"{_SELECT_BUDGETS} ORDER BY budget_id").fetchall()
        except LedgerError:
            if not self._ever_read:
                raise
            self._read_at_ms = now_ms  # what was known stays so; asked again in a second
            return
        found: dict[tuple[BudgetScope, str], tuple[Budget, ...]] = {}
        for budget in map(_budget, rows):
            place = (budget.scope, budget.subject)
            found[place] = (*found.get(place, ()), budget)
        self._by_subject = found
        self._read_at_ms = now_ms
        self._ever_read = True

    def _reserve(
        self, connection: sqlite3.Connection, request: ReservationRequest, budgets: tuple[Budget, ...], now_ms: int
    ) -> Reservation | BudgetExceeded:
        if not budgets:
            return Reservation(request.call_id)
        answer = _try_to_reserve(connection, request, budgets, now_ms, self._ledger._this_writer)
        if isinstance(answer, BudgetExceeded):
            looked_at = self._looked_for_dead_at_ms
            if looked_at is None or not 0 <= now_ms - looked_at < _FRESH_MS:
                self._looked_for_dead_at_ms = now_ms
                if _settle_the_dead(connection, now_ms):
                    answer = _try_to_reserve(connection, request, budgets, now_ms, self._ledger._this_writer)
        return answer

    def _write_waiting(self, connection: sqlite3.Connection) -> dict[str, int | None]:
        with self._waiting_lock:
            waiting = self._waiting.copy()
        for call_id, actual in waiting.items():
            if actual is None:
                _release(connection, call_id)
            else:
                settle_one(connection, call_id, actual)
        return waiting

    def _forget(self, written: dict[str, int | None]) -> None:
        with self._waiting_lock:
            for call_id, actual in written.items():
                if self._waiting.get(call_id, -1) == actual:  # not if another figure has come meanwhile
                    del self._waiting[call_id]


# SQL, in the caller's transaction

_SELECT_BUDGETS = "SELECT budget_id, scope, subject, period, limit_nanousd, hard, created_at_ms FROM budgets"
_SELECT_STANDING = (
    "SELECT limit_nanousd, hard, coalesce(spent_nanousd, 0), coalesce(reserved_nanousd, 0) FROM budgets "
    "LEFT JOIN budget_state ON budget_state.budget_id = budgets.budget_id AND period_start_ms = ? "
    "WHERE budgets.budget_id = ?"
)
_SELECT_RESERVATION = (
    "SELECT period_start_ms, coalesce(settled_nanousd, 0) FROM reservations WHERE call_id = ? AND budget_id = ?"
)
_MOVE_STATE = (
    "INSERT INTO budget_state (budget_id, period_start_ms, spent_nanousd, reserved_nanousd) VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET spent_nanousd = spent_nanousd + excluded.spent_nanousd, "
    "reserved_nanousd = reserved_nanousd + excluded.reserved_nanousd"
)
_PUT_RESERVATION = (
    "INSERT INTO reservations "
    "(call_id, budget_id, period_start_ms, reserved_at_ms, reserved_nanousd, settled_nanousd, writer) "
    "VALUES (?, ?, ?, ?, ?, NULL, ?) "
    "ON CONFLICT DO UPDATE SET "
    "reserved_nanousd = coalesce(settled_nanousd, reserved_nanousd) + excluded.reserved_nanousd, "
    "settled_nanousd = NULL, reserved_at_ms = excluded.reserved_at_ms, writer = excluded.writer"
)


_SELECT_OLDEST = (
    "SELECT call_id, budget_id, period_start_ms, reserved_at_ms, settled_nanousd, period FROM reservations "
    "LEFT JOIN budgets USING (budget_id) "
)
_NO_BATCH_THAT_RUNS = "call_id NOT IN (SELECT batch_id FROM batches WHERE ended_at_ms IS NULL)"
# Calls of the gateway have a kind; those of the library count in no budget.
_SELECT_SPENT = (
    "SELECT coalesce(sum(cost_nanousd), 0) FROM calls JOIN attempts USING (call_id) "
    "WHERE calls.started_at_ms >= ? AND json_extract(tags, '$.kind') IS NOT NULL AND outcome <> 'open'"
)
_OF_SCOPE = {
    BudgetScope.ALL: "",
    BudgetScope.PROJECT: " AND project = ?",
    BudgetScope.KEY: " AND key_id = ?",
}


def _usd(nanousd: int) -> str:
    return format_usd(nanousd_to_usd(nanousd))


def _budget(row: tuple[str, str, str, str, int, int, int]) -> Budget:
    budget_id, scope, subject, period, limit, hard, created = row
    return Budget(budget_id, BudgetScope(scope), subject, BudgetPeriod(period), limit, bool(hard), created)


def _try_to_reserve(
    connection: sqlite3.Connection, request: ReservationRequest, budgets: tuple[Budget, ...], now_ms: int, writer: str
) -> Reservation | BudgetExceeded:
    """Writes nothing where a hard budget has no room."""
    amount = request.amount_nanousd
    charged: list[tuple[Budget, int, int]] = []  # and its period, and what of it was settled already
    warnings: list[BudgetExceeded] = []
    for known in budgets:
        earlier = connection.execute(_SELECT_RESERVATION, (request.call_id, known.budget_id)).fetchone()
        start_ms, settled = earlier or (period_start_ms(known.period, now_ms), 0)
        row = connection.execute(_SELECT_STANDING, (start_ms, known.budget_id)).fetchone()
        if row is None:
            continue  # removed, within the second that `known` may be old
        limit, hard, spent, reserved = row
        budget = known if limit == known.limit_nanousd else replace(known, limit_nanousd=limit, hard=bool(hard))
        left = max(0, limit - spent - reserved)
        if amount > left:
            exceeded = BudgetExceeded(budget, left, period_end_ms(budget.period, now_ms), amount)
            if hard:
                return exceeded
            warnings.append(exceeded)
        charged.append((budget, start_ms, settled))
    for budget, start_ms, settled in charged:
        connection.execute(_MOVE_STATE, (budget.budget_id, start_ms, -settled, settled + amount))
        connection.execute(_PUT_RESERVATION, (request.call_id, budget.budget_id, start_ms, now_ms, amount, writer))
    return Reservation(request.call_id, tuple(budget for budget, _, _ in charged), tuple(warnings))


def settle_one(connection: sqlite3.Connection, call_id: str, actual_nanousd: int) -> None:
    """Replaces what was set aside for a call, or a batch, by what it cost, inside the caller's transaction."""
    rows = connection.execute(
        "SELECT budget_id, period_start_ms, reserved_nanousd, settled_nanousd FROM reservations WHERE call_id = ?",
        (call_id,),
    ).fetchall()
    for budget_id, start_ms, reserved, settled in rows:
        change = (actual_nanousd, -reserved) if settled is None else (actual_nanousd - settled, 0)
        connection.execute(_MOVE_STATE, (budget_id, start_ms, *change))
    connection.execute("UPDATE reservations SET settled_nanousd = ? WHERE call_id = ?", (actual_nanousd, call_id))


def _release(connection: sqlite3.Connection, call_id: str) -> None:
    rows = connection.execute(
        "DELETE FROM reservations WHERE call_id = ? AND settled_nanousd IS NULL "
        "RETURNING budget_id, period_start_ms, reserved_nanousd",
        (call_id,),
    ).fetchall()
    for budget_id, start_ms, reserved in rows:
        connection.execute(_MOVE_STATE, (budget_id, start_ms, 0, -reserved))


def _spent_since(connection: sqlite3.Connection, scope: BudgetScope, subject: str, start_ms: int) -> int:
    """What the gateway's calls of a scope have cost since then, as far as the ledger can tell."""
    values = (start_ms,) if scope is BudgetScope.ALL else (start_ms, subject)
    (spent,) = connection.execute(_SELECT_SPENT + _OF_SCOPE[scope], values).fetchone()
    return min(int(spent), MOST_NANOUSD)


def _carry(connection: sqlite3.Connection, budget_id: str, start_ms: int, nanousd: int, now_ms: int) -> None:
    """Adds to what counts for a budget without a call's row. The sum of the period is the caller's to move."""
    connection.execute(
        "INSERT INTO reservations "
        "(call_id, budget_id, period_start_ms, reserved_at_ms, reserved_nanousd, settled_nanousd, writer) "
        "VALUES (?, ?, ?, ?, 0, ?, '') ON CONFLICT DO UPDATE SET "
        "settled_nanousd = iif(period_start_ms = excluded.period_start_ms, settled_nanousd, 0) "
        "+ excluded.settled_nanousd, "
        "period_start_ms = excluded.period_start_ms, reserved_at_ms = excluded.reserved_at_ms",
        (_CARRIED, budget_id, start_ms, now_ms, nanousd),
    )


def _take_out_old(connection: sqlite3.Connection, now_ms: int) -> bool:
    """Takes out settled rows whose period is over, and adds up those that are a day old; whether there were any.

    Ids of calls grow with time, so the first rows are the oldest: what is behind as many young ones is younger still.
    """
    rows = connection.execute(f"{_SELECT_OLDEST} WHERE call_id = ?", (_CARRIED,)).fetchall()
    rows += connection.execute(
        f"{_SELECT_OLDEST} WHERE call_id > ? AND {_NO_BATCH_THAT_RUNS} ORDER BY call_id, budget_id LIMIT ?",
        (_CARRIED, _LOOKED_AT),
    ).fetchall()
    taken: list[tuple[str, str]] = []
    over: dict[tuple[str, int], int] = {}
    carried: dict[tuple[str, int], int] = {}
    for call_id, budget_id, start_ms, reserved_at_ms, settled, period in rows:
        age_ms = now_ms - reserved_at_ms
        if settled is None or age_ms <= _LONGEST_CALL_MS:
            continue
        current_ms = None if period is None else period_start_ms(BudgetPeriod(period), now_ms)
        if current_ms is None or start_ms < current_ms:
            sums = over
        elif start_ms == current_ms and age_ms > _CARRIED_AFTER_MS and call_id != _CARRIED:
            sums = carried
        else:
            continue
        taken.append((call_id, budget_id))
        sums[budget_id, start_ms] = sums.get((budget_id, start_ms), 0) + settled
    connection.executemany("DELETE FROM reservations WHERE call_id = ? AND budget_id = ?", taken)
    for (budget_id, start_ms), spent in over.items():
        connection.execute(_MOVE_STATE, (budget_id, start_ms, -spent, 0))
        connection.execute(
            "DELETE FROM budget_state WHERE budget_id = ? AND period_start_ms = ? "
            "AND spent_nanousd = 0 AND reserved_nanousd = 0",
            (budget_id, start_ms),
        )
    for (budget_id, start_ms), spent in carried.items():
        _carry(connection, budget_id, start_ms, spent, now_ms)
    return bool(taken)


def rebuild_state(connection: sqlite3.Connection) -> None:
    """Fills `budget_state` anew from `reservations`, inside the caller's transaction."""
    connection.execute("DELETE FROM budget_state")
    connection.execute(
        "INSERT INTO budget_state (budget_id, period_start_ms, spent_nanousd, reserved_nanousd) "
        "SELECT budget_id, period_start_ms, sum(coalesce(settled_nanousd, 0)), "
        "sum(iif(settled_nanousd IS NULL, reserved_nanousd, 0)) FROM reservations GROUP BY budget_id, period_start_ms"
    )


def settle_what_is_left(connection: sqlite3.Connection, now_ms: int) -> None:
    """Settles what processes that are gone had reserved; for a ledger that is being opened."""
    if not _left_behind(connection, now_ms):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _settle_the_dead(connection, now_ms)
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _left_behind(connection: sqlite3.Connection, now_ms: int) -> list[str]:
    """Calls that nobody will settle any more. A batch is settled by whoever reads its results, whenever that is."""
    rows = connection.execute(
        "SELECT DISTINCT call_id, writer, reserved_at_ms FROM reservations WHERE settled_nanousd IS NULL "
        "AND call_id NOT IN (SELECT batch_id FROM batches)"
    ).fetchall()
    alive = {writer: is_alive(writer) for writer in {row[1] for row in rows}}
    return [
        call_id
        for call_id, writer, reserved_at_ms in rows
        if alive[writer] is False or (alive[writer] is None and now_ms - reserved_at_ms > _LONGEST_CALL_MS)
    ]


def _settle_the_dead(connection: sqlite3.Connection, now_ms: int) -> bool:
    """Whether there was anything to settle."""
    found = _left_behind(connection, now_ms)
    for call_id in found:
        (cost,) = connection.execute(
            "SELECT coalesce(sum(cost_nanousd), 0) FROM attempts WHERE call_id = ? AND outcome <> 'open'", (call_id,)
        ).fetchone()
        settle_one(connection, call_id, cost)
    return bool(found)
