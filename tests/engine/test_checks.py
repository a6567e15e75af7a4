"""Is this reply acceptable?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import InvalidTask
from tierwise.core.tasks import Task
from tierwise.engine.checks import (
    Checked,
    check_message,
    check_reply,
    check_schema,
    check_tool_call,
    parse_json,
    schema_problem,
    tool_schemas,
)

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name"],
    "additionalProperties": False,
}


def _checked(text: str, *checks: Any, stop: str | None = "end_turn", message: Any = None, **task: Any) -> Checked:
    return check_reply(Task(text="t", **task), text, stop, message, checks)


def test_prose_is_accepted_as_it_is() -> None:
    """Without anything asked for, any text will do, unchanged."""
    checked = _checked("  Hello\n")
    assert (checked.kind, checked.text, checked.value, checked.problem) == (
        OutcomeKind.ACCEPTED, "  Hello\n", None, "",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", " ", "\n\t\n"])
def test_nothing_is_no_answer(text: str) -> None:
    """An empty or blank reply is rejected."""
    checked = _checked(text)
    assert (checked.kind, checked.problem) == (OutcomeKind.REJECTED, "the reply was empty")


@pytest.mark.parametrize("stop", ["max_tokens", "model_context_window_exceeded"])
def test_a_cut_off_reply_is_truncated(stop: str) -> None:
    """A reply that met its limit is truncated, however good it looks; so is an empty one."""
    for text in ('{"name": "x"}', ""):
        assert _checked(text, stop=stop, json_schema=PERSON).kind is OutcomeKind.TRUNCATED


def test_a_refusal_is_one() -> None:
    """stop_reason refusal is a refusal, whatever the text."""
    assert _checked("Sure!", stop="refusal").kind is OutcomeKind.REFUSED


def test_a_tool_call_is_an_answer() -> None:
    """A reply that calls a tool needs no text; one that only says so does."""
    call = {"content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}
    assert _checked("", stop="tool_use", message=call, json_schema=PERSON).kind is OutcomeKind.ACCEPTED
    for message in ({"content": []}, {"content": None}, {}, None):
        assert _checked("", stop="tool_use", message=message).kind is OutcomeKind.REJECTED


# ------------------------------------------------------------------ JSON


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ann"}',
        '\n  {"name": "Ann"}\n',
        '```json\n{"name": "Ann"}\n```',
        '```\n{"name": "Ann"}```',
        '\n```JSON  \n{"name":\n"Ann"}\n```\n',
    ],
)
def test_json_is_taken_out_of_a_fence(text: str) -> None:
    """A Markdown fence around the document is taken off: the caller gets what json.loads takes, and its value."""
    checked = _checked(text, json_schema=PERSON)
    assert (checked.kind, checked.value) == (OutcomeKind.ACCEPTED, {"name": "Ann"})
    assert json.loads(checked.text) == {"name": "Ann"}


@pytest.mark.parametrize(
    "text",
    [
        'Here it is: {"name": "Ann"}',
        '{"name": "Ann"} I hope this helps.',
        '```json\n{"name": "Ann"}\n```\nDone.',
        '{"name": "Ann"}{"name": "Bob"}',
        "{'name': 'Ann'}",
        '{"name": "Ann",}',
        '{"name": "Ann"',
        "NaN",
        '{"name": Infinity}',
        "nonsense",
        "[" * 100_000,
        "9" * 5_000,
    ],
)
def test_what_is_not_one_json_document_is_rejected(text: str) -> None:
    """Words around it, two documents, half of one, NaN, endless nesting: the model is told that it must be one."""
    checked = _checked(text, json_schema={})
    assert checked.kind is OutcomeKind.REJECTED
    assert checked.problem.startswith("the reply must be one JSON document and nothing else")
    assert len(checked.problem) <= 300


def test_falsy_documents_are_documents() -> None:
    """null, false, 0 and empty things are JSON."""
    for text, value in (("null", None), ("false", False), ("0", 0), ('""', ""), ("[]", []), ("{}", {})):
        checked = _checked(text, json_schema={})
        assert (checked.kind, checked.value) == (OutcomeKind.ACCEPTED, value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(json_values, st.booleans(), st.sampled_from([None, 2]))
def test_every_document_is_read(value: Any, fenced: bool, indent: int | None) -> None:
    """Whatever JSON a model writes, fenced or not, comes back as its value."""
    text = json.dumps(value, indent=indent)
    found = parse_json(f"```json\n{text}\n```" if fenced else text)
    assert found is not None
    assert found[1] == value
    assert json.loads(found[0]) == value


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text is a document or it is not; nothing is raised."""
    found = parse_json(text)
    assert found is None or isinstance(found[0], str)


@pytest.mark.parametrize(
    ("text", "problem", "note"),
    [
        ('{"name": 3}', "at name: 3 is not of type 'string'", "(properties/name/type)"),
        ('{"name": "a", "ages": [1, "secret"]}', "at ages/1: 'secret' is not of type", "(properties/ages/items/type)"),
        ('{"secret": 1, "name": "a"}', "'secret' was unexpected", "(additionalProperties)"),
        ("[]", "schema: [] is not of type 'object'", "(type)"),
        ("{}", "'name' is a required property", "(required)"),
    ],
)
def test_the_schemas_error_is_told_with_its_place(text: str, problem: str, note: str) -> None:
    """The model is told what is wrong and where; the record says only which rule of the schema it was."""
    checked = _checked(text, json_schema=PERSON)
    assert checked.kind is OutcomeKind.REJECTED
    assert problem in checked.problem
    assert checked.note == f"the JSON does not satisfy the schema {note}"
    assert "secret" not in checked.note


def test_long_problems_are_cut() -> None:
    """A schema error quotes the value; it is not let grow without end."""
    assert len(_checked(json.dumps({"name": ["x" * 10_000]}), json_schema=PERSON).problem) <= 300


def test_deep_nesting_is_a_rejection_not_a_crash() -> None:
    """JSON that parses but is too deep for the validator is what is wrong with the reply."""
    tree: dict[str, Any] = {"type": "array", "items": {"$ref": "#"}}
    checked = _checked("[" * 400 + "]" * 400, json_schema=tree)
    assert (checked.kind, checked.problem) == (OutcomeKind.REJECTED, "the JSON is nested too deeply")


# ------------------------------------------------------------------ the schema itself


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, "the JSON schema is not valid"),
        ({"properties": []}, "the JSON schema is not valid"),
        ({"pattern": "("}, "the JSON schema is not valid"),
        ({"enum": {1, 2}}, "the JSON schema is not JSON"),
        ({"$ref": "#/$defs/missing"}, "refers to '#/\\$defs/missing', which is not in it"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/s.json"}}}, "references to elsewhere are not fetched"),
        (
            {"items": [{"$ref": "file:///etc/hostname"}], "$schema": "http://json-schema.org/draft-07/schema#"},
            "fetched",
        ),
    ],
)
def test_an_impossible_schema_is_the_callers_mistake(schema: dict[str, Any], message: str) -> None:
    """A schema that is none, or that points outside itself, is refused before anything is sent."""
    with pytest.raises(InvalidTask, match=message):
        check_schema(schema)


def test_good_schemas_pass() -> None:
    """References inside the schema, recursive ones, published metaschemas and other drafts are fine."""
    check_schema(PERSON)
    check_schema({"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}})
    check_schema({"type": "array", "items": {"$ref": "#"}})
    check_schema({"$ref": "https://json-schema.org/draft/2020-12/schema"})
    check_schema({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"})
    check_schema({"$id": "urn:x", "$defs": {"a": {"$id": "b", "type": "string"}}, "$ref": "b"})
    check_schema({})


def test_nothing_is_fetched_while_checking() -> None:
    """A reference that only shows when it is used is an error, not a request."""
    schema: dict[str, Any] = {"$id": "http://127.0.0.1:9/", "properties": {"a": {"$ref": "other.json"}}}
    check_schema(schema)
    with pytest.raises(InvalidTask, match=r"other\.json.*not fetched"):
        schema_problem({"a": 1}, schema)


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    "text",
    ["Not Spam", "not spam", " NOT SPAM\n", '"Not Spam"', "**Not Spam**", "`not spam`.", '{"label": "not spam"}',
     '```json\n{"label": "Not Spam"}\n```', '"not spam"'],
)  # fmt: skip
def test_a_label_is_spelled_as_it_was_given(text: str) -> None:
    """Case, quotes, a full stop and the JSON that was asked for are taken off: the caller gets its own label."""
    checked = _checked(text, labels=("Spam", "Not Spam"))
    assert (checked.kind, checked.text) == (OutcomeKind.ACCEPTED, "Not Spam")


@pytest.mark.parametrize("text", ["It is spam", "Spam, not spam", "ham", '{"label": "ham"}', '{"label": 3}', "[]"])
def test_anything_else_is_no_label(text: str) -> None:
    """A sentence around it, two of them, or another word: the model is told the labels, the record is not."""
    checked = _checked(text, labels=("Spam", "Not Spam"))
    assert checked.kind is OutcomeKind.REJECTED
    assert checked.problem == "the reply must be exactly one of: Spam, Not Spam"
    assert checked.note == "the reply is none of the labels"


@pytest.mark.parametrize("label", ["C++", "...", "*", "a.b", "Ä", "1"])
def test_labels_of_any_spelling_are_found(label: str) -> None:
    """A label that consists of what is usually stripped is still itself."""
    assert _checked(label, labels=("other", label)).text == label


def test_the_exact_label_wins_over_a_similar_one() -> None:
    """Labels that differ only in case are told apart where the reply does."""
    assert _checked("no", labels=("NO", "no")).text == "no"
    assert _checked("NO", labels=("no", "NO")).text == "NO"


# ------------------------------------------------------------------ the caller's own checks


def test_a_check_says_yes() -> None:
    """None and True are fine, and so is a string that says nothing."""
    assert _checked("x", lambda _: None, lambda _: True, lambda _: "").kind is OutcomeKind.ACCEPTED


def _refuse(_: str) -> bool:
    return False


def _assert(_: str) -> None:
    raise AssertionError("must name Jane Doe")


def _parse(text: str) -> int:
    return int(text)


@pytest.mark.parametrize(
    ("check", "problem", "name"),
    [
        (_refuse, "it did not pass the check _refuse", "_refuse"),
        (lambda _: "too short: Jane Doe", "too short: Jane Doe", "<lambda>"),
        (_assert, "must name Jane Doe", "_assert"),
        (_parse, "invalid literal for int", "_parse"),
        (lambda _: 0, "it did not pass the check <lambda>", "<lambda>"),
    ],
)
def test_a_check_says_no(check: Any, problem: str, name: str) -> None:
    """False, words, an AssertionError or a ValueError reject; the model hears the words, the record only a name."""
    checked = _checked("Jane Doe", check)
    assert checked.kind is OutcomeKind.REJECTED
    assert problem in checked.problem
    assert checked.note == f"the check {name} refused it"


def test_a_fault_of_a_check_is_not_the_replys() -> None:
    """Any other exception is the check's own and reaches the caller."""

    def broken(text: str) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        _checked("x", broken)


async def _awaited(_: str) -> bool:
    return True


@pytest.mark.filterwarnings("ignore:coroutine")
def test_an_asynchronous_check_is_not_taken_for_a_yes() -> None:
    """A coroutine is true whatever it would say, so it is a fault of the check."""
    with pytest.raises(TypeError, match="the check _awaited is asynchronous"):
        _checked("x", _awaited)


def test_checks_see_what_the_caller_gets_and_stop_at_the_first_no() -> None:
    """A check gets the text without its fence; after a refusal no other runs."""
    seen: list[str] = []
    _checked('```\n{"name": "a"}\n```', seen.append, lambda _: "no", seen.append, json_schema=PERSON)
    assert seen == ['{"name": "a"}']
    _checked("not JSON", seen.append, json_schema=PERSON)
    assert len(seen) == 1


def test_a_number_beyond_any_float_is_a_rejection_not_a_crash() -> None:
    """An integer that the validator cannot compute with is what is wrong with the reply."""
    checked = _checked("9" * 400, json_schema={"multipleOf": 0.5})
    assert (checked.kind, checked.problem) == (OutcomeKind.REJECTED, "the JSON holds a number that is too large")


# ------------------------------------------------------------------ whole messages


def _message(*blocks: Any, stop: Any = "end_turn", **usage: int) -> Any:
    return {"content": list(blocks), "stop_reason": stop, "usage": {"input_tokens": 1, "output_tokens": 9, **usage}}


def _text(text: str) -> Any:
    return {"type": "text", "text": text}


def _call(name: Any, given: Any) -> Any:
    return {"type": "tool_use", "id": "t", "name": name, "input": given}


ASKED: Any = {"max_tokens": 100, "messages": []}
AS_JSON: Any = {**ASKED, "output_config": {"format": {"type": "json_schema", "schema": PERSON}}}
WITH_TOOLS: Any = {
    **ASKED,
    "tools": [{"name": "add", "input_schema": PERSON}, {"type": "bash_20250124", "name": "bash"}],
}


@pytest.mark.parametrize(
    ("message", "body", "kind"),
    [
        (_message(_text("Hello")), ASKED, OutcomeKind.ACCEPTED),
        ({"content": "Hello"}, ASKED, OutcomeKind.ACCEPTED),
        (_message(), ASKED, OutcomeKind.REJECTED),
        ({"content": None}, ASKED, OutcomeKind.REJECTED),
        ({}, {}, OutcomeKind.REJECTED),
        (_message(7, None, _text(" ")), ASKED, OutcomeKind.REJECTED),
        (_message({"type": "thinking", "thinking": "hm"}), ASKED, OutcomeKind.REJECTED),
        (_message({"type": "server_tool_use"}, stop="pause_turn"), AS_JSON, OutcomeKind.ACCEPTED),
        (_message(_text("Sure"), stop="refusal"), ASKED, OutcomeKind.REFUSED),
        (_message(_text('{"name": "a"}')), AS_JSON, OutcomeKind.ACCEPTED),
        (_message(_text(' {"name": "a"}\n')), AS_JSON, OutcomeKind.ACCEPTED),
        (_message(_text('```json\n{"name": "a"}\n```')), AS_JSON, OutcomeKind.REJECTED),
        (_message(_text('{"name": 1}')), AS_JSON, OutcomeKind.REJECTED),
        (_message(_text("Hello")), AS_JSON, OutcomeKind.REJECTED),
        (_message(_text("[" * 100_000)), AS_JSON, OutcomeKind.REJECTED),
        (_message(_text('{"name": 1}')), {**ASKED, "output_format": {"schema": PERSON}}, OutcomeKind.REJECTED),
        (_message(_text("Hello")), {**ASKED, "output_config": {"effort": "low"}}, OutcomeKind.ACCEPTED),
        (_message(_text('{"name"'), stop="max_tokens", output_tokens=100), AS_JSON, OutcomeKind.ACCEPTED),
        (_message(stop="max_tokens", output_tokens=99), AS_JSON, OutcomeKind.ACCEPTED),
        (_message(_text("a"), stop="max_tokens", output_tokens=50), ASKED, OutcomeKind.TRUNCATED),
        (_message(_text("a"), stop="max_tokens"), {}, OutcomeKind.TRUNCATED),
        ({"content": [_text("a")], "stop_reason": "max_tokens"}, ASKED, OutcomeKind.ACCEPTED),
        (_message(_text("a"), stop="model_context_window_exceeded"), ASKED, OutcomeKind.TRUNCATED),
        (_message(_text("a"), _call("add", {"name": "x"}), stop="tool_use"), WITH_TOOLS, OutcomeKind.ACCEPTED),
        (_message(_call("bash", {"anything": 1})), WITH_TOOLS, OutcomeKind.ACCEPTED),
        (_message(_call("add", {"name": 1})), WITH_TOOLS, OutcomeKind.REJECTED),
        (_message(_call("bash", {}), _call("add", {})), WITH_TOOLS, OutcomeKind.REJECTED),
        (_message(_call("bash", '{"half')), WITH_TOOLS, OutcomeKind.REJECTED),
        (_message(_call("fly", {})), WITH_TOOLS, OutcomeKind.REJECTED),
        (_message(_call(["add"], {})), WITH_TOOLS, OutcomeKind.REJECTED),
        (_message(_call("add", {})), ASKED, OutcomeKind.REJECTED),
    ],
)  # fmt: skip
def test_a_message_answers_its_request(message: Any, body: Any, kind: OutcomeKind) -> None:
    """What a client asked for is what it gets: words, its JSON, its tools; cut off only where it said so itself."""
    checked = check_message(message, body)
    assert checked.kind is kind
    assert bool(checked.problem) == bool(checked.note) == (kind is not OutcomeKind.ACCEPTED)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"$ref": "#/nope"},
        {"$ref": "http://127.0.0.1:9/s"},
        {"pattern": "("},
        {"$schema": 5},
        {"$id": 5},
    ],
)
def test_a_schema_that_cannot_be_used_rejects_nothing(schema: Any) -> None:
    """It is the client's mistake, or beyond this validator: no reason to climb."""
    assert check_tool_call(_call("t", {"a": 1}), {"t": schema}).kind is OutcomeKind.ACCEPTED
    body = {**ASKED, "output_config": {"format": {"schema": schema}}}
    assert check_message(_message(_text("{}")), body).kind is OutcomeKind.ACCEPTED


def test_tools_are_read_from_any_request() -> None:
    """By name, with {} where a tool brings no schema; what is no tool is passed over."""
    tools: Any = [{"name": "a", "input_schema": PERSON}, {"name": "b"}, {"name": 5}, None, {"type": "x"}]
    assert tool_schemas({"tools": tools}) == {"a": PERSON, "b": {}}
    assert tool_schemas({}) == tool_schemas({"tools": None}) == {}


@given(json_values, json_values)
def test_no_message_and_no_request_breaks_the_check(content: Any, part: Any) -> None:
    """Whatever an upstream or a client sends, the check says something."""
    message = {"content": [content, {"type": "text", "text": part}], "stop_reason": part, "usage": content}
    assert check_message(message, {"tools": content, "max_tokens": part, "output_config": part}).kind
