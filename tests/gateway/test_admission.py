"""Waiting for rate limits: within deadlines, fair between sessions, with nothing left behind."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.core.money import Usage
from tierwise.core.settings import RateLimit
from tierwise.gateway.admission import Admission, Ticket, WouldWait
from tierwise.policy.ratelimits import Family, Limits

OPUS = Family("anthropic", "opus")
SONNET = Family("anthropic", "sonnet")
HAIKU = Family("anthropic", "haiku")
ONE_A_SECOND = RateLimit(requests_per_minute=60)


@dataclass(order=True)
class FakeTimer:
    at: float
    number: int
    callback: Callable[[], object] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """A clock that the test moves; what is due happens in order, and tasks run in between."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.made = 0
        self._timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> FakeTimer:
        self.made += 1
        timer = FakeTimer(self.now + delay, self.made, callback)
        heapq.heappush(self._timers, timer)
        return timer

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for timer in self._timers)

    async def advance(self, seconds: float) -> None:
        until = self.now + seconds
        await _settle_tasks()
        while self._timers and self._timers[0].at <= until:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.now = max(self.now, timer.at)
                timer.callback()
                await _settle_tasks()
        self.now = until


async def _settle_tasks() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


class Desk:
    """An admission on a fake clock, and who was let through in which order."""

    def __init__(
        self, limit: RateLimit | None = ONE_A_SECOND, *, used_up: bool = True, most_waiting: int = 1000
    ) -> None:
        self.clock = FakeClock()
        self.limits = Limits({} if limit is None else dict.fromkeys(("opus", "sonnet", "haiku"), limit))
        self.admission = Admission(self.limits, self.clock, most_waiting=most_waiting)
        self.order: list[str] = []
        if limit is not None and used_up:
            for _ in range(limit.requests_per_minute or 1):
                self.limits.take(OPUS, limit.input_tokens_per_minute or 0, 0, self.clock.now)

    async def admit(
        self, session: str, *, interactive: bool = True, tokens: int = 0, deadline: float = math.inf
    ) -> Ticket:
        ticket = await self.admission.admit(
            OPUS, session, interactive=interactive, input_tokens=tokens, output_tokens=0, deadline_seconds=deadline
        )
        self.order.append(session)
        return ticket

    def ask(
        self, session: str, *, interactive: bool = True, tokens: int = 0, deadline: float = math.inf
    ) -> asyncio.Task[Ticket]:
        return asyncio.ensure_future(self.admit(session, interactive=interactive, tokens=tokens, deadline=deadline))

    async def close(self, *tasks: asyncio.Task[Ticket]) -> None:
        """Gives up all who still wait, and sees that nothing of them stays."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert self.admission.waiting == 0
        assert self.clock.pending == 0
        assert self.admission._lines == {}


async def test_where_there_is_room_nobody_waits() -> None:
    """Far from the limits a request goes at once, without a timer or a task switch."""
    desk = Desk(used_up=False)
    for _ in range(60):
        admitting = desk.admit("a", deadline=0.0)
        with pytest.raises(StopIteration):
            admitting.send(None)  # it ends without ever having waited
    assert desk.clock.made == 0
    await desk.close()


async def test_a_request_waits_for_its_room() -> None:
    """When the minute's requests are used up, the next goes a second later and not before."""
    desk = Desk()
    asked = desk.ask("a", deadline=5.0)
    await desk.clock.advance(0.9)
    assert not asked.done()
    await desk.clock.advance(0.1)
    assert asked.done()
    await desk.close(asked)


async def test_a_deadline_that_cannot_hold_is_told_at_once_and_truly() -> None:
    """The third in line at one a second cannot go within 2.9 s: it is told 3 s, and after 3 s it goes."""
    desk = Desk()
    waiting = [desk.ask("a"), desk.ask("a")]
    await desk.clock.advance(0)
    with pytest.raises(WouldWait, match="rate limit of opus at anthropic: used up for now; try again in 3 s") as told:
        await desk.admit("a", deadline=2.9)
    assert told.value.retry_after_seconds == pytest.approx(3.0)
    assert desk.admission.waiting == 2
    await desk.clock.advance(told.value.retry_after_seconds)
    await desk.admit("a", deadline=0.0)
    await desk.close(*waiting)


async def test_a_deadline_that_just_holds_is_waited_for() -> None:
    """A request whose room comes in the very moment of its deadline goes."""
    desk = Desk()
    asked = desk.ask("a", deadline=1.0)
    await desk.clock.advance(1.0)
    assert asked.done()
    await asked
    await desk.close(asked)


async def test_sessions_take_turns() -> None:
    """Of three sessions with 30, 10 and 10 requests in line, each has had ten turns after thirty."""
    desk = Desk()
    asked = [desk.ask(name) for name, count in (("flood", 30), ("b", 10), ("c", 10)) for _ in range(count)]
    await desk.clock.advance(30.5)
    assert Counter(desk.order) == {"flood": 10, "b": 10, "c": 10}
    await desk.clock.advance(20.0)
    assert Counter(desk.order) == {"flood": 30, "b": 10, "c": 10}
    await desk.close(*asked)


async def test_fair_is_by_what_is_used_and_not_by_count() -> None:
    """A session with requests ten times as large has a tenth as many turns."""
    desk = Desk(RateLimit(input_tokens_per_minute=6000))
    asked = [desk.ask("large", tokens=1000) for _ in range(20)] + [desk.ask("small", tokens=100) for _ in range(200)]
    await desk.clock.advance(100.0)
    turns = Counter(desk.order)
    assert abs(turns["large"] * 10 - turns["small"]) <= 20
    assert turns["large"] * 1000 + turns["small"] * 100 >= 9000
    await desk.close(*asked)


async def test_a_newcomer_does_not_stand_behind_a_flood() -> None:
    """However many requests one session has in line, another's first waits for two turns at most."""
    desk = Desk()
    flood = [desk.ask("flood") for _ in range(100)]
    await desk.clock.advance(10.0)
    newcomer = desk.ask("newcomer")
    await desk.clock.advance(2.0)
    assert newcomer.done()
    await desk.close(newcomer, *flood)


async def test_one_that_was_overtaken_is_told_when_its_deadline_is_over() -> None:
    """A flood pays for the others' turns with its own end: the last of it is refused with what it would still take."""
    desk = Desk()
    flood = [desk.ask("flood", deadline=10.5) for _ in range(10)]
    await desk.clock.advance(0)
    others = [desk.ask(f"other-{n}") for n in range(3)]
    await desk.clock.advance(10.5)
    refused = [task for task in flood if isinstance(task.exception(), WouldWait)]
    assert refused == flood[-3:]
    assert refused[0].exception().retry_after_seconds == pytest.approx(0.5, abs=1e-3)  # type: ignore[union-attr]
    await asyncio.gather(*others)
    await desk.close()


async def test_interactive_goes_before_background() -> None:
    """Background work that came first is overtaken by interactive requests that came later."""
    desk = Desk()
    background = [desk.ask(f"job-{n}", interactive=False) for n in range(5)]
    await desk.clock.advance(0)
    interactive = [desk.ask("person") for _ in range(5)]
    await desk.clock.advance(5.0)
    assert desk.order == ["person"] * 5
    await desk.clock.advance(5.0)
    assert sorted(desk.order[5:]) == [f"job-{n}" for n in range(5)]
    await desk.close(*background, *interactive)


async def test_many_background_sessions_have_one_share_together() -> None:
    """A hundred jobs do not crowd out one person: together they have a ninth of the turns, each in its order."""
    desk = Desk()
    jobs = [desk.ask(f"job-{n:02d}", interactive=False) for n in range(100)]
    person = [desk.ask("person") for _ in range(200)]
    await desk.clock.advance(90.5)
    assert desk.order.count("person") == pytest.approx(80, abs=2)
    served = [name for name in desk.order if name != "person"]
    assert served == [f"job-{n:02d}" for n in range(len(served))]
    await desk.close(*jobs, *person)


async def test_background_does_not_starve_however_many_come_after() -> None:
    """With a new interactive session every second, as many as the limit allows, background work still gets its turn."""
    desk = Desk()
    job = desk.ask("job", interactive=False)
    asked = [job, desk.ask("person")]
    for second in range(30):
        await desk.clock.advance(1.0)
        asked.append(desk.ask(f"person-{second}"))
    assert job.done()
    await desk.close(*asked)


async def test_a_large_request_is_not_starved_by_small_ones() -> None:
    """The first of a line is waited for until the bucket has room for it, although smaller ones would fit."""
    desk = Desk(RateLimit(input_tokens_per_minute=6000))
    large = desk.ask("large", tokens=6000)
    small: list[asyncio.Task[Ticket]] = []
    for number in range(190):
        small.append(desk.ask(f"small-{number}", tokens=100))
        await desk.clock.advance(1.0)
    assert large.done()
    await desk.close(large, *small)


async def test_what_a_reply_gives_back_lets_the_next_one_go() -> None:
    """A request that used less than was taken for it makes room at once."""
    desk = Desk(RateLimit(input_tokens_per_minute=6000), used_up=False)
    ticket = await desk.admit("a", tokens=6000)
    asked = desk.ask("b", tokens=3000)
    await desk.clock.advance(0)
    ticket.settle(
        Usage(input_tokens=1000, cache_read_tokens=90_000, cache_write_5m_tokens=500, cache_write_1h_tokens=500)
    )
    await desk.clock.advance(0)
    assert asked.done()
    assert [h.left for h in desk.limits.headroom(desk.clock.now)] == [1000]
    await desk.close(asked)


async def test_a_ticket_counts_once() -> None:
    """Settled, cancelled and settled again, it has given back what it had and no more."""
    desk = Desk(RateLimit(requests_per_minute=60, input_tokens_per_minute=6000), used_up=False)
    ticket = await desk.admit("a", tokens=1000)
    ticket.settle(Usage(input_tokens=400))
    ticket.cancel()
    ticket.settle(Usage())
    assert [h.left for h in desk.limits.headroom(desk.clock.now)] == [59, 5600]
    cancelled = await desk.admit("a", tokens=1000)
    cancelled.cancel()
    assert [h.left for h in desk.limits.headroom(desk.clock.now)] == [59, 5600]


async def test_cancelled_waiters_leave_nothing_behind() -> None:
    """Those who give up free their places, and those behind them move up."""
    desk = Desk()
    first, second, third = desk.ask("a", deadline=60.0), desk.ask("b", deadline=60.0), desk.ask("c", deadline=60.0)
    await desk.clock.advance(0)
    assert desk.clock.pending == 4
    first.cancel()
    second.cancel()
    await desk.clock.advance(1.0)
    assert third.done()
    assert desk.order == ["c"]
    await desk.close(first, second, third)


async def test_room_given_to_one_that_just_went_away_is_given_on() -> None:
    """A request that is cancelled in the moment of its turn takes nothing: the next one has the turn."""
    desk = Desk()
    gone, stays = desk.ask("gone"), desk.ask("stays")
    await desk.clock.advance(0)
    desk.clock.now += 1.0
    desk.admission.learn(OPUS, {})  # lets the first through
    gone.cancel()  # before its task has run
    await desk.clock.advance(0)
    assert gone.cancelled()
    assert stays.done()
    await desk.close(gone, stays)


async def test_one_that_is_cancelled_is_not_let_through() -> None:
    """A turn that comes between a request's cancellation and its end goes to the next in line."""
    desk = Desk()
    gone, stays = desk.ask("gone"), desk.ask("stays")
    await desk.clock.advance(0)
    gone.cancel()
    desk.clock.now += 1.0
    desk.admission.learn(OPUS, {})
    await desk.clock.advance(0)
    assert gone.cancelled()
    assert desk.order == ["stays"]
    await desk.close(gone, stays)


async def test_a_session_that_gives_up_does_not_pay_for_it() -> None:
    """Requests that were cancelled do not put the session's next one behind others."""
    desk = Desk()
    gone = [desk.ask("a") for _ in range(50)]
    await desk.clock.advance(0)
    others = [desk.ask("b") for _ in range(50)]
    await desk.clock.advance(0)
    for task in reversed(gone):
        task.cancel()
    await desk.clock.advance(0)
    again = desk.ask("a")
    await desk.clock.advance(2.0)
    assert again.done()
    await desk.close(again, *gone, *others)


async def test_sessions_that_are_refused_are_forgotten() -> None:
    """Thousands of sessions that could not wait leave no trace in the line they looked at."""
    desk = Desk()
    asked = desk.ask("a")
    await desk.clock.advance(0)
    for number in range(1000):
        with pytest.raises(WouldWait):
            await desk.admit(f"hasty-{number}", interactive=number % 2 == 0, deadline=0.1)
    assert len(desk.admission._lines[OPUS].sessions) == 1
    await desk.close(asked)


async def test_a_refusal_by_the_provider_holds_everybody() -> None:
    """After a 429 those in line and those who come wait for its `retry-after`; whoever cannot is told how long."""
    desk = Desk(limit=None)
    ticket = await desk.admit("a")
    ticket.cancel()
    desk.admission.learn(OPUS, {"retry-after": "20"}, status=429)
    asked = desk.ask("b", deadline=30.0)
    await desk.clock.advance(5.0)
    with pytest.raises(WouldWait) as told:
        await desk.admit("c", deadline=10.0)
    assert told.value.retry_after_seconds == pytest.approx(15.0)
    await desk.clock.advance(14.9)
    assert not asked.done()
    await desk.clock.advance(0.1)
    assert asked.done()
    await desk.close(asked)


async def test_a_limit_that_becomes_too_small_refuses_those_in_line() -> None:
    """A request that is larger than its limit has become is told, in its turn, that it never will go."""
    desk = Desk(RateLimit(input_tokens_per_minute=6000))
    small, large, last = desk.ask("a", tokens=10), desk.ask("a", tokens=5000), desk.ask("a", tokens=10)
    await desk.clock.advance(0)
    desk.admission.learn(OPUS, {"anthropic-ratelimit-input-tokens-limit": "3000"})
    await desk.clock.advance(120.0)
    with pytest.raises(WouldWait, match="larger than its whole minute's limit; send less, or to another model") as told:
        await large
    assert told.value.retry_after_seconds == math.inf
    assert small.done()
    assert last.done()
    await desk.close(small, last)


async def test_a_full_line_makes_room_for_who_comes_earlier() -> None:
    """A line has an end: a flood's own next request is refused, another session's takes the flood's last place."""
    desk = Desk(most_waiting=10)
    flood = [desk.ask("flood") for _ in range(10)]
    await desk.clock.advance(0)
    with pytest.raises(WouldWait):
        await desk.admit("flood")
    other = desk.ask("other")
    await desk.clock.advance(0)
    assert desk.admission.waiting == 10
    assert isinstance(flood[-1].exception(), WouldWait)
    await desk.clock.advance(2.0)
    assert other.done()
    await desk.close(other, *flood[:-1])


@pytest.mark.parametrize(
    ("used_up", "wanted", "best"),
    [
        ([], SONNET, SONNET),
        ([SONNET], SONNET, OPUS),
        ([SONNET, OPUS], SONNET, HAIKU),
        ([HAIKU], HAIKU, SONNET),
        ([HAIKU, SONNET], HAIKU, OPUS),
        ([OPUS], OPUS, SONNET),
        ([HAIKU, SONNET, OPUS], SONNET, None),
    ],
)
def test_another_tier_is_one_up_rather_than_down(used_up: list[Family], wanted: Family, best: Family | None) -> None:
    """Where the wanted family has no room, the next above that has some is best, then the next below."""
    desk = Desk(used_up=False)
    for family in used_up:
        for _ in range(60):
            desk.limits.take(family, 0, 0, desk.clock.now)
    ladder = (HAIKU, SONNET, OPUS)
    assert desk.admission.best(ladder, wanted=wanted, input_tokens=1, output_tokens=1) == best


async def test_a_family_with_a_line_has_no_room() -> None:
    """What is left of a family that others wait for is theirs, even if it would do for a small request."""
    desk = Desk(RateLimit(input_tokens_per_minute=6000), used_up=False)
    await desk.admit("a", tokens=3000)
    asked = desk.ask("b", tokens=6000)
    await desk.clock.advance(0)
    assert desk.admission.best((OPUS,), wanted=OPUS, input_tokens=1, output_tokens=1) is None
    await desk.close(asked)


async def test_a_running_loop_is_a_clock() -> None:
    """On the real event loop waiting, cancelling and going through work alike."""
    loop = asyncio.get_running_loop()
    limits = Limits({"opus": RateLimit(requests_per_minute=6000)})
    admission = Admission(limits, loop)
    for _ in range(6000):
        limits.take(OPUS, 0, 0, loop.time())

    async def one(session: str) -> Ticket:
        return await admission.admit(OPUS, session, interactive=True, input_tokens=0, output_tokens=0)

    gone = asyncio.ensure_future(one("gone"))
    tickets = asyncio.gather(*(one(f"{n % 3}") for n in range(5)))
    await asyncio.sleep(0)
    gone.cancel()
    assert len(await tickets) == 5
    assert admission.waiting == 0


@dataclass(frozen=True)
class Arrival:
    gap_seconds: float
    session: str
    interactive: bool
    tokens: int
    deadline: float
    patience: float | None  # seconds until it is cancelled


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        gap_seconds=st.sampled_from([0.0, 0.0, 0.01, 0.5, 3.0, 20.0]),
        session=st.sampled_from("abcd"),
        interactive=st.booleans(),
        tokens=st.integers(0, 500),
        deadline=st.sampled_from([0.0, 1.0, 5.0, 30.0, math.inf]),
        patience=st.sampled_from([None, None, 0.0, 2.0]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(ARRIVALS)
async def test_whatever_comes_limits_and_deadlines_hold(arrivals: list[Arrival]) -> None:
    """No window holds more than the limit and a burst, nobody goes after its deadline, and everybody ends."""
    limit = RateLimit(requests_per_minute=6, input_tokens_per_minute=500)
    desk = Desk(limit, used_up=False)
    passed: list[tuple[float, int]] = []

    async def one(arrival: Arrival) -> None:
        came = desk.clock.now
        try:
            await desk.admit(
                arrival.session, interactive=arrival.interactive, tokens=arrival.tokens, deadline=arrival.deadline
            )
        except WouldWait as told:
            assert told.retry_after_seconds > 0
            assert desk.clock.now <= came + arrival.deadline
            return
        assert desk.clock.now <= came + arrival.deadline + 1e-6
        passed.append((desk.clock.now, arrival.tokens))

    tasks = []
    for arrival in arrivals:
        await desk.clock.advance(arrival.gap_seconds)
        task = asyncio.ensure_future(one(arrival))
        if arrival.patience is not None:
            desk.clock.call_later(arrival.patience, task.cancel)
        tasks.append(task)
    await desk.clock.advance(60.0 * (len(arrivals) + 1))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    await desk.close()

    for first, (start, _) in enumerate(passed):
        for last in range(first, len(passed)):
            minutes = (passed[last][0] - start) / 60
            assert last - first + 1 <= 6 * (1 + minutes) + 0.001
            assert sum(tokens for _, tokens in passed[first : last + 1]) <= 500 * (1 + minutes) + 0.001
