"""`tierwise dashboard` really serves, says where, and ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.ledger.records import attempt, call
from tierwise.ledger import Ledger


def started(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """`tierwise dashboard`, without a browser."""
    return subprocess.Popen(
        [sys.executable, "-m", "tierwise", "dashboard", "--no-open", "--port", "0", "--json", *arguments],
        env={
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ":".join(sys.path),
            "TIERWISE_LEDGER": str(home / "ledger.db"),
        },
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def url_of(process: subprocess.Popen[str]) -> str:
    """Where it says that it is."""
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        text += line
    url: str = json.loads(text)["url"]
    return url


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dashboard over a ledger with a call, and its address."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.record(call("one"), [attempt("one")])
    process = started(tmp_path)
    try:
        yield process, url_of(process)
    finally:
        process.kill()
        process.communicate()


def test_it_shows_the_ledger_and_ends_when_told(shown: tuple[subprocess.Popen[str], str]) -> None:
    """Without a gateway; a page that listens does not hold it up."""
    process, url = shown
    base = url.removesuffix("/dashboard/")
    with httpx2.Client(base_url=base, timeout=60) as client:
        assert client.get("/api/v1/calls").json()["items"][0]["call_id"] == "one"
        limits = client.get("/api/v1/limits").json()
        assert not limits["available"]
        assert "/dashboard" in limits["note"]
        with client.stream("GET", "/api/v1/live") as events:
            lines = events.iter_lines()
            assert next(lines).startswith("retry")
            process.send_signal(signal.SIGTERM)
            assert "tierwise" in "".join(lines)  # until it ends
    process.wait(60)
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_it_does_not_listen_to_others_without_keys(tmp_path: Path) -> None:
    """It says how to make one."""
    process = started(tmp_path, "--host", "0.0.0.0")  # noqa: S104 it must refuse that
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "tierwise keys create" in said
