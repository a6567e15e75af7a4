"""What is seen can be taken along: as CSV, as PNG."""

from __future__ import annotations

import csv
import struct
from io import StringIO

import pytest
from playwright.sync_api import Page

from tests.dashboard.page.conftest import VIEWS, Look
from tests.gateway.conftest import Served

MONTH = "range=30d"


def taken(page: Page, name: str) -> tuple[str, bytes]:
    """What a button downloads."""
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def test_csv_holds_the_figures_of_the_api(look: Look, full: Served) -> None:
    """Exact, not as they are rounded on the screen, and readable by spreadsheets."""
    seen = look(full)
    page = seen.open(f"?view=task-types&{MONTH}&tier=haiku")
    name, content = taken(page, "Task types as CSV")
    assert name == "tierwise-task-types.csv"
    rows = list(csv.DictReader(StringIO(content.decode("utf-8-sig"))))
    told = seen.again("task-types")["items"]
    assert [(row["task_type"], row["cost_usd"], row["calls"]) for row in rows] == [
        (item["task_type"], item["cost_usd"], str(item["calls"])) for item in told
    ]


@pytest.mark.parametrize("view", [view for view in VIEWS if view != "what-if"])
def test_every_panel_can_be_taken_along(look: Look, full: Served, view: str) -> None:
    """Each CSV has a head and rows; each PNG is a picture that is large enough to read."""
    page = look(full).open(f"?view={view}&{MONTH}")
    buttons = page.locator("main [aria-label$=CSV], main [aria-label$=PNG]").all()
    labels = [str(button.get_attribute("aria-label")) for button in buttons]
    assert labels
    for label in labels:
        _, content = taken(page, label)
        if label.endswith("CSV"):
            rows = list(csv.reader(StringIO(content.decode("utf-8-sig"))))
            assert len(rows) > 1, label
            assert len({len(row) for row in rows}) == 1, label
        else:
            assert content.startswith(b"\x89PNG\r\n\x1a\n"), label
            width, height = struct.unpack(">II", content[16:24])
            assert width >= 200, label
            assert height >= 50, label
