"""The first classifier: rules that find what a text asks for and match it against a lexicon.

How it works. Only two bounded windows of a text are ever looked at, its head and its tail. They are split into clauses;
fenced, quoted, tagged and labelled parts are payload and weigh (almost) nothing. Each clause is an instruction, a
request, a question, a label or a plain statement; the first that asks for something weighs most. In a clause the verb
governs: its object's head noun counts fully, what stands behind a preposition less, a subordinate clause least. Words,
phrases and (verb, noun) frames give points to types; points and their margin become a calibrated probability.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tierwise.classifier.grammar import (
    ARTICLES,
    ASK_TAGS,
    ASKERS,
    CODE_SIGNS,
    CONSTRAINTS,
    DETERMINERS,
    IGNORED,
    JOINTS,
    PAYLOAD_LABELS,
    PERSONA,
    PERSONS,
    POLITE,
    PREPOSITIONS,
    QUESTIONS,
    SUBORDINATORS,
    SUSPECT,
    THEM,
    THEN,
)
from tierwise.classifier.lexicon import Entry, Frames, Lexicon, Node, compile_lexicon, plain, read_rules
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import Alternative, Classification, Needs, Task

__all__ = ["RuleClassifier"]

_HEAD_CHARS = 440
_TAIL_CHARS = 160
_MAX_CLAUSES = 5
_MAX_WORDS = 28  # of one clause
_PAYLOAD = 0.12
_PARAGRAPH = 0.35  # of what follows an instruction in a paragraph of its own
_LABEL_CHARS = 40
_FLOOR = 0.16  # clauses that weigh less are payload
_CLEAR = 6.0  # points at which what is only said need not be read
_ABSTAIN_BELOW = 0.38
_ABSTAIN_BELOW_FOR_PROCESSING = 0.48  # being wrong downwards costs more than being wrong upwards
_WORD_BUDGET = 40  # of one text, beginning with its first clauses

_MARK = re.compile(  # the look-ahead at one set of characters makes it more than twice as fast
    r"((?=[\n`<.!?:;\"“”„«»{}\[\]\-=])"
    r"(?:\n[^\S\n]*\n\s*|\n|```|</?[a-z][^<>\n]{0,60}>|[.!?:;](?=\s|$)|[\"“”„«»{}\[\]`]|-{3,}|={3,}))"
)
_WORD = re.compile(r"[^\W\d_]+(?:['+\#][^\W\d_]*\+?)?|\d+|,")
_BLANKS = str.maketrans(dict.fromkeys('!$%&()*-./:;<=>?@[]^`{|}~_\\"\x00', " "))
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CONTRACTED = re.compile(r"\b(what|who|where|how|it|that|there|i|you|we|they|why|when)'(?:s|m|re)\b")
_ELIDED = re.compile(r"\b(l|d|qu|c|s|j|n|m|dell|all|nell|un|cos|let)'(?=\w)")
_SINGLE_QUOTED = re.compile(r"(?<![\w'])'(?=\w)([^'\n]{12,400})'(?!\w)")


@dataclass(slots=True)
class _Clause:
    words: list[str]
    weight: float
    question: bool = False
    asks: bool = False
    coordinated: bool = False
    start: int = 0  # where its content begins
    request: bool = False
    points: dict[int, float] = field(default_factory=dict)
    matched: list[str] = field(default_factory=list)


class RuleClassifier:
    """Classifies by rules that are data. Pure after construction; the lexicon is compiled at the first use."""

    __slots__ = ("_calibration", "_lexicon", "_rules", "_taxonomy", "_types")

    def __init__(self, taxonomy: Taxonomy, rules: Mapping[str, Any] | None = None) -> None:
        """`rules`, shaped like `data/classifier_rules.toml`, replaces the built-in ones; user types need rules too."""
        self._taxonomy = taxonomy
        self._rules = rules
        self._lexicon: Lexicon | None = None
        self._types = tuple(taxonomy.values())
        self._calibration: tuple[tuple[float, float], ...] = ()

    def classify(self, task: Task) -> Classification:
        """See `Classifier.classify`. Looks at no more than the first 440 and last 160 characters of a text."""
        if task.task_type is not None:
            return Classification(self._taxonomy[task.task_type], 1.0, evidence=("the caller named the task type",))
        text = task.text
        if not isinstance(text, str):
            raise InvalidTask(f"the task's text must be a str, not {type(text).__name__}; decode it first")
        lexicon = self._lexicon or self._compile()
        head, tail = _windows(text)
        if not head and not task.tool_name:
            raise InvalidTask("the task is empty; say in its text what to do")
        clauses = _split(head, tail, lexicon)
        if task.tool_name:
            name = _CAMEL.sub(" ", task.tool_name[:120])
            words = _WORD.findall(plain(name.replace("_", " ").replace("-", " ").replace(".", " ")))
            clause = _clause(words, 1.3, lexicon.entries)
            clause.asks = True
            clauses.insert(0, clause)
            if isinstance(task.tool_input, dict):  # only names of arguments: their values are payload
                keys = " ".join(str(key)[:40] for key in list(task.tool_input)[:12])
                clauses.append(
                    _clause(_WORD.findall(plain(_CAMEL.sub(" ", keys).replace("_", " "))), 0.4, lexicon.entries)
                )
        if task.system and not any(c.asks for c in clauses):
            for clause in _split(task.system[:_HEAD_CHARS], "", lexicon):
                clause.weight *= 0.8
                clauses.append(clause)
        _weigh(clauses)
        points = self._points(clauses, lexicon, _unnamed(head, clauses))
        self._shape(task, points)
        return self._conclude(clauses, points)

    @staticmethod
    def _points(clauses: list[_Clause], lexicon: Lexicon, beside: Mapping[str, float]) -> dict[int, float]:
        """Points of all clauses by type: first of those that ask, of the others where that leaves it open."""
        points: dict[int, float] = {}
        budget = _WORD_BUDGET
        asking = [c for c in clauses if c.asks and c.weight >= _FLOOR]
        for clause in (*asking, *(c for c in clauses if not c.asks and (c.weight >= _FLOOR or not asking))):
            if budget <= 0 or (not clause.asks and max(points.values(), default=0.0) >= _CLEAR):
                break
            budget -= len(clause.words)
            _score(clause, lexicon, beside if clause.asks and clause.weight > 0.5 else {})
            for i, p in clause.points.items():
                points[i] = points.get(i, 0.0) + p * clause.weight
        return points

    def _compile(self) -> Lexicon:
        rules = self._rules if self._rules is not None else read_rules()
        self._calibration = tuple((float(a), float(b)) for a, b in rules["calibration"]["points"])
        self._lexicon = compile_lexicon(self._taxonomy, rules)
        return self._lexicon

    def _shape(self, task: Task, points: dict[int, float]) -> None:
        """Evidence of the request's shape: allowed labels and a schema say what the reply looks like."""
        names = self._lexicon.types if self._lexicon else ()

        def add(name: str, p: float) -> None:
            if name in self._taxonomy:
                i = names.index(name)
                points[i] = points.get(i, 0.0) + p

        if task.labels:
            labels = {plain(label[:40]) for label in task.labels[:50]}
            if labels <= {"yes", "no", "true", "false", "y", "n", "unknown"}:
                add("yes_no_decision", 3.0)
            elif {"positive", "negative"} <= labels:
                add("sentiment_analysis", 4.0)
            elif labels & {"spam", "toxic", "unsafe", "harmful"}:
                add("content_moderation", 4.0)
            else:
                add("topic_classification", 2.0)
                for i in list(points):
                    if self._types[i].family == "classify":
                        points[i] *= 1.3
        if task.json_schema is not None and max(points.values(), default=0.0) < 4.0:
            add("field_extraction", 2.0)

    def _conclude(self, clauses: list[_Clause], points: dict[int, float]) -> Classification:
        types = self._types
        ranked = sorted(((p, -i) for i, p in points.items() if p > 0.3), reverse=True)[:7]
        if not ranked:
            fallback = self._taxonomy["question_answering"] if "question_answering" in self._taxonomy else types[0]
            return Classification(fallback, 0.05, abstained=True, evidence=("nothing in the text says what to do",))
        best, top = ranked[0][0], -ranked[0][1]
        second = ranked[1][0] if len(ranked) > 1 else 0.0
        quality = (best - 0.75 * second) * best / (best + 2.0)
        confidence = self._probability(quality)
        rest = 1.0 - confidence
        total = sum(p for p, _ in ranked[1:]) + 1.5
        critical = [
            (p, -i)
            for p, i in ranked
            if types[-i].needs is Needs.CRITICAL and -i != top and p >= max(2.4, min(4.5, 0.45 * best))
        ]
        boosted = {i for _, i in critical}
        alternatives = []
        for p, i in ranked[1:]:
            c = min(rest * p / total, confidence)
            alternatives.append((max(c, 0.2) if -i in boosted else c, -i))
        if sum(c for c, _ in alternatives) + confidence > 1.0:
            confidence = max(1.0 - sum(c for c, _ in alternatives), *(c for c, _ in alternatives))
        alternatives.sort(key=lambda a: -a[0])
        also: dict[int, None] = {}
        for clause in clauses:
            if clause.asks and clause.weight >= 0.5 and clause.points:
                i, p = max(clause.points.items(), key=lambda x: x[1])
                if i != top and p >= 4.5:
                    also[i] = None
        matched = [m for c in clauses for m in c.matched if c.asks or len(clauses) == 1]
        evidence = ["asks for: " + ", ".join(f"'{m}'" for m in dict.fromkeys(matched[:4]))] if matched else []
        doubt = _ABSTAIN_BELOW_FOR_PROCESSING if types[top].needs is Needs.PROCESSING else _ABSTAIN_BELOW
        abstained = confidence < doubt or best < 1.2
        if abstained:
            evidence.append("the evidence is too thin or points several ways")
        return Classification(
            types[top],
            round(confidence, 4),
            abstained=abstained,
            alternatives=tuple(Alternative(types[i], round(c, 4)) for c, i in alternatives[:5]),
            also=tuple(types[i] for i in list(also)[:3]),
            evidence=tuple(evidence),
        )

    def _probability(self, quality: float) -> float:
        points = self._calibration
        if quality <= points[0][0]:
            return points[0][1]
        for (x0, y0), (x1, y1) in pairwise(points):
            if quality <= x1:
                return y0 + (y1 - y0) * (quality - x0) / (x1 - x0)
        return points[-1][1]


def _unnamed(head: str, clauses: list[_Clause]) -> dict[str, float]:
    """Things that are there without being named: code, and numbers to reckon with."""
    beside = {}
    if ("(" in head or "`" in head or "=" in head or "<" in head) and any(sign in head for sign in CODE_SIGNS):
        beside["code"] = 0.55
    if any(c.question for c in clauses) and sum(w[0].isdigit() for c in clauses for w in c.words) >= 2:
        beside["number"] = 0.85
    return beside


def _windows(text: str) -> tuple[str, str]:
    """Head and tail of a text, the tail empty where the head holds everything; leading space left out."""
    if len(text) <= _HEAD_CHARS + _TAIL_CHARS:
        return text.strip(), ""
    head = text[:_HEAD_CHARS].strip()
    if head:
        return head, text[-_TAIL_CHARS:]
    # rare: a long run of white space first; stripping is linear and the only look at the whole text
    text = text.strip()
    if len(text) <= _HEAD_CHARS + _TAIL_CHARS:
        return text, ""
    return text[:_HEAD_CHARS], text[-_TAIL_CHARS:]


def _prepare(window: str) -> str:
    if len(window) < 80:  # a label or a name rather than prose
        window = _CAMEL.sub(" ", window)
    low = plain(window)
    if "_" in low:
        low = low.replace("_", " ")
    if "'" in low:
        low = _SINGLE_QUOTED.sub(r' "\1" ', low)
        low = _CONTRACTED.sub(r"\1 is", low)
        low = _ELIDED.sub(r"\1 ", low)
        low = low.replace("' ", " ").replace(" '", " ")
    return low


def _split(head: str, tail: str, lexicon: Lexicon) -> list[_Clause]:
    """The clauses of both windows, payload already weighed down."""
    clauses: list[_Clause] = []
    _walk(_prepare(head), lexicon, clauses, first=True)
    if tail:
        later: list[_Clause] = []
        _walk(_prepare(tail), lexicon, later, first=False)
        clauses = clauses[:_MAX_CLAUSES] + later[-2:]
    return clauses[: _MAX_CLAUSES + 2]


def _walk(  # noqa: PLR0912  # one scanner over all the marks
    low: str, lexicon: Lexicon, out: list[_Clause], *, first: bool
) -> None:
    """Split one window into clauses, appended to `out`; what begins a payload lowers the weight of what follows."""
    weight = 1.0 if first else 0.7
    ascii_only = low.isascii()
    fenced = quoted = False
    tags = 0
    words: list[str] = []
    line_start = True
    parts = _MARK.split(low)  # text, mark, text, …
    for at in range(0, len(parts), 2):
        part = parts[at]
        # of a payload only what is short enough to be a label is read
        if part and not (fenced or quoted or tags) and (weight >= _FLOOR or len(part) < _LABEL_CHARS):
            found = part.translate(_BLANKS).replace(",", " , ").split() if ascii_only else _WORD.findall(part)
            if found:
                words += found
                line_start = False
        if at + 1 == len(parts) or len(out) > _MAX_CLAUSES:
            break
        mark = parts[at + 1]
        c = mark[0]
        if c == "`":
            if len(mark) == 3:
                words = _close(words, weight, lexicon, out)
                fenced = not fenced
        elif fenced:
            continue
        elif c == "<":
            words = _close(words, weight, lexicon, out)
            if mark.strip("</>").split(" ", 1)[0] not in ASK_TAGS:
                tags = max(0, tags - 1) if mark[1] == "/" else tags + 1
        elif tags:
            continue
        elif c in '"“”„«»':
            # a text that is quoted as a whole is no payload
            quoted = bool(words or out) and (not quoted if c == '"' else c in "“„«")
        elif c == "\n":
            quoted = False
            words = _close(words, weight, lexicon, out)
            line_start = True
            if len(mark) > 1 and weight > _PARAGRAPH and any(x.asks for x in out):
                weight = _PARAGRAPH
        elif quoted:
            continue
        elif c in ".!?;":
            words = _close(words, weight, lexicon, out, question=c == "?")
        elif c == ":":
            weight, words = _colon(words, weight, lexicon, out, first=first)
        elif c in "{[-=" and (line_start or len(mark) > 2):
            words = _close(words, weight, lexicon, out)
            weight = min(weight, _PAYLOAD)
    _close(words, weight, lexicon, out)


def _colon(
    words: list[str], weight: float, lexicon: Lexicon, out: list[_Clause], *, first: bool
) -> tuple[float, list[str]]:
    """What a colon says of what follows: a payload after "Text:" or an instruction, a request after "Task:"."""
    known = not lexicon.verbs.isdisjoint(words)
    if words and len(words) <= 3 and words[-1] in PAYLOAD_LABELS and not known and words[0] not in PREPOSITIONS:
        return (_PAYLOAD if first else weight), []
    if known and not _aimed_at_router(words) and _clause(words, weight, lexicon.entries).asks:
        return min(weight, _PAYLOAD), _close(words, weight, lexicon, out)
    if words and len(words) <= 2:
        return max(weight, 0.9), []
    return weight, _close(words, weight, lexicon, out)


def _close(
    words: list[str], weight: float, lexicon: Lexicon, out: list[_Clause], *, question: bool = False
) -> list[str]:
    """End a clause: add it to `out`, in several where it joins instructions. Returns the words of the next: none."""
    if not words:
        return words
    entries = lexicon.entries
    begin, joined = 0, False
    if not JOINTS.isdisjoint(words):
        for k in range(1, len(words) - 1):
            if words[k] in JOINTS and _joins(words, k, begin, lexicon):
                end = k
                while end > begin and words[end - 1] in JOINTS:
                    end -= 1
                if end > begin:
                    out.append(_clause(words[begin:end], weight, entries, question, joined))
                begin, joined = k + 1, True
    out.append(_clause(words[begin:] if begin else words, weight, entries, question, joined))
    return []


def _joins(words: list[str], k: int, begin: int, lexicon: Lexicon) -> bool:
    """Whether the joint at `k` is followed by another instruction rather than by the next thing of an enumeration."""
    word = words[k + 1]
    entry = lexicon.entries.get(word)
    if entry is None or not entry.base or not entry.verbs or word.endswith(("ing", "s")):
        return False
    if lexicon.verbs.isdisjoint(words[begin:k]):
        return False
    if not entry.nouns or words[k] in THEN:
        return True
    following = words[k + 2] if k + 2 < len(words) else ""
    return following in ARTICLES or following in DETERMINERS or following in THEM


def _opening(words: list[str], entries: Mapping[str, Entry]) -> tuple[int, bool]:
    """Where the content of a clause begins behind polite words, and whether those made it a request."""
    i, n, request = 0, len(words), False
    while i < n:
        word = words[i]
        if word in POLITE or word in ARTICLES or word == ",":
            i += 1
        elif word in ("can", "could", "would", "will", "may") and i + 1 < n and words[i + 1] in ("you", "we", "i"):
            request = words[i + 1] == "you"
            if not request:
                break
            i += 2
        elif word in PERSONS and i + 1 < n and any(w in ASKERS or w == "is" for w in words[i + 1 : i + 3]):
            j = i + 1
            while j < n and (words[j] in ASKERS or words[j] in PERSONS or words[j] in ("is", "d", "are", "help")):
                j += 1
            request = True
            i = j
        elif (
            word in ("help", "assist", "hilf", "aide", "ayudame")
            and i + 1 < n
            and words[i + 1] in ("me", "us", "to", "mir", "moi")
        ):
            request = True
            i += 2
        elif request and word in ("to", "me", "you"):
            i += 1
        else:
            break
    return i, request


def _clause(
    words: list[str], weight: float, entries: Mapping[str, Entry], question: bool = False, coordinated: bool = False
) -> _Clause:
    """A clause, with where its content begins and whether it asks for something."""
    start, request = _opening(words, entries)
    asks = question or coordinated or request
    if not asks and start < len(words):
        entry = entries.get(words[start])
        asks = words[start] in QUESTIONS or (entry is not None and entry.base and bool(entry.verbs or entry.scores))
    return _Clause(words, weight, question, asks, coordinated, start, request)


def _weigh(clauses: list[_Clause]) -> None:
    """The first clause that asks weighs most; what is only said counts where nothing is asked."""
    asked = False
    for clause in clauses:
        words = clause.words
        if _aimed_at_router(words):
            clause.weight = 0.0
            clause.asks = False
            continue
        opening = words[clause.start] if clause.start < len(words) else ""
        if opening in CONSTRAINTS and not clause.question and (asked or opening in ("not", "never", "avoid", "don't")):
            clause.weight *= 0.25
            clause.asks = False
        elif len(words) > 1 and words[0] in PERSONA and words[1] in ("are", "as", "bist", "es", "eres"):
            clause.weight *= 0.15
            clause.asks = False
        elif clause.asks:
            if asked:
                clause.weight *= 0.7 if clause.coordinated else 0.55
            asked = asked or clause.weight > 0.2
    if asked:
        for clause in clauses:
            if not clause.asks:
                clause.weight *= 0.45


def _aimed_at_router(words: list[str]) -> bool:
    """Wording that would have the router think little of the task; it is not heard."""
    return not SUSPECT.isdisjoint(words) and any(wording in " ".join(words) for wording in IGNORED)


def _find(node: Node, lemmas: list[str], i: int) -> tuple[Node | None, int]:
    """The longest phrase that begins at lemma `i - 1`; determiners between its words are skipped."""
    best: Node | None = node if node.ends else None
    end = i
    if i < len(lemmas):
        lemma = lemmas[i]
        child = node.following.get(lemma)
        if child is not None:
            found, stop = _find(child, lemmas, i + 1)
            if found is not None:
                best, end = found, stop
        if lemma in DETERMINERS and (best is None or best is node) and i + 1 < len(lemmas):
            found, stop = _find(node, lemmas, i + 1)
            if found is not None and found is not node:
                best, end = found, stop
    return best, end


@dataclass(slots=True)
class _Reading:
    """One clause being read: its words, who governs it, and the things it names with their nearness to the verb."""

    words: list[str]
    found: list[Entry | None]
    lemmas: list[str]
    start: int
    factor: float  # 1 in what asks, less in what is only said
    nouns: dict[str, float]
    verbs: tuple[str, ...] = ()
    question: bool = False
    imperative: bool = False


def _score(clause: _Clause, lexicon: Lexicon, beside: Mapping[str, float]) -> None:
    """Points of one clause, by type. `beside` are things that are there without being named, such as code."""
    entries = lexicon.entries
    skipped = sum(w in ARTICLES or w == "," for w in clause.words[: clause.start])
    words = [w for w in clause.words if w not in ARTICLES and w != ","][:_MAX_WORDS]
    if not words:
        return
    found = [entries.get(w) for w in words]
    lemmas = [w if e is None else e.lemma for w, e in zip(words, found, strict=True)]
    start = clause.start - skipped
    reading = _Reading(
        words, found, lemmas, start if start < len(words) else 0, 1.0 if clause.asks else 0.55, dict(beside)
    )
    _govern(reading, clause)
    _read(reading, clause)
    _frame(reading, clause.points, lexicon.frames)


def _govern(reading: _Reading, clause: _Clause) -> None:
    """Find what governs the clause: a question word, the opening verb, or the wish behind "I need …"."""
    words, start = reading.words, reading.start
    first, opening = words[start], reading.found[start]
    if first in QUESTIONS and not clause.request:
        concept = QUESTIONS[first]
        second = words[start + 1] if start + 1 < len(words) else ""
        if first == "how" and second in ("many", "much", "long", "old", "far"):
            concept = "q_howmany"
        elif first == "what" and second == "if":
            concept = "q_whatif"
        reading.verbs = (concept,)
        reading.question = True
    elif opening is not None and opening.base and opening.verbs:
        reading.verbs = opening.verbs
        reading.imperative = True
        clause.matched.append(opening.lemma)
        for t, w in opening.scores:
            clause.points[t] = clause.points.get(t, 0.0) + w * reading.factor
    elif clause.request:
        reading.verbs = ("give",)
        reading.imperative = True


def _read(reading: _Reading, clause: _Clause) -> None:  # noqa: PLR0912, PLR0915  # the hot loop: no call per word
    """Go through the clause once: phrases, words and things, each by its place relative to the verb."""
    points, nouns = clause.points, reading.nouns
    words, found, lemmas = reading.words, reading.found, reading.lemmas
    start, factor, question, imperative = reading.start, reading.factor, reading.question, reading.imperative
    place = factor
    behind = factor * (0.75 if question else 0.55)  # behind a preposition
    phrase_end = -1
    last = len(words) - 1
    for k in range(start if imperative else 0, last + 1):
        entry, word = found[k], words[k]
        if entry is not None and entry.node is not None and k < last:
            following = lemmas[k + 1]
            if following in entry.node.following or following in DETERMINERS:
                node, end = _find(entry.node, lemmas, k + 1)
                if node is not None:
                    phrase_end = end
                    for t, w in node.scores:
                        old, new = points.get(t, 0.0), w * place
                        points[t] = max(old, new) + 0.3 * min(old, new)
                    for noun in node.nouns:
                        nouns[noun] = max(nouns.get(noun, 0.0), place)
                    if node.verbs and (k == start or not reading.verbs):
                        reading.verbs += node.verbs
                    clause.matched.append(" ".join(lemmas[k:end]))
        if k > start:
            if word in SUBORDINATORS:
                concept = SUBORDINATORS[word]
                if concept and _leaves_open(reading):  # "tell me what …" asks what is asked after "what"
                    reading.verbs = (concept,)
                    place = factor
                elif not question:
                    place = min(place, factor * 0.35)
                continue
            if word in PREPOSITIONS:
                if k == start + 1 and imperative:
                    continue
                if "convert" in reading.verbs and word in ("into", "to", "in", "en", "zu"):
                    # what it is turned into is what is asked for
                    for noun in nouns:
                        nouns[noun] *= 0.3
                    reading.verbs += ("write",)
                    place = factor
                else:
                    place = min(place, behind)
                continue
        if entry is None:
            if word[0].isdigit():
                nouns["number"] = max(nouns.get("number", 0.0), place)
            continue
        if k == start and imperative:
            continue
        if entry.scores and k >= phrase_end:
            clause.matched.append(entry.lemma)
            share = place * 0.75 if imperative else place
            for t, w in entry.scores:
                points[t] = points[t] + 0.4 * w * share if t in points else w * share
        for noun in entry.nouns:
            if nouns.get(noun, 0.0) < place:
                nouns[noun] = place
        if not reading.verbs and entry.verbs and not entry.nouns:
            reading.verbs = entry.verbs


def _leaves_open(reading: _Reading) -> bool:
    """The verb only introduces a question (tell, know, check …) and has no object of its own yet."""
    if "tell" not in reading.verbs and "check" not in reading.verbs:
        return False
    near = reading.factor * 0.9
    return not any(at >= near and noun != "passage" for noun, at in reading.nouns.items())


def _frame(reading: _Reading, points: dict[int, float], frames: Frames) -> None:
    """Add the best frame of each type: what is done to what."""
    nouns = reading.nouns
    verbs = (*reading.verbs, "ownership", "") if "ownership" in nouns else (*reading.verbs, "")
    best: dict[int, float] = {}
    against: dict[int, float] = {}
    for verb in verbs:
        table = frames.get(verb)
        if table is None:
            continue
        for t, w in table.get("", ()):
            if w * reading.factor > best.get(t, 0.0):
                best[t] = w * reading.factor
        for noun, at in nouns.items():
            for t, w in table.get(noun, ()):
                p = w * at
                if p > best.get(t, 0.0):
                    best[t] = p
                elif p < against.get(t, 0.0):
                    against[t] = p
    for t, p in best.items():
        points[t] = points.get(t, 0.0) + p
    for t, p in against.items():
        points[t] = points.get(t, 0.0) + p
