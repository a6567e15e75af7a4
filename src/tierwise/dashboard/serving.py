"""Serves the dashboard without a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

from tierwise.dashboard.runtime import Alone
from tierwise.dashboard.web import Receive, Scope, Send

__all__ = ["serve"]

_LAST_SECONDS = 2  # longer than it takes until who listens is sent away


def serve(application: Callable[[Scope, Receive, Send], Awaitable[None]], sock: socket.socket, runtime: Alone) -> None:
    """Serves until Ctrl-C or SIGTERM."""
    import uvicorn  # noqa: PLC0415  the gateway's extra

    class Server(uvicorn.Server):
        """uvicorn's, but that who listens is told when it ends."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            runtime.stopping = True
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Server(config).serve(sockets=[sock]))
