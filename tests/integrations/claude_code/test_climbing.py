"""When a subagent gets a model of the next tier up: after one for the same work that came to nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tierwise.config import load_settings
from tierwise.engine.router import AsyncRouter
from tierwise.integrations.claude_code.climbing import Climbing, Ending, Given, ending_of
from tierwise.integrations.claude_code.companion import Companion
from tierwise.integrations.claude_code.subagents import SubagentCall, decide
from tierwise.integrations.claude_code.transcripts import agents_decided

SUMMARY = "Summarise this ticket in one line: the printer burns"
DONE = {"type": "assistant", "message": {"stop_reason": "end_turn", "content": []}}
REFUSED = {"type": "assistant", "isApiErrorMessage": True, "message": {"stop_reason": "refusal"}}
CUT = {"type": "assistant", "isApiErrorMessage": True, "error": "max_output_tokens", "message": {}}
FAILED = {"type": "assistant", "isApiErrorMessage": True, "error": "unknown", "apiErrorStatus": 400, "message": {}}
LIMITED = {"type": "assistant", "isApiErrorMessage": True, "error": "rate_limit", "apiErrorStatus": 429, "message": {}}
AT_TOOLS = {"type": "assistant", "message": {"stop_reason": "tool_use"}}
STOPPED = {"type": "user", "message": {"content": [{"type": "text", "text": "[Request interrupted by user]"}]}}
BESIDE = {"type": "attachment"}


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncRouter]:
    """The shipped configuration."""
    folder = tmp_path_factory.mktemp("nowhere")
    yield AsyncRouter(load_settings(env={"HOME": str(folder)}, cwd=folder), record=False)


def call(folder: Path, name: str, *, session: str = "s", **given: Any) -> SubagentCall:
    """A call of `Agent`."""
    payload = {
        "session_id": session,
        "transcript_path": str(folder / "t.jsonl"),
        "cwd": str(folder),
        "tool_name": "Agent",
        "tool_use_id": name,
        "tool_input": {"description": "Work", "prompt": SUMMARY, "subagent_type": "general-purpose", **given},
    }
    found = SubagentCall.read(payload)
    assert found is not None
    return found


def ends(folder: Path, name: str, *rows: dict[str, Any], finished: bool = True) -> None:
    """The subagent of that call leaves a transcript."""
    subagents = folder / "t" / "subagents"
    subagents.mkdir(parents=True, exist_ok=True)
    (subagents / f"agent-{name}.meta.json").write_text(json.dumps({"toolUseId": name, "finished": finished}))
    (subagents / f"agent-{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


class Parent:
    """Somebody who asks subagents."""

    def __init__(self, folder: Path, router: AsyncRouter) -> None:
        self.folder = folder
        self.router = router
        self.climbing = Climbing()
        self.now = 0.0
        self.why = ""

    def ask(self, name: str, **given: Any) -> str:
        """The alias that the next one is given."""
        asked = call(self.folder, name, **given)
        rungs = decide(asked, self.router, self.folder)
        assert rungs is not None
        found = self.climbing.give(asked, rungs, self.now)
        self.why = found.why
        return found.alias


@pytest.fixture
def parent(tmp_path: Path, router: AsyncRouter) -> Parent:
    return Parent(tmp_path, router)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (REFUSED, "the one before was refused on haiku"),
        (CUT, "the one before was cut off on haiku"),
        (FAILED, "the one before failed on haiku"),
        (DONE, "the same was asked again, after it was done on haiku"),
    ],
)
def test_next_one_for_it_goes_up(parent: Parent, row: dict[str, Any], why: str) -> None:
    """After a run that failed, was refused or was cut off, or when the same is asked again: one tier up, and why."""
    assert parent.ask("1") == "haiku"
    assert parent.why == ""
    ends(parent.folder, "1", row, BESIDE)
    assert parent.ask("2") == "sonnet"
    assert parent.why == why


def test_it_climbs_to_the_top_and_stays(parent: Parent) -> None:
    """Each time again it is one tier more, up to the last, where it stays and says so."""
    given = []
    for number in range(4):
        given.append(parent.ask(str(number)))
        ends(parent.folder, str(number), REFUSED)
    assert given == ["haiku", "sonnet", "opus", "opus"]
    assert parent.why == "the one before was refused on opus, and none is above it"


def test_same_work_by_its_description(parent: Parent) -> None:
    """A prompt in other words is the same work where the description is and the one before went wrong; else not."""
    parent.ask("1")
    ends(parent.folder, "1", FAILED)
    assert parent.ask("2", prompt="Summarise it in a single line: a printer burns") == "sonnet"
    ends(parent.folder, "2", DONE)
    assert parent.ask("3", prompt="Summarise this other ticket in one line") == "haiku"


@pytest.mark.parametrize("given", [{"subagent_type": "Plan"}, {"session": "other"}])
def test_other_work_is_decided_by_itself(parent: Parent, given: dict[str, Any]) -> None:
    """Another kind of agent and another session know nothing of a failure."""
    parent.ask("1")
    ends(parent.folder, "1", FAILED)
    assert parent.ask("2", **given) == "haiku"


def test_different_work_is_decided_by_itself(parent: Parent) -> None:
    """With neither prompt nor description the same, a failure is of something else."""
    parent.ask("1")
    ends(parent.folder, "1", FAILED)
    assert parent.ask("2", prompt="Summarise the other one in one line", description="Other") == "haiku"


def test_same_prompt_to_several_at_once_is_no_complaint(parent: Parent) -> None:
    """While the first still runs, others with its prompt get its model."""
    assert [parent.ask(name) for name in ("1", "2", "3")] == ["haiku"] * 3
    ends(parent.folder, "3", AT_TOOLS, finished=False)
    assert parent.ask("4") == "haiku"


def test_what_the_provider_is_to_blame_for_does_not_climb(parent: Parent) -> None:
    """After a rate limit the same model is asked again."""
    parent.ask("1")
    ends(parent.folder, "1", LIMITED)
    assert parent.ask("2") == "haiku"
    ends(parent.folder, "2", REFUSED)
    assert parent.ask("3") == "sonnet"
    ends(parent.folder, "3", LIMITED)
    assert parent.ask("4") == "sonnet"


def test_old_failures_are_forgotten(parent: Parent) -> None:
    """What was asked more than half an hour ago says nothing of what is asked now."""
    parent.ask("1")
    ends(parent.folder, "1", FAILED)
    parent.now = 1801.0
    assert parent.ask("2") == "haiku"


def test_what_is_remembered_is_bounded(parent: Parent) -> None:
    """However many sessions and calls there are, only the latest are remembered."""
    for number in range(200):
        parent.ask(f"{number}", session=f"session-{number}")
        parent.ask(f"{number}", prompt=f"Summarise ticket {number} in one line")
    sessions = parent.climbing._sessions
    assert len(sessions) == 64
    assert max(map(len, sessions.values())) == 64


@pytest.mark.parametrize(
    ("rows", "finished", "expected"),
    [
        ([DONE], True, Ending.FINISHED),
        ([DONE, BESIDE], True, Ending.FINISHED),
        ([REFUSED, DONE], True, Ending.FINISHED),  # it went on with another model
        ([AT_TOOLS, STOPPED], True, Ending.UNKNOWN),
        ([AT_TOOLS], False, Ending.UNKNOWN),
        ([LIMITED], True, Ending.NOT_ITS_FAULT),
        ([], True, Ending.UNKNOWN),
    ],
)
def test_how_it_ended(tmp_path: Path, rows: list[dict[str, Any]], finished: bool, expected: Ending) -> None:
    """The last thing that its model said tells how a subagent ended."""
    ends(tmp_path, "1", *rows, finished=finished)
    assert ending_of(tmp_path / "t.jsonl", "1") is expected
    assert ending_of(tmp_path / "t.jsonl", "2") is Ending.UNKNOWN
    assert ending_of(tmp_path / "t.jsonl", "") is Ending.UNKNOWN


def test_hostile_files_say_nothing(tmp_path: Path) -> None:
    """Whatever stands in those files, or does not, nothing is known and nothing raised."""
    assert ending_of(tmp_path / "t.jsonl", "1") is Ending.UNKNOWN
    ends(tmp_path, "1", DONE)
    folder = tmp_path / "t" / "subagents"
    (folder / "agent-1.jsonl").write_bytes(b'{"type": "assistant", "mess\n' + b"[" * 100_000 + b"\n\xff\xfe\n[]\n7\n")
    assert ending_of(tmp_path / "t.jsonl", "1") is Ending.UNKNOWN
    (folder / "agent-1.jsonl").unlink()
    assert ending_of(tmp_path / "t.jsonl", "1") is Ending.UNKNOWN
    for text in ("[]", "{", "7", "[" * 50_000):
        (folder / "agent-1.meta.json").write_text(text)
        assert ending_of(tmp_path / "t.jsonl", "1") is Ending.UNKNOWN
        assert agents_decided(tmp_path / "t.jsonl", {"1": Given("haiku")}) == {}


def test_hooks_at_the_same_time(tmp_path: Path) -> None:
    """Many hooks at once each get an answer, and one failure lets each of them climb one tier, not several."""
    companion = Companion({"HOME": str(tmp_path), "TIERWISE_LEDGER": str(tmp_path / "ledger.db")})

    def event(name: str) -> Any:
        asked = call(tmp_path, name)
        payload = {
            "session_id": "s",
            "transcript_path": str(tmp_path / "t.jsonl"),
            "cwd": str(tmp_path),
            "tool_name": "Agent",
            "tool_use_id": name,
            "tool_input": asked.given,
        }
        return json.loads(companion.event(b"PreToolUse \n" + json.dumps(payload).encode()))

    assert "systemMessage" not in event("1")
    ends(tmp_path, "1", REFUSED)
    said: list[Any] = []
    threads = [threading.Thread(target=lambda name=str(n): said.append(event(name))) for n in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["hookSpecificOutput"]["updatedInput"]["model"] for one in said] == ["sonnet"] * 8
    told = {one["systemMessage"].removeprefix("tierwise: this subagent runs on sonnet: ") for one in said}
    assert told == {"the one before was refused on haiku", "as the one before for the same work"}
