"""Which classifier is used: the trained one where it can run, the rules otherwise or on request."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from tierwise.classifier.artifact import shipped_artifact, shipped_folder
from tierwise.classifier.base import Classifier
from tierwise.classifier.rules import RuleClassifier
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.classifier.trained import TrainedClassifier

__all__ = ["choose_classifier"]


def choose_classifier(taxonomy: Taxonomy, kind: str = "trained", taught: Iterable[Path] = ()) -> Classifier:
    """The classifier of that kind (`trained` or `rules`), with what was taught in the folders named.

    Where the trained one cannot run (no onnxruntime for this platform, or its files were left out), it is the rules:
    they abstain more often, which sends more work up, never down. The rules are not taught: a type of the user's own
    must be named by the caller there.

    Raises:
        ConfigError: what was taught is damaged, or for another version.
    """
    if kind != "trained" or not importlib.util.find_spec("onnxruntime") or not _shipped():
        return RuleClassifier(taxonomy)
    folders = [path for path in taught if (path / "manifest.json").exists()]
    if not folders:
        return TrainedClassifier(taxonomy)  # which reads its artifact when a text needs it
    from tierwise.classifier.taught import load_taught  # noqa: PLC0415  only for whoever taught it something

    artifact = shipped_artifact()
    return TrainedClassifier(taxonomy, artifact, load_taught(folders, taxonomy, artifact))


def _shipped() -> bool:
    return (shipped_folder() / "manifest.json").is_file()
