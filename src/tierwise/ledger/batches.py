"""Batches: requests that are sent together and answered hours later, perhaps to another process, perhaps twice.

Theory of operation. Each request is a call with one attempt, which holds what it is expected to cost until its result
is read. Batch, calls and attempts are written in one transaction before anything is sent, and none of them belongs to
the process: whatever becomes of that, they stay open. Whoever reads results finds the calls by the provider's name of
the batch and the caller's name of the request; what has been settled is left alone, so results may be read twice.

Between sending and the answer nobody knows the provider's name. A process that is killed there leaves a batch without
one; `claim` gives it its name, when results turn up that can only be its.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tierwise.core.decisions import CallStatus
from tierwise.ledger.budgets import settle_one
from tierwise.ledger.codec import Entry
from tierwise.ledger.stored import StoredCall, read_calls

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = ["Batch", "Batches", "Unread"]

_UNREAD = "EXISTS (SELECT 1 FROM attempts AS a WHERE a.call_id = calls.call_id AND a.outcome = 'open')"
_FORGOTTEN = "forgotten: nobody read the results of its batch, and it may have been charged"
_COLUMNS = "batch_id, upstream_id, provider, account, key_id, requests, sent_at_ms, ended_at_ms"


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was sent, or is about to be."""

    batch_id: str
    upstream_id: str | None  # the provider's name for it; None while nobody knows it
    provider: str
    account: str | None  # there, of a provider that has several
    key_id: str | None  # of the client's key, where it came with one of ours
    requests: int
    sent_at_ms: int
    ended_at_ms: int | None = None  # when the last of its results was read


@dataclass(frozen=True, slots=True)
class Unread:
    """Results of a batch that nobody has read."""

    requests: int
    expected_nanousd: int  # of those of which a price is known
    unpriced: int


class Batches:
    """The batches in a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def begin(self, batch: Batch, entries: Sequence[Entry]) -> None:
        """Notes a batch and its calls, before it is sent.

        Raises:
            LedgerError: the ledger cannot be written. Then nothing of it is.
        """
        row = (
            batch.batch_id,
            batch.upstream_id,
            batch.provider,
            batch.account,
            batch.key_id,
            batch.requests,
            batch.sent_at_ms,
            batch.ended_at_ms,
        )

        def put(connection: sqlite3.Connection) -> None:
            marks = ", ".join("?" for _ in row)
            connection.execute(f"INSERT INTO batches ({_COLUMNS}) VALUES ({marks})", row)  # noqa: S608 column names only

        self._ledger._write_with(entries, put)

    def refused(self, batch: Batch, entries: Sequence[Entry]) -> None:
        """The provider did not take it: it is no batch, and its calls end as told.

        Raises:
            LedgerError: the ledger cannot be written.
        """

        def remove(connection: sqlite3.Connection) -> None:
            settle_one(connection, batch.batch_id, 0)
            connection.execute("DELETE FROM batches WHERE batch_id = ?", (batch.batch_id,))

        self._ledger._write_with(entries, remove)

    def claim(self, batch: Batch, upstream_id: str) -> bool:
        """Gives a batch the provider's name; False where it has one, or another batch has this one.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._ledger._transaction() as connection:
            changed = connection.execute(
                "UPDATE OR IGNORE batches SET upstream_id = ? WHERE batch_id = ? AND upstream_id IS NULL",
                (upstream_id, batch.batch_id),
            )
            return changed.rowcount == 1

    def find(self, provider: str, upstream_id: str) -> Batch | None:
        """The batch of that name, if it was sent from here.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found = self._select("provider = ? AND upstream_id = ?", provider, upstream_id)
        return found[0] if found else None

    def nameless(self, provider: str, requests: int) -> list[Batch]:
        """Batches of so many requests of which nobody knows whether they were taken, latest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._select(
            "provider = ? AND upstream_id IS NULL AND requests = ? ORDER BY sent_at_ms DESC", provider, requests
        )

    def waiting(self) -> list[Batch]:
        """Batches of which results are still to be read, oldest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._select("ended_at_ms IS NULL ORDER BY sent_at_ms, batch_id")

    def unread(self, batch: Batch) -> Unread:
        """How many of its results nobody has read, and what they are expected to cost.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._ledger._reading() as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(a.cost_nanousd), 0), coalesce(sum(a.cost_nanousd IS NULL), 0) "
                "FROM calls AS c JOIN attempts AS a USING (call_id) WHERE c.batch_id = ? AND a.outcome = 'open'",
                (batch.batch_id,),
            ).fetchone()
        return Unread(*row)

    def open_calls(self, batch: Batch, custom_ids: Collection[str] | None = None) -> list[StoredCall]:
        """Its calls of these names (None: all of them) whose results nobody has read yet, forgotten ones too.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        chosen, values = f"batch_id = ? AND {_UNREAD}", [batch.batch_id]
        if custom_ids is not None:
            chosen += " AND custom_id IN (SELECT value FROM json_each(?))"
            values.append(json.dumps(list(custom_ids)))
        with self._ledger._reading() as connection:
            return list(read_calls(connection, chosen, values))

    def forget(self, batch: Batch, now_ms: int) -> None:
        """Waits no longer for its results: what is unread counts as failed, and at what it was expected to cost.

        Should somebody read them after all, they are settled as ever.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        waiting = self.open_calls(batch)
        ended = [(replace(stored.call, status=CallStatus.FAILED, error=_FORGOTTEN), ()) for stored in waiting]
        self._ledger._write_with(ended, lambda connection: _ended(connection, batch, now_ms))

    def end(self, batch: Batch, now_ms: int) -> bool:
        """Settles the budgets of a batch of which every result is known; False where some are not.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._ledger._transaction() as connection:
            (waiting,) = connection.execute(
                f"SELECT EXISTS (SELECT 1 FROM calls WHERE batch_id = ? AND {_UNREAD})",  # noqa: S608 of this module
                (batch.batch_id,),
            ).fetchone()
            if not waiting:
                _ended(connection, batch, now_ms)
        return not waiting

    def _select(self, condition: str, *values: object) -> list[Batch]:
        with self._ledger._reading() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM batches WHERE {condition}", values).fetchall()  # noqa: S608 conditions of this module
        return [Batch(*row) for row in rows]


def _ended(connection: sqlite3.Connection, batch: Batch, now_ms: int) -> None:
    """Nothing more is waited for: what was set aside gives way to what is known, or expected."""
    (cost,) = connection.execute(
        "SELECT coalesce(sum(cost_nanousd), 0) FROM attempts "
        "WHERE call_id IN (SELECT call_id FROM calls WHERE batch_id = ?)",
        (batch.batch_id,),
    ).fetchone()
    settle_one(connection, batch.batch_id, cost)
    connection.execute(
        "UPDATE batches SET ended_at_ms = coalesce(ended_at_ms, ?) WHERE batch_id = ?", (now_ms, batch.batch_id)
    )
