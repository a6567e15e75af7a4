"""What a client gets to see of its call: headers, a whole answer, a stream, an error, each in its own dialect."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress

from tierwise.core.decisions import CallStatus
from tierwise.core.json import JsonObject
from tierwise.core.money import nanousd_to_usd
from tierwise.gateway.asgi import NOT_PASSED_ON, Send, send_error, send_whole
from tierwise.gateway.incoming import Incoming, parsed_json
from tierwise.gateway.planning import Target
from tierwise.gateway.records import CallLog
from tierwise.providers._http import error_body as read_error
from tierwise.providers.passthrough import Answer
from tierwise.wire.chat import ChatChunks, completion
from tierwise.wire.endings import Dialect, error_event
from tierwise.wire.events import message_events, sse
from tierwise.wire.splice import compact
from tierwise.wire.sse import SseError, SseParser

__all__ = ["Refused", "Reply"]

Header = tuple[bytes, bytes]

_MOST_QUOTED = 2_000
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_JSON = [(b"content-type", b"application/json")]
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Refused:
    """An answer to hand on as it is if nothing better comes: an upstream's own error, or one of ours in its place."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self.status = status
        self.headers = [(name, value) for name, value in headers if name not in NOT_PASSED_ON]
        self.body = body


class Reply:
    """The answer to one request. Nothing of it is sent before somebody says so.

    Args:
        send: to the client.
        incoming: the request.
        log: of its call.
        target: where it goes first.
    """

    __slots__ = ("_chat", "_chat_parser", "_incoming", "_log", "_send", "committed", "target", "warning")

    def __init__(self, send: Send, incoming: Incoming, log: CallLog, target: Target) -> None:
        self._send = send
        self._incoming = incoming
        self._log = log
        self.target = target  # that was asked last
        self.warning = ""  # of soft budgets
        self.committed = False  # the client has a byte of an answer
        self._chat: ChatChunks | None = None
        if incoming.dialect is Dialect.OPENAI and incoming.stream:
            self._chat = ChatChunks(
                id=log.call.call_id,
                model=incoming.model,
                created=log.call.started_at_ms // 1000,
                include_usage=_wants_usage(incoming.body),
            )
            self._chat_parser = SseParser()

    @property
    def as_it_is(self) -> bool:
        """Whether a stream goes on byte for byte, since the client speaks the upstream's dialect."""
        return self._chat is None

    async def put(self, answer: Answer | None, out: bytes, *, end: bool = False) -> None:
        """Bytes of a stream in Anthropic's dialect, which begin the answer where they are the first."""
        if self._chat is not None:
            out = self._as_chat(self._chat, out)
            if end:
                out += self._chat.end()
        await self._put(answer, out, end=end)

    async def flow(self, piece: bytes) -> None:
        """More of a stream that has begun and goes on as it is."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def break_off(self, message: str, answer: Answer | None = None, *, mid_event: bool) -> None:
        """A stream ends with an error in the client's dialect."""
        await self._put(
            answer, error_event(self._incoming.dialect, "api_error", message, mid_event=mid_event), end=True
        )

    async def message(self, answer: Answer | None, message: JsonObject, content: bytes | None) -> None:
        """A whole message, as the client asked for it; as the bytes that came (`content`) where there are any."""
        if self._incoming.stream:
            await self.put(answer, b"".join(sse(event) for event in message_events(message)), end=True)
        elif self._incoming.dialect is Dialect.OPENAI:
            call = self._log.call
            created = call.started_at_ms // 1000
            value = completion(message, model=self._incoming.model, created=created, id=call.call_id)
            await self._whole(compact(value), _JSON)
        elif content is None or answer is None:
            await self._whole(compact(message), _JSON)
        else:
            await self._whole(content, [h for h in answer.headers if h[0] not in NOT_PASSED_ON])

    async def refuse(self, refused: Refused) -> None:
        """An error with its own status and body; for OpenAI's clients, in their words."""
        if self._incoming.dialect is not Dialect.OPENAI:
            await send_whole(self._send, refused.status, [*refused.headers, *self._headers()], refused.body)
            return
        kind, message = read_error(refused.body)
        await send_error(
            self._send,
            Dialect.OPENAI,
            status=refused.status,
            kind=kind,  # where that is nothing known (a proxy's page), the status says what it is
            message=message[:_MOST_QUOTED],
            headers=[*(h for h in refused.headers if h[0] == b"retry-after"), *self._headers()],
        )

    async def fail(self, status: int, kind: str, message: str, more: Sequence[Header] = ()) -> None:
        """An error of ours, with further headers."""
        headers = [*self._headers(), *more]
        await send_error(self._send, self._incoming.dialect, status=status, kind=kind, message=message, headers=headers)

    async def _put(self, answer: Answer | None, out: bytes, *, end: bool) -> None:
        if not self.committed:
            self.committed = True
            headers = (
                [h for h in answer.headers if h[0] not in NOT_PASSED_ON]
                if answer is not None and self._incoming.dialect is Dialect.ANTHROPIC
                else _EVENTS
            )
            start = {"type": "http.response.start", "status": 200, "headers": [*headers, *self._headers()]}
            await self._send({**start, "trailers": True} if self._incoming.trailers else start)
        if out or end:
            await self._send({"type": "http.response.body", "body": out, "more_body": not end})
        if end and self._incoming.trailers:
            await self._send({"type": "http.response.trailers", "headers": self._headers()})

    async def _whole(self, body: bytes, headers: Sequence[Header]) -> None:
        self.committed = True
        await send_whole(self._send, 200, [*headers, *self._headers()], body)

    def _as_chat(self, chat: ChatChunks, out: bytes) -> bytes:
        pieces: list[bytes] = []
        # What is no event says nothing in the other dialect either.
        with suppress(SseError, ValueError, RecursionError):
            pieces.extend(chat.feed(json.loads(event.data)) for event in self._chat_parser.feed(out))
        return b"".join(pieces)

    def _headers(self) -> list[Header]:
        """What every answer says of its call."""
        call = self._log.call
        headers = [
            (b"x-tierwise-call-id", call.call_id.encode("ascii")),
            (b"x-tierwise-task-type", call.task_type.encode("ascii", "replace")),
            (b"x-tierwise-tier", self.target.tier.encode("ascii", "replace")),
            (b"x-tierwise-model", self.target.model.id.encode("ascii", "replace")),
        ]
        if self.warning:
            headers.append((b"x-tierwise-warning", _UNPRINTABLE.sub("?", self.warning).encode("ascii")))
        cost = self._log.cost_nanousd
        if call.status is not CallStatus.OPEN and cost is not None:
            headers.append((b"x-tierwise-cost-usd", str(nanousd_to_usd(cost)).encode("ascii")))
        return headers


def _wants_usage(body: bytes) -> bool:
    try:
        asked = parsed_json(body)
    except (ValueError, RecursionError):
        return False
    options = asked.get("stream_options") if isinstance(asked, dict) else None
    return isinstance(options, dict) and options.get("include_usage") is True
