"""Streams that broke off under a client, so that its asking again without streaming is recognised.

Claude Code asks for an answer whose stream broke once more, unstreamed: without tools, that looks like a call of its
safety classifier, which never moves. The two are told apart by what they say. A request that equals one whose stream
just broke, in everything but being streamed and the length that it allows (as seen of Claude Code 2.1.330), is that
one again. The classifier is never streamed, so none of its calls can be equal to one that was.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import orjson

from tierwise.core.calls import CallKind
from tierwise.core.json import JsonObject

__all__ = ["BrokenStreams"]

_DIFFERS = frozenset({"stream", "max_tokens"})
_SECONDS = 600.0  # a client asks again at once; it waits at most so long for an answer
_MOST = 1_000


class BrokenStreams:
    """What broke of late. For one event loop; the clock is an argument."""

    def __init__(self) -> None:
        self._broke: OrderedDict[bytes, tuple[CallKind, float]] = OrderedDict()

    def note(self, session: str, body: JsonObject, kind: CallKind, now: float) -> None:
        """A stream broke, of a call of this kind."""
        told = _told(session, body)
        if body.get("stream") is not True or told is None:
            return
        self.remember(told, kind, now + _SECONDS)

    def remember(self, told: bytes, kind: CallKind, until: float) -> None:
        """What broke, by what it said."""
        self._broke[told] = (kind, until)
        self._broke.move_to_end(told)
        if len(self._broke) > _MOST:
            self._broke.popitem(last=False)

    def asked_again(self, session: str, body: JsonObject, now: float) -> CallKind | None:
        """The kind of the call that this one repeats; None where it repeats none that broke."""
        if not self._broke:
            return None
        told = _told(session, body)
        kind, until = self._broke.get(told, (None, 0.0)) if told is not None else (None, 0.0)
        return kind if now < until else None


def _told(session: str, body: JsonObject) -> bytes | None:
    """What a call says, to the letter, in whatever order; None where that cannot be told."""
    said = {name: value for name, value in body.items() if name not in _DIFFERS}
    try:
        return blake2b(orjson.dumps([session, said], option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
    except orjson.JSONEncodeError:  # nested beyond reason, or a number beyond it
        return None
