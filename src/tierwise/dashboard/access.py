"""Who may ask, and how often: loopback without a login, otherwise keys; pages of other origins never.

Three things keep other pages in the same browser out. A request whose Host is no name of this machine is refused where
no key came with it: a foreign name that resolves to 127.0.0.1 would otherwise make a foreign page same-origin. What a
browser says of where a request comes from (`Sec-Fetch-Site`, `Origin`) must be here. And whatever changes something
carries a header of ours and a body in JSON, which a page of another origin cannot send without asking first; no answer
here ever allows it to. There are no cookies: nothing is sent along by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from tierwise.dashboard.refusals import Refused

__all__ = ["CHANGE_HEADER", "Header", "Headers", "Need", "Pace", "check_change", "check_origin", "is_local_name"]

Header = tuple[bytes, bytes]
Headers = Iterable[Header]
CHANGE_HEADER = b"x-tierwise-request"  # any value: that it is there is what counts

_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_FROM_HERE = frozenset({b"same-origin", b"none"})


class Need(Enum):
    """What a key must be for, where keys are demanded."""

    FIGURES = "figures"  # sums
    CALLS = "calls"  # single calls too
    CHANGES = "changes"  # feedback and budgets


def _one(headers: Headers, name: bytes) -> bytes | None:
    found = [value for key, value in headers if key == name]
    if len(found) > 1:
        raise Refused(
            400, f"the header {name.decode()} comes {len(found)} times", where="its headers", do="send it once"
        )
    return found[0] if found else None


def is_local_name(headers: Headers) -> bool:
    """Whether the request was made to a name of this machine itself."""
    host = _one(headers, b"host")
    if host is None:
        return False
    try:
        return urlsplit(f"//{host.decode('latin-1')}").hostname in _LOCAL_NAMES
    except ValueError:
        return False


def check_origin(headers: Headers) -> None:
    """Refuses what a browser says comes from another page.

    Raises:
        Refused: with what to do.
    """
    site = _one(headers, b"sec-fetch-site")
    origin = _one(headers, b"origin")
    host = _one(headers, b"host") or b""
    foreign = site is not None and site not in _FROM_HERE
    if origin is not None:
        foreign = foreign or urlsplit(origin.decode("latin-1")).netloc.lower() != host.decode("latin-1").lower()
    if foreign:
        raise Refused(
            403,
            "a page of another origin asks",
            where="its headers Origin and Sec-Fetch-Site",
            do="open /dashboard of this address, or ask from a program instead of a page",
        )


def check_change(headers: Headers) -> None:
    """Refuses a change that a page of another origin could have made a browser send.

    Raises:
        Refused: with what to do.
    """
    if _one(headers, CHANGE_HEADER) is None:
        raise Refused(
            403,
            f"a change needs the header {CHANGE_HEADER.decode()}",
            where="its headers",
            do=f"send {CHANGE_HEADER.decode()}: 1; pages of other origins cannot",
        )
    kind = (_one(headers, b"content-type") or b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refused(
            415, "the body is not said to be JSON", where="the header content-type", do="send application/json"
        )


@dataclass
class _Bucket:
    level: float
    at: float


class Pace:
    """How often one client may ask: `per_second` on average, `burst` at once.

    Args:
        per_second, burst: of each client.
        clock: monotonic seconds.
    """

    _MOST_CLIENTS = 1024

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, client: str) -> None:
        """Counts a request.

        Raises:
            Refused: too many; says when to come again.
        """
        now = self._clock()
        bucket = self._buckets.pop(client, None)
        if bucket is None:
            bucket = _Bucket(self._burst, now)
            if len(self._buckets) >= self._MOST_CLIENTS:
                self._buckets.pop(next(iter(self._buckets)))  # who has not asked for longest
        bucket.level = min(self._burst, bucket.level + (now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets[client] = bucket
        if bucket.level < 1:
            seconds = max(1, round((1 - bucket.level) / self._per_second + 0.5))
            raise Refused(
                429,
                "too many requests",
                where="this client's address",
                do=f"ask again in {seconds} s",
                headers=((b"retry-after", b"%d" % seconds),),
            )
        bucket.level -= 1
