"""A dashboard over a small ledger, asked as a browser would, without a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.ledger.records import DAY_MS, attempt, call
from tierwise.config import load_settings
from tierwise.core.decisions import CallStatus, OutcomeKind, PlannedRung, Reason
from tierwise.core.settings import Settings
from tierwise.dashboard.app import Dashboard
from tierwise.dashboard.runtime import Alone
from tierwise.ledger import Ledger

START_MS = 20_777 * DAY_MS  # 20 November 2026: of then, models and prices are known
NOW_MS = START_MS + 12 * 3_600_000
HOUR_MS = 3_600_000
URL = "http://127.0.0.1:8485"
CHANGE = {"x-tierwise-request": "1", "content-type": "application/json"}
HOSTILE = "<script>alert(1)</script>\"'&\u202eRTL\u0000\n" + "x" * 1_000


@dataclass
class Asked:
    """A dashboard, and a client of it."""

    dashboard: Dashboard
    ledger: Ledger
    client: httpx2.AsyncClient
    runtime: Alone

    async def get(self, path: str, /, **query: str | int) -> Any:
        """The answer to a question that is answered."""
        answer = await self.client.get(f"/api/v1{path}", params={name: str(value) for name, value in query.items()})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, path: str, /, status: int, **query: str) -> dict[str, str]:
        """Why a question is not answered."""
        answer = await self.client.get(f"/api/v1{path}", params=query)
        assert answer.status_code == status, answer.text
        error: dict[str, str] = answer.json()["error"]
        assert all(error[part] for part in ("what", "where", "do"))
        return error

    async def post(self, path: str, body: object, /, **headers: str) -> httpx2.Response:
        """A change."""
        return await self.client.post(f"/api/v1{path}", content=json.dumps(body), headers={**CHANGE, **headers})


def settings_in(folder: Path) -> Settings:
    """The shipped configuration, and a ledger in that folder."""
    return load_settings(path=None, env={"HOME": str(folder), "TIERWISE_LEDGER": str(folder / "ledger.db")}, cwd=folder)


def fill(ledger: Ledger) -> None:
    """A few calls of every kind: answered at once, climbed, failed, unpriced, hostile; two of one conversation."""
    haiku, sonnet = "claude-haiku-4-5", "claude-sonnet-4-5"
    ledger.record(
        call(
            "plain",
            started_at_ms=START_MS,
            model=haiku,
            tier="haiku",
            baseline_nanousd=9_000_000,
            ladder=None,
            session="s/1",
            tags=(("kind", "main"),),
        ),
        [attempt("plain", started_at_ms=START_MS, model=haiku, cost_nanousd=2_000_000)],
    )
    ledger.record(
        call(
            "climbed",
            started_at_ms=START_MS + HOUR_MS,
            model=sonnet,
            tier="sonnet",
            session="s/1",
            task_type="code_review",
            baseline_nanousd=8_000_000,
            tags=(("kind", "subagent"),),
            reasons=(Reason("classified", "code_review (90% sure): judgment"), Reason("climb", "schema")),
            ladder=(
                PlannedRung("haiku", haiku, 900_000),
                PlannedRung("sonnet", sonnet, 11_000_000),
                PlannedRung("opus", "claude-opus-4-5", 55_000_000),
            ),
            latency_ms=4_000,
        ),
        [
            attempt(
                "climbed",
                model=haiku,
                started_at_ms=START_MS + HOUR_MS,
                outcome=OutcomeKind.REJECTED,
                detail="the reply is no JSON",
                cost_nanousd=1_000_000,
            ),
            attempt(
                "climbed",
                2,
                model=sonnet,
                tier="sonnet",
                started_at_ms=START_MS + HOUR_MS + 1_000,
                wait_ms=100,
                cost_nanousd=12_000_000,
            ),
        ],
    )
    ledger.record(
        call(
            "failed",
            started_at_ms=START_MS + 2 * HOUR_MS,
            status=CallStatus.FAILED,
            session=None,
            project=None,
            baseline_nanousd=None,
            error="every model is overloaded",
        ),
        [attempt("failed", started_at_ms=START_MS + 2 * HOUR_MS, outcome=OutcomeKind.OVERLOADED, cost_nanousd=0)],
    )
    ledger.record(
        call("unpriced", started_at_ms=START_MS + 3 * HOUR_MS, project="q", session=None),
        [attempt("unpriced", started_at_ms=START_MS + 3 * HOUR_MS, price=None, cost_nanousd=None)],
    )
    ledger.record(
        call(
            "hostile",
            started_at_ms=START_MS + 4 * HOUR_MS,
            project=HOSTILE,
            session=HOSTILE,
            task_type=HOSTILE,
            model=HOSTILE,
            error=HOSTILE,
            reasons=(Reason("x", HOSTILE),),
            tags=((HOSTILE, HOSTILE),),
        ),
        [attempt("hostile", model=HOSTILE, started_at_ms=START_MS + 4 * HOUR_MS, detail=HOSTILE)],
    )


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Asked]:
    """A dashboard over a ledger that has no calls yet."""
    settings = settings_in(tmp_path)
    with Ledger.of(settings.ledger) as ledger:
        runtime = Alone(settings, ledger, demands_keys=False)
        dashboard = Dashboard(ledger, runtime, version="0", now_ms=lambda: NOW_MS)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=dashboard), base_url=URL) as client:
            yield Asked(dashboard, ledger, client, runtime)
        dashboard.close()


@pytest.fixture
def asked(empty: Asked) -> Asked:
    """A dashboard over a few calls of every kind."""
    fill(empty.ledger)
    return empty


__all__ = ["CHANGE", "DAY_MS", "HOSTILE", "HOUR_MS", "NOW_MS", "START_MS", "URL", "Asked", "fill", "settings_in"]
