"""What the user's own ledger says in place of assumptions: lengths of conversations, harder turns, rejections.

Where the ledger has little, the assumptions hold; each kind of figure is drawn towards its assumption, whose weight is
told with it (`tierwise.policy.outlook`, `tierwise.replay.Escalation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tierwise.core.catalog import Catalog
from tierwise.core.tasks import TaskType
from tierwise.ledger import Ledger
from tierwise.ledger.answers import answers_by_type
from tierwise.ledger.turns import harder_turns, turns_after
from tierwise.policy.outlook import HarderTurns, TurnsToCome
from tierwise.replay import Escalation, shipped_assumptions

__all__ = ["Learned", "learned_from"]

_DAYS = 90
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What is expected of conversations and answers; by default, as assumed."""

    turns: TurnsToCome = field(default_factory=TurnsToCome)
    harder: HarderTurns = field(default_factory=HarderTurns)
    escalation: Escalation = field(default_factory=lambda: shipped_assumptions().escalation)
    conversations: int = 0  # that `turns` was learned from
    followed_turns: int = 0  # that `harder` was
    answers: int = 0  # of the task types that have enough of them for `escalation`


def learned_from(ledger: Ledger, catalog: Catalog, types: Mapping[str, TaskType], now_ms: int) -> Learned:
    """What a ledger tells of the last three months, up to the end of yesterday: what is learned changes once a day.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    until_ms = now_ms - now_ms % _DAY_MS
    since_ms = until_ms - _DAYS * _DAY_MS
    lengths = ledger.session_lengths(since_ms, until_ms)
    after = turns_after(ledger, since_ms, until_ms)
    assumed, top = shipped_assumptions().escalation, (catalog.top.tier.name,)
    counts = {
        types[name]: (answers, rejected)
        for name, (answers, rejected) in answers_by_type(ledger, since_ms, until_ms, but_of=top).items()
        if name in types and answers >= assumed.weight
    }
    return Learned(
        turns=TurnsToCome.learned(lengths),
        harder=harder_turns(after),
        escalation=assumed.learned(counts),
        conversations=len(lengths),
        followed_turns=sum(one.turns for one in after),
        answers=sum(answers for answers, _ in counts.values()),
    )
