"""A stand-in for GitHub, and a job of GitHub Actions that has run an agent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from click import Command
from click.testing import CliRunner

from tests.importers.transcripts import SESSION, Row, human, reply, usage, write
from tests.integrations.github.stand_in import TOKEN, GitHubStandIn, running
from tierwise import cli


@dataclass(frozen=True)
class Said:
    """What a step printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.out)


@dataclass
class Job:
    """A job on a pull request, in a home of its own."""

    folder: Path
    github: GitHubStandIn
    run_id: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """What the runner sets, as far as it matters here."""
        return {
            "HOME": str(self.folder),
            "TIERWISE_CONFIG": str(self.folder / "tierwise.toml"),
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": self.github.url,
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_RUN_ID": str(self.run_id),
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_JOB": "agent",
            "GITHUB_EVENT_PATH": str(self.folder / "event.json"),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNNER_TEMP": str(self.folder / "temp"),
            "GITHUB_TOKEN": TOKEN,
        }

    @property
    def summary(self) -> Path:
        """The job's page."""
        return self.folder / "summary.md"

    def event(self, told: Any) -> None:
        """What the job is about. It was written before the agents ran."""
        path = self.folder / "event.json"
        path.write_text(json.dumps(told))
        os.utime(path, (1_700_000_000, 1_700_000_000))

    def transcript(self, *rows: Row, session: str = SESSION) -> Path:
        """A session of Claude Code in this home."""
        path = self.folder / ".claude" / "projects" / "-home-dev" / f"{session}.jsonl"
        return write(path, [{**row, "sessionId": session} for row in rows])

    def comment(self, *arguments: str, **environment: str | None) -> Said:
        """`tierwise comment --json …`, of the only job there is."""
        foreign = {name: None for name in os.environ if name.startswith(("TIERWISE_", "ANTHROPIC_", "CLAUDE_", "XDG_"))}
        done = CliRunner().invoke(
            cast("Command", Program()),
            ["comment", "--fresh", "--json", "--settle", "0", *arguments],
            env={**foreign, **self.environment, **environment},
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)


class Program:
    """What CliRunner drives: the console script's own entry, with its exit codes."""

    name = "tierwise"

    def main(self, args: list[str], **_: object) -> None:
        cli.main(list(args))


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    """GitHub, as far as comments go."""
    with running() as stand_in:
        yield stand_in


@pytest.fixture
def job(tmp_path: Path, github: GitHubStandIn) -> Job:
    """A job on pull request 7 in which an agent made two calls, on Opus."""
    (tmp_path / "temp").mkdir()
    (tmp_path / "tierwise.toml").write_text('classifier = "rules"\n')
    made = Job(tmp_path, github)
    made.event({"pull_request": {"number": 7}})
    opus = {"model": "claude-opus-5-5"}
    made.transcript(
        human("Summarise this ticket in one line: the printer burns"),
        reply(1, 1, usage(20, 1000), message=opus),
        human("And this one: the lamp is broken", 20),
        reply(2, 21, usage(20, 1000), message=opus),
    )
    return made
