"""A router on a stand-in upstream: real HTTP, a real ledger, a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tierwise.config import load_settings
from tierwise.core.decisions import AttemptRecord, CallRecord
from tierwise.engine.router import AsyncRouter
from tierwise.ledger import Ledger
from tierwise.report import spend
from tierwise.testing import StandInUpstream

KEY = "sk-stand-in-0123456789"
START = datetime(2026, 11, 22, 12, tzinfo=UTC)

# What the tests that wait for a limit to strike give the router; all others give it more time than any machine needs.
IMPATIENT = 0.3

CONFIG = """
[providers.anthropic]
base_url = "{url}"
connect_timeout_seconds = 60.0
first_token_timeout_seconds = {patience}
idle_timeout_seconds = {patience}
[providers.ollama]
base_url = "{url}"
connect_timeout_seconds = 60.0
first_token_timeout_seconds = {patience}
[tiers.local]
models = ["ollama:qwen3:8b"]
retries = 2
{more}
"""


class Clock:
    """Time stands still but for what is slept or moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The wall clock."""
        return START + timedelta(seconds=self.seconds - 1000)

    def monotonic(self) -> float:
        """Seconds."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Waits without waiting."""
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


@dataclass
class Rig:
    """What a live test works with."""

    upstream: StandInUpstream
    folder: Path
    ledger: Ledger
    clock: Clock = field(default_factory=Clock)
    problems: list[str] = field(default_factory=list)

    def router(self, more: str = "", *, key: str | None = KEY, patience: float = 60.0, **options: Any) -> AsyncRouter:
        """A router of this configuration, with this clock and ledger."""
        path = self.folder / "tierwise.toml"
        path.write_text(CONFIG.format(url=self.upstream.url, more=more, patience=patience), "utf-8")
        env = {"HOME": str(self.folder)} | ({} if key is None else {"ANTHROPIC_API_KEY": key})
        settings = load_settings(env=env, cwd=self.folder, path=path)
        options = {"ledger": self.ledger, "clock": self.clock, "random": lambda: 0.5, **options}
        return AsyncRouter(settings, **options)

    def bodies(self) -> list[Any]:
        """The bodies of the messages that were sent, in order."""
        return [request.json for request in list(self.upstream.requests) if request.method == "POST"]

    def models(self) -> list[str]:
        """The models that were asked, in order."""
        return [body["model"] for body in self.bodies()]

    def row(self, call_id: str) -> tuple[CallRecord, tuple[AttemptRecord, ...]]:
        """The one call, as the ledger has it."""
        stored = self.ledger.get(call_id)
        assert stored is not None
        return stored.call, stored.attempts

    def only_row(self) -> tuple[CallRecord, tuple[AttemptRecord, ...]]:
        """The only call of the ledger."""
        (stored,) = self.ledger.calls()
        return stored.call, stored.attempts

    def reported_usd(self) -> Decimal:
        """What the report says was spent."""
        return spend(self.ledger).total.cost_usd


@pytest.fixture
def upstream() -> Iterator[StandInUpstream]:
    """A stand-in that takes any key and knows one local model."""
    with StandInUpstream(ollama_models=["qwen3:8b"]) as running:
        yield running


@pytest.fixture
def rig(upstream: StandInUpstream, tmp_path: Path) -> Iterator[Rig]:
    """Everything a live test needs."""
    problems: list[str] = []
    ledger = Ledger(tmp_path / "ledger.db", on_problem=problems.append, spool_dirs=())
    yield Rig(upstream, tmp_path, ledger, problems=problems)
    ledger.close()


async def until(condition: Callable[[], object]) -> None:
    """Waits, without a clock of its own, until the stand-in has seen what the test needs it to see."""
    while not condition():
        await asyncio.sleep(0.005)
