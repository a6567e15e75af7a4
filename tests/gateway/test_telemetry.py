"""What calls tell the outside: log lines and spans, without a word of what was said."""

from __future__ import annotations

import json
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.gateway.conftest import Serve
from tierwise.gateway.telemetry import CallTelemetry, JsonLines
from tierwise.testing import Fault, StandInUpstream

BODY = json.dumps(
    {
        "model": "claude-tierwise-auto",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Summarise this ticket in one line: zanzibarine burns"}],
    }
)


def test_a_call_is_a_span_with_one_for_each_attempt(serve: Serve, upstream: StandInUpstream) -> None:
    """By the conventions for generative AI, continuing the client's trace."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    gateway = serve(upstream, "[limits]\nbackoff_base_seconds = 0.01")
    gateway.gateway.telemetry = CallTelemetry(provider.get_tracer("test"))
    upstream.fail(Fault.status(529))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    gateway.post(BODY, traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    failed, answered, call = kept.get_finished_spans()
    assert call.context is not None
    assert f"{call.context.trace_id:032x}" == trace
    assert call.attributes is not None
    assert answered.attributes is not None
    assert call.attributes["gen_ai.request.model"] == "claude-tierwise-auto"
    assert call.attributes["gen_ai.response.model"] == "claude-haiku-5-5"
    assert call.attributes["tierwise.attempts"] == 2
    assert (failed.attributes or {})["tierwise.outcome"] == "overloaded"
    found = gateway.call().attempts[1]
    assert answered.attributes["gen_ai.usage.output_tokens"] == found.usage.output_tokens
    assert "zanzibarine" not in "".join(span.to_json() for span in kept.get_finished_spans())


def test_a_call_is_a_line_of_json(serve: Serve, upstream: StandInUpstream, caplog: pytest.LogCaptureFixture) -> None:
    """Fields that a log collector reads; no text of the call."""
    gateway = serve(upstream)
    with caplog.at_level(logging.INFO, "tierwise.calls"):
        gateway.post(BODY)
    (record,) = [record for record in caplog.records if record.name == "tierwise.calls"]
    line = JsonLines().format(record)
    told = json.loads(line)
    assert (told["status"], told["model"], told["task_type"]) == ("answered", "claude-haiku-5-5", "summarization")
    assert told["cost_usd"] > 0
    assert "zanzibarine" not in line
    assert "\n" not in line
