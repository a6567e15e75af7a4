"""What the gateway answers, in LiteLLM's shapes: pure, without a model or a socket.

The gateway speaks OpenAI's dialect, as LiteLLM does inside, so little is left to do: the cost, which LiteLLM takes from
where a provider states its own, and the names that it has for cached tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from tierwise.core.json import Json, JsonObject
from tierwise.wire.sse import SseParser

__all__ = ["Chunks", "StreamFailed", "cost_of", "told_of", "usage_of"]

_TOLD = ("call-id", "task-type", "tier", "model", "cost-usd", "warning")


def told_of(headers: Mapping[str, str]) -> dict[str, str]:
    """What tierwise says of a call."""
    found = {name.replace("-", "_"): headers.get(f"x-tierwise-{name}") for name in _TOLD}
    return {name: text for name, text in found.items() if text is not None}


def cost_of(told: Mapping[str, str]) -> float | None:
    """All attempts of a call in dollars, in LiteLLM's type; None: the price of one is not known."""
    cost = told.get("cost_usd")
    return None if cost is None else float(Decimal(cost))


def usage_of(usage: Json) -> JsonObject:
    """Usage with what LiteLLM looks for beside OpenAI's fields, which it keeps."""
    if not isinstance(usage, dict):
        return {}
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    return {
        **usage,
        "cache_read_input_tokens": details.get("cached_tokens", 0),
        "cache_creation_input_tokens": details.get("cache_write_tokens", 0),
    }


class StreamFailed(Exception):
    """The stream told an error."""

    def __init__(self, error: Json) -> None:
        super().__init__("the stream ended with an error")
        self.error = error


class Chunks:
    """The bytes of a stream as LiteLLM's chunks for providers (`GenericStreamingChunk`).

    LiteLLM looks at nothing after a chunk that is finished, so that one is kept back until all is known.
    """

    def __init__(self) -> None:
        self._parser = SseParser()
        self._finish: str | None = None
        self._usage: JsonObject = {}

    def read(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The chunks that these bytes complete.

        Raises:
            StreamFailed: they tell an error.
        """
        for event in self._parser.feed(piece):
            if event.data == "[DONE]":
                continue
            match json.loads(event.data):
                case {"error": error}:
                    raise StreamFailed(error)
                case {"choices": [dict(choice), *_]}:
                    yield from self._choice(choice)
                case {"usage": dict(usage)}:
                    self._usage = usage_of(usage)
                case _:
                    pass

    def end(self, told: Mapping[str, str]) -> dict[str, Any]:
        """The last chunk, with what was told of the whole call.

        Raises:
            StreamFailed: the stream ended before the answer did.
        """
        if self._finish is None:
            raise StreamFailed({"type": "server_error", "message": "the stream ended before a finish reason"})
        usage: dict[str, Any] = {**self._usage}
        cost = cost_of(told)
        if cost is not None:
            usage["cost"] = cost
        last = _chunk("", usage=usage or None, finish=self._finish)
        return {**last, "provider_specific_fields": {"tierwise": dict(told)}}

    def _choice(self, choice: JsonObject) -> Iterator[dict[str, Any]]:
        match choice:
            case {"finish_reason": str(reason)}:
                self._finish = reason
            case _:
                pass
        match choice:
            case {"delta": {"tool_calls": list(calls)}}:
                for call in calls:
                    if isinstance(call, dict):
                        yield _chunk("", call=_call(call))
            case {"delta": {"content": str(text)}} if text:
                yield _chunk(text)
            case {"delta": {"refusal": str(text)}} if text:
                yield _chunk(text)
            case _:
                pass


def _call(call: JsonObject) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": function.get("name"), "arguments": function.get("arguments") or ""},
        "index": call.get("index", 0),
    }


def _chunk(
    text: str, *, call: dict[str, Any] | None = None, usage: dict[str, Any] | None = None, finish: str = ""
) -> dict[str, Any]:
    return {
        "text": text,
        "tool_use": call,
        "is_finished": bool(finish),
        "finish_reason": finish,
        "usage": usage,
        "index": 0,
    }
