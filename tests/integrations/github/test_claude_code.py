"""What the real Claude Code CLI leaves behind in a job, told on a pull request. The model and GitHub are stand-ins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.conftest import ClaudeCode, claude, home
from tests.gateway.conftest import KEY
from tests.integrations.github.conftest import Job
from tests.integrations.github.stand_in import GitHubStandIn
from tierwise.testing import StandInUpstream

__all__ = ["claude", "home"]  # fixtures of the clients' own tests


@pytest.mark.parametrize("keeps", [True, False], ids=["transcript", "report alone"])
def test_a_real_run_is_counted_once(claude: ClaudeCode, job: Job, github: GitHubStandIn, keeps: bool) -> None:
    """With its transcript, or where it kept none by its report, a run costs the same, and never both."""
    runner = ClaudeCode(job.folder / "runner", claude.cwd)
    runner.home.mkdir()
    with StandInUpstream(api_key=KEY) as upstream:
        upstream.reply("The printer burns.")
        words = ["-p", "Summarise this ticket: the printer burns", "--model", "opus", "--output-format", "json"]
        said = runner.run(
            ["claude", *words, *([] if keeps else ["--no-session-persistence"])], ANTHROPIC_BASE_URL=upstream.url
        )
        assert said.status == 0, said
        (sent,) = upstream.calls()
    report = Path(job.folder / "report.json")
    report.write_text(said.out)
    found = job.comment("--execution-file", str(report), HOME=str(runner.home))
    assert found.code == 0, found
    run = found.json["run"]
    assert (run["calls"], run["unpriced_calls"], found.json["unread_reports"]) == (1, 0, 0)
    assert run["spent_usd"] == pytest.approx(json.loads(said.out)["total_cost_usd"], rel=1e-9)
    assert [one["model"] for one in found.json["models"]] == [sent.json["model"]]
    assert (run["routed_usd"] < run["spent_usd"]) is keeps
    assert len(github.bodies()) == 1


def test_a_resumed_session_is_told_by_its_last_report(claude: ClaudeCode, job: Job) -> None:
    """The CLI's report of a resumed session holds what was before: two of them are not added up."""
    runner = ClaudeCode(job.folder / "runner", claude.cwd)
    runner.home.mkdir()
    words = ["claude", "-p", "Summarise this ticket: the printer burns", "--model", "opus", "--output-format", "json"]
    options: list[str] = []
    costs = []
    with StandInUpstream(api_key=KEY) as upstream:
        for number in range(2):
            said = runner.run([*words, *(["--resume", *options] if options else [])], ANTHROPIC_BASE_URL=upstream.url)
            assert said.status == 0, said
            (job.folder / f"report{number}.json").write_text(said.out)
            options = [said.json["session_id"]]
            costs.append(said.json["total_cost_usd"])
    files = [word for number in (1, 0) for word in ("--execution-file", str(job.folder / f"report{number}.json"))]
    nowhere = job.folder / "nowhere"
    nowhere.mkdir()
    run = job.comment(*files, HOME=str(nowhere)).json["run"]  # where there is no transcript
    assert run["spent_usd"] == pytest.approx(costs[1], rel=1e-9)
    assert run["calls"] == 2
    run = job.comment(*files, HOME=str(runner.home)).json["run"]
    assert run["spent_usd"] == pytest.approx(costs[1], rel=1e-9)
    assert run["calls"] == 2
