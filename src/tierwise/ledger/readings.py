"""What importers have read of other programs' files, and what was worked out of it: a cache beside the ledger.

It holds numbers and names (of models, tools, sessions, task types), never text of a prompt or a reply. What it holds is
bytes to it: importers know their own format, and a row that another format or another classifier made (`reader`) is not
found. Everything in it can be had again by reading the files, so it is thrown away rather than repaired: a file that is
damaged, of another schema or not a database is replaced. A transaction writes several files' rows at once; a process
that is killed loses at most what it has not handed over.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tierwise.core.errors import LedgerUnavailable
from tierwise.ledger.connection import transaction_failed

__all__ = ["FileMark", "FileReading", "Readings"]

_APPLICATION_ID = 0x74777264  # "twrd"
_SCHEMA = 1
_BUSY_TIMEOUT_SECONDS = 10
_RESULTS_AT_ONCE = 500
_RESULTS_PER_SESSION = 4  # under different policies, prices or versions
_TABLES = (
    """
    CREATE TABLE files (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,     -- the importer
        path BLOB NOT NULL,       -- as the system spells it
        reader TEXT NOT NULL,     -- format and classifier that made the row
        inode TEXT NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        offset INTEGER NOT NULL,  -- up to where it was read
        line INTEGER NOT NULL,    -- lines before that
        head BLOB NOT NULL,       -- hash of its first bytes
        tail BLOB NOT NULL,       -- hash of the last ones before the offset
        summary BLOB NOT NULL,    -- what must be known of it without reading its calls
        UNIQUE (source, path)
    ) STRICT
    """,
    """
    CREATE TABLE bodies (
        file INTEGER PRIMARY KEY REFERENCES files (id) ON DELETE CASCADE,
        calls BLOB NOT NULL,
        state BLOB NOT NULL       -- of the parser at the offset
    ) STRICT
    """,
    """
    CREATE TABLE results (
        session TEXT NOT NULL,
        digest TEXT NOT NULL,     -- of its calls, and of what they were seen under
        result BLOB NOT NULL,
        PRIMARY KEY (session, digest)
    ) STRICT, WITHOUT ROWID
    """,
)


class FileMark(NamedTuple):
    """Which file it was, and how far it was read: enough to see whether it is the same, grew, or was rewritten."""

    inode: str
    size: int
    mtime_ns: int
    offset: int
    line: int
    head: bytes
    tail: bytes


class FileReading(NamedTuple):
    """What was read of a file. `calls` and `state` are None where only the summary was asked for."""

    path: str
    mark: FileMark
    summary: bytes
    calls: bytes | None = None
    state: bytes | None = None


class Readings:
    """The cache. For one thread; several processes may share the file.

    Raises:
        LedgerUnavailable: it cannot be opened or written: locked, full disk, no permission.
    """

    def __init__(self, path: Path | None) -> None:
        """`path` None: a private one on the disk's temporary space, gone when it is closed."""
        self.path = path
        try:
            self._connection = _opened(path)
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Twice does no harm."""
        self._connection.close()

    def files(self, source: str, reader: str) -> Iterator[FileReading]:
        """All files that this reader has read for the importer, with their summaries alone."""
        with self._reported():
            for path, *mark, summary in self._connection.execute(
                "SELECT path, inode, size, mtime_ns, offset, line, head, tail, summary FROM files "
                "WHERE source = ? AND reader = ? ORDER BY id",
                (source, reader),
            ):
                yield FileReading(os.fsdecode(path), FileMark(*mark), summary)

    def file(self, source: str, reader: str, path: str) -> FileReading | None:
        """All that is remembered of a file."""
        with self._reported():
            row = self._connection.execute(
                "SELECT path, inode, size, mtime_ns, offset, line, head, tail, summary, calls, state "
                "FROM files JOIN bodies ON bodies.file = files.id WHERE source = ? AND path = ? AND reader = ?",
                (source, os.fsencode(path), reader),
            ).fetchone()
        if row is None:
            return None
        name, *mark, summary, calls, state = row
        return FileReading(os.fsdecode(name), FileMark(*mark), summary, calls, state)

    def put_files(self, source: str, reader: str, readings: Iterable[FileReading]) -> None:
        """Remember these whole readings, in one transaction, in place of what was known of the same files."""
        with self._writing():
            for reading in readings:
                mark = reading.mark
                (file,) = self._connection.execute(
                    "INSERT INTO files "
                    "(source, path, reader, inode, size, mtime_ns, offset, line, head, tail, summary) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, path) DO UPDATE SET "
                    "reader = excluded.reader, inode = excluded.inode, size = excluded.size, "
                    "mtime_ns = excluded.mtime_ns, offset = excluded.offset, line = excluded.line, "
                    "head = excluded.head, tail = excluded.tail, summary = excluded.summary RETURNING id",
                    (
                        source,
                        os.fsencode(reading.path),
                        reader,
                        mark.inode,
                        mark.size,
                        mark.mtime_ns,
                        mark.offset,
                        mark.line,
                        mark.head,
                        mark.tail,
                        reading.summary,
                    ),
                ).fetchone()
                self._connection.execute(
                    "INSERT INTO bodies (file, calls, state) VALUES (?, ?, ?) "
                    "ON CONFLICT (file) DO UPDATE SET calls = excluded.calls, state = excluded.state",
                    (file, reading.calls or b"", reading.state or b""),
                )

    def forget_files(self, source: str, paths: Iterable[str]) -> None:
        """Files that are gone."""
        with self._writing():
            self._connection.executemany(
                "DELETE FROM files WHERE source = ? AND path = ?", [(source, os.fsencode(path)) for path in paths]
            )

    def result(self, session: str, digest: str) -> bytes | None:
        """What was worked out of a session whose calls, and all else that `digest` covers, have not changed."""
        return self.results([(session, digest)]).get((session, digest))

    def results(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        """What was worked out of these sessions (session, digest), as far as it is known."""
        found = {}
        with self._reported():
            for begin in range(0, len(wanted), _RESULTS_AT_ONCE):
                # In the order in which they lie in the file.
                some = sorted(wanted[begin : begin + _RESULTS_AT_ONCE])
                places = ", ".join(["(?, ?)"] * len(some))
                for session, digest, result in self._connection.execute(
                    f"WITH wanted (session, digest) AS (VALUES {places}) "  # noqa: S608  places alone
                    "SELECT session, digest, result FROM wanted CROSS JOIN results USING (session, digest)",
                    [text for pair in some for text in pair],
                ):
                    found[session, digest] = result
        return found

    def put_results(self, results: Iterable[tuple[str, str, bytes]]) -> None:
        """Remember results (session, digest, bytes), in one transaction. Of a session a few are kept."""
        with self._writing():
            for session, digest, result in results:
                self._connection.execute(
                    "INSERT INTO results (session, digest, result) VALUES (?, ?, ?) "
                    "ON CONFLICT (session, digest) DO UPDATE SET result = excluded.result",
                    (session, digest, result),
                )
                others = self._connection.execute(
                    "SELECT digest FROM results WHERE session = ? AND digest <> ?", (session, digest)
                ).fetchall()
                # Which of them are the older ones is not kept: the surplus is rare, and can be worked out again.
                for (surplus,) in others[_RESULTS_PER_SESSION - 1 :]:
                    self._connection.execute("DELETE FROM results WHERE session = ? AND digest = ?", (session, surplus))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._reported():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                transaction_failed(self._connection)
                raise

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: sqlite3.Error | OSError) -> LedgerUnavailable:
        where = self.path or "in the temporary directory"
        if "locked" in str(error):
            mend = "another program has it open, and writes to it for long"
        else:
            mend = "check its permissions and the free space, or delete it: it is made anew from the files"
        return LedgerUnavailable(f"the cache of what was read, {where}, cannot be used now ({error}); {mend}")


def _opened(path: Path | None) -> sqlite3.Connection:
    if path is None:
        return _ready(sqlite3.connect("", isolation_level=None))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for _ in range(2):
        if not path.exists():
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_TIMEOUT_SECONDS)
        try:
            return _ready(connection)
        except _Unusable:
            connection.close()
        except sqlite3.DatabaseError as error:
            connection.close()
            code = getattr(error, "sqlite_errorcode", 0)  # errors of our own have none
            if code & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
        except BaseException:
            connection.close()
            raise
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    raise sqlite3.OperationalError("another process keeps writing another format")


class _Unusable(Exception):
    """A cache of another schema."""


def _ready(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, with its tables, which are made where there are none."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")  # what a power cut damages is made anew
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("BEGIN IMMEDIATE")
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        if (application, schema) != (_APPLICATION_ID, _SCHEMA):
            if application == _APPLICATION_ID:
                raise _Unusable
            if application or schema or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise sqlite3.OperationalError("it is a database of another program")
            for table in _TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        transaction_failed(connection)
        raise
    return connection
