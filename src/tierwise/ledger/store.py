"""The ledger: every call and every attempt, written down before anybody can forget it.

Theory of operation
-------------------
Everything that is written is an *entry*: a call, some of its attempts, or both. Applying an entry is one transaction
that reads what is known of the call, merges the entry in, and writes the rows that changed; where the roll-up has the
call already, it is moved by the difference. Merging is by identity (`call_id`, and `number` for an attempt): a finished
record replaces an open one, an open one never replaces a finished one. So entries may be applied again, and out of
order, and nothing is ever counted twice. That one property carries the rest: retries, spools, crashes between two
steps, several processes.

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
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias, get_args

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind
from tierwise.core.errors import LedgerCorrupt, LedgerError, LedgerTooNew, LedgerUnavailable
from tierwise.core.money import Price
from tierwise.ledger import codec
from tierwise.ledger.budgets import settle_what_is_left
from tierwise.ledger.codec import ATTEMPT_COLUMNS, CALL_COLUMNS, Entry
from tierwise.ledger.connection import (
    connect_for_sums,
    connect_read_only,
    explain,
    open_database,
    transaction_failed,
)
from tierwise.ledger.feedback import FEEDBACK_COLUMNS, Feedback, FeedbackCounts, feedback_from_row, feedback_row
from tierwise.ledger.filter import Dimension, Filter, condition
from tierwise.ledger.folding import (
    MOST_BEYOND,
    Extended,
    Place,
    SummedCalls,
    begin_anew,
    extend,
    fold,
    gather,
    summed_calls,
    wants_folding,
    wants_gathering,
)
from tierwise.ledger.ids import reported_id
from tierwise.ledger.process import is_alive, this_process
from tierwise.ledger.rollup import ADD, Key, Sums, Totals, add_up, contributions, difference
from tierwise.ledger.schema import LATEST
from tierwise.ledger.spool import append_line, candidate_paths, claim, default_spool_dirs, spool_files
from tierwise.ledger.sums import is_whole, read_sums, scan_sums

if TYPE_CHECKING:
    from tierwise.core.settings import LedgerSettings

__all__ = ["Abandoned", "Dimension", "Filter", "Ledger", "ModelSpeed", "StoredCall"]

_SELECT_CALL = f"SELECT {', '.join(CALL_COLUMNS)} FROM calls WHERE call_id = ?"  # noqa: S608 column names only
_IS_CALL = "SELECT 1 FROM calls WHERE call_id = ?"
_SELECT_ATTEMPTS = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempts WHERE call_id = ?"  # noqa: S608 column names only
_PUT_CALL = f"INSERT OR REPLACE INTO calls ({', '.join(CALL_COLUMNS)}) VALUES ({', '.join('?' for _ in CALL_COLUMNS)})"  # noqa: S608 column names only
_PUT_NEW_CALL = _PUT_CALL.replace("OR REPLACE", "OR IGNORE", 1)
_PUT_ATTEMPT = (
    f"INSERT OR REPLACE INTO attempts ({', '.join(ATTEMPT_COLUMNS)}) "  # noqa: S608 column names only
    f"VALUES ({', '.join('?' for _ in ATTEMPT_COLUMNS)})"
)
# For a row that is there: leaves the indexes on what did not change alone, which REPLACE would not.
_CHANGE_CALL = f"UPDATE calls SET {', '.join(f'{name} = ?' for name in CALL_COLUMNS[2:])} WHERE call_id = ?"  # noqa: S608 column names only
_CHANGE_ATTEMPT = (
    f"UPDATE attempts SET {', '.join(f'{name} = ?' for name in ATTEMPT_COLUMNS[2:])} "  # noqa: S608 column names only
    "WHERE call_id = ? AND number = ?"
)
_PUT_PRICE = "INSERT OR IGNORE INTO prices (digest, model, price) VALUES (?, ?, ?)"
_PUT_TEXT = "INSERT OR IGNORE INTO captured (call_id, at_ms, text) VALUES (?, ?, ?)"
_REPLACE_TEXT = "INSERT OR REPLACE INTO captured (call_id, at_ms, text) VALUES (?, ?, ?)"
_PUT_FEEDBACK = (
    f"INSERT OR REPLACE INTO feedback ({', '.join(FEEDBACK_COLUMNS)}) "  # noqa: S608 column names only
    f"VALUES ({', '.join('?' for _ in FEEDBACK_COLUMNS)})"
)
_MOVE_FEEDBACK = "UPDATE OR REPLACE feedback SET call_id = ? WHERE call_id = ?"
_REQUEST_ID = ATTEMPT_COLUMNS.index("request_id")
_SELECT_FEEDBACK = f"SELECT {', '.join(FEEDBACK_COLUMNS)} FROM feedback WHERE call_id = ?"  # noqa: S608 column names only
_FADE = 0.9  # a speed is that of about the last ten attempts, weighted by their tokens
_PUT_SPEED = (
    "INSERT INTO speeds (model, prompt_tokens, prompt_ms, output_tokens, output_ms, samples) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    + ", ".join(
        f"{name} = {name} * ?7 + excluded.{name}"
        for name in ("prompt_tokens", "prompt_ms", "output_tokens", "output_ms")
    )
    + ", samples = samples + excluded.samples"
)
_Row: TypeAlias = tuple[Any, ...]
_Rows: TypeAlias = tuple[_Row, dict[int, _Row]]  # of a call, and of its attempts by number
_Speed: TypeAlias = tuple[float, float, float, float, int]  # the columns of `speeds`
_NO_SPEED: _Speed = (0.0, 0.0, 0.0, 0.0, 0)
_IMPATIENT_MS = 50  # while there is trouble, a writer does not wait the whole busy timeout for each record
_MOST_PRICES = 1024
_EXTENDED_FIRST = 2_000  # calls that the roll-up takes in at once, before it is known how long that takes
_PIECES_AT_OPENING = 4
EVER_MS = 2**62  # no call begins later
_MOST_OPEN_CALLS = 4096

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
class StoredCall:
    """A call as the ledger has it, its attempts by number, and what was said of it."""

    call: CallRecord
    attempts: tuple[AttemptRecord, ...]
    feedback: Feedback | None = None


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
        self._prices: dict[int, tuple[Price, str, str]] = {}  # by identity: hashing a price costs more than writing it
        self._stored_prices: set[str] = set()
        self._waits_ms = busy_timeout_ms  # what the connection is set to
        self._open_calls: dict[str, _Rows] = {}  # as this connection wrote them: nobody has to read them back
        self._data_version = -1  # of when that was so
        self._summed: SummedCalls | None = None  # what is in the roll-up, as long as nobody else has written
        self._not_gathered = 0  # entries, since calls were last taken into the roll-up
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
        self._open_calls.clear()
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
        self._stored_prices.clear()
        self._open_calls.clear()
        self._data_version, self._summed = -1, None
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
                self._transact(connection, entries(connection))
            except (sqlite3.Error, OSError) as error:
                raise explain(error, self.path) from error

    def _forget(self, connection: sqlite3.Connection, call_ids: Iterable[str]) -> None:
        """Removes calls, in a transaction that runs."""
        self._summed = None  # others may have written since
        gathered = _Gathered()
        for call_id in call_ids:
            self._remove(connection, call_id, gathered)
        gathered.write(connection.execute)

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
                self._transact(connection, entries)
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
            self._transact(connection, entries)
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
            if self._not_gathered > MOST_BEYOND:
                with suppress(sqlite3.Error):  # the next write says what is wrong
                    self._take_in(connection)  # here, where the pages that were just written are at hand

    def _failed(self, entries: list[Entry], error: sqlite3.Error | OSError) -> None:
        explained = explain(error, self.path)
        if isinstance(explained, LedgerCorrupt):
            self._drop_connection()  # the next write looks again: the file may have been moved aside or recovered
        self._divert(entries, explained)

    def _transact(
        self,
        connection: sqlite3.Connection,
        entries: Iterable[Entry],
        beside: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        execute = connection.execute
        gathered = _Gathered()
        execute("BEGIN IMMEDIATE")
        try:
            version = execute("PRAGMA data_version").fetchone()[0]
            if version != self._data_version:
                self._data_version = version
                self._open_calls.clear()  # another connection has written: who knows what
                self._summed = None
            for call, attempts in entries:
                self._apply(connection, call, attempts, gathered)
                self._not_gathered += 1
            gathered.write(execute)
            if beside is not None:
                beside(connection)
            execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                transaction_failed(connection)
            raise
        self._stored_prices.update(gathered.prices)
        self._remember(gathered.calls)

    def _remember(self, calls: Mapping[str, _Rows]) -> None:
        """The rows of calls that are still open, for when they end; only once what was written is there."""
        known = self._open_calls
        for call_id, rows in calls.items():
            if rows[0][2] == "open":
                known[call_id] = rows
            else:
                known.pop(call_id, None)
        while len(known) > _MOST_OPEN_CALLS:
            del known[next(iter(known))]

    def _apply(  # noqa: PLR0912 one transaction told in one piece, on the hot path
        self,
        connection: sqlite3.Connection,
        call: CallRecord | None,
        attempts: Sequence[AttemptRecord],
        gathered: _Gathered,
    ) -> None:
        """Merge an entry into the tables; see the head of this module."""
        execute = connection.execute
        call_id = call.call_id if call is not None else attempts[0].call_id
        row: _Row | None = None if call is None else self._row(call)
        known = gathered.calls.get(call_id) or self._open_calls.get(call_id)
        # An open call is nearly always new: put it, and look only where it was there.
        is_new = (
            known is None
            and call is not None
            and call.status is CallStatus.OPEN
            and execute(_PUT_NEW_CALL, row or ()).rowcount == 1
        )
        old_call: _Row | None
        old_attempts: dict[int, _Row] = {}
        if known is not None:
            old_call, old_attempts = known
        else:
            old_call = None if is_new else execute(_SELECT_CALL, (call_id,)).fetchone()
            if old_call is not None:
                old_attempts = {old[1]: old for old in execute(_SELECT_ATTEMPTS, (call_id,))}
        if old_call is None and call is None:
            # Its call waits in a spool, or was lost with the process: the attempt must not hang in the air.
            call = _placeholder(attempts[0])
            row = self._row(call)

        new_call = old_call
        if call is not None and (old_call is None or call.status is not CallStatus.OPEN or old_call[2] == "open"):
            new_call = row
        assert new_call is not None  # noqa: S101 an entry has a call, or attempts, which bring a placeholder
        new_attempts = dict(old_attempts)
        for attempt in attempts:
            old = old_attempts.get(attempt.number)
            if old is not None and attempt.outcome is OutcomeKind.OPEN and old[6] != "open":
                continue
            digest = self._price(execute, attempt.price, gathered.prices) if attempt.price is not None else None
            new = codec.attempt_row(attempt, digest)
            if new != old:
                new_attempts[attempt.number] = new
                if old is None:
                    execute(_PUT_ATTEMPT, new)
                else:
                    execute(_CHANGE_ATTEMPT, (*new[2:], *new[:2]))
                if new[6] == "accepted" and (old is None or old[6] != "accepted"):
                    gathered.note_speed(attempt)
                if attempt.request_id is not None and (old is None or old[_REQUEST_ID] is None):
                    self._take_over(connection, attempt.request_id, call_id, gathered)
        if old_call is not None and new_call[1] == old_call[1]:
            if new_call != old_call:
                execute(_CHANGE_CALL, (*new_call[2:], call_id))
        elif not is_new:
            execute(_PUT_CALL, new_call)
        if call is not None and call.captured_text is not None:
            execute(_PUT_TEXT, (call_id, call.started_at_ms, call.captured_text))

        gathered.calls[call_id] = new_call, new_attempts
        before = None if old_call is None else (old_call, old_attempts)
        self._move_rollup(connection, gathered, before, (new_call, new_attempts))

    def _move_rollup(
        self,
        connection: sqlite3.Connection,
        gathered: _Gathered,
        old: _Rows | None,
        new: _Rows | None,
    ) -> None:
        """Keeps the roll-up right where it has the call already. Most calls are taken in later, many at once.

        None: the call was not there, or is no more; one of them is.
        """
        summed = self._summed
        if summed is None:
            summed = self._summed = summed_calls(connection)
        places = [None if rows is None else Place(rows[0][1], rows[0][0]) for rows in (old, new)]
        before, after = (
            _contributions(*rows) if rows is not None and place in summed else {}
            for rows, place in zip((old, new), places, strict=True)
        )
        if before or after:
            gathered.move(difference(before, after))
        if any(place is not None and summed.is_before(place) for place in places):
            connection.execute("UPDATE rollup_state SET changes = changes + 1")  # what somebody is adding up is no more

    def _take_over(self, connection: sqlite3.Connection, request_id: str, call_id: str, gathered: _Gathered) -> None:
        """Removes what others reported of a request that we sent ourselves; see `tierwise.ledger.reported`."""
        reported = reported_id(request_id)
        if reported == call_id or connection.execute(_IS_CALL, (reported,)).fetchone() is None:
            return  # as nearly always; columns that nobody reads cost more than the rest of it
        if self._remove(connection, reported, gathered):
            connection.execute(_MOVE_FEEDBACK, (call_id, reported))

    def _remove(self, connection: sqlite3.Connection, call_id: str, gathered: _Gathered) -> bool:
        """Removes a call, and what it adds to the sums; whether it was there."""
        row = connection.execute(_SELECT_CALL, (call_id,)).fetchone()
        if row is None:
            return False
        attempts = {old[1]: old for old in connection.execute(_SELECT_ATTEMPTS, (call_id,))}
        self._move_rollup(connection, gathered, (row, attempts), None)
        gathered.calls.pop(call_id, None)
        for table in ("captured", "attempts", "calls"):
            connection.execute(f"DELETE FROM {table} WHERE call_id = ?", (call_id,))  # noqa: S608 names of the schema
        return True

    def _row(self, call: CallRecord) -> tuple[Any, ...]:
        """What is open is at this process, and ends with it; a request of a batch is at nobody's."""
        ours = call.status is CallStatus.OPEN and call.batch_id is None
        return codec.call_row(call, self._this_writer if ours else None)

    def _price(self, execute: Callable[..., sqlite3.Cursor], price: Price, stored: set[str]) -> str:
        known = self._prices.get(id(price))
        if known is None or known[0] is not price:
            if len(self._prices) >= _MOST_PRICES:
                self._prices.clear()
            text = codec.price_to_text(price)
            known = self._prices[id(price)] = (price, codec.price_digest(text), text)
        _, digest, text = known
        if digest not in self._stored_prices and digest not in stored:
            execute(_PUT_PRICE, (digest, price.model, text))
            stored.add(digest)  # counts as stored only once the transaction is through
        return digest

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
            self._transact(connection, [codec.printable_entry(entry)])
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
            self._transact(connection, entries)
        except _UNFIT:
            for entry in entries:
                try:
                    self._transact(connection, [entry])
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
        gathered = _Gathered()
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Again, under the lock: another process may have folded in the real end meanwhile.
            for call_id, writer in connection.execute(known).fetchall():
                if writers.get(writer) is False:
                    call = codec.call_from_row(connection.execute(_SELECT_CALL, (call_id,)).fetchone())
                    ended = replace(call, status=CallStatus.FAILED, error=error)
                    self._apply(connection, ended, (), gathered)
                    connection.execute("UPDATE calls SET writer = ? WHERE call_id = ?", (writer, call_id))
            gathered.write(connection.execute)
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
            found = list(self._read(connection, "writer IS NOT NULL AND started_at_ms <= ?", [before]))
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
                self._transact(connection, entries, beside)
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
                self._summed = None  # some of these change it

    def _snapshot(self) -> _Reading:
        """What is in the file now, read without waiting for anybody who writes, this process included.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        try:
            return _Reading(connect_read_only(self.path, self._busy_timeout_ms), self.path)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    # Reading

    def _reading(self) -> _Reading:
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
            reading = _Reading(connect_read_only(self.path, self._busy_timeout_ms), self.path)
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
            yield from self._read(connection, chosen, values)

    def get(self, call_id: str) -> StoredCall | None:
        """One call, or None.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._reading() as connection:
            return next(self._read(connection, "call_id = ?", [call_id]), None)

    def _read(self, connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> Iterator[StoredCall]:
        prices: dict[str, Price] = {}
        columns = ", ".join(CALL_COLUMNS)
        calls = connection.execute(
            f"SELECT {columns} FROM calls WHERE {condition} ORDER BY started_at_ms, call_id",  # noqa: S608 column names only
            values,
        )
        for row in calls:
            attempts = []
            for attempt in connection.execute(_SELECT_ATTEMPTS + " ORDER BY number", (row[0],)):
                digest = attempt[16]
                if digest is not None and digest not in prices:
                    found = connection.execute("SELECT price FROM prices WHERE digest = ?", (digest,)).fetchone()
                    if found is not None:
                        prices[digest] = codec.price_from_text(found[0])
                attempts.append(codec.attempt_from_row(attempt, prices.get(digest) if digest is not None else None))
            said = connection.execute(_SELECT_FEEDBACK, (row[0],)).fetchone()
            yield StoredCall(
                codec.call_from_row(row), tuple(attempts), None if said is None else feedback_from_row(said)
            )

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
            if connection.execute(_SELECT_CALL, (feedback.call_id,)).fetchone() is None:
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
        self._not_gathered, self._summed = 0, None
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
        self._summed = None

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


class _Reading:
    """A read-only connection for the length of a block; SQLite's errors leave it as ours."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()
        if isinstance(error, sqlite3.Error):
            raise explain(error, self._path) from error


def _contributions(call: _Row, attempts: Mapping[int, _Row]) -> dict[Key, Sums]:
    if call[2] == "open":
        return {}  # what is open is few, and read from its rows
    return contributions(codec.call_facts(call), [codec.attempt_facts(row) for row in attempts.values()])


def _placeholder(attempt: AttemptRecord) -> CallRecord:
    return CallRecord(
        call_id=attempt.call_id,
        started_at_ms=attempt.started_at_ms,
        status=CallStatus.OPEN,
        task_type="unknown",
        family="unknown",
        needs="unknown",
        confidence=0.0,
        abstained=True,
        tier=attempt.tier,
        model=attempt.model,
        planned_tier=attempt.tier,
        baseline_model="",
        baseline_nanousd=None,
        error="only an attempt is known of this call",
    )


class _Gathered:
    """What the entries of one transaction do to rows that they share, written once at its end.

    The roll-up and the speeds have a row for many calls; moving it for each of a hundred calls costs more than the
    calls do.
    """

    __slots__ = ("_speeds", "_sums", "calls", "prices")

    def __init__(self) -> None:
        self.prices: set[str] = set()
        """Digests of the prices that were put; they are there once the transaction is through."""
        self.calls: dict[str, _Rows] = {}
        """The rows of the calls that were written, as the last entry left them."""
        self._sums: dict[Key, Sums] = {}
        self._speeds: dict[str, _Speed] = {}

    def move(self, changes: dict[Key, Sums]) -> None:
        """Takes what an entry adds to the roll-up."""
        for key, delta in changes.items():
            known = self._sums.get(key)
            self._sums[key] = delta if known is None else add_up(known, delta)

    def note_speed(self, attempt: AttemptRecord) -> None:
        """Takes how fast a model answered."""
        total, first, usage = attempt.latency_ms, attempt.ttft_ms, attempt.usage
        if total is None or total <= 0 or not usage.output_tokens:
            return
        if first is None or not 0 < first < total:
            prompt_tokens, prompt_ms, output_ms = 0, 0, total
        else:
            # What a cache served took no time to read.
            prompt_tokens, prompt_ms, output_ms = usage.prompt_tokens - usage.cache_read_tokens, first, total - first
        read, read_ms, said, said_ms, samples = self._speeds.get(attempt.model, _NO_SPEED)
        self._speeds[attempt.model] = (
            read * _FADE + prompt_tokens,
            read_ms * _FADE + prompt_ms,
            said * _FADE + usage.output_tokens,
            said_ms * _FADE + output_ms,
            samples + 1,
        )

    def write(self, execute: Callable[..., sqlite3.Cursor]) -> None:
        """Writes all of it."""
        for key, delta in self._sums.items():
            if any(delta):  # otherwise added by one entry and taken off by another
                execute(ADD, (*key, *delta[:-1], delta[-1].text()))
        for model, speed in self._speeds.items():
            execute(_PUT_SPEED, (model, *speed, _FADE ** speed[4]))
