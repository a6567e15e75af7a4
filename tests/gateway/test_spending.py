"""Budgets and rate limits of a gateway that really runs: nothing overshoots or stays reserved, refusals are true."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import HEADERS, HTTP, KEY, Serve, Served
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Ledger
from tierwise.ledger.budgets import Budget, BudgetPeriod, Budgets, BudgetScope, BudgetStanding
from tierwise.testing import Fault, RecordedRequest, StandInReply, StandInUpstream

AUTO = "claude-tierwise-auto"


def body(model: str = "claude-opus-5-5", **fields: Any) -> str:
    asked = [{"role": "user", "content": "Summarise this ticket in one line: it burns"}]
    return json.dumps({"model": model, "max_tokens": 1_000, "messages": asked, **fields})


def limit(
    gateway: Served,
    usd: str,
    *,
    scope: BudgetScope = BudgetScope.ALL,
    subject: str = "",
    period: BudgetPeriod = BudgetPeriod.TOTAL,
    hard: bool = True,
) -> Budget:
    with Ledger(gateway.ledger_path) as ledger:  # as `tierwise budgets set` does, in another process
        now_ms = time.time_ns() // 1_000_000
        made = Budgets(ledger).set(scope, subject, period, int(Decimal(usd) * 10**9), now_ms, hard=hard)
    assert gateway.gateway.desk is not None
    gateway.gateway.desk.budgets._read_at_ms = None  # the second after which it is known here is not waited for
    return made


def standing(gateway: Served) -> BudgetStanding:
    with Ledger(gateway.ledger_path) as ledger:
        (found,) = Budgets(ledger).standings(time.time_ns() // 1_000_000)
    return found


def settled(gateway: Served) -> BudgetStanding:
    """The budget once nothing is reserved."""
    ends = time.monotonic() + 60
    while (found := standing(gateway)).reserved_nanousd:
        assert time.monotonic() < ends, found
        time.sleep(0.02)
    return found


@contextmanager
def hanging_up(gateway: Served, content: str) -> Iterator[socket.socket]:
    """A request on a connection that is closed at the end, whether or not it was answered."""
    host, port = gateway.url.removeprefix("http://").split(":")
    data = content.encode()
    with socket.create_connection((host, int(port)), timeout=60) as client:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(data)}\r\n\r\n"
        client.sendall(head.encode() + data)
        yield client


def until_recorded(gateway: Served, status: CallStatus) -> None:
    ends = time.monotonic() + 60
    while any(found.call.status is not status for found in gateway.calls()):
        assert time.monotonic() < ends, gateway.calls()
        time.sleep(0.02)


# Budgets


@pytest.mark.parametrize("stream", [True, False])
def test_two_hundred_calls_at_once_do_not_overshoot(serve: Serve, upstream: StandInUpstream, stream: bool) -> None:
    """At most as many are let through as the budget has room for, and what is left fits nobody any more."""
    upstream.reply(StandInReply.of_text("done", usage={"input_tokens": 100, "output_tokens": 1_000}), times=None)
    gateway = serve(upstream)
    limit(gateway, "1.00")  # a call costs 0.0204 and may cost a little more
    limits = httpx2.Limits(max_connections=200)
    with httpx2.Client(limits=limits, timeout=60) as client, ThreadPoolExecutor(200) as pool:
        gate = threading.Barrier(200)

        def one(_: int) -> httpx2.Response:
            gate.wait()
            return client.post(f"{gateway.url}/v1/messages", content=body(stream=stream), headers=HEADERS)

        answers = list(pool.map(one, range(200)))
    good = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} == {200, 402}
    assert len(good) == len(upstream.requests)
    found = settled(gateway)
    assert found.spent_nanousd == len(good) * (100 * 4_000 + 1_000 * 20_000)
    assert found.spent_nanousd <= 10**9
    assert len(good) >= 40
    calls = gateway.calls()
    assert sum(attempt.cost_nanousd or 0 for call in calls for attempt in call.attempts) == found.spent_nanousd
    assert sum(call.call.status is CallStatus.NOT_RUN for call in calls) == 200 - len(good)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("model", ["claude-opus-5-5", AUTO])
def test_a_refused_call_is_told_everything(serve: Serve, upstream: StandInUpstream, path: str, model: str) -> None:
    """402: which budget, how much is left of it, when it begins anew; in the dialect, with the call's id."""
    gateway = serve(upstream)
    made = limit(gateway, "0.000001", scope=BudgetScope.PROJECT, subject="shop", period=BudgetPeriod.DAY)
    before = datetime.now(UTC)
    refused = gateway.post(body(model), path, x_tierwise_project="shop")
    midnights = {f"resets at {day + timedelta(days=1):%Y-%m-%d}T00:00Z" for day in (before, datetime.now(UTC))}
    assert refused.status_code == 402
    told = refused.json()["error"]
    assert told["type"] == ("insufficient_quota" if "chat" in path else "billing_error")
    for part in (made.budget_id, "project 'shop'", "is left"):
        assert part in told["message"]
    assert any(midnight in told["message"] for midnight in midnights)
    assert refused.headers["x-tierwise-call-id"] == gateway.call().call.call_id
    assert gateway.call().call.status is CallStatus.NOT_RUN
    assert not upstream.requests
    assert gateway.post(body(model), path).status_code == 200


def test_a_soft_budget_warns_and_lets_through(serve: Serve, upstream: StandInUpstream) -> None:
    """In a header of every answer, JSON or stream, and in the call's reasons."""
    gateway = serve(upstream)
    made = limit(gateway, "0.000001", hard=False)
    for stream in (True, False):
        answer = gateway.post(body(stream=stream))
        assert answer.status_code == 200
        assert made.budget_id in answer.headers["x-tierwise-warning"]
        receipt = HTTP.get(f"{gateway.url}/tierwise/calls/{answer.headers['x-tierwise-call-id']}").json()
        assert made.budget_id in next(reason["text"] for reason in receipt["reasons"] if reason["step"] == "budget")
    assert settled(gateway).spent_nanousd > 1_000


def test_a_call_counts_at_what_it_cost_and_not_at_what_it_might_have(serve: Serve, upstream: StandInUpstream) -> None:
    """All attempts of a climb, to the nano-dollar."""
    upstream.reply("no JSON", times=2)
    upstream.reply_json({"a": 1})
    gateway = serve(upstream)
    limit(gateway, "5")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    gateway.post(body(AUTO, output_config={"format": {"type": "json_schema", "schema": schema}}))
    costs = [attempt.cost_nanousd or 0 for attempt in gateway.call().attempts]
    assert len(costs) == 3
    assert settled(gateway).spent_nanousd == sum(costs)


@pytest.mark.parametrize(
    "fault", [Fault.status(500), Fault.status(400), Fault.reset(), Fault.malformed_json(), Fault.lie_about_length()]
)
def test_a_call_that_fails_gives_back_what_was_set_aside(serve: Serve, upstream: StandInUpstream, fault: Fault) -> None:
    """Whatever the upstream does; what the failed attempt is known to have used stays spent."""
    upstream.fail(fault)
    gateway = serve(upstream)
    limit(gateway, "5")
    assert gateway.post(body()).status_code >= 400
    found = settled(gateway)
    assert found.spent_nanousd == sum(attempt.cost_nanousd or 0 for attempt in gateway.call().attempts)
    assert found.spent_nanousd < 10**6


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("when", ["before the head", "in the middle"])
def test_a_client_that_vanishes_leaves_nothing_reserved_and_nothing_running(
    serve: Serve, upstream: StandInUpstream, stream: bool, when: str
) -> None:
    """The upstream sees the hang-up at once, also where it has not said a word yet; the prompt is recorded as used."""
    upstream.fail(Fault.stall(after_events=0 if when == "before the head" else 4))
    gateway = serve(upstream)
    limit(gateway, "5")
    with hanging_up(gateway, body(stream=stream)):
        ends = time.monotonic() + 60
        while not upstream.requests or not standing(gateway).reserved_nanousd:
            assert time.monotonic() < ends
            time.sleep(0.02)
    assert upstream.requests[0].wait_finished()
    assert upstream.requests[0].closed_early
    until_recorded(gateway, CallStatus.CANCELLED)
    (attempt,) = gateway.call().attempts
    assert attempt.outcome is OutcomeKind.CANCELLED
    assert attempt.usage.estimated
    assert (attempt.cost_nanousd or 0) > 0
    assert settled(gateway).spent_nanousd == attempt.cost_nanousd
    assert gateway.gateway.running == 0


def test_a_hard_budget_is_not_passed_by_without_a_price(serve: Serve, upstream: StandInUpstream) -> None:
    """A model that nobody knows the price of is refused where a hard budget is of the call, and only there."""
    upstream.strict = False
    gateway = serve(upstream)
    limit(gateway, "5", scope=BudgetScope.PROJECT, subject="shop")
    refused = gateway.post(body("claude-unheard-of-9"), x_tierwise_project="shop")
    assert refused.status_code == 402
    assert "no price of claude-unheard-of-9" in refused.json()["error"]["message"]
    assert gateway.post(body("claude-unheard-of-9")).status_code == 200


def test_what_is_set_aside_covers_writing_to_the_cache(serve: Serve, upstream: StandInUpstream) -> None:
    """A prompt that is to be cached may cost twice its tokens."""
    gateway = serve(upstream)
    limit(gateway, "0.03")
    long = {"type": "text", "text": "word " * 3_000}  # 3,750 tokens: US$ 0.015 fresh, 0.030 written for an hour
    assert gateway.post(body(system=[long], max_tokens=10)).status_code == 200
    cached = {**long, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert gateway.post(body(system=[cached], max_tokens=10)).status_code == 402


# Rate limits


def limited(*, remaining: int, limit: int) -> StandInReply:
    headers = {
        "anthropic-ratelimit-requests-limit": str(limit),
        "anthropic-ratelimit-requests-remaining": str(remaining),
    }
    return StandInReply(content=({"type": "text", "text": "done"},), headers=headers)


def test_a_429_is_remembered_and_the_next_call_told_truly(serve: Serve, upstream: StandInUpstream) -> None:
    """While the family is closed nothing goes up; what is left of the wait is in `retry-after`, in both dialects."""
    upstream.fail(Fault.rate_limited(retry_after=40))
    gateway = serve(upstream, rate_limit_wait_seconds=0.05)
    assert gateway.post(body()).headers["retry-after"] == "40"
    for path in ("/v1/messages", "/v1/chat/completions"):
        again = gateway.post(body(), path)
        assert again.status_code == 429
        assert 30 <= int(again.headers["retry-after"]) <= 40
        assert again.json()["error"]["type"] == "rate_limit_error"
    assert len(upstream.requests) == 1
    assert gateway.post(body("claude-haiku-5-5")).status_code == 200


def test_a_call_waits_where_its_turn_comes_in_time(serve: Serve, upstream: StandInUpstream) -> None:
    """A closed family that opens within the wait that is allowed: an answer, later."""
    upstream.fail(Fault.rate_limited(retry_after=1))
    gateway = serve(upstream)
    assert gateway.post(body()).status_code == 429
    assert gateway.post(body()).status_code == 200
    assert len(upstream.requests) == 2


def test_a_routed_call_goes_up_and_not_down_where_its_tier_is_closed(serve: Serve, upstream: StandInUpstream) -> None:
    """No waiting while a better tier has room; a call for the best one does not go below."""
    upstream.fail(Fault.rate_limited(retry_after=300))
    gateway = serve(upstream, "[limits]\ntransient_retries = 0", rate_limit_wait_seconds=0.05)
    assert gateway.post(body("claude-haiku-5-5")).status_code == 429
    assert gateway.post(body(AUTO)).headers["x-tierwise-model"] == "claude-sonnet-5-5"
    upstream.fail(Fault.rate_limited(retry_after=300))
    assert gateway.post(body("claude-opus-5-5")).status_code == 429
    critical = [{"role": "user", "content": "Is this indemnity clause enforceable under German law? We sign tomorrow."}]
    refused = gateway.post(body(AUTO, messages=critical))
    assert refused.status_code == 429
    assert 200 <= int(refused.headers["retry-after"]) <= 300


def test_a_ceiling_of_ours_holds(serve: Serve, upstream: StandInUpstream) -> None:
    """Three a minute are three at once, and then 429 with the time to the next; other families are not touched."""
    gateway = serve(upstream, "[gateway.limits.opus]\nrequests_per_minute = 3", rate_limit_wait_seconds=0.05)
    answers = [gateway.post(body()) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert gateway.post(body("claude-haiku-5-5")).status_code == 200


def test_what_an_upstream_says_is_left_is_kept_to(serve: Serve, upstream: StandInUpstream) -> None:
    """Nothing left of five a minute: the next call waits for the next one, or is told how long that takes."""
    upstream.reply(limited(remaining=0, limit=5))
    gateway = serve(upstream, rate_limit_wait_seconds=0.05)
    assert gateway.post(body()).status_code == 200
    refused = gateway.post(body())
    assert refused.status_code == 429
    assert 2 <= int(refused.headers["retry-after"]) <= 12


def test_attempts_that_were_refused_do_not_use_up_a_ceiling(serve: Serve, upstream: StandInUpstream) -> None:
    """Each attempt of a climb gives back what it did not use."""
    upstream.fail(Fault.status(529), times=2)
    toml = (
        "[limits]\ntransient_retries = 2\nbackoff_base_seconds = 0.01\n"
        "[gateway.limits.haiku]\noutput_tokens_per_minute = 1000"
    )
    gateway = serve(upstream, toml, rate_limit_wait_seconds=0.05)
    answer = gateway.post(body(AUTO))
    assert answer.headers["x-tierwise-model"] == "claude-haiku-5-5"
    assert len(gateway.call().attempts) == 3


def test_a_client_that_vanishes_while_it_waits_is_not_sent_for(serve: Serve, upstream: StandInUpstream) -> None:
    """Its place in the line is free, nothing went upstream, and the call is recorded as cancelled."""
    gateway = serve(upstream, "[gateway.limits.opus]\nrequests_per_minute = 2")
    assert [gateway.post(body()).status_code for _ in range(2)] == [200, 200]
    admission = gateway.gateway.admission
    assert admission is not None
    with hanging_up(gateway, body()):
        ends = time.monotonic() + 60
        while not admission.waiting:
            assert time.monotonic() < ends
            time.sleep(0.02)
    while admission.waiting or gateway.gateway.running:
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert len(upstream.requests) == 2
    last = max(gateway.calls(), key=lambda found: found.call.call_id)
    assert (last.call.status, last.attempts) == (CallStatus.CANCELLED, ())


def test_one_session_does_not_keep_another_waiting(serve: Serve, upstream: StandInUpstream) -> None:
    """Of a session that comes with twenty calls and one that comes after it with one, the latter is not the last."""
    order: list[str] = []

    def handler(request: RecordedRequest) -> None:
        order.append(request.headers["x-claude-code-session-id"])

    upstream.handler = handler
    gateway = serve(upstream, "[gateway.limits.opus]\nrequests_per_minute = 600")
    admission = gateway.gateway.admission
    assert admission is not None
    with httpx2.Client(limits=httpx2.Limits(max_connections=40), timeout=60) as client, ThreadPoolExecutor(40) as pool:

        def one(session: str) -> int:
            headers = {**HEADERS, "x-claude-code-session-id": session}
            return client.post(f"{gateway.url}/v1/messages", content=body(), headers=headers).status_code

        # Close the family for longer than it takes to form the line, and see in what order it is let through.
        upstream.fail(Fault.rate_limited(retry_after=6))
        assert one("first") == 429
        order.clear()
        greedy = [pool.submit(one, "greedy") for _ in range(20)]
        ends = time.monotonic() + 60
        while admission.waiting < 20:
            assert time.monotonic() < ends
            time.sleep(0.01)
        modest = pool.submit(one, "modest")
        assert {future.result() for future in (*greedy, modest)} == {200}
    assert len(order) == 21
    assert order.index("modest") < 10
