"""Calls as the ledger has them, read back from its rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tierwise.core.decisions import AttemptRecord, CallRecord
from tierwise.core.money import Price
from tierwise.ledger import codec
from tierwise.ledger.codec import CALL_COLUMNS
from tierwise.ledger.connection import explain
from tierwise.ledger.feedback import FEEDBACK_COLUMNS, Feedback, feedback_from_row
from tierwise.ledger.merging import SELECT_ATTEMPTS

__all__ = ["Reading", "StoredCall", "read_calls"]

_SELECT_FEEDBACK = f"SELECT {', '.join(FEEDBACK_COLUMNS)} FROM feedback WHERE call_id = ?"  # noqa: S608 column names only


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call as the ledger has it, its attempts by number, and what was said of it."""

    call: CallRecord
    attempts: tuple[AttemptRecord, ...]
    feedback: Feedback | None = None


class Reading:
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


def read_calls(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> Iterator[StoredCall]:
    """The calls of a condition on the table `calls`, oldest first, read as they are asked for."""
    prices: dict[str, Price] = {}
    columns = ", ".join(CALL_COLUMNS)
    calls = connection.execute(
        f"SELECT {columns} FROM calls WHERE {condition} ORDER BY started_at_ms, call_id",  # noqa: S608 column names only
        values,
    )
    for row in calls:
        attempts = []
        for attempt in connection.execute(SELECT_ATTEMPTS + " ORDER BY number", (row[0],)):
            digest = attempt[16]
            if digest is not None and digest not in prices:
                found = connection.execute("SELECT price FROM prices WHERE digest = ?", (digest,)).fetchone()
                if found is not None:
                    prices[digest] = codec.price_from_text(found[0])
            attempts.append(codec.attempt_from_row(attempt, prices.get(digest) if digest is not None else None))
        said = connection.execute(_SELECT_FEEDBACK, (row[0],)).fetchone()
        yield StoredCall(codec.call_from_row(row), tuple(attempts), None if said is None else feedback_from_row(said))
