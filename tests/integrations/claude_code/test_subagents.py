"""Which subagents' models are set, and which are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tierwise.config import load_settings
from tierwise.engine.router import AsyncRouter
from tierwise.integrations.claude_code.companion import Companion
from tierwise.integrations.claude_code.models import alias_of
from tierwise.integrations.claude_code.subagents import SubagentCall, answer, decide

SUMMARY = "Summarise this ticket in one line: the printer burns"


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncRouter]:
    """The shipped configuration."""
    folder = tmp_path_factory.mktemp("nowhere")
    yield AsyncRouter(load_settings(env={"HOME": str(folder)}, cwd=folder), record=False)


def call(tmp_path: Path, asked: str = "", transcript: str = "", **given: Any) -> SubagentCall:
    """A call of `Agent` as the hook is told of it."""
    (tmp_path / "t.jsonl").write_text(transcript)
    payload = {
        "session_id": "s",
        "transcript_path": str(tmp_path / "t.jsonl"),
        "cwd": str(tmp_path),
        "tool_name": "Agent",
        "tool_use_id": "toolu_1",
        "tool_input": {"description": "x", "prompt": SUMMARY, "subagent_type": "general-purpose", **given},
    }
    found = SubagentCall.read(payload, asked)
    assert found is not None
    return found


def alias(found: SubagentCall, router: AsyncRouter) -> str | None:
    """What it is given."""
    rungs = decide(found, router, found.cwd / "config")
    return None if rungs is None else alias_of(rungs[0].model.id)


def agent_file(folder: Path, head: str) -> None:
    """An agent of a user's or a project's own."""
    folder.mkdir(parents=True)
    (folder / "mine.md").write_text(f"---\nname: mine\n{head}---\nmodel: opus in the text is no model\n")


def test_only_the_model_is_changed(tmp_path: Path, router: AsyncRouter) -> None:
    """The answer to the hook is the tool's input, word for word, with a model."""
    import json

    found = call(tmp_path, isolation="worktree")
    said = json.loads(answer(found, "haiku"))["hookSpecificOutput"]
    assert said == {"hookEventName": "PreToolUse", "updatedInput": {**found.given, "model": "haiku"}}


@pytest.mark.parametrize("kind", ["general-purpose", "Plan", ""])
def test_those_that_inherit_are_decided(tmp_path: Path, router: AsyncRouter, kind: str) -> None:
    """Built-in agents that would run on the session's model get the one that fits."""
    assert alias(call(tmp_path, subagent_type=kind), router) == "haiku"


@pytest.mark.parametrize("given", [{"model": "opus"}, {"subagent_type": "Explore"}, {"subagent_type": "fork"}])
def test_what_is_decided_stays(tmp_path: Path, router: AsyncRouter, given: dict[str, str]) -> None:
    """A model in the call, agents that Claude Code has a model for, and forks, which share a cache, are left alone."""
    assert alias(call(tmp_path, **given), router) is None


@pytest.mark.parametrize("kind", ["plugin:agent", "../../etc/passwd", "unknown"])
def test_agents_of_which_nothing_is_known_stay(tmp_path: Path, router: AsyncRouter, kind: str) -> None:
    """An agent whose file is not found may have a model: it is left alone."""
    assert alias(call(tmp_path, subagent_type=kind), router) is None


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("", "haiku"),
        ("model: inherit\n", "haiku"),
        ("model: opus\n", None),
        ('model: "opus" # no\n', None),
        ("model : opus\n", None),
    ],
)
@pytest.mark.parametrize("folder", [".claude/agents", "config/agents"])
def test_agents_of_ones_own(tmp_path: Path, router: AsyncRouter, head: str, expected: str | None, folder: str) -> None:
    """An agent's file with a model decides; without one, or with `inherit`, tierwise does."""
    agent_file(tmp_path / folder, head)
    assert alias(call(tmp_path, subagent_type="mine"), router) == expected
    file = tmp_path / folder / "mine.md"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))  # as some editors write it
    assert alias(call(tmp_path, subagent_type="mine"), router) == expected


def test_sessions_that_the_gateway_routes_are_left_to_it(tmp_path: Path, router: AsyncRouter) -> None:
    """On a routed name, by the transcript or by the environment, subagents are routed on their way."""
    assert alias(call(tmp_path, transcript='{"requestedModel":"claude-tierwise-auto"}\n'), router) is None
    assert alias(call(tmp_path, asked="claude-tierwise-auto"), router) is None
    assert alias(call(tmp_path, asked="claude-opus-5-5"), router) == "haiku"


def test_decisions_outlive_a_companion(tmp_path: Path) -> None:
    """What one companion decided, the next one knows; what is known of sessions is forgotten after two months."""
    import json
    import os

    environment = {"HOME": str(tmp_path), "TIERWISE_LEDGER": str(tmp_path / "ledger.db")}
    found = call(tmp_path, transcript="")
    payload = {"session_id": "s", "tool_name": "Agent", "tool_use_id": "toolu_1", "tool_input": found.given}
    first = Companion(environment)
    assert b'"haiku"' in first.event(b"PreToolUse \n" + json.dumps({**payload, "cwd": str(tmp_path)}).encode())
    first.record("s", tmp_path / "t.jsonl", tmp_path)
    kept = tmp_path / ".local" / "state" / "tierwise" / "claude" / "s.decided.json"
    assert json.loads(kept.read_text()) == {"toolu_1": ["haiku", ""]}
    Companion(environment).record("s", tmp_path / "t.jsonl", tmp_path)
    assert json.loads(kept.read_text()) == {"toolu_1": ["haiku", ""]}
    Companion(environment).forget_old()
    assert kept.exists()
    os.utime(kept, (0, 0))
    Companion(environment).forget_old()
    assert not kept.exists()


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"PreToolUse \n", b"PreToolUse \n[]", b"PreToolUse \n{", b"PreToolUse \n" + b"[" * 100_000,
     b'PreToolUse \n{"tool_name": "Agent", "tool_input": {"prompt": 7}}', b'Stop \n{"transcript_path": 7}',
     b'PreToolUse \n{"tool_name": "Bash", "tool_input": {"prompt": "x"}}', b"\xff\xfe \n{}", b"Nonsense \n{}"],
)  # fmt: skip
def test_hostile_events_are_answered_with_nothing(tmp_path: Path, message: bytes) -> None:
    """Whatever a hook is told, the companion goes on and changes nothing."""
    assert Companion({"HOME": str(tmp_path)}).event(message) == b""
