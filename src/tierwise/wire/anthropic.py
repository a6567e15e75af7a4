"""Anthropic's Messages dialect, sans-io: stream events → one message, and any message → `Usage`.

A tolerant reader: unknown event, block and delta types are kept or passed over, never an error, because the API
grows. What cannot be read at all (an event that is not an object, a delta for a block that never began) is a
`ProtocolError` with words.

Usage in a stream is *cumulative*: `message_start` carries a first count (sometimes zeros), each `message_delta` the
totals so far. The last count of each class wins; nothing is ever added up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage
from tierwise.core.tokens import estimate_tokens

__all__ = [
    "MessageAccumulator",
    "ProtocolError",
    "StreamError",
    "estimate_prompt_tokens",
    "message_text",
    "usage_from_message",
    "usage_of",
    "with_estimates",
]

# A count beyond this is garbage: a thousand times the largest context there is, and safe in any database.
_MOST_TOKENS = 10**9
_TOKENS_PER_IMAGE = 1_600  # what a full-size image counts at most


class ProtocolError(ValueError):
    """An upstream said something that is not the protocol."""


@dataclass(frozen=True, slots=True)
class StreamError:
    """An `error` event in mid-stream: `type` is the API's (overloaded_error, rate_limit_error, api_error, …)."""

    type: str
    message: str


def estimate_prompt_tokens(body: JsonObject) -> int:
    """A rough count of a request's prompt: its texts, tools and images; for attempts that died uncounted."""
    return _estimate(body.get("system")) + _estimate(body.get("messages")) + _estimate(body.get("tools"))


def _estimate(value: Json) -> int:
    match value:
        case str():
            return estimate_tokens(value)
        case list():
            return sum(_estimate(item) for item in value)
        case dict():
            if value.get("type") in ("image", "document") and isinstance(value.get("source"), dict):
                return _TOKENS_PER_IMAGE
            return sum(_estimate(item) for item in value.values())
        case _:
            return 0


def message_text(message: Mapping[str, Json]) -> str:
    """All text blocks of a message, joined. Thinking, tool calls and unknown blocks are not text."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(_text_of(block) for block in content)


def _text_of(block: Json) -> str:
    if isinstance(block, dict) and block.get("type") == "text":
        text = block.get("text")
        if isinstance(text, str):
            return text
    return ""


def usage_from_message(message: Mapping[str, Json]) -> Usage:
    """The `usage` of a message (or of any object that has one).

    Cache writes whose time to live is not told count as 5-minute ones. Absent and null counts are 0. A missing
    `usage`, one that tells no prompt at all, and counts that cannot be (negative, strings, fractions, beyond reason)
    read as 0 and mark the result `estimated`: a bad count must not lose an answer that came, and must not pass as the
    provider's either.
    """
    usage = message.get("usage")
    if not isinstance(usage, dict):
        return Usage(estimated=True)
    reader = _Counts()
    total_writes = reader.count(usage, "cache_creation_input_tokens")
    split = usage.get("cache_creation")
    writes_5m = writes_1h = 0
    if isinstance(split, dict):
        writes_5m = reader.count(split, "ephemeral_5m_input_tokens")
        writes_1h = reader.count(split, "ephemeral_1h_input_tokens")
    output = reader.count(usage, "output_tokens")
    details = usage.get("output_tokens_details")
    thinking = reader.count(details, "thinking_tokens") if isinstance(details, dict) else 0
    server_tools = usage.get("server_tool_use")
    searches = reader.count(server_tools, "web_search_requests") if isinstance(server_tools, dict) else 0
    fresh = reader.count(usage, "input_tokens")
    cache_read = reader.count(usage, "cache_read_input_tokens")
    untold = usage.get("input_tokens") is None and not (cache_read or total_writes or writes_5m or writes_1h)
    return Usage(
        input_tokens=fresh,
        output_tokens=output,
        cache_read_tokens=cache_read,
        cache_write_5m_tokens=max(writes_5m, total_writes - writes_1h),
        cache_write_1h_tokens=writes_1h,
        thinking_tokens=min(thinking, output),
        web_searches=searches,
        estimated=reader.garbage or untold,
    )


def usage_of(message: Mapping[str, Json], body: JsonObject | None = None, *, prompt_tokens: int = 0) -> Usage:
    """The `usage` of a whole answer, estimated from the texts where its server did not count.

    Args:
        message: the answer.
        body: what it answers.
        prompt_tokens: about how many that has, where it is not at hand.
    """
    return with_estimates(
        usage_from_message(message),
        is_whole=True,
        prompt=lambda: prompt_tokens if body is None else estimate_prompt_tokens(body),
        said=lambda: estimate_tokens("".join(_said(message.get("content")))),
    )


def with_estimates(usage: Usage, *, is_whole: bool, prompt: Callable[[], int], said: Callable[[], int]) -> Usage:
    """What was counted, with estimates where nothing was: marked `estimated`, unless a whole answer told all.

    Args:
        usage: as last told.
        is_whole: the answer came to its end. In mid-stream the last count of the output is stale.
        prompt: about how many tokens the request has.
        said: about how many tokens of an answer were received.
    """
    if is_whole and not usage.estimated:
        return usage
    output = usage.output_tokens
    if not (is_whole and output):
        output = max(output, said())
    tokens = usage.input_tokens if usage.prompt_tokens else prompt()
    return replace(usage, input_tokens=tokens, output_tokens=output, estimated=True)


def _said(content: Json) -> Iterable[str]:
    """What the model said in an answer: text, thinking, and what it calls tools with."""
    if isinstance(content, str):
        yield content
    for block in content if isinstance(content, list) else ():
        for key, value in block.items() if isinstance(block, dict) else ():
            if key in ("text", "thinking") and isinstance(value, str):
                yield value
            elif key == "input" and value:
                yield value if isinstance(value, str) else json.dumps(value)


class _Counts:
    """Reads counts and remembers whether one of them could not be."""

    def __init__(self) -> None:
        self.garbage = False

    def count(self, source: Mapping[str, Json], key: str) -> int:
        value = source.get(key)
        if value is None:
            return 0
        if type(value) is int and 0 <= value <= _MOST_TOKENS:  # as good as always
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
            return value
        self.garbage = True
        return 0


class MessageAccumulator:
    """Folds the events of one Messages stream into the message that a call without `stream` would have given.

    Feed it each event's parsed `data`. `stopped` says that `message_stop` came: a stream that ends without it was
    cut. `error` holds a mid-stream `error` event. A tool's input that is not JSON in the end (cut off, or wrong)
    stays the string that came, so that a check sees it is no object.
    """

    def __init__(self) -> None:
        self._message: JsonObject | None = None
        self._blocks: dict[int, JsonObject] = {}
        self._partial_json: dict[int, list[str]] = {}
        self._strings: dict[tuple[int, str], list[str]] = {}  # appended in linear time, joined on reading
        self._usage: JsonObject = {}
        self.stopped = False
        self.error: StreamError | None = None
        self.unknown_events = 0

    @property
    def started(self) -> bool:
        """Whether `message_start` came: from then on the prompt is billed."""
        return self._message is not None

    @property
    def complete(self) -> bool:
        """Whether the message is whole: only `message_stop` says so."""
        return self.stopped

    @property
    def has_content(self) -> bool:
        """Whether the model has said anything yet (text, thinking or a tool call): the first token."""
        return bool(self._blocks)

    def feed(self, event: Json) -> None:
        """Fold one event in.

        Raises:
            ProtocolError: it is not an event of this protocol, or comes where it cannot.
        """
        if not isinstance(event, dict):
            raise ProtocolError(f"a stream event is a JSON object, not {_kind(event)}")
        match event.get("type"):
            case "message_start":
                self._start(event)
            case "content_block_start":
                self._block_start(event)
            case "content_block_delta":
                self._block_delta(event)
            case "content_block_stop":
                self._close_block(_index(event))
            case "message_delta":
                self._delta(event)
            case "message_stop":
                self._begun()
                self.stopped = True
            case "error":
                self.error = _stream_error(event)
            case "ping":
                pass
            case _:
                self.unknown_events += 1

    def told(self, key: str) -> Json:
        """What the message so far says beside its content and usage; None where it says nothing of that."""
        return None if self._message is None else self._message.get(key)

    @property
    def raw_usage(self) -> JsonObject:
        """The counts as last told, with what is none."""
        return dict(self._usage)

    @property
    def usage(self) -> Usage:
        """Usage as last told. `estimated` where nothing, or nothing readable, was told."""
        return usage_from_message({"usage": self._usage} if self._usage else {})

    def usage_so_far(self, body: JsonObject) -> Usage | None:
        """What a stream has used, of one that died and of one that did not count; None if it had not begun.

        The output is counted from what was received where the last count told is smaller (in mid-stream it is
        stale), and the prompt from the request where the stream began with zeros; both are marked `estimated`.
        """
        if self._message is None:
            return None
        return with_estimates(
            self.usage,
            is_whole=self.stopped,
            prompt=lambda: estimate_prompt_tokens(body),
            said=lambda: estimate_tokens("".join(self._received())),
        )

    def message(self) -> JsonObject:
        """The message so far; the whole one once `stopped`.

        Raises:
            ProtocolError: no `message_start` came.
        """
        if self._message is None:
            raise ProtocolError("the stream ended before message_start")
        for index in list(self._partial_json):
            self._close_block(index)
        self._join_strings()
        content: list[Json] = [dict(self._blocks[index]) for index in sorted(self._blocks)]
        return {**self._message, "content": content, "usage": dict(self._usage)}

    def block(self, index: int) -> JsonObject | None:
        """The block of that number as far as it came; whole once its content_block_stop did. None: it never began."""
        if index not in self._blocks:
            return None
        self._join_strings()
        return dict(self._blocks[index])

    @property
    def text(self) -> str:
        """All text received so far."""
        self._join_strings()
        return "".join(_text_of(self._blocks[index]) for index in sorted(self._blocks))

    def _received(self) -> Iterable[str]:
        for pieces in self._partial_json.values():
            yield from pieces
        self._join_strings()
        yield from _said([*self._blocks.values()])

    def _start(self, event: JsonObject) -> None:
        message = event.get("message")
        if not isinstance(message, dict):
            raise ProtocolError(f"message_start carries a message object, not {_kind(message)}")
        if self._message is not None:
            raise ProtocolError("message_start came twice in one stream")
        content = message.get("content")
        for index, block in enumerate(content if isinstance(content, list) else []):
            if isinstance(block, dict):
                self._blocks[index] = dict(block)
        self._message = {key: value for key, value in message.items() if key not in ("content", "usage")}
        self._merge_usage(message.get("usage"))

    def _block_start(self, event: JsonObject) -> None:
        if self._message is None:
            raise ProtocolError("content_block_start came before message_start")
        block = event.get("content_block")
        if not isinstance(block, dict):
            raise ProtocolError(f"content_block_start carries a block object, not {_kind(block)}")
        self._blocks[_index(event)] = dict(block)

    def _block_delta(self, event: JsonObject) -> None:
        index = _index(event)
        delta = event.get("delta")
        if not isinstance(delta, dict):
            raise ProtocolError(f"content_block_delta carries a delta object, not {_kind(delta)}")
        block = self._blocks.get(index)
        if block is None:
            raise ProtocolError(f"content_block_delta for block {index}, which never began")
        match delta.get("type"):
            case "input_json_delta":
                self._partial_json.setdefault(index, []).append(_string(delta, "partial_json"))
            case "text_delta":
                self._append(index, "text", _string(delta, "text"))
            case "thinking_delta":
                self._append(index, "thinking", _string(delta, "thinking"))
            case "signature_delta":
                self._append(index, "signature", _string(delta, "signature"))
            case "citations_delta":
                citations = block.get("citations")
                kept = citations if isinstance(citations, list) else []
                block["citations"] = [*kept, delta.get("citation")]
            case _:
                self._merge_unknown(index, block, delta)

    def _merge_unknown(self, index: int, block: JsonObject, delta: JsonObject) -> None:
        # A delta of a kind that is not known yet: strings grow, lists are extended, the rest is set. That is how
        # every known kind behaves, so nothing that came is lost.
        for key, value in delta.items():
            if key == "type":
                continue
            held = block.get(key)
            if isinstance(value, str):
                self._append(index, key, value)
            elif isinstance(value, list) and isinstance(held, list):
                block[key] = [*held, *value]
            else:
                block[key] = value

    def _append(self, index: int, key: str, text: str) -> None:
        self._strings.setdefault((index, key), []).append(text)

    def _join_strings(self) -> None:
        for (index, key), pieces in self._strings.items():
            held = self._blocks[index].get(key)
            self._blocks[index][key] = (held if isinstance(held, str) else "") + "".join(pieces)
        self._strings.clear()

    def _close_block(self, index: int) -> None:
        pieces = self._partial_json.pop(index, None)
        if pieces is None or index not in self._blocks:
            return
        text = "".join(pieces)
        if not text.strip():
            return  # a tool without arguments: the {} of content_block_start holds
        try:
            self._blocks[index]["input"] = json.loads(text)
        except (ValueError, RecursionError):
            self._blocks[index]["input"] = text

    def _delta(self, event: JsonObject) -> None:
        message = self._begun()
        delta = event.get("delta")
        if isinstance(delta, dict):
            message.update(delta)
        self._merge_usage(event.get("usage"))
        for key, value in event.items():
            if key not in ("type", "delta", "usage"):  # safeguard_results, context_management and what will come
                message[key] = value

    def _begun(self) -> JsonObject:
        # llama.cpp leaves message_start out where no visible text was generated: an empty message, its prompt untold.
        if self._message is None:
            self._message = {"type": "message", "role": "assistant"}
        return self._message

    def _merge_usage(self, usage: Json) -> None:
        if isinstance(usage, dict):
            self._usage.update({key: value for key, value in usage.items() if value is not None})


def _index(event: JsonObject) -> int:
    index = event.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise ProtocolError(f"{event.get('type')} names its block by a number, not by {_kind(index)}")
    return index


def _string(delta: JsonObject, key: str) -> str:
    value = delta.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ProtocolError(f"{delta.get('type')}.{key} is a string, not {_kind(value)}")
    return value


def _stream_error(event: JsonObject) -> StreamError:
    error = event.get("error")
    if isinstance(error, dict):
        kind, message = error.get("type"), error.get("message")
        return StreamError(kind if isinstance(kind, str) else "api_error", message if isinstance(message, str) else "")
    return StreamError("api_error", error if isinstance(error, str) else "")


def _kind(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
