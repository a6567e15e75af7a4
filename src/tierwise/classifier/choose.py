"""Which classifier is used: the trained one where it can run, the rules otherwise or on request."""

from __future__ import annotations

import importlib.util

from tierwise.classifier.artifact import shipped_folder
from tierwise.classifier.base import Classifier
from tierwise.classifier.rules import RuleClassifier
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.classifier.trained import TrainedClassifier

__all__ = ["choose_classifier"]


def choose_classifier(taxonomy: Taxonomy, kind: str = "trained") -> Classifier:
    """The classifier of that kind (`trained` or `rules`).

    Where the trained one cannot run (no onnxruntime for this platform, or its files were left out), it is the rules:
    they abstain more often, which sends more work up, never down.
    """
    if kind == "trained" and importlib.util.find_spec("onnxruntime") and (shipped_folder() / "manifest.json").is_file():
        return TrainedClassifier(taxonomy)
    return RuleClassifier(taxonomy)
