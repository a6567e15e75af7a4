"""Staying or moving: both ways to the exact cent, and who can take a conversation at all."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy.worlds import world
from tierwise.core.catalog import Capabilities, Model, Thinking
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import Price, PriceBand, Usage, ceil_tokens
from tierwise.policy.switching import LEAST_CACHED_TOKENS, History, Move, Turn, Warmth, can_take, weigh

WORLD = world()  # prices of 2026-11-22, as facts about Claude's API gave them
NOW = 1_000.0


def _model(model_id: str) -> Model:
    return WORLD.catalog.model(model_id)[1]


HAIKU, SONNET, OPUS = _model("claude-haiku-5-5"), _model("claude-sonnet-5-5"), _model("claude-opus-5-5")
OLD_HAIKU = _model("claude-haiku-4-5")


def from_opus(target: Model, turn: Turn, turns: float = 0, **changes: Any) -> Move:
    """The conversation is on Opus, and the whole prompt is warm there for three more minutes."""
    given: dict[str, Any] = {
        "prices": WORLD.prices,
        "warm": {OPUS.id: Warmth(OPUS.id, turn.prompt_tokens, 300, NOW + 180)},
        "turns_to_come": turns,
        "now": NOW,
        **changes,
    }
    return weigh(OPUS, target, turn=turn, **given)


def steps(move: Move) -> dict[str, str]:
    return {reason.step: reason.text for reason in move.reasons}


# ------------------------------------------------------------------ by hand

A_TURN = Turn(prompt_tokens=80_000, output_tokens=320, new_tokens=0)


def test_80k_of_warm_opus_to_cold_haiku_costs_half() -> None:
    """Opus reads 80k at $0.20 (0.016) and says 320 at $20 (0.0064); Haiku writes at $0.125 (0.01) and says at $0.50."""
    move = from_opus(HAIKU, A_TURN)
    assert (move.stay_usd, move.move_usd) == (Decimal("0.0224"), Decimal("0.01016"))
    assert move.moves
    assert move.lost_cache_usd == Decimal("0.0092")  # 80k at 0.125 and not at 0.01
    assert move.turns_to_pay_back is None


def test_80k_of_warm_opus_to_cold_sonnet_costs_nine_times_as_much() -> None:
    """Sonnet writes 80k at $2.50 (0.2) and says 320 at $10 (0.0032): nine times what staying costs."""
    move = from_opus(SONNET, A_TURN)
    assert (move.stay_usd, move.move_usd) == (Decimal("0.0224"), Decimal("0.2032"))
    assert not move.moves
    assert move.lost_cache_usd == Decimal("0.192")
    assert steps(move).keys() == {"conversation_stays", "cache_lost", "pays_back"}
    assert "80,000 tokens are warm on claude-opus-5-5 for another 3 min" in steps(move)["cache_lost"]


def test_cold_sonnet_pays_back_after_some_fifteen_more_turns() -> None:
    """$0.1808 dearer now and $0.012 cheaper on the next turn, a little more on each later one: 15 turns, not 14."""
    assert [from_opus(SONNET, A_TURN, turns).moves for turns in (0, 14, 15, 16)] == [False, False, True, True]
    assert from_opus(SONNET, A_TURN, 5).turns_to_pay_back == 15
    # 15 turns: reads of 80,000 + 320 (k - 1), writes of 320, replies of 320; k from 1 to 15.
    reads = 15 * 80_000 + 320 * (14 * 15 // 2)
    assert from_opus(SONNET, A_TURN, 15).stay_usd == Decimal("0.0224") + (
        reads * Decimal("0.20") + 15 * 320 * Decimal(5) + 15 * 320 * Decimal(20)
    ) / Decimal(1_000_000)


def test_150k_puts_haiku_in_its_upper_band() -> None:
    """Above 100k Haiku writes at $0.625: $0.09375 and a dearer reply, nearly three times what staying costs."""
    move = from_opus(HAIKU, Turn(150_000, 320, 0))
    assert (move.stay_usd, move.move_usd) == (Decimal("0.0364"), Decimal("0.09455"))
    assert not move.moves
    assert "above 100,000" in steps(move)["price_band"]
    assert from_opus(HAIKU, Turn(150_000, 320, 0), 5).moves, "two more turns pay it back"


def test_a_conversation_that_grows_over_the_band_is_priced_by_each_request() -> None:
    """90k, 95k, 100k in the lower band, 105k in the upper: the last one reads at $0.05 and writes at $0.625."""
    move = from_opus(HAIKU, Turn(90_000, 1_000, 4_000), 3)
    low = 90_000 * Decimal("0.125") + (90_000 + 95_000) * Decimal("0.01") + 10_000 * Decimal("0.125")
    high = 100_000 * Decimal("0.05") + 5_000 * Decimal("0.625")
    assert move.move_usd == (low + high + 3_000 * Decimal("0.50") + 1_000 * Decimal("2.50")) / 1_000_000


def test_an_hours_cache_is_written_at_the_hours_price() -> None:
    """With marks of one hour Sonnet writes 80k at $4 and not at $2.50."""
    assert from_opus(SONNET, replace(A_TURN, cache_ttl_seconds=3600)).move_usd == Decimal("0.3232")


def test_a_cache_that_has_expired_is_no_reason_to_stay() -> None:
    """One second too late nothing is warm: Opus writes 80k at $5, and Sonnet is cheaper at once."""
    held = Warmth(OPUS.id, 80_000, 300, NOW)
    late, in_time = (from_opus(SONNET, A_TURN, warm={OPUS.id: held}, now=NOW + second) for second in (0, -1))
    assert late.stay_usd == Decimal("0.4064")
    assert (late.moves, late.lost_cache_usd) == (True, 0)
    assert "cache_expired" in steps(late)
    assert not in_time.moves


def test_what_is_warm_on_the_target_is_read_there() -> None:
    """A conversation that comes back to a model with 60k of it still warm writes the other 20k only."""
    held = {m.id: Warmth(m.id, tokens, 300, NOW + 60) for m, tokens in ((OPUS, 80_000), (SONNET, 60_000))}
    move = from_opus(SONNET, A_TURN, warm=held)
    assert move.move_usd == (60_000 * Decimal("0.10") + 20_000 * Decimal("2.50") + 320 * Decimal(10)) / 1_000_000
    assert move.lost_cache_usd == 20_000 * Decimal("2.40") / 1_000_000


@pytest.mark.parametrize(("prompt", "rate"), [(511, "2"), (512, "2.50")])
def test_below_the_least_a_prompt_is_fresh_input(prompt: int, rate: str) -> None:
    """511 tokens are not cached, neither written nor read; 512 are."""
    move = from_opus(SONNET, Turn(prompt, 0, 0))
    assert move.move_usd == prompt * Decimal(rate) / 1_000_000
    assert (move.lost_cache_usd > 0) is (prompt >= LEAST_CACHED_TOKENS)


def test_without_cache_marks_everything_is_fresh_input() -> None:
    """A client that marks nothing pays the input's price for its whole prompt each turn, wherever it goes."""
    move = from_opus(SONNET, Turn(10_000, 0, 0, cache_ttl_seconds=None), 2)
    assert (move.stay_usd, move.move_usd, move.lost_cache_usd) == (Decimal("0.12"), Decimal("0.06"), 0)


def test_the_same_text_is_fewer_tokens_on_an_older_model() -> None:
    """Opus 5.5 counts 1.3 where Haiku 4.5 counts 1: 13,000 become 10,000."""
    assert from_opus(OLD_HAIKU, Turn(13_000, 1_300, 0)).move_usd == Decimal("0.0175")  # 10,000 × 1.25 + 1,000 × 5


def test_a_part_of_a_turn_costs_that_part() -> None:
    """Half a turn more is half the difference between one more and none."""
    none, half, one = (from_opus(SONNET, A_TURN, turns).move_usd for turns in (0, 0.5, 1))
    assert half == (none + one) / 2


def test_turns_are_counted_up_to_where_a_context_is_full() -> None:
    """The smaller context has room for two more turns: a hundred expected ones cost what two cost."""
    small = replace(SONNET, context_tokens=10_000)
    turn = Turn(6_000, 500, 1_000)
    assert from_opus(small, turn, 100).move_usd == from_opus(SONNET, turn, 2).move_usd
    assert from_opus(small, turn, 100).stay_usd == from_opus(SONNET, turn, 2).stay_usd


def test_equal_costs_never_move() -> None:
    """A model at the same price with nothing warm, and one with all of it warm, are no better than the one it is on."""
    twin = replace(OPUS, id="twin")
    prices = {**WORLD.prices, "twin": WORLD.prices[OPUS.id]}
    held = Warmth(OPUS.id, 80_000, 300, NOW + 60)
    cold = from_opus(twin, A_TURN, 9, prices=prices)
    alike = from_opus(twin, A_TURN, 9, prices=prices, warm={OPUS.id: held, "twin": replace(held, model_id="twin")})
    assert (cold.moves, alike.moves) == (False, False)
    assert alike.stay_usd == alike.move_usd


def test_a_move_must_save_more_than_the_margin() -> None:
    """Haiku saves 54.6 % of this turn: enough for a margin of a half, too little for one of 0.55, which is said."""
    assert from_opus(HAIKU, A_TURN, margin=0.5).moves
    kept = from_opus(HAIKU, A_TURN, margin=0.55)
    assert not kept.moves
    assert "must save more than $0.0123" in steps(kept)["conversation_stays"]


def test_turns_that_need_more_bring_a_conversation_back_to_where_it_is_cold() -> None:
    """Two turns to come, each as likely as not to need Opus: Haiku has 0.75 of them, and three times in four Opus
    writes 80,000 tokens at $5 that it would have read at $0.20: $0.384."""
    move = from_opus(HAIKU, A_TURN, 2, needs_more=0.5)
    assert move.return_usd == Decimal("0.75") * Decimal("0.384")
    # Later on Haiku: reads 80,000, writes 320, says 320; on Opus the same.
    here, there = Decimal("0.016") + Decimal("0.0016") + Decimal("0.0064"), Decimal("0.0008") + Decimal("0.0002")
    assert move.stay_usd == Decimal("0.0224") + Decimal("0.75") * here
    assert move.move_usd == Decimal("0.01016") + Decimal("0.75") * there + move.return_usd
    assert not move.moves
    assert from_opus(HAIKU, A_TURN, 2).moves, "were all turns as simple as this one"
    assert steps(move)["may_go_back"] == (
        "each later turn is taken to need more one time in 2: 75% that it goes back to claude-opus-5-5 within 2 turns, "
        "where it costs $0.3840 to write anew what is warm now"
    )


def test_a_next_turn_that_surely_needs_more_leaves_this_one_to_be_weighed() -> None:
    """No later turn counts for Haiku, and the way back is paid in full."""
    move = from_opus(HAIKU, A_TURN, 10, needs_more=1.0)
    assert (move.stay_usd, move.return_usd) == (Decimal("0.0224"), Decimal("0.384"))
    assert move.move_usd == Decimal("0.01016") + Decimal("0.384")


def test_with_no_turn_to_come_nothing_goes_back() -> None:
    """The last turn of a conversation is weighed as ever, whatever a next one would need."""
    move = from_opus(HAIKU, A_TURN, 0, needs_more=0.9)
    assert (move.moves, move.return_usd) == (True, 0)
    assert "may_go_back" not in steps(move)


def test_without_a_cache_to_go_back_is_free() -> None:
    """Where nothing is cached, a way back costs nothing that the next turn would not cost anyway."""
    turn = Turn(10_000, 0, 0, cache_ttl_seconds=None)
    assert from_opus(SONNET, turn, 2, needs_more=0.5).return_usd == 0


def test_a_model_that_costs_by_the_hour_is_not_free() -> None:
    """At $3.60 an hour, 1,000 tokens a second in and 100 out cost $0.001 a second; what is warm is not read again."""
    own = replace(SONNET, id="own", prompt_tokens_per_second=1_000.0, output_tokens_per_second=100.0)
    free = PriceBand(*[Decimal(0)] * 5)
    prices = {**WORLD.prices, "own": Price("own", (free,), "test", usd_per_hour=Decimal("3.60"))}
    move = from_opus(own, Turn(10_000, 200, 800), 1, prices=prices)
    assert (move.move_now_usd, move.move_usd) == (Decimal("0.012"), Decimal("0.015"))


def test_an_unpriced_model_is_an_error() -> None:
    """A model without a known price is never weighed as free."""
    with pytest.raises(UnpricedModel, match="claude-sonnet-5-5"):
        from_opus(SONNET, A_TURN, prices={OPUS.id: WORLD.prices[OPUS.id]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("turns", -1.0),
        ("turns", math.nan),
        ("turns", math.inf),
        ("margin", 1.0),
        ("margin", -0.1),
        ("needs_more", -0.1),
        ("needs_more", 1.1),
        ("needs_more", math.nan),
    ],
)
def test_numbers_that_mean_nothing_are_refused(field: str, value: float) -> None:
    """Turns to come are finite and not negative, a margin is a part."""
    with pytest.raises(ValueError, match=field):
        from_opus(SONNET, A_TURN, **{field: value})


# ------------------------------------------------------------------ for all

rates = st.decimals(min_value=0, max_value=100, places=3, allow_nan=False)
bands = st.builds(PriceBand, rates, rates, rates, rates, rates)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    starts = sorted(draw(st.sets(st.integers(1, 60_000), max_size=2)))
    above = tuple(replace(draw(bands), above_prompt_tokens=start) for start in starts)
    return Price("m", (draw(bands), *above), "test")


turns_of = st.builds(
    Turn,
    st.integers(0, 50_000),
    st.integers(0, 3_000),
    st.integers(0, 3_000),
    st.sampled_from([None, 300, 3600]),
)
factors = st.sampled_from([Decimal(1), Decimal("1.3"), Decimal("0.9")])


def _plain(name: str, factor: Decimal = Decimal(1)) -> Model:
    return Model(id=name, provider="p", context_tokens=10**9, max_output_tokens=10**6, tokenizer_factor=factor)


def _one_by_one(price: Price, turn: Turn, turns: int, warm: int, ratio: Fraction) -> Decimal:
    """What the conversation costs, request by request, as the provider would bill it."""

    def own(tokens: int) -> int:
        scaled = ratio * tokens
        return ceil_tokens(Decimal(scaled.numerator) / Decimal(scaled.denominator))

    writes = "cache_write_1h_tokens" if turn.cache_ttl_seconds == 3600 else "cache_write_5m_tokens"
    prompt, output, total = own(turn.prompt_tokens), own(turn.output_tokens), Decimal(0)
    for _ in range(turns + 1):
        if turn.cache_ttl_seconds is None or prompt < LEAST_CACHED_TOKENS:
            usage, warm = Usage(prompt, output), 0
        else:
            read = min(warm, prompt)
            usage, warm = Usage(0, output, read, **{writes: prompt - read}), prompt
        total += price.cost_usd(usage)
        prompt += own(turn.output_tokens + turn.new_tokens)
    return total


@settings(deadline=None)
@given(here=prices(), there=prices(), turn=turns_of, turns=st.integers(0, 40), warm=st.integers(0, 60_000), f=factors)
def test_sums_are_those_of_the_requests_one_by_one(
    *, here: Price, there: Price, turn: Turn, turns: int, warm: int, f: Decimal
) -> None:
    """In closed form or request by request: the same cost to the last digit, for any price, band, length and TTL."""
    move = weigh(
        _plain("here"),
        _plain("there", f),
        prices={"here": here, "there": there},
        warm={"here": Warmth("here", warm, 300, 1.0)},
        turn=turn,
        turns_to_come=turns,
        now=0.0,
    )
    assert move.stay_usd == _one_by_one(here, turn, turns, warm, Fraction(1))
    assert move.move_usd == _one_by_one(there, turn, turns, 0, Fraction(f))
    assert move.moves is (move.move_usd < move.stay_usd)


@settings(deadline=None)
@given(here=prices(), there=prices(), turn=turns_of, turns=st.floats(0, 500), warm=st.integers(0, 60_000), f=factors)
def test_no_cost_is_negative(*, here: Price, there: Price, turn: Turn, turns: float, warm: int, f: Decimal) -> None:
    """Whatever the prices: no way costs less than nothing, this turn no more than the whole."""
    move = weigh(
        _plain("here"),
        _plain("there", f),
        prices={"here": here, "there": there},
        warm={"here": Warmth("here", warm, 300, 1.0)},
        turn=turn,
        turns_to_come=turns,
        now=0.0,
    )
    assert 0 <= move.stay_now_usd <= move.stay_usd
    assert 0 <= move.move_now_usd <= move.move_usd
    assert move.lost_cache_usd >= 0
    assert move.turns_to_pay_back is None or move.turns_to_pay_back >= 1


@settings(deadline=None)
@given(here=prices(), there=prices(), turn=turns_of, turns=st.floats(0, 500), p=st.floats(0, 1))
def test_a_way_back_never_makes_a_move_look_better(
    *, here: Price, there: Price, turn: Turn, turns: float, p: float
) -> None:
    """With a chance of going back, fewer turns count for the cheaper model, and the way costs no less than nothing."""

    def moved(needs_more: float) -> Move:
        return weigh(
            _plain("here"),
            _plain("there"),
            prices={"here": here, "there": there},
            warm={"here": Warmth("here", turn.prompt_tokens, 300, 1.0)},
            turn=turn,
            turns_to_come=turns,
            now=0.0,
            needs_more=needs_more,
        )

    surely, perhaps = moved(0.0), moved(p)
    assert perhaps.stay_usd <= surely.stay_usd
    assert perhaps.return_usd >= 0 == surely.return_usd
    assert perhaps.move_usd - perhaps.return_usd <= surely.move_usd


@settings(deadline=None)
@given(price=prices(), turn=turns_of, turns=st.floats(0, 500), warm=st.integers(0, 60_000))
def test_the_model_it_is_on_is_never_moved_to(price: Price, turn: Turn, turns: float, warm: int) -> None:
    """Of one model there is nothing to weigh: it stays, both ways cost the same, nothing is lost."""
    held = {"here": Warmth("here", warm, 300, 1.0)}
    move = weigh(
        _plain("here"),
        _plain("here"),
        prices={"here": price},
        warm=held,
        turn=turn,
        turns_to_come=turns,
        now=0.0,
    )
    assert not move.moves
    assert move.stay_usd == move.move_usd
    assert move.lost_cache_usd == 0


@settings(deadline=None)
@given(
    here=prices(),
    part=st.integers(0, 70),
    turn=turns_of,
    turns=st.lists(st.integers(0, 4_000), min_size=2, max_size=2).map(sorted),
    warm=st.integers(0, 60_000),
    margin=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_more_turns_never_undo_a_move_to_a_cheaper_model(
    *, here: Price, part: int, turn: Turn, turns: list[int], warm: int, margin: float
) -> None:
    """Where every rate is lower by the margin, a move that pays with few turns to come pays with more of them."""
    factor = Decimal(part) / 100
    there = replace(
        here,
        bands=tuple(
            PriceBand(
                band.input * factor,
                band.output * factor,
                band.cache_read * factor,
                band.cache_write_5m * factor,
                band.cache_write_1h * factor,
                band.above_prompt_tokens,
            )
            for band in here.bands
        ),
    )
    few, many = (
        weigh(
            _plain("here"),
            _plain("there"),
            prices={"here": here, "there": there},
            warm={"here": Warmth("here", warm, 300, 1.0)},
            turn=turn,
            turns_to_come=hundredths / 100,
            now=0.0,
            margin=margin,
        )
        for hundredths in turns
    )
    assert many.moves or not few.moves


# ------------------------------------------------------------------ who can take it

NOTHING = History(has_tools=False, has_images=False, has_thinking=False, prompt_tokens=1_000)


@pytest.mark.parametrize(
    ("carries", "takes", "why"),
    [
        ({"has_tools": True}, {"tools": False}, "no tools"),
        ({"has_images": True}, {"images": False}, "no images"),
        ({"has_thinking": True, "in_tool_loop": True}, {"thinking": Thinking.EXTENDED}, "thinking"),
    ],
)
def test_a_model_must_read_what_the_history_carries(carries: Any, takes: Any, why: str) -> None:
    """Tools, images, and thinking in the middle of a tool loop keep a conversation from a model that lacks them."""
    unable = replace(_plain("m"), capabilities=Capabilities(**takes))
    assert why in (can_take(replace(NOTHING, **carries), unable) or "")
    assert can_take(NOTHING, unable) is None
    assert can_take(replace(NOTHING, **carries), SONNET) in (None, "it takes no images")


def test_thinking_alone_keeps_nobody_from_moving() -> None:
    """Blocks that the target cannot read are stripped: outside a tool loop any model can go on."""
    thought = replace(NOTHING, has_thinking=True)
    assert can_take(thought, replace(_plain("m"), capabilities=Capabilities(thinking=Thinking.EXTENDED))) is None
    assert can_take(replace(thought, in_tool_loop=True), HAIKU) is None


def test_prompt_and_reply_must_fit_the_context() -> None:
    """Room is kept for a reply, at most 8,192 tokens of it: a client's ceiling of 128,000 is not what it needs."""
    model = replace(_plain("m"), context_tokens=20_000, max_output_tokens=64_000)
    fits = replace(NOTHING, prompt_tokens=20_000 - 8_192, max_tokens=128_000)
    assert can_take(fits, model) is None
    too_long = can_take(replace(fits, prompt_tokens=fits.prompt_tokens + 1), model)
    assert too_long == "about 11,809 tokens and room for a reply of 8,192 do not fit its context of 20,000"
    assert can_take(replace(fits, prompt_tokens=19_900, max_tokens=100), model) is None


def test_the_history_is_measured_in_the_targets_tokens() -> None:
    """250,000 tokens of Opus 5.5 are 192,308 of Haiku 4.5, whose context of 200,000 has no room for a reply then."""
    long = History(False, False, False, prompt_tokens=250_000, tokenizer_factor=OPUS.tokenizer_factor)
    assert "about 192,308 tokens" in (can_take(long, OLD_HAIKU) or "")
    assert can_take(long, HAIKU) is None
