"""What ends a verb that runs other programs: they must end too, and what they used must be written down."""

from __future__ import annotations

import signal
from collections.abc import Iterator

__all__ = ["ending_signals"]


def ending_signals() -> Iterator[signal.Signals]:
    """SIGTERM, and what comes where the terminal is closed: by default they end this process at once, and it alone.

    Whoever had it started so that it does not hear one of them (nohup) means it.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            yield signal.Signals(number)
