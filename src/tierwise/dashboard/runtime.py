"""What the dashboard needs of the process that it runs in: the configuration, a router, what the gateway knows now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from tierwise.core.settings import Settings
from tierwise.dashboard.access import Headers, Need, is_local_name
from tierwise.dashboard.models import Limits
from tierwise.dashboard.refusals import Refused
from tierwise.engine.router import AsyncRouter
from tierwise.ledger import Ledger
from tierwise.ledger.keys import ApiKey, Keys, KeyScope

__all__ = ["Alone", "KeyCheck", "Runtime", "allow", "key_in"]

KeyCheck = Callable[[Headers, KeyScope], ApiKey | None]

_SCOPES = {
    Need.FIGURES: (KeyScope.METRICS,),
    Need.CALLS: (KeyScope.METRICS, KeyScope.RECEIPTS),
    Need.CHANGES: (KeyScope.METRICS, KeyScope.RECEIPTS, KeyScope.MANAGE),
}


class Runtime(Protocol):
    """The process that a dashboard is in."""

    @property
    def settings(self) -> Settings:
        """The configuration, as it is now."""

    @property
    def router(self) -> AsyncRouter:
        """What decides, as calls are decided about."""

    @property
    def stopping(self) -> bool:
        """Whether whoever listens should go."""

    def allow(self, headers: Headers, need: Need) -> str | None:
        """The id of the key that a client identifies itself with; None where it does not and need not.

        Raises:
            Refused: it may not.
        """

    async def limits(self) -> Limits:
        """What is known of rate limits and circuits."""


def allow(headers: Headers, need: Need, *, demanded: bool, check: KeyCheck) -> str | None:
    """As `Runtime.allow`: a key, or on loopback a name of this machine, is enough.

    Raises:
        Refused: it may not.
    """
    if key_in(headers) is None and not demanded and not is_local_name(headers):
        raise Refused(
            403,
            "this address answers to names of this machine alone",
            where="the header host",
            do="open it as http://127.0.0.1, or send a key (tierwise keys create NAME --scope metrics)",
        )
    key = None
    for scope in _SCOPES[need]:
        key = check(headers, scope)
    return None if key is None else key.key_id


def key_in(headers: Headers) -> str | None:
    """The key of ours among a client's credentials."""
    for name, value in headers:
        if name == b"x-api-key" and value.startswith(b"tw-"):
            return value.decode("latin-1")
        if name == b"authorization" and value[:7].lower() == b"bearer " and value[7:].lstrip().startswith(b"tw-"):
            return value[7:].strip().decode("latin-1")
    return None


class Alone:
    """No gateway is here: the dashboard reads a ledger.

    Args:
        settings: the configuration.
        ledger: where keys are.
        demands_keys: whether it listens where others can reach it.
    """

    def __init__(self, settings: Settings, ledger: Ledger, *, demands_keys: bool) -> None:
        self.settings = settings
        self.router = AsyncRouter(settings, record=False)
        self.stopping = False
        self._keys = Keys(ledger)
        self._demands_keys = demands_keys

    def allow(self, headers: Headers, need: Need) -> str | None:
        """As `Runtime.allow`."""
        return allow(headers, need, demanded=self._demands_keys, check=self.identify)

    def identify(self, headers: Headers, scope: KeyScope) -> ApiKey | None:
        """The key that a client identifies itself with, which is for this; None where it has none and needs none.

        Raises:
            Refused: it may not.
        """
        secret = key_in(headers)
        if secret is None:
            if self._demands_keys:
                raise Refused(
                    401,
                    "a key is demanded here",
                    where="the header authorization",
                    do=f"make one with `tierwise keys create NAME --scope {scope.value}`",
                )
            return None
        key = self._keys.verify(secret, time.time_ns() // 1_000_000)
        if key is None:
            raise Refused(401, "the key is unknown or was revoked", where="the header authorization", do="give another")
        if scope not in key.scopes:
            raise Refused(
                403,
                f"the key {key.name!r} is not for {scope.value}",
                where="the header authorization",
                do=f"make one that is: `tierwise keys create NAME --scope {scope.value}`",
            )
        return key

    async def limits(self) -> Limits:
        """As `Runtime.limits`."""
        return Limits(
            available=False,
            note="Rate limits and circuits are known to a running gateway: open its own /dashboard for them.",
            running=0,
            waiting=0,
            headroom=[],
            circuits=[],
        )
