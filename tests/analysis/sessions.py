"""Plans, sessions and findings for tests, whose figures can be checked by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.replay.sessions import SETTINGS
from tierwise.analysis.aggregate import Summing, Totals
from tierwise.analysis.findings import Skipped
from tierwise.analysis.gather import Plan, own_levers, ways_of_routing
from tierwise.analysis.session import SessionFindings, Way
from tierwise.classifier import load_taxonomy

NOTHING_SKIPPED = Skipped(lines=0, unknown_kinds=(), unknown_fields=(), examples=())
WAYS = ways_of_routing(SETTINGS)
USD = 1_000_000_000
DAY_MS = 86_400_000
FIRST_MS = 1_793_577_600_000  # 2026-11-02


def plan(**changes: Any) -> Plan:
    """The shipped configuration, with everything that `tierwise analyze` compares it with."""
    given: dict[str, Any] = {"settings": SETTINGS, "ways": WAYS, "others": own_levers(SETTINGS), **changes}
    return Plan(**given)


def session_of(number: int = 0, **fields: Any) -> SessionFindings:
    """A session of one cell that cost `spent` dollars, and `low`, `expected`, `high` under every way of routing."""
    spent = round(fields.pop("spent", 10) * USD)
    low, expected, high = (round(fields.pop(name, 10) * USD) for name in ("low", "expected", "high"))
    cell = fields.pop("cell", ("2026-11-02", "/home/ana/shop", "claude-opus-5-5", "code_generation"))
    calls = fields.pop("calls", 4)
    sums = [calls, 0, spent, 10, 20, 30, 40, 50, *(expected for _ in WAYS)]
    given: dict[str, Any] = {
        "id": f"session-{number}",
        "source": "claude_code",
        "calls": calls,
        "first_ms": FIRST_MS + number * DAY_MS,
        "last_ms": FIRST_MS + number * DAY_MS,
        "cells": {cell: sums},
        "agents": {"main": sums},
        "kinds": {"main": sums},
        "phases": {"editing": sums},
        "token_classes": {"output": spent},
        "ways": tuple(Way(low, expected, high, 3, 1, {"cache": 7}) for _ in WAYS),
        "whole_nanousd": spent,
        **fields,
    }
    return SessionFindings(**given)


def totals_of(
    sessions: Iterable[SessionFindings], *, skipped: Skipped = NOTHING_SKIPPED, roots: Mapping[str, Any] | None = None
) -> Totals:
    """These sessions added up."""
    summing = Summing(WAYS)
    for session in sessions:
        summing.take(session)
    return summing.totals(types=load_taxonomy(), skipped=skipped, roots=roots or {"claude_code": ["/somewhere"]})
