"""What an analysis learns from the user's own ledger, and what it makes of that."""

from __future__ import annotations

from pathlib import Path

from tests.analysis.sessions import plan
from tests.ledger.records import DAY_MS, START_MS, attempt, call
from tests.replay.sessions import SETTINGS
from tierwise.analysis.learned import Learned, learned_from
from tierwise.classifier import load_taxonomy
from tierwise.core.decisions import OutcomeKind
from tierwise.ledger import Ledger
from tierwise.replay import shipped_assumptions

TYPES = load_taxonomy()
TYPE = TYPES["summarization"]
NOW_MS = START_MS + 3 * DAY_MS


def filled(path: Path, *, answers: int, rejected: int, at_ms: int = START_MS) -> Ledger:
    """A ledger of sessions of two turns, some of whose first answers were rejected."""
    ledger = Ledger(path / "ledger.db")
    for number in range(answers):
        name = f"call-{at_ms}-{number:04d}"
        first = attempt(name, tier="haiku")
        tries = [first]
        if number < rejected:
            tries = [
                attempt(name, tier="haiku", outcome=OutcomeKind.REJECTED),
                attempt(name, number=2, tier="opus"),
            ]
        ledger.record(
            call(name, started_at_ms=at_ms + number, session=f"session-{number // 2}", tags=(("kind", "main"),)), tries
        )
    return ledger


def test_rejections_lengths_and_harder_turns_are_learned(tmp_path: Path) -> None:
    """Where a ledger has enough, its figures count, drawn towards what is assumed; the top tier's answers do not."""
    with filled(tmp_path, answers=200, rejected=80) as ledger:
        found = learned_from(ledger, SETTINGS.catalog, TYPES, NOW_MS)
    assert (found.conversations, found.followed_turns, found.answers) == (100, 100, 200)
    prior = shipped_assumptions().escalation
    expected = (80 + prior.of(TYPE).expected * prior.weight) / (200 + prior.weight)
    assert found.escalation.of(TYPE).expected == expected
    assert found.escalation.of(TYPE).low < expected < found.escalation.of(TYPE).high
    assert found.turns.after(1) < Learned().turns.after(1)  # they end after two turns
    assert plan(learned=found).digest != plan().digest  # what was computed before does not hold any more


def test_little_changes_no_odds(tmp_path: Path) -> None:
    """A handful of answers says nothing of how often answers are rejected."""
    with filled(tmp_path, answers=10, rejected=9) as ledger:
        found = learned_from(ledger, SETTINGS.catalog, TYPES, NOW_MS)
    assert found.answers == 0
    assert found.escalation.of(TYPE) == shipped_assumptions().escalation.of(TYPE)


def test_today_waits_for_tomorrow(tmp_path: Path) -> None:
    """What is learned is the same all day long: what was computed with it can be kept."""
    with filled(tmp_path, answers=200, rejected=80, at_ms=NOW_MS + 5) as ledger:
        today = learned_from(ledger, SETTINGS.catalog, TYPES, NOW_MS + DAY_MS // 2)
        tomorrow = learned_from(ledger, SETTINGS.catalog, TYPES, NOW_MS + DAY_MS)
    assert today == Learned()
    assert tomorrow.answers == 200
    assert plan(learned=today).digest == plan().digest


def test_an_empty_ledger_teaches_nothing(tmp_path: Path) -> None:
    """Without calls everything is as assumed."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.open()
        assert learned_from(ledger, SETTINGS.catalog, TYPES, NOW_MS) == Learned()
