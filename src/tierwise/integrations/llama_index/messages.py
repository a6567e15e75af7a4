"""LlamaIndex's messages as a Messages request, and replies back: pure, but for files that a block names by its path.

What Anthropic's API has a block for goes through: text, images, documents, signed thoughts, calls of tools and their
results, passages to cite, points to cache up to. What no Messages request can say (audio, video) is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.tools import BaseTool

from tierwise.core.json import Json, JsonObject
from tierwise.integrations.turns import add_turn, system_of
from tierwise.wire.anthropic import usage_from_message

__all__ = ["ResponseReader", "conversation", "response_of", "tool_choice_of", "tool_of"]

_CHOICES = {"auto": "auto", "none": "none", "any": "any", "required": "any"}


# ------------------------------------------------------------------ what is asked


def conversation(messages: Sequence[ChatMessage]) -> tuple[Json, list[Json]]:
    """The system prompt (None where there is none) and the turns; turns of one side that follow each other are one.

    System messages go to the top wherever they stand, as in LlamaIndex's own integration of Anthropic.

    Raises:
        ValueError: a block that cannot be sent; says which and what to do.
    """
    system: list[Json] = []
    turns: list[Json] = []
    for message in messages:
        match message.role:
            case MessageRole.SYSTEM | MessageRole.DEVELOPER:
                system.extend(_blocks(message.blocks))
            case MessageRole.USER:
                add_turn(turns, "user", _blocks(message.blocks))
            case MessageRole.ASSISTANT | MessageRole.CHATBOT | MessageRole.MODEL:
                add_turn(turns, "assistant", [*_blocks(message.blocks), *_calls_beside(message)])
            case MessageRole.TOOL | MessageRole.FUNCTION:
                add_turn(turns, "user", [_result(message)])
    return system_of(system), turns


def _blocks(blocks: Sequence[ContentBlock]) -> list[Json]:
    found: list[Json] = []
    for block in blocks:
        if isinstance(block, CachePoint):
            last = found[-1] if found else None
            if not isinstance(last, dict):
                raise ValueError("a CachePoint stands before anything that could be cached; put it after a block")
            last["cache_control"] = {"type": block.cache_control.type, "ttl": block.cache_control.ttl}
        elif (sent := _block(block)) is not None:
            found.append(sent)
    return found


def _block(block: ContentBlock) -> JsonObject | None:
    """One block, as Anthropic's API takes it; None where it says nothing."""
    match block:
        case TextBlock():
            return {"type": "text", "text": block.text} if block.text.strip() else None
        case ImageBlock():
            return _image(block)
        case DocumentBlock():
            return _document(block)
        case ThinkingBlock():
            return _thought(block)
        case ToolCallBlock():
            return {
                "type": "tool_use",
                "id": block.tool_call_id or "",
                "name": block.tool_name,
                "input": _arguments(block.tool_kwargs),
            }
        case CitableBlock():
            content: list[Json] = []
            for part in block.content:
                if not isinstance(part, TextBlock):
                    raise ValueError(f"a CitableBlock holds a {type(part).__name__}; only text can be cited")
                content.append({"type": "text", "text": part.text})
            return {
                "type": "search_result",
                "source": block.source,
                "title": block.title,
                "content": content,
                "citations": {"enabled": True},
            }
        case CitationBlock():
            return None  # what a reply cited; the API has it from its own block
        case _:
            raise ValueError(
                f"a {type(block).__name__} cannot be sent; use text, images, PDF and text documents, or put it in words"
            )


def _image(block: ImageBlock) -> JsonObject:
    if block.url is not None and not block.image and not block.path and not str(block.url).startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": str(block.url)}}
    kind = "document" if block.image_mimetype == "application/pdf" else "image"
    data = block.resolve_image(as_base64=True).read().decode("ascii")
    media_type = block.image_mimetype or "image/png"
    return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


def _document(block: DocumentBlock) -> JsonObject:
    title: JsonObject = {"title": block.title} if block.title and block.title != "input_document" else {}
    if block.url and not block.data and not block.path:
        return {"type": "document", "source": {"type": "url", "url": block.url}, **title}
    # `data` is kept in base64, whatever it was given in, and decoded again by `resolve_document`.
    content = block.resolve_document().read()
    kind = block.document_mimetype or "application/pdf"
    source: JsonObject
    if kind.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": content.decode("utf-8", "replace")}
    else:
        source = {"type": "base64", "media_type": kind, "data": _base64(content)}
    return {"type": "document", "source": source, **title}


def _base64(content: bytes) -> str:
    import base64  # noqa: PLC0415

    return base64.b64encode(content).decode("ascii")


def _thought(block: ThinkingBlock) -> JsonObject | None:
    """A thought goes back where its signature says that it is one of the API's."""
    match block.additional_information:
        case {"type": "redacted_thinking", "data": str(data)}:
            return {"type": "redacted_thinking", "data": data}
        case {"signature": str(signature)} if signature:
            return {"type": "thinking", "thinking": block.content or "", "signature": signature}
        case _:
            return None


def _calls_beside(message: ChatMessage) -> list[Json]:
    """Calls of tools that older histories keep beside the blocks, and nowhere else."""
    known = {block.tool_call_id for block in message.blocks if isinstance(block, ToolCallBlock)}
    found: list[Json] = []
    for call in message.additional_kwargs.get("tool_calls") or ():
        match call:
            case {"id": str(id_), "name": str(name), "input": arguments} if id_ not in known:
                found.append({"type": "tool_use", "id": id_, "name": name, "input": _arguments(arguments)})
            case _:
                pass
    return found


def _result(message: ChatMessage) -> JsonObject:
    call = message.additional_kwargs.get("tool_call_id")
    if not isinstance(call, str):
        raise ValueError("a tool's message has no additional_kwargs['tool_call_id']; say which call it answers")
    return {"type": "tool_result", "tool_use_id": call, "content": _blocks(message.blocks)}


def _arguments(value: Any) -> JsonObject:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    return value if isinstance(value, dict) else {}


def tool_of(tool: BaseTool) -> JsonObject:
    """A tool of LlamaIndex, as one of Messages."""
    metadata = tool.metadata
    return {
        "name": metadata.get_name(),
        "description": metadata.description,
        "input_schema": metadata.get_parameters_dict(),
    }


def tool_choice_of(choice: object, *, required: bool, parallel: bool) -> JsonObject:
    """Which tools are to be called: LlamaIndex's words for it, OpenAI's, a tool's name, or Messages'."""
    chosen: JsonObject
    match choice:
        case {"type": "function", "function": {"name": str(name)}}:
            chosen = {"type": "tool", "name": name}
        case dict():
            return choice
        case str() if choice in _CHOICES:
            chosen = {"type": _CHOICES[choice]}
        case str():
            chosen = {"type": "tool", "name": choice}
        case _:
            chosen = {"type": "any" if required else "auto"}
    return chosen if parallel or chosen["type"] == "none" else {**chosen, "disable_parallel_tool_use": True}


# ------------------------------------------------------------------ what is answered


def response_of(reply: JsonObject, told: JsonObject) -> ChatResponse:
    """A whole reply. `raw` is what the API said, with what tierwise says of the call."""
    blocks: list[ContentBlock] = []
    for block in _list(reply.get("content")):
        if isinstance(block, dict) and (read := _read(block)) is not None:
            blocks += [read, *_citations(block)]
    # LlamaIndex's programs look there whether an answer in a stream calls a tool.
    calls = [
        {"id": block.tool_call_id, "name": block.tool_name, "input": block.tool_kwargs}
        for block in blocks
        if isinstance(block, ToolCallBlock)
    ]
    beside = {"tool_calls": calls} if calls else {}
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=beside)
    return ChatResponse(message=message, raw=_raw(reply, told))


def _read(block: Mapping[str, Json]) -> ContentBlock | None:
    match block:
        case {"type": "text", "text": str(text)}:
            return TextBlock(text=text)
        case {"type": "thinking", "thinking": str(thought)}:
            return ThinkingBlock(
                content=thought,
                additional_information={"type": "thinking", "signature": block.get("signature") or ""},
            )
        case {"type": "redacted_thinking"}:
            return ThinkingBlock(additional_information=dict(block))
        case {"type": "tool_use", "id": str(id_), "name": str(name)}:
            return ToolCallBlock(tool_call_id=id_, tool_name=name, tool_kwargs=_arguments(block.get("input")))
        case _:
            return None  # what the API's own tools did: LlamaIndex has no block for it, and `raw` has it


def _citations(block: Mapping[str, Json]) -> list[ContentBlock]:
    """What a text cites of the passages that were given to cite."""
    found: list[ContentBlock] = []
    for citation in _list(block.get("citations")):
        match citation:
            case {"type": "search_result_location", "cited_text": str(text), "source": str(source), **others}:
                places = ("start_block_index", "end_block_index", "search_result_index")
                where = {name: number for name in places if isinstance(number := others.get(name), int)}
                title = others.get("title")
                found.append(
                    CitationBlock(
                        cited_content=TextBlock(text=text),
                        source=source,
                        title=title if isinstance(title, str) else "",
                        additional_location_info=where,
                    )
                )
            case _:
                pass
    return found


def _raw(reply: JsonObject, told: JsonObject) -> dict[str, Any]:
    """Counts of tokens under the names by which LlamaIndex adds them up, of which cached ones are a part, too."""
    usage, said = usage_from_message(reply), reply.get("usage")
    counts: JsonObject = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.output_tokens}
    return {**reply, "usage": {**(said if isinstance(said, dict) else {}), **counts}, "tierwise": told}


class ResponseReader:
    """Events of a stream, one after the other, as responses of which each has all that came so far."""

    def __init__(self) -> None:
        self._reply: JsonObject = {}
        self._usage: JsonObject = {}
        self._blocks: dict[int, JsonObject] = {}
        self._arguments: dict[int, str] = {}

    def read(self, event: JsonObject, told: JsonObject) -> ChatResponse | None:
        """The response that an event is; None where it says nothing to anybody yet."""
        match event:
            case {"type": "message_start", "message": dict(message)}:
                self._reply = {name: value for name, value in message.items() if name != "content"}
                self._learn(message.get("usage"))
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                self._blocks[index] = dict(block)
                match block:
                    case {"type": "text", "text": str(text)} if text:
                        return self._response(told, text)
                    case {"type": "tool_use"}:
                        return self._response(told)
                    case _:
                        pass
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                return self._delta(index, delta, told)
            case {"type": "message_delta", "delta": dict(delta)}:
                self._reply.update({name: value for name, value in delta.items() if value is not None})
                self._learn(event.get("usage"))
            case _:
                pass
        return None

    def end(self, told: JsonObject) -> ChatResponse:
        """The whole of it, when the stream has ended."""
        return self._response(told)

    def _learn(self, usage: Json) -> None:
        """The counts are cumulative: the last one holds."""
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})

    def _delta(self, index: int, delta: JsonObject, told: JsonObject) -> ChatResponse | None:
        block = self._blocks.get(index, {})
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                _append(block, "text", text)
                return self._response(told, text)
            case {"type": "thinking_delta", "thinking": str(thought)}:
                _append(block, "thinking", thought)
                return self._response(told, thought=thought)
            case {"type": "signature_delta", "signature": str(signature)}:
                _append(block, "signature", signature)
            case {"type": "citations_delta", "citation": dict(citation)}:
                block["citations"] = [*_list(block.get("citations")), citation]
            case {"type": "input_json_delta", "partial_json": str(part)}:
                self._arguments[index] = self._arguments.get(index, "") + part
                block["input"] = _partial(self._arguments[index])
                return self._response(told)
            case _:
                pass
        return None

    def _response(self, told: JsonObject, delta: str = "", *, thought: str | None = None) -> ChatResponse:
        content: list[Json] = [dict(self._blocks[index]) for index in sorted(self._blocks)]
        response = response_of({**self._reply, "content": content, "usage": self._usage}, told)
        response.delta = delta
        if thought:
            response.additional_kwargs["thinking_delta"] = thought
        return response


def _append(block: JsonObject, name: str, text: str) -> None:
    so_far = block.get(name)
    block[name] = f"{so_far}{text}" if isinstance(so_far, str) else text


def _partial(text: str) -> JsonObject:
    try:
        found = parse_partial_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
