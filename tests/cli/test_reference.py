"""docs/reference/cli.md: up to date, and its JSON shapes are those that the commands print."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.cli.conftest import LABELLED, Tierwise
from tests.importers.transcripts import SESSION, human, reply, write
from tierwise import cli
from tierwise.cli.failures import exit_code_of
from tierwise.core import errors
from tierwise.ledger import Ledger
from tierwise.ledger.batches import Batch, Batches
from tierwise.ledger.budgets import BudgetPeriod, Budgets, BudgetScope
from tierwise.ledger.keys import Keys
from tierwise.testing import StandInUpstream

WORKLOAD = '[[step]]\nname = "x"\ntask_type = "tagging"\ncalls_a_day = 1\ntokens_in = 2\ntokens_out = 3\n'
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    """The script that writes the page."""
    import importlib

    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("build_cli_reference")
    sys.path.remove(str(DOCS))


def test_page_is_up_to_date() -> None:
    """The page is what its script would write now."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "build_cli_reference.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def _assert_same_keys(documented: Any, printed: Any, where: str) -> None:
    """Every key is there on both sides, at every depth; a list's first element stands for all."""
    if isinstance(documented, dict):
        assert isinstance(printed, dict), where
        assert set(printed) == set(documented), where
        for key, value in documented.items():
            if not (key == "facts" and where.endswith("checks")):
                _assert_same_keys(value, printed[key], f"{where}.{key}")
    elif isinstance(documented, list) and documented:
        assert isinstance(printed, list), where
        for element in printed:
            _assert_same_keys(documented[0], element, where)


@pytest.fixture
def everything(home: Path, upstream: StandInUpstream, recorded: Ledger) -> Path:
    """A machine with a key, a stand-in that answers and a ledger with calls, a client's key, a budget and a batch."""
    Keys(recorded).create("laptop", 0)
    Budgets(recorded).set(BudgetScope.PROJECT, "search", BudgetPeriod.DAY, 10**9, 0)
    batch = Batch("batch-1", "up-1", "anthropic", None, None, 1, 0)
    Batches(recorded).begin(batch, [])
    recorded.close()
    upstream.reply("a reply that the demo's checks refuse", times=None)
    return home


@pytest.mark.parametrize(
    "case",
    [
        ("demo", []),
        ("route", ["Write unit tests and a poem about them"]),
        ("classify", ["Review this diff for security holes"]),
        ("eval classify", [str(LABELLED), "--errors", "3"]),
        ("run", ["Summarise this"]),
        ("estimate", ["workload.toml"]),
        ("replay", ["TRANSCRIPTS"]),
        ("report", ["--by", "tier"]),
        ("comment", ["--dry-run", "TRANSCRIPTS"]),
        ("prices", []),
        ("keys create", ["another"]),
        ("keys list", []),
        ("keys revoke", ["laptop"]),
        ("budgets set", ["--all", "--per", "day", "--usd", "5"]),
        ("budgets list", []),
        ("budgets remove", ["BUDGET"]),
        ("types add", ["invoice_coding", "--examples", "examples.txt"]),
        ("types relearn", []),
        ("types remove", ["declared"]),
        ("feedback", ["CALL", "--good"]),
        ("ledger size", []),
        ("ledger batches", []),
        ("ledger verify", []),
        ("ledger rebuild", []),
        ("ledger prune", ["--older-than", "2020-01-01", "--keep-rollups"]),
        ("ledger backup", ["copy.db"]),
        ("claude install", ["--yes"]),
        ("claude uninstall", []),
        ("claude status", []),
        ("init", ["--no-weights"]),
        ("doctor", ["--no-speed"]),
    ],
)
def test_documented_keys_are_those_printed(
    tierwise: Tierwise,
    reference: ModuleType,
    everything: Path,
    case: tuple[str, list[str]],
) -> None:
    """What the page shows for --json is what the verb prints: no key more, none less."""
    verb, args = case
    if "BUDGET" in args:
        args = [tierwise("budgets", "list", "--json").json["budgets"][0]["budget_id"]]
    if "TRANSCRIPTS" in args:
        write(everything / "projects" / "p" / f"{SESSION}.jsonl", [human("Summarise this"), reply()])
        args = [str(everything / "projects") if word == "TRANSCRIPTS" else word for word in args]
    if "CALL" in args:
        args = [tierwise("export", "--what", "calls").lines[0]["call_id"], *args[1:]]
    if verb.startswith("types"):
        with (everything / "tierwise.toml").open("a") as file:
            file.write('[task_types.declared]\nfamily = "own"\nneeds = "judgment"\nrecoverable = false\n')
    if verb == "claude uninstall":
        tierwise("claude", "install", "--yes")
    (everything / "examples.txt").write_text("".join(f"Ledger account of line {k}, please\n" for k in range(9)))
    (everything / "workload.toml").write_text(WORKLOAD)
    done = tierwise(*verb.split(), *args, "--json")
    assert done.code == 0
    _assert_same_keys(reference.SHAPES[verb], done.json, verb)
    assert done.json


def test_every_verb_and_exit_code_is_on_the_page(reference: ModuleType) -> None:
    """Each verb has a section with its options; each code that an error can have is in the table."""
    page = (DOCS / "reference" / "cli.md").read_text()
    for verb in cli.VERBS:
        assert f"## tierwise {verb}" in page
        assert verb in {name.split()[0] for name in (*reference.SHAPES, *reference.NOTES)}
    listed = {int(code) for code, _ in reference.exit_codes()}
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert {exit_code_of(kind("x")) for kind in kinds} <= listed
    assert listed == {0, 1, 2, 3, 4, 5, 130, 141}
    assert {int(code) for code in re.findall(r"\b(\d+) ", (cli.cli.help or "").partition("Exit codes:")[2])} < listed
