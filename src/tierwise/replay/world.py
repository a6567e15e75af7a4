"""What a replay depends on beside the calls: prices, models, and what is assumed, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

from tierwise.core.calls import ImportedSession
from tierwise.core.catalog import Model, TierSpec
from tierwise.core.errors import ConfigError
from tierwise.core.settings import Settings
from tierwise.policy.outlook import HarderTurns, TurnsToCome
from tierwise.prices import PriceBook
from tierwise.replay.asked import Asked, LeftAlone, asked
from tierwise.replay.assumptions import Assumptions, shipped_assumptions
from tierwise.replay.deciding import Deciding
from tierwise.replay.pricing import RateBook

__all__ = ["ReplayWorld", "known_models", "with_models"]


@dataclass(frozen=True, kw_only=True)
class ReplayWorld:
    """The world in which a policy is tried.

    Prices are those of each call's own day, unless `priced_on` says of which. A model that was not yet released then,
    or already retired, or that `unavailable` names, is not there.
    """

    prices: PriceBook
    models: tuple[Model, ...]  # that are known: see `known_models`
    priced_on: date | None = None
    assumptions: Assumptions = field(default_factory=shipped_assumptions)
    turns: TurnsToCome = field(default_factory=TurnsToCome)  # how long conversations go on
    harder: HarderTurns = field(default_factory=HarderTurns)  # how often a turn is followed by one that asks for more
    unavailable: Mapping[str, str] = field(default_factory=dict)  # model id → why
    _latest: dict[str, tuple[ImportedSession, list[Asked | LeftAlone]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _deciding: dict[int, Deciding] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def rates(self) -> RateBook:
        """What calls cost in this world."""
        return RateBook(self.prices, self.models, self.priced_on)

    @cached_property
    def real_rates(self) -> RateBook:
        """What they really cost."""
        return self.rates if self.priced_on is None else RateBook(self.prices, self.models)

    def asked(self, session: ImportedSession) -> Sequence[Asked | LeftAlone]:
        """The calls of a session as they were; kept for the policies that replay the same one next."""
        kept = self._latest.get("session")
        if kept is None or kept[0] is not session:
            kept = self._latest["session"] = (session, asked(session.calls, self.rates, self.real_rates))
        return kept[1]

    def deciding(self, settings: Settings) -> Deciding:
        """What a configuration decides in this world; kept for all policies that go by the same one."""
        found = self._deciding.get(id(settings))
        if found is None:  # it keeps its settings, so that their id stays theirs
            found = self._deciding[id(settings)] = Deciding(settings, self)
        return found


def known_models(settings: Settings) -> tuple[Model, ...]:
    """All models that a configuration describes, in a tier or not."""
    catalog = settings.catalog
    return (*catalog.models, catalog.baseline, *catalog.beside)


def with_models(settings: Settings, replacements: Mapping[str, Model]) -> Settings:
    """The configuration with one model in the place of all of a tier's, by the tier's name.

    Raises:
        ConfigError: there is no such tier.
    """
    catalog = settings.catalog
    names = [spec.tier.name for spec in catalog]
    for name in replacements:
        if name not in names:
            raise ConfigError(f"no tier is called {name!r}; use one of {', '.join(names)}")

    def replaced(spec: TierSpec) -> TierSpec:
        model = replacements.get(spec.tier.name)
        return spec if model is None else replace(spec, models=(model,))

    return replace(settings, catalog=replace(catalog, tiers=tuple(replaced(spec) for spec in catalog)))
