"""The folder of what was taught: examples of every kind, and files that are not what they should be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tierwise.classifier.learned import BUCKETS, Correction
from tierwise.classifier.learning import Fit, Quality
from tierwise.classifier.taught import Stored, TypesFolder, background, parse_examples
from tierwise.classifier.taxonomy import load_taxonomy
from tierwise.core.errors import ConfigError, InvalidTask

SIZE = BUCKETS + 384
FIT = Fit(np.arange(SIZE, dtype=np.float32), 0.5, Quality(13, 0.85, 0.01, (("tagging", 2),), (("scoring", 7),)))
CORRECTION = Correction(("tagging", "own"), np.ones((2, SIZE), np.float32), np.zeros(2, np.float32))
FIVE = "".join(f"text number {k}\n" for k in range(5))


@pytest.fixture
def folder(tmp_path: Path) -> TypesFolder:
    """A folder in which one type and a correction were learned."""
    made = TypesFolder(tmp_path / "tierwise.types")
    with made.locked():
        made.write(Stored("e" * 64, {"own": FIT}, CORRECTION, 12))
    return made


def test_what_was_learned_comes_back(folder: TypesFolder) -> None:
    """Weights, figures and correction are read as they were written; what was there before is gone."""
    found = folder.read()
    assert found is not None
    assert (found.encoder, list(found.fits), found.feedback) == ("e" * 64, ["own"], 12)
    assert (found.fits["own"].weights == FIT.weights).all()
    assert found.fits["own"].quality == FIT.quality
    assert found.correction is not None
    assert found.correction.types == CORRECTION.types
    with folder.locked():
        folder.write(dataclasses.replace(found, correction=None, fits={}))
    again = folder.read()
    assert again is not None
    assert (again.correction, dict(again.fits)) == (None, {})
    assert len(list(folder.path.glob("learned-*.npz"))) == 1


def test_nothing_was_taught(tmp_path: Path) -> None:
    """A folder that is not there, or has examples only, has taught nothing; reading makes none."""
    folder = TypesFolder(tmp_path / "tierwise.types")
    assert folder.read() is None
    assert folder.names() == ()
    assert not folder.path.exists()


def test_damage_is_refused_with_what_to_do(folder: TypesFolder) -> None:
    """Whichever file is cut, changed, missing or of another kind: an error says where, and how to learn anew."""
    manifest, (weights,) = folder.path / "manifest.json", folder.path.glob("learned-*.npz")
    good, plain = weights.read_bytes(), json.loads(manifest.read_text())
    for broken in (b"", good[:-9], good[:200] + b"\x00" + good[201:], b"\x80\x04pickle"):
        weights.write_bytes(broken)
        with pytest.raises(ConfigError, match=r"damaged.*`tierwise types relearn`"):
            folder.read()
    weights.unlink()
    with pytest.raises(ConfigError, match="is missing"):
        folder.read()
    weights.write_bytes(good)
    for changed in (
        {**plain, "types": plain["types"] * 2},
        {**plain, "types": [{"name": "own"}]},
        {**plain, "correction": {"types": ["x"], "feedback": 1}},
        {**plain, "file": "../../../etc/passwd"},
        {**plain, "schema": "1"},
        [],
        "x",
    ):
        manifest.write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match="damaged"):
            folder.read()
    for text in (b"", b"{", b"\xff\xfe", b"[" * 5000):
        manifest.write_bytes(text)
        with pytest.raises(ConfigError, match="damaged"):
            folder.read()


def test_numbers_that_are_none_are_refused(folder: TypesFolder) -> None:
    """A weight that is not a number would spoil every classification."""
    bad = dataclasses.replace(FIT, weights=np.full(SIZE, np.nan, np.float32))
    with folder.locked():
        folder.write(Stored("e", {"own": bad}))
    with pytest.raises(ConfigError, match="other than numbers"):
        folder.read()


def test_a_newer_folder_is_refused(folder: TypesFolder) -> None:
    """What a newer version wrote is not guessed at."""
    manifest = folder.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ConfigError, match="a newer tierwise wrote it; upgrade"):
        folder.read()


@pytest.mark.parametrize("marker", ["\ufeff", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_examples_are_lines_or_json_lines(marker: str, end: str) -> None:
    """Both forms give the same examples; blank lines and repetitions are left out."""
    texts = ["eins", "deux ça va", "三つ目", "four", "five", "five"]
    plain = parse_examples((marker + end.join((*texts, "", "  ")) + end).encode(), "x")
    rows = parse_examples((marker + end.join(json.dumps({"text": text}) for text in texts)).encode(), "x")
    assert plain == rows
    assert (plain.texts, plain.duplicates) == (tuple(texts[:5]), 1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "has 0 different examples; a type needs at least 5"),
        (b"\n \n", "has 0 different"),
        (b"same\n" * 50, "has 1 different example;"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (FIVE.encode() + b"\x00", "is not a text file"),
        (b'{"text": "a"}\nplain\n', "line 2 is not JSON"),
        (b'{"texts": "a"}\n', "line 1 has no text"),
        (b'{"text": 3}\n', "line 1 has no text"),
        (b"x" * (8 * 1024 * 1024 + 1), "more than 8 MB"),
        ("".join(f"{k}\n" for k in range(2_001)).encode(), "2,001 examples"),
    ],
)
def test_hostile_examples_are_refused_in_words(data: bytes, says: str) -> None:
    """What is no list of examples is an error that says what is wrong with it."""
    with pytest.raises(InvalidTask, match=says):
        parse_examples(data, "x")


def test_a_long_example_is_cut_as_the_classifier_would(folder: TypesFolder) -> None:
    """Of a long text only head and tail are kept, and the examples of the folder are those that were learned."""
    found = parse_examples((FIVE + "long " * 100_000).encode(), "x")
    assert len(found.texts) == 6
    assert max(map(len, found.texts)) < 1_300
    folder.keep_examples("own", found)
    assert folder.examples("own").texts == found.texts
    assert folder.names() == ("own",)


def test_background_has_every_type_and_stays_small() -> None:
    """A dozen texts of each type, none twice, in a quarter of a megabyte."""
    texts = background()
    names = [name for _, name in texts]
    assert {names.count(name) for name in load_taxonomy()} == {12}
    assert len({text for text, _ in texts}) == len(texts)
