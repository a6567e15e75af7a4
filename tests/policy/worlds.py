"""Worlds and classifications to decide in: the shipped configuration at prices of 2026-11-22."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from tierwise.classifier.taxonomy import load_taxonomy
from tierwise.config import load_settings
from tierwise.core.catalog import Model, Tier, TierSpec
from tierwise.core.decisions import Decision
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import Price
from tierwise.core.settings import Overrides, Settings
from tierwise.core.tasks import Alternative, Classification, Task
from tierwise.policy import World, decide
from tierwise.prices import PriceBook

TODAY = date(2026, 11, 22)
TYPES = load_taxonomy()


@cache
def settings() -> Settings:
    """The shipped configuration, without any file or key."""
    return load_settings(env={"HOME": "/nowhere"}, cwd=Path("/"))


def world_of(found: Settings, **changes: Any) -> World:
    """The world of a configuration, with some of its fields changed."""
    book = PriceBook(found.prices, found.providers)
    prices: dict[str, Price] = {}
    unpriced: dict[str, str] = {}
    for model in (*(m for spec in found.catalog for m in spec.models), found.catalog.baseline):
        try:
            prices[model.id] = book.price(model, TODAY)
        except UnpricedModel as error:
            unpriced[model.id] = str(error)
    world = World(
        catalog=found.catalog,
        policy=found.policy,
        overrides=found.overrides,
        limits=found.limits,
        prices=prices,
        unpriced=unpriced,
    )
    return replace(world, **changes)


@cache
def _default() -> World:
    return world_of(settings())


def world(*, overrides: Mapping[str, Any] | None = None, **changes: Any) -> World:
    """The shipped world, changed."""
    if overrides is not None:
        changes["overrides"] = Overrides(**overrides)
    return replace(_default(), **changes)


def classified(
    name: str,
    confidence: float = 0.95,
    *,
    abstained: bool = False,
    alternatives: Mapping[str, float] | None = None,
    also: tuple[str, ...] = (),
) -> Classification:
    """What a classifier might say."""
    return Classification(
        task_type=TYPES[name],
        confidence=confidence,
        abstained=abstained,
        alternatives=tuple(Alternative(TYPES[other], share) for other, share in (alternatives or {}).items()),
        also=tuple(TYPES[other] for other in also),
    )


def decided(classification: Classification | str, where: World | None = None, **task: Any) -> Decision:
    """The decision on a small task of that kind (100 tokens in, 20 out, unless given)."""
    task = {"text": "do it", "tokens_in": 100, "tokens_out": 20, **task}
    found = classified(classification) if isinstance(classification, str) else classification
    return decide(Task(**task), found, where or world())


def with_models(where: World, **changes: Mapping[str, Any]) -> World:
    """The same world in which every model of a tier (by its name) has some fields changed."""

    def changed(spec: TierSpec) -> TierSpec:
        fields = changes.get(spec.tier.name)
        if fields is None:
            return spec
        return replace(spec, models=tuple(_changed(model, fields) for model in spec.models))

    return replace(where, catalog=replace(where.catalog, tiers=tuple(changed(spec) for spec in where.catalog)))


def _changed(model: Model, fields: Mapping[str, Any]) -> Model:
    own = {name: value for name, value in fields.items() if hasattr(model, name)}
    capabilities = {name: value for name, value in fields.items() if name not in own}
    return replace(model, capabilities=replace(model.capabilities, **capabilities), **own)


def reasons(decision: Decision) -> dict[str, str]:
    """A decision's reasons by step (of several of one step the last)."""
    return {reason.step: reason.text for reason in decision.reasons}


LOCAL, HAIKU, SONNET, OPUS = Tier.LOCAL, Tier.HAIKU, Tier.SONNET, Tier.OPUS
