"""One exchange in either dialect: send a request, read a whole or a streamed reply, make a `Reply` of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from tierwise.core.decisions import OutcomeKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage
from tierwise.core.tokens import estimate_tokens
from tierwise.providers._http import Deadline, Progress, Upstream
from tierwise.providers.base import ModelRequest, ProviderFailure, Reply
from tierwise.wire.anthropic import (
    MessageAccumulator,
    ProtocolError,
    StreamError,
    estimate_prompt_tokens,
    message_text,
    usage_from_message,
)
from tierwise.wire.openai import ChatAccumulator, Untranslatable, chat_request, error_of, message_from_completion
from tierwise.wire.sse import SseError, SseParser

if TYPE_CHECKING:
    import httpx2

__all__ = ["ChatDialect", "Dialect", "MessagesDialect", "exchange", "reply_from"]

VERSION = "2023-06-01"
_DRAIN_SECONDS = 0.2


class Folder(Protocol):
    """What folds a stream into a message: `MessageAccumulator` or `ChatAccumulator`."""

    stopped: bool
    error: StreamError | None

    @property
    def started(self) -> bool: ...
    @property
    def complete(self) -> bool: ...
    @property
    def has_content(self) -> bool: ...
    def feed(self, event: Json, /) -> None: ...
    def message(self) -> JsonObject: ...
    def usage_so_far(self, body: JsonObject) -> Usage | None: ...


class Dialect(Protocol):
    """What differs between the wires. `end_marker` is data that is no JSON and ends a stream."""

    path: str
    headers: dict[str, str]
    end_marker: str | None
    ending: str  # what a cut stream lacks, in words

    def render(self, body: JsonObject) -> JsonObject: ...
    def folder(self) -> Folder: ...
    def message(self, reply: Json) -> JsonObject: ...
    def error(self, reply: Json) -> StreamError | None: ...


class MessagesDialect:
    """Anthropic's Messages."""

    path = "/v1/messages"
    headers: dict[str, str] = {"anthropic-version": VERSION}  # noqa: RUF012 - never mutated
    end_marker: str | None = None
    ending = "message_stop"

    def render(self, body: JsonObject) -> JsonObject:
        """The body as it is."""
        return body

    def folder(self) -> Folder:
        """A fresh accumulator."""
        return MessageAccumulator()

    def message(self, reply: Json) -> JsonObject:
        """A whole reply."""
        if not isinstance(reply, dict) or not isinstance(reply.get("content"), list):
            raise ProtocolError("a reply without a content list")
        return reply

    def error(self, reply: Json) -> StreamError | None:
        """An error object sent with status 200."""
        return error_of(reply) if isinstance(reply, dict) and reply.get("type") == "error" else None


class ChatDialect:
    """OpenAI's chat/completions."""

    headers: dict[str, str] = {}  # noqa: RUF012 - never mutated
    end_marker: str | None = "[DONE]"
    ending = "a finish reason"

    def __init__(self, path: str = "/v1/chat/completions", *, max_tokens_key: str = "max_tokens") -> None:
        self.path = path
        self._max_tokens_key = max_tokens_key

    def render(self, body: JsonObject) -> JsonObject:
        """The body translated."""
        return chat_request(body, max_tokens_key=self._max_tokens_key)

    def folder(self) -> Folder:
        """A fresh accumulator."""
        return ChatAccumulator()

    def message(self, reply: Json) -> JsonObject:
        """A whole reply, translated."""
        return message_from_completion(reply)

    def error(self, reply: Json) -> StreamError | None:
        """An error sent with status 200."""
        return error_of(reply)


async def exchange(upstream: Upstream, dialect: Dialect, request: ModelRequest, body: JsonObject) -> Reply:
    """One POST, streamed if `body` says so. `body` is a Messages request in either dialect.

    Raises:
        ProviderFailure: it failed; what had been used is on it.
    """
    settings = upstream.settings
    progress = Progress()
    streamed = body.get("stream") is True
    deadline = Deadline.of(settings, request.timeout_seconds, streamed=streamed)
    try:
        rendered = dialect.render(body)
    except Untranslatable as error:  # another model, reached otherwise, may well do it
        raise ProviderFailure(OutcomeKind.UNAVAILABLE, f"{settings.name}: {error}") from None
    reader = _Exchange(
        upstream=upstream, dialect=dialect, request=request, body=body, progress=progress, deadline=deadline
    )
    await upstream.post(
        dialect.path,
        rendered,
        {**dialect.headers, "accept": "text/event-stream" if streamed else "application/json"},
        progress=progress,
        deadline=deadline,
        read=reader.read_stream if streamed else reader.read_whole,
    )
    return reader.reply()


class _Exchange:
    """One request and what came back of it."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        dialect: Dialect,
        request: ModelRequest,
        body: JsonObject,
        progress: Progress,
        deadline: Deadline,
    ) -> None:
        self._upstream = upstream
        self._dialect = dialect
        self._deadline = deadline
        self._request = request
        self._body = body
        self._progress = progress
        self._message: JsonObject = {}
        self._rate_limits: dict[str, str] = {}

    async def read_whole(self, response: httpx2.Response) -> None:
        """Read a reply that is one JSON document."""
        self._note_headers(response)
        content = await self._upstream.read_all(response, self._progress)
        # A 200 was billed whether or not it can be read; until it can, its size has to do.
        self._progress.usage = lambda: _guess(content.decode("utf-8", "replace"), self._request, self._body)
        reply = self._upstream.parse(content, self._progress)
        error = self._dialect.error(reply)
        if error is not None:
            self._progress.usage = lambda: None
            raise self._upstream.event_failure(error.type, error.message, self._progress)
        try:
            self._message = self._dialect.message(reply)
        except ProtocolError as wrong:
            raise self._upstream.garbled(str(wrong), self._progress) from None

    async def read_stream(self, response: httpx2.Response) -> None:
        """Read a reply that comes as events."""
        self._note_headers(response)
        accumulator = self._dialect.folder()
        self._progress.usage = lambda: accumulator.usage_so_far(self._body)
        if "json" in response.headers.get("content-type", ""):  # some servers answer whole whatever was asked
            await self.read_whole(response)
            return
        parser = SseParser()
        try:
            received = await self._consume(response, parser, accumulator)
        except (SseError, ProtocolError) as error:
            raise self._upstream.garbled(str(error), self._progress) from None
        if not accumulator.complete:
            if received and not accumulator.started:
                raise self._upstream.garbled("the stream holds no message", self._progress)
            raise self._upstream.cut(f"the stream ended before {self._dialect.ending}", self._progress)
        self._message = accumulator.message()

    async def _consume(self, response: httpx2.Response, parser: SseParser, accumulator: Folder) -> bool:
        received = False
        chunks = response.aiter_bytes()
        async for chunk in chunks:
            received = True
            for event in parser.feed(chunk):
                if event.data == self._dialect.end_marker:
                    accumulator.stopped = True
                else:
                    accumulator.feed(self._upstream.parse(event.data, self._progress))
                if accumulator.error is not None:
                    error = accumulator.error
                    raise self._upstream.event_failure(error.type, error.message, self._progress)
                if accumulator.stopped:
                    await self._drain(chunks)
                    return True
            if accumulator.has_content:
                self._progress.first_token()
                self._deadline.piece_arrived()
        return received

    async def _drain(self, chunks: AsyncIterator[bytes]) -> None:
        # The answer is whole. Reading HTTP's own end lets the connection be used again; not worth waiting for.
        import httpx2  # noqa: PLC0415 - loaded already

        with suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in chunks:
                    pass

    def reply(self) -> Reply:
        """What came, as a value."""
        return reply_from(self._message, self._request, self._body, self._progress, self._rate_limits)

    def _note_headers(self, response: httpx2.Response) -> None:
        self._rate_limits = {
            name: value for name, value in response.headers.items() if name.startswith("anthropic-ratelimit-")
        }


def reply_from(
    message: JsonObject,
    request: ModelRequest,
    body: JsonObject,
    progress: Progress,
    rate_limits: dict[str, str] | None = None,
) -> Reply:
    """A complete message as a `Reply`. Where the server did not count (readably), usage is estimated from the texts."""
    usage = usage_from_message(message)
    if usage.estimated:
        guess = _guess(message_text(message), request, body)
        usage = dataclasses.replace(
            usage,
            input_tokens=usage.input_tokens if usage.prompt_tokens else guess.input_tokens,
            output_tokens=usage.output_tokens or guess.output_tokens,
        )
    stop_reason, model, message_id = message.get("stop_reason"), message.get("model"), message.get("id")
    return Reply(
        message=message,
        text=message_text(message),
        stop_reason=stop_reason if isinstance(stop_reason, str) else None,
        usage=usage,
        model=model if isinstance(model, str) and model else request.model.id,
        request_id=progress.request_id or (message_id if isinstance(message_id, str) else None),
        ttft_ms=progress.ttft_ms,
        latency_ms=progress.latency_ms,
        rate_limits=rate_limits or {},
    )


def _guess(output: str, request: ModelRequest, body: JsonObject) -> Usage:
    def tokens(count: int) -> int:
        return int(-(-(count * request.model.tokenizer_factor) // Decimal(1)))

    return Usage(
        input_tokens=tokens(estimate_prompt_tokens(body)), output_tokens=tokens(estimate_tokens(output)), estimated=True
    )
