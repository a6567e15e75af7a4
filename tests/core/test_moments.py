"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from tierwise.core.moments import parse_moment

NOW = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("today", date(2026, 11, 28)),
        (" Yesterday ", date(2026, 11, 27)),
        ("12h", datetime(2026, 11, 27, 21, 30, tzinfo=UTC)),
        ("7d", date(2026, 11, 21)),
        ("4 w", date(2026, 10, 31)),
        ("2026-11-01", date(2026, 11, 1)),
        ("2026-11-01T09:30", datetime(2026, 11, 1, 9, 30, tzinfo=UTC)),
        ("2026-11-01t09:30z", datetime(2026, 11, 1, 9, 30, tzinfo=UTC)),
        ("2026-11-01T09:30+02:00", datetime(2026, 11, 1, 9, 30, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_a_moment_is_read(text: str, moment: date) -> None:
    """Days are whole days in UTC, hours go back from now, and a time without a zone is UTC."""
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "7x", "999999w", "-1d", "٧d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """The message shows how one is written."""
    with pytest.raises(ValueError, match="use for example 7d, 12h"):
        parse_moment(text, NOW)
