"""Opening the database: permissions, pragmas, migrations, and what to say when it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tierwise.core.errors import LedgerCorrupt, LedgerError, LedgerTooNew, LedgerUnavailable
from tierwise.ledger import codec, counts
from tierwise.ledger.folding import begin_anew, make_weeks, summed_calls
from tierwise.ledger.rollup import MS_PER_HOUR
from tierwise.ledger.schema import APPLICATION_ID, MIGRATIONS, Migration

__all__ = ["connect_for_sums", "connect_read_only", "explain", "open_database", "transaction_failed"]

# Opening and closing a file drops every POSIX lock that this process holds on it, SQLite's included. So the file is
# created under this lock, and only when it does not exist, before any connection to it.
_creating = threading.Lock()
_CHECKPOINT_PAGES = 16_000  # 64 MB of log: a long-running writer moves it long before that (`Ledger.checkpoint`)


def explain(error: sqlite3.Error | OSError, path: Path) -> LedgerError:
    """The error of ours that an error of SQLite's or the system's stands for: what, where, what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return LedgerCorrupt(
            f"the ledger {path} is damaged or not a database ({error}); run `tierwise doctor --recover` to save what "
            "can be read into a fresh one, or move the file aside"
        )
    if path.is_dir():
        return LedgerUnavailable(f"the ledger's path {path} is a directory; name a file in it in tierwise.toml")
    todo = {
        sqlite3.SQLITE_BUSY: "another process is writing; it is tried again with the next record",
        sqlite3.SQLITE_LOCKED: "another process is writing; it is tried again with the next record",
        sqlite3.SQLITE_FULL: "the disk is full; free some space",
        sqlite3.SQLITE_READONLY: "it cannot be written; check the permissions of the file and its directory",
        sqlite3.SQLITE_PERM: "it cannot be opened; check the permissions of the file and its directory",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the permissions of the file and its directory",
        sqlite3.SQLITE_IOERR: "the disk reports an error; check free space and the disk's health",
    }.get(primary if primary is not None else -1, "check the path, its permissions and the free space")
    return LedgerUnavailable(f"the ledger {path} cannot be used now ({error}): {todo}")


def transaction_failed(connection: sqlite3.Connection) -> None:
    """Leave no transaction open behind a failure."""
    if connection.in_transaction:
        connection.rollback()


def _create(path: Path) -> None:
    with _creating:
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # SQLite gives -wal and -shm the same
        except FileExistsError:
            return


def open_database(
    path: Path, *, synchronous: str, busy_timeout_ms: int, migrations: Sequence[Migration] = MIGRATIONS
) -> sqlite3.Connection:
    """A connection for writing to an up-to-date ledger, which is created where there is none.

    Raises:
        LedgerCorrupt: not a database, or damaged.
        LedgerTooNew: a newer tierwise has written it.
        LedgerUnavailable: locked, full disk, no permission, a directory, another program's database.
    """
    if sqlite3.sqlite_version_info < (3, 37):
        raise LedgerUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; tierwise needs 3.37 or newer")
    connection: sqlite3.Connection | None = None
    try:
        _create(path)
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=busy_timeout_ms / 1000, cached_statements=64
        )
        counts.register(connection)
        connection.create_function("cache_saved_nanousd", 5, codec.cache_saved_nanousd, deterministic=True)
        _check_owner(connection, path, migrations)
        _set_up(connection, synchronous, busy_timeout_ms)
        _migrate(connection, path, migrations)
    except (sqlite3.Error, OSError) as error:
        if connection is not None:
            connection.close()
        raise explain(error, path) from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _has_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _check_owner(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    version = _number(connection, "user_version")
    if _number(connection, "application_id") == APPLICATION_ID:
        latest = migrations[-1].number
        if version > latest:
            raise LedgerTooNew(
                f"the ledger {path} has schema {version}, and this tierwise knows up to {latest}: a newer version "
                "wrote it; upgrade tierwise, or name another file in tierwise.toml"
            )
    elif (version or _has_tables(connection)) and _number(connection, "application_id") != APPLICATION_ID:
        # Asked again: another process may have made it a ledger since the first time.
        raise LedgerUnavailable(
            f"{path} is a database of another program; name another file for the ledger in tierwise.toml"
        )


def _set_up(connection: sqlite3.Connection, synchronous: str, busy_timeout_ms: int) -> None:
    # Two processes that switch a new file to WAL at once get "locked" without SQLite waiting its busy timeout.
    deadline = time.monotonic() + busy_timeout_ms / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    _set_durability(connection, synchronous)


def _set_durability(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute(f"PRAGMA synchronous = {'FULL' if synchronous == 'full' else 'NORMAL'}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute("PRAGMA journal_size_limit = 67108864")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    if _number(connection, "user_version") >= migrations[-1].number:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _check_owner(connection, path, migrations)  # another process may have been here before the lock
        missing = [m for m in migrations if m.number > _number(connection, "user_version")]
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations ("
            "number INTEGER NOT NULL PRIMARY KEY, why TEXT NOT NULL, applied_at_ms INTEGER NOT NULL) STRICT"
        )
        for migration in missing:
            for statement in migration.sql:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migrations (number, why, applied_at_ms) VALUES (?, ?, ?)",
                (migration.number, migration.why, time.time_ns() // 1_000_000),
            )
        if any(m.rebuild for m in missing) and migrations[-1].number == MIGRATIONS[-1].number:
            make_weeks(connection, summed_calls(connection).pruned_before_ms // MS_PER_HOUR)
            begin_anew(connection)
        if missing:
            connection.execute(f"PRAGMA user_version = {missing[-1].number}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        transaction_failed(connection)
        raise


def connect_for_sums(path: Path, *, synchronous: str, busy_timeout_ms: int) -> sqlite3.Connection:
    """A connection for writing to a ledger that is up to date, for what takes long beside the ordinary one.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    uri = path.absolute().as_uri() + "?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=busy_timeout_ms / 1000
    )
    counts.register(connection)
    _set_durability(connection, synchronous)
    connection.execute("PRAGMA cache_size = -16000")  # a day of a busy ledger
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def connect_read_only(path: Path, busy_timeout_ms: int) -> sqlite3.Connection:
    """A connection that cannot write.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    uri = path.absolute().as_uri() + "?mode=ro"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=busy_timeout_ms / 1000
    )
    counts.register(connection)
    return connection
