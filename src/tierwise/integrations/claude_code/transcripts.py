"""Puts what a session used into the ledger, out of its transcript: every request once, however often it is read.

**Once.** A second reading writes the same rows, and what the gateway or Claude Code's telemetry recorded is not
recorded again (`tierwise.ledger.reported`). Where the rows have no request ids, as behind some endpoints, nothing of a
session that somebody else recorded is taken. Rows that a forked session copied from another are that one's.

**What was saved.** Nobody decided anything about the main loop: its baseline is what it cost. A subagent that the
plugin's hook gave a model has as its baseline the model of the main loop, which it would have had otherwise: the hook
notes the id of the tool's call, and Claude Code keeps that beside the subagent's transcript.
"""

from __future__ import annotations

import glob
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tierwise.core.calls import CallKind, ImportedCall
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, Reason, recorded_kind
from tierwise.core.money import Usage, usd_to_nanousd
from tierwise.core.tasks import Classification
from tierwise.importers.claude_code import TranscriptReader
from tierwise.integrations.claude_code.climbing import Given
from tierwise.integrations.claude_code.report import ModelUse, Used
from tierwise.ledger import Ledger
from tierwise.ledger.ids import reported_id
from tierwise.ledger.reported import SOURCE_TAG, Reported, Source, record_reported
from tierwise.replay.pricing import canonical_id
from tierwise.replay.tariff import Tariff

__all__ = ["SessionTotals", "agents_decided", "read_session", "record_session", "used_in"]

_MOST_META_BYTES = 64 * 1024

Classify = Callable[[ImportedCall], Classification | None]


@dataclass(slots=True)
class SessionTotals:
    """What a session used, for the status line. Money that the gateway recorded is in it."""

    spent_nanousd: int = 0
    saved_nanousd: int = 0
    unpriced_calls: int = 0
    tiers: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> str:
        """As `statusline.py` reads it."""
        return json.dumps(
            {
                "spent_nanousd": self.spent_nanousd,
                "saved_nanousd": self.saved_nanousd,
                "unpriced_calls": self.unpriced_calls,
                "tiers": dict(self.tiers),
            }
        )


def read_session(transcript: Path, session: str, classify: Classify) -> list[ImportedCall]:
    """The calls that this session made itself, in order, each once; its subagents' files lie beside it."""
    calls: dict[str, ImportedCall] = {}
    beside = transcript.with_suffix("") / "subagents"
    for file in (transcript, *sorted(beside.glob("*.jsonl"))):
        reader = TranscriptReader(str(file))
        try:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.endswith(b"\n") or reader.is_whole(line):
                        reader.line(line, number)
        except OSError:
            continue  # gone, or not there yet: the next event reads it
        reader.finished()
        said = [None if group is None else classify(group.example(session)) for group in reader.groups]
        for draft in reader.drafts.values():
            if draft.session == session and draft.origin in ("", session):
                call = draft.call(session, said)
                calls.setdefault(call.id, call)
    return sorted(calls.values(), key=lambda call: (call.at_ms, call.id))


def used_in(projects: Path, session: str) -> Used:
    """What a session that reported nothing used, as its transcript tells it; nothing, where it left none.

    Args:
        projects: where Claude Code keeps the transcripts, a folder for each working directory.
    """
    found = next(projects.glob(f"*/{glob.escape(session)}.jsonl"), None) if session else None
    calls = [] if found is None else read_session(found, session, lambda _: None)
    models: dict[str, Usage] = {}
    for call in calls:
        model = canonical_id(call.model)
        models[model] = models.get(model, Usage()) + call.usage
    return Used(tuple(ModelUse(model, usage) for model, usage in models.items()), max(1, len(calls)))


def record_session(
    calls: Sequence[ImportedCall], decided: Mapping[str, Given], ledger: Ledger, tariff: Tariff
) -> SessionTotals:
    """Records what is not recorded yet.

    Args:
        calls: of one session.
        decided: by the ids of subagents, what the hook gave them.

    Raises:
        LedgerError: the ledger cannot be written; nothing was.
    """
    totals = SessionTotals()
    main = [call for call in calls if call.kind is CallKind.MAIN]
    times = [call.at_ms for call in main]
    reports = []
    for call in calls:
        before = bisect_right(times, call.at_ms)
        instead = main[before - 1].model if call.agent in decided and before else None
        record, attempt = _entry(call, instead, decided.get(call.agent or ""), tariff)
        totals.tiers[attempt.tier] += 1
        totals.unpriced_calls += attempt.cost_nanousd is None
        totals.spent_nanousd += attempt.cost_nanousd or 0
        if attempt.cost_nanousd is not None and record.baseline_nanousd is not None:
            totals.saved_nanousd += record.baseline_nanousd - attempt.cost_nanousd
        reports.append(Reported(record, attempt))
    record_reported(ledger, reports)
    return totals


def agents_decided(transcript: Path, tool_calls: Mapping[str, Given]) -> dict[str, Given]:
    """Of the calls of `Agent` that the hook gave a model: the subagents that came of them, and which it was."""
    found: dict[str, Given] = {}
    for path in (transcript.with_suffix("") / "subagents").glob("agent-*.meta.json"):
        try:
            if path.stat().st_size > _MOST_META_BYTES:
                continue
            told = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        given = tool_calls.get(str(told.get("toolUseId"))) if isinstance(told, dict) else None
        if given is not None:
            found[path.name.removeprefix("agent-").removesuffix(".meta.json")] = given
    return found


def _entry(
    call: ImportedCall, instead: str | None, given: Given | None, tariff: Tariff
) -> tuple[CallRecord, AttemptRecord]:
    day = call.day
    price = tariff.price(call.model, day, call.conditions)
    cost = None if price is None else usd_to_nanousd(price.cost_usd(call.usage))
    tier, model = tariff.tier(call.model), canonical_id(call.model)
    baseline = cost if instead is None else tariff.nanousd(instead, call.usage, day, instead_of=call.model)
    said = call.classification
    tags = {SOURCE_TAG: Source.TRANSCRIPT.value, "kind": call.kind.value}
    if call.agent:
        tags["agent"] = call.agent
    attempt = AttemptRecord(
        call_id=reported_id(call.id),
        number=1,
        tier=tier,
        model=model,
        provider=call.provider,
        started_at_ms=call.at_ms,
        outcome=OutcomeKind.CANCELLED if call.failed else OutcomeKind.ACCEPTED,
        usage=call.usage,
        price=price,
        cost_nanousd=cost,
        request_id=call.id if call.id.startswith("req_") else None,
    )
    record = CallRecord(
        call_id=attempt.call_id,
        started_at_ms=call.at_ms,
        status=CallStatus.CANCELLED if call.failed else CallStatus.ANSWERED,
        **recorded_kind(said),
        tier=tier,
        model=model,
        planned_tier=tier,
        baseline_model=model if instead is None else canonical_id(instead),
        baseline_nanousd=baseline,
        session=call.session,
        project=call.project,
        tags=tuple(sorted(tags.items())),
        reasons=() if given is None else (_reason(given),),
    )
    return record, attempt


def _reason(given: Given) -> Reason:
    said = f"the plugin gave this subagent {given.alias}"
    return Reason("hook", f"{said}: {given.why}" if given.why else said)
