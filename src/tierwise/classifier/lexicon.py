"""The rule classifier's data, compiled: every inflected form of every word in one dictionary, phrases in a trie.

All that can be done once is done here, so that classifying a text is dictionary look-ups only: no stemming, no regular
expression per rule. Compiled lazily, once per process and taxonomy.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from tierwise.classifier.grammar import ARTICLES

__all__ = [
    "Entry",
    "Frames",
    "Lexicon",
    "Node",
    "Scores",
    "compile_lexicon",
    "plain",
    "read_rules",
]

Scores = tuple[tuple[int, float], ...]  # (index of a type, weight)
_Phrase = tuple[list[str], str, str, Scores]  # words, verb concept, noun concept, scores
Frames = dict[str, dict[str, Scores]]  # verb concept ("" = any) → noun concept ("" = none) → scores

_COMBINING = re.compile("[\u0300-\u036f]+")
_DOUBLED = frozenset(  # a list of words reads best as words
    [
        "tag",
        "map",
        "plan",
        "drop",
        "scan",
        "spot",
        "get",
        "set",
        "run",
        "cut",
        "flag",
        "trim",
        "plug",
        "debug",
        "fit",
        "swap",
        "put",
        "dig",
        "scrub",
        "strip",
        "let",
    ]
)
_IRREGULAR = {
    "be": "is are was were am been being ist sind",
    "do": "does did done doing",
    "have": "has had having",
    "write": "wrote written",
    "find": "found",
    "get": "got gotten getting",
    "send": "sent",
    "break": "broke broken",
    "tell": "told",
    "say": "said",
    "go": "goes went gone",
    "feel": "felt",
    "make": "made",
    "build": "built",
    "give": "gave given",
    "choose": "chose chosen",
    "know": "knew known",
    "keep": "kept",
    "think": "thought",
    "criterion": "criteria",
    "person": "persons",
    "query": "queries",
    "hang": "hung",
    "throw": "threw thrown",
    "analysis": "analyses",
    "hypothesis": "hypotheses",
    "want": "wants wanted wanting",
}


@dataclass(slots=True)
class Node:
    """A place in the trie of phrases: what may follow, and what ends here."""

    following: dict[str, Node] = field(default_factory=dict)
    scores: Scores = ()
    verbs: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    ends: bool = False


@dataclass(slots=True)
class Entry:
    """What is known of one surface form."""

    lemma: str
    verbs: tuple[str, ...] = ()  # concepts it can be the verb of
    nouns: tuple[str, ...] = ()
    scores: Scores = ()
    base: bool = False  # a verb in the form that can open an instruction
    node: Node | None = None  # phrases that begin with it


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Everything that matching needs, by surface form."""

    entries: Mapping[str, Entry]
    frames: Frames
    types: tuple[str, ...]
    verbs: frozenset[str]  # every form of every verb


def plain(text: str) -> str:
    """Lower case without accents: `Übersetze` and `ubersetze` are one word."""
    text = text.lower()
    if text.isascii():
        return text
    text = text.replace("ß", "ss").replace("’", "'").replace("‘", "'")
    return _COMBINING.sub("", unicodedata.normalize("NFKD", text))


def read_rules() -> dict[str, Any]:
    """The built-in rules as they stand in the data file."""
    return tomllib.loads(files("tierwise").joinpath("data", "classifier_rules.toml").read_text(encoding="utf-8"))


def _spellings(word: str) -> Iterator[str]:
    yield word
    if word.endswith("ize") and len(word) > 4:
        yield word[:-3] + "ise"
    elif word.endswith("ization"):
        yield word[:-7] + "isation"
    elif word.endswith("yze"):
        yield word[:-3] + "yse"
    elif word.endswith("or") and len(word) > 5:
        yield word[:-2] + "our"


def _inflections(word: str) -> Iterator[str]:
    for w in _spellings(word):
        yield w + ("es" if w.endswith(("s", "x", "z", "ch", "sh")) else "s")
        stem = w
        if w.endswith("y") and w[-2:-1] not in "aeiou":
            yield w[:-1] + "ies"
            yield w[:-1] + "ied"
            yield w + "ing"
            continue
        if w.endswith("e"):
            stem = w[:-1]
        elif w in _DOUBLED:
            stem = w + w[-1]
        yield stem + "ed"
        yield stem + "ing"


def _weighted(items: Iterable[str], default: float) -> Iterator[tuple[str, float]]:
    for item in items:
        word, colon, weight = item.rpartition(":")
        yield (word, float(weight)) if colon else (weight, default)


class _Compiler:
    def __init__(self, types: Iterable[str]) -> None:
        self.types = tuple(types)
        self.index = {name: i for i, name in enumerate(self.types)}
        self.entries: dict[str, Entry] = {}
        self.roots: defaultdict[str, Node] = defaultdict(Node)
        self.frames: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for lemma, forms in _IRREGULAR.items():
            for form in (lemma, *forms.split()):
                self.entries[form] = Entry(lemma)

    def word(self, word: str, *, inflect: bool, verb: str = "", noun: str = "", scores: Scores = ()) -> None:
        lemma = self.lemma(word)
        forms = [(form, True) for form in _spellings(word)]
        if inflect:
            forms += [(form, False) for form in _inflections(word)]
            forms += [(form, False) for form in _IRREGULAR.get(word, "").split()]
        for form, base in forms:
            entry = self.entries.get(form)
            if entry is None:
                entry = self.entries[form] = Entry(lemma)
            if verb and verb not in entry.verbs:
                entry.verbs += (verb,)
                entry.base = entry.base or base or form.endswith(("s", "ing"))
            if noun and noun not in entry.nouns:
                entry.nouns += (noun,)
            if scores:
                entry.scores = _merge(entry.scores, scores)

    def lemma(self, word: str) -> str:
        entry = self.entries.get(word)
        return entry.lemma if entry else word

    def phrase(self, words: list[str], *, verb: str = "", noun: str = "", scores: Scores = ()) -> None:
        lemmas = []
        for word in words:
            if word in ARTICLES:
                continue
            if word not in self.entries:
                self.word(word, inflect=len(word) > 3)
            lemmas.append(self.lemma(word))
        if not lemmas:
            return
        if len(lemmas) == 1:
            self.word(words[-1] if words[-1] not in ARTICLES else words[0], inflect=False, scores=scores)
            return
        node = self.roots[lemmas[0]]
        for lemma in lemmas[1:]:
            node = node.following.setdefault(lemma, Node())
        node.ends = True
        node.scores = _merge(node.scores, scores)
        if verb and verb not in node.verbs:
            node.verbs += (verb,)
        if noun and noun not in node.nouns:
            node.nouns += (noun,)

    def _type(self, i: int, rule: Mapping[str, Any]) -> Iterator[_Phrase]:
        for word, weight in _weighted(rule.get("words", "").split(), 4.0):
            if "_" in word:
                yield word.split("_"), "", "", ((i, weight),)
            else:
                self.word(word, inflect=True, scores=((i, weight),))
        for word, weight in _weighted(rule.get("foreign", "").split(), 4.0):
            self.word(word, inflect=False, scores=((i, weight),))
        for text, weight in _weighted(rule.get("phrases", ()), 5.0):
            yield plain(text).replace("#", " ").split(), "", "", ((i, weight),)
        for frame, weight in _weighted(rule.get("frames", ()), 5.0):
            verb, _, noun = frame.partition("*")
            cell = self.frames[verb][noun]
            cell[i] = max(cell.get(i, weight), weight)

    def run(self, rules: Mapping[str, Any]) -> Lexicon:
        phrases: list[_Phrase] = []
        for table, inflect, kind in (
            ("verbs", True, "verb"),
            ("nouns", True, "noun"),
            ("foreign_verbs", False, "verb"),
            ("foreign_nouns", False, "noun"),
        ):
            for concept, words in rules.get(table, {}).items():
                for word in words.split():
                    if "_" in word:
                        phrases.append((word.split("_"), concept * (kind == "verb"), concept * (kind == "noun"), ()))
                    elif kind == "verb":
                        self.word(word, inflect=inflect, verb=concept)
                    else:
                        self.word(word, inflect=inflect, noun=concept)
        for name, rule in rules["types"].items():
            if name in self.index:
                phrases += self._type(self.index[name], rule)
        for words, verb, noun, scores in phrases:
            self.phrase(words, verb=verb, noun=noun, scores=scores)
        for form in list(self.entries):
            entry = self.entries[form]
            entry.node = self.roots.get(entry.lemma)
        return Lexicon(
            self.entries,
            {v: {n: tuple(cell.items()) for n, cell in nouns.items()} for v, nouns in self.frames.items()},
            self.types,
            frozenset(form for form, entry in self.entries.items() if entry.verbs),
        )


def _merge(old: Scores, new: Scores) -> Scores:
    merged = dict(old)
    for i, weight in new:
        merged[i] = max(merged.get(i, weight), weight)
    return tuple(merged.items())


def compile_lexicon(types: Iterable[str], rules: Mapping[str, Any]) -> Lexicon:
    """Compile `rules` (see `data/classifier_rules.toml`) for `types`; rules of other types are left out."""
    return _Compiler(types).run(rules)
