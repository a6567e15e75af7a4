"""The router on a real wire: what is asked, what comes back, what is recorded."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import IMPATIENT, KEY, Rig, until
from tierwise.core.catalog import Model
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import (
    ConfigError,
    CostCeilingExceeded,
    DeadlineExceeded,
    InvalidTask,
    LadderExhausted,
    NoRouteError,
    NotRun,
    RequestRefusedByProvider,
)
from tierwise.core.money import Usage, nanousd_to_usd, usd_to_nanousd
from tierwise.core.settings import Settings
from tierwise.engine.result import Result
from tierwise.engine.router import AsyncRouter
from tierwise.ledger import Ledger
from tierwise.providers.base import Availability, ModelRequest, Reply
from tierwise.testing import Fault, FaultKind, RecordedRequest, StandInReply

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
USED = {"input_tokens": 1000, "output_tokens": 200}  # $0.0002 on Haiku 5.5, $0.004 on Sonnet 5.5
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
QUIET = "[limits]\ntransient_retries = 0\n"


async def _run(rig: Rig, more: str = "", *, patience: float = 60.0, **options: Any) -> Result:
    options = {"task_type": "ranking", **options}
    async with rig.router(more, patience=patience) as router:
        return await router.run("put these in order: b, a", **options)


# ------------------------------------------------------------------ an answer


async def test_a_task_is_answered_priced_and_recorded(rig: Rig) -> None:
    """Text in, answer out: from the model of the tier, at its exact cost, with one call and one attempt recorded."""
    rig.upstream.reply("a, b", usage={**USED, "cache_read_input_tokens": 500})
    result = await _run(rig, session="s1", project="p1", tags={"team": "x"})
    assert (result.text, str(result.tier), result.model) == ("a, b", "haiku", HAIKU)
    assert result.usage == Usage(1000, 200, cache_read_tokens=500)
    assert result.cost_usd == Decimal("0.000205")
    assert result.baseline_cost_usd == Decimal("0.00405")
    assert result.saved_usd == Decimal("0.003845")
    assert result.recorded
    call, (attempt,) = rig.row(result.call_id)
    assert (call.status, call.task_type, call.tier, call.model) == (CallStatus.ANSWERED, "ranking", "haiku", HAIKU)
    assert (call.session, call.project, call.tags) == ("s1", "p1", (("team", "x"),))
    assert (call.baseline_model, call.baseline_nanousd) == (SONNET, 4_050_000)
    assert (attempt.outcome, attempt.cost_nanousd, attempt.usage) == (OutcomeKind.ACCEPTED, 205_000, result.usage)
    assert attempt.price is not None
    assert attempt.price.bands[0].input == Decimal("0.1")
    assert attempt.request_id == rig.upstream.calls()[0].request_id
    assert (attempt,) == result.attempts
    assert HAIKU in result.receipt()
    assert "$0.000205" in result.receipt()


async def test_what_is_recorded_holds_no_text(rig: Rig) -> None:
    """Neither the prompt nor a reply, accepted or rejected, is anywhere in the ledger's files."""
    rig.upstream.reply('{"n": "the reply is Kilimanjaro"}', usage=USED)
    rig.upstream.reply('{"n": 1, "x": "Kilimanjaro"}', usage=USED)
    async with rig.router() as router:
        await router.run(
            "count Popocatepetl", input_text="Popocatepetl", task_type="ranking", json_schema=SCHEMA,
            checks=[lambda text: None],
        )  # fmt: skip
    rig.upstream.reply("the reply is Kilimanjaro", times=None)
    with pytest.raises(LadderExhausted):
        await _run(rig, checks=[lambda text: f"no good: {text}"], max_tier="haiku")
    rig.ledger.close()
    held = b"".join(path.read_bytes() for path in rig.folder.glob("ledger.db*"))
    assert len(held) > 1000
    assert b"Kilimanjaro" not in held
    assert b"Popocatepetl" not in held


async def test_the_baseline_is_what_was_really_used(rig: Rig) -> None:
    """The baseline is priced for the accepted reply's tokens, counted by its own tokenizer, not for the estimate."""
    rig.upstream.reply("a, b", usage=USED)
    result = await _run(rig, model="claude-haiku-4-5")
    assert result.usage.input_tokens == 1000
    assert result.baseline_cost_usd == Decimal("0.0052")  # 1,300 in and 260 out on Sonnet 5.5


async def test_json_comes_back_parsed(rig: Rig) -> None:
    """With a schema the value is there, and the request asked for that format, closed as the API wants it."""
    rig.upstream.reply_json({"n": 3})
    result = await _run(rig, json_schema=SCHEMA)
    assert result.value == {"n": 3}
    assert rig.bodies()[0]["output_config"]["format"]["schema"] == {**SCHEMA, "additionalProperties": False}
    assert any("objects closed" in note for note in result.notes)


async def test_a_label_comes_back_as_it_was_given(rig: Rig) -> None:
    """A classification answers with one of the caller's own labels."""
    rig.upstream.reply_json({"label": "spam"})
    assert (await _run(rig, labels=["Spam", "Ham"])).text == "Spam"


async def test_a_tool_call_is_carried_out_where_overrides_say(rig: Rig) -> None:
    """dispatch_tool sends the tool's name and input, to the tier that its override names."""
    rig.upstream.reply("3 hits")
    async with rig.router() as router:
        result = await router.dispatch_tool("web_search", {"q": "x"}, tier_overrides={"web_search": "sonnet"})
        assert (result.text, result.model) == ("3 hits", SONNET)
        assert '"q": "x"' in rig.bodies()[0]["messages"][0]["content"]
        for name in ("", "  ", 3):
            with pytest.raises(InvalidTask, match="the tool has no name"):
                await router.dispatch_tool(name, {})  # type: ignore[arg-type]
        with pytest.raises(InvalidTask, match="input of tool t is not JSON"):
            await router.dispatch_tool("t", {1, 2})  # type: ignore[arg-type]
    assert len(rig.upstream.calls()) == 1


async def test_adapting_the_request_is_noted(rig: Rig) -> None:
    """What the target model does not take is left out, and the result says so."""
    rig.upstream.reply("a, b")
    result = await _run(rig, temperature=0.2)
    assert "temperature" not in rig.bodies()[0]
    assert any("temperature" in note for note in result.notes)


async def test_local_work_stays_local(rig: Rig) -> None:
    """Recoverable small work runs on the local model, costs nothing and is compared with the baseline."""
    rig.upstream.reply("short", usage=USED)
    result = await _run(rig, task_type="summarization")
    assert (str(result.tier), result.model, result.cost_usd) == ("local", "qwen3:8b", Decimal(0))
    assert result.saved_usd == result.baseline_cost_usd == Decimal("0.0052")


# ------------------------------------------------------------------ replies that are not good enough


async def test_a_rejected_reply_is_told_what_was_wrong(rig: Rig) -> None:
    """The second request holds the rejected reply and the reason; both attempts are paid for."""
    rig.upstream.reply('{"n": "three"}', usage=USED)
    rig.upstream.reply('{"n": 3}', usage=USED)
    result = await _run(rig, json_schema=SCHEMA)
    assert result.value == {"n": 3}
    first, second = rig.bodies()
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == '{"n": "three"}'
    assert "'three' is not of type 'integer'" in second["messages"][2]["content"]
    assert [a.outcome for a in result.attempts] == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]
    assert result.attempts[0].detail == "the JSON does not satisfy the schema (properties/n/type)"
    assert result.cost_usd == Decimal("0.0004")


async def test_rejected_replies_climb_and_are_all_paid_for(rig: Rig) -> None:
    """Two bad replies of Haiku, then Sonnet, which is asked afresh; cost, ledger and report agree on the sum."""
    for text in ("nonsense", "more nonsense"):
        rig.upstream.reply(text, usage=USED)
    rig.upstream.reply('{"n": 3}', usage=USED)
    result = await _run(rig, json_schema=SCHEMA)
    assert rig.models() == [HAIKU, HAIKU, SONNET]
    assert len(rig.bodies()[2]["messages"]) == 1
    assert (str(result.tier), result.model) == ("sonnet", SONNET)
    assert result.cost_usd == Decimal("0.0044")
    assert result.baseline_cost_usd == Decimal("0.004")
    assert result.saved_usd == Decimal("-0.0004")
    call, attempts = rig.row(result.call_id)
    assert (call.tier, call.planned_tier) == ("sonnet", "haiku")
    assert sum(attempt.cost_nanousd or 0 for attempt in attempts) == usd_to_nanousd(result.cost_usd)
    assert rig.reported_usd() == result.cost_usd
    assert attempts == result.attempts


async def test_a_local_model_gets_two_retries(rig: Rig) -> None:
    """The local tier is tried three times before anything costs money."""
    for _ in range(3):
        rig.upstream.reply("nonsense")
    rig.upstream.reply('{"n": 3}')

    def is_json(text: str) -> bool:
        return text.startswith("{")

    result = await _run(rig, task_type="summarization", checks=[is_json])
    assert rig.models() == ["qwen3:8b"] * 3 + [HAIKU]
    assert result.model == HAIKU
    assert [a.detail for a in result.attempts[:3]] == ["the check is_json refused it"] * 3


async def test_a_refusal_climbs(rig: Rig) -> None:
    """A model that declines is not asked again; a more capable one is."""
    rig.upstream.fail(Fault.refusal())
    rig.upstream.reply("a, b")
    result = await _run(rig)
    assert rig.models() == [HAIKU, SONNET]
    assert result.attempts[0].outcome is OutcomeKind.REFUSED


async def test_a_truncated_reply_gets_more_room(rig: Rig) -> None:
    """max_tokens is doubled on the same model."""
    rig.upstream.fail(Fault.truncated(reply=StandInReply.of_text("a long answer")))
    rig.upstream.reply("a, b")
    await _run(rig)
    assert rig.models() == [HAIKU, HAIKU]
    first, second = (body["max_tokens"] for body in rig.bodies())
    assert second == 2 * first


async def test_an_empty_reply_is_rejected_without_sending_it_back(rig: Rig) -> None:
    """An empty turn would be a 400: the correction is added to the prompt instead."""
    rig.upstream.fail(Fault.empty())
    rig.upstream.reply("a, b")
    await _run(rig)
    (message,) = rig.bodies()[1]["messages"]
    assert "That reply cannot be used: the reply was empty" in message["content"]


async def test_when_every_rung_fails_the_error_tells_what_was_spent(rig: Rig) -> None:
    """The ladder's end is an error with the cost, the last reason and the record."""
    rig.upstream.reply("nonsense", times=None, usage=USED)
    with pytest.raises(LadderExhausted) as caught:
        await _run(rig, json_schema=SCHEMA, max_tier="sonnet")
    error = caught.value
    assert rig.models() == [HAIKU, HAIKU, SONNET, SONNET]
    assert "no acceptable answer (4 attempts, $0.0084 spent): claude-sonnet-5-5 rejected" in str(error)
    call, attempts = rig.row(error.call_id)
    assert (call.status, call.error is not None) == (CallStatus.FAILED, True)
    assert attempts == error.attempts
    assert error.decision is not None
    assert rig.reported_usd() == Decimal("0.0084")


async def test_a_fault_of_a_check_ends_the_call_and_is_recorded(rig: Rig) -> None:
    """An exception that is the check's own reaches the caller; the reply that was paid for is on record."""
    rig.upstream.reply("a, b", usage=USED)

    def broken(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(KeyError):
        await _run(rig, checks=[broken])
    call, (attempt,) = rig.only_row()
    assert (call.status, attempt.outcome, attempt.cost_nanousd) == (CallStatus.FAILED, OutcomeKind.REJECTED, 200_000)
    assert "a, b" not in f"{attempt.detail}{call.error}"


# ------------------------------------------------------------------ faults of the wire


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.rate_limited(retry_after=7), OutcomeKind.RATE_LIMITED),
        (Fault.status(529), OutcomeKind.OVERLOADED),
        (Fault.status(500), OutcomeKind.SERVER_ERROR),
        (Fault.status(502, body=b"<html>bad gateway</html>"), OutcomeKind.SERVER_ERROR),
        (Fault.reset(), OutcomeKind.CONNECTION),
        (Fault.cut(after_events=4), OutcomeKind.CONNECTION),
        (Fault.cut(after_events=4, clean=True), OutcomeKind.CONNECTION),
        (Fault.stall(), OutcomeKind.TIMEOUT),
        (Fault.stall(after_events=4), OutcomeKind.TIMEOUT),
        (Fault.malformed_json(), OutcomeKind.SERVER_ERROR),
        (Fault.malformed_sse(), OutcomeKind.SERVER_ERROR),
        (Fault.error_event("overloaded_error"), OutcomeKind.OVERLOADED),
    ],
    ids=lambda value: value.kind.value + str(value.code) if isinstance(value, Fault) else value.value,
)
async def test_transient_faults_are_waited_out_on_the_same_model(rig: Rig, fault: Fault, kind: OutcomeKind) -> None:
    """Whatever breaks in passing: a wait, the same model, the same request, and an answer."""
    rig.upstream.fail(fault)
    rig.upstream.reply("a, b")
    result = await _run(rig, patience=IMPATIENT if kind is OutcomeKind.TIMEOUT else 60.0)
    assert rig.models() == [HAIKU, HAIKU]
    assert rig.bodies()[0] == rig.bodies()[1]
    assert [attempt.outcome for attempt in result.attempts] == [kind, OutcomeKind.ACCEPTED]
    assert len(rig.clock.slept) == 1
    waited = rig.clock.slept[0]
    assert waited == (7 + 0.25 / 4 if fault.headers else 0.25)
    assert result.attempts[1].wait_ms == round(waited * 1000)
    assert rig.row(result.call_id)[1] == result.attempts
    # A model may have worked on what was given up; a beginning told that it did.
    may_have_cost = fault.kind is FaultKind.STALL or fault.after_events > 0
    assert ((result.attempts[0].cost_nanousd or 0) > 0) is may_have_cost


async def test_a_cut_answer_is_paid_for(rig: Rig) -> None:
    """What a broken stream had used by then is in the cost."""
    half = StandInReply.of_text("a long answer " * 20, usage=USED)
    rig.upstream.fail(Fault.cut(after_events=6, reply=half))
    rig.upstream.reply("a, b", usage=USED)
    result = await _run(rig)
    broken = result.attempts[0]
    assert broken.usage.input_tokens == 1000
    assert broken.cost_nanousd is not None
    assert broken.cost_nanousd >= 100_000
    assert result.cost_usd == nanousd_to_usd(broken.cost_nanousd + 200_000)


async def test_faults_that_stay_climb(rig: Rig) -> None:
    """After three retries the next tier is asked."""
    rig.upstream.fail(Fault.status(529), times=4)
    rig.upstream.reply("a, b")
    result = await _run(rig)
    assert rig.models() == [HAIKU] * 4 + [SONNET]
    assert rig.clock.slept == [0.25, 0.5, 1.0]
    assert result.model == SONNET


async def test_a_wrong_key_stops_at_once(rig: Rig) -> None:
    """401: one request, an error that names the status, nothing spent, and no key in what is shown or stored."""
    rig.upstream.api_key = "another"
    with pytest.raises(RequestRefusedByProvider, match="the provider refuses the request") as caught:
        await _run(rig)
    assert "401" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(rig.upstream.calls()) == 1
    call, (attempt,) = rig.only_row()
    assert (call.status, attempt.outcome, attempt.cost_nanousd) == (
        CallStatus.FAILED, OutcomeKind.UNAUTHORIZED, 0,
    )  # fmt: skip


async def test_what_a_provider_quotes_is_told_and_not_recorded(rig: Rig) -> None:
    """An upstream's error may quote the prompt: the caller reads it, the ledger keeps status and type only."""
    rig.upstream.fail(Fault.status(400, "messages.0: cannot read 'my secret plan'"))
    with pytest.raises(RequestRefusedByProvider, match="my secret plan"):
        await _run(rig)
    call, (attempt,) = rig.only_row()
    assert attempt.detail == "anthropic answered 400 (invalid_request_error)"
    assert "secret" not in f"{call}{attempt}"


async def test_a_request_of_ours_that_is_wrong_stops_at_once(rig: Rig) -> None:
    """400: trying again, here or above, would be the same mistake."""
    rig.upstream.fail(Fault.status(400, "messages: something is wrong"))
    with pytest.raises(RequestRefusedByProvider, match="something is wrong"):
        await _run(rig)
    assert len(rig.upstream.calls()) == 1


async def test_a_model_that_is_not_there_is_passed_over(rig: Rig) -> None:
    """404: the next tier at once."""
    del rig.upstream.models[HAIKU]
    rig.upstream.reply("a, b")
    result = await _run(rig)
    assert rig.models() == [HAIKU, SONNET]
    assert (result.attempts[0].outcome, rig.clock.slept) == (OutcomeKind.UNAVAILABLE, [])


async def test_a_prompt_too_long_for_a_model_goes_up(rig: Rig) -> None:
    """A 400 about length says that another model may do."""
    rig.upstream.fail(Fault.status(400, "prompt is too long: 300000 tokens > 200000 maximum"))
    rig.upstream.reply("a, b")
    result = await _run(rig)
    assert result.attempts[0].outcome is OutcomeKind.TOO_LARGE
    assert result.model == SONNET


async def test_a_local_server_that_dies_in_its_answer_is_climbed_over(rig: Rig) -> None:
    """The local model breaks off every time: the work goes on at Haiku, and nothing is lost."""

    def local_dies(request: RecordedRequest) -> StandInReply | Fault | None:
        local = isinstance(request.json, dict) and request.json["model"] == "qwen3:8b"
        return Fault.reset(after_events=4) if local else StandInReply.of_text("short")

    rig.upstream.handler = local_dies
    result = await _run(rig, task_type="summarization")
    assert result.model == HAIKU
    assert [a.outcome for a in result.attempts] == [OutcomeKind.CONNECTION] * 4 + [OutcomeKind.ACCEPTED]


# ------------------------------------------------------------------ what cannot be run


async def test_without_a_key_nothing_is_sent(rig: Rig) -> None:
    """No key: the plan with its costs, a NOT_RUN row, and not one request."""
    async with rig.router(key=None) as router:
        with pytest.raises(NotRun, match=r"not run: .*no API key: set ANTHROPIC_API_KEY") as caught:
            await router.run("put these in order", task_type="ranking")
    error = caught.value
    assert error.decision is not None
    assert (error.decision.model.id, error.decision.estimated_cost_usd > 0) == (HAIKU, True)
    assert rig.upstream.requests == []
    call, attempts = rig.row(error.call_id)
    assert (call.status, call.model, attempts) == (CallStatus.NOT_RUN, HAIKU, ())
    assert rig.reported_usd() == 0


async def test_without_a_key_local_work_still_runs(rig: Rig) -> None:
    """The local tier needs no key; its climb ends where one would be needed, and the error says so."""
    rig.upstream.reply("short")
    async with rig.router(key=None) as router:
        result = await router.run("sum it up", task_type="summarization")
        assert result.model == "qwen3:8b"
        rig.upstream.reply("nonsense", times=None)
        with pytest.raises(LadderExhausted, match=r"could not climb further \(claude-haiku-5-5: no API key"):
            await router.run("sum it up", task_type="summarization", json_schema=SCHEMA)


async def test_without_a_local_model_the_work_goes_up(rig: Rig) -> None:
    """Nothing local is there: Haiku does it, the reasons say why, and the question is not asked again at once."""
    rig.upstream.ollama_models = None
    rig.upstream.reply("short", times=None)
    async with rig.router() as router:
        for _ in range(2):
            result = await router.run("sum it up", task_type="summarization")
            assert result.model == HAIKU
        ruled_out = [reason.text for reason in result.decision.reasons if reason.step == "ruled_out"]
        assert "qwen3:8b (local)" in ruled_out[0]
    assert len(rig.upstream.calls("/api/version")) == 1


async def test_a_local_model_is_looked_for_again_later(rig: Rig) -> None:
    """That a model was missing is believed for seconds only."""
    rig.upstream.ollama_models = None
    rig.upstream.reply("short", times=None)
    async with rig.router() as router:
        assert (await router.run("sum up", task_type="summarization")).model == HAIKU
        rig.upstream.ollama_models = ("qwen3:8b",)
        rig.clock.seconds += 3
        assert (await router.run("sum up", task_type="summarization")).model == "qwen3:8b"


async def test_a_ceiling_below_the_first_rung_blocks(rig: Rig) -> None:
    """Nothing is sent, nothing cheaper is tried, and the row says why."""
    with pytest.raises(CostCeilingExceeded, match="over the ceiling of") as caught:
        await _run(rig, task_type="debugging", max_cost_usd="0.0001")
    assert rig.upstream.requests == []
    assert rig.row(caught.value.call_id)[0].status is CallStatus.NOT_RUN


async def test_the_ceiling_stops_a_climb(rig: Rig) -> None:
    """Replies that cost more than expected use the ceiling up: the climb stops before the next attempt."""
    rig.upstream.reply("nonsense", times=None, usage={"input_tokens": 100_000, "output_tokens": 100_000})
    with pytest.raises(
        CostCeilingExceeded, match=r"stopped at the cost ceiling \(1 attempt, \$0\.06 spent\)"
    ) as caught:
        await _run(rig, json_schema=SCHEMA, max_cost_usd="0.06")
    assert rig.models() == [HAIKU]
    assert rig.row(caught.value.call_id)[0].status is CallStatus.FAILED
    assert rig.reported_usd() == Decimal("0.06")


async def test_the_deadline_counts_waits(rig: Rig) -> None:
    """A server that wants a longer wait than there is time for is not waited for."""
    rig.upstream.fail(Fault.rate_limited(retry_after=8), times=None)
    with pytest.raises(DeadlineExceeded, match=r"stopped at the deadline \(1 attempt, \$0\.00 spent\)"):
        await _run(rig, max_latency_seconds=5.0)
    assert rig.clock.slept == []


async def test_no_time_at_all_sends_nothing(rig: Rig) -> None:
    """A deadline of zero is over before the first attempt: nothing is sent, and the row says so."""
    with pytest.raises(DeadlineExceeded, match="0 attempts") as caught:
        await _run(rig, max_latency_seconds=0)
    assert rig.upstream.requests == []
    assert rig.row(caught.value.call_id)[0].status is CallStatus.NOT_RUN


async def test_the_deadline_cuts_an_attempt_off(rig: Rig) -> None:
    """An attempt gets only the time that is left, and a late one is not tried again."""

    def slow(request: RecordedRequest) -> Fault:
        rig.clock.seconds += 10
        return Fault.stall()

    rig.upstream.handler = slow
    with pytest.raises(DeadlineExceeded):
        await _run(rig, max_latency_seconds=0.2)
    assert [a.outcome for a in rig.only_row()[1]] == [OutcomeKind.TIMEOUT]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"json_schema": {"type": "objekt"}}, InvalidTask, "JSON schema is not valid"),
        ({"json_schema": {"$ref": "http://x/"}}, InvalidTask, "not fetched"),
        ({"tokens_inn": 3}, InvalidTask, "did you mean 'tokens_in'"),
        ({"text": "x"}, InvalidTask, "unknown option 'text'"),
        ({"checks": ["not callable"]}, InvalidTask, "the check 'not callable' is no plain function"),
        ({"checks": [asyncio.sleep]}, InvalidTask, "is no plain function of the reply's text"),
    ],
)
async def test_a_task_that_cannot_be_is_refused_before_anything(
    rig: Rig, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Nothing is sent and nothing recorded for what is the caller's mistake."""
    with pytest.raises(error, match=message):
        await _run(rig, **options)
    assert rig.upstream.requests == []
    assert list(rig.ledger.calls()) == []


@pytest.mark.parametrize("text", ["", "  \n "])
async def test_an_empty_task_is_refused(rig: Rig, text: str) -> None:
    """There is nothing to do, and the error says so."""
    async with rig.router() as router:
        with pytest.raises(InvalidTask, match="empty"):
            await router.run(text)


async def test_ten_megabytes_are_refused_for_what_they_are(rig: Rig) -> None:
    """A text beyond every context: an error about the context, at once, and nothing sent."""
    async with rig.router() as router:
        with pytest.raises(NoRouteError, match="do not fit its context"):
            await router.run("sum this up: " + "word " * 2_000_000, task_type="summarization")
    assert rig.upstream.calls() == []


async def test_lone_surrogates_are_sent_as_what_they_can_be(rig: Rig) -> None:
    """Half a character does not lose the call."""
    rig.upstream.reply("ok")
    async with rig.router() as router:
        assert (await router.run("order \ud800 this", task_type="ranking")).text == "ok"
    assert "order \ufffd this" in rig.bodies()[0]["messages"][0]["content"]


# ------------------------------------------------------------------ giving up


@pytest.mark.parametrize("after", [0, 5])
async def test_a_cancelled_call_hangs_up_and_leaves_its_record(rig: Rig, after: int) -> None:
    """Cancelled before or within the answer: the upstream sees the hang-up, the ledger has the call and its cost."""
    rig.upstream.fail(Fault.stall(after_events=after, reply=StandInReply.of_text("word " * 50, usage=USED)))
    async with rig.router() as router:
        running = asyncio.create_task(router.run("order these", task_type="ranking"))
        await until(rig.upstream.calls)
        if after:
            await asyncio.sleep(0.05)  # the events are on their way; how many arrived is not asserted
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    (request,) = rig.upstream.calls()
    assert await asyncio.to_thread(request.wait_finished)
    assert request.closed_early
    call, (attempt,) = rig.only_row()
    assert (call.status, attempt.outcome) == (CallStatus.CANCELLED, OutcomeKind.CANCELLED)
    assert attempt.cost_nanousd is not None
    assert attempt.cost_nanousd > 0
    assert (attempt.usage.estimated or attempt.usage.input_tokens == 1000) is True


async def test_cancelled_in_a_wait_it_ends_at_once(rig: Rig) -> None:
    """Giving up during a back-off ends the call without another request."""
    waiting = asyncio.Event()

    class Patient(type(rig.clock)):  # type: ignore[misc]
        async def sleep(self, seconds: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

    rig.upstream.fail(Fault.status(529), times=None)
    async with rig.router(clock=Patient()) as router:
        running = asyncio.create_task(router.run("order these", task_type="ranking"))
        await waiting.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    call, (attempt,) = rig.only_row()
    assert (call.status, attempt.outcome) == (CallStatus.CANCELLED, OutcomeKind.OVERLOADED)
    assert len(rig.upstream.calls()) == 1


# ------------------------------------------------------------------ many at once, and models in trouble


async def test_fifty_at_once_are_kept_apart(rig: Rig) -> None:
    """Each caller gets its own answer, and each call its own record; nothing is lost or mixed up."""

    def echo(request: RecordedRequest) -> StandInReply | Fault:
        text = request.json["messages"][0]["content"]  # type: ignore[index,call-overload]
        number = int(text.split()[-1])  # type: ignore[union-attr]
        fresh = len(request.json["messages"]) == 1  # type: ignore[index,arg-type,call-overload]
        if number % 10 == 7 and sum(1 for r in rig.upstream.calls() if r.body == request.body) == 1:
            return Fault.status(529)
        return StandInReply.of_json({"n": number if number % 5 or not fresh else "x"}, usage=USED)

    rig.upstream.handler = echo
    async with rig.router() as router:
        results = await asyncio.gather(
            *(router.run(f"count {n}", task_type="ranking", json_schema=SCHEMA) for n in range(50))
        )
    assert [result.value for result in results] == [{"n": n} for n in range(50)]
    assert len({result.call_id for result in results}) == 50
    stored = {row.call.call_id: row for row in rig.ledger.calls()}
    for result in results:
        assert stored[result.call_id].attempts == result.attempts
        assert stored[result.call_id].call.status is CallStatus.ANSWERED
    assert rig.reported_usd() == sum(result.cost_usd or 0 for result in results)


async def test_a_circuit_opens_and_half_opens(rig: Rig) -> None:
    """A model that fails twice in a row is left alone for its time, then tried again, and used again."""
    more = QUIET + "circuit_failures = 2\ncircuit_open_seconds = 30\n"
    sick = [True]

    def handler(request: RecordedRequest) -> StandInReply | Fault:
        model = request.json["model"]  # type: ignore[index,call-overload]
        return Fault.status(500) if sick[0] and model == HAIKU else StandInReply.of_text("a, b")

    rig.upstream.handler = handler
    async with rig.router(more) as router:

        async def models() -> list[str]:
            before = len(rig.models())
            result = await router.run("order these", task_type="ranking")
            assert result.text == "a, b"
            return rig.models()[before:]

        assert await models() == [HAIKU, SONNET]
        assert await models() == [HAIKU, SONNET]
        assert await models() == ["claude-haiku-4-5"]  # the tier's next model
        decision = router.route("order these", task_type="ranking")
        assert "its circuit is open after 2 failures in a row, for another 30 s" in "".join(
            reason.text for reason in decision.reasons
        )
        rig.clock.seconds += 30
        assert await models() == [HAIKU, SONNET]  # half open: one failure opens it again
        assert await models() == ["claude-haiku-4-5"]
        rig.clock.seconds += 30
        sick[0] = False
        assert await models() == [HAIKU]
        assert await models() == [HAIKU]


async def test_with_every_circuit_open_nothing_is_sent_and_it_is_recorded(rig: Rig) -> None:
    """All models in trouble: NotRun with the plan, and a row."""
    more = (
        QUIET
        + "circuit_failures = 1\n"
        + "".join(
            f"[tiers.{name}]\nmodels = ['{model}']\nretries = 0\n"
            for name, model in (("haiku", HAIKU), ("sonnet", SONNET), ("opus", OPUS))
        )
    )
    rig.upstream.fail(Fault.status(500), times=None)
    async with rig.router(more) as router:
        with pytest.raises(LadderExhausted):
            await router.run("order these", task_type="ranking")
        sent = len(rig.upstream.calls())
        with pytest.raises(NotRun, match="its circuit is open") as caught:
            await router.run("order these", task_type="ranking")
        assert len(rig.upstream.calls()) == sent
        assert rig.row(caught.value.call_id)[0].status is CallStatus.NOT_RUN


# ------------------------------------------------------------------ a ledger in trouble, a clock in trouble


async def test_an_answer_does_not_depend_on_the_ledger(rig: Rig, tmp_path: Path, capfd: Any) -> None:
    """Where no disk takes the record the answer still comes, says that it is not recorded, and the record is kept."""
    (tmp_path / "blocked").write_text("a file where a folder should be")
    problems: list[str] = []
    ledger = Ledger(tmp_path / "blocked" / "ledger.db", on_problem=problems.append, spool_dirs=())
    rig.upstream.reply("a, b")
    async with rig.router(ledger=ledger) as router:
        result = await router.run("order these", task_type="ranking")
    assert (result.text, result.recorded) == ("a, b", False)
    assert problems
    ledger.close()
    assert result.call_id in capfd.readouterr().err


async def test_a_corrupt_ledger_does_not_stop_a_call(rig: Rig, tmp_path: Path) -> None:
    """A file that is no database: the answer comes, the record waits beside it, the file is left as it is."""
    path = tmp_path / "broken" / "ledger.db"
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 500)
    problems: list[str] = []
    rig.upstream.reply("a, b")
    ledger = Ledger(path, on_problem=problems.append, spool_dirs=[tmp_path / "spool"])
    async with rig.router(ledger=ledger) as router:
        result = await router.run("order these", task_type="ranking")
    assert (result.text, result.recorded) == ("a, b", False)
    assert problems
    assert path.read_bytes().startswith(b"this is no database")
    assert ledger.waiting()


async def test_a_router_may_record_nothing(rig: Rig) -> None:
    """record=False keeps everything in memory; results still carry their attempts."""
    rig.upstream.reply("a, b", usage=USED)
    async with rig.router(ledger=None, record=False) as router:
        result = await router.run("order these", task_type="ranking")
        assert router.ledger is None
    assert (result.recorded, result.cost_usd) == (False, Decimal("0.0002"))
    assert list(rig.ledger.calls()) == []


async def test_a_clock_that_jumps_back_loses_nothing(rig: Rig) -> None:
    """A wall clock set back by a day between two calls: both are recorded and priced as of their own moments."""
    rig.upstream.reply("a, b", times=None, usage=USED)

    class Jumping(type(rig.clock)):  # type: ignore[misc]
        back = timedelta(0)

        def now(self) -> Any:
            return super().now() - self.back

    clock = Jumping()
    async with rig.router(clock=clock) as router:
        first = await router.run("order these", task_type="ranking")
        clock.back = timedelta(days=50)
        second = await router.run("order these", task_type="debugging", max_tier="sonnet")
    rows = {row.call.call_id: row.call for row in rig.ledger.calls()}
    assert rows[second.call_id].started_at_ms < rows[first.call_id].started_at_ms
    assert second.attempts[0].price is not None
    assert second.attempts[0].price.bands[0].cache_read == Decimal("0.20")
    assert rig.reported_usd() == Decimal("0.0042")


# ------------------------------------------------------------------ providers and configuration of one's own


class Echo:
    """A provider that is its own upstream."""

    def __init__(self) -> None:
        self.closed = False

    async def send(self, request: ModelRequest) -> Reply:
        """Echoes."""
        return Reply(
            message={"content": []},
            text=f"echo from {request.model.id}",
            stop_reason="end_turn",
            usage=Usage(1, 1),
            model="echo",
        )

    async def check(self, model: Model) -> Availability:
        """Always there."""
        return Availability(True)

    async def aclose(self) -> None:
        """Notes it."""
        self.closed = True


async def test_a_provider_handed_in_needs_no_key(rig: Rig) -> None:
    """A caller's own provider is used instead of the configured one, without that one's key, and is closed."""
    echo = Echo()
    async with rig.router(key=None, providers={"anthropic": echo}) as router:
        result = await router.run("order these", task_type="ranking")
    assert result.text == f"echo from {HAIKU}"
    assert result.attempts[0].reported_model == "echo"
    assert echo.closed
    assert rig.upstream.requests == []


class Broken(Echo):
    """A provider with a bug."""

    async def send(self, request: ModelRequest) -> Reply:
        """Fails in a way no provider should."""
        raise ZeroDivisionError


async def test_a_bug_in_a_provider_loses_no_record(rig: Rig) -> None:
    """An exception that is no ProviderFailure reaches the caller; call and attempt are closed in the ledger."""
    async with rig.router(providers={"anthropic": Broken()}) as router:
        with pytest.raises(ZeroDivisionError):
            await router.run("order these", task_type="ranking")
    call, (attempt,) = rig.only_row()
    assert (call.status, attempt.outcome) == (CallStatus.FAILED, OutcomeKind.SERVER_ERROR)
    assert "ZeroDivisionError" in (call.error or "")


async def test_a_provider_that_cannot_be_built_is_not_recorded_as_sent(rig: Rig) -> None:
    """An unknown kind is a configuration error, and no attempt is on record for it."""
    async with rig.router("[providers.odd]\nkind = 'odd'\n[tiers.odd]\nmodels = ['odd:m']\n"
                          "[[prices]]\nmodel = 'm'\ninput = 0\noutput = 0\n") as router:  # fmt: skip
        with pytest.raises(ConfigError, match=r"providers\.odd\.kind is 'odd'; use one of anthropic"):
            await router.run("order these", tier="odd", task_type="ranking")
    call, attempts = rig.only_row()
    assert (call.status, attempts) == (CallStatus.FAILED, ())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[overrides.types]\nsumarization = 'opus'",
         r"overrides.types.sumarization in .*tierwise.toml is no task type; did you mean 'summarization'"),
        ("[policy.output_tokens]\nzzz = 3", "policy.output_tokens.zzz .*is no task type"),
    ],
)  # fmt: skip
def test_a_misspelt_task_type_in_the_configuration_is_an_error(rig: Rig, more: str, message: str) -> None:
    """An override for a type that does not exist would never match; it is said at once."""
    with pytest.raises(ConfigError, match=message):
        rig.router(more)


def test_overrides_for_types_of_ones_own_are_fine(rig: Rig) -> None:
    """A type that the configuration itself declares is a type."""
    own = "[task_types.triage]\nfamily = 'mine'\nneeds = 'processing'\nrecoverable = true\n"
    router = rig.router(own + "[overrides.types]\ntriage = 'opus'")
    assert router.route("x", task_type="triage").tier.name == "opus"


def test_routing_sends_nothing(rig: Rig) -> None:
    """`route` and `classify` ask no server and write nothing."""
    router = rig.router(key=None)
    decision = router.route("Summarise this ticket in one line", tokens_in=100)
    assert decision.classification.task_type.name == router.classify("Summarise this ticket in one line").task_type.name
    assert rig.upstream.requests == []
    assert not rig.ledger.path.exists()


async def test_a_local_model_that_costs_by_the_hour_is_charged_for_its_time(rig: Rig) -> None:
    """Five seconds at $3.60 an hour are half a cent, on the attempt, in the result and in the report."""

    def slow(request: RecordedRequest) -> StandInReply:
        rig.clock.seconds += 5
        return StandInReply.of_text("short", usage=USED)

    rig.upstream.handler = slow
    prices = "[[prices]]\nmodel = 'qwen3:8b'\ninput = 0\noutput = 0\nusd_per_hour = '3.6'\n"
    result = await _run(rig, prices, task_type="summarization")
    assert (result.model, result.cost_usd, result.latency_ms) == ("qwen3:8b", Decimal("0.005"), 5000)
    assert rig.reported_usd() == Decimal("0.005")


async def test_the_configured_project_is_recorded(rig: Rig) -> None:
    """A call that names no project belongs to the configured one."""
    rig.upstream.reply("a, b", times=None)
    settings = dataclasses.replace(rig.router().settings, project="configured")
    async with AsyncRouter(settings, ledger=rig.ledger, clock=rig.clock) as router:
        own = await router.run("order these", task_type="ranking", project="own")
        other = await router.run("order these", task_type="ranking")
    assert rig.row(own.call_id)[0].project == "own"
    assert rig.row(other.call_id)[0].project == "configured"


async def test_measured_speeds_of_local_models_reach_the_decision(rig: Rig) -> None:
    """A local model that was slow in the ledger's records is judged by that, not by what is assumed."""
    settings: Settings = rig.router().settings
    assert settings.catalog.bottom.models[0].output_tokens_per_second == 25

    def slow(request: RecordedRequest) -> StandInReply:
        rig.clock.seconds += 1_000
        return StandInReply.of_text("short", usage={"input_tokens": 100, "output_tokens": 100})

    rig.upstream.handler = slow
    async with rig.router() as router:
        assert (await router.run("sum it up", task_type="summarization")).model == "qwen3:8b"
    later = rig.router().route("sum it up", task_type="summarization")
    assert later.tier.name == "haiku"
    assert "measured speed" in "".join(reason.text for reason in later.reasons)
