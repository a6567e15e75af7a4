"""Where the plugin's parts find each other: the companion's socket, what is known of sessions, Claude Code's files.

`plugin/hooks/hook.py` and `plugin/hooks/statusline.py` know the first two by the same rules, without importing this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["PLUGIN", "Places"]

PLUGIN = Path(__file__).with_name("plugin")  # as it is shipped


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one user."""

    socket: Path
    state: Path  # a file for each session
    config: Path  # Claude Code's: `~/.claude`

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Those that this environment means."""
        home = Path(environment.get("HOME") or Path.home())
        runtime = environment.get("XDG_RUNTIME_DIR") or environment.get("XDG_CACHE_HOME") or home / ".cache"
        state = environment.get("XDG_STATE_HOME") or home / ".local" / "state"
        return cls(
            socket=Path(environment.get("TIERWISE_CLAUDE_SOCKET") or Path(runtime) / "tierwise" / "claude.sock"),
            state=Path(state) / "tierwise" / "claude",
            config=Path(environment.get("CLAUDE_CONFIG_DIR", "").partition(",")[0] or home / ".claude"),
        )

    @property
    def plugin(self) -> Path:
        """Where Claude Code finds the plugin by itself."""
        return self.config / "skills" / "tierwise"

    @property
    def settings(self) -> Path:
        """Claude Code's settings of this user."""
        return self.config / "settings.json"

    @property
    def journal(self) -> Path:
        """What was changed in the settings, and how it was before."""
        return self.state / "installed.json"
