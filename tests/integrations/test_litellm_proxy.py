"""LiteLLM's proxy itself, configured as the how-to says. Skipped where its own dependencies are not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.network import unused_port
from tierwise.core.decisions import CallStatus
from tierwise.ledger import Ledger
from tierwise.ledger.store import StoredCall
from tierwise.testing import Fault, StandInUpstream

for needed in ("fastapi", "apscheduler", "soundfile", "litellm"):
    pytest.importorskip(needed, reason="LiteLLM's proxy is not installed: pip install 'litellm[proxy]'")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
EASY = [{"role": "user", "content": "Summarise this ticket in one line: the printer burns"}]
KEY = "sk-7f3a91c2e0d84b6fa5c3e97d1b20486a"  # a weak one is refused
SERVE = """
import sys, uvicorn
from litellm.proxy.proxy_server import app
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""
CONFIG: dict[str, Any] = {
    "litellm_settings": {
        "custom_provider_map": [{"provider": "tierwise", "custom_handler": "tierwise.integrations.litellm.handler"}],
        "callbacks": "tierwise.integrations.litellm.tier_routing",
    },
    "general_settings": {"master_key": KEY},
    "router_settings": {"num_retries": 2},
}


@dataclass
class Proxy:
    """The proxy, and what is around it."""

    upstream: StandInUpstream
    url: str
    ledger: Path

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
        """A client's request."""
        given = {"authorization": f"Bearer {KEY}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        return httpx2.post(self.url + path, json=body, headers=given, timeout=60)

    def calls(self, attempts: int) -> list[StoredCall]:
        """What is recorded, once there are that many attempts."""
        found: list[StoredCall] = []
        for _ in range(3_000):
            if self.ledger.exists():
                with Ledger(self.ledger) as ledger:
                    found = list(ledger.calls())
            if sum(len(one.attempts) for one in found) >= attempts:
                break
            time.sleep(0.02)
        return found


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """LiteLLM's proxy, before a stand-in."""
    with StandInUpstream() as upstream:
        port = unused_port()
        there = {"api_base": upstream.url, "api_key": "sk-ant-of-litellm"}
        models = [{"model_name": "smart", "litellm_params": {"model": "tierwise/auto"}}]
        for model in (HAIKU, SONNET, OPUS):
            params = {"model": f"anthropic/{model}", **there}
            models.append({"model_name": "claude-tierwise-auto", "litellm_params": params})
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps({**CONFIG, "model_list": models}))  # which YAML is, too
        ledger = tmp_path / "ledger.db"
        running = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port)],
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "CONFIG_FILE_PATH": str(config),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network for prices
                "ANTHROPIC_BASE_URL": upstream.url,
                "ANTHROPIC_API_KEY": "sk-ant-of-tierwise",
                "TIERWISE_LEDGER": str(ledger),
            },
        )
        try:
            found = Proxy(upstream, f"http://127.0.0.1:{port}", ledger)
            for _ in range(600):
                assert running.poll() is None, "the proxy ended before it listened"
                try:
                    httpx2.get(f"{found.url}/health/liveliness", timeout=60)
                    break
                except httpx2.TransportError:
                    time.sleep(0.2)
            yield found
        finally:
            running.terminate()
            running.wait(60)


def test_proxy_serves_and_routes(proxy: Proxy) -> None:
    """The provider and the router's callback work in LiteLLM's proxy: chat, streams, Messages, options, retries."""
    upstream = proxy.upstream
    done = proxy.post("/v1/chat/completions", {"model": "smart", "messages": EASY})
    assert done.headers["llm_provider-x-tierwise-tier"] == "haiku"
    assert float(done.headers["x-litellm-response-cost"]) > 0
    proxy.post("/v1/chat/completions", {"model": "smart", "messages": EASY, "stream": True, "min_tier": "opus"})
    assert upstream.calls()[-1].headers["x-api-key"] == "sk-ant-of-tierwise"

    auto: dict[str, Any] = {"model": "claude-tierwise-auto", "messages": EASY}
    proxy.post("/v1/chat/completions", auto)
    said = {"x_tierwise_min_tier": "opus", "x_tierwise_project": "law"}
    proxy.post("/v1/chat/completions", {**auto, "stream": True}, **said)
    proxy.post("/v1/messages", {**auto, "max_tokens": 100, "stream": True, "system": "Be brief."})
    assert upstream.calls()[-1].headers["x-api-key"] == "sk-ant-of-litellm"
    upstream.fail(Fault.status(500))
    assert proxy.post("/v1/chat/completions", auto).status_code == 200
    refused = proxy.post("/v1/chat/completions", auto, x_tierwise_min_tier="hiku")
    assert (refused.status_code, "unknown tier 'hiku'" in refused.text) == (400, True)

    asked = [request.json["model"] for request in upstream.calls() if isinstance(request.json, dict)]
    assert asked[:5] == [HAIKU, OPUS, HAIKU, OPUS, HAIKU]
    found = proxy.calls(7)
    assert [one.call.status for one in found] == [CallStatus.ANSWERED] * 6
    assert [len(one.attempts) for one in found] == [1, 1, 1, 1, 1, 2]
    assert found[3].call.project == "law"
    costs = [attempt.cost_nanousd for one in found for attempt in one.attempts]
    assert None not in costs
    assert costs.count(0) == 1  # of the attempt that failed
