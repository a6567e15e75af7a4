"""Calls of any program in a plain form: one JSON object a line. The format: docs/how-to/importers.md.

Required are `time`, `model` and the tokens; all else has a meaning where it stands. The tokens stand in fields of their
own (Anthropic's meaning: fresh input apart from what the cache gave and took) or in `usage`, as Anthropic's or OpenAI's
API returned it. A call whose `id` comes again replaces the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tierwise.core.calls import CallKind, ImportedCall, Phase
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Conditions, Usage
from tierwise.importers.base import FoundSession, Importer, ImportRun
from tierwise.importers.records import (
    Record,
    files_below,
    flag,
    geography,
    json_records,
    moment_ms,
    nanousd,
    number,
    sessions_of,
    text,
    usage_of,
)
from tierwise.wire.anthropic import usage_from_message
from tierwise.wire.openai import anthropic_usage

__all__ = ["JsonLines", "build"]

NAME = "jsonl"
_TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
)
_COUNTS = (*_TOKENS, "web_searches")
_LONGEST_ASK = 100_000


class JsonLines:
    """The importer."""

    name = NAME

    def default_roots(self, environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
        """None: such files are wherever somebody wrote them."""
        return ()

    def sessions(self, roots: Iterable[Path], run: ImportRun) -> Iterator[FoundSession]:
        """The sessions of `.jsonl`, `.ndjson` and `.json` files; calls without a session stand alone."""
        calls: dict[str, ImportedCall] = {}
        for path in files_below(roots, (".jsonl", ".ndjson", ".json"), run.skipped):
            for record in json_records(path, run.skipped):
                call = _call(record, run)
                if call is not None:
                    calls[call.id] = call
        yield from sessions_of(calls, NAME, run)


def build() -> Importer:
    """The importer of this module."""
    return JsonLines()


def _call(record: Record, run: ImportRun) -> ImportedCall | None:
    fields = record.fields
    at_ms, model = moment_ms(fields.get("time")), text(fields.get("model"))
    usage = _usage(fields)
    why = (
        "has no time that can be"
        if at_ms is None
        else "has no model"
        if model is None
        else "has tokens that cannot be"
        if usage is None
        else None
    )
    if at_ms is None or model is None or usage is None:
        run.skipped.line(record.path, record.line, why or "cannot be used")
        return None
    for name in fields:
        if name.endswith("tokens") and name not in _TOKENS:
            run.skipped.usage_field(name)
    id = text(fields.get("id")) or f"{record.path}:{record.line}"
    tools = fields.get("tools")
    named = tuple(filter(None, map(text, tools))) if isinstance(tools, list) else ()
    kind = fields.get("kind")
    phase = fields.get("phase")
    ask = fields.get("ask")
    return ImportedCall(
        id=id,
        at_ms=at_ms,
        session=text(fields.get("session")) or id,
        agent=text(fields.get("agent")),
        agent_type=text(fields.get("agent_type")),
        kind=CallKind(kind) if kind in tuple(CallKind) else CallKind.MAIN,
        model=model,
        requested_model=text(fields.get("requested_model")),
        provider=text(fields.get("provider")) or "anthropic",
        usage=usage,
        conditions=Conditions(
            batch=flag(fields.get("batch")),
            inference_geo=geography(fields.get("inference_geo")),
            fast=flag(fields.get("fast")),
        ),
        project=text(fields.get("project")),
        effort=text(fields.get("effort")),
        stop_reason=text(fields.get("stop_reason")),
        failed=flag(fields.get("failed")),
        compacts=flag(fields.get("compacts")),
        phase=Phase(phase) if phase in tuple(Phase) else Phase.OTHER,
        tools=named,
        has_tools=bool(named) or flag(fields.get("has_tools")),
        has_images=flag(fields.get("has_images")),
        has_thinking=flag(fields.get("has_thinking")),
        in_tool_loop=flag(fields.get("in_tool_loop")),
        json_schema=flag(fields.get("json_schema")),
        ask=ask[:_LONGEST_ASK] if isinstance(ask, str) else "",
        cost_nanousd=nanousd(fields.get("cost_usd")),
    )


def _usage(fields: JsonObject) -> Usage | None:
    told: Json = fields.get("usage")
    if isinstance(told, dict):
        usage = usage_from_message({"usage": anthropic_usage(told) if "prompt_tokens" in told else told})
        return None if usage.estimated else usage
    if all(fields.get(name) is None for name in _COUNTS) and nanousd(fields.get("cost_usd")) is None:
        return None
    return usage_of({name: number(fields.get(name)) for name in _COUNTS})
