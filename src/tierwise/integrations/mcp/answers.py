"""What the tools of the MCP server answer, as types: their output schemas are made of these.

Short, since a model reads them. Money is a decimal number of US dollars in a string, as in the dashboard's API; null
means that nobody knows, never zero.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

__all__ = [
    "Alternative",
    "Answer",
    "Call",
    "Calls",
    "FeedbackCounts",
    "NamedRow",
    "Noted",
    "Report",
    "ReportBy",
    "ReportRow",
    "Route",
    "Rung",
    "Section",
    "Verdict",
]

ReportBy: TypeAlias = Literal["task_type", "tier", "model", "day", "project"]
Verdict: TypeAlias = Literal["good", "bad"]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Usd: TypeAlias = Annotated[
    Decimal,
    PlainSerializer(lambda value: format(value, "f"), return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}),
]


class Answer(BaseModel):
    """What all of them have in common: they are values."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Alternative(Answer):
    """What the text might also be."""

    task_type: str
    confidence: Share


class Rung(Answer):
    """A model that would be tried, in this order."""

    tier: str
    model: str
    estimated_usd: Usd
    estimated_seconds: float


class Route(Answer):
    """Where a task belongs, and why."""

    tier: str
    model: str
    claude_alias: str | None = Field(
        description="What Claude Code calls the first Claude model of the ladder; null: there is none."
    )
    task_type: str
    confidence: Share
    abstained: bool = Field(description="The text is too unclear to rely on task_type; the tier allows for that.")
    needs: str = Field(description="processing, judgment or critical")
    reasons: list[str]
    alternatives: list[Alternative]
    ladder: list[Rung]
    baseline_model: str
    baseline_usd: Usd | None
    blockers: list[str] = Field(description="Why it could not be run as asked; usually none.")


class ReportRow(Answer):
    """What was spent and saved. Saved is baseline minus spent, where both are known; below zero it is a loss."""

    calls: Count
    answered_calls: Count
    open_calls: Count
    unpriced_calls: Count = Field(description="A price is not known: in no saving, and never taken for zero.")
    attempts: Count
    failed_attempts: Count
    unpriced_attempts: Count
    cost_usd: Usd = Field(description="Everything spent whose price is known, failed attempts included.")
    open_cost_usd: Usd = Field(description="What attempts that have not ended may cost.")
    baseline_cost_usd: Usd
    saved_usd: Usd
    saved_percent: float | None


class NamedRow(ReportRow):
    """Of one tier, task type, model, day (UTC) or project."""

    name: str = Field(description="Empty: calls without one.")


class Section(Answer):
    """Rows, dearest first; days in order."""

    by: ReportBy
    rows: list[NamedRow]
    left_out: Count = Field(description="Rows beyond those: the cheapest, or the oldest days. `total` has them.")


class FeedbackCounts(Answer):
    """How many calls have feedback."""

    good: Count
    bad: Count
    typed: Count = Field(description="Calls whose right task type was named.")


class Report(Answer):
    """What was spent and saved in a period, as `tierwise report` says it."""

    since: str | None
    until: str | None
    project: str | None
    total: ReportRow
    feedback: FeedbackCounts
    sections: list[Section]


class Call(Answer):
    """A call in the ledger. It holds no text of a prompt or a reply."""

    call_id: str
    at: datetime
    status: str
    task_type: str
    tier: str
    model: str
    project: str | None
    session: str | None
    cost_usd: Usd | None = Field(description="Null: a price is not known.")
    attempts: Count
    feedback: Verdict | None
    feedback_task_type: str | None


class Calls(Answer):
    """The latest calls, newest first."""

    calls: list[Call]


class Noted(Answer):
    """What is now on record of a call."""

    call_id: str
    verdict: Verdict | None
    task_type: str | None
    tier_of_type: str | None = Field(description="Where work of that task type goes by itself; null: none was named.")
    override: str | None = Field(
        description="What sends all work of the call's type to `better_tier`, for tierwise.toml; it was not written."
    )
