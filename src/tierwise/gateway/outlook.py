"""What is to come in a conversation: how likely its next turns are to ask for more than the present one.

A conversation that moves to a cheaper model for a simple turn has to come back for a hard one, and pays for that. How
often one follows the other is learned from the ledger, by what the present turn is; where that is little, the answer
is drawn towards an assumption.
"""

from __future__ import annotations

from collections.abc import Iterable

from tierwise.core.tasks import Classification, Needs
from tierwise.ledger.turns import TurnsAfter

__all__ = ["Outlook"]

# Before the ledger knows better: one turn in twenty asks for more than the one before, and with how many turns that
# counts. Most turns are calls within one ask, and the next one asks for the same. Nothing measured is behind it.
_ASSUMED_CHANCE, _ASSUMED_WEIGHT = 0.05, 20


class Outlook:
    """What came after turns of each kind."""

    def __init__(self) -> None:
        self._after: dict[tuple[str, Needs], TurnsAfter] = {}

    def learn(self, after: Iterable[TurnsAfter]) -> None:
        """What came after past turns, in place of what was learned before."""
        self._after = {(one.family, one.needs): one for one in after}

    def needs_more(self, classification: Classification) -> float:
        """How likely each turn after one like this is to ask for more."""
        needs = classification.needs
        if classification.abstained and needs is Needs.PROCESSING:
            needs = Needs.JUDGMENT  # as it is sent
        known = self._after.get((classification.family, needs))
        turns, more = (0, 0) if known is None else (known.turns, known.more)
        return (more + _ASSUMED_CHANCE * _ASSUMED_WEIGHT) / (turns + _ASSUMED_WEIGHT)
