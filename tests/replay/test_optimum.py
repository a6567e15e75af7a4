"""The cheapest plan with hindsight: what it costs, and that it is a bound."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.replay.sessions import BOOK, HAIKU, MODELS, OPUS, SONNET, grown, plain, session
from tests.replay.test_course import sessions
from tierwise.core.calls import ImportedCall
from tierwise.core.catalog import Model
from tierwise.replay import actual_nanousd, optimum_nanousd


def optimum(calls: list[ImportedCall], *models: Model) -> int:
    return optimum_nanousd(session(*calls), plain(), lambda _: models)


def test_nothing_allowed_is_what_was_spent() -> None:
    """With no other model, the only plan is what was done."""
    calls = grown([(0, 30_000, 200), (60, 500, 100)])
    assert optimum(calls) == sum(actual_nanousd(one, BOOK) or 0 for one in calls)


def test_the_cheapest_plan_by_hand() -> None:
    """Two pieces: Haiku from the start writes 30k at $0.20 and reads them at $0.01, against Opus at $8 and $0.20."""
    calls = grown([(0, 30_000, 200), (60, 500, 100)], asks=(0, 1))
    assert optimum(calls, HAIKU, SONNET) == 6_000_000 + 100_000 + 300_000 + 100_000 + 50_000


def test_a_plan_stays_where_moving_does_not_pay() -> None:
    """If only the second piece may be Sonnet's, what is warm on Opus is cheaper there."""
    calls = grown([(0, 80_000, 200), (60, 500, 100)], asks=(0, 1))
    spent = sum(actual_nanousd(one, BOOK) or 0 for one in calls)
    assert optimum_nanousd(session(*calls), plain(), lambda one: (SONNET,) if one is calls[1] else ()) == spent


@given(sessions(), st.lists(st.sampled_from([model for model in MODELS if model.provider == "anthropic"])))
@settings(max_examples=60, deadline=None)
def test_a_further_model_never_makes_the_optimum_dearer(calls: list[ImportedCall], models: list[Model]) -> None:
    """Whatever the session: each model that is added leaves the cheapest plan as it was or makes it cheaper, and
    none costs more than what was spent, or less than nothing."""
    before = sum(actual_nanousd(one, BOOK) or 0 for one in calls)
    for number in range(len(models) + 1):
        cost = optimum(calls, *models[:number])
        assert 0 <= cost <= before
        before = cost


def test_a_further_tier_below_all_others_never_makes_it_dearer() -> None:
    """A tier that is cheaper than any other, and may do everything, is where everything goes."""
    calls = grown([(0, 30_000, 200), (60, 500, 100)], asks=(0, 1))
    assert optimum(calls, HAIKU) < optimum(calls, SONNET) < optimum(calls, OPUS)
