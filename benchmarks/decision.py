"""How long a decision takes: classify (by rules; by the trained models) and decide, warm, on texts of 10 to 500 words.

    python benchmarks/decision.py

Floors, in the same run: an empty Python call, splitting the same text into words, and what the naive way costs (thirty
patterns searched one after the other). Goals: p50 under 100 µs, p99 under 1 ms.
"""

from __future__ import annotations

import gc
import random
import re
import sys
import time
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path

from tierwise.classifier import RuleClassifier, TrainedClassifier, load_taxonomy
from tierwise.config import shipped_settings
from tierwise.core.tasks import Task
from tierwise.engine.planner import Planner
from tierwise.prices import PriceBook

CASES = Path(__file__).parent.parent / "tests" / "classifier" / "cases.toml"
ASKS = (
    "Summarise this ticket in one line",
    "Extract the invoice number, date and total as JSON",
    "Classify the message into one of: billing, shipping, account",
    "Translate the following paragraph into French",
    "Review this diff for bugs and security problems",
    "Write a Python function that merges overlapping intervals",
    "Is this clause enforceable under German law?",
    "Why does the deployment fail with exit code 137? Find and fix the fault",
    "Rank these candidates by fit for the role",
    "Plan a migration of the billing service to PostgreSQL in five steps",
    "deploy the new release to production",
    "extractInvoiceFields",
)
WORDS = (  # noqa: SIM905 a sentence reads better than a list of forty strings
    "the customer order arrived late and the support team replied within two days about a refund for item number in "
    "warehouse report total amount due date meeting notes agreed next steps owner service returned error while "
    "parsing response from upstream because connection was reset after thirty seconds of waiting for data"
).split()


def texts(count: int, seed: int = 7) -> list[str]:
    """`count` texts: an ask and a run of words for a payload, 10 to 500 words."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        length = chance.randint(10, 500)
        payload = " ".join(chance.choices(WORDS, k=length))
        ask = chance.choice(ASKS)
        made.append(f"{ask}:\n\n{payload}" if chance.random() < 0.7 else f"{payload}\n\n{ask}.")
    return made


def prose(count: int, seed: int = 7) -> list[str]:
    """`count` texts: an ask of the rules' own test cases, then sentences and paragraphs, 10 to 500 words.

    Dense in clauses, which is what the rules spend their time on: the harder input.
    """
    chance = random.Random(seed)
    asks = [ask for group in tomllib.loads(CASES.read_text("utf-8"))["cases"].values() for ask in group]
    made = []
    for _ in range(count):
        words: list[str] = []
        length = chance.randint(10, 500)
        while len(words) < length:
            words += [*chance.choices(WORDS, k=chance.randint(6, 20)), chance.choice([".", ".", ".\n\n", ","])]
        made.append(f"{chance.choice(asks)}{chance.choice(['. ', chr(10) * 2, ': '])}{' '.join(words)}")
    return made


def microseconds(function: Callable[[str], object], inputs: list[str], rounds: int) -> list[float]:
    """One timing an input and round, sorted."""
    for text in inputs[:200]:
        function(text)
    timings = []
    gc.disable()
    for _ in range(rounds):
        for text in inputs:
            began = time.perf_counter_ns()
            function(text)
            timings.append((time.perf_counter_ns() - began) / 1000)
    gc.enable()
    timings.sort()
    return timings


def show(name: str, timings: list[float]) -> None:
    """One line of the table; `timings` ascend."""
    print(f"{name:24}{timings[len(timings) // 2]:10.1f}{timings[int(len(timings) * 0.99)]:10.1f}{timings[-1]:10.1f}")


def main() -> None:
    """Prints the tables."""
    settings = shipped_settings()
    classifier = RuleClassifier(load_taxonomy())
    planner = Planner(settings, classifier, PriceBook(settings.prices, settings.providers))
    today = date(2026, 11, 23)
    patterns = [re.compile(rf"\b{word}(?:s|d|ing)?\b", re.IGNORECASE) for word in WORDS[:30]]
    print(f"Python {sys.version.split()[0]}, 1200 texts of 10-500 words, 5 rounds, one core; microseconds")
    for kind, inputs in (("words", texts(1_200)), ("prose", prose(1_200))):
        classified = {text: classifier.classify(Task(text=text)) for text in inputs}
        rows: list[tuple[str, Callable[[str], object]]] = [
            ("empty call (floor)", lambda text: None),
            ("text.split() (floor)", str.split),
            ("30 x re.search", lambda text: [pattern.search(text) for pattern in patterns]),
            ("classify", lambda text: classifier.classify(Task(text=text))),
            ("policy", lambda text, known=classified: planner.plan(Task(text=text), today, classification=known[text])),
            ("classify + policy", lambda text: planner.plan(Task(text=text), today)),
        ]
        print(f"\n{kind:24}{'p50':>10}{'p99':>10}{'max':>10}")
        for name, function in rows:
            show(name, microseconds(function, inputs, 5))
    trained = TrainedClassifier(load_taxonomy())
    trained.classify(Task(text="hm, that thing of last week with Ana"))  # loads the encoder
    timings = []
    for text in texts(400, seed=11):  # each once: recent texts are remembered
        began = time.perf_counter_ns()
        trained.classify(Task(text=text))
        timings.append((time.perf_counter_ns() - began) / 1000)
    print()
    show("words, trained", sorted(timings))
    huge = "Summarise this log: " + "error at line 17; " * 600_000
    show("10 MB, rules", microseconds(lambda text: classifier.classify(Task(text=text)), [huge], 200))


if __name__ == "__main__":
    main()
