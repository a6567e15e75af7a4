"""A task that cannot be is refused where it is made."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import Needs, Stakes, Task


def test_needs_are_ordered() -> None:
    """Processing asks for less than judgment, judgment for less than critical work."""
    assert sorted(Needs, key=lambda needs: needs.rank) == [Needs.PROCESSING, Needs.JUDGMENT, Needs.CRITICAL]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("tokens_in", v) for v in (-1, 1.5, math.nan, "9", True, 10**13)],
        ("tokens_out", -1),
        *[("max_output_tokens", v) for v in (0, -5, 2.0)],
        *[("max_latency_seconds", v) for v in (-0.1, math.nan, math.inf, -math.inf, "30s", True, 10**400)],
        *[("temperature", v) for v in (math.nan, math.inf, -1, "hot")],
        *[("input_text", v) for v in (b"bytes", 3)],
        ("system", ["text"]),
        ("max_cost_usd", 0.1),
        ("tier", 3),
        ("session", 7),
        ("json_schema", True),
    ],
)
def test_impossible_values_are_refused(field: str, value: Any) -> None:
    """A wrong kind, a NaN, a negative number: the message names the field, or what it is."""
    with pytest.raises(InvalidTask, match=f"{field}|JSON schema is an object, not bool"):
        Task(text="do it", **{field: value})


@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_a_text_is_a_str(text: Any) -> None:
    """Bytes are not decoded by guessing."""
    with pytest.raises(InvalidTask, match="the task's text must be a str, not"):
        Task(text=text)


@pytest.mark.parametrize("labels", ["yes", ["yes", "no"], ("yes", " "), ("yes", 1)])
def test_labels_are_texts(labels: Any) -> None:
    """A single text is not taken for a list of its letters, and a blank label is none."""
    with pytest.raises(InvalidTask, match=r"labels are .*; give texts, none of them blank"):
        Task(text="t", labels=labels)


@pytest.mark.parametrize("tags", [["a"], {"a": 1}, {1: "a"}])
def test_tags_are_texts_by_name(tags: Any) -> None:
    """A tag that the ledger could not hold is refused at once."""
    with pytest.raises(InvalidTask, match="tags are"):
        Task(text="t", tags=tags)


def test_stakes_are_one_of_three() -> None:
    """Anything else lists the three."""
    with pytest.raises(InvalidTask, match="stakes are 'huge'; use one of normal, high, critical"):
        Task(text="t", stakes="huge")  # type: ignore[arg-type]


def test_the_edges_of_what_can_be_are_taken() -> None:
    """Zero tokens, no time at all, surrogates and an empty schema are values."""
    task = Task(
        text="\ud800",
        tokens_in=0,
        tokens_out=10**12,
        max_output_tokens=1,
        max_latency_seconds=0,
        temperature=0,
        json_schema={},
        stakes=Stakes.HIGH,
        tags={"": ""},
    )
    assert (task.tokens_out, task.json_schema) == (10**12, {})
