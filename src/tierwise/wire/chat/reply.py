"""A message as a chat/completions reply, and its events as the chunks of a stream.

A stream's chunks depend on its events alone, never on how the network cut them. JSON in chunks is pure ASCII: some
clients split lines at U+2028 and U+0085, and a lone surrogate has no UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from tierwise.core.json import Json, JsonObject
from tierwise.wire.anthropic import ProtocolError, message_text, usage_from_message
from tierwise.wire.chat.errors import error_body

__all__ = ["ChatChunks", "completion"]

_FINISH: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def completion(message: JsonObject, *, model: str, created: int, id: str) -> JsonObject:
    """A message as a chat/completions reply. Thinking is left out, as OpenAI leaves it out."""
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    calls: list[Json] = [_tool_call(b) for b in blocks if isinstance(b, dict) and b.get("type") == "tool_use"]
    said: JsonObject = {
        "role": "assistant",
        "content": message_text(message) or None,
        "refusal": _refusal(message),
        "annotations": [],
    }
    if calls:
        said["tool_calls"] = calls
    finish = _finish_reason(message.get("stop_reason"), called=bool(calls))
    reply: JsonObject = {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish}],
        "system_fingerprint": None,
    }
    if isinstance(message.get("usage"), dict):
        reply["usage"] = _usage(message)
    return reply


def _tool_call(block: JsonObject) -> JsonObject:
    return {
        "id": block.get("id"),
        "type": "function",
        "function": {"name": block.get("name"), "arguments": _arguments_text(block.get("input"))},
    }


def _arguments_text(value: Json) -> str:
    # A string is what a stream left that was no JSON: it is passed on for the client to judge
    return value if isinstance(value, str) else json.dumps(value if value is not None else {}, ensure_ascii=False)


def _refusal(holder: JsonObject) -> str | None:
    match holder:
        case {"stop_reason": "refusal", "stop_details": {"explanation": str(explanation)}}:
            return explanation
        case _:
            return None


def _finish_reason(stop_reason: Json, *, called: bool) -> str:
    finish = _FINISH.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"
    return "tool_calls" if called and finish == "stop" else finish  # several servers say `end_turn` after a call


def _usage(message: JsonObject) -> JsonObject:
    usage = usage_from_message(message)
    return {
        "prompt_tokens": usage.prompt_tokens,  # cached ones included: the other way round than in Messages
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.thinking_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


class ChatChunks:
    """Turns the events of one Messages stream into the bytes of a chat/completions stream.

    Feed it each event's parsed `data`, then call `end`. A chunk with a finish reason comes with `message_stop` and
    not before: a stream that was cut never looks whole. An `error` event becomes OpenAI's error in mid-stream, and
    ends the stream; `end` makes one up where the events ended without `message_stop`.
    """

    def __init__(self, *, model: str, created: int, id: str, include_usage: bool = False) -> None:
        about = (
            f'"id":{json.dumps(id)},"object":"chat.completion.chunk","created":{created},"model":{json.dumps(model)}'
        )
        # Everything but the delta is the same in every chunk, so it is written once
        self._head = f'data: {{{about},"system_fingerprint":null,"choices":[{{"index":0,"delta":'
        self._finish = ',"logprobs":null,"finish_reason":'
        self._last = '}],"usage":null}\n\n' if include_usage else "}]}\n\n"
        self._tail = f"{self._finish}null{self._last}"
        self._usage_head = f'data: {{{about},"system_fingerprint":null,"choices":[],"usage":'
        self._include_usage = include_usage
        self._calls: dict[int, _OpenCall] = {}  # by the block's index, while it is open
        self._called = 0
        self._message: JsonObject = {}  # stop_reason, stop_details and usage: the last word of each counts
        self._done = False
        self._failed = False

    def feed(self, event: Json) -> bytes:
        """The chunks that this event gives, none for most that are not content.

        Raises:
            ProtocolError: it is no event.
        """
        if not isinstance(event, dict):
            raise ProtocolError("a stream event is a JSON object")
        if self._done or self._failed:
            return b""
        match event.get("type"):
            case "content_block_delta":
                return self._block_delta(event)
            case "content_block_start":
                return self._block_start(event)
            case "content_block_stop":
                return self._block_stop(event.get("index"))
            case "message_start":
                message = event.get("message")
                if isinstance(message, dict):
                    self._learn(message, message.get("usage"))
                return self._chunk('{"role":"assistant","content":"","refusal":null}')
            case "message_delta":
                delta = event.get("delta")
                self._learn(delta if isinstance(delta, dict) else {}, event.get("usage"))
                return b""
            case "message_stop":
                return b"".join(self._stop())
            case "error":
                self._failed = True
                error = event.get("error")
                kind, text = (error.get("type"), error.get("message")) if isinstance(error, dict) else (None, error)
                return _error_chunk(str(kind or "api_error"), str(text or "the stream ended with an error"))
            case _:
                return b""  # pings, and what is not known yet

    def end(self) -> bytes:
        """What comes after the last event: usage if it was asked for, and `[DONE]`; an error if it was not the last."""
        if self._failed:
            return b""
        if not self._done:
            self._failed = True
            return _error_chunk("api_error", "the stream was cut before the answer was whole")
        if not self._include_usage or "usage" not in self._message:
            return b"data: [DONE]\n\n"
        return f"{self._usage_head}{json.dumps(_usage(self._message))}}}\n\ndata: [DONE]\n\n".encode()

    def _chunk(self, delta: str) -> bytes:
        return f"{self._head}{delta}{self._tail}".encode()

    def _block_delta(self, event: JsonObject) -> bytes:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            return b""
        kind = delta.get("type")
        if kind == "text_delta":
            text = delta.get("text")
            return self._text(text) if isinstance(text, str) else b""
        if kind == "input_json_delta":
            piece, call = delta.get("partial_json"), self._call_at(event.get("index"))
            if call is not None and isinstance(piece, str) and piece:
                return self._arguments(call, piece)
        return b""

    def _text(self, text: str) -> bytes:
        return self._chunk(f'{{"content":{json.dumps(text)}}}') if text else b""

    def _arguments(self, call: _OpenCall, piece: str) -> bytes:
        call.written = call.written or not piece.isspace()
        function = f'{{"arguments":{json.dumps(piece)}}}'
        return self._chunk(f'{{"tool_calls":[{{"index":{call.number},"function":{function}}}]}}')

    def _call_at(self, index: Json) -> _OpenCall | None:
        return self._calls.get(index) if isinstance(index, int) else None

    def _block_start(self, event: JsonObject) -> bytes:
        block, index = event.get("content_block"), event.get("index")
        if not isinstance(block, dict):
            return b""
        if block.get("type") == "text":
            text = block.get("text")
            return self._text(text) if isinstance(text, str) else b""
        if block.get("type") != "tool_use" or not isinstance(index, int):
            return b""
        self._calls[index] = _OpenCall(self._called, block.get("input"))
        opened = {
            "index": self._called,
            "id": block.get("id"),
            "type": "function",
            "function": {"name": block.get("name"), "arguments": ""},
        }
        self._called += 1
        return self._chunk(json.dumps({"tool_calls": [opened]}, separators=(",", ":")))

    def _block_stop(self, index: Json) -> bytes:
        call = self._calls.pop(index, None) if isinstance(index, int) else None
        if call is None or call.written:
            return b""
        return self._arguments(call, _arguments_text(call.input))  # `{}` at least: clients parse it

    def _learn(self, said: JsonObject, usage: Json) -> None:
        for key in ("stop_reason", "stop_details"):
            if said.get(key) is not None:
                self._message[key] = said[key]
        if isinstance(usage, dict):
            held = self._message.setdefault("usage", {})
            if isinstance(held, dict):
                held.update({key: value for key, value in usage.items() if value is not None})

    def _stop(self) -> Iterator[bytes]:
        for index in list(self._calls):
            yield self._block_stop(index)
        refusal = _refusal(self._message)
        if refusal is not None:
            yield self._chunk(f'{{"refusal":{json.dumps(refusal)}}}')
        reason = _finish_reason(self._message.get("stop_reason"), called=self._called > 0)
        yield f'{self._head}{{}}{self._finish}"{reason}"{self._last}'.encode()
        self._done = True


class _OpenCall:
    """A tool call whose arguments are still coming: its number among the calls, and what its block began with."""

    __slots__ = ("input", "number", "written")

    def __init__(self, number: int, begun_with: Json) -> None:
        self.number = number
        self.input = begun_with
        self.written = False


def _error_chunk(kind: str, message: str) -> bytes:
    return f"data: {json.dumps(error_body(500, kind, message))}\n\n".encode()
