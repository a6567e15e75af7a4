"""Live events: calls as they are recorded, for whoever listens; nothing while nobody does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.dashboard.conftest import NOW_MS, Asked
from tests.ledger.records import attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.dashboard.live import Live
from tierwise.dashboard.questions import Chosen
from tierwise.dashboard.refusals import Refused


async def until(events: AsyncGenerator[bytes], name: str) -> Any:
    """What the next event of that name carries."""
    async with asyncio.timeout(60):
        async for event in events:
            head, _, data = event.decode().strip().partition("\n")
            if head == f"event: {name}":
                return json.loads(data.removeprefix("data: "))
    raise AssertionError(f"no event {name}")


def quick(asked: Asked) -> Live:
    return Live(asked.dashboard.api, every_seconds=0.01)


async def test_a_call_is_told_when_it_begins_and_when_it_ends(empty: Asked) -> None:
    """First as open, then with what became of it, or late, once it ended; calls of before are not told."""
    asked = empty
    asked.ledger.record(call("before", started_at_ms=NOW_MS - 50_000), [attempt("before")])
    events = quick(asked).events()
    assert (await until(events, "totals"))["now"]["calls"] == 1
    opened = call("new", started_at_ms=NOW_MS + 1, status=CallStatus.OPEN, latency_ms=None)
    asked.ledger.start(opened, attempt("new", started_at_ms=NOW_MS + 1, outcome=OutcomeKind.OPEN))
    (told,) = (await until(events, "calls"))["items"]
    assert (told["call_id"], told["status"]) == ("new", "open")
    asked.ledger.end(attempt("new", started_at_ms=NOW_MS + 1), call("new", started_at_ms=NOW_MS + 1))
    (told,) = (await until(events, "calls"))["items"]
    assert (told["call_id"], told["status"]) == ("new", "answered")
    assert (await until(events, "totals"))["now"]["answered_calls"] == 2
    asked.ledger.record(call("late", started_at_ms=NOW_MS - 30_000), [attempt("late")])
    (told,) = (await until(events, "calls"))["items"]
    assert told["call_id"] == "late"
    await events.aclose()


async def test_whoever_comes_later_hears_how_the_day_stands(asked: Asked) -> None:
    """A second page does not wait for the next call to say what was spent."""
    live = quick(asked)
    first, second = live.events(), live.events()
    totals = await until(first, "totals")
    assert await until(second, "totals") == totals
    await first.aclose()
    await second.aclose()


async def test_a_call_that_runs_is_followed_however_many_come(empty: Asked) -> None:
    """Its end is told, though it is long since not among the latest."""
    events = quick(empty).events()
    await until(events, "totals")
    at = NOW_MS + 1
    opened = call("slow", started_at_ms=at, status=CallStatus.OPEN, latency_ms=None)
    empty.ledger.start(opened, attempt("slow", started_at_ms=at, outcome=OutcomeKind.OPEN))
    (told,) = (await until(events, "calls"))["items"]
    assert told["status"] == "open"
    for n in range(300):
        empty.ledger.record(call(f"quick-{n}", started_at_ms=at + 1), [attempt(f"quick-{n}")])
    heard: set[str] = set()
    while "quick-299" not in heard:
        heard |= {one["call_id"] for one in (await until(events, "calls"))["items"]}
    empty.ledger.end(attempt("slow", started_at_ms=at), call("slow", started_at_ms=at))
    statuses: dict[str, str] = {}
    while "slow" not in statuses:
        statuses |= {one["call_id"]: one["status"] for one in (await until(events, "calls"))["items"]}
    assert statuses["slow"] == "answered"
    await events.aclose()


async def test_more_calls_than_are_told_are_said_to_be_missed(empty: Asked) -> None:
    """Who listens knows that the log has a hole, and reads it anew."""
    live = quick(empty)
    events = live.events()
    empty.ledger.record(call("before", started_at_ms=NOW_MS), [attempt("before")])
    await until(events, "calls")
    many = [(call(f"c{n}", started_at_ms=NOW_MS + 1), [attempt(f"c{n}")]) for n in range(250)]
    empty.ledger.record_many(many)
    assert await until(events, "missed") == {}
    await events.aclose()


@pytest.mark.parametrize(
    "chosen",
    [
        Chosen(session="mine"),
        Chosen(project=""),
        Chosen(key=""),
        Chosen(key="", project="", task_type="tagging", tier="sonnet", model="m"),
    ],
)
async def test_calls_are_told_to_who_asked_for_them(empty: Asked, chosen: Chosen) -> None:
    """One conversation's alone, say, or those without a project; everybody hears the day's figures."""
    live = quick(empty)
    some, everything = live.events(chosen), live.events()
    await anext(everything)
    await until(some, "totals")
    others = {"session": "other", "project": "p", "key_id": "k", "started_at_ms": NOW_MS + 1}
    mine = {"session": "mine", "project": None, "key_id": None, "started_at_ms": NOW_MS + 2}
    empty.ledger.record(call("others", **others), [attempt("others")])
    own = call("mine", task_type="tagging", tier="sonnet", model="m", **mine)
    empty.ledger.record(own, [attempt("mine")])
    (told,) = (await until(some, "calls"))["items"]
    assert told["call_id"] == "mine"
    heard: list[str] = []
    while len(heard) < 2:
        heard += [one["call_id"] for one in (await until(everything, "calls"))["items"]]
    assert heard == ["others", "mine"]
    await some.aclose()
    await everything.aclose()


async def test_a_live_filter_that_is_misspelt_is_an_error(asked: Asked) -> None:
    """It must not let everything in."""
    assert "sesion" in (await asked.refused("/live", 400, sesion="x"))["what"]


async def test_nobody_looks_while_nobody_listens(asked: Asked) -> None:
    """The ledger is read once for all who listen, and not at all after the last has gone."""
    live = quick(asked)
    first, second = live.events(), live.events()
    await anext(first)
    await anext(second)
    assert live.listeners == 2
    task = live._task
    await first.aclose()
    assert live._task is task
    await second.aclose()
    assert live._task is None
    assert live.listeners == 0


async def test_whoever_is_too_slow_is_told_so(asked: Asked) -> None:
    """Events are left out rather than kept without end."""
    live = quick(asked)
    events = live.events()
    await anext(events)
    (listener,) = live._listeners
    for _ in range(100):
        listener.tell(b"event: calls\ndata: {}\n\n")
    found = [await anext(events) for _ in range(33)]
    assert found[-1].startswith(b"event: missed")
    await events.aclose()


async def test_listeners_are_counted(asked: Asked) -> None:
    """So many pages at most; the next is told to close one."""
    live = quick(asked)
    listening = [live.events() for _ in range(64)]
    for events in listening:
        await anext(events)
    with pytest.raises(Refused, match="listen already"):
        await anext(live.events())
    for events in listening:
        await events.aclose()


async def test_all_are_sent_away_when_it_ends(asked: Asked) -> None:
    """A page that listens does not hold the process up."""
    live = quick(asked)
    events = live.events()
    await anext(events)
    asked.runtime.stopping = True
    async with asyncio.timeout(60):
        async for _ in events:
            continue
