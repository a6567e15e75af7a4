"""An hour's load on the gateway, squeezed into two minutes: does its memory stay flat, and is every call there?

    python benchmarks/soak.py                       # 36,000 calls: an hour at ten a second
    python benchmarks/soak.py --seconds 60 --calls 6000

`tierwise serve` runs as a process of its own before the stand-in upstream (no model runs). What is sent is
mixed: streams and whole answers, passed through and routed, new conversations and long ones, tools, names of models
that nobody knows, errors, clients that hang up. Printed every few seconds: calls, resident memory, open files, records
not yet written. At the end: how memory moved after the first third, and whether the ledger has each answered call once.

Not measured here: how fast it is (`benchmarks/gateway.py`). The stand-in and the clients share one process, which is
busier than the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tierwise.ledger import Ledger
from tierwise.providers.passthrough import Answer, Endpoint, PassThrough, UpstreamFailed
from tierwise.testing import Fault, RecordedRequest, StandInReply, StandInUpstream

EVENTS = 60
# The stand-in tells limits of 4,000 requests a minute, which the gateway would keep to.
UNLIMITED = {
    f"anthropic-ratelimit-{measure}-{part}": "1000000000"
    for measure in ("requests", "input-tokens", "output-tokens")
    for part in ("limit", "remaining")
}
STREAMED = StandInReply(
    content=({"type": "text", "text": "twelve chars" * (EVENTS - 6)},),
    usage={"input_tokens": 900, "output_tokens": 200},
    headers=UNLIMITED,
)
ASKS = (
    "Summarise this ticket in one line: the printer burns",
    "Write a short story about a lighthouse keeper",
    "Extract the order number: order 4711 of yesterday",
    "Is this clause enforceable? We sign tomorrow.",
    "Translate to French: good morning",
)
FAULTS = (
    Fault.status(529),
    Fault.status(500),
    Fault.cut(after_events=5),
    Fault.reset(after_events=5),
    Fault.status(400),
)


def answer(request: RecordedRequest) -> StandInReply | Fault | None:
    """What the upstream does: mostly a stream of sixty events, at times a fault."""
    if random.random() < 0.03:
        return random.choice(FAULTS)
    return STREAMED


class Load:
    """Clients of many kinds."""

    def __init__(self, endpoint: Endpoint, calls: int, seconds: float) -> None:
        self.endpoint, self.calls, self.seconds = endpoint, calls, seconds
        self.http = PassThrough()
        self.sent = 0
        self.hanging = 0  # calls that do not come to an end
        self.statuses: Counter[str] = Counter()
        self.answered: list[str] = []  # calls that came whole
        self.running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Sends at an even pace, whatever becomes of what was sent."""
        began = time.monotonic()
        for number in range(self.calls):
            due = began + self.seconds * number / self.calls
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            while len(self.running) >= 200:
                await asyncio.wait(self.running, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.ensure_future(self._call(number))
            self.running.add(task)
            task.add_done_callback(self.running.discard)
            self.sent += 1
        if self.running:
            await asyncio.wait(self.running, timeout=30)
        self.hanging = len(self.running)
        for task in self.running:
            task.cancel()
        await self.http.aclose()

    async def _call(self, number: int) -> None:
        body, headers = self._request(number)
        try:
            async with asyncio.timeout(0.004 if number % 50 == 0 else None):  # these hang up
                given = await self.http.request(self.endpoint, "POST", "/v1/messages", headers, body=body)
            content = await given.read()
        except TimeoutError:
            self.statuses["hung up"] += 1
            return
        except UpstreamFailed as failure:
            self.statuses[str(failure)[:40]] += 1
            return
        self._note(given, content)

    def _note(self, given: Answer, content: bytes) -> None:
        whole = given.status == 200 and b"event: error" not in content
        self.statuses["answered" if whole else f"{given.status}, not whole"] += 1
        call_id = given.header(b"x-tierwise-call-id")
        if whole and call_id is not None:
            self.answered.append(call_id.decode())

    @staticmethod
    def _request(number: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        model = {0: "claude-tierwise-auto", 1: "claude-tierwise-auto", 2: f"nobody-{number % 5_000}"}.get(
            number % 20, "claude-haiku-5-5"
        )
        turns = number % 7 if number % 3 else 0
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"{ASKS[number % 5]} (case {number // 40})"}]
        for turn in range(turns):
            messages.append({"role": "assistant", "content": f"Said before, {turn}: " + "word " * 50})
            messages.append({"role": "user", "content": f"And then? {turn}"})
        value = {
            "model": model,
            "max_tokens": 400,
            "stream": number % 4 != 0,
            "system": "You are a helpful assistant. " * 40,
            "messages": messages,
        }
        if number % 10 == 3:
            value["tools"] = [{"name": "look", "input_schema": {"type": "object"}}]
        headers = [
            (b"x-api-key", b"sk-ant-soak"),
            (b"content-type", b"application/json"),
            (b"x-claude-code-session-id", f"session-{number // 40}".encode()),
        ]
        return json.dumps(value).encode(), headers


def get(url: str) -> bytes:
    """What is there."""
    with urllib.request.urlopen(url, timeout=30) as found:  # noqa: S310  our own address
        content: bytes = found.read()
    return content


def started(folder: Path, upstream: StandInUpstream) -> tuple[subprocess.Popen[bytes], Endpoint, str]:
    """The gateway, once it listens."""
    config = folder / "tierwise.toml"
    config.write_text('[tiers.local]\nenabled = false\n[policy.roles]\nlocal = "haiku"\n', encoding="utf-8")
    env = {
        **os.environ,
        "HOME": str(folder),
        "ANTHROPIC_BASE_URL": upstream.url,
        "TIERWISE_LEDGER": str(folder / "ledger.db"),
    }
    command = [sys.executable, "-m", "tierwise", "--config", str(config), "serve", "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=(folder / "log").open("wb"), env=env, cwd=folder)
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"}\n") and (line := process.stdout.readline()):
        said += line
    url = json.loads(said)["url"]
    while True:
        with suppress(OSError):
            get(f"{url}/healthz")
            return process, Endpoint.of(url), url
        time.sleep(0.02)


def resident_mb(pid: int) -> float:
    """Of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def open_files(pid: int) -> int:
    """Of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def watch(process: subprocess.Popen[bytes], url: str, load: Load, upstream: StandInUpstream) -> list[float]:
    """Prints how it goes until it is cancelled; memory at each line."""
    curve: list[float] = []
    began = time.monotonic()
    print(f"{'s':>6} {'sent':>8} {'running':>8} {'MB':>7} {'files':>6} {'unwritten':>10}")
    with suppress(asyncio.CancelledError):
        while True:
            upstream.requests.clear()
            metrics = await asyncio.to_thread(get, f"{url}/metrics")
            waiting = next(
                line.split()[1] for line in metrics.decode().splitlines() if line.startswith("tierwise_records")
            )
            files = open_files(process.pid)
            curve.append(resident_mb(process.pid))
            print(
                f"{time.monotonic() - began:6.0f} {load.sent:8,} {len(load.running):8} {curve[-1]:7.1f} {files:6} "
                f"{float(waiting):10.0f}",
                flush=True,
            )
            await asyncio.sleep(load.seconds / 24)
    return curve


async def soak(
    process: subprocess.Popen[bytes], endpoint: Endpoint, url: str, upstream: StandInUpstream, args: Any
) -> Load:
    """All of the load, watched."""
    load = Load(endpoint, args.calls, args.seconds)
    watching = asyncio.ensure_future(watch(process, url, load, upstream))
    await load.run()
    await asyncio.sleep(1)
    watching.cancel()
    curve = await watching
    third = curve[len(curve) // 3]
    end = resident_mb(process.pid)
    print(
        f"memory: {curve[0]:.1f} MB at the start, {third:.1f} after a third, {end:.1f} at the end ({end - third:+.1f})"
    )
    return load


def main() -> int:
    """Runs it and says what came out; 1 where a call is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=36_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, StandInUpstream(handler=answer, strict=False) as upstream:
        folder = Path(name)
        process, endpoint, url = started(folder, upstream)
        try:
            began = time.monotonic()
            load = asyncio.run(soak(process, endpoint, url, upstream, args))
            print(f"{load.sent:,} calls in {time.monotonic() - began:.0f} s: {dict(load.statuses)}")
        finally:
            process.terminate()
            process.wait(60)
        with Ledger(folder / "ledger.db") as ledger:
            found = {call.call.call_id: call.call.status.value for call in ledger.calls()}
        missing = [call_id for call_id in load.answered if found.get(call_id) != "answered"]
        size = sum(path.stat().st_size for path in folder.glob("ledger.db*")) / 1024 / 1024
        print(f"ledger: {len(found):,} calls, {size:.0f} MB, {dict(Counter(found.values()))}")
        print(f"answered to a client and not in it as answered: {len(missing)}; that never ended: {load.hanging}")
        log = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()
        print(f"log: {len(log)} lines{': ' + log[-1] if log else ''}")
    return 1 if missing or load.hanging else 0


if __name__ == "__main__":
    sys.exit(main())
