"""`tierwise estimate`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from tierwise.cli.options import settings_of
from tierwise.cli.output import console, echo_json, json_option, literal, money, percent, table, tier_style
from tierwise.report.estimate import DAYS_A_MONTH, Estimate

__all__ = ["command"]


_WIDE = 128  # columns of a terminal that takes tokens, models and reasons too


@click.command("estimate")
@click.argument("workload", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--prices-on",
    "days",
    multiple=True,
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Models and prices of this day (repeatable). Otherwise: the days that the workload names, and today.",
)
@click.option("--baseline", metavar="TIER|MODEL", help="What everything would go to without routing.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, *, workload: Path, days: tuple[datetime, ...], baseline: str | None, as_json: bool
) -> None:
    """What a workload costs a day and a month, before and after routing.

    WORKLOAD is a .toml file with one [[step]] per kind of call (task_type, calls_a_day, tokens_in, tokens_out, and
    tier to pin one), or a .csv file with these columns. See examples/article-workload.toml.
    """
    from dataclasses import replace

    from tierwise.classifier.taxonomy import load_taxonomy
    from tierwise.prices import PriceBook
    from tierwise.report.estimate import estimate, read_workload

    settings = settings_of(ctx)
    read = read_workload(workload)
    if baseline is not None:
        read = replace(read, baseline=baseline)
    today = datetime.now(UTC).date()
    wanted: list[date] = [day.date() for day in days] or sorted({*read.days, today})
    prices = PriceBook(settings.prices, settings.providers)
    taxonomy = load_taxonomy().with_user_types(settings.task_types)
    estimates = [estimate(read, settings, prices, taxonomy, day) for day in wanted]
    if as_json:
        echo_json({"workload": read.name or str(workload), "estimates": [_as_json(made) for made in estimates]})
        return
    out = console()
    for made in estimates:
        out.print(_table(made, today, wide=out.width >= _WIDE))


def _as_json(made: Estimate) -> dict[str, Any]:
    return {
        "prices_on": made.on,
        "baseline_model": made.baseline_model,
        "before_usd_a_day": made.before_usd,
        "after_usd_a_day": made.after_usd,
        "before_usd_a_month": made.before_usd * DAYS_A_MONTH,
        "after_usd_a_month": made.after_usd * DAYS_A_MONTH,
        "saved_percent": round(made.saved_share * 100, 1),
        "rows": [
            {
                "name": row.step.name,
                "task_type": row.step.task_type,
                "calls_a_day": row.step.calls_a_day,
                "tokens_in": row.step.tokens_in,
                "tokens_out": row.step.tokens_out,
                "tier": row.tier,
                "model": row.model,
                "before_usd_a_day": row.before_usd,
                "after_usd_a_day": row.after_usd,
                "before_usd_a_month": row.before_usd * DAYS_A_MONTH,
                "after_usd_a_month": row.after_usd * DAYS_A_MONTH,
                "why": row.why,
            }
            for row in made.rows
        ],
    }


def _table(made: Estimate, today: date, *, wide: bool) -> Any:
    when = f"today, {made.on}" if made.on == today else str(made.on)
    numbers = ("calls/day", "tokens in/out", "before/day", "after/day", "after/month")
    columns = ["step", "calls/day", "tokens in/out", "tier", "model", "before/day", "after/day", "after/month", "why"]
    if not wide:
        columns = ["step", "calls/day", "tier", "before/day", "after/day"]
    title = f"Models and prices of {when}; before: everything on {made.baseline_model}"
    drawn = table(*columns, title=title, right=numbers)

    def add(cells: dict[str, str]) -> None:
        drawn.add_row(*(cells.get(name, "") for name in columns))

    for row in made.rows:
        add(
            {
                "step": literal(row.step.name or row.step.task_type),
                "calls/day": f"{row.step.calls_a_day:,f}",
                "tokens in/out": f"{row.step.tokens_in:,} / {row.step.tokens_out:,}",
                "tier": f"[{tier_style(row.tier.level)}]{literal(row.tier.name)}[/]",
                "model": literal(row.model),
                "before/day": money(row.before_usd),
                "after/day": money(row.after_usd),
                "after/month": money(row.after_usd * DAYS_A_MONTH),
                "why": literal(row.why),
            }
        )
    drawn.add_section()
    saved: Decimal = made.before_usd - made.after_usd
    share = f"{percent(abs(saved), made.before_usd)} {'less' if saved >= 0 else 'more'}"
    add(
        {
            "step": "[bold]total[/]",
            "before/day": f"[bold]{money(made.before_usd)}[/]",
            "after/day": f"[bold]{money(made.after_usd)}[/]",
            "after/month": f"[bold]{money(made.after_usd * DAYS_A_MONTH)}[/]",
        }
    )
    drawn.caption = (
        f"[bold]{share}[/]; a month of {DAYS_A_MONTH} days: {money(made.before_usd * DAYS_A_MONTH)} before, "
        f"{money(made.after_usd * DAYS_A_MONTH)} after"
    )
    drawn.caption_justify = "left"
    drawn.caption_style = "default"
    return drawn
