"""What the tests of providers share: models, settings and requests."""

from __future__ import annotations

from typing import Any

from tierwise.core.catalog import Model
from tierwise.core.json import JsonObject
from tierwise.core.settings import ProviderSettings
from tierwise.providers.base import ModelRequest

HAIKU = Model(id="claude-haiku-5-5", provider="anthropic", context_tokens=1_000_000, max_output_tokens=128_000)
KEY = "sk-ant-test-0123456789abcdef"


def settings_for(url: str, **changes: Any) -> ProviderSettings:
    """Settings of an Anthropic-wire provider at `url`; only a test of a stall has a limit that strikes."""
    values: dict[str, Any] = {
        "name": "anthropic",
        "kind": "anthropic",
        "base_url": url,
        "api_key": KEY,
        "api_key_env": "ANTHROPIC_API_KEY",
        "connect_timeout_seconds": 60.0,
        "first_token_timeout_seconds": 60.0,
        "idle_timeout_seconds": 60.0,
        **changes,
    }
    return ProviderSettings(**values)


def request_for(
    model: Model = HAIKU, text: str = "Say hello", timeout_seconds: float | None = None, **fields: Any
) -> ModelRequest:
    """A small request."""
    body: JsonObject = {
        "model": model.id,
        "max_tokens": 256,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }
    return ModelRequest(model=model, body=body, timeout_seconds=timeout_seconds)
