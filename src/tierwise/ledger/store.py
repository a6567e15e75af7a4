"""The ledger: every call and every attempt, written down before anybody can forget it.

Theory of operation
-------------------
Everything that is written is an *entry*: a call, some of its attempts, or both. Entries may be applied again, and out
of order, and nothing is ever counted twice (`tierwise.ledger.merging`). That one property carries the rest: retries,
spools, crashes between two steps, several processes.

What is acknowledged is in the database, or on the disk in a spool, or (when no disk takes it) in memory and at the
end on stderr. Writers never raise because of the ledger's own trouble: a call that worked must not fail because its
record has to wait. `healthy` and `problem` tell, and `on_problem` is called once for each kind of trouble.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, get_args

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus
from tierwise.core.errors import LedgerCorrupt, LedgerError, LedgerTooNew, LedgerUnavailable
from tierwise.ledger import codec
from tierwise.ledger.budgets import settle_what_is_left
from tierwise.ledger.codec import Entry
from tierwise.ledger.connection import (
    connect_for_sums,
    connect_read_only,
    explain,
    open_database,
    transaction_failed,
)
from tierwise.ledger.feedback import FEEDBACK_COLUMNS, Feedback, FeedbackCounts, feedback_row
from tierwise.ledger.filter import Dimension, Filter, condition
from tierwise.ledger.folding import (
    MOST_BEYOND,
    Extended,
    begin_anew,
    extend,
    fold,
    gather,
    summed_calls,
    wants_folding,
    wants_gathering,
)
from tierwise.ledger.merging import SELECT_CALL, Merging
from tierwise.ledger.process import is_alive, this_process
from tierwise.ledger.rollup import Totals
from tierwise.ledger.schema import LATEST
from tierwise.ledger.spool import append_line, candidate_paths, claim, default_spool_dirs, spool_files
from tierwise.ledger.stored import Reading, StoredCall, read_calls
from tierwise.ledger.sums import is_whole, read_sums, scan_sums

if TYPE_CHECKING:
    from tierwise.core.settings import LedgerSettings

__all__ = ["Abandoned", "Dimension", "Filter", "Ledger", "ModelSpeed", "StoredCall"]

_REPLACE_TEXT = "INSERT OR REPLACE INTO captured (call_id, at_ms, text) VALUES (?, ?, ?)"
_PUT_FEEDBACK = (
    f"INSERT OR REPLACE INTO feedback ({', '.join(FEEDBACK_COLUMNS)}) "  # noqa: S608 column names only
    f"VALUES ({', '.join('?' for _ in FEEDBACK_COLUMNS)})"
)
_IMPATIENT_MS = 50  # while there is trouble, a writer does not wait the whole busy timeout for each record
_EXTENDED_FIRST = 2_000  # calls that the roll-up takes in at once, before it is known how long that takes
_PIECES_AT_OPENING = 4
EVER_MS = 2**62  # no call begins later

# What a record itself is to blame for: no other time or place would take it.
_UNFIT = (
    OverflowError,
    TypeError,
    ValueError,  # UnicodeError is one
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)
_INHERITED: list[sqlite3.Connection] = []  # of the parent process: must be neither used nor closed here


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A call whose process ended in the middle: an open attempt may have been charged."""

    call: CallRecord
    attempts: tuple[AttemptRecord, ...]


class ModelSpeed(NamedTuple):
    """Measured tokens a second of a model, None where nothing tells; `samples` accepted attempts so far."""

    prompt_tokens_per_second: float | None
    output_tokens_per_second: float | None
    samples: int


class _Waiting:
    """Entries that no disk would take. Apart from the ledger so that they outlive it, up to the process's end."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def dump(self) -> None:
        """The last resort: on stderr, as lines that can be put into a spool by hand."""
        entries, self.entries = self.entries, []
        for entry in entries:
            _print(codec.entry_to_line(entry))


def _print(line: str) -> None:
    """On stderr, if there is one: nothing that happens here may reach a call."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # a closed pipe, a closed file
            print(line, file=sys.stderr, flush=True)


def _to_stderr(message: str) -> None:
    _print(f"tierwise: {message}")


_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _after_fork() -> None:
    for ledger in list(_ledgers):
        ledger._forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Ledger:
    """The record of all calls, in one SQLite file that several processes and threads may use at once.

    `synchronous="normal"` loses nothing when a process is killed, and may lose the last moments on a power cut;
    `"full"` does not, at about a tenth of the speed. Nothing is opened before it is needed.

    Args:
        path: the database; made, with its directories, readable by this user only.
        busy_timeout_ms: how long a write waits for another process before the record goes to the spool.
        on_problem: called with a sentence when records have to wait, once for each kind of trouble; must not raise.
        spool_dirs: where to spool when the ledger's own directory cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: str = "normal",
        busy_timeout_ms: int = 5000,
        on_problem: Callable[[str], None] = _to_stderr,
        spool_dirs: Sequence[Path] | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        if synchronous not in {"normal", "full"}:
            raise ValueError(f"unknown synchronous {synchronous!r}; use normal or full")
        self.path = Path(path).expanduser()
        if "\0" in os.fspath(self.path):
            raise ValueError(f"the ledger's path {os.fspath(self.path)!r} holds a zero byte; name another file")
        self._synchronous = synchronous
        self._busy_timeout_ms = busy_timeout_ms
        self._on_problem = on_problem
        self._spool_dirs = default_spool_dirs() if spool_dirs is None else tuple(spool_dirs)
        self._clock_ms = clock_ms
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)  # device and inode of what is open
        self._writer: str | None = None
        self._waits_ms = busy_timeout_ms  # what the connection is set to
        self._merging = Merging(lambda: self._this_writer)
        self._problem: str | None = None
        self._problem_kind: type[LedgerError] = LedgerUnavailable
        self._told: set[str] = set()
        self._diverted = False
        self._waiting = _Waiting()
        self._at_exit = weakref.finalize(self, self._waiting.dump)
        _ledgers.add(self)

    @classmethod
    def of(cls, settings: LedgerSettings) -> Self:
        """The ledger that is configured. Nothing is opened yet."""
        return cls(settings.path, synchronous=settings.synchronous, busy_timeout_ms=settings.busy_timeout_ms)

    def _forget_parent(self) -> None:
        self._lock = threading.RLock()
        if self._connection is not None:
            _INHERITED.append(self._connection)
            self._connection = None
        self._writer = None
        self._merging.forget()
        self._waiting.entries = []  # the parent's to write

    # Opening and closing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def open(self) -> None:
        """Open now, create or migrate as needed, and fold in what waits in spools.

        Raises:
            LedgerCorrupt, LedgerTooNew, LedgerUnavailable: with what to do.
        """
        with self._lock:
            self._open()

    def close(self) -> None:
        """Write what still waits, and close. A later use opens it again."""
        with self._lock:
            if self._diverted or self._waiting.entries:
                with suppress(LedgerError, sqlite3.Error, OSError):
                    self._catch_up(self._open())
            self._waiting.dump()
            self._drop_connection()

    @property
    def healthy(self) -> bool:
        """Whether the last write reached the database and nothing waits."""
        return self._problem is None

    @property
    def problem(self) -> str | None:
        """Why records wait outside the database, in a sentence; None when they do not."""
        return self._problem

    @property
    def problem_kind(self) -> str | None:
        """The same in a word or two, which say nothing of where the database is."""
        if self._problem is None:
            return None
        return {LedgerCorrupt: "damaged", LedgerTooNew: "too new"}.get(self._problem_kind, "unavailable")

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _in_place(self) -> bool:
        """Whether the file that is open is still the one at our path."""
        try:
            info = os.stat(self.path)  # noqa: PTH116 a microsecond less on every write
        except OSError:
            return False
        return (info.st_dev, info.st_ino) == self._file

    def _open(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is not None:
            if self._in_place():
                if self._waits_ms == 0:
                    self._wait_up_to(connection, self._busy_timeout_ms)
                return connection
            # Moved, removed or recovered under us: what is written to the old file would be lost with it.
            self._drop_connection()
        self._merging.forget()
        connection = open_database(self.path, synchronous=self._synchronous, busy_timeout_ms=self._busy_timeout_ms)
        try:
            info = os.stat(self.path)  # noqa: PTH116 as above
            self._file = (info.st_dev, info.st_ino)
            self._connection, self._waits_ms = connection, self._busy_timeout_ms
            self._bury_the_dead(connection)
            self._catch_up(connection)
            self._sum_up(connection)
            settle_what_is_left(connection, self._clock_ms())  # after the spools: they may tell what a call cost
        except (sqlite3.Error, OSError) as error:
            self._drop_connection()
            raise explain(error, self.path) from error
        return connection

    def _wait_up_to(self, connection: sqlite3.Connection, milliseconds: int) -> None:
        """How long a statement waits for another process."""
        if self._waits_ms != milliseconds:
            connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._waits_ms = milliseconds

    # Writing

    def begin(self, call: CallRecord) -> None:
        """Note a call before anything is sent for it."""
        self._write((call, ()))

    def attempt_started(self, attempt: AttemptRecord) -> None:
        """Note an attempt before its request leaves: whatever happens then, it is known that money may be spent."""
        self._write((None, (attempt,)))

    def attempt_finished(self, attempt: AttemptRecord) -> None:
        """Note what became of an attempt."""
        self._write((None, (attempt,)))

    def finish(self, call: CallRecord) -> None:
        """Note how a call ended."""
        self._write((call, ()))

    def start(self, call: CallRecord, attempt: AttemptRecord) -> None:
        """`begin` and `attempt_started` in one transaction."""
        self._write((call, (attempt,)))

    def end(self, attempt: AttemptRecord, call: CallRecord) -> None:
        """`attempt_finished` and `finish` in one transaction."""
        self._write((call, (attempt,)))

    def record(self, call: CallRecord, attempts: Sequence[AttemptRecord]) -> None:
        """A whole call in one transaction."""
        self._write((call, tuple(attempts)))

    def record_many(self, calls: Sequence[tuple[CallRecord, Sequence[AttemptRecord]]]) -> None:
        """Many whole calls in one transaction: for importers."""
        self._write_all([(call, tuple(attempts)) for call, attempts in calls])

    def write_entries(self, entries: Sequence[Entry]) -> None:
        """Entries as a spool holds them, in one transaction: for recovery."""
        self._write_all(list(entries))

    def _write_from(self, entries: Callable[[sqlite3.Connection], Iterable[Entry]]) -> None:
        """Writes entries that depend on what is there: they are asked for within the transaction that writes them.

        Unlike records of calls they do not wait in a spool, where nobody could ask again.

        Raises:
            LedgerError: the ledger cannot be written; nothing was.
        """
        with self._lock:
            connection = self._open()
            try:
                self._merging.transact(connection, entries(connection))
            except (sqlite3.Error, OSError) as error:
                raise explain(error, self.path) from error

    def write_at_once(self, entries: Sequence[Entry]) -> bool:
        """Entries in one transaction, if that takes no waiting for another thread, process or a repair.

        For an event loop, which must not be held up. False: nothing was written, and `write_entries` may have to wait.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            connection = self._connection
            if connection is None or self._diverted or self._problem is not None or not self._in_place():
                return False
            try:
                self._wait_up_to(connection, 0)
                self._merging.transact(connection, entries)
            except (*_UNFIT, sqlite3.Error, OSError, LedgerError):
                return False  # undone; why, and what becomes of them, is found out by whoever may wait
            return True
        finally:
            self._lock.release()

    def checkpoint(self) -> None:
        """Moves what was written from the log into the database, on a connection of its own: nobody waits for it.

        Raises:
            LedgerError: it cannot be written.
        """
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=0)
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _write(self, entry: Entry) -> None:
        call, attempts = entry
        if call is None and not attempts:
            return
        self._write_all([entry])

    def _write_all(self, entries: list[Entry]) -> None:
        with self._lock:
            try:
                self._try_write(entries)
            except BaseException:
                # Ctrl-C in the middle: the record is rolled back, and the caller will not come again.
                self._try_write(entries)
                raise

    def _try_write(self, entries: list[Entry]) -> None:
        try:
            connection = self._open()
            self._merging.transact(connection, entries)
        except _UNFIT as error:
            self._write_unfit(entries, error)
        except LedgerError as error:
            self._divert(entries, error)
        except (sqlite3.Error, OSError) as error:
            self._failed(entries, error)
        else:
            if self._diverted or self._problem is not None:
                with suppress(LedgerError, sqlite3.Error, OSError):
                    self._catch_up(connection)
            if self._merging.not_gathered > MOST_BEYOND:
                with suppress(sqlite3.Error):  # the next write says what is wrong
                    self._take_in(connection)  # here, where the pages that were just written are at hand

    def _failed(self, entries: list[Entry], error: sqlite3.Error | OSError) -> None:
        explained = explain(error, self.path)
        if isinstance(explained, LedgerCorrupt):
            self._drop_connection()  # the next write looks again: the file may have been moved aside or recovered
        self._divert(entries, explained)

    def _write_unfit(self, entries: list[Entry], error: Exception) -> None:
        """Something in these records does not fit the tables: find it, mend what can be mended, keep the rest aside."""
        if len(entries) > 1:
            for entry in entries:
                self._try_write([entry])
            return
        try:
            self._mend(self._open(), entries[0], error)
        except LedgerError as trouble:
            self._divert(entries, trouble)
        except (sqlite3.Error, OSError) as trouble:
            self._failed(entries, trouble)

    def _mend(self, connection: sqlite3.Connection, entry: Entry, error: Exception) -> None:
        try:
            self._merging.transact(connection, [codec.printable_entry(entry)])
        except _UNFIT:
            self._set_aside(codec.entry_to_line(entry), f"a record does not fit the ledger ({error})")

    # When the database cannot be written

    def _tell(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._on_problem(message)

    def _divert(self, entries: Sequence[Entry], error: LedgerError) -> None:
        self._problem, self._problem_kind = str(error), type(error)
        if not self._diverted and self._connection is not None:
            with suppress(sqlite3.Error):
                self._wait_up_to(self._connection, min(_IMPATIENT_MS, self._busy_timeout_ms))
        self._diverted = True
        for entry in entries:
            place = self._put_aside(f"spool-{os.getpid()}.jsonl", codec.entry_to_line(entry))
            if place is None:
                self._waiting.entries.append(entry)
                self._tell("memory", f"{error}. No spool can be written either: records wait in memory only")
            else:
                self._tell(str(place), f"{error}. Until then records wait in {place} and are folded in later")

    def _put_aside(self, suffix: str, line: str) -> Path | None:
        for path in candidate_paths(self.path, self._spool_dirs, suffix):
            try:
                append_line(path, line, shared_directory=path.parent != self.path.parent)
            except OSError:
                continue
            return path
        return None

    def _set_aside(self, line: str, why: str) -> None:
        place = self._put_aside("rejected.jsonl", line.encode("ascii", "backslashreplace").decode("ascii"))
        if place is None:
            _print(line)
        self._tell("rejected", f"{why}; kept in {place or 'stderr'}")

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Bring into the database what had to wait, and be healthy again."""
        for path in spool_files(self.path, self._spool_dirs):
            with claim(path) as spool:
                if spool is None:
                    continue
                entries, broken = self._parse(spool.lines, spool.torn, path)
                self._store(connection, entries)
                for line in broken:
                    self._set_aside(line, f"a line of {path} is broken")
                spool.remove()
        waiting = list(self._waiting.entries)
        self._store(connection, waiting)
        del self._waiting.entries[: len(waiting)]
        if self._diverted:
            self._wait_up_to(connection, self._busy_timeout_ms)
        self._diverted = False
        self._problem = None
        self._told.difference_update([kind for kind in self._told if kind != "rejected"])

    def _parse(self, lines: Sequence[str], torn: str | None, path: Path) -> tuple[list[Entry], list[str]]:
        entries: list[Entry] = []
        broken: list[str] = []
        for line in lines:
            try:
                entries.append(codec.entry_from_line(line))
            except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
                broken.append(line)
        if torn is not None:
            try:
                entries.append(codec.entry_from_line(torn))  # only its line end is missing
            except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
                self._on_problem(f"the last line of {path} is torn and was skipped: it had not been acknowledged")
        return entries, broken

    def _store(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        """Entries that had waited: durable also against a power cut before their spool goes."""
        if not entries:
            return
        connection.execute("PRAGMA synchronous = FULL")
        try:
            self._merging.transact(connection, entries)
        except _UNFIT:
            for entry in entries:
                try:
                    self._merging.transact(connection, [entry])
                except _UNFIT as error:
                    self._mend(connection, entry, error)
        finally:
            if self._synchronous != "full":
                connection.execute("PRAGMA synchronous = NORMAL")

    # Calls that a process left behind

    def _bury_the_dead(self, connection: sqlite3.Connection) -> None:
        known = "SELECT call_id, writer FROM calls WHERE writer IS NOT NULL AND status = 'open'"
        rows = connection.execute(known).fetchall()
        writers = {writer: is_alive(writer) for writer in {row[1] for row in rows}}
        if False not in writers.values():
            return
        error = "abandoned: its process ended before the call did; open attempts may have been charged"
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Again, under the lock: another process may have folded in the real end meanwhile.
            dead = [row for row in connection.execute(known).fetchall() if writers.get(row[1]) is False]
            calls = (codec.call_from_row(connection.execute(SELECT_CALL, (call_id,)).fetchone()) for call_id, _ in dead)
            self._merging.apply(connection, [replace(call, status=CallStatus.FAILED, error=error) for call in calls])
            for call_id, writer in dead:
                connection.execute("UPDATE calls SET writer = ? WHERE call_id = ?", (writer, call_id))
            connection.execute("COMMIT")
        except BaseException:
            transaction_failed(connection)
            raise

    def abandoned(self, older_than_ms: int = 0, *, now_ms: int | None = None) -> list[Abandoned]:
        """Calls that began at least so long ago and that no running process will finish, oldest first.

        Either closed as failed when the ledger was opened, with an attempt still open; or open, by a process of which
        it cannot be told from here whether it runs (on another host, in another container).

        Raises:
            LedgerError: the ledger cannot be read.
        """
        before = (self._clock_ms() if now_ms is None else now_ms) - older_than_ms
        with self._reading() as connection:
            writers = dict(connection.execute("SELECT call_id, writer FROM calls WHERE writer IS NOT NULL").fetchall())
            found = list(read_calls(connection, "writer IS NOT NULL AND started_at_ms <= ?", [before]))
        return [
            Abandoned(stored.call, stored.attempts)
            for stored in found
            if stored.call.status is not CallStatus.OPEN or not is_alive(writers.get(stored.call.call_id))
        ]

    # For the other modules of this package

    @property
    def _this_writer(self) -> str:
        """Who this process is to other processes; see `tierwise.ledger.process`."""
        if self._writer is None:
            self._writer = this_process()
        return self._writer

    def _write_with(self, entries: Sequence[Entry], beside: Callable[[sqlite3.Connection], None]) -> None:
        """Entries, and what `beside` writes, in one transaction: all of it or nothing. No spool takes it.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._lock:
            connection = self._open()
            try:
                self._merging.transact(connection, entries, beside)
            except _UNFIT as error:
                raise LedgerUnavailable(f"a record does not fit the ledger {self.path} ({error})") from error
            except sqlite3.Error as error:
                raise explain(error, self.path) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction in which nobody else writes; undone where the block raises.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._lock:
            connection = self._open()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                transaction_failed(connection)
                raise explain(error, self.path) from error
            except BaseException:
                transaction_failed(connection)
                raise
            finally:
                self._merging.forget_sums()  # some of these change them

    def _snapshot(self) -> Reading:
        """What is in the file now, read without waiting for anybody who writes, this process included.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        try:
            return Reading(connect_read_only(self.path, self._busy_timeout_ms), self.path)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    # Reading

    def _reading(self) -> Reading:
        """A read-only connection to a ledger that is up to date."""
        with self._lock:
            try:
                self._open()
            except LedgerUnavailable as unavailable:
                self._check_readable(unavailable)
        return self._snapshot()

    def _check_readable(self, unavailable: LedgerUnavailable) -> None:
        """A full disk or somebody's lock forbids writing, not reading."""
        try:
            reading = Reading(connect_read_only(self.path, self._busy_timeout_ms), self.path)
        except sqlite3.Error:
            raise unavailable from None  # which says why, where this says "disk I/O error" of a directory
        with reading as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] != LATEST:
                raise LedgerUnavailable(f"the ledger {self.path} has to be brought up to date, and cannot be written")

    def calls(self, where: Filter = Filter()) -> Iterator[StoredCall]:
        """Calls with their attempts, oldest first, read as they are asked for.

        `tier` and `model` are the call's (those that answered).

        Raises:
            LedgerError: the ledger cannot be read.
        """
        chosen, values = condition(where)
        with self._reading() as connection:
            yield from read_calls(connection, chosen, values)

    def get(self, call_id: str) -> StoredCall | None:
        """One call, or None.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading() as connection:
            return next(read_calls(connection, "call_id = ?", [call_id]), None)

    def totals(
        self, by: Sequence[Dimension], where: Filter = Filter(), *, scan: bool | None = None
    ) -> list[tuple[tuple[str, ...], Totals]]:
        """Sums by the given dimensions, ordered by them. A day is `YYYY-MM-DD` (UTC); no project is "".

        From the roll-up where the filter allows it (no session, no status, times on whole hours, or on whole UTC days
        more than five weeks ago), else from the rows; `scan` forces one or the other. `tier` and `model` filter
        attempts by their own, calls by the call's.

        Raises:
            LedgerError: the ledger cannot be read.
            ValueError: an unknown dimension, or the roll-up is asked for and cannot answer.
        """
        unknown = [name for name in by if name not in get_args(Dimension)]
        if unknown:
            raise ValueError(f"unknown dimension {unknown[0]!r}; use one of {', '.join(get_args(Dimension))}")
        with self._reading() as connection:
            summed = is_whole(connection, where)
            if scan is False and not summed:
                raise ValueError(
                    "the roll-up knows whole hours of the last weeks and whole UTC days before that, and neither "
                    "sessions nor states of calls"
                )
            read = scan_sums if scan or not summed else read_sums
            return [(found.key, found.totals) for found in read(connection, by, where)]

    def model_speeds(self) -> Mapping[str, ModelSpeed]:
        """Measured speeds by model id, from recent accepted attempts.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT model, prompt_tokens, prompt_ms, output_tokens, output_ms, samples FROM speeds"
            ).fetchall()
        return {
            model: ModelSpeed(
                1000 * prompt / prompt_ms if prompt_ms > 0 and prompt > 0 else None,
                1000 * output / output_ms if output_ms > 0 and output > 0 else None,
                samples,
            )
            for model, prompt, prompt_ms, output, output_ms, samples in rows
        }

    def session_lengths(self, since_ms: int, until_ms: int = EVER_MS, *, most: int = 10_000) -> list[int]:
        """How many turns the main loops of sessions had in this time, at most so many of the latest.

        `until_ms` is exclusive. Subagents share their session's id; their calls are no turns of it.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT count(*) FROM calls WHERE started_at_ms >= ? AND started_at_ms < ? AND session IS NOT NULL "
                "AND status = 'answered' AND json_extract(tags, '$.kind') = 'main' GROUP BY session "
                "ORDER BY max(started_at_ms) DESC LIMIT ?",
                (since_ms, until_ms, most),
            ).fetchall()
        return [row[0] for row in rows]

    # Feedback

    def give_feedback(self, feedback: Feedback, text: str | None = None) -> bool:
        """Note what is said of a call, in place of what was said before, and what its text was, where that is given.

        Returns whether there is such a call; otherwise nothing is written. Unlike a record of a call it does not wait
        in a spool: whoever gives it is there and can give it again.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._transaction() as connection:
            if connection.execute(SELECT_CALL, (feedback.call_id,)).fetchone() is None:
                return False
            connection.execute(_PUT_FEEDBACK, feedback_row(feedback))
            if text is not None:
                connection.execute(_REPLACE_TEXT, (feedback.call_id, feedback.at_ms, codec.printable(text)))
        return True

    def forget_feedback(self, call_id: str) -> bool:
        """Remove what was said of a call, and its text; whether there was any.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._transaction() as connection:
            found = [
                connection.execute(f"DELETE FROM {table} WHERE call_id = ?", (call_id,)).rowcount  # noqa: S608 names only
                for table in ("feedback", "captured")
            ]
        return any(found)

    def feedback_counts(self, where: Filter = Filter()) -> FeedbackCounts:
        """How much was said of the calls of the filter.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        chosen, values = condition(where)
        with self._reading() as connection:
            row = connection.execute(
                "SELECT coalesce(sum(verdict = 'good'), 0), coalesce(sum(verdict = 'bad'), 0), count(right_type) FROM "  # noqa: S608 column names only
                "(SELECT call_id, verdict, task_type AS right_type FROM feedback) CROSS JOIN calls USING (call_id) "
                f"WHERE {chosen}",
                values,
            ).fetchone()
        return FeedbackCounts(*row)

    def typed_texts(self) -> list[tuple[str, str]]:
        """What can be learned from: texts whose right task type was named, with it, the oldest call first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading() as connection:
            return connection.execute(
                "SELECT text, task_type FROM feedback JOIN captured USING (call_id) WHERE task_type IS NOT NULL "
                "ORDER BY call_id"
            ).fetchall()

    def captured_text(self, call_id: str) -> str | None:
        """What was kept of a call's text; None where nothing was, as is usual.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading() as connection:
            row = connection.execute("SELECT text FROM captured WHERE call_id = ?", (call_id,)).fetchone()
        return None if row is None else row[0]

    # Care

    def rebuild_rollup(self) -> None:
        """Make the roll-up anew from the rows, or go on with that; the sums of calls that were pruned stay.

        Nobody waits for it, and it may be interrupted: see `begin_rollup` and `extend_rollup`, which it is made of.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        self.begin_rollup()
        calls = None
        while not (extended := self.extend_rollup(calls)).is_done:
            calls = extended.calls

    def begin_rollup(self) -> None:
        """Begin to make the roll-up anew, unless that goes on already. Every view stays right: what the roll-up does
        not have is read from the rows.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._transaction() as connection:
            if not summed_calls(connection).is_behind:
                begin_anew(connection)

    def extend_rollup(self, calls: int | None = None) -> Extended:
        """Take the calls before those that are in the roll-up into it, so many at most; what became of it.

        Others are kept from writing for some tens of milliseconds, and readers never.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._lock:
            self._open()
        with self._summing() as connection:
            return extend(connection, self._clock_ms(), calls=calls or _EXTENDED_FIRST)

    @property
    def is_behind(self) -> bool:
        """Whether the roll-up is still being made, so that views of long ago take longer.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading() as connection:
            return summed_calls(connection).is_behind

    def sum_up(self, *, left: int | None = None) -> None:
        """Take what is new into the roll-up where it is time to; see `tierwise.ledger.folding`.

        Args:
            left: take in all calls but so many of the latest, now.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._lock:
            self._open()
        with self._summing() as connection:
            self._take_in(connection, left)

    def _take_in(self, connection: sqlite3.Connection, left: int | None = None, *, most_pieces: int = 2**62) -> None:
        now_ms = self._clock_ms()
        self._merging.not_gathered = 0
        self._merging.forget_sums()
        if left is not None or wants_gathering(connection, now_ms):
            for _ in range(most_pieces):
                if not gather(connection, now_ms, left=left):
                    break
        if left is not None or wants_folding(connection):
            fold(connection, now_ms)

    def _sum_up(self, connection: sqlite3.Connection) -> None:
        """For a ledger that is being opened: what is new, and a piece of what the roll-up lacks."""
        with suppress(sqlite3.OperationalError):  # there is time; the next write says what is wrong
            self._take_in(connection, most_pieces=_PIECES_AT_OPENING)
            if summed_calls(connection).is_behind:
                extend(connection, self._clock_ms(), calls=_EXTENDED_FIRST)
        self._merging.forget_sums()

    @contextmanager
    def _summing(self) -> Iterator[sqlite3.Connection]:
        """A connection beside the ordinary one, so that nobody waits for what is added up.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        try:
            connection = connect_for_sums(
                self.path, synchronous=self._synchronous, busy_timeout_ms=self._busy_timeout_ms
            )
            try:
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def check(self, *, quick: bool = False) -> list[str]:
        """What is wrong with the database; empty when nothing is. Reads all of it; `quick` leaves the indexes out.

        Raises:
            LedgerError: it cannot be opened at all.
        """
        with self._reading() as connection:
            pragma = "PRAGMA quick_check" if quick else "PRAGMA integrity_check"
            found = [str(row[0]) for row in connection.execute(pragma)]
        return [] if found == ["ok"] else found

    def waiting(self) -> list[Path]:
        """The spools that hold records not yet in the database."""
        return spool_files(self.path, self._spool_dirs)
