"""Finding importers by name: the built-in ones directly, others by entry point.

Another package adds one with an entry point of group `tierwise.importers`, whose name is the importer's and whose
object is a callable `build() -> Importer`.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from tierwise.core.errors import ConfigError
from tierwise.importers.base import Importer

__all__ = ["BUILT_IN", "GROUP", "importer", "importer_names"]

GROUP = "tierwise.importers"
BUILT_IN = {  # and their modules
    "claude_code": "claude_code",
    "console": "console",
    "jsonl": "jsonl",
    "ledger": "ledger_calls",
    "litellm": "litellm",
}


def importer_names() -> tuple[str, ...]:
    """All that are installed."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - 20 ms, only to list them

    return (*BUILT_IN, *sorted({point.name for point in entry_points(group=GROUP)} - set(BUILT_IN)))


def importer(name: str) -> Importer:
    """The importer of that name.

    Raises:
        ConfigError: there is none (the message lists those that exist), or its package cannot be used.
    """
    if name in BUILT_IN:
        return cast("Importer", import_module(f"tierwise.importers.{BUILT_IN[name]}").build())
    from importlib.metadata import entry_points  # noqa: PLC0415 - 20 ms, for those that are not built in

    point = next((point for point in entry_points(group=GROUP) if point.name == name), None)
    if point is None:
        raise ConfigError(f"there is no importer {name!r}; use one of {', '.join(importer_names())}")
    try:
        return cast("Importer", point.load()())
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"the importer {name!r} ({point.value}) cannot be used: {error}") from error
