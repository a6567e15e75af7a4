"""The calls of a session in order, under a policy: where each goes, and what it costs there.

Theory of operation. Each call is one of a conversation (main loop or agent), whose real course `cache.Real` follows.
Under a policy a conversation is on some model, and each model holds what it was sent of it. A policy that looks at no
work names one model for each call. Routing decides as the gateway does: by what was asked last, and then whether the
conversation stays (in the middle of a turn it does; up it goes when quality demands; down only if `switching` says that
it pays).

Then the climb. An answer of a lower tier than the one really used may be rejected. `engine.climb` is told so, attempt
after attempt, until it reaches a tier that answered in reality: that is the one path on which attempts can follow each
other, so its probabilities are the whole expectation, and nothing is drawn. A conversation that climbed stays where it
ended, as it does live; so a conversation is on each model with some probability, and each call moves that
distribution on. A model is warm for whoever was on it in the call before. Who comes to it from elsewhere finds what it
held when the conversation was last there for certain, and often that is nothing.

Costs are whole nano-dollars, rounded once for each call and scenario.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple, assert_never

from tierwise.core.calls import CallKind, ImportedCall, ImportedSession
from tierwise.core.catalog import Model
from tierwise.core.decisions import Decision
from tierwise.core.money import Conditions, usd_to_nanousd
from tierwise.policy.switching import History, Scales, Turn, Warmth, can_take
from tierwise.replay.asked import Asked, LeftAlone
from tierwise.replay.cache import TTL_1H_MS, TTL_5M_MS, Ask, Held, cut, ratio, scaled
from tierwise.replay.costs import Cost, cost_of
from tierwise.replay.deciding import RungShare, Three
from tierwise.replay.policies import Actual, AllOn, OpusPlan, ReplayPolicy, Routed, SubagentsOn
from tierwise.replay.pricing import MS_PER_DAY, Rates, terms
from tierwise.replay.values import Assumption, CallOutcome, Scenario, SessionReplay, Why
from tierwise.replay.world import ReplayWorld

__all__ = ["Replayer", "replay_session"]

_SURE = (1.0, 1.0, 1.0)
_NEVER = (0.0, 0.0, 0.0)


def replay_session(session: ImportedSession, policy: ReplayPolicy, world: ReplayWorld) -> SessionReplay:
    """One session under a policy. For many sessions, a `Replayer` keeps what it decided."""
    return Replayer(policy, world).replay(session)


class Replayer:
    """Replays sessions under one policy.

    What was decided and looked up is kept by the world. Where a session is replayed under several policies, what is
    the same under all of them is found once if the same session comes to each of them before the next.
    """

    def __init__(self, policy: ReplayPolicy, world: ReplayWorld) -> None:
        self.policy = policy
        self.world = world

    def replay(self, session: ImportedSession, *, outcomes: bool = True) -> SessionReplay:
        """One session; with where each call went, unless only the sums are wanted."""
        found = _Course(self.policy, self.world, session, outcomes=outcomes)
        low, expected, high = found.sums
        contributions = dict(found.contributions)
        not_knowing = sum(found.regrets.values())
        if not_knowing:
            contributions[Assumption.TURNS_TO_COME] = not_knowing
            low = max(0, low - not_knowing)
        return SessionReplay(
            session=session.id,
            policy=self.policy.name,
            calls=len(session.calls),
            unpriced_calls=found.unpriced,
            moved_calls=found.moved,
            below_calls=found.below,
            actual_nanousd=found.actual,
            by_scenario={
                Scenario.LOW: min(low, expected),
                Scenario.EXPECTED: expected,
                Scenario.HIGH: max(high, expected),
            },
            contributions=contributions,
            outcomes=tuple(found.outcomes),
        )


class _Way(NamedTuple):
    """How a call goes if the conversation is on some model, which it is with some probability."""

    on: str
    chance: Three
    rungs: tuple[RungShare, ...]
    why: Why


class _Conversation:
    """Where one conversation is under the policy, and how it goes on."""

    __slots__ = (
        "certain",
        "held",
        "main",
        "on",
        "output_tokens",
        "prompt",
        "real_model",
        "ttl_seconds",
        "turns",
        "usual_new",
        "usual_output",
    )

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}  # by each model, for whoever was on it in the call before
        self.certain: dict[str, Held] = {}  # by each model, for whoever comes to it
        self.on: dict[str, Three] = {}  # on which model it is, with what probability; empty: on none yet
        self.main = ""  # on which it is if nothing was ever rejected
        self.turns = 0
        self.real_model: Model | None = None  # whose tokens these are:
        self.prompt = 0
        self.output_tokens = 0
        self.usual_output = 0
        self.usual_new = 0
        self.ttl_seconds: int | None = None

    def hold(self, model_id: str, held: Held | None, *, certain: bool) -> None:
        """A model was sent something of it."""
        if held is not None:
            self.held[model_id] = held
            if certain:
                self.certain[model_id] = held

    def note(self, ask: Ask, real: Model) -> None:
        """A turn was answered: how large they are, as the gateway notes it."""
        before = self.real_model
        if before is not None and before.tokenizer_factor != real.tokenizer_factor:
            by = ratio(real, before)
            self.usual_output, self.usual_new = scaled(self.usual_output, by), scaled(self.usual_new, by)
        new = ask.prompt - self.prompt - self.output_tokens
        if self.turns == 0:
            self.usual_output = ask.output
        else:
            self.usual_output = (3 * self.usual_output + ask.output) // 4
            if before is not None and before.id == real.id and new >= 0:
                self.usual_new = new if self.turns == 1 else (3 * self.usual_new + new) // 4
        self.turns += 1
        self.real_model = real
        self.prompt, self.output_tokens = ask.prompt, ask.output
        self.ttl_seconds = None if not ask.cached else 3_600 if 2 * ask.hour > ask.cached else 300


class _Course:
    """One way through a session. Everything happens when it is made."""

    def __init__(self, policy: ReplayPolicy, world: ReplayWorld, session: ImportedSession, *, outcomes: bool) -> None:
        self._policy = policy
        self._world = world
        self._assumed = world.assumptions
        settings = policy.settings
        self._deciding = None if settings is None else world.deciding(settings)
        self._margin = Decimal(0) if settings is None else Decimal(str(settings.gateway.switch_margin))
        self._conversations: dict[str, _Conversation] = {}
        self._models: dict[str, Model] = {}  # that hold anything
        self._beginnings: dict[tuple[str, str], tuple[int, bool]] = {}  # model, kind of agent → when; for an hour?
        self._priced_of: tuple[int, Conditions] | None = None
        self._priced: dict[str, Rates | None] = {}
        self._requests_for = policy.requests_for if isinstance(policy, Routed) else None
        self._notes = isinstance(policy, Routed)
        self._tell = outcomes
        self.actual = 0
        self.sums = [0, 0, 0]
        self.contributions: dict[Assumption, int] = {}
        self.regrets: dict[str, int] = {}  # by conversation: what it costs not to have known its length
        self.unpriced = self.moved = self.below = 0
        self.outcomes: list[CallOutcome] = []
        calls = world.asked(session)
        self._to_come: dict[str, int] = {}  # by conversation: how many calls it has
        for one in calls:
            if isinstance(one, Asked) and one.conversation is not None:
                self._to_come[one.conversation] = self._to_come.get(one.conversation, 0) + 1
        self._goes = self._way_of(policy)
        self._main_models = {one.call.model for one in calls if one.call.kind is CallKind.MAIN}
        for one in calls:
            if isinstance(one, LeftAlone):
                self._leave(one)
            else:
                self._call(one)

    # ------------------------------------------------------------------ each call

    def _way_of(self, policy: ReplayPolicy) -> Callable[[Asked, _Conversation], None]:
        match policy:
            case Routed():
                return self._routed
            case AllOn() | OpusPlan() | SubagentsOn():
                return self._fixed
            case Actual():
                return self._as_it_was
            case other:
                assert_never(other)

    def _as_it_was(self, asked: Asked, conversation: _Conversation) -> None:
        self._placed(asked, conversation, asked.model, Why.ACTUAL)

    def _leave(self, one: LeftAlone) -> None:
        nanousd = one.now_nanousd
        if one.real_nanousd is None or nanousd is None:
            self.unpriced += 1
        else:
            self.actual += one.real_nanousd
            self._pay((nanousd, nanousd, nanousd))
        self._told(one.call, one.call.model, nanousd, one.why)

    def _call(self, asked: Asked) -> None:
        self.actual += asked.real_nanousd
        model = asked.model
        self._models[model.id] = model
        if asked.conversation is None:
            conversation = _Conversation()
        else:
            known = self._conversations.get(asked.conversation)
            conversation = known or self._conversations.setdefault(asked.conversation, _Conversation())
        why = _untouched(asked.call)
        if why is not None:
            self._placed(asked, conversation, model, why)
        else:
            self._goes(asked, conversation)
        if asked.ask.intact is not None:
            for holding in (conversation.held, conversation.certain):
                cut(holding, asked.ask, model, self._models)

    def _pay(self, nanousd: tuple[int, int, int]) -> None:
        sums = self.sums
        sums[0] += nanousd[0]
        sums[1] += nanousd[1]
        sums[2] += nanousd[2]

    def _told(
        self,
        call: ImportedCall,
        model_id: str,
        nanousd: int | None,
        why: Why,
        *,
        moved: bool = False,
        below: bool = False,
    ) -> None:
        if self._tell:
            tier = None if self._deciding is None else self._deciding.tier_of(model_id)
            name = None if tier is None else tier.name
            self.outcomes.append(CallOutcome(call.id, model_id, name, nanousd, why, moved, below))

    def _rates_of(self, model: Model, asked: Asked) -> Rates | None:
        """The rates of a model under the conditions of a call; kept for the calls of that day that come after it."""
        if model.id == asked.model.id:
            return asked.rates
        call = asked.call
        conditions = terms(call)
        of = (call.at_ms // MS_PER_DAY, conditions)
        if of != self._priced_of:
            self._priced_of = of
            self._priced.clear()
        try:
            return self._priced[model.id]
        except KeyError:
            found = self._priced[model.id] = self._world.rates.rates(model, call.at_ms, conditions)
            return found

    # ------------------------------------------------------------------ policies that name one model

    def _fixed(self, asked: Asked, conversation: _Conversation) -> None:
        tier = self._fixed_tier(asked.call)
        if tier is None or self._deciding is None:
            self._placed(asked, conversation, asked.model, Why.ACTUAL)
            return
        model = self._deciding.first_on(tier, asked)
        if model is None or self._rates_of(model, asked) is None:
            self._placed(asked, conversation, asked.model, Why.NO_MODEL if model is None else Why.UNPRICED)
        else:
            self._placed(asked, conversation, model, Why.FIXED)

    def _fixed_tier(self, call: ImportedCall) -> str | None:
        match self._policy:
            case AllOn(tier=tier):
                return tier
            case SubagentsOn(tier=tier):
                return tier if call.kind is CallKind.SUBAGENT or call.agent is not None else None
            case OpusPlan(plan=plan, work=work):
                if call.agent is not None and call.model not in self._main_models:
                    return None  # it has a model of its own
                return plan if call.plan_mode else work
            case _:
                return None

    def _placed(self, asked: Asked, conversation: _Conversation, model: Model, why: Why) -> None:
        """A call that goes to one model for certain, and is answered there."""
        rates = self._rates_of(model, asked) or asked.rates
        cost = self._cost(asked, model, rates, conversation.certain.get(model.id))
        self._pay(cost.nanousd)
        moved, below = self._count(asked, model, cost)
        conversation.hold(model.id, cost.held, certain=True)
        if self._notes:
            conversation.note(asked.ask, asked.model)
        self._told(asked.call, model.id, cost.nanousd[1], why, moved=moved, below=below)

    def _cost(self, asked: Asked, model: Model, rates: Rates, held: Held | None) -> Cost:
        self._models[model.id] = model
        beginning = held is None and self._finds_beginning(asked, model)
        return cost_of(asked, model, rates, held, self._assumed, beginning=beginning)

    def _count(self, asked: Asked, model: Model, cost: Cost) -> tuple[bool, bool]:
        """What there is to tell of a call beside its cost, on the model where it is if nothing is rejected.

        Returns whether it moved to another model, and whether that is below what the tree wants.
        """
        moved, below = model.id != asked.model.id, False
        if self._deciding is not None:
            wanted = self._deciding.free(asked)
            below = wanted is not None and self._deciding.level_of(model.id) < wanted.tier.level
        self.moved += moved
        self.below += below
        for assumption, nanousd in cost.contributions():
            self._add(assumption, nanousd)
        ask = asked.ask
        if ask.cached:
            kind = asked.call.agent_type or asked.call.kind.value
            self._beginnings[model.id, kind] = (ask.at_ms, 2 * ask.hour > ask.cached)
        return moved, below

    def _add(self, assumption: Assumption, nanousd: int) -> None:
        self.contributions[assumption] = self.contributions.get(assumption, 0) + nanousd

    def _finds_beginning(self, asked: Asked, model: Model) -> bool:
        """Whether an agent of the same kind was on the model a moment ago, and left the beginning that both share."""
        seen = self._beginnings.get((model.id, asked.call.agent_type or asked.call.kind.value))
        return seen is not None and asked.call.at_ms - seen[0] < (TTL_1H_MS if seen[1] else TTL_5M_MS)

    # ------------------------------------------------------------------ routing

    def _routed(self, asked: Asked, conversation: _Conversation) -> None:
        call, deciding = asked.call, self._deciding
        if self._requests_for is not None and asked.model.id not in self._requests_for:
            self._as_it_was(asked, conversation)
            return
        if asked.classification is None or deciding is None:
            self._placed(asked, conversation, asked.model, Why.NOT_CLASSIFIED)
            return
        ruled = deciding.ruled(call)
        free = deciding.free(asked)
        if free is None or (ruled is not None and ruled.observe):
            self._placed(asked, conversation, asked.model, Why.NO_MODEL if free is None else Why.OBSERVED)
            return
        real_level = 0 if call.failed else deciding.level_of(asked.model.id)
        ways: list[_Way] = []
        for on, chance in (conversation.on or {"": _SURE}).items():
            decision, why = self._from(on, free, asked, conversation)
            rungs = deciding.climbing(decision, asked.classification.task_type, real_level, loop=call.in_tool_loop)
            if not rungs or any(self._rates_of(rung.model, asked) is None for rung in rungs):
                self._placed(asked, conversation, asked.model, Why.UNPRICED if rungs else Why.NO_MODEL)
                return
            ways.append(_Way(on, chance, rungs, why))
        self._spread(asked, conversation, ways)

    def _spread(self, asked: Asked, conversation: _Conversation, ways: list[_Way]) -> None:
        """All ways that the call can go, each with its probability."""
        costs: dict[tuple[str, bool], Cost] = {}
        low = expected = high = 0.0
        on: dict[str, Three] = {}
        for was_on, chance, rungs, _ in ways:
            for model, first, again, ends in rungs:
                stays = model.id == was_on
                cost = costs.get((model.id, stays))
                if cost is None:
                    held = (conversation.held if stays else conversation.certain).get(model.id)
                    rates = self._rates_of(model, asked) or asked.rates
                    cost = costs[model.id, stays] = self._cost(asked, model, rates, held)
                nanousd = cost.nanousd
                low += chance[0] * first[0] * nanousd[0]
                expected += chance[1] * first[1] * nanousd[1]
                high += chance[2] * first[2] * nanousd[2]
                if again[2]:
                    nanousd = cost.again
                    low += chance[0] * again[0] * nanousd[0]
                    expected += chance[1] * again[1] * nanousd[1]
                    high += chance[2] * again[2] * nanousd[2]
                before = on.get(model.id, _NEVER)
                on[model.id] = (
                    before[0] + chance[0] * ends[0],
                    before[1] + chance[1] * ends[1],
                    before[2] + chance[2] * ends[2],
                )
        main = next((way for way in ways if way.on == conversation.main), ways[0])
        rung = main.rungs[0]
        planned = costs[rung.model.id, rung.model.id == main.on]
        certain = len(ways) == 1
        plain = certain and len(main.rungs) == 1 and not rung.again[2]
        spent = planned.nanousd if plain else (round(low), round(expected), round(high))
        self._pay(spent)
        if not plain:
            self._add(Assumption.ESCALATION, spent[1] - planned.nanousd[1])
        moved, below = self._count(asked, rung.model, planned)
        for (model_id, _), cost in costs.items():
            conversation.hold(model_id, cost.held, certain=certain and model_id == rung.model.id)
        conversation.on, conversation.main = on, rung.model.id
        conversation.note(asked.ask, asked.model)
        self._told(asked.call, rung.model.id, spent[1], main.why, moved=moved, below=below)

    def _from(self, on: str, free: Decision, asked: Asked, conversation: _Conversation) -> tuple[Decision, Why]:
        """Where the call goes from a conversation that is on some model: the gateway's rule (`gateway.planning`)."""
        deciding = self._deciding
        tier = None if deciding is None else deciding.tier_of(on)
        if deciding is None or tier is None or free.model.id == on:
            return free, Why.ROUTED if tier is None else Why.STAYED
        if not asked.call.in_tool_loop and asked.call.classification is not None:
            if free.tier > tier:
                return free, Why.MOVED_UP
            needs_more = self._world.harder.after(free.classification) if free.tier < tier else 0.0
            if self._pays(on, free.model, asked, conversation, needs_more=needs_more):
                return free, Why.MOVED_DOWN
        return deciding.staying(asked, on, tier) or free, Why.STAYED

    def _pays(self, on: str, target: Model, asked: Asked, conversation: _Conversation, *, needs_more: float) -> bool:
        """Whether moving down is possible, and cheaper with all that it throws away."""
        call, deciding = asked.call, self._deciding
        current, counted_by = self._models.get(on), conversation.real_model
        if current is None or counted_by is None or deciding is None:
            return False
        by = ratio(current, counted_by)
        history = History(
            call.has_tools,
            call.has_images,
            call.has_thinking,
            scaled(conversation.prompt, by),
            None,
            current.tokenizer_factor,
        )
        prices = deciding.world(call.at_ms).prices
        if can_take(history, target) is not None or current.id not in prices or target.id not in prices:
            return False
        usual_new = scaled(conversation.usual_new, by)
        turn = Turn(
            scaled(conversation.prompt + conversation.output_tokens, by) + usual_new,
            scaled(conversation.usual_output, by),
            usual_new,
            conversation.ttl_seconds,
        )
        holding = ((on, conversation.held.get(on)), (target.id, conversation.certain.get(target.id)))
        warm = {model_id: _warmth(model_id, held) for model_id, held in holding if held is not None}

        scales = Scales(
            current,
            target,
            prices=prices,
            warm=warm,
            turn=turn,
            now=call.at_ms / 1000,
            margin=self._margin,
            needs_more=needs_more,
        )
        turns, key = conversation.turns + 1, asked.conversation or ""
        moves = scales.sums(self._world.turns.after(turns)).moves
        if on == conversation.main:  # what is regretted of a climb that may have been is too little to be told
            knowing = scales.sums(max(0, self._to_come.get(key, 0) - turns))
            if moves is not knowing.moves:
                lost = knowing.move_usd - knowing.stay_usd if moves else knowing.stay_usd - knowing.move_usd
                chance = Decimal(conversation.on[on][1])
                # Several moves of one conversation may be wrong for the same turns: the worst of them counts.
                self.regrets[key] = max(self.regrets.get(key, 0), usd_to_nanousd(lost * chance))
        return moves


def _untouched(call: ImportedCall) -> Why | None:
    """Why no policy moves a call; None where one may."""
    if not call.kind.may_move:
        return Why.SAFETY
    return Why.FAST if call.conditions.fast else None


def _warmth(model_id: str, held: Held) -> Warmth:
    ttl_seconds = 3_600 if 2 * held.hour_tokens > held.tokens else 300
    return Warmth(model_id, held.tokens, ttl_seconds, held.at_ms / 1000 + ttl_seconds)
