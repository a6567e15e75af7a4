"""The turns of a Messages request, put together from a host's messages: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tierwise.core.json import Json, JsonObject
from tierwise.wire.schemas import close_schemas

__all__ = ["add_turn", "request_body", "system_of"]


def request_body(model: str, max_tokens: int, said: tuple[Json, list[Json]], fields: Mapping[str, Any]) -> JsonObject:
    """A Messages request of a system prompt and turns, and of further fields; those that are None are left out."""
    system, turns = said
    body: JsonObject = {"model": model, "max_tokens": max_tokens}
    if system is not None:
        body["system"] = system
    body["messages"] = turns
    body.update({name: value for name, value in fields.items() if value is not None})
    return close_schemas(body)[0]


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
