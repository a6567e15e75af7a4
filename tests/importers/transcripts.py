"""Rows as Claude Code writes them, for tests that say what is in them; and reading them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tierwise.core.calls import ImportedCall, ImportedSession
from tierwise.core.money import Usage
from tierwise.importers.base import ImportRun
from tierwise.importers.claude_code import ClaudeCode

SESSION = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
SONNET, OPUS = "claude-sonnet-5-5", "claude-opus-5-5"

Row = dict[str, Any]


def at(second: int) -> str:
    """A time as rows spell it."""
    return f"2026-11-02T09:{second // 60:02}:{second % 60:02}.000Z"


def usage(output: int = 20, fresh: int = 100, **more: Any) -> Row:
    """What a reply used."""
    return {"input_tokens": fresh, "output_tokens": output, "service_tier": "standard", **more}


def reply(number: int = 1, second: int = 1, used: Row | None = None, **row: Any) -> Row:
    """One content block of a reply. `message` overrides its fields, everything else the row's."""
    message = {
        "id": f"msg_{number:04}",
        "type": "message",
        "role": "assistant",
        "model": SONNET,
        "content": [{"type": "text", "text": "Done."}],
        "stop_reason": "end_turn",
        "usage": usage() if used is None else used,
        **row.pop("message", {}),
    }
    made = {
        "parentUuid": None,
        "isSidechain": False,
        "message": message,
        "requestId": f"req_{number:04}",
        "type": "assistant",
        "uuid": f"00000000-0000-4000-8000-{number:06}{second:06}",
        "timestamp": at(second),
        "cwd": "/home/dev/printer",
        "sessionId": SESSION,
        **row,
    }
    return {name: value for name, value in made.items() if value is not ...}


def calls_tool(name: str, **arguments: Any) -> Row:
    """The message of a reply that calls a tool."""
    return {
        "content": [{"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments}],
        "stop_reason": "tool_use",
    }


def human(content: str | list[Row], second: int = 0, **row: Any) -> Row:
    """What a person says, or what stands there like it."""
    return {
        "parentUuid": None,
        "isSidechain": False,
        "type": "user",
        "message": {"role": "user", "content": content},
        "timestamp": at(second),
        "sessionId": SESSION,
        **row,
    }


def tool_result(content: str = "ok", **row: Any) -> Row:
    """A tool's result, in the order in which the CLI writes its fields."""
    made = human([{"tool_use_id": "toolu_1", "type": "tool_result", "content": content}], **row)
    return {**made, "toolUseResult": {"type": "text", "file": {"content": content}}}


def cost_state(total: float, models: Mapping[str, float] | None = None, **row: Any) -> Row:
    """What the CLI counted."""
    used = {model: {"costUSD": cost} for model, cost in (models or {}).items()}
    return {"type": "cost-state", "sessionId": SESSION, "totalCostUSD": total, "modelUsage": used, **row}


def line(row: Row) -> bytes:
    """As the CLI writes a row."""
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def write(path: Path, rows: Iterable[Row | bytes]) -> Path:
    """A transcript; bytes are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(row if isinstance(row, bytes) else line(row) for row in rows))
    return path


def sessions(root: Path, run: ImportRun | None = None) -> list[ImportedSession]:
    """All sessions below a root, read."""
    found = list(ClaudeCode().sessions([root], run or ImportRun()))
    made = [session.read() for session in found]
    assert all(told.calls >= len(session.calls) for told, session in zip(found, made, strict=True))
    return made


def calls(root: Path, run: ImportRun | None = None) -> list[ImportedCall]:
    """All calls below a root."""
    return [call for session in sessions(root, run) for call in session.calls]


def total(found: Sequence[ImportedCall]) -> Usage:
    """What they used together."""
    return sum((call.usage for call in found), Usage())
