"""The turns of a Messages request, put together from a host's messages: pure."""

from __future__ import annotations

from collections.abc import Iterable

from tierwise.core.json import Json

__all__ = ["add_turn", "system_of"]


def system_of(blocks: list[Json]) -> Json:
    """Blocks of text as `system`: None where there are none, a text where that says it all."""
    match blocks:
        case []:
            return None
        case [{"type": "text", "text": str(text), **others}] if not others:
            return text
        case _:
            return blocks


def add_turn(turns: list[Json], role: str, blocks: Iterable[Json]) -> None:
    """Adds what a side says; to its last turn, where it spoke last."""
    said = list(blocks)
    if not said:
        return  # an empty turn is an error to the API, and says nothing
    last = turns[-1] if turns else None
    if isinstance(last, dict) and last["role"] == role and isinstance(last["content"], list):
        last["content"].extend(said)
    else:
        turns.append({"role": role, "content": said})
