"""Reading many transcripts: only what is new, in several processes, whatever the files are like."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.importers.transcripts import (
    OTHER,
    SESSION,
    Row,
    at,
    calls,
    cost_state,
    human,
    line,
    reply,
    sessions,
    tool_result,
    total,
    usage,
    write,
)
from tierwise.core.calls import ImportedCall, ImportedSession
from tierwise.core.tasks import Classification, Needs, TaskType
from tierwise.importers.base import ImportRun, Progress, Skipped
from tierwise.importers.claude_code import ClaudeCode
from tierwise.importers.scanning import scan
from tierwise.ledger.readings import Readings

TASK = TaskType("summarization", "writing", Needs.PROCESSING, recoverable=True)
CANARY = "zz-canary-7731"
READER = "7:"  # format and classifier


class Watched:
    """A classifier that keeps what it was asked."""

    def __init__(self) -> None:
        self.asks: list[str] = []

    def __call__(self, asked: Sequence[ImportedCall]) -> Sequence[Classification | None]:
        self.asks += [call.ask for call in asked]
        return [Classification(TASK, 0.5) for _ in asked]


def milliseconds(text: str) -> int:
    """A row's time as calls have it."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def read(root: Path, readings: Readings, **run: Any) -> tuple[list[ImportedSession], ImportRun, Progress]:
    """A run over a root with a cache: sessions, the run, and the first word of progress, which tells what is to do."""
    told: list[Progress] = []
    made = ImportRun(readings=readings, task_types={TASK.name: TASK}, progress=told.append, **run)
    return sessions(root, made), made, told[0]


@pytest.fixture
def readings(tmp_path: Path) -> Readings:
    """A cache."""
    return Readings(tmp_path / "cache" / "readings.db")


# ------------------------------------------------------------------ only what is new


def test_what_has_not_changed_is_not_read(tmp_path: Path, readings: Readings) -> None:
    """The second time nothing is read or classified, and the same is said, what was skipped included."""
    root = tmp_path / "projects"
    rows = [human("Fix it"), reply(1, 1), b"{broken\n", {"type": "hologram"}, cost_state(0.5)]
    write(root / f"{SESSION}.jsonl", rows)
    first, run, todo = read(root, readings, classify=Watched())
    assert todo.bytes > 0
    watched = Watched()
    again, second, todo = read(root, readings, classify=watched)
    assert (again, todo.bytes, watched.asks) == (first, 0, [])
    assert first[0].calls[0].classification == Classification(TASK, 0.5)
    assert second.skipped == run.skipped
    assert (second.skipped.line_count, second.skipped.unknown_kinds["hologram"]) == (1, 1)


def test_a_file_that_grew_goes_on(tmp_path: Path, readings: Readings) -> None:
    """Only the new part is read; the ask of before is not classified again, and calls go on where they were."""
    path = write(tmp_path / "projects" / f"{SESSION}.jsonl", [human("Fix it"), reply(1, 1, usage(1)), tool_result()])
    read(path.parent, readings, classify=Watched())
    with path.open("ab") as file:
        file.write(line(reply(1, 2, usage(30))) + line(reply(2, 3)) + line(human("Now that", 4)) + line(reply(3, 5)))
    watched = Watched()
    (session,), _, _ = read(path.parent, readings, classify=watched)
    assert watched.asks == ["Now that"]
    assert [call.usage.output_tokens for call in session.calls] == [30, 20, 20]
    assert [call.in_tool_loop for call in session.calls] == [False, True, False]
    assert all(call.classification is not None for call in session.calls)


def test_an_ask_at_the_end_is_known_later(tmp_path: Path, readings: Readings) -> None:
    """An ask whose call is not there yet is classified when it is read: later its text is not."""
    path = write(tmp_path / "projects" / f"{SESSION}.jsonl", [human("Fix it")])
    watched = Watched()
    assert read(path.parent, readings, classify=watched)[0] == []
    assert watched.asks == ["Fix it"]
    with path.open("ab") as file:
        file.write(line(reply(1, 1)))
    watched = Watched()
    (session,), _, _ = read(path.parent, readings, classify=watched)
    assert (watched.asks, session.calls[0].classification) == ([], Classification(TASK, 0.5))


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_growing_row_by_row_is_as_reading_at_once(tmp_path: Path, readings: Readings, cut: int) -> None:
    """Whatever the pieces in which a file is read, the same comes out."""
    boundary = {"type": "system", "subtype": "compact_boundary", "sessionId": SESSION}
    rows: list[Row | bytes] = [
        human("Fix it"),
        reply(1, 1, usage(1), message={"content": [{"type": "thinking"}]}),
        reply(1, 2, usage(9)),
        tool_result(),
        b"not a row\n",
        reply(2, 3, message={"stop_reason": None}),
        human("[Request interrupted by user]", 4),
        cost_state(0.2),
        boundary,
        human("<command-message>review</command-message>", 5),
        human("Review it", 6, isMeta=True),
        reply(3, 7),
        {"type": "hologram"},
        cost_state(0.3),
    ]
    path = tmp_path / "projects" / f"{SESSION}.jsonl"
    for end in range(1, len(rows) + 1, cut):
        write(path, rows[:end])
        read(path.parent, readings)
    write(path, rows)
    pieces, run, _ = read(path.parent, readings)
    whole = ImportRun()
    assert pieces == sessions(path.parent, whole)
    assert run.skipped == whole.skipped


def test_a_last_line_that_is_still_written(tmp_path: Path, readings: Readings) -> None:
    """A line that is not finished is told of, does not count, and counts once it is finished."""
    path = write(tmp_path / "projects" / f"{SESSION}.jsonl", [reply(1, 1), line(reply(2, 2))[:-40]])
    (session,), run, _ = read(path.parent, readings)
    assert (len(session.calls), [(skipped.line, "finished" in skipped.why) for skipped in run.skipped.lines]) == (
        1,
        [(2, True)],
    )
    with path.open("ab") as file:
        file.write(line(reply(2, 2))[-40:])
    (session,), run, _ = read(path.parent, readings)
    assert (len(session.calls), run.skipped.line_count) == (2, 0)


def test_a_last_line_without_an_end(tmp_path: Path, readings: Readings) -> None:
    """A whole row counts, though no line ends after it; when more comes it is not counted again."""
    path = write(tmp_path / "projects" / f"{SESSION}.jsonl", [line(reply(1, 1))[:-1]])
    (session,), run, _ = read(path.parent, readings)
    assert (len(session.calls), run.skipped.line_count) == (1, 0)
    with path.open("ab") as file:
        file.write(b"\n" + line(reply(2, 2)))
    (session,), run, _ = read(path.parent, readings)
    assert (len(session.calls), run.skipped.line_count) == (2, 0)


@pytest.mark.parametrize("how", ["shorter", "other head", "other tail"])
def test_a_file_that_was_rewritten_starts_over(tmp_path: Path, readings: Readings, how: str) -> None:
    """Nothing of before is left where a file is not what it was."""
    path = write(tmp_path / "projects" / f"{SESSION}.jsonl", [reply(n, n) for n in range(1, 20)])
    read(path.parent, readings)
    match how:
        case "shorter":
            rows = [reply(40, 1)]
        case "other head":
            rows = [reply(40, 1), *(reply(n, n) for n in range(2, 30))]
        case _:
            rows = [*(reply(n, n) for n in range(1, 19)), reply(40, 19), reply(41, 20)]
    write(path, rows)
    (session,), _, _ = read(path.parent, readings)
    assert session == sessions(path.parent)[0]
    assert "req_0040" in {call.id for call in session.calls}


def test_a_file_that_was_deleted_is_forgotten(tmp_path: Path, readings: Readings) -> None:
    """A deleted transcript counts no more; those outside the roots that are asked for stay remembered."""
    root = tmp_path / "projects"
    gone = write(root / "a" / f"{SESSION}.jsonl", [reply(1, 1)])
    write(root / "b" / f"{OTHER}.jsonl", [reply(2, 2, sessionId=OTHER)])
    assert len(read(root, readings)[0]) == 2
    gone.unlink()
    assert [session.id for session in read(root / "a", readings)[0]] == []
    found, _, todo = read(root, readings)
    assert ([session.id for session in found], todo.bytes) == ([OTHER], 0)


def test_another_classifier_reads_again(tmp_path: Path, readings: Readings) -> None:
    """What one classifier said is not taken for what another one says."""
    root = write(tmp_path / "projects" / f"{SESSION}.jsonl", [human("Fix it"), reply(1, 1)]).parent
    read(root, readings, classify=Watched(), classifier_id="one")
    watched = Watched()
    read(root, readings, classify=watched, classifier_id="two")
    assert watched.asks == ["Fix it"]


def test_the_digest_tells_whether_a_session_has_changed(tmp_path: Path, readings: Readings) -> None:
    """A session's digest is the same until its calls, or who owns them, change; what was worked out is found by it."""
    root = tmp_path / "projects"
    path = write(root / f"{SESSION}.jsonl", [reply(1, 10)])
    run = ImportRun(readings=readings)

    def digests() -> dict[str, str]:
        return {found.id: found.digest for found in ClaudeCode().sessions([root], run)}

    first = digests()
    readings.put_results([(SESSION, first[SESSION], b"worked out")])
    os.utime(path, ns=(1, 1))
    assert digests() == first
    assert readings.result(SESSION, digests()[SESSION]) == b"worked out"
    # An older session turns up that has made the call: now it is not this one's.
    older = {"type": "queue-operation", "timestamp": at(1), "sessionId": OTHER}
    write(root / f"{OTHER}.jsonl", [older, reply(1, 10, sessionId=OTHER), reply(2, 11, sessionId=OTHER)])
    assert SESSION not in digests()


def test_a_fork_that_goes_on_does_not_change_its_parent(tmp_path: Path, readings: Readings) -> None:
    """What was worked out of a session holds while another one, which has copies of its calls, grows."""
    root = tmp_path / "projects"
    write(root / f"{SESSION}.jsonl", [reply(1, 1)])
    copied = reply(1, 1, sessionId=OTHER, requestSessionId=SESSION)
    run = ImportRun(readings=readings)
    digests = []
    for more in (2, 3):
        write(root / f"{OTHER}.jsonl", [copied, *(reply(n, n, sessionId=OTHER) for n in range(2, more + 1))])
        digests.append({found.id: found.digest for found in ClaudeCode().sessions([root], run)})
    assert digests[0][SESSION] == digests[1][SESSION]
    assert digests[0][OTHER] != digests[1][OTHER]


def test_no_text_is_kept(tmp_path: Path, readings: Readings) -> None:
    """Neither cache nor calls hold text of asks, replies, tools' arguments and results, or broken lines."""
    root = tmp_path / "projects"
    block = {"type": "tool_use", "name": "Bash", "input": {"command": CANARY}}
    rows = [
        human(f"Fix {CANARY}"),
        reply(1, 1, message={"content": [{"type": "text", "text": CANARY}, block]}),
        tool_result(CANARY),
        f'{{"broken": "{CANARY}\n'.encode(),
        reply(2, 2, message={"content": [{"type": "thinking", "thinking": CANARY}]}),
        human(f"And {CANARY}", 3),
    ]
    write(root / f"{SESSION}.jsonl", rows)
    found, run, _ = read(root, readings, classify=Watched())
    readings.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    assert CANARY.encode() not in kept
    assert CANARY not in repr((found, run.skipped))
    with Readings(tmp_path / "cache" / "readings.db") as again:
        for file in again.files("claude_code", READER):
            whole = again.file("claude_code", READER, file.path)
            assert whole is not None
            assert CANARY.encode() not in whole.summary + (whole.state or b"")


# ------------------------------------------------------------------ once is counted, and only once

_numbers = st.integers(1, 6)
_rows = st.lists(st.tuples(_numbers, st.integers(1, 50), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows, files=st.integers(1, 4), repeats=st.integers(0, 10), seed=st.integers(0, 2**32))
def test_order_repetition_and_files_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, bool]], files: int, repeats: int, seed: int
) -> None:
    """Rows shuffled, repeated and spread over files, of forks too, sum to what each call used in the end."""
    dice = random.Random(seed)
    root = tmp_path_factory.mktemp("projects")
    greatest: dict[int, int] = {}
    for number, output, _ in rows:
        greatest[number] = max(output, greatest.get(number, 0))
    spread: list[list[Row]] = [[] for _ in range(files)]
    for number, output, forked in [*rows, *dice.choices(rows, k=repeats)]:
        row = reply(number, number, usage(output))
        if forked:
            row |= {"sessionId": OTHER, "requestSessionId": SESSION}
        dice.choice(spread).append(row)
    for position, some in enumerate(spread):
        dice.shuffle(some)
        write(root / f"dir{position}" / f"{SESSION}.jsonl", some)
    found = calls(root)
    assert sorted(call.usage.output_tokens for call in found) == sorted(greatest.values())
    assert total(found).input_tokens == 100 * len(greatest)


# ------------------------------------------------------------------ hostile input


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{\n", "not JSON"),
        (b"\0\0\0\0\n", "not JSON"),
        (b'{"type":"assistant","message":{"usage":\n', "not JSON"),
        (b"[1, 2]\n", "not an object"),
        (b'{"type":"assistant","x":NaN}\n', "not JSON"),
        (b'{"type":"assistant","message":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested too deeply"),
        (b'{"type":"attachment","cut off\n', "not JSON"),
        (line(reply(9, 9, used=usage("many"))), "usage.output_tokens is no count of tokens"),
        (line(reply(9, 9, used=usage(-1))), "usage.output_tokens is no count of tokens"),
        (line(reply(9, 9, used=usage(10**30))), "usage.output_tokens is no count of tokens"),
        (line(reply(9, 9, used=usage(10**9 + 1))), "usage.output_tokens is no count of tokens"),
        (line(reply(9, 9, used=usage(1.5))), "usage.output_tokens is no count of tokens"),
        (line(reply(9, 9, used=usage(True))), "usage.output_tokens is no count of tokens"),
        (line(reply(9, 9, message={"usage": None})), "a reply without usage"),
        (line(reply(9, 9, message={"model": None})), "a reply without a model"),
        (line({**reply(9, 9), "message": "hello"}), "a reply without usage"),
        (line(cost_state(-1)), "totalCostUSD is no amount"),
        (line({**cost_state(1), "totalCostUSD": "lots"}), "totalCostUSD is no amount"),
    ],
)
def test_a_bad_line_is_told_and_skipped(tmp_path: Path, bad: bytes, why: str) -> None:
    """A line that cannot be used is named with its file and number, and the others count."""
    path = write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1), bad, reply(2, 2)])
    run = ImportRun()
    assert len(calls(tmp_path, run)) == 2
    assert [(told.file, told.line, told.why) for told in run.skipped.lines] == [(str(path), 2, why)]


@pytest.mark.parametrize("output", ["20", 20.0, "0020"])
def test_numbers_in_strings(tmp_path: Path, output: str | float) -> None:
    """A count that was written as a text, or with a point, is the same count."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(used=usage(output))])  # type: ignore[arg-type]
    (call,) = calls(tmp_path)
    assert call.usage.output_tokens == 20


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\\ud800", "\u2028".encode()])
def test_broken_text_costs_no_call_its_tokens(tmp_path: Path, text: bytes) -> None:
    """Bytes that are no UTF-8, and halves of pairs, in a text do not hide what the call used."""
    row = line(reply(1, 1, message={"content": [{"type": "text", "text": "HERE"}]})).replace(b"HERE", text)
    ask = line(human("Fix HERE")).replace(b"HERE", text)
    write(tmp_path / f"{SESSION}.jsonl", [ask, row])
    run = ImportRun(classify=Watched())
    assert (len(calls(tmp_path, run)), run.skipped.line_count) == (1, 0)


@pytest.mark.parametrize("row", [None, True, 7, "x", [], {}, [[]], {"type": {}}, {"type": []}])
def test_values_of_any_kind_anywhere(tmp_path: Path, row: Any) -> None:
    """Whatever stands where something else should, nothing raises."""
    base = [reply(1, 1), human("Fix it"), cost_state(1), {"type": "system", "subtype": "compact_boundary"}]
    rows: list[Row | bytes] = []
    for whole in base:
        rows += [{**whole, name: row} for name in whole]
        message = whole.get("message")
        if isinstance(message, dict):
            rows += [{**whole, "message": {**message, name: row}} for name in message]
            rows += [
                {**whole, "message": {**message, "content": [row, {"type": "tool_use", "input": row, "name": row}]}}
            ]
    for name in (*usage(), "cache_creation", "server_tool_use", "output_tokens_details", "iterations", "inference_geo"):
        rows += [
            reply(3, 3, used=usage(**{name: row})),
            reply(4, 4, used=usage(iterations=[{"type": "advisor_message", name: row}])),
        ]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    assert total(calls(tmp_path, ImportRun(classify=Watched()))).input_tokens >= 100


@pytest.mark.parametrize(
    "when", ["1969-01-01T00:00:00Z", "2199-01-01T00:00:00Z", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00"]
)
def test_foreign_clocks(tmp_path: Path, when: str) -> None:
    """A call at a time that cannot be counts at the time of the row before it, and is told of."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 5), reply(2, 6, timestamp=when)])
    run = ImportRun(now_ms=milliseconds(at(5)))
    found = calls(tmp_path, run)
    assert [call.at_ms for call in found] == [milliseconds(at(5))] * 2
    assert [told.line for told in run.skipped.lines] == [2]


@pytest.mark.parametrize("when", [None, "yesterday", 5, "2026-11-02T25:00:00Z", ""])
def test_a_call_without_a_time(tmp_path: Path, when: Any) -> None:
    """It counts at the time of the row before it; where there is none it is skipped. Both are told."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 5, timestamp=when), reply(2, 6), reply(3, 7, timestamp=when)])
    run = ImportRun()
    assert [call.id for call in calls(tmp_path, run)] == ["req_0002", "req_0003"]
    assert [told.line for told in run.skipped.lines] == [1, 3]


def test_a_line_of_any_length(tmp_path: Path) -> None:
    """A line beyond the bound is skipped and told, wherever it ends; it is never held in memory."""
    huge = b'{"type":"user","message":"' + b"x" * 5_000 + b'"}\n'
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1), huge, reply(2, 2), huge[:-1]])
    run = ImportRun()
    found = list(scan("claude_code", [tmp_path], run, longest_line=2_000))
    assert sum(len(session.read().calls) for session in found) == 2
    assert [(told.line, "longer" in told.why) for told in run.skipped.lines] == [(2, True), (4, False)]


def test_symbolic_links(tmp_path: Path) -> None:
    """Links that go round in circles end, and a file with two names is read once."""
    path = write(tmp_path / "projects" / "a" / f"{SESSION}.jsonl", [reply(1, 1)])
    (path.parent / "round").symlink_to(tmp_path / "projects")
    (path.parent / "self.jsonl").symlink_to(path.parent / "self.jsonl")
    (path.parent / f"{OTHER}.jsonl").symlink_to(path)
    run = ImportRun()
    assert len(calls(tmp_path / "projects", run)) == 1
    assert [Path(told.file).name for told in run.skipped.lines] == ["self.jsonl"]


def test_what_is_no_file(tmp_path: Path) -> None:
    """Pipes and directories with a transcript's name, and roots that are not there, are told or passed over."""
    write(tmp_path / "projects" / f"{SESSION}.jsonl", [reply(1, 1)])
    os.mkfifo(tmp_path / "projects" / "pipe.jsonl")
    (tmp_path / "projects" / "dir.jsonl").mkdir()
    run = ImportRun()
    found = list(ClaudeCode().sessions([tmp_path / "projects", tmp_path / "none"], run))
    assert len(found) == 1
    assert sorted(Path(told.file).name for told in run.skipped.lines) == ["none", "pipe.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """It is told of, and the others count."""
    write(tmp_path / f"{SESSION}.jsonl", [reply(1, 1)])
    write(tmp_path / f"{OTHER}.jsonl", [reply(2, 2)]).chmod(0)
    run = ImportRun()
    assert len(calls(tmp_path, run)) == 1
    assert run.skipped.lines[0].why.startswith("cannot be read")


def test_a_file_that_vanishes(tmp_path: Path, readings: Readings) -> None:
    """A file that is deleted between finding and reading is told of."""
    root = tmp_path / "projects"
    write(root / f"{SESSION}.jsonl", [reply(1, 1)])
    gone = write(root / f"{OTHER}.jsonl", [reply(2, 2)])
    run = ImportRun(readings=readings, progress=lambda _: gone.unlink(missing_ok=True))
    assert len(list(ClaudeCode().sessions([root], run))) == 1
    assert [told.line for told in run.skipped.lines] == [0]


def test_a_file_that_is_written_while_it_is_read(tmp_path: Path, readings: Readings) -> None:
    """Rows that come while a file is read count once, this time or next."""
    path = write(tmp_path / "projects" / f"{SESSION}.jsonl", [reply(1, 1)])

    def grow(_: Progress) -> None:
        with path.open("ab") as file:
            file.write(line(reply(2, 2)))

    list(ClaudeCode().sessions([path.parent], ImportRun(readings=readings, progress=grow)))
    assert [call.id for call in calls(path.parent, ImportRun(readings=readings))] == ["req_0001", "req_0002"]


def test_what_is_told_is_bounded() -> None:
    """However much is skipped, little of it is listed, and all of it counted."""
    skipped = Skipped()
    for number in range(1_000):
        skipped.line("a", number, "bad")
        skipped.kind(f"kind {number}" + "x" * 1_000)
        skipped.kind("with\nlines")
    both = Skipped()
    both.add(skipped)
    both.add(skipped)
    assert (len(both.lines), both.line_count) == (100, 2_000)
    assert len(both.unknown_kinds) <= 202
    assert sum(both.unknown_kinds.values()) == 4_000
    assert max(map(len, both.unknown_kinds)) <= 60


def test_a_damaged_cache_is_read_anew(tmp_path: Path, readings: Readings) -> None:
    """What another format wrote under the same name is not understood, and the files are read again."""
    root = write(tmp_path / "projects" / f"{SESSION}.jsonl", [reply(1, 1)]).parent
    read(root, readings)
    (kept,) = [readings.file("claude_code", READER, str(path)) for path in root.iterdir()]
    assert kept is not None
    for spoiled in (
        kept._replace(summary=b"x"),
        kept._replace(calls=b"x" * 40, mark=kept.mark._replace(size=1, offset=0, line=0)),
        kept._replace(state=b"[]", mark=kept.mark._replace(size=1)),
    ):
        readings.put_files("claude_code", READER, [spoiled])
        found, _, _ = read(root, readings)
        assert [len(session.calls) for session in found] == [1]


# ------------------------------------------------------------------ several processes


def many(root: Path, count: int) -> Path:
    """Sessions enough to be read by several processes."""
    filler = {"type": "api-request-blob", "text": "x" * 200_000}
    for number in range(count):
        session = f"{number:08}-0000-4000-8000-000000000000"
        rows = [human(f"Ask {number % 5}", sessionId=session), reply(number, number % 3_000, sessionId=session), filler]
        write(root / "a" / f"{session}.jsonl", rows)
    return root


def test_processes(tmp_path: Path, readings: Readings) -> None:
    """Two processes read what one reads, and progress ends where it should."""
    root = many(tmp_path / "projects", 150)
    told: list[Progress] = []
    two = sessions(root, ImportRun(processes=2, progress=told.append, classify=Watched()))
    assert two == sessions(root, ImportRun(classify=Watched()))
    assert len(two) == 150
    assert (told[-1].files_done, told[-1].bytes_done) == (150, told[0].bytes)


def test_readers_that_are_killed(tmp_path: Path) -> None:
    """Processes that are killed while they read cost nothing but time."""
    root = many(tmp_path / "projects", 150)

    def kill(_: Progress) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    assert sessions(root, ImportRun(processes=2, progress=kill)) == sessions(root)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_in_the_middle(tmp_path: Path, processes: int) -> None:
    """After a kill at any time the cache opens, the next run says what a first one says, and no process is left."""
    root = many(tmp_path / "projects", 150)
    cache = tmp_path / "readings.db"
    program = """
import multiprocessing
import sys
from pathlib import Path
from tierwise.importers.base import ImportRun
from tierwise.importers.claude_code import ClaudeCode
from tierwise.ledger.readings import Readings

def told(progress):
    if progress.files_done:
        print(progress.files_done, *(child.pid for child in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    run = ImportRun(readings=Readings(Path(sys.argv[2])), progress=told, processes=int(sys.argv[3]))
    for session in ClaudeCode().sessions([Path(sys.argv[1])], run):
        pass
"""
    file = tmp_path / "program.py"
    file.write_text(program)
    command = [sys.executable, str(file), str(root), str(cache), str(processes)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert running.stdout is not None
    done, *children = map(int, running.stdout.readline().split())
    assert done < 150
    assert len(children) == (processes if processes > 1 else 0)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=300)  # ends when nobody holds its output any more: the children are gone
    with Readings(cache) as kept:
        found, _, todo = read(root, kept)
        assert found == sessions(root)
        assert 0 < todo.files_done < 150


def test_a_classifier_is_told_how_much_hangs_on_an_ask(tmp_path: Path) -> None:
    """The call that stands for all of an ask has their model, and the sum of what they used."""
    rows = [human("Look into it"), reply(1, 1, usage(20)), tool_result(), reply(2, 2, usage(30))]
    write(tmp_path / f"{SESSION}.jsonl", rows)
    told: list[ImportedCall] = []

    def classify(asked: Sequence[ImportedCall]) -> Sequence[Classification | None]:
        told.extend(asked)
        return [None for _ in asked]

    made = calls(tmp_path, ImportRun(classify=classify))
    assert [(one.model, one.usage) for one in told] == [(made[0].model, total(made))]
    assert told[0].at_ms == made[0].at_ms
