"""How fast the ledger writes, one call at a time as callers see it, and how fast it sums up a million rows.

    python benchmarks/ledger.py [--calls 20000] [--rows 1000000] [--directory DIR]

Each way of writing stands beside two floors: bare SQLite putting the same rows (no roll-up, no merging, values made
beforehand) one call a transaction, and a thousand calls a transaction. A call with one attempt is two rows; a call that
is noted before its request leaves writes each of them twice (`writes/s`).
Aggregates are compared with a plain scan of the same rows. Medians of three rounds.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, Reason
from tierwise.core.money import Price, PriceBand, Usage
from tierwise.ledger import Filter, Ledger, codec, new_call_id, schema

MODELS = ("local-small", "haiku", "sonnet", "opus")
TYPES = tuple(f"type_{i:02d}" for i in range(30))
PRICES = [
    Price(m, (PriceBand(Decimal(i), Decimal(5 * i), Decimal("0.1"), Decimal(1), Decimal(2)),), "benchmark")
    for i, m in enumerate(MODELS)
]
REASONS = (
    Reason("type", "the text asks for intent_classification (confidence 0.93)"),
    Reason("tree", "recoverable, small and in time on the local tier"),
    Reason("ladder", "then haiku, then sonnet"),
)


def make(number: int, day_ms: int = 1_790_000_000_000) -> tuple[CallRecord, AttemptRecord]:
    mixed = number * 2_654_435_761 >> 8  # so that days, types and models occur in every combination
    kind = mixed % len(MODELS)
    call = CallRecord(
        call_id=new_call_id(day_ms),
        started_at_ms=day_ms,
        status=CallStatus.ANSWERED,
        task_type=TYPES[mixed // 7 % len(TYPES)],
        family="classify",
        needs="processing",
        confidence=0.93,
        abstained=False,
        tier=MODELS[kind],
        model=MODELS[kind],
        planned_tier=MODELS[kind],
        baseline_model="sonnet",
        baseline_nanousd=3_150_000,
        latency_ms=812,
        session="5f0c2f0a-session",
        project="benchmark",
        tags=(("team", "search"),),
        reasons=REASONS,
    )
    attempt = AttemptRecord(
        call_id=call.call_id,
        number=1,
        tier=call.tier,
        model=call.model,
        provider="anthropic",
        started_at_ms=day_ms,
        outcome=OutcomeKind.ACCEPTED,
        usage=Usage(800, 50, 100),
        price=PRICES[kind],
        cost_nanousd=1_050_000,
        latency_ms=800,
        ttft_ms=120,
        request_id="req_0123456789abcdef",
        reported_model=call.model,
    )
    return call, attempt


Step = tuple[CallRecord, AttemptRecord, CallRecord, AttemptRecord]  # a call and its attempt, before and after


def steps(number: int) -> Step:
    call, attempt = make(number)
    return replace(call, status=CallStatus.OPEN), replace(attempt, outcome=OutcomeKind.OPEN), call, attempt


def rows_a_second(directory: Path, calls: int, write: Callable[[Ledger, Step], None]) -> float:
    found = []
    for turn in range(3):
        records = [steps(n) for n in range(calls)]
        with Ledger(directory / f"ledger-{time.time_ns()}-{turn}.db") as ledger:
            ledger.open()
            start = time.perf_counter()
            for step in records:
                write(ledger, step)
            found.append(2 * calls / (time.perf_counter() - start))
            assert ledger.healthy
    return statistics.median(found)


_FLOOR_TABLES = tuple(f"{verb} TABLE {table} " for verb in ("CREATE", "ALTER") for table in ("calls", "attempts"))


def floor(directory: Path, calls: int, batch: int) -> float:
    put_call = f"INSERT INTO calls VALUES ({', '.join('?' * len(codec.CALL_COLUMNS))})"  # noqa: S608 no data
    put_attempt = f"INSERT INTO attempts VALUES ({', '.join('?' * len(codec.ATTEMPT_COLUMNS))})"  # noqa: S608 no data
    found = []
    for turn in range(3):
        rows = [(codec.call_row(c, None), codec.attempt_row(a, "digest")) for c, a in map(make, range(calls))]
        db = sqlite3.connect(directory / f"floor-{time.time_ns()}-{turn}.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        for statement in (statement for migration in schema.MIGRATIONS for statement in migration.sql):
            if statement.startswith(_FLOOR_TABLES):
                db.execute(statement)
        start = time.perf_counter()
        for first in range(0, calls, batch):
            db.execute("BEGIN IMMEDIATE")
            for call, attempt in rows[first : first + batch]:
                db.execute(put_call, call)
                db.execute(put_attempt, attempt)
            db.execute("COMMIT")
        found.append(2 * calls / (time.perf_counter() - start))
        db.close()
    return statistics.median(found)


def one(ledger: Ledger, step: Step) -> None:
    ledger.record(step[2], (step[3],))


def two(ledger: Ledger, step: Step) -> None:
    ledger.start(step[0], step[1])
    ledger.end(step[3], step[2])


def four(ledger: Ledger, step: Step) -> None:
    ledger.begin(step[0])
    ledger.attempt_started(step[1])
    ledger.attempt_finished(step[3])
    ledger.finish(step[2])


def milliseconds(work: Callable[[], object]) -> float:
    found = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - start))
    return statistics.median(found)


def aggregates(directory: Path, rows: int) -> None:
    with Ledger(directory / "million.db") as ledger:
        batch: list[tuple[CallRecord, list[AttemptRecord]]] = []
        for number in range(rows // 2):
            call, attempt = make(number, 1_780_000_000_000 + (number * 7919 % 90) * 86_400_000)
            batch.append((call, [attempt]))
            if len(batch) == 2000:
                ledger.record_many(batch)
                batch = []
        ledger.record_many(batch)
        groups = len(ledger.totals(("day", "project", "task_type", "tier", "model")))
        print(f"\naggregates over {rows:,} rows, {groups:,} rows of roll-up (90 days, 30 task types, 4 models)")
        print(f"{'':34}{'roll-up ms':>12}{'scan ms':>12}{'ratio':>8}")
        month = Filter(since_ms=1_780_000_000_000 // 86_400_000 * 86_400_000 + 60 * 86_400_000)
        for name, by, where in (
            ("all, by task type", ("task_type",), Filter()),
            ("all, by day and tier", ("day", "tier"), Filter()),
            ("last month, by model", ("model",), month),
        ):
            fast = milliseconds(lambda by=by, where=where: ledger.totals(by, where))  # type: ignore[misc]
            start = time.perf_counter()
            scanned = ledger.totals(by, where, scan=True)
            slow = 1000 * (time.perf_counter() - start)
            assert scanned == ledger.totals(by, where)
            print(f"{name:34}{fast:12.1f}{slow:12.0f}{slow / fast:8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="where to put the files (default: a temporary directory)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as scratch:
        directory = Path(scratch)
        bare = floor(directory, args.calls, 1)
        print(f"writing {args.calls:,} calls of one attempt (2 rows each); SQLite {sqlite3.sqlite_version}")
        print(f"{'':50}{'rows/s':>10}{'writes/s':>10}{'µs a call':>12}{'to floor':>10}")
        for name, times, speed in (
            ("floor: bare SQLite, a call a transaction", 1, bare),
            ("floor: bare SQLite, 1,000 calls a transaction", 1, floor(directory, args.calls, 1000)),
            ("record(call, [attempt])", 1, rows_a_second(directory, args.calls, one)),
            ("start, end (durable before the request leaves)", 2, rows_a_second(directory, args.calls // 2, two)),
            ("begin, started, finished, finish", 2, rows_a_second(directory, args.calls // 2, four)),
        ):
            print(f"{name:50}{speed:10,.0f}{times * speed:10,.0f}{2e6 / speed:12.0f}{speed / bare:10.2f}")
        if args.rows:
            aggregates(directory, args.rows)


if __name__ == "__main__":
    main()
