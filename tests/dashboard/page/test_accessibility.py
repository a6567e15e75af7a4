"""The page without a mouse, and with a screen reader: axe finds nothing, and everything can be reached by keys."""

from __future__ import annotations

import os
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.page.conftest import AXE, NARROW, VIEWS, WIDE, Look
from tests.gateway.conftest import Served

MONTH = "range=30d"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture
def axe() -> str:
    """The checker that `make test` installs. Where it could not be, the tests say so; CI demands it."""
    if not AXE.exists():
        why = f"axe-core is not in {AXE.parent}: `make test` installs it where there is npm"
        if os.environ.get("DEMAND_CHROMIUM"):
            pytest.fail(why)
        pytest.skip(why)
    return AXE.read_text(encoding="utf-8")


def violations(page: Page, axe: str) -> list[tuple[str, list[str]]]:
    """What axe finds. The policy of the page would not let it in as a script: the debugger may."""
    page.evaluate(f"() => {{ {axe} }}")
    found: dict[str, Any] = page.evaluate(
        "(rules) => axe.run(document, { runOnly: rules, resultTypes: ['violations'] })", RULES
    )
    return [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found["violations"]]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(look: Look, full: Served, axe: str, view: str, dark: bool) -> None:
    """No violation on any view, in either theme."""
    assert violations(look(full, dark=dark).open(f"?view={view}&{MONTH}"), axe) == []


@pytest.mark.parametrize("what", ["call=call-01100", "type=debugging", "tier=haiku", ""])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_axe_finds_nothing_in_what_is_opened(look: Look, full: Served, axe: str, what: str, width: int) -> None:
    """Nor in a call, in a task type, with filters set, on a narrow screen."""
    assert violations(look(full, width=width).open(f"?view=calls&{MONTH}&{what}"), axe) == []


def test_axe_finds_nothing_on_an_empty_page(look: Look, bare: Served, axe: str) -> None:
    """Nor where there is nothing yet."""
    assert violations(look(bare).open(), axe) == []


def test_everything_is_reached_by_keys(look: Look, full: Served) -> None:
    """Skip link, view, row, call, back to the same row, and a chart read value by value: never a mouse."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("4")
    seen.settled()
    expect(page.locator("main")).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('tbody button')"):
            break
    row = page.evaluate("document.activeElement.dataset.key")
    page.keyboard.press("Enter")
    seen.settled()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.key") == row
    page.keyboard.press("1")
    seen.settled()
    page.locator(".chart").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".chart [role=status]").first).to_contain_text("sonnet $")


@pytest.mark.parametrize("width", [WIDE, 1024, 800, NARROW])
def test_what_has_the_focus_is_seen(look: Look, full: Served, width: int) -> None:
    """Whatever Tab leads to is on the screen, and not under the head that stays at its top (WCAG 2.2, 2.4.11)."""
    page = look(full, width=width, height=700).open(f"?view=quality&{MONTH}")
    for _ in range(35):
        page.keyboard.press("Tab")
        covered = page.evaluate(
            """() => {
              const at = document.activeElement;
              if (at === document.body || at.matches("header *, .skip")) return null;
              const [box, head] = [at, document.querySelector("header")].map((one) => one.getBoundingClientRect());
              return box.top < head.bottom || box.top >= innerHeight ? at.outerHTML.slice(0, 100) : null;
            }"""
        )
        assert covered is None


def test_filters_are_set_by_keys(look: Look, full: Served) -> None:
    """To the filters, into a picker, a choice by its first letters, another picker, and all of them off again."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    page.keyboard.press("f")
    expect(page.get_by_role("combobox", name="Time", exact=True)).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "filter-tier":
            break
    page.keyboard.type("son")
    page.wait_for_url("**tier=sonnet**")
    seen.settled()
    expect(page.get_by_role("combobox", name="Tier", exact=True)).to_be_focused()
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "clear":
            break
    page.keyboard.press("Enter")
    seen.settled()
    assert "tier" not in seen.query


def test_a_chart_can_be_read_as_a_table(look: Look, full: Served) -> None:
    """The figures of a chart, for those who do not see it."""
    page = look(full).open(f"?{MONTH}")
    panel = page.get_by_role("region", name="Cost over time, by tier", exact=True).first
    panel.get_by_role("button", name="Table").click()
    expect(panel.get_by_role("columnheader", name="haiku")).to_be_visible()
    assert panel.locator("tbody tr").count() > 20


def test_keys_are_listed(look: Look, full: Served) -> None:
    """A question mark shows them."""
    page = look(full).open(f"?{MONTH}")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog").get_by_text("the six views")).to_be_visible()


def test_a_theme_can_be_chosen_and_is_kept(look: Look, full: Served) -> None:
    """Whatever the system says, and after a reload."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("d")
    seen.settled()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    seen.settled()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_a_browser_that_keeps_nothing_shows_the_page(look: Look, full: Served) -> None:
    """Where site data is blocked even asking for it is an error; a theme then lasts as long as the page is open."""
    seen = look(full)
    seen.page.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"])
          Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });"""
    )
    page = seen.open(f"?{MONTH}")
    expect(page.get_by_role("region", name="Spent", exact=True)).to_be_visible()
    page.keyboard.press("d")
    seen.settled()
    expect(page.get_by_role("button", name="Theme: dark. Change it")).to_be_visible()
