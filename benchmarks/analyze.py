"""How fast `tierwise analyze` reads a month of heavy use, and whether what it says of it is right; beside ccusage.

    python benchmarks/analyze.py [--sessions 10000] [--bytes 2000000000] [--in DIR] [--no-peer] [--json]

`tools/make_transcripts.py` makes the transcripts, and says what is in them. All is run on the same files in turn:

- `read`: the floor, all bytes read by one process and thrown away;
- `import`: the importer alone, cold: what happened, and neither what it was nor what it could have cost;
- `analyze --json`: as a user runs it, cold, then with nothing changed, then with a row more in each of ten files;
- `ccusage`: `daily --json`, prices offline, installed by npm at a pinned version; it sums up, and replays nothing.

Files are in the page cache for all of them: the disk is not measured. Memory is the most that all processes of a
command had at a time: `rss` counts what they share for each of them, `pss` once. Where the machine is busy with other
things, `cpu s` (of all processes) says more than `s`. Spend must be what the generator says, to the nano-dollar; the
exit status is 1 where it is not.

Goals, on two cores: under 60 s cold, under 2 s with nothing changed, under 300 MB, no slower per gigabyte than ccusage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CCUSAGE = "ccusage@20.0.24"
GROWN = 10  # files that get a row more

READ = """
import sys
from pathlib import Path
for path in Path(sys.argv[1]).rglob("*.jsonl"):
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass
"""
IMPORT = """
import json, os, sys
from pathlib import Path
from tierwise.importers.base import ImportRun
from tierwise.importers.registry import importer
from tierwise.ledger.readings import Readings

def main():
    with Readings(None) as readings:
        run = ImportRun(readings=readings, processes=len(os.sched_getaffinity(0)))
        calls = sum(len(found.read().calls) for found in importer("claude_code").sessions([Path(sys.argv[1])], run))
    print(json.dumps({"calls": calls}))

if __name__ == "__main__":
    main()
"""


@dataclass
class Measured:
    """One run of a command."""

    name: str
    seconds: float
    cpu_seconds: float  # of all its processes
    rss_mb: float
    pss_mb: float
    out: str = ""


def measured(name: str, command: list[str], environment: dict[str, str]) -> Measured:
    """Runs a command to its end and watches the memory of it and all that it starts."""
    peak = {"Rss": 0.0, "Pss": 0.0}
    over = threading.Event()

    def watch(root: int) -> None:
        while not over.wait(0.05):
            now = {"Rss": 0.0, "Pss": 0.0}
            for process in family(root):
                for kind, megabytes in memory(process).items():
                    now[kind] += megabytes
            for kind, megabytes in now.items():
                peak[kind] = max(peak[kind], megabytes)

    used_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        watcher = threading.Thread(target=watch, args=(running.pid,))
        watcher.start()
        out, err = running.communicate()
        seconds = time.perf_counter() - began
        over.set()
        watcher.join()
    if running.returncode:
        raise SystemExit(f"{name} ended with {running.returncode}: {err.decode(errors='replace')[-2_000:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - used_before.ru_utime - used_before.ru_stime
    return Measured(name, seconds, cpu, peak["Rss"], peak["Pss"], out.decode())


def family(root: int) -> list[int]:
    """A process and all that descend from it."""
    found, new = [root], [root]
    while new:
        parent = new.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = [int(child) for child in (task / "children").read_text().split()]
                found += children
                new += children
    return found


def memory(process: int) -> dict[str, float]:
    """Megabytes, by kind; none of a process that is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    told = (line.split() for line in lines)
    return {words[0][:-1]: int(words[1]) / 1024 for words in told if words[0] in ("Rss:", "Pss:")}


def install_ccusage(where: Path) -> str | None:
    """The program, installed below a directory; None, and why not on stderr, where it cannot be."""
    if shutil.which("npm") is None:
        print("npm is not installed: ccusage is left out", file=sys.stderr)
        return None
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix", str(where), CCUSAGE]
    if subprocess.run(command, check=False).returncode:
        print(f"npm could not install {CCUSAGE}: it is left out", file=sys.stderr)
        return None
    return str(where / "node_modules" / ".bin" / "ccusage")


def grow(projects: Path) -> None:
    """Ten sessions get a row that says nothing."""
    for path in sorted(projects.glob("*/*.jsonl"))[:GROWN]:
        with path.open("ab") as file:
            file.write(b'{"type":"mode","mode":"normal","sessionId":"' + path.stem.encode() + b'"}\n')


def wrong(found: Any, answer: Any) -> list[str]:
    """What `analyze --json` says otherwise than the answer; money in nano-dollars."""
    nano = Decimal(10**9)
    said = {
        "sessions": (found["sessions"], sum(session["calls"] > 0 for session in answer["by_session"].values())),
        "calls": (found["calls"], answer["calls"]),
        "spend": (Decimal(found["actual_usd"]) * nano, answer["nanousd"]),
        "skipped lines": (found["skipped"]["lines"], answer["broken_lines"]),
        "unknown kinds": (
            {kind["kind"]: kind["rows"] for kind in found["skipped"]["unknown_kinds"]},
            answer["unknown_kinds"],
        ),
        "reconciled sessions": (found["reconciled"]["sessions"], answer["reconciled"]["sessions"]),
        "sessions that agree": (found["reconciled"]["agreeing"], answer["reconciled"]["agreeing"]),
        "sessions with unknown models": (
            found["reconciled"]["unknown_model_sessions"],
            answer["reconciled"]["unknown_model_sessions"],
        ),
        "not in transcripts": (
            Decimal(found["reconciled"]["not_in_transcript_usd"]) * nano,
            answer["reconciled"]["not_in_transcript_nanousd"],
        ),
    }
    for key in ("day", "model"):
        ours = {row[key]: Decimal(row["actual_usd"]) * nano for row in found[f"by_{key}"]}
        theirs = {name: sums["nanousd"] for name, sums in answer[f"by_{key}"].items()}
        said[f"spend by {key}"] = ({k: v for k, v in ours.items() if v}, {k: v for k, v in theirs.items() if v})
    return [f"{what}: {ours}, and is {theirs}" for what, (ours, theirs) in said.items() if ours != theirs]


def main() -> int:
    """Makes, runs, compares, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=2_000_000_000)
    parser.add_argument("--in", dest="directory", metavar="DIR", type=Path, help="use what was made there, or make it")
    parser.add_argument("--no-peer", action="store_true", help="leave ccusage out")
    parser.add_argument("--import-only", action="store_true", help="leave `analyze` out")
    parser.add_argument("--json", action="store_true", dest="as_json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tierwise-analyze-") as scratch:
        directory = asked.directory or Path(scratch) / "made"
        if not (directory / "answer.json").exists():
            maker = [sys.executable, str(ROOT / "tools" / "make_transcripts.py"), str(directory)]
            directory.mkdir(parents=True, exist_ok=True)
            subprocess.run([*maker, "--sessions", str(asked.sessions), "--bytes", str(asked.bytes)], check=True)
        return compare(directory, Path(scratch), asked)


def compare(directory: Path, scratch: Path, asked: argparse.Namespace) -> int:
    """All commands on one directory."""
    answer = json.loads((directory / "answer.json").read_text(encoding="utf-8"))
    projects = directory / "projects"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "CLAUDE_CONFIG_DIR": str(directory),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "TZ": "UTC",
    }
    python = [sys.executable, "-c"]
    runs = [measured("read", [*python, READ, str(projects)], environment)]
    script = scratch / "only_import.py"  # a file: processes that are started anew run it again
    script.write_text(IMPORT, encoding="utf-8")
    runs.append(measured("import", [sys.executable, str(script), str(projects)], environment))
    mistakes = []
    if (calls := json.loads(runs[-1].out)["calls"]) != answer["calls"]:
        mistakes.append(f"import: {calls} calls, and there are {answer['calls']}")
    if not asked.import_only:
        analyze = [sys.executable, "-m", "tierwise", "analyze", "--json"]
        for name in ("analyze, cold", "analyze, nothing new", f"analyze, {GROWN} files grew"):
            if "grew" in name:
                grow(projects)
            runs.append(measured(name, analyze, environment))
            mistakes += [f"{name}: {what}" for what in wrong(json.loads(runs[-1].out, parse_float=Decimal), answer)]
    peer = None if asked.no_peer else install_ccusage(scratch / "npm")
    if peer is not None:
        command = [peer, "daily", "--json", "--offline", "--mode", "calculate", "--timezone", "UTC"]
        runs.append(measured("ccusage", command, environment))
    return report(runs, answer, mistakes, as_json=asked.as_json)


def report(runs: list[Measured], answer: Any, mistakes: list[str], *, as_json: bool) -> int:
    """Prints it all; the exit status."""
    megabytes = answer["bytes"] / 1e6
    peer = next((run for run in runs if run.name == "ccusage"), None)
    theirs = json.loads(peer.out)["totals"] if peer is not None else None
    if as_json:
        shown = [{key: value for key, value in asdict(run).items() if key != "out"} for run in runs]
        print(json.dumps({"bytes": answer["bytes"], "runs": shown, "ccusage": theirs, "mistakes": mistakes}, indent=1))
        return bool(mistakes)
    print(
        f"{megabytes:,.0f} MB, {answer['files']:,} files, {len(answer['by_session']):,} sessions, {answer['calls']:,} "
        f"calls; Python {sys.version.split()[0]}, {len(os.sched_getaffinity(0))} cores"
    )
    print(f"{'':26}{'s':>8}{'cpu s':>8}{'MB/s':>8}{'calls/s':>10}{'rss MB':>8}{'pss MB':>8}{'x ccusage':>11}")
    for run in runs:
        ratio = f"{run.seconds / peer.seconds:11.2f}" if peer is not None else ""
        print(
            f"{run.name:26}{run.seconds:8.2f}{run.cpu_seconds:8.2f}{megabytes / run.seconds:8.0f}"
            f"{answer['calls'] / run.seconds:10,.0f}{run.rss_mb:8.0f}{run.pss_mb:8.0f}{ratio}"
        )
    print(f"\nspent, by the answer      ${answer['nanousd'] / 1e9:,.9f}")
    if theirs is not None:
        unpriced = ", ".join(theirs.get("unpricedModels") or ()) or "none"
        print(f"spent, by ccusage         ${theirs['totalCost']:,.9f} (no offline price for: {unpriced})")
        tokens = answer["tokens"]
        ours = {
            "fresh": tokens["fresh"],
            "output": tokens["output"],
            "cache read": tokens["read"],
            "cache written": tokens["write_5m"] + tokens["write_1h"],
        }
        names = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens")
        told = "; ".join(
            f"{what} {theirs[name] / count - 1:+.3%}" for (what, count), name in zip(ours.items(), names, strict=True)
        )
        print(f"tokens, by ccusage        {told}")
    for what in mistakes:
        print(f"WRONG  {what}", file=sys.stderr)
    if not mistakes:
        print("all figures are the answer's")
    return bool(mistakes)


if __name__ == "__main__":
    raise SystemExit(main())
