"""Which calls of the ledger, and what their sums are grouped by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tierwise.core.decisions import CallStatus

__all__ = ["Dimension", "Filter", "condition"]

Dimension: TypeAlias = Literal["day", "project", "key_id", "task_type", "tier", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which calls: all conditions given must hold. Times are Unix milliseconds, `until_ms` is exclusive."""

    since_ms: int | None = None
    until_ms: int | None = None
    project: str | None = None  # "" for calls without one
    key_id: str | None = None  # "" for calls without one
    task_type: str | None = None
    tier: str | None = None
    model: str | None = None
    session: str | None = None
    status: CallStatus | None = None


def condition(where: Filter) -> tuple[str, list[object]]:
    """The filter as a condition on the table `calls`, and its values."""
    conditions: list[str] = []
    values: list[object] = []
    for text, value in (
        ("started_at_ms >= ?", where.since_ms),
        ("started_at_ms < ?", where.until_ms),
        ("coalesce(project, '') = ?", where.project),
        ("coalesce(key_id, '') = ?", where.key_id),
        ("task_type = ?", where.task_type),
        ("tier = ?", where.tier),
        ("model = ?", where.model),
        ("session = ?", where.session),
        ("status = ?", where.status.value if where.status is not None else None),
    ):
        if value is not None:
            conditions.append(text)
            values.append(value)
    return " AND ".join(conditions) or "1", values
