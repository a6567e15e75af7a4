"""The OpenAI dialect from end to end: the real SDK before a gateway that really runs, and what its clients look for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from tests.gateway.conftest import HEADERS, HTTP, KEY, Serve, Served
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.testing import Fault, StandInReply, StandInUpstream
from tierwise.wire.sse import SseParser

openai = pytest.importorskip("openai", reason="the OpenAI SDK is not installed: pip install -r requirements/dev.txt")

AUTO = "claude-tierwise-auto"
HAIKU = "claude-haiku-5-5"
USAGE = {"input_tokens": 20, "output_tokens": 7, "cache_read_input_tokens": 100}
ASK: Any = [{"role": "user", "content": "Summarise this ticket in one line: it burns"}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def gateway(serve: Serve, upstream: StandInUpstream) -> Served:
    return serve(upstream, "[limits]\nbackoff_base_seconds = 0.01")


@pytest.fixture
def client(gateway: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=60) as made:
        yield made


def raw(gateway: Served, **fields: Any) -> httpx2.Response:
    content = json.dumps({"model": HAIKU, "messages": ASK, **fields})
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    return HTTP.post(f"{gateway.url}/v1/chat/completions", content=content, headers=headers, timeout=60)


@pytest.mark.parametrize("model", [HAIKU, AUTO])
def test_an_answer_in_one_piece(gateway: Served, client: Any, upstream: StandInUpstream, model: str) -> None:
    """Its text, its end and its usage, cached tokens told apart; recorded and priced as any call."""
    upstream.reply("a printer", usage=USAGE)
    said = client.chat.completions.create(model=model, messages=ASK, max_completion_tokens=50)
    assert (said.choices[0].message.content, said.choices[0].finish_reason) == ("a printer", "stop")
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (120, 7, 127)
    assert said.usage.prompt_tokens_details.cached_tokens == 100
    assert said.model == model
    call = gateway.call()
    assert call.call.call_id == said.id
    assert call.call.status is CallStatus.ANSWERED
    assert call.attempts[0].cost_nanousd == 20 * 100 + 100 * 10 + 7 * 500
    (request,) = upstream.requests
    assert (request.path, request.headers["x-api-key"]) == ("/v1/messages", KEY)
    assert "authorization" not in request.headers
    assert not [name for name in request.headers if name.startswith("openai-")]


@pytest.mark.parametrize("model", [HAIKU, AUTO])
def test_a_stream(gateway: Served, client: Any, upstream: StandInUpstream, model: str) -> None:
    """Pieces as they come, usage in the last chunk where it is asked for, and [DONE]."""
    upstream.reply("a printer that burns, and more of it", usage=USAGE)
    stream = client.chat.completions.create(
        model=model, messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "a printer that burns, and more of it"
    assert len(chunks) > 3
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == 120
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert gateway.call().call.status is CallStatus.ANSWERED
    unasked = raw(gateway, stream=True)
    assert unasked.headers["content-type"].startswith("text/event-stream")
    assert unasked.content.endswith(b"data: [DONE]\n\n")
    assert b'"usage"' not in unasked.content


def test_what_is_nested_as_deep_as_can_be_read_is_no_fault(gateway: Served) -> None:
    """A stream is answered as any, whatever stands in fields that nobody knows."""
    ask = json.dumps({"model": HAIKU, "messages": ASK, "stream": True})
    content = f'{ask[:-1]}, "unknown": {"[" * 1_020}{"]" * 1_020}}}'
    answer = HTTP.post(f"{gateway.url}/v1/chat/completions", content=content, headers={"x-api-key": KEY}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_a_round_trip_with_a_tool(client: Any, upstream: StandInUpstream, stream: bool) -> None:
    """The call comes with its arguments as JSON text, and its result goes back under the same id."""
    upstream.reply(StandInReply.of_tool("weather", {"city": "Köln"}))
    upstream.reply("rain")
    asked = [{"role": "user", "content": "What is the weather in Cologne?"}]
    if stream:
        calls: dict[str, str] = {"id": "", "name": "", "arguments": ""}
        for chunk in client.chat.completions.create(model=HAIKU, messages=asked, tools=[WEATHER], stream=True):
            for call in chunk.choices[0].delta.tool_calls or []:
                calls["id"] += call.id or ""
                calls["name"] += call.function.name or ""
                calls["arguments"] += call.function.arguments or ""
    else:
        said = client.chat.completions.create(model=HAIKU, messages=asked, tools=[WEATHER])
        assert said.choices[0].finish_reason == "tool_calls"
        (call,) = said.choices[0].message.tool_calls
        calls = {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
    assert calls["name"] == "weather"
    assert json.loads(calls["arguments"]) == {"city": "Köln"}
    function = {"name": calls["name"], "arguments": calls["arguments"]}
    history = [
        *asked,
        {"role": "assistant", "tool_calls": [{"id": calls["id"], "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": calls["id"], "content": "12 °C, rain"},
    ]
    said = client.chat.completions.create(model=HAIKU, messages=history, tools=[WEATHER])
    assert said.choices[0].message.content == "rain"
    sent = upstream.requests[1].json
    assert isinstance(sent, dict)
    assert sent["messages"][2]["content"][0]["tool_use_id"] == sent["messages"][1]["content"][0]["id"]  # type: ignore[index,call-overload] # JSON


def test_a_json_schema_is_held_to(gateway: Served, client: Any, upstream: StandInUpstream) -> None:
    """The SDK's own parsing works, and a routed model that misses the schema is left, unseen."""

    class Ticket(BaseModel):
        title: str
        urgent: bool

    upstream.reply("not JSON at all", times=2)
    upstream.reply_json({"title": "Printer burns", "urgent": True})
    said = client.chat.completions.parse(model=AUTO, messages=ASK, response_format=Ticket)
    assert said.choices[0].message.parsed == Ticket(title="Printer burns", urgent=True)
    outcomes = [attempt.outcome for attempt in gateway.call().attempts]
    assert outcomes == [OutcomeKind.REJECTED, OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]


@pytest.mark.parametrize("model", [HAIKU, AUTO, "claude-fable-5-1"])
def test_a_loose_schema_goes_up_closed(gateway: Served, upstream: StandInUpstream, model: str) -> None:
    """As Anthropic's API wants it, be the model routed, passed through or of no tier; in the same dialect it is the
    client's own affair."""
    loose = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 18}}}
    closed = {"age": {"type": "integer", "description": 'It must satisfy {"minimum": 18}'}}
    upstream.reply_json({"age": 20})
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": loose}}
    answer = raw(gateway, model=model, response_format=wanted)
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"age": 20}
    sent: Any = upstream.requests[0].json
    assert sent["output_config"]["format"]["schema"] == {**loose, "properties": closed, "additionalProperties": False}
    own = {"format": {"type": "json_schema", "schema": loose}}
    body = {"model": model, "max_tokens": 64, "messages": ASK, "output_config": own}
    gateway.post(json.dumps(body))
    sent = upstream.requests[1].json
    assert sent["output_config"] == own


def test_what_went_up_in_words_alone_is_checked_all_the_same(gateway: Served, upstream: StandInUpstream) -> None:
    """A bound that Anthropic's API does not take holds: the reply that breaks it is not the client's."""
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 18}}, "required": ["age"]}
    upstream.reply_json({"age": 3})
    upstream.reply_json({"age": 20})
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = raw(gateway, model=AUTO, response_format=wanted)
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"age": 20}
    outcomes = [attempt.outcome for attempt in gateway.call().attempts]
    assert outcomes == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]


def test_an_image_goes_up(client: Any, upstream: StandInUpstream) -> None:
    """Data as data, a URL as a URL: nobody here fetches it."""
    parts = [
        {"type": "text", "text": "What is on it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}},
    ]
    client.chat.completions.create(model=HAIKU, messages=[{"role": "user", "content": parts}])
    sent = upstream.requests[0].json
    assert isinstance(sent, dict)
    sources = [block["source"] for block in sent["messages"][0]["content"][1:]]  # type: ignore[index,call-overload,union-attr] # JSON
    assert sources[0] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert sources[1] == {"type": "url", "url": "http://169.254.169.254/latest"}


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault.status(400, "max_tokens: no"), openai.BadRequestError, 400),
        (Fault.status(401), openai.AuthenticationError, 401),
        (Fault.status(404), openai.NotFoundError, 404),
        (Fault.rate_limited(retry_after=0), openai.RateLimitError, 429),
        (Fault.status(500), openai.InternalServerError, 500),
        (Fault.status(529), openai.InternalServerError, 529),
        (Fault.status(502, body=b"<html>nginx</html>"), openai.InternalServerError, 502),
        (Fault.reset(), openai.InternalServerError, 502),
    ],
)
def test_the_sdk_raises_what_it_would_raise(
    client: Any, upstream: StandInUpstream, fault: Fault, error: type[Exception], status: int
) -> None:
    """The same class for the same trouble, with a message; what to wait is in `retry-after`."""
    upstream.fail(fault, times=2)
    for stream in (True, False):
        with pytest.raises(error) as raised:
            client.chat.completions.create(model=HAIKU, messages=ASK, stream=stream)
        told: Any = raised.value
        assert told.status_code == status
        assert isinstance(told.body["message"], str)
        assert told.response.headers["x-tierwise-call-id"]
        if status == 429:
            assert (told.response.headers["retry-after"], told.code) == ("0", "rate_limit_exceeded")


@pytest.mark.parametrize(
    "fault", [Fault.cut(after_events=4), Fault.reset(after_events=4), Fault.error_event(after_events=4)]
)
def test_a_stream_that_breaks_raises(gateway: Served, client: Any, upstream: StandInUpstream, fault: Fault) -> None:
    """Exactly one error, in OpenAI's shape, and no [DONE] that would make it look whole."""
    upstream.fail(fault)
    stream = client.chat.completions.create(model=HAIKU, messages=ASK, stream=True)
    assert next(stream).choices
    with pytest.raises(openai.APIError):
        list(stream)
    assert gateway.call().call.status is CallStatus.FAILED
    upstream.fail(fault)
    content = raw(gateway, stream=True).content
    events = [event.data for event in SseParser().feed(content)]
    assert sum('"error"' in data for data in events) == 1
    assert set(json.loads(events[-1])["error"]) == {"message", "type", "param", "code"}
    assert b"[DONE]" not in content


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 2}, "n", None),
        ({"messages": []}, "messages", None),
        ({"logprobs": True}, "logprobs", None),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", None),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_costs(
    gateway: Served, upstream: StandInUpstream, fields: dict[str, Any], param: str, code: str | None
) -> None:
    """400 with the parameter that is meant, and nothing upstream."""
    answer = raw(gateway, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["code"]
    assert not upstream.requests


def test_a_model_that_nobody_has_is_not_found(client: Any, upstream: StandInUpstream) -> None:
    """The upstream's own word, with the code that clients look for."""
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-nonsense", messages=ASK)
    assert raised.value.code == "model_not_found"


def test_errors_of_ours_have_openais_types(serve: Serve, upstream: StandInUpstream) -> None:
    """Too large, too many at once, no such path: its names and not Anthropic's."""
    small = serve(upstream, max_body_bytes=200)
    assert raw(small, user="x" * 500).json()["error"]["code"] == "request_too_large"
    full = serve(upstream, max_connections=0)
    answer = raw(full)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["type"] == "service_unavailable_error"
    missing = HTTP.post(f"{small.url}/v1/chat/nonsense", content=b"{}", headers=HEADERS)
    assert (missing.status_code, "type" in missing.json()) == (404, False)


def test_a_bearer_token_of_anthropics_stays_one(gateway: Served, upstream: StandInUpstream) -> None:
    """An API key is sent as Messages takes it; an OAuth token as it came."""
    token = "sk-ant-oat01-abcdef"  # noqa: S105  of nobody
    content = json.dumps({"model": HAIKU, "messages": ASK})
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    HTTP.post(f"{gateway.url}/v1/chat/completions", content=content, headers=headers, timeout=60)
    assert upstream.requests[0].headers["authorization"] == f"Bearer {token}"
    assert "x-api-key" not in upstream.requests[0].headers


def test_models_can_be_listed(client: Any) -> None:
    """The SDK finds the routed name and the upstream's models."""
    ids = [model.id for model in client.models.list()]
    assert AUTO in ids
    assert HAIKU in ids
