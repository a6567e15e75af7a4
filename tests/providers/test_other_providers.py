"""Ollama, the OpenAI wire and LiteLLM, each against a stand-in that says so; and building providers by kind."""

from __future__ import annotations

import asyncio
import importlib.metadata
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from provider_helpers import KEY, request_for, settings_for

from tierwise.core.catalog import Model
from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import ConfigError
from tierwise.core.money import Usage
from tierwise.core.settings import ProviderSettings
from tierwise.providers import litellm, ollama, openai, registry
from tierwise.providers.base import ProviderFailure
from tierwise.testing import Fault, StandInUpstream

LOCAL = Model(id="llama3.2:3b", provider="ollama", context_tokens=8192, max_output_tokens=4096)
GPT = Model(id="gpt-x", provider="openai", context_tokens=100_000, max_output_tokens=8192)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORMAT = {"format": {"type": "json_schema", "schema": SCHEMA}}


@pytest.fixture
def ollama_server() -> Iterator[StandInUpstream]:
    """A stand-in for Ollama: its shapes, no model."""
    with StandInUpstream(ollama_models=["llama3.2:3b", "qwen3:latest"], ollama_loaded=["llama3.2:3b"]) as upstream:
        yield upstream


def local(url: str, **changes: Any) -> ProviderSettings:
    return settings_for(url, name="ollama", kind="ollama", api_key=None, api_key_env=None, local=True, **changes)


# -- Ollama ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_ollama_is_spoken_to_in_messages(ollama_server: StandInUpstream, stream: bool) -> None:
    """Plain requests go to its Messages endpoint, without any key."""
    provider = ollama.build(local(ollama_server.url, stream=stream))
    ollama_server.reply("Hello from nowhere")
    reply = await provider.send(request_for(LOCAL))
    await provider.aclose()
    assert reply.text == "Hello from nowhere"
    request = ollama_server.requests[0]
    assert request.path == "/v1/messages"
    assert not {"x-api-key", "authorization"} & request.headers.keys()


@pytest.mark.parametrize("stream", [True, False])
async def test_ollama_is_held_to_schemas_through_its_other_door(ollama_server: StandInUpstream, stream: bool) -> None:
    """A request with a schema goes to chat/completions as response_format, and comes back as a message."""
    provider = ollama.build(local(ollama_server.url, stream=stream))
    reply = await provider.send(request_for(LOCAL, output_config=FORMAT))
    await provider.aclose()
    assert reply.text == '{"n": 0}'
    assert reply.message["content"] == [{"type": "text", "text": '{"n": 0}'}]
    assert not reply.usage.estimated
    request = ollama_server.requests[0]
    assert request.path == "/v1/chat/completions"
    assert isinstance(request.json, dict)
    assert "response_format" in request.json


async def test_a_schema_that_a_local_server_refuses_is_not_the_callers_fault(ollama_server: StandInUpstream) -> None:
    """Another model may be able to: unavailable, not invalid."""
    provider = ollama.build(local(ollama_server.url))
    ollama_server.fail(Fault.status(400, "cannot convert schema to grammar"))
    ollama_server.fail(Fault.status(400, "prompt is too long"))
    for kind in (OutcomeKind.UNAVAILABLE, OutcomeKind.TOO_LARGE):
        with pytest.raises(ProviderFailure) as caught:
            await provider.send(request_for(LOCAL, output_config=FORMAT))
        assert caught.value.kind is kind
    await provider.aclose()


async def test_ollama_is_checked_for_version_and_model(ollama_server: StandInUpstream) -> None:
    """Running, new enough, and the model pulled; else the command that mends it. No prompt is sent."""
    provider = ollama.build(local(ollama_server.url))
    assert (await provider.check(LOCAL)).ok
    assert (await provider.check(Model(id="qwen3", provider="o", context_tokens=1, max_output_tokens=1))).ok
    missing = await provider.check(Model(id="phi4", provider="o", context_tokens=1, max_output_tokens=1))
    assert not missing.ok
    assert "ollama pull phi4" in missing.detail
    ollama_server.ollama_version = "0.13.5"
    old = await provider.check(LOCAL)
    assert not old.ok
    assert "0.14" in old.detail
    assert await provider.loaded(LOCAL)
    assert not await provider.loaded(Model(id="qwen3", provider="o", context_tokens=1, max_output_tokens=1))
    await provider.aclose()
    assert not ollama_server.calls()


async def test_no_ollama_is_told_quickly_and_clearly() -> None:
    """Nobody listening: not available, and how to start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    provider = ollama.build(local(f"http://127.0.0.1:{port}"))
    availability = await provider.check(LOCAL)
    assert not availability.ok
    assert "ollama serve" in availability.detail
    assert not await provider.loaded(LOCAL)
    await provider.aclose()


async def test_something_else_on_the_port_is_not_taken_for_ollama() -> None:
    """A server that knows no /api/version is named as such."""
    with StandInUpstream() as upstream:
        provider = ollama.build(local(upstream.url))
        availability = await provider.check(LOCAL)
        await provider.aclose()
    assert not availability.ok
    assert "does not answer like Ollama" in availability.detail


# -- the OpenAI wire ------------------------------------------------------------------------------------------


@pytest.fixture
def openai_server() -> Iterator[StandInUpstream]:
    with StandInUpstream(api_key=KEY, models=["gpt-x"]) as upstream:
        yield upstream


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["", "/v1", "/v1/"])
async def test_the_openai_wire_is_translated_both_ways(openai_server: StandInUpstream, stream: bool, path: str) -> None:
    """Text and usage come back in Anthropic's meaning; the key travels as a bearer token; `/v1` may be given or not."""
    provider = openai.build(settings_for(openai_server.url + path, name="openai", kind="openai", stream=stream))
    openai_server.reply("Hi", usage={"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 4})
    reply = await provider.send(request_for(GPT))
    await provider.aclose()
    assert (reply.text, reply.stop_reason) == ("Hi", "end_turn")
    assert reply.usage == Usage(10, 4, 90)
    request = openai_server.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "x-api-key" not in request.headers


@pytest.mark.parametrize("stream", [True, False])
async def test_tool_calls_come_back_as_tool_use(openai_server: StandInUpstream, stream: bool) -> None:
    """Name, id and arguments survive, streamed or whole."""
    provider = openai.build(settings_for(openai_server.url, name="openai", kind="openai", stream=stream))
    openai_server.reply_tool("save", {"city": "Köln", "n": 3})
    reply = await provider.send(request_for(GPT, tools=[{"name": "save", "input_schema": SCHEMA}]))
    await provider.aclose()
    assert reply.stop_reason == "tool_use"
    assert reply.message["content"] == [
        {"type": "tool_use", "id": "call_standin_0", "name": "save", "input": {"city": "Köln", "n": 3}}
    ]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.status(401), OutcomeKind.UNAUTHORIZED),
        (Fault.status(429, error_type="insufficient_quota"), OutcomeKind.UNAUTHORIZED),
        (Fault.rate_limited(), OutcomeKind.RATE_LIMITED),
        (Fault.status(400, "This model's maximum context length is 8192 tokens"), OutcomeKind.TOO_LARGE),
        (Fault.cut(after_events=2), OutcomeKind.CONNECTION),
        (Fault.reset(after_events=2), OutcomeKind.CONNECTION),
        (Fault.malformed_json(), OutcomeKind.SERVER_ERROR),
        (Fault.malformed_sse(), OutcomeKind.SERVER_ERROR),
        (Fault.error_event("rate_limit_error"), OutcomeKind.RATE_LIMITED),
    ],
    ids=lambda value: f"{value.kind.value}-{value.code}" if isinstance(value, Fault) else "",
)
async def test_faults_of_the_openai_wire_are_told(
    openai_server: StandInUpstream, fault: Fault, kind: OutcomeKind, stream: bool
) -> None:
    """The same faults mean the same in this dialect."""
    provider = openai.build(settings_for(openai_server.url, name="openai", kind="openai", stream=stream))
    openai_server.fail(fault)
    with pytest.raises(ProviderFailure) as caught:
        await provider.send(request_for(GPT))
    await provider.aclose()
    assert caught.value.kind is kind


async def test_what_the_dialect_cannot_say_is_not_sent(openai_server: StandInUpstream) -> None:
    """A document block makes this model unavailable for the request; nothing goes out."""
    provider = openai.build(settings_for(openai_server.url, name="openai", kind="openai"))
    messages = [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "x"}}]}]
    with pytest.raises(ProviderFailure) as caught:
        await provider.send(request_for(GPT, messages=messages))
    await provider.aclose()
    assert caught.value.kind is OutcomeKind.UNAVAILABLE
    assert not openai_server.requests


async def test_a_local_openai_server_is_asked_whether_it_runs(openai_server: StandInUpstream) -> None:
    """LM Studio and vLLM are probed; a remote API only needs its key."""
    settings = settings_for(openai_server.url, name="lmstudio", kind="openai", local=True)
    provider = openai.build(settings)
    assert (await provider.check(GPT)).ok
    await provider.aclose()
    openai_server.stop()
    provider = openai.build(settings)
    availability = await provider.check(GPT)
    assert not availability.ok
    assert "running" in availability.detail
    await provider.aclose()


# -- LiteLLM --------------------------------------------------------------------------------------------------


class RateLimitError(Exception):
    status_code = 429


class ContextWindowExceededError(Exception):
    status_code = 400


class APIConnectionError(Exception):
    status_code = 500


class Chunk:
    """Like LiteLLM's objects: pydantic's `model_dump_json`."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def model_dump_json(self) -> str:
        import json

        return json.dumps(self._value)


CHUNKS: list[Any] = [
    {"id": "c1", "model": "gpt-x", "choices": [{"delta": {"role": "assistant", "content": "He"}}]},
    {"choices": [{"delta": {"content": "llo"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
]


def library(*, chunks: list[Any] | None = None, error: Exception | None = None, hang: bool = False) -> Any:
    """A small module that stands in for LiteLLM."""
    calls: list[dict[str, Any]] = []

    async def acompletion(**call: Any) -> Any:
        calls.append(call)
        if error is not None:
            raise error
        if "stream" not in call:
            message = {"role": "assistant", "content": "Hello"}
            return Chunk({**CHUNKS[2], "model": "gpt-x", "choices": [{"message": message, "finish_reason": "stop"}]})

        async def stream() -> AsyncIterator[Chunk]:
            for chunk in chunks if chunks is not None else CHUNKS:
                yield Chunk(chunk)
            if hang:
                await asyncio.sleep(60)

        return stream()

    return SimpleNamespace(acompletion=acompletion, calls=calls)


def through(fake: Any, **changes: Any) -> litellm.LiteLLMProvider:
    settings = settings_for("https://example.com", name="others", kind="litellm", **changes)
    return litellm.LiteLLMProvider(settings, library=fake)


@pytest.mark.parametrize("stream", [True, False])
async def test_litellm_is_called_in_its_dialect(stream: bool) -> None:
    """Model name without prefix, key and address passed on, no retries of its own; usage comes back."""
    fake = library()
    model = Model(id="litellm:groq/llama", provider="others", context_tokens=8192, max_output_tokens=4096)
    reply = await through(fake, stream=stream, api_key=KEY + "\n").send(request_for(model))
    assert (reply.text, reply.usage, reply.model) == ("Hello", Usage(7, 2), "gpt-x")
    (call,) = fake.calls
    assert call["model"] == "groq/llama"
    assert call["api_key"] == KEY
    assert call["num_retries"] == 0
    assert call["messages"] == [{"role": "user", "content": "Say hello"}]


@pytest.mark.parametrize(
    ("fake", "kind"),
    [
        (library(error=RateLimitError(f"slow down {KEY}")), OutcomeKind.RATE_LIMITED),
        (library(error=ContextWindowExceededError("too long")), OutcomeKind.TOO_LARGE),
        (library(error=APIConnectionError("refused")), OutcomeKind.CONNECTION),
        (library(error=ValueError("surprise")), OutcomeKind.SERVER_ERROR),
        (library(chunks=CHUNKS[:1]), OutcomeKind.CONNECTION),
        (library(chunks=[["no chunk"]]), OutcomeKind.SERVER_ERROR),
        (library(chunks=CHUNKS[:1], hang=True), OutcomeKind.TIMEOUT),
    ],
    ids=["429", "context", "refused", "surprise", "cut", "protocol", "stall"],
)
async def test_failures_through_litellm_are_told(fake: Any, kind: OutcomeKind) -> None:
    """Its exceptions, known and unknown, become kinds; no key in the words."""
    with pytest.raises(ProviderFailure) as caught:
        await through(fake, idle_timeout_seconds=1.0).send(request_for(GPT))
    assert caught.value.kind is kind
    assert KEY not in str(caught.value)


async def test_missing_litellm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package: not available, with the pip command, at check and at use."""
    monkeypatch.setitem(sys.modules, "litellm", None)
    monkeypatch.setattr(litellm.importlib.util, "find_spec", lambda name: None)
    provider = litellm.build(settings_for("https://example.com", name="others", kind="litellm"))
    assert "pip install 'tierwise[litellm]'" in (await provider.check(GPT)).detail
    with pytest.raises(ProviderFailure, match=r"tierwise\[litellm\]") as caught:
        await provider.send(request_for(GPT))
    assert caught.value.kind is OutcomeKind.UNAVAILABLE


# -- building by kind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", registry.BUILT_IN)
def test_built_in_kinds_are_built(kind: str) -> None:
    """Each built-in kind gives a provider, without opening anything."""
    provider = registry.build_provider(settings_for("http://127.0.0.1:1", kind=kind))
    assert KEY not in repr(provider)
    assert callable(provider.send)


def test_built_in_kinds_are_declared_as_entry_points_too() -> None:
    """The group lists them, so that other tools find them the same way."""
    declared = {point.name: point.value for point in importlib.metadata.entry_points(group=registry.GROUP)}
    assert {name: f"tierwise.providers.{name}:build" for name in registry.BUILT_IN}.items() <= declared.items()


def test_an_unknown_kind_lists_those_that_exist() -> None:
    """A typo in the configuration is answered with the choices."""
    with pytest.raises(ConfigError, match=r"'antropic'; use one of anthropic, ollama, embedded, openai, litellm"):
        registry.build_provider(settings_for("http://127.0.0.1:1", kind="antropic"))


def test_other_packages_add_kinds_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point of the group is a kind; a broken one is a configuration error that names it."""
    points = [
        importlib.metadata.EntryPoint("mine", "tierwise.providers.anthropic:build", registry.GROUP),
        importlib.metadata.EntryPoint("broken", "tierwise.nowhere:build", registry.GROUP),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    assert "AnthropicProvider" in repr(registry.build_provider(settings_for("http://127.0.0.1:1", kind="mine")))
    with pytest.raises(ConfigError, match=r"tierwise\.nowhere:build"):
        registry.build_provider(settings_for("http://127.0.0.1:1", kind="broken"))
