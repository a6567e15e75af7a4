"""The API keeps to its OpenAPI document: schemathesis asks every operation, as documented and not as documented.

A real server is asked, over a ledger with calls of every kind.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.dashboard.conftest import NOW_MS, fill, settings_in
from tierwise.dashboard.app import Dashboard
from tierwise.dashboard.openapi import document
from tierwise.dashboard.runtime import Alone
from tierwise.gateway.server import listen
from tierwise.ledger import Ledger

schemathesis = pytest.importorskip("schemathesis")
DOCUMENT: Any = document("0")
# A type cannot say which names there are: 422 is an answer to what fits it.
SOUND = ["2xx", "404", "422", "429"]
CONFIG = schemathesis.Config.from_dict({"checks": {"positive_data_acceptance": {"expected-statuses": SOUND}}})
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG).exclude(path="/api/v1/live")  # has no end


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard that really listens. Its clock runs fast, so that no question is one too many."""
    import uvicorn

    folder: Path = tmp_path_factory.mktemp("schemathesis")
    configured = settings_in(folder)
    with Ledger.of(configured.ledger) as ledger:
        fill(ledger)
        runtime = Alone(configured, ledger, demands_keys=False)
        dashboard = Dashboard(
            ledger, runtime, version="0", now_ms=lambda: NOW_MS, clock=lambda: time.monotonic() * 10_000
        )
        sock = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(dashboard, log_config=None, lifespan="on"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
        thread.start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)


@SCHEMA.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
def test_every_answer_is_as_documented(case: Any, url: str) -> None:
    """What fits is answered in its type, what does not is refused in words; nothing is a fault of ours."""
    case.call_and_validate(base_url=url, timeout=60)


def test_every_reference_leads_somewhere() -> None:
    """And every operation has a name of its own, a summary and a type."""
    names = set(DOCUMENT["components"]["schemas"])

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(found := node.get("$ref"), str):
                yield found
            for inner in node.values():
                yield from references(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from references(inner)

    assert {one.removeprefix("#/components/schemas/") for one in references(DOCUMENT)} <= names
    operations = [one for path in DOCUMENT["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert all(one["summary"].endswith(".") for one in operations)
