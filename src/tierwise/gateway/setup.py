"""What a worker is started with: the configuration as its supervisor read it, and how to log."""

from __future__ import annotations

import base64
import pickle
from dataclasses import dataclass

from tierwise.core.json import Json
from tierwise.core.settings import Settings

__all__ = ["Setup", "packed_settings", "unpacked_settings"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is started with, beside the configuration."""

    log_level: str = "warning"
    log_format: str = "text"
    trace: bool = False


def packed_settings(settings: Settings) -> str:
    """A configuration for a worker. It holds keys: it travels from the supervisor to its workers and nowhere else."""
    return base64.b64encode(pickle.dumps(settings)).decode("ascii")


def unpacked_settings(packed: Json) -> Settings:
    """What `packed_settings` made.

    Raises:
        TypeError: it is something else.
    """
    # Its sender is the process that started this one: nobody else has the other end of the line.
    settings = pickle.loads(base64.b64decode(str(packed)))  # noqa: S301  see above
    if not isinstance(settings, Settings):
        raise TypeError("what came is no configuration")
    return settings
