"""What a provider lets through in a minute: token buckets by family of models, learned from its headers. Pure.

Theory of operation. Anthropic limits requests, input tokens and output tokens a minute, each pooled over a family of
models (all Opus together) and replenished continuously. So there are three buckets for each family and pool of keys: a
bucket holds at most a minute's worth, refills at a sixtieth of that a second, and what is sent is taken out.

What fills the gaps between our arithmetic and the server's:

- A request is taken at its estimate before it leaves, and settled when its usage is known. Cache reads cost nothing.
- Every reply's headers say what the server has left. That lowers a bucket and never raises it: it may have been
  counted before others of our requests arrived, and comes rounded to thousands. What is lost by that refills.
- A limit that changes moves the level by as much as it moved: what was used stays used.
- `reset` matters only where it says that refilling takes much longer than a minute. It is measured against the
  server's own `date`: a wrong clock here cannot be noticed, so it is not asked.
- A 429 closes the family for as long as it says. One that says nothing of the buckets has shown our levels to be
  wrong: they are emptied, and what comes after starts slowly. 529 and other trouble of the server are no limits.

An output larger than a whole bucket waits for a full one and no longer: it is limited while it is generated. An input
larger than a whole bucket would always be refused.

Times are seconds of any clock that does not jump. Not for several threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from tierwise.core.headers import http_date, retry_after_seconds
from tierwise.core.settings import RateLimit

__all__ = ["NOTHING", "Family", "Headroom", "Limits", "Load", "Measure", "Taken", "family_of"]

_SEPARATORS = str.maketrans("-_./:@", "      ")
_CLAUDE_FAMILIES = frozenset({"opus", "sonnet", "haiku", "fable"})
_MINUTE_SECONDS = 60.0
_LONGEST_SECONDS = 3600.0  # what asks for more than an hour is not believed
_SLACK_TOKENS = 1e-6  # what floating point may lose on the way
_MOST_DIGITS = 15
_MOST_FAMILIES = 1000


@lru_cache(1024)
def family_of(model_id: str) -> str:
    """The family whose limits a model shares: `opus` for every Claude Opus, wherever it is hosted; else its id."""
    words = model_id.lower().translate(_SEPARATORS).split()
    if "claude" in words:
        for word in words:
            if word in _CLAUDE_FAMILIES:
                return word
    return model_id


class Family(NamedTuple):  # not a dataclass: it is hashed several times a request, and a tuple does that in C
    """Who shares one limit: a pool of keys (a provider's name, where it has one key) and a family of models."""

    pool: str
    name: str


class Load(NamedTuple):
    """What a request, or several together, take out of the buckets."""

    requests: int
    input_tokens: int
    output_tokens: int


NOTHING = Load(0, 0, 0)


class Taken(NamedTuple):
    """What was taken for a request, and when: handed back to `Limits.settle`."""

    family: Family
    requests: int
    input_tokens: int
    output_tokens: int
    at: float


class Measure(StrEnum):
    """What a limit counts. The value is its name in `anthropic-ratelimit-…` headers."""

    REQUESTS = "requests"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"


@dataclass(frozen=True, slots=True)
class Headroom:
    """What is left of a limit, for whoever shows it."""

    family: Family
    measure: Measure
    limit_per_minute: int
    left: int
    full_in_seconds: float
    closed_seconds: float  # > 0: the provider has refused, and asked to be left alone for so long


class _Bucket:
    """One limit of one family, as of its state's last refill. While no limit is known, all of it is infinite."""

    __slots__ = ("configured", "known_since", "level", "limit", "per_second", "told")

    def __init__(self, configured: int | None) -> None:
        self.configured = math.inf if configured is None else float(configured)
        self.told: int | None = None  # the limit by the last header
        self.limit = self.level = self.configured
        self.per_second = 0.0 if configured is None else configured / _MINUTE_SECONDS
        self.known_since = math.inf if configured is None else -math.inf

    def seconds_until(self, amount: int) -> float:
        short = amount - self.level
        return short / self.per_second if short > _SLACK_TOKENS else 0.0

    def most(self, amount: int) -> int:
        """The amount, or the whole bucket where that is less."""
        return math.floor(self.limit) if amount > self.limit else amount

    def take(self, amount: int) -> None:
        """Takes out, or with a negative amount puts back. Never more than a minute's debt: no server remembers more."""
        level = self.level - amount
        if level > self.limit:
            level = self.limit
        elif level < -self.limit:
            level = -self.limit
        self.level = level

    def learn(self, limit: int | None, left: int | None, now: float) -> None:
        """Takes the server's word for the limit and for what is left of it."""
        if limit is not None and limit != self.told:
            self.told = limit
            usable = min(float(limit), self.configured)
            if self.limit == math.inf:
                self.level = usable
                self.known_since = now
            else:
                self.level += usable - self.limit
            self.limit = usable
            self.per_second = usable / _MINUTE_SECONDS
        if left is not None and left < self.level < math.inf:
            self.level = float(left)

    def configure(self, configured: int | None, now: float) -> None:
        """Another limit of our own, or none any more; what was used stays used."""
        self.configured = math.inf if configured is None else float(configured)
        usable = self.configured if self.told is None else min(float(self.told), self.configured)
        if usable == self.limit:
            return
        if math.inf in (usable, self.limit):
            self.level = usable
            self.known_since = now if usable < math.inf else math.inf
        else:
            self.level += usable - self.limit
        self.limit = usable
        self.per_second = usable / _MINUTE_SECONDS if usable < math.inf else 0.0

    def learn_pace(self, limit: int, left: int, reset_seconds: float) -> None:
        """Takes the server's word for when it will be full: slower than within a minute, if it clearly says so."""
        expected = _MINUTE_SECONDS * (limit - left) / limit
        slow = reset_seconds > 2 * expected + 2  # it comes in whole seconds
        self.per_second = min(self.limit / _MINUTE_SECONDS, (limit - left) / reset_seconds if slow else math.inf)


class _State:
    """The buckets of one family, and whether it is closed."""

    __slots__ = ("at", "buckets", "closed_until", "inputs", "outputs", "refusals", "requests")

    def __init__(self, configured: RateLimit, now: float) -> None:
        self.requests = _Bucket(configured.requests_per_minute)
        self.inputs = _Bucket(configured.input_tokens_per_minute)
        self.outputs = _Bucket(configured.output_tokens_per_minute)
        self.buckets = (self.requests, self.inputs, self.outputs)  # in the order of `Measure`
        self.at = now
        self.closed_until = -math.inf
        self.refusals = 0  # in a row

    def refill(self, now: float) -> None:
        """What has flowed in since the last time. A clock that went back adds nothing, and takes nothing."""
        elapsed = now - self.at
        if elapsed > 0:
            self.at = now
            for bucket in self.buckets:
                level = bucket.level + elapsed * bucket.per_second
                bucket.level = level if level < bucket.limit else bucket.limit

    def take(self, input_tokens: int, output_tokens: int) -> None:
        self.requests.take(1)
        self.inputs.take(input_tokens)
        self.outputs.take(output_tokens)


class Limits:
    """The buckets of all families. `configured` maps a family's name to its limits, in every pool.

    A family of which nothing is known, configured or learned, is not limited.
    """

    def __init__(self, configured: Mapping[str, RateLimit] | None = None) -> None:
        self._configured = dict(configured or {})
        self._states: dict[Family, _State] = {}

    def configure(self, configured: Mapping[str, RateLimit], now: float) -> None:
        """Other limits of our own; what is learned stays."""
        self._configured = dict(configured)
        for family, state in self._states.items():
            state.refill(now)
            limit = self._configured.get(family.name) or RateLimit()
            state.requests.configure(limit.requests_per_minute, now)
            state.inputs.configure(limit.input_tokens_per_minute, now)
            state.outputs.configure(limit.output_tokens_per_minute, now)

    def wait(
        self, family: Family, input_tokens: int, output_tokens: int, now: float, *, ahead: Load = NOTHING
    ) -> float:
        """Seconds until such a request would be let through after those `ahead` of it: 0 now, `inf` never."""
        state = self._states.get(family) or self._configured_state(family, now)
        if state is None:
            return 0.0
        state.refill(now)
        if input_tokens > state.inputs.limit:
            return math.inf
        return max(
            0.0,
            state.closed_until - now,
            state.requests.seconds_until(ahead.requests + 1),
            state.inputs.seconds_until(ahead.input_tokens + input_tokens),
            state.outputs.seconds_until(ahead.output_tokens + state.outputs.most(output_tokens)),
        )

    def take(self, family: Family, input_tokens: int, output_tokens: int, now: float) -> Taken:
        """Takes a request out of its buckets, whether or not there is room."""
        state = self._states.get(family) or self._configured_state(family, now)
        if state is not None:
            state.refill(now)
            output_tokens = state.outputs.most(output_tokens)
            state.take(input_tokens, output_tokens)
        return Taken(family, 1, input_tokens, output_tokens, now)

    def take_if_room(self, family: Family, input_tokens: int, output_tokens: int, now: float) -> Taken | None:
        """Takes a request out of its buckets if it need not wait. The way of nearly every request: all in one step."""
        state = self._states.get(family) or self._configured_state(family, now)
        if state is not None:
            state.refill(now)
            if output_tokens > state.outputs.limit:
                output_tokens = state.outputs.most(output_tokens)
            if (
                now < state.closed_until
                or state.requests.level < 1 - _SLACK_TOKENS
                or state.inputs.level < input_tokens - _SLACK_TOKENS
                or state.outputs.level < output_tokens - _SLACK_TOKENS
            ):
                return None
            state.requests.level -= 1
            state.inputs.level -= input_tokens
            state.outputs.level -= output_tokens
        return Taken(family, 1, input_tokens, output_tokens, now)

    def settle(self, taken: Taken, used: Load, now: float) -> None:
        """Puts what a request really used in the place of what was taken for it; `NOTHING` if it was never sent.

        A bucket that became known after the request had left has the server's own count of it already.
        """
        state = self._states.get(taken.family)
        if state is not None:
            state.refill(now)
            at = taken.at
            if used.requests != taken.requests and state.requests.known_since <= at:
                state.requests.take(used.requests - taken.requests)
            if state.inputs.known_since <= at:
                state.inputs.take(used.input_tokens - taken.input_tokens)
            if state.outputs.known_since <= at:
                state.outputs.take(used.output_tokens - taken.output_tokens)

    def learn(self, family: Family, headers: Mapping[str, str], now: float, *, status: int = 200) -> None:
        """Takes a reply's headers (names in lower case) into account. What cannot be read is left out."""
        if status >= 500:
            return
        state = self._states.get(family) or self._configured_state(family, now)
        if state is None:
            if len(self._states) >= _MOST_FAMILIES or not (status == 429 or _LIMIT_NAMES & headers.keys()):
                return
            state = self._states[family] = _State(RateLimit(), now)
        state.refill(now)
        told = False
        for bucket, (limit_name, left_name, reset_name) in zip(state.buckets, _HEADERS, strict=True):
            limit, left = _count(headers.get(limit_name)), _count(headers.get(left_name))
            if limit is None and left is None:
                continue
            told = True
            bucket.learn(limit or None, left, now)
            # Far from the limit, `reset` is within a rounding of now and says nothing.
            if limit and left is not None and 2 * left < limit:
                reset_seconds = _seconds_until(headers.get(reset_name), headers.get("date"))
                if reset_seconds is not None:
                    bucket.learn_pace(limit, left, reset_seconds)
        if status == 429:
            self._refused(state, retry_after_seconds(headers), told, now)
        else:
            state.refusals = 0

    def headroom(self, now: float) -> tuple[Headroom, ...]:
        """What is left of every limit that is known."""
        found = []
        for family, state in self._states.items():
            state.refill(now)
            found += [
                Headroom(
                    family=family,
                    measure=measure,
                    limit_per_minute=round(bucket.limit),
                    left=max(0, math.floor(bucket.level + _SLACK_TOKENS)),
                    full_in_seconds=(bucket.limit - bucket.level) / bucket.per_second,
                    closed_seconds=max(0.0, state.closed_until - now),
                )
                for measure, bucket in zip(Measure, state.buckets, strict=True)
                if bucket.limit < math.inf
            ]
        return tuple(found)

    def load(self, family: Family, input_tokens: int, output_tokens: int) -> Load:
        """What such a request takes out of the buckets."""
        state = self._states.get(family)
        return Load(1, input_tokens, output_tokens if state is None else state.outputs.most(output_tokens))

    def share(self, family: Family, load: Load) -> float:
        """The largest part of a minute's limit that a load takes; 0 where nothing is limited."""
        state = self._states.get(family)
        if state is None:
            return 0.0
        return max(
            load.requests / state.requests.limit,
            load.input_tokens / state.inputs.limit,
            load.output_tokens / state.outputs.limit,
        )

    def used_share(self, family: Family, now: float) -> float:
        """How much of a minute's limit is used up, of that which is used up most: 0 where nothing is limited.

        More than 1 while the provider has asked to be left alone.
        """
        state = self._states.get(family)
        if state is None:
            return 0.0
        state.refill(now)
        used = max(1 - bucket.level / bucket.limit if bucket.limit < math.inf else 0.0 for bucket in state.buckets)
        return used + 1 if now < state.closed_until else used

    def _configured_state(self, family: Family, now: float) -> _State | None:
        configured = self._configured.get(family.name)
        if configured is None:
            return None
        state = self._states[family] = _State(configured, now)
        return state

    @staticmethod
    def _refused(state: _State, retry_after: float | None, told: bool, now: float) -> None:
        if retry_after is None:
            retry_after = min(_MINUTE_SECONDS, 2.0**state.refusals)
        state.refusals = min(state.refusals + 1, 10)
        state.closed_until = max(state.closed_until, now + min(retry_after, _LONGEST_SECONDS))
        if not told:
            for bucket in state.buckets:
                if bucket.limit < math.inf:
                    bucket.level = min(bucket.level, 0.0)


_HEADERS = tuple(
    tuple(f"anthropic-ratelimit-{measure}-{part}" for part in ("limit", "remaining", "reset")) for measure in Measure
)
_LIMIT_NAMES = frozenset(names[0] for names in _HEADERS)


def _count(text: str | None) -> int | None:
    """The whole number that a header says, if it says one."""
    if text is None or not text.isdecimal() or len(text) > _MOST_DIGITS:
        return None
    return int(text)


def _seconds_until(moment: str | None, date: str | None) -> float | None:
    """How long after the server's own `date` an RFC 3339 moment is, if both can be read and it is soon enough."""
    since = http_date(date) if date else None
    if moment is None or since is None:
        return None
    try:
        until = datetime.fromisoformat(moment)
    except ValueError:
        return None
    seconds = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - since) / timedelta(seconds=1)
    return seconds if 0 < seconds <= _LONGEST_SECONDS else None
