"""OTLP over HTTP, as far as log records go: what an exporter sends, read; what it expects to hear, written.

Both encodings are read: JSON, and protobuf, of which five messages are enough and which therefore needs no package. Of
values only scalars are kept: no list or map of anybody's is gone into, so nothing recurses. What is unknown is skipped,
as both encodings want it; fields that were renamed or removed since are not looked for.

The tests compare the reading with OpenTelemetry's own package.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

from tierwise.core.json import Json

__all__ = ["Encoding", "LogRecord", "Logs", "NotOtlp", "Scalar", "accepted", "refused", "unpacked"]

Scalar: TypeAlias = str | int | float | bool
_LATEST_NS = 1 << 63  # in 2262
_LONGEST_MESSAGE = 500  # of what an exporter is told


class NotOtlp(ValueError):
    """The bytes are not what they are said to be; the message says what is wrong."""


class Encoding(Enum):
    """How a request is written, and its answer; by the media type."""

    JSON = "application/json"
    PROTOBUF = "application/x-protobuf"

    @classmethod
    def of(cls, content_type: str) -> Encoding | None:
        """Which one a header names; None: neither."""
        name = content_type.partition(";")[0].strip().lower()
        return next((one for one in cls if one.value == name), None)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record. `attributes` of the record go before those of its resource."""

    name: str  # its event's; else its body, where that is text
    time_ns: int  # Unix time; when it was seen, where it does not say when it happened; 0: neither
    attributes: Mapping[str, Scalar]
    resource: Mapping[str, Scalar]

    def get(self, name: str) -> Scalar | None:
        """An attribute, of the record or of its resource."""
        return self.attributes.get(name, self.resource.get(name))


@dataclass(frozen=True, slots=True)
class Logs:
    """The records of a request, and how many could not be read."""

    records: tuple[LogRecord, ...]
    broken: int = 0

    @classmethod
    def read(cls, body: bytes, encoding: Encoding) -> Logs:
        """What an `ExportLogsServiceRequest` holds.

        Raises:
            NotOtlp: it is none.
        """
        match encoding:
            case Encoding.JSON:
                found = list(_of_json(body))
            case Encoding.PROTOBUF:
                found = list(_Protobuf().records(body))
            case _:
                assert_never(encoding)
        records = tuple(record for record in found if record is not None)
        return cls(records, len(found) - len(records))


def unpacked(body: bytes, *, most_bytes: int) -> bytes | None:
    """What was packed by gzip; None where it is more than that.

    Raises:
        NotOtlp: it was not packed so, or not to its end.
    """
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise NotOtlp(f"the body is no gzip: {error}") from None
    if len(content) > most_bytes:
        return None
    if not unpacker.eof or unpacker.unused_data:
        raise NotOtlp("the body is gzip that was cut off" if not unpacker.eof else "something follows the body's gzip")
    return content


# ------------------------------------------------------------------ answers


def accepted(encoding: Encoding, *, rejected: int = 0, why: str = "") -> bytes:
    """That a request was taken; with how many of its records were not, and why."""
    why = why[:_LONGEST_MESSAGE]
    match encoding:
        case Encoding.JSON:
            told: Json = {"rejectedLogRecords": str(rejected), "errorMessage": why}
            return json.dumps({"partialSuccess": told} if rejected else {}).encode()
        case Encoding.PROTOBUF:
            if not rejected:
                return b""
            return _field(1, b"\x08" + _varint(rejected) + _field(2, why.encode("utf-8", "replace")))
        case _:
            assert_never(encoding)


def refused(encoding: Encoding, why: str) -> bytes:
    """That a request was not taken, as a `Status`."""
    why = why[:_LONGEST_MESSAGE]
    match encoding:
        case Encoding.JSON:
            return json.dumps({"message": why}).encode()
        case Encoding.PROTOBUF:
            return _field(2, why.encode("utf-8", "replace"))
        case _:
            assert_never(encoding)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


# ------------------------------------------------------------------ JSON

# Of a request: what begins a value, those in texts too. A body of nothing but empty records would take gigabytes.
_MOST_MARKS = 2_000_000


def _of_json(body: bytes) -> Iterator[LogRecord | None]:
    """The records; None for one that is none."""
    if sum(body.count(mark) for mark in b"{[,") > _MOST_MARKS:
        raise NotOtlp(f"the body has more than {_MOST_MARKS:,} values; send fewer records at once")
    try:
        value: Json = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotOtlp(f"the body is not JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict) or not isinstance(value.get("resourceLogs", []), list):
        raise NotOtlp("the body has no list resourceLogs")
    for of_resource in _listed(value, "resourceLogs"):
        if not isinstance(of_resource, dict):
            yield None
            continue
        told = of_resource.get("resource")
        resource = _json_attributes(told if isinstance(told, dict) else {})
        for of_scope in _listed(of_resource, "scopeLogs"):
            for record in _listed(of_scope, "logRecords"):
                yield _json_record(record, resource)


def _listed(value: Json, name: str) -> list[Json]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _json_record(record: Json, resource: Mapping[str, Scalar]) -> LogRecord | None:
    if not isinstance(record, dict):
        return None
    times = [_json_whole(record.get(name)) for name in ("timeUnixNano", "observedTimeUnixNano")]
    body = _json_scalar(record.get("body"))
    return _record(record.get("eventName"), body, times, _json_attributes(record), resource)


def _json_attributes(value: Mapping[str, Json]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    told = value.get("attributes")
    for one in told if isinstance(told, list) else ():
        if isinstance(one, dict) and isinstance(name := one.get("key"), str):
            scalar = _json_scalar(one.get("value"))
            if scalar is not None:
                found[name] = scalar
    return found


def _json_scalar(value: Json) -> Scalar | None:
    if not isinstance(value, dict):
        return None
    for name, told in value.items():
        match name, told:
            case "stringValue", str():
                return told
            case "boolValue", bool():
                return told
            case "intValue", str() | int():
                return _json_whole(told)
            case "doubleValue", int() | float() if not isinstance(told, bool):
                return told
    return None


def _json_whole(value: Json) -> int | None:
    """64-bit numbers are written as text."""
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isascii():
        value = int(value) if value.removeprefix("-").isdecimal() else None
    return value if isinstance(value, int) and not isinstance(value, bool) and -_LATEST_NS <= value < 1 << 64 else None


def _record(
    event: Json,
    body: Scalar | None,
    times: list[int | None],
    attributes: Mapping[str, Scalar],
    resource: Mapping[str, Scalar],
) -> LogRecord:
    name = event if isinstance(event, str) and event else body
    time_ns = next((one for one in times if one is not None and 0 < one < _LATEST_NS), 0)
    return LogRecord(name if isinstance(name, str) else "", time_ns, attributes, resource)


# ------------------------------------------------------------------ protobuf

_Wire: TypeAlias = int | bytes  # a number (eight or four bytes are left as they came), or what a length was told of
_MOST_FIELDS = 1_000_000  # of a request: some seconds; an exporter's usual batch has a tenth of it


class _Protobuf:
    """Reads one request. Fields are counted: a body of nothing but empty ones would take a minute."""

    def __init__(self) -> None:
        self._left = _MOST_FIELDS

    def records(self, body: bytes) -> Iterator[LogRecord]:
        """Its records."""
        for of_resource in self._within(body, 1):
            resource: dict[str, Scalar] = {}
            for told in self._within(of_resource, 1):
                resource.update(self._pairs(told, 1))
            for of_scope in self._within(of_resource, 2):
                for record in self._within(of_scope, 2):
                    yield self._record(record, resource)

    def _record(self, data: bytes, resource: Mapping[str, Scalar]) -> LogRecord:
        times: list[int | None] = [None, None]
        body: Scalar | None = None
        event = ""
        for number, value in self._fields(data):
            match number:
                case 1 | 11:
                    times[number == 11] = int.from_bytes(_bytes(value), "little")
                case 5:
                    body = self._scalar(_bytes(value))
                case 12:
                    event = _text(value)
        return _record(event, body, times, self._pairs(data, 6), resource)

    def _pairs(self, data: bytes, wanted: int) -> dict[str, Scalar]:
        found: dict[str, Scalar] = {}
        for pair in self._within(data, wanted):
            name, scalar = "", None
            for number, value in self._fields(pair):
                if number == 1:
                    name = _text(value)
                elif number == 2:
                    scalar = self._scalar(_bytes(value))
            if scalar is not None:
                found[name] = scalar
        return found

    def _scalar(self, data: bytes) -> Scalar | None:
        found: Scalar | None = None
        for number, value in self._fields(data):
            match number, value:
                case 1, bytes():
                    found = _text(value)
                case 2, int():
                    found = value != 0
                case 3, int():
                    found = value - (1 << 64) if value >> 63 else value
                case 4, bytes() if len(value) == 8:
                    (found,) = struct.unpack("<d", value)
                case 5 | 6 | 7, _:
                    found = None  # the last one told is the value
        return found

    def _within(self, data: bytes, wanted: int) -> Iterator[bytes]:
        """The messages in one of its fields."""
        for number, value in self._fields(data):
            if number == wanted:
                yield _bytes(value)

    def _fields(self, data: bytes) -> Iterator[tuple[int, _Wire]]:
        """The fields of a message, by number."""
        at, end = 0, len(data)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise NotOtlp(f"the body has more than {_MOST_FIELDS:,} fields; send fewer records at once")
            key, at = _number(data, at)
            match key & 7:
                case 0:
                    value, at = _number(data, at)
                    yield key >> 3, value
                    continue
                case 1:
                    size = 8
                case 2:
                    size, at = _number(data, at)
                case 5:
                    size = 4
                case kind:
                    raise NotOtlp(f"the body is not protobuf: a field of kind {kind} at byte {at}")
            if at + size > end:
                raise NotOtlp("the body is protobuf that was cut off")
            yield key >> 3, data[at : at + size]
            at += size


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise NotOtlp("the body is not protobuf, or was cut off within a number")


def _bytes(value: _Wire) -> bytes:
    if isinstance(value, int):
        raise NotOtlp("the body is no OTLP: a number where a message should be")
    return value


def _text(value: _Wire) -> str:
    return _bytes(value).decode("utf-8", "replace")
