"""The policies that can be replayed side by side: what was really done, routing, and simpler alternatives."""

from __future__ import annotations

from dataclasses import dataclass

from tierwise.core.errors import ConfigError
from tierwise.core.settings import Settings

__all__ = [
    "Actual",
    "AllOn",
    "OpusPlan",
    "RandomMix",
    "ReplayPolicy",
    "Routed",
    "SubagentsOn",
    "policy_named",
    "random_at_equal_cost",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Actual:
    """What was really done, at the prices of the world. At those of the time it is what was spent."""

    settings: Settings | None = None  # by whose tree calls are told to be on too low a tier
    name: str = "actual"


@dataclass(frozen=True, kw_only=True, eq=False)
class Routed:
    """The same decisions and the same climb as live routing, under some configuration."""

    settings: Settings
    name: str = "routed"
    requests_for: frozenset[str] | None = None  # models; requests for others stay as they are. None: all are routed


@dataclass(frozen=True, kw_only=True, eq=False)
class AllOn:
    """Everything on one tier, whatever it is. Nothing is checked, so nothing climbs."""

    settings: Settings
    tier: str
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or f"all-{self.tier}")


@dataclass(frozen=True, kw_only=True, eq=False)
class OpusPlan:
    """Claude Code's `opusplan`: one tier in plan mode, another otherwise; agents that inherit follow."""

    settings: Settings
    plan: str = "opus"
    work: str = "sonnet"
    name: str = "opusplan"


@dataclass(frozen=True, kw_only=True, eq=False)
class SubagentsOn:
    """All subagents on one tier (Claude Code's CLAUDE_CODE_SUBAGENT_MODEL), the main loop as it was."""

    settings: Settings
    tier: str
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or f"{self.tier}-subagents")


ReplayPolicy = Actual | Routed | AllOn | OpusPlan | SubagentsOn


def policy_named(name: str, settings: Settings) -> ReplayPolicy:
    """A policy by its name: `routed`, `actual`, `all-TIER`, `TIER-subagents` or `opusplan`.

    Raises:
        ConfigError: there is none of that name; says which there are.
        UnknownTier: it names a tier that is not configured.
    """
    tiers = [spec.tier.name for spec in settings.catalog]
    match name:
        case "routed":
            return Routed(settings=settings)
        case "actual":
            return Actual(settings=settings)
        case "opusplan":
            return OpusPlan(settings=settings)
        case _ if name.startswith("all-"):
            return AllOn(settings=settings, tier=settings.catalog.tier(name.removeprefix("all-")).tier.name)
        case _ if name.endswith("-subagents"):
            return SubagentsOn(settings=settings, tier=settings.catalog.tier(name.removesuffix("-subagents")).tier.name)
        case _:
            named = [f"all-{tier}" for tier in tiers] + [f"{tier}-subagents" for tier in tiers]
            raise ConfigError(f"no policy is called {name!r}; use one of routed, actual, opusplan, {', '.join(named)}")


@dataclass(frozen=True, slots=True)
class RandomMix:
    """Each conversation on one of two tiers, drawn blindly: in expectation, which is linear and needs no draw."""

    dear_share: float  # the probability of the dearer tier
    nanousd: int
    below_calls: float  # that are expected on a lower tier than the tree wants for them


def random_at_equal_cost(nanousd: int, cheap: tuple[int, int], dear: tuple[int, int]) -> RandomMix | None:
    """The blind mix of two fixed tiers that costs as much; None where no mix of them does.

    What a policy is worth shows beside it: at the same cost, how many calls land lower than their work demands.

    Args:
        nanousd: what the policy costs.
        cheap: what everything on the cheaper tier costs (nano-dollars), and how many calls are too low there.
        dear: the same of the dearer tier.
    """
    span = dear[0] - cheap[0]
    if span <= 0 or not cheap[0] <= nanousd <= dear[0]:
        return None
    share = (nanousd - cheap[0]) / span
    return RandomMix(share, nanousd, share * dear[1] + (1 - share) * cheap[1])
