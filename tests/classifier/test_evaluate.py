"""What the figures of an evaluation count, computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tierwise.classifier import load_taxonomy
from tierwise.classifier.evaluate import Evaluation, Labelled, evaluate
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import Alternative, Classification, Task

TYPES = load_taxonomy()


def said(name: str, confidence: float = 0.9, *alternatives: str, abstained: bool = False) -> Classification:
    others = tuple(Alternative(TYPES[other], 0.05) for other in alternatives)
    return Classification(TYPES[name], confidence, abstained, others)


class Scripted:
    """Answers what was written down for a text, and counts how often it is asked."""

    def __init__(self, answers: dict[str, Classification]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def classify(self, task: Task) -> Classification:
        self.asked.append(task.text)
        if task.text not in self.answers:
            raise InvalidTask("the task is empty; say in its text what to do")
        return self.answers[task.text]


def plain_tier(classification: Classification) -> int:
    """The best guess's own tier; at least judgment where it abstained."""
    level = classification.task_type.level
    return max(level, 2) if classification.abstained else level


def ticking(*steps: int) -> Callable[[], int]:
    """A clock on which the n-th text takes `steps[n]` nanoseconds, the last step for all after it."""

    def ticks() -> Iterator[int]:
        now = 0
        for index in count():
            yield now
            now += steps[min(index, len(steps) - 1)]
            yield now

    return ticks().__next__


def run(*rows: tuple[tuple[str, ...], Classification], keep: int = 0) -> Evaluation:
    """Evaluates rows of accepted types and what was said; the n-th text is `str(n)`."""
    labelled = [
        Labelled(task=Task(text=str(n)), accepted=tuple(TYPES[name] for name in accepted), where=f"line {n}")
        for n, (accepted, _) in enumerate(rows, start=1)
    ]
    classifier = Scripted({str(n): answer for n, (_, answer) in enumerate(rows, start=1)})
    return evaluate(labelled, classifier, plain_tier, clock_ns=ticking(1000), keep_mistakes=keep)


def test_types_and_families_are_counted() -> None:
    """Top-1 is the type, top-3 counts two alternatives and no third, family is the best guess's."""
    score = run(
        (("tagging",), said("tagging")),
        (("tagging",), said("sentiment_analysis", 0.5, "scoring", "tagging")),
        (("tagging",), said("summarization", 0.5, "scoring", "ranking", "tagging")),
        (("advice",), said("planning")),
    ).score
    assert (score.n, score.top1, score.top3, score.family) == (4, 1, 2, 3)
    assert (score.top1_share, score.top3_share, score.family_share) == (0.25, 0.5, 0.75)


@pytest.mark.parametrize(
    ("name", "level"),
    [("summarization", 0), ("scoring", 1), ("fact_checking", 2), ("advice", 2), ("legal_analysis", 3)],
)
def test_level_follows_the_needs(name: str, level: int) -> None:
    """Recoverable processing is local, other processing haiku, judgment sonnet whatever it is, critical opus."""
    assert TYPES[name].level == level


def test_tier_is_what_the_policy_makes_of_it() -> None:
    """Too low and too high compare the policy's level with the label's; an abstention counts as where it leads."""
    score = run(
        (("scoring",), said("ranking")),  # another type of the same tier
        (("scoring",), said("summarization")),  # local, needs haiku
        (("summarization",), said("summarization", abstained=True)),  # sonnet, needs local
        (("advice",), said("tagging", abstained=True)),  # sonnet, as needed
    ).score
    assert (score.tier, score.too_low, score.too_high) == (2, 1, 1)


@pytest.mark.parametrize(
    ("predicted", "tier", "too_low", "too_high"),
    [
        ("summarization", 0, 1, 0),  # local is below all
        ("scoring", 1, 0, 0),  # the lower of the accepted tiers
        ("advice", 0, 0, 1),  # between them: not too low, for the lower would do
        ("legal_analysis", 1, 0, 0),  # the higher
    ],
)
def test_several_accepted_types_favour_the_prediction(predicted: str, tier: int, too_low: int, too_high: int) -> None:
    """A tier is too low only where every accepted type needs a higher one; any accepted tier is right."""
    score = run((("scoring", "security_review"), said(predicted))).score
    assert (score.tier, score.too_low, score.too_high) == (tier, too_low, too_high)


def test_critical_counts_where_labels_agree() -> None:
    """Recall is over texts that can only be critical, false alarms over those that cannot; mixed ones are neither."""
    score = run(
        (("security_review",), said("security_review")),
        (("legal_analysis", "security_review"), said("production_change")),  # another critical type: found
        (("legal_analysis",), said("summarization")),
        (("legal_analysis",), said("legal_analysis", abstained=True)),  # the policy sends it to the top
        (("code_review",), said("security_review")),  # false alarm
        (("code_review",), said("code_review")),
        (("code_review", "security_review"), said("security_review")),
        (("code_review", "security_review"), said("code_review")),
    ).score
    assert (score.critical, score.critical_found, score.rest, score.false_alarms) == (4, 3, 2, 1)
    assert (score.critical_recall, score.false_alarm_share) == (0.75, 0.5)


def test_shares_of_nothing_are_unknown() -> None:
    """Where there is nothing to divide by there is no share, rather than a flattering or a damning one."""
    score = run((("tagging",), said("tagging", abstained=True))).score
    assert (score.critical_recall, score.answered_accuracy) == (None, None)
    assert (score.abstained_share, score.false_alarm_share) == (1.0, 0.0)


def test_abstentions_are_left_out_of_what_was_answered() -> None:
    """Accuracy where answered is over the texts that it did not abstain from."""
    score = run(
        (("tagging",), said("tagging")),
        (("tagging",), said("scoring")),
        (("tagging",), said("tagging", abstained=True)),
        (("tagging",), said("scoring", abstained=True)),
    ).score
    assert (score.abstained_share, score.answered_accuracy) == (0.5, 0.5)


def test_calibration_error_over_fifteen_bins() -> None:
    """ECE is the gap between confidence and frequency of each bin, weighted by its texts; 1.0 is in the last bin."""
    found = run(
        (("tagging",), said("tagging", 0.82)),  # 0.82 and 0.84 share bin 12: mean 0.83, half right: gap 0.33
        (("tagging",), said("scoring", 0.84)),
        (("tagging",), said("tagging", 1.0)),  # bin 14: gap 0
        (("tagging",), said("scoring", 0.2)),  # bin 3: gap 0.2
    )
    assert found.ece == pytest.approx((2 * 0.33 + 0.0 + 0.2) / 4)
    assert len(found.reliability) == 15
    filled = {round(b.low * 15): b for b in found.reliability if b.n}
    assert {index: b.n for index, b in filled.items()} == {3: 1, 12: 2, 14: 1}
    assert (filled[12].mean_confidence, filled[12].accuracy) == (pytest.approx(0.83), 0.5)
    assert found.reliability[0].accuracy is None


def test_risk_coverage_has_points_that_a_threshold_reaches() -> None:
    """From the surest texts to all; texts of the same confidence come in together."""
    found = run(
        (("tagging",), said("scoring", 0.3)),
        (("tagging",), said("tagging", 0.9)),
        (("tagging",), said("tagging", 0.6)),
        (("tagging",), said("scoring", 0.6)),
    )
    points = [(point.confidence, point.coverage, point.risk) for point in found.risk_coverage]
    assert points == [(0.9, 0.25, 0.0), (0.6, 0.75, pytest.approx(1 / 3)), (0.3, 1.0, 0.5)]


def test_risk_coverage_is_short_however_many_texts() -> None:
    """At most twenty points, the last one over all texts."""
    found = run(*((("tagging",), said("tagging", n / 100)) for n in range(100)))
    assert [round(point.coverage * 20) for point in found.risk_coverage] == list(range(1, 21))


def test_precision_and_recall_of_each_type() -> None:
    """Precision is over what was given a type, recall over what has it; an accepted prediction is its own label."""
    found = run(
        (("tagging",), said("tagging")),
        (("tagging",), said("scoring")),
        (("ranking", "scoring"), said("scoring")),
        (("ranking", "scoring"), said("advice")),
    )
    types = {
        row.task_type.name: (row.support, row.predicted, row.right, row.precision, row.recall) for row in found.types
    }
    assert types == {
        "tagging": (2, 1, 1, 1.0, 0.5),
        "ranking": (1, 0, 0, None, 0.0),
        "scoring": (1, 2, 1, 0.5, 1.0),
        "advice": (0, 1, 0, 0.0, None),
    }
    assert [row.task_type.name for row in found.types] == ["tagging", "ranking", "scoring", "advice"]
    assert {(c.label, c.predicted): c.n for c in found.type_confusion} == {
        ("tagging", "scoring"): 1,
        ("ranking", "advice"): 1,
    }
    assert {(c.label, c.predicted): c.n for c in found.family_confusion} == {
        ("classify", "classify"): 1,
        ("classify", "check"): 1,
        ("check", "check"): 1,
        ("check", "reason"): 1,
    }


def test_results_are_split_by_what_rows_say() -> None:
    """Form, language and hardness have a score each, the largest first; rows that do not say are in none."""
    rows = [
        Labelled(task=Task(text="a"), accepted=(TYPES["tagging"],), form="label", lang="en", hard=True),
        Labelled(task=Task(text="b"), accepted=(TYPES["tagging"],), form="prompt", lang="en", hard=False),
        Labelled(task=Task(text="a"), accepted=(TYPES["scoring"],), form="prompt"),
    ]
    classifier = Scripted({"a": said("tagging"), "b": said("scoring")})
    found = evaluate(rows, classifier, plain_tier, clock_ns=ticking(1000))
    assert [(form, score.n, score.top1) for form, score in found.by_form.items()] == [("prompt", 2, 0), ("label", 1, 1)]
    assert [(lang, score.n, score.top1) for lang, score in found.by_lang.items()] == [("en", 2, 1)]
    assert [(hard, score.n, score.top1) for hard, score in found.by_hard.items()] == [(False, 1, 0), (True, 1, 1)]


def test_timing_is_of_warm_texts() -> None:
    """The first text is classified once before, untimed; percentiles are times that were taken."""
    rows = [Labelled(task=Task(text=str(n)), accepted=(TYPES["tagging"],)) for n in range(100)]
    classifier = Scripted({str(n): said("tagging") for n in range(100)})
    found = evaluate(rows, classifier, plain_tier, clock_ns=ticking(*(1000 * n for n in range(1, 101))))
    assert classifier.asked[:3] == ["0", "0", "1"]
    assert len(classifier.asked) == 101
    assert (found.timing.n, found.timing.p50_us, found.timing.p99_us) == (100, 50.0, 99.0)
    assert found.timing.texts_per_second == pytest.approx(100 / (5050 * 1e-6))
    assert found.timing_short == found.timing


def test_long_texts_are_timed_apart() -> None:
    """The timing of short texts holds those of at most 2,000 characters; a clock that stands still gives no rate."""
    rows = [Labelled(task=Task(text="x" * size), accepted=(TYPES["tagging"],)) for size in (2000, 2001)]
    classifier = Scripted({"x" * size: said("tagging") for size in (2000, 2001)})
    found = evaluate(rows, classifier, plain_tier, clock_ns=ticking(1000, 9000))
    assert found.timing_short is not None
    assert (found.timing.n, found.timing_short.n, found.timing_short.p99_us) == (2, 1, 1.0)
    still = evaluate(rows[1:], classifier, plain_tier, clock_ns=lambda: 0)
    assert (still.timing_short, still.timing.texts_per_second) == (None, None)


def test_worst_mistakes_are_kept() -> None:
    """What was sent too low comes first, then the surest; no more than asked for, and nothing that is right."""
    rows = [
        (("tagging",), said("tagging", 0.99)),
        (("tagging",), said("advice", 0.97)),
        (("advice",), said("tagging", 0.3)),
        (("tagging",), said("scoring", 0.98)),
        (("advice",), said("tagging", 0.4)),
        (("tagging",), said("scoring", 0.1)),
    ]
    assert [mistake.row.where for mistake in run(*rows, keep=3).mistakes] == ["line 5", "line 3", "line 4"]
    kept = run(*rows, keep=99).mistakes
    assert [mistake.row.where for mistake in kept] == ["line 5", "line 3", "line 4", "line 2", "line 6"]
    assert [(mistake.level, mistake.needed_level, mistake.too_low) for mistake in kept[:3]] == [
        (0, 2, True),
        (0, 2, True),
        (1, 0, False),
    ]
    assert run(*rows).mistakes == ()


def test_rows_that_cannot_be_used_are_named() -> None:
    """A text that the classifier refuses is named by where it stands; no rows at all are an error too."""
    row = Labelled(task=Task(text=""), accepted=(TYPES["tagging"],), where="in.jsonl, line 7")
    with pytest.raises(InvalidTask, match=r"^in\.jsonl, line 7: the task is empty"):
        evaluate([row], Scripted({}), plain_tier, clock_ns=ticking(1))
    with pytest.raises(InvalidTask, match="no labelled texts"):
        evaluate([], Scripted({}), plain_tier, clock_ns=ticking(1))
    with pytest.raises(ValueError, match="at least one accepted type"):
        Labelled(task=Task(text="x"), accepted=())
