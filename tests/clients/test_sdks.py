"""The real SDKs of Anthropic, OpenAI and LangChain through the gateway, the stand-in for Anthropic's API behind it.

What is sent and what comes back is in the SDKs' own types; their errors are the ones that they raise without a gateway.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.clients.tiers import AUTO, IDS, on
from tests.gateway.conftest import KEY, Serve, Served, settings_for, started
from tierwise.config import load_settings
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.settings import ProviderSettings
from tierwise.providers.embedded import find_weights
from tierwise.testing import Fault, StandInReply, StandInUpstream

anthropic = pytest.importorskip("anthropic", reason="not installed: pip install -r requirements/dev.txt")
openai = pytest.importorskip("openai", reason="not installed: pip install -r requirements/dev.txt")

SUMMARY = "Summarise this ticket in one line: the printer burns"
ASKED: Any = {"max_tokens": 200, "messages": [{"role": "user", "content": SUMMARY}]}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": SCHEMA}
FUNCTION: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}
CALL = StandInReply(
    content=({"type": "tool_use", "id": "toolu_01Real", "name": "weather", "input": {"city": "Köln"}},),
    stop_reason="tool_use",
)
QUICK = "[limits]\nbackoff_base_seconds = 0.01\ntransient_retries = 0\ncircuit_failures = 1000\n"

_weights = ProviderSettings(name="embedded", kind="embedded", local=True)
_there = importlib.util.find_spec("xllamacpp") is not None and find_weights(_weights) is not None
embedded = pytest.mark.skipif(
    not _there, reason="xllamacpp or the weights are not installed (`make test` installs them)"
)


class Right(BaseModel):
    """What even the smallest model brings to an end."""

    right: bool


class Title(BaseModel):
    """What structured output is asked for."""

    title: str


def name_of(model: str) -> str:
    """The model as a request names it."""
    return IDS.get(model, model)


def sent(upstream: StandInUpstream) -> Any:
    """The body of the last request that came."""
    return upstream.calls()[-1].json


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One gateway for all of them, that climbs at once and never opens a circuit."""
    with StandInUpstream() as running:
        gateway = started(running, settings_for(running, tmp_path_factory.mktemp("gateway"), QUICK))
        yield gateway
        gateway.stop()


@pytest.fixture
def gateway(shared: Served) -> Served:
    """The same, with nothing of the tests before."""
    shared.upstream.clear()
    return replace(shared, before=len(shared.calls()))


@pytest.fixture
def upstream(gateway: Served) -> StandInUpstream:
    """The stand-in behind it."""
    return gateway.upstream


@pytest.fixture
def claude(gateway: Served) -> Iterator[Any]:
    """Anthropic's client, which does not try again."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(gateway: Served) -> Iterator[Any]:
    """OpenAI's client, which does not try again."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


# ------------------------------------------------------------------ Anthropic's SDK


@on("haiku", "sonnet", "opus", AUTO)
def test_anthropic_messages(gateway: Served, upstream: StandInUpstream, claude: Any, model: str) -> None:
    """`messages.create` answers with text, usage and request id; the raw response tells tier, model and cost."""
    upstream.reply("It burns.", usage={"input_tokens": 1_000, "output_tokens": 10, "cache_read_input_tokens": 500})
    raw = claude.messages.with_raw_response.create(model=name_of(model), **ASKED)
    message = raw.parse()
    assert [block.text for block in message.content] == ["It burns."]
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (1_000, 500)
    assert message._request_id == upstream.calls()[-1].request_id
    assert message.model == sent(upstream)["model"] == raw.headers["x-tierwise-model"]
    assert raw.headers["x-tierwise-tier"] == ("haiku" if model == AUTO else model)
    assert float(raw.headers["x-tierwise-cost-usd"]) * 1e9 == gateway.call().attempts[0].cost_nanousd


@on("sonnet", AUTO)
def test_anthropic_stream(upstream: StandInUpstream, claude: Any, model: str) -> None:
    """`messages.stream` yields text as it comes, and the whole message at the end, thinking and its signature too."""
    upstream.reply("It burns.", thinking="A printer")
    with claude.messages.stream(model=name_of(model), **ASKED) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "It burns."
    assert message.content[0].signature == "stand-in-signature"
    assert message.usage.output_tokens > 0
    assert message.stop_reason == "end_turn"


@on("sonnet", AUTO)
async def test_anthropic_async(gateway: Served, upstream: StandInUpstream, model: str) -> None:
    """`AsyncAnthropic` creates and streams alike, calls at once included."""
    import asyncio

    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        messages = await asyncio.gather(*(client.messages.create(model=name_of(model), **ASKED) for _ in range(8)))
        async with client.messages.stream(model=name_of(model), **ASKED) as stream:
            texts = [text async for text in stream.text_stream]
    assert {message.content[0].text for message in messages} == {"".join(texts)}
    assert len(gateway.calls()) == 9


@on("haiku", "sonnet", "opus", AUTO)
def test_anthropic_tools(upstream: StandInUpstream, claude: Any, model: str) -> None:
    """The tool runner calls the function and gives the final answer; its thread passes, but for the routed name."""
    upstream.reply(CALL)
    upstream.reply("Rain in Köln.")

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name
        """
        return f"rain in {city}"

    runner = claude.beta.messages.tool_runner(model=name_of(model), tools=[weather], **ASKED)
    assert runner.until_done().content[0].text == "Rain in Köln."
    first, second = (request.json for request in upstream.calls())
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    *history, result = second["messages"]
    assert result["content"][0]["tool_use_id"] == "toolu_01Real"
    assert "rain in Köln" in json.dumps(result["content"], ensure_ascii=False)
    if model == AUTO:
        assert "thread" not in first
        assert history[-1]["content"][0]["id"] == "toolu_01Real"
    else:
        assert first["thread"] == {"type": "create"}
        assert second["thread"]["type"] == "continue"


@on("sonnet", AUTO)
def test_anthropic_tools_streamed(upstream: StandInUpstream, claude: Any, model: str) -> None:
    """The stream helper puts the pieces of a tool's arguments together; odd characters survive."""
    upstream.reply(CALL)
    with claude.messages.stream(model=name_of(model), tools=[TOOL], **ASKED) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    assert json.loads("".join(pieces)) == message.content[0].input == {"city": "Köln"}
    assert message.content[0].id == "toolu_01Real"


@on("haiku", "sonnet", "opus", AUTO)
def test_anthropic_structured_output(gateway: Served, upstream: StandInUpstream, claude: Any, model: str) -> None:
    """`messages.parse` gives the pydantic object; on the routed name a misfit is tried again unseen."""
    if model == AUTO:
        upstream.reply("no JSON", times=2)
    upstream.reply_json({"title": "Printer on fire"})
    message = claude.messages.parse(model=name_of(model), output_format=Title, **ASKED)
    assert message.parsed_output == Title(title="Printer on fire")
    if model == AUTO:
        outcomes = [attempt.outcome for attempt in gateway.call().attempts]
        assert outcomes == [OutcomeKind.REJECTED, OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]


@on("haiku", AUTO)
def test_anthropic_count_tokens(gateway: Served, claude: Any, model: str) -> None:
    """`messages.count_tokens` counts, for the routed name too, and is no call in the ledger."""
    assert claude.messages.count_tokens(model=name_of(model), messages=ASKED["messages"]).input_tokens > 0
    assert gateway.calls() == []


def test_anthropic_models(upstream: StandInUpstream, claude: Any) -> None:
    """`models.list` goes through all pages and names each model once, the routed ones first; `retrieve` knows them."""
    names = [model.id for model in claude.models.list(limit=4)]
    assert names == [AUTO, *upstream.models]
    assert len(upstream.calls("/v1/models")) > 2
    assert claude.models.retrieve(AUTO).display_name == f"tierwise: {AUTO}"
    assert claude.models.retrieve("claude-haiku-5-5").id == "claude-haiku-5-5"
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("claude-unheard-of")


ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    500: "InternalServerError",
    529: "OverloadedError",
}


@pytest.mark.parametrize("status", ERRORS)
@on("sonnet")
def test_anthropic_errors(gateway: Served, upstream: StandInUpstream, claude: Any, model: str, status: int) -> None:
    """Each status raises the class that it raises without a gateway, with the API's words, type and `retry-after`."""
    upstream.fail(Fault.status(status, "as it was said", headers={"retry-after": "0.01"}))
    with pytest.raises(getattr(anthropic, ERRORS[status])) as caught:
        claude.messages.create(model=name_of(model), **ASKED)
    assert caught.value.status_code == status
    assert caught.value.body["error"]["message"] == "as it was said"
    assert caught.value.response.headers["retry-after"] == "0.01"
    assert caught.value.request_id == upstream.calls()[-1].request_id
    assert gateway.call().call.status is CallStatus.FAILED


@on("sonnet")
def test_anthropic_retries(gateway: Served, upstream: StandInUpstream, model: str) -> None:
    """The SDK's own retries work: after a 429 it waits as long as it was told and tries again."""
    upstream.fail(Fault.rate_limited(retry_after=0.01))
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=1) as client:
        client.messages.create(model=name_of(model), **ASKED)
    assert [found.call.status for found in gateway.calls()] == [CallStatus.FAILED, CallStatus.ANSWERED]


@pytest.mark.parametrize("fault", [Fault.cut(after_events=4), Fault.error_event(after_events=4)])
@on("sonnet")
def test_anthropic_broken_stream(
    gateway: Served, upstream: StandInUpstream, claude: Any, model: str, fault: Fault
) -> None:
    """A stream that breaks in mid-answer raises an APIStatusError; it never looks whole."""
    upstream.fail(fault)
    with (
        pytest.raises(anthropic.APIStatusError),
        claude.messages.stream(model=name_of(model), **ASKED) as stream,
    ):
        stream.until_done()
    assert gateway.call().call.status is CallStatus.FAILED


def test_anthropic_refusals(upstream: StandInUpstream, claude: Any) -> None:
    """What the gateway itself refuses is an error of the SDK too: here a header that cannot be read."""
    with pytest.raises(anthropic.BadRequestError, match="x-tierwise-deadline is 'soon'"):
        claude.messages.create(model=AUTO, extra_headers={"x-tierwise-deadline": "soon"}, **ASKED)
    assert not upstream.calls()


# ------------------------------------------------------------------ OpenAI's SDK

CHAT: Any = {"messages": ASKED["messages"]}


@on("haiku", "sonnet", "opus", AUTO)
def test_openai_chat(gateway: Served, upstream: StandInUpstream, gpt: Any, model: str) -> None:
    """`chat.completions.create` answers with text, usage and headers; its key goes on as Anthropic wants it."""
    upstream.reply("It burns.", usage={"input_tokens": 90, "cache_read_input_tokens": 10, "output_tokens": 4})
    raw = gpt.chat.completions.with_raw_response.create(model=name_of(model), **CHAT)
    reply = raw.parse()
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("It burns.", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (100, 4)
    assert raw.headers["x-tierwise-model"] == sent(upstream)["model"]
    assert upstream.calls()[-1].headers["x-api-key"] == KEY
    assert "authorization" not in upstream.calls()[-1].headers
    assert gateway.call().call.status is CallStatus.ANSWERED


@on("sonnet", AUTO)
def test_openai_stream(upstream: StandInUpstream, gpt: Any, model: str) -> None:
    """Chunks as they come, the usage in the last one; the `stream` helper puts them together."""
    upstream.reply("It burns.", times=2)
    chunks = list(
        gpt.chat.completions.create(model=name_of(model), stream=True, stream_options={"include_usage": True}, **CHAT)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It burns."
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0
    with gpt.chat.completions.stream(model=name_of(model), **CHAT) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == "It burns."
    assert sent(upstream)["stream"] is True


@on("sonnet", AUTO)
async def test_openai_async(gateway: Served, upstream: StandInUpstream, model: str) -> None:
    """`AsyncOpenAI` creates and streams alike."""
    upstream.reply("It burns.", times=2)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        reply = await client.chat.completions.create(model=name_of(model), **CHAT)
        stream = await client.chat.completions.create(model=name_of(model), stream=True, **CHAT)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert reply.choices[0].message.content == "".join(pieces) == "It burns."


@on("haiku", "sonnet", "opus", AUTO)
def test_openai_tools(upstream: StandInUpstream, gpt: Any, model: str) -> None:
    """A function is called and its result finds the call, whole and streamed."""
    upstream.reply(CALL, times=2)
    upstream.reply("Rain.")
    asked = {"model": name_of(model), "tools": [FUNCTION]}
    first = gpt.chat.completions.create(**asked, **CHAT).choices[0]
    with gpt.chat.completions.stream(**asked, **CHAT) as stream:
        stream.until_done()
        streamed = stream.get_final_completion().choices[0]
    for choice in (first, streamed):
        (call,) = choice.message.tool_calls
        assert (choice.finish_reason, call.id) == ("tool_calls", "toolu_01Real")
        assert json.loads(call.function.arguments) == {"city": "Köln"}
    result = {"role": "tool", "tool_call_id": first.message.tool_calls[0].id, "content": "rain"}
    messages = [*CHAT["messages"], first.message, result]
    assert gpt.chat.completions.create(**asked, messages=messages).choices[0].message.content == "Rain."
    *_, called, answered = sent(upstream)["messages"]
    assert called["content"][0]["id"] == answered["content"][0]["tool_use_id"] == "toolu_01Real"


@on("haiku", "sonnet", "opus", AUTO)
def test_openai_structured_output(upstream: StandInUpstream, gpt: Any, model: str) -> None:
    """`chat.completions.parse` gives the pydantic object; on the routed name a misfit is tried again unseen."""
    if model == AUTO:
        upstream.reply("no JSON", times=2)
    upstream.reply_json({"title": "Printer on fire"})
    reply = gpt.chat.completions.parse(model=name_of(model), response_format=Title, **CHAT)
    assert reply.choices[0].message.parsed == Title(title="Printer on fire")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 529])
@on("sonnet")
def test_openai_errors(upstream: StandInUpstream, gpt: Any, model: str, status: int) -> None:
    """Each status raises OpenAI's class for it, with the API's words and `retry-after`."""
    name = {**ERRORS, 529: "InternalServerError"}[status]
    upstream.fail(Fault.status(status, "as it was said", headers={"retry-after": "0.01"}))
    with pytest.raises(getattr(openai, name), match="as it was said") as caught:
        gpt.chat.completions.create(model=name_of(model), **CHAT)
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "0.01"


@pytest.mark.parametrize("fault", [Fault.cut(after_events=4), Fault.error_event(after_events=4)])
@on("sonnet")
def test_openai_broken_stream(gateway: Served, upstream: StandInUpstream, gpt: Any, model: str, fault: Fault) -> None:
    """A stream that breaks in mid-answer raises an APIError; it never looks whole."""
    upstream.fail(fault)
    with pytest.raises(openai.APIError):
        list(gpt.chat.completions.create(model=name_of(model), stream=True, **CHAT))
    assert gateway.call().call.status is CallStatus.FAILED


def test_openai_models(upstream: StandInUpstream, gpt: Any) -> None:
    """`models.list` has the routed name and the API's; `retrieve` knows them."""
    assert {AUTO, *upstream.models} == {model.id for model in gpt.models.list()}
    assert gpt.models.retrieve(AUTO).id == AUTO


# ------------------------------------------------------------------ The local tier


@embedded
@pytest.mark.embedded
def test_sdks_local(serve: Serve, upstream: StandInUpstream, tmp_path: Path) -> None:
    """The embedded model answers both SDKs, whole and streamed, keeps to a schema, and costs nothing; tools go up."""
    config = tmp_path / "tierwise.toml"
    local = '[gateway]\nembedded = true\n[tiers.local]\nmodels = ["embedded:smollm2-135m-instruct"]\n'
    config.write_text(local, encoding="utf-8")
    env = {"HOME": str(tmp_path), "ANTHROPIC_BASE_URL": upstream.url, "TIERWISE_LEDGER": str(tmp_path / "l.db")}
    gateway = serve(upstream, settings=load_settings(path=config, env=env, cwd=tmp_path))
    asked: Any = {
        "model": AUTO,
        "max_tokens": 60,
        "messages": [{"role": "user", "content": "Fix the grammar: he go home"}],
        "extra_body": {"temperature": 0},  # the same answer each time
    }
    by_name = {**asked, "model": "embedded:smollm2-135m-instruct"}
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        assert client.messages.create(**asked).usage.output_tokens > 0
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream)
        assert client.messages.parse(output_format=Right, **by_name).parsed_output is not None
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as chat:
        assert chat.chat.completions.create(**asked).choices[0].message.content
        assert [*chat.chat.completions.create(stream=True, **asked)][-1].choices[0].finish_reason
    assert not upstream.calls()
    assert {found.call.tier for found in gateway.calls()} == {"local"}
    assert {found.attempts[-1].cost_nanousd for found in gateway.calls()} == {0}
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        client.messages.create(tools=[TOOL], **asked)
    assert sent(upstream)["model"] == IDS["haiku"]


# ------------------------------------------------------------------ LangChain


@pytest.fixture
def langchain(gateway: Served, request: pytest.FixtureRequest) -> Any:
    """A chat model of LangChain's, by the name of its package."""
    package = pytest.importorskip(request.param, reason="not installed: pip install -r requirements/dev.txt")
    if request.param == "langchain_anthropic":
        return lambda model: package.ChatAnthropic(
            model=name_of(model), base_url=gateway.url, api_key=KEY, max_retries=0, max_tokens=200
        )
    return lambda model: package.ChatOpenAI(
        model=name_of(model), base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0
    )


PACKAGES = pytest.mark.parametrize("langchain", ["langchain_anthropic", "langchain_openai"], indirect=True)


@PACKAGES
@on("sonnet", AUTO)
def test_langchain_invoke(upstream: StandInUpstream, langchain: Any, model: str) -> None:
    """`invoke` and `stream` give text and usage."""
    upstream.reply("It burns.", times=2, usage={"input_tokens": 12, "output_tokens": 3})
    chat = langchain(model)
    whole = chat.invoke(SUMMARY)
    assert (whole.text, whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]) == (
        "It burns.",
        12,
        3,
    )
    pieces = list(chat.stream(SUMMARY))
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == "It burns."


@pytest.mark.asyncio(loop_scope="module")  # LangChain keeps its connections for as long as the process lives
@PACKAGES
@on("sonnet", AUTO)
async def test_langchain_async(upstream: StandInUpstream, langchain: Any, model: str) -> None:
    """`ainvoke` and `astream` alike."""
    upstream.reply("It burns.", times=2)
    chat = langchain(model)
    assert (await chat.ainvoke(SUMMARY)).text == "It burns."
    assert "".join([piece.text async for piece in chat.astream(SUMMARY)]) == "It burns."


@PACKAGES
@on("haiku", "sonnet", "opus", AUTO)
def test_langchain_tools(upstream: StandInUpstream, langchain: Any, model: str) -> None:
    """`bind_tools` calls a tool, and a ToolMessage answers it under its id."""
    from langchain_core.messages import HumanMessage, ToolMessage

    upstream.reply(CALL)
    upstream.reply("Rain.")
    chat = langchain(model).bind_tools([{"name": "weather", "description": "The weather.", "input_schema": SCHEMA}])
    asked = HumanMessage("What is the weather in Köln?")
    called = chat.invoke([asked])
    (call,) = called.tool_calls
    assert (call["name"], call["args"], call["id"]) == ("weather", {"city": "Köln"}, "toolu_01Real")
    assert chat.invoke([asked, called, ToolMessage("rain", tool_call_id=call["id"])]).text == "Rain."
    *_, result = sent(upstream)["messages"]
    assert result["content"][0]["tool_use_id"] == "toolu_01Real"


@PACKAGES
@on("haiku", "sonnet", "opus", AUTO)
def test_langchain_structured_output(upstream: StandInUpstream, langchain: Any, model: str) -> None:
    """`with_structured_output(…, method="json_schema")` gives the pydantic object."""
    upstream.reply_json({"title": "Printer on fire"})
    chat = langchain(model).with_structured_output(Title, method="json_schema")
    assert chat.invoke(SUMMARY) == Title(title="Printer on fire")
