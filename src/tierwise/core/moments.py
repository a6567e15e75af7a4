"""Moments as people write them: a day, a time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

__all__ = ["parse_moment"]

_DAYS = {"d": 1, "w": 7}


def parse_moment(text: str, now: datetime) -> date:
    """A day (2026-11-01: its midnight, UTC), a time, or how long ago: 12h, 7d (whole days, so that it is fast), 4w.

    Raises:
        ValueError: it is none of these; the message says what is.
    """
    wanted = text.strip().lower()
    try:
        if wanted in {"today", "yesterday"}:
            return now.date() - timedelta(days=wanted == "yesterday")
        if (ago := re.fullmatch(r"(\d{1,6})\s*([hdw])", wanted, re.ASCII)) is not None:
            count = int(ago[1])
            return now - timedelta(hours=count) if ago[2] == "h" else now.date() - timedelta(count * _DAYS[ago[2]])
        if re.fullmatch(r"\d{4}-\d\d-\d\d", wanted, re.ASCII):
            return date.fromisoformat(wanted)
        moment = datetime.fromisoformat(wanted.upper())
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; use for example 7d, 12h, 2026-11-01, 2026-11-01T09:30Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
