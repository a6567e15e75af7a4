"""Spend logs of a LiteLLM proxy: its table `LiteLLM_SpendLogs` as CSV, as JSON, or as `/spend/logs` returns it.

LiteLLM counts as OpenAI does: `prompt_tokens` include what came out of the prompt cache and what was written to it. How
much that was stands in `metadata.additional_usage_values` or `metadata.usage_object`, under Anthropic's names or
OpenAI's; both are taken out. Rows that tell of more cached tokens than prompt tokens left them out, and are taken at
that. A hit of LiteLLM's own response cache was never sent, and cost nothing.

Its `spend` counts only where no price is known for the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tierwise.core.calls import ImportedCall
from tierwise.core.json import JsonObject
from tierwise.core.money import Conditions, Usage
from tierwise.importers.base import FoundSession, Importer, ImportRun
from tierwise.importers.records import (
    MOST_TOKENS,
    Record,
    csv_records,
    files_below,
    flag,
    geography,
    inside,
    json_inside,
    json_records,
    moment_ms,
    nanousd,
    number,
    sessions_of,
    text,
    usage_of,
)

__all__ = ["LiteLlm", "build", "usage_told"]

NAME = "litellm"
_NEEDS = ("request_id", "startTime", "model", "prompt_tokens", "completion_tokens")
_LONGEST_ASK = 100_000


class LiteLlm:
    """The importer."""

    name = NAME

    def default_roots(self, environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
        """None: the logs are in the proxy's database, and somebody exports them."""
        return ()

    def sessions(self, roots: Iterable[Path], run: ImportRun) -> Iterator[FoundSession]:
        """By `session_id` where there is one; other calls stand alone. A request that comes again counts once."""
        calls: dict[str, ImportedCall] = {}
        for path in files_below(roots, (".csv", ".json", ".jsonl", ".ndjson"), run.skipped):
            records = (
                csv_records(path, run.skipped, needs=_NEEDS, what="a LiteLLM spend log")
                if path.suffix.lower() == ".csv"
                else json_records(path, run.skipped)
            )
            for record in records:
                call = _call(record, run)
                if call is not None:
                    calls[call.id] = call
        yield from sessions_of(calls, NAME, run)


def build() -> Importer:
    """The importer of this module."""
    return LiteLlm()


def _call(record: Record, run: ImportRun) -> ImportedCall | None:
    row = record.fields
    id, at_ms = text(row.get("request_id")), moment_ms(row.get("startTime"))
    model, provider = _model(row)
    metadata = json_inside(row.get("metadata"))
    metadata = metadata if isinstance(metadata, dict) else {}
    summed = "batch" in str(row.get("call_type"))  # one row for all requests of a batch
    usage = _usage(row, metadata, most=MOST_TOKENS * 1_000 if summed else MOST_TOKENS)
    missing = [
        name
        for name, value in (("request_id", id), ("startTime", at_ms), ("model", model), ("tokens", usage))
        if value is None
    ]
    if id is None or at_ms is None or model is None or usage is None:
        run.skipped.line(record.path, record.line, f"has no {', no '.join(missing)} that can be")
        return None
    spend = nanousd(row.get("spend"))
    from_cache = flag(row.get("cache_hit"))
    return ImportedCall(
        id=id,
        at_ms=at_ms,
        session=text(row.get("session_id")) or id,
        model=model,
        requested_model=text(row.get("model_group")),
        provider=provider,
        usage=Usage() if from_cache else usage,
        conditions=_conditions(metadata, batch=summed),
        project=text(row.get("team_id")) or text(metadata.get("user_api_key_alias")) or text(row.get("user")),
        failed=row.get("status") == "failure" or metadata.get("status") == "failure",
        band_prompt_tokens=0 if summed else None,
        ask=_ask(row),
        cost_nanousd=0 if from_cache else spend,
    )


def _model(row: JsonObject) -> tuple[str | None, str]:
    """The model's own name and who serves it; LiteLLM writes `provider/model` or the name alone."""
    model = text(row.get("model"))
    provider = text(row.get("custom_llm_provider"))
    if model is not None and "/" in model and (provider is None or model.startswith(f"{provider}/")):
        head, _, model = model.partition("/")
        provider = provider or head
    return model, provider or "anthropic"


def _conditions(metadata: JsonObject, *, batch: bool) -> Conditions:
    sources = _told(metadata)
    return Conditions(
        batch=batch or any(source.get("service_tier") == "batch" for source in sources),
        inference_geo=next((geo for source in sources if (geo := geography(source.get("inference_geo")))), None),
        fast=any(source.get("speed") == "fast" for source in sources),
    )


def _told(metadata: JsonObject) -> list[JsonObject]:
    """Where a row tells of usage beyond its columns."""
    return inside([metadata], "additional_usage_values", "usage_object")


def _usage(row: JsonObject, metadata: JsonObject, *, most: int) -> Usage | None:
    prompt, output = number(row.get("prompt_tokens"), most), number(row.get("completion_tokens"), most)
    sources = _told(metadata)
    prompts, servers = inside(sources, "prompt_tokens_details"), inside(sources, "server_tool_use")
    splits, outputs = inside(prompts, "cache_creation_token_details"), inside(sources, "completion_tokens_details")

    def first(*places: tuple[str, list[JsonObject]]) -> int | None:
        """The first count that is told in one of these places, 0 where none is; None: it cannot be one."""
        told = (source[key] for key, sources in places for source in sources if source.get(key) is not None)
        return number(next(told, 0), most)

    read = first(("cache_read_input_tokens", sources), ("cached_tokens", prompts))
    written = first(("cache_creation_input_tokens", sources), ("cache_creation_tokens", prompts))
    written_1h = first(("ephemeral_1h_input_tokens", splits))
    if prompt is None or output is None or read is None or written is None or written_1h is None:
        return None
    cached = read + written
    return usage_of(
        {
            "input_tokens": prompt - cached if cached <= prompt else prompt,
            "output_tokens": output,
            "cache_read_tokens": read,
            "cache_write_5m_tokens": max(0, written - written_1h),
            "cache_write_1h_tokens": min(written, written_1h),
            "thinking_tokens": first(("reasoning_tokens", outputs)),
            "web_searches": first(("web_search_requests", servers), ("web_search_requests", prompts)),
        }
    )


def usage_told(usage: JsonObject) -> Usage | None:
    """What one answer used, as LiteLLM tells it to its callbacks; None where that cannot be."""
    return _usage(usage, {"usage_object": usage}, most=MOST_TOKENS)


def _ask(row: JsonObject) -> str:
    """The last thing that a user said, where the proxy was told to keep prompts. Only to be classified."""
    request = json_inside(row.get("proxy_server_request"))
    for messages in (json_inside(row.get("messages")), request.get("messages") if isinstance(request, dict) else None):
        for message in reversed(messages) if isinstance(messages, list) else ():
            if isinstance(message, dict) and message.get("role") == "user" and (said := _said(message)):
                return said[:_LONGEST_ASK]
    return ""


def _said(message: JsonObject) -> str:
    content = message.get("content")
    blocks = content if isinstance(content, list) else [{"text": content}]
    texts = (block.get("text") for block in blocks if isinstance(block, dict))
    return "\n".join(text for text in texts if isinstance(text, str))
