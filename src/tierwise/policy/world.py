"""Everything that a decision depends on beside the task, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tierwise.core.catalog import Catalog
from tierwise.core.money import Price
from tierwise.core.settings import LimitSettings, Overrides, PolicySettings

__all__ = ["World"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything a decision depends on beside the task, as values.

    `prices` maps model id to today's price; a model that is missing there is unpriced. `unavailable` maps model id
    to the reason why it cannot be used now. `speeds` maps model id to measured (prompt, output) tokens a second.
    """

    catalog: Catalog
    policy: PolicySettings
    overrides: Overrides
    limits: LimitSettings
    prices: Mapping[str, Price]
    unpriced: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    speeds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
