"""The status line: what this session has spent and saved, on which tiers, and whether its prompt cache is warm.

Money is what the recorder wrote down of the session after its last turn; before the first, it is Claude Code's own
count, marked with a tilde. Needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False  # `typing` takes longer to import than all the rest
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Prints one line, or as much of it as is known."""
    told = json.load(sys.stdin)
    known = recorded(str(told.get("session_id", "")))
    parts = [money(told, known), tiers(known), cache(told.get("prompt_cache") or {})]
    print("tierwise " + " · ".join(part for part in parts if part))


def recorded(session: str) -> dict[str, Any]:
    """What the recorder wrote of this session; empty where it has not yet."""
    if not session.replace("-", "").isalnum():
        return {}
    base = os.environ.get("XDG_STATE_HOME") or f"{os.environ.get('HOME', '')}/.local/state"
    try:
        with open(f"{base}/tierwise/claude/{session}.json", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def money(told: dict[str, Any], known: dict[str, Any]) -> str:
    """Spent, and saved where anything was."""
    if "spent_nanousd" not in known:
        return f"~${float((told.get('cost') or {}).get('total_cost_usd') or 0):.2f}"
    spent = f"${known['spent_nanousd'] / 1e9:.2f}{'+' if known.get('unpriced_calls') else ''}"
    saved = known.get("saved_nanousd", 0)
    return f"{spent}, saved ${saved / 1e9:.2f}" if saved else spent


def tiers(known: dict[str, Any]) -> str:
    """How the session's calls divide among tiers, the busiest first."""
    calls = {str(name): int(count) for name, count in (known.get("tiers") or {}).items()}
    total = sum(calls.values())
    ordered = sorted(calls.items(), key=lambda one: -one[1])
    return " ".join(f"{name} {round(100 * count / total)}%" for name, count in ordered) if total else ""


def cache(told: dict[str, Any]) -> str:
    """Whether the prompt cache still holds the conversation, for how long, and how much it has served."""
    if not told:
        return ""
    left = int((told.get("expires_at") or 0) - time.time())
    words = f"cache warm {left // 60}:{left % 60:02d}" if told.get("warm") and left > 0 else "cache cold"
    ratio = told.get("hit_ratio")
    return f"{words}, {round(100 * ratio)}% hits" if isinstance(ratio, int | float) else words


if __name__ == "__main__":
    main()
