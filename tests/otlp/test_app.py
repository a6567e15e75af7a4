"""What exporters hear: what they sent is taken, refused for good, or to be sent again; and at what it may cost."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from tests.otlp.conftest import Here, Received
from tests.otlp.events import NOW_MS, body, request
from tierwise.dashboard.refusals import Refused
from tierwise.ledger import Ledger
from tierwise.ledger.keys import ApiKey
from tierwise.otlp.app import Beside, Receiving
from tierwise.otlp.receiver import Receiver

JSON = "application/json"
PROTOBUF = "application/x-protobuf"


@dataclass
class Heard:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        """What an error says."""
        if self.headers["content-type"] == PROTOBUF:
            return Status.FromString(self.body).message
        return str(json.loads(self.body)["message"])


def send(
    app: Callable[..., Any],
    content: bytes,
    kind: str = JSON,
    *,
    path: str = "/v1/logs",
    method: str = "POST",
    pieces: int = 1,
    whole: bool = True,
    **headers: str,
) -> Heard | None:
    """One request; None where there was no answer. `whole`: False hangs up before its end."""
    given = {"host": "127.0.0.1:8485", "content-type": kind, **headers}
    size = -(-len(content) // pieces) or 1
    parts = [content[at : at + size] for at in range(0, max(1, len(content)), size)]
    events: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    events.append({"type": "http.request", "body": b""} if whole else {"type": "http.disconnect"})
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def answer(message: Any) -> None:
        told.append(message)

    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in given.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    asyncio.run(app(scope, receive, answer))
    if not told:
        return None
    start, content_sent = told
    return Heard(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        content_sent["body"],
    )


def heard(found: Heard | None) -> Heard:
    """An answer that must have come."""
    assert found is not None
    return found


@pytest.fixture
def app(received: Received) -> Receiving:
    """On loopback, where nobody needs a key."""
    return Receiving(received.receiver, lambda headers: None, demands_keys=False)


def packed(*records: Any) -> bytes:
    """A request in protobuf."""
    return Parse(body(*records), ExportLogsServiceRequest()).SerializeToString()


@pytest.mark.parametrize(("content", "kind"), [(body(request()), JSON), (packed(request()), PROTOBUF)])
@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("pieces", [1, 7])
def test_what_is_taken(
    app: Receiving, received: Received, content: bytes, kind: str, *, gzipped: bool, pieces: int
) -> None:
    """In either encoding, packed or not, in one piece or in several; it is answered in the same encoding."""
    how = {"content_encoding": "gzip"} if gzipped else {}
    answer = heard(send(app, gzip.compress(content) if gzipped else content, kind, pieces=pieces, **how))
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    assert answer.body == (b"{}" if kind == JSON else b"")
    assert received.call().attempts[0].cost_nanousd == 50_000_000


def test_some_that_cannot_be(app: Receiving, received: Received) -> None:
    """The rest is taken, and how many were not is told."""
    answer = heard(send(app, packed(request(1), request(2, model=None)), PROTOBUF))
    partial = ExportLogsServiceResponse.FromString(answer.body).partial_success
    assert (answer.status, partial.rejected_log_records) == (200, 1)
    assert partial.error_message == "api_request: it names no model"
    assert len(received.calls()) == 1


def collected(*groups: tuple[dict[str, str], list[Any]]) -> bytes:
    """What a collector's `otlphttp` exporter sends: records of many sources in one request, packed."""
    logs = [
        {**group, "schemaUrl": "https://opentelemetry.io/schemas/1.38.0"}
        for resource, records in groups
        for group in json.loads(body(*records, **resource))["resourceLogs"]
    ]
    told = json.dumps({"resourceLogs": logs})
    return gzip.compress(Parse(told, ExportLogsServiceRequest()).SerializeToString())


def test_what_a_collector_sends_on(app: Receiving, received: Received) -> None:
    """In batches with the logs of others, of sources that it renamed, sent again and cut otherwise: each once."""
    renamed = {"service__name": "agents", "k8s__pod__name": "agents-7", "project": "shop"}
    other = {"timeUnixNano": "1", "body": {"stringValue": "GET / 200"}, "severityText": "INFO"}
    seen = [{**request(number), "observedTimeUnixNano": "1795853219999000000", "flags": 1} for number in range(1, 5)]
    first = collected(({"service__name": "nginx"}, [other]), (renamed, seen[:3]))
    again = collected((renamed, seen[1:]), ({"service__name": "nginx"}, [other, other]), (renamed, seen[:1]))
    for content in (first, first, again):
        answer = heard(send(app, content, PROTOBUF, content_encoding="gzip", user_agent="OpenTelemetry Collector"))
        assert (answer.status, answer.body) == (200, b"")
    found = received.calls()
    assert [stored.call.project for stored in found] == ["shop"] * 4
    assert [[attempt.cost_nanousd for attempt in stored.attempts] for stored in found] == [[50_000_000]] * 4


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/traces"])
@pytest.mark.parametrize("kind", [JSON, PROTOBUF])
def test_metrics_and_traces(app: Receiving, received: Received, path: str, kind: str) -> None:
    """They are taken and dropped, whatever is in them."""
    answer = heard(send(app, b"anything", kind, path=path))
    assert (answer.status, answer.body) == (200, b"{}" if kind == JSON else b"")
    assert received.calls() == []


@pytest.mark.parametrize(
    ("content", "told", "hears"),
    [
        (b"{", {}, (400, "the body is not JSON")),
        (b"\xff\xff", {"kind": PROTOBUF}, (400, "the body is not protobuf")),
        (packed(request())[:-3], {"kind": PROTOBUF}, (400, "cut off")),
        (b"xx" * 9, {"content_encoding": "gzip"}, (400, "no gzip")),
        (gzip.compress(body(request()))[:-9], {"content_encoding": "gzip"}, (400, "cut off")),
        (b"x", {"content_encoding": "br"}, (415, "send gzip")),
        (b"x", {"kind": "text/plain"}, (415, "OTEL_EXPORTER_OTLP_PROTOCOL")),
        (b"x", {"kind": "application/grpc"}, (415, "http/json or http/protobuf")),
        (b"", {"method": "GET"}, (405, "use POST")),
        (body(request()), {"host": "evil.example"}, (403, "names of this machine")),
    ],
)
def test_what_is_refused_for_good(
    app: Receiving, received: Received, content: bytes, told: dict[str, Any], hears: tuple[int, str]
) -> None:
    """What will never be otherwise; the error says what to do, in the encoding of the request."""
    status, message = hears
    answer = heard(send(app, content, **told))
    assert (answer.status, "retry-after" in answer.headers) == (status, False)
    assert message in answer.message
    assert received.calls() == []


def test_bodies_that_are_too_large(app: Receiving, received: Received) -> None:
    """Neither as they come nor unpacked are they ever in memory."""
    answer = heard(send(app, b"x" * (17 * 1024 * 1024), pieces=17))
    assert (answer.status, "larger than" in answer.message) == (413, True)
    bomb = gzip.compress(b" " * (160 * 1024 * 1024))
    tracemalloc.start()
    answer = heard(send(app, bomb, content_encoding="gzip"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.status, "unpacks to more" in answer.message) == (413, True)
    assert most < 100 * 1024 * 1024
    assert received.calls() == []


def test_an_exporter_that_hangs_up(app: Receiving, received: Received) -> None:
    """What did not come whole is not there; what comes again is."""
    assert send(app, body(request()), pieces=3, whole=False) is None
    assert received.calls() == []
    assert heard(send(app, body(request()))).status == 200
    assert len(received.calls()) == 1


def test_a_ledger_in_trouble(here: Here, received: Received) -> None:
    """What cannot be recorded now is to be sent again, and then is there once."""
    blocked = Ledger(received.ledger.path, busy_timeout_ms=0, spool_dirs=())
    received.ledger.open()
    app = Receiving(Receiver(blocked, here, now_ms=lambda: NOW_MS), lambda headers: None, demands_keys=False)
    with received.ledger._transaction():
        answer = heard(send(app, packed(request()), PROTOBUF))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert heard(send(app, packed(request()), PROTOBUF)).status == 200
    blocked.close()
    assert len(received.calls()) == 1
    assert received.ledger.waiting() == []


def test_without_a_ledger(here: Here) -> None:
    """Where it is switched off, exporters are told so, and do not send again."""
    app = Receiving(Receiver(None, here), lambda headers: None, demands_keys=False)
    answer = heard(send(app, body(request())))
    assert (answer.status, "ledger.enabled" in answer.message) == (400, True)


def test_a_process_that_ends(received: Received) -> None:
    """It takes nothing more, and says to send again."""
    app = Receiving(received.receiver, lambda headers: None, demands_keys=False, ends=lambda: True)
    answer = heard(send(app, body(request())))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_too_many_at_once(app: Receiving, received: Received) -> None:
    """So many bodies on their way, and no more: the next is to be sent again."""

    async def crowd() -> list[int]:
        statuses: list[int] = []
        go = asyncio.Event()

        async def one() -> None:
            sent = False

            async def receive() -> dict[str, Any]:
                nonlocal sent
                if not sent:
                    await go.wait()
                    sent = True
                return {"type": "http.request", "body": body(request())}

            async def answer(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
            await app({"type": "http", "method": "POST", "path": "/v1/logs", "headers": headers}, receive, answer)

        tasks = [asyncio.ensure_future(one()) for _ in range(40)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*tasks)
        return statuses

    statuses = asyncio.run(crowd())
    assert sorted(set(statuses)) == [200, 429]
    assert statuses.count(429) == 8
    assert len(received.calls()) == 1


def test_keys(received: Received) -> None:
    """Where keys are demanded, none is 401; of one that has a project, calls are its."""
    key = ApiKey("k1", "laptop", 0, project="shop")

    def identify(headers: Any) -> ApiKey:
        if not any(name == b"x-api-key" for name, _ in headers):
            raise Refused(401, "a key is demanded", where="", do="send one")
        return key

    app = Receiving(received.receiver, identify, demands_keys=True)
    answer = heard(send(app, packed(request(project="other")), PROTOBUF, host="tierwise.example"))
    assert (answer.status, answer.message) == (401, "tierwise: a key is demanded: send one")
    content = body(request(project="other"))
    assert heard(send(app, content, host="tierwise.example", x_api_key="tw-x")).status == 200
    assert (received.call().call.project, received.call().call.key_id) == ("shop", "k1")


def test_beside_another_application(app: Receiving) -> None:
    """Everything that is not an exporter's goes to the other one."""
    asked: list[str] = []

    async def other(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope.get("path", scope["type"]))

    both = Beside(other, app)
    assert send(both, b"", path="/v1/logs/x") is None
    assert heard(send(both, body(request()))).status == 200
    asyncio.run(both({"type": "lifespan"}, None, None))  # type: ignore[arg-type]  # the other one's to look at
    assert asked == ["/v1/logs/x", "lifespan"]
