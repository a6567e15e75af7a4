"""What the dashboard's API answers and takes, as types: the OpenAPI document and the page go by these.

Money is a decimal number of US dollars in a string, and its field ends in `_usd`; a moment is ISO 8601 in UTC; a share
or a rate lies between 0 and 1, and only what ends in `_percent` is a percentage. `null` means that nobody knows (no
price, nothing measured, nothing to divide by), never zero. A saving is signed: below zero is a loss.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from tierwise.core.money import nanousd_to_usd

__all__ = [
    "AcceptanceRow",
    "Attempt",
    "BudgetChange",
    "BudgetStanding",
    "Budgets",
    "Cache",
    "CacheRow",
    "Call",
    "CallPage",
    "CallSummary",
    "Choices",
    "Circuit",
    "Conversation",
    "ConversationNode",
    "Decision",
    "DecisionQuestion",
    "DecisionRung",
    "Error",
    "ErrorBody",
    "FeedbackAnswer",
    "FeedbackGiven",
    "FeedbackSays",
    "FeedbackSeen",
    "Headroom",
    "KeyChoice",
    "Left",
    "Limits",
    "LiveCalls",
    "LiveTotals",
    "Measure",
    "ModelChoice",
    "Overview",
    "Point",
    "PolicyChoice",
    "Quality",
    "Reason",
    "ReliabilityBin",
    "Replay",
    "ReplayAssumption",
    "ReplayPoint",
    "ReplayTier",
    "Rung",
    "Series",
    "SeriesBy",
    "SeriesLine",
    "Tag",
    "TaskType",
    "TaskTypeChoice",
    "TaskTypeDetail",
    "TaskTypes",
    "TierChoice",
    "TierShare",
    "Totals",
    "TypeGuess",
    "moment",
    "usd",
]


def _whole(value: object) -> object:
    """`2.0` is a whole number in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Usd: TypeAlias = Annotated[
    Decimal,
    PlainSerializer(lambda value: format(value, "f"), return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d+(\.\d+)?$", "examples": ["0.012345"]}),
]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Moment: TypeAlias = Annotated[datetime, Field(examples=["2026-11-28T06:00:00Z"])]
Tokens: TypeAlias = Annotated[int, Field(ge=0, le=100_000_000), BeforeValidator(_whole)]
Count: TypeAlias = Annotated[int, Field(ge=0)]

Measure: TypeAlias = Literal[
    "cost_usd",
    "saved_usd",
    "baseline_usd",
    "calls",
    "attempts",
    "tokens",
    "escalation_rate",
    "acceptance_rate",
    "cache_hit_share",
    "cache_saved_usd",
    "p50_latency_ms",
    "p95_latency_ms",
]
SeriesBy: TypeAlias = Literal["all", "tier", "model", "task_type", "project", "key"]


def usd(nanousd: int) -> Decimal:
    """Whole nano-dollars as dollars; `0`, not `0E-9`."""
    return nanousd_to_usd(nanousd)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS = -62_135_596_800_000  # the year 1 begins
_LAST_MS = 253_402_300_799_999  # the year 9999 ends


def moment(at_ms: int) -> datetime:
    """Unix milliseconds as a moment in UTC; the first or the last that there is for what lies beyond it."""
    return _EPOCH + timedelta(milliseconds=min(max(at_ms, _FIRST_MS), _LAST_MS))


class Model(BaseModel):
    """What all of them have in common: they are values, and say all that they have."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class ErrorBody(Model):
    """What went wrong, where, and what to do about it."""

    what: str
    where: str
    do: str


class Error(Model):
    """The answer where there is none."""

    error: ErrorBody


# ------------------------------------------------------------------ figures


class Totals(Model):
    """The figures of a period: one definition of each for the page, `tierwise report`, `/metrics` and exports."""

    calls: Count
    answered_calls: Count
    open_calls: Count
    unpriced_calls: Count = Field(description="A price is not known: in no saving, and never taken for zero.")
    attempts: Count
    failed_attempts: Count
    unpriced_attempts: Count
    estimated_attempts: Count = Field(description="Their tokens were not told but estimated.")
    cost_usd: Usd = Field(description="Everything spent, failed attempts and routing's own cost included.")
    open_cost_usd: Usd = Field(description="What attempts that have not ended may cost.")
    baseline_usd: Usd = Field(description="What the answered calls would have cost on the baseline model.")
    saved_usd: Usd = Field(description="Baseline minus spent, over calls where both are known. Below zero: a loss.")
    saved_percent: float | None
    escalation_rate: Share | None = Field(description="Of calls that were tried: those that climbed at least a rung.")
    acceptance_rate: Share | None = Field(description="Of attempts that brought a reply: those accepted.")
    p50_latency_ms: Count | None
    p95_latency_ms: Count | None
    input_tokens: Count
    output_tokens: Count
    cache_read_tokens: Count
    cache_write_tokens: Count
    cache_hit_share: Share | None = Field(description="Of all prompt tokens: those read from a cache.")
    cache_saved_usd: Usd | None = Field(description="What caches saved, less what writing to them cost beyond it.")


class Point(Model):
    """One interval of a sparkline."""

    at: Moment
    calls: Count
    cost_usd: Usd
    saved_usd: Usd
    saved_percent: float | None
    escalation_rate: Share | None
    p50_latency_ms: Count | None
    p95_latency_ms: Count | None


class Overview(Model):
    """The figures of a period, of the one before it, and how they went."""

    since: Moment = Field(description="As widened to whole hours; without a begin: when the first call was made.")
    until: Moment
    now: Totals
    before: Totals | None = Field(description="Of the period as long just before; null where the period has no begin.")
    interval_seconds: Annotated[int, Field(gt=0)]
    points: list[Point]
    last_call_at: Moment | None = Field(description="Of the whole ledger; null: it has no calls yet.")


class SeriesLine(Model):
    """One line (or layer) of a chart."""

    name: str = Field(description="A tier, model, task type, project or key; empty: calls without one.")
    level: int | None = Field(description="Of a tier, cheapest 0; null where it is none.")
    values: list[str | int | float | None] = Field(description="As many as `starts`; money in strings.")


class Series(Model):
    """A measure over time, a line for each value of what it is split by, largest first (tiers: cheapest first)."""

    measure: Measure
    unit: Literal["usd", "count", "share", "ms"]
    by: SeriesBy
    interval_seconds: Annotated[int, Field(gt=0)]
    starts: list[Moment]
    lines: list[SeriesLine]


# ------------------------------------------------------------------ task types


class TierShare(Model):
    """What one tier did."""

    tier: str
    level: int | None
    calls: Count
    attempts: Count
    accepted_attempts: Count
    rejected_attempts: Count
    acceptance_rate: Share | None
    cost_usd: Usd


class FeedbackSeen(Model):
    """How many calls have feedback."""

    good: Count
    bad: Count
    typed: Count = Field(description="Calls whose right task type was named.")


class TaskType(Model):
    """One task type in a period."""

    task_type: str
    family: str | None
    calls: Count
    unpriced_calls: Count = Field(description="A price is not known: in no saving, and never taken for zero.")
    share_of_calls: Share
    attempts: Count
    unpriced_attempts: Count = Field(description="What they cost is not in `cost_usd`.")
    cost_usd: Usd
    baseline_usd: Usd
    saved_usd: Usd
    saved_percent: float | None
    mean_confidence: Share | None
    escalation_rate: Share | None
    acceptance_rate: Share | None
    climbs: Count
    p50_latency_ms: Count | None
    p95_latency_ms: Count | None
    tiers: list[TierShare]
    feedback: FeedbackSeen


class TaskTypes(Model):
    """All task types of a period, dearest first."""

    items: list[TaskType]


class TaskTypeDetail(Model):
    """One task type: its history and examples of how it was decided."""

    summary: TaskType
    description: str | None
    cost: Series
    calls: Series
    examples: list[Call]


# ------------------------------------------------------------------ quality


class ReliabilityBin(Model):
    """Calls classified with about this confidence whose true type was told: how often was it right?"""

    from_confidence: Share
    to_confidence: Share
    calls: Count
    right: Count
    mean_confidence: Share | None
    right_rate: Share | None
    low: Share | None = Field(description="95 % interval of the rate (Wilson).")
    high: Share | None


class AcceptanceRow(Model):
    """How often a tier's replies were accepted, for one task type."""

    task_type: str
    tier: str
    level: int | None
    attempts: Count
    accepted: Count
    rate: Share | None
    low: Share | None = Field(description="95 % interval of the rate (Wilson).")
    high: Share | None


class Left(Model):
    """Attempts on a rung that was left, by why."""

    tier: str
    level: int | None
    outcome: str
    attempts: Count


class Quality(Model):
    """How good decisions and replies were."""

    feedback: FeedbackSeen
    calibration_error: Share | None = Field(description="Mean distance of confidence and frequency, by calls.")
    reliability: list[ReliabilityBin]
    acceptance: list[AcceptanceRow]
    left: list[Left]
    refusals: Count
    truncations: Count


# ------------------------------------------------------------------ calls


class CallSummary(Model):
    """A call in a list."""

    call_id: str
    started_at: Moment
    status: str
    task_type: str
    confidence: Share
    abstained: bool
    tier: str
    level: int | None
    planned_tier: str
    model: str
    project: str | None
    session: str | None
    key: str | None
    kind: str | None = Field(description="Of a call of the gateway: main, subagent, title, …")
    attempts: Count
    climbed: bool = Field(description="More than one model was tried.")
    cost_usd: Usd | None = Field(description="Of all its attempts; null where one of them is unpriced.")
    baseline_usd: Usd | None
    saved_usd: Usd | None = Field(description="What it adds to the saving of its period; null: in no comparison.")
    tokens_in: Count
    tokens_out: Count
    latency_ms: Count | None
    error: str | None
    feedback: Literal["good", "bad"] | None
    feedback_type: str | None = Field(description="What it really was, as somebody said.")


class CallPage(Model):
    """Calls, newest first."""

    items: list[CallSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` for those before; null: there are none.")
    searched_to: Moment | None = Field(
        description="Back to when this page has looked: a search may bring a short page, or an empty one, and go on."
    )


class Reason(Model):
    """One step of a decision, in plain words."""

    step: str
    text: str


class Tag(Model):
    """A tag of a call."""

    name: str
    value: str


class Attempt(Model):
    """One attempt of a call."""

    number: Count = Field(description="From 1; 0 asked a model what the task is.")
    tier: str
    level: int | None
    model: str
    provider: str
    started_at: Moment
    offset_ms: Count = Field(description="Since the call began: where it stands on the waterfall.")
    wait_ms: Count
    ttft_ms: Count | None
    latency_ms: Count | None
    outcome: str
    detail: str
    cost_usd: Usd | None
    estimated: bool
    input_tokens: Count
    output_tokens: Count
    cache_read_tokens: Count
    cache_write_5m_tokens: Count
    cache_write_1h_tokens: Count
    thinking_tokens: Count
    web_searches: Count
    request_id: str | None
    reported_model: str | None


class Rung(Model):
    """A rung of the decision, or one that was tried besides."""

    tier: str
    level: int | None
    model: str
    planned: bool = Field(description="Where the decision sent it first.")
    answered: bool
    attempts: Count
    cost_usd: Usd | None = Field(description="Really spent here; null: not tried, or no price known.")
    estimated_usd: Usd | None = Field(
        description="What the decision expected one attempt to cost here; null: it was no rung of it, or was not kept."
    )
    same_tokens_usd: Usd | None = Field(
        description="What the tokens of the last attempt would cost here, at the prices of its day."
    )


class FeedbackSays(Model):
    """What was said of a call."""

    at: Moment
    verdict: Literal["good", "bad"] | None
    task_type: str | None
    source: str


class Call(Model):
    """A call with all that is known of it. Never the text of a prompt, unless the user switched capture on."""

    summary: CallSummary
    family: str
    needs: str
    baseline_model: str
    reasons: list[Reason]
    tags: list[Tag]
    ladder: list[Rung]
    ladder_kept: bool = Field(
        description="Whether `ladder` is the decision's. An older call, or one that passed through, has none: then it "
        "is what was tried, and the tiers above."
    )
    attempts: list[Attempt]
    feedback: FeedbackSays | None
    captured_text: str | None


class ConversationNode(Model):
    """A call of a conversation, and what it set off."""

    call: CallSummary
    children: list[ConversationNode]


class Conversation(Model):
    """The calls of one session as a tree: subagents and side calls hang below the call that they ran beside."""

    session: str
    project: str | None
    started_at: Moment
    ended_at: Moment
    calls: Count
    unpriced_calls: Count = Field(description="A price is not known: in no saving, and never taken for zero.")
    attempts: Count
    unpriced_attempts: Count = Field(description="What they cost is not in `cost_usd`.")
    cost_usd: Usd
    baseline_usd: Usd
    saved_usd: Usd
    more: bool = Field(description="It is longer than is shown here.")
    nodes: list[ConversationNode]


# ------------------------------------------------------------------ limits, budgets, cache


class Headroom(Model):
    """What is left of one rate limit."""

    account: str
    family: str
    measure: Literal["requests", "input-tokens", "output-tokens"]
    limit_per_minute: Count
    left: Count
    left_share: Share
    full_in_seconds: Annotated[float, Field(ge=0)]
    closed_seconds: Annotated[float, Field(ge=0)] = Field(description="Above 0: the provider asked to be left alone.")


class Circuit(Model):
    """A model that is left alone after failures in a row."""

    model: str
    why: str


class Limits(Model):
    """What the gateway knows of its upstreams' limits now."""

    available: bool = Field(description="False where no gateway runs in this process.")
    note: str | None
    running: Count
    waiting: Count
    headroom: list[Headroom]
    circuits: list[Circuit]


class BudgetStanding(Model):
    """A budget, and how it stands."""

    budget_id: str
    scope: Literal["key", "project", "all"]
    subject: str
    period: Literal["day", "month", "total"]
    hard: bool
    limit_usd: Usd
    spent_usd: Usd
    reserved_usd: Usd
    left_usd: Usd
    used_share: Annotated[float, Field(ge=0)] = Field(description="Of the limit; above 1 where it is exceeded.")
    starts_at: Moment | None
    resets_at: Moment | None
    projected_usd: Usd | None = Field(description="At its end, at the pace so far; null where it has no end.")


class Budgets(Model):
    """All budgets."""

    items: list[BudgetStanding]
    month_spent_usd: Usd = Field(description="All calls, in this calendar month (UTC).")
    month_projected_usd: Usd | None
    month_attempts: Count
    month_unpriced_attempts: Count = Field(description="What they cost is not in `month_spent_usd`.")


class BudgetChange(Model):
    """A budget to set, or to remove."""

    scope: Literal["key", "project", "all"] = "all"
    subject: str = Field(default="", max_length=200)
    period: Literal["day", "month", "total"] = "month"
    limit_usd: Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,9})?$")] | None = Field(
        description="Null removes the budget."
    )
    hard: bool = True


class CacheRow(Model):
    """What prompt caches did on one model."""

    model: str
    input_tokens: Count
    cache_read_tokens: Count
    cache_write_5m_tokens: Count
    cache_write_1h_tokens: Count
    hit_share: Share | None
    saved_usd: Usd | None = Field(description="Null: no price known. Below zero: writing cost more than reading saved.")


class Cache(Model):
    """What prompt caches saved or cost."""

    hit_share: Share | None
    saved_usd: Usd | None = Field(description="What reads saved, less what writing cost beyond fresh input: signed.")
    models: list[CacheRow]
    hit_share_over_time: Series
    saved_over_time: Series


# ------------------------------------------------------------------ choices


class TierChoice(Model):
    """A tier."""

    name: str
    level: int | None
    configured: bool


class ModelChoice(Model):
    """A model, configured or seen."""

    name: str
    tier: str | None


class TaskTypeChoice(Model):
    """A task type, known or seen."""

    name: str
    family: str | None


class KeyChoice(Model):
    """A key of a client; never its secret."""

    key: str
    name: str


class PolicyChoice(Model):
    """A policy that can be replayed."""

    name: str
    title: str


class Choices(Model):
    """What the page's pickers offer, and what the ledger is."""

    version: str
    captures_text: bool
    first_call_at: Moment | None
    last_call_at: Moment | None
    ledger_bytes: Count
    baseline_model: str
    projects: list[str]
    sessions: list[str] = Field(description="Latest first, the newest hundred.")
    keys: list[KeyChoice]
    tiers: list[TierChoice]
    models: list[ModelChoice]
    task_types: list[TaskTypeChoice]
    statuses: list[str]
    outcomes: list[str]
    policies: list[PolicyChoice]


# ------------------------------------------------------------------ what if


class DecisionQuestion(Model):
    """A task to decide about. Its text is neither sent, nor logged, nor kept."""

    text: Annotated[str, Field(min_length=1, max_length=100_000)]
    tokens_in: Tokens | None = None
    tokens_out: Tokens | None = None
    max_latency_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None
    stakes: Literal["normal", "high", "critical"] = "normal"
    min_tier: Annotated[str, Field(max_length=200)] | None = None
    max_tier: Annotated[str, Field(max_length=200)] | None = None


class TypeGuess(Model):
    """What the text might be."""

    task_type: str
    confidence: Share


class DecisionRung(Model):
    """A model that would be tried."""

    tier: str
    level: int
    model: str
    estimated_usd: Usd
    estimated_seconds: Annotated[float, Field(ge=0)]


class Decision(Model):
    """Where the task would go, what else it might be, and why."""

    task_type: str
    family: str
    needs: str
    confidence: Share
    abstained: bool
    alternatives: list[TypeGuess]
    also: list[str] = Field(description="Further tasks asked for in the same text.")
    evidence: list[str]
    tier: str
    level: int
    model: str
    ladder: list[DecisionRung]
    baseline_model: str
    baseline_usd: Usd | None
    saved_usd: Usd | None = Field(description="If the first rung's reply is accepted.")
    reasons: list[Reason]
    blockers: list[Reason] = Field(description="Why it could not be run as asked; usually none.")


class ReplayTier(Model):
    """Where calls went under the policy."""

    tier: str
    level: int | None
    real_calls: Count
    replayed_calls: Count
    real_usd: Usd
    replayed_usd: Usd


class ReplayPoint(Model):
    """Real and replayed cost of one interval."""

    at: Moment
    real_usd: Usd
    replayed_usd: Usd


class ReplayAssumption(Model):
    """What the replayed cost rests on, beside the tokens that were told."""

    name: str
    text: str
    adds_usd: Usd


class Replay(Model):
    """What the ledger's own calls would have cost under another policy, or at another day's prices."""

    policy: str
    priced_on: str | None = Field(description="A day; null: each call at the prices of its own day.")
    since: Moment | None
    until: Moment | None
    sessions: Count
    calls: Count
    moved_calls: Count = Field(description="That go to another model than the one that answered.")
    below_calls: Count = Field(description="That go to a lower tier than their work demands.")
    unpriced_calls: Count
    real_usd: Usd
    replayed_usd: Usd
    low_usd: Usd
    high_usd: Usd
    saved_usd: Usd = Field(description="Real minus replayed. Below zero: the policy costs more.")
    saved_percent: float | None
    more: bool = Field(description="The period has more calls than are replayed here: the newest are taken.")
    interval_seconds: Annotated[int, Field(gt=0)]
    points: list[ReplayPoint]
    tiers: list[ReplayTier]
    assumptions: list[ReplayAssumption]


# ------------------------------------------------------------------ feedback, live


class FeedbackGiven(Model):
    """What a call was: good or bad, or what it really was. Both null takes back what was said."""

    call_id: Annotated[str, Field(min_length=1, max_length=64)]
    verdict: Literal["good", "bad"] | None = None
    task_type: Annotated[str, Field(max_length=200)] | None = None


class FeedbackAnswer(Model):
    """Whether it was noted."""

    noted: bool


class LiveCalls(Model):
    """Event `calls`: calls that are new, or that changed since they were last told; oldest first."""

    items: list[CallSummary]


class LiveTotals(Model):
    """Event `totals`: the figures since midnight UTC."""

    since: Moment
    now: Totals
