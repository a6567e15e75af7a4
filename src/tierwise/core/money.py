"""Money and tokens, exactly.

Inside, dollars are `Decimal`; in storage, integers of a billionth of a dollar (`nanousd`). A cost is rounded once,
when an attempt is recorded, half to even: prices times tokens are whole nano-dollars except where a discount of a
cache read leaves a fraction.

`Usage` follows **Anthropic's** meaning: `input_tokens` is fresh input only; cache reads and writes are counted
beside it, never inside it. OpenAI's `prompt_tokens` and genai-prices' `input_tokens` include cached tokens; they
are converted at the edge (`tierwise.wire.openai`, `tierwise.prices`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal

__all__ = [
    "NANOUSD_PER_USD",
    "Conditions",
    "Price",
    "PriceBand",
    "Usage",
    "amount",
    "ceil_tokens",
    "format_usd",
    "nanousd_to_usd",
    "usd_to_nanousd",
]

NANOUSD_PER_USD = 1_000_000_000
_WHOLE_NUMBERS = {int}
_NANO = Decimal(NANOUSD_PER_USD)
_NINTH = Decimal(1).scaleb(-9)
# 50 digits: no sum of this program's sizes is ever rounded by arithmetic, only by `usd_to_nanousd`.
EXACT = Context(prec=50, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, by class (Anthropic's meaning). `estimated`: counted by us, not by the provider."""

    input_tokens: int = 0  # fresh input, cache tokens not included
    output_tokens: int = 0  # thinking included, as billed
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0  # part of output_tokens, for the record
    web_searches: int = 0
    estimated: bool = False

    def __post_init__(self) -> None:
        # Made several times a decision: the usual case is two passes over a tuple, the words come only when needed.
        counts = (
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_5m_tokens,
            self.cache_write_1h_tokens,
            self.thinking_tokens,
            self.web_searches,
        )
        if set(map(type, counts)) != _WHOLE_NUMBERS or min(counts) < 0:
            for name, value in zip(self.__slots__, counts, strict=False):
                if type(value) is not int or value < 0:
                    raise ValueError(f"{name} must be a whole number ≥ 0, not {value!r}")

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt of this one request: what price bands and context limits are measured by."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_5m_tokens + other.cache_write_5m_tokens,
            self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            self.thinking_tokens + other.thinking_tokens,
            self.web_searches + other.web_searches,
            self.estimated or other.estimated,
        )

    def scaled(self, factor: Decimal) -> Usage:
        """The same text counted by another tokenizer (`factor` = its tokens per token here), rounded up."""
        if factor == 1:
            return self

        def up(tokens: int) -> int:
            return ceil_tokens(EXACT.multiply(factor, tokens))

        return replace(
            self,
            input_tokens=up(self.input_tokens),
            output_tokens=up(self.output_tokens),
            cache_read_tokens=up(self.cache_read_tokens),
            cache_write_5m_tokens=up(self.cache_write_5m_tokens),
            cache_write_1h_tokens=up(self.cache_write_1h_tokens),
            thinking_tokens=up(self.thinking_tokens),
            estimated=True,
        )


@dataclass(frozen=True, slots=True)
class PriceBand:
    """Rates in US$ per million tokens, for requests whose whole prompt is longer than `above_prompt_tokens`."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    above_prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """The price that applied to a model at a time, under given conditions (batch, geography, speed).

    `bands` ascend by `above_prompt_tokens`; the band is chosen by the whole prompt of one request and applies to
    every token of it, output included. `usd_per_hour` is for a local model that costs by time.
    """

    model: str
    bands: tuple[PriceBand, ...]
    source: str  # where the number comes from
    valid_from: date | None = None
    conditions: tuple[str, ...] = ()  # such as "batch", "geo:us", "fast"
    usd_per_web_search: Decimal = Decimal(0)
    usd_per_hour: Decimal = Decimal(0)

    def band_for(self, prompt_tokens: int) -> PriceBand:
        """The band that a request with this many prompt tokens falls in."""
        chosen = self.bands[0]
        for band in self.bands[1:]:
            if prompt_tokens > band.above_prompt_tokens:
                chosen = band
        return chosen

    def cost_usd(
        self, usage: Usage, *, seconds: Decimal = Decimal(0), band_prompt_tokens: int | None = None
    ) -> Decimal:
        """What one request costs in US$, exactly. `seconds` matters only where `usd_per_hour` is set.

        `band_prompt_tokens`: how long the prompts were, where `usage` sums up several requests.
        """
        longest = usage.prompt_tokens if band_prompt_tokens is None else band_prompt_tokens
        band = self.bands[0] if len(self.bands) == 1 else self.band_for(longest)
        total = EXACT.multiply(band.input, usage.input_tokens)
        total = EXACT.add(total, EXACT.multiply(band.output, usage.output_tokens))
        if usage.cache_read_tokens:
            total = EXACT.add(total, EXACT.multiply(band.cache_read, usage.cache_read_tokens))
        if usage.cache_write_5m_tokens:
            total = EXACT.add(total, EXACT.multiply(band.cache_write_5m, usage.cache_write_5m_tokens))
        if usage.cache_write_1h_tokens:
            total = EXACT.add(total, EXACT.multiply(band.cache_write_1h, usage.cache_write_1h_tokens))
        total = EXACT.scaleb(total, -6)  # the rates are per million
        if usage.web_searches:
            total = EXACT.add(total, EXACT.multiply(self.usd_per_web_search, usage.web_searches))
        if self.usd_per_hour and seconds:
            total = EXACT.add(total, EXACT.divide(EXACT.multiply(self.usd_per_hour, seconds), Decimal(3600)))
        return total

    def cache_saved_usd(self, usage: Usage) -> Decimal:
        """What a request's cache saved in US$ against the same tokens sent fresh; negative where writing cost more."""
        band = self.bands[0] if len(self.bands) == 1 else self.band_for(usage.prompt_tokens)
        saved = Decimal(0)
        for tokens, rate in (
            (usage.cache_read_tokens, band.cache_read),
            (usage.cache_write_5m_tokens, band.cache_write_5m),
            (usage.cache_write_1h_tokens, band.cache_write_1h),
        ):
            if tokens:
                saved = EXACT.add(saved, EXACT.multiply(EXACT.subtract(band.input, rate), tokens))
        return EXACT.scaleb(saved, -6)

    @property
    def is_free(self) -> bool:
        """True where no token, search or hour costs anything."""
        return (
            self.usd_per_hour == 0
            and self.usd_per_web_search == 0
            and all(
                not (b.input or b.output or b.cache_read or b.cache_write_5m or b.cache_write_1h) for b in self.bands
            )
        )


@dataclass(frozen=True, slots=True)
class Conditions:
    """What changes a request's price beside its tokens."""

    batch: bool = False
    inference_geo: str | None = None
    fast: bool = False
    regional: bool = False  # through a cloud's endpoint that keeps requests in a region


def ceil_tokens(tokens: Decimal) -> int:
    """A count of tokens rounded up to a whole one.

    Nine places first: a count that was divided by a tokenizer's factor and multiplied again comes back as itself.
    """
    return int(EXACT.quantize(tokens, _NINTH).to_integral_value(rounding=ROUND_CEILING))


def amount(text: object) -> Decimal | None:
    """The number, 0 or more, that a text is (or an integer, or a Decimal); None where it is none."""
    try:
        value = Decimal(str(text))
    except ArithmeticError:
        return None
    return value if value.is_finite() and value >= 0 else None


def usd_to_nanousd(usd: Decimal) -> int:
    """Dollars to whole billionths, half to even."""
    return int(EXACT.multiply(usd, _NANO).to_integral_value(rounding=ROUND_HALF_EVEN))


def nanousd_to_usd(nanousd: int) -> Decimal:
    """Whole billionths to dollars, exactly."""
    return EXACT.divide(Decimal(nanousd), _NANO)


def format_usd(usd: Decimal | None, *, places: int | None = None) -> str:
    """Dollars for people: all digits that matter and at least two decimals; `unpriced` for None."""
    if usd is None:
        return "unpriced"
    places, least = (9, 2) if places is None else (places, places)
    rounded = EXACT.quantize(usd, Decimal(1).scaleb(-places))
    whole, _, decimals = f"{rounded.copy_abs():,f}".partition(".")
    decimals = decimals[:least] + decimals[least:].rstrip("0")
    text = f"{whole}.{decimals}" if decimals else whole
    return f"-${text}" if rounded < 0 else f"${text}"
