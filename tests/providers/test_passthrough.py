"""The gateway's HTTP client: bytes out, bytes in, and the truth about what broke."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tierwise.providers.passthrough import Endpoint, PassThrough, Timeouts, UpstreamFailed, UpstreamTimeout
from tierwise.testing import Fault, StandInUpstream

HEADERS = [(b"x-api-key", b"k"), (b"anthropic-version", b"2023-06-01"), (b"content-type", b"application/json")]
QUICK = Timeouts(connect=2.0, first_byte=2.0, idle=2.0)


def body(*, stream: bool = False, text: str = "Say hello") -> bytes:
    value = {"model": "claude-haiku-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": text}]}
    return json.dumps({**value, "stream": True} if stream else value).encode()


@pytest.fixture
async def pool() -> AsyncIterator[PassThrough]:
    client = PassThrough()
    yield client
    await client.aclose()


async def test_bytes_go_and_come_as_they_are(pool: PassThrough) -> None:
    """Body and headers arrive unchanged, and the answer with its status and headers."""
    with StandInUpstream() as upstream:
        upstream.reply("hello")
        answer = await pool.request(
            Endpoint.of(upstream.url), "POST", "/v1/messages?beta=true", [*HEADERS, (b"x-odd", b"a, b")], body=body()
        )
        message = json.loads(await answer.read())
    (request,) = upstream.requests
    assert request.body == body()
    assert request.query == "beta=true"
    assert request.headers["x-odd"] == "a, b"
    assert (answer.status, message["content"][0]["text"]) == (200, "hello")
    assert answer.header(b"content-type") == b"application/json"


async def test_a_stream_comes_piece_by_piece_and_whole(pool: PassThrough) -> None:
    """However the network cuts it, the bytes of a stream are all there, in order."""
    with StandInUpstream() as upstream:
        upstream.reply("a longer text in several pieces " * 20)
        upstream.fail(Fault.trickle(7))
        endpoint = Endpoint.of(upstream.url)
        whole = await (await pool.request(endpoint, "POST", "/v1/messages", HEADERS, body=body(stream=True))).read()
        pieces = [
            piece
            async for piece in await pool.request(endpoint, "POST", "/v1/messages", HEADERS, body=body(stream=True))
        ]
    assert whole.rstrip().endswith(b'{"type":"message_stop"}') or b"message_stop" in whole[-80:]
    assert b"message_stop" in b"".join(pieces)[-80:]


async def test_connections_are_kept(pool: PassThrough) -> None:
    """Requests one after another share a connection."""
    with StandInUpstream() as upstream:
        for _ in range(5):
            answer = await pool.request(Endpoint.of(upstream.url), "POST", "/v1/messages", HEADERS, body=body())
            await answer.read()
        assert upstream.connections == 1


async def test_a_connection_that_was_closed_while_idle_is_replaced(pool: PassThrough) -> None:
    """A server that closed an idle connection loses no request, and gets it once."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()  # without having said so

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], False, "")
    async with server:
        for _ in range(3):
            answer = await pool.request(endpoint, "GET", "/", [])
            assert await answer.read() == b"ok"
    assert len(seen) == 3


async def test_a_request_that_was_answered_in_part_is_not_sent_again(pool: PassThrough) -> None:
    """Once a byte of an answer came, a broken connection is told and nothing is repeated."""
    with StandInUpstream() as upstream:
        upstream.fail(Fault.cut(after_events=3))
        answer = await pool.request(Endpoint.of(upstream.url), "POST", "/v1/messages", HEADERS, body=body(stream=True))
        with pytest.raises(UpstreamFailed) as failed:
            await answer.read()
        assert failed.value.answered
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.lie_about_length()])
async def test_a_broken_answer_is_a_failure(pool: PassThrough, fault: Fault) -> None:
    """A reset, or fewer bytes than were promised."""
    with StandInUpstream() as upstream:
        upstream.fail(fault)
        with pytest.raises(UpstreamFailed):
            answer = await pool.request(Endpoint.of(upstream.url), "POST", "/v1/messages", HEADERS, body=body())
            await answer.read()


async def test_silence_ends_in_a_timeout(pool: PassThrough) -> None:
    """Before the first byte and in the middle of a stream."""
    with StandInUpstream() as upstream:
        endpoint = Endpoint.of(upstream.url)
        upstream.fail(Fault.stall())
        with pytest.raises(UpstreamTimeout) as first:
            await (
                await pool.request(endpoint, "POST", "/v1/messages", HEADERS, body=body(stream=True), timeouts=QUICK)
            ).read()
        upstream.fail(Fault.stall(after_events=2))
        with pytest.raises(UpstreamTimeout) as later:
            await (
                await pool.request(endpoint, "POST", "/v1/messages", HEADERS, body=body(stream=True), timeouts=QUICK)
            ).read()
    assert later.value.answered
    assert "2 s" in str(first.value)


async def test_closing_an_answer_hangs_up(pool: PassThrough) -> None:
    """The upstream notices at once that nobody listens any more."""
    with StandInUpstream() as upstream:
        upstream.fail(Fault.stall(after_events=2))
        answer = await pool.request(Endpoint.of(upstream.url), "POST", "/v1/messages", HEADERS, body=body(stream=True))
        await anext(answer)
        answer.close()
        request = upstream.requests[0]
        assert await asyncio.to_thread(request.wait_finished)
        assert request.closed_early
    assert pool.active == 0


async def test_a_cancelled_request_hangs_up(pool: PassThrough) -> None:
    """Also while its head is still awaited."""
    with StandInUpstream() as upstream:
        upstream.fail(Fault.stall())
        task = asyncio.create_task(
            pool.request(Endpoint.of(upstream.url), "POST", "/v1/messages", HEADERS, body=body())
        )
        while not upstream.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(upstream.requests[0].wait_finished)
    assert pool.active == 0


async def test_what_is_no_http_is_said(pool: PassThrough) -> None:
    """A server that speaks something else is a failure with words."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], False, "")
        with pytest.raises(UpstreamFailed, match="does not speak HTTP"):
            await pool.request(endpoint, "GET", "/", [])


async def test_nobody_there_is_said(pool: PassThrough) -> None:
    """A refused connection names the host."""
    with pytest.raises(UpstreamFailed, match=r"no connection to 127\.0\.0\.1:1"):
        await pool.request(Endpoint("127.0.0.1", 1, False, ""), "GET", "/", [])


async def test_a_slow_reader_slows_the_upstream(pool: PassThrough) -> None:
    """What nobody reads is not piled up in memory."""
    sent = 0
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        try:
            while not stop.is_set():
                writer.write(piece)
                await writer.drain()
                sent += 65_536
        except ConnectionError:
            return

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], False, "")
        answer = await pool.request(endpoint, "GET", "/", [])
        last = -1
        while sent != last:  # until nothing moves any more
            last = sent
            await asyncio.sleep(0.2)
        held = sum(map(len, answer._pieces))
        assert held < 4 * 1024 * 1024
        for _ in range(20):
            await anext(answer)
        assert sent > last
        stop.set()
        answer.close()


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """Configuration is checked before anything is sent."""
    with pytest.raises(ValueError, match="no http"):
        Endpoint.of(url)


def test_an_address_is_taken_apart() -> None:
    """Host, port, prefix and what goes into the Host header."""
    assert Endpoint.of("https://api.anthropic.com") == Endpoint("api.anthropic.com", 443, True, "")
    assert Endpoint.of("http://[::1]:8080/x/").authority == b"[::1]:8080"
    assert Endpoint.of("https://a.b/x/").prefix == "/x"


async def test_who_gives_up_as_the_answer_comes_does_not_hang_up_on_the_next(pool: PassThrough) -> None:
    """The connection is free again by then, and may serve another request: that one must not be cut."""
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        endpoint = Endpoint.of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        first = asyncio.create_task(pool.request(endpoint, "GET", "/", []))
        await asyncio.wait_for(asked.wait(), 60)
        (connection,) = pool._active
        # All in one turn of the loop: it is cancelled, its answer comes, and somebody else takes the connection.
        first.cancel()
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst")
        assert pool._take(endpoint) is connection
        pool._active.add(connection)
        head = connection.send([b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"], QUICK)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await (await asyncio.wait_for(head, 60)).read() == b"second"
        await pool.aclose()
