"""What people say of calls, and what the classifier saw where that is kept."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ledger.conftest import Opened
from tests.ledger.records import attempt, call
from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger import Feedback, FeedbackCounts, Filter, Judgement, Ledger, recover
from tierwise.ledger.connection import open_database
from tierwise.ledger.schema import MIGRATIONS

GOOD = Feedback(call_id="c1", at_ms=5, verdict=Judgement.GOOD)
TYPED = Feedback(call_id="c1", at_ms=6, task_type="tagging")


def test_the_last_word_counts(ledger: Ledger) -> None:
    """Feedback comes back with its call; given again, it takes the place of what was said before."""
    ledger.record(call("c1"), [attempt("c1", 1)])
    assert ledger.give_feedback(GOOD)
    assert ledger.give_feedback(TYPED, "what it said")
    stored = ledger.get("c1")
    assert stored is not None
    assert stored.feedback == TYPED
    assert ledger.feedback_counts() == FeedbackCounts(good=0, bad=0, typed=1)
    assert ledger.typed_texts() == [("what it said", "tagging")]


def test_a_call_that_is_not_there_gets_none(ledger: Ledger) -> None:
    """Nothing is written of an unknown call, and it is said that there is none."""
    ledger.open()
    assert not ledger.give_feedback(GOOD, "text")
    assert ledger.feedback_counts() == FeedbackCounts()
    assert not ledger.forget_feedback("c1")


def test_counts_are_of_the_calls_asked_for(ledger: Ledger) -> None:
    """A filter of time and project holds for what was said, too."""
    for name, project in (("c1", "p"), ("c2", "q"), ("c3", None)):
        ledger.record(replace(call(name), project=project), [attempt(name, 1)])
        verdict = Judgement.BAD if name == "c2" else Judgement.GOOD
        ledger.give_feedback(Feedback(call_id=name, at_ms=1, verdict=verdict, task_type="ranking"))
    assert ledger.feedback_counts() == FeedbackCounts(2, 1, 3)
    assert ledger.feedback_counts(Filter(project="q")) == FeedbackCounts(0, 1, 1)
    assert ledger.feedback_counts(Filter(project="")) == FeedbackCounts(1, 0, 1)


def test_a_text_is_kept_only_where_it_is_given(ledger: Ledger) -> None:
    """Without a captured text no text is anywhere; with one it is kept with the call, once, whatever comes later."""
    ledger.record(call("c1"), [attempt("c1", 1)])
    ledger.start(replace(call("c2"), captured_text="Kilimanjaro \ud800"), attempt("c2", 1))
    ledger.end(attempt("c2", 1), replace(call("c2"), captured_text="Kilimanjaro \ud800"))
    for name in ("c1", "c2"):
        ledger.give_feedback(Feedback(call_id=name, at_ms=1, task_type="ranking"))
    assert ledger.typed_texts() == [("Kilimanjaro \\ud800", "ranking")]


def test_what_was_said_can_be_forgotten(ledger: Ledger) -> None:
    """Feedback and text of a call go together, and the call stays."""
    ledger.record(replace(call("c1"), captured_text="secret"), [attempt("c1", 1)])
    ledger.give_feedback(TYPED)
    assert ledger.forget_feedback("c1")
    assert ledger.typed_texts() == []
    stored = ledger.get("c1")
    assert stored is not None
    assert stored.feedback is None


def test_a_captured_text_waits_in_the_spool_with_its_call(opened: Opened) -> None:
    """While the database is locked the text waits with the record, and is folded in with it."""
    opened().open()
    lock = sqlite3.connect(opened.path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    writer = opened(busy_timeout_ms=1)
    writer.record(replace(call("c1"), captured_text="it waits"), [attempt("c1", 1)])
    assert not writer.healthy
    with pytest.raises(LedgerUnavailable):
        opened(busy_timeout_ms=1).give_feedback(TYPED)
    lock.close()
    reader = opened()
    assert reader.give_feedback(TYPED)
    assert reader.typed_texts() == [("it waits", "tagging")]


def test_an_older_ledger_gets_the_tables(tmp_path: Path) -> None:
    """A ledger from before opens, keeps its calls, and takes feedback."""
    path = tmp_path / "ledger.db"
    open_database(path, synchronous="normal", busy_timeout_ms=100, migrations=MIGRATIONS[:4]).close()
    with sqlite3.connect(path) as database:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert "feedback" not in names
    with Ledger(path, spool_dirs=()) as ledger:
        ledger.record(call("c1"), [attempt("c1", 1)])
        assert ledger.give_feedback(GOOD)


def test_recovery_keeps_feedback_and_texts(opened: Opened) -> None:
    """What was said and what was kept is saved with the calls."""
    ledger = opened()
    ledger.record(replace(call("c1"), captured_text="it stays"), [attempt("c1", 1)])
    ledger.give_feedback(TYPED)
    ledger.close()
    report = recover(opened.path)
    assert (report.calls, report.unreadable_rows, report.problems) == (1, 0, ())
    with opened() as again:
        stored = again.get("c1")
        assert stored is not None
        assert stored.feedback == TYPED
        assert again.typed_texts() == [("it stays", "tagging")]


def test_recovery_of_an_older_ledger_is_no_problem(tmp_path: Path) -> None:
    """That a ledger from before has no such tables is not reported as damage."""
    path = tmp_path / "ledger.db"
    open_database(path, synchronous="normal", busy_timeout_ms=100, migrations=MIGRATIONS[:4]).close()
    assert recover(path).problems == ()
