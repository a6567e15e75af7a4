"""Levers beside the model: each against a case computed by hand, and what is taken to speak against it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.policy.worlds import classified
from tests.replay.sessions import HAIKU, MINUTE, call, grown, plain, session, world
from tests.replay.test_course import sessions
from tierwise.core.calls import CallKind, ImportedCall
from tierwise.core.money import Conditions
from tierwise.replay import Actual, Lever, LeverValue, RandomMix, levers, random_at_equal_cost, replay_session

BEGINNING, SUMMARY = 20_000, 3_000  # as assumed in data/replay.toml


def found(*calls: ImportedCall) -> dict[Lever, LeverValue]:
    return dict(levers(session(*calls), plain()))


# ------------------------------------------------------------------ an hour, or five minutes


def test_an_hour_pays_where_pauses_are_longer_than_five_minutes() -> None:
    """10k for five minutes, twice, is 21k at $5; for an hour it is 11k at $8 and 10k read at $0.20."""
    calls = grown([(0, 10_000, 0), (6 * MINUTE, 1_000, 0)], hour=False)
    told = 10_000 * 5_000 + 11_000 * 5_000
    assert found(*calls)[Lever.CACHE_1H] == LeverValue(told - 11_000 * 8_000 - 10_000 * 200, 2)


def test_an_hour_costs_more_where_nobody_pauses() -> None:
    """Without a pause the dearer write is all that changes: 11k at $8 and not at $5."""
    calls = grown([(0, 10_000, 0), (MINUTE, 1_000, 0)], hour=False)
    assert found(*calls) == {Lever.CACHE_1H: LeverValue(-11_000 * 3_000, 2)}


def test_five_minutes_pay_where_nobody_pauses() -> None:
    """The other way round: what is written for an hour and never needed so long is cheaper for five minutes."""
    calls = grown([(0, 10_000, 0), (MINUTE, 1_000, 0)])
    assert found(*calls) == {Lever.CACHE_5M: LeverValue(11_000 * 3_000, 2)}


def test_five_minutes_lose_what_a_pause_lets_expire() -> None:
    """After six minutes what an hour's cache still had would be written again."""
    calls = grown([(0, 10_000, 0), (6 * MINUTE, 1_000, 0)])
    told = 10_000 * 8_000 + 10_000 * 200 + 1_000 * 8_000
    assert found(*calls)[Lever.CACHE_5M] == LeverValue(told - 10_000 * 5_000 - 11_000 * 5_000, 2)


def test_a_compaction_is_lost_however_long_the_cache_lives() -> None:
    """What was replaced in the pause would not have been read either: the hour buys nothing."""
    calls = grown([(0, 10_000, 0), (6 * MINUTE, 1_000, 0)], hour=False)
    calls[1] = replace(calls[1], compacts=True)
    assert found(*calls)[Lever.CACHE_1H] == LeverValue(-21_000 * 3_000, 2)


# ------------------------------------------------------------------ what can wait


def test_processing_alone_without_tools_can_wait() -> None:
    """10,000 tokens of Opus at $4 and 100 at $20, at half price."""
    one = call(input_tokens=10_000, output_tokens=100, classification=classified("summarization"))
    assert found(one) == {Lever.BATCH: LeverValue((40_000_000 + 2_000_000) // 2, 1)}


def test_a_batch_finds_nothing_warm() -> None:
    """What was read at $0.20 is fresh in a batch, at half of $4: that is dearer, and said to be."""
    one = call(cache_read_tokens=10_000, classification=classified("summarization"))
    assert found(one)[Lever.BATCH].saved_nanousd == 2_000_000 - 20_000_000


@pytest.mark.parametrize(
    "changes",
    [
        {"has_tools": True},
        {"in_tool_loop": True},
        {"kind": CallKind.TITLE},
        {"conditions": Conditions(batch=True)},
        {"failed": True},
        {"classification": None},
        {"classification": classified("code_review")},
        {"classification": classified("summarization", abstained=True)},
    ],
)
def test_what_somebody_may_wait_for_cannot(changes: dict[str, object]) -> None:
    """Tools, turns, titles, judgment, doubt: such a call is not taken to be one that can wait."""
    one = call(input_tokens=10_000, classification=classified("summarization"))
    assert Lever.BATCH not in found(replace(one, **changes))  # type: ignore[arg-type]


def test_a_conversation_is_waited_for() -> None:
    """Two calls of one conversation are no work that can wait."""
    one = call(0, input_tokens=10_000, classification=classified("summarization"))
    assert Lever.BATCH not in found(one, replace(one, id="two", at_ms=one.at_ms + 1_000))


def test_less_thinking_where_work_is_processing() -> None:
    """Half of 1,000 tokens of thinking at $20, where effort was high; not for judgment, nor at medium effort."""
    one = call(
        output_tokens=1_200,
        thinking_tokens=1_000,
        input_tokens=10,
        effort="high",
        has_tools=True,
        classification=classified("field_extraction"),
    )
    assert found(one) == {Lever.EFFORT: LeverValue(500 * 20_000, 1)}
    assert not found(replace(one, effort="medium"))
    assert not found(replace(one, classification=classified("code_review")))


# ------------------------------------------------------------------ compacting earlier


def test_prompts_just_over_a_band() -> None:
    """Haiku at 110k for ten calls: five times as dear, and a compaction before them is paid for.

    Each call reads 110k at $0.05 and says 1,000 at $2.50; below the band it would read 100k at $0.01 and say at $0.50.
    """
    calls = [
        call(n, seconds=10 * n, model=HAIKU, cache_read_tokens=110_000, output_tokens=1_000, has_tools=True)
        for n in range(10)
    ]
    spent, below = 5_500_000 + 2_500_000, 1_000_000 + 500_000
    compaction = 100_000 * 10 + SUMMARY * 500 + (BEGINNING + SUMMARY) * 125
    assert found(*calls)[Lever.PRICE_BAND] == LeverValue(10 * (spent - below) - compaction, 10)


def test_far_over_a_band_is_no_matter_of_compacting_a_little_earlier() -> None:
    """A prompt of 150k was meant to be long; and one call just over is not worth a compaction."""
    far = [call(n, seconds=n, model=HAIKU, cache_read_tokens=150_000) for n in range(10)]
    assert Lever.PRICE_BAND not in found(*far)
    assert Lever.PRICE_BAND not in found(call(0, model=HAIKU, cache_read_tokens=100_001))


def test_a_session_resumed_cold() -> None:
    """After two hours 200k are written again at $8: a summary written before the pause would have done."""
    calls = grown([(0, 200_000, 0), (120 * MINUTE, 1_000, 0)])
    compaction = 200_000 * 200 + SUMMARY * 20_000 + (BEGINNING + SUMMARY) * 8_000
    assert found(*calls)[Lever.COLD_RESUME] == LeverValue(200_000 * 8_000 - compaction, 1)


def test_a_short_session_resumed_cold_is_not_worth_a_summary() -> None:
    """15k are written again for less than a compaction costs; nor does a pause of half an hour count."""
    assert Lever.COLD_RESUME not in found(*grown([(0, 15_000, 0), (120 * MINUTE, 1_000, 0)]))
    assert Lever.COLD_RESUME not in found(*grown([(0, 200_000, 0), (30 * MINUTE, 1_000, 0)], hour=False))


@given(sessions())
@settings(max_examples=60, deadline=None)
def test_no_lever_saves_more_than_was_spent(calls: list[ImportedCall]) -> None:
    """Whatever the session: a lever touches no more calls than there are, and saves no more than all of them cost."""

    spent = replay_session(session(*calls), Actual(), world()).actual_nanousd
    for value in levers(session(*calls), world()).values():
        assert value.calls <= len(calls)
        assert value.saved_nanousd <= spent


# ------------------------------------------------------------------ blind mixes


def test_a_blind_mix_that_costs_as_much() -> None:
    """Half way between two tiers in cost is half of the conversations, and half of what is too low on the cheaper."""
    assert random_at_equal_cost(60, (20, 40), (100, 0)) == RandomMix(0.5, 60, 20.0)
    assert random_at_equal_cost(10, (20, 40), (100, 0)) is None
    assert random_at_equal_cost(50, (50, 0), (50, 0)) is None
