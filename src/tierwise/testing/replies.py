"""What a stand-in answers: content and counts, rendered as either dialect's JSON or events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from tierwise.core.json import Json, JsonObject

__all__ = [
    "StandInReply",
    "anthropic_events",
    "anthropic_message",
    "count_tokens",
    "default_reply",
    "openai_chunks",
    "openai_completion",
    "request_tokens",
]

_PIECE_CHARS = 12
_NOT_TEXT = frozenset({"role", "type", "id", "tool_use_id", "cache_control", "source", "image_url", "signature"})


def count_tokens(text: str) -> int:
    """The stand-in's count: one token per four bytes of UTF-8, rounded up. Made up, but always the same."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandInReply:
    """One reply. `usage` overrides the counted usage key by key; `start_usage` what `message_start` shows.

    `ending` are further fields that come with the stop reason (`safeguard_results`, say); Anthropic's dialect only.

    Use `of_text`, `of_json`, `of_tool` for the common ones, or give Anthropic content blocks.
    """

    content: tuple[JsonObject, ...]
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    usage: Mapping[str, Json] = field(default_factory=dict)
    start_usage: Mapping[str, Json] | None = None
    ending: Mapping[str, Json] = field(default_factory=dict)
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_text(
        cls, text: str, *, thinking: str | None = None, usage: Mapping[str, Json] | None = None
    ) -> StandInReply:
        """A text, after a signed thinking block if `thinking` is given."""
        blocks: list[JsonObject] = []
        if thinking is not None:
            blocks.append({"type": "thinking", "thinking": thinking, "signature": "stand-in-signature"})
        blocks.append({"type": "text", "text": text})
        return cls(content=tuple(blocks), usage=usage or {})

    @classmethod
    def of_json(cls, value: Json, *, usage: Mapping[str, Json] | None = None) -> StandInReply:
        """A text that is this value as JSON."""
        return cls.of_text(json.dumps(value, ensure_ascii=False), usage=usage)

    @classmethod
    def of_tool(cls, name: str, arguments: JsonObject, *, usage: Mapping[str, Json] | None = None) -> StandInReply:
        """One tool call."""
        block: JsonObject = {"type": "tool_use", "id": f"toolu_standin_{name}", "name": name, "input": arguments}
        return cls(content=(block,), stop_reason="tool_use", usage=usage or {})

    @property
    def text(self) -> str:
        """All text blocks, joined."""
        return "".join(str(b.get("text", "")) for b in self.content if b.get("type") == "text")

    def halved(self) -> StandInReply:
        """The same, cut off in the middle of its text by max_tokens."""
        half = self.text[: len(self.text) // 2]
        return replace(self, content=({"type": "text", "text": half},), stop_reason="max_tokens")


def request_tokens(body: Json) -> int:
    """The stand-in's count of a request's prompt, of either dialect."""
    if not isinstance(body, dict):
        return 0
    return sum(_tokens_in(body.get(key)) for key in ("system", "messages", "tools"))


def _tokens_in(value: Json) -> int:
    match value:
        case str():
            return count_tokens(value)
        case list():
            return sum(_tokens_in(item) for item in value)
        case dict():
            return sum(_tokens_in(item) for key, item in value.items() if key not in _NOT_TEXT)
        case _:
            return 0


def default_reply(body: JsonObject) -> StandInReply:
    """What is answered where nothing was scripted: the least that the request's schema or forced tool allows."""
    choice = body.get("tool_choice")
    tools = body.get("tools")
    if isinstance(choice, dict) and choice.get("type") in ("any", "tool") and isinstance(tools, list):
        for tool in tools:
            if isinstance(tool, dict) and choice.get("name") in (None, tool.get("name")):
                least = _least(tool.get("input_schema"))
                return StandInReply.of_tool(str(tool.get("name")), least if isinstance(least, dict) else {})
    schema = _schema(body)
    if schema is not None:
        return StandInReply.of_json(_least(schema))
    return StandInReply.of_text(f"This is the stand-in for {body.get('model')}: no model was run.")


def _schema(body: JsonObject) -> Json:
    match body:
        case {"output_config": {"format": {"schema": schema}}}:
            return schema
        case {"response_format": {"json_schema": {"schema": schema}}}:
            return schema
        case _:
            return None


def _least(schema: Json) -> Json:
    if not isinstance(schema, dict):
        return {}
    if "const" in schema:
        return schema["const"]
    allowed = schema.get("enum")
    if isinstance(allowed, list) and allowed:
        return allowed[0]
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "string":
            return "stand-in"
        case "integer" | "number":
            least = schema.get("minimum")
            return least if isinstance(least, int | float) else 0
        case "boolean":
            return False
        case "null":
            return None
        case "array":
            count = schema.get("minItems")
            return [_least(schema.get("items")) for _ in range(count if isinstance(count, int) else 0)]
        case _:
            properties = schema.get("properties")
            required = schema.get("required")
            if not isinstance(properties, dict) or not isinstance(required, list):
                return {}
            return {str(name): _least(properties.get(str(name))) for name in required}


def _output_tokens(reply: StandInReply) -> int:
    total = 0
    for block in reply.content:
        total += sum(
            count_tokens(value if isinstance(value, str) else json.dumps(value))
            for key, value in block.items()
            if key in ("text", "thinking", "input")
        )
    return total


def _usage(reply: StandInReply, body: JsonObject) -> JsonObject:
    usage: JsonObject = {
        "input_tokens": request_tokens(body),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": _output_tokens(reply),
        "service_tier": "standard",
    }
    thinking = sum(count_tokens(str(b.get("thinking", ""))) for b in reply.content if b.get("type") == "thinking")
    if thinking:
        usage["output_tokens_details"] = {"thinking_tokens": thinking}
    usage.update(reply.usage)
    return usage


def anthropic_message(reply: StandInReply, body: JsonObject, number: int) -> JsonObject:
    """The Messages reply."""
    return {
        "id": f"msg_standin_{number:06d}",
        "type": "message",
        "role": "assistant",
        "model": reply.model or body.get("model"),
        "content": list(reply.content),
        "stop_reason": reply.stop_reason,
        "stop_sequence": reply.stop_sequence,
        **reply.ending,
        "usage": _usage(reply, body),
    }


def anthropic_events(reply: StandInReply, body: JsonObject, number: int) -> Iterator[JsonObject]:
    """The same as a stream: message_start, then ping, blocks, message_delta with cumulative usage, message_stop."""
    message = anthropic_message(reply, body, number)
    final = _usage(reply, body)
    start_usage = dict(reply.start_usage) if reply.start_usage is not None else {**final, "output_tokens": 1}
    start_usage.pop("output_tokens_details", None)
    opened = {key: value for key, value in message.items() if key not in reply.ending}
    yield {
        "type": "message_start",
        "message": {**opened, "content": [], "stop_reason": None, "stop_sequence": None, "usage": start_usage},
    }
    for index, block in enumerate(reply.content):
        yield {"type": "content_block_start", "index": index, "content_block": _opened(block)}
        if index == 0:
            yield {"type": "ping"}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reply.stop_reason, "stop_sequence": reply.stop_sequence, **reply.ending},
        "usage": final,
    }
    yield {"type": "message_stop"}


def _opened(block: JsonObject) -> JsonObject:
    match block.get("type"):
        case "text":
            return {**block, "text": ""}
        case "thinking":
            return {**block, "thinking": "", "signature": ""}
        case "tool_use":
            return {**block, "input": {}}
        case _:
            return dict(block)


def _deltas(block: JsonObject) -> Iterator[JsonObject]:
    match block.get("type"):
        case "text":
            for piece in _pieces(str(block.get("text", ""))):
                yield {"type": "text_delta", "text": piece}
        case "thinking":
            for piece in _pieces(str(block.get("thinking", ""))):
                yield {"type": "thinking_delta", "thinking": piece}
            yield {"type": "signature_delta", "signature": str(block.get("signature", ""))}
        case "tool_use":
            yield {"type": "input_json_delta", "partial_json": ""}
            for piece in _pieces(json.dumps(block.get("input"), ensure_ascii=False)):
                yield {"type": "input_json_delta", "partial_json": piece}
        case _:
            return


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE_CHARS):
        yield text[start : start + _PIECE_CHARS]


_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


def _openai_usage(reply: StandInReply, body: JsonObject) -> JsonObject:
    usage = _usage(reply, body)

    def number(key: str) -> int:
        value = usage.get(key)
        return value if isinstance(value, int) else 0

    cached = number("cache_read_input_tokens")
    prompt = number("input_tokens") + cached  # this dialect counts cached tokens inside the prompt
    details = usage.get("output_tokens_details")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": number("output_tokens"),
        "total_tokens": prompt + number("output_tokens"),
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {
            "reasoning_tokens": details.get("thinking_tokens", 0) if isinstance(details, dict) else 0
        },
    }


def _tool_calls(reply: StandInReply) -> list[Json]:
    return [
        {
            "id": f"call_standin_{index}",
            "type": "function",
            "function": {"name": block.get("name"), "arguments": json.dumps(block.get("input"), ensure_ascii=False)},
        }
        for index, block in enumerate(b for b in reply.content if b.get("type") == "tool_use")
    ]


def openai_completion(reply: StandInReply, body: JsonObject, number: int) -> JsonObject:
    """The same reply in the chat/completions dialect."""
    calls = _tool_calls(reply)
    message: JsonObject = {"role": "assistant", "content": reply.text or None}
    if calls:
        message["tool_calls"] = calls
    if reply.stop_reason == "refusal":
        message = {"role": "assistant", "content": None, "refusal": reply.text or "I can't help with that."}
    return {
        "id": f"chatcmpl-standin-{number:06d}",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": reply.model or body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": _FINISH.get(reply.stop_reason, "stop")}],
        "usage": _openai_usage(reply, body),
    }


def openai_chunks(reply: StandInReply, body: JsonObject, number: int) -> Iterator[JsonObject]:
    """The same as a stream of chunks; the usage chunk only where `stream_options.include_usage` asks for it."""
    whole = openai_completion(reply, body, number)

    def chunk(delta: JsonObject, finish: str | None = None) -> JsonObject:
        return {
            **{key: whole[key] for key in ("id", "created", "model")},
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }

    yield chunk({"role": "assistant", "content": ""})
    if reply.stop_reason == "refusal":
        yield chunk({"refusal": reply.text or "I can't help with that."})
    else:
        for piece in _pieces(reply.text):
            yield chunk({"content": piece})
    for index, call in enumerate(_tool_calls(reply)):
        if not isinstance(call, dict) or not isinstance(call["function"], dict):
            continue
        function = call["function"]
        opened: Json = {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
        yield chunk({"tool_calls": [opened]})
        for piece in _pieces(str(function["arguments"])):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, _FINISH.get(reply.stop_reason, "stop"))
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        yield {**chunk({}), "choices": [], "usage": whole["usage"]}
