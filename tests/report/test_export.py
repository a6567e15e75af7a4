"""Exports hold every row, exactly, and do nothing to whoever opens them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ledger.records import attempt, call
from tierwise.core.decisions import OutcomeKind
from tierwise.ledger import Filter, Ledger
from tierwise.report import export_rows
from tierwise.report.export import _csv_cell


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", spool_dirs=()) as found:
        found.record(call("a"), [attempt("a", outcome=OutcomeKind.REJECTED), attempt("a", 2, cost_nanousd=1)])
        found.record(
            call("b", project="q", error="=1+1\nx"), [attempt("b", cost_nanousd=None, price=None, detail="-2")]
        )
        yield found


def test_json_lines_hold_one_attempt_each(ledger: Ledger) -> None:
    """Every attempt is a line, failed ones too, with its exact cost and that of the unpriced null."""
    rows = [json.loads(line) for line in export_rows(ledger)]
    assert [(r["call_id"], r["number"], r["outcome"], r["cost_usd"]) for r in rows] == [
        ("a", 1, "rejected", "0.000002"),
        ("a", 2, "accepted", "0.000000001"),
        ("b", 1, "accepted", None),
    ]


@pytest.mark.parametrize("what", ["attempts", "calls"])
def test_csv_and_json_have_the_same_columns(ledger: Ledger, what: str) -> None:
    """The names in the first line of CSV are the keys of JSON, in order."""
    text = list(export_rows(ledger, "csv", what=what))  # type: ignore[arg-type]
    keys = list(json.loads(next(export_rows(ledger, what=what))))  # type: ignore[arg-type]
    assert next(csv.reader(text)) == keys
    assert len(list(csv.DictReader("".join(text).splitlines(keepends=True)))) == {"attempts": 3, "calls": 2}[what]


def test_csv_cells_are_no_formulas(ledger: Ledger) -> None:
    """A text that a spreadsheet would run is defused; numbers stay numbers."""
    calls = list(csv.DictReader(export_rows(ledger, "csv", what="calls")))
    assert calls[1]["error"] == "'=1+1\nx"
    attempts = list(csv.DictReader(export_rows(ledger, "csv", where=Filter(project="q"))))
    assert [(a["detail"], a["cost_usd"], a["estimated"], a["number"]) for a in attempts] == [("'-2", "", "false", "1")]


@given(st.text())
def test_no_text_begins_like_a_formula(text: str) -> None:
    """Whatever a tag or a message holds, its cell begins with no formula sign, blanks or not."""
    cell = _csv_cell("detail", text)
    assert cell.lstrip(" ")[:1] not in tuple("=+-@\t\r\n＝＋－＠")
    cell.encode("utf-8")


def test_unknown_format_is_refused_at_once(ledger: Ledger) -> None:
    """A misspelt format or kind of rows is an error before anything is read."""
    with pytest.raises(ValueError, match="use jsonl or csv"):
        export_rows(ledger, "xml")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use attempts or calls"):
        export_rows(ledger, what="rows")  # type: ignore[arg-type]
