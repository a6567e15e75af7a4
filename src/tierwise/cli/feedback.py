"""`tierwise feedback`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from tierwise.cli.options import read_stdin, settings_of, utf8
from tierwise.cli.output import echo_json, json_option
from tierwise.core.errors import InvalidTask

__all__ = ["command"]

_PATIENCE_MS = 5_000  # somebody waits for it, and no call does
_MOST_BYTES = 64 * 1024 * 1024


@click.command("feedback")
@click.argument("call_id")
@click.option("--type", "task_type", metavar="TYPE", help="What the call really was; `tierwise train` learns from it.")
@click.option("--good/--bad", "good", default=None, help="Whether its answer was good.")
@click.option("--text-from", metavar="FILE", help="Its text, where the ledger has not kept it; `-` is stdin.")
@click.option("--forget", is_flag=True, help="Remove what was said of the call, and its text.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    call_id: str,
    task_type: str | None,
    good: bool | None,
    text_from: str | None,
    forget: bool,
    as_json: bool,
) -> None:
    """Say what a call really was, or whether it was good.

    CALL_ID is what `tierwise run` prints and the ledger has. New feedback replaces the old.
    The ledger keeps no texts unless `ledger.capture_text` is on; --text-from gives the one of this call, of which what
    the classifier looks at is kept (1,200 characters at most).
    """
    from tierwise.classifier import load_taxonomy
    from tierwise.classifier.features import shown
    from tierwise.ledger import Feedback, Judgement, Ledger

    if forget and (task_type is not None or good is not None or text_from is not None):
        raise click.UsageError("--forget stands alone")
    if not forget and task_type is None and good is None:
        raise click.UsageError("say something of the call: --type TYPE, --good or --bad; or --forget")
    settings = settings_of(ctx)
    if task_type is not None:
        task_type = load_taxonomy().with_user_types(settings.task_types)[task_type].name
    text = None if text_from is None else shown(_text(text_from))
    if text == "":
        raise InvalidTask(f"{text_from} holds no text")
    unknown = InvalidTask(
        f"the ledger {settings.ledger.path} has no call {call_id!r}; `tierwise export --what calls` lists them"
    )
    if not settings.ledger.path.exists():
        raise unknown
    with Ledger(settings.ledger.path, synchronous=settings.ledger.synchronous, busy_timeout_ms=_PATIENCE_MS) as ledger:
        if forget:
            found = ledger.forget_feedback(call_id)
            if not found and ledger.get(call_id) is None:
                raise unknown
        else:
            verdict = None if good is None else Judgement.GOOD if good else Judgement.BAD
            said = Feedback(call_id=call_id, at_ms=time.time_ns() // 1_000_000, verdict=verdict, task_type=task_type)
            if not ledger.give_feedback(said, text):
                raise unknown
    if as_json:
        echo_json(
            {
                "call_id": call_id,
                "verdict": None if good is None else "good" if good else "bad",
                "task_type": task_type,
                "text_kept": text is not None,
                "forgotten": forget,
            }
        )
    else:
        click.echo(f"call {call_id}: {'forgotten' if forget else 'noted'}")


def _text(file_name: str) -> str:
    if file_name == "-":
        return read_stdin()
    try:
        with Path(file_name).open("rb") as file:
            return utf8(file.read(_MOST_BYTES))
    except (OSError, ValueError) as error:
        raise InvalidTask(f"cannot read {file_name}: {getattr(error, 'strerror', None) or error}") from None
