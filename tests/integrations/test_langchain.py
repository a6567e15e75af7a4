"""`ChatTierwise` and its middleware, in LangChain and LangGraph as they are."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest

import tierwise
from tests.integrations.conftest import Host
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import InvalidTask, UnknownTier
from tierwise.testing import Fault, StandInReply

pytest.importorskip("langchain", reason="not installed: pip install -r requirements/dev.txt")

from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, SecretStr

from tierwise.integrations.langchain import ChatTierwise, TierPerStep
from tierwise.integrations.langchain.messages import conversation, tool_choice_of, tool_of

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
SUMMARY = "Summarise this ticket in one line: the printer burns"


class Title(BaseModel):
    """What structured output is asked for."""

    title: str


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


CALL = StandInReply(
    content=(
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
    ),
    stop_reason="tool_use",
)


@pytest.fixture
def model(host: Host) -> ChatTierwise:
    """The model, over the stand-in."""
    return ChatTierwise(settings=host.settings)


def test_call_is_routed_and_recorded(host: Host, model: ChatTierwise) -> None:
    """A call goes to its tier; the message tells model, usage with cached tokens, cost and the ledger's call."""
    written = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}
    cached = {"cache_read_input_tokens": 50, "cache_creation_input_tokens": 30, "cache_creation": written}
    host.upstream.reply("It burns.", usage={"input_tokens": 100, "output_tokens": 10, **cached})
    message = model.invoke(SUMMARY)
    assert message.content == "It burns."
    found = host.call()
    told = message.response_metadata["tierwise"]
    assert (told["call_id"], told["tier"], told["task_type"]) == (found.call.call_id, "haiku", found.call.task_type)
    assert float(told["cost_usd"]) * 1e9 == found.attempts[0].cost_nanousd
    assert message.response_metadata["model_name"] == HAIKU
    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == 180
    assert message.usage_metadata["input_token_details"] == {"cache_read": 50, "cache_creation": 0, **written}


def test_stream_adds_up_to_the_message(host: Host, model: ChatTierwise) -> None:
    """The chunks of thinking, text and a tool call add up to one message with usage once, as without a stream."""
    blocks = ({"type": "thinking", "thinking": "Hm", "signature": "stand-in-signature"}, *CALL.content)
    host.upstream.reply(StandInReply(content=blocks, stop_reason="tool_use"), times=2)
    bound = model.bind_tools([weather], min_tier="opus")
    whole = bound.invoke(SUMMARY)
    chunks = list(bound.stream(SUMMARY))
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    assert total.tool_calls == whole.tool_calls
    assert total.text == whole.text == "Let me look."
    assert total.usage_metadata == whole.usage_metadata
    assert total.content[0] == {**blocks[0], "index": 0}
    told, before = total.response_metadata["tierwise"], whole.response_metadata["tierwise"]
    assert {**told, "call_id": ""} == {**before, "call_id": ""}
    assert [one["call_id"] for one in (before, told)] == [found.call.call_id for found in host.calls()]
    assert float(told["cost_usd"]) * 1e9 == host.calls()[1].attempts[0].cost_nanousd
    assert host.models() == [OPUS, OPUS]


def test_options_may_be_bound(host: Host, model: ChatTierwise) -> None:
    """What is bound to a call goes over what the model was made with, and reaches no upstream."""
    strict = ChatTierwise(settings=host.settings, min_tier="opus", project="law")
    strict.invoke(SUMMARY)
    strict.bind(min_tier="sonnet").invoke(SUMMARY)
    model.bind(task="is this indemnity clause enforceable? we sign tomorrow").invoke("Go on.")
    assert host.models() == [OPUS, SONNET, OPUS]
    assert [found.call.project for found in host.calls()] == ["law", "law", None]
    assert not {"min_tier", "task", "project"} & set(host.upstream.calls()[0].json)  # type: ignore[arg-type]


def test_check_climbs_and_fails_as_a_run_error(host: Host) -> None:
    """An answer that the check refuses is not handed on; where none passes, `LadderExhausted` names the call."""
    strict = ChatTierwise(settings=host.settings, check=lambda text: text == "yes")
    host.upstream.reply("no")
    host.upstream.reply("yes")
    assert strict.invoke(SUMMARY).content == "yes"
    host.upstream.reply("no", times=None)
    with pytest.raises(tierwise.LadderExhausted) as caught:
        strict.invoke(SUMMARY)
    assert caught.value.call_id == host.calls()[1].call.call_id
    with pytest.raises(tierwise.LadderExhausted):
        list(strict.stream(SUMMARY))


def test_structured_output_climbs(host: Host, model: ChatTierwise) -> None:
    """A reply that breaks the schema is not handed on: the next model is asked, streamed or not."""
    wanted = model.with_structured_output(Title)
    host.upstream.reply("not JSON")
    host.upstream.reply_json({"title": "Fire"})
    assert wanted.invoke(SUMMARY) == Title(title="Fire")
    assert [attempt.outcome for attempt in host.call().attempts] == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]
    host.upstream.reply_json({"title": "Fire"})
    found = model.with_structured_output(Title, include_raw=True).invoke(SUMMARY)
    assert (found["parsed"], found["parsing_error"]) == (Title(title="Fire"), None)  # type: ignore[index]


def test_errors_are_ours(host: Host, model: ChatTierwise) -> None:
    """A refusal by the API, an unknown tier, and a stream that breaks off each raise a RunError with the reason."""
    host.upstream.fail(Fault.status(401), times=None)
    with pytest.raises(tierwise.RequestRefusedByProvider):
        model.invoke(SUMMARY)
    with pytest.raises(tierwise.RequestRefusedByProvider, match="hiku"):
        model.bind(min_tier="hiku").invoke(SUMMARY)
    host.upstream.clear()
    host.upstream.fail(Fault.cut(after_events=5), times=None)
    with pytest.raises(tierwise.RunError):
        list(model.bind(model=OPUS).stream(SUMMARY))
    assert host.calls()[-1].call.status is CallStatus.FAILED


@pytest.mark.parametrize("events", [0, 5])
async def test_waiting_too_long_is_ours(host: Host, events: int) -> None:
    """A model that is silent for longer than `timeout` raises DeadlineExceeded, whole or streamed, awaited or not."""
    model = ChatTierwise(settings=host.settings, model=OPUS, timeout=0.1)
    host.upstream.fail(Fault.stall(after_events=events), times=None)
    with pytest.raises(tierwise.DeadlineExceeded, match="timeout"):
        model.invoke(SUMMARY)
    with pytest.raises(tierwise.DeadlineExceeded, match="timeout"):
        list(model.stream(SUMMARY))
    with pytest.raises(tierwise.DeadlineExceeded, match="timeout"):
        await model.ainvoke(SUMMARY)
    with pytest.raises(tierwise.DeadlineExceeded, match="timeout"):
        [chunk async for chunk in model.astream(SUMMARY)]
    host.upstream.clear()


def test_own_key_and_address(host: Host) -> None:
    """A key and an address given to the model go over the configured ones."""
    ChatTierwise(settings=host.settings, api_key="sk-ant-own", base_url=host.upstream.url).invoke(SUMMARY)  # type: ignore[arg-type]
    ChatTierwise(settings=host.settings).invoke(SUMMARY)
    keys = [request.headers["x-api-key"] for request in host.upstream.calls()]
    assert keys == ["sk-ant-own", "sk-ant-configured"]


def test_copies_are_models_of_their_own(host: Host, model: ChatTierwise) -> None:
    """A model that has been used can be copied, deeply copied and pickled, and a changed copy calls as it says."""
    model.invoke(SUMMARY)
    changed = model.model_copy(update={"api_key": SecretStr("sk-ant-own"), "min_tier": "opus"})
    for one in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), changed):  # noqa: S301  of our own
        one.invoke(SUMMARY)
    assert host.models() == [HAIKU] * 4 + [OPUS]
    assert host.upstream.calls()[-1].headers["x-api-key"] == "sk-ant-own"


async def test_asynchronous_and_many_at_once(host: Host, model: ChatTierwise) -> None:
    """`abatch` and `astream` work in the caller's loop, and every call is recorded once."""
    host.upstream.reply("It burns.", times=None)
    messages = await model.abatch([SUMMARY] * 5)
    assert {message.content for message in messages} == {"It burns."}
    text = "".join([str(chunk.text) async for chunk in model.astream(SUMMARY)])
    assert (text, len(host.calls())) == ("It burns.", 6)


def test_several_event_loops(host: Host, model: ChatTierwise) -> None:
    """One model serves event loops that come and go."""
    for _ in range(2):
        assert asyncio.run(model.ainvoke(SUMMARY)).content
    assert len(host.calls()) == 2


# ------------------------------------------------------------------ messages


def test_content_of_every_form() -> None:
    """Blocks of LangChain's two generations, OpenAI's and Anthropic's are the same to the API."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    forms = [
        {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
        {"type": "image", "source_type": "base64", "data": "aGk=", "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        image,
    ]
    _, turns = conversation([HumanMessage(forms)])  # type: ignore[arg-type]
    assert turns == [{"role": "user", "content": [image] * 4}]
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}
    files = [
        {"type": "file", "base64": "aGk=", "mime_type": "application/pdf"},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk="}},
        document,
    ]
    _, turns = conversation([HumanMessage(files)])  # type: ignore[arg-type]
    assert turns == [{"role": "user", "content": [document] * 3}]
    for url in ({"type": "image", "url": "https://x.test/a"}, {"type": "image_url", "image_url": "https://x.test/a"}):
        _, turns = conversation([HumanMessage([url])])  # type: ignore[list-item]
        assert turns[0]["content"] == [{"type": "image", "source": {"type": "url", "url": "https://x.test/a"}}]  # type: ignore[index,call-overload]


def test_turns_are_as_the_api_wants_them() -> None:
    """System on top, turns of one side together, results with their calls, signed thoughts kept, others left out."""
    system, turns = conversation(
        [
            SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]),
            HumanMessage("Weather?"),
            AIMessage(
                content=[
                    {"type": "thinking", "thinking": "Hm", "signature": "s", "index": 0},
                    {"type": "tool_use", "id": "1", "name": "weather", "input": {}, "partial_json": "{", "index": 1},
                ],
                tool_calls=[{"id": "1", "name": "weather", "args": {"city": "Köln"}}],
            ),
            ToolMessage("rain", tool_call_id="1"),
            ToolMessage("no such city", tool_call_id="2", status="error"),
            HumanMessage("And?"),
            AIMessage(
                content=[{"type": "reasoning", "reasoning": "of another model"}, {"type": "text", "text": "Rain."}]
            ),
        ]
    )
    assert system == [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    call = {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Köln"}}
    assert turns == [
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}, call]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "2", "content": "no such city", "is_error": True},
                {"type": "text", "text": "And?"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Rain."}]},
    ]


def test_what_cannot_be_sent_is_named() -> None:
    """Audio, and a system message in the middle, are refused with what to do."""
    audio: Any = {"type": "audio", "base64": "aGk=", "mime_type": "audio/wav"}
    with pytest.raises(ValueError, match="'audio'"):
        conversation([HumanMessage([audio])])
    with pytest.raises(ValueError, match="move this one to the top"):
        conversation([HumanMessage("a"), SystemMessage("b")])


def test_tools_of_every_form() -> None:
    """A tool of LangChain is one of Messages; Anthropic's own go as they are; choices are told alike."""
    assert tool_of(weather)["input_schema"]["required"] == ["city"]  # type: ignore[index,call-overload]
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert tool_of(search) == search
    assert tool_choice_of("any", parallel=False) == {"type": "any", "disable_parallel_tool_use": True}
    assert tool_choice_of("weather") == {"type": "tool", "name": "weather"}
    assert tool_choice_of(None) is None


# ------------------------------------------------------------------ agents


def test_agent_runs_its_tools(host: Host, model: ChatTierwise) -> None:
    """An agent of LangChain calls its tool and answers; its conversation stays on its model."""
    host.upstream.reply(CALL)
    host.upstream.reply("Rain.")
    done = create_agent(model, tools=[weather]).invoke({"messages": [HumanMessage(SUMMARY)]})
    assert done["messages"][-1].content == "Rain."
    assert done["messages"][-2].content == "rain in Köln"
    assert host.models() == [HAIKU, HAIKU]


def test_agent_answers_with_an_object(host: Host, model: ChatTierwise) -> None:
    """An agent's `response_format` reaches the API as what it has for that, and a reply that breaks it climbs."""
    host.upstream.reply("It burns.")
    host.upstream.reply('{"title": "Fire"}')
    agent = create_agent(model, response_format=ProviderStrategy(Title))
    assert agent.invoke({"messages": [HumanMessage(SUMMARY)]})["structured_response"] == Title(title="Fire")
    assert host.models() == [HAIKU, SONNET]
    sent = host.upstream.calls()[0].json
    assert isinstance(sent, dict)
    assert "response_format" not in sent
    assert sent["output_config"]["format"]["schema"]["required"] == ["title"]
    with pytest.raises(ValueError, match="with_structured_output"):
        model.invoke(SUMMARY, response_format={"type": "json_object"})


@pytest.mark.parametrize("is_async", [False, True])
def test_steps_go_to_the_tier_of_their_tool(host: Host, model: ChatTierwise, is_async: bool) -> None:
    """With `TierPerStep` the step that reads a listed tool's result is on that tool's tier; the others are routed."""
    host.upstream.reply(CALL)
    host.upstream.reply("Rain.")
    with tierwise.Router(host.settings) as router:
        steps = TierPerStep(after_tools={"weather": "opus"}, router=router)
        agent = create_agent(model, tools=[weather], middleware=[steps])
        asked = {"messages": [HumanMessage(SUMMARY)]}
        done = asyncio.run(agent.ainvoke(asked)) if is_async else agent.invoke(asked)
    assert done["messages"][-1].content == "Rain."
    assert host.models() == [HAIKU, OPUS]


def test_steps_choose_among_other_models(host: Host) -> None:
    """With models of other kinds each step's is that of its tier, or the next above; one that is too low is refused."""
    low, high = FakeListChatModel(responses=["low"]), FakeListChatModel(responses=["high"])
    with tierwise.Router(host.settings, record=False) as router:
        steps = TierPerStep(models={"haiku": low, "opus": high}, router=router)
        agent = create_agent(low, middleware=[steps])
        said = [
            agent.invoke({"messages": [HumanMessage(ask)]})["messages"][-1].content
            for ask in (SUMMARY, "Is this indemnity clause enforceable under German law? We sign tomorrow.")
        ]
        assert said == ["low", "high"]
        short = create_agent(low, middleware=[TierPerStep(models={"haiku": low}, router=router)])
        with pytest.raises(InvalidTask, match="add one to `models`"):
            short.invoke({"messages": [HumanMessage("Is this indemnity clause enforceable? We sign tomorrow.")]})
        unrouted = create_agent(low, middleware=[TierPerStep(router=router)])
        with pytest.raises(InvalidTask, match="FakeListChatModel"):
            unrouted.invoke({"messages": [HumanMessage(SUMMARY)]})
        with pytest.raises(UnknownTier):
            TierPerStep(after_tools={"weather": "hiku"}, router=router)


def test_missing_extra_says_what_to_install() -> None:
    """Where LangChain is not there, the error says how to install it; importing tierwise never imports it."""
    script = (
        "import sys, tierwise; tierwise.wrap, tierwise.call_options\n"
        "assert not {'langchain_core', 'anthropic', 'openai', 'httpx2'} & sys.modules.keys()\n"
        "sys.modules['langchain_core'] = None\n"
        "try:\n    from tierwise.integrations.langchain import ChatTierwise\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert "pip install 'tierwise[langchain]'" in done.stdout, done.stderr
