"""What the application needs of ASGI: a request's body within limits, answers and errors in a client's dialect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, assert_never

from tierwise.core.json import Json, JsonObject
from tierwise.gateway.incoming import BadRequest
from tierwise.wire.chat import error_body as chat_error_body
from tierwise.wire.endings import Dialect

__all__ = [
    "CHECKS",
    "NOT_PASSED_ON",
    "TRAILERS",
    "ClientGone",
    "Receive",
    "Scope",
    "Send",
    "error_body",
    "read_body",
    "send_error",
    "send_json",
    "send_whole",
    "without_keys",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
CHECKS = "tierwise.checks"  # in a scope's extensions, where the caller is in this process: his own checks of the answer
TRAILERS = "http.response.trailers"  # the same: ASGI's own word for a caller who takes headers after the body
# Of an upstream's answer: what belongs to its connection, or is set anew.
NOT_PASSED_ON = frozenset({b"content-length", b"content-encoding", b"transfer-encoding", b"connection", b"keep-alive"})


class ClientGone(Exception):
    """The client hung up."""


async def read_body(receive: Receive, *, most_bytes: int, seconds: float, whole: bool = False) -> bytes:
    """A request's body. `whole`: it is here already, and nothing has to be waited for.

    Raises:
        BadRequest: it is too large (413), or too slow (408).
        ClientGone: it never came whole.
    """
    message = await receive() if whole else await _within(receive, seconds)
    body = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientGone
    if not message.get("more_body"):
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
        return bytes(body)
    pieces, size = [body], len(body)
    ends = asyncio.get_running_loop().time() + seconds
    while message.get("more_body"):
        message = await _within(receive, ends - asyncio.get_running_loop().time())
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > most_bytes:
            raise _too_large(most_bytes)
        pieces.append(piece)
    return b"".join(pieces)


async def _within(receive: Receive, seconds: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            return await receive()
    except TimeoutError:
        raise BadRequest("the request took too long to arrive", status=408, kind="timeout_error") from None


def _too_large(most_bytes: int) -> BadRequest:
    return BadRequest(
        f"the request is larger than {most_bytes:,} bytes (gateway.max_body_bytes)",
        status=413,
        kind="request_too_large",
    )


async def send_whole(send: Send, status: int, headers: Iterable[Header], body: bytes) -> None:
    """An answer in one piece."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, value: Json, *, status: int = 200, headers: Iterable[Header] = ()) -> None:
    """An answer in JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    await send_whole(send, status, [(b"content-type", b"application/json"), *headers], body)


def error_body(kind: str, message: str, details: JsonObject | None = None) -> JsonObject:
    """An error as Anthropic writes it."""
    error: JsonObject = {"type": kind, "message": message}
    return {"type": "error", "error": error if details is None else {**error, "details": details}}


async def send_error(
    send: Send,
    dialect: Dialect,
    *,
    status: int,
    kind: str,
    message: str,
    headers: Iterable[Header] = (),
    param: str | None = None,
    code: str | None = None,
    details: JsonObject | None = None,
) -> None:
    """An error in the client's dialect. `kind` is Anthropic's; the rest is told where there is a place for it."""
    match dialect:
        case Dialect.ANTHROPIC:
            value = error_body(kind, message, details)
        case Dialect.OPENAI:
            value = chat_error_body(status, kind, message, param=param, code=code)
        case _:
            assert_never(dialect)
    await send_json(send, value, status=status, headers=headers)


def without_keys(content: bytes, keys: Iterable[str]) -> bytes:
    """An upstream's text without our own keys, which errors about keys like to quote; a client must not see them."""
    for key in keys:
        content = content.replace(key.encode("utf-8", "replace"), b"[key]")
    return content
