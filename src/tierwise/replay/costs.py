"""What one call costs on a model that holds some part of its conversation: by scenario, and what it holds then."""

from __future__ import annotations

from tierwise.core.catalog import Model
from tierwise.replay.asked import Asked
from tierwise.replay.assumptions import Assumptions, Range
from tierwise.replay.cache import Held, as_really_read, ratio, scaled, sent
from tierwise.replay.pricing import Prompt, Rates
from tierwise.replay.values import Assumption

__all__ = ["Cost", "cost_of"]

_ONE = Range(1.0, 1.0, 1.0)


class Cost:
    """What one attempt costs, by scenario (low, expected, high), and what the model holds after it."""

    __slots__ = ("_again", "_asked", "_by", "_outputs", "_rates", "_sent", "_spread", "held", "nanousd")

    def __init__(
        self,
        asked: Asked,
        rates: Rates,
        *,
        by: tuple[int, int],
        prompts: tuple[Prompt, Prompt, Prompt],
        outputs: tuple[int, int, int],
        spread: Range,
        held: Held | None,
    ) -> None:
        self._asked = asked
        self._rates = rates
        self._by = by
        self._sent = prompts[1]
        self._outputs = outputs
        self._spread = spread
        self._again: tuple[int, int, int] | None = None
        self.held = held
        low, expected, high = prompts
        searches = asked.call.usage.web_searches
        if expected is asked.ask.sent and rates is asked.rates:  # as it was
            nanousd = asked.now_nanousd
            self.nanousd = (nanousd, nanousd, nanousd)
            return
        plain = rates.nanousd_by_output(expected, outputs, searches)
        if low is not expected or high is not expected:
            least, most = rates.nanousd(low, outputs[0], searches), rates.nanousd(high, outputs[2], searches)
            plain = (least, plain[1], most)
        self.nanousd = plain if spread is _ONE else _spread(plain, spread)

    @property
    def again(self) -> tuple[int, int, int]:
        """What it costs to ask the same once more, at once: all that was cached is warm."""
        if self._again is None:
            fresh, *cached = self._sent
            searches = self._asked.call.usage.web_searches
            plain = self._rates.nanousd_by_output(Prompt(fresh, sum(cached)), self._outputs, searches)
            self._again = plain if self._spread is _ONE else _spread(plain, self._spread)
        return self._again

    def contributions(self) -> list[tuple[Assumption, int]]:
        """What the cache, the tokenizer and the length of the answer add to what is expected."""
        asked, found, by = self._asked, self._sent, self._by
        if found is asked.ask.sent:
            return []
        told = []
        expected, searches = self.nanousd[1], asked.call.usage.web_searches
        warm = as_really_read(asked.ask, found, by)
        if warm is not found:
            told.append((Assumption.CACHE, expected - self._rates.nanousd(warm, self._outputs[1], searches)))
        plain = scaled(asked.ask.output, by)
        if self._outputs[1] != plain:
            told.append((Assumption.OUTPUT_LENGTH, expected - self._rates.nanousd(found, plain, searches)))
        if by != (1, 1):
            told.append((Assumption.TOKENIZER, expected - expected * by[1] // by[0]))
        return told


def cost_of(
    asked: Asked,
    model: Model,
    rates: Rates,
    held: Held | None,
    assumed: Assumptions,
    *,
    beginning: bool,
) -> Cost:
    """What a call costs on a model that holds so much of its conversation.

    `beginning`: what the conversation shares with others at its beginning is warm there, as far as that is expected.
    """
    ask = asked.ask
    same = model.id == asked.model.id
    by = (1, 1) if same else ratio(model, asked.model)
    least = assumed.least_cached_on(model.id)
    expected, kept = sent(ask, held, same=same, by=by, least=least)
    low = high = expected
    if held is None and ask.beginning and expected is not ask.sent:
        low, kept = sent(ask, None, same=same, by=by, least=least, beginning=scaled(ask.beginning, by))
        expected = low if beginning else expected
    if same:
        outputs = (ask.output, ask.output, ask.output)
        spread = _ONE
    else:
        output, length = scaled(ask.output, by), assumed.output_length
        outputs = (round(output * length.low), round(output * length.expected), round(output * length.high))
        spread = _ONE if by == (1, 1) else assumed.tokenizer_spread
    return Cost(asked, rates, by=by, prompts=(low, expected, high), outputs=outputs, spread=spread, held=kept)


def _spread(nanousd: tuple[int, int, int], by: Range) -> tuple[int, int, int]:
    low, expected, high = nanousd
    return (
        round(low * by.low),
        expected if by.expected == 1 else round(expected * by.expected),
        round(high * by.high),
    )
