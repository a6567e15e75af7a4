"""Faults that a stand-in upstream can be told to have: everything that real ones were seen to do."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tierwise.testing.replies import StandInReply

__all__ = ["Fault", "FaultKind"]


class FaultKind(Enum):
    """What goes wrong."""

    STATUS = "status"
    DELAY = "delay"
    STALL = "stall"
    RESET = "reset"
    CUT = "cut"
    MALFORMED_JSON = "malformed_json"
    MALFORMED_SSE = "malformed_sse"
    TRUNCATED = "truncated"
    REFUSAL = "refusal"
    ERROR_EVENT = "error_event"
    EMPTY = "empty"
    TRICKLE = "trickle"
    LIE_ABOUT_LENGTH = "lie_about_length"


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request. Build it with the class methods.

    `after_events` counts stream events that are sent before it happens; in a reply that is not streamed, 0 means
    before the headers and more means in the middle of the body. `reply` is what is (partly) sent; the stand-in's
    default where None.
    """

    kind: FaultKind
    code: int = 200
    error_type: str = "api_error"
    message: str = ""
    seconds: float = 0.0
    after_events: int = 0
    piece_bytes: int = 1
    clean: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    until: threading.Event | None = None
    reply: StandInReply | None = None

    @classmethod
    def status(
        cls,
        code: int,
        message: str = "",
        *,
        error_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Fault:
        """An HTTP error in the API's shape; `body` sends these bytes instead (a proxy's HTML page, say)."""
        kind = error_type or _ERROR_TYPES.get(code, "api_error")
        return cls(
            kind=FaultKind.STATUS,
            code=code,
            error_type=kind,
            message=message or f"stand-in fault: {kind}",
            headers=headers or {},
            body=body,
        )

    @classmethod
    def rate_limited(cls, *, retry_after: float | str | None = 1) -> Fault:
        """429. `retry_after` in seconds, or the header's text as it is (an HTTP date); None sends no header."""
        headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        return cls.status(429, "Number of requests has exceeded your rate limit", headers=headers)

    @classmethod
    def delay(cls, seconds: float, *, reply: StandInReply | None = None) -> Fault:
        """A good reply, but nothing of it before `seconds` have passed."""
        return cls(kind=FaultKind.DELAY, seconds=seconds, reply=reply)

    @classmethod
    def stall(
        cls, *, after_events: int = 0, until: threading.Event | None = None, reply: StandInReply | None = None
    ) -> Fault:
        """Then silence; the connection stays open until the client or the stand-in closes it.

        With `until` the rest of the reply comes once that event is set: a test says how long an answer takes, no clock.
        """
        return cls(kind=FaultKind.STALL, after_events=after_events, until=until, reply=reply)

    @classmethod
    def reset(cls, *, after_events: int = 0, reply: StandInReply | None = None) -> Fault:
        """The connection is reset (TCP RST)."""
        return cls(kind=FaultKind.RESET, after_events=after_events, reply=reply)

    @classmethod
    def cut(cls, *, after_events: int = 0, clean: bool = False, reply: StandInReply | None = None) -> Fault:
        """The stream ends without message_stop. `clean`: as if HTTP had ended well, as some proxies do."""
        return cls(kind=FaultKind.CUT, after_events=after_events, clean=clean, reply=reply)

    @classmethod
    def malformed_json(cls, *, after_events: int = 2) -> Fault:
        """200 with a body that is not JSON; in a stream, one event whose data is not JSON."""
        return cls(kind=FaultKind.MALFORMED_JSON, after_events=after_events)

    @classmethod
    def malformed_sse(cls) -> Fault:
        """200 with a body that is no event stream at all (an HTML page); the same where not streamed."""
        return cls(kind=FaultKind.MALFORMED_SSE)

    @classmethod
    def truncated(cls, *, reply: StandInReply | None = None) -> Fault:
        """The first half of the reply, with stop_reason max_tokens."""
        return cls(kind=FaultKind.TRUNCATED, reply=reply)

    @classmethod
    def refusal(cls) -> Fault:
        """A reply with stop_reason refusal."""
        return cls(kind=FaultKind.REFUSAL)

    @classmethod
    def error_event(cls, error_type: str = "overloaded_error", *, after_events: int = 2, message: str = "") -> Fault:
        """An `error` event in mid-stream; where not streamed, the HTTP error of that type."""
        return cls(
            kind=FaultKind.ERROR_EVENT,
            error_type=error_type,
            after_events=after_events,
            message=message or f"stand-in fault: {error_type}",
            code=next((code for code, name in _ERROR_TYPES.items() if name == error_type and code != 503), 500),
        )

    @classmethod
    def empty(cls) -> Fault:
        """A message without content."""
        return cls(kind=FaultKind.EMPTY)

    @classmethod
    def trickle(cls, piece_bytes: int = 1, seconds: float = 0.0, *, reply: StandInReply | None = None) -> Fault:
        """A good reply in pieces of `piece_bytes`, `seconds` apart, each its own HTTP chunk."""
        return cls(kind=FaultKind.TRICKLE, piece_bytes=piece_bytes, seconds=seconds, reply=reply)

    @classmethod
    def lie_about_length(cls, *, reply: StandInReply | None = None) -> Fault:
        """A content-length longer than the body, then the connection closes."""
        return cls(kind=FaultKind.LIE_ABOUT_LENGTH, reply=reply)
