"""What the supervisor and its workers say to each other: frames over one end of a pair of sockets.

Theory of operation. A frame is a JSON array whose first item says what it is, behind its length in four bytes. What is
told within one turn of the event loop goes in one piece. `flush` hands it to the system at once: whoever then tells
somebody else may rely on it that the other end reads this first.

A worker has the one end, the supervisor the other, and nobody else has either. So the line ends when one of the two
does, however that ends, and both notice: there is no address, no file and no process id that could be left over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import orjson

from tierwise.core.errors import TierwiseError
from tierwise.core.json import Json

__all__ = ["Frame", "Line", "LineEnded", "pair", "read_first", "write_first"]

Frame = list[Json]

_LENGTH = 4
_READ_BYTES = 256 * 1024


class LineEnded(TierwiseError):
    """Who was asked is not there any more."""

    def __init__(self) -> None:
        super().__init__("the gateway's supervisor is gone; this worker ends")


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a line."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _packed(frame: Frame) -> bytes:
    body = orjson.dumps(frame)
    return len(body).to_bytes(_LENGTH, "big") + body


def write_first(sock: socket.socket, frame: Frame) -> None:
    """Writes a frame before there is an event loop."""
    sock.sendall(_packed(frame))


def read_first(sock: socket.socket) -> Frame:
    """Reads the frame that `write_first` wrote, and nothing beyond it.

    Raises:
        LineEnded: the other end is gone.
    """
    head = _exactly(sock, _LENGTH)
    frame = orjson.loads(_exactly(sock, int.from_bytes(head, "big")))
    return frame if isinstance(frame, list) else []


def _exactly(sock: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count:
        piece = sock.recv(count - len(read))
        if not piece:
            raise LineEnded
        read += piece
    return read


class Line:
    """One end. Belongs to the event loop that it is made in.

    Args:
        sock: the end.
        heard: called with each frame that comes.
        ended: called once, when the other end is gone.
    """

    def __init__(self, sock: socket.socket, heard: Callable[[Frame], None], ended: Callable[[], None]) -> None:
        self._sock = sock
        self._heard = heard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()
        self._unsent = bytearray()
        self._flushes = False
        self._writes = False  # waits until the socket takes more
        self.open = True
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def tell(self, *frame: Json) -> None:
        """Sends a frame; returns at once. To who is gone, nothing is said."""
        if not self.open:
            return
        self._unsent += _packed(list(frame))
        if not self._flushes:
            self._flushes = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hands what was told to the system now."""
        self._flushes = False
        if self.open and self._unsent and not self._writes:
            self._write()

    def close(self) -> None:
        """Hangs up."""
        if self.open:
            self.flush()
            self.open = False
            self._loop.remove_reader(self._sock.fileno())
            if self._writes:
                self._loop.remove_writer(self._sock.fileno())
            self._sock.close()

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # reading says that it has ended, after what came before
            self._unsent.clear()
            return
        del self._unsent[:sent]
        if bool(self._unsent) is self._writes:
            return
        self._writes = not self._writes
        if self._writes:
            self._loop.add_writer(self._sock.fileno(), self._write)
        else:
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._read += data
        for frame in self._frames():
            if self.open:  # what is heard may make us hang up
                self._heard(frame)

    def _frames(self) -> list[Frame]:
        """What has come whole."""
        read, at, frames = self._read, 0, []
        while len(read) - at >= _LENGTH:
            starts = at + _LENGTH
            ends = starts + int.from_bytes(read[at:starts], "big")
            if len(read) < ends:
                break
            frames.append(orjson.loads(read[starts:ends]))
            at = ends
        del read[:at]
        return frames

    def _end(self) -> None:
        if self.open:
            self._unsent.clear()
            with suppress(OSError):
                self.close()
            self._ended()
