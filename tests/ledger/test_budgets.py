"""Budgets: never overshot by calls at the same time, exact to the nano-dollar, and no reservation is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.records import attempt, call
from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger import Ledger
from tierwise.ledger.budgets import (
    Budget,
    BudgetExceeded,
    BudgetPeriod,
    Budgets,
    BudgetScope,
    Reservation,
    ReservationRequest,
    period_end_ms,
    period_start_ms,
)

Opener = Callable[..., Ledger]
DAY = 86_400_000
NOW = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()) * 1000
MIDNIGHT = NOW + DAY // 2


def on_all(budgets: Budgets, limit: int, period: BudgetPeriod = BudgetPeriod.DAY, *, hard: bool = True) -> Budget:
    return budgets.set(BudgetScope.ALL, "", period, limit, NOW, hard=hard)


def reserved(answer: Reservation | BudgetExceeded) -> Reservation:
    assert isinstance(answer, Reservation)
    return answer


def used(budgets: Budgets, now_ms: int = NOW) -> list[tuple[int, int]]:
    return [(one.spent_nanousd, one.reserved_nanousd) for one in budgets.standings(now_ms)]


def assert_sums_are_those_of_the_calls(budgets: Budgets, ledger: Ledger) -> None:
    def state() -> list[tuple[object, ...]]:
        with ledger._snapshot() as connection:
            return connection.execute(
                "SELECT * FROM budget_state WHERE spent_nanousd OR reserved_nanousd ORDER BY 1, 2"
            ).fetchall()

    before = state()
    budgets.rebuild()
    assert state() == before


# What a reservation does


def test_reserved_amount_is_replaced_by_the_actual_one(ledger: Ledger) -> None:
    """While a call runs its most counts; when it is done, what it cost."""
    budgets = Budgets(ledger)
    on_all(budgets, 100)
    reservation = reserved(budgets.reserve("a", 60, NOW))
    assert used(budgets) == [(0, 60)]
    budgets.settle(reservation, 25)
    assert used(budgets) == [(25, 0)]
    assert budgets.standings(NOW)[0].left_nanousd == 75


def test_full_budget_refuses_and_says_which_how_much_and_until_when(ledger: Ledger) -> None:
    """The refusal has all that a client must be told, as values and in words, and reserves nothing."""
    budgets = Budgets(ledger)
    budget = budgets.set(BudgetScope.PROJECT, "search", BudgetPeriod.DAY, 5_000_000_000, NOW)
    budgets.settle(reserved(budgets.reserve("a", 4_000_000_000, NOW, project="search")), 4_500_000_000)
    answer = budgets.reserve("b", 500_000_001, NOW, project="search")
    assert answer == BudgetExceeded(budget, 500_000_000, MIDNIGHT, 500_000_001)
    assert str(answer) == (
        f"budget {budget.budget_id} of project 'search', $5.00 a day: $0.50 is left, and this call may cost up to "
        "$0.500000001; it resets at 2026-11-24T00:00Z"
    )
    assert used(budgets) == [(4_500_000_000, 0)]
    assert isinstance(budgets.reserve("c", 500_000_000, NOW, project="search"), Reservation)


def test_budget_in_total_says_that_it_does_not_reset(ledger: Ledger) -> None:
    """Who has used it up is told what to do instead of waiting."""
    budgets = Budgets(ledger)
    on_all(budgets, 1, BudgetPeriod.TOTAL)
    answer = budgets.reserve("a", 2, NOW)
    assert isinstance(answer, BudgetExceeded)
    assert answer.resets_at_ms is None
    assert "does not reset: raise it with `tierwise budgets set`" in str(answer)


def test_released_reservation_leaves_nothing(ledger: Ledger) -> None:
    """A call that was never sent counts nowhere; releasing what is settled changes nothing."""
    budgets = Budgets(ledger)
    on_all(budgets, 100)
    budgets.release(reserved(budgets.reserve("a", 60, NOW)))
    assert used(budgets) == [(0, 0)]
    settled = reserved(budgets.reserve("b", 60, NOW))
    budgets.settle(settled, 7)
    budgets.release(settled)
    assert used(budgets) == [(7, 0)]


def test_call_counts_against_its_key_its_project_and_everything(ledger: Ledger) -> None:
    """Each budget sees the calls of its own subject, and a full one refuses without touching the others."""
    budgets = Budgets(ledger)
    whole = on_all(budgets, 100)
    key = budgets.set(BudgetScope.KEY, "k", BudgetPeriod.MONTH, 30, NOW)
    project = budgets.set(BudgetScope.PROJECT, "p", BudgetPeriod.TOTAL, 50, NOW)

    def states() -> dict[str, int]:
        return {one.budget.budget_id: one.reserved_nanousd for one in budgets.standings(NOW)}

    assert set(reserved(budgets.reserve("a", 20, NOW, key_id="k", project="p")).budgets) == {whole, key, project}
    assert reserved(budgets.reserve("b", 5, NOW, key_id="other", project="other")).budgets == (whole,)
    answer = budgets.reserve("c", 11, NOW, key_id="k", project="p")
    assert isinstance(answer, BudgetExceeded)
    assert answer.budget == key
    assert states() == {whole.budget_id: 25, key.budget_id: 20, project.budget_id: 20}


def test_soft_budget_warns_and_lets_through(ledger: Ledger) -> None:
    """A warning says the same as a refusal, and the call counts."""
    budgets = Budgets(ledger)
    budget = on_all(budgets, 10, hard=False)
    assert reserved(budgets.reserve("a", 10, NOW)).warnings == ()
    answer = reserved(budgets.reserve("b", 3, NOW))
    assert answer.warnings == (BudgetExceeded(budget, 0, MIDNIGHT, 3),)
    budgets.settle(answer, 2)
    assert used(budgets) == [(2, 10)]


def test_call_that_costs_nothing_is_never_refused(ledger: Ledger) -> None:
    """The local tier still works when all money is spent, and more than all."""
    budgets = Budgets(ledger)
    on_all(budgets, 10)
    budgets.settle(reserved(budgets.reserve("a", 10, NOW)), 12)
    assert isinstance(budgets.reserve("b", 0, NOW), Reservation)
    assert isinstance(budgets.reserve("c", 1, NOW), BudgetExceeded)


def test_call_may_reserve_more_as_it_goes(ledger: Ledger) -> None:
    """A climb to a dearer rung adds to what is reserved; the settlement is of the whole call, also a second one."""
    budgets = Budgets(ledger)
    on_all(budgets, 100)
    reservation = reserved(budgets.reserve("a", 10, NOW))
    assert isinstance(budgets.reserve("a", 91, NOW), BudgetExceeded)
    assert used(budgets) == [(0, 10)]
    budgets.reserve("a", 40, NOW)
    assert used(budgets) == [(0, 50)]
    budgets.settle(reservation, 30)
    assert used(budgets) == [(30, 0)]
    budgets.reserve("a", 5, NOW)
    assert used(budgets) == [(0, 35)]
    budgets.settle(reservation, 33)
    budgets.settle(reservation, 34)
    assert used(budgets) == [(34, 0)]
    assert_sums_are_those_of_the_calls(budgets, ledger)


@pytest.mark.parametrize("amount", [-1, 10**18 + 1])
def test_impossible_amount_is_refused(amount: int) -> None:
    """A reservation is of an amount that a budget can hold."""
    with pytest.raises(ValueError, match="amount_nanousd must be"):
        ReservationRequest("a", amount)


# Periods


@pytest.mark.parametrize(
    ("period", "moment", "start", "end"),
    [
        (BudgetPeriod.DAY, "2026-11-23T00:00:00", "2026-11-23", "2026-11-24"),
        (BudgetPeriod.DAY, "2026-12-31T23:59:59.999", "2026-12-31", "2027-01-01"),
        (BudgetPeriod.MONTH, "2026-12-31T23:59:59.999", "2026-12-01", "2027-01-01"),
        (BudgetPeriod.MONTH, "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
        (BudgetPeriod.MONTH, "2026-02-01T00:00:00", "2026-02-01", "2026-03-01"),
    ],
)
def test_periods_begin_at_midnight_utc(period: BudgetPeriod, moment: str, start: str, end: str) -> None:
    """Days and calendar months, whatever the time zone of the machine."""

    def ms(text: str) -> int:
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

    assert (period_start_ms(period, ms(moment)), period_end_ms(period, ms(moment))) == (ms(start), ms(end))


def test_new_period_begins_empty_and_a_call_counts_where_it_began(ledger: Ledger) -> None:
    """What was reserved before midnight and settled after it belongs to the day before."""
    budgets = Budgets(ledger)
    on_all(budgets, 100)
    late = reserved(budgets.reserve("a", 90, MIDNIGHT - 1))
    assert isinstance(budgets.reserve("b", 90, MIDNIGHT - 1), BudgetExceeded)
    assert isinstance(budgets.reserve("c", 90, MIDNIGHT), Reservation)
    budgets.settle(late, 80)
    assert used(budgets, MIDNIGHT - 1) == [(80, 0)]
    assert used(budgets, MIDNIGHT) == [(0, 90)]


# Setting


def test_setting_again_changes_the_limit_and_keeps_what_is_spent(opened: Opener) -> None:
    """A raised limit helps at once, in every process: the limit that counts is the one in the ledger."""
    here, elsewhere = Budgets(opened()), Budgets(opened())
    first = on_all(here, 10)
    here.settle(reserved(here.reserve("a", 10, NOW)), 10)
    assert isinstance(elsewhere.reserve("b", 5, NOW), BudgetExceeded)
    changed = on_all(here, 15)
    assert changed.budget_id == first.budget_id
    assert isinstance(elsewhere.reserve("b", 5, NOW), Reservation)
    on_all(here, 15, hard=False)
    assert reserved(elsewhere.reserve("c", 5, NOW)).warnings


def test_new_and_removed_budgets_are_known_elsewhere_within_a_second(opened: Opener) -> None:
    """A gateway need not be told; a call in between may miss a new budget, never meet a removed one."""
    here, elsewhere = Budgets(opened()), Budgets(opened())
    assert elsewhere.reserve("a", 5, NOW) == Reservation("a")
    budget = on_all(here, 1)
    assert isinstance(elsewhere.reserve("b", 5, NOW + 1000), BudgetExceeded)
    assert here.remove(budget.budget_id) == budget
    assert elsewhere.reserve("c", 5, NOW + 1001) == Reservation("c")
    assert here.remove(budget.budget_id) is None
    assert used(here) == []


def test_settling_after_its_budget_was_removed_is_no_error(ledger: Ledger) -> None:
    """A call in flight ends as if there had been none."""
    budgets = Budgets(ledger)
    budget = on_all(budgets, 10)
    reservation = reserved(budgets.reserve("a", 5, NOW))
    budgets.remove(budget.budget_id)
    budgets.settle(reservation, 5)
    assert budgets.waiting == 0
    assert_sums_are_those_of_the_calls(budgets, ledger)


@pytest.mark.parametrize(
    ("scope", "subject", "limit"),
    [(BudgetScope.ALL, "x", 1), (BudgetScope.KEY, "", 1), (BudgetScope.ALL, "", -1), (BudgetScope.ALL, "", 10**19)],
)
def test_senseless_budget_is_refused(ledger: Ledger, scope: BudgetScope, subject: str, limit: int) -> None:
    """A subject where it belongs, and a limit that can be stored."""
    with pytest.raises(ValueError, match=r"scope|limit_nanousd"):
        Budgets(ledger).set(scope, subject, BudgetPeriod.DAY, limit, NOW)


def test_without_a_budget_nothing_is_written(ledger: Ledger) -> None:
    """A call that no budget is of does not touch the database, however many there are."""
    budgets = Budgets(ledger)
    budgets.set(BudgetScope.PROJECT, "p", BudgetPeriod.DAY, 10, NOW)
    budgets.applying(NOW)
    with ledger._transaction() as connection:
        changes = connection.total_changes
    for n in range(100):
        reservation = reserved(budgets.reserve(f"c{n}", 10**12, NOW, key_id="k", project="q"))
        budgets.settle(reservation, 5)
        budgets.release(reservation)
    with ledger._transaction() as connection:
        assert connection.total_changes == changes


# Many at once


def test_200_threads_never_overshoot_a_hard_budget(ledger: Ledger) -> None:
    """Of 200 calls at once exactly as many go as there is room for, and what is left is exact to the end."""
    budgets = Budgets(ledger)
    on_all(budgets, 1000)
    together = threading.Barrier(200)
    answers: list[Reservation | BudgetExceeded] = []

    def ask(n: int) -> None:
        together.wait()
        answers.append(budgets.reserve(f"c{n}", 30, NOW))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    went = [answer for answer in answers if isinstance(answer, Reservation)]
    assert (len(answers), len(went)) == (200, 33)
    assert used(budgets) == [(0, 990)]
    settlers = [threading.Thread(target=budgets.settle, args=(one, 7)) for one in went]
    for thread in settlers:
        thread.start()
    for thread in settlers:
        thread.join()
    assert used(budgets) == [(33 * 7, 0)]
    assert_sums_are_those_of_the_calls(budgets, ledger)


def _spend(path: Path, name: str, count: int, seed: int) -> None:
    ledger = Ledger(path, busy_timeout_ms=60_000, spool_dirs=())
    budgets = Budgets(ledger)
    chance = random.Random(seed)
    for n in range(count):
        answer = budgets.reserve(f"{name}-{n}", 100, NOW, key_id=name)
        if isinstance(answer, Reservation):
            if chance.random() < 0.2:
                budgets.release(answer)
            else:
                budgets.settle(answer, chance.randrange(101))
    ledger.close()


def test_4_processes_never_overshoot_a_hard_budget(opened: Opener) -> None:
    """However four processes take turns, no moment sees more spent and reserved than the limit, and no call is lost."""
    ledger = opened()
    budgets = Budgets(ledger)
    limit = 3_000
    on_all(budgets, limit)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_spend, args=(ledger.path, f"p{i}", 40, i)) for i in range(4)]
    for worker in workers:
        worker.start()
    most = 0
    while any(worker.is_alive() for worker in workers):
        most = max(most, *(spent + waiting for spent, waiting in used(budgets)))
        time.sleep(0.05)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    ((spent, still),) = used(budgets)
    assert still == 0
    assert limit - 100 < spent <= limit, "used up, as there were more calls than room"
    assert most <= limit
    assert_sums_are_those_of_the_calls(budgets, ledger)


# Processes that die


RESERVE_AND_DIE = """
import os, signal, sys
from tests.ledger.records import attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Ledger
from tierwise.ledger.budgets import Budgets
ledger = Ledger(sys.argv[1], spool_dirs=())
budgets = Budgets(ledger)
now = int(sys.argv[2])
for n in range(9):
    budgets.reserve(f"dead-{n}", 100, now)
ledger.record(call("dead-0"), [attempt("dead-0", cost_nanousd=40), attempt("dead-0", 2, cost_nanousd=20)])
ledger.start(call("dead-1", status=CallStatus.OPEN), attempt("dead-1", outcome=OutcomeKind.OPEN, cost_nanousd=77))
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def die(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESERVE_AND_DIE, str(path), str(NOW)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "ready\n"), done.stderr


def test_killed_process_leaves_no_reservation(opened: Opener) -> None:
    """When the ledger is opened after kill -9, only what is on record as spent counts: nothing leaks."""
    ledger = opened()
    budgets = Budgets(ledger)
    on_all(budgets, 1000)
    ledger.close()
    die(ledger.path)
    assert used(Budgets(opened())) == [(60, 0)]
    assert_sums_are_those_of_the_calls(budgets, ledger)


def test_room_that_a_killed_process_holds_is_taken_back_before_a_refusal(opened: Opener) -> None:
    """A gateway that has the ledger open for days does not need to open it anew when a sibling dies."""
    ledger = opened()
    budgets = Budgets(ledger)
    on_all(budgets, 1000)
    assert isinstance(budgets.reserve("mine", 50, NOW), Reservation)
    die(ledger.path)
    assert used(budgets) == [(0, 950)]
    assert isinstance(budgets.reserve("next", 800, NOW), Reservation)
    assert used(budgets) == [(60, 850)]


def test_running_process_keeps_its_reservations(opened: Opener) -> None:
    """Opening a ledger takes nothing from who is alive, and from a process of another host not for an hour."""
    ledger = opened()
    budgets = Budgets(ledger)
    on_all(budgets, 1000)
    for name in ("mine", "theirs"):
        budgets.reserve(name, 10, NOW)
    with ledger._transaction() as connection:
        connection.execute("UPDATE reservations SET writer = ? WHERE call_id = 'theirs'", ("1:2:3:4:another-host",))
    assert used(Budgets(opened(clock_ms=lambda: NOW + 3_600_000))) == [(0, 20)]
    assert used(Budgets(opened(clock_ms=lambda: NOW + 3_600_001))) == [(0, 10)]


def test_spooled_cost_of_a_killed_process_counts(opened: Opener) -> None:
    """What a dead process could write only to its spool is folded in before its calls are settled."""
    ledger = opened()
    budgets = Budgets(ledger)
    on_all(budgets, 1000)
    ledger.close()
    die(ledger.path)
    from tierwise.ledger.codec import entry_to_line

    line = entry_to_line((call("dead-5"), (attempt("dead-5", cost_nanousd=33),)))
    ledger.path.with_name(f"{ledger.path.name}.spool-1.jsonl").write_text(line + "\n")
    assert used(budgets) == [(60 + 33, 0)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_reserves_as_itself(opened: Opener) -> None:
    """A child's reservations are its own: they end with it, and its parent's stay."""
    ledger = opened()
    budgets = Budgets(ledger)
    on_all(budgets, 1000)
    budgets.reserve("parent", 10, NOW)
    child = os.fork()
    if child == 0:
        budgets.reserve("child", 20, NOW)
        os._exit(0 if used(budgets) == [(0, 30)] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert used(Budgets(opened())) == [(0, 10)]


# Trouble


def test_settlement_waits_while_the_ledger_cannot_be_written(opened: Opener) -> None:
    """A call that is done is not held up; its reservation stands, and it is settled with the next one."""
    ledger = opened(busy_timeout_ms=10)
    budgets = Budgets(ledger)
    on_all(budgets, 100)
    first, second = (reserved(budgets.reserve(name, 20, NOW)) for name in "ab")
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    budgets.settle(first, 5)
    budgets.release(second)
    assert budgets.waiting == 2
    with pytest.raises(LedgerUnavailable):
        budgets.reserve("c", 1, NOW)
    other.rollback()
    other.close()
    assert used(budgets) == [(0, 40)]
    budgets.reserve("d", 1, NOW)
    assert (budgets.waiting, budgets.write_waiting()) == (0, True)
    assert used(budgets) == [(5, 1)]
    assert_sums_are_those_of_the_calls(budgets, ledger)


def test_older_ledger_gets_the_tables(opened: Opener) -> None:
    """A ledger from before there were budgets takes them, and keeps its calls."""
    from tierwise.ledger import connection, schema

    path = opened().path
    connection.open_database(path, synchronous="normal", busy_timeout_ms=100, migrations=schema.MIGRATIONS[:3]).close()
    ledger = opened()
    ledger.record(call(), [attempt(outcome=OutcomeKind.ACCEPTED)])
    budgets = Budgets(ledger)
    on_all(budgets, 10)
    assert isinstance(budgets.reserve("a", 5, NOW), Reservation)
    assert ledger.get("call-1") is not None


# What is old


def rows(ledger: Ledger) -> list[tuple[str, int | None]]:
    with ledger._snapshot() as connection:
        return connection.execute("SELECT call_id, settled_nanousd FROM reservations ORDER BY 1, 2").fetchall()


def spend(budgets: Budgets, call_id: str, nanousd: int, now_ms: int) -> None:
    """A call; it is settled in the next transaction."""
    budgets.settle_later(reserved(budgets.reserve(call_id, nanousd, now_ms)), nanousd)


def test_settled_calls_leave_with_their_period(ledger: Ledger) -> None:
    """What a day's budget had of yesterday is gone with the first call of today, and its sum too; what runs stays."""
    budgets = Budgets(ledger)
    on_all(budgets, 1_000)
    for number in range(5):
        spend(budgets, f"c{number}", 10, NOW)
    open_one = reserved(budgets.reserve("c5", 10, NOW))
    spend(budgets, "c6", 7, NOW + DAY)
    assert rows(ledger) == [("c5", None), ("c6", None)]
    assert_sums_are_those_of_the_calls(budgets, ledger)
    budgets.settle(open_one, 3)
    assert_sums_are_those_of_the_calls(budgets, ledger)
    spend(budgets, "c7", 1, NOW + 2 * DAY)
    assert rows(ledger) == [("c7", None)]


def test_what_has_just_ended_stays_for_an_hour(ledger: Ledger) -> None:
    """Over midnight: a call may be settled again as long as it may run."""
    budgets = Budgets(ledger)
    on_all(budgets, 1_000)
    spend(budgets, "c0", 10, MIDNIGHT - 1)
    spend(budgets, "c1", 10, MIDNIGHT + 3_600_000 - 2)
    assert [row[0] for row in rows(ledger)] == ["c0", "c1"]


@pytest.mark.parametrize("period", [BudgetPeriod.MONTH, BudgetPeriod.TOTAL])
def test_in_a_period_that_goes_on_old_calls_are_added_up(ledger: Ledger, period: BudgetPeriod) -> None:
    """One row has what they cost: the budget stands as it stood, also when it is computed anew."""
    budgets = Budgets(ledger)
    on_all(budgets, 1_000, period)
    for day in range(4):
        for number in range(3):
            spend(budgets, f"d{day}-{number}", 10, NOW + day * DAY)
    budgets.write_waiting()
    # Of the third day nothing is older than a day when the last of the fourth is settled.
    assert rows(ledger)[0] == ("", 60)
    assert len(rows(ledger)) == 1 + 6
    assert used(budgets, NOW + 4 * DAY) == [(120, 0)]
    assert_sums_are_those_of_the_calls(budgets, ledger)


def test_what_was_added_up_goes_with_its_period(ledger: Ledger) -> None:
    """In the next month the budget is empty, and so is the table."""
    budgets = Budgets(ledger)
    on_all(budgets, 1_000, BudgetPeriod.MONTH)
    spend(budgets, "a", 10, NOW)
    spend(budgets, "b", 10, NOW + 2 * DAY)
    spend(budgets, "c", 10, NOW + 2 * DAY)
    assert rows(ledger)[0] == ("", 10)
    later = NOW + 40 * DAY
    spend(budgets, "d", 10, later)
    assert rows(ledger) == [("d", None)]
    assert used(budgets, later) == [(0, 10)]
    assert_sums_are_those_of_the_calls(budgets, ledger)


def test_old_calls_leave_some_at_a_time(ledger: Ledger) -> None:
    """No call waits for a thousand rows of others; and all of them leave in the end."""
    budgets = Budgets(ledger)
    on_all(budgets, 10_000)
    requests = [ReservationRequest(f"c{number:04}", 1) for number in range(1_000)]
    for answer in budgets.reserve_many(requests, NOW):
        budgets.settle_later(reserved(answer), 1)
    left = []
    for number in range(10):
        spend(budgets, f"d{number}", 1, NOW + DAY)
        left.append(sum(call_id.startswith("c") for call_id, _ in rows(ledger)))
    assert left == [max(0, 1_000 - 128 * (number + 1)) for number in range(10)]


# What was spent before


def gateway_call(ledger: Ledger, call_id: str, nanousd: int | None, at_ms: int = NOW, **changes: object) -> None:
    given = {"started_at_ms": at_ms, "tags": (("kind", "main"),), **changes}
    ledger.record(call(call_id, **given), [attempt(call_id, started_at_ms=at_ms, cost_nanousd=nanousd)])


def test_a_new_budget_counts_what_was_spent_in_its_period(ledger: Ledger) -> None:
    """Of its project or of everything, by the gateway's calls, since the period began; the library's have no budget."""
    gateway_call(ledger, "a", 100, project="search")
    gateway_call(ledger, "b", 20, project="other")
    gateway_call(ledger, "c", None, project="search")
    gateway_call(ledger, "d", 3_000, NOW - DAY, project="search")
    gateway_call(ledger, "e", 40_000, project="search", tags=())
    budgets = Budgets(ledger)
    budgets.set(BudgetScope.PROJECT, "search", BudgetPeriod.DAY, 150, NOW)
    budgets.set(BudgetScope.PROJECT, "search", BudgetPeriod.MONTH, 10_000, NOW)
    budgets.set(BudgetScope.ALL, "", BudgetPeriod.TOTAL, 10_000, NOW)
    found = {(one.budget.scope, one.budget.period): one.spent_nanousd for one in budgets.standings(NOW)}
    assert list(found.values()) == [3_120, 100, 3_100]
    refused = budgets.reserve("f", 51, NOW, project="search")
    assert isinstance(refused, BudgetExceeded)
    assert refused.left_nanousd == 50
    assert_sums_are_those_of_the_calls(budgets, ledger)


def test_a_new_budget_of_a_key_counts_what_its_calls_have_cost(ledger: Ledger) -> None:
    """Calls record the key that they came with; those that came with another, or without one, are not of it."""
    gateway_call(ledger, "a", 100, key_id="k")
    gateway_call(ledger, "b", 20, key_id="l")
    gateway_call(ledger, "c", 3)
    budgets = Budgets(ledger)
    budgets.set(BudgetScope.KEY, "k", BudgetPeriod.DAY, 150, NOW)
    assert used(budgets) == [(100, 0)]


def test_a_budget_that_is_changed_counts_nothing_twice(ledger: Ledger) -> None:
    """What was counted when it was made, and since, is all that counts when its limit changes."""
    gateway_call(ledger, "a", 100)
    budgets = Budgets(ledger)
    on_all(budgets, 1_000)
    spend(budgets, "b", 30, NOW)
    gateway_call(ledger, "b", 30)
    on_all(budgets, 2_000)
    budgets.write_waiting()
    assert used(budgets) == [(130, 0)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "release"]),
        st.integers(0, 4),
        st.integers(0, 60),
        st.sampled_from([NOW, MIDNIGHT, NOW + 40 * DAY]),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_sums_are_those_of_the_calls_after_any_steps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, int]]
) -> None:
    """Whatever is reserved, settled and released in whatever order, the running sums are those of the rows."""
    with Ledger(tmp_path_factory.mktemp("steps") / "ledger.db", spool_dirs=()) as ledger:
        budgets = Budgets(ledger)
        made = [
            on_all(budgets, 100),
            budgets.set(BudgetScope.KEY, "k0", BudgetPeriod.MONTH, 70, NOW),
            budgets.set(BudgetScope.PROJECT, "p0", BudgetPeriod.TOTAL, 50, NOW, hard=False),
        ]
        for what, n, amount, now in steps:
            reservation = Reservation(f"c{n}", tuple(made))
            match what:
                case "reserve":
                    budgets.reserve(f"c{n}", amount, now, key_id=f"k{n % 2}", project=f"p{n % 3}")
                case "settle":
                    budgets.settle(reservation, amount)
                case _:
                    budgets.release(reservation)
        assert_sums_are_those_of_the_calls(budgets, ledger)
