"""The synchronous router: threads, Ctrl-C, kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.conftest import CONFIG, KEY, Rig
from tierwise.config import load_settings
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import InvalidTask, NotRun, TierwiseError
from tierwise.core.settings import Settings
from tierwise.engine.sync import Router
from tierwise.ledger import Ledger
from tierwise.testing import Fault, StandInReply, StandInUpstream

USED = {"input_tokens": 1000, "output_tokens": 200}


def _settings(rig: Rig, key: str = KEY) -> Settings:
    return rig.router(key=key).settings


def test_every_method_works_without_await(rig: Rig) -> None:
    """classify, route, run, dispatch_tool and the rest are AsyncRouter's, made synchronous."""
    rig.upstream.reply("a, b", times=None, usage=USED)
    with Router(_settings(rig), ledger=rig.ledger) as router:
        assert router.classify("x", task_type="ranking").task_type.name == "ranking"
        assert router.route("x", task_type="ranking").tier.name == "haiku"
        assert router.route_checked("x", task_type="summarization").model.id == "qwen3:8b"
        assert router.local_models()["qwen3:8b"].ok
        assert router.run("order these", task_type="ranking").text == "a, b"
        assert router.dispatch_tool("sort_items", {"items": ["b", "a"]}, tier_overrides={"sort_items": "opus"}).text
        assert router.ledger is rig.ledger
    assert len(list(rig.ledger.calls())) == 2


def test_errors_come_through(rig: Rig) -> None:
    """What the router raises reaches the calling thread as it is."""
    with Router(_settings(rig, key=""), ledger=rig.ledger) as router:
        with pytest.raises(InvalidTask):
            router.run("")
        with pytest.raises(NotRun) as caught:
            router.run("order these", task_type="ranking")
        assert caught.value.call_id


def test_check_that_would_end_the_process(rig: Rig) -> None:
    """A check that calls `sys.exit` ends its call, whose caller gets that; the router goes on."""
    rig.upstream.reply("a, b", times=None, usage=USED)
    with Router(_settings(rig), ledger=rig.ledger) as router:
        with pytest.raises(SystemExit):
            router.run("order these", task_type="ranking", checks=[sys.exit])
        assert router.run("order these", task_type="ranking").text == "a, b"
    assert [found.call.status for found in rig.ledger.calls()] == [CallStatus.FAILED, CallStatus.ANSWERED]


def test_threads_share_a_router(rig: Rig) -> None:
    """Twenty calls from eight threads: each has its answer, and each is recorded."""

    def echo(request: object) -> StandInReply:
        body = request.json  # type: ignore[attr-defined]
        return StandInReply.of_text(f"answer {body['messages'][0]['content'].split()[-1]}", usage=USED)

    rig.upstream.handler = echo
    with Router(_settings(rig), ledger=rig.ledger) as router, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: router.run(f"count {n}", task_type="ranking"), range(20)))
    assert [result.text for result in results] == [f"answer {n}" for n in range(20)]
    assert len(list(rig.ledger.calls())) == 20


def test_a_closed_router_says_so(rig: Rig) -> None:
    """Closing twice is fine; running afterwards is an error that says what to do."""
    router = Router(_settings(rig), ledger=rig.ledger)
    router.close()
    router.close()
    with pytest.raises(TierwiseError, match="this router is closed; make a new one"):
        router.run("order these", task_type="ranking")


async def test_it_can_be_used_inside_an_event_loop(rig: Rig) -> None:
    """A notebook runs a loop of its own: the router's is another one, also for closing it unused."""
    assert asyncio.get_running_loop()
    rig.upstream.reply("a, b")
    with Router(_settings(rig), ledger=rig.ledger) as router:
        assert router.run("order these", task_type="ranking").text == "a, b"
    with Router(_settings(rig), ledger=rig.ledger) as unused:
        assert unused.route("order these", task_type="ranking")


# ------------------------------------------------------------------ another process

SCRIPT = """
import os, signal, sys, time
from tierwise.core.tasks import Classification, Task
from tierwise.classifier import load_taxonomy
from tierwise.engine.sync import Router

class Slow:
    def classify(self, task: Task) -> Classification:
        print("classifying", flush=True)
        if "TEST_INTERRUPT" in os.environ:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(float(os.environ.get("TEST_CLASSIFY_SECONDS", "0")))
        return Classification(load_taxonomy()["ranking"], 1.0)

with Router(classifier=Slow()) as router:
    print(router.run("order these: b, a").text, flush=True)
"""


@contextmanager
def _process(upstream: StandInUpstream, folder: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    config = folder / "tierwise.toml"
    config.write_text(CONFIG.format(url=upstream.url, patience=600.0, more=""), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TIERWISE_CONFIG": str(config),
            "TIERWISE_LEDGER": str(folder / "process.db"),
            "ANTHROPIC_API_KEY": KEY,
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "classifying\n"
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _interrupt(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)  # below what the upstream would keep it waiting
    assert process.returncode in {130, -signal.SIGINT}
    assert "KeyboardInterrupt" in errors
    return errors


def _wait_for_request(upstream: StandInUpstream, process: subprocess.Popen[str]) -> None:
    while not upstream.calls():
        assert process.poll() is None
        time.sleep(0.005)  # leaves the processor to the process


@pytest.mark.parametrize("phase", ["first token", "mid-stream", "back-off"])
def test_ctrl_c_ends_a_call_in_every_phase(upstream: StandInUpstream, tmp_path: Path, phase: str) -> None:
    """Interrupted while it waits for the first token, for the next one, or to try again: it ends, and is on record."""
    words = StandInReply.of_text("word " * 50, usage=USED)
    fault = {
        "first token": Fault.stall(reply=words),
        "mid-stream": Fault.stall(after_events=5, reply=words),
        "back-off": Fault.rate_limited(retry_after=110),
    }[phase]
    upstream.fail(fault, times=None)
    # One rung only: with others above so long a wait would not be made.
    with _process(upstream, tmp_path, TIERWISE_MAX_TIER="haiku") as process:
        _wait_for_request(upstream, process)
        request = upstream.calls()[0]
        if phase == "back-off":
            assert request.wait_finished()
            while _last_outcome(tmp_path) is not OutcomeKind.RATE_LIMITED:
                assert process.poll() is None
                time.sleep(0.005)
        errors = _interrupt(process)
    if phase != "back-off":
        assert request.wait_finished()
        assert request.closed_early
    with Ledger(tmp_path / "process.db") as ledger:
        (stored,) = ledger.calls()
    assert stored.call.status is CallStatus.CANCELLED
    (attempt,) = stored.attempts
    expected = OutcomeKind.RATE_LIMITED if phase == "back-off" else OutcomeKind.CANCELLED
    assert attempt.outcome is expected
    assert (attempt.cost_nanousd or 0) > 0 or phase == "back-off"
    assert "never retrieved" not in errors


def _last_outcome(folder: Path) -> OutcomeKind | None:
    path = folder / "process.db"
    if not path.exists():
        return None
    with Ledger(path) as ledger:
        stored = list(ledger.calls())
    return stored[-1].attempts[-1].outcome if stored and stored[-1].attempts else None


def test_ctrl_c_while_classifying_ends_it(upstream: StandInUpstream, tmp_path: Path) -> None:
    """Interrupted before anything was decided: no answer is waited for, and no record is left open."""
    upstream.fail(Fault.stall(), times=None)
    with _process(upstream, tmp_path, TEST_CLASSIFY_SECONDS="1") as process:
        _interrupt(process)
    with Ledger(tmp_path / "process.db") as ledger:
        for stored in ledger.calls():
            assert stored.call.status is CallStatus.CANCELLED
            assert all(attempt.outcome is not OutcomeKind.OPEN for attempt in stored.attempts)


def test_ctrl_c_at_the_very_start_ends_it(upstream: StandInUpstream, tmp_path: Path) -> None:
    """Interrupted in the instant in which the call is handed to its thread: it ends like any other, once."""
    upstream.fail(Fault.stall(), times=None)
    with _process(upstream, tmp_path, TEST_INTERRUPT="1", TEST_CLASSIFY_SECONDS="0.2") as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode in {130, -signal.SIGINT}
    assert errors.count("KeyboardInterrupt") == 1
    assert "already executing" not in errors
    assert "never awaited" not in errors
    with Ledger(tmp_path / "process.db") as ledger:
        assert all(stored.call.status is CallStatus.CANCELLED for stored in ledger.calls())


def test_kill_9_leaves_an_open_attempt_with_its_estimate(upstream: StandInUpstream, tmp_path: Path) -> None:
    """A process killed while it waits leaves the call and its attempt, at what it was expected to cost."""
    upstream.fail(Fault.stall(), times=None)
    with _process(upstream, tmp_path) as process:
        _wait_for_request(upstream, process)
        process.kill()
        process.wait()
    with Ledger(tmp_path / "process.db") as ledger:
        assert ledger.check() == []
        (stored,) = ledger.calls()
        (left,) = ledger.abandoned()
    assert stored.call.status is CallStatus.FAILED  # the next process that opened the ledger found its writer gone
    assert "its process ended before the call did" in (stored.call.error or "")
    (attempt,) = stored.attempts
    assert (attempt.outcome, attempt.model) == (OutcomeKind.OPEN, "claude-haiku-5-5")
    assert attempt.usage.estimated
    assert (attempt.cost_nanousd or 0) > 0
    assert left.call.call_id == stored.call.call_id


FORKED = """
import os, sys
from tierwise.engine.sync import Router

router = Router()
assert router.run("order these: b, a", task_type="ranking").text == "a, b"
child = os.fork()
if child == 0:
    code = 0 if router.run("order these: b, a", task_type="ranking").text == "a, b" else 1
    os._exit(code)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_router_works_on_in_a_forked_process(upstream: StandInUpstream, tmp_path: Path) -> None:
    """A server that forks its workers after the first call: each worker's calls run and are recorded."""
    upstream.reply("a, b", times=None)
    config = tmp_path / "tierwise.toml"
    config.write_text(CONFIG.format(url=upstream.url, patience=60.0, more=""), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "TIERWISE_CONFIG": str(config),
            "TIERWISE_LEDGER": str(tmp_path / "process.db"),
            "ANTHROPIC_API_KEY": KEY,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Ledger(tmp_path / "process.db") as ledger:
        assert [row.call.status for row in ledger.calls()] == [CallStatus.ANSWERED] * 2


def test_settings_are_read_where_none_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Router() alone reads what is configured around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TIERWISE_LEDGER", str(tmp_path / "own.db"))
    monkeypatch.delenv("TIERWISE_CONFIG", raising=False)
    (tmp_path / "tierwise.toml").write_text("project = 'here'")
    with Router() as router:
        assert router.settings.project == "here"
        assert router.ledger is not None
        assert router.ledger.path == tmp_path / "own.db"
    assert load_settings().project == "here"
