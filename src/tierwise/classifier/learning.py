"""How own types and corrections are learned: small convex problems over fixed features. Pure and deterministic.

There are far fewer texts than features, so everything is solved over the texts: weights are a combination of the
texts' features, and only their products with each other (the Gram matrix) are needed. Each own type is a logistic
regression of its examples against the background and the other own types. How sure it may be is fitted on texts that it
was not trained on: every text gets a score from a model that was trained without its fold.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Fit", "Quality", "fit_correction", "fit_type", "held_back"]

_PENALTY = 0.05
_FOLDS = 5
_SHARE = 0.1  # of all texts that are of an own type, as assumed where it is said how likely it is
_NEWTON_STEPS = 50
_NEAR = 0.25  # a background text this likely to be of the own type is too near
_CORRECTION_PENALTY = 0.1
_CORRECTION_STEPS = 300


@dataclass(frozen=True, slots=True)
class Quality:
    """How well an own type is told from the rest, on texts that were not trained on.

    `recall` is the share of its examples that are recognised (more likely it than not), `false_alarms` the share of the
    background that is taken for it, `near` the types whose texts come near it, with how many do, `resembles` the
    built-in types that the shipped classifier would take its examples for, with how many.
    """

    examples: int
    recall: float
    false_alarms: float
    near: tuple[tuple[str, int], ...] = ()
    resembles: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights over the features and a bias: the score is the log-odds against everything else."""

    weights: Any
    bias: float
    quality: Quality


def fit_type(examples: Any, background: Any, labels: Sequence[str]) -> Fit:
    """Learns one type.

    Args:
        examples: features of its examples, a row each; at least two.
        background: features of texts that are of other types.
        labels: whose they are, for what is said of near types.
    """
    import numpy as np  # noqa: PLC0415

    count, rest = len(examples), len(background)
    center = background.mean(0)
    # A constant feature is the bias: regularised like the rest, it needs no case of its own.
    rows = np.concatenate((np.concatenate((examples, background)) - center, np.ones((count + rest, 1))), 1)
    gram = rows @ rows.T
    targets = np.concatenate((np.ones(count), np.zeros(rest)))
    weights = np.concatenate((np.full(count, rest * _SHARE / (1 - _SHARE) / count), np.ones(rest)))
    unseen = np.empty(count + rest)
    # Examples and background are dealt out in turn, so that every fold has its part of both.
    fold = np.concatenate((np.arange(count), np.arange(rest))) % min(_FOLDS, count)
    for k in range(min(_FOLDS, count)):
        kept, left = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        unseen[left] = gram[np.ix_(left, kept)] @ _logistic(gram[np.ix_(kept, kept)], targets[kept], weights[kept])
    scale, shift = _calibrate(unseen, targets, weights)
    alpha = _logistic(gram, targets, weights)
    found = rows.T @ alpha
    likely = 1 / (1 + np.exp(-(scale * unseen + shift)))
    near = Counter(label for label, p in zip(labels, likely[count:], strict=True) if p >= _NEAR)
    return Fit(
        weights=(scale * found[:-1]).astype(np.float32),
        bias=float(scale * (found[-1] - found[:-1] @ center) + shift),
        quality=Quality(
            examples=count,
            recall=float((likely[:count] >= 0.5).mean()),
            false_alarms=float((likely[count:] >= 0.5).mean()),
            near=tuple(sorted(near.items(), key=lambda item: (-item[1], item[0]))),
        ),
    )


def _logistic(gram: Any, targets: Any, weights: Any) -> Any:
    """The combination of texts that minimises weighted logistic loss plus the penalty, by Newton's method."""
    import numpy as np  # noqa: PLC0415

    def loss(alpha: Any, scores: Any) -> float:
        return float(weights @ np.logaddexp(0, np.where(targets > 0, -scores, scores)) + _PENALTY / 2 * alpha @ scores)

    alpha, scores = np.zeros(len(targets)), np.zeros(len(targets))
    now = loss(alpha, scores)
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-scores))
        curve = np.maximum(weights * p * (1 - p), 1e-9)
        wanted = scores + weights * (targets - p) / curve
        root = np.sqrt(curve)
        system = root[:, None] * gram * root
        system[np.diag_indices_from(system)] += _PENALTY
        step = root * np.linalg.solve(system, root * wanted) - alpha
        size = 1.0
        while True:
            tried = alpha + size * step
            scores = gram @ tried
            then = loss(tried, scores)
            if then <= now or size < 1e-4:
                break
            size /= 2
        alpha = tried
        if now - then < 1e-9 * (1 + abs(now)):
            break
        now = then
    return alpha


def _calibrate(scores: Any, targets: Any, weights: Any) -> tuple[float, float]:
    """Scale and shift that make the log-odds of unseen texts honest (Platt's method, with his smoothed targets)."""
    import numpy as np  # noqa: PLC0415

    yes = targets > 0
    wanted = np.where(yes, (yes.sum() + 1) / (yes.sum() + 2), 1 / ((~yes).sum() + 2))
    design = np.stack((scores, np.ones(len(scores))), 1)
    found = np.array([1.0, 0.0])
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-(design @ found)))
        slope = design.T @ (weights * (p - wanted)) + 1e-3 * (found - [1.0, 0.0])
        curve = (design.T * (weights * p * (1 - p))) @ design + 1e-3 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        found = found - step / max(1.0, float(np.abs(step).max()))  # never further than 1 at once
        if np.abs(step).max() < 1e-6:
            break
    return max(float(found[0]), 0.0), float(found[1])


def fit_correction(features: Any, scores: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
    """What to add to log-probabilities: weights (types × features) and biases (types).

    Args:
        features: a row for each text.
        scores: log-probabilities of the types as they are, a row for each text.
        labels: the number of the right type of each text.
        weights: how much each text counts.
    """
    import numpy as np  # noqa: PLC0415

    center = features.mean(0)
    rows = (features - center).astype(np.float64)
    gram = rows @ rows.T
    wanted = np.zeros_like(scores)
    wanted[np.arange(len(labels)), labels] = 1
    # Gradient descent with Nesterov's momentum; it curves at most by half the largest eigenvalue, and the penalty.
    root = np.sqrt(weights)
    largest = float(np.linalg.eigvalsh(root[:, None] * gram * root)[-1])
    rate = 1 / (largest / 2 + _CORRECTION_PENALTY)
    alpha, ahead = np.zeros_like(scores), np.zeros_like(scores)
    for step in range(_CORRECTION_STEPS):
        moved = scores + gram @ ahead
        moved = np.exp(moved - moved.max(1, keepdims=True))
        moved /= moved.sum(1, keepdims=True)
        new = ahead - rate * (weights[:, None] * (moved - wanted) + _CORRECTION_PENALTY * ahead)
        ahead = new + step / (step + 3) * (new - alpha)
        alpha = new
    found = alpha.T @ rows
    return found.astype(np.float32), (-found @ center).astype(np.float32)


def held_back(texts: Sequence[str], share: float) -> frozenset[str]:
    """The texts that are kept from training, to judge it by: those with the smallest digests."""
    ordered = sorted(set(texts), key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return frozenset(ordered[: math.ceil(share * len(ordered))])
