"""The ledger's rows for other programs: JSON lines, or CSV that a spreadsheet opens without running anything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from tierwise.core.decisions import AttemptRecord, CallRecord
from tierwise.core.money import format_usd, nanousd_to_usd
from tierwise.ledger import Filter, Ledger, StoredCall

__all__ = ["csv_text", "export_rows"]

Cell = str | int | float | bool | None
# A spreadsheet takes a text that begins so for a formula, and formulas can run commands and send data away.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def _usd(nanousd: int | None) -> str | None:
    return None if nanousd is None else format_usd(nanousd_to_usd(nanousd)).replace("$", "").replace(",", "")


# The columns of both kinds of rows, in order: how each is read.
_CALL: Mapping[str, Callable[[StoredCall], Cell]] = {
    "call_id": lambda s: s.call.call_id,
    "started_at_ms": lambda s: s.call.started_at_ms,
    "status": lambda s: s.call.status.value,
    "task_type": lambda s: s.call.task_type,
    "family": lambda s: s.call.family,
    "needs": lambda s: s.call.needs,
    "confidence": lambda s: s.call.confidence,
    "abstained": lambda s: s.call.abstained,
    "tier": lambda s: s.call.tier,
    "model": lambda s: s.call.model,
    "planned_tier": lambda s: s.call.planned_tier,
    "baseline_model": lambda s: s.call.baseline_model,
    "baseline_cost_usd": lambda s: _usd(s.call.baseline_nanousd),
    "latency_ms": lambda s: s.call.latency_ms,
    "session": lambda s: s.call.session,
    "project": lambda s: s.call.project,
    "key_id": lambda s: s.call.key_id,
    "tags": lambda s: json.dumps(dict(s.call.tags)),
    "reasons": lambda s: "; ".join(reason.text for reason in s.call.reasons),
    "error": lambda s: s.call.error,
    "attempts": lambda s: len(s.attempts),
    "feedback": lambda s: s.feedback.verdict.value if s.feedback and s.feedback.verdict else None,
    "feedback_type": lambda s: s.feedback.task_type if s.feedback else None,
    "batch_id": lambda s: s.call.batch_id,
    "custom_id": lambda s: s.call.custom_id,
}
_ATTEMPT: Mapping[str, Callable[[CallRecord, AttemptRecord], Cell]] = {
    "call_id": lambda _, a: a.call_id,
    "number": lambda _, a: a.number,
    "started_at_ms": lambda _, a: a.started_at_ms,
    "task_type": lambda c, _: c.task_type,
    "project": lambda c, _: c.project,
    "session": lambda c, _: c.session,
    "call_status": lambda c, _: c.status.value,
    "tier": lambda _, a: a.tier,
    "model": lambda _, a: a.model,
    "provider": lambda _, a: a.provider,
    "outcome": lambda _, a: a.outcome.value,
    "detail": lambda _, a: a.detail,
    "input_tokens": lambda _, a: a.usage.input_tokens,
    "output_tokens": lambda _, a: a.usage.output_tokens,
    "cache_read_tokens": lambda _, a: a.usage.cache_read_tokens,
    "cache_write_5m_tokens": lambda _, a: a.usage.cache_write_5m_tokens,
    "cache_write_1h_tokens": lambda _, a: a.usage.cache_write_1h_tokens,
    "thinking_tokens": lambda _, a: a.usage.thinking_tokens,
    "web_searches": lambda _, a: a.usage.web_searches,
    "estimated": lambda _, a: a.usage.estimated,
    "cost_usd": lambda _, a: _usd(a.cost_nanousd),
    "price_source": lambda _, a: a.price.source if a.price else None,
    "latency_ms": lambda _, a: a.latency_ms,
    "ttft_ms": lambda _, a: a.ttft_ms,
    "wait_ms": lambda _, a: a.wait_ms,
    "request_id": lambda _, a: a.request_id,
    "reported_model": lambda _, a: a.reported_model,
}
_EVERYTHING = Filter()
_NUMERIC = frozenset({"baseline_cost_usd", "cost_usd"})  # texts, for exactness, and safe


def _csv_cell(name: str, value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if not isinstance(value, str) or name in _NUMERIC else csv_text(value)


def csv_text(value: str) -> str:
    """A text for a cell: one that a spreadsheet would take for a formula gets an apostrophe in front."""
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
            yield {name: read(stored) for name, read in _CALL.items()}
        else:
            for attempt in stored.attempts:
                yield {name: read(stored.call, attempt) for name, read in _ATTEMPT.items()}


def _lines(ledger: Ledger, fmt: str, what: str, where: Filter) -> Iterator[str]:
    if fmt == "jsonl":
        for row in _rows(ledger, what, where):
            yield json.dumps(row) + "\n"
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_CALL if what == "calls" else _ATTEMPT)
    yield buffer.getvalue()
    for row in _rows(ledger, what, where):
        buffer.seek(0)
        buffer.truncate()
        writer.writerow([_csv_cell(name, value) for name, value in row.items()])
        yield buffer.getvalue()
