"""How fast `tierwise serve` is: with routing, pricing and the durable ledger on, beside its floor, direct, and peers.

    python benchmarks/gateway.py [--seconds 2] [--rounds 3] [--only json] [--soak] [--peers [DIR]] [--json]

A stand-in upstream and the load generator share one core, each target has the other. Every target answers the same
requests in turn, load by load; figures are medians of the rounds, and only ratios travel between machines. `direct` is
no proxy; `floor` is the gateway's own server and client with nothing between them; `--peers` installs
claude-code-router and LiteLLM with npm and pip (minutes, gigabytes; into DIR, where they are found the next time).
`--soak` sends 100,000 requests and follows the memory.

Loads differ in the ask, too: what the classifier has seen before, what is new to it and clear from its words, and
what is new and doubtful, where the encoder is asked. The last costs what the encoder does.

Goals, on one core: 4,000 JSON requests/s and 2,500 streams/s at 64 connections, 1,500 requests/s of 120 kB, 0.6 ms
added at one connection, first event of paced streams within 3 ms (p50) and 20 ms (p99), 70 % of the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sqlite3
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import gateway_load as load
import gateway_upstream as upstream
from gateway_targets import KEY, ROUTED, Cores, Skipped, Target, Workshop, free_port, ready, resident_mb, stop

STREAM_SECONDS = (upstream.EVENTS - upstream.AT_ONCE) * upstream.PACE_SECONDS
SOAK = 100_000
_STEADY = 1.25  # rounds of the floor that differ by more say that the machine was busy with something else

# ---------------------------------------------------------------- what is asked

CLEAR = (
    "Translate the following paragraph into French",
    "Translate this sentence into German",
    "Summarise the following message in one sentence",
    "Rewrite the following paragraph in a friendlier tone",
)
DOUBTFUL = (
    "hm, that thing of last week with Ana, could you see what is going on there",
    "as before, but for the other one, and mind what we said about it",
    "not sure about this, what do you make of it",
)
PAYLOAD = (
    "Parcel 00000000 was handed over on Monday. The carrier sent it by way of another hub as a road was closed, so "
    "that it came on Thursday and not on Tuesday; the customer wrote twice and was answered on the same day."
)


class Ask(Enum):
    """Whether the classifier has to look, and how hard."""

    SAME = "same ask"
    CLEAR = "new, clear"
    DOUBTFUL = "new, doubtful"


@dataclass(frozen=True, slots=True)
class Load:
    """One way of asking."""

    name: str
    connections: int
    ask: Ask = Ask.SAME
    stream: bool = False
    paced: bool = False
    agent: bool = False  # a body of 120 kB, as a coding agent sends it

    @property
    def title(self) -> str:
        """For the table."""
        unit = "SSE" if self.stream else "JSON"
        size = "120 kB in" if self.agent else "0.6 kB in"
        flow = f", {upstream.EVENTS} events {'5 ms apart' if self.paced else 'in a burst'}" if self.stream else ""
        many = f"{self.connections} connection{'s' if self.connections > 1 else ''}"
        return f"{unit}, {size}{flow}, {many}, {self.ask.value}"


LOADS = (
    Load("json-1", 1),
    Load("json-16", 16),
    Load("json-64", 64),
    Load("json-64-clear", 64, Ask.CLEAR),
    Load("json-64-doubtful", 64, Ask.DOUBTFUL),
    Load("json-120k", 16, agent=True),
    Load("sse-64", 64, stream=True),
    Load("sse-paced", load.CONCURRENT, stream=True, paced=True),
)
SOAKED = LOADS[3]  # each request is another conversation and another text: what is remembered grows, if anything does


def asks() -> dict[Ask, str]:
    """An ask of each kind, as the trained classifier of this checkout sees them."""
    from tierwise.classifier import TrainedClassifier, load_taxonomy
    from tierwise.core.tasks import Task

    classifier = TrainedClassifier(load_taxonomy())

    def clear(ask: str) -> bool:
        texts = [f"{ask}:\n\n{PAYLOAD}".replace("00000000", f"{n:08d}") for n in range(0, 90_000, 9_973)]
        return all("clear from its words" in classifier.classify(Task(text=text)).evidence for text in texts)

    sure = next((ask for ask in CLEAR if clear(ask)), None)
    unsure = next((ask for ask in DOUBTFUL if not clear(ask)), None)
    if sure is None or unsure is None:
        raise SystemExit("the classifier finds none of the asks clear, or all: add others to CLEAR or DOUBTFUL")
    return {Ask.SAME: sure, Ask.CLEAR: sure, Ask.DOUBTFUL: unsure}


def template(what: Load, texts: dict[Ask, str]) -> load.Template:
    """The request of a load."""
    text = f"{texts[what.ask]}:\n\n{PAYLOAD}"
    if what.ask is Ask.SAME:
        text = text.replace("00000000", "70230118")
    body: dict[str, object] = {"model": ROUTED, "max_tokens": 32_000 if what.agent or what.stream else 1_024}
    if what.agent:
        body |= agent_parts(text)
    else:
        body["system"] = (
            "You work for the support desk of a mail-order company. Be brief and friendly, answer in the customer's "
            "language, and invent nothing: where a message does not say something, say that it is not known."
        )
        body["messages"] = [{"role": "user", "content": text}]
    if what.stream:
        body["stream"] = True
    if what.paced:
        body["metadata"] = {"user_id": upstream.PACED.decode()}
    headers = {
        "x-api-key": KEY,
        "anthropic-version": "2023-06-01",
        "accept": "application/json",
        "user-agent": "claude-cli/2.1.330 (external, cli)" if what.agent else "Anthropic/Python 0.75.0",
    }
    if what.agent:
        headers |= {"x-claude-code-session-id": "6f2b6f0e-benchmark", "anthropic-beta": "claude-code-20250219"}
    return load.Template.of("/v1/messages", headers, json.dumps(body).encode())


def agent_parts(ask: str) -> dict[str, object]:
    """System prompt, tools and history of a coding agent, 120 kB in all; its last tool result has the number."""
    tools = [
        {
            "name": name,
            "description": f"{name}. "
            + "Use it when the work needs it; paths are absolute, output is cut at a limit. " * 30,
            "input_schema": {
                "type": "object",
                "properties": {
                    key: {"type": "string", "description": f"the {key}"} for key in ("path", "text", "flags")
                },
                "required": ["path"],
            },
        }
        for name in ("Bash", "Read", "Edit", "Write", "Grep", "Glob", "Agent", "WebFetch", "TodoWrite", "Skill")
    ]
    turns: list[dict[str, object]] = [{"role": "user", "content": [{"type": "text", "text": ask}]}]
    source = "".join(f"    {n:4d}\tdef handle_{n}(order: Order) -> Receipt:  # see the ledger\n" for n in range(80))
    for n in range(11):
        use = {"type": "tool_use", "id": f"toolu_{n:024d}", "name": "Read", "input": {"path": f"/src/orders_{n}.py"}}
        text = source if n < 10 else f"run 00000000\n{source}"
        result = {"type": "tool_result", "tool_use_id": use["id"], "content": text}
        turns += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    system = [
        {"type": "text", "text": "You are a coding agent."},
        {"type": "text", "text": "Be careful. " * 2_400, "cache_control": {"type": "ephemeral"}},
    ]
    return {"system": system, "tools": tools, "messages": turns}


# ---------------------------------------------------------------- answers


def check_answer(answer: bytes, *, stream: bool) -> None:
    """What is measured must be the whole answer. Raises `LoadError` where it is not."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        body = _unchunked(body)
    if not stream:
        text = json.loads(body)["content"][0]["text"]
    else:
        events = [json.loads(line[5:]) for line in body.splitlines() if line.startswith(b"data:")]
        text = "".join(e["delta"].get("text", "") for e in events if e.get("type") == "content_block_delta")
        if events[-1].get("type") != "message_stop":
            raise load.LoadError("a stream without message_stop at its end")
    if text != upstream.TEXT:
        raise load.LoadError(f"another text than the upstream sent: {text[:200]!r}")


def _unchunked(body: bytes) -> bytes:
    whole, at = b"", 0
    while True:
        ends = body.index(b"\r\n", at)
        size = int(body[at:ends], 16)
        if not size:
            return whole
        whole += body[ends + 2 : ends + 2 + size]
        at = ends + 2 + size + 2


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True, slots=True)
class Figures:
    """One target under one load: medians of the rounds. Of paced streams, p50 and p99 are times to first event."""

    target: str
    load: str
    per_second: float
    lowest_per_second: float
    highest_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    failed: int


def share(values: list[float], part: float) -> float:
    """A quantile of values, in milliseconds."""
    ascending = sorted(values)
    return 1_000 * ascending[min(len(ascending) - 1, int(len(ascending) * part))] if ascending else 0.0


async def one_round(target: Target, what: Load, request: load.Template, seconds: float) -> tuple[load.Window, float]:
    """What was measured, and the CPU µs a request of the target."""
    used: list[float] = []

    def note() -> None:
        used.append(target.cpu())

    if what.paced:
        long = {"seconds": max(seconds, 2.0), "stream_seconds": STREAM_SECONDS}
        window = await load.Opened(target.port, request, **long, opens=note, closes=note).run()
    else:
        window = await load.Closed(
            target.port, request, what.connections, seconds=seconds, opens=note, closes=note
        ).run()
    return window, 1e6 * (used[1] - used[0]) / max(1, len(window.latencies))


def figures(target: Target, what: Load, rounds: list[tuple[load.Window, float]]) -> Figures:
    """The medians."""

    times = [window.firsts if what.paced else window.latencies for window, _ in rounds]
    told = [some for some in times if some] or [[]]  # a slow target may answer nobody within a round

    return Figures(
        target=target.name,
        load=what.name,
        per_second=statistics.median(window.per_second for window, _ in rounds),
        lowest_per_second=min(window.per_second for window, _ in rounds),
        highest_per_second=max(window.per_second for window, _ in rounds),
        p50_ms=statistics.median(share(some, 0.5) for some in told),
        p99_ms=statistics.median(share(some, 0.99) for some in told),
        cpu_us=statistics.median(cpu for _, cpu in rounds),
        failed=sum(window.failed for window, _ in rounds),
    )


def show(found: list[Figures], what: Load) -> None:
    """The table of one load."""
    direct = next((f for f in found if f.target == "direct"), None)
    floor = next((f for f in found if f.target == "floor"), None)
    unit = "streams/s" if what.stream else "requests/s"
    timed = "first event" if what.paced else "answered"
    columns = f"{unit:>12}{'lowest–highest':>18}{'to floor':>10}{timed + ' p50':>18}{'p99 ms':>10}"
    print(f"  {'':22}{columns}{'added p50':>11}{'CPU µs':>9}{'failed':>8}")
    for f in found:
        of_floor = floor and floor.per_second and f is not direct and not what.paced  # paced ones come as they come
        ratio = f"{f.per_second / floor.per_second:.2f}" if floor and of_floor else ""
        added = f"{f.p50_ms - direct.p50_ms:.2f}" if direct and f is not direct else ""
        cpu = f"{f.cpu_us:,.0f}" if f is not direct else ""
        failed = str(f.failed or "")
        times = f"{f.p50_ms:18.2f}{f.p99_ms:10.2f}{added:>11}"
        spread = f"{f.lowest_per_second:,.0f}–{f.highest_per_second:,.0f}"
        print(f"  {f.target:22}{f.per_second:12,.0f}{spread:>18}{ratio:>10}{times}{cpu:>9}{failed:>8}")
    if floor and floor.highest_per_second > _STEADY * floor.lowest_per_second:
        print("  (the floor was not steady: something else runs on these cores, and figures are of little worth)")


async def soak(target: Target, request: load.Template) -> tuple[list[float], int]:
    """Resident MB before and after each tenth of the requests; how many were answered."""
    assert target.process is not None
    curve, count = [round(resident_mb(target.process.pid), 1)], 0
    for _ in range(10):
        window = await load.Closed(target.port, request, SOAKED.connections, requests=SOAK // 10).run()
        count += window.answered
        curve.append(round(resident_mb(target.process.pid), 1))
    return curve, count


def recorded(ledger: Path) -> dict[str, int]:
    """Calls in a ledger by how they ended."""
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        return dict(db.execute("SELECT status, count(*) FROM calls GROUP BY status"))


async def bring_up(shop: Workshop, peers: bool, request: bytes, up: dict[str, Target]) -> dict[str, float]:
    """Starts what can be measured here into `up`; gives the seconds until each answered."""
    starts = [shop.direct, shop.floor, shop.gateway]
    if peers:
        starts += [shop.claude_code_router, shop.litellm]
    seconds: dict[str, float] = {}
    for start in starts:
        try:
            target = start()
            up[target.name] = target
            seconds[target.name] = await ready(target, request, shop)
        except Skipped as why:
            print(f"{start.__name__} is left out: {why}", file=sys.stderr)
    for name in [name for name in up if name not in seconds]:
        stop(up.pop(name))
    return seconds


async def one_load(
    args: argparse.Namespace,
    up: dict[str, Target],
    what: Load,
    request: load.Template,
    answered: Counter[str],
) -> list[Figures]:
    """Every target under one load, in turn, round by round; counts answers into `answered`."""
    rounds: defaultdict[str, list[tuple[load.Window, float]]] = defaultdict(list)
    routed = ""
    for turn in range(args.rounds):
        for name, target in up.items():
            try:
                if not turn:
                    answer = await load.ask_once(target.port, request.numbered(0))
                    answered[name] += 1
                    check_answer(answer, stream=what.stream)
                    routed = where_to(answer) or routed
                measured = await one_round(target, what, request, args.seconds)
            except load.LoadError as why:
                print(f"{name}, {what.name}: {why}", file=sys.stderr)
                continue
            rounds[name].append(measured)
            answered[name] += measured[0].answered
    found = [figures(up[name], what, windows) for name, windows in rounds.items()]
    if not args.json:
        print(f"\n{what.title}{routed}")
        show(found, what)
    return found


async def measure(args: argparse.Namespace, shop: Workshop) -> dict[str, object]:
    """Runs everything; prints tables on the way unless JSON is wanted."""
    say = (lambda *_: None) if args.json else print
    texts = asks()
    say(f"Python {sys.version.split()[0]}; medians of {args.rounds} rounds of {args.seconds:g} s; a stand-in answers")
    say(f"asks: {', '.join(f'{ask.value}: {text!r}' for ask, text in texts.items())}")
    up: dict[str, Target] = {}
    result: dict[str, object] = {"rounds": args.rounds, "seconds": args.seconds}
    try:
        started = await bring_up(shop, args.peers is not None, template(LOADS[0], texts).numbered(0), up)
        answered = Counter(dict.fromkeys(up, 1))
        every: list[Figures] = []
        for what in LOADS:
            if re.search(args.only, what.name):
                every += await one_load(args, up, what, template(what, texts), answered)
        result["figures"] = [asdict(one) for one in every]
        if args.soak and "gateway" in up:
            result["soak_mb"], count = await soak(up["gateway"], template(SOAKED, texts))
            answered["gateway"] += count
            say(f"\ngateway, resident MB, before and after each tenth of {SOAK:,} requests: {result['soak_mb']}")
        memory = {name: round(resident_mb(one.process.pid), 1) for name, one in up.items() if one.process is not None}
        result |= {"resident_mb": memory, "first_answer_seconds": started}
        say(f"\n  {'':22}{'first answer after':>20}{'resident at the end':>22}")
        for name, mb in memory.items():
            say(f"  {name:22}{started[name]:18.2f} s{mb:19.1f} MB")
    finally:
        for target in up.values():
            stop(target)
    ledger = up["gateway"].ledger if "gateway" in up else None
    if ledger is not None:
        result |= {"answered": answered["gateway"], "recorded": recorded(ledger)}
        say(f"\nthe gateway answered {answered['gateway']:,} calls; its ledger has {result['recorded']}")
    return result


def where_to(answer: bytes) -> str:
    """What the gateway says of a call in its headers; empty where something else answered."""
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    told = dict(re.findall(r"(?im)^x-tierwise-(task-type|model): (.*?)\r?$", head))
    return f"; {told.get('task-type')}, to {told.get('model')}" if told else ""


def main() -> None:
    """Prints tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a round measures (default 2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", metavar="REGEX", help=f"of the loads {', '.join(w.name for w in LOADS)}")
    parser.add_argument("--peers", nargs="?", const="", metavar="DIR", help="measure peers too, installed into DIR")
    parser.add_argument("--soak", action="store_true", help=f"follow the gateway's memory over {SOAK:,} requests")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    cores = Cores.choose()
    with tempfile.TemporaryDirectory() as scratch:
        shop = Workshop(Path(scratch), cores, free_port(), Path(args.peers or scratch).resolve())
        standing_in = shop.upstream()
        try:
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(measure(args, shop))
        finally:
            standing_in.kill()
            standing_in.wait()
    if args.json:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
