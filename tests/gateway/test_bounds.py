"""Floors and ceilings hold for every call: also in a conversation, which otherwise stays on its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import Serve, Served, settings_for
from tierwise.ledger.keys import KeyPolicy
from tierwise.testing import StandInUpstream

AUTO = "claude-tierwise-auto"
TOOL = {"name": "lookup", "input_schema": {"type": "object", "properties": {"id": {"type": "integer"}}}}
CONVERSATION = {"x_claude_code_session_id": "conversation-1"}
STORY = {"role": "user", "content": "Write a short story about a lighthouse keeper; look up order 7 first"}  # Sonnet's
SUMMARY = {"role": "user", "content": "Summarise this ticket in one line, order 7: the printer burns"}  # Haiku's
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "lookup", "input": {"id": 7}}]}
ANSWERED = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sent on Monday"}]}


def body(*turns: dict[str, Any], model: str = AUTO) -> str:
    value = {"model": model, "max_tokens": 1024, "stream": True, "tools": [TOOL], "messages": list(turns)}
    return json.dumps(value)


def models(upstream: StandInUpstream) -> list[str]:
    return [str(request.json["model"]) for request in upstream.requests if isinstance(request.json, dict)]


def reasons(gateway: Served, number: int = -1) -> list[str]:
    """What was said of a call, the last one unless told otherwise."""
    return [reason.text for reason in gateway.calls()[number].call.reasons]


def refused(answer: httpx2.Response, *words: str) -> bool:
    """Whether it is a 400 that says these."""
    said = answer.json()["error"]["message"] if answer.status_code == 400 else answer.text
    assert all(word in said for word in words), said
    return answer.status_code == 400


@pytest.mark.parametrize("turns", [(SUMMARY, CALLED, ANSWERED), (SUMMARY, CALLED, ANSWERED, CALLED, SUMMARY)])
def test_a_floor_above_a_conversations_model_moves_it_up(
    serve: Serve, upstream: StandInUpstream, turns: tuple[dict[str, Any], ...]
) -> None:
    """In the middle of a turn, where nothing else moves it, and between two turns; the reasons say that it did."""
    gateway = serve(upstream)
    gateway.post(body(SUMMARY), **CONVERSATION)
    gateway.post(body(*turns), x_tierwise_min_tier="opus", **CONVERSATION)
    assert models(upstream) == ["claude-haiku-5-5", "claude-opus-5-5"]
    assert "up from claude-haiku-5-5: at least opus is demanded" in reasons(gateway)


def test_a_ceiling_below_a_conversations_model_moves_it_down(serve: Serve, upstream: StandInUpstream) -> None:
    """Also where that is dearer, and in the middle of a turn: a ceiling is no wish."""
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 150_000, "output_tokens": 500}
    upstream.reply("a story", usage=usage, times=None)
    gateway = serve(upstream)
    gateway.post(body(STORY), **CONVERSATION)
    gateway.post(body(STORY, CALLED, ANSWERED), x_tierwise_max_tier="haiku", **CONVERSATION)
    assert models(upstream) == ["claude-sonnet-5-5", "claude-haiku-5-5"]
    assert "down from claude-sonnet-5-5: at most haiku is allowed" in reasons(gateway)
    assert not [text for text in reasons(gateway) if "stays" in text]


def test_a_ceiling_holds_a_conversation_as_near_to_its_model_as_it_may_be(
    serve: Serve, upstream: StandInUpstream
) -> None:
    """Quality is given up no further than was asked for."""
    gateway = serve(upstream)
    gateway.post(body(STORY), x_tierwise_min_tier="opus", **CONVERSATION)
    gateway.post(body(STORY, CALLED, ANSWERED), x_tierwise_max_tier="sonnet", **CONVERSATION)
    assert models(upstream) == ["claude-opus-5-5", "claude-sonnet-5-5"]


def test_a_ceiling_that_no_model_below_it_can_obey_is_refused(serve: Serve, upstream: StandInUpstream) -> None:
    """What fills a context leaves no room for a reply up to Haiku: the client is told so, and nothing is sent."""
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 999_900, "output_tokens": 90}
    upstream.reply("a story", usage=usage, times=None)
    gateway = serve(upstream)
    gateway.post(body(STORY), **CONVERSATION)
    answer = gateway.post(body(STORY, CALLED, ANSWERED), x_tierwise_max_tier="haiku", **CONVERSATION)
    assert refused(answer, "claude-sonnet-5-5", "at most haiku", "do not fit", "begin a new conversation")
    assert models(upstream) == ["claude-sonnet-5-5"]


def test_a_conversation_within_its_bounds_stays(serve: Serve, upstream: StandInUpstream) -> None:
    """A floor and a ceiling that its model is between change nothing."""
    gateway = serve(upstream)
    gateway.post(body(STORY), **CONVERSATION)
    bounds = {"x_tierwise_min_tier": "haiku", "x_tierwise_max_tier": "sonnet"}
    gateway.post(body(STORY, CALLED, ANSWERED), **bounds, **CONVERSATION)
    assert models(upstream) == ["claude-sonnet-5-5", "claude-sonnet-5-5"]


# By project

PROJECTS = """
[gateway.projects.thrifty]
max_tier = "haiku"
[gateway.projects.careful]
min_tier = "opus"
[gateway.projects.shop]
routed_models = ["claude-sonnet-5-5"]
[gateway.projects.new]
observe = true
"""


def test_a_project_bounds_the_tiers_of_its_calls(serve: Serve, upstream: StandInUpstream) -> None:
    """What is routed stays within and says whose bound it was; a model by name above the ceiling is refused."""
    gateway = serve(upstream, PROJECTS)
    gateway.post(body(STORY), x_tierwise_project="thrifty")
    gateway.post(body(SUMMARY), x_tierwise_project="careful")
    gateway.post(body(STORY), x_tierwise_project="another")
    assert models(upstream) == ["claude-haiku-5-5", "claude-opus-5-5", "claude-sonnet-5-5"]
    assert "at most haiku: the project 'thrifty'" in reasons(gateway, 0)
    assert "at least opus: the project 'careful'" in reasons(gateway, 1)
    answer = gateway.post(body(STORY, model="claude-opus-5-5"), x_tierwise_project="thrifty")
    assert answer.status_code == 403
    assert "the project 'thrifty' is for tiers up to haiku" in answer.json()["error"]["message"]
    assert len(upstream.requests) == 3


def test_the_configured_project_is_that_of_calls_that_name_none(
    serve: Serve, upstream: StandInUpstream, tmp_path: Path
) -> None:
    """Its bounds hold for them."""
    settings = settings_for(upstream, tmp_path, PROJECTS, TIERWISE_PROJECT="thrifty")
    serve(upstream, settings=settings).post(body(STORY))
    assert models(upstream) == ["claude-haiku-5-5"]


@pytest.mark.parametrize(
    ("asked", "of_key", "of_project", "model", "whose"),
    [
        ("haiku", "sonnet", "opus", "claude-haiku-5-5", "at most haiku: x-tierwise-max-tier"),
        ("opus", "haiku", "sonnet", "claude-haiku-5-5", "at most haiku: the key 'ci'"),
        ("opus", "sonnet", "haiku", "claude-haiku-5-5", "at most haiku: the project 'alpha'"),
    ],
)
def test_the_narrowest_of_header_key_and_project_holds(  # noqa: PLR0917  each is something of its own
    serve: Serve,
    upstream: StandInUpstream,
    tmp_path: Path,
    asked: str,
    of_key: str,
    of_project: str,
    model: str,
    whose: str,
) -> None:
    """And the reasons say which that was."""
    toml = f'[gateway.projects.alpha]\nmax_tier = "{of_project}"'
    gateway = serve(upstream, settings=settings_for(upstream, tmp_path, toml, ANTHROPIC_API_KEY="sk-ant-own"))
    keys = gateway.gateway.keys
    assert keys is not None
    made = keys.create("ci", 0, project="alpha", policy=KeyPolicy(max_tier=of_key))
    gateway.post(body(STORY), x_api_key=made.secret, x_tierwise_max_tier=asked)
    assert models(upstream) == [model]
    assert whose in reasons(gateway)


def test_bounds_that_contradict_each_other_are_refused(serve: Serve, upstream: StandInUpstream) -> None:
    """The message says whose they are; nothing is sent on one of them."""
    gateway = serve(upstream, PROJECTS)
    answer = gateway.post(body(STORY), x_tierwise_project="thrifty", x_tierwise_min_tier="opus")
    assert refused(answer, "at least opus (x-tierwise-min-tier)", "at most haiku (the project 'thrifty')")
    assert not upstream.requests


def test_a_project_may_have_names_routed_that_pass_through_elsewhere(serve: Serve, upstream: StandInUpstream) -> None:
    """Beside the names that are routed for all."""
    gateway = serve(upstream, PROJECTS)
    for project in ("shop", "another"):
        gateway.post(body(SUMMARY, model="claude-sonnet-5-5"), x_tierwise_project=project)
    gateway.post(body(SUMMARY), x_tierwise_project="shop")
    assert models(upstream) == ["claude-haiku-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"]


def test_a_project_may_be_watched_first(serve: Serve, upstream: StandInUpstream) -> None:
    """Nothing of it is routed, and what would have been done is recorded."""
    gateway = serve(upstream, PROJECTS)
    gateway.post(body(SUMMARY), x_tierwise_project="new")
    assert models(upstream) == ["claude-sonnet-5-5"]
    assert [text for text in reasons(gateway) if "would have gone to haiku" in text]
