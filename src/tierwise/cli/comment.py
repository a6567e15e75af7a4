"""`tierwise comment`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import ledger_of, settings_of
from tierwise.cli.output import echo_json, json_option
from tierwise.cli.transcripts import found_totals, scope_of, source_options, sources_of, what_is_known
from tierwise.core.errors import ConfigError
from tierwise.core.money import nanousd_to_usd

if TYPE_CHECKING:
    from decimal import Decimal

    from tierwise.analysis.gather import Plan
    from tierwise.analysis.session import Scope
    from tierwise.core.settings import Settings
    from tierwise.importers.base import Importer
    from tierwise.integrations.github.comment import Runs
    from tierwise.integrations.github.spending import Spending, Sums
    from tierwise.integrations.github.workflow import Workflow

__all__ = ["command"]

_SOURCES = ("claude_code", "ledger")
_MOST_BYTES = 256 * 1024 * 1024


@click.command("comment")
@source_options
@click.option(
    "--execution-file",
    "execution_files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `claude -p --output-format json` wrote of a run (repeatable); claude-code-action's own are found.",
)
@click.option(
    "--pr", "pull_request", type=click.IntRange(min=1), metavar="N", help="This pull request, not the event's."
)
@click.option(
    "--author", metavar="LOGIN", help="Whose comment it is, where GitHub does not say whose token GITHUB_TOKEN is."
)
@click.option(
    "--settle",
    "settled_seconds",
    type=click.FloatRange(min=0, max=30),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long after writing to look whether another job's report undid it; 0 where no other job reports.",
)
@click.option("--dry-run", is_flag=True, help="Print the comment, as it would be without earlier runs; send nothing.")
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
    execution_files: tuple[Path, ...],
    pull_request: int | None,
    author: str | None,
    settled_seconds: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Say on a pull request what its agents cost, in one comment that sums up all runs.

    For a step of GitHub Actions, after those that ran agents; the token is that of GITHUB_TOKEN. It counts the calls
    since the job began: from Claude Code's transcripts, or from the ledger (--source ledger). Where nothing can be
    written on the pull request (a fork, no permission, GitHub in trouble), the job's summary has the figures, and the
    step succeeds.
    """
    from tierwise.integrations.github.comment import markdown
    from tierwise.integrations.github.workflow import Workflow

    if len(sources) > 1 or (sources and sources[0] not in _SOURCES):
        raise click.UsageError(f"--source is one of {', '.join(_SOURCES)}: what is in both would count twice")
    of_ledger = sources == ("ledger",)
    if of_ledger and (paths or execution_files):
        raise click.UsageError("--source ledger reads the ledger: leave PATHS and --execution-file out")
    workflow = None if dry_run else Workflow.of(os.environ, pull_request=pull_request)
    if workflow is not None:
        since, execution_files = since or workflow.began_at, execution_files or workflow.execution_files
    settings = settings_of(ctx)
    if of_ledger:
        spending = _of_ledger(settings, since, until, project)
    else:
        plan = _plan(settings, scope_of(since, until, project), with_local=with_local)
        spending = _of_transcripts(plan, sources_of(sources, paths), execution_files, fresh=fresh)
    done = _Done("dry run") if workflow is None else _publish(workflow, spending, author, settled_seconds)
    text = markdown(spending, done.runs, notes=[done.why] if done.why else [])
    if workflow is not None:
        _summarize(workflow, text, done)
    if as_json:
        echo_json(_as_json(spending, done))
    elif workflow is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"{done.how}: {done.url}" if done.url else done.how)


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of the comment."""

    how: str  # created, updated, summary, nothing, dry run
    url: str = ""
    why: str = ""  # it is not on the pull request, or not as it was
    runs: Runs | None = None


# ------------------------------------------------------------------ what was spent


def _plan(settings: Settings, scope: Scope, *, with_local: bool) -> Plan:
    from tierwise.analysis.gather import Plan, ways_of_routing

    return Plan(
        settings=settings,
        ways=ways_of_routing(settings),
        with_local=with_local,
        scope=scope,
        learned=what_is_known(settings),
    )


def _of_transcripts(
    plan: Plan, sources: Sequence[tuple[Importer, Sequence[Path]]], reports: Sequence[Path], *, fresh: bool
) -> Spending:
    from tierwise.integrations.github.spending import of_findings, of_reports
    from tierwise.prices import PriceBook
    from tierwise.replay.tariff import Tariff

    settings = plan.settings
    found = found_totals(plan, sources, settings, fresh=fresh).findings
    return of_findings(found) + of_reports(
        map(_read, reports),
        {path.stem for _, roots in sources for root in roots for path in (root, *root.rglob("*.jsonl"))},
        Tariff(settings.catalog, PriceBook(settings.prices, settings.providers)),
        datetime.now(UTC).date(),
    )


def _read(report: Path) -> bytes:
    try:
        with report.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise ConfigError(
            f"cannot read {report}: {error.strerror}; leave --execution-file out, or name another"
        ) from None


def _of_ledger(settings: Settings, since: date | None, until: date | None, project: str | None) -> Spending:
    from tierwise.integrations.github.spending import Spending, of_ledger
    from tierwise.report.spend import spend

    ledger = ledger_of(settings)
    if ledger is None:
        return Spending()
    with ledger:
        return of_ledger(spend(ledger, "model", since=since, until=until, project=project))


# ------------------------------------------------------------------ who is told


def _publish(workflow: Workflow, spending: Spending, author: str | None, settled_seconds: float) -> _Done:
    from tierwise.integrations.github.api import GitHub, NotAllowed, Unavailable
    from tierwise.integrations.github.comment import markdown
    from tierwise.integrations.github.publish import JOB_AUTHOR, publish

    if not spending.sums.calls and not spending.unread_reports:
        return _Done("nothing", why="No agent made a call since the job began.")
    token = os.environ.get("GITHUB_TOKEN")
    if workflow.pull_request is None:
        return _Done("summary", why="The event is about no pull request: there is no comment (--pr names one).")
    if not token:
        return _Done("summary", why="GITHUB_TOKEN is not set: there is no comment.")
    github = GitHub(workflow.api_url, workflow.repository, token)

    def words(runs: Runs) -> str:
        return markdown(spending, runs)

    try:
        expected = author or github.login() or JOB_AUTHOR
        made = publish(
            github,
            workflow.pull_request,
            author=expected,
            key=workflow.run_key,
            sums=spending.sums,
            words=words,
            settled_seconds=settled_seconds,
        )
    except NotAllowed as error:
        why = f"There is no comment, since the token may not write on pull requests ({error}); a fork's never may."
        return _Done("summary", why=f"{why} Otherwise the job needs the permission pull-requests: write.")
    except Unavailable as error:
        return _Done("summary", why=f"There is no comment: {error}.")
    why = "The sums of earlier runs could no longer be read; counting starts again." if made.unread else ""
    if made.author != expected:
        why = f"The comment is by {made.author}: say --author {made.author}, or the next run makes another one."
    return _Done("created" if made.created else "updated", made.url, why, made.runs)


def _summarize(workflow: Workflow, text: str, done: _Done) -> None:
    """On the job's page; and a warning in its log, where something is not as it should be."""
    if workflow.summary is not None and done.how != "nothing":
        try:
            with workflow.summary.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            click.echo(f"tierwise: GITHUB_STEP_SUMMARY cannot be written: {error.strerror}", err=True)
    if done.why and done.how != "nothing":
        told = done.why.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        click.echo(f"::warning title=tierwise::{told}", err=True)


def _as_json(spending: Spending, done: _Done) -> dict[str, Any]:
    return {
        "how": done.how,
        "url": done.url or None,
        "why": done.why or None,
        "run": _sums(spending.sums),
        "models": [
            {"model": one.model, "calls": one.calls, "spent_usd": _usd(one.spent_nanousd)} for one in spending.models
        ],
        "unread_reports": spending.unread_reports,
        "pull_request": None if done.runs is None else {"runs": len(done.runs), **_sums(done.runs.total)},
    }


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "calls": sums.calls,
        "unpriced_calls": sums.unpriced_calls,
        "spent_usd": _usd(sums.spent_nanousd),
        "routed_usd": _usd(sums.routed_nanousd),
        "routed_low_usd": _usd(sums.routed_low_nanousd),
        "routed_high_usd": _usd(sums.routed_high_nanousd),
        "saved_usd": _usd(sums.saved_nanousd),
    }


def _usd(nanousd: int | None) -> Decimal | None:
    return None if nanousd is None else nanousd_to_usd(nanousd)
