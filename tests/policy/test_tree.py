"""The decision tree: what needs judgment, what must be right at once, what is small enough to stay here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy.worlds import HAIKU, LOCAL, OPUS, SONNET, TYPES, classified, decided, reasons, world
from tierwise.core.catalog import Tier
from tierwise.core.errors import NoRouteError
from tierwise.core.settings import Role
from tierwise.core.tasks import Alternative, Classification, Stakes
from tierwise.policy import judge

# Where a small task of each type goes, written out: nothing here is computed from what the code reads.
HOME: dict[Tier, str] = {
    LOCAL: "topic_classification sentiment_analysis language_identification tagging entity_extraction field_extraction "
    "keyword_extraction text_parsing summarization format_conversion schema_mapping data_cleaning translation "
    "proofreading rewriting title_generation commit_message query_rewriting reading_comprehension",
    HAIKU: "intent_classification content_moderation yes_no_decision request_routing pii_redaction schema_validation "
    "rule_checking filtering ranking scoring record_matching",
    SONNET: "fact_checking question_answering conversation math_reasoning logical_reasoning data_analysis planning "
    "research_synthesis explanation advice creative_writing content_writing technical_writing brainstorming "
    "code_generation code_explanation code_review debugging refactoring test_generation sql_generation "
    "code_translation agentic_coding",
    OPUS: "security_review legal_analysis architecture_decision production_change high_stakes_advice",
}
HOMES = [(name, tier) for tier, names in HOME.items() for name in names.split()]


def test_every_type_has_a_place() -> None:
    """The table of this test holds exactly the 58 types."""
    assert sorted(name for name, _ in HOMES) == sorted(TYPES)
    assert len(HOMES) == 58


@pytest.mark.parametrize(("name", "tier"), HOMES)
def test_each_type_goes_where_the_tree_says(name: str, tier: Tier) -> None:
    """A small, clearly recognised task of a type goes to its tier, and the decision says why."""
    decision = decided(name)
    assert decision.tier == tier
    assert decision.reasons[0].step == "classified"
    assert name in decision.reasons[0].text
    assert decision.reasons[1].text.endswith(f": {tier}")
    assert [rung.tier for rung in decision.ladder] == [t for t in (LOCAL, HAIKU, SONNET, OPUS) if t >= tier]


@pytest.mark.parametrize(("name", "tier"), HOMES)
def test_stakes_raise_every_type(name: str, tier: Tier) -> None:
    """High stakes: right the first time, and one tier more; critical stakes: the top."""
    high = decided(name, stakes=Stakes.HIGH)
    at_once = HAIKU if tier == LOCAL else tier
    assert int(high.tier) == min(int(at_once) + 1, 3)
    assert decided(name, stakes=Stakes.CRITICAL).tier == OPUS


def test_large_or_slow_processing_leaves_the_machine() -> None:
    """Recoverable processing goes to Haiku when it is too long, or too slow for the time there is, and says which."""
    for task in ({"tokens_in": 9_000}, {"tokens_out": 1_400}, {"max_latency_seconds": 0.5}):
        decision = decided("summarization", **task)
        assert decision.tier == HAIKU
        assert "local" in reasons(decision)["processing"]
    assert "at most 6,000 in" in reasons(decided("summarization", tokens_in=9_000))["processing"]
    assert "0.5 s allowed" in reasons(decided("summarization", max_latency_seconds=0.5))["processing"]
    assert decided("summarization", max_latency_seconds=5).tier == LOCAL


def test_measured_speed_counts_over_assumed_speed() -> None:
    """The local model's measured tokens a second decide what is in time, where there are any."""
    slow = world(speeds={"qwen3:8b": (50.0, 0.5)})
    decision = decided("summarization", slow)
    assert decision.tier == HAIKU
    assert "measured speed" in reasons(decision)["processing"]
    fast = world(speeds={"qwen3:8b": (10_000.0, 1_000.0)})
    assert decided("summarization", fast, tokens_out=700, max_latency_seconds=1).tier == LOCAL


def test_a_dead_speed_is_no_division_by_zero() -> None:
    """A model measured at nothing a second is too slow, not an error."""
    assert decided("summarization", world(speeds={"qwen3:8b": (0.0, 0.0)})).tier == HAIKU


# ------------------------------------------------------------------ being unsure


def test_abstention_goes_up() -> None:
    """What the classifier cannot tell is treated as judgment, whatever it would have guessed."""
    decision = decided(classified("summarization", 0.9, abstained=True))
    assert decision.tier == SONNET
    assert "cannot tell what this is" in reasons(decision)["classified"]
    assert decided(classified("legal_analysis", 0.2, abstained=True)).tier == OPUS


def test_low_confidence_alone_goes_up() -> None:
    """Below the threshold, with nothing else in sight, it is not sure what this is."""
    assert decided(classified("summarization", 0.60)).tier == LOCAL
    assert decided(classified("summarization", 0.59)).tier == SONNET


def test_low_confidence_takes_the_strictest_plausible_alternative() -> None:
    """Between two types that are both plausible, the stricter one decides."""
    decision = decided(classified("summarization", 0.5, alternatives={"ranking": 0.3, "tagging": 0.16}))
    assert decision.tier == HAIKU
    assert "may also be ranking" in reasons(decision)["strictest"]
    assert decided(classified("summarization", 0.5, alternatives={"debugging": 0.3})).tier == SONNET
    assert decided(classified("summarization", 0.5, alternatives={"tagging": 0.3})).tier == LOCAL


def test_what_is_hardly_plausible_does_not_count() -> None:
    """An alternative below `consider_alternatives_above` changes nothing, and adds nothing to what is plausible."""
    assert decided(classified("summarization", 0.7, alternatives={"legal_analysis": 0.14})).tier == LOCAL
    assert decided(classified("summarization", 0.5, alternatives={"ranking": 0.14})).tier == SONNET


def test_a_plausible_critical_alternative_counts_even_when_confident() -> None:
    """A fifth of a chance that this is legal work is enough for the top tier; that it is judgment is not."""
    assert decided(classified("summarization", 0.8, alternatives={"legal_analysis": 0.2})).tier == OPUS
    assert decided(classified("summarization", 0.8, alternatives={"debugging": 0.2})).tier == LOCAL


def test_of_several_tasks_in_one_text_the_strictest_counts() -> None:
    """ "Summarise this and tell whether the clause is enforceable" is legal work."""
    decision = decided(classified("summarization", also=("ranking", "legal_analysis", "tagging")))
    assert decision.tier == OPUS
    assert "legal_analysis" in reasons(decision)["strictest"]
    assert decided(classified("ranking", also=("summarization",))).tier == HAIKU


def test_a_tree_without_an_answer_goes_to_the_top() -> None:
    """A user's rules that do not cover a case send it up, and the reason says that no rule did."""
    policy = replace(world().policy, rules=world().policy.rules[:1])
    verdict = judge(classified("summarization"), policy, fits_local=True)
    assert (verdict.role, verdict.rule.name) == (Role.TOP, "no_rule")
    assert decided("summarization", world(policy=policy)).tier == OPUS


# ------------------------------------------------------------------ what can only raise

types = st.sampled_from(sorted(TYPES)).map(lambda name: TYPES[name])
classifications = st.builds(
    Classification,
    task_type=types,
    confidence=st.floats(0, 1),
    abstained=st.booleans(),
    alternatives=st.lists(st.builds(Alternative, types, st.floats(0, 0.5)), max_size=3).map(tuple),
    also=st.lists(types, max_size=2).map(tuple),
)
LOCALS = ("qwen3:8b", "llama3.2:3b", "smollm2-135m-instruct")
MODELS = tuple(model.id for spec in world().catalog for model in spec.models)
overrides = st.fixed_dictionaries(
    {},
    optional={
        "types": st.dictionaries(st.sampled_from(sorted(TYPES)), st.sampled_from(["local", "haiku", "sonnet", "opus"])),
        "min_tier": st.sampled_from(["local", "haiku"]),
        "max_tier": st.sampled_from(["sonnet", "opus"]),
    },
)
sizes = st.fixed_dictionaries({"tokens_in": st.integers(0, 8_000), "tokens_out": st.integers(0, 1_500)})


@settings(max_examples=200)
@given(
    what=classifications,
    stakes=st.sampled_from(list(Stakes)),
    higher=st.sampled_from(list(Stakes)),
    more=st.lists(types, max_size=2),
    less=st.floats(0, 1),
    gone=st.sets(st.sampled_from(MODELS), max_size=6),
    also_gone=st.sets(st.sampled_from(MODELS), max_size=6),
    size=sizes,
    rules=overrides,
)
def test_doubt_never_lowers_the_tier(
    *,
    what: Classification,
    stakes: Stakes,
    higher: Stakes,
    more: list[object],
    less: float,
    gone: set[str],
    also_gone: set[str],
    size: dict[str, int],
    rules: dict[str, object],
) -> None:
    """Higher stakes, a further task in the text, less confidence, or fewer models never make the tier lower.

    The local models run at one speed here: a faster one that stands in for a slower one is a reason to stay.
    """
    speeds = dict.fromkeys(LOCALS, (300.0, 25.0))
    where = world(overrides=rules, speeds=speeds, unavailable=dict.fromkeys(gone, "gone"))

    def level(found: Classification, stakes: Stakes, gone: set[str]) -> int:
        try:
            return int(
                decided(found, replace(where, unavailable=dict.fromkeys(gone, "gone")), stakes=stakes, **size).tier
            )
        except NoRouteError:
            return 4  # nothing left: above everything

    before = level(what, stakes, gone)
    order = list(Stakes)
    stricter = max(stakes, higher, key=order.index)
    assert level(what, stricter, gone) >= before
    assert level(replace(what, also=(*what.also, *more)), stakes, gone) >= before  # type: ignore[arg-type]
    assert level(replace(what, confidence=min(less, what.confidence)), stakes, gone) >= before
    assert level(replace(what, abstained=True), stakes, gone) >= before
    assert level(what, stakes, gone | also_gone) >= before


# ------------------------------------------------------------------ what is known of the whole distribution


def weighed(name: str, at_least: tuple[float, float, float], **alternatives: float) -> Classification:
    """A classification that knows how likely stricter work is."""
    return replace(classified(name, 0.5, alternatives=alternatives), at_least=at_least)


def test_stricter_work_counts_from_where_missing_it_costs_more() -> None:
    """With a cost of 4 a boundary is crossed from 20 % on, at each of the three."""
    policy = replace(world().policy, too_low_costs=(4.0, 4.0, 4.0))
    here = world(policy=policy)
    assert decided(weighed("tagging", (0.19, 0.1, 0.1), ranking=0.19), here).tier == LOCAL
    assert decided(weighed("tagging", (0.20, 0.1, 0.1), ranking=0.20), here).tier == HAIKU
    assert decided(weighed("tagging", (0.25, 0.20, 0.1), debugging=0.2), here).tier == SONNET
    assert decided(weighed("tagging", (0.25, 0.22, 0.20), legal_analysis=0.2), here).tier == OPUS


def test_the_reason_tells_how_likely_it_is() -> None:
    """In words, with the probability and what it is of."""
    decision = decided(weighed("tagging", (0.4, 0.35, 0.3), legal_analysis=0.3))
    assert "30% that this is critical work" in reasons(decision)["strictest"]
    assert decision.tier == OPUS


def test_low_confidence_alone_does_not_raise_what_is_known_not_to_be_stricter() -> None:
    """Between two types of the same tier it does not matter which it is."""
    assert decided(weighed("tagging", (0.02, 0.01, 0.0), entity_extraction=0.45)).tier == LOCAL


def test_stricter_work_without_a_name_is_treated_as_unknown() -> None:
    """Up all the same: unsure is judgment."""
    assert decided(weighed("tagging", (0.9, 0.9, 0.9))).tier == SONNET


def test_what_a_text_says_of_a_mistake_raises_it() -> None:
    """As if the caller had said so; what the caller says wins."""
    grave = replace(weighed("tagging", (0.0, 0.0, 0.0)), stated_stakes=Stakes.HIGH)
    decision = decided(grave)
    assert decision.tier == SONNET
    assert "the text says" in reasons(decision)["stakes_high"]
    assert decided(grave, stakes=Stakes.CRITICAL).tier == OPUS
