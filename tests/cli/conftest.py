"""Running the command line: in this process for speed, as the real program where that is what is promised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tierwise import cli
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind
from tierwise.core.money import Usage
from tierwise.ledger import Ledger, new_call_id
from tierwise.testing import StandInUpstream

PROGRAM = str(Path(sys.executable).with_name("tierwise"))
EXAMPLE = Path(__file__).parents[2] / "examples" / "article-workload.toml"
LABELLED = Path(__file__).with_name("labelled.jsonl")
NOWHERE = "127.0.0.1:9"  # the discard port: nobody listens, and a connection is refused at once
# Without a local tier, work goes to the stand-in; what fails, fails at once.
UPSTREAM_TOML = """\
[tiers.local]
enabled = false
[providers.anthropic]
base_url = "{url}"
[limits]
transient_retries = 0
backoff_base_seconds = 0.0
[ledger]
busy_timeout_ms = 50
"""


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """stdout as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class _Main:
    """What CliRunner drives: the console script's own entry, with its exit codes."""

    name = "tierwise"

    def main(self, args: list[str], **_: object) -> None:
        cli.main(list(args))


Tierwise = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, working directory and environment: nothing of the machine's own configuration is seen."""
    work = tmp_path / "work"
    work.mkdir()
    for name in list(os.environ):
        if name.startswith(("TIERWISE_", "ANTHROPIC_", "OPENAI_", "OPENROUTER_", "XDG_", "OLLAMA_")) or name in {
            "NO_COLOR",
            "FORCE_COLOR",
            "COLUMNS",
        }:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", NOWHERE)
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def ledger_path(home: Path) -> Path:
    """Where the ledger is by default."""
    return home.parent / ".local" / "share" / "tierwise" / "ledger.db"


@pytest.fixture
def tierwise(home: Path) -> Tierwise:
    """Runs a command in this process."""

    def run(*args: str, stdin: bytes | str | None = None, env: Mapping[str, str | None] | None = None) -> Done:
        result = CliRunner().invoke(_Main(), list(args), input=stdin, env=env)  # type: ignore[arg-type]
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def program(home: Path) -> Tierwise:
    """Runs the installed console script in a process of its own."""

    def run(*args: str | bytes, stdin: bytes = b"", env: Mapping[str, str | None] | None = None, **more: Any) -> Done:
        wanted = {**os.environ, **(env or {})}
        done = subprocess.run(
            [PROGRAM, *args],
            input=stdin,
            env={name: value for name, value in wanted.items() if value is not None},
            capture_output=True,
            timeout=300,
            check=False,
            **more,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def upstream(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInUpstream]:
    """A stand-in for the API, and a tierwise.toml that sends everything there."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "dummy")
    with StandInUpstream(api_key="dummy") as server:
        (home / "tierwise.toml").write_text(UPSTREAM_TOML.format(url=server.url))
        yield server


@pytest.fixture
def recorded(ledger_path: Path) -> Ledger:
    """A ledger with five calls of two tiers, one of them failed, one left open, one unpriced."""
    ledger = Ledger(ledger_path)
    for index, (tier, outcome, cost, baseline) in enumerate(
        [
            ("local", OutcomeKind.ACCEPTED, 0, 4_000_000),
            ("haiku", OutcomeKind.ACCEPTED, 500_000, 10_000_000),
            ("haiku", OutcomeKind.REJECTED, 250_000, 10_000_000),
            ("haiku", OutcomeKind.OPEN, 125_000, None),
            ("haiku", OutcomeKind.ACCEPTED, None, 10_000_000),
        ]
    ):
        day = 1_762_000_000_000 + index * 86_400_000
        call_id = new_call_id(day)
        status = {OutcomeKind.ACCEPTED: CallStatus.ANSWERED, OutcomeKind.OPEN: CallStatus.OPEN}.get(
            outcome, CallStatus.FAILED
        )
        call = CallRecord(
            call_id=call_id,
            started_at_ms=day,
            status=status,
            task_type="summarization" if index else "tagging",
            family="transform",
            needs="processing",
            confidence=0.9,
            abstained=False,
            tier=tier,
            model=f"model-of-{tier}",
            planned_tier=tier,
            baseline_model="claude-sonnet-5-5",
            baseline_nanousd=baseline,
            latency_ms=100,
            project="[/b] =cmd" if index == 1 else None,
        )
        attempt = AttemptRecord(
            call_id=call_id,
            number=1,
            tier=tier,
            model=f"model-of-{tier}",
            provider="anthropic",
            started_at_ms=day,
            outcome=outcome,
            usage=Usage(input_tokens=100, output_tokens=10),
            cost_nanousd=cost,
            latency_ms=90,
        )
        ledger.record(call, [attempt])
    ledger.close()
    return ledger
