"""The roll-up takes calls in from both ends, a piece at a time, and every view is right at every moment."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.records import DAY_MS, HOUR_MS, attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Dimension, Filter, Ledger, Totals
from tierwise.ledger.batches import Batch, Batches
from tierwise.ledger.care import prune, verify
from tierwise.ledger.connection import open_database
from tierwise.ledger.counts import register
from tierwise.ledger.folding import MOST_BEYOND, extend, fold, summed_calls, week_of
from tierwise.ledger.schema import MIGRATIONS
from tierwise.ledger.sums import Stretches, read_sums, scan_sums, widened
from tierwise.ledger.writer import LedgerWriter

DAYS = 60
NOW = 20_000 * DAY_MS + 14 * HOUR_MS
KEYS: tuple[Dimension, ...] = ("day", "project", "key_id", "task_type", "tier", "model")


def fill(ledger: Ledger, count: int = 400) -> None:
    """Calls over two months, in every combination; some climb, some fail, some are open."""
    drawn = random.Random(7)
    records = []
    for n in range(count):
        at_ms, name = NOW - drawn.randrange(DAYS * DAY_MS), f"c{n:04d}"
        status = drawn.choice([CallStatus.ANSWERED] * 8 + [CallStatus.FAILED, CallStatus.OPEN])
        tier = drawn.choice(["haiku", "sonnet"])
        one = call(
            name,
            started_at_ms=at_ms,
            status=status,
            tier=tier,
            model=tier,
            task_type=drawn.choice(["summarization", "tagging"]),
            project=drawn.choice([None, "p", "q"]),
            key_id=drawn.choice([None, "k"]),
            latency_ms=drawn.randrange(5000),
        )
        outcome = OutcomeKind.ACCEPTED if status is CallStatus.ANSWERED else OutcomeKind.TIMEOUT
        attempts = [attempt(name, tier=tier, model=tier, outcome=outcome, started_at_ms=at_ms)]
        if drawn.random() < 0.2:
            attempts.append(attempt(name, 2, outcome=OutcomeKind.REJECTED, started_at_ms=at_ms))
        records.append((one, attempts))
    ledger.record_many(records)


def summed(ledger: Ledger) -> None:
    ledger.sum_up(left=0)


def half_summed(ledger: Ledger) -> None:
    """Made anew up to the middle; some calls came meanwhile."""
    ledger.sum_up(left=0)
    ledger.begin_rollup()
    while ledger.extend_rollup(60).reached_ms > NOW - DAYS // 2 * DAY_MS:
        pass
    ledger.record(call("late", started_at_ms=NOW), [attempt("late")])
    assert ledger.is_behind


def stale(ledger: Ledger) -> None:
    ledger.sum_up(left=0)
    ledger.begin_rollup()


def pruned_and_stale(ledger: Ledger) -> None:
    prune(ledger, NOW - 45 * DAY_MS, keep_rollups=False)
    ledger.begin_rollup()


def not_summed(ledger: Ledger) -> None:
    pass


@pytest.fixture(scope="module", params=[summed, half_summed, stale, pruned_and_stale, not_summed])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    path = tmp_path_factory.mktemp(request.param.__name__) / "ledger.db"
    with Ledger(path, spool_dirs=(), clock_ms=lambda: NOW) as ledger:
        fill(ledger)
        request.param(ledger)
        yield ledger


@given(
    by=st.lists(st.sampled_from(KEYS), unique=True, max_size=3),
    since=st.none() | st.integers(0, DAYS * 24),
    until=st.none() | st.integers(0, DAYS * 24),
    where=st.builds(
        Filter,
        project=st.sampled_from([None, "", "p"]),
        key_id=st.sampled_from([None, "", "k"]),
        task_type=st.sampled_from([None, "tagging"]),
        tier=st.sampled_from([None, "haiku"]),
        model=st.sampled_from([None, "haiku"]),
    ),
    step=st.none() | st.integers(1, 30) | st.sampled_from([24, 48, 168, 336, 672]),
    from_monday=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_view_is_the_sum_of_its_rows(  # noqa: PLR0917 what Hypothesis draws
    filled: Ledger,
    by: list[Dimension],
    since: int | None,
    until: int | None,
    where: Filter,
    step: int | None,
    from_monday: bool,
) -> None:
    """Grouped and filtered in any way, over any time, along any stretches: what is summed and the rows agree."""
    first = NOW // HOUR_MS - DAYS * 24
    if since is not None and until is not None:
        since, until = min(since, until), max(since, until)
    where = replace(
        where,
        since_ms=None if since is None else (first + since) * HOUR_MS,
        until_ms=None if until is None else (first + until) * HOUR_MS,
    )
    with filled._reading() as connection:
        span = widened(connection, where.since_ms, where.until_ms)
        exact = replace(
            where,
            since_ms=None if span.since is None else span.since * HOUR_MS,
            until_ms=None if span.until is None else span.until * HOUR_MS,
        )
        stretches = None
        if step is not None:
            origin = first // 24 * 24 if span.since is None else span.since
            if span.since is None or span.since < summed_calls(connection).hours_since:
                step *= 1 if step % 24 == 0 else 24  # so long ago only whole days are known
            stretches = Stretches(week_of(origin) if from_monday else origin, step)
        found = read_sums(connection, by, where, stretches=stretches, counts=True)
        assert found == scan_sums(connection, by, exact, stretches=stretches, counts=True)


def total(ledger: Ledger) -> Totals:
    return ledger.totals((), scan=False)[0][1]


def test_making_the_sums_anew_ends_with_what_they_were(tmp_path: Path) -> None:
    """However small the pieces, the roll-up is in the end what the rows say, and `verify` finds nothing."""
    with Ledger(tmp_path / "ledger.db", spool_dirs=(), clock_ms=lambda: NOW) as ledger:
        fill(ledger)
        before = ledger.totals(KEYS, scan=True)
        ledger.begin_rollup()
        pieces = 0
        while not ledger.extend_rollup(30).is_done:
            pieces += 1
        assert pieces > 10
        assert not ledger.is_behind
        assert ledger.totals(KEYS, scan=False) == before
        assert verify(ledger) == []


def test_what_comes_while_old_sums_are_still_to_be_removed(tmp_path: Path) -> None:
    """It is in every view, folded or not, and does not go with the old sums in the end."""
    with Ledger(tmp_path / "ledger.db", spool_dirs=(), clock_ms=lambda: NOW) as ledger:
        fill(ledger)
        stale(ledger)
        ledger.record_many([(call(f"late{n}", started_at_ms=NOW), [attempt(f"late{n}")]) for n in range(9)])
        ledger.sum_up(left=0)
        assert ledger.is_behind
        assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)
        ledger.rebuild_rollup()
        ledger.sum_up(left=0)
        assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)
        assert verify(ledger) == []


class Interrupted(sqlite3.Connection):
    """A connection beside which something happens just before it takes the lock."""

    before_lock: Callable[[], None] | None = None

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE" and self.before_lock is not None:
            happening, self.before_lock = self.before_lock, None
            happening()
        return super().execute(sql, *values)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", spool_dirs=(), clock_ms=lambda: NOW) as made:
        fill(made)
        yield made


@pytest.fixture
def interrupted(ledger: Ledger) -> Iterator[Interrupted]:
    connection = sqlite3.connect(ledger.path, isolation_level=None, factory=Interrupted)
    register(connection)
    yield connection
    connection.close()


def test_a_call_that_changes_while_it_is_added_up_counts_once(ledger: Ledger, interrupted: Interrupted) -> None:
    """What was read before the lock is thrown away where somebody has written one of its calls since."""
    ledger.begin_rollup()
    calls = list(ledger.calls(Filter(status=CallStatus.ANSWERED)))
    changed = calls[-1].call
    interrupted.before_lock = lambda: ledger.finish(replace(changed, status=CallStatus.CANCELLED, latency_ms=1))
    first = extend(interrupted, NOW, calls=50)
    assert not first.is_done
    assert summed_calls(interrupted).since.at_ms > changed.started_at_ms, "nothing was taken in"
    while not extend(interrupted, NOW, calls=50).is_done:
        pass
    assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)
    assert total(ledger).cancelled_calls == 1


def test_what_gathers_while_it_is_folded_is_not_lost(ledger: Ledger, interrupted: Interrupted) -> None:
    """A sum that moved between adding up and the lock is folded as it is then."""
    ledger.begin_rollup()
    ledger.rebuild_rollup()
    late = next(ledger.calls(Filter(status=CallStatus.OPEN))).call
    ledger.finish(replace(late, status=CallStatus.FAILED))
    other = next(ledger.calls(Filter(status=CallStatus.OPEN))).call
    interrupted.before_lock = lambda: ledger.finish(replace(other, status=CallStatus.FAILED))
    fold(interrupted, NOW)
    assert interrupted.execute("SELECT count(*) FROM rollup_recent").fetchone() == (0,)
    assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)


def test_two_that_make_the_sums_do_not_make_them_twice(ledger: Ledger, interrupted: Interrupted) -> None:
    """Who comes second to the lock with the same piece gives it up."""
    ledger.begin_rollup()
    interrupted.before_lock = lambda: extend_once(ledger)
    extend(interrupted, NOW, calls=50)
    ledger.rebuild_rollup()
    assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)


def extend_once(ledger: Ledger) -> None:
    ledger.extend_rollup(50)


def test_a_killed_rebuild_goes_on_where_it_was(tmp_path: Path) -> None:
    """After kill -9 in the middle every view is right, and the next one does only what is left."""
    path = tmp_path / "ledger.db"
    with Ledger(path, spool_dirs=(), clock_ms=lambda: NOW) as ledger:
        fill(ledger)
        before = ledger.totals(KEYS, scan=True)
    program = (
        "import sys\nfrom tierwise.ledger import Ledger\n"
        f"ledger = Ledger(sys.argv[1], spool_dirs=(), clock_ms=lambda: {NOW})\nledger.begin_rollup()\n"
        "while not ledger.extend_rollup(10).is_done: print('a piece', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(5):
            assert child.stdout.readline() == b"a piece\n"
        child.send_signal(signal.SIGKILL)
    with Ledger(path, spool_dirs=(), clock_ms=lambda: NOW) as ledger:
        assert ledger.totals(KEYS, scan=False) == before
        ledger.rebuild_rollup()
        assert not ledger.is_behind
        assert ledger.totals(KEYS, scan=False) == before
        assert verify(ledger) == []


def test_sums_are_right_that_are_made_while_others_write(ledger: Ledger) -> None:
    """Two processes begin and end calls of any age while the sums are made anew, again and again: none is lost."""
    program = (
        "import random, sys\n"
        "from tests.ledger.records import DAY_MS, attempt, call\n"
        "from tierwise.core.decisions import CallStatus, OutcomeKind\n"
        "from tierwise.ledger import Ledger\n"
        "drawn = random.Random(sys.argv[2])\n"
        f"with Ledger(sys.argv[1], spool_dirs=(), clock_ms=lambda: {NOW}) as ledger:\n"
        "    for n in range(150):\n"
        f"        name, at_ms = sys.argv[2] + str(n), {NOW} - drawn.randrange({DAYS} * DAY_MS)\n"
        "        begun = call(name, status=CallStatus.OPEN, started_at_ms=at_ms)\n"
        "        ledger.start(begun, attempt(name, outcome=OutcomeKind.OPEN))\n"
        "        ledger.end(attempt(name), call(name, started_at_ms=at_ms))\n"
        "    assert ledger.healthy\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(ledger.path), name]) for name in ("one", "two")]
    while any(child.poll() is None for child in children):
        ledger.begin_rollup()
        ledger.extend_rollup(40)
        ledger.sum_up(left=5)
    assert [child.returncode for child in children] == [0, 0]
    ledger.rebuild_rollup()
    assert total(ledger).calls == 400 + 2 * 150
    assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)
    assert verify(ledger) == []


def test_writing_a_call_leaves_the_roll_up_alone(ledger: Ledger) -> None:
    """Calls that come are read from their rows, and taken in many at once; one that ends late is taken in by itself."""
    ledger.sum_up(left=0)
    ledger.start(call("slow", started_at_ms=NOW, status=CallStatus.OPEN), attempt("slow", outcome=OutcomeKind.OPEN))
    before = total(ledger).calls
    names = [f"n{n:04d}" for n in range(MOST_BEYOND - 1)]
    ledger.record_many([(call(name, started_at_ms=NOW), [attempt(name)]) for name in names])
    with ledger._reading() as connection:
        assert connection.execute("SELECT count(*) FROM rollup_recent").fetchone() == (0,)
    ledger.record(call("o", started_at_ms=NOW), [attempt("o")])
    with ledger._reading() as connection:
        assert connection.execute("SELECT count(*) FROM rollup_recent").fetchone() == (1,)
    ledger.sum_up(left=0)
    ledger.end(attempt("slow"), call("slow", started_at_ms=NOW))
    assert total(ledger).calls == before + MOST_BEYOND
    assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)


def test_requests_of_a_batch_are_open_in_every_view(ledger: Ledger) -> None:
    """They belong to no process, and count as open all the same until their results are read."""
    batch = Batch("batch-1", None, "anthropic", None, None, 1, NOW)
    began = call("request", status=CallStatus.OPEN, batch_id="batch-1", custom_id="r", started_at_ms=NOW)
    before = total(ledger)
    Batches(ledger).begin(batch, [(began, (attempt("request", outcome=OutcomeKind.OPEN),))])
    assert total(ledger).open_calls == before.open_calls + 1
    assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)


def test_a_fast_clock_does_not_draw_the_roll_up_after_it(ledger: Ledger) -> None:
    """A call from the future stays outside, so that those of today are still taken in many at once."""
    ledger.record(call("future", started_at_ms=NOW + 400 * DAY_MS), [attempt("future")])
    ledger.sum_up(left=0)
    with ledger._reading() as connection:
        assert summed_calls(connection).until.at_ms <= NOW
    assert ledger.totals(KEYS, scan=False) == ledger.totals(KEYS, scan=True)


def test_an_older_ledger_opens_at_once_and_is_summed_by_the_way(tmp_path: Path) -> None:
    """Its views are right before its sums are made; pruned time keeps its sums, by the week too."""
    path = tmp_path / "ledger.db"
    with Ledger(path, spool_dirs=(), clock_ms=lambda: NOW) as ledger:
        fill(ledger, 5000)
        prune(ledger, NOW - 45 * DAY_MS, keep_rollups=True)
        ledger.sum_up(left=0)
        before, by_week = ledger.totals(KEYS, scan=False), ledger.totals(("tier",), scan=False)
    older = tmp_path / "older.db"
    number = next(one.number for one in MIGRATIONS if any("since_ms" in sql for sql in one.sql))
    db = open_database(older, synchronous="normal", busy_timeout_ms=100, migrations=MIGRATIONS[: number - 1])
    db.execute("ATTACH ? AS newer", (str(path),))
    db.execute("DELETE FROM rollup_state")
    for table, chosen in (
        ("prices", "true"),
        ("calls", "true"),
        ("attempts", "true"),
        ("rollup", "span_hours <= 24"),
        ("rollup_recent", "true"),
        ("rollup_state", "true"),
    ):
        names = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
        db.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM newer.{table} WHERE {chosen}")  # noqa: S608 names of the schema
    db.close()
    with Ledger(older, spool_dirs=(), clock_ms=lambda: NOW) as ledger:
        assert ledger.is_behind, "opening it has taken in a piece at most"
        assert (ledger.totals(KEYS, scan=False), ledger.totals(("tier",), scan=False)) == (before, by_week)
        writer = LedgerWriter(ledger)
        writer.start()
        writer.put(call("new", started_at_ms=NOW), [attempt("new")])
        writer.summing.is_made.wait()
        writer.close()
        assert not ledger.is_behind
        assert total(ledger).calls == sum(totals.calls for _, totals in before) + 1
        assert verify(ledger) == []
