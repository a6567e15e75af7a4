"""How conversations went on: after a turn of one kind, how often the next one asked for more.

Of the main loop of a session only: its subagents share its id, and their calls are no turns of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierwise.core.calls import CallKind
from tierwise.core.tasks import Needs
from tierwise.ledger.store import EVER_MS
from tierwise.policy.outlook import HarderTurns

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = ["TurnsAfter", "harder_turns", "turns_after"]


@dataclass(frozen=True, slots=True)
class TurnsAfter:
    """What came after turns of one family that asked for so much."""

    family: str
    needs: Needs
    turns: int  # that were followed by another one
    more: int  # of which by one that asked for more


# What nobody could tell is taken for judgment, as the policy takes it.
_RANKS = " ".join(f"WHEN '{needs.value}' THEN {needs.rank}" for needs in Needs)
_RANK = f"max(CASE needs {_RANKS} ELSE 0 END, abstained * {Needs.JUDGMENT.rank})"
_SELECT = f"""
WITH latest AS (
    SELECT session, started_at_ms, call_id, family, {_RANK} AS rank FROM calls
    WHERE started_at_ms >= ? AND started_at_ms < ? AND session IS NOT NULL AND status = 'answered'
        AND json_extract(tags, '$.kind') = ?
    ORDER BY started_at_ms DESC LIMIT ?
), turns AS (
    SELECT family, rank, lead(rank) OVER (PARTITION BY session ORDER BY started_at_ms, call_id) AS next FROM latest
)
SELECT family, rank, count(*), sum(next > rank) FROM turns WHERE next IS NOT NULL GROUP BY family, rank ORDER BY 1, 2
"""  # noqa: S608  names and numbers of this module


def turns_after(ledger: Ledger, since_ms: int, until_ms: int = EVER_MS, *, most: int = 100_000) -> list[TurnsAfter]:
    """What came after the answered turns since then (and before `until_ms`), of so many of the latest at most.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    by_rank = {needs.rank: needs for needs in Needs}
    with ledger._reading() as connection:
        rows = connection.execute(_SELECT, (since_ms, until_ms, CallKind.MAIN.value, most)).fetchall()
    return [TurnsAfter(family, by_rank[rank], turns, more) for family, rank, turns, more in rows]


def harder_turns(after: Iterable[TurnsAfter]) -> HarderTurns:
    """How likely a turn is to be followed by one that asks for more, as `turns_after` tells it."""
    return HarderTurns(counts={(one.family, one.needs): (one.turns, one.more) for one in after})
