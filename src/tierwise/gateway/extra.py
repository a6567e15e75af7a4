"""Whether the packages of the gateway's extra are there."""

from __future__ import annotations

import importlib.util

from tierwise.core.errors import ConfigError

__all__ = ["check_installed"]


def check_installed() -> None:
    """Raises `ConfigError`, with the command that mends it, where a package of the extra is missing."""
    missing = [
        name
        for name in ("uvicorn", "httptools", "orjson", "prometheus_client")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ConfigError(f"the gateway needs {', '.join(missing)}: pip install 'tierwise[gateway]'")
