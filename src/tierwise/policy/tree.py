"""The decision tree: what a task is → the role of the tier that it belongs to.

The tree itself is data (`[[policy.rules]]`); here is only how a line of it is matched, and what counts as unsure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def _severity(task_type: TaskType) -> tuple[int, bool]:
    return task_type.needs.rank, not task_type.recoverable


def judge(
    classification: Classification,
    policy: PolicySettings,
    *,
    fits_local: bool,
    stakes: Stakes = Stakes.NORMAL,
) -> Verdict:
    """Evaluates the tree.

    The strictest of everything plausible counts: the task type, other tasks asked for in the same text, and, where
    the classifier is not confident, alternatives at least `consider_alternatives_above` likely. A plausible
    *critical* alternative counts even where it is confident. Unsure is: it abstained, or what is plausible
    together stays below `confident_above`.
    """
    confidence = classification.confidence
    confident = confidence >= policy.confident_above and not classification.abstained
    strictest = classification.task_type
    plausible = confidence
    for other in classification.also:
        if _severity(other) > _severity(strictest):
            strictest = other
    for alternative in classification.alternatives:
        if alternative.confidence < policy.consider_alternatives_above:
            continue
        other = alternative.task_type
        if not confident:
            plausible += alternative.confidence
        elif other.needs is not Needs.CRITICAL:
            continue
        if _severity(other) > _severity(strictest):
            strictest = other
    unsure = classification.abstained or (not confident and plausible < policy.confident_above)
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


_NO_RULE = PolicyRule(name="no_rule", to=Role.TOP, because="no rule of the policy covers this: the top tier")


def level_by_tree(settings: Settings) -> Callable[[Classification], int]:
    """The level of the tier that the tree alone gives, of a text that is small enough for the local tier.

    What a classifier is measured and tuned by: sizes, overrides and availability are none of its business.
    """
    policy, catalog = settings.policy, settings.catalog
    levels = {role: catalog.tier(name).tier.level for role, name in policy.roles.items()}
    return lambda classification: levels[judge(classification, policy, fits_local=True).role]
