"""The prompt cache, against cases that were computed by hand, at prices of 2026-11-22."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.replay.sessions import (
    HAIKU,
    MINUTE,
    NOON_MS,
    OLD_HAIKU,
    OLD_SONNET,
    OPUS,
    SETTINGS,
    SONNET,
    call,
    grown,
    plain,
    session,
)
from tierwise.core.calls import ImportedCall
from tierwise.core.catalog import Model
from tierwise.replay import AllOn, replay_session, with_models
from tierwise.replay.cache import Held, Real, ratio, sent
from tierwise.replay.pricing import Prompt

STAYING = [(0.0, 80_000, 300), (60.0, 1_000, 300)]


def costs(calls: list[ImportedCall], tier: str) -> list[int | None]:
    """What each call costs on a tier, in nano-dollars."""
    found = replay_session(session(*calls), AllOn(settings=SETTINGS, tier=tier), plain())
    return [outcome.nanousd for outcome in found.outcomes]


def on(model: Model, *calls: ImportedCall, held: Held | None = None, least: int = 512) -> Prompt:
    """The last of these calls, as it would have been sent to a model that holds so much."""
    real = Real()
    asks = [real.next(one, OPUS) for one in calls]
    return sent(asks[-1], held, same=model.id == calls[-1].model, by=ratio(model, OPUS), least=least)[0]


def test_staying_reads_what_was_there_and_writes_what_is_new() -> None:
    """On Opus: 80k written for an hour at $8 and 300 said at $20; then 80k read at $0.20, 1k written, 300 said."""
    assert costs(grown(STAYING), "opus") == [640_000_000 + 6_000_000, 16_000_000 + 8_000_000 + 6_000_000]


def test_80k_of_opus_to_cold_haiku_then_warm() -> None:
    """Haiku writes 80k for an hour at $0.20, says 300 at $0.50; then reads 80k at $0.01 and writes 1k."""
    assert costs(grown(STAYING), "haiku") == [16_000_000 + 150_000, 800_000 + 200_000 + 150_000]


def test_cold_switch_in_the_middle_at_80k() -> None:
    """What was warm on Opus is written anew on Sonnet: 81k at $4, and what Opus read at $0.20 is lost."""
    first, second = grown(STAYING)
    assert on(SONNET, first, second) == Prompt(0, 0, 0, 81_000)
    assert on(OPUS, first, second, held=Held(80_000, 80_000, NOON_MS)) == Prompt(0, 80_000, 0, 1_000)


def test_cold_switch_at_150k_crosses_haikus_band() -> None:
    """150k is above Haiku's 100k: $1.00 for a write of an hour and $2.50 for an answer, and reads at $0.05."""
    calls = grown([(0.0, 150_000, 300), (60.0, 1_000, 300)])
    assert costs(calls, "haiku") == [150_000_000 + 750_000, 7_500_000 + 1_000_000 + 750_000]


def test_a_band_is_crossed_in_the_middle_of_a_conversation() -> None:
    """At 99,900 tokens of prompt Haiku reads at $0.01, at 100,100 every token costs five times as much."""
    calls = grown([(0.0, 99_900, 0), (60.0, 200, 100)])
    assert costs(calls, "haiku") == [99_900 * 200, 99_900 * 50 + 200 * 1_000 + 100 * 2_500]


def test_five_minutes_are_over_on_every_model() -> None:
    """After six minutes nothing of a five-minute cache is left, wherever the conversation is: all is written anew."""
    calls = grown([(0.0, 10_000, 0), (6 * MINUTE, 1_000, 0)], hour=False)
    assert costs(calls, "opus") == [10_000 * 5_000, 11_000 * 5_000]
    assert costs(calls, "haiku") == [10_000 * 125, 11_000 * 125]


def test_each_read_renews_the_five_minutes() -> None:
    """Three calls four minutes apart: the third still reads what the first wrote."""
    calls = grown([(0.0, 10_000, 0), (4 * MINUTE, 1_000, 0), (8 * MINUTE, 1_000, 0)], hour=False)
    assert costs(calls, "haiku")[2] == 11_000 * 10 + 1_000 * 125


def test_an_hour_lives_where_five_minutes_are_over() -> None:
    """From one hour to five minutes: what was written for an hour is read after six minutes, the rest is not."""
    first = call(0, cache_write_1h_tokens=10_000, cache_write_5m_tokens=2_000)
    second = call(1, seconds=6 * MINUTE, cache_read_tokens=10_000, cache_write_5m_tokens=3_000)
    assert on(HAIKU, first, second, held=Held(10_000, 12_000, NOON_MS)) == Prompt(0, 10_000, 3_000, 0)
    third = call(2, seconds=70 * MINUTE, cache_write_1h_tokens=10_000, cache_write_5m_tokens=3_000)
    held = Held(10_000, 13_000, NOON_MS + 6 * MINUTE * 1000)
    assert on(HAIKU, first, second, third, held=held) == Prompt(0, 0, 3_000, 10_000)


def test_five_minutes_to_one_hour() -> None:
    """A client that changes from five minutes to an hour writes only what is new for an hour."""
    first = call(0, cache_write_5m_tokens=10_000)
    second = call(1, seconds=MINUTE, cache_read_tokens=10_000, cache_write_1h_tokens=1_000)
    real = Real()
    real.next(first, OPUS)
    ask = real.next(second, OPUS)
    assert ask.held() == Held(1_000, 11_000, second.at_ms)
    assert on(SONNET, first, second, held=Held(0, 10_000, NOON_MS)) == Prompt(0, 10_000, 1_000, 0)


def test_below_the_least_length_nothing_is_cached() -> None:
    """3,000 tokens of Opus 5.5 are fewer than the 4,096 that Haiku 4.5 takes: fresh input there, each time."""
    calls = grown([(0.0, 3_000, 0), (60.0, 100, 0)])
    old = with_models(SETTINGS, {"haiku": OLD_HAIKU})
    found = replay_session(session(*calls), AllOn(settings=old, tier="haiku"), plain())
    # 3,000 and 3,100 tokens of a newer tokenizer are 2,308 and 2,385 of the older one's, at $1 a million.
    assert [outcome.nanousd for outcome in found.outcomes] == [2_308_000, 2_385_000]


def test_an_older_tokenizer_counts_fewer_tokens() -> None:
    """13,000 tokens of a 5.5 model are 10,000 of Sonnet 4.5: written for an hour at $6, read at $0.30."""
    calls = grown([(0.0, 13_000, 0), (60.0, 1_300, 130)])
    old = with_models(SETTINGS, {"sonnet": OLD_SONNET})
    found = replay_session(session(*calls), AllOn(settings=old, tier="sonnet"), plain())
    assert [outcome.nanousd for outcome in found.outcomes] == [60_000_000, 3_000_000 + 6_000_000 + 1_500_000]


def test_compaction_loses_the_prefix_on_every_model() -> None:
    """After a compaction only what was really read of the old prefix is warm, on any model."""
    calls = grown([(0.0, 90_000, 0), (60.0, 1_000, 0)])
    after = call(2, seconds=90, compacts=True, cache_read_tokens=20_000, cache_write_1h_tokens=5_000, in_tool_loop=True)
    again = call(3, seconds=100, cache_read_tokens=25_000, cache_write_1h_tokens=1_000, in_tool_loop=True)
    assert costs([*calls, after, again], "haiku")[2:] == [20_000 * 10 + 5_000 * 200, 25_000 * 10 + 1_000 * 200]


def test_a_miss_that_nobody_explains_is_one_on_every_model() -> None:
    """Where the real model read less than it held, the prefix was changed: another model reads no more than that."""
    first = call(0, cache_write_1h_tokens=50_000)
    second = call(1, seconds=5, cache_read_tokens=12_000, cache_write_1h_tokens=40_000)
    assert on(SONNET, first, second, held=Held(50_000, 50_000, NOON_MS)) == Prompt(0, 12_000, 0, 40_000)


def test_what_is_not_marked_is_fresh_everywhere() -> None:
    """A client that marks nothing pays for fresh input, whatever model it asks."""
    calls = [call(0, input_tokens=5_000), call(1, seconds=5, input_tokens=6_000)]
    assert costs(calls, "sonnet") == [10_000_000, 12_000_000]


def test_the_real_model_left_for_a_while_has_less_than_it_really_had() -> None:
    """Back on Opus after a turn elsewhere: it reads what it saw itself, and writes what it missed."""
    calls = grown([(0.0, 10_000, 0), (10.0, 2_000, 0), (20.0, 3_000, 0)])
    assert on(OPUS, *calls, held=Held(10_000, 10_000, NOON_MS)) == Prompt(0, 10_000, 0, 5_000)
    assert on(OPUS, *calls, held=None) == Prompt(0, 0, 0, 15_000)


def test_the_real_model_kept_warmer_than_it_really_was() -> None:
    """If Opus was asked two minutes ago where in reality it was asked six ago, it still holds that."""
    calls = grown([(0.0, 10_000, 0), (6 * MINUTE, 1_000, 0)], hour=False)
    held = Held(0, 10_000, NOON_MS + 4 * MINUTE * 1000)
    assert on(OPUS, *calls, held=held) == Prompt(0, 10_000, 1_000, 0)


TOKENS = st.integers(0, 300_000)


@given(
    st.tuples(TOKENS, TOKENS, TOKENS, TOKENS),
    st.none() | st.tuples(TOKENS, TOKENS, st.integers(0, 4_000_000)),
    st.booleans(),
)
def test_no_token_is_lost_or_made(
    tokens: tuple[int, int, int, int], holding: tuple[int, int, int] | None, same: bool
) -> None:
    """However much a model holds: the classes of a prompt are never below 0, and add up to the same prompt."""
    fresh, read, write_5m, write_1h = tokens
    one = call(
        0,
        seconds=4_000,
        input_tokens=fresh,
        cache_read_tokens=read,
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
    )
    held = None if holding is None else Held(min(holding[:2]), max(holding[:2]), NOON_MS + holding[2])
    found = on(OPUS if same else SONNET, one, held=held)
    assert min(found) >= 0
    assert sum(found) == one.usage.prompt_tokens


@given(st.lists(st.tuples(TOKENS, TOKENS, TOKENS, TOKENS, st.floats(0, 5_000)), min_size=1, max_size=8))
def test_what_holds_what_was_really_held_is_sent_what_was_really_sent(
    usages: list[tuple[int, int, int, int, float]],
) -> None:
    """Following the real model step by step, the simulation says what was told, however strange that is."""
    real, held, seconds = Real(), None, 0.0
    for fresh, read, write_5m, write_1h, pause in usages:
        seconds += pause
        one = call(
            seconds=seconds,
            input_tokens=fresh,
            cache_read_tokens=read,
            cache_write_5m_tokens=write_5m,
            cache_write_1h_tokens=write_1h,
        )
        ask = real.next(one, OPUS)
        told, held = sent(ask, held, same=True)
        assert told == Prompt(fresh, read, write_5m, write_1h)


def test_another_day_has_other_prices() -> None:
    """A conversation of 2026-10-01 reads on Sonnet at what a read cost then."""
    calls = [replace(one, at_ms=one.at_ms - 52 * 86_400_000) for one in grown([(0.0, 10_000, 0), (60.0, 1_000, 0)])]
    assert costs(calls, "sonnet")[1] == 10_000 * 200 + 1_000 * 4_000
