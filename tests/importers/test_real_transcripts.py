"""Transcripts that the real Claude Code CLI has just written: what they cost is what the CLI itself says.

To the micro-dollar, for every session of known models whose calls are all in its transcript. Where a call is in no row
(of a compaction, of a title), or the CLI's own figure lacks one (that was interrupted), the difference is exactly it.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import NEVER_SECONDS, PROGRAM, RETRIES, ClaudeCode
from tests.gateway.conftest import KEY
from tierwise.config import load_settings
from tierwise.core.calls import CallKind, ImportedCall, ImportedSession
from tierwise.core.catalog import Model
from tierwise.core.errors import UnpricedModel
from tierwise.core.json import JsonObject
from tierwise.core.money import Usage, usd_to_nanousd
from tierwise.importers.base import ImportRun
from tierwise.importers.registry import importer
from tierwise.ledger.readings import Readings
from tierwise.prices import PriceBook
from tierwise.testing import Fault, RecordedRequest, StandInReply, StandInUpstream

ASK = "Write a short story about a lighthouse keeper who collects storms"
MICRO = 1_000  # nano-dollars


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    """The shipped prices."""
    settings = load_settings(env={"HOME": str(tmp_path_factory.mktemp("home"))}, cwd=tmp_path_factory.mktemp("cwd"))
    return PriceBook(settings.prices, settings.providers)


def usage(
    fresh: int = 7,
    output: int = 20,
    read: int = 0,
    write_5m: int = 0,
    write_1h: int = 0,
    *,
    thinking: int = 0,
    searches: int = 0,
    **others: str,
) -> JsonObject:
    """Usage as the API tells it, writes by their time to live."""
    return {
        "input_tokens": fresh,
        "output_tokens": output,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_creation": {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h},
        "output_tokens_details": {"thinking_tokens": thinking},
        "server_tool_use": {"web_search_requests": searches, "web_fetch_requests": 0},
        **others,
    }


def text(words: str, used: JsonObject) -> StandInReply:
    """A reply that used so much."""
    return StandInReply.of_text(words, usage=used)


def tool(name: str, arguments: JsonObject, used: JsonObject) -> StandInReply:
    """A thought, a few words and a call of a tool: three rows of one call."""
    return StandInReply(
        content=(
            {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"},
            {"type": "text", "text": "Let me do it."},
            {"type": "tool_use", "id": "toolu_01Real", "name": name, "input": arguments},
        ),
        stop_reason="tool_use",
        usage=used,
    )


def ask(claude: ClaudeCode, upstream: StandInUpstream, *arguments: str) -> Any:
    """`claude -p …` straight to the stand-in; its result, which must be one."""
    said = claude.run([str(PROGRAM), "-p", *arguments, "--output-format", "json"], ANTHROPIC_BASE_URL=upstream.url)
    return said.json


def transcripts(claude: ClaudeCode) -> Path:
    """Where the CLI keeps what was said in this test's directory."""
    return claude.home / ".claude" / "projects" / re.sub(r"[^A-Za-z0-9]", "-", str(claude.cwd))


def sessions(claude: ClaudeCode) -> dict[str, ImportedSession]:
    """What the importer finds of this test, by session. All of it is known, all of it could be read."""
    run = ImportRun()
    found = {one.id: one.read() for one in importer("claude_code").sessions([transcripts(claude)], run)}
    assert run.skipped.line_count == 0
    assert not run.skipped.unknown_kinds
    assert not run.skipped.unknown_fields
    return found


def session(claude: ClaudeCode) -> ImportedSession:
    """The only one."""
    (found,) = sessions(claude).values()
    return found


def nanousd(book: PriceBook, *calls: ImportedCall) -> int:
    """What calls cost."""
    return sum(
        usd_to_nanousd(
            book.price(
                Model(id=call.model, provider=call.provider, context_tokens=10**6, max_output_tokens=10**5),
                call.day,
                call.conditions,
            ).cost_usd(call.usage)
        )
        for call in calls
    )


def missing(book: PriceBook, found: ImportedSession) -> int:
    """Nano-dollars that the CLI counted and no row holds, beyond what its floating-point sum may be off."""
    assert found.own_cost is not None
    difference = usd_to_nanousd(found.own_cost.total_usd) - nanousd(book, *found.calls)
    return 0 if abs(difference) < MICRO else difference


# ------------------------------------------------------------------ All of it is there


@pytest.mark.parametrize("model", ["haiku", "sonnet", "opus", "fable", "claude-opus-5", "claude-sonnet-4-5"])
def test_main_loop(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook, model: str) -> None:
    """A turn with a tool, thinking, and writes of both times to live costs what the CLI says, on any model."""
    write = {"command": "echo done", "description": "Say it"}
    upstream.reply(tool("Bash", write, usage(5, 90, 20_000, 200, 3_000, thinking=33)))
    upstream.reply(text("It is done.", usage(3, 20, 23_000, 50, 120)))
    result = ask(claude, upstream, ASK, "--model", model, "--allowedTools", "Bash")
    found = session(claude)
    assert missing(book, found) == 0
    assert abs(nanousd(book, *found.calls) / 1e9 - result["total_cost_usd"]) < 1e-6
    first, second = found.calls
    assert (first.usage.cache_write_5m_tokens, first.usage.cache_write_1h_tokens) == (200, 3_000)
    assert (first.usage.thinking_tokens, first.tools, first.in_tool_loop, second.in_tool_loop) == (
        33,
        ("Bash",),
        False,
        True,
    )
    assert first.project == str(claude.cwd)
    assert found.id == result["session_id"]


CONDITIONS = {
    "above a band": ("haiku", usage(110_000, 50)),
    "at a band's edge": ("haiku", usage(50_000, 50, 49_000, 500, 500)),
    "web searches": ("sonnet", usage(10, 50, searches=3)),
    "in the US": ("opus", usage(1_000, 500, 100, 10, 20, inference_geo="us")),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook, condition: str) -> None:
    """Bands, searches and geography change the price as they change the CLI's own figure."""
    model, used = CONDITIONS[condition]
    upstream.reply(text("So be it.", used))
    ask(claude, upstream, ASK, "--model", model)
    assert missing(book, session(claude)) == 0


def test_subagents(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """A subagent on another model is told apart and counted once, though its caller is told its usage too."""

    def answer(request: RecordedRequest) -> StandInReply:
        if "x-claude-code-agent-id" in request.headers:
            return text("The printer burns.", usage(7, 11, 0, 2_000))
        if b'"tool_result"' in request.body:
            return text("Reported.", usage(7, 11, 3_000, 0, 10))
        arguments: JsonObject = {
            "description": "Summarise",
            "prompt": "Summarise this ticket: the printer burns",
            "subagent_type": "general-purpose",
            "model": "haiku",
            "run_in_background": False,
        }
        return tool("Agent", arguments, usage(9, 12, 0, 0, 3_000))

    upstream.handler = answer
    ask(claude, upstream, ASK, "--model", "sonnet")
    found = session(claude)
    assert missing(book, found) == 0
    assert [(call.kind, call.model) for call in found.calls] == [
        (CallKind.MAIN, "claude-sonnet-5-5"),
        (CallKind.SUBAGENT, "claude-haiku-5-5"),
        (CallKind.MAIN, "claude-sonnet-5-5"),
    ]
    agent = found.calls[1]
    assert agent.agent is not None
    assert agent.agent_type == "general-purpose"


def test_plan_mode(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """Calls of a run in plan mode are known as such; those of the run that goes on with the work are not.

    Without a terminal there is nobody to accept a plan: the CLI refuses the tool, and goes on planning.
    """
    notes = claude.cwd / "notes.txt"
    notes.write_text("storms", encoding="utf-8")
    upstream.reply(tool("Read", {"file_path": str(notes)}, usage()))
    upstream.reply(tool("ExitPlanMode", {"plan": "Write it."}, usage()))
    upstream.reply(text("So be it.", usage()))
    planned = ask(claude, upstream, ASK, "--model", "opus", "--permission-mode", "plan")["session_id"]
    upstream.reply(text("Written.", usage()))
    ask(claude, upstream, "Go", "--model", "opus", "--permission-mode", "acceptEdits", "--resume", planned)
    found = session(claude)
    assert [(call.tools, call.plan_mode) for call in found.calls] == [
        (("Read",), True),
        (("ExitPlanMode",), True),
        ((), True),
        ((), False),
    ]
    assert missing(book, found) == 0


def test_resumed_on_other_models(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """A session that went on twice, each time on another model, is one, and its last total is the one that counts."""
    resumed: tuple[str, ...] = ()
    for place, model in enumerate(("opus", "sonnet", "haiku"), 1):
        upstream.reply(text(f"Part {place}.", usage(place, 10 * place, 1_000 * place, 100, 200)))
        result = ask(claude, upstream, f"Part {place}, please", "--model", model, *resumed)
        resumed = ("--resume", result["session_id"])
    found = session(claude)
    assert missing(book, found) == 0
    assert abs(nanousd(book, *found.calls) / 1e9 - result["total_cost_usd"]) < 1e-6
    assert [call.model for call in found.calls] == ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"]


def test_forks(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """A fork repeats its parent's rows and total; each call stands in the session that made it, and both add up."""
    upstream.reply(tool("Bash", {"command": "echo 1", "description": "Say it"}, usage(5, 90, 0, 0, 3_000)))
    upstream.reply(text("The trunk.", usage(3, 20, 3_000, 0, 100)))
    trunk = ask(claude, upstream, ASK, "--model", "opus", "--allowedTools", "Bash")["session_id"]
    upstream.reply(text("A branch.", usage(3, 40, 3_100, 0, 50)))
    forked = ask(claude, upstream, "Another end", "--model", "opus", "--resume", trunk, "--fork-session")
    upstream.reply(text("A twig.", usage(3, 80, 3_150, 0, 50)))
    twig = ask(claude, upstream, "Yet another", "--model", "opus", "--resume", forked["session_id"], "--fork-session")
    found = sessions(claude)
    assert {id: len(one.calls) for id, one in found.items()} == {
        trunk: 2,
        forked["session_id"]: 1,
        twig["session_id"]: 1,
    }
    assert {missing(book, one) for one in found.values()} == {0}
    everything = [call for one in found.values() for call in one.calls]
    assert abs(nanousd(book, *everything) / 1e9 - twig["total_cost_usd"]) < 1e-6


def test_remembered_while_it_goes_on(
    claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook, tmp_path: Path
) -> None:
    """A session that is read, goes on and is read again costs what the CLI says each time; no word of it is kept."""
    resumed: tuple[str, ...] = ()
    for place in (1, 2):
        used = usage(place, 10 * place, 1_000 * place, 100, 200)
        upstream.reply(tool("Bash", {"command": "echo lanterns", "description": "Say it"}, used))
        upstream.reply(text("The keeper collects storms in jars.", used))
        result = ask(claude, upstream, ASK, "--model", "opus", "--allowedTools", "Bash", *resumed)
        resumed = ("--resume", result["session_id"])
        with Readings(tmp_path / "remembered" / "readings.db") as readings:
            (found,) = importer("claude_code").sessions([transcripts(claude)], ImportRun(readings=readings))
            assert len(found.read().calls) == 2 * place
            assert missing(book, found.read()) == 0
    said = b"".join(path.read_bytes() for path in transcripts(claude).glob("*.jsonl"))
    kept = b"".join(path.read_bytes() for path in (tmp_path / "remembered").iterdir())
    assert kept
    for word in (b"lighthouse", b"lanterns", b"jars"):
        assert word in said
        assert word not in kept


# ------------------------------------------------------------------ What fails


@pytest.mark.parametrize(
    "fault", [Fault.status(529), Fault.rate_limited(retry_after=0), Fault.cut()], ids=lambda f: f.kind
)
def test_tried_again(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook, fault: Fault) -> None:
    """A call that failed once and then went well is one call, which costs what the CLI says."""
    upstream.fail(fault)
    upstream.reply(text("At last.", usage(10, 20, 30, 40, 50)))
    ask(claude, upstream, ASK, "--model", "sonnet")
    found = session(claude)
    assert len(found.calls) == 1
    assert missing(book, found) == 0


def test_begun_and_tried_again(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """What a reply told of its cost before it broke off is in the CLI's own figure, and in no row.

    It ends cleanly: where a connection is reset, it is chance whether the CLI reads what came before.
    """
    upstream.fail(Fault.cut(after_events=1, clean=True, reply=text("Once upon a time.", usage(900, 50))))
    upstream.reply(text("At last.", usage(10, 20, 30, 40, 50)))
    ask(claude, upstream, ASK, "--model", "sonnet")
    found = session(claude)
    (call,) = found.calls
    assert missing(book, found) == nanousd(book, replace(call, usage=Usage(input_tokens=900, output_tokens=1)))


def test_failed(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """A session whose every call failed holds a row that no model wrote, and costs nothing."""
    upstream.fail(Fault.status(529), times=None)
    assert ask(claude, upstream, ASK, "--model", "sonnet")["is_error"]
    assert len(upstream.calls()) == 1 + RETRIES
    assert [call for found in sessions(claude).values() for call in found.calls] == []


def test_interrupted(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """An answer that was interrupted counts what it had used; the CLI closes its books without it."""
    upstream.fail(Fault.stall(after_events=8, reply=text("Once upon a time, far out at sea. " * 9, usage(900, 50))))
    command = [str(PROGRAM), "-p", ASK, "--model", "sonnet", "--output-format", "json"]
    with subprocess.Popen(
        command,
        env={**claude.environment, "ANTHROPIC_BASE_URL": upstream.url},
        cwd=claude.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        _until(lambda: bool(upstream.calls()))
        time.sleep(3.0)  # until it has read what came: nothing tells
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=NEVER_SECONDS)
    found = session(claude)
    (call,) = found.calls
    assert call.failed
    assert call.usage.input_tokens == 900
    assert missing(book, found) == -nanousd(book, call)


# ------------------------------------------------------------------ What is missing


def test_compaction(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """The call that summarizes is in no row: what is missing is its price. The next call is seen to start anew."""
    upstream.reply(text("A story.", usage(5, 90, 0, 0, 30_000)))
    resumed = ("--resume", ask(claude, upstream, ASK, "--model", "opus")["session_id"], "--model", "opus")
    upstream.reply(text("<summary>A keeper collects storms.</summary>", usage(30, 200, 30_000)))
    ask(claude, upstream, "/compact", *resumed)
    upstream.reply(text("More.", usage(5, 40, 2_000, 0, 500)))
    ask(claude, upstream, "And then?", *resumed)
    found = session(claude)
    assert [call.compacts for call in found.calls] == [False, True]
    assert missing(book, found) == 30 * 4_000 + 200 * 20_000 + 30_000 * 200


def test_title(claude: ClaudeCode, upstream: StandInUpstream, book: PriceBook) -> None:
    """On a terminal the CLI asks for a title too: that call is in no row, and is exactly what is missing."""

    def answer(request: RecordedRequest) -> StandInReply:
        if _is_for_a_title(request):
            return text('{"title": "Storm keeper"}', usage(400, 12))
        return text("Once upon a time.", usage(5, 11, 0, 0, 3_000))

    upstream.handler = answer
    _on_a_terminal(claude, upstream, "--model", "sonnet", ASK)
    found = session(claude)
    assert len(found.calls) == 1
    assert missing(book, found) == 400 * 2_000 + 12 * 10_000


def test_models_without_a_price(claude: ClaudeCode, book: PriceBook) -> None:
    """What the CLI prices by guess is marked as guessed, and priced by nobody here."""
    with StandInUpstream(strict=False) as upstream:
        upstream.reply(text("Hm.", usage(1_000, 500)))
        ask(claude, upstream, ASK, "--model", "claude-unreleased-9")
    found = session(claude)
    assert found.own_cost is not None
    assert found.own_cost.has_unknown_model
    with pytest.raises(UnpricedModel):
        nanousd(book, *found.calls)


# ------------------------------------------------------------------ The terminal


def _until(happened: Callable[[], bool]) -> None:
    ends = time.monotonic() + NEVER_SECONDS
    while not happened():
        assert time.monotonic() < ends
        time.sleep(0.05)


def _is_for_a_title(request: RecordedRequest) -> bool:
    body = request.json
    config = body.get("output_config") if isinstance(body, dict) else None
    return isinstance(config, dict) and "format" in config


def _on_a_terminal(claude: ClaudeCode, upstream: StandInUpstream, *arguments: str) -> None:
    """The CLI as a person runs it: asked one thing, then left, with the questions of a first start answered."""
    state = claude.home / ".claude.json"
    told = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    told |= {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "projects": {str(claude.cwd): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    }
    state.write_text(json.dumps(told), encoding="utf-8")
    environment = {
        **claude.environment,
        "ANTHROPIC_BASE_URL": upstream.url,
        "TERM": "xterm-256color",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "",  # a title is not essential
    }
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    shown = bytearray()
    with subprocess.Popen(
        [str(PROGRAM), *arguments],
        env=environment,
        cwd=claude.cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as running:
        os.close(theirs)
        try:

            def looked(wanted: Callable[[], bool]) -> None:
                """Reads the screen until something is so: a terminal that nobody reads stops its program."""
                ends = time.monotonic() + NEVER_SECONDS
                while not wanted():
                    assert time.monotonic() < ends, bytes(shown[-2_000:])
                    if select.select([ours], [], [], 0.1)[0]:
                        try:
                            shown.extend(os.read(ours, 65_536))
                        except OSError:  # closed
                            return

            looked(lambda: sum(map(_is_for_a_title, upstream.calls())) > 0 and b"Storm keeper" in shown)
            looked(lambda: b"upon" in shown)
            for keys in (b"/exit", b"\r"):
                os.write(ours, keys)
                pause = time.monotonic() + 0.5  # a paste is no command
                looked(lambda until=pause: time.monotonic() > until)  # type: ignore[misc]
            looked(lambda: running.poll() is not None)
        finally:
            running.kill()
            os.close(ours)
