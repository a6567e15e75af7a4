"""Proxies of the environment (`HTTPS_PROXY` and the like), for the gateway's own HTTP client.

What is read, and what it means, is what curl, httpx and the vendors' SDKs make of it: `HTTPS_PROXY`, `HTTP_PROXY`,
`ALL_PROXY` and `NO_PROXY`, in either case, by way of the standard library. What runs on this machine is never reached
through a proxy. A TLS connection goes through a tunnel (`CONNECT`), so that the proxy sees the host's name and nothing
else; a plain one is asked for by its whole address.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass_environment  # type: ignore[attr-defined] # not in typeshed

from tierwise.providers._http import is_loopback

__all__ = ["Proxies", "Proxy", "TunnelRefused", "open_tunnel"]

_MOST_HEAD_BYTES = 64 * 1024


class TunnelRefused(OSError):
    """The proxy answered, and not with a tunnel."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy listens, and what it wants to be told of who asks."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)  # of `Proxy-Authorization`

    @classmethod
    def of(cls, url: str) -> Proxy:
        """From `[http://][user:password@]host[:port]`.

        Raises:
            ValueError: it is no such address; a proxy that is itself reached by TLS or SOCKS is not spoken to.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        where = f"{parts.scheme}://{parts.hostname or ''}"  # the address without its password
        if parts.scheme != "http":
            raise ValueError(f"the proxy {where} of the environment: only http:// proxies can be used")
        try:
            port = parts.port or 80
        except ValueError:
            port = 0
        if not parts.hostname or not port:
            raise ValueError(f"the proxy {where} of the environment is no http://host:port")
        if parts.username is None:
            return cls(parts.hostname, port)
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        return cls(parts.hostname, port, b"Basic " + base64.b64encode(who))


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy leads where: addresses by scheme, and under `no` the hosts that are reached without one."""

    known: Mapping[str, str] = field(default_factory=dict, repr=False)  # an address may hold a password

    @classmethod
    def of_environment(cls) -> Proxies:
        """As the environment (or the system, on macOS and Windows) has them now."""
        return cls(getproxies())

    def leading_to(self, scheme: str, host: str) -> Proxy | None:
        """None where the host is reached directly. Raises `ValueError` where the address of its proxy is none."""
        url = self.known.get(scheme) or self.known.get("all")
        if not url or is_loopback(f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"):
            return None
        if proxy_bypass_environment(host, {"no": self.known.get("no", "")}):
            return None
        return Proxy.of(url)


class _Asking(asyncio.Protocol):
    """A connection to a proxy until it has answered. (A `StreamWriter` would close it when it is forgotten.)"""

    def __init__(self) -> None:
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self.head.done():
            return
        if b"\r\n\r\n" in self._got:
            self.head.set_result(self._got)
        elif len(self._got) > _MOST_HEAD_BYTES:
            self.head.set_result(b"")

    def connection_lost(self, error: Exception | None) -> None:
        if not self.head.done():
            self.head.set_result(b"")


async def open_tunnel(proxy: Proxy, host: str, port: int, protocol: asyncio.Protocol, tls: ssl.SSLContext) -> None:
    """Connects a protocol to a host through a proxy, by TLS: its `connection_made` is called when that stands.

    Raises:
        TunnelRefused: the proxy would not.
        OSError, ssl.SSLError: it cannot be reached, or the host's certificate is not to be trusted.
    """
    loop = asyncio.get_running_loop()
    name = host.encode("idna").decode("ascii")
    target = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    lines = [b"CONNECT %b HTTP/1.1" % target.encode(), b"Host: %b" % target.encode()]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    transport, asking = await loop.create_connection(_Asking, proxy.host, proxy.port)
    try:
        transport.write(b"\r\n".join([*lines, b"", b""]))
        version, _, status = (await asking.head).split(b"\r\n", 1)[0].partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise TunnelRefused(f"the proxy {proxy.host}:{proxy.port} gave no answer that is HTTP")
        if not status.startswith(b"2"):
            said = status[:80].decode("ascii", "replace")
            raise TunnelRefused(f"the proxy {proxy.host}:{proxy.port} refused the connection to {target}: {said}")
        secured = await loop.start_tls(transport, protocol, tls, server_hostname=host)
    except BaseException:
        transport.abort()
        raise
    if secured is None:  # it was lost as it stood
        raise ConnectionResetError(f"the connection to {target} was lost")
    protocol.connection_made(secured)
