"""`tierwise eval`: how good the product's own judgement is, on data that the user has."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.lines import Line, Progress, batches, kind, open_lines, parse_object, pieces_of, task_fields
from tierwise.cli.options import settings_of
from tierwise.cli.output import console, echo_json, json_option, literal, table, tier_style
from tierwise.core.errors import InvalidTask, UnknownTaskType

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tierwise.classifier.evaluate import Evaluation, Labelled, Mistake, Score, Timing
    from tierwise.classifier.taxonomy import Taxonomy
    from tierwise.core.catalog import Tier

__all__ = ["command"]

_TEXT_CHARS = 120  # of a mistaken text, as shown
_CONFUSIONS = 8


@click.group("eval")
def command() -> None:
    """Measure how good the classifier is on your own labelled data.

    Every subcommand takes --json.
    """


@command.command("classify")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--errors", type=click.IntRange(min=0), default=0, metavar="N", help="Show the N worst mistakes.")
@click.option(
    "--classifier",
    type=click.Choice(["trained", "rules"]),
    default=None,
    help="Measure this one; the configured one otherwise.",
)
@click.option("--types", "by_type", is_flag=True, help="Show precision and recall of every task type.")
@json_option
@click.pass_context
def classify(
    ctx: click.Context,
    /,
    *,
    files: tuple[str, ...],
    errors: int,
    classifier: str | None,
    by_type: bool,
    as_json: bool,
) -> None:
    """Classify labelled texts and say how often that is right.

    FILE has JSON Lines such as {"text": …, "type": …}, or "accepted", a list of types, in place of "type"; `-` is
    stdin. Optional keys: form, lang (texts) and hard (true or false), by which the figures are then split, and those
    that `tierwise classify` takes. The tier is the one that the shipped policy picks for a short text; it is right
    where it is the one that the label needs: local, haiku, sonnet or opus. Nothing is sent.
    """
    from tierwise.classifier import choose_classifier, load_taxonomy
    from tierwise.classifier.evaluate import evaluate
    from tierwise.config import shipped_settings
    from tierwise.policy import level_by_tree

    own = settings_of(ctx)
    taxonomy = load_taxonomy().with_user_types(own.task_types)
    shipped = shipped_settings()
    found = evaluate(
        _rows(files, taxonomy),
        choose_classifier(taxonomy, classifier or own.classifier, own.taught),
        level_by_tree(shipped),
        clock_ns=time.perf_counter_ns,
        keep_mistakes=errors,
    )
    tiers = [spec.tier for spec in shipped.catalog]
    if as_json:
        echo_json(_as_json(found, tiers))
        return
    _show(console(), found, tiers, by_type=by_type)


# ------------------------------------------------------------------ rows


def _rows(files: Sequence[str], taxonomy: Taxonomy) -> Iterator[Labelled]:
    progress = Progress(beside_answers=False)
    count = 0
    for name in files:
        for line in _lines(name):
            if line.data is not None and not line.data.strip():
                continue
            where = f"{'stdin' if name == '-' else name}, line {line.number}"
            try:
                yield _row(line, taxonomy, where)
            except InvalidTask as error:
                raise InvalidTask(f"{where}: {error}") from None
            except UnknownTaskType as error:
                raise UnknownTaskType(f"{where}: {error}") from None
            count += 1
            progress.show(count)
    progress.end()


def _lines(name: str) -> Iterator[Line]:
    if name == "-":
        for batch in batches(pieces_of(sys.stdin.buffer)):
            yield from batch
        return
    with open_lines(name) as stream:
        for batch in batches(pieces_of(stream)):
            yield from batch


def _row(line: Line, taxonomy: Taxonomy, where: str) -> Labelled:
    from tierwise.classifier.evaluate import Labelled
    from tierwise.core.tasks import Task

    given = parse_object(line)
    names = given.get("accepted")
    if names is None:
        if given.get("type") is None:
            raise InvalidTask('no label; each line needs a "type", or a list of types as "accepted"')
        names = [given["type"]]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InvalidTask("the label is no task type; give its name as type, or a list of names as accepted")
    for key in ("form", "lang"):
        if not isinstance(given.get(key), str | None):
            raise InvalidTask(f"{key} is {kind(given[key])}, not a string")
    if not isinstance(given.get("hard"), bool | None):
        raise InvalidTask(f"hard is {kind(given['hard'])}, not true or false")
    return Labelled(
        task=Task(**task_fields(given)),
        accepted=tuple(taxonomy[name] for name in dict.fromkeys(names)),
        form=given.get("form"),
        lang=given.get("lang"),
        hard=given.get("hard"),
        where=where,
    )


# ------------------------------------------------------------------ JSON


def _as_json(found: Evaluation, tiers: Sequence[Tier]) -> dict[str, Any]:
    return {
        **_score_json(found.score),
        "ece": round(found.ece, 4),
        "timing": _timing_json(found.timing),
        "timing_short": None if found.timing_short is None else _timing_json(found.timing_short),
        "by_form": [{"form": form, **_score_json(score)} for form, score in found.by_form.items()],
        "by_lang": [{"lang": lang, **_score_json(score)} for lang, score in found.by_lang.items()],
        "by_hard": [{"hard": hard, **_score_json(score)} for hard, score in found.by_hard.items()],
        "types": [
            {
                "task_type": row.task_type.name,
                "family": row.task_type.family,
                "support": row.support,
                "predicted": row.predicted,
                "right": row.right,
                "precision": _rounded(row.precision),
                "recall": _rounded(row.recall),
            }
            for row in found.types
        ],
        "type_confusion": found.type_confusion,
        "family_confusion": found.family_confusion,
        "reliability": [
            {
                "low": round(row.low, 4),
                "high": round(row.high, 4),
                "n": row.n,
                "mean_confidence": _rounded(row.mean_confidence),
                "accuracy": _rounded(row.accuracy),
            }
            for row in found.reliability
        ],
        "risk_coverage": [
            {
                "confidence": round(point.confidence, 4),
                "coverage": round(point.coverage, 4),
                "risk": round(point.risk, 4),
            }
            for point in found.risk_coverage
        ],
        "errors": [
            {
                "where": mistake.row.where,
                "accepted": [task_type.name for task_type in mistake.row.accepted],
                "predicted": mistake.said.task_type.name,
                "confidence": round(mistake.said.confidence, 4),
                "abstained": mistake.said.abstained,
                "tier": tiers[mistake.level].name,
                "needed_tier": tiers[mistake.needed_level].name,
                "text": _beginning(mistake),
            }
            for mistake in found.mistakes
        ],
    }


def _score_json(score: Score) -> dict[str, Any]:
    return {
        "texts": score.n,
        "top1": _rounded(score.top1_share),
        "top3": _rounded(score.top3_share),
        "family_accuracy": _rounded(score.family_share),
        "tier_accuracy": _rounded(score.tier_share),
        "sent_too_low": _rounded(score.too_low_share),
        "sent_too_high": _rounded(score.too_high_share),
        "critical_texts": score.critical,
        "critical_recall": _rounded(score.critical_recall),
        "not_critical_texts": score.rest,
        "critical_false_alarms": _rounded(score.false_alarm_share),
        "abstained": _rounded(score.abstained_share),
        "answered_accuracy": _rounded(score.answered_accuracy),
    }


def _timing_json(timing: Timing) -> dict[str, Any]:
    return {
        "texts": timing.n,
        "p50_us": round(timing.p50_us, 1),
        "p99_us": round(timing.p99_us, 1),
        "texts_per_second": None if timing.texts_per_second is None else round(timing.texts_per_second),
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _beginning(mistake: Mistake) -> str:
    text = " ".join(mistake.row.task.text[: 4 * _TEXT_CHARS].split())
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 1] + "…"


# ------------------------------------------------------------------ tables


def _show(out: Console, found: Evaluation, tiers: Sequence[Tier], *, by_type: bool) -> None:
    out.print(_summary(found))
    slices: list[tuple[str, Score]] = [
        *((f"form {form}", score) for form, score in found.by_form.items()),
        *((f"lang {lang}", score) for lang, score in found.by_lang.items()),
        *(("hard" if hard else "not hard", score) for hard, score in found.by_hard.items()),
    ]
    if slices:
        out.print(_slices(slices))
    if by_type:
        out.print(_types(found))
    mixed = [pair for pair in found.family_confusion if pair.label != pair.predicted]
    if mixed:
        drawn = table("family", "taken for", "texts", right=("texts",))
        for pair in mixed[:_CONFUSIONS]:
            drawn.add_row(literal(pair.label), literal(pair.predicted), f"{pair.n:,}")
        out.print(drawn)
    if found.mistakes:
        out.print(_errors(found, tiers))


def _summary(found: Evaluation) -> Table:
    score, timing, short = found.score, found.timing, found.timing_short
    drawn = table("measure", "result", "what it counts", right=("result",))
    drawn.add_row("texts", f"{score.n:,}", "")
    for name, share, what in (
        ("top-1", score.top1_share, "the type is right"),
        ("top-3", score.top3_share, "it is among the first three"),
        ("family", score.family_share, "the family is right"),
        ("tier", score.tier_share, "sent to the tier that the type needs; abstentions count as the policy sends them"),
        ("sent too low", score.too_low_share, "to a weaker tier than that"),
        ("sent too high", score.too_high_share, "to a dearer tier than that"),
        ("critical recall", score.critical_recall, f"of {score.critical:,} critical texts, sent to the top tier"),
        ("false alarms", score.false_alarm_share, f"of the {score.rest:,} that are not, sent there too"),
        ("abstained", score.abstained_share, "not sure enough to answer"),
        ("right where answered", score.answered_accuracy, "of the others, the type is right"),
    ):
        drawn.add_row(name, _percent(share), what)
    drawn.add_row("ECE", f"{found.ece:.3f}", f"confidence against frequency, {len(found.reliability)} bins")
    drawn.add_section()
    if short is not None and short.n < timing.n:
        drawn.add_row("p50, short", f"{short.p50_us:,.0f} µs", f"the {short.n:,} texts of at most 2,000 characters")
        drawn.add_row("p99, short", f"{short.p99_us:,.0f} µs", "")
    drawn.add_row("p50", f"{timing.p50_us:,.0f} µs", "one text at a time, warm, in this process")
    drawn.add_row("p99", f"{timing.p99_us:,.0f} µs", "")
    rate = "–" if timing.texts_per_second is None else f"{timing.texts_per_second:,.0f}"
    drawn.add_row("texts a second", rate, "")
    return drawn


def _slices(slices: Sequence[tuple[str, Score]]) -> Table:
    numbers = ("texts", "top-1", "family", "tier", "too low", "abstained")
    drawn = table("where", *numbers, right=numbers)
    for name, score in slices:
        shares = (score.top1_share, score.family_share, score.tier_share, score.too_low_share, score.abstained_share)
        drawn.add_row(literal(name), f"{score.n:,}", *(_percent(share) for share in shares))
    return drawn


def _types(found: Evaluation) -> Table:
    numbers = ("texts", "precision", "recall")
    drawn = table("task type", *numbers, right=numbers)
    for row in found.types:
        drawn.add_row(
            literal(row.task_type.name),
            f"{row.support:,}",
            _percent(row.precision),
            _percent(row.recall),
        )
    return drawn


def _errors(found: Evaluation, tiers: Sequence[Tier]) -> Table:
    drawn = table("where", "label", "said", "sure", "tier", "text", right=("sure",))
    for mistake in found.mistakes:
        tier = tiers[mistake.level]
        drawn.add_row(
            literal(mistake.row.where),
            literal("/".join(task_type.name for task_type in mistake.row.accepted)),
            literal(mistake.said.task_type.name) + (" [dim](abstained)[/]" if mistake.said.abstained else ""),
            f"{mistake.said.confidence:.0%}",
            f"[{tier_style(tier.level)}]{literal(tier.name)}[/]" + (" [red]too low[/]" if mistake.too_low else ""),
            literal("".join(sign if sign.isprintable() else "�" for sign in _beginning(mistake))),
        )
    return drawn


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}".replace("%", " %")
