"""Prices as whole numbers: the same cost as `Price.cost_usd` to the nano-dollar, at the speed of integers.

A rate in US$ per million tokens is a thousandfold of nano-dollars per token. Where a discount leaves a fraction of one,
all rates of the price are counted in the smaller unit that leaves none, and the sum is rounded once, half to even.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from tierwise.core.calls import ImportedCall
from tierwise.core.catalog import Model
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import EXACT, NANOUSD_PER_USD, Conditions, Price, PriceBand, Usage, usd_to_nanousd
from tierwise.prices import PriceBook

__all__ = ["MS_PER_DAY", "Prompt", "RateBook", "Rates", "actual_nanousd", "canonical_id", "prompt_of", "terms"]

MS_PER_DAY = 86_400_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_STANDARD = Conditions()
_FINE = Decimal(1).scaleb(-12)  # of a dollar for a million tokens
# What stands around the name of a Claude model in some records: who serves it and where (Bedrock, LiteLLM), the day of
# a snapshot (Vertex has `@`), its revision there, a longer context.
_SPELLED = re.compile(
    r"""(?:[\w.:-]+/)*(?:(?:(?P<where>[a-z-]+)\.)?(?P<bedrock>anthropic\.))?
    (?P<name>claude-[a-z0-9-]*?[a-z0-9])
    (?:-v\d)?(?:[-@]20\d{6}|@default|@latest)?(?:-v\d+)?(?::\d+k?)*(?:\[1m\])?""",
    re.VERBOSE,
)
_CLAUDE = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d+))?$")
_FIRST_WITH_ENDPOINTS = (4, 5)  # earlier models cost the same at every endpoint of Bedrock


def canonical_id(model_id: str) -> str:
    """A Claude model's id without what names one snapshot of it, or who serves it."""
    found = _SPELLED.fullmatch(model_id)
    return model_id if found is None else found["name"]


def terms(call: ImportedCall) -> Conditions:
    """What a call's price depends on, what its model's name tells of the endpoint included.

    Bedrock's names tell: `global.` costs what Anthropic's API does, any other place, and none, a region's premium.
    Vertex has one name for all of its endpoints: such a call is taken for one at the global one.
    """
    if not any("anthropic." in name for name in (call.model, call.requested_model or "")):
        return call.conditions
    return _terms(call.model, call.requested_model or "", call.conditions)


@lru_cache(4_096)
def _terms(model_id: str, requested: str, conditions: Conditions) -> Conditions:
    for name in (model_id, requested):
        found = _SPELLED.fullmatch(name)
        if found is None or found["bedrock"] is None:
            continue
        version = _CLAUDE.match(found["name"])
        told = (0, 0) if version is None else (int(version[1]), int(version[2] or 0))
        regional = found["where"] != "global" and told >= _FIRST_WITH_ENDPOINTS
        return replace(conditions, regional=True) if regional else conditions
    return conditions


_Band = tuple[int, int, int, int, int]


class Prompt(NamedTuple):
    """One request's prompt, by token class."""

    fresh: int
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0


class Rates:
    """One price, in whole numbers."""

    __slots__ = ("_bands", "_limits", "_search", "_unit", "price")

    def __init__(self, price: Price) -> None:
        self.price = price
        # Per token; a million of them and a billion to the dollar leave a thousand.
        bands = [tuple(EXACT.multiply(rate, 1_000) for rate in _rates(band)) for band in price.bands]
        search = EXACT.multiply(price.usd_per_web_search, NANOUSD_PER_USD)
        places = max(map(_places, (search, *chain.from_iterable(bands))))
        self._unit = int(10**places)
        self._bands: list[_Band] = []
        for fresh, output, read, write_5m, write_1h in bands:
            whole = (int(EXACT.scaleb(rate, places)) for rate in (fresh, output, read, write_5m, write_1h))
            self._bands.append((next(whole), next(whole), next(whole), next(whole), next(whole)))
        self._search = int(EXACT.scaleb(search, places))
        self._limits = [band.above_prompt_tokens for band in price.bands]

    def nanousd(self, prompt: Prompt, output: int, searches: int = 0, band_prompt_tokens: int | None = None) -> int:
        """What one request costs. `band_prompt_tokens`: how long the prompts were, where these are sums of several."""
        fresh, read, write_5m, write_1h = prompt
        bands = self._bands
        if len(bands) == 1:
            band = bands[0]
        else:
            band = self._band(sum(prompt) if band_prompt_tokens is None else band_prompt_tokens)
        total = fresh * band[0] + output * band[1] + read * band[2] + write_5m * band[3] + write_1h * band[4]
        total += searches * self._search
        return total if self._unit == 1 else self._rounded(total)

    def nanousd_by_output(self, prompt: Prompt, outputs: tuple[int, int, int], searches: int) -> tuple[int, int, int]:
        """What one request costs with an answer of each of three lengths."""
        first, second, third = outputs
        if first == second == third:
            found = self.nanousd(prompt, first, searches)
            return found, found, found
        if self._unit != 1:
            return (
                self.nanousd(prompt, first, searches),
                self.nanousd(prompt, second, searches),
                self.nanousd(prompt, third, searches),
            )
        asked = self.nanousd(prompt, 0, searches)
        rate = (self._bands[0] if len(self._bands) == 1 else self._band(sum(prompt)))[1]
        return asked + first * rate, asked + second * rate, asked + third * rate

    def _band(self, length: int) -> _Band:
        chosen = self._bands[0]
        for limit, band in zip(self._limits, self._bands, strict=True):
            if length > limit:
                chosen = band
        return chosen

    def _rounded(self, total: int) -> int:
        """In whole nano-dollars, half to even."""
        unit = self._unit
        whole, rest = divmod(total, unit)
        up = 2 * rest > unit or (2 * rest == unit and whole % 2 == 1)
        return whole + 1 if up else whole

    def usage_nanousd(self, usage: Usage, band_prompt_tokens: int | None = None) -> int:
        """What one request that used this costs."""
        return self.nanousd(prompt_of(usage), usage.output_tokens, usage.web_searches, band_prompt_tokens)

    @property
    def band_limits(self) -> tuple[int, ...]:
        """Above how many tokens of prompt each further band begins."""
        return tuple(self._limits[1:])


def prompt_of(usage: Usage) -> Prompt:
    """The prompt's part of what a request used."""
    return Prompt(usage.input_tokens, usage.cache_read_tokens, usage.cache_write_5m_tokens, usage.cache_write_1h_tokens)


def _rates(band: PriceBand) -> tuple[Decimal, Decimal, Decimal, Decimal, Decimal]:
    return (band.input, band.output, band.cache_read, band.cache_write_5m, band.cache_write_1h)


def _places(number: Decimal) -> int:
    """How many decimals it has that matter."""
    exponent = number.normalize(EXACT).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


class RateBook:
    """Rates by model, day and conditions, looked up once each.

    Args:
        prices: where they come from.
        models: those that are known. Any other is priced by its name alone.
        priced_on: the day whose prices apply to every call; None: that of each call.
    """

    def __init__(self, prices: PriceBook, models: Iterable[Model] = (), priced_on: date | None = None) -> None:
        self._prices = prices
        self._models: dict[str, Model] = {}
        for model in models:
            self._models.setdefault(model.id, model)
        self._priced_on = priced_on
        self._known: dict[tuple[object, ...], Rates | None] = {}
        self._of_call: dict[tuple[str, str, int, Conditions], tuple[Model | None, Rates | None]] = {}

    def model(self, model_id: str) -> Model | None:
        """The known model of that id, of which a snapshot's day may be part."""
        return self._models.get(model_id) or self._models.get(canonical_id(model_id))

    def day(self, at_ms: int) -> date:
        """The day whose prices apply at a time."""
        return self._priced_on or date.fromordinal(_EPOCH_ORDINAL + at_ms // MS_PER_DAY)

    def rates(self, model: Model, at_ms: int, conditions: Conditions = _STANDARD) -> Rates | None:
        """The rates of a model at a time; None where nobody knows them.

        One that costs by the hour costs the time that it is expected to take, at its speed.
        """
        plain = conditions == _STANDARD
        key = (model.provider, model.id, model.price_as, at_ms // MS_PER_DAY, None if plain else conditions)
        try:
            return self._known[key]
        except KeyError:
            price = self._price(model, self.day(at_ms), conditions)
            found = self._known[key] = None if price is None else Rates(_with_time(price, model))
            return found

    def of(self, call: ImportedCall, *, listed: bool = False) -> tuple[Model | None, Rates | None]:
        """The model that answered, if it is a known one, and its rates for that call, if anybody knows them.

        `listed`: as Anthropic lists them, whatever a cloud's regional endpoint adds.
        """
        conditions = call.conditions if listed else terms(call)
        key = (call.provider, call.model, call.at_ms // MS_PER_DAY, conditions)
        found = self._of_call.get(key)
        if found is None:
            model, day = self.model(call.model), self.day(call.at_ms)
            asked = _asked(call, self._prices, day, model)
            prices = (self._price(one, day, call.conditions if named else conditions) for one, named in asked)
            price = next((price for price in prices if price is not None), None)
            found = self._of_call[key] = (model, None if price is None else Rates(price))
        return found

    def nanousd(self, call: ImportedCall, *, listed: bool = False) -> int | None:
        """What a call really used, at the prices of this book, or as Anthropic lists them. None: unpriced."""
        usage = call.usage
        if not (usage.input_tokens or usage.output_tokens or usage.prompt_tokens or usage.web_searches):
            return call.cost_nanousd or 0
        rates = self.of(call, listed=listed)[1]
        return call.cost_nanousd if rates is None else rates.usage_nanousd(usage, call.band_prompt_tokens)

    def _price(self, model: Model, on: date, conditions: Conditions) -> Price | None:
        try:
            return self._prices.price(model, on, conditions)
        except UnpricedModel:
            return None


def _with_time(price: Price, model: Model) -> Price:
    """A price by the hour as one by tokens: what is warm is not read again, so it takes no time."""
    if not price.usd_per_hour:
        return price

    def seconds_usd(tokens_per_second: float) -> Decimal:
        a_million = Decimal(1_000_000) / Decimal(str(max(tokens_per_second, 1e-9)))
        return (price.usd_per_hour * a_million / 3600).quantize(_FINE)

    prompt, output = seconds_usd(model.prompt_tokens_per_second), seconds_usd(model.output_tokens_per_second)
    bands = tuple(
        replace(
            band,
            input=band.input + prompt,
            output=band.output + output,
            cache_write_5m=band.cache_write_5m + prompt,
            cache_write_1h=band.cache_write_1h + prompt,
        )
        for band in price.bands
    )
    return replace(price, bands=bands, usd_per_hour=Decimal(0))


def _asked(call: ImportedCall, prices: PriceBook, day: date, known: Model | None) -> Iterator[tuple[Model, bool]]:
    """Whose prices may be a call's, best first, and whether one is of that very name: it has the endpoint in it."""
    own = Model(id=call.model, provider=call.provider, context_tokens=0, max_output_tokens=0)
    name = canonical_id(call.model)
    if name != call.model and prices.lists(call.model, call.provider, day):
        yield own, True
    if known is not None:
        yield known, False
        return
    if name != call.model:
        # A Claude model of Bedrock's is Anthropic's, at its price: what the endpoint adds is among the terms.
        provider = "anthropic" if "anthropic." in call.model else call.provider
        yield replace(own, id=name, provider=provider), False
    yield own, False


def actual_nanousd(call: ImportedCall, prices: PriceBook) -> int | None:
    """What a call really cost, at the price of its day; None where nobody knows it. For many calls: `RateBook`."""
    usage = call.usage
    if not usage.prompt_tokens and not usage.output_tokens and not usage.web_searches:
        return call.cost_nanousd or 0
    for model, named in _asked(call, prices, call.day, None):
        try:
            price = prices.price(model, call.day, call.conditions if named else terms(call))
            return usd_to_nanousd(price.cost_usd(usage, band_prompt_tokens=call.band_prompt_tokens))
        except UnpricedModel:
            continue
    return call.cost_nanousd
