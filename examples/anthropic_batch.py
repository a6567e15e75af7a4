"""A batch with Anthropic's SDK: each request goes where it belongs, and what comes back wrong goes one tier up.

pip install 'tierwise[anthropic]'
ANTHROPIC_API_KEY=… python examples/anthropic_batch.py
"""

from __future__ import annotations

import time
from typing import Any

import anthropic

import tierwise

TICKETS = ("The lamp of order 48213 arrived broken.", "Two weeks, and the parcel of order 48377 is still not here.")
LABELS = ("delivery", "damage", "billing", "other")


def is_label(text: str) -> bool:
    """What an answer must be."""
    return text.strip() in LABELS


def run(client: anthropic.Anthropic, requests: list[Any]) -> list[tierwise.BatchVerdict]:
    """Sends a batch, waits for its end, and judges what came of it."""
    batch = client.messages.batches.create(requests=requests)
    while client.messages.batches.retrieve(batch.id).processing_status != "ended":
        time.sleep(30)
    verdicts = tierwise.judge_batch(requests, client.messages.batches.results(batch.id), check=is_label)
    for verdict in verdicts:
        print(f"{verdict.custom_id} [{verdict.model}] {'fine' if verdict.accepted else verdict.why}")
    return verdicts


def main() -> None:
    """Classifies tickets at half the price, on the cheapest tier whose answer is one of the labels."""
    client = tierwise.wrap(anthropic.Anthropic())
    requests: list[Any] = [
        {
            "custom_id": f"ticket-{number}",
            "params": {
                "model": "claude-tierwise-auto",
                "max_tokens": 50,
                "messages": [{"role": "user", "content": f"Classify by topic, one of {', '.join(LABELS)}: {ticket}"}],
            },
        }
        for number, ticket in enumerate(TICKETS)
    ]
    with tierwise.call_options(project="example"):
        while requests:
            requests = [verdict.again for verdict in run(client, requests) if verdict.again is not None]


if __name__ == "__main__":
    main()
