"""Batches in the ledger: open until their results are read, whoever reads them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ledger.records import attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger import Ledger, recover
from tierwise.ledger.batches import Batch, Batches, Unread
from tierwise.ledger.budgets import BudgetPeriod, Budgets, BudgetScope
from tierwise.ledger.codec import Entry

NOW = 1_800_000_000_000
BATCH = Batch("batch-1", None, "anthropic", None, None, 2, NOW)


def entry(number: int, *, batch: Batch = BATCH) -> Entry:
    """A request of a batch, sent."""
    call_id = f"{batch.batch_id}-{number}"
    began = replace(
        call(call_id, status=CallStatus.OPEN), batch_id=batch.batch_id, custom_id=f"r{number}", started_at_ms=NOW
    )
    return began, (replace(attempt(call_id, 1), outcome=OutcomeKind.OPEN, cost_nanousd=500),)


def ended(entry: Entry, cost_nanousd: int) -> Entry:
    """The same, with its result."""
    began, (sent,) = entry
    assert began is not None
    return (
        replace(began, status=CallStatus.ANSWERED),
        (replace(sent, outcome=OutcomeKind.ACCEPTED, cost_nanousd=cost_nanousd),),
    )


def test_batch_outlives_the_process_that_sent_it(tmp_path: Path) -> None:
    """A killed process's calls are closed when the ledger is opened; those of a batch stay open."""
    script = """
import os, sys
from tests.ledger.test_batches import BATCH, entry
from tests.ledger.records import call
from tierwise.core.decisions import CallStatus
from tierwise.ledger import Ledger
from tierwise.ledger.batches import Batches
ledger = Ledger(sys.argv[1])
ledger.begin(call("alone", status=CallStatus.OPEN))
Batches(ledger).begin(BATCH, [entry(1), entry(2)])
os.kill(os.getpid(), 9)
"""
    path = tmp_path / "ledger.db"
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    with Ledger(path) as ledger:
        assert {found.call.call_id: found.call.status.value for found in ledger.calls()} == {
            "alone": "failed",
            "batch-1-1": "open",
            "batch-1-2": "open",
        }
        assert [found.call.call_id for found in ledger.abandoned()] == ["alone"]
        assert Batches(ledger).waiting() == [BATCH]


def test_batch_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    """Where a batch cannot be written, none of its calls is, and no spool takes them: it must not be sent."""
    batches = Batches(ledger)
    batches.begin(BATCH, [entry(1)])
    with pytest.raises(LedgerUnavailable):
        batches.begin(BATCH, [entry(2)])
    assert [found.call.call_id for found in ledger.calls()] == ["batch-1-1"]
    assert (ledger.healthy, ledger.waiting()) == (True, [])


def test_name_is_given_once(ledger: Ledger) -> None:
    """A batch takes one name, and a name one batch, whoever asks again."""
    batches = Batches(ledger)
    other = replace(BATCH, batch_id="batch-2")
    batches.begin(BATCH, [entry(1)])
    batches.begin(other, [entry(1, batch=other)])
    assert [found.batch_id for found in batches.nameless("anthropic", 2)] == ["batch-1", "batch-2"]
    assert batches.claim(BATCH, "up-1")
    assert not batches.claim(BATCH, "up-2")
    assert not batches.claim(other, "up-1")
    assert batches.find("anthropic", "up-1") == replace(BATCH, upstream_id="up-1")
    assert batches.find("other", "up-1") is None
    assert batches.nameless("anthropic", 2) == [other]


def test_budget_holds_a_batch_until_its_last_result(ledger: Ledger) -> None:
    """What a batch may cost stays reserved for days, past every process, and is settled once, at what it cost."""
    budgets = Budgets(ledger)
    budgets.set(BudgetScope.ALL, "", BudgetPeriod.TOTAL, 10_000, NOW)
    assert budgets.reserve(BATCH.batch_id, 4_000, NOW)
    batches = Batches(ledger)
    first, second = entry(1), entry(2)
    batches.begin(BATCH, [first, second])
    ledger.write_entries([ended(first, 700)])
    assert not batches.end(BATCH, NOW)
    ledger.close()
    later = NOW + 3 * 86_400_000
    with Ledger(ledger.path, clock_ms=lambda: later) as again:
        (standing,) = Budgets(again).standings(later)
        assert (standing.spent_nanousd, standing.reserved_nanousd) == (0, 4_000)
        (waiting,) = Batches(again).open_calls(BATCH)
        assert waiting.call.custom_id == "r2"
        again.write_entries([ended(second, 800)])
        assert Batches(again).end(BATCH, later)
        assert Batches(again).end(BATCH, later + 1)
        (standing,) = Budgets(again).standings(later)
        assert (standing.spent_nanousd, standing.reserved_nanousd) == (1_500, 0)
        assert Batches(again).waiting() == []


def test_refused_batch_costs_nothing(ledger: Ledger) -> None:
    """A batch that the provider did not take gives back what was reserved, and is none any more."""
    budgets = Budgets(ledger)
    budgets.set(BudgetScope.ALL, "", BudgetPeriod.TOTAL, 10_000, NOW)
    budgets.reserve(BATCH.batch_id, 4_000, NOW)
    batches = Batches(ledger)
    batches.begin(BATCH, [entry(1)])
    began, _ = entry(1)
    assert began is not None
    batches.refused(BATCH, [(replace(began, status=CallStatus.FAILED), ())])
    (standing,) = budgets.standings(NOW)
    assert (standing.spent_nanousd, standing.reserved_nanousd) == (0, 0)
    assert batches.nameless("anthropic", 2) == []


def test_batches_are_recovered(ledger: Ledger) -> None:
    """A damaged ledger keeps its batches and whose calls are whose."""
    Batches(ledger).begin(BATCH, [entry(1), entry(2)])
    ledger.close()
    recover(ledger.path)
    with Ledger(ledger.path) as again:
        assert Batches(again).waiting() == [BATCH]
        assert [found.call.custom_id for found in Batches(again).open_calls(BATCH, ["r1", "other"])] == ["r1"]


def test_forgotten_batch_counts_as_expected_until_it_is_read(ledger: Ledger) -> None:
    """Nobody waits for it, and its budget has what it was expected to cost; read after all, what it did cost."""
    budgets = Budgets(ledger)
    budgets.set(BudgetScope.ALL, "", BudgetPeriod.TOTAL, 10_000, NOW)
    budgets.reserve(BATCH.batch_id, 4_000, NOW)
    batches = Batches(ledger)
    first, second = entry(1), entry(2)
    batches.begin(BATCH, [first, second])
    ledger.write_entries([ended(first, 700)])
    assert batches.unread(BATCH) == Unread(1, 500, 0)
    batches.forget(BATCH, NOW)
    assert batches.waiting() == []
    by_name = {found.call.custom_id: found.call.status for found in ledger.calls()}
    assert by_name == {"r1": CallStatus.ANSWERED, "r2": CallStatus.FAILED}
    (standing,) = budgets.standings(NOW)
    assert (standing.spent_nanousd, standing.reserved_nanousd) == (1_200, 0)
    assert [found.call.custom_id for found in batches.open_calls(BATCH)] == ["r2"]
    ledger.write_entries([ended(second, 800)])
    assert batches.end(BATCH, NOW)
    (standing,) = budgets.standings(NOW)
    assert (standing.spent_nanousd, standing.reserved_nanousd) == (1_500, 0)
    assert {found.call.status for found in ledger.calls()} == {CallStatus.ANSWERED}
