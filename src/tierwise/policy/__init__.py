"""The decision: a classified task and the world as values → a ladder of models with costs and reasons. Pure."""

from tierwise.policy.decide import decide
from tierwise.policy.tree import Verdict, judge, level_by_tree
from tierwise.policy.world import World

__all__ = ["Verdict", "World", "decide", "judge", "level_by_tree"]
