"""A ledger of years is kept small, copied while it is written, and told to be sound or not."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ledger.records import DAY_MS, HOUR_MS, attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger import Feedback, Filter, Judgement, Ledger, recover
from tierwise.ledger.care import backup, ledger_size, prune, shrink, verify
from tierwise.ledger.schema import LATEST, MIGRATIONS

Opener = Callable[..., Ledger]
TODAY = 20_000 * DAY_MS


@pytest.fixture
def year(opened: Opener) -> Ledger:
    """A call a week for a year, and one that still runs since the first day."""
    ledger = opened(clock_ms=lambda: TODAY + HOUR_MS)
    for week in range(52):
        at_ms, name = TODAY - week * 7 * DAY_MS, f"c{week:02d}"
        ledger.record(
            call(name, started_at_ms=at_ms, project="p" if week % 2 else "q", captured_text="a prompt"), [attempt(name)]
        )
    ledger.give_feedback(Feedback(call_id="c51", at_ms=TODAY, verdict=Judgement.GOOD))
    ledger.start(
        call("runs", started_at_ms=TODAY - 400 * DAY_MS, status=CallStatus.OPEN),
        attempt("runs", outcome=OutcomeKind.OPEN),
    )
    ledger.sum_up(left=0)
    return ledger


def rows(ledger: Ledger, table: str) -> int:
    with sqlite3.connect(ledger.path) as db:
        found: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 no data
    db.close()
    return found


def test_pruned_calls_stay_in_the_sums(year: Ledger) -> None:
    """With --keep-rollups a report of the year is what it was, though its calls are gone; rebuilding keeps it so."""
    by = ("day", "project", "task_type", "tier", "model")
    before = year.totals(by)
    pruned = prune(year, TODAY - 30 * DAY_MS + 5, keep_rollups=True)
    assert (pruned.calls, pruned.attempts, pruned.before_ms) == (47, 47, TODAY - 30 * DAY_MS)
    assert year.totals(by) == before
    year.rebuild_rollup()
    assert year.totals(by) == before
    assert [stored.call.call_id for stored in year.calls()][:2] == ["runs", "c04"]
    assert (rows(year, "feedback"), rows(year, "captured"), rows(year, "attempts")) == (0, 5, 6)
    assert verify(year) == []
    found = ledger_size(year)
    assert (found.calls, found.pruned_calls, found.pruned_before_ms) == (5, 48, TODAY - 30 * DAY_MS)


class BegunAnew(Ledger):
    """A ledger whose sums another process begins to make anew when they have been made here, once."""

    other: Ledger | None = None

    @contextmanager
    def _summing(self) -> Iterator[sqlite3.Connection]:
        with super()._summing() as connection:
            yield connection
        if self.other is not None:
            other, self.other = self.other, None
            other.begin_rollup()
            other.extend_rollup()  # removes the old ones


def test_nothing_is_pruned_that_is_not_in_the_sums(year: Ledger, opened: Opener) -> None:
    """Where somebody begins to make the sums anew at that moment, they are made again before a call goes."""
    before = year.totals(("day",))
    with BegunAnew(year.path, spool_dirs=(), clock_ms=lambda: TODAY) as ledger:
        ledger.open()
        ledger.other = opened(clock_ms=lambda: TODAY)
        prune(ledger, TODAY - 30 * DAY_MS, keep_rollups=True)
        assert ledger.other is None
    assert year.totals(("day",)) == before
    assert verify(year) == []


def test_pruned_calls_are_forgotten_where_nobody_keeps_their_sums(year: Ledger) -> None:
    """Otherwise nothing of them is left in any report; what still runs counts when it ends."""
    prune(year, TODAY - 30 * DAY_MS, keep_rollups=False)
    assert year.totals(())[0][1].calls == 6
    assert year.totals((), Filter(until_ms=TODAY - 30 * DAY_MS))[0][1].calls == 1
    year.end(attempt("runs"), call("runs", started_at_ms=TODAY - 400 * DAY_MS))
    assert year.totals((), Filter(until_ms=TODAY - 30 * DAY_MS))[0][1].answered_calls == 1
    assert verify(year) == []


def test_recovery_keeps_the_sums_of_pruned_calls(year: Ledger) -> None:
    """A damaged ledger is saved with what no row tells any more."""
    prune(year, TODAY - 30 * DAY_MS, keep_rollups=True)
    before = year.totals(("day", "project"))
    year.close()
    assert recover(year.path).problems == ()
    assert year.totals(("day", "project")) == before


def test_others_write_while_old_calls_go(year: Ledger, opened: Opener) -> None:
    """Pruning takes no lock for long: whoever writes meanwhile neither fails nor waits in a spool."""
    other = opened(clock_ms=lambda: TODAY)
    done = threading.Event()

    def write() -> None:
        for n in range(50):
            other.record(call(f"new{n}", started_at_ms=TODAY), [attempt(f"new{n}")])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    prune(year, TODAY - 30 * DAY_MS, keep_rollups=True)
    thread.join()
    assert done.is_set()
    assert other.healthy
    assert year.totals(())[0][1].calls == 53 + 50
    assert verify(year) == []


def test_a_shrunk_file_is_smaller_and_whole(opened: Opener) -> None:
    """What was free is the disk's again, and all that was kept is there."""
    ledger = opened(clock_ms=lambda: TODAY)
    for n in range(2000):
        ledger.record_many([(call(f"c{n:04d}", started_at_ms=TODAY - n * DAY_MS), [attempt(f"c{n:04d}")])])
    prune(ledger, TODAY - 100 * DAY_MS, keep_rollups=False)
    before = ledger_size(ledger)
    assert before.free_bytes > before.database_bytes / 3
    shrink(ledger)
    after = ledger_size(ledger)
    assert (after.free_bytes, after.calls) == (0, 101)
    assert after.bytes < before.bytes
    assert verify(ledger) == []


def test_a_copy_is_made_while_others_write(year: Ledger, tmp_path: Path, opened: Opener) -> None:
    """It is one private file, a whole ledger as of one moment; nothing is put over a file that is there."""
    target = tmp_path / "copies" / "ledger.db"
    other = opened(clock_ms=lambda: TODAY)
    thread = threading.Thread(
        target=lambda: [other.record(call(f"n{n}"), [attempt(f"n{n}")]) for n in range(50)]  # type: ignore[func-returns-value]
    )
    thread.start()
    written = backup(year, target)
    thread.join()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["ledger.db"]
    assert written == target.stat().st_size
    copy = opened(target, clock_ms=lambda: TODAY)
    assert 53 <= copy.totals(())[0][1].calls <= 103
    assert verify(copy) == []
    with pytest.raises(LedgerUnavailable, match="is there already"):
        backup(year, target)


def test_a_copy_that_cannot_be_written_leaves_nothing(year: Ledger, tmp_path: Path) -> None:
    """An error says what to do, and no half of a copy stays."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match="check free space"):
        backup(year, tmp_path / "file" / "ledger.db")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (
            "UPDATE rollup SET cost_nanousd = cost_nanousd + 1 WHERE span_hours = 24 AND cut = 0",
            "not the sum of its rows",
        ),
        ("UPDATE rollup SET counts = '{\"5\":1}' WHERE span_hours = 24 AND cut = 7", "not the sum of its rows"),
        ("UPDATE rollup SET calls = 2 WHERE span_hours = 1 AND cut = 0", "by the hour"),
        ("DELETE FROM calls WHERE call_id = 'c03'", "of no call"),
        ("INSERT INTO budget_state VALUES ('b', 0, 1, 0)", "not the sum of its reservations"),
    ],
)
def test_what_does_not_add_up_is_told(year: Ledger, harm: str, fault: str) -> None:
    """Sums that are not those of their rows, rows without their call, budgets: each is found."""
    with sqlite3.connect(year.path) as db:
        db.execute(harm)
    db.close()
    assert any(fault in told for told in verify(year))


def test_rebuilding_mends_the_sums(year: Ledger) -> None:
    """What `verify` finds wrong with sums, `rebuild` makes right."""
    with sqlite3.connect(year.path) as db:
        db.execute("UPDATE rollup SET calls = 7")
    db.close()
    assert verify(year)
    year.rebuild_rollup()
    assert verify(year) == []


def test_a_ledger_from_before_is_summed_up_anew(opened: Opener) -> None:
    """One that was written before sums were by the hour opens with all its figures, its cache's among them."""
    from tierwise.ledger.connection import open_database

    ledger = opened(clock_ms=lambda: TODAY)
    ledger.record(call(started_at_ms=TODAY, ladder=None), [attempt()])  # a ladder was not kept then
    ledger.close()
    old_path = ledger.path.with_name("old.db")
    old = open_database(old_path, synchronous="normal", busy_timeout_ms=100, migrations=MIGRATIONS[:5])
    old.execute("ATTACH ? AS new", (str(ledger.path),))
    for table in ("prices", "calls", "attempts"):
        names = ", ".join(row[1] for row in old.execute(f"PRAGMA main.table_info({table})"))
        old.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")  # noqa: S608 no data
    old.close()
    migrated = opened(old_path, clock_ms=lambda: TODAY)
    assert migrated.totals(("day", "tier")) == ledger.totals(("day", "tier"))
    assert migrated.totals(())[0][1].cache_saved_nanousd != 0
    assert migrated.get("call-1") == ledger.get("call-1")
    assert verify(migrated) == []
    with sqlite3.connect(old_path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (LATEST,)
    db.close()
