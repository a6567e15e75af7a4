"""A task as a Messages request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.core.catalog import Model
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import Task
from tierwise.engine.request import build_body, check_tool_input, clean_text, label_schema

MODEL = Model(id="m", provider="p", context_tokens=1000, max_output_tokens=100)


def _body(max_output_tokens: int = 50, feedback: str | None = None, rejected: str | None = None, **task: Any) -> Any:
    task = {"text": "Sum this up", **task}
    return build_body(
        Task(**task), MODEL, max_output_tokens=max_output_tokens, rejected_reply=rejected, feedback=feedback
    )


def test_a_plain_task_is_one_message() -> None:
    """Text in, nothing else: the model, its limit, one user message."""
    assert _body() == {
        "model": "m",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "Sum this up"}],
    }


def test_payload_system_and_temperature_have_their_places() -> None:
    """A payload is set apart from the ask, the system prompt and the temperature are parameters."""
    body = _body(input_text="A tale", system="Be brief", temperature=0.0)
    assert body["messages"][0]["content"] == "Sum this up\n\n<input>\nA tale\n</input>"
    assert (body["system"], body["temperature"]) == ("Be brief", 0.0)


def test_a_prompt_is_sent_instead_of_the_description() -> None:
    """With a prompt of its own the text only describes, and never reaches the model."""
    assert _body(prompt="Real prompt", input_text="not sent")["messages"][0]["content"] == "Real prompt"


def test_a_tool_call_is_written_out() -> None:
    """The tool's name and its input as JSON are what the model is asked to carry out."""
    content = _body(text="Tool call: grep", tool_name="grep", tool_input={"q": "ü"})["messages"][0]["content"]
    assert "Tool: grep\nInput:\n" in content
    assert json.loads(content.split("Input:\n")[1]) == {"q": "ü"}


def test_a_payload_beside_a_tool_call_is_sent_too() -> None:
    """A tool call with a document of its own loses neither."""
    content = _body(tool_name="grep", tool_input={}, input_text="A tale")["messages"][0]["content"]
    assert "Tool: grep" in content
    assert content.endswith("<input>\nA tale\n</input>")


@pytest.mark.parametrize("value", [{1, 2}, object(), float("nan")])
def test_tool_input_that_is_no_json_is_refused(value: Any) -> None:
    """The message names the tool."""
    with pytest.raises(InvalidTask, match="the input of tool grep is not JSON"):
        check_tool_input(Task(text="t", tool_name="grep", tool_input=value))


def test_circular_tool_input_is_refused() -> None:
    """A value that contains itself is no JSON either."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidTask, match="the input of tool grep is not JSON"):
        check_tool_input(Task(text="t", tool_name="grep", tool_input=loop))


def test_a_schema_or_labels_become_a_format() -> None:
    """A schema is sent as the output format; labels as a schema that allows them only, and in words."""
    assert _body(json_schema={"type": "object"})["output_config"]["format"]["schema"] == {"type": "object"}
    body = _body(labels=("a", "b"), json_schema={"type": "object"})
    assert body["output_config"]["format"]["schema"] == label_schema(("a", "b"))
    assert body["messages"][0]["content"].endswith("Answer with exactly one of: a, b.")


def test_a_models_own_effort_is_sent() -> None:
    """Where the configuration gives a model an effort, requests carry it."""
    body = build_body(Task(text="t"), replace(MODEL, effort="low"), max_output_tokens=5)
    assert body["output_config"] == {"effort": "low"}


def test_after_a_rejection_the_conversation_goes_on() -> None:
    """The rejected reply and what was wrong with it follow the prompt, which itself stays as it was."""
    body = _body(rejected="  {bad ", feedback="no JSON")
    assert body["messages"] == [
        {"role": "user", "content": "Sum this up"},
        {"role": "assistant", "content": "{bad"},
        {"role": "user", "content": "That reply cannot be used: no JSON. Answer again, correctly and completely."},
    ]


@pytest.mark.parametrize("rejected", [None, "", "  \n"])
def test_an_empty_rejected_reply_is_not_sent_back(rejected: str | None) -> None:
    """An empty turn would be refused by the API: the correction goes to the end of the prompt."""
    body = _body(rejected=rejected, feedback="it was empty")
    assert len(body["messages"]) == 1
    assert body["messages"][0]["content"].startswith("Sum this up\n\nThat reply cannot be used: it was empty")


anything = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)


@given(anything, anything, anything)
def test_every_text_can_be_sent(text: str, payload: str, reply: str) -> None:
    """Lone surrogates and all: the request can be written as UTF-8, and what could be is sent unchanged."""
    body = build_body(
        Task(text=text, input_text=payload, system=text),
        MODEL,
        max_output_tokens=5,
        rejected_reply=reply,
        feedback=payload,
    )
    json.dumps(body, ensure_ascii=False).encode("utf-8")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return
    assert body["system"] == text


def test_a_lone_surrogate_becomes_a_replacement_character() -> None:
    """Half a character is shown as missing; a pair that stands for one becomes it."""
    assert clean_text("a\ud800b") == "a\ufffdb"
    assert clean_text("\ud83d\ude00") == "😀"
