"""The type of a parsed JSON document, so that wire code needs no `Any`; and reading many of them fast."""

from __future__ import annotations

import json
from functools import cache
from typing import Protocol, TypeAlias

__all__ = ["Json", "JsonObject", "Loads", "choose_loads", "loads_slowly"]

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
JsonObject: TypeAlias = dict[str, "Json"]


class Loads(Protocol):
    """Reads one document. Raises `ValueError` where it is none, `RecursionError` where it is too deep."""

    def __call__(self, text: bytes, /) -> Json: ...


def loads_slowly(text: bytes) -> Json:
    """As forgiving as can be: broken UTF-8 and lone surrogates in a text cost no call its tokens."""
    value: Json = json.loads(text.decode("utf-8", "replace"), parse_constant=_refuse)
    return value


@cache
def choose_loads() -> Loads:
    """orjson where it is installed, with which a transcript takes a quarter less time; else the standard library."""
    try:
        import orjson  # noqa: PLC0415 - comes with the extra `gateway`
    except ImportError:
        return loads_slowly

    def loads(text: bytes) -> Json:
        try:
            value: Json = orjson.loads(text)
        except ValueError:
            return loads_slowly(text)
        return value

    return loads


def _refuse(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")
