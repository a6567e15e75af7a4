"""Batches of Anthropic's real SDK, wrapped: each request routed, each result settled once, at a batch's price."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

import tierwise
from tests.gateway.conftest import settings_for
from tests.integrations.conftest import QUICK
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import Usage, usd_to_nanousd
from tierwise.core.settings import GatewaySettings, Overrides, ProjectSettings, Settings
from tierwise.engine.router import AsyncRouter
from tierwise.ledger import Ledger
from tierwise.ledger.batches import Batches
from tierwise.ledger.budgets import BudgetPeriod, Budgets, BudgetScope
from tierwise.ledger.store import StoredCall
from tierwise.testing import Fault, StandInReply, StandInUpstream

anthropic = pytest.importorskip("anthropic", reason="not installed: pip install -r requirements/dev.txt")

KEY = "sk-ant-client-0123456789"
AUTO = "claude-tierwise-auto"
HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
SUMMARY = "Summarise this ticket in one line: the printer burns"
LAW = "Review this contract clause for liability, and say what a court would make of it"


def request(name: str, prompt: str = SUMMARY, model: str = AUTO, **params: Any) -> Any:
    """A request of a batch."""
    asked = {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": prompt}]}
    return {"custom_id": name, "params": {**asked, **params}}


@dataclass
class Place:
    """A stand-in, a configuration, and the ledger."""

    upstream: StandInUpstream
    settings: Settings

    def client(self, **options: Any) -> Any:
        """A wrapped client."""
        client = anthropic.Anthropic(base_url=self.upstream.url, api_key=KEY, max_retries=0, **options)
        return tierwise.wrap(client, settings=self.settings)

    def calls(self) -> dict[str, StoredCall]:
        """What the ledger holds, by the request's name, read as another process would."""
        with Ledger(self.settings.ledger.path) as ledger:
            return {str(found.call.custom_id): found for found in ledger.calls()}

    def sent(self) -> Any:
        """The latest batch as it went upstream."""
        return [one.json for one in self.upstream.calls("/v1/messages/batches") if one.method == "POST"][-1]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Each test has its own ledger."""
    with StandInUpstream() as upstream:
        yield Place(upstream, settings_for(upstream, tmp_path, QUICK))


def test_each_request_is_routed_on_its_own(place: Place) -> None:
    """Routed names go where each request belongs, models by name stay, and names and order are the caller's."""
    with place.client() as claude:
        requests = [request("easy"), request("named", model=OPUS, metadata={"user_id": "u"}), request("hard", LAW)]
        made = claude.messages.batches.create(requests=requests)
    assert made.processing_status == "in_progress"
    sent = place.sent()["requests"]
    assert [(one["custom_id"], one["params"]["model"]) for one in sent] == [
        ("easy", HAIKU),
        ("named", OPUS),
        ("hard", OPUS),
    ]
    assert sent[1] == requests[1]
    assert "route" not in json.dumps(sent)


def test_batch_stays_open_until_its_results_are_read(place: Place) -> None:
    """Sent, each request is an open call with an estimate at half the price; read, it is settled at what it used."""
    place.upstream.reply("It burns.", times=2, usage={"input_tokens": 1_000, "output_tokens": 100})
    with place.client() as claude:
        made = claude.messages.batches.create(requests=[request("a"), request("b", LAW)])
        open_calls = place.calls()
        assert {found.call.status for found in open_calls.values()} == {CallStatus.OPEN}
        assert all(found.attempts[0].cost_nanousd for found in open_calls.values())
        assert open_calls["a"].attempts[0].price is not None
        assert open_calls["a"].attempts[0].price.conditions == ("batch",)
        results = list(claude.messages.batches.results(made.id))
    assert [one.custom_id for one in results] == ["b", "a"]  # as the API gives them
    a, b = place.calls()["a"], place.calls()["b"]
    assert (a.call.status, a.attempts[0].outcome) == (CallStatus.ANSWERED, OutcomeKind.ACCEPTED)
    assert a.attempts[0].cost_nanousd == listed_nanousd(place, HAIKU, 1_000, 100) // 2
    assert b.attempts[0].cost_nanousd == listed_nanousd(place, OPUS, 1_000, 100) // 2
    baseline = place.settings.catalog.baseline.id
    assert a.call.baseline_nanousd == listed_nanousd(place, baseline, 1_000, 100) // 2  # in a batch, too
    assert a.call.latency_ms is None


def listed_nanousd(place: Place, model: str, input_tokens: int, output_tokens: int) -> int:
    """What it costs outside of a batch, by the price list of today."""
    router = AsyncRouter(place.settings, record=False)
    _, found = place.settings.catalog.model(model)
    price = router.planner.prices.price(found, datetime.now(UTC).date())
    return usd_to_nanousd(price.cost_usd(Usage(input_tokens, output_tokens)))


def test_results_read_twice_are_settled_once(place: Place) -> None:
    """Whoever reads results again, in this process or another, finds the same records and changes nothing."""
    with place.client() as claude:
        made = claude.messages.batches.create(requests=[request("a"), request("b")])
        list(claude.messages.batches.results(made.id))
        first = place.calls()
        list(claude.messages.batches.results(made.id))
    assert place.calls() == first
    script = """
import sys, anthropic, tierwise
claude = tierwise.wrap(anthropic.Anthropic(max_retries=0))
print(sorted(one.custom_id for one in claude.messages.batches.results(sys.argv[1])))
"""
    assert _other_process(place, script, made.id).stdout.strip() == "['a', 'b']"
    assert place.calls() == first


def _other_process(place: Place, script: str, *arguments: str, kill: bool = False) -> subprocess.CompletedProcess[str]:
    folder = place.settings.ledger.path.parent
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(folder),
            "ANTHROPIC_BASE_URL": place.upstream.url,
            "ANTHROPIC_API_KEY": KEY,
            "TIERWISE_LEDGER": str(place.settings.ledger.path),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode == -9) if kill else (done.returncode == 0), done.stderr
    return done


def test_another_process_settles_what_this_one_sent(place: Place) -> None:
    """A batch outlives the process that sent it: it stays open, and whoever reads its results settles it."""
    sends = """
import anthropic, tierwise
claude = tierwise.wrap(anthropic.Anthropic(max_retries=0))
asked = {"model": "claude-tierwise-auto", "max_tokens": 50, "messages": [{"role": "user", "content": "Summarise: x"}]}
print(claude.messages.batches.create(requests=[{"custom_id": "a", "params": asked}]).id)
"""
    name = _other_process(place, sends).stdout.strip()
    assert place.calls()["a"].call.status is CallStatus.OPEN
    with place.client() as claude:
        list(claude.messages.batches.results(name))
    assert place.calls()["a"].call.status is CallStatus.ANSWERED


def test_kill_while_a_batch_is_sent_loses_nothing(place: Place) -> None:
    """kill -9 before the answer: what may have been taken is on record, and settled when its results are found."""
    place.upstream.batches.fault = Fault.stall()
    script = """
import os, threading, time, urllib.request, anthropic, tierwise
claude = tierwise.wrap(anthropic.Anthropic(max_retries=0))
asked = {"model": "claude-tierwise-auto", "max_tokens": 50, "messages": [{"role": "user", "content": "Summarise: x"}]}
requests = [{"custom_id": "a", "params": asked}, {"custom_id": "b", "params": asked}]
threading.Thread(target=claude.messages.batches.create, kwargs={"requests": requests}, daemon=True).start()
while True:
    time.sleep(0.05)
    if b"msgbatch" in urllib.request.urlopen(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages/batches").read():
        os.kill(os.getpid(), 9)
"""
    place.upstream.batches.hold = True
    _other_process(place, script, kill=True)
    with Ledger(place.settings.ledger.path) as ledger:
        (waiting,) = Batches(ledger).waiting()
    assert waiting.upstream_id is None
    assert {found.call.status for found in place.calls().values()} == {CallStatus.OPEN}
    place.upstream.batches.hold = False
    with place.client() as claude:
        (found,) = claude.messages.batches.list()
        list(claude.messages.batches.results(found.id))
        first = place.calls()
        list(claude.messages.batches.results(found.id))
    assert {one.call.status for one in first.values()} == {CallStatus.ANSWERED}
    assert len(first) == 2
    assert place.calls() == first


def test_results_that_are_not_of_a_batch_are_not_taken_for_its(place: Place) -> None:
    """A batch of somebody else does not settle one of which nobody heard, however alike."""
    place.upstream.batches.fault = Fault.reset()
    with place.client() as claude:
        with suppress(anthropic.APIStatusError):
            claude.messages.batches.create(requests=[request("a")])
        theirs = anthropic.Anthropic(base_url=place.upstream.url, api_key=KEY)
        other = theirs.messages.batches.create(requests=[request("z", model=HAIKU)])
        assert [one.custom_id for one in claude.messages.batches.results(other.id)] == ["z"]
    assert place.calls()["a"].call.status is CallStatus.OPEN


def test_batch_that_may_have_been_taken_is_not_sent_again(place: Place) -> None:
    """Where the connection breaks before the answer, the SDK does not try again, and says what to look for."""
    place.upstream.batches.fault = Fault.reset()
    client = anthropic.Anthropic(base_url=place.upstream.url, api_key=KEY, max_retries=2)
    with (
        tierwise.wrap(client, settings=place.settings) as claude,
        pytest.raises(anthropic.InternalServerError, match="may have been taken"),
    ):
        claude.messages.batches.create(requests=[request("a")])
    assert len(place.upstream.batches.ids) == 1
    assert place.calls()["a"].call.status is CallStatus.OPEN


def test_refused_batch_costs_nothing(place: Place) -> None:
    """A batch that the API does not take is recorded as failed, at no cost, and its error is the SDK's own."""
    place.upstream.batches.fault = Fault.status(529)
    with place.client() as claude, pytest.raises(anthropic.APIStatusError) as raised:
        claude.messages.batches.create(requests=[request("a"), request("b")])
    assert raised.value.status_code == 529
    found = place.calls()["a"]
    assert (found.call.status, found.attempts[0].outcome) == (CallStatus.FAILED, OutcomeKind.OVERLOADED)
    assert found.attempts[0].cost_nanousd == 0
    with Ledger(place.settings.ledger.path) as ledger:
        assert Batches(ledger).waiting() == []


def test_what_was_not_answered_costs_nothing(place: Place) -> None:
    """Errored, expired and cancelled requests end as what they are, and cost nothing."""
    place.upstream.fail(Fault.status(500))
    place.upstream.reply("fine")
    with place.client() as claude:
        batches = claude.messages.batches
        list(batches.results(batches.create(requests=[request("bad"), request("good")]).id))
        place.upstream.batches.expire = True
        list(batches.results(batches.create(requests=[request("late")]).id))
        place.upstream.batches.hold = True
        cancelled = batches.create(requests=[request("cancelled")])
        assert batches.cancel(cancelled.id).processing_status == "canceling"
        list(batches.results(cancelled.id))
    calls = place.calls()
    assert {name: (found.call.status, found.attempts[0].outcome) for name, found in calls.items()} == {
        "bad": (CallStatus.FAILED, OutcomeKind.SERVER_ERROR),
        "good": (CallStatus.ANSWERED, OutcomeKind.ACCEPTED),
        "late": (CallStatus.FAILED, OutcomeKind.TIMEOUT),
        "cancelled": (CallStatus.CANCELLED, OutcomeKind.CANCELLED),
    }
    assert [calls[name].attempts[0].cost_nanousd for name in ("bad", "late", "cancelled")] == [0, 0, 0]


def test_answer_of_a_batch_that_nobody_counted(place: Place) -> None:
    """Its tokens are estimated, at a batch's price: what was answered is never free for want of a count."""
    untold = {"input_tokens": None, "output_tokens": None, "cache_read_input_tokens": None}
    place.upstream.reply(StandInReply.of_text("word " * 40, usage={**untold, "cache_creation_input_tokens": None}))
    with place.client() as claude:
        batches = claude.messages.batches
        made = batches.create(requests=[request("a")])
        waiting = place.calls()["a"].attempts[0]
        list(batches.results(made.id))
    (attempt,) = place.calls()["a"].attempts
    assert attempt.usage == Usage(waiting.usage.prompt_tokens, 50, estimated=True)
    assert attempt.price is not None
    assert attempt.cost_nanousd == usd_to_nanousd(attempt.price.cost_usd(attempt.usage)) > 0


def test_results_left_early_are_settled_all_the_same(place: Place) -> None:
    """A caller who reads one result and leaves has paid for all: all are settled."""
    with place.client() as claude:
        made = claude.messages.batches.create(requests=[request(f"r{number}") for number in range(20)])
        for _ in claude.messages.batches.results(made.id):
            break
    _wait_until(lambda: all(found.call.status is CallStatus.ANSWERED for found in place.calls().values()))


def _wait_until(holds: Any) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_results_that_break_off_settle_what_came(place: Place) -> None:
    """Results cut off in the middle raise in the client; what came is settled, the rest by the next reading."""
    with place.client() as claude:
        made = claude.messages.batches.create(requests=[request("a"), request("b"), request("c")])
        place.upstream.batches.cut_after = 1
        with pytest.raises(httpx2.RemoteProtocolError):
            list(claude.messages.batches.results(made.id))
        by_name = {name: found.call.status for name, found in place.calls().items()}
        assert by_name == {"a": CallStatus.OPEN, "b": CallStatus.OPEN, "c": CallStatus.ANSWERED}
        place.upstream.batches.cut_after = None
        list(claude.messages.batches.results(made.id))
    assert {found.call.status for found in place.calls().values()} == {CallStatus.ANSWERED}


def test_budget_knows_of_a_batch(place: Place) -> None:
    """A batch over a hard budget is not sent; one within it is reserved until read, and then counts at its cost."""
    with Ledger(place.settings.ledger.path) as ledger:
        budget = Budgets(ledger).set(BudgetScope.ALL, "", BudgetPeriod.TOTAL, 2_000_000, 0)
        assert budget.hard
    place.upstream.reply("fine", times=None, usage={"input_tokens": 100, "output_tokens": 10})
    with place.client() as claude:
        with pytest.raises(anthropic.APIStatusError, match="budget") as raised:
            claude.messages.batches.create(requests=[request("big", LAW, max_tokens=64_000)])
        assert raised.value.status_code == 402
        assert place.upstream.requests == []
        assert place.calls() == {}
        made = claude.messages.batches.create(requests=[request("a"), request("b")])
        _wait_until(lambda: _standing(place)[1] > 0)
        list(claude.messages.batches.results(made.id))
    spent, reserved = _standing(place)
    assert (spent, reserved) == (sum(found.attempts[0].cost_nanousd or 0 for found in place.calls().values()), 0)


def _standing(place: Place) -> tuple[int, int]:
    with Ledger(place.settings.ledger.path) as ledger:
        (standing,) = Budgets(ledger).standings(0)
    return standing.spent_nanousd, standing.reserved_nanousd


def test_unknown_price_stays_unknown(place: Place) -> None:
    """A model without a known price costs what nobody knows, never nothing; a hard budget lets no batch of it go."""
    place.upstream.models["mystery"] = place.upstream.models[HAIKU]
    with place.client() as claude:
        made = claude.messages.batches.create(requests=[request("a", model="mystery"), request("b")])
        with Ledger(place.settings.ledger.path) as ledger:
            (waiting,) = Batches(ledger).waiting()
            assert Batches(ledger).unread(waiting).unpriced == 1
        list(claude.messages.batches.results(made.id))
        found = place.calls()
        assert (found["a"].attempts[0].cost_nanousd, found["a"].call.status) == (None, CallStatus.ANSWERED)
        assert found["b"].attempts[0].cost_nanousd
        with Ledger(place.settings.ledger.path) as ledger:
            Budgets(ledger).set(BudgetScope.ALL, "", BudgetPeriod.TOTAL, 10**12, 0)
    client = anthropic.Anthropic(base_url=place.upstream.url, api_key=KEY, max_retries=0)
    # Routes of its own, and so a gateway of its own, which knows of the budget from the start.
    with (
        tierwise.wrap(client, settings=place.settings, route=["other"]) as claude,
        pytest.raises(anthropic.APIStatusError, match="no price of mystery is known") as raised,
    ):
        claude.messages.batches.create(requests=[request("c", model="mystery")])
    assert raised.value.status_code == 402
    assert len(place.upstream.batches.ids) == 1


async def test_asynchronous_client(place: Place) -> None:
    """The asynchronous client sends and reads batches alike."""
    client = anthropic.AsyncAnthropic(base_url=place.upstream.url, api_key=KEY, max_retries=0)
    async with tierwise.wrap(client, settings=place.settings) as claude:
        made = await claude.messages.batches.create(requests=[request("a"), request("b", LAW)])
        results = [one.custom_id async for one in await claude.messages.batches.results(made.id)]
        deleted = await claude.messages.batches.delete(made.id)
    assert (results, deleted.type) == (["b", "a"], "message_batch_deleted")
    assert {found.call.status for found in place.calls().values()} == {CallStatus.ANSWERED}


def test_request_says_what_holds_for_it_alone(place: Place) -> None:
    """`tierwise` beside a request's parameters says what headers say of a call, and never reaches the API."""
    own = {**request("a"), "tierwise": {"min_tier": "sonnet", "tags": {"team": "search"}}}
    with place.client() as claude, tierwise.call_options(project="shop"):
        claude.messages.batches.create(requests=[own, request("b")])
        with pytest.raises(anthropic.BadRequestError, match=r"a: unknown tier 'hiku'"):
            claude.messages.batches.create(requests=[{**request("a"), "tierwise": {"min_tier": "hiku"}}])
        with pytest.raises(anthropic.BadRequestError, match=r"requests\.0\.tierwise\.speed: unknown"):
            claude.messages.batches.create(requests=[{**request("a"), "tierwise": {"speed": "fast"}}])
    sent = place.sent()["requests"]
    assert [sorted(one) for one in sent] == [["custom_id", "params"]] * 2
    assert [one["params"]["model"] for one in sent] == [SONNET, HAIKU]
    calls = place.calls()
    assert {found.call.project for found in calls.values()} == {"shop"}
    assert dict(calls["a"].call.tags)["team"] == "search"


def test_check_in_a_batch_is_refused(place: Place) -> None:
    """A check cannot hold for answers that come hours later: it is refused, and says what to do."""
    with (
        place.client() as claude,
        tierwise.call_options(check=bool),
        pytest.raises(anthropic.BadRequestError, match="judge_batch"),
    ):
        claude.messages.batches.create(requests=[request("a")])
    assert place.upstream.requests == []


def test_rejected_results_climb_in_the_next_batch(place: Place) -> None:
    """What is refused, cut off or fails a check comes back to be sent one tier up; what is good does not."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    wanted = {"format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}}
    place.upstream.reply("fine")
    place.upstream.reply("way too long an answer")
    place.upstream.reply_json({"town": "Köln"})
    place.upstream.fail(Fault.refusal())
    place.upstream.fail(Fault.status(500))
    place.upstream.fail(Fault.status(400))
    place.upstream.reply("way too long an answer")
    requests = [
        request("good"),
        request("long"),
        request("json", output_config=wanted),
        request("refused"),
        request("broken"),
        request("wrong"),
        request("named", model=OPUS),
    ]
    with place.client() as claude:
        made = claude.messages.batches.create(requests=requests)

        def short(text: str) -> bool:
            return text.startswith("{") or len(text) < 10

        results = claude.messages.batches.results(made.id)
        verdicts = tierwise.judge_batch(requests, results, check=short, settings=place.settings)
        assert [verdict.custom_id for verdict in verdicts] == [one["custom_id"] for one in requests]
        assert [verdict.custom_id for verdict in verdicts if verdict.accepted] == ["good"]
        again = [verdict.again for verdict in verdicts if verdict.again is not None]
        assert [(one["custom_id"], one.get("tierwise")) for one in again] == [
            ("long", {"min_tier": "sonnet"}),
            ("json", {"min_tier": "sonnet"}),
            ("refused", {"min_tier": "sonnet"}),
            ("broken", None),
        ]
        assert all(verdict.why for verdict in verdicts if not verdict.accepted)
        claude.messages.batches.create(requests=again)
    assert [one["params"]["model"] for one in place.sent()["requests"]] == [SONNET, SONNET, SONNET, HAIKU]


def test_top_tier_has_nothing_above(place: Place) -> None:
    """Where no tier is above the one that answered, there is nothing to send again."""
    place.upstream.reply(StandInReply(content=(), stop_reason="end_turn", model=f"{OPUS}-20261007"))
    with place.client() as claude:
        requests = [request("a", LAW)]
        made = claude.messages.batches.create(requests=requests)
        (verdict,) = tierwise.judge_batch(requests, claude.messages.batches.results(made.id), settings=place.settings)
    assert (verdict.accepted, verdict.again, verdict.why) == (False, None, "the reply was empty")


def test_ceiling_of_a_request_is_kept(place: Place) -> None:
    """A request does not climb past its highest tier; a model of `route=` climbs as the routed name does."""
    place.upstream.reply("", times=2)
    bounded = {**request("bounded"), "tierwise": {"max_tier": "haiku"}}
    requests = [bounded, request("named", model=OPUS)]
    client = anthropic.Anthropic(base_url=place.upstream.url, api_key=KEY, max_retries=0)
    with tierwise.wrap(client, settings=place.settings, route=[OPUS]) as claude:
        made = claude.messages.batches.create(requests=requests)
        results = list(claude.messages.batches.results(made.id))
    assert [one["params"]["model"] for one in place.sent()["requests"]] == [HAIKU, HAIKU]
    verdicts = tierwise.judge_batch(requests, results, route=[OPUS], settings=place.settings)
    assert [verdict.again and verdict.again["tierwise"] for verdict in verdicts] == [None, {"min_tier": "sonnet"}]


LOW = ProjectSettings(max_tier="haiku")


@pytest.mark.parametrize(
    ("bounded", "own", "floor"),
    [
        ({}, {}, "sonnet"),
        ({"overrides": Overrides(max_tier="haiku")}, {}, None),
        ({"overrides": Overrides(max_tier="haiku")}, {"max_tier": "opus"}, "sonnet"),  # its own goes before that
        (
            {"project": "shop", "gateway": GatewaySettings(projects={"shop": ProjectSettings(max_tier="haiku")})},
            {},
            None,
        ),
        ({"gateway": GatewaySettings(upstream="elsewhere")}, {}, None),  # which has no model above
    ],
)
def test_what_is_to_be_sent_again_is_not_refused(
    place: Place, bounded: dict[str, Any], own: dict[str, str], floor: str | None
) -> None:
    """No floor is asked for that a configured ceiling contradicts, or that no model of a batch's provider has."""
    asked = {**request("a"), "tierwise": own} if own else request("a")
    message = {"type": "message", "role": "assistant", "model": HAIKU, "content": [], "stop_reason": "end_turn"}
    result = {"custom_id": "a", "result": {"type": "succeeded", "message": message}}
    (verdict,) = tierwise.judge_batch([asked], [result], settings=replace(place.settings, **bounded))
    assert verdict.why == "the reply was empty"
    assert (verdict.again and verdict.again["tierwise"]) == (None if floor is None else {**own, "min_tier": floor})


def test_beta_batches(place: Place) -> None:
    """The SDK's beta namespace is routed and settled alike, and what it asks for by header and query goes on."""
    with place.client() as claude:
        more = {"betas": ["some-feature-2026-01-01"], "extra_query": {"beta": "true"}}
        made = claude.beta.messages.batches.create(requests=[request("a")], **more)
        assert [one.custom_id for one in claude.beta.messages.batches.results(made.id)] == ["a"]
    (sent,) = place.upstream.calls("/v1/messages/batches")
    assert (sent.query, sent.headers["anthropic-beta"]) == ("beta=true", "some-feature-2026-01-01")
    assert place.calls()["a"].call.status is CallStatus.ANSWERED


def test_results_are_handed_on_where_the_ledger_is_broken(place: Place) -> None:
    """A ledger in trouble keeps no results from anybody; the next reading settles them."""
    with place.client() as claude:
        made = claude.messages.batches.create(requests=[request("a")])
        path = place.settings.ledger.path
        away = path.rename(f"{path}.away")
        path.mkdir()
        assert [one.custom_id for one in claude.messages.batches.results(made.id)] == ["a"]
        path.rmdir()
        away.rename(path)
        assert place.calls()["a"].call.status is CallStatus.OPEN
        list(claude.messages.batches.results(made.id))
    assert place.calls()["a"].call.status is CallStatus.ANSWERED


def test_forgotten_batch_is_settled_when_it_is_read_after_all(place: Place) -> None:
    """Results that turn up after a batch was forgotten settle it as ever."""
    with place.client() as claude:
        made = claude.messages.batches.create(requests=[request("a")])
        with Ledger(place.settings.ledger.path) as ledger:
            (waiting,) = Batches(ledger).waiting()
            Batches(ledger).forget(waiting, 0)
        assert place.calls()["a"].call.status is CallStatus.FAILED
        list(claude.messages.batches.results(made.id))
    found = place.calls()["a"]
    assert (found.call.status, found.call.error) == (CallStatus.ANSWERED, None)
    assert (found.attempts[0].outcome, found.attempts[0].usage.estimated) == (OutcomeKind.ACCEPTED, False)


def test_unrecordable_batch_is_not_sent(place: Place) -> None:
    """Where the ledger cannot be written nobody could tell what a batch cost: it is refused before it is sent."""
    with place.client() as claude:
        claude.messages.create(**request("x")["params"])
        place.settings.ledger.path.rename(f"{place.settings.ledger.path}.away")
        place.settings.ledger.path.mkdir()
        with pytest.raises(anthropic.InternalServerError, match="cannot be recorded"):
            claude.messages.batches.create(requests=[request("a")])
    assert place.upstream.calls("/v1/messages/batches") == []
