"""What if: where a text would go, and what the ledger's calls would have cost under another policy or other prices.

A decision is the router's own, made as it would be for a call and then thrown away: the text goes nowhere. A replay is
`tierwise.replay` over the newest calls of a period, so many at most, since somebody waits for it; the answer says how
far it has looked.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from tierwise.core.calls import ImportedCall, ImportedSession
from tierwise.core.money import nanousd_to_usd
from tierwise.core.settings import Settings
from tierwise.core.tasks import Stakes, Task, TaskType
from tierwise.dashboard import models
from tierwise.dashboard.models import moment
from tierwise.dashboard.views import View
from tierwise.engine.router import AsyncRouter
from tierwise.importers.ledger_calls import attempt_of, sessions_of
from tierwise.ledger import Filter, Ledger, StoredCall
from tierwise.prices import PriceBook
from tierwise.replay import (
    Assumption,
    CallOutcome,
    Replayer,
    ReplayWorld,
    Scenario,
    SessionReplay,
    known_models,
    policy_named,
)
from tierwise.report.figures import By, Figures, Measure, Scope, saved_percent, stretch_begins, stretch_hours

__all__ = ["MOST_REPLAYED", "decide", "policies", "replayed"]

MOST_REPLAYED = 5_000  # calls: a second or two
_HOUR_MS = 3_600_000
_OTHER = "other"  # the tier of a model that is in none
_SAYS: Mapping[Assumption, str] = {
    Assumption.CACHE: "what another model has to write to its cache that the real one read",
    Assumption.ESCALATION: "answers that are rejected, tried again and given higher up",
    Assumption.TOKENIZER: "the same text is more or fewer tokens on another model",
    Assumption.OUTPUT_LENGTH: "another model says more, or less",
    Assumption.TURNS_TO_COME: "moves decided without knowing how long the conversation goes on",
}


def policies(settings: Settings) -> list[models.PolicyChoice]:
    """The policies that can be replayed under a configuration."""
    tiers = [spec.tier.name for spec in settings.catalog]
    found = [("routed", "Routed as configured now"), ("actual", "As it was (for another day's prices)")]
    found += [(f"all-{tier}", f"Everything on {tier}") for tier in tiers]
    found += [(f"{tier}-subagents", f"Subagents on {tier}, the rest as it was") for tier in tiers]
    if {"opus", "sonnet"} <= set(tiers):
        found.append(("opusplan", "Plans on opus, work on sonnet"))
    return [models.PolicyChoice(name=name, title=title) for name, title in found]


def decide(question: models.DecisionQuestion, router: AsyncRouter) -> models.Decision:
    """Where a text would go.

    Raises:
        TierwiseError: it cannot be decided; says why.
    """
    decision = router.route(
        Task(
            text=question.text,
            tokens_in=question.tokens_in,
            tokens_out=question.tokens_out,
            max_latency_seconds=question.max_latency_seconds,
            stakes=Stakes(question.stakes),
            min_tier=question.min_tier or None,
            max_tier=question.max_tier or None,
        )
    )
    said, first, baseline = decision.classification, decision.first, decision.baseline_cost_usd
    return models.Decision(
        task_type=said.task_type.name,
        family=said.family,
        needs=said.needs.value,
        confidence=said.confidence,
        abstained=said.abstained,
        alternatives=[
            models.TypeGuess(task_type=one.task_type.name, confidence=one.confidence) for one in said.alternatives[:5]
        ],
        also=[one.name for one in said.also],
        evidence=list(said.evidence),
        tier=first.tier.name,
        level=first.tier.level,
        model=first.model.id,
        ladder=[
            models.DecisionRung(
                tier=rung.tier.name,
                level=rung.tier.level,
                model=rung.model.id,
                estimated_usd=rung.estimated_cost_usd,
                estimated_seconds=rung.estimated_seconds,
            )
            for rung in decision.ladder
        ],
        baseline_model=decision.baseline_model.id,
        baseline_usd=baseline,
        saved_usd=None if baseline is None else baseline - first.estimated_cost_usd,
        reasons=[models.Reason(step=one.step, text=one.text) for one in decision.reasons],
        blockers=[models.Reason(step=one.step, text=one.text) for one in decision.blockers],
    )


def replayed(
    ledger: Ledger,
    scope: Scope,
    *,
    settings: Settings,
    prices: PriceBook,
    task_types: Mapping[str, TaskType],
    view: View,
    policy: str,
    priced_on: date | None,
    points: int,
) -> models.Replay:
    """The newest calls of a period under a policy.

    Raises:
        ConfigError, UnknownTier: there is no such policy; says which there are.
        LedgerError: the ledger cannot be read.
    """
    wanted = policy_named(policy, settings)
    world = ReplayWorld(prices=prices, models=known_models(settings), priced_on=priced_on)
    stored, more = _newest(ledger, scope)
    sessions = sessions_of(stored, task_types)
    replayer = Replayer(wanted, world)
    sums = _Sums(world, view)
    for session in sessions:
        sums.add(session, replayer.replay(session))
    return sums.told(policy, priced_on, stored, more=more, points=points)


def _newest(ledger: Ledger, scope: Scope) -> tuple[list[StoredCall], bool]:
    """The newest calls of a scope, oldest first, and whether there are more."""
    since_ms, more = _since(ledger, scope)
    where = Filter(
        since_ms=since_ms,
        until_ms=scope.until_ms,
        project=scope.project,
        task_type=scope.task_type,
        tier=scope.tier,
        model=scope.model,
        session=scope.session,
        key_id=scope.key,
    )
    found: deque[StoredCall] = deque(maxlen=MOST_REPLAYED + 1)
    for number, call in enumerate(ledger.calls(where), 1):
        found.append(call)
        more = more or number > MOST_REPLAYED
    if len(found) > MOST_REPLAYED:
        found.popleft()
    return list(found), more


def _since(ledger: Ledger, scope: Scope) -> tuple[int | None, bool]:
    """From when on to read, so that not much more is read than is replayed: found by counting, not by reading."""
    more = False
    while True:
        counted = Figures(ledger).series(scope, Measure.CALLS, By.TOTAL, points=400)
        values = counted.lines[0].values if counted.lines else ()
        seen, start = 0, None
        for start_ms, value in zip(reversed(counted.starts_ms), reversed(values), strict=True):
            seen += int(value or 0)
            start = start_ms
            if seen > MOST_REPLAYED:
                break
        if start is None or seen <= MOST_REPLAYED:
            return scope.since_ms, more
        start = start if scope.since_ms is None else max(start, scope.since_ms)
        more = more or start > counted.since_ms
        if counted.step_ms <= _HOUR_MS or start == scope.since_ms:
            return start, more
        scope = replace(scope, since_ms=start)


class _Sums:
    """What sessions come to."""

    def __init__(self, world: ReplayWorld, view: View) -> None:
        self._world = world
        self._view = view
        self._replays: list[SessionReplay] = []
        self._calls = self._moved = self._below = self._unpriced = 0
        self._real: Counter[str] = Counter()
        self._there: Counter[str] = Counter()
        self._real_calls: Counter[str] = Counter()
        self._there_calls: Counter[str] = Counter()
        self._spent: list[tuple[int, int, int]] = []  # when, really, under the policy
        self._tiers = {model.id: spec.tier.name for spec in view.catalog for model in spec.models}

    def add(self, session: ImportedSession, found: SessionReplay) -> None:
        """A session and its replay. An attempt is a call there; here a call is where its last attempt is."""
        self._replays.append(found)
        outcomes = {one.call: one for one in found.outcomes}
        calls: dict[str, list[ImportedCall]] = {}
        for attempt in session.calls:
            calls.setdefault(attempt_of(attempt)[0], []).append(attempt)
        for attempts in calls.values():
            last = max(attempts, key=attempt_of)
            goes = outcomes[last.id]
            self._calls += 1
            self._moved += goes.moved
            self._below += goes.below
            paid = [self._pay(attempt, outcomes[attempt.id]) for attempt in attempts]
            if all(paid):
                self._real_calls[self._tier_of(last)] += 1
                self._there_calls[goes.tier or _OTHER] += 1
            else:
                self._unpriced += 1

    def _pay(self, attempt: ImportedCall, goes: CallOutcome) -> bool:
        """Adds what an attempt cost and would cost; whether both are known."""
        real = self._world.real_rates.nanousd(attempt)
        if real is None or goes.nanousd is None:
            return False
        self._real[self._tier_of(attempt)] += real
        self._there[goes.tier or _OTHER] += goes.nanousd
        self._spent.append((attempt.at_ms, real, goes.nanousd))
        return True

    def _tier_of(self, attempt: ImportedCall) -> str:
        known = self._world.rates.model(attempt.model)
        return self._tiers.get(attempt.model if known is None else known.id, _OTHER)

    def told(
        self, policy: str, priced_on: date | None, stored: list[StoredCall], *, more: bool, points: int
    ) -> models.Replay:
        """All of it."""
        real = sum(one.actual_nanousd for one in self._replays)
        there = {scenario: sum(one.by_scenario[scenario] for one in self._replays) for scenario in Scenario}
        percent = saved_percent(real, there[Scenario.EXPECTED])
        step, line = self._line(points)
        added: Counter[Assumption] = Counter()
        for one in self._replays:
            added.update(one.contributions)
        tiers = sorted(
            {*self._real_calls, *self._there_calls},
            key=lambda tier: (self._view.level(tier) is None, self._view.level(tier) or 0, tier),
        )
        return models.Replay(
            policy=policy,
            priced_on=None if priced_on is None else priced_on.isoformat(),
            since=moment(stored[0].call.started_at_ms) if stored else None,
            until=moment(stored[-1].call.started_at_ms) if stored else None,
            sessions=len(self._replays),
            calls=self._calls,
            moved_calls=self._moved,
            below_calls=self._below,
            unpriced_calls=self._unpriced,
            real_usd=nanousd_to_usd(real),
            replayed_usd=nanousd_to_usd(there[Scenario.EXPECTED]),
            low_usd=nanousd_to_usd(there[Scenario.LOW]),
            high_usd=nanousd_to_usd(there[Scenario.HIGH]),
            saved_usd=nanousd_to_usd(real - there[Scenario.EXPECTED]),
            saved_percent=None if percent is None else float(percent),
            more=more,
            interval_seconds=step // 1000,
            points=line,
            tiers=[
                models.ReplayTier(
                    tier=tier,
                    level=self._view.level(tier),
                    real_calls=self._real_calls[tier],
                    replayed_calls=self._there_calls[tier],
                    real_usd=nanousd_to_usd(self._real[tier]),
                    replayed_usd=nanousd_to_usd(self._there[tier]),
                )
                for tier in tiers
            ],
            assumptions=[
                models.ReplayAssumption(name=name.value, text=_SAYS[name], adds_usd=nanousd_to_usd(nanousd))
                for name, nanousd in added.most_common()
            ],
        )

    def _line(self, points: int) -> tuple[int, list[models.ReplayPoint]]:
        """Cost along the time, in about so many intervals, as long as those of the other charts."""
        if not self._spent:
            return _HOUR_MS, []
        first, last = min(self._spent)[0], max(self._spent)[0]
        hours = stretch_hours(-(-(last - first) // _HOUR_MS), points)
        step, begins = _HOUR_MS * hours, _HOUR_MS * stretch_begins(first // _HOUR_MS, hours)
        real: Counter[int] = Counter()
        there: Counter[int] = Counter()
        for at, was, goes in self._spent:
            real[(at - begins) // step] += was
            there[(at - begins) // step] += goes
        return step, [
            models.ReplayPoint(
                at=moment(begins + place * step),
                real_usd=nanousd_to_usd(real[place]),
                replayed_usd=nanousd_to_usd(there[place]),
            )
            for place in range((last - begins) // step + 1)
        ]
