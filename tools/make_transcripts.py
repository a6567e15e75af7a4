"""Makes a directory of Claude Code transcripts of any size, with what is in it written beside it.

    python tools/make_transcripts.py DIR [--sessions 10000] [--bytes 2000000000] [--seed 1]

writes `DIR/projects/**`, which stands for a `~/.claude/projects`, and `DIR/answer.json`: calls and spend in whole
nano-dollars in total, by day, model, project and session, what Claude Code itself says of each session, and what a
reader has to pass over. The same arguments write the same bytes.

The rows are shaped as Claude Code 2.1.330 and 2.1.197 wrote them against the stand-in upstream (tests/clients runs the
real one): a row per content block that repeats the usage of its request, results of tools twice, files of subagents,
forks that repeat their parent's rows under their own session, compactions whose call no row holds, titles that only
`cost-state` knows of, `<synthetic>` rows for errors, snapshots of prompts and tools that are most of a short session.
What was not observed there and is written all the same, because readers must take it: early counts on the first rows of
a request, lines that broke off, kinds of rows that nobody knows, models that have no price. The texts are made up.

The answer is worked out here, call by call, from the small table of prices below. None of tierwise's code takes part.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from bisect import bisect_left
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

CANARY = "zz-canary-5150"  # in asks, replies, arguments and results: found anywhere else, text has got out
UNKNOWN_KIND = "hologram"
UNPRICED = "claude-unreleased-9"

_SECOND = 1_000
_DAY = 86_400 * _SECOND
_START = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) * _SECOND
_NEW_VERSION_FROM = int(datetime(2026, 10, 10, tzinfo=UTC).timestamp()) * _SECOND


# ------------------------------------------------------------------ Money


class Rates(NamedTuple):
    """Nano-dollars a token; one is a dollar per thousand million tokens."""

    fresh: int
    output: int
    read: int
    write_5m: int
    write_1h: int


class Price(NamedTuple):
    """Rates from a day on, for requests whose whole prompt is longer than `above`."""

    since: date
    above: int
    rates: Rates


# Anthropic's prices of October 2026, as published; the last entry that applies counts.
PRICES: dict[str, tuple[Price, ...]] = {
    "claude-fable-5-1": (Price(date.min, 0, Rates(10_000, 50_000, 250, 12_500, 20_000)),),
    "claude-opus-5-5": (Price(date.min, 0, Rates(4_000, 20_000, 200, 5_000, 8_000)),),
    "claude-opus-4-8": (Price(date.min, 0, Rates(5_000, 25_000, 500, 6_250, 10_000)),),
    "claude-sonnet-5-5": (
        Price(date.min, 0, Rates(2_000, 10_000, 200, 2_500, 4_000)),
        Price(date(2026, 10, 7), 0, Rates(2_000, 10_000, 100, 2_500, 4_000)),
    ),
    "claude-sonnet-5": (Price(date.min, 0, Rates(2_000, 10_000, 200, 2_500, 4_000)),),
    "claude-haiku-5-5": (
        Price(date.min, 0, Rates(100, 500, 10, 125, 200)),
        Price(date.min, 100_000, Rates(500, 2_500, 50, 625, 1_000)),
    ),
    "claude-haiku-4-5-20251001": (Price(date.min, 0, Rates(1_000, 5_000, 100, 1_250, 2_000)),),
}
_SEARCH = 10_000_000  # nano-dollars a web search


class Tokens(NamedTuple):
    """What one request used."""

    fresh: int
    output: int
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0
    thinking: int = 0
    searches: int = 0

    def plus(self, other: Tokens) -> Tokens:
        """Both."""
        return Tokens(*(a + b for a, b in zip(self, other, strict=True)))


def cost(model: str, day: date, tokens: Tokens, *, in_us: bool = False) -> int | None:
    """Nano-dollars; None: the model has no price."""
    prompt = tokens.fresh + tokens.read + tokens.write_5m + tokens.write_1h
    rates = None
    for price in PRICES.get(model, ()):
        if price.since <= day and prompt > price.above:
            rates = price.rates
    if rates is None:
        return None
    total = (
        tokens.fresh * rates.fresh
        + tokens.output * rates.output
        + tokens.read * rates.read
        + tokens.write_5m * rates.write_5m
        + tokens.write_1h * rates.write_1h
    )
    if in_us:  # a tenth more, half to even; a search costs the same everywhere
        tenths, rest = divmod(total * 11, 10)
        total = tenths + (rest > 5 or (rest == 5 and tenths % 2))
    return total + tokens.searches * _SEARCH


# ------------------------------------------------------------------ The answer


@dataclass
class Sum:
    """Calls and what they cost."""

    calls: int = 0
    nanousd: int = 0

    def add(self, nanousd: int) -> None:
        """One more."""
        self.calls += 1
        self.nanousd += nanousd


@dataclass
class SessionAnswer(Sum):
    """Of one session: its own calls, each counted where it was made."""

    project: str = ""
    fork_of: str | None = None
    claude_code_nanousd: int | None = None  # its `cost-state`; None: it wrote none
    taken_over_nanousd: int = 0  # of that: what its parent had cost when it was forked
    unknown_model: bool = False


@dataclass
class Answer:
    """What is in the directory."""

    seed: int
    bytes: int = 0
    files: int = 0
    rows: int = 0
    calls: int = 0
    nanousd: int = 0
    unpriced_calls: int = 0
    first_day: str = ""
    last_day: str = ""
    tokens: dict[str, int] = field(default_factory=dict)
    by_day: dict[str, Sum] = field(default_factory=dict)
    by_model: dict[str, Sum] = field(default_factory=dict)
    by_project: dict[str, Sum] = field(default_factory=dict)
    by_kind: dict[str, Sum] = field(default_factory=dict)
    by_session: dict[str, SessionAnswer] = field(default_factory=dict)
    synthetic_rows: int = 0
    broken_lines: int = 0
    unknown_kinds: dict[str, int] = field(default_factory=dict)

    @property
    def reconciled(self) -> dict[str, int]:
        """What comparing sessions that made calls with Claude Code's own figures finds, to the micro-dollar."""
        own = [one for one in self.by_session.values() if one.calls and one.claude_code_nanousd is not None]
        known = [one for one in own if not one.unknown_model]
        told = [(one.claude_code_nanousd or 0) - one.taken_over_nanousd for one in known]
        missing = [total - one.nanousd for total, one in zip(told, known, strict=True)]
        return {
            "sessions": len(known),
            "agreeing": sum(abs(one) < 1_000 for one in missing),
            "claude_code_nanousd": sum(told),
            "not_in_transcript_nanousd": sum(missing),
            "unknown_model_sessions": len(own) - len(known),
        }

    def count(
        self, session: SessionAnswer, tokens: Tokens, nanousd: int | None, *, kind: str, model: str, day: str
    ) -> None:
        """One call."""
        price = nanousd or 0
        self.calls += 1
        self.nanousd += price
        self.unpriced_calls += nanousd is None
        self.first_day = min(self.first_day or day, day)
        self.last_day = max(self.last_day, day)
        session.add(price)
        for sums, key in (
            (self.by_day, day),
            (self.by_model, model),
            (self.by_project, session.project),
            (self.by_kind, kind),
        ):
            sums.setdefault(key, Sum()).add(price)
        for name, count in tokens._asdict().items():
            self.tokens[name] = self.tokens.get(name, 0) + count

    def as_json(self) -> str:
        """The file's text."""
        return json.dumps({**asdict(self), "reconciled": self.reconciled}, indent=1)


# ------------------------------------------------------------------ Texts

_NOUNS = (
    "queue parser ledger window shard digest cursor batch retry socket schema migration index cache router handler "
    "token budget invoice printer harbour lantern glacier orchard compass meadow river copper anchor velvet thunder"
)
_WORDS = tuple(_NOUNS.split())
_ASKS = (
    "Rename {a} to {b} everywhere in src/{c}.py",
    "The {a} test fails since the {b} change, find out why and fix it",
    "Write a unit test for the {a} {b} that covers the empty {c}",
    "Explain how the {a} talks to the {b}",
    "Summarise the last ten commits that touched the {a}",
    "Refactor the {a} so that the {b} no longer needs the {c}",
    "Translate the {a} messages into German",
    "Review this diff of the {a} for mistakes in the {b}",
    "Add a --{a} option to the {b} command",
    "Which files mention {a}? List them",
    "Extract every {a} and its {b} from the log as JSON",
    "Write the commit message for the {a} change",
    "Design a way to keep the {a} and the {b} apart when the {c} grows",
    "Run the tests of the {a} and tell me what is red",
    "Document the {a} in the README, one paragraph",
    "Drop the {a} table in production after a backup of the {b}",
    "Is the {a} check of the {b} safe against injection?",
    "Convert the {a} configuration from YAML to TOML",
)
_TOOLS = (("Read", 30), ("Bash", 30), ("Edit", 20), ("Grep", 10), ("Write", 6), ("WebSearch", 4))
_TOOL_NAMES = tuple(name for name, _ in _TOOLS)
_TOOL_WEIGHTS = tuple(accumulate(weight for _, weight in _TOOLS))


class Texts:
    """Lines that look like code, logs and prose, escaped for JSON already, so that taking some costs a slice."""

    def __init__(self, rng: random.Random) -> None:
        lines = []
        for number in range(40_000):
            a, b, c = rng.choices(_WORDS, k=3)
            shape = rng.randrange(8)
            if shape == 0:
                line = f'    raise ValueError(f"{a}: {{{b}!r}} is no {c}; use one of {{names}}")'
            elif shape == 1:
                line = (
                    f"2026-10-{number % 31 + 1:02d} 12:{number % 60:02d}:07 INFO {a}.{b} {c}={number * 7919 % 100_003}"
                )
            elif shape == 2:
                line = f"The {a} keeps the {b} — naïvely, “as it was” — until the {c} has gone; 漢字, 🚦."
            elif shape == 3:
                line = ""
            else:
                line = f"{' ' * (4 * (shape - 4))}{a}_{b} = self.{c}.{a}({b}[{number % 97}:], {c!r})"
            lines.append(json.dumps(line + "\n", ensure_ascii=False)[1:-1])
        self._text = "".join(lines)
        self._ends = [0, *accumulate(map(len, lines))]

    def some(self, rng: random.Random, chars: int) -> str:
        """About this many characters, whole lines."""
        chars = min(chars, len(self._text) // 2)
        first = bisect_left(self._ends, int(rng.random() * (len(self._text) - chars - 1_000)))
        last = bisect_left(self._ends, self._ends[first] + chars)
        return self._text[self._ends[first] : self._ends[last]]


# ------------------------------------------------------------------ Sessions


@dataclass(frozen=True)
class Version:
    """What a version of Claude Code writes."""

    name: str
    snapshots: bool  # of requests, prompts and tools, and what a session cost
    models: tuple[tuple[str, ...], tuple[int, ...]]  # and their weights
    small: str  # of subagents and titles
    least: int  # bytes of a session about


_OLD = Version(
    "2.1.197",
    False,
    (("claude-opus-4-8", "claude-sonnet-5", "claude-sonnet-5-5", "claude-haiku-4-5-20251001"), (40, 30, 20, 10)),
    "claude-haiku-4-5-20251001",
    12_000,
)
_NEW = Version(
    "2.1.330",
    True,
    (("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-1", UNPRICED), (45, 35, 12, 6, 2)),
    "claude-haiku-5-5",
    150_000,
)
_ROUND = 18_000  # bytes of a tool call and its result, about
_CLAUDE_CODE_GUESS = PRICES["claude-opus-5-5"]  # what it takes an unknown model for


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class _Session:
    """One session, being written."""

    def __init__(
        self, rng: random.Random, texts: Texts, answer: Answer, *, version: Version, at: int, project: str
    ) -> None:
        self.rng = rng
        self.texts = texts
        self.answer = answer
        self.version = version
        self.at = at
        self.id = self.uuid()
        self.cwd = f"/home/dev/src/{project}"
        self.sums = SessionAnswer(project=project)
        self.in_us = rng.random() < 0.03
        self.model = rng.choices(*version.models)[0]
        self.own: dict[str, tuple[Tokens, int]] = {}  # as Claude Code adds it up
        self.files: dict[str, list[str]] = {}
        self.size = 0  # of all of them, in characters
        self.budget = 0
        self.tail = (
            f'"userType":"external","entrypoint":"cli","cwd":"{self.cwd}","sessionId":"{self.id}",'
            f'"version":"{version.name}","gitBranch":"main"}}'
        )

    def uuid(self) -> str:
        digits = f"{self.rng.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def spent(self, model: str, tokens: Tokens) -> int | None:
        """Counts what a request used as Claude Code does; its price."""
        day = datetime.fromtimestamp(self.at / 1000, UTC).date()
        nanousd = cost(model, day, tokens, in_us=self.in_us)
        told = nanousd
        if told is None:
            self.sums.unknown_model = True
            rates = _CLAUDE_CODE_GUESS[0].rates
            told = tokens.fresh * rates.fresh + tokens.output * rates.output
        before, usd = self.own.get(model, (Tokens(0, 0), 0))
        self.own[model] = (before.plus(tokens), usd + told)
        return nanousd

    def cost_state(self) -> str:
        """The row that closes a session, or a part of it."""
        usage = {
            model: {
                "inputTokens": tokens.fresh,
                "outputTokens": tokens.output,
                "thinkingTokens": tokens.thinking,
                "cacheReadInputTokens": tokens.read,
                "cacheCreationInputTokens": tokens.write_5m + tokens.write_1h,
                "cacheCreationEphemeral5mInputTokens": tokens.write_5m,
                "cacheCreationEphemeral1hInputTokens": tokens.write_1h,
                "webSearchRequests": tokens.searches,
                "costUSD": usd / 1e9,
            }
            for model, (tokens, usd) in self.own.items()
        }
        self.sums.claude_code_nanousd = sum(usd for _, usd in self.own.values())
        row = {
            "type": "cost-state",
            "sessionId": self.id,
            "totalCostUSD": self.sums.claude_code_nanousd / 1e9,
            "totalAPIDuration": 1_000 * self.sums.calls,
            "totalAPIDurationWithoutRetries": 1_000 * self.sums.calls,
            "totalToolDuration": 300 * self.sums.calls,
            "totalLinesAdded": 0,
            "totalLinesRemoved": 0,
            "totalDuration": 2_000 * self.sums.calls,
            "startTime": self.at,
            "modelUsage": usage,
            "hasUnknownModelCost": self.sums.unknown_model,
        }
        return json.dumps(row, separators=(",", ":")) + "\n"

    def aside(self) -> None:
        """A call that no row holds: of a title, say."""
        self.spent(self.version.small, Tokens(self.rng.randrange(300, 3_000), self.rng.randrange(10, 60)))


class _Thread:
    """One file of a session: its main loop, or an agent's."""

    def __init__(self, session: _Session, model: str, agent: str | None = None, kind: str = "general-purpose") -> None:
        self.session = session
        self.rng = session.rng
        self.model = model
        self.agent = agent
        self.kind = kind
        self.ttl = 300 if agent or self.rng.random() < 0.2 else 3_600
        self.rows: list[str] = []
        self.last = "null"
        self.prompt = session.uuid()
        self.context = self.rng.randrange(14_000, 24_000)
        self.cached = 0
        self.used_at = session.at
        self.can_be_forked = True  # a fork repeats neither files of agents nor what came before a compaction
        self.ids = f'"isSidechain":{"true" if agent else "false"},' + (f'"agentId":"{agent}",' if agent else "")
        name = f"{session.id}/subagents/agent-{agent}.jsonl" if agent else f"{session.id}.jsonl"
        session.files[name] = self.rows

    # -- rows

    def add(self, row: str) -> None:
        self.rows.append(row)
        self.session.size += len(row)

    def tick(self, least: int, most: int) -> None:
        """Time goes by; the rows of a request never lie on both sides of midnight."""
        session = self.session
        session.at += self.rng.randrange(least, most)
        if session.at % _DAY > _DAY - 10 * _SECOND:
            session.at += 20 * _SECOND

    def chained(self, fields: str) -> str:
        """A row of the conversation, after the one before it; its uuid."""
        session = self.session
        uuid = session.uuid()
        self.add(
            f'{{"parentUuid":{self.last},{self.ids}{fields},"uuid":"{uuid}","timestamp":"{_iso(session.at)}",'
            f"{session.tail}\n"
        )
        self.last = f'"{uuid}"'
        return uuid

    def attachment(self, kind: str, chars: int) -> None:
        self.chained(
            f'"attachment":{{"type":"{kind}","content":"{self.session.texts.some(self.rng, chars)}","isInitial":true}},'
            f'"type":"attachment"'
        )

    def tools(self, chars: int) -> str:
        """Declarations of a dozen tools, as requests carry them."""
        some, share = self.session.texts.some, chars // 12
        return ",".join(
            f'{{"name":"{name}","description":"{some(self.rng, share // 2)}","input_schema":{{"$schema":'
            f'"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{{"command":{{"description":"'
            f'{some(self.rng, share // 4)}","type":"string"}},"timeout":{{"description":"{some(self.rng, share // 8)}",'
            f'"type":"number"}}}},"required":["command"],"additionalProperties":false}}}}'
            for name in _TOOL_NAMES * 2
        )

    def prelude(self) -> None:
        """What a session begins with, before anything is asked of a model."""
        session, some = self.session, self.session.texts.some
        new = session.version.snapshots
        if new:
            for kind, chars in (("environment", 900), ("model", 300), ("deferred_tools_delta", 800)):
                self.attachment(kind, chars)
        self.attachment("agent_listing_delta", 3_200 if new else 1_500)
        self.attachment("skill_listing", 13_000 if new else 4_600)
        if not new:
            return
        for kind, chars in (("session_context", 10), ("date", 60), ("remote_session_change", 800)):
            self.attachment(kind, chars)
        self.attachment("prompt_snapshot", 6_800)
        self.add(
            f'{{"type":"api-request-shape","sessionId":"{session.id}","shapeHash":"{session.uuid()}","timestamp":'
            f'"{_iso(session.at)}","version":"2.1.330","shape":{{"system":[{{"type":"text","text":'
            f'"{some(self.rng, 6_500)}"}}],"tools":[{self.tools(31_000)}]}}}}\n'
        )
        for chars in (500, 9_200):
            self.add(
                f'{{"type":"api-request-blob","sessionId":"{session.id}","hash":"{session.uuid()}","message":{{"role":'
                f'"user","content":[{{"type":"text","text":"{some(self.rng, chars)}"}}]}}}}\n'
            )

    def snapshot(self) -> None:
        """What 2.1.330 keeps of the prompt once the first answer is there."""
        some = self.session.texts.some
        self.chained(
            f'"attachment":{{"type":"prompt_snapshot","systemPrompt":["{some(self.rng, 6_000)}"],"tools":'
            f'[{self.tools(48_000)}]}},"type":"attachment"'
        )

    def ask(self) -> None:
        """A person, or a calling agent, asks for something."""
        session = self.session
        a, b, c = self.rng.choices(_WORDS, k=3)
        text = self.rng.choice(_ASKS).format(a=f"{a} {self.rng.randrange(1_000)}", b=b, c=c)
        if self.rng.random() < 0.05:
            text += f" {CANARY}"
        if not self.agent:
            at = _iso(session.at)
            self.add(
                f'{{"type":"queue-operation","operation":"enqueue","timestamp":"{at}","sessionId":"{session.id}",'
                f'"content":"{text}"}}\n'
            )
            self.add(
                f'{{"type":"queue-operation","operation":"dequeue","timestamp":"{at}","sessionId":"{session.id}"}}\n'
            )
        self.prompt = session.uuid()
        self.context += 200 + len(text) // 4
        self.chained(f'"promptId":"{self.prompt}","type":"user","message":{{"role":"user","content":"{text}"}}')

    # -- calls

    def call(self, tool: str | None, arguments: str = "", *, interrupted: bool = False) -> str:
        """A request and the rows of its answer; the id of the tool call in it."""
        session, rng = self.session, self.rng
        self.tick(1_500, 25_000)
        warm = session.at - self.used_at < self.ttl * _SECOND
        read = self.cached if warm else 0
        fresh = rng.randrange(2, 12)
        written = max(0, self.context - read - fresh)
        output = rng.randrange(1, 9) if interrupted else int(rng.lognormvariate(5.3, 0.9)) + len(arguments) // 4 + 20
        thinks = rng.random() < 0.5
        tokens = Tokens(
            fresh,
            output,
            read,
            written if self.ttl == 300 else 0,
            written if self.ttl != 300 else 0,
            output // 3 if thinks else 0,
            rng.randrange(1, 4) if tool == "WebSearch" else 0,
        )
        self.used_at, self.cached = session.at, read + written
        self.context += output
        nanousd = session.spent(self.model, tokens)
        session.answer.count(
            session.sums,
            tokens,
            nanousd,
            kind="subagent" if self.agent else "main",
            model=self.model,
            day=_iso(session.at)[:10],
        )
        return self._answered(tokens, tool, arguments, thinks=thinks, interrupted=interrupted)

    def _answered(self, tokens: Tokens, tool: str | None, arguments: str, *, thinks: bool, interrupted: bool) -> str:
        session, rng = self.session, self.rng
        new = session.version.snapshots
        words = session.texts.some(rng, rng.randrange(60, 300) if tool else tokens.output * 4)
        tool_id = f"toolu_01{rng.getrandbits(110):022x}"
        blocks = []
        if thinks:
            blocks.append(f'{{"type":"thinking","thinking":"","signature":"{rng.getrandbits(1_600):x}"}}')
        if tool is None or rng.random() < 0.4:
            blocks.append(f'{{"type":"text","text":"{words} {CANARY}"}}')
        if tool is not None:
            blocks.append(f'{{"type":"tool_use","id":"{tool_id}","name":"{tool}","input":{{{arguments}}}}}')
        message, request, ref = (
            f"msg_01{rng.getrandbits(110):022x}",
            f"req_011C{rng.getrandbits(100):020x}",
            session.uuid(),
        )
        reason = "null" if interrupted else '"tool_use"' if tool else '"end_turn"'
        ttl = "5m" if self.ttl == 300 else "1h"
        if new:
            self.add(
                f'{{"type":"api-request","sessionId":"{session.id}","id":"{ref}","timestamp":"{_iso(session.at)}",'
                f'"version":"2.1.330","querySource":"sdk","shapeHash":"{session.uuid()}","params":{{"model":'
                f'"{self.model}","max_tokens":128000,"thinking":{{"type":"adaptive","display":"omitted"}},'
                f'"output_config":{{"effort":"medium"}}}},"keep":0,"tail":["{session.uuid()}","{session.uuid()}"],'
                f'"cacheControl":[{{"path":["system",0],"value":{{"type":"ephemeral","ttl":"{ttl}"}}}}]}}\n'
            )
            extra = (
                f'"requestId":"{request}","requestRef":"{ref}","requestedModel":"{self.model}","promptCacheRequested":'
                f'"{ttl}"{self._attributed}'
            )
            made = '"effort":"medium","perTurnEffort":"medium","madeBy":"model",'
        else:
            extra, made = f'"requestId":"{request}"{self._attributed}', ""
        early = not new and len(blocks) > 1 and rng.random() < 0.25
        for index, block in enumerate(blocks):
            usage = self._usage(
                tokens._replace(output=min(8, tokens.output)) if early and block != blocks[-1] else tokens
            )
            uuid = session.uuid()
            place = f'"apiBlockIndex":{index},' if new else ""
            self.add(
                f'{{"parentUuid":{self.last},{self.ids}"message":{{"id":"{message}","type":"message","role":"assistant",'
                f'"model":"{self.model}","content":[{block}],"stop_reason":{reason},"stop_sequence":null,"usage":{usage},'
                f'"stop_details":null}},{place}{extra},"type":"assistant","uuid":"{uuid}",'
                f'"timestamp":"{_iso(session.at + 3 * index)}",{made}{session.tail}\n'
            )
            self.last = f'"{uuid}"'
        return tool_id

    @property
    def _attributed(self) -> str:
        return f',"attributionAgent":"{self.kind}"' if self.agent else ""

    def _usage(self, tokens: Tokens) -> str:
        session = self.session
        new = session.version.snapshots
        details = f'"output_tokens_details":{{"thinking_tokens":{tokens.thinking}}},' if new else ""
        credit = ',"fallback_credit":null' if new else ""
        return (
            f'{{"input_tokens":{tokens.fresh},"cache_creation_input_tokens":{tokens.write_5m + tokens.write_1h},'
            f'"cache_read_input_tokens":{tokens.read},"output_tokens":{tokens.output},{details}"server_tool_use":'
            f'{{"web_search_requests":{tokens.searches},"web_fetch_requests":0}},"service_tier":"standard",'
            f'"cache_creation":{{"ephemeral_1h_input_tokens":{tokens.write_1h},"ephemeral_5m_input_tokens":'
            f'{tokens.write_5m}}},"inference_geo":"{"us" if session.in_us else ""}","iterations":[],"speed":"standard"'
            f"{credit}}}"
        )

    def result(self, tool: str, tool_id: str, chars: int, extra: str = "") -> None:
        """What a tool gave, told twice."""
        self.tick(50, 8_000)
        text = self.session.texts.some(self.rng, chars)
        self.context += len(text) // 4
        source = self.last
        told = extra or f'"stdout":"{text}","stderr":"","interrupted":false,"isImage":false,"noOutputExpected":false'
        if tool == "Read":
            told = f'"type":"text","file":{{"filePath":"{self.session.cwd}/a.py","content":"{text}","numLines":40}}'
        self.chained(
            f'"promptId":"{self.prompt}","type":"user","message":{{"role":"user","content":[{{"tool_use_id":"{tool_id}",'
            f'"type":"tool_result","content":"{text} {CANARY}","is_error":false}}]}},"toolUseResult":{{{told}}},'
            f'"sourceToolAssistantUUID":{source}'
        )

    def round(self) -> None:
        """A tool is called, and answers."""
        rng = self.rng
        tool = rng.choices(_TOOL_NAMES, cum_weights=_TOOL_WEIGHTS)[0]
        path = f'"file_path":"{self.session.cwd}/{rng.choice(_WORDS)}.py"'
        match tool:
            case "Bash":
                arguments = f'"command":"pytest -q tests/{rng.choice(_WORDS)} # {CANARY}","description":"Run the tests"'
            case "Edit":
                old, new = (self.session.texts.some(rng, rng.randrange(80, 800)) for _ in range(2))
                arguments = f'"replace_all":false,{path},"old_string":"{old}","new_string":"{new}"'
            case "Write":
                arguments = f'{path},"content":"{self.session.texts.some(rng, rng.randrange(500, 6_000))}"'
            case "Grep" | "WebSearch":
                arguments = f'"query":"{rng.choice(_WORDS)} {CANARY}"'
            case _:
                arguments = path
        tool_id = self.call(tool, arguments)
        self.result(tool, tool_id, min(60_000, int(rng.lognormvariate(7.4, 1.3))))

    def delegate(self) -> None:
        """An agent is called, works in a file of its own, and reports."""
        self.can_be_forked = False
        session, rng = self.session, self.rng
        agent, kind = f"a{rng.getrandbits(64):016x}", rng.choice(("general-purpose", "Explore", "Plan"))
        tool_id = self.call("Agent", f'"description":"Look around","prompt":"Look {CANARY}","subagent_type":"{kind}"')
        model = session.version.small if rng.random() < 0.6 else self.model
        sub = _Thread(session, model, agent, kind)
        sub.ask()
        sub.attachment("skill_listing", 5_000)
        for _ in range(rng.randrange(1, 6)):
            sub.round()
        sub.call(None)
        meta = {"agentType": kind, "description": "Look around", "toolUseId": tool_id, "spawnDepth": 1}
        session.files[f"{session.id}/subagents/agent-{agent}.meta.json"] = [json.dumps(meta, separators=(",", ":"))]
        # The total that the caller is told: whoever counted it would count the agent twice.
        told = (
            f'"status":"completed","agentId":"{agent}","agentType":"{kind}","resolvedModel":"{model}","totalTokens":9999,'
            f'"usage":{sub._usage(Tokens(99, 9_999, 99_999))}'
        )
        self.result("Agent", tool_id, 900, told)

    def compact(self) -> None:
        """The conversation so far is summarized by a call that no row holds."""
        self.can_be_forked = False
        session, rng = self.session, self.rng
        self.tick(5_000, 60_000)
        session.spent(self.model, Tokens(3, rng.randrange(1_000, 3_000), self.cached, 0, self.context - self.cached))
        before, self.last = self.context, "null"
        self.context = rng.randrange(18_000, 26_000)
        self.cached = 0
        self.chained(
            f'"type":"system","subtype":"compact_boundary","content":"Conversation compacted","isMeta":false,'
            f'"level":"info","compactMetadata":{{"trigger":"auto","preTokens":{before},"postTokens":{self.context}}}'
        )
        self.chained(
            f'"promptId":"{session.uuid()}","type":"user","message":{{"role":"user","content":"This session is being '
            f'continued from a previous conversation. {session.texts.some(rng, 6_000)}"}},'
            f'"isVisibleInTranscriptOnly":true,"isCompactSummary":true'
        )

    def fail(self) -> None:
        """The API is overloaded, and stays so: two rows that cost nothing."""
        session = self.session
        request = f"req_011C{self.rng.getrandbits(100):020x}"
        self.chained(
            f'"type":"system","subtype":"api_error","level":"error","error":{{"message":"529 overloaded","status":529,'
            f'"requestId":"{request}"}},"retryInMs":532,"retryAttempt":1,"maxRetries":10'
        )
        session.answer.synthetic_rows += 1
        self.chained(
            f'"type":"assistant","message":{{"id":"{session.uuid()}","container":null,"model":"<synthetic>","role":'
            f'"assistant","stop_details":null,"stop_reason":"stop_sequence","stop_sequence":"","type":"message","usage":'
            f'{{"input_tokens":0,"output_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,'
            f'"server_tool_use":{{"web_search_requests":0,"web_fetch_requests":0}},"service_tier":null,"cache_creation":'
            f'{{"ephemeral_1h_input_tokens":0,"ephemeral_5m_input_tokens":0}},"inference_geo":null,"iterations":null,'
            f'"speed":null}},"content":[{{"type":"text","text":"API Error: 529 overloaded"}}],'
            f'"context_management":null}},"requestId":"{request}","error":"server_error","isApiErrorMessage":true,"apiErrorStatus":529'
        )

    def interrupt(self) -> None:
        """A person stops an answer: what had come by then is kept, and costs."""
        self.call(None, interrupted=True)
        self.chained(
            '"type":"user","message":{"role":"user","content":[{"type":"text","text":"[Request interrupted by user]"}]}'
        )

    def turn(self) -> None:
        """Something is asked, worked on and answered."""
        rng = self.rng
        self.ask()
        session = self.session
        while (left := session.budget - session.size) > _ROUND and rng.random() < 0.85:
            if not self.agent and left > 5 * _ROUND and rng.random() < 0.06:
                self.delegate()
            else:
                self.round()
        chance = rng.random()
        if chance < 0.01:
            self.fail()
        elif chance < 0.03:
            self.interrupt()
        else:
            self.call(None)
        if self.context > 170_000:
            self.compact()
        if rng.random() < 0.01:
            kinds = self.session.answer.unknown_kinds
            kinds[UNKNOWN_KIND] = kinds.get(UNKNOWN_KIND, 0) + 1
            self.add(f'{{"type":"{UNKNOWN_KIND}","sessionId":"{self.session.id}","payload":{{"depth":3}}}}\n')
        self.tick(10_000, 1_200_000 if rng.random() < 0.9 else 9_000_000)

    def fork(self, parent: _Thread) -> None:
        """Repeats a parent's conversation: other session, same requests, and all that it had cost by then."""
        session, before = self.session, parent.session
        session.model = self.model = parent.model
        session.in_us = before.in_us
        session.own = dict(before.own)
        session.sums.fork_of = before.id
        session.sums.unknown_model = before.sums.unknown_model
        session.sums.taken_over_nanousd = sum(usd for _, usd in before.own.values())
        named, own = f'"sessionId":"{before.id}"', f'"sessionId":"{session.id}"'
        made = f',"requestSessionId":"{before.id}"' if session.version.snapshots else ""
        for row in parent.rows:
            if not row.startswith('{"parentUuid"') or not row.endswith("}\n"):
                continue
            copy = row.replace(named, own)
            session.answer.synthetic_rows += '"model":"<synthetic>"' in row
            self.add(f"{copy[:-2]}{made}}}\n" if '"type":"assistant"' in row else copy)
        self.last, self.ttl, self.context = parent.last, parent.ttl, parent.context
        self.cached, self.used_at = parent.cached, parent.used_at

    def converse(self) -> None:
        """Turns until the budget is used up."""
        session, rng = self.session, self.rng
        new = session.version.snapshots
        if new and rng.random() < 0.15:
            session.aside()
        snapshot_is_due = new and session.sums.fork_of is None
        while True:
            self.turn()
            if snapshot_is_due:
                self.snapshot()
                snapshot_is_due = False
            if rng.random() < 0.004:
                session.answer.broken_lines += 1
                self.add(f'{{"parentUuid":{self.last},"isSidechain":false,"message":{{"id":"{CANARY}","usa\n')
            if session.size > session.budget - _ROUND:
                break
            if new and rng.random() < 0.05:
                self.add(session.cost_state())  # left, and resumed later: only the last one counts
        self.add(
            f'{{"type":"last-prompt","lastPrompt":"{CANARY}","leafUuid":{self.last},"sessionId":"{session.id}"}}\n'
        )
        if new:
            self.add(session.cost_state())


# ------------------------------------------------------------------ The directory

_PROJECTS = 25
_DAYS = 29


def make(directory: Path, *, sessions: int, size_bytes: int, seed: int = 1) -> Answer:
    """Writes `directory/projects` and `directory/answer.json`; the answer."""
    rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be guessed
    texts, answer = Texts(rng), Answer(seed)
    projects = [f"{a}-{b}" for a, b in zip(rng.sample(_WORDS, _PROJECTS), rng.sample(_WORDS, _PROJECTS), strict=True)]
    starts = [_START + rng.randrange(_DAYS * _DAY) for _ in range(sessions)]
    versions = [_NEW if at >= _NEW_VERSION_FROM else _OLD for at in starts]
    # What is left when each has its least goes to few of them: most sessions are short.
    weights = [rng.lognormvariate(0, 1.5) for _ in range(sessions)]
    spare = max(0, size_bytes - sum(version.least for version in versions)) / sum(weights)
    parent: _Thread | None = None
    for start, version, weight in zip(starts, versions, weights, strict=True):
        forked = parent if parent and parent.session.version is version and rng.random() < 0.1 else None
        at = max(start, forked.session.at + 60 * _SECOND) if forked else start
        project = forked.session.sums.project if forked else rng.choice(projects)
        session = _Session(rng, texts, answer, version=version, at=at, project=project)
        thread = _Thread(session, session.model)
        if forked:
            thread.fork(forked)
        else:
            thread.prelude()
            if rng.random() < 0.1:
                thread.context += 90_000  # a large file was handed in: beyond the band of the smallest model
        session.budget = int(version.least + spare * weight)
        thread.converse()
        answer.by_session[session.id] = session.sums
        _write(directory / "projects" / session.cwd.replace("/", "-"), session, answer)
        small = thread.can_be_forked and session.size < 4 * version.least
        parent = thread if small and not forked else None if forked else parent
    (directory / "answer.json").write_text(answer.as_json(), encoding="utf-8")
    return answer


def _write(folder: Path, session: _Session, answer: Answer) -> None:
    for name, rows in session.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = "".join(rows).encode()
        path.write_bytes(content)
        if name.endswith(".jsonl"):
            answer.files += 1
            answer.rows += len(rows)
            answer.bytes += len(content)


def main() -> int:
    """Writes the directory and says what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "directory", type=Path, help="where projects/ and answer.json go; must not have a projects/ yet"
    )
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=2_000_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if (asked.directory / "projects").exists():
        print(f"{asked.directory / 'projects'} is there already; name another directory", file=sys.stderr)
        return 1
    answer = make(asked.directory, sessions=asked.sessions, size_bytes=asked.bytes, seed=asked.seed)
    print(
        f"{answer.bytes / 1e6:,.0f} MB in {answer.files:,} files: {len(answer.by_session):,} sessions, "
        f"{answer.calls:,} calls, ${answer.nanousd / 1e9:,.2f}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
