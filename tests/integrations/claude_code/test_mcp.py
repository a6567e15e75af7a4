"""tierwise's MCP server in the real Claude Code CLI, whose model is the stand-in."""

from __future__ import annotations

import json
import sys

import pytest

from tests.integrations.claude_code.conftest import Plugged
from tierwise.testing import RecordedRequest, StandInReply, StandInUpstream

pytest.importorskip("mcp", reason="pip install -r requirements/dev.txt")

TICKET = "Summarise this ticket in one line: the printer burns"


ROUTE = "mcp__tierwise__route"


def asks_for_the_tool(request: RecordedRequest) -> StandInReply:
    """Answers as a model does that knows `route` by name: it loads the tool, calls it, and says that it did."""
    if b'"toolu_02Route"' in request.body:
        return StandInReply.of_text("Routed.")
    if b'"toolu_01Search"' in request.body:
        return calls("toolu_02Route", ROUTE, {"task": TICKET})
    if b'"ToolSearch"' in request.body:
        return calls("toolu_01Search", "ToolSearch", {"query": f"select:{ROUTE}", "max_results": 1})
    return StandInReply.of_text("A title")


def calls(tool_use_id: str, name: str, arguments: dict[str, object]) -> StandInReply:
    """A reply that calls a tool."""
    block = {"type": "tool_use", "id": tool_use_id, "name": name, "input": arguments}
    return StandInReply(content=(block,), stop_reason="tool_use")


@pytest.fixture
def added(plugged: Plugged) -> Plugged:
    """A home in which the server was added, as the page says."""
    (plugged.cli.cwd / "tierwise.toml").write_text('classifier = "rules"\n')
    server = ["--", sys.executable, "-m", "tierwise", "mcp"]
    said = plugged.cli.run(["claude", "mcp", "add", "tierwise", *server], **plugged.environment)
    assert said.status == 0, said
    return plugged


def test_the_cli_connects_to_the_server(added: Plugged) -> None:
    """`claude mcp list` starts the server and finds that it answers."""
    said = added.cli.run(["claude", "mcp", "list"], **added.environment)
    assert said.status == 0, said
    (line,) = [line for line in said.out.splitlines() if line.startswith("tierwise:")]
    assert "Connected" in line


def test_a_session_calls_the_tool(added: Plugged, upstream: StandInUpstream) -> None:
    """A model that calls `route` in a session gets the decision, as structure and in words that it can use."""
    upstream.handler = asks_for_the_tool
    told = added.ask("Where should this go?", "--model", "sonnet", "--allowedTools", ROUTE)
    assert told["result"] == "Routed."
    last = upstream.calls()[-1].json
    assert isinstance(last, dict)
    (result,) = [
        block
        for message in last["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block.get("tool_use_id") == "toolu_02Route"
    ]
    content = result["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    decision = json.loads(text)
    assert (decision["task_type"], decision["claude_alias"]) == ("summarization", "haiku")
    assert not result.get("is_error")
