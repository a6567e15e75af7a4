"""What the dashboard needs of ASGI: requests are read, answers sent with the headers that keep a page safe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes

from pydantic import BaseModel

from tierwise.dashboard.access import Header
from tierwise.dashboard.models import Error, ErrorBody
from tierwise.dashboard.refusals import Refused

__all__ = ["SAFE", "ClientGone", "Receive", "Scope", "Send", "body_of", "path_part", "query_of", "refuse", "send_bytes"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MOST_BYTES = 1024 * 1024
_BODY_SECONDS = 20.0
_CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# On everything that is sent, errors too.
SAFE: tuple[Header, ...] = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class ClientGone(Exception):
    """The client hung up."""


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "it is not UTF-8", where=where, do="encode it as UTF-8, then by percent signs") from None


def path_part(scope: Scope, prefix: str) -> str:
    """What follows a prefix in the path, as one name, slashes in it being encoded.

    Raises:
        Refused: it is not UTF-8.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    at = raw.find(prefix.encode())
    return _text(unquote_to_bytes(raw[at + len(prefix) :].split(b"?", 1)[0]), "the path")


def query_of(scope: Scope) -> dict[str, str]:
    """The query's parameters.

    Raises:
        Refused: it cannot be read, or one comes twice.
    """
    raw: bytes = scope.get("query_string", b"")
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise Refused(400, "the query cannot be read", where="the query", do="encode it by percent signs") from None
    for name, value in pairs:
        if name in found:
            raise Refused(400, f"{name[:100]} comes twice", where="the query", do="give it once")
        found[name] = value
    return found


async def body_of(receive: Receive, *, most_bytes: int = _MOST_BYTES, seconds: float = _BODY_SECONDS) -> bytes:
    """A request's body.

    Raises:
        Refused: too large, or too slow.
        ClientGone: it never came whole.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece = message.get("body", b"")
                size += len(piece)
                if size > most_bytes:
                    raise Refused(
                        413, f"the body is larger than {most_bytes:,} bytes", where="the body", do="send less"
                    )
                pieces.append(piece)
                if not message.get("more_body"):
                    return b"".join(pieces)
    except TimeoutError:
        raise Refused(408, "the body took too long to arrive", where="the body", do="send it at once") from None


async def send_bytes(send: Send, status: int, headers: Iterable[Header], body: bytes, *, head: bool = False) -> None:
    """An answer in one piece; `head`: without it."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*SAFE, *headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else body})


async def refuse(send: Send, refused: Refused, *, head: bool = False) -> None:
    """Says why there is no answer."""
    value: BaseModel = Error(error=ErrorBody(what=refused.what, where=refused.where, do=refused.do))
    body = json.dumps(value.model_dump(), ensure_ascii=False).encode("utf-8", "replace")
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *refused.headers]
    await send_bytes(send, refused.status, headers, body, head=head)
