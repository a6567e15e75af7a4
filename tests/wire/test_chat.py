"""The OpenAI dialect as clients speak it: what is asked arrives, what is answered comes back, losses are told."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tierwise.testing.replies import StandInReply, anthropic_events, anthropic_message
from tierwise.wire.anthropic import MessageAccumulator, ProtocolError
from tierwise.wire.chat import DEFAULT_MAX_TOKENS, ChatChunks, ChatError, completion, error_body, messages_request
from tierwise.wire.openai import ChatAccumulator, chat_request, message_from_completion
from tierwise.wire.sse import SseParser

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}
BODY: Any = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
ABOUT: Any = {"model": "m", "created": 1_795_000_000, "id": "chatcmpl-1"}


def ask(*messages: Any, **fields: Any) -> Any:
    return {"model": "m", "max_tokens": 5, "messages": list(messages) or [{"role": "user", "content": "Hi"}], **fields}


def asked(body: Any) -> Any:
    """The translation of a request that loses nothing."""
    request, notes = messages_request(body)
    assert notes == ()
    return request


def refused(body: Any) -> ChatError:
    with pytest.raises(ChatError) as refusal:
        messages_request(body)
    return refusal.value


def call(id: str, arguments: str, name: str = "weather") -> Any:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


# -- requests -------------------------------------------------------------------------------------------------


def test_a_plain_request_is_translated() -> None:
    """System and developer messages, turns, limit, sampling, stop sequences, user and stream find their places."""
    body = ask(
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "Again"}, {"type": "text", "text": "please"}]},
        temperature=0.5,
        top_p=0.9,
        stop="END",
        user="u-1",
        stream=True,
        stream_options={"include_usage": True},
        seed=None,
    )
    before = json.dumps(body)
    assert asked(body) == {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "Again"}, {"type": "text", "text": "please"}]},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u-1"},
        "stream": True,
    }
    assert json.dumps(body) == before
    assert asked(ask({"role": "system", "content": "One."}, {"role": "user", "content": "Hi"}))["system"] == "One."


def test_a_missing_limit_is_set_and_noted() -> None:
    """Messages demands `max_tokens`: the caller's default is used and said; the newer name wins."""
    request, notes = messages_request(BODY)
    assert request["max_tokens"] == DEFAULT_MAX_TOKENS
    assert notes == (f"max_tokens {DEFAULT_MAX_TOKENS} set: the request gives no limit, and Messages demands one",)
    assert messages_request(BODY, default_max_tokens=7)[0]["max_tokens"] == 7
    assert asked(ask(max_completion_tokens=9))["max_tokens"] == 9


def test_tool_calls_and_results_keep_their_ids() -> None:
    """Calls become `tool_use`; results in a row, and what the user says after them, are one turn."""
    body = ask(
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [call("call_1", '{"city": "Köln"}'), call("call_2", "")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": "And now?"},
        {"role": "user", "content": "Well?"},
    )
    assert asked(body)["messages"] == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Köln"}},
                {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "a"},
                {"type": "text", "text": "And now?"},
            ],
        },
        {"role": "user", "content": "Well?"},
    ]


@pytest.mark.parametrize("content", ["", None, "\n\n", []])
def test_a_call_beside_an_empty_text_is_a_call_alone(content: Any) -> None:
    """Messages refuses texts of nothing, and clients send them beside tool calls."""
    body = ask({"role": "assistant", "content": content, "tool_calls": [call("c", "{}")]})
    assert [block["type"] for block in asked(body)["messages"][0]["content"]] == ["tool_use"]


def test_odd_ids_still_find_each_other() -> None:
    """An id that Messages refuses is written so that it does not, alike on both sides, and two ids stay two."""
    request = asked(
        ask(
            {"role": "assistant", "tool_calls": [call("functions.run:0", "{}"), call("functions:run.0", "{}")]},
            {"role": "tool", "tool_call_id": "functions.run:0", "content": "a"},
            {"role": "tool", "tool_call_id": "functions:run.0", "content": "b"},
        )
    )
    calls, results = (turn["content"] for turn in request["messages"])
    ids = [block["id"] for block in calls]
    assert ids == [block["tool_use_id"] for block in results]
    assert len(set(ids)) == 2
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", each) for each in ids)


@pytest.mark.parametrize("arguments", ["{broken", "[1]", '{"a": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_are_told_as_text(arguments: str) -> None:
    """A history with a call that a model got wrong goes on, and the note says how."""
    request, notes = messages_request(ask({"role": "assistant", "tool_calls": [call("c", arguments)]}))
    messages: Any = request["messages"]
    assert messages[0]["content"][0]["input"] == {"arguments": arguments}
    assert notes == ("the arguments of messages[0].tool_calls[0] are no JSON object: sent as text",)


def test_images_and_files_become_blocks() -> None:
    """Data URLs are base64 sources, URLs stay URLs, PDF and text files are documents with their names."""
    text = base64.b64encode("Grüße".encode()).decode()
    pdf = base64.b64encode(b"%PDF-1.7 x").decode()
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAAA", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "HTTPS://example.com/x.png"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{pdf}", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": pdf}},
        {"type": "file", "file": {"file_data": f"data:text/csv;charset=utf-8;base64,{text}", "filename": "b.csv"}},
    ]
    blocks = asked(ask({"role": "user", "content": parts}))["messages"][0]["content"]
    pdf_source = {"type": "base64", "media_type": "application/pdf", "data": pdf}
    assert blocks == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "HTTPS://example.com/x.png"}},
        {"type": "document", "source": pdf_source, "title": "a.pdf"},
        {"type": "document", "source": pdf_source},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
            "title": "b.csv",
        },
    ]


def test_cache_control_is_passed_on() -> None:
    """What a client says about caching, in Anthropic's words, reaches the blocks, the tools and the request."""
    ephemeral = {"type": "ephemeral"}
    request = asked(
        ask(
            {"role": "system", "content": [{"type": "text", "text": "S", "cache_control": ephemeral}]},
            {"role": "user", "content": [{"type": "text", "text": "U", "cache_control": ephemeral}]},
            tools=[{**TOOL, "cache_control": ephemeral}],
            cache_control=ephemeral,
            thinking={"type": "adaptive"},
        )
    )
    assert request["system"] == [{"type": "text", "text": "S", "cache_control": ephemeral}]
    assert request["messages"][0]["content"] == [{"type": "text", "text": "U", "cache_control": ephemeral}]
    assert request["tools"][0]["cache_control"] == ephemeral
    assert request["cache_control"] == ephemeral
    assert request["thinking"] == {"type": "adaptive"}


def test_tools_are_translated() -> None:
    """Name, description, schema and strictness; a function without parameters takes none."""
    bare = {"type": "function", "function": {"name": "now", "strict": True}}
    assert asked(ask(tools=[TOOL, bare]))["tools"] == [
        {"name": "weather", "description": "d", "input_schema": SCHEMA},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}, "strict": True},
    ]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
    ],
)
def test_tool_choices_have_their_counterparts(choice: Any, said: Any) -> None:
    """Each choice has its own, and one call at a time is part of it where calls are possible."""
    assert asked(ask(tools=[TOOL], tool_choice=choice))["tool_choice"] == said
    alone = said if said["type"] == "none" else {**said, "disable_parallel_tool_use": True}
    assert asked(ask(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False))["tool_choice"] == alone


def test_one_call_at_a_time_needs_no_choice() -> None:
    """`parallel_tool_calls: false` alone leaves the choice to the model."""
    request = asked(ask(tools=[TOOL], parallel_tool_calls=False))
    assert request["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "tool_choice" not in asked(ask(tools=[TOOL], parallel_tool_calls=True))
    assert "tool_choice" not in asked(ask(tool_choice="auto", parallel_tool_calls=False))


def test_allowed_tools_are_the_only_ones() -> None:
    """A choice among some tools sends those, with its mode."""
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "required", "tools": [other]}
    request = asked(ask(tools=[TOOL, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed}))
    assert [tool["name"] for tool in request["tools"]] == ["other"]
    assert request["tool_choice"] == {"type": "any"}


def test_formats_have_their_counterparts() -> None:
    """A schema is `output_config.format`, its description kept; JSON alone is asked for in words; text is nothing."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "description": "d", "schema": SCHEMA, "strict": True}}
    request = asked(ask(response_format=wanted))
    assert request["output_config"] == {"format": {"type": "json_schema", "schema": {**SCHEMA, "description": "d"}}}
    assert "output_config" not in asked(ask(response_format={"type": "text"}))
    request, notes = messages_request(ask(response_format={"type": "json_object"}))
    assert "JSON object" in str(request["system"])
    assert notes == ("response_format json_object is asked for in words: Messages takes a schema or nothing",)


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max"])
def test_efforts_are_the_same_words(effort: str) -> None:
    """What both dialects call alike is passed on, beside a format too."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    request = asked(ask(reasoning_effort=effort, response_format=wanted))
    assert request["output_config"]["effort"] == effort
    assert request["output_config"]["format"]["schema"] == SCHEMA


def test_no_effort_is_no_thinking() -> None:
    """`none` turns thinking off, `minimal` becomes the least there is."""
    assert asked(ask(reasoning_effort="none"))["thinking"] == {"type": "disabled"}
    request, notes = messages_request(ask(reasoning_effort="minimal"))
    assert request["output_config"] == {"effort": "low"}
    assert notes == ("reasoning_effort minimal became low, the least there is",)


def test_a_user_who_is_a_person_is_hashed() -> None:
    """Messages refuses e-mail addresses and telephone numbers as `user_id`; the safety identifier goes first."""
    for user in ("ann@example.com", "+49 30 1234567"):
        request: Any
        request, notes = messages_request(ask(user=user))
        assert re.fullmatch(r"[0-9a-f]{64}", request["metadata"]["user_id"])
        assert notes == ("user sent as a hash: Messages refuses e-mail addresses and telephone numbers",)
    assert asked(ask(user="a", safety_identifier="b"))["metadata"] == {"user_id": "b"}


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"seed": 1}, "seed left out"),
        ({"frequency_penalty": 0.5}, "frequency_penalty left out"),
        ({"service_tier": "flex"}, "service_tier left out"),
        ({"made_up": 1}, "made_up left out: it is not known here"),
        ({"temperature": 1.5}, "temperature lowered from 1.5 to 1"),
        ({"stop": ["\n", "END"]}, "stop sequences of white space left out"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "ann"}]}, "names of messages left out"),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "the system message sent as the user's"),
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": ""}]},
            "messages[1] left out: it is empty",
        ),
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "developer", "content": "S"}]},
            "system messages within the conversation moved to its beginning",
        ),
        (
            {"messages": [{"role": "assistant", "content": "Hi", "reasoning_content": "hm"}]},
            "reasoning of earlier answers left out",
        ),
    ],
)
def test_what_is_lost_is_noted(fields: Any, note: str) -> None:
    """Whatever has no counterpart and does not change what is asked for is left out, once, in words."""
    _, notes = messages_request(ask(**fields))
    assert len(notes) == 1
    assert notes[0].startswith(note)


def test_values_that_ask_for_nothing_are_no_loss() -> None:
    """Defaults that many clients spell out are neither refused nor noted."""
    asked(
        ask(
            n=1,
            logprobs=False,
            modalities=["text"],
            frequency_penalty=0,
            presence_penalty=0.0,
            logit_bias={},
            service_tier="auto",
            store=False,
            audio=None,
            tools=None,
            tool_choice="none",
        )
    )


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"top_logprobs": 3}, "top_logprobs", "unsupported_parameter"),
        ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"messages": []}, "messages", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "invalid_value"),
        ({"messages": ["Hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"stop": 1}, "stop", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "unsupported_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "missing_required_parameter"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        ({"user": 1}, "user", "invalid_type"),
    ],
)
def test_what_cannot_be_is_refused(fields: Any, param: str, code: str) -> None:
    """A request that would get another answer than it asks for is a 400 that names the parameter."""
    refusal = refused({**ask(), **fields})
    assert refusal.status == 400
    body: Any = refusal.body
    assert body["error"] == {"message": str(refusal), "type": "invalid_request_error", "param": param, "code": code}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:application/zip;base64,AAAA"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}},
        {"type": "image_url", "image_url": {"url": "ftp://example.com/x.png"}},
        {"type": "image_url", "image_url": "x"},
        {"type": "text"},
        {"type": "hologram"},
    ],
)
def test_parts_that_cannot_be_read_are_refused(part: Any) -> None:
    """Sound, files that are elsewhere and what nobody knows are named with their place in the request."""
    assert str(refused(ask({"role": "user", "content": [part]}))).startswith("messages[0].content[0]")


# -- round trips ----------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda text: text.strip())
ids = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
arguments = st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=3)


@st.composite
def exchanges(draw: st.DrawFn) -> list[Any]:
    """What a user says, what is answered, and the results of what was called."""
    calls = [call(each, json.dumps(draw(arguments))) for each in draw(st.lists(ids, max_size=3, unique=True))]
    said = {"role": "assistant", "content": draw(texts) if draw(st.booleans()) or not calls else None}
    if calls:
        said["tool_calls"] = calls
    results = [{"role": "tool", "tool_call_id": each["id"], "content": draw(texts)} for each in calls]
    return [{"role": "user", "content": draw(texts)}, said, *results]


@calm
@given(st.lists(exchanges(), min_size=1, max_size=4), st.none() | texts)
def test_a_history_comes_back_as_it_went(history: list[list[Any]], system: str | None) -> None:
    """There and back, roles, ids, texts, arguments and their order are the same."""
    messages = [message for exchange in history for message in exchange]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})

    def parsed(message: Any) -> Any:
        calls = [
            {**each, "function": {**each["function"], "arguments": json.loads(each["function"]["arguments"])}}
            for each in message.get("tool_calls", [])
        ]
        return {**message, "tool_calls": calls}

    request, notes = messages_request(ask(*messages))
    assert notes == ()
    back: Any = chat_request(request)["messages"]
    assert [parsed(message) for message in back] == [parsed(message) for message in messages]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["messages", "tools", "tool_choice", "response_format", "stop", "user", "n", "max_tokens", "temperature", "stream"]
)
keys = st.sampled_from(["role", "content", "type", "text", "tool_calls", "function", "name", "id", "image_url", "file"])
nearly = st.recursive(
    json_values | st.sampled_from(["user", "assistant", "tool", "text", "function", "image_url", "file"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@calm
@given(st.dictionaries(names, nearly))
def test_no_request_breaks_the_translation(fields: dict[str, Any]) -> None:
    """Whatever JSON comes, it is translated or refused in words."""
    try:
        request, _ = messages_request({**BODY, **fields})
    except ChatError as refusal:
        assert str(refusal)
    else:
        assert isinstance(request["messages"], list)


# -- replies --------------------------------------------------------------------------------------------------

REPLY = StandInReply(
    content=(
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Let me see: Grüße \u2028 😀 and more, so that it comes in pieces."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ),
    stop_reason="tool_use",
    usage={
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20},
    },
)
USAGE = {
    "prompt_tokens": 140,
    "completion_tokens": 50,
    "total_tokens": 190,
    "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 30, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 20,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def chunks(events: Any, **options: Any) -> list[Any]:
    """The parsed chunks of a stream; `[DONE]` stays a string."""
    stream = ChatChunks(**ABOUT, **options)
    data = b"".join([*(stream.feed(event) for event in events), stream.end()])
    assert data.isascii()
    return [each.data if each.data == "[DONE]" else json.loads(each.data) for each in SseParser().feed(data)]


def test_a_message_is_a_completion() -> None:
    """Text, calls, the finish reason, and usage whose prompt includes what was cached."""
    assert completion(anthropic_message(REPLY, BODY, 1), **ABOUT) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": REPLY.text,
                    "refusal": None,
                    "annotations": [],
                    "tool_calls": [call("toolu_1", '{"city": "Köln"}'), call("toolu_2", "{}", "now")],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "system_fingerprint": None,
        "usage": USAGE,
    }


def test_usage_that_was_not_told_is_not_made_up() -> None:
    """A reply without usage has none in the other dialect either."""
    events: Any = list(anthropic_events(StandInReply.of_text("x"), BODY, 1))
    for event in events:
        event.pop("usage", None)
        if isinstance(event.get("message"), dict):
            event["message"].pop("usage")
    assert "usage" not in completion({"content": [], "stop_reason": "end_turn"}, **ABOUT)
    assert [each for each in chunks(events, include_usage=True) if each == "[DONE]" or each["usage"]] == ["[DONE]"]


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("not_known_yet", "stop"),
    ],
)
def test_stop_reasons_have_their_counterparts(stop_reason: str, finish: str) -> None:
    """Whole or streamed, every stop reason is a finish reason that clients know."""
    reply = StandInReply(content=({"type": "text", "text": "x"},), stop_reason=stop_reason)
    whole: Any = completion(anthropic_message(reply, BODY, 1), **ABOUT)
    assert whole["choices"][0]["finish_reason"] == finish
    *_, last, done = chunks(anthropic_events(reply, BODY, 1))
    assert (last["choices"][0]["finish_reason"], done) == (finish, "[DONE]")


def test_a_call_is_never_a_mere_stop() -> None:
    """A server that ends a turn after a tool call is read as having called; a cut one as cut."""
    called = StandInReply(content=({"type": "tool_use", "id": "t", "name": "n", "input": {}},), stop_reason="end_turn")
    whole: Any = completion(anthropic_message(called, BODY, 1), **ABOUT)
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks(anthropic_events(called, BODY, 1))[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_refusal_is_explained_where_the_api_does() -> None:
    """The explanation of a refusal is the `refusal` of the message, whole or streamed."""
    details = {"type": "refusal", "category": "cyber", "explanation": "No."}
    message = {"content": [], "stop_reason": "refusal", "stop_details": details}
    whole: Any = completion(message, **ABOUT)
    assert whole["choices"][0]["message"]["refusal"] == "No."
    delta = {"stop_reason": "refusal", "stop_details": details}
    streamed = chunks([{"type": "message_delta", "delta": delta}, {"type": "message_stop"}])
    assert streamed[0]["choices"][0]["delta"] == {"refusal": "No."}
    assert streamed[1]["choices"][0]["finish_reason"] == "content_filter"


def test_a_stream_reads_as_a_script() -> None:
    """Role first, then content and calls as they come, then the finish reason, the usage, and the end."""
    said = chunks(anthropic_events(REPLY, BODY, 1), include_usage=True)
    assert said[-1] == "[DONE]"
    assert said[-2]["choices"] == []
    assert said[-2]["usage"] == USAGE
    assert all(each["usage"] is None for each in said[:-2])
    assert {(each["id"], each["object"], each["created"], each["model"]) for each in said[:-1]} == {
        ("chatcmpl-1", "chat.completion.chunk", 1_795_000_000, "m")
    }
    deltas = [each["choices"][0]["delta"] for each in said[:-2]]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(delta.get("content", "") for delta in deltas) == REPLY.text
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert [each["index"] for each in calls] == sorted(each["index"] for each in calls)
    assert [each for each in calls if "id" in each] == [
        {**call("toolu_1", ""), "index": 0},
        {**call("toolu_2", "", "now"), "index": 1},
    ]
    written = {0: "", 1: ""}
    for each in calls:
        written[each["index"]] += each["function"]["arguments"]
    assert [json.loads(text) for text in written.values()] == [{"city": "Köln"}, {}]
    finishes = [each["choices"][0]["finish_reason"] for each in said[:-2]]
    assert finishes == [None] * (len(finishes) - 1) + ["tool_calls"]


def test_usage_comes_only_where_it_was_asked_for() -> None:
    """Without `include_usage` no chunk speaks of usage."""
    assert not any("usage" in each for each in chunks(anthropic_events(REPLY, BODY, 1))[:-1])


@pytest.mark.parametrize("begun_with", [{}, {"city": "Köln"}])
def test_a_call_whose_arguments_never_came_has_those_it_began_with(begun_with: Any) -> None:
    """Clients parse arguments, so they are an object even where the stream wrote none."""
    block = {"type": "tool_use", "id": "t", "name": "n", "input": begun_with}
    opened = {"type": "content_block_start", "index": 0, "content_block": block}
    for events in ([opened, {"type": "content_block_stop", "index": 0}], [opened]):
        *_, written, _finish, _done = chunks([*events, {"type": "message_stop"}])
        assert json.loads(written["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]) == begun_with


def test_what_clients_cannot_read_is_left_out() -> None:
    """Pings, thinking, server tools and unknown events give no chunk; what is no event is an error of the protocol."""
    server = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    stream = ChatChunks(**ABOUT)
    for event in (
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_start", "index": 1, "content_block": server},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": ""}},
        {"type": "not_known_yet"},
    ):
        assert stream.feed(event) == b""
    with pytest.raises(ProtocolError, match="JSON object"):
        stream.feed([])


def test_an_error_in_mid_stream_ends_it_as_one() -> None:
    """An `error` event is OpenAI's error, and neither a finish reason nor `[DONE]` follows it."""
    first = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    said, failed = chunks([first, error, {"type": "message_stop"}], include_usage=True)
    assert said["choices"][0]["delta"] == {"content": "Hel"}
    assert failed["error"] == {
        "message": "Overloaded",
        "type": "service_unavailable_error",
        "param": None,
        "code": "server_is_overloaded",
    }


def test_a_stream_that_was_cut_never_looks_whole() -> None:
    """Without `message_stop` there is no finish reason and no `[DONE]`, but an error that says so."""
    events = list(anthropic_events(REPLY, BODY, 1))
    for length in range(len(events)):
        *said, last = chunks(events[:length], include_usage=True)
        assert "cut before the answer was whole" in last["error"]["message"]
        assert all(each["choices"][0]["finish_reason"] is None for each in said)


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


STREAM = "".join(
    f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
    for event in anthropic_events(REPLY, BODY, 1)
).encode()


def translated(pieces: list[bytes]) -> bytes:
    parser, stream = SseParser(), ChatChunks(**ABOUT, include_usage=True)
    said = [stream.feed(json.loads(event.data)) for piece in pieces for event in parser.feed(piece)]
    return b"".join([*said, stream.end()])


@calm
@given(split(STREAM))
def test_every_split_of_a_stream_gives_the_same_chunks(pieces: list[bytes]) -> None:
    """How the network cuts the events changes nothing in what the client gets."""
    assert translated(pieces) == translated([STREAM])


@calm
@given(
    st.lists(
        st.builds(lambda text: {"type": "text", "text": text}, texts)
        | st.builds(lambda id, value: {"type": "tool_use", "id": id, "name": "n", "input": value}, ids, arguments),
        max_size=4,
    ),
    st.sampled_from(["end_turn", "max_tokens", "tool_use"]),
)
def test_whole_and_streamed_replies_say_the_same(content: list[Any], stop_reason: str) -> None:
    """Read back by our own reader of this dialect, a stream, a completion and the message agree."""
    reply = StandInReply(content=tuple(content), stop_reason=stop_reason)
    message = anthropic_message(reply, BODY, 1)
    whole = message_from_completion(completion(message, **ABOUT))
    streamed = ChatAccumulator()
    for each in chunks(anthropic_events(reply, BODY, 1), include_usage=True)[:-1]:
        streamed.feed(each)
    assert streamed.message() == whole
    calls = [block for block in content if block["type"] == "tool_use"]
    text = "".join(block["text"] for block in content if block["type"] == "text")
    kept: Any = whole["content"]
    assert [block for block in kept if block["type"] == "tool_use"] == calls
    assert "".join(block["text"] for block in kept if block["type"] == "text") == text
    accumulated = MessageAccumulator()
    for event in anthropic_events(reply, BODY, 1):
        accumulated.feed(event)
    assert completion(accumulated.message(), **ABOUT) == completion(message, **ABOUT)


# -- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "type", "kind", "code"),
    [
        (400, "invalid_request_error", "invalid_request_error", None),
        (401, "authentication_error", "invalid_request_error", "invalid_api_key"),
        (402, "billing_error", "insufficient_quota", "insufficient_quota"),
        (403, "permission_error", "invalid_request_error", "permission_denied"),
        (404, "not_found_error", "invalid_request_error", "model_not_found"),
        (409, "conflict_error", "invalid_request_error", "conflict"),
        (413, "request_too_large", "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error", "rate_limit_exceeded"),
        (500, "api_error", "server_error", None),
        (504, "timeout_error", "server_error", "timeout"),
        (529, "overloaded_error", "service_unavailable_error", "server_is_overloaded"),
    ],
)
def test_every_error_has_openais_shape(status: int, type: str, kind: str, code: str | None) -> None:
    """By Anthropic's type, or by the status alone where there is none, an error is what clients of OpenAI know."""
    expected = {"error": {"message": "m", "type": kind, "param": None, "code": code}}
    assert error_body(status, type, "m") == expected
    assert error_body(status, "", "m") == expected


def test_errors_of_our_own_keep_their_names() -> None:
    """A type that Anthropic has not is passed on; a code that is given wins; a prompt too long has its known code."""

    def told(*about: Any, **more: Any) -> Any:
        return error_body(*about, **more)["error"]

    assert told(429, "budget_exceeded", "m")["type"] == "budget_exceeded"
    assert told(429, "rate_limit_error", "m", code="budget")["code"] == "budget"
    assert told(418, "", "m")["type"] == "invalid_request_error"
    too_long = told(400, "invalid_request_error", "prompt is too long: 3 tokens > 2 maximum")
    assert too_long["code"] == "context_length_exceeded"
