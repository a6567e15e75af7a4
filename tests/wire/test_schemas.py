"""Schemas that were written for another API are closed; what cannot be demanded is said, and nothing is lost unsaid."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.core.json import Json, JsonObject
from tierwise.wire.schemas import close_schemas

BOUNDS = {"minimum", "maximum", "minLength", "maxLength", "pattern", "maxItems", "uniqueItems", "default"}


def body(schema: Any, **fields: Any) -> JsonObject:
    """A request for an answer of this schema."""
    config = {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    return {"model": "m", "messages": [{"role": "user", "content": "go"}], "output_config": config, **fields}


def closed(schema: Any) -> tuple[Any, tuple[str, ...]]:
    """The schema that goes up, and the notes."""
    given = body(schema)
    before = json.dumps(given)
    after, notes = close_schemas(given)
    assert json.dumps(given) == before, "it was mutated"
    config: Any = after["output_config"]
    return config["format"]["schema"], notes


def obj(**properties: Any) -> dict[str, Any]:
    """A closed object."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


TEXT = {"type": "string"}


def test_a_schema_that_the_api_takes_is_not_touched() -> None:
    """Not by a byte, with all that it takes in it."""
    schema = {
        "$defs": {"day": {"type": "string", "format": "date"}},
        "title": "Trip",
        **obj(
            day={"$ref": "#/$defs/day"},
            kind={"enum": ["work", None]},
            where={"type": "string", "enum": ["here", "there"]},
            legs={"type": "array", "items": obj(to=TEXT), "minItems": 1},
            cost={"anyOf": [{"type": "number"}, {"type": "null"}], "description": "US$"},
        ),
        "required": ["day"],
    }
    given = body(schema)
    assert close_schemas(given) == (given, ())
    assert close_schemas(given)[0] is given


@pytest.mark.parametrize(
    ("given", "wanted", "change"),
    [
        ({"type": "object", "properties": {"a": TEXT}}, obj(a=TEXT), "objects closed"),
        ({**obj(a=TEXT), "additionalProperties": True}, obj(a=TEXT), "objects closed"),
        ({**obj(a=TEXT), "additionalProperties": TEXT}, obj(a=TEXT), "objects closed"),
        ({"properties": {"a": TEXT}, "additionalProperties": False}, obj(a=TEXT), "types named"),
        (obj(a={"oneOf": [TEXT, {"type": "null"}]}), obj(a={"anyOf": [TEXT, {"type": "null"}]}), "oneOf became anyOf"),
        (obj(a={"type": ["string", "null"], "enum": ["b", None]}), obj(a={"enum": ["b", None]}), "types one at a time"),
        (obj(a={"type": ["string", "null"]}), obj(a={"anyOf": [TEXT, {"type": "null"}]}), "types one at a time"),
        (
            {**obj(a={"allOf": [{"$ref": "#/definitions/x"}], "description": "d"}), "definitions": {"x": TEXT}},
            {**obj(a={"$ref": "#/definitions/x"}), "definitions": {"x": TEXT}},
            "allOf of one taken for that one",
        ),
        ({**obj(a=TEXT), "$schema": "https://json-schema.org/draft/2020-12/schema"}, obj(a=TEXT), "left out"),
        (
            obj(a={"type": "integer", "minimum": 1, "maximum": 9, "description": "How many."}),
            obj(a={"type": "integer", "description": 'How many.\n\nIt must satisfy {"minimum": 1, "maximum": 9}'}),
            "maximum, minimum said in words",
        ),
        (
            obj(a={"type": "array", "items": TEXT, "minItems": 2}),
            obj(a={"type": "array", "items": TEXT, "description": 'It must satisfy {"minItems": 2}'}),
            "minItems said in words",
        ),
        (
            obj(a={"type": "string", "format": "iban"}),
            obj(a={"type": "string", "description": 'It must satisfy {"format": "iban"}'}),
            "format said in words",
        ),
    ],
)
def test_what_the_api_would_refuse_changes(given: Any, wanted: Any, change: str) -> None:
    """Into the nearest that it takes, with a note; bounds become words for the model."""
    after, (note,) = closed(given)
    assert after == wanted
    assert change in note


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "object"}, "an object of any properties"),
        (obj(a={"type": "object", "additionalProperties": {"type": "integer"}}), "an object of any properties"),
        (obj(a={}), "allows anything"),
        (obj(a=True), "allows anything"),
        (obj(a={"enum": [{"b": 1}]}), "enum is not of plain values"),
        (obj(a={"$ref": "https://example.com/schema"}), "it refers to https://example.com/schema"),
        (obj(a={"$ref": "#"}), "it refers to #"),
        ({**obj(a={"$ref": "#/$defs/n"}), "$defs": {"n": obj(next={"$ref": "#/$defs/n"})}}, "recursive"),
        (
            {
                **obj(a={"$ref": "#/$defs/n"}),
                "$defs": {"n": obj(m={"$ref": "#/$defs/m"}), "m": obj(n={"$ref": "#/$defs/n"})},
            },
            "recursive",
        ),
    ],
)
def test_what_no_grammar_says_is_asked_for_in_words(schema: Any, why: str) -> None:
    """Closed, it would say something else: the whole schema goes to the end of the conversation instead."""
    after, (note,) = close_schemas(body(schema))
    assert note.startswith("the JSON schema is given in words")
    assert why in note
    assert after["output_config"] == {"effort": "low"}
    (turn,) = after["messages"]  # type: ignore[misc, union-attr]  of this test's making
    assert json.dumps(schema) in turn["content"][1]["text"]  # type: ignore[index, call-overload]


def test_only_strict_tools_are_closed() -> None:
    """Others' schemas are not compiled; a strict one that cannot be closed is not strict any more."""
    loose = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    tools = [
        {"name": "any", "input_schema": loose},
        {"name": "held", "input_schema": loose, "strict": True},
        {"name": "open", "input_schema": {"type": "object"}, "strict": True},
    ]
    after, notes = close_schemas({"model": "m", "messages": [], "tools": tools})
    first, second, third = after["tools"]  # type: ignore[misc, union-attr]  of this test's making
    assert first == tools[0]
    assert second["strict"] is True  # type: ignore[index, call-overload]
    assert second["input_schema"]["additionalProperties"] is False  # type: ignore[index, call-overload]
    assert third == {"name": "open", "input_schema": {"type": "object"}}
    assert len(notes) == 2


# ------------------------------------------------------------------ for all

bounds = st.dictionaries(st.sampled_from(sorted(BOUNDS)), st.integers(0, 9), max_size=2)
plain = st.sampled_from(["string", "integer", "number", "boolean", "null"])
leaves = st.builds(lambda kind, more: {"type": kind, **more}, st.one_of(plain, st.lists(plain, min_size=1)), bounds)


def _within(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(st.sampled_from("abc"), children, min_size=1, max_size=3)
    openness = st.sampled_from([{}, {"additionalProperties": True}, {"additionalProperties": False}])
    return st.one_of(
        st.builds(lambda p, o, b: {"type": "object", "properties": p, **o, **b}, properties, openness, bounds),
        st.builds(lambda items, b: {"type": "array", "items": items, **b}, children, bounds),
        st.builds(
            lambda parts, name: {name: parts}, st.lists(children, min_size=1), st.sampled_from(["anyOf", "oneOf"])
        ),
    )


schemas = st.recursive(leaves, _within, max_leaves=12)


def _every(schema: Json) -> list[JsonObject]:
    if not isinstance(schema, dict):
        return []
    below: list[Json] = [schema.get("items")]
    properties, parts = schema.get("properties"), schema.get("anyOf")
    below += list(properties.values()) if isinstance(properties, dict) else []
    below += parts if isinstance(parts, list) else []
    return [schema, *(found for part in below for found in _every(part))]


@settings(deadline=None)
@given(schema=schemas)
def test_a_closed_schema_is_one_that_the_api_takes(schema: Any) -> None:
    """Every object closed, no bounds, one type at a time; and closing it again changes nothing."""
    after, _ = closed(schema)
    for part in _every(after):
        assert not (BOUNDS | {"oneOf"}) & part.keys()
        assert not isinstance(part.get("type"), list)
        assert part.get("type") != "object" or part["additionalProperties"] is False
    assert closed(after) == (after, ())
