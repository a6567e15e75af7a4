"""Prices of models by day and conditions: dated, exact, and never silently nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tierwise.config import load_settings
from tierwise.core.catalog import Model
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import Price, PriceBand, Usage
from tierwise.core.settings import ProviderSettings
from tierwise.prices import PriceBook
from tierwise.prices.book import Conditions

TODAY = date(2026, 11, 22)
BATCH, FAST, US = Conditions(batch=True), Conditions(fast=True), Conditions(inference_geo="us")

# Anthropic's price list as read on 2026-11-22: input, output, 5m write, 1h write, cache read; US$ per million tokens.
CLAUDE = {
    "claude-haiku-5-5": ("0.10", "0.50", "0.125", "0.20", "0.01"),
    "claude-sonnet-5-5": ("2", "10", "2.50", "4", "0.10"),
    "claude-opus-5-5": ("4", "20", "5", "8", "0.20"),
    "claude-fable-5-2": ("8", "40", "10", "16", "0.20"),
    "claude-fable-5-1": ("10", "50", "12.50", "20", "0.25"),
    "claude-opus-5": ("5", "25", "6.25", "10", "0.50"),
    "claude-sonnet-5": ("2", "10", "2.50", "4", "0.20"),
    "claude-haiku-4-5": ("1", "5", "1.25", "2", "0.10"),
    "claude-sonnet-4-5": ("3", "15", "3.75", "6", "0.30"),
    "claude-opus-4-5": ("5", "25", "6.25", "10", "0.50"),
}


def _model(model_id: str, provider: str = "anthropic", price_as: str | None = None) -> Model:
    return Model(id=model_id, provider=provider, context_tokens=1, max_output_tokens=1, price_as=price_as)


def _book(text: str = "", tmp: Path | None = None, env: Mapping[str, str] | None = None) -> PriceBook:
    path = None
    if tmp is not None:
        path = tmp / "tierwise.toml"
        path.write_text(text, "utf-8")
    settings = load_settings(env={"HOME": "/nowhere", **(env or {})}, cwd=Path("/"), path=path)
    return PriceBook(settings.prices, settings.providers)


BOOK = _book()


def _rates(price: Price, band: int = 0) -> tuple[Decimal, ...]:
    found = price.bands[band]
    return found.input, found.output, found.cache_write_5m, found.cache_write_1h, found.cache_read


@pytest.mark.parametrize("model_id", CLAUDE)
def test_every_claude_model_has_its_list_price(model_id: str) -> None:
    """Each class of token costs what Anthropic's list of 2026-11-22 says, and a thousand searches cost $10."""
    price = BOOK.price(_model(model_id), TODAY)
    assert _rates(price) == tuple(Decimal(rate) for rate in CLAUDE[model_id])
    assert price.usd_per_web_search * 1000 == 10
    assert price.model == model_id
    assert price.source


def test_haiku_has_a_second_band() -> None:
    """Above 100,000 tokens of prompt Haiku 5.5 costs five times as much, in every class."""
    price = BOOK.price(_model("claude-haiku-5-5"), TODAY)
    assert [band.above_prompt_tokens for band in price.bands] == [0, 100_000]
    assert _rates(price, 1) == tuple(Decimal(rate) for rate in ("0.50", "2.50", "0.625", "1.00", "0.05"))
    assert price.cost_usd(Usage(input_tokens=100_000)) == Decimal("0.01")
    assert price.cost_usd(Usage(input_tokens=100_001)) == Decimal("0.0500005")


@pytest.mark.parametrize(
    ("day", "rate"),
    [(date(2026, 9, 28), "0.20"), (date(2026, 10, 6), "0.20"), (date(2026, 10, 7), "0.10"), (TODAY, "0.10")],
)
def test_sonnets_cache_read_was_halved_on_a_day(day: date, rate: str) -> None:
    """A call of before 2026-10-07 is priced as of then."""
    assert BOOK.price(_model("claude-sonnet-5-5"), day).bands[0].cache_read == Decimal(rate)


@pytest.mark.parametrize("day", [date(2026, 10, 8), date(2026, 10, 14), TODAY])
@pytest.mark.parametrize("model_id", CLAUDE)
def test_a_batch_costs_half(model_id: str, day: date) -> None:
    """Half of every class, once, whether or not the price data states a batch price of its own."""
    standard, batch = BOOK.price(_model(model_id), day), BOOK.price(_model(model_id), day, BATCH)
    for band in range(len(standard.bands)):
        assert tuple(rate * 2 for rate in _rates(batch, band)) == _rates(standard, band)
    assert batch.conditions == ("batch",)
    assert batch.usd_per_web_search == standard.usd_per_web_search


@pytest.mark.parametrize("model_id", CLAUDE)
def test_inference_in_the_us_costs_a_tenth_more(model_id: str) -> None:
    """1.1 times every class, in every band, and also on top of a batch."""
    standard = BOOK.price(_model(model_id), TODAY)
    for conditions, factor in ((US, "1.1"), (Conditions(batch=True, inference_geo="us"), "0.55")):
        there = BOOK.price(_model(model_id), TODAY, conditions)
        for band in range(len(standard.bands)):
            assert _rates(there, band) == tuple(rate * Decimal(factor) for rate in _rates(standard, band))
    assert BOOK.price(_model(model_id), TODAY, US).conditions == ("geo:us",)


def test_other_places_are_not_priced_by_silence() -> None:
    """`global` is the standard price; a place whose factor nobody stated is an error that lists the known ones."""
    haiku = _model("claude-haiku-5-5")
    assert _rates(BOOK.price(haiku, TODAY, Conditions(inference_geo="global"))) == _rates(BOOK.price(haiku, TODAY))
    with pytest.raises(UnpricedModel, match=r"'claude-haiku-5-5' with inference_geo 'mars'; use one of global, us"):
        BOOK.price(haiku, TODAY, Conditions(inference_geo="mars"))


def test_fast_mode_has_its_own_price() -> None:
    """Opus 5.5 in fast mode costs 8 and 40; a model without a fast price is not given its standard one."""
    fast = BOOK.price(_model("claude-opus-5-5"), TODAY, FAST)
    assert (fast.bands[0].input, fast.bands[0].output, fast.conditions) == (8, 40, ("fast",))
    for model_id in ("claude-haiku-5-5", "claude-sonnet-5-5"):
        with pytest.raises(UnpricedModel, match="no fast-mode price"):
            BOOK.price(_model(model_id), TODAY, FAST)


def test_a_providers_settings_are_conditions(tmp_path: Path) -> None:
    """What a provider is configured to send (geography, fast mode) is in the price of its models."""
    book = _book("[providers.anthropic]\ninference_geo = 'us'\nspeed = 'fast'", tmp_path)
    price = book.price(_model("claude-opus-5-5"), TODAY)
    assert (price.bands[0].input, price.conditions) == (Decimal("8.8"), ("fast", "geo:us"))


tokens = st.one_of(st.integers(0, 300_000), st.sampled_from([0, 1, 99_999, 100_000, 100_001]))


@given(
    model_id=st.sampled_from(sorted(CLAUDE)),
    usage=st.builds(Usage, tokens, tokens, tokens, tokens, tokens, web_searches=st.integers(0, 5)),
    batch=st.booleans(),
)
@example("claude-haiku-5-5", Usage(input_tokens=100_000), False)
@example("claude-haiku-5-5", Usage(input_tokens=1, cache_read_tokens=100_000), False)
@example("claude-sonnet-4-5", Usage(input_tokens=200_000), False)
@example("claude-sonnet-4-5", Usage(input_tokens=200_001), False)
def test_costs_agree_with_genai_prices(model_id: str, usage: Usage, batch: bool) -> None:
    """Our cost is that of genai-prices for the same request, although it counts cached tokens as input tokens."""
    from genai_prices import Usage as Theirs
    from genai_prices import calc_price

    theirs = calc_price(
        Theirs(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
            cache_write_5m_tokens=usage.cache_write_5m_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            web_searches=usage.web_searches,
        ),
        model_id,
        provider_id="anthropic",
        genai_request_timestamp=datetime(2026, 11, 22, 12, tzinfo=UTC),
        price_context={"processing": "batch"} if batch else None,
    )
    ours = BOOK.price(_model(model_id), TODAY, BATCH if batch else Conditions())
    assert ours.cost_usd(usage) == theirs.total_price


# ------------------------------------------------------------------ models without a price


@pytest.mark.parametrize(
    "model", [_model("claude-nonsense-9"), _model("gpt-unheard-of", "openai"), _model("x", "mine")]
)
def test_a_model_without_a_price_is_never_free(model: Model) -> None:
    """The error names the model, the provider and the day, and shows what to add; each raise is one of its own."""
    caught = []
    for _ in range(2):
        with pytest.raises(UnpricedModel) as error:
            BOOK.price(model, TODAY)
        caught.append(error.value)
    message = str(caught[0])
    assert f"no price is known for {model.id!r} (provider {model.provider}) on 2026-11-22" in message
    assert f'[[prices]] model = "{model.id}", from = 2026-11-22, input = "…", output = "…"' in message
    assert caught[0] is not caught[1]


def test_the_line_that_the_error_shows_mends_it(tmp_path: Path) -> None:
    """What the message tells to add is a valid entry, and with it the model has a price."""
    text = '[[prices]]\nmodel = "claude-nonsense-9"\nfrom = 2026-11-22\ninput = "1"\noutput = "2"'
    assert _book(text, tmp_path).price(_model("claude-nonsense-9"), TODAY).bands[0].output == 2


def test_a_local_model_is_free_by_default() -> None:
    """What runs on this machine costs nothing until somebody says otherwise."""
    for model in (_model("qwen3:8b", "ollama"), _model("claude-haiku-5-5", "embedded")):
        assert BOOK.price(model, TODAY).is_free
        assert BOOK.price(model, TODAY, Conditions(batch=True, inference_geo="us")).is_free


def test_a_local_model_may_cost_by_token_or_by_hour(tmp_path: Path) -> None:
    """A configured price of a local model counts, also where only the hour costs."""
    book = _book(
        "[[prices]]\nmodel = 'qwen3:8b'\ninput = 0\noutput = 0\nusd_per_hour = '3.6'\n"
        "[[prices]]\nmodel = 'ollama:llama3.2:3b'\ninput = '0.02'\noutput = '0.04'\n",
        tmp_path,
    )
    hourly = book.price(_model("qwen3:8b", "ollama"), TODAY)
    assert hourly.cost_usd(Usage(output_tokens=9), seconds=Decimal("2.5")) == Decimal("0.0025")
    by_token = book.price(_model("llama3.2:3b", "ollama"), TODAY)
    assert by_token.cost_usd(Usage(input_tokens=1_000_000, output_tokens=1_000_000)) == Decimal("0.06")
    assert book.price(_model("phi4", "ollama"), TODAY).is_free


def test_a_hosted_model_can_be_priced_as_another() -> None:
    """`price_as` gives a model of any provider the price of a known one, and the price bears its own name."""
    providers = {
        "mine": ProviderSettings(name="mine", kind="anthropic"),
        "gpu": ProviderSettings(name="gpu", kind="openai", local=True),
    }
    book = PriceBook((), providers)
    for provider in providers:
        price = book.price(_model("house-blend", provider, "claude-haiku-5-5"), TODAY)
        assert (price.model, price.bands[0].input) == ("house-blend", Decimal("0.10"))
        with pytest.raises(UnpricedModel, match="house-blend"):
            book.price(_model("house-blend", provider, "nonsense-9"), TODAY)


# ------------------------------------------------------------------ private prices


def _price(model: str, rate: str, valid_from: date | None = None, source: str = "test") -> Price:
    return Price(model, (PriceBand(*[Decimal(rate)] * 5),), source, valid_from)


def test_a_private_price_wins(tmp_path: Path) -> None:
    """A price in tierwise.toml wins over genai-prices and over the shipped table."""
    book = _book(
        "".join(f"[[prices]]\nmodel = '{m}'\ninput = '1.5'\noutput = '7'\n" for m in ("claude-sonnet-5-5", "gpt-5")),
        tmp_path,
    )
    for model in (_model("claude-sonnet-5-5"), _model("gpt-5", "openai")):
        price = book.price(model, TODAY)
        assert (price.bands[0].input, price.bands[0].output, price.source) == (Decimal("1.5"), 7, "tierwise.toml")


def test_a_private_price_counts_from_its_day_on(tmp_path: Path) -> None:
    """Before a private price's first day the public one of that day applies, the shipped table's included."""
    book = _book("[[prices]]\nmodel = 'claude-sonnet-5-5'\nfrom = 2026-11-01\ninput = '1'\noutput = '1'\n", tmp_path)
    sonnet = _model("claude-sonnet-5-5")
    assert book.price(sonnet, date(2026, 11, 1)).bands[0].input == 1
    assert book.price(sonnet, date(2026, 10, 31)).bands[0].cache_read == Decimal("0.10")
    assert book.price(sonnet, date(2026, 10, 1)).bands[0].cache_read == Decimal("0.20")


def test_the_latest_entry_of_the_day_applies() -> None:
    """Of several entries the latest on or before the day counts, in whatever order they are given."""
    book = PriceBook([_price("m", "3", date(2026, 3, 1)), _price("m", "1"), _price("m", "2", date(2026, 2, 1))])
    days = [date(2020, 1, 1), date(2026, 2, 1), date(2026, 2, 28), date(2026, 3, 1)]
    assert [book.price(_model("m"), day).bands[0].input for day in days] == [1, 2, 2, 3]


def test_of_two_entries_of_a_day_the_later_one_counts() -> None:
    """A project's file is read after the user's, so its entry of the same day wins."""
    book = PriceBook([_price("m", "1", TODAY), _price("m", "2", TODAY)])
    assert book.price(_model("m"), TODAY).bands[0].input == 2


def test_a_price_for_a_model_at_a_provider_wins_over_one_for_the_model() -> None:
    """`provider:model` prices that model there only."""
    book = PriceBook([_price("m", "1"), _price("p:m", "2")])
    assert book.price(_model("m", "p"), TODAY).bands[0].input == 2
    assert book.price(_model("m", "q"), TODAY).bands[0].input == 1


def test_private_prices_obey_conditions() -> None:
    """A private price is halved in a batch and raised by geography; it has no fast mode of itself."""
    book = PriceBook([_price("m", "10")])
    assert book.price(_model("m"), TODAY, BATCH).bands[0].input == 5
    assert book.price(_model("m"), TODAY, US).bands[0].input == 11
    with pytest.raises(UnpricedModel, match="no fast-mode price is known for 'm'"):
        book.price(_model("m"), TODAY, FAST)


def test_the_doctor_learns_how_old_the_prices_are() -> None:
    """The package's version, its newest price in force and the newest shipped entry are known."""
    info = BOOK.info(date(2026, 11, 23))
    assert info.package_date is not None
    assert date(2026, 10, 14) <= info.package_date <= date(2026, 11, 23), "an announced price is not in force yet"
    assert info.package == "genai-prices"
    assert info.package_version.count(".") == 2
    assert info.shipped_until >= date(2026, 10, 7)
