"""The page in a real Chromium, over a gateway that really listens; what it complains of fails the test."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, Route, expect, sync_playwright

from tests.dashboard.page.history import record_history, record_hostile, record_unpriced
from tests.gateway.conftest import Served, serve, settings_for, started, stopping, upstream
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream

__all__ = ["serve", "stopping", "upstream"]  # fixtures of the gateway's own tests

NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE = Path(sys.prefix) / "page" / "axe.min.js"
WIDE, NARROW = 1280, 360
VIEWS = ("overview", "task-types", "quality", "calls", "limits", "what-if")
PATIENCE_MS = 60_000  # what takes so long hangs; Playwright itself expects everything within five seconds
expect.set_options(timeout=PATIENCE_MS)


def queried(address: str) -> dict[str, str]:
    """The query of an address, by name."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query, keep_blank_values=True).items()}


@dataclass
class Seen:
    """A page that is open, and what it asked and complained of."""

    page: Page
    url: str
    asked: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expects: str | None = None  # how a dialog begins that the test accepts
    answering: Callable[[Route], None] | None = None  # how the next question that is intercepted is answered

    def asks(self, request: Request) -> None:
        """It asked for something."""
        self.asked.append(request)

    def complains(self, of: str) -> None:
        """It complained, on the console or by failing."""
        self.complaints.append(of)

    def asks_back(self, dialog: Dialog) -> None:
        """It opened a dialog of the browser; one that no test expects is what a script of the data would open."""
        if self.expects is not None and dialog.message.startswith(self.expects):
            dialog.accept()
        else:
            self.complains(f"a dialog: {dialog.message}")
            dialog.dismiss()

    def open(self, query: str = "") -> Page:
        """The page at an address, once it shows what it says."""
        self.page.goto(f"{self.url}/dashboard/{query}")
        return self.settled()

    def settled(self) -> Page:
        """The page, once it has read what it shows."""
        self.page.wait_for_selector("main[aria-busy=false]")
        expect(self.page.locator(".waiting, dialog[open] [aria-busy=true]")).to_have_count(0, timeout=PATIENCE_MS)
        return self.page

    def intercept(self, path: str) -> None:
        """Has questions of a kind stop where the test can be `answering` the next one.

        Before the page is opened: on an open one, the first question after this may still go past it.
        """

        def stopped(route: Route) -> None:
            answering, self.answering = self.answering, None
            if answering is None:
                route.continue_()
            else:
                answering(route)

        self.page.route(f"**/api/v1/{path}?*", stopped)

    def api(self, path: str, **query: str) -> Any:
        """What the API answers to the page itself."""
        return self.page.evaluate(
            "([path, query]) => fetch(`/api/v1/${path}?${new URLSearchParams(query)}`).then((answer) => answer.json())",
            [path, query],
        )

    def again(self, path: str) -> Any:
        """What the API answers to the last question that the page asked it of this kind."""
        url = self.queries(path)[-1]
        return self.page.evaluate("(url) => fetch(url).then((answer) => answer.json())", url)

    @property
    def query(self) -> dict[str, str]:
        """What the address asks for, as the page has it now: what Playwright knows of it may be a moment older."""
        address: str = self.page.evaluate("location.search")
        return queried(address)

    def queries(self, path: str) -> list[str]:
        """How a path of the API was asked so far."""
        return [request.url for request in self.asked if f"/api/v1/{path}?" in request.url]

    @property
    def overflows(self) -> list[str]:
        """What sticks out of the screen, or text that does out of its box."""
        found: list[str] = self.page.evaluate(
            """() => {
              const wide = document.documentElement.scrollWidth > innerWidth ? ["the page itself"] : [];
              const out = [...document.querySelectorAll("main *, header *, dialog[open] *")].filter((element) => {
                if (element.closest(".scroll, svg, .uplot, nav, .sr-only, select")) return false;
                if (!element.clientWidth) return false;
                const style = getComputedStyle(element);
                if (style.overflowX !== "visible" || style.display === "inline") return false;
                return element.scrollWidth > element.clientWidth + 1;
              });
              const told = (element) => `${element.tagName}.${element.className}: ${element.textContent.slice(0, 60)}`;
              return [...wide, ...out.map(told)];
            }"""
        )
        return found


Look = Callable[..., Seen]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine. Where there is none, the tests say so; CI demands it."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        why = f"none of {', '.join(NAMES)} is installed: apt-get install chromium"
        if os.environ.get("DEMAND_CHROMIUM"):
            pytest.fail(why)
        pytest.skip(why)
    # In a container there is no user namespace for its sandbox; it opens nothing but pages of ours on loopback.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=5 * PATIENCE_MS)
        yield browser
        browser.close()


def opened(
    browser: Browser, gateway: Served, *, width: int = WIDE, height: int = 800, dark: bool = False, zone: str = "UTC"
) -> Seen:
    """A new window for a gateway's page, which is not gone to yet; errors and refusals of any kind are complaints."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        locale="en-GB",
        timezone_id=zone,
        accept_downloads=True,
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    seen = Seen(page, gateway.url)
    page.on("request", seen.asks)
    page.on("pageerror", lambda error: seen.complains(str(error)))
    page.on("console", lambda said: seen.complains(said.text) if said.type in ("error", "warning") else None)
    page.on("dialog", seen.asks_back)
    return seen


@pytest.fixture
def look(chromium: Browser) -> Iterator[Look]:
    """Opens pages of a gateway: `look(gateway, width=…, dark=…)`. What they complain of fails the test."""
    pages: list[Seen] = []

    def start(gateway: Served, **screen: Any) -> Seen:
        pages.append(opened(chromium, gateway, **screen))
        return pages[-1]

    yield start
    for seen in pages:
        seen.page.context.close()
        assert seen.complaints == []


@dataclass(frozen=True)
class Gateways:
    """Gateways over ledgers of each kind, each started when it is first wanted."""

    folder: Path
    upstream: StandInUpstream
    running: dict[str, Served] = field(default_factory=dict)

    def over(self, name: str, fill: Callable[[Ledger], None]) -> Served:
        """A gateway over a ledger that was filled."""
        if name not in self.running:
            folder = self.folder / name
            folder.mkdir()
            settings = settings_for(self.upstream, folder)
            with Ledger(settings.ledger.path) as ledger:
                fill(ledger)
            self.running[name] = started(self.upstream, settings)
        return self.running[name]


@pytest.fixture(scope="package")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """Those of the tests that only look."""
    with StandInUpstream() as running:
        made = Gateways(tmp_path_factory.mktemp("dashboards"), running)
        yield made
        for served in made.running.values():
            served.server.stop()
        for served in made.running.values():
            served.thread.join(60)
            assert not served.thread.is_alive()


@pytest.fixture
def full(gateways: Gateways) -> Served:
    """A gateway over three weeks of calls."""
    return gateways.over("full", record_history)


@pytest.fixture
def bare(gateways: Gateways) -> Served:
    """A gateway over a ledger without calls."""
    return gateways.over("bare", lambda ledger: None)


@pytest.fixture
def hostile(gateways: Gateways) -> Served:
    """A gateway over calls whose every text is meant to do harm."""
    return gateways.over("hostile", record_hostile)


@pytest.fixture
def unpriced(gateways: Gateways) -> Served:
    """A gateway over calls whose price nobody knows."""
    return gateways.over("unpriced", record_unpriced)
