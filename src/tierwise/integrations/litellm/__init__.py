"""tierwise in LiteLLM: a provider whose models are tiers, and a callback that routes for LiteLLM's own router.

    from tierwise.integrations.litellm import TierRouting, register

`handler` and `tier_routing` are what a LiteLLM proxy's configuration names. Needs `pip install 'tierwise[litellm]'`.
The other way round, a tier whose models LiteLLM reaches, is `tierwise.providers.litellm`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierwise.integrations.litellm.provider import TierwiseLLM, handler, register
    from tierwise.integrations.litellm.routing import TierRouting, tier_routing

__all__ = ["TierRouting", "TierwiseLLM", "handler", "register", "tier_routing"]

_WHERE = {
    "TierRouting": "routing",
    "TierwiseLLM": "provider",
    "handler": "provider",
    "register": "provider",
    "tier_routing": "routing",
}


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "litellm":
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'tierwise[litellm]'", name=error.name) from None
