"""A gateway that really listens, before an upstream that is the stand-in; both on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tierwise.config import load_settings
from tierwise.core.settings import GatewaySettings, Settings
from tierwise.gateway.app import Gateway
from tierwise.gateway.server import GatewayServer, listen
from tierwise.ledger import Ledger
from tierwise.ledger.store import StoredCall
from tierwise.testing import StandInUpstream

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

    def post(self, body: bytes | str, path: str = "/v1/messages", **headers: str) -> httpx2.Response:
        """A request with the client's key."""
        given = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return httpx2.post(self.url + path, content=body, headers=given, timeout=30.0)

    def calls(self) -> list[StoredCall]:
        """What the ledger holds, read as another process would."""
        with Ledger(self.ledger_path) as ledger:
            return list(ledger.calls())

    def call(self) -> StoredCall:
        """The only call."""
        (found,) = self.calls()
        return found

    def stop(self) -> None:
        """Ends it; running calls finish first."""
        self.server.stop()
        self.thread.join(20)
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


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts gateways: `serve(upstream, toml=…, mode=…)`; each is stopped at the end."""
    running: list[Served] = []

    def start(upstream: StandInUpstream, toml: str = "", *, settings: Settings | None = None, **gateway: Any) -> Served:
        settings = settings or settings_for(upstream, tmp_path, toml)
        merged: GatewaySettings = replace(settings.gateway, port=0, **gateway)
        settings = replace(settings, gateway=merged)
        app = Gateway(settings)
        sock = listen("127.0.0.1", 0)
        server = GatewayServer(app, sock)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        ends = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < ends, "the gateway did not start"
            time.sleep(0.01)
        served = Served(f"http://127.0.0.1:{server.port}", app, server, upstream, settings.ledger.path, thread)
        running.append(served)
        return served

    yield start
    for served in running:
        if served.thread.is_alive():
            served.stop()


@pytest.fixture
def upstream() -> Iterator[StandInUpstream]:
    """The stand-in for Anthropic's API."""
    with StandInUpstream() as running:
        yield running
