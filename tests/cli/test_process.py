"""What is promised of the program as a process: its codes, pipes, signals, encodings, and how little `--help` loads."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from tests.cli.conftest import EXAMPLE, LABELLED, NOWHERE, PROGRAM, Tierwise
from tests.network import served, unused_port
from tierwise import __version__, cli
from tierwise.cli.claude import gateway_answers
from tierwise.core.decisions import CallStatus
from tierwise.core.settings import GatewaySettings
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream

HEAVY = {"pydantic", "rich", "httpx2", "genai_prices", "jsonschema", "sqlite3", "asyncio", "xllamacpp", "litellm"}
# Every verb with what makes it print something.
VERBS = {
    "analyze": ["analyze"],
    "demo": ["demo"],
    "route": ["route", "Summarise this ☕"],
    "classify": ["classify", "Summarise this ☕"],
    "eval": ["eval", "classify", str(LABELLED), "--errors", "5"],
    "run": ["run", "Summarise this ☕"],
    "exec": ["exec", "--", "claude", "-p", "Summarise this ☕"],
    "serve": ["serve", "--check"],
    "claude": ["claude", "--version"],
    "mcp": ["mcp", "--json"],
    "types": ["types", "list"],
    "feedback": ["feedback", "CALL", "--good"],
    "train": ["train", "--forget"],
    "replay": ["replay"],
    "estimate": ["estimate", str(EXAMPLE)],
    "report": ["report"],
    "comment": ["comment", "--dry-run"],
    "dashboard": ["dashboard", "--no-open", "--host", "203.0.113.1"],  # which is nobody's address
    "export": ["export"],
    "prices": ["prices"],
    "keys": ["keys", "list"],
    "budgets": ["budgets", "list"],
    "ledger": ["ledger", "size"],
    "init": ["init", "--no-weights"],
    "doctor": ["doctor", "--no-speed"],
}
# There is no Claude Code on the path, no call, no key for an address that others reach, and no ledger: each says so.
NOTHING_TO_WORK_WITH = ("exec", "claude", "feedback", "dashboard", "ledger")


def test_every_verb_is_tried_here() -> None:
    """The tables of this module know every verb."""
    assert list(VERBS) == list(cli.VERBS)


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_help_of_a_verb_begins_with_its_line_in_the_list(tierwise: Tierwise, verb: str) -> None:
    """`tierwise --help` says of a verb what the verb's own help begins with, and every verb of ours has --json."""
    command = import_module(f"tierwise.cli.{verb}").command
    assert (command.help or "").splitlines()[0] == cli.VERBS[verb]
    done = tierwise(verb, "--help")
    assert done.code == 0
    assert verb == "claude" or "--json" in done.out  # whose options are those of the program that it runs
    assert tierwise(verb, "-h").out == done.out


def test_help_imports_nothing_heavy(home: Path) -> None:
    """`tierwise --help` loads no module that takes time: the list is the interpreter's own."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", PROGRAM, "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert imported & HEAVY == set()
    for verb in cli.VERBS:
        assert verb in done.stdout


def test_version(program: Tierwise) -> None:
    """--version is one line; `python -m tierwise` is the same program."""
    assert program("--version").out == f"tierwise {__version__}\n"
    done = subprocess.run([sys.executable, "-m", "tierwise", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tierwise {__version__}\n"


@pytest.mark.parametrize("args", [["nonsense"], ["route", "--nonsense"], ["--config"]])
def test_unusable_command_ends_with_two(program: Tierwise, args: list[str]) -> None:
    """What click cannot parse is a usage error on stderr."""
    done = program(*args)
    assert (done.code, done.out) == (2, "")
    assert "Error" in done.err


def test_exit_codes_of_the_process(program: Tierwise, upstream: StandInUpstream, ledger_path: Path) -> None:
    """0, 1, 2, 3, 4 and 5 leave the process as such."""
    upstream.reply("fine")
    assert program("run", "Summarise this").code == 0
    upstream.reply("no label", times=None)
    assert program("run", "Tag this", "--label", "a", "--label", "b", "--max-tier", "haiku").code == 1
    assert program("run", "x", "--tier", "hiku").code == 2
    assert program("run", "Summarise this", env={"ANTHROPIC_API_KEY": None}).code == 3
    assert program("run", "Summarise this", "--max-cost", "0.000000001").code == 4
    ledger_path.write_bytes(b"no database" * 1000)
    assert program("report").code == 5


@pytest.mark.parametrize("args", [["--help"], ["classify"], ["estimate", str(EXAMPLE)], ["prices", "--json"]])
def test_reader_that_goes_away_ends_it_quietly(home: Path, args: list[str]) -> None:
    """When the reader of the pipe is gone: code 141 and not a word on stderr."""
    read, write = os.pipe()
    os.close(read)
    lines = b'{"text": "Summarise this"}\n' * 2000
    done = subprocess.run([PROGRAM, *args], input=lines, stdout=write, stderr=subprocess.PIPE, check=False, timeout=300)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_head_gets_its_lines(home: Path) -> None:
    """`tierwise classify | head -1` prints the first line and ends."""
    lines = b'{"text": "Summarise this"}\n' * 20_000
    with subprocess.Popen(
        [PROGRAM, "classify"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        (home / "in").write_bytes(lines)
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(lines[:2700])
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["task_type"] == "summarization"
        running.stdout.close()
        try:
            running.stdin.write(lines)
            running.stdin.close()
        except BrokenPipeError:
            pass
        assert running.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_stdout_is_told_of(home: Path) -> None:
    """Output that cannot be written is an error, not a success."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [PROGRAM, "prices", "--json"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60, text=True
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_crash(home: Path, closed: str) -> None:
    """A missing stdin, stdout or stderr does not crash a verb."""
    for args, code in (("route x", 0), ("classify", 0), ("route", 2 if "<" in closed else None)):
        if code is None:
            continue
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$0" {args} {closed}', PROGRAM],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_survives_a_poor_environment(program: Tierwise, home: Path, verb: str) -> None:
    """With an ASCII locale, without HOME, and in a pipe, every verb prints ASCII or UTF-8 and never a traceback."""
    (home / "tierwise.toml").write_text('[tiers.local]\nmodels = ["ollama:qwen3:8b"]\n')
    poor = {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "HOME": None}
    place = {"XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_STATE_HOME": str(home)}
    done = program(*VERBS[verb], env={**poor, **place})
    assert done.code == {"run": 3, "doctor": 1, **dict.fromkeys(NOTHING_TO_WORK_WITH, 2)}.get(verb, 0)
    assert "Traceback" not in done.err
    assert done.out.isascii()
    assert "\x1b" not in done.out


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a directory that nobody can write, root included")
@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_works_where_nothing_can_be_written(program: Tierwise, home: Path, verb: str) -> None:
    """In a read-only working directory only those fail that would write there, and say so."""
    done = program(*VERBS[verb], cwd="/proc/self", env={"ANTHROPIC_API_KEY": None, "TIERWISE_MIN_TIER": "haiku"})
    codes = {"run": 3, "init": 2, "train": 2, "doctor": done.code, **dict.fromkeys(NOTHING_TO_WORK_WITH, 2)}
    assert done.code == codes.get(verb, 0)
    assert "Traceback" not in done.err


def test_working_directory_that_is_gone_is_told_of(program: Tierwise, home: Path) -> None:
    """In a directory that was removed there is no configuration to look for: code 2, and what to do."""
    script = f'mkdir gone && cd gone && rmdir ../gone && exec "{PROGRAM}" "$@"'
    for args, code in ((["route", "x"], 2), (["init"], 2)):
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *args], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert "working directory does not exist" in done.stderr
    assert program("route", "x").code == 0


def test_broken_utf8_on_stdin(program: Tierwise) -> None:
    """Bytes that are no UTF-8 are replaced."""
    assert program("route", "--json", stdin=b"Summarise this \xff\xfe").json["task_type"] == "summarization"
    assert program("classify", stdin=b'{"text": "Summarise \xff"}\n').lines[0]["task_type"] == "summarization"


def test_lone_surrogates_in_arguments(program: Tierwise) -> None:
    """An argument that is no UTF-8 is classified, routed and quoted in errors without a crash."""
    assert program("route", b"Summarise caf\xe9", "--json").json["task_type"] == "summarization"
    assert program("classify", b"Summarise caf\xe9").lines[0]["task_type"] == "summarization"
    done = program("route", "x", "--tier", b"caf\xe9")
    assert done.code == 2
    assert "\\udce9" in done.err


@pytest.mark.parametrize("args", [["prices"], ["route", "Review this contract for liability"]])
def test_no_color_is_honoured(program: Tierwise, args: list[str]) -> None:
    """With NO_COLOR there is no colour even where colours are forced; without it there is."""
    colour = re.compile(r"\x1b\[(?:[0-9]+;)*3[0-8][;m]")
    assert colour.search(program(*args, env={"FORCE_COLOR": "1"}).out)
    assert not colour.search(program(*args, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).out)
    assert "\x1b" not in program(*args).out


def test_interrupted_while_reading_ends_with_130(home: Path) -> None:
    """Ctrl-C while lines are awaited: code 130 and one word, no traceback."""
    with subprocess.Popen(
        [PROGRAM, "classify"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write('{"text": "Summarise this"}\n')
        running.stdin.flush()
        running.stdout.readline()  # it is up, and waits for the next line
        running.send_signal(signal.SIGINT)
        running.wait(60)
        assert running.stderr is not None
        assert running.stderr.read().split() == ["interrupted"]
    assert running.returncode == 130


class Listener:
    """A program in the place of Claude Code that writes down which signals it hears, and the verb that runs it."""

    def __init__(self, home: Path, *words: str) -> None:
        self._heard, self._past = home / "heard", home / "past"
        program = home / "bin" / "claude"
        program.parent.mkdir()
        program.write_text(
            f"#!/bin/sh\ntrap 'echo int >>{self._heard}' INT\ntrap 'echo term >>{self._heard}; exit 4' TERM\n"
            f"cat >/dev/null\necho $NO_PROXY >{self._past}\necho up >>{self._heard}\nwhile :; do sleep 0.05; done\n"
        )
        program.chmod(0o755)
        environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"HTTP_PROXY": "http://" + NOWHERE, "NO_PROXY": "example.org", "no_proxy": ""}
        # It is up when it has read what it is given: by then the verb waits for it, and no longer starts it.
        (home / "given").write_text("the printer burns")
        with (home / "given").open() as given:
            self.verb = subprocess.Popen([PROGRAM, *words], env=environment, stdin=given, start_new_session=True)

    @property
    def heard(self) -> list[str]:
        """That it runs, and what it has heard."""
        return self._heard.read_text().split() if self._heard.exists() else []

    @property
    def past_proxies(self) -> str:
        """For which hosts it asks no proxy."""
        return self._past.read_text().strip()

    def until(self, *heard: str) -> None:
        """Waits for that."""
        ends = time.monotonic() + 60
        while self.heard != [*heard]:
            assert time.monotonic() < ends, self.heard
            assert self.verb.poll() is None, self.heard
            time.sleep(0.02)


def test_signals_are_claude_codes_while_it_runs(home: Path) -> None:
    """Ctrl-C is left to the CLI; what is to end `tierwise claude` ends the CLI, and then the gateway it started.

    No proxy is asked for the gateway, and no module of the working directory is taken for one of tierwise's.
    """
    port = unused_port()
    Path("tierwise.toml").write_text(f"[gateway]\nport = {port}\n")
    Path("click.py").write_text("raise SystemExit('of the project, not of tierwise')\n")
    cli = Listener(home, "claude")
    cli.until("up")
    assert cli.past_proxies == "example.org,127.0.0.1"
    os.killpg(cli.verb.pid, signal.SIGINT)
    cli.until("up", "int")
    cli.verb.send_signal(signal.SIGTERM)
    assert cli.verb.wait(60) == 4
    assert cli.heard == ["up", "int", "term"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 60)


@pytest.mark.parametrize(
    ("said", "is_one"),
    [
        (b'HTTP/1.0 200 OK\r\n\r\n{"status": "ok"}', True),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", False),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000, False),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.9\r\n", False),
        (b"", False),
    ],
)
def test_who_else_answers_is_no_gateway(said: bytes, is_one: bool) -> None:
    """Whatever listens on the gateway's port, `tierwise claude` sees whether it is one."""

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    with served(other) as port:
        assert gateway_answers(GatewaySettings(port=port).url) is is_one
    assert GatewaySettings(host="::1").url == "http://[::1]:8484"


def test_what_exec_runs_ends_with_it(home: Path, ledger_path: Path) -> None:
    """Told to end (`timeout`, a job that is cancelled), it ends the CLI first, which would go on and cost money."""
    cli = Listener(home, "exec", "--", "claude", "-p", "Summarise this")
    cli.until("up")
    cli.verb.send_signal(signal.SIGTERM)
    assert cli.verb.wait(60) == 128 + signal.SIGTERM
    assert cli.heard == ["up", "term"]
    with Ledger(ledger_path) as ledger:
        assert [stored.call.status for stored in ledger.calls()] == [CallStatus.CANCELLED]


def test_memory_does_not_grow_with_the_stream(home: Path) -> None:
    """Classifying many lines takes no more memory than classifying few."""
    resource = pytest.importorskip("resource")
    del resource
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.argv[1], 'classify', '--file', sys.argv[2]], stdout=subprocess.DEVNULL, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    peaks = []
    for count in (10, 6000):
        line = json.dumps({"text": "Summarise this. " + "word " * 500}) + "\n"
        (home / "in").write_text(line * count)
        done = subprocess.run(
            [sys.executable, "-c", code, PROGRAM, str(home / "in")], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert (home / "in").stat().st_size > 15_000_000
    assert peaks[1] < peaks[0] + 8_000  # kilobytes


def test_nothing_but_the_result_in_a_pipe(program: Tierwise) -> None:
    """In a pipe nothing but the result is printed, however long it takes."""
    done = program("classify", stdin=b'{"text": "Summarise this ticket for the team"}\n' * 12_000)
    assert (done.code, done.err) == (0, "")
    assert done.out.count("\n") == 12_000


def test_shells_can_ask_for_completions(program: Tierwise) -> None:
    """Completion lists the verbs, as click's shells expect it."""
    done = program(env={"_TIERWISE_COMPLETE": "bash_complete", "COMP_WORDS": "tierwise r", "COMP_CWORD": "1"})
    assert done.out.split() == ["plain,route", "plain,run", "plain,replay", "plain,report"]
