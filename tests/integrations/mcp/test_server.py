"""The MCP server before the SDK's own client: in this process, and as the program that a client starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.records import attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Judgement, Ledger, new_call_id

pytest.importorskip("mcp", reason="pip install -r requirements/dev.txt")

from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult, TextContent

from tierwise.integrations.mcp.desk import Desk
from tierwise.integrations.mcp.server import server

TICKET = "Summarise the ticket about the xylograph of Ms Quintessa"
CLAUSE = "Is this indemnity clause enforceable under German law? We sign tomorrow."
# The classifier of rules is there at once; one test takes the trained one.
NO_LOCAL = 'classifier = "rules"\n[tiers.local]\nenabled = false\n[policy.roles]\nlocal = "haiku"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a configuration and no local models."""
    (tmp_path / "tierwise.toml").write_text(NO_LOCAL)
    return tmp_path


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """Nothing of whoever runs the tests."""
    return {"HOME": str(home), "PATH": os.environ["PATH"], "TIERWISE_LEDGER": str(home / "ledger.db")}


@pytest.fixture
def desk(home: Path, environment: dict[str, str]) -> Iterator[Desk]:
    """What answers."""
    made = Desk(environment, home)
    yield made
    made.close()


@pytest.fixture
def ids(home: Path) -> list[str]:
    """Calls in the ledger: two answered ones, one whose price is unknown, one that failed. Their ids."""
    made = [new_call_id() for _ in range(4)]
    with Ledger(home / "ledger.db") as ledger:
        for number, call_id in enumerate(made):
            unpriced = {"cost_nanousd": None, "price": None} if number == 2 else {}
            failed = {"outcome": OutcomeKind.OVERLOADED} if number == 3 else {}
            status = CallStatus.FAILED if number == 3 else CallStatus.ANSWERED
            tier = "sonnet" if number == 1 else "haiku"
            ledger.record_many(
                [
                    (
                        call(call_id, status=status, tier=tier, model=tier, project="p" if number else None),
                        [attempt(call_id, tier=tier, model=tier, **unpriced, **failed)],
                    )
                ]
            )
    return made


async def asked(desk: Desk, tool: str, **arguments: Any) -> CallToolResult:
    """What a client gets."""
    async with Client(server(desk)) as client:
        found = await client.call_tool(tool, arguments)
    assert isinstance(found, CallToolResult)
    return found


async def answer(desk: Desk, tool: str, **arguments: Any) -> Any:
    """What a client gets, which must be an answer: the same as structure and as text."""
    found = await asked(desk, tool, **arguments)
    (content,) = found.content
    assert isinstance(content, TextContent)
    assert not found.is_error, content.text
    assert json.loads(content.text) == found.structured_content
    return found.structured_content


async def refusal(desk: Desk, tool: str, **arguments: Any) -> str:
    """Why there is no answer."""
    found = await asked(desk, tool, **arguments)
    (content,) = found.content
    assert isinstance(content, TextContent)
    assert found.is_error
    return content.text


def tierwise(environment: dict[str, str], home: Path, *arguments: str) -> Any:
    """`tierwise … --json`."""
    done = subprocess.run(
        [sys.executable, "-m", "tierwise", *arguments, "--json"],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(done.stdout, parse_float=Decimal)


def same(ours: Any, theirs: Any) -> bool:
    """Whether an amount of an answer is that of the command line, to the nano-dollar."""
    return ours == theirs or Decimal(ours) == Decimal(theirs)


async def test_tools_say_what_they_change(desk: Desk) -> None:
    """Only `feedback` writes, and it says so; every tool has a title, a description and both schemas."""
    async with Client(server(desk)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["route", "report", "calls", "feedback"]
    for tool in tools.values():
        assert tool.title
        assert tool.description
        assert tool.output_schema is not None
        assert tool.output_schema["additionalProperties"] is False
        assert tool.input_schema["additionalProperties"] is False
        assert tool.annotations is not None
        assert tool.annotations.open_world_hint is False
        assert tool.annotations.read_only_hint is (tool.name != "feedback")
    assert tools["feedback"].annotations is not None
    assert tools["feedback"].annotations.destructive_hint is True


@pytest.mark.parametrize(("text", "alias"), [(TICKET, "haiku"), (CLAUSE, "opus")])
async def test_route_is_the_decision_of_the_command(
    desk: Desk, environment: dict[str, str], home: Path, text: str, alias: str
) -> None:
    """Tier, model, reasons, ladder and alternatives are those of `tierwise route`, with Claude Code's name beside."""
    (home / "tierwise.toml").write_text(NO_LOCAL.replace('"rules"', '"trained"'))
    found = await answer(desk, "route", task=text)
    told = tierwise(environment, home, "route", text)
    for key in ("tier", "model", "task_type", "needs", "abstained", "reasons", "baseline_model", "blockers"):
        assert found[key] == told[key]
    assert found["claude_alias"] == alias
    assert [one["model"] for one in found["ladder"]] == [one["model"] for one in told["ladder"]]
    assert same(found["ladder"][0]["estimated_usd"], told["estimated_cost_usd"])
    assert [one["task_type"] for one in found["alternatives"]] == [one["task_type"] for one in told["alternatives"]]


async def test_route_takes_bounds(desk: Desk) -> None:
    """What is known of a task, and where it may go, counts."""
    found = await answer(desk, "route", task=TICKET, min_tier="sonnet")
    assert found["tier"] == "sonnet"
    found = await answer(desk, "route", task="this one", task_type="legal_analysis", max_tier="sonnet")
    assert (found["tier"], found["task_type"]) == ("sonnet", "legal_analysis")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"task": ""}, "at least 1 character"),
        ({"task": "   "}, "empty"),
        ({"task": "x", "min_tier": "hiku"}, "haiku"),
        ({"task": "x", "task_type": "telepathy"}, "telepathy"),
        ({"task": "x", "stakes": "cosmic"}, "'normal', 'high' or 'critical'"),
        ({"task": "x", "max_cost_usd": "lots"}, "pattern"),
        ({"task": "x" * 100_001}, "at most 100000"),
        ({"task": "x", "mintier": "opus"}, "mintier"),
    ],
)
async def test_what_cannot_be_routed_is_refused(desk: Desk, arguments: dict[str, str], words: str) -> None:
    """A wrong argument is an error of the tool that a model can read, and the server goes on."""
    assert words in await refusal(desk, "route", **arguments)
    await answer(desk, "route", task=TICKET)


async def test_report_has_the_figures_of_the_command(
    desk: Desk, environment: dict[str, str], home: Path, ids: list[str]
) -> None:
    """Every figure, in total and by row, is that of `tierwise report --json`; an unknown price is told, not zero."""
    options = {"since": "2020-01-01", "until": "2030-01-01", "by": ["tier", "task_type", "model", "day", "project"]}
    found = await answer(desk, "report", **options)
    words = [word for name in ("tier", "type", "model", "day", "project") for word in ("--by", name)]
    told = tierwise(environment, home, "report", "--since", "2020-01-01", "--until", "2030-01-01", *words)
    assert found["total"]["unpriced_calls"] == 1
    assert Decimal(found["total"]["cost_usd"]) > 0
    assert all(same(value, told["total"][key]) for key, value in found["total"].items())
    assert found["feedback"] == told["feedback"]
    assert {section["by"] for section in found["sections"]} == set(told["by"])
    for section in found["sections"]:
        rows = told["by"][section["by"]]
        assert [row["name"] for row in section["rows"]] == [row[section["by"]] for row in rows]
        for ours, theirs in zip(section["rows"], rows, strict=True):
            assert all(same(value, theirs[key]) for key, value in ours.items() if key != "name")


async def test_report_of_a_project(desk: Desk, ids: list[str]) -> None:
    """A period and a project narrow it; a project that is not there has spent nothing."""
    assert (await answer(desk, "report", project=""))["total"]["calls"] == 1
    assert (await answer(desk, "report", project="p", by=["project"]))["total"]["calls"] == 3
    assert (await answer(desk, "report", since="1h"))["total"]["calls"] == 0
    assert (await answer(desk, "report", project="nobody's"))["sections"][0]["rows"] == []


async def test_long_reports_are_cut(desk: Desk, home: Path) -> None:
    """Of more than fifty rows the dearest are listed, the others counted; the total has all."""
    with Ledger(home / "ledger.db") as ledger:
        for number in range(60):
            call_id = new_call_id()
            made = attempt(call_id, cost_nanousd=1000 + number)
            ledger.record_many([(call(call_id, project=f"project {number}"), [made])])
    found = await answer(desk, "report", by=["project"])
    (section,) = found["sections"]
    assert (len(section["rows"]), section["left_out"], found["total"]["calls"]) == (50, 10, 60)
    assert section["rows"][0]["name"] == "project 59"


async def test_a_report_without_a_ledger_makes_none(desk: Desk, home: Path) -> None:
    """Before anything was recorded, a report is empty, and reading creates no file."""
    assert (await answer(desk, "report"))["total"]["calls"] == 0
    assert (await answer(desk, "calls"))["calls"] == []
    assert "no call" in await refusal(desk, "feedback", call_id="x", verdict="bad")
    assert not (home / "ledger.db").exists()


async def test_a_time_that_is_none_is_refused(desk: Desk) -> None:
    """A period that cannot be read is an error that shows how one is written."""
    assert "7d, 12h" in await refusal(desk, "report", since="soonish")


async def test_calls_are_listed_and_judged(desk: Desk, home: Path, ids: list[str]) -> None:
    """The ids that `calls` lists are those that `feedback` takes; what was said is in the ledger and both answers."""
    listed = (await answer(desk, "calls", limit=3))["calls"]
    assert [one["call_id"] for one in listed] == sorted(ids, reverse=True)[:3]
    assert {one["cost_usd"] for one in (await answer(desk, "calls"))["calls"]} == {None, "0.000002"}
    noted = await answer(desk, "feedback", call_id=ids[0], verdict="bad", task_type="legal_analysis")
    assert noted["tier_of_type"] == "opus"
    with Ledger(home / "ledger.db") as ledger:
        (stored,) = [one for one in ledger.calls() if one.feedback is not None]
    said = stored.feedback
    assert said is not None
    assert (stored.call.call_id, said.verdict, said.task_type) == (ids[0], Judgement.BAD, "legal_analysis")
    assert said.source == "mcp"
    (one,) = [one for one in (await answer(desk, "calls"))["calls"] if one["call_id"] == ids[0]]
    assert (one["feedback"], one["feedback_task_type"]) == ("bad", "legal_analysis")
    assert (await answer(desk, "report"))["feedback"] == {"good": 0, "bad": 1, "typed": 1}


async def test_a_better_tier_is_answered_with_what_to_write(desk: Desk, home: Path, ids: list[str]) -> None:
    """A tier is not kept as feedback: the answer has the lines that send such work there, and they do."""
    noted = await answer(desk, "feedback", call_id=ids[0], verdict="bad", better_tier="opus")
    (home / "tierwise.toml").write_text(NO_LOCAL + noted["override"])
    assert (await answer(desk, "route", task=TICKET))["tier"] == "opus"
    assert "hiku" in await refusal(desk, "feedback", call_id=ids[0], verdict="bad", better_tier="hiku")


async def test_feedback_must_say_something_known(desk: Desk, ids: list[str]) -> None:
    """Feedback without a word, of a call that is not there, or with a type that is none, is refused and not kept."""
    assert "verdict" in await refusal(desk, "feedback", call_id=ids[0])
    assert "lists them" in await refusal(desk, "feedback", call_id="nothing", verdict="good")
    assert "telepathy" in await refusal(desk, "feedback", call_id=ids[0], task_type="telepathy")
    assert "'good' or 'bad'" in await refusal(desk, "feedback", call_id=ids[0], verdict="meh")
    assert (await answer(desk, "report"))["feedback"] == {"good": 0, "bad": 0, "typed": 0}


async def test_a_changed_configuration_counts_at_once(desk: Desk, home: Path) -> None:
    """The server stays for a session: what is changed in tierwise.toml meanwhile is seen, and a mistake is told."""
    assert (await answer(desk, "route", task=TICKET))["tier"] == "haiku"
    config = home / "tierwise.toml"
    config.write_text(NO_LOCAL + '[overrides]\nmin_tier = "opus"\n')
    assert (await answer(desk, "route", task=TICKET))["tier"] == "opus"
    config.write_text(NO_LOCAL + '[overrides]\nmin_tier = "hiku"\n')
    assert "hiku" in await refusal(desk, "route", task=TICKET)
    assert "hiku" in await refusal(desk, "report")


async def test_texts_are_not_kept(environment: dict[str, str], home: Path, ids: list[str]) -> None:
    """No file has a word of a task that was asked about, even where the ledger may keep texts."""
    config = home / "keeps.toml"
    config.write_text(NO_LOCAL + "[ledger]\ncapture_text = true\n")
    desk = Desk(environment, home, config)
    await answer(desk, "route", task=TICKET)
    desk.close()
    for path in home.rglob("*"):
        assert path.is_dir() or b"Quintessa" not in path.read_bytes(), path


# ------------------------------------------------------------------ the program


def started(environment: dict[str, str], home: Path, *words: str) -> StdioServerParameters:
    """How a client starts it."""
    arguments = ["-m", "tierwise", *words, "mcp"]
    told = {**environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    return StdioServerParameters(command=sys.executable, args=arguments, env=told, cwd=home)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_program_answers_over_stdio(environment: dict[str, str], home: Path, mode: str) -> None:
    """A client of the old protocol and one of the new start it, ask, are refused, ask again, and leave."""
    (home / "other.toml").write_text(NO_LOCAL + '[overrides]\nmin_tier = "sonnet"\n')
    parameters = started(environment, home, "--config", str(home / "other.toml"))
    async with Client(stdio_client(parameters), mode=mode) as client:
        refused = await client.call_tool("route", {"task": "x", "max_tier": "hiku"})
        assert isinstance(refused, CallToolResult)
        assert refused.is_error
        found = await client.call_tool("route", {"task": TICKET})
        assert isinstance(found, CallToolResult)
        assert found.structured_content is not None
        assert found.structured_content["tier"] == "sonnet"
        assert "route" in (client.instructions or "")


def test_ctrl_c_ends_it(environment: dict[str, str], home: Path) -> None:
    """An interrupt ends the server at once, though its client keeps the pipe open."""
    ping = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n'
    with subprocess.Popen(
        [sys.executable, "-m", "tierwise", "mcp"],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(ping)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT


def test_nothing_heavy_is_imported_before_a_question() -> None:
    """A client that only lists the tools waits for the MCP SDK, and for no classifier, ledger or model."""
    code = """
import asyncio, sys
from pathlib import Path
from tierwise.integrations.mcp.desk import Desk
from tierwise.integrations.mcp.server import server
assert len(asyncio.run(server(Desk({}, Path())).list_tools())) == 4
heavy = {"numpy", "onnxruntime", "genai_prices", "sqlite3", "tierwise.classifier", "tierwise.engine", "tierwise.ledger"}
print(sorted(heavy & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_sdk_the_command_says_what_to_install(environment: dict[str, str], home: Path) -> None:
    """Where the package is missing, `tierwise mcp` ends with the pip command that adds it."""
    folder = home / "without"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['mcp'] = None\n")
    done = subprocess.run(
        [sys.executable, "-m", "tierwise", "mcp"],
        env={**environment, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tierwise: the MCP server needs mcp 2.3 or newer: pip install 'tierwise[mcp]'\n"


def test_tools_can_be_seen_without_a_client(environment: dict[str, str], home: Path) -> None:
    """`tierwise mcp --json` lists the tools with their schemas."""
    tools = tierwise(environment, home, "mcp")["tools"]
    assert [tool["name"] for tool in tools] == ["route", "report", "calls", "feedback"]
    assert all({"description", "inputSchema", "outputSchema", "annotations"} <= set(tool) for tool in tools)
