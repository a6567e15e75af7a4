"""A gateway that really listens, before an upstream that is the stand-in; both on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tierwise.classifier import choose_classifier, load_taxonomy
from tierwise.classifier.base import Classifier
from tierwise.config import load_settings
from tierwise.core.settings import GatewaySettings, Settings
from tierwise.gateway.app import Gateway
from tierwise.gateway.connections import ConnectionLimits
from tierwise.gateway.server import GatewayServer, listen
from tierwise.ledger import Ledger
from tierwise.ledger.store import StoredCall
from tierwise.testing import StandInUpstream

# One for all tests: to make one takes longer than most calls. No connection outlives its call.
HTTP = httpx2.Client(timeout=60, limits=httpx2.Limits(max_keepalive_connections=0))
KEY = "sk-ant-client-0123456789"
HEADERS = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}


@dataclass
class Served:
    """A gateway that runs, and what is around it."""

    url: str
    gateway: Gateway
    server: GatewayServer
    upstream: StandInUpstream
    ledger_path: Path
    thread: threading.Thread
    before: int = 0  # calls that are none of the test's

    def post(self, body: bytes | str, path: str = "/v1/messages", **headers: str) -> httpx2.Response:
        """A request with the client's key."""
        given = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return HTTP.post(self.url + path, content=body, headers=given, timeout=60)

    def calls(self) -> list[StoredCall]:
        """What the ledger holds, read as another process would."""
        with Ledger(self.ledger_path) as ledger:
            return list(ledger.calls())[self.before :]

    def call(self) -> StoredCall:
        """The only call."""
        (found,) = self.calls()
        return found

    def stop(self) -> None:
        """Ends it; running calls finish first."""
        self.server.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()


Serve = Callable[..., Served]


def settings_for(upstream: StandInUpstream, tmp_path: Path, toml: str = "", **env: str) -> Settings:
    """The shipped configuration with the upstream in Anthropic's place, no local models, and `toml` on top."""
    path = tmp_path / "tierwise.toml"
    path.write_text(f'[tiers.local]\nenabled = false\n[policy.roles]\nlocal = "haiku"\n{toml}\n', encoding="utf-8")
    return load_settings(
        path=path,
        env={
            "HOME": str(tmp_path),
            "ANTHROPIC_BASE_URL": upstream.url,
            "TIERWISE_LEDGER": str(tmp_path / "ledger.db"),
            **env,
        },
        cwd=tmp_path,
    )


@cache
def _classifier() -> Classifier:
    """One for all gateways of a run: to load it takes longer than most tests."""
    return choose_classifier(load_taxonomy())


@pytest.fixture(scope="session")
def stopping() -> Iterator[list[threading.Thread]]:
    """Gateways that are stopping: waited for at the very end, since each takes a quarter of a second."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def started(upstream: StandInUpstream, settings: Settings, limits: ConnectionLimits | None = None) -> Served:
    """A gateway that takes requests; whoever starts it stops it."""
    app = Gateway(settings)
    if settings.classifier == "trained" and not settings.task_types:
        app.router.planner.classifier = _classifier()
    sock = listen("127.0.0.1", 0)
    server = GatewayServer(app, sock, limits=limits)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ends = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < ends, "the gateway did not start"
        time.sleep(0.01)
    return Served(f"http://127.0.0.1:{server.port}", app, server, upstream, settings.ledger.path, thread)


@pytest.fixture
def serve(tmp_path: Path, stopping: list[threading.Thread]) -> Iterator[Serve]:
    """Starts gateways: `serve(upstream, toml=…, mode=…)`; each is stopped at the end."""
    running: list[Served] = []

    def start(
        upstream: StandInUpstream,
        toml: str = "",
        *,
        settings: Settings | None = None,
        connections: ConnectionLimits | None = None,
        **gateway: Any,
    ) -> Served:
        settings = settings or settings_for(upstream, tmp_path, toml)
        merged: GatewaySettings = replace(settings.gateway, port=0, **gateway)
        settings = replace(settings, gateway=merged)
        served = started(upstream, settings, connections)
        running.append(served)
        return served

    yield start
    for served in running:
        served.server.stop()
        stopping.append(served.thread)


@pytest.fixture
def upstream() -> Iterator[StandInUpstream]:
    """The stand-in for Anthropic's API."""
    with StandInUpstream() as running:
        yield running


@dataclass
class Process:
    """`tierwise serve` as a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    config: Path
    ledger_path: Path

    def post(self, body: str, path: str = "/v1/messages") -> httpx2.Response:
        """A request with the client's key."""
        return HTTP.post(self.url + path, content=body, headers=HEADERS, timeout=60)

    def wait_for_log(self, words: str) -> str:
        """The log, once these words are in it."""
        ends = time.monotonic() + 60
        while words not in (text := self.log.read_text(encoding="utf-8")):
            assert time.monotonic() < ends, text
            time.sleep(0.02)
        return text

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(60)


Run = Callable[..., Process]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts `tierwise serve` for an upstream: `run(upstream, toml)`; each is killed at the end."""
    started: list[Process] = []

    def start(
        upstream: StandInUpstream,
        toml: str = "",
        *,
        port: int = 0,
        ledger: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        settings = settings_for(upstream, tmp_path, toml)
        ledger_path = ledger or settings.ledger.path
        log = tmp_path / f"log-{len(started)}"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(tmp_path),
            "ANTHROPIC_BASE_URL": upstream.url,
            "TIERWISE_LEDGER": str(ledger_path),
            **(env or {}),
        }
        config = tmp_path / "tierwise.toml"
        config.write_text(f'classifier = "rules"\n{config.read_text(encoding="utf-8")}', encoding="utf-8")
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "tierwise", "--config", str(config), "serve", "--port", str(port), "--json"],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                cwd=tmp_path,
            )
        running = Process(process, "", log, config, ledger_path)
        started.append(running)
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"}\n") and (line := process.stdout.readline()):
            said += line
        running.url = url = json.loads(said)["url"] if said else ""
        ends = time.monotonic() + 60
        while url and not answers(url):
            assert time.monotonic() < ends, log.read_text(encoding="utf-8")
            time.sleep(0.02)
        return running

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()


def answers(url: str) -> bool:
    """Whether a gateway is there."""
    try:
        return HTTP.get(f"{url}/healthz", timeout=60).status_code == 200
    except httpx2.TransportError:
        return False
