"""The few requests to GitHub that a comment takes. The standard library's client: nothing of a model's call goes here.

The token is in the header of these requests and nowhere else: not in an error, and not where a redirection leads,
since none is followed. Where GitHub is busy it is asked again, for so long in all; what writes is not repeated here,
because whoever asks must look first what is there by then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tierwise import __version__
from tierwise.core.headers import retry_after_seconds
from tierwise.core.json import Json

__all__ = ["Busy", "Comment", "GitHub", "NotAllowed", "Unavailable"]

_PAGE = 100
_MOST_PAGES = 100
_MOST_BYTES = 32 * 1024 * 1024
_TIMEOUT_SECONDS = 20.0
_PATIENCE_SECONDS = 60.0
_FIRST_WAIT_SECONDS = 1.0


class NotAllowed(Exception):
    """The token may not do that: of a pull request from a fork it only reads."""


class Unavailable(Exception):
    """GitHub did not answer as it should, for as long as was waited."""


class Busy(Unavailable):
    """Worth asking again, after so long if GitHub says it. What was to be written may be there all the same."""

    def __init__(self, words: str, wait_seconds: float | None = None) -> None:
        super().__init__(words)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment on a pull request."""

    id: int
    author: str
    body: str
    url: str


class GitHub:
    """A repository's comments.

    Args:
        api_url, repository: of the repository, `owner/name`.
        token: that is sent along.
        sleep, monotonic: time.
    """

    def __init__(
        self,
        api_url: str,
        repository: str,
        token: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = f"{api_url}/repos/{repository}"
        self._user = f"{api_url}/user"
        self._token = token
        self._sleep, self._monotonic = sleep, monotonic
        self._ends = monotonic() + _PATIENCE_SECONDS
        self._opener = build_opener(_Stay())

    def login(self) -> str | None:
        """Whose token it is; None where GitHub does not say, as for the token of a job."""
        try:
            found = self._ask("GET", self._user)
        except NotAllowed:
            return None
        login = found.get("login") if isinstance(found, dict) else None
        return login if isinstance(login, str) else None

    def comments(self, number: int) -> Iterator[Comment]:
        """All comments on a pull request, oldest first."""
        for page in range(1, _MOST_PAGES + 1):
            found = self._ask("GET", f"{self._base}/issues/{number}/comments?per_page={_PAGE}&page={page}")
            if not isinstance(found, list):
                raise Unavailable("GitHub answered with something that is no list of comments")
            yield from (comment for comment in map(_comment, found) if comment is not None)
            if len(found) < _PAGE:
                return

    def comment(self, comment_id: int) -> Comment | None:
        """One comment; None where it is gone."""
        found = self._ask("GET", f"{self._base}/issues/comments/{comment_id}", missing_is_fine=True)
        read = _comment(found)
        if read is None and found is not None:
            raise Unavailable("GitHub answered with something that is no comment")
        return read

    def create(self, number: int, body: str) -> Comment:
        """Adds a comment. Raises `Busy` at the first trouble: look whether it is there."""
        made = _comment(self._ask("POST", f"{self._base}/issues/{number}/comments", body, again=False))
        if made is None:
            raise Busy("GitHub answered with something that is no comment")
        return made

    def update(self, comment_id: int, body: str) -> None:
        """Changes one. Raises `Busy` at the first trouble: by the next try others may have changed it."""
        self._ask("PATCH", f"{self._base}/issues/comments/{comment_id}", body, again=False)

    def delete(self, comment_id: int) -> None:
        """Removes one; that it is gone already is as good."""
        self._ask("DELETE", f"{self._base}/issues/comments/{comment_id}", missing_is_fine=True)

    def pause(self, seconds: float) -> None:
        """Waits, within the patience that there is in all.

        Raises:
            Unavailable: it is used up.
        """
        if self._monotonic() + seconds > self._ends:
            raise Unavailable(f"GitHub could not be reached properly within {_PATIENCE_SECONDS:g} s")
        self._sleep(seconds)

    def wait_out(self, busy: Busy, seconds: float) -> None:
        """Waits for as long as GitHub asked, or else so long.

        Raises:
            Busy: the same, where that is longer than there is patience.
        """
        try:
            self.pause(seconds if busy.wait_seconds is None else busy.wait_seconds)
        except Unavailable:
            raise busy from None

    def _ask(
        self, method: str, url: str, body: str | None = None, *, again: bool = True, missing_is_fine: bool = False
    ) -> Json:
        wait = _FIRST_WAIT_SECONDS
        while True:
            try:
                return self._once(method, url, body)
            except Busy as busy:
                if not again:
                    raise
                self.wait_out(busy, wait)
                wait *= 2
            except _Missing as missing:
                if missing_is_fine:
                    return None
                raise NotAllowed(str(missing)) from None

    def _once(self, method: str, url: str, body: str | None) -> Json:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self._token}",
            "User-Agent": f"tierwise/{__version__}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps({"body": body}).encode(), "application/json"
        request = Request(url, data, headers, method=method)  # noqa: S310  https, or a loopback address: `Workflow` saw to it
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                text = answer.read(_MOST_BYTES)
        except HTTPError as error:
            with error:
                raise _understood(error) from None
        except (OSError, HTTPException) as error:
            raise Busy(f"GitHub cannot be reached: {getattr(error, 'reason', None) or error}") from None
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError):
            raise Busy("GitHub answered with something that is not JSON") from None


class _Missing(Exception):
    """There is no such thing, or the token may not see it: GitHub does not say which."""


class _Stay(HTTPRedirectHandler):
    """Follows no redirection: a token must not go where one leads."""

    def redirect_request(  # noqa: PLR0917  as the standard library calls it
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _understood(error: HTTPError) -> Exception:
    headers = {name.lower(): value for name, value in error.headers.items()}
    words = f"GitHub answered {error.code}{_said(error)}"
    limited = headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers
    if error.code == 429 or error.code >= 500 or (error.code == 403 and limited):
        return Busy(words, _wait_seconds(headers))
    if error.code in (404, 410):
        return _Missing(words)
    if error.code in (401, 403):
        return NotAllowed(words)
    return Unavailable(words)


def _said(error: HTTPError) -> str:
    try:
        told = json.loads(error.read(65_536))
    except (OSError, ValueError, HTTPException, RecursionError):
        return ""
    message = told.get("message") if isinstance(told, dict) else None
    return f": {' '.join(message.split())[:200]}" if isinstance(message, str) else ""


def _wait_seconds(headers: dict[str, str]) -> float | None:
    asked = retry_after_seconds(headers, now=datetime.now(UTC))
    if asked is not None:
        return asked
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isdecimal() and len(reset) < 12:
        return max(0.0, int(reset) - datetime.now(UTC).timestamp())
    return None


def _comment(row: Json) -> Comment | None:
    match row:
        case {"id": int(number), "body": str(body), "user": {"login": str(author)}, "html_url": str(url)}:
            return Comment(number, author, body, url)
    return None
