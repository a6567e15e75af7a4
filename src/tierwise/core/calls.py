"""Calls as they happened elsewhere: what an importer reads of another program's records, and what kinds there are.

An imported call holds the text of its ask only while a run lasts, so that it can be classified; nothing keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum

from tierwise.core.money import Conditions, Usage
from tierwise.core.tasks import Classification

__all__ = ["CallKind", "ImportedCall", "ImportedSession", "OwnCost", "Phase"]


class CallKind(StrEnum):
    """What a call is for, as far as its shape tells."""

    MAIN = "main"
    SUBAGENT = "subagent"
    COMPACTION = "compaction"  # the conversation so far is to be summarized
    TITLE = "title"  # of a session
    SAFETY = "safety"  # the client's own classifier of what its agent wants to do
    COUNT = "count"  # of tokens
    SIDE = "side"  # another short call beside the conversation

    @property
    def converses(self) -> bool:
        """Whether the call is part of a conversation: it stays on its model and warms the cache for the next."""
        return self in (CallKind.MAIN, CallKind.SUBAGENT, CallKind.COMPACTION)

    @property
    def may_move(self) -> bool:
        """Whether another model than the one asked for may ever answer. What judges safety is left alone."""
        return self is not CallKind.SAFETY


class Phase(StrEnum):
    """What an agent was about in a call, as far as the tools of that turn tell."""

    EXPLORING = "exploring"  # reads, searches
    EDITING = "editing"
    VERIFYING = "verifying"  # runs commands, tests
    REPORTING = "reporting"  # words, no tools
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCall:
    """One request to a model, once, whatever number of rows, files or resumed sessions repeat it.

    `usage` is the last that was told of it. A call that failed or was interrupted counts what it used.
    """

    id: str  # the upstream's request id; else the message's; else the importer's own
    at_ms: int  # Unix milliseconds: its price is that of this day (UTC)
    session: str
    agent: str | None = None  # a subagent's id; None: the main loop
    agent_type: str | None = None  # what kind of subagent, by its name
    kind: CallKind = CallKind.MAIN
    model: str  # that answered
    requested_model: str | None = None
    provider: str = "anthropic"
    usage: Usage
    conditions: Conditions = Conditions()
    project: str | None = None
    effort: str | None = None
    stop_reason: str | None = None
    failed: bool = False  # no answer, or one that was cut off
    compacts: bool = False  # the history was summarized just before: what is cached of it is of no use any more
    phase: Phase = Phase.OTHER
    tools: tuple[str, ...] = ()  # names of those that its answer called
    has_tools: bool = False
    has_images: bool = False
    has_thinking: bool = False
    in_tool_loop: bool = False  # it goes on with a turn: its last message is a tool's result
    json_schema: bool = False  # its answer had to satisfy one
    plan_mode: bool = False  # the client was only to plan (Claude Code's plan mode)
    ask: str = field(default="", repr=False)  # the last that a person (or a calling agent) asked; never stored
    classification: Classification | None = None
    cost_nanousd: int | None = None  # as told by the record itself, where it tells that and no tokens
    band_prompt_tokens: int | None = None  # what price bands go by, where the record sums up requests

    @property
    def is_sum(self) -> bool:
        """Whether it stands for requests that nobody can tell apart any more: spend, and nothing to replay."""
        return self.band_prompt_tokens is not None

    @property
    def day(self) -> date:
        """Its day (UTC), which dates its price."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC).date()


@dataclass(frozen=True, slots=True)
class OwnCost:
    """What the program itself says that a session cost."""

    total_usd: Decimal
    by_model: tuple[tuple[str, Decimal], ...] = ()
    has_unknown_model: bool = False  # it priced a model by guess


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedSession:
    """The calls of one session, in the order in which they were made, main loop and agents together."""

    id: str
    source: str  # the importer's name
    calls: tuple[ImportedCall, ...]
    own_cost: OwnCost | None = None  # of these alone: what a forked session took over from its parent is taken off
