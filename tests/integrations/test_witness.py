"""What is seen of OpenAI's answers as they pass by: pure, bytes in, an attempt out."""

from __future__ import annotations

import json

import pytest

from tierwise.core.decisions import OutcomeKind
from tierwise.core.json import Json
from tierwise.core.money import Usage
from tierwise.integrations.records import ForeignAttempt
from tierwise.integrations.witness import PassingBy, Witness, asked_in_responses

REQUEST = PassingBy("1", "gpt-5", "openai", 1_000)
USED = Usage(input_tokens=600, cache_read_tokens=400, output_tokens=100)
CHAT: Json = {"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
NEW: Json = {"input_tokens": 1_000, "output_tokens": 100, "input_tokens_details": {"cached_tokens": 400}}
CHAT_STREAM = (
    b'data: {"choices": [{"delta": {"content": "K\xc3\xb6ln"}}], "model": "gpt-5-2025-08-07"}\n\n'
    b'data: {"choices": [], "usage": %s}\n\ndata: [DONE]\n\n' % json.dumps(CHAT).encode()
)
NEW_STREAM = (
    b'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "delta": "K\xc3\xb6ln"}\n\n'
    b'event: response.completed\ndata: {"type": "response.completed", "response": '
    b'{"model": "gpt-5-2025-08-07", "usage": %s}}\n\n' % json.dumps(NEW).encode()
)


def seen(*pieces: bytes, status: int = 200, kind: str = "text/event-stream", whole: bool = True) -> ForeignAttempt:
    """What became of an answer in these pieces."""
    witness = Witness(REQUEST)
    witness.begin(status, kind, "req_1")
    for piece in pieces:
        witness.feed(piece)
    return witness.end(3_000, whole=whole)


@pytest.mark.parametrize("stream", [CHAT_STREAM, NEW_STREAM])
def test_stream_is_the_same_however_it_is_cut(stream: bytes) -> None:
    """A stream of either dialect split at any byte is the same attempt: answered, with the usage of its end."""
    whole = seen(stream)
    assert (whole.outcome, whole.usage, whole.reported_model) == (OutcomeKind.ACCEPTED, USED, "gpt-5-2025-08-07")
    assert (whole.latency_ms, whole.request_id) == (2_000, "req_1")
    for at in range(1, len(stream)):
        assert seen(stream[:at], stream[at:]) == whole


@pytest.mark.parametrize("usage", [CHAT, NEW])
def test_whole_answer(usage: Json) -> None:
    """A whole answer tells its usage in either dialect; one that tells none used something that is not known."""
    assert seen(json.dumps({"usage": usage}).encode(), kind="application/json").usage == USED
    untold = seen(b"{}", kind="application/json")
    assert (untold.outcome, untold.usage, untold.detail) == (OutcomeKind.ACCEPTED, None, "it told no usage")


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"[]", b'{"choices": [{"mess', b""])
def test_whole_answer_that_is_none(body: bytes) -> None:
    """A 200 whose body is no JSON object is a failure, and what it used is not known."""
    found = seen(body, kind="application/json")
    assert (found.outcome, found.usage) == (OutcomeKind.SERVER_ERROR, None)


@pytest.mark.parametrize(
    ("broken", "usage"),
    [(OutcomeKind.CANCELLED, None), (OutcomeKind.TIMEOUT, None), (OutcomeKind.CONNECTION, Usage())],
)
def test_no_answer(broken: OutcomeKind, usage: Usage | None) -> None:
    """What nobody waited for may have been worked on, so what it used is not known; what found nobody used nothing."""
    found = Witness(REQUEST).end(3_000, whole=False, broken=broken)
    assert (found.outcome, found.usage) == (broken, usage)


@pytest.mark.parametrize("stream", [CHAT_STREAM, NEW_STREAM])
def test_stream_that_does_not_end(stream: bytes) -> None:
    """A stream that lacks its end is no answer: cut by its server, or left by its client; what it used is not known."""
    begun = stream[: stream.index(b"\n\n") + 2]
    assert seen(begun).outcome is OutcomeKind.CONNECTION
    left = seen(begun, whole=False)
    assert (left.outcome, left.usage) == (OutcomeKind.CANCELLED, None)


def test_errors() -> None:
    """An error in place of an answer used nothing; one in the middle of a stream is a failure of what was used."""
    limited = seen(b'{"error": {"message": "slow down"}}', status=429, kind="application/json")
    assert (limited.outcome, limited.usage) == (OutcomeKind.RATE_LIMITED, Usage())
    assert "slow down" not in limited.detail  # which may quote what was asked
    broken = seen(b'data: {"error": {"type": "overloaded_error", "message": "x"}}\n\ndata: [DONE]\n\n')
    assert (broken.outcome, broken.usage) == (OutcomeKind.OVERLOADED, None)


def test_what_is_asked_in_responses() -> None:
    """The texts of a request are found in all of the shapes that they come in."""
    items: Json = [
        {"role": "user", "content": [{"type": "input_text", "text": "Sum"}, {"type": "input_text", "text": "up"}]},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"role": "assistant", "content": "Yes"},
    ]
    assert asked_in_responses("Sum up") == [{"role": "user", "content": "Sum up"}]
    assert asked_in_responses(items) == [
        {"role": "user", "content": "Sum\nup"},
        {"role": "assistant", "content": "Yes"},
    ]
