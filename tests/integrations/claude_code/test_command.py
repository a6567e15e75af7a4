"""Command lines of `claude -p`: what is the prompt, what is kept, what cannot be climbed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Tierwise, home, ledger_path, tierwise
from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import InvalidTask
from tierwise.integrations.claude_code.command import ClaudeCommand, OutputFormat
from tierwise.ledger import Ledger

__all__ = ["home", "ledger_path", "tierwise"]  # fixtures of the command line's own tests


@pytest.mark.parametrize(
    ("words", "prompt", "options"),
    [
        (["-p", "hi"], "hi", ()),
        (["hi", "--print"], "hi", ()),
        (["-p", "--tools", "", "hi"], None, ("--tools", "", "hi")),  # as the CLI itself reads it
        (["-p", "--allowedTools", "Bash", "Read", "--", "-v"], "-v", ("--allowedTools", "Bash", "Read")),
        (["--max-turns", "3", "-p", "hi"], "hi", ("--max-turns", "3")),
        (["--max-turns=3", "-p", "hi", "--bare"], "hi", ("--max-turns", "3", "--bare")),
        (["-p", "--system-prompt-snapshot", "off", "hi"], "hi", ("--system-prompt-snapshot", "off")),
        (["-p", "--append-system-prompt", "-x", "hi"], "hi", ("--append-system-prompt", "-x")),
        (["-p", "--fresh-switch", "hi"], "hi", ("--fresh-switch",)),
        (["-p"], None, ()),
    ],
)
def test_prompts_are_told_from_values(words: list[str], prompt: str | None, options: tuple[str, ...]) -> None:
    """A word is the prompt unless an option of the CLI takes it."""
    command = ClaudeCommand.parse(["claude", *words])
    assert (command.prompt, command.options) == (prompt, options)


def test_a_run_names_model_and_form() -> None:
    """What is run has the model, JSON as its form, and the prompt where it can be mistaken for nothing else."""
    command = ClaudeCommand.parse(["claude", "-p", "--bare", "--json-schema", '{"type": "object"}', "--", "--hi"])
    words = command.words("claude-haiku-5-5")
    assert words[:3] == ["claude", "-p", "--bare"]
    assert words[-6:] == ["--model", "claude-haiku-5-5", "--output-format", "json", "--", "--hi"]
    assert words[words.index("--json-schema") + 1] == '{"type": "object"}'
    assert ClaudeCommand.parse(words[:-6] + words[-4:]).output is OutputFormat.JSON


def test_a_named_session_is_that_of_one_attempt() -> None:
    """The id of a session that the command names is given where a run asks for it, and else another in its place."""
    command = ClaudeCommand.parse(["claude", "-p", "hi", "--session-id", "first"])
    assert command.session == "first"
    for session in ("first", "second"):
        words = command.words("claude-haiku-5-5", session=session)
        assert [words[at + 1] for at, word in enumerate(words) if word == "--session-id"] == [session]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["claude", "say hi"], "has no -p"),
        (["claude", "-p", "hi", "--model", "opus"], "--min-tier"),
        (["claude", "-p", "hi", "--output-format", "stream-json"], "text or json"),
        (["claude", "-p", "hi", "--continue"], "cannot be climbed"),
        (["claude", "-p", "hi", "there"], "2 prompts"),
        (["claude", "-p", "hi", "--json-schema", "{"], "not JSON"),
        (["claude", "-p", "hi", "--json-schema", "[" * 100_000], "not JSON"),
        ([], "behind two dashes"),
    ],
)
def test_commands_that_cannot_be_climbed(words: list[str], says: str) -> None:
    """What cannot be checked and run again is refused with what to do instead."""
    with pytest.raises(InvalidTask, match=says):
        ClaudeCommand.parse(words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--", "claude", "-p"), "no prompt"),
        (("--max-tier", "local", "--", "claude", "-p", "Summarise this ticket"), "Raise the maximum tier"),
        (("--resume", "--tasks", "x", "--", "claude", "-p"), "--out"),
        (("--tasks", "x", "--", "claude", "-p", "hi"), "the tasks are in the file"),
        (("--tasks", "x", "--", "claude", "-p", "--session-id", "y"), "leave the command's --session-id out"),
        (("--tasks", "nowhere.jsonl", "--", "claude", "-p"), "cannot read nowhere.jsonl"),
        (("--task", "x", "--", "claude", "-p", "hi"), "leave --task out"),
    ],
)
def test_what_cannot_be_used_ends_with_two(tierwise: Tierwise, words: tuple[str, ...], says: str) -> None:
    """What cannot be run ends with code 2 and a message; stdout stays empty."""
    done = tierwise("exec", *words)
    assert (done.code, done.out) == (2, ""), done
    assert says in done.err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "line 1: not JSON"),
        ('{"txt": "x"}', "line 1: no text"),
        ('{"text": "x", "chek": "true"}', "unknown key 'chek'"),
        ('{"text": "x", "cwd": 7}', "cwd is not a string"),
        ('{"text": "x\\u0000"}', "text holds a NUL"),
        ('{"text": "x", "check": "\\ud800"}', "check holds a NUL or half a character"),
        ('{"text": "a\u2028b\x85c"}\n{}', "line 2: no text"),  # neither ends a line
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "line 2: the id 'a' is that of line 1 too"),
    ],
)
def test_lines_that_are_no_tasks(tierwise: Tierwise, home: object, line: str, says: str) -> None:
    """A line that cannot be used is named before anything is run."""
    Path("tasks.jsonl").write_text(line, encoding="utf-8")
    done = tierwise("exec", "--tasks", "tasks.jsonl", "--", "claude", "-p")
    assert (done.code, done.out) == (2, "")
    assert says in done.err


def test_what_cannot_be_started_ends_no_other_task_and_costs_nothing(tierwise: Tierwise, ledger_path: Path) -> None:
    """A directory that is not there, a text too long for a command line: each task is told why, none is paid for."""
    Path("file").write_text("#!/bin/sh\n")
    Path("file").chmod(0o755)
    tasks = [
        {"text": "Summarise this", "cwd": "nowhere"},
        {"text": "Summarise this", "cwd": "file"},
        {"text": "Summarise this: " + "word " * 50_000},
    ]
    Path("tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    done = tierwise("exec", "--tasks", "tasks.jsonl", "--concurrency", "1", "--", str(Path("file").resolve()), "-p")
    says = ("no directory nowhere", "no directory file", "`input`")
    assert done.code == 1
    assert [text in line["why"] for text, line in zip(says, done.lines, strict=True)] == [True] * 3, done
    with Ledger(ledger_path) as ledger:
        attempts = [attempt for stored in ledger.calls() for attempt in stored.attempts]
    assert {(attempt.outcome, attempt.cost_nanousd) for attempt in attempts} == {(OutcomeKind.NOT_RUN, 0)}


@pytest.mark.parametrize("out", ["nowhere/results.jsonl", "."])
def test_results_that_cannot_be_written(tierwise: Tierwise, home: Path, out: str) -> None:
    """Where results cannot be appended, that is said before anything is run."""
    Path("tasks.jsonl").write_text('{"text": "Summarise this"}')
    done = tierwise("exec", "--tasks", "tasks.jsonl", "--out", out, "--", "claude", "-p")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"tierwise: cannot write {out}: ")


def test_a_check_does_not_go_on_past_the_deadline(tierwise: Tierwise, home: Path) -> None:
    """A check that hangs is ended when the time is up that the whole may take, and the answer does not pass."""
    report = {"type": "result", "subtype": "success", "is_error": False, "result": "It burns.", "session_id": "s"}
    Path("claude").write_text(f"#!/bin/sh\necho '{json.dumps(report)}'\n")
    Path("claude").chmod(0o755)
    done = tierwise("exec", "--max-latency", "0.3s", "--check", "sleep 600", "--", "./claude", "-p", "Summarise this")
    assert (done.code, done.out) == (4, ""), done
