"""`tierwise export`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Literal, TextIO

import click

from tierwise.cli.options import ledger_of, period_options, settings_of
from tierwise.cli.output import json_option

__all__ = ["command"]

_STATUSES = ("open", "answered", "failed", "cancelled", "not_run")


@click.command("export")
@click.option("--format", "fmt", type=click.Choice(["jsonl", "csv"]), help="JSON Lines (the default) or CSV.")
@click.option(
    "--what",
    type=click.Choice(["calls", "attempts"]),
    default="attempts",
    show_default=True,
    help="One row for each call, or for each attempt.",
)
@click.option("-o", "--output", metavar="FILE", help="Write here, all or nothing, instead of to stdout.")
@period_options
@click.option("--type", "task_type", metavar="TYPE", help="Only calls of this task type.")
@click.option("--tier", metavar="TIER", help="Only calls that this tier answered.")
@click.option("--model", metavar="ID", help="Only calls that this model answered.")
@click.option("--session", metavar="NAME", help="Only calls of this session.")
@click.option("--status", type=click.Choice(_STATUSES), help="Only calls with this status.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    fmt: Literal["jsonl", "csv"] | None,
    what: Literal["calls", "attempts"],
    output: str | None,
    since: date | None,
    until: date | None,
    project: str | None,
    key_id: str | None,
    task_type: str | None,
    tier: str | None,
    model: str | None,
    session: str | None,
    status: str | None,
    as_json: bool,
) -> None:
    """Write the ledger out as JSON Lines or CSV.

    Rows are written in order of time, as they are read. Costs are exact decimal texts in US$, and empty (null) where no
    price is known. --json is --format jsonl.
    """
    from tierwise.core.decisions import CallStatus
    from tierwise.ledger import Filter, Ledger
    from tierwise.report.export import export_rows
    from tierwise.report.spend import period

    if as_json and fmt == "csv":
        raise click.UsageError("--json and --format csv exclude each other")
    since_ms, until_ms = period(since, until)
    where = Filter(
        since_ms=since_ms,
        until_ms=until_ms,
        project=project,
        key_id=key_id,
        task_type=task_type,
        tier=tier,
        model=model,
        session=session,
        status=None if status is None else CallStatus(status),
    )
    settings = settings_of(ctx)
    ledger = ledger_of(settings)
    chosen: Literal["jsonl", "csv"] = fmt or "jsonl"
    lines: Iterator[str]
    if ledger is None:
        click.echo(f"the ledger {settings.ledger.path} has no calls yet", err=True)
        # CSV has its line of names all the same; the ledger, which there is not, is read only for the next one.
        lines = islice(export_rows(Ledger(settings.ledger.path), chosen, what=what), chosen == "csv")
    else:
        lines = export_rows(ledger, chosen, what=what, where=where)
    count = 0
    with _opened(output) as out:
        for line in lines:
            out.write(line)
            count += 1
    if ledger is not None:
        ledger.close()
    rows = count - (chosen == "csv")
    if output is not None:
        click.echo(f"{rows:,} row{'' if rows == 1 else 's'} written to {output}", err=True)


@contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
    """Where rows go. A file appears under its name only once it is whole."""
    if output is None or output == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(output)
    if path.exists() and not path.is_file():  # a device or a pipe: nothing to replace
        with path.open("w", encoding="utf-8", newline="") as out:
            yield out
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
            yield out
        # mkstemp makes it private to its owner, as the ledger is; that stays.
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
