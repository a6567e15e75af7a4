"""Calls that somebody else made and reports: each once, whoever reports it, however often and in whatever order.

Theory of operation. What the reports of a request share is the upstream's id of it, and `reported_id` makes the call's
id of that: two reports of a request are one row, which the report of the better source fills, and the other only where
that tells nothing. Whether one is new is looked up in the transaction that writes it, so that reporters in several
processes do not pass each other.

What tierwise sent itself (the gateway, a wrapped client) has ids of its own. A report of such a request finds it by its
session and request id, and is left out. Where our own record comes later, out of a spool say, writing it removes the
report. Transcripts of older versions of Claude Code repeat a session's requests under the name of another that was
forked from it: what is new in one is looked for among all that we sent at that time.

Where a request has no id, as behind some endpoints, nothing tells whose it is: then the first source that records
anything of a session has it for itself.

Some reports are of whole sessions, and tell the single calls no more (`tierwise exec`). They claim their sessions
(`claim_session`): what was reported of one, call by call, goes, and what comes later is left out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, Reason
from tierwise.ledger import codec
from tierwise.ledger.ids import REPORTED_BEFORE
from tierwise.ledger.stored import StoredCall, read_calls

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger

__all__ = ["SOURCE_TAG", "Recorded", "Reported", "Source", "claim_session", "record_reported", "source_of"]

SOURCE_TAG = "source"
_MARGIN_MS = 86_400_000  # clocks of two machines may differ, and sessions are taken up again
_LONGEST_MS = 3_600_000  # that a request was sent before the first row of its reply


class Source(StrEnum):
    """Who reports a call; of two that report the same one, the later here tells more."""

    TELEMETRY = "claude_telemetry"  # Claude Code's events: no text, no thinking tokens, no searches
    TRANSCRIPT = "claude_code"
    EXEC = "claude_exec"  # a whole session as one attempt

    @property
    def rank(self) -> int:
        """How much it tells."""
        return list(Source).index(self)


@dataclass(frozen=True, slots=True)
class Reported:
    """A call of one attempt, as a source tells it; its id is of `reported_id`."""

    call: CallRecord
    attempt: AttemptRecord


@dataclass(slots=True)
class Recorded:
    """What became of reports."""

    added: int = 0
    completed: int = 0  # they told more of a call that was there
    known: int = 0  # and so left out
    written: set[str] = field(default_factory=set, compare=False)  # ids of those that were not


def source_of(call: CallRecord) -> Source | None:
    """Who reported a call; None: nobody, tierwise sent it, whatever tags its client gave it."""
    told = dict(call.tags).get(SOURCE_TAG)
    if told not in tuple(Source):
        return None
    source = Source(told)
    return source if source is Source.EXEC or call.call_id < REPORTED_BEFORE else None


def record_reported(ledger: Ledger, reported: Sequence[Reported]) -> Recorded:
    """Records what is not recorded yet, all in one transaction.

    Raises:
        LedgerError: the ledger cannot be written; nothing was, and the reports have to come again.
    """
    found = Recorded()
    reports = [_printable(one) for one in reported]
    of_others = _sent_in_others(ledger, [one for one in reports if source_of(one.call) is Source.TRANSCRIPT])

    def entries(connection: sqlite3.Connection) -> Iterator[codec.Entry]:
        # Asked anew where the transaction is.
        found.added = found.completed = found.known = 0
        found.written.clear()
        elsewhere: dict[str | None, _Elsewhere] = {}
        for one in reports:
            call_id, session = one.call.call_id, one.call.session
            stored = next(read_calls(connection, "call_id = ?", [call_id]), None)
            if stored is not None:
                better = _together(one, stored)
                if better is None:
                    found.known += 1
                else:
                    found.completed += 1
                    found.written.add(call_id)
                    yield better
                continue
            if session not in elsewhere:
                elsewhere[session] = _Elsewhere.read(connection, session, reports)
            if elsewhere[session].has(one) or _request(one) in of_others:
                found.known += 1
            else:
                found.added += 1
                found.written.add(call_id)
                yield one.call, (one.attempt,)

    if reports:
        ledger._write_from(entries)
    return found


def claim_session(ledger: Ledger, session: str, at_ms: int) -> None:
    """Makes a session the caller's, who records it whole: single calls of it that were reported go, others never come.

    What tierwise sent itself stays.

    Raises:
        LedgerError: the ledger cannot be written; nothing was changed.
    """
    with ledger._transaction() as connection:
        connection.execute("INSERT OR IGNORE INTO claimed_sessions (session, at_ms) VALUES (?, ?)", (session, at_ms))
        reported = connection.execute(
            "SELECT call_id FROM calls WHERE session = ? AND call_id < ?", (session, REPORTED_BEFORE)
        ).fetchall()
        ledger._merging.remove(connection, [call_id for (call_id,) in reported])


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """What is recorded of a session (of that time, where reports name none) beside the reports that are to come."""

    requests: frozenset[str]  # ids of those that we sent
    sources: frozenset[str | None]  # who reported calls that are there; None: nobody
    claimed: bool  # somebody records it whole
    pruned_before_ms: int  # what began before is in the sums alone, which nobody can look into

    @classmethod
    def read(cls, connection: sqlite3.Connection, session: str | None, reported: Sequence[Reported]) -> _Elsewhere:
        times = [one.call.started_at_ms for one in reported]
        of_session, chosen = ("session = ? AND ", [session]) if session is not None else ("", [])
        rows = connection.execute(
            f"SELECT request_id, iif(call_id < '{REPORTED_BEFORE}', json_extract(tags, '$.{SOURCE_TAG}'), NULL) "  # noqa: S608 names of this module
            f"FROM calls JOIN attempts USING (call_id) WHERE {of_session}calls.started_at_ms BETWEEN ? AND ?",
            [*chosen, min(times) - _MARGIN_MS, max(times) + _MARGIN_MS],
        ).fetchall()
        claims = connection.execute("SELECT 1 FROM claimed_sessions WHERE session = ?", [session]).fetchone()
        (pruned,) = connection.execute("SELECT pruned_before_ms FROM rollup_state").fetchone()
        ours = frozenset(request for request, source in rows if request is not None and source is None)
        sources = frozenset(source for _, source in rows)
        return cls(ours, sources if session is not None else frozenset(), claims is not None, pruned)

    def has(self, one: Reported) -> bool:
        """Whether somebody else recorded this call."""
        if self.claimed or one.call.started_at_ms < self.pruned_before_ms:
            return True
        request = _request(one)
        if request is not None:
            return request in self.requests
        return bool(self.sources - {source_of(one.call)})


def _request(one: Reported) -> str | None:
    """The upstream's id of a request. Parts of one, such as a compaction within it, are named for it."""
    request = one.attempt.request_id
    return None if request is None else request.partition(":")[0]


def _sent_in_others(ledger: Ledger, reports: Sequence[Reported]) -> frozenset[str]:
    """Requests of these that their sessions have no record of, and that we sent: in sessions of other names.

    Those were sent long before a fork repeats them, so nobody who writes has to wait for this look.
    """
    told = {request: one.call for one in reports if (request := _request(one)) is not None}
    sessions = {call.session for call in told.values() if call.session is not None}
    if not sessions:
        return frozenset()
    requests = "SELECT request_id FROM calls JOIN attempts USING (call_id) WHERE"
    with ledger._reading() as connection:
        own = "session IN (SELECT value FROM json_each(?)) AND request_id IS NOT NULL"
        for (request,) in connection.execute(f"{requests} {own}", [json.dumps(list(sessions))]):
            told.pop(request.partition(":")[0], None)
        if not told:
            return frozenset()
        times = [call.started_at_ms for call in told.values()]
        sent = f"calls.started_at_ms BETWEEN ? AND ? AND call_id >= '{REPORTED_BEFORE}' AND request_id IS NOT NULL"
        rows = connection.execute(f"{requests} {sent}", [min(times) - _LONGEST_MS, max(times)])
        return frozenset(request for (request,) in rows if request in told)


def _printable(one: Reported) -> Reported:
    call, attempts = codec.printable_entry((one.call, (one.attempt,)))
    return one if call is None else Reported(call, attempts[0])


def _together(one: Reported, stored: StoredCall) -> codec.Entry | None:
    """What two reports of a call come to; None: as it is stored."""
    before = Reported(stored.call, stored.attempts[0]) if stored.attempts else one
    worth, stored_worth = _worth(one.call), _worth(stored.call)
    # An event is what it is: nobody changes it by sending another. A transcript grows: whoever read less of it may
    # write later, and a fork's copy may break off within a reply.
    grown = source_of(one.call) is not Source.TELEMETRY and _tokens(one) >= _tokens(before)
    wins = worth > stored_worth or (worth == stored_worth and grown)
    fused = _filled(one, before) if wins else _filled(before, one)
    entry = fused.call, (fused.attempt,)
    return None if entry == (stored.call, stored.attempts) else entry


def _worth(call: CallRecord) -> tuple[bool, int]:
    """What a report goes by: one of the answer goes before one that saw none, such as of a transcript half written."""
    source = source_of(call)
    return call.status is CallStatus.ANSWERED, -1 if source is None else source.rank


def _tokens(one: Reported) -> int:
    return one.attempt.usage.prompt_tokens + one.attempt.usage.output_tokens


def _filled(better: Reported, other: Reported) -> Reported:
    """The better of two reports, with what only the other one tells."""
    call, attempt = better.call, better.attempt
    told = {reason.step for reason in call.reasons}
    reasons: tuple[Reason, ...] = (*call.reasons, *(reason for reason in other.call.reasons if reason.step not in told))
    call = replace(
        call,
        latency_ms=other.call.latency_ms if call.latency_ms is None else call.latency_ms,
        project=other.call.project if call.project is None else call.project,
        key_id=other.call.key_id if call.key_id is None else call.key_id,
        reasons=reasons,
    )
    if call.abstained and not other.call.abstained:
        kind = other.call
        call = replace(
            call,
            task_type=kind.task_type,
            family=kind.family,
            needs=kind.needs,
            confidence=kind.confidence,
            abstained=False,
        )
    attempt = replace(
        attempt,
        latency_ms=other.attempt.latency_ms if attempt.latency_ms is None else attempt.latency_ms,
        ttft_ms=other.attempt.ttft_ms if attempt.ttft_ms is None else attempt.ttft_ms,
    )
    return Reported(call, attempt)
