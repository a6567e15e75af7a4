"""What a process of tierwise costs: start-up time of the command line and resident memory of an idle router.

    python benchmarks/process.py

Floors, in the same run: bare Python, Python with click imported. Goals: `tierwise --help` under 150 ms; an idle
router without the embedded model and the encoder under 80 MB.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
ROUTER = """
import sys
from tierwise import Router
router = Router(record=True)
router.route(sys.argv[1])
for line in open("/proc/self/status"):
    if line.startswith("VmRSS"):
        print(int(line.split()[1]) / 1024)
"""
BARE = """
for line in open("/proc/self/status"):
    if line.startswith("VmRSS"):
        print(int(line.split()[1]) / 1024)
"""


def milliseconds(command: list[str], env: dict[str, str], runs: int = 15) -> list[float]:
    """Wall-clock times of whole processes, after one warm-up."""
    timings = []
    for run in range(runs + 1):
        began = time.perf_counter()
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
        if run:
            timings.append((time.perf_counter() - began) * 1000)
    return timings


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": os.environ["PATH"], "HOME": home}
        rows = [
            ("python -c pass (floor)", [sys.executable, "-c", "pass"]),
            ("python -c 'import click'", [sys.executable, "-c", "import click"]),
            ("tierwise --help", [str(BIN / "tierwise"), "--help"]),
            ("tierwise --version", [str(BIN / "tierwise"), "--version"]),
            ("tierwise route TASK", [str(BIN / "tierwise"), "route", "Summarise this ticket in one line"]),
            ("tierwise classify TEXT", [str(BIN / "tierwise"), "classify", "Summarise this ticket in one line"]),
        ]
        print(f"Python {sys.version.split()[0]}; whole processes, 15 runs, milliseconds")
        print(f"{'':28}{'min':>8}{'median':>8}{'max':>8}{'x floor':>9}")
        floor = 0.0
        for name, command in rows:
            timings = milliseconds(command, env)
            middle = statistics.median(timings)
            floor = floor or middle
            print(f"{name:28}{min(timings):8.0f}{middle:8.0f}{max(timings):8.0f}{middle / floor:9.1f}")
        print("\nresident memory, MB")
        (Path(home) / "rules.toml").write_text('classifier = "rules"\n', encoding="utf-8")
        rules = {**env, "TIERWISE_CONFIG": str(Path(home) / "rules.toml")}
        clear = "Translate this sentence into French"  # the n-grams alone answer
        doubtful = "hm, that thing of last week with Ana, could you see what is going on there"
        for name, code, text, variables in (
            ("bare Python (floor)", BARE, "", env),
            ("idle router, rules", ROUTER, clear, rules),
            ("idle router, after a clear text", ROUTER, clear, env),
            ("idle router, the encoder loaded", ROUTER, doubtful, env),
        ):
            command = [sys.executable, "-c", code, text]
            out = subprocess.run(command, env=variables, check=True, capture_output=True, text=True)
            print(f"{name:36}{float(out.stdout):8.1f}")


if __name__ == "__main__":
    main()
