"""Three weeks of calls that never were: made up, so that the page has something to show; and hostile ones."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from tierwise.config import load_settings
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, PlannedRung, Reason
from tierwise.core.money import Price, Usage, usd_to_nanousd
from tierwise.ledger import Ledger
from tierwise.ledger.feedback import Feedback, Judgement
from tierwise.prices import PriceBook

DAYS = 21
BASELINE = "claude-sonnet-5-5"
CALLS = 1_200
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
SCRIPT = "<img src=x onerror=\"alert('harm')\"><script>alert('harm')</script>"
HOSTILE = f"{SCRIPT}\u202etxet desrever\u2066{'A' * 10_000}"


@dataclass(frozen=True)
class Made:
    """A tier as it is made up."""

    tier: str
    model: str
    accepted: float
    latency_ms: int


@dataclass(frozen=True)
class Kind:
    """A task type as it is made up: the tier that is tried first, and how often it occurs."""

    name: str
    family: str
    needs: str
    first: int
    often: int


TIERS = (
    Made("haiku", "claude-haiku-5-5", 0.93, 900),
    Made("sonnet", "claude-sonnet-5-5", 0.985, 2_600),
    Made("opus", "claude-opus-5-5", 1.0, 5_200),
)
TYPES = (
    Kind("summarization", "transform", "processing", 0, 22),
    Kind("topic_classification", "classify", "processing", 0, 18),
    Kind("entity_extraction", "extract", "processing", 0, 14),
    Kind("translation", "transform", "processing", 0, 8),
    Kind("code_generation", "code", "judgment", 1, 15),
    Kind("debugging", "code", "judgment", 1, 11),
    Kind("code_review", "code", "judgment", 1, 8),
    Kind("test_generation", "code", "judgment", 1, 6),
    Kind("architecture_decision", "critical", "critical", 2, 2),
    Kind("legal_analysis", "critical", "critical", 2, 1),
)
FAILURES = (OutcomeKind.REJECTED, OutcomeKind.TRUNCATED, OutcomeKind.OVERLOADED, OutcomeKind.REFUSED)
PROJECTS = ("checkout", "search", "docs", None)


@cache
def _price(model: str) -> Price:
    """As shipped, so that what a replay finds is comparable."""
    folder = Path(__file__).parent
    settings = load_settings(path=None, env={"HOME": str(folder)}, cwd=folder)
    _, found = settings.catalog.model(model)
    return PriceBook(settings.prices, settings.providers).price(found, date(2026, 11, 1))


def _cost(model: str, usage: Usage) -> int:
    return usd_to_nanousd(_price(model).cost_usd(usage))


def record_history(ledger: Ledger, now_ms: int | None = None) -> None:
    """Calls of the last three weeks up to now: more by day than by night, a few that climb, fail or are cut off."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    draw = random.Random(7)
    weights = [kind.often for kind in TYPES]
    kinds: list[Kind] = []
    for number in range(CALLS):
        at_ms = now_ms - DAYS * DAY_MS + int(DAYS * DAY_MS * number / CALLS) - draw.randrange(HOUR_MS)
        if not 6 <= (at_ms // HOUR_MS) % 24 < 22:
            at_ms -= 8 * HOUR_MS  # people sleep
        kind = draw.choices(TYPES, weights)[0]
        kinds.append(kind)
        _record(ledger, draw, number, min(at_ms, now_ms - 60_000), kind)
    for number in range(0, CALLS, 9):
        right = draw.random() < 0.9
        judgement = Judgement.GOOD if right else Judgement.BAD
        was = kinds[number].name if right else "rewriting"
        given = Feedback(call_id=f"call-{number:05d}", at_ms=now_ms, verdict=judgement, task_type=was, source="made up")
        ledger.give_feedback(given)


def _record(ledger: Ledger, draw: random.Random, number: int, at_ms: int, kind: Kind) -> None:
    call_id = f"call-{number:05d}"
    usage = Usage(
        input_tokens=draw.randrange(300, 6_000),
        output_tokens=draw.randrange(40, 1_500),
        cache_read_tokens=draw.randrange(0, 30_000) if number % 3 else 0,
        cache_write_5m_tokens=draw.randrange(0, 4_000) if number % 5 == 0 else 0,
    )
    attempts: list[AttemptRecord] = []
    offset_ms, rung, answered = 0, kind.first, False
    while not answered and len(attempts) < 4:
        made = TIERS[min(rung, 2)]
        fails = draw.random() > made.accepted or number % 97 == 0
        outcome = draw.choice(FAILURES)
        took_ms = int(made.latency_ms * draw.uniform(0.5, 2.4))
        attempts.append(
            AttemptRecord(
                call_id=call_id,
                number=len(attempts) + 1,
                tier=made.tier,
                model=made.model,
                provider="anthropic",
                started_at_ms=at_ms + offset_ms,
                outcome=outcome if fails else OutcomeKind.ACCEPTED,
                detail="the reply does not satisfy the client's schema" if fails else "",
                usage=usage,
                price=_price(made.model),
                cost_nanousd=_cost(made.model, usage),
                latency_ms=took_ms,
                ttft_ms=took_ms // 4,
                wait_ms=200 if offset_ms else 0,
            )
        )
        offset_ms += took_ms + 200
        answered = not fails
        rung += 1
    last = attempts[-1]
    session = f"{number // 12:08x}-0000-4000-8000-000000000000"
    ledger.record(
        CallRecord(
            call_id=call_id,
            started_at_ms=at_ms,
            status=CallStatus.ANSWERED if answered else CallStatus.FAILED,
            task_type=kind.name,
            family=kind.family,
            needs=kind.needs,
            confidence=min(0.99, draw.uniform(0.6, 1.1)),
            abstained=number % 40 == 0,
            tier=last.tier,
            model=last.model,
            planned_tier=TIERS[kind.first].tier,
            baseline_model=BASELINE,
            baseline_nanousd=_cost(BASELINE, usage),
            latency_ms=offset_ms,
            session=session,
            project=PROJECTS[(number // 12) % len(PROJECTS)],
            tags=(("kind", "main" if number % 12 in (0, 5, 9) else "subagent"),),
            reasons=(
                Reason("classified", f"{kind.name.replace('_', ' ')}, by its words"),
                Reason("tier", f"{kind.needs} work is done well by {TIERS[kind.first].tier}"),
            ),
            ladder=tuple(
                PlannedRung(made.tier, made.model, _cost(made.model, usage) * (80 + number % 45) // 100)
                for made in TIERS[kind.first :]
            ),
            error=None if answered else "every rung was tried",
        ),
        attempts,
    )


def record_unpriced(ledger: Ledger) -> None:
    """Calls of a model whose price nobody knows."""
    now_ms = time.time_ns() // 1_000_000
    usage = Usage(input_tokens=1_000, output_tokens=100, cache_read_tokens=2_000)
    for number in range(3):
        at_ms = now_ms - number * HOUR_MS - 60_000
        ledger.record(
            CallRecord(
                call_id=f"unpriced-{number}",
                started_at_ms=at_ms,
                status=CallStatus.ANSWERED,
                task_type="summarization",
                family="transform",
                needs="processing",
                confidence=0.9,
                abstained=False,
                tier="haiku",
                model="a-model-of-my-own",
                planned_tier="haiku",
                baseline_model=BASELINE,
                baseline_nanousd=_cost(BASELINE, usage),
                latency_ms=900,
                session="unpriced",
            ),
            [
                AttemptRecord(
                    call_id=f"unpriced-{number}",
                    number=1,
                    tier="haiku",
                    model="a-model-of-my-own",
                    provider="mine",
                    started_at_ms=at_ms,
                    outcome=OutcomeKind.ACCEPTED,
                    usage=usage,
                    price=None,
                    cost_nanousd=None,
                    latency_ms=900,
                )
            ],
        )


def record_hostile(ledger: Ledger) -> None:
    """Calls whose texts are HTML, written from right to left, and very long."""
    now_ms = time.time_ns() // 1_000_000
    made = TIERS[0]
    usage = Usage(input_tokens=1_000, output_tokens=100)
    for number in range(3):
        at_ms = now_ms - number * HOUR_MS - 60_000
        ledger.record(
            CallRecord(
                call_id=f"hostile-{number}",
                started_at_ms=at_ms,
                status=CallStatus.FAILED if number else CallStatus.ANSWERED,
                task_type=HOSTILE,
                family=HOSTILE,
                needs=HOSTILE,
                confidence=0.5,
                abstained=False,
                tier=HOSTILE,
                model=HOSTILE,
                planned_tier=SCRIPT,
                baseline_model=HOSTILE,
                baseline_nanousd=1_000_000,
                latency_ms=100,
                session=SCRIPT,
                project=HOSTILE,
                tags=((HOSTILE, HOSTILE), ("kind", HOSTILE)),
                reasons=(Reason(HOSTILE, HOSTILE),),
                ladder=(PlannedRung(HOSTILE, HOSTILE, 3_000_000), PlannedRung(SCRIPT, SCRIPT, 10**15)),
                error=HOSTILE if number else None,
                captured_text=HOSTILE,
            ),
            [
                AttemptRecord(
                    call_id=f"hostile-{number}",
                    number=1,
                    tier=HOSTILE,
                    model=HOSTILE,
                    provider=HOSTILE,
                    started_at_ms=at_ms,
                    outcome=OutcomeKind.REJECTED if number else OutcomeKind.ACCEPTED,
                    detail=HOSTILE,
                    usage=usage,
                    price=_price(made.model),
                    cost_nanousd=2_000_000,
                    latency_ms=90,
                    request_id=HOSTILE,
                    reported_model=HOSTILE + "!",
                )
            ],
        )
