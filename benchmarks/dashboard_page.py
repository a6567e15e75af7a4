"""The dashboard in a real browser: how soon it shows something, and what it costs who writes while it is open.

    python benchmarks/dashboard_page.py [--ledger FILE] [--calls 20000] [--rounds 10] [--ingest 6] [--seconds 4]
                                        [--flow 20]

Opens the overview of `tierwise dashboard`, a process of its own, in the Chromium of this machine, in a fresh profile
each time: until the first paint, and until the overview's figures stand there. The ledger is made here, or is FILE (one
of ten million attempts: `python benchmarks/dashboard.py`), which is only read.

Then a process records calls as fast as it can into a small ledger, in turns without a page, with a program that asks
what an open page asks, and with the page itself, open on its live log: `--ingest` turns each, of so many seconds. Told
are calls a second against the turn without that was beside it, and where the time of a call went, in microseconds:
the writer's own work, queueing for a core, and waiting (for the disk or a lock); and what share of a core the
dashboard's process took. Where there is no core to spare, dashboard and browser make the writer queue; what they do to
its work and to the ledger's lock shows in the other two.

Last, calls come at an even pace while a view is in front, or in a tab that nobody sees, for `--flow` seconds each: told
are the seconds of a minute that the browser's processes and the dashboard's use. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
from playwright.sync_api import Browser, sync_playwright

from ledger import make
from tierwise.ledger import Ledger

DAY_MS = 86_400_000
PACES = (1, 20, 200)  # calls a second
TICK_SECONDS = 0.05
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RANGES = ("24h", "7d", "30d", "365d")
PATIENCE_MS = 120_000
ASKED: tuple[tuple[str, dict[str, str]], ...] = (  # by the overview, each time that it is read
    ("overview", {}),
    ("series", {"by": "tier"}),
    ("series", {"by": "tier", "measure": "calls"}),
    ("task-types", {}),
)
HIDDEN = "Object.defineProperty(document, 'hidden', { get: () => true });"  # as a tab is that lies behind another
# The moment at which the figures stand, by the page's own clock, without asking it again and again.
STANDS = """
new MutationObserver(() => {
  if (!window.stood && document.querySelector("main[aria-busy=false] .value")) window.stood = performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true });
"""


def fill(path: Path, calls: int) -> None:
    """Calls of the last thirty days."""
    now_ms = time.time_ns() // 1_000_000
    with Ledger(path) as ledger:
        ledger.record_many(
            [(call, (attempt,)) for call, attempt in (make(n, now_ms - n * 30 * DAY_MS // calls) for n in range(calls))]
        )


@contextmanager
def dashboard(ledger: Path, home: Path) -> Iterator[tuple[str, int]]:
    """The address of `tierwise dashboard` over a ledger, and its process."""
    command = [sys.executable, "-m", "tierwise", "dashboard", "--no-open", "--port", "0", "--json"]
    env = {**os.environ, "HOME": str(home), "TIERWISE_LEDGER": str(ledger)}
    process = subprocess.Popen(command, env=env, cwd=home, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"}\n") and (line := process.stdout.readline()):
        said += line
    yield json.loads(said)["url"], process.pid
    process.terminate()
    process.wait(20)


def opened(browser: Browser, address: str) -> tuple[float, float]:
    """Milliseconds to the first paint, and to the figures."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.add_init_script(STANDS)
    page.goto(address)
    page.wait_for_selector("main[aria-busy=false] .value", timeout=PATIENCE_MS)
    painted, stood = page.evaluate(
        "[performance.getEntriesByName('first-contentful-paint')[0].startTime, window.stood]"
    )
    context.close()
    return painted, stood


def paint(browser: Browser, url: str, rounds: int) -> None:
    """Prints how soon the page is there."""
    print(f"{'milliseconds':28}{'first paint':>16}{'p95':>8}{'figures stand':>16}{'p95':>8}")
    for span in RANGES:
        found = [opened(browser, f"{url}?range={span}") for _ in range(rounds + 1)][1:]
        cells = []
        for times in zip(*found, strict=True):
            ordered = sorted(times)
            cells.append(f"{statistics.median(ordered):16.0f}{ordered[min(rounds - 1, int(rounds * 0.95))]:8.0f}")
        print(f"{'overview, ' + span:28}{''.join(cells)}", flush=True)


# ------------------------------------------------------------------ writing beside it


@dataclass(frozen=True)
class Written:
    """How a turn of writing went; times are microseconds of a call."""

    calls_per_second: float
    working: float
    queueing: float

    @property
    def waiting(self) -> float:
        """For the disk, or for somebody else's lock."""
        return 1e6 / self.calls_per_second - self.working - self.queueing


def write(path: Path, seconds: float) -> Written:
    """Records calls, one transaction each, until the time is over."""
    now_ms = time.time_ns() // 1_000_000
    made = [make(n, now_ms) for n in range(20_000)]
    with Ledger(path) as ledger:
        ledger.open()
        began, (worked, queued) = time.perf_counter(), scheduled()
        written = 0
        while (passed := time.perf_counter() - began) < seconds:
            call, attempt = made[written % len(made)]
            ledger.record(call, [attempt])
            written += 1
        worked_then, queued_then = scheduled()
    return Written(written / passed, (worked_then - worked) / written / 1e3, (queued_then - queued) / written / 1e3)


def scheduled() -> tuple[int, int]:
    """Nanoseconds that this thread has had a core, and that it has queued for one."""
    worked, queued, _ = Path("/proc/thread-self/schedstat").read_text("ascii").split()
    return int(worked), int(queued)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    numbers = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def written(path: Path, seconds: float) -> Written:
    """The same in a process of its own, as a gateway or an agent would be."""
    command = [sys.executable, __file__, "--write", str(path), "--seconds", str(seconds)]
    return Written(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


@contextmanager
def program(url: str) -> Iterator[None]:
    """Asks what an open page asks: live events, and the overview every five seconds."""
    ends = threading.Event()
    api = url.replace("/dashboard/", "/api/v1/")

    def listens() -> None:
        with httpx2.Client(timeout=60) as client, client.stream("GET", f"{api}live") as answer:
            for _ in answer.iter_bytes():
                if ends.is_set():
                    return

    def asks() -> None:
        with httpx2.Client(timeout=60) as client:
            while not ends.wait(5):
                since = (datetime.now(UTC) - timedelta(days=7)).isoformat()
                for path, query in ASKED:
                    client.get(f"{api}{path}", params={"since": since, **query}).raise_for_status()

    threads = [threading.Thread(target=one, daemon=True) for one in (listens, asks)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    yield
    ends.set()


@contextmanager
def page(browser: Browser, url: str) -> Iterator[None]:
    """The page, open on its live log."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    one = context.new_page()
    one.goto(f"{url}?view=calls&range=24h")
    one.wait_for_selector("main[aria-busy=false]")
    one.wait_for_selector(".pulse.on")
    yield
    context.close()


def ingest(browser: Browser, path: Path, home: Path, turns: int, seconds: float) -> None:
    """Prints what writing loses while somebody looks."""
    with dashboard(path, home) as (url, pid):
        beside: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "a program that asks as much": lambda: program(url),
            "the page, on its live log": lambda: page(browser, url),
        }
        alone: list[Written] = []
        open_: dict[str, list[tuple[Written, float, float]]] = {name: [] for name in beside}
        for turn in range(turns):
            for name, opens in beside.items():
                # Which of the two comes first changes, so that a machine that gets slower favours neither.
                found: dict[bool, Written] = {}
                share = 0.0
                for is_open in (turn % 2 == 0, turn % 2 != 0):
                    with opens() if is_open else nullcontext():
                        began, used = time.perf_counter(), cpu_seconds(pid)
                        found[is_open] = written(path, seconds)
                        if is_open:
                            share = (cpu_seconds(pid) - used) / (time.perf_counter() - began)
                alone.append(found[False])
                open_[name].append((found[True], found[True].calls_per_second / found[False].calls_per_second, share))
    median = statistics.median
    print(f"\n{'':30}{'calls/s':>10}{'ratio':>8}{'worst':>8}{'works':>8}{'queues':>8}{'waits':>8}{'dashboard':>11}")

    def row(name: str, turns_of: list[Written], rest: str) -> None:
        times = (median(getattr(one, part) for one in turns_of) for part in ("working", "queueing", "waiting"))
        rate = median(one.calls_per_second for one in turns_of)
        print(f"{name:30}{rate:10,.0f}{rest[:16]:16}{''.join(f'{at:8.0f}' for at in times)}{rest[16:]}")

    row("nobody looks", alone, " " * 16)
    for name, rows in open_.items():
        ratios = [ratio for _, ratio, _ in rows]
        share = median(one for _, _, one in rows)
        row(name, [one for one, _, _ in rows], f"{median(ratios):8.3f}{min(ratios):8.3f}{share:11.3f}")


# ------------------------------------------------------------------ what an open page costs


def processes_of(parent: int) -> list[int]:
    """Those that a process started, and theirs."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            numbers = path.read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        children.setdefault(int(numbers[1]), []).append(int(path.parent.name))
    found, left = [], [parent]
    while left:
        started = children.get(left.pop(), [])
        found += started
        left += started
    return found


def browsers() -> list[int]:
    """The browser's processes."""
    return [pid for pid in processes_of(os.getpid()) if b"chrom" in Path(f"/proc/{pid}/cmdline").read_bytes()[:100]]


def used_by(pids: list[int]) -> float:
    """Seconds that processes have used, as far as they have not ended."""
    used = 0.0
    for pid in pids:
        with suppress(OSError):
            used += cpu_seconds(pid)
    return used


@contextmanager
def flowing(path: Path, pace: int) -> Iterator[None]:
    """Calls are recorded at an even pace meanwhile, in a thread of this process."""
    ends = threading.Event()

    def writes() -> None:
        with Ledger(path) as ledger:
            began, written = time.perf_counter(), 0
            while not ends.wait(TICK_SECONDS):
                while written < (time.perf_counter() - began) * pace:
                    call, attempt = make(written, time.time_ns() // 1_000_000)
                    ledger.record(call, [attempt])
                    written += 1

    thread = threading.Thread(target=writes)
    thread.start()
    yield
    ends.set()
    thread.join()


def flow(browser: Browser, path: Path, home: Path, seconds: float) -> None:
    """Prints what a page uses while calls come."""
    print(f"\n{'seconds of a minute':20}{'calls/s':>10}{'browser':>10}{'dashboard':>11}")
    with dashboard(path, home) as (url, pid):
        for view, hidden in (("overview", False), ("calls", False), ("calls", True)):
            for pace in PACES:
                context = browser.new_context(viewport={"width": 1440, "height": 900})
                one = context.new_page()
                one.goto(f"{url}?view={view}&range=24h")
                one.wait_for_selector("main[aria-busy=false]")
                if hidden:
                    one.evaluate(f"() => {{ {HIDDEN} document.dispatchEvent(new Event('visibilitychange')); }}")
                with flowing(path, pace):
                    one.wait_for_timeout(2_000)
                    pids = browsers()
                    began, before, served_before = time.perf_counter(), used_by(pids), cpu_seconds(pid)
                    one.wait_for_timeout(seconds * 1000)
                    minutes = (time.perf_counter() - began) / 60
                    used, served = used_by(pids) - before, cpu_seconds(pid) - served_before
                name = f"{view}{', hidden' if hidden else ''}"
                print(f"{name:20}{pace:10}{used / minutes:10.1f}{served / minutes:11.1f}", flush=True)
                context.close()


def main() -> None:
    """As the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", type=Path, help="a ledger to look at, instead of one that is made")
    parser.add_argument("--calls", type=int, default=20_000, help="of the ledger that is made")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--ingest", type=int, default=6, metavar="TURNS")
    parser.add_argument("--seconds", type=float, default=4.0, help="of writing, in each turn")
    parser.add_argument("--flow", type=float, default=20.0, metavar="SECONDS", help="of each view and pace; 0: not")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write is not None:
        print(json.dumps(asdict(write(args.write, args.seconds))))
        return
    chromium = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        made = home / "ledger.db"
        fill(made, args.calls)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        looked_at = made if args.ledger is None else args.ledger
        print(f"{looked_at.stat().st_size / 1e6:,.0f} MB; Chromium {browser.version}; {os.cpu_count()} cores")
        with dashboard(looked_at, home) as (url, _):
            paint(browser, url, args.rounds)
        if args.ingest:
            ingest(browser, made, home, args.ingest, args.seconds)
        if args.flow:
            flow(browser, made, home, args.flow)
        browser.close()


if __name__ == "__main__":
    main()
