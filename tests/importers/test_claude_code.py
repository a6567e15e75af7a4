"""Claude Code's transcripts: what the rows of one session say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.importers.transcripts import (
    OPUS,
    OTHER,
    SESSION,
    SONNET,
    Row,
    calls,
    calls_tool,
    cost_state,
    human,
    line,
    reply,
    sessions,
    tool_result,
    usage,
    write,
)
from tierwise.core.calls import CallKind, ImportedCall, ImportedSession, OwnCost, Phase
from tierwise.core.json import loads_slowly
from tierwise.core.money import Conditions, Usage
from tierwise.core.tasks import Classification, Needs, TaskType
from tierwise.importers.base import ImportRun
from tierwise.importers.claude_code import ClaudeCode, TranscriptReader, build
from tierwise.importers.registry import importer, importer_names
from tierwise.ledger.readings import Readings

RECORDED = Path(__file__).parent / "recorded"
TASK = TaskType("summarization", "writing", Needs.PROCESSING, recoverable=True)


class Asked:
    """A classifier that keeps what it was asked, and says the same of everything."""

    def __init__(self) -> None:
        self.asks: list[ImportedCall] = []

    def __call__(self, asked: Sequence[ImportedCall]) -> Sequence[Classification | None]:
        self.asks += asked
        return [Classification(TASK, len(call.ask) / 1000) if call.ask else None for call in asked]


def asks(root: Path) -> list[str]:
    """What is asked to be classified."""
    asked = Asked()
    sessions(root, ImportRun(classify=asked))
    return [call.ask for call in asked.asks]


# ------------------------------------------------------------------ what the real CLI wrote


@pytest.fixture(scope="module")
def recorded() -> dict[str, ImportedSession]:
    """Sessions of the real CLI 2.1.330 against the stand-in upstream, by the beginning of their names.

    Snapshots of prompts and tools were left out, and words of the CLI's own cut short.
    """
    return {session.id[:4]: session for session in sessions(RECORDED / "2.1.330")}


def test_tools_and_resuming(recorded: dict[str, ImportedSession]) -> None:
    """A session with tools, resumed twice on other models: each call once, and the CLI's last total is all of it."""
    session = recorded["eb3d"]
    assert [(call.id, call.model, call.phase, call.tools) for call in session.calls] == [
        ("req_standin_000001", SONNET, Phase.EXPLORING, ("Read",)),
        ("req_standin_000002", SONNET, Phase.VERIFYING, ("Bash",)),
        ("req_standin_000003", SONNET, Phase.REPORTING, ()),
        ("req_standin_000004", OPUS, Phase.REPORTING, ()),
        ("req_standin_000006", "claude-haiku-5-5", Phase.REPORTING, ()),
    ]
    assert [call.in_tool_loop for call in session.calls] == [False, True, True, False, False]
    assert {call.usage for call in session.calls} == {Usage(1234, 567, 23456, 4000, 321, 20, 2)}
    assert {call.conditions for call in session.calls} == {Conditions(inference_geo="us")}
    assert {call.project for call in session.calls} == {"/home/dev/printer"}
    assert session.own_cost is not None
    assert session.own_cost.total_usd == Decimal("0.221048026")
    assert dict(session.own_cost.by_model)[OPUS] == Decimal("0.06788872")


def test_a_fork(recorded: dict[str, ImportedSession]) -> None:
    """A fork owns what it asked itself, and of the CLI's total, which goes on from its parent's, only that."""
    session = recorded["dcbb"]
    assert [call.id for call in session.calls] == ["req_standin_000005"]
    assert session.own_cost == OwnCost(
        Decimal("0.021326226"), (("claude-haiku-5-5", Decimal("0.021326226")),), has_unknown_model=False
    )


def test_a_subagent(recorded: dict[str, ImportedSession]) -> None:
    """A subagent's calls are in its parent's session, under its id and its kind."""
    session = recorded["abad"]
    assert [(call.kind, call.agent, call.agent_type) for call in session.calls] == [
        (CallKind.MAIN, None, None),
        (CallKind.SUBAGENT, "a4e939df8f1ef21bf", "general-purpose"),
        (CallKind.MAIN, None, None),
    ]


def test_a_compaction(recorded: dict[str, ImportedSession]) -> None:
    """No row holds the call that summarizes; the next call knows that the history is another one."""
    session = recorded["8032"]
    assert [call.compacts for call in session.calls] == [False, False, True]


def test_an_advisor(recorded: dict[str, ImportedSession]) -> None:
    """What an advisor used beside a reply, under its own model, is a call of its own."""
    session = recorded["117b"]
    assert [(call.kind, call.model, call.usage.input_tokens) for call in session.calls] == [
        (CallKind.MAIN, SONNET, 1234),
        (CallKind.SIDE, OPUS, 10_000),
    ]


def test_synthetic_rows(recorded: dict[str, ImportedSession]) -> None:
    """Words of the client's own, because a model does not exist, are no call and cost nothing."""
    session = recorded["b2cd"]
    assert (session.calls, session.own_cost) == ((), OwnCost(Decimal(0)))


def test_an_older_version() -> None:
    """In 2.1.197, where copies do not say who asked, the session that began first owns them."""
    found = sessions(RECORDED / "2.1.197")
    assert [(session.id[:4], [call.id[-1] for call in session.calls], session.own_cost) for session in found] == [
        ("de84", ["2", "3", "4", "7"], None),
        ("a54e", ["5"], None),
    ]


def test_nothing_unknown_in_what_was_recorded() -> None:
    """All that the real CLI wrote is understood."""
    run = ImportRun()
    sessions(RECORDED, run)
    assert (run.skipped.line_count, run.skipped.unknown_kinds, run.skipped.unknown_fields) == (0, {}, {})


# ------------------------------------------------------------------ calls


def test_the_last_usage_counts(tmp_path: Path) -> None:
    """Of the rows of a call the one with the greatest usage counts, whichever comes last."""
    early, late = reply(1, 1, usage(1)), reply(1, 2, usage(90))
    write(tmp_path / "a" / f"{SESSION}.jsonl", [late, early, late])
    (call,) = calls(tmp_path)
    assert (call.usage.output_tokens, call.id) == (90, "req_0001")


def test_writes_are_split(tmp_path: Path) -> None:
    """Writes for five minutes and for an hour are told apart; where the row does not say, it was five minutes."""
    split = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70}
    rows = [
        reply(1, 1, usage(cache_creation_input_tokens=100, cache_creation=split)),
        reply(2, 2, usage(cache_creation_input_tokens=100)),
        reply(3, 3, usage(cache_creation_input_tokens=100)),
        reply(3, 4, usage(cache_creation_input_tokens=100, cache_creation=split)),
    ]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    found = [(call.usage.cache_write_5m_tokens, call.usage.cache_write_1h_tokens) for call in calls(tmp_path)]
    assert found == [(30, 70), (100, 0), (30, 70)]


@pytest.mark.parametrize(
    ("told", "conditions"),
    [
        ({"service_tier": "batch"}, Conditions(batch=True)),
        ({"service_tier": "priority"}, Conditions()),
        ({"speed": "fast", "inference_geo": "us"}, Conditions(inference_geo="us", fast=True)),
        ({"inference_geo": "not_available", "speed": "standard"}, Conditions()),
        ({"inference_geo": "", "speed": None, "service_tier": None}, Conditions()),
    ],
)
def test_conditions(tmp_path: Path, told: Row, conditions: Conditions) -> None:
    """What changes a price is read."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(used=usage(**told))])
    (call,) = calls(tmp_path)
    assert call.conditions == conditions


def test_a_message_id_without_a_request_id(tmp_path: Path) -> None:
    """Blocks of a reply without a request id are one call; another session's reply with that message id is another."""
    rows = [reply(1, 1, requestId=...), reply(1, 2, usage(50), requestId=...)]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    write(tmp_path / f"{OTHER}.jsonl", [reply(1, 9, usage(7), requestId=..., sessionId=OTHER)])
    assert [call.usage.output_tokens for call in calls(tmp_path)] == [50, 7]


@pytest.mark.parametrize(("name", "found"), [("relay", [9, 7]), ("msg_01", [9])])
def test_one_message_id_for_every_reply(tmp_path: Path, name: str, found: list[int]) -> None:
    """Where a relay gives all replies one message id, those after one another are calls apart. Anthropic never does."""
    same: Row = {"requestId": ..., "message": {"id": name}}
    rows = [reply(1, 1, usage(1), **same), reply(1, 2, usage(9), **same), tool_result(), reply(1, 3, usage(7), **same)]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    assert [call.usage.output_tokens for call in calls(tmp_path)] == found


def test_a_copy_without_a_request_id(tmp_path: Path) -> None:
    """A fork's copy of a reply without a request id, at the same time, is the same call."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1, requestId=...)])
    write(tmp_path / f"{OTHER}.jsonl", [reply(1, 1, requestId=..., sessionId=OTHER), reply(2, 5, sessionId=OTHER)])
    assert [call.session for call in calls(tmp_path)] == [SESSION, OTHER]


def test_a_replayed_side_chain(tmp_path: Path) -> None:
    """A side question's copy of its parent's reply, under a new request id, is not counted again."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1)])
    side = tmp_path / SESSION / "subagents" / "agent-aside_question-0123456789abcdef.jsonl"
    aside = {"isSidechain": True, "agentId": "aside_question-0123456789abcdef"}
    write(side, [reply(1, 1, requestId="req_other", **aside), reply(2, 5, **aside)])
    assert [(call.id, call.kind) for call in calls(tmp_path)] == [
        ("req_0001", CallKind.MAIN),
        ("req_0002", CallKind.SIDE),
    ]


def test_one_request_id_and_two_messages(tmp_path: Path) -> None:
    """A gateway that gives every reply one request id makes no two calls one."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1, requestId="req"), reply(2, 2, requestId="req")])
    assert len(calls(tmp_path)) == 2


def test_a_reply_without_any_id(tmp_path: Path) -> None:
    """A reply without ids is known by its row."""
    nameless: Row = {"requestId": ..., "message": {"id": None}}
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1, **nameless), reply(2, 2, **nameless), reply(2, 2, **nameless)])
    assert len(calls(tmp_path)) == 2


def test_server_side_compaction(tmp_path: Path) -> None:
    """Usage of a compaction on the server, which the sum leaves out, is a call before the reply's own."""
    summary = {"type": "compaction", "input_tokens": 5_000, "output_tokens": 300}
    used = usage(iterations=[summary, {"type": "message", "input_tokens": 100, "output_tokens": 20}])
    write(tmp_path / f"{SESSION}.jsonl", [reply(used=used), reply(second=2, used=used)])
    assert [(call.kind, call.usage.input_tokens) for call in calls(tmp_path)] == [
        (CallKind.COMPACTION, 5_000),
        (CallKind.MAIN, 100),
    ]


def test_an_unknown_iteration_is_told(tmp_path: Path) -> None:
    """Kinds of iterations and fields of usage that may cost something are counted, zeros are not."""
    run = ImportRun()
    used = usage(iterations=[{"type": "dream"}], moon_tokens=3, sun_tokens=0, fallback_credit=None)
    write(tmp_path / f"{SESSION}.jsonl", [reply(used=used)])
    assert len(calls(tmp_path, run)) == 1
    assert dict(run.skipped.unknown_fields) == {"moon_tokens": 1, "iterations: dream": 1}


def test_an_interrupted_call(tmp_path: Path) -> None:
    """A call that a person interrupted counts what it used, and has failed."""
    rows = [
        human("Go"),
        reply(1, 1, usage(7), message={"stop_reason": None}),
        human([{"type": "text", "text": "[Request interrupted by user]"}], 2),
        human("Go on", 3),
        reply(2, 4),
    ]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    assert [(call.usage.output_tokens, call.failed) for call in calls(tmp_path)] == [(7, True), (20, False)]


# ------------------------------------------------------------------ what it was about


@pytest.mark.parametrize(
    ("content", "phase"),
    [
        (calls_tool("Grep", pattern="x")["content"], Phase.EXPLORING),
        (calls_tool("Bash", command="cd src && git log -3")["content"], Phase.EXPLORING),
        (calls_tool("Bash", command="pytest -q")["content"], Phase.VERIFYING),
        ([*calls_tool("Read")["content"], *calls_tool("Edit")["content"]], Phase.EDITING),
        (calls_tool("mcp__tracker__close")["content"], Phase.OTHER),
        ([{"type": "text", "text": "All is well."}], Phase.REPORTING),
        ([{"type": "thinking", "thinking": ""}], Phase.OTHER),
        ("not a list", Phase.OTHER),
    ],
)
def test_phases(tmp_path: Path, content: Any, phase: Phase) -> None:
    """The tools of a turn tell what an agent was about; to change something tells most."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(message={"content": content})])
    (call,) = calls(tmp_path)
    assert call.phase is phase


def test_phases_over_several_rows(tmp_path: Path) -> None:
    """The blocks of one reply count together, each tool once."""
    rows = [reply(second=n, message=calls_tool(name)) for n, name in enumerate(["Read", "Edit", "Read"])]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    (call,) = calls(tmp_path)
    assert (call.phase, call.tools) == (Phase.EDITING, ("Read", "Edit"))


@pytest.mark.parametrize(
    ("said", "ask"),
    [
        ([human("Fix it")], ["Fix it"]),
        ([human([{"type": "text", "text": "<system-reminder>Be kind.</system-reminder>Fix it"}])], ["Fix it"]),
        ([human("Fix it"), tool_result("a secret")], ["Fix it"]),
        ([human("Fix it"), human([{"type": "tool_result", "content": [{"type": "text", "text": "no"}]}])], ["Fix it"]),
        ([human("Fix it"), human("Continue.", isMeta=True)], ["Fix it"]),
        ([human("Fix it"), human("This session is being continued …", isCompactSummary=True)], ["Fix it"]),
        (
            [human("<command-name>/compact</command-name>"), human("<local-command-stdout>ok</local-command-stdout>")],
            [],
        ),
        ([human("<command-message>x</command-message>"), human("Review the diff", isMeta=True)], ["Review the diff"]),
        ([human("Fix it"), human("<task-notification>done</task-notification>")], ["Fix it"]),
        ([human([{"type": "image"}, {"type": "text", "text": "What is this?"}])], ["What is this?"]),
    ],
)
def test_asks(tmp_path: Path, said: list[Row], ask: list[str]) -> None:
    """What a person said last is the ask: no results, reminders, notes, summaries."""
    write(tmp_path / f"{SESSION}.jsonl", [*said, reply()])
    assert asks(tmp_path) == ask


def test_an_ask_is_classified_once(tmp_path: Path) -> None:
    """Calls that share an ask share its classification, which is asked for once; the text is not in what is read."""
    rows = [human("Fix it"), reply(1, 1), tool_result(), reply(2, 2), human("And now that"), reply(3, 3)]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    asked = Asked()
    found = calls(tmp_path, ImportRun(classify=asked))
    assert [call.ask for call in asked.asks] == ["Fix it", "And now that"]
    assert [call.classification and call.classification.confidence for call in found] == [0.006, 0.006, 0.012]
    assert {call.ask for call in found} == {""}


def test_an_agents_ask_is_its_task(tmp_path: Path) -> None:
    """A subagent's ask is what it was told; its parent's is another."""
    agent = {"isSidechain": True, "agentId": "a0123456789abcdef", "attributionAgent": "Explore"}
    write(tmp_path / f"{SESSION}.jsonl", [human("Fix it"), reply(1, 1)])
    write(
        tmp_path / SESSION / "subagents" / "agent-a0123456789abcdef.jsonl",
        [human("Find it", isSidechain=True, agentId="a0123456789abcdef"), reply(2, 2, **agent)],
    )
    asked = Asked()
    sessions(tmp_path, ImportRun(classify=asked))
    assert {(call.ask, call.kind, call.agent_type) for call in asked.asks} == {
        ("Fix it", CallKind.MAIN, None),
        ("Find it", CallKind.SUBAGENT, "Explore"),
    }


def test_an_agents_replies_in_its_parents_file(tmp_path: Path) -> None:
    """Replies of an agent that stand in its parent's file as well are counted once, and where they are alone, too."""
    agent = {"isSidechain": True, "agentId": "a0123456789abcdef", "attributionAgent": "Explore"}

    def progress(number: int, second: int) -> Row:
        told = {**reply(number, second), "sessionId": ...}
        told = {name: value for name, value in told.items() if value is not ...}
        data = {"type": "agent_progress", "agentId": "a0123456789abcdef", "message": told}
        return {"parentUuid": None, "type": "progress", "data": data, "sessionId": SESSION}

    parent = [human("Fix it"), reply(1, 1), progress(2, 2), progress(3, 3), {"type": "progress", "data": {"type": "x"}}]
    write(tmp_path / f"{SESSION}.jsonl", parent)
    task = human("Find it", isSidechain=True, agentId="a0123456789abcdef")
    write(tmp_path / SESSION / "subagents" / "agent-a0123456789abcdef.jsonl", [task, reply(2, 2, **agent)])
    found = calls(tmp_path, ImportRun(classify=Asked()))
    assert [(call.id, call.kind, call.agent) for call in found] == [
        ("req_0001", CallKind.MAIN, None),
        ("req_0002", CallKind.SUBAGENT, "a0123456789abcdef"),
        ("req_0003", CallKind.SUBAGENT, "a0123456789abcdef"),
    ]
    assert [call.classification is not None for call in found] == [True, True, False]
    assert found[1].agent_type == "Explore"


def test_images_and_thinking(tmp_path: Path) -> None:
    """What the history holds by then is known of each call, until it is summarized."""
    boundary = {"type": "system", "subtype": "compact_boundary", "sessionId": SESSION}
    rows = [
        reply(1, 1, message={"content": [{"type": "thinking", "thinking": "hm"}]}),
        human([{"type": "image"}], 2),
        reply(2, 3),
        boundary,
        reply(3, 4),
    ]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    found = [(call.has_thinking, call.has_images, call.compacts) for call in calls(tmp_path)]
    assert found == [(False, False, False), (True, True, False), (False, False, True)]


def refused(**row: Any) -> Row:
    """A tool's result that is an error."""
    return human([{"tool_use_id": "toolu_1", "type": "tool_result", "content": "No.", "is_error": True}], **row)


LEAVES, ENTERS = calls_tool("ExitPlanMode", plan="Do it."), calls_tool("EnterPlanMode")
PLANNED = {
    "what a person says tells": ([human("a", permissionMode="plan"), reply(1), reply(2)], [True, True]),
    "until it tells otherwise": (
        [human("a", permissionMode="plan"), reply(1), human("b", permissionMode="acceptEdits"), reply(2)],
        [True, False],
    ),
    "a row without a mode changes nothing": (
        [human("a", permissionMode="plan"), reply(1), human("b"), reply(2)],
        [True, True],
    ),
    "a plan that is accepted": (
        [human("a", permissionMode="plan"), reply(1, message=LEAVES), tool_result(), reply(2), tool_result(), reply(3)],
        [True, False, False],
    ),
    "a plan that is refused": (
        [human("a", permissionMode="plan"), reply(1, message=LEAVES), refused(), reply(2), tool_result(), reply(3)],
        [True, True, True],
    ),
    "asked to plan within a turn": (
        [human("a", permissionMode="default"), reply(1, message=ENTERS), tool_result(), reply(2)],
        [False, True],
    ),
    "another tool's result": (
        [human("a", permissionMode="plan"), reply(1, message=calls_tool("Read")), tool_result(), reply(2)],
        [True, True],
    ),
    "names that are none": (
        [
            human("a", permissionMode=["plan"]),
            reply(1, message={"content": [{"type": "tool_use", "id": 1, "name": ["ExitPlanMode"]}, "ExitPlanMode"]}),
        ],
        [False],
    ),
}


@pytest.mark.parametrize("planned", PLANNED)
@pytest.mark.parametrize("resumed", [False, True])
def test_plan_mode(tmp_path: Path, planned: str, resumed: bool) -> None:
    """A call is one of planning from a prompt in plan mode up to the next in another, or an accepted plan."""
    rows, expected = PLANNED[planned]
    file = tmp_path / "projects" / f"{SESSION}.jsonl"
    with Readings(tmp_path / "readings.db") as readings:
        for end in range(1, len(rows) + 1) if resumed else [len(rows)]:  # read after every row, or once
            write(file, rows[:end])
            found = calls(tmp_path / "projects", ImportRun(readings=readings))
    assert [call.plan_mode for call in found] == expected


def test_agents_plan_with_the_main_loop(tmp_path: Path) -> None:
    """Rows of an agent tell no mode: it is in the one that the main loop was in when it was asked."""
    agent = {"isSidechain": True, "agentId": "a0123456789abcdef"}
    main = [human("a", permissionMode="plan"), reply(1, 1), human("b", 4, permissionMode="default"), reply(4, 5)]
    write(tmp_path / f"{SESSION}.jsonl", main)
    rows = [human("look", 2, **agent), reply(2, 3, **agent), reply(3, 6, **agent)]
    write(tmp_path / SESSION / "subagents" / "agent-a0123456789abcdef.jsonl", rows)
    assert [(call.agent is None, call.plan_mode) for call in calls(tmp_path)] == [
        (True, True),
        (False, True),
        (True, False),
        (False, False),
    ]


def test_what_a_request_was_for(tmp_path: Path) -> None:
    """Where a row names its request, what that was for tells the call's kind."""

    def request(name: str, source: str) -> Row:
        return {
            "type": "api-request",
            "sessionId": SESSION,
            "id": name,
            "timestamp": "",
            "version": "2",
            "querySource": source,
        }

    sources = ["sdk", "compact", "generate_session_title", "auto_mode", "prompt_suggestion", "agent:custom"]
    rows = [
        row for n, source in enumerate(sources) for row in (request(source, source), reply(n, n, requestRef=source))
    ]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    assert [call.kind for call in calls(tmp_path)] == [
        CallKind.MAIN,
        CallKind.COMPACTION,
        CallKind.TITLE,
        CallKind.SAFETY,
        CallKind.SIDE,
        CallKind.MAIN,
    ]


def test_a_project_is_where_the_session_was_begun(tmp_path: Path) -> None:
    """A shell that goes elsewhere takes no call to another project; where no row says one, the directory does."""
    rows = [
        reply(1, 1, cwd="/home/dev/printer/src"),
        reply(2, 2, cwd="/home/dev/printer"),
        reply(3, 3, cwd="/srv"),
    ]
    write(tmp_path / "-home-dev-printer" / f"{SESSION}.jsonl", rows)
    write(tmp_path / "-home-dev-other" / f"{OTHER}.jsonl", [reply(4, 4, cwd=..., sessionId=OTHER)])
    found = [call.project for call in calls(tmp_path)]
    assert found == ["/home/dev/printer"] * 3 + ["-home-dev-other"]


# ------------------------------------------------------------------ what the CLI counted


def test_the_last_total_counts(tmp_path: Path) -> None:
    """Runs that resume a session carry its total on: the last one is the session's."""
    rows = [reply(1, 1), cost_state(0.5), reply(2, 2), cost_state(0.75, {SONNET: 0.75}, hasUnknownModelCost=True)]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    (session,) = sessions(tmp_path)
    assert session.own_cost == OwnCost(Decimal("0.75"), ((SONNET, Decimal("0.75")),), has_unknown_model=True)


def test_a_fork_takes_off_what_its_parent_had_come_to(tmp_path: Path) -> None:
    """Of a fork's total the parent's is taken off as it was then, not as it became."""
    born = {"type": "queue-operation", "timestamp": "2026-11-02T09:00:10.000Z", "sessionId": OTHER}
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1), cost_state(0.5), reply(2, 30), cost_state(0.9)])
    copied = reply(1, 1, sessionId=OTHER, requestSessionId=SESSION)
    write(tmp_path / f"{OTHER}.jsonl", [born, copied, reply(3, 20, sessionId=OTHER), cost_state(0.6, sessionId=OTHER)])
    found = {session.id: session for session in sessions(tmp_path)}
    assert found[OTHER].own_cost == OwnCost(Decimal("0.1"))
    assert found[SESSION].own_cost == OwnCost(Decimal("0.9"))


def test_a_fork_that_does_not_say_when(tmp_path: Path) -> None:
    """Where no row tells when a fork was made, it was before the first call of its own."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1), reply(1, 2), cost_state(0.5), reply(2, 30), cost_state(0.9)])
    copies = [reply(1, second, sessionId=OTHER, requestSessionId=SESSION) for second in (1, 2)]
    write(tmp_path / f"{OTHER}.jsonl", [*copies, reply(3, 20, sessionId=OTHER), cost_state(0.6, sessionId=OTHER)])
    assert [session.own_cost for session in sessions(tmp_path)] == [OwnCost(Decimal("0.9")), OwnCost(Decimal("0.1"))]


def test_a_fork_of_a_parent_that_never_ended(tmp_path: Path) -> None:
    """Where it cannot be known what a fork's parent had come to, nothing is said of the fork's own cost."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1)])
    copied = reply(1, 1, sessionId=OTHER, requestSessionId=SESSION)
    write(tmp_path / f"{OTHER}.jsonl", [copied, reply(3, 20, sessionId=OTHER), cost_state(0.6, sessionId=OTHER)])
    assert [session.own_cost for session in sessions(tmp_path)] == [None, None]


def test_a_fork_whose_parent_is_gone(tmp_path: Path) -> None:
    """Claude Code deletes old transcripts: a fork then owns the copies, and the total is that of all of them."""
    copied = reply(1, 1, sessionId=OTHER, requestSessionId=SESSION)
    write(tmp_path / f"{OTHER}.jsonl", [copied, reply(3, 20, sessionId=OTHER), cost_state(0.6, sessionId=OTHER)])
    (session,) = sessions(tmp_path)
    assert (len(session.calls), session.own_cost) == (2, OwnCost(Decimal("0.6")))


# ------------------------------------------------------------------ where it is


def test_default_roots(tmp_path: Path) -> None:
    """`~/.claude` and `~/.config/claude`, or what `CLAUDE_CONFIG_DIR` names; only those that are there."""
    for name in ("home/.claude/projects", "home/.config/claude/projects", "one/projects", "two/projects"):
        (tmp_path / name).mkdir(parents=True)
    home = tmp_path / "home"
    roots = ClaudeCode().default_roots
    assert roots({}, home) == [home / ".claude/projects", home / ".config/claude/projects"]
    assert roots({"XDG_CONFIG_HOME": str(tmp_path / "none")}, home) == [home / ".claude/projects"]
    told = f"{tmp_path}/one, {tmp_path}/two/projects,{tmp_path}/none"
    assert roots({"CLAUDE_CONFIG_DIR": told}, home) == [tmp_path / "one/projects", tmp_path / "two/projects"]
    assert roots({"CLAUDE_CONFIG_DIR": "~/.claude"}, home) == [home / ".claude/projects"]


def test_several_roots_and_files(tmp_path: Path) -> None:
    """Roots may be directories and files, and a file that is found twice is read once."""
    one = write(tmp_path / "one" / f"{SESSION}.jsonl", [reply(1, 1)])
    two = write(tmp_path / "two" / f"{OTHER}.jsonl", [reply(2, 2, sessionId=OTHER)])
    found = ClaudeCode().sessions([one.parent, one, two], ImportRun())
    assert [session.id for session in found] == [SESSION, OTHER]


def test_a_configuration_directory_is_a_root(tmp_path: Path) -> None:
    """`~/.claude` stands for the transcripts in it, without the other files that are there."""
    write(tmp_path / "projects" / "a" / f"{SESSION}.jsonl", [reply(1, 1)])
    write(tmp_path / "history.jsonl", [{"display": "Fix it"}])
    run = ImportRun()
    assert len(calls(tmp_path, run)) == 1
    assert run.skipped.unknown_kinds == {}


def test_it_is_found_by_name() -> None:
    """The registry knows the importer, by its module and by its entry point."""
    assert importer("claude_code").name == build().name == "claude_code"
    assert "claude_code" in importer_names()


@pytest.mark.parametrize("version", ["2.1.330", "2.1.197"])
def test_spelling_does_not_matter(tmp_path: Path, version: str) -> None:
    """Spaces, escapes and another order of fields, with which no row can be passed over, change nothing."""
    for path in (RECORDED / version).rglob("*.jsonl"):
        rows = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
        spelled = b"".join(json.dumps(dict(reversed(row.items()))).encode() + b"\r\n" for row in rows)
        other = tmp_path / path.relative_to(RECORDED / version)
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(spelled)
    assert sessions(tmp_path) == sessions(RECORDED / version)


_texts = st.sampled_from(["ok", "1", '"type":"text","file":', "{", '"sessionId":"x"', "</system-reminder>", "\\", ""])
_blocks = st.one_of(
    st.builds(lambda text: {"tool_use_id": "toolu_1", "type": "tool_result", "content": text}, _texts),
    st.builds(
        lambda text: {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": text}]},
        _texts,
    ),
    st.builds(lambda text: {"type": "text", "text": text}, _texts),
    st.builds(lambda text: {"text": text, "type": "text"}, _texts),
    st.just({"type": "image", "source": {}}),
    st.just({"tool_use_id": "toolu_1", "type": "tool_result", "content": [{"type": "image"}]}),
)
_extras = st.sampled_from(
    [
        {"toolUseResult": {"type": "text", "file": {"content": "x"}}},
        {"toolUseResult": {"kind": "text", "sessionId": OTHER}},
        {"toolUseResult": {"agentId": "a0123456789abcdef", "content": []}},
        {"toolUseResult": {"message": {"role": "user", "content": "x"}}},
        {"toolUseResult": {"type": "image"}},
        {"isMeta": True},
        {"permissionMode": "plan"},
        {"permissionMode": "default", "toolUseResult": {"permissionMode": "plan"}},
        {},
    ]
)


@st.composite
def _user_rows(draw: st.DrawFn) -> Row:
    """What stands between replies, as it might be: known rows, rows within rows, fields in several orders."""
    start: Row = {"parentUuid": None, "isSidechain": draw(st.booleans())}
    agent: Row = {"agentId": "a0123456789abcdef"} if draw(st.booleans()) else {}
    end = [draw(_extras), {"sessionId": SESSION}]
    result = st.builds(lambda text: [{"tool_use_id": "toolu_1", "type": "tool_result", "content": text}], _texts)
    content = draw(st.one_of(result, result, result, _texts, st.lists(_blocks, max_size=3)))
    said = {"type": "user", "message": {"role": "user", "content": content}}
    attached = {"attachment": {"type": "file", "content": content}, "type": "attachment"}
    within = {"data": draw(st.sampled_from([said, attached])), "type": draw(st.sampled_from(["progress", "user"]))}
    middle = [agent, draw(st.sampled_from([said, said, said, attached, within, {**said, "type": "hologram"}]))]
    if draw(st.booleans()):
        middle.reverse()
    if draw(st.booleans()):
        end.reverse()
    parts = [*middle, *end] if draw(st.booleans()) else [*end, *middle]
    return {name: value for part in (start, *parts) for name, value in part.items()}


@settings(max_examples=300, deadline=None)
@given(st.lists(_user_rows(), min_size=1, max_size=6))
def test_what_is_passed_over_would_have_said_the_same(rows: list[Row]) -> None:
    """Rows that are not parsed say what they would have said if they had been, for whichever conversation."""
    compact, spaced = TranscriptReader(f"/p/{SESSION}.jsonl"), TranscriptReader(f"/p/{SESSION}.jsonl")
    aside: Row = {"isSidechain": True, "agentId": "a0123456789abcdef"}
    for number, row in enumerate(rows):
        for reader, text in ((compact, line(row)), (spaced, json.dumps(row).encode())):
            reader.line(text, number)
            for other, more in enumerate(({}, aside, {"isSidechain": True}, {"sessionId": OTHER})):
                change = {"message": calls_tool("ExitPlanMode" if number % 2 else "EnterPlanMode")}
                reader.line(line(reply(number * 10 + other, number, **more, **change)), number)
    assert list(compact.drafts.values()) == list(spaced.drafts.values())
    assert compact.groups == spaced.groups
    assert compact.state() == spaced.state()
    assert compact.skipped == spaced.skipped


def test_without_orjson() -> None:
    """The standard library understands the same of the same rows."""
    lines = [text for path in sorted(RECORDED.rglob("*.jsonl")) for text in path.read_bytes().splitlines()]
    lines += [b'{"type":"assistant","x":NaN}', b"{", b'{"type":"hologram","x":"\\ud800"}', b'{"type":"user","x":1e999}']
    lines += [
        b'{"type":"hologram","x":"\xff"}',
        b"[" * 2_000 + b"]" * 2_000,
        b'{"type":"hologram","x":' + b"9" * 50 + b"}",
    ]
    fast, slow = TranscriptReader("a.jsonl"), TranscriptReader("a.jsonl", loads=loads_slowly)
    for reader in (fast, slow):
        for number, text in enumerate(lines):
            reader.line(text, number)
    assert fast.drafts == slow.drafts
    assert fast.skipped == slow.skipped
    assert fast.skipped.unknown_kinds["hologram"] == 3
