"""The receiver over HTTP: `POST /v1/logs`, and `/v1/metrics` and `/v1/traces`, which are taken and dropped.

A part of an ASGI application: the gateway's, or the dashboard's where there is no gateway (`Beside`). Its answers are
what an exporter understands: protobuf to protobuf, `Status` for errors, `Retry-After` where it should send again. What
a request may cost is bounded: bytes as they come and unpacked, time, how many are looked at at once.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tierwise.core.errors import LedgerError
from tierwise.dashboard.access import Headers, is_local_name
from tierwise.dashboard.refusals import Refused
from tierwise.dashboard.runtime import key_in
from tierwise.dashboard.web import ClientGone, Receive, Scope, Send, body_of, send_bytes
from tierwise.ledger.keys import ApiKey
from tierwise.otlp.receiver import Answer, Receiver
from tierwise.wire.otlp import Encoding, NotOtlp, accepted, unpacked

__all__ = ["Beside", "Identify", "Receiving"]

_PATHS = frozenset({"/v1/logs", "/v1/metrics", "/v1/traces"})
_MOST_BYTES = 16 * 1024 * 1024
_MOST_UNPACKED_BYTES = 32 * 1024 * 1024
_BODY_SECONDS = 20.0
_MOST_AT_ONCE = 32  # whose bodies are in memory, or on their way
_MOST_READ = 2  # that are taken apart
_log = logging.getLogger("tierwise.otlp")

Identify = Callable[[Headers], ApiKey | None]


class Receiving:
    """Answers exporters.

    Args:
        receiver: records what they send.
        identify: the key that a request comes with; None where it has none and needs none. Raises `Refused`.
        demands_keys: whether others than this machine can reach it.
        ends: whether the process is about to.
    """

    def __init__(
        self, receiver: Receiver, identify: Identify, *, demands_keys: bool, ends: Callable[[], bool] = lambda: False
    ) -> None:
        self._receiver = receiver
        self._identify = identify
        self._demands_keys = demands_keys
        self._ends = ends
        self._running = 0
        self._reading = asyncio.Semaphore(_MOST_READ)

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path is an exporter's."""
        return path in _PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        encoding = Encoding.of(_header(scope["headers"], b"content-type"))
        told = encoding or Encoding.JSON
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            answer = await self._answered(scope, receive, encoding)
        except Refused as refused:
            again = refused.status in (429, 503)
            answer = Answer.refusing(refused.status, told, f"{refused.what}: {refused.do}", again=again)
            headers = refused.headers
        except LedgerError as error:
            _log.error("keys cannot be checked: %s", error)
            answer = Answer.refusing(503, told, "keys cannot be checked now", again=True)
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001  a fault of ours must neither hang an exporter nor show its text
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a fault in taking telemetry, %s at:\n%s", type(error).__name__, where)
            answer = Answer.refusing(500, told, f"a fault ({type(error).__name__}); the log says where")
        if answer.retry_after_seconds is not None:
            headers = (*headers, (b"retry-after", b"%d" % answer.retry_after_seconds))
        content_type = (b"content-type", answer.encoding.value.encode())
        with suppress(OSError):
            await send_bytes(send, answer.status, (content_type, *headers), answer.body)

    async def _answered(self, scope: Scope, receive: Receive, encoding: Encoding | None) -> Answer:
        key = self._let_in(scope["headers"])
        if scope["method"] != "POST":
            raise Refused(405, "exporters send with POST", where="", do="use POST", headers=((b"allow", b"POST"),))
        if encoding is None:
            raise Refused(
                415,
                "the content type is neither application/json nor application/x-protobuf",
                where="the header content-type",
                do="set OTEL_EXPORTER_OTLP_PROTOCOL to http/json or http/protobuf",
            )
        if self._ends() or self._running >= _MOST_AT_ONCE:
            status, why = (503, "it is stopping") if self._ends() else (429, "too many requests at once")
            return Answer.refusing(status, encoding, why, again=True)
        self._running += 1
        try:
            body = await body_of(receive, most_bytes=_MOST_BYTES, seconds=_BODY_SECONDS)
            packed = _header(scope["headers"], b"content-encoding").strip().lower()
            async with self._reading:
                return await asyncio.to_thread(self._taken, scope["path"], body, packed, encoding, key)
        finally:
            self._running -= 1

    def _taken(self, path: str, body: bytes, packed: str, encoding: Encoding, key: ApiKey | None) -> Answer:
        if path != "/v1/logs":
            return Answer(200, encoding, accepted(encoding))
        match packed:
            case "" | "identity":
                content: bytes | None = body
            case "gzip":
                try:
                    content = unpacked(body, most_bytes=_MOST_UNPACKED_BYTES)
                except NotOtlp as error:
                    return Answer.refusing(400, encoding, str(error))
            case _:
                return Answer.refusing(415, encoding, "the content encoding is not gzip; send gzip, or none")
        if content is None:
            why = f"the body unpacks to more than {_MOST_UNPACKED_BYTES:,} bytes; send fewer records at once"
            return Answer.refusing(413, encoding, why)
        return self._receiver.logs(content, encoding, key)

    def _let_in(self, headers: Headers) -> ApiKey | None:
        """As the dashboard lets in: by a key, or on loopback by a name of this machine, which no foreign page has."""
        if not self._demands_keys and key_in(headers) is None and not is_local_name(headers):
            raise Refused(
                403,
                "this address answers to names of this machine alone",
                where="the header host",
                do="send to http://127.0.0.1, or with a key: OTEL_EXPORTER_OTLP_HEADERS=x-api-key=tw-…",
            )
        return self._identify(headers)


class Beside:
    """An ASGI application with a receiver beside it.

    Args:
        application: answers everything else.
        receiving: answers exporters.
    """

    def __init__(self, application: Callable[[Scope, Receive, Send], Awaitable[None]], receiving: Receiving) -> None:
        self._application = application
        self._receiving = receiving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "http" and self._receiving.serves(scope["path"]):
            await self._receiving(scope, receive, send)
        else:
            await self._application(scope, receive, send)


def _header(headers: Headers, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key == name), "")
