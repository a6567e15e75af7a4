"""`tierwise budgets`: how much may be spent on a key, a project or everything."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import click

from tierwise.cli.keys import existing_ledger, key_named
from tierwise.cli.options import USD, ledger_of, settings_of
from tierwise.cli.output import console, echo_json, json_option, literal, moment, money, table

if TYPE_CHECKING:
    from tierwise.ledger.budgets import Budget, BudgetStanding

__all__ = ["command"]


@click.group("budgets")
def command() -> None:
    """Set, list and remove limits of what may be spent.

    Every subcommand takes --json.
    """


@command.command("set")
@click.option("--key", metavar="ID", help="Of the calls of this key, by its id or its name.")
@click.option("--project", metavar="NAME", help="Of the calls of this project.")
@click.option("--all", "everything", is_flag=True, help="Of all calls.")
@click.option(
    "--per",
    type=click.Choice(["day", "month", "total"]),
    required=True,
    help="When it resets: at midnight, on the first of the month (both UTC), or never.",
)
@click.option("--usd", type=USD, required=True, metavar="USD", help="The limit, as in 5.00.")
@click.option("--warn-only", is_flag=True, help="Let calls through that exceed it, with a warning.")
@json_option
@click.pass_context
def put(
    ctx: click.Context,
    /,
    *,
    key: str | None,
    project: str | None,
    everything: bool,
    per: Literal["day", "month", "total"],
    usd: str,
    warn_only: bool,
    as_json: bool,
) -> None:
    """Set a budget, or change the one that is there.

    Give one of --key, --project and --all. A new budget counts what the gateway has already spent in its period
    (except for calls that were pruned, or that an older version recorded without their key); where one is changed, what
    is spent of it stays spent. Running gateways notice within about a second.
    """
    from tierwise.core.money import nanousd_to_usd, usd_to_nanousd
    from tierwise.ledger import Ledger
    from tierwise.ledger.budgets import MOST_NANOUSD, BudgetPeriod, Budgets, BudgetScope
    from tierwise.ledger.keys import Keys

    if (key is not None) + (project is not None) + everything != 1:
        raise click.UsageError("give one of --key, --project and --all: whose calls the budget covers")
    if project == "":
        raise click.UsageError("--project is empty; calls without a project have no budget of their own")
    limit = usd_to_nanousd(Decimal(usd))
    if limit > MOST_NANOUSD:
        raise click.UsageError(f"--usd {usd} is more than a budget can be, {money(nanousd_to_usd(MOST_NANOUSD))}")
    with Ledger.of(settings_of(ctx).ledger) as ledger:
        if key is not None:
            scope, subject = BudgetScope.KEY, key_named(Keys(ledger), key).key_id
        elif project is not None:
            scope, subject = BudgetScope.PROJECT, project
        else:
            scope, subject = BudgetScope.ALL, ""
        budgets, now_ms = Budgets(ledger), _now_ms()
        budget = budgets.set(scope, subject, BudgetPeriod(per), limit, now_ms, hard=not warn_only)
        (standing,) = (one for one in budgets.standings(now_ms) if one.budget.budget_id == budget.budget_id)
    if as_json:
        echo_json(_standing_as_json(standing))
        return
    click.echo(f"{budget}{'' if budget.hard else ', as a warning'}")
    if standing.spent_nanousd:
        spent, left = (nanousd_to_usd(amount) for amount in (standing.spent_nanousd, standing.left_nanousd))
        click.echo(f"{money(spent)} of it is spent, {money(left)} is left")


@command.command("list")
@json_option
@click.pass_context
def show(ctx: click.Context, /, *, as_json: bool) -> None:
    """List the budgets, and what is left of each.

    Reserved is the most that running calls may cost.
    """
    from tierwise.core.money import nanousd_to_usd
    from tierwise.ledger.budgets import Budgets

    settings = settings_of(ctx)
    ledger = ledger_of(settings)
    found: list[BudgetStanding] = []
    if ledger is not None:
        with ledger:
            found = Budgets(ledger).standings(_now_ms())
    if as_json:
        echo_json({"ledger": settings.ledger.path, "budgets": [_standing_as_json(one) for one in found]})
        return
    out = console()
    if not found:
        out.print(
            f"No budgets are in {settings.ledger.path}. `tierwise budgets set` sets one.", markup=False, soft_wrap=True
        )
        return
    amounts = ("limit", "spent", "reserved", "left")
    drawn = table("id", "of", "per", *amounts, "resets", "kind", right=amounts)
    for one in found:
        budget = one.budget
        colour = "default" if one.left_nanousd else "red" if budget.hard else "yellow"
        drawn.add_row(
            budget.budget_id,
            literal(f"{budget.scope} {budget.subject}".rstrip()),
            budget.period.value,
            money(nanousd_to_usd(budget.limit_nanousd)),
            money(nanousd_to_usd(one.spent_nanousd)),
            money(nanousd_to_usd(one.reserved_nanousd)),
            f"[{colour}]{money(nanousd_to_usd(one.left_nanousd))}[/]",
            moment(one.resets_at_ms),
            "hard" if budget.hard else "warning",
        )
    out.print(drawn)


@command.command("remove")
@click.argument("budget_id", metavar="ID")
@json_option
@click.pass_context
def remove(ctx: click.Context, /, *, budget_id: str, as_json: bool) -> None:
    """Remove a budget, and what was counted for it.

    ID is what `tierwise budgets list` shows.
    """
    from tierwise.ledger.budgets import Budgets

    with existing_ledger(ctx, "budgets", "`tierwise budgets set` sets one") as ledger:
        removed = Budgets(ledger).remove(budget_id)
    if removed is None:
        raise click.UsageError(f"no budget {budget_id!r}; `tierwise budgets list` shows the budgets")
    if as_json:
        echo_json(_as_json(removed))
        return
    click.echo(f"{removed} is removed")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _as_json(budget: Budget) -> dict[str, Any]:
    from tierwise.core.money import nanousd_to_usd

    return {
        "budget_id": budget.budget_id,
        "scope": budget.scope.value,
        "subject": budget.subject,
        "period": budget.period.value,
        "limit_usd": nanousd_to_usd(budget.limit_nanousd),
        "hard": budget.hard,
        "created_at_ms": budget.created_at_ms,
    }


def _standing_as_json(one: BudgetStanding) -> dict[str, Any]:
    from tierwise.core.money import nanousd_to_usd

    return {
        **_as_json(one.budget),
        "spent_usd": nanousd_to_usd(one.spent_nanousd),
        "reserved_usd": nanousd_to_usd(one.reserved_nanousd),
        "left_usd": nanousd_to_usd(one.left_nanousd),
        "resets_at_ms": one.resets_at_ms,
    }
