"""A concrete model passes through: the bytes of both ends are the same, and the call is priced and recorded."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.gateway.conftest import HEADERS, HTTP, KEY, Serve
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import Usage
from tierwise.testing import Fault, StandInReply, StandInUpstream

# Odd spacing, escapes, number spellings, unknown fields, a system turn, safeguards: nothing of it is ours to touch.
ODD = (
    b'{ "max_tokens":1024,\n"model":"claude-opus-5-5" , "stream":%s,"safeguards":[{"type":"x","n":1.0e2}],\n'
    b'"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330.abc;"},'
    b'{"type":"text","text":"You are\\u0020odd \\/ \xc3\xa9","cache_control":{"type":"ephemeral","ttl":"1h"}}],'
    b'"messages":[{"role":"user","content":"Fix the failing test"},{"role":"system","content":"be brief"},'
    b'{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"c2ln"},'
    b'{"type":"tool_use","id":"toolu_01","name":"Bash","input":{"command":"ls"}}]},'
    b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","content":"ok"}]}],'
    b'"tools":[{"name":"Bash","input_schema":{"type":"object"}}],"x-future":{"a":[1,2.50]},'
    b'"context_management":{"edits":[]},"output_config":{"effort":"high"},"thinking":{"type":"adaptive"}}'
)


def body(**fields: Any) -> str:
    return json.dumps(
        {
            "model": "claude-haiku-5-5",
            "max_tokens": 64,
            "messages": [{"role": "user", "content": "Summarise this ticket in one line: it burns"}],
            **fields,
        }
    )


@pytest.mark.parametrize("streamed", [b"true", b"false"])
def test_bytes_are_the_same_at_both_ends(serve: Serve, upstream: StandInUpstream, streamed: bytes) -> None:
    """Body, query and headers go up as they came; the answer comes down as it was sent, unknown events too."""
    upstream.strict = False
    gateway = serve(upstream)
    sent = ODD % streamed
    answer = gateway.post(
        sent, "/v1/messages?beta=true", anthropic_beta="a-2026-01-01,b-2026-02-02", x_claude_code_session_id="s1"
    )
    direct = HTTP.post(f"{upstream.url}/v1/messages?beta=true", content=sent, headers=HEADERS)
    through, _ = upstream.requests
    assert through.body == sent
    assert through.query == "beta=true"
    assert through.headers["anthropic-beta"] == "a-2026-01-01,b-2026-02-02"
    assert through.headers["x-api-key"] == KEY
    assert through.headers["x-claude-code-session-id"] == "s1"
    assert not [name for name in through.headers if name.startswith("x-tierwise")]
    assert answer.status_code == 200
    assert _without_ids(answer.content) == _without_ids(direct.content)
    assert answer.headers["content-type"] == direct.headers["content-type"]


def _without_ids(content: bytes) -> bytes:
    """What differs from call to call in the stand-in: ids that it counts up."""
    import re

    return re.sub(rb"(msg|req)_[A-Za-z0-9_]+", b"id", content)


def test_what_it_cost_is_recorded_to_the_nanodollar(serve: Serve, upstream: StandInUpstream) -> None:
    """Fresh input, both kinds of cache writes, reads and output at Opus 5.5's prices of the day."""
    upstream.reply(
        "done",
        usage={
            "input_tokens": 1_000,
            "output_tokens": 200,
            "cache_read_input_tokens": 40_000,
            "cache_creation_input_tokens": 3_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 2_000},
        },
    )
    gateway = serve(upstream)
    answer = gateway.post(body(model="claude-opus-5-5"))
    # 1,000 × 4 + 200 × 20 + 40,000 × 0.20 + 1,000 × 5 + 2,000 × 8 (US$ per million)
    expected = Decimal("0.037")
    assert Decimal(answer.headers["x-tierwise-cost-usd"]) == expected
    found = gateway.call()
    assert found.attempts[0].cost_nanousd == 37_000_000
    assert (found.call.status, found.call.model, found.call.tier) == (CallStatus.ANSWERED, "claude-opus-5-5", "opus")
    receipt = HTTP.get(f"{gateway.url}/tierwise/calls/{answer.headers['x-tierwise-call-id']}").json()
    assert Decimal(receipt["cost_usd"]) == expected
    assert receipt["attempts"][0]["cache_write_1h_tokens"] == 2_000


def test_the_last_cumulative_usage_of_a_stream_counts(serve: Serve, upstream: StandInUpstream) -> None:
    """message_start may say zeros: what message_delta says in the end is what is billed."""
    reply = StandInReply.of_text("a streamed answer", usage={"input_tokens": 500, "output_tokens": 100})
    upstream.reply(
        StandInReply(content=reply.content, usage=reply.usage, start_usage={"input_tokens": 0, "output_tokens": 0})
    )
    gateway = serve(upstream)
    answer = gateway.post(body(stream=True))
    assert b"message_stop" in answer.content
    attempt = gateway.call().attempts[0]
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens, attempt.usage.estimated) == (500, 100, False)
    assert attempt.cost_nanousd == 500 * 100 + 100 * 500


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", ["claude-haiku-5-5", "claude-tierwise-auto"])
def test_an_answer_that_nobody_counted(serve: Serve, upstream: StandInUpstream, model: str, *, streamed: bool) -> None:
    """Tokens are estimated from the texts where a server tells none, and marked so: it is never free for that."""
    untold = {"input_tokens": None, "output_tokens": None, "cache_read_input_tokens": None}
    answer = StandInReply.of_text("word " * 40, usage={**untold, "cache_creation_input_tokens": None})
    upstream.reply(replace(answer, start_usage=answer.usage))
    gateway = serve(upstream)
    gateway.post(body(model=model, stream=streamed))
    found = gateway.call()
    assert found.attempts[0].usage == Usage(input_tokens=12, output_tokens=50, estimated=True)
    assert found.attempts[0].cost_nanousd == 12 * 100 + 50 * 500
    assert found.call.baseline_nanousd == 12 * 2_000 + 50 * 10_000


def test_what_it_is_is_recorded_too(serve: Serve, upstream: StandInUpstream) -> None:
    """A call that is not routed has its task type all the same, and no text of it is anywhere in the ledger."""
    gateway = serve(upstream)
    gateway.post(body(messages=[{"role": "user", "content": "Translate zanzibarine to French"}]))
    assert gateway.call().call.task_type == "translation"
    gateway.stop()
    everything = b"".join(path.read_bytes() for path in gateway.ledger_path.parent.glob("ledger.db*"))
    assert b"zanzibarine" not in everything


def test_a_model_that_nobody_knows_passes_too(serve: Serve, upstream: StandInUpstream) -> None:
    """Unpriced, and said to be: never a silent zero."""
    upstream.strict = False
    gateway = serve(upstream)
    answer = gateway.post(body(model="claude-unheard-of-9"))
    assert answer.status_code == 200
    found = gateway.call()
    assert (found.call.model, found.call.tier, found.attempts[0].cost_nanousd) == ("claude-unheard-of-9", "other", None)
    assert "x-tierwise-cost-usd" not in answer.headers


@pytest.mark.parametrize(
    ("fault", "status", "outcome"),
    [
        (Fault.status(400), 400, OutcomeKind.INVALID_REQUEST),
        (Fault.status(401), 401, OutcomeKind.UNAUTHORIZED),
        (Fault.status(413), 413, OutcomeKind.TOO_LARGE),
        (Fault.rate_limited(retry_after=7), 429, OutcomeKind.RATE_LIMITED),
        (Fault.status(500), 500, OutcomeKind.SERVER_ERROR),
        (Fault.status(529), 529, OutcomeKind.OVERLOADED),
    ],
)
def test_an_upstreams_error_is_passed_on(
    serve: Serve, upstream: StandInUpstream, fault: Fault, status: int, outcome: OutcomeKind
) -> None:
    """With its status, its body and its retry-after; the client decides whether to try again."""
    upstream.fail(fault)
    gateway = serve(upstream)
    answer = gateway.post(body(stream=True))
    assert answer.status_code == status
    assert answer.json()["type"] == "error"
    if status == 429:
        assert answer.headers["retry-after"] == "7"
    assert len(upstream.requests) == 1
    found = gateway.call()
    assert (found.call.status, found.attempts[0].outcome) == (CallStatus.FAILED, outcome)
    assert found.attempts[0].cost_nanousd == 0


def test_nobody_upstream_is_said(serve: Serve) -> None:
    """502 in the client's dialect, and a failure in the ledger."""
    with StandInUpstream() as upstream:
        gateway = serve(upstream)
    answer = gateway.post(body())
    assert answer.status_code == 502
    assert "no connection" in answer.json()["error"]["message"]
    assert gateway.call().attempts[0].outcome is OutcomeKind.CONNECTION


@pytest.mark.parametrize(
    "fault", [Fault.cut(after_events=4), Fault.reset(after_events=4), Fault.error_event(after_events=4)]
)
def test_a_stream_that_breaks_ends_well_formed_and_as_a_failure(
    serve: Serve, upstream: StandInUpstream, fault: Fault
) -> None:
    """The client gets what came and then an error event; the ledger has a failure with what was used."""
    upstream.fail(fault)
    gateway = serve(upstream)
    answer = gateway.post(body(stream=True))
    assert answer.status_code == 200
    last = answer.content.rstrip().rsplit(b"\n\n", 1)[-1]
    assert last.startswith(b"event: error\ndata: {")
    assert json.loads(last.split(b"data: ", 1)[1])["type"] == "error"
    found = gateway.call()
    assert found.call.status is CallStatus.FAILED
    assert found.attempts[0].outcome in (OutcomeKind.CONNECTION, OutcomeKind.OVERLOADED)
    assert found.attempts[0].usage.estimated
    assert (found.attempts[0].cost_nanousd or 0) > 0


@pytest.mark.parametrize("events", [0, 4])
def test_an_upstreams_error_is_recorded_before_the_client_sees_it(
    serve: Serve, upstream: StandInUpstream, events: int
) -> None:
    """A client that hangs up because of it cannot make a cancelled call of a failed one."""
    upstream.fail(Fault.error_event(after_events=events))
    gateway = serve(upstream)
    with HTTP.stream("POST", f"{gateway.url}/v1/messages", content=body(stream=True), headers=HEADERS) as answer:
        seen = b""
        for piece in answer.iter_raw():
            seen += piece
            if b"event: error" in seen:
                break
        else:
            pytest.fail("no error came")
        found = gateway.call()
    assert b"stand-in fault" in seen
    assert (found.call.status, found.attempts[0].outcome) == (CallStatus.FAILED, OutcomeKind.OVERLOADED)


def test_a_model_may_be_named_as_in_the_configuration(serve: Serve, upstream: StandInUpstream) -> None:
    """With its provider before it; upstream it has its own name."""
    gateway = serve(upstream)
    assert gateway.post(body(model="anthropic:claude-haiku-5-5")).status_code == 200
    (request,) = upstream.requests
    assert request.body == body().encode()
    assert gateway.call().call.tier == "haiku"


def test_a_client_that_hangs_up_ends_the_call_upstream(serve: Serve, upstream: StandInUpstream) -> None:
    """The upstream notices, and what had been used is recorded as a cancelled attempt."""
    upstream.fail(Fault.stall(after_events=4))
    gateway = serve(upstream)
    content = body(stream=True).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert upstream.requests[0].wait_finished()
    assert upstream.requests[0].closed_early
    ends = time.monotonic() + 60
    while (found := gateway.call()).call.status is not CallStatus.CANCELLED:
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert found.attempts[0].outcome is OutcomeKind.CANCELLED
    assert (found.attempts[0].cost_nanousd or 0) > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"[1]", "JSON object"),
        (b"{", "not JSON"),
        (b'{"messages":[]}', "model"),
        (b'{"model":3}', "model"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    serve: Serve, upstream: StandInUpstream, content: bytes, words: str
) -> None:
    """400 in the client's dialect, with what is wrong; nothing goes upstream."""
    gateway = serve(upstream)
    answer = gateway.post(content)
    assert answer.status_code == 400
    error = answer.json()
    assert error["type"] == "error"
    assert words in error["error"]["message"]
    assert not upstream.requests


def test_a_body_that_is_too_large_is_refused(serve: Serve, upstream: StandInUpstream) -> None:
    """413, before it is all read."""
    gateway = serve(upstream, max_body_bytes=10_000)
    answer = gateway.post(body(messages=[{"role": "user", "content": "x" * 20_000}]))
    assert answer.status_code == 413
    assert "max_body_bytes" in answer.json()["error"]["message"]


def test_a_client_that_never_sends_its_body_is_let_go(serve: Serve, upstream: StandInUpstream) -> None:
    """408 after gateway.body_timeout_seconds."""
    gateway = serve(upstream, body_timeout_seconds=0.3)
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert client.recv(4096).startswith(b"HTTP/1.1 408")


def test_too_many_at_once_are_told_to_come_again(serve: Serve, upstream: StandInUpstream) -> None:
    """503 with retry-after, in the client's dialect."""
    gateway = serve(upstream, max_connections=0)
    answer = gateway.post(body())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["type"] == "overloaded_error"


def test_what_is_not_there_is_a_404_in_the_dialect(serve: Serve, upstream: StandInUpstream) -> None:
    """With the path, so that a wrong base URL is seen."""
    gateway = serve(upstream)
    assert gateway.post(body(), "/v2/messages").json()["error"]["type"] == "not_found_error"
    assert HTTP.get(f"{gateway.url}/tierwise/calls/none").status_code == 404


def test_it_answers_for_itself(serve: Serve, upstream: StandInUpstream) -> None:
    """Health, readiness, Claude Code's question whether somebody is there, and metrics of what was spent."""
    gateway = serve(upstream)
    gateway.post(body())
    assert HTTP.head(gateway.url + "/").status_code == 200
    assert HTTP.head(gateway.url + "/api/hello").status_code == 200
    assert HTTP.get(gateway.url + "/healthz").json()["status"] == "ok"
    assert HTTP.get(gateway.url + "/readyz").json()["ready"] is True
    text = HTTP.get(gateway.url + "/metrics").text
    assert (
        'tierwise_calls_total{model="claude-haiku-5-5",status="answered",task_type="summarization",tier="haiku"} 1.0'
        in text
    )
    cost = next(line for line in text.splitlines() if line.startswith("tierwise_cost_usd_total{"))
    assert Decimal(cost.split()[-1]) == Decimal(gateway.call().attempts[0].cost_nanousd or 0) / 10**9


def test_tokens_are_counted_by_the_upstream(serve: Serve, upstream: StandInUpstream) -> None:
    """Passed on; a routed name is counted as the baseline model counts."""
    gateway = serve(upstream)
    same = gateway.post(body(), "/v1/messages/count_tokens")
    routed = gateway.post(body(model="claude-tierwise-auto"), "/v1/messages/count_tokens")
    assert same.json() == routed.json()
    first, second = upstream.requests
    assert first.body == body().encode()
    assert isinstance(second.json, dict)
    assert second.json["model"] == "claude-sonnet-5-5"
    assert not gateway.calls()


def test_a_client_that_hangs_up_ends_a_call_through_a_provider_too(serve: Serve) -> None:
    """A model of another dialect: its server notices, and the call is recorded as cancelled."""
    with StandInUpstream(models=["small"]) as upstream:
        upstream.fail(Fault.stall())
        gateway = serve(
            upstream,
            f"""
            [providers.other]
            kind = "openai"
            base_url = "{upstream.url}/v1"
            [models."other:small"]
            context_tokens = 8192
            max_output_tokens = 2048
            [tiers.extra]
            models = ["other:small"]
            """,
        )
        content = body(model="other:small").encode()
        host, port = gateway.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            head = (
                f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(content)}\r\n\r\n"
            )
            client.sendall(head.encode() + content)
            ends = time.monotonic() + 60
            while not upstream.requests and time.monotonic() < ends:
                time.sleep(0.01)
        (request,) = upstream.requests
        assert request.path == "/v1/chat/completions"
        assert request.wait_finished()
        assert request.closed_early
        gateway.stop()
    found = gateway.call()
    assert (found.call.status, found.attempts[0].outcome) == (CallStatus.CANCELLED, OutcomeKind.CANCELLED)


def test_a_model_is_the_upstreams_or_a_routed_name(serve: Serve, upstream: StandInUpstream) -> None:
    """One of them; a name that is none never becomes a part of an upstream's path."""
    gateway = serve(upstream)
    for name in ("claude-tierwise-auto", "claude-haiku-5-5"):
        assert HTTP.get(f"{gateway.url}/v1/models/{name}", headers=HEADERS).json()["id"] == name
    for name in ("claude-unheard-of-9", "..%2Fmessages", "%2E%2E", "a/b", "a%3Fb"):
        assert HTTP.get(f"{gateway.url}/v1/models/{name}", headers=HEADERS).status_code == 404
    assert [request.path for request in upstream.requests] == [
        "/v1/models/claude-haiku-5-5",
        "/v1/models/claude-unheard-of-9",
    ]


@pytest.mark.parametrize(
    ("token", "header"), [("sk-ant-api03-x", "x-api-key"), ("sk-ant-oat01-x", "authorization"), ("x", "authorization")]
)
def test_a_key_as_a_bearer_token_goes_on_where_anthropic_expects_it(
    serve: Serve, upstream: StandInUpstream, token: str, header: str
) -> None:
    """As OpenAI's clients send it; tokens of OAuth, and what nobody knows, stay what they are."""
    gateway = serve(upstream)
    headers = {"authorization": f"Bearer {token}"}
    HTTP.post(f"{gateway.url}/v1/chat/completions", content=body(), headers=headers)
    (request,) = upstream.requests
    sent = {name: request.headers[name] for name in ("x-api-key", "authorization") if name in request.headers}
    assert sent == {header: token if header == "x-api-key" else f"Bearer {token}"}


def test_models_are_the_upstreams_and_the_routed_names(serve: Serve, upstream: StandInUpstream) -> None:
    """In Anthropic's shape, the routed names first; they begin with claude, which is all that Claude Code keeps."""
    gateway = serve(upstream)
    page = HTTP.get(f"{gateway.url}/v1/models?limit=1000", headers=HEADERS).json()
    ids = [model["id"] for model in page["data"]]
    assert ids[0] == "claude-tierwise-auto"
    assert "claude-haiku-5-5" in ids
    assert page["first_id"] == ids[0]
