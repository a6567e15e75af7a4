"""The climb: a pure generator that says what to try next.

Theory of operation. `climb()` yields an `Attempt` (which rung, after what wait, with what feedback) and is sent the
`Outcome`. It returns a `Climbed` when it is over. It has no clock (outcomes say how much time has gone), no
randomness of its own (jitter comes from the `random` argument) and sends nothing: live calls, replay and simulation
drive the same generator, so they cannot disagree about routing.

    accepted                                   → done
    rejected                                   → the same rung, told what was wrong, `rung.retries` times; then up
    truncated                                  → the same rung with twice the room, `rung.retries` times; then up
    refused                                    → up: the same model would refuse again
    rate limited, overloaded, 5xx, timeout, …  → the same rung after a wait, `transient_retries` times; then up. Up at
                                                 once where the server wants too long a wait
    unavailable, too large                     → up at once
    unauthorized, invalid request, cancelled   → over

Going on is allowed only while the cost ceiling covers what was spent plus the next attempt's estimate, and while
the deadline leaves time for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tierwise.core.decisions import Attempt, Decision, Outcome, OutcomeKind, Rung
from tierwise.core.money import format_usd
from tierwise.core.settings import LimitSettings

__all__ = ["Climbed", "Ending", "climb", "default_max_output_tokens"]


class Ending(StrEnum):
    """How a climb ended."""

    ACCEPTED = "accepted"
    EXHAUSTED = "exhausted"  # every rung was tried
    REFUSED_REQUEST = "refused_request"  # 400, 401, 403
    DEADLINE = "deadline"
    COST_CEILING = "cost_ceiling"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Climbed:
    """The end of a climb: how, on which rung, and why in plain words."""

    ending: Ending
    rung: Rung
    why: str


def default_max_output_tokens(rung: Rung) -> int:
    """A `max_tokens` that leaves room: it bounds a runaway reply, it is not what is paid.

    Models that think spend output tokens on it before the first word, so they get at least 16,000.
    """
    expected = rung.estimated_usage.output_tokens
    floor = 256 if rung.price.is_free else 1_024
    if rung.model.capabilities.thinking != "none":
        floor = 16_000
    return min(rung.model.max_output_tokens, max(floor, 4 * expected))


def climb(
    decision: Decision,
    limits: LimitSettings,
    *,
    random: Callable[[], float],
    fixed_max_output_tokens: int | None = None,
) -> Generator[Attempt, Outcome, Climbed]:
    """Walks the ladder of `decision`.

    Args:
        decision: what was decided; its cost ceiling and deadline bound the whole climb.
        limits: retries and waits.
        random: numbers in 0..1 for the jitter.
        fixed_max_output_tokens: the caller's own limit, which a truncated reply must not raise.

    Yields:
        The next attempt; send its outcome.

    Returns:
        How it ended.
    """
    spent = Decimal(0)
    number = 0
    elapsed = 0.0
    ladder = decision.ladder
    why = "first choice"
    for rung_index, rung in enumerate(ladder):
        state = _OnRung(limits, random, fixed_max_output_tokens or default_max_output_tokens(rung))
        wait = 0.0
        feedback: str | None = None
        while True:
            stop = _bounded(decision, rung, spent, elapsed + wait)
            if stop is not None:
                return Climbed(stop[0], rung, f"{stop[1]}; the last step was: {why}" if number else stop[1])
            number += 1
            state.tries += 1
            outcome = yield Attempt(
                rung=rung,
                rung_index=rung_index,
                number=number,
                number_on_rung=state.tries,
                wait_seconds=wait,
                feedback=feedback,
                max_output_tokens=state.max_output_tokens,
                why=why,
            )
            spent += rung.estimated_cost_usd if outcome.cost_usd is None else outcome.cost_usd
            elapsed = max(elapsed, outcome.elapsed_seconds)
            if outcome.kind is OutcomeKind.ACCEPTED:
                return Climbed(Ending.ACCEPTED, rung, why)
            if outcome.kind is OutcomeKind.CANCELLED:
                return Climbed(Ending.CANCELLED, rung, outcome.detail or "cancelled")
            if outcome.kind.is_fatal:
                return Climbed(Ending.REFUSED_REQUEST, rung, outcome.detail)
            why = _why(rung, outcome)
            step = state.after(outcome, rung, fixed=fixed_max_output_tokens is not None, last=rung is ladder[-1])
            if step is None:
                break
            wait, feedback = step
    return Climbed(Ending.EXHAUSTED, ladder[-1], why)


def _bounded(decision: Decision, rung: Rung, spent: Decimal, elapsed: float) -> tuple[Ending, str] | None:
    ceiling = decision.max_cost_usd
    if ceiling is not None and spent + rung.estimated_cost_usd > ceiling:
        return Ending.COST_CEILING, (
            f"{format_usd(spent)} is spent and {rung.model.id} is estimated at {format_usd(rung.estimated_cost_usd)}: "
            f"over the ceiling of {format_usd(ceiling)}"
        )
    deadline = decision.deadline_seconds
    if deadline is not None and elapsed >= deadline:
        return Ending.DEADLINE, f"{elapsed:.1f} s would be gone before {rung.model.id} is asked; {deadline:g} s allowed"
    return None


def _why(rung: Rung, outcome: Outcome) -> str:
    kind = outcome.kind.value.replace("_", " ")
    wait = outcome.retry_after_seconds
    asked = f", to be tried again in {wait:g} s" if wait is not None else ""
    return f"{rung.model.id} {kind}{f': {outcome.detail}' if outcome.detail else ''}{asked}"


class _OnRung:
    """What has happened on one rung, and whether it gets another try."""

    __slots__ = ("faults", "feedback", "limits", "max_output_tokens", "random", "rejections", "tries")

    def __init__(self, limits: LimitSettings, random: Callable[[], float], max_output_tokens: int) -> None:
        self.limits = limits
        self.random = random
        self.max_output_tokens = max_output_tokens
        self.tries = 0
        self.rejections = 0
        self.faults = 0
        self.feedback: str | None = None

    def after(self, outcome: Outcome, rung: Rung, *, fixed: bool, last: bool) -> tuple[float, str | None] | None:
        """The wait and the feedback for another try here, or None to go up."""
        kind = outcome.kind
        if kind.is_transient:
            self.faults += 1
            if self.faults > self.limits.transient_retries:
                return None
            wait = self._backoff(outcome.retry_after_seconds)
            # A wait longer than the cap helps nobody while a better model could answer now.
            if wait > self.limits.backoff_cap_seconds and not last:
                return None
            if (outcome.retry_after_seconds or 0.0) > self.limits.max_retry_after_seconds:
                return None  # nobody expects an answer in an hour: the error says how long the server wants
            return wait, self.feedback  # a fault in between does not unsay what was wrong
        if kind is OutcomeKind.TRUNCATED:
            self.rejections += 1
            self.feedback = None
            raised = min(rung.model.max_output_tokens, self.max_output_tokens * 2)
            if fixed or raised == self.max_output_tokens or self.rejections > rung.retries:
                return None
            self.max_output_tokens = raised
            return 0.0, None
        if kind is OutcomeKind.REJECTED:
            self.rejections += 1
            if self.rejections > rung.retries:
                return None
            self.feedback = outcome.feedback or outcome.detail or "it was not acceptable"
            return 0.0, self.feedback
        return None  # refused, unavailable, too large, not run: the next rung

    def _backoff(self, retry_after_seconds: float | None) -> float:
        """Full jitter over an exponentially growing window; never earlier than the server asked."""
        limits = self.limits
        window = min(limits.backoff_cap_seconds, limits.backoff_base_seconds * 2 ** (self.faults - 1))
        jitter: float = window * self.random()
        return jitter if retry_after_seconds is None else retry_after_seconds + jitter / 4
