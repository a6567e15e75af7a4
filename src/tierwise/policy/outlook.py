"""What is to come in a conversation, as past ones tell; drawn towards an assumption where those are few.

How long it goes on, and how likely its next turns are to ask for more than the present one: a conversation that moves
to a cheaper model for a simple turn has to come back for a hard one, and pays for that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from tierwise.core.tasks import Classification, Needs

__all__ = ["HarderTurns", "TurnsToCome"]


@dataclass(frozen=True, slots=True)
class TurnsToCome:
    """How many turns come after one: the mean of what came after in the conversations that got this far."""

    assumed: float = 8.0  # an assumption; nothing measured is behind it
    weight: float = 10.0  # conversations that it counts as
    lengths: tuple[int, ...] = ()  # turns of past conversations, ascending
    sums: tuple[int, ...] = (0,)  # of the lengths from each place on

    @classmethod
    def learned(cls, lengths: Iterable[int]) -> TurnsToCome:
        """From the numbers of turns of past conversations."""
        known = tuple(sorted(length for length in lengths if length > 0))
        return cls(lengths=known, sums=(0, *accumulate(reversed(known)))[::-1])

    def after(self, turns: int) -> float:
        """How many are expected after so many."""
        place = bisect_left(self.lengths, turns)
        got_this_far = len(self.lengths) - place
        came_after = self.sums[place] - got_this_far * turns
        return (came_after + self.assumed * self.weight) / (got_this_far + self.weight)


@dataclass(frozen=True, slots=True)
class HarderTurns:
    """How likely each turn after one of a kind is to ask for more than that did."""

    # One turn in twenty asks for more than the one before: most turns are calls within one ask, and the next one asks
    # for the same. Nothing measured is behind it.
    assumed: float = 0.05
    weight: float = 20.0  # turns that it counts as
    # By family and what was needed: turns that another one followed, and how many of those asked for more.
    counts: Mapping[tuple[str, Needs], tuple[int, int]] = field(default_factory=dict)

    def after(self, classification: Classification) -> float:
        """How likely each turn after one like this is to ask for more."""
        needs = classification.needs
        if classification.abstained and needs is Needs.PROCESSING:
            needs = Needs.JUDGMENT  # as it is sent
        turns, more = self.counts.get((classification.family, needs), (0, 0))
        return (more + self.assumed * self.weight) / (turns + self.weight)
