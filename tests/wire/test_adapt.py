"""Adapting a request: exactly what the target would refuse is changed, every change is said, nothing is mutated."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.core.catalog import Capabilities, Model, StructuredOutput, Thinking
from tierwise.testing.rules import CLAUDE_MODELS, violations
from tierwise.wire.adapt import adapt

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
NEW = Capabilities(
    thinking=Thinking.ADAPTIVE,
    effort=True,
    sampling=False,
    prefill=False,
    structured_output=StructuredOutput.OUTPUT_CONFIG,
)
OLD = Capabilities(thinking=Thinking.EXTENDED, structured_output=StructuredOutput.OUTPUT_CONFIG)
ALWAYS = Capabilities(
    thinking=Thinking.ADAPTIVE_ALWAYS, effort=True, sampling=False, prefill=False, forced_tool_use=False
)
BETWEEN = Capabilities(
    thinking=Thinking.ADAPTIVE_BETWEEN_TOOLS, effort=True, sampling=False, prefill=False, forced_tool_use=False
)
LOCAL = Capabilities(thinking=Thinking.NONE)


def model(takes: Capabilities = NEW, name: str = "target", most: int = 64_000, effort: str | None = None) -> Model:
    return Model(
        id=name, provider="p", context_tokens=200_000, max_output_tokens=most, capabilities=takes, effort=effort
    )


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "target", "max_tokens": 4000, "messages": [{"role": "user", "content": "Hi"}], **fields}


def adapted(body: dict[str, Any], target: Model) -> tuple[dict[str, Any], tuple[str, ...]]:
    before = copy.deepcopy(body)
    after, notes = adapt(body, target)
    assert body == before, "the input was mutated"
    assert bool(notes) is ({**before, "model": target.id} != after), "every change is noted, and only changes"
    return after, notes


def said_last(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])


def test_what_the_target_takes_is_left_alone() -> None:
    """Nothing to change: the same fields in the same order, unknown ones included, and no note."""
    body = ask(future={"x": [1]}, thinking={"type": "adaptive"}, metadata={"user_id": "u"}, temperature=1)
    after, notes = adapted(body, model())
    assert list(after.items()) == list(body.items())
    assert notes == ()


def test_the_model_becomes_the_target_in_its_place() -> None:
    """Routing changes `model` without reordering the rest."""
    after, _ = adapt({"max_tokens": 1, "model": "other", "z": 1}, model())
    assert list(after.items()) == [("max_tokens", 1), ("model", "target"), ("z", 1)]


def test_sampling_is_left_out_where_it_is_refused() -> None:
    """Temperature, top_p and top_k go, each with a note."""
    after, notes = adapted(ask(temperature=0.2, top_p=0.9, top_k=4), model())
    assert not {"temperature", "top_p", "top_k"} & after.keys()
    assert len(notes) == 3
    assert adapted(ask(temperature=0.2), model(OLD))[0]["temperature"] == 0.2


def test_prefill_becomes_an_instruction() -> None:
    """The beginning of the reply is asked for in words, at the end of the user's turn."""
    body = ask(messages=[{"role": "user", "content": "List it"}, {"role": "assistant", "content": '{"items": ['}])
    after, notes = adapted(body, model())
    assert [m["role"] for m in after["messages"]] == ["user"]
    assert after["messages"][0]["content"][0] == {"type": "text", "text": "List it"}
    assert '{"items": [' in said_last(after)
    assert "prefill" in notes[0]
    assert adapted(body, model(OLD))[0] == {**body}


@pytest.mark.parametrize(
    ("budget", "effort"), [(1024, "low"), (4096, "medium"), (16_000, "high"), (32_000, "xhigh"), (60_000, "max")]
)
def test_a_thinking_budget_becomes_an_effort(budget: int, effort: str) -> None:
    """`enabled` with a budget is adaptive thinking with the effort that the budget stands for."""
    body = ask(max_tokens=64_000, thinking={"type": "enabled", "budget_tokens": budget})
    for takes in (NEW, BETWEEN, ALWAYS):
        after, notes = adapted(body, model(takes))
        assert after["thinking"] == {"type": "adaptive"}
        assert after["output_config"] == {"effort": effort}
        assert str(budget) in notes[0]


def test_an_effort_that_was_asked_for_beats_the_budget() -> None:
    """What the caller said about effort is kept."""
    body = ask(thinking={"type": "enabled", "budget_tokens": 2000}, output_config={"effort": "max"})
    assert adapted(body, model())[0]["output_config"] == {"effort": "max"}


@pytest.mark.parametrize(
    ("takes", "asked", "got"),
    [
        (NEW, "disabled", {"type": "disabled"}),
        (NEW, "between_tools", {"type": "disabled"}),
        (BETWEEN, "disabled", {"type": "between_tools"}),
        (BETWEEN, "between_tools", {"type": "between_tools"}),
        (ALWAYS, "disabled", None),
        (ALWAYS, "between_tools", None),
        (OLD, "disabled", {"type": "disabled"}),
        (OLD, "between_tools", {"type": "disabled"}),
        (LOCAL, "disabled", None),
        (LOCAL, "adaptive", None),
        (NEW, "something_new", {"type": "something_new"}),
    ],
)
def test_thinking_off_is_said_as_the_target_says_it(
    takes: Capabilities, asked: str, got: dict[str, Any] | None
) -> None:
    """Each model has its own word for not thinking, or none."""
    assert adapted(ask(thinking={"type": asked}), model(takes))[0].get("thinking") == got


@pytest.mark.parametrize(
    ("effort", "limit", "thinking"),
    [
        ("low", 4000, {"type": "enabled", "budget_tokens": 1024}),
        ("high", 64_000, {"type": "enabled", "budget_tokens": 16_384}),
        (None, 64_000, {"type": "enabled", "budget_tokens": 16_384}),
        ("high", 4000, {"type": "enabled", "budget_tokens": 3999}),
        ("high", 1024, None),
    ],
)
def test_adaptive_thinking_becomes_a_budget(effort: str | None, limit: int, thinking: dict[str, Any] | None) -> None:
    """On models with extended thinking: a budget below max_tokens, or none where there is no room for one."""
    config = {"output_config": {"effort": effort}} if effort else {}
    after, _ = adapted(ask(max_tokens=limit, thinking={"type": "adaptive"}, **config), model(OLD))
    assert after.get("thinking") == thinking
    assert "output_config" not in after


def test_effort_is_left_out_where_unknown_and_set_where_configured() -> None:
    """Only models with effort get one; a configured one is used when the caller gave none."""
    body = ask(output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}})
    after, notes = adapted(body, model(OLD))
    assert list(after["output_config"]) == ["format"]
    assert "effort low" in notes[0]
    assert adapted(ask(), model(NEW, effort="medium"))[0]["output_config"] == {"effort": "medium"}
    assert adapted(body, model(NEW, effort="medium"))[0]["output_config"]["effort"] == "low"
    assert "output_config" not in adapted(ask(), model(OLD, effort="medium"))[0]


def test_forced_tools_become_auto_with_an_instruction() -> None:
    """Where forcing is an error, the tool is asked for in words; other parts of the choice stay."""
    tools = [{"name": "save", "input_schema": {}}]
    choice = {"type": "tool", "name": "save", "disable_parallel_tool_use": True}
    after, notes = adapted(ask(tools=tools, tool_choice=choice), model(ALWAYS))
    assert after["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "`save`" in said_last(after)
    assert len(notes) == 1
    assert "one of the tools" in said_last(adapted(ask(tools=tools, tool_choice={"type": "any"}), model(ALWAYS))[0])
    assert adapted(ask(tools=tools, tool_choice=choice), model(NEW))[0]["tool_choice"] == choice


def test_a_schema_goes_into_words_where_it_cannot_be_enforced() -> None:
    """The reply is still checked against it; the model is at least told."""
    body = ask(output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    after, notes = adapted(body, model(LOCAL))
    assert "output_config" not in after
    assert '"required": ["a"]' in said_last(after)
    assert "schema" in notes[0]
    for how in (StructuredOutput.OUTPUT_CONFIG, StructuredOutput.RESPONSE_FORMAT):
        assert adapted(body, model(Capabilities(structured_output=how)))[0] == body


def test_max_tokens_is_clamped() -> None:
    """More than the model can give is a 400; less is the caller's wish."""
    assert adapted(ask(max_tokens=100_000), model(most=64_000))[0]["max_tokens"] == 64_000
    assert adapted(ask(max_tokens=10), model(most=64_000))[0]["max_tokens"] == 10


HISTORY: list[Any] = [
    {"role": "user", "content": "Go"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "tool_use", "id": "t1", "name": "n", "input": {}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]},
    {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
    {"role": "user", "content": "On"},
]


def test_thinking_blocks_are_stripped_when_the_model_changes() -> None:
    """Signed blocks of another model are a 400 (or dropped silently): out they go, tool ids stay."""
    after, notes = adapted({**ask(messages=HISTORY), "model": "other"}, model())
    assert [m["role"] for m in after["messages"]] == ["user", "assistant", "user", "user"]
    assert after["messages"][1]["content"] == HISTORY[1]["content"][1:]
    assert notes == ("2 thinking blocks left out: signed for other, not for target",)


def test_thinking_blocks_stay_on_the_same_model() -> None:
    """The prefix of a conversation that stays is never touched, byte for byte."""
    assert adapted(ask(messages=HISTORY), model())[0]["messages"] == HISTORY


def test_instructions_go_to_the_very_end() -> None:
    """After tool results, after the cached prefix: what came before stays as it was."""
    body = ask(messages=HISTORY[:3], output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    takes = Capabilities(thinking=Thinking.ADAPTIVE)
    after, _ = adapted(body, model(takes))
    assert after["messages"][:2] == HISTORY[:2]
    assert after["messages"][2]["content"][0] == HISTORY[2]["content"][0]
    assert "JSON" in said_last(after)


RULES = {
    "claude-haiku-5-5": NEW,
    "claude-sonnet-5-5": BETWEEN,
    "claude-opus-5-5": ALWAYS,
    "claude-opus-5": NEW,
    "claude-haiku-4-5": OLD,
}
requests = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(1, 200_000),
        "messages": st.sampled_from(
            [
                [{"role": "user", "content": "x"}],
                [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}],
                [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "text", "text": " "}]}],
                HISTORY,
            ]
        ),
    },
    optional={
        "model": st.sampled_from(["claude-haiku-5-5", "claude-haiku-4-5", "else"]),
        "temperature": st.sampled_from([0, 0.5, 1]),
        "top_p": st.sampled_from([0.1, 1]),
        "top_k": st.integers(1, 50),
        "thinking": st.sampled_from([{"type": t} for t in ("adaptive", "disabled", "between_tools")])
        | st.builds(lambda n: {"type": "enabled", "budget_tokens": n}, st.integers(1024, 100_000)),
        "output_config": st.fixed_dictionaries({}, optional={"effort": st.sampled_from(["low", "high", "max"])}),
        "tool_choice": st.sampled_from(
            [{"type": t} for t in ("auto", "any", "none")] + [{"type": "tool", "name": "t"}]
        ),
        "tools": st.just([{"name": "t", "input_schema": {}}]),
    },
)


@given(body=requests, name=st.sampled_from(sorted(RULES)))
def test_an_adapted_request_is_one_that_the_api_takes(body: Any, name: str) -> None:
    """Whatever the request was meant for: after adapting it, the (independently kept) rules find nothing wrong."""
    rules = CLAUDE_MODELS[name]
    after, _ = adapted(body, model(RULES[name], name, rules.max_output_tokens))
    assert list(violations(after, rules)) == []


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "role", "content"]), inner),
    max_leaves=6,
)


@given(
    body=st.dictionaries(
        st.sampled_from(["model", "messages", "thinking", "output_config", "tool_choice", "max_tokens", "tools"]),
        json_values,
    ),
    takes=st.sampled_from([NEW, OLD, ALWAYS, BETWEEN, LOCAL, Capabilities(tools=False)]),
)
def test_nonsense_is_left_for_the_api_to_refuse(body: Any, takes: Capabilities) -> None:
    """Fields of the wrong type never crash the adaptation."""
    adapt(body, model(takes))
