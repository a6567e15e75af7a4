"""tierwise in LangChain and LangGraph: a chat model, and middleware for agents.

    from tierwise.integrations.langchain import ChatTierwise, TierPerStep

Needs `pip install 'tierwise[langchain]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierwise.integrations.langchain.middleware import TierPerStep
    from tierwise.integrations.langchain.model import ChatTierwise

__all__ = ["ChatTierwise", "TierPerStep"]

_WHERE = {"ChatTierwise": "model", "TierPerStep": "middleware"}


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("langchain", "langchain_core"):
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'tierwise[langchain]'", name=error.name) from None
