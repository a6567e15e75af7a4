"""Says what imported calls ask for: each distinct ask once, at a glance, and with the encoder where it is worth it.

A month of heavy use has half a million calls and tens of thousands of asks. The words alone say in microseconds what
most of them are; the encoder takes milliseconds. It is asked for what is doubtful and carries money: an ask whose calls
cost at least one in `encoded` parts of everything that was seen so far. Few asks: nearly all get it. Many: those that
cost the most. How many that can be does not depend on the machine, so that the same transcripts give the same answer.

Texts are held only as digests, and only for as long as this object lives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from tierwise.classifier import Classifier, TrainedClassifier
from tierwise.classifier.artifact import shipped_folder
from tierwise.core.calls import ImportedCall
from tierwise.core.errors import InvalidTask
from tierwise.core.settings import Settings
from tierwise.core.tasks import Classification, Task

__all__ = ["AskClassifier", "classifier_id"]

_ENCODED = 1_000


def classifier_id(settings: Settings) -> str:
    """Changes whenever what the configured classifier says might."""
    hashed = hashlib.blake2b(repr((_ENCODED, settings.classifier, settings.task_types)).encode(), digest_size=12)
    for folder in (shipped_folder(), *settings.taught):
        manifest = folder / "manifest.json"  # names what else is there, by its hash
        hashed.update(manifest.read_bytes() if manifest.is_file() else b"-")
    return hashed.hexdigest()


class AskClassifier:
    """What calls ask for; what an importer's `classify` is.

    Args:
        classifier: the one that the policy uses.
        actual: what a call cost, in nano-dollars.
        encoded: about how many doubtful asks the encoder may see; three times as many at the very most.
    """

    def __init__(
        self, classifier: Classifier, actual: Callable[[ImportedCall], int | None], *, encoded: int = _ENCODED
    ) -> None:
        self._classifier = classifier
        self._actual = actual
        self._parts = encoded
        self._encodings_left = 3 * encoded
        self._seen_nanousd = 0
        self._known: dict[bytes, tuple[Classification | None, bool]] = {}  # and whether more could be said

    def __call__(self, calls: Sequence[ImportedCall]) -> list[Classification | None]:
        """One classification a call, None where there is nothing to classify."""
        keys = [_digest(call) for call in calls]
        costs: dict[bytes, int] = {}
        texts: dict[bytes, ImportedCall] = {}
        for key, call in zip(keys, calls, strict=True):
            cost = self._actual(call) or 0
            self._seen_nanousd += cost
            costs[key] = costs.get(key, 0) + cost
            texts.setdefault(key, call)
        doubtful = []
        for key, call in texts.items():
            if key not in self._known:
                self._known[key] = self._glance(call)
            if not self._known[key][1]:
                doubtful.append(key)
        # The dearest first, so that the last encodings of all go where they matter.
        for key in sorted(doubtful, key=lambda key: (-costs[key], key)):
            if not self._encodings_left or costs[key] * self._parts < self._seen_nanousd:
                break
            self._encodings_left -= 1
            self._known[key] = (self._classifier.classify(_task(texts[key])), True)
        return [self._known[key][0] for key in keys]

    def rest(self) -> None:
        """Nothing more is asked for now: gives back what was held for that."""
        self._known.clear()
        if isinstance(self._classifier, TrainedClassifier):
            self._classifier.close_encoder()

    def _glance(self, call: ImportedCall) -> tuple[Classification | None, bool]:
        if call.classification is not None:
            return call.classification, True
        try:
            if isinstance(self._classifier, TrainedClassifier):
                return self._classifier.glance(_task(call))
            return self._classifier.classify(_task(call)), True
        except InvalidTask:  # nothing to classify
            return None, True


def _task(call: ImportedCall) -> Task:
    return Task(text=call.ask)


def _digest(call: ImportedCall) -> bytes:
    text = call.ask.encode("utf-8", "surrogatepass")
    if call.classification is not None:
        text += b"\0" + call.classification.task_type.name.encode()
    return hashlib.blake2b(text, digest_size=16).digest()
