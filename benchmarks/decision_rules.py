"""How long the rule classifier takes, warm, on texts of 10 to 500 words: `decision_rules.py [--rounds N]`.

The texts are made here: instructions from the test corpus with payloads of common words behind them. Beside it a floor:
what bare Python takes to lower-case the same two windows of a text and to find the words in them.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from tierwise.classifier import RuleClassifier, load_taxonomy
from tierwise.core.tasks import Task

CASES = Path(__file__).parent.parent / "tests" / "classifier" / "cases.toml"
PROSE = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one
you were all her she there would their we him been has when who will no more if out so what up said its about than
into them can only other time new some could these two may first then do any like my now over such our man me even
most made after also did many off before must well back through years where much your way down should because long
each just state people those too mister how little good world make very year still see own work men day get
""".split()  # noqa: SIM905  # prose reads as prose
WORD = re.compile(r"\w+")


def texts(count: int, seed: int = 7) -> list[str]:
    """Instructions with payloads, 10 to 500 words long, sentences and paragraphs included."""
    rng = random.Random(seed)
    asks = [t for group in tomllib.loads(CASES.read_text(encoding="utf-8"))["cases"].values() for t in group]
    made = []
    for _ in range(count):
        words: list[str] = []
        length = rng.randint(10, 500)
        while len(words) < length:
            words.extend([*rng.choices(PROSE, k=rng.randint(6, 20)), rng.choice([".", ".", ".\n\n", ","])])
        made.append(f"{rng.choice(asks)}{rng.choice(['. ', chr(10) * 2, ': '])}{' '.join(words)}")
    return made


def measure(call: Callable[[str], object], inputs: list[str], rounds: int) -> list[float]:
    """Microseconds a call, ascending, over all inputs and rounds."""
    taken = []
    for _ in range(rounds):
        for text in inputs:
            begun = time.perf_counter_ns()
            call(text)
            taken.append((time.perf_counter_ns() - begun) / 1000)
    return sorted(taken)


def main() -> int:
    """Print median, p99 and worst in microseconds for the classifier and the floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=1200)
    args = parser.parse_args()
    inputs = texts(args.texts)
    begun = time.perf_counter()
    classifier = RuleClassifier(load_taxonomy())
    classifier.classify(Task(text="warm up"))
    print(f"first call, rules compiled: {(time.perf_counter() - begun) * 1000:.0f} ms")
    huge = "Summarise this: " + "x" * 10_000_000
    rows = {
        "floor (lower-case, find words)": measure(
            lambda t: (WORD.findall(t[:520].lower()), WORD.findall(t[-180:].lower())), inputs, args.rounds
        ),
        "rule classifier": measure(lambda t: classifier.classify(Task(text=t)), inputs, args.rounds),
        "rule classifier, 10 MB": measure(lambda t: classifier.classify(Task(text=t)), [huge] * 50, args.rounds),
    }
    for name, taken in rows.items():
        print(
            f"{name:<32} p50 {taken[len(taken) // 2]:7.1f} µs  p99 {taken[int(len(taken) * 0.99)]:7.1f} µs  "
            f"max {taken[-1]:8.1f} µs  n={len(taken)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
