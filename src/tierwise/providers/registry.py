"""Building a provider from its settings, by kind: the built-in ones directly, others by entry point.

Another package adds a kind with an entry point of group `tierwise.providers`, whose name is the kind and whose
object is a callable `build(settings: ProviderSettings) -> Provider`. Built-in kinds come first and are found
without reading any package's metadata, which takes longer than a routing decision.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from tierwise.core.errors import ConfigError
from tierwise.core.settings import ProviderSettings
from tierwise.providers.base import Provider

__all__ = ["BUILT_IN", "GROUP", "build_provider"]

GROUP = "tierwise.providers"
BUILT_IN = ("anthropic", "ollama", "embedded", "openai", "litellm")


def build_provider(settings: ProviderSettings) -> Provider:
    """The provider that `settings.kind` names. Opens no connection and starts nothing.

    Raises:
        ConfigError: there is no such kind (the message lists those that exist), or its package cannot be used.
    """
    if settings.kind in BUILT_IN:
        return cast("Provider", import_module(f"tierwise.providers.{settings.kind}").build(settings))
    from importlib.metadata import entry_points  # noqa: PLC0415 - 20 ms, for kinds that are not built in

    others = {point.name: point for point in entry_points(group=GROUP)}
    point = others.get(settings.kind)
    if point is None:
        known = ", ".join([*BUILT_IN, *sorted(set(others) - set(BUILT_IN))])
        raise ConfigError(f"providers.{settings.name}.kind is {settings.kind!r}; use one of {known}")
    try:
        return cast("Provider", point.load()(settings))
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"providers.{settings.name}.kind is {settings.kind!r}, but its entry point {point.value} cannot be used: "
            f"{error}"
        ) from error
