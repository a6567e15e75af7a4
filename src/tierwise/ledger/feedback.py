"""What people say of a call afterwards: was it good, and what it really was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["FEEDBACK_COLUMNS", "Feedback", "FeedbackCounts", "Judgement", "feedback_from_row", "feedback_row"]

FEEDBACK_COLUMNS = ("call_id", "at_ms", "verdict", "task_type", "source")


class Judgement(StrEnum):
    """Whether a call was good. Stored in the ledger under these names."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One row of the ledger's `feedback`: the last thing that was said of a call."""

    call_id: str
    at_ms: int  # Unix time, UTC
    verdict: Judgement | None = None
    task_type: str | None = None  # what the call really was
    source: str = "cli"  # who said it: the way it came in


@dataclass(frozen=True, slots=True)
class FeedbackCounts:
    """How many calls have feedback: good, bad, and with the right task type named."""

    good: int = 0
    bad: int = 0
    typed: int = 0


def feedback_row(feedback: Feedback) -> tuple[str | int | None, ...]:
    """In the order of `FEEDBACK_COLUMNS`."""
    verdict = feedback.verdict
    return (
        feedback.call_id,
        feedback.at_ms,
        None if verdict is None else verdict.value,
        feedback.task_type,
        feedback.source,
    )


def feedback_from_row(row: Sequence[Any]) -> Feedback:
    """What `feedback_row` wrote. Raises `ValueError` for a verdict that is none."""
    call_id, at_ms, verdict, task_type, source = row
    return Feedback(
        call_id=call_id,
        at_ms=at_ms,
        verdict=None if verdict is None else Judgement(verdict),
        task_type=task_type,
        source=source,
    )
