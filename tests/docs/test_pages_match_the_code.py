"""What the pages say of the code is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tierwise.core.decisions import OutcomeKind
from tierwise.testing import Fault
from tierwise.wire.chat.errors import error_body
from tierwise.wire.chat.request import LEFT_OUT, PASSED_ON, REFUSED, TRANSLATED

from .pages import DOCS, ROOT, blocks

SCRIPTS = sorted(DOCS.glob("build_*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_generated_pages_are_up_to_date(script: Path, tmp_path: Path) -> None:
    """Each generated page is what its script would write, whatever the user has configured."""
    config = tmp_path / ".config" / "tierwise" / "tierwise.toml"
    config.parent.mkdir(parents=True)
    config.write_text('baseline = "opus"\ntiers.fable = ["claude-fable-5-2"]\n', "utf-8")
    done = subprocess.run(
        [sys.executable, str(script), "--check"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TIERWISE_MIN_TIER": "haiku"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_checked_by_make(script: Path) -> None:
    """`make docs-check` runs every script that writes a page."""
    assert f"docs/{script.name} --check" in (ROOT / "Makefile").read_text("utf-8")


def test_layers_are_those_of_the_import_contract() -> None:
    """The layers that architecture.md draws are the ones that lint-imports holds, and all packages are in its table."""
    page = DOCS / "explanation" / "architecture.md"
    (drawn,) = blocks(page, "layers")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert drawn.text.splitlines() == [layer.replace("tierwise.", "") for layer in layers]
    described = re.findall(r"^\| `(\w+)` \|", page.read_text("utf-8"), flags=re.MULTILINE)
    assert sorted(described) == sorted(part for line in drawn.text.splitlines() for part in line.split(" | "))


def test_climbing_tells_of_every_outcome() -> None:
    """The table of climbing.md has each outcome that an attempt can have, once."""
    text = (DOCS / "explanation" / "climbing.md").read_text("utf-8")
    told = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(told) == sorted(kind.value for kind in OutcomeKind if kind.value not in {"open", "not_run"})


def test_tree_is_the_shipped_one() -> None:
    """The rules that how-it-decides.md tells of are the shipped ones, in order."""
    text = (DOCS / "explanation" / "how-it-decides.md").read_text("utf-8")
    defaults = tomllib.loads((ROOT / "src" / "tierwise" / "data" / "defaults.toml").read_text("utf-8"))
    told = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert told == [rule["name"] for rule in defaults["policy"]["rules"]]


def test_every_fault_is_told_of() -> None:
    """The table of faults in the how-to has every one that the stand-in knows."""
    text = (DOCS / "how-to" / "test-your-code.md").read_text("utf-8")
    faults = {name for name, value in vars(Fault).items() if isinstance(value, classmethod)}
    assert faults == set(re.findall(r"`Fault\.(\w+)\(", text))


def test_every_parameter_of_chat_completions_is_told_of() -> None:
    """chat-completions.md has each parameter where the code has it: translated, left out, or refused."""
    text = (DOCS / "reference" / "chat-completions.md").read_text("utf-8")
    parameters = text.partition("## Parameters")[2].partition("## Schemas")[0]
    table, _, rest = parameters.partition("Left out, because")
    left_out, _, refused = rest.partition("Refused where")
    translated = re.findall(r"^\| (`[^|]+`) \|", table, flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(translated))) == TRANSLATED | set(PASSED_ON)
    assert set(re.findall(r"`(\w+)`", left_out)) == set(LEFT_OUT)
    assert set(re.findall(r"`(\w+)`", refused)) == set(REFUSED)


def test_errors_of_chat_completions_are_as_told() -> None:
    """Each row of the table of errors in chat-completions.md is what the code answers, by type and by status."""
    text = (DOCS / "reference" / "chat-completions.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \| `(\w+)` \| (?:`(\w+)`|none)", text, flags=re.MULTILINE)
    assert len(rows) == 11
    for kind, statuses, told, code in rows:
        for status in statuses.split(", "):
            expected = {"error": {"message": "m", "type": told, "param": None, "code": code or None}}
            assert error_body(int(status), kind, "m") == error_body(int(status), "", "m") == expected
