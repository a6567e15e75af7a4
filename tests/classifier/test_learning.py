"""What can be learned from a few texts: the numbers alone, on made-up features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tierwise.classifier.learned import BUCKETS, Correction, Lesson, Taught, lesson_features
from tierwise.classifier.learning import fit_correction, fit_type, held_back
from tierwise.classifier.trained import Scored, log_softmax
from tierwise.core.tasks import Needs, TaskType

EASY = TaskType("easy", "a", Needs.PROCESSING, True)
GRAVE = TaskType("grave", "a", Needs.CRITICAL, False)
OWN = TaskType("own", "own", Needs.PROCESSING, True)
OWN_GRAVE = TaskType("own_grave", "own", Needs.CRITICAL, False)
SIZE = BUCKETS + 3


def cloud(center: int, count: int, seed: int = 1) -> Any:
    """Texts that have one direction in common."""
    made = np.random.default_rng(seed).normal(0, 0.15, (count, 20))
    made[:, center] += 1
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def odds(fit: Any, features: Any) -> Any:
    return features @ fit.weights + fit.bias


def test_a_dozen_examples_make_a_type() -> None:
    """Examples that have something in common are told from the rest, also those that come later; figures say so."""
    fit = fit_type(cloud(0, 12), cloud(1, 200), ["other"] * 200)
    assert fit.quality.recall > 0.9
    assert fit.quality.false_alarms == 0
    assert fit.quality.near == ()
    assert (odds(fit, cloud(0, 50, seed=2)) > 0).mean() > 0.9
    assert (odds(fit, cloud(1, 50, seed=2)) < 0).all()


def test_what_cannot_be_told_apart_is_said() -> None:
    """Examples like a known type's texts: recall is low or false alarms are many, and that type is named."""
    fit = fit_type(cloud(0, 12), np.concatenate((cloud(0, 12, seed=3), cloud(1, 200))), ["twin"] * 12 + ["other"] * 200)
    assert fit.quality.near[0][0] == "twin"
    assert fit.quality.recall < 0.9 or fit.quality.false_alarms > 0.01


def test_examples_of_nothing_in_common_are_not_claimed_to_be_recognised() -> None:
    """The figures are of examples that were held back: noise is not recognised, however well it is learned."""
    noise = np.random.default_rng(5).normal(0, 1, (212, 20))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    fit = fit_type(noise[:12], noise[12:], ["other"] * 200)
    assert fit.quality.recall < 0.3


def test_learning_is_the_same_every_time() -> None:
    """The same examples give the same weights, to the bit."""
    one, two = (fit_type(cloud(0, 12), cloud(1, 60), ["other"] * 60) for _ in range(2))
    assert (one.weights == two.weights).all()
    assert one.bias == two.bias


def test_own_types_share_the_probability_with_the_built_in_ones() -> None:
    """Probabilities stay a distribution; what an own type takes, it takes from all others in proportion."""
    weights = np.zeros(SIZE, np.float32)
    taught = Taught([EASY, GRAVE], [Lesson(OWN, weights, 0.0)])
    scores = log_softmax(np.array([1.0, 0.0]))
    found, own = taught.apply("a text", Scored(scores, 0.4, vector=np.ones(3, np.float32)))
    p = np.exp(found.scores)
    assert own == (OWN,)
    assert p.sum() == pytest.approx(1)
    assert p[2] == pytest.approx(0.5)
    assert p[0] / p[1] == pytest.approx(np.e)
    assert found.critical == pytest.approx(0.2)


def test_a_critical_type_of_ones_own_counts_as_critical() -> None:
    """Its probability is part of how likely critical work is."""
    lesson = Lesson(OWN_GRAVE, np.zeros(SIZE, np.float32), 0.0)
    found, _ = Taught([EASY], [lesson]).apply("a text", Scored(np.zeros(1), 0.0, vector=np.ones(3, np.float32)))
    assert found.critical == pytest.approx(0.5)


def test_a_correction_moves_texts_like_its_feedback_and_no_others() -> None:
    """Feedback that names another type changes texts like it; texts unlike it keep their type."""
    # Eight texts that are said to be of type 1 and really are of type 2; and background of types 0 and 1.
    features = np.concatenate((cloud(2, 8), cloud(0, 40), cloud(1, 40)))
    scores = np.log(np.array([[0.1, 0.8, 0.1]] * 8 + [[0.9, 0.05, 0.05]] * 40 + [[0.05, 0.9, 0.05]] * 40))
    labels = np.array([2] * 8 + [0] * 40 + [1] * 40)
    weights, biases = fit_correction(features, scores, labels, np.array([3.0] * 8 + [1.0] * 80))

    def said(rows: Any, base: list[float]) -> set[int]:
        return set((np.log(base) + rows @ weights.T + biases).argmax(1).tolist())

    assert said(cloud(2, 30, seed=4), [0.1, 0.8, 0.1]) == {2}
    assert said(cloud(1, 30, seed=4), [0.05, 0.9, 0.05]) == {1}
    assert said(cloud(0, 30, seed=4), [0.9, 0.05, 0.05]) == {0}


def test_a_correction_never_makes_critical_work_less_likely() -> None:
    """Feedback can raise the probability of critical work; talking it down is not possible."""
    vector = np.ones(3, np.float32)
    for shift, expected in (([5.0, 0.0], 0.3), ([0.0, 5.0], 0.78)):
        correction = Correction(("easy", "grave"), np.zeros((2, SIZE), np.float32), np.array(shift, np.float32))
        taught = Taught([EASY, GRAVE], (), correction)
        found, _ = taught.apply("a text", Scored(log_softmax(np.zeros(2)), 0.3, vector=vector))
        assert found.critical == pytest.approx(expected, abs=0.02)


def test_a_correction_of_types_that_are_gone_is_no_harm() -> None:
    """Types that were removed since are left out, new ones stay as they are."""
    correction = Correction(("gone", "easy"), np.zeros((2, SIZE), np.float32), np.array([9.0, 1.0], np.float32))
    taught = Taught([EASY, GRAVE], (), correction)
    found, _ = taught.apply("a text", Scored(log_softmax(np.zeros(2)), 0.1, vector=np.ones(3, np.float32)))
    assert np.exp(found.scores)[0] == pytest.approx(np.e / (np.e + 1))


def test_features_are_bounded_and_the_same_everywhere() -> None:
    """Whatever a text is, its features have the same size and a bounded length, in every process."""
    for text in ("", "x", "a b c " * 400, "\ud800 lone", "日本語"):
        found = lesson_features(text, np.zeros(384, np.float32))
        assert found.shape == (384 + BUCKETS,)
        assert float(np.linalg.norm(found)) < 1.5
    assert lesson_features("pay the bill", np.zeros(3))[3:].nonzero()[0][:3].tolist() == [72, 293, 572]


def test_a_part_is_held_back_by_the_texts_alone() -> None:
    """Which texts are held back depends neither on their order nor on repetitions."""
    texts = [f"text {k}" for k in range(20)]
    assert held_back(texts, 0.3) == held_back([*reversed(texts), texts[0]], 0.3)
    assert len(held_back(texts, 0.3)) == 6
