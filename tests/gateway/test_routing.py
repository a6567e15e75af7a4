"""A routed name goes where the task belongs, climbs where the reply is not good enough, and says what it did."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Serve, Served
from tierwise.config import load_settings
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.testing import Fault, StandInReply, StandInUpstream
from tierwise.wire.anthropic import MessageAccumulator
from tierwise.wire.sse import SseParser

AUTO = "claude-tierwise-auto"
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}},
    "required": ["title"],
    "additionalProperties": False,
}
TOOL = {
    "name": "lookup",
    "input_schema": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
}


def body(text: str = "Summarise this ticket in one line: the printer burns", **fields: Any) -> str:
    value = {"model": AUTO, "max_tokens": 1024, "messages": [{"role": "user", "content": text}], **fields}
    return json.dumps(value)


def models(upstream: StandInUpstream) -> list[str]:
    return [str(request.json["model"]) for request in upstream.requests if isinstance(request.json, dict)]


def said(content: bytes) -> str:
    """The text of an answer, streamed or not."""
    if not content.startswith(b"event:"):
        return str(json.loads(content)["content"][0]["text"])
    message = MessageAccumulator()
    for event in SseParser().feed(content):
        message.feed(json.loads(event.data))
    return message.text


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("Summarise this ticket in one line: the printer burns", "claude-haiku-5-5"),
        ("Write a short story about a lighthouse keeper who collects storms", "claude-sonnet-5-5"),
        ("Is this indemnity clause enforceable under German law? We sign tomorrow.", "claude-opus-5-5"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_work_goes_to_its_tier(serve: Serve, upstream: StandInUpstream, text: str, model: str, stream: bool) -> None:
    """Processing to Haiku, judgment to Sonnet, critical work to Opus; the answer says so in its headers."""
    gateway = serve(upstream)
    answer = gateway.post(body(text, stream=stream))
    assert answer.status_code == 200
    assert models(upstream) == [model]
    assert answer.headers["x-tierwise-model"] == model
    found = gateway.call()
    assert answer.headers["x-tierwise-task-type"] == found.call.task_type
    assert (found.call.status, found.call.model) == (CallStatus.ANSWERED, model)
    assert found.call.baseline_nanousd is not None
    assert found.call.reasons


def test_a_header_says_what_the_task_is(serve: Serve, upstream: StandInUpstream) -> None:
    """`x-tierwise-task` is routed in place of the last thing said, in any language; an empty one is refused."""
    gateway = serve(upstream)
    vague = body("Go on, as before.")
    assert gateway.post(vague, x_tierwise_task="summarise%20a%20ticket%20in%20one%20line").status_code == 200
    assert gateway.post(vague, x_tierwise_task="%C3%BCbersetze%20ein%20Wort%20ins%20Englische").status_code == 200
    assert models(upstream)[0] == "claude-haiku-5-5"
    assert [found.call.task_type for found in gateway.calls()] == ["summarization", "translation"]
    refused = gateway.post(vague, x_tierwise_task="%20")
    assert (refused.status_code, "x-tierwise-task" in refused.text) == (400, True)


def test_only_what_the_model_would_refuse_changes(serve: Serve, upstream: StandInUpstream) -> None:
    """The model's name and a parameter that it does not take; every other byte goes as it came."""
    gateway = serve(upstream)
    sent = (
        b'{"model":"claude-tierwise-auto", "temperature":0.2, "max_tokens" : 64,\n"metadata":{"user_id":"\\u0075"},'
        b'"messages":[{"role":"user","content":"Translate \\u00e9t\\u00e9 to English"}]}'
    )
    gateway.post(sent)
    (request,) = upstream.requests
    assert request.body == sent.replace(b"claude-tierwise-auto", b"claude-haiku-5-5").replace(
        b' "temperature":0.2,', b""
    )


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_that_misses_its_schema_climbs(serve: Serve, upstream: StandInUpstream, stream: bool) -> None:
    """Not a byte of the first reply reaches the client; both attempts are paid for and recorded."""
    upstream.reply("no JSON at all", times=2)
    upstream.reply_json({"title": "Printer on fire"})
    gateway = serve(upstream)
    answer = gateway.post(
        body(
            "Give this chat a title", stream=stream, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}
        )
    )
    assert answer.status_code == 200
    assert b"no JSON" not in answer.content
    assert json.loads(said(answer.content)) == {"title": "Printer on fire"}
    found = gateway.call()
    assert [a.outcome for a in found.attempts] == [OutcomeKind.REJECTED, OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]
    assert [a.model for a in found.attempts] == ["claude-haiku-5-5", "claude-haiku-5-5", "claude-sonnet-5-5"]
    assert all((a.cost_nanousd or 0) > 0 for a in found.attempts)


@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_call_with_wrong_arguments_climbs(serve: Serve, upstream: StandInUpstream, stream: bool) -> None:
    """The client's own schema decides; it never sees the call that does not fit."""
    upstream.reply(StandInReply.of_tool("lookup", {"id": "seven"}), times=2)
    upstream.reply(StandInReply.of_tool("lookup", {"id": 7}))
    gateway = serve(upstream)
    answer = gateway.post(body("Extract the order number and look it up: order 7", tools=[TOOL], stream=stream))
    assert b"seven" not in answer.content
    assert gateway.call().attempts[-1].outcome is OutcomeKind.ACCEPTED
    assert gateway.call().attempts[0].outcome is OutcomeKind.REJECTED


def test_a_stream_that_is_cut_before_anything_was_sent_is_tried_again_unseen(
    serve: Serve, upstream: StandInUpstream
) -> None:
    """The client sees one whole stream."""
    upstream.fail(Fault.cut(after_events=1))
    upstream.reply("all is well")
    gateway = serve(upstream, "[limits]\nbackoff_base_seconds = 0.01")
    answer = gateway.post(body(stream=True))
    assert answer.content.count(b"event: message_start") == 1
    assert b"message_stop" in answer.content
    assert [a.outcome for a in gateway.call().attempts] == [OutcomeKind.CONNECTION, OutcomeKind.ACCEPTED]


def test_an_overloaded_tier_is_left_upwards(serve: Serve, upstream: StandInUpstream) -> None:
    """529 again and again: the next tier, and never a cheaper one."""
    upstream.fail(Fault.status(529), times=2)
    gateway = serve(upstream, "[limits]\ntransient_retries = 1\nbackoff_base_seconds = 0.01")
    answer = gateway.post(body())
    assert answer.status_code == 200
    assert models(upstream) == ["claude-haiku-5-5", "claude-haiku-5-5", "claude-sonnet-5-5"]


def test_when_nothing_works_the_upstreams_own_error_comes_back(serve: Serve, upstream: StandInUpstream) -> None:
    """With its status and retry-after, so that the client can do what it always does."""
    upstream.fail(Fault.rate_limited(retry_after=9), times=None)
    gateway = serve(upstream, "[limits]\ntransient_retries = 0")
    answer = gateway.post(body())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "9")
    assert gateway.call().call.status is CallStatus.FAILED


def test_a_reply_cut_at_the_clients_own_limit_is_what_it_asked_for(serve: Serve, upstream: StandInUpstream) -> None:
    """max_tokens is the client's: no climb, no retry."""
    upstream.reply(StandInReply.of_text("a long answer that goes on and on").halved())
    gateway = serve(upstream)
    answer = gateway.post(body(max_tokens=4))
    assert answer.json()["stop_reason"] == "max_tokens"
    assert len(upstream.requests) == 1


def test_headers_bound_the_tiers(serve: Serve, upstream: StandInUpstream) -> None:
    """Floor, ceiling, project, tags and no-route, for one request."""
    gateway = serve(upstream)
    gateway.post(body(), x_tierwise_min_tier="opus", x_tierwise_project="alpha", x_tierwise_tags="team=a,run=7")
    gateway.post(body("Prove that there are infinitely many primes"), x_tierwise_max_tier="haiku")
    gateway.post(body(), x_tierwise_no_route="1")
    assert models(upstream) == ["claude-opus-5-5", "claude-haiku-5-5", "claude-sonnet-5-5"]
    first = gateway.calls()[0].call
    assert first.project == "alpha"
    assert {"team": "a", "run": "7"}.items() <= dict(first.tags).items()


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x_tierwise_min_tier", "hiku"),
        ("x_tierwise_deadline", "soon"),
        ("x_tierwise_tags", "no equals sign"),
        ("x_tierwise_project", "a\tb"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused(
    serve: Serve, upstream: StandInUpstream, header: str, value: str
) -> None:
    """400 with the header's name or the names that exist; nothing is sent on a misunderstanding."""
    answer = serve(upstream).post(body(), **{header: value})
    assert answer.status_code == 400
    assert not upstream.requests


def test_a_conversation_that_a_server_would_hold_is_asked_for_whole(serve: Serve, upstream: StandInUpstream) -> None:
    """A routed name refuses `thread` as the API does where it cannot hold one; a concrete model passes it on."""
    gateway = serve(upstream)
    answer = gateway.post(body(thread={"type": "create"}))
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["error_code"] == "thread_unsupported_request"
    assert not upstream.requests
    gateway.post(body(thread={"type": "create"}, model="claude-haiku-5-5"))
    (request,) = upstream.requests
    assert b'"thread": {"type": "create"}' in request.body


def test_observing_routes_nothing_and_tells_what_it_would_have_done(serve: Serve, upstream: StandInUpstream) -> None:
    """Concrete models stay, the routed name goes to the baseline, and the reasons say where it would have gone."""
    from tierwise.core.settings import GatewayMode

    gateway = serve(upstream, mode=GatewayMode.OBSERVE)
    gateway.post(body(model="claude-opus-5-5"))
    gateway.post(body())
    assert models(upstream) == ["claude-opus-5-5", "claude-sonnet-5-5"]
    for found in gateway.calls():
        (said,) = [reason.text for reason in found.call.reasons if reason.step == "observed"]
        assert "claude-haiku-5-5" in said


@pytest.mark.parametrize(
    ("tokens", "second"),
    [
        (60_000, "claude-haiku-5-5"),  # to write it anew on Haiku costs little more than to read it once on Sonnet
        (150_000, "claude-sonnet-5-5"),  # over Haiku's band of 100,000 all of it is five times as dear
    ],
)
def test_a_conversation_moves_only_where_that_pays(
    serve: Serve, upstream: StandInUpstream, tokens: int, second: str
) -> None:
    """A cheaper second question moves it where that is cheaper with the warm cache that is thrown away."""
    usage = {"input_tokens": 10, "cache_creation_input_tokens": tokens, "output_tokens": 500}
    upstream.reply("a story", usage=usage, times=None)
    gateway = serve(upstream)
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Write a short story about a lighthouse keeper"}]
    headers = {"x_claude_code_session_id": "conversation-1"}
    gateway.post(body(messages=turns, tools=[TOOL], stream=True), **headers)
    turns += [{"role": "assistant", "content": "a story"}, {"role": "user", "content": "Translate the title to German"}]
    gateway.post(body(messages=turns, tools=[TOOL], stream=True), **headers)
    assert models(upstream) == ["claude-sonnet-5-5", second]
    steps = [reason.step for reason in gateway.calls()[1].call.reasons]
    assert ("conversation" in steps) is (second == "claude-sonnet-5-5")


def test_a_conversation_goes_up_where_quality_demands_it(serve: Serve, upstream: StandInUpstream) -> None:
    """Legal work in a conversation that began with a summary goes to the top tier."""
    gateway = serve(upstream)
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Summarise this contract in one line: we lend a boat"}]
    headers = {"x_claude_code_session_id": "conversation-2"}
    gateway.post(body(messages=turns, tools=[TOOL], stream=True), **headers)
    turns += [
        {"role": "assistant", "content": "A boat is lent."},
        {"role": "user", "content": "Is the liability clause enforceable under German law? We sign tomorrow."},
    ]
    gateway.post(body(messages=turns, tools=[TOOL], stream=True), **headers)
    assert models(upstream) == ["claude-haiku-5-5", "claude-opus-5-5"]


def test_in_the_middle_of_a_turn_nothing_moves(serve: Serve, upstream: StandInUpstream) -> None:
    """Tool results go to the model that asked for them."""
    gateway = serve(upstream)
    headers = {"x_claude_code_session_id": "conversation-3"}
    first = {"role": "user", "content": "Write a short story about order 7; look it up first"}
    gateway.post(body(messages=[first], tools=[TOOL], stream=True), **headers)
    turns = [
        first,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "lookup", "input": {"id": 7}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Translate this: été"}]},
    ]
    gateway.post(body(messages=turns, tools=[TOOL], stream=True), **headers)
    assert len(set(models(upstream))) == 1


TWO = '[tiers.haiku]\nmodels = ["claude-haiku-5-5", "claude-haiku-4-5"]\n[limits]\ncircuit_failures = 1'


def _two_turns(serve: Serve, upstream: StandInUpstream, *, second_is_there: bool) -> Served:
    """A conversation that begins on its tier's second model, since the first is not there, and goes on when it is."""
    gateway = serve(upstream, TWO)
    circuits = gateway.gateway.router.circuits
    circuits.note("claude-haiku-5-5", OutcomeKind.SERVER_ERROR, time.monotonic())
    headers = {"x_claude_code_session_id": "conversation-4"}
    first = {"role": "user", "content": "Summarise order 7 in one line; look it up first"}
    gateway.post(body(messages=[first], tools=[TOOL], stream=True), **headers)
    circuits.note("claude-haiku-5-5", OutcomeKind.ACCEPTED, time.monotonic())
    if not second_is_there:
        circuits.note("claude-haiku-4-5", OutcomeKind.SERVER_ERROR, time.monotonic())
    turns = [
        first,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "lookup", "input": {"id": 7}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "it burns, it burns"}]},
    ]
    gateway.post(body(messages=turns, tools=[TOOL], stream=True, max_tokens=999), **headers)
    return gateway


def test_a_conversation_stays_on_its_model_and_not_only_on_its_tier(serve: Serve, upstream: StandInUpstream) -> None:
    """Where its tier has a better one, too, it stays where its cache and its thinking are; it may climb as ever."""
    gateway = _two_turns(serve, upstream, second_is_there=True)
    assert models(upstream) == ["claude-haiku-4-5", "claude-haiku-4-5"]
    assert "stays on claude-haiku-4-5" in str(gateway.calls()[1].call.reasons)


def test_a_conversation_whose_model_is_not_there_goes_on_with_another(serve: Serve, upstream: StandInUpstream) -> None:
    """Of its tier, and the reasons do not say that it stayed."""
    gateway = _two_turns(serve, upstream, second_is_there=False)
    assert models(upstream) == ["claude-haiku-4-5", "claude-haiku-5-5"]
    (why,) = [reason.text for reason in gateway.calls()[1].call.reasons if reason.step == "conversation"]
    assert why.startswith("away from claude-haiku-4-5, which cannot go on")


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "after a restart"])
def test_no_model_that_cannot_go_on_is_asked_in_the_middle_of_a_turn(
    serve: Serve, upstream: StandInUpstream, *, is_known: bool
) -> None:
    """Where only a model is left in its tier that would need its own thinking before a tool's call, a turn goes up."""
    gateway = serve(upstream, TWO)
    headers = {"x_claude_code_session_id": "conversation-5"}
    first = {"role": "user", "content": "Summarise order 7 in one line; look it up first"}
    if is_known:
        gateway.post(body(messages=[first], tools=[TOOL], stream=True), **headers)
    circuits = gateway.gateway.router.circuits
    circuits.note("claude-haiku-5-5", OutcomeKind.SERVER_ERROR, time.monotonic())
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    call = {"type": "tool_use", "id": "t1", "name": "lookup", "input": {"id": 7}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "it burns"}]}
    plain = [first, {"role": "assistant", "content": [call]}, result]
    thinking = [first, {"role": "assistant", "content": [thought, call]}, result]
    gateway.post(body(messages=thinking, tools=[TOOL], stream=True), **headers)
    assert models(upstream)[-1] == "claude-sonnet-5-5"
    assert "its own thinking" in str(gateway.calls()[-1].call.reasons)
    gateway.post(body(messages=plain, tools=[TOOL], stream=True), x_claude_code_session_id="conversation-6")
    assert models(upstream)[-1] == "claude-haiku-4-5"


def test_thinking_that_the_model_cannot_read_is_left_out_once(serve: Serve, upstream: StandInUpstream) -> None:
    """A 400 about a signature is answered by one more try without the thinking blocks."""
    upstream.fail(Fault.status(400, "messages.1.content.0: Invalid `signature` in `thinking` block"))
    upstream.reply("fine")
    gateway = serve(upstream)
    turns = [
        {"role": "user", "content": "Summarise the ticket: it burns"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "text", "text": "It burns."},
            ],
        },
        {"role": "user", "content": "Shorter, please: summarise it in three words"},
    ]
    answer = gateway.post(body(messages=turns))
    assert answer.status_code == 200
    last = upstream.requests[-1].json
    assert isinstance(last, dict)
    assert "signature" not in json.dumps(last)


@pytest.mark.embedded
@pytest.mark.parametrize("allowed", [False, True])
def test_the_embedded_model_answers_only_where_it_is_let(
    serve: Serve, upstream: StandInUpstream, tmp_path: Path, allowed: bool
) -> None:
    """It is demonstration grade: real work of a client never lands there unasked."""
    path = tmp_path / "embedded.toml"
    path.write_text(f"[gateway]\nembedded = {str(allowed).lower()}\n", encoding="utf-8")
    env = {"HOME": str(tmp_path), "ANTHROPIC_BASE_URL": upstream.url, "TIERWISE_LEDGER": str(tmp_path / "ledger.db")}
    gateway = serve(upstream, settings=load_settings(path=path, env=env, cwd=tmp_path))
    answer = gateway.post(body("Translate to French: the bread"))
    assert answer.status_code == 200
    assert answer.headers["x-tierwise-tier"] == ("local" if allowed else "haiku")
    assert len(upstream.requests) == (0 if allowed else 1)
