"""How verbs speak: JSON, tables and money, the same everywhere. rich is imported only when a table is drawn."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierwise.core.catalog import Tier
from tierwise.core.decisions import Decision
from tierwise.core.money import format_usd

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "console",
    "decision_as_json",
    "echo_json",
    "json_option",
    "literal",
    "moment",
    "money",
    "percent",
    "table",
    "tier_style",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

_PIPE_COLUMNS = 4096  # nothing is wrapped that a program or a pager reads; tables take what they need

# Colour-blind-safe (Okabe-Ito), cheapest first; tiers beyond the fourth repeat the last.
_TIER_STYLES = ("green", "cyan", "yellow", "magenta")


def tier_style(level: int) -> str:
    """The colour of a tier."""
    return _TIER_STYLES[min(level, len(_TIER_STYLES) - 1)]


def console(*, stderr: bool = False) -> Console:
    """A rich console that honours NO_COLOR and plain pipes; a pipe gets wide lines, never wrapped ones."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 the BrokenPipeError being handled; rich would end the process with code 1

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_COLUMNS
    return Piped(file=stream, soft_wrap=False, highlight=False, width=width)


def table(*columns: str, title: str | None = None, right: Sequence[str] = ()) -> Table:
    """A table with these headings; the ones in `right` are numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for name in columns:
        number = name in right
        made.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    return made


def money(usd: Decimal | None, places: int | None = None) -> str:
    """US$ for people."""
    return format_usd(usd, places=places)


def moment(at_ms: int | None) -> str:
    """A time for people, UTC; a dash for None."""
    return "–" if at_ms is None else f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%MZ}"


def literal(text: str) -> str:
    """A text out of a file or a server, for a cell: brackets in it are no markup."""
    from rich.markup import escape

    return escape(text)


def percent(part: Decimal, whole: Decimal) -> str:
    """`part` of `whole`, one decimal; a dash where there is no whole."""
    return f"{part / whole * 100:.1f} %" if whole else "–"


def plain(value: Any) -> Any:
    """A value as JSON has it. Money becomes a number: a double holds every nano-dollar up to millions of dollars."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Tier):
        return value.name
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def echo_json(value: Any, *, one_line: bool = False) -> None:
    """Prints `value` as JSON on stdout, ASCII only: it survives every terminal and every pipe."""
    text = json.dumps(plain(value), indent=None if one_line else 2, allow_nan=False)
    click.echo(text)


def decision_as_json(decision: Decision) -> dict[str, Any]:
    """A decision under the names that `tierwise route --json` documents."""
    classification = decision.classification
    return {
        "task_type": classification.task_type.name,
        "family": classification.family,
        "confidence": round(classification.confidence, 4),
        "needs": classification.needs.value,
        "abstained": classification.abstained,
        "tier": decision.tier.name,
        "model": decision.model.id,
        "ladder": [
            {
                "tier": rung.tier.name,
                "model": rung.model.id,
                "estimated_cost_usd": rung.estimated_cost_usd,
                "estimated_seconds": round(rung.estimated_seconds, 2),
                "retries": rung.retries,
            }
            for rung in decision.ladder
        ],
        "reasons": [reason.text for reason in decision.reasons],
        "estimated_cost_usd": decision.estimated_cost_usd,
        "baseline_cost_usd": decision.baseline_cost_usd,
        "baseline_model": decision.baseline_model.id,
        "alternatives": [
            {"task_type": a.task_type.name, "confidence": round(a.confidence, 4)} for a in classification.alternatives
        ],
        "blockers": [reason.text for reason in decision.blockers],
    }
