"""Folding a Messages stream, and reading usage: cumulative, split by TTL, tolerant of what is new or wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.core.money import Usage
from tierwise.testing import StandInReply
from tierwise.testing.replies import anthropic_events, anthropic_message
from tierwise.wire.anthropic import (
    MessageAccumulator,
    ProtocolError,
    StreamError,
    estimate_prompt_tokens,
    message_text,
    usage_from_message,
)

BODY: Any = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi " * 50}]}
START: Any = {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": {}}}


def fold(*events: Any) -> MessageAccumulator:
    accumulator = MessageAccumulator()
    for event in events:
        accumulator.feed(event)
    return accumulator


def text_block(text: str, index: int = 0) -> list[Any]:
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": index},
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
blocks = st.one_of(
    st.text(max_size=60).map(lambda text: {"type": "text", "text": text}),
    st.text(max_size=40).map(lambda text: {"type": "thinking", "thinking": text, "signature": "c2ln"}),
    st.dictionaries(st.text(max_size=8), json_values, max_size=3).map(
        lambda value: {"type": "tool_use", "id": "t", "name": "n", "input": value}
    ),
    st.just({"type": "a_block_of_the_future", "payload": {"kept": True}}),
)
noise = st.sampled_from([{"type": "ping"}, {"type": "an_event_of_the_future", "x": 1}])


@given(content=st.lists(blocks, max_size=5), data=st.data())
def test_a_folded_stream_equals_the_whole_message(content: list[Any], data: st.DataObject) -> None:
    """Any content, with pings and unknown events anywhere between: the same message as without streaming."""
    reply = StandInReply(content=tuple(content))
    accumulator = MessageAccumulator()
    for event in anthropic_events(reply, BODY, 1):
        for extra in data.draw(st.lists(noise, max_size=2)):
            accumulator.feed(extra)
        accumulator.feed(event)
    assert accumulator.stopped
    assert accumulator.message() == anthropic_message(reply, BODY, 1)
    assert accumulator.usage == usage_from_message(anthropic_message(reply, BODY, 1))


def test_one_block_is_read_before_the_message_is_whole() -> None:
    """A tool call is whole when its block has stopped; a block that never began is none."""
    call = {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "n", "input": {}}}
    piece = {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'},
    }
    accumulator = fold(START, *text_block("hello"), call, piece, {"type": "content_block_stop", "index": 1})
    assert accumulator.block(0) == {"type": "text", "text": "hello"}
    assert accumulator.block(1) == {"type": "tool_use", "name": "n", "input": {"a": 1}}
    assert accumulator.block(2) is None


def test_the_last_cumulative_count_wins() -> None:
    """Counts are totals so far: never added up, and a class that is not told again keeps its last count."""
    accumulator = fold(
        {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 20, "cache_read_input_tokens": 5}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 45, "input_tokens": None}},
    )
    assert accumulator.usage == Usage(10, 45, 5)


def test_zeros_at_the_start_do_not_stay() -> None:
    """What message_start could not know yet comes with message_delta."""
    accumulator = fold(
        {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 0}}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": 9, "output_tokens": 2},
        },
        {"type": "message_stop"},
    )
    assert accumulator.usage == Usage(9, 2)
    assert accumulator.message()["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"cache_creation_input_tokens": 30}, (30, 0)),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}}, (1, 2)),
        (
            {
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            },
            (10, 20),
        ),
        ({"cache_creation_input_tokens": 30, "cache_creation": {"ephemeral_1h_input_tokens": 20}}, (10, 20)),
        ({"cache_creation_input_tokens": 30, "cache_creation": None}, (30, 0)),
        ({"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 20}}, (0, 20)),
    ],
)
def test_cache_writes_are_split_by_time_to_live(usage: Any, expected: tuple[int, int]) -> None:
    """One-hour writes cost more than five-minute ones; what is not split counts as five minutes, nothing twice."""
    read = usage_from_message({"usage": usage})
    assert (read.cache_write_5m_tokens, read.cache_write_1h_tokens) == expected
    assert not read.estimated


def test_thinking_and_searches_are_read() -> None:
    """Thinking is part of the output; web searches are billed apiece."""
    usage: Any = {
        "input_tokens": 8,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 30},
        "server_tool_use": {"web_search_requests": 2},
    }
    assert usage_from_message({"usage": usage}) == Usage(8, 50, thinking_tokens=30, web_searches=2)


@given(
    usage=json_values
    | st.dictionaries(
        st.sampled_from(
            [
                "input_tokens",
                "output_tokens",
                "cache_creation",
                "cache_creation_input_tokens",
                "output_tokens_details",
                "server_tool_use",
            ]
        ),
        json_values | st.integers() | st.floats(),
    )
)
def test_no_usage_can_crash_the_reader(usage: Any) -> None:
    """Whatever stands in `usage`, a valid Usage comes out."""
    assert usage_from_message({"usage": usage}).prompt_tokens >= 0


@given(
    events=st.lists(
        json_values
        | st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    [
                        "message_start",
                        "content_block_start",
                        "content_block_delta",
                        "content_block_stop",
                        "message_delta",
                        "message_stop",
                        "error",
                        "ping",
                        "?",
                    ]
                )
            },
            optional={
                "message": json_values,
                "index": st.integers(-1, 2),
                "usage": json_values,
                "error": json_values,
                "content_block": json_values | st.just({"type": "text", "text": ""}),
                "delta": json_values
                | st.sampled_from(
                    [
                        {"type": "text_delta", "text": "x"},
                        {"type": "text_delta", "text": 3},
                        {"type": "input_json_delta", "partial_json": "{"},
                        {"type": "new_delta", "more": [1]},
                    ]
                ),
            },
        ),
        max_size=8,
    )
)
def test_no_sequence_of_events_can_crash_the_fold(events: list[Any]) -> None:
    """Any events in any order are folded, or refused as a ProtocolError; never another exception."""
    accumulator = fold(START)
    try:
        for event in events:
            accumulator.feed(event)
    except ProtocolError as error:
        assert str(error)
    accumulator.message()
    accumulator.usage_so_far(BODY)


@pytest.mark.parametrize(
    "events",
    [
        [[]],
        [{"type": "message_start", "message": "x"}],
        [START, START],
        [{"type": "content_block_start", "index": 0, "content_block": {}}],
        [START, {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}}],
        [START, {"type": "content_block_start", "index": "0", "content_block": {}}],
        [
            START,
            *text_block("x")[:1],
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 1}},
        ],
    ],
)
def test_what_is_not_the_protocol_is_said_in_words(events: list[Any]) -> None:
    """An event that cannot be read is a ProtocolError that says why."""
    with pytest.raises(ProtocolError, match=r"came|carries|object|never began|number|string"):
        fold(*events)


@pytest.mark.parametrize(
    ("pieces", "value"), [(['{"a"', ": [1, 2]}"], {"a": [1, 2]}), (["", " "], {}), (['{"a": '], '{"a": ')]
)
def test_tool_input_is_put_together(pieces: list[str], value: Any) -> None:
    """Fragments make the arguments; none at all is {}; what is cut off stays text, no object."""
    accumulator = fold(
        START,
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "t", "name": "n", "input": {}},
        },
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": p}}
            for p in pieces
        ),
        {"type": "content_block_stop", "index": 0},
    )
    assert accumulator.message()["content"] == [{"type": "tool_use", "id": "t", "name": "n", "input": value}]


def test_unknown_deltas_and_fields_are_kept() -> None:
    """What the API may add tomorrow is not lost: deltas merge by shape, top-level fields stay."""
    accumulator = fold(
        {"type": "message_start", "message": {"id": "m", "usage": {}, "new_field": 1}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "compaction", "content": "a", "list": [1]},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "compaction_delta", "content": "b", "list": [2], "n": 3},
        },
        {"type": "message_delta", "delta": {"container": {"id": "c"}}, "usage": {"x": 1}, "safeguard_results": [1]},
        {"type": "message_stop"},
    )
    message = accumulator.message()
    assert message["content"] == [{"type": "compaction", "content": "ab", "list": [1, 2], "n": 3}]
    assert (message["new_field"], message["container"], message["safeguard_results"]) == (1, {"id": "c"}, [1])


def test_a_stream_that_only_ends_is_an_empty_message() -> None:
    """llama.cpp sends no message_start where nothing visible was generated; its prompt is then not told."""
    accumulator = fold(
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    )
    assert accumulator.stopped
    message = accumulator.message()
    assert (message["role"], message["content"], message["stop_reason"]) == ("assistant", [], "max_tokens")
    assert accumulator.usage == Usage(output_tokens=2, estimated=True)
    assert fold({"type": "message_stop"}).message()["content"] == []


def test_an_error_event_is_remembered() -> None:
    """An error in mid-stream keeps its type: it decides what to do next."""
    accumulator = fold(START, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    assert accumulator.error == StreamError("overloaded_error", "Overloaded")


def test_a_dead_stream_is_counted_from_what_came() -> None:
    """Before the last count, output is estimated from the text received, and a prompt told as zero from the request."""
    accumulator = fold(START, *text_block("y" * 81))
    assert accumulator.usage_so_far(BODY) == Usage(estimate_prompt_tokens(BODY), 21, estimated=True)
    assert MessageAccumulator().usage_so_far(BODY) is None


def test_images_are_not_counted_as_text() -> None:
    """A megabyte of base64 is one image, not a quarter of a million tokens."""
    image: Any = {"type": "image", "source": {"type": "base64", "data": "A" * 1_000_000}}
    assert estimate_prompt_tokens({"messages": [{"role": "user", "content": [image]}]}) < 3000


def test_text_is_the_text_blocks_only() -> None:
    """Thinking and tools are not part of the answer's text."""
    content: Any = [
        {"type": "text", "text": "a"},
        {"type": "thinking", "thinking": "t"},
        {"type": "text", "text": "b"},
        3,
    ]
    assert message_text({"content": content}) == "ab"
    assert message_text({"content": "plain"}) == "plain"
    assert message_text(json.loads("{}")) == ""
