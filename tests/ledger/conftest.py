"""A ledger in a directory of its own, which says what troubled it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tierwise.ledger import Ledger


class Opened:
    """Opens ledgers that spool nowhere but beside themselves, and collects what they complain of."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ledger.db"
        self.problems: list[str] = []
        self._all: list[Ledger] = []

    def __call__(self, path: Path | None = None, **settings: Any) -> Ledger:
        settings.setdefault("spool_dirs", ())
        settings.setdefault("on_problem", self.problems.append)
        ledger = Ledger(path or self.path, **settings)
        self._all.append(ledger)
        return ledger

    def close(self) -> None:
        for ledger in self._all:
            ledger.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    found = Opened(tmp_path)
    yield found
    found.close()


@pytest.fixture
def ledger(opened: Callable[..., Ledger]) -> Ledger:
    return opened()
