"""JSON Lines in: lines out of a stream, objects out of lines, the fields of a task out of objects.

Reads what is there and waits only where there is nothing. At most one piece and one line are in memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from tierwise.cli.options import MAX_TASK_BYTES
from tierwise.core.errors import InvalidTask

__all__ = ["Line", "Progress", "batches", "kind", "open_lines", "parse_object", "pieces_of", "task_fields"]

_PIECE_BYTES = 1 << 16
_OPTIONAL = ("tool_name", "tool_input", "json_schema", "labels", "has_tools")


def open_lines(file_name: str) -> BinaryIO:
    """The file, unbuffered: `pieces_of` reads large pieces itself. Raises `InvalidTask` where it cannot be read."""
    try:
        return Path(file_name).open("rb", buffering=0)
    except (OSError, ValueError) as error:
        raise InvalidTask(f"cannot read {file_name}: {getattr(error, 'strerror', None) or error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


@dataclass(slots=True)
class Line:
    """A line without its end; None where it was too long to be kept."""

    number: int
    data: bytes | None


def pieces_of(stream: BinaryIO) -> Iterator[bytes]:
    """What can be read now, up to a piece; waits only where there is nothing."""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    while piece := read(_PIECE_BYTES):
        yield piece


def batches(pieces: Iterator[bytes]) -> Iterator[list[Line]]:
    """The lines that each piece completes. The last one needs no line end."""
    number = 0
    rest: list[bytes] = []
    held = 0
    for piece in pieces:
        first, *others = piece.split(b"\n")
        held += len(first)
        if held <= MAX_TASK_BYTES:
            rest.append(first)
        else:
            rest.clear()
        if not others:
            continue
        whole = [b"".join(rest) if held <= MAX_TASK_BYTES else None, *others[:-1]]
        yield [Line(number + index, data) for index, data in enumerate(whole, start=1)]
        number += len(whole)
        rest, held = [others[-1]], len(others[-1])
    if held:
        yield [Line(number + 1, b"".join(rest) if held <= MAX_TASK_BYTES else None)]


def parse_object(line: Line) -> dict[str, Any]:
    """The line's object. Raises `InvalidTask`, without the line's number, where it holds none."""
    if line.data is None:
        raise InvalidTask(f"longer than {MAX_TASK_BYTES // 2**20} MB; cut it into pieces")
    text = line.data.decode("utf-8", "replace")
    if line.number == 1:
        text = text.removeprefix("\ufeff")
    if not text.strip():
        raise InvalidTask("empty; each line is a JSON object with a text")
    try:
        given = _DECODER.decode(text)
    except RecursionError:
        raise InvalidTask("JSON nested too deeply") from None
    except ValueError as error:
        raise InvalidTask(f'not JSON ({error}); each line is an object such as {{"text": "…"}}') from None
    if not isinstance(given, dict):
        raise InvalidTask(f'{kind(given)}, not an object; each line is an object such as {{"text": "…"}}')
    return given


def task_fields(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `Task` that the object has. Raises `InvalidTask` where one is of the wrong kind."""
    if "text" not in given:
        raise InvalidTask("no text; each line needs a text")
    fields = {"text": given["text"], **{name: given[name] for name in _OPTIONAL if given.get(name) is not None}}
    if not isinstance(fields["text"], str):
        raise InvalidTask(f"text is {kind(fields['text'])}, not a string")
    if not isinstance(fields.get("tool_name", ""), str):
        raise InvalidTask(f"tool_name is {kind(fields['tool_name'])}, not a string")
    if not isinstance(fields.get("json_schema", {}), dict):
        raise InvalidTask(f"json_schema is {kind(fields['json_schema'])}, not an object")
    if not isinstance(fields.get("has_tools", False), bool):
        raise InvalidTask(f"has_tools is {kind(fields['has_tools'])}, not true or false")
    labels = fields.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InvalidTask("labels is not a list of strings")
    fields["labels"] = tuple(labels)
    return fields


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    return {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )


class Progress:
    """A count on stderr, where somebody looks at it and it takes over a second."""

    def __init__(self, *, beside_answers: bool) -> None:
        # Answers on the same terminal are progress enough, and would be torn by a count.
        self._shown = sys.stderr.isatty() and not (beside_answers and sys.stdout.isatty())
        self._began = self._next = time.monotonic() + 1.0
        self._any = False

    def show(self, count: int) -> None:
        """So many are done."""
        if self._shown and (now := time.monotonic()) >= self._next:
            self._next = now + 0.2
            self._any = True
            with suppress(OSError):
                sys.stderr.write(f"\r{count:,} lines, {count / (now - self._began + 1.0):,.0f} a second")
                sys.stderr.flush()

    def end(self) -> None:
        """All are done."""
        if self._any:
            click.echo(err=True)
