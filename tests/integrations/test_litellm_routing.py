"""LiteLLM's own router, with tierwise as the one who chooses the tier and keeps the records."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import tierwise
from tests.integrations.conftest import Host
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Ledger
from tierwise.ledger.store import StoredCall
from tierwise.testing import Fault, StandInReply, StandInUpstream

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for prices when imported
litellm = pytest.importorskip("litellm", reason="not installed: pip install -r requirements/dev.txt")

from litellm.types.router import RouterRateLimitError  # noqa: E402  once LiteLLM is known to be there

from tierwise.integrations.litellm import TierRouting, register  # noqa: E402

# LiteLLM imports itself bit by bit, and pydantic has a word to say of its types.
pytestmark = pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
EASY = [{"role": "user", "content": "Summarise this ticket in one line: the printer burns"}]
HARD = [{"role": "user", "content": "Is this indemnity clause enforceable in Texas? We sign tomorrow."}]
USAGE = {
    "input_tokens": 100,
    "output_tokens": 10,
    "cache_read_input_tokens": 50,
    "cache_creation_input_tokens": 7,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
}


class Routed:
    """LiteLLM's router with a deployment for each tier, and what became of its calls."""

    def __init__(self, host: Host, **options: Any) -> None:
        self.host = host
        self.routing = TierRouting(groups=["auto"], settings=host.settings)
        litellm.callbacks = [self.routing]
        litellm.suppress_debug_info = True
        models = options.pop("models", (HAIKU, SONNET, OPUS))
        self.router = litellm.Router(
            model_list=[self.deployment(model) for model in models] + options.pop("others", []),
            retry_after=0,
            **{"num_retries": 0, **options},
        )

    def deployment(self, model: str, group: str = "auto", **info: str) -> dict[str, Any]:
        """A deployment of a group."""
        params = {"model": f"anthropic/{model}", "api_base": self.host.upstream.url, "api_key": "sk-ant-of-litellm"}
        return {"model_name": group, "litellm_params": params, "model_info": info}

    async def ask(self, messages: Any = EASY, group: str = "auto", **given: Any) -> Any:
        """One call; of a stream, all of it."""
        done = await self.router.acompletion(model=group, messages=messages, **given)
        return [chunk async for chunk in done] if given.get("stream") else done

    async def calls(self, attempts: int) -> list[StoredCall]:
        """What the ledger has, once that many attempts are there: LiteLLM tells of them when it finds the time."""
        async with asyncio.timeout(60):
            while True:
                found = self.host.calls() if self.host.settings.ledger.path.exists() else []
                if sum(len(one.attempts) for one in found) >= attempts:
                    return found
                await asyncio.sleep(0.02)


@pytest.fixture
async def routed(host: Host) -> AsyncIterator[Routed]:
    """A router with three tiers, and nothing of it left for other tests."""
    found = Routed(host)
    yield found
    found.routing.close()
    litellm.custom_provider_map = []
    for name in ("callbacks", "input_callback", "success_callback", "failure_callback"):
        setattr(litellm, name, [])
    litellm._async_success_callback, litellm._async_failure_callback = [], []


def again(routed: Routed, **options: Any) -> Routed:
    """The same with other options of LiteLLM's router."""
    routed.routing.close()
    return Routed(routed.host, **options)


async def test_each_call_goes_to_its_tier(routed: Routed, host: Host) -> None:
    """tierwise chooses the tier, LiteLLM sends with its own key, and the ledger has the decision and the cost once."""
    host.upstream.reply("It burns.", usage=USAGE)
    done = await routed.ask()
    await routed.ask(HARD)
    easy, hard = await routed.calls(2)
    assert host.models() == [HAIKU, OPUS]
    assert host.upstream.calls()[0].headers["x-api-key"] == "sk-ant-of-litellm"
    assert (easy.call.status, easy.call.tier, easy.call.planned_tier) == (CallStatus.ANSWERED, "haiku", "haiku")
    assert easy.call.task_type == "summarization"
    assert easy.call.reasons
    assert easy.call.ladder is not None
    assert (easy.call.ladder[0].tier, easy.call.ladder[0].model) == ("haiku", easy.call.model)
    (attempt,) = easy.attempts
    usage = attempt.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (100, 10, 50)
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (3, 4)
    assert attempt.cost_nanousd == round(done._hidden_params["response_cost"] * 1e9) > 0
    assert easy.call.baseline_nanousd is not None
    assert easy.call.baseline_nanousd > attempt.cost_nanousd
    assert (hard.call.tier, hard.attempts[0].outcome) == ("opus", OutcomeKind.ACCEPTED)


async def test_stream_is_recorded_once_with_its_last_usage(routed: Routed, host: Host) -> None:
    """A stream's usage is what its end says, cached tokens included, and it is one attempt."""
    host.upstream.reply("It burns.", usage=USAGE)
    chunks = await routed.ask(stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It burns."
    (found,) = await routed.calls(1)
    await asyncio.sleep(0.2)  # a second record of it would come now
    (found,) = routed.host.calls()
    (attempt,) = found.attempts
    assert (attempt.usage.prompt_tokens, attempt.usage.output_tokens) == (157, 10)
    assert (attempt.usage.cache_read_tokens, attempt.usage.cache_write_1h_tokens) == (50, 4)
    assert attempt.ttft_ms is not None
    assert found.call.status is CallStatus.ANSWERED


async def test_retry_climbs(routed: Routed, host: Host) -> None:
    """What failed is not asked again while another is well: the retry goes up, and is an attempt of the same call."""
    climbing = again(routed, num_retries=2)
    host.upstream.fail(Fault.status(500))
    host.upstream.fail(Fault.status(529))
    await climbing.ask()
    (found,) = await climbing.calls(3)
    assert host.models() == [HAIKU, SONNET, OPUS]
    by_time = sorted(found.attempts, key=lambda attempt: attempt.started_at_ms)
    assert [attempt.model for attempt in by_time] == [HAIKU, SONNET, OPUS]
    kinds = {attempt.outcome for attempt in by_time[:2]}
    assert OutcomeKind.ACCEPTED not in kinds
    assert (found.call.status, found.call.tier, found.call.planned_tier) == (CallStatus.ANSWERED, "opus", "haiku")
    assert any(reason.step == "availability" for reason in found.call.reasons)


async def test_cooling_deployments_are_left_alone(routed: Routed, host: Host) -> None:
    """While a tier's only deployment cools down, its calls go up; when nothing above is left, LiteLLM says so."""
    cooling = again(routed, models=(HAIKU, SONNET), allowed_fails=0, cooldown_time=60)
    host.upstream.fail(Fault.status(429))
    with pytest.raises(litellm.RateLimitError):
        await cooling.ask()
    await cooling.ask()
    assert host.models() == [HAIKU, SONNET]
    with pytest.raises(RouterRateLimitError, match="No deployments available"):
        await cooling.ask(HARD)
    assert host.models() == [HAIKU, SONNET]
    *_, nowhere = await cooling.calls(2)
    assert (nowhere.call.status, nowhere.call.planned_tier, nowhere.attempts) == (CallStatus.NOT_RUN, "opus", ())
    assert "no deployment in 'auto'" in str(nowhere.call.error)


async def test_failure_is_a_failure(routed: Routed, host: Host) -> None:
    """A call that fails is recorded as failed, also where its stream broke off; what it used by then is counted."""
    host.upstream.fail(Fault.status(400))
    with pytest.raises(litellm.BadRequestError):
        await routed.ask()
    host.upstream.fail(Fault.error_event(after_events=4))
    with pytest.raises(Exception):  # noqa: B017  LiteLLM's own, of several kinds
        await routed.ask(stream=True)
    refused, broken = await routed.calls(2)
    assert [one.call.status for one in (refused, broken)] == [CallStatus.FAILED, CallStatus.FAILED]
    assert refused.attempts[0].outcome is OutcomeKind.INVALID_REQUEST
    assert refused.attempts[0].cost_nanousd == 0
    assert broken.attempts[0].usage.prompt_tokens > 0
    assert (broken.attempts[0].cost_nanousd or 0) > 0


async def test_conversation_stays_on_its_model(routed: Routed, host: Host) -> None:
    """A later turn that a lower tier would do stays where the conversation is, in the middle of a turn above all."""
    host.upstream.reply(
        StandInReply(
            content=({"type": "tool_use", "id": "toolu_01", "name": "weather", "input": {"city": "Köln"}},),
            stop_reason="tool_use",
            usage=USAGE,
        )
    )
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    said = (await routed.ask(HARD, tools=tools)).choices[0].message
    await routed.calls(1)
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "Rain"}
    await routed.ask([*HARD, said, result], tools=tools)
    assert host.models() == [OPUS, OPUS]
    await routed.calls(2)  # LiteLLM tells of it when it finds the time: not in the next test


async def test_what_holds_for_calls(routed: Routed, host: Host) -> None:
    """`call_options` bounds what LiteLLM's router is left with, and goes into the record."""
    with tierwise.call_options(min_tier="sonnet", max_tier="sonnet", project="law"):
        await routed.ask()
    with tierwise.call_options(task="is this indemnity clause enforceable? we sign tomorrow"):
        await routed.ask()
    other = [{"role": "user", "content": "Summarise this order in one line: a lamp"}]
    await routed.ask(
        other, metadata={"user_api_key_team_alias": "Köln & co"}
    )  # as LiteLLM's proxy says whose call it is
    bounded, told, team = await routed.calls(3)
    assert host.models() == [SONNET, OPUS, HAIKU]
    assert (bounded.call.project, told.call.project, team.call.project) == ("law", None, "K_ln _ co")


async def test_tiers_are_named_by_deployments(routed: Routed, host: Host) -> None:
    """A deployment's own word of its tier goes over the catalog; one of no tier is an error that says what to do."""
    named = again(routed, models=(), others=[routed.deployment(OPUS, tierwise_tier="haiku")])
    await named.ask()
    (found,) = await named.calls(1)
    assert (found.call.tier, found.attempts[0].tier) == ("haiku", "haiku")
    for info, words in (({}, "is of no tier"), ({"tierwise_tier": "hiku"}, "unknown tier 'hiku'")):
        nameless = again(named, models=(), others=[routed.deployment("claude-of-tomorrow", **info)])
        with pytest.raises(litellm.BadRequestError, match=words):
            await nameless.ask()


async def test_other_calls_are_recorded_as_they_go(routed: Routed, host: Host) -> None:
    """Groups that are not routed, and calls around the router, go where LiteLLM sends them, and are in the ledger."""
    others = again(routed, others=[routed.deployment(SONNET, group="mine")])
    await others.ask(group="mine")
    params = others.deployment(OPUS)["litellm_params"]
    await litellm.acompletion(**params, messages=EASY)
    litellm.completion(**params, messages=EASY)
    found = await others.calls(3)
    assert host.models() == [SONNET, OPUS, OPUS]
    assert sorted(one.call.model for one in found) == [OPUS, OPUS, SONNET]
    assert {one.call.task_type for one in found} == {"summarization"}
    assert all(one.attempts[0].cost_nanousd for one in found)


async def test_responses_and_messages_are_routed_alike(routed: Routed, host: Host) -> None:
    """What a client asks in OpenAI's newer dialect, or in Anthropic's, is decided and recorded as chat is."""
    host.upstream.reply("It burns.", usage=USAGE, times=2)
    await routed.router.aresponses(model="auto", input=EASY[0]["content"])
    await routed.router.aresponses(model="auto", input=HARD)
    easy, hard = await routed.calls(2)
    assert host.models() == [HAIKU, OPUS]
    assert (easy.call.task_type, easy.call.status) == ("summarization", CallStatus.ANSWERED)
    assert (easy.attempts[0].usage.cache_read_tokens, easy.attempts[0].usage.output_tokens) == (50, 10)
    asked = [{"role": "user", "content": [{"type": "text", "text": "Summarise this in one line: the cat burns"}]}]
    await routed.router.aanthropic_messages(model="auto", messages=asked, max_tokens=100)
    *_, messages = await routed.calls(3)
    assert (messages.call.tier, messages.attempts[0].outcome) == ("haiku", OutcomeKind.ACCEPTED)
    assert hard.call.tier == "opus"


async def test_unknown_price_is_unknown(routed: Routed, host: Host) -> None:
    """A model that neither tierwise nor LiteLLM has a price for costs nothing that could be said, and not zero."""
    unknown = "claude-of-tomorrow"
    host.upstream.models[unknown] = host.upstream.models[HAIKU]
    try:
        odd = again(routed, models=(), others=[routed.deployment(unknown, tierwise_tier="haiku")])
        await odd.ask()
    finally:
        del host.upstream.models[unknown]
    (found,) = await odd.calls(1)
    assert (found.attempts[0].cost_nanousd, found.attempts[0].price) == (None, None)
    assert found.attempts[0].usage.output_tokens > 0


async def test_calls_of_tierwises_provider_are_not_counted_twice(routed: Routed, host: Host) -> None:
    """What goes through `tierwise/…` was recorded where it was carried out."""
    register(host.settings)
    await litellm.acompletion(model="tierwise/auto", messages=EASY)
    await asyncio.sleep(0.3)  # a second record of it would come now
    (found,) = host.calls()
    assert len(found.attempts) == 1


def test_synchronous_methods_are_refused(routed: Routed, host: Host) -> None:
    """LiteLLM's synchronous way asks no filter: a routed group says so, before anything is sent."""
    with pytest.raises(litellm.BadRequestError, match="use acompletion"):
        routed.router.completion(model="auto", messages=EASY)
    assert host.models() == []


async def test_metadata_may_be_used_again(routed: Routed, host: Host) -> None:
    """Requests with one dict of metadata are calls of their own, with their own attempts, however they overlap."""
    metadata: dict[str, Any] = {"mine": 1}
    patient = again(routed, num_retries=1, disable_cooldowns=True)
    host.upstream.fail(Fault.status(500))
    await patient.ask(metadata=metadata)
    await asyncio.gather(patient.ask(metadata=metadata), patient.ask(HARD, metadata=metadata))
    found = await patient.calls(4)
    models = sorted([attempt.model for attempt in one.attempts] for one in found)
    assert models == [[HAIKU], [HAIKU, SONNET], [OPUS]]


async def test_report_that_is_cancelled_is_recorded(routed: Routed, host: Host) -> None:
    """An event loop that ends while LiteLLM reports an attempt, the first or a later one, leaves its record."""
    began = datetime.now(UTC)
    for number in range(2):
        about = {
            "litellm_call_id": f"call-{number}",
            "call_type": "acompletion",
            "custom_llm_provider": "anthropic",
            "model": HAIKU,
            "messages": EASY,
            "litellm_params": {},
        }
        report = routed.routing.async_log_success_event(about, litellm.ModelResponse(), began, began)
        task = asyncio.ensure_future(report)
        await asyncio.sleep(0)  # it has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    routed.routing.close()
    assert [(one.call.status, len(one.attempts)) for one in host.calls()] == [(CallStatus.ANSWERED, 1)] * 2


def test_groups_are_a_list() -> None:
    """A lone name, whose letters would be groups, is refused."""
    with pytest.raises(tierwise.ConfigError, match="give a list"):
        TierRouting(groups="auto")


LAST_CALL = """
import asyncio, litellm, sys
from tierwise.integrations.litellm import TierRouting

litellm.callbacks = [TierRouting(groups=["auto"])]
params = {"model": "anthropic/claude-haiku-5-5", "api_base": sys.argv[1], "api_key": "sk-ant-of-litellm"}
asked = [{"role": "user", "content": "Summarise this ticket in one line: the printer burns"}]
router = litellm.Router(model_list=[{"model_name": "auto", "litellm_params": params}])
asyncio.run(router.acompletion(model="auto", messages=asked))
litellm.completion(**params, messages=asked)
"""


def test_last_call_of_a_process_is_recorded(tmp_path: Path) -> None:
    """A program may end with its last call: LiteLLM tells of it while it ends, and it is in the ledger."""
    with StandInUpstream() as upstream:
        ledger = tmp_path / "ledger.db"
        subprocess.run(
            [sys.executable, "-c", LAST_CALL, upstream.url],
            check=True,
            timeout=300,
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), "TIERWISE_LEDGER": str(ledger)},
        )
        assert len(upstream.calls()) == 2
    with Ledger(ledger) as recorded:
        found = list(recorded.calls())
    assert [(one.call.status, one.call.task_type) for one in found] == [(CallStatus.ANSWERED, "summarization")] * 2
