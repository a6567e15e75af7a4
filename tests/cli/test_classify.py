"""`tierwise classify`: one text, or JSON Lines in and out, line for line."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, Tierwise
from tierwise.cli import lines

KEYS = ["task_type", "family", "confidence", "needs", "abstained", "tier", "alternatives"]


def _lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def test_text_argument_gives_one_json_line_in_a_pipe(tierwise: Tierwise) -> None:
    """A text gives the promised keys, exactly."""
    (line,) = tierwise("classify", "Summarise this ticket").lines
    assert list(line) == KEYS
    assert (line["task_type"], line["tier"]) == ("summarization", "local")


def test_alternatives_have_type_and_confidence(tierwise: Tierwise) -> None:
    """An alternative is a task type and how likely it is."""
    (line,) = tierwise("classify", "Review this diff for security holes").lines
    assert line["alternatives"]
    assert all(set(other) == {"task_type", "confidence"} for other in line["alternatives"])


def test_lines_come_back_in_order_with_their_ids(tierwise: Tierwise) -> None:
    """As many lines out as in, in order, each with the id it came with."""
    texts = ["Summarise this", "Translate to French", "Write unit tests for this function"]
    done = tierwise("classify", stdin=_lines(*({"id": i, "text": t} for i, t in enumerate(texts * 500))))
    assert done.code == 0
    assert [line["id"] for line in done.lines] == list(range(1500))
    assert [line["task_type"] for line in done.lines[:3]] == ["summarization", "translation", "test_generation"]
    assert list(done.lines[0]) == ["id", *KEYS]


def test_file_and_stdin_give_the_same(tierwise: Tierwise, home: Path) -> None:
    """--file FILE, --file -, `-` and a bare pipe are the same stream."""
    text = _lines({"text": "Summarise this"}, {"text": "Fix this bug"})
    (home / "in.jsonl").write_text(text)
    outputs = {
        tierwise("classify", "--file", "in.jsonl").out,
        tierwise("classify", "--file", "-", stdin=text).out,
        tierwise("classify", "-", stdin=text).out,
        tierwise("classify", "--json", stdin=text).out,
    }
    assert len(outputs) == 1
    assert outputs.pop().count("\n") == 2


def test_bad_lines_keep_their_place(tierwise: Tierwise) -> None:
    """Each line that cannot be used gives an error with its number; the others are answered; the code is 2."""
    bad = [b"", b"nope", b"[1]", b'{"txt": 1}', b'{"text": 3}', b'{"text": ""}', b'{"text": null}', b'{"id": NaN}']
    good = b'{"text": "Summarise this"}'
    done = tierwise("classify", stdin=b"\n".join([good, *bad, good]))
    assert done.code == 2
    assert len(done.lines) == len(bad) + 2
    assert done.lines[0]["task_type"] == done.lines[-1]["task_type"] == "summarization"
    for number, line in enumerate(done.lines[1:-1], start=2):
        assert line["line"] == number
        assert line["error"].startswith(f"line {number}: ")
    assert f"{len(bad)} lines could not be used" in done.err


def test_id_of_a_bad_line_comes_back(tierwise: Tierwise) -> None:
    """Where an unusable line has an id, its error carries it."""
    (line,) = tierwise("classify", stdin=_lines({"id": "a", "text": 1})).lines
    assert line == {"id": "a", "error": "line 1: text is a number, not a string", "line": 1}


@pytest.mark.parametrize(
    "more",
    [
        {"tool_name": 1},
        {"json_schema": []},
        {"labels": "a"},
        {"labels": [1]},
        {"has_tools": "yes"},
    ],
)
def test_optional_fields_of_the_wrong_kind_are_told_of(tierwise: Tierwise, more: dict[str, object]) -> None:
    """A field that is not what it should be is an error of that line, with its name."""
    (line,) = tierwise("classify", stdin=_lines({"text": "x", **more})).lines
    assert next(iter(more)) in line["error"]


def test_optional_fields_reach_the_classifier(tierwise: Tierwise) -> None:
    """Labels and a tool's name say what a bare text does not."""
    plain, labelled, tool = tierwise(
        "classify",
        stdin=_lines(
            {"text": "The parcel arrived broken."},
            {"text": "The parcel arrived broken.", "labels": ["angry", "neutral", "happy"]},
            {"text": "Tool call: translate_text", "tool_name": "translate_text", "tool_input": {"to": "fr"}},
        ),
    ).lines
    assert plain["family"] != "classify"
    assert labelled["family"] == "classify"
    assert tool["task_type"] == "translation"


def test_odd_encodings_are_read(tierwise: Tierwise) -> None:
    """A byte order mark, CRLF, bytes that are no UTF-8 and lone surrogates do not lose a line."""
    data = b'\xef\xbb\xbf{"text": "Summarise this"}\r\n{"text": "Summarise \xff this"}\n{"text": "Summarise \\ud800"}'
    done = tierwise("classify", stdin=data)
    assert done.code == 0
    assert [line["family"] for line in done.lines] == ["transform"] * 3


def test_nothing_in_gives_nothing_out(tierwise: Tierwise) -> None:
    """An empty stream is no mistake."""
    done = tierwise("classify", stdin="")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_text_too_long_for_every_model_has_no_tier(tierwise: Tierwise) -> None:
    """What no model takes is still classified, with a null tier."""
    (line,) = tierwise("classify", stdin=_lines({"text": "Summarise this. " + "word " * 2_000_000})).lines
    assert (line["task_type"], line["tier"]) == ("summarization", None)


def test_line_that_never_ends_is_refused_and_the_next_one_read(
    tierwise: Tierwise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line over the limit is not kept in memory: it gives an error, and the line after it is answered."""
    monkeypatch.setattr(lines, "MAX_TASK_BYTES", 1 << 17)
    done = tierwise("classify", stdin=b'{"text": "' + b"x" * (1 << 19) + b'"}\n{"text": "Summarise this"}\n')
    first, second = done.lines
    assert "line 1: longer than" in first["error"]
    assert second["task_type"] == "summarization"


def test_lines_split_at_every_byte_are_the_same_lines() -> None:
    """However the stream is cut into pieces, the same lines come out with the same numbers."""
    data = b"one\n\ntwo\r\nthree"
    expected = [(1, b"one"), (2, b""), (3, b"two\r"), (4, b"three")]
    for cut in range(len(data) + 1):
        pieces = iter([piece for piece in (data[:cut], data[cut:]) if piece])
        assert [(line.number, line.data) for batch in lines.batches(pieces) for line in batch] == expected
    single = iter([data[i : i + 1] for i in range(len(data))])
    assert [(line.number, line.data) for batch in lines.batches(single) for line in batch] == expected


def test_tier_is_that_of_the_shipped_policy(tierwise: Tierwise, home: Path) -> None:
    """Overrides, tiers and limits of this machine do not move the tier; types of one's own are known."""
    before = tierwise("classify", "Summarise this").out
    (home / "tierwise.toml").write_text(
        '[overrides]\nmin_tier = "opus"\n[tiers.local]\nenabled = false\n[task_types.my_type]\n'
        'family = "mine"\nneeds = "processing"\nrecoverable = true\n'
    )
    assert tierwise("classify", "Summarise this").out == before


def test_unreadable_file_is_told_of(tierwise: Tierwise) -> None:
    """A file that is not there, or is a directory, ends with code 2."""
    for name in ("nothing.jsonl", "."):
        done = tierwise("classify", "--file", name)
        assert done.code == 2
        assert "cannot read" in done.err


def test_text_and_file_exclude_each_other(tierwise: Tierwise) -> None:
    """Both at once is a usage error."""
    assert tierwise("classify", "x", "--file", "y").code == 2


def test_answer_comes_before_the_next_question(home: Path) -> None:
    """A program that writes one line and waits gets its answer: nothing is held back."""
    with subprocess.Popen(
        [PROGRAM, "classify"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}, text=True
    ) as talk:
        assert talk.stdin is not None
        assert talk.stdout is not None
        for text, expected in (("Summarise this", "summarization"), ("Translate to French", "translation")):
            talk.stdin.write(_lines({"text": text}))
            talk.stdin.flush()
            assert json.loads(talk.stdout.readline())["task_type"] == expected
        talk.stdin.close()
        assert talk.wait(60) == 0


def test_person_at_a_terminal_gets_a_table(home: Path) -> None:
    """On a terminal a text gives a table; --json still gives JSON."""
    pty = pytest.importorskip("pty")
    outputs = []
    for args in (["Summarise this"], ["Summarise this", "--json"]):
        ours, theirs = pty.openpty()
        with subprocess.Popen([PROGRAM, "classify", *args], stdin=theirs, stdout=theirs, stderr=theirs) as running:
            os.close(theirs)
            read = b""
            while True:
                try:
                    piece = os.read(ours, 4096)
                except OSError:  # Linux: the other end is closed
                    break
                if not piece:
                    break
                read += piece
            running.wait(60)
        os.close(ours)
        outputs.append(read.decode())
    assert "task type" in outputs[0]
    assert "\x1b[" in outputs[0]
    assert json.loads(outputs[1])["task_type"] == "summarization"


def test_count_is_shown_after_a_second_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, with answers going elsewhere, a count appears once it has taken a second; else never."""

    class Stream(io.StringIO):
        def __init__(self, *, terminal: bool) -> None:
            super().__init__()
            self.terminal = terminal

        def isatty(self) -> bool:
            return self.terminal

    for terminal, expected in ((True, ["1,000 lines"]), (False, [])):
        now = [100.0]
        err = Stream(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(sys, "stdout", Stream(terminal=False))
        monkeypatch.setattr(lines.time, "monotonic", lambda now=now: now[0])
        progress = lines.Progress(beside_answers=True)
        progress.show(10)
        now[0] += 1.5
        progress.show(1000)
        progress.end()
        assert re.findall(r"[\d,]+ lines", err.getvalue()) == expected
