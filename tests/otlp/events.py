"""Claude Code's events as 2.1.330 sends them, made in one line."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["NOW_MS", "SESSION", "body", "error", "event", "prompt", "request"]

NOW_MS = 1_795_853_219_321  # 2026-11-28
SESSION = "f2f4bb00-ba0c-4fc1-8290-014001c073be"


def event(name: str, at_ms: int = NOW_MS, **attributes: Any) -> dict[str, Any]:
    """A log record; an attribute that is None is left out."""
    told = {"session.id": SESSION, "event.name": name, "event.sequence": 5, "prompt.id": "p1", **attributes}
    return {
        "timeUnixNano": str(at_ms * 1_000_000),
        "body": {"stringValue": f"claude_code.{name}"},
        "attributes": [
            {"key": key.replace("__", "."), "value": _value(value)} for key, value in told.items() if value is not None
        ],
    }


def request(number: int = 1, **attributes: Any) -> dict[str, Any]:
    """A request that was answered, of $0.05 at the prices of that day."""
    told = {
        "model": "claude-opus-5-5",
        "input_tokens": 10_000,
        "output_tokens": 500,
        "cache_read_tokens": 0,
        "cache_creation_tokens": 0,
        "cache_creation_5m_tokens": 0,
        "cache_creation_1h_tokens": 0,
        "cost_usd": 0.05,
        "cost_usd_micros": 50_000,
        "duration_ms": 2_000,
        "ttft_ms": 300,
        "request_id": f"req_{number:04}",
        "speed": "normal",
        "query_source": "sdk",
        "effort": "medium",
        **attributes,
    }
    return event("api_request", **told)


def error(**attributes: Any) -> dict[str, Any]:
    """A request that was given up."""
    told = {"model": "claude-opus-5-5", "error": "no zanzibar", "status_code": 529, "duration_ms": 50, "attempt": 3}
    return event("api_error", **{**told, "request_id": "req_e", **attributes})


def prompt(text: str, **attributes: Any) -> dict[str, Any]:
    """What a person asked, where Claude Code was told to send that."""
    return event("user_prompt", prompt=text, prompt_length=str(len(text)), **attributes)


def body(*records: Any, **resource: Any) -> bytes:
    """A request that holds these records."""
    told = [{"key": key.replace("__", "."), "value": _value(value)} for key, value in resource.items()]
    logs = {"resource": {"attributes": told}, "scopeLogs": [{"scope": {"name": "x"}, "logRecords": list(records)}]}
    return json.dumps({"resourceLogs": [logs]}).encode()


def _value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": value}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": str(value)}
