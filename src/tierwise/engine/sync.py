"""The synchronous façade: the same router on an event loop of its own, in a thread.

Ctrl-C in the calling thread cancels the call on the loop and waits until its record is written, then goes on as
KeyboardInterrupt.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from tierwise.core.catalog import Tier
from tierwise.core.decisions import Decision
from tierwise.core.errors import TierwiseError
from tierwise.core.json import Json
from tierwise.core.settings import Settings
from tierwise.core.tasks import Classification, Task
from tierwise.engine.checks import UserCheck
from tierwise.engine.result import Result
from tierwise.engine.router import AsyncRouter
from tierwise.ledger import Ledger
from tierwise.providers.base import Availability

__all__ = ["Router", "start_loop"]

T = TypeVar("T")
_CANCEL_SECONDS = 10.0


class Router:
    """Routes and runs tasks; every method is `AsyncRouter`'s, made synchronous. Safe to use from several threads.

    Use it as a context manager, or call `close()`. Takes the arguments of `AsyncRouter`.
    """

    def __init__(self, settings: Settings | None = None, **options: Any) -> None:
        self._router = AsyncRouter(settings, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def settings(self) -> Settings:
        """The configuration in use."""
        return self._router.settings

    @property
    def ledger(self) -> Ledger | None:
        """Where calls are recorded."""
        return self._router.ledger

    def classify(self, task: str | Task, **options: Any) -> Classification:
        """See `AsyncRouter.classify`."""
        return self._router.classify(task, **options)

    def route(self, task: str | Task, **options: Any) -> Decision:
        """See `AsyncRouter.route`."""
        return self._router.route(task, **options)

    def route_here(self, task: str | Task, **options: Any) -> Decision:
        """See `AsyncRouter.route_here`."""
        return self._await(self._router.route_here(task, **options))

    def route_checked(self, task: str | Task, **options: Any) -> Decision:
        """See `AsyncRouter.route_checked`."""
        return self._await(self._router.route_checked(task, **options))

    def local_models(self) -> dict[str, Availability]:
        """See `AsyncRouter.local_models`."""
        return self._await(self._router.local_models())

    def run(self, task: str | Task, *, checks: Sequence[UserCheck] = (), **options: Any) -> Result:
        """See `AsyncRouter.run`."""
        return self._await(self._router.run(task, checks=checks, **options))

    def dispatch_tool(
        self,
        tool_name: str,
        tool_input: Json,
        *,
        tier_overrides: Mapping[str, str | Tier] | None = None,
        checks: Sequence[UserCheck] = (),
        **options: Any,
    ) -> Result:
        """See `AsyncRouter.dispatch_tool`."""
        return self._await(
            self._router.dispatch_tool(tool_name, tool_input, tier_overrides=tier_overrides, checks=checks, **options)
        )

    async def adispatch_tool(
        self,
        tool_name: str,
        tool_input: Json,
        *,
        tier_overrides: Mapping[str, str | Tier] | None = None,
        checks: Sequence[UserCheck] = (),
        **options: Any,
    ) -> Result:
        """Like `dispatch_tool`, awaited in the caller's event loop. Cancelling it cancels and records the call."""
        call = self._router.dispatch_tool(
            tool_name, tool_input, tier_overrides=tier_overrides, checks=checks, **options
        )
        try:
            loop = self._running_loop()
        except TierwiseError:
            call.close()
            raise
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, loop))

    def close(self) -> None:
        """Closes connections, stops what was started, and writes what still waits."""
        with self._lock:
            if self._closed:
                return
        # Always in the thread: the caller may itself be inside a running event loop.
        self._await(self._router.aclose())
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        running: list[asyncio.Task[Any]] = []

        async def tracked() -> T:
            task = asyncio.current_task()
            if task is not None:
                running.append(task)
            return await coroutine

        loop: asyncio.AbstractEventLoop | None = None
        try:
            loop = self._running_loop()
            return asyncio.run_coroutine_threadsafe(tracked(), loop).result()
        except KeyboardInterrupt:
            # It may have come at any point above: only the loop knows whether the call has begun.
            if loop is None:
                coroutine.close()
                raise
            ended = asyncio.run_coroutine_threadsafe(_end(running, coroutine), loop)
            # The call's record is written while it unwinds. A provider that does not let go must not hold the
            # user's Ctrl-C.
            with suppress(concurrent.futures.TimeoutError):
                ended.result(_CANCEL_SECONDS)
            raise
        except TierwiseError:
            if loop is None:
                coroutine.close()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise TierwiseError("this router is closed; make a new one")
            if self._loop is None or self._process != os.getpid():  # a forked process has no thread to run the loop
                self._loop = start_loop()
                self._process = os.getpid()
            return self._loop


async def _end(running: list[asyncio.Task[Any]], coroutine: Coroutine[Any, Any, object]) -> None:
    """Cancels a call and waits until it has unwound; one that never began is dropped."""
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    if not running:
        coroutine.close()


def start_loop(name: str = "tierwise-router") -> asyncio.AbstractEventLoop:
    """An event loop that runs in a thread of its own, until it is stopped."""
    loop = asyncio.new_event_loop()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        stopped = False
        while not stopped:
            with suppress(SystemExit):  # of a caller's check: who waits for the call gets it, and the loop goes on
                loop.run_forever()
                stopped = True
        loop.close()

    # A daemon: a script that forgets to close the router still ends.
    threading.Thread(target=serve, name=name, daemon=True).start()
    return loop
