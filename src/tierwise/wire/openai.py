"""Between the two dialects, sans-io: a Messages request as chat/completions, and its replies as messages.

Out: text, system, images, tools and their choice, tool calls and results with their ids, stop sequences, sampling,
effort and `output_config.format` (as `response_format`). In: JSON or stream chunks, finish reasons, and usage,
whose `prompt_tokens` **include** cached tokens here and must not in Anthropic's meaning.

What has no counterpart (thinking blocks, cache control, context management) is left out; what would change the
meaning of the conversation if it were (documents, server tools' results) is an `Untranslatable` error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage
from tierwise.core.tokens import estimate_tokens
from tierwise.wire.anthropic import ProtocolError, StreamError, estimate_prompt_tokens, usage_from_message

__all__ = ["ChatAccumulator", "Untranslatable", "chat_request", "error_of", "message_from_completion"]

_SAME = ("temperature", "top_p")
_FINISH: dict[str, str] = {
    "stop": "end_turn",
    "eos": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class Untranslatable(ValueError):
    """The request holds something that chat/completions cannot say."""


# -- out ------------------------------------------------------------------------------------------------------


def chat_request(body: JsonObject, *, max_tokens_key: str = "max_tokens") -> JsonObject:
    """A Messages request as a chat/completions one. `max_tokens_key`: OpenAI's own is `max_completion_tokens`.

    Raises:
        Untranslatable: it holds what the other dialect cannot say.
    """
    chat: JsonObject = {"model": body.get("model"), "messages": list(_messages(body))}
    if "max_tokens" in body:
        chat[max_tokens_key] = body["max_tokens"]
    chat.update({key: body[key] for key in _SAME if key in body})
    if body.get("stop_sequences"):
        chat["stop"] = body["stop_sequences"]
    tools = body.get("tools")
    if isinstance(tools, list) and tools:
        chat["tools"] = [_tool(tool) for tool in tools]
    _choose(chat, body.get("tool_choice"))
    config = body.get("output_config")
    if isinstance(config, dict):
        _configure(chat, config)
    if body.get("stream") is True:
        chat["stream"] = True
        chat["stream_options"] = {"include_usage": True}
    return chat


def _configure(chat: JsonObject, config: JsonObject) -> None:
    effort = config.get("effort")
    if isinstance(effort, str):
        # OpenAI's API knows all of Anthropic's words, `max` too (its `ReasoningEffort`, openai 3.57.0); what a model
        # takes is for `adapt` and the configuration.
        chat["reasoning_effort"] = effort
    asked = config.get("format")
    if isinstance(asked, dict) and asked.get("type") == "json_schema":
        schema = asked.get("schema")
        wanted: JsonObject = {"name": "answer", "schema": schema}
        if _is_strict(schema):  # OpenAI refuses `strict` with a schema that leaves anything open
            wanted["strict"] = True
        chat["response_format"] = {"type": "json_schema", "json_schema": wanted}


def _is_strict(schema: Json) -> bool:
    if isinstance(schema, list):
        return all(_is_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties, required = schema.get("properties"), schema.get("required")
        if not isinstance(properties, dict) or not isinstance(required, list):
            return False
        if schema.get("additionalProperties") is not False or {str(name) for name in required} != set(properties):
            return False
        return all(_is_strict(value) for value in properties.values())
    return all(_is_strict(value) for value in schema.values())


def _choose(chat: JsonObject, choice: Json) -> None:
    if not isinstance(choice, dict):
        return
    match choice.get("type"):
        case "auto" | "none" as same:
            chat["tool_choice"] = same
        case "any":
            chat["tool_choice"] = "required"
        case "tool":
            chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("disable_parallel_tool_use") is True:
        chat["parallel_tool_calls"] = False


def _tool(tool: Json) -> Json:
    if not isinstance(tool, dict) or "input_schema" not in tool:
        kind = tool.get("type") if isinstance(tool, dict) else tool
        raise Untranslatable(f"the server tool {kind!r} runs at Anthropic only; the OpenAI dialect has no such tool")
    function: JsonObject = {"name": tool.get("name"), "parameters": tool["input_schema"]}
    if "description" in tool:
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _messages(body: JsonObject) -> Iterator[Json]:
    system = _joined(body.get("system"))
    if system:
        yield {"role": "system", "content": system}
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict):
            raise Untranslatable("a message is an object with a role and content")
        content = message.get("content")
        blocks: list[Json] = content if isinstance(content, list) else [{"type": "text", "text": content}]
        match message.get("role"):
            case "assistant":
                yield from _assistant(blocks)
            case "system":
                yield {"role": "system", "content": _joined(content)}
            case _:
                yield from _user(blocks)


def _joined(content: Json) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n\n".join(
        text
        for block in content
        if isinstance(block, dict) and block.get("type") == "text" and isinstance(text := block.get("text"), str)
    )


def _assistant(blocks: list[Json]) -> Iterator[Json]:
    texts: list[str] = []
    calls: list[Json] = []
    for block in blocks:
        held = _object(block)
        match held.get("type"):
            case "text":
                texts.append(_text(held))
            case "tool_use":
                arguments = json.dumps(held.get("input", {}), ensure_ascii=False)
                function: Json = {"name": held.get("name"), "arguments": arguments}
                calls.append({"id": held.get("id"), "type": "function", "function": function})
            case "thinking" | "redacted_thinking":
                pass  # signed for the model that wrote it
            case kind:
                raise Untranslatable(f"the OpenAI dialect has no assistant block {kind!r}")
    if texts or calls:
        message: JsonObject = {"role": "assistant", "content": "".join(texts) or None}
        if calls:
            message["tool_calls"] = calls
        yield message


def _user(blocks: list[Json]) -> Iterator[Json]:
    parts: list[JsonObject] = []
    for block in blocks:
        held = _object(block)
        if held.get("type") != "tool_result":
            parts.append(_part(held))
            continue
        text, images = _result(held.get("content"))
        if held.get("is_error") is True:
            text = f"Error: {text}"
        yield {"role": "tool", "tool_call_id": held.get("tool_use_id"), "content": text}
        parts.extend(images)  # a tool message holds text only: its images follow as the user's
    if len(parts) == 1 and parts[0]["type"] == "text":
        yield {"role": "user", "content": parts[0]["text"]}  # what every server understands
    elif parts:
        yield {"role": "user", "content": list(parts)}


def _result(content: Json) -> tuple[str, list[JsonObject]]:
    if not isinstance(content, list):
        return content if isinstance(content, str) else "", []
    parts = [_part(_object(block)) for block in content]
    texts = [str(part["text"]) for part in parts if part["type"] == "text"]
    return "\n".join(texts), [part for part in parts if part["type"] != "text"]


def _part(block: JsonObject) -> JsonObject:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    match block.get("type"), kind, source:
        case "text", _, _:
            return {"type": "text", "text": _text(block)}
        case "image", "base64", dict():
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
            return {"type": "image_url", "image_url": {"url": url}}
        case "image", "url", dict():
            return {"type": "image_url", "image_url": {"url": source.get("url")}}
        case "document", "text", dict():
            return {"type": "text", "text": str(source.get("data"))}
        case name, _, _:
            raise Untranslatable(f"the OpenAI dialect has no content block {name!r}{f' of {kind}' if kind else ''}")


def _object(block: Json) -> JsonObject:
    if not isinstance(block, dict):
        raise Untranslatable("a content block is an object with a type")
    return block


def _text(block: JsonObject) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise Untranslatable("a text block holds a string")
    return text


# -- in -------------------------------------------------------------------------------------------------------


def error_of(reply: Json) -> StreamError | None:
    """The error that some servers send with status 200 (OpenRouter: whole, in a choice, or in mid-stream)."""
    if not isinstance(reply, dict):
        return None
    error = reply.get("error")
    if error is None:
        choice = _first_choice(reply)
        error = choice.get("error") if choice is not None else None
    match error:
        case None | False:
            return None
        case dict():
            code, kind, message = error.get("code"), error.get("type"), error.get("message")
            named = kind if isinstance(kind, str) else _ERROR_BY_CODE.get(str(code), "api_error")
            return StreamError(named, message if isinstance(message, str) else "")
        case _:
            return StreamError("api_error", str(error))


_ERROR_BY_CODE = {
    "400": "invalid_request_error",
    "401": "authentication_error",
    "402": "billing_error",
    "403": "permission_error",
    "404": "not_found_error",
    "408": "timeout_error",
    "413": "request_too_large",
    "429": "rate_limit_error",
    "503": "overloaded_error",
    "529": "overloaded_error",
    "context_length_exceeded": "context_length_exceeded",
}


def message_from_completion(completion: Json) -> JsonObject:
    """A whole chat/completions reply as a message.

    Raises:
        ProtocolError: it is none.
    """
    if not isinstance(completion, dict):
        raise ProtocolError("a completion is a JSON object")
    choice = _first_choice(completion)
    said = choice.get("message") if choice is not None else None
    if choice is None or not isinstance(said, dict):
        raise ProtocolError("a completion without choices[0].message")
    accumulator = ChatAccumulator()
    accumulator.feed({**completion, "choices": [{**choice, "delta": _as_delta(said)}]})
    return accumulator.message()


def _as_delta(said: JsonObject) -> JsonObject:
    calls = said.get("tool_calls")
    if not isinstance(calls, list):
        return said
    return {**said, "tool_calls": [{**call, "index": i} for i, call in enumerate(calls) if isinstance(call, dict)]}


def _first_choice(reply: JsonObject) -> JsonObject | None:
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


class ChatAccumulator:
    """Folds the chunks of one chat/completions stream into an Anthropic message.

    `complete` says that a finish reason came; the reader sets `stopped` at `[DONE]`. The usage chunk comes after
    the finish reason, so reading goes on until `stopped` or the end.
    """

    def __init__(self) -> None:
        self._id: str | None = None
        self._model: str | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._finish: str | None = None
        self._usage: JsonObject | None = None
        self.started = False
        self.stopped = False
        self.error: StreamError | None = None

    @property
    def complete(self) -> bool:
        """Whether the model came to an end."""
        return self._finish is not None

    @property
    def has_content(self) -> bool:
        """Whether the model has said anything yet."""
        return bool(self._text or self._reasoning or self._refusal or self._calls)

    def feed(self, chunk: Json) -> None:
        """Fold one chunk in.

        Raises:
            ProtocolError: it is not a chunk of this protocol.
        """
        if not isinstance(chunk, dict):
            raise ProtocolError("a stream chunk is a JSON object")
        self.error = error_of(chunk)
        if self.error is not None:
            return
        self.started = True
        for key, name in (("_id", "id"), ("_model", "model")):
            value = chunk.get(name)
            if isinstance(value, str) and value:
                setattr(self, key, value)
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        choice = _first_choice(chunk)
        if choice is None:
            return
        finish = choice.get("finish_reason")
        if isinstance(finish, str):
            self._finish = finish
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._delta(delta)

    def _delta(self, delta: JsonObject) -> None:
        for key, pieces in (
            ("content", self._text),
            ("reasoning_content", self._reasoning),
            ("reasoning", self._reasoning),
            ("refusal", self._refusal),
        ):
            value = delta.get(key)
            if isinstance(value, str) and value and not (key == "reasoning" and delta.get("reasoning_content")):
                pieces.append(value)
        calls = delta.get("tool_calls")
        for position, part in enumerate(calls if isinstance(calls, list) else []):
            if not isinstance(part, dict):
                raise ProtocolError("a tool call is a JSON object")
            index = part.get("index")
            place = index if isinstance(index, int) else position
            self._calls.setdefault(place, _Call()).feed(part)

    def message(self) -> JsonObject:
        """The message so far; the whole one once `complete`.

        Raises:
            ProtocolError: nothing came.
        """
        if not self.started:
            raise ProtocolError("the stream ended before its first chunk")
        content: list[Json] = []
        if self._reasoning:  # unsigned: `adapt` strips it should the conversation move to another model
            content.append({"type": "thinking", "thinking": "".join(self._reasoning), "signature": ""})
        text = "".join(self._text) or "".join(self._refusal)
        if text:
            content.append({"type": "text", "text": text})
        content.extend(self._calls[place].block(place) for place in sorted(self._calls))
        message: JsonObject = {
            "id": self._id or "",
            "type": "message",
            "role": "assistant",
            "model": self._model or "",
            "content": content,
            "stop_reason": self._stop_reason(),
            "stop_sequence": None,
        }
        if self._usage is not None:
            message["usage"] = anthropic_usage(self._usage)
        return message

    def _stop_reason(self) -> str | None:
        if self._refusal and not self._calls:
            return "refusal"
        if self._finish in ("stop", None) and self._calls:
            return "tool_use"  # several servers say `stop` after a tool call
        return None if self._finish is None else _FINISH.get(self._finish, self._finish)

    def usage_so_far(self, body: JsonObject) -> Usage | None:
        """What a stream that died has used: usage comes last in this dialect, so it is counted from the texts."""
        if not self.started:
            return None
        received = [*self._text, *self._reasoning, *self._refusal]
        received += [piece for call in self._calls.values() for piece in call.arguments]
        counted = estimate_tokens("".join(received))
        if self._usage is None:
            return Usage(input_tokens=estimate_prompt_tokens(body), output_tokens=counted, estimated=True)
        usage = usage_from_message({"usage": anthropic_usage(self._usage)})
        return replace(usage, output_tokens=max(usage.output_tokens, counted), estimated=not self.complete)


class _Call:
    def __init__(self) -> None:
        self.id: Json = None
        self.name = ""
        self.arguments: list[str] = []

    def feed(self, part: JsonObject) -> None:
        self.id = part.get("id") or self.id
        function = part.get("function")
        if not isinstance(function, dict):
            return
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(name, str) and name:
            self.name = name
        if isinstance(arguments, str):
            self.arguments.append(arguments)
        elif isinstance(arguments, dict):  # some servers send the object itself
            self.arguments.append(json.dumps(arguments, ensure_ascii=False))

    def block(self, place: int) -> JsonObject:
        text = "".join(self.arguments)
        arguments: Json
        try:
            arguments = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError):
            arguments = text  # a check sees that it is no object
        return {"type": "tool_use", "id": self.id or f"call_{place}", "name": self.name, "input": arguments}


def anthropic_usage(usage: JsonObject) -> JsonObject:
    """Usage of this dialect in Anthropic's words: cached tokens come out of the prompt, reasoning out of details.

    What cannot be (more cached than prompt, no numbers) is passed on as it is for `usage_from_message` to judge.
    """
    prompt = usage.get("prompt_tokens")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    fresh = prompt - cached if isinstance(prompt, int) and isinstance(cached, int) else prompt
    written = details.get("cache_write_tokens") if isinstance(details, dict) else None
    if isinstance(fresh, int) and isinstance(written, int):  # OpenRouter, for Claude behind it
        fresh -= written
    counted: JsonObject = {
        "input_tokens": fresh,
        "output_tokens": usage.get("completion_tokens"),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
    }
    reasoning = usage.get("completion_tokens_details")
    if isinstance(reasoning, dict) and reasoning.get("reasoning_tokens") is not None:
        counted["output_tokens_details"] = {"thinking_tokens": reasoning["reasoning_tokens"]}
    return counted
