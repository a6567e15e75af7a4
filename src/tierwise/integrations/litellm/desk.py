"""The desk where calls of LiteLLM's router are decided and recorded: a thread of its own, for any loop and thread.

Whether a model can be reached is LiteLLM's to know, so no key and no local server is asked for. When the process ends,
LiteLLM still tells of its last calls: what waits is written then, and what comes after that at once.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from tierwise.core.decisions import AttemptRecord, CallRecord, Decision
from tierwise.core.settings import Settings
from tierwise.core.tasks import Classification, Task
from tierwise.engine.router import AsyncRouter
from tierwise.engine.sync import start_loop
from tierwise.gateway.conversations import Conversations
from tierwise.gateway.outlook import Outlook
from tierwise.gateway.planning import Planning
from tierwise.integrations.records import Records
from tierwise.ledger import Ledger
from tierwise.ledger.writer import LedgerWriter

__all__ = ["Desk"]

T = TypeVar("T")
_LAST_SECONDS = 10.0  # for what was told of to be recorded


class _Deciding(AsyncRouter):
    """Decides as the router does, whatever this process could reach itself."""

    async def plan_available(
        self,
        task: Task,
        classification: Classification | None = None,
        *,
        keyed: frozenset[str] = frozenset(),
        withheld: Mapping[str, str] | None = None,
    ) -> tuple[Decision, dict[str, str]]:
        """With every model but those that are withheld."""
        del keyed
        left_out = dict(withheld or {})
        return self._plan(task, left_out, classification), left_out


class Desk:
    """Where requests are decided and attempts are written down. Safe to use from any thread and event loop.

    Args:
        settings: the configuration.
        ledger: where calls are recorded; the configured one when None.
    """

    def __init__(self, settings: Settings, *, ledger: Ledger | None = None) -> None:
        self._owns_ledger = ledger is None
        if ledger is None and settings.ledger.enabled:
            ledger = Ledger.of(settings.ledger)
        self._ledger = ledger
        self._planning = Planning(settings, _Deciding(settings, record=False), Conversations(), Outlook())
        self._writer = LedgerWriter(ledger) if ledger is not None else None
        if self._writer is not None:
            self._writer.start()
        self.records = Records(self._planning, self._write)
        self.process = os.getpid()
        self._loop = start_loop("tierwise-litellm")
        self._recording: set[concurrent.futures.Future[None]] = set()
        _open.add(self)

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Does this in the desk's loop; awaited in the caller's."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def record(self, work: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        """Does this in the desk's loop, to its end, whether or not anybody waits for it."""
        recorded = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._recording.add(recorded)
        recorded.add_done_callback(self._recording.discard)
        return recorded

    def settle(self) -> None:
        """Writes what waits, and from now on at once: the process ends, and LiteLLM tells the last of it even then."""
        if self.process == os.getpid():
            concurrent.futures.wait(self._recording.copy(), _LAST_SECONDS)
        writer, self._writer = self._writer, None
        if writer is not None and self.process == os.getpid():
            writer.close()

    def close(self) -> None:
        """Writes what waits, and ends. For good."""
        _open.discard(self)
        self.settle()
        if self.process != os.getpid():
            return
        self._planning.close()
        if self._owns_ledger and self._ledger is not None:
            self._ledger.close()
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _write(self, call: CallRecord | None, attempts: Sequence[AttemptRecord]) -> None:
        if self._writer is not None:
            await self._writer.written(call, attempts)
        elif self._ledger is not None:
            self._ledger.write_entries([(call, tuple(attempts))])


_open: weakref.WeakSet[Desk] = weakref.WeakSet()


@atexit.register
def _settle_all() -> None:
    for desk in list(_open):
        desk.settle()
