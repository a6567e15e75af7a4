"""The stand-in for a model API behind clients that are wrapped in this process."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.conftest import settings_for
from tierwise.config import load_settings
from tierwise.core.decisions import CallStatus
from tierwise.core.settings import ProviderSettings, Settings
from tierwise.ledger import Ledger
from tierwise.ledger.store import StoredCall
from tierwise.providers.embedded import find_weights
from tierwise.testing import StandInUpstream

# Climbs at once, never opens a circuit.
QUICK = "[limits]\nbackoff_base_seconds = 0.01\ntransient_retries = 0\ncircuit_failures = 1000\n" + "".join(
    f"[tiers.{name}]\nretries = 0\n" for name in ("haiku", "sonnet", "opus")
)


@dataclass
class Host:
    """What a wrapped client is given, and what came of its calls."""

    upstream: StandInUpstream
    settings: Settings
    before: int = 0

    def calls(self) -> list[StoredCall]:
        """What the ledger holds, read as another process would."""
        with Ledger(self.settings.ledger.path) as ledger:
            return list(ledger.calls())[self.before :]

    def call(self) -> StoredCall:
        """The only call."""
        (found,) = self.calls()
        return found

    def ended_call(self) -> StoredCall:
        """The only call, when its record is closed: who breaks one off does not wait for that."""
        ends = time.monotonic() + 60
        while self.call().call.status is CallStatus.OPEN and time.monotonic() < ends:
            time.sleep(0.01)
        return self.call()

    def models(self) -> list[str]:
        """The models that were asked, in order."""
        return [str(request.json["model"]) for request in self.upstream.calls() if isinstance(request.json, dict)]


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One stand-in and one configuration for all tests of a module, and so one gateway."""
    with StandInUpstream() as running:
        folder = tmp_path_factory.mktemp("host")
        settings = settings_for(running, folder, QUICK, ANTHROPIC_API_KEY="sk-ant-configured")
        yield Host(running, settings)


@pytest.fixture
def host(hosted: Host) -> Host:
    """The same, with nothing of the tests before."""
    hosted.upstream.clear()
    path: Path = hosted.settings.ledger.path
    hosted.before = 0
    hosted.before = len(hosted.calls()) if path.exists() else 0
    return hosted


@pytest.fixture(scope="session")
def local_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A configuration by which the embedded model answers easy work, and nothing else is there to answer any."""
    embedded = ProviderSettings(name="embedded", kind="embedded")
    if importlib.util.find_spec("xllamacpp") is None or find_weights(embedded) is None:
        pytest.skip("xllamacpp or the weights are not installed (`make test` installs them)")
    folder = tmp_path_factory.mktemp("local")
    path = folder / "tierwise.toml"
    path.write_text("[gateway]\nembedded = true\n", encoding="utf-8")
    return load_settings(path=path, env={"HOME": str(folder), "TIERWISE_LEDGER": str(folder / "ledger.db")}, cwd=folder)
