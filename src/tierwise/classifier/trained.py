"""The trained classifier: a linear model over n-grams decides what is clear, a small encoder sees the rest.

Theory of operation. Both models look at the same two windows of a text. The n-gram model takes microseconds; where it
is sure, that is the answer. Otherwise the encoder (six layers, 8-bit weights, on one core, milliseconds) is asked too,
and the scores of both are added with weights fitted so that a confidence is a frequency. Then what matters for routing:
where the probability of stricter work than the likeliest type asks for is more than a threshold allows, the
likeliest such type is put into `also`, and the policy takes the strictest. Critical work has a threshold of its own,
tuned for recall. The thresholds are fitted on a split that neither model was trained on (tools/train_classifier.py).
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from tierwise.classifier.artifact import Artifact, load_artifact, open_encoder
from tierwise.classifier.features import encoder_windows, ngrams, shown
from tierwise.classifier.taxonomy import Taxonomy, level_of_type
from tierwise.classifier.wordpiece import WordPiece
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import Alternative, Classification, Needs, Task, TaskType

__all__ = ["TrainedClassifier"]

_REMEMBERED = 2_048
_SUREST = 0.9999  # 1.0 is what the caller knows, and rounding must not make a guess of ours one
_ALTERNATIVES = 5
_CLS, _SEP = 101, 102
_RUN = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")
# Where most word pieces are fragments the text is from outside what was trained on: noise, base64, an unknown language.
_MOST_PIECES_A_WORD = 3.6
_LEAST_PIECES = 12
_LONGEST_WORD = 80  # a longer run of letters and digits is data, not language


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The artifact with its types as values, in its order."""

    artifact: Artifact
    types: tuple[TaskType, ...]
    levels: Any  # strictness of each type
    critical: Any  # whether it is critical


class TrainedClassifier:
    """Classifies by the trained models. Pure but for what it remembers of recent texts; safe in several threads.

    Args:
        taxonomy: the task types; must have every type that was trained on.
        artifact: the shipped one when None; read at the first text.
    """

    def __init__(self, taxonomy: Taxonomy, artifact: Artifact | None = None) -> None:
        self._taxonomy = taxonomy
        self._given = artifact
        self._opening = threading.Lock()
        self._opened: tuple[Any, WordPiece] | None = None
        self._recent = lru_cache(maxsize=_REMEMBERED)(self._scores)

    @property
    def artifact(self) -> Artifact:
        """What it classifies with. Raises `ConfigError` where that is missing or damaged."""
        return self._loaded.artifact

    def classify(self, task: Task) -> Classification:
        """See `Classifier.classify`."""
        if task.task_type is not None:
            return Classification(self._taxonomy[task.task_type], 1.0, evidence=("the caller named the task type",))
        text = shown(task.text, task.tool_name, task.tool_input)
        if not text or (task.tool_name is None and not task.text.strip()):
            raise InvalidTask("the task is empty; say in its text what to do")
        scores, strange, encoded = self._recent(text)
        return self.conclude(self._shaped(scores, task), strange=strange, encoded=encoded)

    @cached_property
    def _loaded(self) -> _Loaded:
        import numpy as np  # noqa: PLC0415

        artifact = load_artifact() if self._given is None else self._given
        types = tuple(self._taxonomy[name] for name in artifact.types)
        return _Loaded(
            artifact=artifact,
            types=types,
            levels=np.array([level_of_type(task_type) for task_type in types]),
            critical=np.array([task_type.needs is Needs.CRITICAL for task_type in types]),
        )

    def _encoder(self) -> tuple[Any, WordPiece]:
        """The ONNX session and the tokenizer, opened when a text first needs them."""
        with self._opening:
            if self._opened is None:
                self._opened = open_encoder(self.artifact)
            return self._opened

    def _scores(self, text: str) -> tuple[Any, bool, bool]:
        """Log-probabilities of the types; whether the text is strange; whether the encoder was asked."""
        import numpy as np  # noqa: PLC0415

        artifact = self.artifact
        model = artifact.ngrams
        rows = [row for term in ngrams(text) if (row := model.index.get(term)) is not None]
        fast = model.biases
        if rows:
            total = model.weights[rows].sum(0, dtype=np.int32)
            fast = total * np.float32(model.scale / len(rows) ** 0.5) + model.biases
        alone = _log_softmax(fast * artifact.fast_weight)
        if self.clear(alone):
            return alone, False, False
        session, tokenizer = self._encoder()
        ids, strange = self._tokens(text, tokenizer)
        encoder = session.run(None, {"ids": np.array([ids], np.int64)})[0][0]
        return _log_softmax(artifact.encoder_weight * encoder + artifact.ngram_weight * fast), strange, True

    def clear(self, scores: Any) -> bool:
        """Whether the n-gram model's log-probabilities are sure enough to stand alone, and not near critical work."""
        import numpy as np  # noqa: PLC0415

        artifact = self.artifact
        return bool(
            scores.max() >= np.log(artifact.fast_above)
            and np.exp(scores[self._loaded.critical]).sum() < artifact.critical_mass
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

    def _shaped(self, scores: Any, task: Task) -> Any:
        """Evidence of the request's shape: allowed labels and a schema say what the reply looks like."""
        if not task.labels and task.json_schema is None:
            return scores
        shaped = scores.copy()
        if task.labels:
            yes_no = {label.casefold() for label in task.labels} <= {"yes", "no", "true", "false", "unknown"}
            for k, task_type in enumerate(self._loaded.types):
                if task_type.family == "classify":
                    shaped[k] += 4.5 if yes_no and task_type.name == "yes_no_decision" else 3.0
        elif task.json_schema is not None:
            for k, task_type in enumerate(self._loaded.types):
                if task_type.family == "extract":
                    shaped[k] += 0.7
        return _log_softmax(shaped)

    def conclude(self, scores: Any, *, strange: bool = False, encoded: bool = True) -> Classification:
        """What log-probabilities mean: type, confidence, alternatives, and what must not be left to chance."""
        import numpy as np  # noqa: PLC0415

        artifact, types, levels = self.artifact, self._loaded.types, self._loaded.levels
        critical = self._loaded.critical
        p = np.exp(scores)
        order = np.argsort(-p)[: _ALTERNATIVES + 1]
        best = int(order[0])
        also: list[TaskType] = []
        stricter = levels > levels[best]
        if strange:
            order = order[:1]  # what noise resembles says nothing; the policy sends an abstention up by itself
        elif p[critical].sum() >= artifact.critical_mass and not critical[best]:
            also.append(types[int(np.argmax(np.where(critical, p, 0)))])
        elif p[stricter].sum() >= artifact.above_mass:
            also.append(types[int(np.argmax(np.where(stricter, p, 0)))])
        confidence = float(p[best])
        abstained = strange or confidence < artifact.abstain_below
        evidence = [] if encoded else ["clear from its words"]
        if strange:
            evidence.append("unlike anything that it was trained on")
        return Classification(
            types[best],
            min(round(confidence, 4), _SUREST),
            abstained=abstained,
            alternatives=tuple(Alternative(types[int(k)], round(float(p[k]), 4)) for k in order[1:]),
            also=tuple(also),
            evidence=tuple(evidence),
        )


def _log_softmax(scores: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())
