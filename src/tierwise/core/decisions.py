"""What was decided, tried and found: the values that flow from the policy through the climb into the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TypedDict

from tierwise.core.catalog import Model, Tier
from tierwise.core.money import Price, Usage, usd_to_nanousd
from tierwise.core.tasks import Classification

__all__ = [
    "Attempt",
    "AttemptRecord",
    "CallRecord",
    "CallStatus",
    "Decision",
    "Outcome",
    "OutcomeKind",
    "PlannedRung",
    "Reason",
    "RecordedKind",
    "Rung",
    "recorded_kind",
]


@dataclass(frozen=True, slots=True)
class Reason:
    """One step of a decision, in plain words. `step` is a stable short name for programs."""

    step: str
    text: str


@dataclass(frozen=True, slots=True)
class Rung:
    """A model that may be tried, and what one attempt on it is expected to cost and take."""

    tier: Tier
    model: Model
    price: Price
    estimated_usage: Usage
    estimated_cost_usd: Decimal
    estimated_seconds: float
    retries: int  # how often a rejected reply is tried again here


@dataclass(frozen=True, slots=True)
class PlannedRung:
    """What is kept of a rung: where it leads, and what one attempt there was expected to cost when it was decided."""

    tier: str
    model: str
    estimated_nanousd: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a task goes: the ladder of models to try in order, with costs, and every reason.

    `ladder` is never empty. `baseline_cost_usd` is what one attempt on the baseline model would cost; it is None
    when no price is known for the baseline. `blockers`, when there are any, say why it cannot be run as asked
    (a cost ceiling, say): the decision still tells where the task belongs.
    """

    classification: Classification
    ladder: tuple[Rung, ...]
    reasons: tuple[Reason, ...]
    baseline_model: Model
    baseline_cost_usd: Decimal | None
    baseline_usage: Usage
    max_cost_usd: Decimal | None = None
    deadline_seconds: float | None = None
    blockers: tuple[Reason, ...] = ()

    @property
    def first(self) -> Rung:
        """The rung that is tried first."""
        return self.ladder[0]

    @property
    def tier(self) -> Tier:
        """The tier that is tried first."""
        return self.ladder[0].tier

    @property
    def model(self) -> Model:
        """The model that is tried first."""
        return self.ladder[0].model

    @property
    def estimated_cost_usd(self) -> Decimal:
        """What the first attempt is expected to cost."""
        return self.ladder[0].estimated_cost_usd

    @property
    def planned(self) -> tuple[PlannedRung, ...]:
        """The ladder as it is kept with the call."""
        return tuple(
            PlannedRung(rung.tier.name, rung.model.id, usd_to_nanousd(rung.estimated_cost_usd)) for rung in self.ladder
        )


class OutcomeKind(StrEnum):
    """What became of one attempt. Stored in the ledger under these names."""

    OPEN = "open"  # sent, nothing known yet; what a killed process leaves behind
    ACCEPTED = "accepted"
    REJECTED = "rejected"  # a reply came and a check refused it
    REFUSED = "refused"  # the model declined (stop_reason refusal)
    TRUNCATED = "truncated"  # cut off at max_tokens
    RATE_LIMITED = "rate_limited"  # 429
    OVERLOADED = "overloaded"  # 529, 503
    SERVER_ERROR = "server_error"  # other 5xx, or an answer that is not the protocol
    TIMEOUT = "timeout"
    CONNECTION = "connection"  # refused, reset, cut stream
    UNAVAILABLE = "unavailable"  # model not there (404, not loaded, not installed, circuit open)
    TOO_LARGE = "too_large"  # does not fit this model's context
    INVALID_REQUEST = "invalid_request"  # a 400: the request itself is at fault
    UNAUTHORIZED = "unauthorized"  # 401, 403
    CANCELLED = "cancelled"  # the caller gave up
    NOT_RUN = "not_run"  # nothing was sent

    @property
    def is_transient(self) -> bool:
        """Whether the same rung is worth another try after a wait."""
        return self in _TRANSIENT

    @property
    def is_fatal(self) -> bool:
        """Whether trying again, anywhere, would not help."""
        return self in _FATAL

    @property
    def is_rejection(self) -> bool:
        """Whether a reply came and is not good enough."""
        return self in _REJECTION


_TRANSIENT = frozenset(
    {
        OutcomeKind.RATE_LIMITED,
        OutcomeKind.OVERLOADED,
        OutcomeKind.SERVER_ERROR,
        OutcomeKind.TIMEOUT,
        OutcomeKind.CONNECTION,
    }
)
_FATAL = frozenset({OutcomeKind.INVALID_REQUEST, OutcomeKind.UNAUTHORIZED, OutcomeKind.CANCELLED})
_REJECTION = frozenset({OutcomeKind.REJECTED, OutcomeKind.REFUSED, OutcomeKind.TRUNCATED})


@dataclass(frozen=True, slots=True)
class Attempt:
    """What to do next: call `rung` after waiting `wait_seconds`.

    `number` counts all attempts of the call from 1, `number_on_rung` those on this rung. `feedback` says what was
    wrong with the rejected reply before; it is None on a first try and on a new rung.
    """

    rung: Rung
    rung_index: int
    number: int
    number_on_rung: int
    wait_seconds: float = 0.0
    feedback: str | None = None
    max_output_tokens: int | None = None
    why: str = ""  # why this attempt is made, in plain words


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt found. `cost_usd` counts whatever it used, also when it failed; None: no price known.

    `detail` may be recorded, so it holds nothing of prompt or reply; `feedback` is what a model is told instead,
    where that says more.
    """

    kind: OutcomeKind
    detail: str = ""
    cost_usd: Decimal | None = Decimal(0)
    elapsed_seconds: float = 0.0  # since the call began, so that the climb needs no clock
    retry_after_seconds: float | None = None
    feedback: str | None = None


class CallStatus(StrEnum):
    """How a call ended. Stored in the ledger under these names."""

    OPEN = "open"  # running, or left behind by a killed process
    ANSWERED = "answered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_RUN = "not_run"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One row of the ledger's `attempts`. Costs are whole nano-dollars; None means unpriced."""

    call_id: str
    number: int
    tier: str
    model: str
    provider: str
    started_at_ms: int  # Unix time, UTC
    outcome: OutcomeKind
    detail: str = ""  # why it failed or climbed, in plain words; no prompt or reply text
    usage: Usage = Usage()
    price: Price | None = None
    cost_nanousd: int | None = 0
    latency_ms: int | None = None
    ttft_ms: int | None = None  # time to first token
    wait_ms: int = 0
    request_id: str | None = None  # the provider's
    reported_model: str | None = None  # what the provider says answered

    def ended(
        self,
        outcome: OutcomeKind,
        *,
        usage: Usage,
        price: Price | None,
        cost_nanousd: int | None,
        latency_ms: int,
        detail: str = "",
        ttft_ms: int | None = None,
        request_id: str | None = None,
        reported_model: str | None = None,
    ) -> AttemptRecord:
        """The attempt with what became of it.

        Written out field by field: `replace` takes three times as long, on the hot path.
        """
        return AttemptRecord(
            call_id=self.call_id,
            number=self.number,
            tier=self.tier,
            model=self.model,
            provider=self.provider,
            started_at_ms=self.started_at_ms,
            outcome=outcome,
            detail=detail or self.detail,
            usage=usage,
            price=price,
            cost_nanousd=cost_nanousd,
            latency_ms=latency_ms,
            ttft_ms=ttft_ms,
            wait_ms=self.wait_ms,
            request_id=request_id,
            reported_model=reported_model,
        )


class RecordedKind(TypedDict):
    """The fields of a `CallRecord` that say what was asked for."""

    task_type: str
    family: str
    needs: str
    confidence: float
    abstained: bool


def recorded_kind(classification: Classification | None) -> RecordedKind:
    """What a call's record says of its kind; None: nobody could look at the text, which is an abstention."""
    if classification is None:
        return RecordedKind(task_type="unknown", family="unknown", needs="unknown", confidence=0.0, abstained=True)
    return RecordedKind(
        task_type=classification.task_type.name,
        family=classification.family,
        needs=classification.needs.value,
        confidence=classification.confidence,
        abstained=classification.abstained,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One row of the ledger's `calls`."""

    call_id: str
    started_at_ms: int  # Unix time, UTC
    status: CallStatus
    task_type: str
    family: str
    needs: str
    confidence: float
    abstained: bool
    tier: str  # the tier that answered, or the first one planned
    model: str
    planned_tier: str  # where the decision sent it first
    baseline_model: str
    baseline_nanousd: int | None  # what the baseline model would have cost for the tokens really used
    latency_ms: int | None = None
    session: str | None = None
    project: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    reasons: tuple[Reason, ...] = ()
    error: str | None = None
    key_id: str | None = None  # the key that a client of the gateway came with
    ladder: tuple[PlannedRung, ...] | None = None  # as decided; None: nothing was, or it was not kept
    captured_text: str | None = None  # what the classifier saw; only where the user chose to keep it. Write-only
    batch_id: str | None = None  # the batch that it is a request of: it ends when its result is read, by whomever
    custom_id: str | None = None  # its name there

    def ended(
        self,
        status: CallStatus,
        *,
        tier: str,
        model: str,
        baseline_nanousd: int | None,
        latency_ms: int,
        error: str | None = None,
    ) -> CallRecord:
        """The call with how it ended; field by field, as `AttemptRecord.ended`."""
        return CallRecord(
            call_id=self.call_id,
            started_at_ms=self.started_at_ms,
            status=status,
            task_type=self.task_type,
            family=self.family,
            needs=self.needs,
            confidence=self.confidence,
            abstained=self.abstained,
            tier=tier,
            model=model,
            planned_tier=self.planned_tier,
            baseline_model=self.baseline_model,
            baseline_nanousd=baseline_nanousd,
            latency_ms=latency_ms,
            session=self.session,
            project=self.project,
            tags=self.tags,
            reasons=self.reasons,
            error=error,
            key_id=self.key_id,
            ladder=self.ladder,
            captured_text=self.captured_text,
            batch_id=self.batch_id,
            custom_id=self.custom_id,
        )
