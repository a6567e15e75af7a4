"""The ledger's rows for other programs: JSON lines, or CSV that a spreadsheet opens without running anything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Literal

from tierwise.core.decisions import AttemptRecord
from tierwise.core.money import format_usd, nanousd_to_usd
from tierwise.ledger import Filter, Ledger, StoredCall

__all__ = ["export_rows"]

Cell = str | int | float | bool | None
# A spreadsheet takes a text that begins so for a formula, and formulas can run commands and send data away.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def _usd(nanousd: int | None) -> str | None:
    return None if nanousd is None else format_usd(nanousd_to_usd(nanousd)).replace("$", "").replace(",", "")


def _call(stored: StoredCall) -> dict[str, Cell]:
    call = stored.call
    return {
        "call_id": call.call_id,
        "started_at_ms": call.started_at_ms,
        "status": call.status.value,
        "task_type": call.task_type,
        "family": call.family,
        "needs": call.needs,
        "confidence": call.confidence,
        "abstained": call.abstained,
        "tier": call.tier,
        "model": call.model,
        "planned_tier": call.planned_tier,
        "baseline_model": call.baseline_model,
        "baseline_cost_usd": _usd(call.baseline_nanousd),
        "latency_ms": call.latency_ms,
        "session": call.session,
        "project": call.project,
        "tags": json.dumps(dict(call.tags)),
        "reasons": "; ".join(reason.text for reason in call.reasons),
        "error": call.error,
        "attempts": len(stored.attempts),
    }


def _attempt(stored: StoredCall, attempt: AttemptRecord) -> dict[str, Cell]:
    call, usage = stored.call, attempt.usage
    return {
        "call_id": attempt.call_id,
        "number": attempt.number,
        "started_at_ms": attempt.started_at_ms,
        "task_type": call.task_type,
        "project": call.project,
        "session": call.session,
        "call_status": call.status.value,
        "tier": attempt.tier,
        "model": attempt.model,
        "provider": attempt.provider,
        "outcome": attempt.outcome.value,
        "detail": attempt.detail,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_5m_tokens": usage.cache_write_5m_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "thinking_tokens": usage.thinking_tokens,
        "web_searches": usage.web_searches,
        "estimated": usage.estimated,
        "cost_usd": _usd(attempt.cost_nanousd),
        "price_source": attempt.price.source if attempt.price else None,
        "latency_ms": attempt.latency_ms,
        "ttft_ms": attempt.ttft_ms,
        "wait_ms": attempt.wait_ms,
        "request_id": attempt.request_id,
        "reported_model": attempt.reported_model,
    }


_CALL_NAMES = (
    "call_id",
    "started_at_ms",
    "status",
    "task_type",
    "family",
    "needs",
    "confidence",
    "abstained",
    "tier",
    "model",
    "planned_tier",
    "baseline_model",
    "baseline_cost_usd",
    "latency_ms",
    "session",
    "project",
    "tags",
    "reasons",
    "error",
    "attempts",
)
_ATTEMPT_NAMES = (
    "call_id",
    "number",
    "started_at_ms",
    "task_type",
    "project",
    "session",
    "call_status",
    "tier",
    "model",
    "provider",
    "outcome",
    "detail",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
    "web_searches",
    "estimated",
    "cost_usd",
    "price_source",
    "latency_ms",
    "ttft_ms",
    "wait_ms",
    "request_id",
    "reported_model",
)
_EVERYTHING = Filter()
_NUMERIC = frozenset({"baseline_cost_usd", "cost_usd"})  # texts, for exactness, and safe


def _csv_cell(name: str, value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str) or name in _NUMERIC:
        return str(value)
    text = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def export_rows(
    ledger: Ledger,
    fmt: Literal["jsonl", "csv"] = "jsonl",
    *,
    what: Literal["attempts", "calls"] = "attempts",
    where: Filter = _EVERYTHING,
) -> Iterator[str]:
    """Lines with their ends, oldest call first, read from the ledger as they are asked for.

    Costs are decimal texts in US$, None (empty in CSV) where no price is known. CSV begins with a line of names; a
    text cell that a spreadsheet would take for a formula gets an apostrophe in front.

    Raises:
        LedgerError: the ledger cannot be read.
        ValueError: an unknown `fmt` or `what`.
    """
    if fmt not in {"jsonl", "csv"}:
        raise ValueError(f"unknown format {fmt!r}; use jsonl or csv")
    if what not in {"attempts", "calls"}:
        raise ValueError(f"unknown rows {what!r}; use attempts or calls")
    return _lines(ledger, fmt, what, where)


def _rows(ledger: Ledger, what: str, where: Filter) -> Iterator[dict[str, Cell]]:
    for stored in ledger.calls(where):
        if what == "calls":
            yield _call(stored)
        else:
            for attempt in stored.attempts:
                yield _attempt(stored, attempt)


def _lines(ledger: Ledger, fmt: str, what: str, where: Filter) -> Iterator[str]:
    if fmt == "jsonl":
        for row in _rows(ledger, what, where):
            yield json.dumps(row) + "\n"
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_CALL_NAMES if what == "calls" else _ATTEMPT_NAMES)
    yield buffer.getvalue()
    for row in _rows(ledger, what, where):
        buffer.seek(0)
        buffer.truncate()
        writer.writerow([_csv_cell(name, value) for name, value in row.items()])
        yield buffer.getvalue()
