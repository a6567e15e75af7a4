"""Who is sent next when a provider's rate limits are short: waits within deadlines, fair between sessions.

Theory of operation. While nobody waits for a family and its buckets have room, a request takes its share and goes: no
queue, no timer, no task switch. Otherwise it stands in its family's line. What a line is ordered by is a tag that each
request gets when it comes, by weighted fair queueing:

    tag = max(the line's virtual time, the last tag of its session) + size / weight

A request's size is the largest part of a minute's limit that it takes. So a session that sends a thousand requests
stands behind its own, and one that comes with its first goes ahead of most of them. The virtual time moves on with all
that is let through, so whoever comes later gets a later tag: everybody's turn comes, however many come after. The
weight of a session is 1 for interactive work, while all sessions with background work share an eighth: background
gives way, and yet moves.

(Deficit round robin promises the same with a quantum of work a turn; sizes here differ ten-thousandfold, so that a
quantum would either let bursts through or turn in circles. And in a line that is sorted, what stands ahead of a request
is known when it comes, so how long it will wait can be told at once.)

Whoever cannot be sent before its deadline is told so when it comes, with the time after which it could be. One that
others overtook after it came, as fairness demands, is told when its deadline is over. The first of a line waits for its
room and those behind wait with it, however small they are: otherwise large requests would never find room.

One timer a line, one for each waiter's deadline, both only while somebody waits; a line goes when its last waiter does.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tierwise.core.errors import TierwiseError
from tierwise.core.money import Usage
from tierwise.core.settings import RateLimit
from tierwise.policy.ratelimits import NOTHING, Family, Headroom, Limits, Load, Taken

__all__ = ["Admission", "Admits", "Clock", "Standing", "Ticket", "Timer", "WouldWait"]

_BACKGROUND_WEIGHT = 1 / 8  # of all sessions with background work together, where one with interactive work has 1
_UNKNOWN_SIZE = 0.001  # of a request to a family that is closed and has no known limit
_SHORTEST_TIMER_SECONDS = 0.001


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None:
        """Makes that it does not happen."""


class Clock(Protocol):
    """The part of an event loop that tells the time and calls back; a running loop is one."""

    def time(self) -> float:
        """Seconds, never going back."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Calls back after so many seconds."""


class WouldWait(TierwiseError):
    """There is no room for a request before its deadline. `retry_after_seconds` is `inf` where there never will be."""

    def __init__(self, family: Family, retry_after_seconds: float) -> None:
        if retry_after_seconds == math.inf:
            words = "the request is larger than its whole minute's limit; send less, or to another model"
        else:
            words = f"used up for now; try again in {math.ceil(retry_after_seconds)} s"
        super().__init__(f"rate limit of {family.name} at {family.pool}: {words}")
        self.family = family
        self.retry_after_seconds = retry_after_seconds


class Ticket:
    """Leave to send one request. Say what became of it with `settle` or `cancel`; only the first of these counts."""

    __slots__ = ("_admission", "_taken", "family")

    def __init__(self, admission: Admission, taken: Taken) -> None:
        self._admission = admission
        self._taken: Taken | None = taken
        self.family = taken.family  # that it is for, of those that were asked for

    def settle(self, usage: Usage) -> None:
        """What it really used takes the place of its estimate. Before `learn`, where a reply gives both at once."""
        fresh = usage.input_tokens + usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
        self.close(Load(1, fresh, usage.output_tokens))

    def cancel(self) -> None:
        """It was never sent, or refused: its room goes to others."""
        self.close(NOTHING)

    def close(self, used: Load) -> None:
        """It used so much."""
        taken, self._taken = self._taken, None
        if taken is not None:
            self._admission._settle(taken, used)


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand, for whoever shows it."""

    headroom: tuple[Headroom, ...]
    waiting: int
    running: int | None = None  # calls, at all workers; None where there are no others


class Admits(Protocol):
    """Who gives leave to send: an `Admission`, or one that lives in another process (`tierwise.gateway.shared`)."""

    @property
    def waiting(self) -> int:
        """How many requests wait."""

    async def admit(
        self,
        family: Family,
        session: str,
        *,
        interactive: bool,
        input_tokens: int,
        output_tokens: int,
        deadline_seconds: float = math.inf,
    ) -> Ticket:
        """See `Admission.admit`."""

    async def admit_any(
        self,
        families: Sequence[Family],
        session: str,
        *,
        interactive: bool,
        input_tokens: int,
        output_tokens: int,
        deadline_seconds: float = math.inf,
        preferred: Family | None = None,
    ) -> Ticket:
        """See `Admission.admit_any`."""

    def configure(self, limits: Mapping[str, RateLimit]) -> None:
        """See `Admission.configure`."""

    def learn(self, family: Family, headers: Mapping[str, str], *, status: int = 200) -> None:
        """See `Admission.learn`."""

    async def standing(self) -> Standing:
        """See `Admission.standing`."""


@dataclass(slots=True, eq=False)
class _Waiter:
    session: _Session
    load: Load
    size: float
    start: float  # its tag without what it adds itself
    tag: float
    number: int  # by which equal tags are told apart
    future: asyncio.Future[Taken]
    deadline: Timer | None = None
    in_line: bool = True

    def __lt__(self, other: _Waiter) -> bool:
        return (self.tag, self.number) < (other.tag, other.number)


@dataclass(slots=True, eq=False)
class _Session:
    """A session's interactive, or its background, requests in one line."""

    key: tuple[str, bool]
    waiting: int = 0
    last_tag: float = 0.0  # of those who came
    sent_tag: float = 0.0  # of those who were sent


class _Line:
    """Those who wait for one family, in the order in which they will be sent."""

    __slots__ = (
        "background",
        "input_tokens",
        "interactive",
        "number",
        "output_tokens",
        "sessions",
        "timer",
        "virtual_time",
        "waiters",
    )

    def __init__(self) -> None:
        self.waiters: list[_Waiter] = []
        self.sessions: dict[tuple[str, bool], _Session] = {}
        self.interactive = 0  # sessions with such requests waiting
        self.background = 0
        self.input_tokens = 0  # of all who wait
        self.output_tokens = 0
        self.virtual_time = 0.0
        self.number = 0
        self.timer: Timer | None = None

    def add(self, key: tuple[str, bool], load: Load, size: float, future: asyncio.Future[Taken]) -> _Waiter:
        session = self.sessions.get(key)
        if session is None:
            session = self.sessions[key] = _Session(key)
        self._count(session, 1)
        weight = 1.0 if key[1] else _BACKGROUND_WEIGHT / self.background
        start = max(self.virtual_time, session.last_tag)
        session.last_tag = start + size / weight
        self.number += 1
        waiter = _Waiter(session, load, size, start, session.last_tag, self.number, future)
        insort(self.waiters, waiter)
        self.input_tokens += load.input_tokens
        self.output_tokens += load.output_tokens
        return waiter

    def ahead_of(self, waiter: _Waiter) -> Load:
        """What will be sent before it: added up from the nearer end of the line."""
        at = bisect_left(self.waiters, waiter)
        if 2 * at <= len(self.waiters):
            return _sum(self.waiters[:at])
        behind = _sum(self.waiters[at:])
        return Load(at, self.input_tokens - behind.input_tokens, self.output_tokens - behind.output_tokens)

    def leave(self, waiter: _Waiter) -> None:
        """It goes without having been sent: its session need not stand behind it any more."""
        self._remove(waiter)
        session = waiter.session
        if not session.waiting:
            session.last_tag = session.sent_tag
        elif session.last_tag == waiter.tag:
            session.last_tag = waiter.start
        self._forget(session)

    def sent(self, waiter: _Waiter) -> None:
        """It goes because its turn has come: the virtual time moves on by what it took of everybody's share."""
        weights = self.interactive + (_BACKGROUND_WEIGHT if self.background else 0.0)
        self.virtual_time = max(self.virtual_time + waiter.size / weights, waiter.start)
        waiter.session.sent_tag = waiter.tag
        self._remove(waiter)
        if len(self.sessions) > 2 * len(self.waiters) + 16:
            for session in list(self.sessions.values()):
                self._forget(session)

    def _remove(self, waiter: _Waiter) -> None:
        del self.waiters[bisect_left(self.waiters, waiter)]
        waiter.in_line = False
        self.input_tokens -= waiter.load.input_tokens
        self.output_tokens -= waiter.load.output_tokens
        if waiter.deadline is not None:
            waiter.deadline.cancel()
        self._count(waiter.session, -1)

    def _forget(self, session: _Session) -> None:
        """A session that has nothing here and owes nothing is like one that never was."""
        if not session.waiting and session.last_tag <= self.virtual_time:
            self.sessions.pop(session.key, None)

    def _count(self, session: _Session, change: int) -> None:
        was = session.waiting
        session.waiting += change
        if not was or not session.waiting:
            if session.key[1]:
                self.interactive += change
            else:
                self.background += change


def _sum(waiters: Sequence[_Waiter]) -> Load:
    loads = [waiter.load for waiter in waiters]
    return Load(len(loads), sum([load.input_tokens for load in loads]), sum([load.output_tokens for load in loads]))


@dataclass(slots=True)
class _Use:
    """Requests of one family, where there are several to choose from."""

    running: int = 0
    sent: int = 0


class Admission:
    """The rate limits of all families, and the lines of those who wait for them.

    `clock` is the running event loop, or a stand-in for one. `most_waiting` bounds each line: when it is full, the
    last of it makes room for whoever has an earlier turn.
    """

    def __init__(self, limits: Limits, clock: Clock, *, most_waiting: int = 1000) -> None:
        self._limits = limits
        self._clock = clock
        self._most_waiting = most_waiting
        self._lines: dict[Family, _Line] = {}
        self._uses: dict[Family, _Use] = {}  # of those that share the work of one provider

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(len(line.waiters) for line in self._lines.values())

    async def admit(
        self,
        family: Family,
        session: str,
        *,
        interactive: bool,
        input_tokens: int,
        output_tokens: int,
        deadline_seconds: float = math.inf,
    ) -> Ticket:
        """Leave to send a request, when its turn has come. Tokens are estimates; input without what the cache has.

        Raises:
            WouldWait: it cannot be sent within `deadline_seconds`; says how long it would take.
        """
        if family not in self._lines:
            taken = self._limits.take_if_room(family, input_tokens, output_tokens, self._clock.time())
            if taken is not None:
                return Ticket(self, taken)
        load = self._limits.load(family, input_tokens, output_tokens)
        return Ticket(self, await self._turn(family, (session, interactive), load, deadline_seconds))

    async def admit_any(
        self,
        families: Sequence[Family],
        session: str,
        *,
        interactive: bool,
        input_tokens: int,
        output_tokens: int,
        deadline_seconds: float = math.inf,
        preferred: Family | None = None,
    ) -> Ticket:
        """Leave to send a request to one of several families that would do: the keys of different accounts.

        Where the preferred one has no room now, it is the one with the most room; where none has, the one that will
        have it first.

        Raises:
            WouldWait: it cannot be sent to any within `deadline_seconds`.
        """
        ticket = self.admit_now(families, input_tokens=input_tokens, output_tokens=output_tokens, preferred=preferred)
        if ticket is not None:
            return ticket
        ticket = await self.admit(
            min(families, key=lambda family: self._wait_behind(family, input_tokens, output_tokens)),
            session,
            interactive=interactive,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            deadline_seconds=deadline_seconds,
        )
        self._used(ticket.family)
        return ticket

    def admit_now(
        self,
        families: Sequence[Family],
        *,
        input_tokens: int,
        output_tokens: int,
        preferred: Family | None = None,
    ) -> Ticket | None:
        """As `admit_any`, of what has room now; None where it would have to wait."""
        now = self._clock.time()
        if len(families) > 1:
            families = sorted(families, key=lambda family: (family != preferred, *self._busyness(family, now)))
        for family in families:
            if family not in self._lines:
                taken = self._limits.take_if_room(family, input_tokens, output_tokens, now)
                if taken is not None:
                    self._used(family)
                    return Ticket(self, taken)
        return None

    def _busyness(self, family: Family, now: float) -> tuple[float, int, int]:
        """By which the work of one provider is spread: what is used up, then what runs, then what ran."""
        use = self._uses.get(family)
        used = self._limits.used_share(family, now)
        return (used, 0, 0) if use is None else (used, use.running, use.sent)

    def _used(self, family: Family) -> None:
        use = self._uses.get(family)
        if use is None:
            use = self._uses[family] = _Use()
        use.running += 1
        use.sent += 1

    def _wait_behind(self, family: Family, input_tokens: int, output_tokens: int) -> float:
        """How long a request would wait behind all who wait already."""
        line = self._lines.get(family)
        ahead = NOTHING if line is None else Load(len(line.waiters), line.input_tokens, line.output_tokens)
        return self._limits.wait(family, input_tokens, output_tokens, self._clock.time(), ahead=ahead)

    def best(
        self, families: Sequence[Family], *, wanted: Family, input_tokens: int, output_tokens: int
    ) -> Family | None:
        """Which family has room now: the wanted one, else the next above it, else the next below; None: none has.

        `families` are those that are allowed, the cheapest first. `wanted` is one of them.
        """
        at = families.index(wanted)
        now = self._clock.time()
        for family in (*families[at:], *reversed(families[:at])):
            if family not in self._lines and not self._limits.wait(family, input_tokens, output_tokens, now):
                return family
        return None

    def configure(self, limits: Mapping[str, RateLimit]) -> None:
        """Goes on with other limits of our own; whoever waits is let through as soon as those allow."""
        self._limits.configure(limits, self._clock.time())
        for family in tuple(self._lines):
            self._move(family)

    def learn(self, family: Family, headers: Mapping[str, str], *, status: int = 200) -> None:
        """Takes into account what a reply says of the limits (names of headers in lower case)."""
        self._limits.learn(family, headers, self._clock.time(), status=status)
        if self._lines:
            self._move(family)

    def headroom(self) -> tuple[Headroom, ...]:
        """What is left of every limit that is known."""
        return self._limits.headroom(self._clock.time())

    async def standing(self) -> Standing:
        """What is left of limits, and how many requests wait."""
        return Standing(self.headroom(), self.waiting)

    def _settle(self, taken: Taken, used: Load) -> None:
        if (use := self._uses.get(taken.family)) is not None and use.running:
            use.running -= 1
        self._limits.settle(taken, used, self._clock.time())
        if self._lines:
            self._move(taken.family)

    async def _turn(self, family: Family, key: tuple[str, bool], load: Load, deadline_seconds: float) -> Taken:
        """Waits for a request's turn in its line."""
        line = self._lines.get(family)
        if line is None:
            line = self._lines[family] = _Line()
        size = self._limits.share(family, load) or _UNKNOWN_SIZE
        waiter = line.add(key, load, size, asyncio.get_running_loop().create_future())
        wait = self._wait(family, line, waiter)
        if wait > deadline_seconds or wait == math.inf:
            self._leave(family, line, waiter)
            raise WouldWait(family, wait)
        if len(line.waiters) > self._most_waiting:
            self._refuse(family, line, line.waiters[-1])
        if deadline_seconds < math.inf and not waiter.future.done():
            waiter.deadline = self._clock.call_later(deadline_seconds, lambda: self._refuse(family, line, waiter))
        self._move(family)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.in_line:
                self._leave(family, line, waiter)
                self._move(family)
            elif not waiter.future.cancelled() and waiter.future.exception() is None:
                self._settle(waiter.future.result(), NOTHING)  # let through in the moment in which it went away
            raise

    def _wait(self, family: Family, line: _Line, waiter: _Waiter) -> float:
        _, input_tokens, output_tokens = waiter.load
        now = self._clock.time()
        return self._limits.wait(family, input_tokens, output_tokens, now, ahead=line.ahead_of(waiter))

    def _leave(self, family: Family, line: _Line, waiter: _Waiter) -> None:
        line.leave(waiter)
        self._tidy(family, line)

    def _tidy(self, family: Family, line: _Line) -> None:
        if not line.waiters and self._lines.get(family) is line:
            del self._lines[family]
            if line.timer is not None:
                line.timer.cancel()
                line.timer = None

    def _refuse(self, family: Family, line: _Line, waiter: _Waiter) -> None:
        """Tells a waiter that its turn will not come in time."""
        self._move(family)  # unless it comes in this very moment
        if waiter.in_line and not waiter.future.done():
            wait = self._wait(family, line, waiter)
            self._leave(family, line, waiter)
            waiter.future.set_exception(WouldWait(family, wait))
            self._move(family)

    def _move(self, family: Family) -> None:
        """Lets through whoever has room now, and sets the timer for the next one."""
        line = self._lines.get(family)
        if line is None:
            return
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        while line.waiters:
            first = line.waiters[0]
            if first.future.done():  # cancelled, and its task has not yet run
                line.leave(first)
                continue
            _, input_tokens, output_tokens = first.load
            now = self._clock.time()
            wait = self._limits.wait(family, input_tokens, output_tokens, now)
            if wait == math.inf:  # the limit has become smaller than the request
                line.leave(first)
                first.future.set_exception(WouldWait(family, wait))
            elif wait > 0:
                delay = max(wait, _SHORTEST_TIMER_SECONDS)
                line.timer = self._clock.call_later(delay, lambda: self._move(family))
                return
            else:
                line.sent(first)
                first.future.set_result(self._limits.take(family, input_tokens, output_tokens, now))
        self._tidy(family, line)
