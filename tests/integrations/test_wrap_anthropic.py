"""Anthropic's real SDK, wrapped: routed, checked and recorded in this process, with nothing of it changed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

import tierwise
from tests.integrations.conftest import Host
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import ConfigError, InvalidTask
from tierwise.testing import Fault, StandInReply

anthropic = pytest.importorskip("anthropic", reason="not installed: pip install -r requirements/dev.txt")

KEY = "sk-ant-client-0123456789"
AUTO = "claude-tierwise-auto"
HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
SUMMARY = "Summarise this ticket in one line: the printer burns"
ASKED: Any = {"max_tokens": 200, "messages": [{"role": "user", "content": SUMMARY}]}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": SCHEMA}
CALL = StandInReply(
    content=({"type": "tool_use", "id": "toolu_01Real", "name": "weather", "input": {"city": "Köln"}},),
    stop_reason="tool_use",
)


class Title(BaseModel):
    """What structured output is asked for."""

    title: str


def short(text: str) -> bool:
    """A check of the caller's own."""
    return len(text) < 10


@pytest.fixture
def claude(host: Host) -> Iterator[Any]:
    """A wrapped client that does not try again."""
    client = anthropic.Anthropic(base_url=host.upstream.url, api_key=KEY, max_retries=0)
    with tierwise.wrap(client, settings=host.settings) as wrapped:
        yield wrapped


@pytest.fixture
async def claude_async(host: Host) -> AsyncIterator[Any]:
    """The same, asynchronous."""
    client = anthropic.AsyncAnthropic(base_url=host.upstream.url, api_key=KEY, max_retries=0)
    async with tierwise.wrap(client, settings=host.settings) as wrapped:
        yield wrapped


def test_same_type_comes_back(claude: Any, claude_async: Any) -> None:
    """What comes back is the SDK's own client."""
    assert type(claude) is anthropic.Anthropic
    assert type(claude_async) is anthropic.AsyncAnthropic


def test_routed_name_goes_to_its_tier(host: Host, claude: Any) -> None:
    """`claude-tierwise-auto` is routed, priced and recorded; the raw response tells tier and call."""
    host.upstream.reply("It burns.", usage={"input_tokens": 1_000, "output_tokens": 10})
    raw = claude.messages.with_raw_response.create(model=AUTO, **ASKED)
    message = raw.parse()
    assert message.content[0].text == "It burns."
    assert host.models() == [message.model] == [HAIKU]
    found = host.call()
    assert raw.headers["x-tierwise-call-id"] == found.call.call_id
    assert float(raw.headers["x-tierwise-cost-usd"]) * 1e9 == found.attempts[0].cost_nanousd
    assert host.upstream.calls()[0].headers["x-api-key"] == KEY


def test_model_by_name_passes_through(host: Host, claude: Any) -> None:
    """A model by name gets the bytes that the SDK made, and the call is recorded once."""
    claude.messages.create(model=OPUS, metadata={"user_id": "u"}, **ASKED)
    sent = host.upstream.calls()[0]
    assert sent.body.startswith(b"{") and sent.json["metadata"] == {"user_id": "u"}
    assert (host.models(), len(host.calls())) == ([OPUS], 1)
    assert "x-tierwise-min-tier" not in sent.headers


def test_configured_secrets_stay_where_they_belong(host: Host) -> None:
    """A configured key never goes with a client's calls, and a configured header not to another address."""
    given = {**host.settings.providers["anthropic"].headers, "x-proxy-key": "secret"}
    provider = replace(host.settings.providers["anthropic"], headers=given)
    for base_url, expected in ((host.upstream.url, "secret"), ("https://elsewhere.test", None)):
        own = replace(provider, base_url=base_url)
        settings = replace(host.settings, providers={**host.settings.providers, "anthropic": own})
        client = anthropic.Anthropic(base_url=host.upstream.url, api_key=KEY, max_retries=0)
        with tierwise.wrap(client, settings=settings) as wrapped:
            wrapped.messages.create(model=OPUS, **ASKED)
        headers = host.upstream.calls()[-1].headers
        assert (headers["x-api-key"], headers.get("x-proxy-key")) == (KEY, expected)


def test_listed_models_are_routed_too(host: Host) -> None:
    """With `route=[…]` existing code is routed as it stands."""
    client = anthropic.Anthropic(base_url=host.upstream.url, api_key=KEY, max_retries=0)
    with tierwise.wrap(client, settings=host.settings, route=[OPUS]) as wrapped:
        wrapped.messages.create(model=OPUS, **ASKED)
    assert host.models() == [HAIKU]


def test_stream(host: Host, claude: Any) -> None:
    """`messages.stream` yields text as it comes and the whole message at the end, thinking and signature too."""
    host.upstream.reply("It burns.", thinking="A printer")
    with claude.messages.stream(model=AUTO, **ASKED) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "It burns."
    assert message.content[0].signature == "stand-in-signature"
    assert host.call().call.status is CallStatus.ANSWERED


async def test_async_and_async_stream(host: Host, claude_async: Any) -> None:
    """The asynchronous client answers and streams, many at once."""
    host.upstream.reply("It burns.", times=None)
    messages = await asyncio.gather(*(claude_async.messages.create(model=AUTO, **ASKED) for _ in range(5)))
    assert {message.content[0].text for message in messages} == {"It burns."}
    async with claude_async.messages.stream(model=AUTO, **ASKED) as stream:
        assert "".join([text async for text in stream.text_stream]) == "It burns."
    assert len(host.calls()) == 6


def test_tools(host: Host, claude: Any) -> None:
    """A tool call comes back with its id and arguments, and its result goes on in the same conversation."""
    host.upstream.reply(CALL)
    message = claude.messages.create(model=AUTO, tools=[TOOL], **ASKED)
    (block,) = message.content
    assert (block.id, block.name, block.input) == ("toolu_01Real", "weather", {"city": "Köln"})
    host.upstream.reply("Rain.")
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "rain"}
    history = [
        *ASKED["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    after = claude.messages.create(model=AUTO, max_tokens=200, tools=[TOOL], messages=history)
    assert after.content[0].text == "Rain."
    assert host.models()[0] == host.models()[1]


def test_tool_call_that_breaks_its_schema_climbs(host: Host, claude: Any) -> None:
    """Arguments that break the tool's schema never reach the caller: the next model is asked."""
    wrong = StandInReply(
        content=({"type": "tool_use", "id": "toolu_02", "name": "weather", "input": {"town": "Köln"}},),
        stop_reason="tool_use",
    )
    host.upstream.reply(wrong)
    host.upstream.reply(CALL)
    message = claude.messages.create(model=AUTO, tools=[TOOL], **ASKED)
    assert message.content[0].input == {"city": "Köln"}
    assert host.models() == [HAIKU, SONNET]


def test_structured_output(host: Host, claude: Any) -> None:
    """`messages.parse` returns the caller's model; a reply that is none of it climbs."""
    host.upstream.reply("not JSON")
    host.upstream.reply_json({"title": "Printer on fire"})
    message = claude.messages.parse(model=AUTO, output_format=Title, **ASKED)
    assert message.parsed_output == Title(title="Printer on fire")
    assert host.models() == [HAIKU, SONNET]
    assert [attempt.outcome for attempt in host.call().attempts] == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]


def test_options_of_a_block(host: Host, claude: Any) -> None:
    """What a block says holds for the calls in it, inner over outer; afterwards it is as before."""
    with (
        tierwise.call_options(task="review an indemnity clause for liability", project="law", tags={"run": "7"}),
        tierwise.call_options(max_tier=tierwise.Tier.SONNET, tags={"step": "2"}),
    ):
        claude.messages.create(model=AUTO, **ASKED)
    claude.messages.create(model=AUTO, **ASKED)
    within, after = host.calls()
    assert (within.call.model, within.call.project) == (SONNET, "law")
    assert {("run", "7"), ("step", "2")} <= set(within.call.tags)
    assert (after.call.model, after.call.project) == (HAIKU, None)


def test_header_of_a_call_goes_over_its_block(host: Host, claude: Any) -> None:
    """`extra_headers` of one call say more than the block around it."""
    with tierwise.call_options(min_tier="opus"):
        claude.messages.create(model=AUTO, extra_headers={"X-Tierwise-Min-Tier": "sonnet"}, **ASKED)
    assert host.models() == [SONNET]


@pytest.mark.parametrize("stream", [True, False])
def test_check_of_the_caller_climbs(host: Host, claude: Any, stream: bool) -> None:
    """An answer that the caller's check refuses is not handed on, streamed or not: the next model is asked."""
    host.upstream.reply("far too long for that")
    host.upstream.reply("fine")
    with tierwise.call_options(check=short):
        if stream:
            with claude.messages.stream(model=AUTO, **ASKED) as events:
                text = events.get_final_text()
        else:
            text = claude.messages.create(model=AUTO, **ASKED).content[0].text
    assert text == "fine"
    found = host.call()
    assert [attempt.model for attempt in found.attempts] == [HAIKU, SONNET]
    assert "short" in found.attempts[0].detail


@pytest.mark.parametrize("model", [AUTO, OPUS])
def test_no_answer_passes_the_check(host: Host, model: str) -> None:
    """Where no answer passes, the SDK raises, does not ask again by itself, and every attempt is on record."""
    client = anthropic.Anthropic(base_url=host.upstream.url, api_key=KEY, max_retries=2)
    host.upstream.reply("far too long for that", times=None)
    with (
        tierwise.wrap(client, settings=host.settings) as wrapped,
        tierwise.call_options(check=short),
        pytest.raises(anthropic.UnprocessableEntityError, match="the check short refused it"),
    ):
        wrapped.messages.create(model=model, **ASKED)
    found = host.call()
    assert found.call.status is CallStatus.FAILED
    assert {attempt.outcome for attempt in found.attempts} == {OutcomeKind.REJECTED}
    assert len(found.attempts) == len(host.models()) == (3 if model == AUTO else 1)


def exits(text: str) -> None:
    """A check that would end the process."""
    sys.exit(text)


@pytest.mark.parametrize("check", [lambda text: {}[text], exits], ids=["fault", "exit"])
@pytest.mark.parametrize(("model", "stream"), [(AUTO, False), (AUTO, True), (OPUS, False)])
def test_check_with_a_fault(host: Host, check: Any, model: str, stream: bool) -> None:
    """A check that fails itself ends the call, which is not sent again; what was paid for is recorded."""
    client = anthropic.Anthropic(base_url=host.upstream.url, api_key=KEY, max_retries=2)
    host.upstream.reply("fine", usage={"input_tokens": 100, "output_tokens": 10})
    with (
        tierwise.wrap(client, settings=host.settings) as wrapped,
        tierwise.call_options(check=check),
        pytest.raises(anthropic.UnprocessableEntityError, match=r"a check of the caller's failed with (Key|SystemEx)"),
    ):
        wrapped.messages.create(model=model, stream=stream, **ASKED)
    (attempt,) = host.call().attempts
    assert (attempt.outcome, attempt.usage.input_tokens, attempt.usage.estimated) == (OutcomeKind.REJECTED, 100, False)
    assert len(host.models()) == 1


def test_options_that_cannot_be_used_are_refused() -> None:
    """A check that is asynchronous, or none, a task without a word, a tag that no header takes: refused at once."""

    async def later(text: str) -> bool:
        return bool(text)

    for wrong in (later, ["no function"]):
        with pytest.raises(InvalidTask, match="plain function"), tierwise.call_options(check=wrong):  # type: ignore[arg-type]
            pass
    with pytest.raises(InvalidTask, match="task is empty"), tierwise.call_options(task=" "):
        pass
    with pytest.raises(InvalidTask, match="the tag 'team' is 'Köln'"), tierwise.call_options(tags={"team": "Köln"}):
        pass


def test_errors_are_those_of_the_sdk(host: Host, claude: Any) -> None:
    """What the API refuses is the SDK's exception, with the API's own words; an unknown tier is a 400."""
    host.upstream.fail(Fault.status(401), times=None)
    with pytest.raises(anthropic.AuthenticationError):
        claude.messages.create(model=OPUS, **ASKED)
    with pytest.raises(anthropic.BadRequestError, match="hiku"):
        claude.messages.create(model=AUTO, extra_headers={"x-tierwise-min-tier": "hiku"}, **ASKED)


def test_retries_are_the_sdks(host: Host) -> None:
    """An overloaded API is asked again by the SDK, and each call is on record."""
    client = anthropic.Anthropic(base_url=host.upstream.url, api_key=KEY, max_retries=1)
    host.upstream.fail(Fault.status(529))
    host.upstream.reply("fine")
    with tierwise.wrap(client, settings=host.settings) as wrapped:
        assert wrapped.messages.create(model=OPUS, **ASKED).content[0].text == "fine"
    assert [found.call.status for found in host.calls()] == [CallStatus.FAILED, CallStatus.ANSWERED]


def test_slow_answer_is_the_sdks_timeout(host: Host, claude: Any) -> None:
    """A model that says nothing for longer than the client waits is its APITimeoutError, recorded as cancelled."""
    host.upstream.fail(Fault.stall())
    with pytest.raises(anthropic.APITimeoutError):
        claude.with_options(timeout=2.0).messages.create(model=OPUS, **ASKED)
    assert host.ended_call().call.status is CallStatus.CANCELLED


async def test_cancelled_task_ends_the_call(host: Host, claude_async: Any) -> None:
    """A cancelled task closes the request upstream, and the call is recorded as cancelled."""
    host.upstream.fail(Fault.stall())
    task = asyncio.ensure_future(claude_async.messages.create(model=OPUS, **ASKED))
    while not host.upstream.calls():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(host.upstream.calls()[0].wait_finished)
    assert (await asyncio.to_thread(host.ended_call)).call.status is CallStatus.CANCELLED


def test_what_is_not_routed_goes_beside(host: Host, claude: Any) -> None:
    """What the gateway does not know goes where the client sends it; nothing of it is recorded."""
    with pytest.raises(anthropic.NotFoundError, match="/v1/files"):
        claude.beta.files.list()
    assert host.calls() == []


def test_given_client_carries_the_rest(host: Host) -> None:
    """An `http_client` of the caller's carries what is not routed, and nothing else."""
    carried: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        carried.append(request.url.path)
        return httpx2.Response(200, json={"data": [], "has_more": False, "next_page": None})

    mine = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = anthropic.Anthropic(base_url=host.upstream.url, api_key=KEY, max_retries=0)
    with tierwise.wrap(client, settings=host.settings, http_client=mine) as wrapped:
        assert list(wrapped.beta.files.list()) == []
        wrapped.messages.create(model=AUTO, **ASKED)
    assert (carried, host.models()) == (["/v1/files"], [HAIKU])


def test_closed_early_stream_is_recorded(host: Host, claude: Any) -> None:
    """A stream that the caller leaves is closed upstream, and recorded as cancelled with what it had used."""
    host.upstream.fail(Fault.stall(after_events=5))
    with claude.messages.stream(model=OPUS, **ASKED) as stream:
        next(iter(stream))
    assert host.upstream.calls()[0].wait_finished()
    found = host.ended_call()
    assert found.call.status is CallStatus.CANCELLED
    assert found.attempts[0].usage.input_tokens > 0


def test_models_and_counting(host: Host, claude: Any) -> None:
    """The routed name is listed before the API's models, and tokens are counted for it."""
    assert next(iter(claude.models.list())).id == AUTO
    assert claude.messages.count_tokens(model=AUTO, messages=ASKED["messages"]).input_tokens > 0


def test_from_many_threads(host: Host, claude: Any) -> None:
    """One client serves many threads; every call is recorded once."""
    threads = [threading.Thread(target=claude.messages.create, kwargs={"model": AUTO, **ASKED}) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(host.calls()) == 16


def test_other_clients_are_refused() -> None:
    """What cannot be wrapped is named, with what can."""
    with pytest.raises(ConfigError, match=r"builtins\.object"):
        tierwise.wrap(object())
    with pytest.raises(ConfigError, match="AnthropicBedrock"):
        tierwise.wrap(anthropic.AnthropicBedrock(aws_region="eu-central-1", api_key="x"))
    with pytest.raises(ConfigError, match="give a list"):
        tierwise.wrap(anthropic.Anthropic(api_key="x"), route="claude-opus-5-5")


def test_script_that_closes_nothing_loses_nothing(host: Host, tmp_path: Path) -> None:
    """A script with the one line, the environment and no closing ends at once, and its call is in the ledger."""
    ledger = tmp_path / "own.db"
    script = "import anthropic, tierwise\nclient = tierwise.wrap(anthropic.Anthropic())\n" + (
        f"done = client.messages.create(model={AUTO!r}, max_tokens=99, messages={ASKED['messages']!r})\n"
        "print(done.content[0].text)\n"
    )
    host.upstream.reply("It burns.")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(tmp_path),
            "ANTHROPIC_BASE_URL": host.upstream.url,
            "ANTHROPIC_API_KEY": KEY,
            "TIERWISE_LEDGER": str(ledger),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("It burns.\n", "")
    own = replace(host.settings, ledger=replace(host.settings.ledger, path=ledger))
    assert Host(host.upstream, own).call().call.status is CallStatus.ANSWERED
