"""The stand-in upstream itself: what it answers, refuses, records and breaks, seen with a bare HTTP client."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tierwise.testing import Fault, RecordedRequest, StandInReply, StandInUpstream

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "properties": {"name": {"type": "string"}}}
BOUNDED = {**OPEN, "properties": {"age": {"type": "integer", "minimum": 1}}, "additionalProperties": False}
NESTED = {"type": "array", "items": {"anyOf": [{"type": "null"}, OPEN]}}


@pytest.fixture
def upstream() -> Iterator[StandInUpstream]:
    with StandInUpstream() as standing_in:
        yield standing_in


def call(
    upstream: StandInUpstream, path: str = "/v1/messages", body: Any = None, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", int(upstream.url.rpartition(":")[2]), timeout=60)
    try:
        data = json.dumps(body).encode() if body is not None else None
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, {"anthropic-version": "2023-06-01", **named})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def ask(model: str = "claude-haiku-5-5", **fields: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2048, "messages": [{"role": "user", "content": "Hello there"}], **fields}


def events_of(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: {")]


def test_the_default_reply_says_that_it_is_a_stand_in(upstream: StandInUpstream) -> None:
    """Nobody can take a default reply for a model's."""
    status, headers, body = call(upstream, body=ask())
    message = json.loads(body)
    assert status == 200
    assert "stand-in" in message["content"][0]["text"]
    assert message["usage"]["input_tokens"] == 3
    assert headers["request-id"] == "req_standin_000001"
    assert headers["anthropic-ratelimit-requests-limit"] == "4000"
    assert call(upstream, body=ask())[2].replace(b"000002", b"000001") == body


def test_default_replies_satisfy_the_schema_and_the_forced_tool(upstream: StandInUpstream) -> None:
    """Where a request asks for a shape, the default has it."""
    body = ask(output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    text = json.loads(call(upstream, body=body)[2])["content"][0]["text"]
    assert json.loads(text) == {"name": "stand-in", "age": 0, "kind": "a"}
    tools = [{"name": "save", "input_schema": SCHEMA}]
    message = json.loads(call(upstream, body=ask(tools=tools, tool_choice={"type": "any"}))[2])
    assert message["stop_reason"] == "tool_use"
    assert message["content"][0]["input"] == {"name": "stand-in", "age": 0, "kind": "a"}


def test_a_stream_has_the_events_of_the_api_in_order(upstream: StandInUpstream) -> None:
    """message_start with early counts, ping, blocks, cumulative usage, message_stop."""
    upstream.reply("Hello to you too", usage={"output_tokens": 9})
    status, headers, body = call(upstream, body=ask(stream=True))
    events = events_of(body)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0]["message"]["usage"]["output_tokens"] == 1
    assert events[-2]["usage"]["output_tokens"] == 9


def test_further_fields_come_with_the_stop_reason(upstream: StandInUpstream) -> None:
    """In a stream they are in message_delta, and in no event before."""
    verdict: Any = [{"type": "dangerous_tool_use"}]
    reply = StandInReply(content=({"type": "text", "text": "Hi"},), ending={"safeguard_results": verdict})
    upstream.reply(reply, times=2)
    _, _, whole = call(upstream, body=ask())
    assert json.loads(whole)["safeguard_results"] == verdict
    _, _, streamed = call(upstream, body=ask(stream=True))
    events = events_of(streamed)
    assert events[-2]["delta"]["safeguard_results"] == verdict
    assert "safeguard_results" not in events[0]["message"]


def test_the_script_is_followed_in_order_then_forgotten(upstream: StandInUpstream) -> None:
    """Replies and faults queue up together; `times=None` stays; `clear` forgets."""
    upstream.fail(Fault.status(529))
    upstream.reply("one")
    upstream.reply_json({"two": 2})
    upstream.reply_tool("three", {"n": 3})
    upstream.fail(Fault.status(500), times=None)
    seen = [call(upstream, body=ask()) for _ in range(6)]
    assert [status for status, _, _ in seen] == [529, 200, 200, 200, 500, 500]
    assert b'"one"' in seen[1][2]
    assert json.loads(json.loads(seen[2][2])["content"][0]["text"]) == {"two": 2}
    assert json.loads(seen[3][2])["content"][0]["name"] == "three"
    upstream.clear()
    assert call(upstream, body=ask())[0] == 200
    assert len(upstream.requests) == 1


def test_a_handler_decides_by_request(upstream: StandInUpstream) -> None:
    """A callable sees each request and may leave it to the default."""

    def handler(request: RecordedRequest) -> StandInReply | Fault | None:
        assert isinstance(request.json, dict)
        match request.json["max_tokens"]:
            case 1:
                return StandInReply.of_text("by hand")
            case 2:
                return Fault.status(503)
            case _:
                return None

    upstream.handler = handler
    assert b"by hand" in call(upstream, body=ask(max_tokens=1))[2]
    assert call(upstream, body=ask(max_tokens=2))[0] == 503
    assert b"stand-in" in call(upstream, body=ask(max_tokens=3))[2]


NEW = ["claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-2", "claude-opus-5"]
ENABLED = {"type": "enabled", "budget_tokens": 1024}
FORCED = {"tools": [{"name": "t", "input_schema": {}}], "tool_choice": {"type": "tool", "name": "t"}}
PREFILL = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]}


@pytest.mark.parametrize(
    ("models", "fields"),
    [
        (NEW, {"temperature": 0.2}),
        (NEW, {"top_p": 0.9}),
        (NEW, {"top_k": 5}),
        (NEW, PREFILL),
        (NEW, {"thinking": ENABLED}),
        (["claude-opus-5-5", "claude-fable-5-2", "claude-sonnet-5-5"], {"thinking": {"type": "disabled"}}),
        (["claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-1"], FORCED),
        (["claude-haiku-4-5"], {"output_config": {"effort": "low"}}),
        (["claude-haiku-4-5"], {"thinking": {"type": "adaptive"}}),
        (["claude-haiku-4-5"], {"thinking": ENABLED, "temperature": 0.5}),
        (["claude-haiku-4-5"], {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
        (["claude-haiku-4-5"], {"max_tokens": 65_000}),
        (["claude-haiku-4-5"], {"messages": [{"role": "user", "content": "word " * 170_000}]}),
        *((NEW, {"output_config": {"format": {"type": "json_schema", "schema": s}}}) for s in (OPEN, BOUNDED, NESTED)),
        (NEW, {"messages": []}),
        (NEW, {"max_tokens": None}),
        (NEW, {"max_tokens": 0}),
    ],
)
def test_what_the_api_refuses_is_refused(upstream: StandInUpstream, models: list[str], fields: dict[str, Any]) -> None:
    """A parameter that a model does not take is a 400 in the API's shape."""
    for model in models:
        status, _, body = call(upstream, body=ask(model, **fields))
        error = json.loads(body)
        assert (status, error["type"], error["error"]["type"]) == (400, "error", "invalid_request_error"), model


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("claude-haiku-5-5", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}, "temperature": 1}),
        ("claude-haiku-5-5", FORCED),
        ("claude-sonnet-5-5", {"thinking": {"type": "between_tools"}}),
        ("claude-haiku-4-5", {"thinking": ENABLED}),
        ("claude-haiku-4-5", {"temperature": 0, **PREFILL}),
    ],
)
def test_what_the_api_takes_is_taken(upstream: StandInUpstream, model: str, fields: dict[str, Any]) -> None:
    """The table does not refuse too much."""
    assert call(upstream, body=ask(model, **fields))[0] == 200


def test_keys_models_and_paths_are_checked() -> None:
    """401 without the key, 404 for models and paths that are not there, 400 for what is no JSON."""
    with StandInUpstream(api_key="k", models=["mine"]) as upstream:
        assert call(upstream, body=ask())[0] == 401
        assert call(upstream, body=ask(), x_api_key="wrong")[0] == 401
        assert call(upstream, body=ask(), x_api_key="k")[0] == 200
        assert call(upstream, body=ask("mine"), authorization="Bearer k")[0] == 200
        assert call(upstream, body=ask("nope"), x_api_key="k")[0] == 404
        assert call(upstream, "/v2/messages", body=ask(), x_api_key="k")[0] == 404
        assert call(upstream, body=[1], x_api_key="k")[0] == 400
        assert call(upstream, "/api/tags", method="GET")[0] == 404


def test_tokens_are_counted_and_models_listed(upstream: StandInUpstream) -> None:
    """count_tokens agrees with the usage of the same request."""
    counted = json.loads(call(upstream, "/v1/messages/count_tokens", body=ask())[2])["input_tokens"]
    assert counted == json.loads(call(upstream, body=ask())[2])["usage"]["input_tokens"]
    listed = json.loads(call(upstream, "/v1/models", method="GET")[2])["data"]
    assert "claude-opus-5-5" in [entry["id"] for entry in listed]


def test_models_are_listed_in_pages(upstream: StandInUpstream) -> None:
    """Forwards and backwards from a model, `has_more` until the last; one alone by its id."""

    def page(query: str) -> Any:
        return json.loads(call(upstream, f"/v1/models?{query}", method="GET")[2])

    names = list(upstream.models)
    first = page("limit=2")
    assert [entry["id"] for entry in first["data"]] == names[:2]
    assert (first["has_more"], first["last_id"]) == (True, names[1])
    rest = page(f"limit=100&after_id={names[1]}")
    assert ([entry["id"] for entry in rest["data"]], rest["has_more"]) == (names[2:], False)
    assert [entry["id"] for entry in page(f"limit=1&before_id={names[2]}")["data"]] == [names[1]]
    assert json.loads(call(upstream, f"/v1/models/{names[0]}", method="GET")[2])["id"] == names[0]


def test_the_openai_dialect_counts_cached_tokens_inside_the_prompt(upstream: StandInUpstream) -> None:
    """The same reply in the other dialect, streamed and not, with its own meaning of usage."""
    upstream.reply("Hi", times=2, usage={"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 4})
    whole = json.loads(call(upstream, "/v1/chat/completions", body=ask())[2])
    assert whole["choices"][0]["message"]["content"] == "Hi"
    assert whole["usage"]["prompt_tokens"] == 100
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == 90
    body = ask(stream=True, stream_options={"include_usage": True})
    stream = call(upstream, "/v1/chat/completions", body=body)[2]
    assert stream.endswith(b"data: [DONE]\n\n")
    assert events_of(stream)[-1]["usage"] == whole["usage"]


def test_ollama_lists_its_models() -> None:
    """The three questions that tierwise asks an Ollama."""
    with StandInUpstream(ollama_models=["llama3.2:3b"], ollama_loaded=["llama3.2:3b"]) as upstream:
        assert json.loads(call(upstream, "/api/version", method="GET")[2]) == {"version": "0.14.2"}
        assert json.loads(call(upstream, "/api/tags", method="GET")[2])["models"][0]["name"] == "llama3.2:3b"
        assert json.loads(call(upstream, "/api/ps", method="GET")[2])["models"][0]["name"] == "llama3.2:3b"
        assert call(upstream, body=ask("llama3.2:3b"))[0] == 200


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.reset(), ConnectionResetError),
        (Fault.cut(), http.client.RemoteDisconnected),
        (Fault.lie_about_length(), http.client.IncompleteRead),
        (Fault.cut(after_events=1), http.client.IncompleteRead),
    ],
    ids=["reset", "cut", "lie", "half"],
)
def test_connections_die_as_they_really_do(upstream: StandInUpstream, fault: Fault, error: type[Exception]) -> None:
    """Faults are seen by a client at the socket, not described to it."""
    upstream.fail(fault)
    with pytest.raises(error):
        call(upstream, body=ask())


@pytest.mark.parametrize("after_events", [0, 1, 4])
def test_a_stream_breaks_after_as_many_events_as_asked(upstream: StandInUpstream, after_events: int) -> None:
    """A clean cut shows exactly the events that were to come before it."""
    upstream.fail(Fault.cut(after_events=after_events, clean=True))
    assert len(events_of(call(upstream, body=ask(stream=True))[2])) == after_events


def test_a_client_that_hangs_up_is_recorded(upstream: StandInUpstream) -> None:
    """`closed_early` proves a cancellation; an answered request does not have it."""
    upstream.fail(Fault.stall())
    body = json.dumps(ask()).encode()
    with socket.create_connection(("127.0.0.1", int(upstream.url.rpartition(":")[2]))) as raw:
        raw.sendall(
            b"POST /v1/messages HTTP/1.1\r\nanthropic-version: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        while not upstream.requests:
            pass
        assert not upstream.requests[0].wait_finished(0.05)
    assert upstream.requests[0].wait_finished()
    assert upstream.requests[0].closed_early
    call(upstream, body=ask())
    assert upstream.requests[1].wait_finished()
    assert not upstream.requests[1].closed_early


@pytest.mark.parametrize("after_events", [0, 2])
@pytest.mark.parametrize("stream", [True, False])
def test_a_silence_lasts_until_the_test_ends_it(upstream: StandInUpstream, stream: bool, after_events: int) -> None:
    """Before a reply or in the middle of it: nothing more comes before the event is set, and then all of it does."""
    expected = call(upstream, body=ask(stream=stream))[2]
    go = threading.Event()
    upstream.fail(Fault.stall(after_events=after_events, until=go))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, upstream, body=ask(stream=stream))
        while len(upstream.requests) < 2:
            time.sleep(0.005)
        assert not upstream.requests[1].wait_finished(0.05)
        go.set()
        status, _, body = answer.result()
    assert status == 200
    assert re.sub(rb"msg_\w+", b"", body) == re.sub(rb"msg_\w+", b"", expected)
    assert upstream.requests[1].wait_finished()
    assert not upstream.requests[1].closed_early


def test_stopping_ends_stalled_connections_and_the_thread() -> None:
    """Leaving the context hangs on nothing and leaves no thread behind."""
    before = set(threading.enumerate())
    with StandInUpstream() as upstream:
        upstream.fail(Fault.stall())
        raw = socket.create_connection(("127.0.0.1", int(upstream.url.rpartition(":")[2])))
        body = json.dumps(ask()).encode()
        raw.sendall(
            b"POST /v1/messages HTTP/1.1\r\nanthropic-version: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        while not upstream.requests:
            pass
    assert raw.recv(10) == b""
    raw.close()
    assert set(threading.enumerate()) <= before


def test_many_connections_at_once_are_served(upstream: StandInUpstream) -> None:
    """A hundred clients at a time, none refused."""
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(call(upstream, body=ask())[0])) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 100


def test_garbage_on_the_socket_does_not_disturb_others(upstream: StandInUpstream) -> None:
    """Someone who does not speak HTTP is dropped; the next request is served."""
    with socket.create_connection(("127.0.0.1", int(upstream.url.rpartition(":")[2]))) as raw:
        raw.sendall(b"\x16\x03\x01 not http\r\n\r\n\r\n")
        raw.settimeout(60)
        raw.recv(100)
    assert call(upstream, body=ask())[0] == 200


def test_batches_are_made_answered_and_refused_as_at_the_api(upstream: StandInUpstream) -> None:
    """A batch ends when it is looked at, its requests take the script one by one, and what is wrong is refused."""
    asked = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    upstream.reply("one")
    upstream.fail(Fault.status(500))
    upstream.batches.hold = True
    requests = [{"custom_id": name, "params": asked} for name in ("a", "b")]
    requests.append({"custom_id": "c", "params": {**asked, "model": "none"}})
    path = "/v1/messages/batches"
    status, _, made = call(upstream, path, {"requests": requests})
    name = json.loads(made)["id"]
    assert (status, json.loads(made)["request_counts"]["processing"]) == (200, 3)
    assert call(upstream, f"{path}/{name}/results", method="GET")[0] == 404
    assert call(upstream, f"{path}/{name}", method="DELETE")[0] == 400
    upstream.batches.hold = False
    told = json.loads(call(upstream, f"{path}/{name}", method="GET")[2])
    assert (told["processing_status"], told["results_url"]) == ("ended", f"{upstream.url}{path}/{name}/results")
    lines = call(upstream, f"{path}/{name}/results", method="GET")[2].decode().splitlines()
    results = {line["custom_id"]: line["result"] for line in map(json.loads, lines)}
    assert results["a"]["message"]["usage"]["service_tier"] == "batch"
    assert [results[one]["error"]["error"]["type"] for one in ("b", "c")] == ["api_error", "not_found_error"]
    assert call(upstream, f"{path}/{name}/cancel")[0] == 400
    for wrong in (
        [],
        [requests[0], requests[0]],
        [{**requests[0], "tierwise": {}}],
        [{**requests[0], "custom_id": "a b"}],
        [{"custom_id": "a"}],
    ):
        assert call(upstream, path, {"requests": wrong})[0] == 400
    assert call(upstream, f"{path}/{name}", method="DELETE")[0] == 200
    assert json.loads(call(upstream, path, method="GET")[2])["data"] == []
