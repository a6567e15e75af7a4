"""Connections, handed from the supervisor that accepted them to the worker that serves them.

Theory of operation. Processes that accept from one socket race for each connection: whoever is awake takes all that
wait, and a few long-lived connections easily end up at one worker while the others idle. So the supervisor accepts,
which costs little, and hands each connection to the worker that has the fewest, as a descriptor over a pair of sockets
(each with one byte, since a descriptor does not travel alone). The port belongs to the supervisor alone and is free
when that is gone, however it went.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

__all__ = ["Taking", "hand_over"]

_MOST_AT_ONCE = 16


def hand_over(hand: socket.socket, connection: socket.socket) -> None:
    """Hands a connection to who has the other end; it stays open here, too.

    Raises:
        OSError: it cannot take more now (`BlockingIOError`), or is gone.
    """
    socket.send_fds(hand, [b"\0"], [connection.fileno()])


class Taking:
    """Takes what is handed over, in the running event loop, until it is closed.

    Args:
        hand: the end that was handed something.
        took: called with each connection.
    """

    def __init__(self, hand: socket.socket, took: Callable[[socket.socket], None]) -> None:
        self._hand = hand
        self._took = took
        self._loop = asyncio.get_running_loop()
        hand.setblocking(False)
        self._loop.add_reader(hand.fileno(), self._readable)
        self._open = True

    def close(self) -> None:
        """Takes no more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._hand.fileno())
            self._hand.close()

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._hand, _MOST_AT_ONCE, _MOST_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            self._took(connection)
        if not data:  # nobody is there any more; the line says so as well
            self.close()
