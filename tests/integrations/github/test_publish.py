"""The comment on a stand-in for GitHub's REST API: one, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.integrations.github.stand_in import JOB, TOKEN, GitHubStandIn, Trouble
from tierwise.integrations.github.api import GitHub, NotAllowed, Unavailable
from tierwise.integrations.github.comment import MARKER, Runs, signed
from tierwise.integrations.github.publish import Published, publish
from tierwise.integrations.github.spending import Sums

MINE, OTHERS = Sums(calls=1, spent_nanousd=10), Sums(calls=2, spent_nanousd=700)


@dataclass
class Waits:
    """Time that passes only where somebody sleeps."""

    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def monotonic(self) -> float:
        return sum(self.slept)


@pytest.fixture
def waits() -> Waits:
    """Nobody waits in a test."""
    return Waits()


@pytest.fixture
def client(github: GitHubStandIn, waits: Waits) -> GitHub:
    """A client of the stand-in."""
    return GitHub(github.url, "o/r", TOKEN, sleep=waits.sleep, monotonic=waits.monotonic)


Put = Callable[..., Published]


@pytest.fixture
def put(client: GitHub) -> Put:
    """Publishes a run's sums."""

    def put(key: str = "mine", sums: Sums = MINE, author: str = JOB) -> Published:
        return publish(
            client, 7, author=author, key=key, sums=sums, words=lambda runs: f"{len(runs)} runs", randomness=lambda: 0.5
        )

    return put


def test_the_first_run_creates_and_the_next_updates(github: GitHubStandIn, put: Put) -> None:
    """There is one comment, which holds both runs; a run that reports again is in it once."""
    github.add("hello", "octocat")
    assert put("one").created
    found = put("two", OTHERS)
    assert not found.created
    assert put("two", OTHERS).runs.total == MINE + OTHERS
    (body,) = github.bodies()
    assert Runs.read(body) == found.runs
    assert body.endswith("-->\n2 runs")
    assert github.bodies("octocat") == ["hello"]


def test_every_page_is_looked_through(github: GitHubStandIn, put: Put) -> None:
    """The comment is found behind two hundred and fifty others."""
    for number in range(250):
        github.add(f"{number}", "octocat")
    put("one")
    assert not put("two", OTHERS).created
    assert len(github.bodies()) == 1
    assert any("page=3" in path for _, path, _ in github.asked)


def test_comments_of_others_are_neither_believed_nor_changed(github: GitHubStandIn, put: Put) -> None:
    """Somebody who copies the hidden line into a comment of their own changes nothing."""
    forged = signed(Runs().with_run("forged", OTHERS), "I spent nothing")
    github.add(forged, "mallory")
    assert put().created
    assert github.bodies("mallory") == [forged]
    assert put().runs.total == MINE


def test_a_comment_that_cannot_be_read_begins_anew(github: GitHubStandIn, put: Put) -> None:
    """A hidden line that was broken is replaced, in the same comment, and that is told."""
    github.add(f"{MARKER}broken -->\n")
    found = put()
    assert (found.created, found.unread, found.runs.total) == (False, True, MINE)
    assert len(github.bodies()) == 1


def test_two_jobs_at_once_leave_one_comment(github: GitHubStandIn, put: Put) -> None:
    """A comment that another job created meanwhile is the one that stays; both runs are in it."""
    theirs = signed(Runs().with_run("theirs", OTHERS), "theirs")

    def meanwhile(method: str) -> None:
        if method == "POST":
            github.before = lambda _: None
            github.add(theirs)

    github.before = meanwhile
    found = put()
    (body,) = github.bodies()
    assert found.runs.total == MINE + OTHERS
    assert Runs.read(body) == found.runs


def writes_over(github: GitHubStandIn, body: str) -> None:
    """Another job puts its own view in place of the comment, between this one's first change and its second look."""
    seen = []

    def meanwhile(method: str) -> None:
        seen.append(method)
        if seen.count("PATCH") == 1 and method == "GET":
            github.before = lambda _: None
            github.comments[0]["body"] = body

    github.before = meanwhile


def test_what_another_job_wrote_over_is_written_again(github: GitHubStandIn, put: Put) -> None:
    """Where another job's older view replaced this run's sums, they are put back, beside its own."""
    put("before")
    theirs = signed(Runs().with_run("before", MINE).with_run("theirs", OTHERS), "theirs")
    writes_over(github, theirs)
    assert set(put("mine").runs.by_key) == {"before", "theirs", "mine"}


def test_what_was_put_there_of_others_stays(github: GitHubStandIn, put: Put) -> None:
    """Where a third job, which read earlier, writes over both, another's run is put back as well: its job has gone."""
    github.add(signed(Runs().with_run("gone", OTHERS), ""))
    stale = signed(Runs().with_run("third", OTHERS), "")
    writes_over(github, stale)
    assert set(put("mine").runs.by_key) == {"gone", "third", "mine"}


def test_an_older_state_of_another_run_is_not_put_back(github: GitHubStandIn, put: Put) -> None:
    """A run that reported again meanwhile stays as it said last."""
    github.add(signed(Runs().with_run("theirs", MINE), ""))
    writes_over(github, signed(Runs().with_run("theirs", OTHERS), ""))
    assert put("mine").runs.by_key == {"theirs": OTHERS, "mine": MINE}


@pytest.mark.parametrize("done", [True, False])
def test_a_change_that_fails_is_not_repeated_blindly(github: GitHubStandIn, put: Put, waits: Waits, done: bool) -> None:
    """Where GitHub is busy as the comment is written, what others wrote by the next try is kept."""
    github.add(signed(Runs().with_run("before", OTHERS), ""))
    github.troubles = [("PATCH", Trouble(429, headers={"retry-after": "9"}, done=done))]

    def meanwhile(method: str) -> None:
        if waits.slept:
            github.before = lambda _: None
            github.comments[0]["body"] = signed(Runs().with_run("theirs", OTHERS), "")

    github.before = meanwhile
    assert put("mine").runs.by_key == {"before": OTHERS, "theirs": OTHERS, "mine": MINE}
    assert waits.slept[0] == 9.0
    assert len(github.bodies()) == 1


def test_a_comment_that_is_gone_is_made_again(github: GitHubStandIn, put: Put) -> None:
    """Where somebody deletes the comment between look and change, there is one in the end."""
    github.add(signed(Runs().with_run("before", OTHERS), ""))
    seen = []

    def meanwhile(method: str) -> None:
        seen.append(method)
        if seen == ["GET", "GET"]:
            github.comments.clear()

    github.before = meanwhile
    assert put().created
    assert len(github.bodies()) == 1


def test_jobs_that_never_settle_end(github: GitHubStandIn, put: Put) -> None:
    """Where every look shows somebody else's comment, it is given up after a few tries."""
    github.add(signed(Runs(), ""))

    def always(method: str) -> None:
        if method == "GET":
            github.comments[0]["body"] = signed(Runs(), "")

    github.before = always
    with pytest.raises(Unavailable, match="at the same time"):
        put()


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_trouble_passes(github: GitHubStandIn, put: Put, waits: Waits, status: int) -> None:
    """A server error or a rate limit is waited out, longer each time."""
    github.troubles = [("GET", Trouble(status)), ("GET", Trouble(status)), ("GET", Trouble(status))]
    assert put().created
    assert waits.slept[:-1] == [1.0, 2.0, 4.0]  # and then until the comment has settled


def test_waits_as_long_as_github_asks(github: GitHubStandIn, put: Put, waits: Waits) -> None:
    """A `retry-after` is obeyed, of a secondary limit with 403 too."""
    github.troubles = [
        ("GET", Trouble(403, headers={"retry-after": "7"})),
        ("GET", Trouble(429, headers={"retry-after": "3"})),
    ]
    assert put().created
    assert waits.slept[:-1] == [7.0, 3.0]


def test_a_limit_that_lasts_is_given_up(github: GitHubStandIn, put: Put, waits: Waits) -> None:
    """Where GitHub asks to wait for an hour, the job does not."""
    github.troubles = [("GET", Trouble(429, headers={"retry-after": "3600"}))]
    with pytest.raises(Unavailable, match="429: trouble"):
        put()
    assert waits.slept == []


def test_an_outage_ends(github: GitHubStandIn, put: Put, waits: Waits) -> None:
    """Errors without end are given up within a minute of waiting."""
    github.troubles = [("*", Trouble(503))] * 100
    with pytest.raises(Unavailable, match="503"):
        put()
    assert sum(waits.slept) <= 60


@pytest.mark.parametrize("done", [True, False])
def test_a_creation_that_fails_is_not_repeated_blindly(github: GitHubStandIn, put: Put, done: bool) -> None:
    """Whether the comment was made or not before the error, there is one in the end."""
    github.troubles = [("POST", Trouble(502, done=done))]
    assert put().runs.total == MINE
    assert len(github.bodies()) == 1


def test_without_permission_nothing_is_tried_again(github: GitHubStandIn, put: Put, waits: Waits) -> None:
    """A token that only reads, as a fork's, is told apart from trouble."""
    github.troubles = [("POST", Trouble(403, '{"message": "Resource not accessible by integration"}'))]
    with pytest.raises(NotAllowed, match="Resource not accessible"):
        put()
    assert waits.slept == []


@pytest.mark.parametrize(
    "body", ["", "<html>", "[" * 100_000, '{"id": "x"}', '{"message": "a\\nb' + "c" * 5000 + '"}', "null", "[1, null]"]
)
def test_answers_that_are_none(github: GitHubStandIn, put: Put, body: str) -> None:
    """Answers that nobody understands end as trouble, or as no comments, and never as a fault."""
    github.troubles = [("*", Trouble(200, body))] * 50
    with pytest.raises(Unavailable):
        put()
    github.troubles = [("*", Trouble(418, body))]
    with pytest.raises(Unavailable) as raised:
        put()
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_token_follows_no_redirection(github: GitHubStandIn, put: Put, status: int) -> None:
    """Where an answer leads elsewhere, nothing is sent there, and no error names the token."""
    github.troubles = [("GET", Trouble(status, headers={"location": f"{github.url}/elsewhere"}))]
    with pytest.raises(Unavailable) as raised:
        put()
    assert not [path for _, path, _ in github.asked if "elsewhere" in path]
    assert TOKEN not in str(raised.value)


def test_nobody_there(waits: Waits) -> None:
    """A host that cannot be reached is trouble."""
    client = GitHub("http://127.0.0.1:9", "o/r", TOKEN, sleep=waits.sleep, monotonic=waits.monotonic)
    with pytest.raises(Unavailable, match="cannot be reached"):
        list(client.comments(7))


def test_whose_token_it_is(github: GitHubStandIn, client: GitHub) -> None:
    """A person's token has a name; of a job's GitHub does not say it."""
    assert client.login() is None
    github.login = "octocat"
    assert client.login() == "octocat"
