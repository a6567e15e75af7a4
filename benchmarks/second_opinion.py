"""What a second opinion on the task type is worth: the share of right types with and without it, and its time.

    python benchmarks/second_opinion.py [--rows 40] [--below 0.6] [--timeout 2.0]

Texts are of the corpus's test split, those in doubt, in an order drawn from their digests. The model is the embedded
one (SmolLM2, 135 million parameters, demonstration grade), asked through the same code as a run asks it. Floor: the
classifier alone.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from corpus import Row, Split, assign, load  # noqa: E402  the script's own folder comes first
from tierwise.classifier import TrainedClassifier, load_taxonomy  # noqa: E402
from tierwise.config import shipped_settings  # noqa: E402
from tierwise.core.decisions import OutcomeKind  # noqa: E402
from tierwise.core.tasks import Classification, Task  # noqa: E402
from tierwise.engine.checks import check_reply  # noqa: E402
from tierwise.engine.request import build_body  # noqa: E402
from tierwise.engine.second_opinion import MAX_OUTPUT_TOKENS, in_doubt, question, reranked  # noqa: E402
from tierwise.policy import level_by_tree  # noqa: E402
from tierwise.providers.base import ModelRequest, ProviderFailure  # noqa: E402
from tierwise.providers.registry import build_provider  # noqa: E402
from tierwise.wire.adapt import adapt  # noqa: E402

MODEL = "smollm2-135m-instruct"


def doubtful(count: int, below: float) -> list[tuple[Row, Classification]]:
    """Rows of the test split that the classifier is in doubt of, with what it says."""
    policy = replace(shipped_settings().policy, second_opinion=True, second_opinion_below=below)
    classifier = TrainedClassifier(load_taxonomy())
    rows = load()
    test = [row for row, split in zip(rows, assign(rows), strict=True) if split is Split.TEST]
    found: list[tuple[Row, Classification]] = []
    for row in sorted(test, key=lambda row: hashlib.sha256(row.text.encode()).digest()):
        said = classifier.classify(Task(text=row.text))
        if in_doubt(Task(text=row.text), said, policy):
            found.append((row, said))
            if len(found) == count:
                break
    return found


async def measure(rows: list[tuple[Row, Classification]], timeout_seconds: float) -> None:
    """Asks and prints."""
    settings = shipped_settings()
    _, model = settings.catalog.model(MODEL)
    provider = build_provider(settings.providers["embedded"])
    level_of, taxonomy = level_by_tree(settings), load_taxonomy()
    alone = opinion = possible = lower_alone = lower_opinion = 0
    failures: list[str] = []
    seconds: list[float] = []
    try:
        for number, (row, said) in enumerate(rows):
            asked = question(Task(text=row.text), said)
            body, _ = adapt(build_body(asked, model, max_output_tokens=MAX_OUTPUT_TOKENS), model)
            if number == 0:  # loads the model, untimed
                await provider.send(ModelRequest(model=model, body=body))
            now, began = said, time.perf_counter()
            try:
                reply = await provider.send(ModelRequest(model=model, body=body, timeout_seconds=timeout_seconds))
                checked = check_reply(asked, reply.text, reply.stop_reason, reply.message, ())
                if checked.kind is OutcomeKind.ACCEPTED:
                    now = reranked(said, checked.text, MODEL)
                else:
                    failures.append(checked.kind.value)
            except ProviderFailure as failure:
                failures.append(failure.kind.value)
            seconds.append(time.perf_counter() - began)
            needed = taxonomy[row.type].level
            alone += said.task_type.name == row.type
            opinion += now.task_type.name == row.type
            possible += row.type in asked.labels
            lower_alone += level_of(said) < needed
            lower_opinion += level_of(now) < needed
    finally:
        await provider.aclose()
    count = len(rows)
    print(f"{count} texts in doubt; the right type is among the candidates of {possible}")
    print(f"right type      the classifier alone {alone}/{count}   with the opinion of {MODEL} {opinion}/{count}")
    print(f"sent too low    the classifier alone {lower_alone}/{count}   with it {lower_opinion}/{count}")
    print(f"time            median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s")
    print(f"no answer       {len(failures)}: {', '.join(sorted(set(failures))) or '–'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--below", type=float, default=0.6)
    parser.add_argument("--timeout", type=float, default=2.0)
    given = parser.parse_args()
    asyncio.run(measure(doubtful(given.rows, given.below), given.timeout))
