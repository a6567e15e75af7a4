"""Figures are what their definitions say, the same wherever they are shown, and quick to look through."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ledger.records import DAY_MS, HOUR_MS, PRICE, attempt, call
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind
from tierwise.core.money import Usage
from tierwise.gateway.metrics import Metrics
from tierwise.ledger import Feedback, FeedbackCounts, Judgement, Ledger, Totals
from tierwise.ledger.counts import Counts, bucket_bounds_ms, latency_bucket, percentile_ms
from tierwise.ledger.keys import Keys
from tierwise.report import spend
from tierwise.report.figures import By, Figures, Measure, Measures, Scope

NOW = 20_000 * DAY_MS + 14 * HOUR_MS
REJECTED = OutcomeKind.REJECTED


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", spool_dirs=(), clock_ms=lambda: NOW) as made:
        yield made


def climbed(call_id: str, at_ms: int, **changes: Any) -> tuple[CallRecord, list[AttemptRecord]]:
    """A call whose first model's reply was rejected."""
    return (
        call(call_id, started_at_ms=at_ms, tier="sonnet", model="sonnet", **changes),
        [
            attempt(call_id, started_at_ms=at_ms, outcome=REJECTED),
            attempt(call_id, 2, started_at_ms=at_ms, tier="sonnet", model="sonnet", cost_nanousd=4000),
        ],
    )


def plain(call_id: str, at_ms: int, **changes: Any) -> tuple[CallRecord, list[AttemptRecord]]:
    return call(call_id, started_at_ms=at_ms, **changes), [attempt(call_id, started_at_ms=at_ms)]


@given(st.integers(0, 10**9))
def test_a_latency_is_within_its_bucket(latency_ms: int) -> None:
    """Buckets leave no gap and are a sixteenth of their latency wide at most (an eighth at their lower end)."""
    low, high = bucket_bounds_ms(latency_bucket(latency_ms))
    assert low <= latency_ms < high
    assert high - low <= max(1, low / 8)
    assert latency_bucket(high) == latency_bucket(latency_ms) + 1


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
def test_percentiles_of_buckets_are_close_to_those_of_the_values(values: list[int], share: float) -> None:
    """What a percentile says is in the bucket of the value that stands there."""
    counts: dict[int, int] = {}
    for value in values:
        counts[latency_bucket(value)] = counts.get(latency_bucket(value), 0) + 1
    exact = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    found = percentile_ms(counts, share)
    assert found is not None
    assert latency_bucket(found) == latency_bucket(exact)


def test_no_percentile_of_nothing() -> None:
    """Where nothing was measured, nothing is said."""
    nothing = Measures(Totals())
    assert nothing.p50_latency_ms is None
    assert nothing.escalation_rate is nothing.acceptance_rate is nothing.cache_hit_share is None
    assert nothing.saved_percent is nothing.mean_confidence is None


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
)
def test_counts_add_up_and_come_off(one: dict[str, int], other: dict[str, int]) -> None:
    """What is added can be taken off again, and zeros are not kept."""
    assert Counts(one) + Counts(other) - Counts(other) == one
    assert Counts(one) + -Counts(one) == {}
    assert Counts.of(Counts(one).text()) == one


def test_figures_are_what_their_definitions_say(ledger: Ledger) -> None:
    """Spent, saved, rates, percentiles and cache of three calls, worked out by hand."""
    used = Usage(100_000, 0, 50_000)  # above the band's 100,000: reading at 0.05 instead of 0.50 $ a million
    ledger.record(*plain("a", NOW, latency_ms=100))
    ledger.record(*climbed("b", NOW, latency_ms=300))
    ledger.record(
        call("c", started_at_ms=NOW, status=CallStatus.FAILED, latency_ms=200),
        [attempt("c", usage=used, outcome=OutcomeKind.REFUSED, cost_nanousd=0)],
    )
    found = Figures(ledger).measures()
    assert found.calls == 3
    assert found.spent_usd == Decimal("0.000008")
    assert found.baseline_usd == Decimal("0.00001")
    assert found.saved_usd == Decimal("0.000002")
    assert found.saved_percent == Decimal("20.0")
    assert found.escalation_rate == Decimal("0.3333")
    assert found.acceptance_rate == Decimal("0.5000")
    assert found.failures == {"rejected": 1, "refused": 1}
    assert found.p50_latency_ms is not None
    assert 192 <= found.p50_latency_ms < 208
    assert found.mean_latency_ms == 200
    small = 3 * PRICE.cache_saved_usd(attempt().usage)
    assert found.cache_saved_usd == small + Decimal("0.0225")
    assert small < 0, "writing cost more than reading saved"


def test_report_metrics_and_figures_agree(ledger: Ledger) -> None:
    """One definition of each figure: `tierwise report`, `/metrics` and the page show the same amounts."""
    records = [
        plain("a", NOW),
        climbed("b", NOW + 5),
        (call("c", started_at_ms=NOW), [attempt("c", price=None, cost_nanousd=None)]),
        (
            call("d", started_at_ms=NOW, status=CallStatus.FAILED, baseline_nanousd=None),
            [attempt("d", outcome=REJECTED)],
        ),
    ]
    metrics = Metrics(())
    for one, attempts in records:
        ledger.record(one, attempts)
        metrics.call(one)
        for each in attempts:
            metrics.attempt(each)
    found = Figures(ledger).measures()
    told: dict[str, float] = {}
    for sample in metrics.samples():
        told[sample.name] = told.get(sample.name, 0) + sample.value
    row = spend(ledger).total
    assert told["tierwise_calls_total"] == found.calls == row.totals.calls
    assert told["tierwise_attempts_total"] == found.totals.attempts == row.totals.attempts
    assert Decimal(str(told["tierwise_cost_usd_total"])).quantize(Decimal("1e-9")) == found.spent_usd == row.cost_usd
    assert Decimal(str(told["tierwise_baseline_usd_total"])) == found.baseline_usd == row.baseline_cost_usd
    assert told["tierwise_unpriced_attempts_total"] == found.totals.unpriced_attempts
    assert told["tierwise_tokens_total"] == found.tokens
    assert (row.saved_usd, row.saved_percent) == (found.saved_usd, found.saved_percent)


def test_overview_compares_with_the_time_before(ledger: Ledger) -> None:
    """The time as long before is told beside it, and the points between add up to the whole."""
    for hour in range(48):
        ledger.record(*plain(f"{hour:02d}", NOW - hour * HOUR_MS))
    found = Figures(ledger).overview(Scope(since_ms=NOW - 11 * HOUR_MS, until_ms=NOW + HOUR_MS), points=4)
    assert found.before is not None
    assert (found.measures.calls, found.before.calls) == (12, 12)
    assert [point.measures.calls for point in found.points] == [3] * 4
    assert found.points[0].start_ms == found.since_ms == NOW - 11 * HOUR_MS
    whole = Figures(ledger).overview()
    assert whole.before is None
    assert sum(point.measures.calls for point in whole.points) == whole.measures.calls == 48


def test_an_empty_ledger_has_figures_too(ledger: Ledger) -> None:
    """Nothing that was recorded is nothing spent, in every view."""
    figures = Figures(ledger)
    assert figures.overview().measures.calls == 0
    assert figures.task_types() == figures.calls().calls == ()
    assert figures.task_type(Scope(), "summarization") is None
    assert figures.conversation("s") is None
    assert figures.quality().reliability == figures.cache().models == figures.choices().projects == ()
    for measure in Measure:
        assert len(figures.series(Scope(), measure).lines) == 1
        assert figures.series(Scope(), measure, By.TIER).lines == ()


@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize("by", By)
def test_a_series_has_the_figures_of_its_stretches(ledger: Ledger, measure: Measure, by: By) -> None:
    """Each value is the figure of that stretch and line alone."""
    for n in range(6):
        make = climbed if n % 3 else plain
        ledger.record(*make(str(n), NOW - n * HOUR_MS, project="q" if n % 2 else None, key_id="k"))
    figures = Figures(ledger)
    scope = Scope(since_ms=NOW - 5 * HOUR_MS, until_ms=NOW + HOUR_MS)
    series = figures.series(scope, measure, by, points=3)
    assert series.starts_ms == tuple(NOW - hours * HOUR_MS for hours in (5, 4, 2, 0))
    for line in series.lines:
        for (start, end), value in zip(pairwise((*series.starts_ms, series.until_ms)), line.values, strict=True):
            chosen: dict[str, Any] = {} if by is By.TOTAL else {by.value: line.name}
            alone = figures.measures(Scope(since_ms=start, until_ms=end, **chosen))
            assert alone.value(measure) == value


@pytest.mark.parametrize(("points", "hours"), [(60, 3), (30, 6), (9, 24), (3, 72)])
def test_stretches_begin_where_clocks_begin_them(ledger: Ledger, points: int, hours: int) -> None:
    """A week is cut at midnight and at whole multiples of its stretches, whenever it begins."""
    for since_ms in (NOW - 7 * DAY_MS, NOW - 7 * DAY_MS + HOUR_MS):
        scope = Scope(since_ms=since_ms, until_ms=since_ms + 7 * DAY_MS)
        series = Figures(ledger).series(scope, Measure.CALLS, points=points)
        assert series.step_ms == hours * HOUR_MS
        assert series.starts_ms[0] == since_ms
        assert all(start_ms % series.step_ms == 0 for start_ms in series.starts_ms[1:])


def test_long_ago_is_told_by_the_day(ledger: Ledger) -> None:
    """More than five weeks back sums by the hour are gone: times are widened to UTC days, and said to be."""
    ledger.record(*plain("old", NOW - 50 * DAY_MS))
    ledger.sum_up(left=0)
    found = Figures(ledger).overview(Scope(since_ms=NOW - 50 * DAY_MS, until_ms=NOW - 50 * DAY_MS + 1))
    assert found.measures.calls == 1
    assert found.until_ms - found.since_ms == found.step_ms == DAY_MS


def test_task_types_have_their_tiers_and_feedback(ledger: Ledger) -> None:
    """A type is one row, dearest first, with each tier's part; one alone has its latest calls."""
    ledger.record(*climbed("a", NOW))
    ledger.record(*plain("b", NOW, task_type="tagging", confidence=0.5))
    ledger.give_feedback(Feedback(call_id="b", at_ms=1, verdict=Judgement.BAD, task_type="summarization"))
    first, second = Figures(ledger).task_types()
    assert (first.task_type, [one.tier for one in first.tiers]) == ("summarization", ["haiku", "sonnet"])
    assert first.tiers[0].measures.acceptance_rate == 0
    assert (second.measures.mean_confidence, second.feedback) == (0.5, FeedbackCounts(bad=1, typed=1))
    detail = Figures(ledger).task_type(Scope(), "tagging")
    assert detail is not None
    assert [one.call_id for one in detail.examples] == ["b"]
    assert detail.figures == second


def test_quality_tells_how_sure_and_how_right(ledger: Ledger) -> None:
    """Confidence stands beside what feedback said was right; an acceptance has its interval; a rung its reason."""
    ledger.record(*climbed("a", NOW, confidence=0.95))
    ledger.record(*plain("b", NOW, confidence=1.0))
    for call_id, right in (("a", "tagging"), ("b", "summarization")):
        ledger.give_feedback(Feedback(call_id=call_id, at_ms=1, task_type=right))
    found = Figures(ledger).quality()
    (band,) = found.reliability
    assert (band.low, band.high, band.judged, band.right) == (0.9, 1.0, 2, 1)
    acceptance = {one.tier: one for one in found.acceptance}
    assert (acceptance["haiku"].rate, acceptance["sonnet"].rate) == (0.5, 1.0)
    assert 0 < acceptance["haiku"].low < 0.5 < acceptance["haiku"].high < 1
    assert [(one.tier, one.outcome, one.attempts) for one in found.left] == [("haiku", "rejected", 1)]


def test_calls_are_paged_and_searched(ledger: Ledger) -> None:
    """The latest first, each once, by any filter, text or cost; a page of a rare one does not look through all."""
    ledger.record_many([plain(f"c{n:04d}", NOW - n * 1000) for n in range(1200)])
    ledger.record(*climbed("rare", NOW - 40 * DAY_MS, error="the Stream was CUT", session="t"))
    figures = Figures(ledger)
    seen: list[str] = []
    cursor = None
    while True:
        page = figures.calls(cursor=cursor, limit=500)
        seen += [one.call_id for one in page.calls]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [*(f"c{n:04d}" for n in range(1200)), "rare"]
    for found in (
        figures.calls(Scope(model="sonnet")),
        figures.calls(Scope(session="t")),
        figures.calls(text="stream was"),
        figures.calls(least_usd=Decimal("0.000003")),
    ):
        assert [one.call_id for one in found.calls] == ["rare"]
    one = figures.calls(Scope(model="sonnet")).calls[0]
    assert (one.attempts, one.models, one.cost_nanousd, one.tokens_out) == (2, 2, 6000, 40)
    assert figures.calls(Scope(status=CallStatus.FAILED)).calls == ()
    with pytest.raises(ValueError, match="is no cursor"):
        figures.calls(cursor="here")


def test_a_call_that_runs_is_in_lists_and_figures(ledger: Ledger) -> None:
    """What has not ended counts as open, with its estimate apart."""
    ledger.start(
        call("a", started_at_ms=NOW, status=CallStatus.OPEN, latency_ms=None, baseline_nanousd=None),
        attempt("a", outcome=OutcomeKind.OPEN, cost_nanousd=9),
    )
    figures = Figures(ledger)
    for scope in (Scope(), Scope(since_ms=NOW, until_ms=NOW + 1, project="p", task_type="summarization", tier="haiku")):
        found = figures.measures(scope)
        assert (found.totals.open_calls, found.open_usd, found.spent_usd) == (1, Decimal("9e-9"), 0)
    assert figures.measures(Scope(project="q")).calls == 0
    assert [one.call_id for one in figures.calls().calls] == ["a"]


@pytest.mark.parametrize("dimension", ["project", "key"])
@pytest.mark.parametrize("folded", [True, False])
def test_calls_without_a_project_or_key_can_be_asked_for(ledger: Ledger, dimension: str, folded: bool) -> None:
    """Empty means those without one, in every figure; None means all. An empty name and none are the same."""
    column = {"project": "project", "key": "key_id"}[dimension]
    for n, value in enumerate((None, None, "", "x")):
        ledger.record(*plain(f"c{n}", NOW - n * HOUR_MS, **{column: value}))
        ledger.give_feedback(Feedback(call_id=f"c{n}", at_ms=1, verdict=Judgement.GOOD))
    if folded:
        ledger.sum_up(left=0)
    figures = Figures(ledger)
    empty, everything = Scope(since_ms=NOW - DAY_MS, **{dimension: ""}), Scope(since_ms=NOW - DAY_MS)
    for scope, wanted in ((empty, 3), (everything, 4), (Scope(**{dimension: "x"}), 1), (Scope(**{dimension: ""}), 3)):
        assert figures.measures(scope).calls == figures.overview(scope).measures.calls == wanted
        assert sum(value for value in figures.series(scope, Measure.CALLS).lines[0].values if value) == wanted
        assert sum(one.measures.calls for one in figures.task_types(scope)) == wanted
        assert figures.quality(scope).feedback.good == len(figures.calls(scope).calls) == wanted
        assert figures.cache(scope).measures.calls == wanted
        detail = figures.task_type(scope, "summarization")
        assert detail is not None
        assert len(detail.examples) == detail.figures.feedback.good == wanted
    ledger.start(
        call("open", started_at_ms=NOW, status=CallStatus.OPEN, **{column: None}),
        attempt("open", outcome=OutcomeKind.OPEN),
    )
    assert figures.measures(empty).totals.open_calls == 1
    assert figures.measures(Scope(**{dimension: "x"})).totals.open_calls == 0


def test_a_conversation_is_told_by_what_its_calls_were_for(ledger: Ledger) -> None:
    """Main loop first, in order; other sessions' calls are not in it."""
    for n, kind in enumerate(["title", "main", "subagent", "main"]):
        ledger.record(*plain(f"c{n}", NOW + n, session="one", tags=(("kind", kind),)))
    ledger.record(*plain("other", NOW, session="two"))
    found = Figures(ledger).conversation("one")
    assert found is not None
    assert {thread.kind: [one.call_id for one in thread.calls] for thread in found.threads} == {
        "main": ["c1", "c3"],
        "subagent": ["c2"],
        "title": ["c0"],
    }
    assert [thread.kind for thread in found.threads] == ["main", "subagent", "title"]
    assert (found.measures.calls, found.is_whole) == (4, True)
    short = Figures(ledger).conversation("one", most=3)
    assert short is not None
    assert not short.is_whole


def test_choices_are_what_there_is(ledger: Ledger) -> None:
    """Pickers offer what occurs, keys by their names, and no more."""
    key = Keys(ledger).create("agents", NOW).key
    ledger.record(*plain("a", NOW, key_id=key.key_id, project=None, session=None))
    ledger.record(*climbed("b", NOW - 90 * DAY_MS, task_type="tagging"))
    ledger.sum_up(left=0)
    ledger.record(*plain("c", NOW, project="new"))
    found = Figures(ledger).choices()
    assert (found.projects, found.task_types) == (("", "new", "p"), ("summarization", "tagging"))
    assert [(one.key_id, one.name) for one in found.keys] == [("", None), (key.key_id, "agents")]
    assert (found.tiers, found.models, found.sessions) == (("haiku", "sonnet"), ("haiku", "sonnet"), ("s",))
    assert found.last_ms == NOW + HOUR_MS


def test_a_time_that_ends_before_it_begins_is_refused(ledger: Ledger) -> None:
    """Exchanged ends are an error that says so."""
    with pytest.raises(ValueError, match="exchange them"):
        Figures(ledger).measures(Scope(since_ms=2, until_ms=1))
