"""The pictures of the documentation: the page over the made-up history, in the Chromium of this machine.

python -m tests.dashboard.page.images docs/images
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.dashboard.page.conftest import NAMES, NARROW, WIDE
from tests.dashboard.page.history import record_history
from tests.gateway.conftest import settings_for, started
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream

SHOTS = (  # name, address, width, height, dark
    ("dashboard-overview", "?range=30d", WIDE, 900, False),
    ("dashboard-call", "?view=calls&range=30d&call=call-01067", WIDE, 800, True),
    ("dashboard-what-if", "?view=what-if&range=30d&policy=all-haiku", WIDE, 900, True),
    ("dashboard-narrow", "?range=30d", NARROW, 740, True),
)


def shoot(browser: Browser, url: str, folder: Path) -> None:
    """Every picture, of a page that runs."""
    for name, address, width, height, dark in SHOTS:
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            locale="en-GB",
            timezone_id="UTC",
        )
        page.goto(f"{url}/dashboard/{address}")
        page.wait_for_selector("main[aria-busy=false]")
        page.wait_for_selector(".waiting, [aria-busy=true]", state="detached")
        page.wait_for_timeout(300)  # fonts and canvases
        page.screenshot(path=folder / f"{name}.png")
        page.close()


def main(folder: Path) -> None:
    """Starts a gateway over the history, and takes the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        raise SystemExit("no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as home, StandInUpstream() as upstream, sync_playwright() as playwright:
        settings = settings_for(upstream, Path(home))
        with Ledger(settings.ledger.path) as ledger:
            record_history(ledger)
        gateway = started(upstream, settings)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        shoot(browser, gateway.url, folder)
        browser.close()
        gateway.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
