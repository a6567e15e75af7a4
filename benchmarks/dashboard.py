"""How long the dashboard's views take on a ledger of ten million attempts over a year.

    python benchmarks/dashboard.py [--attempts 10000000] [--rounds 20] [--directory DIR] [--ledger FILE] [--scan]

Makes the ledger in SQL (58 task types, 8 projects, 16 keys, 4 tiers, sessions of 25 calls; a call in six climbs),
builds its roll-up from the rows, and answers every view for a year, a month, a week and a day, whole and filtered, as
the page asks for it: each answer opens the database anew. Server time without HTTP and JSON, and beside it that of the
processor, which other work on the machine leaves as it is. The worst 95th percentiles stand at the end. `--ledger`
keeps the ledger in a file, and uses it again. `--scan` sums the year up from the rows once, for comparison. At the full
size it takes some 5 GB and a quarter of an hour of one core.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind
from tierwise.ledger import Filter, Ledger, new_call_id
from tierwise.ledger.folding import begin_anew
from tierwise.report.figures import By, Figures, Measure, Scope

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
YEAR_MS = 365 * DAY_MS

# Numbers that look drawn by lot, the same each time: of a row's number and a salt, 0 to 9,999.
LOT = "(((i * 2654435761 + {salt} * 40503) >> 9) % 10000)"
CALLS = f"""
INSERT INTO calls (call_id, started_at_ms, status, task_type, family, needs, confidence, abstained, tier, model,
    planned_tier, baseline_model, baseline_nanousd, latency_ms, session, project, tags, reasons, error, writer, key_id)
WITH RECURSIVE rows (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM rows WHERE i + 1 < ?2),
drawn AS (SELECT i, {LOT.format(salt=1)} AS a, {LOT.format(salt=2)} AS b, {LOT.format(salt=3)} AS c,
    {LOT.format(salt=4)} AS d FROM rows),
named AS (SELECT i, a, c, d, b * b / 12500001 AS project, CASE WHEN c < 5000 THEN 0 WHEN c < 8000 THEN 1
    WHEN c < 9500 THEN 2 ELSE 3 END AS tier FROM drawn)
SELECT printf('%012d', i), ?3 + i * ?4 / ?5, CASE WHEN d < 100 THEN 'failed' ELSE 'answered' END,
    'type_' || (a * a * 58 / 100000000), 'family', 'processing', a / 10000.0, a < 500,
    CASE tier WHEN 0 THEN 'local' WHEN 1 THEN 'haiku' WHEN 2 THEN 'sonnet' ELSE 'opus' END,
    CASE tier WHEN 0 THEN 'local' WHEN 1 THEN 'haiku' WHEN 2 THEN 'sonnet' ELSE 'opus' END,
    'haiku', 'sonnet', 3000000 + a, 200 + (tier + 1) * d / 2, 'session-' || (i / 25), 'project-' || project,
    CASE WHEN i % 25 < 15 THEN '{{"kind":"main"}}' ELSE '{{"kind":"subagent"}}' END,
    '[["type","the text asks for it"],["tree","recoverable, small and in time"]]', NULL, NULL,
    'key-' || project || '-' || (d % 2)
FROM named
"""  # noqa: S608 numbers of this module
ATTEMPTS = """
INSERT INTO attempts (call_id, number, tier, model, provider, started_at_ms, outcome, detail, input_tokens,
    output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, thinking_tokens, web_searches,
    estimated, price, cost_nanousd, latency_ms, ttft_ms, wait_ms, request_id, reported_model, cache_saved_nanousd)
SELECT call_id, number, iif(number = last, tier, 'local'), iif(number = last, model, 'local'), 'anthropic',
    started_at_ms, CASE WHEN number < last THEN 'rejected' WHEN status = 'failed' THEN 'timeout' ELSE 'accepted' END,
    '', 800, 50, 400, 100, 0, 0, 0, 0, 'p', 1050000, latency_ms / last, 120, 0, NULL, model, 300000
FROM (SELECT *, 1 + (CAST(call_id AS INTEGER) % 6 = 0) AS last FROM calls WHERE call_id >= ?1 AND call_id < ?2)
CROSS JOIN (SELECT 1 AS number UNION ALL SELECT 2) WHERE number <= last
"""


def make(path: Path, attempts: int, until_ms: int) -> None:
    """A year of calls up to a moment, with their sums, and a little that is not summed up yet, as there always is."""
    calls = attempts * 6 // 7
    with Ledger(path) as ledger:
        ledger.open()
    started = time.perf_counter()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -200000")
    for first in range(0, calls, 500_000):
        last = min(calls, first + 500_000)
        db.execute("BEGIN")
        db.execute(CALLS, (first, last, until_ms - YEAR_MS, YEAR_MS, calls))
        db.execute(ATTEMPTS, (f"{first:012d}", f"{last:012d}"))
        db.execute("COMMIT")
    db.execute("BEGIN")
    begin_anew(db)  # these rows came beside the ledger
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    made, processor = time.perf_counter(), time.process_time()
    with Ledger(path) as ledger:
        ledger.rebuild_rollup()
        built, used = time.perf_counter(), time.process_time() - processor
        assert ledger.totals(())[0][1].calls == calls
        for n in range(500):
            call_id, at_ms = new_call_id(until_ms), until_ms - n
            ledger.record(_call(call_id, at_ms, n), [_attempt(call_id, at_ms)])
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    print(f"made in {made - started:.0f} s, roll-up built in {built - made:.0f} s ({used:.0f} s of one core)")


def describe(path: Path) -> int:
    """Says what is in a ledger; returns when its last call began."""
    with Ledger(path) as ledger:
        totals = ledger.totals(())[0][1]
    db = sqlite3.connect(path)
    rows, last = db.execute("SELECT (SELECT count(*) FROM rollup), (SELECT max(started_at_ms) FROM calls)").fetchone()
    db.close()
    print(
        f"{totals.calls:,} calls, {totals.attempts:,} attempts, {rows:,} rows of roll-up, "
        f"{path.stat().st_size / 1e9:.2f} GB; SQLite {sqlite3.sqlite_version}"
    )
    return int(last)


def milliseconds(work: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median and 95th percentile, and the latter of the processor's time."""
    found, used = [], []
    for _ in range(rounds):
        start, began = time.perf_counter(), time.thread_time()
        work()
        used.append(1000 * (time.thread_time() - began))
        found.append(1000 * (time.perf_counter() - start))
    place = min(rounds - 1, int(rounds * 0.95))
    return sorted(found)[rounds // 2], sorted(found)[place], sorted(used)[place]


def views(figures: Figures, scope: Scope) -> dict[str, Callable[[], object]]:
    """What the page asks for."""
    return {
        "overview": lambda: figures.overview(scope),
        "spent by tier": lambda: figures.series(scope, Measure.SPENT, By.TIER),
        "calls by tier": lambda: figures.series(scope, Measure.CALLS, By.TIER),
        "tokens by model": lambda: figures.series(scope, Measure.TOKENS, By.MODEL),
        "spent by task type": lambda: figures.series(scope, Measure.SPENT, By.TASK_TYPE),
        "p95 latency": lambda: figures.series(scope, Measure.P95_LATENCY_MS),
        "task types": lambda: figures.task_types(scope),
        "one task type": lambda: figures.task_type(scope, "type_7"),
        "quality": lambda: figures.quality(scope),
        "cache": lambda: figures.cache(scope),
        "calls": lambda: figures.calls(scope),
        "calls, rare": lambda: figures.calls(scope, text="000000000042"),
    }


def main() -> None:
    """As the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--directory", type=Path, help="where to put the file (default: a temporary directory)")
    parser.add_argument("--ledger", type=Path, help="keep the ledger there, or use the one that is there")
    parser.add_argument("--scan", action="store_true", help="sum the year up from the rows, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as scratch:
        path = args.ledger or Path(scratch) / "ledger.db"
        if not path.exists():
            make(path, args.attempts, time.time_ns() // 1_000_000)
        now_ms = describe(path) + 1
        with Ledger(path) as ledger:
            figures = Figures(ledger)
            worst = worst_used = 0.0
            print(f"{'':52}{'median ms':>12}{'p95 ms':>10}{'processor':>11}")
            for name, days in (("year", 365), ("month", 30), ("week", 7), ("day", 1)):
                since = now_ms - days * DAY_MS
                for scope_name, scope in (
                    ("", Scope(since_ms=since, until_ms=now_ms)),
                    (", a project", Scope(since_ms=since, until_ms=now_ms, project="project-0")),
                    (", a key", Scope(since_ms=since, until_ms=now_ms, key="key-3-1")),
                    (
                        ", project, key and tier",
                        Scope(since_ms=since, until_ms=now_ms, project="project-0", key="key-0-0", tier="haiku"),
                    ),
                ):
                    for view, work in views(figures, scope).items():
                        median, p95, used = milliseconds(work, args.rounds)
                        worst, worst_used = max(worst, p95), max(worst_used, used)
                        print(f"{view + ', ' + name + scope_name:54}{median:10.1f}{p95:10.1f}{used:11.1f}", flush=True)
            for view, work in (
                ("conversation", lambda: figures.conversation("session-4242")),
                ("one call", lambda: figures.call("000000123456")),
                ("choices", figures.choices),
                ("overview, of all time", figures.overview),
                ("a session", lambda: figures.overview(Scope(session="session-4242"))),
            ):
                median, p95, used = milliseconds(work, args.rounds)
                worst, worst_used = max(worst, p95), max(worst_used, used)
                print(f"{view:54}{median:10.1f}{p95:10.1f}{used:11.1f}")
            print(f"worst 95th percentile: {worst:.0f} ms, {worst_used:.0f} ms of processor time")
            if args.scan:
                start = time.perf_counter()
                scanned = ledger.totals((), Filter(since_ms=now_ms - YEAR_MS), scan=True)[0][1]
                print(f"the year from its rows: {time.perf_counter() - start:.0f} s, {scanned.attempts:,} attempts")


def _call(call_id: str, at_ms: int, n: int) -> CallRecord:
    return CallRecord(
        call_id=call_id,
        started_at_ms=at_ms,
        status=CallStatus.ANSWERED,
        task_type=f"type_{n % 58}",
        family="family",
        needs="processing",
        confidence=0.9,
        abstained=False,
        tier="haiku",
        model="haiku",
        planned_tier="haiku",
        baseline_model="sonnet",
        baseline_nanousd=3_000_000,
        latency_ms=900 + n,
        session="session-now",
        project=f"project-{n % 8}",
        key_id=f"key-{n % 8}-0",
    )


def _attempt(call_id: str, at_ms: int) -> AttemptRecord:
    return AttemptRecord(
        call_id=call_id,
        number=1,
        tier="haiku",
        model="haiku",
        provider="anthropic",
        started_at_ms=at_ms,
        outcome=OutcomeKind.ACCEPTED,
        cost_nanousd=1_000_000,
    )


if __name__ == "__main__":
    main()
