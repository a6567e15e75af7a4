"""The dashboard as an ASGI application: `/dashboard` is the page, `/api/v1` what it shows.

Mounted by the gateway, or served alone. What it may cost is bounded: requests by client, listeners, replays at once,
bytes of a body.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tierwise.dashboard.access import Need, Pace, check_change, check_origin
from tierwise.dashboard.api import ROUTES, Api, Route
from tierwise.dashboard.live import Live
from tierwise.dashboard.openapi import document
from tierwise.dashboard.questions import Chosen
from tierwise.dashboard.refusals import Refused, cannot_read, not_found
from tierwise.dashboard.runtime import Runtime
from tierwise.dashboard.static import page_files
from tierwise.dashboard.web import (
    SAFE,
    ClientGone,
    Receive,
    Scope,
    Send,
    body_of,
    path_part,
    query_of,
    refuse,
    send_bytes,
)
from tierwise.ledger import Ledger

__all__ = ["Dashboard"]

Q = TypeVar("Q", bound=BaseModel)

_log = logging.getLogger("tierwise.dashboard")
_API = "/api/v1"
_PAGE = "/dashboard"
_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class Dashboard:
    """An ASGI application for HTTP.

    Args:
        ledger: where calls are; None where it is switched off.
        runtime: the process.
        version: of tierwise.
        now_ms: Unix time, UTC.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        ledger: Ledger | None,
        runtime: Runtime,
        *,
        version: str,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = Api(ledger, runtime, version=version, now_ms=now_ms)
        self.live = Live(self.api)
        self._runtime = runtime
        self._version = version
        self._reads = Pace(50, 400, clock)
        self._changes = Pace(1, 20, clock)

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path is one of the dashboard's."""
        return path == _PAGE or path.startswith((f"{_PAGE}/", f"{_API}/"))

    def close(self) -> None:
        """Sends away who listens, and lets go of its threads."""
        self.live.close()
        self.api.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = scope["method"] == "HEAD"
        try:
            if scope["path"].startswith(f"{_API}/"):
                await self._asked(scope, receive, send)
            else:
                await self._page(scope, send)
        except Refused as refused:
            await refuse(send, refused, head=head)
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001  a fault of ours must neither hang a page nor show its text
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a fault in the dashboard, %s at:\n%s", type(error).__name__, where)
            fault = Refused(
                500, f"a fault in the dashboard ({type(error).__name__})", where="its log says where", do="report it"
            )
            with suppress(Exception):  # an answer that has begun cannot be taken back
                await refuse(send, fault, head=head)

    # ------------------------------------------------------------------ the page

    async def _page(self, scope: Scope, send: Send) -> None:
        """A file of the page. They say nothing of anybody's calls: no key is asked for."""
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD"):
            raise _not_allowed(path, ["GET", "HEAD"])
        if path == _PAGE:  # its files are found relative to it
            await send_bytes(send, 308, [(b"location", b"/dashboard/")], b"", head=method == "HEAD")
            return
        name = path.removeprefix(f"{_PAGE}/") or "index.html"
        found = page_files().get(name)
        if found is None:
            raise not_found(f"no file {name[:100]!r} is part of the page", "the path", "open /dashboard/")
        headers = [(b"content-type", found.type), (b"cache-control", b"no-cache"), (b"etag", found.etag)]
        if any(key == b"if-none-match" and found.etag in value for key, value in scope["headers"]):
            await send({"type": "http.response.start", "status": 304, "headers": [*SAFE, *headers]})
            await send({"type": "http.response.body", "body": b""})
            return
        await send_bytes(send, 200, headers, found.content, head=method == "HEAD")

    # ------------------------------------------------------------------ the API

    async def _asked(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_origin(scope["headers"])
        path = scope["path"].removeprefix(_API)
        if path in ("/live", "/openapi.json"):
            if scope["method"] != "GET":
                raise _not_allowed(path, ["GET"])
            if path == "/live":
                self._let_in(scope, Need.CALLS)
                await self._listen(_chosen(Chosen, query_of(scope)), send, receive)
            else:
                self._let_in(scope, Need.FIGURES)
                await send_bytes(send, 200, _JSON, self._document)
            return
        route = _route(scope["method"], path)
        self._let_in(scope, route.need)
        if route.need is Need.CHANGES:
            check_change(scope["headers"])
        asked = await self._question(route, scope, receive)
        answer: BaseModel = await route.answer(self.api, asked)
        await send_bytes(send, 200, _JSON, answer.model_dump_json().encode("utf-8", "replace"))

    def _let_in(self, scope: Scope, need: Need) -> None:
        client = scope.get("client")
        who = self._runtime.allow(scope["headers"], need) or (client[0] if client else "")
        (self._changes if need is Need.CHANGES else self._reads).take(who)

    async def _question(self, route: Route[Any, Any], scope: Scope, receive: Receive) -> Any:
        if route.method == "POST":
            if query_of(scope):
                raise Refused(400, "a change takes no query", where="the query", do="put it into the body")
            try:
                return route.asks.model_validate_json(await body_of(receive), strict=True)
            except ValidationError as error:
                raise cannot_read(error, "body") from None
        found = query_of(scope)
        if route.in_path is not None:
            if route.in_path in found:
                raise Refused(400, f"{route.in_path} stands in the path", where="the query", do="leave it away")
            found[route.in_path] = path_part(scope, _API + route.path[: route.path.index("{")])
        return _chosen(route.asks, found)

    async def _listen(self, chosen: Chosen, send: Send, receive: Receive) -> None:
        async with aclosing(self.live.events(chosen)) as events:
            first = await anext(events)
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        *SAFE,
                        (b"content-type", b"text/event-stream; charset=utf-8"),
                        (b"cache-control", b"no-store"),
                        (b"x-accel-buffering", b"no"),
                    ],
                }
            )
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async with aclosing(_until_gone(events, receive)) as told:
                async for event in told:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    @cached_property
    def _document(self) -> bytes:
        return json.dumps(document(self._version), ensure_ascii=False).encode()


def _chosen(asks: type[Q], query: Mapping[str, str]) -> Q:
    try:
        return asks.model_validate_strings(query)
    except ValidationError as error:
        raise cannot_read(error, "query") from None


async def _until_gone(events: AsyncIterator[bytes], receive: Receive) -> AsyncGenerator[bytes]:
    """The events, until the client hangs up."""
    gone = asyncio.ensure_future(_gone(receive))
    following: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            following = asyncio.ensure_future(_following(events))
            await asyncio.wait({gone, following}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() or (event := following.result()) is None:
                return
            yield event
    finally:
        gone.cancel()
        if following is not None:  # what it waits for must be over before the events can be closed
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _following(events: AsyncIterator[bytes]) -> bytes | None:
    return await anext(events, None)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _route(method: str, path: str) -> Route[Any, Any]:
    allowed: list[str] = []
    for route in ROUTES:
        if route.in_path is None:
            fits = path == route.path
        else:
            prefix = route.path[: route.path.index("{")]
            fits = path.startswith(prefix) and len(path) > len(prefix)
        if fits and route.method == method:
            return route
        if fits:
            allowed.append(route.method)
    if allowed:
        raise _not_allowed(_API + path, allowed)
    raise not_found(f"nothing is at {(_API + path)[:100]}", "the path", "see /api/v1/openapi.json")


def _not_allowed(path: str, allowed: list[str]) -> Refused:
    names = ", ".join(sorted(allowed))
    return Refused(
        405,
        f"{path[:100]} does not take that method",
        where="the method",
        do=f"use {names}",
        headers=((b"allow", names.encode()),),
    )
