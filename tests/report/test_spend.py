"""Savings are baseline minus everything spent, exactly, and nothing unknown passes for zero."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from tests.ledger.records import DAY_MS, START_MS, attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import usd_to_nanousd
from tierwise.ledger import Ledger
from tierwise.report import spend
from tierwise.report.spend import moment_ms

START_DAY = date(1970, 1, 1) + timedelta(days=START_MS // DAY_MS)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", spool_dirs=()) as found:
        yield found


def test_failed_attempts_count_against_the_saving(ledger: Ledger) -> None:
    """A rejected cheap attempt and the dear one after it are both spent."""
    ledger.record(
        call(tier="sonnet", model="sonnet", baseline_nanousd=10_000),
        [
            attempt(outcome=OutcomeKind.REJECTED, cost_nanousd=1_000),
            attempt(number=2, tier="sonnet", model="sonnet", cost_nanousd=10_000),
        ],
    )
    report = spend(ledger, "model")
    assert report.total.saved_usd == Decimal("-0.000001")
    assert report.total.saved_percent == Decimal("-10.0")
    assert {row.key: row.saved_usd for row in report.rows} == {("sonnet",): 0, ("haiku",): Decimal("-0.000001")}


def test_unanswered_call_has_no_baseline_and_costs_all_the_same(ledger: Ledger) -> None:
    """What failed saved nothing, whatever the baseline model would have cost."""
    ledger.record(
        call(status=CallStatus.FAILED, baseline_nanousd=10**9), [attempt(outcome=OutcomeKind.TIMEOUT, cost_nanousd=70)]
    )
    total = spend(ledger).total
    assert (total.baseline_cost_usd, total.saved_usd, total.saved_percent) == (0, Decimal("-7E-8"), None)
    assert total.totals.failed_attempts == 1


def test_unpriced_call_is_left_out_of_the_saving_and_counted(ledger: Ledger) -> None:
    """An unknown price makes a call incomparable; what is known of its cost is still shown as spent."""
    ledger.record(call("a", baseline_nanousd=None), [attempt("a", cost_nanousd=500)])
    ledger.record(call("b"), [attempt("b", price=None, cost_nanousd=None)])
    ledger.record(call("c", baseline_nanousd=1000), [attempt("c", cost_nanousd=400)])
    total = spend(ledger).total
    assert (total.totals.unpriced_calls, total.totals.unpriced_attempts) == (2, 1)
    assert (total.saved_usd, total.saved_percent) == (Decimal("6E-7"), Decimal("60.0"))
    assert total.cost_usd == Decimal("9E-7")


def test_open_attempt_is_shown_apart(ledger: Ledger) -> None:
    """What may yet be charged is neither in the cost nor forgotten."""
    ledger.start(call(status=CallStatus.OPEN), attempt(outcome=OutcomeKind.OPEN, cost_nanousd=900))
    total = spend(ledger).total
    assert (total.cost_usd, total.open_cost_usd, total.totals.open_attempts) == (0, Decimal("9E-7"), 1)


def test_article_workload_saves_what_was_computed(ledger: Ledger) -> None:
    """120/40/80/60/15/10 calls a day: $2.2815 before, $0.8955 after, 60.7 % less."""
    workload = [
        ("intent_classification", 120, 800, 50, "local", 0, 0),
        ("summarization", 40, 3200, 400, "local", 0, 0),
        ("field_extraction", 80, 600, 120, "local", 0, 0),
        ("schema_validation", 60, 400, 80, "haiku", 1, 5),
        ("content_writing", 15, 2000, 1500, "sonnet", 3, 15),
        ("code_generation", 10, 4000, 2000, "sonnet", 3, 15),
    ]
    for task_type, count, tokens_in, tokens_out, tier, usd_in, usd_out in workload:
        baseline = usd_to_nanousd(Decimal(3 * tokens_in + 15 * tokens_out) / 1_000_000)
        cost = usd_to_nanousd(Decimal(usd_in * tokens_in + usd_out * tokens_out) / 1_000_000)
        for n in range(count):
            call_id = f"{task_type}-{n}"
            ledger.record(
                call(call_id, task_type=task_type, tier=tier, model=tier, baseline_nanousd=baseline),
                [attempt(call_id, tier=tier, model=tier, cost_nanousd=cost)],
            )
    report = spend(ledger)
    assert report.total.baseline_cost_usd == Decimal("2.2815")
    assert report.total.cost_usd == Decimal("0.8955")
    assert report.total.saved_usd == Decimal("1.386")
    assert report.total.saved_percent == Decimal("60.7")
    assert sum(row.saved_usd for row in report.rows) == report.total.saved_usd
    assert [row.key[0] for row in report.rows][:2] == ["content_writing", "code_generation"]
    assert report.total.mean_latency_ms == 900


def test_days_are_utc_and_in_order(ledger: Ledger) -> None:
    """A call belongs to the UTC day on which it began; `since` and `until` bound days, the end exclusive."""
    for n in (2, 0, 1):
        ledger.record(call(str(n), started_at_ms=START_MS + n * DAY_MS + DAY_MS - 1), [attempt(str(n), cost_nanousd=n)])
    report = spend(ledger, "day")
    assert [row.key for row in report.rows] == [((START_DAY + timedelta(days=n)).isoformat(),) for n in range(3)]
    middle = START_DAY + timedelta(days=1)
    assert spend(ledger, since=middle, until=middle + timedelta(days=1)).total.totals.calls == 1
    noon = datetime(START_DAY.year, START_DAY.month, START_DAY.day, 12, tzinfo=UTC)
    assert spend(ledger, since=noon).total.totals.calls == 3
    assert spend(ledger, since=noon + timedelta(days=1)).total.totals.calls == 2


@pytest.mark.parametrize(
    "choice",
    [
        {"project": "p"},
        {"key_id": ""},
        {"tier": "haiku"},
        {"model": "haiku"},
        {"task_type": "tagging"},
    ],
)
def test_filter_keeps_its_own(ledger: Ledger, choice: dict[str, str]) -> None:
    """Each filter leaves what matches and drops the rest."""
    ledger.record(call("a", task_type="tagging"), [attempt("a")])
    other = {"tier": "opus", "model": "opus"}
    ledger.record(call("b", project="q", key_id="k", **other), [attempt("b", **other)])
    assert spend(ledger, "project", **choice).rows[0].key == ("p",)  # type: ignore[arg-type]
    assert spend(ledger, "project", **choice).total.totals.calls == 1  # type: ignore[arg-type]
    assert spend(ledger, session="none such").total.totals.calls == 0
    assert spend(ledger, ("project", "tier"), status=CallStatus.ANSWERED, session="s").rows[1].key == ("q", "opus")


def test_empty_ledger_reports_nothing(ledger: Ledger) -> None:
    """No rows, a sum of zero, and no percentage of nothing."""
    report = spend(ledger)
    assert (report.rows, report.total.cost_usd, report.total.saved_percent) == ((), 0, None)
    assert report.total.mean_latency_ms is None


def test_time_without_a_zone_is_refused() -> None:
    """A naive time could mean any day; a zone makes it exact."""
    with pytest.raises(ValueError, match="no time zone"):
        moment_ms(datetime(2026, 1, 1))  # noqa: DTZ001 that is the point
    east = timezone(timedelta(hours=2))
    assert moment_ms(datetime(1970, 1, 2, 2, 0, 0, 1500, tzinfo=east)) == DAY_MS + 1
