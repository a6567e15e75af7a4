"""`tierwise exec`: the real Claude Code CLI on the model that fits, with the stand-in for Anthropic's API behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import ClaudeCode, Said, claude, home
from tests.gateway.conftest import KEY, Serve, serve, stopping
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import nanousd_to_usd
from tierwise.ledger import Ledger
from tierwise.ledger.store import StoredCall
from tierwise.testing import Fault, RecordedRequest, StandInReply, StandInUpstream

__all__ = ["claude", "home", "serve", "stopping"]  # fixtures of the clients' and the gateway's own tests

EXAMPLES = Path(__file__).parents[3] / "examples" / "claude-code"
SUMMARY = "Summarise this ticket in one line: the printer burns"
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
BARE = ("--bare", "--tools", "", "--system-prompt", "You are terse.")


@pytest.fixture
def upstream() -> Any:
    """A stand-in for the API, whose key is the client's own."""
    with StandInUpstream(api_key=KEY) as server:
        yield server


@dataclass
class Exec:
    """`tierwise exec`, in a process of its own."""

    claude: ClaudeCode
    upstream: StandInUpstream
    base_url: str

    @property
    def ledger_path(self) -> Path:
        return self.claude.cwd / "ledger.db"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tierwise", "exec", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": self.base_url,
            "TIERWISE_LEDGER": str(self.ledger_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    def __call__(self, *words: str) -> Said:
        return self.claude.run(self.command(*words), **self.environment)

    def calls(self) -> list[StoredCall]:
        with Ledger(self.ledger_path) as ledger:
            return list(ledger.calls())

    def models(self) -> list[str]:
        return [request.json["model"] for request in self.upstream.calls()]


@pytest.fixture
def run(claude: ClaudeCode, upstream: StandInUpstream) -> Exec:
    return Exec(claude, upstream, upstream.url)


def test_the_model_that_fits_answers(run: Exec, upstream: StandInUpstream) -> None:
    """The answer is all of stdout, it came from Haiku, and the ledger has what the CLI reported, priced."""
    usage = {"input_tokens": 1_000, "output_tokens": 50, "cache_read_input_tokens": 2_000}
    upstream.reply("The printer burns.", usage=usage)  # type: ignore[arg-type]
    said = run("--", "claude", "-p", SUMMARY, *BARE)
    assert (said.status, said.out) == (0, "The printer burns.\n"), said
    assert run.models() == [HAIKU]
    (stored,) = run.calls()
    (attempt,) = stored.attempts
    assert (stored.call.status, stored.call.task_type) == (CallStatus.ANSWERED, "summarization")
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens, attempt.usage.cache_read_tokens) == (
        1000,
        50,
        2000,
    )
    assert attempt.price is not None
    assert attempt.cost_nanousd is not None
    assert nanousd_to_usd(attempt.cost_nanousd) == attempt.price.cost_usd(attempt.usage)
    assert stored.call.baseline_nanousd is not None
    assert stored.call.baseline_nanousd > attempt.cost_nanousd


def test_a_failed_check_climbs(run: Exec, upstream: StandInUpstream) -> None:
    """An answer that the check refuses goes to the next model, in the same directory, and both are paid for."""
    upstream.reply("no")
    upstream.reply("yes")
    said = run("--check", "grep -q yes", "--before-retry", "touch again", "--", "claude", "-p", SUMMARY, *BARE)
    assert (said.status, said.out) == (0, "yes\n"), said
    assert run.models() == [HAIKU, SONNET]
    assert (run.claude.cwd / "again").exists()
    (stored,) = run.calls()
    assert [attempt.outcome for attempt in stored.attempts] == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]
    assert all(attempt.cost_nanousd for attempt in stored.attempts)
    assert stored.attempts[0].detail == "the check ended with 1"


def test_when_no_model_passes(run: Exec, upstream: StandInUpstream) -> None:
    """A check that nobody passes ends with 1; every attempt is told of and recorded, and stdout stays empty.

    A session that the command names is the first attempt's: Claude Code has each but once.
    """
    named = ("--session-id", str(uuid.uuid4()))
    said = run("--check", "false", "--", "claude", "-p", SUMMARY, *named, *BARE)
    assert (said.status, said.out) == (1, "")
    assert run.models() == [HAIKU, SONNET, OPUS]
    assert said.err.count("the check ended with 1") >= 3
    (stored,) = run.calls()
    assert (stored.call.status, len(stored.attempts)) == (CallStatus.FAILED, 3)


def structured(value: object) -> StandInReply:
    """What the CLI takes for structured output."""
    content = {"type": "tool_use", "id": "toolu_01", "name": "StructuredOutput", "input": {"title": value}}
    return StandInReply(content=(content,), stop_reason="tool_use")


def test_a_schema_is_asked_for_and_climbed_for(run: Exec, upstream: StandInUpstream) -> None:
    """`--json-schema` prints an object of the schema; a model that cannot make one is left for the next."""

    def answer(request: RecordedRequest) -> StandInReply:
        return structured("Fire" if request.json["model"] == SONNET else 7)

    upstream.handler = answer
    said = run("--", "claude", "-p", f"Give this ticket a title: {SUMMARY}", "--json-schema", json.dumps(SCHEMA), *BARE)
    assert (said.status, json.loads(said.out or "null")) == (0, {"title": "Fire"}), said
    assert set(run.models()) == {HAIKU, SONNET}


def test_what_the_cli_cannot_do_on_any_model_is_not_climbed(run: Exec, upstream: StandInUpstream) -> None:
    """An option that the CLI does not know ends at once, with what the CLI said."""
    said = run("--", "claude", "-p", SUMMARY, "--no-such-option")
    assert said.status == 1
    assert "unknown option" in said.err
    assert run.models() == []
    (stored,) = run.calls()
    assert len(stored.attempts) == 1
    assert "no-such-option" not in repr(stored)


def test_json_of_our_own(run: Exec, upstream: StandInUpstream) -> None:
    """`--json` prints the keys that the reference documents."""
    upstream.reply("The printer burns.")
    told = run("--json", "--", "claude", "-p", SUMMARY, *BARE).json
    page = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text()
    documented = json.loads(page.partition("## tierwise exec")[2].partition("```json")[2].partition("```")[0])
    assert told.keys() == documented.keys()
    assert told["attempts"][0].keys() == documented["attempts"][0].keys()
    assert (told["ok"], told["text"], told["tier"]) == (True, "The printer burns.", "haiku")


def test_json_is_passed_on_as_it_came(run: Exec, upstream: StandInUpstream) -> None:
    """`--output-format json` prints the CLI's own report of the attempt that passed."""
    upstream.reply("The printer burns.")
    said = run("--", "claude", "-p", SUMMARY, "--output-format", "json", *BARE)
    assert said.json["result"] == "The printer burns."
    assert said.json["modelUsage"].keys() == {HAIKU}


def test_what_the_gateway_recorded_is_not_counted_again(
    claude: ClaudeCode, upstream: StandInUpstream, serve: Serve
) -> None:
    """Through the gateway each request is recorded on its way; what is recorded of the run costs nothing more."""
    gateway = serve(upstream)
    run = Exec(claude, upstream, gateway.url)
    environment = {**run.environment, "TIERWISE_LEDGER": str(gateway.ledger_path)}
    upstream.reply("The printer burns.")
    said = claude.run(run.command("--", "claude", "-p", SUMMARY, *BARE), **environment)
    assert (said.status, "counted by the gateway" in said.err) == (0, True), said
    costs = [attempt.cost_nanousd for stored in gateway.calls() for attempt in stored.attempts]
    assert len(costs) == 2
    assert costs.count(0) == 1


def test_a_file_of_tasks_goes_on_where_it_stopped(run: Exec, upstream: StandInUpstream) -> None:
    """Each task has a line in the results; going on runs only what failed, has changed, or was never done."""
    upstream.handler = lambda request: StandInReply.of_text("bad" if b"boxes" in request.body else "good")
    tasks, out = run.claude.cwd / "tasks.jsonl", run.claude.cwd / "results.jsonl"
    lines = [{"id": "a", "text": SUMMARY}, {"id": "b", "text": "Summarise: boxes are missing", "max_tier": "haiku"}]
    tasks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("--tasks", str(tasks), "--out", str(out), "--concurrency", "2", "--check", "grep -q good")
    first = run(*words, "--", "claude", "-p", *BARE)
    assert (first.status, first.err) == (1, "1 of 2 succeeded\n")
    found = {result["id"]: result for result in map(json.loads, out.read_text().splitlines())}
    assert {name: result["ok"] for name, result in found.items()} == {"a": True, "b": False}
    assert found["a"]["text"] == "good"
    with out.open("ab") as torn:
        torn.write(b'{"id": "c", "di')
    upstream.handler = None
    upstream.reply("good")
    before = len(run.models())
    second = run(*words, "--resume", "--", "claude", "-p", *BARE)
    assert (second.status, second.err) == (0, "1 of 1 succeeded, 1 done before\n")
    assert len(run.models()) == before + 1


def test_what_is_piped_is_handed_to_every_attempt(run: Exec, upstream: StandInUpstream) -> None:
    """The standard input is read once, and each model that is tried gets it."""
    upstream.reply("no")
    upstream.reply("yes")
    done = subprocess.run(
        run.command("--check", "grep -q yes", "--", "claude", "-p", "Summarise this ticket", *BARE),
        input=b"the printer burns in room 7",
        env={**run.claude.environment, **run.environment},
        cwd=run.claude.cwd,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"yes\n"), done
    assert [b"room 7" in request.body for request in upstream.calls()] == [True, True]


def test_a_pipe_that_nobody_writes_to_holds_nothing_up(run: Exec, upstream: StandInUpstream) -> None:
    """In a job whose standard input stays open, it goes on without one and says so."""
    command = run.command("--", "claude", "-p", SUMMARY, *BARE)
    environment = {**run.claude.environment, **run.environment}
    held, written = os.pipe()
    try:
        done = subprocess.run(
            command, stdin=held, env=environment, cwd=run.claude.cwd, capture_output=True, timeout=60, check=False
        )
    finally:
        os.close(held)
        os.close(written)
    assert done.returncode == 0, done
    assert b"going on without it" in done.stderr


def test_a_run_that_takes_too_long_is_ended(run: Exec, upstream: StandInUpstream) -> None:
    """At the deadline the CLI is ended, what it may have used stays counted as an estimate, and the exit code is 4."""
    upstream.fail(Fault.stall(), times=None)
    said = run("--max-latency", "5s", "--check", "true", "--", "claude", "-p", SUMMARY, *BARE)
    assert (said.status, said.out) == (4, ""), said
    (stored,) = run.calls()
    (attempt,) = stored.attempts
    assert (attempt.outcome, attempt.usage.estimated) == (OutcomeKind.TIMEOUT, True)
    assert attempt.cost_nanousd


def test_a_run_that_was_killed_is_not_free(run: Exec) -> None:
    """Of one that somebody else ended, such as for its memory, nobody says what it used: an estimate stays counted."""
    killed = run.claude.cwd / "claude"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    said = run("--", str(killed), "-p", SUMMARY)
    assert said.status != 0
    (stored,) = run.calls()
    assert {attempt.outcome for attempt in stored.attempts} == {OutcomeKind.SERVER_ERROR}
    assert all(attempt.usage.estimated and attempt.cost_nanousd for attempt in stored.attempts)


@pytest.mark.parametrize(("ending", "estimated"), [("exit 1", False), ("kill -9 $$", True)])
def test_a_run_that_told_nothing_is_counted_by_its_transcript(
    run: Exec, upstream: StandInUpstream, ending: str, estimated: bool
) -> None:
    """What a CLI used that ended without a report stands in its transcript; each token of it is in the ledger."""
    usage = {"input_tokens": 40_000, "output_tokens": 1_234, "cache_read_input_tokens": 700}
    upstream.reply("The printer burns.", usage=usage, times=None)
    mute = run.claude.cwd / "claude"
    mute.write_text(
        f'#!/bin/sh\n"{shutil.which("claude", path=run.claude.environment["PATH"])}" "$@" >/dev/null\n{ending}\n'
    )
    mute.chmod(0o755)
    said = run("--max-tier", "haiku", "--", str(mute), "-p", SUMMARY, *BARE)
    assert said.status != 0
    (stored,) = run.calls()
    (attempt,) = [attempt for attempt in stored.attempts if attempt.tier == "haiku"]
    counted = attempt.usage
    assert (counted.input_tokens, counted.output_tokens, counted.cache_read_tokens) == (40_000, 1_234, 700), said
    assert counted.estimated is estimated
    assert attempt.cost_nanousd


def test_a_program_that_is_not_there(run: Exec) -> None:
    """A missing CLI ends with 2 and how to install it."""
    said = run("--", "/nowhere/claude", "-p", SUMMARY)
    assert (said.status, said.out) == (2, "")
    assert "there is no /nowhere/claude" in said.err


@pytest.mark.parametrize("example", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_examples_run(run: Exec, upstream: StandInUpstream, example: Path) -> None:
    """Each script of examples/claude-code runs as it stands, against the stand-in."""
    upstream.handler = lambda request: (
        structured("Printer on fire") if b"StructuredOutput" in request.body else StandInReply.of_text("README.md: ok")
    )
    (run.claude.cwd / "README.md").write_text("# A printer\n")
    (run.claude.cwd / "ticket.txt").write_text("The printer burns.\n")
    shell = {".sh": ["bash", "-eu"], ".py": [sys.executable]}[example.suffix]
    folder = str(Path(sys.executable).parent)
    environment = {**run.environment, "PATH": os.pathsep.join([folder, run.claude.environment["PATH"]])}
    said = run.claude.run([*shell, str(example)], **environment)
    assert said.status == 0, said
    assert said.out
    assert run.calls() or "route" in example.name


def test_ctrl_c_leaves_no_orphan(run: Exec, upstream: StandInUpstream) -> None:
    """Interrupted in the middle of a run, it ends the CLI too, and the ledger says that the call was cancelled."""
    started: list[subprocess.Popen[bytes]] = []

    def interrupt(request: RecordedRequest) -> StandInReply:
        if len(upstream.calls()) == 1:
            started[0].send_signal(signal.SIGINT)
        return StandInReply.of_text("too late")

    upstream.handler = interrupt
    environment = {**run.claude.environment, **run.environment}
    command = run.command("--check", "sleep 600", "--", "claude", "-p", SUMMARY, *BARE)
    started.append(subprocess.Popen(command, env=environment, cwd=run.claude.cwd, stdin=subprocess.DEVNULL))
    assert started[0].wait(120) == 130
    (stored,) = run.calls()
    assert stored.call.status is CallStatus.CANCELLED
