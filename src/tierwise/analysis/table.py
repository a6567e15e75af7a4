"""The findings as rows for a spreadsheet: one for each day, project, model and task type."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from tierwise.analysis.session import COLUMNS, Cell
from tierwise.core.money import nanousd_to_usd
from tierwise.report.export import csv_text

__all__ = ["csv_lines"]

_NAMES = ("day", "project", "model", "task_type")
_ALL = (*COLUMNS, "routed_nanousd")
_AMOUNTS = {"nanousd": "actual_usd", "routed_nanousd": "routed_usd"}


def csv_lines(cells: Mapping[Cell, Sequence[int]]) -> Iterator[str]:
    """Lines with their ends: the names of the columns, then the cells in order. Amounts are exact decimal texts."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")

    def line(row: Sequence[object]) -> str:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(row)
        return buffer.getvalue()

    yield line([*_NAMES, *(_AMOUNTS.get(column, column) for column in _ALL)])
    for cell, sums in sorted(cells.items()):
        yield line([*map(csv_text, cell), *(_number(column, value) for column, value in zip(_ALL, sums, strict=True))])


def _number(column: str, value: int) -> str:
    return f"{nanousd_to_usd(value):f}" if column in _AMOUNTS else str(value)
