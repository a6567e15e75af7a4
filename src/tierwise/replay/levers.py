"""What could be changed beside the model, and what that would have saved."""

from __future__ import annotations

from collections.abc import Mapping

from tierwise.core.calls import ImportedSession
from tierwise.replay.values import Lever, LeverValue
from tierwise.replay.world import ReplayWorld

__all__ = ["levers"]


def levers(session: ImportedSession, world: ReplayWorld) -> Mapping[Lever, LeverValue]:
    """What each lever would have saved in one session. They overlap, so their values must not be added up."""
    raise NotImplementedError
