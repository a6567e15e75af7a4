"""A whole analysis over transcripts: figures by hand, what is remembered, other processes, and no text anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.sessions import plan
from tests.importers.transcripts import OPUS, SESSION, calls_tool, cost_state, human, reply, tool_result, usage, write
from tests.ledger.records import attempt as an_attempt
from tests.ledger.records import call as a_call
from tests.replay.sessions import SETTINGS, call, grown, session
from tierwise.analysis.aggregate import Totals
from tierwise.analysis.asks import AskClassifier, classifier_id
from tierwise.analysis.findings import as_json
from tierwise.analysis.gather import Plan, Watch, all_models, analyse, looked_at, ways_of_routing
from tierwise.analysis.html import page
from tierwise.analysis.screen import plain, screen
from tierwise.analysis.session import Scope
from tierwise.analysis.table import csv_lines
from tierwise.classifier import RuleClassifier, load_taxonomy
from tierwise.cli.output import plain as plain_json
from tierwise.core.calls import ImportedSession
from tierwise.core.money import Usage
from tierwise.importers.base import FoundSession, ImportRun, Progress
from tierwise.importers.claude_code import ClaudeCode
from tierwise.importers.ledger_calls import LedgerCalls
from tierwise.ledger import Ledger
from tierwise.ledger.readings import Readings
from tierwise.replay import Routed

CANARY = "zzcanary7731"
TAXONOMY = load_taxonomy()
# Opus 5.5: 4, 20, 0.20 (read), 8 (written for an hour) US$ per million tokens.
USED = usage(100, 1_000, cache_creation={"ephemeral_1h_input_tokens": 10_000, "ephemeral_5m_input_tokens": 0})
SPENT = Decimal("0.086")


def transcripts(root: Path, *, answers: int = 1, told: float | None = 0.086) -> None:
    """A session of some calls at $0.086 each, whose every text is a canary."""
    rows: list[Any] = [human(f"Refactor {CANARY} so that it is fast")]
    for number in range(answers):
        message = {**calls_tool("Bash", command=f"echo {CANARY}"), "model": OPUS, "usage": USED}
        message["content"].append({"type": "text", "text": CANARY})
        rows += [reply(number + 1, number + 1, message=message), tool_result(CANARY)]
    if told is not None:
        rows.append(cost_state(told, {OPUS: told}))
    write(root / "-home-dev-printer" / f"{SESSION}.jsonl", rows)


def run(root: Path, readings: Readings | None = None, watch: Watch | None = None, **changes: Any) -> Totals:
    """An analysis by the rules, which need no model to be loaded."""
    return analyse(
        plan(**changes),
        [(ClaudeCode(), [root])],
        RuleClassifier(TAXONOMY),
        TAXONOMY,
        classifier_id="rules",
        readings=readings,
        watch=watch or Watch(),
    )


@pytest.mark.parametrize("turned", [False, True])
def test_transcripts_beside_the_ledger(tmp_path: Path, *, turned: bool) -> None:
    """A session that both tell of counts once, as the transcript has it; what only the ledger has counts too."""
    transcripts(tmp_path / "projects", told=None)
    with Ledger(tmp_path / "ledger.db") as ledger:
        for number, name in enumerate((SESSION, SESSION, "another", None)):
            stored = a_call(f"c{number}", session=name, model=OPUS, tier="opus", tags=())
            used = an_attempt(f"c{number}", model=OPUS, tier="opus", usage=Usage(1_000), price=None, cost_nanousd=7)
            ledger.record(stored, [used])
    sources = [(ClaudeCode(), [tmp_path / "projects"]), (LedgerCalls(), [tmp_path / "ledger.db"])]
    rules = RuleClassifier(TAXONOMY)
    found = analyse(plan(), sources[::-1] if turned else sources, rules, TAXONOMY, classifier_id="rules").findings
    assert (found.sessions, found.calls) == (3, 3)


def test_figures_of_a_transcript_by_hand(tmp_path: Path) -> None:
    """What was spent, on what, and that Claude Code's own figure says the same."""
    transcripts(tmp_path, answers=2, told=0.172)
    found = run(tmp_path).findings
    assert (found.sessions, found.calls, found.actual_usd) == (1, 2, 2 * SPENT)
    assert [(row.model, row.actual_usd) for row in found.by_model] == [(OPUS, 2 * SPENT)]
    assert [row.project for row in found.by_project] == ["/home/dev/printer"]
    assert [row.task_type for row in found.by_task_type] == ["refactoring"]
    own = found.reconciled
    assert (own.sessions, own.agreeing, own.not_in_transcript_usd) == (1, 1, 0)
    assert [source.importer for source in found.sources] == ["claude_code"]


def test_what_no_transcript_holds_is_shown(tmp_path: Path) -> None:
    """Where Claude Code counted more than its transcript has, the difference is told, and is in no other amount."""
    transcripts(tmp_path, told=0.1)
    found = run(tmp_path).findings
    assert found.actual_usd == SPENT
    assert (found.reconciled.agreeing, found.reconciled.not_in_transcript_usd) == (0, Decimal("0.014"))


def test_no_text_is_in_anything_that_is_written(tmp_path: Path) -> None:
    """Neither prompt nor reply nor a tool's argument or result is in the store, JSON, page, rows or screen."""
    transcripts(tmp_path / "projects")
    store = tmp_path / "store" / "readings.db"
    with Readings(store) as readings:
        totals = run(tmp_path / "projects", readings)
    document = json.dumps(plain_json(as_json(totals.findings)))
    shown = plain(screen(totals.findings, full=True))
    assert CANARY not in document + page(totals) + "".join(csv_lines(totals.cells)) + shown
    kept = [path for path in store.parent.iterdir() if path.is_file()]
    assert store in kept
    assert all(CANARY.encode() not in path.read_bytes() for path in kept)


class Reads(ClaudeCode):
    """Claude Code's importer, and how many sessions were read of it."""

    def __init__(self) -> None:
        self.reads = 0

    def sessions(self, roots: Any, run: Any) -> Any:
        def counted(found: FoundSession) -> FoundSession:
            def read() -> ImportedSession:
                self.reads += 1
                return found.read()

            return replace(found, read=read)

        return map(counted, super().sessions(roots, run))


def test_a_session_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    """The second time its figures come from the store, and are the same; under another policy they are made anew."""
    transcripts(tmp_path / "projects", answers=3)
    importer = Reads()

    def go(used: Plan) -> Totals:
        with Readings(tmp_path / "readings.db") as readings:
            return analyse(
                used,
                [(importer, [tmp_path / "projects"])],
                RuleClassifier(TAXONOMY),
                TAXONOMY,
                classifier_id="rules",
                readings=readings,
            )

    first = go(plan())
    assert importer.reads == 1
    assert go(plan()) == first
    assert importer.reads == 1
    go(plan(with_local=True))
    assert importer.reads == 2
    transcripts(tmp_path / "projects", answers=4)
    assert go(plan()).findings.calls == 4
    assert importer.reads == 3


def test_a_part_of_a_session_is_not_kept_as_the_whole(tmp_path: Path) -> None:
    """After a look at a part, the whole is still the whole."""
    transcripts(tmp_path / "projects", answers=3)
    with Readings(tmp_path / "readings.db") as readings:
        part = run(tmp_path / "projects", readings, scope=Scope(until_ms=1_793_610_002_000))  # 09:00:02
        whole = run(tmp_path / "projects", readings)
        later = run(tmp_path / "projects", readings, scope=Scope(since_ms=1_893_610_002_000))
    assert (part.findings.calls, whole.findings.calls, later.findings.calls) == (1, 3, 0)


def many() -> list[ImportedSession]:
    """Some sessions of some calls."""
    return [
        replace(
            session(*(replace(one, id=f"{number}-{one.id}") for one in grown([(k, 900, 90) for k in range(7)]))),
            id=f"s{number}",
        )
        for number in range(9)
    ]


@pytest.mark.parametrize("here_calls", [0, 20])
def test_other_processes_give_the_same_in_the_same_order(here_calls: int) -> None:
    """Who looked at a session does not show."""
    alone = list(looked_at(map(FoundSession.of, many()), plan()))
    together = list(looked_at(map(FoundSession.of, many()), plan(), None, 2, here_calls=here_calls))
    assert [found.id for found in alone] == [f"s{number}" for number in range(9)]
    assert together == alone


def test_sessions_go_to_other_processes_as_they_lie_in_the_cache(tmp_path: Path) -> None:
    """What is made of a session's packed calls elsewhere is what is made of the session here."""
    for number in range(6):
        rows: list[Any] = [human(f"Say what {CANARY} {number} does")]
        for answer in range(4):
            at = 10 * number + answer
            rows.append({**reply(at, answer, message={**calls_tool("Read"), "model": OPUS, "usage": USED})})
            rows[-1]["requestId"], rows[-1]["sessionId"] = f"req_{at}", f"session-{number}"
        write(tmp_path / "projects" / "-home-dev" / f"session-{number}.jsonl", rows)
    with Readings(None) as readings:
        run = ImportRun(readings=readings, task_types=TAXONOMY, classify=AskClassifier(RuleClassifier(TAXONOMY), free))
        found = list(ClaudeCode().sessions([tmp_path / "projects"], run))
        assert len(found) == 6
        assert all(one.packed is not None for one in found)
        alone = list(looked_at(found, plan()))
        assert list(looked_at(found, plan(), None, 2, here_calls=0)) == alone
    assert sum(one.calls for one in alone) == 24


def free(_: object) -> int:
    """Nothing costs anything, so that no ask is worth more than a glance."""
    return 0


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """However an analysis ends, the processes that replay for it end with it."""
    program = """
import itertools
import multiprocessing
from dataclasses import replace
from tests.analysis.sessions import plan
from tests.replay.sessions import grown, session
from tierwise.analysis.gather import looked_at
from tierwise.importers.base import FoundSession

def without_end():
    calls = grown([(k, 900, 90) for k in range(400)])
    for number in itertools.count():
        yield FoundSession.of(replace(session(*calls), id=f"s{number}"))

if __name__ == "__main__":
    for found in looked_at(without_end(), plan(), None, 2, here_calls=0):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""
    with _started(tmp_path, program) as running:
        assert running.stdout is not None
        children = running.stdout.readline().split()
        assert children
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=300)  # ends when nobody holds its output any more: the children are gone


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="there is no such thing here")
def test_interrupted_while_processes_start(tmp_path: Path) -> None:
    """Ctrl-C goes to all of them; only the one that was started by a person takes it, and the others say nothing."""
    program = """
import itertools
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from tests.analysis.sessions import plan
from tests.replay.sessions import grown, session
from tierwise.analysis.gather import looked_at
from tierwise.importers.base import FoundSession

def interrupt():
    while not multiprocessing.active_children():
        time.sleep(0.001)
    for _ in range(40):  # while they import, and later
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGINT)
        time.sleep(0.025)
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    calls = grown([(k, 900, 90) for k in range(400)])
    sessions = (FoundSession.of(replace(session(*calls), id=f"s{number}")) for number in itertools.count())
    threading.Thread(target=interrupt).start()
    try:
        for found in looked_at(sessions, plan(), None, 2, here_calls=0):
            pass
    except KeyboardInterrupt:
        print("interrupted")
"""
    with _started(tmp_path, program) as running:
        try:
            out, err = running.communicate(timeout=300)
        finally:
            running.kill()
    assert (out, err) == (b"interrupted\n", b"")


def _started(folder: Path, program: str) -> subprocess.Popen[bytes]:
    """A program of its own, which can import these tests."""
    file = folder / "program.py"
    file.write_text(program, encoding="utf-8")
    paths = [path for path in (os.environ.get("PYTHONPATH"), str(Path(__file__).parents[2])) if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(file)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_plan_has_the_same_digest_in_every_process() -> None:
    """What is kept under it is found again; another policy, day or program is another digest."""
    code = (
        "from tests.analysis.sessions import plan; from tests.replay.sessions import SETTINGS;"
        "from tierwise.analysis.asks import classifier_id; print(plan().digest, classifier_id(SETTINGS))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[0]
        for seed in ("1", "2")
    }
    assert told == {plan().digest}
    assert plan(with_local=True).digest != plan().digest
    assert classifier_id(SETTINGS) != classifier_id(replace(SETTINGS, classifier="rules"))


def test_progress_is_told(tmp_path: Path) -> None:
    """Files first, then sessions."""
    transcripts(tmp_path)
    files: list[Progress] = []
    sessions: list[int] = []
    run(tmp_path, watch=Watch(files.append, sessions.append))
    assert files[-1].files_done == files[-1].files == 1
    assert sessions == [1]


def test_what_importers_ask_is_weighed_by_what_it_cost() -> None:
    """The classifier's own prices are those of the plan."""
    asked: Sequence[Any] = [call(1, ask="Summarise this", output_tokens=9, classification=None)]
    (said,) = AskClassifier(RuleClassifier(TAXONOMY), plan().lens.rates.nanousd)(asked)
    assert said is not None


def test_models_that_people_used_are_known_whatever_is_offered_now() -> None:
    """A dear model of last year is in no configuration; what was spent on it could have gone elsewhere all the same."""
    known = {model.id: model.tokenizer_factor for model in all_models(SETTINGS)}
    assert known["claude-opus-4-8"] == Decimal("1.3")
    assert known["claude-opus-4-6"] == 1
    assert known["claude-opus-4"] == 1
    found = {way.name: way for way in ways_of_routing(SETTINGS)}
    dear = found["routed-from-opus"]
    assert isinstance(dear, Routed) and dear.requests_for is not None
    assert {"claude-opus-4-8", "claude-fable-5-1"} <= dear.requests_for
    assert "claude-sonnet-4-6" not in dear.requests_for
