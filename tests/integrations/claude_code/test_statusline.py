"""The status line, from what Claude Code tells it and from what was recorded."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tierwise.integrations.claude_code.places import PLUGIN

SESSION = "745280b8-5301-4f1f-a2c1-0bf14d5389cb"


def line(tmp_path: Path, **told: Any) -> str:
    """What it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PLUGIN / "hooks" / "statusline.py")],
        input=json.dumps({"session_id": SESSION, "cost": {"total_cost_usd": 0.4219}, **told}),
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_before_anything_is_recorded(tmp_path: Path) -> None:
    """At first it is Claude Code's own count, and says that it is."""
    assert line(tmp_path) == "tierwise ~$0.42\n"


@pytest.mark.parametrize(
    ("cache", "says"),
    [
        ({"warm": True, "expires_at": time.time() + 360_000, "hit_ratio": 0.934}, "cache warm "),
        ({"warm": True, "expires_at": time.time() - 5, "hit_ratio": 0.5}, "cache cold, 50% hits"),
        ({"warm": False, "expires_at": None, "hit_ratio": None}, "cache cold"),
    ],
)
def test_a_session_that_is_recorded(tmp_path: Path, cache: dict[str, Any], says: str) -> None:
    """Spent, saved, the tiers' shares and how warm the cache is, in one line."""
    state = tmp_path / ".local" / "state" / "tierwise" / "claude"
    state.mkdir(parents=True)
    totals = {"spent_nanousd": 1_234_000_000, "saved_nanousd": 400_000_000, "tiers": {"haiku": 1, "sonnet": 3}}
    (state / f"{SESSION}.json").write_text(json.dumps(totals))
    said = line(tmp_path, prompt_cache=cache)
    assert said.startswith("tierwise $1.23, saved $0.40 · sonnet 75% haiku 25% · cache ")
    assert says in said
    assert said.count("\n") == 1
