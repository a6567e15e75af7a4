"""`tierwise eval classify`: labelled lines in, figures out."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import LABELLED, Tierwise
from tierwise.classifier import load_taxonomy
from tierwise.cli import lines
from tierwise.config import shipped_settings
from tierwise.core.tasks import Alternative, Classification
from tierwise.policy import level_by_tree

TYPES = load_taxonomy()

RIGHT = {"text": "Summarise this ticket", "type": "summarization", "form": "label", "lang": "en", "hard": False}
WRONG = {"text": "Summarise this ticket", "type": "legal_analysis", "form": "prompt", "lang": "en", "hard": True}
DUAL = {"text": "Summarise this ticket", "accepted": ["legal_analysis", "summarization"]}


def _lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def test_figures_are_those_of_the_lines(tierwise: Tierwise) -> None:
    """One of three texts is wrong, critical and sent too low; of a text with two accepted types either is right."""
    found = tierwise("eval", "classify", "-", "--json", stdin=_lines(RIGHT, WRONG, DUAL)).json
    shares = {name: found[name] for name in ("texts", "top1", "tier_accuracy", "sent_too_low", "sent_too_high")}
    assert shares == {"texts": 3, "top1": 0.6667, "tier_accuracy": 0.6667, "sent_too_low": 0.3333, "sent_too_high": 0}
    assert (found["critical_texts"], found["critical_recall"]) == (1, 0)
    assert (found["not_critical_texts"], found["critical_false_alarms"]) == (1, 0)
    assert [(row["form"], row["texts"], row["top1"]) for row in found["by_form"]] == [
        ("label", 1, 1.0),
        ("prompt", 1, 0.0),
    ]
    assert [(row["hard"], row["texts"]) for row in found["by_hard"]] == [(False, 1), (True, 1)]
    assert found["type_confusion"] == [{"label": "legal_analysis", "predicted": "summarization", "n": 1}]
    assert found["timing"]["texts"] == 3
    assert found["errors"] == []


NOISE = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 4  # base64: unlike anything that it was trained on


def test_abstention_counts_as_where_the_policy_leads_it(tierwise: Tierwise, home: Path) -> None:
    """A text that it cannot tell goes to judgment, as shipped: what is configured here does not count."""
    (home / "tierwise.toml").write_text('[overrides]\nmin_tier = "opus"\n')
    text = _lines(
        {"text": NOISE, "type": "tagging"},
        {"text": NOISE, "type": "advice"},
        RIGHT,
    )
    found = tierwise("eval", "classify", "-", "--errors", "9", "--json", stdin=text).json
    assert [(row["where"], row["abstained"], row["tier"], row["needed_tier"]) for row in found["errors"]] == [
        ("stdin, line 1", True, "sonnet", "local"),
        ("stdin, line 2", True, "sonnet", "sonnet"),
    ]
    assert (found["tier_accuracy"], found["sent_too_low"], found["sent_too_high"]) == (0.6667, 0, 0.3333)


@pytest.mark.parametrize(
    ("classification", "level"),
    [
        (Classification(TYPES["tagging"], 0.9), 0),
        (Classification(TYPES["scoring"], 0.9), 1),
        (Classification(TYPES["tagging"], 0.9, also=(TYPES["advice"],)), 2),
        (Classification(TYPES["tagging"], 0.55, alternatives=(Alternative(TYPES["scoring"], 0.3),)), 1),
        (Classification(TYPES["code_review"], 0.8, alternatives=(Alternative(TYPES["security_review"], 0.18),)), 3),
        (Classification(TYPES["legal_analysis"], 0.2, abstained=True), 3),
    ],
)
def test_tier_is_that_of_the_shipped_tree(classification: Classification, level: int) -> None:
    """Further tasks, plausible alternatives and abstention count as the policy counts them."""
    assert level_by_tree(shipped_settings())(classification) == level


def test_types_of_ones_own_are_labels(tierwise: Tierwise, home: Path) -> None:
    """A type from tierwise.toml may be a label."""
    (home / "tierwise.toml").write_text(
        '[task_types.my_type]\nfamily = "mine"\nneeds = "processing"\nrecoverable = true\ndescription = "ours"\n'
    )
    done = tierwise("eval", "classify", "-", "--json", stdin=_lines({"text": "Summarise this", "type": "my_type"}))
    assert done.code == 0
    assert done.json["type_confusion"] == [{"label": "my_type", "predicted": "summarization", "n": 1}]


def test_files_are_read_one_after_another(tierwise: Tierwise, home: Path) -> None:
    """Several files and stdin are one set of texts; empty lines and a byte order mark do not matter."""
    (home / "a.jsonl").write_text("\ufeff" + _lines(RIGHT) + "\n\n" + _lines(RIGHT).strip(), "utf-8")
    done = tierwise("eval", "classify", "a.jsonl", "-", "a.jsonl", "--json", stdin=_lines(WRONG))
    assert (done.json["texts"], done.json["top1"]) == (5, 0.8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nope", "not JSON"),
        ("[1]", "a list, not an object"),
        ('{"type": "tagging"}', "no text"),
        ('{"text": 3, "type": "tagging"}', "text is a number"),
        ('{"text": "x"}', 'no label; each line needs a "type"'),
        ('{"text": "x", "type": 3}', "the label is no task type"),
        ('{"text": "x", "accepted": []}', "the label is no task type"),
        ('{"text": "x", "accepted": "tagging"}', "the label is no task type"),
        ('{"text": "x", "type": "taging"}', "unknown task type 'taging'; did you mean tagging"),
        ('{"text": "x", "type": "tagging", "form": 1}', "form is a number, not a string"),
        ('{"text": "x", "type": "tagging", "lang": []}', "lang is a list, not a string"),
        ('{"text": "x", "type": "tagging", "hard": "yes"}', "hard is a string, not true or false"),
        ('{"text": " ", "type": "tagging"}', "the task is empty"),
    ],
)
def test_line_that_cannot_be_used_is_named(tierwise: Tierwise, home: Path, line: str, message: str) -> None:
    """A figure over part of a file would mislead: code 2, the file, the line and what is wrong with it."""
    (home / "in.jsonl").write_text(_lines(RIGHT) + "\n" + line + "\n")
    done = tierwise("eval", "classify", "in.jsonl")
    assert (done.code, done.out) == (2, "")
    assert "in.jsonl, line 3: " in done.err
    assert message in done.err


def test_nothing_to_read_is_told_of(tierwise: Tierwise, home: Path) -> None:
    """A file that is not there, a directory, and a file without lines."""
    for name, message in (("gone.jsonl", "cannot read gone.jsonl"), (".", "cannot read .")):
        done = tierwise("eval", "classify", name)
        assert (done.code, message in done.err) == (2, True)
    done = tierwise("eval", "classify", "-", stdin="\n")
    assert (done.code, "no labelled texts" in done.err) == (2, True)
    assert tierwise("eval", "classify").code == 2


def test_table_has_every_measure_and_the_worst_mistakes(tierwise: Tierwise) -> None:
    """The text has the measures, the splits, the types, and with --errors what went wrong and where."""
    done = tierwise("eval", "classify", str(LABELLED), "--errors", "1", "--types")
    assert done.code == 0
    cells = {line.split("  ")[0].strip(): line.split() for line in done.out.splitlines()}
    for measure in ("top-1", "top-3", "family", "tier", "sent too low", "critical recall", "abstained", "ECE", "p99"):
        assert measure in cells
    assert cells["top-1"][1:3] == ["71.4", "%"]
    assert cells["lang de"][2:4] == ["1", "100.0"]
    assert cells["summarization"][1:] == ["2", "66.7", "%", "100.0", "%"]
    assert f"{LABELLED}, line 6" in done.out
    assert f"{LABELLED}, line 7" not in done.out
    assert "too low" in done.out


def test_text_of_a_mistake_is_shown_as_it_is(tierwise: Tierwise) -> None:
    """Brackets are no markup, control characters do not reach the terminal, and a long text is cut."""
    text = "[bold]Summarise[/] \x1b[31m this \ud800 " + "word " * 1000
    done = tierwise("eval", "classify", "-", "--errors", "1", stdin=_lines({"text": text, "type": "legal_analysis"}))
    assert "[bold]Summarise[/]" in done.out
    assert "\x1b" not in done.out
    assert re.search(r"word wo?r?d?…", done.out)
    assert max(len(line) for line in done.out.splitlines()) < 300


def test_progress_is_shown_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table comes at the end, so after a second the count shows even where stdout is a terminal."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    now = [100.0]
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(lines.time, "monotonic", lambda: now[0])
    progress = lines.Progress(beside_answers=False)
    progress.show(10)
    assert err.getvalue() == ""
    now[0] += 1.5
    progress.show(1000)
    assert "1,000 lines" in err.getvalue()
