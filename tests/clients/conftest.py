"""The real Claude Code CLI, and gateways before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import KEY, Served, serve, stopping, upstream

__all__ = ["serve", "stopping", "upstream"]  # fixtures of the gateway's own tests

PROGRAM = Path(sys.prefix) / "claude" / "node_modules" / ".bin" / "claude"
# No home, no settings and no variables of whoever runs the tests; whatever is not on loopback fails at once.
NO_NETWORK = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}
RETRIES = 1  # after the first try
NEVER_SECONDS = 180  # it takes one; what takes three minutes hangs


@dataclass(frozen=True)
class Said:
    """What a run of the CLI printed, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The result of `--output-format json`."""
        return json.loads(self.out)


@dataclass
class ClaudeCode:
    """The CLI, with a home that is not the user's, and a directory that it works in."""

    home: Path
    cwd: Path

    @property
    def environment(self) -> dict[str, str]:
        """All that it is told, but for where the API is."""
        return {
            "PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "CLAUDE_CODE_TMPDIR": str(self.home),
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_MAX_RETRIES": str(RETRIES),
            **NO_NETWORK,
            **QUIET,
        }

    def run(self, command: Sequence[str], **environment: str) -> Said:
        """A command in its environment, to its end."""
        done = subprocess.run(
            command,
            env={**self.environment, **environment},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=NEVER_SECONDS,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def text(self, gateway: Served, *arguments: str, **environment: str) -> Said:
        """`claude -p …`."""
        return self.run([str(PROGRAM), "-p", *arguments], ANTHROPIC_BASE_URL=gateway.url, **environment)

    def ask(self, gateway: Served, *arguments: str, **environment: str) -> Any:
        """`claude -p … --output-format json`, which must go well; the result."""
        said = self.text(gateway, *arguments, "--output-format", "json", **environment)
        assert said.status == 0, said
        return said.json


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests: to set one up takes the CLI half a second."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def claude(home: Path, tmp_path: Path) -> ClaudeCode:
    """The CLI that `make test` installs. Where it could not be, the tests say so; CI demands it."""
    if not PROGRAM.exists():
        why = f"Claude Code is not in {PROGRAM.parents[2]}: `make test` installs it where there is npm"
        if os.environ.get("DEMAND_CLAUDE_CODE"):
            pytest.fail(why)
        pytest.skip(why)
    cwd = tmp_path / "work"
    cwd.mkdir()
    return ClaudeCode(home, cwd)
