"""The desk: budgets for an event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from tests.ledger.test_budgets import NOW, assert_sums_are_those_of_the_calls, on_all, used
from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger import Ledger
from tierwise.ledger.budgets import BudgetExceeded, Budgets, Reservation, ReservationRequest
from tierwise.ledger.desk import BudgetDesk


@pytest.fixture
def desk(opened: Callable[..., Ledger]) -> Iterator[BudgetDesk]:
    found = BudgetDesk(Budgets(opened(busy_timeout_ms=10)))
    found.start()
    yield found
    found.close()


async def test_200_calls_at_once_never_overshoot(desk: BudgetDesk) -> None:
    """As many go as there is room for, in the order in which they asked; what they cost is exact when it closes."""
    on_all(desk.budgets, 1000)
    answers = await asyncio.gather(*(desk.reserve(ReservationRequest(f"c{n:03}", 30), NOW) for n in range(200)))
    went = [answer for answer in answers if isinstance(answer, Reservation)]
    assert [one.call_id for one in went] == [f"c{n:03}" for n in range(33)]
    assert all(isinstance(answer, BudgetExceeded) for answer in answers[33:])
    for one in went[:30]:
        desk.settle(one, 7)
    for one in went[30:]:
        desk.release(one)
    desk.close()
    assert used(desk.budgets) == [(210, 0)]
    assert_sums_are_those_of_the_calls(desk.budgets, desk.budgets._ledger)


async def test_call_without_a_budget_does_not_wait(desk: BudgetDesk) -> None:
    """Where no budget applies the answer is there without the thread, which need not run."""
    desk.close()
    assert await desk.reserve(ReservationRequest("a", 30, "k", "p"), NOW) == Reservation("a")


async def test_cancelled_call_gives_back_what_was_reserved_for_it(desk: BudgetDesk) -> None:
    """A client that goes away while its call waits for room takes none with it."""
    on_all(desk.budgets, 100)
    waiting = asyncio.create_task(desk.reserve(ReservationRequest("a", 100), NOW))
    await asyncio.sleep(0)  # it has asked
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    while isinstance(await desk.reserve(ReservationRequest("b", 100), NOW), BudgetExceeded):
        await asyncio.sleep(0.01)
    assert used(desk.budgets) == [(0, 100)]


def test_loop_that_is_gone_leaves_nothing_reserved(desk: BudgetDesk) -> None:
    """A call whose event loop was closed while it waited is given back too."""
    on_all(desk.budgets, 100)
    desk.close()  # what is asked now stays in the queue until it is started again

    async def ask() -> None:
        asked = asyncio.ensure_future(desk.reserve(ReservationRequest("a", 100), NOW))
        await asyncio.sleep(0)
        asked.cancel()

    asyncio.run(ask())
    desk.start()
    desk.close()
    desk.start()
    desk.close()
    assert used(desk.budgets) == [(0, 0)]


async def test_trouble_reaches_who_asks_and_settlements_wait(desk: BudgetDesk) -> None:
    """While the ledger is locked nobody is told that there is room; what was settled is written when it is free."""
    on_all(desk.budgets, 100)
    first = await desk.reserve(ReservationRequest("a", 10), NOW)
    assert isinstance(first, Reservation)
    other = sqlite3.connect(desk.budgets._ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    desk.settle(first, 4)
    with pytest.raises(LedgerUnavailable):
        await desk.reserve(ReservationRequest("b", 10), NOW)
    other.rollback()
    other.close()
    assert isinstance(await desk.reserve(ReservationRequest("c", 10), NOW), Reservation)
    assert used(desk.budgets) == [(4, 10)]
