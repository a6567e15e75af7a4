"""Money and tokens: exact, additive, rounded once."""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.core.money import (
    Price,
    PriceBand,
    Usage,
    ceil_tokens,
    format_usd,
    nanousd_to_usd,
    usd_to_nanousd,
)

# Haiku 5.5 as Anthropic's price list gave it on 2026-11-22: another band above 100,000 tokens of prompt.
HAIKU_5_5 = Price(
    model="claude-haiku-5-5",
    bands=(
        PriceBand(Decimal("0.10"), Decimal("0.50"), Decimal("0.01"), Decimal("0.125"), Decimal("0.20")),
        PriceBand(Decimal("0.50"), Decimal("2.50"), Decimal("0.05"), Decimal("0.625"), Decimal("1.00"), 100_000),
    ),
    source="test",
    usd_per_web_search=Decimal("0.01"),
)

CLASSES = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
RATE_OF = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_5m_tokens": "cache_write_5m",
    "cache_write_1h_tokens": "cache_write_1h",
}

rates = st.decimals(min_value=0, max_value=1000, places=6, allow_nan=False)
bands = st.builds(PriceBand, rates, rates, rates, rates, rates)
counts = st.integers(0, 20_000_000)
usages = st.builds(Usage, counts, counts, counts, counts, counts, web_searches=st.integers(0, 50))


def _exactly(price: Price, usage: Usage) -> Fraction:
    band = price.bands[0]
    for candidate in price.bands:
        if usage.prompt_tokens > candidate.above_prompt_tokens:
            band = candidate
    tokens = sum(Fraction(getattr(band, RATE_OF[name])) * getattr(usage, name) for name in CLASSES) / 1_000_000
    return tokens + Fraction(price.usd_per_web_search) * usage.web_searches


@given(band=bands, above=bands, start=st.integers(1, 30_000_000), search=rates, usage=usages)
def test_cost_is_exact(band: PriceBand, above: PriceBand, start: int, search: Decimal, usage: Usage) -> None:
    """A cost is the exact sum of rate times tokens: not one digit is lost on the way."""
    price = Price("m", (band, replace(above, above_prompt_tokens=start)), "test", usd_per_web_search=search)
    assert Fraction(price.cost_usd(usage)) == _exactly(price, usage)


@given(band=bands, usage=usages)
def test_cost_is_additive_over_token_classes(band: PriceBand, usage: Usage) -> None:
    """Within a band the whole costs what its classes cost one by one: nothing is charged twice or left out."""
    price = Price("m", (band,), "test", usd_per_web_search=Decimal("0.01"))
    alone = [Usage(**{name: getattr(usage, name)}) for name in (*CLASSES, "web_searches")]
    assert price.cost_usd(usage) == sum(price.cost_usd(part) for part in alone)


@given(first=usages, second=usages)
def test_usages_add_up(first: Usage, second: Usage) -> None:
    """Two usages add class by class, and so do their costs at one rate."""
    price = Price("m", HAIKU_5_5.bands[:1], "test")
    assert price.cost_usd(first + second) == price.cost_usd(first) + price.cost_usd(second)
    assert (first + second).prompt_tokens == first.prompt_tokens + second.prompt_tokens


@pytest.mark.parametrize(
    "filler", ["input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"]
)
def test_band_is_chosen_by_the_whole_prompt(filler: str) -> None:
    """100,000 tokens of prompt, of whatever class, are the lower band; one more puts every token in the upper."""
    low = Usage(input_tokens=1, output_tokens=1000) + Usage(**{filler: 99_999})
    high = low + Usage(**{filler: 1})
    assert (low.prompt_tokens, high.prompt_tokens) == (100_000, 100_001)
    assert Fraction(HAIKU_5_5.cost_usd(low)) == _exactly(Price("m", HAIKU_5_5.bands[:1], ""), low)
    assert Fraction(HAIKU_5_5.cost_usd(high)) == _exactly(Price("m", HAIKU_5_5.bands[1:], ""), high)


def test_output_does_not_choose_the_band_but_is_priced_by_it() -> None:
    """A long answer to a short prompt stays in the lower band; the answer to a long one is in the upper."""
    assert HAIKU_5_5.cost_usd(Usage(input_tokens=1, output_tokens=1_000_000)) == Decimal("0.5000001")
    assert HAIKU_5_5.cost_usd(Usage(input_tokens=200_000, output_tokens=1_000_000)) == Decimal("2.6")


def test_writes_of_five_minutes_and_one_hour_have_their_own_rates() -> None:
    """A 1h cache write is never priced as a 5m one."""
    assert HAIKU_5_5.cost_usd(Usage(cache_write_5m_tokens=100_000)) == Decimal("0.0125")
    assert HAIKU_5_5.cost_usd(Usage(cache_write_1h_tokens=100_000)) == Decimal("0.02")


def test_thinking_is_part_of_output() -> None:
    """Thinking tokens are billed inside output tokens, not beside them."""
    assert HAIKU_5_5.cost_usd(Usage(output_tokens=100, thinking_tokens=90)) == HAIKU_5_5.cost_usd(
        Usage(output_tokens=100)
    )


def test_hours_count_only_where_they_cost() -> None:
    """A price per hour charges by time, any other price ignores it."""
    free = PriceBand(*[Decimal(0)] * 5)
    hourly = Price("local", (free,), "test", usd_per_hour=Decimal("1.80"))
    assert hourly.cost_usd(Usage(output_tokens=5), seconds=Decimal("2.5")) == Decimal("0.00125")
    assert HAIKU_5_5.cost_usd(Usage(), seconds=Decimal(3600)) == 0
    assert not hourly.is_free
    assert Price("local", (free,), "test").is_free
    assert not Price("local", (free,), "test", usd_per_web_search=Decimal(1)).is_free
    assert not HAIKU_5_5.is_free


@given(st.integers(-(10**30), 10**30))
def test_nanodollars_survive_the_round_trip(nano: int) -> None:
    """What is stored comes back as the same number of nano-dollars."""
    assert usd_to_nanousd(nanousd_to_usd(nano)) == nano


@given(st.fractions(min_value=0, max_value=10**6, max_denominator=10**6))
def test_rounding_to_nanodollars_is_half_to_even(amount: Fraction) -> None:
    """A fraction of a nano-dollar is rounded to the nearest whole one, a half to the even one."""
    halves = round(amount * 2)  # every half and whole nano-dollar
    assert usd_to_nanousd(Decimal(halves) / 2 / 10**9) == round(Fraction(halves, 2))


def test_half_a_nanodollar_goes_to_the_even_one() -> None:
    """0.5 goes to 0, 1.5 and 2.5 go to 2: sums of many small costs do not drift."""
    assert [usd_to_nanousd(Decimal(f"{tenths}e-10")) for tenths in (5, 15, 25, 26, -5, -15)] == [0, 2, 2, 3, 0, -2]


@pytest.mark.parametrize("name", [f.name for f in fields(Usage) if f.name != "estimated"])
@pytest.mark.parametrize("bad", [-1, 1.5, "3", None, True])
def test_impossible_counts_are_refused(name: str, bad: object) -> None:
    """A count is a whole number of at least 0, and the message names the one that is not."""
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        Usage(**{name: bad})  # type: ignore[arg-type]


@given(tokens=st.integers(0, 10**12), factor=st.decimals(min_value=Decimal("0.01"), max_value=100, places=6))
def test_scaling_rounds_up(tokens: int, factor: Decimal) -> None:
    """Counted by another tokenizer, a part of a token is a whole one: an estimate is never short."""
    scaled = Usage(input_tokens=tokens, output_tokens=tokens).scaled(factor)
    exact = Fraction(factor) * tokens
    assert exact <= scaled.input_tokens < exact + 1
    assert scaled.output_tokens == scaled.input_tokens
    assert factor == 1 or scaled.estimated


@given(tokens=st.integers(0, 10**9), factor=st.sampled_from(["1.3", "1.7", "0.9", "3"]))
def test_scaling_there_and_back_is_the_same_count(tokens: int, factor: str) -> None:
    """A count divided by a factor and multiplied again is itself, although the quotient has no end."""
    assert ceil_tokens(Decimal(tokens) / Decimal(factor) * Decimal(factor)) == tokens


def test_scaling_covers_every_class_but_searches() -> None:
    """All token classes scale; a web search is one search on any model."""
    one = Usage(1, 1, 1, 1, 1, 1, web_searches=2)
    assert one.scaled(Decimal("1.3")) == Usage(2, 2, 2, 2, 2, 2, web_searches=2, estimated=True)
    assert one.scaled(Decimal(1)) is one


def test_an_estimate_stays_one_when_added() -> None:
    """A sum that holds an estimate is one."""
    assert (Usage(estimated=True) + Usage()).estimated
    assert not (Usage() + Usage()).estimated


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "unpriced"),
        (Decimal(0), "$0.00"),
        (Decimal("1.5"), "$1.50"),
        (Decimal("2.2815"), "$2.2815"),
        (Decimal("0.000000001"), "$0.000000001"),
        (Decimal("0.0000000004"), "$0.00"),
        (Decimal("-0.0000000004"), "$0.00"),
        (Decimal("-3"), "-$3.00"),
        (Decimal("1234567.1"), "$1,234,567.10"),
        (Decimal("12345678901234567890123456789.123456789"), "$12,345,678,901,234,567,890,123,456,789.123456789"),
    ],
)
def test_dollars_for_people_show_every_digit_that_matters(usd: Decimal | None, text: str) -> None:
    """At least cents, at most nano-dollars, never a minus zero, and no price is not a price of nothing."""
    assert format_usd(usd) == text


@pytest.mark.parametrize(
    ("usd", "places", "text"),
    [
        ("0.125", 2, "$0.12"),
        ("-0.001", 2, "$0.00"),
        ("-1.005", 2, "-$1.00"),
        ("1234.5", 0, "$1,234"),
        ("2", 4, "$2.0000"),
    ],
)
def test_dollars_can_be_shown_to_fixed_places(usd: str, places: int, text: str) -> None:
    """With `places` the figure has exactly so many, rounded half to even."""
    assert format_usd(Decimal(usd), places=places) == text
