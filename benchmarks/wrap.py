"""What `tierwise.wrap` adds to a call of an SDK, beside the bare SDK against the same stand-in, in the same run.

    python benchmarks/wrap.py [--calls 300] [--sdk anthropic|openai] [--same]

Bare and wrapped clients take turns, some calls each, so that what else the machine does hits both. Every call has a
prompt of its own and is classified, decided, priced, and in a ledger on this disk before it leaves and before its
answer is handed on; `--same` asks one thing all the time, whose classification is remembered. `named` asks for a model
by name, which passes through; `routed` lets tierwise choose. Streams are read to their end. Times are of one caller,
one call after the other; CPU is that of this process, with all of its threads.

The stand-in (`tierwise.testing`) is a process of its own. It is no model: it answers at once, so that what is added is
not hidden behind what a model takes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tierwise
from tierwise.config import load_settings
from tierwise.core.settings import Settings

IN_TURN = 10  # calls of one client, then of the other
ROUTED = "claude-tierwise-auto"
NAMED = {"anthropic": "claude-haiku-5-5", "openai": "gpt-bare"}
STAND_IN = """
import time
from tierwise.testing import StandInUpstream
with StandInUpstream(models=["gpt-bare"]) as upstream:
    upstream.reply("It burns.", times=None)
    print(upstream.url, flush=True)
    while True:
        time.sleep(1)
        upstream.requests.clear()
"""
_numbers = itertools.count()

Call = Callable[[], Any]


@dataclass
class Side:
    """One client's calls: seconds each took, and the processor's time of all."""

    call: Call
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def run(self, calls: int) -> None:
        """So many calls, one after the other."""
        used = time.process_time()
        for _ in range(calls):
            began = time.perf_counter()
            self.call()
            self.seconds.append(time.perf_counter() - began)
        self.cpu += time.process_time() - used


@dataclass(frozen=True)
class Case:
    """What is compared."""

    name: str
    bare: Call
    wrapped: Call


@contextmanager
def stand_in() -> Iterator[str]:
    """Its address."""
    process = subprocess.Popen([sys.executable, "-c", STAND_IN], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Asking:
    """How a client is called. Each prompt is one that was not asked before, unless all are to be the same."""

    streamed: bool
    same: bool

    def _create(self, client: Any, model: str) -> Any:
        number = 0 if self.same else next(_numbers)
        prompt = f"Summarise ticket {number} in one line: the printer on floor {number % 9} burns"
        given: dict[str, Any] = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": prompt}]}
        method = client.messages.create if hasattr(client, "messages") else client.chat.completions.create
        return method(**given, **({"stream": True} if self.streamed else {}))

    def of(self, client: Any, model: str) -> Call:
        """Calls of a synchronous client."""

        def call() -> None:
            answer = self._create(client, model)
            for _ in answer if self.streamed else ():
                pass

        return call

    def of_async(self, client: Any, model: str, runner: asyncio.Runner) -> Call:
        """Calls of an asynchronous one."""

        async def ask() -> None:
            answer = await self._create(client, model)
            if self.streamed:
                async for _ in answer:
                    pass

        return lambda: runner.run(ask())


def cases_of(sdk: str, url: str, settings: Settings, runner: asyncio.Runner, *, same: bool) -> Iterator[Case]:
    """Each way of calling, of one SDK."""
    sync, asynchronous = clients_of(sdk, url)
    wrapped, wrapped_async = (tierwise.wrap(client, settings=settings) for client in (sync, asynchronous))
    named = NAMED[sdk]
    # A model by name goes to OpenAI past tierwise: there is nothing to measure.
    models = {"named": named, "routed": ROUTED} if sdk == "anthropic" else {"routed": ROUTED}
    for kind, model in models.items():
        for asking in (Asking(streamed=False, same=same), Asking(streamed=True, same=same)):
            how = "stream" if asking.streamed else "create"
            yield Case(f"{sdk} {kind} {how}", asking.of(sync, named), asking.of(wrapped, model))
            yield Case(
                f"{sdk} {kind} async {how}",
                asking.of_async(asynchronous, named, runner),
                asking.of_async(wrapped_async, model, runner),
            )
    for client in (sync, wrapped):
        client.close()
    for client in (asynchronous, wrapped_async):
        runner.run(client.close())


def clients_of(sdk: str, url: str) -> tuple[Any, Any]:
    """The SDK's own, synchronous and asynchronous."""
    given: dict[str, Any] = {"api_key": "sk-ant-benchmark", "max_retries": 0}
    if sdk == "anthropic":
        import anthropic

        return anthropic.Anthropic(base_url=url, **given), anthropic.AsyncAnthropic(base_url=url, **given)
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", **given), openai.AsyncOpenAI(base_url=f"{url}/v1", **given)


def measure(case: Case, calls: int) -> str:
    """A row: what a call takes without and with tierwise."""
    bare, wrapped = Side(case.bare), Side(case.wrapped)
    for side in (bare, wrapped):
        side.run(IN_TURN)  # connections, caches
        side.seconds.clear()
        side.cpu = 0.0
    for _ in range(-(-calls // IN_TURN)):
        bare.run(IN_TURN)
        wrapped.run(IN_TURN)
    was, now = statistics.median(bare.seconds) * 1e6, statistics.median(wrapped.seconds) * 1e6
    p95 = statistics.quantiles(wrapped.seconds, n=20)[-1] * 1e6
    cpu = (wrapped.cpu / len(wrapped.seconds) - bare.cpu / len(bare.seconds)) * 1e6
    return f"{case.name:30} {was:9,.0f} {now:9,.0f} {now - was:+9,.0f} {now / was:7.2f} {p95:9,.0f} {cpu:+9,.0f}"


def main() -> None:
    """Measures all ways of calling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--sdk", choices=tuple(NAMED))
    parser.add_argument("--same", action="store_true", help="one prompt for all calls")
    given = parser.parse_args()
    with stand_in() as url, tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        settings = load_settings(
            env={
                "HOME": folder,
                "ANTHROPIC_BASE_URL": url,
                "ANTHROPIC_API_KEY": "sk-ant-benchmark",
                "TIERWISE_LEDGER": str(Path(folder) / "ledger.db"),
            },
            cwd=Path(folder),
        )
        print(f"{'µs a call':30} {'bare p50':>9} {'wrapped':>9} {'added':>9} {'ratio':>7} {'p95':>9} {'CPU added':>9}")
        for sdk in [given.sdk] if given.sdk else NAMED:
            for case in cases_of(sdk, url, settings, runner, same=given.same):
                print(measure(case, given.calls), flush=True)


if __name__ == "__main__":
    main()
