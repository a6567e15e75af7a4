"""`tierwise run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import MAX_TASK_BYTES, given, schema_of, settings_of, task_options, text_of, utf8
from tierwise.cli.output import decision_as_json, echo_json, json_option
from tierwise.core.errors import InvalidTask, RunError
from tierwise.core.money import nanousd_to_usd

if TYPE_CHECKING:
    from tierwise.core.decisions import AttemptRecord
    from tierwise.engine.result import Result
    from tierwise.engine.sync import Router

__all__ = ["command"]


@click.command("run")
@click.argument("task", required=False)
@click.option("--input", "input_file", metavar="FILE", help="The payload to work on; `-` reads it from stdin.")
@click.option("--json-schema", "schema_file", metavar="FILE", help="The answer must be JSON of this schema.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="The answer must be one of these (repeatable).")
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option("--max-output-tokens", type=click.IntRange(min=1), metavar="N", help="Cut the answer off here.")
@click.option("--project", metavar="NAME", help="Recorded with the call.")
@click.option("--session", metavar="NAME", help="Recorded with the call.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Recorded with the call (repeatable).")
@task_options
@click.option("--no-record", is_flag=True, help="Leave the ledger alone.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    task: str | None,
    input_file: str | None,
    schema_file: str | None,
    tags: tuple[str, ...],
    no_record: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a task on the cheapest tier that does it well.

    The answer goes to stdout, a one-line receipt to stderr. TASK is the text; `-`, or nothing with a pipe, reads it
    from stdin.
    """
    from tierwise.engine.sync import Router

    if input_file == "-" and task is None:
        raise click.UsageError("--input - reads stdin, so the task must be an argument")
    text = text_of(task)
    wanted = given(options)
    wanted.update(
        {name: options[name] for name in ("system", "max_output_tokens", "project", "session") if options[name]}
    )
    if input_file is not None:
        wanted["input_text"] = _read(input_file)
    if schema_file is not None:
        wanted["json_schema"] = schema_of(schema_file)
    if options["labels"]:
        wanted["labels"] = options["labels"]
    if tags:
        wanted["tags"] = dict(_tag(tag) for tag in tags)
    with Router(settings_of(ctx), record=not no_record) as router:
        try:
            result = _run(router, text, wanted)
        except RunError as error:
            if as_json:
                echo_json(_failure_as_json(error))
            else:
                _tell_attempts(error.attempts)
            raise
    if as_json:
        echo_json(_as_json(result))
        return
    # Named, because click on its own would write UTF-8 to a terminal that was said to know only ASCII.
    click.echo(result.text, file=sys.stdout)
    click.echo(result.receipt(), err=True)
    for note in result.notes:
        click.echo(f"  adapted: {note}", err=True)
    if not result.recorded and not no_record:
        click.echo("  not in the ledger yet; see `tierwise doctor`", err=True)


def _run(router: Router, text: str, wanted: dict[str, Any]) -> Result:
    """Runs, with a spinner where a person waits."""
    if not sys.stderr.isatty():
        return router.run(text, **wanted)
    from tierwise.cli.output import console

    with console(stderr=True).status("working …"):
        return router.run(text, **wanted)


def _read(name: str) -> str:
    if name == "-":
        from tierwise.cli.options import read_stdin

        return read_stdin()
    path = Path(name)
    size = path.stat().st_size
    if size > MAX_TASK_BYTES:
        raise InvalidTask(f"{name} has {size:,} bytes; at most {MAX_TASK_BYTES:,} are read")
    return utf8(path.read_bytes())


def _tag(tag: str) -> tuple[str, str]:
    key, equals, value = tag.partition("=")
    if not equals or not key:
        raise click.UsageError(f"--tag {tag!r}: use KEY=VALUE")
    return key, value


def _tell_attempts(attempts: tuple[AttemptRecord, ...]) -> None:
    for attempt in attempts:
        click.echo(
            f"  {attempt.number}. {attempt.model} ({attempt.tier}): {attempt.outcome.value.replace('_', ' ')}"
            f"{f': {attempt.detail}' if attempt.detail else ''}",
            err=True,
        )


def _attempt_as_json(attempt: AttemptRecord) -> dict[str, Any]:
    usage = attempt.usage
    return {
        "number": attempt.number,
        "tier": attempt.tier,
        "model": attempt.model,
        "outcome": attempt.outcome,
        "detail": attempt.detail,
        "cost_usd": None if attempt.cost_nanousd is None else nanousd_to_usd(attempt.cost_nanousd),
        "latency_ms": attempt.latency_ms,
        "ttft_ms": attempt.ttft_ms,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_5m_tokens": usage.cache_write_5m_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "estimated": usage.estimated,
    }


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "text": result.text,
        "value": result.value,
        "tier": result.tier,
        "model": result.model,
        "task_type": result.decision.classification.task_type.name,
        "call_id": result.call_id,
        "cost_usd": result.cost_usd,
        "baseline_cost_usd": result.baseline_cost_usd,
        "saved_usd": result.saved_usd,
        "latency_ms": result.latency_ms,
        "stop_reason": result.stop_reason,
        "recorded": result.recorded,
        "notes": result.notes,
        "attempts": [_attempt_as_json(attempt) for attempt in result.attempts],
        "decision": decision_as_json(result.decision),
    }


def _failure_as_json(error: RunError) -> dict[str, Any]:
    return {
        "error": str(error),
        "kind": type(error).__name__,
        "call_id": error.call_id,
        "attempts": [_attempt_as_json(attempt) for attempt in error.attempts],
        "decision": None if error.decision is None else decision_as_json(error.decision),
    }
