"""The calls of a session as they really were: what no policy changes, found once for all of them."""

from __future__ import annotations

from collections.abc import Iterable

from tierwise.core.calls import ImportedCall
from tierwise.core.catalog import Model
from tierwise.core.tasks import Classification
from tierwise.replay.cache import Ask, Real
from tierwise.replay.pricing import RateBook, Rates
from tierwise.replay.values import Why

__all__ = ["Asked", "LeftAlone", "asked"]


class Asked:
    """One call that another model might have answered, in its conversation."""

    __slots__ = (
        "ask",
        "call",
        "classification",
        "conversation",
        "free",
        "model",
        "now_nanousd",
        "rates",
        "real_nanousd",
    )

    def __init__(
        self,
        call: ImportedCall,
        model: Model,
        rates: Rates,
        *,
        conversation: str | None,
        ask: Ask,
        classification: Classification | None,
        real_nanousd: int,
        now_nanousd: int,
    ) -> None:
        self.call = call
        self.model = model  # that was really used
        self.rates = rates  # its own, for this call
        self.conversation = conversation  # None: one of its own
        self.ask = ask
        self.classification = classification  # its own, or the last of its conversation
        self.real_nanousd = real_nanousd  # what it really cost
        self.now_nanousd = now_nanousd  # at the prices of this world
        self.free: tuple[object, object] | None = None  # who decided for it last, and what: see `Deciding.free`


class LeftAlone:
    """A call that no policy touches."""

    __slots__ = ("call", "now_nanousd", "real_nanousd", "why")

    def __init__(self, call: ImportedCall, why: Why, real_nanousd: int | None, now_nanousd: int | None) -> None:
        self.call = call
        self.why = why
        self.real_nanousd = real_nanousd  # None: unpriced, here and in the other
        self.now_nanousd = now_nanousd


def asked(calls: Iterable[ImportedCall], rates: RateBook, real_rates: RateBook) -> list[Asked | LeftAlone]:
    """The calls of one session, in order.

    Args:
        calls: as they were made.
        rates: of the world that they are replayed in.
        real_rates: of the world as it was.
    """
    found: list[Asked | LeftAlone] = []
    conversations: dict[str, Real] = {}
    latest: dict[str, Classification] = {}
    for call in calls:
        model, price = rates.of(call)
        usage = call.usage
        used = usage.prompt_tokens or usage.output_tokens
        summed = call.band_prompt_tokens
        now = price.usage_nanousd(usage, summed) if price is not None and used else rates.nanousd(call)
        real = now if rates is real_rates else real_rates.nanousd(call)
        if real is None or now is None:
            found.append(LeftAlone(call, Why.UNPRICED, None, None))
            continue
        if not used or model is None or price is None:
            if not used:
                why = Why.UNPRICED if now else Why.NOTHING_USED
            else:
                why = Why.UNKNOWN_MODEL if model is None else Why.UNPRICED
            found.append(LeftAlone(call, why, real, now))
            continue
        if call.is_sum:
            found.append(LeftAlone(call, Why.SUMMED, real, now))
            continue
        key = (call.agent or "") if call.kind.converses else None
        classification = call.classification
        if key is None:
            course = Real()
        else:
            course = conversations.setdefault(key, Real())
            if classification is None:
                classification = latest.get(key)
            else:
                latest[key] = classification
        found.append(
            Asked(
                call,
                model,
                price,
                conversation=key,
                ask=course.next(call, model),
                classification=classification,
                real_nanousd=real,
                now_nanousd=now,
            )
        )
    return found
