"""The real Claude Code CLI through the gateway, with the stand-in for Anthropic's API behind it.

What is asserted is what a user sees (what is printed, files, exit status) and what the bill says. On a tier whose name
passes through (`haiku`, `sonnet`, `opus`) and on the routed name alike.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import urllib.error
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import RETRIES, ClaudeCode, Said
from tests.clients.tiers import AUTO, IDS, on
from tests.gateway.conftest import Serve, Served, settings_for
from tests.network import unused_port
from tierwise.config import load_settings
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import nanousd_to_usd
from tierwise.core.settings import ProviderSettings
from tierwise.providers.embedded import find_weights
from tierwise.testing import Fault, RecordedRequest, StandInReply, StandInUpstream

SUMMARY = "Summarise this ticket in one line: the printer burns"
STORY = "Write a short story about a lighthouse keeper who collects storms"
CLAUSE = "Is this indemnity clause enforceable under German law? We sign tomorrow."
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
QUICK = "[limits]\nbackoff_base_seconds = 0.01\ntransient_retries = 1\n"
LOCAL = """
[gateway]
embedded = true
[tiers.local]
models = ["embedded:smollm2-135m-instruct"]
[models."embedded:smollm2-135m-instruct"]
max_output_tokens = 64
"""
BARE = ("--bare", "--tools", "", "--system-prompt", "You are terse.")

_weights = ProviderSettings(name="embedded", kind="embedded", local=True)
_there = importlib.util.find_spec("xllamacpp") is not None and find_weights(_weights) is not None
embedded = pytest.mark.skipif(
    not _there, reason="xllamacpp or the weights are not installed (`make test` installs them)"
)


def models(upstream: StandInUpstream) -> list[Any]:
    """The models of the calls that came, in order."""
    return [sent(request)["model"] for request in upstream.calls()]


def sent(request: RecordedRequest) -> Any:
    """A request's body."""
    return request.json


def tool(name: str, arguments: dict[str, Any], id: str = "toolu_01Real") -> StandInReply:
    """A signed thought, then a call of a tool under an id."""
    return StandInReply(
        content=(
            {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"},
            {"type": "tool_use", "id": id, "name": name, "input": arguments},
        ),
        stop_reason="tool_use",
    )


def answers_tools(request: RecordedRequest) -> bool:
    """Whether a request brings the result of a tool."""
    return b'"tool_result"' in request.body


def spent_usd(gateway: Served) -> Decimal:
    """What the ledger says that everything cost."""
    attempts = [attempt for found in gateway.calls() for attempt in found.attempts]
    return nanousd_to_usd(sum(attempt.cost_nanousd or 0 for attempt in attempts))


# ------------------------------------------------------------------ Answers


@on("opus")
def test_text(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """`-p` prints the model's text and nothing else; the ledger knows the session."""
    upstream.reply("The printer burns.")
    gateway = serve(upstream)
    said = claude.text(gateway, SUMMARY, "--model", model)
    assert said == Said(0, "The printer burns.\n", "")
    (request,) = upstream.calls()
    assert sent(request)["model"] == IDS[model]
    assert request.query == "beta=true"
    assert request.headers["user-agent"].startswith("claude-cli/2.1.330 ")
    assert gateway.call().call.session == request.headers["x-claude-code-session-id"]


@on("haiku", "sonnet", "opus")
def test_cost(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """`--output-format json` reports the usage and, to the micro-dollar, the cost that the ledger has."""
    usage = {
        "input_tokens": 1_234,
        "output_tokens": 567,
        "cache_read_input_tokens": 23_456,
        "cache_creation_input_tokens": 4_321,
        "cache_creation": {"ephemeral_5m_input_tokens": 4_000, "ephemeral_1h_input_tokens": 321},
    }
    upstream.reply("The printer burns.", usage=usage)  # type: ignore[arg-type]
    gateway = serve(upstream)
    result = claude.ask(gateway, SUMMARY, "--model", model)
    assert result["result"] == "The printer burns."
    assert {name: result["usage"][name] for name in usage} == usage
    (attempt,) = gateway.call().attempts
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (1_234, 567)
    assert (attempt.usage.cache_write_5m_tokens, attempt.usage.cache_write_1h_tokens) == (4_000, 321)
    assert round(spent_usd(gateway), 6) == round(Decimal(str(result["total_cost_usd"])), 6)


@pytest.mark.parametrize("work", [(SUMMARY, "haiku"), (STORY, "sonnet"), (CLAUSE, "opus")], ids=lambda work: work[1])
@on(AUTO)
def test_routing(
    serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str, work: tuple[str, str]
) -> None:
    """`--model claude-tierwise-auto` goes where the work belongs; headers of `ANTHROPIC_CUSTOM_HEADERS` count."""
    ask, tier = work
    gateway = serve(upstream)
    result = claude.ask(gateway, ask, "--model", model, ANTHROPIC_CUSTOM_HEADERS="x-tierwise-project: shop")
    assert not result["is_error"]
    assert models(upstream) == [IDS[tier]]
    found = gateway.call().call
    assert (found.status, found.tier, found.project) == (CallStatus.ANSWERED, tier, "shop")
    # The client cannot know what it cost, and says so: it takes an unknown name for Opus.
    assert result["modelUsage"][AUTO]["costBasis"] == "unknown"


# ------------------------------------------------------------------ Agents


@on("haiku", "sonnet", "opus", AUTO)
def test_tools(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """A Bash call runs, its result goes back under its id, and the signed thought before it comes back unchanged."""
    upstream.reply(tool("Bash", {"command": "echo done > out.txt; cat out.txt", "description": "Write it"}))
    upstream.reply("It is done.")
    gateway = serve(upstream)
    result = claude.ask(gateway, "Write it", "--model", model, "--allowedTools", "Bash")
    assert result["result"] == "It is done."
    assert (claude.cwd / "out.txt").read_text() == "done\n"
    first, second = upstream.calls()
    assert sent(first)["model"] == sent(second)["model"]
    thought, called, answered = (
        block
        for message in sent(second)["messages"][1:]
        for block in message["content"]
        if isinstance(block, dict) and block["type"] != "text"
    )
    assert thought == {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"}
    assert (called["type"], called["id"]) == ("tool_use", "toolu_01Real")
    assert (answered["tool_use_id"], answered["content"]) == ("toolu_01Real", "done")
    if model != AUTO:
        assert round(spent_usd(gateway), 6) == round(Decimal(str(result["total_cost_usd"])), 6)


@on("sonnet", AUTO)
def test_subagents(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """A subagent has its own agent id in the session and, on the routed name, its own tier."""

    def answer(request: RecordedRequest) -> StandInReply:
        if "x-claude-code-agent-id" in request.headers:
            return StandInReply.of_text("The printer burns.")
        if answers_tools(request):
            return StandInReply.of_text("Reported.")
        return tool(
            "Agent",
            {
                "description": "Summarise",
                "prompt": SUMMARY,
                "subagent_type": "general-purpose",
                "run_in_background": False,
            },
        )

    upstream.handler = answer
    gateway = serve(upstream)
    result = claude.ask(gateway, STORY, "--model", model)
    assert result["result"] == "Reported."
    assert result["subagent_stats"]["completed"] == 1
    assert models(upstream) == [IDS["sonnet"], IDS["haiku" if model == AUTO else "sonnet"], IDS["sonnet"]]
    first, sub, last = (found.call for found in gateway.calls())
    assert first.session == sub.session == last.session
    assert [dict(call.tags)["kind"] for call in (first, sub, last)] == ["main", "subagent", "main"]


@on("haiku", "sonnet", "opus", AUTO)
def test_structured_output(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """`--json-schema` gives an object of that schema; on the routed name a misfit never reaches the client."""
    if model == AUTO:
        upstream.reply(tool("StructuredOutput", {"title": 7}), times=2)
    upstream.reply(tool("StructuredOutput", {"title": "Printer on fire"}))
    gateway = serve(upstream, QUICK)
    result = claude.ask(
        gateway, f"Give this ticket a title: {SUMMARY}", "--model", model, "--json-schema", json.dumps(SCHEMA)
    )
    assert result["structured_output"] == {"title": "Printer on fire"}
    if model == AUTO:
        outcomes = [attempt.outcome for attempt in gateway.calls()[0].attempts]
        assert outcomes == [OutcomeKind.REJECTED, OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]


@on("sonnet", AUTO)
def test_long_sessions(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """A session is resumed on its model, compacted, and what is asked after that is what counts."""
    gateway = serve(upstream)
    session = claude.ask(gateway, STORY, "--model", model)["session_id"]
    resumed = ("--model", model, "--resume", session)
    claude.ask(gateway, "And now a longer one", *resumed)
    upstream.reply("<summary>The user wanted stories about a lighthouse keeper.</summary>")
    claude.ask(gateway, "/compact", *resumed)
    claude.ask(gateway, "Translate 'good morning' to French", *resumed)
    first, second, compaction, after = upstream.calls()
    assert len(sent(second)["messages"]) > len(sent(first)["messages"])
    assert b"stories about a lighthouse keeper" in after.body
    assert sent(compaction)["model"] == IDS["sonnet"]
    calls = [found.call for found in gateway.calls()]
    assert {call.session for call in calls} == {session}
    assert [dict(call.tags)["kind"] for call in calls] == ["main", "main", "compaction", "main"]
    assert [call.task_type for call in calls[::3]] == ["creative_writing", "translation"]
    assert [call.tier for call in calls] == ["sonnet"] * 3 + ["haiku" if model == AUTO else "sonnet"]


@on("sonnet", AUTO)
def test_auto_mode(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """`--permission-mode auto`: the request for a verdict and the server's verdict both pass; the tool runs."""
    upstream.reply(
        StandInReply(
            content=tool("Bash", {"command": "echo judged > out.txt", "description": "Write it"}).content,
            stop_reason="tool_use",
            ending={
                "safeguard_results": [
                    {
                        "type": "dangerous_tool_use",
                        "status": {
                            "type": "available",
                            "tool_uses": {"toolu_01Real": {"type": "evaluated", "outcome": "not_flagged"}},
                        },
                    }
                ]
            },
        )
    )
    upstream.reply("It is done.")
    result = claude.ask(serve(upstream), STORY, "--model", model, "--permission-mode", "auto")
    assert result["result"] == "It is done."
    assert result["permission_denials"] == []
    assert (claude.cwd / "out.txt").read_text() == "judged\n"
    assert sent(upstream.calls()[0])["safeguards"][0]["type"] == "dangerous_tool_use"


@on(AUTO)
def test_auto_mode_without_a_verdict(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """Where the server gives no verdict none is invented: the client runs nothing that needs one, and says why."""
    upstream.reply(tool("Bash", {"command": "curl -s http://127.0.0.1:9; touch out.txt", "description": "Write it"}))
    said = claude.text(serve(upstream), STORY, "--model", model, "--permission-mode", "auto")
    assert said.status == 1
    assert "auto mode could not check" in said.err
    assert not (claude.cwd / "out.txt").exists()


# ------------------------------------------------------------------ What goes wrong

FAULTS = {
    "429": (Fault.rate_limited(retry_after=0), 429),
    "529": (Fault.status(529), 529),
    "cut": (Fault.cut(after_events=4), 502),
    "error-event": (Fault.error_event(after_events=4), 529),
}


@pytest.mark.parametrize("fault", FAULTS)
@on("sonnet")
def test_faults_that_pass(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str, fault: str) -> None:
    """After one 429, 529 or broken stream the client tries again by itself; the first try is in the ledger too."""
    upstream.fail(FAULTS[fault][0])
    gateway = serve(upstream)
    result = claude.ask(gateway, SUMMARY, "--model", model)
    assert result["result"] == f"This is the stand-in for {IDS[model]}: no model was run."
    assert [found.call.status for found in gateway.calls()] == [CallStatus.FAILED, CallStatus.ANSWERED]
    # What a broken stream had used by then is on the bill; the client leaves it out.
    broken = fault in ("cut", "error-event")
    assert (round(spent_usd(gateway), 6) > round(Decimal(str(result["total_cost_usd"])), 6)) is broken
    # A client that gives up on a stream asks again for the answer in one piece.
    assert [sent(request)["stream"] for request in upstream.calls()] == [True, not broken]


@pytest.mark.parametrize("fault", FAULTS)
@on("sonnet")
def test_faults_that_stay(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str, fault: str) -> None:
    """Again and again: the client says which error, ends with 1, and never hangs."""
    what, status = FAULTS[fault]
    upstream.fail(what, times=None)
    gateway = serve(upstream)
    said = claude.text(gateway, SUMMARY, "--model", model, "--output-format", "json")
    assert said.status == 1
    assert said.json["is_error"]
    assert said.json["api_error_status"] == status
    assert len(upstream.calls()) == 1 + RETRIES
    assert {found.call.status for found in gateway.calls()} == {CallStatus.FAILED}


@pytest.mark.parametrize("fault", ["529", "cut-early"])
@on(AUTO)
def test_faults_unseen(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str, fault: str) -> None:
    """On the routed name an overloaded model, or a stream cut before it was worth sending, costs the client nothing."""
    upstream.fail(Fault.status(529) if fault == "529" else Fault.cut(after_events=2), times=2)
    gateway = serve(upstream, QUICK)
    result = claude.ask(gateway, SUMMARY, "--model", model)
    assert result["result"] == f"This is the stand-in for {IDS['sonnet']}: no model was run."
    assert models(upstream) == [IDS["haiku"], IDS["haiku"], IDS["sonnet"]]
    assert gateway.call().call.status is CallStatus.ANSWERED


@on(AUTO)
def test_asked_again_in_one_piece(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """Without tools, too, what it asks for again after a stream broke is routed as before, not as a safety call."""
    upstream.fail(Fault.cut(after_events=6))
    gateway = serve(upstream)
    result = claude.ask(gateway, SUMMARY, "--model", model, "--tools", "")
    assert result["result"] == f"This is the stand-in for {IDS['haiku']}: no model was run."
    assert [sent(request)["stream"] for request in upstream.calls()] == [True, False]
    assert models(upstream) == [IDS["haiku"]] * 2


@on("sonnet")
def test_fallback_model(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """`--fallback-model` answers where the model stays overloaded."""
    overloaded = Fault.status(529)
    upstream.handler = lambda request: overloaded if b'"model":"claude-sonnet-5-5"' in request.body else None
    asked = (SUMMARY, "--model", model, "--fallback-model", "haiku")
    result = claude.ask(serve(upstream), *asked, CLAUDE_CODE_MAX_RETRIES="2")  # it falls back after the third 529
    assert result["result"] == f"This is the stand-in for {IDS['haiku']}: no model was run."


# ------------------------------------------------------------------ Beside the conversation


@on("haiku", AUTO)
def test_context(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """`/context` counts tokens through the gateway (for the routed name as the baseline does) and costs nothing."""
    gateway = serve(upstream)
    said = claude.text(gateway, "/context", "--model", model)
    assert said.status == 0
    assert re.search(r"\*\*Tokens:\*\* [\d.]+k", said.out), said.out
    counted = upstream.calls("/v1/messages/count_tokens")
    assert len(counted) > 20
    assert {sent(request)["model"] for request in counted} == {IDS["sonnet" if model == AUTO else model]}
    assert gateway.calls() == []


@on("haiku")
def test_model_discovery(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, model: str) -> None:
    """`CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY=1` offers the routed name beside the API's own models."""
    claude.text(serve(upstream), SUMMARY, "--model", model, CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1")
    listed = json.loads((claude.home / ".claude/cache/gateway-models.json").read_text())
    assert {AUTO, *IDS.values()} <= {model["id"] for model in listed["models"]}


# ------------------------------------------------------------------ The local tier


@embedded
@pytest.mark.embedded
def test_local(serve: Serve, upstream: StandInUpstream, claude: ClaudeCode, tmp_path: Path) -> None:
    """A bare call is answered by the embedded model, by name or routed, and costs nothing; one with tools goes up."""
    settings = load_settings(
        path=_written(tmp_path, LOCAL),
        env={"HOME": str(tmp_path), "ANTHROPIC_BASE_URL": upstream.url, "TIERWISE_LEDGER": str(tmp_path / "l.db")},
        cwd=tmp_path,
    )
    gateway = serve(upstream, settings=settings)
    question = "Tag this message with one word: the printer burns"
    for model in ("embedded:smollm2-135m-instruct", AUTO):
        before = len(gateway.calls())
        said = claude.text(gateway, question, "--model", model, *BARE)
        assert any(character.isalpha() for character in said.out), said
        # What comes after is by chance: so small a model may find no end, and then the client asks it to go on; or say
        # nothing, and then the call climbs.
        found = gateway.calls()[before].attempts[0]
        assert (found.tier, found.cost_nanousd) == ("local", 0)
        assert found.usage.output_tokens > 0
        assert model == AUTO or not upstream.calls()
    upstream.clear()
    claude.ask(gateway, question, "--model", AUTO)
    assert models(upstream) == [IDS["haiku"]]


def _written(directory: Path, toml: str) -> Path:
    path = directory / "tierwise.toml"
    path.write_text(toml, encoding="utf-8")
    return path


# ------------------------------------------------------------------ `tierwise claude`


@on(AUTO)
def test_tierwise_claude(upstream: StandInUpstream, claude: ClaudeCode, tmp_path: Path, model: str) -> None:
    """`tierwise claude -p …` starts a gateway, runs the real CLI through it, and leaves nothing running."""
    port = unused_port()
    settings_for(upstream, tmp_path, f"[gateway]\nport = {port}\n")
    config, asked = str(tmp_path / "tierwise.toml"), ("-p", SUMMARY, "--model", model, "--output-format", "json")
    said = claude.run(
        [sys.executable, "-m", "tierwise", "--config", config, "claude", *asked],
        ANTHROPIC_BASE_URL=upstream.url,
        TIERWISE_LEDGER=str(tmp_path / "ledger.db"),
        PYTHONPATH=str(Path(__file__).parents[2] / "src"),
    )
    assert said.status == 0, said
    assert said.json["result"] == f"This is the stand-in for {IDS['haiku']}: no model was run."
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60)
