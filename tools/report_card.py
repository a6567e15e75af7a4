"""Writes the classifier's report card: docs/explanation/classifier.md and its two pictures.

    python tools/report_card.py            measure and write; half a minute
    python tools/report_card.py --check    measure, write nothing, fail where something but the timings would change

Everything is measured on the test split of corpus/, which neither the models nor their thresholds were fitted on, with
the same code as `tierwise eval classify`. The pictures are plain SVG: text that a diff can show.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import subprocess
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from corpus import Split, assign, digest, load  # noqa: E402  the script's own folder comes first
from tierwise.classifier import RuleClassifier, TrainedClassifier, load_taxonomy  # noqa: E402
from tierwise.classifier.artifact import shipped_folder  # noqa: E402
from tierwise.classifier.base import Classifier  # noqa: E402
from tierwise.classifier.evaluate import Evaluation, Labelled, Mistake, Score, evaluate  # noqa: E402
from tierwise.classifier.taxonomy import Taxonomy  # noqa: E402
from tierwise.config import shipped_settings  # noqa: E402
from tierwise.core.tasks import Alternative, Classification, Task  # noqa: E402
from tierwise.policy import level_by_tree  # noqa: E402

__all__ = [
    "LengthClassifier",
    "main",
    "reliability_picture",
    "risk_coverage_picture",
    "without_timings",
]

FOLDER = ROOT / "docs" / "explanation"
PAGE = "classifier.md"
RELIABILITY = "classifier-reliability.svg"
RISK_COVERAGE = "classifier-risk-coverage.svg"
COMMAND = "python tools/report_card.py"
TIMINGS, TIMINGS_END = "<!-- timings -->", "<!-- /timings -->"

QUANTILES = 20
TEXT_CHARS = 150  # of a mistaken text, as shown
EXAMPLES = 12
WEAKEST = 12
LENGTHS = ((0, 100, "under 100"), (100, 500, "100–499"), (500, 1_200, "500–1,199"), (1_200, 10**9, "1,200 and more"))
# A text with a path of a machine in it looks like a leak on a page, though it is invented.
_UNFIT = re.compile(r"/(?:root|tmp|work|workspace|home)/|https?:")
_MARKS = re.compile(r"([\\*_\[\]<>#|~$&])")


class LengthClassifier:
    """The baseline that reads nothing: of texts about this long, which type is the most frequent?

    Args:
        texts: texts with their types, of which it learns lengths only.
        taxonomy: the task types.
        quantiles: how many bands of length, each with about as many texts.
    """

    def __init__(self, texts: Sequence[tuple[str, str]], taxonomy: Taxonomy, quantiles: int = QUANTILES) -> None:
        ordered = sorted(texts, key=lambda item: (len(item[0]), item[1]))
        self._edges = sorted({len(ordered[len(ordered) * k // quantiles][0]) for k in range(1, quantiles)})
        bands: list[Counter[str]] = [Counter() for _ in range(len(self._edges) + 1)]
        for text, name in ordered:
            bands[bisect_right(self._edges, len(text))][name] += 1
        self._said = [self._most(band, taxonomy) for band in bands]

    @staticmethod
    def _most(band: Counter[str], taxonomy: Taxonomy) -> Classification:
        ranked = sorted(band.items(), key=lambda item: (-item[1], item[0])) or [(next(iter(taxonomy)), 0)]
        total = max(1, band.total())
        (name, count), others = ranked[0], ranked[1:3]
        return Classification(
            taxonomy[name],
            count / total,
            alternatives=tuple(Alternative(taxonomy[other], n / total) for other, n in others),
        )

    def classify(self, task: Task) -> Classification:
        """See `Classifier.classify`."""
        return self._said[bisect_right(self._edges, len(task.text))]


class Recorded:
    """Asks a classifier once for each text, and keeps what it said and how long that took."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.said: dict[str, tuple[Classification, int]] = {}

    def classify(self, task: Task) -> Classification:
        """See `Classifier.classify`."""
        known = self.said.get(task.text)
        if known is None:
            began = time.perf_counter_ns()
            said = self._classifier.classify(task)
            known = self.said[task.text] = said, time.perf_counter_ns() - began
        return known[0]


@dataclass(frozen=True, slots=True)
class Card:
    """All that the page is made of."""

    manifest: Mapping[str, Any]
    manifest_digest: str  # thresholds stand in it: fitted anew, they make another classifier
    sizes: Mapping[str, int]  # bytes of each file of the artifact
    splits: Mapping[Split, int]
    digest: str
    trained: Evaluation
    rules: Evaluation
    length: Evaluation
    by_length: Sequence[tuple[str, Score]]
    taken: Mapping[str, Mapping[str, Sequence[int]]]  # classifier → which texts → nanoseconds, ascending
    process: Mapping[str, float]


# ------------------------------------------------------------------ measuring


def measure() -> Card:
    """Runs the three classifiers over the test split."""
    taxonomy = load_taxonomy()
    rows = load()
    corpus_digest = digest(rows)
    raw = (shipped_folder() / "manifest.json").read_bytes()
    manifest = json.loads(raw)
    if manifest["corpus_sha256"] != corpus_digest:
        raise SystemExit("the shipped models were trained on another corpus than corpus/; run `make train`")
    splits = assign(rows)
    train = [(row.text, row.type) for row, split in zip(rows, splits, strict=True) if split is Split.TRAIN]
    test = [
        Labelled(
            task=Task(text=row.text),
            accepted=(taxonomy[row.type],),
            form=row.form,
            lang=row.lang,
            hard=row.hard,
            where=row.where,
        )
        for row, split in zip(rows, splits, strict=True)
        if split is Split.TEST
    ]
    trained, rules = Recorded(TrainedClassifier(taxonomy)), Recorded(RuleClassifier(taxonomy))
    warm(trained)
    warm(rules)
    tier_of = level_by_tree(shipped_settings())  # as `tierwise eval classify` has it

    def judged(classifier: Classifier, rows: Sequence[Labelled] = test, keep: int = 0) -> Evaluation:
        return evaluate(rows, classifier, tier_of, clock_ns=time.perf_counter_ns, keep_mistakes=keep)

    found = judged(trained, keep=len(test))
    by_rules = judged(rules)
    alone = sorted(ns for said, ns in trained.said.values() if "clear from its words" in said.evidence)
    asked = sorted(ns for said, ns in trained.said.values() if "clear from its words" not in said.evidence)
    return Card(
        manifest=manifest,
        manifest_digest=hashlib.sha256(raw).hexdigest(),
        sizes={file.name: file.stat().st_size for file in sorted(shipped_folder().iterdir()) if file.is_file()},
        splits=Counter(splits),
        digest=corpus_digest,
        trained=found,
        rules=by_rules,
        length=judged(LengthClassifier(train, taxonomy)),
        by_length=[
            (name, judged(trained, own).score)
            for low, high, name in LENGTHS
            if (own := [row for row in test if low <= len(row.task.text) < high])
        ],
        taken={
            "trained": {
                "all": sorted(ns for _, ns in trained.said.values()),
                "n-grams alone": alone,
                "encoder asked": asked,
            },
            "rules": {"all": sorted(ns for _, ns in rules.said.values())},
        },
        process=json.loads(
            subprocess.run(  # noqa: S603  this interpreter, a fixed program
                [sys.executable, "-c", _PROCESS], capture_output=True, text=True, check=True
            ).stdout
        ),
    )


def warm(recorded: Recorded) -> None:
    """Loads what is loaded lazily, and forgets the texts that it took."""
    for k in range(20):
        recorded.classify(Task(text=f"the {k} of them, or not: what would be there if it was put like so?"))
    recorded.said.clear()


# In a process of its own: what loading costs. Linux tells the resident memory in /proc.
_PROCESS = """
import json, re, time
from pathlib import Path
from tierwise.classifier import TrainedClassifier, load_taxonomy
from tierwise.core.tasks import Task
def mib():
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\\s+(\\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0
taxonomy = load_taxonomy()
before = mib()
began = time.perf_counter()
classifier = TrainedClassifier(taxonomy)
classifier.classify(Task(text="the rest of them, or not: what would be there if it was put like so?"))
loaded = time.perf_counter() - began
for k in range(100):
    classifier.classify(Task(text=f"{k}: " + "what would be there if it was put like so? " * 40))
after = mib()
text = "what would be there if it was put like so? " * 2400
began = time.perf_counter()
classifier.classify(Task(text=text))
long = time.perf_counter() - began
print(json.dumps({"load_seconds": loaded, "memory_mib": after - before, "long_ms": long * 1000}))
"""

# ------------------------------------------------------------------ the page


def page(card: Card) -> str:
    """The page, without a look at anything but the card."""
    parts = (
        _head(card),
        _how(card),
        _test_split(card),
        _headline(card),
        _goals(card),
        _slices(card),
        _reliability(card),
        _risk(card),
        _types(card),
        _families(card),
        _bad_at(card),
        _timings(card),
        _size(card),
    )
    return "\n".join(_filled(line for part in parts for line in part)).rstrip() + "\n"


def _filled(lines: Iterable[str]) -> Iterator[str]:
    """The lines with prose filled to the width of the other pages: figures are longer one time and shorter the next."""
    paragraph: list[str] = []
    code = False

    def flush() -> Iterator[str]:
        if paragraph:
            indent = " " * len(re.sub(r"^(\d+\. |- |).*", r"\1", paragraph[0]))
            yield from wrap(
                " ".join(paragraph), 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
            paragraph.clear()

    for line in lines:
        fence = line.startswith("```")
        if code or fence or not line or re.match(r"[#|<!]|\d+\. |- ", line):
            yield from flush()
        if code or fence or not line or line[0] in "#|<!":
            yield line
        else:
            paragraph.append(line.strip())
        code ^= fence
    yield from flush()


def _head(card: Card) -> list[str]:
    return [
        f"<!-- Generated by tools/report_card.py. Change the script or the models, then run: {COMMAND} -->",
        "",
        "# The classifier's report card",
        "",
        "How good the classifier is that ships in the package, and where it is bad. Every figure on",
        "this page comes from",
        f"`{COMMAND}`, which needs no network; `--check` fails where the page is stale.",
        "",
        f"- corpus: `{card.digest}`",
        f"- encoder: `{card.manifest['files']['encoder.onnx']}`",
        f"- manifest: `{card.manifest_digest}`",
        "",
    ]


def _how(card: Card) -> list[str]:
    m = card.manifest
    costs = shipped_settings().policy.too_low_costs
    bounds = ", ".join(_percent(1 / (1 + cost), 0) for cost in costs)
    return [
        "## How it works",
        "",
        "1. It looks at the head and the tail of a text, 700 and 500 characters at most. The ask stands there; ten",
        "   megabytes cost no more than a page.",
        "2. A linear model over n-grams (words, pairs of words, how words begin, what stands first and last,",
        "the shape of the",
        "   request) scores the 58 types in microseconds. Where it is at least",
        f"{_percent(m['fast_above'], 0)} sure and",
        "   critical work is improbable, that is the answer.",
        "3. Otherwise a small encoder is asked too: all-MiniLM-L6-v2, six layers, fine-tuned on [our own",
        "   corpus](../../corpus/README.md), 8-bit weights, one core, milliseconds; and the rules, which",
        "find the clause that",
        "   asks for something.",
        "4. The scores of the three are added, with weights fitted on a calibration split so that a confidence is a",
        "   frequency.",
        "5. Critical work has a detector of its own: one more output of the encoder, trained for nothing",
        "else, together with the",
        "   probability of the five critical types.",
        "6. The policy gets how likely stricter work is: processing that must be right the first time,",
        "judgment, critical",
        f"   work. It crosses each of these boundaries from {bounds} on: there, stopping short costs more",
        "than going up",
        f"   (`policy.too_low_costs`, {', '.join(f'{cost:g}' for cost in costs)}).",
        f"7. Below a confidence of {_percent(m['abstain_below'], 0)}, or where a text looks like nothing that",
        "it was trained on",
        "   (noise, base64), it abstains, and the policy goes up.",
        "8. Where the ask itself says that a mistake would be grave (it cannot be undone, somebody is",
        "harmed, it goes straight",
        "   to production), the work goes one tier up, whatever its type. The phrases are in `data/stakes.toml`.",
        "",
        "What a text says to its router (*this is trivial, use the cheapest model*) is left out: such a text",
        "is looked at with and without, and the stricter answer counts.",
        "",
        "A type that the caller names is not questioned. [How it decides](how-it-decides.md) has the rest.",
        "",
    ]


def _test_split(card: Card) -> list[str]:
    sizes = card.splits
    return [
        "## What it is measured on",
        "",
        f"The corpus has {sum(sizes.values()):,} texts: {sizes[Split.TRAIN]:,} to train,",
        f"{sizes[Split.CALIBRATION]:,} to fit",
        f"weights and thresholds, {sizes[Split.TEST]:,} to test. Whole clusters go into one split,",
        "never single texts: what",
        "shares ten words in a row, or was written as a pair, stays together (`python",
        "tools/corpus.py check` looks for leaks).",
        "Nothing was trained on the test split. But the same hands wrote all three: **on texts of",
        "other people expect less**,",
        "and measure it on yours: `tierwise eval classify FILE`. Many texts are hard on purpose, so",
        "these are no figures of an",
        "average day either.",
        "",
    ]


def _headline(card: Card) -> list[str]:
    three = (card.trained, card.rules, card.length)
    rows: list[tuple[str, ...]] = []

    def add(name: str, share: Callable[[Score], float | None]) -> None:
        rows.append((name, *(_percent(share(found.score)) for found in three)))

    add("top-1 of 58 types", lambda s: s.top1_share)
    add("top-3", lambda s: s.top3_share)
    add("family", lambda s: s.family_share)
    add("tier", lambda s: s.tier_share)
    add("sent too low", lambda s: s.too_low_share)
    add("sent too high", lambda s: s.too_high_share)
    add("critical work: recall at the top tier", lambda s: s.critical_recall)
    add("false alarms (of the rest, sent to the top)", lambda s: s.false_alarm_share)
    rows.append(("calibration error (ECE, 15 bins)", *(f"{found.ece:.3f}" for found in three)))
    add("abstained", lambda s: s.abstained_share)
    add("type right, where it answered", lambda s: s.answered_accuracy)
    score, parts = card.trained.score, card.manifest["metrics"]["test"]
    return [
        "## Results",
        "",
        f"{score.n:,} texts, {score.critical:,} of them critical. *Tier* is where the shipped policy",
        "sends a short text,",
        "abstentions included; it is right where it is what the type [needs](../reference/task-types.md).",
        "",
        *_table(("", "trained", "rules", "length alone"), rows),
        '*Rules*: `classifier = "rules"`. *Length alone* reads nothing: it says the most frequent',
        "type of training texts that",
        f"are about as long ({QUANTILES} bands). It is never sure, so the policy sends all but a few",
        "to Sonnet: that column is about what “always Sonnet” gives. The regular",
        "expressions of the article that this project grew",
        "from are not here: this",
        "repository does not have them.",
        "",
        "Top-1 on the same texts of other ways to do it, each asked about every text (measured at the end of",
        "the training,",
        "`make train`; they stand in the artifact's `manifest.json`):",
        "",
        *_table(
            ("", "top-1"),
            [
                ("the rules' likeliest type, abstentions counted as answers", _percent(parts["top1_rules_alone"])),
                (
                    "TF-IDF over words and pairs, whole texts, logistic regression (scikit-learn)",
                    _percent(parts["top1_tfidf_logistic_regression"]),
                ),
                ("our n-grams alone, linear", _percent(parts["top1_ngrams_alone"])),
                ("the fine-tuned transformer alone, 8-bit", _percent(parts["top1_encoder_alone"])),
                ("all three added, asked about every text", _percent(parts["top1_all_asked"])),
                ("as shipped: the n-grams alone where they are sure", _percent(parts["top1"])),
            ],
        ),
        "Further ones, with their times (hashed n-grams, static sentence vectors, a sentence transformer as it came):",
        "`python benchmarks/classifiers.py`.",
        "",
        "",
        "Without this script, and the same but for the length:",
        "",
        "```console",
        "$ python tools/corpus.py split --to splits",
        "$ tierwise eval classify splits/test.jsonl --types --errors 20 --classifier trained",
        "$ tierwise eval classify splits/test.jsonl --types --errors 20 --classifier rules",
        "```",
        "",
    ]


def _goals(card: Card) -> list[str]:
    score = card.trained.score
    rows = []
    for name, value, goal, up in (
        ("top-1", score.top1_share, 0.80, True),
        ("top-3", score.top3_share, 0.93, True),
        ("family", score.family_share, 0.90, True),
        ("tier", score.tier_share, 0.90, True),
        ("sent too low", score.too_low_share, 0.02, False),
        ("critical recall", score.critical_recall, 0.95, True),
        ("false alarms", score.false_alarm_share, 0.03, False),
        ("ECE", card.trained.ece, 0.04, False),
    ):
        if value is None:
            continue
        reached = value >= goal if up else value <= goal
        shown = (f"{goal:.2f}", f"{value:.3f}") if name == "ECE" else (f"{goal * 100:.0f} %", _percent(value))
        rows.append((name, f"{'≥' if up else '≤'} {shown[0]}", shown[1], "yes" if reached else "**no**"))
    return [
        "## Against the goals",
        "",
        "What the project set out for, on texts of others; here on the test split. Goals for time are",
        "[below](#time).",
        "",
        *_table(("", "goal", "here", "reached"), rows),
    ]


def _slices(card: Card) -> list[str]:
    found, old = card.trained, card.rules
    heads = ("", "texts", "top-1", "top-3", "family", "tier", "too low", "abstained", "top-1 of the rules")

    def rows(pairs: Iterable[tuple[str, Score, Score | None]]) -> Iterator[tuple[str, ...]]:
        for name, s, r in pairs:
            shares = (s.top1_share, s.top3_share, s.family_share, s.tier_share, s.too_low_share, s.abstained_share)
            yield name, f"{s.n:,}", *(_percent(share) for share in shares), _percent(r.top1_share if r else None)

    by_length = [(name, score, None) for name, score in card.by_length]
    return [
        "## By form, language, hardness, length",
        "",
        "Forms are those of [the corpus](../../corpus/README.md). A few dozen texts say little: of 50, one is 2 %.",
        "",
        *_table(heads, rows((name, score, old.by_form.get(name)) for name, score in found.by_form.items())),
        *_table(heads, rows((name, score, old.by_lang.get(name)) for name, score in found.by_lang.items())),
        *_table(
            heads,
            rows(
                ("hard" if hard else "not hard", score, old.by_hard.get(hard)) for hard, score in found.by_hard.items()
            ),
        ),
        "By characters:",
        "",
        *_table(heads[:-1], (row[:-1] for row in rows(by_length))),
    ]


def _reliability(card: Card) -> list[str]:
    rows = [
        (f"{100 * b.low:.0f}–{100 * b.high:.0f} %", f"{b.n:,}", _percent(b.mean_confidence), _percent(b.accuracy))
        for b in card.trained.reliability
        if b.n
    ]
    return [
        "## Is a confidence a frequency?",
        "",
        "Of texts with a confidence of 80 %, 80 % should be right: on the diagonal. The larger a dot, the",
        "more texts.",
        "",
        f"![Confidence against frequency]({RELIABILITY})",
        "",
        *_table(("confidence", "texts", "mean", "right"), rows),
    ]


def _risk(card: Card) -> list[str]:
    points = card.trained.risk_coverage
    half = min(points, key=lambda point: abs(point.coverage - 0.5))
    return [
        "## How much is wrong, if only the sure is answered?",
        "",
        f"The surest {_percent(half.coverage)} of the texts (confidence {half.confidence:.2f} and up) have",
        f"{_percent(half.risk)} wrong types; all of them have {_percent(points[-1].risk)}.",
        "",
        f"![Share of wrong types against share of texts answered]({RISK_COVERAGE})",
        "",
    ]


def _types(card: Card) -> list[str]:
    order = {name: k for k, name in enumerate(card.manifest["types"])}
    rules = {score.task_type.name: score for score in card.rules.types}
    rows = [
        (
            f"`{score.task_type.name}`",
            str(score.support),
            _percent(score.precision, 0),
            _percent(score.recall, 0),
            _percent(rules[score.task_type.name].precision if score.task_type.name in rules else None, 0),
            _percent(rules[score.task_type.name].recall if score.task_type.name in rules else None, 0),
        )
        for score in sorted(card.trained.types, key=lambda score: order[score.task_type.name])
    ]
    return [
        "## Types",
        "",
        "*Precision*: of the texts that were given this type, those that have it. *Recall*: of the",
        "texts that have it, those",
        "that were given it. About twenty texts a type: five points are one text.",
        "",
        *_table(("type", "texts", "precision", "recall", "rules: precision", "rules: recall"), rows),
    ]


def _families(card: Card) -> list[str]:
    totals: Counter[str] = Counter()
    for pair in card.trained.family_confusion:
        totals[pair.label] += pair.n
    mixed = [pair for pair in card.trained.family_confusion if pair.label != pair.predicted][:WEAKEST]
    rows = [
        (pair.label, pair.predicted, f"{pair.n}", f"{_percent(pair.n / totals[pair.label])} of {totals[pair.label]:,}")
        for pair in mixed
    ]
    return [
        "## Families taken for others",
        "",
        "The most frequent.",
        "",
        *_table(("is", "said", "texts", "share"), rows),
    ]


def _bad_at(card: Card) -> list[str]:
    weakest = sorted(
        (score for score in card.trained.types if score.support), key=lambda s: (s.recall or 0.0, s.task_type.name)
    )[:WEAKEST]
    rows = []
    for score in weakest:
        name = score.task_type.name
        instead = [pair for pair in card.trained.type_confusion if pair.label == name][:3]
        said = ", ".join(f"`{pair.predicted}` ({pair.n})" for pair in instead)
        rows.append((f"`{name}`", _percent(score.recall, 0), said))
    english = card.trained.by_lang["en"]
    foreign_n = sum(score.n for lang, score in card.trained.by_lang.items() if lang != "en")
    foreign = sum(score.top1 for lang, score in card.trained.by_lang.items() if lang != "en") / max(1, foreign_n)
    longest = card.by_length[-1]
    mistakes = [
        (
            _shortened(mistake.row.task.text),
            f"`{mistake.row.accepted[0].name}`",
            f"`{mistake.said.task_type.name}`",
            f"{100 * mistake.said.confidence:.0f} %{', abstained' if mistake.said.abstained else ''}",
            "yes" if mistake.too_low else "",
        )
        for mistake in examples(card.trained.mistakes)
    ]
    return [
        "## What it is bad at",
        "",
        "**These types**, which their neighbours resemble:",
        "",
        *_table(("type", "recall", "said instead"), rows),
        f"**Languages other than English**: {_percent(foreign)} top-1 over {foreign_n} texts, against",
        f"{_percent(english.top1_share)} in English. The encoder was made for English, and its",
        "vocabulary has hardly any words",
        "of Japanese or Chinese.",
        "",
        f"**Long documents**: {_percent(longest[1].top1_share)} top-1 from 1,200 characters on, against",
        f"{_percent(card.trained.score.top1_share)} over all. An instruction in the middle of a long",
        "text is not seen, as only",
        "head and tail are read.",
        "",
        "**How hard a task is** within its type: it does not know.",
        "",
        f"Mistakes of the test split, shortened; the {card.trained.score.too_low} that went too low",
        "and the surest ones first",
        " in line:",
        "",
        *_table(("text", "is", "said", "sure", "too low"), mistakes),
    ]


def examples(mistakes: Iterable[Mistake], wanted: int = EXAMPLES) -> list[Mistake]:
    """The worst, with at most five that were sent too low, no label twice, and some not English or long."""
    fit = [mistake for mistake in mistakes if not _UNFIT.search(mistake.row.task.text)]
    chosen: list[Mistake] = []

    def take(some: Iterable[Mistake], most: int) -> None:
        for mistake in some:
            if most == 0 or len(chosen) == wanted:
                return
            if all(mistake.row.accepted != other.row.accepted for other in chosen):
                chosen.append(mistake)
                most -= 1

    take((m for m in fit if m.too_low), 5)
    take((m for m in fit if m.row.lang != "en" and not m.too_low), 2)
    take((m for m in fit if len(m.row.task.text) >= LENGTHS[-1][0] and not m.too_low), 2)
    take((m for m in fit if not m.too_low), wanted)
    return chosen


def _timings(card: Card) -> list[str]:
    every, alone = card.taken["trained"]["all"], card.taken["trained"]["n-grams alone"]
    p50, p99 = _at(every, 50) / 1e3, _at(every, 99) / 1e3
    rows = [
        (f"{kind}, {which}", f"{len(ns):,}", _duration(_at(ns, 50)), _duration(_at(ns, 99)))
        for kind, groups in card.taken.items()
        for which, ns in groups.items()
        if ns
    ]
    rate = len(every) * 1e9 / sum(every)
    load, memory = card.process["load_seconds"], card.process["memory_mib"]
    goals = [
        ("p50 of a text", "≤ 150 µs", _duration(p50 * 1e3), p50 <= 150),
        ("p99", "≤ 10 ms", _duration(p99 * 1e3), p99 <= 10_000),
        ("100 kB of text", "≤ 15 ms", f"{card.process['long_ms']:.1f} ms", card.process["long_ms"] <= 15),
        ("texts a second, one core", "≥ 20,000", f"{rate:,.0f}", rate >= 20_000),
        ("loading", "≤ 0.3 s", f"{load:.2f} s", load <= 0.3),
        ("memory added", "≤ 120 MB", f"{memory * 1.048576:.0f} MB", memory * 1.048576 <= 120),
    ]
    return [
        "## Time",
        "",
        "Where the encoder is asked, an answer takes milliseconds, not the microseconds that the",
        "project set out for. Against",
        "a call to a model, which takes seconds, that is little; where it is too much, `classifier =",
        '"rules"` answers in',
        "microseconds and abstains far more often. Here, where many texts are hard on purpose, the n-grams",
        "alone decided",
        f"{len(alone):,} of {len(every):,} ({_percent(len(alone) / len(every))}). A text that was just seen is",
        "remembered and costs next to nothing.",
        "",
        TIMINGS,
        "",
        f"One text at a time, warm, in process, one core; {platform.machine()}, Python",
        f"{platform.python_version()}. Timings are",
        " of the machine that wrote this page.",
        "",
        *_table(("", "texts", "p50", "p99"), rows),
        *_table(("", "goal", "here", "reached"), ((a, b, c, "yes" if ok else "**no**") for a, b, c, ok in goals)),
        TIMINGS_END,
        "",
    ]


def _size(card: Card) -> list[str]:
    total = sum(card.sizes.values())
    rows = [(f"`{name}`", f"{size / 1e3:,.0f} kB") for name, size in card.sizes.items()]
    rows.append(("together (goal: ≤ 25 MB)", f"{total / 1e6:.1f} MB"))
    return [
        "## Size",
        "",
        "No pickle; each file's SHA-256 is in the manifest, and a damaged or newer artifact is",
        "refused. The n-grams are loaded",
        "at the first text, the encoder at the first text that needs it.",
        "",
        *_table(("file", "size"), rows),
        "`make train` rebuilds it from the corpus.",
        "",
    ]


def without_timings(text: str) -> str:
    """The page without what differs from run to run."""
    return re.sub(f"{re.escape(TIMINGS)}.*?{re.escape(TIMINGS_END)}", TIMINGS, text, flags=re.DOTALL)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    marks = "---|" + "--:|" * (len(heads) - 1)
    if heads[0] in {"is", "text", "type"} and "said" in " ".join(heads):
        marks = "---|" * len(heads)
    lines = ["| " + " | ".join(heads) + " |", "|" + marks]
    lines.extend("| " + " | ".join(row) + " |" for row in rows)
    return [*lines, ""]


def _percent(share: float | None, places: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{places}f} %"


def _duration(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds >= 1e6 else f"{nanoseconds / 1e3:.0f} µs"


def _at(ordered: Sequence[int], percent: int) -> int:
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _shortened(text: str) -> str:
    """One line of Markdown that shows the text as it is, cut in the middle: both ends are what the classifier reads."""
    line = "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split())).replace("`", "'")
    if len(line) > TEXT_CHARS:
        line = f"{line[: 2 * TEXT_CHARS // 3].rstrip()} … {line[-TEXT_CHARS // 3 :].lstrip()}"
    return _MARKS.sub(r"\\\1", line)


# ------------------------------------------------------------------ pictures

_SIDE, _LEFT, _TOP, _WIDTH, _HEIGHT = 360, 64, 40, 560, 460
_COLOURS = (("trained", "a"), ("rules", "b"), ("length alone", "c"))
_STYLE = """\
  <style>
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600; font-size: 15px }
    .ground { fill: #ffffff } .grid { stroke: #d0d7de; stroke-width: 1 }
    .even { stroke: #6e7781; stroke-dasharray: 5 4 }
    .a { stroke: #0757ba; fill: #0757ba } .b { stroke: #b04c00; fill: #b04c00 } .c { stroke: #6e7781; fill: #6e7781 }
    .line { fill: none; stroke-width: 2.5 } .dot { fill-opacity: .55; stroke-width: 1.5 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .ground { fill: #0d1117 } .grid { stroke: #30363d } .even { stroke: #8b949e }
      .a { stroke: #58a6ff; fill: #58a6ff } .b { stroke: #ffa657; fill: #ffa657 } .c { stroke: #8b949e; fill: #8b949e }
      .line { fill: none }
    }
  </style>"""


def reliability_picture(found: Mapping[str, Evaluation]) -> str:
    """Confidence against frequency; a dot's area is its share of the texts."""
    shapes = [f'  <line class="even" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>']
    for name, evaluation in found.items():
        total = evaluation.score.n
        bins = [b for b in evaluation.reliability if b.mean_confidence is not None and b.accuracy is not None]
        for b in bins:
            radius = max(2.5, 28 * (b.n / total) ** 0.5)
            said = f"{name}: {b.n} texts, confidence {_percent(b.mean_confidence)}, right {_percent(b.accuracy)}"
            shapes.append(
                f'  <circle class="dot {_colour(name)}" cx="{_x(b.mean_confidence or 0.0)}" '
                f'cy="{_y(b.accuracy or 0.0)}" r="{radius:.1f}"><title>{escape(said)}</title></circle>'
            )
    return _picture("Confidence against frequency", "confidence", "right", found, shapes)


def risk_coverage_picture(found: Mapping[str, Evaluation]) -> str:
    """The share of wrong types among the answered, against the share of texts answered."""
    shapes = []
    for name, evaluation in found.items():
        points = " ".join(f"{_x(point.coverage)},{_y(point.risk)}" for point in evaluation.risk_coverage)
        shapes.append(f'  <polyline class="line {_colour(name)}" points="{points}"/>')
        shapes += [
            f'  <circle class="{_colour(name)}" cx="{_x(p.coverage)}" cy="{_y(p.risk)}" r="2.5"/>'
            for p in evaluation.risk_coverage
        ]
    return _picture("Wrong types, if only the surest texts are answered", "texts answered", "wrong", found, shapes)


def _picture(title: str, across: str, up: str, found: Mapping[str, Evaluation], shapes: Sequence[str]) -> str:
    """A square from 0 to 100 % both ways, with a legend, on a ground of its own: readable on any page."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        'role="img">',
        f"  <title>{escape(title)}</title>",
        _STYLE,
        f'  <rect class="ground" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>',
        f'  <text class="title" x="{_LEFT}" y="24">{escape(title)}</text>',
    ]
    for k in range(6):
        share = k / 5
        lines += [
            f'  <line class="grid" x1="{_x(share)}" y1="{_y(0)}" x2="{_x(share)}" y2="{_y(1)}"/>',
            f'  <line class="grid" x1="{_x(0)}" y1="{_y(share)}" x2="{_x(1)}" y2="{_y(share)}"/>',
            f'  <text x="{_x(share)}" y="{_y(0) + 18}" text-anchor="middle">{20 * k} %</text>',
            f'  <text x="{_LEFT - 8}" y="{_y(share) + 4}" text-anchor="end">{20 * k} %</text>',
        ]
    middle = _TOP + _SIDE / 2
    lines += [
        f'  <text x="{_x(0.5)}" y="{_y(0) + 40}" text-anchor="middle">{escape(across)}</text>',
        f'  <text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{escape(up)}</text>',
        *shapes,
    ]
    for k, name in enumerate(found):
        y = _TOP + 14 + 22 * k
        lines += [
            f'  <circle class="{_colour(name)}" cx="{_LEFT + _SIDE + 30}" cy="{y - 4}" r="5"/>',
            f'  <text x="{_LEFT + _SIDE + 42}" y="{y}">{escape(name)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _colour(name: str) -> str:
    return dict(_COLOURS)[name]


def _x(share: float) -> float:
    return round(_LEFT + _SIDE * share, 1)


def _y(share: float) -> float:
    return round(_TOP + _SIDE * (1 - share), 1)


# ------------------------------------------------------------------ command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page and its pictures, or checks them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure the shipped classifier and write its report card.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything but timings would change")
    check = parser.parse_args(arguments).check
    card = measure()
    two = {"trained": card.trained, "rules": card.rules}
    files = {
        PAGE: page(card),
        RELIABILITY: reliability_picture(two),
        RISK_COVERAGE: risk_coverage_picture({**two, "length alone": card.length}),
    }
    if not check:
        for name, text in files.items():
            (FOLDER / name).write_text(text, "utf-8")
        return 0
    stale = [
        name
        for name, text in files.items()
        if not (FOLDER / name).is_file() or without_timings((FOLDER / name).read_text("utf-8")) != without_timings(text)
    ]
    if stale:
        print(f"docs/explanation: {', '.join(stale)} out of date; run: {COMMAND}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
