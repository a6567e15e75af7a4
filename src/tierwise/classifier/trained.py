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
from collections import OrderedDict
from typing import Any

from tierwise.classifier.artifact import Artifact, load_artifact, open_encoder
from tierwise.classifier.features import encoder_windows, ngrams, shown
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.classifier.wordpiece import WordPiece
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import Alternative, Classification, Needs, Task, TaskType

__all__ = ["TrainedClassifier"]

_REMEMBERED = 2_048
_ALTERNATIVES = 5
_CLS, _SEP = 101, 102
_RUN = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")
# Where most word pieces are fragments the text is from outside what was trained on: noise, base64, an unknown language.
_MOST_PIECES_A_WORD = 3.6
_LEAST_PIECES = 12
_LONGEST_WORD = 80  # a longer run of letters and digits is data, not language


class TrainedClassifier:
    """Classifies by the trained models. Pure but for what it remembers of recent texts; safe in several threads.

    Args:
        taxonomy: the task types; must have every type that was trained on.
        artifact: the shipped one when None; read at the first text.
    """

    def __init__(self, taxonomy: Taxonomy, artifact: Artifact | None = None) -> None:
        self._taxonomy = taxonomy
        self._artifact = artifact
        self._lock = threading.Lock()
        self._encoder: tuple[Any, WordPiece] | None = None
        self._types: tuple[TaskType, ...] = ()
        self._levels: Any = None
        self._critical: Any = None
        self._seen: OrderedDict[str, tuple[Any, bool, bool]] = OrderedDict()

    def classify(self, task: Task) -> Classification:
        """See `Classifier.classify`."""
        if task.task_type is not None:
            return Classification(self._taxonomy[task.task_type], 1.0, evidence=("the caller named the task type",))
        text = shown(task.text, task.tool_name, task.tool_input)
        if not text or (task.tool_name is None and not task.text.strip()):
            raise InvalidTask("the task is empty; say in its text what to do")
        if not self._types:
            self._load()
        known = self._seen.get(text)
        if known is None:
            known = self._scores(text)
            self._seen[text] = known
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        scores, strange, encoded = known
        return self.conclude(self._shaped(scores, task), strange=strange, encoded=encoded)

    def _load(self) -> None:
        import numpy as np  # noqa: PLC0415

        with self._lock:
            if self._types:
                return
            if self._artifact is None:
                self._artifact = load_artifact()
            types = tuple(self._taxonomy[name] for name in self._artifact.types)
            self._levels = np.array([_level(task_type) for task_type in types])
            self._critical = np.array([task_type.needs is Needs.CRITICAL for task_type in types])
            self._types = types

    def _scores(self, text: str) -> tuple[Any, bool, bool]:
        """Log-probabilities of the types; whether the text is strange; whether the encoder was asked."""
        import numpy as np  # noqa: PLC0415

        artifact = self._artifact
        assert artifact is not None  # noqa: S101  loaded
        model = artifact.ngrams
        rows = [row for term in ngrams(text) if (row := model.index.get(term)) is not None]
        fast = model.biases
        if rows:
            total = model.weights[rows].sum(0, dtype=np.int32)
            fast = total * np.float32(model.scale / len(rows) ** 0.5) + model.biases
        alone = _log_softmax(fast * artifact.fast_weight)
        if self.clear(alone):
            return alone, False, False
        ids, strange = self._tokens(text)
        session = self._open()[0]
        encoder = session.run(None, {"ids": np.array([ids], np.int64)})[0][0]
        return _log_softmax(artifact.encoder_weight * encoder + artifact.ngram_weight * fast), strange, True

    def use(self, artifact: Artifact) -> None:
        """Goes on with another artifact: how thresholds are fitted."""
        self._artifact, self._types, self._encoder = artifact, (), None
        self._seen.clear()
        self._load()

    def clear(self, scores: Any) -> bool:
        """Whether the n-gram model's log-probabilities are sure enough to stand alone, and not near critical work."""
        import numpy as np  # noqa: PLC0415

        artifact = self._artifact
        assert artifact is not None  # noqa: S101  loaded
        return bool(
            scores.max() >= np.log(artifact.fast_above)
            and np.exp(scores[self._critical]).sum() < artifact.critical_mass
        )

    def _open(self) -> tuple[Any, WordPiece]:
        if self._encoder is None:
            with self._lock:
                if self._encoder is None and self._artifact is not None:
                    self._encoder = open_encoder(self._artifact)
        assert self._encoder is not None  # noqa: S101
        return self._encoder

    def _tokens(self, text: str) -> tuple[list[int], bool]:
        artifact, tokenizer = self._artifact, self._open()[1]
        assert artifact is not None  # noqa: S101
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
            for k, task_type in enumerate(self._types):
                if task_type.family == "classify":
                    shaped[k] += 4.5 if yes_no and task_type.name == "yes_no_decision" else 3.0
        elif task.json_schema is not None:
            for k, task_type in enumerate(self._types):
                if task_type.family == "extract":
                    shaped[k] += 0.7
        return _log_softmax(shaped)

    def conclude(self, scores: Any, *, strange: bool = False, encoded: bool = True) -> Classification:
        """What log-probabilities mean: type, confidence, alternatives, and what must not be left to chance."""
        import numpy as np  # noqa: PLC0415

        artifact = self._artifact
        assert artifact is not None  # noqa: S101
        p = np.exp(scores)
        order = np.argsort(-p)[: _ALTERNATIVES + 1]
        best = int(order[0])
        types, levels = self._types, self._levels
        also: list[TaskType] = []
        stricter = levels > levels[best]
        if strange:
            order = order[:1]  # what noise resembles says nothing; the policy sends an abstention up by itself
        elif p[self._critical].sum() >= artifact.critical_mass and not self._critical[best]:
            also.append(types[int(np.argmax(np.where(self._critical, p, 0)))])
        elif p[stricter].sum() >= artifact.above_mass:
            also.append(types[int(np.argmax(np.where(stricter, p, 0)))])
        confidence = float(p[best])
        abstained = strange or confidence < artifact.abstain_below
        evidence = [] if encoded else ["clear from its words"]
        if strange:
            evidence.append("unlike anything that it was trained on")
        return Classification(
            types[best],
            round(confidence, 4),
            abstained=abstained,
            alternatives=tuple(Alternative(types[int(k)], round(float(p[k]), 4)) for k in order[1:]),
            also=tuple(also),
            evidence=tuple(evidence),
        )


def _level(task_type: TaskType) -> int:
    """0 recoverable processing, 1 other processing, 2 judgment, 3 critical: the order of strictness."""
    if task_type.needs is Needs.PROCESSING:
        return 0 if task_type.recoverable else 1
    return 2 if task_type.needs is Needs.JUDGMENT else 3


def _log_softmax(scores: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum())
