"""`tierwise dashboard`, by itself: the page over a ledger that others write, and what only a gateway knows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.cli.test_dashboard import started, url_of
from tests.dashboard.page.conftest import VIEWS, Look
from tests.dashboard.page.history import record_history
from tests.ledger.records import attempt, call
from tierwise.ledger import Ledger


@dataclass(frozen=True)
class ByItself:
    """A dashboard's process, and its ledger."""

    url: str
    ledger: Path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByItself]:
    """`tierwise dashboard` over three weeks of calls."""
    home = tmp_path_factory.mktemp("alone")
    path = home / "ledger.db"
    with Ledger(path) as ledger:
        record_history(ledger)
    process = started(home)
    yield ByItself(url_of(process).removesuffix("/dashboard/"), path)
    process.terminate()
    process.communicate(timeout=300)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_there_without_a_gateway(look: Look, alone: ByItself, view: str) -> None:
    """Nothing fails and nothing complains; what only a gateway knows is said to be there."""
    page = look(alone).open(f"?view={view}&range=30d")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_text("No gateway here")).to_have_count(2 if view == "limits" else 0)


def test_calls_of_another_process_appear(look: Look, alone: ByItself) -> None:
    """Whoever writes the ledger: its calls are in the open log, and open at a click."""
    seen = look(alone)
    page = seen.open("?view=calls&range=24h&project=elsewhere")
    expect(page.get_by_text("No such calls")).to_be_visible()
    now_ms = time.time_ns() // 1_000_000
    with Ledger(alone.ledger) as ledger:
        made = call("made-elsewhere", started_at_ms=now_ms, project="elsewhere", ladder=None)
        ledger.record(made, [attempt("made-elsewhere", started_at_ms=now_ms)])
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody tr").click()
    seen.settled()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("made-elsewhere")).to_be_visible()
    expect(dialog.get_by_text("not kept", exact=True).first).to_be_visible()
