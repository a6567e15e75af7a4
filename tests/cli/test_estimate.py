"""`tierwise estimate`: the article's workload to the cent, and workloads that cannot be used."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.cli.conftest import EXAMPLE, Tierwise

STEP = '[[step]]\ntask_type = "summarization"\ncalls_a_day = 40\ntokens_in = 3200\ntokens_out = 400\n'


def test_article_workload_costs_what_it_costs_in_october_2025(tierwise: Tierwise) -> None:
    """The article's workload is $2.2815 a day before, $0.8955 after, 60.7 % less, at the prices of 2025-10-31."""
    done = tierwise("estimate", str(EXAMPLE), "--json")
    first, today = done.json["estimates"]
    assert first["prices_on"] == "2025-10-31"
    assert (first["before_usd_a_day"], first["after_usd_a_day"]) == (2.2815, 0.8955)
    assert first["saved_percent"] == 60.7
    assert (first["before_usd_a_month"], first["after_usd_a_month"]) == (68.445, 26.865)
    assert [row["tier"] for row in first["rows"]] == ["local", "local", "local", "haiku", "sonnet", "sonnet"]
    assert today["prices_on"] > first["prices_on"]


def test_article_workload_at_the_prices_of_november_2026(tierwise: Tierwise) -> None:
    """With the models of 2026-11-23 each text counts 1.3 times the tokens, at $2/$10 and Haiku at $0.10/$0.50."""
    (made,) = tierwise("estimate", str(EXAMPLE), "--json", "--prices-on", "2026-11-23").json["estimates"]
    calls = [(120, 800, 50), (40, 3200, 400), (80, 600, 120), (60, 400, 80), (15, 2000, 1500), (10, 4000, 2000)]
    newer = [(n, tokens_in * 13 // 10, tokens_out * 13 // 10) for n, tokens_in, tokens_out in calls]
    per_token = Decimal("0.000001")
    before = [n * (2 * tokens_in + 10 * tokens_out) * per_token for n, tokens_in, tokens_out in newer]
    n, tokens_in, tokens_out = newer[3]
    haiku = n * (Decimal("0.1") * tokens_in + Decimal("0.5") * tokens_out) * per_token
    after = [Decimal(0), Decimal(0), Decimal(0), haiku, before[4], before[5]]
    assert [row["before_usd_a_day"] for row in made["rows"]] == [float(cost) for cost in before]
    assert [row["after_usd_a_day"] for row in made["rows"]] == [float(cost) for cost in after]
    assert (made["before_usd_a_day"], made["after_usd_a_day"]) == (1.9773, 0.74074)
    assert made["saved_percent"] == 62.5
    assert made["baseline_model"] == "claude-sonnet-5-5"


def test_table_shows_both_dates(tierwise: Tierwise) -> None:
    """Without --json there is a table for the workload's own day and one for today."""
    done = tierwise("estimate", str(EXAMPLE))
    assert "Models and prices of 2025-10-31" in done.out
    assert "Models and prices of today" in done.out
    assert "$2.2815" in done.out
    assert "60.7 % less" in done.out


def test_csv_with_a_byte_order_mark_equals_toml(tierwise: Tierwise, home: Path) -> None:
    """A CSV as a spreadsheet saves it (BOM, CRLF) gives the same figures as the TOML."""
    (home / "w.toml").write_text(STEP)
    (home / "w.csv").write_bytes(
        b"\xef\xbb\xbftask_type,calls_a_day,tokens_in,tokens_out\r\nsummarization,40,3200,400\r\n"
    )
    toml = tierwise("estimate", "w.toml", "--prices-on", "2026-11-23", "--json").json["estimates"]
    csv = tierwise("estimate", "w.csv", "--prices-on", "2026-11-23", "--json").json["estimates"]
    assert csv == toml
    assert csv[0]["before_usd_a_day"] > 0


def test_name_with_brackets_is_shown_as_it_is(tierwise: Tierwise, home: Path) -> None:
    """A step's name is text, not markup of the table."""
    (home / "w.toml").write_text(STEP + 'name = "[/red] all"\n')
    done = tierwise("estimate", "w.toml", "--prices-on", "2026-11-23")
    assert "[/red] all" in done.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[step", "not valid TOML"),
        ("", "no [[step]]"),
        (STEP.replace("tokens_in = 3200\n", ""), "tokens_in is missing"),
        (STEP.replace("3200", "-1"), "tokens_in = -1 is not a number of 0 or more"),
        (STEP.replace("3200", "1.5"), "not a whole number"),
        (STEP.replace("summarization", "summarisation"), "did you mean summarization"),
        (STEP + 'tier = "hiku"\n', "unknown tier 'hiku'"),
        (STEP + "toknes = 1\n", "unknown key 'toknes'"),
        ('baseline = "nobody"\n' + STEP, "unknown model 'nobody'"),
    ],
)
def test_workload_that_cannot_be_used_is_told_of(tierwise: Tierwise, home: Path, text: str, says: str) -> None:
    """A mistake in a workload ends with code 2 and a message that names it; nothing is on stdout."""
    (home / "w.toml").write_text(text)
    done = tierwise("estimate", "w.toml")
    assert done.code == 2
    assert says in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"task_type,calls_a_day,tokens_in\nsummarization,1,2\n", "line 2: tokens_out is missing"),
        (b"task_type,calls_a_day,tokens_in,tokens_out\nsummarization,many,1,2\n", "calls_a_day = 'many'"),
        (b"task_type,calls_a_day,tokens_in,tokens_out\n", "no rows"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_csv_that_cannot_be_used_is_told_of(tierwise: Tierwise, home: Path, data: bytes, says: str) -> None:
    """The same for CSV, with the line."""
    (home / "w.csv").write_bytes(data)
    done = tierwise("estimate", "w.csv")
    assert done.code == 2
    assert says in done.err


def test_missing_workload_is_told_of(tierwise: Tierwise) -> None:
    """A file that is not there ends with code 2."""
    done = tierwise("estimate", "nothing.toml")
    assert done.code == 2
    assert "nothing.toml" in done.err


def test_day_before_every_model_is_told_of(tierwise: Tierwise) -> None:
    """On a day on which no model of a pinned tier existed there is a clear message, not a wrong figure."""
    for day, tier in (("2020-01-01", "sonnet"), ("2025-09-30", "haiku")):
        done = tierwise("estimate", str(EXAMPLE), "--prices-on", day)
        assert done.code == 2
        assert f"no model of the tier {tier} existed on {day}" in done.err
