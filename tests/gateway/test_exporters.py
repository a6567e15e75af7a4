"""A gateway also takes Claude Code's telemetry, under its keys, beside its own calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gateway.conftest import HTTP, KEY, Serve, Served
from tests.gateway.test_access import key, message
from tests.otlp.events import body, request
from tierwise.ledger.keys import KeyScope
from tierwise.testing import StandInUpstream

JSON = {"content-type": "application/json"}


def export(gateway: Served, content: bytes, path: str = "/v1/logs", **headers: str) -> tuple[int, object]:
    """What an exporter hears."""
    given = {**JSON, **{name.replace("_", "-"): text for name, text in headers.items()}}
    answer = HTTP.post(gateway.url + path, content=content, headers=given)
    return answer.status_code, answer.json()


def test_telemetry_beside_calls(serve: Serve, upstream: StandInUpstream) -> None:
    """What it sent itself is not recorded again; what went elsewhere is."""
    gateway = serve(upstream)
    session = {"x_claude_code_session_id": "s1"}
    assert gateway.post(json.dumps(message()), **session).status_code == 200
    told = {"session.id": "s1", "model": "claude-haiku-5-5"}
    sent = upstream.calls()[0].request_id
    content = body(request(request_id=sent, **told), request(request_id="req_elsewhere", **told))
    assert export(gateway, content) == export(gateway, content) == (200, {})
    assert [stored.attempts[0].request_id for stored in gateway.calls()].count(sent) == 1
    assert len(gateway.calls()) == 2
    assert export(gateway, b"{}", "/v1/metrics") == export(gateway, b"{}", "/v1/traces") == (200, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 what is tested
def test_keys_of_exporters(serve: Serve, upstream: StandInUpstream, host: str) -> None:
    """On loopback nobody needs one; elsewhere it must be for calls, and its project is theirs."""
    gateway = serve(upstream, host=host)
    content = body(request())
    status, told = export(gateway, content)
    assert status == (200 if host == "127.0.0.1" else 401), told
    assert export(gateway, content, x_api_key=KEY)[0] == status
    wrong, _ = key(gateway, "looks", scopes=frozenset({KeyScope.METRICS}))
    assert export(gateway, content, x_api_key=wrong)[0] == 403
    secret, made = key(gateway, "agents", project="shop")
    assert export(gateway, body(request(2)), authorization=f"Bearer {secret}") == (200, {})
    assert (gateway.calls()[-1].call.project, gateway.calls()[-1].call.key_id) == ("shop", made.key_id)


def test_a_gateway_that_was_told_to_stop(serve: Serve, upstream: StandInUpstream, tmp_path: Path) -> None:
    """Exporters are told to send again."""
    gateway = serve(upstream)
    assert export(gateway, body(request()))[0] == 200
    gateway.gateway.running += 1  # a call that is still to finish
    gateway.gateway.draining = True
    assert export(gateway, body(request(2)))[0] == 503
    gateway.gateway.running -= 1
