"""What a policy says of a call, and how far a climb goes, in expectation; kept by all that it depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from tierwise.core.calls import ImportedCall
from tierwise.core.catalog import Model, Tier
from tierwise.core.decisions import Decision, Outcome, OutcomeKind
from tierwise.core.errors import TierwiseError, UnpricedModel
from tierwise.core.money import Price
from tierwise.core.settings import ProjectSettings, Settings
from tierwise.core.tasks import Classification, Task, TaskType
from tierwise.engine.climb import climb
from tierwise.policy import World, decide, judge
from tierwise.policy.switching import History, can_take
from tierwise.replay.asked import Asked, LeftAlone
from tierwise.replay.assumptions import Range
from tierwise.replay.cache import ratio, scaled
from tierwise.replay.pricing import MS_PER_DAY

if TYPE_CHECKING:
    from tierwise.replay.world import ReplayWorld

__all__ = ["Deciding", "RungShare", "Three"]

_MOST_KEPT = 20_000  # decisions; then they are made anew
_MOST_NAMED = 1_000  # classifications: those of a few sessions, for as long as they are replayed
Three = tuple[float, float, float]  # one number for each scenario


class RungShare(NamedTuple):
    """One model of a climb, in expectation: by scenario."""

    model: Model
    first: Three  # how often it is asked at all
    again: Three  # how often it is asked again, told what was wrong
    ends: Three  # how often its answer is the last


class Deciding:
    """What the policy says of a call, kept by all that it depends on."""

    def __init__(self, settings: Settings, world: ReplayWorld) -> None:
        self.settings = settings
        self._world = world
        self._rates = world.rates
        catalog = settings.catalog
        self._tiers = {model.id: spec.tier for spec in catalog for model in spec.models}
        self._top = catalog.top.tier.level
        self._worlds: dict[int, World] = {}
        self._classes: dict[tuple[object, ...], int] = {}
        self._named: dict[int, tuple[Classification, int]] = {}  # by identity; kept beside it, so that it stays its own
        self._levels: dict[str, int] = {}
        self._projects = settings.gateway.projects
        self._patterns = bool(settings.overrides.patterns)
        self._decisions: dict[tuple[object, ...], Decision | None] = {}
        self._held: dict[tuple[int, int], tuple[Decision, Decision, Decision]] = {}
        self._climbs: dict[tuple[object, ...], tuple[Decision, tuple[RungShare, ...]]] = {}
        self._firsts: dict[tuple[object, ...], Model | None] = {}

    def tier_of(self, model_id: str) -> Tier | None:
        """The tier that a model is in."""
        return self._tiers.get(model_id)

    def level_of(self, model_id: str) -> int:
        """How high a model stands. One that is in no tier stands with that whose name it bears, or above all."""
        found = self._levels.get(model_id)
        if found is None:
            tier = self._tiers.get(model_id)
            named = [spec.tier.level for spec in self.settings.catalog if spec.tier.name in model_id]
            found = tier.level if tier is not None else named[0] if named else self._top + 1
            self._levels[model_id] = found
        return found

    def world(self, at_ms: int) -> World:
        """What decisions of that day depend on. Days on which all is the same share one."""
        found = self._worlds.get(at_ms // MS_PER_DAY)
        if found is None:
            made = self._world_on(self._rates.day(at_ms))
            found = next((known for known in self._worlds.values() if known == made), made)
            self._worlds[at_ms // MS_PER_DAY] = found
        return found

    def _world_on(self, day: date) -> World:
        settings = self.settings
        prices: dict[str, Price] = {}
        unpriced: dict[str, str] = {}
        unavailable = dict(self._world.unavailable)
        for model in (*settings.catalog.models, settings.catalog.baseline):
            if not model.available_on(day):
                unavailable.setdefault(model.id, "it was not offered then")
            try:
                prices[model.id] = self._world.prices.price(model, day)
            except UnpricedModel:
                unpriced[model.id] = f"no price was known for {model.id!r} then"
                unavailable.setdefault(model.id, unpriced[model.id])
        return World(
            catalog=settings.catalog,
            policy=settings.policy,
            overrides=settings.overrides,
            limits=settings.limits,
            prices=prices,
            unpriced=unpriced,
            unavailable=unavailable,
        )

    def _class_of(self, classification: Classification) -> int:
        """A short name for all classifications that the policy does the same with.

        Few differ in it: how sure the classifier is matters only where it changes what the tree says.
        """
        known = self._named.get(id(classification))
        if known is not None and known[0] is classification:
            return known[1]
        said: list[object] = [
            classification.task_type.name,
            bool(classification.also),
            classification.abstained,
            classification.stated_stakes,
        ]
        for fits_local in (True, False):
            verdict = judge(
                classification, self.settings.policy, fits_local=fits_local, stakes=classification.stated_stakes
            )
            said += [verdict.rule.name, verdict.role, verdict.strictest.name, verdict.unsure]
        found = self._classes.setdefault(tuple(said), len(self._classes))
        if len(self._named) >= _MOST_NAMED:
            self._named.clear()
        self._named[id(classification)] = (classification, found)
        return found

    def free(self, asked: Asked) -> Decision | None:
        """Where a call goes that is in no conversation yet; None where it can go nowhere, or nobody said what it is."""
        if asked.free is None or asked.free[0] is not self:
            asked.free = (self, self.decide(asked))
        found = asked.free[1]
        return found if isinstance(found, Decision) else None

    def below(self, calls: Iterable[Asked | LeftAlone]) -> int:
        """How many calls were answered by a lower tier than they would have gone to."""
        count = 0
        for one in calls:
            if isinstance(one, Asked):
                wanted = self.free(one)
                count += wanted is not None and self.level_of(one.model.id) < wanted.tier.level
        return count

    def staying(self, asked: Asked, model_id: str, tier: Tier) -> Decision | None:
        """Where a call goes that stays on a model: there, and up from it; None where it can go nowhere."""
        held = self.decide(asked, tier=tier.name)
        if held is None or held.model.id == model_id:
            return held
        own = self.decide(asked, model=model_id)  # its tier has one that is preferred, or its own is not there
        if own is None:
            return held
        key = (id(held), id(own))
        kept = self._held.get(key)
        if kept is None or kept[0] is not held or kept[1] is not own:
            ladder = (own.first, *(rung for rung in held.ladder if rung.tier > tier))
            kept = self._held[key] = (held, own, replace(held, ladder=ladder))
        return kept[2]

    def decide(self, asked: Asked, *, tier: str | None = None, model: str | None = None) -> Decision | None:
        """Where a call goes, on one tier or model where that is given; None where it can go nowhere."""
        call, classification = asked.call, asked.classification
        if classification is None:
            return None
        bucket = _bucket(scaled(asked.ask.prompt, ratio(self.settings.catalog.baseline, asked.model)))
        said = self._class_of(classification)
        world = self.world(call.at_ms)
        ask = call.ask if self._patterns else ""
        ruled = self.ruled(call)
        key = (said, bucket, call.has_tools, call.has_images, call.json_schema, tier, model, id(world), ruled, ask)
        if key in self._decisions:
            return self._decisions[key]
        if len(self._decisions) >= _MOST_KEPT:
            self._decisions.clear()
            self._climbs.clear()
            self._held.clear()
        task = Task(
            text=ask or "(nothing is said)",
            json_schema={"type": "object"} if call.json_schema else None,
            has_tools=call.has_tools,
            has_images=call.has_images,
            tokens_in=bucket,
            tier=tier,
            model=model,
            min_tier=None if ruled is None else ruled.min_tier,
            max_tier=None if ruled is None else ruled.max_tier,
        )
        try:
            found: Decision | None = decide(task, classification, world)
        except TierwiseError:
            found = None
        self._decisions[key] = found
        return found

    def ruled(self, call: ImportedCall) -> ProjectSettings | None:
        """What the configuration says of the call's project."""
        return self._projects.get(call.project) if call.project is not None else None

    def climbing(
        self, decision: Decision, task_type: TaskType, real_level: int, *, loop: bool
    ) -> tuple[RungShare, ...]:
        """How far up the ladder a call goes, in expectation. A tier that answered in reality answers."""
        key = (id(decision), task_type.name, real_level, loop)
        found = self._climbs.get(key)
        if found is None or found[0] is not decision:
            rejected = self._world.assumptions.escalation.of(task_type, in_tool_loop=loop)
            found = self._climbs[key] = (decision, self._climb(decision, rejected, real_level))
        return found[1]

    def _climb(self, decision: Decision, rejected: Range, real_level: int) -> tuple[RungShare, ...]:
        attempts: list[tuple[int, bool]] = []  # the rung, and whether it is asked again
        walk = climb(decision, self.settings.limits, random=lambda: 0.0)
        try:
            attempt = next(walk)
            while True:
                attempts.append((attempt.rung_index, attempt.number_on_rung > 1))
                answers = rejected.high == 0 or attempt.rung.tier.level >= real_level
                kind = OutcomeKind.ACCEPTED if answers else OutcomeKind.REJECTED
                attempt = walk.send(Outcome(kind, cost_usd=None))
        except StopIteration:
            pass
        if not attempts:  # over its cost ceiling before it began: it would not have run
            return ()
        rungs: dict[int, list[list[float]]] = {}
        left = [1.0, 1.0, 1.0]
        chances = (rejected.low, rejected.expected, rejected.high)
        for number, (index, again) in enumerate(attempts, 1):
            parts = rungs.setdefault(index, [[0.0] * 3, [0.0] * 3, [0.0] * 3])
            last = number == len(attempts)
            for at in range(3):
                parts[1 if again else 0][at] += left[at]
                goes_on = 0.0 if last else chances[at]
                parts[2][at] += left[at] * (1 - goes_on)
                left[at] *= goes_on
        return tuple(
            RungShare(decision.ladder[index].model, _as_three(first), _as_three(again), _as_three(ends))
            for index, (first, again, ends) in rungs.items()
        )

    def first_on(self, tier: str, asked: Asked) -> Model | None:
        """The first model of a tier that can take a call; None: none can."""
        call = asked.call
        most = (asked.ask.prompt | 0xFFF) + 1  # looked up in steps, by the end of each
        key = (tier, call.at_ms // MS_PER_DAY, call.has_tools, call.has_images, most, asked.model.tokenizer_factor)
        if key not in self._firsts:
            if len(self._firsts) >= _MOST_KEPT:
                self._firsts.clear()
            gone = self.world(call.at_ms).unavailable
            history = History(call.has_tools, call.has_images, False, most, None, asked.model.tokenizer_factor)
            fitting = (
                model
                for model in self.settings.catalog.tier(tier).models
                if model.id not in gone and can_take(history, model) is None
            )
            self._firsts[key] = next(fitting, None)
        return self._firsts[key]


def _as_three(numbers: list[float]) -> Three:
    return (numbers[0], numbers[1], numbers[2])


def _bucket(tokens: int) -> int:
    """Up to the next eighth of a power of two, as the gateway rounds what it estimates."""
    step = max(16, 1 << max(0, tokens.bit_length() - 4))
    return -(-tokens // step) * step
