"""Watches an Anthropic stream go by: what it used, whether it began, ended or broke off. Nothing is held or changed.

Theory of operation. A gateway hands every chunk of every stream to a tap, so a chunk of deltas must cost next to
nothing: `EventSieve` lets through only events in which `message_…` or `error` stands as a JSON string, and those few
are folded by the same `MessageAccumulator` that reads a whole stream elsewhere. So the two cannot disagree about what
a stream used.

What the model said is not parsed. Should the stream break off, its output must be estimated all the same, so the last
chunks are kept as they came and counted when somebody asks. When there are some 16 kB of them, their last quarter is
counted and stands for the rest.
"""

from __future__ import annotations

import json
import re

from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage
from tierwise.wire.anthropic import (
    MessageAccumulator,
    ProtocolError,
    StreamError,
    estimate_prompt_tokens,
    with_estimates,
)
from tierwise.wire.sieve import EventSieve
from tierwise.wire.sse import MAX_EVENT_BYTES, ServerSentEvent, SseError

__all__ = ["StreamTap"]

_MESSAGE, _ERROR, _BLOCK_START = '"message_', '"error"', '"content_block_start"'
_AFTER_CONTENT = (_MESSAGE.encode(), _ERROR.encode())
_BEFORE_CONTENT = (*_AFTER_CONTENT, _BLOCK_START.encode())
_EVENT_END = b"\n\n"
_COUNT_AT_BYTES = 16 * 1024
_SAMPLE = 4  # one byte in so many is counted
_BYTES_PER_TOKEN = 4  # as `estimate_tokens` has it
# What the model said, as it stands in JSON; a string that is cut off counts as far as it came.
_SAID = re.compile(rb'"(?:text|thinking|partial_json)":\s*+"((?:[^"\\]++|\\.)*+)', re.DOTALL)


class StreamTap:
    """Feed it every chunk of one stream, in order. It never raises.

    It reads until `message_stop` or an `error` event, as everything that reads such a stream does. What cannot be read
    is passed over and said in `garbled`: the client gets the same bytes and will find out for itself.
    """

    __slots__ = (
        "_count_at",
        "_done",
        "_folded",
        "_max_event_bytes",
        "_said_bytes",
        "_sieve",
        "_uncounted",
        "_wanted",
        "first_content_at_byte",
        "garbled",
    )

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._sieve = EventSieve(max_event_bytes=max_event_bytes)
        self._folded = MessageAccumulator()
        self._wanted: tuple[bytes, ...] = _BEFORE_CONTENT
        self._done = False
        self._uncounted: list[bytes] = []
        self._count_at = _COUNT_AT_BYTES  # at which byte of the stream they are counted next
        self._said_bytes = 0
        self.first_content_at_byte: int | None = None
        """The byte of the stream after the event with which the first content block began."""
        self.garbled: str | None = None

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        if self._done:
            return
        self._uncounted.append(chunk)
        sieve = self._sieve
        if sieve.skip(chunk, self._wanted):
            if sieve.offset > self._count_at:
                self._count()
            return
        try:
            events = sieve.feed(chunk, self._wanted)
        except SseError as error:
            self.garbled = str(error)
            self._sieve = EventSieve(max_event_bytes=self._max_event_bytes, offset=sieve.offset)
            events = ()
        for event in events:
            if not self._done:
                self._read(event)
        if self._sieve.offset > self._count_at and not self._done:
            self._count()

    @property
    def started(self) -> bool:
        """Whether the message began: from then on the prompt is billed."""
        return self._folded.started

    @property
    def stopped(self) -> bool:
        """Whether `message_stop` came: a stream that ends without it was cut."""
        return self._folded.stopped

    @property
    def over(self) -> bool:
        """Whether the stream came to its end, or told of an error."""
        return self._done

    @property
    def first_content(self) -> bool:
        """Whether the model has said anything yet."""
        return self.first_content_at_byte is not None

    @property
    def mid_event(self) -> bool:
        """Whether the last bytes were the beginning of an event."""
        return self._sieve.mid_event

    @property
    def error(self) -> StreamError | None:
        """The `error` event, if one came."""
        return self._folded.error

    @property
    def stop_reason(self) -> str | None:
        """As last told."""
        return self._told("stop_reason")

    @property
    def model(self) -> str | None:
        """The model that answered, as it says itself."""
        return self._told("model")

    @property
    def usage(self) -> Usage:
        """Usage as last told; `estimated` where nothing, or nothing readable, was told."""
        return self._folded.usage

    @property
    def raw_usage(self) -> Json:
        """The `usage` object as last told, with what is no count: geography, speed, service tier."""
        return self._folded.raw_usage if self.started else None

    def usage_so_far(self, body: JsonObject) -> Usage | None:
        """What a stream has used, estimated where it did not say; None if it had not begun.

        As `MessageAccumulator.usage_so_far`.

        Args:
            body: the request, whose prompt is estimated where the stream told none.
        """
        if not self.started:
            return None
        return with_estimates(
            self.usage,
            is_whole=self.stopped,
            prompt=lambda: estimate_prompt_tokens(body),
            said=lambda: -(-(self._said_bytes + _said_bytes(b"".join(self._uncounted))) // _BYTES_PER_TOKEN),
        )

    def _told(self, key: str) -> str | None:
        value = self._folded.told(key)
        return value if isinstance(value, str) else None

    def _read(self, event: ServerSentEvent) -> None:
        data = event.data
        if _MESSAGE not in data and _ERROR not in data and _BLOCK_START not in data:
            return
        try:
            parsed: Json = json.loads(data)
        except (ValueError, RecursionError):
            self.garbled = "an event is not JSON"
            return
        match parsed:
            case {"type": "content_block_start"}:
                self._content_began(event.end)
            case {"type": "message_start" | "message_delta" | "message_stop" | "error"}:
                try:
                    self._folded.feed(parsed)
                except ProtocolError as error:
                    self.garbled = str(error)
                if self._folded.has_content:
                    self._content_began(event.end)
                if self._folded.stopped or self._folded.error is not None:
                    self._done = True
            case _:
                pass

    def _content_began(self, at: int) -> None:
        if self.first_content_at_byte is None:
            self.first_content_at_byte = at
            self._wanted = _AFTER_CONTENT

    def _count(self) -> None:
        """Counts what was kept up to the end of its last event. What holds no such end is counted as it is."""
        kept = b"".join(self._uncounted)
        whole = kept.rfind(_EVENT_END) + len(_EVENT_END)
        if whole < len(_EVENT_END):
            whole = len(kept)
        begin = max(0, kept.find(_EVENT_END, whole - whole // _SAMPLE, whole - len(_EVENT_END)))
        self._said_bytes += _said_bytes(kept[begin:whole]) * whole // (whole - begin)
        rest = kept[whole:]
        self._uncounted = [rest]
        self._count_at = self._sieve.offset + _COUNT_AT_BYTES


def _said_bytes(stream: bytes) -> int:
    """How many bytes of UTF-8 the model's words in this part of a stream are."""
    strings = b"".join(_SAID.findall(stream))
    if b"\\" not in strings:
        return len(strings)
    try:
        # Strings end to end are the inside of one string: one call of the parser's C code for all of them.
        said: str = json.loads(b'"' + strings + b'"', strict=False)
    except ValueError:
        return len(strings)  # an escape was cut in half, or it is no UTF-8: near enough
    return len(said.encode("utf-8", "surrogatepass"))
