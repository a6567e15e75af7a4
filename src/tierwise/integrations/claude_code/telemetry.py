"""Where Claude Code sends its telemetry, as its environment and this user's settings tell; or why it does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from tierwise.core.json import Json

__all__ = ["telemetry"]

_PROTOCOLS = ("http/protobuf", "http/json")


def telemetry(settings: str, environment: Mapping[str, str]) -> str | None:
    """In words; None: it is off.

    Args:
        settings: the text of Claude Code's settings, whose `env` goes before the environment.
    """
    told = {**environment, **_env(settings)}

    def of(name: str) -> str:
        return told.get(f"OTEL_EXPORTER_OTLP_LOGS_{name}") or told.get(f"OTEL_EXPORTER_OTLP_{name}") or ""

    if told.get("CLAUDE_CODE_ENABLE_TELEMETRY", "").lower() not in ("1", "true", "yes", "on"):
        return None
    if "otlp" not in told.get("OTEL_LOGS_EXPORTER", "").split(","):
        return "on, but requests are not sent: set OTEL_LOGS_EXPORTER to otlp"
    if of("PROTOCOL") not in _PROTOCOLS:
        return "on, but not as tierwise takes it: set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf or http/json"
    try:
        where = urlsplit(of("ENDPOINT"))
        host, port = where.hostname, where.port
    except ValueError:
        host = port = None
    if not host:
        return "on, but it is not said where to: set OTEL_EXPORTER_OTLP_ENDPOINT"
    return f"sent to {where.scheme}://{host}{'' if port is None else f':{port}'} ({of('PROTOCOL')})"


def _env(settings: str) -> dict[str, str]:
    try:
        found: Json = json.loads(settings)
    except (ValueError, RecursionError):
        return {}
    env = found.get("env") if isinstance(found, dict) else None
    return {name: value for name, value in env.items() if isinstance(value, str)} if isinstance(env, dict) else {}
