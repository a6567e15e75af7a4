"""A session under a policy: the gateway's rules, the climb in expectation, and what is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy.worlds import classified
from tests.replay.sessions import (
    BOOK,
    HAIKU,
    MINUTE,
    MODELS,
    OPUS,
    SETTINGS,
    SONNET,
    agent,
    call,
    grown,
    plain,
    session,
    world,
)
from tierwise.core.calls import CallKind, ImportedCall
from tierwise.core.errors import ConfigError, UnknownTier
from tierwise.core.money import Conditions, Usage, usd_to_nanousd
from tierwise.core.settings import ProjectSettings
from tierwise.policy.outlook import HarderTurns, TurnsToCome
from tierwise.replay import (
    Actual,
    AllOn,
    Assumption,
    Escalation,
    OpusPlan,
    Range,
    Replayer,
    ReplayPolicy,
    ReplayWorld,
    Routed,
    Scenario,
    SubagentsOn,
    Why,
    actual_nanousd,
    policy_named,
    replay_session,
    shipped_assumptions,
    with_models,
)
from tierwise.replay.asked import Asked
from tierwise.replay.deciding import Deciding

ROUTED = Routed(settings=SETTINGS)
HOUR = 60 * MINUTE


def went(
    calls: Sequence[ImportedCall], policy: ReplayPolicy = ROUTED, where: ReplayWorld | None = None
) -> list[tuple[str, Why]]:
    """Where each call went, and why."""
    found = replay_session(session(*calls), policy, where or plain())
    return [(outcome.model.removeprefix("claude-").removesuffix("-5-5"), outcome.why) for outcome in found.outcomes]


def rejecting(chance: float, **changes: Any) -> ReplayWorld:
    """A plain world in which an answer of a lower tier is rejected with one probability, in a tool loop too."""
    level = Range(chance, chance, chance)
    return plain_with(escalation=Escalation(by_level=(level, level, level, level)), **changes)


def plain_with(**changes: Any) -> ReplayWorld:
    found = plain()
    return replace(found, assumptions=replace(found.assumptions, **changes))


# ------------------------------------------------------------------ where calls go


def test_a_turn_goes_where_its_work_belongs_and_stays_there() -> None:
    """Judgment that was done on Opus goes to Sonnet, and so does the whole of that turn."""
    calls = grown([(0, 30_000, 200), (10, 500, 200), (20, 500, 200)])
    assert went(calls) == [("sonnet", Why.ROUTED), ("sonnet", Why.STAYED), ("sonnet", Why.STAYED)]


def test_it_goes_up_when_quality_demands_it() -> None:
    """Critical work in a conversation that is on Sonnet goes to Opus at once."""
    calls = grown([(0, 30_000, 200), (60, 500, 200)], asks=(0, 1))
    calls[1] = replace(calls[1], classification=classified("production_change"))
    assert went(calls)[1] == ("opus", Why.MOVED_UP)


def test_it_moves_down_only_where_that_pays() -> None:
    """What is warm is written anew where it moves to: that pays with turns to come, and not with none."""
    calls = grown([(0, 30_000, 200), (60, 500, 200)], asks=(0, 1))
    down = [calls[0], replace(calls[1], classification=classified("field_extraction"))]
    assert went(down, where=plain(turns=TurnsToCome(assumed=0)))[1] == ("sonnet", Why.STAYED)
    assert went(down, where=plain(turns=TurnsToCome(assumed=8)))[1] == ("haiku", Why.MOVED_DOWN)
    critical = [replace(calls[0], classification=classified("production_change")), calls[1]]
    assert went(critical, where=plain(turns=TurnsToCome(assumed=0)))[1] == ("opus", Why.STAYED)
    assert went(critical, where=plain(turns=TurnsToCome(assumed=200)))[1] == ("sonnet", Why.MOVED_DOWN)


def test_it_never_moves_in_the_middle_of_a_turn() -> None:
    """However cheap that would be, what is asked in a tool loop stays."""
    calls = grown([(0, 30_000, 200), (60, 500, 200)])
    calls[1] = replace(calls[1], classification=classified("field_extraction"))
    assert went(calls)[1] == ("sonnet", Why.STAYED)


def test_it_stays_on_its_model_and_not_only_on_its_tier() -> None:
    """A turn that begins before midnight, on the last day without Sonnet 5.5, ends on the Sonnet 5 that it began on."""
    midnight = datetime(2026, 9, 28, tzinfo=UTC).timestamp()
    calls = [
        replace(one, at_ms=round(midnight * 1000) + seconds * 1000)
        for one, seconds in zip(grown([(0, 30_000, 200), (60, 500, 200)]), (-30, 30), strict=True)
    ]
    assert [model for model, _ in went(calls)] == ["claude-sonnet-5".removeprefix("claude-")] * 2
    assert went(calls[1:])[0][0] == "sonnet"  # one that begins then is on Sonnet 5.5


def test_agents_and_side_calls_are_conversations_of_their_own() -> None:
    """A subagent that extracts goes to Haiku while the main loop is on Sonnet; a title does not move the main loop."""
    main = grown([(0, 30_000, 200), (60, 500, 200)])
    helper = agent(grown([(20, 10_000, 100), (30, 500, 100)], task_type="field_extraction"), "a1")
    title = call(9, seconds=5, kind=CallKind.TITLE, input_tokens=400, output_tokens=10)
    title = replace(title, classification=classified("title_generation"))
    calls = sorted([*main, *helper, title], key=lambda one: one.at_ms)
    assert [model for model, _ in went(calls)] == ["sonnet", "haiku", "haiku", "haiku", "sonnet"]


def test_what_nobody_classified_stays_with_its_conversation() -> None:
    """A call without a classification goes on where its conversation is; without a conversation it is left alone."""
    calls = grown([(0, 30_000, 200), (60, 500, 200)], asks=(0, 1))
    assert went([calls[0], replace(calls[1], classification=None)])[1] == ("sonnet", Why.STAYED)
    assert went([replace(calls[0], classification=None)]) == [("opus", Why.NOT_CLASSIFIED)]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"kind": CallKind.SAFETY}, Why.SAFETY),
        ({"conditions": Conditions(fast=True)}, Why.FAST),
        ({"model": "nobody-7b", "cost_nanousd": 5}, Why.UNKNOWN_MODEL),
        ({"model": "nobody-7b"}, Why.UNPRICED),
        ({"usage": Usage()}, Why.NOTHING_USED),
        ({"band_prompt_tokens": 0}, Why.SUMMED),
        ({"usage": Usage(), "cost_nanousd": 5}, Why.UNPRICED),
        ({"usage": Usage(input_tokens=3_000_000)}, Why.NO_MODEL),
    ],
)
def test_what_routing_cannot_touch_is_left_alone(fields: dict[str, Any], why: Why) -> None:
    """Safety, fast mode, unknown models, no price, nothing used, sums, no room: it costs what it cost, and says why."""
    one = replace(call(input_tokens=1_000, output_tokens=100), **fields)
    found = replay_session(session(one), ROUTED, plain())
    assert found.outcomes[0].why is why
    assert found.outcomes[0].model == one.model
    assert found.outcomes[0].nanousd == actual_nanousd(one, BOOK)
    assert found.expected_nanousd == found.actual_nanousd
    assert found.unpriced_calls == (actual_nanousd(one, BOOK) is None)


def test_requests_for_other_models_pass_through() -> None:
    """Where only some models are routed, as a gateway's configuration says, a call for another costs what it did."""
    sent = [*grown([(0, 5_000, 100)], model=OPUS), *agent(grown([(1, 5_000, 100)], model=SONNET), "a1")]
    tagged = [replace(one, classification=classified("tagging")) for one in sent]
    policy = Routed(settings=SETTINGS, requests_for=frozenset({OPUS.id}))
    first, second = Replayer(policy, plain()).replay(session(*tagged)).outcomes
    assert (first.model, first.why) == (HAIKU.id, Why.ROUTED)
    assert (second.model, second.why) == (SONNET.id, Why.ACTUAL)


def test_a_model_that_was_not_there_yet_takes_nothing() -> None:
    """In September 2026 there was no Haiku 5.5: extraction goes to Haiku 4.5."""
    one = call(input_tokens=1_000, output_tokens=10, classification=classified("field_extraction"))
    assert went([one])[0][0] == "haiku"
    assert went([replace(one, at_ms=one.at_ms - 60 * 86_400_000)])[0][0] == "haiku-4-5"


def test_prices_of_another_day_price_both_ways_and_not_what_was_spent() -> None:
    """At prices of 2026-10-01 a read on Sonnet costs twice as much; what was really spent stays what it was."""
    calls = grown([(0, 100_000, 0), (60, 0, 0)], model=SONNET)
    then = plain(priced_on=date(2026, 10, 1))
    found = replay_session(session(*calls), Actual(), then)
    assert found.actual_nanousd == 400_000_000 + 10_000_000
    assert found.expected_nanousd == 400_000_000 + 20_000_000


def test_models_are_replaced_by_tier() -> None:
    """`sonnet=claude-sonnet-5` sends judgment to Sonnet 5; an unknown tier is told of."""
    sonnet_5 = SETTINGS.catalog.model("claude-sonnet-5")[1]
    policy = Routed(settings=with_models(SETTINGS, {"sonnet": sonnet_5}))
    assert went(grown([(0, 30_000, 200)]), policy) == [("claude-sonnet-5".removeprefix("claude-"), Why.ROUTED)]
    with pytest.raises(ConfigError, match="no tier is called 'sonet'; use one of local, haiku, sonnet, opus"):
        with_models(SETTINGS, {"sonet": sonnet_5})


def test_a_model_above_all_tiers_is_known_too() -> None:
    """Fable is in no tier: what was done there is routed like anything else, and stands above all that is."""
    calls = grown([(0, 30_000, 200)], model="claude-fable-5-2", task_type="production_change")
    assert went(calls) == [("opus", Why.ROUTED)]
    found = replay_session(session(*calls), ROUTED, rejecting(0.1))
    assert found.contributions[Assumption.ESCALATION] > 0  # what Fable did, Opus may fail at


# ------------------------------------------------------------------ policies that look at no work


def test_policies_have_names() -> None:
    """Each by the name that it shows; another is told of, with those there are."""
    names = ("routed", "actual", "opusplan", "all-haiku", "sonnet-subagents")
    assert [policy_named(name, SETTINGS).name for name in names] == list(names)
    with pytest.raises(
        ConfigError, match="no policy is called 'cheap'; use one of routed, actual, opusplan, all-local"
    ):
        policy_named("cheap", SETTINGS)
    with pytest.raises(UnknownTier, match="unknown tier 'hiku'"):
        policy_named("all-hiku", SETTINGS)


def test_all_on_one_tier() -> None:
    """Everything goes there, and nothing climbs; what the tree wants higher is counted."""
    calls = [*grown([(0, 30_000, 200), (10, 500, 200)]), call(7, seconds=99, kind=CallKind.SAFETY, input_tokens=9)]
    found = replay_session(session(*calls), AllOn(settings=SETTINGS, tier="haiku"), rejecting(0.5))
    assert [outcome.model for outcome in found.outcomes] == [HAIKU.id, HAIKU.id, OPUS.id]
    assert (found.moved_calls, found.below_calls) == (2, 2)
    assert found.by_scenario[Scenario.LOW] == found.by_scenario[Scenario.HIGH]


def test_what_does_not_fit_a_fixed_tier_stays_where_it_was() -> None:
    """190,000 tokens of a 5.5 model are 146,154 of Haiku 4.5 and fit its 200,000; 270,000 do not."""
    old = with_models(SETTINGS, {"haiku": SETTINGS.catalog.model("claude-haiku-4-5")[1]})
    policy = AllOn(settings=old, tier="haiku")
    assert went(grown([(0, 190_000, 0)]), policy) == [("claude-haiku-4-5".removeprefix("claude-"), Why.FIXED)]
    assert went(grown([(0, 270_000, 0)]), policy) == [("opus", Why.NO_MODEL)]


@pytest.mark.parametrize(
    ("conditions", "nanousd"),
    [(Conditions(batch=True), 10_500_000), (Conditions(inference_geo="us"), 23_100_000)],
    ids=["batch", "geo"],
)
def test_conditions_go_with_the_call(conditions: Conditions, nanousd: int) -> None:
    """10,000 fresh tokens of Sonnet and 100 said are $0.021: half of that in a batch, 1.1 times in the US.

    Two searches, a cent each, cost the same under any conditions.
    """
    one = call(input_tokens=10_000, output_tokens=100, web_searches=2, conditions=conditions)
    (outcome,) = replay_session(session(one), ROUTED, plain()).outcomes
    assert (outcome.model, outcome.nanousd) == (SONNET.id, nanousd + 20_000_000)


def test_opusplan_plans_on_opus_and_works_on_sonnet() -> None:
    """In plan mode Opus, then Sonnet; agents that have a model of their own keep it."""
    calls = grown([(0, 30_000, 200), (10, 500, 200), (20, 500, 200)])
    calls[0] = replace(calls[0], plan_mode=True)
    own = agent(grown([(30, 9_000, 50)], model=HAIKU), "own")
    inherits = agent(grown([(40, 9_000, 50)]), "inherits")
    assert [model for model, _ in went([*calls, *own, *inherits], OpusPlan(settings=SETTINGS))] == [
        "opus",
        "sonnet",
        "sonnet",
        "haiku",
        "sonnet",
    ]


def test_subagents_on_haiku_leave_the_main_loop_alone() -> None:
    """Only agents move, and the main loop costs to the nano-dollar what it cost."""
    main = grown([(0, 30_000, 200), (60, 500, 200)])
    helper = agent(grown([(20, 10_000, 100)]), "a1")
    policy = SubagentsOn(settings=SETTINGS, tier="haiku")
    assert policy.name == "haiku-subagents"
    found = replay_session(session(main[0], *helper, main[1]), policy, plain())
    assert [outcome.model for outcome in found.outcomes] == [OPUS.id, HAIKU.id, OPUS.id]
    assert found.outcomes[0].nanousd == actual_nanousd(main[0], BOOK)
    assert found.outcomes[2].nanousd == actual_nanousd(main[1], BOOK)


# ------------------------------------------------------------------ climbing, in expectation


def test_the_expectation_of_one_call_by_hand() -> None:
    """Rejected one time in ten, tried once more, then Opus: 1 + 0.1 times Haiku, 0.01 times Sonnet and so on.

    3,000 fresh tokens and 100 said: Haiku 350,000 nano-dollars, Sonnet 7,000,000, Opus 14,000,000. Haiku is asked 1.1
    times, Sonnet 0.011 times, Opus 0.0001 times.
    """
    one = call(input_tokens=3_000, output_tokens=100, classification=classified("field_extraction"))
    found = replay_session(session(one), ROUTED, rejecting(0.1))
    expected = Decimal("1.1") * 350_000 + Decimal("0.011") * 7_000_000 + Decimal("0.0001") * 14_000_000
    assert found.expected_nanousd == expected
    assert found.contributions[Assumption.ESCALATION] == expected - 350_000


def test_the_tier_that_answered_in_reality_answers() -> None:
    """What Sonnet did, Sonnet does: a climb from Haiku ends there, and nothing is rejected on it."""
    one = call(model=SONNET, input_tokens=3_000, output_tokens=100, classification=classified("field_extraction"))
    found = replay_session(session(one), ROUTED, rejecting(0.1))
    assert found.expected_nanousd == Decimal("1.1") * 350_000 + Decimal("0.01") * 7_000_000
    same = call(model=SONNET, input_tokens=3_000, output_tokens=100)
    assert replay_session(session(same), ROUTED, rejecting(0.1)).saved_nanousd == 0


def test_a_conversation_that_climbed_stays_where_it_ended() -> None:
    """Sonnet is rejected one time in two, twice in four: then the rest of the turn is on Opus, warm.

    First call: 1.5 times 10k written for an hour on Sonnet... the second time read; a quarter of the time 10k written
    on Opus. Second call: three quarters on Sonnet as before, one quarter on Opus, which reads what it wrote.
    """
    first, second = grown([(0, 10_000, 0), (10, 1_000, 0)])
    found = replay_session(session(first, second), ROUTED, rejecting(0.5))
    one = 40_000_000 + 0.5 * 1_000_000 + 0.25 * 80_000_000
    on_sonnet = (1_000_000 + 4_000_000) + 0.5 * 1_100_000 + 0.25 * 88_000_000  # Opus is cold for who comes now
    on_opus = 2_000_000 + 8_000_000
    assert [outcome.nanousd for outcome in found.outcomes] == [one, round(0.75 * on_sonnet + 0.25 * on_opus)]


def test_a_turn_that_climbed_may_come_down_with_the_next_ask() -> None:
    """Where a conversation is on Opus for a rejected answer, the next thing asked is weighed as the gateway weighs."""
    calls = grown([(0, 10_000, 0), (10, 100, 0), (7_300, 100, 0)], asks=(0, 2))
    found = replay_session(session(*calls), ROUTED, rejecting(0.5))
    # After two hours all is cold: moving down pays, so that all of it is on Sonnet again: 10,200 tokens at $4.
    cold = 40_800_000
    assert found.outcomes[2].nanousd == cold + 0.5 * 1_020_000 + 0.25 * 81_600_000


def test_in_the_middle_of_a_turn_an_answer_is_rejected_more_rarely() -> None:
    """The shipped prior of a tool loop is a tenth of that of a first answer."""
    shipped = shipped_assumptions().escalation
    review = classified("code_review").task_type
    assert shipped.of(review, in_tool_loop=True).expected == pytest.approx(shipped.of(review).expected / 10)


def test_the_ledgers_counts_take_the_place_of_the_prior() -> None:
    """With 950 answers, 19 of them rejected, 0.08 becomes (19 + 4) / 1000; with a dozen nothing changes."""
    shipped = shipped_assumptions().escalation
    review, debugging = classified("code_review").task_type, classified("debugging").task_type
    learned = shipped.learned({review: (950, 19), debugging: (12, 6)})
    assert learned.of(review).expected == pytest.approx(0.023)
    assert learned.of(review).low < 0.023 < learned.of(review).high < 0.04
    assert learned.of(debugging) == shipped.of(debugging)
    with pytest.raises(ValueError, match="code_review: 7 of 5 answers cannot have been rejected"):
        shipped.learned({review: (5, 7)})


def test_a_climb_has_every_way_it_can_end_and_no_other() -> None:
    """Over all rungs the probabilities of being the last add up to one, in each scenario."""
    where, found = world(), classified("field_extraction")
    deciding = Deciding(SETTINGS, where)
    (one,) = where.asked(session(call(input_tokens=3_000, classification=found)))
    assert isinstance(one, Asked)
    decision = deciding.free(one)
    assert decision is not None
    rungs = deciding.climbing(decision, found.task_type, 3, loop=False)
    assert [rung.model.id for rung in rungs] == [HAIKU.id, SONNET.id, OPUS.id]
    for at in range(3):
        assert sum(rung.ends[at] for rung in rungs) == pytest.approx(1.0)


# ------------------------------------------------------------------ assumptions


def test_each_assumption_says_what_it_adds() -> None:
    """Opus 4.5 to Sonnet 5.5 in the middle: tokens, longer answers and what Opus had read are each told apart."""
    opus = SETTINGS.catalog.model("claude-opus-4-5")[1]
    calls = grown([(0, 10_000, 1_000)], model=opus)
    calls[0] = replace(calls[0], usage=replace(calls[0].usage, cache_read_tokens=4_000, cache_write_1h_tokens=6_000))
    one = Range(1.0, 1.0, 1.0)
    where = plain_with(output_length=Range(1.0, 1.1, 1.3), tokenizer_spread=one)
    found = replay_session(session(*calls), ROUTED, where)
    # 13,000 written at $4, 1,430 said at $10.
    assert found.expected_nanousd == 52_000_000 + 14_300_000
    assert found.contributions[Assumption.OUTPUT_LENGTH] == 130 * 10_000
    assert found.contributions[Assumption.CACHE] == 5_200 * (4_000 - 100)
    assert found.contributions[Assumption.TOKENIZER] == found.expected_nanousd - found.expected_nanousd * 10 // 13
    # Favourable: the beginning that Opus found warm is warm here too. Unfavourable: as expected, and longer.
    assert found.by_scenario[Scenario.LOW] == 5_200 * 100 + 7_800 * 4_000 + 13_000_000
    assert found.by_scenario[Scenario.HIGH] == 52_000_000 + 1_690 * 10_000


def test_an_agent_finds_the_beginning_that_the_last_of_its_kind_left() -> None:
    """Two agents of one kind: where the second really read 8k, it reads them on Haiku too; of another kind not."""
    first = agent(grown([(0, 9_000, 50)], task_type="field_extraction"), "a1")
    second = agent(grown([(30, 9_000, 50)], task_type="field_extraction"), "a2")
    usage = replace(second[0].usage, cache_read_tokens=8_000, cache_write_1h_tokens=1_000)
    second = [replace(second[0], usage=usage)]
    other = [replace(second[0], agent_type="Plan")]
    warm, cold = 8_000 * 10 + 1_000 * 200 + 50 * 500, 9_000 * 200 + 50 * 500
    for agents, expected in ((second, warm), (other, cold)):
        found = replay_session(session(*first, *agents), ROUTED, plain())
        assert found.outcomes[1].nanousd == expected
        assert found.by_scenario[Scenario.HIGH] - found.outcomes[0].nanousd == cold  # type: ignore[operator]


def test_knowing_how_long_it_goes_on_is_an_assumption_too() -> None:
    """A move down that was made for turns that never came is told as what not knowing costs."""
    calls = grown([(0, 80_000, 200), (60, 500, 200)], asks=(0, 1))
    calls[0] = replace(calls[0], classification=classified("production_change"))
    found = replay_session(session(*calls), ROUTED, plain(turns=TurnsToCome(assumed=200)))
    assert found.outcomes[1].why is Why.MOVED_DOWN
    assert found.contributions[Assumption.TURNS_TO_COME] > 0
    assert found.by_scenario[Scenario.LOW] == found.expected_nanousd - found.contributions[Assumption.TURNS_TO_COME]


def test_a_move_is_not_made_where_a_harder_turn_usually_follows() -> None:
    """The way back is weighed, as in the gateway: where every other turn asks for more, the conversation stays."""
    calls = grown([(0, 30_000, 200), (60, 500, 200)], asks=(0, 1))
    found = classified("field_extraction")
    calls[1] = replace(calls[1], classification=found)
    assert went(calls)[1] == ("haiku", Why.MOVED_DOWN)
    often = HarderTurns(counts={(found.family, found.needs): (1_000, 500)})
    assert went(calls, where=plain(harder=often))[1] == ("sonnet", Why.STAYED)


def test_a_projects_own_bounds_hold() -> None:
    """What `[gateway.projects]` says of a project holds for its calls, and one that is only observed is not routed."""
    gateway = replace(
        SETTINGS.gateway,
        projects={"careful": ProjectSettings(min_tier="opus"), "watched": ProjectSettings(observe=True)},
    )
    policy = Routed(settings=replace(SETTINGS, gateway=gateway))
    (one,) = grown([(0, 30_000, 200)])
    assert went([replace(one, project="careful")], policy) == [("opus", Why.ROUTED)]
    assert went([replace(one, project="watched")], policy) == [("opus", Why.OBSERVED)]
    assert went([replace(one, project="other")], policy) == [("sonnet", Why.ROUTED)]


def test_routing_that_costs_more_says_so() -> None:
    """Critical work that was done on Haiku goes to Opus, and that is dearer: less than nothing is saved."""
    calls = grown([(0, 10_000, 100)], model=HAIKU, task_type="production_change")
    assert replay_session(session(*calls), ROUTED, plain()).saved_nanousd < 0


# ------------------------------------------------------------------ whatever the session


@st.composite
def sessions(draw: st.DrawFn) -> list[ImportedCall]:
    """Calls of any models, sizes, pauses and kinds, well-formed or not."""
    calls = []
    seconds = 0.0
    tokens = st.integers(0, 200_000) | st.just(0)
    for number in range(draw(st.integers(1, 12))):
        seconds += draw(st.sampled_from([1.0, 30.0, 299.0, 300.0, 301.0, 3_700.0]))
        who = draw(st.sampled_from([None, None, "a1", "a2"]))
        usage = Usage(draw(tokens), draw(st.integers(0, 5_000)), draw(tokens), draw(tokens), draw(tokens))
        name = draw(st.sampled_from(["field_extraction", "code_review", "production_change", None]))
        calls.append(
            replace(
                call(number, seconds=seconds),
                usage=usage,
                model=draw(st.sampled_from([*(one.id for one in MODELS if one.provider == "anthropic"), "nobody"])),
                agent=who,
                agent_type=None if who is None else "Explore",
                kind=CallKind.SUBAGENT if who else draw(st.sampled_from(list(CallKind))),
                conditions=draw(
                    st.sampled_from([Conditions(), Conditions(batch=True), Conditions(inference_geo="us")])
                ),
                classification=None if name is None else classified(name),
                in_tool_loop=draw(st.booleans()),
                compacts=draw(st.integers(0, 9)) == 0,
                failed=draw(st.integers(0, 9)) == 0,
                has_thinking=draw(st.booleans()),
                plan_mode=draw(st.booleans()),
            )
        )
    return calls


@given(sessions())
@settings(max_examples=60, deadline=None)
def test_doing_what_was_done_costs_what_it_cost(calls: list[ImportedCall]) -> None:
    """The identity: whatever was called, in whatever order, each call costs its own price to the nano-dollar."""
    found = replay_session(session(*calls), Actual(settings=SETTINGS), world())
    for one, outcome in zip(calls, found.outcomes, strict=True):
        known = [model for model in MODELS if model.id == one.model]
        exact = BOOK.price(known[0], one.day, one.conditions).cost_usd(one.usage) if known else None
        nothing = not one.usage.prompt_tokens and not one.usage.output_tokens
        assert outcome.nanousd == (0 if nothing else None if exact is None else usd_to_nanousd(exact))
    total = sum(outcome.nanousd or 0 for outcome in found.outcomes)
    assert found.actual_nanousd == total
    assert set(found.by_scenario.values()) == {total}
    assert found.moved_calls == 0
    assert not any(found.contributions.values())


POLICIES: list[ReplayPolicy] = [
    ROUTED,
    AllOn(settings=SETTINGS, tier="haiku"),
    OpusPlan(settings=SETTINGS),
    SubagentsOn(settings=SETTINGS, tier="sonnet"),
]


@given(sessions(), st.sampled_from(POLICIES))
@settings(max_examples=60, deadline=None)
def test_costs_are_never_below_nothing_and_in_order(calls: list[ImportedCall], policy: ReplayPolicy) -> None:
    """Whatever the session and the policy: no cost is negative, low ≤ expected ≤ high, no more is saved than spent."""
    found = replay_session(session(*calls), policy, world())
    assert all(outcome.nanousd is None or outcome.nanousd >= 0 for outcome in found.outcomes)
    low, expected, high = (found.by_scenario[scenario] for scenario in Scenario)
    assert 0 <= low <= expected <= high
    assert found.saved_nanousd <= found.actual_nanousd
    assert expected == sum(outcome.nanousd or 0 for outcome in found.outcomes)
    assert len(found.outcomes) == found.calls == len(calls)


@given(sessions())
@settings(max_examples=30, deadline=None)
def test_a_replayer_remembers_nothing_of_other_sessions(calls: list[ImportedCall]) -> None:
    """What a replayer keeps of the sessions before changes no result."""
    kept = Replayer(ROUTED, world())
    before = kept.replay(session(*calls))
    kept.replay(session(*reversed(calls)))
    assert kept.replay(session(*calls)) == before == replay_session(session(*calls), ROUTED, world())
