"""Records for tests: made in one line, and drawn by Hypothesis."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, PlannedRung, Reason
from tierwise.core.money import Price, PriceBand, Usage

PRICE = Price(
    "haiku",
    (
        PriceBand(Decimal("0.10"), Decimal("0.50"), Decimal("0.01"), Decimal("0.125"), Decimal("0.20")),
        PriceBand(Decimal("0.50"), Decimal("2.50"), Decimal("0.05"), Decimal("0.625"), Decimal(1), 100_000),
    ),
    "published prices",
    valid_from=date(2026, 10, 7),
    conditions=("batch",),
)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 20_000 * DAY_MS


def call(call_id: str = "call-1", **changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "call_id": call_id,
        "started_at_ms": START_MS,
        "status": CallStatus.ANSWERED,
        "task_type": "summarization",
        "family": "transform",
        "needs": "processing",
        "confidence": 0.9,
        "abstained": False,
        "tier": "haiku",
        "model": "haiku",
        "planned_tier": "haiku",
        "baseline_model": "sonnet",
        "baseline_nanousd": 5_000,
        "latency_ms": 900,
        "session": "s",
        "project": "p",
        "tags": (("team", "search"),),
        "reasons": (Reason("type", "asks for a summary"),),
        "ladder": (PlannedRung("haiku", "haiku", 1_500), PlannedRung("sonnet", "sonnet", 4_500)),
    }
    return CallRecord(**{**values, **changes})


def attempt(call_id: str = "call-1", number: int = 1, **changes: Any) -> AttemptRecord:
    values: dict[str, Any] = {
        "call_id": call_id,
        "number": number,
        "tier": "haiku",
        "model": "haiku",
        "provider": "anthropic",
        "started_at_ms": START_MS,
        "outcome": OutcomeKind.ACCEPTED,
        "usage": Usage(100, 20, 3, 4, 5, 6, 1),
        "price": PRICE,
        "cost_nanousd": 2_000,
        "latency_ms": 800,
        "ttft_ms": 100,
    }
    return AttemptRecord(**{**values, **changes})


# Any text that SQLite can hold, quotes and controls and other scripts among it.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.sampled_from(["local", "haiku", "sonnet"])
ids = st.sampled_from(["a", "b", "c"])
counts = st.integers(0, 10**10)  # times the dearest rate, and all of them together: still a 64-bit number
money = st.none() | st.integers(0, 10**12)
durations = st.none() | st.integers(0, 10**7)
rates = st.decimals(0, 10_000, places=6)
bands = st.builds(PriceBand, rates, rates, rates, rates, rates, st.integers(0, 10**6))
prices = st.builds(
    Price,
    names,
    st.lists(bands, min_size=1, max_size=2).map(tuple),
    texts,
    valid_from=st.none() | st.dates(),
    conditions=st.lists(texts, max_size=2).map(tuple),
    usd_per_web_search=rates,
    usd_per_hour=rates,
)
usages = st.builds(Usage, counts, counts, counts, counts, counts, counts, counts, st.booleans())
calls = st.builds(
    CallRecord,
    call_id=ids,
    started_at_ms=st.integers(0, 3 * DAY_MS) | st.integers(0, 25 * DAY_MS),
    status=st.sampled_from(CallStatus),
    task_type=st.sampled_from(["summarization", "tagging"]),
    family=texts,
    needs=texts,
    confidence=st.floats(0, 1),
    abstained=st.booleans(),
    tier=names,
    model=names,
    planned_tier=names,
    baseline_model=names,
    baseline_nanousd=money,
    latency_ms=durations,
    session=st.none() | texts,
    project=st.none() | st.sampled_from(["", "p", "q"]),
    tags=st.dictionaries(texts, texts, max_size=2).map(lambda d: tuple(d.items())),
    reasons=st.lists(st.builds(Reason, texts, texts), max_size=2).map(tuple),
    error=st.none() | texts,
    key_id=st.none() | st.sampled_from(["k", "l"]),
    ladder=st.none() | st.lists(st.builds(PlannedRung, names, texts, counts), max_size=3).map(tuple),
)
attempts = st.builds(
    AttemptRecord,
    call_id=ids,
    number=st.integers(1, 3),
    tier=names,
    model=names,
    provider=texts,
    started_at_ms=st.integers(0, 3 * DAY_MS),
    outcome=st.sampled_from(OutcomeKind),
    detail=texts,
    usage=usages,
    price=st.none() | prices,
    cost_nanousd=money,
    latency_ms=durations,
    ttft_ms=durations,
    wait_ms=st.integers(0, 10**6),
    request_id=st.none() | texts,
    reported_model=st.none() | texts,
)
