"""`tierwise analyze`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierwise.cli.options import settings_of
from tierwise.cli.output import console, echo_json, json_option
from tierwise.cli.transcripts import (
    bar_of,
    found_totals,
    print_lines,
    scope_of,
    source_options,
    sources_of,
    tell_nothing,
    what_is_known,
)
from tierwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tierwise.analysis.findings import Findings
    from tierwise.config.changes import FileChange, Journal
    from tierwise.core.settings import Settings

__all__ = ["command"]


@click.command("analyze")
@source_options
@click.option("--policy", metavar="FILE", help="What routing would do: this configuration instead of the current one.")
@click.option("--full", is_flag=True, help="Longer tables, what the range rests on, other policies, what was skipped.")
@click.option("--html", metavar="FILE", help="Write it as one page to send on: charts, no scripts, no text of prompts.")
@click.option("--csv", metavar="FILE", help="Write a row for each day, project, model and task type.")
@click.option("--apply", is_flag=True, help="Write what is recommended into tierwise.toml; shows the change and asks.")
@click.option("--claude-code", is_flag=True, help="With --apply: also into Claude Code's settings.json.")
@click.option("--yes", is_flag=True, help="With --apply: do not ask.")
@click.option("--undo", is_flag=True, help="Take the last --apply back.")
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
    policy: str | None,
    full: bool,
    html: str | None,
    csv: str | None,
    apply: bool,
    claude_code: bool,
    yes: bool,
    undo: bool,
    as_json: bool,
) -> None:
    """What you spent, and what routing would have saved, from transcripts on this machine.

    Reads the transcripts that Claude Code keeps (~/.claude/projects, or PATHS): no key, no proxy, no configuration.
    Everything stays on this machine. The saving is a range: favourable to unfavourable assumptions, over redrawn sets
    of sessions.
    """
    if undo:
        _undo(_journal(), as_json=as_json)
        return
    if (claude_code or yes) and not apply:
        raise click.UsageError("--claude-code and --yes go with --apply")
    if apply and not yes and not sys.stdin.isatty():
        raise click.UsageError("--apply asks before it writes; with nobody to ask, add --yes")
    from tierwise.analysis.findings import as_json as document
    from tierwise.analysis.gather import Plan, own_levers, ways_of_routing
    from tierwise.analysis.screen import screen
    from tierwise.config import load_settings

    settings = settings_of(ctx) if policy is None else load_settings(path=Path(policy))
    plan = Plan(
        settings=settings,
        ways=ways_of_routing(settings),
        others=own_levers(settings),
        with_local=with_local,
        scope=scope_of(since, until, project),
        learned=what_is_known(settings),
    )
    looked = sources_of(sources, paths)
    totals = found_totals(plan, looked, settings, fresh=fresh)
    found = totals.findings
    if as_json:
        echo_json(document(found))
    elif not found.calls:
        tell_nothing(looked, limited=(since, until, project) != (None, None, None))
    else:
        out = console()
        print_lines(out, screen(found, full=full, bar=bar_of(out)))
    if html is not None:
        from tierwise.analysis.html import page

        _write(html, page(totals, str(Path.home())))
    if csv is not None:
        from tierwise.analysis.table import csv_lines

        _write(csv, "".join(csv_lines(totals.cells)))
    if apply:
        _apply(ctx, found, settings, Path(policy) if policy else None, claude_code=claude_code, yes=yes)


def _write(name: str, text: str) -> None:
    from tierwise.config.edit import replace_file

    path = Path(name)
    if path.is_dir():
        raise ConfigError(f"{name} is a directory; name a file")
    replace_file(path, text)
    click.echo(f"written: {name}", err=True)


# ------------------------------------------------------------------ applying, and taking it back


def _journal() -> Journal:
    """Beside the ledger's usual place, whatever a configuration says: what it says may be what is to be undone."""
    from tierwise.config import default_ledger_path
    from tierwise.config.changes import Journal

    return Journal(default_ledger_path(os.environ).with_name("applied.json"))


def _apply(
    ctx: click.Context, found: Findings, settings: Settings, policy: Path | None, *, claude_code: bool, yes: bool
) -> None:
    from tierwise.analysis.advise import recommended
    from tierwise.config import user_config_path
    from tierwise.config.changes import claude_code_change, diff, policy_change

    advice = recommended(found, settings)
    named = ctx.find_root().obj or os.environ.get("TIERWISE_CONFIG")
    path = policy or (Path(named) if named else user_config_path(os.environ))
    changes: list[FileChange] = []
    if advice.policy:
        changes.append(policy_change(path, advice.policy))
    if claude_code and advice.claude_code:
        changes.append(claude_code_change(_claude_code_settings(), advice.claude_code))
    shown = [(change, text) for change in changes if (text := diff(change))]
    if not shown:
        if not advice.policy and advice.claude_code and not claude_code:
            _say("Nothing for tierwise.toml; what is recommended is a setting of Claude Code: add --claude-code.")
        elif changes:
            _say("Nothing to apply: the files say what is recommended already.")
        else:
            _say("Nothing to apply: no change was found that saves anything.")
        return
    for _, text in shown:
        _say(text)
    if not yes and not click.confirm("Write this?", default=False, err=True):
        _say("Nothing was written.")
        return
    copies = _journal().apply([change for change, _ in shown], f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    for change, _ in shown:
        _say(f"written: {change.path}")
    for copy in copies:
        _say(f"as it was before: {copy}")
    if ("env", "ANTHROPIC_BASE_URL") in advice.claude_code:
        _say("Claude Code needs the gateway now: tierwise serve." if claude_code else _UNUSED)
    _say("To take it back: tierwise analyze --undo")


_UNUSED = (
    "Nothing uses it yet: tierwise claude runs Claude Code through it, --apply --claude-code makes that permanent."
)


def _claude_code_settings() -> Path:
    told = [part.strip() for part in os.environ.get("CLAUDE_CONFIG_DIR", "").split(",") if part.strip()]
    return (Path(told[0]).expanduser() if told else Path.home() / ".claude") / "settings.json"


def _undo(journal: Journal, *, as_json: bool) -> None:
    done = journal.undo()
    if as_json:
        echo_json({"undone": [{"path": file.path, "how": file.how, "kept": file.kept} for file in done]})
        return
    if not done:
        click.echo("Nothing was applied, so there is nothing to undo.")
    for file in done:
        click.echo(f"{_HOW[file.how]}: {file.path}")
        if file.kept:
            click.echo(f"  changed since, and left as they are: {_listed(file.kept)}")


_HOW = {
    "restored": "as it was before",
    "removed": "removed, as there was none before",
    "reverted": "changed since; only what was applied is taken back",
    "untouched": "as it was anyway",
}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _say(text: str) -> None:
    """What accompanies a result: not on stdout, where the result may be JSON."""
    click.echo(text.rstrip("\n"), err=True)
