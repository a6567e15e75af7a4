"""A damaged ledger gives up every row that can still be read, and is itself kept."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger.records import attempt, call
from tierwise.core.errors import LedgerCorrupt, LedgerTooNew, LedgerUnavailable
from tierwise.ledger import Ledger, StoredCall, recover
from tierwise.ledger.budgets import BudgetPeriod, Budgets, BudgetScope, Reservation
from tierwise.ledger.connection import open_database
from tierwise.ledger.keys import Keys
from tierwise.ledger.schema import LATEST, MIGRATIONS

Opener = Callable[..., Ledger]
COUNT = 400
PAGE = 4096


def filled(opened: Opener) -> Ledger:
    ledger = opened()
    for n in range(COUNT):
        ledger.record(call(f"{n:04d}", started_at_ms=n, error="x" * 100), [attempt(f"{n:04d}")])
    ledger.close()
    return ledger


def assert_sound(ledger: Ledger) -> None:
    assert ledger.check() == []
    keys = ("day", "project", "task_type", "tier", "model")
    assert ledger.totals(keys, scan=False) == ledger.totals(keys, scan=True)


def intact(stored: StoredCall) -> bool:
    n = int(stored.call.call_id)
    return stored.call == call(f"{n:04d}", started_at_ms=n, error="x" * 100)


def damage(path: Path, start: int, length: int) -> bytes:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(random.Random(3).randbytes(length))
    return path.read_bytes()


def test_sound_ledger_is_recovered_whole(opened: Opener) -> None:
    """Nothing is lost where nothing is damaged, and the old file is kept as it was."""
    ledger = filled(opened)
    expected = list(ledger.calls())
    ledger.close()
    before = ledger.path.read_bytes()
    report = recover(ledger.path, now_ms=1_790_000_000_000)
    assert (report.calls, report.attempts, report.unreadable_rows) == (COUNT, COUNT, 0)
    assert report.kept_as.name == "ledger.db.corrupt-20260921T141320"
    assert report.kept_as.read_bytes() == before
    assert str(report.kept_as) in str(report)
    assert list(ledger.calls()) == expected
    assert_sound(ledger)


def test_keys_and_budgets_are_recovered(opened: Opener) -> None:
    """Clients still get in, revoked ones do not, and budgets know what is spent and reserved of them."""
    ledger = filled(opened)
    keys, budgets = Keys(ledger), Budgets(ledger)
    secret, revoked = keys.create("laptop", 0), keys.create("phone", 0)
    keys.revoke(revoked.key.key_id, 1)
    budgets.set(BudgetScope.ALL, "", BudgetPeriod.TOTAL, 100, 0)
    reservation = budgets.reserve("a", 10, 0)
    assert isinstance(reservation, Reservation)
    budgets.settle(reservation, 7)
    budgets.reserve("b", 20, 0)
    before = (keys.all(), budgets.standings(0))
    ledger.close()
    recover(ledger.path)
    assert (Keys(ledger).all(), Budgets(ledger).standings(0)) == before
    assert Keys(ledger).verify(secret.secret, 0) == secret.key
    assert Keys(ledger).verify(revoked.secret, 0) is None
    assert (before[1][0].spent_nanousd, before[1][0].reserved_nanousd) == (7, 20)


def test_ledger_from_before_there_were_keys_is_recovered_without_complaint(opened: Opener) -> None:
    """What an old ledger cannot have is no problem of its recovery."""
    path = opened().path
    open_database(path, synchronous="normal", busy_timeout_ms=100, migrations=MIGRATIONS[:3]).close()
    assert recover(path).problems == ()


def test_rows_in_the_log_are_recovered(opened: Opener) -> None:
    """What a killed process left in the write-ahead log, not yet in the main file, is saved too."""
    ledger = opened()
    ledger.record(call(), [attempt()])
    copy = ledger.path.with_name("copy.db")
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{ledger.path}{suffix}").read_bytes())
    assert recover(copy).calls == 1
    assert opened(copy).get("call-1") == StoredCall(call(), (attempt(),))


def test_destroyed_header_is_replaced(opened: Opener) -> None:
    """When the first page is garbage nothing opens it, and yet every row is saved."""
    ledger = filled(opened)
    damage(ledger.path, 0, PAGE)
    with pytest.raises(LedgerCorrupt, match="--recover"):
        ledger.open()
    assert (recover(ledger.path).calls, len(list(ledger.calls()))) == (COUNT, COUNT)
    assert all(map(intact, ledger.calls()))
    assert_sound(ledger)


@pytest.mark.parametrize("page", range(1, 40, 3))
def test_damaged_page_costs_only_its_own_rows(opened: Opener, page: int) -> None:
    """A destroyed page in the middle takes few rows with it; what is saved is right, and the fresh file sound."""
    ledger = filled(opened)
    kept = damage(ledger.path, page * PAGE, PAGE)
    report = recover(ledger.path)
    assert report.kept_as.read_bytes() == kept
    found = list(ledger.calls())
    assert len(found) == report.calls
    assert all(intact(stored) for stored in found if stored.call.task_type != "unknown")
    assert report.calls >= COUNT - 25, "a page holds fewer than 20 rows"
    assert report.attempts >= COUNT - 40, "a page holds fewer than 40 rows"
    assert_sound(ledger)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_truncated_file_keeps_what_is_left(opened: Opener, share: float) -> None:
    """A file cut short is refused with the way out, recovers, and takes new records."""
    ledger = filled(opened)
    size = ledger.path.stat().st_size
    with ledger.path.open("r+b") as file:
        file.truncate(int(size * share) // PAGE * PAGE + 100)
    report = recover(ledger.path)
    assert report.calls > 0
    ledger.record(call("new"), [attempt("new")])
    assert ledger.healthy
    assert sum(1 for _ in ledger.calls()) == report.calls + 1
    assert_sound(ledger)


def test_damage_found_while_writing_spools_until_recovery(opened: Opener) -> None:
    """Records made on a damaged ledger wait, and are in the recovered one."""
    ledger = filled(opened)
    damage(ledger.path, PAGE, ledger.path.stat().st_size - PAGE)
    for n in range(3):
        ledger.record(call(f"new-{n}"), [attempt(f"new-{n}")])
    assert not ledger.healthy
    assert "damaged" in (ledger.problem or "")
    recover(ledger.path)
    assert [f"new-{n}" for n in range(3)] == [
        s.call.call_id for s in ledger.calls() if s.call.call_id.startswith("new")
    ]
    assert ledger.healthy


def test_garbage_gives_an_empty_ledger_and_is_kept(opened: Opener) -> None:
    """Where nothing can be read the answer is an honest zero and a ledger that works."""
    ledger = opened()
    garbage = random.Random(1).randbytes(30_000)
    ledger.path.write_bytes(garbage)
    report = recover(ledger.path)
    assert (report.calls, report.attempts) == (0, 0)
    assert report.kept_as.read_bytes() == garbage
    ledger.record(call(), [])
    assert ledger.healthy


def test_second_recovery_in_a_second_keeps_both_files(opened: Opener) -> None:
    """An older damaged file is never overwritten."""
    ledger = filled(opened)
    assert recover(ledger.path, now_ms=0).kept_as != recover(ledger.path, now_ms=0).kept_as


def test_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    """Recovering nothing is an error that names the path."""
    with pytest.raises(LedgerUnavailable, match=r"no ledger at .*none\.db"):
        recover(tmp_path / "none.db")


def test_newer_ledger_is_not_recovered(opened: Opener) -> None:
    """A ledger of a newer version is not damaged, and stays where it is."""
    import sqlite3

    ledger = filled(opened)
    with sqlite3.connect(ledger.path) as db:
        db.execute(f"PRAGMA user_version = {LATEST + 1}")
    db.close()
    with pytest.raises(LedgerTooNew):
        recover(ledger.path)
    assert not list(ledger.path.parent.glob("*.corrupt-*"))
