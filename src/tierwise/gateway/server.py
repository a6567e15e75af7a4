"""Runs the application: uvicorn, signals, reloading.

SIGTERM and SIGINT let running calls finish (`gateway.drain_seconds`); meanwhile it still listens, so that who comes is
told to come again (503) and what watches `/readyz` sees why. A second signal ends it at once. SIGHUP reads the
configuration anew, as does a changed file; a file that cannot be used is told of and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

from tierwise.core.collector import calm_collector
from tierwise.core.errors import ConfigError, TierwiseError
from tierwise.core.settings import Settings
from tierwise.gateway.app import Gateway
from tierwise.gateway.connections import ConnectionLimits, protocol_class, sweep

__all__ = ["GatewayServer", "check_upstreams", "keep_reading", "listen", "loop_factory"]

_log = logging.getLogger("tierwise.gateway")
_WATCH_SECONDS = 2.0
_LAST_SECONDS = 1  # for what is no call, and for calls that were cancelled when the time for draining was over


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the address cannot be used; says why and what to do.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except (OSError, OverflowError) as error:
        what = error.strerror if isinstance(error, OSError) else "the port is out of range"
        raise ConfigError(
            f"the gateway cannot listen on {host}:{port} ({what}); is one running already? Another port: --port"
        ) from None
    sock.setblocking(False)
    return sock


def check_upstreams(settings: Settings, port: int) -> None:
    """Refuses an upstream that is this gateway itself: ANTHROPIC_BASE_URL may be set for its clients.

    Raises:
        ConfigError: says which provider.
    """
    from tierwise.providers.passthrough import Endpoint  # noqa: PLC0415

    for provider in settings.providers.values():
        if provider.base_url is None:
            continue
        endpoint = Endpoint.of(provider.base_url)
        if endpoint.port == port and endpoint.host in ("127.0.0.1", "localhost", "::1", settings.gateway.host):
            raise ConfigError(
                f"providers.{provider.name} points at this gateway itself ({provider.base_url}); is ANTHROPIC_BASE_URL "
                "set in this shell? Unset it for `tierwise serve`, it is meant for the gateway's clients"
            )


class GatewayServer:
    """A gateway that listens.

    Args:
        gateway: the application.
        sock: a listening socket, as `listen` makes it; None for a worker, which is handed its connections (`take`).
        reload: reads the configuration anew; None: it is never reloaded.
        watched: files whose change reloads it.
        limits: what a client may ask of a connection; by default as `gateway.body_timeout_seconds` says.
        beside: runs for as long as it serves.
        drains: called once when it begins to let running calls finish, a moment before it ends if there are none.

    A worker is told to stop by its supervisor: SIGTERM lets its running calls finish however often it comes, and
    SIGINT, which a terminal sends to all, is left out.
    """

    def __init__(
        self,
        gateway: Gateway,
        sock: socket.socket | None,
        *,
        reload: Callable[[], Settings] | None = None,
        watched: Sequence[Path] = (),
        limits: ConnectionLimits | None = None,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
        drains: Callable[[], None] | None = None,
    ) -> None:
        import uvicorn  # noqa: PLC0415  the gateway's extra

        self.gateway = gateway
        self.sock = sock
        self.port: int = 0 if sock is None else sock.getsockname()[1]
        self._reload = reload
        self._watched = tuple(watched)
        self._limits = limits or ConnectionLimits(head_seconds=gateway.settings.gateway.body_timeout_seconds)
        config = uvicorn.Config(
            gateway,
            http=protocol_class(self._limits),
            loop="asyncio" if sys.platform == "win32" else "uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,  # who the client is matters to nobody here, and headers could only pretend
            backlog=2048,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_LAST_SECONDS,
            h11_max_incomplete_event_size=None,
        )
        self._beside = beside
        self._server = _Server(config, gateway, supervised=sock is None, drains=drains)

    @property
    def started(self) -> bool:
        """Whether it takes requests."""
        return bool(self._server.started)

    async def up(self) -> None:
        """Waits until it takes requests."""
        await self._server.up.wait()

    async def take(self, connection: socket.socket, lost: Callable[[], None]) -> None:
        """Serves a connection that was accepted elsewhere; `lost` is called when it has ended."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def protocol() -> asyncio.Protocol:
            made: Any = self._server.protocol()
            made.lost = lost
            return cast("asyncio.Protocol", made)

        await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)

    def stop(self) -> None:
        """Lets running calls finish, then ends. From any thread."""
        self.gateway.draining = True

    def stop_now(self) -> None:
        """Ends at once; what is open is recorded. Within its event loop."""
        self.gateway.draining = True
        self._server.should_exit = True

    def run(self) -> None:
        """Serves until it is told to stop."""
        calm_collector()
        self._server.config.setup_event_loop = _no_op  # the runner below chooses the loop
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        beside = [
            asyncio.ensure_future(self._watch()),
            asyncio.ensure_future(sweep(self._server.server_state.connections, self._limits)),
        ]
        if self._beside is not None:
            beside.append(asyncio.ensure_future(self._beside()))
        try:
            await self._server.serve(sockets=[] if self.sock is None else [self.sock])
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _watch(self) -> None:
        if self._reload is None:
            return

        async def apply(settings: Settings) -> None:
            self.gateway.reload(settings)

        await keep_reading(self._reload, self._watched, self.port, apply)


async def keep_reading(
    reload: Callable[[], Settings],
    watched: Sequence[Path],
    port: int,
    apply: Callable[[Settings], Coroutine[Any, Any, None]],
) -> None:
    """Reads the configuration anew on SIGHUP, and when a file has changed, for as long as it runs."""
    asked = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    before = _stamps(watched)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WATCH_SECONDS):
                await asked.wait()
        now = _stamps(watched)
        if not asked.is_set() and now == before:
            continue
        asked.clear()
        before = now
        try:
            settings = await asyncio.get_running_loop().run_in_executor(None, reload)
            check_upstreams(settings, port)
            await apply(settings)
        except TierwiseError as error:
            _log.error("the configuration cannot be used, the one before stays: %s", error)
        except Exception as error:  # noqa: BLE001  whatever it is, the gateway goes on, and looks again next time
            _log.error("the configuration cannot be read, the one before stays: %s", type(error).__name__)
        else:
            _log.warning("the configuration was read anew")


def _stamps(paths: Sequence[Path]) -> tuple[tuple[int, int] | None, ...]:
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            info = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((info.st_mtime_ns, info.st_size))
    return tuple(found)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops; None where asyncio's own do."""
    try:
        import uvloop  # noqa: PLC0415  not on Windows
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _no_op(*_: Any, **__: Any) -> None:
    return None


def _server_class() -> type[Any]:
    import uvicorn  # noqa: PLC0415

    class Server(uvicorn.Server):
        """uvicorn's, but that it goes on listening while running calls finish."""

        def __init__(
            self, config: uvicorn.Config, gateway: Gateway, *, supervised: bool, drains: Callable[[], None] | None
        ) -> None:
            super().__init__(config)
            self._gateway = gateway
            self._supervised = supervised
            self._drains = drains
            self._drain_ends: float | None = None
            self.up = asyncio.Event()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.up.set()

        def protocol(self) -> asyncio.Protocol:
            """What a connection is served by."""
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # uvicorn's says less
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        def handle_exit(self, sig: int, frame: Any) -> None:
            if self._supervised:
                self._gateway.draining = self._gateway.draining or sig == signal.SIGTERM
                return
            if self._gateway.draining:
                self.should_exit = True
            self._gateway.draining = True

        async def on_tick(self, counter: int) -> bool:
            """Ten times a second: whether it is over."""
            over = await super().on_tick(counter)
            if over or not self._gateway.draining:
                return over
            now = time.monotonic()
            if self._drain_ends is None:
                self._drain_ends = now + self._gateway.settings.gateway.drain_seconds
                if self._drains is not None:
                    self._drains()
                    return False
            return self._gateway.running == 0 or now >= self._drain_ends

    return Server


def _Server(config: Any, gateway: Gateway, **options: Any) -> Any:  # noqa: N802  stands for the class above, made when uvicorn is there
    return _server_class()(config, gateway, **options)
