"""A worker: a process that serves, one of several. Its supervisor (`tierwise.gateway.supervisor`) starts it.

It inherits one end of a line, is told over that what to serve with, and ends with it: a supervisor that was killed
leaves no worker behind. Its connections are handed to it (`tierwise.gateway.handing`). It reads no configuration
itself, so all workers have the same one, also one that starts after a file was spoilt.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from tierwise.core.errors import TierwiseError
from tierwise.core.json import Json
from tierwise.gateway.app import Gateway
from tierwise.gateway.handing import Taking
from tierwise.gateway.line import Frame, Line, read_first
from tierwise.gateway.server import GatewayServer
from tierwise.gateway.setup import unpacked_settings
from tierwise.gateway.shared import Shared
from tierwise.gateway.telemetry import otlp_tracer, set_up_logging
from tierwise.ledger.turnstile import Turnstile

__all__ = ["main"]

_FIGURES_SECONDS = 2.0
_ALONE_SECONDS = 15.0  # that a worker without a supervisor may take to end

_log = logging.getLogger("tierwise.gateway")


class _Worker:
    def __init__(self, hand: socket.socket, end: socket.socket, turns: Turnstile, first: Frame) -> None:
        number, packed, level, form, trace = first
        set_up_logging(str(level), str(form))
        self._hand = hand
        self._end = end
        self._taking: set[asyncio.Future[None]] = set()
        self._line: Line | None = None
        self._told: list[Json] = []
        self._shared = Shared(number if isinstance(number, int) else 0, turns)
        self._gateway = Gateway(unpacked_settings(packed), tracer=otlp_tracer() if trace else None, shared=self._shared)
        self._server = GatewayServer(self._gateway, None, beside=self._beside, drains=self._drains)

    def run(self) -> None:
        """Serves until the supervisor says that it is enough, or is gone."""
        self._server.run()

    async def _beside(self) -> None:
        self._line = Line(self._end, self._heard, self._alone)
        self._shared.opens(self._line)
        await self._server.up()
        taking = Taking(self._hand, self._took)
        self._line.tell("ready")
        try:
            while True:
                await asyncio.sleep(_FIGURES_SECONDS)
                self._tell_figures()
        finally:
            taking.close()
            self._tell_figures()
            self._line.close()

    def _took(self, connection: socket.socket) -> None:
        taken = asyncio.ensure_future(self._server.take(connection, self._lost))
        self._taking.add(taken)
        taken.add_done_callback(self._taken)

    def _taken(self, taken: asyncio.Future[None]) -> None:
        self._taking.discard(taken)
        if not taken.cancelled() and taken.exception() is not None:  # the client was gone at once
            self._lost()

    def _lost(self) -> None:
        self._tell("lost")

    def _drains(self) -> None:
        self._tell("drains")

    def _tell_figures(self) -> None:
        figures: list[Json] = [sample.frame() for sample in self._gateway.metrics.samples()]
        if figures != self._told and self._line is not None:
            self._told = figures
            self._line.tell("figures", figures)

    def _heard(self, frame: Frame) -> None:
        match frame:
            case ["drain"]:
                self._gateway.draining = True
            case ["stop"]:
                self._server.stop_now()
            case ["settings", packed]:
                self._reload(packed)
            case ["count", number]:
                self._tell_figures()
                self._tell("counted", number)
            case _:
                if not self._shared.heard(frame):
                    _log.error("the supervisor said something unknown: %s", str(frame[0])[:40])

    def _reload(self, packed: Json) -> None:
        try:
            self._gateway.reload(unpacked_settings(packed))
        except TierwiseError as error:
            self._tell("reloaded", str(error))
        except Exception as error:  # noqa: BLE001  whatever it is, the configuration before stays
            self._tell("reloaded", type(error).__name__)
        else:
            self._tell("reloaded", None)

    def _tell(self, *frame: Json) -> None:
        if self._line is not None:
            self._line.tell(*frame)

    def _alone(self) -> None:
        """The supervisor is gone: who was answered is in the ledger, and the port must become free."""
        _log.error("the supervisor is gone: this worker ends")
        self._shared.ended()
        self._server.stop_now()
        last = threading.Timer(_ALONE_SECONDS, os._exit, (1,))
        last.daemon = True
        last.start()


def main(arguments: Sequence[str]) -> None:
    """Serves with these descriptors: of what hands it connections, of its line, and of the turns at the ledger."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the supervisor
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    descriptors = [int(text) for text in arguments]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    hand, end = (socket.socket(fileno=descriptor) for descriptor in descriptors[:2])
    first = read_first(end)
    _Worker(hand, end, Turnstile(descriptors[2]), first).run()


if __name__ == "__main__":
    main(sys.argv[1:])
