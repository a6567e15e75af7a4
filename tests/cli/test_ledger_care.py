"""`tierwise ledger`: what is done to it, what is asked first, and what is told."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.cli.conftest import Tierwise
from tierwise.ledger import Ledger
from tierwise.ledger.batches import Batch, Batches


def test_without_a_ledger_nothing_is_made(tierwise: Tierwise, ledger_path: Path) -> None:
    """Looking after a ledger that is not there makes none, and says what does."""
    for verb in ("size", "verify", "rebuild"):
        done = tierwise("ledger", verb)
        assert done.code == 2
        assert "there is no ledger" in done.err
    assert not ledger_path.exists()


def test_size_verify_and_backup_tell_what_they_found(tierwise: Tierwise, recorded: Ledger, tmp_path: Path) -> None:
    """A sound ledger is said to be, its size and its copy's are shown, and a copy is never put over a file."""
    recorded.close()
    assert "calls with" in tierwise("ledger", "size").out
    assert "no batch waits" in tierwise("ledger", "batches").out
    assert "is sound" in tierwise("ledger", "verify").out
    copy = tmp_path / "copy.db"
    assert tierwise("ledger", "backup", str(copy)).code == 0
    with Ledger(copy) as copied:
        assert copied.totals(()) == recorded.totals(())
    again = tierwise("ledger", "backup", str(copy))
    assert again.code == 5
    assert "is there already" in again.err


def test_batches_that_nobody_read_are_listed_and_forgotten(tierwise: Tierwise, recorded: Ledger) -> None:
    """A batch is listed by both of its names until it is forgotten; one that is not there is an error."""
    Batches(recorded).begin(Batch("batch-1", "msgbatch_1", "anthropic", None, None, 1, 0), [])
    Batches(recorded).begin(Batch("batch-2", None, "anthropic", None, None, 1, 0), [])
    recorded.close()
    out = tierwise("ledger", "batches").out
    assert "batch-1  msgbatch_1  sent" in out
    assert "batch-2  (no name)  sent" in out
    assert "batch-1" not in tierwise("ledger", "batches", "--forget", "msgbatch_1").out
    assert "no batch waits" in tierwise("ledger", "batches", "--forget", "batch-2").out
    again = tierwise("ledger", "batches", "--forget", "batch-2")
    assert again.code == 2
    assert "no batch 'batch-2' waits" in again.err


def test_wrong_sums_are_found_and_mended(tierwise: Tierwise, recorded: Ledger) -> None:
    """`verify` ends with 1 and says what to do; `rebuild` does it."""
    recorded.sum_up(left=0)
    recorded.close()
    with sqlite3.connect(recorded.path) as db:
        db.execute("UPDATE rollup SET cost_nanousd = cost_nanousd + 1")
        db.execute("UPDATE rollup_recent SET cost_nanousd = cost_nanousd + 1")
    db.close()
    found = tierwise("ledger", "verify")
    assert found.code == 1
    assert "`tierwise ledger rebuild`" in found.out
    assert tierwise("ledger", "rebuild").code == 0
    assert tierwise("ledger", "verify").code == 0


def test_prune_asks_first_and_keeps_what_it_is_told_to(tierwise: Tierwise, recorded: Ledger) -> None:
    """Nothing goes without a yes; sums stay or go as was said; a time in the future is refused."""
    calls = recorded.totals(())[0][1].calls
    assert calls
    recorded.close()
    assert tierwise("ledger", "prune", "--older-than", "2099-01-01").code == 2
    assert tierwise("ledger", "prune", "--older-than", "today").code in {2, 130}
    assert recorded.totals(())[0][1].calls == len(list(recorded.calls())) == calls
    recorded.close()
    done = tierwise("ledger", "prune", "--older-than", "today", "--keep-rollups", "--yes", "--shrink")
    assert done.code == 0
    assert recorded.totals(())[0][1].calls == calls
