"""Nothing acknowledged is lost: full disks, locks, damage, other versions, kills, races."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.records import START_MS, attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import LedgerCorrupt, LedgerTooNew, LedgerUnavailable
from tierwise.ledger import Filter, Ledger, connection, process, schema
from tierwise.ledger.codec import entry_to_line

Opener = Callable[..., Ledger]


def ids(ledger: Ledger) -> list[str]:
    return [stored.call.call_id for stored in ledger.calls()]


def assert_sound(ledger: Ledger) -> None:
    assert ledger.check() == []
    assert ledger.check(quick=True) == []
    keys = ("day", "project", "task_type", "tier", "model")
    assert ledger.totals(keys, scan=False) == ledger.totals(keys, scan=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another connection holds the write lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


# Versions


def test_older_ledger_is_brought_up_to_date(opened: Opener) -> None:
    """A file of the first schema gets its roll-up from the rows it has, and says why it changed."""
    ledger = opened()
    old = connection.open_database(
        ledger.path, synchronous="normal", busy_timeout_ms=100, migrations=schema.MIGRATIONS[:1]
    )
    old.execute(
        "INSERT INTO calls VALUES ('old', ?, 'answered', 't', 'f', 'processing', 0.5, 0, 'haiku', 'haiku', 'haiku', "
        "'sonnet', 9, 1, NULL, NULL, '{}', '[]', NULL, NULL)",
        (START_MS,),
    )
    old.close()
    assert ids(ledger) == ["old"]
    assert ledger.totals(())[0][1].baseline_nanousd == 9
    assert_sound(ledger)
    with sqlite3.connect(ledger.path) as db:
        rows = db.execute("SELECT number, why FROM migrations ORDER BY number").fetchall()
    db.close()
    assert rows == [(m.number, m.why) for m in schema.MIGRATIONS]
    assert all(why for _, why in rows)


def test_newer_ledger_is_left_alone_and_records_wait(opened: Opener) -> None:
    """What a newer version wrote is refused with a clear text; calls made meanwhile are spooled, not lost."""
    ledger = opened()
    ledger.record(call("before"), [])
    ledger.close()
    with sqlite3.connect(ledger.path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerTooNew, match=r"schema 99.*upgrade tierwise"):
        ledger.open()
    ledger.record(call("meanwhile"), [attempt("meanwhile")])
    assert not ledger.healthy
    with sqlite3.connect(ledger.path) as db:
        db.execute(f"PRAGMA user_version = {schema.LATEST}")
    db.close()
    assert ids(ledger) == ["before", "meanwhile"]
    assert ledger.healthy


def test_database_of_another_program_is_not_touched(opened: Opener) -> None:
    """A path that names somebody else's database is refused, and that database stays as it was."""
    ledger = opened()
    with sqlite3.connect(ledger.path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = ledger.path.read_bytes()
    with pytest.raises(LedgerUnavailable, match="another program"):
        ledger.open()
    assert ledger.path.read_bytes() == before


# Places that cannot be written


def test_locked_database_makes_records_wait_in_the_spool(opened: Opener) -> None:
    """A lock held too long delays a record and never raises; it is folded in with the next write."""
    ledger = opened(busy_timeout_ms=20)
    ledger.open()
    with held(ledger.path):
        ledger.start(call("a", status=CallStatus.OPEN), attempt("a", outcome=OutcomeKind.OPEN))
        ledger.end(attempt("a"), call("a"))
        assert not ledger.healthy
        assert "another process is writing" in (ledger.problem or "")
        assert len(ledger.waiting()) == 1
    ledger.record(call("b"), [attempt("b")])
    assert (ledger.healthy, ledger.problem, ledger.waiting()) == (True, None, [])
    assert ids(ledger) == ["a", "b"]
    assert_sound(ledger)


def test_trouble_is_told_once_each_time_it_begins(opened: Opener, tmp_path: Path) -> None:
    """A thousand spooled records make one message; the next outage makes another."""
    told: list[str] = []
    ledger = opened(busy_timeout_ms=5, on_problem=told.append)
    ledger.open()
    for outage in (1, 2):
        with held(ledger.path):
            for n in range(5):
                ledger.record(call(f"{outage}-{n}"), [])
        ledger.record(call(f"{outage}-after"), [])
        assert len(told) == outage
    assert "spool" in told[0]


def test_reading_works_while_another_process_writes(opened: Opener) -> None:
    """A report needs no write lock."""
    ledger = opened(busy_timeout_ms=20)
    ledger.record(call(), [])
    with held(ledger.path):
        assert ids(ledger) == ["call-1"]
        assert ids(opened(busy_timeout_ms=20)) == ["call-1"]


def test_full_database_makes_records_wait(opened: Opener) -> None:
    """SQLITE_FULL spools the record, and everything is in the ledger once there is room."""
    ledger = opened()
    ledger.open()
    assert ledger._connection is not None
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    for n in range(60):
        ledger.record(call(f"{n:03d}", error="x" * 300), [attempt(f"{n:03d}")])
    assert "disk is full" in (ledger.problem or "")
    assert ledger.waiting()
    ledger._connection.execute("PRAGMA max_page_count = 1000000")
    ledger.record(call("last"), [])
    assert ledger.healthy
    assert len(ids(ledger)) == 61
    assert_sound(ledger)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.ledger.records import call, attempt
from tierwise.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, other = Path(sys.argv[1]), Path(sys.argv[2])
ledger = Ledger(path, spool_dirs=[other])
ledger.open()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), hard))
for n in range(400):
    ledger.record(call(f"{n:04d}", error="x" * 500), [attempt(f"{n:04d}")])
    print(f"{n:04d}", flush=True)
print("problem", ledger.problem, flush=True)
ledger.close()
"""


def test_every_file_at_its_limit_loses_nothing(opened: Opener, tmp_path: Path) -> None:
    """When neither the database nor any spool can grow, records end on stderr as lines that can be folded in."""
    ledger, other = opened(spool_dirs=[tmp_path / "other"]), tmp_path / "other"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(ledger.path), str(other), "100000"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    acknowledged = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert len(acknowledged) == 400
    assert "problem the ledger" in done.stdout
    assert list(other.iterdir()), "the second directory was used when the first was full"
    left = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert left, "the rest is on stderr"
    ledger.path.with_name("ledger.db.spool-1.jsonl").write_text("".join(f"{line}\n" for line in left))
    assert ids(ledger) == acknowledged
    assert_sound(ledger)


def test_full_disk_is_survived(opened: Opener, tmp_path: Path) -> None:
    """On a file system without room nothing raises; with room again nothing is missing."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    try:
        ledger = opened(small / "ledger.db", spool_dirs=[tmp_path / "state"])
        for n in range(200):
            ledger.record(call(f"{n:03d}", error="x" * 2000), [attempt(f"{n:03d}")])
        assert not ledger.healthy
        assert list((tmp_path / "state").iterdir())
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        ledger.record(call("last"), [])
        assert ledger.healthy
        assert len(ids(ledger)) == 201
        assert ledger.waiting() == []
        assert_sound(ledger)
        ledger.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_path_that_is_a_directory_spools_beside_it(opened: Opener, tmp_path: Path) -> None:
    """A ledger path that can never be written still loses nothing, and the message says what is wrong."""
    directory = tmp_path / "ledger.db"
    directory.mkdir()
    ledger = opened()
    ledger.record(call(), [])
    assert "is a directory" in (ledger.problem or "")
    with pytest.raises(LedgerUnavailable, match="name a file"):
        ledger.open()
    directory.rmdir()
    assert ids(ledger) == ["call-1"]


def test_reading_a_directory_says_what_it_is(opened: Opener, tmp_path: Path) -> None:
    """A directory in place of the ledger is called one, also where it is only read."""
    place = tmp_path / "a-directory"
    place.mkdir()
    with pytest.raises(LedgerUnavailable, match="is a directory"):
        opened(place).totals(())


def test_unmakeable_directory_uses_the_next_place(opened: Opener, tmp_path: Path) -> None:
    """Where the ledger's directory cannot even be made, records wait in the state directory, privately."""
    (tmp_path / "file").write_text("in the way")
    ledger = opened(tmp_path / "file" / "ledger.db", spool_dirs=[tmp_path / "state"])
    ledger.record(call(), [])
    (spool,) = ledger.waiting()
    assert spool.parent == tmp_path / "state"
    assert (spool.stat().st_mode & 0o777, spool.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    (tmp_path / "file").unlink()
    assert ids(ledger) == ["call-1"]
    assert ledger.waiting() == []


def test_memory_is_written_at_the_first_chance(opened: Opener, tmp_path: Path) -> None:
    """With no disk at all records wait in memory, and go in when the database is back."""
    (tmp_path / "file").write_text("in the way")
    ledger = opened(tmp_path / "file" / "ledger.db")
    ledger.record(call("a"), [])
    assert not ledger.healthy
    (tmp_path / "file").unlink()
    ledger.record(call("b"), [])
    assert ledger.healthy
    assert ids(ledger) == ["a", "b"]


def test_memory_goes_to_stderr_at_the_end(opened: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What no disk took by the end is printed whole."""
    (tmp_path / "file").write_text("in the way")
    ledger = opened(tmp_path / "file" / "ledger.db")
    ledger.record(call(), [attempt()])
    ledger.close()
    assert capsys.readouterr().err.strip() == entry_to_line((call(), (attempt(),)))


def test_closed_stderr_never_reaches_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble with nowhere to tell it is still no error of the call."""
    (tmp_path / "file").write_text("in the way")
    closed = (tmp_path / "closed").open("w")
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        with Ledger(tmp_path / "file" / "ledger.db", spool_dirs=()) as ledger:
            ledger.record(call(), [])
            assert not ledger.healthy


def test_ledger_removed_under_a_running_process_is_made_anew(opened: Opener) -> None:
    """After somebody moved the file away, records go to a new one and not into the void."""
    ledger = opened()
    ledger.record(call("a"), [])
    for suffix in ("", "-wal", "-shm"):
        Path(f"{ledger.path}{suffix}").rename(f"{ledger.path}{suffix}.moved")
    ledger.record(call("b"), [])
    assert ledger.healthy
    assert ids(ledger) == ["b"]


def test_replaced_ledger_keeps_its_log(opened: Opener) -> None:
    """A process that still holds the file of before does not take the new one's log with it when it lets go."""
    old = opened()
    old.record(call("before"), [])
    for suffix in ("", "-wal", "-shm"):
        Path(f"{old.path}{suffix}").rename(f"{old.path}{suffix}.moved")
    new = opened()
    new.record(call("a"), [])
    log = Path(f"{old.path}-wal")
    inode = log.stat().st_ino
    old.close()
    assert log.stat().st_ino == inode
    old.record(call("b"), [])
    assert log.stat().st_ino == inode
    assert ids(new) == ["a", "b"]
    assert_sound(new)


# Spools


def test_broken_lines_are_kept_aside_and_a_torn_end_skipped(opened: Opener) -> None:
    """One bad line does not keep the good ones out, and is itself kept."""
    ledger = opened()
    good = [entry_to_line((call(c), (attempt(c),))) for c in ("a", "b")]
    spool = ledger.path.with_name("ledger.db.spool-77.jsonl")
    spool.write_text(f'{good[0]}\nnot json\n{{"call": 3}}\n{good[1]}\n{{"call": nul')
    assert ids(ledger) == ["a", "b"]
    aside = ledger.path.with_name("ledger.db.rejected.jsonl").read_text().splitlines()
    assert len(aside) == 2
    assert any("torn" in problem for problem in ledger._on_problem.__self__)  # type: ignore[attr-defined]
    assert not spool.exists()


def test_torn_end_that_is_whole_but_for_its_line_end_counts(opened: Opener) -> None:
    """A record of which only the line end is missing is a record."""
    ledger = opened()
    ledger.path.with_name("ledger.db.spool-77.jsonl").write_text(entry_to_line((call(), ())))
    assert ids(ledger) == ["call-1"]


def test_unfit_record_in_a_spool_does_not_block_the_rest(opened: Opener) -> None:
    """A number beyond 64 bits in a spool is kept aside; its neighbours go in."""
    ledger = opened()
    lines = [entry_to_line((call(c, baseline_nanousd=n), ())) for c, n in (("a", 1), ("b", 10**30), ("c", 3))]
    ledger.path.with_name("ledger.db.spool-77.jsonl").write_text("\n".join(lines) + "\n")
    assert ids(ledger) == ["a", "c"]
    assert ledger.path.with_name("ledger.db.rejected.jsonl").read_text() == lines[1] + "\n"


def _spool_and_fold(path: Path, name: str, count: int) -> None:
    """Writes through outages of its own making: holds the lock, spools, lets go, folds everybody's spools."""
    ledger = Ledger(path, busy_timeout_ms=2, spool_dirs=(), on_problem=lambda _: None)
    for n in range(count):
        call_id = f"{name}-{n:03d}"
        ledger.start(call(call_id, status=CallStatus.OPEN), attempt(call_id, outcome=OutcomeKind.OPEN))
        ledger.end(attempt(call_id), call(call_id))
        if n % 10 == 9:
            ledger.close()
    ledger.close()


def test_processes_that_spool_and_fold_at_once_lose_and_double_nothing(opened: Opener) -> None:
    """Four processes with no patience for each other's locks end with each record exactly once."""
    ledger = opened()
    ledger.open()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_spool_and_fold, args=(ledger.path, f"p{i}", 60)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0] * 4
    ledger.close()
    assert len(ids(ledger)) == 240
    assert ledger.waiting() == []
    found = ledger.totals(())[0][1]
    assert (found.calls, found.attempts, found.open_attempts, found.cost_nanousd) == (240, 240, 0, 480_000)
    assert_sound(ledger)


# Several writers, kills, forks


def _write_threads(path: Path, name: str, threads: int, count: int) -> None:
    ledger = Ledger(path, busy_timeout_ms=30_000, spool_dirs=())

    def work(thread: int) -> None:
        for n in range(count):
            call_id = f"{name}-{thread}-{n:03d}"
            ledger.start(call(call_id, status=CallStatus.OPEN), attempt(call_id, outcome=OutcomeKind.OPEN))
            ledger.end(attempt(call_id), call(call_id))

    workers = [threading.Thread(target=work, args=(t,)) for t in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert ledger.healthy
    ledger.close()


def test_processes_and_threads_write_at_once(opened: Opener) -> None:
    """Three processes of four threads create and fill one ledger: nothing lost, nothing doubled."""
    ledger = opened()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_threads, args=(ledger.path, f"p{i}", 4, 40)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0] * 3
    assert len(ids(ledger)) == 480
    assert ledger.totals(())[0][1].cost_nanousd == 480 * 2000
    assert_sound(ledger)


WRITER = """
import sys
from tests.ledger.records import call, attempt
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Ledger
ledger = Ledger(sys.argv[1], spool_dirs=())
for n in range(10**9):
    i = f"{sys.argv[2]}-{n:06d}"
    ledger.start(call(i, status=CallStatus.OPEN), attempt(i, outcome=OutcomeKind.OPEN, cost_nanousd=7))
    print("started", i, flush=True)
    ledger.end(attempt(i), call(i))
    print("ended", i, flush=True)
"""


def test_killed_writer_loses_nothing_acknowledged(opened: Opener) -> None:
    """After kill -9 at random moments every acknowledged record is there, and what was in flight is known."""
    ledger = opened()
    started: set[str] = set()
    ended: set[str] = set()
    chance = random.Random(7)
    for turn in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(ledger.path), str(turn)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(chance.random() * 0.15)
        writer.kill()
        lines.extend(writer.stdout)
        writer.wait()
        writer.stdout.close()
        for line in lines:
            kind, _, call_id = line.rstrip("\n").partition(" ")
            if line.endswith("\n"):
                (started if kind == "started" else ended).add(call_id)
    found = {stored.call.call_id: stored for stored in ledger.calls()}
    assert started <= found.keys()
    assert all(found[i].call.status is CallStatus.ANSWERED for i in ended)
    assert_sound(ledger)
    in_flight = [s for s in found.values() if s.attempts[0].outcome is OutcomeKind.OPEN]
    assert len(in_flight) <= 6
    assert all(s.call.status is CallStatus.FAILED and "abandoned" in (s.call.error or "") for s in in_flight)
    assert [a.call.call_id for a in ledger.abandoned()] == sorted(s.call.call_id for s in in_flight)
    assert ledger.totals(())[0][1].open_cost_nanousd == 7 * len(in_flight)


def test_running_process_keeps_its_open_calls(opened: Opener) -> None:
    """Opening a ledger does not declare a call dead that somebody is still at."""
    ledger = opened()
    ledger.start(call(status=CallStatus.OPEN), attempt(outcome=OutcomeKind.OPEN))
    other = opened()
    other.open()
    stored = other.get("call-1")
    assert stored is not None
    assert stored.call.status is CallStatus.OPEN
    assert other.abandoned() == []


def test_open_call_of_an_unknown_host_is_listed_not_judged(opened: Opener) -> None:
    """Where liveness cannot be told, the call stays open and is listed once it is old enough."""
    ledger = opened()
    ledger.begin(call(status=CallStatus.OPEN))
    ledger.close()
    with sqlite3.connect(ledger.path) as db:
        db.execute("UPDATE calls SET writer = '1:1:1:boot:elsewhere'")
    db.close()
    assert [a.call.call_id for a in ledger.abandoned(60_000, now_ms=START_MS + 60_000)] == ["call-1"]
    assert ledger.abandoned(60_000, now_ms=START_MS) == []


def test_liveness_is_told_only_when_sure() -> None:
    """This process lives; one of another start time, or of before a restart, does not; the rest is unknown."""
    me = process.this_process()
    pid, start, namespace, boot, host = me.split(":", 4)
    assert process.is_alive(me) is True
    assert process.is_alive(f"{pid}:{int(start) - 1}:{namespace}:{boot}:{host}") is False
    assert process.is_alive(f"{pid}:{start}:{namespace}:otherbot:{host}") is False
    assert process.is_alive(f"{pid}:{start}:1:{boot}:{host}") is None
    assert process.is_alive(f"{pid}:{start}:{namespace}:{boot}:elsewhere") is None
    assert process.is_alive(None) is None
    assert process.is_alive("nonsense") is None


def test_forked_child_writes_with_a_connection_of_its_own(opened: Opener) -> None:
    """A process forked with a ledger open can go on using it, and so can its parent."""
    ledger = opened()
    ledger.record(call("parent"), [])
    pid = os.fork()
    if pid == 0:
        ledger.record(call("child"), [])
        os._exit(0 if ledger.healthy else 1)
    assert os.waitpid(pid, 0)[1] == 0
    ledger.record(call("parent-2"), [])
    assert ids(ledger) == ["child", "parent", "parent-2"]
    assert_sound(ledger)


def test_interrupt_in_a_write_keeps_the_record(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a record is written reaches the caller, with the record in the ledger."""
    ledger = opened()
    ledger.open()
    apply, interrupted = ledger._merging._apply, []

    def once(*args: Any) -> None:
        apply(*args)
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(ledger._merging, "_apply", once)
    with pytest.raises(KeyboardInterrupt):
        ledger.record(call(), [attempt()])
    assert ids(ledger) == ["call-1"]
    assert_sound(ledger)


def test_clock_that_jumps_back_is_recorded_as_it_was(opened: Opener) -> None:
    """Calls are kept under the times the clock gave, even before 1970, and none is lost."""
    ledger = opened()
    ledger.record(call("a", started_at_ms=START_MS), [attempt("a")])
    ledger.record(call("b", started_at_ms=START_MS - 10**9), [attempt("b")])
    ledger.record(call("c", started_at_ms=-5), [attempt("c", started_at_ms=-5)])
    assert ids(ledger) == ["c", "b", "a"]
    assert [s.call.call_id for s in ledger.calls(Filter(since_ms=START_MS))] == ["a"]
    assert_sound(ledger)


def test_spool_lines_hold_no_more_than_the_tables(opened: Opener) -> None:
    """A spool names the same fields as the records, and no others."""
    line = json.loads(entry_to_line((call(), (attempt(),))))
    assert set(line) == {"call", "attempts"}
    assert set(line["call"]) == set(type(call()).__dataclass_fields__)
    assert set(line["attempts"][0]) == set(type(attempt()).__dataclass_fields__)


def test_garbage_is_refused_and_left_as_it_is(opened: Opener) -> None:
    """A file that is no database is named, with the way out; records wait; nothing is overwritten."""
    ledger = opened()
    garbage = random.Random(1).randbytes(20_000)
    ledger.path.write_bytes(garbage)
    with pytest.raises(LedgerCorrupt, match=r"ledger\.db is damaged.*tierwise doctor --recover.*aside"):
        ledger.open()
    ledger.record(call(), [])
    assert ledger.path.read_bytes() == garbage
    assert not ledger.healthy
    ledger.path.rename(ledger.path.with_name("aside"))
    assert ids(ledger) == ["call-1"]
