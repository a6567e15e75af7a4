"""`tierwise prices`: what applies on a day, and what nobody knows."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Tierwise

PRIVATE = """\
[tiers]
own = ["openai:my-own", "openai:priced-own"]
[[prices]]
model = "priced-own"
from = 2026-01-01
input = "0.20"
output = "0.80"
[[prices]]
model = "priced-own"
from = 2026-06-01
input = "0.10"
output = "0.40"
"""


def test_every_configured_model_has_its_prices(tierwise: Tierwise) -> None:
    """All models of all tiers, cheapest tier first, with every price class and their source."""
    shown = tierwise("prices", "--on", "2026-11-23", "--json").json
    by_name = {model["model"]: model for model in shown["models"]}
    assert shown["models"][0]["tier"] == "local"
    haiku = by_name["claude-haiku-5-5"]["bands"]
    assert [band["above_prompt_tokens"] for band in haiku] == [0, 100_000]
    assert [band["input_usd"] for band in haiku] == [0.1, 0.5]
    sonnet = by_name["claude-sonnet-5-5"]
    assert sonnet["valid_from"] == "2026-10-07"
    assert sonnet["bands"][0]["cache_read_usd"] == 0.1
    assert sonnet["bands"][0]["cache_write_1h_usd"] == 4
    assert by_name["qwen3:8b"]["source"] == "runs on this machine"
    assert all(model["priced"] for model in shown["models"])


def test_prices_are_those_of_the_day(tierwise: Tierwise) -> None:
    """Sonnet's cache reads cost twice as much before 2026-10-07."""
    before = tierwise("prices", "claude-sonnet-5-5", "--on", "2026-10-06", "--json").json["models"][0]
    assert (before["valid_from"], before["bands"][0]["cache_read_usd"]) == ("2026-09-28", 0.2)


def test_model_of_no_tier_can_be_named(tierwise: Tierwise) -> None:
    """A model that is in no tier is priced by its name, or by provider and name."""
    for name in ("claude-fable-5-2", "anthropic:claude-fable-5-2"):
        (model,) = tierwise("prices", name, "--json").json["models"]
        assert (model["model"], model["tier"], model["bands"][0]["output_usd"]) == ("claude-fable-5-2", None, 40)


def test_unpriced_model_of_a_tier_says_so(tierwise: Tierwise, home: Path) -> None:
    """A configured model without a price is shown as unpriced, with what to add; never as free."""
    (home / "tierwise.toml").write_text(PRIVATE)
    done = tierwise("prices", "my-own", "--json")
    assert done.code == 0
    (model,) = done.json["models"]
    assert (model["priced"], model["bands"]) == (False, [])
    assert "[[prices]]" in model["problem"]
    table = tierwise("prices").out
    assert "unpriced" in table
    assert "[[prices]]" in table


def test_private_prices_are_dated_too(tierwise: Tierwise, home: Path) -> None:
    """The latest entry on or before the day applies."""
    (home / "tierwise.toml").write_text(PRIVATE)
    rates = [
        tierwise("prices", "priced-own", "--on", day, "--json").json["models"][0]["bands"][0]["input_usd"]
        for day in ("2026-05-31", "2026-06-01")
    ]
    assert rates == [0.2, 0.1]


def test_unknown_model_ends_with_two_and_near_names(tierwise: Tierwise) -> None:
    """A name that nobody knows is no price of zero, also not on a local provider."""
    done = tierwise("prices", "claude-sonet-5-5")
    assert done.code == 2
    assert "did you mean claude-sonnet-5-5" in done.err
    assert done.out == ""
    assert tierwise("prices", "ollama:no-such-model").code == 2
    assert tierwise("prices", "claude-sonnet-5-5", "nobody").code == 2


def test_table_has_bands_and_marks_the_baseline(tierwise: Tierwise) -> None:
    """A person sees each band's limit, the classes and which model is the baseline."""
    out = tierwise("prices", "--on", "2026-11-23").out
    assert "≤ 100,000" in out
    assert "> 100,000" in out
    assert "the baseline is claude-sonnet-5-5" in out
