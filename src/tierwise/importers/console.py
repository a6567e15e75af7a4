"""Usage exports of the Claude Console (its Usage page, CSV): sums of many requests by day, model, key and workspace.

Nobody can tell from a sum what its requests were, so such rows count in spend and are left out of every what-if
(`ImportedCall.is_sum`). Price bands go by the row's `context_window` (`≤ 200k`, `> 200k`); where a model's band lies
inside of that range, the lower one is taken, so that spend is never overstated. The console's other export, of costs,
is refused: beside usage it would count everything twice.

Columns as the console writes them since 2025; those that older exports lack (the split of cache writes, geography,
speed) may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tierwise.core.calls import ImportedCall
from tierwise.core.money import Conditions, Usage
from tierwise.importers.base import FoundSession, Importer, ImportRun
from tierwise.importers.records import (
    Record,
    csv_records,
    files_below,
    geography,
    moment_ms,
    number,
    sessions_of,
    text,
    usage_of,
)

__all__ = ["Console", "build"]

NAME = "console"
_NEEDS = ("usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens")
_WHICH = (
    "usage_date_utc",
    "model_version",
    "api_key",
    "workspace",
    "usage_type",
    "context_window",
    "inference_geo",
    "speed",
)
_TOKENS = {
    "usage_input_tokens_no_cache": "input_tokens",
    "usage_output_tokens": "output_tokens",
    "usage_input_tokens_cache_read": "cache_read_tokens",
    "usage_input_tokens_cache_write_5m": "cache_write_5m_tokens",
    "usage_input_tokens_cache_write_1h": "cache_write_1h_tokens",
    "web_search_count": "web_searches",
}
_UNSPLIT_WRITES = "usage_input_tokens_cache_write"  # before there were two times to live: all of five minutes
_MOST = 10**15
_NOON_MS = 12 * 3_600_000
_RANGE = re.compile(r"(>=?|≥)?\D{0,3}(\d{1,9})\s*([kKmM]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


class Console:
    """The importer."""

    name = NAME

    def default_roots(self, environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
        """None: exports are wherever a browser put them."""
        return ()

    def sessions(self, roots: Iterable[Path], run: ImportRun) -> Iterator[FoundSession]:
        """One session a day. The same row of a later export replaces the earlier one: a day may not have been over."""
        calls: dict[str, ImportedCall] = {}
        for path in files_below(roots, (".csv",), run.skipped):
            for record in csv_records(path, run.skipped, needs=_NEEDS, what="a usage export of the console"):
                call = _sum(record, run)
                if call is not None:
                    calls[call.id] = call
        yield from sessions_of(calls, NAME, run)


def build() -> Importer:
    """The importer of this module."""
    return Console()


def _sum(record: Record, run: ImportRun) -> ImportedCall | None:
    row = record.fields
    day = text(row.get("usage_date_utc"))
    at_ms, model = moment_ms(day), text(row.get("model_version"))
    usage = usage_of({field: number(row.get(column), _MOST) for column, field in _TOKENS.items()})
    unsplit = number(row.get(_UNSPLIT_WRITES), _MOST)
    if day is None or at_ms is None or model is None or usage is None or unsplit is None:
        run.skipped.line(record.path, record.line, "has no day, no model or no tokens that can be")
        return None
    for column in row:
        if "tokens" in column and column not in _TOKENS and column != _UNSPLIT_WRITES:
            run.skipped.usage_field(column)
    return ImportedCall(
        id="\x1f".join(str(row.get(column, "")) for column in _WHICH),
        at_ms=at_ms + _NOON_MS,
        session=f"console {day[:10]}",
        model=model,
        usage=usage + Usage(cache_write_5m_tokens=unsplit),
        conditions=Conditions(
            batch="batch" in str(row.get("usage_type", "")).lower(),
            inference_geo=geography(row.get("inference_geo")),
            fast=row.get("speed") == "fast",
        ),
        project=text(row.get("workspace")),
        band_prompt_tokens=_least_prompt(str(row.get("context_window", ""))),
    )


def _least_prompt(window: str) -> int:
    """The shortest prompt in a range such as `≤ 200k` or `> 200k`."""
    found = _RANGE.search(window)
    if found is None or found[1] is None:
        return 0
    return int(found[2]) * _UNITS[found[3].lower()] + 1
