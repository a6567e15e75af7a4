"""Keeps the comment one, however many jobs of a pull request report at once.

GitHub has no way to change a comment only if nobody else did. So whoever writes looks afterwards: what is there must
be one comment, with this run in it; otherwise it is done again with all that is there by then, and of two comments
the older stays. Two jobs that write within the same fraction of a second can still lose one's sums until that job
reports again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tierwise.integrations.github.api import Comment, GitHub, Unavailable
from tierwise.integrations.github.comment import MARKER, Runs, signed
from tierwise.integrations.github.spending import Sums

__all__ = ["JOB_AUTHOR", "Published", "publish"]

JOB_AUTHOR = "github-actions[bot]"  # whose comments the token of a job makes
_TRIES = 6
_LEAST_WAIT_SECONDS, _MOST_WAIT_SECONDS = 0.2, 1.5


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
    randomness: Callable[[], float] = random.random,
) -> Published:
    """Writes the comment, or writes it anew.

    Args:
        author: whose comments are believed and changed: anybody can copy the line that carries the sums.
        words: what is shown, of the runs up to now.

    Raises:
        NotAllowed, Unavailable: it could not be.
    """
    created = unread = False
    for _ in range(_TRIES):
        ours = _ours(github, pull_request, author)
        runs = Runs()
        for comment in reversed(ours):
            read = Runs.read(comment.body)
            unread = unread or read is None
            runs = runs if read is None else read.merged(runs)
        runs = runs.with_run(key, sums)
        body = signed(runs, words(runs))
        if ours:
            github.update(ours[0].id, body)
            for extra in ours[1:]:
                github.delete(extra.id)
        else:
            try:
                made = github.create(pull_request, body)
            except Unavailable:
                github.pause(_LEAST_WAIT_SECONDS)  # it may be there: look
                continue
            created, author = True, made.author
        ours = _ours(github, pull_request, author)
        there = Runs.read(ours[0].body) if ours else None
        if len(ours) == 1 and there is not None and there.by_key.get(key) == sums:
            return Published(created, author, ours[0].url, there, unread)
        github.pause(_LEAST_WAIT_SECONDS + randomness() * (_MOST_WAIT_SECONDS - _LEAST_WAIT_SECONDS))
    raise Unavailable(f"the comment could not be settled in {_TRIES} tries: other jobs write it at the same time")


def _ours(github: GitHub, pull_request: int, author: str) -> list[Comment]:
    found = [
        comment
        for comment in github.comments(pull_request)
        if comment.author == author and comment.body.startswith(MARKER)
    ]
    return sorted(found, key=lambda comment: comment.id)
