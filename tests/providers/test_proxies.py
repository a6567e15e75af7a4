"""The gateway's HTTP client behind a proxy, and by TLS: real connections, a real proxy, certificates of our own."""

from __future__ import annotations

import asyncio
import base64

import pytest
from tests.network import HOST, Authority, ForwardProxy, port_of, served, with_tls

from tierwise.providers.passthrough import Endpoint, PassThrough, Timeouts, UpstreamFailed, UpstreamTimeout
from tierwise.providers.proxies import Proxies, Proxy
from tierwise.testing import StandInUpstream

HEADERS = [(b"x-api-key", b"sk-ant-secret"), (b"anthropic-version", b"2023-06-01")]
BODY = b'{"model":"claude-haiku-5-5","max_tokens":64,"messages":[{"role":"user","content":"Say hello"}]}'
QUICK = Timeouts(connect=0.5)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def ask(pool: PassThrough, url: str, timeouts: Timeouts | None = None) -> int:
    try:
        answer = await pool.request(
            Endpoint.of(url), "POST", "/v1/messages", HEADERS, body=BODY, timeouts=timeouts or Timeouts()
        )
        await answer.read()
        return answer.status
    finally:
        await pool.aclose()


async def test_tls_goes_through_a_tunnel(authority: Authority) -> None:
    """The proxy is told the host and the password, and sees neither path nor key; the tunnel is used again."""
    with StandInUpstream() as upstream, with_tls(port_of(upstream.url), authority) as port:
        proxy = ForwardProxy(port)
        with served(proxy) as there:
            proxies = Proxies({"https": f"http://some%40one:p%3Aw@127.0.0.1:{there}"})
            pool = PassThrough(tls=authority.client(), proxies=proxies)
            endpoint = Endpoint.of(f"https://{HOST}")
            for _ in range(3):
                answer = await pool.request(endpoint, "POST", "/v1/messages", HEADERS, body=BODY)
                assert (await answer.read()).startswith(b"{")
                assert answer.status == 200
            await pool.aclose()
        assert [request.headers["x-api-key"] for request in upstream.requests] == ["sk-ant-secret"] * 3
        assert {request.headers["host"] for request in upstream.requests} == {HOST}
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n".encode())
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"some@one:p:w") in head
    assert b"sk-ant-secret" not in head
    assert b"/v1/messages" not in head


async def test_a_stream_comes_through_a_tunnel_whole(authority: Authority) -> None:
    """Pieces of any size, and what came with the handshake."""
    with StandInUpstream() as upstream, with_tls(port_of(upstream.url), authority) as port:
        upstream.reply("many words " * 3000)
        with served(ForwardProxy(port)) as there:
            pool = PassThrough(tls=authority.client(), proxies=Proxies({"all": f"127.0.0.1:{there}"}))
            body = BODY.replace(b'"max_tokens"', b'"stream":true,"max_tokens"')
            answer = await pool.request(Endpoint.of(f"https://{HOST}"), "POST", "/v1/messages", HEADERS, body=body)
            whole = await answer.read()
            await pool.aclose()
    assert whole.count(b"event: content_block_delta") > 2000
    assert b"message_stop" in whole[-80:]


async def test_plain_http_is_asked_for_by_its_whole_address() -> None:
    """As a proxy wants it; the upstream gets the request all the same."""
    with StandInUpstream() as upstream:
        proxy = ForwardProxy(port_of(upstream.url))
        with served(proxy) as there:
            pool = PassThrough(proxies=Proxies({"http": f"http://u:p@127.0.0.1:{there}"}))
            assert await ask(pool, f"http://{HOST}:8080/prefix") in {200, 404}
    (head,) = proxy.heads
    assert head.startswith(f"POST http://{HOST}:8080/prefix/v1/messages HTTP/1.1\r\n".encode())
    assert b"\r\nproxy-authorization: Basic dTpw\r\n" in head


async def test_a_proxy_that_refuses_is_quoted(authority: Authority) -> None:
    """Who said what, in words that tell where to look, without the password."""
    proxy = ForwardProxy(0, b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
    with served(proxy) as there:
        pool = PassThrough(tls=authority.client(), proxies=Proxies({"https": f"http://u:hunter2@127.0.0.1:{there}"}))
        with pytest.raises(UpstreamFailed) as failed:
            await ask(pool, f"https://{HOST}")
    said = str(failed.value)
    assert f"the proxy 127.0.0.1:{there} refused the connection to {HOST}:443: 407 Proxy Authentication" in said
    assert "hunter2" not in said
    assert not failed.value.answered


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.9\r\n\r\n", b"", b"x" * 100_000])
async def test_a_proxy_that_is_none_is_said(authority: Authority, answer: bytes) -> None:
    """Something else listens there, or hangs up."""
    with served(ForwardProxy(0, answer)) as there:
        pool = PassThrough(tls=authority.client(), proxies=Proxies({"https": f"http://127.0.0.1:{there}"}))
        with pytest.raises(UpstreamFailed, match=rf"the proxy 127\.0\.0\.1:{there}"):
            await ask(pool, f"https://{HOST}")


async def test_a_proxy_that_is_not_there_is_named() -> None:
    """Not the host's fault."""
    pool = PassThrough(proxies=Proxies({"https": "http://127.0.0.1:1"}))
    with pytest.raises(UpstreamFailed, match=rf"no connection to {HOST}:443 by the proxy 127\.0\.0\.1:1"):
        await ask(pool, f"https://{HOST}")


async def test_a_silent_proxy_ends_in_a_timeout() -> None:
    """The time to connect counts for both."""

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with served(silent) as there:
        pool = PassThrough(proxies=Proxies({"https": f"http://127.0.0.1:{there}"}))
        with pytest.raises(UpstreamTimeout, match=r"within 0\.5 s"):
            await ask(pool, f"https://{HOST}", QUICK)


@pytest.mark.parametrize("by_proxy", [True, False])
async def test_a_certificate_of_nobody_is_refused(authority: Authority, by_proxy: bool) -> None:
    """Also inside a tunnel: nobody in the middle reads the key."""
    with (
        StandInUpstream() as upstream,
        with_tls(port_of(upstream.url), authority) as port,
        served(ForwardProxy(port)) as there,
    ):
        proxies = Proxies({"https": f"http://127.0.0.1:{there}"} if by_proxy else {})
        url = f"https://{HOST}" if by_proxy else f"https://127.0.0.1:{port}"
        with pytest.raises(UpstreamFailed, match="no connection to"):
            await ask(PassThrough(proxies=proxies), url)
        assert upstream.requests == []


@pytest.mark.parametrize(
    ("scheme", "host", "through"),
    [
        ("https", "api.anthropic.com", True),
        ("http", "10.0.0.8", True),
        ("https", "inside.corp.example", False),
        ("https", "corp.example", False),
        ("https", "corp.example.com", True),
        ("http", "localhost", False),
        ("http", "127.0.0.1", False),
        ("http", "::1", False),
    ],
)
def test_which_hosts_are_reached_by_the_proxy(scheme: str, host: str, through: bool) -> None:
    """`NO_PROXY` names domains; this machine is always reached directly."""
    proxies = Proxies({"all": "http://proxy:3128", "no": "corp.example,169.254.169.254"})
    assert (proxies.leading_to(scheme, host) is not None) is through
    assert Proxies({}).leading_to(scheme, host) is None
    assert Proxies({"all": "http://proxy:3128", "no": "*"}).leading_to(scheme, host) is None


@pytest.mark.parametrize("url", ["socks5://p:1", "https://p", "http://", "http://p:99999", "http://p:x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """With what is wrong; never by going without the proxy."""
    with pytest.raises(ValueError, match="of the environment"):
        Proxy.of(url)


async def test_a_bad_address_fails_the_request_with_words() -> None:
    """The climb and the client are told."""
    pool = PassThrough(proxies=Proxies({"https": "socks5://127.0.0.1:9050"}))
    with pytest.raises(UpstreamFailed, match="only http:// proxies"):
        await ask(pool, f"https://{HOST}")
