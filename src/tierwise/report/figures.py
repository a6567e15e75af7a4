"""Every figure that is shown anywhere, defined once; the page, `tierwise report` and the API read them here.

`Measures` are the figures of a group of calls; `Figures` reads them from a ledger for a `Scope`, by roll-ups, so that
a year of millions of calls is answered at once. What is defined by a rule is written down where it is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tierwise.core.decisions import CallStatus
from tierwise.ledger import FeedbackCounts, Ledger, StoredCall, Totals

__all__ = [
    "Acceptance",
    "By",
    "Cache",
    "CacheLine",
    "CallPage",
    "CallSummary",
    "Choices",
    "Conversation",
    "Figures",
    "KeyChoice",
    "Left",
    "Line",
    "Measure",
    "Measures",
    "Overview",
    "Point",
    "Quality",
    "Reliability",
    "Scope",
    "Series",
    "TaskTypeDetail",
    "TaskTypeFigures",
    "Thread",
    "TierFigures",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which calls: all conditions given must hold. Unix milliseconds; `until_ms` is exclusive.

    Times are widened to whole hours (of long ago: whole UTC days), which answers say. `status` narrows `calls` alone.
    `tier` and `model` filter attempts and their costs by their own, calls and their baseline by the call's.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    project: str | None = None  # "": calls without one
    session: str | None = None
    key: str | None = None  # the id of a gateway's key; "": calls without one
    model: str | None = None
    tier: str | None = None
    task_type: str | None = None
    status: CallStatus | None = None


class Measure(StrEnum):
    """What a series shows."""

    CALLS = "calls"
    ATTEMPTS = "attempts"
    TOKENS = "tokens"
    SPENT = "spent"  # US$
    BASELINE = "baseline"  # US$
    SAVED = "saved"  # US$, signed
    CACHE_SAVED = "cache_saved"  # US$, signed
    ESCALATION_RATE = "escalation_rate"
    ACCEPTANCE_RATE = "acceptance_rate"
    CACHE_HIT_SHARE = "cache_hit_share"
    P50_LATENCY_MS = "p50_latency_ms"
    P95_LATENCY_MS = "p95_latency_ms"


class By(StrEnum):
    """What a series has one line for each of."""

    TOTAL = "total"
    TIER = "tier"
    MODEL = "model"
    TASK_TYPE = "task_type"
    PROJECT = "project"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Measures:
    """The figures of a group of calls. A rate or a percentile is None where there is nothing to tell it from."""

    totals: Totals
    latencies: Mapping[int, int]  # calls by latency bucket; see `tierwise.ledger.counts`
    failures: Mapping[str, int]  # attempts by outcome, accepted ones and those without an end left out

    # Properties, all of them: spent_usd, open_usd, baseline_usd, saved_usd (signed), saved_percent, calls,
    # escalation_rate, acceptance_rate, mean_latency_ms, p50_latency_ms, p95_latency_ms, cache_hit_share,
    # cache_saved_usd (signed), prompt_tokens, tokens, mean_confidence.


@dataclass(frozen=True, slots=True)
class Point:
    """A stretch of time and its figures."""

    start_ms: int
    measures: Measures


@dataclass(frozen=True, slots=True)
class Overview:
    """Figures of a time, of the time as long before it, and along it."""

    since_ms: int  # as widened; of an open scope: where its calls begin and end
    until_ms: int
    measures: Measures
    before: Measures | None  # None where the scope has no beginning
    step_ms: int
    points: tuple[Point, ...]


Value = int | Decimal | None


@dataclass(frozen=True, slots=True)
class Line:
    """One of a series' lines. `name` is empty for calls without a project or key, and for the total."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A measure over time. All lines have a value for each of `starts_ms`; a stretch is `step_ms` long."""

    measure: Measure
    by: By
    since_ms: int
    until_ms: int
    step_ms: int
    starts_ms: tuple[int, ...]
    lines: tuple[Line, ...]  # largest first


@dataclass(frozen=True, slots=True)
class TierFigures:
    """A tier's part in a group of calls."""

    tier: str
    measures: Measures


@dataclass(frozen=True, slots=True)
class TaskTypeFigures:
    """A task type's figures, and what each tier has in them."""

    task_type: str
    measures: Measures
    tiers: tuple[TierFigures, ...]  # by name
    feedback: FeedbackCounts


@dataclass(frozen=True, slots=True)
class CallSummary:
    """A call in a list, with what its attempts come to."""

    call_id: str
    started_at_ms: int
    status: CallStatus
    task_type: str
    confidence: float
    abstained: bool
    tier: str
    model: str
    planned_tier: str
    project: str | None
    session: str | None
    key_id: str | None
    kind: str | None  # main, subagent, title, …: `tierwise.core.calls.CallKind`
    latency_ms: int | None
    attempts: int
    models: int  # that were tried: more than one is an escalation
    cost_nanousd: int | None  # None: an attempt is unpriced
    baseline_nanousd: int | None
    tokens_in: int
    tokens_out: int
    error: str | None
    feedback: str | None  # good, bad
    feedback_type: str | None


@dataclass(frozen=True, slots=True)
class CallPage:
    """Calls, the latest first. A search looks at so many calls a page at most, so a page may be short or empty."""

    calls: tuple[CallSummary, ...]
    cursor: str | None  # hand it in for what follows; None: there is no more
    searched_to_ms: int | None  # back to when this page has looked


@dataclass(frozen=True, slots=True)
class TaskTypeDetail:
    """One task type: its figures, its history by tier, and its latest calls (whose reasons `call` tells)."""

    figures: TaskTypeFigures
    spent: Series
    calls: Series
    examples: tuple[CallSummary, ...]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Calls with feedback that names the right type, of a band of confidence (0 to 1)."""

    low: float
    high: float
    judged: int
    right: int
    mean_confidence: float


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How often a tier's replies to a task type stood. Bounds are Wilson's, 95 %."""

    task_type: str
    tier: str
    accepted: int
    rejected: int  # refused and cut off ones among them
    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Left:
    """Why attempts at a tier came to nothing: an outcome, and how often."""

    tier: str
    outcome: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How good routing is, as far as anybody can tell."""

    measures: Measures
    reliability: tuple[Reliability, ...]
    acceptance: tuple[Acceptance, ...]
    left: tuple[Left, ...]  # most often first
    refusals: int
    truncations: int
    feedback: FeedbackCounts


@dataclass(frozen=True, slots=True)
class Thread:
    """Calls of one kind in a conversation, in order: the main loop, its subagents, side calls."""

    kind: str
    calls: tuple[CallSummary, ...]
    measures: Measures


@dataclass(frozen=True, slots=True)
class Conversation:
    """A session: its threads, the main loop first. `is_whole` is False where there were too many calls to list."""

    session: str
    measures: Measures
    threads: tuple[Thread, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class CacheLine:
    """What the prompt cache did for a model."""

    model: str
    measures: Measures


@dataclass(frozen=True, slots=True)
class Cache:
    """What the prompt cache did: in all, by model, over time."""

    measures: Measures
    models: tuple[CacheLine, ...]  # most tokens first
    hit_share: Series
    saved: Series


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """A key that calls came with. `name` is None where the ledger does not know it."""

    key_id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to filter by. An empty project or key stands for calls without one."""

    projects: tuple[str, ...]
    keys: tuple[KeyChoice, ...]
    tiers: tuple[str, ...]
    models: tuple[str, ...]
    task_types: tuple[str, ...]
    sessions: tuple[str, ...]  # the latest
    first_ms: int | None  # None: there are no calls
    last_ms: int | None


class Figures:
    """Reads figures from a ledger.

    Every method raises `LedgerError` where the ledger cannot be read.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def measures(self, scope: Scope = Scope()) -> Measures:
        """All figures of the scope."""
        raise NotImplementedError

    def overview(self, scope: Scope = Scope(), *, points: int = 30) -> Overview:
        """Figures, those of the time before, and about so many points between."""
        raise NotImplementedError

    def series(self, scope: Scope, measure: Measure, by: By = By.TOTAL, *, points: int = 60) -> Series:
        """A measure over time, in about so many points."""
        raise NotImplementedError

    def task_types(self, scope: Scope = Scope()) -> tuple[TaskTypeFigures, ...]:
        """All task types that occur, dearest first."""
        raise NotImplementedError

    def task_type(self, scope: Scope, name: str, *, points: int = 60, examples: int = 20) -> TaskTypeDetail | None:
        """One task type; None where no call of the scope is of it."""
        raise NotImplementedError

    def quality(self, scope: Scope = Scope()) -> Quality:
        """How good routing is."""
        raise NotImplementedError

    def calls(self, scope: Scope = Scope(), *, text: str = "", cursor: str | None = None, limit: int = 50) -> CallPage:
        """The latest calls, which hold `text` somewhere.

        Raises:
            ValueError: a cursor that is none.
        """
        raise NotImplementedError

    def call(self, call_id: str) -> StoredCall | None:
        """One call with its attempts, reasons and feedback."""
        raise NotImplementedError

    def conversation(self, session: str, *, most: int = 2000) -> Conversation | None:
        """A session's calls as a tree; None where there are none."""
        raise NotImplementedError

    def cache(self, scope: Scope = Scope(), *, points: int = 60) -> Cache:
        """What the prompt cache did."""
        raise NotImplementedError

    def choices(self) -> Choices:
        """What there is to filter by."""
        raise NotImplementedError
