"""`TierwiseModel` in Pydantic AI as it is: agents, streams, outputs, settings, money, traces."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

import tierwise
from tests.integrations.conftest import Host
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import ConfigError
from tierwise.core.money import nanousd_to_usd
from tierwise.core.settings import Settings
from tierwise.testing import Fault, StandInReply

pytest.importorskip("pydantic_ai", reason="not installed: pip install -r requirements/dev.txt")
pytest.importorskip("anthropic", reason="not installed: pip install -r requirements/dev.txt")

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput, PromptedOutput, RunContext, ToolOutput, UsageLimits
from pydantic_ai.direct import model_request_batch, model_request_stream
from pydantic_ai.exceptions import ModelHTTPError, ModelRequestTimeout, UsageLimitExceeded
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ThinkingPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.batch import BatchRequest
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.test import TestModel as ElsewhereModel
from pydantic_ai.native_tools import CodeExecutionTool, WebFetchTool, WebSearchTool
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.tools import Tool, ToolDefinition

from tierwise.integrations.pydantic_ai import TierwiseModel, TierwiseModelSettings, TierwiseProvider

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
SUMMARY = "Summarise this ticket in one line: the printer burns"
THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "stand-in-signature"}
CALL = StandInReply(
    content=(
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
    ),
    stop_reason="tool_use",
)
WEATHER = ToolDefinition(
    name="weather", parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}}
)
PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")


class Title(BaseModel):
    """What structured output is asked for."""

    title: str


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@pytest.fixture
def model(host: Host) -> TierwiseModel:
    """The model, over the stand-in."""
    return TierwiseModel(provider=TierwiseProvider(settings=host.settings))


def spent(host: Host) -> Decimal:
    """What the ledger has of all attempts of all calls."""
    costs = [attempt.cost_nanousd for found in host.calls() for attempt in found.attempts]
    return nanousd_to_usd(sum(cost for cost in costs if cost is not None))


# ------------------------------------------------------------------ calls


def test_request_is_routed_and_recorded(host: Host, model: TierwiseModel) -> None:
    """A request goes to its tier; its response tells model, usage with cached tokens, cost and the ledger's call."""
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50}
    host.upstream.reply("It burns.", usage=usage)
    done = Agent(model).run_sync(SUMMARY)
    found = host.call()
    assert (done.output, done.response.model_name) == ("It burns.", HAIKU)
    assert done.response.provider_details is not None
    assert done.response.provider_details["tierwise"] == {
        "call_id": found.call.call_id,
        "task_type": found.call.task_type,
        "tier": "haiku",
    }
    assert (done.usage.input_tokens, done.usage.cache_read_tokens, done.usage.output_tokens) == (150, 50, 10)
    assert done.usage.cost == spent(host) > 0


async def test_stream_is_the_same_and_knows_its_cost_at_its_end(host: Host, model: TierwiseModel) -> None:
    """A stream's parts, usage and cost are those of a whole response; until its end its cost is unknown, not zero."""
    blocks = (THOUGHT, *CALL.content)
    host.upstream.reply(StandInReply(content=blocks, stop_reason="tool_use"), times=2)
    asked: Any = [ModelRequest(parts=[UserPromptPart(SUMMARY)])]
    parameters = ModelRequestParameters(function_tools=[WEATHER])
    whole = await model.request(asked, {"thinking": "high"}, parameters)
    settings: Any = {"thinking": "high"}
    async with model_request_stream(
        model, asked, model_settings=settings, model_request_parameters=parameters
    ) as stream:
        costs = [stream.usage.cost async for _ in stream]
    streamed = stream.get()
    assert [type(part) for part in whole.parts] == [ThinkingPart, TextPart, ToolCallPart]
    assert [part.part_kind for part in streamed.parts] == [part.part_kind for part in whole.parts]
    assert (costs[0], streamed.usage.cost) == (None, whole.usage.cost)
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (
        whole.usage.input_tokens,
        whole.usage.output_tokens,
    )
    assert streamed.state == "complete"
    assert [found.call.call_id for found in host.calls()] == [
        (one.provider_details or {})["tierwise"]["call_id"] for one in (whole, streamed)
    ]


async def test_run_stream_prices_the_run(host: Host, model: TierwiseModel) -> None:
    """A streamed run of an agent with a tool costs what the ledger says, each attempt once."""
    host.upstream.reply_tool("weather", {"city": "Köln"})
    host.upstream.reply("Rain.")
    agent = Agent(model, tools=[weather])
    async with agent.run_stream(SUMMARY) as streamed:
        said = [text async for text in streamed.stream_text(delta=True, debounce_by=None)]
    assert "".join(said) == "Rain."
    assert streamed.usage.requests == 2
    assert streamed.usage.cost == spent(host) > 0


def test_failed_attempts_cost_too(host: Host, model: TierwiseModel) -> None:
    """A climb costs all of its attempts, whole or streamed; those that an SDK's retry adds are counted once."""
    check = TierwiseModelSettings(tierwise_check=lambda text: text == "yes")
    agent = Agent(model, model_settings=check)
    for ask in (agent.run_sync, lambda prompt: asyncio.run(_streamed(agent, prompt))):
        host.upstream.reply("no")
        host.upstream.reply("yes")
        before = spent(host)
        done = ask(SUMMARY)
        kinds = [attempt.outcome for attempt in host.calls()[-1].attempts]
        assert kinds == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]
        assert done.usage.cost == spent(host) - before
    before = spent(host)
    usage = {"input_tokens": 1000, "output_tokens": 10}
    host.upstream.reply("fine", usage=usage)
    host.upstream.fail(Fault.status(529), times=3)  # every model of the ladder once
    done = agent.run_sync(SUMMARY, model_settings={"max_retries": 1, **check, "tierwise_check": lambda _: True})  # type: ignore[typeddict-unknown-key]
    assert done.usage.cost == spent(host) - before


async def _streamed(agent: Agent[None, str], prompt: str) -> Any:
    async with agent.run_stream(prompt) as streamed:
        await streamed.get_output()
    return streamed


def test_long_request_is_priced_too(host: Host, model: TierwiseModel) -> None:
    """A request that Anthropic's SDK streams behind the scenes, for what it may give, costs what the ledger says."""
    done = Agent(model).run_sync(SUMMARY, model_settings={"max_tokens": 60_000})
    assert host.upstream.calls()[0].json["stream"] is True  # type: ignore[index,call-overload]
    assert done.usage.cost == spent(host) > 0


def test_unknown_price_is_unknown(host: Host) -> None:
    """Where nobody knows the price of a model, a request's cost is None, whole or streamed, and the run's too."""
    host.upstream.models["claude-unheard-of-9"] = host.upstream.models[OPUS]
    agent = Agent(TierwiseModel("claude-unheard-of-9", provider=TierwiseProvider(settings=host.settings)))
    assert agent.run_sync(SUMMARY).usage.cost is None
    assert asyncio.run(_streamed(agent, SUMMARY)).usage.cost is None
    assert [found.attempts[0].cost_nanousd for found in host.calls()] == [None, None]


@pytest.mark.embedded
def test_local_model_costs_nothing(local_settings: Settings) -> None:
    """What a model on this machine answers costs zero, which is known, whatever settings it is given."""
    agent = Agent(TierwiseModel(provider=TierwiseProvider(settings=local_settings)))
    settings = TierwiseModelSettings(max_tokens=8, temperature=0.1, thinking="high", cache="1h")
    done = agent.run_sync("Translate to French: the bread", model_settings=settings)
    assert (done.response.provider_name, done.usage.cost) == ("tierwise", Decimal(0))
    assert (done.response.provider_details or {})["tierwise"]["tier"] == "local"


def test_cost_limit_of_a_run_holds(host: Host, model: TierwiseModel) -> None:
    """Pydantic AI's own limit of a run's cost sees what was really spent."""
    with pytest.raises(UsageLimitExceeded):
        Agent(model).run_sync(SUMMARY, usage_limits=UsageLimits(cost_limit=Decimal("0.000001")))
    assert host.call().call.status is CallStatus.ANSWERED


# ------------------------------------------------------------------ what a call may say


def test_settings_go_over_each_other(host: Host) -> None:
    """Those of a run go over the agent's over the model's over a block's around; none of ours reaches an upstream."""
    settings = TierwiseModelSettings(tierwise_min_tier="opus", tierwise_project="law")
    model = TierwiseModel(provider=TierwiseProvider(settings=host.settings), settings=settings)
    Agent(model).run_sync(SUMMARY)
    agent = Agent(model, model_settings=TierwiseModelSettings(tierwise_min_tier="sonnet"))
    agent.run_sync(SUMMARY)
    with tierwise.call_options(min_tier="opus", tags={"team": "b"}):
        agent.run_sync(SUMMARY, model_settings=TierwiseModelSettings(tierwise_min_tier="haiku"))
    assert host.models() == [OPUS, SONNET, HAIKU]
    assert [found.call.project for found in host.calls()] == ["law"] * 3
    assert dict(host.calls()[2].call.tags)["team"] == "b"
    assert not [name for request in host.upstream.calls() for name in request.json if "tier" in name]  # type: ignore[union-attr]


def test_settings_of_a_step(host: Host, model: TierwiseModel) -> None:
    """An agent's steps are routed each: settings that look at the run send one of them elsewhere."""

    def per_step(ctx: RunContext[None]) -> TierwiseModelSettings:
        return TierwiseModelSettings(tierwise_min_tier="opus") if ctx.run_step > 1 else TierwiseModelSettings()

    host.upstream.reply(CALL)
    host.upstream.reply("Rain.")
    done = Agent(model, tools=[weather], model_settings=per_step).run_sync(SUMMARY)
    assert (done.output, host.models()) == ("Rain.", [HAIKU, OPUS])
    assert [one.model_name for one in done.all_messages() if isinstance(one, ModelResponse)] == [HAIKU, OPUS]


def test_task_is_what_is_routed(host: Host, model: TierwiseModel) -> None:
    """What a task is said to be goes before what was said to the model, and a misspelt setting is refused."""
    settings = TierwiseModelSettings(tierwise_task="is this indemnity clause enforceable? we sign tomorrow")
    Agent(model).run_sync("Go on.", model_settings=settings)
    assert host.models() == [OPUS]
    with pytest.raises(ConfigError, match="tierwise_mintier"):
        Agent(model).run_sync(SUMMARY, model_settings={"tierwise_mintier": "opus"})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize("tier", ["haiku", "sonnet", "opus"])
@pytest.mark.parametrize(
    "settings",
    [
        {"thinking": "high"},
        {"thinking": "xhigh", "max_tokens": 2_000},
        {"thinking": False},
        {"anthropic_thinking": {"type": "enabled", "budget_tokens": 2_048}},
        {"temperature": 0.2, "top_p": 0.9, "top_k": 3},
        {"cache": "1h"},
        {"anthropic_effort": "low", "stop_sequences": ["END"], "service_tier": "auto"},
        {"tool_choice": "required"},
        {"parallel_tool_calls": False},
    ],
    ids=str,
)
def test_every_setting_is_fitted_to_every_tier(
    host: Host, model: TierwiseModel, settings: dict[str, Any], tier: str
) -> None:
    """A setting that a tier's model would refuse costs no attempt: the request is fitted to who answers it."""
    options: Any = {**settings, "tierwise_min_tier": tier, "tierwise_max_tier": tier}
    host.upstream.reply(CALL if "tool_choice" in settings else "Rain.")
    host.upstream.reply("Rain.")
    agent = Agent(model, tools=[weather], instructions="Be brief.")
    agent_settings: Any = (
        options
        if "tool_choice" not in settings
        else lambda ctx: options if ctx.run_step == 1 else {**options, "tool_choice": "auto"}
    )
    assert agent.run_sync(SUMMARY, model_settings=agent_settings).output == "Rain."
    outcomes = {attempt.outcome for found in host.calls() for attempt in found.attempts}
    assert outcomes == {OutcomeKind.ACCEPTED}


# ------------------------------------------------------------------ outputs, tools, messages


def test_structured_output_climbs(host: Host, model: TierwiseModel) -> None:
    """A reply that breaks the schema is not handed on: the next model is asked before Pydantic AI sees anything."""
    agent = Agent(model, output_type=Title)
    host.upstream.reply("not JSON")
    host.upstream.reply_json({"title": "Fire"})
    done = agent.run_sync(SUMMARY)
    assert (done.output, done.usage.requests) == (Title(title="Fire"), 1)
    assert [attempt.outcome for attempt in host.call().attempts] == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]


@pytest.mark.parametrize("mode", [NativeOutput, PromptedOutput, ToolOutput])
def test_every_output_mode(host: Host, model: TierwiseModel, mode: Callable[[type], Any]) -> None:
    """Pydantic AI's three ways to a structured output work, streamed as well."""
    reply = StandInReply.of_tool("final_result", {"title": "Fire"}) if mode is ToolOutput else None
    host.upstream.reply(reply or '{"title": "Fire"}', times=2)
    agent: Agent[None, Any] = Agent(model, output_type=mode(Title))
    assert agent.run_sync(SUMMARY).output == Title(title="Fire")
    assert asyncio.run(_output(agent)) == Title(title="Fire")


async def _output(agent: Agent[None, Any]) -> Any:
    async with agent.run_stream(SUMMARY) as streamed:
        return await streamed.get_output()


def test_conversation_goes_on(host: Host, model: TierwiseModel) -> None:
    """Signed thoughts go back to the model that thought them, and a run after them goes on with its history."""
    host.upstream.reply(StandInReply(content=(THOUGHT, *CALL.content), stop_reason="tool_use"))
    host.upstream.reply("Rain.")
    host.upstream.reply("Still rain.")
    agent = Agent(model, tools=[weather], model_settings={"thinking": "high"})
    done = agent.run_sync(SUMMARY)
    agent.run_sync(SUMMARY, message_history=done.all_messages())
    assert len(set(host.models())) == 1
    bodies: Any = [request.json for request in host.upstream.calls()]
    assert [block["type"] for block in bodies[1]["messages"][1]["content"]] == ["thinking", "text", "tool_use"]
    assert bodies[2]["messages"][1] == bodies[1]["messages"][1]
    assert bodies[2]["messages"][-1]["content"][-1]["text"] == SUMMARY


def test_history_of_another_provider(host: Host, model: TierwiseModel) -> None:
    """A history that another provider's model made goes on here."""
    before = Agent(ElsewhereModel(), tools=[weather]).run_sync(SUMMARY)
    host.upstream.reply("Rain.")
    assert Agent(model, tools=[weather]).run_sync("And now?", message_history=before.all_messages()).output == "Rain."
    assert [attempt.outcome for attempt in host.call().attempts] == [OutcomeKind.ACCEPTED]


def test_images_and_changing_instructions(host: Host, model: TierwiseModel) -> None:
    """Images go as they are; instructions that change in the middle reach every tier in words."""
    agent = Agent(model, tools=[weather])

    @agent.instructions
    def today(ctx: RunContext[None]) -> str:
        return f"This is step {ctx.run_step}."

    host.upstream.reply(CALL)
    host.upstream.reply("Rain.")
    assert agent.run_sync(["What is this?", BinaryContent(PIXEL, media_type="image/png")]).output == "Rain."
    first: Any = host.upstream.calls()[0].json
    assert first["messages"][0]["content"][1]["source"]["media_type"] == "image/png"
    roles = {turn["role"] for request in host.upstream.calls() for turn in request.json["messages"]}  # type: ignore[index,union-attr,call-overload]
    assert roles == {"user", "assistant"}


def test_native_tools_are_offered(host: Host, model: TierwiseModel) -> None:
    """Tools that Anthropic runs are asked for in the versions that all tiers know."""
    from pydantic_ai.capabilities import NativeTool

    tools = [NativeTool(tool) for tool in (WebSearchTool(), WebFetchTool(), CodeExecutionTool())]
    Agent(model, capabilities=tools).run_sync(SUMMARY)
    sent: Any = host.upstream.calls()[0].json
    assert {tool["name"] for tool in sent["tools"]} >= {"web_search", "web_fetch", "code_execution"}


def test_deferred_tools_are_found(host: Host, model: TierwiseModel) -> None:
    """A tool that is loaded when it is searched for is found by Pydantic AI's own search, which every tier can call."""
    host.upstream.reply_tool("search_tools", {"queries": ["weather"]})
    host.upstream.reply_tool("weather", {"city": "Köln"})
    host.upstream.reply("Rain.")
    agent = Agent(model, tools=[Tool(weather, defer_loading=True)])
    assert agent.run_sync(SUMMARY).output == "Rain."
    bodies: Any = [request.json for request in host.upstream.calls()]
    assert ["weather" in {tool["name"] for tool in sent["tools"]} for sent in bodies] == [False, True, True]


async def test_tokens_are_counted(host: Host, model: TierwiseModel) -> None:
    """Tokens can be counted before a request, which is no call."""
    asked: Any = [ModelRequest(parts=[UserPromptPart(SUMMARY)])]
    assert (await model.count_tokens(asked, None, ModelRequestParameters())).input_tokens > 0
    assert not host.calls()


async def test_batches_are_routed_and_settled(host: Host) -> None:
    """Requests of a batch are routed each within the model's bounds, and settled when their results are read."""
    settings = TierwiseModelSettings(tierwise_project="night", tierwise_min_tier="sonnet")
    model = TierwiseModel(provider=TierwiseProvider(settings=host.settings), settings=settings)
    asked: Any = [ModelRequest(parts=[UserPromptPart(SUMMARY)])]
    requests = [BatchRequest(custom_id=name, messages=asked) for name in ("a", "b")]
    done = await model_request_batch(model, requests, poll_interval=timedelta(milliseconds=50))
    assert [response.model_name for response in done if isinstance(response, ModelResponse)] == [SONNET, SONNET]
    assert [response.usage.cost for response in done if isinstance(response, ModelResponse)] == [None, None]
    assert [found.call.project for found in host.calls()] == ["night", "night"]
    assert spent(host) > 0
    own = BatchRequest(custom_id="a", messages=asked, model_settings=TierwiseModelSettings(tierwise_min_tier="opus"))
    with pytest.raises(ConfigError, match="call_options around the batch"):
        await model_request_batch(model, [own])


# ------------------------------------------------------------------ errors


def test_errors_are_pydantic_ais(host: Host, model: TierwiseModel) -> None:
    """No acceptable answer, a refusal and an unknown tier are `ModelHTTPError`s that name the call; none is retried."""
    agent = Agent(model, model_settings=TierwiseModelSettings(tierwise_check=lambda text: text == "yes"))
    host.upstream.reply("no", times=None)
    with pytest.raises(ModelHTTPError) as caught:
        agent.run_sync(SUMMARY)
    assert caught.value.status_code == 422
    assert (caught.value.headers or {})["x-tierwise-call-id"] == host.call().call.call_id
    host.upstream.clear()
    host.upstream.fail(Fault.status(401), times=None)
    with pytest.raises(ModelHTTPError) as caught:
        Agent(model).run_sync(SUMMARY)
    assert (caught.value.status_code, len(host.calls())) == (401, 2)
    with pytest.raises(ModelHTTPError, match="hiku"):
        Agent(model).run_sync(SUMMARY, model_settings=TierwiseModelSettings(tierwise_min_tier="hiku"))


async def test_stream_that_breaks_off(host: Host, model: TierwiseModel) -> None:
    """A stream that breaks in its middle raises what Pydantic AI raises, and is a failure in the ledger."""
    host.upstream.fail(Fault.cut(after_events=5), times=None)
    settings = TierwiseModelSettings(tierwise_min_tier="opus")
    with pytest.raises(ModelHTTPError):
        async with Agent(model).run_stream(SUMMARY, model_settings=settings) as streamed:
            await streamed.get_output()
    assert host.call().call.status is CallStatus.FAILED


def test_fallback_goes_on_elsewhere(host: Host, model: TierwiseModel) -> None:
    """Pydantic AI's `FallbackModel` goes to its next model where tierwise has no answer, which stays recorded."""
    host.upstream.fail(Fault.status(500), times=None)
    elsewhere = ElsewhereModel(custom_output_text="from elsewhere")
    assert Agent(FallbackModel(model, elsewhere)).run_sync(SUMMARY).output == "from elsewhere"
    assert host.call().call.status is CallStatus.FAILED


def test_deadline_cancels_the_call(host: Host, model: TierwiseModel) -> None:
    """A request that Pydantic AI gives up is cancelled, and recorded as that."""
    host.upstream.fail(Fault.stall(), times=None)
    with pytest.raises(ModelRequestTimeout):
        Agent(model).run_sync(SUMMARY, model_settings={"request_timeout": 2.0})
    assert host.ended_call().call.status is CallStatus.CANCELLED


def test_other_providers_are_refused() -> None:
    """A provider of Pydantic AI's own is refused with what to do instead."""
    with pytest.raises(ConfigError, match="wrap"):
        TierwiseModel(provider=AnthropicProvider(api_key="sk-ant-other"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'gateway'"):
        TierwiseModel(provider="gateway")  # type: ignore[arg-type]


# ------------------------------------------------------------------ around it


def test_traces_tell_who_answered_and_what_it_cost(host: Host, model: TierwiseModel) -> None:
    """An instrumented agent's spans have the model that was asked for, the one that answered, usage and cost."""
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="not installed: pip install -r requirements/dev.txt")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing = trace.TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    agent = Agent(model)
    agent.instrument = InstrumentationSettings(tracer_provider=tracing)
    agent.run_sync(SUMMARY)
    asyncio.run(_streamed(agent, SUMMARY))
    spans = [dict(span.attributes or {}) for span in exporter.get_finished_spans() if span.name.startswith("chat ")]
    assert len(spans) == 2
    for span in spans:
        assert span["gen_ai.provider.name"] == "tierwise"
        assert (span["gen_ai.request.model"], span["gen_ai.response.model"]) == ("claude-tierwise-auto", HAIKU)
        assert span["operation.cost"] == pytest.approx(float(spent(host) / 2))


def test_own_key_and_address(host: Host) -> None:
    """A key and an address given to the provider go over the configured ones."""
    own = TierwiseProvider(settings=host.settings, api_key="sk-ant-own", base_url=host.upstream.url)
    for provider in (own, TierwiseProvider(settings=host.settings)):
        Agent(TierwiseModel(provider=provider)).run_sync(SUMMARY)
    keys = [request.headers["x-api-key"] for request in host.upstream.calls()]
    assert keys == ["sk-ant-own", "sk-ant-configured"]


def test_keys_of_the_environment_are_not_the_configured_ones(host: Host) -> None:
    """What Anthropic's SDK finds in the environment goes nowhere, whether a key was given or not."""
    script = (
        "import pathlib, sys\n"
        "from pydantic_ai import Agent\n"
        "from tierwise import load_settings\n"
        "from tierwise.integrations.pydantic_ai import TierwiseModel, TierwiseProvider\n"
        "settings = load_settings(path=pathlib.Path(sys.argv[1]), env={'ANTHROPIC_API_KEY': 'sk-ant-configured'})\n"
        "for key in (None, 'sk-ant-own'):\n"
        "    provider = TierwiseProvider(api_key=key, base_url=sys.argv[2], settings=settings)\n"
        "    print(Agent(TierwiseModel(provider=provider)).run_sync('Summarise this ticket: x').output)\n"
    )
    path = host.settings.sources[0]
    env = {**os.environ, "ANTHROPIC_API_KEY": "sk-ant-around", "ANTHROPIC_AUTH_TOKEN": "token-around"}
    env |= {"TIERWISE_LEDGER": str(path.parent / "other.db")}
    told = [sys.executable, "-c", script, str(path), host.upstream.url]
    done = subprocess.run(told, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    sent = [
        (request.headers.get("x-api-key"), request.headers.get("authorization")) for request in host.upstream.calls()
    ]
    assert sent == [("sk-ant-configured", None), ("sk-ant-own", None)]


def test_several_event_loops_and_many_at_once(host: Host, model: TierwiseModel) -> None:
    """One model serves event loops that come and go, and several runs at once, each recorded once."""
    agent = Agent(model)

    async def several() -> list[str]:
        async with agent:
            return [done.output for done in await asyncio.gather(*(agent.run(SUMMARY) for _ in range(4)))]

    for _ in range(2):
        assert len(asyncio.run(several())) == 4
    agent.run_sync(SUMMARY)
    assert len(host.calls()) == 9
    assert len({found.call.call_id for found in host.calls()}) == 9


def test_missing_extra_says_what_to_install() -> None:
    """Where Pydantic AI or Anthropic's SDK is missing, the error says how to install it; neither is imported early."""
    for module in ("pydantic_ai", "anthropic"):
        script = (
            "import sys, tierwise; tierwise.wrap, tierwise.call_options\n"
            "import tierwise.integrations.pydantic_ai\n"
            "assert not {'pydantic_ai', 'anthropic', 'httpx2'} & sys.modules.keys()\n"
            f"sys.modules[{module!r}] = None\n"
            "try:\n    from tierwise.integrations.pydantic_ai import TierwiseModel\n"
            "except ImportError as error:\n    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
        assert f"needs {module}: pip install 'tierwise[pydantic-ai]'" in done.stdout, done.stdout + done.stderr
