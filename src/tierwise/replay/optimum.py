"""What the cheapest plan would have cost, had one known everything: the bound that no policy can be blamed for missing.

A plan gives each piece of work (a call that begins one, and the tool loop that follows) a model that is allowed for it,
or leaves it on whatever was really used. Nothing is rejected, and every move finds the model that it goes to cold. Over
all plans of a conversation that is a shortest path: the cost of a piece depends on nothing but its model and whether
the piece before was on the same. A further model only adds plans, so it never makes the cheapest one dearer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tierwise.core.calls import ImportedCall, ImportedSession
from tierwise.core.catalog import Model
from tierwise.policy.switching import History, can_take
from tierwise.replay.cache import Ask, Held, Real, ratio, scaled, sent
from tierwise.replay.pricing import RateBook
from tierwise.replay.world import ReplayWorld

__all__ = ["optimum_nanousd"]

Allowed = Callable[[ImportedCall], Sequence[Model]]


def optimum_nanousd(session: ImportedSession, world: ReplayWorld, allowed: Allowed) -> int:
    """What the cheapest plan of a session costs. Calls whose cost is not known are left out.

    Args:
        session: its calls.
        world: prices and known models.
        allowed: the models that could do the work of a call, beside the one that was really used.
    """
    rates = RateBook(world.prices, world.models, world.priced_on)
    total = 0
    conversations: dict[str, list[ImportedCall]] = {}
    for call in session.calls:
        model, price = rates.of(call)
        if model is None or price is None or not call.kind.may_move or call.conditions.fast:
            total += rates.nanousd(call) or 0
        elif call.kind.converses:
            conversations.setdefault(call.agent or "", []).append(call)
        else:
            total += _Plans([call], rates, world, allowed).cheapest()
    return total + sum(_Plans(calls, rates, world, allowed).cheapest() for calls in conversations.values())


class _Plans:
    """All plans of one conversation."""

    def __init__(self, calls: Sequence[ImportedCall], rates: RateBook, world: ReplayWorld, allowed: Allowed) -> None:
        self._rates = rates
        self._world = world
        self._allowed = allowed
        real = Real()
        self._steps: list[tuple[ImportedCall, Ask, Model]] = []
        for call in calls:
            model = rates.of(call)[0]
            if model is not None:
                self._steps.append((call, real.next(call, model.id), model))

    def cheapest(self) -> int:
        """The cost of the cheapest."""
        as_it_was = 0
        best: dict[str, tuple[int, Held | None]] = {}  # by the model of the piece before, where a plan has moved
        for first, end in self._pieces():
            before = min([as_it_was, *(cost for cost, _ in best.values())])
            found: dict[str, tuple[int, Held | None]] = {}
            for model in self._fitting(first, end):
                cost, held = self._cost(first, end, model, None)
                found[model.id] = (before + cost, held)
                if model.id in best:
                    stayed, warm = best[model.id]
                    cost, held = self._cost(first, end, model, warm)
                    if stayed + cost <= found[model.id][0]:
                        found[model.id] = (stayed + cost, held)
            as_it_was += sum(self._rates.nanousd(call) or 0 for call, _, _ in self._steps[first:end])
            best = found
        return min([as_it_was, *(cost for cost, _ in best.values())])

    def _pieces(self) -> list[tuple[int, int]]:
        starts = [at for at, (call, _, _) in enumerate(self._steps) if at == 0 or not call.in_tool_loop]
        return list(zip(starts, [*starts[1:], len(self._steps)], strict=True))

    def _fitting(self, first: int, end: int) -> list[Model]:
        """The models that are allowed for a piece, or were really used for it, and can take all of it."""
        call, _, really = self._steps[first]
        wanted = {model.id: model for model in (really, *self._allowed(call))}
        return [model for model in wanted.values() if all(self._takes(model, *step) for step in self._steps[first:end])]

    def _takes(self, model: Model, call: ImportedCall, ask: Ask, real: Model) -> bool:
        if self._rates.rates(model, call.at_ms, call.conditions) is None:
            return False
        if model.id == real.id:
            return True
        history = History(call.has_tools, call.has_images, False, ask.prompt, None, real.tokenizer_factor)
        return (
            model.id not in self._world.unavailable
            and model.available_on(self._rates.day(call.at_ms))
            and can_take(history, model) is None
        )

    def _cost(self, first: int, end: int, model: Model, held: Held | None) -> tuple[int, Held | None]:
        """What a piece costs on a model that holds so much of the conversation, and what it holds then."""
        assumed = self._world.assumptions
        least = assumed.least_cached_on(model.id)
        total = 0
        for call, ask, real in self._steps[first:end]:
            rates = self._rates.rates(model, call.at_ms, call.conditions)
            if rates is None:  # never: `_takes` has seen to it
                continue
            same, by = model.id == real.id, ratio(model, real)
            if held is not None and ask.intact is not None:
                held = held.cut(scaled(ask.intact, by))
            prompt, held = sent(ask, held, same=same, by=by, least=least)
            output = ask.output if same else round(scaled(ask.output, by) * assumed.output_length.low)
            total += rates.nanousd(prompt, output, call.usage.web_searches)
        return total, held
