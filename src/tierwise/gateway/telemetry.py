"""What a call tells the outside beside its answer: a line in the log, and a span where traces are collected.

Both hold what the ledger holds: names, counts, money, times. No prompt, no reply, no key. Spans follow OpenTelemetry's
conventions for generative AI (`gen_ai.*`), with ours beside them (`tierwise.*`), and continue the client's trace where
it sends `traceparent`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus
from tierwise.core.money import nanousd_to_usd

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["CallTelemetry", "JsonLines", "otlp_tracer", "set_up_logging"]

_log = logging.getLogger("tierwise.calls")


class JsonLines(logging.Formatter):
    """Log records as JSON, one a line: time, level, logger, message, and what a call told as fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "call", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logging(level: str, form: str) -> None:
    """Sends the log to stderr: `form` is text or json."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])


class CallTelemetry:
    """Logs calls that have ended, and makes spans of them.

    Args:
        tracer: OpenTelemetry's; None makes no spans.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

    def ended(
        self, call: CallRecord, attempts: list[AttemptRecord], *, requested: str, headers: Mapping[str, str]
    ) -> None:
        """A call is over.

        Args:
            requested: the model's name as the client gave it.
            headers: the client's, in lower case; only `traceparent` and `tracestate` are looked at.
        """
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "%s %s %s %s",
                call.call_id,
                call.status.value,
                call.model,
                call.task_type,
                extra={"call": _fields(call, attempts)},
            )
        if self._tracer is not None:
            self._span(self._tracer, call, attempts, requested, headers)

    def _span(
        self,
        tracer: Tracer,
        call: CallRecord,
        attempts: list[AttemptRecord],
        requested: str,
        headers: Mapping[str, str],
    ) -> None:
        from opentelemetry.propagate import extract  # noqa: PLC0415  an extra
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415

        began = call.started_at_ms * 1_000_000
        span = tracer.start_span(
            f"chat {requested}",
            context=extract({name: headers[name] for name in ("traceparent", "tracestate") if name in headers}),
            kind=SpanKind.SERVER,
            start_time=began,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": requested,
                "gen_ai.response.model": call.model,
                **{f"tierwise.{name}": value for name, value in _fields(call, attempts).items() if value is not None},
            },
        )
        if call.status is not CallStatus.ANSWERED:
            span.set_status(Status(StatusCode.ERROR, call.status.value))
        for attempt in attempts:
            usage = attempt.usage
            inner = tracer.start_span(
                f"chat {attempt.model}",
                context=set_span_in_context(span),
                kind=SpanKind.CLIENT,
                start_time=attempt.started_at_ms * 1_000_000,
                attributes={
                    "gen_ai.operation.name": "chat",
                    "gen_ai.provider.name": attempt.provider,
                    "gen_ai.request.model": attempt.model,
                    "gen_ai.response.model": attempt.reported_model or attempt.model,
                    "gen_ai.usage.input_tokens": usage.prompt_tokens,
                    "gen_ai.usage.output_tokens": usage.output_tokens,
                    "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
                    "gen_ai.usage.cache_creation.input_tokens": (
                        usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
                    ),
                    "tierwise.tier": attempt.tier,
                    "tierwise.outcome": attempt.outcome.value,
                },
            )
            inner.end(end_time=(attempt.started_at_ms + (attempt.latency_ms or 0)) * 1_000_000)
        span.end(end_time=began + (call.latency_ms or 0) * 1_000_000)


def _fields(call: CallRecord, attempts: list[AttemptRecord]) -> dict[str, str | int | float | None]:
    costs = [attempt.cost_nanousd for attempt in attempts]
    known = [cost for cost in costs if cost is not None]
    return {
        "call_id": call.call_id,
        "status": call.status.value,
        "task_type": call.task_type,
        "tier": call.tier,
        "model": call.model,
        "attempts": len(attempts),
        "cost_usd": float(nanousd_to_usd(sum(known))) if len(known) == len(costs) else None,
        "latency_ms": call.latency_ms,
        "project": call.project,
    }


def otlp_tracer() -> Tracer:
    """A tracer that exports by OTLP over HTTP, configured by OpenTelemetry's own variables (`OTEL_…`).

    Raises:
        ImportError: the packages of the extra `otel` are missing.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": "tierwise"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("tierwise.gateway")
