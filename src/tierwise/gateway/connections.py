"""What a client may ask of a connection: uvicorn's protocol, with limits on a request's head and on slow clients.

Theory of operation. uvicorn takes a head of any length and waits for one for as long as the client likes, and so also
for a client that does not read its answer: few thousand of such connections, which cost their owner nothing, and
nobody else is served. So a head's bytes are counted while it comes (by what is read at a time: a head that is whole at
once may be longer by that much), its headers when it is there. One sweep a second over all connections (a timer for
each would cost every request) closes those that are late: with a head that is not there after `head_seconds`, or with
an answer of which they have taken nothing for `unread_seconds`. A body has its own limits (`asgi.read_body`), and an
idle connection uvicorn's.

Clients that would like another protocol ask for it with a request of this one (`Upgrade: h2c`, as Java's own client
does). A server may go on as if it had not been asked (RFC 9110, 7.8), which is all that is done here. But the parser
takes such a request to be over with its head: it is read once more, without the wish.

The application finds its connection in the scope. ASGI has a message for a client that hangs up and a body that comes
in pieces; a task and a timer for each call, to wait for what hardly ever happens, cost more than routing it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["CONNECTION", "ConnectionLimits", "protocol_class", "sweep"]

CONNECTION = "tierwise.connection"  # in a scope's extensions: what the application may ask of its connection

_SWEEP_SECONDS = 1.0
_WISHES = frozenset({b"upgrade", b"http2-settings"})
_REFUSED = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b"
)
_REFUSED_BODY = (
    b'{"type":"error","error":{"type":"invalid_request_error","message":"tierwise: the request has too many headers, '
    b'or too long ones"}}'
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a head may be, and how slow a client."""

    headers: int = 128
    head_bytes: int = 128 * 1024
    head_seconds: float = 60.0
    unread_seconds: float = 300.0
    sweep_seconds: float = _SWEEP_SECONDS


@lru_cache(8)
def protocol_class(limits: ConnectionLimits) -> type[Any]:
    """The class of a connection that holds to these limits, for `uvicorn.Config(http=…)`."""
    import httptools  # noqa: PLC0415  the gateway's extra
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415  the same

    class Connection(HttpToolsProtocol):
        """One client."""

        head_since: float | None = None  # since when a head is waited for
        unread_since: float | None = None  # since when the client takes nothing
        head_left = limits.head_bytes
        refused = False
        lost: Callable[[], None] | None = None  # told when the connection ends
        whole = False  # the request at hand is here, to the last byte
        gone: Callable[[], None] | None = None  # called where the client hangs up

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's own
            super().connection_made(transport)
            self.head_since = self.loop.time()

        def data_received(self, data: bytes) -> None:
            if self.refused:
                return
            self._unset_keepalive_if_required()
            try:
                self._parse(data)
            except httptools.HttpParserError:
                self.logger.warning("Invalid HTTP request received.")
                self.send_400_response("Invalid HTTP request received.")
                return
            if self.head_since is not None:
                self.head_left -= len(data)
                if self.head_left < 0 or len(self.headers or ()) > limits.headers:
                    self._refuse()

        def _parse(self, data: bytes | memoryview) -> None:
            while True:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as wished:
                    data = memoryview(data)[wished.args[0] :]
                    head = self._head_without_wish()
                    self.parser = httptools.HttpRequestParser(self)  # for the other one, this may have been the last
                    self.parser.feed_data(head)
                else:
                    return

        def _head_without_wish(self) -> bytes:
            method = self.parser.get_method()
            if method == b"CONNECT":  # a wish by itself
                raise httptools.HttpParserError("a tunnel")
            lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode("ascii"))]
            lines += [b"%b: %b" % pair for pair in self.headers if pair[0] not in _WISHES]
            return b"\r\n".join((*lines, b"", b""))

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.whole, self.gone = False, None
            self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item] # ours beside the standard ones
            self.head_left = limits.head_bytes
            if self.head_since is None:
                self.head_since = self.loop.time()

        def on_headers_complete(self) -> None:
            self.head_since = None
            if len(self.headers) > limits.headers:
                self._refuse()
            if not self.refused and not self.parser.should_upgrade():
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if not self.refused:
                super().on_body(body)

        def on_message_complete(self) -> None:
            if self.parser.should_upgrade():
                return  # it comes again
            self.whole = True
            if not self.refused:
                super().on_message_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.gone is not None:
                self.gone()
            if self.lost is not None:
                self.lost()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.unread_since = self.loop.time()

        def resume_writing(self) -> None:
            super().resume_writing()
            self.unread_since = None

        def is_late(self, now: float) -> bool:
            """Whether the client has kept us waiting for too long."""
            return (self.head_since is not None and now - self.head_since > limits.head_seconds) or (
                self.unread_since is not None and now - self.unread_since > limits.unread_seconds
            )

        def _refuse(self) -> None:
            if not self.refused:
                self.refused = True
                self.transport.write(_REFUSED % (len(_REFUSED_BODY), _REFUSED_BODY))
                self.transport.close()

    return Connection


async def sweep(connections: set[Any], limits: ConnectionLimits) -> None:
    """Closes who is late, for as long as it runs."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(limits.sweep_seconds)
        now = loop.time()
        for connection in [one for one in connections if one.is_late(now)]:
            connection.transport.abort()
