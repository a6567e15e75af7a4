"""Server-sent events, sans-io: bytes in, events out, however the network cuts them.

Follows the WHATWG event-stream grammar: CRLF, CR and LF end lines, a blank line ends an event, `data` lines are
joined with LF, comments and unknown fields are skipped, one leading byte order mark is dropped, and an event that
the end of the stream leaves unfinished is discarded. Lines are split as bytes and decoded whole, so a multi-byte
character may be cut anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["MAX_EVENT_BYTES", "ServerSentEvent", "SseError", "SseParser"]

# Far above any real event (a whole tool call is one to a few hundred kB), far below what would hurt a process.
MAX_EVENT_BYTES = 16 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BLANK = b"\n\n"
_PLAIN = re.compile(rb"(?:event: ?([^\n]*)\n)?data: ?([^\n]*)")  # an event as nearly everybody writes it
_BOM = b"\xef\xbb\xbf"


class SseError(ValueError):
    """The stream cannot be read as server-sent events."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. `event` is "message" where the stream names none; `id` is the last one seen, if any.

    `end` is where the stream goes on after it: the count of bytes up to and with the line end of its blank line
    (without the LF of a CRLF that came in the next chunk).
    """

    event: str
    data: str
    id: str | None = None
    end: int = field(default=0, compare=False)


class SseParser:
    """Feed it chunks, get events. One parser per stream; work is linear in the bytes fed.

    Raises `SseError` from `feed` once a single event exceeds `max_event_bytes`: an upstream that never ends an
    event must not fill the memory.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.offset = 0  # bytes of the stream so far; whoever keeps whole events from the parser adds their size
        self._max = max_event_bytes
        self._fragments: list[bytes] = []  # of the line that has not ended yet
        self._size = 0  # bytes of the event so far
        self._after_cr = False  # the last chunk ended in CR: an LF that follows belongs to it
        self._first_line = True
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    @property
    def mid_event(self) -> bool:
        """Whether bytes of an unfinished event are held: at the end of a stream, a sign that it was cut."""
        return bool(self._fragments or self._data or self._event)

    @property
    def between_events(self) -> bool:
        """Whether what comes next begins an event, so that whole events may be kept from the parser."""
        return not (self._fragments or self._data or self._event or self._after_cr or self._first_line)

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes, in order."""
        if not chunk:
            return []
        if self._first_line and not self._fragments and not _BOM.startswith(chunk[: len(_BOM)]):
            self._first_line = False  # there is no mark to be dropped
        if self.between_events and chunk.endswith(_BLANK) and b"\r" not in chunk:
            return self._whole(chunk)
        return self._lines(chunk)

    def _whole(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events of a chunk of whole ones: those that are plain at one look, the others line by line."""
        events: list[ServerSentEvent] = []
        for piece in chunk.split(_BLANK)[:-1]:
            plain = _PLAIN.fullmatch(piece)
            if plain is None or len(piece) >= self._max:
                events += self._lines(piece + _BLANK)
                continue
            self.offset += len(piece) + len(_BLANK)
            name, data = plain.groups()
            event = name.decode("utf-8", "replace") if name else "message"
            events.append(ServerSentEvent(event, data.decode("utf-8", "replace"), self._id, self.offset))
        return events

    def _lines(self, chunk: bytes) -> list[ServerSentEvent]:
        start = 0
        if self._after_cr:
            self._after_cr = False
            if chunk[0] == 0x0A:
                start = 1
        before = self.offset
        self.offset += len(chunk)
        events: list[ServerSentEvent] = []
        for match in _LINE_END.finditer(chunk, start):
            piece = chunk[start : match.start()]
            start = match.end()
            self._grow(len(piece) + 1)
            if self._fragments:
                self._fragments.append(piece)
                piece = b"".join(self._fragments)
                self._fragments.clear()
            event = self._line(piece, before + start)
            if event is not None:
                events.append(event)
        if chunk[-1] == 0x0D:
            self._after_cr = True
        if start < len(chunk):
            rest = chunk[start:]
            self._grow(len(rest))
            self._fragments.append(rest)
        return events

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size > self._max:
            raise SseError(f"one event of the stream is longer than {self._max} bytes; giving up on it")

    def _line(self, raw: bytes, end: int) -> ServerSentEvent | None:
        if self._first_line:
            self._first_line = False
            raw = raw.removeprefix(_BOM)
        if not raw:
            return self._dispatch(end)
        name, colon, value = raw.partition(b":")
        if not name:  # a comment; some servers keep connections alive with them, so they must not add up
            self._size -= len(raw) + 1
            return None
        text = value.decode("utf-8", "replace").removeprefix(" ") if colon else ""
        match name:
            case b"data":
                self._data.append(text)
            case b"event":
                self._event = text
            case b"id":
                if "\0" not in text:
                    self._id = text
            case _:  # `retry` and unknown fields mean nothing to a reader that never reconnects
                pass
        return None

    def _dispatch(self, end: int) -> ServerSentEvent | None:
        event = None
        if self._data:
            event = ServerSentEvent(self._event or "message", "\n".join(self._data), self._id, end)
        self._event = ""
        self._data.clear()
        self._size = 0
        return event
