"""Turns at writing, for several processes that write to one ledger all the time.

Theory of operation. SQLite lets one process write at a time and has the others look again after a sleep, which gets
longer each time, up to a tenth of a second. Whoever writes without a pause is back before those who sleep have looked,
so under load one process starves the others for seconds. Between processes that know of each other it need not come to
that: they queue for a lock of the system's, which wakes who waits at once, and goes away with a process that dies.

Such a lock by itself favours who has just let go of it. So there are two, and each waits for the second while it holds
the first: whoever comes again stands at the first until the one that waits for the second has it.

Locks of this kind (POSIX's, on ranges of a file) belong to processes, so a descriptor that was inherited will do, and
threads of one process need a lock of their own besides. Who does not know of the turns, as `tierwise report` does not,
is as safe as ever: SQLite's own locks still decide.
"""

from __future__ import annotations

import errno
import sys
import threading
from types import TracebackType

if sys.platform != "win32":
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf

__all__ = ["Turnstile"]

_QUEUE, _WRITE = 0, 1  # bytes of the file, which need not exist


class Turnstile:
    """`with turnstile:` waits for its turn. The descriptor is of a file that all processes have open for writing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._threads = threading.Lock()

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            self._lock(_QUEUE)
            try:
                self._lock(_WRITE)
            finally:
                self._unlock(_QUEUE)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def enter_at_once(self) -> bool:
        """Takes the turn if nobody has it and nobody waits for it; whoever does take it leaves."""
        if not self._threads.acquire(blocking=False):
            return False
        try:
            if self._lock(_QUEUE, wait=False):
                try:
                    if self._lock(_WRITE, wait=False):
                        return True
                finally:
                    self._unlock(_QUEUE)
        except BaseException:
            self._threads.release()
            raise
        self._threads.release()
        return False

    def leave(self) -> None:
        """The turn is over."""
        try:
            self._unlock(_WRITE)
        finally:
            self._threads.release()

    if sys.platform == "win32":

        def _lock(self, byte: int, *, wait: bool = True) -> bool:
            """There are no workers here, and so no turns."""
            return True

        def _unlock(self, byte: int) -> None:
            """As above."""

    else:

        def _lock(self, byte: int, *, wait: bool = True) -> bool:
            try:
                lockf(self._descriptor, LOCK_EX if wait else LOCK_EX | LOCK_NB, 1, byte)
            except OSError as error:
                if error.errno not in {errno.EACCES, errno.EAGAIN}:
                    raise
                return False
            return True

        def _unlock(self, byte: int) -> None:
            lockf(self._descriptor, LOCK_UN, 1, byte)
