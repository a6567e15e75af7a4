"""The climb, as scripts of a conversation: these outcomes in, those attempts out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.plans import outcome, plan, play, rung, said
from tierwise.core.decisions import Outcome, OutcomeKind
from tierwise.core.settings import LimitSettings
from tierwise.engine.climb import Ending, climb, default_max_output_tokens

TRANSIENT = ["rate_limited", "overloaded", "server_error", "timeout", "connection"]


def test_an_accepted_reply_ends_the_climb() -> None:
    """The first choice, accepted, is the only attempt."""
    attempts, end = play(plan(), ["accepted"])
    assert said(attempts) == ["haiku 1"]
    assert end is not None
    assert (end.ending, end.rung.tier.name, end.why) == (Ending.ACCEPTED, "haiku", "first choice")
    first = attempts[0]
    assert (first.number, first.rung_index, first.wait_seconds, first.feedback) == (1, 0, 0.0, None)


def test_a_rejected_reply_is_tried_again_with_feedback_then_climbs() -> None:
    """The same rung is told what was wrong, as often as its retries say; the next rung starts afresh."""
    attempts, end = play(
        plan(rung("local", "0", retries=2), rung("haiku"), rung("sonnet")),
        [outcome("rejected", "no JSON"), outcome("rejected", "still none"), outcome("rejected", "never"), "accepted"],
    )
    assert said(attempts) == ["local 1", "local 2 (no JSON)", "local 3 (still none)", "haiku 1"]
    assert [attempt.number for attempt in attempts] == [1, 2, 3, 4]
    assert attempts[3].why == "local-model rejected: never"
    assert end is not None
    assert end.ending is Ending.ACCEPTED
    assert all(attempt.wait_seconds == 0 for attempt in attempts)


def test_what_the_model_is_told_may_be_more_than_what_is_recorded() -> None:
    """`feedback` goes to the model, `detail` into reasons and records."""
    told = outcome("rejected", "the check refused it", feedback="'Jane Doe' is no number")
    attempts, _ = play(plan(), [told])
    assert said(attempts) == ["haiku 1", "haiku 2 ('Jane Doe' is no number)"]
    assert attempts[1].why == "haiku-model rejected: the check refused it"


def test_a_rejection_without_words_still_gets_feedback() -> None:
    """The retry knows that it is one."""
    assert said(play(plan(), ["rejected"])[0]) == ["haiku 1", "haiku 2 (it was not acceptable)"]


def test_a_truncated_reply_gets_twice_the_room() -> None:
    """Cut off: the same rung with a higher limit and no feedback, up to the model's own limit; then up."""
    attempts, _ = play(plan(rung("haiku", retries=9), rung("sonnet")), ["truncated"] * 5)
    assert said(attempts) == ["haiku 1", "haiku 2", "haiku 3", "haiku 4", "haiku 5", "sonnet 1"]
    assert [attempt.max_output_tokens for attempt in attempts] == [1200, 2400, 4800, 9600, 10_000, 1200]
    attempts, _ = play(plan(rung("haiku", retries=9, max_output_tokens=2_000), rung("sonnet")), ["truncated"] * 2)
    assert [attempt.max_output_tokens for attempt in attempts] == [1200, 2000, 1200]


def test_a_limit_of_the_callers_is_never_raised() -> None:
    """Where the caller fixed max_tokens, a truncated reply climbs with the same limit."""
    attempts, _ = play(plan(rung("haiku", retries=5), rung("sonnet")), ["truncated"], fixed=50)
    assert [(a.rung.tier.name, a.max_output_tokens) for a in attempts] == [("haiku", 50), ("sonnet", 50)]


def test_rejections_and_truncations_share_the_retries() -> None:
    """A rung's retries count every reply that was not good enough."""
    attempts, _ = play(plan(rung("haiku", retries=2), rung("sonnet")), ["rejected", "truncated", "rejected"])
    assert said(attempts) == ["haiku 1", "haiku 2 (it was not acceptable)", "haiku 3", "sonnet 1"]


def test_a_refusal_climbs_at_once() -> None:
    """The same model would refuse again."""
    assert said(play(plan(rung("haiku", retries=9), rung("sonnet")), ["refused"])[0]) == ["haiku 1", "sonnet 1"]


@pytest.mark.parametrize("kind", ["unavailable", "too_large", "not_run"])
def test_what_cannot_be_served_climbs_at_once(kind: str) -> None:
    """A model that is not there, or too small for it, is not tried again."""
    attempts, _ = play(plan(rung("haiku", retries=9), rung("sonnet")), [outcome(kind, "words")])
    assert said(attempts) == ["haiku 1", "sonnet 1"]
    assert attempts[1].why == f"haiku-model {kind.replace('_', ' ')}: words"


@pytest.mark.parametrize("kind", TRANSIENT)
def test_transient_faults_keep_the_rung(kind: str) -> None:
    """A fault that passes waits and tries the same model, `transient_retries` times; then it climbs without waiting."""
    attempts, _ = play(plan(), [kind] * 3, limits=LimitSettings(transient_retries=2), random=(1.0,))
    assert said(attempts) == ["haiku 1", "haiku 2", "haiku 3", "sonnet 1"]
    assert [attempt.wait_seconds for attempt in attempts] == [0.0, 0.5, 1.0, 0.0]


def test_faults_do_not_use_up_the_retries_of_rejections() -> None:
    """Faults and rejections are counted apart, and what was wrong is not forgotten over a fault."""
    attempts, _ = play(plan(), [outcome("rejected", "no JSON"), "overloaded", "timeout", outcome("rejected", "x")])
    assert said(attempts) == ["haiku 1", "haiku 2 (no JSON)", "haiku 3 (no JSON)", "haiku 4 (no JSON)", "sonnet 1"]


def test_no_retries_mean_none() -> None:
    """Zero is a number of retries."""
    limits = LimitSettings(transient_retries=0)
    assert said(play(plan(), ["timeout"], limits=limits)[0]) == ["haiku 1", "sonnet 1"]
    assert said(play(plan(rung("haiku", retries=0), rung("sonnet")), ["rejected"])[0]) == ["haiku 1", "sonnet 1"]


@pytest.mark.parametrize("kind", ["unauthorized", "invalid_request"])
def test_fatal_answers_end_the_climb(kind: str) -> None:
    """401 and our own 400 stop it: no other attempt is made, on any rung."""
    attempts, end = play(plan(), [outcome(kind, "bad key")])
    assert said(attempts) == ["haiku 1"]
    assert end is not None
    assert (end.ending, end.why) == (Ending.REFUSED_REQUEST, "bad key")


def test_a_cancelled_attempt_ends_the_climb() -> None:
    """Whoever gave up is not asked again."""
    _, end = play(plan(), ["cancelled"])
    assert end is not None
    assert end.ending is Ending.CANCELLED


def test_a_ladder_ends() -> None:
    """When every rung was tried, the last reason says why."""
    attempts, end = play(plan(), ["refused", outcome("refused", "no")])
    assert said(attempts) == ["haiku 1", "sonnet 1"]
    assert end is not None
    assert (end.ending, end.rung.tier.name, end.why) == (Ending.EXHAUSTED, "sonnet", "sonnet-model refused: no")


# ------------------------------------------------------------------ waiting


@given(st.floats(0, 1), st.integers(1, 12), st.floats(0, 5), st.floats(0, 60))
def test_jitter_stays_in_its_window(number: float, faults: int, base: float, cap: float) -> None:
    """A wait is between nothing and the doubling window, and the window never exceeds the cap."""
    limits = LimitSettings(transient_retries=12, backoff_base_seconds=base, backoff_cap_seconds=cap)
    attempts, _ = play(plan(), ["overloaded"] * faults, limits=limits, random=(number,))
    window = min(cap, base * 2 ** (faults - 1))
    assert attempts[-1].wait_seconds == pytest.approx(window * number)


@pytest.mark.parametrize("number", [0.0, 0.3, 1.0])
def test_a_server_is_never_asked_before_it_wants(number: float) -> None:
    """retry-after is the least wait; jitter is only added, so that not all come back at once."""
    attempts, _ = play(plan(), [outcome("rate_limited", retry_after_seconds=7.0)], random=(number,))
    assert said(attempts) == ["haiku 1", "haiku 2"]
    assert 7.0 <= attempts[1].wait_seconds <= 7.0 + 0.5 / 4


def test_a_wait_that_nobody_would_sit_out_ends_the_last_rung() -> None:
    """A server that asks for an hour is not waited for; the reason says how long it wanted."""
    attempts, end = play(plan(rung("haiku")), [outcome("rate_limited", retry_after_seconds=3600.0)])
    assert said(attempts) == ["haiku 1"]
    assert end is not None
    assert end.ending is Ending.EXHAUSTED
    assert "to be tried again in 3600 s" in end.why


def test_a_long_wait_climbs_instead() -> None:
    """A wait beyond the cap is not made while a higher rung could answer now; on the last rung it is."""
    long = outcome("rate_limited", retry_after_seconds=31.0)
    attempts, _ = play(plan(), [long, long], random=(0.0,))
    assert said(attempts) == ["haiku 1", "sonnet 1", "sonnet 2"]
    assert [attempt.wait_seconds for attempt in attempts] == [0.0, 0.0, 31.0]


# ------------------------------------------------------------------ bounds


def test_the_deadline_counts_the_wait() -> None:
    """An attempt that could only start after the deadline is not made, and the end says what came before."""
    late = outcome("rate_limited", "slow down", retry_after_seconds=6.0, elapsed_seconds=5.0)
    attempts, end = play(plan(deadline_seconds=10.0), [late], random=(0.0,))
    assert said(attempts) == ["haiku 1"]
    assert end is not None
    assert end.ending is Ending.DEADLINE
    assert "11.0 s would be gone before haiku-model is asked; 10 s allowed" in end.why
    assert "the last step was: haiku-model rate limited: slow down" in end.why
    assert said(play(plan(deadline_seconds=12.0), [late], random=(0.0,))[0]) == ["haiku 1", "haiku 2"]


def test_no_time_at_all_starts_nothing() -> None:
    """A deadline of zero makes no attempt."""
    attempts, end = play(plan(deadline_seconds=0.0), [])
    assert attempts == []
    assert end is not None
    assert end.ending is Ending.DEADLINE


def test_a_clock_that_jumps_back_does_not_give_time_back() -> None:
    """Elapsed time never shrinks."""
    back = [outcome("refused", elapsed_seconds=9.0), outcome("refused", elapsed_seconds=1.0)]
    _, end = play(plan(rung("haiku"), rung("sonnet"), rung("opus"), deadline_seconds=9.0), back)
    assert end is not None
    assert end.ending is Ending.DEADLINE


def test_the_ceiling_counts_failed_attempts() -> None:
    """What failed attempts cost is spent: the next one is made only if its estimate still fits."""
    decision = plan(rung("haiku", "0.01"), rung("sonnet", "0.05"), max_cost_usd="0.065")
    assert said(play(decision, [outcome("refused", cost="0.015")])[0]) == ["haiku 1", "sonnet 1"]
    attempts, end = play(decision, [outcome("refused", cost="0.0151")])
    assert said(attempts) == ["haiku 1"]
    assert end is not None
    assert end.ending is Ending.COST_CEILING
    assert "$0.0151 is spent and sonnet-model is estimated at $0.05: over the ceiling of $0.065" in end.why


def test_an_unpriced_attempt_counts_at_its_estimate() -> None:
    """Where nobody knows what an attempt cost, it is not taken for free."""
    decision = plan(rung("haiku", "0.01"), rung("sonnet", "0.05"), max_cost_usd="0.055")
    _, end = play(decision, [outcome("refused", cost=None)])
    assert end is not None
    assert end.ending is Ending.COST_CEILING


outcomes = st.builds(
    Outcome,
    st.sampled_from([kind for kind in OutcomeKind if kind is not OutcomeKind.OPEN]),
    st.text(max_size=5),
    st.one_of(st.none(), st.decimals(0, 1, places=3)),
    st.floats(0, 100),
    st.one_of(st.none(), st.floats(0, 100)),
)
rungs = st.lists(
    st.builds(
        rung,
        st.sampled_from(["local", "haiku", "sonnet", "opus"]),
        st.sampled_from(["0", "0.01", "0.3"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300)
@given(
    ladder=rungs,
    found=st.lists(outcomes, min_size=1, max_size=40),
    ceiling=st.one_of(st.none(), st.sampled_from(["0", "0.02", "1"])),
    deadline=st.one_of(st.none(), st.floats(0, 120)),
    retries=st.integers(0, 4),
    fixed=st.one_of(st.none(), st.integers(1, 10_000)),
)
def test_every_climb_ends_and_only_goes_up(
    *,
    ladder: list[Any],
    found: list[Outcome],
    ceiling: str | None,
    deadline: float | None,
    retries: int,
    fixed: int | None,
) -> None:
    """Whatever is found, again and again, a climb ends, never goes down, and never starts what the ceiling forbids."""
    decision = plan(*ladder, max_cost_usd=ceiling, deadline_seconds=deadline)
    generator = climb(
        decision, LimitSettings(transient_retries=retries), random=lambda: 0.5, fixed_max_output_tokens=fixed
    )
    spent = Decimal(0)
    elapsed = 0.0
    at = 0
    made = 0
    outcome_of: Outcome | None = None
    bound = sum(1 + r.retries + retries for r in decision.ladder)
    while True:
        try:
            attempt = next(generator) if outcome_of is None else generator.send(outcome_of)
        except StopIteration as stop:
            assert stop.value.ending in set(Ending)
            break
        made += 1
        assert made <= bound
        assert attempt.number == made
        assert attempt.rung_index >= at
        assert attempt.rung is decision.ladder[attempt.rung_index]
        at = attempt.rung_index
        assert attempt.max_output_tokens is not None
        assert fixed is None or attempt.max_output_tokens == fixed
        assert decision.max_cost_usd is None or spent + attempt.rung.estimated_cost_usd <= decision.max_cost_usd
        assert deadline is None or elapsed + attempt.wait_seconds < deadline
        outcome_of = found[(made - 1) % len(found)]
        cost = attempt.rung.estimated_cost_usd if outcome_of.cost_usd is None else outcome_of.cost_usd
        spent += cost
        elapsed = max(elapsed, outcome_of.elapsed_seconds)
        overrun = max(Decimal(0), cost - attempt.rung.estimated_cost_usd)
        assert decision.max_cost_usd is None or spent <= decision.max_cost_usd + overrun


@pytest.mark.parametrize(
    ("found", "tokens"),
    [
        (rung("haiku"), 1_200),
        (rung("local", "0"), 1_200),
        (rung("haiku", thinks=True), 10_000),
        (rung("haiku", thinks=True, max_output_tokens=128_000), 16_000),
        (rung("haiku", max_output_tokens=700), 700),
    ],
)
def test_the_usual_limit_leaves_room(found: Any, tokens: int) -> None:
    """Four times what is expected, at least enough to think in, at most what the model gives."""
    assert default_max_output_tokens(found) == tokens
