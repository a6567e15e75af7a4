"""The report card of the classifier is that of the classifier that ships."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from corpus import Form, Row, digest
from report_card import (
    FOLDER,
    PAGE,
    RELIABILITY,
    RISK_COVERAGE,
    TIMINGS,
    TIMINGS_END,
    LengthClassifier,
    reliability_picture,
    risk_coverage_picture,
    without_timings,
)
from tierwise.classifier import load_taxonomy
from tierwise.classifier.artifact import shipped_folder
from tierwise.classifier.evaluate import Evaluation, Labelled, evaluate
from tierwise.core.tasks import Task

TAXONOMY = load_taxonomy()
SVG = "{http://www.w3.org/2000/svg}"
STALE = "run: python tools/report_card.py"


@pytest.fixture(scope="module")
def length() -> LengthClassifier:
    """Learnt from short texts that are translation, and long ones that are debugging, but for one."""
    short = [("x" * k, "translation") for k in range(1, 21)]
    long = [("x" * k, "debugging") for k in range(100, 120)]
    return LengthClassifier([*short, *long, ("x" * 119, "planning")], TAXONOMY, quantiles=2)


@pytest.fixture(scope="module")
def found(length: LengthClassifier) -> Evaluation:
    """Of three texts, two of them right."""
    rows = [
        Labelled(task=Task(text=text), accepted=(TAXONOMY[name],))
        for text, name in (("a", "translation"), ("b" * 110, "debugging"), ("c" * 110, "planning"))
    ]
    return evaluate(rows, length, lambda said: 0, clock_ns=lambda: 0)


def test_page_is_of_the_shipped_models() -> None:
    """The digests on the page are those of the manifest: new models, thresholds or corpus need a new page."""
    text = (FOLDER / PAGE).read_text("utf-8")
    raw = (shipped_folder() / "manifest.json").read_bytes()
    manifest = json.loads(raw)
    told = dict(re.findall(r"^- (corpus|encoder|manifest): `([0-9a-f]{64})`$", text, flags=re.MULTILINE))
    assert told == {
        "corpus": manifest["corpus_sha256"],
        "encoder": manifest["files"]["encoder.onnx"],
        "manifest": hashlib.sha256(raw).hexdigest(),
    }, STALE


@pytest.mark.parametrize("name", [RELIABILITY, RISK_COVERAGE])
def test_pictures_stand_by_themselves(name: str) -> None:
    """A picture of the page is well-formed SVG that loads nothing and has a ground of its own, light and dark."""
    assert f"]({name})" in (FOLDER / PAGE).read_text("utf-8")
    text = (FOLDER / name).read_text("utf-8")
    root = ElementTree.fromstring(text)  # noqa: S314  our own file
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}title") is not None
    assert root.find(f"{SVG}rect[@class='ground']") is not None
    assert "prefers-color-scheme: dark" in text
    assert "href" not in text
    assert "url(" not in text


def test_corpus_digest_does_not_depend_on_the_order() -> None:
    """Moving a row from file to file changes nothing; changing its text or type does."""
    one, two = (Row(text, "advice", Form.LABEL, "en", False, None, "") for text in "ab")
    other = Row("b", "planning", Form.LABEL, "en", False, None, "")
    assert digest([one, two]) == digest([two, one]) != digest([one, other])


def test_length_alone_says_the_most_frequent_type_of_that_length(length: LengthClassifier) -> None:
    """The baseline knows lengths only; its confidence is the type's share among the training texts of that length."""
    short, long = (length.classify(Task(text="y" * n)) for n in (3, 5_000))
    assert (short.task_type.name, long.task_type.name) == ("translation", "debugging")
    assert short.confidence == 1.0
    assert 0.9 < long.confidence < 1.0
    assert [other.task_type.name for other in long.alternatives] == ["planning"]


@pytest.mark.parametrize("draw", [reliability_picture, risk_coverage_picture])
def test_figures_stand_where_they_belong(draw: Callable[[dict[str, Evaluation]], str], found: Evaluation) -> None:
    """Every dot lies within the axes, and there is one for each figure."""
    root = ElementTree.fromstring(draw({"trained": found}))  # noqa: S314  just drawn
    dots = [dot for dot in root.iter(f"{SVG}circle") if float(dot.attrib["cx"]) <= 424]
    bins = sum(bool(b.n) for b in found.reliability)
    assert len(dots) == (bins if draw is reliability_picture else len(found.risk_coverage))
    for dot in dots:
        assert 64 <= float(dot.attrib["cx"]) <= 424
        assert 40 <= float(dot.attrib["cy"]) <= 400


def test_a_fresh_page_may_differ_in_its_timings_only() -> None:
    """What `--check` compares leaves out what stands between the marks, and nothing else."""
    first, second = (f"a\n{TIMINGS}\n{ms} ms\n{TIMINGS_END}\nb\n" for ms in (3, 4))
    assert without_timings(first) == without_timings(second)
    assert without_timings(first) != without_timings(second.replace("b", "c"))
    assert TIMINGS in (FOLDER / PAGE).read_text("utf-8")
