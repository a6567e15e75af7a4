"""A whole message as the events of a stream, for a client that asked for one where the model gave none."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tierwise.core.json import Json, JsonObject

__all__ = ["message_events", "sse"]


def sse(event: JsonObject) -> bytes:
    """One event of Anthropic's stream: its name is its type."""
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event['type']}\ndata: {data}\n\n".encode("utf-8", "replace")


def message_events(message: JsonObject) -> Iterator[JsonObject]:
    """The events that build `message`, one delta a block. Usage stands whole in the closing delta, as cumulative."""
    content = message.get("content")
    usage = message.get("usage")
    start: JsonObject = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    if isinstance(usage, dict):
        start["usage"] = {**usage, "output_tokens": 0}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(content if isinstance(content, list) else []):
        if not isinstance(block, dict):
            continue
        begun, deltas = _taken_apart(block)
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended: JsonObject = {
        "type": "message_delta",
        "delta": {"stop_reason": message.get("stop_reason"), "stop_sequence": message.get("stop_sequence")},
    }
    if isinstance(usage, dict):
        ended["usage"] = usage
    yield ended
    yield {"type": "message_stop"}


def _taken_apart(block: JsonObject) -> tuple[JsonObject, list[JsonObject]]:
    match block.get("type"):
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": _text(block.get("text"))}]
        case "thinking":
            return (
                {**block, "thinking": "", "signature": ""},
                [
                    {"type": "thinking_delta", "thinking": _text(block.get("thinking"))},
                    {"type": "signature_delta", "signature": _text(block.get("signature"))},
                ],
            )
        case "tool_use":
            given = json.dumps(block.get("input"), ensure_ascii=False)
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": given}]
        case _:
            return block, []


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
