"""What a replay is made of and what it finds, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Assumption", "CallOutcome", "Lever", "LeverValue", "Scenario", "SessionReplay", "Why"]


class Scenario(StrEnum):
    """How favourable the assumptions are to a policy. What it costs rises from the first to the last."""

    LOW = "low"
    EXPECTED = "expected"
    HIGH = "high"


class Assumption(StrEnum):
    """What a counterfactual rests on, beside the usage that was told."""

    CACHE = "cache"  # what another model has to write that the real one read
    ESCALATION = "escalation"  # answers that are rejected, tried again, and given higher up
    TOKENIZER = "tokenizer"  # the same text is more or fewer tokens
    OUTPUT_LENGTH = "output_length"  # another model says more
    TURNS_TO_COME = "turns_to_come"  # moves that were decided without knowing how long the conversation goes on


class Why(StrEnum):
    """Why a call went where it went."""

    ACTUAL = "actual"  # the policy has no say in it
    ROUTED = "routed"  # as the work needs
    STAYED = "stayed"  # in the middle of a turn, or because a move did not pay
    MOVED_UP = "moved_up"
    MOVED_DOWN = "moved_down"
    FIXED = "fixed"  # the policy looks at no work
    SAFETY = "safety"  # left alone: it judges safety
    UNKNOWN_MODEL = "unknown_model"  # left alone: nothing is known of its model
    UNPRICED = "unpriced"  # left alone: its own cost, or that of the model it would go to, is not known
    NOT_CLASSIFIED = "not_classified"  # left alone: nobody said what it is
    OBSERVED = "observed"  # left alone: its project is only to be observed
    FAST = "fast"  # left alone: it was asked for in fast mode
    NO_MODEL = "no_model"  # left alone: no model could take it
    SUMMED = "summed"  # left alone: its record sums up requests, and tells none of them
    NOTHING_USED = "nothing_used"  # left alone: it failed before it used anything, or counts tokens


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """Where one call went, and what that is expected to cost (None: unpriced, counted nowhere)."""

    call: str
    model: str  # the likeliest
    tier: str | None  # None: its model is in none
    nanousd: int | None
    why: Why
    moved: bool = False  # to another model than the real one
    below: bool = False  # to a lower tier than the tree wants for it


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReplay:
    """One session under one policy. Sums are over the calls whose real cost is known."""

    session: str
    policy: str
    calls: int
    unpriced_calls: int  # counted in no sum
    moved_calls: int  # that went to another model than the real one
    below_calls: int  # that went to a lower tier than the tree wants for them
    actual_nanousd: int
    by_scenario: Mapping[Scenario, int]
    contributions: Mapping[Assumption, int] = field(default_factory=dict)  # to `expected`: what each adds to it
    outcomes: tuple[CallOutcome, ...] = ()

    @property
    def expected_nanousd(self) -> int:
        """What the session is expected to cost under the policy."""
        return self.by_scenario[Scenario.EXPECTED]

    @property
    def saved_nanousd(self) -> int:
        """What the policy saves; below 0 where it costs more. Never more than was spent."""
        return self.actual_nanousd - self.expected_nanousd


class Lever(StrEnum):
    """What can be changed beside the model."""

    CACHE_1H = "cache_1h"  # keep the prompt cache for an hour and not for five minutes
    CACHE_5M = "cache_5m"  # keep it for five minutes and not for an hour
    BATCH = "batch"  # send what can wait through Message Batches
    EFFORT = "effort"  # ask for less thinking where work is processing
    PRICE_BAND = "price_band"  # compact before a prompt crosses into a dearer price band
    COLD_RESUME = "cold_resume"  # compact before a pause that is longer than the cache lives


@dataclass(frozen=True, slots=True)
class LeverValue:
    """What a lever would have saved (below 0: cost more), and how many calls it touches."""

    saved_nanousd: int = 0
    calls: int = 0

    def __add__(self, other: LeverValue) -> LeverValue:
        return LeverValue(self.saved_nanousd + other.saved_nanousd, self.calls + other.calls)
