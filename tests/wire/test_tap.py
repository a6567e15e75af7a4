"""Watching a stream go by: the tap agrees with who reads every event, however the stream is cut."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.core.money import Usage
from tierwise.testing import StandInReply
from tierwise.testing.replies import anthropic_events
from tierwise.wire.anthropic import MessageAccumulator, ProtocolError, StreamError, usage_of
from tierwise.wire.sieve import EventSieve
from tierwise.wire.sse import SseParser
from tierwise.wire.tap import StreamTap

BODY: Any = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi " * 50}]}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "try later"}}


def rendered(events: Iterable[Any], *, end: str = "\n", compact: bool = True, ascii_only: bool = False) -> bytes:
    def line(event: Any) -> str:
        return json.dumps(event, separators=(",", ":") if compact else None, ensure_ascii=ascii_only)

    text = "".join(f"event: {event['type']}{end}data: {line(event)}{end}{end}" for event in events)
    return text.encode("utf-8", "replace")


def tapped(*chunks: bytes, max_event_bytes: int = 1 << 24) -> StreamTap:
    tap = StreamTap(max_event_bytes=max_event_bytes)
    for chunk in chunks:
        tap.feed(chunk)
    return tap


def folded(stream: bytes) -> tuple[MessageAccumulator, int | None]:
    """What reading every event gives, and where the first content ended."""
    accumulator = MessageAccumulator()
    content: int | None = None
    for event in SseParser().feed(stream):
        try:
            accumulator.feed(json.loads(event.data))
        except (ProtocolError, ValueError):
            continue
        if content is None and accumulator.has_content:
            content = event.end
        if accumulator.stopped or accumulator.error is not None:
            break
    return accumulator, content


def seen(tap: StreamTap) -> tuple[object, ...]:
    return (
        tap.started, tap.stopped, tap.error, tap.usage, tap.stop_reason, tap.model, tap.first_content,
    )  # fmt: skip


def expected(stream: bytes) -> tuple[object, ...]:
    accumulator, content = folded(stream)
    message = accumulator.message() if accumulator.started else {}
    return (
        accumulator.started, accumulator.stopped, accumulator.error, accumulator.usage, message.get("stop_reason"),
        message.get("model"), content is not None,
    )  # fmt: skip


words = st.text(max_size=14) | st.sampled_from(
    ["error", '"error"', "message_start", '"message_', "content_block_start", "\n\n", "data: x\n\n", '{"type":"error"}']
)
blocks = st.one_of(
    words.map(lambda text: {"type": "text", "text": text}),
    words.map(lambda text: {"type": "thinking", "thinking": text, "signature": "c2ln" * 9}),
    st.dictionaries(words, words, max_size=3).map(
        lambda value: {"type": "tool_use", "id": "t", "name": "error", "input": value}
    ),
    st.just({"type": "a_block_of_the_future", "payload": {"error": True}}),
)
noise = st.sampled_from(
    [
        b"event: ping\ndata: {}\n\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b": keep-alive\n\n",
        b": keep-alive\r\n",
        b"\n",
        b"\r",
        b'event: new\ndata: {"type":"an_event_of_the_future","error":"error"}\n\n',
        b'data: {"type":\ndata: "message_of_the_future"}\n\n',
        b"id: 5\nretry: 3\n\n",
        b"event: only\n\n",
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A whole stream: its events in one of a few spellings each, with noise at a few places."""
    reply = StandInReply(content=tuple(draw(st.lists(blocks, max_size=3))), model="claude-x")
    events = list(anthropic_events(reply, BODY, 1))
    if draw(st.booleans()):
        events.insert(draw(st.integers(0, len(events))), OVERLOADED)
    ends = draw(st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=3))
    compact, ascii_only = draw(st.booleans()), draw(st.booleans())
    pieces = [
        rendered([e], end=ends[i % len(ends)], compact=compact, ascii_only=ascii_only) for i, e in enumerate(events)
    ]
    for between in draw(st.lists(noise, max_size=4)):
        pieces.insert(draw(st.integers(0, len(pieces))), between)
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + b"".join(pieces)


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    return [stream[a:b] for a, b in pairwise([0, *sorted(p for p in places if p < len(stream)), len(stream)])]


@settings(deadline=None)
@given(stream=streams(), places=st.lists(st.integers(0, 3000), max_size=12), length=st.integers(0, 6000))
def test_the_tap_agrees_with_who_reads_everything(stream: bytes, places: list[int], length: int) -> None:
    """Any content, line ends and spelling, noise anywhere, any chunking, cut off anywhere: the same is known."""
    stream = stream[:length]
    assert seen(tapped(*cut(stream, places))) == expected(stream)


@settings(deadline=None)
@given(stream=streams(), data=st.data())
def test_chunks_of_whole_events_are_enough(stream: bytes, data: st.DataObject) -> None:
    """Chunks cut where events end, the usual case, which hardly anything is read of: the same is known."""
    ends = [event.end for event in SseParser().feed(stream)]
    places = data.draw(st.lists(st.sampled_from(ends), max_size=9)) if ends else []
    tap = tapped(*cut(stream, places))
    assert seen(tap) == expected(stream)
    assert tap.first_content_at_byte == folded(stream)[1]


FULL = rendered(
    anthropic_events(
        StandInReply(
            content=(
                {"type": "text", "text": 'an "error" 🌍'},
                {"type": "tool_use", "id": "t", "name": "n", "input": {}},
            ),
            model="claude-x",
        ),
        BODY,
        1,
    )
)


@pytest.mark.parametrize("stream", [FULL, FULL.replace(b"\n", b"\r\n"), FULL.replace(b"\n", b"\r")])
def test_a_split_at_every_byte_changes_nothing(stream: bytes) -> None:
    """Two chunks, cut anywhere, in any line end; and single bytes."""
    known = expected(stream)
    assert known[:3] == (True, True, None)
    for place in range(len(stream) + 1):
        assert seen(tapped(stream[:place], stream[place:])) == known, place
    assert seen(tapped(*(stream[i : i + 1] for i in range(len(stream))))) == known


def test_a_stream_cut_at_every_byte_is_never_taken_for_whole() -> None:
    """Without message_stop it has not stopped; that it stands inside an event is known."""
    for place in range(len(FULL)):
        tap = tapped(FULL[:place])
        assert not tap.stopped
        assert tap.mid_event == (FULL[:place] != b"" and not FULL[:place].endswith(b"\n\n"))


@settings(deadline=None)
@given(garbage=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=5))
def test_garbage_never_crashes(garbage: bytes, places: list[int]) -> None:
    """Any bytes: nothing is raised and nothing is made up."""
    tap = tapped(*cut(garbage, places))
    assert (tap.started, tap.stopped, tap.stop_reason, tap.usage_so_far(BODY)) == (False, False, None, None)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"type":"message_delta","delta":' + b"[" * 100_000 + b"\n\n",
        b'data: {"type":"message_start","message":7}\n\n',
        b'data: {"type":"message_start"\n\n',
        b'data: {"type":"error"\xff\xfe\n\n',
    ],
    ids=["deep", "no message", "half", "no UTF-8"],
)
def test_what_cannot_be_read_is_passed_over_and_said(event: bytes) -> None:
    """Nesting without end, half of an event, bytes that are no text: the rest is read all the same."""
    tap = tapped(event + FULL)
    assert tap.stopped
    assert tap.garbled is not None


def test_an_event_without_end_does_not_fill_the_memory() -> None:
    """Past the limit it is dropped, in words; what comes after it is read."""
    tap = StreamTap(max_event_bytes=50_000)
    for _ in range(400):
        tap.feed(b"data: " + b"x" * 994)
    assert tap.garbled is not None
    assert "longer than 50000 bytes" in tap.garbled
    assert sum(map(len, tap._uncounted)) < 40_000
    tap.feed(b"\n\n")
    tap.feed(FULL)
    assert tap.stopped


def test_nothing_after_an_error_counts() -> None:
    """A stream that said `error` has failed, whatever it goes on to say."""
    tap = tapped(rendered([OVERLOADED]), FULL)
    assert tap.error == StreamError("overloaded_error", "try later")
    assert not tap.stopped
    assert not tap.started


def test_the_prompt_of_a_cut_stream_is_estimated_where_it_told_none() -> None:
    """Zeros at the start: the request is counted instead, and both counts are marked."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 0}}}
    assert tapped(rendered([start])).usage_so_far(BODY) == Usage(input_tokens=39, output_tokens=0, estimated=True)


@settings(deadline=None)
@given(pieces=st.lists(st.text(max_size=30), max_size=20), ascii_only=st.booleans(), whole=st.booleans())
def test_the_output_of_a_cut_stream_is_counted_from_what_came(pieces: list[str], ascii_only: bool, whole: bool) -> None:
    """Text as the tokens of its UTF-8, however it is escaped, signatures left out; the same as the accumulator says."""
    events: list[Any] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in pieces),
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s" * 400}},
    ]
    stream = rendered(events, ascii_only=ascii_only)
    tap = tapped(stream) if whole else tapped(*(stream[i : i + 7] for i in range(0, len(stream), 7)))
    assert tap.usage_so_far(BODY) == folded(stream)[0].usage_so_far(BODY)


@pytest.mark.parametrize("told", [{}, {"output_tokens": 7}, {"input_tokens": 5, "output_tokens": -1}])
@pytest.mark.parametrize("chunk_bytes", [9, 65_536])
def test_a_whole_stream_that_did_not_count_is_counted(told: dict[str, Any], chunk_bytes: int) -> None:
    """What it did not tell, or cannot have meant, is estimated from the texts; the same as the accumulator says."""
    events: list[Any] = [
        {"type": "message_start", "message": {"usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "twelve chars"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told},
        {"type": "message_stop"},
    ]
    stream = rendered(events)
    tap = tapped(*(stream[i : i + chunk_bytes] for i in range(0, len(stream), chunk_bytes)))
    expected = Usage(told.get("input_tokens", 39), 7 if told.get("output_tokens") == 7 else 3, estimated=True)
    assert tap.usage_so_far(BODY) == folded(stream)[0].usage_so_far(BODY) == expected
    assert usage_of(folded(stream)[0].message(), BODY) == expected


@pytest.mark.parametrize("chunk_bytes", [100, 1448, 65_536])
def test_the_output_of_a_long_cut_stream_is_counted_from_samples(chunk_bytes: int) -> None:
    """Far beyond what is kept: within a few parts of a hundred of what counting everything gives."""
    pieces = [f"word {n} " * (1 + n % 5) for n in range(3000)]
    events: list[Any] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in pieces),
    ]
    stream = rendered(events)
    tap = tapped(*(stream[i : i + chunk_bytes] for i in range(0, len(stream), chunk_bytes)))
    counted, exact = tap.usage_so_far(BODY), folded(stream)[0].usage_so_far(BODY)
    assert counted is not None
    assert exact is not None
    assert counted.output_tokens == pytest.approx(exact.output_tokens, rel=0.05)


def test_chunks_of_no_interest_are_not_read() -> None:
    """What makes a tap cheap: whole events without a wanted word never reach the parser, and offsets still hold."""
    delta = rendered([{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}])
    stop = rendered([{"type": "message_stop"}])
    sieve = EventSieve()
    sieve.feed(b": hi\n\n", [b'"message_'])
    assert sieve.skip(delta * 3, [b'"message_'])
    assert not sieve.skip(delta + stop, [b'"message_'])
    (event,) = sieve.feed(delta * 2 + stop + delta, [b'"message_'])
    assert json.loads(event.data) == {"type": "message_stop"}
    assert event.end == 6 + 5 * len(delta) + len(stop)
    assert sieve.offset == 6 + 6 * len(delta) + len(stop)
