"""Calls as lists show them: the latest first, a page at a time, in bounded time whatever is looked for.

What is looked for may be rare, and the ledger long. So a page looks at so many calls at most, and says how far it
came; whoever wants more goes on from its cursor. Where the roll-up knows that no call of a day is of the filter, the
day is not looked at.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from tierwise.core.decisions import CallStatus
from tierwise.ledger.filter import Filter, condition
from tierwise.ledger.folding import summed_calls
from tierwise.ledger.rollup import MS_PER_HOUR
from tierwise.ledger.sums import extent

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = ["CallPage", "CallSummary", "list_calls", "recent_sessions", "session_calls"]

_MOST_LOOKED_AT = 4_000  # calls a page
_LOOKED_AT_ONCE = 500
_MOST_SESSIONS_OF = 2_000  # of so many of the latest calls
_TEXTS = ("call_id", "task_type", "tier", "model", "project", "session", "key_id", "error", "tags", "reasons")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSummary:
    """A call in a list, with what its attempts come to."""

    call_id: str
    started_at_ms: int
    status: CallStatus
    task_type: str
    confidence: float
    abstained: bool
    tier: str
    model: str
    planned_tier: str
    project: str | None
    session: str | None
    key_id: str | None
    kind: str | None  # main, subagent, title, …: `tierwise.core.calls.CallKind`
    latency_ms: int | None
    attempts: int
    models: int  # that were tried: more than one is an escalation
    cost_nanousd: int | None  # None: an attempt is unpriced
    baseline_nanousd: int | None
    tokens_in: int
    tokens_out: int
    error: str | None
    feedback: str | None  # good, bad
    feedback_type: str | None


@dataclass(frozen=True, slots=True)
class CallPage:
    """Calls, the latest first. A page may be short, or empty, and not the last."""

    calls: tuple[CallSummary, ...]
    cursor: str | None  # hand it in for what follows; None: there is no more
    searched_to_ms: int | None  # back to when this page has looked; None: it looked at nothing


# What a call's attempts come to. `{where}` is a condition on `calls`.
_SUMMARY = """
SELECT c.call_id, c.started_at_ms, status, c.task_type, confidence, abstained, c.tier, c.model, planned_tier, project,
    session, key_id, json_extract(tags, '$.kind'), c.latency_ms, count(a.number),
    count(DISTINCT iif(a.number > 0 AND a.outcome <> 'not_run', a.model, NULL)),
    iif(coalesce(sum(a.cost_nanousd IS NULL AND a.outcome <> 'not_run' AND a.number IS NOT NULL), 0), NULL,
        coalesce(sum(iif(a.outcome = 'not_run', 0, a.cost_nanousd)), 0)),
    baseline_nanousd,
    coalesce(sum(a.input_tokens + a.cache_read_tokens + a.cache_write_5m_tokens + a.cache_write_1h_tokens), 0),
    coalesce(sum(a.output_tokens), 0), error, f.verdict, f.task_type
FROM calls AS c LEFT JOIN attempts AS a ON a.call_id = c.call_id LEFT JOIN feedback AS f ON f.call_id = c.call_id
WHERE {where} GROUP BY c.call_id
"""
_NAMED = "c.call_id IN (SELECT value FROM json_each(?))"
_Position: TypeAlias = tuple[int, str]  # of a call in the order of the list


def list_calls(
    ledger: Ledger,
    where: Filter = Filter(),
    *,
    text: str = "",
    least_nanousd: int | None = None,
    most_nanousd: int | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> CallPage:
    """The latest calls of the filter that hold a text in one of their fields and cost so much.

    Raises:
        LedgerError: the ledger cannot be read.
        ValueError: a cursor that is none, or a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")
    position = None if cursor is None else _parsed(cursor)
    found: list[CallSummary] = []
    looked_at = 0
    with ledger._reading() as connection:
        while looked_at < _MOST_LOOKED_AT:
            rows = _looked_at(connection, where, text, position)
            looked_at += len(rows)
            ids = [call_id for _, call_id, is_found in rows if is_found]
            for summary in _summaries(connection, _NAMED, [json.dumps(ids)]):
                if _costs(summary.cost_nanousd, least_nanousd, most_nanousd):
                    found.append(summary)
                    if len(found) == limit:
                        position = (summary.started_at_ms, summary.call_id)
                        return CallPage(tuple(found), _cursor(position), position[0])
            if rows:
                position = rows[-1][:2]
            if len(rows) < _LOOKED_AT_ONCE:
                return CallPage(tuple(found), None, position[0] if position else None)
            if position is not None and not ids and where.session is None:
                position = _next_known(connection, where, position)
                if position is None:
                    return CallPage(tuple(found), None, rows[-1][0])
    assert position is not None  # noqa: S101 whoever has looked at calls stands at one
    return CallPage(tuple(found), _cursor(position), position[0])


def named_calls(ledger: Ledger, call_ids: Collection[str]) -> list[CallSummary]:
    """These calls, as far as they are there, the latest first.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with ledger._reading() as connection:
        return _summaries(connection, _NAMED, [json.dumps([*call_ids])])


def session_calls(ledger: Ledger, session: str, *, most: int) -> tuple[list[CallSummary], bool]:
    """The calls of a session, oldest first, so many at most; and whether these are all.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with ledger._reading() as connection:
        rows = connection.execute(
            "SELECT call_id FROM calls WHERE session = ? ORDER BY started_at_ms, call_id LIMIT ?", (session, most + 1)
        ).fetchall()
        ids = json.dumps([row[0] for row in rows[:most]])
        found = _summaries(connection, _NAMED, [ids])
    return found[::-1], len(rows) <= most


def recent_sessions(connection: sqlite3.Connection, most: int) -> list[str]:
    """The sessions of the latest calls, the latest first."""
    rows = connection.execute(
        "SELECT session, max(started_at_ms) FROM (SELECT session, started_at_ms FROM calls ORDER BY started_at_ms DESC "
        "LIMIT ?) WHERE session IS NOT NULL GROUP BY session ORDER BY 2 DESC, 1 LIMIT ?",
        (_MOST_SESSIONS_OF, most),
    )
    return [row[0] for row in rows]


def _looked_at(
    connection: sqlite3.Connection, where: Filter, text: str, position: _Position | None
) -> list[tuple[int, str, int]]:
    """The next calls from a position on: where each stands, and whether it is one of those looked for."""
    # What has an index chooses the rows; what has none only marks them, so that the time this takes is bounded.
    chosen, values = condition(Filter(since_ms=where.since_ms, until_ms=where.until_ms, session=where.session))
    if position is not None:
        chosen += " AND (started_at_ms, call_id) < (?, ?)"
        values += position
    marked, marks = condition(replace(where, since_ms=None, until_ms=None, session=None))
    if text:
        whole = " || char(10) || ".join(f"coalesce({name}, '')" for name in _TEXTS)
        marked += f" AND instr(lower({whole}), ?) > 0"
        marks.append("".join(c.lower() if c.isascii() else c for c in text))  # as SQLite's lower does
    return connection.execute(
        f"SELECT started_at_ms, call_id, {marked} FROM calls WHERE {chosen} "  # noqa: S608 names of this package
        "ORDER BY started_at_ms DESC, call_id DESC LIMIT ?",
        [*marks, *values, _LOOKED_AT_ONCE],
    ).fetchall()


def _summaries(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[CallSummary]:
    rows = connection.execute(_SUMMARY.format(where=where), values).fetchall()
    found = [_summary(row) for row in rows]
    found.sort(key=lambda summary: (summary.started_at_ms, summary.call_id), reverse=True)
    return found


def _summary(row: Sequence[Any]) -> CallSummary:
    values = dict(zip((f.name for f in fields(CallSummary)), row, strict=True))
    values["status"], values["abstained"] = CallStatus(values["status"]), bool(values["abstained"])
    return CallSummary(**values)


def _costs(nanousd: int | None, least: int | None, most: int | None) -> bool:
    if least is None and most is None:
        return True
    return nanousd is not None and (least is None or nanousd >= least) and (most is None or nanousd <= most)


def _next_known(connection: sqlite3.Connection, where: Filter, position: _Position) -> _Position | None:
    """Where the next call of the filter can be at the earliest, by the roll-up; None where there is none."""
    if summed_calls(connection).is_behind:
        return position  # the roll-up does not know yet
    span = extent(connection, replace(where, until_ms=position[0] + 1, status=None))
    if span.until is None:
        return None
    return min(position, (span.until * MS_PER_HOUR, ""))


def _cursor(position: _Position) -> str:
    return f"{position[0]}-{position[1]}"


def _parsed(cursor: str) -> _Position:
    at_ms, dash, call_id = cursor.partition("-")
    if not dash or not at_ms.isdecimal() or len(at_ms) > 18:
        raise ValueError(f"{cursor!r} is no cursor; hand in that of the page before, or none")
    return int(at_ms), call_id
