"""Calls as a single file records them, before they are combined, and how they are packed for the cache.

A draft is what one file's rows say of one call. The same call may be told of by several rows, files and sessions; two
drafts of it are merged by a rule that does not care about their order: the greatest usage wins, whole, since each
row repeats the figures so far, and the earliest time is when it happened.

Packed, the calls of a file are JSON: a table of strings, and a list of numbers and indices for each call. Text of an
ask never is in it: a call refers to a group of calls with one ask and one shape, and the caller keeps beside the
calls what a classifier said of each group.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from tierwise.core.calls import CallKind, ImportedCall, Phase
from tierwise.core.json import Json
from tierwise.core.money import Conditions, Usage
from tierwise.core.tasks import Alternative, Classification, Stakes, TaskType

__all__ = [
    "BROKEN",
    "Draft",
    "Group",
    "Spent",
    "key_of",
    "pack",
    "pack_classifications",
    "phase_of",
    "unpack",
    "unpack_classifications",
    "used",
]

# What a call's tools did, as bits: several rows of one call add up.
EXPLORED, EDITED, VERIFIED, DID_OTHER, SPOKE = 1, 2, 4, 8, 16
_KINDS = tuple(CallKind)
_KIND_NUMBER = {kind: number for number, kind in enumerate(_KINDS)}
_FAILED, _COMPACTS, _PLAN, _IMAGES, _THINKING, _LOOP, _SCHEMA, _SIDECHAIN = 1, 2, 4, 8, 16, 32, 64, 128
BROKEN = (ValueError, KeyError, IndexError, TypeError, AttributeError, zlib.error)  # what packed bytes may be


@dataclass(frozen=True, slots=True, order=True)
class Spent:
    """What one row says that a call used. Ordered: of two rows of a call, the greater one is the later one."""

    total: int
    cache_write_1h_tokens: int  # of two that are alike the one that knows how its writes are split
    output_tokens: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    thinking_tokens: int
    web_searches: int
    batch: bool
    fast: bool
    inference_geo: str

    def usage(self) -> Usage:
        """The tokens."""
        return Usage(
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_5m_tokens,
            self.cache_write_1h_tokens,
            min(self.thinking_tokens, self.output_tokens),
            self.web_searches,
        )


def used(spent: Sequence[Spent]) -> Usage:
    """What several calls used together."""
    return Usage(
        sum([one.input_tokens for one in spent]),
        sum([one.output_tokens for one in spent]),
        sum([one.cache_read_tokens for one in spent]),
        sum([one.cache_write_5m_tokens for one in spent]),
        sum([one.cache_write_1h_tokens for one in spent]),
        sum([min(one.thinking_tokens, one.output_tokens) for one in spent]),
        sum([one.web_searches for one in spent]),
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Calls of one file that share an ask and a shape, so that they are classified once."""

    ask: str = field(repr=False)
    kind: CallKind
    agent_type: str | None
    has_images: bool
    json_schema: bool
    at_ms: int = 0  # of its first call
    model: str = ""  # of that call
    usage: Usage = Usage()  # of all of them: how much hangs on the answer

    def example(self, session: str) -> ImportedCall:
        """A call that stands for all of the group, for a classifier."""
        return ImportedCall(
            id="",
            at_ms=self.at_ms,
            session=session,
            agent_type=self.agent_type,
            kind=self.kind,
            model=self.model,
            usage=self.usage,
            has_tools=self.kind.converses,
            has_images=self.has_images,
            json_schema=self.json_schema,
            ask=self.ask,
        )


@dataclass(slots=True)
class Draft:
    """One call, as one file tells of it so far."""

    key: int
    session: str
    at_ms: int
    model: str
    spent: Spent
    request_id: str = ""
    message_id: str = ""
    origin: str = ""  # the session that made the request, where the row says so: then others hold copies
    agent: str = ""
    agent_type: str = ""
    kind: CallKind = CallKind.MAIN
    requested_model: str = ""
    effort: str = ""
    stop_reason: str = ""
    project: str = ""
    did: int = 0
    tools: tuple[str, ...] = ()
    group: int = -1  # -1: nothing was asked
    failed: bool = False
    compacts: bool = False
    has_images: bool = False
    has_thinking: bool = False
    in_tool_loop: bool = False
    json_schema: bool = False
    sidechain: bool = False
    plan_mode: bool = False

    def merge(self, other: Draft) -> None:
        """Take in what another row or file says of the same call."""
        if other.spent > self.spent:
            self.spent = other.spent
            self.model = other.model or self.model
        self.at_ms = min(self.at_ms, other.at_ms)
        self.stop_reason = self.stop_reason or other.stop_reason
        self.agent_type = self.agent_type or other.agent_type
        self.effort = self.effort or other.effort
        self.requested_model = self.requested_model or other.requested_model
        self.request_id = self.request_id or other.request_id
        self.message_id = self.message_id or other.message_id
        self.did |= other.did
        if other.tools:
            self.tools = tuple(dict.fromkeys((*self.tools, *other.tools)))
        self.json_schema = self.json_schema or other.json_schema
        self.failed = self.failed and other.failed
        self.compacts = self.compacts or other.compacts
        self.plan_mode = self.plan_mode or other.plan_mode

    def call(self, session: str, classifications: Sequence[Classification | None]) -> ImportedCall:
        """The call."""
        spent = self.spent
        return ImportedCall(
            id=self.request_id or self.message_id or f"{self.key:016x}",
            at_ms=self.at_ms,
            session=session,
            agent=self.agent or None,
            agent_type=self.agent_type or None,
            kind=self.kind,
            model=self.model,
            requested_model=self.requested_model or None,
            usage=spent.usage(),
            conditions=Conditions(spent.batch, spent.inference_geo or None, spent.fast)
            if spent.batch or spent.inference_geo or spent.fast
            else _USUAL,
            project=self.project or None,
            effort=self.effort or None,
            stop_reason=self.stop_reason or None,
            failed=self.failed,
            compacts=self.compacts,
            phase=phase_of(self.did),
            tools=self.tools,
            has_tools=self.kind.converses,
            has_images=self.has_images,
            has_thinking=self.has_thinking,
            in_tool_loop=self.in_tool_loop,
            json_schema=self.json_schema,
            plan_mode=self.plan_mode,
            classification=classifications[self.group] if 0 <= self.group < len(classifications) else None,
        )


_USUAL = Conditions()


def phase_of(did: int) -> Phase:
    """What an agent was about in a call. What changes things tells more than what looks at them."""
    if did & EDITED:
        return Phase.EDITING
    if did & VERIFIED:
        return Phase.VERIFYING
    if did & EXPLORED:
        return Phase.EXPLORING
    if did & DID_OTHER:
        return Phase.OTHER
    return Phase.REPORTING if did & SPOKE else Phase.OTHER


def key_of(*parts: str) -> int:
    """A call's identity in 64 bits: of a million calls, two share one with a chance of one in 40 million."""
    told = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(told, digest_size=8).digest(), "little")


def pack(drafts: Iterable[Draft]) -> bytes:
    """The drafts of a file, small."""
    strings: dict[str, int] = {}

    def index(text: str) -> int:
        return strings.setdefault(text, len(strings))

    rows: list[Json] = []
    for draft in drafts:
        spent = draft.spent
        flags = (
            (_FAILED if draft.failed else 0)
            | (_COMPACTS if draft.compacts else 0)
            | (_IMAGES if draft.has_images else 0)
            | (_THINKING if draft.has_thinking else 0)
            | (_LOOP if draft.in_tool_loop else 0)
            | (_SCHEMA if draft.json_schema else 0)
            | (_SIDECHAIN if draft.sidechain else 0)
            | (_PLAN if draft.plan_mode else 0)
        )
        rows.append(
            [
                draft.key,
                draft.at_ms,
                index(draft.session),
                index(draft.model),
                draft.request_id,
                draft.message_id,
                index(draft.origin),
                index(draft.agent),
                index(draft.agent_type),
                _KIND_NUMBER[draft.kind],
                index(draft.requested_model),
                index(draft.effort),
                index(draft.stop_reason),
                index(draft.project),
                draft.did,
                [index(tool) for tool in draft.tools],
                draft.group,
                flags,
                spent.total,
                spent.cache_write_1h_tokens,
                spent.output_tokens,
                spent.input_tokens,
                spent.cache_read_tokens,
                spent.cache_write_5m_tokens,
                spent.thinking_tokens,
                spent.web_searches,
                spent.batch * 2 + spent.fast,
                index(spent.inference_geo),
            ]
        )
    text = json.dumps([list(strings), rows], separators=(",", ":"))
    return zlib.compress(text.encode("ascii"), 1)


def unpack(packed: bytes) -> list[Draft]:
    """What `pack` packed.

    Raises:
        BROKEN: one of these, where the bytes are none of ours.
    """
    strings, rows = json.loads(zlib.decompress(packed))
    drafts = []
    for (
        key,
        at_ms,
        session,
        model,
        request_id,
        message_id,
        origin,
        agent,
        agent_type,
        kind,
        requested_model,
        effort,
        stop_reason,
        project,
        did,
        tools,
        group,
        flags,
        total,
        write_1h,
        output,
        fresh,
        read,
        write_5m,
        thinking,
        searches,
        conditions,
        geo,
    ) in rows:
        drafts.append(
            Draft(
                key,
                strings[session],
                at_ms,
                strings[model],
                Spent(
                    total,
                    write_1h,
                    output,
                    fresh,
                    read,
                    write_5m,
                    thinking,
                    searches,
                    conditions >= 2,
                    conditions % 2 == 1,
                    strings[geo],
                ),
                request_id,
                message_id,
                strings[origin],
                strings[agent],
                strings[agent_type],
                _KINDS[kind],
                strings[requested_model],
                strings[effort],
                strings[stop_reason],
                strings[project],
                did,
                tuple(strings[tool] for tool in tools),
                group,
                bool(flags & _FAILED),
                bool(flags & _COMPACTS),
                bool(flags & _IMAGES),
                bool(flags & _THINKING),
                bool(flags & _LOOP),
                bool(flags & _SCHEMA),
                bool(flags & _SIDECHAIN),
                bool(flags & _PLAN),
            )
        )
    return drafts


# ------------------------------------------------------------------ what a classifier said


def pack_classifications(said: Sequence[Classification | None]) -> bytes:
    """Classifications, by the names of their types. Their evidence is left out."""
    rows: list[Json] = [
        None
        if one is None
        else [
            one.task_type.name,
            one.confidence,
            one.abstained,
            [[other.task_type.name, other.confidence] for other in one.alternatives],
            [other.name for other in one.also],
            None if one.at_least is None else list(one.at_least),
            one.stated_stakes.value,
        ]
        for one in said
    ]
    return json.dumps(rows, separators=(",", ":")).encode("ascii")


def unpack_classifications(packed: bytes, types: Mapping[str, TaskType]) -> list[Classification | None]:
    """What `pack_classifications` packed; None where a type is not in `types` any more.

    Raises:
        BROKEN: one of these, where the bytes are none of ours.
    """
    found: list[Classification | None] = []
    for row in json.loads(packed):
        if row is None or row[0] not in types:
            found.append(None)
            continue
        name, confidence, abstained, alternatives, also, at_least, stakes = row
        found.append(
            Classification(
                types[name],
                confidence,
                abstained,
                tuple(Alternative(types[other], sure) for other, sure in alternatives if other in types),
                tuple(types[other] for other in also if other in types),
                at_least=None if at_least is None else (at_least[0], at_least[1], at_least[2]),
                stated_stakes=Stakes(stakes),
            )
        )
    return found
