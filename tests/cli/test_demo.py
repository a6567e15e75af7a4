"""`tierwise demo`: five steps, nothing faked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Tierwise
from tierwise.core.decisions import CallStatus
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream

NO_LOCAL = "[tiers.local]\nenabled = false\n"


def test_without_key_steps_are_priced_and_not_run(tierwise: Tierwise, home: Path, ledger_path: Path) -> None:
    """Without a key each step of an API tier is marked as not run, at its estimate, and recorded as not run."""
    (home / "tierwise.toml").write_text(NO_LOCAL)
    done = tierwise("demo", "--json")
    assert done.code == 0
    steps = done.json["steps"]
    assert len(steps) == 5
    assert {step["status"] for step in steps} == {"not run: no API key"}
    assert all(step["answer"] is None and step["estimated"] and step["attempts"] == 0 for step in steps)
    assert all(step["cost_usd"] > 0 for step in steps)
    assert done.json["saved_usd"] == pytest.approx(done.json["baseline_cost_usd"] - done.json["cost_usd"])
    with Ledger(ledger_path) as ledger:
        assert [stored.call.status for stored in ledger.calls()] == [CallStatus.NOT_RUN] * 5


def test_table_ends_with_saving_and_ledger(tierwise: Tierwise, home: Path, ledger_path: Path) -> None:
    """A person reads every step, the saving, that nothing was really spent, and where the ledger is."""
    (home / "tierwise.toml").write_text(NO_LOCAL)
    done = tierwise("demo")
    for column in ("step", "task type", "tier", "model", "cost", "on baseline", "why"):
        assert column in done.out
    assert "saved" in done.out
    assert "Really spent: $0.00" in done.out
    assert str(ledger_path) in done.out


def test_with_key_steps_run_and_checks_refuse(tierwise: Tierwise, upstream: StandInUpstream) -> None:
    """With a key the steps run; replies that a check refuses climb, and what they cost counts."""
    upstream.reply("no label, no note, no JSON", times=None)
    steps = {step["step"]: step for step in tierwise("demo", "--json").json["steps"]}
    assert steps["write the answer"]["status"] == "ran"
    assert steps["write the answer"]["answer"] == "no label, no note, no JSON"
    assert steps["classify the request"]["status"].startswith("failed")
    assert steps["classify the request"]["attempts"] > 1
    assert steps["classify the request"]["cost_usd"] > 0


@pytest.mark.embedded
def test_local_steps_really_run_on_the_embedded_model(program: Tierwise) -> None:
    """On a bare machine the steps of the local tier are answered by the embedded model."""
    done = program("demo", "--json", env={"ANTHROPIC_API_KEY": None})
    assert done.code == 0
    ran = [step for step in done.json["steps"] if step["model"].startswith("smollm2") and step["attempts"]]
    assert ran
    assert all(step["cost_usd"] == 0 for step in ran if step["status"] == "ran")
    assert any(step["answer"] for step in ran)
