"""Whole-number prices: the same as the exact ones, to the nano-dollar."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.replay.sessions import BOOK, HAIKU, MODELS, OPUS, SETTINGS, SONNET, call, plain, session
from tierwise.core.catalog import Model
from tierwise.core.money import Conditions, Price, PriceBand, Usage, usd_to_nanousd
from tierwise.prices import PriceBook
from tierwise.replay import AllOn, RateBook, actual_nanousd, replay_session
from tierwise.replay.pricing import Rates, canonical_id

RATE = st.decimals(0, 200, places=6, allow_nan=False)
TOKENS = st.integers(0, 2_000_000)
USAGES = st.builds(
    Usage,
    input_tokens=TOKENS,
    output_tokens=TOKENS,
    cache_read_tokens=TOKENS,
    cache_write_5m_tokens=TOKENS,
    cache_write_1h_tokens=TOKENS,
    web_searches=st.integers(0, 20),
)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    limits = sorted({0, *draw(st.lists(st.integers(1, 1_000_000), max_size=2))})
    bands = tuple(
        PriceBand(draw(RATE), draw(RATE), draw(RATE), draw(RATE), draw(RATE), above_prompt_tokens=limit)
        for limit in limits
    )
    return Price("m", bands, "test", usd_per_web_search=draw(st.decimals(0, 1, places=11, allow_nan=False)))


@given(prices(), USAGES)
def test_any_price_gives_the_same_whole_and_exact(price: Price, usage: Usage) -> None:
    """Whatever the rates, bands and tokens: what the integers say is the exact cost, rounded once, half to even."""
    assert Rates(price).usage_nanousd(usage) == usd_to_nanousd(price.cost_usd(usage))


@given(
    st.sampled_from([model for model in MODELS if model.provider == "anthropic"]),
    st.sampled_from([date(2026, 10, 1), date(2026, 11, 22)]),
    st.builds(Conditions, batch=st.booleans(), inference_geo=st.sampled_from([None, "us", "global"])),
    USAGES,
)
def test_shipped_prices_give_the_same_whole_and_exact(
    model: Model, on: date, conditions: Conditions, usage: Usage
) -> None:
    """Batch, geography and dated prices, of each shipped model."""
    price = BOOK.price(model, on, conditions)
    assert Rates(price).usage_nanousd(usage) == usd_to_nanousd(price.cost_usd(usage))


def test_half_a_nano_dollar_goes_to_the_even_one() -> None:
    """Two tokens at a quarter of a nano-dollar are half of one, which is none; six are one and a half, which is two."""
    rate = Decimal("0.00025")
    band = PriceBand(rate, rate, rate, rate, rate)
    rates = Rates(Price("m", (band,), "test"))
    assert [rates.usage_nanousd(Usage(input_tokens=n)) for n in (2, 6, 7)] == [0, 2, 2]


def test_haiku_is_five_times_dearer_above_its_band() -> None:
    """At 100,000 tokens of prompt $0.10 a million, at one more $0.50, for every token and the answer too."""
    rates = RateBook(BOOK, MODELS).rates(HAIKU, call().at_ms)
    assert rates is not None
    assert rates.usage_nanousd(Usage(input_tokens=100_000, output_tokens=1_000)) == 10_000_000 + 500_000
    assert rates.usage_nanousd(Usage(input_tokens=1, cache_read_tokens=100_000, output_tokens=1_000)) == (
        500 + 5_000_000 + 2_500_000
    )
    assert rates.band_limits == (100_000,)


def test_each_call_has_the_price_of_its_day() -> None:
    """A cache read of Sonnet 5.5 cost twice as much before 2026-10-07."""
    now = call(model=SONNET, cache_read_tokens=1_000_000)
    day_ms = 86_400_000
    before = call(model=SONNET, cache_read_tokens=1_000_000, seconds=-50 * day_ms / 1000)
    assert (actual_nanousd(before, BOOK), actual_nanousd(now, BOOK)) == (200_000_000, 100_000_000)
    book = RateBook(BOOK, MODELS)
    assert (book.nanousd(before), book.nanousd(now)) == (200_000_000, 100_000_000)
    assert RateBook(BOOK, MODELS, date(2026, 11, 1)).nanousd(before) == 100_000_000


def test_a_model_that_costs_by_the_hour_costs_the_time_that_it_takes() -> None:
    """At $3.60 an hour, 300 tokens a second in and 25 out: 3,000 in are 10 s and a cent, 250 out are another."""
    (local,) = [model for model in MODELS if model.id == "qwen3:8b"]
    free = PriceBand(Decimal(0), Decimal(0), Decimal(0), Decimal(0), Decimal(0))
    book = PriceBook([Price("qwen3:8b", (free,), "test", usd_per_hour=Decimal("3.60"))])
    rates = RateBook(book, MODELS).rates(local, call().at_ms)
    assert rates is not None
    assert rates.usage_nanousd(Usage(input_tokens=3_000)) == 10_000_000
    assert rates.usage_nanousd(Usage(output_tokens=250, cache_read_tokens=9_000)) == 10_000_000


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("claude-opus-5-5[1m]", "claude-opus-5-5"),
        ("claude-sonnet-5", "claude-sonnet-5"),
        ("claude-haiku-4-5@default", "claude-haiku-4-5"),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4-5"),
        ("global.anthropic.claude-sonnet-5-5", "claude-sonnet-5-5"),
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0:200k", "claude-sonnet-4-5"),
        ("anthropic.claude-opus-5-5-v1:0[1m]", "claude-opus-5-5"),
        ("bedrock/converse/eu.anthropic.claude-haiku-5-5-v1:0", "claude-haiku-5-5"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0",
            "claude-haiku-4-5",
        ),
        ("vertex_ai/claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("my-claude-opus-5-5", "my-claude-opus-5-5"),
        ("<synthetic>", "<synthetic>"),
    ],
)
def test_a_snapshot_is_its_model(told: str, name: str) -> None:
    """A snapshot's day, a longer context, and who serves it where, are no part of a Claude model's name."""
    assert canonical_id(told) == name


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        ("claude-opus-4-5", 100),
        ("claude-opus-4-5-20251101", 100),
        ("claude-opus-4-5@20251101", 100),
        ("global.anthropic.claude-opus-4-5-20251101-v1:0", 100),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", 110),
        ("anthropic.claude-opus-4-5-20251101-v1:0", 110),
    ],
)
@pytest.mark.parametrize("provider", ["anthropic", "bedrock"])
def test_a_regional_endpoint_of_bedrock_costs_a_tenth_more(name: str, percent: int, provider: str) -> None:
    """Every spelling is priced as its model; where the name tells a region, at the region's price."""
    if provider == "bedrock" and "anthropic." not in name:
        provider = "vertex"
    used = Usage(1_000, 2_000, 30_000, 4_000, 5_000)
    one = replace(call(model=name, provider=provider), usage=used)
    book = RateBook(BOOK, MODELS)
    plain = book.nanousd(replace(call(model="claude-opus-4-5"), usage=used))
    assert plain is not None
    assert book.nanousd(one) == actual_nanousd(one, BOOK) == plain * percent // 100
    assert book.nanousd(one, listed=True) == plain
    known = book.model(name)
    assert known is not None
    assert known.id == "claude-opus-4-5"


def test_a_price_of_ones_own_under_a_clouds_name_goes_first() -> None:
    """It is what that endpoint costs: no region's premium comes on top, and other spellings keep their price."""
    name, other = "us.anthropic.claude-opus-5-5-v1:0", "eu.anthropic.claude-opus-5-5-v1:0"
    band = PriceBand(Decimal(3), Decimal(15), Decimal(3), Decimal(3), Decimal(3))
    own = Price(name, (band,), "test", valid_from=date(2020, 1, 1))
    book = PriceBook([own])
    for provider in ("anthropic", "bedrock"):
        mine, theirs = (call(model=told, provider=provider, input_tokens=1_000) for told in (name, other))
        assert RateBook(book, MODELS).nanousd(mine) == actual_nanousd(mine, book) == 3_000_000
        assert RateBook(book, MODELS).nanousd(theirs) == actual_nanousd(theirs, book) == 4_400_000
    stays = replay_session(session(mine), AllOn(settings=SETTINGS, tier="opus"), plain(prices=book))
    assert stays.actual_nanousd == stays.expected_nanousd == 3_000_000


def test_a_region_told_by_the_request() -> None:
    """Bedrock answers with the model's plain name; what was asked for still says where."""
    answered = call(model="claude-opus-5-5", requested_model="eu.anthropic.claude-opus-5-5", input_tokens=1_000)
    assert RateBook(BOOK, MODELS).nanousd(answered) == 4_400_000


def test_earlier_models_cost_the_same_at_every_endpoint() -> None:
    """The premium began with the models of 4.5."""
    earlier = [
        call(model=f"{place}anthropic.claude-sonnet-4-20250514-v1:0", input_tokens=1_000) for place in ("us.", "")
    ]
    assert {actual_nanousd(one, BOOK) for one in earlier} == {3_000_000}


def test_what_moves_stays_at_its_endpoint() -> None:
    """Another model in the same region costs a tenth more too."""
    here = call(model="us.anthropic.claude-opus-5-5-v1:0", input_tokens=1_000)
    moved = replay_session(session(here), AllOn(settings=SETTINGS, tier="sonnet"), plain())
    assert (moved.actual_nanousd, moved.expected_nanousd) == (4_400_000, 2_200_000)


def test_a_snapshot_costs_what_its_model_costs() -> None:
    """The dated table knows Sonnet 5.5 by its name; a snapshot of it is priced by that."""
    snapshot = call(model="claude-sonnet-5-5-20260928", cache_read_tokens=1_000_000)
    assert actual_nanousd(snapshot, BOOK) == RateBook(BOOK, MODELS).nanousd(snapshot) == 100_000_000


def test_unknown_is_none_and_nothing_used_is_nothing() -> None:
    """A model that nobody prices has no cost, unless its record tells one; a call that used nothing cost nothing."""
    unknown = call(model="nobody-7b", input_tokens=5)
    told = call(model="nobody-7b", input_tokens=5, cost_nanousd=77)
    nothing = call(model="<synthetic>")
    for cost in (lambda one: actual_nanousd(one, BOOK), RateBook(BOOK, MODELS).nanousd):
        assert [cost(one) for one in (unknown, told, nothing)] == [None, 77, 0]


@given(USAGES, st.sampled_from([OPUS.id, HAIKU.id, SONNET.id]))
def test_a_book_and_a_single_look_agree(usage: Usage, model_id: str) -> None:
    """The book that keeps its rates says the same as the price that is looked up for one call."""
    one = replace(call(model=model_id), usage=usage)
    assert RateBook(BOOK, MODELS).nanousd(one) == actual_nanousd(one, BOOK)
