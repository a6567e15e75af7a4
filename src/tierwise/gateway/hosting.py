"""The dashboard, and the receiver of telemetry, within a gateway: who may use them, and what only a gateway knows.

What they need is imported when somebody comes for it, in a thread: a gateway that nobody looks at does not pay for it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from tierwise.core.settings import Settings
from tierwise.gateway.admission import Admits, Standing
from tierwise.gateway.asgi import Receive, Scope, Send
from tierwise.gateway.incoming import BadRequest
from tierwise.gateway.line import LineEnded
from tierwise.ledger import Ledger
from tierwise.ledger.keys import ApiKey, KeyScope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tierwise.dashboard.access import Need
    from tierwise.dashboard.app import Dashboard
    from tierwise.dashboard.models import Limits
    from tierwise.engine.router import AsyncRouter
    from tierwise.otlp.app import Receiving

__all__ = ["Exporters", "Hosted", "is_dashboards", "is_exporters"]

_PREFIXES = ("/dashboard/", "/api/v1/")
_EXPORTERS = frozenset({"/v1/logs", "/v1/metrics", "/v1/traces"})


def is_dashboards(path: str) -> bool:
    """Whether a path is one of the dashboard's."""
    return path == "/dashboard" or path.startswith(_PREFIXES)


def is_exporters(path: str) -> bool:
    """Whether a path is one that OpenTelemetry's exporters send to."""
    return path in _EXPORTERS


class _Gateway(Protocol):
    """What of a gateway is looked at."""

    settings: Settings
    router: AsyncRouter
    ledger: Ledger | None
    admission: Admits | None
    running: int
    draining: bool
    keys_required: bool
    version: str

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]], scope: KeyScope) -> ApiKey | None: ...


class Hosted:
    """A gateway's dashboard; to the dashboard, the process that it runs in.

    Args:
        gateway: whose.
    """

    def __init__(self, gateway: _Gateway) -> None:
        self._gateway = gateway
        self._dashboard: Dashboard | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request for the dashboard."""
        if self._dashboard is None:
            made = await asyncio.get_running_loop().run_in_executor(None, self._made)
            self._dashboard = self._dashboard or made
        await self._dashboard(scope, receive, send)

    def _made(self) -> Dashboard:
        from tierwise.dashboard.app import Dashboard  # noqa: PLC0415  when somebody opens it

        return Dashboard(self._gateway.ledger, self, version=self._gateway.version)

    def close(self) -> None:
        """Sends away who listens."""
        if self._dashboard is not None:
            self._dashboard.close()

    # ------------------------------------------------------------------ what the dashboard asks

    @property
    def settings(self) -> Settings:
        """The configuration, as it is now."""
        return self._gateway.settings

    @property
    def router(self) -> AsyncRouter:
        """What decides."""
        return self._gateway.router

    @property
    def stopping(self) -> bool:
        """Whether the gateway ends."""
        return self._gateway.draining

    def allow(self, headers: Iterable[tuple[bytes, bytes]], need: Need) -> str | None:
        """The id of the key that a client identifies itself with.

        Raises:
            Refused: it may not.
        """
        from tierwise.dashboard.runtime import allow  # noqa: PLC0415  as above

        return allow(headers, need, demanded=self._gateway.keys_required, check=self._checked)

    def _checked(self, headers: Iterable[tuple[bytes, bytes]], scope: KeyScope) -> ApiKey | None:
        return _identified(self._gateway, headers, scope)

    async def limits(self) -> Limits:
        """What is left of rate limits, and which circuits are open."""
        from tierwise.dashboard import models  # noqa: PLC0415  as above

        gateway = self._gateway
        note: str | None = None
        found = Standing((), 0)
        if gateway.admission is not None:
            try:
                found = await gateway.admission.standing()
            except LineEnded:
                note = "The supervisor of this gateway's workers is gone."
        closed = gateway.router.circuits.open_now(time.monotonic())
        return models.Limits(
            available=True,
            note=note,
            running=gateway.running if found.running is None else found.running,
            waiting=found.waiting,
            headroom=[
                models.Headroom(
                    account=one.family.pool,
                    family=one.family.name,
                    measure=one.measure.value,
                    limit_per_minute=one.limit_per_minute,
                    left=min(one.left, one.limit_per_minute),
                    left_share=min(1.0, one.left / one.limit_per_minute) if one.limit_per_minute else 0.0,
                    full_in_seconds=max(0.0, one.full_in_seconds),
                    closed_seconds=one.closed_seconds,
                )
                for one in found.headroom
            ],
            circuits=[models.Circuit(model=model, why=why) for model, why in closed.items()],
        )


class Exporters:
    """A gateway's receiver of telemetry.

    Args:
        gateway: whose.
    """

    def __init__(self, gateway: _Gateway) -> None:
        self._gateway = gateway
        self._receiving: Receiving | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of an exporter."""
        if self._receiving is None:
            made = await asyncio.get_running_loop().run_in_executor(None, self._made)
            self._receiving = self._receiving or made
        await self._receiving(scope, receive, send)

    def _made(self) -> Receiving:
        from tierwise.otlp.app import Receiving  # noqa: PLC0415  when telemetry comes
        from tierwise.otlp.receiver import Receiver  # noqa: PLC0415  as above

        gateway = self._gateway
        return Receiving(
            Receiver(gateway.ledger, gateway),
            self._identified,
            demands_keys=gateway.keys_required,
            ends=lambda: gateway.draining,
        )

    def _identified(self, headers: Iterable[tuple[bytes, bytes]]) -> ApiKey | None:
        return _identified(self._gateway, headers, KeyScope.CALLS)


def _identified(gateway: _Gateway, headers: Iterable[tuple[bytes, bytes]], scope: KeyScope) -> ApiKey | None:
    from tierwise.dashboard.refusals import Refused  # noqa: PLC0415  as above

    try:
        return gateway.authenticate(headers, scope)
    except BadRequest as error:
        raise Refused(
            error.status,
            str(error),
            where="the header authorization",
            do=f"send a key that is for {scope.value}: tierwise keys create NAME --scope {scope.value}",
        ) from None
