"""`tierwise analyze` and `tierwise replay`: from transcripts to figures, files and settings, with nothing set up."""

from __future__ import annotations

import csv
import json
import os
import pty
import sqlite3
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.conftest import Tierwise
from tests.importers.transcripts import OPUS, OTHER, SESSION, cost_state, human, reply, usage, write
from tierwise.analysis.findings import json_schema

CANARY = "zzcanary7731"
# Opus 5.5: 4 and 20 US$ per million tokens of input and output.
ASKED = usage(1_000, 20_000)
COST = 0.1


@pytest.fixture
def projects(home: Path) -> Path:
    """Two sessions of simple work on a dear model, where Claude Code keeps them; one has its own figure."""
    root = home.parent / ".claude" / "projects"
    for number, session in enumerate((SESSION, OTHER)):
        rows: list[Any] = [human(f"Tag this ticket with one label: {CANARY}", sessionId=session)]
        rows += [
            reply(
                10 * number + k,
                k,
                message={"model": OPUS, "usage": ASKED, "content": [{"type": "text", "text": CANARY}]},
                sessionId=session,
                cwd=f"/home/dev/project-{number}",
            )
            for k in range(1, 4)
        ]
        if not number:
            rows.append(cost_state(0.3, {OPUS: 0.3}, sessionId=session))
        rows.append(b"{broken\n")
        write(root / f"-home-dev-project-{number}" / f"{session}.jsonl", rows)
    return root


def test_it_needs_nothing_but_transcripts(tierwise: Tierwise, projects: Path) -> None:
    """No argument, no key, no configuration: figures of what Claude Code wrote down on this machine."""
    done = tierwise("analyze")
    assert (done.code, done.err) == (0, "")
    assert "2 sessions · 6 calls" in done.out
    assert "Everything stays on this machine" in done.out
    assert "spent         $0.6000" in done.out
    assert "tierwise analyze --apply --claude-code && tierwise serve" in done.out
    assert "agrees in 1 of 1 session" in done.out
    assert "Skipped: 2 unreadable lines (--full: which)" in done.out
    assert "\x1b" not in done.out


def test_json_has_its_schema(tierwise: Tierwise, projects: Path) -> None:
    """What is printed is what the reference says, and adds up."""
    done = tierwise("analyze", "--json")
    jsonschema.validate(done.json, json_schema())
    assert (done.json["sessions"], done.json["calls"], done.json["actual_usd"]) == (2, 6, 0.6)
    assert done.json["counterfactual"]["expected_usd"] < 0.3
    assert [row["project"] for row in done.json["by_project"]] == ["/home/dev/project-0", "/home/dev/project-1"]
    assert done.json["skipped"]["lines"] == 2


def test_the_same_transcripts_give_the_same_twice(tierwise: Tierwise, projects: Path) -> None:
    """What is remembered changes nothing; with --fresh nothing is remembered."""
    first = tierwise("analyze", "--json", "--fresh")
    assert not list(projects.parents[1].rglob("readings.db"))
    assert tierwise("analyze", "--json") == tierwise("analyze", "--json") == first


def test_time_and_project_limit_it(tierwise: Tierwise, projects: Path) -> None:
    """Only what was asked for is counted."""
    assert tierwise("analyze", "--json", "--project", "project-1").json["calls"] == 3
    assert tierwise("analyze", "--json", "--since", "2026-11-02T09:00:02Z").json["calls"] == 4
    assert tierwise("analyze", "--json", "--until", "2026-11-02").json["calls"] == 0
    assert "Try without" in tierwise("analyze", "--until", "2026-11-02").out


def test_files_hold_figures_and_no_text(tierwise: Tierwise, projects: Path, home: Path) -> None:
    """The page and the rows are written whole, beside the report; no word of a prompt or a reply is in anything."""
    done = tierwise("analyze", "--full", "--html", "r.html", "--csv", "r.csv")
    assert done.code == 0
    assert done.err == "written: r.html\nwritten: r.csv\n"
    page = (home / "r.html").read_text("utf-8")
    assert "What routing would have saved" in page
    with (home / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["actual_usd"]) for row in rows) == Decimal("0.6")
    kept = [path for path in home.parent.rglob("*") if path.is_file() and projects not in path.parents]
    assert any(path.name == "readings.db" for path in kept)
    assert all(CANARY.encode() not in path.read_bytes() for path in kept)
    assert CANARY not in done.out


def test_a_cache_that_fails_in_the_middle_costs_nothing_but_time(
    tierwise: Tierwise, projects: Path, home: Path
) -> None:
    """What could be opened and then not written is done without, and said."""
    first = tierwise("analyze")
    (store,) = home.parent.rglob("readings.db")
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM files")
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON files BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    connection.close()
    done = tierwise("analyze")
    assert (done.code, done.out) == (0, first.out)
    assert "cannot be used now (disk is full)" in done.err
    assert "nothing is remembered this time" in done.err


def test_nothing_found_says_where_it_looked(tierwise: Tierwise, home: Path) -> None:
    """Without transcripts it says so, and what to do; that is no error."""
    done = tierwise("analyze")
    assert done.code == 0
    assert "No records of claude_code" in done.out and "tierwise analyze PATH" in done.out
    assert tierwise("analyze", "--json").json["sessions"] == 0
    (home / "empty").mkdir()
    assert "No calls were found in empty" in tierwise("analyze", "empty").out
    assert "No calls were found in empty" in tierwise("replay", "empty").out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nowhere"], "there is no nowhere"),
        (["--source", "nope"], "no importer"),
        (["--policy", "nope.toml"], "nope.toml"),
        (["--html", "."], "is a directory"),
        (["--yes"], "go with --apply"),
        (["--apply"], "add --yes"),
    ],
)
def test_what_cannot_be_done_is_said(tierwise: Tierwise, projects: Path, args: list[str], says: str) -> None:
    """Each ends with code 2 and says what is wrong."""
    done = tierwise("analyze", *args)
    assert (done.code, says in done.err) == (2, True)


# ------------------------------------------------------------------ applying


def test_apply_shows_writes_and_undoes(tierwise: Tierwise, projects: Path, home: Path) -> None:
    """The change is shown, made, and taken back byte for byte; what was in the files stays in them."""
    settings = home.parent / ".claude" / "settings.json"
    before = '{"permissions": {"allow": ["Bash"]}, "env": {"A": "1"}}'
    settings.write_text(before)
    config = home.parent / ".config" / "tierwise" / "tierwise.toml"
    done = tierwise("analyze", "--apply", "--claude-code", "--yes")
    assert done.code == 0
    assert '+routed_models = ["claude-tierwise-auto", "claude-opus-5-5"]' in done.err
    assert "To take it back: tierwise analyze --undo" in done.err
    assert json.loads(settings.read_text()) == {
        "permissions": {"allow": ["Bash"]},
        "env": {"A": "1", "ANTHROPIC_BASE_URL": "http://127.0.0.1:8484"},
    }
    assert tierwise("doctor", "--no-speed", "--json").json["checks"]  # the file can be used
    assert "say what is recommended already" in tierwise("analyze", "--apply", "--claude-code", "--yes").err
    undone = tierwise("analyze", "--undo", "--json").json["undone"]
    assert {file["how"] for file in undone} == {"removed", "restored"}
    assert settings.read_text() == before
    assert not config.exists()
    assert "nothing to undo" in tierwise("analyze", "--undo").out


def test_apply_leaves_claude_code_alone_unless_asked(tierwise: Tierwise, projects: Path, home: Path) -> None:
    """Its settings are its own: only --claude-code writes them."""
    done = tierwise("analyze", "--apply", "--yes", "--json")
    assert not (home.parent / ".claude" / "settings.json").exists()
    assert "tierwise claude" in done.err
    assert done.json["calls"] == 6  # stdout is JSON alone


def test_apply_writes_the_file_that_is_in_use(tierwise: Tierwise, projects: Path, home: Path) -> None:
    """The one named by --config, and what stood there stays."""
    (home / "mine.toml").write_text("# mine\n\n[ledger]\nenabled = true\n")
    tierwise("--config", "mine.toml", "analyze", "--apply", "--yes")
    assert (home / "mine.toml").read_text().startswith("# mine\n")
    assert "[gateway]" in (home / "mine.toml").read_text()
    assert not (home.parent / ".config").exists()


def test_hostile_settings_are_left_alone(tierwise: Tierwise, projects: Path, home: Path) -> None:
    """What is no JSON gives an error, and no file at all is written."""
    settings = home.parent / ".claude" / "settings.json"
    settings.write_text("{// a comment\n}")
    done = tierwise("analyze", "--apply", "--claude-code", "--yes")
    assert (done.code, "settings.json cannot be read" in done.err) == (2, True)
    assert settings.read_text() == "{// a comment\n}"
    assert not (home.parent / ".config").exists()


def test_a_person_is_asked_and_may_decline(projects: Path, home: Path) -> None:
    """On a terminal it shows the change and asks; "n" writes nothing. The report is coloured there."""
    read, write_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tierwise", "analyze", "--apply"],
        stdin=write_end,
        stdout=write_end,
        stderr=write_end,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"},
    )
    os.close(write_end)
    os.write(read, b"n\n")
    shown = b""
    while True:
        try:
            part = os.read(read, 65_536)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0
    os.close(read)
    text = shown.decode()
    assert "\x1b[" in text
    assert "Write this?" in text and "Nothing was written." in text
    assert not (home.parent / ".config").exists()


# ------------------------------------------------------------------ replay


def test_policies_stand_side_by_side(tierwise: Tierwise, projects: Path, home: Path) -> None:
    """What was, routing, another configuration, fixed tiers and Claude Code's levers, over the same calls."""
    (home / "careful.toml").write_text('[overrides]\nmin_tier = "sonnet"\n')
    done = tierwise("replay", "--policy", "careful.toml", "--json")
    found = {row["policy"]: row for row in done.json["policies"]}
    assert {"as it was", "routed", "careful", "all-haiku", "all-opus", "opusplan", "haiku-subagents"} <= set(found)
    assert found["as it was"]["expected_usd"] == done.json["actual_usd"] == 0.6
    assert found["all-haiku"]["expected_usd"] == pytest.approx(6 * (20_000 * 0.1 + 1_000 * 0.5) / 1e6, rel=0.2)
    assert found["routed"]["expected_usd"] < found["careful"]["expected_usd"] < 0.6
    assert found["all-opus"]["expected_usd"] == 0.6
    shown = tierwise("replay", "--policy", "careful.toml").out
    assert "careful" in shown and "6 calls in 2 sessions cost $0.6000." in shown


def test_replayed_by_hand(tierwise: Tierwise, projects: Path) -> None:
    """A tiny session under policies that name one model: each figure is rates times tokens, answers a tenth longer."""
    for file in projects.rglob("*.jsonl"):
        file.unlink()
    rows = [
        human("Design a billing service", permissionMode="plan"),
        reply(1, 1, usage(1_000, 10_000), message={"model": OPUS}),
        human("Rename the variable", 60, permissionMode="default"),
        reply(2, 61, usage(500, 100), message={"model": OPUS}),
    ]
    write(projects / "-home-dev-x" / f"{SESSION}.jsonl", rows)
    done = tierwise("replay", "--baseline", "all-opus", "--baseline", "all-sonnet", "--baseline", "opusplan", "--json")
    found = {row["policy"]: Decimal(str(row["expected_usd"])) for row in done.json["policies"]}
    planned, renamed = Decimal("0.06"), Decimal("0.0104")  # 4 and 20 US$ per million tokens
    on_sonnet = [Decimal("0.031"), Decimal("0.0057")]  # 2 and 10
    assert found["all-opus"] == found["as it was"] == planned + renamed
    assert found["all-sonnet"] == sum(on_sonnet)
    assert found["opusplan"] == planned + on_sonnet[1]
    assert "2 calls in 1 session cost $0.0704." in tierwise("replay", "--baseline", "none").out


def test_random_routing_at_the_same_cost_is_worse(tierwise: Tierwise, projects: Path) -> None:
    """It stands beside routing with what it would send too low."""
    rows = tierwise("replay", "--json", "--baseline", "random", "--baseline", "all-opus").json["policies"]
    names = [row["policy"] for row in rows]
    assert sorted(name for name in names if name.startswith("all-")) == ["all-haiku", "all-opus", "all-sonnet"]


def test_prices_and_models_of_another_time(tierwise: Tierwise, projects: Path) -> None:
    """Other prices change what everything costs but what was spent; another model takes a tier's place."""
    done = tierwise(
        "replay", "--prices", "2026-11-20", "--models", "opus=claude-opus-5", "--json", "--baseline", "all-opus"
    )
    found = {row["policy"]: row for row in done.json["policies"]}
    assert done.json["prices_on"] == "2026-11-20"
    assert done.json["actual_usd"] == 0.6
    assert found["all-opus"]["expected_usd"] == pytest.approx(6 * (20_000 * 5 + 1_000 * 25) / 1e6, rel=0.2)
    assert "as it was, prices of 2026-11-20" in found


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--models", "sonnet"], "TIER=MODEL"),
        (["--models", "sonnet=nope"], "unknown model 'nope'"),
        (["--models", "nope=claude-opus-5-5"], "no tier is called 'nope'"),
        (["--baseline", "nope"], "unknown baseline 'nope'"),
        (["--policy", "nope.toml"], "there is no nope.toml"),
    ],
)
def test_what_cannot_be_replayed_is_said(tierwise: Tierwise, projects: Path, args: list[str], says: str) -> None:
    """Each ends with code 2 and says what there is."""
    done = tierwise("replay", *args)
    assert (done.code, says in done.err) == (2, True)
