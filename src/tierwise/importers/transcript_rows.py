"""What single rows of Claude Code's transcripts say: names that it writes down, and how fields are read.

Nothing here knows of other rows; that is `tierwise.importers.claude_code`, where the format is told. A field that is
missing or of another type counts as not there; one that cannot be true makes its row `Mistaken`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

from tierwise.core.calls import CallKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import amount
from tierwise.importers.base import Skipped
from tierwise.importers.drafts import DID_OTHER, EDITED, EXPLORED, SPOKE, VERIFIED, Spent

__all__ = [
    "ITERATIONS",
    "PASSED_OVER",
    "USAGE_FIELDS",
    "Mistaken",
    "asked_by",
    "done_by",
    "is_image",
    "object_of",
    "spent_of",
    "text_of",
    "time_ms",
    "usd",
]

_MOST_TOKENS = 10**9  # of one request: a thousand times the largest context there is. A row that says more is mistaken
_MOST_USD = 10**12

# Kinds of rows that are known and hold nothing of use here.
PASSED_OVER = frozenset(
    [
        "agent-color",
        "agent-name",
        "agent-setting",
        "ai-title",
        "api-request-blob",
        "api-request-resumed",
        "api-request-shape",
        "artifact-autoreact-ledger",
        "atis-latch",
        "attachment",
        "bridge-session",
        "content-replacement",
        "context-collapse",
        "continued-in",
        "custom-title",
        "ended-by-model",
        "file-history-delta",
        "file-history-snapshot",
        "frame-link",
        "history-suppression",
        "host-row",
        "hybrid-organization",
        "last-prompt",
        "marble-origami-commit",
        "marble-origami-snapshot",
        "mode",
        "permission-mode",
        "pr-link",
        "repl-mode",
        "resume-head-vouch",
        "speculation-accept",
        "summary",
        "tag",
        "task-summary",
        "tools-used",
        "worktree-state",
    ]
)
USAGE_FIELDS = frozenset(
    [
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cache_creation",
        "server_tool_use",
        "service_tier",
        "inference_geo",
        "speed",
        "iterations",
        "output_tokens_details",
    ]
)
_CACHE_FIELDS = frozenset(("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"))
_SERVER_TOOLS = frozenset(("web_search_requests", "web_fetch_requests"))  # a fetch costs nothing but its tokens
ITERATIONS = frozenset(("message", "fallback_message", "compaction", "advisor_message"))

_EXPLORING = frozenset(
    [
        "Read",
        "Grep",
        "Glob",
        "LS",
        "NotebookRead",
        "WebFetch",
        "WebSearch",
        "ToolSearch",
        "LSP",
        "ListMcpResourcesTool",
        "ReadMcpResourceTool",
    ]
)
_EDITING = frozenset(["Edit", "Write", "MultiEdit", "NotebookEdit", "ApplyPatch"])
_VERIFYING = frozenset(["Bash", "BashOutput", "PowerShell", "REPL", "KillShell", "KillBash", "Monitor", "TaskOutput"])
# Commands that only look; any other is taken to check or to run something.
_LOOKS = re.compile(
    r"\s*(?:cd\s+\S+\s*&&\s*)?(?:ls|cat|head|tail|less|rg|grep|egrep|find|fd|tree|wc|pwd|which|file|stat|du|jq|sed\s+-n|"
    r"git\s+(?:log|status|diff|show|blame|branch|grep|ls-files))\b"
)
_QUERY_KINDS = (  # of `api-request`: how its `querySource` begins
    ("compact", CallKind.COMPACTION),
    ("generate_session_title", CallKind.TITLE),
    ("rename_generate_name", CallKind.TITLE),
    ("auto_mode", CallKind.SAFETY),
    ("agent_classifier", CallKind.SAFETY),
    ("agent:", CallKind.SUBAGENT),
    ("hook_agent", CallKind.SUBAGENT),
    ("sdk", CallKind.MAIN),
    ("repl_main_thread", CallKind.MAIN),
)


def asked_by(source: str) -> CallKind:
    """What a request is for, from the `querySource` that it names."""
    return next((kind for begins, kind in _QUERY_KINDS if source.startswith(begins)), CallKind.SIDE)


class Mistaken(Exception):
    """A row that cannot be used."""


def text_of(row: JsonObject, name: str, most: int = 200) -> str:
    """A string field, cut at `most` characters; empty where it is none."""
    value = row.get(name)
    return value[:most] if isinstance(value, str) else ""


def object_of(row: JsonObject, name: str) -> JsonObject:
    """A field that is an object; an empty one where it is none."""
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def usd(value: Json) -> str | None:
    """An amount of money as the CLI writes it; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found: Decimal | None = amount(value)
    return None if found is None or found > _MOST_USD else str(found)


def is_image(block: Json) -> bool:
    """Whether a block of content is a picture or a document."""
    return isinstance(block, dict) and block.get("type") in ("image", "document")


def time_ms(value: Json) -> int | None:
    """Unix milliseconds of a time in ISO 8601; without a zone it is UTC."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        when = datetime.fromisoformat(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return int(when.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def count_of(usage: JsonObject, name: str) -> int:
    """A count of tokens; a number in a string counts too."""
    value = usage.get(name)
    if value is None or (type(value) is int and 0 <= value <= _MOST_TOKENS):
        return value or 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
        raise Mistaken(f"usage.{name} is no count of tokens")
    return value


def spent_of(usage: JsonObject, skipped: Skipped, like: Spent | None = None) -> Spent:
    """The tokens of a usage; conditions that `like` says hold for a part of its call.

    Raises:
        Mistaken: a count is none.
    """
    output = count_of(usage, "output_tokens")
    fresh = count_of(usage, "input_tokens")
    read = count_of(usage, "cache_read_input_tokens")
    written = count_of(usage, "cache_creation_input_tokens")
    split = object_of(usage, "cache_creation")
    write_1h, write_5m = count_of(split, "ephemeral_1h_input_tokens"), count_of(split, "ephemeral_5m_input_tokens")
    write_5m += max(0, written - write_1h - write_5m)  # what is not split was written for the usual five minutes
    for name, value in split.items():
        if name not in _CACHE_FIELDS and value:
            skipped.usage_field(f"cache_creation.{name}")
    tools = object_of(usage, "server_tool_use")
    for name, value in tools.items():
        if name not in _SERVER_TOOLS and value:
            skipped.usage_field(f"server_tool_use.{name}")
    searches = count_of(tools, "web_search_requests")
    geo = usage.get("inference_geo")
    return Spent(
        total=output + fresh + read + write_5m + write_1h + searches,
        cache_write_1h_tokens=write_1h,
        output_tokens=output,
        input_tokens=fresh,
        cache_read_tokens=read,
        cache_write_5m_tokens=write_5m,
        thinking_tokens=count_of(object_of(usage, "output_tokens_details"), "thinking_tokens"),
        web_searches=searches,
        batch=usage.get("service_tier") == "batch" if like is None else like.batch,
        fast=usage.get("speed") == "fast" if like is None else like.fast,
        inference_geo=(geo[:40] if isinstance(geo, str) and geo not in ("global", "not_available") else "")
        if like is None
        else like.inference_geo,
    )


def done_by(content: Json) -> tuple[int, tuple[str, ...], bool]:
    """What the blocks of a row do, the names of the tools that they call, and whether one of them thinks."""
    did, tools, thinks = 0, [], False
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        match block.get("type"):
            case "text":
                did |= SPOKE
            case "thinking" | "redacted_thinking":
                thinks = True
            case "tool_use" | "server_tool_use" | "mcp_tool_use":
                name = text_of(block, "name", 100)
                tools.append(name)
                did |= _doing(name, block)
    return did, tuple(dict.fromkeys(tools)), thinks


def _doing(name: str, block: JsonObject) -> int:
    if name in _EXPLORING or name in ("web_search", "web_fetch"):
        return EXPLORED
    if name in _EDITING:
        return EDITED
    if name in _VERIFYING:
        command = text_of(object_of(block, "input"), "command")
        return EXPLORED if _LOOKS.match(command) else VERIFIED
    return DID_OTHER
