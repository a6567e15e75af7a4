"""Whatever an upstream, a disk or an operator does: clients get a well-formed end, and no call is lost."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.gateway.conftest import HEADERS, HTTP, Run, Serve, Served
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.ledger import Ledger
from tierwise.ledger.budgets import BudgetPeriod, Budgets, BudgetScope
from tierwise.testing import Fault, StandInReply, StandInUpstream
from tierwise.wire.sse import SseParser

AUTO = "claude-tierwise-auto"
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
LONG = StandInReply.of_text("word " * 200, usage={"input_tokens": 100, "output_tokens": 50})


def body(model: str = "claude-haiku-5-5", **fields: Any) -> str:
    asked = [{"role": "user", "content": "Summarise this ticket in one line: it burns"}]
    return json.dumps({"model": model, "max_tokens": 64, "messages": asked, **fields})


def assert_well_formed_failure(answer: httpx2.Response, *, chat: bool) -> None:
    """An error status with the dialect's error, or a stream that ends with one."""
    if answer.status_code == 200:
        last = list(SseParser().feed(answer.content))[-1]
        assert last.event == ("message" if chat else "error"), answer.content
        error = json.loads(last.data)
        assert b"[DONE]" not in answer.content
    else:
        error = answer.json()
    assert isinstance(error["error"]["message"], str)
    assert isinstance(error["error"]["type"], str)
    assert ("type" not in error) is chat


FAULTS = {
    "reset at once": Fault.reset(),
    "reset in the middle": Fault.reset(after_events=3, reply=LONG),
    "cut at once": Fault.cut(),
    "cut in the middle": Fault.cut(after_events=3, reply=LONG),
    "silent in the middle": Fault.stall(after_events=3, reply=LONG),
    "an event that is no JSON": Fault.malformed_json(),
    "a page instead of an answer": Fault.malformed_sse(),
    "an error event": Fault.error_event(after_events=3),
    "500": Fault.status(500),
    "a proxy's 502": Fault.status(502, body=HTML, headers={"content-type": "text/html"}),
    "an empty 503": Fault.status(503, body=b""),
    "a redirect": Fault.status(302, headers={"location": "http://169.254.169.254/"}, body=b""),
}


def impatient(name: str) -> str:
    """For a fault that is a silence a short time limit; for the others none that a slow machine could come to."""
    return f"[providers.anthropic]\nidle_timeout_seconds = {1.0 if name == 'silent in the middle' else 60.0}\n"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_upstream_ends_well_formed(serve: Serve, upstream: StandInUpstream, name: str, path: str) -> None:
    """In the client's dialect and as a failure in the ledger; an upstream's own answer is passed on as it is."""
    gateway = serve(upstream, impatient(name))
    upstream.fail(FAULTS[name], times=2)
    for stream in (True, False):
        answer = gateway.post(body(stream=stream), path)
        if "chat" not in path and name in ("a proxy's 502", "an empty 503", "a redirect"):
            assert answer.status_code == FAULTS[name].code
            assert answer.content == FAULTS[name].body
        else:
            assert_well_formed_failure(answer, chat="chat" in path)
    for found in gateway.calls():
        assert found.call.status is CallStatus.FAILED
        assert found.attempts[0].outcome is not OutcomeKind.ACCEPTED
    for stream in (True, False):
        assert gateway.post(body(stream=stream), path).status_code == 200


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_routed_call_outlives_a_fault(serve: Serve, upstream: StandInUpstream, name: str) -> None:
    """Not a byte of the broken attempt reaches the client while its model may still be left."""
    gateway = serve(upstream, f"{impatient(name)}[limits]\nbackoff_base_seconds = 0.01")
    upstream.reply('{"a": 1}', times=None)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    config = {"format": {"type": "json_schema", "schema": schema}}
    for stream in (True, False):
        upstream.fail(FAULTS[name])
        answer = gateway.post(body(AUTO, stream=stream, output_config=config))
        if name == "a redirect":  # is no trouble of the moment: told as it is
            assert answer.status_code == 302
            continue
        assert answer.status_code == 200
        assert b"nginx" not in answer.content
        assert b"word" not in answer.content
        found = max(gateway.calls(), key=lambda one: one.call.call_id)
        assert found.call.status is CallStatus.ANSWERED
        if stream or not name.endswith("at once"):  # on a connection that was kept, that means nothing
            assert [attempt.outcome is OutcomeKind.ACCEPTED for attempt in found.attempts] == [False, True]


def test_an_upstream_that_is_silent_from_the_start_is_left_at_the_deadline(
    serve: Serve, upstream: StandInUpstream
) -> None:
    """504 when the request's own deadline is over, and the upstream sees the hang-up; the prompt counts as used."""
    upstream.fail(Fault.stall(), times=None)
    gateway = serve(upstream)
    answer = gateway.post(body(), x_tierwise_deadline="2")
    assert answer.status_code == 504
    assert answer.json()["error"]["type"] == "timeout_error"
    assert upstream.requests[0].wait_finished()
    (attempt,) = gateway.call().attempts
    assert attempt.outcome is OutcomeKind.TIMEOUT
    assert attempt.usage.estimated
    assert (attempt.cost_nanousd or 0) > 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_length_that_is_a_lie_is_noticed(serve: Serve, upstream: StandInUpstream, stream: bool) -> None:
    """A body that ends too early is no answer; a stream that has its last event is whole, whatever its length said."""
    upstream.fail(Fault.lie_about_length())
    gateway = serve(upstream)
    answer = gateway.post(body(stream=stream))
    if stream:
        assert answer.content.rstrip().endswith(b'{"type": "message_stop"}')
    else:
        assert_well_formed_failure(answer, chat=False)
    assert gateway.call().call.status is (CallStatus.ANSWERED if stream else CallStatus.FAILED)


# Bytes

_TEXTS = st.text(max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, width=32) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": _TEXTS}, optional={"cache_control": _VALUES}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": _TEXTS, "signature": _TEXTS}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": _TEXTS}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "id": _TEXTS, "name": _TEXTS, "input": _VALUES}),
    st.fixed_dictionaries({"type": st.just("tool_result"), "tool_use_id": _TEXTS, "content": _VALUES}),
    st.fixed_dictionaries({"type": st.just("image"), "source": _VALUES}),
    st.fixed_dictionaries({"type": _TEXTS}, optional={"x": _VALUES}),
    _VALUES,
)
_MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]) | _TEXTS,
        "content": _TEXTS | st.lists(_BLOCKS, max_size=4),
    },
    optional={"x": _VALUES},
)
_HISTORIES = st.fixed_dictionaries(
    {"messages": st.lists(_MESSAGES | _VALUES, max_size=5) | _VALUES},
    optional={
        "system": _VALUES | st.lists(_BLOCKS, max_size=2),
        "tools": st.lists(_VALUES, max_size=2) | _VALUES,
        "metadata": _VALUES | st.fixed_dictionaries({"user_id": _TEXTS | st.just('{"session_id": "\\ud800"}')}),
        "max_tokens": _VALUES,
        "thinking": _VALUES,
        "output_config": _VALUES,
        "tool_choice": _VALUES,
        "temperature": _VALUES,
        "x-future": _VALUES,
    },
)


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory, stopping: list[threading.Thread]) -> Iterator[Served]:
    """One gateway for many requests, before an upstream that takes anything."""
    from tests.gateway.conftest import serve as fixture

    factory = fixture.__wrapped__(tmp_path_factory.mktemp("lenient"), stopping)  # type: ignore[attr-defined]  # the function itself
    with StandInUpstream(strict=False) as upstream:
        start = next(factory)
        yield start(upstream)
        with pytest.raises(StopIteration):
            next(factory)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=_HISTORIES, stream=st.booleans(), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_any_history_goes_up_byte_for_byte(
    lenient: Served, history: dict[str, Any], stream: bool, indent: int | None, ascii_only: bool
) -> None:
    """Thinking, tools, images, system turns, blocks that nobody knows, wrong ones: it is the upstream's to judge."""
    value = {"model": "claude-opus-5-5", "stream": stream, **history}
    sent = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    lenient.upstream.requests.clear()
    answer = lenient.post(sent)
    assert answer.status_code < 500, answer.text
    (request,) = lenient.upstream.requests
    assert request.body == sent
    assert answer.headers["x-tierwise-call-id"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=st.text(min_size=1, max_size=60),
    thinking=st.none() | st.text(max_size=20),
    piece_bytes=st.integers(1, 400),
    routed=st.booleans(),
)
def test_a_stream_comes_down_byte_for_byte_however_it_is_split(
    lenient: Served, text: str, thinking: str | None, piece_bytes: int, routed: bool
) -> None:
    """Every split of the upstream's, also within a character or a line end, with and without being held back."""
    assume(text.strip())  # a blank reply is refused where another model may do better
    reply = StandInReply.of_text(text, thinking=thinking)
    content = body(AUTO if routed else "claude-haiku-5-5", stream=True)
    model = "claude-haiku-5-5"
    lenient.upstream.fail(Fault.trickle(piece_bytes, reply=reply))
    through = lenient.post(content).content
    lenient.upstream.reply(reply)
    direct = HTTP.post(f"{lenient.upstream.url}/v1/messages", content=body(model, stream=True), headers=HEADERS)
    assert _without_ids(through) == _without_ids(direct.content)


def test_a_stream_that_is_split_at_every_single_byte_comes_down_whole(lenient: Served) -> None:
    """Also in the other dialect, where it is written anew: the same text, and usage in the last chunk."""
    reply = StandInReply.of_text("zwölf 🐟 und\r\n\r\nmehr", thinking="hm")
    asked = body(stream=True, stream_options={"include_usage": True})
    texts = set()
    for piece_bytes in (1, 2, 3, 7, 10_000):
        lenient.upstream.fail(Fault.trickle(piece_bytes, reply=reply))
        content = lenient.post(asked, "/v1/chat/completions").content
        assert content.endswith(b"data: [DONE]\n\n")
        chunks = [json.loads(event.data) for event in SseParser().feed(content) if event.data != "[DONE]"]
        assert chunks[-1]["usage"]["total_tokens"] > 0
        texts.add("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1]))
    assert texts == {"zwölf 🐟 und\r\n\r\nmehr"}


def _without_ids(content: bytes) -> bytes:
    """What differs from call to call in the stand-in: ids that it counts up."""
    return re.sub(rb"(msg|req)_[A-Za-z0-9_]+", b"id", content)


# The ledger


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes and does not come to an end."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


def test_calls_flow_while_the_ledger_is_locked(serve: Serve, upstream: StandInUpstream) -> None:
    """JSON and streams; `/readyz` says what is wrong; with the lock gone every call is there once, with its cost."""
    gateway = serve(upstream, "[ledger]\nbusy_timeout_ms = 50")
    first = gateway.post(body())
    with locked(gateway.ledger_path):
        answers = [gateway.post(body(stream=stream)) for stream in (True, False) * 10]
        told = HTTP.get(f"{gateway.url}/readyz").json()
        assert told["ready"] is True
        assert "another process is writing" in told["ledger"]
        assert "tierwise_ledger_healthy 0.0" in HTTP.get(f"{gateway.url}/metrics").text
    answers += [first, gateway.post(body())]
    assert {answer.status_code for answer in answers} == {200}
    assert HTTP.get(f"{gateway.url}/readyz").json()["ledger"] == "ok"
    found = {call.call.call_id: call for call in gateway.calls()}
    assert found.keys() == {answer.headers["x-tierwise-call-id"] for answer in answers}
    for call in found.values():
        assert call.call.status is CallStatus.ANSWERED
        assert (call.attempts[0].cost_nanousd or 0) > 0


def test_calls_flow_while_the_disk_is_full(run: Run, upstream: StandInUpstream, tmp_path: Path) -> None:
    """What does not fit beside the ledger waits elsewhere; with room again every call is there once."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    try:
        gateway = run(upstream, ledger=small / "ledger.db")
        ids = {gateway.post(body()).headers["x-tierwise-call-id"]}
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        for stream in (True, False) * 40:
            answer = gateway.post(body(stream=stream))
            assert answer.status_code == 200
            ids.add(answer.headers["x-tierwise-call-id"])
        assert "full" in HTTP.get(f"{gateway.url}/readyz").json()["ledger"]
        filler.unlink()
        ids.add(gateway.post(body()).headers["x-tierwise-call-id"])
        assert HTTP.get(f"{gateway.url}/readyz").json()["ledger"] == "ok"
        gateway.process.terminate()
        assert gateway.ended() == 0
        assert "spool" in gateway.log.read_text()
        with Ledger(small / "ledger.db") as ledger:
            found = list(ledger.calls())
        assert {call.call.call_id for call in found} == ids
        assert {call.call.status for call in found} == {CallStatus.ANSWERED}
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


# Killed


@dataclass(frozen=True)
class Seen:
    """A call that a client has the whole answer of."""

    call_id: str
    output_tokens: int


def _load(url: str, stop: threading.Event, seen: list[Seen], number: int) -> None:
    """Sends calls one after the other and notes those that came whole, until there is nobody any more."""
    with httpx2.Client(timeout=60) as client:
        while not stop.is_set():
            stream = number % 2 == 0
            number += 2 if number % 3 else 3
            try:
                answer = client.post(f"{url}/v1/messages", content=body(stream=stream), headers=HEADERS)
            except httpx2.TransportError:
                continue
            whole = b'{"type": "message_stop"}' in answer.content if stream else answer.content.endswith(b"}")
            if answer.status_code == 200 and whole:
                tokens = re.findall(rb'"output_tokens": (\d+)', answer.content)
                seen.append(Seen(answer.headers["x-tierwise-call-id"], int(tokens[-1])))


def test_killed_under_load_it_has_every_call_that_a_client_saw_whole(run: Run, upstream: StandInUpstream) -> None:
    """kill -9 again and again: after a restart each such call is there once, answered, at its exact cost."""
    upstream.reply(LONG, times=None)
    seen: list[Seen] = []
    for _ in range(3):
        gateway = run(upstream)
        before, stop = len(seen), threading.Event()
        with ThreadPoolExecutor(8) as pool:
            for number in range(8):
                pool.submit(_load, gateway.url, stop, seen, number)
            ends = time.monotonic() + 60
            while len(seen) < before + 150:
                assert time.monotonic() < ends
                time.sleep(0.01)
            gateway.process.send_signal(signal.SIGKILL)
            stop.set()
        assert gateway.ended() == -signal.SIGKILL
    gateway = run(upstream)
    assert gateway.post(body()).status_code == 200
    gateway.process.terminate()
    assert gateway.ended() == 0
    with Ledger(gateway.ledger_path) as ledger:
        assert ledger.check() == []
        calls = list(ledger.calls())
    found = {call.call.call_id: call for call in calls}
    assert len(found) == len(calls)
    assert len(seen) >= 450
    for one in seen:
        call = found[one.call_id]
        assert call.call.status is CallStatus.ANSWERED
        (attempt,) = call.attempts
        assert (attempt.usage.output_tokens, attempt.usage.estimated) == (one.output_tokens, False)
        assert attempt.cost_nanousd == 100 * 100 + one.output_tokens * 500
    whole = {one.call_id for one in seen}
    for call in calls:  # what was under way is there as well
        under_way = call.call.status is CallStatus.FAILED and "its process ended" in (call.call.error or "")
        assert call.call.call_id in whole or under_way or call.call.status is CallStatus.ANSWERED


def test_what_a_killed_gateway_had_set_aside_is_free_again(run: Run, upstream: StandInUpstream) -> None:
    """A call under way when it was killed does not keep its successor from answering."""
    upstream.fail(Fault.stall(after_events=2))
    gateway = run(upstream)
    now_ms = time.time_ns() // 1_000_000
    with Ledger(gateway.ledger_path) as ledger:
        Budgets(ledger).set(BudgetScope.ALL, "", BudgetPeriod.DAY, 60_000, now_ms)  # one call may cost half of that
    time.sleep(1.1)  # after which the running gateway knows of it
    with HTTP.stream("POST", f"{gateway.url}/v1/messages", content=body(stream=True), headers=HEADERS) as answer:
        assert answer.status_code == 200
        with Ledger(gateway.ledger_path) as ledger:
            (standing,) = Budgets(ledger).standings(now_ms)
        assert standing.reserved_nanousd > 30_000
        assert gateway.post(body()).status_code == 402
        gateway.process.kill()
        gateway.ended()
    assert run(upstream).post(body()).status_code == 200
