"""HTTP/1.1 for the gateway's hot path: a request as bytes out, its answer as bytes in, nothing rebuilt.

Theory of operation. Vendor SDKs and general clients cost a millisecond a call and collapse under a few dozen
concurrent streams. What a proxy needs of HTTP is little: keep connections, write a head and a body, hand on what
comes. That is here: an `asyncio.Protocol` over `httptools` (the parser of Node.js, as uvicorn uses it), one connection
per running request, idle ones kept for the next.

A request is sent again, on a new connection, only where an idle connection turned out to be closed before a single
byte of the answer came: the server cannot have meant that as an answer. Everything else is told as it happened, for
the climb to decide. Timeouts are looked after by one sweep twice a second and not by a timer per request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tierwise.providers.proxies import Proxies, Proxy, TunnelRefused, open_tunnel

__all__ = ["Answer", "Endpoint", "PassThrough", "Timeouts", "UpstreamFailed", "UpstreamTimeout"]

Header = tuple[bytes, bytes]

_KEEP_IDLE_SECONDS = 30.0  # servers close idle connections after a minute or more: be earlier
_MOST_IDLE = 256
_SWEEP_SECONDS = 0.5
_HIGH_WATER = 256 * 1024  # bytes of an answer that wait for a slow client before the upstream is told to wait
_MOST_HEAD_BYTES = 256 * 1024


class UpstreamFailed(Exception):
    """The upstream could not be reached, or broke off.

    `answered` says whether a byte of an answer had come, `sent` whether the request may have arrived.
    """

    def __init__(self, message: str, *, answered: bool = False, sent: bool = True) -> None:
        super().__init__(message)
        self.answered = answered
        self.sent = sent


class UpstreamTimeout(UpstreamFailed):
    """It took too long to connect, to begin its answer, or to go on with it."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `idle` counts between two pieces of an answer."""

    connect: float = 10.0
    first_byte: float = 600.0
    idle: float = 120.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go: parsed once from a base URL."""

    host: str
    port: int
    tls: bool
    prefix: str  # of every path, without a slash at its end

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """From `https://host[:port][/prefix]`. Raises `ValueError` where it is no such URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http(s) URL")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> bytes:
        """For the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.tls else 80)
        return (host if usual else f"{host}:{self.port}").encode("ascii", "ignore")


class Answer:
    """An upstream's answer while it comes: read it whole, or piece by piece; close it when it is given up.

    `status` and `headers` (names in lower case) are there from the start.
    """

    __slots__ = ("_connection", "_done", "_failure", "_pieces", "_size", "_waiter", "headers", "status")

    def __init__(self, connection: _Connection) -> None:
        self._connection: _Connection | None = connection
        self.status = 0
        self.headers: list[Header] = []
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._done = False
        self._failure: UpstreamFailed | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first header of that name (lower case)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def read(self, most_bytes: int | None = None) -> bytes:
        """All of it.

        Raises:
            UpstreamFailed: it broke off, or is longer than `most_bytes`.
        """
        if self._done and self._failure is None and most_bytes is None:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            return whole
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            size += len(piece)
            if most_bytes is not None and size > most_bytes:
                self.close()
                raise UpstreamFailed(f"the answer is longer than {most_bytes:,} bytes", answered=True)
            pieces.append(piece)
        return b"".join(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes: all that have come since. Raises `UpstreamFailed` where it broke off."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self._done:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._connection is not None:
            self._connection.resume()
        return piece

    @property
    def whole(self) -> bool:
        """Whether all of it has come (and perhaps waits to be read)."""
        return self._done

    def close(self) -> None:
        """Gives the rest up: the connection is closed, so that the upstream notices."""
        connection, self._connection = self._connection, None
        if connection is not None and not self._done:
            connection.abort()

    # What the connection tells.

    def _feed(self, piece: bytes) -> int:
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()
        return self._size

    def _end(self, failure: UpstreamFailed | None = None) -> None:
        if self._done or self._failure is not None:
            return
        if failure is None:
            self._done = True
        else:
            self._failure = failure
        self._connection = None
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection; at most one request at a time runs on it."""

    def __init__(self, pool: PassThrough, endpoint: Endpoint) -> None:
        import httptools  # noqa: PLC0415  the gateway's extra

        self._new_parser = httptools.HttpResponseParser
        self.parser_error: type[Exception] = httptools.HttpParserError
        self.pool = pool
        self.endpoint = endpoint
        self.transport: Any = None
        self.answer: Answer | None = None
        self.head: asyncio.Future[Answer] | None = None
        self.parser: Any = None
        self.deadline = 0.0  # monotonic; looked at by the sweep
        self.timeouts = Timeouts()
        self.idle_since = 0.0
        self.received = False  # a byte of the running answer
        self.reused = False
        self.head_bytes = 0
        self.keep = True
        self.paused = False
        self.until_close = False  # an answer without a length ends with the connection
        self.write_waiter: asyncio.Future[None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.answer is None:
            self.abort()  # bytes that nobody asked for
            return
        self.received = True
        self.deadline = self.pool.now() + self.timeouts.idle
        try:
            self.parser.feed_data(data)
        except self.parser_error as error:
            self._fail(UpstreamFailed(f"the upstream does not speak HTTP/1.1 ({error})", answered=True))
            self.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.pool.forget(self)
        if self.write_waiter is not None and not self.write_waiter.done():
            self.write_waiter.set_result(None)
        if self.answer is None:
            return
        if self.until_close and error is None:
            self._finish()
            return
        what = f" ({error})" if error else ""
        self._fail(UpstreamFailed(f"the upstream closed the connection{what}", answered=self.received))

    def pause_writing(self) -> None:
        self.write_waiter = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiter, self.write_waiter = self.write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self.head_bytes += len(name) + len(value)
        if self.head_bytes > _MOST_HEAD_BYTES:
            raise ValueError("the head of the answer is too long")
        if self.answer is not None:
            self.answer.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        answer = self.answer
        if answer is None:
            return
        status = self.parser.get_status_code()
        if 100 <= status < 200:
            answer.headers.clear()  # 100 Continue, 103 Early Hints: the answer is still to come
            return
        answer.status = status
        self.keep = self.parser.should_keep_alive()
        framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in answer.headers)
        self.until_close = not framed and status not in (204, 304)
        if self.head is not None and not self.head.done():
            self.head.set_result(answer)

    def on_body(self, piece: bytes) -> None:
        answer = self.answer
        if answer is not None and answer._feed(piece) > _HIGH_WATER and not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.answer is not None and self.answer.status:
            self._finish()

    # Ours

    def send(self, request: Sequence[bytes], timeouts: Timeouts) -> asyncio.Future[Answer]:
        """Writes a request; the future is the answer, once its head has come."""
        self.parser = self._new_parser(self)
        self.answer = Answer(self)
        self.head = asyncio.get_running_loop().create_future()
        self.timeouts = timeouts
        self.received = self.until_close = False
        self.head_bytes = 0
        self.deadline = self.pool.now() + timeouts.first_byte
        self.transport.writelines(request)
        return self.head

    def resume(self) -> None:
        """The reader has caught up."""
        if self.paused and self.transport is not None:
            self.paused = False
            self.deadline = self.pool.now() + self.timeouts.idle
            self.transport.resume_reading()

    def expire(self) -> None:
        """The sweep found it too late."""
        if self.paused:
            return  # it is our reader that is slow
        if self.received:
            failure = UpstreamTimeout(f"the upstream was silent for {self.timeouts.idle:g} s", answered=True)
        else:
            failure = UpstreamTimeout(f"the upstream did not answer within {self.timeouts.first_byte:g} s")
        self._fail(failure)
        self.abort()

    def abort(self) -> None:
        """Closes at once."""
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, failure: UpstreamFailed) -> None:
        answer, self.answer = self.answer, None
        if self.head is not None and not self.head.done():
            self.head.set_exception(failure)
        elif answer is not None:
            answer._end(failure)

    def _finish(self) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer._end()
        self.resume()
        if self.keep and not self.until_close and not self.transport.is_closing():
            self.pool.give_back(self)
        else:
            self.pool.forget(self)
            self.transport.close()


class PassThrough:
    """Sends requests and hands on answers; keeps connections. Belongs to one event loop.

    Args:
        tls: how certificates are checked; the system's way when None (`SSL_CERT_FILE` names other authorities).
        proxies: which proxy leads where; those of the environment when None.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, proxies: Proxies | None = None) -> None:
        self._tls = tls
        self._proxies = Proxies.of_environment() if proxies is None else proxies
        self._idle: dict[Endpoint, list[_Connection]] = {}
        self._active: set[_Connection] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def now(self) -> float:
        """The loop's clock."""
        return self._loop.time() if self._loop is not None else 0.0

    @property
    def active(self) -> int:
        """Requests that run."""
        return len(self._active)

    async def request(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: Sequence[Header],
        *,
        body: bytes = b"",
        timeouts: Timeouts = Timeouts(),
    ) -> Answer:
        """Sends a request and waits for the head of its answer.

        Args:
            target: path and query, put behind the endpoint's prefix.
            headers: without `host`, `content-length` and hop-by-hop ones, which are set here.

        Raises:
            UpstreamFailed, UpstreamTimeout: no answer came.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = self._loop.create_task(self._sweep())
        # A tunnel is a matter of the connection; a proxy of plain HTTP is told with each request.
        proxy = None if endpoint.tls else self._proxy(endpoint)
        request = _request(endpoint, method, target, headers, body=body, proxy=proxy)
        while True:
            connection = self._take(endpoint) or await self._connect(endpoint, timeouts)
            self._active.add(connection)
            head = connection.send(request, timeouts)
            try:
                return await head
            except UpstreamFailed as failure:
                if connection.reused and not failure.answered and not isinstance(failure, UpstreamTimeout):
                    continue  # it had been closed while it was idle
                raise
            except BaseException:
                # Not where its whole answer came in this very moment: it may be another request's already.
                if connection.head is head and connection.answer is not None:
                    connection.answer = None
                    connection.abort()
                raise

    async def aclose(self) -> None:
        """Closes every connection, running ones too."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        for connection in [*self._active, *(c for kept in self._idle.values() for c in kept)]:
            connection.abort()
        self._idle.clear()
        self._active.clear()

    def _take(self, endpoint: Endpoint) -> _Connection | None:
        kept = self._idle.get(endpoint)
        while kept:
            connection = kept.pop()  # the one used last: it is the least likely to have been closed
            if not connection.transport.is_closing() and self.now() - connection.idle_since < _KEEP_IDLE_SECONDS:
                connection.reused = True
                return connection
            connection.transport.abort()
        return None

    def _proxy(self, endpoint: Endpoint) -> Proxy | None:
        try:
            return self._proxies.leading_to("https" if endpoint.tls else "http", endpoint.host)
        except ValueError as error:
            raise UpstreamFailed(f"no connection to {endpoint.host}:{endpoint.port}: {error}", sent=False) from None

    async def _connect(self, endpoint: Endpoint, timeouts: Timeouts) -> _Connection:
        if endpoint.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        proxy = self._proxy(endpoint)
        by = f" by the proxy {proxy.host}:{proxy.port}" if proxy is not None else ""
        try:
            async with asyncio.timeout(timeouts.connect):
                return await self._open(endpoint, proxy)
        except TimeoutError:
            why = f"no connection to {endpoint.host}{by} within {timeouts.connect:g} s"
            raise UpstreamTimeout(why, sent=False) from None
        except TunnelRefused as error:
            raise UpstreamFailed(f"no connection to {endpoint.host}:{endpoint.port}: {error}", sent=False) from None
        except (OSError, ssl.SSLError) as error:
            why = f"no connection to {endpoint.host}:{endpoint.port}{by}: {error.strerror or type(error).__name__}"
            raise UpstreamFailed(why, sent=False) from None

    async def _open(self, endpoint: Endpoint, proxy: Proxy | None) -> _Connection:
        connection = _Connection(self, endpoint)
        if proxy is not None and endpoint.tls and self._tls is not None:
            await open_tunnel(proxy, endpoint.host, endpoint.port, connection, self._tls)
            return connection
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            endpoint.host if proxy is None else proxy.host,
            endpoint.port if proxy is None else proxy.port,
            ssl=self._tls if endpoint.tls else None,
            server_hostname=endpoint.host if endpoint.tls else None,
        )
        return connection

    # What connections tell.

    def give_back(self, connection: _Connection) -> None:
        """Its answer is whole: keep it for the next request."""
        self._active.discard(connection)
        kept = self._idle.setdefault(connection.endpoint, [])
        if self._closed or len(kept) >= _MOST_IDLE:
            connection.transport.close()
            return
        connection.idle_since = self.now()
        kept.append(connection)

    def forget(self, connection: _Connection) -> None:
        """It is closed."""
        self._active.discard(connection)
        kept = self._idle.get(connection.endpoint)
        if kept and connection in kept:
            kept.remove(connection)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = self.now()
            for connection in [c for c in self._active if c.answer is not None and c.deadline < now]:
                connection.expire()
            for kept in self._idle.values():
                for connection in [c for c in kept if now - c.idle_since >= _KEEP_IDLE_SECONDS]:
                    kept.remove(connection)
                    connection.transport.close()


def _request(
    endpoint: Endpoint, method: str, target: str, headers: Sequence[Header], *, body: bytes, proxy: Proxy | None
) -> list[bytes]:
    where = b"" if proxy is None else b"http://" + endpoint.authority  # a proxy has to be told of which host it is
    lines = [method.encode("ascii"), b" ", where, f"{endpoint.prefix}{target} HTTP/1.1\r\nhost: ".encode("ascii")]
    lines += (endpoint.authority, b"\r\n")
    if proxy is not None and proxy.authorization is not None:
        lines += (b"proxy-authorization: ", proxy.authorization, b"\r\n")
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d\r\n" % len(body))
    lines.append(b"\r\n")
    head = b"".join(lines)
    # One piece where that is cheap to make: one packet, one system call.
    return [head + body] if len(body) < 65_536 else [head, body]
