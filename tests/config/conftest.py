"""A home, a project and an environment of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tierwise.config import load_settings
from tierwise.core.settings import Settings

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads settings from the texts of a user's and a project's file and from an environment, all optional."""

    def load_from(project: str = "", *, user: str = "", explicit: str = "", **env: str) -> Settings:
        home, work = tmp_path / "home", tmp_path / "work"
        (home / ".config" / "tierwise").mkdir(parents=True, exist_ok=True)
        (work / ".git").mkdir(parents=True, exist_ok=True)
        path = None
        if user:
            (home / ".config" / "tierwise" / "tierwise.toml").write_text(user, "utf-8")
        if project:
            (work / "tierwise.toml").write_text(project, "utf-8")
        if explicit:
            path = tmp_path / "mine.toml"
            path.write_text(explicit, "utf-8")
        return load_settings(env={"HOME": str(home), **env}, cwd=work, path=path)

    return load_from
