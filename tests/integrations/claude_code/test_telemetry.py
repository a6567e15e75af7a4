"""The real Claude Code reports to tierwise: its requests are in the ledger, once, at the cost that it names itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.gateway.conftest import Serve
from tests.integrations.claude_code.conftest import Plugged
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.money import nanousd_to_usd
from tierwise.ledger import Ledger
from tierwise.ledger.care import verify
from tierwise.ledger.reported import Source, source_of
from tierwise.ledger.store import StoredCall
from tierwise.testing import Fault, RecordedRequest, StandInReply

USAGE = {
    "input_tokens": 1_000,
    "output_tokens": 50,
    "cache_read_input_tokens": 300,
    "cache_creation_input_tokens": 700,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 500},
}
WORD = "zanzibar"  # in prompts and answers, and nowhere else


def exporting(url: str, protocol: str = "http/json", **more: str) -> dict[str, str]:
    """What sends Claude Code's telemetry there."""
    return {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "DISABLE_TELEMETRY": "",
        # At its end it waits two seconds for who receives it, whom a busy machine may keep from answering for longer.
        "CLAUDE_CODE_OTEL_SHUTDOWN_TIMEOUT_MS": "60000",
        "CLAUDE_CODE_OTEL_FLUSH_TIMEOUT_MS": "60000",
        **more,
    }


@pytest.fixture
def receiver(plugged: Plugged) -> Iterator[str]:
    """`tierwise dashboard` as a process of its own; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tierwise", "dashboard", "--no-open", "--port", "0", "--json"],
        env={**plugged.cli.environment, **plugged.environment},
        cwd=plugged.cli.cwd,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"}\n") and (line := process.stdout.readline()):
        said += line
    yield json.loads(said)["url"].removesuffix("/dashboard/")
    process.terminate()
    process.wait(60)
    process.stdout.close()


def calls(plugged: Plugged) -> list[StoredCall]:
    """What the ledger holds; nothing is wrong with it, and no word of a prompt or an answer is in it."""
    with Ledger(plugged.ledger_path) as ledger:
        assert verify(ledger) == []
        found = list(ledger.calls())
    assert not any(WORD.encode() in path.read_bytes() for path in plugged.ledger_path.parent.glob("ledger.db*"))
    return found


def spent(found: list[StoredCall]) -> Decimal:
    """In US$."""
    return nanousd_to_usd(sum(one.cost_nanousd or 0 for stored in found for one in stored.attempts))


def named(result: Any) -> Decimal:
    """What the CLI says that it spent, to the billionth of a dollar: it adds up floats."""
    return Decimal(round(result["total_cost_usd"] * 1e9)).scaleb(-9)


def with_subagent(request: RecordedRequest) -> StandInReply | None:
    """The main loop starts a subagent first."""
    body: Any = request.json
    if request.path != "/v1/messages" or "x-claude-code-agent-id" in request.headers:
        return None
    answered = any(message["role"] == "assistant" for message in body["messages"])
    if any(tool["name"] == "Agent" for tool in body.get("tools", [])) and not answered:
        asked = {"description": "look", "prompt": f"Summarise {WORD}", "subagent_type": "general-purpose"}
        return StandInReply.of_tool("Agent", asked, usage=USAGE)
    return None


@pytest.mark.parametrize(
    ("protocol", "more"),
    [("http/json", {}), ("http/protobuf", {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"})],
    ids=["json", "protobuf and gzip"],
)
def test_every_request_at_the_cost_that_the_cli_names(
    plugged: Plugged, receiver: str, protocol: str, more: dict[str, str]
) -> None:
    """Main loop and subagent, by model, session and project, every kind of token; the sum is the CLI's own."""
    plugged.upstream.handler = with_subagent
    told = {"OTEL_RESOURCE_ATTRIBUTES": "project=shop", **more}
    result = plugged.ask(f"Look at {WORD}", "--allowedTools", "Agent", **exporting(receiver, protocol, **told))
    found = calls(plugged)
    assert len(found) == len(plugged.upstream.calls()) > 2
    assert spent(found) == named(result)
    assert {stored.attempts[0].request_id for stored in found} == {one.request_id for one in plugged.upstream.calls()}
    assert {(stored.call.session, stored.call.project) for stored in found} == {(result["session_id"], "shop")}
    first = found[0].attempts[0].usage
    assert (first.input_tokens, first.output_tokens, first.cache_read_tokens) == (1_000, 50, 300)
    assert (first.cache_write_5m_tokens, first.cache_write_1h_tokens, first.estimated) == (200, 500, False)
    assert {dict(stored.call.tags)["kind"] for stored in found} == {"main", "subagent"}
    for stored in found:
        assert stored.call.baseline_nanousd == stored.attempts[0].cost_nanousd  # nothing was routed
        assert (stored.call.task_type, stored.call.abstained) == ("unknown", True)
        assert stored.call.reasons == ()
        assert stored.call.latency_ms and stored.attempts[0].ttft_ms


def test_prompts_are_classified_and_dropped(plugged: Plugged, receiver: str) -> None:
    """Where the user has Claude Code send prompts, calls say what they were for, and hold no word of it."""
    asked = f"Translate this sentence about {WORD} into French"
    plugged.ask(asked, **exporting(receiver, OTEL_LOG_USER_PROMPTS="1", OTEL_LOG_ASSISTANT_RESPONSES="1"))
    (stored,) = calls(plugged)
    assert (stored.call.task_type, stored.call.abstained) == ("translation", False)


@pytest.mark.parametrize("status", [529, 401])
def test_requests_that_are_given_up(plugged: Plugged, receiver: str, status: int) -> None:
    """Tries that failed are one call without tokens, which says how it ended; nothing was spent."""
    plugged.upstream.fail(Fault.status(status, f"no {WORD}", headers={"retry-after": "0"}), times=None)
    plugged.cli.run(["claude", "-p", "x"], **plugged.environment, **exporting(receiver))
    (stored,) = calls(plugged)
    kind = OutcomeKind.OVERLOADED if status == 529 else OutcomeKind.UNAUTHORIZED
    assert (stored.call.status, stored.attempts[0].outcome) == (CallStatus.FAILED, kind)
    assert stored.call.error == f"the API answered {status} after 2 tries"
    assert (stored.attempts[0].cost_nanousd, stored.call.baseline_nanousd) == (0, None)


def test_a_try_before_the_one_that_answered(plugged: Plugged, receiver: str) -> None:
    """A request that was answered at the second try is one call."""
    plugged.upstream.fail(Fault.status(529, headers={"retry-after": "0"}))
    result = plugged.ask("x", **exporting(receiver))
    (stored,) = calls(plugged)
    assert spent([stored]) == named(result)
    assert stored.attempts[0].outcome is OutcomeKind.ACCEPTED


def test_through_the_gateway_too(plugged: Plugged, serve: Serve) -> None:
    """A gateway that also receives the telemetry of its own client has each of its calls once: its own record."""
    gateway = serve(plugged.upstream)
    where = {"ANTHROPIC_BASE_URL": gateway.url}
    result = plugged.ask("x", "--model", "opus", **exporting(gateway.url, **where))
    (stored,) = gateway.calls()
    assert source_of(stored.call) is None
    assert spent([stored]) == named(result)


def test_a_routed_call_and_its_telemetry(plugged: Plugged, serve: Serve) -> None:
    """Claude Code prices what was routed by a name that it does not know; the gateway's record stays as it is."""
    gateway = serve(plugged.upstream)
    where = {"ANTHROPIC_BASE_URL": gateway.url}
    words = ["claude", "-p", "Summarise: a b c", "--model", "claude-tierwise-auto"]
    assert plugged.cli.run(words, **{**plugged.environment, **exporting(gateway.url, **where)}).status == 0
    assert all(source_of(stored.call) is None for stored in gateway.calls())
    assert len(gateway.calls()) == len(plugged.upstream.calls())


def test_the_plugin_records_the_session_too(installed: Plugged, receiver: str) -> None:
    """The hooks' reading of the transcript completes what telemetry told: one call each, with the time that it took."""
    installed.start_companion()
    result = installed.ask(f"Look at {WORD}", **exporting(receiver))
    found = installed.calls()
    assert len(found) == len(installed.upstream.calls())
    assert spent(found) == named(result)
    assert {source_of(stored.call) for stored in found} == {Source.TRANSCRIPT}
    assert all(stored.call.latency_ms for stored in calls(installed))


def test_run_by_tierwise_exec(plugged: Plugged, receiver: str) -> None:
    """What exec runs it records itself, from the CLI's report: what telemetry told of the session goes."""
    words = ["exec", "--", "claude", "-p", "Summarise in one line: a b c", "--output-format", "json"]
    said = plugged.cli.run([sys.executable, "-m", "tierwise", *words], **{**plugged.environment, **exporting(receiver)})
    assert said.status == 0, said
    found = calls(plugged)
    assert {source_of(stored.call) for stored in found} == {Source.EXEC}
    assert spent(found) == named(json.loads(said.out))
    plugged.ask("x", **exporting(receiver))
    assert {source_of(stored.call) for stored in calls(plugged)} == {Source.EXEC, Source.TELEMETRY}
