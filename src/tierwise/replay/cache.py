"""The prompt cache, simulated: what of a conversation a model still holds, and what another one has to be told anew.

Theory of operation. A provider keeps the beginning of a prompt for five minutes or an hour after it was last read,
for one model. A conversation's prompt grows at its end, so each request reads what the one before read and wrote, and
writes what has come since. Three things make that untrue, and the usage that was told shows all of them:

    too long a pause   the part whose time is over is written again
    another history    after a compaction, or an edit of what came before, only the beginning that is still the same
                       is read: by the model that was really used, and by any other no more than that
    another model      has what it has seen of this conversation itself, within its time, and no more

`Real` follows the calls as they were made and says of each what it read, what it wrote, and for how long. `sent` says
what the same request would have been on a model that holds some other part of it. On the model that was really used,
holding what it really held, that is the real usage to the token: whatever the simulation does not understand is in it.

A prefix is measured in tokens of the model that holds it. Its part for an hour comes before its part for five minutes,
as the API demands.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from tierwise.core.calls import ImportedCall
from tierwise.core.catalog import Model
from tierwise.replay.pricing import Prompt, prompt_of

__all__ = [
    "TTL_1H_MS",
    "TTL_5M_MS",
    "Ask",
    "Held",
    "Real",
    "as_really_read",
    "cut",
    "ratio",
    "scaled",
    "sent",
]

TTL_5M_MS = 300_000
TTL_1H_MS = 3_600_000


class Held(NamedTuple):
    """What a model holds of a conversation: so many tokens of its beginning, last read or written at some time."""

    hour_tokens: int  # those that live for an hour; they come first
    tokens: int  # all
    at_ms: int

    def warm_at(self, now_ms: int) -> int:
        """How much of it is still there."""
        age = now_ms - self.at_ms
        if age < TTL_5M_MS:
            return self.tokens
        return self.hour_tokens if age < TTL_1H_MS else 0

    def cut(self, tokens: int) -> Held:
        """No more of it than so many tokens."""
        return Held(min(self.hour_tokens, tokens), min(self.tokens, tokens), self.at_ms)


class Ask:
    """What was asked in one call, in tokens of the model that was really used."""

    __slots__ = ("at_ms", "beginning", "cached", "hour", "intact", "output", "prompt", "sent", "warm")

    def __init__(
        self, *, at_ms: int, sent: Prompt, output: int, hour: int, warm: int, intact: int | None, beginning: int
    ) -> None:
        self.at_ms = at_ms
        self.sent = sent
        self.output = output
        self.cached = sent.read + sent.write_5m + sent.write_1h  # the beginning that is marked to be cached
        self.prompt = self.cached + sent.fresh
        self.hour = hour  # of `cached`: what is marked for an hour
        self.warm = warm  # what the model really held before it, as far as the simulation knows
        self.intact = intact  # of what anybody held, only so much is still the same; None: all
        self.beginning = beginning  # of the conversation: what other conversations had written already

    def held(self) -> Held:
        """What the model that was really used holds after it."""
        return Held(self.hour, self.cached, self.at_ms)


class Real:
    """One conversation as it was."""

    __slots__ = ("_beginning", "_for_an_hour", "_held", "_models")

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._models: dict[str, Model] = {}
        self._for_an_hour = False  # what was written last
        self._beginning = -1

    def next(self, call: ImportedCall, model: Model) -> Ask:
        """The next call that was made in it, and the model that answered."""
        usage, now, model_id = call.usage, call.at_ms, model.id
        read, write_5m, write_1h = usage.cache_read_tokens, usage.cache_write_5m_tokens, usage.cache_write_1h_tokens
        cached = read + write_5m + write_1h
        held = self._held.get(model_id)
        warm = 0 if held is None else held.warm_at(now)
        if write_5m or write_1h:
            self._for_an_hour = write_1h >= write_5m
        if self._beginning < 0:
            self._beginning = read
        if held is not None and 0 < read <= warm:
            of_an_hour = min(read, held.hour_tokens)
        else:  # somebody else wrote it, or part of it: taken to be marked as this conversation marks
            of_an_hour = read if self._for_an_hour else min(read, 0 if held is None else held.hour_tokens)
        another = call.compacts or (cached > 0 and (read < warm or (held is not None and cached < held.tokens)))
        intact = read if another else None
        ask = Ask(
            at_ms=now,
            sent=prompt_of(usage),
            output=usage.output_tokens,
            hour=of_an_hour + write_1h,
            warm=warm,
            intact=intact,
            beginning=self._beginning,
        )
        if cached:
            self._held[model_id] = ask.held()
            self._models[model_id] = model
        if intact is not None:
            cut(self._held, ask, model, self._models)
        return ask


def cut(holding: dict[str, Held], ask: Ask, real: Model, models: Mapping[str, Model]) -> None:
    """After a call that showed another history: whoever was not sent that holds no more than what is still the same."""
    for model_id, held in holding.items():
        if held.at_ms < ask.at_ms and ask.intact is not None:
            holding[model_id] = held.cut(scaled(ask.intact, ratio(models[model_id], real)))


def ratio(target: Model, real: Model) -> tuple[int, int]:
    """How many tokens `target` counts for each of `real`'s, as a fraction."""
    if target.tokenizer_factor == real.tokenizer_factor:
        return 1, 1
    return _fraction(target.tokenizer_factor, real.tokenizer_factor)


@lru_cache
def _fraction(counted: Decimal, by: Decimal) -> tuple[int, int]:
    found = Fraction(counted) / Fraction(by)
    return found.numerator, found.denominator


def scaled(tokens: int, by: tuple[int, int]) -> int:
    """Tokens as another tokenizer counts them, rounded up."""
    return tokens if by == (1, 1) else -(-tokens * by[0] // by[1])


def sent(
    ask: Ask,
    held: Held | None,
    *,
    same: bool,
    by: tuple[int, int] = (1, 1),
    least: int = 0,
    beginning: int = 0,
) -> tuple[Prompt, Held | None]:
    """What was asked, as a model is sent it that holds something else of the conversation; and what it holds then.

    Args:
        ask: what was asked, in tokens of the model that was really used.
        held: what the model holds of it; None: nothing.
        same: it is the model that was really used.
        by: its tokens for each of the real model's, as a fraction.
        least: the shortest prompt that its cache takes.
        beginning: of the conversation's beginning, so much is warm anyway: others had it written (in its tokens).
    """
    now = ask.at_ms
    warm = 0 if held is None else held.warm_at(now)
    if same and warm == ask.warm:
        return ask.sent, (ask.held() if ask.cached else held)
    cached, prompt = scaled(ask.cached, by), scaled(ask.prompt, by)
    if not cached or (cached < least and not same):
        return Prompt(prompt, 0, 0, 0), held
    read = warm if warm > beginning else beginning
    if ask.intact is not None:
        read = min(read, scaled(ask.intact, by))
    if same:
        real = ask.sent.read
        read = min(read, real) if warm < ask.warm else max(read, real)
    read = min(read, cached)
    hour = min(scaled(ask.hour, by), cached)
    return _reading(prompt, cached, hour, read), Held(hour, cached, now)


def as_really_read(ask: Ask, found: Prompt, by: tuple[int, int]) -> Prompt:
    """The same request, if it could read as much as was really read."""
    cached = found.read + found.write_5m + found.write_1h
    read = min(scaled(ask.sent.read, by), cached)
    if read == found.read:
        return found
    return _reading(cached + found.fresh, cached, min(scaled(ask.hour, by), cached), read)


def _reading(prompt: int, cached: int, hour: int, read: int) -> Prompt:
    """A prompt whose beginning is cached, and part of that read; the part for an hour comes first."""
    return Prompt(prompt - cached, read, cached - max(read, hour), max(0, hour - read))
