"""What `tierwise analyze` finds, as values, and as versioned JSON.

A field's name is its key in JSON (a trailing underscore aside, which Python's own words need), and what it is annotated
with is its line in docs/reference/analysis-json.md. That page and the JSON Schema beside it are made from these
classes, so that neither can say anything else. Money is `Decimal` US$ here; it was added up in whole nano-dollars.

No field holds text of a prompt, a reply or a tool's argument. Names of projects, models and agents are in it.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, is_dataclass
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Annotated

__all__ = [
    "SCHEMA_VERSION",
    "AgentRow",
    "Change",
    "Compared",
    "Contribution",
    "Counterfactual",
    "DayRow",
    "Difference",
    "Findings",
    "KindRow",
    "LeverRow",
    "ModelRow",
    "Period",
    "PhaseRow",
    "ProjectRow",
    "Range",
    "Reconciled",
    "SessionRow",
    "Skipped",
    "SkippedRow",
    "Source",
    "Spent",
    "TokenClass",
    "TokenClassRow",
    "TypeRow",
    "UnknownKind",
    "WayRow",
    "as_json",
    "classes",
    "json_schema",
    "keys_of",
]

SCHEMA_VERSION = 1


class TokenClass(StrEnum):
    """What of a call is charged at a rate of its own."""

    INPUT = "input"
    OUTPUT = "output"
    CACHE_READ = "cache_read"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_1H = "cache_write_1h"
    WEB_SEARCH = "web_search"
    TOLD = "told"  # a sum that the record tells, and no tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """The sums of a row."""

    calls: Annotated[int, "requests to a model, each once; those with an unknown price included"]
    unpriced_calls: Annotated[int, "of which no price is known: in no amount"]
    actual_usd: Annotated[Decimal, "what they cost, at the prices of their day"]
    routed_usd: Annotated[Decimal, "what they are expected to cost under the policy"]
    input_tokens: Annotated[int, "fresh input, cache not included"]
    output_tokens: Annotated[int, "thinking included"]
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow(Spent):
    """Of one model, the dearest first."""

    model: Annotated[str, "the model that answered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRow(Spent):
    """Of one task type, the dearest first."""

    task_type: Annotated[str, "`unknown` where there was no ask to classify"]
    family: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRow(Spent):
    """Of one project, the dearest first."""

    project: Annotated[str, "as its program names it: for Claude Code the working directory; empty where unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRow(Spent):
    """Of one day (UTC), in order; days without calls are left out."""

    day: Annotated[str, "YYYY-MM-DD"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRow(Spent):
    """Of the main loop, or of one kind of subagent."""

    agent: Annotated[str, "`main`, or the subagent's kind by name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRow(Spent):
    """Of one kind of calls."""

    kind: Annotated[str, "`main`, `subagent`, `compaction`, `title`, `safety`, `count` or `side`"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRow(Spent):
    """Of one phase of an agent's work."""

    phase: Annotated[str, "`exploring`, `editing`, `verifying`, `reporting` or `other`"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow(Spent):
    """Of one session, the dearest first; at most a hundred."""

    session: Annotated[str, "its id"]
    project: Annotated[str, "that of most of its money"]
    first: Annotated[str, "when its first call was made (UTC)"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClassRow:
    """Of one class of tokens."""

    token_class: Annotated[
        str, "one of those that a price list tells apart, or `told`: a sum on record, without tokens"
    ]
    actual_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """The first and the last call that were counted; both null where there are none."""

    from_: Annotated[str | None, "UTC, to the second"]
    to: Annotated[str | None, "UTC, to the second"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A session in which the program's own figure is another."""

    session: Annotated[str, "its id"]
    claude_code_usd: Annotated[Decimal, "its own figure"]
    ours_usd: Annotated[Decimal, "the sum of the calls in its transcript"]
    not_in_transcript_usd: Annotated[Decimal, "the former less the latter; negative where the transcript holds more"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """Sessions in which Claude Code wrote a figure of its own, whole, whatever `--since` and `--project` leave of them.

    Sessions with models that it priced by guess, or whose price is not known here, are counted apart, and in no amount.
    """

    sessions: Annotated[int, "that have its own figure, for known models"]
    agreeing: Annotated[int, "to the micro-dollar"]
    claude_code_usd: Annotated[Decimal, "its own figures, added up"]
    ours_usd: Annotated[Decimal, "the calls in the same sessions' transcripts, added up at list prices, as it does"]
    not_in_transcript_usd: Annotated[Decimal, "what its figures hold beyond the transcripts, session by session"]
    beyond_claude_code_usd: Annotated[Decimal, "what the transcripts hold beyond its figures, session by session"]
    unknown_model_sessions: Annotated[int, "that have its own figure and a model that it, or tierwise, has no price of"]
    differences: Annotated[
        tuple[Difference, ...], "the sessions that do not agree, the largest first; at most a hundred"
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Two ends."""

    low_usd: Decimal
    high_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """How much of the expected cost one assumption is."""

    assumption: Annotated[str, "its short name"]
    usd: Annotated[Decimal, "that it adds to the expected cost"]
    means: Annotated[str, "in words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedFrom:
    """What of the user's own ledger the expected cost rests on; 0: as assumed (`docs/explanation/what-if.md`)."""

    conversations: Annotated[int, "of which it is known how long they went on"] = 0
    turns: Annotated[int, "of which it is known whether the next one asked for more"] = 0
    answers: Annotated[int, "of which it is known whether they were good enough"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfactual:
    """What the same calls would have cost under the policy."""

    policy: Annotated[str, "its name: of several ways of routing, the one that is expected to cost least"]
    requests_for: Annotated[tuple[str, ...], "models of which requests are routed, of those that were used"]
    expected_usd: Annotated[Decimal, "failed attempts and lost caches included; never more than was spent"]
    low_usd: Annotated[Decimal, "optimistic: the 5th percentile of the optimistic assumptions"]
    high_usd: Annotated[Decimal, "pessimistic: the 95th percentile of the pessimistic ones, at most what was spent"]
    saved_pct: Annotated[Decimal, "of what was spent, as expected"]
    recommended: Annotated[bool, "whether it is expected to cost less than was spent; if not, `expected_usd` is that"]
    policy_expected_usd: Annotated[Decimal, "what the policy would cost, also where that is more than was spent"]
    at_worst_usd: Annotated[Decimal, "the upper end, also where that is more than was spent"]
    assumptions: Annotated[Range, "the same calls, optimistic and pessimistic assumptions"]
    sampling: Annotated[Range, "expected assumptions, other sessions of the same kind: 90 % of resamples"]
    resamples: Annotated[int, "of sessions, with replacement, from a fixed seed"]
    contributions: tuple[Contribution, ...]
    left_alone_calls: Annotated[int, "that the policy may not or does not move"]
    moved_calls: Annotated[int, "that would have gone to another model"]
    learned_from: LearnedFrom = LearnedFrom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Another policy over the same calls."""

    policy: Annotated[str, "its name"]
    expected_usd: Decimal
    saved_pct: Annotated[Decimal, "of what was spent; negative where it is dearer"]
    below_calls: Annotated[int, "that it sends to a lower tier than their work asks for, beyond those that were"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WayRow:
    """A policy over the same calls, under favourable and unfavourable assumptions: `tierwise replay`."""

    policy: Annotated[str, "its name"]
    expected_usd: Decimal
    low_usd: Annotated[Decimal, "under favourable assumptions"]
    high_usd: Annotated[Decimal, "under unfavourable assumptions"]
    saved_pct: Annotated[Decimal, "of what was spent; negative where it is dearer"]
    moved_calls: Annotated[int, "that go to another model"]
    below_calls: Annotated[int, "that go to a lower tier than their work asks for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeverRow:
    """Something beside routing, priced over the same calls."""

    lever: Annotated[str, "its short name"]
    saves_usd: Annotated[Decimal, "by itself; levers do not add up"]
    calls: Annotated[int, "that it is about"]
    means: Annotated[str, "in words"]
    how: Annotated[str, "what to do; empty where nothing pays"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One of the three changes worth most, the best first. They do not add up."""

    change: Annotated[str, "its short name"]
    saves_usd: Annotated[Decimal, "expected, over this period"]
    saves_pct: Annotated[Decimal, "of what was spent"]
    means: Annotated[str, "in words"]
    command: Annotated[str, "that makes it"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownKind:
    """Rows of a kind that this version does not know."""

    kind: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRow:
    """A line that could not be read. None of its text is here."""

    file: str
    line: Annotated[int, "from 1; 0: the whole file"]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What was not counted."""

    lines: Annotated[int, "that could not be read"]
    unknown_kinds: Annotated[tuple[UnknownKind, ...], "the most frequent first"]
    unknown_fields: Annotated[tuple[UnknownKind, ...], "of usage: they may have cost something"]
    examples: Annotated[tuple[SkippedRow, ...], "the first of those lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where calls were read from."""

    importer: str
    roots: tuple[str, ...]
    sessions: Annotated[int, "that have calls in the period"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of it."""

    schema_version: Annotated[int, "1; raised when a key goes away or changes its meaning, not when one is added"]
    period: Period
    sessions: Annotated[int, "that have calls in the period"]
    calls: Annotated[int, "requests to a model, each once"]
    unpriced_calls: Annotated[int, "of which no price is known: in no amount"]
    unpriced_models: Annotated[tuple[str, ...], "their models"]
    actual_usd: Annotated[Decimal, "what was spent, at the prices of each call's day"]
    reconciled: Reconciled
    by_model: tuple[ModelRow, ...]
    by_task_type: tuple[TypeRow, ...]
    by_project: tuple[ProjectRow, ...]
    by_day: tuple[DayRow, ...]
    by_agent: tuple[AgentRow, ...]
    by_kind: tuple[KindRow, ...]
    by_phase: tuple[PhaseRow, ...]
    by_session: tuple[SessionRow, ...]
    by_token_class: tuple[TokenClassRow, ...]
    counterfactual: Counterfactual
    policies: tuple[Compared, ...]
    levers: tuple[LeverRow, ...]
    changes: tuple[Change, ...]
    skipped: Skipped
    sources: tuple[Source, ...]


# ------------------------------------------------------------------ JSON


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object in JSON."""

    name: str
    field: str  # of the class
    hint: object  # its type, without what it is annotated with
    means: str


@cache
def keys_of(kind: type) -> tuple[Key, ...]:
    """The keys of a class of findings, its own before those of its sums."""
    own = list(kind.__annotations__)
    hints = typing.get_type_hints(kind, include_extras=True)
    found = []
    for name in sorted(hints, key=lambda name: name not in own):
        hint, means = hints[name], ""
        if typing.get_origin(hint) is Annotated:
            hint, means = typing.get_args(hint)[:2]
        found.append(Key(name.removesuffix("_"), name, hint, means))
    return tuple(found)


def as_json(value: object) -> object:
    """A finding as JSON has it; amounts stay `Decimal`, and are written as numbers by the command line."""
    if is_dataclass(value):
        kind = value if isinstance(value, type) else type(value)
        return {key.name: as_json(getattr(value, key.field)) for key in keys_of(kind)}
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    return value


def classes() -> tuple[type, ...]:
    """Every class of the findings, `Findings` first, each once, in the order of its first use."""
    seen: dict[type, None] = {}

    def visit(known: type) -> None:
        if known not in seen:
            seen[known] = None
            for key in keys_of(known):
                for inner in (key.hint, *typing.get_args(key.hint)):
                    if isinstance(inner, type) and is_dataclass(inner):
                        visit(inner)

    visit(Findings)
    return tuple(seen)


def json_schema() -> dict[str, object]:
    """The JSON Schema of `tierwise analyze --json`. Keys may be added within a version."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"tierwise analyze --json, version {SCHEMA_VERSION}",
        **_schema_of(Findings),
    }


_SIMPLE = {int: "integer", str: "string", Decimal: "number", bool: "boolean"}


def _schema_of(hint: object) -> dict[str, object]:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return {"type": "array", "items": _schema_of(arguments[0])}
    if arguments:
        return {"anyOf": [{"type": "null"} if a is type(None) else _schema_of(a) for a in arguments]}
    assert isinstance(hint, type)  # noqa: S101 a mistake of ours
    if not is_dataclass(hint):
        return {"type": _SIMPLE[hint]}
    properties = {
        key.name: {**_schema_of(key.hint), **({"description": key.means} if key.means else {})} for key in keys_of(hint)
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
