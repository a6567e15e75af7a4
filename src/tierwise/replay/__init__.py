"""The same calls under another policy, price list or set of models. Pure: calls and assumptions in, sums out.

The theory of it, and what is assumed: docs/explanation/what-if.md.
"""

from tierwise.replay.assumptions import Assumptions, Escalation, Range, shipped_assumptions
from tierwise.replay.course import Replayer, replay_session
from tierwise.replay.levers import levers
from tierwise.replay.optimum import optimum_nanousd
from tierwise.replay.policies import (
    Actual,
    AllOn,
    OpusPlan,
    RandomMix,
    ReplayPolicy,
    Routed,
    SubagentsOn,
    policy_named,
    random_at_equal_cost,
)
from tierwise.replay.pricing import RateBook, actual_nanousd
from tierwise.replay.values import Assumption, CallOutcome, Lever, LeverValue, Scenario, SessionReplay, Why
from tierwise.replay.world import ReplayWorld, known_models, with_models

__all__ = [
    "Actual",
    "AllOn",
    "Assumption",
    "Assumptions",
    "CallOutcome",
    "Escalation",
    "Lever",
    "LeverValue",
    "OpusPlan",
    "RandomMix",
    "Range",
    "RateBook",
    "ReplayPolicy",
    "ReplayWorld",
    "Replayer",
    "Routed",
    "Scenario",
    "SessionReplay",
    "SubagentsOn",
    "Why",
    "actual_nanousd",
    "known_models",
    "levers",
    "optimum_nanousd",
    "policy_named",
    "random_at_equal_cost",
    "replay_session",
    "shipped_assumptions",
    "with_models",
]
