"""One session: what it spent, on what, and what it would have cost. Small, and kept while the session stays as it is.

A session's figures depend on its calls, on prices and on policies, and on nothing else: who knows its digest and that
of the rest can take them from a store instead of reading the calls again. Sums are whole nano-dollars and tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from tierwise.analysis.findings import TokenClass
from tierwise.core.calls import CallKind, ImportedCall, ImportedSession
from tierwise.core.json import choose_loads
from tierwise.core.money import Price, PriceBand, usd_to_nanousd
from tierwise.replay.policies import ReplayPolicy, Routed, SubagentsOn
from tierwise.replay.pricing import RateBook
from tierwise.replay.values import Lever, LeverValue, Scenario, SessionReplay

__all__ = ["COLUMNS", "FORMAT", "Cell", "Lens", "Scope", "SessionFindings", "Sums", "Way", "add", "look_at"]

FORMAT = 1  # of what is kept; raised when it or what it means changes

# What is added up in every row, in this order; behind it what the row is expected to cost, for each way of routing.
COLUMNS = (
    "calls",
    "unpriced_calls",
    "nanousd",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
)
Sums = list[int]
Cell = tuple[str, str, str, str]  # day, project, model, task type
UNKNOWN_TYPE = "unknown"
MAIN = "main"


def add(into: dict[str, Sums] | dict[Cell, Sums], key: object, sums: Sequence[int]) -> None:
    """Adds a row's sums to those of the same name."""
    there = into.get(key)  # type: ignore[call-overload]  # one of the two, as its caller has it
    if there is None:
        into[key] = list(sums)  # type: ignore[index]
    else:
        for column, value in enumerate(sums):
            there[column] += value


@dataclass(frozen=True, slots=True)
class Scope:
    """Which calls are counted."""

    since_ms: int | None = None
    until_ms: int | None = None
    project: str | None = None

    def counts(self, call: ImportedCall) -> bool:
        """Whether a call is in."""
        return (
            (self.since_ms is None or call.at_ms >= self.since_ms)
            and (self.until_ms is None or call.at_ms < self.until_ms)
            and (self.project is None or self.is_of(call.project))
        )

    def is_of(self, project: str | None) -> bool:
        """Whether a project is the one asked for: by its whole name, or the last part of a path."""
        name = project or ""
        wanted = self.project or ""
        return name == wanted or (
            bool(wanted) and name.replace("\\", "/").rstrip("/").endswith(f"/{wanted.strip('/')}")
        )

    def may_cut(self, first_ms: int, last_ms: int) -> bool:
        """Whether a session of these times may have calls that are not counted."""
        return (
            self.project is not None
            or (self.since_ms is not None and first_ms < self.since_ms)
            or (self.until_ms is not None and last_ms >= self.until_ms)
        )

    def misses(self, first_ms: int, last_ms: int) -> bool:
        """Whether a session of these times has no call that is counted."""
        return (self.since_ms is not None and last_ms < self.since_ms) or (
            self.until_ms is not None and first_ms >= self.until_ms
        )


class Replays(Protocol):
    """A policy, ready to be replayed."""

    @property
    def policy(self) -> ReplayPolicy:
        """Which one."""
        ...

    def replay(self, session: ImportedSession, *, outcomes: bool = True) -> SessionReplay:
        """One session under it."""
        ...


@dataclass(frozen=True, slots=True)
class Lens:
    """What sessions are looked at with."""

    rates: RateBook
    ways: tuple[Replays, ...]  # of routing; one of them is recommended, which is known when all sessions are seen
    others: tuple[Replays, ...]
    below: Callable[[ImportedSession], int]  # calls that really went too low: that is not the policies' doing
    levers: Callable[[ImportedSession], Mapping[Lever, LeverValue]]
    repriced: bool = False  # policies are at other prices than those of the time


class Way(NamedTuple):
    """What a session would have come to under one way of routing."""

    low: int
    expected: int
    high: int
    moved_calls: int
    below_calls: int  # that went to a lower tier than their work asks for
    contributions: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFindings:
    """What one session comes to. Amounts are over the calls whose price is known."""

    id: str
    source: str
    calls: int
    first_ms: int = 0
    last_ms: int = 0
    cells: Mapping[Cell, Sums] = field(default_factory=dict)
    agents: Mapping[str, Sums] = field(default_factory=dict)
    kinds: Mapping[str, Sums] = field(default_factory=dict)
    phases: Mapping[str, Sums] = field(default_factory=dict)
    token_classes: Mapping[str, int] = field(default_factory=dict)
    unpriced_models: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()
    policies: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # expected, and calls that it sends too low
    levers: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # saved, calls
    own_usd: str | None = None  # the program's own figure, of the whole session
    own_guessed: bool = False  # it, or tierwise, has no price for one of its models
    whole_nanousd: int = 0  # ours, of the whole session, at list prices

    @property
    def nanousd(self) -> int:
        """What was spent."""
        return sum(sums[2] for sums in self.kinds.values())

    def to_bytes(self) -> bytes:
        """To be kept."""
        return json.dumps(
            [
                FORMAT,
                self.id,
                self.source,
                self.calls,
                self.first_ms,
                self.last_ms,
                [[*cell, *sums] for cell, sums in self.cells.items()],
                self.agents,
                self.kinds,
                self.phases,
                self.token_classes,
                self.unpriced_models,
                self.ways,
                self.policies,
                self.levers,
                self.own_usd,
                self.own_guessed,
                self.whole_nanousd,
            ],
            separators=(",", ":"),
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionFindings | None:
        """What `to_bytes` gave; None where that was another version, or is damaged."""
        try:
            told: Any = choose_loads()(data)
            version, *found = told
            if version != FORMAT:
                return None
            (id_, source, calls, first, last, cells, agents, kinds, phases, classes, unpriced) = found[:11]
            (ways, policies, levers, own_usd, guessed, whole) = found[11:]
            return cls(
                id=id_,
                source=source,
                calls=calls,
                first_ms=first,
                last_ms=last,
                cells={(row[0], row[1], row[2], row[3]): row[4:] for row in cells},
                agents=agents,
                kinds=kinds,
                phases=phases,
                token_classes=classes,
                unpriced_models=tuple(unpriced),
                ways=tuple(Way(*way) for way in ways),
                policies={name: (row[0], row[1]) for name, row in policies.items()},
                levers={name: (row[0], row[1]) for name, row in levers.items()},
                own_usd=own_usd,
                own_guessed=guessed,
                whole_nanousd=whole,
            )
        except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
            return None


def look_at(session: ImportedSession, lens: Lens, scope: Scope) -> SessionFindings:
    """What a session comes to, over the calls that are counted.

    The replay sees only those: what was cached before is not known to the model that they would move to, which is how
    it would have been.
    """
    counted = tuple(call for call in session.calls if scope.counts(call))
    spent = [lens.rates.nanousd(call) for call in session.calls]
    # Claude Code counts at list prices, so what is compared with its figure does too.
    whole = sum(lens.rates.nanousd(call, listed=True) or 0 for call in session.calls)
    own = session.own_cost
    guessed = own is not None and (own.has_unknown_model or any(nanousd is None for nanousd in spent))
    if not counted:
        return SessionFindings(id=session.id, source=session.source, calls=0)
    if len(counted) < len(session.calls):
        spent = [nanousd for call, nanousd in zip(session.calls, spent, strict=True) if scope.counts(call)]
        session = replace(session, calls=counted)
    whole_spent = sum(nanousd or 0 for nanousd in spent)
    ways, expected = _ways(session, lens, spent, whole_spent)
    rows = _Rows()
    for place, (call, nanousd) in enumerate(zip(counted, spent, strict=True)):
        rows.take(call, nanousd, [costs[place] for costs in expected])
    return SessionFindings(
        id=session.id,
        source=session.source,
        calls=len(counted),
        first_ms=min(call.at_ms for call in counted),
        last_ms=max(call.at_ms for call in counted),
        cells=rows.cells,
        agents=rows.agents,
        kinds=rows.kinds,
        phases=rows.phases,
        token_classes=_token_classes(counted, spent, lens.rates),
        unpriced_models=tuple(sorted(rows.unpriced)),
        ways=tuple(ways),
        policies=_policies(session, lens, whole_spent),
        levers={lever.value: (value.saved_nanousd, value.calls) for lever, value in lens.levers(session).items()},
        own_usd=None if own is None else str(own.total_usd),
        own_guessed=guessed,
        whole_nanousd=whole,
    )


def _ways(
    session: ImportedSession, lens: Lens, spent: Sequence[int | None], whole: int
) -> tuple[list[Way], list[list[int]]]:
    """What each way of routing would have come to, and each call's part of it.

    Ways that route the same of this session's models are replayed once.
    """
    used = {model.id for call in session.calls if (model := lens.rates.model(call.model)) is not None}
    as_it_was = [nanousd or 0 for nanousd in spent]
    known: dict[object, tuple[Way, list[int]]] = {}
    found = []
    for replays in lens.ways:
        key = _same(replays.policy, used)
        if key not in known:
            replayed = replays.replay(session)
            apart = whole - replayed.actual_nanousd  # what has no price there costs what it did
            contributions = {assumption.value: nanousd for assumption, nanousd in replayed.contributions.items()}
            known[key] = (
                Way(
                    low=apart + replayed.by_scenario[Scenario.LOW],
                    expected=apart + replayed.by_scenario[Scenario.EXPECTED],
                    high=apart + replayed.by_scenario[Scenario.HIGH],
                    moved_calls=replayed.moved_calls,
                    below_calls=replayed.below_calls,
                    contributions=contributions,
                ),
                [
                    was if outcome.nanousd is None else outcome.nanousd
                    for was, outcome in zip(as_it_was, replayed.outcomes, strict=True)
                ],
            )
        found.append(known[key])
    return [way for way, _ in found], [costs for _, costs in found]


def _same(policy: ReplayPolicy, used: set[str]) -> object:
    """Equal for policies that do the same with a session in which these models were used."""
    if not isinstance(policy, Routed):
        return policy.name, id(policy)
    routed = frozenset(used if policy.requests_for is None else used & policy.requests_for)
    return routed, id(policy.settings) if routed else None


def _policies(session: ImportedSession, lens: Lens, whole: int) -> dict[str, tuple[int, int]]:
    if not lens.others:
        return {}
    delegates = any(call.agent is not None or call.kind is CallKind.SUBAGENT for call in session.calls)
    below = lens.below(session)
    found = {}
    for other in lens.others:
        if isinstance(other.policy, SubagentsOn) and not delegates and not lens.repriced:
            found[other.policy.name] = (whole, 0)
            continue
        replayed = other.replay(session, outcomes=False)
        expected = whole - replayed.actual_nanousd + replayed.expected_nanousd
        found[other.policy.name] = (expected, max(0, replayed.below_calls - below))
    return found


class _Rows:
    """The sums of a session, as calls are taken in."""

    def __init__(self) -> None:
        self.cells: dict[Cell, Sums] = {}
        self.agents: dict[str, Sums] = {}
        self.kinds: dict[str, Sums] = {}
        self.phases: dict[str, Sums] = {}
        self.unpriced: set[str] = set()
        self._days: dict[int, str] = {}

    def take(self, call: ImportedCall, nanousd: int | None, expected: Sequence[int]) -> None:
        """One call: what it cost, and what it is expected to cost under each way of routing."""
        usage = call.usage
        sums = (
            1,
            nanousd is None,
            nanousd or 0,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_5m_tokens,
            usage.cache_write_1h_tokens,
            *expected,
        )
        if nanousd is None:
            self.unpriced.add(call.model)
        type_name = UNKNOWN_TYPE if call.classification is None else call.classification.task_type.name
        add(self.cells, (self._day(call.at_ms), call.project or "", call.model, type_name), sums)
        add(self.agents, MAIN if call.agent is None else call.agent_type or "subagent", sums)
        add(self.kinds, call.kind.value, sums)
        add(self.phases, call.phase.value, sums)

    def _day(self, at_ms: int) -> str:
        number = at_ms // 86_400_000
        day = self._days.get(number)
        if day is None:
            day = self._days[number] = datetime.fromtimestamp(number * 86_400, UTC).date().isoformat()
        return day


_TOKENS = (
    TokenClass.INPUT,
    TokenClass.OUTPUT,
    TokenClass.CACHE_READ,
    TokenClass.CACHE_WRITE_5M,
    TokenClass.CACHE_WRITE_1H,
)
_MILLION = Decimal(1_000_000)


def _token_classes(calls: Iterable[ImportedCall], spent: Iterable[int | None], book: RateBook) -> dict[str, int]:
    """What was spent, by class: tokens are added up first by rate, so that nothing is rounded before the end."""
    tokens: dict[int, tuple[Price, PriceBand, list[int]]] = {}  # by the band's identity: it lives as long as the book
    total = told = 0
    for call, nanousd in zip(calls, spent, strict=True):
        if nanousd is None:
            continue
        total += nanousd
        usage = call.usage
        rates = book.of(call)[1]
        if rates is None or not (usage.prompt_tokens or usage.output_tokens or usage.web_searches):
            told += nanousd
            continue
        longest = usage.prompt_tokens if call.band_prompt_tokens is None else call.band_prompt_tokens
        band = rates.price.band_for(longest)
        if id(band) not in tokens:
            tokens[id(band)] = (rates.price, band, [0] * 6)
        sums = tokens[id(band)][2]
        sums[0] += usage.input_tokens
        sums[1] += usage.output_tokens
        sums[2] += usage.cache_read_tokens
        sums[3] += usage.cache_write_5m_tokens
        sums[4] += usage.cache_write_1h_tokens
        sums[5] += usage.web_searches
    exact = dict.fromkeys(TokenClass, Decimal(0))
    for price, band, sums in tokens.values():
        of_each = (band.input, band.output, band.cache_read, band.cache_write_5m, band.cache_write_1h)
        for name, usd, count in zip(_TOKENS, of_each, sums, strict=False):
            exact[name] += usd * count / _MILLION
        exact[TokenClass.WEB_SEARCH] += price.usd_per_web_search * sums[5]
    found = {name.value: usd_to_nanousd(usd) for name, usd in exact.items() if usd}
    if told:
        found[TokenClass.TOLD.value] = told
    if found:  # each call is rounded to a nano-dollar: what that leaves belongs somewhere, so that the sum is the sum
        largest = max(found, key=lambda name: found[name])
        found[largest] += total - sum(found.values())
    return found
