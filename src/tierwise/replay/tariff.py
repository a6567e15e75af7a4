"""What tier a model is of and what its tokens cost, also of a model that is in no tier."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from tierwise.core.catalog import Catalog, Model
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import Conditions, Price, Usage, usd_to_nanousd
from tierwise.prices import PriceBook
from tierwise.replay.pricing import canonical_id

__all__ = ["OTHER_TIER", "Tariff"]

OTHER_TIER = "other"  # as in the gateway's records: a model that is in no tier
_STANDARD = Conditions()


class Tariff:
    """Tiers and prices by the names that other programs have for models."""

    def __init__(self, catalog: Catalog, prices: PriceBook) -> None:
        self._prices = prices
        self._baseline = catalog.baseline
        self._models: Mapping[str, tuple[str, Model]] = {
            model.id: (spec.tier.name, model) for spec in reversed(catalog.tiers) for model in spec.models
        }

    def tier(self, model_id: str) -> str:
        """The name of the tier that a model is in."""
        return self._found(model_id)[0]

    def price(self, model_id: str, day: date, conditions: Conditions = _STANDARD) -> Price | None:
        """The price of a day (UTC); None where nobody knows one."""
        try:
            return self._prices.price(self._found(model_id)[1], day, conditions)
        except UnpricedModel:
            return None

    def nanousd(
        self, model_id: str, usage: Usage, day: date, *, instead_of: str | None = None, requests: int = 1
    ) -> int | None:
        """What tokens cost on a model; None where nobody knows its price.

        Args:
            instead_of: the model that counted them, where it was another one.
            requests: how many requests the usage sums up: price bands go by the length of one.
        """
        price = self.price(model_id, day)
        if price is None:
            return None
        if instead_of is not None:
            usage = usage.scaled(
                self._found(model_id)[1].tokenizer_factor / self._found(instead_of)[1].tokenizer_factor
            )
        return usd_to_nanousd(price.cost_usd(usage, band_prompt_tokens=-(-usage.prompt_tokens // requests)))

    def _found(self, model_id: str) -> tuple[str, Model]:
        name = canonical_id(model_id)
        if name == self._baseline.id and name not in self._models:
            return OTHER_TIER, self._baseline
        return self._models.get(name) or (
            OTHER_TIER,
            Model(id=name, provider="anthropic", context_tokens=0, max_output_tokens=0),
        )
