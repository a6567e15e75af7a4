"""LangChain's messages as a Messages request, and replies back: pure, without a model or a socket.

Content comes in many shapes: text, LangChain's standard blocks of both generations, OpenAI's, Anthropic's. What
Anthropic's API speaks goes through as it is (`cache_control` and signatures of thinking included); the others are
translated; what no Messages request can say (audio, video) is refused by name. Replies are in the shape of LangChain's
own integration of Anthropic, and say so (`model_provider`), so that `content_blocks` and agents read them alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.utils.function_calling import convert_to_openai_tool

from tierwise.core.json import Json, JsonObject
from tierwise.integrations.turns import add_turn, system_of
from tierwise.wire.anthropic import usage_from_message

__all__ = ["ChunkReader", "conversation", "format_of", "message_of", "tool_choice_of", "tool_of"]

_DATA_URL = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+);base64,(?P<data>.*)", re.DOTALL)
_PLACES = frozenset({"index", "partial_json"})  # where a block stood in a stream: of no use in a request
_KEPT = ("cache_control", "citations", "title", "context")
_PROVIDER = "anthropic"  # whose shape the content of our messages is in


# ------------------------------------------------------------------ what is asked


def conversation(messages: Sequence[BaseMessage]) -> tuple[Json, list[Json]]:
    """The system prompt (None where there is none) and the turns; turns of one side that follow each other are one.

    Raises:
        ValueError: a message or block that cannot be sent; says which and what to do.
    """
    system: list[Json] = []
    turns: list[Json] = []
    for message in messages:
        match message:
            case SystemMessage():
                if turns:
                    raise ValueError("system messages must stand before all others; move this one to the top")
                system.extend(_blocks(message.content))
            case HumanMessage():
                add_turn(turns, "user", _blocks(message.content))
            case AIMessage():
                add_turn(turns, "assistant", _said(message))
            case ToolMessage():
                add_turn(turns, "user", [_result(message)])
            case _:
                raise ValueError(
                    f"a message of type {message.type!r} cannot be sent; use system, human, ai and tool messages"
                )
    return system_of(system), turns


def _blocks(content: str | Sequence[str | Mapping[str, Any]]) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    found: list[Json] = []
    for block in content:
        if isinstance(block, str):
            found.extend(_blocks(block))
        elif (sent := _block(block)) is not None:
            found.append(sent)
    return found


def _block(block: Mapping[str, Any]) -> JsonObject | None:  # noqa: PLR0912  one line a kind
    """One block, as Anthropic's API takes it; None where it says nothing."""
    match dict(block):
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text, **_kept(block)} if text.strip() else None
        case {"type": "reasoning"}:
            signature = (block.get("extras") or {}).get("signature") or block.get("signature")
            if not signature:
                return None  # another model's thoughts: the API takes none without its signature
            return {"type": "thinking", "thinking": block.get("reasoning", ""), "signature": signature}
        case {"type": "image_url", "image_url": str(url) | {"url": str(url)}}:
            return {"type": "image", "source": _source(url), **_kept(block)}
        case {"type": "image" | "document", "source": dict()}:
            return _plain(block)
        case {"type": "image" | "file" as kind} if (source := _standard_source(block)) is not None:
            return {"type": "image" if kind == "image" else "document", "source": source, **_kept(block)}
        case {"type": "file", "file": {"file_data": str(url)}}:
            return {"type": "document", "source": _source(url), **_kept(block)}
        case {"type": "text-plain", "text": str(text)}:
            plain: JsonObject = {"type": "text", "media_type": "text/plain", "data": text}
            return {"type": "document", "source": plain, **_kept(block)}
        case {"type": "tool_call", "id": name_of_call, "name": name, "args": arguments}:
            return {"type": "tool_use", "id": name_of_call, "name": name, "input": arguments}
        case {"type": "non_standard", "value": dict(value)}:
            return _plain(value)
        case {"type": "audio" | "video" | "image" | "file" | "input_audio" as kind}:
            raise ValueError(f"a block of type {kind!r} in this form cannot be sent to any configured model")
        case {"type": str()}:
            return _plain(block)
        case _:
            raise ValueError(f"a block of content has no type; its keys are {', '.join(sorted(map(str, block)))}")


def _standard_source(block: Mapping[str, Any]) -> JsonObject | None:
    """Where the data of one of LangChain's standard blocks is, of either generation."""
    kind = block.get("mime_type") or ("application/pdf" if block["type"] == "file" else None)
    match dict(block):
        case {"source_type": "base64", "data": str(data)} | {"base64": str(data)}:
            return {"type": "base64", "media_type": kind, "data": data}
        case {"url": str(url)}:
            return _source(url)
        case {"file_id": str(id_)} | {"source_type": "id", "id": str(id_)}:
            return {"type": "file", "file_id": id_}
        case {"source_type": "text", "text": str(text)}:
            return {"type": "text", "media_type": "text/plain", "data": text}
        case _:
            return None


def _source(url: str) -> JsonObject:
    found = _DATA_URL.fullmatch(url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found["kind"], "data": found["data"]}


def _kept(block: Mapping[str, Any]) -> JsonObject:
    extras = block.get("extras") or {}
    found = {name: block.get(name, extras.get(name)) for name in _KEPT}
    return {name: value for name, value in found.items() if value is not None}


def _plain(block: Mapping[str, Any]) -> JsonObject:
    return {name: value for name, value in block.items() if name not in _PLACES}


def _said(message: AIMessage) -> list[Json]:
    """What a model said. The arguments of its calls are in `tool_calls`, where streams put them together."""
    calls: dict[str | None, JsonObject] = {
        call["id"]: {"type": "tool_use", "id": call["id"], "name": call["name"], "input": call["args"]}
        for call in message.tool_calls
    }
    found: list[Json] = []
    for block in _blocks(message.content):
        id_ = block.get("id") if isinstance(block, dict) and block.get("type") == "tool_use" else None
        found.append(calls.pop(id_, block) if isinstance(id_, str) else block)
    return [*found, *calls.values()]


def _result(message: ToolMessage) -> JsonObject:
    content = message.content
    result: JsonObject = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    match content:
        case [dict(whole)] if whole.get("type") == "tool_result":  # Anthropic's own block
            return _plain(whole)
        case str():
            result["content"] = content
        case _:
            result["content"] = _blocks(content)
    if message.status == "error":
        result["is_error"] = True
    return result


def tool_of(tool: Any) -> JsonObject:
    """A tool in whatever form LangChain knows; one of Anthropic's own goes as it is."""
    if isinstance(tool, Mapping) and ("input_schema" in tool or ("type" in tool and "function" not in tool)):
        return dict(tool)
    told = convert_to_openai_tool(tool)["function"]
    found: JsonObject = {"name": told["name"]}
    if told.get("description"):
        found["description"] = told["description"]
    found["input_schema"] = told.get("parameters") or {"type": "object", "properties": {}}
    if told.get("strict") is not None:
        found["strict"] = told["strict"]
    return found


def tool_choice_of(choice: Any, *, parallel: bool | None = None) -> JsonObject | None:
    """What LangChain says of which tool is to be called."""
    found: JsonObject | None
    match choice:
        case None | False:
            found = None
        case True | "any" | "required":
            found = {"type": "any"}
        case "auto" | "none":
            found = {"type": choice}
        case str():
            found = {"type": "tool", "name": choice}
        case {"type": "function", "function": {"name": name}}:
            found = {"type": "tool", "name": name}
        case dict():
            found = dict(choice)
        case _:
            raise ValueError(f"tool_choice is {choice!r}; give 'auto', 'any', 'none', or the name of a tool")
    if parallel is False:
        found = {**(found or {"type": "auto"}), "disable_parallel_tool_use": True}
    return found


def format_of(wanted: Any) -> JsonObject:
    """What an answer is to be, in OpenAI's words: LangChain's agents say it so to every model."""
    match wanted:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"type": "json_schema", "schema": schema}
        case _:
            raise ValueError("response_format is no JSON schema; use with_structured_output(schema)")


# ------------------------------------------------------------------ what is answered


def message_of(reply: JsonObject, told: JsonObject) -> AIMessage:
    """A whole reply. `told` is what the gateway said of the call."""
    blocks = [block for block in _list(reply.get("content")) if isinstance(block, dict)]
    match blocks:
        case [{"type": "text", "text": str(text), **others}] if not any(others.values()):
            content: Any = text
        case _:
            content = blocks
    calls = [
        tool_call(id=str(block["id"]), name=str(block["name"]), args=_arguments(block.get("input")))
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    return AIMessage(
        content=content or "",
        id=_text(reply.get("id")),
        tool_calls=calls,
        usage_metadata=_usage(reply),
        response_metadata={
            **_metadata(reply.get("model"), told),
            "stop_reason": reply.get("stop_reason"),
            "stop_sequence": reply.get("stop_sequence"),
        },
    )


def _metadata(model: Json, told: JsonObject) -> dict[str, Any]:
    return {"model_provider": _PROVIDER, "model_name": model, "model": model, "tierwise": told}


def _usage(reply: JsonObject) -> UsageMetadata:
    """Usage as LangChain counts it: cached tokens are a part of the input."""
    usage = usage_from_message(reply)
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    prompt = usage.input_tokens + usage.cache_read_tokens + written
    details: dict[str, int] = {
        "cache_read": usage.cache_read_tokens,
        "cache_creation": 0,  # as in LangChain's own of Anthropic: its parts are below, and who adds up counts once
        "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
        "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
    }
    found = UsageMetadata(
        input_tokens=prompt,
        output_tokens=usage.output_tokens,
        total_tokens=prompt + usage.output_tokens,
        input_token_details=cast("InputTokenDetails", details),
    )
    if usage.thinking_tokens:
        found["output_token_details"] = OutputTokenDetails(reasoning=usage.thinking_tokens)
    return found


class ChunkReader:
    """Events of a stream, one after the other, as chunks that add up to the message.

    Args:
        told: what the gateway said of the call.
        blocks: content comes as blocks from the start; else as text, until something comes that is none.
    """

    def __init__(self, told: JsonObject, *, blocks: bool) -> None:
        self._told = told
        self._as_blocks = blocks
        self._id: str | None = None
        self._usage: JsonObject = {}
        self._last: JsonObject = {}

    def read(self, event: JsonObject) -> AIMessageChunk | None:
        """The chunk that an event is; None where it says nothing to anybody."""
        match event:
            case {"type": "message_start", "message": dict(message)}:
                self._id = _text(message.get("id"))
                self._learn(message.get("usage"))
                return self._chunk("", response_metadata=_metadata(message.get("model"), self._told))
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                return self._started(index, block)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                return self._delta(index, delta)
            case {"type": "message_delta", "delta": dict(delta)}:
                self._learn(event.get("usage"))
                self._last = delta
                return None
            case _:
                return None

    def end(self, told: JsonObject) -> AIMessageChunk:
        """The last chunk, when the stream has ended, and what is told of the call only then."""
        more = {name: value for name, value in told.items() if name not in self._told}
        return self._chunk(
            "",
            usage_metadata=_usage({"usage": self._usage}),
            response_metadata={
                "stop_reason": self._last.get("stop_reason"),
                "stop_sequence": self._last.get("stop_sequence"),
                "tierwise": more,
            },
            chunk_position="last",
        )

    def _learn(self, usage: Json) -> None:
        """The counts are cumulative: the last one holds."""
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})

    def _started(self, index: int, block: JsonObject) -> AIMessageChunk | None:
        match block:
            case {"type": "text", "text": ""}:
                return None
            case {"type": "text", "text": str(text)} if not self._as_blocks:
                return self._chunk(text)
            case {"type": "tool_use"}:
                self._as_blocks = True
                call = tool_call_chunk(index=index, id=_text(block.get("id")), name=_text(block.get("name")), args="")
                return self._chunk([{**block, "index": index}], tool_call_chunks=[call])
            case _:
                self._as_blocks = True
                return self._chunk([{**block, "index": index}])

    def _delta(self, index: int, delta: JsonObject) -> AIMessageChunk | None:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                return self._chunk([{"type": "text", "text": text, "index": index}] if self._as_blocks else text)
            case {"type": "input_json_delta", "partial_json": str(part)}:
                call = tool_call_chunk(index=index, id=None, name=None, args=part)
                return self._chunk([{**delta, "index": index}], tool_call_chunks=[call])
            case {"type": "thinking_delta" | "signature_delta"}:
                said = {name: value for name, value in delta.items() if name != "type"}
                return self._chunk([{"type": "thinking", **said, "index": index}])
            case {"type": "citations_delta", "citation": dict(citation)}:
                self._as_blocks = True
                return self._chunk([{"type": "text", "text": "", "citations": [citation], "index": index}])
            case _:
                return None

    def _chunk(self, content: Any, **others: Any) -> AIMessageChunk:
        if content == "" and self._as_blocks:
            content = []
        # Whose shape it is stands in each of them: each may be translated on its own.
        metadata = {"model_provider": _PROVIDER, **others.pop("response_metadata", {})}
        return AIMessageChunk(content=content, id=self._id, response_metadata=metadata, **others)


def _arguments(value: Json) -> dict[str, Any]:
    if isinstance(value, str):  # some servers give the text of it
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    return value if isinstance(value, dict) else {}


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: Json) -> Iterable[Json]:
    return value if isinstance(value, list) else ()
