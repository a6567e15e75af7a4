"""Streams of the gateway as LiteLLM's chunks: pure, without LiteLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tierwise.core.json import Json
from tierwise.integrations.litellm.replies import Chunks, StreamFailed, cost_of, usage_of

TOLD = {"call_id": "01", "tier": "haiku", "cost_usd": "0.000016375"}
USAGE: Json = {
    "prompt_tokens": 157,
    "completion_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 50, "cache_write_tokens": 7},
}


def event(value: Json) -> bytes:
    """One event of a stream."""
    return f"data: {json.dumps(value)}\n\n".encode()


def said(delta: Json, finish: str | None = None) -> bytes:
    """One chunk."""
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


CALL: Json = {"index": 0, "id": "toolu_01", "type": "function", "function": {"name": "weather", "arguments": ""}}
STREAM = b"".join(
    (
        said({"role": "assistant", "content": ""}),
        said({"content": "Köln: "}),
        said({"content": "let me look"}),
        said({"tool_calls": [CALL]}),
        said({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Köln"}'}}]}),
        said({}, "tool_calls"),
        event({"choices": [], "usage": USAGE}),
        b"data: [DONE]\n\n",
    )
)


def chunks_of(*pieces: bytes) -> list[dict[str, Any]]:
    """All of a stream that comes in these pieces."""
    read = Chunks()
    found = [chunk for piece in pieces for chunk in read.read(piece)]
    return [*found, read.end(TOLD)]


def test_stream_is_the_same_however_it_is_cut() -> None:
    """A stream split at any byte gives the same chunks."""
    whole = chunks_of(STREAM)
    assert [chunk["text"] for chunk in whole] == ["Köln: ", "let me look", "", "", ""]
    for at in range(1, len(STREAM)):
        assert chunks_of(STREAM[:at], STREAM[at:]) == whole


def test_last_chunk_has_what_is_known_at_the_end() -> None:
    """The finish reason comes once, last, with the usage under LiteLLM's names and the cost of the whole call."""
    *before, last = chunks_of(STREAM)
    assert not any(chunk["is_finished"] or chunk["usage"] for chunk in before)
    assert (last["is_finished"], last["finish_reason"]) == (True, "tool_calls")
    assert last["usage"] == {**usage_of(USAGE), "cost": 0.000016375}
    assert (last["usage"]["cache_read_input_tokens"], last["usage"]["cache_creation_input_tokens"]) == (50, 7)
    assert last["provider_specific_fields"] == {"tierwise": TOLD}


def test_unknown_cost_is_none() -> None:
    """A call whose price is not known has no cost, and no zero in its place."""
    read = Chunks()
    assert list(read.read(STREAM))
    assert "cost" not in read.end({"call_id": "01"})["usage"]
    assert cost_of({"call_id": "01"}) is None


def test_stream_that_does_not_end_fails() -> None:
    """An error in the middle, and an end without a finish reason, are failures."""
    read = Chunks()
    with pytest.raises(StreamFailed) as caught:
        list(read.read(said({"content": "Kö"}) + event({"error": {"type": "rate_limit_error", "message": "slow"}})))
    assert caught.value.error == {"type": "rate_limit_error", "message": "slow"}
    cut = Chunks()
    assert len(list(cut.read(said({"content": "Kö"})))) == 1
    with pytest.raises(StreamFailed):
        cut.end(TOLD)
