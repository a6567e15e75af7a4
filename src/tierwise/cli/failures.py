"""Which exit code an error has."""

from __future__ import annotations

import sqlite3

from tierwise.core import errors

__all__ = ["exit_code_of"]

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.NotRun, 3),
    (errors.CostCeilingExceeded, 4),
    (errors.DeadlineExceeded, 4),
    (errors.RunError, 1),
    (errors.LedgerError, 5),
    (sqlite3.DatabaseError, 5),
    (errors.TierwiseError, 2),
    (OSError, 2),
)


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an expected error; None for one that is a fault of tierwise."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return None
