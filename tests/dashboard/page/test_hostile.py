"""Text that came with the data is shown as text: HTML, writing from right to left, ten thousand characters."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.page.conftest import NARROW, VIEWS, WIDE, Look
from tests.dashboard.page.history import SCRIPT
from tests.gateway.conftest import Served


def harmless(page: Page) -> bool:
    """Whether nothing of the data became an element of the page."""
    made: int = page.locator("main img, dialog img, main script, dialog script, [onerror]").count()
    return made == 0


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_view_takes_text_for_anything_else(look: Look, hostile: Served, view: str, width: int) -> None:
    """Names of everything that a call has may be anything: they stand there as they are, and nothing sticks out."""
    seen = look(hostile, width=width)
    page = seen.open(f"?view={view}")
    assert harmless(page)
    assert seen.overflows == []
    if view in ("overview", "task-types", "calls"):
        expect(page.locator("main").get_by_text(SCRIPT[:30]).first).to_be_visible()


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_call_takes_text_for_anything_else(look: Look, hostile: Served, width: int) -> None:
    """Opened, too: reasons, errors, tags, models, details, captured text."""
    seen = look(hostile, width=width)
    page = seen.open("?view=calls&call=hostile-1")
    expect(page.get_by_role("dialog").get_by_text("rejected")).to_be_visible()
    assert harmless(page)
    assert seen.overflows == []


def test_a_conversation_with_a_hostile_name_opens(look: Look, hostile: Served) -> None:
    """The name of a session goes through address and path, and comes back as text."""
    seen = look(hostile)
    page = seen.open("?view=calls")
    page.locator("tbody tr").first.locator("button").last.click()
    seen.settled()
    expect(page.get_by_role("dialog").get_by_text(SCRIPT).first).to_be_visible()
    assert harmless(page)


@pytest.mark.parametrize("name", ["project", "tier", "text", "task_type", "call", "conversation", "type", "since"])
def test_a_hostile_address_is_harmless(look: Look, hostile: Served, name: str) -> None:
    """A link that somebody sends may be answered with an error, never with a script."""
    seen = look(hostile)
    seen.page.goto(f"{seen.url}/dashboard/?view=calls&{name}=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    seen.settled()
    if name in ("call", "conversation", "type"):  # it is read once the view has been
        expect(seen.page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    assert harmless(seen.page)
    seen.complaints = [one for one in seen.complaints if "status of 40" not in one]  # the console tells of each 4xx


def test_the_page_runs_under_its_own_policy(look: Look, hostile: Served) -> None:
    """No inline script or style runs, and nothing is loaded from elsewhere."""
    seen = look(hostile)
    page = seen.open()
    refused = page.evaluate(
        """() => new Promise((resolve) => {
          document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.harmed = true";
          document.body.append(script);
        })"""
    )
    assert refused == "script-src-elem"
    assert page.evaluate("window.harmed") is None
    assert all(request.url.startswith((seen.url, "blob:", "data:")) for request in seen.asked)
    seen.complaints.clear()  # the refusal that this test asked for
