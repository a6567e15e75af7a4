"""The plugin in the real Claude Code CLI: its hooks, its skill, and what they leave in the ledger."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import PROGRAM, ClaudeCode
from tests.gateway.conftest import Serve
from tests.integrations.claude_code.conftest import Plugged
from tierwise.integrations.claude_code.places import PLUGIN
from tierwise.testing import Fault, RecordedRequest, StandInReply, StandInUpstream

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
SUMMARY = "Summarise this ticket in one line: the printer burns"
CLAUSE = "Is this indemnity clause enforceable under German law? We sign tomorrow."
STORY = "Write a short story about a lighthouse keeper who collects storms"


def with_subagent(prompt: str, **given: Any) -> Any:
    """Answers as a main loop that calls one subagent, and as that."""

    def answer(request: RecordedRequest) -> StandInReply:
        if "x-claude-code-agent-id" in request.headers:
            return StandInReply.of_text("The printer burns.")
        if b'"tool_result"' in request.body:
            return StandInReply.of_text("Reported.")
        arguments = {"description": "Work", "prompt": prompt, "subagent_type": "general-purpose", **given}
        block = {"type": "tool_use", "id": "toolu_01Real", "name": "Agent", "input": arguments}
        return StandInReply(content=(block,), stop_reason="tool_use")

    return answer


def of_subagents(upstream: StandInUpstream) -> list[str]:
    """The models that subagents' requests went to."""
    return [r.json["model"] for r in upstream.calls() if "x-claude-code-agent-id" in r.headers]


def test_the_plugin_is_valid(claude: ClaudeCode) -> None:
    """`claude plugin validate --strict` passes it, and its version is the package's."""
    said = claude.run([str(PROGRAM), "plugin", "validate", "--strict", str(PLUGIN)])
    assert said.status == 0, said
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert json.loads((PLUGIN / ".claude-plugin" / "plugin.json").read_text())["version"] == project["version"]


@pytest.mark.parametrize(("prompt", "model"), [(SUMMARY, HAIKU), (CLAUSE, OPUS)], ids=["haiku", "opus"])
def test_a_subagent_gets_the_model_that_fits(
    installed: Plugged, upstream: StandInUpstream, prompt: str, model: str
) -> None:
    """What a subagent is asked decides its model; the session's own stays."""
    upstream.handler = with_subagent(prompt)
    installed.start_companion()
    assert installed.ask(STORY, "--model", "sonnet")["result"] == "Reported."
    assert of_subagents(upstream) == [model]
    assert set(installed.models()) == {SONNET, model}


def test_a_model_that_somebody_chose_stays(installed: Plugged, upstream: StandInUpstream) -> None:
    """A model in the call of the tool is not changed."""
    upstream.handler = with_subagent(SUMMARY, model="opus")
    installed.start_companion()
    installed.ask(STORY, "--model", "sonnet")
    assert of_subagents(upstream) == [OPUS]


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (StandInReply.of_text("The printer burns."), "the same was asked again, after it was done"),
        (Fault.refusal(), "the one before was refused"),
        (Fault.status(400), "the one before failed"),
    ],
    ids=["asked again", "refused", "failed"],
)
def test_a_subagent_climbs(
    installed: Plugged, upstream: StandInUpstream, first: StandInReply | Fault, said: str
) -> None:
    """When the parent asks again for work that came to nothing, the next subagent gets the next tier, and says why."""
    asked: list[str] = []

    def answer(request: RecordedRequest) -> StandInReply | Fault:
        if "x-claude-code-agent-id" in request.headers:
            return first if request.json["model"] == HAIKU else StandInReply.of_text("It burns.")  # type: ignore[index, call-overload]
        if len(asked) == 2 or (asked and b"</task-notification>" not in request.body):
            return StandInReply.of_text("Waiting.")
        asked.append(f"toolu_{len(asked):04d}")
        arguments = {"description": "Work", "prompt": SUMMARY, "subagent_type": "general-purpose"}
        block = {"type": "tool_use", "id": asked[-1], "name": "Agent", "input": arguments}
        return StandInReply(content=(block,), stop_reason="tool_use")

    upstream.handler = answer
    installed.start_companion()
    installed.ask(STORY, "--model", "sonnet")
    models = of_subagents(upstream)
    assert list(dict.fromkeys(models)) == [HAIKU, SONNET]
    reasons = {
        reason.text
        for one in installed.calls()
        if dict(one.call.tags)["kind"] == "subagent" and one.call.model == SONNET
        for reason in one.call.reasons
    }
    assert reasons == {f"the plugin gave this subagent sonnet: {said} on haiku"}


def test_a_session_is_recorded_once(installed: Plugged, upstream: StandInUpstream) -> None:
    """Each request is in the ledger once, however many events tell of it; only what a hook decided saves anything."""
    upstream.handler = with_subagent(SUMMARY)
    installed.start_companion()
    told = installed.ask(STORY, "--model", "sonnet")
    stored = installed.calls()
    assert len(stored) == len(upstream.calls())
    assert {one.call.session for one in stored} == {told["session_id"]}
    assert {one.attempts[0].request_id for one in stored} == {request.request_id for request in upstream.calls()}
    (sub,) = [one for one in stored if dict(one.call.tags)["kind"] == "subagent"]
    assert (sub.call.tier, sub.call.task_type, sub.call.baseline_model) == ("haiku", "summarization", SONNET)
    assert sub.call.baseline_nanousd is not None
    assert sub.attempts[0].cost_nanousd is not None
    assert sub.call.baseline_nanousd > sub.attempts[0].cost_nanousd > 0
    for one in stored:
        if one is not sub:
            assert (one.call.tier, one.call.baseline_nanousd) == ("sonnet", one.attempts[0].cost_nanousd)
    totals = json.loads((installed.places.state / f"{told['session_id']}.json").read_text())
    assert totals["tiers"] == {"sonnet": len(stored) - 1, "haiku": 1}
    assert totals["spent_nanousd"] == sum(one.attempts[0].cost_nanousd or 0 for one in stored)
    assert totals["saved_nanousd"] == sub.call.baseline_nanousd - sub.attempts[0].cost_nanousd


def test_what_the_gateway_recorded_is_left_to_it(plugged: Plugged, upstream: StandInUpstream, serve: Serve) -> None:
    """A session through the gateway, with the plugin: each request is recorded once, by the gateway."""
    gateway = serve(upstream)
    through = Plugged(plugged.cli, upstream, gateway.url, plugged.processes)
    assert through.tierwise("claude", "install", "--yes").status == 0
    (through.cli.home / "ledger.db").symlink_to(gateway.ledger_path)
    upstream.handler = with_subagent(SUMMARY)
    through.start_companion()
    through.ask(STORY, "--model", "sonnet")
    stored = through.calls()
    assert len(stored) == len(upstream.calls())
    assert not [one for one in stored if dict(one.call.tags).get("source") == "claude_code"]


def test_sessions_of_exec_are_recorded_by_it(installed: Plugged, upstream: StandInUpstream) -> None:
    """`tierwise exec` records its own runs: the plugin's hooks inside of them leave that to it."""
    upstream.reply("The printer burns.")
    installed.start_companion()
    assert installed.tierwise("exec", "--", "claude", "-p", SUMMARY).status == 0
    (stored,) = installed.calls()
    assert dict(stored.call.tags)["source"] == "claude_exec"


def test_without_tierwise_a_session_goes_on(installed: Plugged, upstream: StandInUpstream) -> None:
    """With tierwise and its Python gone, subagents run as they would have, and nothing is said."""
    (installed.places.plugin / "hooks" / "python").write_text("/nowhere/python\n")
    upstream.handler = with_subagent(SUMMARY)
    assert installed.ask(STORY, "--model", "sonnet")["result"] == "Reported."
    assert of_subagents(upstream) == [SONNET]


def test_a_companion_that_is_broken_harms_nobody(installed: Plugged, upstream: StandInUpstream) -> None:
    """A socket that nobody listens on, and a companion that cannot start: subagents run as they would have."""
    import socket

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(installed.places.socket))
    listening.close()
    upstream.handler = with_subagent(SUMMARY)
    told = installed.ask(STORY, "--model", "sonnet", PYTHONPATH="/nowhere", TIERWISE_CONFIG="/nowhere/tierwise.toml")
    assert told["result"] == "Reported."
    assert of_subagents(upstream) == [SONNET]


def test_the_first_event_starts_the_companion(installed: Plugged) -> None:
    """Where no companion runs, an event starts one that outlives the hook, and is handed over to it.

    What is imported is never a module of the project that the session is in.
    """
    hook, project = installed.places.plugin / "hooks" / "run.sh", installed.cli.cwd / "project"
    project.mkdir()
    (project / "click.py").write_text("open(__file__ + '.ran', 'w')\n")
    words = ["sh", "-c", 'cd "$1" && exec sh "$2" hook.py SessionStart', "sh", str(project), str(hook)]
    said = installed.cli.run(words, **installed.environment)
    assert (said.status, said.out, said.err) == (0, "", "")
    installed.start_companion()  # which finds one there, or is the one
    assert "companion: running" in installed.tierwise("claude", "status").out
    assert installed.tierwise("claude", "uninstall").status == 0
    assert [path.name for path in project.iterdir()] == ["click.py"]


def test_hooks_import_next_to_nothing() -> None:
    """What a hook imports takes no time: modules that are built in, and no package."""
    bare = [sys.executable, "-I", "-S", "-X", "importtime"]
    hook = [*bare, str(PLUGIN / "hooks" / "hook.py"), "Stop"]
    found = []
    for command in (hook, [*bare, "-c", "import os"]):
        done = subprocess.run(command, input=b"{}", env={"TIERWISE_RECORDS": "a test"}, capture_output=True, check=True)
        found.append({line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()})
    assert found[0] - found[1] <= {"_socket", "time", "__future__"}


def test_the_skill_is_called_by_its_name(installed: Plugged, upstream: StandInUpstream) -> None:
    """`/tierwise` puts the skill's instructions and what was asked before the model."""
    installed.ask("/tierwise why so much on Monday", "--model", "sonnet")
    body = upstream.calls()[0].body
    assert b"tierwise report --since 7d" in body
    assert b"why so much on Monday" in body


def test_agents_run_on_haiku(installed: Plugged, upstream: StandInUpstream) -> None:
    """An agent of the plugin is there by name, and on Haiku whatever the session is on."""
    upstream.handler = with_subagent(CLAUSE, subagent_type="tierwise:extractor")
    installed.start_companion()
    installed.ask(STORY, "--model", "sonnet")
    assert of_subagents(upstream) == [HAIKU]
