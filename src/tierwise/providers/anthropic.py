"""The Anthropic wire: Anthropic itself, and whatever speaks it (Ollama ≥ 0.14, llama.cpp, vLLM, gateways)."""

from __future__ import annotations

from tierwise.core.catalog import Model
from tierwise.core.json import JsonObject
from tierwise.core.settings import ProviderSettings
from tierwise.providers._exchange import MessagesDialect, exchange
from tierwise.providers._http import Upstream
from tierwise.providers.base import Availability, ModelRequest, Reply

__all__ = ["AnthropicProvider", "build"]

DEFAULT_BASE_URL = "https://api.anthropic.com"


def build(settings: ProviderSettings) -> AnthropicProvider:
    """The provider for these settings. Opens no connection."""
    return AnthropicProvider(settings)


class AnthropicProvider:
    """Sends Messages requests to `settings.base_url` (Anthropic's by default)."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._upstream = Upstream(settings, default_base_url=DEFAULT_BASE_URL)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.name} at {self._upstream.base_url}>"

    async def send(self, request: ModelRequest) -> Reply:
        """Make one attempt. See `tierwise.providers.base.Provider.send`."""
        return await exchange(self._upstream, MessagesDialect(), request, self._body(request))

    async def check(self, model: Model) -> Availability:
        """Whether a key is there that can be sent. Asks nobody: the API has no question that costs nothing."""
        del model
        problem = self._upstream.problem
        return Availability(not problem, problem)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()

    def _body(self, request: ModelRequest) -> JsonObject:
        body: JsonObject = {**request.body, "model": request.model.id}
        if self._settings.inference_geo is not None:
            body.setdefault("inference_geo", self._settings.inference_geo)
        if self._settings.speed is not None:
            body.setdefault("speed", self._settings.speed)
        if self._settings.stream:
            body["stream"] = True
        else:
            body.pop("stream", None)
        return body
