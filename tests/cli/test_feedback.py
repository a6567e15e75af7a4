"""`tierwise feedback` and `tierwise train`: from what people say of calls to a classifier that heeds it, or not."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Tierwise
from tests.ledger.records import attempt, call
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream

# One house's own words, which only its people know: "drawer" asks for a tag.
NOTES = [
    "the delivery van never came",
    "my invoice shows the wrong address",
    "I want to change the card on file",
    "the app crashes on login",
    "where is the refund of last week",
    "can you pause my subscription",
    "the parcel was open when it came",
    "two charges for one order",
    "password mail does not arrive",
    "the colour is not the one I ordered",
    "cancel the second seat please",
    "my discount code is refused",
    "the manual is in the wrong language",
    "I was promised a call back",
    "the lamp hums at night",
    "one chair is missing from the set",
]


def note(k: int) -> str:
    return f"Desk note {k}: the customer says {NOTES[k % len(NOTES)]}. Which drawer?"


@pytest.fixture
def calls(home: Path, ledger_path: Path) -> list[str]:
    """Calls whose texts were kept, and a configuration."""
    (home / "tierwise.toml").write_text('project = "x"\n')
    with Ledger(ledger_path) as ledger:
        for k in range(len(NOTES)):
            ledger.record(replace(call(f"c{k}"), captured_text=note(k)), [attempt(f"c{k}", 1)])
    return [f"c{k}" for k in range(len(NOTES))]


def test_feedback_is_noted_replaced_shown_and_exported(tierwise: Tierwise, calls: list[str]) -> None:
    """The last word counts, and report and export tell of it."""
    assert tierwise("feedback", "c1", "--good").code == 0
    assert tierwise("feedback", "c1", "--bad", "--type", "tagging", "--json").json == {
        "call_id": "c1",
        "verdict": "bad",
        "task_type": "tagging",
        "text_kept": False,
        "forgotten": False,
    }
    assert tierwise("feedback", "c2", "--good").code == 0
    assert "feedback: 1 good, 1 bad; 1 with the right task type" in tierwise("report").out
    assert tierwise("report", "--json").json["feedback"] == {"good": 1, "bad": 1, "typed": 1}
    rows = {
        row["call_id"]: row
        for row in csv.DictReader(io.StringIO(tierwise("export", "--what", "calls", "--format", "csv").out))
    }
    assert (rows["c1"]["feedback"], rows["c1"]["feedback_type"], rows["c3"]["feedback"]) == ("bad", "tagging", "")
    assert tierwise("feedback", "c1", "--forget").code == 0
    assert tierwise("report", "--json").json["feedback"] == {"good": 1, "bad": 0, "typed": 0}


def test_a_report_without_feedback_is_as_it_was(tierwise: Tierwise, calls: list[str]) -> None:
    """Where nobody said anything, no line says so."""
    assert "feedback" not in tierwise("report").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope", "--good"), "has no call 'nope'"),
        (("nope", "--forget"), "has no call 'nope'"),
        (("c1", "--type", "taging"), "did you mean tagging"),
        (("c1",), "say something of the call"),
        (("c1", "--forget", "--good"), "--forget stands alone"),
        (("c1", "--good", "--text-from", "nowhere.txt"), "cannot read nowhere.txt"),
    ],
)
def test_mistakes_are_told(tierwise: Tierwise, calls: list[str], arguments: tuple[str, ...], says: str) -> None:
    """An unknown call or type, and options that say nothing, are errors with code 2, and nothing is noted."""
    done = tierwise("feedback", *arguments)
    assert done.code == 2
    assert says in done.err
    assert tierwise("report", "--json").json["feedback"] == {"good": 0, "bad": 0, "typed": 0}


def test_without_a_ledger_there_is_no_call(tierwise: Tierwise, home: Path, ledger_path: Path) -> None:
    """Feedback makes no ledger."""
    assert tierwise("feedback", "c1", "--good").code == 2
    assert not ledger_path.exists()


def test_texts_are_kept_only_by_choice(
    tierwise: Tierwise, upstream: StandInUpstream, home: Path, ledger_path: Path
) -> None:
    """By default no text is anywhere in the ledger; a found file cannot change that, one's own file can."""
    upstream.reply("a", times=None)
    assert tierwise("run", "Summarise Popocatepetl", "--type", "ranking").code == 0
    assert b"Popocatepetl" not in b"".join(path.read_bytes() for path in ledger_path.parent.iterdir())
    config = home / "tierwise.toml"
    config.write_text(config.read_text().replace("[ledger]", "[ledger]\ncapture_text = true"))
    refused = tierwise("run", "Summarise Popocatepetl", "--type", "ranking")
    assert refused.code == 2
    assert "ledger.capture_text keeps parts of your prompts" in refused.err
    assert tierwise("--config", str(config), "run", f"{'x ' * 5000}Popocatepetl", "--type", "ranking").code == 0
    with Ledger(ledger_path) as ledger:
        (call_id,) = [s.call.call_id for s in ledger.calls() if s.call.task_type == "ranking"][1:]
    assert tierwise("--config", str(config), "feedback", call_id, "--type", "tagging").code == 0
    with Ledger(ledger_path) as ledger:
        ((text, _),) = ledger.typed_texts()
    assert text.endswith("Popocatepetl")
    assert len(text) < 1_300


def test_too_little_to_learn_from_is_said(tierwise: Tierwise, calls: list[str]) -> None:
    """With less than ten texts nothing is trained, and it is said what to do."""
    tierwise("feedback", "c1", "--type", "tagging")
    done = tierwise("train")
    assert done.code == 2
    assert "1 texts, and at least 10 are needed" in done.err
    assert "capture_text" in done.err


def test_feedback_changes_texts_like_it_until_it_is_forgotten(tierwise: Tierwise, home: Path, calls: list[str]) -> None:
    """What a house means by its own words is learned from its feedback, kept beside its file, and taken back."""
    for call_id in calls:
        assert tierwise("feedback", call_id, "--type", "tagging").code == 0
    new = "Desk note 99: the customer says the second lamp came without a cable. Which drawer?"
    before = tierwise("classify", new, "--json").json["task_type"]
    dry = tierwise("train", "--dry-run", "--json")
    assert dry.code == 0, dry.out
    assert not dry.json["written"]
    assert not (home / "tierwise.types" / "manifest.json").exists()
    assert dry.json["feedback"]["after"]["right"] > dry.json["feedback"]["before"]["right"]
    assert dry.json["trained_on"] == 11

    done = tierwise("train")
    assert done.code == 0, done.err
    assert "learned from 11 texts" in done.out
    assert tierwise("classify", new, "--json").json["task_type"] == "tagging"
    assert tierwise("classify", "Write a poem about the sea", "--json").json["task_type"] == "creative_writing"
    assert tierwise("train", "--forget", "--json").json["forgotten"]
    assert tierwise("classify", new, "--json").json["task_type"] == before
    assert not tierwise("train", "--forget", "--json").json["forgotten"]


def test_feedback_that_does_not_help_is_not_used(tierwise: Tierwise, home: Path, calls: list[str]) -> None:
    """Labels at random teach nothing: it is refused with figures and code 1, and nothing is written."""
    for k, call_id in enumerate(calls):
        name = ("planning", "sql_generation", "proofreading", "code_translation")[k % 4]
        tierwise("feedback", call_id, "--type", name)
    done = tierwise("train", "--json")
    assert done.code == 1
    assert done.json["refused_because"]
    assert not done.json["written"]
    assert not (home / "tierwise.types" / "manifest.json").exists()
