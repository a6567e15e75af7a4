"""Figures as the API tells them: names, units and tiers on what `tierwise.report.figures` computes, nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeAlias

from tierwise.core.calls import CallKind
from tierwise.core.catalog import Catalog
from tierwise.core.decisions import AttemptRecord, CallStatus, OutcomeKind
from tierwise.core.money import Price, nanousd_to_usd
from tierwise.dashboard import models
from tierwise.dashboard.models import moment
from tierwise.ledger import FeedbackCounts, StoredCall
from tierwise.ledger.budgets import Budget, BudgetPeriod, BudgetStanding, period_start_ms
from tierwise.report import figures

__all__ = ["View", "projected"]

_MEASURES: Mapping[models.Measure, figures.Measure] = {
    "cost_usd": figures.Measure.SPENT,
    "saved_usd": figures.Measure.SAVED,
    "baseline_usd": figures.Measure.BASELINE,
    "cache_saved_usd": figures.Measure.CACHE_SAVED,
    "calls": figures.Measure.CALLS,
    "attempts": figures.Measure.ATTEMPTS,
    "tokens": figures.Measure.TOKENS,
    "escalation_rate": figures.Measure.ESCALATION_RATE,
    "acceptance_rate": figures.Measure.ACCEPTANCE_RATE,
    "cache_hit_share": figures.Measure.CACHE_HIT_SHARE,
    "p50_latency_ms": figures.Measure.P50_LATENCY_MS,
    "p95_latency_ms": figures.Measure.P95_LATENCY_MS,
}
_BY: Mapping[models.SeriesBy, figures.By] = {
    "all": figures.By.TOTAL,
    "tier": figures.By.TIER,
    "model": figures.By.MODEL,
    "task_type": figures.By.TASK_TYPE,
    "project": figures.By.PROJECT,
    "key": figures.By.KEY,
}
_NAMES = {measure: name for name, measure in _MEASURES.items()}
_BY_NAMES = {by: name for name, by in _BY.items()}
_Place: TypeAlias = tuple[str, str]  # of a rung: its tier and model
_ALIKE = 400  # characters of a text that a list shows: a call tells it whole


def _share(value: float | Decimal | None) -> float | None:
    return None if value is None else min(1.0, max(0.0, float(value)))


def _percent(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _usd(nanousd: int | None) -> Decimal | None:
    return None if nanousd is None else nanousd_to_usd(nanousd)


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _ALIKE else f"{text[: _ALIKE - 1]}…"


def _unit(measure: models.Measure) -> str:
    if measure.endswith("_usd"):
        return "usd"
    if measure.endswith("_ms"):
        return "ms"
    return "share" if measure.endswith(("_rate", "_share")) else "count"


def projected(spent: Decimal, started_ms: int, now_ms: int, ends_ms: int) -> Decimal | None:
    """What will be spent at the end of a period, at the pace so far; None in its first hundredth, when nobody knows."""
    passed, whole = now_ms - started_ms, ends_ms - started_ms
    if whole <= 0 or passed * 100 < whole:
        return None
    return (spent * whole / passed).quantize(Decimal("0.000001"))


class View:
    """Figures as one configuration names them.

    Args:
        catalog: whose tiers have levels.
        families: of task types, by name.
    """

    def __init__(self, catalog: Catalog, families: Mapping[str, str]) -> None:
        self._levels = {spec.tier.name: spec.tier.level for spec in catalog}
        self.catalog = catalog
        self._families = families

    def level(self, tier: str) -> int | None:
        """Of a tier, cheapest 0; None where there is none of that name."""
        return self._levels.get(tier)

    @staticmethod
    def measure(name: models.Measure) -> figures.Measure:
        """The measure of that name."""
        return _MEASURES[name]

    @staticmethod
    def by(name: models.SeriesBy) -> figures.By:
        """The split of that name."""
        return _BY[name]

    # ------------------------------------------------------------------ figures

    def totals(self, found: figures.Measures) -> models.Totals:
        """All figures of a group of calls."""
        sums = found.totals
        return models.Totals(
            calls=sums.calls,
            answered_calls=sums.answered_calls,
            open_calls=sums.open_calls,
            unpriced_calls=sums.unpriced_calls,
            attempts=sums.attempts,
            failed_attempts=sums.failed_attempts,
            unpriced_attempts=sums.unpriced_attempts,
            estimated_attempts=sums.estimated_attempts,
            cost_usd=found.spent_usd,
            open_cost_usd=found.open_usd,
            baseline_usd=found.baseline_usd,
            saved_usd=found.saved_usd,
            saved_percent=_percent(found.saved_percent),
            escalation_rate=_share(found.escalation_rate),
            acceptance_rate=_share(found.acceptance_rate),
            p50_latency_ms=found.p50_latency_ms,
            p95_latency_ms=found.p95_latency_ms,
            input_tokens=sums.input_tokens,
            output_tokens=sums.output_tokens,
            cache_read_tokens=sums.cache_read_tokens,
            cache_write_tokens=sums.cache_write_5m_tokens + sums.cache_write_1h_tokens,
            cache_hit_share=_share(found.cache_hit_share),
            cache_saved_usd=found.cache_saved_usd,
        )

    def overview(self, found: figures.Overview, last_ms: int | None) -> models.Overview:
        """The figures of a period, of the one before it, and how they went."""
        return models.Overview(
            since=moment(found.since_ms),
            until=moment(found.until_ms),
            now=self.totals(found.measures),
            before=None if found.before is None else self.totals(found.before),
            interval_seconds=max(1, found.step_ms // 1000),
            points=[
                models.Point(
                    at=moment(point.start_ms),
                    calls=point.measures.totals.calls,
                    cost_usd=point.measures.spent_usd,
                    saved_usd=point.measures.saved_usd,
                    saved_percent=_percent(point.measures.saved_percent),
                    escalation_rate=_share(point.measures.escalation_rate),
                    p50_latency_ms=point.measures.p50_latency_ms,
                    p95_latency_ms=point.measures.p95_latency_ms,
                )
                for point in found.points
            ],
            last_call_at=None if last_ms is None else moment(last_ms),
        )

    def series(self, found: figures.Series) -> models.Series:
        """A measure over time. Tiers stand in their order, the cheapest first; others as they come, largest first."""
        measure = _NAMES[found.measure]
        lines = [
            models.SeriesLine(
                name=line.name,
                level=self.level(line.name) if found.by is figures.By.TIER else None,
                values=[_value(value, measure) for value in line.values],
            )
            for line in found.lines
        ]
        if found.by is figures.By.TIER:
            lines.sort(key=lambda line: (line.level is None, line.level or 0, line.name))
        return models.Series.model_validate(
            {
                "measure": measure,
                "unit": _unit(measure),
                "by": _BY_NAMES[found.by],
                "interval_seconds": max(1, found.step_ms // 1000),
                "starts": [moment(at) for at in found.starts_ms],
                "lines": lines,
            }
        )

    # ------------------------------------------------------------------ task types, quality

    def task_types(self, found: Sequence[figures.TaskTypeFigures]) -> models.TaskTypes:
        """All task types of a period."""
        calls = sum(one.measures.totals.calls for one in found)
        return models.TaskTypes(items=[self.task_type(one, calls) for one in found])

    def task_type(self, found: figures.TaskTypeFigures, all_calls: int) -> models.TaskType:
        """One task type, of so many calls in all."""
        measures = found.measures
        tiers = [self._tier(tier) for tier in found.tiers]
        tiers.sort(key=lambda one: (one.level is None, one.level or 0, one.tier))
        return models.TaskType(
            task_type=found.task_type,
            family=self._families.get(found.task_type),
            calls=measures.totals.calls,
            unpriced_calls=measures.totals.unpriced_calls,
            share_of_calls=_share(measures.totals.calls / all_calls) or 0.0 if all_calls else 0.0,
            attempts=measures.totals.attempts,
            unpriced_attempts=measures.totals.unpriced_attempts,
            cost_usd=measures.spent_usd,
            baseline_usd=measures.baseline_usd,
            saved_usd=measures.saved_usd,
            saved_percent=_percent(measures.saved_percent),
            mean_confidence=_share(measures.mean_confidence),
            escalation_rate=_share(measures.escalation_rate),
            acceptance_rate=_share(measures.acceptance_rate),
            climbs=measures.totals.climbed_calls,
            p50_latency_ms=measures.p50_latency_ms,
            p95_latency_ms=measures.p95_latency_ms,
            tiers=tiers,
            feedback=_feedback(found.feedback),
        )

    def _tier(self, found: figures.TierFigures) -> models.TierShare:
        measures = found.measures
        return models.TierShare(
            tier=found.tier,
            level=self.level(found.tier),
            calls=measures.totals.calls,
            attempts=measures.totals.attempts,
            accepted_attempts=measures.totals.accepted_attempts,
            rejected_attempts=measures.totals.rejected_attempts,
            acceptance_rate=_share(measures.acceptance_rate),
            cost_usd=measures.spent_usd,
        )

    def quality(self, found: figures.Quality) -> models.Quality:
        """How good decisions and replies were."""
        judged = sum(one.judged for one in found.reliability)
        gaps = sum(abs(one.right - one.mean_confidence * one.judged) for one in found.reliability)
        return models.Quality(
            feedback=_feedback(found.feedback),
            calibration_error=_share(gaps / judged) if judged else None,
            reliability=[
                models.ReliabilityBin(
                    from_confidence=one.low,
                    to_confidence=one.high,
                    calls=one.judged,
                    right=one.right,
                    mean_confidence=_share(one.mean_confidence) if one.judged else None,
                    right_rate=one.right / one.judged if one.judged else None,
                    low=_wilson(one.right, one.judged)[0],
                    high=_wilson(one.right, one.judged)[1],
                )
                for one in found.reliability
            ],
            acceptance=[
                models.AcceptanceRow(
                    task_type=one.task_type,
                    tier=one.tier,
                    level=self.level(one.tier),
                    attempts=one.accepted + one.rejected,
                    accepted=one.accepted,
                    rate=_share(one.rate),
                    low=_share(one.low),
                    high=_share(one.high),
                )
                for one in found.acceptance
            ],
            left=[
                models.Left(tier=one.tier, level=self.level(one.tier), outcome=one.outcome, attempts=one.attempts)
                for one in found.left
            ],
            refusals=found.refusals,
            truncations=found.truncations,
        )

    def cache(self, found: figures.Cache) -> models.Cache:
        """What prompt caches saved or cost."""
        return models.Cache(
            hit_share=_share(found.measures.cache_hit_share),
            saved_usd=_cache_saved_usd(found.measures),
            models=[
                models.CacheRow(
                    model=one.model,
                    input_tokens=one.measures.totals.input_tokens,
                    cache_read_tokens=one.measures.totals.cache_read_tokens,
                    cache_write_5m_tokens=one.measures.totals.cache_write_5m_tokens,
                    cache_write_1h_tokens=one.measures.totals.cache_write_1h_tokens,
                    hit_share=_share(one.measures.cache_hit_share),
                    saved_usd=_cache_saved_usd(one.measures),
                )
                for one in found.models
            ],
            hit_share_over_time=self.series(found.hit_share),
            saved_over_time=self.series(found.saved),
        )

    # ------------------------------------------------------------------ calls

    def summary(self, found: figures.CallSummary) -> models.CallSummary:
        """A call in a list."""
        return models.CallSummary.model_validate(
            {
                "call_id": found.call_id,
                "started_at": moment(found.started_at_ms),
                "status": found.status.value,
                "task_type": found.task_type,
                "confidence": _share(found.confidence) or 0.0,
                "abstained": found.abstained,
                "tier": found.tier,
                "level": self.level(found.tier),
                "planned_tier": found.planned_tier,
                "model": found.model,
                "project": found.project,
                "session": found.session,
                "key": found.key_id,
                "kind": found.kind,
                "attempts": found.attempts,
                "climbed": found.models > 1,
                "cost_usd": _usd(found.cost_nanousd),
                "baseline_usd": _usd(found.baseline_nanousd),
                "saved_usd": _usd(figures.saved_nanousd(found)),
                "tokens_in": found.tokens_in,
                "tokens_out": found.tokens_out,
                "latency_ms": found.latency_ms,
                "error": _short(found.error),
                "feedback": found.feedback,
                "feedback_type": found.feedback_type,
            }
        )

    def page(self, found: figures.CallPage) -> models.CallPage:
        """Calls, newest first."""
        return models.CallPage(
            items=[self.summary(one) for one in found.calls],
            next_cursor=found.cursor,
            searched_to=None if found.searched_to_ms is None else moment(found.searched_to_ms),
        )

    def call(self, found: StoredCall, prices: Mapping[str, Price], *, text: str | None) -> models.Call:
        """A call with all that is known of it."""
        call = found.call
        said = found.feedback
        return models.Call(
            summary=self.summary(_summary(found)),
            family=call.family,
            needs=call.needs,
            baseline_model=call.baseline_model,
            reasons=[models.Reason(step=one.step, text=one.text) for one in call.reasons],
            tags=[models.Tag(name=name, value=value) for name, value in call.tags],
            ladder=self._ladder(found, prices),
            ladder_kept=call.ladder is not None,
            attempts=[self._attempt(one, call.started_at_ms) for one in found.attempts],
            feedback=None
            if said is None
            else models.FeedbackSays(
                at=moment(said.at_ms),
                verdict=None if said.verdict is None else said.verdict.value,
                task_type=said.task_type,
                source=said.source,
            ),
            captured_text=text,
        )

    def _attempt(self, one: AttemptRecord, began_ms: int) -> models.Attempt:
        usage = one.usage
        return models.Attempt(
            number=one.number,
            tier=one.tier,
            level=self.level(one.tier),
            model=one.model,
            provider=one.provider,
            started_at=moment(one.started_at_ms),
            offset_ms=max(0, one.started_at_ms - began_ms),
            wait_ms=max(0, one.wait_ms),
            ttft_ms=one.ttft_ms,
            latency_ms=one.latency_ms,
            outcome=one.outcome.value,
            detail=one.detail,
            cost_usd=_usd(one.cost_nanousd),
            estimated=usage.estimated,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_5m_tokens=usage.cache_write_5m_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            thinking_tokens=usage.thinking_tokens,
            web_searches=usage.web_searches,
            request_id=one.request_id,
            reported_model=one.reported_model,
        )

    def _ladder(self, found: StoredCall, prices: Mapping[str, Price]) -> list[models.Rung]:
        """The decision's rungs and what was tried besides; if it was not kept, what was tried and the tiers above."""
        call = found.call
        sent = _tried(found.attempts)
        last = sent[-1] if sent else None
        tried: dict[_Place, list[AttemptRecord]] = {}
        for one in sent:
            tried.setdefault((one.tier, one.model), []).append(one)
        if call.ladder is None:
            expected: dict[_Place, int] = {}
            places = [*tried, *self._above([tier for tier, _ in tried] or [call.tier])]
        else:
            expected = {(rung.tier, rung.model): rung.estimated_nanousd for rung in call.ladder}
            places = _in_order(expected, tried)
        first = next(iter(expected or tried), None)
        answered = (last.tier, last.model) if last is not None and call.status is CallStatus.ANSWERED else None
        return [
            models.Rung(
                tier=place[0],
                level=self.level(place[0]),
                model=place[1],
                planned=place == first,
                answered=place == answered,
                attempts=len(attempts := tried.get(place, [])),
                cost_usd=_usd(_cost(attempts)) if attempts else None,
                estimated_usd=_usd(expected.get(place)),
                same_tokens_usd=self._at(last, place[1], prices),
            )
            for place in places
        ]

    def _above(self, tiers: Sequence[str]) -> list[_Place]:
        """The first model of each tier that is above all of these."""
        highest = max((level for tier in tiers if (level := self.level(tier)) is not None), default=None)
        return [
            (spec.tier.name, spec.models[0].id)
            for spec in self.catalog
            if highest is not None and spec.tier.level > highest
        ]

    def _at(self, last: AttemptRecord | None, model: str, prices: Mapping[str, Price]) -> Decimal | None:
        price = prices.get(model)
        if last is None or price is None or price.usd_per_hour:
            return None
        factors = {one.id: one.tokenizer_factor for one in (*self.catalog.models, self.catalog.baseline)}
        ours, theirs = factors.get(last.model, Decimal(1)), factors.get(model, Decimal(1))
        usage = last.usage if ours == theirs else last.usage.scaled(theirs / ours)
        return price.cost_usd(usage)

    def conversation(self, found: figures.Conversation) -> models.Conversation:
        """A session as a tree: what runs beside the main loop hangs below the main call before it."""
        threads = {thread.kind: [*thread.calls] for thread in found.threads}
        everything = sorted(
            (call for calls in threads.values() for call in calls), key=lambda call: (call.started_at_ms, call.call_id)
        )
        nodes: list[models.ConversationNode] = []
        beside: list[models.ConversationNode] = []
        main: figures.CallSummary | None = None

        def close() -> None:
            nonlocal beside
            if main is not None:
                nodes.append(models.ConversationNode(call=self.summary(main), children=beside))
            else:
                nodes.extend(beside)
            beside = []

        for call in everything:
            if call.kind in (None, CallKind.MAIN.value):
                close()
                main = call
            else:
                beside.append(models.ConversationNode(call=self.summary(call), children=[]))
        close()
        measures = found.measures
        first, last = everything[0], everything[-1]
        return models.Conversation(
            session=found.session,
            project=next((call.project for call in everything if call.project is not None), None),
            started_at=moment(first.started_at_ms),
            ended_at=moment(last.started_at_ms + (last.latency_ms or 0)),
            calls=measures.totals.calls,
            unpriced_calls=measures.totals.unpriced_calls,
            attempts=measures.totals.attempts,
            unpriced_attempts=measures.totals.unpriced_attempts,
            cost_usd=measures.spent_usd,
            baseline_usd=measures.baseline_usd,
            saved_usd=measures.saved_usd,
            more=not found.is_whole,
            nodes=nodes,
        )

    # ------------------------------------------------------------------ budgets

    def budgets(self, standings: Sequence[BudgetStanding], month: figures.Measures, now_ms: int) -> models.Budgets:
        """All budgets, and the month."""
        start, end = _month(now_ms)
        return models.Budgets(
            items=[_standing(one, now_ms) for one in standings],
            month_attempts=month.totals.attempts,
            month_unpriced_attempts=month.totals.unpriced_attempts,
            month_spent_usd=month.spent_usd,
            month_projected_usd=projected(month.spent_usd, start, now_ms, end),
        )


def _month(now_ms: int) -> tuple[int, int]:
    start = period_start_ms(BudgetPeriod.MONTH, now_ms)
    day = datetime.fromtimestamp(start / 1000, UTC)
    end = day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
    return start, int(end.timestamp() * 1000)


def _standing(one: BudgetStanding, now_ms: int) -> models.BudgetStanding:
    budget: Budget = one.budget
    ends = one.resets_at_ms
    starts = None if budget.period is BudgetPeriod.TOTAL else period_start_ms(budget.period, now_ms)
    spent = nanousd_to_usd(one.spent_nanousd)
    used = one.spent_nanousd + one.reserved_nanousd
    return models.BudgetStanding(
        budget_id=budget.budget_id,
        scope=budget.scope.value,
        subject=budget.subject,
        period=budget.period.value,
        hard=budget.hard,
        limit_usd=nanousd_to_usd(budget.limit_nanousd),
        spent_usd=spent,
        reserved_usd=nanousd_to_usd(one.reserved_nanousd),
        left_usd=nanousd_to_usd(one.left_nanousd),
        used_share=used / budget.limit_nanousd if budget.limit_nanousd else float(used > 0),
        starts_at=None if starts is None else moment(starts),
        resets_at=None if ends is None else moment(ends),
        projected_usd=None if starts is None or ends is None else projected(spent, starts, now_ms, ends),
    )


def _cache_saved_usd(found: figures.Measures) -> Decimal | None:
    """None where no attempt has a known price."""
    totals = found.totals
    return None if totals.attempts and totals.attempts == totals.unpriced_attempts else found.cache_saved_usd


def _value(value: figures.Value, measure: models.Measure) -> str | int | float | None:
    if value is None:
        return None
    if measure.endswith("_usd"):
        return format(Decimal(value), "f")
    return value if isinstance(value, int) else float(value)


def _feedback(found: FeedbackCounts) -> models.FeedbackSeen:
    return models.FeedbackSeen(good=found.good, bad=found.bad, typed=found.typed)


def _wilson(hits: int, of: int) -> tuple[float | None, float | None]:
    """The 95 % interval of a rate."""
    if not of:
        return None, None
    z = 1.959964
    rate, square = hits / of, z * z
    middle = (rate + square / (2 * of)) / (1 + square / of)
    half = z * ((rate * (1 - rate) + square / (4 * of)) / of) ** 0.5 / (1 + square / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def _tried(attempts: Iterable[AttemptRecord]) -> list[AttemptRecord]:
    """Attempts at an answer: sent, and not only to ask what the task is."""
    return [one for one in attempts if one.number > 0 and one.outcome is not OutcomeKind.NOT_RUN]


def _in_order(planned: Iterable[_Place], tried: Iterable[_Place]) -> list[_Place]:
    """What was planned, and each that was tried besides behind the one tried before it."""
    places, at = list(planned), 0
    for place in tried:
        if place in places:
            at = places.index(place) + 1
        else:
            places.insert(at, place)
            at += 1
    return places


def _cost(attempts: Iterable[AttemptRecord]) -> int | None:
    """Of all that was sent; None where the price of one is not known."""
    costs = [one.cost_nanousd for one in attempts if one.outcome is not OutcomeKind.NOT_RUN]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _summary(found: StoredCall) -> figures.CallSummary:
    """What a list says of a call that was read whole."""
    call = found.call
    said = found.feedback
    return figures.CallSummary(
        call_id=call.call_id,
        started_at_ms=call.started_at_ms,
        status=call.status,
        task_type=call.task_type,
        confidence=call.confidence,
        abstained=call.abstained,
        tier=call.tier,
        model=call.model,
        planned_tier=call.planned_tier,
        project=call.project,
        session=call.session,
        key_id=call.key_id,
        kind=dict(call.tags).get("kind"),
        latency_ms=call.latency_ms,
        attempts=len(found.attempts),
        models=len({one.model for one in _tried(found.attempts)}),
        cost_nanousd=_cost(found.attempts),
        baseline_nanousd=call.baseline_nanousd,
        tokens_in=sum(one.usage.prompt_tokens for one in found.attempts),
        tokens_out=sum(one.usage.output_tokens for one in found.attempts),
        error=call.error,
        feedback=None if said is None or said.verdict is None else said.verdict.value,
        feedback_type=None if said is None else said.task_type,
    )
