"""`tierwise prices`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import settings_of
from tierwise.cli.output import console, echo_json, json_option, literal, table, tier_style
from tierwise.core.errors import UnknownModel, UnpricedModel

if TYPE_CHECKING:
    from tierwise.core.catalog import Model, Tier
    from tierwise.core.money import Price, PriceBand
    from tierwise.core.settings import Settings
    from tierwise.prices import PriceBook

__all__ = ["command"]


_WIDE = 130  # columns of a terminal that takes tier, date and source too


@click.command("prices")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--on", "on", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="The prices of this day; otherwise today's."
)
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, models: tuple[str, ...], on: datetime | None, as_json: bool) -> None:
    """Show the prices that apply on a day.

    All models of the configured tiers, or those that are named: MODEL, or PROVIDER:MODEL for one that is in no tier.
    US$ per million tokens, by the length of the whole prompt where that matters. A model whose price nobody knows is
    shown as unpriced: it is never assumed to be free.
    """
    from tierwise.prices import PriceBook

    settings = settings_of(ctx)
    book = PriceBook(settings.prices, settings.providers)
    day = datetime.now(UTC).date() if on is None else on.date()
    if models:
        found = [_named(name, settings, book, day) for name in dict.fromkeys(models)]
    else:
        found = [_look_up(model, spec.tier, book, day, settings) for spec in settings.catalog for model in spec.models]
        if all(settings.catalog.baseline.id != one.model.id for one in found):
            found.append(_look_up(settings.catalog.baseline, None, book, day, settings))
    if as_json:
        echo_json(
            {"on": day, "baseline_model": settings.catalog.baseline.id, "models": [_as_json(one) for one in found]}
        )
        return
    _show(found, day, settings.catalog.baseline.id)


@dataclass(frozen=True, slots=True)
class _Found:
    """A model and its price; why there is none, where there is none."""

    model: Model
    tier: Tier | None
    price: Price | None
    problem: str
    local: bool


def _look_up(model: Model, tier: Tier | None, book: PriceBook, day: date, settings: Settings) -> _Found:
    provider = settings.providers.get(model.provider)
    local = provider is not None and provider.local
    try:
        return _Found(model, tier, book.price(model, day), "", local)
    except UnpricedModel as error:
        return _Found(model, tier, None, str(error), local)


def _named(name: str, settings: Settings, book: PriceBook, day: date) -> _Found:
    """A model by name. One of a tier may be unpriced; of any other, its price is all that shows that it exists.

    Raises:
        UnknownModel: neither configured nor priced.
    """
    provider, colon, rest = name.partition(":")
    known_provider = bool(colon) and provider in settings.providers
    for spec in settings.catalog:
        for model in spec.models:
            if name in {model.id, f"{model.provider}:{model.id}"}:
                return _look_up(model, spec.tier, book, day, settings)
    from tierwise.core.catalog import Model

    model = Model(
        id=rest if known_provider else name,
        provider=provider if known_provider else "anthropic" if name.startswith("claude-") else "",
        context_tokens=0,
        max_output_tokens=0,
    )
    found = _look_up(model, None, book, day, settings)
    if found.price is None or (found.local and not any(price.model in {name, rest} for price in settings.prices)):
        configured = [model.id for model in settings.catalog.models]
        from difflib import get_close_matches

        near = " or ".join(get_close_matches(name, configured, n=2))
        raise UnknownModel(
            f"unknown model {name!r}{f' (did you mean {near}?)' if near else ''}: it is in no tier, and no price is "
            f"known for it on {day}. Configured are {', '.join(configured)}; name others as PROVIDER:MODEL"
        )
    return found


def _as_json(one: _Found) -> dict[str, Any]:
    price = one.price
    return {
        "model": one.model.id,
        "provider": one.model.provider,
        "tier": one.tier,
        "priced": price is not None,
        "valid_from": None if price is None else price.valid_from,
        "source": None if price is None else price.source,
        "conditions": [] if price is None else price.conditions,
        "bands": []
        if price is None
        else [
            {
                "above_prompt_tokens": band.above_prompt_tokens,
                "input_usd": band.input,
                "output_usd": band.output,
                "cache_read_usd": band.cache_read,
                "cache_write_5m_usd": band.cache_write_5m,
                "cache_write_1h_usd": band.cache_write_1h,
            }
            for band in price.bands
        ],
        "usd_per_web_search": None if price is None else price.usd_per_web_search,
        "usd_per_hour": None if price is None else price.usd_per_hour,
        "problem": one.problem or None,
    }


def _show(found: list[_Found], day: date, baseline: str) -> None:
    out = console()
    wide = out.width >= _WIDE
    classes = ("input", "output", "cache read", "5m write", "1h write") if wide else ("in", "out", "read", "5m", "1h")
    drawn = table(
        *(["tier"] if wide else []),
        "model",
        "prompt",
        *classes,
        *(["valid from", "source"] if wide else []),
        title=f"US$ per million tokens on {day}; the baseline is {baseline}",
        right=classes,
    )
    for one in found:
        style = "default" if one.tier is None else tier_style(one.tier.level)
        tier = "–" if one.tier is None else one.tier.name
        first: list[str] = [f"[{style}]{literal(tier)}[/]", literal(one.model.id)]
        if not wide:
            first = [f"[{style}]{literal(one.model.id)}[/]"]
        if one.price is None:
            drawn.add_row(*first, "[red]unpriced[/]")
            continue
        last = [str(one.price.valid_from or "–"), literal(", ".join([one.price.source, *one.price.conditions]))]
        for index, band in enumerate(one.price.bands):
            rates = (_rate(rate) for rate in _rates(band))
            drawn.add_row(*first, _lengths(one.price.bands, index), *rates, *(last if wide and index == 0 else []))
            first = [""] * len(first)
        if one.price.usd_per_hour:
            drawn.add_row(*first, f"and {_rate(one.price.usd_per_hour)} an hour")
    for column in drawn.columns[: 3 if wide else 2]:
        column.no_wrap = True
    out.print(drawn)
    for one in found:
        if one.problem:
            out.print(f"unpriced: {one.problem}", markup=False, style="red", soft_wrap=True)


def _rates(band: PriceBand) -> tuple[Decimal, ...]:
    return band.input, band.output, band.cache_read, band.cache_write_5m, band.cache_write_1h


def _lengths(bands: tuple[PriceBand, ...], index: int) -> str:
    if len(bands) == 1:
        return ""
    above = bands[index].above_prompt_tokens
    return f"> {above:,}" if above else f"≤ {bands[index + 1].above_prompt_tokens:,}"


def _rate(rate: Decimal) -> str:
    from tierwise.core.money import format_usd

    return format_usd(rate).removeprefix("$")
