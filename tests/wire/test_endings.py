"""The end of a stream that broke: an error that a client's reader understands."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.wire.anthropic import MessageAccumulator, StreamError
from tierwise.wire.endings import Dialect, error_event
from tierwise.wire.openai import ChatAccumulator
from tierwise.wire.sse import SseParser

# Anthropic's own types, which OpenAI has other names for, have an underscore.
KINDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="_"), min_size=1, max_size=20)


@settings(deadline=None)
@given(kind=KINDS, message=st.text(max_size=60))
def test_either_dialect_reads_the_error(kind: str, message: str) -> None:
    """Any words, line ends and quotes too: one event, which its dialect's reader takes for the error it is."""
    (event,) = SseParser().feed(error_event(Dialect.ANTHROPIC, kind, message))
    reader = MessageAccumulator()
    reader.feed(json.loads(event.data))
    assert (event.event, reader.error) == ("error", StreamError(kind, message))
    (event,) = SseParser().feed(error_event(Dialect.OPENAI, kind, message))
    chat = ChatAccumulator()
    chat.feed(json.loads(event.data))
    assert (event.event, chat.error) == ("message", StreamError(kind, message))


@pytest.mark.parametrize("dialect", list(Dialect))
def test_an_event_that_was_begun_is_closed_first(dialect: Dialect) -> None:
    """The client has half an event: the error is an event of its own all the same."""
    begun = b'event: content_block_delta\ndata: {"type":"content_bl'
    events = SseParser().feed(begun + error_event(dialect, "api_error", "cut", mid_event=True))
    assert len(events) == 2
    assert json.loads(events[1].data)["error"]["message"] == "cut"


@pytest.mark.parametrize("dialect", list(Dialect))
def test_text_that_is_no_unicode_is_sent_all_the_same(dialect: Dialect) -> None:
    """A lone surrogate is replaced."""
    assert b"?" in error_event(dialect, "api_error", "\ud800")
