"""Claude Code's transcripts: `<session>.jsonl` in a directory of its project, subagents in `<session>/subagents`.

**What a row is.** A JSON object a line. `assistant` rows hold one content block each and repeat the usage of the whole
reply so far: rows with one request id and message id are one call. `user` rows hold what a person said, results of
tools, and notes of the client's. `cost-state` is what the CLI itself counted up to then; `system` rows of subtype
`compact_boundary` say that the history was summarized; `api-request` says what a request was for. All other
kinds that are known are passed over, those that are not are counted. Some older versions keep replies of subagents in
`progress` rows of the parent as well.

**Who owns a call.** A forked session begins with copies of the rows of the one that it was forked from, under its own
session id. In 2.1.330 a copy names the session that made the request (`requestSessionId`); in 2.1.197 it does not, and
the older session owns them (`tierwise.importers.owners` decides that over all files). Without a request id, as other
endpoints leave it out, a call is known by its message id and the time of its first row, since some give one message
id to every reply; rows go together if that id is Anthropic's (`msg_…`), or nothing came between. A `/btw` question
replays the parent's messages under new request ids: within a session, a side chain's copy with the same message id
and time is the same call.

**`usage.iterations`.** Entries of type `message` and `fallback_message` are parts of the sum that the usage itself
gives. `compaction` entries are not in it (the Anthropic SDK says so of `BetaUsage.iterations`), nor are those of type
`advisor_message`, which another model answered at its own price (Claude Code 2.1.330 adds them to its total; it does
not add `compaction`). Both become calls of their own.

**Speed.** Most of a transcript's bytes are results of tools and snapshots of prompts. Rows that are certain not to
matter by how they begin are not parsed; whatever looks otherwise, if only by a space, is: never wrong, only slow.

**Plan mode.** What a person says carries the mode that it was said in (`permissionMode`), for the calls up to the next.
Within a turn the tools `EnterPlanMode` and `ExitPlanMode` change it, if their result is no error: a refusal is one.
Rows of agents do not tell; they follow the main loop, which only `tierwise.importers.owners` sees beside them.

Observed with Claude Code 2.1.330 and 2.1.197.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from tierwise.core.calls import CallKind
from tierwise.core.json import Json, JsonObject, Loads, choose_loads
from tierwise.importers.base import FoundSession, ImportRun, Skipped
from tierwise.importers.drafts import (
    SPOKE,
    Draft,
    Group,
    Spent,
    key_of,
)
from tierwise.importers.transcript_rows import (
    ITERATIONS,
    PASSED_OVER,
    USAGE_FIELDS,
    Mistaken,
    asked_by,
    done_by,
    is_image,
    object_of,
    spent_of,
    text_of,
    time_ms,
    usd,
)
from tierwise.wire.claude_code import is_note, said

__all__ = ["NAME", "ClaudeCode", "CostRow", "TranscriptReader", "build"]

NAME = "claude_code"
_LONGEST_ASK = 20_000  # characters that are classified
_DAY_MS = 86_400_000
_EARLIEST_MS = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000)
_MOST_STATES = 200  # of a session's totals that are kept
_MOST_REQUESTS = 32  # that may be without a reply yet

# ------------------------------------------------------------------ rows that need no parsing

_PASSED_OVER_BYTES = frozenset(kind.encode() for kind in PASSED_OVER)
_TYPE_FIRST = b'{"type":"'
_ENDS = (b"}\n", b"}\r\n", b"}")
_PARENT_FIRST = b'{"parentUuid":'
_ATTACHMENT = b'"attachment":{"type":"'
_RESULT_FIRST = b'"message":{"role":"user","content":[{"tool_use_id":"'
_RESULT_FIRST_TOO = b'"message":{"role":"user","content":[{"type":"tool_result"'
_HEAD = 600  # bytes of a row in which its message begins
_REQUEST = re.compile(
    rb'"id":"([^"\\]{1,80})","timestamp":"[^"\\]*","version":"[^"\\]*","querySource":"([^"\\]{1,80})"'
)

_PLANNING = {"EnterPlanMode": True, "ExitPlanMode": False}  # tools that change the mode, and whether it is to plan then
_AGENT_ID = re.compile(r"a[0-9a-f]{8,}\Z")
_AGENT_KINDS = (("acompact", CallKind.COMPACTION),)  # how the ids of agents begin that are no agents


# ------------------------------------------------------------------ the state of a file


# What the CLI counted for a session when one of its runs ended: the time of the last row before it, the total in
# dollars, that of each model, and whether it priced one by guess. Runs that resume carry the total on.
CostRow: TypeAlias = tuple[int, str, list[tuple[str, str]], bool]


@dataclass(slots=True)
class _Chain:
    """Where a conversation stands: the main loop of a session, or one of its agents."""

    ask: str = ""  # text that no group was made of yet, or that of `group`
    group: int = -1
    after_command: bool = False  # the next note of the client's may be the prompt that a command stands for
    in_tool_loop: bool = False
    compacts: bool = False
    has_images: bool = False
    has_thinking: bool = False
    last_key: int = 0  # of its latest call
    replying: bool = False  # nothing was said since
    plans: bool = False  # in plan mode
    asked_to_change: int = (
        0  # the call of a tool, by a hash of its id, whose success changes the mode; 0: there is none
    )
    will_plan: bool = False  # what the mode is then

    def asks(self, content: Json) -> None:
        """What a reply calls may change the mode, once it has a result."""
        for block in content if isinstance(content, list) else ():
            plans = _PLANNING.get(text_of(block, "name")) if isinstance(block, dict) else None
            if plans is not None and isinstance(block, dict) and block.get("type") == "tool_use":
                self.asked_to_change, self.will_plan = key_of("tool", text_of(block, "id")), plans

    def mode_changed(self, result: JsonObject) -> None:
        """A tool's result, which may be the one that was waited for."""
        if self.asked_to_change and self.asked_to_change == key_of("tool", text_of(result, "tool_use_id")):
            self.asked_to_change = 0
            if result.get("is_error") is not True:
                self.plans = self.will_plan


class TranscriptReader:
    """Reads the rows of one file into drafts. Goes on where another one stopped, if given its calls and state."""

    def __init__(self, file: str, *, now_ms: int | None = None, loads: Loads | None = None) -> None:
        self.file = file
        self.drafts: dict[int, Draft] = {}
        self.groups: list[Group | None] = []  # None: classified in an earlier run
        self.costs: dict[str, list[CostRow]] = {}
        self.born_ms: dict[str, int] = {}  # by session: the earliest time of a row that no fork would have copied
        self.skipped = Skipped()
        self.last_ms = 0
        self._latest_ms = None if now_ms is None else now_ms + _DAY_MS
        self._chains: dict[tuple[str, str], _Chain] = {}
        self._groups: dict[Group, int] = {}
        self._messages: dict[tuple[str, str], int] = {}  # without request ids: session and message id, and key
        self._query_kinds: dict[str, CallKind] = {}  # of requests that are neither main loop nor agent
        self._last_usage: JsonObject | None = None
        self._last_spent = spent_of({}, self.skipped)
        self._loads = loads or choose_loads()
        path = Path(file)
        nested = path.parent.name == "subagents"
        self._session = path.parent.parent.name if nested else path.stem
        self._agent = path.stem.removeprefix("agent-") if nested or path.stem.startswith("agent-") else ""
        self._directory = _directory(path)
        self._projects: dict[str, str] = {}  # by session

    # -- a line ------------------------------------------------------------------------------------------------

    def line(self, line: bytes, number: int) -> None:
        """One line. Nothing that it holds raises; what cannot be used is counted."""
        if self._passes_over(line):
            return
        try:
            row = self._loads(line)
        except RecursionError:
            self.skipped.line(self.file, number, "nested too deeply")
            return
        except (ValueError, MemoryError):
            if line.strip():
                self.skipped.line(self.file, number, "not JSON")
            return
        if not isinstance(row, dict):
            self.skipped.line(self.file, number, "not an object")
            return
        try:
            self._row(row, number)
        except Mistaken as mistake:
            self.skipped.line(self.file, number, str(mistake))

    def is_whole(self, line: bytes) -> bool:
        """Whether a line without an end is finished all the same: no part of an object is one."""
        try:
            return isinstance(self._loads(line), dict)
        except (ValueError, RecursionError, MemoryError):
            return False

    def finished(self) -> None:
        """All lines were read. Asks without calls so far are grouped too, since their text will be gone."""
        for draft in self.drafts.values():
            draft.project = self._projects.get(draft.session) or self._directory
        for (session, agent), chain in self._chains.items():
            if chain.ask and chain.group < 0:
                self._grouped(chain, self._kind(session, agent, agent != "", ""), "", json_schema=False)

    def _passes_over(self, line: bytes) -> bool:
        """Whether all that this row says is known by how it begins."""
        if not line.endswith(_ENDS):
            return False
        if line.startswith(_TYPE_FIRST):
            end = line.find(b'"', len(_TYPE_FIRST), len(_TYPE_FIRST) + 40)
            kind = line[len(_TYPE_FIRST) : max(end, 0)]
            if kind == b"api-request":
                found = _REQUEST.search(line, 0, _HEAD)
                if found is not None:
                    self._request(found[1].decode("ascii", "replace"), found[2].decode("ascii", "replace"))
                return found is not None
            return kind in _PASSED_OVER_BYTES
        if not line.startswith(_PARENT_FIRST):
            return False
        if line.find(_ATTACHMENT, 0, _HEAD) >= 0:
            # Its fields up to there are flat, so it is not within another one.
            return line.count(b"{", 0, line.find(_ATTACHMENT)) == 1 and b'"type":"attachment"' in line
        start = max(line.find(_RESULT_FIRST, 0, _HEAD), line.find(_RESULT_FIRST_TOO, 0, _HEAD))
        return start >= 0 and self._passes_over_result(line, start)

    def _passes_over_result(self, line: bytes, start: int) -> bool:
        """A tool's result, whose message begins at `start`: it is known but for whose it is, unless more is in it."""
        before = line[:start]
        if (
            before.count(b"{") != 1
            or b'"type":"user"' not in line
            # Files that were read are of type "text" too; any other text might be what a person said as well.
            or line.count(b'"type":"text"') != line.count(b'"type":"text","file":')
            or b'"type":"image"' in line
            or b'"type":"document"' in line
            or b'"permissionMode":' in line
            or line.count(b'"sessionId":"') != 1
            or line.count(b'"agentId":') != before.count(b'"agentId":')
        ):
            return False
        session, agent = _between(line, b'"sessionId":"'), _between(before, b'"agentId":"') or self._agent
        if session is None or not (agent or b'"isSidechain":false' in before):
            return False
        chain = self._chain(session, agent)
        if chain.asked_to_change:
            return False
        chain.in_tool_loop, chain.replying = True, False
        return True

    def _request(self, name: str, source: str) -> None:
        """What a request is for, kept if the rows of its reply do not tell it as well."""
        kind = asked_by(source)
        if kind not in (CallKind.MAIN, CallKind.SUBAGENT):
            if len(self._query_kinds) >= _MOST_REQUESTS:
                self._query_kinds.pop(next(iter(self._query_kinds)))
            self._query_kinds[name] = kind

    # -- a row -------------------------------------------------------------------------------------------------

    def _row(self, row: JsonObject, number: int) -> None:
        match row.get("type"):
            case "assistant":
                self._assistant(row, number)
            case "user":
                self._user(row)
            case "system":
                self._system(row)
            case "cost-state":
                self._cost_state(row)
            case "progress":
                self._progress(row, number)
            case "queue-operation":
                self._born(row)
            case "api-request":
                self._request(text_of(row, "id"), text_of(row, "querySource"))
            case str(kind):
                if kind not in PASSED_OVER:
                    self.skipped.kind(kind)
            case _:
                self.skipped.kind("(none)")

    def _progress(self, row: JsonObject, number: int) -> None:
        """What becomes of an agent, in versions that keep that in its parent's file too: rows within rows."""
        data = object_of(row, "data")
        told = object_of(data, "message")
        if told.get("type") == "assistant":
            agent: JsonObject = {"agentId": text_of(data, "agentId") or "sidechain", "isSidechain": True}
            known: JsonObject = {name: row[name] for name in ("sessionId", "cwd", "timestamp") if name in row}
            self._assistant({**known, **told, **agent}, number)

    def _born(self, row: JsonObject) -> None:
        session, at_ms = text_of(row, "sessionId"), time_ms(row.get("timestamp"))
        if session and at_ms is not None:
            self.born_ms[session] = min(at_ms, self.born_ms.get(session, at_ms))

    def _chain(self, session: str, agent: str) -> _Chain:
        chain = self._chains.get((session, agent))
        if chain is None:
            chain = self._chains[session, agent] = _Chain()
        return chain

    def _of(self, row: JsonObject) -> tuple[str, str]:
        """The session and the agent that a row belongs to."""
        session = text_of(row, "sessionId") or self._session
        agent = text_of(row, "agentId") or self._agent
        if not agent and row.get("isSidechain") is True:
            agent = "sidechain"  # old versions keep side chains in the session's file, without ids
        return session, agent

    def _system(self, row: JsonObject) -> None:
        if row.get("subtype") == "compact_boundary":
            chain = self._chain(*self._of(row))
            chain.compacts = True
            chain.has_images = chain.has_thinking = False

    def _cost_state(self, row: JsonObject) -> None:
        session = text_of(row, "sessionId") or self._session
        total = usd(row.get("totalCostUSD"))
        if total is None:
            raise Mistaken("totalCostUSD is no amount")
        by_model: list[tuple[str, str]] = []
        for model, used in object_of(row, "modelUsage").items():
            cost = usd(used.get("costUSD")) if isinstance(used, dict) else None
            by_model.append((model[:200], cost or "0"))
        states = self.costs.setdefault(session, [])
        states.append((self.last_ms, total, by_model, row.get("hasUnknownModelCost") is True))
        del states[:-_MOST_STATES]

    # -- what a person says ------------------------------------------------------------------------------------

    def _user(self, row: JsonObject) -> None:
        session, agent = self._of(row)
        chain = self._chain(session, agent)
        chain.replying = False
        content = object_of(row, "message").get("content")
        texts, results = [], False
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            for block in content:
                if not isinstance(block, dict):
                    continue
                match block.get("type"):
                    case "text":
                        texts.append(text_of(block, "text"))
                    case "tool_result":
                        results = True
                        chain.mode_changed(block)
                        parts = block.get("content")
                        chain.has_images = chain.has_images or (
                            isinstance(parts, list) and any(is_image(part) for part in parts)
                        )
                    case "image" | "document":
                        chain.has_images = True
        chain.in_tool_loop = results
        if mode := text_of(row, "permissionMode"):
            chain.plans = mode == "plan"
        if row.get("isCompactSummary") is True:
            chain.after_command = False
            return
        self._said(row, chain, texts)

    def _said(self, row: JsonObject, chain: _Chain, texts: list[str]) -> None:
        text = said(texts)
        if not text:
            return
        if is_note(text):
            chain.after_command = text.startswith("<command-")
            if text.startswith("[Request interrupted by user"):
                last = self.drafts.get(chain.last_key)
                if last is not None and not last.stop_reason:
                    last.failed = True
            return
        if row.get("isMeta") is True and not chain.after_command:
            return
        chain.after_command = False
        ask = text[:_LONGEST_ASK]
        if ask != chain.ask:
            chain.ask, chain.group = ask, -1

    def _grouped(self, chain: _Chain, kind: CallKind, agent_type: str, *, json_schema: bool) -> int:
        if not chain.ask:
            return chain.group
        group = Group(chain.ask, kind, agent_type or None, chain.has_images, json_schema)
        number = self._groups.get(group)
        if number is None:
            number = self._groups[group] = len(self.groups)
            self.groups.append(group)
        chain.group = number
        return number

    # -- calls -------------------------------------------------------------------------------------------------

    def _assistant(self, row: JsonObject, number: int) -> None:
        message = object_of(row, "message")
        model = text_of(message, "model")
        usage = message.get("usage")
        if model == "<synthetic>":
            return  # words of the client's own: no request, or one that got no answer
        if not isinstance(usage, dict):
            raise Mistaken("a reply without usage")
        if not model:
            raise Mistaken("a reply without a model")
        spent = self._spent(usage)
        session, agent = self._of(row)
        chain = self._chain(session, agent)
        at_ms = self._at(row, number)
        request_id, message_id = text_of(row, "requestId"), text_of(message, "id")
        if request_id:
            key = key_of("call", request_id, message_id)
        elif message_id:
            key = self._key_without_request(chain, session, message_id, at_ms)
        else:
            key = key_of("row", text_of(row, "uuid") or f"{self.file}:{number}")
        sidechain = row.get("isSidechain") is True
        kind = self._kind(session, agent, sidechain, text_of(row, "requestRef"))
        did, tools, thinks = done_by(message.get("content"))
        schema = "StructuredOutput" in tools or kind is CallKind.TITLE
        agent_type = text_of(row, "attributionAgent")
        draft = Draft(
            key,
            session,
            at_ms,
            model,
            spent,
            request_id,
            message_id,
            origin=text_of(row, "requestSessionId"),
            agent=agent,
            agent_type=agent_type,
            kind=kind,
            requested_model=text_of(row, "requestedModel"),
            effort=text_of(row, "effort"),
            stop_reason=text_of(message, "stop_reason"),
            did=did,
            tools=tools,
            json_schema=schema,
            failed=row.get("isApiErrorMessage") is True,
            sidechain=sidechain,
        )
        known = self.drafts.get(key)
        if known is not None:
            known.merge(draft)
        else:
            draft.group = self._grouped(chain, kind, agent_type, json_schema=schema)
            draft.compacts, chain.compacts = chain.compacts, False
            draft.in_tool_loop = chain.in_tool_loop
            draft.has_images, draft.has_thinking = chain.has_images, chain.has_thinking
            draft.plan_mode = chain.plans
            self.drafts[key] = draft
        self._seen_in(session, text_of(row, "cwd", 4_000))
        chain.last_key, chain.replying = key, True
        chain.asks(message.get("content"))
        chain.has_thinking = chain.has_thinking or thinks
        self._iterations(usage, self.drafts[key])

    def _seen_in(self, session: str, cwd: str) -> None:
        """Keeps where a session was begun: rows tell where its shell is by then. The directory is named for it."""
        known = self._projects.get(session)
        if cwd and cwd != known and (known is None or (not self._is_named_for(known) and self._is_named_for(cwd))):
            self._projects[session] = cwd

    def _is_named_for(self, cwd: str) -> bool:
        return re.sub("[^A-Za-z0-9]", "-", cwd) == self._directory

    def _key_without_request(self, chain: _Chain, session: str, message_id: str, at_ms: int) -> int:
        if message_id.startswith("msg_"):
            return self._messages.setdefault((session, message_id), key_of("message", message_id, str(at_ms)))
        last = self.drafts.get(chain.last_key)
        if chain.replying and last is not None and (last.message_id, last.request_id) == (message_id, ""):
            return last.key
        return key_of("message", message_id, str(at_ms))

    def _at(self, row: JsonObject, number: int) -> int:
        at_ms = time_ms(row.get("timestamp"))
        if at_ms is None:
            if not self.last_ms:
                raise Mistaken("a reply without a time")
            self.skipped.line(self.file, number, "no time; counted at the time of the row before it")
            return self.last_ms
        if at_ms < _EARLIEST_MS or (self._latest_ms is not None and at_ms > self._latest_ms):
            instead = self.last_ms or (self._latest_ms or _EARLIEST_MS)
            self.skipped.line(
                self.file, number, "a clock that cannot be right; counted at the time of the row before it"
            )
            return instead
        self.last_ms = max(self.last_ms, at_ms)
        return at_ms

    def _kind(self, session: str, agent: str, sidechain: bool, request: str) -> CallKind:
        kind = self._query_kinds.get(request)
        if kind is not None:
            return kind
        if not agent and not sidechain:
            return CallKind.MAIN
        if agent == "sidechain" or _AGENT_ID.match(agent):
            return CallKind.SUBAGENT
        kind = next((kind for begins, kind in _AGENT_KINDS if agent.startswith(begins)), None)
        if kind is not None:
            return kind
        # `aside_question-…`, `aprompt_suggestion-…`: calls beside the conversation, named for what they are for.
        return CallKind.SIDE if "_" in agent or "-" in agent else CallKind.SUBAGENT

    def _spent(self, usage: JsonObject) -> Spent:
        if usage == self._last_usage:
            return self._last_spent  # the blocks of a reply repeat it
        for name, value in usage.items():
            if name not in USAGE_FIELDS and value not in (None, 0, "", [], {}):
                self.skipped.usage_field(name)
        self._last_spent = spent_of(usage, self.skipped)
        self._last_usage = usage
        return self._last_spent

    def _iterations(self, usage: JsonObject, parent: Draft) -> None:
        iterations = usage.get("iterations")
        if not isinstance(iterations, list):
            return
        for position, iteration in enumerate(iterations):
            kind = iteration.get("type") if isinstance(iteration, dict) else None
            if kind not in ITERATIONS:
                self.skipped.usage_field(f"iterations: {kind}")
            if kind not in ("compaction", "advisor_message") or not isinstance(iteration, dict):
                continue
            model = parent.model if kind == "compaction" else (text_of(iteration, "model") or parent.model)
            key = key_of("iteration", str(parent.key), str(position), str(kind))
            name = f"{kind.removesuffix('_message')}:{position}"
            draft = Draft(
                key,
                parent.session,
                parent.at_ms,
                model,
                spent_of(iteration, self.skipped, like=parent.spent),
                f"{parent.request_id}:{name}" if parent.request_id else "",
                f"{parent.message_id}:{name}" if parent.message_id else "",
                origin=parent.origin,
                agent=parent.agent,
                agent_type=parent.agent_type,
                kind=CallKind.COMPACTION if kind == "compaction" else CallKind.SIDE,
                did=SPOKE,
                sidechain=parent.sidechain,
            )
            known = self.drafts.get(key)
            if known is not None:
                known.merge(draft)
            else:
                self.drafts[key] = draft

    # -- going on ----------------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """What must be known to go on later. No text."""
        state: JsonObject = {
            "last_ms": self.last_ms,
            "groups": len(self.groups),
            "projects": {**self._projects},
            "queries": {name: kind.value for name, kind in self._query_kinds.items()},
            "chains": [
                [
                    session,
                    agent,
                    chain.group,
                    chain.after_command,
                    chain.in_tool_loop,
                    chain.compacts,
                    chain.has_images,
                    chain.has_thinking,
                    chain.last_key,
                    chain.replying,
                    chain.plans,
                    chain.asked_to_change,
                    chain.will_plan,
                ]
                for (session, agent), chain in self._chains.items()
            ],
        }
        return json.dumps(state, separators=(",", ":")).encode("ascii")

    def resume(self, packed: bytes, drafts: Iterable[Draft]) -> None:
        """Go on from there.

        Raises:
            BROKEN: one of these, where the state is none of ours.
        """
        state = json.loads(packed)
        self.drafts = {draft.key: draft for draft in drafts}
        self.last_ms = int(state["last_ms"])
        self.groups = [None] * int(state["groups"])
        self._projects = state["projects"]
        self._query_kinds = {name: CallKind(kind) for name, kind in state["queries"].items()}
        self._messages = {
            (draft.session, draft.message_id): draft.key for draft in self.drafts.values() if not draft.request_id
        }
        for session, agent, *chain in state["chains"]:
            self._chains[session, agent] = _Chain("", *chain)


@lru_cache(maxsize=200)
def _between(line: bytes, before: bytes) -> str | None:
    start = line.rfind(before)
    if start < 0:
        return None
    start += len(before)
    end = line.find(b'"', start)
    found = line[start : max(end, start)]
    return found.decode("ascii") if found and found.isascii() and b"\\" not in found else None


def _directory(path: Path) -> str:
    """The directory of a transcript's project, which is named for where that is."""
    parts = path.parts
    if "projects" in parts[:-2]:
        return parts[len(parts) - parts[::-1].index("projects")]
    nested = path.parent.name == "subagents" and len(path.parents) > 2
    return (path.parents[2] if nested else path.parent).name


# ------------------------------------------------------------------ the importer


class ClaudeCode:
    """Claude Code's transcripts on this machine."""

    name = NAME

    def default_roots(self, environment: Mapping[str, str], home: Path) -> Sequence[Path]:
        """`CLAUDE_CONFIG_DIR` (several with commas), or else `~/.claude` and the older `~/.config/claude`."""
        told = [part.strip() for part in environment.get("CLAUDE_CONFIG_DIR", "").split(",") if part.strip()]
        if told:
            bases = [home / part[2:] if part.startswith("~/") else Path(part) for part in told]
        else:
            config = environment.get("XDG_CONFIG_HOME", "")
            bases = [home / ".claude", (Path(config) if config else home / ".config") / "claude"]
        roots = [base if base.name == "projects" else base / "projects" for base in bases]
        return [root for root in dict.fromkeys(roots) if root.is_dir()]

    def sessions(self, roots: Iterable[Path], run: ImportRun) -> Iterator[FoundSession]:
        """The sessions in these directories and files, by the time of their first call.

        A directory that has a `projects` in it, such as `~/.claude`, stands for that.
        """
        from tierwise.importers.scanning import scan  # noqa: PLC0415 - numpy, only where something is read

        inside = ((root, root / "projects") for root in roots)
        return scan(NAME, [projects if projects.is_dir() else root for root, projects in inside], run)


def build() -> ClaudeCode:
    """The importer."""
    return ClaudeCode()
