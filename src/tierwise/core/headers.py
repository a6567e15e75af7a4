"""What HTTP headers say about time: dates, and how long a server asks to wait."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache

__all__ = ["http_date", "retry_after_seconds"]


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """How long the server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as an HTTP date.

    A date is measured against the server's own `date` header where there is one, because clocks differ, and
    against `now` otherwise. Never negative; None where nothing (or nothing readable) is asked.
    """
    for name, scale in (("retry-after-ms", 0.001), ("x-retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * scale
        except ValueError:
            moment = http_date(text)
            since = http_date(headers.get("date", "")) or now
            if moment is None or since is None:
                continue
            seconds = (moment - since) / timedelta(seconds=1)
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


@lru_cache(maxsize=16)  # a busy server's replies carry the same date for a whole second
def http_date(text: str) -> datetime | None:
    """The moment that an HTTP date names, with its zone; None where it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
