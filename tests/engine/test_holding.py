"""Holding a stream back: what is let go, when, and what is never let go."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.core.decisions import OutcomeKind
from tierwise.core.tasks import Needs, TaskType
from tierwise.engine.checks import check_message, tool_schemas
from tierwise.engine.holding import Hold, Holding, hold_mode
from tierwise.testing import StandInReply
from tierwise.testing.replies import anthropic_events

READ: Any = {
    "name": "read",
    "input_schema": {
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
        "additionalProperties": False,
    },
}
TOOLS: Any = {"max_tokens": 1000, "messages": [], "tools": [READ, {"type": "bash_20250124", "name": "bash"}]}
PLAIN: Any = {"max_tokens": 1000, "messages": []}
JSON_ASKED: Any = {**PLAIN, "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}

TEXT: Any = {"type": "text", "text": "Certainly, here it is."}
THINKING: Any = {"type": "thinking", "thinking": "hm, what to say", "signature": "c2ln"}
GOOD_CALL: Any = {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a — ü"}}
BAD_CALL: Any = {"type": "tool_use", "id": "t2", "name": "read", "input": {"file": "a"}}
UNKNOWN_CALL: Any = {"type": "tool_use", "id": "t3", "name": "fly", "input": {}}
ERROR: Any = {"type": "error", "error": {"type": "overloaded_error", "message": "later"}}


def sent(event: Any, end: str = "\n") -> bytes:
    return f"event: {event['type']}{end}data: {json.dumps(event, ensure_ascii=False)}{end}{end}".encode()


def events_of(*blocks: Any, stop: str = "end_turn", output_tokens: int = 20) -> list[Any]:
    reply = StandInReply(content=blocks, stop_reason=stop, usage={"output_tokens": output_tokens})
    return list(anthropic_events(reply, PLAIN, 1))


def stream_of(*blocks: Any, stop: str = "end_turn", output_tokens: int = 20) -> bytes:
    return b"".join(map(sent, events_of(*blocks, stop=stop, output_tokens=output_tokens)))


def holding(mode: Hold, body: Any = TOOLS, **limits: int) -> Holding:
    return Holding(
        mode, check=lambda message: check_message(message, body), tool_schemas=tool_schemas(body), **limits
    )  # fmt: skip


def fed(held: Holding, chunks: Iterable[bytes]) -> bytes:
    """All that is let go of a stream that ends well; nothing is fed after a verdict that abandons it."""
    out = b""
    for chunk in chunks:
        out += held.feed(chunk)
        if held.verdict is not None and held.verdict.kind is not OutcomeKind.ACCEPTED:
            break
    return out + held.end()


def kind_of(held: Holding) -> OutcomeKind | None:
    return held.verdict and held.verdict.kind


def singles(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def let_go_at(mode: Hold, stream: bytes, body: Any = TOOLS) -> list[tuple[int, int]]:
    """Byte by byte: after how many bytes how many had been let go, each time some were."""
    held, steps, total = holding(mode, body), [], 0
    for count, byte in enumerate(singles(stream), 1):
        out = held.feed(byte)
        if out:
            total += len(out)
            steps.append((count, total))
    return steps


# ------------------------------------------------------------------ what flows


GOOD = {
    "text": (TEXT,),
    "thinking first": (THINKING, TEXT),
    "a tool call": (GOOD_CALL,),
    "words and tool calls": (THINKING, TEXT, GOOD_CALL, GOOD_CALL, TEXT),
    "a tool of the server": ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, TEXT),
    "a block of the future": ({"type": "a_block_of_the_future"},),
}


@pytest.mark.parametrize("mode", list(Hold))
@pytest.mark.parametrize("blocks", GOOD.values(), ids=GOOD)
def test_a_good_stream_comes_out_as_it_went_in(mode: Hold, blocks: Any) -> None:
    """Every mode, whole, byte by byte and cut in two at every byte: the same bytes, accepted."""
    stream = stream_of(*blocks)
    for chunks in ([stream], singles(stream), *([stream[:i], stream[i:]] for i in range(0, len(stream), 7))):
        held = holding(mode)
        assert fed(held, chunks) == stream
        assert (kind_of(held), held.committed, held.too_late, held.note) == (OutcomeKind.ACCEPTED, True, False, "")


noise = st.sampled_from([b": keep-alive\n\n", b": c\r\n", b'event: ping\ndata: {"type": "ping"}\n\n', b"\n", b"\r"])


@settings(deadline=None)
@given(
    blocks=st.lists(st.sampled_from([TEXT, THINKING, GOOD_CALL, BAD_CALL, UNKNOWN_CALL]), min_size=1, max_size=4),
    mode=st.sampled_from(list(Hold)),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=2),
    noises=st.lists(st.tuples(st.integers(0, 30), noise), max_size=4),
    places=st.lists(st.integers(0, 4000), max_size=9),
)
def test_any_chunking_gives_the_same_verdict_and_a_prefix_of_the_stream(
    blocks: list[Any], mode: Hold, ends: list[str], noises: list[tuple[int, bytes]], places: list[int]
) -> None:
    """Any line ends, noise and cuts: the verdict is that of the whole, what is let go is how the stream begins."""
    pieces = [sent(event, ends[i % len(ends)]) for i, event in enumerate(events_of(*blocks))]
    for place, piece in noises:
        pieces.insert(min(place, len(pieces)), piece)
    stream = b"".join(pieces)
    bounds = [0, *sorted(p for p in places if p < len(stream)), len(stream)]
    one, other = holding(mode), holding(mode)
    out = fed(one, (stream[a:b] for a, b in pairwise(bounds)))
    fed(other, singles(stream))
    assert stream.startswith(out)
    assert (kind_of(one), one.too_late, one.committed) == (kind_of(other), other.too_late, other.committed)
    if kind_of(one) is OutcomeKind.ACCEPTED:
        assert out == stream
    elif not one.too_late:
        assert out == b""


def test_nothing_is_held_where_nothing_else_would_be_tried() -> None:
    """NONE hands on every chunk as it is, garbage too."""
    held = holding(Hold.NONE)
    assert kind_of(held) is OutcomeKind.ACCEPTED
    assert [held.feed(chunk) for chunk in (b"\xff", b"", b"data: half")] == [b"\xff", b"", b"data: half"]


def test_words_open_the_stream() -> None:
    """Everything is held to the end of the event with the first word; from then on each byte flows as it comes."""
    stream = stream_of(THINKING, {"type": "text", "text": "\n\n          now the words come"})
    first = stream.index(b"\n\n", stream.index(b"now")) + 2
    steps = let_go_at(Hold.FIRST_CONTENT, stream)
    assert steps[0] == (first, first)
    assert steps[1:] == [(n, n) for n in range(first + 1, len(stream) + 1)]


def test_after_the_first_words_prose_flows_event_by_event_where_tools_are_given() -> None:
    """TOOLS lets go of each event as it ends: the next one might be a tool call."""
    stream = stream_of(TEXT)
    steps = let_go_at(Hold.TOOLS, stream)
    assert all(count == total for count, total in steps)
    assert len(steps) == len([e for e in events_of(TEXT) if e["type"] != "ping"]) - 2  # the first ones come together


def test_a_tool_call_is_held_until_it_is_whole() -> None:
    """The words before it have flowed; of the call and what follows nothing goes until its block has ended."""
    stream = stream_of(TEXT, GOOD_CALL, TEXT)
    begins = stream.rindex(b"event: ", 0, stream.index(b'"tool_use"'))
    ends = stream.index(b"\n\n", stream.index(b"content_block_stop", begins)) + 2
    steps = let_go_at(Hold.TOOLS, stream)
    assert (begins, begins) in steps
    assert steps[steps.index((begins, begins)) + 1] == (ends, ends)


def test_keep_alives_flow_too() -> None:
    """Once words have flowed a comment is not kept back until the next event."""
    held = holding(Hold.TOOLS)
    events = [sent(event) for event in events_of(TEXT)]
    held.feed(b"".join(events[:4]))
    assert held.feed(b": keep-alive\n") == b": keep-alive\n"
    assert held.feed(events[4]) == events[4]


def test_structured_work_is_held_to_its_end() -> None:
    """WHOLE lets go of everything with message_stop and of nothing before."""
    stream = stream_of({"type": "text", "text": '{"a": 1}'})
    assert let_go_at(Hold.WHOLE, stream, JSON_ASKED) == [(len(stream), len(stream))]


# ------------------------------------------------------------------ what is not let go


@pytest.mark.parametrize(
    ("mode", "stream", "body", "kind"),
    [
        (Hold.WHOLE, stream_of({"type": "text", "text": "[1]"}), JSON_ASKED, OutcomeKind.REJECTED),
        (Hold.WHOLE, stream_of(TEXT, stop="refusal"), PLAIN, OutcomeKind.REFUSED),
        (Hold.WHOLE, stream_of(TEXT, stop="max_tokens", output_tokens=500), PLAIN, OutcomeKind.TRUNCATED),
        (Hold.FIRST_CONTENT, stream_of(), PLAIN, OutcomeKind.REJECTED),
        (Hold.FIRST_CONTENT, stream_of(THINKING), PLAIN, OutcomeKind.REJECTED),
        (Hold.FIRST_CONTENT, stream_of({"type": "text", "text": " \n"}), PLAIN, OutcomeKind.REJECTED),
        (Hold.FIRST_CONTENT, stream_of(THINKING, stop="refusal"), PLAIN, OutcomeKind.REFUSED),
        (Hold.FIRST_CONTENT, stream_of(UNKNOWN_CALL, stop="tool_use"), PLAIN, OutcomeKind.REJECTED),
        (Hold.TOOLS, stream_of(THINKING, BAD_CALL, stop="tool_use"), TOOLS, OutcomeKind.REJECTED),
        (Hold.TOOLS, stream_of(UNKNOWN_CALL, TEXT, stop="tool_use"), TOOLS, OutcomeKind.REJECTED),
        (Hold.TOOLS, stream_of(stop="model_context_window_exceeded"), TOOLS, OutcomeKind.TRUNCATED),
        (Hold.TOOLS, b"data: nonsense\n\n", TOOLS, OutcomeKind.SERVER_ERROR),
        (Hold.WHOLE, b"data: " + b"[" * 100_000 + b"\n\n", TOOLS, OutcomeKind.SERVER_ERROR),
        (Hold.WHOLE, b"data: \xff\xfe\n\n", TOOLS, OutcomeKind.SERVER_ERROR),
        (Hold.FIRST_CONTENT, sent({"type": "content_block_start"}), TOOLS, OutcomeKind.SERVER_ERROR),
    ],
)
def test_a_reply_that_is_no_good_never_reaches_the_client(mode: Hold, stream: bytes, body: Any, kind: Any) -> None:
    """Wrong, refused, cut off, empty, a bad tool call, not the protocol: a verdict, and not one byte let go."""
    for chunks in ([stream], [stream[i : i + 97] for i in range(0, len(stream), 97)]):
        held = holding(mode, body)
        assert fed(held, chunks) == b""
        assert (kind_of(held), held.committed, held.too_late) == (kind, False, False)
        assert held.feed(stream) == b""


@pytest.mark.parametrize("call", [BAD_CALL, UNKNOWN_CALL])
def test_a_bad_tool_call_after_words_is_told_as_too_late(call: Any) -> None:
    """The words cannot be unsaid; the call is not let go, unless somebody decides so."""
    stream = stream_of(TEXT, call, stop="tool_use")
    begins = stream.rindex(b"event: ", 0, stream.index(b'"tool_use"'))
    held = holding(Hold.TOOLS)
    out = b""
    for byte in singles(stream):
        out += held.feed(byte)
        if kind_of(held) is OutcomeKind.REJECTED:
            break
    assert out == stream[:begins]
    assert (held.too_late, held.committed) == (True, True)
    out += held.release()
    assert stream.startswith(out)
    assert out.endswith(b'"content_block_stop", "index": 1}\n\n')
    assert held.feed(b"more") == b"more"


def test_the_verdict_says_what_is_wrong_with_a_call() -> None:
    """In words for the model; the record's words quote nothing of the reply."""
    held = holding(Hold.TOOLS)
    fed(held, [stream_of(BAD_CALL)])
    assert held.verdict is not None
    assert "the arguments of read" in held.verdict.problem
    assert "file" not in held.verdict.note


def half_a_call(stop: str, output_tokens: int, before: tuple[Any, ...] = ()) -> list[bytes]:
    events = events_of(*before, GOOD_CALL, stop=stop, output_tokens=output_tokens)
    last = max(i for i, event in enumerate(events) if event["type"] == "content_block_delta")
    return [sent(event) for i, event in enumerate(events) if i != last]


@pytest.mark.parametrize("before", [(), (TEXT,)])
def test_a_call_cut_off_at_the_clients_own_limit_is_the_clients_wish(before: Any) -> None:
    """Arguments that do not parse wait for the stop reason, which says whose limit it was."""
    chunks = half_a_call("max_tokens", 1000, before)
    held = holding(Hold.TOOLS)
    assert fed(held, chunks) == b"".join(chunks)
    assert kind_of(held) is OutcomeKind.ACCEPTED
    held = holding(Hold.TOOLS)
    fed(held, half_a_call("max_tokens", 400, before))
    assert (kind_of(held), held.too_late) == (OutcomeKind.TRUNCATED, bool(before))
    held = holding(Hold.TOOLS)
    fed(held, half_a_call("tool_use", 400, before))
    assert (kind_of(held), held.too_late) == (OutcomeKind.REJECTED, bool(before))


@pytest.mark.parametrize("mode", [Hold.FIRST_CONTENT, Hold.TOOLS, Hold.WHOLE])
def test_a_stream_that_breaks_off_early_has_no_verdict(mode: Hold) -> None:
    """Cut anywhere before it was committed, or ended by an error: nothing is let go, and nothing said of the reply."""
    start = b"".join(sent(event) for event in events_of(THINKING)[:3])
    for place in range(0, len(start), 5):
        held = holding(mode)
        assert fed(held, [start[:place]]) == b""
        assert (held.verdict, held.committed) == (None, False)
    held = holding(mode)
    assert fed(held, [start, sent(ERROR), sent({"type": "message_stop"})]) == b""
    assert (held.verdict, held.committed) == (None, False)


def test_a_stream_that_breaks_off_later_lets_go_of_what_it_may() -> None:
    """Of a cut stream that was committed the last piece goes too; of a tool call that was being held nothing does."""
    stream = stream_of(TEXT)
    held = holding(Hold.TOOLS)
    assert fed(held, singles(stream[:-20])) == stream[:-20]
    stream = stream_of(TEXT, GOOD_CALL)
    begins = stream.rindex(b"event: ", 0, stream.index(b'"tool_use"'))
    held = holding(Hold.TOOLS)
    assert fed(held, [stream[: begins + 200]]) == stream[:begins]
    held = holding(Hold.TOOLS)
    assert fed(held, [stream_of(TEXT)[:-200], sent(ERROR)]).endswith(sent(ERROR))


# ------------------------------------------------------------------ the hostile


@pytest.mark.parametrize("mode", [Hold.FIRST_CONTENT, Hold.TOOLS, Hold.WHOLE])
@pytest.mark.parametrize("piece", [b"x" * 100, sent({"type": "ping"}), b"\r", b"\n", b"data\n"])
def test_what_is_held_is_bounded(mode: Hold, piece: bytes) -> None:
    """An event or a stream without end is let go unchecked, and the note says so; no byte is lost."""
    held = holding(mode, max_held_bytes=5000)
    out, count = b"", 0
    while not out and count < 6000:
        out, count = held.feed(piece), count + 1
    assert out == piece * count
    assert 5000 < len(out) <= 5000 + len(piece)
    assert (kind_of(held), held.committed) == (OutcomeKind.ACCEPTED, True)
    assert "5000 bytes" in held.note
    assert held.feed(piece) == piece


def test_an_endless_tool_call_is_let_go_too() -> None:
    """The bound holds after words have flowed."""
    held = holding(Hold.TOOLS, max_held_bytes=3000)
    events = events_of(TEXT, GOOD_CALL)
    stop = next(i for i, event in enumerate(events) if event["type"] == "content_block_stop" and event["index"] == 1)
    stream = b"".join(map(sent, events[:stop] + [events[stop - 1]] * 40))
    assert fed(held, [stream[i : i + 64] for i in range(0, len(stream), 64)]) == stream
    assert held.note


@settings(deadline=None)
@given(garbage=st.binary(max_size=300), mode=st.sampled_from(list(Hold)), size=st.integers(1, 50))
def test_garbage_is_never_accepted_and_never_crashes(garbage: bytes, mode: Hold, size: int) -> None:
    """Any bytes: nothing is let go where anything is held at all."""
    held = holding(mode)
    out = fed(held, (garbage[i : i + size] for i in range(0, len(garbage), size)))
    assert out == (garbage if mode is Hold.NONE else b"")


# ------------------------------------------------------------------ how long


def task_type(needs: Needs) -> TaskType:
    return TaskType("t", "f", needs, recoverable=True)


@pytest.mark.parametrize(
    ("needs", "body", "may_climb", "expected_tokens", "mode"),
    [
        (Needs.PROCESSING, JSON_ASKED, False, 20, Hold.NONE),
        (Needs.JUDGMENT, {**TOOLS, **JSON_ASKED}, True, None, Hold.WHOLE),
        (Needs.JUDGMENT, {**PLAIN, "output_format": {"schema": {}}}, True, None, Hold.WHOLE),
        (Needs.PROCESSING, PLAIN, True, 30, Hold.WHOLE),
        (Needs.PROCESSING, {"max_tokens": 20}, True, None, Hold.WHOLE),
        (Needs.PROCESSING, {"max_tokens": 20}, True, 500, Hold.WHOLE),
        (Needs.PROCESSING, PLAIN, True, None, Hold.FIRST_CONTENT),
        (Needs.PROCESSING, PLAIN, True, 500, Hold.FIRST_CONTENT),
        (Needs.PROCESSING, {}, True, None, Hold.FIRST_CONTENT),
        (Needs.JUDGMENT, {"max_tokens": 20}, True, 30, Hold.FIRST_CONTENT),
        (Needs.JUDGMENT, TOOLS, True, None, Hold.TOOLS),
        (Needs.CRITICAL, {**PLAIN, "tools": []}, True, None, Hold.FIRST_CONTENT),
        (Needs.CRITICAL, {**PLAIN, "output_config": {"effort": "low"}}, True, None, Hold.FIRST_CONTENT),
    ],
)
def test_how_long_a_reply_is_held(needs: Needs, body: Any, may_climb: bool, expected_tokens: Any, mode: Hold) -> None:
    """Not at all on the last rung, whole where it is structured or short, else until there are words."""
    assert hold_mode(task_type(needs), body, may_climb=may_climb, expected_output_tokens=expected_tokens) is mode
