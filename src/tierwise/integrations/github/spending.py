"""What a job spent on agents, from transcripts, from the ledger, or from what `claude -p` printed of a run.

Amounts are whole nano-dollars. What is unknown is counted apart and is in no amount: calls without a known price, and
runs of which nothing but a broken report is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal

from tierwise.analysis.findings import Findings
from tierwise.core.money import Usage, usd_to_nanousd
from tierwise.integrations.claude_code.report import RunReport
from tierwise.replay.tariff import Tariff
from tierwise.report.spend import Report

__all__ = ["ModelSpending", "Spending", "Sums", "of_findings", "of_ledger", "of_reports"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What is added up over the runs of a pull request."""

    calls: int = 0
    unpriced_calls: int = 0  # in no amount
    spent_nanousd: int = 0
    # With routing: as it is expected, and the ends of the range. What cannot be replayed is in them as it was.
    routed_nanousd: int = 0
    routed_low_nanousd: int = 0
    routed_high_nanousd: int = 0
    saved_nanousd: int = 0  # that routing did save, where it routed; below zero: it cost more

    def __add__(self, other: Sums) -> Sums:
        return Sums(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Sums)})


@dataclass(frozen=True, slots=True)
class ModelSpending:
    """What one model did."""

    model: str
    calls: int | None  # None: it is not known how many
    spent_nanousd: int | None  # None: its price is not known


@dataclass(frozen=True, slots=True)
class Spending:
    """What a job spent."""

    sums: Sums = field(default_factory=Sums)
    models: tuple[ModelSpending, ...] = ()  # dearest first
    unread_reports: int = 0  # runs that left no result
    replayed: bool = False  # whether it was worked out what routing would change

    def __add__(self, other: Spending) -> Spending:
        models = sorted((*self.models, *other.models), key=lambda one: (-(one.spent_nanousd or 0), one.model))
        unread = self.unread_reports + other.unread_reports
        return Spending(self.sums + other.sums, tuple(models), unread, self.replayed or other.replayed)


def of_findings(found: Findings) -> Spending:
    """Of calls in transcripts: what they cost, and what they are expected to cost with routing."""
    routed = found.counterfactual
    sums = Sums(
        calls=found.calls,
        unpriced_calls=found.unpriced_calls,
        spent_nanousd=usd_to_nanousd(found.actual_usd),
        routed_nanousd=usd_to_nanousd(routed.expected_usd),
        routed_low_nanousd=usd_to_nanousd(routed.low_usd),
        routed_high_nanousd=usd_to_nanousd(routed.high_usd),
    )
    models = tuple(_of_model(row.model, row.calls, row.unpriced_calls, row.actual_usd) for row in found.by_model)
    return Spending(sums, models, replayed=bool(found.calls))


def of_ledger(found: Report) -> Spending:
    """Of calls that tierwise made itself, by model: what they cost, and what that saved."""
    total, spent = found.total.totals, found.total.totals.cost_nanousd
    sums = Sums(
        calls=total.calls,
        unpriced_calls=total.unpriced_calls,
        spent_nanousd=spent,
        routed_nanousd=spent,
        routed_low_nanousd=spent,
        routed_high_nanousd=spent,
        saved_nanousd=usd_to_nanousd(found.total.saved_usd),
    )
    models = tuple(
        _of_model(row.key[0], row.totals.calls, row.totals.unpriced_calls, row.cost_usd) for row in found.rows
    )
    return Spending(sums, models)


def _of_model(model: str, calls: int, unpriced_calls: int, usd: Decimal) -> ModelSpending:
    return ModelSpending(model, calls, None if calls and unpriced_calls == calls else usd_to_nanousd(usd))


def of_reports(printed: Iterable[bytes], known_sessions: Collection[str], tariff: Tariff, day: date) -> Spending:
    """Of runs of which no transcript is left, by what the CLI reported at their end.

    It sums up each model's tokens, so that nothing can be said of routing: that counts as spent all the same. Where a
    session was resumed, each report holds the tokens of those before: the largest stands for all.

    Args:
        known_sessions: whose transcripts were read: they are left out.
        day: of the prices, UTC.
    """
    unread, sessions = 0, dict[str, list[RunReport]]()
    for number, text in enumerate(printed):
        report = RunReport.read(text)
        if report is None:
            unread += 1
        elif not report.session or report.session not in known_sessions:
            sessions.setdefault(report.session or f"report {number}", []).append(report)
    spending = Spending(unread_reports=unread)
    for reports in sessions.values():
        last = max(reports, key=lambda report: sum(_tokens(use.usage) for use in report.used.models))
        turns = sum(report.used.requests for report in reports)
        costs = [(use.model, tariff.nanousd(use.model, use.usage, day, requests=turns)) for use in last.used.models]
        spent = sum(cost or 0 for _, cost in costs)
        sums = Sums(
            calls=turns,
            unpriced_calls=int(any(cost is None for _, cost in costs)),  # one at least
            spent_nanousd=spent,
            routed_nanousd=spent,
            routed_low_nanousd=spent,
            routed_high_nanousd=spent,
        )
        spending += Spending(sums, tuple(ModelSpending(model, None, cost) for model, cost in costs))
    return spending


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.output_tokens
