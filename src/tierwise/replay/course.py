"""The calls of a session in order, under a policy: where each goes, and what it costs there.

Theory of operation. Each call is one of a conversation (main loop or agent), whose real course `cache.Real` follows.
Under a policy a conversation is on some model, and each model holds what it was sent of it. A policy that looks at no
work names one model for each call. Routing decides as the gateway does: by what was asked last, and then whether the
conversation stays (in the middle of a turn it does; up it goes when quality demands; down only if `switching.weigh`
says that it pays).

Then the climb. An answer of a lower tier than the one really used may be rejected. `engine.climb` is told so, attempt
after attempt, until it reaches a tier that answered in reality: that is the one path on which attempts can follow each
other, so its probabilities are the whole expectation, and nothing is drawn. A conversation that climbed stays where it
ended, as it does live; so a conversation is on each model with some probability, and each call moves that
distribution on. A model is warm for whoever was on it in the call before. Who comes to it from elsewhere finds what it
held when the conversation was last there for certain, and often that is nothing.

Costs are whole nano-dollars, rounded once for each call and scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple, assert_never

from tierwise.core.calls import CallKind, ImportedCall, ImportedSession
from tierwise.core.catalog import Model
from tierwise.core.decisions import Decision
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import Conditions, usd_to_nanousd
from tierwise.core.tasks import Classification
from tierwise.policy.switching import History, Move, Turn, Warmth, can_take, weigh
from tierwise.replay.cache import TTL_1H_MS, TTL_5M_MS, Ask, Held, Real, as_really_read, ratio, scaled, sent
from tierwise.replay.deciding import Deciding, RungShare, Three
from tierwise.replay.policies import Actual, AllOn, OpusPlan, ReplayPolicy, Routed, SubagentsOn
from tierwise.replay.pricing import MS_PER_DAY, Prompt, RateBook, Rates
from tierwise.replay.values import Assumption, CallOutcome, Scenario, SessionReplay, Why
from tierwise.replay.world import Range, ReplayWorld, known_models

__all__ = ["Replayer", "replay_session"]

_SURE = (1.0, 1.0, 1.0)
_NEVER = (0.0, 0.0, 0.0)
_ONE = Range(1.0, 1.0, 1.0)


def replay_session(session: ImportedSession, policy: ReplayPolicy, world: ReplayWorld) -> SessionReplay:
    """One session under a policy. For many sessions, a `Replayer` keeps what it decided."""
    return Replayer(policy, world).replay(session)


class Replayer:
    """Replays sessions under one policy. What it decided, and looked up, it keeps."""

    def __init__(self, policy: ReplayPolicy, world: ReplayWorld) -> None:
        self.policy = policy
        self.world = world
        settings = policy.settings
        models = world.models if settings is None else (*known_models(settings), *world.models)
        self._rates = RateBook(world.prices, models, world.priced_on)
        self._real_rates = self._rates if world.priced_on is None else RateBook(world.prices, models)
        self._deciding = None if settings is None else Deciding(settings, world, self._rates)

    def replay(self, session: ImportedSession, *, outcomes: bool = True) -> SessionReplay:
        """One session; with where each call went, unless only the sums are wanted."""
        found = _Course(self, session, outcomes=outcomes)
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


# ------------------------------------------------------------------ one session


class _Conversation:
    """One conversation: its real course, and where it is under the policy."""

    __slots__ = (
        "certain",
        "classification",
        "held",
        "main",
        "on",
        "output_tokens",
        "prompt",
        "real",
        "real_model",
        "ttl_seconds",
        "turns",
        "usual_new",
        "usual_output",
    )

    def __init__(self) -> None:
        self.real = Real()
        self.held: dict[str, Held] = {}  # by each model, for whoever was on it in the call before
        self.certain: dict[str, Held] = {}  # by each model, for whoever comes to it
        self.on: dict[str, Three] = {}  # on which model it is, with what probability; empty: on none yet
        self.main = ""  # on which it is if nothing was ever rejected
        self.turns = 0
        self.classification: Classification | None = None  # of what was asked last, as far as that was told
        self.real_model: Model | None = None  # whose tokens these are:
        self.prompt = 0
        self.output_tokens = 0
        self.usual_output = 0
        self.usual_new = 0
        self.ttl_seconds: int | None = None

    def cut(self, intact: int, real: Model, models: Mapping[str, Model]) -> None:
        """What came before was replaced: nobody holds more than what is still the same."""
        for holding in (self.held, self.certain):
            for model_id, held in holding.items():
                holding[model_id] = held.cut(scaled(intact, ratio(models[model_id], real)))

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


class _Cost:
    """What one attempt costs, by scenario, and what the model holds after it."""

    __slots__ = ("_again", "_searches", "_spread", "held", "nanousd", "outputs", "rates", "sent")

    def __init__(
        self,
        nanousd: tuple[int, int, int],
        *,
        sent: Prompt,
        held: Held | None,
        outputs: tuple[int, int, int],
        rates: Rates,
        searches: int,
        spread: Range,
    ) -> None:
        self.nanousd = nanousd
        self.sent = sent
        self.held = held
        self.outputs = outputs
        self.rates = rates
        self._searches = searches
        self._spread = spread
        self._again: tuple[int, int, int] | None = None

    @property
    def again(self) -> tuple[int, int, int]:
        """What it costs to ask the same once more, at once: all that was cached is warm."""
        if self._again is None:
            fresh, *cached = self.sent
            plain = self.rates.nanousd_by_output(Prompt(fresh, sum(cached)), self.outputs, self._searches)
            self._again = _spread(plain, self._spread)
        return self._again


class _Course:
    """One way through a session. Everything happens when it is made."""

    def __init__(self, replayer: Replayer, session: ImportedSession, *, outcomes: bool) -> None:
        self._replayer = replayer
        self._policy = replayer.policy
        self._rates = replayer._rates
        self._real_rates = replayer._real_rates
        self._deciding = replayer._deciding
        self._assumed = replayer.world.assumptions
        settings = replayer.policy.settings
        self._margin = Decimal(str(settings.gateway.switch_margin)) if settings is not None else Decimal(0)
        self._conversations: dict[str, _Conversation] = {}
        self._models: dict[str, Model] = {}  # that hold anything
        self._said: dict[int, int] = {}  # classification (by identity) → its short name
        self._beginnings: dict[tuple[str, str], tuple[int, bool]] = {}  # model, kind of agent → when; for an hour?
        self._to_come: dict[str, int] = {}
        self._priced_of: tuple[int, Conditions] | None = None
        self._priced: dict[str, Rates | None] = {}
        self.actual = 0
        self.sums = [0, 0, 0]
        self.contributions: dict[Assumption, int] = {}
        self.unpriced = self.moved = self.below = 0
        self.regrets: dict[str, int] = {}  # by conversation: what it costs not to have known its length
        self.outcomes: list[CallOutcome] = []
        for call in session.calls:
            if call.kind.converses:
                key = call.agent or ""
                self._to_come[key] = self._to_come.get(key, 0) + 1
        self._session_models = {call.model for call in session.calls if call.kind is CallKind.MAIN}
        for call in session.calls:
            outcome = self._call(call)
            if outcomes:
                self.outcomes.append(outcome)

    # ------------------------------------------------------------------ each call

    def _call(self, call: ImportedCall) -> CallOutcome:
        model, rates = self._rates.of(call)
        usage = call.usage
        used = usage.prompt_tokens or usage.output_tokens
        now_cost = rates.usage_nanousd(usage) if rates is not None and used else self._rates.nanousd(call)
        real_cost = now_cost if self._real_rates is self._rates else self._real_rates.nanousd(call)
        if real_cost is None or now_cost is None:
            self.unpriced += 1
            return CallOutcome(call.id, call.model, None, None, Why.UNPRICED)
        self.actual += real_cost
        if not used:
            return self._alone(call, now_cost, Why.UNPRICED if now_cost else Why.NOTHING_USED)
        if model is None or rates is None:
            return self._alone(call, now_cost, Why.UNKNOWN_MODEL if model is None else Why.UNPRICED)
        self._models[model.id] = model
        conversation = self._conversation(call)
        if conversation.real_model is None:
            conversation.real_model = model
        if call.classification is not None:
            conversation.classification = call.classification
        ask = conversation.real.next(call, model.id)
        if ask.intact is not None:
            conversation.cut(ask.intact, model, self._models)
        step = _Step(self, call, conversation, ask=ask, model=model, rates=rates)
        why = self._untouched(call)
        if why is None:
            match self._policy:
                case Routed():
                    return self._routed(step)
                case AllOn() | OpusPlan() | SubagentsOn():
                    return self._fixed(step)
                case Actual():
                    why = Why.ACTUAL
                case other:
                    assert_never(other)
        return self._placed(step, model, why)

    def rates_now(self, model: Model, call: ImportedCall) -> Rates | None:
        """The rates of a model for that call; kept for the calls of that day that come after it."""
        of = (call.at_ms // MS_PER_DAY, call.conditions)
        if of != self._priced_of:
            self._priced_of = of
            self._priced.clear()
        try:
            return self._priced[model.id]
        except KeyError:
            found = self._priced[model.id] = self._rates.rates(model, call.at_ms, call.conditions)
            return found

    def _conversation(self, call: ImportedCall) -> _Conversation:
        if not call.kind.converses:
            return _Conversation()
        return self._conversations.setdefault(call.agent or "", _Conversation())

    def _alone(self, call: ImportedCall, nanousd: int, why: Why) -> CallOutcome:
        for at in range(3):
            self.sums[at] += nanousd
        return CallOutcome(call.id, call.model, self._tier_name(call.model), nanousd, why)

    @staticmethod
    def _untouched(call: ImportedCall) -> Why | None:
        if not call.kind.may_move:
            return Why.SAFETY
        if call.conditions.fast:
            return Why.FAST
        return None

    def _tier_name(self, model_id: str) -> str | None:
        tier = None if self._deciding is None else self._deciding.tier_of(model_id)
        return None if tier is None else tier.name

    # ------------------------------------------------------------------ policies that name one model

    def _fixed(self, step: _Step) -> CallOutcome:
        call, tier = step.call, self._fixed_tier(step.call)
        if tier is None or self._deciding is None:
            return self._placed(step, step.model, Why.ACTUAL)
        history = History(call.has_tools, call.has_images, False, step.ask.prompt, None, step.model.tokenizer_factor)
        for model in self._deciding.models_of(tier, call.at_ms):
            if can_take(history, model) is None and step.rates_of(model) is not None:
                return self._placed(step, model, Why.FIXED)
        return self._placed(step, step.model, Why.NO_MODEL)

    def _fixed_tier(self, call: ImportedCall) -> str | None:
        match self._policy:
            case AllOn(tier=tier):
                return tier
            case SubagentsOn(tier=tier):
                return tier if call.kind is CallKind.SUBAGENT or call.agent is not None else None
            case OpusPlan(plan=plan, work=work):
                if call.agent is not None and call.model not in self._session_models:
                    return None  # it has a model of its own
                return plan if call.plan_mode else work
            case _:
                return None

    def _placed(self, step: _Step, model: Model, why: Why) -> CallOutcome:
        """A call that goes to one model for certain, and is answered there."""
        call, conversation = step.call, step.conversation
        cost = step.cost(model, conversation.certain.get(model.id))
        for at in range(3):
            self.sums[at] += cost.nanousd[at]
        self._count(step, model, self._decision(step, None))
        self._contribute(step, model, cost)
        self._hold(conversation, model.id, cost.held, certain=True)
        self._saw_beginning(step, model)
        conversation.note(step.ask, step.model)
        return CallOutcome(call.id, model.id, self._tier_name(model.id), cost.nanousd[1], why)

    @staticmethod
    def _hold(conversation: _Conversation, model_id: str, held: Held | None, *, certain: bool) -> None:
        if held is not None:
            conversation.held[model_id] = held
            if certain:
                conversation.certain[model_id] = held

    def _count(self, step: _Step, model: Model, wanted: Decision | None) -> None:
        if model.id != step.model.id:
            self.moved += 1
        if wanted is not None and self._deciding is not None:
            self.below += self._deciding.level_of(model.id) < wanted.tier.level

    def _contribute(self, step: _Step, model: Model, cost: _Cost) -> None:
        """What the cache, the tokenizer and the length of the answer add to what is expected."""
        ask, found = step.ask, cost.sent
        if found is ask.sent:
            return
        by, expected, searches = step.by(model), cost.nanousd[1], step.call.usage.web_searches
        warm = as_really_read(ask, found, by)
        if warm is not found:
            kept = cost.rates.nanousd(warm, cost.outputs[1], searches)
            self._add(Assumption.CACHE, expected - kept)
        if model.id == step.model.id:
            return
        plain = scaled(ask.output, by)
        if cost.outputs[1] != plain:
            short = cost.rates.nanousd(found, plain, searches)
            self._add(Assumption.OUTPUT_LENGTH, expected - short)
        if by != (1, 1):
            self._add(Assumption.TOKENIZER, expected - expected * by[1] // by[0])

    def _add(self, assumption: Assumption, nanousd: int) -> None:
        self.contributions[assumption] = self.contributions.get(assumption, 0) + nanousd

    # ------------------------------------------------------------------ routing

    def _decision(self, step: _Step, tier: str | None) -> Decision | None:
        call = step.call
        classification = step.conversation.classification
        if classification is None or self._deciding is None:
            return None
        said = self._said.get(id(classification))  # its session keeps it
        if said is None:
            said = self._said[id(classification)] = self._deciding.class_of(classification)
        tokens = scaled(step.ask.prompt, step.by(self._deciding.settings.catalog.baseline))
        return self._deciding.decide(call, classification, said, tokens=tokens, tier=tier)

    def _routed(self, step: _Step) -> CallOutcome:
        call, conversation, deciding = step.call, step.conversation, self._deciding
        classification = conversation.classification
        if classification is None or deciding is None:
            return self._placed(step, step.model, Why.NOT_CLASSIFIED)
        ruled = deciding.ruled(call)
        if ruled is not None and ruled.observe:
            return self._placed(step, step.model, Why.OBSERVED)
        free = self._decision(step, None)
        if free is None:
            return self._placed(step, step.model, Why.NO_MODEL)
        real_level = 0 if call.failed else deciding.level_of(step.model.id)
        states = conversation.on or {"": _SURE}
        ways: list[_Way] = []
        for on, chance in states.items():
            decision, why = self._from(on, free, step)
            rungs = deciding.climbing(decision, classification.task_type, real_level, loop=call.in_tool_loop)
            if not rungs or any(step.rates_of(rung.model) is None for rung in rungs):
                return self._placed(step, step.model, Why.UNPRICED if rungs else Why.NO_MODEL)
            ways.append(_Way(on, chance, rungs, why))
        return self._spread(step, ways, free)

    def _spread(self, step: _Step, ways: list[_Way], wanted: Decision) -> CallOutcome:
        """All ways that the call can go, each with its probability."""
        call, conversation = step.call, step.conversation
        costs: dict[tuple[str, bool], _Cost] = {}
        low = expected = high = 0.0
        on: dict[str, Three] = {}
        main = next((way for way in ways if way.on == conversation.main), ways[0])
        for was_on, chance, rungs, _ in ways:
            for model, first, again, ends in rungs:
                stays = model.id == was_on
                cost = costs.get((model.id, stays))
                if cost is None:
                    holding = conversation.held if stays else conversation.certain
                    cost = costs[model.id, stays] = step.cost(model, holding.get(model.id))
                asked = cost.nanousd
                low += chance[0] * first[0] * asked[0]
                expected += chance[1] * first[1] * asked[1]
                high += chance[2] * first[2] * asked[2]
                if again[2]:
                    asked = cost.again
                    low += chance[0] * again[0] * asked[0]
                    expected += chance[1] * again[1] * asked[1]
                    high += chance[2] * again[2] * asked[2]
                before = on.get(model.id, _NEVER)
                on[model.id] = (
                    before[0] + chance[0] * ends[0],
                    before[1] + chance[1] * ends[1],
                    before[2] + chance[2] * ends[2],
                )
        model = main.rungs[0].model
        planned = costs[model.id, model.id == main.on]
        single = len(ways) == 1 and len(main.rungs) == 1 and not main.rungs[0].again[2]
        spent = planned.nanousd if single else (round(low), round(expected), round(high))
        for at in range(3):
            self.sums[at] += spent[at]
        self._add(Assumption.ESCALATION, spent[1] - planned.nanousd[1])
        self._contribute(step, model, planned)
        self._count(step, model, wanted)
        sure = len(ways) == 1
        for (model_id, _), cost in costs.items():
            self._hold(conversation, model_id, cost.held, certain=sure and model_id == model.id)
        self._saw_beginning(step, model)
        if call.kind.converses:
            conversation.on, conversation.main = on, model.id
            conversation.note(step.ask, step.model)
        return CallOutcome(call.id, model.id, self._tier_name(model.id), spent[1], main.why)

    def _from(self, on: str, free: Decision, step: _Step) -> tuple[Decision, Why]:
        """Where the call goes from a conversation that is on some model: the gateway's rule (`gateway.planning`)."""
        deciding, call = self._deciding, step.call
        tier = None if deciding is None else deciding.tier_of(on)
        if tier is None or free.model.id == on:
            return free, Why.ROUTED if tier is None else Why.STAYED
        if not call.in_tool_loop and call.classification is not None:
            if free.tier > tier:
                return free, Why.MOVED_UP
            harder = self._replayer.world.harder
            needs_more = harder.after(free.classification) if free.tier < tier else 0.0
            if self._pays(on, free.model, step, needs_more):
                return free, Why.MOVED_DOWN
        return self._decision(step, tier.name) or free, Why.STAYED

    def _pays(self, on: str, target: Model, step: _Step, needs_more: float) -> bool:
        """Whether moving down is possible, and cheaper with all that it throws away."""
        conversation, call, deciding = step.conversation, step.call, self._deciding
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

        def weighed(turns_to_come: float) -> Move:
            return weigh(
                current,
                target,
                prices=prices,
                warm=warm,
                turn=turn,
                turns_to_come=turns_to_come,
                now=call.at_ms / 1000,
                margin=self._margin,
                needs_more=needs_more,
            )

        turns, key = conversation.turns + 1, call.agent or ""
        moves = weighed(self._replayer.world.turns.after(turns)).moves
        knowing = weighed(max(0, self._to_come.get(key, 0) - turns))
        if moves is not knowing.moves:
            lost = knowing.move_usd - knowing.stay_usd if moves else knowing.stay_usd - knowing.move_usd
            chance = Decimal(conversation.on[on][1])
            # Several moves of one conversation may be wrong for the same turns: the worst of them counts.
            self.regrets[key] = max(self.regrets.get(key, 0), usd_to_nanousd(lost * chance))
        return moves

    # ------------------------------------------------------------------ beginnings that conversations share

    def beginning(self, step: _Step, model: Model) -> tuple[bool, bool, bool]:
        """In which scenarios the beginning that this conversation shares with others is warm on a model that is new
        to it: as it really was; where an agent of the same kind was on it a moment ago; never."""
        seen = self._beginnings.get((model.id, step.call.agent_type or step.call.kind.value))
        age = None if seen is None else step.call.at_ms - seen[0]
        warm = age is not None and age < (TTL_1H_MS if seen is not None and seen[1] else TTL_5M_MS)
        return True, warm, False

    def _saw_beginning(self, step: _Step, model: Model) -> None:
        """A model was sent the beginning of a conversation of this kind."""
        ask = step.ask
        if ask.cached:
            kind = step.call.agent_type or step.call.kind.value
            self._beginnings[model.id, kind] = (ask.at_ms, 2 * ask.hour > ask.cached)


class _Step:
    """One call, with all that its cost depends on."""

    __slots__ = ("_course", "_rates", "ask", "call", "conversation", "model", "real_rates")

    def __init__(
        self, course: _Course, call: ImportedCall, conversation: _Conversation, *, ask: Ask, model: Model, rates: Rates
    ) -> None:
        self._course = course
        self.call = call
        self.conversation = conversation
        self.ask = ask
        self.model = model  # that was really used
        self.real_rates = rates

    def by(self, model: Model) -> tuple[int, int]:
        """Its tokens for each of the real model's."""
        return ratio(model, self.model)

    def rates_of(self, model: Model) -> Rates | None:
        """What a model costs under the conditions of this call."""
        if model.id == self.model.id:
            return self.real_rates
        return self._course.rates_now(model, self.call)

    def cost(self, model: Model, held: Held | None) -> _Cost:
        """What the call costs on a model that holds so much of the conversation."""
        course, ask = self._course, self.ask
        rates = self.rates_of(model)
        if rates is None:
            raise UnpricedModel(f"no price is known for {model.id!r}")
        searches = self.call.usage.web_searches
        same = model.id == self.model.id
        course._models[model.id] = model
        by = (1, 1) if same else ratio(model, self.model)
        least = course._assumed.least_cached_on(model.id)
        expected, kept = sent(ask, held, same=same, by=by, least=least)
        low = high = expected
        if held is None and ask.beginning and expected is not ask.sent:
            warm = course.beginning(self, model)
            other, kept = sent(ask, None, same=same, by=by, least=least, beginning=scaled(ask.beginning, by))
            low, expected, high = (other if one else expected for one in warm)
        output = ask.output if same else scaled(ask.output, by)
        if same:
            length = spread = _ONE
        else:
            length = course._assumed.output_length
            spread = _ONE if by == (1, 1) else course._assumed.tokenizer_spread
        outputs = (round(output * length.low), round(output * length.expected), round(output * length.high))
        plain = rates.nanousd_by_output(expected, outputs, searches)
        if low is not expected or high is not expected:
            plain = (
                rates.nanousd(low, outputs[0], searches),
                plain[1],
                rates.nanousd(high, outputs[2], searches),
            )
        return _Cost(
            _spread(plain, spread),
            sent=expected,
            held=kept,
            outputs=outputs,
            rates=rates,
            searches=searches,
            spread=spread,
        )


def _spread(nanousd: tuple[int, int, int], by: Range) -> tuple[int, int, int]:
    if by is _ONE:
        return nanousd
    low, expected, high = nanousd
    return (
        round(low * by.low),
        expected if by.expected == 1 else round(expected * by.expected),
        round(high * by.high),
    )


def _warmth(model_id: str, held: Held) -> Warmth:
    ttl_seconds = 3_600 if 2 * held.hour_tokens > held.tokens else 300
    return Warmth(model_id, held.tokens, ttl_seconds, held.at_ms / 1000 + ttl_seconds)
