"""The gateway in a network that lets nobody out but through a proxy, and that has certificates of its own."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gateway.conftest import Run
from tests.network import HOST, Authority, ForwardProxy, port_of, served, with_tls
from tierwise.core.decisions import CallStatus
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream

BODY = {
    "model": "claude-haiku-5-5",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "Summarise this ticket in one line: it burns"}],
}


def test_the_environment_says_how_to_get_out(run: Run, upstream: StandInUpstream, tmp_path: Path) -> None:
    """HTTPS_PROXY and SSL_CERT_FILE hold for calls that pass through and for routed ones, streamed or not."""
    authority = Authority()
    with with_tls(port_of(upstream.url), authority) as port:
        proxy = ForwardProxy(port)
        with served(proxy) as there:
            environment = {
                "HTTPS_PROXY": f"http://127.0.0.1:{there}",
                "SSL_CERT_FILE": str(authority.file(tmp_path)),
                "ANTHROPIC_BASE_URL": f"https://{HOST}",
            }
            gateway = run(upstream, env=environment)
            for model in ("claude-haiku-5-5", "claude-tierwise-auto"):
                for stream in (False, True):
                    answer = gateway.post(json.dumps({**BODY, "model": model, "stream": stream}))
                    assert answer.status_code == 200, answer.text
            gateway.process.terminate()
            assert gateway.ended() == 0
    assert len(upstream.requests) == 4
    assert {head.split(b"\r\n")[0] for head in proxy.heads} == {f"CONNECT {HOST}:443 HTTP/1.1".encode()}
    with Ledger(gateway.ledger_path) as ledger:
        assert [found.call.status for found in ledger.calls()] == [CallStatus.ANSWERED] * 4


def test_a_proxy_that_refuses_is_told_to_the_client(run: Run, upstream: StandInUpstream) -> None:
    """An error in the API's shape, with whom to ask."""
    proxy = ForwardProxy(0, b"HTTP/1.1 403 Not today\r\n\r\n")
    with served(proxy) as there:
        environment = {"https_proxy": f"127.0.0.1:{there}", "ANTHROPIC_BASE_URL": f"https://{HOST}"}
        gateway = run(upstream, env=environment)
        answer = gateway.post(json.dumps(BODY))
    assert answer.status_code in {502, 503, 529}
    assert f"the proxy 127.0.0.1:{there} refused the connection to {HOST}:443: 403 Not today" in answer.text
