"""A stand-in for GitHub's REST API on loopback: the comments of one pull request, and trouble on demand.

It answers as docs.github.com describes `GET`, `POST`, `PATCH` and `DELETE` of issue comments, pages included. It is not
GitHub: what GitHub does besides is not known here.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

JOB = "github-actions[bot]"
TOKEN = "ghs_standInOnly"  # noqa: S105  of nobody


@dataclass(frozen=True)
class Trouble:
    """An answer in place of the real one. `done`: the request is carried out all the same."""

    status: int
    body: str = '{"message": "trouble"}'
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False


@dataclass
class GitHubStandIn:
    """What is there, and what was asked."""

    url: str = ""
    login: str | None = None  # None: a job's token, of which GitHub does not say whose it is
    author: str = JOB
    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, token
    troubles: list[tuple[str, Trouble]] = field(default_factory=list)  # for the next requests of a method
    before: Callable[[str], None] = lambda _: None  # is told of each request before it is carried out
    travels: Callable[[str], None] = lambda _: None  # is told whose token a request has, on its way there and back

    def add(self, body: str, author: str = JOB) -> dict[str, Any]:
        """A comment of somebody."""
        number = 1000 + len(self.comments) + sum(1 for method, _, _ in self.asked if method == "DELETE")
        made = {"id": number, "body": body, "user": {"login": author}, "html_url": f"{self.url}/comment/{number}"}
        self.comments.append(made)
        return made

    def bodies(self, author: str = JOB) -> list[str]:
        """What somebody's comments say."""
        return [one["body"] for one in self.comments if one["user"]["login"] == author]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """What a request does, and its answer."""
        parts = urlsplit(path)
        if parts.path == "/user":
            return (
                (403, {"message": "Resource not accessible by integration"})
                if self.login is None
                else (
                    200,
                    {"login": self.login},
                )
            )
        if parts.path == "/repos/o/r/issues/7/comments":
            if method == "POST":
                return 201, self.add(body["body"], self.author)
            query = parse_qs(parts.query)
            size, page = int(query["per_page"][0]), int(query["page"][0])
            return 200, self.comments[(page - 1) * size : page * size]
        if match := re.fullmatch(r"/repos/o/r/issues/comments/(\d+)", parts.path):
            (found,) = [one for one in self.comments if one["id"] == int(match[1])] or [None]
            if found is None:
                return 404, {"message": "Not Found"}
            if method == "DELETE":
                self.comments.remove(found)
                return 204, None
            if method == "PATCH":
                found["body"] = body["body"]
            return 200, found
        return 404, {"message": "Not Found"}


@contextmanager
def running() -> Iterator[GitHubStandIn]:
    """One that listens."""
    known = GitHubStandIn()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            whose = self.headers.get("authorization", "")
            known.travels(whose)
            known.before(self.command)
            known.asked.append((self.command, self.path, whose))
            trouble = next((one for one in known.troubles if one[0] in (self.command, "*")), None)
            if trouble is not None:
                known.troubles.remove(trouble)
                if trouble[1].done:
                    known.answer(self.command, self.path, body)
                self.say(trouble[1].status, trouble[1].body.encode(), trouble[1].headers)
                return
            status, told = known.answer(self.command, self.path, body)
            text = b"" if told is None else json.dumps(told).encode()  # as it is now
            known.travels(whose)
            self.say(status, text, {})

        do_GET = do_POST = do_PATCH = do_DELETE = do  # noqa: N815  as the standard library calls them

        def say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
