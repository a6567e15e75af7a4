"""The documented tables are the real ones."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from tierwise.core.decisions import AttemptRecord, CallRecord
from tierwise.ledger import Ledger
from tierwise.ledger.codec import ATTEMPT_COLUMNS, CALL_COLUMNS
from tierwise.ledger.schema import MIGRATIONS

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "ledger.md"


def documented() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for section in re.split(r"^## ", DOCS.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        name, _, body = section.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| ([A-Z ]+) \|", body, flags=re.MULTILINE)
        if rows:
            found[name.strip()] = rows
    return found


def test_documented_tables_are_the_real_ones(ledger: Ledger) -> None:
    """Every table and column is in the reference, in order, with its type; and nothing else is."""
    ledger.open()
    with sqlite3.connect(ledger.path) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        real = {
            table: [
                (name, f"{kind} NOT NULL" if required else kind)
                for _, name, kind, required, _, _ in db.execute(f"PRAGMA table_info({table})")
            ]
            for table in tables
        }
    db.close()
    assert documented() == real


def test_tables_hold_all_that_the_records_have(ledger: Ledger) -> None:
    """No field of a record is without its column: what is known of a call is kept."""
    elsewhere = {"captured_text"}  # in the table `captured`
    assert set(CallRecord.__dataclass_fields__) - elsewhere | {"writer"} == set(CALL_COLUMNS)
    usage = {"usage"}
    assert set(AttemptRecord.__dataclass_fields__) - usage <= set(ATTEMPT_COLUMNS)


def test_migrations_are_numbered_and_say_why() -> None:
    """Numbers go up by one from 1, and each has a reason of more than a word."""
    assert [m.number for m in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert all(len(m.why.split()) > 5 for m in MIGRATIONS)
