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
from collections.abc import Callable
from datetime import date

from tierwise.classifier import RuleClassifier, TrainedClassifier, load_taxonomy
from tierwise.config import load_settings
from tierwise.core.tasks import Task
from tierwise.engine.planner import Planner
from tierwise.prices import PriceBook

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
    """`count` texts: an ask and a payload, 10 to 500 words."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        length = chance.randint(10, 500)
        payload = " ".join(chance.choices(WORDS, k=length))
        ask = chance.choice(ASKS)
        made.append(f"{ask}:\n\n{payload}" if chance.random() < 0.7 else f"{payload}\n\n{ask}.")
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


def main() -> None:
    """Prints the table."""
    settings = load_settings(env={"HOME": "/nonexistent"})
    classifier = RuleClassifier(load_taxonomy())
    planner = Planner(settings, classifier, PriceBook(settings.prices, settings.providers))
    today = date(2026, 11, 23)
    patterns = [re.compile(rf"\b{word}(?:s|d|ing)?\b", re.IGNORECASE) for word in WORDS[:30]]
    inputs = texts(1_200)
    classified = {text: classifier.classify(Task(text=text)) for text in inputs}
    rows: list[tuple[str, Callable[[str], object]]] = [
        ("empty call (floor)", lambda text: None),
        ("text.split() (floor)", str.split),
        ("30 x re.search", lambda text: [pattern.search(text) for pattern in patterns]),
        ("classify", lambda text: classifier.classify(Task(text=text))),
        ("policy", lambda text: planner.plan(Task(text=text), today, classification=classified[text])),
        ("classify + policy", lambda text: planner.plan(Task(text=text), today)),
    ]
    print(f"Python {sys.version.split()[0]}, {len(inputs)} texts of 10-500 words, 5 rounds, one core; microseconds")
    print(f"{'':24}{'p50':>10}{'p99':>10}{'max':>10}")
    for name, function in rows:
        timings = microseconds(function, inputs, 5)
        print(
            f"{name:24}{timings[len(timings) // 2]:10.1f}{timings[int(len(timings) * 0.99)]:10.1f}{timings[-1]:10.1f}"
        )
    trained = TrainedClassifier(load_taxonomy())
    fresh = texts(400, seed=11)  # each once: recent texts are remembered
    trained.classify(Task(text="hm, that thing of last week with Ana"))  # loads the encoder
    timings = []
    for text in fresh:
        began = time.perf_counter_ns()
        trained.classify(Task(text=text))
        timings.append((time.perf_counter_ns() - began) / 1000)
    timings.sort()
    print(f"{'classify, trained':24}{timings[200]:10.1f}{timings[-4]:10.1f}{timings[-1]:10.1f}")
    huge = "Summarise this log: " + "error at line 17; " * 600_000
    timings = microseconds(lambda text: classifier.classify(Task(text=text)), [huge], 200)
    print(f"{'classify, 10 MB':24}{timings[100]:10.1f}{timings[-3]:10.1f}{timings[-1]:10.1f}")


if __name__ == "__main__":
    main()
