"""Writes records for an event loop without holding it up: many records in one transaction.

Theory of operation. A transaction a record costs an event loop under load more than the proxying does. So what is
handed over in one turn of the loop (in two milliseconds, where very much is) is written at its end, as one transaction,
on the loop's own thread: to hand it to another and back costs more than to write it. That holds as long as nothing has
to be waited for. Where somebody else holds the database's lock, the disk is slow, or the ledger is in trouble, records
go to a thread that takes whatever has gathered, and may wait; the loop never does. The log is moved into the database
by that thread, too, since that waits for the disk.

Who must not go on before its record is safe awaits `written`. Nothing else changes: the ledger's own promises (spool,
merge, order of records of a call) hold for each record, whichever way it goes.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from enum import Enum

from tierwise.core.decisions import AttemptRecord, CallRecord
from tierwise.core.errors import LedgerError
from tierwise.ledger.store import Ledger
from tierwise.ledger.summing import Summing
from tierwise.ledger.turnstile import Turnstile

__all__ = ["LedgerWriter"]

Entry = tuple[CallRecord | None, tuple[AttemptRecord, ...]]
_Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"] | None

_MOST = 512  # records a transaction: bounds how long a reader or another process waits
_MOST_AT_ONCE = 128  # records that an event loop writes itself: some milliseconds
_SLOW_SECONDS = 0.01  # transactions that take longer, on a moving average, say that the disk is slow
_PATIENT_SECONDS = 5.0  # for which the loop then leaves it to the thread
# Where records come closer together than this, so much time's are written together: nobody feels two milliseconds while
# a thousand calls a second run, and each transaction costs what four records do.
_CROWDED_SECONDS = 0.0004
_GATHER_SECONDS = 0.002
_CHECKPOINT_ENTRIES = 2_000  # about 16 MB of log


class _Signal(Enum):
    CHECKPOINT = "checkpoint"
    END = "end"


class LedgerWriter:
    """Writes to a ledger. Start it, hand it records in the order in which they happened, close it.

    `waiting` counts records that are not written yet. `turnstile` is where processes queue that write all the time.
    `summing` makes the sums that the ledger lacks.
    """

    def __init__(self, ledger: Ledger, *, turnstile: Turnstile | None = None) -> None:
        self.ledger = ledger
        self._turnstile = turnstile
        self._queue: queue.SimpleQueue[tuple[Entry, _Waiting] | _Signal] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._turn: list[tuple[Entry, _Waiting]] = []  # handed over in this turn of the loop
        self._since_checkpoint = 0
        self._latest = 0.0  # when a record came
        self._usual_gap = 1.0  # seconds between records, a moving average
        self._usual_seconds = 0.0
        self._slow_until = 0.0
        self.summing = Summing(ledger)

    @property
    def waiting(self) -> int:
        """Records that are still to be written."""
        return self._queue.qsize() + len(self._turn)

    def start(self) -> None:
        """Starts the thread."""
        with suppress(LedgerError):  # of one in trouble every record tells
            self.ledger.open()
        self._thread = threading.Thread(target=self._run, name="tierwise-ledger", daemon=True)
        self._thread.start()
        self.summing.start()

    def put(self, call: CallRecord | None, attempts: Sequence[AttemptRecord] = ()) -> None:
        """Hands a record over; returns at once."""
        self._queue.put(((call, tuple(attempts)), None))

    def written(self, call: CallRecord | None, attempts: Sequence[AttemptRecord] = ()) -> asyncio.Future[None]:
        """Hands a record over; the future is done once it is in the database (or safe in a spool)."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        now = time.monotonic()
        self._usual_gap += (now - self._latest - self._usual_gap) / 64
        self._latest = now
        if not self._turn:
            if self._usual_gap < _CROWDED_SECONDS:
                loop.call_later(_GATHER_SECONDS, self._end_of_turn)
            else:
                loop.call_soon(self._end_of_turn)
        self._turn.append(((call, tuple(attempts)), (loop, future)))
        return future

    def close(self) -> None:
        """Writes what is left, and ends the thread. The ledger stays open."""
        self._hand_over()
        self.summing.close()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(_Signal.END)
            thread.join()

    def _end_of_turn(self) -> None:
        turn = self._turn
        if not turn:  # it was handed over when the writer was closed
            return
        if len(turn) > _MOST_AT_ONCE or not self._queue.empty():
            self._hand_over()
            return
        began = time.monotonic()
        if began < self._slow_until or not self._write_at_once([entry for entry, _ in turn]):
            self._hand_over()
            return
        self._turn = []
        for _, waiting in turn:
            if waiting is not None and not waiting[1].done():
                waiting[1].set_result(None)
        ended = time.monotonic()
        self._usual_seconds += (ended - began - self._usual_seconds) / 10
        if self._usual_seconds > _SLOW_SECONDS:
            self._usual_seconds, self._slow_until = 0.0, ended + _PATIENT_SECONDS
        self._since_checkpoint += len(turn)
        if self._since_checkpoint >= _CHECKPOINT_ENTRIES:
            self._since_checkpoint = 0
            self._queue.put(_Signal.CHECKPOINT)

    def _write_at_once(self, entries: Sequence[Entry]) -> bool:
        turnstile = self._turnstile
        if turnstile is None:
            return self.ledger.write_at_once(entries)
        if not turnstile.enter_at_once():
            return False
        try:
            return self.ledger.write_at_once(entries)
        finally:
            turnstile.leave()

    def _hand_over(self) -> None:
        turn, self._turn = self._turn, []
        for item in turn:
            self._queue.put(item)

    def _run(self) -> None:
        going = True
        while going:
            item = self._queue.get()
            entries: list[Entry] = []
            futures: defaultdict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = defaultdict(list)
            checkpoint = False
            while True:
                if item is _Signal.END:
                    going = False
                    break
                if item is _Signal.CHECKPOINT:
                    checkpoint = True
                else:
                    entry, waiting = item
                    entries.append(entry)
                    if waiting is not None:
                        futures[waiting[0]].append(waiting[1])
                    if len(entries) >= _MOST:
                        break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if entries:
                with self._turnstile or nullcontext():
                    self.ledger.write_entries(entries)
            for loop, done in futures.items():
                with suppress(RuntimeError):  # that loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_resolve, done)
            if checkpoint:
                with suppress(LedgerError):  # the next write says what is wrong
                    self.ledger.sum_up()
                    self.ledger.checkpoint()


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
