"""A gateway call on its way into the ledger, written by the writer's thread.

The record is there before the request leaves and complete before the client has its last byte: whoever was answered
is in the ledger, whatever happens to the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, Reason, recorded_kind
from tierwise.core.money import Price, Usage, usd_to_nanousd
from tierwise.core.tasks import Classification
from tierwise.ledger.writer import LedgerWriter

__all__ = ["CallLog"]

_NO_TIME = Decimal(0)


class CallLog:
    """One call and its attempts.

    Args:
        writer: where to; None records nothing.
        call: as it begins.
    """

    __slots__ = ("_began", "_open", "attempts", "call", "writer")

    def __init__(self, writer: LedgerWriter | None, call: CallRecord) -> None:
        self.writer = writer
        self.call = call
        self.attempts: list[AttemptRecord] = []
        self._open: AttemptRecord | None = None
        self._began = time.monotonic()

    @property
    def cost_nanousd(self) -> int | None:
        """What all attempts so far cost; None where one of them is unpriced."""
        total = 0
        for attempt in self.attempts:
            if attempt.cost_nanousd is None:
                return None
            total += attempt.cost_nanousd
        return total

    def classified(self, classification: Classification, reasons: Sequence[Reason]) -> None:
        """What the call turned out to be; written with its next record."""
        self.call = replace(
            self.call,
            **recorded_kind(classification),
            reasons=(*self.call.reasons, *reasons),
        )

    def begins(
        self,
        *,
        tier: str,
        model: str,
        provider: str,
        price: Price | None,
        estimated: Usage,
        estimated_nanousd: int | None,
        detail: str = "",
        wait_seconds: float = 0.0,
    ) -> asyncio.Future[None] | None:
        """An attempt is about to leave, at its estimated cost; await the result before it does."""
        attempt = AttemptRecord(
            call_id=self.call.call_id,
            number=len(self.attempts) + 1,
            tier=tier,
            model=model,
            provider=provider,
            started_at_ms=time.time_ns() // 1_000_000,
            outcome=OutcomeKind.OPEN,
            detail=detail,
            usage=estimated,
            price=price,
            cost_nanousd=estimated_nanousd,
            wait_ms=round(wait_seconds * 1000),
        )
        self._open = attempt
        if self.writer is None:
            return None
        return self.writer.written(self.call if attempt.number == 1 else None, (attempt,))

    def ends(
        self,
        outcome: OutcomeKind,
        *,
        usage: Usage,
        detail: str = "",
        seconds: float,
        ttft_seconds: float | None = None,
        request_id: str | None = None,
        reported_model: str | None = None,
        price: Price | None = None,
    ) -> AttemptRecord:
        """What became of the attempt; written with the call's end, or at once where the call goes on."""
        began = self._open
        if began is None:
            raise RuntimeError("no attempt is open")
        self._open = None
        price = price or began.price
        cost: int | None = 0
        if price is None:
            cost = None if usage.prompt_tokens or usage.output_tokens or usage.web_searches else 0
        else:
            # Only what costs by the hour wants to know how long it took.
            took = Decimal(str(round(seconds, 3))) if price.usd_per_hour else _NO_TIME
            cost = usd_to_nanousd(price.cost_usd(usage, seconds=took))
        attempt = began.ended(
            outcome,
            usage=usage,
            price=price,
            cost_nanousd=cost,
            latency_ms=round(seconds * 1000),
            detail=detail,
            ttft_ms=None if ttft_seconds is None else round(ttft_seconds * 1000),
            request_id=request_id,
            reported_model=reported_model,
        )
        self.attempts.append(attempt)
        return attempt

    def breaks_off(self, outcome: OutcomeKind, detail: str) -> None:
        """An attempt that is open is given up: it may have been sent, so it keeps its expected cost."""
        if self._open is not None:
            self.attempts.append(replace(self._open, outcome=outcome, detail=detail))
            self._open = None

    def goes_on(self) -> None:
        """The call goes on after an attempt: what became of that is written meanwhile."""
        if self.writer is not None and self.attempts:
            self.writer.put(None, (self.attempts[-1],))

    def finish(
        self, status: CallStatus, *, error: str | None = None, baseline_nanousd: int | None = None
    ) -> asyncio.Future[None] | None:
        """The call is over; await the result before the client has its last byte."""
        last = self.attempts[-1] if self.attempts else None
        self.call = self.call.ended(
            status,
            tier=last.tier if last else self.call.tier,
            model=last.model if last else self.call.model,
            baseline_nanousd=baseline_nanousd,
            latency_ms=round((time.monotonic() - self._began) * 1000),
            error=error,
        )
        if self.writer is None:
            return None
        return self.writer.written(self.call, (last,) if last else ())
