"""Whether a conversation should move to another model: what it can take, and what the move costs.

Theory of operation. A provider keeps the beginning of a conversation warm: what was sent before is read back at a
small part of its price. Another model has nothing of it. So a move is paid for at once (the whole prompt is written
again, at the target's rates) and won back turn by turn. `weigh` adds up both ways for the rest of the conversation:

    this turn        reads what is warm on that model, writes the rest of the prompt
    each later turn  reads the prompt of the turn before, writes what has come since: the reply and `new_tokens`

Both are counted in the tokens of the model they are sent to, at the price band that the whole prompt of each request
falls in. A prompt below the least that a cache takes is fresh input, every turn. Later turns are taken to come while
the cache still lives. They are counted up to where the smaller of the two contexts is full: there the client compacts,
and everything is cold everywhere.

The sums are exact, and in closed form: between two points at which something changes (the band, or whether the prompt
is cached) the turns are an arithmetic progression. A hundred turns cost no more to weigh than ten.

Not every turn to come is as simple as the one at hand. Each is taken to need more than the target gives with the same
chance p, and brings the conversation back then. Of N turns, the target then has p's share

    n = (1 − p) (1 − (1 − p)^N) / p      of the N, and the conversation goes back with the chance 1 − (1 − p)^N

Only those n turns are compared: after them both ways are on the model that it is on now. The way back is paid for: what
is warm there now is then written anew. (Taken to be cold, though it may still be warm if that is soon; and turns that
need more than the present model has, too, are counted as ways back: both speak for staying.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import NamedTuple

from tierwise.core.catalog import Model, Thinking
from tierwise.core.decisions import Reason
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import EXACT, Price, Usage, ceil_tokens, format_usd

__all__ = ["LEAST_CACHED_TOKENS", "History", "Move", "Scales", "Sums", "Turn", "Warmth", "can_take", "weigh"]

# The least that a cache takes on the 5.5 models (Anthropic, prompt caching, read 2026-11-22). Older models want more:
# for those, short prompts are weighed as if they were cached, which they are not.
LEAST_CACHED_TOKENS = 512
# Room for an answer. A client's max_tokens (Claude Code sends 128,000) is a ceiling and not what it needs.
_ROOM_TOKENS = 8_192
_HOUR_SECONDS = 3_600
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Warmth:
    """What a model's provider still holds of a conversation: its first `read_tokens`, as that model counts them."""

    model_id: str
    read_tokens: int
    ttl_seconds: int  # 300 or 3600; each read begins it anew
    expires_at: float  # in seconds, on the clock that `now` is of

    def tokens_at(self, now: float) -> int:
        """How much of it is still warm."""
        return self.read_tokens if now < self.expires_at else 0


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn at hand and those that follow it, in tokens of the model that the conversation is on."""

    prompt_tokens: int  # the whole prompt of the request at hand
    output_tokens: int  # an expected reply
    new_tokens: int  # what the client adds to each later turn, beside that reply
    cache_ttl_seconds: int | None = 300  # what the client's cache marks ask for; None: it marks nothing

    def __post_init__(self) -> None:
        if self.prompt_tokens < 0 or self.output_tokens < 0 or self.new_tokens < 0:
            raise ValueError(f"a turn's tokens must be 0 or more: {self}")


@dataclass(frozen=True, slots=True)
class History:
    """What a conversation's next request carries, as far as it decides who can take it."""

    has_tools: bool  # tools offered, or calls of them and their results in the messages
    has_images: bool
    has_thinking: bool  # blocks that another model cannot read
    prompt_tokens: int
    max_tokens: int | None = None  # the client's own ceiling
    tokenizer_factor: Decimal = Decimal(1)  # of the model that counted `prompt_tokens`
    in_tool_loop: bool = False  # the last turn answers a tool call


@dataclass(frozen=True, slots=True)
class Move:
    """What staying and moving are expected to cost for the rest of the conversation, in US$, and what to do."""

    moves: bool
    stay_usd: Decimal
    move_usd: Decimal
    stay_now_usd: Decimal  # of which for the turn at hand
    move_now_usd: Decimal
    lost_cache_usd: Decimal  # part of `move_now_usd`: what it costs to build again what is warm on the current model
    return_usd: Decimal  # part of `move_usd`: what going back is expected to cost
    turns_to_pay_back: int | None  # about how many later turns a move that is dearer now needs; None: never, or at once
    reasons: tuple[Reason, ...]


def can_take(history: History, model: Model) -> str | None:
    """Why a model cannot go on with a conversation; None where it can.

    Thinking blocks are in general no hindrance: those that the model cannot read are stripped (`tierwise.wire.adapt`).
    """
    capabilities = model.capabilities
    if history.has_tools and not capabilities.tools:
        return "it takes no tools"
    if history.has_images and not capabilities.images:
        return "it takes no images"
    if history.has_thinking and history.in_tool_loop and capabilities.thinking is Thinking.EXTENDED:
        return "it would need its own thinking before the tool call that was just answered"
    prompt = _in_tokens_of(model.tokenizer_factor, history.tokenizer_factor, history.prompt_tokens)
    wished = _ROOM_TOKENS if history.max_tokens is None else history.max_tokens
    room = min(wished, model.max_output_tokens, _ROOM_TOKENS)
    if prompt + room > model.context_tokens:
        return (
            f"about {prompt:,} tokens and room for a reply of {room:,} do not fit its context of "
            f"{model.context_tokens:,}"
        )
    return None


def weigh(
    current: Model,
    target: Model,
    *,
    prices: Mapping[str, Price],
    warm: Mapping[str, Warmth],
    turn: Turn,
    turns_to_come: float,
    now: float,
    margin: float | Decimal = 0.0,
    needs_more: float = 0.0,
) -> Move:
    """Whether the rest of a conversation is cheaper on `target`, and by how much.

    Args:
        current: the model it is on; `turn` is in its tokens.
        target: where it might go; that it can is for `can_take` to say.
        prices: today's price by model id.
        warm: what is warm, by model id. The target may have some of it, where the conversation was there before.
        turn: the request at hand and how the conversation goes on.
        turns_to_come: how many turns are expected after this one; fractions count.
        now: in seconds, on the clock of `Warmth.expires_at`.
        margin: by what part of what staying costs a move must be cheaper.
        needs_more: how likely each later turn is to need more than `target` gives, and to bring the conversation back.

    Raises:
        UnpricedModel: no price is known for one of the two.
        ValueError: `turns_to_come`, `margin` or `needs_more` is no such number.
    """
    scales = Scales(current, target, prices=prices, warm=warm, turn=turn, now=now, margin=margin, needs_more=needs_more)
    stay, move, stay_now, move_now = scales.stay, scales.move, scales.stay_now_usd, scales.move_now_usd
    if target.id == current.id:
        return _same(stay, _turns(turns_to_come))
    moves, stay_usd, move_usd, turns, within, goes_back, cold, return_usd, least_gain = scales.sums(turns_to_come)
    kept = _in_tokens_of(target.tokenizer_factor, current.tokenizer_factor, stay.warm)
    lost = max(EXACT.subtract(move_now, replace(move, warm=max(move.warm, kept)).now_usd()), _ZERO)
    extra = EXACT.subtract(move_now, stay_now)
    reasons = [_verdict(moves, _compared(stay, move, turns, stay_usd, move_usd), move_usd < stay_usd, least_gain)]
    if lost:
        reasons.append(_lost_cache(stay, move, warm[current.id].expires_at - now, lost))
    elif current.id in warm and not stay.warm:
        reasons.append(Reason("cache_expired", f"nothing of it is warm on {current.id} any more"))
    pays_back = None
    if extra > 0:
        gain = EXACT.subtract(stay.later_usd(1), move.later_usd(1))
        if gain > 0:
            pays_back = max(1, int(EXACT.divide(extra, gain).to_integral_value(rounding=ROUND_HALF_UP)))
        reasons.append(_pay_back(extra, gain, pays_back))
    if return_usd:
        reasons.append(_may_go_back(stay, needs_more, goes_back, within, cold))
    if move.first_band:
        reasons.append(_band(move))
    return Move(moves, stay_usd, move_usd, stay_now, move_now, lost, return_usd, pays_back, tuple(reasons))


class Sums(NamedTuple):
    """What staying and moving are expected to cost, and what follows from that."""

    moves: bool
    stay_usd: Decimal
    move_usd: Decimal
    turns: float  # that are compared, after the one at hand
    within: float  # so many that either model has room for
    goes_back: Decimal  # how likely it is to go back within them
    cold_usd: Decimal  # what going back costs if it happens
    return_usd: Decimal
    least_gain_usd: Decimal


class Scales:
    """The two ways that `weigh` compares, for any number of turns to come; without its words. For its arguments."""

    __slots__ = ("_margin", "_needs_more", "move", "move_now_usd", "stay", "stay_now_usd")

    def __init__(
        self,
        current: Model,
        target: Model,
        *,
        prices: Mapping[str, Price],
        warm: Mapping[str, Warmth],
        turn: Turn,
        now: float,
        margin: float | Decimal = 0.0,
        needs_more: float = 0.0,
    ) -> None:
        if not 0 <= margin < 1:
            raise ValueError(f"margin must be a part of the cost from 0 to below 1, not {margin!r}")
        if not 0 <= needs_more <= 1:
            raise ValueError(f"needs_more must be a chance from 0 to 1, not {needs_more!r}")
        self.stay = _course(current, current, prices=prices, warm=warm, turn=turn, now=now)
        self.move = _course(target, current, prices=prices, warm=warm, turn=turn, now=now)
        self.stay_now_usd, self.move_now_usd = self.stay.now_usd(), self.move.now_usd()
        self._margin = margin if isinstance(margin, Decimal) else Decimal(str(margin))
        self._needs_more = needs_more

    def sums(self, turns_to_come: float) -> Sums:
        """Both ways, if so many turns come after the one at hand."""
        stay, move = self.stay, self.move
        within = min(_turns(turns_to_come), stay.most_turns, move.most_turns)
        turns, goes_back = _until_more_is_needed(within, self._needs_more)
        cold = stay.cold_usd(int(turns) + 1) if goes_back else _ZERO
        return_usd = EXACT.multiply(cold, goes_back)
        stay_usd = EXACT.add(self.stay_now_usd, stay.later_usd(turns))
        move_usd = EXACT.add(EXACT.add(self.move_now_usd, move.later_usd(turns)), return_usd)
        least_gain = EXACT.multiply(stay_usd, self._margin)
        moves = EXACT.subtract(stay_usd, move_usd) > least_gain
        return Sums(moves, stay_usd, move_usd, turns, within, goes_back, cold, return_usd, least_gain)


def _turns(to_come: float) -> float:
    if not (math.isfinite(to_come) and to_come >= 0):
        raise ValueError(f"turns_to_come must be a number ≥ 0, not {to_come!r}")
    return to_come


def _until_more_is_needed(turns: float, needs_more: float) -> tuple[float, Decimal]:
    """How many of so many turns are expected to come before one that needs more, and how likely there is such a one.

    The chance is in thousandths: what it is multiplied with stays exact.
    """
    none = (1 - needs_more) ** turns
    if needs_more > 0:
        turns = min(turns, (1 - needs_more) * (1 - none) / needs_more)
    return turns, Decimal(round((1 - none) * 1000)).scaleb(-3)


# ------------------------------------------------------------------ what the rest of a conversation costs


@dataclass(frozen=True, slots=True)
class _Course:
    """How a conversation goes on with one model, in its tokens."""

    model: Model
    price: Price
    prompt: int  # of the turn at hand
    output: int
    growth: int  # from one prompt to the next
    warm: int  # of the prompt at hand
    ttl_seconds: int | None

    @property
    def most_turns(self) -> float:
        """How many turns fit the context after the one at hand."""
        if self.growth == 0:
            return math.inf
        return max(0, (self.model.context_tokens - self.prompt - self.output) // self.growth)

    @property
    def first_band(self) -> int:
        """Above how many tokens of prompt the band begins that the turn at hand falls in."""
        return self.price.band_for(self.prompt).above_prompt_tokens

    def now_usd(self) -> Decimal:
        """What the turn at hand costs."""
        if _is_cached(self.prompt, self.ttl_seconds):
            return self._usd(self.prompt, self._usage(1, read=self.warm, written=self.prompt - self.warm))
        return self._usd(self.prompt, self._usage(1, fresh=self.prompt))

    def later_usd(self, turns: float) -> Decimal:
        """What so many later turns cost, the last of them in part where `turns` has a fraction (in hundredths)."""
        whole, hundredths = divmod(round(turns * 100), 100)
        total = self._span_usd(1, whole + 1)
        if hundredths:
            part = EXACT.multiply(self._span_usd(whole + 1, whole + 2), Decimal(hundredths).scaleb(-2))
            total = EXACT.add(total, part)
        return total

    def cold_usd(self, turn: int) -> Decimal:
        """How much dearer the later turn of that number is where nothing of the conversation is warm any more."""
        prompt = self.prompt + turn * self.growth
        before = prompt - self.growth
        if not _is_cached(before, self.ttl_seconds):  # then nothing would have been warm
            return _ZERO
        anew = self._usd(prompt, self._usage(1, written=prompt))
        warm = self._usd(prompt, self._usage(1, read=before, written=self.growth))
        return max(EXACT.subtract(anew, warm), _ZERO)

    def _span_usd(self, first: int, end: int) -> Decimal:
        """What the later turns from number `first` up to before `end` cost."""
        cuts = sorted({first, end, *(cut for cut in self._changes() if first < cut < end)})
        total = _ZERO
        for start, stop in pairwise(cuts):
            total = EXACT.add(total, self._alike_usd(start, stop))
        return total

    def _changes(self) -> list[int]:
        """The numbers of the turns from which on something is different: the band, being written, being read."""
        if self.growth == 0:
            return []
        cuts = [self._first_above(band.above_prompt_tokens) for band in self.price.bands[1:]]
        if self.prompt < LEAST_CACHED_TOKENS:
            written = self._first_above(LEAST_CACHED_TOKENS - 1)
            cuts += (written, written + 1)
        return cuts

    def _first_above(self, tokens: int) -> int:
        return (tokens - self.prompt) // self.growth + 1

    def _alike_usd(self, start: int, stop: int) -> Decimal:
        """The turns from `start` up to before `stop`, between which nothing changes: an arithmetic progression."""
        turns = stop - start
        prompt = self.prompt + start * self.growth  # of the first of them
        prompts = turns * prompt + self.growth * (turns * (turns - 1) // 2)
        if not _is_cached(prompt, self.ttl_seconds):
            usage = self._usage(turns, fresh=prompts)
        elif not _is_cached(prompt - self.growth, self.ttl_seconds):
            usage = self._usage(turns, written=prompts)
        else:
            usage = self._usage(turns, read=prompts - turns * self.growth, written=turns * self.growth)
        return self._usd(prompt, usage)

    def _usage(self, turns: int, *, fresh: int = 0, read: int = 0, written: int = 0) -> Usage:
        for_an_hour = self.ttl_seconds is not None and self.ttl_seconds >= _HOUR_SECONDS
        return Usage(
            input_tokens=fresh,
            output_tokens=turns * self.output,
            cache_read_tokens=read,
            cache_write_5m_tokens=0 if for_an_hour else written,
            cache_write_1h_tokens=written if for_an_hour else 0,
            estimated=True,
        )

    def _usd(self, prompt: int, usage: Usage) -> Decimal:
        """The sum of requests that all fall in the band of `prompt`."""
        price = self.price
        if len(price.bands) > 1:
            price = replace(price, bands=(price.band_for(prompt),))
        return price.cost_usd(usage, seconds=self._seconds(usage) if price.usd_per_hour else _ZERO)

    def _seconds(self, usage: Usage) -> Decimal:
        model = self.model
        read = usage.prompt_tokens - usage.cache_read_tokens  # what is warm is not read again
        return Decimal(
            str(
                round(
                    read / max(model.prompt_tokens_per_second, 1e-9)
                    + usage.output_tokens / max(model.output_tokens_per_second, 1e-9),
                    3,
                )
            )
        )


def _course(
    model: Model,
    counted_by: Model,
    *,
    prices: Mapping[str, Price],
    warm: Mapping[str, Warmth],
    turn: Turn,
    now: float,
) -> _Course:
    price = prices.get(model.id)
    if price is None:
        raise UnpricedModel(f"no price is known for {model.id!r}; add one under [[prices]] in tierwise.toml")
    own, theirs, ttl_seconds = model.tokenizer_factor, counted_by.tokenizer_factor, turn.cache_ttl_seconds
    prompt = _in_tokens_of(own, theirs, turn.prompt_tokens)
    held = warm.get(model.id)
    return _Course(
        model=model,
        price=price,
        prompt=prompt,
        output=_in_tokens_of(own, theirs, turn.output_tokens),
        growth=_in_tokens_of(own, theirs, turn.output_tokens + turn.new_tokens),
        warm=min(held.tokens_at(now), prompt) if held is not None and _is_cached(prompt, ttl_seconds) else 0,
        ttl_seconds=ttl_seconds,
    )


def _is_cached(prompt: int, ttl_seconds: int | None) -> bool:
    return ttl_seconds is not None and prompt >= LEAST_CACHED_TOKENS


def _in_tokens_of(factor: Decimal, counted_by: Decimal, tokens: int) -> int:
    """Tokens that one tokenizer counted, as another counts the same text."""
    if factor == counted_by:
        return tokens
    return ceil_tokens(EXACT.divide(EXACT.multiply(factor, tokens), counted_by))


def _same(course: _Course, turns_to_come: float) -> Move:
    now = course.now_usd()
    rest = EXACT.add(now, course.later_usd(min(turns_to_come, course.most_turns)))
    reason = Reason("conversation_stays", f"it is on {course.model.id} already")
    return Move(False, rest, rest, now, now, _ZERO, _ZERO, None, (reason,))


# ------------------------------------------------------------------ in words


def _usd(usd: Decimal) -> str:
    return format_usd(usd, places=4)


def _compared(stay: _Course, move: _Course, turns: float, stay_usd: Decimal, move_usd: Decimal) -> str:
    rest = "this turn" if turns == 0 else f"this turn and about {turns:.3g} more"
    return f"{rest}: {_usd(stay_usd)} on {stay.model.id}, {_usd(move_usd)} on {move.model.id}"


def _verdict(moves: bool, compared: str, cheaper: bool, least_gain: Decimal) -> Reason:
    if moves:
        return Reason("conversation_moves", compared)
    if cheaper:
        compared += f"; a move must save more than {_usd(least_gain)}"
    return Reason("conversation_stays", compared)


def _lost_cache(stay: _Course, move: _Course, left_seconds: float, lost: Decimal) -> Reason:
    left = f"{left_seconds / 60:.0f} min" if left_seconds >= 60 else f"{left_seconds:.0f} s"
    return Reason(
        "cache_lost",
        f"{stay.warm:,} tokens are warm on {stay.model.id} for another {left}; to send them to {move.model.id} cold "
        f"costs {_usd(lost)} more than warm",
    )


def _pay_back(extra: Decimal, gain: Decimal, turns: int | None) -> Reason:
    if turns is None:
        return Reason("pays_back", f"a move costs {_usd(extra)} more now, and the next turn is no cheaper")
    return Reason(
        "pays_back",
        f"a move costs {_usd(extra)} more now and {_usd(gain)} less on the next turn: about {turns} more turns to "
        "pay back",
    )


def _may_go_back(stay: _Course, needs_more: float, goes_back: Decimal, turns: float, cold: Decimal) -> Reason:
    return Reason(
        "may_go_back",
        f"each later turn is taken to need more one time in {1 / needs_more:.3g}: {goes_back:.0%} that it goes back to "
        f"{stay.model.id} within {turns:.3g} turns, where it costs {_usd(cold)} to write anew what is warm now",
    )


def _band(move: _Course) -> Reason:
    return Reason(
        "price_band",
        f"a prompt of {move.prompt:,} tokens is in the price band of {move.model.id} above {move.first_band:,}",
    )
