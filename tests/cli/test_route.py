"""`tierwise route`: the decision, its keys, and tasks and limits that cannot be used."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Tierwise

KEYS = {
    "task_type",
    "family",
    "confidence",
    "needs",
    "abstained",
    "tier",
    "model",
    "ladder",
    "reasons",
    "estimated_cost_usd",
    "baseline_cost_usd",
}


def test_json_has_every_documented_key(tierwise: Tierwise) -> None:
    """`route --json` has all keys that are promised, and its ladder tier, model and estimated cost."""
    done = tierwise("route", "Summarise this support ticket in two sentences.", "--json")
    decision = done.json
    assert set(decision) >= KEYS
    assert decision["task_type"] == "summarization"
    assert decision["tier"] == decision["ladder"][0]["tier"] == "local"
    assert all(set(rung) >= {"tier", "model", "estimated_cost_usd"} for rung in decision["ladder"])
    assert decision["estimated_cost_usd"] == 0
    assert decision["baseline_cost_usd"] > 0
    assert decision["reasons"]
    assert done.err == ""


def test_task_comes_from_a_pipe(tierwise: Tierwise) -> None:
    """Without an argument, and with `-`, the task is read from stdin."""
    for args in (("route", "--json"), ("route", "-", "--json")):
        done = tierwise(*args, stdin="Translate this letter into French")
        assert done.json["task_type"] == "translation"


@pytest.mark.parametrize("tier", ["haiku", "opus"])
def test_tier_can_be_forced(tierwise: Tierwise, tier: str) -> None:
    """--tier starts the ladder there."""
    assert tierwise("route", "Summarise this", "--tier", tier, "--json").json["tier"] == tier


def test_stakes_and_latency_move_the_tier_up(tierwise: Tierwise) -> None:
    """What is not small or must not fail does not stay on the local tier."""
    assert tierwise("route", "Summarise this", "--stakes", "critical", "--json").json["tier"] == "opus"
    assert tierwise("route", "Summarise this", "--max-latency", "1ms", "--json").json["tier"] != "local"
    assert tierwise("route", "Summarise this", "--tokens-in", "50000", "--json").json["tier"] != "local"


def test_cost_ceiling_blocks_and_says_so(tierwise: Tierwise) -> None:
    """A ceiling below the first rung is a blocker of the decision; it never picks a worse model."""
    decision = tierwise("route", "Write a business plan", "--max-cost", "$0.000001", "--json").json
    assert decision["blockers"]
    assert decision["tier"] == "sonnet"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("",), "empty"),
        (("   ",), "empty"),
        (("x", "--tier", "hiku"), "unknown tier 'hiku'; use one of local, haiku, sonnet, opus"),
        (("x", "--model", "gpt-nothing"), "unknown model 'gpt-nothing'"),
        (("x", "--type", "sumarization"), "did you mean summarization"),
        (("x", "--max-cost", "-1"), "'-1' is not an amount"),
        (("x", "--max-cost", "nan"), "is not an amount"),
        (("x", "--max-latency", "soon"), "is not a duration"),
        (("x", "--tokens-in", "-5"), "-5"),
        (("x", "--min-tier", "opus", "--max-tier", "haiku"), "above the maximum tier"),
        (("x", "--stakes", "huge"), "huge"),
        (("x", "y"), "unexpected extra argument"),
    ],
)
def test_what_cannot_be_used_ends_with_two(tierwise: Tierwise, args: tuple[str, ...], says: str) -> None:
    """Unusable tasks, names and limits end with code 2 and a message; stdout stays empty."""
    done = tierwise("route", *args)
    assert done.code == 2
    assert says in done.err
    assert done.out == ""


def test_ten_megabytes_are_routed_or_refused_in_words(tierwise: Tierwise) -> None:
    """A 10 MB task fits no model: that is said with the token count. One of 2 MB is routed."""
    done = tierwise("route", stdin="Summarise this. " + "word " * 2_000_000)
    assert done.code == 2
    assert "do not fit its context" in done.err
    assert tierwise("route", "--json", stdin="Summarise this. " + "word " * 400_000).json["tier"] != "local"


def test_broken_utf8_is_read_with_replacements(tierwise: Tierwise) -> None:
    """Bytes that are no UTF-8 do not lose the task."""
    assert tierwise("route", "--json", stdin=b"Summarise this: \xff\xfe\x80").json["task_type"] == "summarization"


def test_broken_configuration_names_file_and_key(tierwise: Tierwise, home: object) -> None:
    """An unknown key in tierwise.toml ends with code 2, the file, the key and what is allowed."""
    from pathlib import Path

    Path("tierwise.toml").write_text("[limits]\nmax_cots_usd = 1\n")
    done = tierwise("route", "x")
    assert done.code == 2
    assert "tierwise.toml" in done.err
    assert "limits.max_cots_usd" in done.err
    assert "max_cost_usd" in done.err


def test_table_tells_tier_model_and_reasons(tierwise: Tierwise) -> None:
    """Without --json a person reads tier, model, reasons and the ladder with its costs."""
    done = tierwise("route", "Review this contract for liability risks")
    assert done.out.startswith("opus")
    assert "legal_analysis" in done.out
    assert "baseline" in done.out


@pytest.mark.parametrize(
    ("task", "alias"),
    [
        ("Summarise this ticket in one line: the printer burns", "haiku"),
        ("Write a short story about a lighthouse keeper who collects storms", "sonnet"),
        ("Is this indemnity clause enforceable under German law? We sign tomorrow.", "opus"),
    ],
)
def test_claude_alias_is_one_word(tierwise: Tierwise, task: str, alias: str) -> None:
    """--claude-alias prints what `claude --model` takes, and only that; local work goes to the first Claude tier."""
    done = tierwise("route", "--claude-alias", task)
    assert (done.code, done.out, done.err) == (0, f"{alias}\n", "")


def test_claude_alias_where_no_claude_model_may_be_used(tierwise: Tierwise) -> None:
    """A ladder without a Claude model ends with code 2 and what to do; no model is guessed."""
    done = tierwise("route", "--claude-alias", "Summarise this ticket", "--max-tier", "local")
    assert (done.code, done.out) == (2, "")
    assert "Raise the maximum tier" in done.err
