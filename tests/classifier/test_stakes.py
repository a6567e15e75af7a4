"""What a text says of a mistake's consequences raises its stakes; the same words in a payload do not."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files

import pytest

from tierwise.classifier.stakes import stated_stakes
from tierwise.core.tasks import Stakes

GRAVE = [
    "Delete the old rows. This cannot be undone.",
    "Pick the rows to purge; there is no undo.",
    "The step is irreversible, so think twice: which of these accounts is the right one?",
    "Which value goes into the form? It will be irreversibly stored.",
    "Trag die IBAN ein, das lässt sich nicht mehr rückgängig machen.",
    "Extract the dose; a wrong value would harm the patient.",
    "If you get it wrong people could be hurt: classify this alarm.",
    "Classify the report. Patient safety depends on it.",
    "A mistake here costs us the contract. Which of the two dates is meant?",
    "Sort these, no room for error.",
    "Ein Fehler kostet uns den Auftrag: welche Nummer stimmt?",
    "Format this statement; it goes straight to the court.",
    "Rewrite the banner, it goes straight to production.",
    "Match the payments. Real money is moved by this.",
    "Esto es irreversible: elige el registro correcto.",
    "C'est irréversible : quelle ligne est la bonne ?",
    "Isto é irreversível, escolha a linha certa.",
    "È irreversibile: quale riga è giusta?",
    "Die Löschung ist unwiderruflich. Welche Zeile ist gemeint?",
    "Once sent it is irreversible. Which of the two addresses is right?",
    "Store the value; it will be irreversibly hashed.",
    "Choose one. There's no undo.",
    "Summarise the offer. It is legally binding once you answer, so be careful.",
]
PLAIN = [
    "Summarise this article about production lines",
    "Explain what an irreversible reaction is",
    "Translate: the patient is critical and may die",
    'Proofread this sentence: "The decision cannot be undone and people could be hurt."',
    "Tag this ticket:\nThis cannot be undone, says the dialog.",
    "Summarise the thread.\n\n<thread>A mistake here costs us money.</thread>",
    "```\nraise RuntimeError('this cannot be undone')\n```\nWhat does this code do?",
    "Write a legal disclaimer for a gym",
    "Which git command undoes a commit?",
    "Find the errors in this text about real money",
    "",
]


@pytest.mark.parametrize("text", GRAVE)
def test_stated_stakes_are_heard(text: str) -> None:
    """The ask says that a mistake would be grave."""
    assert stated_stakes(text) is Stakes.HIGH


@pytest.mark.parametrize("text", PLAIN)
def test_subjects_and_payloads_are_no_stakes(text: str) -> None:
    """Words like critical, patient or irreversible are subjects, and payloads are not asks."""
    assert stated_stakes(text) is Stakes.NORMAL


def test_the_ask_at_the_end_is_heard_too() -> None:
    """Behind a long document."""
    document = "The harvest was good this year. " * 80
    assert stated_stakes(f"{document}\n\nSummarise this. It cannot be undone, so be exact.") is Stakes.HIGH
    assert stated_stakes(f"{document}\n\nSummarise this.") is Stakes.NORMAL


def test_every_phrase_says_one_of_the_words() -> None:
    """The words that are looked up first are in every text that a phrase matches: none is missed by the short cut."""
    document = tomllib.loads((files("tierwise") / "data" / "stakes.toml").read_text("utf-8"))
    for phrase in document["phrases"]:
        hits = [text.lower() for text in GRAVE if re.search(phrase, text.lower())]
        assert hits, f"no example for {phrase}"
    for text in GRAVE:
        assert set(document["words"]) & set(re.findall(r"[\w']+", text.lower())), text


@pytest.mark.parametrize(
    "text", ["a" * 10_000_000, "mistake " * 200_000, '"' * 100_000, "\ud800 cannot be undone", "\0"]
)
def test_hostile_texts_do_no_harm(text: str) -> None:
    """Only two windows are looked at."""
    stated_stakes(text)
