"""What HTTP headers say about time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tierwise.core.headers import http_date, retry_after_seconds

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-retry-after-ms": "20"}, 0.02),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
        (
            {
                "retry-after": format_datetime(NOW + timedelta(hours=1, seconds=5), usegmt=True),
                "date": format_datetime(NOW + timedelta(hours=1), usegmt=True),
            },
            5.0,
        ),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates; a date against the server's clock; nonsense is no wait."""
    assert retry_after_seconds(headers, now=NOW) == seconds


def test_a_date_without_any_clock_is_no_wait() -> None:
    """A date needs the server's `date` or the caller's clock to become a wait; seconds need neither."""
    later = format_datetime(NOW + timedelta(seconds=90), usegmt=True)
    assert retry_after_seconds({"retry-after": later}) is None
    assert retry_after_seconds({"retry-after": later, "date": format_datetime(NOW, usegmt=True)}) == 90.0
    assert retry_after_seconds({"retry-after": "7"}) == 7.0


@pytest.mark.parametrize("text", ["", "soon", "Sun, 99 Nov 2026 12:00:00 GMT", "2026-11-22T12:00:00Z", "0" * 5000])
def test_what_is_no_date_is_none(text: str) -> None:
    """Garbage in a date is not believed, and is no error."""
    assert http_date(text) is None
