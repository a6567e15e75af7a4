"""The load generator of `gateway.py`: connections that ask as fast as they are answered, or at times set beforehand.

Theory of operation. Throughput is measured closed: each connection sends its next request when the last is answered,
and whatever was answered within the window counts. Times to first event are measured open: streams are due at random
times, whatever the target does, and the clock of each runs from when it was due and not from when a connection was
free: a target that stalls is charged with everybody who waited (no coordinated omission).

Requests are bytes made beforehand, but for a number of eight digits where each is to be another text. Answers are not
parsed further than to find their end; `ask_once` gives one whole, to be looked at before anything is measured.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

NUMBER = b"00000000"  # in a body: stands for the request's number
CONCURRENT = 64  # paced streams that run at the same time, on average
_MOST_CONNECTIONS = 512
_MOST_FAILURES = 100
_WARM_SECONDS = 0.3
_SECONDS_TO_END = 15.0
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)


class LoadError(Exception):
    """The target does not answer as it should; says what came instead."""


@dataclass(frozen=True, slots=True)
class Template:
    """A request. `number_at` is where its number goes, None where all are the same."""

    head: bytes
    body: bytes
    number_at: int | None

    @classmethod
    def of(cls, target: str, headers: dict[str, str], body: bytes) -> Template:
        """A POST to `target`; where `NUMBER` is in the body, it is replaced in each request."""
        lines = {"host": "127.0.0.1", "content-type": "application/json", **headers, "content-length": str(len(body))}
        head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        at = body.find(NUMBER)
        return cls(f"{head}\r\n".encode(), body, at if at >= 0 else None)

    def numbered(self, number: int) -> bytes:
        """The request of that number."""
        if self.number_at is None:
            return self.head + self.body
        at = self.number_at
        return b"".join((self.head, self.body[:at], b"%08d" % (number % 10**8), self.body[at + 8 :]))


@dataclass(slots=True)
class Window:
    """What was measured. Times are seconds; `latencies` of closed load, `firsts` (to first event) of open load."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    sent: int = 0  # these three count what was outside the window too
    answered: int = 0
    failed: int = 0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


class _Client(asyncio.Protocol):
    """One connection. `done(client, ok)` is called when an answer is whole, or there will be none."""

    def __init__(self, done: Callable[[_Client, bool], None]) -> None:
        self.done = done
        self.busy = False
        self.lost = False
        self.kept = bytearray()  # of a head that is not whole, or all of it where `keep`
        self.keep = False
        self.due = 0.0
        self.first = 0.0  # when the first byte of the body came
        self._headless = True
        self._missing = 0  # -1: it is chunked
        self._tail = b""
        self._ok = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self.busy:
            self.busy = False
            self.done(self, False)

    def ask(self, request: bytes, due: float) -> None:
        """Sends a request; its time counts from `due`."""
        self.busy, self.due, self.first = True, due, 0.0
        self._headless, self._tail = True, b""
        self.kept.clear()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._headless:
            if self.kept:
                self.kept += data
                data = bytes(self.kept)
            ends = data.find(b"\r\n\r\n")
            if ends < 0:
                self.kept[:] = data
                return
            self._headless = False
            self._ok = data.startswith(b"HTTP/1.1 200")
            length = _LENGTH.search(data, 0, ends + 2)
            if length is not None:
                self._missing = int(length[1])
            elif _CHUNKED.search(data, 0, ends + 2):
                self._missing = -1
            else:  # nobody could tell where it ends
                self._missing, self._ok = 0, False
                self.transport.close()
            if self.keep:
                self.kept[:] = data
            data = data[ends + 4 :]
        elif self.keep:
            self.kept += data
        if data and not self.first:
            self.first = time.perf_counter()
        if self._missing >= 0:
            self._missing -= len(data)
            whole = self._missing <= 0
        else:
            end = data[-7:] if len(data) >= 7 else (self._tail + data)[-7:]
            whole = end == b"\r\n0\r\n\r\n"
            self._tail = end
        if whole:
            self.busy = False
            self.done(self, self._ok)


async def _connect(port: int, done: Callable[[_Client, bool], None]) -> _Client:
    _, client = await asyncio.get_running_loop().create_connection(lambda: _Client(done), "127.0.0.1", port)
    return client


async def ask_once(port: int, request: bytes, seconds: float = 60.0) -> bytes:
    """One answer, head and body as they came.

    Raises:
        LoadError: there was none.
    """
    answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def done(_: _Client, ok: bool) -> None:
        if not answered.done():
            answered.set_result(ok)

    client = await _connect(port, done)
    client.keep = True
    client.ask(request, time.perf_counter())
    try:
        async with asyncio.timeout(seconds):
            ok = await answered
    except TimeoutError:
        raise LoadError(f"no answer within {seconds:g} s") from None
    finally:
        client.transport.close()
    if not ok:
        raise LoadError(bytes(client.kept[:600]).decode("latin-1") or "the connection was closed")
    return bytes(client.kept)


class _Numbers:
    """Numbers of requests: never the same one twice in a run of the program."""

    last = 0

    @classmethod
    def next(cls) -> int:
        cls.last += 1
        return cls.last


def _nothing() -> None:
    return None


class Closed:
    """Closed load: each connection asks again once it is answered. Use it once: `await Closed(…).run()`.

    Args:
        seconds: how long the window is open; answers before and after it are not measured.
        requests: stop after so many of them, and not after `seconds`.
        opens, closes: called when the window does.
    """

    def __init__(
        self,
        port: int,
        template: Template,
        connections: int,
        *,
        seconds: float = 0.0,
        requests: int | None = None,
        opens: Callable[[], None] = _nothing,
        closes: Callable[[], None] = _nothing,
    ) -> None:
        self.window = Window()
        self._port, self._template, self._connections = port, template, connections
        self._seconds, self._requests = seconds, requests
        self._opens, self._closes = opens, closes
        self._clients: list[_Client] = []
        self._measuring = self._stopping = False
        self._running = 0
        self._began = 0.0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._renewing: set[asyncio.Task[None]] = set()

    async def run(self) -> Window:
        """Until the window is closed and every request answered.

        Raises:
            LoadError: the target keeps failing, or does not answer.
        """
        loop = asyncio.get_running_loop()
        self._clients += [await _connect(self._port, self._done) for _ in range(self._connections)]
        timers = []
        if self._requests is None:
            timers = [
                loop.call_later(_WARM_SECONDS, self._open),
                loop.call_later(_WARM_SECONDS + self._seconds, self._close),
            ]
        for client in self._clients:
            self._send(client)
        try:
            limit = None if self._requests is not None else _WARM_SECONDS + self._seconds + _SECONDS_TO_END
            async with asyncio.timeout(limit):
                await self._over
        except TimeoutError:
            raise LoadError(f"{self._running} of {self._connections} requests were never answered") from None
        finally:
            for timer in timers:
                timer.cancel()
            for client in self._clients:
                client.transport.close()
        if self.window.failed > _MOST_FAILURES:
            raise LoadError(f"{self.window.failed} of {self.window.sent} requests failed")
        return self.window

    def _send(self, client: _Client) -> None:
        self._running += 1
        self.window.sent += 1
        client.ask(self._template.numbered(_Numbers.next()), time.perf_counter())

    def _done(self, client: _Client, ok: bool) -> None:
        window = self.window
        self._running -= 1
        if ok:
            window.answered += 1
        else:
            window.failed += 1
        if ok and self._measuring:
            window.latencies.append(time.perf_counter() - client.due)
        if window.failed > _MOST_FAILURES or (self._requests is not None and window.sent >= self._requests):
            self._stopping = True
        if self._stopping:
            if not self._running and not self._over.done():
                self._over.set_result(None)
        elif client.lost:
            task = asyncio.get_running_loop().create_task(self._renew())
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)
        else:
            self._send(client)

    async def _renew(self) -> None:
        client = await _connect(self._port, self._done)
        self._clients.append(client)
        if not self._stopping:
            self._send(client)

    def _open(self) -> None:
        self._opens()
        self._measuring, self._began = True, time.perf_counter()

    def _close(self) -> None:
        self._measuring, self._stopping = False, True
        self.window.seconds = time.perf_counter() - self._began
        self._closes()


class Opened:
    """Open load: paced streams, due at random times so that `CONCURRENT` of them run where the target adds nothing.

    A stream without an event at the end counts with the time that it has waited until then. Use it once.

    Args:
        seconds: how long streams are begun.
        stream_seconds: how long one is.
        opens, closes: called before the first begins and when the last is over.
    """

    def __init__(
        self,
        port: int,
        template: Template,
        *,
        seconds: float,
        stream_seconds: float,
        opens: Callable[[], None] = _nothing,
        closes: Callable[[], None] = _nothing,
    ) -> None:
        self.window = Window()
        self._port, self._template = port, template
        self._seconds, self._rate = seconds, CONCURRENT / stream_seconds
        self._opens, self._closes = opens, closes
        self._clients: list[_Client] = []
        self._idle: list[_Client] = []
        self._waiting: deque[float] = deque()  # when those were due that have no connection yet
        self._running: set[_Client] = set()
        self._begun_all = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self) -> Window:
        """Until every stream is over, or has had time enough."""
        chance = random.Random(11)
        for _ in range(2 * CONCURRENT):
            await self._connect()
        self._opens()
        began = due = time.perf_counter()
        while due < began + self._seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._begin(time.perf_counter())  # our timers are exact to a millisecond: that is not the target's fault
            due += chance.expovariate(self._rate)
        self._begun_all = True
        self._end_if_over()
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_END):
                await self._over
        self.window.seconds = time.perf_counter() - began
        self._closes()
        now = time.perf_counter()
        self.window.firsts += [(client.first or now) - client.due for client in self._running]
        self.window.firsts += [now - due for due in self._waiting]
        self.window.failed += len(self._running) + len(self._waiting)
        self._waiting.clear()
        for task in self._connecting:
            task.cancel()
        for client in self._clients:
            client.busy = False
            client.transport.close()
        return self.window

    def _begin(self, due: float) -> None:
        self.window.sent += 1
        self._waiting.append(due)
        if self._idle:
            self._serve(self._idle.pop())
        elif len(self._running) + len(self._connecting) < _MOST_CONNECTIONS:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        client = await _connect(self._port, self._done)
        self._clients.append(client)
        self._serve(client)

    def _serve(self, client: _Client) -> None:
        """Gives a free connection to who has waited longest."""
        if not self._waiting:
            self._idle.append(client)
            return
        self._running.add(client)
        client.ask(self._template.numbered(_Numbers.next()), self._waiting.popleft())

    def _done(self, client: _Client, ok: bool) -> None:
        self._running.discard(client)
        if ok:
            self.window.answered += 1
            self.window.firsts.append(client.first - client.due)
            self.window.latencies.append(time.perf_counter() - client.due)
        else:
            self.window.failed += 1
        if not client.lost:
            self._serve(client)
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._begun_all and not self._running and not self._waiting and not self._over.done():
            self._over.set_result(None)
