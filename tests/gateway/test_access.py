"""Who may do what: keys, scopes and tiers; which credential goes where; what a client may ask of a connection."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import HTTP, KEY, Serve, Served, settings_for
from tests.gateway.test_faults import locked
from tierwise.core.settings import Settings
from tierwise.gateway.app import Gateway
from tierwise.gateway.asgi import Scope, Send
from tierwise.gateway.connections import ConnectionLimits
from tierwise.ledger.keys import ApiKey, KeyPolicy, KeyScope
from tierwise.testing import Fault, StandInReply, StandInUpstream

OWN = "sk-ant-own-upstream-key-0123456789"
AUTO = "claude-tierwise-auto"
Body = dict[str, Any]


def message(model: str = "claude-haiku-5-5", text: str = "Summarise: it burns", **fields: Any) -> Body:
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": text}], **fields}


def send(
    gateway: Served, secret: str | None, body: Body | None = None, path: str = "/v1/messages", **headers: str
) -> httpx2.Response:
    given = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    if secret is not None:
        given["x-api-key"] = secret
    content = json.dumps(body or message())
    return HTTP.post(gateway.url + path, content=content, headers=given, timeout=60)


def key(gateway: Served, name: str = "laptop", **fields: Any) -> tuple[str, ApiKey]:
    assert gateway.gateway.keys is not None
    made = gateway.gateway.keys.create(name, time.time_ns() // 1_000_000, **fields)
    return made.secret, made.key


@pytest.fixture
def own(upstream: StandInUpstream, tmp_path: Path) -> Settings:
    """A gateway with a key of its own for the upstream."""
    return settings_for(upstream, tmp_path, ANTHROPIC_API_KEY=OWN)


@contextmanager
def connected(gateway: Served) -> Iterator[socket.socket]:
    host, port = gateway.url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=60)) as client:
        yield client


def all_of(client: socket.socket) -> bytes:
    """What comes until the other side closes."""
    pieces = []
    while piece := client.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def health(client: socket.socket) -> bytes:
    """An answer of `/healthz`, head and body, in however many pieces it comes."""
    said = b""
    while not said.endswith(b"}") and (piece := client.recv(4096)):
        said += piece
    return said


# Keys


@pytest.mark.parametrize("secret", [None, "sk-ant-somebody", "tw-00000000-" + "a" * 43])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"])
def test_off_loopback_only_keys_of_ours_are_let_in(
    serve: Serve, upstream: StandInUpstream, own: Settings, path: str, secret: str | None
) -> None:
    """401 in the dialect of the endpoint; nothing goes upstream, and what was offered is not repeated."""
    gateway = serve(upstream, settings=own, host="0.0.0.0")  # noqa: S104  as configured; the test listens on loopback
    answer = send(gateway, secret, path=path)
    assert answer.status_code == 401
    told = answer.json()
    assert told["error"]["type"] == "authentication_error" or told["error"]["code"] == "invalid_api_key"
    assert ("type" not in told) is ("chat" in path)
    assert secret is None or secret not in answer.text
    assert not upstream.requests


def test_what_shows_nothing_is_open_and_all_else_demands_a_key(
    serve: Serve, upstream: StandInUpstream, own: Settings
) -> None:
    """Health without a key; models, receipts and metrics with one that is for them."""
    gateway = serve(upstream, settings=own, host="0.0.0.0")  # noqa: S104  as above
    secret, _ = key(gateway)
    metrics, _ = key(gateway, "prometheus", scopes=[KeyScope.METRICS])
    call_id = send(gateway, secret).headers["x-tierwise-call-id"]

    def status(path: str, given: str | None) -> int:
        headers = {} if given is None else {"authorization": f"Bearer {given}"}
        return HTTP.get(gateway.url + path, headers=headers).status_code

    assert [status(path, None) for path in ("/healthz", "/readyz", "/")] == [200, 200, 200]
    for path, good, bad in (
        ("/v1/models", secret, metrics),
        (f"/tierwise/calls/{call_id}", secret, metrics),
        ("/metrics", metrics, secret),
    ):
        assert [status(path, given) for given in (None, good, bad)] == [401, 200, 403], path
    assert send(gateway, metrics).status_code == 403
    assert send(gateway, metrics).json()["error"]["type"] == "permission_error"


def test_what_is_wrong_with_the_ledger_is_told_in_full_to_who_operates_it(
    serve: Serve, upstream: StandInUpstream, own: Settings
) -> None:
    """Without a key that something is, and what kind of thing; where the file is, with one for metrics or receipts."""
    own = replace(own, ledger=replace(own.ledger, busy_timeout_ms=50))
    gateway = serve(upstream, settings=own, host="0.0.0.0")  # noqa: S104  as above
    receipts, _ = key(gateway)
    metrics, _ = key(gateway, "prometheus", scopes=[KeyScope.METRICS])
    calls, _ = key(gateway, "calls", scopes=[KeyScope.CALLS])
    send(gateway, receipts)

    def told(given: str | None) -> str:
        headers = {} if given is None else {"x-api-key": given}
        answer = HTTP.get(f"{gateway.url}/readyz", headers=headers)
        assert answer.status_code == 200
        return str(answer.json()["ledger"])

    assert told(None) == "ok"
    with locked(gateway.ledger_path):
        send(gateway, receipts)
        assert {told(given) for given in (None, calls, "tw-unknown", "sk-ant-somebody")} == {"unavailable"}
        for given in (metrics, receipts):
            assert str(gateway.ledger_path) in told(given)
            assert "another process is writing" in told(given)


def test_a_revoked_key_is_refused(serve: Serve, upstream: StandInUpstream) -> None:
    """At once where it was revoked, and within a second in other processes."""
    gateway = serve(upstream)
    secret, made = key(gateway)
    assert send(gateway, secret).status_code == 200
    assert gateway.gateway.keys is not None
    gateway.gateway.keys.revoke(made.key_id, time.time_ns() // 1_000_000)
    assert send(gateway, secret).status_code == 401


@pytest.mark.parametrize("as_bearer", [True, False])
def test_a_key_of_ours_is_nowhere_but_at_the_door(
    serve: Serve, upstream: StandInUpstream, own: Settings, as_bearer: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Not upstream (our own goes there in its place), not in the ledger, a log, an error or a repr."""
    caplog.set_level(logging.DEBUG)
    gateway = serve(upstream, settings=own)
    secret, made = key(gateway)
    headers = {"authorization": f"Bearer {secret}"} if as_bearer else {"x-api-key": secret}
    upstream.reply("fine")
    upstream.fail(Fault.status(401))
    bodies: list[Body] = [message(), message(), {"model": 3}]
    texts = [HTTP.post(f"{gateway.url}/v1/messages", json=body, headers=headers).text for body in bodies]
    assert upstream.requests
    for request in upstream.requests:
        assert secret not in repr(request)
        assert request.headers["x-api-key"] == OWN
        assert "authorization" not in request.headers
    gateway.stop()
    files = b"".join(path.read_bytes() for path in gateway.ledger_path.parent.glob("ledger.db*"))
    for hidden in (secret, OWN):
        assert hidden.encode() not in files
        assert hidden not in caplog.text
        assert hidden not in " ".join(texts)
        assert hidden not in repr((made, gateway.gateway.settings, gateway.gateway.__dict__))


def test_a_key_bounds_the_tiers_of_its_calls(serve: Serve, upstream: StandInUpstream, own: Settings) -> None:
    """What is routed stays within; a model by name above the ceiling, or of no tier, is refused."""
    gateway = serve(upstream, settings=own)
    low, _ = key(gateway, "low", policy=KeyPolicy(max_tier="haiku"))
    high, _ = key(gateway, "high", policy=KeyPolicy(min_tier="opus"))
    critical = "Is this indemnity clause enforceable under German law? We sign tomorrow."

    def model(answer: httpx2.Response) -> str:
        assert answer.status_code == 200, answer.text
        return answer.headers["x-tierwise-model"]

    assert model(send(gateway, low, message(AUTO, critical), x_tierwise_max_tier="opus")) == "claude-haiku-5-5"
    assert model(send(gateway, high, message(AUTO))) == "claude-opus-5-5"
    assert model(send(gateway, low, message("claude-haiku-5-5"))) == "claude-haiku-5-5"
    upstream.clear()
    for name in ("claude-opus-5-5", "claude-unheard-of-9"):
        refused = send(gateway, low, message(name))
        assert refused.status_code == 403
        assert "up to haiku" in refused.json()["error"]["message"]
    conflict = send(gateway, low, message(AUTO), x_tierwise_min_tier="opus")
    assert conflict.status_code == 400
    assert not upstream.requests


@pytest.mark.parametrize("words", [1, 2_000])
def test_a_body_with_two_models_gets_past_no_bound(
    serve: Serve, upstream: StandInUpstream, own: Settings, words: int
) -> None:
    """Parsers differ in which of two counts: a key's request that names two is refused, and none goes upstream."""
    gateway = serve(upstream, settings=own)
    low, _ = key(gateway, "low", policy=KeyPolicy(max_tier="haiku"))
    schema = {"type": "object", "properties": {"kind": {"enum": ["model"] * words}}}
    once = message("claude-haiku-5-5", tools=[{"name": "t", "input_schema": schema}])
    once["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "t", "input": {"model": "opus"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": '"model": "opus"'}]},
    ]
    assert send(gateway, low, once).status_code == 200
    upstream.clear()
    body = json.dumps(once)
    for first, last in (
        ('"model": "claude-opus-5-5", ', ""),
        ('"mod\\u0065l": "claude-opus-5-5", ', ""),
        ("", ', "model" :"claude-haiku-5-5"'),
    ):
        content = f"{{{first}{body[1:-1]}{last}}}"
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            refused = HTTP.post(gateway.url + path, content=content, headers={"x-api-key": low}, timeout=60)
            assert refused.status_code == 400, content
            assert "twice" in refused.json()["error"]["message"]
    assert not upstream.requests


# Credentials


def test_a_clients_own_key_goes_only_where_it_would_go_without_us(
    serve: Serve, upstream: StandInUpstream, tmp_path: Path
) -> None:
    """To the upstream that we stand in for; not to a local model, nor to others that speak the same wire."""
    with (
        StandInUpstream(ollama_models=["small:1b"]) as local,
        StandInUpstream(models=["other-1"]) as other,
        StandInUpstream(models=["gpt-x"]) as openai,
    ):
        toml = "\n".join(
            [
                f'[providers.box]\nkind = "ollama"\nbase_url = "{local.url}"',
                f'[providers.wire]\nkind = "anthropic"\nbase_url = "{other.url}"',
                f'[providers.chat]\nkind = "openai"\nbase_url = "{openai.url}/v1"',
                '[tiers.haiku]\nmodels = ["claude-haiku-5-5", "small:1b", "other-1", "gpt-x"]',
                *(
                    f'[models."{name}"]\nprovider = "{provider}"\ncontext_tokens = 8192\nmax_output_tokens = 1024'
                    for name, provider in (("small:1b", "box"), ("other-1", "wire"), ("gpt-x", "chat"))
                ),
            ]
        )
        gateway = serve(upstream, toml)
        for name in ("small:1b", "other-1", "gpt-x"):
            send(gateway, KEY, message(name), authorization=f"Bearer {KEY}", cookie=f"a={KEY}")
        seen = [*local.requests, *other.requests, *openai.requests]
        assert {request.path for request in seen} >= {"/v1/messages", "/v1/chat/completions"}
        assert KEY not in repr([(dict(request.headers), request.body) for request in seen])
        assert not upstream.requests
        send(gateway, KEY)
        assert upstream.requests[0].headers["x-api-key"] == KEY


def test_our_upstream_key_is_in_no_error_that_quotes_it(
    serve: Serve, upstream: StandInUpstream, own: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """An upstream that repeats the key it was given does not show it to the client, in any dialect or endpoint."""
    quoting = json.dumps({"type": "error", "error": {"type": "authentication_error", "message": f"bad key {OWN}"}})
    upstream.fail(Fault.status(401, body=quoting.encode()), times=None)
    gateway = serve(upstream, settings=own)
    for body, path in (
        (message(), "/v1/messages"),
        (message(AUTO), "/v1/messages"),
        (message(), "/v1/chat/completions"),
    ):
        answer = send(gateway, None, body, path)
        assert answer.status_code == 401
        assert "bad key" in answer.text
        assert OWN not in answer.text
    assert OWN not in caplog.text
    for found in gateway.calls():
        assert OWN not in repr(found)


def test_a_configured_header_takes_the_place_of_a_clients(
    serve: Serve, upstream: StandInUpstream, tmp_path: Path
) -> None:
    """A client cannot add a second value to what the configuration sends."""
    settings = settings_for(upstream, tmp_path, '[providers.anthropic.headers]\nx-team = "ours"')
    gateway = serve(upstream, settings=settings)
    send(gateway, KEY, x_team="theirs")
    assert upstream.requests[0].headers["x-team"] == "ours"


# A request cannot choose where it goes


@pytest.mark.parametrize(
    "line",
    [
        "POST http://169.254.169.254/v1/messages HTTP/1.1",
        "POST //evil.example/v1/messages HTTP/1.1",
        "POST /v1/messages/../../admin HTTP/1.1",
        "POST /v1/messages?@evil.example HTTP/1.1",
        "POST /v1/%6dessages HTTP/1.1",
    ],
)
def test_a_request_cannot_choose_its_upstream(serve: Serve, upstream: StandInUpstream, line: str) -> None:
    """Whatever the target and the Host header say: the configured upstream at its own path, or nobody."""
    gateway = serve(upstream)
    body = json.dumps(message()).encode()
    with connected(gateway) as client:
        client.sendall(
            f"{line}\r\nhost: evil.example\r\nx-forwarded-host: evil.example\r\nx-api-key: {KEY}\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        status = int(all_of(client).split(b" ", 2)[1])
    for request in upstream.requests:
        assert request.path == "/v1/messages"
        assert request.headers["host"] == upstream.url.removeprefix("http://")
    assert (status == 200) is bool(upstream.requests)
    assert status in (200, 404)


@pytest.mark.parametrize("path", ["/v1/messages?a=\xe9", "/v1/\xe9"])
def test_odd_bytes_in_a_target_hurt_nobody(serve: Serve, upstream: StandInUpstream, path: str) -> None:
    """An answer below 500, and the next request is served."""
    gateway = serve(upstream)
    body = json.dumps(message()).encode()
    with connected(gateway) as client:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\nconnection: close\r\n"
        client.sendall(head.encode("latin-1") + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert int(all_of(client).split(b" ", 2)[1]) < 500
    assert send(gateway, KEY).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        "content-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "content-length: -1\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n",
        "x: a\r\n y: folded\r\ncontent-length: 2\r\n\r\n{}",
        "x\x00y: 1\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(serve: Serve, upstream: StandInUpstream, head: str) -> None:
    """400, the connection is closed, and nothing goes upstream."""
    gateway = serve(upstream)
    with connected(gateway) as client:
        client.sendall(f"POST /v1/messages HTTP/1.1\r\nhost: x\r\n{head}".encode("latin-1"))
        assert all_of(client).startswith(b"HTTP/1.1 400")
    assert not upstream.requests


def test_a_wish_for_another_protocol_is_not_heard(serve: Serve, upstream: StandInUpstream) -> None:
    """A request that would upgrade to HTTP/2, as Java's client sends each, is answered as any; a tunnel is refused."""
    gateway = serve(upstream)
    content = json.dumps(message()).encode()
    lines = ("POST /v1/messages HTTP/1.1", "host: x", f"x-api-key: {KEY}", f"content-length: {len(content)}")
    wish = ("upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAAB")
    first = "\r\n".join((*lines, "connection: upgrade, http2-settings", *wish, "", "")).encode() + content
    last = "\r\n".join((*lines, "connection: upgrade, http2-settings, close", *wish, "", "")).encode() + content
    with connected(gateway) as client:
        client.sendall(first + last)
        assert all_of(client).count(b"HTTP/1.1 200 ") == 2
    assert [request.body for request in upstream.requests] == [content, content]
    assert not {"upgrade", "http2-settings"} & upstream.requests[0].headers.keys()
    with connected(gateway) as client:
        client.sendall(b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("model", ["a\r\nset-cookie: x", "m" * 300, "\ud800", "a\u2028b"])
def test_a_models_name_is_a_name(serve: Serve, upstream: StandInUpstream, model: str) -> None:
    """One that would break a header or fill a ledger is refused; one that is only foreign is not."""
    upstream.strict = False
    gateway = serve(upstream)
    answer = send(gateway, KEY, message(model))
    assert answer.status_code == 400
    assert "model" in answer.json()["error"]["message"]
    assert "set-cookie" not in answer.headers
    assert send(gateway, KEY, message("modèle-日本")).status_code == 200


def test_names_that_clients_make_up_do_not_fill_the_metrics(serve: Serve, upstream: StandInUpstream) -> None:
    """After some dozens of unknown models the others are counted together."""
    upstream.strict = False
    gateway = serve(upstream)
    for number in range(60):
        send(gateway, KEY, message(f"made-up-{number}"))
    series = [line for line in HTTP.get(f"{gateway.url}/metrics").text.splitlines() if "tierwise_calls_total{" in line]
    assert len(series) == 51
    assert any('model="(other)"' in line and line.endswith(" 10.0") for line in series)


class _Broken(Gateway):
    """With a fault of our own."""

    async def _models(self, scope: Scope, send: Send) -> None:
        raise ValueError("".join(("zanzi", "barine")))  # whose source line does not hold the word


def test_a_fault_of_ours_is_an_error_like_any(
    upstream: StandInUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """500 in the dialect; the log says where it was, and neither says what the exception did: it may quote a prompt."""
    sent: list[Any] = []

    async def ask() -> None:
        async def receive() -> dict[str, Any]:
            raise AssertionError("nothing is read")

        async def send(message: Any) -> None:
            sent.append(message)

        gateway = _Broken(settings_for(upstream, tmp_path))
        await gateway({"type": "http", "method": "GET", "path": "/v1/models", "headers": []}, receive, send)
        await gateway.aclose()

    asyncio.run(ask())
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["type"] == "api_error"
    assert "_models" in caplog.text
    assert "zanzibarine" not in caplog.text + str(sent)


# What a client may ask of a connection


@pytest.mark.parametrize(
    "headers",
    ["".join(f"x-{n}: 1\r\n" for n in range(5_000)), f"x: {'a' * 300_000}\r\n"],
    ids=["many headers", "a long header"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_head_has_limits(serve: Serve, upstream: StandInUpstream, headers: str, whole: bool) -> None:
    """431 as soon as it is too much, also where it never ends."""
    gateway = serve(upstream)
    with connected(gateway) as client:
        try:
            client.sendall(f"POST /v1/messages HTTP/1.1\r\nhost: x\r\n{headers}".encode())
            if whole:
                client.sendall(b"content-length: 2\r\n\r\n{}")
            said = all_of(client)
        except ConnectionError:  # closed before all was sent
            said = b""
    assert said == b"" or said.startswith(b"HTTP/1.1 431 ")
    assert said.count(b"HTTP/1.1") <= 1
    assert not upstream.requests
    assert send(gateway, KEY).status_code == 200


def test_a_client_that_says_nothing_is_let_go(serve: Serve, upstream: StandInUpstream) -> None:
    """Neither an empty connection nor half a head is kept; one that waits between two requests is."""
    gateway = serve(upstream, connections=ConnectionLimits(head_seconds=2.0, sweep_seconds=0.05))
    with connected(gateway) as silent, connected(gateway) as halting, connected(gateway) as idle:
        halting.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-a")
        idle.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert health(idle).startswith(b"HTTP/1.1 200")
        for client in (silent, halting):
            with suppress(ConnectionResetError):
                assert client.recv(4096) == b""
        idle.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert health(idle).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_its_answer_is_let_go(serve: Serve, upstream: StandInUpstream) -> None:
    """Its connection is closed, its call ends upstream too, and is recorded."""
    upstream.reply(StandInReply.of_text("a long answer " * 2_000_000))
    gateway = serve(upstream, connections=ConnectionLimits(unread_seconds=0.3, sweep_seconds=0.05))
    body = json.dumps(message(stream=True)).encode()
    with connected(gateway) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        ends = time.monotonic() + 60
        while not (calls := gateway.calls()) or calls[0].call.status.value == "open":
            assert time.monotonic() < ends
            time.sleep(0.05)
    assert calls[0].call.status.value == "cancelled"
    assert upstream.requests[0].wait_finished()


def test_a_header_does_not_take_a_call_out_of_its_keys_project(
    serve: Serve, upstream: StandInUpstream, own: Settings
) -> None:
    """Budgets are by project: a key that has one keeps it, and only a key without one may name its own.

    Each call is on record with the key that it came with.
    """
    gateway = serve(upstream, settings=own)
    ids = []
    for name, project in (("bound", "search"), ("free", None)):
        secret, made = key(gateway, name, project=project)
        ids.append(made.key_id)
        assert send(gateway, secret, x_tierwise_project="elsewhere").status_code == 200
    assert [found.call.project for found in gateway.calls()] == ["search", "elsewhere"]
    assert [found.call.key_id for found in gateway.calls()] == ids
