"""Decides for LiteLLM's router and keeps the records of what it sent.

Theory of operation. A request is decided once, as the gateway decides it: by its ask, its conversation and the policy.
Whether a model can be reached is LiteLLM's to know, so no key and no local server is asked for. All this belongs to one
event loop, in a thread of its own; LiteLLM's calls come from any loop and thread.

Of each attempt that ended LiteLLM tells its callbacks, in an order of its own, and whether another follows it says to
none of them. So every attempt is written when it is told, and the call with it: a failure as failed, until a later
attempt answers. An answered call stays answered, whatever is told of earlier attempts after that.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from tierwise.core.calls import ImportedCall
from tierwise.core.catalog import Tier
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, Decision, OutcomeKind, Reason
from tierwise.core.errors import TierwiseError
from tierwise.core.money import Price, Usage, usd_to_nanousd
from tierwise.core.settings import Settings
from tierwise.core.tasks import Classification, Task
from tierwise.engine.router import AsyncRouter
from tierwise.engine.sync import start_loop
from tierwise.gateway.conversations import Conversations
from tierwise.gateway.incoming import Incoming
from tierwise.gateway.outlook import Outlook
from tierwise.gateway.planning import Plan, Planning
from tierwise.integrations.litellm.events import Ended
from tierwise.ledger import Ledger, new_call_id
from tierwise.ledger.writer import LedgerWriter
from tierwise.replay.pricing import RateBook

__all__ = ["Desk", "Routed"]

T = TypeVar("T")
_REMEMBERED = 4_096  # calls, and attempts: LiteLLM tells of them within seconds
_ANSWERS = frozenset({OutcomeKind.ACCEPTED, OutcomeKind.REFUSED})


@dataclass(slots=True)
class Routed:
    """A call that was decided, and what became of it so far."""

    plan: Plan
    call: CallRecord
    tiers: tuple[Tier, ...]  # that it may go to, in order
    trace: str = ""  # LiteLLM's name for the request, shared by its attempts
    attempts: list[AttemptRecord] = field(default_factory=list)

    @property
    def models(self) -> frozenset[str]:
        """The models that it was decided for, of all its tiers."""
        ladder = () if self.plan.decision is None else self.plan.decision.ladder
        return frozenset({self.plan.target.model.id, *(rung.model.id for rung in ladder)})

    @property
    def told(self) -> dict[str, str]:
        """What goes with the request through LiteLLM, for its callbacks and logs."""
        call = self.call
        return {"call_id": call.call_id, "task_type": call.task_type, "tier": call.planned_tier}

    def note(self, reason: Reason) -> None:
        """Another reason for where it goes."""
        if reason not in self.call.reasons:
            self.call = replace(self.call, reasons=(*self.call.reasons, reason))


class _Deciding(AsyncRouter):
    """Decides as the router does, whatever this process could reach itself."""

    async def plan_available(
        self,
        task: Task,
        classification: Classification | None = None,
        *,
        keyed: frozenset[str] = frozenset(),
        withheld: Mapping[str, str] | None = None,
    ) -> tuple[Decision, dict[str, str]]:
        """With every model but those that are withheld."""
        del keyed
        left_out = dict(withheld or {})
        return self._plan(task, left_out, classification), left_out


class Desk:
    """Where requests are decided and attempts are written down. Safe to use from any thread and event loop.

    Args:
        settings: the configuration.
        ledger: where calls are recorded; the configured one when None.
    """

    def __init__(self, settings: Settings, *, ledger: Ledger | None = None) -> None:
        self.settings = settings
        self._owns_ledger = ledger is None
        if ledger is None and settings.ledger.enabled:
            ledger = Ledger.of(settings.ledger)
        self._ledger = ledger
        self._router = _Deciding(settings, record=False)
        self._conversations = Conversations()
        self._planning = Planning(settings, self._router, self._conversations, Outlook())
        self._rates = RateBook(self._router.planner.prices, settings.catalog.models)
        self._tiers = {model.id: spec.tier for spec in reversed(settings.catalog.tiers) for model in spec.models}
        self._calls: OrderedDict[str, Routed] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._writer = LedgerWriter(ledger) if ledger is not None else None
        if self._writer is not None:
            self._writer.start()
        self.process = os.getpid()
        self._loop = start_loop("tierwise-litellm")
        _open.add(self)

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Does this in the desk's loop; awaited in the caller's."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Does this in the desk's loop, and waits: not from within an event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

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
        """The id that the catalog has for a model, which LiteLLM names with its provider; None: it is not there."""
        model = self._rates.model(name) or self._rates.model(name.partition("/")[2])
        return None if model is None else model.id

    def knows(self, call_id: str | None) -> bool:
        """Whether the call was decided here, lately."""
        return call_id in self._calls

    def again(self, told: Any, trace: str) -> Routed | None:
        """The call that was decided for this request before: it is tried again. A caller may use its metadata twice."""
        call_id = told.get("call_id") if isinstance(told, Mapping) else None
        found = self._calls.get(call_id) if isinstance(call_id, str) else None
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

    async def record(self, attempt: Ended, incoming: Incoming | None) -> None:
        """Writes down what became of an attempt, once. `incoming`: what it was made for, where that was not decided."""
        if attempt.key in self._seen:
            return
        self._seen[attempt.key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        routed = self._calls.get(attempt.call_id) if attempt.call_id is not None else None
        if routed is None:
            if incoming is None:
                return
            routed = await self._observed(incoming, attempt.started_at_ms)
        written = self._attempt(routed, attempt)
        routed.attempts.append(written)
        answered = routed.call.status is CallStatus.ANSWERED
        if not answered:
            self._end(routed, attempt, written)
        self._write(None if answered else routed.call, written)

    def settle(self) -> None:
        """Writes what waits, and from now on at once: the process ends, and LiteLLM tells the last of it even then."""
        writer, self._writer = self._writer, None
        if writer is not None and self.process == os.getpid():
            writer.close()

    def close(self) -> None:
        """Writes what waits, and ends. For good."""
        _open.discard(self)
        self.settle()
        if self.process != os.getpid():
            return
        self._planning.close()
        if self._owns_ledger and self._ledger is not None:
            self._ledger.close()
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._loop.stop)

    # ------------------------------------------------------------------ what is written

    def _write(self, call: CallRecord | None, attempt: AttemptRecord) -> None:
        if self._writer is not None:
            self._writer.put(call, (attempt,))
        elif self._ledger is not None:
            self._ledger.write_entries([(call, (attempt,))])

    async def _observed(self, incoming: Incoming, started_at_ms: int) -> Routed:
        """A call that went where LiteLLM sent it, without us."""
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
            found, reasons = self._router.classify(routed.plan.ask or "(nothing is said)"), ()
        routed.call = replace(
            routed.call,
            task_type=found.task_type.name,
            family=found.family,
            needs=found.needs.value,
            confidence=found.confidence,
            abstained=found.abstained,
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
            task_type=classification.task_type.name if classification else "unknown",
            family=classification.family if classification else "unknown",
            needs=classification.needs.value if classification else "unknown",
            confidence=classification.confidence if classification else 0.0,
            abstained=classification.abstained if classification else True,
            tier=plan.target.tier,
            model=plan.target.model.id,
            planned_tier=plan.target.tier,
            baseline_model=baseline.id,
            baseline_nanousd=None,
            session=plan.key.session,
            project=plan.project,
            tags=tuple(sorted({"kind": plan.kind.value, **dict(incoming.directions.tags)}.items())),
            reasons=plan.reasons,
        )

    def _attempt(self, routed: Routed, attempt: Ended) -> AttemptRecord:
        price, cost = self._priced(attempt)
        model = self._rates.model(attempt.model)
        tier = self.tier_of(attempt.model, attempt.tier)
        return AttemptRecord(
            call_id=routed.call.call_id,
            number=len(routed.attempts) + 1,
            tier=tier.name if tier is not None else "other",
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

    def _priced(self, attempt: Ended) -> tuple[Price | None, int | None]:
        """By tierwise's prices; by LiteLLM's where that has one and tierwise none; else unknown, which is not zero."""
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
        if attempt.usage is None:  # an answer whose tokens nobody told cost something; what never began did not
            return price, attempt.cost_nanousd if attempt.outcome in _ANSWERS else 0
        if price is not None:
            took = Decimal(attempt.latency_ms) / 1000  # matters to what costs by the hour
            return price, usd_to_nanousd(price.cost_usd(attempt.usage, seconds=took))
        used = attempt.usage.prompt_tokens or attempt.usage.output_tokens or attempt.usage.web_searches
        return None, attempt.cost_nanousd if used else 0

    def _end(self, routed: Routed, attempt: Ended, written: AttemptRecord) -> None:
        """The call as it stands after this attempt."""
        answered = attempt.outcome in _ANSWERS
        now_ms = max(attempt.started_at_ms + attempt.latency_ms, routed.call.started_at_ms)
        routed.call = routed.call.ended(
            CallStatus.ANSWERED if answered else CallStatus.FAILED,
            tier=written.tier,
            model=written.model,
            baseline_nanousd=self._baseline(attempt) if answered else None,
            latency_ms=now_ms - routed.call.started_at_ms,
            error=None if answered else attempt.detail,
        )
        if answered and attempt.usage is not None and routed.plan.kind.converses:
            self._conversations.note(routed.plan.key, written.model, attempt.usage, time.time())

    def _baseline(self, attempt: Ended) -> int | None:
        """What the baseline model would have cost for the same texts."""
        if attempt.usage is None:
            return None
        baseline, model = self.settings.catalog.baseline, self._rates.model(attempt.model)
        price = self._router.planner.world(datetime.now(UTC).date()).prices.get(baseline.id)
        if price is None:
            return None
        counted = baseline.tokenizer_factor / (model.tokenizer_factor if model is not None else 1)
        return usd_to_nanousd(price.cost_usd(attempt.usage.scaled(counted)))


_open: weakref.WeakSet[Desk] = weakref.WeakSet()


@atexit.register
def _settle_all() -> None:
    for desk in list(_open):
        desk.settle()
