"""Options that several verbs share, and how their values are read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from tierwise.core.errors import InvalidTask
from tierwise.core.moments import parse_moment

if TYPE_CHECKING:
    from tierwise.core.json import JsonObject
    from tierwise.core.settings import Settings
    from tierwise.ledger import Ledger

__all__ = [
    "MAX_TASK_BYTES",
    "MOMENT",
    "SECONDS",
    "TASK_OPTIONS",
    "USD",
    "given",
    "ledger_of",
    "period_options",
    "read_stdin",
    "schema_of",
    "settings_of",
    "task_options",
    "text_of",
    "utf8",
]

F = TypeVar("F", bound=Callable[..., Any])
MAX_TASK_BYTES = 64 * 1024 * 1024


class _Seconds(click.ParamType[float]):
    """A duration: 30, 30s, 500ms, 2m, 1h."""

    name = "duration"
    _units: ClassVar = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|)\s*", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration; use for example 30s, 500ms, 2m", param, ctx)
        return float(match[1]) * self._units[match[2]]


class _Usd(click.ParamType[str]):
    """An amount in US$, kept as the decimal text that was given: 0.05 or $0.05."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip().lstrip("$")
        if not re.fullmatch(r"\d+(?:\.\d+)?", text):
            self.fail(f"{value!r} is not an amount in US$; use for example 0.05", param, ctx)
        return text


class _Moment(click.ParamType[date]):
    """A day (2026-11-01: its midnight, UTC), a time, or how long ago: 12h, 7d (whole days, so that it is fast), 4w."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return parse_moment(str(value), datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)


SECONDS = _Seconds()
USD = _Usd()
MOMENT = _Moment()

# Field of a task → the option that sets it.
TASK_OPTIONS = {
    "task_type": click.option(
        "--type", "task_type", metavar="TYPE", help="The task type, where you know it: nothing is classified."
    ),
    "tokens_in": click.option("--tokens-in", type=click.IntRange(min=0), metavar="N", help="Tokens of the prompt."),
    "tokens_out": click.option("--tokens-out", type=click.IntRange(min=0), metavar="N", help="Tokens of the answer."),
    "max_latency_seconds": click.option(
        "--max-latency", "max_latency_seconds", type=SECONDS, metavar="TIME", help="Time allowed, as in 30s."
    ),
    "max_cost_usd": click.option(
        "--max-cost", "max_cost_usd", type=USD, metavar="USD", help="Cost ceiling of the whole call."
    ),
    "stakes": click.option(
        "--stakes",
        type=click.Choice(["normal", "high", "critical"]),
        default=None,
        help="How bad a wrong answer would be.",
    ),
    "tier": click.option("--tier", metavar="TIER", help="Start at this tier."),
    "min_tier": click.option("--min-tier", metavar="TIER", help="Not below this tier."),
    "max_tier": click.option("--max-tier", metavar="TIER", help="Not above this tier."),
    "model": click.option("--model", metavar="ID", help="Only this model."),
    "tool_name": click.option("--tool", "tool_name", metavar="NAME", help="The task is a call of this tool."),
    "has_images": click.option("--images", "has_images", is_flag=True, help="The request carries images."),
    "has_tools": click.option("--tools", "has_tools", is_flag=True, help="The request carries tools."),
}


def task_options(function: F) -> F:
    """Adds the options that describe a task."""
    for option in reversed(TASK_OPTIONS.values()):
        function = option(function)
    return function


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a task that were given."""
    return {name: options[name] for name in TASK_OPTIONS if options.get(name) not in (None, False)}


def period_options(function: F) -> F:
    """Adds --since, --until, --project and --key: which calls of the ledger."""
    for option in (
        click.option(
            "--key", "key_id", metavar="ID", help="Only calls that came with this gateway key; '' is those without one."
        ),
        click.option("--project", metavar="NAME", help="Only calls of this project; '' is those without one."),
        click.option("--until", type=MOMENT, metavar="WHEN", help="Only calls before then."),
        click.option(
            "--since", type=MOMENT, metavar="WHEN", help="Only calls since then: 7d, 12h, 2026-11-01 (UTC), today."
        ),
    ):
        function = option(function)
    return function


def settings_of(ctx: click.Context) -> Settings:
    """The configuration, from --config or wherever it is found."""
    from tierwise.config import load_settings

    named = ctx.find_root().obj
    return load_settings(path=Path(named) if named else None)


def ledger_of(settings: Settings) -> Ledger | None:
    """The configured ledger; None where nothing was ever recorded, so that reading does not create one."""
    from tierwise.ledger import Ledger

    ledger = Ledger.of(settings.ledger)
    return ledger if ledger.path.exists() or ledger.waiting() else None


def text_of(argument: str | None, what: str = "task") -> str:
    """The text given as an argument, or read from stdin when it is `-` or missing and something is piped in."""
    if argument is not None and argument != "-":
        return argument
    if argument is None and sys.stdin.isatty():
        raise click.UsageError(f"give the {what} as an argument, or pipe it in")
    return read_stdin()


def read_stdin() -> str:
    """Everything on stdin, as UTF-8; bytes that are none are replaced, not refused."""
    data = sys.stdin.buffer.read(MAX_TASK_BYTES + 1)
    if len(data) > MAX_TASK_BYTES:
        raise InvalidTask(f"stdin holds more than {MAX_TASK_BYTES // 2**20} MB; cut it into pieces")
    return utf8(data)


def utf8(data: bytes) -> str:
    """As text, without a byte order mark; bytes that are no UTF-8 are replaced."""
    return data.decode("utf-8", "replace").removeprefix("\ufeff")


def schema_of(name: str) -> JsonObject:
    """The JSON schema that a file holds.

    Raises:
        InvalidTask: it holds none.
    """
    try:
        schema = json.loads(Path(name).read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidTask(f"{name} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise InvalidTask(f"{name} holds a {type(schema).__name__}; a JSON schema is an object")
    return schema
