"""OpenAI's real SDK, wrapped: models that tierwise knows go through it, everything else to OpenAI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import tierwise
from tests.integrations.conftest import Host
from tierwise.testing import StandInReply, StandInUpstream

openai = pytest.importorskip("openai", reason="not installed: pip install -r requirements/dev.txt")

AUTO = "claude-tierwise-auto"
HAIKU, SONNET = "claude-haiku-5-5", "claude-sonnet-5-5"
ASKED: Any = {"messages": [{"role": "user", "content": "Summarise this ticket in one line: the printer burns"}]}
CALL = StandInReply(
    content=({"type": "tool_use", "id": "toolu_01", "name": "weather", "input": {"city": "Köln"}},),
    stop_reason="tool_use",
)
FUNCTION: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Title(BaseModel):
    """What structured output is asked for."""

    title: str


@pytest.fixture
def elsewhere() -> Iterator[StandInUpstream]:
    """A stand-in where OpenAI would be."""
    with StandInUpstream(models=["gpt-stand-in"]) as running:
        yield running


@pytest.fixture
def gpt(host: Host, elsewhere: StandInUpstream) -> Iterator[Any]:
    """A wrapped client that does not try again."""
    client = openai.OpenAI(base_url=f"{elsewhere.url}/v1", api_key="sk-of-openai", max_retries=0)
    with tierwise.wrap(client, settings=host.settings) as wrapped:
        yield wrapped


def test_routed_name_goes_to_its_tier(host: Host, gpt: Any, elsewhere: StandInUpstream) -> None:
    """A routed name is answered by a model of ours, with the configured key; OpenAI's key goes nowhere."""
    host.upstream.reply("It burns.")
    done = gpt.chat.completions.create(model=AUTO, **ASKED)
    assert done.choices[0].message.content == "It burns."
    assert (host.models(), elsewhere.requests) == ([HAIKU], [])
    headers = host.upstream.calls()[0].headers
    assert headers["x-api-key"] == "sk-ant-configured"
    assert "sk-of-openai" not in str(headers)
    assert host.call().call.model == HAIKU


def test_other_models_go_to_openai(host: Host, gpt: Any, elsewhere: StandInUpstream) -> None:
    """A model that tierwise does not know goes where the client sends it, with its key."""
    elsewhere.reply("From elsewhere.")
    done = gpt.chat.completions.create(model="gpt-stand-in", **ASKED)
    assert done.choices[0].message.content == "From elsewhere."
    (request,) = elsewhere.calls("/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-of-openai"
    assert host.calls() == []


def test_stream_tools_and_structured_output(host: Host, gpt: Any) -> None:
    """Streams, calls of functions and parsed output are the SDK's own."""
    host.upstream.reply("It burns.")
    chunks = list(gpt.chat.completions.create(model=AUTO, stream=True, **ASKED))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It burns."
    host.upstream.reply(CALL)
    (call,) = gpt.chat.completions.create(model=AUTO, tools=[FUNCTION], **ASKED).choices[0].message.tool_calls
    assert (call.id, call.function.arguments) == ("toolu_01", '{"city": "Köln"}')
    host.upstream.reply_json({"title": "Fire"})
    assert (
        gpt.chat.completions.parse(model=AUTO, response_format=Title, **ASKED).choices[0].message.parsed.title == "Fire"
    )


def test_check_that_nothing_passes(host: Host, gpt: Any) -> None:
    """A check refuses every answer: the SDK's own exception, and every attempt on record."""
    host.upstream.reply("no", times=None)
    with (
        tierwise.call_options(check=lambda text: text == "yes", max_tier="sonnet"),
        pytest.raises(openai.UnprocessableEntityError),
    ):
        gpt.chat.completions.create(model=AUTO, **ASKED)
    assert [attempt.model for attempt in host.call().attempts] == [HAIKU, SONNET]


async def test_asynchronous(host: Host, elsewhere: StandInUpstream) -> None:
    """The asynchronous client answers and streams."""
    host.upstream.reply("It burns.", times=None)
    client = openai.AsyncOpenAI(base_url=f"{elsewhere.url}/v1", api_key="sk-of-openai", max_retries=0)
    async with tierwise.wrap(client, settings=host.settings) as gpt:
        done = await gpt.chat.completions.create(model=AUTO, **ASKED)
        chunks = [chunk async for chunk in await gpt.chat.completions.create(model=AUTO, stream=True, **ASKED)]
    assert done.choices[0].message.content == "It burns."
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It burns."


def test_responses_with_a_routed_name_are_refused(gpt: Any, elsewhere: StandInUpstream) -> None:
    """What is not routed says so before anything is sent."""
    with pytest.raises(openai.BadRequestError, match=r"chat\.completions"):
        gpt.responses.create(model=AUTO, input="hello")
    assert elsewhere.requests == []
