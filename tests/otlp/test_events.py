"""Claude Code's events become calls, at what they cost, once, with no word of anybody's."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.otlp.conftest import Received
from tests.otlp.events import NOW_MS, SESSION, body, error, event, prompt, request
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import Usage
from tierwise.ledger.care import verify
from tierwise.ledger.reported import Source, claim_session, source_of
from tierwise.otlp.claude_code import COST_STEP
from tierwise.wire.otlp import Encoding


def test_a_request(received: Received) -> None:
    """Its tokens, its times, whose it was, and what it cost; it saved nothing, and nobody knows what it was about."""
    answer = received.take(request(), project="shop")
    assert (answer.status, json.loads(answer.body)) == (200, {})
    stored = received.call()
    call, (one,) = stored.call, stored.attempts
    assert (call.status, call.session, call.project, call.latency_ms) == (CallStatus.ANSWERED, SESSION, "shop", 2_000)
    assert (call.task_type, call.abstained, call.confidence) == ("unknown", True, 0.0)
    assert (call.tier, call.model, call.baseline_model) == ("opus", "claude-opus-5-5", "claude-opus-5-5")
    assert dict(call.tags) == {"source": "claude_telemetry", "kind": "main"}
    assert source_of(call) is Source.TELEMETRY
    assert call.started_at_ms == NOW_MS - 2_000
    assert (one.usage, one.ttft_ms, one.request_id) == (Usage(10_000, 500), 300, "req_0001")
    assert one.cost_nanousd == call.baseline_nanousd == 50_000_000
    assert call.reasons == ()


def test_every_kind_of_token(received: Received) -> None:
    """Cache writes cost by how long they are kept; a request of any of them costs what its tokens do."""
    told = {"cache_read_tokens": 3_000, "cache_creation_tokens": 700, "cost_usd_micros": None, "cost_usd": None}
    received.take(request(cache_creation_5m_tokens=200, cache_creation_1h_tokens=500, **told))
    (one,) = received.call().attempts
    assert one.usage == Usage(10_000, 500, 3_000, 200, 500)
    assert one.price is not None
    band = one.price.bands[0]
    micros = 10_000 * band.input + 500 * band.output + 3_000 * band.cache_read
    assert one.cost_nanousd == 1_000 * (micros + 200 * band.cache_write_5m + 500 * band.cache_write_1h)


def test_versions_that_do_not_say_how_long_the_cache_is_kept(received: Received) -> None:
    """Their writes are taken for five minutes, and the usage for an estimate."""
    told = {"cache_creation_tokens": 700, "cache_creation_5m_tokens": None, "cache_creation_1h_tokens": None}
    received.take(request(**told))
    assert received.call().attempts[0].usage == Usage(10_000, 500, 0, 700, estimated=True)


def test_numbers_as_text(received: Received) -> None:
    """Some versions send every number as text."""
    told = {"input_tokens": "10000", "output_tokens": "500", "duration_ms": "2000", "cost_usd_micros": "50000"}
    received.take(request(**told))
    stored = received.call()
    assert (stored.attempts[0].cost_nanousd, stored.call.latency_ms, stored.call.reasons) == (50_000_000, 2_000, ())


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, None),
        ({"cost_usd_micros": None}, None),
        ({"cost_usd_micros": 50_001}, "Claude Code says $0.050001, its tokens at the prices here come to $0.05"),
        ({"cost_usd_micros": None, "cost_usd": 0.04}, "Claude Code says $0.04, its tokens at the prices here come to"),
        ({"cost_usd_micros": None, "cost_usd": float("nan")}, None),
        ({"cost_usd_micros": -5}, None),
        ({"model": "claude-nova-9"}, "no price is known here; Claude Code says $0.05"),
    ],
)
def test_what_claude_code_says_that_it_cost(received: Received, told: dict[str, Any], reason: str | None) -> None:
    """Where it reckons otherwise, a reason of the call says both."""
    received.take(request(**told))
    reasons = [one.text for one in received.call().call.reasons if one.step == COST_STEP]
    assert reasons == [] if reason is None else reasons[0].startswith(reason)


def test_a_model_without_a_price(received: Received) -> None:
    """It costs nobody knows what, never nothing."""
    received.take(request(model="claude-nova-9"))
    stored = received.call()
    assert (stored.call.tier, stored.attempts[0].cost_nanousd, stored.call.baseline_nanousd) == ("other", None, None)


def test_prices_of_the_day(received: Received) -> None:
    """A request is priced by its own day, not by that on which it was told of."""
    sonnet = {"model": "claude-sonnet-5-5", "cache_read_tokens": 1_000}
    day = int(datetime(2026, 10, 1, 12, tzinfo=UTC).timestamp() * 1000)
    received.take(request(1, **sonnet), {**request(2, **sonnet), "timeUnixNano": str(day * 10**6)})
    before, after = (stored.attempts[0] for stored in received.calls())
    assert before.started_at_ms == day - 2_000
    assert before.price is not None and after.price is not None
    assert str(before.price.valid_from) < "2026-10-07" <= str(after.price.valid_from)
    assert before.cost_nanousd != after.cost_nanousd


def test_the_names_of_clouds(received: Received) -> None:
    """Bedrock's and dated names are the model that they name, at the price of the endpoint."""
    received.take(request(1), request(2, model="us.anthropic.claude-opus-5-5-20260901-v1:0"))
    ours, theirs = received.calls()
    assert theirs.call.model == "claude-opus-5-5"
    assert (theirs.attempts[0].cost_nanousd or 0) * 10 == (ours.attempts[0].cost_nanousd or 0) * 11


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"query_source": "repl_main_thread:outputStyle:x"}, "main"),
        ({"query_source": None}, "main"),
        ({"query_source": "agent:builtin:general-purpose", "agent_id": "a1"}, "subagent"),
        ({"query_source": "agent:custom"}, "subagent"),
        ({"query_source": "compact"}, "compaction"),
        ({"query_source": "generate_session_title"}, "title"),
        ({"query_source": "auto_mode_classifier"}, "safety"),
        ({"query_source": "something_new"}, "side"),
    ],
)
def test_what_requests_are_for(received: Received, told: dict[str, Any], kind: str) -> None:
    """As its source says; one that is not known is on the side."""
    received.take(request(**told))
    tags = dict(received.call().call.tags)
    assert (tags["kind"], tags.get("agent")) == (kind, told.get("agent_id"))


@pytest.mark.parametrize(
    ("told", "outcome", "why"),
    [
        ({}, OutcomeKind.OVERLOADED, "the API answered 529 after 3 tries"),
        ({"status_code": "401", "attempt": 1}, OutcomeKind.UNAUTHORIZED, "the API answered 401"),
        ({"status_code": 418}, OutcomeKind.SERVER_ERROR, "the API answered 418 after 3 tries"),
        ({"status_code": None, "request_id": None}, OutcomeKind.SERVER_ERROR, "no answer came after 3 tries"),
        ({"status_code": "x", "attempt": "y"}, OutcomeKind.SERVER_ERROR, "no answer came"),
    ],
)
def test_errors(received: Received, told: dict[str, Any], outcome: OutcomeKind, why: str) -> None:
    """A request that was given up is a failed call without tokens; the error's own words are not kept."""
    received.take(error(**told))
    stored = received.call()
    assert (stored.call.status, stored.call.error, stored.call.baseline_nanousd) == (CallStatus.FAILED, why, None)
    assert (stored.attempts[0].outcome, stored.attempts[0].cost_nanousd) == (outcome, 0)


def test_other_events_are_nobodys_calls(received: Received) -> None:
    """What is not of Claude Code, and events of other kinds, are taken and dropped."""
    foreign = {**request(), "body": {"stringValue": "codex.api_request"}}
    assert received.take(event("tool_result"), event("api_retries_exhausted"), foreign, {}).status == 200
    assert received.calls() == []


# ------------------------------------------------------------------ what it was about


def test_prompts_that_are_sent(received: Received) -> None:
    """Its requests are of the prompt's kind, in whatever order they come; side calls are not, and no word is kept."""
    asked = prompt("Translate zanzibar into French")
    received.take(request(1), request(2, query_source="generate_session_title"), asked)
    received.take(request(3))
    kinds = [stored.call.task_type for stored in received.calls()]
    assert sorted(kinds) == ["translation", "translation", "unknown"]
    received.ledger.close()
    assert b"zanzibar" not in received.ledger.path.read_bytes()


NOTES = ["<task-notification>x</task-notification>", "<system-reminder>a</system-reminder>"]


@pytest.mark.parametrize("text", ["<REDACTED>", "", *NOTES])
def test_prompts_that_say_nothing(received: Received, text: str) -> None:
    """Redacted ones, and notes of the client's own, are no prompts."""
    received.take(prompt(text), request())
    assert received.call().call.task_type == "unknown"


def test_prompts_of_others(received: Received) -> None:
    """A prompt is that of its session and number alone."""
    others = request(1, **{"session.id": "other"}), request(2, **{"prompt.id": "p2"})
    received.take(prompt("Translate this into French"), *others)
    assert {stored.call.task_type for stored in received.calls()} == {"unknown"}


# ------------------------------------------------------------------ once


def test_events_that_come_again(received: Received) -> None:
    """Sent twice, in other batches and another order, each event is one call."""
    some = [request(number) for number in range(20)] + [error(), error(request_id=None)]
    for seed in range(3):
        random.Random(seed).shuffle(some)
        for start in range(0, len(some), 7):
            received.take(*some[start : start + 7], *some[:2])
    assert len(received.calls()) == 22
    assert verify(received.ledger) == []


def test_without_request_ids(received: Received) -> None:
    """The event itself tells: its session, time and number."""
    none: dict[str, Any] = {"request_id": None}
    later = {**request(**none), "timeUnixNano": str(NOW_MS * 10**6 + 1)}
    received.take(request(**none), request(**none))
    received.take(request(**none), request(**none, **{"event.sequence": 6}), later)
    assert len(received.calls()) == 3


def test_sessions_that_are_recorded_whole(received: Received) -> None:
    """What `tierwise exec` has recorded is not recorded call by call."""
    claim_session(received.ledger, SESSION, NOW_MS)
    assert received.take(request()).status == 200
    assert received.calls() == []


# ------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"input_tokens": -1}, "input_tokens is no number"),
        ({"output_tokens": 10**12}, "output_tokens is no number"),
        ({"input_tokens": "many"}, "input_tokens is no number"),
        ({"input_tokens": 1.5}, "input_tokens is no number"),
        ({"input_tokens": True}, "input_tokens is no number"),
        ({"duration_ms": 10**15}, "duration_ms is no number"),
        ({"model": None}, "names no model"),
        ({"model": "x" * 300}, "model is longer"),
        ({"request_id": "a\0b"}, "request_id is longer than 200 characters, or has some that cannot be printed"),
        ({"request_id": "r" * 5_000}, "request_id is longer"),
        ({"at_ms": 1}, "does not say when"),
        ({"at_ms": NOW_MS + 3 * 86_400_000}, "a day ahead"),
    ],
)
def test_events_that_cannot_be(received: Received, told: dict[str, Any], why: str) -> None:
    """One that cannot be recorded is said not to have been, and the others are."""
    answer = received.take(request(1), request(2, **told))
    partial = json.loads(answer.body)["partialSuccess"]
    assert (answer.status, partial["rejectedLogRecords"]) == (200, "1")
    assert why in partial["errorMessage"]
    assert len(received.calls()) == 1


def test_the_time_that_claude_code_says(received: Received) -> None:
    """It stands where the record has none."""
    told = request(**{"event.timestamp": "2026-11-28T08:06:59.321Z"})
    received.take({**told, "timeUnixNano": "0"})
    assert received.call().call.started_at_ms == NOW_MS - 2_000


def test_odd_names(received: Received) -> None:
    """The name of a project, a session or an agent that cannot be kept costs nobody the call."""
    odd = {"session.id": "x" * 900, "agent_id": "a\0", "prompt.id": "\n"}
    raw = body(request(1, project="sh\ud800op"), request(2, project="x" * 900, **odd))
    assert json.loads(received.receiver.logs(raw, Encoding.JSON).body) == {}
    assert {stored.call.session for stored in received.calls()} == {SESSION, None}
    assert {stored.call.project for stored in received.calls()} == {None}
