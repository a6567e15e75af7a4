"""Token buckets by family: what they let through, what they learn from headers, what they do not believe."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.core.settings import RateLimit
from tierwise.policy.ratelimits import NOTHING, Family, Limits, Load, Measure, family_of

OPUS = Family("anthropic", "opus")
HAIKU = Family("anthropic", "haiku")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def _headers(*, server_clock: datetime = NOW, **told: tuple[object, object, float]) -> dict[str, str]:
    """A reply's headers: `requests=(limit, remaining, seconds until reset)` and so on, in the server's time."""
    found = {"date": format_datetime(server_clock, usegmt=True)}
    for name, (limit, left, reset_seconds) in told.items():
        prefix = f"anthropic-ratelimit-{name.replace('_', '-')}"
        reset = server_clock + timedelta(seconds=reset_seconds)
        found |= {
            f"{prefix}-limit": str(limit),
            f"{prefix}-remaining": str(left),
            f"{prefix}-reset": reset.isoformat().replace("+00:00", "Z"),
        }
    return found


def _left(limits: Limits, now: float = 0.0) -> dict[str, int]:
    return {h.measure.value: h.left for h in limits.headroom(now)}


@pytest.mark.parametrize(
    ("model_id", "family"),
    [
        ("claude-opus-5-5", "opus"),
        ("claude-sonnet-4-5-20250929", "sonnet"),
        ("claude-haiku-5-5", "haiku"),
        ("claude-fable-5-2", "fable"),
        ("claude-3-5-haiku-latest", "haiku"),
        ("us.anthropic.claude-opus-4-5-v1:0", "opus"),
        ("openrouter:anthropic/claude-sonnet-5.5", "sonnet"),
        ("claude-opus-5@20260724", "opus"),
        ("ollama:opus-mt:1b", "ollama:opus-mt:1b"),
        ("claude-next", "claude-next"),
        ("gpt-x", "gpt-x"),
        ("", ""),
    ],
)
def test_models_share_the_limits_of_their_family(model_id: str, family: str) -> None:
    """A Claude model belongs to its family wherever it is hosted; any other model is a family of its own."""
    assert family_of(model_id) == family


def test_what_is_not_known_is_not_limited() -> None:
    """Without configuration and headers everything goes, and nothing is remembered."""
    limits = Limits()
    for _ in range(100):
        assert limits.wait(OPUS, 10**9, 10**9, 0.0) == 0.0
        assert limits.take_if_room(OPUS, 10**9, 10**9, 0.0) is not None
    assert limits.headroom(0.0) == ()


def test_a_bucket_refills_continuously() -> None:
    """Sixty a minute are one a second: after the burst, each second lets one more through, half a second none."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    for _ in range(60):
        assert limits.take_if_room(OPUS, 5, 5, 0.0) is not None
    assert limits.take_if_room(OPUS, 5, 5, 0.0) is None
    assert limits.wait(OPUS, 5, 5, 0.0) == pytest.approx(1.0)
    assert limits.wait(OPUS, 5, 5, 0.5) == pytest.approx(0.5)
    assert limits.take_if_room(OPUS, 5, 5, 0.9) is None
    assert limits.take_if_room(OPUS, 5, 5, 1.0) is not None
    assert limits.take_if_room(OPUS, 5, 5, 1.5) is None


@pytest.mark.parametrize(
    ("limit", "input_tokens", "output_tokens"),
    [
        (RateLimit(requests_per_minute=1), 1, 1),
        (RateLimit(input_tokens_per_minute=600), 600, 1),
        (RateLimit(output_tokens_per_minute=600), 1, 600),
    ],
)
def test_each_measure_limits(limit: RateLimit, input_tokens: int, output_tokens: int) -> None:
    """Requests, input and output are limited each for itself, and the scarcest decides."""
    limits = Limits({"opus": limit})
    assert limits.take_if_room(OPUS, input_tokens, output_tokens, 0.0) is not None
    assert limits.wait(OPUS, input_tokens, output_tokens, 0.0) == pytest.approx(60.0)


def test_families_and_pools_do_not_share() -> None:
    """What one family, or one pool of keys, has used up is none of the others' business."""
    limits = Limits({"opus": RateLimit(requests_per_minute=1), "haiku": RateLimit(requests_per_minute=1)})
    limits.take(OPUS, 1, 1, 0.0)
    assert limits.wait(OPUS, 1, 1, 0.0) > 0
    assert limits.wait(HAIKU, 1, 1, 0.0) == 0
    assert limits.wait(Family("second-key", "opus"), 1, 1, 0.0) == 0


def test_too_large_an_input_never_goes_and_too_large_an_output_waits_for_a_full_bucket() -> None:
    """An input beyond a minute's limit would be refused for ever; an output is only limited while it is generated."""
    limits = Limits({"opus": RateLimit(input_tokens_per_minute=1000, output_tokens_per_minute=600)})
    assert limits.wait(OPUS, 1001, 1, 0.0) == math.inf
    assert limits.wait(OPUS, 1000, 32_000, 0.0) == 0.0
    limits.take(OPUS, 0, 60, 0.0)
    assert limits.wait(OPUS, 0, 32_000, 0.0) == pytest.approx(6.0)


def test_what_is_ahead_is_waited_for() -> None:
    """A request behind others waits for their room and its own; it is not refused because they are large together."""
    limits = Limits({"opus": RateLimit(input_tokens_per_minute=600)})
    limits.take(OPUS, 600, 0, 0.0)
    assert limits.wait(OPUS, 10, 0, 0.0, ahead=Load(20, 1190, 0)) == pytest.approx(120.0)


def test_settling_puts_the_truth_in_the_place_of_the_estimate() -> None:
    """What was taken too much comes back, what was taken too little is taken, what was never sent costs nothing."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60, input_tokens_per_minute=6000)})
    taken = limits.take(OPUS, 1000, 0, 0.0)
    limits.settle(taken, Load(1, 100, 0), 0.0)
    assert _left(limits) == {"requests": 59, "input-tokens": 5900}
    taken = limits.take(OPUS, 1000, 0, 0.0)
    limits.settle(taken, Load(1, 3000, 0), 0.0)
    assert _left(limits) == {"requests": 58, "input-tokens": 2900}
    taken = limits.take(OPUS, 1000, 0, 0.0)
    limits.settle(taken, NOTHING, 0.0)
    assert _left(limits) == {"requests": 58, "input-tokens": 2900}


def test_debt_is_a_minute_at_most() -> None:
    """A request that took ten times a bucket's content keeps others waiting for two minutes and not for ten."""
    limits = Limits({"opus": RateLimit(input_tokens_per_minute=600)})
    limits.settle(limits.take(OPUS, 1, 0, 0.0), Load(1, 6000, 0), 0.0)
    assert limits.wait(OPUS, 600, 0, 0.0) == pytest.approx(120.0)


def test_limits_are_learned_from_headers() -> None:
    """The first reply tells all three limits and what is left of them."""
    limits = Limits()
    headers = _headers(requests=(50, 49, 1), input_tokens=(30_000, 29_000, 2), output_tokens=(8000, 8000, 0))
    limits.learn(OPUS, headers, 0.0)
    assert _left(limits) == {"requests": 49, "input-tokens": 29_000, "output-tokens": 8000}
    assert [h.limit_per_minute for h in limits.headroom(0.0)] == [50, 30_000, 8000]
    assert [h.measure for h in limits.headroom(0.0)] == list(Measure)
    assert limits.headroom(0.0)[1].full_in_seconds == pytest.approx(2.0)
    assert limits.wait(HAIKU, 10**6, 0, 0.0) == 0.0


def test_headers_lower_a_bucket_and_never_raise_it() -> None:
    """Others may use the same key, so less is believed; more may be an answer from before our last requests."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    limits.learn(OPUS, _headers(requests=(60, 12, 48)), 0.0)
    assert _left(limits) == {"requests": 12}
    limits.learn(OPUS, _headers(requests=(60, 55, 5)), 0.0)
    assert _left(limits) == {"requests": 12}


def test_a_limit_that_moves_keeps_what_was_used() -> None:
    """After 40 of 60 were sent, a limit of 100 leaves 60 and a limit of 50 leaves 10."""
    limits = Limits()
    limits.learn(OPUS, _headers(requests=(60, 20, 40)), 0.0)
    limits.learn(OPUS, _headers(requests=(100, 60, 24)), 0.0)
    assert _left(limits) == {"requests": 60}
    limits.learn(OPUS, _headers(requests=(50, 50, 0)), 0.0)
    assert _left(limits) == {"requests": 10}
    assert limits.wait(OPUS, 1, 1, 0.0, ahead=Load(10, 0, 0)) == pytest.approx(60 / 50)


def test_a_configured_limit_is_a_ceiling() -> None:
    """Headers lower it and take it back up to what was configured, never above."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    limits.learn(OPUS, _headers(requests=(4000, 3999, 1)), 0.0)
    assert _left(limits) == {"requests": 60}
    limits.learn(OPUS, _headers(requests=(30, 29, 2)), 0.0)
    assert _left(limits) == {"requests": 29}


def test_what_left_before_a_limit_was_known_is_not_settled_against_it() -> None:
    """The server has counted such a request already: putting its estimate back would be room that is not there."""
    limits = Limits()
    taken = limits.take(OPUS, 5000, 0, 0.0)
    limits.learn(OPUS, _headers(input_tokens=(30_000, 29_000, 2)), 1.0)
    limits.settle(taken, Load(1, 1000, 0), 1.0)
    assert _left(limits, 1.0) == {"input-tokens": 29_000}


@pytest.mark.parametrize("server_clock", [NOW, NOW - timedelta(days=400), NOW + timedelta(days=4000)])
def test_slow_refilling_is_believed_by_the_servers_clock(server_clock: datetime) -> None:
    """Where `reset` says that a bucket takes ten minutes to fill, it does, whatever year the server thinks it is."""
    limits = Limits()
    limits.learn(OPUS, _headers(server_clock=server_clock, requests=(60, 0, 600)), 0.0)
    assert limits.wait(OPUS, 1, 1, 0.0) == pytest.approx(10.0)
    limits.learn(OPUS, _headers(server_clock=server_clock, requests=(60, 0, 60)), 0.0)
    assert limits.wait(OPUS, 1, 1, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"anthropic-ratelimit-requests-reset": "9999-12-31T23:59:59Z"},
        {"anthropic-ratelimit-requests-reset": "0001-01-01T00:00:00+23:59"},
        {"anthropic-ratelimit-requests-reset": "soon"},
        {"anthropic-ratelimit-requests-reset": ""},
        {"date": "yesterday"},
        {"date": ""},
    ],
)
def test_a_reset_that_cannot_be_is_left_out(change: dict[str, str]) -> None:
    """A moment that is past, absurdly far, unreadable or without the server's clock leaves a minute's pace."""
    limits = Limits()
    limits.learn(OPUS, _headers(requests=(60, 0, 600)) | change, 0.0)
    assert limits.wait(OPUS, 1, 1, 0.0) == pytest.approx(1.0)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                *(f"anthropic-ratelimit-{m}-{part}" for m in Measure for part in ("limit", "remaining", "reset")),
                "retry-after",
                "date",
            ]
        ),
        st.one_of(
            st.text(max_size=30),
            st.integers().map(str),
            st.floats().map(str),
            st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
            st.datetimes(timezones=st.just(UTC)).map(lambda d: format_datetime(d, usegmt=True)),
            st.just("9" * 5000),
        ),
    ),
    st.sampled_from([200, 400, 429, 500, 529]),
)
def test_no_header_breaks_anything(headers: dict[str, str], status: int) -> None:
    """Whatever a server sends, waits stay finite, never negative, and an hour of quiet ends all of them."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    for _ in range(3):
        limits.learn(OPUS, headers, 0.0, status=status)
    wait = limits.wait(OPUS, 1, 1, 0.0)
    assert 0.0 <= wait < math.inf
    assert all(h.left >= 0 and 0 <= h.full_in_seconds < math.inf for h in limits.headroom(0.0))
    assert limits.wait(OPUS, 1, 1, 7200.0) == 0.0


@pytest.mark.parametrize("text", ["-5", "0", "1e6", "many", "", "12.5", "0x10", "1_000", "9" * 16])
def test_a_limit_that_is_no_count_is_left_out(text: str) -> None:
    """Only a positive whole number is a limit."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    limits.learn(OPUS, {"anthropic-ratelimit-requests-limit": text}, 0.0)
    assert _left(limits) == {"requests": 60}


def test_a_refusal_closes_the_family_for_as_long_as_it_says() -> None:
    """After a 429 nothing of the family goes before its `retry-after`; other families do."""
    limits = Limits()
    limits.learn(OPUS, {"retry-after": "17"}, 100.0, status=429)
    assert limits.wait(OPUS, 1, 1, 100.0) == pytest.approx(17.0)
    assert limits.take_if_room(OPUS, 1, 1, 116.9) is None
    assert limits.wait(OPUS, 1, 1, 117.0) == 0.0
    assert limits.wait(HAIKU, 1, 1, 100.0) == 0.0


def test_refusals_that_say_nothing_close_it_longer_each_time() -> None:
    """1, 2, 4 … seconds, a minute at most; an answer starts the count anew."""
    limits = Limits()
    waits = []
    for _ in range(8):
        limits.learn(OPUS, {}, 0.0, status=429)
        waits.append(limits.wait(OPUS, 1, 1, 0.0))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    limits.learn(OPUS, {}, 100.0)
    limits.learn(OPUS, {}, 100.0, status=429)
    assert limits.wait(OPUS, 1, 1, 100.0) == 1.0


def test_a_refusal_that_names_no_bucket_empties_those_we_thought_full() -> None:
    """Our levels were wrong: what comes after goes one by one and not as a burst. One that names them is believed."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    limits.learn(OPUS, {"retry-after": "0"}, 0.0, status=429)
    assert limits.wait(OPUS, 1, 1, 0.0) == pytest.approx(1.0)
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    limits.learn(OPUS, _headers(requests=(60, 40, 20)) | {"retry-after": "0"}, 0.0, status=429)
    assert _left(limits) == {"requests": 40}


@pytest.mark.parametrize("status", [500, 503, 529])
def test_overload_is_no_limit(status: int) -> None:
    """Trouble of the server closes nothing and moves no bucket, whatever headers it carries."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    limits.take(OPUS, 1, 1, 0.0)
    limits.learn(OPUS, _headers(requests=(10, 0, 60)) | {"retry-after": "30"}, 0.0, status=status)
    assert _left(limits) == {"requests": 59}
    assert limits.wait(OPUS, 1, 1, 0.0) == 0.0


def test_a_clock_that_goes_back_changes_nothing() -> None:
    """It neither fills a bucket nor empties it, and the bucket does not refill twice for the same seconds."""
    limits = Limits({"opus": RateLimit(requests_per_minute=60)})
    for _ in range(50):
        limits.take(OPUS, 1, 1, 10.0)
    assert _left(limits, 5.0) == {"requests": 10}
    for _ in range(10):
        limits.take(OPUS, 1, 1, 5.0)
    assert limits.take_if_room(OPUS, 1, 1, 5.0) is None
    assert limits.take_if_room(OPUS, 1, 1, 10.5) is None
    assert limits.take_if_room(OPUS, 1, 1, 11.0) is not None


def test_families_that_a_server_makes_up_are_bounded() -> None:
    """Names of models come from clients: those with headers of their own do not fill the memory."""
    limits = Limits()
    for number in range(3000):
        limits.learn(Family("anthropic", f"model-{number}"), _headers(requests=(60, 59, 1)), 0.0)
    assert len(limits.headroom(0.0)) == 1000


@pytest.mark.parametrize("name", RateLimit.__slots__)
def test_a_limit_of_nothing_is_a_mistake(name: str) -> None:
    """A limit of 0 would close a family for ever: it is refused with what to do instead."""
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0; leave it out"):
        RateLimit(**{name: 0})


# Seconds since the one before, input tokens, output tokens.
ARRIVALS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.3, 1.0, 7.0, 61.0]), st.integers(0, 500), st.integers(0, 100)),
    max_size=60,
)
TIGHT = RateLimit(requests_per_minute=7, input_tokens_per_minute=500, output_tokens_per_minute=100)


def _most(limit: int | None, seconds: float) -> float:
    """What a window of so many seconds may hold: a full bucket and what flows in meanwhile."""
    assert limit is not None
    return limit * (1 + seconds / 60) + 0.001


@settings(deadline=None)
@given(ARRIVALS)
def test_no_window_holds_more_than_the_limit_and_a_burst(arrivals: list[tuple[float, int, int]]) -> None:
    """In any window, however placed, what is let through is at most one full bucket and what refilled meanwhile."""
    limits = Limits({"opus": TIGHT})
    passed: list[tuple[float, int, int]] = []
    for at, (_, input_tokens, output_tokens) in zip(accumulate(a[0] for a in arrivals), arrivals, strict=True):
        wait = limits.wait(OPUS, input_tokens, output_tokens, at)
        taken = limits.take_if_room(OPUS, input_tokens, output_tokens, at)
        assert (taken is not None) == (wait == 0.0)
        if taken is not None:
            passed.append((at, input_tokens, output_tokens))
    for first, (start, _, _) in enumerate(passed):
        for last in range(first, len(passed)):
            window = passed[first : last + 1]
            seconds = passed[last][0] - start
            assert len(window) <= _most(TIGHT.requests_per_minute, seconds)
            assert sum(p[1] for p in window) <= _most(TIGHT.input_tokens_per_minute, seconds)
            assert sum(p[2] for p in window) <= _most(TIGHT.output_tokens_per_minute, seconds)


@settings(deadline=None)
@given(ARRIVALS, st.data())
def test_settled_truth_stays_within_the_limit(arrivals: list[tuple[float, int, int]], data: st.DataObject) -> None:
    """What was really used since the start is never more than the limit allows, where estimates were not too low."""
    limits = Limits({"opus": TIGHT})
    used = 0
    for at, (_, input_tokens, output_tokens) in zip(accumulate(a[0] for a in arrivals), arrivals, strict=True):
        taken = limits.take_if_room(OPUS, input_tokens, output_tokens, at)
        if taken is not None:
            real = data.draw(st.integers(0, input_tokens))
            limits.settle(taken, Load(1, real, output_tokens), at)
            used += real
            assert used <= _most(TIGHT.input_tokens_per_minute, at)


@settings(deadline=None)
@given(ARRIVALS, st.integers(0, 500), st.integers(0, 100))
def test_a_wait_is_neither_too_long_nor_too_short(
    arrivals: list[tuple[float, int, int]], input_tokens: int, output_tokens: int
) -> None:
    """After the wait that was told, the request goes; a moment earlier it does not."""
    limits = Limits({"opus": TIGHT})
    now = 0.0
    for seconds, before_input, before_output in arrivals:
        now += seconds
        limits.take(OPUS, before_input, before_output, now)
    wait = limits.wait(OPUS, input_tokens, output_tokens, now)
    if wait > 0.01:
        assert limits.take_if_room(OPUS, input_tokens, output_tokens, now + wait - 0.005) is None
    assert limits.take_if_room(OPUS, input_tokens, output_tokens, now + wait) is not None


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [(100, 40, 30), (100, 200, 190), (None, 40, 40), (100, None, 1_000_000), (100, 100, 90)],
)
def test_a_limit_of_our_own_can_be_changed_while_it_is_used(before: int | None, after: int | None, left: int) -> None:
    """What was used stays used; one that is taken away is none, and one that is new begins full."""
    limits = Limits({"opus": RateLimit(requests_per_minute=before, input_tokens_per_minute=50)})
    for _ in range(10):
        limits.take(OPUS, 1, 1, 0.0)
    limits.configure({"opus": RateLimit(requests_per_minute=after, input_tokens_per_minute=50)}, 0.0)
    room = {h.measure: h.left for h in limits.headroom(0.0)}
    assert room.get(Measure.REQUESTS, 1_000_000) == left
    assert room[Measure.INPUT_TOKENS] == 40
    assert limits.wait(OPUS, 1, 1, 0.0) == 0


def test_a_ceiling_that_is_taken_away_leaves_the_providers() -> None:
    """What its headers told still holds."""
    limits = Limits({"opus": RateLimit(requests_per_minute=10)})
    limits.learn(OPUS, _headers(requests=(50, 49, 2)), 0.0)
    assert _left(limits) == {"requests": 10}
    limits.configure({}, 0.0)
    assert _left(limits) == {"requests": 50}
    limits.configure({"opus": RateLimit(requests_per_minute=20)}, 0.0)
    assert _left(limits) == {"requests": 20}
