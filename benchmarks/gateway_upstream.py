"""A stand-in for Anthropic's API that is several times faster than what stands before it: for `gateway.py` only.

    python benchmarks/gateway_upstream.py PORT

It speaks the wire of `POST /v1/messages` (a JSON message, or SSE from `message_start` to `message_stop`) and nothing
else, with replies made beforehand. What it is not: a judge of requests; `tierwise.testing` has a stand-in for that.
A request whose body contains `PACED` gets its events one by one, the others get them in a burst.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

EVENTS = 60
AT_ONCE = 4  # of a paced stream: what Anthropic sends with the first token
PACE_SECONDS = 0.005
PACED = b"stand-in: paced"
TEXT = (
    "The order arrived two days late because the carrier rerouted the parcel; the customer was told the same day and "
    "accepted a refund of the shipping fee."
)
_PIECES = EVENTS - 6  # content_block_delta events
_MODEL = re.compile(rb'"model"\s*:\s*"([^"]+)"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_USAGE = {"input_tokens": 160, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 96}
_HEADERS = (
    "request-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\n"
    "anthropic-ratelimit-requests-limit: 4000000\r\nanthropic-ratelimit-requests-remaining: 3999999\r\n"
    "anthropic-ratelimit-requests-reset: 2030-01-01T00:00:00Z\r\n"
    "anthropic-ratelimit-input-tokens-limit: 4000000000\r\nanthropic-ratelimit-input-tokens-remaining: 3999999000\r\n"
    "anthropic-ratelimit-input-tokens-reset: 2030-01-01T00:00:00Z\r\n"
    "anthropic-ratelimit-output-tokens-limit: 800000000\r\nanthropic-ratelimit-output-tokens-remaining: 799999000\r\n"
    "anthropic-ratelimit-output-tokens-reset: 2030-01-01T00:00:00Z\r\n"
)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass(frozen=True, slots=True)
class Replies:
    """What a model answers, as bytes: to a plain request, to a stream, and the pieces of a paced one."""

    message: bytes
    burst: bytes
    pieces: tuple[bytes, ...]


@lru_cache(64)
def replies(model: str) -> Replies:
    """The replies that name `model`."""
    message: dict[str, object] = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": model,
    }
    whole = {**message, "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "stop_sequence": None}
    body = json.dumps({**whole, "usage": _USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{_HEADERS}\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in _events(message)]
    chunks[-1] += b"0\r\n\r\n"
    streaming = "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    start = f"HTTP/1.1 200 OK\r\n{streaming}transfer-encoding: chunked\r\n{_HEADERS}\r\n".encode()
    first = start + b"".join(chunks[:AT_ONCE])
    return Replies(head.encode() + body, start + b"".join(chunks), (first, *chunks[AT_ONCE:]))


def _events(message: dict[str, object]) -> Iterator[bytes]:
    def event(kind: str, **fields: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, separators=(',', ':'))}\n\n".encode()

    begun = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    yield event("message_start", message={**begun, "usage": {**_USAGE, "output_tokens": 1}})
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    step = len(TEXT) / _PIECES
    for n in range(_PIECES):
        piece = TEXT[round(n * step) : round((n + 1) * step)]
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=_USAGE)
    yield event("message_stop")


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.pieces: list[bytes] = []
        self.missing = 0  # bytes of the body that are still to come
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.missing > 0:
            self.missing -= len(data)
            if self.missing > 0:
                return
        request = data if len(self.pieces) == 1 else b"".join(self.pieces)
        ends = request.find(b"\r\n\r\n")
        if ends < 0:
            return
        length = _LENGTH.search(request, 0, ends + 2)
        self.missing = ends + 4 + (int(length[1]) if length else 0) - len(request)
        if self.missing > 0:
            self.pieces = [request]
            return
        self.pieces.clear()
        self.answer(request, ends)

    def answer(self, request: bytes, ends: int) -> None:
        """Writes the reply to a whole request whose head ends at `ends`."""
        model = _MODEL.search(request, ends)
        if not request.startswith(b"POST /v1/messages") or model is None:
            self.transport.write(_NOT_FOUND)
            return
        made = replies(model[1].decode("ascii", "replace"))
        if _STREAM.search(request, ends) is None:
            self.transport.write(made.message)
        elif PACED in request:
            self.step(made.pieces, 0, self.loop.time())
        else:
            self.transport.write(made.burst)

    def step(self, pieces: tuple[bytes, ...], number: int, began: float) -> None:
        """One piece of a paced stream, and the next in time: a late one does not make the others late."""
        if self.gone:
            return
        self.transport.write(pieces[number])
        if number + 1 < len(pieces):
            self.loop.call_at(began + (number + 1) * PACE_SECONDS, self.step, pieces, number + 1, began)


async def serve(port: int) -> None:
    """Serves until it is killed."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
