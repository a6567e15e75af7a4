"""What the HTTP providers share: one connection pool, time limits, and what a failure means.

Theory of operation. `Upstream.post` makes one request and hands the response to a reader; three limits watch over it
through a single `asyncio.timeout` that is moved as the answer proceeds: the attempt's total, the wait for the
model's first token (pings do not count), then the pause between two pieces. httpx's own read timeout is off, since
it knows none of these. A limit or a cancellation unwinds through httpx's context manager, which closes the
connection before the exception goes on: the upstream sees the hang-up and stops generating.

What had been used is read from the `Progress` that the reader keeps, whatever ended the attempt.

Keys never appear in a message: everything that is quoted goes through `Upstream.scrub`, and exceptions of the HTTP
library, which may quote headers, are not chained.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import ConfigError
from tierwise.core.headers import retry_after_seconds
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage
from tierwise.core.settings import ProviderSettings
from tierwise.providers.base import ProviderFailure, note_spent

if TYPE_CHECKING:
    import httpx2

__all__ = ["Deadline", "Progress", "Upstream", "error_body", "failure_kind", "is_loopback", "scrub"]

QUOTED_CHARS = 300
# A reply that is not streamed has no first token to wait for; this bounds it where the caller sets no limit.
WHOLE_REPLY_SECONDS = 600.0
_MAX_REPLY_BYTES = 64 * 1024 * 1024
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{8,}|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")
_TOO_LONG = re.compile(
    r"prompt is too long|exceeds? the (?:available |maximum )?context|context[_ ]length|context window|"
    r"maximum context length|input length and `?max_tokens",
    re.IGNORECASE,
)


@dataclass
class Progress:
    """What is known of an attempt while it runs."""

    started: float = field(default_factory=time.monotonic)
    first_token_at: float | None = None
    request_id: str | None = None
    usage: Callable[[], Usage | None] = lambda: None  # what was used so far, whenever it is asked

    def first_token(self) -> None:
        """Note the time of the first token, once."""
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()

    @property
    def ttft_ms(self) -> int | None:
        """Milliseconds to the first token; None before it."""
        return None if self.first_token_at is None else round((self.first_token_at - self.started) * 1000)

    def failure(self, kind: OutcomeKind, words: str, *, note: str | None = None) -> ProviderFailure:
        """How the attempt ended badly, with what it had used by then."""
        return ProviderFailure(
            kind, words, usage=self.usage(), request_id=self.request_id, ttft_ms=self.ttft_ms, note=note
        )

    @property
    def latency_ms(self) -> int:
        """Milliseconds since the attempt began."""
        return round((time.monotonic() - self.started) * 1000)


class Deadline:
    """The limit that applies right now, as one `asyncio.Timeout` that is moved along.

    Enter `timeout`, then call `enter`. `why` says which limit is the next one to strike.
    """

    def __init__(self, total_seconds: float | None, first_token_seconds: float, idle_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = idle_seconds
        self._total_at = None if total_seconds is None else self._loop.time() + total_seconds
        self._total_words = "" if total_seconds is None else f"no complete answer within {total_seconds:g} s"
        self.timeout = asyncio.timeout_at(None)
        self._at, self.why = self._nearest(first_token_seconds, f"no first token within {first_token_seconds:g} s")

    @classmethod
    def of(cls, settings: ProviderSettings, total_seconds: float | None, *, streamed: bool) -> Deadline:
        """The limits of one attempt: a stream has three, a whole reply only its total."""
        if streamed:
            return cls(total_seconds, settings.first_token_timeout_seconds, settings.idle_timeout_seconds)
        total = WHOLE_REPLY_SECONDS if total_seconds is None else total_seconds
        return cls(total, total, total)

    def enter(self) -> None:
        """Start watching; call it inside `async with deadline.timeout`."""
        self.timeout.reschedule(self._at)

    def piece_arrived(self) -> None:
        """The answer has begun and goes on: from here the pause between two pieces is what counts."""
        self._at, self.why = self._nearest(self._idle, f"the answer stopped for {self._idle:g} s")
        self.timeout.reschedule(self._at)

    def _nearest(self, seconds: float, words: str) -> tuple[float, str]:
        at = self._loop.time() + seconds
        if self._total_at is not None and self._total_at <= at:
            return self._total_at, self._total_words
        return at, words


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def scrub(text: str, secrets: Iterable[str], limit: int = QUOTED_CHARS) -> str:
    """A foreign text made fit to quote: no keys, one line, at most `limit` characters."""
    for secret in secrets:
        text = text.replace(secret, "[key]")
    text = _UNPRINTABLE.sub(" ", _KEY_LIKE.sub("[key]", text)).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Upstream:
    """One server that a provider sends to: its address, credentials and connection pool.

    The pool is opened at the first request, one per event loop (a synchronous façade may run several in turn).
    """

    def __init__(
        self, settings: ProviderSettings, *, default_base_url: str, auth: str | None = None, keep_alive: bool = True
    ) -> None:
        base_url = (settings.base_url or default_base_url).rstrip("/")
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"providers.{settings.name}.base_url is {base_url!r}; use a full address such as {default_base_url}"
            )
        self.settings = settings
        self.base_url = base_url
        self._keep_alive = keep_alive
        self._auth = auth or settings.auth
        self._secrets = tuple({s for s in (settings.api_key, (settings.api_key or "").strip()) if s})
        self._key = (settings.api_key or "").strip()
        self._problem = _key_problem(settings, self._key) or _header_problem(settings)
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def problem(self) -> str:
        """Why nothing can be sent (no key, a key that no header can carry), or ""."""
        return self._problem

    def auth_headers(self) -> dict[str, str]:
        """The headers that carry the credentials and the configured extras."""
        headers = dict(self.settings.headers)
        if self._key:
            if self._auth == "bearer":
                headers["authorization"] = f"Bearer {self._key}"
            else:
                headers["x-api-key"] = self._key
        return headers

    def scrub(self, text: str, limit: int = QUOTED_CHARS) -> str:
        """A foreign text made fit to quote: no keys, one line, at most `limit` characters."""
        return scrub(text, self._secrets, limit)

    def client(self) -> httpx2.AsyncClient:
        """The pool of the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._open()
        return client

    def _open(self) -> httpx2.AsyncClient:
        import httpx2  # noqa: PLC0415 - 60 ms; paid by the first request, not by every import

        secure = self.base_url.startswith("https:")
        return httpx2.AsyncClient(
            # A proxy from the environment is honoured, but what runs on this machine is never sent through one.
            trust_env=not is_loopback(self.base_url),
            # Without TLS the system's certificates are not needed; loading them takes 20 ms.
            verify=True if secure else _no_certificates(),
            # A redirect would carry the key to another host: it is reported, not followed.
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=self.settings.connect_timeout_seconds),
            # Local servers close idle connections early (llama.cpp's after five seconds), and a request that meets a
            # closing one is lost.
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=64 if self._keep_alive else 0,
                keepalive_expiry=2.0 if is_loopback(self.base_url) else 30.0,
            ),
        )

    async def aclose(self) -> None:
        """Close the pools. Those of loops that have ended died with them."""
        clients = list(self._clients.items())
        self._clients.clear()
        here = asyncio.get_running_loop()
        for loop, client in clients:
            if loop is here:
                await client.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(client.aclose(), loop)

    async def get_json(self, path: str, *, timeout_seconds: float) -> Json:
        """A small status query.

        Raises:
            ProviderFailure: not reachable, too slow, an error status, or no JSON.
        """
        if self._problem:
            raise ProviderFailure(OutcomeKind.UNAUTHORIZED, self._problem)
        client = self.client()  # the first of a process loads the HTTP library, which is none of the server's time
        progress = Progress()
        async with self.attempt(progress, Deadline(timeout_seconds, timeout_seconds, timeout_seconds)):
            response = await client.get(self.base_url + path, headers=self.auth_headers())
            if response.status_code != 200:
                raise self.status_failure(response.status_code, response.headers, response.content, progress)
            return self.parse(response.content, progress)

    async def post(
        self,
        path: str,
        body: JsonObject,
        headers: Mapping[str, str],
        *,
        progress: Progress,
        deadline: Deadline,
        read: Callable[[httpx2.Response], Awaitable[None]],
    ) -> None:
        """Send `body` and let `read` consume the response, within `deadline`.

        Raises:
            ProviderFailure: whatever went wrong, with what had been used.
        """
        if self._problem:
            raise ProviderFailure(OutcomeKind.UNAUTHORIZED, self._problem)
        # Surrogates that no UTF-8 can carry become `?` at the edge: one bad character must not lose the call.
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        async with (
            self.attempt(progress, deadline),
            self.client().stream(
                "POST",
                self.base_url + path,
                content=data,
                headers={"content-type": "application/json", **self.auth_headers(), **headers},
            ) as response,
        ):
            progress.request_id = response.headers.get("request-id") or response.headers.get("x-request-id")
            if response.status_code != 200:
                content = await _read_limited(response, 64 * 1024)
                raise self.status_failure(response.status_code, response.headers, content, progress)
            await read(response)

    @asynccontextmanager
    async def attempt(self, progress: Progress, deadline: Deadline) -> AsyncIterator[None]:
        """Turns whatever ends an attempt badly into a `ProviderFailure` that knows what was used."""
        import httpx2  # noqa: PLC0415 - see `_open`

        where = self.scrub(f"{self.settings.name} at {self.base_url}")
        try:
            async with deadline.timeout:
                deadline.enter()
                yield
        except asyncio.CancelledError as cancelled:
            note_spent(cancelled, progress.usage())
            raise
        except TimeoutError:
            raise progress.failure(OutcomeKind.TIMEOUT, f"{where}: {deadline.why}") from None
        except httpx2.ConnectTimeout:
            seconds = self.settings.connect_timeout_seconds
            raise progress.failure(OutcomeKind.CONNECTION, f"{where}: no connection within {seconds:g} s") from None
        except httpx2.TimeoutException as error:
            raise progress.failure(OutcomeKind.TIMEOUT, f"{where}: {self.scrub(_words(error))}") from None
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL) as error:
            words = f"{where}: the request cannot be sent: {self.scrub(_words(error))}"
            raise progress.failure(OutcomeKind.INVALID_REQUEST, words) from None
        except httpx2.DecodingError as error:
            raise progress.failure(
                OutcomeKind.SERVER_ERROR, f"{where}: unreadable: {self.scrub(_words(error))}"
            ) from None
        except httpx2.ConnectError as error:
            raise progress.failure(
                OutcomeKind.CONNECTION, f"{where}: cannot connect: {self.scrub(_words(error))}"
            ) from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            words = f"{where}: the connection broke: {self.scrub(_words(error))}"
            raise progress.failure(OutcomeKind.CONNECTION, words) from None

    def status_failure(
        self, status: int, headers: Mapping[str, str], content: bytes, progress: Progress
    ) -> ProviderFailure:
        """What an HTTP status other than 200 means."""
        error_type, message = error_body(content)
        kind = failure_kind(status, error_type, message)
        words = f"{self.settings.name} answered {status}"
        if 300 <= status < 400:
            target = urlsplit(headers.get("location", ""))
            message = f"a redirect to {target.hostname or 'nowhere'}; set base_url to the final address"
        note = f"{words}{_named(error_type)}"
        if message:
            words = f"{words}: {self.scrub(message)}"
        wait = retry_after_seconds(headers, now=datetime.now(UTC))
        return ProviderFailure(
            kind, words, retry_after_seconds=wait, status=status, request_id=progress.request_id, note=note
        )

    def event_failure(self, error_type: str, message: str, progress: Progress) -> ProviderFailure:
        """What an error event in mid-stream means: the status is 200 by then, so its type decides."""
        words = f"{self.settings.name} broke off with {self.scrub(error_type)}: {self.scrub(message)}"
        note = f"{self.settings.name} broke off{_named(error_type)}"
        return progress.failure(failure_kind(200, error_type, message), words, note=note)

    def garbled(self, words: str, progress: Progress) -> ProviderFailure:
        """An answer that is not the protocol."""
        note = f"{self.settings.name} sent an answer that is not the protocol"
        return progress.failure(OutcomeKind.SERVER_ERROR, f"{note}: {self.scrub(words)}", note=note)

    def cut(self, words: str, progress: Progress) -> ProviderFailure:
        """A stream that ended before its end."""
        return progress.failure(OutcomeKind.CONNECTION, f"{self.settings.name} at {self.scrub(self.base_url)}: {words}")

    def parse(self, content: bytes | str, progress: Progress) -> Json:
        """JSON, or the failure that says it is none."""
        try:
            parsed: Json = json.loads(content)
        except (ValueError, RecursionError):
            shown = content if isinstance(content, str) else content[: 4 * QUOTED_CHARS].decode("utf-8", "replace")
            raise self.garbled(f"no JSON: {self.scrub(shown, 120)}", progress) from None
        return parsed

    async def read_all(self, response: httpx2.Response, progress: Progress) -> bytes:
        """A whole reply, within reason."""
        content = await _read_limited(response, _MAX_REPLY_BYTES + 1)
        if len(content) > _MAX_REPLY_BYTES:
            raise self.garbled(f"a reply longer than {_MAX_REPLY_BYTES} bytes", progress)
        return content


def _key_problem(settings: ProviderSettings, key: str) -> str:
    variable = settings.api_key_env or "the API key"
    if settings.api_key_env is not None and not key:
        return f"providers.{settings.name} needs an API key: set {variable} in the environment"
    for position, character in enumerate(key, 1):
        if not "!" <= character <= "~":
            return (
                f"the API key of providers.{settings.name} ({variable}) has a character at position {position} that no "
                "header can carry (a space, line break or non-ASCII letter); copy the key again"
            )
    return ""


def _header_problem(settings: ProviderSettings) -> str:
    for name, value in settings.headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not re.fullmatch(r"[\t\x20-\x7e]*", value):
            return f"providers.{settings.name}.headers: {name!r} cannot be sent; use ASCII without line breaks"
    return ""


def _no_certificates() -> ssl.SSLContext:
    # Trusts nobody, so that it could not be used for TLS by accident either.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def _read_limited(response: httpx2.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size >= limit:
            break
    return b"".join(parts)[:limit]


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def error_body(content: bytes) -> tuple[str, str]:
    """An error's type and message, in Anthropic's, OpenAI's and llama.cpp's shapes; else the text as it is."""
    text = content.decode("utf-8", "replace")
    try:
        parsed: Json = json.loads(text)
    except (ValueError, RecursionError):
        return "", text
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if isinstance(error, str):
        return "", error
    if not isinstance(error, dict):
        return "", text
    kind = error.get("type")
    code = error.get("code")
    if code == "context_length_exceeded":
        kind = code
    message = error.get("message")
    return (kind if isinstance(kind, str) else ""), (message if isinstance(message, str) else text)


_BY_TYPE = {
    "authentication_error": OutcomeKind.UNAUTHORIZED,
    "permission_error": OutcomeKind.UNAUTHORIZED,
    "billing_error": OutcomeKind.UNAUTHORIZED,
    "not_found_error": OutcomeKind.UNAVAILABLE,
    "request_too_large": OutcomeKind.TOO_LARGE,
    "exceed_context_size_error": OutcomeKind.TOO_LARGE,
    "context_length_exceeded": OutcomeKind.TOO_LARGE,
    "rate_limit_error": OutcomeKind.RATE_LIMITED,
    "overloaded_error": OutcomeKind.OVERLOADED,
    "timeout_error": OutcomeKind.TIMEOUT,
    "api_error": OutcomeKind.SERVER_ERROR,
    "invalid_request_error": OutcomeKind.INVALID_REQUEST,
}


def failure_kind(status: int, error_type: str = "", message: str = "") -> OutcomeKind:
    """What an HTTP status, with the error's type and message, means for the climb.

    In mid-stream the status is 200 and the type decides; elsewhere the status does, save that 400s about length
    say only in words that another model may do.
    """
    too_large = _BY_TYPE.get(error_type) is OutcomeKind.TOO_LARGE or _TOO_LONG.search(message) is not None
    match status:
        case 400 | 422 if too_large:
            return OutcomeKind.TOO_LARGE
        case 413:
            return OutcomeKind.TOO_LARGE
        case 401 | 402 | 403:  # 402: no credit left
            return OutcomeKind.UNAUTHORIZED
        case 404 | 410:
            return OutcomeKind.UNAVAILABLE
        case 408 | 504:
            return OutcomeKind.TIMEOUT
        case 429 if error_type == "insufficient_quota":  # OpenAI's word for no credit left: waiting does not help
            return OutcomeKind.UNAUTHORIZED
        case 429:
            return OutcomeKind.RATE_LIMITED
        case 503 | 529:
            return OutcomeKind.OVERLOADED
        case _ if status >= 500:
            return OutcomeKind.SERVER_ERROR
        case _ if status >= 300:
            return OutcomeKind.INVALID_REQUEST
        case _ if too_large:
            return OutcomeKind.TOO_LARGE
        case _:
            return _BY_TYPE.get(error_type, OutcomeKind.SERVER_ERROR)


def _named(error_type: str) -> str:
    """An error's type as the protocol has it, such as ` (overloaded_error)`; nothing that could be somebody's words."""
    return f" ({error_type})" if re.fullmatch(r"[a-z_]{1,40}", error_type) else ""
