"""How long a hook of the Claude Code plugin takes, beside starting the same Python with nothing to do.

    python benchmarks/claude_hooks.py

The companion runs in a home of its own and is warm. On a busy machine look at the CPU time: the clock counts others'
work.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tierwise.integrations.claude_code.companion import ask
from tierwise.integrations.claude_code.installing import install, plan
from tierwise.integrations.claude_code.places import Places

RUNS = 50
EVENT = {
    "session_id": "benchmark",
    "cwd": ".",
    "tool_name": "Agent",
    "tool_use_id": "toolu_1",
    "tool_input": {
        "prompt": "Summarise this ticket in one line: the printer burns",
        "subagent_type": "general-purpose",
    },
}


def measure(name: str, command: list[str], environment: dict[str, str], given: bytes = b"") -> None:
    """Runs a command often and prints what one run takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    walls, answers = [], 0
    for _ in range(RUNS):
        began = time.perf_counter()
        done = subprocess.run(command, input=given, env=environment, capture_output=True, check=True)
        walls.append((time.perf_counter() - began) * 1000)
        answers += bool(done.stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000 / RUNS
    walls.sort()
    p50, p95 = statistics.median(walls), walls[int(RUNS * 0.95)]
    print(
        f"{name:28} min {walls[0]:5.1f} ms  p50 {p50:5.1f} ms  p95 {p95:5.1f} ms"
        f"  CPU {cpu:5.1f} ms  answered {answers}/{RUNS}"
    )


def main() -> None:
    """Measures floor, hooks and status line."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
        places = Places.of(environment)
        install(places, plan(places), "benchmark")
        command = [sys.executable, "-m", "tierwise", "claude", "_companion", str(places.socket)]
        companion = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        event = json.dumps({**EVENT, "transcript_path": str(Path(home) / "none.jsonl")}).encode()
        try:
            while True:
                try:
                    ask(places.socket, b"PreToolUse \n" + event, seconds=30)
                    break
                except OSError:
                    time.sleep(0.1)
            hook = ["sh", str(places.plugin / "hooks" / "run.sh")]
            measure("bare Python (the floor)", [sys.executable, "-I", "-S", "-c", "pass"], environment)
            measure("PreToolUse: a decision", [*hook, "hook.py", "PreToolUse"], environment, event)
            measure("Stop: a recording begun", [*hook, "hook.py", "Stop"], environment, event)
            measure("status line", [*hook, "statusline.py"], environment, event)
        finally:
            ask(places.socket, b"stop \n", seconds=5)
            companion.wait()


if __name__ == "__main__":
    main()
