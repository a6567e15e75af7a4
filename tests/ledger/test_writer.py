"""The writer's thread: records that are awaited are safe, and none is lost or counted twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.ledger.records import attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Ledger
from tierwise.ledger.writer import LedgerWriter


async def test_what_is_awaited_is_in_the_database(tmp_path: Path) -> None:
    """When `written` is done, another process would find the record."""
    ledger = Ledger(tmp_path / "ledger.db")
    writer = LedgerWriter(ledger)
    writer.start()
    await writer.written(call(status=CallStatus.OPEN), [attempt(outcome=OutcomeKind.OPEN)])
    found = Ledger(tmp_path / "ledger.db").get("call-1")
    assert found is not None
    assert found.attempts[0].outcome is OutcomeKind.OPEN
    await writer.written(call(), [attempt()])
    found = Ledger(tmp_path / "ledger.db").get("call-1")
    assert found is not None
    assert (found.call.status, found.attempts[0].outcome) == (CallStatus.ANSWERED, OutcomeKind.ACCEPTED)
    writer.close()
    ledger.close()


async def test_many_at_once_are_all_there_once(tmp_path: Path) -> None:
    """A thousand calls that begin and end together, in transactions of many."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        writer = LedgerWriter(ledger)
        writer.start()

        async def one(name: str) -> None:
            await writer.written(call(name, status=CallStatus.OPEN), [attempt(name, outcome=OutcomeKind.OPEN)])
            await writer.written(call(name), [attempt(name)])

        await asyncio.gather(*(one(f"call-{k}") for k in range(1000)))
        assert writer.waiting == 0
        writer.close()
        ((_, totals),) = ledger.totals([])
        assert (totals.calls, totals.answered_calls, totals.attempts, totals.open_attempts) == (1000, 1000, 1000, 0)
        assert totals.cost_nanousd == 1000 * (attempt().cost_nanousd or 0)


async def test_closing_writes_what_was_only_put(tmp_path: Path) -> None:
    """Nothing waits for `put`, and nothing of it is lost."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        writer = LedgerWriter(ledger)
        writer.start()
        for k in range(50):
            writer.put(call(f"call-{k}"), [attempt(f"call-{k}")])
        writer.close()
        assert len(list(ledger.calls())) == 50


async def test_a_locked_ledger_holds_nobody_up_for_good(tmp_path: Path) -> None:
    """Records go to the spool, are acknowledged, and are folded in later."""
    path = tmp_path / "ledger.db"
    told: list[str] = []
    with Ledger(path) as first:
        first.record(call("before"), [attempt("before")])
    locker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sqlite3,sys; c=sqlite3.connect({str(path)!r}, isolation_level=None); "
            "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.readline(); c.execute('ROLLBACK')",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert locker.stdout is not None
    assert locker.stdin is not None
    locker.stdout.readline()
    with Ledger(path, busy_timeout_ms=50, on_problem=told.append) as ledger:
        writer = LedgerWriter(ledger)
        writer.start()
        await writer.written(call("during"), [attempt("during")])
        assert told
        locker.stdin.write("\n")
        locker.stdin.close()
        locker.wait()
        await writer.written(call("after"), [attempt("after")])
        writer.close()
        assert {stored.call.call_id for stored in ledger.calls()} == {"before", "during", "after"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """Every record whose write was awaited is there after the process was killed."""
    script = textwrap.dedent(
        f"""
        import asyncio
        from tests.ledger.records import attempt, call
        from tierwise.ledger import Ledger
        from tierwise.ledger.writer import LedgerWriter

        async def main():
            writer = LedgerWriter(Ledger({str(tmp_path / "ledger.db")!r}))
            writer.start()
            async def one(k):
                while True:
                    name = f"call-{{k}}"
                    await writer.written(call(name), [attempt(name)])
                    print(name, flush=True)
                    k += 8
            await asyncio.gather(*(one(k) for k in range(8)))
        asyncio.run(main())
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.wait()
    with Ledger(tmp_path / "ledger.db") as ledger:
        there = [stored.call.call_id for stored in ledger.calls()]
    assert len(there) == len(set(there))
    assert set(acknowledged) <= set(there)
