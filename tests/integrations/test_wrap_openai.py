"""OpenAI's real SDK, wrapped: models that tierwise knows go through it, everything else to OpenAI."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

import tierwise
from tests.integrations.conftest import Host
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.testing import Fault, StandInReply, StandInUpstream

openai = pytest.importorskip("openai", reason="not installed: pip install -r requirements/dev.txt")

AUTO = "claude-tierwise-auto"
HAIKU, SONNET = "claude-haiku-5-5", "claude-sonnet-5-5"
ASKED: Any = {"messages": [{"role": "user", "content": "Summarise this ticket in one line: the printer burns"}]}
USAGE = {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50}
ANSWERED = (CallStatus.ANSWERED, "summarization", "support")
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
    assert host.models() == []


def test_other_models_are_recorded_as_they_pass(host: Host, gpt: Any, elsewhere: StandInUpstream) -> None:
    """A call that goes to OpenAI is in the ledger with its usage; its cost is unknown, says why, and is not zero."""
    elsewhere.reply("It burns.", usage=USAGE)
    with tierwise.call_options(project="support"):
        gpt.chat.completions.create(model="gpt-stand-in", **ASKED)
    found = host.call()
    (attempt,) = found.attempts
    assert (found.call.status, found.call.task_type, found.call.project) == ANSWERED
    assert (attempt.model, attempt.tier, attempt.outcome) == ("gpt-stand-in", "other", OutcomeKind.ACCEPTED)
    assert (attempt.usage.input_tokens, attempt.usage.cache_read_tokens, attempt.usage.output_tokens) == (100, 50, 10)
    assert (attempt.cost_nanousd, attempt.price) == (None, None)
    assert any(reason.step == "unpriced" for reason in found.call.reasons)


@pytest.mark.parametrize("told", [True, False])
def test_streams_of_other_models_are_recorded(host: Host, gpt: Any, elsewhere: StandInUpstream, told: bool) -> None:
    """A stream is recorded when it was read, with the usage that it tells; where it tells none, that is not known."""
    elsewhere.reply("It burns.", usage=USAGE)
    options: Any = {"stream_options": {"include_usage": True}} if told else {}
    chunks = list(gpt.chat.completions.create(model="gpt-stand-in", stream=True, **options, **ASKED))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It burns."
    (attempt,) = host.call().attempts
    assert (attempt.outcome, attempt.cost_nanousd) == (OutcomeKind.ACCEPTED, None)
    assert (attempt.usage.output_tokens, attempt.usage.estimated) == ((10, False) if told else (0, True))


def test_failures_of_other_models_are_recorded(host: Host, gpt: Any, elsewhere: StandInUpstream) -> None:
    """An error is one to the client, as it came, and in the ledger; so is a stream that was cut, or left."""
    elsewhere.fail(Fault.status(429))
    with pytest.raises(openai.RateLimitError):
        gpt.chat.completions.create(model="gpt-stand-in", **ASKED)
    elsewhere.fail(Fault.cut(after_events=3))
    with pytest.raises(openai.APIError), contextlib.suppress(httpx2.TransportError):
        list(gpt.chat.completions.create(model="gpt-stand-in", stream=True, **ASKED))
    with gpt.chat.completions.create(model="gpt-stand-in", stream=True, **ASKED) as stream:
        next(iter(stream))
    limited, cut, left = host.calls()
    assert [one.call.status for one in (limited, cut, left)] == [
        CallStatus.FAILED,
        CallStatus.FAILED,
        CallStatus.CANCELLED,
    ]
    assert (limited.attempts[0].outcome, limited.attempts[0].cost_nanousd) == (OutcomeKind.RATE_LIMITED, 0)
    assert (cut.attempts[0].outcome, cut.attempts[0].cost_nanousd) == (OutcomeKind.CONNECTION, None)
    assert (left.attempts[0].outcome, left.attempts[0].cost_nanousd) == (OutcomeKind.CANCELLED, None)


def test_known_prices_hold_for_other_models(host: Host) -> None:
    """A model of OpenAI's own, asked where OpenAI is, has its price; `responses` are recorded, too."""

    def openai_itself(request: httpx2.Request) -> httpx2.Response:
        usage = {"input_tokens": 1_000, "output_tokens": 100, "input_tokens_details": {"cached_tokens": 400}}
        said = {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": []}
        about = {"id": "r", "object": "response", "created_at": 0, "model": "gpt-5", "parallel_tool_calls": False}
        reply = {**about, "output": [said], "tools": [], "tool_choice": "auto", "usage": usage}
        packed = gzip.compress(json.dumps(reply).encode())
        return httpx2.Response(
            200, headers={"content-encoding": "gzip", "content-type": "application/json"}, content=packed
        )

    beside = httpx2.Client(transport=httpx2.MockTransport(openai_itself))
    client = openai.OpenAI(base_url="https://api.openai.com/v1", api_key="sk-of-openai", max_retries=0)
    with tierwise.wrap(client, settings=host.settings, http_client=beside) as gpt:
        gpt.responses.create(model="gpt-5", input="Summarise this ticket in one line: the printer burns")
    found = host.call()
    assert found.call.task_type == "summarization"
    usage = found.attempts[0].usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (600, 400, 100)
    # US$ 1.25, 0.125 and 10 a million
    assert found.attempts[0].cost_nanousd == 600 * 1_250 + 400 * 125 + 100 * 10_000


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


async def test_asynchronous_calls_of_other_models_are_recorded(host: Host, elsewhere: StandInUpstream) -> None:
    """The asynchronous client's calls to OpenAI are recorded alike, whole and streamed."""
    elsewhere.reply("It burns.", times=None, usage=USAGE)
    client = openai.AsyncOpenAI(base_url=f"{elsewhere.url}/v1", api_key="sk-of-openai", max_retries=0)
    async with tierwise.wrap(client, settings=host.settings) as gpt:
        await gpt.chat.completions.create(model="gpt-stand-in", **ASKED)
        stream = await gpt.chat.completions.create(
            model="gpt-stand-in", stream=True, stream_options={"include_usage": True}, **ASKED
        )
        assert [chunk async for chunk in stream]
    assert [found.attempts[0].usage.output_tokens for found in host.calls()] == [10, 10]
    assert {found.call.status for found in host.calls()} == {CallStatus.ANSWERED}


async def test_cancelled_task_is_recorded(host: Host, elsewhere: StandInUpstream) -> None:
    """A task that is cancelled before OpenAI has said anything is in the ledger, and what it cost is not known."""
    elsewhere.fail(Fault.stall())
    client = openai.AsyncOpenAI(base_url=f"{elsewhere.url}/v1", api_key="sk-of-openai", max_retries=0)
    async with tierwise.wrap(client, settings=host.settings) as gpt:
        task = asyncio.ensure_future(gpt.chat.completions.create(model="gpt-stand-in", **ASKED))
        while not elsewhere.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (host.call().call.status, host.call().attempts[0].cost_nanousd) == (CallStatus.CANCELLED, None)


def test_interrupted_wait_is_recorded(host: Host) -> None:
    """Ctrl-C while OpenAI has said nothing yet goes on, and the call is in the ledger."""

    def interrupted(request: httpx2.Request) -> httpx2.Response:
        raise KeyboardInterrupt

    with httpx2.Client(transport=httpx2.MockTransport(interrupted)) as beside:
        gpt = tierwise.wrap(openai.OpenAI(api_key="sk-of-openai"), settings=host.settings, http_client=beside)
        with pytest.raises(KeyboardInterrupt):
            gpt.chat.completions.create(model="gpt-5", **ASKED)
    assert (host.call().call.status, host.call().attempts[0].cost_nanousd) == (CallStatus.CANCELLED, None)


def test_responses_with_a_routed_name_are_refused(gpt: Any, elsewhere: StandInUpstream) -> None:
    """What is not routed says so before anything is sent."""
    with pytest.raises(openai.BadRequestError, match=r"chat\.completions"):
        gpt.responses.create(model=AUTO, input="hello")
    assert elsewhere.requests == []


def test_batch_of_a_routed_name_is_refused_before_it_is_made(host: Host, gpt: Any, elsewhere: StandInUpstream) -> None:
    """A file for OpenAI's batches that names a routed model would fail there hours later: it is refused at once."""
    for model, purpose, refused in (
        ("claude-tierwise-auto", "batch", True),
        ("claude-tierwise-auto", "assistants", False),
        ("gpt-stand-in", "batch", False),
    ):
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": model, **ASKED}}
        with pytest.raises(openai.APIStatusError) as raised:
            gpt.files.create(file=("batch.jsonl", json.dumps(line).encode()), purpose=purpose)
        assert (raised.value.status_code == 400 and "tierwise routes no batches" in str(raised.value)) is refused
    assert [request.path for request in elsewhere.requests] == ["/v1/files"] * 2
    assert host.calls() == []
