"""Models through LiteLLM (extra `tierwise[litellm]`): whatever it reaches that tierwise does not reach itself.

LiteLLM is imported by the first request: it takes seconds. The translation is tested with a small module that stands
in for it, given as `library`. A model's id is LiteLLM's, with or without a leading `litellm:`. The other way round,
tierwise inside LiteLLM, is `tierwise.integrations.litellm`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
from typing import Any, cast

from tierwise.core.catalog import Model
from tierwise.core.decisions import OutcomeKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.settings import ProviderSettings
from tierwise.providers._exchange import reply_from
from tierwise.providers._http import Deadline, Progress, failure_kind, scrub
from tierwise.providers.base import Availability, ModelRequest, ProviderFailure, Reply, note_spent
from tierwise.wire.anthropic import ProtocolError
from tierwise.wire.openai import ChatAccumulator, Untranslatable, chat_request, message_from_completion

__all__ = ["LiteLLMProvider", "build", "outcome_of"]

_MISSING = "models through LiteLLM need the package litellm: pip install 'tierwise[litellm]'"


def build(settings: ProviderSettings) -> LiteLLMProvider:
    """The provider for these settings. Imports nothing yet."""
    return LiteLLMProvider(settings)


class LiteLLMProvider:
    """Sends through `litellm.acompletion`. `library` is the module to use instead of the installed one."""

    def __init__(self, settings: ProviderSettings, *, library: Any = None) -> None:
        self._settings = settings
        self._library = library
        self._secrets = tuple({s for s in (settings.api_key, (settings.api_key or "").strip()) if s})

    def __repr__(self) -> str:
        return f"<LiteLLMProvider {self._settings.name}>"

    async def check(self, model: Model) -> Availability:
        """Whether the package and, where one is configured, the key are there."""
        del model
        if self._library is None and importlib.util.find_spec("litellm") is None:
            return Availability(False, _MISSING)
        if self._settings.key_missing:
            return Availability(False, f"providers.{self._settings.name} needs an API key: set {self._variable}")
        return Availability(True)

    async def aclose(self) -> None:
        """Nothing to close: LiteLLM keeps its own connections."""

    async def send(self, request: ModelRequest) -> Reply:
        """Make one attempt. See `tierwise.providers.base.Provider.send`."""
        settings = self._settings
        if settings.key_missing:
            raise ProviderFailure(
                OutcomeKind.UNAUTHORIZED, f"providers.{settings.name} needs an API key: set {self._variable}"
            )
        library = await self._load()
        body: JsonObject = {**request.body, "model": request.model.id.removeprefix("litellm:")}
        if settings.stream:
            body["stream"] = True
        else:
            body.pop("stream", None)
        try:
            chat = chat_request(body)
        except Untranslatable as error:
            raise ProviderFailure(OutcomeKind.UNAVAILABLE, f"{settings.name}: {error}") from None
        options: dict[str, Any] = {"num_retries": 0, "drop_params": False}  # the climb retries, adapt drops
        if settings.api_key:
            options["api_key"] = settings.api_key.strip()
        if settings.base_url:
            options["base_url"] = settings.base_url
        if settings.headers:
            options["extra_headers"] = dict(settings.headers)
        progress = Progress()
        message = await self._attempt(library, {**chat, **options}, request, body, progress)
        return reply_from(message, request, body, progress)

    @property
    def _variable(self) -> str:
        return self._settings.api_key_env or "its variable"

    async def _load(self) -> Any:
        if self._library is None:
            try:
                self._library = await asyncio.to_thread(importlib.import_module, "litellm")
            except ImportError:
                raise ProviderFailure(OutcomeKind.UNAVAILABLE, _MISSING) from None
        return self._library

    async def _attempt(
        self, library: Any, call: dict[str, Any], request: ModelRequest, body: JsonObject, progress: Progress
    ) -> JsonObject:
        accumulator = ChatAccumulator()
        progress.usage = lambda: accumulator.usage_so_far(body)
        streamed = "stream" in call
        deadline = Deadline.of(self._settings, request.timeout_seconds, streamed=streamed)
        try:
            async with deadline.timeout:
                deadline.enter()
                answer = await library.acompletion(**call)
                if not streamed:
                    return message_from_completion(_plain(answer))
                async for chunk in answer:
                    accumulator.feed(_plain(chunk))
                    if accumulator.has_content:
                        progress.first_token()
                        deadline.piece_arrived()
        except asyncio.CancelledError as cancelled:
            note_spent(cancelled, progress.usage())
            raise
        except ProtocolError as error:
            raise self._failure(OutcomeKind.SERVER_ERROR, str(error), progress) from None
        except TimeoutError as error:
            raise self._failure(OutcomeKind.TIMEOUT, deadline.why or str(error), progress) from None
        except Exception as error:  # noqa: BLE001 - LiteLLM's own tree, and whatever its back ends raise
            raise self._failure(outcome_of(error), f"{type(error).__name__}: {error}", progress, error) from None
        if accumulator.error is not None:
            error_type = accumulator.error.type
            raise self._failure(failure_kind(200, error_type), accumulator.error.message, progress)
        if not accumulator.complete:
            raise self._failure(OutcomeKind.CONNECTION, "the stream ended before a finish reason", progress)
        return accumulator.message()

    def _failure(
        self, kind: OutcomeKind, words: str, progress: Progress, error: Exception | None = None
    ) -> ProviderFailure:
        status = getattr(error, "status_code", None)
        return ProviderFailure(
            kind,
            f"{self._settings.name} through LiteLLM: {scrub(words, self._secrets)}",
            usage=progress.usage(),
            status=status if isinstance(status, int) else None,
            ttft_ms=progress.ttft_ms,
            note=f"{self._settings.name} through LiteLLM: {type(error).__name__ if error else kind.value}",
        )


def outcome_of(error: Exception) -> OutcomeKind:
    """What LiteLLM's exception means: by the names of its tree, then by its status."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "ContextWindowExceededError" in names:
        return OutcomeKind.TOO_LARGE
    if "APIConnectionError" in names or isinstance(error, OSError):
        return OutcomeKind.CONNECTION
    if "Timeout" in names:
        return OutcomeKind.TIMEOUT
    status = getattr(error, "status_code", None)
    return failure_kind(status, "", str(error)) if isinstance(status, int) else OutcomeKind.SERVER_ERROR


def _plain(value: Any) -> Json:
    """LiteLLM's objects (pydantic, or dicts already) as JSON."""
    if hasattr(value, "model_dump_json"):
        return cast("Json", json.loads(value.model_dump_json()))
    return cast("Json", value)
