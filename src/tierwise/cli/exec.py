"""`tierwise exec`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import given, read_stdin, schema_of, settings_of, task_options
from tierwise.cli.output import echo_json, json_option
from tierwise.cli.signals import ending_signals
from tierwise.core.money import format_usd, nanousd_to_usd

if TYPE_CHECKING:
    from tierwise.engine.router import AsyncRouter
    from tierwise.integrations.claude_code.batch import Finished
    from tierwise.integrations.claude_code.execution import Executed, Executor, Job

__all__ = ["command"]

_STDERR = 2
_STDIN_SECONDS = 3.0


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("words", nargs=-1, metavar="-- claude -p …", type=click.UNPROCESSED)
@click.option("--task", metavar="TEXT", help="What it is asked, where the command itself does not say.")
@click.option(
    "--check", metavar="COMMAND", help="Run after each attempt, with the answer on stdin; it passes with exit code 0."
)
@click.option("--before-retry", metavar="COMMAND", help="Run before each further attempt, as in 'git checkout .'.")
@click.option("--json-schema", "schema_file", metavar="FILE", help="The answer must be JSON of this schema.")
@click.option("--tasks", "tasks_file", metavar="FILE", help="Run each task of this file: JSON Lines with a text.")
@click.option("--out", "out_file", metavar="FILE", help="With --tasks: append results here instead of printing them.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="With --tasks: how many run at once.",
)
@click.option("--resume", is_flag=True, help="With --tasks and --out: skip what succeeded before.")
@click.option("--project", metavar="NAME", help="Recorded with the call.")
@task_options
@click.option("--no-record", is_flag=True, help="Leave the ledger alone.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    words: tuple[str, ...],
    task: str | None,
    check: str | None,
    before_retry: str | None,
    schema_file: str | None,
    tasks_file: str | None,
    out_file: str | None,
    concurrency: int,
    resume: bool,
    no_record: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run `claude -p` on the cheapest model that does it well.

    The model is chosen by what is asked. A run passes if the CLI reports success, its answer satisfies the JSON schema,
    and the check exits with 0; otherwise the next model gets the task. The answer goes to stdout as the command itself
    would print it, a receipt to stderr.
    """
    from dataclasses import replace

    from tierwise.integrations.claude_code.command import ClaudeCommand
    from tierwise.integrations.claude_code.execution import Job

    claude = ClaudeCommand.parse(words)
    if schema_file is not None:
        claude = replace(claude, json_schema=schema_of(schema_file))
    wanted = given(options)
    if options["project"]:
        wanted["project"] = options["project"]
    if tasks_file is None:
        if out_file is not None or resume:
            raise click.UsageError("--out and --resume are for --tasks")
        if task is not None and claude.prompt is not None:
            raise click.UsageError("the command has a prompt; leave --task out")
        piped = _piped()
    else:
        if task is not None or claude.prompt is not None:
            raise click.UsageError("the tasks are in the file; leave --task and the command's prompt out")
        if resume and out_file is None:
            raise click.UsageError("--resume needs --out, the file with the earlier results")
        if claude.session is not None:
            raise click.UsageError("each task is a session of its own; leave the command's --session-id out")
        piped = None
    job = Job(command=claude, task=task, given=piped, check=check, before_retry=before_retry, options=wanted)
    settings = settings_of(ctx)

    async def run() -> int:
        from tierwise.engine.router import AsyncRouter

        async with AsyncRouter(settings, record=not no_record) as router:
            if tasks_file is not None:
                return await _batch(router, job, Path(tasks_file), out_file, concurrency, resume=resume)
            return await _single(router, job, as_json=as_json)

    sys.exit(_to_its_end(run))


def _to_its_end(run: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """The exit code of what is run; told to end, it ends what it runs first, as at Ctrl-C."""
    told: list[int] = []

    async def until_told() -> int:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101  it is this one

        def ends(number: int) -> None:
            told.append(number)
            task.cancel()

        for number in ending_signals():
            with suppress(NotImplementedError):  # Windows has no such handlers
                loop.add_signal_handler(number, ends, number)
        return await run()

    try:
        return asyncio.run(until_told())
    except asyncio.CancelledError:
        if not told:
            raise
        return 128 + told[0]


# ------------------------------------------------------------------ one task


async def _single(router: AsyncRouter, job: Job, *, as_json: bool) -> int:
    from tierwise.integrations.claude_code.command import OutputFormat

    executor = _executor(router, checks_output=_STDERR)
    done = await executor.run(job)
    if as_json:
        echo_json(_as_json(done))
    elif job.command.output is OutputFormat.JSON:
        sys.stdout.buffer.write(done.printed)
    elif done.report is not None and done.ok:
        structured = job.command.json_schema is not None
        click.echo(json.dumps(done.report.structured) if structured else done.report.text, file=sys.stdout)
    if not as_json:
        _tell(done)
    return _code(done)


def _piped() -> str | None:
    """What is on stdin; nothing where nobody writes for a while, as the CLI itself has it."""
    import select

    if sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        ready, _, _ = select.select([sys.stdin], [], [], _STDIN_SECONDS)
    except (OSError, ValueError):  # nothing that can be waited for
        ready = [sys.stdin]
    if not ready:
        click.echo(f"nothing came on stdin within {_STDIN_SECONDS:g} s: going on without it (`< /dev/null`)", err=True)
        return None
    return read_stdin() or None


def _executor(router: AsyncRouter, *, checks_output: int | None) -> Executor:
    from tierwise.integrations.claude_code.execution import Executor

    return Executor(router, os.environ, checks_output=checks_output)


def _tell(done: Executed) -> None:
    if not done.ok:
        for attempt in done.attempts:
            why = f": {attempt.detail}" if attempt.detail else ""
            click.echo(f"  {attempt.number}. {attempt.model}: {attempt.outcome.value.replace('_', ' ')}{why}", err=True)
        click.echo(f"tierwise: no acceptable answer: {done.why}", err=True)
        if done.said:
            click.echo(f"  the CLI said: {done.said}", err=True)
    last = done.attempts[-1] if done.attempts else None
    parts = [done.decision.classification.task_type.name]
    parts += [f"{last.tier} ({last.model})"] if last else []
    parts += [f"{len(done.attempts)} attempts"] if len(done.attempts) > 1 else []
    parts.append("counted by the gateway" if done.counted_elsewhere else format_usd(_cost_usd(done)))
    click.echo(" · ".join([*parts, f"call {done.call_id}"]), err=True)


def _code(done: Executed) -> int:
    from tierwise.engine.climb import Ending

    if done.ok:
        return 0
    return 4 if done.ending in (Ending.DEADLINE, Ending.COST_CEILING) else 1


def _cost_usd(done: Executed) -> Any:
    return None if done.cost_nanousd is None else nanousd_to_usd(done.cost_nanousd)


def _as_json(done: Executed) -> dict[str, Any]:
    report = done.report
    last = done.attempts[-1] if done.attempts else None
    return {
        "ok": done.ok,
        "why": done.why,
        "text": report.text if report else "",
        "value": report.structured if report else None,
        "tier": last.tier if last else None,
        "model": last.model if last else None,
        "task_type": done.decision.classification.task_type.name,
        "call_id": done.call_id,
        "session": report.session if report else None,
        "cost_usd": _cost_usd(done),
        "counted_elsewhere": done.counted_elsewhere,
        "attempts": [
            {"model": attempt.model, "outcome": attempt.outcome, "detail": attempt.detail} for attempt in done.attempts
        ],
    }


# ------------------------------------------------------------------ a file of tasks


async def _batch(
    router: AsyncRouter, job: Job, tasks_file: Path, out_file: str | None, most: int, *, resume: bool
) -> int:
    from tierwise.cli.output import plain
    from tierwise.integrations.claude_code.batch import Results, read_tasks, run_all

    tasks = read_tasks(tasks_file, job)
    results = Results(None if out_file is None else Path(out_file))
    before = results.done() if resume else frozenset()
    results.ready()
    waiting = [task for task in tasks if (task.id, task.digest) not in before]
    failed = 0

    def done(finished: Finished) -> None:
        nonlocal failed
        failed += not finished.ok
        task, executed = finished.task, finished.executed
        said = {"ok": False, "why": finished.error} if executed is None else _as_json(executed)
        result = plain({"id": task.id, "digest": task.digest, **said})
        results.append(result)
        if out_file is None:
            echo_json(result, one_line=True)

    await run_all(_executor(router, checks_output=None), waiting, most, done)
    skipped = f", {len(tasks) - len(waiting)} done before" if resume else ""
    click.echo(f"{len(waiting) - failed} of {len(waiting)} succeeded{skipped}", err=True)
    return 1 if failed else 0
