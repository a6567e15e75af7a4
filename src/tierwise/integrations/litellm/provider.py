"""`TierwiseLLM`: models named `tierwise/…` in LiteLLM, routed, checked, priced and recorded in this process.

It speaks chat/completions to the gateway inside this process, as a wrapped SDK does; what LiteLLM does around a
provider (callbacks, caches, budgets, its proxy) stays its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import litellm
from litellm.utils import type_to_response_format_param

from tierwise.core.errors import ConfigError, InvalidTask, TierwiseError
from tierwise.core.settings import Settings
from tierwise.integrations.inside import InsideGateway
from tierwise.integrations.litellm.failures import PROVIDER, cut, failure, refused, timed_out, torn
from tierwise.integrations.litellm.replies import Chunks, StreamFailed, cost_of, told_of, usage_of
from tierwise.integrations.options import CallOptions, applied, call_options, current_options
from tierwise.integrations.sdk import inside_gateway
from tierwise.integrations.transport import TRAILERS, AsyncTransport, Part, Transport
from tierwise.ledger import Ledger

__all__ = ["TierwiseLLM", "handler", "register"]

AUTO = "auto"  # `tierwise/auto`: under the first of the names that the configuration routes
_OPTIONS = ("task", "task_type", "min_tier", "max_tier", "project", "deadline_seconds", "check")
_HEADERS = ("x-tierwise-", "anthropic-")  # LiteLLM's others may be keys, for somebody else
_URL = "http://tierwise.invalid/v1/chat/completions"  # never looked up: the transport answers


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call as LiteLLM makes it."""

    model: str  # as LiteLLM names it, for its exceptions
    body: bytes
    headers: Mapping[str, str]
    options: CallOptions
    timeout_seconds: float | None  # without a byte


class TierwiseLLM(litellm.CustomLLM):
    """The models of tierwise, for LiteLLM: `tierwise/auto` is routed, `tierwise/claude-sonnet-5-5` is that model.

    `task`, `task_type`, `min_tier`, `max_tier`, `project`, `deadline_seconds` and `check` mean what they do in
    `tierwise.call_options`, and are given with a call. What became of it is in `response._hidden_params["tierwise"]`;
    what it cost, attempts that failed included, is where LiteLLM keeps that: in `_hidden_params["response_cost"]`, and
    in a stream's usage.

    Args:
        settings: the configuration; read from tierwise.toml and the environment by the first call when None.
        ledger: where calls are recorded; the configured one when None.
    """

    def __init__(self, settings: Settings | None = None, *, ledger: Ledger | None = None) -> None:
        super().__init__()
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigError(f"settings is {type(settings).__name__}; give what tierwise.load_settings() returns")
        self._settings = settings
        self._ledger = ledger
        self._lock = threading.Lock()
        self._inside: InsideGateway | None = None

    # ------------------------------------------------------------------ what LiteLLM calls

    def completion(self, model: str, messages: list[Any], optional_params: dict[str, Any], **given: Any) -> Any:
        """A whole answer."""
        with _failing(model):
            gateway = self._gateway()
            asked = _asked(gateway, model, messages, optional_params, given)
            with applied(asked.options), _client(gateway, asked) as client:
                answer = client.post(_URL, content=asked.body, headers=asked.headers)
        return _whole(answer, asked)

    async def acompletion(self, model: str, messages: list[Any], optional_params: dict[str, Any], **given: Any) -> Any:
        """A whole answer, awaited."""
        with _failing(model):
            gateway = await self._gateway_async()
            asked = _asked(gateway, model, messages, optional_params, given)
            with applied(asked.options):
                async with _async_client(gateway, asked) as client:
                    answer = await client.post(_URL, content=asked.body, headers=asked.headers)
        return _whole(answer, asked)

    def streaming(
        self, model: str, messages: list[Any], optional_params: dict[str, Any], **given: Any
    ) -> Iterator[dict[str, Any]]:
        """A stream. The request leaves at once: where it fails, the call does, and not its first chunk."""
        with _failing(model):
            gateway = self._gateway()
            asked = _asked(gateway, model, messages, optional_params, given, stream=True)
            client = _client(gateway, asked)
            request = client.build_request("POST", _URL, content=asked.body, headers=asked.headers)
            with applied(asked.options):
                answer = client.send(request, stream=True)
            if answer.status_code != 200:
                raise failure(answer.status_code, answer.headers, answer.read(), model)
        return _chunks(answer, model)

    def astreaming(
        self, model: str, messages: list[Any], optional_params: dict[str, Any], **given: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """A stream, awaited. LiteLLM takes no coroutine here, so the request leaves with the first chunk.

        What `call_options` says holds as of now: by then, its block may have ended.
        """
        outer = current_options()

        async def chunks() -> AsyncIterator[dict[str, Any]]:
            with _failing(model):
                gateway = await self._gateway_async()
                with applied(outer):
                    asked = _asked(gateway, model, messages, optional_params, given, stream=True)
                client = _async_client(gateway, asked)
                request = client.build_request("POST", _URL, content=asked.body, headers=asked.headers)
                with applied(asked.options):
                    answer = await client.send(request, stream=True)
                try:
                    if answer.status_code != 200:
                        raise failure(answer.status_code, answer.headers, await answer.aread(), model)
                    read = Chunks()
                    async for piece in answer.aiter_bytes():
                        for chunk in read.read(piece):
                            yield chunk
                    yield read.end(_told(answer))
                finally:
                    await answer.aclose()

        return chunks()

    async def _gateway_async(self) -> InsideGateway:
        inside = self._inside
        if inside is None or inside.closed:
            inside = await asyncio.to_thread(self._gateway)  # which reads files
        return inside

    def _gateway(self) -> InsideGateway:
        with self._lock:
            if self._inside is None or self._inside.closed:
                if self._settings is None:
                    from tierwise.config import load_settings  # noqa: PLC0415  pydantic: when there is a file to read

                    self._settings = load_settings()
                self._inside = inside_gateway(self._settings, self._ledger)
            return self._inside


def register(
    settings: Settings | None = None, *, ledger: Ledger | None = None, provider: str = PROVIDER
) -> TierwiseLLM:
    """Makes `tierwise/…` known to LiteLLM in this process, in place of who had the name before.

    Args:
        settings: the configuration; read from tierwise.toml and the environment by the first call when None.
        ledger: where calls are recorded; the configured one when None.
        provider: the name before the slash.
    """
    made = TierwiseLLM(settings, ledger=ledger)
    others = [item for item in litellm.custom_provider_map if item["provider"] != provider]
    litellm.custom_provider_map = [*others, {"provider": provider, "custom_handler": made}]
    return made


handler = TierwiseLLM()
"""With the configuration that is found, for a proxy: `custom_handler: tierwise.integrations.litellm.handler`."""


# ------------------------------------------------------------------ a call


def _asked(
    gateway: InsideGateway,
    model: str,
    messages: list[Any],
    optional_params: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    stream: bool = False,
) -> _Asked:
    """Raises `InvalidTask` where it cannot be sent."""
    said = {name: value for name, value in optional_params.items() if name in _OPTIONS}
    with call_options(**said):
        options = current_options()
    own = {name: value for name, value in optional_params.items() if name not in _OPTIONS}
    extra = own.pop("extra_body", None)
    name = gateway.settings.gateway.routed_models[0] if model == AUTO else model
    body = {**own, **(extra or {}), "model": name, "messages": messages}
    wanted = body.get("response_format")
    if isinstance(wanted, type):
        body["response_format"] = type_to_response_format_param(response_format=wanted)
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    else:
        body.pop("stream", None)
        body.pop("stream_options", None)
    try:
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"the request cannot be written as JSON: {error}; check what was given with it") from None
    headers = {
        key.lower(): str(text) for key, text in (given.get("headers") or {}).items() if key.lower().startswith(_HEADERS)
    }
    headers["content-type"] = "application/json"
    return _Asked(model, content, headers, options, _seconds(given.get("timeout")))


def _seconds(timeout: Any) -> float | None:
    """LiteLLM gives a number, or an `httpx.Timeout`."""
    seconds = getattr(timeout, "read", timeout)
    return float(seconds) if isinstance(seconds, int | float) else None


def _client(gateway: InsideGateway, asked: _Asked) -> httpx2.Client:
    return httpx2.Client(transport=Transport(gateway, _all, None), timeout=asked.timeout_seconds)


def _async_client(gateway: InsideGateway, asked: _Asked) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=AsyncTransport(gateway, _all, None), timeout=asked.timeout_seconds)


def _all(request: httpx2.Request, body: bytes) -> Part:
    return Part(request.url.path, [(name.lower(), value) for name, value in request.headers.raw], body)


@contextmanager
def _failing(model: str) -> Iterator[None]:
    """What goes wrong goes on as one of LiteLLM's exceptions."""
    try:
        yield
    except StreamFailed as error:
        raise torn(error.error, model) from None
    except httpx2.TimeoutException as error:
        raise timed_out(f"tierwise: {error}", model) from error
    except httpx2.TransportError as error:
        raise cut(error, model) from error
    except TierwiseError as error:
        raise refused(error, model) from error


# ------------------------------------------------------------------ an answer


def _whole(answer: httpx2.Response, asked: _Asked) -> Any:
    if answer.status_code != 200:
        raise failure(answer.status_code, answer.headers, answer.content, asked.model)
    told = told_of(answer.headers)
    value = answer.json()
    response = litellm.ModelResponse(
        **{**value, "model": told.get("model", value["model"]), "usage": usage_of(value.get("usage"))}
    )
    hidden = response._hidden_params
    hidden["response_cost"] = cost_of(told)  # None: LiteLLM looks for a price of its own, and has none for this name
    hidden["tierwise"] = told
    hidden["additional_headers"] = {
        f"llm_provider-{name}": text for name, text in answer.headers.items() if name.startswith("x-tierwise-")
    }
    return response


def _chunks(answer: httpx2.Response, model: str) -> Iterator[dict[str, Any]]:
    read = Chunks()
    try:
        with _failing(model):
            for piece in answer.iter_bytes():
                yield from read.read(piece)
            yield read.end(_told(answer))
    finally:
        answer.close()


def _told(answer: httpx2.Response) -> dict[str, str]:
    """What is known of a stream that was read to its end."""
    return told_of(answer.extensions[TRAILERS])
