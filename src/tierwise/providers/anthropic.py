"""The Anthropic wire: Anthropic itself, and whatever speaks it (Ollama ≥ 0.14, llama.cpp, vLLM, gateways)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING

from tierwise.core.catalog import Model
from tierwise.core.json import JsonObject
from tierwise.core.money import Usage
from tierwise.core.settings import ProviderSettings
from tierwise.core.tokens import estimate_tokens
from tierwise.providers._http import WHOLE_REPLY_SECONDS, Deadline, Progress, Upstream
from tierwise.providers.base import Availability, ModelRequest, Reply
from tierwise.wire.anthropic import (
    MessageAccumulator,
    ProtocolError,
    estimate_prompt_tokens,
    message_text,
    usage_from_message,
)
from tierwise.wire.sse import SseError, SseParser

if TYPE_CHECKING:
    import httpx2

__all__ = ["AnthropicProvider", "build"]

VERSION = "2023-06-01"
_DRAIN_SECONDS = 0.2
DEFAULT_BASE_URL = "https://api.anthropic.com"


def build(settings: ProviderSettings) -> AnthropicProvider:
    """The provider for these settings. Opens no connection."""
    return AnthropicProvider(settings)


class AnthropicProvider:
    """Sends Messages requests to `settings.base_url` (Anthropic's by default)."""

    def __init__(self, settings: ProviderSettings, *, default_base_url: str = DEFAULT_BASE_URL) -> None:
        self._settings = settings
        self._upstream = Upstream(settings, default_base_url=default_base_url)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.name} at {self._upstream.base_url}>"

    async def send(self, request: ModelRequest) -> Reply:
        """Make one attempt. See `tierwise.providers.base.Provider.send`."""
        return await send_messages(self._upstream, request, self._body(request))

    async def check(self, model: Model) -> Availability:
        """Whether a key is there that can be sent. Asks nobody: the API has no question that costs nothing."""
        del model
        problem = self._upstream.problem
        return Availability(not problem, problem)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()

    def _body(self, request: ModelRequest) -> JsonObject:
        body: JsonObject = {**request.body, "model": request.model.id}
        if self._settings.inference_geo is not None:
            body.setdefault("inference_geo", self._settings.inference_geo)
        if self._settings.speed is not None:
            body.setdefault("speed", self._settings.speed)
        if self._settings.stream:
            body["stream"] = True
        else:
            body.pop("stream", None)
        return body


async def send_messages(upstream: Upstream, request: ModelRequest, body: JsonObject) -> Reply:
    """One `POST /v1/messages`, streamed if the body says so, as a `Reply`.

    Raises:
        ProviderFailure: it failed; what had been used is on it.
    """
    settings = upstream.settings
    progress = Progress()
    exchange = _Exchange(upstream, request, body, progress)
    streamed = body.get("stream") is True
    if streamed:
        deadline = Deadline(
            request.timeout_seconds, settings.first_token_timeout_seconds, settings.idle_timeout_seconds
        )
    else:
        total = request.timeout_seconds or WHOLE_REPLY_SECONDS
        deadline = Deadline(total, total, total)
    exchange.deadline = deadline
    await upstream.post(
        "/v1/messages",
        body,
        {"anthropic-version": VERSION, "accept": "text/event-stream" if streamed else "application/json"},
        progress=progress,
        deadline=deadline,
        read=exchange.read_stream if streamed else exchange.read_whole,
    )
    return exchange.reply()


class _Exchange:
    """One request and what came back of it."""

    deadline: Deadline

    def __init__(self, upstream: Upstream, request: ModelRequest, body: JsonObject, progress: Progress) -> None:
        self._upstream = upstream
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
        self._progress.usage = lambda: self._guess(content.decode("utf-8", "replace"))
        message = self._upstream.parse(content, self._progress)
        if not isinstance(message, dict) or not isinstance(message.get("content"), list):
            raise self._upstream.garbled("a reply without a content list", self._progress)
        self._message = message

    async def read_stream(self, response: httpx2.Response) -> None:
        """Read a reply that comes as events."""
        self._note_headers(response)
        accumulator = MessageAccumulator()
        self._progress.usage = lambda: accumulator.usage_so_far(self._body)
        if "json" in response.headers.get("content-type", ""):  # some servers answer whole whatever was asked
            await self.read_whole(response)
            return
        parser = SseParser()
        try:
            received = await self._consume(response, parser, accumulator)
        except (SseError, ProtocolError) as error:
            raise self._upstream.garbled(str(error), self._progress) from None
        if not accumulator.stopped:
            if received and not accumulator.started:
                raise self._upstream.garbled("the stream holds no message", self._progress)
            raise self._upstream.cut("the stream ended before message_stop", self._progress)
        self._message = accumulator.message()

    async def _consume(self, response: httpx2.Response, parser: SseParser, accumulator: MessageAccumulator) -> bool:
        received = False
        chunks = response.aiter_bytes()
        async for chunk in chunks:
            received = True
            for event in parser.feed(chunk):
                accumulator.feed(self._upstream.parse(event.data, self._progress))
                if accumulator.error is not None:
                    error = accumulator.error
                    raise self._upstream.event_failure(error.type, error.message, self._progress)
                if accumulator.stopped:
                    await self._drain(chunks)
                    return True
            if accumulator.has_content:
                self._progress.first_token()
                self.deadline.piece_arrived()
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
        message = self._message
        usage = usage_from_message(message)
        if usage.estimated:  # the server did not say (or not readably): count what it left out ourselves
            guess = self._guess(message_text(message))
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
            model=model if isinstance(model, str) else self._request.model.id,
            request_id=self._progress.request_id or (message_id if isinstance(message_id, str) else None),
            ttft_ms=self._progress.ttft_ms,
            latency_ms=self._progress.latency_ms,
            rate_limits=self._rate_limits,
        )

    def _note_headers(self, response: httpx2.Response) -> None:
        self._rate_limits = {
            name: value for name, value in response.headers.items() if name.startswith("anthropic-ratelimit-")
        }

    def _guess(self, output: str) -> Usage:
        return Usage(
            input_tokens=self._tokens(estimate_prompt_tokens(self._body)),
            output_tokens=self._tokens(estimate_tokens(output)),
            estimated=True,
        )

    def _tokens(self, count: int) -> int:
        return int(-(-(count * self._request.model.tokenizer_factor) // Decimal(1)))
