"""Tiers, models and the catalog."""

from __future__ import annotations

from datetime import date

import pytest

from tierwise.core.catalog import Catalog, Model, Tier, TierSpec
from tierwise.core.errors import UnknownModel, UnknownTier


def _model(model_id: str) -> Model:
    return Model(id=model_id, provider="p", context_tokens=1000, max_output_tokens=100)


CATALOG = Catalog(
    (TierSpec(tier=Tier.LOCAL, models=(_model("a"), _model("b"))), TierSpec(tier=Tier.HAIKU, models=(_model("c"),))),
    baseline=_model("c"),
)


def test_tiers_are_ordered_by_level() -> None:
    """Tiers compare by level, are their name as text and their level as a number."""
    assert sorted([Tier.OPUS, Tier.LOCAL, Tier.SONNET, Tier.HAIKU]) == [Tier.LOCAL, Tier.HAIKU, Tier.SONNET, Tier.OPUS]
    assert Tier.LOCAL < Tier.HAIKU <= Tier.HAIKU < Tier.OPUS
    assert [str(Tier.OPUS), Tier.OPUS.value, int(Tier.OPUS)] == ["opus", "opus", 3]


def test_a_tier_is_itself_and_nothing_else() -> None:
    """Equal tiers are equal and hash alike; a tier is not its name, and does not compare with other things."""
    assert Tier(1, "haiku") == Tier.HAIKU
    assert len({Tier(1, "haiku"), Tier.HAIKU, Tier(2, "haiku")}) == 2
    assert Tier.HAIKU != "haiku"
    with pytest.raises(TypeError):
        _ = Tier.HAIKU < 1  # type: ignore[operator]


def test_a_tier_is_found_by_name_or_value() -> None:
    """Both a name and a Tier find the tier; its level in this catalog counts, not that of the default one."""
    assert CATALOG.tier("haiku") is CATALOG.tier(Tier(7, "haiku")) is CATALOG.top
    assert CATALOG.bottom.tier == Tier.LOCAL
    assert [spec.tier.name for spec in CATALOG] == ["local", "haiku"]


def test_unknown_names_say_which_there_are() -> None:
    """An unknown tier or model is an error that lists the ones that exist."""
    with pytest.raises(UnknownTier, match=r"unknown tier 'hiku' in x; use one of local, haiku"):
        CATALOG.tier("hiku", where="x")
    with pytest.raises(UnknownModel, match=r"unknown model 'z'; use one of a, b, c"):
        CATALOG.model("z")


def test_a_model_is_found_with_its_tier() -> None:
    """A model id finds the model and the tier it belongs to."""
    spec, model = CATALOG.model("b")
    assert (spec.tier, model.id) == (Tier.LOCAL, "b")


def test_a_model_is_available_from_its_release_until_it_is_retired() -> None:
    """The day of release counts, the day of retirement no more; unknown dates exclude nothing."""
    model = Model(
        id="m",
        provider="p",
        context_tokens=1,
        max_output_tokens=1,
        released=date(2026, 1, 2),
        retired=date(2026, 3, 1),
    )
    days = [date(2026, 1, 1), date(2026, 1, 2), date(2026, 2, 28), date(2026, 3, 1)]
    assert [model.available_on(day) for day in days] == [False, True, True, False]
    assert _model("m").available_on(date(1990, 1, 1))
