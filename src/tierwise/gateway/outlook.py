"""What is to come in a conversation: how likely its next turns are to ask for more than the present one.

Learned from the ledger, by what the present turn is (`tierwise.policy.outlook`).
"""

from __future__ import annotations

from collections.abc import Iterable

from tierwise.core.tasks import Classification
from tierwise.ledger.turns import TurnsAfter, harder_turns
from tierwise.policy.outlook import HarderTurns

__all__ = ["Outlook"]


class Outlook:
    """What came after turns of each kind."""

    def __init__(self) -> None:
        self._harder = HarderTurns()

    def learn(self, after: Iterable[TurnsAfter]) -> None:
        """What came after past turns, in place of what was learned before."""
        self._harder = harder_turns(after)

    def needs_more(self, classification: Classification) -> float:
        """How likely each turn after one like this is to ask for more."""
        return self._harder.after(classification)
