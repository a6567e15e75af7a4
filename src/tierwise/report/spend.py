"""What was spent and saved, by task type, tier, model, day or project.

The rule of a saving: **baseline − everything spent**. The baseline counts only for calls that were answered, at the
tokens really used; everything spent counts, failed attempts included. So a saving can be negative. A call with an
unknown price on either side is left out of both, and counted in `unpriced_calls`; it is never taken for zero. What an
attempt still open may have cost is shown apart (`open_cost_usd`), because nobody knows yet.

By model or by tier, a call's baseline stands in the row of the model that answered, and each attempt's cost in the
row of the model that caused it: a cheap model whose replies keep being rejected shows a loss, which is the point.

The figures themselves are those of `tierwise.report.figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal

from tierwise.core.decisions import CallStatus
from tierwise.ledger import Dimension, Filter, Ledger, Totals
from tierwise.report.figures import Measures

__all__ = ["Report", "ReportRow", "moment_ms", "period", "spend"]


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One line: the group's names in the order of `Report.by`, and its sums."""

    key: tuple[str, ...]
    totals: Totals

    @property
    def cost_usd(self) -> Decimal:
        """Everything spent whose price is known, failed attempts included."""
        return Measures(self.totals).spent_usd

    @property
    def open_cost_usd(self) -> Decimal:
        """Estimate for attempts that are still open, or were when their process died."""
        return Measures(self.totals).open_usd

    @property
    def baseline_cost_usd(self) -> Decimal:
        """What the baseline model would have cost for the calls that were answered."""
        return Measures(self.totals).baseline_usd

    @property
    def saved_usd(self) -> Decimal:
        """Baseline minus spent, over the calls where both are known. Negative: a loss."""
        return Measures(self.totals).saved_usd

    @property
    def saved_percent(self) -> Decimal | None:
        """The saving in percent of the baseline, to a tenth; None where there is no baseline to compare with."""
        return Measures(self.totals).saved_percent

    @property
    def mean_latency_ms(self) -> int | None:
        """Mean latency of a call; None where none was measured."""
        return Measures(self.totals).mean_latency_ms


@dataclass(frozen=True, slots=True)
class Report:
    """Lines by the given dimensions, dearest first (days: in order), and their sum."""

    by: tuple[Dimension, ...]
    rows: tuple[ReportRow, ...]
    total: ReportRow


def moment_ms(moment: date | datetime) -> int:
    """Unix milliseconds of a moment; a day begins at midnight UTC.

    Raises:
        ValueError: a time without a zone.
    """
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; add one, or give a day (UTC)")
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since_epoch.days * 86_400_000 + since_epoch.seconds * 1000 + since_epoch.microseconds // 1000


def period(since: date | datetime | None, until: date | datetime | None) -> tuple[int | None, int | None]:
    """Both ends in Unix milliseconds, None where open."""
    return None if since is None else moment_ms(since), None if until is None else moment_ms(until)


def _sum(rows: Sequence[ReportRow]) -> Totals:
    return Totals(**{f.name: sum(getattr(row.totals, f.name) for row in rows) for f in fields(Totals)})


def spend(
    ledger: Ledger,
    by: Dimension | Sequence[Dimension] = "task_type",
    *,
    since: date | datetime | None = None,
    until: date | datetime | None = None,
    project: str | None = None,
    key_id: str | None = None,
    task_type: str | None = None,
    tier: str | None = None,
    model: str | None = None,
    session: str | None = None,
    status: CallStatus | None = None,
) -> Report:
    """What was spent and saved. `until` is exclusive; a day means its midnight UTC.

    `project=""` and `key_id=""` are calls without one.

    Comes out of the roll-up, in milliseconds, unless a session, a status or a time within an hour is asked for (of long
    ago: within a day).

    Raises:
        LedgerError: the ledger cannot be read.
        ValueError: an unknown dimension, or a time without a zone.
    """
    dimensions: tuple[Dimension, ...] = (by,) if isinstance(by, str) else tuple(by)
    since_ms, until_ms = period(since, until)
    where = Filter(
        since_ms=since_ms,
        until_ms=until_ms,
        project=project,
        key_id=key_id,
        task_type=task_type,
        tier=tier,
        model=model,
        session=session,
        status=status,
    )
    rows = [ReportRow(key, totals) for key, totals in ledger.totals(dimensions, where)]
    if "day" not in dimensions:
        rows.sort(key=lambda row: (-row.totals.cost_nanousd, -row.totals.calls, row.key))
    return Report(dimensions, tuple(rows), ReportRow((), _sum(rows)))
