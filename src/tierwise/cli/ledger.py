"""`tierwise ledger`: looking after the ledger."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path

import click

from tierwise.cli.keys import existing_ledger
from tierwise.cli.options import MOMENT
from tierwise.cli.output import echo_json, json_option, moment

__all__ = ["command"]

_NO_LEDGER = "`tierwise demo` makes one"
_MB = 1_000_000


@click.group("ledger")
def command() -> None:
    """Look after the ledger: size, batches, verify, backup, prune, rebuild.

    All of it may be done while other processes write. Every subcommand takes --json.
    """


@command.command("size")
@json_option
@click.pass_context
def size(ctx: click.Context, /, *, as_json: bool) -> None:
    """Say how large it is, and what is in it."""
    from tierwise.ledger.care import ledger_size

    with existing_ledger(ctx, "calls", _NO_LEDGER) as ledger:
        found = ledger_size(ledger)
    if as_json:
        echo_json(found)
        return
    click.echo(f"{found.path}: {found.bytes / _MB:,.1f} MB, of which {found.free_bytes / _MB:,.1f} MB are free")
    if found.first_ms is None:
        click.echo("no calls")
    else:
        click.echo(
            f"{found.calls:,} calls with {found.attempts:,} attempts, "
            f"{moment(found.first_ms)} to {moment(found.last_ms)}"
        )
    if found.pruned_before_ms is not None:
        click.echo(
            f"calls from before {moment(found.pruned_before_ms)} were removed; "
            f"{found.pruned_calls:,} of them are still in the sums"
        )
    if found.is_behind:
        click.echo(
            "its sums are still being computed: reports are right, but slow; `tierwise ledger rebuild` continues"
        )
    for spool in found.waiting:
        click.echo(f"records wait in {spool}")


@command.command("batches")
@click.option("--forget", metavar="ID", help="Wait no longer for the results of this one (the first column).")
@json_option
@click.pass_context
def batches(ctx: click.Context, /, *, forget: str | None, as_json: bool) -> None:
    """List batches whose results are still to be read.

    What they cost is known once somebody reads their results through tierwise; until then their calls stay open. One
    without the provider's id was being sent when its process ended or its connection broke: it may or may not have
    been accepted. A forgotten one counts at its expected cost, until its results are read after all.
    """
    from tierwise.core.money import format_usd, nanousd_to_usd
    from tierwise.ledger.batches import Batches

    with existing_ledger(ctx, "calls", _NO_LEDGER) as ledger:
        book = Batches(ledger)
        if forget is not None:
            chosen = next((one for one in book.waiting() if forget in (one.batch_id, one.upstream_id)), None)
            if chosen is None:
                raise click.UsageError(f"no batch {forget!r} waits; `tierwise ledger batches` lists those that do")
            book.forget(chosen, int(datetime.now(UTC).timestamp() * 1000))
        found = [(batch, book.unread(batch)) for batch in book.waiting()]
        path = ledger.path
    if as_json:
        listed = [
            {
                "batch_id": batch.batch_id,
                "upstream_id": batch.upstream_id,
                "provider": batch.provider,
                "sent_at_ms": batch.sent_at_ms,
                "requests": batch.requests,
                "unread_requests": unread.requests,
                "expected_nanousd": unread.expected_nanousd,
                "unpriced_requests": unread.unpriced,
            }
            for batch, unread in found
        ]
        echo_json({"ledger": path, "batches": listed})
        return
    for batch, unread in found:
        unpriced = f" and {unread.unpriced:,} without a known price" if unread.unpriced else ""
        click.echo(
            f"{batch.batch_id}  {batch.upstream_id or '(no name)'}  "
            f"sent {moment(batch.sent_at_ms)} to {batch.provider}  "
            f"{unread.requests:,} of {batch.requests:,} unread, "
            f"expected {format_usd(nanousd_to_usd(unread.expected_nanousd))}{unpriced}"
        )
    if not found:
        click.echo("no batch waits for its results to be read")


@command.command("verify")
@json_option
@click.pass_context
def verify(ctx: click.Context, /, *, as_json: bool) -> None:
    """Check the file, and that all sums agree with its rows.

    Reads all of it, which takes a minute for some million calls. Exit code 1 if something is wrong.
    """
    from tierwise.ledger.care import verify as faults_of

    with existing_ledger(ctx, "calls", _NO_LEDGER) as ledger:
        faults = faults_of(ledger)
        path = ledger.path
    if as_json:
        echo_json({"ledger": path, "faults": faults})
    elif faults:
        for fault in faults:
            click.echo(fault)
        if any("not the sum of its rows" in fault for fault in faults):
            click.echo("`tierwise ledger rebuild` computes the sums again")
    else:
        click.echo(f"{path} is sound")
    if faults:
        ctx.exit(1)


@command.command("rebuild")
@json_option
@click.pass_context
def rebuild(ctx: click.Context, /, *, as_json: bool) -> None:
    """Compute the sums behind reports again, from the rows.

    Others go on reading and writing meanwhile, and every report stays right; those over a long time take longer. It may
    be interrupted: the next rebuild continues, and so does a running gateway. Sums of pruned calls stay.
    """
    with existing_ledger(ctx, "calls", _NO_LEDGER) as ledger:
        ledger.begin_rollup()
        calls: int | None = None
        while not (extended := ledger.extend_rollup(calls)).is_done:
            calls = extended.calls
            _tell_progress(f"summed back to {moment(extended.reached_ms)}")
        _tell_progress("")
        totals = ledger.totals(())[0][1]
        path = ledger.path
    if as_json:
        echo_json({"ledger": path, "calls": totals.calls, "attempts": totals.attempts})
        return
    click.echo(f"the sums of {totals.calls:,} calls with {totals.attempts:,} attempts are computed again")


def _tell_progress(text: str) -> None:
    """On one line of a terminal; nothing where nobody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{text}", nl=False, err=True)


@command.command("prune")
@click.option(
    "--older-than",
    type=MOMENT,
    required=True,
    metavar="WHEN",
    help="Remove calls that began before then: 90d, 26w, 2026-01-01 (UTC).",
)
@click.option("--keep-rollups", is_flag=True, help="Keep their sums: what was spent and saved by day stays in reports.")
@click.option(
    "--shrink", is_flag=True, help="Also give the free space back to the disk; nothing else may write meanwhile."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def prune(
    ctx: click.Context, /, *, older_than: date, keep_rollups: bool, shrink: bool, yes: bool, as_json: bool
) -> None:
    """Remove old calls, with their attempts, feedback and captured texts.

    Whole UTC days; calls that still run stay. Without --keep-rollups reports forget them, too. A copy from before is
    the only way back: `tierwise ledger backup FILE`.
    """
    from tierwise.ledger.care import prune as prune_calls
    from tierwise.ledger.care import shrink as shrink_file
    from tierwise.report.spend import moment_ms

    before_ms = moment_ms(older_than)
    if before_ms > moment_ms(datetime.now(UTC)):
        raise click.UsageError(f"--older-than {older_than} is in the future: all calls would go; give one that is past")
    with existing_ledger(ctx, "calls", _NO_LEDGER) as ledger:
        if not yes and not as_json:
            sums = "their sums stay" if keep_rollups else "their sums go, too"
            click.confirm(f"Remove the calls before {moment(before_ms)} from {ledger.path} ({sums})?", abort=True)
        pruned = prune_calls(ledger, before_ms, keep_rollups=keep_rollups)
        if shrink:
            shrink_file(ledger)
    if as_json:
        echo_json(pruned)
        return
    click.echo(
        f"removed {pruned.calls:,} calls with {pruned.attempts:,} attempts from before {moment(pruned.before_ms)}; "
        f"{'their sums stay' if keep_rollups else 'their sums are gone, too'}"
    )


@command.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def backup(ctx: click.Context, /, *, file: Path, as_json: bool) -> None:
    """Copy the ledger to FILE, as it is now, while others go on writing.

    FILE must not exist. It is a ledger like any other: set ledger.path to it, or put it in the place of a lost one.
    """
    from tierwise.ledger.care import backup as copy_to

    with existing_ledger(ctx, "calls", _NO_LEDGER) as ledger:
        written = copy_to(ledger, file)
        path = ledger.path
    if as_json:
        echo_json({"ledger": path, "file": file, "bytes": written})
        return
    click.echo(f"{file}: {written / _MB:,.1f} MB")
