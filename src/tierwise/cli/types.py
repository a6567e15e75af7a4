"""`tierwise types`: task types of the user's own, learned from a dozen examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import read_stdin, settings_of
from tierwise.cli.output import console, echo_json, json_option, literal, table
from tierwise.core.errors import ConfigError, InvalidTask

if TYPE_CHECKING:
    from tierwise.classifier.learning import Quality
    from tierwise.core.settings import Settings
    from tierwise.core.tasks import TaskType

__all__ = ["command"]

_GOOD_RECALL = 0.7
_FEW_FALSE_ALARMS = 0.01
_NEAR_TEXTS = 3  # of the twelve that the background has of each type
_ENOUGH_EXAMPLES = 12


@click.group("types")
def command() -> None:
    """Teach the classifier task types of your own, from a dozen examples.

    A type is declared in your tierwise.toml, and what was learned is in the folder tierwise.types beside it. The
    shipped classifier is not trained again, so this takes seconds. Every subcommand takes --json.
    """


# ------------------------------------------------------------------ add


@command.command("add")
@click.argument("name")
@click.option(
    "--examples", "file_name", required=True, metavar="FILE", help="One text a line, or JSON Lines; `-` is stdin."
)
@click.option("--family", help="The family it belongs to.  [default: own]")
@click.option(
    "--needs",
    type=click.Choice(["processing", "judgment", "critical"]),
    help="What it asks of a model.  [default: judgment]",
)
@click.option(
    "--recoverable/--not-recoverable",
    default=None,
    help="Whether a wrong answer is cheap to notice and retry.  [default: not]",
)
@click.option("--description", metavar="TEXT", help="What it is, in a few words.")
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    /,
    *,
    name: str,
    file_name: str,
    family: str | None,
    needs: str | None,
    recoverable: bool | None,
    description: str | None,
    as_json: bool,
) -> None:
    """Learn a type from examples of it.

    FILE has one text a line, or JSON Lines with a "text" each: what people or programs really send when they want this,
    as different from each other as possible. At least 5; a dozen or more are much better. Given again, the new
    examples replace the old ones. Says how well the type is recognised on examples that were held back, and how often
    other texts are taken for it.
    """
    from tierwise.classifier.taught import TypesFolder, parse_examples, relearn, untaught_classifier
    from tierwise.config.edit import declared_types, replace_file, with_task_type
    from tierwise.core.tasks import Needs, TaskType

    settings = settings_of(ctx)
    _check_name(name)
    given = {"family": family, "needs": needs, "recoverable": recoverable, "description": description}
    examples = parse_examples(_read(file_name), "stdin" if file_name == "-" else file_name)
    declared = next((known for known in settings.task_types if known.name == name), None)
    path = _declared_in(settings, name) if declared else _file(settings)
    if declared and any(value is not None for value in given.values()):
        raise ConfigError(f"{name} is declared in {path} already; change it there, and give only --examples")
    task_type = declared or TaskType(
        name, family or "own", Needs(needs or "judgment"), bool(recoverable), description or ""
    )
    folder = TypesFolder(path.parent / "tierwise.types")
    with folder.locked():
        text = _toml(path)  # as it is now: another `types add` may have been first
        edited = text if name in declared_types(text) else with_task_type(text, task_type, path)
        names = {*declared_types(edited), *(known.name for known in settings.task_types)}
        stored = relearn(folder, names, untaught_classifier(), {name: examples})
        folder.keep_examples(name, examples)
        folder.write(stored)
        if edited != text:
            replace_file(path, edited)
    quality = stored.fits[name].quality
    warnings = _warnings(quality)
    if settings.classifier != "trained":
        warnings.append('this configuration uses the rules, which cannot be taught: set classifier = "trained"')
    if as_json:
        echo_json({**_as_json(task_type, quality, path), "duplicates": examples.duplicates, "warnings": warnings})
        return
    dropped = f" ({examples.duplicates} duplicates left out)" if examples.duplicates else ""
    click.echo(f"learned {name} from {quality.examples} examples{dropped}; it is declared in {path}")
    click.echo(f"recognised when held back: {quality.recall:.0%} of its examples")
    click.echo(f"taken for it: {quality.false_alarms:.1%} of texts of other types")
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _check_name(name: str) -> None:
    import re

    from tierwise.classifier import load_taxonomy

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name):
        raise InvalidTask(
            f"{name!r} is no name for a task type; use small letters, digits and _, as in invoice_coding (at most 48)"
        )
    if name in load_taxonomy():
        raise InvalidTask(f"{name} is a built-in task type; give yours another name")


def _read(file_name: str) -> bytes:
    if file_name == "-":
        return read_stdin().encode("utf-8", "surrogatepass")
    try:
        with Path(file_name).open("rb") as file:
            return file.read(16 * 1024 * 1024)  # more than is taken: a device has no size
    except (OSError, ValueError) as error:
        raise InvalidTask(f"cannot read {file_name}: {getattr(error, 'strerror', None) or error}") from None


def _file(settings: Settings) -> Path:
    """The file that a type is declared in: the one that goes over the others."""
    if not settings.sources:
        raise ConfigError("there is no tierwise.toml to declare a type in; create one with `tierwise init`")
    return settings.sources[-1]


def _declared_in(settings: Settings, name: str) -> Path:
    from tierwise.config.edit import declared_types

    for path in reversed(settings.sources):
        if name in declared_types(_toml(path)):
            return path
    own = ", ".join(known.name for known in settings.task_types) or "none"
    raise ConfigError(f"{name!r} is no task type of your own; these are: {own}")


def _toml(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _warnings(quality: Quality) -> list[str]:
    found: list[str] = []
    if quality.examples < _ENOUGH_EXAMPLES:
        found.append(f"{quality.examples} examples are few: the figures are rough; a dozen or more are much better")
    if quality.recall < _GOOD_RECALL:
        found.append(
            f"only {quality.recall:.0%} of the examples are recognised when held back: they are too few, or too "
            "different from each other to be one type; add more, or make two types of them"
        )
    for name, count in quality.resembles[:1]:
        if count > quality.examples / 2:
            found.append(
                f"the classifier takes {count} of the {quality.examples} examples for {name} already: if that is what "
                "they are, no type of your own is needed"
            )
    near = [f"{name} ({count})" for name, count in quality.near if count >= _NEAR_TEXTS]
    if near:
        found.append(f"it is close to {', '.join(near)}: texts of theirs may be taken for it; add examples that differ")
    elif quality.false_alarms > _FEW_FALSE_ALARMS:
        found.append(
            f"{quality.false_alarms:.1%} of other texts are taken for it; add examples that say more of what it is"
        )
    return found


# ------------------------------------------------------------------ list


@command.command("list")
@json_option
@click.pass_context
def list_types(ctx: click.Context, /, *, as_json: bool) -> None:
    """Show your own types, and how well each is recognised."""
    from tierwise.classifier.taught import TypesFolder

    settings = settings_of(ctx)
    known: dict[str, tuple[Quality, Path]] = {}
    for folder in settings.taught:
        stored = TypesFolder(folder).read()
        if stored is not None:
            known |= {name: (fit.quality, folder) for name, fit in stored.fits.items()}
    rows = [
        (task_type, known[task_type.name][0] if task_type.name in known else None) for task_type in settings.task_types
    ]
    if as_json:
        echo_json({"types": [_as_json(t, quality, _declared_in(settings, t.name)) for t, quality in rows]})
        return
    if not rows:
        click.echo("no task types of your own; `tierwise types add NAME --examples FILE` teaches one")
        return
    numbers = ("examples", "recognised", "false alarms")
    drawn = table("task type", "family", "needs", *numbers, right=numbers)
    for task_type, quality in rows:
        cells = ("–", "not taught", "–")
        if quality is not None:
            cells = (str(quality.examples), f"{quality.recall:.0%}", f"{quality.false_alarms:.1%}")
        drawn.add_row(literal(task_type.name), literal(task_type.family), _needs(task_type), *cells)
    console().print(drawn)


def _needs(task_type: TaskType) -> str:
    return task_type.needs.value + ("" if task_type.recoverable else ", right the first time")


def _as_json(task_type: TaskType, quality: Quality | None, path: Path) -> dict[str, Any]:
    return {
        "name": task_type.name,
        "family": task_type.family,
        "needs": task_type.needs.value,
        "recoverable": task_type.recoverable,
        "description": task_type.description,
        "declared_in": path,
        "examples": None if quality is None else quality.examples,
        "recognised": None if quality is None else round(quality.recall, 4),
        "false_alarms": None if quality is None else round(quality.false_alarms, 4),
        "near": _counts(() if quality is None else quality.near),
        "resembles": _counts(() if quality is None else quality.resembles),
    }


def _counts(pairs: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
    return [{"task_type": name, "texts": count} for name, count in pairs]


# ------------------------------------------------------------------ remove, relearn


@command.command("remove")
@click.argument("name")
@json_option
@click.pass_context
def remove(ctx: click.Context, /, *, name: str, as_json: bool) -> None:
    """Forget a type of your own: its declaration, its examples and what was learned."""
    from tierwise.classifier.taught import TypesFolder, relearn, untaught_classifier
    from tierwise.config.edit import declared_types, replace_file, without_task_type

    settings = settings_of(ctx)
    path = _declared_in(settings, name)
    folder = TypesFolder(path.parent / "tierwise.types")
    with folder.locked():
        edited = without_task_type(_toml(path), name, path)
        names = {*declared_types(edited), *(known.name for known in settings.task_types)} - {name}
        stored = relearn(folder, names, untaught_classifier()) if name in folder.names() else None
        replace_file(path, edited)
        folder.drop_examples(name)
        if stored is not None:
            folder.write(stored)
    if as_json:
        echo_json({"removed": name, "declared_in": path})
    else:
        click.echo(f"removed {name} from {path}; where overrides or policy.output_tokens name it, change that")


@command.command("relearn")
@json_option
@click.pass_context
def relearn_all(ctx: click.Context, /, *, as_json: bool) -> None:
    """Learn all your types again from their examples.

    After an upgrade that brought another classifier, after a folder was damaged, or after examples were edited by hand.
    A correction of `tierwise train` is kept where the classifier is the same, and otherwise has to be trained again.
    """
    from tierwise.classifier.taught import TypesFolder, relearn, untaught_classifier

    settings = settings_of(ctx)
    learned: dict[str, Quality] = {}
    lost = False
    for path in settings.taught:
        folder = TypesFolder(path)
        if not folder.names() and not (path / "manifest.json").exists():
            continue
        with folder.locked():
            stored = relearn(folder, (known.name for known in settings.task_types), untaught_classifier())
            lost = lost or (_had_correction(path) and stored.correction is None)
            folder.write(stored)
        learned |= {name: fit.quality for name, fit in stored.fits.items()}
    if as_json:
        echo_json({"relearned": sorted(learned), "correction_lost": lost})
        return
    click.echo(f"learned again: {', '.join(sorted(learned))}" if learned else "there is nothing to learn again")
    if lost:
        click.echo("the correction of `tierwise train` was for another classifier and is gone; train again", err=True)


def _had_correction(path: Path) -> bool:
    """Whether a manifest, damaged or not, speaks of a correction."""
    try:
        return b'"correction": {' in (path / "manifest.json").read_bytes()
    except OSError:
        return False
