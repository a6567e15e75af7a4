"""Hosts that drop a stream, end with one open, or fork: what was called is in the ledger, once, and nothing hangs."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import tierwise
from tests.integrations.conftest import Host
from tierwise.core.decisions import CallStatus
from tierwise.testing import Fault, StandInReply, StandInUpstream

anthropic = pytest.importorskip("anthropic", reason="not installed: pip install -r requirements/dev.txt")

OPUS = "claude-opus-5-5"
ASKED: Any = {"max_tokens": 99, "messages": [{"role": "user", "content": "Summarise this ticket: the printer burns"}]}
HALF = Fault.stall(after_events=5, reply=StandInReply.of_text("It burns. " * 50))

# What all programs begin with: a client, and a first event of a stream.
BEGINNING = f"""
import asyncio, contextlib, os, sys, threading, time
import anthropic, tierwise

CALL = {{"model": {OPUS!r}, **{ASKED!r}}}
client = tierwise.wrap(anthropic.Anthropic(max_retries=0))
"""


@dataclass
class Program:
    """A program of its own, with a ledger of its own."""

    host: Host
    folder: Path

    def run(self, text: str) -> Host:
        """Runs it to its end; what is in its ledger then."""
        ledger = self.folder / "own.db"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", BEGINNING + text],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "HOME": str(self.folder),
                "ANTHROPIC_BASE_URL": self.host.upstream.url,
                "ANTHROPIC_API_KEY": "sk-ant-own",
                "TIERWISE_LEDGER": str(ledger),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return Host(
            self.host.upstream, replace(self.host.settings, ledger=replace(self.host.settings.ledger, path=ledger))
        )


@pytest.fixture
def program(host: Host, tmp_path: Path) -> Program:
    """One that has not run yet."""
    return Program(host, tmp_path)


@pytest.fixture
def elsewhere() -> Iterator[StandInUpstream]:
    """A stand-in where OpenAI would be."""
    with StandInUpstream(models=["gpt-stand-in"]) as running:
        yield running


def test_dropped_stream_is_cancelled(host: Host) -> None:
    """A stream that is neither read nor closed ends with its last reference, upstream too."""
    host.upstream.fail(HALF)
    client = anthropic.Anthropic(base_url=host.upstream.url, api_key="sk-ant-own", max_retries=0)
    with tierwise.wrap(client, settings=host.settings) as claude:
        stream = claude.messages.create(model=OPUS, stream=True, **ASKED)
        del stream
        gc.collect()
        assert host.ended_call().call.status is CallStatus.CANCELLED
    assert host.upstream.calls()[0].wait_finished()


async def test_dropped_asynchronous_stream_is_cancelled(host: Host) -> None:
    """So does one of an asynchronous client."""
    host.upstream.fail(HALF)
    client = anthropic.AsyncAnthropic(base_url=host.upstream.url, api_key="sk-ant-own", max_retries=0)
    async with tierwise.wrap(client, settings=host.settings) as claude:
        stream = await claude.messages.create(model=OPUS, stream=True, **ASKED)
        del stream
        gc.collect()
        assert host.ended_call().call.status is CallStatus.CANCELLED


def test_dropped_stream_of_another_model_is_recorded(host: Host, elsewhere: StandInUpstream) -> None:
    """A stream that goes to OpenAI, and that nobody reads, is in the ledger."""
    openai = pytest.importorskip("openai", reason="not installed: pip install -r requirements/dev.txt")
    client = openai.OpenAI(base_url=f"{elsewhere.url}/v1", api_key="sk-of-openai", max_retries=0)
    with tierwise.wrap(client, settings=host.settings) as gpt:
        stream = gpt.chat.completions.create(model="gpt-stand-in", stream=True, messages=ASKED["messages"])
        del stream
        gc.collect()
    ends = time.monotonic() + 10
    while not host.calls() and time.monotonic() < ends:  # nobody waits for its record
        time.sleep(0.01)
    assert host.call().call.status is CallStatus.CANCELLED
    assert host.call().attempts[0].cost_nanousd is None


READS_BESIDE = """
begun = threading.Event()

def read():
    with contextlib.suppress(Exception):
        for _ in client.messages.create(stream=True, **CALL):
            begun.set()

threading.Thread(target=read, daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize(
    "ending",
    [
        "stream = client.messages.create(stream=True, **CALL); next(iter(stream)); sys.exit()",
        "stream = asyncio.run(tierwise.wrap(anthropic.AsyncAnthropic()).messages.create(stream=True, **CALL))",
        READS_BESIDE,
    ],
    ids=["open stream", "closed loop", "thread"],
)
def test_call_that_runs_when_the_process_ends_is_recorded(program: Program, ending: str) -> None:
    """A program that ends in the middle of an answer records it as cancelled, with what was used, and says nothing."""
    program.host.upstream.fail(HALF)
    found = program.run(ending).call()
    assert found.call.status is CallStatus.CANCELLED
    assert found.attempts[0].usage.input_tokens > 0


FORKS = """
client.messages.create(**CALL)
stream = client.messages.create(stream=True, **CALL)
events = iter(stream)
next(events)
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        client.messages.create(**CALL)
        del stream, events
        if number == 0:
            os._exit(0)
        sys.exit()
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
assert list(events)[-1].type == "message_stop"
client.messages.create(**CALL)
"""


def test_forked_processes_have_their_own(program: Program) -> None:
    """After a fork parent and children go on, however children end, and each call is recorded once."""
    found = program.run(FORKS).calls()
    assert Counter((stored.call.status, len(stored.attempts)) for stored in found) == {(CallStatus.ANSWERED, 1): 6}
    assert len(program.host.upstream.calls()) == 6


FORKS_EARLY = """
from tierwise.integrations import sdk

(gateway,) = sdk._gateways
held = threading.Event()

def start():
    with gateway._lock:  # as while it starts, which takes some tenths of a second
        held.set()
        time.sleep(3600)

threading.Thread(target=start, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    client.messages.create(**CALL)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_fork_while_the_gateway_starts(program: Program) -> None:
    """A process that is forked while another thread makes the first call does not wait for that thread."""
    assert program.run(FORKS_EARLY).call().call.status is CallStatus.ANSWERED
