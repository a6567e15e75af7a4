"""Reserves and settles for an event loop without holding it up: one thread, many calls in one transaction.

As `tierwise.ledger.writer` does for records: what has gathered while a transaction ran goes into the next one. Alone, a
call waits as long as a transaction takes; under load that is shared by all that wait. A call that no budget is of
does not come here at all.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from enum import Enum

from tierwise.ledger.budgets import BudgetExceeded, Budgets, Reservation, ReservationRequest
from tierwise.ledger.turnstile import Turnstile

__all__ = ["BudgetDesk"]

_MOST = 512  # calls a transaction: bounds how long others wait
_AGAIN_SECONDS = 1.0  # what the ledger would not take is offered again after so long

_Answer = Reservation | BudgetExceeded


@dataclass(frozen=True, slots=True)
class _Asked:
    request: ReservationRequest
    now_ms: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[_Answer]


class _Signal(Enum):
    WRITE = "write"  # something is settled or released
    END = "end"


class BudgetDesk:
    """A thread that speaks with `Budgets`. Start it, ask it, close it when all calls are settled.

    `turnstile` is where processes queue that write all the time.
    """

    def __init__(self, budgets: Budgets, *, turnstile: Turnstile | None = None) -> None:
        self.budgets = budgets
        self._turnstile = turnstile
        self._queue: queue.SimpleQueue[_Asked | _Signal] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name="tierwise-budgets", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answers and writes what is left, and ends the thread. The ledger stays open."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(_Signal.END)
            thread.join()

    async def reserve(self, request: ReservationRequest, now_ms: int) -> Reservation | BudgetExceeded:
        """`Budgets.reserve`. Where who waits is cancelled, what was reserved is given back.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        if not self.budgets.applying(now_ms, key_id=request.key_id, project=request.project):
            return Reservation(request.call_id)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        self._queue.put(_Asked(request, now_ms, loop, future))
        return await future

    def settle(self, reservation: Reservation, actual_nanousd: int) -> None:
        """`Budgets.settle`; returns at once."""
        if reservation.budgets:
            self.budgets.settle_later(reservation, actual_nanousd)
            self._queue.put(_Signal.WRITE)

    def release(self, reservation: Reservation) -> None:
        """`Budgets.release`; returns at once."""
        if reservation.budgets:
            self.budgets.release_later(reservation)
            self._queue.put(_Signal.WRITE)

    def _run(self) -> None:
        going = True
        while going:
            asked, going = self._gather()
            with self._turnstile or nullcontext():
                if asked:
                    self._answer(asked)
                else:
                    self.budgets.write_waiting()

    def _gather(self) -> tuple[list[_Asked], bool]:
        """Who has asked, and whether more may."""
        asked: list[_Asked] = []
        with suppress(queue.Empty):
            item = self._queue.get(timeout=_AGAIN_SECONDS if self.budgets.waiting else None)
            while item is not _Signal.END:
                if isinstance(item, _Asked):
                    asked.append(item)
                    if len(asked) >= _MOST:
                        return asked, True
                item = self._queue.get_nowait()
            return asked, False
        return asked, True

    def _answer(self, asked: list[_Asked]) -> None:
        answers: list[_Answer | Exception]
        try:
            # The latest moment for all: they differ by what a transaction takes.
            now_ms = max(one.now_ms for one in asked)
            answers = list(self.budgets.reserve_many([one.request for one in asked], now_ms))
        except Exception as error:  # noqa: BLE001 whatever it is, who waits must hear of it, and the thread go on
            answers = [error] * len(asked)
        for one, answer in zip(asked, answers, strict=True):
            with suppress(RuntimeError):  # that loop is closed: nobody waits any more
                one.loop.call_soon_threadsafe(self._tell, one.future, answer)
                continue
            self._take_back(answer)

    def _tell(self, future: asyncio.Future[_Answer], answer: _Answer | Exception) -> None:
        if future.cancelled():
            self._take_back(answer)
        elif isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _take_back(self, answer: _Answer | Exception) -> None:
        if isinstance(answer, Reservation):
            self.release(answer)
