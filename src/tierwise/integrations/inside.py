"""The gateway inside this process: calls are planned, held, climbed and recorded as behind `tierwise serve`.

Theory of operation. The gateway belongs to one event loop, and its callers to any number of threads and loops, which
come and go. So it has a thread with a loop of its own, as the synchronous router has. A call is one exchange over ASGI:
the request goes in whole, the pieces of the answer come out through a function that the caller gives and that is called
in the gateway's thread. There is no socket between the two, so nobody else can reach it and no key of ours is needed.

It starts with the first call. When the process ends, calls that still run are broken off and recorded as that, and what
waits to be recorded is written. A forked process starts its own.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from tierwise.core.errors import TierwiseError
from tierwise.core.settings import Settings
from tierwise.engine.checks import UserCheck

if TYPE_CHECKING:
    from tierwise.core.decisions import AttemptRecord, CallRecord
    from tierwise.gateway.app import Gateway
    from tierwise.gateway.incoming import Incoming
    from tierwise.integrations.records import ForeignAttempt, Records
    from tierwise.ledger import Ledger

__all__ = ["Ended", "Exchange", "Head", "InsideGateway", "Passing", "Piece", "Request"]

Header = tuple[bytes, bytes]
_LARGEST_BATCH_BYTES = 256 * 1024 * 1024
_LAST_SECONDS = 10.0  # for a call that was broken off to be recorded, and for closing


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the gateway gets it; names of headers in lower case."""

    method: str
    path: str
    query: bytes
    headers: Sequence[Header]
    body: bytes
    checks: Sequence[UserCheck] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """An answer begins."""

    status: int
    headers: list[Header]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of its body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes; `whole` says whether the answer came to its end.

    `trailers` are headers of a stream that were known only then: all that its head has, and what it cost.
    """

    whole: bool
    trailers: Sequence[Header] = ()


class Exchange:
    """One call that runs. `told` is called in the gateway's thread with what comes: a `Head`, `Piece`s, `Ended`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: Request, told: Callable[[Head | Piece | Ended], None]):
        self._loop = loop
        self._request = request
        self._told = told
        self._given = False
        self._left = asyncio.Event()
        self._closing = False
        self._whole = False
        self._trailers: Sequence[Header] = ()
        self._done: concurrent.futures.Future[None] | None = None

    def begin(self, app: Gateway) -> concurrent.futures.Future[None]:
        """Hands the request in. What comes back is done once the call's record is written."""
        self._done = asyncio.run_coroutine_threadsafe(self._run(app), self._loop)
        return self._done

    def close(self) -> None:
        """The caller wants no more: what runs is cancelled, and recorded as that. From any thread, more than once."""
        if self._closing:
            return
        self._closing = True
        with suppress(RuntimeError):  # the loop is closed: nothing runs any more
            self._loop.call_soon_threadsafe(self._left.set)

    def wait(self) -> None:
        """Waits, for a time, until the call's record is written; for whoever is interrupted."""
        if self._done is not None:
            with suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                self._done.result(_LAST_SECONDS)

    async def _run(self, app: Gateway) -> None:
        from tierwise.gateway.asgi import CHECKS, TRAILERS  # noqa: PLC0415  is there: the application imports it

        request = self._request
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "query_string": request.query,
            "headers": request.headers,
            "extensions": {CHECKS: request.checks, TRAILERS: {}},
        }
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._told(Ended(self._whole, self._trailers))

    async def _receive(self) -> dict[str, Any]:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._request.body}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._told(Head(message["status"], list(message["headers"])))
            return
        if message["type"] == "http.response.trailers":
            self._trailers = message["headers"]
            return
        if message.get("body"):
            self._told(Piece(message["body"]))
        self._whole = not message.get("more_body")


class Passing(Protocol):
    """An answer that a client reads without the gateway, and that is recorded when it ends."""

    def break_off(self) -> concurrent.futures.Future[None] | None:
        """Nobody reads on: what is known by now is recorded."""


class InsideGateway:
    """A gateway in a thread of its own. Safe to use from any thread and event loop.

    Args:
        settings: the configuration. Whatever it says of where to listen, this one does not.
        ledger: where calls are recorded; the configured one when None.
    """

    def __init__(self, settings: Settings, *, ledger: Ledger | None = None) -> None:
        from tierwise.gateway.extra import check_installed  # noqa: PLC0415

        check_installed()
        # Nobody but this process can ask: no key of ours is demanded, and a batch may be as large as the API takes it.
        largest = max(settings.gateway.max_body_bytes, _LARGEST_BATCH_BYTES)
        self.settings = replace(
            settings, gateway=replace(settings.gateway, host="127.0.0.1", workers=1, max_body_bytes=largest)
        )
        self._ledger = ledger
        self._lock = threading.RLock()  # what garbage collection ends while it is held may ask for it
        self._process = os.getpid()
        self._running: tuple[asyncio.AbstractEventLoop, Gateway] | None = None
        self._exchanges: dict[concurrent.futures.Future[None], Exchange] = {}  # that run
        self._records: Records | None = None
        self._closed = False
        self.passing: weakref.WeakSet[Passing] = weakref.WeakSet()  # answers that others still read
        _all.add(self)

    def is_known(self, model: str) -> bool:
        """Whether a model's name is routed, or one of those configured."""
        configured = (found.id for found in self.settings.catalog.models)
        return model in self.settings.gateway.routed_models or model in configured

    def is_routed(self, model: str) -> bool:
        """Whether a model's name is one of those that are routed for everybody."""
        return model in self.settings.gateway.routed_models

    def begin(self, request: Request, told: Callable[[Head | Piece | Ended], None]) -> Exchange:
        """Begins a call."""
        loop, app = self.start()
        exchange = Exchange(loop, request, told)
        done = exchange.begin(app)
        self._exchanges[done] = exchange
        done.add_done_callback(self._exchanges.pop)
        return exchange

    def record(self, attempt: ForeignAttempt, incoming: Incoming) -> concurrent.futures.Future[None]:
        """Writes down what became of a call that went out without it."""
        loop, _ = self.start()
        records = self._records
        assert records is not None  # noqa: S101  it is made as it starts
        return asyncio.run_coroutine_threadsafe(records.record(attempt, incoming), loop)

    def close(self) -> None:
        """Ends it. Calls that run are broken off; what was to be recorded is written."""
        if self.started:
            told = [one.break_off() for one in list(self.passing)]
            concurrent.futures.wait([one for one in told if one is not None], _LAST_SECONDS)
        with self._lock:
            running, self._running, self._closed = self._running, None, True
        if running is None or self._process != os.getpid():
            return
        loop, app = running
        exchanges = self._exchanges.copy()
        for exchange in exchanges.values():
            exchange.close()
        concurrent.futures.wait(exchanges, _LAST_SECONDS)
        with suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(app.aclose(), loop).result(_LAST_SECONDS)
        loop.call_soon_threadsafe(loop.stop)

    @property
    def closed(self) -> bool:
        """Whether it was closed, for good."""
        return self._closed

    @property
    def started(self) -> bool:
        """Whether it runs in this process."""
        return self._running is not None and self._process == os.getpid()

    def start(self) -> tuple[asyncio.AbstractEventLoop, Gateway]:
        """Starts it, where it does not run. Raises `TierwiseError` where it was closed."""
        running = self._running
        if running is not None and self._process == os.getpid():
            return running
        with self._lock:
            if self._closed:
                raise TierwiseError("this client was closed; wrap a new one")
            if self._running is None or self._process != os.getpid():
                self._running = self._start()
                self._process = os.getpid()
            return self._running

    def forget_parent(self) -> None:
        """In a forked process: what ran in the parent is its own, and no thread is there to let the lock go."""
        self._lock = threading.RLock()
        self._exchanges = {}
        self.passing = weakref.WeakSet()

    def _start(self) -> tuple[asyncio.AbstractEventLoop, Gateway]:
        from tierwise.gateway.app import Gateway  # noqa: PLC0415
        from tierwise.gateway.server import loop_factory  # noqa: PLC0415
        from tierwise.integrations.records import Records  # noqa: PLC0415

        loop = (loop_factory() or asyncio.new_event_loop)()
        app = Gateway(self.settings, ledger=self._ledger)

        async def write(call: CallRecord | None, attempts: Sequence[AttemptRecord]) -> None:
            if app.writer is not None:
                await app.writer.written(call, attempts)

        self._records = Records(app.planning, write)

        def serve() -> None:
            asyncio.set_event_loop(loop)
            loop.run_forever()
            loop.close()

        threading.Thread(target=serve, name="tierwise-gateway", daemon=True).start()
        asyncio.run_coroutine_threadsafe(_begin_life(app), loop).result()
        return loop, app


async def _begin_life(app: Gateway) -> None:
    """What a server does before the first request: ASGI's lifespan, as far as its start."""
    asked: asyncio.Queue[Any] = asyncio.Queue()
    told: asyncio.Queue[Any] = asyncio.Queue()
    asked.put_nowait({"type": "lifespan.startup"})
    life = asyncio.ensure_future(app({"type": "lifespan"}, asked.get, told.put))
    started = asyncio.ensure_future(told.get())
    await asyncio.wait([started, life], return_when=asyncio.FIRST_COMPLETED)
    if life.done():
        life.result()  # why it could not start
    life.cancel()  # `close` ends the application, not a message


_all: weakref.WeakSet[InsideGateway] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for gateway in list(_all):
        if gateway.started:
            gateway.close()


def _forget_parent() -> None:
    for gateway in list(_all):
        gateway.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
