"""What happens, as it happens: server-sent events of new calls and of the day's figures.

Theory of operation. Nobody tells the dashboard of a call: it asks the ledger, once a second and once for everybody who
listens, and not at all while nobody does. So recording a call costs nothing more, and the events are the same whether
the calls go through this process, another worker or another program. A call is told when it is new and again when it
has changed: it begins as `open`. Who asks for some calls alone hears of those; the day's figures are of all. Whoever
listens too slowly misses events, and is told so (`missed`), as is everybody where more calls came at once than are
told: the page then reads anew what it shows. Calls that run are followed until they end, however many came since.

    event: calls    LiveCalls     new or changed calls, oldest first
    event: totals   LiveTotals    the figures since midnight UTC: at first, and where they changed
    event: missed                 events were left out: read anew
    : comment                     every 15 s, so that nothing on the way takes the connection for dead
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tierwise.core.decisions import CallStatus
from tierwise.dashboard.api import Api
from tierwise.dashboard.models import LiveCalls, LiveTotals, moment
from tierwise.dashboard.questions import Chosen
from tierwise.dashboard.refusals import Refused
from tierwise.ledger.rollup import MS_PER_DAY
from tierwise.report.figures import CallSummary, Scope

__all__ = ["Live"]

_log = logging.getLogger("tierwise.dashboard")
_ALL = Chosen()
_MOST_LISTENERS = 64
_MOST_WAITING = 32  # events of one listener
_LOOKS_BACK_MS = 10 * 60_000  # a call that began before that and goes on is seen in the log, not here
_MOST_CALLS = 200  # that came since the last look; and so many that run
_TOTALS_EVERY = 2  # looks
_COMMENT_EVERY = 15.0
_MISSED = b"event: missed\ndata: {}\n\n"


@dataclass(eq=False)
class _Listener:
    """One who listens: what it wants to hear of, and what it has not heard yet."""

    chosen: Chosen
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_MOST_WAITING + 2))

    def tell(self, event: bytes) -> None:
        """One more event; where too many wait, that it was left out, once."""
        if self.queue.qsize() < _MOST_WAITING:
            self.queue.put_nowait(event)
        elif self.queue.qsize() == _MOST_WAITING:
            self.queue.put_nowait(_MISSED)

    def miss(self) -> None:
        """Something was left out."""
        self.tell(_MISSED)


class Live:
    """All who listen. For one event loop.

    Args:
        api: what answers.
        every_seconds: how often it looks.
    """

    def __init__(self, api: Api, *, every_seconds: float = 1.0) -> None:
        self._api = api
        self._every = every_seconds
        self._listeners: set[_Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._told: dict[str, CallSummary] | None = None  # as it was at the last look
        self._totals: str = ""

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    async def events(self, chosen: Chosen = _ALL) -> AsyncGenerator[bytes]:
        """The events of these calls, for one who listens; ends when the process stops.

        Raises:
            Refused: too many listen.
        """
        if len(self._listeners) >= _MOST_LISTENERS:
            raise Refused(
                503, f"{_MOST_LISTENERS} pages listen already", where="/api/v1/live", do="close one, or ask again later"
            )
        listener = _Listener(chosen)
        self._listeners.add(listener)
        if self._task is None:
            self._told, self._totals = None, ""
            self._task = asyncio.create_task(self._look())
        elif self._totals:
            listener.tell(_event("totals", self._totals))
        try:
            yield b"retry: 2000\n: tierwise\n\n"
            while True:
                try:
                    async with asyncio.timeout(_COMMENT_EVERY):
                        event = await listener.queue.get()
                except TimeoutError:
                    event = b": still here\n\n"
                if event is None:
                    return
                yield event
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    def close(self) -> None:
        """Sends all who listen away."""
        for listener in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):
                listener.queue.put_nowait(None)

    async def _look(self) -> None:
        """Looks again and again, for as long as somebody listens."""
        since_ms = self._api.now_ms()
        looks = 0
        while not self._api.runtime.stopping:
            try:
                await self._tell_calls(since_ms)
                if looks % _TOTALS_EVERY == 0:
                    await self._tell_totals()
            except Refused as refused:  # the ledger is in trouble: the page's own questions say so
                _log.info("nothing to tell to who listens: %s", refused.what)
            except Exception as error:  # noqa: BLE001  a fault of ours must not leave who listens waiting for ever
                _log.error("a fault in looking for what is new: %s", type(error).__name__)
            looks += 1
            await asyncio.sleep(self._every)
        self.close()

    async def _tell_calls(self, since_ms: int) -> None:
        now = self._api.now_ms()
        scope = Scope(since_ms=max(since_ms, now - _LOOKS_BACK_MS) - 60_000, until_ms=now + 60_000)
        known = self._told or {}
        latest, running = await self._api.read(partial(self._read, scope, known))
        found = {one.call_id: one for one in (*latest, *running)}
        fresh = [one for one in reversed(found.values()) if known.get(one.call_id) != one]
        if self._told is None:  # what was there before is no news
            fresh = [one for one in fresh if one.started_at_ms >= since_ms]
        self._told = found
        if len(latest) == _MOST_CALLS and known and known.keys().isdisjoint(one.call_id for one in latest):
            for listener in self._listeners:
                listener.miss()
        for chosen in {listener.chosen for listener in self._listeners} if fresh else ():
            self._tell_of([one for one in fresh if _admits(chosen, one)], chosen)

    def _read(
        self, scope: Scope, known: Mapping[str, CallSummary]
    ) -> tuple[Sequence[CallSummary], Sequence[CallSummary]]:
        """The latest calls, and those that ran when they were looked at last and are not among them."""
        figures = self._api.figures
        latest = figures.calls(scope, limit=_MOST_CALLS).calls
        seen = {one.call_id for one in latest}
        ran = [one.call_id for one in known.values() if one.status is CallStatus.OPEN and one.call_id not in seen]
        return latest, figures.named(ran[:_MOST_CALLS])

    def _tell_of(self, calls: Sequence[CallSummary], chosen: Chosen) -> None:
        if calls:
            view = self._api.view
            event = _event("calls", LiveCalls(items=[view.summary(one) for one in calls]).model_dump_json())
            for listener in self._listeners:
                if listener.chosen == chosen:
                    listener.tell(event)

    async def _tell_totals(self) -> None:
        midnight = self._api.now_ms() // MS_PER_DAY * MS_PER_DAY
        scope = Scope(since_ms=midnight, until_ms=midnight + MS_PER_DAY)
        found = await self._api.read(partial(self._api.figures.measures, scope))
        totals = LiveTotals(since=moment(midnight), now=self._api.view.totals(found))
        text = totals.model_dump_json()
        if text != self._totals:
            self._totals = text
            event = _event("totals", text)
            for listener in self._listeners:
                listener.tell(event)


def _event(name: str, text: str) -> bytes:
    return f"event: {name}\ndata: {text}\n\n".encode()


def _admits(chosen: Chosen, call: CallSummary) -> bool:
    """Whether a call is of those; as `tierwise.ledger.filter` has it, of tier and model the call's own."""
    return all(
        wanted is None or wanted == (found or "")
        for wanted, found in (
            (chosen.project, call.project),
            (chosen.session, call.session),
            (chosen.key, call.key_id),
            (chosen.model, call.model),
            (chosen.tier, call.tier),
            (chosen.task_type, call.task_type),
        )
    )
