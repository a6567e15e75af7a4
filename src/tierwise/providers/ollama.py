"""Ollama ≥ 0.14, which speaks Anthropic's Messages itself; JSON schemas go through its OpenAI dialect.

Ollama's `/v1/messages` has no counterpart to `output_config.format`, its `/v1/chat/completions` holds the model to
`response_format`: a request with a schema therefore takes the other door of the same server.
"""

from __future__ import annotations

import re
import time

from tierwise.core.catalog import Model
from tierwise.core.decisions import OutcomeKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.settings import ProviderSettings
from tierwise.providers._exchange import ChatDialect, MessagesDialect, exchange
from tierwise.providers._http import Upstream
from tierwise.providers.base import Availability, ModelRequest, ProviderFailure, Reply

__all__ = ["OllamaProvider", "build", "send_local"]

DEFAULT_BASE_URL = "http://127.0.0.1:11434"
LEAST_VERSION = (0, 14)
_CHECK_SECONDS = 0.9  # for all that is asked; nobody there is known at once, a machine that computes may answer late


def build(settings: ProviderSettings) -> OllamaProvider:
    """The provider for these settings. Opens no connection."""
    return OllamaProvider(settings)


async def send_local(upstream: Upstream, request: ModelRequest) -> Reply:
    """One attempt at a local server, through the door at which it can be held to what is asked.

    Raises:
        ProviderFailure: it failed. A schema that the server cannot enforce makes it unavailable for this request,
            not the request invalid: another model may well take it. The same goes for a local server that wants a key.
    """
    body: JsonObject = {**request.body, "model": request.model.id}
    if upstream.settings.stream:
        body["stream"] = True
    else:
        body.pop("stream", None)
    config = body.get("output_config")
    constrained = isinstance(config, dict) and "format" in config
    try:
        return await exchange(upstream, ChatDialect() if constrained else MessagesDialect(), request, body)
    except ProviderFailure as failure:
        if failure.kind is OutcomeKind.UNAUTHORIZED or (constrained and failure.kind is OutcomeKind.INVALID_REQUEST):
            failure.kind = OutcomeKind.UNAVAILABLE
        raise


class OllamaProvider:
    """Sends to an Ollama, by default the one on this machine."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._upstream = Upstream(settings, default_base_url=DEFAULT_BASE_URL)

    def __repr__(self) -> str:
        return f"<OllamaProvider {self._settings.name} at {self._upstream.base_url}>"

    async def send(self, request: ModelRequest) -> Reply:
        """Make one attempt. See `tierwise.providers.base.Provider.send`."""
        return await send_local(self._upstream, request)

    async def check(self, model: Model) -> Availability:
        """Whether Ollama runs, is new enough and has pulled `model`; if not, what to do about it."""
        where = self._upstream.base_url
        self._upstream.client()  # is opened before the time runs
        ends = time.monotonic() + _CHECK_SECONDS
        try:
            version = _string(await self._upstream.get_json("/api/version", timeout_seconds=_CHECK_SECONDS), "version")
            tags = await self._upstream.get_json("/api/tags", timeout_seconds=max(0.0, ends - time.monotonic()))
        except ProviderFailure as failure:
            if failure.kind is OutcomeKind.CONNECTION:
                return Availability(False, f"no Ollama at {where}; start it with `ollama serve`, or see ollama.com")
            return Availability(False, f"what runs at {where} does not answer like Ollama: {failure}")
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers and numbers < LEAST_VERSION:
            return Availability(False, f"Ollama {version} at {where} is too old: tierwise needs 0.14 or later")
        names = _names(tags)
        if not {model.id, f"{model.id}:latest"} & names:
            return Availability(False, f"Ollama at {where} does not have {model.id}; run `ollama pull {model.id}`")
        return Availability(True)

    async def pulled(self) -> tuple[str, ...]:
        """The models that could be served, in the server's order of names; none where no Ollama answers."""
        try:
            tags = await self._upstream.get_json("/api/tags", timeout_seconds=_CHECK_SECONDS)
        except ProviderFailure:
            return ()
        return tuple(sorted(_names(tags)))

    async def loaded(self, model: Model) -> bool:
        """Whether `model` is in memory now: if not, the first answer waits for it to load. False where unknown."""
        try:
            running = await self._upstream.get_json("/api/ps", timeout_seconds=_CHECK_SECONDS)
        except ProviderFailure:
            return False
        return bool({model.id, f"{model.id}:latest"} & _names(running))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()


def _string(reply: Json, key: str) -> str:
    value = reply.get(key) if isinstance(reply, dict) else None
    return value if isinstance(value, str) else ""


def _names(reply: Json) -> set[str]:
    models = reply.get("models") if isinstance(reply, dict) else None
    if not isinstance(models, list):
        return set()
    return {_string(model, key) for model in models for key in ("name", "model")} - {""}
