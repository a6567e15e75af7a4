"""Finds the few events of a stream that matter without reading the others.

Theory of operation. Nearly all chunks of a stream hold whole events that nobody but the client needs. A chunk that
begins and ends between two events, and in which none of the wanted words stands, is such a chunk: a few substring
searches in C say so, and the parser never sees it. Everything else goes through `SseParser`, so the grammar lives in
one place. In a chunk that does hold a wanted word only the events around it are parsed. A search for `LF LF` is enough
to find where an event ends (a line never contains one); streams with other line ends are read in full, correctly
and slower.

A wanted word is a piece of an event's JSON, such as `b'"message_'`: with its quote it cannot stand inside a string,
where quotes are escaped, unless the string is just that. A word spelled with `\\u` escapes is not found; no
JSON writer escapes letters.
"""

from __future__ import annotations

from collections.abc import Sequence

from tierwise.wire.sse import MAX_EVENT_BYTES, ServerSentEvent, SseParser

__all__ = ["EventSieve"]

_END = b"\n\n"
_NOTHING: tuple[ServerSentEvent, ...] = ()


class EventSieve:
    """Feed it chunks, get the events that may matter: all that hold a wanted word, and some that do not.

    One sieve per stream. Every chunk goes to exactly one of `skip` (where it says True), `feed` and `feed_all`.
    They raise `SseError` where the parser does.
    """

    __slots__ = ("_between", "_parser", "offset")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES, offset: int = 0) -> None:
        self._parser = SseParser(max_event_bytes=max_event_bytes)
        self._between = False  # the first chunk is always parsed: it may begin with a byte order mark
        self.offset = offset
        """Bytes of the stream so far."""

    @property
    def between_events(self) -> bool:
        """Whether all that came is whole events (or comments)."""
        return self._between

    @property
    def mid_event(self) -> bool:
        """Whether the stream stands inside an event: at its end, a sign that it was cut."""
        return self._parser.mid_event

    def skip(self, chunk: bytes, wanted: Sequence[bytes]) -> bool:
        """Passes `chunk` over if it is whole events without a wanted word; else does nothing and says False."""
        if not self._between or not chunk.endswith(_END):
            return False
        for word in wanted:
            if word in chunk:
                return False
        self.offset += len(chunk)
        return True

    def feed(self, chunk: bytes, wanted: Sequence[bytes]) -> Sequence[ServerSentEvent]:
        """The events that `chunk` completes, in order, but for some in which no wanted word stands."""
        if self.skip(chunk, wanted):
            return _NOTHING
        begin = 0
        events: list[ServerSentEvent] = []
        if not self._between:  # to the end of the event that is open
            begin = _behind(chunk.find(_END))
            if not begin:
                return self.feed_all(chunk)
            events += self._parse(chunk[:begin])
        whole = max(begin, _behind(chunk.rfind(_END, begin)))
        self._pick(chunk, begin, whole, wanted, events)
        if whole < len(chunk):
            events += self._parse(chunk[whole:])
        self._between = self._parser.between_events
        return events

    def feed_all(self, chunk: bytes) -> Sequence[ServerSentEvent]:
        """All events that `chunk` completes, in order."""
        events = self._parse(chunk)
        self._between = self._parser.between_events
        return events

    def _parse(self, piece: bytes) -> list[ServerSentEvent]:
        self._parser.offset = self.offset
        self.offset += len(piece)
        return self._parser.feed(piece)

    def _pick(self, chunk: bytes, begin: int, end: int, wanted: Sequence[bytes], events: list[ServerSentEvent]) -> None:
        """Parses those events of `chunk[begin:end]`, whole events all, in which a wanted word stands."""
        for place in _places(chunk, begin, end, wanted):
            if place < begin:
                continue  # in the event that was just read
            first = max(begin, _behind(chunk.rfind(_END, begin, place)))
            last = _behind(chunk.find(_END, place))
            self.offset += first - begin
            events += self._parse(chunk[first:last])
            begin = last
        self.offset += end - begin


def _places(chunk: bytes, begin: int, end: int, wanted: Sequence[bytes]) -> list[int]:
    found: list[int] = []
    for word in wanted:
        place = chunk.find(word, begin, end)
        while place >= 0:
            found.append(place)
            place = chunk.find(word, place + len(word), end)
    found.sort()
    return found


def _behind(place: int) -> int:
    """Where it goes on behind an end of an event that was found at `place`; 0 where none was (-1)."""
    return place + len(_END) if place >= 0 else 0
