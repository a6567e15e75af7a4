"""A gateway as its operator sees it: it stops when told, reads its configuration anew, and says what is wrong."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import HEADERS, HTTP, Process, Run, answers
from tierwise.core.decisions import CallStatus
from tierwise.ledger import Ledger
from tierwise.testing import Fault, StandInReply, StandInUpstream

AUTO = "claude-tierwise-auto"
LONG = StandInReply.of_text("a word and then another " * 40)  # 80 events


def body(model: str = "claude-haiku-5-5", **fields: Any) -> str:
    asked = [{"role": "user", "content": "Summarise this ticket in one line: it burns"}]
    return json.dumps({"model": model, "max_tokens": 64, "messages": asked, **fields})


def held(go: threading.Event) -> Fault:
    """A whole stream that pauses in its middle until `go` is set."""
    return Fault.stall(after_events=4, until=go, reply=LONG)


@contextmanager
def streaming(url: str) -> Iterator[tuple[Iterator[bytes], list[bytes]]]:
    """A stream of which the first bytes are there: the rest of it, and what has come."""
    with (
        httpx2.Client(timeout=60) as client,
        client.stream("POST", f"{url}/v1/messages", content=body(stream=True), headers=HEADERS) as answer,
    ):
        assert answer.status_code == 200
        rest = answer.iter_raw()
        yield rest, [next(rest)]


def is_whole(content: bytes) -> bool:
    return content.rstrip().endswith(b'{"type": "message_stop"}') and b"event: error" not in content


def statuses(process: Process) -> list[CallStatus]:
    with Ledger(process.ledger_path) as ledger:
        return [found.call.status for found in ledger.calls()]


def until_stopping(gateway: Process) -> None:
    """Waits until a gateway that was told to stop knows it."""
    ends = time.monotonic() + 60
    while HTTP.get(f"{gateway.url}/readyz").status_code == 200:
        assert time.monotonic() < ends
        time.sleep(0.02)


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_stream_come_to_its_end(run: Run, upstream: StandInUpstream, number: signal.Signals) -> None:
    """Who comes meanwhile is told to come again, `/readyz` says that it is not, and then it ends with 0."""
    go = threading.Event()
    upstream.fail(held(go))
    gateway = run(upstream)
    with streaming(gateway.url) as (rest, got):
        gateway.process.send_signal(number)
        until_stopping(gateway)
        refused = gateway.post(body())
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "stopping" in refused.json()["error"]["message"]
        chat = gateway.post(body(), "/v1/chat/completions")
        assert (chat.status_code, "type" in chat.json()) == (503, False)
        go.set()
        got.extend(rest)
    assert is_whole(b"".join(got))
    assert gateway.ended() == 0
    assert statuses(gateway) == [CallStatus.ANSWERED]
    assert not answers(gateway.url)


def test_what_takes_longer_than_draining_may_is_ended_well_formed(run: Run, upstream: StandInUpstream) -> None:
    """An error event for the client, and a call in the ledger that was cancelled."""
    upstream.fail(Fault.stall(after_events=4))
    gateway = run(upstream, "[gateway]\ndrain_seconds = 0.2")
    with streaming(gateway.url) as (rest, got):
        gateway.process.terminate()
        got.extend(rest)
    last = b"".join(got).rstrip().rsplit(b"\n\n", 1)[-1]
    assert last.startswith(b"event: error\n")
    assert gateway.ended() == 0
    assert statuses(gateway) == [CallStatus.CANCELLED]


def test_a_second_signal_does_not_wait(run: Run, upstream: StandInUpstream) -> None:
    """Whoever presses Ctrl-C twice means it; what was open is recorded all the same."""
    upstream.fail(Fault.stall(after_events=4))
    gateway = run(upstream)
    with streaming(gateway.url) as (rest, got):
        gateway.process.send_signal(signal.SIGINT)
        until_stopping(gateway)  # two that come at once are one
        gateway.process.send_signal(signal.SIGINT)
        got.extend(rest)
    assert gateway.ended() == 0
    assert statuses(gateway) == [CallStatus.CANCELLED]


# Reading the configuration anew


@pytest.mark.parametrize("how", ["a signal", "a changed file"])
def test_reloading_drops_no_stream(run: Run, upstream: StandInUpstream, how: str) -> None:
    """A running stream goes on under the configuration that it began with; the next call has the new one."""
    go = threading.Event()
    upstream.fail(held(go))
    gateway = run(upstream)
    before = gateway.config.read_text()
    with streaming(gateway.url) as (rest, got):
        gateway.config.write_text(f'{before}\n[gateway]\nrouted_models = ["claude-haiku-5-5"]\n')
        if how == "a signal":
            gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for_log("was read anew")
        upstream.reply("routed")
        answer = gateway.post(body("claude-haiku-5-5"))
        assert answer.status_code == 200
        go.set()
        got.extend(rest)
    assert is_whole(b"".join(got))
    models = HTTP.get(f"{gateway.url}/v1/models", headers=HEADERS).json()
    assert models["data"][0]["display_name"] == "tierwise: claude-haiku-5-5"
    with Ledger(gateway.ledger_path) as ledger:
        first, second = ledger.calls()
    assert (first.call.status, second.call.status) == (CallStatus.ANSWERED, CallStatus.ANSWERED)
    for found in (first, second):
        assert found.call.task_type == "summarization"
        assert "unclassified" not in [reason.step for reason in found.call.reasons]
    assert not [reason for reason in first.call.reasons if reason.step == "rule"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("[gateway\n", "TOML"),
        ("[gateway]\nmode = 'fast'\n", "mode"),
        ("[gateway]\nupstream = 'nowhere'\n", "upstream"),
        ("[providers.loop]\nkind = 'anthropic'\nbase_url = 'URL'\n", "points at this gateway itself"),
        (None, ""),
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(
    run: Run, upstream: StandInUpstream, bad: str | None, words: str
) -> None:
    """The configuration before stays, the log says why, and a good file is taken the next time."""
    gateway = run(upstream)
    good = gateway.config.read_text()
    if bad is None:
        gateway.config.unlink()
    else:
        gateway.config.write_text(good + bad.replace("URL", gateway.url))
    gateway.process.send_signal(signal.SIGHUP)
    log = gateway.wait_for_log("the one before stays")
    assert words in log
    assert "Traceback" not in log
    assert gateway.post(body()).status_code == 200
    gateway.config.write_text(good)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for_log("was read anew")
    assert gateway.post(body()).status_code == 200


def test_ceilings_are_reloaded_too(run: Run, upstream: StandInUpstream) -> None:
    """One that is raised lets through at once who waits for it."""
    gateway = run(upstream, "[gateway.limits.haiku]\nrequests_per_minute = 3")
    assert [gateway.post(body()).status_code for _ in range(3)] == [200, 200, 200]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gateway.post, body())
        ends = time.monotonic() + 60
        while "tierwise_waiting_calls 1.0" not in HTTP.get(f"{gateway.url}/metrics").text:
            assert time.monotonic() < ends
            time.sleep(0.02)
        assert not waiting.done()
        gateway.config.write_text(gateway.config.read_text().replace("= 3", "= 3000"))
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_for_log("was read anew")
        assert waiting.result(60).status_code == 200


# Starting


def test_a_second_gateway_on_a_port_says_so(run: Run, upstream: StandInUpstream) -> None:
    """With the address, and with what to do; the first goes on."""
    first = run(upstream)
    second = run(upstream, port=int(first.url.rsplit(":", 1)[1]))
    assert second.ended() != 0
    log = second.log.read_text()
    assert first.url.removeprefix("http://") in log
    assert "one running already" in log
    assert "--port" in log
    assert "Traceback" not in log
    assert first.post(body()).status_code == 200


def test_a_gateway_that_is_its_own_upstream_says_so(run: Run, upstream: StandInUpstream) -> None:
    """ANTHROPIC_BASE_URL is for its clients: where it leaks into the gateway's own environment, it does not start."""
    free = run(upstream)
    port = int(free.url.rsplit(":", 1)[1])
    free.process.terminate()
    free.ended()
    itself = StandInUpstream()
    itself._port = port  # never started: only its address is asked for
    looped = run(itself, port=port)
    assert looped.ended() != 0
    log = looped.log.read_text()
    assert "points at this gateway itself" in log
    assert "ANTHROPIC_BASE_URL" in log


def test_listening_wider_without_a_key_is_refused(run: Run, upstream: StandInUpstream) -> None:
    """Nobody opens a gateway to the network by mistake."""
    process = run(upstream, '[gateway]\nhost = "0.0.0.0"')
    assert process.ended() != 0
    assert "tierwise keys create" in process.log.read_text()


def test_its_log_holds_no_prompt_and_no_key(run: Run, upstream: StandInUpstream) -> None:
    """Also where things go wrong, and where somebody speaks no HTTP."""
    upstream.fail(Fault.malformed_json(), times=3)
    gateway = run(upstream)
    secret = json.dumps({"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "zanzibarine"}]})
    for content in (secret, secret[:-5], body(AUTO, zanzibarine=1)):
        gateway.post(content)
    gateway.process.terminate()
    assert gateway.ended() == 0
    log = gateway.log.read_text()
    assert "zanzibarine" not in log
    assert HEADERS["x-api-key"] not in log
