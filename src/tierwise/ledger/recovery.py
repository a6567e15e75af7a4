"""Saving what can be read of a damaged ledger.

The damaged file is copied aside first and never written to. What can be read is read from a scratch copy: as SQLite
reads it, and then page by page (`tierwise.ledger.pages`) for what SQLite no longer finds. All of it goes through the
ordinary way of writing into a fresh file, so that its roll-up is right, and only a complete fresh file takes the
place of the old one.

Keys and budgets are kept as far as SQLite still reads them, and so are the sums of calls that were pruned. They are
not looked for in pages: an older state of one might bring a key back that was revoked.

Stop other processes that use the ledger first: they may hold the old file open.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tierwise.core.decisions import AttemptRecord
from tierwise.core.errors import LedgerTooNew, LedgerUnavailable
from tierwise.core.money import Price
from tierwise.ledger import codec
from tierwise.ledger.budgets import rebuild_state
from tierwise.ledger.connection import connect_read_only, open_database, transaction_failed
from tierwise.ledger.feedback import FEEDBACK_COLUMNS, feedback_from_row
from tierwise.ledger.folding import DAY, gather_before, make_weeks
from tierwise.ledger.pages import rows_on_pages
from tierwise.ledger.rollup import MS_PER_HOUR
from tierwise.ledger.schema import APPLICATION_ID, LATEST
from tierwise.ledger.store import Ledger

__all__ = ["RecoveryReport", "recover"]

_BATCH = 500


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What was saved, and where the old file is."""

    calls: int
    attempts: int
    unreadable_rows: int  # seen, and not fit to be read as a record
    kept_as: Path  # the damaged file, untouched
    problems: tuple[str, ...]  # what SQLite said on the way

    def __str__(self) -> str:
        return (
            f"saved {self.calls} calls and {self.attempts} attempts; {self.unreadable_rows} rows could not be read; "
            f"the damaged file is kept as {self.kept_as}"
        )


def recover(path: str | os.PathLike[str], *, now_ms: int | None = None) -> RecoveryReport:
    """Put a fresh ledger with every readable row in the place of a damaged one.

    Raises:
        LedgerUnavailable: there is no such file, or its directory cannot be written.
        LedgerTooNew: a newer tierwise has written it; it is not damaged.
    """
    import tempfile  # noqa: PLC0415 importing the ledger stays cheap; only the doctor recovers

    ledger = Path(path).expanduser()
    if not ledger.is_file():
        raise LedgerUnavailable(f"there is no ledger at {ledger} to recover; check the path in tierwise.toml")
    _refuse_newer(ledger)
    stamp = time.strftime(
        "%Y%m%dT%H%M%S", time.gmtime((time.time_ns() // 1_000_000 if now_ms is None else now_ms) / 1000)
    )
    try:
        kept = _keep(ledger, stamp)
        with tempfile.TemporaryDirectory(prefix=f".{ledger.name}.recover-", dir=ledger.parent) as scratch:
            fresh = Path(scratch) / ledger.name
            problems: list[str] = []
            calls, attempts, unreadable = _copy_rows(ledger, Path(scratch) / "damaged", fresh, problems)
            for suffix in ("-wal", "-shm"):  # would be applied to the fresh file, or hide it
                Path(f"{ledger}{suffix}").unlink(missing_ok=True)
            fresh.replace(ledger)
    except OSError as error:
        raise LedgerUnavailable(
            f"the ledger {ledger} cannot be recovered ({error}); check free space and permissions"
        ) from error
    return RecoveryReport(calls, attempts, unreadable, kept, tuple(dict.fromkeys(problems)))


def _refuse_newer(ledger: Path) -> None:
    with suppress(sqlite3.Error):
        connection = connect_read_only(ledger, 1000)
        try:
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        finally:
            connection.close()
        if owner == APPLICATION_ID and version > LATEST:
            raise LedgerTooNew(f"the ledger {ledger} was written by a newer tierwise; upgrade to recover it")


def _keep(ledger: Path, stamp: str) -> Path:
    import shutil  # noqa: PLC0415 as above

    kept = ledger.with_name(f"{ledger.name}.corrupt-{stamp}")
    count = 1
    while kept.exists():
        count += 1
        kept = ledger.with_name(f"{ledger.name}.corrupt-{stamp}-{count}")
    for suffix in ("-wal", ""):
        source = Path(f"{ledger}{suffix}")
        if source.exists():
            shutil.copy2(source, f"{kept}{suffix}")
    return kept


def _copy_rows(ledger: Path, damaged: Path, fresh: Path, problems: list[str]) -> tuple[int, int, int]:
    import shutil  # noqa: PLC0415 as above

    for suffix in ("-wal", ""):
        if Path(f"{ledger}{suffix}").exists():
            shutil.copyfile(f"{ledger}{suffix}", f"{damaged}{suffix}")
    found = _salvage(damaged, problems)
    prices: dict[str, Price] = {}
    for digest, _, text in found["prices"].values():
        with suppress(ValueError, KeyError, TypeError, ArithmeticError):
            prices[digest] = codec.price_from_text(text)
    unreadable = 0
    attempts: dict[str, list[AttemptRecord]] = {}
    for row in found["attempts"].values():
        try:
            attempts.setdefault(row[0], []).append(codec.attempt_from_row(row, prices.get(row[16])))
        except (ValueError, TypeError, IndexError):
            unreadable += 1
    entries: list[codec.Entry] = []
    for row in found["calls"].values():
        try:
            call = codec.call_from_row(row)
        except (ValueError, TypeError, IndexError, AttributeError):
            unreadable += 1
        else:
            text = found["captured"].get(call.call_id)
            call = replace(call, captured_text=None if text is None else text[2])
            entries.append((call, tuple(attempts.pop(call.call_id, ()))))
    entries.extend((None, tuple(alone)) for alone in attempts.values())
    with Ledger(fresh, spool_dirs=(), on_problem=problems.append) as target:
        for start in range(0, len(entries), _BATCH):
            target.write_entries(entries[start : start + _BATCH])
        if not target.healthy:
            raise OSError(target.problem)
        unreadable += _copy_feedback(target, found["feedback"].values())
    connection = open_database(fresh, synchronous="full", busy_timeout_ms=1000)
    _copy_access(damaged, connection, problems)
    _copy_pruned(damaged, connection, problems)
    # Back into one file: the -wal would be left behind.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return len(entries), sum(len(e[1]) for e in entries), unreadable


def _copy_access(damaged: Path, target: sqlite3.Connection, problems: list[str]) -> None:
    """Keys, budgets, claims and batches, as far as they can be read."""
    source = sqlite3.connect(damaged, isolation_level=None)
    target.execute("BEGIN IMMEDIATE")
    try:
        for table in ("api_keys", "budgets", "reservations", "claimed_sessions", "batches"):
            names = [row[1] for row in target.execute(f"PRAGMA table_info({table})")]
            put = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})"  # noqa: S608 names of the schema
            try:
                for row in source.execute(f"SELECT {', '.join(names)} FROM {table}"):  # noqa: S608 as above
                    with suppress(sqlite3.IntegrityError):
                        target.execute(put, row)
            except (sqlite3.Error, UnicodeError) as error:
                if "no such table" not in str(error):  # a ledger from before there were any
                    problems.append(f"{table}: {error}")
        rebuild_state(target)
        target.execute("COMMIT")
    finally:
        source.close()


def _copy_pruned(damaged: Path, target: sqlite3.Connection, problems: list[str]) -> None:
    """The sums of the time of which calls were pruned: no row tells them any more."""
    source = sqlite3.connect(damaged, isolation_level=None)
    try:
        pruned_before_ms, hours_since = source.execute(
            "SELECT pruned_before_ms, hours_since FROM rollup_state"
        ).fetchone() or (0, 0)
        gather_before(target, pruned_before_ms)  # calls of that time are in the sums that are copied
        target.execute("BEGIN IMMEDIATE")
        if pruned_before_ms:
            hour = pruned_before_ms // MS_PER_HOUR
            for table, chosen in (("rollup", f"hour < ? AND span_hours <= {DAY}"), ("rollup_recent", "hour < ?")):
                target.execute(f"DELETE FROM {table} WHERE hour < ?", (hour,))  # noqa: S608 names of the schema
                for row in source.execute(f"SELECT * FROM {table} WHERE {chosen}", (hour,)):  # noqa: S608 as above
                    target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 as above
            make_weeks(target, hour)
            target.execute(
                "UPDATE rollup_state SET pruned_before_ms = ?, hours_since = max(hours_since, ?)",
                (pruned_before_ms, hours_since),
            )
        target.execute("COMMIT")
    except (sqlite3.Error, UnicodeError) as error:
        transaction_failed(target)
        if "no such table" not in str(error):  # a ledger from before there was any
            problems.append(f"sums of pruned calls: {error}")
    finally:
        source.close()


def _copy_feedback(target: Ledger, rows: Iterable[Sequence[Any]]) -> int:
    """Writes what was said of calls; how many rows say nothing that is known."""
    unreadable = 0
    for row in rows:
        try:
            said = feedback_from_row(row)
        except ValueError:
            unreadable += 1
        else:
            target.give_feedback(said)
    return unreadable


# What a cell of each column may be: Text, Integer, Real; a small letter where it may be empty.
_SHAPES = {
    "prices": "TTT",
    "calls": "TITTTTRITTTTiittTTtttttt",
    "attempts": "TITTTITTIIIIIIIItiiiItti",
    "feedback": "TIttT",
    "captured": "TIT",
}
_ADDED = {"calls": 4, "attempts": 1}  # columns that rows of older ledgers end without
_KINDS: dict[str, type | tuple[type, ...]] = {"T": str, "I": int, "R": (int, float)}


def _table_of(row: Sequence[object]) -> str | None:
    """Which table a row without a name is of: they differ in the number of columns and in what these hold."""
    for table, shape in _SHAPES.items():
        if 0 <= len(shape) - len(row) <= _ADDED.get(table, 0) and all(
            (value is None and kind.islower()) or isinstance(value, _KINDS[kind.upper()])
            for value, kind in zip(row, shape, strict=False)
        ):
            return table
    return None


def _salvage(damaged: Path, problems: list[str]) -> dict[str, dict[Any, Sequence[Any]]]:
    """Rows by key and table, as far as they can be read."""
    columns = {
        "prices": ("digest", "model", "price"),
        "calls": codec.CALL_COLUMNS,
        "attempts": codec.ATTEMPT_COLUMNS,
        "feedback": FEEDBACK_COLUMNS,
        "captured": ("call_id", "at_ms", "text"),
    }
    found: dict[str, dict[Any, Sequence[Any]]] = {name: {} for name in columns}
    log = Path(f"{damaged}-wal")
    pages, log_pages = damaged.read_bytes(), log.read_bytes() if log.exists() else b""
    connection = sqlite3.connect(damaged, isolation_level=None)
    try:
        for table, names in columns.items():
            try:
                there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")} or {*names}
                cells = [name if name in there else "NULL" for name in names]  # what an older ledger does not have
                for row in connection.execute(f"SELECT {', '.join(cells)} FROM {table}"):  # noqa: S608 names out of this module
                    if _table_of(row) == table:
                        found[table][_key(table, row)] = row
            except (sqlite3.Error, UnicodeError) as error:
                if table in {"feedback", "captured"} and str(error).startswith("no such table"):
                    continue  # a ledger from before there was any
                problems.append(f"{table}: {error}")
    finally:
        connection.close()
    if problems:
        for row in rows_on_pages(pages, log_pages):
            name = _table_of(row)
            if name is not None:
                padded = (*row, *[None] * (len(columns[name]) - len(row)))
                old = found[name].setdefault(_key(name, row), padded)
                state = {"calls": 2, "attempts": 6}.get(name, 0)
                if old[state] == "open" != row[state]:
                    found[name][_key(name, row)] = padded  # an older state of the page had it still open
    return found


def _key(table: str, row: Sequence[Any]) -> Any:
    return (row[0], row[1]) if table == "attempts" else row[0]
