"""A home with the plugin in it, and the companion that answers its hooks, as a process that the test may wait for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import ClaudeCode, Said, claude, home
from tests.gateway.conftest import KEY, serve, stopping
from tierwise.integrations.claude_code.companion import ask
from tierwise.integrations.claude_code.places import Places
from tierwise.ledger import Ledger
from tierwise.ledger.store import StoredCall
from tierwise.testing import StandInUpstream

__all__ = ["claude", "home", "serve", "stopping"]  # fixtures of the clients' and the gateway's own tests


@pytest.fixture
def upstream() -> Iterator[StandInUpstream]:
    """A stand-in for the API, whose key is the client's own."""
    with StandInUpstream(api_key=KEY) as server:
        yield server


@dataclass
class Plugged:
    """The CLI in a home of its own, where the plugin may be installed."""

    cli: ClaudeCode
    upstream: StandInUpstream
    base_url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What hooks, companion and `tierwise` see besides."""
        return {
            "ANTHROPIC_BASE_URL": self.base_url,
            "TIERWISE_LEDGER": str(self.ledger_path),
            "TIERWISE_CLAUDE_SOCKET": str(self.cli.home / "claude.sock"),
            # The machine may be busy: what is tested is not how fast it is.
            "TIERWISE_HOOK_SECONDS": "20",
            "CLAUDE_CODE_SESSIONEND_HOOKS_TIMEOUT_MS": "60000",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    @property
    def ledger_path(self) -> Path:
        """Where calls are recorded."""
        return self.cli.home / "ledger.db"

    @property
    def places(self) -> Places:
        """Where the plugin's parts are."""
        return Places.of({**self.cli.environment, **self.environment})

    def tierwise(self, *arguments: str) -> Said:
        """`tierwise …` to its end."""
        return self.cli.run([sys.executable, "-m", "tierwise", *arguments], **self.environment)

    def ask(self, *arguments: str, **environment: str) -> Any:
        """`claude -p … --output-format json`, which must go well."""
        words = ["claude", "-p", *arguments, "--output-format", "json"]
        said = self.cli.run(words, **{**self.environment, **environment})
        assert (said.status, said.err) == (0, ""), said
        return said.json

    def start_companion(self) -> None:
        """Starts it, and waits until it answers."""
        command = [sys.executable, "-m", "tierwise", "claude", "_companion", str(self.places.socket)]
        environment = {**self.cli.environment, **self.environment}
        self.processes.append(subprocess.Popen(command, env=environment, cwd=self.cli.cwd, stdin=subprocess.DEVNULL))
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            try:
                ask(self.places.socket, b"PreToolUse \n{}", seconds=30)
            except OSError:
                time.sleep(0.05)
            else:
                return
        pytest.fail("the companion does not answer")

    def stop_companion(self) -> None:
        """Ends it; what it was told of is recorded then."""
        for process in self.processes:
            if process.poll() is None:
                ask(self.places.socket, b"stop \n", seconds=30)
                assert process.wait(60) == 0

    def calls(self) -> list[StoredCall]:
        """What the ledger holds once the companion has ended."""
        self.stop_companion()
        with Ledger(self.ledger_path) as ledger:
            return list(ledger.calls())

    def models(self) -> list[str]:
        """The models of the requests that came, in order."""
        return [request.json["model"] for request in self.upstream.calls()]


@pytest.fixture
def plugged(claude: ClaudeCode, tmp_path: Path, upstream: StandInUpstream) -> Iterator[Plugged]:
    """A home without the plugin."""
    home = tmp_path / "home"
    home.mkdir()
    made = Plugged(ClaudeCode(home, claude.cwd), upstream, upstream.url)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture
def installed(plugged: Plugged) -> Plugged:
    """A home with the plugin."""
    said = plugged.tierwise("claude", "install", "--yes")
    assert said.status == 0, said
    return plugged
