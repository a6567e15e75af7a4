"""Decisions to climb, made by hand: a ladder is a row of (tier name, estimated cost, retries)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from tierwise.classifier.taxonomy import load_taxonomy
from tierwise.core.catalog import Capabilities, Model, Thinking, Tier
from tierwise.core.decisions import Attempt, Decision, Outcome, OutcomeKind, Rung
from tierwise.core.money import Price, PriceBand, Usage
from tierwise.core.settings import LimitSettings
from tierwise.core.tasks import Classification
from tierwise.engine.climb import Climbed, climb

LEVELS = {"local": 0, "haiku": 1, "sonnet": 2, "opus": 3}


def rung(name: str, cost: str = "0.01", retries: int = 1, *, thinks: bool = False, **model: Any) -> Rung:
    """A rung of a tier of that name, with one model named like it."""
    rate = Decimal(0) if Decimal(cost) == 0 else Decimal(1)
    fields = {"id": f"{name}-model", "provider": "p", "context_tokens": 100_000, "max_output_tokens": 10_000, **model}
    return Rung(
        tier=Tier(LEVELS[name], name),
        model=Model(**fields, capabilities=Capabilities(thinking=Thinking.ADAPTIVE if thinks else Thinking.NONE)),
        price=Price(f"{name}-model", (PriceBand(rate, rate, rate, rate, rate),), "test"),
        estimated_usage=Usage(input_tokens=100, output_tokens=300, estimated=True),
        estimated_cost_usd=Decimal(cost),
        estimated_seconds=1.0,
        retries=retries,
    )


def plan(*rungs: Rung, max_cost_usd: str | None = None, deadline_seconds: float | None = None) -> Decision:
    """A decision over those rungs; haiku then sonnet where none are given."""
    ladder = rungs or (rung("haiku"), rung("sonnet"))
    return Decision(
        classification=Classification(load_taxonomy()["ranking"], 1.0),
        ladder=ladder,
        reasons=(),
        baseline_model=ladder[-1].model,
        baseline_cost_usd=None,
        baseline_usage=Usage(),
        max_cost_usd=None if max_cost_usd is None else Decimal(max_cost_usd),
        deadline_seconds=deadline_seconds,
    )


def outcome(kind: OutcomeKind | str, detail: str = "", cost: str | None = "0.01", **more: Any) -> Outcome:
    """What an attempt found."""
    return Outcome(OutcomeKind(kind), detail, None if cost is None else Decimal(cost), **more)


def play(
    decision: Decision,
    outcomes: Iterable[Outcome | str],
    *,
    limits: LimitSettings | None = None,
    random: Sequence[float] = (0.5,),
    fixed: int | None = None,
) -> tuple[list[Attempt], Climbed | None]:
    """Climbs with these outcomes in turn; what was attempted, and the end (None where the script ran out first)."""
    numbers = iter(random)
    last = [0.5]

    def jitter() -> float:
        last[0] = next(numbers, last[0])
        return last[0]

    generator = climb(decision, limits or LimitSettings(), random=jitter, fixed_max_output_tokens=fixed)
    attempts: list[Attempt] = []
    try:
        attempts.append(next(generator))
        for found in outcomes:
            attempts.append(  # noqa: PERF401 what came before the end is kept
                generator.send(outcome(found) if isinstance(found, str) else found)
            )
    except StopIteration as stop:
        return attempts, stop.value
    return attempts, None


def said(attempts: Sequence[Attempt]) -> list[str]:
    """A climb as a script: which tier, which try there, and what is told after a rejection."""
    return [
        f"{attempt.rung.tier} {attempt.number_on_rung}" + (f" ({attempt.feedback})" if attempt.feedback else "")
        for attempt in attempts
    ]
