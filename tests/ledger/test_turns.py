"""What came after a turn, as the ledger has it."""

from __future__ import annotations

from typing import Any

from tests.ledger.records import START_MS, attempt, call
from tierwise.core.decisions import CallStatus
from tierwise.core.tasks import Needs
from tierwise.ledger import Ledger
from tierwise.ledger.turns import TurnsAfter, turns_after

FAMILY = {"processing": "transform", "judgment": "create", "critical": "advise"}


def turn(ledger: Ledger, session: str, second: int, needs: str, kind: str = "main", **changes: Any) -> None:
    """A call of a session, so many seconds after its begin."""
    at_ms, call_id = START_MS + 1_000 * second, f"{session}-{second}-{kind}"
    given = {"session": session, "needs": needs, "family": FAMILY[needs], "tags": (("kind", kind),), **changes}
    ledger.record(call(call_id, started_at_ms=at_ms, **given), [attempt(call_id, started_at_ms=at_ms)])


def conversation(ledger: Ledger, session: str, *needs: str, **changes: Any) -> None:
    """What each of its turns asked for."""
    for second, wanted in enumerate(needs):
        turn(ledger, session, second, wanted, **changes)


def test_the_next_turn_is_compared_with_the_one_before(ledger: Ledger) -> None:
    """By family and by what was asked for; the last turn of a session has none after it."""
    conversation(ledger, "a", "processing", "processing", "judgment", "processing")
    conversation(ledger, "b", "processing", "critical")
    conversation(ledger, "c", "critical")
    assert turns_after(ledger, 0) == [
        TurnsAfter("create", Needs.JUDGMENT, 1, 0),
        TurnsAfter("transform", Needs.PROCESSING, 3, 2),
    ]


def test_only_answered_turns_of_the_main_loop_count(ledger: Ledger) -> None:
    """A subagent's call between two turns of its session is no turn of it, and a failed one none at all."""
    conversation(ledger, "a", "processing", "processing")
    conversation(ledger, "a", "critical", "critical", kind="subagent")
    conversation(ledger, "b", "processing", "critical", status=CallStatus.FAILED)
    assert turns_after(ledger, 0) == [TurnsAfter("transform", Needs.PROCESSING, 1, 0)]


def test_a_turn_that_nobody_could_tell_asks_for_judgment(ledger: Ledger) -> None:
    """It was sent up for that, so it would have brought a conversation back."""
    turn(ledger, "a", 0, "processing")
    turn(ledger, "a", 1, "processing", abstained=True)
    turn(ledger, "a", 2, "processing")
    assert turns_after(ledger, 0) == [
        TurnsAfter("transform", Needs.PROCESSING, 1, 1),
        TurnsAfter("transform", Needs.JUDGMENT, 1, 0),
    ]


def test_only_the_latest_are_looked_at(ledger: Ledger) -> None:
    """Since a moment, and so many at most: a large ledger costs no more than a small one."""
    conversation(ledger, "a", *["processing"] * 5)
    assert [found.turns for found in turns_after(ledger, START_MS + 2_000)] == [2]
    assert [found.turns for found in turns_after(ledger, 0, most=4)] == [3]
    assert turns_after(ledger, START_MS + 86_400_000) == []
