"""A receiver with the shipped configuration and prices, and a ledger of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.otlp.events import NOW_MS, body
from tierwise.config import load_settings
from tierwise.core.settings import Settings
from tierwise.engine.router import AsyncRouter
from tierwise.ledger import Ledger
from tierwise.ledger.store import StoredCall
from tierwise.otlp.receiver import Answer, Receiver
from tierwise.wire.otlp import Encoding


@dataclass
class Here:
    """The process that telemetry comes to."""

    settings: Settings
    router: AsyncRouter


@dataclass
class Received:
    """A receiver, and what came of what it was sent."""

    ledger: Ledger
    receiver: Receiver

    def take(self, *records: object, **resource: object) -> Answer:
        """Sends records, in one request."""
        return self.receiver.logs(body(*records, **resource), Encoding.JSON)

    def calls(self) -> list[StoredCall]:
        """What the ledger holds."""
        return list(self.ledger.calls())

    def call(self) -> StoredCall:
        """The only call."""
        (found,) = self.calls()
        return found


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    """One for all tests."""
    home = tmp_path_factory.mktemp("home")
    (home / "tierwise.toml").write_text('classifier = "rules"\n', encoding="utf-8")
    settings = load_settings(env={"HOME": str(home)}, cwd=home)
    return Here(settings, AsyncRouter(settings, record=False))


@pytest.fixture
def received(here: Here, tmp_path: Path) -> Iterator[Received]:
    """With an empty ledger."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        yield Received(ledger, Receiver(ledger, here, now_ms=lambda: NOW_MS + 5_000))
