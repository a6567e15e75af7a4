"""The trained classifier: a linear model over n-grams decides what is clear, a small encoder sees the rest.

Theory of operation. All models look at the same two windows of a text. The n-gram model takes microseconds; where it
is sure, that is the answer. Otherwise the encoder (six layers, 8-bit weights, on one core, milliseconds) and the rules
are asked too, and the scores of the three are added with weights fitted so that a confidence is a frequency. Critical
work has a detector of its own, an output of the encoder that was trained for nothing else, tuned for recall.

What matters for routing is not the likeliest type alone: `Classification.at_least` tells how likely stricter work is,
and the policy weighs that against the price of going up. Weights and thresholds are fitted on a split that no model was
trained on (tools/train_classifier.py).
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

from tierwise.classifier.artifact import Artifact, Encoder, encoder_of, shipped_artifact
from tierwise.classifier.directions import without_directions
from tierwise.classifier.features import encoder_windows, ngrams, shown
from tierwise.classifier.rules import RuleClassifier
from tierwise.classifier.stakes import stated_stakes
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.classifier.wordpiece import WordPiece
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import TOP_LEVEL, Alternative, Classification, Stakes, Task, TaskType

__all__ = ["Learned", "Scored", "TrainedClassifier", "rule_scores"]

_REMEMBERED = 2_048
_SUREST = 0.9999  # 1.0 is what the caller knows, and rounding must not make a guess of ours one
_ALTERNATIVES = 5
_WORTH_NAMING = 0.01  # stricter work that is at least so likely is among the alternatives
_CLS, _SEP = 101, 102
_STAKES = list(Stakes)  # in order of strictness
_RUN = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")
# Where most word pieces are fragments the text is from outside what was trained on: noise, base64, an unknown language.
_MOST_PIECES_A_WORD = 3.6
_LEAST_PIECES = 12
_LONGEST_WORD = 80  # a longer run of letters and digits is data, not language


@dataclass(frozen=True, slots=True)
class Scored:
    """What the models say of a text, before anything is concluded from it."""

    scores: Any  # log-probabilities of the artifact's types
    critical: float  # the detector's probability that this is critical work
    strange: bool = False  # unlike anything that was trained on
    encoded: bool = True  # whether the encoder was asked
    vector: Any = None  # the encoder's mean vector, where it was asked


_Score = Callable[[str], tuple[Scored, Stakes]]


class Learned(Protocol):
    """What a user taught on top of the shipped models: types of their own, corrections from feedback."""

    def apply(self, text: str, scored: Scored) -> tuple[Scored, tuple[TaskType, ...]]:
        """Scores of the artifact's types and then of the user's, and the latter as values."""
        ...


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The artifact with its types as values, in its order."""

    artifact: Artifact
    types: tuple[TaskType, ...]
    levels: tuple[int, ...]
    above: Any  # types × 3: whether a type is at least right-first-time, at least judgment, critical


class TrainedClassifier:
    """Classifies by the trained models. Pure but for what it remembers of recent texts; safe in several threads.

    Args:
        taxonomy: the task types; must have every type that was trained on.
        artifact: the shipped one when None; read at the first text.
        learned: what the user taught; with it the encoder sees every text.
    """

    def __init__(self, taxonomy: Taxonomy, artifact: Artifact | None = None, learned: Learned | None = None) -> None:
        self._taxonomy = taxonomy
        self._given = artifact
        self._learned = learned
        self._rules = RuleClassifier(taxonomy)
        self._opening = threading.Lock()
        self._opened: Encoder | None = None
        self._recent = lru_cache(maxsize=_REMEMBERED)(self._score)

    @property
    def artifact(self) -> Artifact:
        """What it classifies with. Raises `ConfigError` where that is missing or damaged."""
        return self._loaded.artifact

    def classify(self, task: Task) -> Classification:
        """See `Classifier.classify`."""
        return self._classify(task, self._recent)

    def glance(self, task: Task) -> tuple[Classification, bool]:
        """What the words alone say, in microseconds, and whether `classify` would say the same.

        Where it would not, this one is less sure and abstains more often. The user's own types are not seen.
        """
        clear = self._learned is None

        def score(text: str) -> tuple[Scored, Stakes]:
            nonlocal clear
            _, alone = self._fast(text)
            clear = clear and self.clear(alone)
            return Scored(alone, self.critical_mass(alone), encoded=False), stated_stakes(text)

        return self._classify(task, score), clear

    def _classify(self, task: Task, score: _Score) -> Classification:
        if task.task_type is not None:
            return Classification(self._taxonomy[task.task_type], 1.0, evidence=("the caller named the task type",))
        text = shown(task.text, task.tool_name, task.tool_input)
        if not text or (task.tool_name is None and not task.text.strip()):
            raise InvalidTask("the task is empty; say in its text what to do")
        said = self._classified(text, task, score)
        asked = without_directions(text)
        if asked is text:
            return said
        if not asked:
            return replace(said, abstained=True, evidence=(*said.evidence, "it only speaks of how it should be routed"))
        return _stricter(said, self._classified(asked, task, score))

    def _classified(self, text: str, task: Task, score: _Score) -> Classification:
        scored, stakes = score(text)
        shaped = self._shaped(scored, task)
        if self._learned is None or scored.vector is None:
            return self.conclude(shaped, stakes=stakes)
        taught, own = self._learned.apply(text, shaped)
        return self.conclude(taught, own=own, stakes=stakes)

    def encode(self, text: str) -> Scored:
        """What all models say of `text` as `shown` gives it, the encoder included: for learning on top of them."""
        return self._both(text, *self._fast(text))

    @cached_property
    def _loaded(self) -> _Loaded:
        artifact = shipped_artifact() if self._given is None else self._given
        types = tuple(self._taxonomy[name] for name in artifact.types)
        levels = tuple(task_type.level for task_type in types)
        above = _boundaries(levels)
        return _Loaded(artifact=artifact, types=types, levels=levels, above=above)

    def _encoder(self) -> Encoder:
        """Opened when a text first needs it."""
        with self._opening:
            if self._opened is None:
                self._opened = encoder_of(self.artifact)
            return self._opened

    def close_encoder(self) -> None:
        """Gives back the 60 MB of the encoder if nobody else uses it; the next text that needs it opens it again."""
        with self._opening:
            self._opened = None

    def _score(self, text: str) -> tuple[Scored, Stakes]:
        fast, alone = self._fast(text)
        stakes = stated_stakes(text)
        if self._learned is None and self.clear(alone):
            # Not asked of the detector: what may be critical is not clear.
            return Scored(alone, self.critical_mass(alone), encoded=False), stakes
        return self._both(text, fast, alone), stakes

    def _fast(self, text: str) -> tuple[Any, Any]:
        """The n-gram model's scores, and its log-probabilities where it decides alone."""
        import numpy as np  # noqa: PLC0415

        artifact = self.artifact
        model = artifact.ngrams
        rows = [row for row in map(model.index.get, ngrams(text)) if row is not None]
        fast = model.biases
        if rows:
            total = model.weights[rows].sum(0, dtype=np.int32)
            fast = total * np.float32(model.scale / len(rows) ** 0.5) + model.biases
        return fast, log_softmax(fast * artifact.fast_weight)

    def _both(self, text: str, fast: Any, alone: Any) -> Scored:
        import numpy as np  # noqa: PLC0415

        artifact = self.artifact
        opened = self._encoder()
        ids, strange = self._tokens(text, opened.tokenizer)
        encoder, detector, vector = opened.session.run(None, {"ids": np.array([ids], np.int64)})
        scores = log_softmax(
            artifact.encoder_weight * encoder[0]
            + artifact.ngram_weight * fast
            + artifact.rules_weight * rule_scores(self._rules, text, artifact.types)
        )
        return Scored(scores, self.detected(float(detector[0]), scores), strange=strange, vector=vector[0])

    def detected(self, detector: float, scores: Any) -> float:
        """The probability of critical work: the detector's score and the critical types' mass, fitted together."""
        weight, mass_weight, bias = self.artifact.detector
        mass = min(max(self.critical_mass(scores), 1e-6), 1 - 1e-6)
        return 1 / (1 + math.exp(-(weight * detector + mass_weight * math.log(mass / (1 - mass)) + bias)))

    def critical_mass(self, scores: Any) -> float:
        """The critical types' probability together."""
        import numpy as np  # noqa: PLC0415

        return float(np.exp(scores) @ self._loaded.above[:, 2])

    def clear(self, scores: Any) -> bool:
        """Whether the n-gram model's log-probabilities are sure enough to stand alone, and far from critical work."""
        artifact = self.artifact
        return bool(scores.max() >= math.log(artifact.fast_above)) and (
            self.critical_mass(scores) < artifact.fast_critical_below
        )

    def _tokens(self, text: str, tokenizer: WordPiece) -> tuple[list[int], bool]:
        artifact = self.artifact
        head, tail = encoder_windows(text)
        ids = tokenizer.encode(head)
        runs = _RUN.findall(head)
        fragments = len(ids) >= _LEAST_PIECES and head.isascii() and len(ids) > _MOST_PIECES_A_WORD * len(runs)
        unbroken = sum(len(run) for run in runs if len(run) > _LONGEST_WORD) > len(head) / 2
        strange = fragments or unbroken
        if tail:
            rest = tokenizer.encode(tail)
            ids = [*ids[: artifact.head_tokens], _SEP, *rest[-artifact.tail_tokens :]]
        elif len(ids) > artifact.head_tokens + artifact.tail_tokens:
            ids = [*ids[: artifact.head_tokens], _SEP, *ids[-artifact.tail_tokens :]]
        return [_CLS, *ids, _SEP], strange

    def _shaped(self, scored: Scored, task: Task) -> Scored:
        """Evidence of the request's shape: allowed labels and a schema say what the reply looks like."""
        if not task.labels and task.json_schema is None:
            return scored
        shaped = scored.scores.copy()
        if task.labels:
            yes_no = {label.casefold() for label in task.labels} <= {"yes", "no", "true", "false", "unknown"}
            for k, task_type in enumerate(self._loaded.types):
                if task_type.family == "classify":
                    shaped[k] += 4.5 if yes_no and task_type.name == "yes_no_decision" else 3.0
        elif task.json_schema is not None:
            for k, task_type in enumerate(self._loaded.types):
                if task_type.family == "extract":
                    shaped[k] += 0.7
        return replace(scored, scores=log_softmax(shaped))

    def conclude(
        self, scored: Scored, *, own: tuple[TaskType, ...] = (), stakes: Stakes = Stakes.NORMAL
    ) -> Classification:
        """What log-probabilities mean: type, confidence, alternatives, and how likely stricter work is."""
        import numpy as np  # noqa: PLC0415

        loaded = self._loaded
        types, levels, above = loaded.types, loaded.levels, loaded.above
        if own:
            types = (*types, *own)
            levels = tuple(task_type.level for task_type in types)
            above = _boundaries(levels)
        p = np.exp(scored.scores)
        ranked = np.argsort(-p).tolist()
        probabilities = p.tolist()
        best = ranked[0]
        evidence: list[str] = [] if scored.encoded else ["clear from its words"]
        if scored.strange:
            # What noise resembles says nothing; the policy sends an abstention up by itself, not to the very top.
            best = next(k for k in ranked if levels[k] < TOP_LEVEL)
            named: list[int] = []
            at_least = (0.0, 0.0, 0.0)
            evidence.append("unlike anything that it was trained on")
        else:
            named = ranked[1 : _ALTERNATIVES + 1]
            self._name_stricter(named, ranked, probabilities, levels)
            first, judgment, _ = (p @ above).tolist()
            critical = scored.critical
            at_least = (max(first, critical), max(judgment, critical), critical)
        confidence = probabilities[best]
        return Classification(
            types[best],
            min(round(confidence, 4), _SUREST),
            abstained=scored.strange or confidence < loaded.artifact.abstain_below,
            alternatives=tuple([Alternative(types[k], round(probabilities[k], 4)) for k in named]),
            evidence=tuple(evidence),
            at_least=at_least,
            stated_stakes=stakes,
        )

    @staticmethod
    def _name_stricter(named: list[int], ranked: Sequence[int], p: Sequence[float], levels: Sequence[int]) -> None:
        """Adds the likeliest type of each stricter level, so that the policy has a name for what it fears."""
        missing = set(range(levels[ranked[0]] + 1, TOP_LEVEL + 1)).difference(levels[k] for k in named)
        for k in ranked[_ALTERNATIVES + 1 :]:
            if not missing or p[k] < _WORTH_NAMING:
                return
            if levels[k] in missing:
                missing.discard(levels[k])
                named.append(k)


def _boundaries(levels: Sequence[int]) -> Any:
    """Types × 3: whether a type of that level is at least right-first-time, at least judgment, critical."""
    import numpy as np  # noqa: PLC0415

    return np.array([[level >= bound for bound in range(1, TOP_LEVEL + 1)] for level in levels], np.float32)


def _stricter(said: Classification, asked: Classification) -> Classification:
    """Of a text with and without what it says to its router: nothing of that lowers, and what raises counts."""
    best, other = (asked, said) if asked.task_type.level > said.task_type.level else (said, asked)
    named = {best.task_type.name} | {a.task_type.name for a in best.alternatives}
    more = (Alternative(other.task_type, other.confidence), *other.alternatives)
    likely = zip(said.at_least or (0.0, 0.0, 0.0), asked.at_least or (0.0, 0.0, 0.0), strict=True)
    first, judgment, critical = (max(pair) for pair in likely)
    return replace(
        best,
        abstained=said.abstained or asked.abstained,
        alternatives=(*best.alternatives, *(a for a in more if a.task_type.name not in named)),
        evidence=(*best.evidence, "what it says of its own routing was left out"),
        at_least=(first, judgment, critical),
        stated_stakes=max(said.stated_stakes, asked.stated_stakes, key=_STAKES.index),
    )


def rule_scores(rules: RuleClassifier, text: str, names: Sequence[str]) -> Any:
    """What the rules say of a text, as log-probabilities of the types: a feature of the trained classifier."""
    import numpy as np  # noqa: PLC0415

    said = rules.classify(Task(text=text))
    known = {said.task_type.name: said.confidence}
    for alternative in said.alternatives:
        known[alternative.task_type.name] = known.get(alternative.task_type.name, 0.0) + alternative.confidence
    rest = max(0.02, 1.0 - sum(known.values())) / len(names)
    return np.log(np.array([rest + known.get(name, 0.0) for name in names], np.float32))


def log_softmax(scores: Any) -> Any:
    """Scores as log-probabilities."""
    import numpy as np  # noqa: PLC0415

    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())
