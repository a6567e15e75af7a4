"""Where a request goes: passed through, or routed by its ask, its conversation and the policy.

Theory of operation. A request for a concrete model passes through. One for a routed name is classified by the last
thing a person asked, and decided like any task. A conversation has a model: it stays there unless quality demands
going up, or unless moving down pays *with* the cache that it throws away (`tierwise.policy.switching`). In the middle
of a turn (tool results going back and forth) it does not move. A floor above its model or a ceiling below it is obeyed
even then, or the request is refused: to stay is a saving, a bound is an order. Side calls of a client (titles,
summaries) and subagents are conversations of their own; a client's safety classifier is never moved.

Classifying takes milliseconds where the encoder is asked, so it happens in a thread, and is remembered by the ask.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from tierwise.classifier.features import shown
from tierwise.core.calls import CallKind
from tierwise.core.catalog import Model, Tier
from tierwise.core.decisions import Decision, PlannedRung, Reason, Rung
from tierwise.core.errors import NoRouteError, TierwiseError, UnpricedModel
from tierwise.core.json import JsonObject
from tierwise.core.money import Price, Usage, format_usd, usd_to_nanousd
from tierwise.core.settings import GatewayMode, ProjectSettings, Settings
from tierwise.core.tasks import Classification, Task
from tierwise.engine.router import AsyncRouter
from tierwise.gateway.bounds import Bounds, bounds_of
from tierwise.gateway.broken import BrokenStreams
from tierwise.gateway.conversations import (
    Conversation,
    ConversationKey,
    Conversations,
    contents_of,
    history_of,
    identify,
    in_tool_loop,
    kind_of,
    last_ask,
)
from tierwise.gateway.incoming import BadRequest, Incoming
from tierwise.gateway.metrics import OTHER_TIER
from tierwise.gateway.outlook import Outlook
from tierwise.policy.decide import bounds
from tierwise.policy.switching import History, can_take, weigh
from tierwise.prices.book import Conditions

_Asked = tuple[str, bool, str | None]

__all__ = ["Plan", "Planning", "Target", "conditions_of"]

_REMEMBERED = 4_096
# The API's own answer where it cannot hold a conversation: clients go on by sending the whole of it each time.
_UNTHREADED = "a routed model holds no thread; send the full conversation without `thread`"
_CHARS_PER_TOKEN = 4
_MOST_OUTPUT = 128_000  # of a model of which it is not known
_UNBOUNDED = Bounds()


class Target(NamedTuple):  # not a dataclass: it is made for every attempt
    """A model that a request goes to, and what that is expected to cost; `price` is None where none is known."""

    tier: str
    model: Model
    price: Price | None
    estimated: Usage
    estimated_nanousd: int | None

    @classmethod
    def of(cls, rung: Rung) -> Target:
        """A rung of a ladder."""
        cost = usd_to_nanousd(rung.estimated_cost_usd)
        return cls(rung.tier.name, rung.model, rung.price, rung.estimated_usage, cost)

    def at_most(self, sent: JsonObject, body: bytes) -> Usage:
        """The most that an attempt may use: the whole prompt written to the cache where one is, all of the output."""
        prompt, asked = self.estimated.prompt_tokens, sent.get("max_tokens")
        output = self.model.max_output_tokens or _MOST_OUTPUT
        if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0:
            output = min(asked, output)
        if b'"cache_control"' not in body:
            return Usage(input_tokens=prompt, output_tokens=output)
        if b'"1h"' in body:
            return Usage(cache_write_1h_tokens=prompt, output_tokens=output)
        return Usage(cache_write_5m_tokens=prompt, output_tokens=output)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with a request.

    `decision` is None where it passes through to `target`; what it is is then found out meanwhile.
    """

    kind: CallKind
    key: ConversationKey
    ask: str
    target: Target  # the first
    reasons: tuple[Reason, ...]
    decision: Decision | None = None
    ladder: tuple[PlannedRung, ...] | None = None  # of the decision, as it is kept with the call
    observed: bool = False  # passes through, and what would have been done is recorded
    project: str | None = None


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Whether a conversation moves down, and why."""

    moves: bool
    reasons: tuple[Reason, ...]


class _Request:
    """What routing looks at of a request. The task that it is gets made where it has not been decided before."""

    __slots__ = ("ask", "asked", "contents", "incoming", "key", "keyed", "task", "tokens_in", "within")

    def __init__(  # noqa: PLR0917  each is something of its own
        self,
        incoming: Incoming,
        key: ConversationKey,
        ask: str,
        tokens_in: int,
        within: Bounds,
        keyed: frozenset[str],
    ) -> None:
        self.incoming = incoming
        self.key = key
        self.ask = ask or "(nothing is said)"
        self.tokens_in = tokens_in
        self.within = within
        self.keyed = keyed
        self.contents = contents_of(incoming.value)
        self.task: Task | None = None
        # What its classification depends on.
        self.asked: _Asked = (shown(self.ask), _schema(incoming.value) is not None, incoming.directions.task_type)

    def as_task(self) -> Task:
        """The request as a task."""
        if self.task is None:
            said = self.incoming.directions
            self.task = Task(
                text=self.ask,
                json_schema=_schema(self.incoming.value),
                has_tools=self.contents.tools,
                has_images=self.contents.images,
                tokens_in=self.tokens_in,
                min_tier=self.within.min_tier,
                max_tier=self.within.max_tier,
                task_type=said.task_type,
                max_latency_seconds=said.deadline_seconds,
                session=self.key.session,
                project=self.incoming.project,
                tags=dict(said.tags),
            )
        return self.task


class Planning:
    """Decides for requests. Belongs to one event loop.

    Args:
        settings: the configuration.
        router: classifies, decides, knows what is available.
        conversations: what is known of them.
        outlook: what usually comes after a turn.
    """

    def __init__(self, settings: Settings, router: AsyncRouter, conversations: Conversations, outlook: Outlook) -> None:
        self.settings = settings
        self.router = router
        self.conversations = conversations
        self.outlook = outlook
        self.broken = BrokenStreams()
        self.calls = 0  # that are decided and carried out by it
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tierwise-classifier")
        self._known: OrderedDict[_Asked, Classification] = OrderedDict()
        self._withheld = {
            model.id: "it is demonstration grade, and gateway.embedded is off"
            for model in settings.catalog.models
            if settings.providers[model.provider].kind == "embedded" and not settings.gateway.embedded
        }
        upstream = settings.gateway.upstream
        elsewhere = f"a batch goes to {upstream} as a whole"
        self._not_in_batches = self._withheld | {
            model.id: elsewhere for model in settings.catalog.models if model.provider != upstream
        }
        self._second = -1.0
        self._decided: dict[tuple[object, ...], tuple[Classification, Decision]] = {}  # in this second
        # Both by identity of the decision, in this second too.
        self._stays: dict[int, tuple[Decision, Decision]] = {}
        self._told_of: dict[int, tuple[Decision, Target, tuple[PlannedRung, ...]]] = {}
        factor = settings.catalog.baseline.tokenizer_factor
        self._tokens = lru_cache(4096)(lambda body_bytes: _tokens(body_bytes, factor))
        # By id and, as in the configuration, with the provider before it.
        self._models: dict[str, tuple[Tier, Model]] = {
            name: (spec.tier, model)
            for spec in settings.catalog
            for model in spec.models
            for name in (f"{model.provider}:{model.id}", model.id)
        }

    def close(self) -> None:
        """Ends the thread once what was handed to it is done."""
        self._thread.shutdown(wait=False)

    def is_routed(self, model: str, project: str | None = None) -> bool:
        """Whether this name is one of those that are routed: for all, or for the calls of this project."""
        ruled = self.ruled(project)
        return model in self.settings.gateway.routed_models or (ruled is not None and model in ruled.routed_models)

    def project_of(self, incoming: Incoming) -> str | None:
        """Whose project a call counts to."""
        return incoming.project or self.settings.project

    def ruled(self, project: str | None) -> ProjectSettings | None:
        """What holds for the calls of a project."""
        return self.settings.gateway.projects.get(project) if project is not None else None

    async def plan(self, incoming: Incoming, now: float) -> Plan:
        """Where a request goes.

        Raises:
            TierwiseError: it cannot go anywhere (an unknown tier in a header, no model that can take it).
            BadRequest: it would go on with a conversation that one model's server holds.
        """
        body, headers = incoming.value, incoming.headers
        key = identify(headers, body)
        if self.conversations.elsewhere:
            await self.conversations.fetch(key)
        kind = kind_of(headers, body)
        if kind is CallKind.SAFETY:
            kind = self.broken.asked_again(key.session, body, now) or kind
        ask = incoming.directions.task or last_ask(body)
        project = self.project_of(incoming)
        observes = self._observes(project)
        if not self.is_routed(incoming.model, project):
            target = self._concrete(incoming.model, incoming)
            return Plan(kind, key, ask, target, (), project=project, observed=observes)
        observes = observes or incoming.directions.no_route
        if observes or not kind.may_move:
            baseline = self.settings.catalog.baseline
            why = "not routed, as asked: the baseline model" if observes else "a safety call is never moved"
            target = self._concrete(baseline.id, incoming)
            return Plan(kind, key, ask, target, (Reason("not_routed", why),), project=project, observed=observes)
        if body.get("thread") is not None:
            raise BadRequest(
                _UNTHREADED, details={"error_code": "thread_unsupported_request", "unsupported": ["model"]}
            )
        decision = await self._decide(incoming, kind, key, ask, now)
        target, ladder = self._told(decision)
        return Plan(kind, key, ask, target, decision.reasons, decision, ladder, project=project)

    async def plan_batched(self, incoming: Incoming) -> Plan:
        """Where a request of a batch goes: to a model of the upstream that the batch goes to, at a batch's price.

        Raises:
            TierwiseError: it cannot go anywhere.
            BadRequest: it names a model of another provider, or a thread.
        """
        body, kind = incoming.value, CallKind.MAIN
        key = identify(incoming.headers, body)
        ask = incoming.directions.task or last_ask(body)
        project = self.project_of(incoming)
        observes = self._observes(project)
        routed = self.is_routed(incoming.model, project)
        if not routed or observes or incoming.directions.no_route:
            name = self.settings.catalog.baseline.id if routed else incoming.model
            target = self._concrete(name, incoming)
            if target.model.provider != self.settings.gateway.upstream:
                raise BadRequest(
                    f"a batch goes to {self.settings.gateway.upstream}, and {target.model.id} is a model of "
                    f"{target.model.provider}"
                )
            why = (Reason("not_routed", "not routed, as asked: the baseline model"),) if routed else ()
            return Plan(kind, key, ask, self._batched(target, body), why, project=project, observed=observes)
        if body.get("thread") is not None:
            raise BadRequest(_UNTHREADED)
        within = self._bounds(incoming)
        request = self._request(incoming, key, ask, within)
        decision = await self._planned(request, await self._classify(request), batched=True)
        decision = _with(
            _going_on(decision, request, None), *within.reasons, Reason("batch", "in a batch, which has no second try")
        )
        target = self._batched(Target.of(decision.first), body)
        return Plan(kind, key, ask, target, decision.reasons, decision, decision.planned, project=project)

    def batch_price(self, model: Model, day: date, body: JsonObject, usage: JsonObject | None = None) -> Price | None:
        """What a model costs in a batch; None where no price is known."""
        try:
            return self.router.planner.prices.price(model, day, replace(conditions_of(body, usage), batch=True))
        except UnpricedModel:
            return None

    def model(self, name: str) -> Model | None:
        """A model that is configured."""
        known = self._models.get(name)
        return None if known is None else known[1]

    def _batched(self, target: Target, body: JsonObject) -> Target:
        """The same at a batch's price."""
        price = self.batch_price(target.model, _today(), body)
        cost = None if price is None else usd_to_nanousd(price.cost_usd(target.estimated))
        return target._replace(price=price, estimated_nanousd=cost)

    def _observes(self, project: str | None) -> bool:
        ruled = self.ruled(project)
        return self.settings.gateway.mode is GatewayMode.OBSERVE or (ruled is not None and ruled.observe)

    def _bounds(self, incoming: Incoming) -> Bounds:
        project = self.project_of(incoming)
        return bounds_of(incoming.directions, incoming.key, project, self.ruled(project), self.settings.catalog)

    async def _classify(self, request: _Request) -> Classification:
        """What a request asks for; remembered by its ask."""
        asked = request.asked
        known = self._known.get(asked)
        if known is not None:
            self._known.move_to_end(asked)
            return known
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, self.router.planner.classify, request.as_task())
        self._known[asked] = found
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    async def observe(self, incoming: Incoming, plan: Plan) -> tuple[Classification, tuple[Reason, ...]]:
        """What a request that passes through is, and where it would have gone; for the record."""
        classification = await self._classify(self._request(incoming, plan.key, plan.ask, _UNBOUNDED))
        if not plan.observed:
            return classification, ()
        try:
            within = self._bounds(incoming)
            decision = await self._planned(self._request(incoming, plan.key, plan.ask, within), classification)
        except TierwiseError as error:
            return classification, (Reason("observed", f"would have gone nowhere: {error}"),)
        said = Reason(
            "observed",
            f"would have gone to {decision.tier} ({decision.model.id}), estimated at "
            f"{format_usd(decision.estimated_cost_usd)}",
        )
        return classification, (said, *within.reasons, *decision.reasons)

    # ------------------------------------------------------------------ routed

    async def _decide(self, incoming: Incoming, kind: CallKind, key: ConversationKey, ask: str, now: float) -> Decision:
        within = self._bounds(incoming)
        request = self._request(incoming, key, ask, within)
        classification = await self._classify(request)
        decision = await self._in_conversation(kind, request, classification, now)
        known = self.conversations.get(key) if kind.converses else None
        decision = _going_on(decision, request, None if known is None else known.model_id)
        return _with(decision, *within.reasons) if within.reasons else decision

    async def _in_conversation(
        self, kind: CallKind, request: _Request, classification: Classification, now: float
    ) -> Decision:
        """The decision for a request, where it is not the first of its conversation."""
        incoming, key = request.incoming, request.key
        decision = await self._planned(request, classification)
        known = self.conversations.get(key) if kind.converses else None
        current = None if known is None else self._models.get(known.model_id)
        if known is None or current is None:
            return decision
        tier, model = current
        if model.id == decision.model.id:
            return self._on_it_already(decision)
        history = history_of(incoming.value, prompt_tokens=known.prompt_tokens, tokenizer_factor=model.tokenizer_factor)
        floor, ceiling = bounds(request.as_task(), self.settings.catalog, self.settings.overrides)
        if not floor <= tier <= ceiling:  # then there is no staying, be it in the middle of a turn
            nearest = await self._staying(request, classification, tier)
            moved = decision if decision.tier > nearest.tier and not history.in_tool_loop else nearest
            return _out_of_bounds(moved, model, history, floor if tier < floor else ceiling, up=tier < floor)
        why = f"the conversation stays on {model.id}"
        weighed: tuple[Reason, ...] = ()
        if history.in_tool_loop:
            why += ": in the middle of a turn"
        elif decision.tier > tier:
            return _with(
                decision, Reason("conversation", f"up from {model.id}: what is asked now needs {decision.tier}")
            )
        else:
            needs_more = self.outlook.needs_more(classification) if decision.tier < tier else 0.0
            found = self._pays(
                known, model, decision.model, can_take(history, decision.model), now, needs_more=needs_more
            )
            if found.moves:
                return _with(decision, *found.reasons)
            weighed = found.reasons
        held = await self._staying(request, classification, tier)
        if held.model.id != model.id:  # its tier has one that is preferred, or its own is not there
            try:
                own = await self._planned(request, classification, model=model.id)
            except (NoRouteError, UnpricedModel) as error:
                why = f"away from {model.id}, which cannot go on: {error}"
            else:
                held = replace(held, ladder=(own.first, *(rung for rung in held.ladder if rung.tier > tier)))
        return _with(held, Reason("conversation", why), *weighed)

    def _on_it_already(self, decision: Decision) -> Decision:
        """As most turns of most conversations go: one decision for all that this one is for, as `_planned`."""
        found = self._stays.get(id(decision))
        if found is None or found[0] is not decision:
            why = f"the conversation is on {decision.model.id} and stays there"
            found = self._stays[id(decision)] = (decision, _with(decision, Reason("conversation", why)))
        return found[1]

    def _told(self, decision: Decision) -> tuple[Target, tuple[PlannedRung, ...]]:
        """Its first rung and its ladder with their costs in whole numbers: made once for all calls that share it."""
        found = self._told_of.get(id(decision))
        if found is None or found[0] is not decision:
            found = self._told_of[id(decision)] = (decision, Target.of(decision.first), decision.planned)
        return found[1], found[2]

    async def _staying(self, request: _Request, classification: Classification, tier: Tier) -> Decision:
        """The decision for this tier, or for the nearest one that the bounds of the request allow."""
        decision = await self._planned(request, classification, tier=tier.name)
        # Nobody asked for that tier; why it is this one is said by whoever stays.
        return replace(decision, reasons=tuple(reason for reason in decision.reasons if reason.step != "forced_tier"))

    async def _planned(
        self,
        request: _Request,
        classification: Classification,
        *,
        tier: str | None = None,
        model: str | None = None,
        batched: bool = False,
    ) -> Decision:
        """The router's decision, for one tier or model where that is named.

        Made once a second for all that it would be the same for. For longer it is not kept: circuits open, local
        models come and go, and the day's prices end.
        """
        second = time.monotonic() // 1
        if second != self._second:
            self._second = second
            self._decided.clear()
            self._stays.clear()
            self._told_of.clear()
        overrides, said = self.settings.overrides, request.incoming.directions
        key = (
            id(classification),  # kept beside the decision, so that it stays this one's
            request.tokens_in,
            request.contents.tools,
            request.contents.images,
            request.asked[1],
            tier,
            model,
            request.within,
            said.deadline_seconds,
            request.keyed,
            request.ask if overrides.patterns else None,
            said.tags if overrides.tags else None,
            batched,
        )
        found = self._decided.get(key)
        if found is None:
            task = request.as_task()
            if tier is not None or model is not None:
                task = replace(task, tier=tier, model=model)
            decision, _ = await self.router.plan_available(
                task,
                classification,
                keyed=request.keyed,
                withheld=self._not_in_batches if batched else self._withheld,
            )
            found = self._decided[key] = (classification, decision)
        return found[1]

    def _keyed(self, incoming: Incoming) -> frozenset[str]:
        """Providers that the client's own credential is sent to: the one in whose place we are."""
        if incoming.key is not None or not ({"x-api-key", "authorization"} & incoming.headers.keys()):
            return frozenset()
        upstream = self.settings.gateway.upstream
        return frozenset({upstream}) if self.settings.providers[upstream].kind == "anthropic" else frozenset()

    def _pays(
        self, known: Conversation, model: Model, target: Model, against: str | None, now: float, *, needs_more: float
    ) -> _Weighed:
        """Whether moving down is possible, and cheaper with all that it throws away."""
        if against is not None:
            return _Weighed(False, (Reason("conversation", f"{target.id} cannot take it: {against}"),))
        today = _today()
        try:
            prices = {one.id: self.router.planner.prices.price(one, today) for one in (model, target)}
        except UnpricedModel as error:
            return _Weighed(False, (Reason("conversation", str(error)),))
        move = weigh(
            model,
            target,
            prices=prices,
            warm=known.warm,
            turn=known.next_turn(),
            turns_to_come=self.conversations.expected_turns(known.turns + 1),
            now=now,
            margin=self.settings.gateway.switch_margin,
            needs_more=needs_more,
        )
        return _Weighed(move.moves, move.reasons)

    def _request(self, incoming: Incoming, key: ConversationKey, ask: str, within: Bounds) -> _Request:
        return _Request(incoming, key, ask, self._tokens(len(incoming.body)), within, self._keyed(incoming))

    # ------------------------------------------------------------------ passed through

    def _concrete(self, name: str, incoming: Incoming) -> Target:
        """Where a request passes through to: a model that is known, or one that is only a name."""
        known = self._models.get(name)
        if known is None:
            unknown = Model(id=name, provider=self.settings.gateway.upstream, context_tokens=0, max_output_tokens=0)
            known = (_OTHER, unknown)
        tier, model = known
        try:
            price: Price | None = self.router.planner.prices.price(model, _today(), conditions_of(incoming.value))
        except UnpricedModel:
            price = None
        usage = Usage(input_tokens=self._tokens(len(incoming.body)), estimated=True)
        cost = None if price is None else usd_to_nanousd(price.cost_usd(usage))
        return Target(tier.name, model, price, usage, cost)


_OTHER = Tier(-1, OTHER_TIER)


def _tokens(body_bytes: int, factor: Decimal) -> int:
    """A prompt's tokens, as the baseline counts them, by the size of the request, up to the next eighth of a power of
    two: what depends on it are limits and estimates, and requests of about one size are decided together."""
    tokens = int(Decimal(body_bytes // _CHARS_PER_TOKEN) * factor)
    step = max(16, 1 << max(0, tokens.bit_length() - 4))
    return -(-tokens // step) * step


def conditions_of(body: JsonObject, usage: JsonObject | None = None) -> Conditions:
    """What changes the price of a request: what it asks for, and what the answer says that it got."""
    told: Mapping[str, object] = usage or {}
    geo = told.get("inference_geo", body.get("inference_geo"))
    speed = told.get("speed", body.get("speed"))
    return Conditions(
        inference_geo=geo if isinstance(geo, str) and geo not in ("", "global", "not_available") else None,
        fast=speed == "fast",
        batch=told.get("service_tier") == "batch",
    )


def _with(decision: Decision, *reasons: Reason) -> Decision:
    return replace(decision, reasons=(*decision.reasons, *reasons))


def _going_on(decision: Decision, request: _Request, own: str | None) -> Decision:
    """The decision without models that cannot go on in the middle of a turn that thinks, unless none could.

    Args:
        own: the id of the model that the conversation is on, which can; None where that is not known.
    """
    if not (request.contents.thinking and in_tool_loop(request.incoming.value)):
        return decision
    turn = History(has_tools=True, has_images=False, has_thinking=True, prompt_tokens=0, in_tool_loop=True)
    ladder: list[Rung] = []
    against: list[Reason] = []
    for rung in decision.ladder:
        hindrance = None if rung.model.id == own else can_take(turn, rung.model)
        if hindrance is None:
            ladder.append(rung)
        else:
            against.append(Reason("ruled_out", f"not {rung.model.id} ({rung.tier}): {hindrance}"))
    return _with(replace(decision, ladder=tuple(ladder)), *against) if ladder and against else decision


def _out_of_bounds(decision: Decision, model: Model, history: History, bound: Tier, *, up: bool) -> Decision:
    """A conversation must leave `model` for a bound's sake: for the first of the decision's models that can take it.

    Raises:
        NoRouteError: none of them can.
    """
    why = f"{'up' if up else 'down'} from {model.id}: at {'least' if up else 'most'} {bound}"
    against: list[str] = []
    for at, rung in enumerate(decision.ladder):
        hindrance = can_take(history, rung.model)
        if hindrance is None:
            reasons = [Reason("ruled_out", f"not {text}") for text in against]
            reasons.append(Reason("conversation", f"{why} is {'demanded' if up else 'allowed'}"))
            return _with(replace(decision, ladder=decision.ladder[at:]), *reasons)
        against.append(f"{rung.model.id} ({rung.tier}): {hindrance}")
    raise NoRouteError(
        f"the conversation must go {why}, and that cannot take what came before: {'; '.join(against)}. Ask without "
        "that bound, or begin a new conversation"
    )


def _schema(body: JsonObject) -> JsonObject | None:
    config = body.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else None
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    return schema if isinstance(schema, dict) else None


def _today() -> date:
    return datetime.now(UTC).date()
