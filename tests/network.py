"""Real TLS, a real proxy and ports on loopback, for tests of what lies between tierwise and an API."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import trustme

HOST = "api.upstream.test"  # no such host: only the proxy knows where it is

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Authority:
    """Certificates that nobody else trusts."""

    ca: trustme.CA = field(default_factory=trustme.CA)

    def server(self, host: str = HOST) -> ssl.SSLContext:
        """For the server of a host."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(host).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """For a client that trusts them."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def file(self, folder: Path) -> Path:
        """A file for `SSL_CERT_FILE`."""
        path = folder / "authority.pem"
        self.ca.cert_pem.write_to_path(str(path))
        return path


@contextmanager
def served(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server in a thread of its own; its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):  # the test is over
            await handler(reader, writer)

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)

    async def end() -> None:
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Bytes both ways between a client and a port of this machine, until either has no more."""
    there, back = await asyncio.open_connection("127.0.0.1", port)

    async def one_way(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await source.read(65_536):
                target.write(piece)
                await target.drain()
        target.close()

    await asyncio.gather(one_way(reader, back), one_way(there, writer))


def unused_port() -> int:
    """A port for a program that a test starts; below those that the system gives away to others meanwhile."""
    for port in random.sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("every port that was tried is taken")


def port_of(url: str) -> int:
    """The port that a URL names."""
    port = urlsplit(url).port
    assert port is not None
    return port


@contextmanager
def with_tls(port: int, authority: Authority) -> Iterator[int]:
    """The same server, spoken to by TLS as `HOST`; its port."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, port)

    with served(handler, authority.server()) as own:
        yield own


@dataclass
class ForwardProxy:
    """An HTTP proxy that sends every host to one port, and keeps the heads that it was sent."""

    target: int
    answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
    heads: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if not head.startswith(b"CONNECT "):
            body = await reader.read(65_536) if b"content-length" in head else b""
            back, out = await asyncio.open_connection("127.0.0.1", self.target)
            out.write(head + body)
            writer.write(await back.read(65_536))
            writer.close()
            return
        writer.write(self.answer)
        if b" 200 " in self.answer:
            await relay(reader, writer, self.target)
        writer.close()
