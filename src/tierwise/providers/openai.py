"""The OpenAI wire: OpenAI, OpenRouter, LM Studio, vLLM and whatever else speaks chat/completions."""

from __future__ import annotations

from urllib.parse import urlsplit

from tierwise.core.catalog import Model
from tierwise.core.json import JsonObject
from tierwise.core.settings import ProviderSettings
from tierwise.providers._exchange import ChatDialect, exchange
from tierwise.providers._http import Upstream
from tierwise.providers.base import Availability, ModelRequest, ProviderFailure, Reply

__all__ = ["OpenAIProvider", "build"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_CHECK_SECONDS = 0.8


def build(settings: ProviderSettings) -> OpenAIProvider:
    """The provider for these settings. Opens no connection."""
    return OpenAIProvider(settings)


class OpenAIProvider:
    """Sends requests, translated, to `base_url`: with its version in the path (`…/v1`), or without."""

    def __init__(self, settings: ProviderSettings) -> None:
        # This dialect knows no other way to carry a key.
        self._settings = settings
        self._upstream = Upstream(settings, default_base_url=DEFAULT_BASE_URL, auth="bearer")
        url = urlsplit(self._upstream.base_url)
        self._prefix = "" if url.path.rstrip("/") else "/v1"
        own = (url.hostname or "").endswith("openai.com")
        # OpenAI's newer models refuse `max_tokens`; other servers know nothing else.
        self._dialect = ChatDialect(
            f"{self._prefix}/chat/completions", max_tokens_key="max_completion_tokens" if own else "max_tokens"
        )

    def __repr__(self) -> str:
        return f"<OpenAIProvider {self._settings.name} at {self._upstream.base_url}>"

    async def send(self, request: ModelRequest) -> Reply:
        """Make one attempt. See `tierwise.providers.base.Provider.send`."""
        body: JsonObject = {**request.body, "model": request.model.id}
        if self._settings.stream:
            body["stream"] = True
        else:
            body.pop("stream", None)
        return await exchange(self._upstream, self._dialect, request, body)

    async def check(self, model: Model) -> Availability:
        """Whether a usable key is there and, for a server on this machine, whether it answers."""
        del model
        problem = self._upstream.problem
        if problem:
            return Availability(False, problem)
        if self._settings.local:
            try:
                await self._upstream.get_json(f"{self._prefix}/models", timeout_seconds=_CHECK_SECONDS)
            except ProviderFailure as failure:
                return Availability(False, f"{failure}; is the server running?")
        return Availability(True)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()
