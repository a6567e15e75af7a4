"""How often answers were good enough, by task type: what a climb costs rests on that."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tierwise.core.decisions import OutcomeKind

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = ["answers_by_type"]

_REJECTED = tuple(kind.value for kind in OutcomeKind if kind.is_rejection)
_MARKS = ", ".join("?" for _ in _REJECTED)
_SELECT = f"""
SELECT c.task_type, count(*), sum(a.outcome <> ?) FROM calls AS c CROSS JOIN attempts AS a USING (call_id)
WHERE c.started_at_ms >= ? AND c.started_at_ms < ? AND a.outcome IN (?, {_MARKS}) AND a.tier NOT IN ({{tiers}})
GROUP BY c.task_type
"""  # noqa: S608  marks alone


def answers_by_type(
    ledger: Ledger, since_ms: int, until_ms: int, *, but_of: Collection[str] = ()
) -> dict[str, tuple[int, int]]:
    """Answers in this time and how many of them were rejected, refused or cut off, by task type.

    Args:
        ledger: where they are recorded.
        since_ms: Unix milliseconds.
        until_ms: exclusive.
        but_of: tiers that do not count, such as the top one: nothing comes after it, so its answers are not judged.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    tiers = sorted(but_of)
    accepted = OutcomeKind.ACCEPTED.value
    query = _SELECT.format(tiers=", ".join("?" for _ in tiers))
    with ledger._reading() as connection:
        rows = connection.execute(query, (accepted, since_ms, until_ms, accepted, *_REJECTED, *tiers)).fetchall()
    return {task_type: (answers, rejected) for task_type, answers, rejected in rows}
