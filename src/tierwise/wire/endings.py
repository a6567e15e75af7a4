"""Well-formed ends for streams that break after the client was given part of them.

A stream that just stops looks like a network fault, or worse, like success. An error event in the client's own
dialect is what its SDK turns into an exception.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import assert_never

from tierwise.core.json import JsonObject
from tierwise.wire.chat.errors import error_body

__all__ = ["Dialect", "error_event"]


class Dialect(StrEnum):
    """Whose wire format a client speaks."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"


def error_event(dialect: Dialect, kind: str, message: str, *, mid_event: bool = False) -> bytes:
    """The event that ends a broken stream. Nothing may follow it.

    Args:
        dialect: the client's.
        kind: the error's type, such as `api_error` or `overloaded_error`.
        message: for people; no secrets.
        mid_event: the client has the beginning of an event already (`StreamTap.mid_event`), which is closed first.
    """
    match dialect:
        case Dialect.ANTHROPIC:
            named: JsonObject = {"type": "error", "error": {"type": kind, "message": message}}
            event = b"event: error\ndata: " + _line(named)
        case Dialect.OPENAI:
            event = b"data: " + _line(error_body(500, kind, message))
        case _:
            assert_never(dialect)
    return (b"\n\n" if mid_event else b"") + event + b"\n\n"


def _line(value: JsonObject) -> bytes:
    # JSON escapes line ends in strings, so it is one line; a lone surrogate is no UTF-8.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
