"""tierwise in LlamaIndex: an LLM for query engines, agents and workflows.

    from tierwise.integrations.llama_index import TierwiseLLM

Needs `pip install 'tierwise[llama-index]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierwise.integrations.llama_index.model import TierwiseLLM

__all__ = ["TierwiseLLM"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.model"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "llama_index":
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'tierwise[llama-index]'", name=error.name) from None
