"""A client that asks again after a broken stream is not taken for its safety classifier, and never the other way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.conftest import Serve, Served
from tierwise.core.calls import CallKind
from tierwise.gateway.broken import BrokenStreams
from tierwise.testing import Fault, StandInUpstream

CLAUDE_CODE = {"user_agent": "claude-cli/2.1.330 (external, sdk-cli)", "x_claude_code_session_id": "session-1"}
ASK: dict[str, Any] = {
    "model": "claude-tierwise-auto",
    "max_tokens": 128_000,
    "stream": True,
    "system": "You are terse.",
    "tools": [],
    "thinking": {"type": "adaptive"},
    "messages": [{"role": "user", "content": "Summarise this ticket in one line: the printer burns"}],
}
AGAIN = {**ASK, "stream": False, "max_tokens": 64_000}


def kinds(gateway: Served) -> list[tuple[str, str]]:
    return [(dict(found.call.tags)["kind"], found.call.model) for found in gateway.calls()]


def cut_off(gateway: Served, upstream: StandInUpstream) -> None:
    """A stream that breaks when the client has a part of it."""
    upstream.fail(Fault.cut(after_events=6))
    answer = gateway.post(json.dumps(ASK), **CLAUDE_CODE)
    assert b"event: error" in answer.content


def test_what_is_asked_again_after_a_broken_stream_is_routed_like_it(serve: Serve, upstream: StandInUpstream) -> None:
    """In one piece, without tools, with another max_tokens: the same kind, the same model."""
    gateway = serve(upstream)
    cut_off(gateway, upstream)
    assert gateway.post(json.dumps(AGAIN), **CLAUDE_CODE).status_code == 200
    assert kinds(gateway) == [("main", "claude-haiku-5-5")] * 2


@pytest.mark.parametrize(
    ("changes", "headers"),
    [
        ({"system": "You judge whether an action is safe."}, {}),
        ({"messages": [*ASK["messages"], {"role": "user", "content": "Is `rm -rf /` safe?"}]}, {}),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"stop_sequences": ["</block>"]}, {}),
        ({}, {"x_claude_code_session_id": "session-2"}),
    ],
)
def test_a_safety_call_is_never_taken_for_it(
    serve: Serve, upstream: StandInUpstream, changes: dict[str, Any], headers: dict[str, str]
) -> None:
    """One word that differs, or another session: it stays where it is."""
    gateway = serve(upstream)
    cut_off(gateway, upstream)
    gateway.post(json.dumps({**AGAIN, **changes}), **{**CLAUDE_CODE, **headers})
    assert kinds(gateway)[1] == ("safety", "claude-sonnet-5-5")


def test_an_answer_that_did_not_break_is_not_asked_again(serve: Serve, upstream: StandInUpstream) -> None:
    """The same words in one piece, after a stream that came to its end, are a call of their own."""
    gateway = serve(upstream)
    gateway.post(json.dumps(ASK), **CLAUDE_CODE)
    gateway.post(json.dumps(AGAIN), **CLAUDE_CODE)
    assert kinds(gateway)[1][0] == "safety"


def test_it_is_known_for_ten_minutes_and_only_of_streams() -> None:
    """What was asked for in one piece cannot have been a stream that broke: a safety call is never remembered."""
    known = BrokenStreams()
    known.note("s", AGAIN, CallKind.SIDE, now=0.0)
    assert known.asked_again("s", AGAIN, now=1.0) is None
    known.note("s", ASK, CallKind.SUBAGENT, now=0.0)
    assert known.asked_again("s", AGAIN, now=599.0) is CallKind.SUBAGENT
    assert known.asked_again("s", dict(reversed(AGAIN.items())), now=599.0) is CallKind.SUBAGENT
    assert known.asked_again("s", AGAIN, now=600.0) is None


def test_so_many_are_remembered_and_no_more() -> None:
    """The oldest is forgotten; what cannot be written as JSON again is not remembered at all."""
    known = BrokenStreams()
    for number in range(1_001):
        known.note(str(number), ASK, CallKind.SIDE, now=0.0)
    assert known.asked_again("0", AGAIN, now=1.0) is None
    assert known.asked_again("1", AGAIN, now=1.0) is CallKind.SIDE
    known.note("huge", {**ASK, "seed": 10**40}, CallKind.SIDE, now=0.0)
    assert known.asked_again("huge", {**AGAIN, "seed": 10**40}, now=1.0) is None
