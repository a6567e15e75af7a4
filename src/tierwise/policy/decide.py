"""From a classified task to a ladder of models.

In order: the tree gives a tier; stakes, the caller and overrides move it; then each tier from there upwards gives
the first of its models that can take the request (capabilities, context, availability); cost ceilings cut the
ladder from above and never move the start down. Whenever something cannot be had, the way is up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from tierwise.core.catalog import Catalog, Model, Tier, TierSpec
from tierwise.core.decisions import Decision, Reason
from tierwise.core.errors import InvalidTask, NoRouteError
from tierwise.core.settings import Overrides, Role
from tierwise.core.tasks import Classification, Stakes, Task, TaskType
from tierwise.policy.ladder import Size, build_ladder, first_fit, measure, seconds_on
from tierwise.policy.tree import Verdict, judge
from tierwise.policy.world import World

__all__ = ["bounds", "decide"]

# What an override's pattern is searched in: the ask stands at the head or at the tail of a text.
_PATTERN_WINDOW = 4000


def decide(task: Task, classification: Classification, world: World) -> Decision:
    """Where `task` goes.

    Raises:
        InvalidTask: contradictory limits (a minimum tier above the maximum one), or a ceiling that is no amount.
        UnknownTier, UnknownModel: a name that is not configured.
        UnpricedModel: a model on the ladder has no known price.
        NoRouteError: no model may and can take it; the message lists each with its reason.
    """
    reasons: list[Reason] = [_classified(classification)]
    size = measure(task, classification, world)
    catalog = world.catalog
    if task.model is not None:
        spec, model = catalog.model(task.model)
        reasons.append(Reason("forced_model", f"{model.id} was asked for by name"))
        return build_ladder(
            task, classification, world, size=size, chosen=[(spec, model)], reasons=reasons, pinned=True
        )

    tier, verdict = _tree_tier(task, classification, world, size=size, reasons=reasons)
    tier = _move(task, classification, world, tier=tier, verdict=verdict, reasons=reasons)
    floor, ceiling = bounds(task, catalog, world.overrides)
    if tier.level < floor.level:
        reasons.append(Reason("min_tier", f"at least {floor}: raised from {tier}"))
        tier = floor
    if tier.level > ceiling.level:
        reasons.append(
            Reason("max_tier", f"at most {ceiling}, as asked: held below {tier}, where it would otherwise go")
        )
        tier = ceiling

    rungs: list[tuple[TierSpec, Model]] = []
    ruled_out: list[str] = []
    for spec in catalog.tiers[tier.level : ceiling.level + 1]:
        found, against = first_fit(spec, task, size, world)
        ruled_out.extend(against)
        if not rungs:
            reasons.extend(Reason("ruled_out", f"not {why}") for why in against)
        if found is not None:
            rungs.append((spec, found))
    if not rungs:
        upto = "" if ceiling.level == catalog.top.tier.level else f" (nothing above {ceiling} is allowed)"
        raise NoRouteError(f"no model from {tier} up can take this task{upto}: " + "; ".join(ruled_out))
    return build_ladder(task, classification, world, size=size, chosen=rungs, reasons=reasons)


# ------------------------------------------------------------------ which tier


def _classified(classification: Classification) -> Reason:
    task_type = classification.task_type
    text = f"{task_type.name} ({classification.sure} sure): {task_type.needs.value}"
    text += "" if task_type.recoverable else ", must be right the first time"
    if classification.abstained:
        text = f"cannot tell what this is; the best guess is {text}"
    if classification.evidence:
        text += f"; {', '.join(classification.evidence[:2])}"
    return Reason("classified", text)


def _latency_budget(task: Task, world: World) -> float:
    seconds = task.max_latency_seconds
    return world.policy.default_max_latency_seconds if seconds is None else seconds


def _fits_local(size: Size, world: World, budget_seconds: float) -> tuple[bool, Callable[[], str]]:
    """Is the step small and latency-tolerant enough for the tier that plays the local role? And why, when asked."""
    policy = world.policy
    spec = world.catalog.tier(policy.roles[Role.LOCAL])
    model = next((m for m in spec.models if m.id not in world.unavailable), spec.models[0])
    usage = size.usage_on(model)
    prompt, output = usage.input_tokens, usage.output_tokens
    if prompt > policy.local_max_prompt_tokens or output > policy.local_max_output_tokens:
        return (
            False,
            lambda: (
                f"about {prompt:,} tokens in and {output:,} out; the local tier is given at most "
                f"{policy.local_max_prompt_tokens:,} in and {policy.local_max_output_tokens:,} out"
            ),
        )
    seconds = seconds_on(model, prompt, output, world)
    known = "measured" if model.id in world.speeds else "assumed"
    return (
        seconds <= budget_seconds,
        lambda: f"about {seconds:.1f} s on {model.id} at its {known} speed, {budget_seconds:g} s allowed",
    )


def _tree_tier(
    task: Task,
    classification: Classification,
    world: World,
    *,
    size: Size,
    reasons: list[Reason],
) -> tuple[Tier, Verdict]:
    fits, fits_reason = _fits_local(size, world, _latency_budget(task, world))
    stated = task.stakes is Stakes.NORMAL and classification.stated_stakes is not Stakes.NORMAL
    stakes = classification.stated_stakes if stated else task.stakes
    verdict = judge(classification, world.policy, fits_local=fits, stakes=stakes)
    if verdict.strictest is not classification.task_type:
        reasons.append(Reason("strictest", _strictest(classification, verdict.strictest)))
    tier = world.catalog.tier(world.policy.roles[verdict.role], where="policy.roles").tier
    uses_fit = verdict.role is Role.LOCAL or (verdict.role is Role.PROCESSING and not fits)
    reasons.append(
        Reason(verdict.rule.name, f"{verdict.rule.because}{f' ({fits_reason()})' if uses_fit else ''}: {tier}")
    )
    if stakes is Stakes.HIGH and tier.level < world.catalog.top.tier.level:
        tier = world.catalog.tiers[tier.level + 1].tier
        why = "the text says that a mistake would be grave" if stated else "stakes are high"
        reasons.append(Reason("stakes_high", f"{why}: one tier up, {tier}"))
    return tier, verdict


def _strictest(classification: Classification, strictest: TaskType) -> str:
    """Why a stricter type than the likeliest one counts, with how likely it is where that is known."""
    text = f"may also be {strictest.name}"
    if classification.at_least is None or strictest in classification.also:
        return f"{text}: the strictest of what is plausible counts"
    likely = classification.at_least[max(strictest.level, 1) - 1]
    kind = ("processing that must be right the first time", "judgment or more", "critical work")[
        max(strictest.level, 1) - 1
    ]
    return f"{text}: {likely:.0%} that this is {kind}, and sending that too low costs more than going up"


def _move(
    task: Task,
    classification: Classification,
    world: World,
    *,
    tier: Tier,
    verdict: Verdict,
    reasons: list[Reason],
) -> Tier:
    """Applies the caller's tier, or else the first override that matches: tool, pattern, tag, type."""
    catalog = world.catalog
    if task.tier is not None:
        forced = catalog.tier(task.tier).tier
        reasons.append(Reason("forced_tier", _moved(tier, forced, "asked for by the caller")))
        return forced
    overrides = world.overrides
    found: tuple[str, str] | None = None
    if task.tool_name is not None and task.tool_name in overrides.tools:
        found = overrides.tools[task.tool_name], f"override for the tool {task.tool_name}"
    if found is None and overrides.patterns:
        head, tail = task.text[:_PATTERN_WINDOW], task.text[-_PATTERN_WINDOW:]
        for pattern in overrides.patterns:
            compiled = _compiled(pattern.pattern)
            if compiled.search(head) or (len(task.text) > _PATTERN_WINDOW and compiled.search(tail)):
                found = pattern.tier, f"override for texts that match /{pattern.pattern}/"
                break
    if found is None and overrides.tags:
        for key, value in task.tags.items():
            name = overrides.tags.get(f"{key}={value}") or overrides.tags.get(key)
            if name is not None:
                found = name, f"override for the tag {key}"
                break
    task_type = classification.task_type
    by_type = False
    if found is None and (name := overrides.types.get(task_type.name)) is not None:
        found, by_type = (name, f"override for {task_type.name}"), True
    if found is None:
        return tier
    moved = catalog.tier(found[0], where="overrides").tier
    only_that = not (verdict.unsure or classification.also) and verdict.strictest is task_type
    if by_type and moved.level < tier.level and not only_that:
        # To go lower for a type one must know that this is that type, and nothing else.
        reasons.append(Reason("override", f"{found[1]} to {moved} not followed: it may be more than that"))
        return tier
    reasons.append(Reason("override", _moved(tier, moved, found[1])))
    return moved


def _moved(old: Tier, new: Tier, why: str) -> str:
    if new.level < old.level:
        return f"{new}, {why}; by itself it would go higher, to {old}"
    return f"{new}, {why}"


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def bounds(task: Task, catalog: Catalog, overrides: Overrides) -> tuple[Tier, Tier]:
    """Between which tiers a task may go: as it says itself, else as configured.

    Raises:
        InvalidTask: the lower is above the higher.
        UnknownTier: a name that is not configured.
    """
    low_name, high_name = task.min_tier or overrides.min_tier, task.max_tier or overrides.max_tier
    low = catalog.tier(low_name).tier if low_name else catalog.bottom.tier
    high = catalog.tier(high_name).tier if high_name else catalog.top.tier
    if low.level > high.level:
        raise InvalidTask(f"the minimum tier {low} is above the maximum tier {high}; raise one or lower the other")
    return low, high
