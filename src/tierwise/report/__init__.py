"""Figures over the ledger: what was spent, what the baseline would have cost, what was saved."""

from __future__ import annotations

from tierwise.report.export import export_rows
from tierwise.report.spend import Report, ReportRow, spend

__all__ = ["Report", "ReportRow", "export_rows", "spend"]
