"""Changes single values of a JSON document and leaves every other byte as it came.

A gateway that parses a request and writes it out again reorders keys, respells numbers and escapes, and so throws
away the prompt cache of whoever sent it. Here a value is found by scanning, cut out, and something else is put in its
place: what was not meant is byte for byte the same.

The scanner takes what the JSON grammar takes, and is only ever run over documents that a parser has accepted. It
skips strings whole, so its work goes with the number of tokens and not of bytes, and it stops at what it looks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tierwise.core.json import Json, JsonObject

__all__ = ["Member", "SpliceError", "compact", "elements", "members", "splice", "splice_changes"]

_BLANK = b" \t\n\r"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_TOKEN = re.compile(_STRING + rb"|[{}\[\],:]|[^\s\"{}\[\],:]+", re.DOTALL)
# The next bracket that is not in a string: one match a bracket, however much stands between.
_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+([{}\[\]])", re.DOTALL)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # `json.dumps` makes one a call


class SpliceError(ValueError):
    """The document is no JSON object, or a key stands in it twice."""


class Member(NamedTuple):  # not a dataclass: one is made for every key of every request
    """A key of the outermost object and where its value stands: `document[start:end]`; `key_start` is its quote."""

    key: str
    key_start: int
    start: int
    end: int


def compact(value: Json) -> bytes:
    """A value as the JSON that is put in: UTF-8, without blanks."""
    return _encode(value).encode("utf-8")


def members(document: bytes) -> Iterator[Member]:
    """The members of the outermost object, in order, found as they are asked for.

    Raises:
        SpliceError: the document is no object, or ends too early.
    """
    opening = _token(document, 0)
    if opening.group() != b"{":
        raise SpliceError("the document is no JSON object")
    position = opening.end()
    while True:
        token = _token(document, position)
        if token.group() == b"}":
            return
        if token.group() == b",":
            token = _token(document, token.end())
        if token.group()[:1] != b'"':
            raise SpliceError(f"a key was expected at byte {token.start()}")
        colon = _token(document, token.end())
        if colon.group() != b":":
            raise SpliceError(f"a colon was expected at byte {colon.start()}")
        start, position = _value(document, colon.end())
        yield Member(_key(token.group()), token.start(), start, position)


def _key(quoted: bytes) -> str:
    key: str = json.loads(quoted) if b"\\" in quoted else quoted[1:-1].decode("utf-8")
    return key


def _token(document: bytes, position: int) -> re.Match[bytes]:
    token = _TOKEN.search(document, position)
    if token is None:
        raise SpliceError("the document ends too early")
    return token


def _value(document: bytes, position: int) -> tuple[int, int]:
    """Where the next value begins and ends."""
    token = _token(document, position)
    if token.group() not in (b"{", b"["):
        return token.span()
    depth, end = 1, token.end()
    while depth:
        bracket = _BRACKET.match(document, end)
        if bracket is None:
            raise SpliceError("the document ends too early")
        depth += 1 if bracket.group(1) in b"{[" else -1
        end = bracket.end()
    return token.start(), end


def elements(document: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Where the elements of the array at `document[start:end]` stand."""
    found: list[tuple[int, int]] = []
    position = start + 1
    while True:
        token = _token(document, position)
        if token.group() == b"," or token.start() >= end - 1:
            if token.start() >= end - 1:
                return found
            position = token.end()
            continue
        span = _value(document, position)
        found.append(span)
        position = span[1]


def splice(document: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """`document` with the values of some keys of its outermost object replaced, added at its end, or (None) removed.

    Args:
        document: a JSON object, as bytes.
        changes: the new value as JSON, by key.

    Raises:
        SpliceError: no object, or a key to be changed was seen in it twice (which of them counts is anybody's guess).
    """
    if not changes:
        return document
    if all(value is not None for value in changes.values()):
        replaced = _replace(document, changes)
        if replaced is not None:
            return replaced
    opened = document.index(b"{") + 1
    kept: list[bytes] = []  # the object's members, each with what stands around it
    names: set[str] = set()
    position = opened
    for member in members(document):
        value = changes.get(member.key, _KEEP)
        if value is not _KEEP and member.key in names:
            raise SpliceError(f"the key {member.key!r} stands in the request twice")
        names.add(member.key)
        separator = _token(document, member.end)
        if value is _KEEP:
            kept.append(document[position : separator.start()])
        elif value is not None:
            kept.append(document[position : member.start] + value + document[member.end : separator.start()])
        position = separator.end() if separator.group() == b"," else separator.start()
    kept += [compact(key) + b":" + value for key, value in changes.items() if value is not None and key not in names]
    return document[:opened] + b",".join(kept) + document[position:]


def _replace(document: bytes, changes: Mapping[str, bytes | None]) -> bytes | None:
    """Values put in the place of others, reading no further than the last of them; None where a key is not there.

    A key that comes again behind that is not seen: whoever has parsed the document compares what it replaces.
    """
    wanted = dict(changes)
    pieces: list[bytes] = []
    position = 0
    for member in members(document):
        value = wanted.pop(member.key, None)
        if value is not None:
            pieces += (document[position : member.start], value)
            position = member.end
            if not wanted:
                return b"".join((*pieces, memoryview(document)[position:]))
    return None


_KEEP = b"keep"  # by identity: no JSON that anybody hands in is this object


def splice_changes(document: bytes, before: JsonObject, after: JsonObject) -> bytes:
    """`document`, which says `before`, changed so that it says `after`; what is the same object in both stays.

    An array in which only some elements changed keeps the bytes of the others.

    Raises:
        SpliceError: as `splice`; or a key that changes does not hold what `before` says: it stands there twice.
    """
    changes: dict[str, bytes | None] = {key: None for key in before if key not in after}
    arrays: dict[str, tuple[list[Json], list[Json]]] = {}
    for key, value in after.items():
        old = before.get(key)
        if (old is value or _same(old, value)) and key in before:
            continue
        if isinstance(old, list) and isinstance(value, list) and old:
            arrays[key] = (old, value)
        else:
            changes[key] = compact(value)
    unseen = {key for key in (*changes, *arrays) if key in before}
    only_replaced = len(unseen) == len(changes) + len(arrays) and None not in changes.values()
    pieces: list[bytes] = []
    position = 0
    for member in members(document) if unseen else ():
        if member.key not in unseen:
            continue
        unseen.discard(member.key)
        pair = arrays.get(member.key)
        if pair is not None:
            changes[member.key] = _array(document, member, *pair)
        elif not _says(document[member.start : member.end], before[member.key]):
            raise SpliceError(f"the key {member.key!r} stands in the request twice")
        pieces += (document[position : member.start], changes[member.key] or b"")
        position = member.end
        if not unseen:
            break
    if pieces and only_replaced and not unseen:  # nearly always only the model: it has been found already
        return b"".join((*pieces, memoryview(document)[position:]))  # a long end is copied once
    return splice(document, changes)


def _says(document: bytes, value: Json) -> bool:
    """Whether this JSON is that value."""
    if isinstance(value, str) and document[1:-1] == value.encode("utf-8", "surrogatepass") and b"\\" not in document:
        return True
    parsed: Json = json.loads(document)
    return parsed == value


def _array(document: bytes, member: Member, old: list[Json], new: list[Json]) -> bytes:
    spans = elements(document, member.start, member.end)
    if len(spans) != len(old):
        return compact(new)
    # In order: an element that is still there keeps its bytes; equal by identity, since that is what was kept.
    where = {id(element): span for element, span in zip(old, spans, strict=True)}
    pieces = []
    for element in new:
        span = where.get(id(element))
        pieces.append(compact(element) if span is None else document[span[0] : span[1]])
    return b"[" + b",".join(pieces) + b"]"


def _same(one: Json, other: Json) -> bool:
    # 1 == True == 1.0 in Python, and not in JSON.
    return type(one) is type(other) and not isinstance(one, list | dict) and one == other
