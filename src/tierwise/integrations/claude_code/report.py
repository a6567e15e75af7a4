"""What `claude -p … --output-format json` says of a run: its answer, and the tokens of every model that it used.

`modelUsage` sums up all requests of a session, subagents and side calls included, by the name of the model. It says how
cache writes divide between five minutes and an hour; where a version does not, they are counted as the usual five
minutes and the usage is marked as an estimate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage
from tierwise.replay.pricing import canonical_id

__all__ = ["ModelUse", "RunReport", "Used"]


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What a run used of one model, all its requests together."""

    model: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Used:
    """What a run used of all its models."""

    models: tuple[ModelUse, ...]
    requests: int  # about how many that sums up; at least 1

    def of(self, model_id: str) -> Usage:
        """Of the model that was asked for."""
        return next((use.usage for use in self.models if use.model == canonical_id(model_id)), Usage())

    def beside(self, model_id: str) -> tuple[ModelUse, ...]:
        """Of other models: by subagents, for titles, as a fallback."""
        return tuple(use for use in self.models if use.model != canonical_id(model_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """One run, as the CLI itself reports it."""

    session: str
    text: str
    structured: Json  # what `--json-schema` asked for; None: nothing
    failed: bool
    kind: str  # `success`, `error_max_turns`, …
    api_status: int | None  # of the API's own error, if that is what it ended with
    ttft_ms: int | None
    used: Used

    @classmethod
    def read(cls, printed: bytes) -> Self | None:
        """The report; None where what was printed is none."""
        try:
            found = json.loads(printed.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
        if isinstance(found, list):  # with --verbose every message, the result last
            found = next(
                (one for one in reversed(found) if isinstance(one, dict) and one.get("type") == "result"), None
            )
        if not isinstance(found, dict) or found.get("type") != "result":
            return None
        return cls(
            session=_text(found, "session_id"),
            text=_text(found, "result"),
            structured=found.get("structured_output"),
            failed=found.get("is_error") is not False,
            kind=_text(found, "subtype"),
            api_status=_number(found, "api_error_status") or None,
            ttft_ms=_number(found, "ttft_ms") or None,
            used=Used(_uses(found), max(1, _number(found, "num_turns"))),
        )


def _uses(found: JsonObject) -> tuple[ModelUse, ...]:
    by_model = found.get("modelUsage")
    uses: dict[str, Usage] = {}
    for name, told in by_model.items() if isinstance(by_model, dict) else ():
        if not isinstance(told, dict):
            continue
        model, usage = canonical_id(name), _usage(told)
        uses[model] = uses[model] + usage if model in uses else usage
    return tuple(ModelUse(model, usage) for model, usage in uses.items())


def _usage(told: JsonObject) -> Usage:
    written = _number(told, "cacheCreationInputTokens")
    hour = min(written, _number(told, "cacheCreationEphemeral1hInputTokens"))
    split = "cacheCreationEphemeral1hInputTokens" in told or not written
    return Usage(
        input_tokens=_number(told, "inputTokens"),
        output_tokens=_number(told, "outputTokens"),
        cache_read_tokens=_number(told, "cacheReadInputTokens"),
        cache_write_5m_tokens=written - hour,
        cache_write_1h_tokens=hour,
        thinking_tokens=min(_number(told, "thinkingTokens"), _number(told, "outputTokens")),
        web_searches=_number(told, "webSearchRequests"),
        estimated=not split,
    )


def _text(found: JsonObject, name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _number(found: JsonObject, name: str) -> int:
    value = found.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15 else 0
