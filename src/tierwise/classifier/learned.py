"""What a user taught the classifier, applied on top of the shipped models: types of their own, and a correction.

Theory of operation. Both are linear, over the encoder's mean vector and hashed n-grams of the same windows that the
shipped models see (`lesson_features`). A type of the user's own has a score: how much likelier than everything else
it is. Several compete: the probability of own type u is exp(score_u) / (1 + Σ exp(score)), and the shipped models
share the rest among the built-in types, as they would share the whole. The correction adds to the log-probability of
each type; it is learned from feedback with a penalty, and beside other texts, so that texts unlike that feedback keep
theirs.

The shipped detector's probability of critical work shrinks only by what an own type takes, and a correction can raise
it, never lower it: feedback must not talk critical work down.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tierwise.classifier.features import ngrams
from tierwise.classifier.trained import Scored, log_softmax
from tierwise.core.tasks import TOP_LEVEL, TaskType

__all__ = ["BUCKETS", "Correction", "Lesson", "Taught", "lesson_features"]

BUCKETS = 4_096  # of hashed n-grams
_NGRAM_SHARE = 0.7  # their length beside the encoder's vector, which has length 1


@dataclass(frozen=True, slots=True)
class Lesson:
    """One own type: its score of a text is `weights` times the text's features, plus `bias`."""

    task_type: TaskType
    weights: Any  # float32, features
    bias: float


@dataclass(frozen=True, slots=True)
class Correction:
    """What feedback adds to the log-probability of each type named: `weights` times the features, plus `biases`."""

    types: tuple[str, ...]
    weights: Any  # float32, types × features
    biases: Any  # float32, types


class Taught:
    """Lessons and a correction for one artifact; implements `tierwise.classifier.trained.Learned`.

    Args:
        built_in: the artifact's types, in its order.
        lessons: the user's own types.
        correction: what feedback changed, if anything. Types that it does not know stay as they are.
    """

    def __init__(
        self, built_in: Sequence[TaskType], lessons: Sequence[Lesson] = (), correction: Correction | None = None
    ) -> None:
        import numpy as np  # noqa: PLC0415  80 ms: not for `--help`

        self._built_in, self._lessons = tuple(built_in), tuple(lessons)
        self.own = tuple(lesson.task_type for lesson in lessons)
        types = (*built_in, *self.own)
        if lessons:
            self._weights = np.stack([lesson.weights for lesson in lessons])
            self._biases = np.array([lesson.bias for lesson in lessons], np.float32)
        if correction is not None:
            size = correction.weights.shape[1]
            self._delta, self._shift = np.zeros((len(types), size), np.float32), np.zeros(len(types), np.float32)
            place: Mapping[str, int] = {task_type.name: k for k, task_type in enumerate(types)}
            for row, name in enumerate(correction.types):
                if name in place:
                    self._delta[place[name]], self._shift[place[name]] = correction.weights[row], correction.biases[row]
        self._corrects = correction is not None
        self._own_critical = np.array([task_type.level == TOP_LEVEL for task_type in self.own], np.float32)
        self._critical = np.array([task_type.level == TOP_LEVEL for task_type in types], np.float32)

    def with_correction(self, correction: Correction | None) -> Taught:
        """The same lessons with another correction, or none."""
        return Taught(self._built_in, self._lessons, correction)

    def apply(self, text: str, scored: Scored) -> tuple[Scored, tuple[TaskType, ...]]:
        """See `Learned.apply`."""
        import numpy as np  # noqa: PLC0415

        features = lesson_features(text, scored.vector)
        scores, critical = scored.scores, scored.critical
        if self.own:
            own = log_softmax(np.concatenate(([0.0], self._weights @ features + self._biases)))
            scores = np.concatenate((scores + own[0], own[1:]))
            taken = np.exp(own[1:])
            critical = float(critical * np.exp(own[0]) + taken @ self._own_critical)
        if self._corrects:
            before = float(np.exp(scores) @ self._critical)
            scores = log_softmax(scores + self._delta @ features + self._shift)
            critical = min(1.0, critical + max(0.0, float(np.exp(scores) @ self._critical) - before))
        return replace(scored, scores=scores, critical=critical), self.own


def lesson_features(text: str, vector: Any) -> Any:
    """The features of a text, as `shown` gives it, that lessons and corrections are linear over."""
    import numpy as np  # noqa: PLC0415

    hashed = np.zeros(BUCKETS, np.float32)
    for term in ngrams(text):
        # Not `hash`, which differs from process to process.
        code = zlib.crc32(term.encode("utf-8", "surrogatepass"))
        hashed[code % BUCKETS] += 1.0 if code & 0x8000_0000 else -1.0
    return np.concatenate((_unit(vector), _NGRAM_SHARE * _unit(hashed)))


def _unit(vector: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0 else vector
