"""How good a classifier is on labelled texts: the figures behind `tierwise eval classify` and the report card.

Pure: the classifier, the policy (as a callable) and the clock are arguments. One pass over the rows; of each text only
a few numbers are kept, and the text itself only of the worst mistakes.

A text may have several accepted types. What is counted then favours the prediction:

- type and family are right where any accepted one is met;
- the tier is right where it is that of any accepted type; it is too low only where all of them need a higher one, and
  otherwise too high;
- a text counts as critical only where all its accepted types are, and as one of the rest only where none is;
- in counts by type and family, its label is the predicted one where that is accepted, otherwise the first accepted.

Top-1, top-3, family and calibration take the best guess even where the classifier abstained; the tier is what the
policy makes of it, abstentions included.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tierwise.classifier.base import Classifier
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import TOP_LEVEL, Classification, Needs, Task, TaskType

__all__ = [
    "Bin",
    "Confusion",
    "CoveragePoint",
    "Evaluation",
    "Labelled",
    "Mistake",
    "Score",
    "Timing",
    "TypeScore",
    "evaluate",
]

SHORT_CHARS = 2_000
_BINS = 15
_COVERAGES = 20  # points of the risk–coverage curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A task and the types that are right for it, at least one, best first. `where` names the row in errors."""

    task: Task
    accepted: tuple[TaskType, ...]
    form: str | None = None
    lang: str | None = None
    hard: bool | None = None
    where: str = ""

    def __post_init__(self) -> None:
        if not self.accepted:
            raise ValueError("a labelled text needs at least one accepted type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Counts over some texts; the shares, 0..1, are properties and None where there is nothing to divide by."""

    n: int = 0
    top1: int = 0
    top3: int = 0  # the type or one of its two best alternatives is accepted
    family: int = 0
    tier: int = 0
    too_low: int = 0  # sent to a tier below the one that is needed
    too_high: int = 0
    abstained: int = 0
    answered_right: int = 0  # did not abstain, and the type is accepted
    critical: int = 0  # texts whose accepted types are all critical
    critical_found: int = 0  # of these, sent to the top tier
    rest: int = 0  # texts none of whose accepted types is critical
    false_alarms: int = 0  # of these, sent to the top tier

    @property
    def top1_share(self) -> float | None:
        """Right at the first guess."""
        return _share(self.top1, self.n)

    @property
    def top3_share(self) -> float | None:
        """Right within the first three guesses."""
        return _share(self.top3, self.n)

    @property
    def family_share(self) -> float | None:
        """Right family."""
        return _share(self.family, self.n)

    @property
    def tier_share(self) -> float | None:
        """Sent to the tier that the task type's needs give."""
        return _share(self.tier, self.n)

    @property
    def too_low_share(self) -> float | None:
        """Sent to too weak a tier."""
        return _share(self.too_low, self.n)

    @property
    def too_high_share(self) -> float | None:
        """Sent to a dearer tier than needed."""
        return _share(self.too_high, self.n)

    @property
    def abstained_share(self) -> float | None:
        """Not answered."""
        return _share(self.abstained, self.n)

    @property
    def answered_accuracy(self) -> float | None:
        """Right type, of what was answered."""
        return _share(self.answered_right, self.n - self.abstained)

    @property
    def critical_recall(self) -> float | None:
        """Critical texts that got to the top tier."""
        return _share(self.critical_found, self.critical)

    @property
    def false_alarm_share(self) -> float | None:
        """Of the texts that are not critical, those sent to the top tier."""
        return _share(self.false_alarms, self.rest)


@dataclass(frozen=True, slots=True)
class Bin:
    """Texts with a confidence of `low` ≤ c < `high` (in the last bin 1.0 too); the means are None where it is empty."""

    low: float
    high: float
    n: int
    mean_confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """Where only texts at least `confidence` sure are answered: which share that is, and how much of it is wrong."""

    confidence: float
    coverage: float
    risk: float


@dataclass(frozen=True, slots=True)
class TypeScore:
    """One task type: `support` texts have it as their label, `predicted` were given it, `right` both."""

    task_type: TaskType
    support: int
    predicted: int
    right: int

    @property
    def precision(self) -> float | None:
        """Of the texts that were given this type, those that have it; None where there are none."""
        return _share(self.right, self.predicted)

    @property
    def recall(self) -> float | None:
        """Of the texts that have this type, those that were given it; None where there are none."""
        return _share(self.right, self.support)


@dataclass(frozen=True, slots=True)
class Confusion:
    """`n` texts that are `label` were said to be `predicted`."""

    label: str
    predicted: str
    n: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """A text whose type was not found, or that was sent too low. Levels are those of the tiers, 0 the cheapest."""

    row: Labelled
    said: Classification
    level: int
    needed_level: int

    @property
    def too_low(self) -> bool:
        """It was sent to too weak a tier."""
        return self.level < self.needed_level


@dataclass(frozen=True, slots=True)
class Timing:
    """How long `n` single classifications took, warm, in the calling process."""

    n: int
    p50_us: float
    p99_us: float
    texts_per_second: float | None  # None where the clock saw no time pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything found. Slices and confusions hold only what occurs, in the order of the taxonomy or of the rows."""

    score: Score
    ece: float  # expected calibration error, 0..1
    reliability: tuple[Bin, ...]
    risk_coverage: tuple[CoveragePoint, ...]  # from the surest texts to all
    types: tuple[TypeScore, ...]  # the most frequent label first
    type_confusion: tuple[Confusion, ...]  # only what is wrong, the most frequent first
    family_confusion: tuple[Confusion, ...]  # what is right too, the most frequent first
    by_form: Mapping[str, Score]
    by_lang: Mapping[str, Score]
    by_hard: Mapping[bool, Score]
    timing: Timing
    timing_short: Timing | None  # texts of at most `SHORT_CHARS` characters; None where there are none
    mistakes: tuple[Mistake, ...]  # the worst: sent too low first, then the surest


def evaluate(
    rows: Iterable[Labelled],
    classifier: Classifier,
    tier_of: Callable[[Classification], int],
    *,
    clock_ns: Callable[[], int],
    keep_mistakes: int = 0,
) -> Evaluation:
    """Classifies every row and counts.

    Args:
        rows: the labelled texts; read once, one at a time.
        classifier: what is judged.
        tier_of: the level, 0 the cheapest to 3 the top, that the policy sends a classification to.
        clock_ns: a monotonic clock in nanoseconds, read before and after each text. The first text is classified once
            before, untimed, so that lazy loading is not counted.
        keep_mistakes: how many of the worst mistakes come back.

    Raises:
        InvalidTask: there are no rows, or one holds nothing to classify (the message names it).
    """
    tally = _Tally(keep_mistakes)
    nanos, short = array("q"), array("q")
    for row in rows:
        try:
            if not nanos:
                classifier.classify(row.task)
            began = clock_ns()
            said = classifier.classify(row.task)
            took = clock_ns() - began
        except InvalidTask as error:
            raise InvalidTask(f"{row.where}: {error}" if row.where else str(error)) from None
        nanos.append(took)
        if len(row.task.text) <= SHORT_CHARS:
            short.append(took)
        tally.add(row, said, tier_of(said))
    if not nanos:
        raise InvalidTask("no labelled texts; each line is an object with a text and a type")
    return tally.result(_timing(nanos), _timing(short) if short else None)


# ------------------------------------------------------------------ counting


class _Tally:
    """What is counted while the rows go by."""

    def __init__(self, keep_mistakes: int) -> None:
        self._keep = keep_mistakes
        self._counts: Counter[str] = Counter()
        self._slices: dict[str, dict[str | bool, Counter[str]]] = {"form": {}, "lang": {}, "hard": {}}
        self._confidences = array("d")
        self._rights = bytearray()
        self._types: dict[str, TaskType] = {}
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._families: Counter[tuple[str, str]] = Counter()
        self._mistakes: list[tuple[bool, float, int, Mistake]] = []

    def add(self, row: Labelled, said: Classification, level: int) -> None:
        accepted, predicted = row.accepted, said.task_type
        right = predicted in accepted
        label = predicted if right else accepted[0]
        families = [task_type.family for task_type in accepted]
        family_right = predicted.family in families
        levels = [task_type.level for task_type in accepted]
        needed = max((wanted for wanted in levels if wanted <= level), default=min(levels))
        critical = [task_type.needs is Needs.CRITICAL for task_type in accepted]
        found = {
            "n": True,
            "top1": right,
            "top3": right or any(a.task_type in accepted for a in said.alternatives[:2]),
            "family": family_right,
            "tier": level == needed,
            "too_low": level < needed,
            "too_high": level > needed,
            "abstained": said.abstained,
            "answered_right": right and not said.abstained,
            "critical": all(critical),
            "critical_found": all(critical) and level >= TOP_LEVEL,
            "rest": not any(critical),
            "false_alarms": not any(critical) and level >= TOP_LEVEL,
        }
        ones = [name for name, holds in found.items() if holds]
        self._counts.update(ones)
        for name, value in (("form", row.form), ("lang", row.lang), ("hard", row.hard)):
            if value is not None:
                self._slices[name].setdefault(value, Counter()).update(ones)
        for task_type in (label, predicted):
            self._types[task_type.name] = task_type
        self._pairs[label.name, predicted.name] += 1
        self._families[predicted.family if family_right else families[0], predicted.family] += 1
        self._confidences.append(said.confidence)
        self._rights.append(right)
        if self._keep and (level < needed or not right):
            # The index makes every entry different, so that the mistakes themselves are never compared.
            entry = (level < needed, said.confidence, -len(self._rights), Mistake(row, said, level, needed))
            if len(self._mistakes) < self._keep:
                heapq.heappush(self._mistakes, entry)
            else:
                heapq.heappushpop(self._mistakes, entry)

    def result(self, timing: Timing, timing_short: Timing | None) -> Evaluation:
        reliability = _reliability(self._confidences, self._rights)
        n = len(self._rights)
        gaps = (b.n * abs((b.mean_confidence or 0.0) - (b.accuracy or 0.0)) for b in reliability)
        return Evaluation(
            score=Score(**self._counts),
            ece=sum(gaps) / n,
            reliability=reliability,
            risk_coverage=_risk_coverage(self._confidences, self._rights),
            types=self._type_scores(),
            type_confusion=_confusions({pair: count for pair, count in self._pairs.items() if pair[0] != pair[1]}),
            family_confusion=_confusions(self._families),
            by_form=_scores({str(key): counts for key, counts in self._slices["form"].items()}),
            by_lang=_scores({str(key): counts for key, counts in self._slices["lang"].items()}),
            by_hard={bool(key): Score(**counts) for key, counts in sorted(self._slices["hard"].items())},
            timing=timing,
            timing_short=timing_short,
            mistakes=tuple(entry[-1] for entry in sorted(self._mistakes, key=lambda e: e[:3], reverse=True)),
        )

    def _type_scores(self) -> tuple[TypeScore, ...]:
        support: Counter[str] = Counter()
        predicted: Counter[str] = Counter()
        for (label, said), count in self._pairs.items():
            support[label] += count
            predicted[said] += count
        scores = [
            TypeScore(task_type, support[name], predicted[name], self._pairs[name, name])
            for name, task_type in self._types.items()
        ]
        return tuple(sorted(scores, key=lambda score: (-score.support, score.task_type.name)))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _scores(slices: Mapping[str, Counter[str]]) -> dict[str, Score]:
    """The largest first."""
    return {key: Score(**counts) for key, counts in sorted(slices.items(), key=lambda item: (-item[1]["n"], item[0]))}


def _confusions(pairs: Mapping[tuple[str, str], int]) -> tuple[Confusion, ...]:
    return tuple(Confusion(*pair, count) for pair, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0])))


def _reliability(confidences: Sequence[float], rights: Sequence[int]) -> tuple[Bin, ...]:
    sums = [[0, 0.0, 0] for _ in range(_BINS)]
    for confidence, right in zip(confidences, rights, strict=True):
        found = sums[min(max(int(confidence * _BINS), 0), _BINS - 1)]
        found[0] += 1
        found[1] += confidence
        found[2] += right
    return tuple(
        Bin(i / _BINS, (i + 1) / _BINS, int(n), sure / n if n else None, right / n if n else None)
        for i, (n, sure, right) in enumerate(sums)
    )


def _risk_coverage(confidences: Sequence[float], rights: Sequence[int]) -> tuple[CoveragePoint, ...]:
    """Points that a threshold can really reach: texts of the same confidence are answered together or not at all."""
    ordered = sorted(zip(confidences, rights, strict=True), reverse=True)
    n = len(ordered)
    wrong = list(accumulate(1 - right for _, right in ordered))
    points: list[CoveragePoint] = []
    count = 0
    for step in range(1, _COVERAGES + 1):
        wanted = -(-n * step // _COVERAGES)
        if wanted <= count:
            continue
        count = wanted
        while count < n and ordered[count][0] == ordered[count - 1][0]:
            count += 1
        points.append(CoveragePoint(ordered[count - 1][0], count / n, wrong[count - 1] / count))
    return tuple(points)


def _timing(nanos: Sequence[int]) -> Timing:
    ordered = sorted(nanos)
    n, total = len(ordered), sum(ordered)

    def at(percent: int) -> float:
        return ordered[-(-n * percent // 100) - 1] / 1_000  # the nearest rank: a time that was really taken

    return Timing(n, at(50), at(99), n * 1e9 / total if total else None)
