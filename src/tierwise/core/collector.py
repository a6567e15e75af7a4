"""The garbage collector of a process that makes many objects, of which few hang together in circles."""

from __future__ import annotations

import gc

__all__ = ["calm_collector"]

_COLLECT_AT = 20_000  # objects more than went, at which the youngest are looked at


def calm_collector() -> None:
    """The garbage collector looks at what work leaves behind, and not again and again at what is there for good.

    Most of what is held for long (modules, models, prices, sums) never goes; to walk it every few thousand objects took
    a tenth of a gateway's time, and of an analysis's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AT, 20, 50)
