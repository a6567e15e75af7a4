"""The floor of `gateway.py`: the gateway's own server and client with nothing between them.

    python benchmarks/gateway_floor.py PORT UPSTREAM_URL

uvicorn as the gateway configures it, a raw ASGI application, and `PassThrough`: bytes in, bytes out. It parses no body,
routes nothing, prices nothing, records nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tierwise.providers.passthrough import Endpoint, PassThrough

_NOT_FORWARDED = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding"})


class Floor:
    """An ASGI application that forwards."""

    def __init__(self, upstream: str) -> None:
        self.endpoint = Endpoint.of(upstream)
        self.client = PassThrough()

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """One request."""
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body"):
            pieces = [body]
            while message.get("more_body"):
                message = await receive()
                pieces.append(message.get("body", b""))
            body = b"".join(pieces)
        headers = [header for header in scope["headers"] if header[0] not in _NOT_FORWARDED]
        answer = await self.client.request(self.endpoint, scope["method"], scope["path"], headers, body=body)
        kept = [header for header in answer.headers if header[0] not in _NOT_FORWARDED]
        start = {"type": "http.response.start", "status": answer.status, "headers": kept}
        if answer.header(b"content-length") is not None:
            whole = await answer.read()
            kept.append((b"content-length", b"%d" % len(whole)))
            await send(start)
            await send({"type": "http.response.body", "body": whole})
            return
        await send(start)
        more = True
        async for piece in answer:
            more = not answer.whole
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        if more:
            await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serves until it is killed."""
    import uvicorn

    uvicorn.run(
        Floor(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=2048,
    )


if __name__ == "__main__":
    main()
