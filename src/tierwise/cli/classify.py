"""`tierwise classify`.

Reads what is there and answers it at once: whoever writes a line and waits for its answer gets it, and a file of
millions of lines goes through in large pieces (`tierwise.cli.lines`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.lines import Line, Progress, batches, open_lines, parse_object, pieces_of, task_fields
from tierwise.cli.options import settings_of, text_of
from tierwise.cli.output import json_option
from tierwise.core.errors import NoRouteError, TierwiseError

if TYPE_CHECKING:
    from tierwise.core.decisions import Decision
    from tierwise.core.tasks import Classification, Task

__all__ = ["command"]


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
        with open_lines(file_name) as stream:
            bad = _many(_Classifier(ctx), pieces_of(stream))
    else:
        if text is None and file_name is None and sys.stdin.isatty():
            raise click.UsageError("give a TEXT, or pipe JSON Lines in, or name a --file")
        bad = _many(_Classifier(ctx), pieces_of(sys.stdin.buffer))
    if bad:
        ctx.exit(2)


class _Classifier:
    """The configured task types, and the policy as it is shipped."""

    def __init__(self, ctx: click.Context) -> None:
        from tierwise.classifier import choose_classifier, load_taxonomy
        from tierwise.config import shipped_settings
        from tierwise.core.tasks import Task
        from tierwise.engine.planner import Planner
        from tierwise.prices import PriceBook

        own = settings_of(ctx)
        taxonomy = load_taxonomy().with_user_types(own.task_types)
        settings = shipped_settings()
        prices = PriceBook(settings.prices, settings.providers)
        self._planner = Planner(settings, choose_classifier(taxonomy, own.classifier, own.taught), prices)
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


def _many(classifier: _Classifier, pieces: Iterator[bytes]) -> int:
    """Answers every line; returns how many could not be used."""
    progress = Progress(beside_answers=True)
    bad = 0
    out = sys.stdout
    for batch in batches(pieces):
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


def _answer(classifier: _Classifier, line: Line) -> dict[str, Any]:
    given: dict[str, Any] = {}
    try:
        given = parse_object(line)
        answer = _as_json(*classifier.decide(classifier.task(**task_fields(given))))
    except TierwiseError as error:
        answer = {"error": f"line {line.number}: {error}", "line": line.number}
    return {"id": given["id"], **answer} if "id" in given else answer
