"""Subagents climb: one that is asked for work that came to nothing before gets a model of the next tier up.

Theory of operation. Claude Code does not tell a hook how a subagent ended, where it failed. But it keeps a transcript
of each, with what it was called by. So what was given is remembered, by session, for a while; when the parent asks for
the same work again, the transcript of the one before says what became of that. Work is the same where the prompt is, or
where the description is and the one before went wrong: descriptions are a few words, and may be of something else.

One that still runs says nothing: the same prompt given to several at once is a vote, not a complaint. What only the
provider is to blame for (a rate limit, an overload, a refused key) no other model would do better.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import assert_never

from tierwise.core.catalog import Tier
from tierwise.core.decisions import Rung
from tierwise.core.json import JsonObject
from tierwise.integrations.claude_code.models import alias_of
from tierwise.integrations.claude_code.subagents import SubagentCall

__all__ = ["Climbing", "Ending", "Given", "ending_of"]

_SECONDS = 1800.0  # for which a call is remembered
_MOST_SESSIONS = 64
_MOST_CALLS = 64  # of a session
_MOST_AGENTS = 256  # of a session that are looked through, the latest first
_MOST_META_BYTES = 64 * 1024
_TAIL_BYTES = 256 * 1024
_INTERRUPTED = b"[Request interrupted by user"


class Ending(Enum):
    """How a subagent ended, as its transcript tells."""

    UNKNOWN = "unknown"  # it still runs, or nothing is told of it
    FINISHED = "finished"
    REFUSED = "was refused"
    CUT_OFF = "was cut off"
    FAILED = "failed"
    NOT_ITS_FAULT = "not its fault"  # the provider's: another model would not help


@dataclass(frozen=True, slots=True)
class Given:
    """The model that a subagent was given, and why it is not the one that its prompt alone would get."""

    alias: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Earlier:
    call: SubagentCall
    tier: Tier
    alias: str
    at: float


class Climbing:
    """What subagents were given lately. Not safe for threads: whoever has several locks it.

    Bounded, and in memory only: what is forgotten is decided by its prompt again.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, deque[_Earlier]] = OrderedDict()

    def give(self, call: SubagentCall, rungs: Sequence[Rung], now: float) -> Given:
        """The model for a call that may run on these, cheapest first: the first, or one above what came to nothing."""
        rung, why = rungs[0], ""
        alias, tier = alias_of(rung.model.id), rung.tier
        earlier = self._earlier(call, now)
        if earlier is not None and tier <= earlier.tier:  # else what is asked now goes up by itself
            again = _complaint(call, earlier)
            above = next((one for one in rungs if one.tier > earlier.tier), None)
            if again is not None and above is not None:
                alias, tier, why = alias_of(above.model.id), above.tier, f"{again} on {earlier.alias}"
            elif again is not None:
                alias, tier, why = earlier.alias, earlier.tier, f"{again} on {earlier.alias}, and none is above it"
            elif tier < earlier.tier and _same(call.prompt, earlier.call.prompt):
                alias, tier, why = earlier.alias, earlier.tier, "as the one before for the same work"
        self._remember(_Earlier(call, tier, alias, now))
        return Given(alias, why)

    def _earlier(self, call: SubagentCall, now: float) -> _Earlier | None:
        """The latest call for the same work."""
        known = self._sessions.get(call.session, ())
        alike = [one for one in known if now - one.at <= _SECONDS and _is_alike(one.call, call)]
        return alike[-1] if alike else None

    def _remember(self, given: _Earlier) -> None:
        calls = self._sessions.setdefault(given.call.session, deque(maxlen=_MOST_CALLS))
        calls.append(given)
        self._sessions.move_to_end(given.call.session)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)


def _is_alike(one: SubagentCall, other: SubagentCall) -> bool:
    if one.agent != other.agent:
        return False
    return _same(one.prompt, other.prompt) or bool(one.description and _same(one.description, other.description))


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()


def _complaint(call: SubagentCall, earlier: _Earlier) -> str | None:
    """Why the one before was not enough; None where it may have been."""
    ending = Ending.UNKNOWN if call.transcript is None else ending_of(call.transcript, earlier.call.id)
    match ending:
        case Ending.REFUSED | Ending.CUT_OFF | Ending.FAILED:
            return f"the one before {ending.value}"
        case Ending.FINISHED if _same(call.prompt, earlier.call.prompt):
            return "the same was asked again, after it was done"
        case Ending.UNKNOWN | Ending.FINISHED | Ending.NOT_ITS_FAULT:
            return None
        case _:
            assert_never(ending)


def ending_of(transcript: Path, tool_call: str) -> Ending:
    """How the subagent ended that this call of the tool began, in the session of this transcript."""
    if not tool_call:
        return Ending.UNKNOWN
    folder = transcript.with_suffix("") / "subagents"
    try:
        with os.scandir(folder) as entries:
            found = [(entry.stat().st_mtime, entry.path) for entry in entries if entry.name.endswith(".meta.json")]
    except OSError:
        return Ending.UNKNOWN
    for _, path in sorted(found, reverse=True)[:_MOST_AGENTS]:
        told = _told(path)
        if told.get("toolUseId") == tool_call:
            return _of(Path(path.removesuffix(".meta.json") + ".jsonl"), finished=told.get("finished") is True)
    return Ending.UNKNOWN


def _told(path: str) -> JsonObject:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  one of many, and somebody waits
            told = json.loads(file.read(_MOST_META_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _of(transcript: Path, *, finished: bool) -> Ending:
    """How it ended by the last thing that its model said, or that Claude Code said in its place."""
    try:
        with transcript.open("rb") as file:
            start = max(0, file.seek(0, 2) - _TAIL_BYTES)
            file.seek(start)
            lines = file.read().splitlines()[1 if start else 0 :]
    except OSError:
        return Ending.UNKNOWN
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # it is being written
        match row:
            case {"type": "assistant", "message": {"stop_reason": "refusal"}}:
                return Ending.REFUSED
            case {"type": "assistant", "isApiErrorMessage": True}:
                return _of_error(row)
            case {"type": "assistant", "message": {"stop_reason": "max_tokens" | "model_context_window_exceeded"}}:
                return Ending.CUT_OFF if finished else Ending.UNKNOWN
            case {"type": "assistant"}:
                return Ending.FINISHED if finished else Ending.UNKNOWN
            case {"type": "user"} if _INTERRUPTED in line:
                return Ending.UNKNOWN  # a person broke in, for reasons of their own
            case _:
                pass
    return Ending.UNKNOWN


_PROVIDERS = ("rate_limit", "overloaded", "authentication_failed", "billing_error", "server_error")
_TOO_LONG = ("max_output_tokens", "prompt_too_long")


def _of_error(row: JsonObject) -> Ending:
    status, name = row.get("apiErrorStatus"), row.get("error")
    if name in _PROVIDERS or (isinstance(status, int) and (status >= 500 or status in (401, 402, 403, 408, 429))):
        return Ending.NOT_ITS_FAULT
    return Ending.CUT_OFF if name in _TOO_LONG else Ending.FAILED
