"""From the tree's tier to a ladder: overrides, bounds, capabilities, availability, cost."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.policy.worlds import (
    HAIKU,
    LOCAL,
    OPUS,
    SONNET,
    classified,
    decided,
    reasons,
    settings,
    with_models,
    world,
)
from tierwise.core.catalog import Tier
from tierwise.core.errors import InvalidTask, NoRouteError, UnknownModel, UnknownTier, UnpricedModel
from tierwise.core.money import Price, PriceBand
from tierwise.core.settings import PatternOverride
from tierwise.core.tasks import Task
from tierwise.policy import decide

# ------------------------------------------------------------------ where the user knows better

RULES: dict[str, Any] = {
    "tools": {"grep": "haiku"},
    "patterns": (PatternOverride(pattern=r"(?i)\bquarterly\b", tier="sonnet"),),
    "tags": {"team=legal": "opus", "draft": "haiku"},
    "types": {"summarization": "opus"},
}


ALL_MATCH: dict[str, Any] = {
    "tier": "local",
    "tool_name": "grep",
    "text": "sum up the Quarterly report",
    "tags": {"team": "legal", "draft": "yes"},
}


@pytest.mark.parametrize(
    ("without", "tier", "why"),
    [
        ({}, LOCAL, "asked for by the caller"),
        ({"tier": None}, HAIKU, "override for the tool grep"),
        ({"tier": None, "tool_name": "cat"}, SONNET, "override for texts that match"),
        ({"tier": None, "tool_name": None, "text": "x"}, OPUS, "override for the tag team"),
        ({"tier": None, "tool_name": None, "text": "x", "tags": {"team": "b", "draft": ""}}, HAIKU, "the tag draft"),
        ({"tier": None, "tool_name": None, "text": "x", "tags": {}}, OPUS, "override for summarization"),
    ],
)
def test_overrides_have_an_order(without: dict[str, Any], tier: Tier, why: str) -> None:
    """The caller, then the tool, a pattern, a tag, and the type: the first that matches decides, and says so."""
    decision = decided("summarization", world(overrides=RULES), **{**ALL_MATCH, **without})
    assert decision.tier == tier
    found = reasons(decision)
    assert why in found.get("override", "") + found.get("forced_tier", "")


def test_going_lower_than_the_tree_is_said() -> None:
    """Who sends work lower than the tree would, reads it in the reasons; who sends it higher does not."""
    lower = decided("debugging", world(overrides={"types": {"debugging": "haiku"}}))
    assert reasons(lower)["override"] == "haiku, override for debugging; by itself it would go higher, to sonnet"
    forced = decided("legal_analysis", tier="haiku")
    assert "by itself it would go higher, to opus" in reasons(forced)["forced_tier"]
    higher = decided("debugging", world(overrides={"types": {"debugging": "opus"}}))
    assert reasons(higher)["override"] == "opus, override for debugging"


@pytest.mark.parametrize(
    "what",
    [
        classified("debugging", abstained=True),
        classified("debugging", also=("code_review",)),
        classified("debugging", 0.3),
        classified("debugging", 0.8, alternatives={"security_review": 0.2}),
    ],
)
def test_an_override_for_a_type_lowers_only_what_is_surely_that_type(what: Any) -> None:
    """Where it may be something else, an override for a type does not lower it, and the reasons say so."""
    decision = decided(what, world(overrides={"types": {"debugging": "local"}}))
    assert decision.tier >= SONNET
    assert "not followed" in reasons(decision)["override"]
    assert decided(what, world(overrides={"types": {"debugging": "opus"}})).tier == OPUS


def test_patterns_see_both_ends_of_a_long_text() -> None:
    """What is asked for stands at the head or the tail: a pattern is looked for in both."""
    where = world(overrides={"patterns": (PatternOverride(pattern="needle", tier="opus"),)})
    hay = "hay " * 5_000
    assert decided("summarization", where, text="needle " + hay).tier == OPUS
    assert decided("summarization", where, text=hay + "needle").tier == OPUS
    assert decided("summarization", where, text=hay + "needle " + hay).tier == LOCAL


def test_bounds_hold_and_are_said() -> None:
    """A minimum raises, a maximum holds below, both with a reason; the caller's own go over the configured ones."""
    low = decided("summarization", min_tier="sonnet")
    assert (low.tier, reasons(low)["min_tier"]) == (SONNET, "at least sonnet: raised from local")
    high = decided("legal_analysis", max_tier="haiku")
    assert high.tier == HAIKU
    assert "held below opus, where it would otherwise go" in reasons(high)["max_tier"]
    assert [rung.tier for rung in high.ladder] == [HAIKU]
    configured = world(overrides={"min_tier": "haiku", "max_tier": "sonnet"})
    assert decided("summarization", configured).tier == HAIKU
    assert decided("legal_analysis", configured).tier == SONNET
    assert decided("summarization", configured, min_tier="local").tier == LOCAL
    assert decided("summarization", configured, tier="opus").tier == SONNET


def test_contradictory_bounds_are_refused() -> None:
    """A minimum above the maximum is the caller's mistake."""
    with pytest.raises(InvalidTask, match="the minimum tier opus is above the maximum tier haiku"):
        decided("summarization", min_tier="opus", max_tier="haiku")
    with pytest.raises(InvalidTask, match="opus is above the maximum tier sonnet"):
        decided("summarization", world(overrides={"max_tier": "sonnet"}), min_tier="opus")


@pytest.mark.parametrize("name", ["tier", "min_tier", "max_tier"])
def test_an_unknown_tier_lists_the_known(name: str) -> None:
    """A tier that is not configured is an error wherever it is named."""
    with pytest.raises(UnknownTier, match="unknown tier 'hiku'; use one of local, haiku, sonnet, opus"):
        decided("summarization", **{name: "hiku"})


# ------------------------------------------------------------------ a model by name


def test_a_model_asked_for_by_name_is_the_whole_ladder() -> None:
    """A named model is used alone: nothing is climbed to that was not asked for."""
    decision = decided("legal_analysis", model="claude-haiku-4-5")
    assert [(rung.tier, rung.model.id) for rung in decision.ladder] == [(HAIKU, "claude-haiku-4-5")]
    assert "asked for by name" in reasons(decision)["forced_model"]


def test_a_named_model_must_exist_and_be_able() -> None:
    """Unknown names list the known ones; a model that cannot take the task says why."""
    with pytest.raises(UnknownModel, match=r"unknown model 'gpt'; use one of qwen3:8b, .*claude-opus-4-5"):
        decided("summarization", model="gpt")
    with pytest.raises(NoRouteError, match="qwen3:8b was asked for by name and cannot take this task: it takes no im"):
        decided("summarization", model="qwen3:8b", has_images=True)
    gone = world(unavailable={"qwen3:8b": "not pulled"})
    with pytest.raises(NoRouteError, match="not pulled"):
        decided("summarization", gone, model="qwen3:8b")


# ------------------------------------------------------------------ what models can


@pytest.mark.parametrize(
    ("task", "missing", "why"),
    [
        ({"has_tools": True}, {"tools": False}, "takes no tools"),
        ({"has_images": True}, {"images": False}, "takes no images"),
        ({"tokens_in": 4_000}, {"context_tokens": 1_000}, "do not fit its context of 1,000"),
        ({"tokens_out": 900}, {"max_output_tokens": 500}, "at most 500 tokens of output"),
        ({"max_output_tokens": 900}, {"max_output_tokens": 500}, "at most 500 tokens of output"),
    ],
)
def test_what_a_tier_cannot_take_goes_up(task: dict[str, Any], missing: dict[str, Any], why: str) -> None:
    """Tools, images, context and output limits rule models out, and the way is up, with the reason."""
    where = with_models(world(), local=missing)
    decision = decided("summarization", where, **task)
    assert decision.tier == HAIKU
    assert why in reasons(decision)["ruled_out"]


def test_no_missing_capability_ever_leads_down() -> None:
    """Where only lower tiers could take it, there is no route; the work is not done worse instead."""
    where = with_models(world(), sonnet={"tools": False}, opus={"tools": False})
    with pytest.raises(NoRouteError) as caught:
        decided("debugging", where, has_tools=True)
    assert "no model from sonnet up can take this task" in str(caught.value)
    for spec in where.catalog.tiers[2:]:
        for model in spec.models:
            assert f"{model.id} ({spec.tier}): it takes no tools" in str(caught.value)
    assert "qwen" not in str(caught.value)


def test_a_gap_in_the_middle_is_stepped_over() -> None:
    """A tier that cannot take the task is left out of the ladder; the ones around it stay."""
    where = with_models(world(), sonnet={"images": False})
    assert [r.tier for r in decided("ranking", where, has_images=True).ladder] == [HAIKU, OPUS]


def test_unavailable_models_fall_to_the_next_of_the_tier_then_up() -> None:
    """First the tier's other models in order of preference, then the next tier; the reasons name what was passed."""
    gone = {"claude-haiku-5-5": "no API key"}
    decision = decided("ranking", world(unavailable=gone))
    assert (decision.tier, decision.model.id) == (HAIKU, "claude-haiku-4-5")
    assert reasons(decision)["ruled_out"] == "not claude-haiku-5-5 (haiku): no API key"
    gone["claude-haiku-4-5"] = "circuit open"
    assert decided("ranking", world(unavailable=gone)).model.id == "claude-sonnet-5-5"


def test_no_route_lists_every_model_with_its_reason() -> None:
    """Where nothing is left the error names each model that was looked at and why it is out."""
    gone = {model.id: f"reason {n}" for n, model in enumerate(m for s in world().catalog for m in s.models)}
    with pytest.raises(NoRouteError) as caught:
        decided("summarization", world(unavailable=gone))
    for model_id, reason in gone.items():
        assert f"{model_id} (" in str(caught.value)
        assert reason in str(caught.value)
    with pytest.raises(NoRouteError, match="nothing above haiku is allowed"):
        decided("summarization", world(unavailable=gone), max_tier="haiku")


def test_ten_megabytes_have_no_route() -> None:
    """A text beyond every context is an error about the context, at once."""
    with pytest.raises(NoRouteError, match=r"claude-opus-5-5 \(opus\): about 3,250,020 tokens do not fit its context"):
        decided("summarization", text="word " * 2_000_000, tokens_in=None)


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize("tokens", [0, 1, 7, 10, 999, 1000, 12_345])
def test_given_tokens_are_the_baselines(tokens: int) -> None:
    """A count from the caller comes back as itself on models of the baseline's tokenizer, and smaller on older ones."""
    for model, expected in (("claude-haiku-5-5", tokens), ("claude-haiku-4-5", -(-tokens * 10 // 13))):
        usage = decided("ranking", model=model, tokens_in=tokens, tokens_out=tokens).first.estimated_usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (expected, expected, True)


def test_a_thousand_tokens_are_770_on_haiku_4_5() -> None:
    """Haiku 4.5's tokenizer counts about 30 % less of the same text."""
    decision = decided("ranking", model="claude-haiku-4-5", tokens_in=1000)
    assert decision.first.estimated_usage.input_tokens == 770
    assert decision.baseline_usage.input_tokens == 1000


def test_texts_are_counted_where_no_count_is_given() -> None:
    """Text, payload and system prompt count; a prompt that is sent instead of them counts alone."""
    model = "claude-haiku-4-5"

    def prompt(**task: Any) -> int:
        return decided("ranking", model=model, tokens_in=None, **task).first.estimated_usage.input_tokens

    assert prompt(text="a" * 400) == 100
    assert prompt(text="a" * 400, input_text="b" * 40, system="c" * 4) == 111
    assert prompt(text="a" * 400, input_text="b" * 40, prompt="d" * 8, system="c" * 4) == 3


def test_a_tools_input_and_a_schema_count_too() -> None:
    """A large tool input is a large prompt: it is not taken for a short text."""
    large = decided("summarization", tokens_in=None, tool_name="t", tool_input={"document": "word " * 10_000})
    assert large.tier == HAIKU
    assert large.first.estimated_usage.input_tokens > 15_000
    assert decided("summarization", tokens_in=None, tool_input={"document": "word " * 10_000}).tier == LOCAL  # not sent
    schema = decided("ranking", tokens_in=None, json_schema={"description": "x" * 4_000})
    assert schema.first.estimated_usage.input_tokens > 1_300
    circular: list[Any] = []
    circular.append(circular)
    assert decided("ranking", tokens_in=None, tool_name="t", tool_input=circular).tier == HAIKU


def test_expected_output_comes_from_the_table() -> None:
    """Without a count the type's expected output is used, bounded by the caller's limit."""
    model = "claude-haiku-4-5"
    expected = settings().policy.output_tokens["ranking"]

    def output(**task: Any) -> int:
        return decided("ranking", model=model, tokens_out=None, **task).first.estimated_usage.output_tokens

    assert output() == expected
    assert output(max_output_tokens=13) == 10
    assert output(max_output_tokens=100_000 // 2) == expected


# ------------------------------------------------------------------ costs


def test_every_rung_has_its_estimated_cost() -> None:
    """Each rung is priced at its own tokens and price, and the baseline likewise."""
    decision = decided("summarization", tokens_in=1_300, tokens_out=130)
    assert [rung.estimated_cost_usd for rung in decision.ladder] == [
        Decimal(0),
        Decimal("0.000195"),
        Decimal("0.0039"),
        Decimal("0.0078"),
    ]
    assert decision.baseline_cost_usd == Decimal("0.0039")
    assert decision.estimated_cost_usd == 0


def test_a_ceiling_cuts_the_climb_from_above() -> None:
    """Rungs over the ceiling are left out, with a reason each; the start stays where it is."""
    decision = decided("summarization", tokens_in=1_300, tokens_out=130, max_cost_usd="0.001")
    assert [rung.tier for rung in decision.ladder] == [LOCAL, HAIKU]
    assert [r.text for r in decision.reasons if r.step == "max_cost"] == [
        "no climb to sonnet: over the ceiling of $0.001",
        "no climb to opus: over the ceiling of $0.001",
    ]
    assert decision.max_cost_usd == Decimal("0.001")


def test_a_ceiling_never_moves_the_start_down() -> None:
    """Work whose first rung is over the ceiling is blocked; it is not given to a cheaper, worse tier."""
    decision = decided("debugging", tokens_in=1_300, tokens_out=130, max_cost_usd="0.001")
    assert decision.tier == SONNET
    assert [blocker.step for blocker in decision.blockers] == ["max_cost"]
    assert "claude-sonnet-5-5 is estimated at $0.0039, over the ceiling of $0.001" in decision.blockers[0].text


def test_the_lower_of_two_ceilings_holds() -> None:
    """A caller can lower the configured ceiling, not raise it; a free rung fits a ceiling of nothing."""
    limited = world(limits=replace(world().limits, max_cost_usd=Decimal("0.001")))
    assert decided("summarization", limited, max_cost_usd="5").max_cost_usd == Decimal("0.001")
    assert decided("summarization", limited, max_cost_usd="0.0001").max_cost_usd == Decimal("0.0001")
    free = decided("summarization", max_cost_usd="0")
    assert ([rung.tier for rung in free.ladder], free.blockers) == ([LOCAL], ())


@pytest.mark.parametrize("amount", ["a lot", "-1", "NaN", "Infinity", ""])
def test_a_ceiling_is_an_amount(amount: str) -> None:
    """A ceiling that is no amount of dollars is refused."""
    with pytest.raises(InvalidTask, match=r"maximum cost .* is not an amount in US"):
        decided("summarization", max_cost_usd=amount)


def test_the_shorter_of_two_deadlines_holds() -> None:
    """The caller's latency and the configured deadline bound the climb together."""
    limited = world(limits=replace(world().limits, deadline_seconds=9.0))
    assert decided("ranking", limited).deadline_seconds == 9
    assert decided("ranking", limited, max_latency_seconds=2).deadline_seconds == 2
    assert decided("ranking", limited, max_latency_seconds=60).deadline_seconds == 9
    assert decided("ranking").deadline_seconds is None


def test_a_rung_without_a_price_is_an_error() -> None:
    """A model on the ladder that nobody has priced stops the decision, with the price book's own words."""
    where = world()
    prices = {k: v for k, v in where.prices.items() if k != "claude-opus-5-5"}
    with pytest.raises(UnpricedModel, match="add one to the table"):
        decided("ranking", replace(where, prices=prices, unpriced={"claude-opus-5-5": "add one to the table"}))
    assert decided("ranking", replace(where, prices=prices), max_tier="sonnet").tier == HAIKU


def test_an_unpriced_baseline_is_no_error() -> None:
    """Without a price of the baseline the task still runs; what it saves is unknown, not zero."""
    where = world()
    baseline = replace(where.catalog.baseline, id="house-model")
    decision = decided("ranking", replace(where, catalog=replace(where.catalog, baseline=baseline)))
    assert decision.baseline_cost_usd is None


def test_a_price_by_the_hour_is_in_the_estimate() -> None:
    """A local model that costs by time is estimated by the time it will take."""
    where = world()
    free = PriceBand(*[Decimal(0)] * 5)
    hourly = Price("qwen3:8b", (free,), "test", usd_per_hour=Decimal("3.6"))
    decision = decided("summarization", replace(where, prices={**where.prices, "qwen3:8b": hourly}))
    assert decision.estimated_cost_usd == Decimal(str(round(decision.first.estimated_seconds, 3))) / 1000
    assert decision.estimated_cost_usd > 0


def test_the_same_input_gives_the_same_decision() -> None:
    """Deciding is pure: equal values in, equal decision out."""
    task = Task(text="sum this up", tags={"a": "b"})
    assert decide(task, classified("summarization"), world()) == decide(task, classified("summarization"), world())
