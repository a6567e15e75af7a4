"""The policies that can be replayed, side by side: what was really done, routing, and what is simpler than routing."""

from __future__ import annotations

from dataclasses import dataclass

from tierwise.core.settings import Settings

__all__ = ["Actual", "AllOn", "OpusPlan", "ReplayPolicy", "Routed", "SubagentsOn"]


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
