"""Ids of calls: UUIDs of version 7, so that they sort by the time they were made.

The ledger's tables are clustered by these ids. Ids that grow append at the end of a table instead of landing all
over it, which is where most of its write speed comes from.
"""

from __future__ import annotations

import os
import threading
import time
from hashlib import blake2b

__all__ = ["REPORTED_BEFORE", "CallIds", "new_call_id", "reported_id"]

_LAST_COUNT = 0xFFF
_LAST_MS = (1 << 48) - 1


REPORTED_BEFORE = "01"  # where the ids of calls that others report end; those of our own begin in 2004
_NOISE_BYTES = 1024  # of 128 ids


class CallIds:
    """Makes ids that never go backwards, also when the clock does.

    48 bits of Unix milliseconds, a counter of 12 bits, 62 random bits. When the clock stands still or jumps back,
    the last time seen is kept and the counter goes up; a full counter borrows a millisecond of the future.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms = 0
        self._count = 0
        self._noise = b""  # drawn in advance: each draw is a system call, for which other threads get the interpreter
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_lock)

    def _forget_lock(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it during the fork
        self._noise = b""  # the parent's: two processes must not draw the same

    def new(self, now_ms: int | None = None, random_bytes: bytes | None = None) -> str:
        """The next id: 36 characters, hexadecimal with dashes.

        `now_ms` is Unix time in milliseconds, `random_bytes` eight bytes; the shell's clock and randomness by default.
        """
        if now_ms is None:
            now_ms = time.time_ns() // 1_000_000
        with self._lock:
            if random_bytes is None:
                if not self._noise:
                    self._noise = os.urandom(_NOISE_BYTES)
                random_bytes, self._noise = self._noise[:8], self._noise[8:]
            noise = int.from_bytes(random_bytes[:8], "big") & ((1 << 62) - 1)
            if now_ms > self._ms:
                self._ms, self._count = min(now_ms, _LAST_MS), 0
            elif self._count < _LAST_COUNT:
                self._count += 1
            else:
                self._ms, self._count = self._ms + 1, 0
            value = self._ms << 80 | 7 << 76 | self._count << 64 | 2 << 62 | noise
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_ids = CallIds()


def new_call_id(now_ms: int | None = None) -> str:
    """An id for a new call; later ones of this process sort after earlier ones. See `CallIds.new`."""
    return _ids.new(now_ms)


def reported_id(request: str) -> str:
    """The id of a call that others report, always the same for a request."""
    noise = blake2b(request.encode("utf-8", "surrogatepass"), digest_size=14).hexdigest()
    return f"00{noise[:6]}-{noise[6:10]}-8{noise[10:13]}-8{noise[13:16]}-{noise[16:]}"
