"""One session: its sums by hand, what is counted of it, and keeping it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from tests.analysis.sessions import WAYS, plan
from tests.replay.sessions import HAIKU, MINUTE, NOON_MS, OPUS, SONNET, agent, call, classified, session
from tierwise.analysis.session import COLUMNS, Scope, SessionFindings, look_at
from tierwise.core.calls import ImportedSession, OwnCost, Phase

PLAN = plan()
EVERYTHING = Scope()
# Opus 5.5: 4, 20, 0.20 (read), 8 (written for an hour) US$ per million tokens.
FIRST = call(1, input_tokens=1_000, cache_write_1h_tokens=10_000, output_tokens=100, project="/home/ana/shop")
SECOND = call(2, seconds=30, input_tokens=10, cache_read_tokens=11_000, output_tokens=50, project="/home/ana/shop")
FIRST_NANOUSD, SECOND_NANOUSD = 86_000_000, 3_240_000
TWO = session(FIRST, SECOND)


def look(looked: ImportedSession, scope: Scope = EVERYTHING) -> SessionFindings:
    """What a session comes to."""
    return look_at(looked, PLAN.lens, scope)


def test_what_was_spent_by_hand() -> None:
    """The sum, its parts by token class, and the tokens, for two calls of one conversation."""
    found = look(TWO)
    assert found.nanousd == FIRST_NANOUSD + SECOND_NANOUSD
    assert found.token_classes == {
        "input": 4_040_000,
        "output": 3_000_000,
        "cache_read": 2_200_000,
        "cache_write_1h": 80_000_000,
    }
    ((cell, sums),) = found.cells.items()
    assert cell == ("2026-11-22", "/home/ana/shop", OPUS.id, "code_generation")
    assert sums[: len(COLUMNS)] == [2, 0, 89_240_000, 1_010, 150, 11_000, 0, 10_000]
    assert (found.calls, found.first_ms, found.last_ms) == (2, NOON_MS, NOON_MS + 30_000)


def test_agents_kinds_and_phases_each_sum_to_the_whole() -> None:
    """Whatever it is split by, nothing is lost and nothing counts twice."""
    looked = session(FIRST, *agent([replace(SECOND, phase=Phase.EXPLORING)], "a1"))
    found = look(looked)
    assert set(found.agents) == {"main", "Explore"}
    assert set(found.kinds) == {"main", "subagent"}
    assert set(found.phases) == {"other", "exploring"}
    for rows in (found.agents, found.kinds, found.phases, found.cells):
        assert sum(sums[2] for sums in rows.values()) == found.nanousd


def test_each_calls_part_of_a_way_sums_to_the_way() -> None:
    """What rows are expected to cost adds up to what the session is expected to cost, under every way of routing."""
    looked = session(FIRST, SECOND, *agent([call(3, model=HAIKU, output_tokens=500)], "a1"))
    found = look(looked)
    for place, way in enumerate(found.ways):
        assert sum(sums[len(COLUMNS) + place] for sums in found.cells.values()) == way.expected
        assert way.low <= way.expected <= way.high


def test_ways_that_do_not_touch_a_session_cost_what_it_cost() -> None:
    """Where only dear models are routed, a session on a cheap one is left alone, to the nano-dollar."""
    found = look(session(call(1, model=SONNET, input_tokens=5_000, output_tokens=900)))
    of = dict(zip((way.name for way in WAYS), found.ways, strict=True))
    assert of["routed-from-opus"][:4] == (found.nanousd, found.nanousd, found.nanousd, 0)


def test_a_call_without_a_price_is_counted_and_in_no_amount() -> None:
    """It is among the calls, named by its model, and changes no sum."""
    found = look(session(FIRST, call(2, model="mystery-1", output_tokens=1_000_000)))
    assert (found.calls, found.nanousd, found.unpriced_models) == (2, FIRST_NANOUSD, ("mystery-1",))
    assert sum(sums[1] for sums in found.cells.values()) == 1


def test_a_sum_that_a_record_tells_has_a_class_of_its_own() -> None:
    """A record without tokens counts what it says."""
    found = look(session(call(1, cost_nanousd=77)))
    assert found.token_classes == {"told": 77}


def test_what_nobody_asked_has_no_type() -> None:
    """A call without a classification is of unknown type."""
    found = look(session(replace(FIRST, classification=None)))
    assert {cell[3] for cell in found.cells} == {"unknown"}


@pytest.mark.parametrize(
    ("scope", "calls"),
    [
        (Scope(), 2),
        (Scope(since_ms=NOON_MS + 1), 1),
        (Scope(until_ms=NOON_MS + 30_000), 1),
        (Scope(project="shop"), 2),
        (Scope(project="ana/shop"), 2),
        (Scope(project="/home/ana/shop"), 2),
        (Scope(project="op"), 0),
        (Scope(project=""), 0),
        (Scope(since_ms=NOON_MS + MINUTE * 1000), 0),
    ],
)
def test_only_what_is_asked_for_is_counted(scope: Scope, calls: int) -> None:
    """A time is from its first millisecond to before its last; a project is its path, or the whole end of it."""
    found = look(TWO, scope)
    assert found.calls == calls
    assert found.nanousd == {2: FIRST_NANOUSD + SECOND_NANOUSD, 1: found.nanousd, 0: 0}[calls]


def test_a_scope_knows_which_sessions_it_cuts_and_misses() -> None:
    """What it need not read it does not read, and what it cuts is not kept as if it were whole."""
    scope = Scope(since_ms=100, until_ms=200)
    assert [scope.misses(*times) for times in ((0, 99), (0, 100), (199, 300), (200, 300))] == [True, False, False, True]
    assert [scope.may_cut(*times) for times in ((100, 199), (99, 150), (150, 200))] == [False, True, True]
    assert Scope(project="x").may_cut(100, 199)


def test_its_own_figure_is_held_against_the_whole_session() -> None:
    """Also where only a part is counted: what the program wrote is of all of it."""
    looked = replace(TWO, own_cost=OwnCost(Decimal("0.08924")))
    found = look(looked, Scope(since_ms=NOON_MS + 1))
    assert (found.own_usd, found.whole_nanousd, found.own_guessed) == ("0.08924", 89_240_000, False)


def test_its_own_figure_is_held_against_list_prices() -> None:
    """Claude Code knows of no premium at a cloud's regional endpoint; what was spent does, under the name on record."""
    name = "us.anthropic.claude-opus-5-5-v1:0"
    found = look(session(replace(FIRST, model=name), replace(SECOND, model=name)))
    assert (found.nanousd, found.whole_nanousd) == (89_240_000 * 11 // 10, 89_240_000)
    assert sum(found.token_classes.values()) == found.nanousd
    assert [cell[2] for cell in found.cells] == [name]


def test_a_guess_of_either_side_is_told() -> None:
    """A model that the program or we cannot price makes the comparison a guess."""
    guessed = replace(TWO, own_cost=OwnCost(Decimal(1), has_unknown_model=True))
    unpriced = replace(session(FIRST, call(2, model="mystery-1", output_tokens=9)), own_cost=OwnCost(Decimal(1)))
    assert look(guessed).own_guessed
    assert look(unpriced).own_guessed


def test_it_is_kept_and_found_again() -> None:
    """What is read back is what was written; another version, or damage, is nothing."""
    looked = session(FIRST, *agent([SECOND], "a1"), replace(SECOND, id="x", classification=classified("tagging")))
    found = look(replace(looked, own_cost=OwnCost(Decimal("0.1"))))
    data = found.to_bytes()
    assert SessionFindings.from_bytes(data) == found
    for broken in (b"", b"[]", b"{}", b"[1]", data[:-9], data.replace(b"[1,", b"[999,", 1)):
        assert SessionFindings.from_bytes(broken) is None


def test_subagent_levers_cost_nothing_where_there_are_no_subagents() -> None:
    """They are not replayed then, and come to what was spent."""
    found = look(TWO)
    assert found.policies["haiku-subagents"] == (found.nanousd, 0)
