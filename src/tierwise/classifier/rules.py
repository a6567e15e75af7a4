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
from typing import Any

from tierwise.classifier.lexicon import ARTICLES, DETERMINERS, Entry, Lexicon, Node, compile_lexicon, plain, read_rules
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import Alternative, Classification, Needs, Task

__all__ = ["RuleClassifier"]

_HEAD_CHARS = 600
_TAIL_CHARS = 240
_MAX_CLAUSES = 8

_TOKEN = re.compile(
    r"[^\W\d_]+(?:'[^\W\d_]+)?(?:\+\+|\#)?|\d+|\n[^\S\n]*\n\s*|\n|```|</?[a-z][^<>\n]{0,60}>|[.!?:;,](?=\s|$)|[\"“”„«»{}\[\]`]|-{3,}|={3,}"
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CONTRACTED = re.compile(r"\b(what|who|where|how|it|that|there|i|you|we|they|why|when)'(?:s|m|re)\b")
_ELIDED = re.compile(r"\b(l|d|qu|c|s|j|n|m|dell|all|nell|un|cos|let)'(?=\w)")
_SINGLE_QUOTED = re.compile(r"(?<![\w'])'(?=\w)([^'\n]{12,400})'(?!\w)")
_JOINTS = frozenset(
    [
        ",",
        "and",
        "then",
        "und",
        "et",
        "y",
        "e",
        "or",
        "dann",
        "danach",
        "puis",
        "luego",
        "poi",
        "afterwards",
        "finally",
        "also",
    ]
)
_THEN = frozenset(["then", "dann", "danach", "puis", "luego", "poi", "afterwards", "finally", "also"])
_THEM = frozenset(["it", "them", "all", "me", "everything"])
_PAYLOAD_LABELS = frozenset(
    "text document email article input message ticket log logs content passage context transcript review comment data "
    "example examples code diff source body abstract paragraph sentence conversation quote payload texto texte testo "
    "nachricht dokument note notes json csv report tweet premise background excerpt letter output contract".split()
)
_PAYLOAD_TAGS = frozenset(["instructions", "instruction", "task", "question", "request", "goal", "query", "prompt"])
_CODE_STARTS = frozenset(
    "import def class function const let var public private return select from traceback at if for #include package "
    "using fn func insert diff".split()
)
_PREPOSITIONS = frozenset(
    "for of about with from by regarding on in into to as at against between per via over under after before within "
    "based using across fur von mit aus uber im in ins zu pour de des du sur dans avec par para sobre con en per di del "
    "della su da do dos das no na um como".split()
)
_SUBORDINATORS = {
    "how": "q_how", "what": "q_what", "why": "q_why", "whether": "q_whether", "if": "q_whether", "which": "q_which",
    "who": "q_who", "when": "q_when", "where": "q_where", "that": "", "because": "", "so": "", "since": "", "while": "",
    "ob": "q_whether", "warum": "q_why", "wie": "q_how", "was": "q_what", "si": "q_whether", "comment": "q_how",
    "pourquoi": "q_why", "por": "", "porque": "", "unless": "", "until": "", "although": "",
}  # fmt: skip
_QUESTIONS = {
    "what": "q_what", "how": "q_how", "why": "q_why", "which": "q_which", "who": "q_who", "when": "q_when",
    "where": "q_where", "is": "q_is", "are": "q_is", "was": "q_is", "were": "q_is", "does": "q_is", "do": "q_is", "did": "q_is", "has": "q_is",
    "have": "q_is", "can": "q_is", "could": "q_is", "will": "q_is", "would": "q_is", "should": "q_should", "am": "q_is",
    "whose": "q_who", "whom": "q_who", "wer": "q_who", "wie": "q_how", "warum": "q_why", "wann": "q_when", "wo": "q_where",
    "welche": "q_which", "welcher": "q_which", "welches": "q_which", "ist": "q_is", "sind": "q_is", "hat": "q_is", "soll": "q_should", "sollte": "q_should",
    "quel": "q_which", "quelle": "q_which", "comment": "q_how", "pourquoi": "q_why", "qui": "q_who", "quand": "q_when", "est": "q_is", "dois": "q_should",
    "que": "q_what", "como": "q_how", "cual": "q_which", "quien": "q_who", "cuando": "q_when", "donde": "q_where",
    "qual": "q_which", "quem": "q_who", "quando": "q_when", "onde": "q_where", "come": "q_how", "perche": "q_why", "quale": "q_which", "chi": "q_who",
    "es": "q_is", "debo": "q_should", "deberia": "q_should", "devo": "q_should", "kann": "q_is", "darf": "q_is", "puedo": "q_is", "posso": "q_is",
}  # fmt: skip
_POLITE = frozenset(
    "please kindly now next first then finally also just and ok okay hey hi hello so well bitte s'il por favor per te "
    "plait vous stp prego quickly carefully briefly go ahead let lets us try or but und et y e afterwards again "
    "thanks immediately second third lastly simply automatically".split()
)
_ASKERS = frozenset("need want like must should 'd supposed have to going would asked".split())
_PERSONS = frozenset("i we you your me us task job goal role".split())
_CONSTRAINTS = frozenset(
    "not don't never avoid ensure remember include keep use be do consider return respond output only no".split()
)
_CODE_SIGNS = ("```", "def ", "();", ") {", "){", "import ", "#include", "public ", "const ", "return ", " => ", "</")
_IGNORED = (  # wording that is aimed at the router says nothing of the task
    "trivial", "cheapest", "easy task", "simple task", "cheap model", "small model", "smallest model", "local model",
    "local tier", "haiku tier", "lowest tier", "this is simple", "ignore previous", "ignore all previous", "for the router", "route this to",
    "classify this as", "treat this as",
)  # fmt: skip
_SUSPECT = frozenset(
    "trivial cheapest easy simple cheap small smallest local haiku lowest ignore router route classify treat".split()
)
_PERSONA = frozenset(["you", "act", "as", "du", "tu", "eres"])


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
        """`rules` (shaped like `data/classifier_rules.toml`) replaces the built-in ones; user types need rules of their own."""
        self._taxonomy = taxonomy
        self._rules = rules
        self._lexicon: Lexicon | None = None
        self._types = tuple(taxonomy.values())
        self._calibration: tuple[tuple[float, float], ...] = ()

    def classify(self, task: Task) -> Classification:
        """See `Classifier.classify`. Looks at no more than the first 600 and last 240 characters of a text."""
        if task.task_type is not None:
            return Classification(self._taxonomy[task.task_type], 1.0, evidence=("the caller named the task type",))
        text = task.text
        if not isinstance(text, str):
            raise InvalidTask(f"the task's text must be a str, not {type(text).__name__}; decode it first")
        lexicon = self._lexicon or self._compile()
        head, tail = _windows(text)
        if not head and not task.tool_name:
            raise InvalidTask("the task is empty; say in its text what to do")
        clauses = _split(head, tail, lexicon.entries)
        if task.tool_name:
            name = _CAMEL.sub(" ", task.tool_name[:120])
            words = _TOKEN.findall(plain(name.replace("_", " ").replace("-", " ").replace(".", " ")))
            clause = _clause(words, 1.3, lexicon.entries)
            clause.asks = True
            clauses.insert(0, clause)
        if task.system and not any(c.asks for c in clauses):
            for clause in _split(task.system[:_HEAD_CHARS], "", lexicon.entries):
                clause.weight *= 0.8
                clauses.append(clause)
        _weigh(clauses)
        points: dict[int, float] = {}
        code = any(sign in head for sign in _CODE_SIGNS)
        for clause in clauses:
            _score(clause, lexicon, code and clause.asks and clause.weight > 0.5)
            for i, p in clause.points.items():
                points[i] = points.get(i, 0.0) + p * clause.weight
        self._shape(task, points)
        return self._conclude(clauses, points)

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
        critical = [(p, -i) for p, i in ranked if types[-i].needs is Needs.CRITICAL and -i != top and p >= 2.4]
        boosted = {i for _, i in critical}
        alternatives = []
        for p, i in ranked[1:]:
            c = min(rest * p / total, confidence)
            alternatives.append((max(c, 0.2) if -i in boosted else c, -i))
        if sum(c for c, _ in alternatives) + confidence > 1.0:
            confidence = max(1.0 - sum(c for c, _ in alternatives), max(c for c, _ in alternatives))
        alternatives.sort(key=lambda a: -a[0])
        also: dict[int, None] = {}
        for clause in clauses:
            if clause.asks and clause.weight >= 0.5 and clause.points:
                i, p = max(clause.points.items(), key=lambda x: x[1])
                if i != top and p >= 4.5:
                    also[i] = None
        for _, i in critical:
            if confidence >= 0.8:
                also.setdefault(i)
        matched = [m for c in clauses for m in c.matched if c.asks or len(clauses) == 1]
        evidence = ["asks for: " + ", ".join(f"'{m}'" for m in dict.fromkeys(matched[:4]))] if matched else []
        abstained = confidence < _ABSTAIN_BELOW or best < 1.2
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
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            if quality <= x1:
                return y0 + (y1 - y0) * (quality - x0) / (x1 - x0)
        return points[-1][1]


_ABSTAIN_BELOW = 0.38


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
    camel = _CAMEL.sub(" ", window) if not window.islower() else window
    low = plain(camel)
    if "_" in low:
        low = low.replace("_", " ")
    if "'" in low:
        low = _SINGLE_QUOTED.sub(r' "\1" ', low)
        low = _CONTRACTED.sub(r"\1 is", low)
        low = _ELIDED.sub(r"\1 ", low)
    return low


def _split(head: str, tail: str, entries: Mapping[str, Entry]) -> list[_Clause]:
    """The clauses of both windows, payload already weighed down."""
    clauses: list[_Clause] = []
    _walk(_prepare(head), entries, clauses, first=True)
    if tail:
        later: list[_Clause] = []
        _walk(_prepare(tail), entries, later, first=False)
        clauses = clauses[:_MAX_CLAUSES] + later[-2:]
    return clauses[: _MAX_CLAUSES + 2]


def _walk(low: str, entries: Mapping[str, Entry], out: list[_Clause], *, first: bool) -> None:
    weight = 1.0 if first else 0.7
    fenced = quoted = False
    tags = 0
    coordinated = False
    words: list[str] = []
    line_start = True
    asked = False
    known = False  # the clause holds a verb that the lexicon knows

    def close(question: bool = False) -> None:
        nonlocal words, coordinated, known, asked
        if words:
            clause = _clause(words, weight, entries, question, coordinated)
            asked = asked or (clause.asks and weight > 0.2)
            out.append(clause)
            words = []
        coordinated = known = False

    tokens = _TOKEN.findall(low)
    for at, token in enumerate(tokens):
        c = token[0]
        if c == "`":
            if token == "```":
                if not fenced:
                    close()
                fenced = not fenced
            continue
        if fenced:
            continue
        if c == "<":
            close()
            name = token.strip("</>").split(" ", 1)[0]
            if name not in _PAYLOAD_TAGS:
                tags = max(0, tags - 1) if token[1] == "/" else tags + 1
            continue
        if tags:
            continue
        if c in '"“”„«»':
            quoted = not quoted if c == '"' else c in "“„«"
            continue
        if c == "\n":
            quoted = False
            close()
            if len(token) > 1 and asked:
                weight = min(weight, 0.35)
            line_start = True
            if len(out) > _MAX_CLAUSES:
                return
            continue
        if quoted:
            continue
        if c in ".!?;":
            close(c == "?")
            if len(out) > _MAX_CLAUSES:
                return
            continue
        if c == ":":
            if len(words) <= 3 and words and words[-1] in _PAYLOAD_LABELS and (line_start or len(words) == 1):
                words = []
                if first:
                    weight = 0.12
            elif known and _clause(words, weight, entries).asks:
                close()
                weight = min(weight, 0.12)
            elif words and len(words) <= 2:
                words = []
                weight = max(weight, 0.9)
            else:
                close()
            line_start = False
            continue
        if c in "{[-=":
            if line_start or len(token) > 2:
                close()
                weight = min(weight, 0.12)
            continue
        if c in "]}":
            continue
        entry = entries.get(token)
        if c == ",":
            words.append(",")
            continue
        if entry is not None and entry.base and words:
            last = words[-1]
            if last in _JOINTS and known and entry.verbs and not token.endswith(("ing", "s")):
                following = tokens[at + 1] if at + 1 < len(tokens) else ""
                # a word that is also a noun goes on with an enumeration, unless an object follows it
                if (
                    not entry.nouns
                    or last in _THEN
                    or following in ARTICLES
                    or following in DETERMINERS
                    or following in _THEM
                ):
                    while words and words[-1] in _JOINTS:
                        words.pop()
                    close()
                    coordinated = True
        if entry is not None and entry.verbs:
            known = True
        words.append(token)
        line_start = False
    close()


def _opening(words: list[str], entries: Mapping[str, Entry]) -> tuple[int, bool]:
    """Where the content of a clause begins behind polite words, and whether those made it a request."""
    i, n, request = 0, len(words), False
    while i < n:
        word = words[i]
        if word in _POLITE or word in ARTICLES or word == ",":
            i += 1
        elif word in ("can", "could", "would", "will", "may") and i + 1 < n and words[i + 1] in ("you", "we", "i"):
            request = words[i + 1] == "you"
            if not request:
                break
            i += 2
        elif word in _PERSONS and i + 1 < n and any(w in _ASKERS or w == "is" for w in words[i + 1 : i + 3]):
            j = i + 1
            while j < n and (words[j] in _ASKERS or words[j] in _PERSONS or words[j] in ("is", "d", "are", "help")):
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
        asks = words[start] in _QUESTIONS or (entry is not None and entry.base and bool(entry.verbs or entry.scores))
    return _Clause(words, weight, question, asks, coordinated, start, request)


def _weigh(clauses: list[_Clause]) -> None:
    """The first clause that asks weighs most; what is only said counts where nothing is asked."""
    asked = False
    for clause in clauses:
        words = clause.words
        if not _SUSPECT.isdisjoint(words):
            joined = " ".join(words)
            if any(wording in joined for wording in _IGNORED):
                clause.weight = 0.0
                clause.asks = False
                continue
        opening = words[clause.start] if clause.start < len(words) else ""
        if opening in _CONSTRAINTS and not clause.question and (asked or opening in ("not", "never", "avoid", "don't")):
            clause.weight *= 0.25
            clause.asks = False
        elif words[0] in _PERSONA and len(words) > 1 and words[1] in ("are", "as", "bist", "es", "eres"):
            clause.weight *= 0.15
            clause.asks = False
        elif clause.asks:
            if asked:
                clause.weight *= 0.7 if clause.coordinated else 0.55
            asked = asked or clause.weight > 0.2
    if asked:
        for clause in clauses:
            if not clause.asks:
                clause.weight *= 0.35


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


def _score(clause: _Clause, lexicon: Lexicon, beside_code: bool = False) -> None:
    """Points of one clause, by type."""
    if clause.weight < 0.06:
        return
    entries, frames = lexicon.entries, lexicon.frames
    points = clause.points
    skipped = sum(w in ARTICLES or w == "," for w in clause.words[: clause.start])
    words = [w for w in clause.words if w not in ARTICLES and w != ","][:60]
    start, request = clause.start - skipped, clause.request
    if start >= len(words):
        start = 0
    found = [entries.get(w) for w in words]
    lemmas = [w if e is None else e.lemma for w, e in zip(words, found, strict=True)]
    verbs: tuple[str, ...] = ()
    factor = 1.0 if clause.asks else 0.55
    first = words[start] if words else ""
    opening = found[start] if words else None
    i = start
    if first in _QUESTIONS and not request:
        concept = _QUESTIONS[first]
        if first == "how" and start + 1 < len(words) and words[start + 1] in ("many", "much", "long", "old", "far"):
            concept = "q_howmany"
        elif first == "what" and start + 1 < len(words) and words[start + 1] == "if":
            concept = "q_whatif"
        verbs = (concept,)
        question = True
    else:
        question = False
        if opening is not None and opening.base and opening.verbs:
            verbs = opening.verbs
            clause.matched.append(opening.lemma)
            i = start + 1
            if opening.scores:
                for t, w in opening.scores:
                    points[t] = points.get(t, 0.0) + w * factor
        elif words and words[start] in ("not", "don't", "never", "avoid"):
            clause.weight *= 0.1
    seen_nouns: dict[str, float] = {"code": 0.55} if beside_code else {}
    place = factor
    n = len(words)
    skip_to = -1
    imperative = bool(verbs) and not question
    for k in range(0 if not imperative else start, n):
        entry = found[k]
        word = words[k]
        if entry is None:
            if word in _PREPOSITIONS:
                if k > i:
                    place = min(place, factor * (0.75 if question else 0.55))
            elif word[0].isdigit():
                seen_nouns["number"] = place
            continue
        if entry.node is not None:
            node, end = _find(entry.node, lemmas, k + 1)
            if node is not None:
                at = place if k > start else factor
                for t, w in node.scores:
                    points[t] = (
                        max(points.get(t, 0.0), 0.0) + w * at
                        if t not in points
                        else max(points[t], w * at) + 0.3 * min(points[t], w * at)
                    )
                for noun in node.nouns:
                    seen_nouns[noun] = max(seen_nouns.get(noun, 0.0), at)
                if node.verbs and (k == start or not verbs):
                    verbs = verbs + node.verbs
                if node.scores or node.verbs:
                    clause.matched.append(" ".join(lemmas[k:end]))
                skip_to = end
        if word in _SUBORDINATORS and k > start:
            concept = _SUBORDINATORS[word]
            if (
                concept
                and ("tell" in verbs or "check" in verbs)
                and not any(f >= factor * 0.9 and x not in ("passage",) for x, f in seen_nouns.items())
            ):
                verbs = (concept,)
                place = factor
                continue
            if not question:
                place = min(place, factor * 0.35)
            continue
        if word in _PREPOSITIONS:
            if k > i:
                place = min(place, factor * (0.75 if question else 0.55))
            continue
        if k >= skip_to or skip_to < 0:
            if k > start or not imperative:
                for t, w in entry.scores:
                    p = w * place * (1.0 if not imperative else 0.75)
                    points[t] = points[t] + 0.4 * p if t in points else p
                if entry.scores:
                    clause.matched.append(entry.lemma)
        if k > start or not imperative:
            for noun in entry.nouns:
                seen_nouns[noun] = max(seen_nouns.get(noun, 0.0), place)
            if not verbs and entry.verbs and not entry.nouns and not question:
                verbs = entry.verbs
    if "ownership" in seen_nouns:
        verbs += ("ownership",)
    best: dict[int, float] = {}
    for verb in (*verbs, ""):
        table = frames.get(verb)
        if table is None:
            continue
        bare = table.get("")
        if bare is not None:
            for t, w in bare:
                w *= factor
                if w > best.get(t, 0.0):
                    best[t] = w
        for noun, at in seen_nouns.items():
            scores = table.get(noun)
            if scores is not None:
                for t, w in scores:
                    w *= at
                    if w > best.get(t, 0.0) or w < 0:
                        best[t] = w
    for t, w in best.items():
        points[t] = points.get(t, 0.0) + w
