"""Looks prices up: the user's and the shipped dated tables first, then genai-prices, then an error.

A price is resolved once per model, day and conditions, and kept: what is left for a decision is a dictionary
lookup and a few multiplications. genai-prices counts cached tokens inside `input_tokens`; only its *rates* are
read here, so that difference never enters a cost.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from tierwise.core.catalog import Model
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import Conditions, Price, PriceBand
from tierwise.core.settings import ProviderSettings

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

__all__ = ["Conditions", "PriceBook", "PriceDataInfo", "priced_names"]

_ZERO = Decimal(0)
_FREE = PriceBand(_ZERO, _ZERO, _ZERO, _ZERO, _ZERO)


@dataclass(frozen=True, slots=True)
class PriceDataInfo:
    """Where prices come from, for `tierwise doctor`."""

    package: str
    package_version: str
    package_date: date | None  # its newest dated price already in force: the data is at least from then
    shipped_until: date  # the newest entry of the shipped table


_STANDARD = Conditions()


class PriceBook:
    """Prices of models by day and conditions.

    Args:
        table: dated prices that win over genai-prices. Of one model, the latest entry on or before the day counts.
        providers: to know which providers run on this machine (free unless a price is configured).
    """

    def __init__(self, table: Sequence[Price] = (), providers: Mapping[str, ProviderSettings] | None = None) -> None:
        self._table: dict[str, list[Price]] = {}
        for price in table:
            self._table.setdefault(price.model, []).append(price)
        for entries in self._table.values():
            entries.sort(key=lambda price: price.valid_from or date.min)
        self._providers = providers or {}
        self._resolved: dict[tuple[str, str, str | None, date, Conditions], Price | str] = {}

    def price(self, model: Model, on: date, conditions: Conditions = _STANDARD) -> Price:
        """The price of a model on a day (UTC).

        Raises:
            UnpricedModel: nobody knows it; says where to add it. Never a silent zero.
        """
        key = (model.provider, model.id, model.price_as, on, conditions)
        found = self._resolved.get(key)
        if found is None:
            try:
                found = self._look_up(model, on, conditions)
            except UnpricedModel as error:
                found = str(error)
            self._resolved[key] = found
        if isinstance(found, str):
            raise UnpricedModel(found)
        return found

    def _look_up(self, model: Model, on: date, conditions: Conditions) -> Price:
        provider = self._providers.get(model.provider)
        if provider is not None and conditions.inference_geo is None and provider.inference_geo is not None:
            conditions = replace(conditions, inference_geo=provider.inference_geo)
        if provider is not None and provider.speed == "fast" and not conditions.batch:
            conditions = replace(conditions, fast=True)
        name = model.price_as or model.id
        price = self._listed(name, model.provider, on)
        if price is not None:
            if conditions.fast:
                raise UnpricedModel(f"no fast-mode price is known for {model.id!r}; add one as a model of its own")
            return _apply(replace(price, model=model.id), conditions, batch_priced=False)
        if provider is not None and provider.local and model.price_as is None:
            return Price(model=model.id, bands=(_FREE,), source="runs on this machine")
        kind = provider.kind if provider else model.provider
        resolved = _from_genai_prices(name, kind, model.provider, on, conditions)
        if resolved is None and model.price_as is not None:
            resolved = _from_genai_prices(name, kind, "", on, conditions)  # as whoever makes it charges
        if resolved is not None:
            resolved = replace(resolved, model=model.id)
        else:
            raise UnpricedModel(
                f"no price is known for {model.id!r} (provider {model.provider}) on {on}; add one to tierwise.toml: "
                f'[[prices]] model = "{model.id}", from = {on}, input = "…", output = "…" (US$ per million tokens)'
            )
        return resolved

    def lists(self, name: str, provider: str, on: date) -> bool:
        """Whether the table itself has a price of that day under this very name."""
        return self._listed(name, provider, on) is not None

    def _listed(self, name: str, provider: str, on: date) -> Price | None:
        return self._from_table(f"{provider}:{name}", on) or self._from_table(name, on)

    def _from_table(self, name: str, on: date) -> Price | None:
        found = None
        for price in self._table.get(name, ()):
            if (price.valid_from or date.min) <= on:
                found = price
        return found

    def info(self, today: date) -> PriceDataInfo:
        """Where the prices come from, and from when they are at least, as of `today`."""
        from importlib.metadata import version  # noqa: PLC0415  only the doctor asks

        newest = max((e.valid_from for es in self._table.values() for e in es if e.valid_from), default=date.min)
        return PriceDataInfo("genai-prices", version("genai-prices"), _newest_dated_price(today), newest)


@cache
@cache
def priced_names(provider: str) -> tuple[str, ...]:
    """The models of a provider that genai-prices knows, by their names there."""
    from genai_prices import data_snapshot  # noqa: PLC0415  costs 100 ms: only when a price is asked for

    providers = data_snapshot.get_snapshot().providers
    return tuple(sorted(model.id for known in providers if known.id == provider for model in known.models))


@cache
def _multipliers() -> tuple[Decimal, Decimal, Mapping[str, Decimal]]:
    """Of a batch, of a regional endpoint, and of each geography."""
    table = tomllib.loads((files("tierwise") / "data" / "prices.toml").read_text("utf-8"))["multipliers"]
    geos = {geo: Decimal(factor) for geo, factor in table["inference_geo"].items()}
    return Decimal(table["batch"]), Decimal(table["regional"]["claude"]), geos


def _apply(price: Price, conditions: Conditions, *, batch_priced: bool) -> Price:
    """Multiplies a standard price by what the conditions say, and notes them on it."""
    factor = Decimal(1)
    notes = []
    batch, regional, geos = _multipliers()
    if conditions.batch:
        notes.append("batch")
        if not batch_priced:
            factor *= batch
    if conditions.fast:
        notes.append("fast")
    if conditions.regional and "claude" in price.model:
        factor *= regional
        notes.append("regional")
    if conditions.inference_geo is not None:
        geo = geos.get(conditions.inference_geo)
        if geo is None:
            raise UnpricedModel(
                f"no price is known for {price.model!r} with inference_geo {conditions.inference_geo!r}; use one of "
                f"{', '.join(geos)}, or leave it out"
            )
        factor *= geo
        notes.append(f"geo:{conditions.inference_geo}")
    if factor == 1:
        return replace(price, conditions=tuple(notes)) if notes else price
    return replace(
        price,
        conditions=tuple(notes),
        bands=tuple(
            PriceBand(
                input=band.input * factor,
                output=band.output * factor,
                cache_read=band.cache_read * factor,
                cache_write_5m=band.cache_write_5m * factor,
                cache_write_1h=band.cache_write_1h * factor,
                above_prompt_tokens=band.above_prompt_tokens,
            )
            for band in price.bands
        ),
    )


# ------------------------------------------------------------------ genai-prices

# Its ids for the providers that ours are named after.
_PROVIDER_IDS = {"gemini": "google", "xai": "x-ai", "bedrock": "aws", "vertex": "google"}


def _from_genai_prices(name: str, kind: str, provider: str, on: date, conditions: Conditions) -> Price | None:
    from genai_prices import __version__, data_snapshot  # noqa: PLC0415  costs 100 ms: only when a price is asked for

    snapshot = data_snapshot.get_snapshot()
    wanted = "litellm" if kind == "litellm" else _PROVIDER_IDS.get(provider, provider)
    if wanted == "litellm" and "/" not in name:
        wanted = ""
    try:
        found, info = snapshot.find_provider_model(name, None, wanted or None, None)
    except LookupError:
        return None
    # Noon: entries are dated by UTC day, and a day's price is the one in force for most of it.
    at = datetime.combine(on, time(12), UTC)
    context: dict[str, str] = {}
    if conditions.batch:
        context["processing"] = "batch"
    if conditions.fast:
        context["speed"] = "fast"
    standard = info.get_prices(at)
    priced = info.get_prices(at, context) if context else standard
    if conditions.fast and priced == standard:
        raise UnpricedModel(f"no fast-mode price is known for {name!r}; leave providers.….speed out")
    source = f"genai-prices {__version__} ({found.id}/{info.id})"
    bands = _bands(priced)
    if not bands:
        return None
    searches = getattr(priced, "web_searches_kcount", None)
    price = Price(
        model=name,
        bands=bands,
        source=source,
        usd_per_web_search=searches / 1000 if isinstance(searches, Decimal) else _ZERO,
    )
    return _apply(price, conditions, batch_priced=conditions.batch and priced != standard)


def _bands(prices: ModelPrice) -> tuple[PriceBand, ...]:
    from genai_prices.types import TieredPrices  # noqa: PLC0415

    fields = {
        "input": prices.input_mtok,
        "output": prices.output_mtok,
        "cache_read": prices.cache_read_mtok,
        "cache_write_5m": prices.cache_write_mtok,
        "cache_write_1h": getattr(prices, "cache_write_1h_mtok", None),
    }
    if fields["input"] is None or fields["output"] is None:
        return ()
    # Where no cache price is stated, cached tokens are billed as fresh input; where no 1h write is, as a 5m one.
    fields["cache_read"] = fields["cache_read"] if fields["cache_read"] is not None else fields["input"]
    fields["cache_write_5m"] = fields["cache_write_5m"] if fields["cache_write_5m"] is not None else fields["input"]
    if fields["cache_write_1h"] is None:
        fields["cache_write_1h"] = fields["cache_write_5m"]
    starts = {0}
    for value in fields.values():
        if isinstance(value, TieredPrices):
            starts.update(tier.start for tier in value.tiers)

    def rate(value: object, start: int) -> Decimal:
        if isinstance(value, TieredPrices):
            chosen = value.base
            for tier in value.tiers:
                if start >= tier.start:
                    chosen = tier.price
            return chosen
        return value if isinstance(value, Decimal) else _ZERO

    return tuple(
        PriceBand(
            input=rate(fields["input"], start),
            output=rate(fields["output"], start),
            cache_read=rate(fields["cache_read"], start),
            cache_write_5m=rate(fields["cache_write_5m"], start),
            cache_write_1h=rate(fields["cache_write_1h"], start),
            above_prompt_tokens=start,
        )
        for start in sorted(starts)
    )


def _newest_dated_price(today: date) -> date | None:
    """The package says nowhere when its data was gathered, and its files carry the day of their installation."""
    from genai_prices import data_snapshot  # noqa: PLC0415
    from genai_prices.types import StartDateConstraint  # noqa: PLC0415

    dated = [
        entry.constraint.start_date
        for provider in data_snapshot.get_snapshot().providers
        for model in provider.models
        for entry in (*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ()))
        if isinstance(entry.constraint, StartDateConstraint)
    ]
    return max((day for day in dated if day <= today), default=None)
