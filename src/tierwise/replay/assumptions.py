"""What a replay assumes where no record tells, as values; the shipped ones stand in `data/replay.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files

from tierwise.core.tasks import TaskType
from tierwise.replay.values import Scenario

__all__ = ["Assumptions", "Escalation", "Range", "shipped_assumptions"]


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known: favourable to the policy, expected, unfavourable."""

    low: float
    expected: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.expected <= self.high < float("inf"):
            raise ValueError(f"a range must rise from 0 or more, not {self}")

    def at(self, scenario: Scenario) -> float:
        """The number in that scenario."""
        return (self.low, self.expected, self.high)[_PLACE[scenario]]

    def times(self, factor: float) -> Range:
        """All three, multiplied."""
        return Range(self.low * factor, self.expected * factor, self.high * factor)


_PLACE = {scenario: place for place, scenario in enumerate(Scenario)}
_NEVER = Range(0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """How likely an answer of a lower tier than the one really used is rejected, and asked for again."""

    by_level: tuple[Range, Range, Range, Range]  # by how strict the work is: `TaskType.level`
    by_type: Mapping[str, Range] = field(default_factory=dict)  # learned
    in_tool_loop: float = 1.0  # this part of it in the middle of a turn
    weight: float = 50.0  # answers that the prior counts as

    def of(self, task_type: TaskType, *, in_tool_loop: bool = False) -> Range:
        """The probability for one answer."""
        found = self.by_type.get(task_type.name) or self.by_level[task_type.level]
        return found.times(self.in_tool_loop) if in_tool_loop else found

    def learned(self, counts: Mapping[TaskType, tuple[int, int]]) -> Escalation:
        """With (answers, rejected) of a ledger by task type, where there are as many as the prior counts as.

        What is expected is the mean of both; the range is Wilson's interval of 95 % for as many answers.
        """
        found = dict(self.by_type)
        for task_type, (answers, rejected) in counts.items():
            if not 0 <= rejected <= answers:
                raise ValueError(f"{task_type.name}: {rejected} of {answers} answers cannot have been rejected")
            if answers >= self.weight:
                prior = self.by_level[task_type.level].expected
                found[task_type.name] = _wilson(rejected + prior * self.weight, answers + self.weight)
        return replace(self, by_type=found)

    @classmethod
    def never(cls) -> Escalation:
        """Every answer is accepted."""
        return cls(by_level=(_NEVER, _NEVER, _NEVER, _NEVER))


def _wilson(hits: float, of: float) -> Range:
    z = 1.959964
    mean = hits / of
    middle, spread = mean + z * z / (2 * of), z * (mean * (1 - mean) / of + z * z / (4 * of * of)) ** 0.5
    scale = 1 + z * z / of
    return Range(max(0.0, (middle - spread) / scale), mean, min(1.0, (middle + spread) / scale))


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is assumed where no record tells; the shipped ones stand in `data/replay.toml`."""

    escalation: Escalation
    output_length: Range  # tokens that another model needs, for each of the real one's
    tokenizer_spread: Range  # what the factor between two tokenizers is to be multiplied by
    thinking_spared: float  # by lower effort
    over_band: float  # "just over" a price band: by at most this part of its limit
    summary_tokens: int  # that a compaction writes
    beginning_tokens: int  # sent anew after it
    least_cached: int
    least_cached_by_model: Mapping[str, int] = field(default_factory=dict)

    def least_cached_on(self, model_id: str) -> int:
        """The shortest prompt that this model's cache takes."""
        return self.least_cached_by_model.get(model_id, self.least_cached)


@cache
def shipped_assumptions() -> Assumptions:
    """Those that stand in `data/replay.toml`."""
    data = tomllib.loads((files("tierwise") / "data" / "replay.toml").read_text("utf-8"))
    escalation, levers, cached = data["escalation"], data["levers"], data["cache"]
    levels = [Range(*level) for level in escalation["levels"]]
    return Assumptions(
        escalation=Escalation(
            by_level=(levels[0], levels[1], levels[2], levels[3]),
            in_tool_loop=escalation["in_tool_loop"],
            weight=escalation["weight"],
        ),
        output_length=Range(*data["output_length"]["factor"]),
        tokenizer_spread=Range(*data["tokenizer"]["spread"]),
        thinking_spared=levers["thinking_spared"],
        over_band=levers["over_band"],
        summary_tokens=levers["summary_tokens"],
        beginning_tokens=levers["beginning_tokens"],
        least_cached=cached["least_tokens"],
        least_cached_by_model=cached["least_tokens_by_model"],
    )
