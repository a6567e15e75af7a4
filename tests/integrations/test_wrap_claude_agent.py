"""The real Claude Agent SDK, and the Claude Code that it brings, through a gateway of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

import tierwise
from tests.clients.conftest import NO_NETWORK, QUIET
from tests.integrations.conftest import Host
from tierwise.core.errors import InvalidTask
from tierwise.testing import StandInReply

sdk = pytest.importorskip("claude_agent_sdk", reason="not installed: pip install -r requirements/dev.txt")

KEY = "sk-ant-client-0123456789"
SUMMARY = "Summarise this ticket in one line: the printer burns"


@pytest.fixture
def options(host: Host, tmp_path: Path) -> Any:
    """Options of an agent with a home and a directory of its own."""
    (tmp_path / "work").mkdir()
    env = {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "CLAUDE_CODE_TMPDIR": str(tmp_path),
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": host.upstream.url,
        "CLAUDE_CODE_MAX_RETRIES": "0",
        **NO_NETWORK,
        **QUIET,
    }
    return sdk.ClaudeAgentOptions(
        model="claude-tierwise-auto", cwd=tmp_path / "work", env=env, tools=["Bash"], allowed_tools=["Bash"]
    )


async def answer_of(options: Any) -> Any:
    """The last message of a run."""
    last = None
    async for message in sdk.query(prompt=SUMMARY, options=options):
        last = message
    return last


async def test_agent_is_routed_and_recorded(host: Host, options: Any) -> None:
    """An agent's turns go to their tier with the client's key, a tool is used, and every call is in the ledger."""
    call = {
        "type": "tool_use",
        "id": "toolu_1",
        "name": "Bash",
        "input": {"command": "echo burning", "description": "x"},
    }
    host.upstream.reply(StandInReply(content=(call,), stop_reason="tool_use"))
    host.upstream.reply("It burns.", times=None)
    with tierwise.call_options(project="agents", min_tier="sonnet"):
        wrapped = tierwise.wrap(options, settings=host.settings)
    assert type(wrapped) is sdk.ClaudeAgentOptions
    result = await answer_of(wrapped)
    assert (result.result, result.is_error) == ("It burns.", False)
    turns = [found for found in host.calls() if found.call.project == "agents"]
    assert len(turns) >= 2
    assert {found.call.model for found in turns} == {"claude-sonnet-5-5"}
    assert {request.headers["x-api-key"] for request in host.upstream.calls()} == {KEY}
    assert not any("x-tierwise-process" in request.headers for request in host.upstream.requests)


def test_nobody_else_may_use_it(host: Host, options: Any) -> None:
    """Who does not bring the secret is refused, and nothing is sent."""
    url = tierwise.wrap(options, settings=host.settings).env["ANTHROPIC_BASE_URL"]
    body = {"model": "claude-tierwise-auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for headers in ({}, {"x-tierwise-process": "guess"}):
        assert httpx2.post(f"{url}/v1/messages", json=body, headers=headers, timeout=60).status_code == 401
    assert host.upstream.requests == []


def test_check_cannot_be_told_to_another_program(host: Host, options: Any) -> None:
    """A check around an agent is refused: it would be left out in silence."""
    with tierwise.call_options(check=bool), pytest.raises(InvalidTask, match="another program"):
        tierwise.wrap(options, settings=host.settings)
