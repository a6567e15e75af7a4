"""What an answer of OpenAI's API says about itself while it passes by: pure, bytes in, an attempt out.

For `chat/completions` and `responses`, whole or streamed. Nothing is changed and nothing is held back. A stream tells
its usage only where it was asked to (`stream_options`, in chat/completions); where nobody tells it, it is not known.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from tierwise.core.decisions import OutcomeKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage
from tierwise.integrations.records import ForeignAttempt
from tierwise.providers._http import failure_kind
from tierwise.wire.anthropic import usage_from_message
from tierwise.wire.openai import anthropic_usage, error_of
from tierwise.wire.sse import SseError, SseParser

__all__ = ["PassingBy", "Witness", "asked_in_responses", "chat_usage"]

_MOST_BYTES = 64 * 1024 * 1024  # of a whole answer that is looked at
_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed")
_NOT_TOLD = "it told no usage"
_MAY_HAVE_WORKED = (OutcomeKind.CANCELLED, OutcomeKind.TIMEOUT)  # a model, though nobody waited for its answer


@dataclass(frozen=True, slots=True)
class PassingBy:
    """A request that goes on as it is."""

    id: str
    model: str
    provider: str  # by where it goes
    started_at_ms: int


def asked_in_responses(given: Json) -> list[Json]:
    """What a request of `responses` has as its `input`, as messages of chat/completions; its texts alone."""
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    return [
        {"role": item.get("role"), "content": _text(item.get("content"))}
        for item in items
        if isinstance(item, dict) and item.get("role") in ("user", "assistant")
    ]


def _text(content: Json) -> str:
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


class Witness:
    """Looks at one answer. Feed it what passes, then `end` it."""

    def __init__(self, request: PassingBy) -> None:
        self._request = request
        self._status = 0
        self._request_id: str | None = None
        self._events: SseParser | None = None
        self._content = bytearray()
        self._usage: JsonObject | None = None
        self._model: str | None = None
        self._error: OutcomeKind | None = None
        self._over = False

    def begin(self, status: int, content_type: str, request_id: str | None) -> None:
        """The answer's head."""
        self._status, self._request_id = status, request_id
        self._events = SseParser() if content_type.startswith("text/event-stream") else None

    def feed(self, piece: bytes) -> None:
        """Some of its body, decoded."""
        if self._events is None:
            if len(self._content) < _MOST_BYTES:
                self._content += piece
            return
        with suppress(SseError):  # its client sees what it is
            for event in self._events.feed(piece):
                self._read(event.data)

    def end(self, now_ms: int, *, whole: bool, broken: OutcomeKind = OutcomeKind.CANCELLED) -> ForeignAttempt:
        """The attempt that it was. `broken`: why it is not whole."""
        outcome, detail = self._outcome(whole=whole, broken=broken)
        usage: Usage | None = Usage()  # an error in place of an answer used nothing
        if self._status == 200:
            usage = self._told()
        elif not self._status and outcome in _MAY_HAVE_WORKED:
            usage = None
        if usage is None and not detail:
            detail = _NOT_TOLD
        return ForeignAttempt(
            key=self._request.id,
            model=self._request.model,
            provider=self._request.provider,
            started_at_ms=self._request.started_at_ms,
            latency_ms=max(0, now_ms - self._request.started_at_ms),
            outcome=outcome,
            detail=detail,
            usage=usage,
            request_id=self._request_id,
            reported_model=self._model,
        )

    def _outcome(self, *, whole: bool, broken: OutcomeKind) -> tuple[OutcomeKind, str]:
        provider = self._request.provider
        value: Json = None
        if self._events is None:
            with suppress(ValueError, RecursionError):
                value = json.loads(bytes(self._content))
            self._look(value)
        if not self._status:
            return broken, f"{provider}: no answer came"
        if self._status != 200:
            return failure_kind(self._status), f"{provider} answered {self._status}"
        if self._error is not None:
            return self._error, f"{provider} broke off"
        if whole and self._events is None:
            if isinstance(value, dict) or len(self._content) >= _MOST_BYTES:  # there is more than was looked at
                return OutcomeKind.ACCEPTED, ""
            return OutcomeKind.SERVER_ERROR, f"{provider}: an answer that is no JSON object"
        if self._over:
            return OutcomeKind.ACCEPTED, ""
        return (OutcomeKind.CONNECTION if whole else broken), f"{provider}: the answer did not come to its end"

    def _read(self, data: str) -> None:
        if data == "[DONE]":
            self._over = True
            return
        with suppress(ValueError, RecursionError):
            self._look(json.loads(data))

    def _look(self, value: Json) -> None:
        """A whole answer, or an event of one; in an event of `responses` the answer is inside."""
        if not isinstance(value, dict):
            return
        self._over = self._over or value.get("type") in _LAST_EVENTS
        inside = value.get("response")
        said = inside if isinstance(inside, dict) else value
        usage = said.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        model = said.get("model")
        if isinstance(model, str):
            self._model = model[:200]
        error = error_of(said)
        if error is not None and self._status == 200:
            self._error = failure_kind(200, error.type, error.message)

    def _told(self) -> Usage | None:
        usage = self._usage
        return usage_from_message({"usage": anthropic_usage(chat_usage(usage))}) if usage is not None else None


def chat_usage(usage: JsonObject) -> JsonObject:
    """Usage by the names of chat/completions: `responses` has others for the same."""
    if "input_tokens" not in usage or "prompt_tokens" in usage:
        return usage
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
