"""Single values of a JSON document change; every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.wire.splice import SpliceError, compact, members, splice, splice_changes

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=6)
spellings = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")])


def written(value: Any, spelling: tuple[str, str], *, ascii_only: bool) -> bytes:
    return json.dumps(value, separators=spelling, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def test_the_model_alone_changes() -> None:
    """Odd spacing, escapes, key order and number spellings around it stay as they were."""
    body = b'{ "max_tokens":1.0e3,"model" : "claude-opus-5-5" ,\n "x":"\\u00e9\\/", "messages":[{"model":"a"}]}'
    assert splice(body, {"model": b'"m"'}) == body.replace(b'"claude-opus-5-5"', b'"m"')


def test_a_key_inside_is_not_the_key_outside() -> None:
    """Only the outermost object is touched, whatever strings and objects in it look like."""
    body = b'{"messages":[{"content":"\\"model\\":\\"x\\""},{"model":"y"}],"model":"z"}'
    assert splice(body, {"model": b'"m"'}) == body[:-4] + b'"m"}'


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"a":1,"b":2,"c":3}', b'{"b":2,"c":3}'),
        (b'{"b":2,"a":1}', b'{"b":2}'),
        (b'{"a":1}', b"{}"),
        (b'{ "a" : {"a":[1]} , "b":2}', b'{ "b":2}'),
        (b'{"b":2 , "a":1 }', b'{"b":2 }'),
    ],
)
def test_a_removed_member_takes_its_comma_along(body: bytes, left: bytes) -> None:
    """First, last, only, or between: what is left is an object."""
    assert splice(body, {"a": None}) == left


def test_a_new_member_comes_last() -> None:
    """Also into an empty object."""
    assert splice(b'{"a":1}', {"b": b"2"}) == b'{"a":1,"b":2}'
    assert splice(b"{ }", {"b": b"2"}) == b'{"b":2 }'
    assert splice(b'{"a":1 }', {"a": None, "b": b"2"}) == b'{"b":2}'


def test_a_key_that_stands_twice_is_refused() -> None:
    """Which of the two a server reads is anybody's guess, so it is not guessed."""
    body = b'{"model":"a","model":"b"}'
    with pytest.raises(SpliceError, match="twice"):
        splice(body, {"model": None})
    with pytest.raises(SpliceError, match="twice"):
        splice_changes(body, {"model": "b"}, {"model": "c"})


@pytest.mark.parametrize("document", [b"", b"[]", b'"x"', b'{"a"', b'{"a":', b'{"a":[1', b"{1:2}"])
def test_what_is_no_object_is_refused(document: bytes) -> None:
    """An error with words, never a wrong body."""
    with pytest.raises(SpliceError):
        splice(document, {"a": b"1"})


@given(
    document=objects,
    changes=st.dictionaries(st.text(max_size=6), st.none() | values, max_size=4),
    spelling=spellings,
    ascii_only=st.booleans(),
)
def test_splicing_says_what_a_dict_would(
    document: dict[str, Any], changes: dict[str, Any], spelling: tuple[str, str], ascii_only: bool
) -> None:
    """Replaced, added, removed: parsed again, it is the dict with the same changes."""
    body = written(document, spelling, ascii_only=ascii_only)
    expected = json.loads(body)
    for key, value in changes.items():
        if value is None:
            expected.pop(key, None)
        else:
            expected[key] = value
    encoded = {key: None if value is None else json.dumps(value).encode() for key, value in changes.items()}
    assert json.loads(splice(body, encoded)) == expected


@given(document=objects, spelling=spellings)
def test_members_stand_where_they_are_said_to(document: dict[str, Any], spelling: tuple[str, str]) -> None:
    """Every value's bytes parse to that value."""
    body = written(document, spelling, ascii_only=True)
    assert {m.key: json.loads(body[m.start : m.end]) for m in members(body)} == json.loads(body)


def test_untouched_messages_keep_their_bytes() -> None:
    """Where one message of a conversation changes, the others are not respelled."""
    body = b'{"model":"a","messages":[{"role":"user", "content":"\\u00e9"},{"role":"assistant","content":[1.0,2]} , 3]}'
    before = json.loads(body)
    first, second, third = before["messages"]
    after = {**before, "model": "b", "messages": [first, {**second, "content": [2]}, third]}
    assert (
        splice_changes(body, before, after)
        == b'{"model":"b","messages":[{"role":"user", "content":"\\u00e9"},{"role":"assistant","content":[2]},3]}'
    )
    assert splice_changes(body, before, dict(before)) is body


@given(document=objects, other=objects)
def test_changes_between_two_values_are_all_made(document: dict[str, Any], other: dict[str, Any]) -> None:
    """Whatever differs, the result says the second value."""
    body = compact(document)
    before = json.loads(body)
    after = {**{k: v for k, v in before.items() if k not in other}, **json.loads(compact(other))}
    assert json.loads(splice_changes(body, before, after)) == after
