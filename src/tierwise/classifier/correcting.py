"""Learning from feedback: a correction of the classifier, judged on what it was not trained on before it is used.

A correction that helps with the feedback and quietly harms the rest is worse than none. So three parts in ten of the
feedback and half of the background are held back; the correction is learned from the others, and what is judged is what
is then used. It is judged against the classifier without any correction: an older one may have been trained on what is
held back now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tierwise.classifier.evaluate import Evaluation, Labelled, Score, evaluate
from tierwise.classifier.learned import Correction, Taught, lesson_features
from tierwise.classifier.learning import fit_correction, held_back
from tierwise.classifier.taught import background, encoded_background
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.classifier.trained import Scored, TrainedClassifier
from tierwise.core.tasks import Classification, Task

__all__ = ["Corrected", "learn_correction"]

FEEDBACK_HELD_BACK = 0.3
BACKGROUND_HELD_BACK = 0.5
_FEEDBACK_COUNTS = 3.0  # as much as so many texts of the background
_MAY_LOSE = 0.005  # of the accuracy on the background


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A correction and what it does to texts that were held back. `against` says why it should not be used."""

    correction: Correction
    trained_on: int  # texts of the feedback
    feedback_before: Score
    feedback_after: Score
    background_before: Score
    background_after: Score

    @property
    def against(self) -> tuple[str, ...]:
        """What speaks against it, in words; nothing where it may be used."""
        before, after = self.feedback_before, self.feedback_after
        found = []
        if after.top1 <= before.top1:
            found.append(
                f"of {after.n} held-back texts with feedback it gets {after.top1} right, without it {before.top1} are"
            )
        if after.too_low > before.too_low:
            found.append(f"it sends {after.too_low} of them too low, and without it {before.too_low} are")
        before, after = self.background_before, self.background_after
        if after.top1 < before.top1 - _MAY_LOSE * before.n:
            found.append(f"it gets {after.top1} of {after.n} other texts right, and without it {before.top1} are")
        if after.too_low > before.too_low:
            found.append(
                f"it sends {after.too_low} of {after.n} other texts too low, and without it {before.too_low} are"
            )
        return tuple(found)


def learn_correction(
    feedback: Mapping[str, str],
    classifier: TrainedClassifier,
    lessons: Taught | None,
    tier_of: Callable[[Classification], int],
    taxonomy: Taxonomy,
) -> Corrected:
    """Learns from feedback and judges it.

    Args:
        feedback: the right task type of each text, as the classifier sees it.
        classifier: the shipped one, untaught.
        lessons: the own types that it knows, if any.
        tier_of: the level that the policy sends a classification to.
        taxonomy: all types.
    """
    import numpy as np  # noqa: PLC0415

    built_in = [taxonomy[name] for name in classifier.artifact.types]
    taught = lessons or Taught(built_in)
    names = [*classifier.artifact.types, *(task_type.name for task_type in taught.own)]
    kept_feedback = held_back(list(feedback), FEEDBACK_HELD_BACK)
    others = background()
    kept_background = held_back([text for text, _ in others], BACKGROUND_HELD_BACK)
    learn = [(text, name) for text, name in feedback.items() if text not in kept_feedback]
    count = len(learn)
    learn += [(text, name) for text, name in others if text not in kept_background]
    scored = {**encoded_background(classifier), **{text: classifier.encode(text) for text in feedback}}
    weights, biases = fit_correction(
        np.array([lesson_features(text, scored[text].vector) for text, _ in learn]),
        np.array([taught.apply(text, scored[text])[0].scores for text, _ in learn]),
        np.array([names.index(name) for _, name in learn]),
        np.array([_FEEDBACK_COUNTS] * count + [1.0] * (len(learn) - count)),
    )
    correction = Correction(tuple(names), weights, biases)
    corrected = taught.with_correction(correction)

    def judge(rows: Sequence[tuple[str, str]], by: Taught) -> Score:
        labelled = (Labelled(task=Task(text=text), accepted=(taxonomy[name],)) for text, name in rows)
        found: Evaluation = evaluate(labelled, _Replayed(classifier, scored, by), tier_of, clock_ns=lambda: 0)
        return found.score

    of_feedback = [(text, name) for text, name in feedback.items() if text in kept_feedback]
    of_background = [(text, name) for text, name in others if text in kept_background]
    return Corrected(
        correction=correction,
        trained_on=count,
        feedback_before=judge(of_feedback, taught),
        feedback_after=judge(of_feedback, corrected),
        background_before=judge(of_background, taught),
        background_after=judge(of_background, corrected),
    )


class _Replayed:
    """A classifier over scores that are known: the encoder is asked once a text, however often it is judged."""

    def __init__(self, classifier: TrainedClassifier, scored: Mapping[str, Scored], taught: Taught) -> None:
        self._classifier = classifier
        self._scored = scored
        self._taught = taught

    def classify(self, task: Task) -> Classification:
        scored, own = self._taught.apply(task.text, self._scored[task.text])
        return self._classifier.conclude(scored, own=own)
