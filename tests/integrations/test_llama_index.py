"""`TierwiseLLM` in LlamaIndex as it is: calls, streams, tools, objects, agents, query engines, events."""

from __future__ import annotations

import asyncio
import base64
import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tierwise
from tests.integrations.conftest import Host
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import ConfigError
from tierwise.core.money import nanousd_to_usd
from tierwise.core.settings import Settings
from tierwise.testing import Fault, StandInReply

pytest.importorskip("llama_index.core", reason="not installed: pip install -r requirements/dev.txt")

from llama_index.core import Document, SummaryIndex, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, PrivateAttr, SecretStr, ValidationError

from tierwise.integrations.llama_index import TierwiseLLM
from tierwise.integrations.llama_index.messages import conversation, response_of, tool_choice_of

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
SUMMARY = "Summarise this ticket in one line: the printer burns"
ASKED = [ChatMessage(SUMMARY)]
ASK = PromptTemplate("Summarise this ticket in one line: {ticket}")
THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "stand-in-signature"}
CALL = StandInReply(
    content=(
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
    ),
    stop_reason="tool_use",
)


class Title(BaseModel):
    """What structured output is asked for."""

    title: str


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


WEATHER = FunctionTool.from_defaults(weather)


@pytest.fixture
def model(host: Host) -> TierwiseLLM:
    """The model, over the stand-in."""
    return TierwiseLLM(settings=host.settings)


def cost(host: Host, call: int = -1) -> str:
    """What the ledger has of all attempts of a call."""
    return str(nanousd_to_usd(sum(attempt.cost_nanousd or 0 for attempt in host.calls()[call].attempts)))


# ------------------------------------------------------------------ calls


def test_call_is_routed_and_recorded(host: Host, model: TierwiseLLM) -> None:
    """A call goes to its tier; its raw answer tells model, tokens with cached ones, cost and the ledger's call."""
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50}
    host.upstream.reply("It burns.", usage=usage)
    done = model.complete(SUMMARY)
    found = host.call()
    assert done.text == "It burns."
    assert done.raw is not None
    assert done.raw["tierwise"] == {
        "call_id": found.call.call_id,
        "task_type": found.call.task_type,
        "tier": "haiku",
        "cost_usd": cost(host),
    }
    assert (done.raw["model"], done.raw["usage"]["prompt_tokens"], done.raw["usage"]["input_tokens"]) == (
        HAIKU,
        150,
        100,
    )


def test_stream_adds_up_to_the_answer(host: Host, model: TierwiseLLM) -> None:
    """The last response of a stream is the whole answer with its cost; the deltas are its text, each once.

    An earlier one may tell the cost already, where the gateway held the answer back until it was whole.
    """
    host.upstream.reply(StandInReply(content=(THOUGHT, *CALL.content), stop_reason="tool_use"), times=2)
    whole = model.chat_with_tools([WEATHER], user_msg=SUMMARY, min_tier="opus")
    responses = list(model.stream_chat_with_tools([WEATHER], user_msg=SUMMARY, min_tier="opus"))
    last = responses[-1]
    assert last.message == whole.message
    assert last.raw["usage"] == whole.raw["usage"]  # type: ignore[index]
    assert last.raw["tierwise"]["cost_usd"] == whole.raw["tierwise"]["cost_usd"] == cost(host)  # type: ignore[index]
    assert {response.raw["tierwise"].get("cost_usd", cost(host)) for response in responses} == {cost(host)}  # type: ignore[index]
    assert "".join(response.delta or "" for response in responses) == whole.message.content == "Let me look."
    assert "".join(one.additional_kwargs.get("thinking_delta", "") for one in responses) == "Hm"
    assert host.models() == [OPUS, OPUS]


async def test_every_form_gives_the_same(host: Host, model: TierwiseLLM) -> None:
    """Chats and completions, whole and streamed, waiting and not, say the same, and each is recorded once."""
    host.upstream.reply("It burns.", times=None)
    said = [
        model.chat(ASKED).message.content,
        model.complete(SUMMARY).text,
        list(model.stream_chat(ASKED))[-1].message.content,
        list(model.stream_complete(SUMMARY))[-1].text,
        (await model.achat(ASKED)).message.content,
        (await model.acomplete(SUMMARY)).text,
        [one async for one in await model.astream_chat(ASKED)][-1].message.content,
        [one async for one in await model.astream_complete(SUMMARY)][-1].text,
        "".join([token async for token in await model.astream(ASK, ticket="the printer burns")]),
        await model.apredict(ASK, ticket="the printer burns"),
    ]
    assert said == ["It burns."] * 10
    assert len({found.call.call_id for found in host.calls()}) == 10


def test_options_go_over_each_other(host: Host) -> None:
    """What is said with a call goes over the model's over a block's around, and reaches no upstream."""
    strict = TierwiseLLM(settings=host.settings, min_tier="opus", project="law")
    strict.complete(SUMMARY)
    strict.complete(SUMMARY, min_tier="sonnet", tags={"team": "b"})
    with tierwise.call_options(task="is this indemnity clause enforceable? we sign tomorrow"):
        stream = TierwiseLLM(settings=host.settings).stream_complete("Go on.")
    list(stream)  # it began within the block
    assert host.models() == [OPUS, SONNET, OPUS]
    assert [found.call.project for found in host.calls()] == ["law", "law", None]
    assert dict(host.calls()[1].call.tags)["team"] == "b"
    assert not [name for request in host.upstream.calls() for name in request.json if "tier" in name or name == "tags"]  # type: ignore[union-attr]


def test_check_climbs_and_fails_as_a_run_error(host: Host) -> None:
    """An answer that the check refuses is not handed on, and costs; where none passes, `LadderExhausted` says so."""
    strict = TierwiseLLM(settings=host.settings, check=lambda text: text == "yes")
    for stream in (False, True):
        host.upstream.reply("no")
        host.upstream.reply("yes")
        done = list(strict.stream_complete(SUMMARY))[-1] if stream else strict.complete(SUMMARY)
        assert done.text == "yes"
        assert len(host.calls()[-1].attempts) == 2
        assert done.raw["tierwise"]["cost_usd"] == cost(host)  # type: ignore[index]
    host.upstream.reply("no", times=None)
    with pytest.raises(tierwise.LadderExhausted) as caught:
        strict.complete(SUMMARY)
    assert caught.value.call_id == host.calls()[-1].call.call_id
    with pytest.raises(tierwise.LadderExhausted):
        strict.stream_complete(SUMMARY)


def test_unknown_price_is_unknown(host: Host) -> None:
    """Where nobody knows the price of a model, an answer has no cost, whole or streamed."""
    host.upstream.models["claude-unheard-of-9"] = host.upstream.models[OPUS]
    other = TierwiseLLM(model="claude-unheard-of-9", settings=host.settings)
    for done in (other.complete(SUMMARY), list(other.stream_complete(SUMMARY))[-1]):
        assert "cost_usd" not in done.raw["tierwise"]  # type: ignore[index]
    assert [found.attempts[0].cost_nanousd for found in host.calls()] == [None, None]


@pytest.mark.embedded
def test_local_model_costs_nothing(local_settings: Settings) -> None:
    """What a model on this machine answers costs zero, which is known, streamed or not."""
    model = TierwiseLLM(settings=local_settings, max_tokens=8, temperature=0.1)
    prompt = "Translate to French: the bread"
    for done in (model.complete(prompt), list(model.stream_complete(prompt))[-1]):
        assert (done.raw["tierwise"]["tier"], done.raw["tierwise"]["cost_usd"]) == ("local", "0")  # type: ignore[index]


def test_errors_are_ours(host: Host, model: TierwiseLLM) -> None:
    """A refusal, an unknown tier, a stream that breaks off and settings of another kind raise what says why."""
    host.upstream.fail(Fault.status(401), times=None)
    with pytest.raises(tierwise.RequestRefusedByProvider):
        model.complete(SUMMARY)
    with pytest.raises(tierwise.RequestRefusedByProvider, match="hiku"):
        model.complete(SUMMARY, min_tier="hiku")
    host.upstream.clear()
    host.upstream.fail(Fault.cut(after_events=5), times=None)
    with pytest.raises(tierwise.RunError):
        list(TierwiseLLM(model=OPUS, settings=host.settings).stream_complete(SUMMARY))
    assert host.calls()[-1].call.status is CallStatus.FAILED
    with pytest.raises(ConfigError, match="load_settings"):
        TierwiseLLM(settings={"tiers": {}}).complete(SUMMARY)
    with pytest.raises(ValidationError, match="mintier"):
        TierwiseLLM(mintier="opus")


async def test_stream_that_is_left_is_cancelled(host: Host, model: TierwiseLLM) -> None:
    """Who leaves a stream before its end cancels the call, and the ledger says so."""
    host.upstream.fail(Fault.stall(after_events=5), times=None)
    stream = await model.astream_complete(SUMMARY, min_tier="opus")
    assert (await anext(stream)).delta
    await stream.aclose()
    # LlamaIndex wraps streams in generators of its own, which the event loop closes when it comes to it.
    assert (await asyncio.to_thread(host.ended_call)).call.status is CallStatus.CANCELLED


def test_own_key_and_address(host: Host) -> None:
    """A key and an address given to the model go over the configured ones; the key is never told to anybody else."""
    own = TierwiseLLM(settings=host.settings, api_key="sk-ant-own", base_url=host.upstream.url)  # type: ignore[arg-type]
    own.complete(SUMMARY)
    TierwiseLLM(settings=host.settings).complete(SUMMARY)
    keys = [request.headers["x-api-key"] for request in host.upstream.calls()]
    assert keys == ["sk-ant-own", "sk-ant-configured"]
    assert "sk-ant-own" not in f"{own!r} {own.to_json()} {own.to_payload()}"
    assert TierwiseLLM.from_dict(own.to_dict()).base_url == host.upstream.url


def test_copies_are_models_of_their_own(host: Host, model: TierwiseLLM) -> None:
    """A model that has been used can be copied, deeply copied and pickled, and a changed copy calls as it says."""
    model.complete(SUMMARY)
    changed = model.model_copy(update={"api_key": SecretStr("sk-ant-own"), "min_tier": "opus"})
    for one in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), changed):  # noqa: S301  of our own
        one.complete(SUMMARY)
    assert host.models() == [HAIKU] * 4 + [OPUS]
    assert host.upstream.calls()[-1].headers["x-api-key"] == "sk-ant-own"


def test_several_event_loops(host: Host, model: TierwiseLLM) -> None:
    """One model serves event loops that come and go."""
    for _ in range(2):
        assert asyncio.run(model.acomplete(SUMMARY)).text
    assert len(host.calls()) == 2


# ------------------------------------------------------------------ objects and tools


def test_structured_output_climbs(host: Host, model: TierwiseLLM) -> None:
    """An answer that breaks the schema is not handed on: the next model is asked, in every form that LlamaIndex has."""

    async def asynchronous() -> list[Any]:
        stream = await model.astream_structured_predict(Title, ASK, ticket="x")
        return [await model.astructured_predict(Title, ASK, ticket="x"), [one async for one in stream][-1]]

    def forms() -> list[Any]:
        return [
            model.structured_predict(Title, ASK, ticket="x"),
            list(model.stream_structured_predict(Title, ASK, ticket="x"))[-1],
            model.as_structured_llm(Title).complete(SUMMARY).raw,
            *asyncio.run(asynchronous()),
        ]

    for _ in range(5):
        host.upstream.reply("not JSON")
        host.upstream.reply_json({"title": "Fire"})
    assert forms() == [Title(title="Fire")] * 5
    for found in host.calls():
        assert [attempt.outcome for attempt in found.attempts] == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]


def test_structured_output_by_a_tool(host: Host) -> None:
    """Where LlamaIndex is told to ask for an object by a tool, a tool is what is asked for, and forced where it can."""
    model = TierwiseLLM(settings=host.settings, pydantic_program_mode=PydanticProgramMode.FUNCTION)
    host.upstream.reply_tool("Title", {"title": "Fire"}, times=2)
    assert model.structured_predict(Title, ASK, ticket="x") == Title(title="Fire")
    assert list(model.stream_structured_predict(Title, ASK, ticket="x"))[-1] == Title(title="Fire")
    sent: Any = host.upstream.calls()[0].json
    assert sent["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


def test_tools_are_called(host: Host, model: TierwiseLLM) -> None:
    """A call of a tool is read, carried out, and only one where one is wanted; an answer without one is said to be."""
    host.upstream.reply(CALL)
    assert model.predict_and_call([WEATHER], user_msg=SUMMARY).response == "rain in Köln"
    twice = StandInReply(content=(*CALL.content, {**CALL.content[1], "id": "toolu_2"}), stop_reason="tool_use")
    host.upstream.reply(twice, times=2)
    assert len(model.get_tool_calls_from_response(model.chat_with_tools([WEATHER], SUMMARY))) == 1
    both = model.chat_with_tools([WEATHER], SUMMARY, allow_parallel_tool_calls=True)
    assert [call.tool_id for call in model.get_tool_calls_from_response(both)] == ["toolu_1", "toolu_2"]
    with pytest.raises(ValueError, match="calls no tool"):
        model.get_tool_calls_from_response(model.chat(ASKED))


def test_tool_choice_in_every_word() -> None:
    """LlamaIndex's words for which tool is to be called are Messages' own."""
    once = {"disable_parallel_tool_use": True}
    assert tool_choice_of(None, required=False, parallel=True) == {"type": "auto"}
    assert tool_choice_of("required", required=False, parallel=False) == {"type": "any", **once}
    assert tool_choice_of("weather", required=False, parallel=False) == {"type": "tool", "name": "weather", **once}
    function = {"type": "function", "function": {"name": "weather"}}
    assert tool_choice_of(function, required=False, parallel=True) == {"type": "tool", "name": "weather"}
    assert tool_choice_of("none", required=True, parallel=False) == {"type": "none"}
    assert tool_choice_of({"type": "auto"}, required=True, parallel=False) == {"type": "auto"}


# ------------------------------------------------------------------ messages


def test_blocks_are_as_the_api_wants_them(tmp_path: Path) -> None:
    """System on top, turns of one side together, results with their calls, signed thoughts kept, others left out."""
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4 aaaa")
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    history = [
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(
            blocks=[
                TextBlock(text="What is this?"),
                CachePoint(cache_control=CacheControl(type="ephemeral")),
                ImageBlock(image=b"\x89PNG\r\n\x1a\n", image_mimetype="image/png"),
                ImageBlock(url="https://x.test/a.png"),
                DocumentBlock(path=path, title="a"),
                DocumentBlock(data=b"a b c", document_mimetype="text/plain"),
            ]
        ),
        ChatMessage(blocks=[CitableBlock(title="t", source="s", content=[TextBlock(text="passage")])]),
        ChatMessage(
            role="assistant",
            blocks=[
                ThinkingBlock(content="Hm", additional_information={"signature": "s"}),
                ThinkingBlock(content="of another model"),
                ToolCallBlock(tool_call_id="1", tool_name="weather", tool_kwargs='{"city": "Köln"}'),
            ],
            additional_kwargs={"tool_calls": [{"id": "1", "name": "weather", "input": {}}, {"id": "2", "name": "w"}]},
        ),
        ChatMessage(role="tool", content="rain", additional_kwargs={"tool_call_id": "1"}),
        ChatMessage("And?"),
    ]
    system, turns = conversation(history)
    assert system == "Be brief."
    assert turns == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral", "ttl": "5m"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
                {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
                {
                    "type": "document",
                    "source": {
                        "type": "base64",
                        "media_type": "application/pdf",
                        "data": base64.b64encode(b"%PDF-1.4 aaaa").decode(),
                    },
                    "title": "a",
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a b c"}},
                {
                    "type": "search_result",
                    "source": "s",
                    "title": "t",
                    "content": [{"type": "text", "text": "passage"}],
                    "citations": {"enabled": True},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "s"},
                {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Köln"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "text", "text": "And?"},
            ],
        },
    ]


def test_what_cannot_be_sent_is_named() -> None:
    """Sound, a point to cache nothing up to and a tool's message without a call are refused with what to do."""
    with pytest.raises(ValueError, match="AudioBlock"):
        conversation([ChatMessage(blocks=[AudioBlock(audio=b"RIFF")])])
    with pytest.raises(ValueError, match="put it after a block"):
        conversation([ChatMessage(blocks=[CachePoint(cache_control=CacheControl(type="ephemeral"))])])
    with pytest.raises(ValueError, match="tool_call_id"):
        conversation([ChatMessage(role="tool", content="rain")])


def test_citations_are_read() -> None:
    """What an answer cites of the passages it was given follows its text."""
    citation = {
        "type": "search_result_location",
        "cited_text": "passage",
        "source": "s",
        "title": "t",
        "search_result_index": 0,
        "start_block_index": 0,
        "end_block_index": 1,
    }
    told = response_of({"content": [{"type": "text", "text": "Yes.", "citations": [citation]}]}, {})
    text, cited = told.message.blocks
    assert isinstance(text, TextBlock)
    assert isinstance(cited, CitationBlock)
    assert (text.text, cited.source, cited.additional_location_info["end_block_index"]) == ("Yes.", "s", 1)


# ------------------------------------------------------------------ agents, indexes, events


# LlamaIndex's workflows read attributes under the names that pydantic 1 had for them.
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")
async def test_agent_runs_its_tools(host: Host, model: TierwiseLLM) -> None:
    """An agent's steps are routed each: its conversation stays on its model, signed thoughts go back to it."""
    host.upstream.reply(StandInReply(content=(THOUGHT, *CALL.content), stop_reason="tool_use"))
    host.upstream.reply("Rain.")
    agent = FunctionAgent(tools=[weather], llm=model, system_prompt="Be brief.")
    done = await agent.run(SUMMARY)
    assert str(done) == "Rain."
    assert host.models() == [HAIKU, HAIKU]
    second: Any = host.upstream.calls()[1].json
    assert [block["type"] for block in second["messages"][1]["content"]] == ["thinking", "text", "tool_use"]
    assert second["messages"][2]["content"][0]["content"] == [{"type": "text", "text": "rain in Köln"}]
    assert len(host.calls()) == 2


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")
@pytest.mark.filterwarnings("ignore:is_running called from within a step")
async def test_agent_that_reasons_in_words(host: Host, model: TierwiseLLM) -> None:
    """An agent that asks for its tools in words works, too."""
    host.upstream.reply('Thought: I need a tool.\nAction: weather\nAction Input: {"city": "Köln"}')
    host.upstream.reply("Thought: I can answer.\nAnswer: Rain.")
    agent = ReActAgent(tools=[weather], llm=model)
    assert str(await agent.run("What is the weather in Köln?")) == "Rain."


def test_query_engines_and_chat_engines(host: Host, model: TierwiseLLM) -> None:
    """Questions of an index are answered by it, in every call that a synthesizer makes, and a chat remembers."""
    documents = [Document(text=f"The lamp of order {number} arrived broken.") for number in range(3)]
    index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(8))
    host.upstream.reply("Order 1.")
    answer = index.as_query_engine(llm=model, similarity_top_k=2).query("Which lamp broke?")
    assert (str(answer), len(host.calls())) == ("Order 1.", 1)
    sent: Any = host.upstream.calls()[0].json
    assert "arrived broken" in sent["messages"][0]["content"][0]["text"]
    summary = SummaryIndex.from_documents(documents)
    summary.as_query_engine(llm=model, response_mode="tree_summarize", use_async=True).query("What broke?")
    streamed = index.as_query_engine(llm=model, streaming=True).query("Which lamp broke?")
    assert "".join(streamed.response_gen)  # type: ignore[union-attr]
    chat = index.as_chat_engine(chat_mode="context", llm=model)
    chat.chat("Which lamp broke?")
    chat.chat("And when?")
    last: Any = host.upstream.calls()[-1].json
    assert [turn["role"] for turn in last["messages"]] == ["user", "assistant", "user"]
    assert {found.call.status for found in host.calls()} == {CallStatus.ANSWERED}


class Events(BaseEventHandler):
    """Keeps the names of what LlamaIndex tells."""

    _told: list[str] = PrivateAttr(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        """One event."""
        self._told.append(type(event).__name__)


def test_events_and_counts_are_told_once(host: Host) -> None:
    """A call is one start and one end in LlamaIndex's events, and its tokens are counted once, cached ones included."""
    counter = TokenCountingHandler(tokenizer=lambda text: text.split())
    model = TierwiseLLM(settings=host.settings, callback_manager=CallbackManager([counter]))
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50}
    host.upstream.reply('{"title": "Fire"}', usage=usage, times=None)
    handler = Events()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(handler)
    try:
        model.complete(SUMMARY)
        list(model.stream_chat(ASKED))
        model.structured_predict(Title, ASK, ticket="x")
        asyncio.run(model.acomplete(SUMMARY))
    finally:
        dispatcher.event_handlers.remove(handler)
    told = [name for name in handler._told if not name.endswith(("ProgressEvent", "SpanDropEvent"))]
    assert told == [
        *("LLMCompletionStartEvent", "LLMCompletionEndEvent"),
        *("LLMChatStartEvent", "LLMChatEndEvent"),
        *("LLMStructuredPredictStartEvent", "LLMChatStartEvent", "LLMChatEndEvent", "LLMStructuredPredictEndEvent"),
        *("LLMCompletionStartEvent", "LLMCompletionEndEvent"),
    ]
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (4 * 150, 4 * 10)


def test_missing_extra_says_what_to_install() -> None:
    """Where LlamaIndex is not there, the error says how to install it; importing tierwise never imports it."""
    script = (
        "import sys, tierwise; tierwise.wrap, tierwise.call_options\n"
        "import tierwise.integrations.llama_index\n"
        "assert not {'llama_index', 'httpx2'} & sys.modules.keys()\n"
        "sys.modules['llama_index'] = None\n"
        "try:\n    from tierwise.integrations.llama_index import TierwiseLLM\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert "pip install 'tierwise[llama-index]'" in done.stdout, done.stdout + done.stderr
