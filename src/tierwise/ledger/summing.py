"""Makes the sums that a ledger lacks, beside whatever else the process does.

That is after an older ledger was opened, and where `tierwise ledger rebuild` was interrupted: see
`tierwise.ledger.folding`. It is done in pieces on a thread and a connection of its own, with a moment between them in
which others come to write. Several processes need not share the work: who is not the first with a piece stands back.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tierwise.core.errors import LedgerError

if TYPE_CHECKING:
    from types import TracebackType

    from tierwise.ledger.store import Ledger

__all__ = ["Summing"]

_BETWEEN_SECONDS = 0.02
_WHILE_OTHERS_DO_SECONDS = 10.0


class Summing:
    """A thread that ends when the roll-up lacks nothing, which sets `is_made`, or when it is closed."""

    def __init__(self, ledger: Ledger) -> None:
        self.is_made = threading.Event()
        self._ledger = ledger
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tierwise-sums", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, after the piece that it is at."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        calls: int | None = None
        with suppress(LedgerError):  # of one in trouble every record tells, and whoever opens it next goes on
            while self._ledger.is_behind:
                extended = self._ledger.extend_rollup(calls)
                calls = extended.calls
                if self._ending.wait(_BETWEEN_SECONDS if extended.is_ours else _WHILE_OTHERS_DO_SECONDS):
                    return
            self.is_made.set()
