"""What one call adds to the roll-up: a pure function, and the same sums in SQL over the tables.

The roll-up is at any time the sum of `contributions` over the calls that have ended and that it has taken in; the
others are added from their rows by whoever reads it (`tierwise.ledger.sums`). Most calls are taken in some time after
they ended, many at once (`tierwise.ledger.folding`, where the sums are kept, too). Writing one that was taken in takes
off what it added before and puts on what it adds now, in the transaction that writes the rows; so a call may be
written any number of times, and half of it twice, without being counted twice. `SCAN` computes the same from the rows;
tests hold the two against each other.

What counts where:

- A call, and its baseline, count under the model of the call: the one that answered. Attempts, tokens and costs
  count under the attempt's own model. All of them in the hour in which the *call* began.
- The baseline counts only when the call was answered; costs count always, failed attempts included.
- An attempt still open has an estimated cost, kept apart; one that was not run (nothing was sent) has none.
- A call with an attempt of unknown price, or answered with an unknown baseline, is in no comparison: what it did
  cost is in `cost_nanousd`, and neither side of it is in the two `compared_` sums that savings are made of.
- A call has climbed when more than one model was tried for its answer. Attempt 0 only asked what the task is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import add
from operator import sub as subtract
from typing import Any, NamedTuple, TypeAlias

from tierwise.ledger.counts import NO_COUNTS, Counts, latency_bucket

__all__ = [
    "ADD",
    "ADD_UP",
    "CALL_SUMS",
    "COLUMNS",
    "KEY",
    "MS_PER_DAY",
    "MS_PER_HOUR",
    "SCAN",
    "SUMS",
    "AttemptFacts",
    "CallFacts",
    "Key",
    "Sums",
    "Totals",
    "add_up",
    "contributions",
    "difference",
]

MS_PER_HOUR = 3_600_000
MS_PER_DAY = 86_400_000

Key: TypeAlias = tuple[int, str, str, str, str, str]
Sums: TypeAlias = list[Any]  # whole numbers in the order of `SUMS`, then the `Counts`


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The sums of a group of calls and attempts, as they stand in the table `rollup`."""

    calls: int = 0
    answered_calls: int = 0
    failed_calls: int = 0
    cancelled_calls: int = 0
    open_calls: int = 0
    abstained_calls: int = 0  # the classifier would not say what they are
    climbed_calls: int = 0  # more than one model was tried
    unpriced_calls: int = 0  # in no comparison: a price is missing
    baseline_nanousd: int = 0  # of answered calls whose baseline is known
    compared_baseline_nanousd: int = 0
    timed_calls: int = 0  # calls with a latency
    latency_ms: int = 0  # sum over the timed calls
    confidence_millionths: int = 0  # sum over all calls
    attempts: int = 0
    accepted_attempts: int = 0
    rejected_attempts: int = 0  # a reply came that was not good enough: rejected, refused or truncated
    failed_attempts: int = 0  # sent, and neither accepted nor open; rejected ones too
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
    cache_saved_nanousd: int = 0  # signed: what writes cost more than reads saved is negative


KEY = ("hour", "project", "key_id", "task_type", "tier", "model")
SUMS = tuple(f.name for f in fields(Totals))
CALL_SUMS = SUMS[: SUMS.index("attempts")]
COLUMNS = (*KEY, *SUMS, "counts")
_NO_CALL = [0] * len(CALL_SUMS)
_NO_ATTEMPTS = [0] * (len(SUMS) - len(CALL_SUMS))
_REJECTIONS = frozenset({"rejected", "refused", "truncated"})


class CallFacts(NamedTuple):
    """The columns of a call that the roll-up is made of."""

    started_at_ms: int
    status: str
    project: str | None
    key_id: str | None
    task_type: str
    tier: str
    model: str
    baseline_nanousd: int | None
    latency_ms: int | None
    confidence: float
    abstained: int


class AttemptFacts(NamedTuple):
    """The columns of an attempt that the roll-up is made of."""

    number: int
    tier: str
    model: str
    outcome: str
    cost_nanousd: int | None
    cache_saved_nanousd: int | None
    estimated: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    thinking_tokens: int
    web_searches: int


def contributions(call: CallFacts, attempts: Sequence[AttemptFacts]) -> dict[Key, Sums]:
    """What a call and its attempts add to the roll-up, by key."""
    status, latency_ms = call.status, call.latency_ms
    answered = status == "answered"
    baseline = call.baseline_nanousd if answered else 0
    unpriced = baseline is None
    for attempt in attempts:
        if attempt.cost_nanousd is None and attempt.outcome != "not_run":
            unpriced = True
            break
    hour, project, key_id = call.started_at_ms // MS_PER_HOUR, call.project or "", call.key_id or ""
    known = baseline or 0
    found: dict[Key, Sums] = {
        (hour, project, key_id, call.task_type, call.tier, call.model): [
            1,
            answered,
            status == "failed",
            status == "cancelled",
            status == "open",
            call.abstained,
            len(attempts) > 1 and _climbed(attempts),
            unpriced,
            known,
            0 if unpriced else known,
            latency_ms is not None,
            latency_ms or 0,
            int(call.confidence * 1_000_000),
            *_NO_ATTEMPTS,
            NO_COUNTS if latency_ms is None else Counts({str(latency_bucket(latency_ms)): 1}),
        ]
    }
    for a in attempts:
        cost, outcome = a.cost_nanousd, a.outcome
        counts = NO_COUNTS
        if outcome == "open":
            part = [1, 0, 0, 0, 1, cost is None, 0, 0, 0, 0, 0, 0, 0, 0, 0, cost or 0, 0, 0]
        elif outcome == "not_run":
            part = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        else:
            accepted = outcome == "accepted"
            if not accepted:
                counts = Counts({outcome: 1})
            part = [
                1,
                accepted,
                outcome in _REJECTIONS,
                not accepted,
                0,
                cost is None,
                *a[6:],
                cost or 0,
                0,
                0 if unpriced else cost or 0,
                a.cache_saved_nanousd or 0,
            ]
        key = (hour, project, key_id, call.task_type, a.tier, a.model)
        sums = found.get(key)
        if sums is None:
            found[key] = [*_NO_CALL, *part, counts]
        else:
            found[key] = add_up(sums, [*_NO_CALL, *part, counts])
    return found


def _climbed(attempts: Sequence[AttemptFacts]) -> bool:
    return len({a.model for a in attempts if a.number > 0 and a.outcome != "not_run"}) > 1


def add_up(one: Sums, other: Sums) -> Sums:
    """The sums of both."""
    return list(map(add, one, other))


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
# What becomes of a row that is there already: of `rollup` as of `rollup_recent`.
ADD_UP = (
    f"ON CONFLICT DO UPDATE SET {_list([f'{name} = {name} + excluded.{name}' for name in SUMS])}, counts = "
    "CASE '{}' WHEN excluded.counts THEN counts WHEN counts THEN excluded.counts "
    "ELSE add_counts(counts, excluded.counts) END"
)
ADD = f"INSERT INTO rollup_recent ({_list(COLUMNS)}) VALUES ({_list(['?'] * len(COLUMNS))}) {ADD_UP}"  # noqa: S608 column names only

_ZERO = "0"
_CALL_PART = {
    "calls": "1",
    "answered_calls": "status = 'answered'",
    "failed_calls": "status = 'failed'",
    "cancelled_calls": "status = 'cancelled'",
    "open_calls": "status = 'open'",
    "abstained_calls": "abstained",
    "climbed_calls": "climbed",
    "unpriced_calls": "unpriced",
    "baseline_nanousd": "iif(status = 'answered', coalesce(baseline_nanousd, 0), 0)",
    "compared_baseline_nanousd": "iif(status = 'answered' AND NOT unpriced, baseline_nanousd, 0)",
    "timed_calls": "latency_ms IS NOT NULL",
    "latency_ms": "coalesce(latency_ms, 0)",
    "confidence_millionths": "CAST(confidence * 1000000 AS INTEGER)",
}
_SENT = "a.outcome NOT IN ('open', 'not_run')"
_ATTEMPT_PART = {
    "attempts": "1",
    "accepted_attempts": "a.outcome = 'accepted'",
    "rejected_attempts": "a.outcome IN ('rejected', 'refused', 'truncated')",
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
    "cache_saved_nanousd": f"iif({_SENT}, coalesce(a.cache_saved_nanousd, 0), 0)",
}
# Of a call's attempts, in one look at them: 1 where one is unpriced, and 2 where more than one model was tried.
_TRIED = "iif(number > 0 AND outcome <> 'not_run', model, NULL)"
_FLAGS = (
    "(SELECT coalesce(max(cost_nanousd IS NULL AND outcome <> 'not_run'), 0) "  # noqa: S608 column names only
    f"+ 2 * coalesce(min({_TRIED}) <> max({_TRIED}), 0) FROM attempts WHERE attempts.call_id = calls.call_id)"
)
# `{where}` is a condition on `calls`. Rows have the columns of `rollup_recent`, one a call and one an attempt, not
# grouped; `counted` is what such a row counts by name, if anything. CROSS JOIN keeps SQLite walking from the chosen
# calls to their attempts.
SCAN = (
    "WITH r AS MATERIALIZED (SELECT call_id, started_at_ms / 3600000 AS hour, coalesce(project, '') AS project, "  # noqa: S608 column names only
    "coalesce(key_id, '') AS key_id, task_type, tier, model, status, baseline_nanousd, latency_ms, confidence, "
    f"abstained, {_FLAGS} AS flags FROM calls WHERE {{where}}), "
    "c AS (SELECT *, flags & 1 OR (status = 'answered' AND baseline_nanousd IS NULL) AS unpriced, flags > 1 AS climbed "
    "FROM r) "
    f"SELECT {_list(KEY)}, {_list([f'{_CALL_PART.get(n, _ZERO)} AS {n}' for n in SUMS])}, "
    "iif(latency_ms IS NULL, NULL, latency_bucket(latency_ms)) AS counted FROM c UNION ALL "
    "SELECT c.hour, c.project, c.key_id, c.task_type, a.tier, a.model, "
    f"{_list([_ATTEMPT_PART.get(n, _ZERO) for n in SUMS])}, "
    f"iif({_SENT} AND a.outcome <> 'accepted', a.outcome, NULL) FROM c CROSS JOIN attempts AS a USING (call_id)"
)
