"""Several jobs of a pull request report at once, on a stand-in for GitHub's REST API: every run is in the comment."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integrations.github.stand_in import JOB, GitHubStandIn
from tierwise.integrations.github.api import GitHub
from tierwise.integrations.github.comment import Runs, signed
from tierwise.integrations.github.publish import Published, publish
from tierwise.integrations.github.spending import Sums


class Turns:
    """A clock of jobs that run one at a time: it goes on when all of them wait, to whose wait ends first."""

    def __init__(self, jobs: int) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[int, float] = {}
        self._left = jobs
        self._running: int | None = None
        self.now = 0.0

    def wait(self, job: int, seconds: float) -> None:
        """Until so much later. Called by whoever acts for the job: itself, or who carries its request out."""
        with self._changed:
            self._waiting[job] = self.now + seconds
            self._next()
            assert self._changed.wait_for(lambda: self._running == job, timeout=120), "nobody's turn"

    def end(self) -> None:
        """The job that runs is done."""
        with self._changed:
            self._left -= 1
            self._next()

    def _next(self) -> None:
        self._running = None
        if self._left and len(self._waiting) == self._left:
            self._running = min(self._waiting, key=lambda job: (self._waiting[job], job))
            self.now = self._waiting.pop(self._running)
            self._changed.notify_all()


@pytest.mark.parametrize("jobs", [2, 3, 6])
@pytest.mark.parametrize("seed", range(6))
def test_no_order_of_requests_loses_a_run(github: GitHubStandIn, jobs: int, seed: int) -> None:
    """Whatever the order in which jobs' requests arrive and are answered, one comment has all sums in the end."""
    turns, chance = Turns(jobs), random.Random(f"{jobs} {seed}")
    if seed % 3:
        github.add(signed(Runs(), "no runs"))  # else the first of them make it
    starts = [chance.uniform(0, 1) for _ in range(jobs)]
    github.travels = lambda whose: turns.wait(int(whose.rpartition(" ")[2]), chance.uniform(0.05, 0.7))

    def report(job: int) -> Published:
        turns.wait(job, starts[job])
        client = GitHub(
            github.url,
            "o/r",
            f"{job}",
            sleep=lambda seconds: turns.wait(job, seconds),
            monotonic=lambda: turns.now,
        )
        sums = Sums(calls=1, spent_nanousd=10**job)
        try:
            return publish(
                client,
                7,
                author=JOB,
                key=f"{job}",
                sums=sums,
                words=lambda runs: f"{len(runs)} runs",
                randomness=chance.random,
            )
        finally:
            turns.end()

    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(report, range(jobs)))
    (body,) = github.bodies()
    runs = Runs.read(body)
    assert runs is not None
    assert runs.total == Sums(calls=jobs, spent_nanousd=sum(10**job for job in range(jobs)))
    assert all(found.runs.by_key[f"{job}"].spent_nanousd == 10**job for job, found in enumerate(done))


PROGRAM = """
import sys
from tierwise.integrations.github.api import GitHub
from tierwise.integrations.github.publish import publish
from tierwise.integrations.github.spending import Sums

url, key = sys.argv[1:]
client = GitHub(url, "o/r", key, sleep=lambda seconds: None, monotonic=lambda: 0.0)
publish(client, 7, author="github-actions[bot]", key=key, sums=Sums(calls=1), words=lambda runs: f"{len(runs)} runs")
"""


def test_two_processes_that_read_before_either_writes(github: GitHubStandIn) -> None:
    """Of two real processes that both write what they had read before, neither's run is lost."""
    github.add(signed(Runs().with_run("before", Sums(calls=1)), "1 run"))
    both, travelled = threading.Barrier(2, timeout=60), {"Bearer one": 0, "Bearer two": 0}

    def meet(whose: str) -> None:
        travelled[whose] += 1
        # Each request comes by twice, on its way there and back. Both look through the comments and read theirs (1 to
        # 4) before either writes (5, 6), and both have written before either looks again (7).
        if travelled[whose] in (5, 7):
            both.wait()

    github.travels = meet
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, github.url, key],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for key in ("one", "two")
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    (body,) = github.bodies()
    runs = Runs.read(body)
    assert runs is not None
    assert set(runs.by_key) == {"before", "one", "two"}
