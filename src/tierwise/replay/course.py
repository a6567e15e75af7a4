"""The calls of a session in order, under a policy."""

from __future__ import annotations

from tierwise.core.calls import ImportedCall, ImportedSession
from tierwise.prices import PriceBook
from tierwise.replay.values import SessionReplay
from tierwise.replay.policies import ReplayPolicy
from tierwise.replay.world import ReplayWorld


def actual_nanousd(call: ImportedCall, prices: PriceBook) -> int | None:
    """What a call really cost; None where no price is known."""
    raise NotImplementedError


class Replayer:
    """Replays sessions under one policy; keeps what it decided, so that one replayer should replay many sessions."""

    def __init__(self, policy: ReplayPolicy, world: ReplayWorld) -> None: ...

    def replay(self, session: ImportedSession, *, outcomes: bool = True) -> SessionReplay:
        raise NotImplementedError


def replay_session(session: ImportedSession, policy: ReplayPolicy, world: ReplayWorld) -> SessionReplay:
    """One session under a policy."""
    return Replayer(policy, world).replay(session)
