"""A gateway of this process that listens: for programs that it starts, which can be told of an address only.

It listens on a free port of loopback for as long as the process lives, and answers only who brings the secret that
it was made with: others on this machine must not spend what its keys are good for.
"""

from __future__ import annotations

import atexit
import secrets
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from tierwise.core.errors import ConfigError
from tierwise.core.settings import Settings

if TYPE_CHECKING:
    from tierwise.gateway.server import GatewayServer
    from tierwise.ledger import Ledger

__all__ = ["SECRET_HEADER", "ListeningGateway"]

SECRET_HEADER = "x-tierwise-process"  # noqa: S105  its name
_START_SECONDS = 15.0
_LAST_SECONDS = 10.0


class ListeningGateway:
    """Starts when it is made. Closed when the process ends, or by `close`.

    Args:
        settings: the configuration. Whatever it says of where to listen, this one does not.
        ledger: where calls are recorded; the configured one when None.

    Raises:
        ConfigError: it cannot be started; says why.
    """

    def __init__(self, settings: Settings, *, ledger: Ledger | None = None) -> None:
        from tierwise.gateway.extra import check_installed  # noqa: PLC0415

        check_installed()
        self.settings = settings
        self.secret = secrets.token_urlsafe(24)
        self._up = threading.Event()
        self._server = self._made(ledger)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.run, name="tierwise-gateway", daemon=True)
        self._thread.start()
        if not self._up.wait(_START_SECONDS):
            raise ConfigError(f"the gateway did not start within {_START_SECONDS:g} s; `tierwise serve` says why")
        _open.add(self)

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Lets running calls finish, for a time; every record is written."""
        self._server.stop()
        self._thread.join(_LAST_SECONDS)

    def _made(self, ledger: Ledger | None) -> GatewayServer:
        from tierwise.gateway.app import Gateway  # noqa: PLC0415
        from tierwise.gateway.asgi import Receive, Scope, Send, send_error  # noqa: PLC0415
        from tierwise.gateway.server import GatewayServer, listen  # noqa: PLC0415
        from tierwise.wire.endings import Dialect  # noqa: PLC0415

        header, secret, up = SECRET_HEADER.encode(), self.secret.encode(), self._up

        class Guarded(Gateway):
            """For those alone who know the secret."""

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "http" and not _knows(scope["headers"]):
                    message = "tierwise: this gateway is of another process; start one with `tierwise serve`"
                    await send_error(send, Dialect.ANTHROPIC, status=401, kind="authentication_error", message=message)
                    return
                await super().__call__(scope, receive, send)

        def _knows(headers: Iterable[tuple[bytes, bytes]]) -> bool:
            return any(name == header and secrets.compare_digest(value, secret) for name, value in headers)

        async def tell() -> None:
            await server.up()
            up.set()

        gateway = replace(self.settings.gateway, host="127.0.0.1", port=0, workers=1, drain_seconds=_LAST_SECONDS)
        app = Guarded(replace(self.settings, gateway=gateway), ledger=ledger)
        server = GatewayServer(app, listen("127.0.0.1", 0), beside=tell)
        return server


_open: weakref.WeakSet[ListeningGateway] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for gateway in list(_open):
        with suppress(RuntimeError):  # its loop is gone already
            gateway.close()
