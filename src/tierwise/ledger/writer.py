"""Writes records for an event loop without holding it up: one thread, many records in one transaction.

A transaction a record costs an event loop under load more than the proxying does, and a locked database would stop
everything. So records are handed to a thread that takes whatever has gathered and writes it as one transaction. Who
must not go on before its record is safe awaits `written`; alone, that takes a transaction's time, and under load it
is shared by all that wait.

Nothing else changes: the ledger's own promises (spool, merge, order of records of a call) hold for each record.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from tierwise.core.decisions import AttemptRecord, CallRecord
from tierwise.ledger.store import Ledger

__all__ = ["LedgerWriter"]

Entry = tuple[CallRecord | None, tuple[AttemptRecord, ...]]
_Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"] | None

_MOST = 512  # records a transaction: bounds how long a reader or another process waits


class LedgerWriter:
    """A thread that writes to a ledger. Start it, hand it records in the order in which they happened, close it.

    `waiting` counts records that are not written yet.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._queue: queue.SimpleQueue[tuple[Entry, _Waiting] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Records that are still to be written."""
        return self._queue.qsize()

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name="tierwise-ledger", daemon=True)
        self._thread.start()

    def put(self, call: CallRecord | None, attempts: Sequence[AttemptRecord] = ()) -> None:
        """Hands a record over; returns at once."""
        self._queue.put(((call, tuple(attempts)), None))

    def written(self, call: CallRecord | None, attempts: Sequence[AttemptRecord] = ()) -> asyncio.Future[None]:
        """Hands a record over; the future is done once it is in the database (or safe in a spool)."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._queue.put(((call, tuple(attempts)), (loop, future)))
        return future

    def close(self) -> None:
        """Writes what is left, and ends the thread. The ledger stays open."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _run(self) -> None:
        going = True
        while going:
            item = self._queue.get()
            entries: list[Entry] = []
            futures: defaultdict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = defaultdict(list)
            while True:
                if item is None:
                    going = False
                    break
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
            self.ledger.write_entries(entries)
            for loop, done in futures.items():
                with suppress(RuntimeError):  # that loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_resolve, done)


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
