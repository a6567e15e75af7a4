"""Which model a subagent gets: tierwise's decision on its prompt, unless somebody else has decided.

What stands stays: a model in the call, in the agent's own file, an agent of a plugin, one that Claude Code gives a
model or shares a cache with (`Explore`, `fork`, …), and sessions that the gateway routes, request by request, itself.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tierwise.core.decisions import Rung
from tierwise.core.errors import TierwiseError
from tierwise.core.json import JsonObject
from tierwise.engine.router import AsyncRouter
from tierwise.integrations.claude_code.models import claude_rungs

__all__ = ["SubagentCall", "answer", "decide"]

# Built in, and on the session's model if nothing is said; observed in 2.1.330.
_INHERIT = frozenset({"", "general-purpose", "claude", "Plan"})
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}\Z")
_MODEL = re.compile(r"^model[ \t]*:[ \t]*([^\s#]*)", re.MULTILINE)
_TAIL_BYTES = 256 * 1024
_MOST_BYTES = 64 * 1024  # of an agent's file


@dataclass(frozen=True, slots=True)
class SubagentCall:
    """A call of the tool `Agent` that is about to be made."""

    session: str
    id: str  # of the tool's call
    prompt: str
    description: str  # in a few words, for people
    agent: str  # what kind of subagent
    has_model: bool
    cwd: Path
    transcript: Path | None
    given: JsonObject  # the tool's whole input
    asked_model: str = ""  # by the environment, for the session

    @classmethod
    def read(cls, payload: JsonObject, asked_model: str = "") -> SubagentCall | None:
        """Out of what a hook is told; None where it is no such call."""
        given = payload.get("tool_input")
        if payload.get("tool_name") not in ("Agent", "Task") or not isinstance(given, dict):
            return None
        prompt = given.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            return None
        transcript = _text(payload, "transcript_path")
        return cls(
            session=_text(payload, "session_id"),
            id=_text(payload, "tool_use_id"),
            prompt=prompt,
            description=_text(given, "description"),
            agent=_text(given, "subagent_type"),
            has_model=bool(given.get("model")),
            cwd=Path(_text(payload, "cwd") or "."),
            transcript=Path(transcript) if transcript else None,
            given=given,
            asked_model=asked_model,
        )


def decide(call: SubagentCall, router: AsyncRouter, config: Path) -> tuple[Rung, ...] | None:
    """The models that it may run on, the one that fits first; None where it is to be left alone."""
    if call.has_model or not _inherits(call, config) or _is_routed(call, router):
        return None
    try:
        return claude_rungs(router.route(call.prompt, has_tools=True), router.settings.providers)
    except TierwiseError:
        return None  # nothing can be said of it: it runs as it would have


def answer(call: SubagentCall, alias: str, why: str = "") -> bytes:
    """What the hook prints: the same input, with the model; and a word to the person where it is not the usual one."""
    changed = {**call.given, "model": alias}
    said: JsonObject = {"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": changed}}
    if why:
        said["systemMessage"] = f"tierwise: this subagent runs on {alias}: {why}"
    return json.dumps(said).encode("ascii")


def _inherits(call: SubagentCall, config: Path) -> bool:
    if call.agent in _INHERIT:
        return True
    if _NAME.match(call.agent) is None:
        return False
    for folder in (call.cwd / ".claude" / "agents", config / "agents"):
        head = _head(folder / f"{call.agent}.md")
        if head is not None:
            model = _MODEL.search(head)
            return model is None or model[1].strip("\"'") in ("", "inherit")
    return False


def _head(path: Path) -> str | None:
    """What stands between the dashes at the top of an agent's file."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return None
    parts = text.split("---", 2)
    return parts[1] if len(parts) == 3 and not parts[0].strip() else ""


def _is_routed(call: SubagentCall, router: AsyncRouter) -> bool:
    """Whether the session's latest requests went out under a name that the gateway routes."""
    known = {model.id for model in router.settings.catalog.models}
    names = [name for name in router.settings.gateway.routed_models if name not in known]
    if call.asked_model in names:
        return True
    if call.transcript is None:
        return False
    try:
        with call.transcript.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            tail = file.read()
    except OSError:
        return False
    return any(f'"requestedModel":"{name}"'.encode() in tail for name in names)


def _text(found: JsonObject, name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""
