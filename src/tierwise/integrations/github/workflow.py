"""What a job of GitHub Actions knows of itself: its repository, its pull request, its run, and when it began.

All of it stands in the environment and in the event's file.
https://docs.github.com/en/actions/reference/variables-reference
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tierwise.core.errors import ConfigError
from tierwise.core.json import Json

__all__ = ["Workflow"]

_MOST_BYTES = 64 * 1024 * 1024
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """The job that this process is a step of."""

    api_url: str
    repository: str  # owner/name
    pull_request: int | None  # None: the event is about none
    run_key: str  # the same however often this job's run reports
    began_at: datetime | None
    summary: Path | None  # the job's page: what is written there is shown
    execution_files: tuple[Path, ...]  # that claude-code-action left

    @classmethod
    def of(cls, environment: Mapping[str, str], *, pull_request: int | None = None) -> Self:
        """As the environment says it.

        Args:
            pull_request: instead of the event's.

        Raises:
            ConfigError: this is no job of GitHub Actions, or it says something that cannot be.
        """
        api_url, repository = environment.get("GITHUB_API_URL", ""), environment.get("GITHUB_REPOSITORY", "")
        if repository.count("/") != 1 or not api_url:
            raise ConfigError(
                "GITHUB_REPOSITORY and GITHUB_API_URL are not set: this is no job of GitHub Actions. "
                "--dry-run prints the comment anywhere"
            )
        parts = urlsplit(api_url)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise ConfigError(f"GITHUB_API_URL is {api_url}: a token is sent to https only")
        event = Path(environment["GITHUB_EVENT_PATH"]) if environment.get("GITHUB_EVENT_PATH") else None
        summary, temp = environment.get("GITHUB_STEP_SUMMARY"), environment.get("RUNNER_TEMP")
        return cls(
            api_url=api_url.rstrip("/"),
            repository=repository,
            pull_request=pull_request if pull_request is not None else _pull_request(_read(event)),
            run_key=".".join(
                environment.get(name, "").replace(".", "_")
                for name in ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB", "TIERWISE_JOB_INDEX")
            ),
            began_at=_written_at(event),
            summary=Path(summary) if summary else None,
            execution_files=_execution_files(Path(temp)) if temp else (),
        )


def _read(event: Path | None) -> Json:
    if event is None:
        return None
    try:
        with event.open("rb") as file:
            return json.loads(file.read(_MOST_BYTES))  # type: ignore[no-any-return]  # JSON is what it is
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"GITHUB_EVENT_PATH is {event}, which cannot be read: {error}") from None


def _pull_request(event: Json) -> int | None:
    """Its number: of an event about it, about a comment on it, or about a workflow that ran for it."""
    match event:
        case {"pull_request": {"number": int(number)}}:
            return number
        case {"issue": {"number": int(number), "pull_request": dict()}}:
            return number
        case {"workflow_run": {"pull_requests": [{"number": int(number)}, *_]}}:
            return number
    return None


def _written_at(event: Path | None) -> datetime | None:
    """When the job began: the runner writes the event then, and nobody after it."""
    try:
        return None if event is None else datetime.fromtimestamp(event.stat().st_mtime, UTC)
    except OSError:
        return None


def _execution_files(temp: Path) -> tuple[Path, ...]:
    name = "claude-execution-output.json"
    return tuple(path for path in (temp / name, *sorted(temp.glob(f"claude-execution-*/{name}"))) if path.is_file())
