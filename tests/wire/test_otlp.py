"""OTLP is read as OpenTelemetry's own package writes it, and whatever else comes is told from it."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tierwise.wire.otlp import Encoding, LogRecord, Logs, NotOtlp, Scalar, accepted, refused, unpacked

scalars: st.SearchStrategy[Scalar] = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
attributes = st.dictionaries(names, scalars, max_size=4)
records = st.builds(LogRecord, names, st.integers(0, 2**63 - 1), attributes, st.just({}))


def any_value(value: Scalar) -> AnyValue:
    """As the package writes it."""
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)


def pairs(values: Any) -> list[KeyValue]:
    return [KeyValue(key=name, value=any_value(value)) for name, value in values.items()]


def request(found: list[LogRecord], resource: dict[str, Scalar] | None = None) -> ExportLogsServiceRequest:
    """One that holds these records."""
    messages = [
        LogMessage(
            time_unix_nano=one.time_ns,
            severity_text="INFO",
            body=AnyValue(string_value=one.name),
            attributes=pairs(one.attributes),
            trace_id=b"0123456789abcdef",
            flags=7,
        )
        for one in found
    ]
    scopes = [ScopeLogs(log_records=messages[:1]), ScopeLogs(log_records=messages[1:], schema_url="x")]
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=Resource(attributes=pairs(resource or {})), scope_logs=scopes)]
    )


def written(message: ExportLogsServiceRequest, encoding: Encoding) -> bytes:
    if encoding is Encoding.PROTOBUF:
        return message.SerializeToString()
    return MessageToJson(message).encode()


@given(st.lists(records, max_size=4), attributes, st.sampled_from(Encoding))
def test_what_the_package_writes_is_read(
    found: list[LogRecord], resource: dict[str, Scalar], encoding: Encoding
) -> None:
    """Names, times and scalars come through, each record with its resource's, in both encodings."""
    read = Logs.read(written(request(found, resource), encoding), encoding)
    assert read.broken == 0
    assert [(one.name, one.time_ns, one.attributes, one.resource) for one in read.records] == [
        (one.name, one.time_ns, one.attributes, resource) for one in found
    ]


@pytest.mark.parametrize("encoding", Encoding)
def test_the_record_before_the_resource(encoding: Encoding) -> None:
    """An attribute that both have is the record's."""
    (one,) = Logs.read(
        written(request([LogRecord("n", 1, {"a": 1}, {})], {"a": 2, "b": 3}), encoding), encoding
    ).records
    assert (one.get("a"), one.get("b"), one.get("c")) == (1, 3, None)


@pytest.mark.parametrize("encoding", Encoding)
def test_event_names_and_other_times(encoding: Encoding) -> None:
    """An event's name goes before the body, and when it was seen stands for when it happened."""
    message = request([LogRecord("body", 0, {}, {})])
    record = message.resource_logs[0].scope_logs[0].log_records[0]
    record.event_name, record.observed_time_unix_nano = "event", 5
    (one,) = Logs.read(written(message, encoding), encoding).records
    assert (one.name, one.time_ns) == ("event", 5)


@pytest.mark.parametrize("encoding", Encoding)
def test_lists_and_maps_are_left_out(encoding: Encoding) -> None:
    """What is no scalar is skipped, however deep it is; what stands beside it is read."""
    deep = AnyValue(string_value="x")
    for _ in range(30):
        deep = AnyValue(array_value=ArrayValue(values=[deep]))
    message = request([LogRecord("n", 1, {"a": 1}, {})])
    record = message.resource_logs[0].scope_logs[0].log_records[0]
    record.attributes.extend(
        [
            KeyValue(key="deep", value=deep),
            KeyValue(key="map", value=AnyValue(kvlist_value=KeyValueList(values=pairs({"x": 1})))),
            KeyValue(key="bytes", value=AnyValue(bytes_value=b"\0")),
            KeyValue(key="nothing"),
            KeyValue(key="b", value=AnyValue(int_value=-2)),
        ]
    )
    (one,) = Logs.read(written(message, encoding), encoding).records
    assert one.attributes == {"a": 1, "b": -2}


@given(st.lists(records, max_size=3), st.data(), st.sampled_from(Encoding))
def test_cut_anywhere(found: list[LogRecord], data: st.DataObject, encoding: Encoding) -> None:
    """A body that was cut off, or has a byte that is wrong, is read or refused, and nothing else."""
    whole = bytearray(written(request(found), encoding))
    if whole:
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        Logs.read(cut, encoding)
    except NotOtlp as error:
        assert "body" in str(error)


@given(st.binary(max_size=200), st.sampled_from(Encoding))
def test_any_bytes(body: bytes, encoding: Encoding) -> None:
    """Whatever comes is read or refused."""
    try:
        Logs.read(body, encoding)
    except NotOtlp as error:
        assert "body" in str(error)


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        ({}, 0),
        ({"resourceLogs": [3]}, 1),
        ({"resourceLogs": [{"resource": 1, "scopeLogs": [{"logRecords": [None, "x", {}]}]}]}, 2),
        ({"resourceLogs": [{"scopeLogs": 5}, {"scopeLogs": [{"logRecords": 5}]}]}, 0),
        ({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": 5, "timeUnixNano": "x", "body": []}]}]}]}, 0),
    ],
)
def test_json_of_other_shapes(body: Any, broken: int) -> None:
    """What is no record is counted, and what lacks something is a record without it."""
    assert Logs.read(json.dumps(body).encode(), Encoding.JSON).broken == broken


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"resourceLogs": 1}', b"\xff", b"[" * 100_000])
def test_json_that_is_none(body: bytes) -> None:
    """A body that holds no such request is refused."""
    with pytest.raises(NotOtlp):
        Logs.read(body, Encoding.JSON)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ({"intValue": "12"}, 12),
        ({"intValue": 12}, 12),
        ({"intValue": "-3"}, -3),
        ({"intValue": "1_0"}, None),
        ({"intValue": "9" * 30}, None),
        ({"intValue": True}, None),
        ({"doubleValue": 3}, 3),
        ({"doubleValue": "x"}, None),
        ({"stringValue": 5}, None),
        ({"boolValue": 1}, None),
        ({"stringValue": ""}, ""),
    ],
)
def test_json_numbers(value: Any, meant: Scalar | None) -> None:
    """64-bit numbers come as text or as numbers; what is neither is no value."""
    record = {"attributes": [{"key": "a", "value": value}, {"key": 5}, {"value": {}}, 7]}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
    assert Logs.read(body, Encoding.JSON).records[0].attributes == ({} if meant is None else {"a": meant})


def test_answers_are_what_the_package_reads() -> None:
    """That all was taken, that some was not, and that nothing was."""
    assert ExportLogsServiceResponse.FromString(accepted(Encoding.PROTOBUF)) == ExportLogsServiceResponse()
    partial = ExportLogsServiceResponse.FromString(accepted(Encoding.PROTOBUF, rejected=300, why="wäre"))
    assert (partial.partial_success.rejected_log_records, partial.partial_success.error_message) == (300, "wäre")
    assert json.loads(accepted(Encoding.JSON)) == {}
    assert json.loads(accepted(Encoding.JSON, rejected=2, why="x")) == {
        "partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "x"}
    }
    assert Status.FromString(refused(Encoding.PROTOBUF, "no" * 900)).message == "no" * 250
    assert json.loads(refused(Encoding.JSON, "no")) == {"message": "no"}


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("application/json", Encoding.JSON),
        ("Application/JSON; charset=utf-8", Encoding.JSON),
        ("application/x-protobuf", Encoding.PROTOBUF),
        ("text/plain", None),
        ("", None),
    ],
)
def test_media_types(header: str, encoding: Encoding | None) -> None:
    """The encoding is told by the media type, whatever its parameters."""
    assert Encoding.of(header) is encoding


def test_gzip() -> None:
    """It is unpacked as far as is allowed: a small body that grows beyond that is never in memory."""
    assert unpacked(gzip.compress(b"x" * 100), most_bytes=100) == b"x" * 100
    assert unpacked(gzip.compress(b"x" * 101), most_bytes=100) is None
    assert unpacked(gzip.compress(b""), most_bytes=100) == b""


@pytest.mark.parametrize(
    "body",
    [b"", b"x", gzip.compress(b"x" * 50)[:-1], gzip.compress(b"x") + b"y"],
    ids=["nothing", "other", "cut off", "more"],  # packed bytes hold the time: no name for a test of several processes
)
def test_what_is_no_gzip(body: bytes) -> None:
    """What is not packed, not to its end, or more than that, is refused."""
    with pytest.raises(NotOtlp):
        unpacked(body, most_bytes=100)


def test_numbers_that_are_none() -> None:
    """A float that is no number comes through as that: whoever reads it has to look."""
    message = request([LogRecord("n", 1, {"a": math.inf}, {})])
    (one,) = Logs.read(written(message, Encoding.PROTOBUF), Encoding.PROTOBUF).records
    assert one.attributes == {"a": math.inf}


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"\x0a\x00" * 1_100_000, Encoding.PROTOBUF),
        (b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * 1_000_000 + b"{}]}]}]}", Encoding.JSON),
        (b'{"resourceLogs":[' + b"[]," * 1_000_000 + b"[]]}", Encoding.JSON),
    ],
    ids=["fields", "records", "lists"],
)
def test_a_body_of_nothing_but_empty_values(body: bytes, encoding: Encoding) -> None:
    """What would take long to read, and much memory, and holds nothing, is refused."""
    with pytest.raises(NotOtlp, match="fewer records at once"):
        Logs.read(body, encoding)
