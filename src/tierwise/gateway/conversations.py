"""Conversations: which one a request belongs to, what kind of call it is, and what is known of it.

A request says nothing of a conversation: it carries the whole history, each time. Who it belongs to is told by Claude
Code's headers; or else by the session in `metadata.user_id`, which main agent and subagents share, so that the first
of what they were told is added; or else by the stable prefix alone: system prompt, names of tools, first user turn.
Cache marks, reminders that the client puts in and the billing header, whose hash varies, are left out of it.

What kind of call it is is told by its shape, as seen of Claude Code 2.1.330. Titles and other calls on the side carry
their session's id without being part of its conversation: `CallKind.converses` says which are.

All of this is read on the hot path, so bodies are looked at and never copied. Clocks are arguments.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b, sha256

from tierwise.core.calls import CallKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage
from tierwise.policy.outlook import TurnsToCome
from tierwise.policy.switching import History, Turn, Warmth
from tierwise.wire.claude_code import said, without_reminders

__all__ = [
    "Contents",
    "Conversation",
    "ConversationKey",
    "Conversations",
    "KeySource",
    "contents_of",
    "history_of",
    "identify",
    "in_tool_loop",
    "kind_of",
    "last_ask",
]

_SESSION_HEADER = "x-claude-code-session-id"
_AGENT_HEADER = "x-claude-code-agent-id"
_BILLING_HEADER = "x-anthropic-billing-header:"
# What Claude Code's request for a summary of the conversation, which is long, asks the reply to be made of.
_SUMMARY_PARTS = ("<analysis>", "<summary>")
_SUMMARY_REQUEST_CHARS = 1_000
_TEXT_SOURCES = ("text", "content")  # of a document that any model can read
_THINKING = frozenset({"thinking", "redacted_thinking"})
_TOOL_ENDINGS = ("tool_use", "tool_result")  # of the server's tools and of MCP's too
_LONGEST_ID = 200  # of what a client calls its session or agent; beyond that it is hashed
_TTL_5M, _TTL_1H = 300, 3_600


# ------------------------------------------------------------------ which conversation


class KeySource(StrEnum):
    """What told which conversation a request belongs to."""

    HEADERS = "headers"  # Claude Code's session and agent ids
    METADATA = "metadata"  # the session in `metadata.user_id`, and the first of what the agent was told
    PREFIX = "prefix"  # system prompt, tools and first user turn


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """A conversation. `id` alone tells it from others; `session` is shared by a main agent and its subagents."""

    id: str
    session: str
    agent: str | None
    source: KeySource


def identify(headers: Mapping[str, str], body: JsonObject) -> ConversationKey:
    """The conversation that a Messages request belongs to. `headers` are in lower case."""
    session = headers.get(_SESSION_HEADER)
    if session:
        session, agent = _short(session), headers.get(_AGENT_HEADER)
        agent = _short(agent) if agent else None
        return ConversationKey(f"{session}/{agent or ''}", session, agent, KeySource.HEADERS)
    session = _session_in_metadata(body)
    if session:
        session, told = _short(session), _fingerprint(body, tools=False)
        return ConversationKey(f"{session}/{told}", session, None, KeySource.METADATA)
    told = _fingerprint(body, tools=True)
    return ConversationKey(told, told, None, KeySource.PREFIX)


def _short(name: str) -> str:
    if len(name) <= _LONGEST_ID and name.isprintable():
        return name
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _session_in_metadata(body: JsonObject) -> str | None:
    metadata = body.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    if not isinstance(user, str) or not user.startswith("{"):
        return None
    try:
        session = json.loads(user).get("session_id")
    except (ValueError, RecursionError):
        return None
    return session if isinstance(session, str) else None


def _fingerprint(body: JsonObject, *, tools: bool) -> str:
    """A hash of what a conversation began with. Text is the same as a string and as a block."""
    parts: list[bytes] = []

    def add(kind: bytes, text: str) -> None:
        told = text.encode("utf-8", "surrogatepass")
        parts.append(b"%s %d\n" % (kind, len(told)))
        parts.append(told)

    for block in _blocks(body.get("system")):
        text = _text(block)
        if text is not None and not text.startswith(_BILLING_HEADER):
            add(b"system", text)
    if tools:
        for tool in _items(body.get("tools")):
            name = tool.get("name")
            add(b"tool", name if isinstance(name, str) else "")
    first = next((message for message in _items(body.get("messages")) if message.get("role") == "user"), None)
    for block in _blocks(first.get("content") if first is not None else None):
        text = _text(block)
        if text is None:
            add(b"block", _as_json({key: value for key, value in block.items() if key != "cache_control"}))
        elif text := without_reminders(text):
            add(b"user", text)
    return sha256(b"".join(parts)).hexdigest()[:32]  # which processors know: in half of blake2b's time


def _as_json(value: Json) -> str:
    try:
        return json.dumps(value)
    except RecursionError:  # nested beyond reason: whoever it is sent to will say so
        return ""


# ------------------------------------------------------------------ what kind of call


def kind_of(headers: Mapping[str, str], body: JsonObject) -> CallKind:
    """What kind of call a Messages request is. `headers` are in lower case.

    Claude Code's own classifier is taken to be whatever it sends that is not streamed and is no turn of an agent: too
    much rather than too little, since a call that is taken for it only stays where it is.
    """
    if "max_tokens" not in body:  # Messages requires it, count_tokens refuses it
        return CallKind.COUNT
    claude_code = _SESSION_HEADER in headers or headers.get("user-agent", "").startswith("claude-cli/")
    if not claude_code:
        return CallKind.MAIN
    tools = body.get("tools")
    if not tools and _is_title(body):
        return CallKind.TITLE
    choice = body.get("tool_choice")
    forced = isinstance(choice, dict) and choice.get("type") in ("any", "tool")
    alone = len(_list(body.get("messages"))) == 1
    if body.get("stream") is not True and (not tools or forced):
        return CallKind.SAFETY
    if _is_compaction(body):
        return CallKind.COMPACTION
    if headers.get(_AGENT_HEADER):
        return CallKind.SUBAGENT
    if forced or (not tools and alone and not body.get("thinking")):
        return CallKind.SIDE
    return CallKind.SUBAGENT if _billed_as_subagent(body) else CallKind.MAIN


def _is_title(body: JsonObject) -> bool:
    config = body.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else None
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return isinstance(properties, dict) and list(properties) == ["title"]


def _is_compaction(body: JsonObject) -> bool:
    messages = _list(body.get("messages"))
    last = messages[-1] if len(messages) > 1 else None
    if not isinstance(last, dict) or last.get("role") != "user":
        return False
    for block in _blocks(last.get("content")):
        text = _text(block)
        if text is not None and len(text) >= _SUMMARY_REQUEST_CHARS and all(part in text for part in _SUMMARY_PARTS):
            return True
    return False


def _billed_as_subagent(body: JsonObject) -> bool:
    for block in _blocks(body.get("system")):
        text = _text(block)
        if text is not None and text.startswith(_BILLING_HEADER):
            return "cc_is_subagent=true" in text
    return False


# ------------------------------------------------------------------ what is in it


def last_ask(body: JsonObject) -> str:
    """What the human said last: no results of tools, no reminders by the client, no turns of role system.

    After a compaction, or a command that the client carried out itself, one turn holds the client's notes of that and
    what the human said then: the notes are no ask, unless there is nothing else.
    """
    for message in reversed(_list(body.get("messages"))):
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, list) and not any(isinstance(b, dict) and b.get("type") == "text" for b in content):
            continue  # results of tools: in a long loop nearly all turns are
        ask = said(text for block in _blocks(content) if (text := _text(block)))
        if ask:
            return ask
    return ""


def history_of(body: JsonObject, *, prompt_tokens: int, tokenizer_factor: Decimal = Decimal(1)) -> History:
    """What decides which models can take a request, found in one pass. The prompt is as its model counts it."""
    found = contents_of(body)
    asked = body.get("max_tokens")
    return History(
        has_tools=found.tools,
        has_images=found.images,
        has_thinking=found.thinking,
        prompt_tokens=prompt_tokens,
        max_tokens=asked if isinstance(asked, int) and asked > 0 else None,
        tokenizer_factor=tokenizer_factor,
        in_tool_loop=in_tool_loop(body),
    )


class Contents:
    """What a request's messages hold, results of tools too.

    `tools`: any are offered, or were called or answered; `images`: there is anything to be looked at, documents too.
    """

    __slots__ = ("images", "thinking", "tools")

    def __init__(self, *, tools: bool) -> None:
        self.tools = tools
        self.images = False
        self.thinking = False

    def look_at(self, content: Json, *, within_result: bool = False) -> None:
        if not isinstance(content, list):
            return
        for block in content:
            if not isinstance(block, dict):
                continue
            kind = block.get("type")
            if kind == "text" or not isinstance(kind, str):
                continue
            if kind == "image":
                self.images = True
            elif kind == "document":
                source = block.get("source")
                self.images = self.images or (isinstance(source, dict) and source.get("type") not in _TEXT_SOURCES)
            elif kind in _THINKING:
                self.thinking = True
            elif kind.endswith(_TOOL_ENDINGS):
                self.tools = True
                if not within_result:
                    self.look_at(block.get("content"), within_result=True)


def contents_of(body: JsonObject) -> Contents:
    """What is in a request, found in one pass."""
    found = Contents(tools=bool(body.get("tools")))
    for message in _list(body.get("messages")):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            found.look_at(content)
    return found


def in_tool_loop(body: JsonObject) -> bool:
    """Whether a request is in the middle of a turn: it answers calls of tools."""
    for message in reversed(_list(body.get("messages"))):
        if isinstance(message, dict) and message.get("role") != "system":
            return any(block.get("type") == "tool_result" for block in _blocks(message.get("content")))
    return False


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _items(value: Json) -> Iterator[JsonObject]:
    return (item for item in _list(value) if isinstance(item, dict))


def _blocks(content: Json) -> Iterator[JsonObject]:
    """The blocks of a content or a system prompt; a string is one block of text."""
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    else:
        yield from _items(content)


def _text(block: JsonObject) -> str | None:
    text = block.get("text") if block.get("type") == "text" else None
    return text if isinstance(text, str) else None


# ------------------------------------------------------------------ what is known of them


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is known of a conversation after its latest reply. Tokens are those of the model that gave it."""

    model_id: str
    turns: int  # answered so far
    prompt_tokens: int  # of the latest request, whole
    output_tokens: int  # of the latest reply
    usual_output_tokens: int  # a moving average
    usual_new_tokens: int  # what comes with a turn beside the reply before it: a moving average
    cache_ttl_seconds: int | None  # what the latest request's cache marks asked for; None: nothing was cached
    warm: Mapping[str, Warmth]  # by model id
    seen_at: float
    account: str | None = None  # of several at the provider, whose key it was last sent with

    def next_turn(self) -> Turn:
        """The turn that is expected next, for `tierwise.policy.switching.weigh`."""
        return Turn(
            prompt_tokens=self.prompt_tokens + self.output_tokens + self.usual_new_tokens,
            output_tokens=self.usual_output_tokens,
            new_tokens=self.usual_new_tokens,
            cache_ttl_seconds=self.cache_ttl_seconds,
        )


class Conversations:
    """The conversations of late: the `most` of them that were used last. For one event loop; the clock is an argument.

    Only calls of which `CallKind.converses` is true belong in here.
    """

    elsewhere = False  # whether to `fetch` before `get`

    def __init__(self, most: int = 20_000) -> None:
        if most < 1:
            raise ValueError(f"most must be 1 or more, not {most}")
        self._most = most
        self._known: OrderedDict[str, Conversation] = OrderedDict()
        self._turns = TurnsToCome()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: ConversationKey) -> Conversation | None:
        """What is known of a conversation; None where it is new, or forgotten."""
        return self.known(key.id)

    def known(self, key_id: str) -> Conversation | None:
        """As `get`, by the key's id."""
        found = self._known.get(key_id)
        if found is not None:
            self._known.move_to_end(key_id)
        return found

    async def fetch(self, key: ConversationKey) -> None:
        """Where they are kept elsewhere (`elsewhere`), makes that `get` knows what is known there."""

    def note(
        self, key: ConversationKey, model_id: str, usage: Usage, now: float, account: str | None = None
    ) -> Conversation:
        """A turn was answered by a model that counted `usage`, at `now` (seconds, on one clock for all)."""
        return self.noted(key.id, model_id, usage, now, account)

    def noted(self, key_id: str, model_id: str, usage: Usage, now: float, account: str | None) -> Conversation:
        """As `note`, by the key's id."""
        known = self._known.get(key_id)
        noted = (
            _begun(model_id, usage, now, account) if known is None else _continued(known, model_id, usage, now, account)
        )
        self._known[key_id] = noted
        self._known.move_to_end(key_id)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return noted

    def learn(self, counts: Iterable[int]) -> None:
        """How many turns past conversations had, in place of what was learned before."""
        self._turns = TurnsToCome.learned(counts)

    def expected_turns(self, turns_so_far: int) -> float:
        """How many turns come after `turns_so_far`, the one that is under way among them.

        The mean of what came after in the conversations that got this far, drawn towards an assumption where those
        are few.
        """
        return self._turns.after(turns_so_far)


def _begun(model_id: str, usage: Usage, now: float, account: str | None) -> Conversation:
    warmth = _warmth(model_id, usage, None, now)
    return Conversation(
        model_id=model_id,
        turns=1,
        prompt_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        usual_output_tokens=usage.output_tokens,
        usual_new_tokens=0,
        cache_ttl_seconds=None if warmth is None else warmth.ttl_seconds,
        warm={} if warmth is None else {model_id: warmth},
        seen_at=now,
        account=account,
    )


def _continued(known: Conversation, model_id: str, usage: Usage, now: float, account: str | None) -> Conversation:
    warmth = _warmth(model_id, usage, known.warm.get(model_id), now)
    warm = {name: held for name, held in known.warm.items() if name != model_id and now < held.expires_at}
    if warmth is not None:
        warm[model_id] = warmth
    new = usage.prompt_tokens - known.prompt_tokens - known.output_tokens
    # Another model counts differently; a shorter prompt was compacted or edited: neither tells what a turn adds.
    told = model_id == known.model_id and new >= 0
    usual_new = new if known.turns == 1 else (3 * known.usual_new_tokens + new) // 4
    return Conversation(
        model_id=model_id,
        turns=known.turns + 1,
        prompt_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        usual_output_tokens=(3 * known.usual_output_tokens + usage.output_tokens) // 4,
        usual_new_tokens=usual_new if told else known.usual_new_tokens,
        cache_ttl_seconds=None if warmth is None else warmth.ttl_seconds,
        warm=warm,
        seen_at=now,
        account=account,
    )


def _warmth(model_id: str, usage: Usage, before: Warmth | None, now: float) -> Warmth | None:
    """What is warm after a request: what it read and wrote, for as long as most of that was written for."""
    held = usage.cache_read_tokens + usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    if not held:
        return None
    for_an_hour = usage.cache_write_1h_tokens
    if before is not None and before.ttl_seconds == _TTL_1H:
        for_an_hour += usage.cache_read_tokens
    ttl_seconds = _TTL_1H if 2 * for_an_hour > held else _TTL_5M
    return Warmth(model_id, held, ttl_seconds, now + ttl_seconds)
