"""What people say of a call afterwards: was it good, and what it really was."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from tierwise.ledger.filter import Filter, condition

__all__ = [
    "FEEDBACK_COLUMNS",
    "Feedback",
    "FeedbackCounts",
    "Judged",
    "Judgement",
    "feedback_from_row",
    "feedback_row",
    "read_judgements",
]

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


class Judged(NamedTuple):
    """A call with feedback: what the classifier took it for, and what was said of it."""

    task_type: str
    confidence: float
    verdict: str | None
    right_type: str | None


def read_judgements(connection: sqlite3.Connection, where: Filter) -> list[Judged]:
    """What was said of the calls of the filter."""
    chosen, values = condition(where)
    rows = connection.execute(
        "SELECT task_type, confidence, verdict, right_type FROM "  # noqa: S608 column names only
        "(SELECT call_id, verdict, task_type AS right_type FROM feedback) CROSS JOIN calls USING (call_id) "
        f"WHERE {chosen} ORDER BY call_id",
        values,
    )
    return [Judged(*row) for row in rows]


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
