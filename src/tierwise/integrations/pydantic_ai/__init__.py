"""tierwise in Pydantic AI: a model for agents, its provider, and settings that say what a call is.

    from tierwise.integrations.pydantic_ai import TierwiseModel, TierwiseModelSettings, TierwiseProvider

Needs `pip install 'tierwise[pydantic-ai]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierwise.integrations.pydantic_ai.model import TierwiseModel, TierwiseModelSettings
    from tierwise.integrations.pydantic_ai.provider import TierwiseProvider

__all__ = ["TierwiseModel", "TierwiseModelSettings", "TierwiseProvider"]

_WHERE = {"TierwiseModel": "model", "TierwiseModelSettings": "model", "TierwiseProvider": "provider"}


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ImportError as error:
        # Where only Anthropic's SDK is missing, Pydantic AI names an extra of its own, in an error without a name.
        missing = error.name or (error.__cause__.name if isinstance(error.__cause__, ImportError) else None) or ""
        if missing.partition(".")[0] not in ("pydantic_ai", "anthropic"):
            raise
        raise ImportError(f"{name} needs {missing}: pip install 'tierwise[pydantic-ai]'", name=missing) from None
