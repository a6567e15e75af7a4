"""Every figure that is shown anywhere, defined once; the page, `tierwise report` and the API read them here.

`Measures` are the figures of a group of calls; `Figures` reads them from a ledger for a `Scope`, by roll-ups, so that
a year of millions of calls is answered at once. What is defined by a rule is written down where it is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from math import sqrt
from typing import NamedTuple, TypeAlias, assert_never

from tierwise.core.calls import CallKind
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import EXACT, nanousd_to_usd, usd_to_nanousd
from tierwise.ledger import Dimension, FeedbackCounts, Filter, Judgement, Ledger, StoredCall, Totals
from tierwise.ledger.counts import percentile_ms
from tierwise.ledger.feedback import Judged, read_judgements
from tierwise.ledger.folding import WEEK, week_of
from tierwise.ledger.keys import Keys
from tierwise.ledger.listing import CallPage, CallSummary, list_calls, named_calls, recent_sessions, session_calls
from tierwise.ledger.rollup import MS_PER_HOUR, SUMS
from tierwise.ledger.sums import Snapshot, Stretches, Sum, extent, is_by_day, read_sums, snapshot, values_of, widened

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
    "saved_nanousd",
    "saved_percent",
    "stretch_begins",
    "stretch_hours",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which calls: all conditions given must hold. Unix milliseconds; `until_ms` is exclusive.

    Times are widened to whole hours (of long ago: whole UTC days), which answers say. `status` narrows `calls` alone.
    `tier` and `model` filter attempts and their costs by their own, calls and their baseline by the call's.
    An empty `project` or `key` is not the same as None: it chooses the calls that have none.
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


Value: TypeAlias = int | Decimal | None


@dataclass(frozen=True, slots=True)
class Measures:
    """The figures of a group of calls. A rate or a percentile is None where there is nothing to tell it from."""

    totals: Totals
    latencies: Mapping[int, int] = field(default_factory=dict)  # calls by bucket; see `tierwise.ledger.counts`
    failures: Mapping[str, int] = field(default_factory=dict)  # attempts by outcome, where that is not accepted

    @property
    def calls(self) -> int:
        """All calls, those that run too."""
        return self.totals.calls

    @property
    def spent_usd(self) -> Decimal:
        """Everything spent whose price is known: failed attempts, and what asked a model what the task is, included."""
        return nanousd_to_usd(self.totals.cost_nanousd)

    @property
    def open_usd(self) -> Decimal:
        """Estimate for attempts that are still open, or were when their process died."""
        return nanousd_to_usd(self.totals.open_cost_nanousd)

    @property
    def baseline_usd(self) -> Decimal:
        """What the baseline model would have cost for the calls that were answered."""
        return nanousd_to_usd(self.totals.baseline_nanousd)

    @property
    def saved_usd(self) -> Decimal:
        """Baseline minus spent, over the calls where both are known. Negative: a loss."""
        return nanousd_to_usd(self.totals.compared_baseline_nanousd - self.totals.compared_cost_nanousd)

    @property
    def saved_percent(self) -> Decimal | None:
        """The saving in percent of the baseline, to a tenth; None where there is no baseline to compare with."""
        return saved_percent(self.totals.compared_baseline_nanousd, self.totals.compared_cost_nanousd)

    @property
    def escalation_rate(self) -> Decimal | None:
        """Of the calls that were sent and ended, those for which more than one model was tried."""
        ended = self.totals.answered_calls + self.totals.failed_calls + self.totals.cancelled_calls
        return _share(self.totals.climbed_calls, ended)

    @property
    def acceptance_rate(self) -> Decimal | None:
        """Of the replies that came, those that were accepted: not rejected by a check, not refused, not cut off."""
        return _share(self.totals.accepted_attempts, self.totals.accepted_attempts + self.totals.rejected_attempts)

    @property
    def mean_latency_ms(self) -> int | None:
        """Mean latency of a call."""
        return round(self.totals.latency_ms / self.totals.timed_calls) if self.totals.timed_calls else None

    @property
    def p50_latency_ms(self) -> int | None:
        """What half of the calls took at most, to a sixteenth."""
        return percentile_ms(self.latencies, 0.5)

    @property
    def p95_latency_ms(self) -> int | None:
        """What 95 of 100 calls took at most, to a sixteenth."""
        return percentile_ms(self.latencies, 0.95)

    @property
    def prompt_tokens(self) -> int:
        """All tokens of prompts: fresh, read from the cache, written to it."""
        totals = self.totals
        written = totals.cache_write_5m_tokens + totals.cache_write_1h_tokens
        return totals.input_tokens + totals.cache_read_tokens + written

    @property
    def tokens(self) -> int:
        """Tokens of prompts and replies."""
        return self.prompt_tokens + self.totals.output_tokens

    @property
    def cache_hit_share(self) -> Decimal | None:
        """Of the tokens of prompts, those that were read from the cache."""
        return _share(self.totals.cache_read_tokens, self.prompt_tokens)

    @property
    def cache_saved_usd(self) -> Decimal:
        """What the cache saved against sending the same tokens fresh. Negative: writing cost more than that."""
        return nanousd_to_usd(self.totals.cache_saved_nanousd)

    @property
    def mean_confidence(self) -> float | None:
        """How sure the classifier was of a call, 0 to 1."""
        return self.totals.confidence_millionths / self.totals.calls / 1e6 if self.totals.calls else None

    def value(self, measure: Measure) -> Value:  # noqa: PLR0912 one branch a measure
        """One of the figures, by its name."""
        match measure:
            case Measure.CALLS:
                return self.calls
            case Measure.ATTEMPTS:
                return self.totals.attempts
            case Measure.TOKENS:
                return self.tokens
            case Measure.SPENT:
                return self.spent_usd
            case Measure.BASELINE:
                return self.baseline_usd
            case Measure.SAVED:
                return self.saved_usd
            case Measure.CACHE_SAVED:
                return self.cache_saved_usd
            case Measure.ESCALATION_RATE:
                return self.escalation_rate
            case Measure.ACCEPTANCE_RATE:
                return self.acceptance_rate
            case Measure.CACHE_HIT_SHARE:
                return self.cache_hit_share
            case Measure.P50_LATENCY_MS:
                return self.p50_latency_ms
            case Measure.P95_LATENCY_MS:
                return self.p95_latency_ms
            case _:
                assert_never(measure)


def saved_nanousd(call: CallSummary) -> int | None:
    """What a call adds to the saving of its group: one that failed, what it cost. None: in no comparison, or open."""
    if call.cost_nanousd is None or call.status is CallStatus.OPEN:
        return None
    baseline = call.baseline_nanousd if call.status is CallStatus.ANSWERED else 0
    return None if baseline is None else baseline - call.cost_nanousd


def saved_percent(baseline_nanousd: int, cost_nanousd: int) -> Decimal | None:
    """What costing so much saves against a baseline, in percent of that, to a tenth; None of nothing."""
    if baseline_nanousd == 0:
        return None
    saved = Decimal(100 * (baseline_nanousd - cost_nanousd))
    return EXACT.divide(saved, Decimal(baseline_nanousd)).quantize(Decimal("0.1"), context=EXACT)


def _share(part: int, whole: int) -> Decimal | None:
    """To a ten-thousandth; None of nothing."""
    return EXACT.divide(Decimal(part), Decimal(whole)).quantize(Decimal("0.0001"), context=EXACT) if whole else None


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


@dataclass(frozen=True, slots=True)
class Line:
    """One of a series' lines. `name` is empty for calls without a project or key, and for the total."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A measure over time. All lines have a value for each of `starts_ms`; a stretch is `step_ms` long.

    Stretches begin where clocks and calendars begin them (UTC; those of weeks on Mondays), so that the first and the
    last may be shorter.
    """

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

    Every method raises `LedgerError` where the ledger cannot be read, and `ValueError` for a time that ends before it
    begins.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def measures(self, scope: Scope = Scope()) -> Measures:
        """All figures of the scope."""
        with snapshot(self._ledger) as connection:
            return _of(read_sums(connection, (), _filter(scope), counts=True)[0])

    def overview(self, scope: Scope = Scope(), *, points: int = 30) -> Overview:
        """Figures, those of the time before, and about so many points between."""
        where = _filter(scope)
        with snapshot(self._ledger) as connection:
            time = _time(connection, where, points)
            within = _stretch_sums(connection, (), where, time, counts=True)
            before = None
            if scope.since_ms is not None:
                earlier = replace(
                    where,
                    since_ms=(2 * time.since - time.until) * MS_PER_HOUR,
                    until_ms=time.since * MS_PER_HOUR,
                )
                before = _of(read_sums(connection, (), earlier, counts=True)[0])
        found = {one.stretch: _of(one) for one in within}
        return Overview(
            time.since * MS_PER_HOUR,
            time.until * MS_PER_HOUR,
            _together(found.values()),
            before,
            time.step * MS_PER_HOUR,
            tuple(Point(time.start_ms(n), found.get(n, _NOTHING)) for n in range(time.stretches)),
        )

    def series(self, scope: Scope, measure: Measure, by: By = By.TOTAL, *, points: int = 60) -> Series:
        """A measure over time, in about so many points."""
        with snapshot(self._ledger) as connection:
            return _series(connection, _filter(scope), measure, by, points)

    def task_types(self, scope: Scope = Scope()) -> tuple[TaskTypeFigures, ...]:
        """All task types that occur, dearest first."""
        with snapshot(self._ledger) as connection:
            return _task_types(connection, _filter(scope))

    def task_type(self, scope: Scope, name: str, *, points: int = 60, examples: int = 20) -> TaskTypeDetail | None:
        """One task type; None where no call of the scope is of it."""
        chosen = replace(scope, task_type=name)
        where = _filter(chosen)
        with snapshot(self._ledger) as connection:
            found = _task_types(connection, where)
            if not found:
                return None
            spent = _series(connection, where, Measure.SPENT, By.TIER, points)
            calls = _series(connection, where, Measure.CALLS, By.TIER, points)
        return TaskTypeDetail(found[0], spent, calls, self.calls(chosen, limit=examples).calls)

    def quality(self, scope: Scope = Scope()) -> Quality:
        """How good routing is."""
        where = _filter(scope)
        with snapshot(self._ledger) as connection:
            tiers = [(one.key[0], _of(one)) for one in read_sums(connection, ("tier",), where, counts=True)]
            judged = ("calls", "attempts", "accepted_attempts", "rejected_attempts")
            replies = read_sums(connection, ("task_type", "tier"), where, columns=judged)
            said = read_judgements(connection, where)
        left = [Left(tier, kind, count) for tier, one in tiers for kind, count in one.failures.items()]
        whole = _together(one for _, one in tiers)
        return Quality(
            whole,
            _reliability(said),
            tuple(_acceptance(one.key[0], one.key[1], one.totals) for one in replies if _replies(one.totals)),
            tuple(sorted(left, key=lambda one: (-one.attempts, one.tier, one.outcome))),
            whole.failures.get(OutcomeKind.REFUSED.value, 0),
            whole.failures.get(OutcomeKind.TRUNCATED.value, 0),
            _counted(said),
        )

    def calls(
        self,
        scope: Scope = Scope(),
        *,
        text: str = "",
        least_usd: Decimal | None = None,
        most_usd: Decimal | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> CallPage:
        """The latest calls, which hold `text` in one of their fields and cost so much. Times are taken as they are.

        Raises:
            ValueError: a cursor that is none.
        """
        return list_calls(
            self._ledger,
            replace(_filter(scope), status=scope.status),
            text=text,
            least_nanousd=None if least_usd is None else usd_to_nanousd(least_usd),
            most_nanousd=None if most_usd is None else usd_to_nanousd(most_usd),
            cursor=cursor,
            limit=limit,
        )

    def named(self, call_ids: Collection[str]) -> tuple[CallSummary, ...]:
        """These calls, as far as they are there, the latest first."""
        return tuple(named_calls(self._ledger, call_ids)) if call_ids else ()

    def call(self, call_id: str) -> StoredCall | None:
        """One call with its attempts, reasons and feedback."""
        return self._ledger.get(call_id)

    def conversation(self, session: str, *, most: int = 2000) -> Conversation | None:
        """A session's calls by what they were for; None where there are none."""
        calls, is_whole = session_calls(self._ledger, session, most=most)
        if not calls:
            return None
        threads: dict[str, list[CallSummary]] = {}
        for call in calls:
            threads.setdefault(call.kind or CallKind.MAIN.value, []).append(call)
        order = [kind.value for kind in CallKind]
        names = sorted(threads, key=lambda name: (order.index(name) if name in order else len(order), name))
        return Conversation(
            session,
            self.measures(Scope(session=session)),
            tuple(Thread(name, tuple(threads[name])) for name in names),
            is_whole,
        )

    def cache(self, scope: Scope = Scope(), *, points: int = 60) -> Cache:
        """What the prompt cache did."""
        where = _filter(scope)
        with snapshot(self._ledger) as connection:
            models = [CacheLine(one.key[0], _of(one)) for one in read_sums(connection, ("model",), where)]
            hit_share = _series(connection, where, Measure.CACHE_HIT_SHARE, By.TOTAL, points)
            saved = _series(connection, where, Measure.CACHE_SAVED, By.TOTAL, points)
        models.sort(key=lambda line: (-line.measures.prompt_tokens, line.model))
        return Cache(_together(line.measures for line in models), tuple(models), hit_share, saved)

    def choices(self) -> Choices:
        """What there is to filter by."""
        names = {key.key_id: key.name for key in Keys(self._ledger).all()}
        with snapshot(self._ledger) as connection:
            found = {name: tuple(values_of(connection, name)) for name in _CHOICES}
            span = extent(connection)
            sessions = recent_sessions(connection, _MOST_SESSIONS)
        return Choices(
            projects=found["project"],
            keys=tuple(KeyChoice(key_id, names.get(key_id)) for key_id in found["key_id"]),
            tiers=found["tier"],
            models=found["model"],
            task_types=found["task_type"],
            sessions=tuple(sessions),
            first_ms=None if span.since is None else span.since * MS_PER_HOUR,
            last_ms=None if span.until is None else span.until * MS_PER_HOUR,
        )


_NOTHING = Measures(Totals())
_MOST_SESSIONS = 50
_CHOICES: tuple[Dimension, ...] = ("project", "key_id", "tier", "model", "task_type")
_STEPS = (1, 2, 3, 4, 6, 8, 12, 24, 48, 72, WEEK, 2 * WEEK, 4 * WEEK, 12 * WEEK, 52 * WEEK)  # hours of a stretch
_LONGEST_HOURS = 200 * 365 * 24  # whatever somebody asks for
_DIMENSIONS: Mapping[By, Dimension] = {
    By.TIER: "tier",
    By.MODEL: "model",
    By.TASK_TYPE: "task_type",
    By.PROJECT: "project",
    By.KEY: "key_id",
}
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
_ENDED = ("answered_calls", "failed_calls", "cancelled_calls")
# What a measure is made of: reading the rest would take three times as long.
_COLUMNS: Mapping[Measure, tuple[str, ...]] = {
    Measure.CALLS: (),
    Measure.ATTEMPTS: (),
    Measure.TOKENS: _TOKENS,
    Measure.SPENT: ("cost_nanousd",),
    Measure.BASELINE: ("baseline_nanousd",),
    Measure.SAVED: ("compared_baseline_nanousd", "compared_cost_nanousd"),
    Measure.CACHE_SAVED: ("cache_saved_nanousd",),
    Measure.ESCALATION_RATE: ("climbed_calls", *_ENDED),
    Measure.ACCEPTANCE_RATE: ("accepted_attempts", "rejected_attempts"),
    Measure.CACHE_HIT_SHARE: _TOKENS,
    Measure.P50_LATENCY_MS: (),
    Measure.P95_LATENCY_MS: (),
}
_RATES = frozenset({measure for measure in Measure if Measures(Totals()).value(measure) is None})  # say nothing of size
_BANDS = 10


class _Time(NamedTuple):
    """A time in hours since 1970, and the stretches it is shown in.

    A stretch begins where clocks and calendars (UTC) begin one: at midnight, at a multiple of its hours, on a Monday.
    So a bar is a day that people know, and holds the same as time goes on; the first and the last may be cut short.
    """

    since: int
    until: int
    step: int

    @property
    def origin(self) -> int:
        return stretch_begins(self.since, self.step)

    @property
    def stretches(self) -> int:
        return -(-(self.until - self.origin) // self.step)

    def start_ms(self, number: int) -> int:
        return max(self.since, self.origin + number * self.step) * MS_PER_HOUR


def _filter(scope: Scope) -> Filter:
    if scope.since_ms is not None and scope.until_ms is not None and scope.until_ms < scope.since_ms:
        raise ValueError(f"until ({scope.until_ms}) is before since ({scope.since_ms}); exchange them")
    return Filter(
        since_ms=scope.since_ms,
        until_ms=scope.until_ms,
        project=scope.project,
        key_id=scope.key,
        task_type=scope.task_type,
        tier=scope.tier,
        model=scope.model,
        session=scope.session,
    )


def _time(connection: Snapshot, where: Filter, points: int) -> _Time:
    """The time of a filter as it is shown: where it is open, from the first call to the last."""
    since, until = widened(connection, where.since_ms, where.until_ms)
    if since is None or until is None:
        found = extent(connection, replace(where, session=None, status=None))
        since = since if since is not None else found.since if found.since is not None else (until or 1) - 1
        until = until if until is not None else max(found.until or 0, since + 1)
    until = min(max(until, since + 1), since + _LONGEST_HOURS)
    step = stretch_hours(until - since, points)
    whole = widened(connection, since * MS_PER_HOUR, None).since
    if step % 24 and where.session is None and is_by_day(connection, since):
        step = 24
    return _Time(since if whole is None else whole, until, step)


def stretch_hours(hours: int, points: int) -> int:
    """How long a stretch is where about so many of them make up so many hours: as people cut their time."""
    least = hours / max(1, points)
    return next((step for step in _STEPS if step >= least), _STEPS[-1])


def stretch_begins(hour: int, step: int) -> int:
    """The hour since 1970 at which the first of such stretches begins that has this one in it: weeks on a Monday."""
    return hour // step * step if step % WEEK else week_of(hour)


def _stretch_sums(
    connection: Snapshot,
    by: tuple[Dimension, ...],
    where: Filter,
    time: _Time,
    *,
    columns: Collection[str] = SUMS,
    counts: bool = False,
) -> list[Sum]:
    exact = replace(where, since_ms=time.since * MS_PER_HOUR, until_ms=time.until * MS_PER_HOUR)
    return read_sums(connection, by, exact, stretches=Stretches(time.origin, time.step), columns=columns, counts=counts)


def _series(connection: Snapshot, where: Filter, measure: Measure, by: By, points: int) -> Series:
    time = _time(connection, where, points)
    dimensions = () if by is By.TOTAL else (_DIMENSIONS[by],)
    counts = measure in (Measure.P50_LATENCY_MS, Measure.P95_LATENCY_MS)
    columns = ("calls", "attempts", *_COLUMNS[measure])
    found: dict[str, dict[int, Value]] = {}
    weights: dict[str, Decimal] = {}
    for one in _stretch_sums(connection, dimensions, where, time, columns=columns, counts=counts):
        name = one.key[0] if one.key else ""
        value = _of(one).value(measure)
        found.setdefault(name, {})[one.stretch] = value
        weight = Decimal(one.totals.calls if value is None or measure in _RATES else value).copy_abs()
        weights[name] = weights.get(name, Decimal(0)) + weight
    empty = _NOTHING.value(measure)
    if by is By.TOTAL and not found:
        found[""] = {}
    lines = [
        Line(name, tuple(found[name].get(n, empty) for n in range(time.stretches)))
        for name in sorted(found, key=lambda name: (-weights.get(name, Decimal(0)), name))
    ]
    return Series(
        measure,
        by,
        time.since * MS_PER_HOUR,
        time.until * MS_PER_HOUR,
        time.step * MS_PER_HOUR,
        tuple(time.start_ms(n) for n in range(time.stretches)),
        tuple(lines),
    )


def _task_types(connection: Snapshot, where: Filter) -> tuple[TaskTypeFigures, ...]:
    tiers: dict[str, list[TierFigures]] = {}
    for one in read_sums(connection, ("task_type", "tier"), where, counts=True):
        tiers.setdefault(one.key[0], []).append(TierFigures(one.key[1], _of(one)))
    said: dict[str, list[Judged]] = {}
    for judged in read_judgements(connection, where):
        said.setdefault(judged.task_type, []).append(judged)
    found = [
        TaskTypeFigures(name, _together(one.measures for one in parts), tuple(parts), _counted(said.get(name, ())))
        for name, parts in tiers.items()
    ]
    found.sort(key=lambda one: (-one.measures.totals.cost_nanousd, -one.measures.calls, one.task_type))
    return tuple(found)


def _of(one: Sum) -> Measures:
    return Measures(one.totals, one.counts.latencies, one.counts.failures)


def _together(parts: Iterable[Measures]) -> Measures:
    """The figures of several groups as one."""
    totals = dict.fromkeys(SUMS, 0)
    latencies: dict[int, int] = {}
    failures: dict[str, int] = {}
    for part in parts:
        for name in SUMS:
            totals[name] += getattr(part.totals, name)
        for bucket, count in part.latencies.items():
            latencies[bucket] = latencies.get(bucket, 0) + count
        for kind, count in part.failures.items():
            failures[kind] = failures.get(kind, 0) + count
    return Measures(Totals(**totals), latencies, failures)


def _replies(totals: Totals) -> int:
    return totals.accepted_attempts + totals.rejected_attempts


def _acceptance(task_type: str, tier: str, totals: Totals) -> Acceptance:
    accepted, replies = totals.accepted_attempts, _replies(totals)
    low, high = _wilson(accepted, replies)
    return Acceptance(task_type, tier, accepted, totals.rejected_attempts, accepted / replies, low, high)


def _wilson(hits: int, of: int) -> tuple[float, float]:
    """The interval in which a rate lies with 95 %, of so many hits."""
    z = 1.959964
    rate, spread = hits / of, z * z / of
    middle = (rate + spread / 2) / (1 + spread)
    half = z * sqrt(rate * (1 - rate) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _reliability(said: Iterable[Judged]) -> tuple[Reliability, ...]:
    bands: dict[int, list[Judged]] = {}
    for judged in said:
        if judged.right_type is not None:
            bands.setdefault(min(_BANDS - 1, int(judged.confidence * _BANDS)), []).append(judged)
    return tuple(
        Reliability(
            band / _BANDS,
            (band + 1) / _BANDS,
            len(found),
            sum(judged.right_type == judged.task_type for judged in found),
            sum(judged.confidence for judged in found) / len(found),
        )
        for band, found in sorted(bands.items())
    )


def _counted(said: Iterable[Judged]) -> FeedbackCounts:
    good = bad = typed = 0
    for judged in said:
        good += judged.verdict == Judgement.GOOD
        bad += judged.verdict == Judgement.BAD
        typed += judged.right_type is not None
    return FeedbackCounts(good, bad, typed)
