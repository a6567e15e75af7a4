"""What the dashboard's API can be asked, as types: what stands in a path, a query or a body, checked once.

A field whose name stands in the path is found there; of a GET all others are query parameters, of a POST they are the
body, in JSON. What is not known is an error: a filter that is misspelt must not show everything.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeAlias

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from tierwise.core.decisions import CallStatus
from tierwise.dashboard.models import Measure, SeriesBy

__all__ = [
    "AboutCall",
    "AboutConversation",
    "AboutTaskType",
    "Calls",
    "Chosen",
    "Nothing",
    "ReplayOf",
    "Scoped",
    "SeriesOf",
    "milliseconds",
]


def _moment(value: object) -> object:
    """A day is its midnight in UTC. A bare number is no moment, though pydantic would take it for one."""
    if isinstance(value, str):
        if len(value) == 10:
            try:
                return datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
            except ValueError:
                raise ValueError("is no day that there is") from None
        if "-" in value[1:]:
            return value
    elif isinstance(value, datetime):
        return value
    raise ValueError("must be a day (2026-11-28) or a moment with a zone (2026-11-28T06:00:00Z)")


def _day(value: object) -> object:
    if isinstance(value, str) and len(value) != 10:
        raise ValueError("must be a day, such as 2026-11-28")
    return value


def _amount(value: object) -> object:
    if isinstance(value, str):
        try:
            found = Decimal(value)
        except InvalidOperation:
            raise ValueError("must be an amount in US$, such as 0.05") from None
        if found.is_finite():
            return found
    raise ValueError("must be an amount in US$, such as 0.05")


When: TypeAlias = Annotated[
    AwareDatetime,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "type": "string",
            "anyOf": [{"format": "date-time"}, {"format": "date"}],
            "examples": ["2026-11-28", "2026-11-28T06:00:00Z"],
        }
    ),
]
Day: TypeAlias = Annotated[date, BeforeValidator(_day)]
Name: TypeAlias = Annotated[str, Field(max_length=200)]
Money: TypeAlias = Annotated[
    Decimal,
    BeforeValidator(_amount),
    Field(ge=0, le=1_000_000),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,6}(\.[0-9]{1,9})?$", "examples": ["0.05"]}),
]
CallId: TypeAlias = Annotated[str, Field(min_length=1, max_length=63)]


def milliseconds(moment: datetime | None) -> int | None:
    """Unix milliseconds."""
    if moment is None:
        return None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


class Question(BaseModel):
    """What all of them have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(Question):
    """Nothing can be said beside the path."""


class Chosen(Question):
    """Which calls, whenever they are made. All that is given must hold."""

    project: Name | None = Field(default=None, description="Empty: calls without a project.")
    session: Name | None = None
    key: Name | None = Field(default=None, description="The id of a client's key. Empty: calls without a key.")
    model: Name | None = None
    tier: Name | None = None
    task_type: Name | None = None


class Scoped(Chosen):
    """Which calls, and of when."""

    since: When | None = Field(default=None, description="From then on.")
    until: When | None = Field(default=None, description="Before then; now, if it is left out.")

    @model_validator(mode="after")
    def _ordered(self) -> Scoped:
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError("until is before since; swap them")
        return self


class SeriesOf(Scoped):
    """A measure over time."""

    measure: Measure = "cost_usd"
    by: SeriesBy = "tier"
    points: Annotated[int, Field(ge=1, le=400)] = Field(
        default=60, description="About how many intervals; they are rounded to such that people use."
    )


class AboutTaskType(Scoped):
    """One task type."""

    name: Name


class Calls(Scoped):
    """Calls, newest first."""

    status: CallStatus | None = None
    climbed: bool | None = Field(default=None, description="Whether more than one model was tried.")
    min_cost_usd: Money | None = None
    max_cost_usd: Money | None = None
    text: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="In its id, project, session, model, task type or error. Prompts are not searched."
    )
    cursor: Annotated[str, Field(max_length=200)] | None = Field(default=None, description="`next_cursor` before.")
    limit: Annotated[int, Field(ge=1, le=500)] = 50


class AboutCall(Question):
    """One call."""

    id: CallId


class AboutConversation(Question):
    """One session."""

    session: Annotated[str, Field(min_length=1, max_length=200)]


class ReplayOf(Scoped):
    """The calls of a period under another policy."""

    policy: Name = Field(default="routed", description="One of `choices.policies`.")
    priced_on: Day | None = Field(default=None, description="At the prices of that day; else of each call's own.")
    points: Annotated[int, Field(ge=1, le=400)] = 60
