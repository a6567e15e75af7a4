"""How what is written gets into the tables: entries merged into rows, each call once, in one transaction.

Applying an entry reads what is known of its call, merges the entry in, and writes the rows that changed; where the
roll-up has the call already, it is moved by the difference. Merging is by identity (`call_id`, and `number` for an
attempt): a finished record replaces an open one, an open one never replaces a finished one. So entries may be applied
again, and out of order, and nothing is ever counted twice.

A call is written twice as a rule, when it begins and when it ends. Its rows are remembered in between, and hold for as
long as no other connection writes (`PRAGMA data_version` tells), and so is what is in the roll-up, and whether there is
anything that others reported.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, TypeAlias

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, recorded_kind
from tierwise.core.money import Price
from tierwise.ledger import codec
from tierwise.ledger.codec import ATTEMPT_COLUMNS, CALL_COLUMNS, Entry
from tierwise.ledger.connection import transaction_failed
from tierwise.ledger.folding import Place, SummedCalls, summed_calls
from tierwise.ledger.ids import REPORTED_BEFORE, reported_id
from tierwise.ledger.rollup import ADD, Key, Sums, add_up, contributions, difference

__all__ = ["SELECT_ATTEMPTS", "SELECT_CALL", "Merging"]

SELECT_CALL = f"SELECT {', '.join(CALL_COLUMNS)} FROM calls WHERE call_id = ?"  # noqa: S608 column names only
SELECT_ATTEMPTS = f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempts WHERE call_id = ?"  # noqa: S608 column names only
_IS_CALL = "SELECT 1 FROM calls WHERE call_id = ?"
_ARE_REPORTED = f"SELECT 1 FROM calls WHERE call_id < '{REPORTED_BEFORE}' LIMIT 1"  # noqa: S608 a constant of ours
_PUT_CALL = f"INSERT OR REPLACE INTO calls ({', '.join(CALL_COLUMNS)}) VALUES ({', '.join('?' for _ in CALL_COLUMNS)})"  # noqa: S608 column names only
_PUT_NEW_CALL = _PUT_CALL.replace("OR REPLACE", "OR IGNORE", 1)
_PUT_ATTEMPT = (
    f"INSERT OR REPLACE INTO attempts ({', '.join(ATTEMPT_COLUMNS)}) "  # noqa: S608 column names only
    f"VALUES ({', '.join('?' for _ in ATTEMPT_COLUMNS)})"
)
# For a row that is there: leaves the indexes on what is not named alone, which REPLACE would not.
_CHANGE_CALL = f"UPDATE calls SET {', '.join(f'{name} = ?' for name in CALL_COLUMNS[2:])} WHERE call_id = ?"  # noqa: S608 column names only
_INDEXED = ("session", "batch_id", "custom_id")  # of a call, which its end does not change
_OTHERS = tuple(name for name in CALL_COLUMNS[2:] if name not in _INDEXED)
_CHANGE_OTHERS = f"UPDATE calls SET {', '.join(f'{name} = ?' for name in _OTHERS)} WHERE call_id = ?"  # noqa: S608 column names only
_indexed_of = itemgetter(*map(CALL_COLUMNS.index, _INDEXED))
_others_of = itemgetter(*map(CALL_COLUMNS.index, _OTHERS))
_CHANGE_ATTEMPT = (
    f"UPDATE attempts SET {', '.join(f'{name} = ?' for name in ATTEMPT_COLUMNS[2:])} "  # noqa: S608 column names only
    "WHERE call_id = ? AND number = ?"
)
_PUT_PRICE = "INSERT OR IGNORE INTO prices (digest, model, price) VALUES (?, ?, ?)"
_PUT_TEXT = "INSERT OR IGNORE INTO captured (call_id, at_ms, text) VALUES (?, ?, ?)"
_MOVE_FEEDBACK = "UPDATE OR REPLACE feedback SET call_id = ? WHERE call_id = ?"
_REQUEST_ID = ATTEMPT_COLUMNS.index("request_id")
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
_MOST_PRICES = 1024
_MOST_OPEN_CALLS = 4096


class Merging:
    """Merges entries into the tables of one ledger, and remembers what that took. Whoever calls it has the ledger.

    Args:
        writer: who this process is to other processes; see `tierwise.ledger.process`.
    """

    def __init__(self, writer: Callable[[], str]) -> None:
        self._writer = writer
        self._prices: dict[int, tuple[Price, str, str]] = {}  # by identity: hashing a price costs more than writing it
        self._stored_prices: set[str] = set()
        self._open_calls: dict[str, tuple[int, _Rows]] = {}  # as this connection wrote them, and at which data version
        self._data_version = -1  # as the last transaction found it
        self._summed: SummedCalls | None = None  # what is in the roll-up, as long as nobody else has written
        self._are_reported: bool | None = None  # whether there may be calls that others reported, as long as that
        self.not_gathered = 0
        """Entries, since calls were last taken into the roll-up."""

    def forget(self) -> None:
        """Another connection, or another file: nothing that was remembered holds."""
        self._stored_prices.clear()
        self._open_calls.clear()
        self._data_version = -1
        self._summed = self._are_reported = None

    def forget_sums(self) -> None:
        """What is in the roll-up may have changed."""
        self._summed = None

    def transact(
        self,
        connection: sqlite3.Connection,
        entries: Iterable[Entry],
        beside: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """Applies entries in one transaction, and what `beside` writes in the same: all of it or nothing.

        The entries are asked for within it. Raises whatever hinders it, with the transaction undone.
        """
        execute = connection.execute
        gathered = _Gathered()
        execute("BEGIN IMMEDIATE")
        try:
            version = execute("PRAGMA data_version").fetchone()[0]
            if version != self._data_version:
                self._data_version = version  # another connection has written: who knows what
                self._summed = self._are_reported = None
            for call, attempts in entries:
                self._apply(connection, call, attempts, gathered)
                self.not_gathered += 1
            gathered.write(execute)
            if beside is not None:
                beside(connection)
            execute("COMMIT")
        except BaseException:
            self._summed = self._are_reported = None  # as was read of what is undone now
            with suppress(sqlite3.Error):
                transaction_failed(connection)
            raise
        self._stored_prices.update(gathered.prices)
        self._remember(gathered.calls)

    def apply(self, connection: sqlite3.Connection, calls: Iterable[CallRecord]) -> None:
        """Merges calls in, in a transaction that runs."""
        self._summed = None  # others may have written since
        gathered = _Gathered()
        for call in calls:
            self._apply(connection, call, (), gathered)
        gathered.write(connection.execute)

    def remove(self, connection: sqlite3.Connection, call_ids: Iterable[str]) -> None:
        """Removes calls, in a transaction that runs."""
        self._summed = None  # others may have written since
        gathered = _Gathered()
        for call_id in call_ids:
            self._remove(connection, call_id, gathered)
        gathered.write(connection.execute)

    def _remember(self, calls: Mapping[str, _Rows]) -> None:
        """The rows of calls that are still open, for when they end; only once what was written is there."""
        known, version = self._open_calls, self._data_version
        for call_id, rows in calls.items():
            if rows[0][2] == "open":
                known[call_id] = version, rows
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
        known, began_here = self._known(call_id, gathered)
        # What did not begin here is nearly always new: put it, and look only where it was there.
        is_new = not began_here and row is not None and execute(_PUT_NEW_CALL, row).rowcount == 1
        old_call: _Row | None
        old_attempts: dict[int, _Row] = {}
        if known is not None:
            old_call, old_attempts = known
        else:
            old_call = None if is_new else execute(SELECT_CALL, (call_id,)).fetchone()
            if old_call is not None:
                old_attempts = {old[1]: old for old in execute(SELECT_ATTEMPTS, (call_id,))}
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
                _change_call(execute, old_call, new_call)
        elif not is_new:
            execute(_PUT_CALL, new_call)
        if call is not None and call.captured_text is not None:
            execute(_PUT_TEXT, (call_id, call.started_at_ms, call.captured_text))

        if call_id < REPORTED_BEFORE:
            self._are_reported = True
        gathered.calls[call_id] = new_call, new_attempts
        before = None if old_call is None else (old_call, old_attempts)
        self._move_rollup(connection, gathered, before, (new_call, new_attempts))

    def _known(self, call_id: str, gathered: _Gathered) -> tuple[_Rows | None, bool]:
        """The rows of a call, where they need not be read, and whether it began here, so that it has some."""
        known = gathered.calls.get(call_id)
        if known is not None:
            return known, True
        remembered = self._open_calls.get(call_id)
        if remembered is None:
            return None, False
        version, rows = remembered
        return rows if version == self._data_version else None, True

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
        begun = None if new is None or (old is not None and old[0][1] != new[0][1]) else Place(new[0][1], new[0][0])
        if begun is not None and summed.is_beyond(begun):
            return  # as nearly always
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
        if self._are_reported is None:
            self._are_reported = connection.execute(_ARE_REPORTED).fetchone() is not None
        if not self._are_reported:
            return  # as in most ledgers
        reported = reported_id(request_id)
        if reported == call_id or connection.execute(_IS_CALL, (reported,)).fetchone() is None:
            return  # as nearly always; columns that nobody reads cost more than the rest of it
        if self._remove(connection, reported, gathered):
            connection.execute(_MOVE_FEEDBACK, (call_id, reported))

    def _remove(self, connection: sqlite3.Connection, call_id: str, gathered: _Gathered) -> bool:
        """Removes a call, and what it adds to the sums; whether it was there."""
        row = connection.execute(SELECT_CALL, (call_id,)).fetchone()
        if row is None:
            return False
        attempts = {old[1]: old for old in connection.execute(SELECT_ATTEMPTS, (call_id,))}
        self._move_rollup(connection, gathered, (row, attempts), None)
        gathered.calls.pop(call_id, None)
        for table in ("captured", "attempts", "calls"):
            connection.execute(f"DELETE FROM {table} WHERE call_id = ?", (call_id,))  # noqa: S608 names of the schema
        return True

    def _row(self, call: CallRecord) -> tuple[Any, ...]:
        """What is open is at this process, and ends with it; a request of a batch is at nobody's."""
        ours = call.status is CallStatus.OPEN and call.batch_id is None
        return codec.call_row(call, self._writer() if ours else None)

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


def _contributions(call: _Row, attempts: Mapping[int, _Row]) -> dict[Key, Sums]:
    if call[2] == "open":
        return {}  # what is open is few, and read from its rows
    return contributions(codec.call_facts(call), [codec.attempt_facts(row) for row in attempts.values()])


def _change_call(execute: Callable[..., sqlite3.Cursor], old: _Row, new: _Row) -> None:
    """Changes the row of a call that began when it did."""
    if _indexed_of(new) == _indexed_of(old):
        execute(_CHANGE_OTHERS, (*_others_of(new), new[0]))
    else:
        execute(_CHANGE_CALL, (*new[2:], new[0]))


def _placeholder(attempt: AttemptRecord) -> CallRecord:
    return CallRecord(
        call_id=attempt.call_id,
        started_at_ms=attempt.started_at_ms,
        status=CallStatus.OPEN,
        **recorded_kind(None),
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
