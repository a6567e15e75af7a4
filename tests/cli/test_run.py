"""`tierwise run` against a stand-in for the API: answer, receipt, exit codes, and the ledger's row."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, UPSTREAM_TOML, Tierwise
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Ledger
from tierwise.testing import Fault, StandInUpstream

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def _calls(path: Path) -> list[tuple[CallStatus, list[OutcomeKind]]]:
    with Ledger(path) as ledger:
        return [(stored.call.status, [a.outcome for a in stored.attempts]) for stored in ledger.calls()]


def test_answer_on_stdout_receipt_on_stderr(tierwise: Tierwise, upstream: StandInUpstream, ledger_path: Path) -> None:
    """stdout is the answer and nothing else; stderr is one line with tier, model and cost; the ledger has the call."""
    upstream.reply("Two sentences.")
    done = tierwise("run", "Summarise this ticket", "--project", "p", "--tag", "a=b")
    assert (done.code, done.out) == (0, "Two sentences.\n")
    assert done.err.count("\n") == 1
    assert "claude-haiku-5-5" in done.err
    with Ledger(ledger_path) as ledger:
        (stored,) = ledger.calls()
    assert (stored.call.status, stored.call.project, stored.call.tags) == (
        CallStatus.ANSWERED,
        "p",
        (("a", "b"),),
    )
    assert stored.attempts[0].cost_nanousd is not None


def test_input_file_goes_into_the_prompt(tierwise: Tierwise, upstream: StandInUpstream, home: Path) -> None:
    """--input FILE, or `-` for stdin, is the payload of the request."""
    (home / "in.txt").write_text("\ufeffthe lamp is broken")
    tierwise("run", "Summarise this", "--input", "in.txt")
    tierwise("run", "Summarise this", "--input", "-", stdin="the shade is cracked")
    sent = [json.dumps(request.json) for request in upstream.calls()]
    assert "the lamp is broken" in sent[0]
    assert "the shade is cracked" in sent[1]


def test_json_schema_is_held(tierwise: Tierwise, upstream: StandInUpstream, home: Path) -> None:
    """A reply that breaks the schema is not the answer: the next one that holds it is."""
    (home / "schema.json").write_text(json.dumps(SCHEMA))
    upstream.reply("no JSON at all")
    upstream.reply_json({"city": "Paris"})
    done = tierwise("run", "Extract the city", "--json-schema", "schema.json", "--json")
    assert done.code == 0
    assert done.json["value"] == {"city": "Paris"}
    assert [attempt["outcome"] for attempt in done.json["attempts"]] == ["rejected", "accepted"]
    assert done.json["cost_usd"] > done.json["attempts"][1]["cost_usd"]


def test_no_acceptable_answer_ends_with_one(
    tierwise: Tierwise, upstream: StandInUpstream, home: Path, ledger_path: Path
) -> None:
    """When every rung is rejected the code is 1, stderr lists the attempts, and what was spent is in the ledger."""
    (home / "schema.json").write_text(json.dumps(SCHEMA))
    upstream.reply("never JSON", times=None)
    done = tierwise("run", "Extract the city", "--json-schema", "schema.json")
    assert done.code == 1
    assert done.out == ""
    assert "claude-opus-5-5" in done.err
    ((status, outcomes),) = _calls(ledger_path)
    assert status is CallStatus.FAILED
    assert outcomes == [OutcomeKind.REJECTED] * len(outcomes)
    assert len(outcomes) > 2


def test_failure_as_json_has_the_attempts(tierwise: Tierwise, upstream: StandInUpstream) -> None:
    """With --json a failure is a document too."""
    upstream.fail(Fault.status(401))
    done = tierwise("run", "Summarise this", "--json")
    assert done.code == 1
    assert done.json["kind"] == "RequestRefusedByProvider"
    assert done.json["attempts"][0]["outcome"] == "unauthorized"
    assert done.json["decision"]["tier"] == "haiku"
    assert "dummy" not in done.out + done.err


def test_no_key_ends_with_three(
    tierwise: Tierwise, upstream: StandInUpstream, monkeypatch: pytest.MonkeyPatch, ledger_path: Path
) -> None:
    """Without a key nothing is sent: code 3, which variable to set, and a record that says not run."""
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    done = tierwise("run", "Summarise this")
    assert done.code == 3
    assert "ANTHROPIC_API_KEY" in done.err
    assert upstream.requests == []
    assert _calls(ledger_path) == [(CallStatus.NOT_RUN, [])]


def test_cost_ceiling_ends_with_four(tierwise: Tierwise, upstream: StandInUpstream) -> None:
    """A call that would cost more than allowed is not made."""
    done = tierwise("run", "Write a business plan", "--max-cost", "0.0000001")
    assert done.code == 4
    assert "ceiling" in done.err
    assert upstream.requests == []


def test_deadline_ends_with_four(tierwise: Tierwise, upstream: StandInUpstream) -> None:
    """A call that takes longer than allowed is given up."""
    upstream.fail(Fault.stall(), times=None)
    done = tierwise("run", "Summarise this", "--max-latency", "300ms")
    assert done.code == 4


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("", "--json"), "empty"),
        (("x", "--json-schema", "nothing.json"), "nothing.json"),
        (("x", "--json-schema", "tierwise.toml"), "is not JSON"),
        (("x", "--json-schema", "list.json"), "a JSON schema is an object"),
        (("x", "--json-schema", "broken.json"), "schema"),
        (("x", "--json-schema", "deep.json"), "is not JSON"),
        (("x", "--input", "nothing.txt"), "nothing.txt"),
        (("x", "--input", "."), "directory"),
        (("x", "--tag", "novalue"), "KEY=VALUE"),
        (("--input", "-"), "reads stdin"),
        (("x", "--tier", "hiku"), "unknown tier"),
        (("x", "--max-cost", "-1"), "not an amount"),
    ],
)
def test_what_cannot_be_used_ends_with_two(
    tierwise: Tierwise, upstream: StandInUpstream, home: Path, args: tuple[str, ...], says: str
) -> None:
    """Unusable input ends with code 2 and a message; nothing is sent."""
    (home / "list.json").write_text("[1]")
    (home / "broken.json").write_text('{"type": "nonsense"}')
    (home / "deep.json").write_text("[" * 100_000)
    done = tierwise("run", *args)
    assert done.code == 2
    assert says in done.err
    assert upstream.requests == []


def test_ten_megabytes_are_refused_in_words(tierwise: Tierwise, upstream: StandInUpstream) -> None:
    """A task that fits no model is input that cannot be used: nothing is sent, and the message tells its size."""
    done = tierwise("run", stdin="Summarise this. " + "word " * 2_000_000)
    assert done.code == 2
    assert "do not fit its context" in done.err
    assert upstream.requests == []


def test_no_record_leaves_no_ledger(tierwise: Tierwise, upstream: StandInUpstream, ledger_path: Path) -> None:
    """--no-record runs without touching the ledger."""
    assert tierwise("run", "Summarise this", "--no-record").code == 0
    assert not ledger_path.exists()


def test_lone_surrogates_in_arguments_do_not_lose_the_call(program: Tierwise, upstream: StandInUpstream) -> None:
    """Arguments that are no UTF-8 arrive as lone surrogates: the call is made all the same, and the answer printed."""
    upstream.reply("caf\udce9".encode("utf-8", "replace").decode())
    done = program("run", b"Summarise caf\xe9 this")
    assert done.code == 0
    assert len(upstream.calls()) == 1


def test_answer_survives_a_terminal_that_knows_only_ascii(program: Tierwise, upstream: StandInUpstream) -> None:
    """What the encoding cannot say is escaped, never a crash."""
    upstream.reply("5 € – fine")
    done = program("run", "Summarise this", env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"})
    assert done.code == 0
    assert done.out == "5 \\u20ac \\u2013 fine\n"


def test_interrupted_call_is_on_record(home: Path, upstream: StandInUpstream, ledger_path: Path) -> None:
    """Ctrl-C while waiting for the API: code 130, the request is closed, and the ledger says cancelled."""
    upstream.fail(Fault.stall(after_events=2), times=None)
    with subprocess.Popen([PROGRAM, "run", "Summarise this"], stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not upstream.calls() and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=300)
    assert running.returncode == 130
    assert err.split() == ["interrupted"]
    assert upstream.calls()[0].wait_finished()
    assert upstream.calls()[0].closed_early
    assert _calls(ledger_path) == [(CallStatus.CANCELLED, [OutcomeKind.CANCELLED])]


def test_project_file_cannot_send_keys_elsewhere(tierwise: Tierwise, home: Path) -> None:
    """A tierwise.toml that was only found here may not name another host for this machine's key."""
    (home / "tierwise.toml").write_text(UPSTREAM_TOML.format(url="https://example.org"))
    done = tierwise("run", "x", env={"ANTHROPIC_API_KEY": "dummy"})
    assert done.code == 2
    assert "providers.anthropic.base_url" in done.err
