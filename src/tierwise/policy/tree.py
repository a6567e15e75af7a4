"""The decision tree: what a task is → the role of the tier that it belongs to.

The tree itself is data (`[[policy.rules]]`); here is only how a line of it is matched, and what counts as unsure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from tierwise.core.settings import PolicyRule, PolicySettings, Role, Settings
from tierwise.core.tasks import Classification, Needs, Stakes, TaskType

__all__ = ["Verdict", "judge", "level_by_tree"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tree says: the role, the rule that decided, and the task type that was the strictest."""

    role: Role
    rule: PolicyRule
    strictest: TaskType
    unsure: bool


def judge(
    classification: Classification,
    policy: PolicySettings,
    *,
    fits_local: bool,
    stakes: Stakes = Stakes.NORMAL,
) -> Verdict:
    """Evaluates the tree.

    The strictest of everything plausible counts: the task type, other tasks asked for in the same text, and what the
    classification gives reason to fear. Where it knows its whole distribution (`at_least`), that is stricter work
    whose probability makes sending it too low cost more, on average, than going up (`too_low_costs`); unsure is then
    only what it abstained on. Otherwise, where the classifier is not confident, it is alternatives at least
    `consider_alternatives_above` likely, a plausible *critical* one even where it is confident; and unsure is also
    what stays below `confident_above` with all that is plausible.
    """
    strictest = max((classification.task_type, *classification.also), key=attrgetter("level"))
    if classification.at_least is None:
        strictest, unsure = _by_alternatives(classification, policy, strictest)
    else:
        strictest, unsure = _by_expected_cost(classification, policy, strictest)
    recoverable = strictest.recoverable and stakes is Stakes.NORMAL
    for rule in policy.rules:
        if (
            (rule.needs is None or strictest.needs.value in rule.needs)
            and (rule.recoverable is None or rule.recoverable is recoverable)
            and (rule.unsure is None or rule.unsure is unsure)
            and (rule.fits_local is None or rule.fits_local is fits_local)
            and (rule.stakes is None or stakes.value in rule.stakes)
        ):
            return Verdict(rule.to, rule, strictest, unsure)
    # A tree without a line for this case: up, not down.
    return Verdict(Role.TOP, _NO_RULE, strictest, unsure)


def _by_expected_cost(
    classification: Classification, policy: PolicySettings, strictest: TaskType
) -> tuple[TaskType, bool]:
    """Up to each boundary whose far side is so likely that stopping short of it costs more than crossing it.

    Crossing a boundary in vain costs 1, stopping short of it `cost`: crossing is cheaper from 1 / (1 + cost) on.
    """
    likely: Mapping[int, float] = dict(enumerate(classification.at_least or (), 1))
    wanted = max(
        (level for level, cost in enumerate(policy.too_low_costs, 1) if likely.get(level, 0.0) >= 1 / (1 + cost)),
        default=0,
    )
    if strictest.level >= wanted:
        return strictest, classification.abstained
    stricter = [a.task_type for a in classification.alternatives if a.task_type.level >= wanted]
    # Without a name for what it may be, it is unknown work, and that goes up too.
    return (stricter[0], classification.abstained) if stricter else (strictest, True)


def _by_alternatives(
    classification: Classification, policy: PolicySettings, strictest: TaskType
) -> tuple[TaskType, bool]:
    confidence = classification.confidence
    confident = confidence >= policy.confident_above and not classification.abstained
    plausible = confidence
    for alternative in classification.alternatives:
        if alternative.confidence < policy.consider_alternatives_above:
            continue
        other = alternative.task_type
        if not confident:
            plausible += alternative.confidence
        elif other.needs is not Needs.CRITICAL:
            continue
        if other.level > strictest.level:
            strictest = other
    return strictest, classification.abstained or (not confident and plausible < policy.confident_above)


_NO_RULE = PolicyRule(name="no_rule", to=Role.TOP, because="no rule of the policy covers this: the top tier")


def level_by_tree(settings: Settings) -> Callable[[Classification], int]:
    """The level of the tier that the tree alone gives, of a text that is small enough for the local tier.

    What a classifier is measured and tuned by: sizes, overrides and availability are none of its business.
    """
    policy, catalog = settings.policy, settings.catalog
    levels = {role: catalog.tier(name).tier.level for role, name in policy.roles.items()}
    return lambda classification: levels[judge(classification, policy, fits_local=True).role]
