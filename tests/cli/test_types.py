"""`tierwise types`: a type of one's own from a file of examples, beside whatever else the configuration says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, Tierwise

TOML = '# ours\nproject = "x"  # kept\n\n[overrides.types]\n# mine\ncode_review = "opus"\n'
EXAMPLES = """\
Which ledger account does this line belong to: "20x toner cartridges, Canon"?
Assign an account to: Taxi to the airport, 34.50
Book this invoice line: AWS hosting March
Account for "Team lunch at Da Mario"? Chart of accounts attached.
Code this invoice line: Rent warehouse Q2, 4,500 EUR
Kontierung bitte: Büromaterial Papier A4
To which ledger account goes a repair of the coffee machine?
Invoice line "Adobe licences 12 seats" -> account number please
GL account for: shipping insurance
Please put the right account on these lines: 1) cleaning service 2) window repair
Post "Fuel company car" to the correct expense account.
What account do we use for trade fair booth rental?
Set the ledger account for line item: printer maintenance contract
"""
ADD = ("--family", "extract", "--needs", "processing", "--recoverable", "--description", 'ledger "accounts"')


@pytest.fixture
def project(home: Path) -> Path:
    """A project with a configuration and a file of examples."""
    (home / "tierwise.toml").write_text(TOML)
    (home / "examples.txt").write_text(EXAMPLES, "utf-8")
    return home


def test_a_type_is_taught_used_listed_and_removed(tierwise: Tierwise, project: Path) -> None:
    """From a dozen lines to a decision: declared, recognised, listed with figures, and gone again."""
    added = tierwise("types", "add", "invoice_coding", "--examples", "examples.txt", *ADD, "--json")
    assert added.code == 0, added.err
    assert added.json["declared_in"] == str(project / "tierwise.toml")
    assert (added.json["examples"], added.json["duplicates"]) == (13, 0)
    assert added.json["recognised"] > 0.5
    assert added.json["false_alarms"] < 0.05
    text = (project / "tierwise.toml").read_text()
    assert text.startswith(TOML)
    assert "[task_types.invoice_coding]" in text

    said = tierwise("classify", "Which ledger account for the invoice line: office chairs, 1,200 EUR?", "--json").json
    assert (said["task_type"], said["needs"], said["family"]) == ("invoice_coding", "processing", "extract")
    other = tierwise("classify", "Write a short poem about the sea", "--json").json
    assert other["task_type"] != "invoice_coding"
    routed = tierwise("route", "Which ledger account for the invoice line: a new desk?", "--json").json
    assert routed["task_type"] == "invoice_coding"

    listed = tierwise("types", "list", "--json").json["types"]
    assert [(row["name"], row["examples"]) for row in listed] == [("invoice_coding", 13)]
    assert "invoice_coding" in tierwise("types", "list").out
    assert tierwise("types", "relearn", "--json").json == {"relearned": ["invoice_coding"], "correction_lost": False}

    assert tierwise("types", "remove", "invoice_coding").code == 0
    assert (project / "tierwise.toml").read_text() == TOML
    assert not (project / "tierwise.types" / "invoice_coding.jsonl").exists()
    assert tierwise("types", "list", "--json").json == {"types": []}
    assert tierwise("classify", "Which ledger account for this?", "--json").json["task_type"] != "invoice_coding"


def test_examples_given_again_take_the_place_of_the_old(tierwise: Tierwise, project: Path) -> None:
    """The declaration stays as it was typed, and other options are not taken in silence."""
    assert tierwise("types", "add", "invoice_coding", "--examples", "examples.txt", *ADD).code == 0
    text = (project / "tierwise.toml").read_text()
    again = tierwise(
        "types", "add", "invoice_coding", "--examples", "-", "--json", stdin=EXAMPLES[:500].rpartition("\n")[0]
    )
    assert again.json["examples"] < 10
    assert "are few" in again.json["warnings"][0]
    assert (project / "tierwise.toml").read_text() == text
    changed = tierwise("types", "add", "invoice_coding", "--examples", "examples.txt", "--needs", "critical")
    assert changed.code == 2
    assert "change it there" in changed.err


def test_a_type_like_a_built_in_one_is_warned_of(tierwise: Tierwise, project: Path) -> None:
    """Examples that a built-in type would take: its name is in a warning."""
    texts = [
        f"Translate this into {language}: {text}"
        for language in ("German", "French")
        for text in EXAMPLES.split("\n")[:8]
    ]
    (project / "translate.txt").write_text("\n".join(texts), "utf-8")
    added = tierwise("types", "add", "my_translation", "--examples", "translate.txt", "--json").json
    assert any("translation" in warning for warning in added["warnings"])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("own", b"a\nb\n", "has 2 different examples; a type needs at least 5"),
        ("own", b"", "has 0 different"),
        ("own", bytes(range(256)), "is not UTF-8"),
        ("own", b"x" * 9_000_000, "more than 8 MB"),
        ("Own Type", EXAMPLES.encode(), "is no name for a task type"),
        ("../../etc", EXAMPLES.encode(), "is no name for a task type"),
        ("translation", EXAMPLES.encode(), "is a built-in task type"),
    ],
)
def test_what_cannot_be_learned_changes_nothing(
    tierwise: Tierwise, project: Path, name: str, content: bytes, says: str
) -> None:
    """A bad name or a bad file is an error in words, and neither the configuration nor the folder is touched."""
    (project / "examples.txt").write_bytes(content)
    done = tierwise("types", "add", name, "--examples", "examples.txt")
    assert done.code == 2
    assert says in done.err
    assert (project / "tierwise.toml").read_text() == TOML
    assert not list(project.glob("tierwise.types/*"))


def test_without_a_configuration_it_says_what_to_do(tierwise: Tierwise, home: Path) -> None:
    """There is nowhere to declare a type without a tierwise.toml."""
    (home / "examples.txt").write_text(EXAMPLES, "utf-8")
    done = tierwise("types", "add", "own", "--examples", "examples.txt")
    assert done.code == 2
    assert "`tierwise init`" in done.err
    assert "cannot read" in tierwise("types", "add", "own", "--examples", "nowhere.txt").err


def test_an_unknown_type_cannot_be_removed(tierwise: Tierwise, project: Path) -> None:
    """The own types that there are are named."""
    done = tierwise("types", "remove", "translation")
    assert done.code == 2
    assert "is no task type of your own; these are: none" in done.err


def test_what_is_damaged_or_old_is_told_by_every_verb_and_learned_anew(tierwise: Tierwise, project: Path) -> None:
    """A damaged folder, or one of another classifier, is an error with the way out, which works."""
    assert tierwise("types", "add", "invoice_coding", "--examples", "examples.txt", *ADD).code == 0
    manifest = project / "tierwise.types" / "manifest.json"
    good = json.loads(manifest.read_text())
    for spoiled in ("{", json.dumps({**good, "encoder": "0" * 64})):
        manifest.write_text(spoiled)
        for verb in (("classify", "Hello"), ("route", "Hello")):
            done = tierwise(*verb)
            assert done.code == 2
            assert "`tierwise types relearn`" in done.err
        checks = {check["area"]: check for check in tierwise("doctor", "--json").json["checks"]}
        assert checks["classifier"]["status"] == "broken"
        assert tierwise("types", "relearn").code == 0
        assert tierwise("classify", "Hello").code == 0


def test_two_at_once_lose_nothing(project: Path) -> None:
    """Two processes that add a type at the same time: both are declared, and both are learned."""
    runs = [
        subprocess.Popen(
            [PROGRAM if Path(PROGRAM).exists() else sys.executable, "types", "add", name, "--examples", "examples.txt"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("first_type", "second_type")
    ]
    for run in runs:
        out, _ = run.communicate(timeout=300)
        assert run.returncode == 0, out
    text = (project / "tierwise.toml").read_text()
    assert text.startswith(TOML)
    assert "[task_types.first_type]" in text
    assert "[task_types.second_type]" in text
    manifest = json.loads((project / "tierwise.types" / "manifest.json").read_text())
    assert {row["name"] for row in manifest["types"]} == {"first_type", "second_type"}
    assert len(list((project / "tierwise.types").glob("learned-*.npz"))) == 1
