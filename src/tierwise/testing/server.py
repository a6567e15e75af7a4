"""The stand-in itself: a real HTTP/1.1 server on loopback, written on bare sockets so that faults are exact.

It runs in a thread of its own with its own event loop, so it serves synchronous and asynchronous tests alike. While
it answers a request it also watches the connection: a client that hangs up first is recorded (`closed_early`),
which is how a test proves that a cancelled call really was cancelled.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from tierwise.core.json import Json, JsonObject
from tierwise.testing.batches import BatchError, StandInBatches
from tierwise.testing.faults import Fault, FaultKind
from tierwise.testing.replies import (
    StandInReply,
    anthropic_events,
    anthropic_message,
    default_reply,
    openai_chunks,
    openai_completion,
    request_tokens,
)
from tierwise.testing.rules import CLAUDE_MODELS, LENIENT, ModelRules, violations

__all__ = ["RecordedRequest", "StandInUpstream"]

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
_UNKNOWN = (401, "authentication_error", "invalid x-api-key")
_HTML = b"<!doctype html>\n<html><body><h1>502 Bad Gateway</h1></body></html>\n"
_RATE_LIMITS = {
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3999",
    "anthropic-ratelimit-requests-reset": "2026-11-22T00:00:00Z",
    "anthropic-ratelimit-input-tokens-limit": "2000000",
    "anthropic-ratelimit-input-tokens-remaining": "1999000",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-22T00:00:00Z",
    "anthropic-ratelimit-output-tokens-limit": "400000",
    "anthropic-ratelimit-output-tokens-remaining": "399000",
    "anthropic-ratelimit-output-tokens-reset": "2026-11-22T00:00:00Z",
}


@dataclass(eq=False)
class RecordedRequest:
    """A request that came. Header names are lower case; `json` is None where the body is no JSON."""

    method: str
    path: str  # without the query
    query: str
    headers: Mapping[str, str]
    body: bytes
    json: Json
    request_id: str
    closed_early: bool = False  # the client hung up before it had its answer
    _finished: threading.Event = field(default_factory=threading.Event, repr=False)

    def wait_finished(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until it was answered or given up; False when that took too long. Then `closed_early` is final."""
        return self._finished.wait(timeout_seconds)


Handler = Callable[[RecordedRequest], "StandInReply | Fault | None"]


class StandInUpstream:
    """A stand-in for the APIs that tierwise speaks to; use it as a context manager.

    It speaks Anthropic's wire (`/v1/messages`, JSON and SSE, `/v1/messages/count_tokens`, `/v1/messages/batches`, whose
    requests take their replies and faults from the script one by one, `/v1/models`), enough of
    OpenAI's (`/v1/chat/completions`) and of Ollama's (`/api/version`, `/api/tags`, `/api/ps`). It is **not** those
    services: no model runs, and limits and counts are made up. It refuses what the real API refuses (see
    `tierwise.testing.rules`): wrong parameters per model, unknown models, missing keys.

    Args:
        api_key: required of every request if given, as `x-api-key` or bearer token.
        models: further model names, with what they accept; names alone accept nearly everything.
        handler: called with each valid request, in the server's thread; what it returns is done, None means the
            script (`reply`, `fail`) or the default.
        strict: refuse what the real API refuses; False takes any request to any model.
        ollama_models: what `/api/tags` lists (these names are served too); None: no Ollama here, 404.
        ollama_version: what `/api/version` says.
        ollama_loaded: what `/api/ps` lists.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        models: Iterable[str] | Mapping[str, ModelRules] = (),
        handler: Handler | None = None,
        strict: bool = True,
        ollama_models: Iterable[str] | None = None,
        ollama_version: str = "0.14.2",
        ollama_loaded: Iterable[str] = (),
    ) -> None:
        self.api_key = api_key
        self.models = dict(CLAUDE_MODELS)
        self.models.update(models if isinstance(models, Mapping) else dict.fromkeys(models, LENIENT))
        self.handler = handler
        self.strict = strict
        self.ollama_models = None if ollama_models is None else tuple(ollama_models)
        self.models.update(dict.fromkeys(self.ollama_models or (), LENIENT))
        self.ollama_version = ollama_version
        self.ollama_loaded = tuple(ollama_loaded)
        self.requests: list[RecordedRequest] = []
        self.connections = 0  # accepted so far
        self.batches = StandInBatches()
        self._script: deque[StandInReply | Fault] = deque()
        self._always: StandInReply | Fault | None = None
        self._lock = threading.Lock()
        self._port = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the script ------------------------------------------------------------------------------------------

    def reply(
        self,
        reply: str | StandInReply,
        *,
        times: int | None = 1,
        usage: Mapping[str, Json] | None = None,
        thinking: str | None = None,
    ) -> None:
        """Answer the next request(s) with this; `times=None` every one that nothing else is queued for."""
        if isinstance(reply, str):
            reply = StandInReply.of_text(reply, usage=usage, thinking=thinking)
        self._queue(reply, times)

    def reply_json(self, value: Json, *, times: int | None = 1, usage: Mapping[str, Json] | None = None) -> None:
        """Answer the next request(s) with this value as JSON text."""
        self._queue(StandInReply.of_json(value, usage=usage), times)

    def reply_tool(
        self, name: str, arguments: JsonObject, *, times: int | None = 1, usage: Mapping[str, Json] | None = None
    ) -> None:
        """Answer the next request(s) with a tool call."""
        self._queue(StandInReply.of_tool(name, arguments, usage=usage), times)

    def fail(self, fault: Fault, *, times: int | None = 1) -> None:
        """Do this to the next request(s); `times=None` to every one that nothing else is queued for."""
        self._queue(fault, times)

    def clear(self) -> None:
        """Forget the script and the recorded requests."""
        with self._lock:
            self._script.clear()
            self._always = None
            self.requests.clear()

    def _queue(self, item: StandInReply | Fault, times: int | None) -> None:
        with self._lock:
            if times is None:
                self._always = item
            else:
                self._script.extend([item] * times)

    def _next(self, request: RecordedRequest) -> StandInReply | Fault | None:
        if self.handler is not None:
            chosen = self.handler(request)
            if chosen is not None:
                return chosen
        with self._lock:
            return self._script.popleft() if self._script else self._always

    # -- its life --------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL, without a path: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._port}"

    def calls(self, path: str = "/v1/messages") -> list[RecordedRequest]:
        """The recorded requests to one path."""
        return [request for request in list(self.requests) if request.path == path]

    def start(self) -> Self:
        """Listen. Only needed where it is not used as a context manager."""
        ready = threading.Event()
        problem: list[BaseException] = []

        def serve() -> None:
            try:
                asyncio.run(self._serve(ready))
            except BaseException as error:  # noqa: BLE001 - it must reach the thread that waits for `ready`
                problem.append(error)
                ready.set()

        self._thread = threading.Thread(target=serve, name="tierwise-stand-in", daemon=True)
        self._thread.start()
        ready.wait()
        if problem:
            raise problem[0]
        return self

    def stop(self) -> None:
        """Close every connection and the server, and wait for its thread."""
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None or loop is None or stop is None:
            return
        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, backlog=1024)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        self.connections += 1
        connection = _Connection(reader, writer)
        try:
            while True:
                request = await self._read(connection)
                if request is None or not await self._answer(connection, request):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # the client went away, or does not speak HTTP: nothing to answer
        except asyncio.CancelledError:
            pass  # stopping; asyncio's own callback would print a traceback for it
        finally:
            connection.close()
            if task is not None:
                self._tasks.discard(task)

    # -- one request -----------------------------------------------------------------------------------------

    async def _read(self, connection: _Connection) -> RecordedRequest | None:
        start = await connection.line()
        if not start:
            return None
        method, target, _ = start.split(" ", 2)
        headers: dict[str, str] = {}
        while line := await connection.line():
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await connection.exactly(int(headers.get("content-length", "0")))
        if "chunked" in headers.get("transfer-encoding", ""):
            body = await connection.chunks()
        try:
            parsed: Json = json.loads(body) if body else None
        except ValueError:
            parsed = None
        url = urlsplit(target)
        with self._lock:
            request_id = f"req_standin_{len(self.requests) + 1:06d}"
            request = RecordedRequest(method, url.path, url.query, headers, body, parsed, request_id)
            self.requests.append(request)
        return request

    async def _answer(self, connection: _Connection, request: RecordedRequest) -> bool:
        """Answer while watching for the client to hang up. Returns whether the connection can be used again."""
        answering = asyncio.ensure_future(self._respond(connection, request))
        watching = asyncio.ensure_future(connection.hung_up())
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and watching.done() and watching.result():
                request.closed_early = True
                return False
            return await answering
        except ConnectionError:
            request.closed_early = True
            return False
        finally:
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)
            request._finished.set()

    async def _respond(self, connection: _Connection, request: RecordedRequest) -> bool:
        answer = _Answer(connection, request)
        match (request.method, request.path):
            case ("POST", "/v1/messages" | "/v1/chat/completions" as path):
                return await self._generate(answer, request, openai=path != "/v1/messages")
            case ("POST", "/v1/messages/count_tokens"):
                refused = self._refused(request, counting=True)
                return await (answer.error(*refused) if refused else answer.json(_count(request.json)))
            case (_, path) if path.startswith("/v1/messages/batches"):
                return await self._batch(answer, request)
            case ("GET", "/v1/models"):
                return await answer.json(_models_page(list(self.models), request.query))
            case ("GET", path) if path.removeprefix("/v1/models/") in self.models:
                return await answer.json(_model(path.removeprefix("/v1/models/")))
            case ("GET", "/api/version") if self.ollama_models is not None:
                return await answer.json({"version": self.ollama_version})
            case ("GET", "/api/tags") if self.ollama_models is not None:
                return await answer.json({"models": _ollama_list(self.ollama_models)})
            case ("GET", "/api/ps") if self.ollama_models is not None:
                return await answer.json({"models": _ollama_list(self.ollama_loaded)})
            case ("GET" | "HEAD", "/" | "/health" | "/api/hello"):
                return await answer.json({"status": "ok"})
            case _:
                return await answer.error(404, "not_found_error", f"{request.method} {request.path}: not found")

    async def _batch(self, answer: _Answer, request: RecordedRequest) -> bool:
        """A request about batches. Made at once, each request of a batch is answered when the batch ends."""
        if self._unknown(request):
            return await answer.error(*_UNKNOWN)

        def perform(params: JsonObject) -> JsonObject:
            body = json.dumps(params).encode()
            one = RecordedRequest("POST", "/v1/messages", "", request.headers, body, params, request.request_id)
            refused = self._refused(one)
            chosen = None if refused else self._next(one)
            fault = chosen if isinstance(chosen, Fault) else None
            if fault is not None and fault.kind is FaultKind.STATUS:
                refused = fault.code, fault.error_type, fault.message
            if refused:
                error: JsonObject = {"type": "error", "error": {"type": refused[1], "message": refused[2]}}
                return {"type": "errored", "error": {**error, "request_id": request.request_id}}
            reply = chosen.reply if isinstance(chosen, Fault) else chosen
            message = anthropic_message(_spoiled(reply or default_reply(params), fault), params, len(self.requests))
            usage = message.get("usage")
            told: JsonObject = {**(usage if isinstance(usage, dict) else {}), "service_tier": "batch"}
            return {"type": "succeeded", "message": {**message, "usage": told}}

        try:
            if (request.method, request.path) == ("POST", "/v1/messages/batches"):
                made, fault = self.batches.create(request.json, self.url), self.batches.fault
                if fault is None:
                    return await answer.json(made)
                self.batches.fault = None
                if fault.kind is FaultKind.STATUS:
                    self.batches.forget_last()
                    return await answer.error(fault.code, fault.error_type, fault.message)
                return await answer.whole(made, fault)  # it is made, and perhaps nobody hears of it
            query = dict(parse_qsl(request.query))
            found = self.batches.answer(request.method, request.path, query, self.url, perform)
        except BatchError as refused:
            return await answer.error(refused.code, refused.kind, str(refused))
        if not isinstance(found, str):
            return await answer.json(found)
        return await answer.lines(found.encode(), self.batches.cut_after)

    def _unknown(self, request: RecordedRequest) -> bool:
        """Whether somebody asks who has no key."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.api_key is not None and self.api_key not in (request.headers.get("x-api-key"), bearer)

    def _refused(self, request: RecordedRequest, *, counting: bool = False) -> tuple[int, str, str] | None:
        if self._unknown(request):
            return _UNKNOWN
        body = request.json
        if not isinstance(body, dict):
            return 400, "invalid_request_error", "The request body is not valid JSON"
        if not self.strict:
            return None
        model = body.get("model")
        rules = self.models.get(model) if isinstance(model, str) else None
        if rules is None:
            return 404, "not_found_error", f"model: {model}"
        if request.path == "/v1/messages" and "anthropic-version" not in request.headers:
            return 400, "invalid_request_error", "anthropic-version: header is required"
        if request.path == "/v1/chat/completions":
            return (
                None if isinstance(body.get("messages"), list) else (400, "invalid_request_error", "messages: required")
            )
        checked: JsonObject = {"max_tokens": 1, **body} if counting else body
        complaint = next(violations(checked, rules), None)
        return (400, "invalid_request_error", complaint) if complaint else None

    async def _generate(self, answer: _Answer, request: RecordedRequest, *, openai: bool) -> bool:
        refused = self._refused(request)
        if refused:
            return await answer.error(*refused)
        body = request.json if isinstance(request.json, dict) else {}
        chosen = self._next(request)
        fault = chosen if isinstance(chosen, Fault) else None
        reply = chosen.reply if isinstance(chosen, Fault) else chosen
        reply = _spoiled(reply or default_reply(body), fault)
        number = len(self.requests)
        answer.headers.update(_RATE_LIMITS)
        answer.headers.update(reply.headers)
        if fault is not None:
            if fault.kind is FaultKind.STATUS:
                answer.headers.update(fault.headers)
                if fault.body is not None:
                    return await answer.raw(fault.body, code=fault.code, kind="text/html")
                return await answer.error(fault.code, fault.error_type, fault.message)
            if fault.kind is FaultKind.DELAY:
                await asyncio.sleep(fault.seconds)
        if not body.get("stream"):
            render = openai_completion if openai else anthropic_message
            return await answer.whole(render(reply, body, number), fault)
        events = openai_chunks(reply, body, number) if openai else anthropic_events(reply, body, number)
        return await answer.stream(events, fault, openai=openai)


def _spoiled(reply: StandInReply, fault: Fault | None) -> StandInReply:
    match fault.kind if fault else None:
        case FaultKind.TRUNCATED:
            return reply.halved()
        case FaultKind.REFUSAL:
            return StandInReply(content=({"type": "text", "text": "I can't help with that."},), stop_reason="refusal")
        case FaultKind.EMPTY:
            return StandInReply(content=())
        case _:
            return reply


def _count(body: Json) -> JsonObject:
    return {"input_tokens": request_tokens(body)}


def _model(name: str) -> JsonObject:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-11-22T00:00:00Z"}


def _models_page(names: list[str], query: str) -> JsonObject:
    """Anthropic's pages: `limit` models after or before one; 20 where it is not said."""
    asked = dict(parse_qsl(query))
    limit = max(1, int(asked.get("limit", "20")))
    after, before = asked.get("after_id"), asked.get("before_id")
    if before in names:
        rest = names[: names.index(before)]
        page = rest[-limit:]
    else:
        rest = names[names.index(after) + 1 :] if after in names else names
        page = rest[:limit]
    return {
        "data": [_model(name) for name in page],
        "has_more": len(rest) > len(page),
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
        "object": "list",
    }


def _ollama_list(names: Iterable[str]) -> list[Json]:
    return [
        {"name": name, "model": name, "size": 2_000_000_000, "details": {"format": "gguf", "family": "stand-in"}}
        for name in names
    ]


class _Connection:
    """Reads with one byte of look-ahead, so that a hang-up can be seen while an answer is written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._ahead = b""

    async def line(self) -> str:
        ahead, self._ahead = self._ahead, b""
        return (ahead + await self._reader.readline()).decode("latin-1").strip()

    async def exactly(self, count: int) -> bytes:
        return await self._reader.readexactly(count) if count else b""

    async def chunks(self) -> bytes:
        parts = []
        while size := int((await self.line()).partition(";")[0] or "0", 16):
            parts.append(await self.exactly(size))
            await self.line()
        await self.line()
        return b"".join(parts)

    async def hung_up(self) -> bool:
        if not self._ahead:
            self._ahead = await self._reader.read(1)
        return not self._ahead

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        if sock is not None:  # zero linger: closing sends RST instead of FIN
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


class _Answer:
    """Writes one response; each method returns whether the connection can be used again."""

    def __init__(self, connection: _Connection, request: RecordedRequest) -> None:
        self._connection = connection
        self._request = request
        self.headers: dict[str, str] = {"request-id": request.request_id}

    def _head(self, code: int, **headers: str) -> bytes:
        lines = [f"HTTP/1.1 {code} {_REASONS.get(code, 'Status')}"]
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lines += [f"{name}: {value}" for name, value in {**self.headers, **named}.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def raw(self, body: bytes, *, code: int = 200, kind: str = "application/json") -> bool:
        kind = self.headers.pop("content-type", kind)
        head = self._head(code, content_type=kind, content_length=str(len(body)))
        await self._connection.write(head + (b"" if self._request.method == "HEAD" else body))
        return True

    async def json(self, value: Json, *, code: int = 200) -> bool:
        return await self.raw(json.dumps(value).encode(), code=code)

    async def error(self, code: int, kind: str, message: str) -> bool:
        body: JsonObject = {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": self._request.request_id,
        }
        return await self.json(body, code=code)

    async def whole(self, message: JsonObject, fault: Fault | None) -> bool:
        body = json.dumps(message).encode()
        head = self._head(200, content_type="application/json", content_length=str(len(body)))
        match fault.kind if fault else None:
            case FaultKind.STALL | FaultKind.RESET | FaultKind.CUT if fault:
                sent = head + body[: len(body) // 2] if fault.after_events else b""
                await self._connection.write(sent)
                if await self._dies(fault):
                    return False
                await self._connection.write((head + body)[len(sent) :])
                return True
            case FaultKind.ERROR_EVENT if fault:
                return await self.error(fault.code, fault.error_type, fault.message)
            case FaultKind.MALFORMED_JSON:
                return await self.raw(body[: len(body) // 2])
            case FaultKind.MALFORMED_SSE:
                return await self.raw(_HTML, kind="text/html")
            case FaultKind.LIE_ABOUT_LENGTH:
                head = self._head(200, content_type="application/json", content_length=str(len(body) + 100))
                await self._connection.write(head + body)
                return False
            case FaultKind.TRICKLE if fault:
                await self._connection.write(
                    self._head(200, content_type="application/json", transfer_encoding="chunked")
                )
                return await self._trickle(body, fault)
            case _:
                return await self.raw(body)

    async def lines(self, body: bytes, cut_after: int | None) -> bool:
        """Results of a batch, in two pieces that do not end with lines; cut off after so many."""
        await self._connection.write(self._head(200, content_type="application/x-jsonl", transfer_encoding="chunked"))
        if cut_after is not None:
            await self._chunk(b"".join(body.splitlines(keepends=True)[:cut_after]) or b"\n")
            return False
        half = len(body) // 2
        for piece in filter(None, (body[:half], body[half:])):
            await self._chunk(piece)
        return await self._end()

    async def stream(self, events: Iterator[JsonObject], fault: Fault | None, *, openai: bool) -> bool:
        if fault and fault.kind is FaultKind.LIE_ABOUT_LENGTH:
            body = b"".join(_framed(event, openai) for event in events)
            head = self._head(200, content_type="text/event-stream", content_length=str(len(body) + 100))
            await self._connection.write(head + body)
            return False
        mid_stream = fault and fault.kind in (FaultKind.STALL, FaultKind.RESET, FaultKind.CUT)
        if fault and mid_stream and not fault.after_events and not fault.clean and await self._dies(fault):
            return False
        kind = "text/event-stream; charset=utf-8"
        await self._connection.write(self._head(200, content_type=kind, transfer_encoding="chunked"))
        match fault.kind if fault else None:
            case FaultKind.MALFORMED_SSE:
                await self._chunk(_HTML)
                return await self._end()
            case FaultKind.TRICKLE if fault:
                body = b"".join(_framed(event, openai) for event in events) + (b"data: [DONE]\n\n" if openai else b"")
                return await self._trickle(body, fault)
        for sent, event in enumerate(events):
            if fault and sent == fault.after_events:
                if mid_stream and await self._dies(fault):
                    return False
                if fault.kind is FaultKind.ERROR_EVENT:
                    error: JsonObject = {"type": fault.error_type, "message": fault.message}
                    await self._chunk(
                        _framed({"error": error} if openai else {"type": "error", "error": error}, openai)
                    )
                    return await self._end()
                if fault.kind is FaultKind.MALFORMED_JSON:
                    await self._chunk(b'event: content_block_delta\ndata: {"type": "content_block_delta", "ind\n\n')
                    return await self._end()
            await self._chunk(_framed(event, openai))
        if fault and mid_stream and await self._dies(fault):  # after more events than there are
            return False
        if openai:
            await self._chunk(b"data: [DONE]\n\n")
        return await self._end()

    async def _dies(self, fault: Fault) -> bool:
        """What ends an answer in its middle, and whether it does: a silence may be over."""
        match fault.kind:
            case FaultKind.STALL if fault.until is not None:
                while not fault.until.is_set():  # noqa: ASYNC110 - another thread sets it, and none of ours may wait
                    await asyncio.sleep(0.005)
                return False
            case FaultKind.STALL:
                await asyncio.Event().wait()
            case FaultKind.RESET:
                await asyncio.sleep(0.01)  # let what was written arrive: a reset throws away what was not sent
                self._connection.reset()
            case FaultKind.CUT if fault.clean:
                await self._end()
        return True

    async def _trickle(self, body: bytes, fault: Fault) -> bool:
        for start in range(0, len(body), fault.piece_bytes):
            await self._chunk(body[start : start + fault.piece_bytes])
            await asyncio.sleep(fault.seconds)
        return await self._end()

    async def _chunk(self, data: bytes) -> None:
        await self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def _end(self) -> bool:
        await self._connection.write(b"0\r\n\r\n")
        return True


def _framed(event: JsonObject, openai: bool) -> bytes:
    data = json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return b"data: %b\n\n" % data if openai else b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), data)
