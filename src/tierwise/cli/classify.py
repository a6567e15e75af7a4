"""`tierwise classify`.

Reads what is there and answers it at once: whoever writes a line and waits for its answer gets it, and a file of
millions of lines goes through in large pieces. At most one piece and one line are in memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from tierwise.cli.options import MAX_TASK_BYTES, settings_of, text_of
from tierwise.cli.output import json_option
from tierwise.core.errors import InvalidTask, NoRouteError, TierwiseError

if TYPE_CHECKING:
    from tierwise.core.decisions import Decision
    from tierwise.core.tasks import Classification, Task

__all__ = ["command"]

_PIECE_BYTES = 1 << 16
_OPTIONAL = ("tool_name", "tool_input", "json_schema", "labels", "has_tools")


@click.command("classify")
@click.argument("text", required=False)
@click.option("--file", "file_name", metavar="FILE", help='Read JSON Lines {"text": …} from here; `-` is stdin.')
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, text: str | None, file_name: str | None, as_json: bool) -> None:
    """Say what texts ask for: task type, confidence, needs, tier.

    TEXT is one text. Without it, JSON Lines {"text": …} are read from stdin or FILE, and one line is written for
    each, in order, at once. A line may also hold tool_name, tool_input, json_schema, labels and has_tools, and an id,
    which comes back. The tier is what the shipped policy picks knowing nothing else, whatever is configured here. A
    line that cannot be used gives {"error": …, "line": N}, and exit code 2 at the end.
    """
    if text is not None and text != "-" and file_name is not None:
        raise click.UsageError("give a TEXT or --file, not both")
    if text is not None and text != "-":
        _one(_Classifier(ctx), text_of(text), as_json=as_json)
        return
    if file_name is not None and file_name != "-":
        try:
            stream: BinaryIO = open(file_name, "rb", buffering=0)  # noqa: PTH123, SIM115 closed below, as stdin is not
        except OSError as error:
            raise InvalidTask(f"cannot read {file_name}: {error.strerror or error}") from None
        with stream:
            bad = _many(_Classifier(ctx), _pieces_of(stream))
    else:
        if text is None and file_name is None and sys.stdin.isatty():
            raise click.UsageError("give a TEXT, or pipe JSON Lines in, or name a --file")
        bad = _many(_Classifier(ctx), _pieces_of(sys.stdin.buffer))
    if bad:
        ctx.exit(2)


class _Classifier:
    """The configured task types, and the policy as it is shipped."""

    def __init__(self, ctx: click.Context) -> None:
        from tierwise.classifier import RuleClassifier, load_taxonomy
        from tierwise.config import shipped_settings
        from tierwise.core.tasks import Task
        from tierwise.engine.planner import Planner
        from tierwise.prices import PriceBook

        own_types = settings_of(ctx).task_types
        settings = shipped_settings()
        prices = PriceBook(settings.prices, settings.providers)
        self._planner = Planner(settings, RuleClassifier(load_taxonomy().with_user_types(own_types)), prices)
        self._today = datetime.now(UTC).date()
        self._task = Task

    def task(self, **fields: Any) -> Task:
        return self._task(**fields)

    def decide(self, task: Task) -> tuple[Classification, Decision | None]:
        """What it is and where it goes; None where no model takes so long a text."""
        classification = self._planner.classify(task)
        try:
            return classification, self._planner.plan(task, self._today, classification=classification)
        except NoRouteError:
            return classification, None


def _as_json(classification: Classification, decision: Decision | None) -> dict[str, Any]:
    return {
        "task_type": classification.task_type.name,
        "family": classification.family,
        "confidence": round(classification.confidence, 4),
        "needs": classification.needs.value,
        "abstained": classification.abstained,
        "tier": None if decision is None else decision.tier.name,
        "alternatives": [
            {"task_type": other.task_type.name, "confidence": round(other.confidence, 4)}
            for other in classification.alternatives
        ],
    }


def _one(classifier: _Classifier, text: str, *, as_json: bool) -> None:
    classification, decision = classifier.decide(classifier.task(text=text))
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(_as_json(classification, decision)))
        return
    from tierwise.cli.output import console, table, tier_style

    drawn = table("task type", "family", "needs", "confidence", "tier", right=("confidence",))
    tier = "[dim]none takes so long a text[/]"
    if decision is not None:
        tier = f"[{tier_style(decision.tier.level)}]{decision.tier}[/]"
    drawn.add_row(
        f"[bold]{classification.task_type.name}[/]",
        classification.family,
        classification.needs.value,
        f"{classification.confidence:.0%}",
        tier,
    )
    for other in classification.alternatives:
        drawn.add_row(
            f"[dim]or {other.task_type.name}[/]",
            f"[dim]{other.task_type.family}[/]",
            f"[dim]{other.task_type.needs.value}[/]",
            f"[dim]{other.confidence:.0%}[/]",
            "",
        )
    out = console()
    out.print(drawn)
    if classification.abstained:
        out.print("Not sure enough: this is a best guess, and the tier is chosen as if it were harder.", style="yellow")


# ------------------------------------------------------------------ JSON Lines


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


@dataclass(slots=True)
class _Line:
    """A line without its end; None where it was too long to be kept."""

    number: int
    data: bytes | None


def _pieces_of(stream: BinaryIO) -> Iterator[bytes]:
    """What can be read now, up to a piece; waits only where there is nothing."""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    while piece := read(_PIECE_BYTES):
        yield piece


def _batches(pieces: Iterator[bytes]) -> Iterator[list[_Line]]:
    """The lines that each piece completes. The last one needs no line end."""
    number = 0
    rest: list[bytes] = []
    held = 0
    for piece in pieces:
        first, *others = piece.split(b"\n")
        held += len(first)
        if held <= MAX_TASK_BYTES:
            rest.append(first)
        else:
            rest.clear()
        if not others:
            continue
        whole = [b"".join(rest) if held <= MAX_TASK_BYTES else None, *others[:-1]]
        yield [_Line(number + index, data) for index, data in enumerate(whole, start=1)]
        number += len(whole)
        rest, held = [others[-1]], len(others[-1])
    if held:
        yield [_Line(number + 1, b"".join(rest) if held <= MAX_TASK_BYTES else None)]


def _many(classifier: _Classifier, pieces: Iterator[bytes]) -> int:
    """Answers every line; returns how many could not be used."""
    progress = _Progress()
    bad = 0
    out = sys.stdout
    for batch in _batches(pieces):
        for line in batch:
            answer = _answer(classifier, line)
            bad += "error" in answer
            out.write(json.dumps(answer) + "\n")
        out.flush()
        progress.show(batch[-1].number)
    progress.end()
    if bad:
        click.echo(f"{bad:,} line{'' if bad == 1 else 's'} could not be used; see their errors in the output", err=True)
    return bad


def _answer(classifier: _Classifier, line: _Line) -> dict[str, Any]:
    given: dict[str, Any] = {}
    try:
        given = _parse(line)
        answer = _as_json(*classifier.decide(classifier.task(**_fields(given))))
    except TierwiseError as error:
        answer = {"error": f"line {line.number}: {error}", "line": line.number}
    return {"id": given["id"], **answer} if "id" in given else answer


def _parse(line: _Line) -> dict[str, Any]:
    if line.data is None:
        raise InvalidTask(f"longer than {MAX_TASK_BYTES // 2**20} MB; cut it into pieces")
    text = line.data.decode("utf-8", "replace")
    if line.number == 1:
        text = text.removeprefix("\ufeff")
    if not text.strip():
        raise InvalidTask("empty; each line is a JSON object with a text")
    try:
        given = _DECODER.decode(text)
    except RecursionError:
        raise InvalidTask("JSON nested too deeply") from None
    except ValueError as error:
        raise InvalidTask(f'not JSON ({error}); each line is an object such as {{"text": "…"}}') from None
    if not isinstance(given, dict):
        raise InvalidTask(f'{_kind(given)}, not an object; each line is an object such as {{"text": "…"}}')
    return given


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    if "text" not in given:
        raise InvalidTask("no text; each line needs a text")
    fields = {"text": given["text"], **{name: given[name] for name in _OPTIONAL if given.get(name) is not None}}
    if not isinstance(fields["text"], str):
        raise InvalidTask(f"text is {_kind(fields['text'])}, not a string")
    if not isinstance(fields.get("tool_name", ""), str):
        raise InvalidTask(f"tool_name is {_kind(fields['tool_name'])}, not a string")
    if not isinstance(fields.get("json_schema", {}), dict):
        raise InvalidTask(f"json_schema is {_kind(fields['json_schema'])}, not an object")
    if not isinstance(fields.get("has_tools", False), bool):
        raise InvalidTask(f"has_tools is {_kind(fields['has_tools'])}, not true or false")
    labels = fields.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InvalidTask("labels is not a list of strings")
    fields["labels"] = tuple(labels)
    return fields


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )


class _Progress:
    """A count on stderr, where somebody looks at it and it takes over a second."""

    def __init__(self) -> None:
        # Answers on the same terminal are progress enough, and would be torn by a count.
        self._shown = sys.stderr.isatty() and not sys.stdout.isatty()
        self._began = self._next = time.monotonic() + 1.0
        self._any = False

    def show(self, count: int) -> None:
        if self._shown and (now := time.monotonic()) >= self._next:
            self._next = now + 0.2
            self._any = True
            with suppress(OSError):
                sys.stderr.write(f"\r{count:,} lines, {count / (now - self._began + 1.0):,.0f} a second")
                sys.stderr.flush()

    def end(self) -> None:
        if self._any:
            click.echo(err=True)
