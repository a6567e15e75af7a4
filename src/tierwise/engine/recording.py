"""The records of one call, written in the order that makes it safe to be killed at any moment.

The call and the attempt are in the ledger before a request leaves; what an attempt used is there before the next one
starts; the end of the call is there before the caller has the answer. Between a start and its end, the record holds
what the attempt is expected to cost: that is what a killed process leaves behind.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from tierwise.core.decisions import Attempt, AttemptRecord, CallRecord, CallStatus, Decision, OutcomeKind, recorded_kind
from tierwise.core.money import Price, Usage, usd_to_nanousd
from tierwise.core.tasks import Task
from tierwise.ledger import Ledger

__all__ = ["Recording"]


class Recording:
    """One call on its way into the ledger.

    Args:
        ledger: where to; None keeps the records in memory only.
        call_id: the call's id.
        now: when it began (wall clock).
        project: recorded where the task names none.
        captured_text: what the classifier saw, where the user chose to keep it.
    """

    def __init__(
        self,
        ledger: Ledger | None,
        task: Task,
        decision: Decision,
        *,
        call_id: str,
        now: datetime,
        project: str | None = None,
        captured_text: str | None = None,
    ) -> None:
        classification = decision.classification
        self.ledger = ledger
        self.attempts: list[AttemptRecord] = []
        self._open: AttemptRecord | None = None
        self._unwritten: AttemptRecord | None = None  # accepted: goes in with the end of the call, in one transaction
        self._call = CallRecord(
            call_id=call_id,
            started_at_ms=_unix_ms(now),
            status=CallStatus.OPEN,
            **recorded_kind(classification),
            tier=decision.tier.name,
            model=decision.model.id,
            planned_tier=decision.tier.name,
            baseline_model=decision.baseline_model.id,
            baseline_nanousd=None,
            session=task.session,
            project=task.project or project,
            tags=tuple(sorted(task.tags.items())),
            reasons=decision.reasons,
            ladder=decision.planned,
            captured_text=captured_text,
        )

    @property
    def call_id(self) -> str:
        """The call's id."""
        return self._call.call_id

    def decided_again(self, decision: Decision) -> None:
        """Another decision takes the first one's place, before its first attempt."""
        classification = decision.classification
        self._call = replace(
            self._call,
            **recorded_kind(classification),
            tier=decision.tier.name,
            model=decision.model.id,
            planned_tier=decision.tier.name,
            baseline_model=decision.baseline_model.id,
            reasons=decision.reasons,
            ladder=decision.planned,
        )

    def attempt_starts(self, attempt: Attempt, now: datetime) -> AttemptRecord:
        """Writes that an attempt is about to be sent, at its estimated cost.

        Number 1 is the first of the climb; number 0, if there is one, asked what the task is.
        """
        rung = attempt.rung
        record = AttemptRecord(
            call_id=self.call_id,
            number=attempt.number,
            tier=rung.tier.name,
            model=rung.model.id,
            provider=rung.model.provider,
            started_at_ms=_unix_ms(now),
            outcome=OutcomeKind.OPEN,
            detail=attempt.why if attempt.number != 1 else "",
            usage=rung.estimated_usage,
            price=rung.price,
            cost_nanousd=usd_to_nanousd(rung.estimated_cost_usd),
            wait_ms=round(attempt.wait_seconds * 1000),
        )
        self._open = record
        if self.ledger is not None:
            if attempt.number <= 1:
                self.ledger.start(self._call, record)
            else:
                self.ledger.attempt_started(record)
        return record

    def attempt_ended(
        self,
        record: AttemptRecord,
        *,
        kind: OutcomeKind,
        detail: str,
        usage: Usage,
        price: Price,
        seconds: float,
        requests: int = 1,
    ) -> int:
        """Prices what was used and writes it. Returns the cost in nano-dollars.

        `requests`: how many the usage sums up, where an attempt is a whole agent's run; price bands go by one of them.
        """
        longest = None if requests == 1 else -(-usage.prompt_tokens // requests)
        took = Decimal(str(round(seconds, 3)))
        cost_nanousd = usd_to_nanousd(price.cost_usd(usage, seconds=took, band_prompt_tokens=longest))
        finished = replace(
            record,
            outcome=kind,
            detail=detail,
            usage=usage,
            cost_nanousd=cost_nanousd,
            latency_ms=round(seconds * 1000),
        )
        self.attempts.append(finished)
        self._open = None
        if kind is OutcomeKind.ACCEPTED and record.number > 0:
            self._unwritten = finished
        elif self.ledger is not None:
            self.ledger.attempt_finished(finished)
        return cost_nanousd

    def call_ends(
        self, status: CallStatus, *, seconds: float, error: str | None = None, baseline_nanousd: int | None = None
    ) -> None:
        """Writes how the call ended."""
        last = self.attempts[-1] if self.attempts else None
        ended = replace(
            self._call,
            status=status,
            tier=last.tier if last else self._call.tier,
            model=last.model if last else self._call.model,
            baseline_nanousd=baseline_nanousd,
            latency_ms=round(seconds * 1000),
            error=error,
        )
        unwritten, self._unwritten = self._unwritten, None
        if self.ledger is None:
            return
        if unwritten is not None:
            self.ledger.end(unwritten, ended)
        else:
            self.ledger.finish(ended)

    def interrupted(self, error: BaseException, *, cancelled: bool, seconds: float) -> None:
        """Writes the end of a call that something broke into: no record is lost, and what may have been spent stays.

        An attempt that was open keeps its expected cost: it may or may not have left.
        """
        if self._open is not None:
            record = replace(
                self._open,
                outcome=OutcomeKind.CANCELLED if cancelled else OutcomeKind.SERVER_ERROR,
                detail=f"interrupted by {type(error).__name__}",
            )
            self.attempts.append(record)
            self._open = None
            if self.ledger is not None:
                self.ledger.attempt_finished(record)
        self.call_ends(
            CallStatus.CANCELLED if cancelled else CallStatus.FAILED,
            seconds=seconds,
            error="cancelled" if cancelled else f"{type(error).__name__} in a provider or in a check of the caller's",
        )


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
