"""LiteLLM itself, with tierwise as one of its providers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

import tierwise
from tests.integrations.conftest import Host
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import nanousd_to_usd
from tierwise.testing import Fault, StandInReply

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for prices when imported
litellm = pytest.importorskip("litellm", reason="not installed: pip install -r requirements/dev.txt")

from litellm.integrations.custom_logger import CustomLogger  # noqa: E402  once it is known to be there

from tierwise.integrations.litellm import register  # noqa: E402

# LiteLLM imports itself bit by bit, and pydantic has a word to say of its types.
pytestmark = pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
SUMMARY = "Summarise this ticket in one line: the printer burns"
ASKED: Any = {"model": "tierwise/auto", "messages": [{"role": "user", "content": SUMMARY}]}
USAGE = {
    "input_tokens": 100,
    "output_tokens": 10,
    "cache_read_input_tokens": 50,
    "cache_creation_input_tokens": 7,
}
CALL = StandInReply(
    content=({"type": "tool_use", "id": "toolu_01", "name": "weather", "input": {"city": "Köln"}},),
    stop_reason="tool_use",
    usage=USAGE,
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


class Heard(CustomLogger):  # type: ignore[misc]  # LiteLLM is installed for the tests alone
    """A user's own callback: what LiteLLM says of each call that began since it listens.

    LiteLLM tells of a call when it finds the time, which may be in the middle of the next test.
    """

    def __init__(self) -> None:
        super().__init__()
        self.since = datetime.now()  # noqa: DTZ005  as LiteLLM tells times
        self.costs: list[Any] = []
        self.failed = 0
        self.came = threading.Semaphore(0)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A call went well."""
        if start_time < self.since:
            return
        self.costs.append(kwargs["response_cost"])
        self.came.release()

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A call failed."""
        if start_time < self.since:
            return
        self.failed += 1
        self.came.release()

    def wait(self) -> None:
        """LiteLLM tells it in a thread of its own."""
        assert self.came.acquire(timeout=60)


@pytest.fixture(autouse=True)
def _registered(host: Host) -> Iterator[None]:
    """tierwise is one of LiteLLM's providers, and nothing of that is left for other tests."""
    register(host.settings)
    yield
    litellm.custom_provider_map = []
    for name in ("callbacks", "input_callback", "success_callback", "failure_callback"):
        setattr(litellm, name, [])
    litellm._async_success_callback, litellm._async_failure_callback = [], []


@pytest.fixture
def heard() -> Heard:
    """A callback that listens."""
    found = Heard()
    litellm.callbacks = [found]
    return found


def spent(host: Host) -> Decimal:
    """What the only call cost by the ledger, all attempts together."""
    costs = [attempt.cost_nanousd for attempt in host.call().attempts]
    assert None not in costs
    return nanousd_to_usd(sum(cost or 0 for cost in costs))


def test_call_is_routed_priced_and_recorded(host: Host, heard: Heard) -> None:
    """A call goes to its tier; usage has cached tokens once, and LiteLLM's cost is the ledger's."""
    host.upstream.reply("It burns.", usage=USAGE)
    done = litellm.completion(**ASKED)
    assert (done.choices[0].message.content, done.model) == ("It burns.", HAIKU)
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (157, 10)
    assert done.usage.prompt_tokens_details.cached_tokens == done.usage.cache_read_input_tokens == 50
    assert done.usage.prompt_tokens_details.cache_write_tokens == done.usage.cache_creation_input_tokens == 7
    told = done._hidden_params["tierwise"]
    assert (told["call_id"], told["tier"]) == (host.call().call.call_id, "haiku")
    assert Decimal(told["cost_usd"]) == spent(host) > 0
    heard.wait()
    assert heard.costs == [done._hidden_params["response_cost"]] == [float(spent(host))]


def test_failed_attempts_are_in_the_cost(host: Host) -> None:
    """An answer that was refused was paid for: it is in LiteLLM's cost, as in the ledger."""
    host.upstream.reply("not JSON")
    host.upstream.reply_json({"title": "Fire"})
    done = litellm.completion(**ASKED, response_format=Title)
    assert Title.model_validate_json(done.choices[0].message.content) == Title(title="Fire")
    assert [attempt.outcome for attempt in host.call().attempts] == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]
    assert done._hidden_params["response_cost"] == float(spent(host))


def test_stream(host: Host, heard: Heard) -> None:
    """A stream tells its text, its last usage and the same cost; LiteLLM logs it once, with that."""
    host.upstream.reply("It burns.", usage=USAGE)
    chunks = list(litellm.completion(**ASKED, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "It burns."
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cache_read_input_tokens) == (157, 10, 50)
    heard.wait()
    assert heard.costs == [usage.cost] == [float(spent(host))]
    told = next(chunk.tierwise for chunk in chunks if getattr(chunk, "tierwise", None))
    assert told["call_id"] == host.call().call.call_id
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


async def test_asynchronous(host: Host) -> None:
    """The asynchronous ways answer and stream; what stands around a call holds, though it leaves later."""
    host.upstream.reply("It burns.", times=None)
    done = await litellm.acompletion(**ASKED)
    assert done._hidden_params["response_cost"] == float(spent(host))
    with tierwise.call_options(project="support", min_tier="sonnet"):
        stream = await litellm.acompletion(**ASKED, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "It burns."
    assert host.models() == [HAIKU, SONNET]
    assert host.calls()[1].call.project == "support"


def test_tools_come_and_go(host: Host) -> None:
    """A call of a tool comes with its id and arguments, streamed or not, and its result goes back under that id."""
    host.upstream.reply(CALL, times=2)
    said = litellm.completion(**ASKED, tools=[FUNCTION]).choices[0].message
    (call,) = said.tool_calls
    assert (call.id, json.loads(call.function.arguments)) == ("toolu_01", {"city": "Köln"})
    built = litellm.stream_chunk_builder(list(litellm.completion(**ASKED, tools=[FUNCTION], stream=True)))
    (streamed,) = built.choices[0].message.tool_calls
    assert (streamed.id, json.loads(streamed.function.arguments)) == (call.id, {"city": "Köln"})
    assert built.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "Rain"}
    litellm.completion(model="tierwise/auto", messages=[*ASKED["messages"], said, result], tools=[FUNCTION])
    sent: Any = host.upstream.calls()[-1].json
    assert sent["messages"][1]["content"][-1]["id"] == "toolu_01"
    assert sent["messages"][2]["content"][0]["tool_use_id"] == "toolu_01"


async def test_other_dialects_come_through_litellm(host: Host) -> None:
    """A request in OpenAI's newer dialect, or in Anthropic's, is translated by LiteLLM, routed and recorded as any."""
    host.upstream.reply("It burns.", usage=USAGE, times=2)
    done = await litellm.aresponses(model="tierwise/auto", input=SUMMARY)
    assert "It burns." in str(done.output)
    said = await litellm.anthropic_messages(model="tierwise/auto", messages=ASKED["messages"], max_tokens=100)
    assert said["content"][0]["text"] == "It burns."
    assert host.models() == [HAIKU, HAIKU]
    assert [found.call.status for found in host.calls()] == [CallStatus.ANSWERED, CallStatus.ANSWERED]


def test_options_of_a_call(host: Host) -> None:
    """What tierwise is told with a call holds for it and reaches no upstream; so do its headers, and others do not."""
    headers = {"x-tierwise-tags": "team=law", "authorization": "Bearer sk-of-another"}
    litellm.completion(**ASKED, min_tier="opus", project="law", extra_headers=headers)
    litellm.completion(**ASKED, task="is this indemnity clause enforceable? we sign tomorrow")
    litellm.completion(model=f"tierwise/{SONNET}", messages=ASKED["messages"])
    assert host.models() == [OPUS, OPUS, SONNET]
    call = host.calls()[0].call
    assert (call.project, dict(call.tags)["team"]) == ("law", "law")
    sent: Any = host.upstream.calls()[0]
    assert not {"min_tier", "project", "task"} & set(sent.json)
    assert "sk-of-another" not in str(sent.headers)


def test_check_that_nothing_passes(host: Host) -> None:
    """A check climbs; where no answer passes, the call fails, and its error names the record."""
    host.upstream.reply("no", times=None)
    with pytest.raises(litellm.UnprocessableEntityError) as caught:
        litellm.completion(**ASKED, check=lambda text: text == "yes", max_tier="sonnet")
    assert [attempt.model for attempt in host.call().attempts] == [HAIKU, SONNET]
    assert caught.value.response.headers["x-tierwise-call-id"] == host.call().call.call_id


def test_unknown_price_is_unknown(host: Host, heard: Heard) -> None:
    """A model without a price costs nothing that could be said: LiteLLM is told none, and never zero."""
    unknown = "claude-of-tomorrow"
    host.upstream.models[unknown] = host.upstream.models[HAIKU]
    host.upstream.reply("It burns.", times=2)
    try:
        done = litellm.completion(model=f"tierwise/{unknown}", messages=ASKED["messages"])
        chunks = list(litellm.completion(model=f"tierwise/{unknown}", messages=ASKED["messages"], stream=True))
    finally:
        del host.upstream.models[unknown]
    assert done._hidden_params["response_cost"] is None
    assert chunks
    heard.wait()
    heard.wait()
    assert heard.costs == [None, None]
    assert [attempt.cost_nanousd for found in host.calls() for attempt in found.attempts] == [None, None]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.status(400), "BadRequestError"),
        (Fault.status(400, "prompt is too long: 300000 tokens > 200000 maximum"), "ContextWindowExceededError"),
        (Fault.status(401), "AuthenticationError"),
        (Fault.status(403), "PermissionDeniedError"),
        (Fault.status(429), "RateLimitError"),
        (Fault.status(500), "InternalServerError"),
        (Fault.status(529), "ServiceUnavailableError"),
        (Fault.reset(), "BadGatewayError"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_litellms(host: Host, heard: Heard, fault: Fault, expected: str, stream: bool) -> None:
    """An error is the one of LiteLLM's that its retries and fallbacks go by, streamed or not; never a success."""
    host.upstream.fail(fault, times=None)
    with pytest.raises(getattr(litellm, expected)) as caught:
        litellm.completion(**ASKED, stream=stream)
    assert type(caught.value).__name__ == expected
    heard.wait()
    assert (heard.costs, heard.failed) == ([], 1)


def test_stream_that_breaks_off(host: Host, heard: Heard) -> None:
    """A stream that ends before its end is a failure to LiteLLM and in the ledger."""
    for fault in (Fault.error_event(after_events=4), Fault.cut(after_events=4)):
        host.upstream.fail(fault)
        with pytest.raises(litellm.exceptions.MidStreamFallbackError):
            list(litellm.completion(model=f"tierwise/{OPUS}", messages=ASKED["messages"], stream=True))
        heard.wait()
    assert (heard.costs, heard.failed) == ([], 2)
    assert [found.call.status for found in host.calls()] == [CallStatus.FAILED, CallStatus.FAILED]


async def test_stream_nobody_reads_on(host: Host) -> None:
    """A stream that is left is cancelled, and recorded as that."""
    host.upstream.fail(Fault.stall(after_events=4))
    stream = await litellm.acompletion(model=f"tierwise/{OPUS}", messages=ASKED["messages"], stream=True)
    async for _ in stream:
        break
    await stream.aclose()
    async with asyncio.timeout(60):
        while host.call().call.status is CallStatus.OPEN:
            await asyncio.sleep(0.02)
    assert host.call().call.status is CallStatus.CANCELLED


def test_requests_that_cannot_be_sent(host: Host) -> None:
    """What cannot be sent says so, and no upstream is asked."""
    for given, words in (
        ({"min_tier": "hiku"}, "unknown tier 'hiku'"),
        ({"check": "short"}, "plain function"),
        ({"metadata_of_mine": object()}, "JSON"),
    ):
        with pytest.raises(litellm.BadRequestError, match=words):
            litellm.completion(**ASKED, **given)
    with pytest.raises(litellm.Timeout):
        host.upstream.fail(Fault.stall())
        litellm.completion(**ASKED, timeout=2.0)
    assert len(host.upstream.calls()) == 1


async def test_litellms_router_in_front(host: Host) -> None:
    """LiteLLM's router balances over tierwise as over any provider, and falls back to it from another model."""
    elsewhere = {"model": "anthropic/claude-elsewhere", "api_base": host.upstream.url, "api_key": "sk-ant-elsewhere"}
    router = litellm.Router(
        model_list=[
            {"model_name": "smart", "litellm_params": {"model": "tierwise/auto", "project": "support"}},
            {"model_name": "other", "litellm_params": elsewhere},
        ],
        fallbacks=[{"other": ["smart"]}],
        num_retries=0,
    )
    host.upstream.reply("It burns.", times=2)
    done = await router.acompletion(model="smart", messages=ASKED["messages"])
    assert done._hidden_params["response_cost"] == float(spent(host))
    done = await router.acompletion(model="other", messages=ASKED["messages"])
    assert done.choices[0].message.content == "It burns."
    assert [found.call.project for found in host.calls()] == ["support", "support"]


def test_last_registration_counts(host: Host) -> None:
    """A second registration takes the name over, with its own configuration."""
    other = replace(host.settings, gateway=replace(host.settings.gateway, routed_models=("mine",)))
    register(other)
    assert len(litellm.custom_provider_map) == 1
    litellm.completion(model="tierwise/mine", messages=ASKED["messages"])
    assert host.models() == [HAIKU]


def test_importing_tierwise_imports_no_litellm() -> None:
    """LiteLLM, which takes seconds, is imported by who uses it alone."""
    code = "import sys, tierwise, tierwise.integrations.litellm as it; assert 'litellm' not in sys.modules; dir(it)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})
