"""Several workers as clients and operators see them: like one gateway, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import HEADERS, HTTP, Process, Run, answers, settings_for
from tests.gateway.test_running import body, held, is_whole, statuses, streaming
from tierwise.core.calls import CallKind
from tierwise.core.decisions import CallStatus
from tierwise.core.errors import ConfigError
from tierwise.core.json import Json
from tierwise.core.money import Usage
from tierwise.core.settings import GatewaySettings, RateLimit
from tierwise.gateway.commons import Commons, Member
from tierwise.gateway.conversations import ConversationKey, KeySource
from tierwise.gateway.line import Frame, Line, pair
from tierwise.gateway.metrics import Figures, Over, Sample
from tierwise.gateway.server import listen
from tierwise.gateway.setup import Setup
from tierwise.gateway.shared import Shared
from tierwise.gateway.supervisor import Supervisor, WorkersFail
from tierwise.ledger import Ledger
from tierwise.policy.ratelimits import Family
from tierwise.testing import Fault, StandInUpstream

AUTO = "claude-tierwise-auto"
TWO = "[gateway]\nworkers = 2\n"
SECONDS = 60.0


def until(holds: Callable[[], bool], what: str = "") -> None:
    """Waits for something that will hold."""
    ends = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


def workers_of(gateway: Process) -> list[int]:
    """The process ids of a gateway's workers."""
    listed = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text("ascii")
    return [int(pid) for pid in listed.split()]


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] not in "ZX"
    return False


def ready(gateway: Process) -> dict[str, Any]:
    with suppress(httpx2.TransportError):  # a worker that is just going away
        answer = HTTP.get(f"{gateway.url}/readyz")
        found: dict[str, Any] = answer.json()
        return found
    return {}


@pytest.fixture
def run_two(run: Run) -> Callable[..., Process]:
    """Starts `tierwise serve` with two workers, and waits for both."""

    def start(upstream: StandInUpstream, gateway: str = "", toml: str = "") -> Process:
        process = run(upstream, f"{TWO}{gateway}\n{toml}")
        until(lambda: ready(process).get("workers") == 2)
        return process

    return start


@contextmanager
def at_each(gateway: Process) -> Iterator[list[httpx2.Client]]:
    """A client whose connection is at the first worker, and one whose is at the second."""
    found: dict[int, httpx2.Client] = {}
    with ExitStack() as stack:
        for _ in range(200):
            client = stack.enter_context(
                httpx2.Client(
                    base_url=gateway.url, headers=HEADERS, limits=httpx2.Limits(max_connections=1), timeout=60
                )
            )
            found.setdefault(client.get("/readyz").json()["worker"], client)
            if len(found) == 2:
                break
        yield [found[1], found[2]]


def post(client: httpx2.Client, content: str, path: str = "/v1/messages", **headers: str) -> httpx2.Response:
    return client.post(path, content=content, headers={name.replace("_", "-"): text for name, text in headers.items()})


def _calls_total(client: httpx2.Client) -> str:
    told = client.get("/metrics").text.splitlines()
    return "\n".join(line for line in told if line.startswith("tierwise_calls_total"))


# Serving


def test_workers_serve_like_one(run_two: Callable[..., Process], upstream: StandInUpstream) -> None:
    """Each answers, all calls are in one ledger, and `/metrics` is of all, whichever is asked."""
    gateway = run_two(upstream)
    with at_each(gateway) as clients:
        for client in clients:
            for _ in range(3):
                assert post(client, body()).status_code == 200
        for client in clients:
            # A worker that is slow to tell its figures is not waited for, and is in them the next time.
            until(lambda client=client: _calls_total(client).endswith(" 6.0"))  # type: ignore[misc]
            assert _calls_total(client).startswith('tierwise_calls_total{model="claude-haiku-5-5",status="answered"')
            assert "tierwise_ledger_healthy 1.0" in client.get("/metrics").text
    assert statuses(gateway) == [CallStatus.ANSWERED] * 6


def test_connections_are_spread_evenly(run_two: Callable[..., Process], upstream: StandInUpstream) -> None:
    """Each goes to the worker that has the fewest, also after others have ended."""
    gateway = run_two(upstream)
    with ExitStack() as stack:

        def connect() -> tuple[int, httpx2.Client]:
            client = stack.enter_context(httpx2.Client(base_url=gateway.url, timeout=60))
            return client.get("/readyz").json()["worker"], client

        opened = [connect() for _ in range(8)]
        assert Counter(worker for worker, _ in opened) == {1: 4, 2: 4}
        for worker, client in opened:
            if worker == 2:
                client.close()
        until(lambda: [connect()[0] for _ in range(2)] == [2, 2])


def test_a_limit_holds_over_all_workers(run_two: Callable[..., Process], upstream: StandInUpstream) -> None:
    """Four requests a minute are four, not four a worker; who is refused is told how long to wait."""
    gateway = run_two(upstream, "rate_limit_wait_seconds = 0.05", "[gateway.limits.haiku]\nrequests_per_minute = 4")
    began = time.monotonic()
    with at_each(gateway) as clients:
        answered = [post(clients[number % 2], body()) for number in range(10)]
    again = int((time.monotonic() - began) * 4 / 60)  # a slow machine has got some back by now
    assert 4 <= [one.status_code for one in answered].count(200) <= 4 + again
    refused = [one for one in answered if one.status_code != 200]
    assert {one.status_code for one in refused} == {429}
    with httpx2.Client(timeout=60) as client:
        limits = client.get(f"{gateway.url}/api/v1/limits").json()
    assert "headroom" in limits, limits
    (requests,) = (one for one in limits["headroom"] if one["measure"] == "requests")
    assert (requests["family"], requests["limit_per_minute"]) == ("haiku", 4)
    assert all(0 < int(one.headers["retry-after"]) <= 15 for one in refused)


def test_places_for_calls_are_counted_over_all_workers(
    run_two: Callable[..., Process], upstream: StandInUpstream
) -> None:
    """`gateway.max_connections` calls run at once, wherever; one that ends makes room at the other worker."""
    upstream.fail(Fault.stall(after_events=4), times=2)
    gateway = run_two(upstream, "max_connections = 2")
    with at_each(gateway) as clients, ExitStack() as stack:
        streams = [
            stack.enter_context(client.stream("POST", "/v1/messages", content=body(stream=True))) for client in clients
        ]
        assert [one.status_code for one in streams] == [200, 200]
        full = gateway.post(body())
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        assert "max_connections" in full.json()["error"]["message"]
        streams[0].close()
        until(lambda: gateway.post(body()).status_code == 200)


def test_a_conversation_stays_on_its_model_whichever_worker_has_it(
    run_two: Callable[..., Process], upstream: StandInUpstream
) -> None:
    """It began at one worker with a story; at the other, a cheaper question would not pay for moving."""
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 150_000, "output_tokens": 500}
    upstream.reply("a story", usage=usage, times=None)
    gateway = run_two(upstream)
    ask = "Write a short story about a lighthouse keeper"
    turns: list[Json] = [{"role": "user", "content": ask}]
    session = {"x_claude_code_session_id": "conversation-1"}
    tool: Json = {"name": "lookup", "description": "Looks up.", "input_schema": {"type": "object"}}
    fields: dict[str, Json] = {"tools": [tool], "stream": True}
    with at_each(gateway) as (one, other):
        assert post(one, body(AUTO, messages=turns, **fields), **session).status_code == 200
        one.get("/metrics")  # what it told the supervisor before has come there when this is answered
        turns += [
            {"role": "assistant", "content": "a story"},
            {"role": "user", "content": "Translate the title to German"},
        ]
        assert post(other, body(AUTO, messages=turns, **fields), **session).status_code == 200
    first, second = (call.json["model"] for call in upstream.calls() if isinstance(call.json, dict))
    assert first == second != "claude-haiku-5-5"
    with Ledger(gateway.ledger_path) as ledger:
        _, found = ledger.calls()
    assert "conversation" in [reason.step for reason in found.call.reasons]


def test_trouble_upstream_is_known_to_all_workers(run_two: Callable[..., Process], upstream: StandInUpstream) -> None:
    """A model's circuit that opens at one worker is open at the other, and on the dashboard of whichever answers."""
    gateway = run_two(
        upstream, toml="[limits]\ntransient_retries = 0\ncircuit_failures = 1\ncircuit_open_seconds = 600"
    )
    upstream.fail(Fault.status(529))
    with at_each(gateway) as clients:
        assert post(clients[0], body(AUTO)).status_code == 200
        for client in clients:
            until(
                lambda client=client: (  # type: ignore[misc]
                    [circuit["model"] for circuit in client.get("/api/v1/limits").json()["circuits"]]
                    == ["claude-haiku-5-5"]
                )
            )
        assert post(clients[1], body(AUTO)).status_code == 200
    models = [call.json["model"] for call in upstream.calls() if isinstance(call.json, dict)]
    assert len(models) == 3
    assert models.index("claude-haiku-5-5") == 0
    assert models.count("claude-haiku-5-5") == 1


# Ends


@dataclass(frozen=True)
class Seen:
    """A call that a client saw whole."""

    call_id: str


def load(url: str, stop: threading.Event, seen: list[Seen]) -> None:
    """Calls until it is told to stop; what breaks off was not seen."""
    with httpx2.Client(timeout=60) as client:
        number = 0
        while not stop.is_set():
            number += 1
            with suppress(httpx2.TransportError):
                answer = client.post(f"{url}/v1/messages", content=body(stream=number % 2 == 0), headers=HEADERS)
                if answer.status_code == 200 and (number % 2 or is_whole(answer.content)):
                    seen.append(Seen(answer.headers["x-tierwise-call-id"]))


def test_a_killed_worker_is_replaced_and_nothing_is_lost(
    run_two: Callable[..., Process], upstream: StandInUpstream
) -> None:
    """kill -9 under load: the others go on, and each call that a client saw whole is in the ledger once."""
    gateway = run_two(upstream)
    seen: list[Seen] = []
    stop = threading.Event()
    with ThreadPoolExecutor(6) as pool:
        try:
            for _ in range(6):
                pool.submit(load, gateway.url, stop, seen)
            for _ in range(2):
                so_far = len(seen)
                until(lambda so_far=so_far: len(seen) > so_far + 40)  # type: ignore[misc]
                killed = workers_of(gateway)[0]
                os.kill(killed, signal.SIGKILL)
                until(lambda killed=killed: killed not in workers_of(gateway))  # type: ignore[misc]
                until(lambda: len(workers_of(gateway)) == 2)
            so_far = len(seen)
            until(lambda: len(seen) > so_far + 40)
        finally:
            stop.set()
    until(lambda: ready(gateway).get("workers") == 2)
    assert "SIGKILL" in gateway.wait_for_log("another one starts")
    until(lambda: "tierwise_running_calls 0.0" in HTTP.get(f"{gateway.url}/metrics").text)
    gateway.process.terminate()
    assert gateway.ended() == 0
    with Ledger(gateway.ledger_path) as ledger:
        assert ledger.check() == []
        found = [call.call for call in ledger.calls()]
    assert len({call.call_id for call in found}) == len(found)
    answered = {call.call_id for call in found if call.status is CallStatus.ANSWERED}
    assert {one.call_id for one in seen} <= answered
    for call in found:
        assert call.status is CallStatus.ANSWERED or "its process ended" in (call.error or ""), call


def test_a_killed_supervisor_leaves_no_worker(run_two: Callable[..., Process], upstream: StandInUpstream) -> None:
    """They end by themselves, a stream that ran ends well formed and recorded, and the port is free."""
    upstream.fail(Fault.stall(after_events=4))
    gateway = run_two(upstream)
    pids = workers_of(gateway)
    assert len(pids) == 2
    with streaming(gateway.url) as (rest, got):
        gateway.process.kill()
        got.extend(rest)
    assert b"".join(got).rstrip().rsplit(b"\n\n", 1)[-1].startswith(b"event: error\n")
    until(lambda: not any(map(is_running, pids)), "a worker outlived its supervisor")
    assert not answers(gateway.url)
    assert statuses(gateway) == [CallStatus.CANCELLED]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_streams_of_all_workers_end(
    run_two: Callable[..., Process], upstream: StandInUpstream, number: signal.Signals
) -> None:
    """Nobody is cut off, who comes meanwhile is told so, and then all of it ends with 0."""
    go = threading.Event()
    upstream.fail(held(go), times=2)
    gateway = run_two(upstream)
    with at_each(gateway) as clients, ExitStack() as stack:
        streams = [
            stack.enter_context(client.stream("POST", "/v1/messages", content=body(stream=True))) for client in clients
        ]
        whole = [stream.iter_raw() for stream in streams]
        got = [[next(pieces)] for pieces in whole]
        pids = workers_of(gateway)
        if number is signal.SIGINT:  # as a terminal does
            for pid in pids:
                os.kill(pid, number)
        gateway.process.send_signal(number)
        until(lambda: HTTP.get(f"{gateway.url}/readyz").status_code == 503)
        assert gateway.post(body()).status_code == 503
        go.set()
        for pieces, rest in zip(got, whole, strict=True):
            pieces.extend(rest)
    assert all(is_whole(b"".join(pieces)) for pieces in got)
    assert gateway.ended() == 0
    assert statuses(gateway) == [CallStatus.ANSWERED] * 2
    assert not any(map(is_running, pids))


def test_draining_ends_for_all_workers_when_its_time_is_over(
    run_two: Callable[..., Process], upstream: StandInUpstream
) -> None:
    """Streams that do not end get an error event, and are recorded as cancelled."""
    upstream.fail(Fault.stall(after_events=4), times=2)
    gateway = run_two(upstream, "drain_seconds = 0.2")
    with at_each(gateway) as clients, ExitStack() as stack:
        streams = [
            stack.enter_context(client.stream("POST", "/v1/messages", content=body(stream=True))) for client in clients
        ]
        gateway.process.terminate()
        for stream in streams:
            assert b"event: error" in b"".join(stream.iter_raw())
    assert gateway.ended() == 0
    assert statuses(gateway) == [CallStatus.CANCELLED] * 2


def test_a_worker_that_is_told_to_end_is_replaced(run_two: Callable[..., Process], upstream: StandInUpstream) -> None:
    """SIGTERM to one worker lets its stream come to its end; another one takes its place."""
    go = threading.Event()
    upstream.fail(held(go))
    gateway = run_two(upstream)
    before = workers_of(gateway)
    with streaming(gateway.url) as (rest, got):
        for pid in before:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGTERM)
        until(lambda: not set(before) <= set(workers_of(gateway)))  # the one that has nothing to do ends at once
        go.set()
        got.extend(rest)
    assert is_whole(b"".join(got))
    until(lambda: len(workers_of(gateway)) == 2 and not set(before) & set(workers_of(gateway)))
    until(lambda: ready(gateway).get("workers") == 2)
    assert gateway.post(body()).status_code == 200


def test_workers_that_end_as_soon_as_they_start_are_an_error(
    upstream: StandInUpstream, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is not tried for ever, and the message says what happened and what to do."""
    settings = settings_for(upstream, tmp_path)
    supervisor = Supervisor(
        settings,
        listen("127.0.0.1", 0),
        workers=2,
        setup=Setup(log_level="nonsense"),
        reload=lambda: settings,
    )
    with pytest.raises(WorkersFail, match=r"exit status 1, 6 times in a row.*--workers 1"):
        supervisor.run()
    assert "NONSENSE" in capfd.readouterr().err


# The configuration


def test_a_bad_file_is_told_of_once_and_changes_no_worker(
    run_two: Callable[..., Process], upstream: StandInUpstream
) -> None:
    """Nor the one that starts afterwards; a good file reaches all of them."""
    gateway = run_two(upstream)
    good = gateway.config.read_text()
    gateway.config.write_text(good.replace("workers = 2", "workers = 2\nmode = 'fast'"))
    gateway.process.send_signal(signal.SIGHUP)
    assert gateway.wait_for_log("the one before stays").count("the one before stays") == 1
    os.kill(workers_of(gateway)[0], signal.SIGKILL)
    gateway.wait_for_log("another one starts")
    until(lambda: ready(gateway).get("workers") == 2)
    assert gateway.post(body()).status_code == 200
    gateway.config.write_text(good.replace("workers = 2", 'workers = 2\nrouted_models = ["claude-haiku-5-5"]'))
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for_log("was read anew")
    with at_each(gateway) as clients:
        for client in clients:
            assert client.get("/v1/models").json()["data"][0]["display_name"] == "tierwise: claude-haiku-5-5"


def test_workers_are_at_least_one(upstream: StandInUpstream, tmp_path: Path) -> None:
    """A number that cannot be is refused before anything starts."""
    with pytest.raises(ConfigError, match=r"gateway\.workers"):
        settings_for(upstream, tmp_path, "[gateway]\nworkers = 0")


# What they share, without processes


@dataclass
class Joined:
    """A worker's side of the commons, and the member that stands for it there."""

    shared: Shared
    member: Member
    line: Line
    gone: asyncio.Event


def join(commons: Commons) -> Joined:
    ours, theirs = pair()
    member, gone = Member(), asyncio.Event()

    def heard(frame: Frame) -> None:
        assert commons.heard(member, frame), frame

    def ended() -> None:
        commons.leaves(member)
        gone.set()

    member.line = Line(ours, heard, ended)
    member.ready = True
    commons.members.add(member)
    shared = Shared(1)
    line = Line(theirs, lambda frame: None if shared.heard(frame) else pytest.fail(str(frame)), shared.ended)
    shared.opens(line)
    return Joined(shared, member, line, gone)


HAIKU = Family("anthropic", "haiku")


async def test_who_dies_leaves_its_places_and_its_line() -> None:
    """What waited for a rate limit at a worker that is gone keeps nobody waiting, and its calls count no more."""
    limits = {"haiku": RateLimit(requests_per_minute=1)}
    commons = Commons(GatewaySettings(max_connections=2, limits=limits))
    one, other = join(commons), join(commons)
    assert [await one.shared.enter(), await one.shared.enter(), await other.shared.enter()] == [True, True, False]
    ticket = await one.shared.admission.admit(HAIKU, "s", interactive=True, input_tokens=1, output_tokens=1)
    waits = [
        asyncio.ensure_future(who.shared.admission.admit(HAIKU, "s", interactive=True, input_tokens=1, output_tokens=1))
        for who in (one, other)
    ]
    await asyncio.sleep(0)
    while commons.admission.waiting < 2:
        await asyncio.sleep(0.001)
    one.line.close()
    await one.gone.wait()
    await asyncio.sleep(0)
    assert commons.admission.waiting == 1
    assert await other.shared.enter()
    waits[1].cancel()
    await asyncio.gather(*waits[1:], return_exceptions=True)
    waits[0].cancel()
    while commons.admission.waiting:
        await asyncio.sleep(0.001)
    ticket.cancel()  # to a supervisor that is gone, nothing is said
    other.line.close()


async def test_a_conversation_is_the_same_at_every_worker() -> None:
    """All that is known of it, the warm cache too; what was never seen is known nowhere."""
    commons = Commons(GatewaySettings())
    one, other = join(commons), join(commons)
    key = ConversationKey("c", "c", None, KeySource.PREFIX)
    usage = Usage(input_tokens=10, output_tokens=20, cache_write_1h_tokens=3_000, cache_read_tokens=7)
    for turn in range(3):
        noted = one.shared.conversations.note(key, "claude-opus-5-5", usage, 1000.5 + turn, "anthropic#2")
    assert other.shared.conversations.get(key) is None
    await other.shared.conversations.fetch(key)
    assert other.shared.conversations.get(key) == noted == commons.conversations.get(key)
    await other.shared.conversations.fetch(ConversationKey("d", "d", None, KeySource.PREFIX))
    assert len(other.shared.conversations) == 1
    one.line.close()
    other.line.close()


async def test_a_stream_that_broke_is_known_at_every_worker() -> None:
    """Whoever asks again in one piece is known for it, wherever, once its conversation was fetched."""
    commons = Commons(GatewaySettings())
    one, other = join(commons), join(commons)
    asked: dict[str, Json] = {"model": "m", "messages": [], "stream": True}
    one.shared.broken.note("s", asked, CallKind.MAIN, 1000.0)
    await other.shared.conversations.fetch(ConversationKey("s", "s", None, KeySource.PREFIX))
    again: dict[str, Json] = {**asked, "stream": False, "max_tokens": 9}
    for worker in (one, other):
        assert worker.shared.broken.asked_again("s", again, 1001.0) is CallKind.MAIN
    one.line.close()
    other.line.close()


async def test_frames_come_whole_however_they_are_cut() -> None:
    """Byte by byte, several at once, and larger than what a socket takes."""
    ours, theirs = pair()
    got: list[Frame] = []
    ended = asyncio.Event()
    Line(theirs, got.append, ended.set)
    frames: list[list[Json]] = [["a"], ["b", 1, None, "ü€"], ["c", "x" * 3_000_000], ["d", [1.5, {"k": []}]]]
    mine = Line(ours, got.append, ended.set)
    for frame in frames:
        mine.tell(*frame)
    while len(got) < len(frames):
        await asyncio.sleep(0.001)
    assert got == frames
    mine.close()
    await ended.wait()
    assert not mine.open


def test_what_a_worker_counted_outlasts_it() -> None:
    """Counters never go back when a worker ends; what was the state of it goes with it."""
    figures = Figures()
    label = (("tier", "haiku"),)

    def told(worker: str, calls: float, running: float, healthy: float) -> None:
        figures.told(
            worker,
            [
                Sample("calls_total", label, calls, Over.SUM),
                Sample("running", (), running, Over.NOW),
                Sample("healthy", (), healthy, Over.WORST),
            ],
        )

    def total() -> dict[str, float]:
        return {sample.name: sample.value for sample in figures.total()}

    told("one", 5, 2, 0)
    told("other", 7, 1, 1)
    assert total() == {"calls_total": 12, "running": 3, "healthy": 0}
    told("one", 6, 0, 0)
    figures.gone("one")
    assert total() == {"calls_total": 13, "running": 1, "healthy": 1}
    figures.gone("other")
    assert total() == {"calls_total": 13}
