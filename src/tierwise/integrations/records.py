"""Records of calls that somebody else carries out: another library, or a client whose requests only pass by.

Theory of operation. What is to be sent is decided as the gateway decides it: by its ask, its conversation and the
policy (`decide`). Of an attempt that ended its host tells (`record`), in an order of its own, and whether another
follows it says to nobody. So every attempt is written when it is told, and the call with it: a failure as failed, until
a later attempt answers. An answered call stays answered, whatever is told of earlier attempts after that. A call that
was not decided here is classified when it is told of.

All this belongs to the event loop of the gateway's `Planning` that it is made with.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tierwise.core.calls import ImportedCall
from tierwise.core.catalog import Tier
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, Reason, recorded_kind
from tierwise.core.errors import TierwiseError, UnknownTier
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Price, Usage, usd_to_nanousd
from tierwise.gateway.incoming import Incoming, directions
from tierwise.gateway.metrics import OTHER_TIER
from tierwise.gateway.planning import Plan, Planning
from tierwise.ledger import new_call_id
from tierwise.replay.pricing import RateBook
from tierwise.wire.chat import ChatError, messages_request
from tierwise.wire.endings import Dialect

__all__ = ["ForeignAttempt", "Records", "Routed", "incoming_of", "plain"]

_REMEMBERED = 4_096  # calls, and attempts: they are told of within seconds
_MESSAGES_ONLY = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "document"})


Write = Callable[[CallRecord | None, Sequence[AttemptRecord]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignAttempt:
    """An attempt that somebody else made, and what became of it."""

    key: str  # tells it from every other attempt
    call_id: str | None = None  # of the call in the ledger that it belongs to; None: a call of its own
    trace: str = ""  # the host's name for the request, as in `Routed`; where it has none, nothing
    model: str
    provider: str
    tier: str | None = None  # where somebody says so; the catalog's otherwise
    started_at_ms: int
    latency_ms: int
    ttft_ms: int | None = None
    outcome: OutcomeKind
    detail: str = ""
    usage: Usage | None  # None: it used some, and nobody told how much
    cost_nanousd: int | None = None  # as its host counts, where tierwise has no price
    request_id: str | None = None  # the provider's
    reported_model: str | None = None


@dataclass(slots=True)
class Routed:
    """A call that was decided, and what became of it so far."""

    plan: Plan
    call: CallRecord
    tiers: tuple[Tier, ...]  # that it may go to, in order
    trace: str = ""  # the host's name for the request, shared by its attempts
    attempts: list[AttemptRecord] = field(default_factory=list)

    @property
    def models(self) -> frozenset[str]:
        """The models that it was decided for, of all its tiers."""
        ladder = () if self.plan.decision is None else self.plan.decision.ladder
        return frozenset({self.plan.target.model.id, *(rung.model.id for rung in ladder)})

    @property
    def told(self) -> dict[str, str]:
        """What goes with the request through its host, whose callbacks and logs see it."""
        call = self.call
        return {"call_id": call.call_id, "task_type": call.task_type, "tier": call.planned_tier}

    def note(self, reason: Reason) -> None:
        """Another reason for where it goes."""
        if reason not in self.call.reasons:
            self.call = replace(self.call, reasons=(*self.call.reasons, reason))


class Records:
    """Decides for calls that others carry out, and writes down what became of them.

    Args:
        planning: decides and classifies; its event loop is where this is used.
        write: writes a call as it stands now (None: nothing of it changed) and attempts.
    """

    def __init__(self, planning: Planning, write: Write) -> None:
        self.settings = planning.settings
        self._planning = planning
        self._write = write
        self._rates = RateBook(planning.router.planner.prices, self.settings.catalog.models)
        self._tiers = {model.id: spec.tier for spec in reversed(self.settings.catalog.tiers) for model in spec.models}
        self._calls: OrderedDict[str, Routed] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def tier_of(self, model_id: str, named: str | None = None) -> Tier | None:
        """The tier of a model, by the name that its deployment has for it, or by the catalog; None: of neither.

        Raises:
            UnknownTier: `named` is no tier.
        """
        if named is not None:
            return self.settings.catalog.tier(named, where="model_info.tierwise_tier").tier
        known = self.model_id(model_id)
        return None if known is None else self._tiers.get(known)

    def model_id(self, name: str) -> str | None:
        """The id that the catalog has for a model, which may be named with its provider; None: it is not there."""
        model = self._rates.model(name) or self._rates.model(name.partition("/")[2])
        return None if model is None else model.id

    def knows(self, call_id: str | None) -> bool:
        """Whether the call was decided here, lately."""
        return call_id in self._calls

    def again(self, told: Any, trace: str) -> Routed | None:
        """The call that was decided for this request before: it is tried again."""
        call_id = told.get("call_id") if isinstance(told, Mapping) else None
        found = self._decided(call_id, trace) if isinstance(call_id, str) else None
        if found is None or found.trace != trace or found.call.status is CallStatus.ANSWERED:
            return None
        return found

    async def decide(self, incoming: Incoming, trace: str) -> Routed:
        """Where a request goes.

        Raises:
            TierwiseError: nowhere; says why.
        """
        plan = await self._planning.plan(incoming, time.time())
        if plan.decision is not None:
            tiers = tuple(dict.fromkeys(rung.tier for rung in plan.decision.ladder))
        else:  # not to be routed, as asked: the baseline's tier, or one above
            catalog = self.settings.catalog
            lowest = next((spec.tier for spec in catalog if spec.tier.name == plan.target.tier), catalog.top.tier)
            tiers = tuple(spec.tier for spec in catalog if spec.tier >= lowest)
        routed = Routed(plan, self._call(incoming, plan), tiers, trace)
        if plan.decision is None:
            await self._classify(routed, incoming)
        return self._remember(routed)

    async def record(self, attempt: ForeignAttempt, incoming: Incoming | None) -> None:
        """Writes down what became of an attempt, once. `incoming`: what it was made for, where that was not decided."""
        if attempt.key in self._seen:
            return
        self._seen[attempt.key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        routed = self._decided(attempt.call_id, attempt.trace) if attempt.call_id is not None else None
        if routed is None:
            if incoming is None:
                return
            routed = await self._observed(incoming, attempt.started_at_ms)
        written = self._attempt(routed, attempt)
        routed.attempts.append(written)
        if written.cost_nanousd is None:
            why = "its usage was not told" if attempt.usage is None else "it has no price; give it one ([[prices]])"
            routed.note(Reason("unpriced", f"what {written.model} cost is not known: {why}"))
        answered = routed.call.status is CallStatus.ANSWERED
        if not answered:
            self._end(routed, attempt, written)
        await self._write(None if answered else routed.call, (written,))

    async def not_run(self, routed: Routed, why: str) -> None:
        """Writes down that a call that was decided cannot be sent; a later attempt may still answer it."""
        call = routed.call
        if routed.attempts:
            return  # it failed, which says more
        routed.call = call.ended(
            CallStatus.NOT_RUN,
            tier=call.tier,
            model=call.model,
            baseline_nanousd=None,
            latency_ms=max(0, time.time_ns() // 1_000_000 - call.started_at_ms),
            error=why,
        )
        await self._write(routed.call, ())

    def _decided(self, call_id: str, trace: str) -> Routed | None:
        """A call that was decided here. Where a caller uses its metadata twice, they name the later request's."""
        found = self._calls.get(call_id)
        if found is None or not trace or found.trace == trace:
            return found
        return next((one for one in reversed(self._calls.values()) if one.trace == trace), found)

    # ------------------------------------------------------------------ what is written

    async def _observed(self, incoming: Incoming, started_at_ms: int) -> Routed:
        """A call that went where it was sent without us."""
        plan = await self._planning.plan(incoming, time.time())
        routed = Routed(plan, replace(self._call(incoming, plan), started_at_ms=started_at_ms), ())
        await self._classify(routed, incoming)
        return self._remember(routed)

    async def _classify(self, routed: Routed, incoming: Incoming) -> None:
        try:
            found, reasons = await self._planning.observe(incoming, routed.plan)
        except TierwiseError as error:
            routed.note(Reason("unclassified", type(error).__name__))
            return
        except RuntimeError:  # the process ends: it has no thread left to classify in
            found, reasons = self._planning.router.classify(routed.plan.ask or "(nothing is said)"), ()
        routed.call = replace(
            routed.call,
            **recorded_kind(found),
            reasons=(*routed.call.reasons, *reasons),
        )

    def _remember(self, routed: Routed) -> Routed:
        self._calls[routed.call.call_id] = routed
        if len(self._calls) > _REMEMBERED:
            self._calls.popitem(last=False)
        return routed

    def _call(self, incoming: Incoming, plan: Plan) -> CallRecord:
        decision = plan.decision
        classification = decision.classification if decision is not None else None
        baseline = decision.baseline_model if decision is not None else self.settings.catalog.baseline
        return CallRecord(
            call_id=new_call_id(),
            started_at_ms=time.time_ns() // 1_000_000,
            status=CallStatus.OPEN,
            **recorded_kind(classification),
            tier=plan.target.tier,
            model=plan.target.model.id,
            planned_tier=plan.target.tier,
            baseline_model=baseline.id,
            baseline_nanousd=None,
            session=plan.key.session,
            project=plan.project,
            tags=tuple(sorted({"kind": plan.kind.value, **dict(incoming.directions.tags)}.items())),
            reasons=plan.reasons,
            ladder=None if decision is None else decision.planned,
        )

    def _attempt(self, routed: Routed, attempt: ForeignAttempt) -> AttemptRecord:
        price, cost = self._priced(attempt)
        model = self._rates.model(attempt.model)
        try:
            tier = self.tier_of(attempt.model, attempt.tier)
        except UnknownTier:  # nobody was routed by that name: what was sent is recorded all the same
            tier = self.tier_of(attempt.model)
        return AttemptRecord(
            call_id=routed.call.call_id,
            number=len(routed.attempts) + 1,
            tier=tier.name if tier is not None else OTHER_TIER,
            model=model.id if model is not None else attempt.model,
            provider=attempt.provider,
            started_at_ms=attempt.started_at_ms,
            outcome=attempt.outcome,
            detail=attempt.detail,
            usage=attempt.usage or Usage(estimated=True),
            price=price,
            cost_nanousd=cost,
            latency_ms=attempt.latency_ms,
            ttft_ms=attempt.ttft_ms,
            request_id=attempt.request_id,
            reported_model=attempt.reported_model,
        )

    def _priced(self, attempt: ForeignAttempt) -> tuple[Price | None, int | None]:
        """By tierwise's prices; by the host's where it has one and tierwise none; else unknown, which is not zero."""
        imported = ImportedCall(
            id=attempt.key,
            at_ms=attempt.started_at_ms,
            session="",
            model=attempt.model,
            provider=attempt.provider,
            usage=attempt.usage or Usage(),
        )
        rates = self._rates.of(imported)[1]
        price = None if rates is None else rates.price
        if attempt.usage is None:
            return None, attempt.cost_nanousd
        if price is not None:
            took = Decimal(attempt.latency_ms) / 1000  # matters to what costs by the hour
            return price, usd_to_nanousd(price.cost_usd(attempt.usage, seconds=took))
        used = attempt.usage.prompt_tokens or attempt.usage.output_tokens or attempt.usage.web_searches
        return None, attempt.cost_nanousd if used else 0

    def _end(self, routed: Routed, attempt: ForeignAttempt, written: AttemptRecord) -> None:
        """The call as it stands after this attempt."""
        match attempt.outcome:
            case OutcomeKind.ACCEPTED | OutcomeKind.REFUSED:
                status = CallStatus.ANSWERED
            case OutcomeKind.CANCELLED:
                status = CallStatus.CANCELLED
            case _:
                status = CallStatus.FAILED
        answered = status is CallStatus.ANSWERED
        now_ms = max(attempt.started_at_ms + attempt.latency_ms, routed.call.started_at_ms)
        routed.call = routed.call.ended(
            status,
            tier=written.tier,
            model=written.model,
            baseline_nanousd=self._baseline(attempt) if answered else None,
            latency_ms=now_ms - routed.call.started_at_ms,
            error=None if answered else attempt.detail,
        )
        if answered and attempt.usage is not None and routed.plan.kind.converses:
            self._planning.conversations.note(routed.plan.key, written.model, attempt.usage, time.time())

    def _baseline(self, attempt: ForeignAttempt) -> int | None:
        """What the baseline model would have cost for the same texts."""
        if attempt.usage is None:
            return None
        baseline, model = self.settings.catalog.baseline, self._rates.model(attempt.model)
        price = self._planning.router.planner.world(datetime.now(UTC).date()).prices.get(baseline.id)
        if price is None:
            return None
        counted = baseline.tokenizer_factor / (model.tokenizer_factor if model is not None else 1)
        return usd_to_nanousd(price.cost_usd(attempt.usage.scaled(counted)))


def incoming_of(model: str, body: Mapping[str, Any], headers: Mapping[str, str], *, stream: bool = False) -> Incoming:
    """A request as the gateway would have it, to be looked at: nothing of it is sent.

    Args:
        model: the name that it is decided under.
        body: of chat/completions, or of Messages.
        headers: in lower case.
        stream: whether it asks for one.

    Raises:
        BadRequest: a header that cannot be read.
    """
    # A library hands on what it was given, objects included.
    written = json.dumps(body, default=plain).encode("utf-8", "replace")
    return Incoming(
        dialect=Dialect.OPENAI,
        body=written,
        value=_as_messages(json.loads(written), model),
        model=model,
        stream=stream,
        query="",
        headers=headers,
        raw_headers=(),
        directions=directions(headers),
    )


def plain(value: Any) -> Any:
    """pydantic's objects as JSON; of what is neither, the name of its type, which is enough to look at."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_none=True) if callable(dump) else type(value).__name__


def _as_messages(body: JsonObject, model: str) -> JsonObject:
    if not _speaks_messages(body):
        try:
            return messages_request({**body, "model": model})[0]
        except ChatError:
            pass  # what neither dialect has: that is for the model to judge, and what was said is there to be seen
    return {**body, "model": model}


def _speaks_messages(body: JsonObject) -> bool:
    match body:
        case {"system": _} | {"tools": [{"input_schema": _}, *_]}:
            return True
        case {"messages": list(messages)}:
            return any(_has_block(message) for message in messages)
        case _:
            return False


def _has_block(message: Json) -> bool:
    match message:
        case {"content": list(blocks)}:
            return any(isinstance(block, dict) and block.get("type") in _MESSAGES_ONLY for block in blocks)
        case _:
            return False
