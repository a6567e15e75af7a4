"""Tools of loops written by hand: which a model carries out, where they go, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

import tierwise
from tests.integrations.conftest import Host
from tierwise import TOOL_TIER_OVERRIDES, Router, Toolbox, model_tool
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import InvalidTask
from tierwise.testing import Fault

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"


class Fields(BaseModel):
    """What is in an invoice."""

    total: float


@pytest.fixture
def router(host: Host) -> Iterator[Router]:
    """The router that carries tools out."""
    with Router(host.settings) as made:
        yield made
    TOOL_TIER_OVERRIDES.clear()


def test_function_is_carried_out_by_a_model(host: Host, router: Router) -> None:
    """A call goes to the tier of what the docstring says, with the arguments by name, and is recorded."""

    @model_tool(router=router, project="pages")
    def shorten(text: str, sentences: int = 1) -> str:
        """Summarise a page in so many sentences."""
        raise AssertionError("never run")

    host.upstream.reply("Short.")
    assert shorten("A long page …") == "Short."
    sent: Any = host.upstream.calls()[0].json
    assert "Summarise a page" in sent["messages"][0]["content"]
    assert json.loads(sent["messages"][0]["content"].split("Input:\n")[1]) == {"text": "A long page …", "sentences": 1}
    assert (host.models(), host.call().call.project) == ([HAIKU], "pages")


def test_the_table_goes_over_the_decorator(host: Host, router: Router) -> None:
    """The decorator's tier holds until `TOOL_TIER_OVERRIDES` says otherwise, under the name that the tool was given."""

    @model_tool(router=router, tier="opus", name="summarizePage")
    def shorten(text: str) -> str:
        """Summarise a page in one sentence."""
        raise AssertionError

    shorten(text="…")
    TOOL_TIER_OVERRIDES["summarizePage"] = tierwise.Tier.SONNET
    shorten(text="…")
    assert host.models() == [OPUS, SONNET]


def test_what_it_returns_holds_the_answer(host: Host, router: Router) -> None:
    """A Literal is one of its texts, a model and anything else JSON of its schema; what is none of it climbs."""

    @model_tool(router=router, tier="haiku")
    def judge(question: str, answer: str) -> Literal["right", "wrong"]:
        """Judge an answer."""
        raise AssertionError

    @model_tool(router=router, tier="haiku")
    def extract(text: str) -> Fields:
        """Extract the total of an invoice."""
        raise AssertionError

    @model_tool(router=router, tier="haiku")
    def split(text: str) -> list[str]:
        """Split a text into its sentences."""
        raise AssertionError

    host.upstream.reply_json({"label": "maybe"})
    host.upstream.reply_json({"label": "right"})
    assert judge("2+2?", "4") == "right"
    assert [attempt.outcome for attempt in host.call().attempts] == [OutcomeKind.REJECTED, OutcomeKind.ACCEPTED]
    host.upstream.reply_json({"total": 12.5})
    assert extract("Total: 12.50") == Fields(total=12.5)
    host.upstream.reply_json({"result": ["a", "b"]})
    assert split("a b") == ["a", "b"]


async def test_asynchronous_tools(host: Host, router: Router) -> None:
    """An `async def` is awaited, many at once; to cancel it cancels the call, which is recorded as cancelled."""

    @model_tool(router=router, tier="haiku")
    async def shorten(text: str) -> str:
        """Summarise a page in one sentence."""
        raise AssertionError

    host.upstream.reply("Short.", times=3)
    assert await asyncio.gather(*(shorten(str(number)) for number in range(3))) == ["Short."] * 3
    host.upstream.fail(Fault.stall())
    task = asyncio.ensure_future(shorten("slow"))
    while len(host.upstream.calls()) < 4:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(router.close)
    assert [found.call.status for found in host.calls()] == [CallStatus.ANSWERED] * 3 + [CallStatus.CANCELLED]


def test_declarations_that_say_too_little_are_refused() -> None:
    """No docstring, inputs without names, two tools of one name: each is refused when it is declared."""

    def silent(text: str) -> str:
        raise AssertionError

    def nameless(*texts: str) -> str:
        """Joins."""
        raise AssertionError

    with pytest.raises(InvalidTask, match="docstring"):
        model_tool()(silent)
    with pytest.raises(InvalidTask, match="give each input a name"):
        model_tool()(nameless)
    with pytest.raises(InvalidTask, match="two tools"):
        Toolbox([silent, silent])


# ------------------------------------------------------------------ the toolbox


def add(a: int, b: Annotated[int, Field(description="the second")] = 2) -> int:
    """Adds."""
    return a + b


async def later(text: str) -> str:
    """Says it later."""
    return text


def broken() -> None:
    """Breaks."""
    raise LookupError("no such order")


def test_definitions_of_both_dialects() -> None:
    """What a tool takes is said as JSON schema, in Messages' form and in OpenAI's."""
    tools = Toolbox([add])
    schema = {
        "type": "object",
        "properties": {
            "a": {"title": "A", "type": "integer"},
            "b": {"title": "B", "type": "integer", "default": 2, "description": "the second"},
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    assert tools.definitions == [{"name": "add", "description": "Adds.", "input_schema": schema}]
    function = {"name": "add", "description": "Adds.", "parameters": schema}
    assert tools.functions == [{"type": "function", "function": function}]


def test_calls_by_name(host: Host, router: Router) -> None:
    """Plain functions and model tools are called alike, with a mapping or OpenAI's JSON text; results are text."""

    @model_tool(router=router, tier="haiku")
    def extract(text: str) -> Fields:
        """Extract the total of an invoice."""
        raise AssertionError

    tools = Toolbox([add, extract])
    assert tools.call("add", {"a": 1}) == "3"
    assert tools.call("add", '{"a": 1, "b": 5}') == "6"
    host.upstream.reply_json({"total": 12.5})
    assert tools.call("extract", {"text": "…"}) == '{"total":12.5}'
    with pytest.raises(ValidationError):
        tools.call("add", {"a": "x"})
    for wrong in ("{", "[]", "[" * 100_000):
        with pytest.raises(InvalidTask, match="arguments of add"):
            tools.call("add", wrong)
    with pytest.raises(InvalidTask, match="the tools are: add, extract"):
        tools.call("sub", {})


@pytest.mark.parametrize("as_objects", [False, True])
async def test_results_of_a_message(as_objects: bool) -> None:
    """All calls of a message are answered in order, the SDK's blocks or dicts; what fails is told to the model."""
    blocks: list[Any] = [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}},
        {"type": "tool_use", "id": "2", "name": "broken", "input": {}},
        {"type": "tool_use", "id": "3", "name": "add", "input": {"a": "x"}},
    ]
    if as_objects:
        types = pytest.importorskip("anthropic").types
        blocks = [(types.TextBlock if one["type"] == "text" else types.ToolUseBlock)(**one) for one in blocks]
    tools = Toolbox([add, broken, later])
    expected = [
        {"type": "tool_result", "tool_use_id": "1", "content": "3"},
        {"type": "tool_result", "tool_use_id": "2", "content": "LookupError: no such order", "is_error": True},
    ]
    for found in (tools.results(blocks), await tools.aresults(blocks)):
        assert found[:2] == expected
        assert (found[2]["is_error"], "the arguments are wrong: a: " in found[2]["content"]) == (True, True)
    assert await tools.acall("later", {"text": "x"}) == "x"
    with pytest.raises(InvalidTask, match="await acall"):
        tools.call("later", {"text": "x"})
