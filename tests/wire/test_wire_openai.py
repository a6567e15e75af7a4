"""Between the dialects: what is asked arrives, ids survive, usage keeps its meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.core.money import Usage
from tierwise.testing import StandInReply
from tierwise.testing.replies import openai_chunks, openai_completion
from tierwise.wire.anthropic import ProtocolError, usage_from_message
from tierwise.wire.openai import ChatAccumulator, Untranslatable, chat_request, error_of, message_from_completion

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
BODY: Any = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}


def ask(*messages: Any, **fields: Any) -> Any:
    return {"model": "m", "max_tokens": 5, "messages": list(messages) or [{"role": "user", "content": "Hi"}], **fields}


def test_a_plain_request_is_translated() -> None:
    """System, text, limits, sampling and stop sequences; usage is asked for in a stream."""
    body = ask(
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "Again", "cache_control": {"type": "ephemeral"}}]},
        system=[{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}],
        temperature=0.5,
        stop_sequences=["END"],
        stream=True,
    )
    assert chat_request(body) == {
        "model": "m",
        "max_tokens": 5,
        "messages": [
            {"role": "system", "content": "One.\n\nTwo."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Again"},
        ],
        "temperature": 0.5,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert chat_request(ask(), max_tokens_key="max_completion_tokens")["max_completion_tokens"] == 5


def test_tools_calls_and_results_keep_their_ids() -> None:
    """A tool call and its result find each other again on the other side."""
    body = ask(
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "gone", "is_error": True},
                {"type": "text", "text": "And now?"},
            ],
        },
        tools=[{"name": "weather", "description": "d", "input_schema": SCHEMA}],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    )
    chat = chat_request(body)
    assert chat["messages"] == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Köln"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: gone"},
        {"role": "user", "content": "And now?"},
    ]
    assert chat["tools"] == [
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}
    ]
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert chat["parallel_tool_calls"] is False


@pytest.mark.parametrize(("choice", "said"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_tool_choices_have_their_counterparts(choice: str, said: str) -> None:
    """auto, any and none are auto, required and none."""
    assert chat_request(ask(tool_choice={"type": choice}))["tool_choice"] == said


def test_images_travel_as_urls() -> None:
    """Base64 becomes a data URL, a URL stays one; images of a tool result follow it."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}}
    chat: Any = chat_request(
        ask({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [picture]}, linked]})
    )
    assert chat["messages"][0] == {"role": "tool", "tool_call_id": "t", "content": ""}
    urls = [part["image_url"]["url"] for part in chat["messages"][1]["content"]]
    assert urls == ["data:image/png;base64,AAAA", "https://example.com/x.png"]


def test_a_schema_becomes_a_response_format() -> None:
    """Strict only where the schema leaves nothing open, since OpenAI refuses it otherwise."""
    chat: Any = chat_request(ask(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}))
    assert chat["response_format"]["json_schema"] == {"name": "answer", "schema": SCHEMA, "strict": True}
    loose = {**SCHEMA, "required": []}
    chat = chat_request(ask(output_config={"format": {"type": "json_schema", "schema": loose}}))
    assert chat["response_format"]["json_schema"] == {"name": "answer", "schema": loose}


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max"])
def test_an_effort_is_said_in_the_same_word(effort: str) -> None:
    """All of Anthropic's words are OpenAI's too, as its own SDK has them."""
    shared = pytest.importorskip("openai.types.shared", reason="the OpenAI SDK is not installed")
    chat = chat_request(ask(output_config={"effort": effort}))
    assert chat["reasoning_effort"] == effort
    assert effort in str(shared.ReasoningEffort)


@pytest.mark.parametrize(
    "body",
    [
        ask({"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "x"}}]}),
        ask({"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}]}),
        ask(tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        ask({"role": "user", "content": [7]}),
        ask("text"),
        ask({"role": "user", "content": None}),
    ],
)
def test_what_cannot_be_said_is_an_error(body: Any) -> None:
    """Nothing that carries meaning is dropped silently."""
    with pytest.raises(Untranslatable, match=r"."):
        chat_request(body)


tools = st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=6), max_size=3)


@given(text=st.text(max_size=80), arguments=st.lists(tools, max_size=3), cached=st.integers(0, 50))
def test_streamed_and_whole_replies_agree(text: str, arguments: list[Any], cached: int) -> None:
    """Any reply, whole or in chunks, becomes the same message with the same usage."""
    content: list[Any] = [{"type": "text", "text": text}]
    content += [{"type": "tool_use", "id": "x", "name": f"n{i}", "input": a} for i, a in enumerate(arguments)]
    reply = StandInReply(
        content=tuple(content),
        stop_reason="tool_use" if arguments else "end_turn",
        usage={"input_tokens": 9, "cache_read_input_tokens": cached, "output_tokens": 3},
    )
    body = {**BODY, "stream_options": {"include_usage": True}}
    accumulator = ChatAccumulator()
    for chunk in openai_chunks(reply, body, 1):
        accumulator.feed(chunk)
    assert accumulator.complete
    whole = message_from_completion(openai_completion(reply, body, 1))
    assert accumulator.message() == whole
    assert usage_from_message(whole) == Usage(9, 3, cached)
    assert whole["stop_reason"] == reply.stop_reason
    blocks: Any = whole["content"]
    assert [b["input"] for b in blocks if b["type"] == "tool_use"] == arguments
    assert "".join(b["text"] for b in blocks if b["type"] == "text") == text


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}},
            Usage(40, 7, 60),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}},
            Usage(5, 9, thinking_tokens=4),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 20}},
            Usage(0, 1, 20, estimated=True),
        ),
        (
            {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 30}},
            Usage(60, 0, 10, 30),
        ),
        ({"prompt_tokens": "x", "completion_tokens": -1}, Usage(estimated=True)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": None}, Usage(3, 1)),
    ],
)
def test_cached_tokens_are_counted_once(usage: Any, expected: Usage) -> None:
    """prompt_tokens include cached ones here; in Anthropic's meaning they stand beside the input."""
    completion = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    assert usage_from_message(message_from_completion(completion)) == expected


@pytest.mark.parametrize(
    ("finish", "message", "stop_reason"),
    [
        ("stop", {"content": "x"}, "end_turn"),
        ("length", {"content": "x"}, "max_tokens"),
        ("content_filter", {"content": ""}, "refusal"),
        ("stop", {"content": None, "refusal": "No."}, "refusal"),
        ("tool_calls", {"tool_calls": [{"id": "c", "function": {"name": "n", "arguments": "{}"}}]}, "tool_use"),
        ("stop", {"tool_calls": [{"id": "c", "function": {"name": "n", "arguments": "{}"}}]}, "tool_use"),
        ("something_new", {"content": "x"}, "something_new"),
    ],
)
def test_finish_reasons_are_mapped(finish: str, message: Any, stop_reason: str) -> None:
    """Each end has its word in the other dialect; new words pass through."""
    got = message_from_completion({"choices": [{"message": message, "finish_reason": finish}]})
    assert got["stop_reason"] == stop_reason


def test_broken_tool_arguments_stay_text() -> None:
    """Arguments that are no JSON are kept as they came, so that a check can see them."""
    call = {"id": "c", "function": {"name": "n", "arguments": '{"a": '}}
    got: Any = message_from_completion({"choices": [{"message": {"tool_calls": [call]}}]})
    assert got["content"][0]["input"] == '{"a": '


def test_reasoning_becomes_an_unsigned_thinking_block() -> None:
    """Reasoning text of local models is kept apart from the answer."""
    got: Any = message_from_completion({"choices": [{"message": {"reasoning_content": "hm", "content": "4"}}]})
    assert [block["type"] for block in got["content"]] == ["thinking", "text"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"error": {"code": 429, "message": "slow"}}, "rate_limit_error"),
        ({"error": {"type": "overloaded_error"}}, "overloaded_error"),
        ({"error": "broken"}, "api_error"),
        ({"choices": [{"error": {"code": 502, "message": "x"}}]}, "api_error"),
        ({"choices": []}, None),
        ([], None),
    ],
)
def test_errors_with_status_200_are_seen(reply: Any, kind: str | None) -> None:
    """Some servers put the error into the body or the stream."""
    error = error_of(reply)
    assert (error.type if error else None) == kind


@pytest.mark.parametrize("reply", [[], {}, {"choices": []}, {"choices": [{"message": "x"}]}, None])
def test_what_is_no_completion_is_said(reply: Any) -> None:
    """Another protocol is a ProtocolError, not a crash."""
    with pytest.raises(ProtocolError, match="completion"):
        message_from_completion(reply)


chunks = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "tool_calls", "function", "arguments", "index", "usage"]),
            inner,
        )
    ),
    max_leaves=10,
)


@given(values=st.lists(chunks | st.builds(lambda d: {"choices": [{"delta": d}]}, chunks), max_size=5))
def test_no_chunks_can_crash_the_fold(values: list[Any]) -> None:
    """Any JSON at all is folded or refused as a ProtocolError."""
    accumulator = ChatAccumulator()
    try:
        for value in values:
            accumulator.feed(value)
        accumulator.message()
    except ProtocolError as error:
        assert str(error)
    accumulator.usage_so_far(BODY)
    json.dumps(values)
