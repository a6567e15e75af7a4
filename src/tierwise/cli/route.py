"""`tierwise route`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import given, settings_of, task_options, text_of
from tierwise.cli.output import console, decision_as_json, echo_json, json_option, money, table, tier_style

if TYPE_CHECKING:
    from tierwise.core.decisions import Decision
    from tierwise.core.settings import Settings

__all__ = ["command"]


@click.command("route")
@click.argument("task", required=False)
@task_options
@click.option("--check", is_flag=True, help="Ask the local models and keys first whether they can be used now.")
@click.option("--claude-alias", is_flag=True, help="Print only what Claude Code calls the model: haiku, sonnet, opus.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, *, task: str | None, as_json: bool, check: bool, claude_alias: bool, **options: Any
) -> None:
    """Say where a task would go, and why. Sends nothing.

    TASK is the text; `-`, or nothing with a pipe, reads it from stdin.
    """
    from tierwise.engine.sync import Router

    if claude_alias and as_json:
        raise click.UsageError("--claude-alias prints one word; leave --json out")
    text = text_of(task)
    with Router(settings_of(ctx)) as router:
        if claude_alias:  # whether there is a local model is no matter
            decision = router.route(text, **given(options))
            click.echo(_claude_alias(decision, router.settings))
            return
        decision = router.route_checked(text, **given(options)) if check else router.route_here(text, **given(options))
    if as_json:
        echo_json(decision_as_json(decision))
        return
    out = console()
    first = decision.first
    classification = decision.classification
    out.print(
        f"[bold {tier_style(first.tier.level)}]{first.tier}[/]  {first.model.id}   "
        f"[dim]{classification.task_type.name}, {classification.sure} sure, "
        f"needs {classification.needs.value}[/]"
    )
    for reason in decision.reasons:
        out.print(f"  • {reason.text}", markup=False)
    for blocker in decision.blockers:
        out.print(f"  ✗ {blocker.text}", markup=False, style="red")
    ladder = table("ladder", "model", "about", "estimated", right=("about", "estimated"))
    for rung in decision.ladder:
        ladder.add_row(
            f"[{tier_style(rung.tier.level)}]{rung.tier}[/]",
            rung.model.id,
            f"{rung.estimated_seconds:.1f} s",
            money(rung.estimated_cost_usd),
        )
    ladder.add_row("[dim]baseline[/]", f"[dim]{decision.baseline_model.id}[/]", "", money(decision.baseline_cost_usd))
    out.print(ladder)


def _claude_alias(decision: Decision, settings: Settings) -> str:
    from tierwise.integrations.claude_code.models import alias_of, claude_rungs

    return alias_of(claude_rungs(decision, settings.providers)[0].model.id)
