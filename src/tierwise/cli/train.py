"""`tierwise train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import ledger_of, settings_of
from tierwise.cli.output import console, echo_json, json_option, table
from tierwise.core.errors import ConfigError, InvalidTask

if TYPE_CHECKING:
    from tierwise.classifier.correcting import Corrected
    from tierwise.classifier.evaluate import Score
    from tierwise.classifier.taxonomy import Taxonomy
    from tierwise.core.settings import Settings

__all__ = ["command"]

_FEWEST = 10


@click.command("train")
@click.option("--dry-run", is_flag=True, help="Say what it would do, and write nothing.")
@click.option("--forget", is_flag=True, help="Remove what was learned from feedback.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, dry_run: bool, forget: bool, as_json: bool) -> None:
    """Learn from feedback that names the right task type.

    Feedback counts where it has a type and the ledger has the text. Three tenths are held back, with half of the
    texts that come with tierwise; the correction is learned from the rest, and used only where it gets more of the
    held-back feedback right, lowers the accuracy on the other texts by at most half a percentage point, and sends none
    of them lower. Otherwise nothing is written, and the exit code is 1.
    """
    from tierwise.classifier import load_taxonomy
    from tierwise.classifier.correcting import learn_correction
    from tierwise.classifier.taught import TypesFolder, load_taught, untaught_classifier
    from tierwise.config import shipped_settings
    from tierwise.policy import level_by_tree

    settings = settings_of(ctx)
    if not settings.sources:
        raise ConfigError("there is no tierwise.toml to keep what is learned beside; create one with `tierwise init`")
    folder = TypesFolder(settings.taught[-1])
    if forget:
        _forget(folder.path, as_json=as_json)
        return
    taxonomy = load_taxonomy().with_user_types(settings.task_types)
    feedback, unknown = _feedback(settings, taxonomy)
    classifier = untaught_classifier()
    taught = load_taught(settings.taught, taxonomy, classifier.artifact)
    lessons = None if taught is None else taught.with_correction(None)
    usable = {*classifier.artifact.types, *(() if lessons is None else (own.name for own in lessons.own))}
    untaught = [text for text, name in feedback.items() if name not in usable]
    for text in untaught:
        del feedback[text]
    if len(feedback) < _FEWEST:
        raise InvalidTask(_too_little(len(feedback), unknown + len(untaught)))
    made = learn_correction(feedback, classifier, lessons, level_by_tree(shipped_settings()), taxonomy)
    against = made.against
    written = not against and not dry_run
    if written:
        with folder.locked():
            stored = folder.read()
            encoder = classifier.artifact.digests["encoder.onnx"]
            _write(folder, stored, encoder, made)
    if as_json:
        echo_json(_as_json(made, against, written=written, skipped=unknown + len(untaught), path=folder.path))
    else:
        _show(made, against, written=written, dry_run=dry_run, path=folder.path)
    if against:
        ctx.exit(1)


def _write(folder: Any, stored: Any, encoder: str, made: Corrected) -> None:
    from tierwise.classifier.taught import Stored

    folder.write(replace(stored or Stored(encoder), correction=made.correction, feedback=made.trained_on))


def _feedback(settings: Settings, taxonomy: Taxonomy) -> tuple[dict[str, str], int]:
    """The right type of each text, and how much feedback names a type that is not there any more."""
    ledger = ledger_of(settings)
    if ledger is None:
        return {}, 0
    with ledger:
        rows = ledger.typed_texts()
    return {text: name for text, name in rows if name in taxonomy}, sum(name not in taxonomy for _, name in rows)


def _too_little(count: int, skipped: int) -> str:
    text = (
        f"feedback to learn from, with a task type and the text: {count} texts, and at least {_FEWEST} are needed. Say "
        "`tierwise feedback CALL_ID --type TYPE`; the text is kept where ledger.capture_text is true in your own "
        "configuration, or comes with --text-from FILE"
    )
    return f"{text}. {skipped} more name a type that is not declared, or that was not taught" if skipped else text


def _forget(path: Path, *, as_json: bool) -> None:
    from tierwise.classifier.taught import TypesFolder

    folder = TypesFolder(path)
    stored = folder.read() if path.exists() else None
    had = stored is not None and stored.correction is not None
    if had:
        with folder.locked():
            stored = folder.read()
            if stored is not None:
                folder.write(replace(stored, correction=None, feedback=0))
    if as_json:
        echo_json({"forgotten": had, "folder": path})
    else:
        click.echo(f"forgotten: {path} has no correction any more" if had else f"{path} has no correction")


# ------------------------------------------------------------------ output


def _as_json(made: Corrected, against: tuple[str, ...], *, written: bool, skipped: int, path: Path) -> dict[str, Any]:
    return {
        "written": written,
        "refused_because": list(against),
        "folder": path,
        "trained_on": made.trained_on,
        "skipped": skipped,
        "feedback": {"before": _score(made.feedback_before), "after": _score(made.feedback_after)},
        "background": {"before": _score(made.background_before), "after": _score(made.background_after)},
    }


def _score(score: Score) -> dict[str, Any]:
    return {"texts": score.n, "right": score.top1, "sent_too_low": score.too_low}


def _show(made: Corrected, against: tuple[str, ...], *, written: bool, dry_run: bool, path: Path) -> None:
    numbers = ("texts", "right before", "after", "too low before", "then")
    drawn = table("held back", *numbers, right=numbers)
    for name, before, after in (
        ("feedback", made.feedback_before, made.feedback_after),
        ("other texts", made.background_before, made.background_after),
    ):
        drawn.add_row(name, *map(str, (before.n, before.top1, after.top1, before.too_low, after.too_low)))
    console().print(drawn)
    if against:
        click.echo(f"not used, nothing is written: {'; '.join(against)}", err=True)
    elif written:
        click.echo(f"learned from {made.trained_on} texts; kept in {path}. `tierwise train --forget` takes it back")
    elif dry_run:
        click.echo("it would be used; nothing is written (--dry-run)")
