"""Holds a stream back until it is worth committing to the client, and not a byte longer.

Theory of operation. A reply of a model that may be abandoned must not reach the client before its check has passed:
what was sent cannot be unsaid. How long that takes depends on what was asked for. `Hold.WHOLE` waits for the end and
checks the message. `Hold.FIRST_CONTENT` waits for the first words: a model that declines, fails or says nothing does
so before them. `Hold.TOOLS` does that too, and then stops the stream before each tool call until its arguments parse
and satisfy the client's schema. What is let go is byte for byte what came, in order.

Two things may come out: a `verdict`, and a stream that ends without one. A stream that is cut, or ends in an `error`
event, says nothing about the reply: nothing more is let go and the verdict stays as it was; what became of the
upstream is for `StreamTap` to say.

A stream that has been committed and needs no more watching costs nothing: `feed` hands on what it is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import assert_never

from tierwise.core.decisions import OutcomeKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.tasks import Needs, TaskType
from tierwise.engine.checks import Checked, check_message, check_tool_call
from tierwise.wire.anthropic import MessageAccumulator, ProtocolError, message_text
from tierwise.wire.endings import error_event
from tierwise.wire.sieve import EventSieve
from tierwise.wire.sse import MAX_EVENT_BYTES, ServerSentEvent, SseError

__all__ = ["MAX_HELD_BYTES", "Hold", "Holding", "check_message", "error_event", "hold_mode"]

MAX_HELD_BYTES = MAX_EVENT_BYTES
_SHORT_TOKENS = 256  # a few seconds of a model's time: what a client waits for without wondering
_EVENT_END = b"\n\n"
_BLOCK_START = "content_block_start"
_WATCHED = (f'"{_BLOCK_START}"'.encode(),)
_NOT_CONTENT = ("text", "thinking", "redacted_thinking")
_ACCEPTED = Checked(OutcomeKind.ACCEPTED, "")
_NOT_THE_PROTOCOL = Checked(OutcomeKind.SERVER_ERROR, "", note="the stream is not the protocol")


class Hold(Enum):
    """How long a stream is held back."""

    NONE = auto()  # it flows from the start: nothing else would be tried
    FIRST_CONTENT = auto()  # until the first words
    TOOLS = auto()  # until the first words, and each tool call until it is known to be good
    WHOLE = auto()  # to the end


def hold_mode(
    task_type: TaskType, body: JsonObject, *, may_climb: bool, expected_output_tokens: int | None = None
) -> Hold:
    """How long the answer to a Messages request is worth holding back.

    Args:
        task_type: what was asked for.
        body: the request.
        may_climb: whether another model would be tried if this one's reply is not good enough.
        expected_output_tokens: how long the reply will be, where that is known; the request's limit bounds it.
    """
    if not may_climb:
        return Hold.NONE
    match body:
        case {"output_config": {"format": {"schema": dict()}}} | {"output_format": {"schema": dict()}}:
            return Hold.WHOLE
        case _:
            pass
    bounds = [bound for bound in (expected_output_tokens, body.get("max_tokens")) if isinstance(bound, int)]
    if task_type.needs is Needs.PROCESSING and bounds and min(bounds) <= _SHORT_TOKENS:
        return Hold.WHOLE
    return Hold.TOOLS if body.get("tools") else Hold.FIRST_CONTENT


class _State(Enum):
    CLOSED = auto()  # nothing was let go yet
    OPEN = auto()  # it flows, and tool calls are watched for
    AT_TOOL = auto()  # as OPEN, but a tool call has come that is not known to be good
    FLOWING = auto()  # for good
    ABANDONED = auto()  # for good


class Holding:
    """Feed it every chunk of one Anthropic stream; hand on what it returns.

    Args:
        mode: how long to hold.
        check: judges a whole message. After words have flowed it may be given a message without them.
        tool_schemas: the client's tools by name, as `tool_schemas` reads them.

    Look at `verdict` after each `feed`: None while it is open; ACCEPTED once the client may have the reply; else the
    attempt is to be abandoned: nothing was let go, unless `too_late` says so. It is SERVER_ERROR where what came is not
    the protocol.
    """

    __slots__ = (
        "_check",
        "_doubtful",
        "_folded",
        "_given",
        "_held",
        "_held_bytes",
        "_max_held_bytes",
        "_mode",
        "_reading",
        "_sieve",
        "_state",
        "_tool",
        "_tool_schemas",
        "note",
        "too_late",
        "verdict",
    )

    def __init__(
        self,
        mode: Hold,
        *,
        check: Callable[[JsonObject], Checked],
        tool_schemas: Mapping[str, JsonObject],
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._mode = mode
        self._check = check
        self._tool_schemas = tool_schemas
        self._max_held_bytes = max_held_bytes
        self._sieve = EventSieve(max_event_bytes=max_held_bytes)
        self._folded = MessageAccumulator()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._given = 0  # bytes of the stream that were let go
        self._reading = 0  # where the stream goes on after the last event that may be let go
        self._tool: int | None = None  # the block of the tool call that is held
        self._doubtful = False  # its arguments are no JSON: whose fault that is, the stop reason says
        self._state = _State.FLOWING if mode is Hold.NONE else _State.CLOSED
        self.verdict: Checked | None = _ACCEPTED if mode is Hold.NONE else None
        self.too_late = False
        """The verdict came after a part of the reply was let go: it cannot be unsaid."""
        self.note = ""
        """Why the stream was let go unchecked, where it was."""

    @property
    def committed(self) -> bool:
        """Whether anything was let go."""
        match self._state:
            case _State.OPEN | _State.AT_TOOL | _State.FLOWING:
                return True
            case _State.CLOSED:
                return False
            case _State.ABANDONED:
                return self.too_late
            case other:
                assert_never(other)

    @property
    def message(self) -> JsonObject:
        """What was read of the reply: all of it, where the whole is held."""
        return self._folded.message()

    @property
    def flows(self) -> bool:
        """Whether all that comes may go on, from now to the end: nobody has to ask any more."""
        return self._state is _State.FLOWING

    def feed(self, chunk: bytes) -> bytes:
        """What may go to the client now."""
        state = self._state
        if state is _State.FLOWING:
            return chunk
        if state is _State.ABANDONED:
            return b""
        if state is _State.OPEN and not self._held and self._sieve.skip(chunk, _WATCHED):
            self._given = self._reading = self._sieve.offset
            return chunk
        self._held.append(chunk)
        self._held_bytes += len(chunk)
        try:
            for event in self._events(chunk):
                state = self._read(event)
                if state is _State.FLOWING:
                    return self._everything()
                if state is _State.ABANDONED:
                    return self._up_to(self._reading)
        except SseError as error:
            return self._give_up_holding(str(error))
        if self._held_bytes > self._max_held_bytes:
            return self._give_up_holding(f"more than {self._max_held_bytes} bytes were held; let go unchecked")
        if state is _State.OPEN and self._sieve.between_events:
            self._reading = self._sieve.offset
        return self._up_to(self._reading)

    def _events(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events of a chunk as they are asked for: what comes after the one that lets go is not read at all."""
        if self._mode is Hold.WHOLE:  # all of them are wanted
            yield from self._sieve.feed_all(chunk)
            return
        begin, looked = 0, False
        while begin < len(chunk):
            if self._state is _State.OPEN and not looked:  # from here on only tool calls matter
                looked = True
                if self._sieve.skip(chunk[begin:], _WATCHED):
                    return
            end = chunk.find(_EVENT_END, begin)
            end = len(chunk) if end < 0 else end + len(_EVENT_END)
            yield from self._sieve.feed_all(chunk[begin:end])
            begin = end

    def end(self) -> bytes:
        """What may go to the client at the upstream's end, whether that was a good one or not."""
        return self._everything() if self._state is _State.OPEN else b""

    def release(self) -> bytes:
        """Lets go of what is held, whatever it is, and of all that comes: there is nothing better to be had.

        After a verdict that abandons the attempt, call it before feeding on: later chunks are not kept.
        """
        self._state = _State.FLOWING
        return self._everything()

    # -- reading ---------------------------------------------------------------------------------------------

    def _read(self, event: ServerSentEvent) -> _State:
        if self._state is _State.OPEN:
            self._watch(event)
            return self._state
        try:
            parsed = _parse(event)
            self._folded.feed(parsed)
        except ProtocolError:
            self._abandon(_NOT_THE_PROTOCOL)
            return self._state
        if self._folded.error is None:
            if self._folded.stopped:
                self._judge()
            elif self._mode is not Hold.WHOLE:
                self._look(parsed, event.end)
        return self._state

    def _watch(self, event: ServerSentEvent) -> None:
        """Looks for a tool call in a stream that flows."""
        if _BLOCK_START in event.data:
            # What is not the protocol flows too: what it is worth, the client will see.
            with suppress(ProtocolError):
                parsed = _parse(event)
                self._folded.feed(parsed)
                match parsed:
                    case {"type": "content_block_start", "index": int(index), "content_block": {"type": "tool_use"}}:
                        self._tool = index
                        self._state = _State.AT_TOOL
                        return
                    case _:
                        pass
        self._reading = event.end

    def _look(self, event: JsonObject, end: int) -> None:
        """Whether `event` commits the stream, or ends a tool call."""
        if self._doubtful:
            return
        match event:
            case {"type": "content_block_stop", "index": index} if index == self._tool:
                self._judge_tool(end)
            case _ if self._tool is not None:
                pass  # what follows a tool call waits for it
            case {"type": "content_block_start", "index": int(index), "content_block": {"type": "tool_use"}}:
                self._tool = index
            case {"type": "content_block_start", "content_block": {"type": "text", "text": text}} if _has_words(text):
                self._commit(end)
            case {"type": "content_block_start", "content_block": {"type": kind}} if kind not in _NOT_CONTENT:
                self._commit(end)  # a server's tool, or what is not known yet: the model is at work
            case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}} if _has_words(text):
                self._commit(end)
            case {"type": "message_start", "message": dict(message)} if _has_words(message_text(message)):
                self._commit(end)
            case _:
                pass

    # -- judging ---------------------------------------------------------------------------------------------

    def _judge_tool(self, end: int) -> None:
        block = self._folded.block(-1 if self._tool is None else self._tool) or {}
        if not isinstance(block.get("input"), dict):
            self._doubtful = True  # cut off at the client's own limit, perhaps: known at the end
            return
        checked = check_tool_call(block, self._tool_schemas)
        if checked.kind is not OutcomeKind.ACCEPTED:
            self._abandon(checked)
            return
        self._tool = None
        self._commit(end)

    def _judge(self) -> None:
        checked = self._check(self._folded.message())
        if checked.kind is not OutcomeKind.ACCEPTED:
            self._abandon(checked)
            return
        self.verdict = checked
        self._state = _State.FLOWING

    def _commit(self, end: int) -> None:
        self.verdict = self.verdict or _ACCEPTED
        self._state = _State.OPEN if self._mode is Hold.TOOLS else _State.FLOWING
        self._reading = end

    def _abandon(self, verdict: Checked) -> None:
        self.too_late = self._state is not _State.CLOSED
        self.verdict = verdict
        self._state = _State.ABANDONED

    def _give_up_holding(self, note: str) -> bytes:
        self.note = note
        self.verdict = Checked(OutcomeKind.ACCEPTED, "", note=note)
        return self.release()

    # -- letting go ------------------------------------------------------------------------------------------

    def _everything(self) -> bytes:
        held = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return held

    def _up_to(self, place: int) -> bytes:
        count = place - self._given
        if count <= 0:
            return b""
        held = self._everything()
        self._given = place
        if count < len(held):
            self._held.append(held[count:])
            self._held_bytes = len(held) - count
        return held[:count]


def _parse(event: ServerSentEvent) -> JsonObject:
    try:
        parsed: Json = json.loads(event.data)
    except (ValueError, RecursionError):
        raise ProtocolError("an event is not JSON") from None
    if not isinstance(parsed, dict):
        raise ProtocolError("an event is not a JSON object")
    return parsed


def _has_words(text: Json) -> bool:
    return isinstance(text, str) and not text.isspace() and text != ""
