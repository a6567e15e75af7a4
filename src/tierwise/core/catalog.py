"""Tiers and models as data: what can be routed to, what each model accepts, how long it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import total_ordering
from typing import ClassVar

from tierwise.core.errors import UnknownModel, UnknownTier

__all__ = ["Capabilities", "Catalog", "Model", "StructuredOutput", "Thinking", "Tier", "TierSpec"]


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Tier:
    """A rung of capability: its place in the order (`level`, 0 the cheapest) and its name.

    The four of the default configuration are `Tier.LOCAL`, `Tier.HAIKU`, `Tier.SONNET` and `Tier.OPUS`; a
    configuration may have any others. `str(tier)` is the name, `int(tier)` the level; tiers compare by level.
    """

    level: int
    name: str

    LOCAL: ClassVar[Tier]
    HAIKU: ClassVar[Tier]
    SONNET: ClassVar[Tier]
    OPUS: ClassVar[Tier]

    @property
    def value(self) -> str:
        """The name, as an `Enum` member would give it."""
        return self.name

    def __str__(self) -> str:
        return self.name

    def __int__(self) -> int:
        return self.level

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Tier):
            return self.level == other.level and self.name == other.name
        return NotImplemented

    def __lt__(self, other: object) -> bool:
        if isinstance(other, Tier):
            return (self.level, self.name) < (other.level, other.name)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.level, self.name))


Tier.LOCAL = Tier(0, "local")
Tier.HAIKU = Tier(1, "haiku")
Tier.SONNET = Tier(2, "sonnet")
Tier.OPUS = Tier(3, "opus")


class Thinking(StrEnum):
    """Which `thinking` parameter a model takes."""

    NONE = "none"  # the parameter is an error or has no meaning
    EXTENDED = "extended"  # {"type": "enabled", "budget_tokens": N}
    ADAPTIVE = "adaptive"  # {"type": "adaptive"} or disabled
    ADAPTIVE_BETWEEN_TOOLS = "adaptive_between_tools"  # {"type": "between_tools"} in place of disabled
    ADAPTIVE_ALWAYS = "adaptive_always"  # cannot be disabled


class StructuredOutput(StrEnum):
    """How a model is made to answer in JSON of a given schema."""

    NONE = "none"  # only by asking for it in words
    OUTPUT_CONFIG = "output_config"  # Anthropic: output_config.format
    RESPONSE_FORMAT = "response_format"  # the OpenAI dialect of the same server: response_format


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a request to a model may carry. A wrong parameter is a 400, so requests are adapted to this."""

    tools: bool = True
    images: bool = True
    thinking: Thinking = Thinking.NONE
    effort: bool = False  # output_config.effort
    forced_tool_use: bool = True  # tool_choice any/tool
    sampling: bool = True  # non-default temperature, top_p, top_k
    prefill: bool = True  # a final assistant turn
    structured_output: StructuredOutput = StructuredOutput.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that can be called.

    `id` is what goes on the wire; `tokenizer_factor` is how many tokens it counts where Claude's tokenizer up to
    the 4.5 models counts one (newer Claude models: 1.3). Speeds, in tokens a second, are assumptions until
    measured; the ledger's measurements take their place.
    """

    id: str
    provider: str
    context_tokens: int
    max_output_tokens: int
    capabilities: Capabilities = Capabilities()
    tokenizer_factor: Decimal = Decimal(1)
    released: date | None = None
    retired: date | None = None
    price_as: str | None = None  # price it as this model (a hosted or aliased one)
    prompt_tokens_per_second: float = 5000.0
    output_tokens_per_second: float = 60.0
    effort: str | None = None  # sent when the model takes one and the caller gave none

    def available_on(self, day: date) -> bool:
        """Whether it had been released and not yet retired on that day."""
        return (self.released is None or self.released <= day) and (self.retired is None or day < self.retired)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSpec:
    """A tier, its models in order of preference, and how often a rejected reply is tried again on it."""

    tier: Tier
    models: tuple[Model, ...]
    retries: int = 1


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tiers, cheapest first. `baseline` is the model that everything would go to without routing."""

    tiers: tuple[TierSpec, ...]
    baseline: Model
    beside: tuple[Model, ...] = ()  # described, and in no tier: nothing goes there, but records may tell of them

    @property
    def bottom(self) -> TierSpec:
        """The cheapest tier."""
        return self.tiers[0]

    @property
    def top(self) -> TierSpec:
        """The most capable tier."""
        return self.tiers[-1]

    def __iter__(self) -> Iterator[TierSpec]:
        return iter(self.tiers)

    @property
    def models(self) -> Iterator[Model]:
        """The models of all tiers, cheapest tier first, in order of preference."""
        return (model for spec in self.tiers for model in spec.models)

    def tier(self, name: str | Tier, *, where: str = "") -> TierSpec:
        """The tier of that name.

        Raises:
            UnknownTier: with the names that exist.
        """
        wanted = name.name if isinstance(name, Tier) else name
        for spec in self.tiers:
            if spec.tier.name == wanted:
                return spec
        allowed = ", ".join(spec.tier.name for spec in self.tiers)
        raise UnknownTier(f"unknown tier {wanted!r}{f' in {where}' if where else ''}; use one of {allowed}")

    def model(self, model_id: str) -> tuple[TierSpec, Model]:
        """The model of that id and the tier it belongs to.

        Raises:
            UnknownModel: with the ids that exist.
        """
        for spec in self.tiers:
            for model in spec.models:
                if model.id == model_id:
                    return spec, model
        allowed = ", ".join(m.id for m in self.models)
        raise UnknownModel(f"unknown model {model_id!r}; use one of {allowed}, or add it to tierwise.toml")
