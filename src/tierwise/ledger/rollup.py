"""What one call adds to the roll-up: a pure function, and the same sums in SQL over the tables.

The roll-up is at any time the sum of `contributions` over all calls. A write takes off what the call added before
and puts on what it adds now, in the transaction that writes the rows; so a call may be written any number of times,
and half of it twice, without being counted twice. `SCAN` computes the same from the rows; tests hold the two against
each other.

What counts where:

- A call, and its baseline, count under the model of the call: the one that answered. Attempts, tokens and costs
  count under the attempt's own model. All of them under the UTC day on which the *call* began.
- The baseline counts only when the call was answered; costs count always, failed attempts included.
- An attempt still open has an estimated cost, kept apart; one that was not run (nothing was sent) has none.
- A call with an attempt of unknown price, or answered with an unknown baseline, is in no comparison: what it did
  cost is in `cost_nanousd`, and neither side of it is in the two `compared_` sums that savings are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import add
from operator import sub as subtract
from typing import NamedTuple, TypeAlias

__all__ = [
    "ADD",
    "DROP_IF_EMPTY",
    "KEY",
    "MS_PER_DAY",
    "SCAN",
    "SUMS",
    "AttemptFacts",
    "CallFacts",
    "Key",
    "Sums",
    "Totals",
    "contributions",
    "difference",
]

MS_PER_DAY = 86_400_000

Key: TypeAlias = tuple[int, str, str, str, str]
Sums: TypeAlias = list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The sums of a group of calls and attempts, as they stand in the table `rollup`."""

    calls: int = 0
    answered_calls: int = 0
    open_calls: int = 0
    unpriced_calls: int = 0  # in no comparison: a price is missing
    baseline_nanousd: int = 0  # of answered calls whose baseline is known
    compared_baseline_nanousd: int = 0
    timed_calls: int = 0  # calls with a latency
    latency_ms: int = 0  # sum over the timed calls
    attempts: int = 0
    failed_attempts: int = 0  # sent, and neither accepted nor open
    open_attempts: int = 0
    unpriced_attempts: int = 0
    estimated_attempts: int = 0  # tokens counted by us, not by the provider
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0
    cost_nanousd: int = 0
    open_cost_nanousd: int = 0  # estimated; may or may not have been charged
    compared_cost_nanousd: int = 0


KEY = ("day", "project", "task_type", "tier", "model")
SUMS = tuple(f.name for f in fields(Totals))
_NO_ATTEMPTS = [0] * 15


class CallFacts(NamedTuple):
    """The columns of a call that the roll-up is made of."""

    started_at_ms: int
    status: str
    project: str | None
    task_type: str
    tier: str
    model: str
    baseline_nanousd: int | None
    latency_ms: int | None


class AttemptFacts(NamedTuple):
    """The columns of an attempt that the roll-up is made of."""

    tier: str
    model: str
    outcome: str
    cost_nanousd: int | None
    estimated: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    thinking_tokens: int
    web_searches: int


def contributions(call: CallFacts, attempts: Sequence[AttemptFacts]) -> dict[Key, Sums]:
    """What a call and its attempts add to the roll-up, by key; the sums in the order of `SUMS`."""
    answered = call.status == "answered"
    baseline = call.baseline_nanousd if answered else 0
    unpriced = baseline is None
    for attempt in attempts:
        if attempt.cost_nanousd is None and attempt.outcome != "not_run":
            unpriced = True
            break
    day, project = call.started_at_ms // MS_PER_DAY, call.project or ""
    known = baseline or 0
    found: dict[Key, Sums] = {
        (day, project, call.task_type, call.tier, call.model): [
            1,
            answered,
            call.status == "open",
            unpriced,
            known,
            0 if unpriced else known,
            call.latency_ms is not None,
            call.latency_ms or 0,
            *_NO_ATTEMPTS,
        ]
    }
    for a in attempts:
        cost = a.cost_nanousd
        if a.outcome == "open":
            part = [1, 0, 1, cost is None, 0, 0, 0, 0, 0, 0, 0, 0, 0, cost or 0, 0]
        elif a.outcome == "not_run":
            part = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        else:
            part = [1, a.outcome != "accepted", 0, cost is None, *a[4:], cost or 0, 0, 0 if unpriced else cost or 0]
        key = (day, project, call.task_type, a.tier, a.model)
        sums = found.get(key)
        if sums is None:
            found[key] = [0, 0, 0, 0, 0, 0, 0, 0, *part]
        else:
            sums[8:] = part if len(attempts) == 1 else map(add, sums[8:], part)
    return found


def difference(before: dict[Key, Sums], after: dict[Key, Sums]) -> dict[Key, Sums]:
    """What to add to the roll-up to turn `before` into `after`."""
    if not before:
        return after
    changed: dict[Key, Sums] = {}
    for key, sums in after.items():
        old = before.get(key)
        delta = sums if old is None else list(map(subtract, sums, old))
        if any(delta):
            changed[key] = delta
    for key, sums in before.items():
        if key not in after:
            changed[key] = [-x for x in sums]
    return changed


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


# The texts below are put together from column names above, never from data.
ADD = (
    f"INSERT INTO rollup ({_list(KEY)}, {_list(SUMS)}) VALUES ({_list(['?'] * (len(KEY) + len(SUMS)))}) "  # noqa: S608 column names only
    f"ON CONFLICT DO UPDATE SET {_list([f'{name} = {name} + excluded.{name}' for name in SUMS])}"
)
DROP_IF_EMPTY = f"DELETE FROM rollup WHERE {' AND '.join(f'{name} = ?' for name in KEY)} AND calls = 0 AND attempts = 0"  # noqa: S608 column names only

_ZERO = "0"
_CALL_PART = {
    "calls": "1",
    "answered_calls": "status = 'answered'",
    "open_calls": "status = 'open'",
    "unpriced_calls": "unpriced",
    "baseline_nanousd": "iif(status = 'answered', coalesce(baseline_nanousd, 0), 0)",
    "compared_baseline_nanousd": "iif(status = 'answered' AND NOT unpriced, baseline_nanousd, 0)",
    "timed_calls": "latency_ms IS NOT NULL",
    "latency_ms": "coalesce(latency_ms, 0)",
}
_SENT = "a.outcome NOT IN ('open', 'not_run')"
_ATTEMPT_PART = {
    "attempts": "1",
    "failed_attempts": f"{_SENT} AND a.outcome <> 'accepted'",
    "open_attempts": "a.outcome = 'open'",
    "unpriced_attempts": "a.outcome <> 'not_run' AND a.cost_nanousd IS NULL",
    "estimated_attempts": f"{_SENT} AND a.estimated",
    **{
        name: f"iif({_SENT}, a.{name}, 0)"
        for name in (
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_5m_tokens",
            "cache_write_1h_tokens",
            "thinking_tokens",
            "web_searches",
        )
    },
    "cost_nanousd": f"iif({_SENT}, coalesce(a.cost_nanousd, 0), 0)",
    "open_cost_nanousd": "iif(a.outcome = 'open', coalesce(a.cost_nanousd, 0), 0)",
    "compared_cost_nanousd": f"iif({_SENT} AND NOT c.unpriced, a.cost_nanousd, 0)",
}
# `{where}` is a condition on `calls`. Rows have the columns of `rollup`, one a call and one an attempt, not grouped.
# CROSS JOIN keeps SQLite walking from the chosen calls to their attempts.
SCAN = (
    "WITH c AS MATERIALIZED (SELECT call_id, started_at_ms / 86400000 AS day, coalesce(project, '') AS project, "  # noqa: S608 column names only
    "task_type, tier, model, status, baseline_nanousd, latency_ms, "
    "(status = 'answered' AND baseline_nanousd IS NULL) OR EXISTS (SELECT 1 FROM attempts WHERE attempts.call_id = "
    "calls.call_id AND cost_nanousd IS NULL AND outcome <> 'not_run') AS unpriced FROM calls WHERE {where}) "
    f"SELECT {_list(KEY)}, "
    f"{_list([f'{_CALL_PART.get(n, _ZERO)} AS {n}' for n in SUMS])} FROM c UNION ALL "
    "SELECT c.day, c.project, c.task_type, a.tier, a.model, "
    f"{_list([_ATTEMPT_PART.get(n, _ZERO) for n in SUMS])} FROM c CROSS JOIN attempts AS a USING (call_id)"
)
