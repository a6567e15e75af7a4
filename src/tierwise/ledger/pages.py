"""Rows read straight off the pages of a damaged database, without the tree that leads to them.

SQLite reaches a row through the root of its table; one destroyed page near the root makes it blind to thousands of
sound ones. This looks at every page for itself: those that say they are part of a table without row ids (all tables
of the ledger are) are taken apart cell by cell, and whatever does not decode is passed over. The format is that of
https://www.sqlite.org/fileformat2.html, sections 1.6 and 2.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["rows_on_pages"]

_LEAF, _INTERIOR = 0x0A, 0x02
_WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # of integers, by serial type
_WAL_HEADER, _FRAME_HEADER = 32, 24

Row = tuple[str | int | float | bytes | None, ...]


def rows_on_pages(database: bytes, log: bytes) -> Iterator[Row]:
    """Every row that can be decoded, those of the write-ahead log first and the newest of them first.

    A row that was changed may come several times, in different states; its present state is not marked.
    """
    size = int.from_bytes(database[16:18], "big")
    if size not in {512, 1024, 2048, 4096, 8192, 16384, 32768}:
        size = 4096  # what a ledger is made with
    pages = {n + 1: database[n * size : (n + 1) * size] for n in range(-(-len(database) // size))}
    newest = dict(pages)
    frames: list[bytes] = []
    for at in range(_WAL_HEADER, len(log) - size, size + _FRAME_HEADER):
        page = log[at + _FRAME_HEADER : at + _FRAME_HEADER + size]
        frames.append(page)
        newest[int.from_bytes(log[at : at + 4], "big")] = page
    for page in (*reversed(frames), *pages.values()):
        if len(page) == size and page[0] in {_LEAF, _INTERIOR}:
            yield from _rows(page, newest, size)


def _rows(page: bytes, pages: dict[int, bytes], size: int) -> Iterator[Row]:
    start = 8 if page[0] == _LEAF else 12
    for number in range(int.from_bytes(page[3:5], "big")):
        pointer = page[start + 2 * number : start + 2 * number + 2]
        try:
            at = int.from_bytes(pointer, "big") + (0 if page[0] == _LEAF else 4)
            yield _decode(_payload(page, at, pages, size))
        except (IndexError, ValueError, struct.error):
            continue


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(8):
        byte = data[at + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    return value << 8 | data[at + 8], at + 9


def _payload(page: bytes, at: int, pages: dict[int, bytes], size: int) -> bytes:
    length, at = _varint(page, at)
    most, least = (size - 12) * 64 // 255 - 23, (size - 12) * 32 // 255 - 23
    local = length
    if length > most:
        local = least + (length - least) % (size - 4)
        if local > most:
            local = least
    found = bytearray(page[at : at + local])
    following = int.from_bytes(page[at + local : at + local + 4], "big") if length > local else 0
    while len(found) < length:
        overflow = pages.get(following, b"")
        piece = overflow[4 : 4 + length - len(found)]
        if not piece:
            raise ValueError("the rest of the row is gone")
        found += piece
        following = int.from_bytes(overflow[:4], "big")
    return bytes(found)


def _decode(payload: bytes) -> Row:
    end, at = _varint(payload, 0)
    types: list[int] = []
    while at < end:
        kind, at = _varint(payload, at)
        types.append(kind)
    if at != end:
        raise ValueError("not a record")
    values: list[str | int | float | bytes | None] = []
    for kind in types:
        width = _WIDTHS.get(kind, 8 if kind == 7 else max(0, kind - 12) // 2)
        data = payload[at : at + width]
        if len(data) != width:
            raise ValueError("not a record")
        at += width
        match kind:
            case 0:
                values.append(None)
            case 7:
                values.append(struct.unpack(">d", data)[0])
            case 8 | 9:
                values.append(kind - 8)
            case 10 | 11:
                raise ValueError("not a record")
            case _ if kind < 7:
                values.append(int.from_bytes(data, "big", signed=True))
            case _ if kind % 2:
                values.append(data.decode("utf-8"))
            case _:
                values.append(data)
    if at != len(payload):
        raise ValueError("not a record")
    return tuple(values)
