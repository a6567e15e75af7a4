"""Keeps the comment one, and every run in it, however many jobs of a pull request report at once.

Theory of operation. GitHub has no way to change a comment only if nobody else did. A job that writes what it read
before another's change undoes that change, and does not know it. So every job reads the comment again right before it
writes, and looks once more some seconds later, by when whoever read before that write has written, too. There must be
one comment then, with this run in it *and all runs that this job has ever put there*: so a run stays whose own job has
looked and gone. What is missing is put back, after another wait, which is random and grows. Of two comments the older
stays.

What is guaranteed: nothing is lost as long as no job takes more than `SETTLED_SECONDS` from that reading to the end of
its writing. What cannot be settled within the patience that `GitHub` has is told, and stands in the job's summary.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tierwise.integrations.github.api import Busy, Comment, GitHub, Unavailable
from tierwise.integrations.github.comment import MARKER, Runs, signed
from tierwise.integrations.github.spending import Sums

__all__ = ["JOB_AUTHOR", "SETTLED_SECONDS", "Published", "publish"]

JOB_AUTHOR = "github-actions[bot]"  # whose comments the token of a job makes
SETTLED_SECONDS = 3.0  # after which whoever read the comment before it was written has written it, too
_TRIES = 8
_MOST_DOUBLED = 2  # how often the wait's random part is: of a third of it at first


@dataclass(frozen=True, slots=True)
class Published:
    """What became of the comment."""

    created: bool
    author: str
    url: str
    runs: Runs
    unread: bool  # there was one that carried nothing readable any more


def publish(
    github: GitHub,
    pull_request: int,
    *,
    author: str,
    key: str,
    sums: Sums,
    words: Callable[[Runs], str],
    settled_seconds: float = SETTLED_SECONDS,
    randomness: Callable[[], float] = random.random,
) -> Published:
    """Writes the comment, or writes it anew.

    Args:
        author: whose comments are believed and changed: anybody can copy the line that carries the sums.
        words: what is shown, of the runs up to now.
        settled_seconds: how long after writing to look; none where no other job reports.

    Raises:
        NotAllowed, Unavailable: it could not be.
    """
    created = unread = False
    written = Runs()
    for number in range(_TRIES):
        ours = _ours(github, pull_request, author)
        there, broken = _carried(ours)
        if number and len(ours) == 1 and there.by_key.get(key) == sums and there.holds(written):
            return Published(created, author, ours[0].url, there, unread)
        if ours:  # to look through a long conversation takes a while: what counts is what it says now
            now = github.comment(ours[0].id)
            if now is None:
                github.pause(settled_seconds)
                continue
            there, broken = _carried([now, *ours[1:]])
        unread = unread or broken
        written = there.restored(written).with_run(key, sums)
        body = signed(written, words(written))
        try:
            if ours:
                github.update(ours[0].id, body)
                for extra in ours[1:]:
                    github.delete(extra.id)
            else:
                created, author = True, github.create(pull_request, body).author
        except Busy as busy:  # it may be there: look
            github.wait_out(busy, settled_seconds)
            continue
        spread = 2 ** min(number, _MOST_DOUBLED) / 3
        github.pause(settled_seconds * (1 + randomness() * spread))
    raise Unavailable(f"the comment could not be settled in {_TRIES} tries: other jobs write it at the same time")


def _carried(ours: list[Comment]) -> tuple[Runs, bool]:
    """The runs of all of them, of the older where both have one; and whether one cannot be read."""
    read = [Runs.read(comment.body) for comment in ours]
    runs = Runs()
    for one in reversed(read):
        runs = runs if one is None else one.merged(runs)
    return runs, None in read


def _ours(github: GitHub, pull_request: int, author: str) -> list[Comment]:
    found = [
        comment
        for comment in github.comments(pull_request)
        if comment.author == author and comment.body.startswith(MARKER)
    ]
    return sorted(found, key=lambda comment: comment.id)
