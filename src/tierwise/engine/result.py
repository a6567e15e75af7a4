"""What a finished call gives back."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tierwise.core.catalog import Tier
from tierwise.core.decisions import AttemptRecord, Decision
from tierwise.core.json import Json
from tierwise.core.money import Usage, format_usd, nanousd_to_usd

__all__ = ["Result", "spent_usd"]


def spent_usd(attempts: tuple[AttemptRecord, ...]) -> Decimal | None:
    """Everything that the attempts cost, failed ones included; None when any of them is unpriced."""
    total = 0
    for attempt in attempts:
        if attempt.cost_nanousd is None:
            return None
        total += attempt.cost_nanousd
    return nanousd_to_usd(total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An accepted answer, and what it took.

    `cost_usd` is everything spent on the call, failed and rejected attempts included. `baseline_cost_usd` is what
    the baseline model would have cost for the tokens of the accepted reply. `value` is the parsed JSON where a
    schema was asked for. `notes` say how the request was adapted to the model that answered. `recorded` is False
    where the ledger could not be written and the record waits in its spool.
    """

    text: str
    value: Json
    tier: Tier
    model: str
    call_id: str
    decision: Decision
    attempts: tuple[AttemptRecord, ...]
    usage: Usage
    cost_usd: Decimal | None
    baseline_cost_usd: Decimal | None
    latency_ms: int
    stop_reason: str | None
    message: dict[str, Json]
    notes: tuple[str, ...] = ()
    recorded: bool = True

    @property
    def saved_usd(self) -> Decimal | None:
        """Baseline less everything spent; negative where routing cost more. None when either is unpriced."""
        if self.cost_usd is None or self.baseline_cost_usd is None:
            return None
        return self.baseline_cost_usd - self.cost_usd

    def receipt(self) -> str:
        """One line for people: type, tier, model, tokens, cost, saving, attempts, call."""
        usage = self.usage
        parts = [
            f"{self.decision.classification.task_type.name} → {self.tier} ({self.model})",
            f"{usage.prompt_tokens:,} in / {usage.output_tokens:,} out",
            format_usd(self.cost_usd),
        ]
        if self.baseline_cost_usd is not None:
            parts.append(f"{self.decision.baseline_model.id} {format_usd(self.baseline_cost_usd)}")
        if len(self.attempts) > 1:
            parts.append(f"{len(self.attempts)} attempts")
        parts += [f"{self.latency_ms / 1000:.1f} s", f"call {self.call_id}"]
        return " · ".join(parts)
