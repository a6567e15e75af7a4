"""The corpus that the classifier is trained on: its format, its checks, and how it is split.

    python tools/corpus.py check    every fault of corpus/, one a line; exit status 1 where there is one
    python tools/corpus.py stats    the counts, as they stand in corpus/README.md; --write puts them there
    python tools/corpus.py split    sizes of the splits; --to FOLDER writes train.jsonl, calibration.jsonl, test.jsonl

Two texts that share a payload, or were written as a pair, are not independent: a model that was trained on one has
seen half of the other, and a test on it flatters. So splits are drawn over clusters, not over rows. A cluster is what
hangs together by pair ids, by ten words in a row, or, where a text is shorter than that, by the same words in any
order. Where a cluster goes is read from a hash of its smallest text: a new row moves no cluster but one that it joins.

`load`, `clusters` and `assign` are for the program that trains. Nothing here needs more than the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Never

__all__ = [
    "CorpusError",
    "Floors",
    "Form",
    "Row",
    "Split",
    "assign",
    "check",
    "clusters",
    "digest",
    "leaks",
    "load",
    "main",
]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "corpus"
TASK_TYPES = ROOT / "src" / "tierwise" / "data" / "task_types.toml"

KEYS = ("text", "type", "form", "lang", "hard", "pair")
SHINGLE_WORDS = 10  # long enough that two writers do not meet by chance, short enough to find a quoted line
COPY = 0.95  # this share of two texts' shingles in common, and the second one teaches nothing


class Form(StrEnum):
    """The shape in which the work reaches the router."""

    LABEL = "label"
    PROMPT = "prompt"
    TOOL = "tool"
    AGENT = "agent"
    CASUAL = "casual"
    SYSTEM = "system"


class Split(StrEnum):
    """What a row is used for."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    TEST = "test"


SHARES = ((Split.TRAIN, 0.84), (Split.CALIBRATION, 0.07), (Split.TEST, 0.09))


@dataclass(frozen=True, slots=True)
class Row:
    """One example: a text and what it asks for."""

    text: str
    type: str
    form: Form
    lang: str  # ISO 639-1 code of the language in which the work is asked for
    hard: bool
    pair: str | None  # rows with the same id differ little in words and much in what they ask for
    where: str  # file:line, for messages


@dataclass(frozen=True, slots=True)
class Floors:
    """The least that each type must have."""

    rows: int = 120
    hard: float = 1 / 3
    not_english: float = 0.08


class CorpusError(Exception):
    """The corpus cannot be read; says which line and why."""


# --- reading ------------------------------------------------------------------------------------------------------


def known_types(path: Path = TASK_TYPES) -> tuple[str, ...]:
    """The names of the task types, in the taxonomy's order."""
    return tuple(entry["name"] for entry in tomllib.loads(path.read_text(encoding="utf-8"))["types"])


def load(folder: Path = FOLDER) -> list[Row]:
    """Every row, by file name and line: the same order everywhere. Raises `CorpusError` at the first bad line."""
    rows, faults = _read(folder)
    if faults:
        raise CorpusError(f"{faults[0]} ({len(faults)} in all; `python tools/corpus.py check` lists them)")
    return rows


def _read(folder: Path) -> tuple[list[Row], list[str]]:
    types = frozenset(known_types())
    rows: list[Row] = []
    faults: list[str] = []
    files = sorted(folder.glob("*.jsonl"), key=lambda file: file.name)
    if not files:
        return [], [f"{folder}: no .jsonl file"]
    for file in files:
        if file.stem not in types:
            faults.append(f"{file.name}: not named for a task type; rows stand in <type>.jsonl")
        content = file.read_bytes()
        if not content.endswith(b"\n"):
            faults.append(f"{file.name}: the last line does not end; add a newline")
        for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
            where = f"{file.name}:{number}"
            try:
                row = _row(line, where, types)
            except ValueError as error:
                faults.append(f"{where}: {error}")
                continue
            rows.append(row)
            if row.type != file.stem:
                faults.append(f"{where}: type {row.type} in the file of {file.stem}; move it to {row.type}.jsonl")
    return rows, faults


def _row(line: bytes, where: str, types: frozenset[str]) -> Row:
    """The row of one line; ValueError says what is wrong with it."""
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_object, parse_constant=_not_json)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(value, dict) or tuple(value) != KEYS:
        found = ", ".join(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"needs the keys {', '.join(KEYS)}, in this order; has {found}")
    text, kind, form, lang, hard, pair = (value[key] for key in KEYS)
    if not isinstance(text, str) or not text.strip():
        raise ValueError("text must be a string with something in it")
    if garbage := _GARBAGE.search(text):
        raise ValueError(f"text holds U+{ord(garbage.group()):04X} at {garbage.start()}; take it out")
    if kind not in types:
        raise ValueError(f"type {kind!r} is not a task type")
    if form not in tuple(Form):
        raise ValueError(f"form {form!r} is none of {', '.join(Form)}")
    if not isinstance(lang, str) or not re.fullmatch(r"[a-z]{2}", lang):
        raise ValueError(f"lang {lang!r} is not a two-letter code")
    if not isinstance(hard, bool):
        raise ValueError(f"hard must be true or false, is {hard!r}")
    if pair is not None and not (isinstance(pair, str) and re.fullmatch(r"[a-z0-9_.-]+", pair)):
        raise ValueError(f"pair {pair!r} must be null or an id of a-z, 0-9, '_', '.' and '-'")
    return Row(text=text, type=kind, form=Form(form), lang=lang, hard=hard, pair=pair, where=where)


# Control characters but tab and line ends, lone surrogates, the replacement character that a wrong decoding leaves,
# private use, noncharacters, and what reorders or splits unseen. Joiners stay: some scripts and emoji need them.
_GARBAGE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069"
    "\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufeff\ufffd-\uffff]"
)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _not_json(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


# --- clusters and splits --------------------------------------------------------------------------------------------

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"  # written without spaces: each sign counts as a word
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words(text: str) -> tuple[str, ...]:
    """The words of a text, without case, punctuation and the case style of identifiers."""
    return tuple(_WORD.findall(_HUMP.sub(" ", text).casefold()))


def _shingles(text: str) -> set[tuple[str, ...]]:
    """Every ten words in a row; of a shorter text, its words in alphabetical order."""
    found = words(text)
    if len(found) < SHINGLE_WORDS:
        return {tuple(sorted(found))}
    return {found[start : start + SHINGLE_WORDS] for start in range(len(found) - SHINGLE_WORDS + 1)}


def _ties(row: Row) -> Iterable[str | tuple[str, ...]]:
    """What ties a row to others: any two rows with one in common belong together."""
    yield from _shingles(row.text)
    if row.pair is not None:
        yield row.pair


def clusters(rows: Sequence[Row]) -> list[int]:
    """For each row the number of its cluster, counted from 0 in the order in which clusters first appear."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[str | tuple[str, ...], int] = {}
    for index, row in enumerate(rows):
        for tie in _ties(row):
            parent[root(index)] = root(first.setdefault(tie, index))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(rows))]


def digest(rows: Iterable[Row]) -> str:
    """SHA-256 of all texts and types, whatever file and line a row stands in: which corpus a model was trained on."""
    ordered = sorted((row.text, row.type) for row in rows)
    return hashlib.sha256("\n".join(json.dumps(pair) for pair in ordered).encode()).hexdigest()


def assign(rows: Sequence[Row]) -> list[Split]:
    """The split of each row: 80 % train, 8 % calibration, 12 % test by cluster; the same on every machine."""
    numbers = clusters(rows)
    smallest: dict[int, str] = {}
    for number, row in zip(numbers, rows, strict=True):
        smallest[number] = min(smallest.get(number, row.text), row.text)
    drawn = {number: _draw(text) for number, text in smallest.items()}
    return [drawn[number] for number in numbers]


def _draw(text: str) -> Split:
    point = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") / 2**64
    for split, share in SHARES:
        if point < share:
            return split
        point -= share
    return SHARES[-1][0]


# --- checks -----------------------------------------------------------------------------------------------------------


def check(folder: Path = FOLDER, floors: Floors = Floors()) -> list[str]:
    """Every fault of a corpus, in words; an empty list means that there is none."""
    rows, faults = _read(folder)
    faults += _copies(rows)
    faults += _pairs(rows)
    faults += _balance(rows, floors)
    faults += leaks(rows, assign(rows))
    readme = folder / "README.md"
    if not faults and readme.exists() and _with_counts(readme.read_text(encoding="utf-8"), rows) is not None:
        faults.append("README.md: its counts are not those of the rows; run `python tools/corpus.py stats --write`")
    return faults


def _copies(rows: Sequence[Row]) -> list[str]:
    """Texts of the same words, and texts of one type that differ in next to nothing."""
    faults: list[str] = []
    same: dict[tuple[str, ...], Row] = {}
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes: list[int] = []
    for index, row in enumerate(rows):
        shingles = _shingles(row.text)
        sizes.append(len(shingles))
        before = same.setdefault(words(row.text) or (row.text,), row)
        if before is not row:
            but = "" if before.type == row.type else f", there as {before.type}"
            faults.append(f"{row.where}: the same words as {before.where}{but}; remove one")
        elif len(shingles) > 1:
            for shingle in shingles:
                holders[shingle].append(index)
    common: Counter[tuple[int, int]] = Counter()
    for indices in holders.values():
        for position, left in enumerate(indices):
            common.update((left, right) for right in indices[position + 1 :] if rows[left].type == rows[right].type)
    for (left, right), count in sorted(common.items()):
        if count >= COPY * (sizes[left] + sizes[right] - count):
            faults.append(f"{rows[right].where}: nearly the words of {rows[left].where}; remove one or ask differently")
    return faults


def _pairs(rows: Sequence[Row]) -> list[str]:
    members: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.pair is not None:
            members[row.pair].append(row)
    return [
        f"{found[0].where}: pair {pair} has no row of another type; a pair shows a boundary between two"
        for pair, found in members.items()
        if len({row.type for row in found}) < 2
    ]


def _balance(rows: Sequence[Row], floors: Floors) -> list[str]:
    faults = []
    for name in known_types():
        own = [row for row in rows if row.type == name]
        hard = sum(row.hard for row in own)
        foreign = sum(row.lang != "en" for row in own)
        if len(own) < floors.rows:
            faults.append(f"{name}.jsonl: {len(own)} rows; needs {floors.rows}")
        if hard < floors.hard * len(own):
            faults.append(f"{name}.jsonl: {hard} of {len(own)} rows are hard; needs {floors.hard:.0%}")
        if foreign < floors.not_english * len(own):
            faults.append(f"{name}.jsonl: {foreign} of {len(own)} rows are not English; needs {floors.not_english:.0%}")
    return faults


def leaks(rows: Sequence[Row], splits: Sequence[Split]) -> list[str]:
    """What ties rows of different splits together. Looks at the ties themselves and trusts no cluster."""
    seen: dict[str | tuple[str, ...], tuple[Row, Split]] = {}
    faults: dict[tuple[str, str], str] = {}
    for row, split in zip(rows, splits, strict=True):
        for tie in _ties(row):
            before, other = seen.setdefault(tie, (row, split))
            if other is not split:
                said = f"“{' '.join(tie)}”" if isinstance(tie, tuple) else f"pair {tie}"
                faults.setdefault(
                    (before.where, row.where),
                    f"{row.where} ({split}) and {before.where} ({other}) share {said}: they must be in one split",
                )
    return list(faults.values())


# --- counts -----------------------------------------------------------------------------------------------------------

_BEGIN = "<!-- counts: python tools/corpus.py stats --write -->"
_END = "<!-- /counts -->"


def _counts(rows: Sequence[Row]) -> str:
    """The corpus in numbers, as Markdown."""
    splits = Counter(assign(rows))
    forms = Counter(row.form for row in rows)
    langs = Counter(row.lang for row in rows)
    hard = sum(row.hard for row in rows)
    foreign = len(rows) - langs["en"]
    pairs = len({row.pair for row in rows if row.pair is not None})
    total = len(rows)
    lines = [
        f"{total:,} rows of {len({row.type for row in rows})} types in {len(set(clusters(rows))):,} clusters, "
        f"{sum(len(row.text.split()) for row in rows):,} words. "
        f"{hard:,} ({hard / total:.0%}) are hard, {foreign:,} ({foreign / total:.0%}) are not English, "
        f"{pairs:,} pairs stand on a boundary.",
        "",
        "Splits: " + ", ".join(f"{split} {splits[split]:,}" for split in Split) + ".",
        "",
        "Forms: " + ", ".join(f"{form} {count:,}" for form, count in _by_count(forms)) + ".",
        "",
        "Languages: " + ", ".join(f"{lang} {count:,}" for lang, count in _by_count(langs)) + ".",
        "",
        "| type | rows | hard | not English | in pairs |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in known_types():
        own = [row for row in rows if row.type == name]
        counted = (len(own), *(sum(column) for column in zip(*map(_columns, own), strict=True)))
        lines.append(f"| {name} | {' | '.join(map(str, counted))} |")
    return "\n".join(lines)


def _columns(row: Row) -> tuple[bool, bool, bool]:
    return row.hard, row.lang != "en", row.pair is not None


def _by_count(counts: Mapping[Any, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _with_counts(page: str, rows: Sequence[Row]) -> str | None:
    """The page with the rows' counts in it; None where they stand there already."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise CorpusError(f"README.md: the lines {_BEGIN} and {_END} are missing; put them where the counts belong")
    fresh = f"{before}{begin}\n\n{_counts(rows)}\n\n{end}{after}"
    return None if fresh == page else fresh


# --- command line -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the verbs; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check, count and split the corpus.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the .jsonl files are (default: corpus/)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("check", help="list every fault")
    verbs.add_parser("stats", help="print the counts").add_argument(
        "--write", action="store_true", help="put them into the folder's README.md instead"
    )
    verbs.add_parser("split", help="print the sizes of the splits").add_argument(
        "--to", type=Path, metavar="FOLDER", help="write the splits there as JSONL"
    )
    given = parser.parse_args(arguments)
    try:
        match given.verb:
            case "check":
                return _run_check(given.folder)
            case "stats":
                _run_stats(given.folder, given.write)
            case "split":
                _run_split(given.folder, given.to)
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run_check(folder: Path) -> int:
    faults = check(folder)
    for fault in faults:
        print(fault)
    if faults:
        print(f"faults: {len(faults)}", file=sys.stderr)
        return 1
    print(f"{len(load(folder)):,} rows, no fault")
    return 0


def _run_stats(folder: Path, write: bool) -> None:
    rows = load(folder)
    if not write:
        print(_counts(rows))
        return
    readme = folder / "README.md"
    fresh = _with_counts(readme.read_text(encoding="utf-8"), rows)
    if fresh is not None:
        readme.write_text(fresh, encoding="utf-8")


def _run_split(folder: Path, target: Path | None) -> None:
    rows = load(folder)
    splits = assign(rows)
    for split in Split:
        own = [row for row, given in zip(rows, splits, strict=True) if given is split]
        each = Counter(row.type for row in own)
        fewest = min(known_types(), key=lambda name: each[name])
        share = len(own) / len(rows)
        print(f"{split:12} {len(own):6,} rows ({share:.1%}); fewest of a type: {each[fewest]} ({fewest})")
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps({key: getattr(row, key) for key in KEYS}, ensure_ascii=False) for row in own)
            (target / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
