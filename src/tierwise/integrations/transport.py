"""Transports for httpx2 that answer out of the gateway inside this process, and pass on what is none of its business.

They stand where an SDK's connections would: everything that the SDK does before and after (types, retries, helpers for
streams, its exceptions) stays as it is. A transport of httpx2 is public and small; nothing of an SDK is patched.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import assert_never

import httpx2

from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import TierwiseError
from tierwise.gateway.incoming import Incoming
from tierwise.integrations.inside import Ended, Exchange, Head, InsideGateway, Piece, Request
from tierwise.integrations.options import current_options
from tierwise.integrations.witness import PassingBy, Witness

__all__ = ["TRAILERS", "AsyncTransport", "Part", "Rewrite", "Transport", "Watched", "hearing_client"]

TRAILERS = "tierwise.trailers"  # in a response's extensions: headers that are there once a stream was read to its end

_FOREVER = 10 * 365 * 86_400.0
_NOBODY = "tierwise: no one is here for that request"
_CUT = "the answer was cut before its end"
_RECORD_SECONDS = 10.0  # for a record to be handed over, with which a client's answer ends
_NO_ANSWER = (httpx2.TransportError, asyncio.CancelledError, KeyboardInterrupt, SystemExit)  # ends a wait for one
_ENCODED = frozenset({"content-encoding", "content-length"})  # of what is looked at, and so decoded


@dataclass(frozen=True, slots=True)
class Part:
    """A request that is for the gateway: its path there, its headers, its body."""

    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Watched:
    """A request that is passed on as it is, and whose answer is recorded as it passes by."""

    request: PassingBy
    incoming: Incoming


Rewrite = Callable[[httpx2.Request, bytes], "Part | Watched | httpx2.Response | None"]
"""Says what of a client's requests is for the gateway; None: it is passed on unseen; or answers it at once."""


def _request(part: Part, request: httpx2.Request) -> Request:
    options = current_options()
    own = {name for name, _ in part.headers}
    added = [
        (name.encode("ascii"), text.encode("ascii", "replace"))
        for name, text in options.headers().items()
        if name.encode("ascii") not in own
    ]
    return Request(
        method=request.method,
        path=part.path,
        query=request.url.query,
        headers=[*part.headers, *added],
        body=part.body,
        checks=options.checks,
    )


def _read_seconds(request: httpx2.Request) -> float:
    """How long the client waits for the next bytes."""
    timeouts = request.extensions.get("timeout")
    seconds = timeouts.get("read") if isinstance(timeouts, dict) else None
    return _FOREVER if seconds is None else float(seconds)


class Transport(httpx2.BaseTransport):
    """For synchronous clients.

    Args:
        gateway: answers what is for it.
        rewrite: says what is.
        beside: sends the rest, as the client would without us; None where there is no rest.
    """

    def __init__(self, gateway: InsideGateway, rewrite: Rewrite, beside: httpx2.Client | None) -> None:
        self._gateway = gateway
        self._rewrite = rewrite
        self._beside = beside

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request."""
        part = self._rewrite(request, request.read() if request.method == "POST" else b"")
        if isinstance(part, httpx2.Response):
            return part
        if not isinstance(part, Part):
            if self._beside is None:
                raise httpx2.UnsupportedProtocol(_NOBODY, request=request)
            if part is not None:
                return self._watch(part, request, self._beside)
            passed = self._beside.send(request, stream=True, follow_redirects=False)
            return httpx2.Response(
                passed.status_code, headers=passed.headers, stream=passed.stream, extensions=passed.extensions
            )
        told: queue.SimpleQueue[Head | Piece | Ended] = queue.SimpleQueue()
        exchange = self._gateway.begin(_request(part, request), told.put)
        stream = _Stream(exchange, told, request)
        try:
            head = stream.next()
        except BaseException:
            # A timeout, or Ctrl-C: what was under way is recorded before it goes on.
            exchange.close()
            exchange.wait()
            raise
        if not isinstance(head, Head):
            raise httpx2.RemoteProtocolError("tierwise: no answer came", request=request)
        return httpx2.Response(head.status, headers=head.headers, stream=stream, extensions={TRAILERS: stream.trailers})

    def _watch(self, watched: Watched, request: httpx2.Request, beside: httpx2.Client) -> httpx2.Response:
        with suppress(TierwiseError, RuntimeError):  # closed, or the process ends: as where a record is handed over
            self._gateway.start()
        witness = Witness(watched.request)
        try:
            passed = beside.send(request, stream=True, follow_redirects=False)
        except _NO_ANSWER as error:
            _wait(_told(self._gateway, watched, witness, whole=False, broken=_broken(error)))
            raise
        _begin(witness, passed)
        return _passing(passed, _Watching(self._gateway, watched, witness, passed))

    def close(self) -> None:
        """Closes the connections of what is passed on. The gateway is others' too."""
        if self._beside is not None:
            self._beside.close()


class _Stream(httpx2.SyncByteStream):
    def __init__(
        self, exchange: Exchange, told: queue.SimpleQueue[Head | Piece | Ended], request: httpx2.Request
    ) -> None:
        self._exchange = exchange
        self._told = told
        self._request = request
        self._seconds = _read_seconds(request)
        self.trailers = httpx2.Headers()

    def next(self) -> Head | Piece | Ended:
        try:
            return self._told.get(timeout=self._seconds if self._seconds < _FOREVER else None)
        except queue.Empty:
            raise httpx2.ReadTimeout(f"nothing came for {self._seconds:g} s", request=self._request) from None

    def __iter__(self) -> Iterator[bytes]:
        while True:
            match self.next():
                case Piece(data):
                    yield data
                case Ended(whole, trailers):
                    self.trailers.update(trailers)
                    if not whole:
                        raise httpx2.RemoteProtocolError(_CUT, request=self._request)
                    return
                case Head():
                    pass  # there is one, and it was read before
                case other:
                    assert_never(other)

    def close(self) -> None:
        self._exchange.close()

    def __del__(self) -> None:  # of an answer that was neither read nor closed, nobody would
        self._exchange.close()


class AsyncTransport(httpx2.AsyncBaseTransport):
    """For asynchronous clients, on asyncio. Takes what `Transport` takes."""

    def __init__(self, gateway: InsideGateway, rewrite: Rewrite, beside: httpx2.AsyncClient | None) -> None:
        self._gateway = gateway
        self._rewrite = rewrite
        self._beside = beside

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request."""
        part = self._rewrite(request, await request.aread() if request.method == "POST" else b"")
        if isinstance(part, httpx2.Response):
            return part
        if not isinstance(part, Part):
            if self._beside is None:
                raise httpx2.UnsupportedProtocol(_NOBODY, request=request)
            if part is not None:
                return await self._watch(part, request, self._beside)
            passed = await self._beside.send(request, stream=True, follow_redirects=False)
            return httpx2.Response(
                passed.status_code, headers=passed.headers, stream=passed.stream, extensions=passed.extensions
            )
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Head | Piece | Ended] = asyncio.Queue()

        def put(message: Head | Piece | Ended) -> None:
            with suppress(RuntimeError):  # the caller's loop is closed: nobody waits any more
                loop.call_soon_threadsafe(told.put_nowait, message)

        if not self._gateway.started:  # which reads files: not in the caller's loop
            await asyncio.to_thread(self._gateway.start)
        exchange = self._gateway.begin(_request(part, request), put)
        stream = _AsyncStream(exchange, told, request)
        try:
            head = await stream.next()
        except BaseException:
            exchange.close()
            raise
        if not isinstance(head, Head):
            raise httpx2.RemoteProtocolError("tierwise: no answer came", request=request)
        return httpx2.Response(head.status, headers=head.headers, stream=stream, extensions={TRAILERS: stream.trailers})

    async def _watch(self, watched: Watched, request: httpx2.Request, beside: httpx2.AsyncClient) -> httpx2.Response:
        if not self._gateway.started:
            await asyncio.to_thread(self._gateway.start)
        witness = Witness(watched.request)
        try:
            passed = await beside.send(request, stream=True, follow_redirects=False)
        except _NO_ANSWER as error:
            await _waited(_told(self._gateway, watched, witness, whole=False, broken=_broken(error)))
            raise
        _begin(witness, passed)
        return _passing(passed, _AsyncWatching(self._gateway, watched, witness, passed))

    async def aclose(self) -> None:
        """Closes the connections of what is passed on. The gateway is others' too."""
        if self._beside is not None:
            await self._beside.aclose()


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, exchange: Exchange, told: asyncio.Queue[Head | Piece | Ended], request: httpx2.Request) -> None:
        self._exchange = exchange
        self._told = told
        self._request = request
        self._seconds = _read_seconds(request)
        self.trailers = httpx2.Headers()

    async def next(self) -> Head | Piece | Ended:
        try:
            async with asyncio.timeout(self._seconds if self._seconds < _FOREVER else None):
                return await self._told.get()
        except TimeoutError:
            raise httpx2.ReadTimeout(f"nothing came for {self._seconds:g} s", request=self._request) from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            match await self.next():
                case Piece(data):
                    yield data
                case Ended(whole, trailers):
                    self.trailers.update(trailers)
                    if not whole:
                        raise httpx2.RemoteProtocolError(_CUT, request=self._request)
                    return
                case Head():
                    pass  # there is one, and it was read before
                case other:
                    assert_never(other)

    async def aclose(self) -> None:
        self._exchange.close()

    def __del__(self) -> None:  # of an answer that was neither read nor closed, nobody would
        self._exchange.close()


def hearing_client(
    gateway: InsideGateway, rewrite: Rewrite, hear: Callable[[httpx2.Response], Awaitable[None]]
) -> httpx2.AsyncClient:
    """A client with no other way than to the gateway; `hear` is given each answer when it begins.

    It belongs to no event loop. How long it waits is for the SDK to say that it is given to.
    """
    return httpx2.AsyncClient(transport=AsyncTransport(gateway, rewrite, None), event_hooks={"response": [hear]})


# ------------------------------------------------------------------ what passes by


_Recorded = concurrent.futures.Future[None] | None


class _Witnessed:
    """An answer that is looked at, until it ends or nobody reads on."""

    def __init__(self, gateway: InsideGateway, watched: Watched, witness: Witness, passed: httpx2.Response) -> None:
        self._about = (gateway, watched, witness)
        self._witness = witness
        self._passed = passed
        self._ended = False
        self._process = os.getpid()
        gateway.passing.add(self)

    def end(self, *, whole: bool, broken: OutcomeKind = OutcomeKind.CANCELLED) -> _Recorded:
        if self._ended or self._process != os.getpid():
            return None
        self._ended = True
        return _told(*self._about, whole=whole, broken=broken)

    def break_off(self) -> _Recorded:
        return self.end(whole=False)

    def __del__(self) -> None:  # of an answer that was neither read nor closed, nobody would tell
        self.break_off()


class _Watching(_Witnessed, httpx2.SyncByteStream):
    """The body of such an answer."""

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._passed.iter_bytes():
                self._witness.feed(piece)
                yield piece
        except httpx2.TransportError as error:
            _wait(self.end(whole=False, broken=_broken(error)))
            raise
        _wait(self.end(whole=True))

    def close(self) -> None:
        self._passed.close()
        _wait(self.break_off())


class _AsyncWatching(_Witnessed, httpx2.AsyncByteStream):
    """The same, awaited."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._passed.aiter_bytes():
                self._witness.feed(piece)
                yield piece
        except httpx2.TransportError as error:
            await _waited(self.end(whole=False, broken=_broken(error)))
            raise
        await _waited(self.end(whole=True))

    async def aclose(self) -> None:
        await self._passed.aclose()
        await _waited(self.break_off())


def _told(gateway: InsideGateway, watched: Watched, witness: Witness, *, whole: bool, broken: OutcomeKind) -> _Recorded:
    """Hands a call over to be recorded; None where nobody takes it any more."""
    attempt = witness.end(time.time_ns() // 1_000_000, whole=whole, broken=broken)
    with suppress(TierwiseError, RuntimeError):  # closed, or the process ends: the client's answer is worth more
        return gateway.record(attempt, watched.incoming)
    return None


def _wait(recorded: _Recorded) -> None:
    if recorded is not None:
        concurrent.futures.wait([recorded], _RECORD_SECONDS)


async def _waited(recorded: _Recorded) -> None:
    if recorded is not None:
        await asyncio.wait([asyncio.wrap_future(recorded)], timeout=_RECORD_SECONDS)


def _begin(witness: Witness, passed: httpx2.Response) -> None:
    headers = passed.headers
    witness.begin(passed.status_code, headers.get("content-type", ""), headers.get("x-request-id"))


def _passing(passed: httpx2.Response, stream: httpx2.SyncByteStream | httpx2.AsyncByteStream) -> httpx2.Response:
    headers = [(name, text) for name, text in passed.headers.multi_items() if name.lower() not in _ENCODED]
    return httpx2.Response(passed.status_code, headers=headers, stream=stream, extensions=passed.extensions)


def _broken(error: BaseException) -> OutcomeKind:
    match error:
        case httpx2.ConnectTimeout() | httpx2.PoolTimeout():
            return OutcomeKind.CONNECTION  # nothing was sent
        case httpx2.TimeoutException():
            return OutcomeKind.TIMEOUT
        case httpx2.TransportError():
            return OutcomeKind.CONNECTION
        case _:  # a task that is cancelled, or Ctrl-C
            return OutcomeKind.CANCELLED
