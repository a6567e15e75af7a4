"""The Anthropic-wire provider against the stand-in: replies, every fault, time limits, secrets."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from provider_helpers import HAIKU, KEY, request_for, settings_for

from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import ConfigError
from tierwise.core.money import Usage
from tierwise.providers._http import failure_kind, is_loopback
from tierwise.providers.anthropic import AnthropicProvider, build
from tierwise.providers.base import ProviderFailure, spent_before_cancel
from tierwise.testing import Fault, StandInReply, StandInUpstream

STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@pytest.fixture
def upstream() -> Iterator[StandInUpstream]:
    with StandInUpstream(api_key=KEY) as standing_in:
        yield standing_in


@asynccontextmanager
async def provider_for(upstream: StandInUpstream | str, **changes: Any) -> AsyncIterator[AnthropicProvider]:
    url = upstream if isinstance(upstream, str) else upstream.url
    provider = build(settings_for(url, **changes))
    try:
        yield provider
    finally:
        await provider.aclose()


async def failure_of(
    upstream: StandInUpstream | str, *, timeout: float | None = None, **changes: Any
) -> ProviderFailure:
    async with provider_for(upstream, **changes) as provider:
        with pytest.raises(ProviderFailure) as caught:
            await provider.send(request_for(timeout_seconds=timeout))
    return caught.value


@STREAMED
async def test_a_reply_carries_text_usage_and_identity(upstream: StandInUpstream, stream: bool) -> None:
    """A good reply says what was said, what it used, by which model and under which request id."""
    upstream.reply(
        "Good morning, Anna.",
        usage={
            "input_tokens": 7,
            "output_tokens": 11,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
        },
    )
    async with provider_for(upstream, stream=stream) as provider:
        reply = await provider.send(request_for())
    assert reply.text == "Good morning, Anna."
    assert reply.usage == Usage(7, 11, 100, 20, 30)
    assert reply.stop_reason == "end_turn"
    assert reply.model == "claude-haiku-5-5"
    assert reply.request_id == "req_standin_000001"
    assert reply.rate_limits["anthropic-ratelimit-requests-remaining"] == "3999"
    assert reply.latency_ms >= (reply.ttft_ms or 0) >= 0
    assert (reply.ttft_ms is not None) is stream
    sent = upstream.requests[0]
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert sent.headers["x-api-key"] == KEY
    assert isinstance(sent.json, dict)
    assert sent.json.get("stream", False) is stream


async def test_streamed_and_whole_replies_are_the_same_message(upstream: StandInUpstream) -> None:
    """Folding the stream gives exactly the message that the same call without stream gives."""
    reply = StandInReply(
        content=(
            {"type": "thinking", "thinking": "Hm — let me see…", "signature": "c2lnbmVk"},
            {"type": "text", "text": "I will look that up. 🌍"},
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"query": 'naïve "quotes"', "n": [1, 2]}},
        ),
        stop_reason="tool_use",
        usage={"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 9}},
    )
    upstream.reply(reply, times=2)
    async with provider_for(upstream) as streaming, provider_for(upstream, stream=False) as whole:
        one, two = await streaming.send(request_for()), await whole.send(request_for())
    assert {**one.message, "id": ""} == {**two.message, "id": ""}
    assert one.usage == two.usage
    assert one.usage.thinking_tokens == 9


async def test_bearer_auth_extra_headers_and_options_are_sent(upstream: StandInUpstream) -> None:
    """Settings decide how the key travels and which extras go with it."""
    async with provider_for(
        upstream, auth="bearer", headers={"anthropic-beta": "x"}, inference_geo="us", speed="fast"
    ) as provider:
        await provider.send(request_for())
    sent = upstream.requests[0]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert "x-api-key" not in sent.headers
    assert sent.headers["anthropic-beta"] == "x"
    assert isinstance(sent.json, dict)
    assert (sent.json["inference_geo"], sent.json["speed"]) == ("us", "fast")


@STREAMED
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.status(400), OutcomeKind.INVALID_REQUEST),
        (Fault.status(400, "prompt is too long: 210000 tokens > 200000 maximum"), OutcomeKind.TOO_LARGE),
        (Fault.status(400, "over", error_type="exceed_context_size_error"), OutcomeKind.TOO_LARGE),
        (Fault.status(401), OutcomeKind.UNAUTHORIZED),
        (Fault.status(403), OutcomeKind.UNAUTHORIZED),
        (Fault.status(404), OutcomeKind.UNAVAILABLE),
        (Fault.status(413), OutcomeKind.TOO_LARGE),
        (Fault.rate_limited(), OutcomeKind.RATE_LIMITED),
        (Fault.status(500), OutcomeKind.SERVER_ERROR),
        (Fault.status(502, body=b"<html>Bad Gateway</html>"), OutcomeKind.SERVER_ERROR),
        (Fault.status(503), OutcomeKind.OVERLOADED),
        (Fault.status(529), OutcomeKind.OVERLOADED),
        (Fault.status(307, headers={"location": "http://example.invalid/"}), OutcomeKind.INVALID_REQUEST),
        (Fault.reset(), OutcomeKind.CONNECTION),
        (Fault.reset(after_events=3), OutcomeKind.CONNECTION),
        (Fault.cut(), OutcomeKind.CONNECTION),
        (Fault.cut(after_events=4), OutcomeKind.CONNECTION),
        (Fault.lie_about_length(), None),
        (Fault.malformed_json(), OutcomeKind.SERVER_ERROR),
        (Fault.malformed_sse(), OutcomeKind.SERVER_ERROR),
        (Fault.error_event("overloaded_error"), OutcomeKind.OVERLOADED),
        (Fault.error_event("rate_limit_error"), OutcomeKind.RATE_LIMITED),
        (Fault.error_event("api_error"), OutcomeKind.SERVER_ERROR),
        (Fault.error_event("a_new_error"), OutcomeKind.SERVER_ERROR),
    ],
    ids=lambda value: f"{value.kind.value}-{value.code}-{value.error_type}" if isinstance(value, Fault) else "",
)
async def test_each_fault_is_told_for_what_it_is(
    upstream: StandInUpstream, fault: Fault, kind: OutcomeKind | None, stream: bool
) -> None:
    """Every way to fail has its kind, so that the climb knows whether to wait, to climb or to stop."""
    upstream.fail(fault)
    async with provider_for(upstream, stream=stream) as provider:
        if kind is None and stream:  # message_stop came: the answer is whole, whatever HTTP says after it
            assert (await provider.send(request_for())).text
            return
        with pytest.raises(ProviderFailure) as caught:
            await provider.send(request_for())
    assert caught.value.kind is (kind or OutcomeKind.CONNECTION)
    assert KEY not in str(caught.value)


@STREAMED
@pytest.mark.parametrize(
    ("fault", "stop_reason"),
    [(Fault.refusal(), "refusal"), (Fault.truncated(), "max_tokens"), (Fault.empty(), "end_turn")],
    ids=["refusal", "truncated", "empty"],
)
async def test_a_poor_reply_is_a_reply(upstream: StandInUpstream, fault: Fault, stop_reason: str, stream: bool) -> None:
    """A refusal, a cut-off or an empty answer is for the checks to judge, not a failure of the wire."""
    upstream.fail(fault)
    async with provider_for(upstream, stream=stream) as provider:
        reply = await provider.send(request_for())
    assert reply.stop_reason == stop_reason


@pytest.mark.parametrize("piece", [1, 2, 7])
async def test_a_trickled_stream_reads_the_same(upstream: StandInUpstream, piece: int) -> None:
    """Where the network cuts the bytes makes no difference, in the middle of a character either."""
    upstream.fail(Fault.trickle(piece, reply=StandInReply.of_text("Ünïcödé — 日本語 🌍")))
    async with provider_for(upstream) as provider:
        reply = await provider.send(request_for())
    assert reply.text == "Ünïcödé — 日本語 🌍"


async def test_a_cut_stream_says_what_it_used(upstream: StandInUpstream) -> None:
    """A cut stream costs its prompt as told, and its output as received, marked estimated."""
    upstream.fail(Fault.cut(after_events=6, reply=StandInReply.of_text("x" * 400, usage={"input_tokens": 123})))
    failure = await failure_of(upstream)
    assert failure.usage is not None
    assert failure.usage.input_tokens == 123
    assert failure.usage.estimated
    assert failure.usage.output_tokens == 9  # three pieces of twelve characters arrived
    assert failure.ttft_ms is not None


async def test_a_cleanly_ended_stream_without_message_stop_is_cut(upstream: StandInUpstream) -> None:
    """HTTP ending well does not make half an answer whole."""
    upstream.fail(Fault.cut(after_events=5, clean=True))
    failure = await failure_of(upstream)
    assert failure.kind is OutcomeKind.CONNECTION
    assert "message_stop" in str(failure)


async def test_final_usage_wins_over_zeros_at_the_start(upstream: StandInUpstream) -> None:
    """message_start may show zeros; the totals of the last message_delta are what is billed."""
    upstream.reply(
        StandInReply(
            content=({"type": "text", "text": "hi"},),
            usage={"input_tokens": 50, "output_tokens": 5, "cache_read_input_tokens": 7},
            start_usage={"input_tokens": 0, "output_tokens": 0},
        )
    )
    async with provider_for(upstream) as provider:
        reply = await provider.send(request_for())
    assert reply.usage == Usage(50, 5, 7)


@pytest.mark.parametrize("garbage", [-3, "12", 1.5, True, 10**30])
@STREAMED
async def test_garbage_usage_is_estimated_not_believed(upstream: StandInUpstream, garbage: Any, stream: bool) -> None:
    """Counts that cannot be do not lose the answer and do not pass as the provider's."""
    upstream.reply("four words are here", usage={"output_tokens": garbage})
    async with provider_for(upstream, stream=stream) as provider:
        reply = await provider.send(request_for())
    assert reply.text == "four words are here"
    assert reply.usage.estimated
    assert reply.usage.output_tokens == 5


@pytest.mark.parametrize(
    ("changes", "timeout", "fault", "words"),
    [
        ({"first_token_timeout_seconds": 1.0}, None, Fault.stall(), "no first token"),
        ({"first_token_timeout_seconds": 1.0}, None, Fault.stall(after_events=1), "no first token"),
        ({"idle_timeout_seconds": 1.0}, None, Fault.stall(after_events=5), "stopped"),
        ({}, 1.0, Fault.stall(), "no complete answer"),
        ({}, 1.0, Fault.stall(after_events=5), "no complete answer"),
        ({"stream": False}, 1.0, Fault.stall(), "no complete answer"),
        ({"stream": False}, 1.0, Fault.stall(after_events=1), "no complete answer"),
    ],
)
async def test_a_stall_times_out_and_hangs_up(
    upstream: StandInUpstream, changes: dict[str, Any], timeout: float | None, fault: Fault, words: str
) -> None:
    """Silence ends at the limit that applies, and the upstream sees the connection close."""
    upstream.fail(fault)
    failure = await failure_of(upstream, timeout=timeout, **changes)
    assert failure.kind is OutcomeKind.TIMEOUT
    assert words in str(failure)
    assert upstream.requests[0].wait_finished()
    assert upstream.requests[0].closed_early


class Reached(threading.Event):
    """Is never set, and knows whether the stand-in waits for it already."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = False

    def is_set(self) -> bool:
        self.waited_for = True
        return False


@STREAMED
async def test_cancelling_closes_the_upstream_request(upstream: StandInUpstream, stream: bool) -> None:
    """A cancelled call leaves no orphan: the connection is closed, and what was used travels along."""
    silence = Reached()
    upstream.fail(Fault.stall(after_events=5, until=silence))
    async with provider_for(upstream, stream=stream) as provider:
        task = asyncio.create_task(provider.send(request_for()))
        while not silence.waited_for:
            await asyncio.sleep(0.005)
        for _ in range(100):  # what came before the silence is there to be read: turns of the loop, not time
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert upstream.requests[0].wait_finished()
        assert upstream.requests[0].closed_early
        used = spent_before_cancel(caught.value)
        assert (used is not None) is stream
        assert used is None or (used.estimated and used.input_tokens > 0)


async def test_a_refused_connection_is_a_connection_failure() -> None:
    """Nobody listening: a connection failure that names the address, and nothing was used."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    failure = await failure_of(f"http://127.0.0.1:{port}")
    assert failure.kind is OutcomeKind.CONNECTION
    assert str(port) in str(failure)
    assert failure.usage is None


async def test_retry_after_reaches_the_climb(upstream: StandInUpstream) -> None:
    """A 429 says how long to wait."""
    upstream.fail(Fault.rate_limited(retry_after=7.5))
    failure = await failure_of(upstream)
    assert failure.retry_after_seconds == 7.5
    assert failure.status == 429
    assert failure.request_id == "req_standin_000001"


def test_no_credit_is_not_worth_a_retry() -> None:
    """OpenAI's 429 for an empty account, and 402, are no rate limits."""
    assert failure_kind(429, "insufficient_quota") is OutcomeKind.UNAUTHORIZED
    assert failure_kind(402) is OutcomeKind.UNAUTHORIZED
    assert failure_kind(429, "rate_limit_error") is OutcomeKind.RATE_LIMITED


@pytest.mark.parametrize("padded", [KEY + "\n", f"  {KEY}\r\n", KEY + " "])
async def test_a_key_with_blanks_around_it_works(upstream: StandInUpstream, padded: str) -> None:
    """Keys read from files end in a newline; that is no reason to fail."""
    async with provider_for(upstream, api_key=padded) as provider:
        assert (await provider.send(request_for())).text


@pytest.mark.parametrize("key", ["sk-ant-schlüssel-geheim", "sk-ant-two\nlines-geheim", "sk-ant two-geheim"])
async def test_a_key_that_no_header_can_carry_is_said_without_showing_it(upstream: StandInUpstream, key: str) -> None:
    """The message names the variable and the position, never the key; nothing is sent."""
    async with provider_for(upstream, api_key=key) as provider:
        with pytest.raises(ProviderFailure) as caught:
            await provider.send(request_for())
        availability = await provider.check(HAIKU)
    assert caught.value.kind is OutcomeKind.UNAUTHORIZED
    assert "ANTHROPIC_API_KEY" in str(caught.value)
    assert "geheim" not in str(caught.value) + availability.detail
    assert not availability.ok
    assert not upstream.requests


async def test_a_missing_key_is_told_before_anything_is_sent(upstream: StandInUpstream) -> None:
    """Without a key the provider is not available, and says which variable to set."""
    async with provider_for(upstream, api_key=None) as provider:
        availability = await provider.check(HAIKU)
        with pytest.raises(ProviderFailure):
            await provider.send(request_for())
    assert not availability.ok
    assert "ANTHROPIC_API_KEY" in availability.detail
    assert not upstream.requests


@pytest.mark.parametrize("auth", ["x-api-key", "bearer"])
async def test_no_failure_shows_the_key(upstream: StandInUpstream, auth: str, caplog: pytest.LogCaptureFixture) -> None:
    """An upstream that quotes the key back, in full or in a header dump, does not get it into our messages."""
    caplog.set_level(logging.DEBUG)
    upstream.fail(Fault.status(400, f"bad header: x-api-key {KEY}; authorization: Bearer {KEY}; sk-ant-other-00000000"))
    upstream.fail(Fault.status(502, body=f"<html>{KEY}{'y' * 5000}".encode()))
    upstream.fail(Fault.error_event("api_error", message=f"leak {KEY}"))
    upstream.fail(Fault.reset())
    async with provider_for(upstream, auth=auth, api_key=KEY + "\n") as provider:
        assert KEY not in repr(provider)
        for _ in range(4):
            with pytest.raises(ProviderFailure) as caught:
                await provider.send(request_for())
            shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value)
            assert KEY not in shown
            assert "sk-ant-other" not in shown
            assert len(str(caught.value)) < 420
    assert KEY not in caplog.text


async def test_redirects_are_not_followed(upstream: StandInUpstream) -> None:
    """A redirect would carry the key elsewhere: it is reported with its target and the setting to change."""
    with StandInUpstream() as other:
        upstream.fail(Fault.status(308, headers={"location": f"{other.url}/v1/messages"}))
        failure = await failure_of(upstream)
        assert not other.requests
    assert "127.0.0.1" in str(failure)
    assert "base_url" in str(failure)


async def test_loopback_is_never_proxied(upstream: StandInUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is not asked for what runs on this machine."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with provider_for(upstream) as provider:
        assert (await provider.send(request_for())).text


async def test_other_hosts_go_through_the_proxy_of_the_environment(
    upstream: StandInUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the environment's proxy is used, as every HTTP client does."""
    monkeypatch.setenv("HTTP_PROXY", upstream.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with provider_for("http://models.invalid") as provider:
        await provider.send(request_for())
    assert upstream.requests[0].headers["host"] == "models.invalid"


def test_hosts_of_this_machine_are_known() -> None:
    """Loopback is judged by address, not by spelling."""
    assert all(is_loopback(f"http://{host}:1") for host in ("127.0.0.1", "127.9.9.9", "localhost", "[::1]"))
    assert not any(is_loopback(f"http://{host}:1") for host in ("10.0.0.1", "localhost.example.com", "[::2]"))


@pytest.mark.parametrize("address", ["api.anthropic.com", "ftp://x", "http://", ""])
def test_a_base_url_that_is_no_address_is_a_configuration_error(address: str) -> None:
    """The message names the key of the configuration and shows a right one."""
    if address == "":
        assert "api.anthropic.com" in repr(build(settings_for("")))
        return
    with pytest.raises(ConfigError, match=r"providers\.anthropic\.base_url"):
        build(settings_for(address))


async def test_a_connection_is_used_again(upstream: StandInUpstream) -> None:
    """One pool a provider: calls in turn share a connection, streamed ones too."""
    async with provider_for(upstream) as provider:
        for _ in range(5):
            await provider.send(request_for())
    assert len(upstream.requests) == 5
    assert upstream.connections == 1


async def test_many_calls_at_once_do_not_mix(upstream: StandInUpstream) -> None:
    """Concurrent calls each get their own answer."""

    def echo(request: Any) -> StandInReply:
        return StandInReply.of_text(request.json["messages"][0]["content"])

    upstream.handler = echo
    async with provider_for(upstream) as provider:
        replies = await asyncio.gather(*(provider.send(request_for(text=f"number {n}")) for n in range(60)))
    assert [reply.text for reply in replies] == [f"number {n}" for n in range(60)]


def test_one_provider_serves_several_event_loops(upstream: StandInUpstream) -> None:
    """A synchronous façade may run one loop after another over the same provider."""
    provider = build(settings_for(upstream.url))

    async def call() -> str:
        return (await provider.send(request_for())).text

    assert asyncio.run(call()) == asyncio.run(call())


async def test_lone_surrogates_do_not_lose_the_call(upstream: StandInUpstream) -> None:
    """A character that UTF-8 cannot carry is replaced at the edge."""
    async with provider_for(upstream) as provider:
        assert (await provider.send(request_for(text="broken \ud800 text"))).text
    assert upstream.requests[0].json["messages"][0]["content"] == "broken ? text"  # type: ignore[index,call-overload]


async def test_a_server_that_ignores_stream_is_understood(upstream: StandInUpstream) -> None:
    """Some servers answer with one JSON document whatever was asked; that is an answer too."""
    body = b'{"id":"m","type":"message","role":"assistant","model":"x","content":[{"type":"text","text":"whole"}],'
    body += b'"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":1}}'
    upstream.fail(Fault.status(200, body=body, headers={"content-type": "application/json"}))
    async with provider_for(upstream) as provider:
        reply = await provider.send(request_for())
    assert reply.text == "whole"
    assert reply.usage == Usage(3, 1)
