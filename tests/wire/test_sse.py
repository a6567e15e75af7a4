"""The SSE parser: the same events whatever the chunking, and a bound on what it holds."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.wire.sse import ServerSentEvent, SseError, SseParser

STREAM = (
    "\ufeff: hello\r\n"
    'event: message_start\r\ndata: {"type":"message_start"}\r\n\r\n'
    "event: ping\ndata: {}\n\n"
    "id: 7\rdata: first — ü\rdata:second 🌍\rretry: 10\runknown: x\rnonsense\r\r"
    "data\n\n"
    ": keep-alive\n\n"
    "event: without data\n\n"
    "data: last\n\n"
).encode()
EVENTS = [
    ServerSentEvent("message_start", '{"type":"message_start"}'),
    ServerSentEvent("ping", "{}"),
    ServerSentEvent("message", "first — ü\nsecond 🌍", "7"),
    ServerSentEvent("message", "", "7"),
    ServerSentEvent("message", "last", "7"),
]


def parse(*chunks: bytes) -> list[ServerSentEvent]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_the_grammar_is_read() -> None:
    """All three line ends, comments, several data lines, unknown fields, a byte order mark."""
    assert parse(STREAM) == EVENTS


def test_a_split_at_every_byte_changes_nothing() -> None:
    """Two chunks, cut anywhere: between CR and LF, inside a character, inside a field name."""
    for cut in range(len(STREAM) + 1):
        assert parse(STREAM[:cut], STREAM[cut:]) == EVENTS, cut


def test_single_bytes_change_nothing() -> None:
    """One byte at a time."""
    assert parse(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == EVENTS


def test_an_event_says_where_the_stream_goes_on() -> None:
    """Behind the line end of its blank line; what whoever feeds the parser keeps back counts too."""
    stream = b": c\ndata: 1\n\nid: 2\r\ndata: 2\r\n\r\n\ndata: 3\n\n"
    ends = [stream.index(b"id"), stream.index(b"\ndata: 3"), len(stream)]
    inside_crlf = [ends[0], ends[1] - 1, ends[2]]  # a chunk ended in CR, which ends a line by itself
    for size, expected in ((1, inside_crlf), (3, inside_crlf), (7, ends), (100, ends)):
        parser = SseParser()
        assert not parser.between_events
        events = [e for i in range(0, len(stream), size) for e in parser.feed(stream[i : i + size])]
        assert [event.end for event in events] == expected
        assert parser.between_events
        parser.offset += 100
        assert parser.feed(b"data: 4\n\n")[0].end == len(stream) + 109
    parser.feed(b": comment\n")
    assert parser.between_events
    parser.feed(b"data: 5\n")
    assert not parser.between_events


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_chunking_gives_the_same_events(cuts: list[int]) -> None:
    """Any number of chunks of any size, empty ones too."""
    bounds = [0, *sorted(cuts), len(STREAM)]
    assert parse(*(STREAM[a:b] for a, b in pairwise(bounds))) == EVENTS


@given(
    payloads=st.lists(
        st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)), max_size=6
    ),
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    size=st.integers(1, 9),
)
def test_what_was_sent_comes_out(payloads: list[object], end: str, size: int) -> None:
    """Any JSON payloads, with pings and comments between them, in any line end and chunk size."""
    stream = b""
    for payload in payloads:
        data = json.dumps(payload, ensure_ascii=False)
        stream += f"event: e{end}data: {data}{end}{end}event: ping{end}data: {{}}{end}{end}: c{end}".encode()
    events = parse(*(stream[i : i + size] for i in range(0, len(stream), size)))
    assert [json.loads(event.data) for event in events if event.event == "e"] == payloads
    assert sum(event.event == "ping" for event in events) == len(payloads)


@given(garbage=st.binary(max_size=400), cut=st.integers(0, 400))
def test_garbage_never_crashes(garbage: bytes, cut: int) -> None:
    """Any bytes at all are read to the same end, whole or cut in two."""
    assert parse(garbage[:cut], garbage[cut:]) == parse(garbage)


def test_an_unfinished_event_is_not_given_out() -> None:
    """The end of the stream before the blank line: the event never was."""
    parser = SseParser()
    assert parser.feed(b"data: half") == []
    assert parser.mid_event
    assert parser.feed(b"\n\n") == [ServerSentEvent("message", "half")]
    assert not parser.mid_event


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: y\n", b"event: z\n"], ids=["line", "data", "field"])
def test_an_endless_event_is_an_error_not_a_full_memory(piece: bytes) -> None:
    """One line or many: past the limit the parser gives up with words."""
    parser = SseParser(max_event_bytes=1000)
    with pytest.raises(SseError, match="longer than 1000 bytes"):
        for _ in range(1000):
            parser.feed(piece)


def test_long_streams_of_short_events_and_comments_are_no_problem() -> None:
    """The limit is for one event: keep-alive comments and finished events do not add up."""
    parser = SseParser(max_event_bytes=200)
    for _ in range(1000):
        parser.feed(b": keep-alive\n")
        assert parser.feed(b"data: 1\n\n") == [ServerSentEvent("message", "1")]
    for _ in range(1000):
        parser.feed(b": keep-alive\n")
