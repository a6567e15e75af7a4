"""Sessions added up: tables, the range, reconciliation, and advice, by hand on few sessions."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.sessions import USD, session_of, totals_of
from tests.replay.sessions import SETTINGS
from tierwise.analysis.advise import advised, recommended
from tierwise.analysis.findings import Findings
from tierwise.analysis.session import SessionFindings, Way


def found_of(*sessions: SessionFindings) -> Findings:
    """What these sessions come to, with advice."""
    return advised(totals_of(sessions).findings, SETTINGS)


def test_tables_add_up_and_are_ordered_by_cost() -> None:
    """Each table's rows sum to the whole; the dearest comes first, days come in order."""
    found = found_of(
        session_of(1, spent=2, expected=1, cell=("2026-11-03", "/b", "claude-haiku-5-5", "tagging")),
        session_of(0, spent=5, expected=3),
    )
    assert (found.sessions, found.calls, found.actual_usd) == (2, 8, Decimal(7))
    assert [row.model for row in found.by_model] == ["claude-opus-5-5", "claude-haiku-5-5"]
    assert [(row.task_type, row.family) for row in found.by_task_type] == [
        ("code_generation", "code"),
        ("tagging", "classify"),
    ]
    assert [row.day for row in found.by_day] == ["2026-11-02", "2026-11-03"]
    for rows in (found.by_model, found.by_task_type, found.by_project, found.by_day, found.by_agent, found.by_session):
        assert sum(row.actual_usd for row in rows) == 7
        assert sum(row.routed_usd for row in rows) == 4
    assert (found.period.from_, found.period.to) == ("2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z")


def test_one_session_has_a_range_of_assumptions_alone() -> None:
    """Drawn again, it is the same session: both ends are those of the assumptions."""
    might = found_of(session_of(spent=10, low=6, expected=7, high=9)).counterfactual
    assert (might.low_usd, might.expected_usd, might.high_usd, might.saved_pct) == (6, 7, 9, Decimal("30.0"))
    assert (might.sampling.low_usd, might.sampling.high_usd) == (7, 7)
    assert (might.assumptions.low_usd, might.assumptions.high_usd) == (6, 9)
    assert might.recommended


def test_unlike_sessions_widen_the_range() -> None:
    """Where one half saves all and the other nothing, it matters which sessions there happened to be."""
    sessions = [session_of(k, spent=10, low=9 * (k % 2), expected=10 * (k % 2), high=10 * (k % 2)) for k in range(20)]
    might = found_of(*sessions).counterfactual
    assert might.expected_usd == 100
    assert 0 < might.low_usd < might.sampling.low_usd < 100 < might.sampling.high_usd < 200


def test_the_same_sessions_give_the_same_range() -> None:
    """The draws are from a fixed seed."""
    sessions = [session_of(k, spent=1 + k, low=1, expected=1 + k / 2, high=1 + k) for k in range(9)]
    assert found_of(*sessions) == found_of(*sessions)


def test_a_policy_that_costs_more_is_not_recommended() -> None:
    """What is expected is then what was spent, and what the policy would cost stands beside it."""
    found = found_of(session_of(spent=10, low=11, expected=12, high=15))
    might = found.counterfactual
    assert (might.recommended, might.expected_usd, might.saved_pct) == (False, 10, 0)
    assert (might.low_usd, might.high_usd) == (10, 10)
    assert (might.policy_expected_usd, might.at_worst_usd) == (12, 15)
    assert found.changes == ()
    assert recommended(found, SETTINGS).policy == {}


def test_a_pessimistic_end_above_what_was_spent_is_told() -> None:
    """The range ends at what was spent, since nobody has to route; how bad it could be is beside it."""
    might = found_of(session_of(spent=10, low=5, expected=8, high=13)).counterfactual
    assert (might.high_usd, might.at_worst_usd) == (10, 13)


@given(
    st.lists(
        st.tuples(*(st.integers(0, 10**13) for _ in range(4))).map(lambda four: (four[0], *sorted(four[1:]))),
        min_size=1,
        max_size=12,
    )
)
def test_the_range_is_in_order_and_never_above_what_was_spent(figures: list[tuple[int, ...]]) -> None:
    """Whatever sessions cost and would have cost: 0 ≤ low ≤ expected ≤ high ≤ spent."""
    usd = [[figure / USD for figure in session] for session in figures]
    might = found_of(
        *(session_of(k, spent=s, low=low, expected=e, high=h) for k, (s, low, e, h) in enumerate(usd))
    ).counterfactual
    spent = sum((Decimal(session[0]) for session in figures), Decimal(0)) / USD
    assert 0 <= might.low_usd <= might.expected_usd <= might.high_usd <= spent


def test_of_several_ways_of_routing_the_cheapest_is_shown() -> None:
    """The others stand among the policies, and rows show what the cheapest makes of them."""
    ways = tuple(Way(cost * USD, cost * USD, cost * USD, 1, 0, {}) for cost in (9, 6, 8))
    plain = session_of(spent=10)
    sums = [*plain.kinds["main"][:-3], 9 * USD, 6 * USD, 8 * USD]
    same = dict.fromkeys(plain.cells, sums)
    found = found_of(replace(plain, ways=ways, cells=same, kinds={"main": sums}, agents={"main": sums}))
    assert (found.counterfactual.policy, found.counterfactual.expected_usd) == ("routed-from-sonnet", 6)
    assert [row.routed_usd for row in found.by_model] == [6]
    assert [(row.policy, row.expected_usd) for row in found.policies] == [("routed-from-opus", 8), ("routed", 9)]


def test_reconciliation_smooths_nothing_over() -> None:
    """What is missing and what is too much are added up apart, and every session that differs is named."""
    own = found_of(
        session_of(0, spent=1, own_usd="1"),
        session_of(1, spent=1, own_usd="1.0000009"),
        session_of(2, spent=1, own_usd="1.5"),
        session_of(3, spent=1, own_usd="0.75"),
        session_of(4, spent=1, own_usd="9", own_guessed=True),
        session_of(5, spent=1),
    ).reconciled
    assert (own.sessions, own.agreeing, own.unknown_model_sessions) == (4, 2, 1)
    assert (own.claude_code_usd, own.ours_usd) == (Decimal("4.2500009"), 4)
    assert (own.not_in_transcript_usd, own.beyond_claude_code_usd) == (Decimal("0.5"), Decimal("0.25"))
    assert [(row.session, row.not_in_transcript_usd) for row in own.differences] == [
        ("session-2", Decimal("0.5")),
        ("session-3", Decimal("-0.25")),
    ]


def test_the_dearest_sessions_are_listed_and_all_are_counted() -> None:
    """At most a hundred, the dearest first."""
    found = found_of(*(session_of(k, spent=1 + k % 150) for k in range(150)))
    assert found.sessions == 150
    assert [row.actual_usd for row in found.by_session] == list(range(150, 50, -1))


def test_nothing_is_found_where_there_is_nothing() -> None:
    """No session gives zeros, no period and no advice."""
    found = found_of(session_of(calls=0))
    assert (found.sessions, found.calls, found.actual_usd, found.period.from_) == (0, 0, 0, None)
    assert found.counterfactual.expected_usd == 0
    assert found.changes == ()


def test_the_changes_worth_most_come_first_with_their_commands() -> None:
    """Three at most, each with what it saves and the command that makes it."""
    found = found_of(
        session_of(
            spent=100,
            low=60,
            expected=70,
            high=80,
            policies={"opusplan": (50 * USD, 0), "haiku-subagents": (90 * USD, 0), "sonnet-subagents": (95 * USD, 0)},
            levers={"batch": (5 * USD, 1), "effort": (USD // 10, 9)},
            kinds={"main": [3, 0, 90 * USD, *[0] * 8], "subagent": [1, 0, 10 * USD, *[0] * 8]},
        )
    )
    assert [(change.change, change.saves_usd) for change in found.changes] == [
        ("opusplan", 50),
        ("route", 30),
        ("subagents", 10),
    ]
    assert [change.command for change in found.changes] == [
        "claude --model opusplan",
        "tierwise analyze --apply --claude-code && tierwise serve",
        "export CLAUDE_CODE_SUBAGENT_MODEL=claude-haiku-5-5",
    ]
    assert all(len(change.means) <= 58 for change in found.changes)


def test_a_lever_that_does_work_worse_is_not_advised() -> None:
    """More than one call in ten below what it asks for is too many, whatever it saves."""
    found = found_of(session_of(spent=100, calls=100, low=99, expected=99, high=99, policies={"opusplan": (1, 11)}))
    assert [change.change for change in found.changes] == ["route"]


def test_what_is_recommended_routes_the_models_that_were_used() -> None:
    """The file's keys: what to compare with, and the requests to route; Claude Code is pointed at the gateway."""
    advice = recommended(found_of(session_of(spent=10, low=5, expected=6, high=7)), SETTINGS)
    assert advice.policy == {
        ("", "baseline"): "claude-opus-5-5",
        ("gateway", "routed_models"): ("claude-tierwise-auto", "claude-opus-5-5"),
    }
    assert advice.claude_code == {("env", "ANTHROPIC_BASE_URL"): "http://127.0.0.1:8484"}
