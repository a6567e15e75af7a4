"""The corpus of the classifier has no fault, and each fault that it could have is found."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import corpus
from corpus import CorpusError, Floors, Form, Row, Split, assign, check, clusters, leaks, load, main

SMALL = Floors(rows=3)
LONG = "the harbour office counts every crane that moves between the two piers after dark on a Sunday"  # over ten words


@cache
def real_rows() -> tuple[Row, ...]:
    """The corpus itself, read once."""
    return tuple(load())


def row(text: str, kind: str = "advice", pair: str | None = None) -> Row:
    """A row of which only the text, the type and the pair matter."""
    return Row(text=text, type=kind, form=Form.PROMPT, lang="en", hard=False, pair=pair, where=text[:10])


def entry(text: str, kind: str = "advice", **other: Any) -> dict[str, Any]:
    """A line's value."""
    return {"text": text, "type": kind, "form": "prompt", "lang": "en", "hard": True, "pair": None} | other


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of four rows a type in which nothing is wrong."""
    for kind in corpus.known_types():
        lines = [
            entry(f"{kind} one", kind),
            entry(f"{kind} two", kind),
            entry(f"{kind} drei", kind, lang="de", hard=False),
            entry(f"{kind} vier", kind, lang="de", hard=False),
        ]
        (tmp_path / f"{kind}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def append(folder: Path, *lines: str | dict[str, Any], kind: str = "advice") -> None:
    """Write lines at the end of a type's file."""
    with (folder / f"{kind}.jsonl").open("a", encoding="utf-8") as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


# --- the real corpus ------------------------------------------------------------------------------------------------


def test_the_corpus_has_no_fault() -> None:
    """Every line is well formed, nothing stands twice, types are balanced, counts are current, no split leaks."""
    assert check() == []


def test_each_split_has_its_share_and_every_type() -> None:
    """Splits of the corpus come near the shares that they are drawn by, and no type is missing from one."""
    rows = real_rows()
    splits = assign(rows)
    sizes = Counter(splits)
    assert {split: sizes[split] / len(rows) for split in Split} == pytest.approx(dict(corpus.SHARES), abs=0.02)
    assert len({(row.type, split) for row, split in zip(rows, splits, strict=True)}) == 58 * 3


def test_splitting_the_corpus_by_rows_would_leak() -> None:
    """The leak check can fail on the corpus: drawn row by row, pairs and shared payloads are torn apart."""
    rows = real_rows()
    by_row = list(itertools.islice(itertools.cycle(Split), len(rows)))
    assert len(leaks(rows, by_row)) > 100
    assert leaks(rows, assign(rows)) == []


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_sound_corpus_passes(folder: Path) -> None:
    """What the following tests break is whole before."""
    assert check(folder, SMALL) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("", "not JSON"),
        ("{'text': 1}", "not JSON"),
        ("[1]", "needs the keys"),
        (json.dumps(entry("a b") | {"hard": None}).replace("null", "NaN", 1), "NaN is not JSON"),
        (json.dumps(entry("a b"))[:-1] + ', "text": "c"}', "a key stands twice"),
        (entry("a b") | {"note": "x"}, "needs the keys"),
        ({key: value for key, value in entry("a b").items() if key != "pair"}, "needs the keys"),
        (entry("  "), "text must be"),
        (entry("a b") | {"text": 7}, "text must be"),
        (entry("bell \x07"), "U+0007"),
        (entry("wrongly decoded \ufffd"), "U+FFFD"),
        (entry("half \ud83d"), "U+D83D"),
        (entry("turned \u202e round"), "U+202E"),
        (entry("a b", "poetry"), "'poetry' is not a task type"),
        (entry("a b", form="email"), "form 'email'"),
        (entry("a b", lang="english"), "lang 'english'"),
        (entry("a b", hard="yes"), "hard must be"),
        (entry("a b", hard=1), "hard must be"),
        (entry("a b", pair="A pair"), "pair 'A pair'"),
        (entry("a b", pair=3), "pair 3"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: str | dict[str, Any], fault: str) -> None:
    """A line that breaks the format is reported with its file, number and what is wrong, and is not loaded."""
    append(folder, line)
    (found,) = check(folder, SMALL)
    assert found.startswith("advice.jsonl:5: ")
    assert fault in found
    with pytest.raises(CorpusError, match=r"advice\.jsonl:5"):
        load(folder)


def test_bytes_that_are_not_utf_8_are_named(folder: Path) -> None:
    """A file in another encoding is refused at the byte where it shows."""
    with (folder / "advice.jsonl").open("ab") as file:
        file.write('{"text": "größer"}\n'.encode("latin-1"))
    assert check(folder, SMALL) == ["advice.jsonl:5: not UTF-8 at byte 12"]


def test_a_file_that_does_not_end_is_named(folder: Path) -> None:
    """A last line without its newline, on which an appended row would land, is reported."""
    path = folder / "advice.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    (found,) = check(folder, SMALL)
    assert "add a newline" in found


def test_a_row_in_the_wrong_file_is_named(folder: Path) -> None:
    """A file holds the rows of the type that it is named for."""
    append(folder, entry("which bicycle suits me"), kind="planning")
    (found,) = check(folder, SMALL)
    assert found == "planning.jsonl:5: type advice in the file of planning; move it to advice.jsonl"


def test_a_file_of_no_type_is_named(folder: Path) -> None:
    """A file that is named for no task type is reported."""
    (folder / "more.jsonl").write_text(json.dumps(entry("which bicycle suits me")) + "\n", encoding="utf-8")
    assert check(folder, SMALL)[0] == "more.jsonl: not named for a task type; rows stand in <type>.jsonl"


def test_an_empty_folder_is_no_corpus(tmp_path: Path) -> None:
    """A wrong path is said to hold nothing, rather than to be without fault."""
    assert "no .jsonl file" in check(tmp_path, SMALL)[0]


@pytest.mark.parametrize("copy", ["suggest a laptop", "Suggest a laptop!", "suggestALaptop", "suggest_a_laptop"])
def test_the_same_words_twice_are_a_fault(folder: Path, copy: str) -> None:
    """Case, punctuation and the style of identifiers do not make a second example."""
    append(folder, entry("suggest a laptop"), entry(copy))
    assert check(folder, SMALL) == ["advice.jsonl:6: the same words as advice.jsonl:5; remove one"]


def test_the_same_words_as_two_types_are_a_fault(folder: Path) -> None:
    """One text cannot be an example of two types."""
    append(folder, entry("suggest a laptop"))
    append(folder, entry("Suggest a laptop", "planning"), kind="planning")
    (found,) = check(folder, SMALL)
    assert "there as advice" in found


def test_a_long_text_with_one_word_changed_is_a_fault(folder: Path) -> None:
    """A copy that differs in next to nothing adds no example to its type."""
    payload = " ".join(f"entry{number}" for number in range(400))
    append(folder, entry(f"{payload} first"), entry(f"{payload} last"))
    (found,) = check(folder, SMALL)
    assert found.startswith("advice.jsonl:6: nearly the words of advice.jsonl:5")


def test_one_payload_may_be_asked_different_things(folder: Path) -> None:
    """The same payload under another type is how a boundary is taught, and no fault."""
    payload = " ".join(f"entry{number}" for number in range(400))
    append(folder, entry(f"{payload} first"))
    append(folder, entry(f"{payload} last", "planning"), kind="planning")
    assert check(folder, SMALL) == []


def test_a_pair_needs_two_types(folder: Path) -> None:
    """A pair of one row, or of rows of one type, shows no boundary."""
    append(folder, entry("left over", pair="p1"), entry("on this side", pair="p2"), entry("here too", pair="p2"))
    assert [fault.split(";")[0] for fault in check(folder, SMALL)] == [
        "advice.jsonl:5: pair p1 has no row of another type",
        "advice.jsonl:6: pair p2 has no row of another type",
    ]


def test_each_type_has_its_floors(folder: Path) -> None:
    """Too few rows, too few hard ones and too few in other languages are reported type by type."""
    (folder / "advice.jsonl").write_text(json.dumps(entry("one", hard=False)) + "\n", encoding="utf-8")
    assert check(folder, SMALL) == [
        "advice.jsonl: 1 rows; needs 3",
        "advice.jsonl: 0 of 1 rows are hard; needs 33%",
        "advice.jsonl: 0 of 1 rows are not English; needs 8%",
    ]


def test_a_missing_type_is_a_fault(folder: Path) -> None:
    """A type without a file is not overlooked."""
    (folder / "advice.jsonl").unlink()
    assert check(folder, SMALL) == ["advice.jsonl: 0 rows; needs 3"]


def test_counts_that_are_not_current_are_a_fault(folder: Path) -> None:
    """The README's counts are those of the rows, and one command brings them up to date."""
    readme = folder / "README.md"
    readme.write_text(f"before\n{corpus._BEGIN}\nold\n{corpus._END}\nafter\n", encoding="utf-8")
    (found,) = check(folder, SMALL)
    assert "stats --write" in found
    assert main(["--folder", str(folder), "stats", "--write"]) == 0
    assert check(folder, SMALL) == []
    assert readme.read_text(encoding="utf-8").startswith("before\n")
    assert "| advice | 4 | 2 | 2 | 0 |" in readme.read_text(encoding="utf-8")


# --- clusters and splits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(row("one side", pair="p"), row("the other", "planning", pair="p"), id="a pair"),
        pytest.param(row(f"Shorten: {LONG}"), row(f"{LONG} Who wrote this?", "planning"), id="a payload"),
        pytest.param(row("tests for the importer"), row("importer for the tests", "planning"), id="words in any order"),
        pytest.param(
            row("港湾事務所は毎晩二つの埠頭の間"), row("「港湾事務所は毎晩二つの埠頭」を訳して"), id="no spaces"
        ),
    ],
)
def test_what_hangs_together_is_one_cluster(left: Row, right: Row) -> None:
    """Pairs, shared payloads and reordered labels are tied; a text beside them is not."""
    assert clusters([left, row("quite another matter"), right]) == [0, 1, 0]


def test_ties_reach_over_a_third_row() -> None:
    """Two rows that share nothing are one cluster where a third ties them."""
    rows = [row("one side", pair="p"), row(LONG), row(f"{LONG} and?", "planning", pair="p")]
    assert clusters(rows) == [0, 0, 0]


def test_nine_words_in_common_are_chance() -> None:
    """A turn of phrase does not tie two texts."""
    nine = "answer with one word only and say nothing else"
    assert clusters([row(f"{nine}: red or blue, please"), row(f"{nine}; is it late in the day")]) == [0, 1]


def test_new_rows_move_no_others() -> None:
    """A split is read from the cluster's own text: neither further rows nor another order reshuffle it."""
    rows = list(real_rows())
    kept = rows[::3]
    before = {one.text: split for one, split in zip(kept, assign(kept), strict=True)}
    fresh = [row(f"an unheard of sentence {number}") for number in range(500)]
    after = {one.text: split for one, split in zip(fresh + kept[::-1], assign(fresh + kept[::-1]), strict=True)}
    assert {text: after[text] for text in before} == before


def test_a_draw_is_the_same_everywhere() -> None:
    """Splits are fixed by the text alone: no seed, platform or version of Python changes them."""
    drawn = {
        "suggest a laptop": Split.TRAIN,
        "écris un poème": Split.TRAIN,
        "which queue takes this": Split.TEST,
        "要約して": Split.TEST,
    }
    assert dict(zip(drawn, assign([row(text) for text in drawn]), strict=True)) == drawn


@pytest.mark.parametrize("tear", [lambda one: one, lambda one: dataclasses.replace(one, pair=None, text=LONG + " so")])
def test_a_torn_tie_is_a_leak(tear: Callable[[Row], Row]) -> None:
    """A pair or a payload that stands in two splits is reported with both places and what they share."""
    left, right = row(LONG, pair="p"), tear(row("other words", "planning", pair="p"))
    assert leaks([left, right], [Split.TRAIN, Split.TRAIN]) == []
    (found,) = leaks([left, right], [Split.TRAIN, Split.TEST])
    assert "(test)" in found
    assert "(train)" in found


# --- command line ---------------------------------------------------------------------------------------------------


def test_check_fails_where_there_is_a_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's exit status is that of its findings: here, four rows a type are too few."""
    assert main(["--folder", str(folder), "check"]) == 1
    assert "advice.jsonl: 4 rows; needs 120" in capsys.readouterr().out


def test_split_writes_every_row_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The written splits hold the corpus, no row twice and none lost, in the corpus's own format."""
    target = tmp_path / "splits"
    assert main(["--folder", str(folder), "split", "--to", str(target)]) == 0
    written = [json.loads(line) for split in Split for line in (target / f"{split}.jsonl").open(encoding="utf-8")]
    assert sorted(line["text"] for line in written) == sorted(one.text for one in load(folder))
    assert {tuple(line) for line in written} == {corpus.KEYS}
    assert "fewest of a type" in capsys.readouterr().out


def test_a_bad_corpus_is_not_split(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of format stops the other commands with the line's place."""
    append(folder, "{")
    assert main(["--folder", str(folder), "split", "--to", str(tmp_path / "splits")]) == 1
    assert "advice.jsonl:5" in capsys.readouterr().err
