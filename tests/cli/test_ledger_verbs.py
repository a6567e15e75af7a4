"""`tierwise report` and `tierwise export`, and every verb beside a ledger in trouble."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Tierwise
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream


def test_report_by_default_is_by_tier_and_by_type(tierwise: Tierwise, recorded: Ledger) -> None:
    """Both sections sum up to the same total; savings are signed and leave out what is unpriced."""
    report = tierwise("report", "--json").json
    assert list(report["by"]) == ["tier", "task_type"]
    for rows in report["by"].values():
        assert sum(row["calls"] for row in rows) == report["total"]["calls"] == 5
        assert sum(row["failed_attempts"] for row in rows) == 1
    total = report["total"]
    assert total["cost_usd"] == 0.00075
    assert total["open_cost_usd"] == 0.000125
    assert total["unpriced_calls"] == 1
    assert total["baseline_cost_usd"] == 0.024
    assert total["saved_usd"] == 0.01325
    assert report["ledger"] == str(recorded.path)


@pytest.mark.parametrize(
    ("by", "key", "names"),
    [
        ("type", "task_type", {"summarization", "tagging"}),
        ("tier", "tier", {"local", "haiku"}),
        ("model", "model", {"model-of-local", "model-of-haiku"}),
        ("day", "day", {f"2025-11-0{day}" for day in range(1, 6)}),
        ("project", "project", {"", "[/b] =cmd"}),
    ],
)
def test_report_by_each_dimension(tierwise: Tierwise, recorded: Ledger, by: str, key: str, names: set[str]) -> None:
    """Each --by gives rows under its own key, as JSON and as a table."""
    rows = tierwise("report", "--by", by, "--json").json["by"][key]
    assert {row[key] for row in rows} == names
    table = tierwise("report", "--by", by)
    assert table.code == 0
    for name in names - {""}:
        assert name in table.out


def test_report_shows_open_and_unpriced_apart(tierwise: Tierwise, recorded: Ledger) -> None:
    """What may still have been charged and what has no price are told in words."""
    done = tierwise("report")
    assert "open: 1 attempts" in done.out
    assert "unpriced: 1 calls" in done.out
    assert "$0.01325" in done.out


def test_report_of_a_period_a_project_and_a_key(tierwise: Tierwise, recorded: Ledger) -> None:
    """--since is inclusive, --until exclusive, --project exact; a loss is shown with its sign."""
    some = tierwise("report", "--since", "2025-11-02", "--until", "2025-11-04", "--json").json
    assert (some["since"], some["until"], some["total"]["calls"]) == ("2025-11-02", "2025-11-04", 2)
    assert tierwise("report", "--project", "[/b] =cmd", "--json").json["total"]["calls"] == 1
    assert tierwise("report", "--project", "", "--json").json["total"]["calls"] == 4
    assert tierwise("report", "--key", "", "--json").json["total"]["calls"] == 5
    assert tierwise("report", "--key", "abc", "--json").json["total"]["calls"] == 0
    assert tierwise("export", "--key", "abc").out == ""
    loss = tierwise("report", "--since", "2025-11-03", "--until", "2025-11-04", "--json").json["total"]
    assert loss["saved_usd"] == -0.00025
    assert tierwise("report", "--since", "7d", "--json").json["total"]["calls"] == 0
    assert "without limits" in tierwise("report", "--since", "today").out


@pytest.mark.parametrize("when", ["lately", "2025-13-01", "7x", "999999d"])
def test_time_that_is_none_is_told_of(tierwise: Tierwise, when: str) -> None:
    """A --since that is no time ends with code 2 and examples."""
    done = tierwise("report", "--since", when)
    assert done.code == 2
    assert "7d" in done.err


def test_empty_ledger_is_no_error_and_is_not_made(tierwise: Tierwise, ledger_path: Path) -> None:
    """Before the first call the report says what to do next; reading creates no file."""
    done = tierwise("report")
    assert done.code == 0
    assert "tierwise demo" in done.out
    assert tierwise("report", "--json").json["total"]["calls"] == 0
    assert tierwise("export").out == ""
    assert tierwise("export", "--format", "csv").out.startswith("call_id,number,")
    assert not ledger_path.exists()


def test_export_jsonl_and_csv_have_the_same_rows(tierwise: Tierwise, recorded: Ledger) -> None:
    """Both formats give every attempt, in order; costs are exact texts, empty where unpriced."""
    rows = tierwise("export").lines
    assert [row["cost_usd"] for row in rows] == ["0.00", "0.0005", "0.00025", "0.000125", None]
    cells = list(csv.DictReader(io.StringIO(tierwise("export", "--format", "csv").out)))
    assert [cell["cost_usd"] for cell in cells] == [row["cost_usd"] or "" for row in rows]
    assert tierwise("export", "--json").lines == rows


def test_export_filters(tierwise: Tierwise, recorded: Ledger) -> None:
    """Calls, or attempts, of a period, project, type, tier, model or state."""
    assert len(tierwise("export", "--what", "calls").lines) == 5
    for args, count in (
        (("--since", "2025-11-04"), 2),
        (("--project", "[/b] =cmd"), 1),
        (("--type", "tagging"), 1),
        (("--tier", "haiku"), 4),
        (("--model", "model-of-local"), 1),
        (("--status", "failed"), 1),
        (("--session", "none"), 0),
    ):
        assert len(tierwise("export", "--what", "calls", *args).lines) == count


def test_export_to_a_file_is_all_or_nothing(tierwise: Tierwise, recorded: Ledger, home: Path) -> None:
    """-o writes the whole file under its name and says how many rows; a failure leaves the old one."""
    done = tierwise("export", "-o", "out.jsonl")
    assert (done.code, done.out) == (0, "")
    assert "5 rows" in done.err
    before = (home / "out.jsonl").read_text()
    assert before.count("\n") == 5
    recorded.path.write_bytes(b"no database" * 1000)
    assert tierwise("export", "-o", "out.jsonl").code == 5
    assert (home / "out.jsonl").read_text() == before
    assert [path.name for path in home.iterdir()] == ["out.jsonl"]
    assert tierwise("export", "-o", "no/such/dir/x").code == 2


def test_json_and_csv_exclude_each_other(tierwise: Tierwise) -> None:
    """--json is JSON Lines; asking for CSV too is a usage error."""
    assert tierwise("export", "--json", "--format", "csv").code == 2


@pytest.fixture
def corrupt(recorded: Ledger) -> Path:
    """A ledger that is no database any more."""
    recorded.path.write_bytes(b"this is not a database" * 500)
    return recorded.path


@pytest.fixture
def locked(recorded: Ledger) -> Iterator[Path]:
    """A ledger that another program holds for itself."""
    connection = sqlite3.connect(recorded.path, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("UPDATE calls SET error = error")
    connection.execute("COMMIT")
    yield recorded.path
    connection.close()


@pytest.mark.parametrize("verb", [["report"], ["export"], ["report", "--json"], ["export", "--format", "csv"]])
def test_verbs_that_read_the_ledger_end_with_five(
    tierwise: Tierwise, corrupt: Path, upstream: StandInUpstream, verb: list[str]
) -> None:
    """A damaged ledger is told of with the way to recover it."""
    done = tierwise(*verb)
    assert done.code == 5
    assert "tierwise doctor --recover" in done.err


@pytest.mark.parametrize("trouble", ["corrupt", "locked"])
def test_verbs_that_do_not_need_the_ledger_work_without(
    tierwise: Tierwise, request: pytest.FixtureRequest, upstream: StandInUpstream, trouble: str
) -> None:
    """Routing, classifying, estimating and running go on beside a ledger in trouble; the record waits."""
    path = request.getfixturevalue(trouble)
    assert tierwise("route", "Summarise this", "--json").json["task_type"] == "summarization"
    assert tierwise("classify", "Summarise this").code == 0
    assert tierwise("prices").code == 0
    upstream.reply("fine")
    done = tierwise("run", "Summarise this")
    assert (done.code, done.out) == (0, "fine\n")
    assert "not in the ledger yet" in done.err
    assert list(path.parent.glob("*.spool-*.jsonl"))


def test_locked_ledger_cannot_be_read_now(tierwise: Tierwise, locked: Path, upstream: StandInUpstream) -> None:
    """A report on a ledger that is held by another program ends with code 5 and says so."""
    for verb in ("report", "export"):
        done = tierwise(verb)
        assert done.code == 5
        assert "cannot be used now" in done.err


def test_ledger_of_a_newer_version_is_left_alone(tierwise: Tierwise, recorded: Ledger) -> None:
    """Code 5 and the word to upgrade."""
    with sqlite3.connect(recorded.path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    done = tierwise("report")
    assert done.code == 5
    assert "newer" in done.err


def test_directory_in_place_of_the_ledger_is_told_of(tierwise: Tierwise, home: Path) -> None:
    """Code 5, and what to name instead."""
    done = tierwise("report", env={"TIERWISE_LEDGER": str(home)})
    assert done.code == 5
    assert "is a directory" in done.err
