"""`tierwise report`."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import ledger_of, period_options, settings_of
from tierwise.cli.output import console, echo_json, json_option, literal, money, table, tier_style

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tierwise.core.settings import Settings
    from tierwise.ledger import Dimension
    from tierwise.report.spend import Report, ReportRow

__all__ = ["command"]

# What is typed → the dimension's name in the ledger, which is also its key in JSON.
_BY: dict[str, Dimension] = {"type": "task_type", "tier": "tier", "model": "model", "day": "day", "project": "project"}


_WIDE = 112  # columns of a terminal that takes attempts and tokens too


@click.command("report")
@click.option(
    "--by",
    "by",
    multiple=True,
    type=click.Choice(list(_BY)),
    help="One section for each (repeatable). Otherwise: by tier and by type.",
)
@period_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    by: tuple[str, ...],
    since: date | None,
    until: date | None,
    project: str | None,
    key_id: str | None,
    as_json: bool,
) -> None:
    """What was spent and saved, from the ledger.

    Saved is what the answered calls would have cost on the baseline model, minus everything that was spent, failed
    attempts included: it can be negative. Calls with an unknown price are in neither, and are counted as unpriced;
    what attempts that never ended may have cost is shown separately, as open.
    """
    from tierwise.ledger import FeedbackCounts, Filter, Totals
    from tierwise.report.spend import ReportRow, period, spend

    settings = settings_of(ctx)
    dimensions = [_BY[name] for name in dict.fromkeys(by or ("tier", "type"))]
    ledger = ledger_of(settings)
    sections: dict[Dimension, Report] = {}
    total = ReportRow((), Totals())
    said = FeedbackCounts()
    if ledger is not None:
        with ledger:
            for dimension in dimensions:
                sections[dimension] = spend(ledger, dimension, since=since, until=until, project=project, key_id=key_id)
                total = sections[dimension].total
            since_ms, until_ms = period(since, until)
            said = ledger.feedback_counts(Filter(since_ms=since_ms, until_ms=until_ms, project=project, key_id=key_id))
    if as_json:
        echo_json(
            {
                "ledger": settings.ledger.path,
                "since": since,
                "until": until,
                "project": project,
                "key_id": key_id,
                "total": _as_json(total),
                "feedback": said,
                "by": {
                    dimension: [
                        {dimension: row.key[0], **_as_json(row)}
                        for row in (sections[dimension].rows if dimension in sections else ())
                    ]
                    for dimension in dimensions
                },
            }
        )
        return
    out = console()
    if total.totals.calls == 0 and total.totals.attempts == 0:
        _nothing(out, settings, limited=(since, until, project, key_id) != (None,) * 4)
        return
    levels = {spec.tier.name: spec.tier.level for spec in settings.catalog}
    for dimension, made in sections.items():
        out.print(_table(dimension, made, levels, wide=out.width >= _WIDE))
    _notes(out, total)
    if said != FeedbackCounts():
        typed = f"; {said.typed:,} with the right task type" if said.typed else ""
        out.print(f"feedback: {said.good:,} good, {said.bad:,} bad{typed}", markup=False)


def _as_json(row: ReportRow) -> dict[str, Any]:
    totals = row.totals
    return {
        "calls": totals.calls,
        "answered_calls": totals.answered_calls,
        "open_calls": totals.open_calls,
        "unpriced_calls": totals.unpriced_calls,
        "attempts": totals.attempts,
        "failed_attempts": totals.failed_attempts,
        "open_attempts": totals.open_attempts,
        "unpriced_attempts": totals.unpriced_attempts,
        "input_tokens": totals.input_tokens,
        "cache_read_tokens": totals.cache_read_tokens,
        "cache_write_5m_tokens": totals.cache_write_5m_tokens,
        "cache_write_1h_tokens": totals.cache_write_1h_tokens,
        "output_tokens": totals.output_tokens,
        "cost_usd": row.cost_usd,
        "open_cost_usd": row.open_cost_usd,
        "baseline_cost_usd": row.baseline_cost_usd,
        "saved_usd": row.saved_usd,
        "saved_percent": row.saved_percent,
        "mean_latency_ms": row.mean_latency_ms,
    }


def _table(dimension: Dimension, made: Report, levels: dict[str, int], *, wide: bool) -> Table:
    numbers = ["calls", "attempts", "failed", "tokens in", "out"] if wide else ["calls"]
    numbers += ["spent", "baseline", "saved", "saved %"]
    if made.total.totals.open_attempts:
        numbers.append("open")
    if made.total.totals.unpriced_calls or made.total.totals.unpriced_attempts:
        numbers.append("unpriced")
    # All amounts of a table to the same digit, so that they can be compared at a glance.
    largest = max(abs(made.total.cost_usd), made.total.baseline_cost_usd)
    places = 2 if largest >= 1000 else 4 if largest >= 1 else 6
    drawn = table(dimension.replace("_", " "), *numbers, right=numbers)
    drawn.columns[0].no_wrap = True
    for row in made.rows:
        name = row.key[0] or "–"
        style = tier_style(levels[name]) if dimension == "tier" and name in levels else "default"
        drawn.add_row(f"[{style}]{literal(name)}[/]", *_cells(row, numbers, places))
    drawn.add_section()
    drawn.add_row("[bold]total[/]", *_cells(made.total, numbers, places))
    return drawn


def _cells(row: ReportRow, names: list[str], places: int) -> list[str]:
    totals = row.totals
    tokens_in = (
        totals.input_tokens + totals.cache_read_tokens + totals.cache_write_5m_tokens + totals.cache_write_1h_tokens
    )
    share = row.saved_percent
    colour = "green" if row.saved_usd > 0 else "red" if row.saved_usd < 0 else "default"
    cells = {
        "calls": f"{totals.calls:,}",
        "attempts": f"{totals.attempts:,}",
        "failed": f"{totals.failed_attempts:,}",
        "tokens in": f"{tokens_in:,}",
        "out": f"{totals.output_tokens:,}",
        "spent": money(row.cost_usd, places),
        "baseline": money(row.baseline_cost_usd, places),
        "saved": f"[{colour}]{money(row.saved_usd, places)}[/]",
        "saved %": "–" if share is None else f"[{colour}]{share} %[/]",
        "open": money(row.open_cost_usd, places) if totals.open_attempts else "",
        "unpriced": f"{totals.unpriced_calls:,}" if totals.unpriced_calls or totals.unpriced_attempts else "",
    }
    return [cells[name] for name in names]


def _notes(out: Console, total: ReportRow) -> None:
    totals = total.totals
    if totals.open_attempts:
        out.print(
            f"open: {totals.open_attempts:,} attempts are running, or were when their process ended; they may "
            f"have cost up to about {money(total.open_cost_usd)} more.",
            style="dim",
        )
    if totals.unpriced_calls or totals.unpriced_attempts:
        out.print(
            f"unpriced: {totals.unpriced_calls:,} calls are in no saving, because a price is not known; "
            "`tierwise prices` shows which, [[prices]] in tierwise.toml adds one.",
            style="yellow",
            markup=False,
        )


def _nothing(out: Console, settings: Settings, *, limited: bool) -> None:
    where = settings.ledger.path
    if limited:
        out.print(
            f"No calls of that time, project and key are in {where}. Try `tierwise report` without limits.",
            markup=False,
        )
        return
    out.print(f"The ledger {where} has no calls yet.", markup=False)
    if not settings.ledger.enabled:
        out.print("It is switched off: set ledger.enabled = true in tierwise.toml.")
        return
    out.print("`tierwise demo` runs an agent task of five steps, `tierwise run TASK` any task of yours.")
