"""`tierwise comment` as a step of a job, over a stand-in for GitHub's REST API."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.importers.transcripts import OTHER, human, reply, usage
from tests.integrations.github.conftest import Job
from tests.integrations.github.stand_in import JOB, TOKEN, GitHubStandIn, Trouble
from tests.ledger.records import attempt, call
from tierwise.integrations.github.comment import Runs
from tierwise.ledger import Ledger, new_call_id


def report(session: str, cost_tokens: int = 1000, model: str = "claude-opus-5-5") -> dict[str, Any]:
    """What the CLI says at the end of a run."""
    return {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "num_turns": 3,
        "session_id": session,
        "result": "Done. @octocat",
        "total_cost_usd": 99.0,
        "modelUsage": {model: {"inputTokens": cost_tokens, "outputTokens": 0}},
    }


def test_a_job_tells_what_its_agents_cost(job: Job, github: GitHubStandIn) -> None:
    """The comment has what the transcripts cost, to the nano-dollar, and what routing is expected to cost."""
    said = job.comment()
    assert said.code == 0, said
    found = said.json
    assert (found["how"], found["run"]["calls"], found["why"]) == ("created", 2, None)
    # Opus 5.5: 4 and 20 US$ a million tokens.
    assert Decimal(str(found["run"]["spent_usd"])) == 2 * (1000 * 4 + 20 * 20) / Decimal(1_000_000)
    assert found["run"]["routed_low_usd"] <= found["run"]["routed_usd"] <= found["run"]["routed_high_usd"]
    assert found["run"]["routed_usd"] < found["run"]["spent_usd"]
    (body,) = github.bodies()
    carried = Runs.read(body)
    assert carried is not None
    assert list(carried.by_key) == ["1.1.agent."]
    assert "| this run | 2 | $0.0088 |" in body
    assert "this pull request, 1 run " in body
    assert job.summary.read_text() == body.partition("\n")[2]
    assert {token for _, _, token in github.asked} == {f"Bearer {TOKEN}"}
    assert TOKEN not in said.out + said.err + body


def test_runs_add_up_and_repeat_nothing(job: Job, github: GitHubStandIn) -> None:
    """The same run twice is one; the next run of the pull request is added."""
    job.comment()
    job.comment()
    job.run_id = 2
    found = job.comment().json
    assert found["how"] == "updated"
    assert found["pull_request"]["runs"] == 2
    assert found["pull_request"]["spent_usd"] == pytest.approx(2 * found["run"]["spent_usd"])
    assert len(github.bodies()) == 1


def test_what_was_before_the_job_is_not_its_own(job: Job, github: GitHubStandIn) -> None:
    """On a machine that keeps its transcripts, calls before the job began are not counted, and no comment is made."""
    (job.folder / "event.json").touch()  # the job begins now
    found = job.comment()
    assert (found.code, found.json["how"]) == (0, "nothing")
    assert (github.comments, job.summary.exists()) == ([], False)


def test_reports_stand_in_for_missing_transcripts(job: Job, github: GitHubStandIn) -> None:
    """What claude-code-action left counts where its session has no transcript, at tierwise's prices, with no saving."""
    folder = job.folder / "temp" / "claude-execution-1"
    folder.mkdir()
    both = [{"type": "system", "subtype": "init", "session_id": OTHER}, report(OTHER)]
    (folder / "claude-execution-output.json").write_text(json.dumps(both))
    found = job.comment().json
    assert found["run"]["calls"] == 2 + 3
    assert Decimal(str(found["run"]["spent_usd"])) == Decimal("0.0088") + Decimal("0.004")
    alone = found["run"]["routed_usd"]
    job.transcript(human("x"), reply(9, 9, usage(0, 1000), message={"model": "claude-opus-5-5"}), session=OTHER)
    found = job.comment().json
    assert (found["run"]["calls"], found["unread_reports"]) == (3, 0)
    assert found["run"]["routed_usd"] <= alone
    assert found["pull_request"]["runs"] == 1


def test_reports_that_tell_nothing_are_told(job: Job) -> None:
    """A broken report and an unknown model are counted, and are in no amount."""
    (job.folder / "broken.json").write_text('[{"type": "assistant"}]')
    (job.folder / "unknown.json").write_text(json.dumps(report("s", model="gpt-<b>")))
    found = job.comment(
        "--execution-file", str(job.folder / "broken.json"), "--execution-file", str(job.folder / "unknown.json")
    ).json
    assert (found["unread_reports"], found["run"]["unpriced_calls"]) == (1, 1)
    assert found["run"]["spent_usd"] == 0.0088
    assert {"model": "gpt-<b>", "calls": None, "spent_usd": None} in found["models"]
    assert "<b>" not in job.summary.read_text()


def test_the_ledger_tells_what_routing_saved(job: Job, github: GitHubStandIn) -> None:
    """With --source ledger the figures are those of `tierwise report`, unknown prices among them."""
    with Ledger(job.folder / "ledger.db") as ledger:
        for unpriced in ({}, {"cost_nanousd": None, "price": None}):
            call_id = new_call_id()
            at = {"started_at_ms": 1_790_000_000_000}
            ledger.record_many([(call(call_id, **at), [attempt(call_id, **at, **unpriced)])])
    said = job.comment("--source", "ledger", TIERWISE_LEDGER=str(job.folder / "ledger.db"))
    assert said.code == 0, said
    run = said.json["run"]
    assert (run["calls"], run["unpriced_calls"]) == (2, 1)
    assert (run["spent_usd"], run["saved_usd"]) == (0.000002, 0.000003)
    (body,) = github.bodies()
    assert "saved by routing" in body
    assert "with routing |" not in body


@pytest.mark.parametrize(
    ("event", "number"),
    [
        ({"issue": {"number": 7, "pull_request": {}}, "comment": {}}, 7),
        ({"workflow_run": {"pull_requests": [{"number": 7}, {"number": 8}]}}, 7),
        ({"issue": {"number": 7}}, None),
        ({"workflow_run": {"pull_requests": []}}, None),
        ({"pull_request": {"number": "7"}}, None),
        ({"ref": "refs/heads/main"}, None),
        ([], None),
    ],
)
def test_which_pull_request(job: Job, github: GitHubStandIn, event: Any, number: int | None) -> None:
    """Events about a comment on a pull request, or a workflow that ran for one, have one; others go to the summary."""
    job.event(event)
    said = job.comment()
    assert said.code == 0, said
    if number is None:
        assert said.json["how"] == "summary"
        assert github.asked == []
        assert "about no pull request" in job.summary.read_text()
        assert said.err.startswith("::warning title=tierwise::The event is about no pull request")
        assert job.comment("--pr", "7").json["how"] == "created"
    else:
        assert said.json["how"] == "created"


def test_a_fork_gets_the_summary(job: Job, github: GitHubStandIn) -> None:
    """Where the token may only read, the job's page has the figures, the log a warning, and the step ends well."""
    refused = Trouble(403, '{"message": "Resource not accessible by integration\\n::error::x"}')
    github.troubles = [("POST", refused)]
    said = job.comment()
    assert (said.code, said.json["how"], github.comments) == (0, "summary", [])
    assert "$0.0088" in job.summary.read_text()
    assert "pull-requests: write" in said.err
    assert len(said.err.splitlines()) == 1


def test_without_a_token_nothing_is_asked(job: Job, github: GitHubStandIn) -> None:
    """No token, no request: the summary has it."""
    said = job.comment(GITHUB_TOKEN="")
    assert (said.code, said.json["how"], github.asked) == (0, "summary", [])


def test_a_token_of_somebody(job: Job, github: GitHubStandIn) -> None:
    """With a person's token the comment is theirs, and found again."""
    github.login = github.author = "octocat"
    assert job.comment().json["how"] == "created"
    job.run_id = 2
    assert job.comment().json["how"] == "updated"
    assert len(github.bodies("octocat")) == 1


def test_a_token_of_an_app_is_to_be_named(job: Job, github: GitHubStandIn) -> None:
    """Where GitHub does not say whose token it is, and it is no job's, that is told with the option that mends it."""
    github.author = "our-app[bot]"
    assert "--author our-app[bot]" in job.comment().err
    job.run_id = 2
    assert job.comment("--author", "our-app[bot]").json["how"] == "updated"
    assert len(github.bodies("our-app[bot]")) == 1
    assert github.bodies(JOB) == []


def test_a_dry_run_prints_it_anywhere(job: Job, github: GitHubStandIn) -> None:
    """Outside of Actions, --dry-run says what it would say; without it, that this is no job."""
    none = {name: None for name in job.environment if name.startswith("GITHUB_")}
    said = job.comment("--dry-run", **none)
    assert (said.code, said.json["how"], said.json["run"]["calls"]) == (0, "dry run", 2)
    assert github.asked == []
    said = job.comment(**none)
    assert said.code == 2
    assert "--dry-run" in said.err


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--source", "console"], {}, "claude_code, ledger"),
        (["--source", "ledger", "--source", "claude_code"], {}, "count twice"),
        (["--source", "ledger", "--execution-file", "x"], {}, "leave PATHS"),
        (["--execution-file", "nothing.json"], {}, "nothing.json"),
        ([], {"GITHUB_API_URL": "http://example.com"}, "https only"),
        ([], {"GITHUB_EVENT_PATH": "/nowhere/event.json"}, "cannot be read"),
    ],
)
def test_mistakes_are_told(job: Job, arguments: list[str], environment: dict[str, str], words: str) -> None:
    """What cannot be is refused with 2, and the message says what can be."""
    said = job.comment(*arguments, **environment)
    assert said.code == 2
    assert words in said.err
