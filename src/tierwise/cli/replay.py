"""`tierwise replay`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierwise.cli.options import MOMENT, settings_of
from tierwise.cli.output import console, echo_json, json_option, literal, money, table
from tierwise.cli.transcripts import (
    found_totals,
    scope_of,
    source_options,
    sources_of,
    tell_nothing,
    what_is_known,
)
from tierwise.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from tierwise.analysis.findings import Findings, WayRow
    from tierwise.core.settings import Settings
    from tierwise.replay import ReplayPolicy

__all__ = ["command"]


@click.command("replay")
@source_options
@click.option(
    "--policy", "policies", multiple=True, metavar="FILE", help="Also route as this configuration says (repeatable)."
)
@click.option(
    "--prices", "priced_on", type=MOMENT, metavar="DAY", help="At the prices of this day, not of each call's day."
)
@click.option(
    "--models",
    multiple=True,
    metavar="TIER=MODEL",
    help="With this model for a tier, as in sonnet=claude-sonnet-5 (repeatable).",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="NAME",
    help="Compare with: all-TIER, opusplan, TIER-subagents, random, none (repeatable). Otherwise: all of them.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    paths: tuple[Path, ...],
    sources: tuple[str, ...],
    since: date | None,
    until: date | None,
    project: str | None,
    with_local: bool,
    fresh: bool,
    policies: tuple[str, ...],
    priced_on: date | None,
    models: tuple[str, ...],
    baselines: tuple[str, ...],
    as_json: bool,
) -> None:
    """The same calls under other policies, prices or models, side by side.

    Reads what `tierwise analyze` reads, and sends nothing. Every policy sees the same calls in the same order, with a
    prompt cache of its own. "Below" are calls that go to a lower tier than their work asks for; "random" is whole
    sessions drawn between two fixed tiers, at the cost of "routed": what it sends too low is what routing avoids.
    """
    from tierwise.analysis.findings import as_json as document
    from tierwise.analysis.gather import Plan
    from tierwise.replay import Actual

    settings = _with_models(settings_of(ctx), models)
    day = priced_on.date() if isinstance(priced_on, datetime) else priced_on
    ways = [Actual(settings=settings, name="as it was" if day is None else f"as it was, prices of {day}")]
    routed = _routed(settings, policies, models)
    fixed, random = _baselines(settings, baselines)
    plan = Plan(
        settings=settings,
        ways=(*ways, *routed, *fixed),
        priced_on=day,
        with_local=with_local,
        with_levers=False,
        scope=scope_of(since, until, project),
        learned=what_is_known(settings),
    )
    looked = sources_of(sources, paths)
    totals = found_totals(plan, looked, settings, fresh=fresh)
    found = totals.findings
    rows = list(totals.ways)
    if random and (drawn := _random(rows, routed[0].name)) is not None:
        rows.append(drawn)
    if as_json:
        echo_json(
            {
                "period": document(found.period),
                "sessions": found.sessions,
                "calls": found.calls,
                "unpriced_calls": found.unpriced_calls,
                "actual_usd": found.actual_usd,
                "prices_on": day,
                "policies": [document(row) for row in rows],
            }
        )
    elif not found.calls:
        tell_nothing(looked, limited=(since, until, project) != (None, None, None))
    else:
        _show(console(), found, rows)


def _with_models(settings: Settings, models: Sequence[str]) -> Settings:
    """The configuration with other models for some tiers."""
    from tierwise.replay import known_models, with_models

    known = {model.id: model for model in known_models(settings)}
    chosen = {}
    for given in models:
        tier, equals, name = given.partition("=")
        if not equals or not tier or not name:
            raise click.UsageError(f"--models {given}: say it as TIER=MODEL, for example sonnet=claude-sonnet-5")
        if name not in known:
            raise ConfigError(f"unknown model {name!r} in --models; use one of {', '.join(sorted(known))}")
        chosen[tier] = known[name]
    return with_models(settings, chosen)


def _routed(settings: Settings, policies: Sequence[str], models: Sequence[str]) -> list[ReplayPolicy]:
    """Routing as it is configured, and as each file says."""
    from tierwise.analysis.gather import ways_of_routing
    from tierwise.config import load_settings
    from tierwise.replay import Routed

    found = list(ways_of_routing(settings))
    names = {way.name for way in found}
    for name in policies:
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"there is no {name}; --policy names a configuration file")
        shown = path.stem if path.stem not in names and path.stem != "tierwise" else name
        names.add(shown)
        found.append(Routed(settings=_with_models(load_settings(path=path), models), name=shown))
    return found


def _baselines(settings: Settings, asked: Sequence[str]) -> tuple[list[ReplayPolicy], bool]:
    """The policies of those names, and whether random ones are wanted."""
    from tierwise.analysis.gather import fixed_tiers, own_levers

    known = {policy.name: policy for policy in (*fixed_tiers(settings), *own_levers(settings))}
    unknown = [name for name in asked if name not in known and name not in ("random", "none")]
    if unknown:
        raise click.UsageError(f"unknown baseline {unknown[0]!r}; use one of {', '.join(known)}, random, none")
    wanted = [known[name] for name in dict.fromkeys(asked) if name in known] if asked else list(known.values())
    random = not asked or "random" in asked
    if random and asked:  # which it is drawn from
        wanted += [policy for policy in fixed_tiers(settings) if policy.name not in asked]
    return wanted, random


def _random(rows: Sequence[WayRow], like: str) -> WayRow | None:
    """Whole sessions drawn between the two fixed tiers around that cost: what it would send too low, in expectation."""
    target = next(row for row in rows if row.policy == like)
    fixed = sorted((row for row in rows if row.policy.startswith("all-")), key=lambda row: row.expected_usd)
    for cheap, dear in pairwise(fixed):
        if cheap.expected_usd <= target.expected_usd <= dear.expected_usd and cheap.expected_usd < dear.expected_usd:
            share = (dear.expected_usd - target.expected_usd) / (dear.expected_usd - cheap.expected_usd)

            def mixed(a: Decimal | int, b: Decimal | int, share: Decimal = share) -> Decimal:
                return share * a + (1 - share) * b

            return replace(
                target,
                policy=f"random, {cheap.policy[4:]} or {dear.policy[4:]}",
                low_usd=mixed(cheap.low_usd, dear.low_usd),
                high_usd=mixed(cheap.high_usd, dear.high_usd),
                moved_calls=round(mixed(cheap.moved_calls, dear.moved_calls)),
                below_calls=round(mixed(cheap.below_calls, dear.below_calls)),
            )
    return None


def _show(out: Console, found: Findings, rows: Sequence[WayRow]) -> None:
    from tierwise.analysis.names import printable

    places = 2 if found.actual_usd >= 10 else 4
    numbers = ("expected", "from", "to", "saves", "moved", "below")
    drawn = table("policy", *numbers, right=numbers)
    for row in sorted(rows, key=lambda row: row.expected_usd):
        colour = "green" if row.saved_pct > 0 else "red" if row.saved_pct < 0 else "default"
        drawn.add_row(
            literal(printable(row.policy)),
            money(row.expected_usd, places),
            money(row.low_usd, places),
            money(row.high_usd, places),
            f"[{colour}]{row.saved_pct} %[/]",
            f"{row.moved_calls:,}",
            f"{row.below_calls:,}",
        )
    out.print(drawn)
    spent = money(found.actual_usd, places)
    sessions = f"{found.sessions:,} session{'' if found.sessions == 1 else 's'}"
    out.print(f"{found.calls:,} call{'' if found.calls == 1 else 's'} in {sessions} cost {spent}.", markup=False)
    if found.unpriced_calls:
        unpriced = "1 call has" if found.unpriced_calls == 1 else f"{found.unpriced_calls:,} calls have"
        out.print(f"{unpriced} no known price: in no amount.", style="yellow")
