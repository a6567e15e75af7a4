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
from tierwise.replay.asked import Asked, LeftAlone
from tierwise.replay.cache import Held, ratio, scaled, sent
from tierwise.replay.pricing import terms
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
    total = 0
    conversations: dict[str | int, list[Asked]] = {}
    for number, one in enumerate(world.asked(session)):
        if isinstance(one, LeftAlone) or not one.call.kind.may_move or one.call.conditions.fast:
            total += one.now_nanousd or 0
        else:
            name = number if one.conversation is None else one.conversation
            conversations.setdefault(name, []).append(one)
    return total + sum(_Plans(calls, world, allowed).cheapest() for calls in conversations.values())


class _Plans:
    """All plans of one conversation."""

    def __init__(self, calls: Sequence[Asked], world: ReplayWorld, allowed: Allowed) -> None:
        self._calls = calls
        self._world = world
        self._allowed = allowed

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
            as_it_was += sum(one.now_nanousd for one in self._calls[first:end])
            best = found
        return min([as_it_was, *(cost for cost, _ in best.values())])

    def _pieces(self) -> list[tuple[int, int]]:
        starts = [at for at, one in enumerate(self._calls) if at == 0 or not one.call.in_tool_loop]
        return list(zip(starts, [*starts[1:], len(self._calls)], strict=True))

    def _fitting(self, first: int, end: int) -> list[Model]:
        """The models that are allowed for a piece, or were really used for it, and can take all of it."""
        begins = self._calls[first]
        wanted = {model.id: model for model in (begins.model, *self._allowed(begins.call))}
        return [model for model in wanted.values() if all(self._takes(model, one) for one in self._calls[first:end])]

    def _takes(self, model: Model, asked: Asked) -> bool:
        call, rates = asked.call, self._world.rates
        if rates.rates(model, call.at_ms, terms(call)) is None:
            return False
        if model.id == asked.model.id:
            return True
        factor = asked.model.tokenizer_factor
        return (
            model.id not in self._world.unavailable
            and model.available_on(rates.day(call.at_ms))
            and can_take(History(call.has_tools, call.has_images, False, asked.ask.prompt, None, factor), model) is None
        )

    def _cost(self, first: int, end: int, model: Model, held: Held | None) -> tuple[int, Held | None]:
        """What a piece costs on a model that holds so much of the conversation, and what it holds then."""
        assumed = self._world.assumptions
        least = assumed.least_cached_on(model.id)
        total = 0
        for one in self._calls[first:end]:
            call, ask = one.call, one.ask
            rates = self._world.rates.rates(model, call.at_ms, terms(call))
            if rates is None:  # never: `_takes` has seen to it
                continue
            same, by = model.id == one.model.id, ratio(model, one.model)
            prompt, held = sent(ask, held, same=same, by=by, least=least)
            output = ask.output if same else round(scaled(ask.output, by) * assumed.output_length.low)
            total += rates.nanousd(prompt, output, call.usage.web_searches)
        return total, held
