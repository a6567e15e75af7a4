"""JSON schemas as Anthropic's API takes them, for requests that were not written for it.

It compiles a schema into a grammar, of a part of JSON Schema: every object is closed (`additionalProperties: false`),
types come one at a time, references are local and not recursive, and bounds (`minimum`, `maxLength`, `pattern`, …) are
refused. What it takes: https://platform.claude.com/docs/en/build-with-claude/structured-outputs (JSON Schema
limitations), and what Anthropic's own SDK makes of a schema before it sends one (anthropic 2.14.0,
`lib/_parse/_transform.py`). OpenAI's dialect is looser where `strict` is not asked for.

What cannot be demanded is said in the description, and checked by us when the reply comes, since that is held to the
client's own schema. An object of which nothing is said but that it is open would only ever be empty when closed: such a
schema is given in words. A schema that the API takes is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tierwise.core.json import Json, JsonObject
from tierwise.wire.adapt import in_words, with_instruction

__all__ = ["close_schemas"]

_SCALARS = (str, int, float, bool, type(None))
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_SAYS_NOTHING = frozenset(
    {"$schema", "$id", "$anchor", "$comment", "deprecated", "readOnly", "writeOnly", "discriminator"}
)
_WORDS = ("title", "description")
_DEFINITIONS = ("$defs", "definitions")


class _Unsayable(Exception):
    """A schema that no grammar of the API's says; why."""


def close_schemas(body: JsonObject) -> tuple[JsonObject, tuple[str, ...]]:
    """A Messages request whose schemas the API takes, and a note in plain words for every change.

    Those of `output_config.format` and of strict tools: other tools' schemas are not compiled. `body` is not mutated.
    """
    notes: list[str] = []
    after = _format(dict(body), notes)
    tools = after.get("tools")
    if isinstance(tools, list):
        closed = [_tool(tool, notes) for tool in tools]
        if closed != tools:
            after["tools"] = closed
    return (after, tuple(notes)) if notes else (body, ())


def _format(body: JsonObject, notes: list[str]) -> JsonObject:
    config = body.get("output_config")
    asked = config.get("format") if isinstance(config, dict) else None
    schema = asked.get("schema") if isinstance(asked, dict) else None
    if not isinstance(config, dict) or not isinstance(asked, dict) or not isinstance(schema, dict):
        return body
    try:
        closed, changes = _closed(schema)
    except _Unsayable as why:
        rest = {name: value for name, value in config.items() if name != "format"}
        kept = {name: value for name, value in body.items() if name != "output_config"}
        notes.append(f"the JSON schema is given in words: {why}")
        return {
            **kept,
            **({"output_config": rest} if rest else {}),
            "messages": with_instruction(body, in_words(schema)),
        }
    if changes:
        notes.append(f"the JSON schema as Messages takes it: {', '.join(changes)}")
        body["output_config"] = {**config, "format": {**asked, "schema": closed}}
    return body


def _tool(tool: Json, notes: list[str]) -> Json:
    schema = tool.get("input_schema") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or tool.get("strict") is not True or not isinstance(schema, dict):
        return tool
    name = tool.get("name")
    try:
        closed, changes = _closed(schema)
    except _Unsayable as why:
        notes.append(f"the tool {name} is not strict: {why}")
        return {key: value for key, value in tool.items() if key != "strict"}
    if not changes:
        return tool
    notes.append(f"the schema of the tool {name} as Messages takes it: {', '.join(changes)}")
    return {**tool, "input_schema": closed}


def _closed(schema: JsonObject) -> tuple[JsonObject, tuple[str, ...]]:
    """The schema closed, and what that changed. Raises `_Unsayable`."""
    try:
        _refuse_recursion(schema)
        closing = _Closing()
        return closing.schema(schema), tuple(sorted(closing.changes))
    except RecursionError:
        raise _Unsayable("it is nested beyond reason") from None


class _Closing:
    def __init__(self) -> None:
        self.changes: set[str] = set()

    def schema(self, given: Json) -> JsonObject:
        if not isinstance(given, dict):
            raise _Unsayable("a part of it allows anything")
        left = {name: value for name, value in given.items() if name not in _SAYS_NOTHING}
        if len(left) != len(given):
            self.changes.add("what says nothing of the answer left out")
        said: JsonObject = {}
        for name in _DEFINITIONS:
            definitions = left.pop(name, None)
            if isinstance(definitions, dict):
                said[name] = {key: self.schema(value) for key, value in definitions.items()}
        for name in _WORDS:
            if isinstance(left.get(name), str):
                said[name] = left.pop(name)
        if "$ref" in left:
            return self._reference(said, left)
        self._what(said, left)
        return self._with_the_rest(said, left)

    def _reference(self, said: JsonObject, left: JsonObject) -> JsonObject:
        target = left.pop("$ref")
        if not isinstance(target, str) or not target.startswith(tuple(f"#/{name}/" for name in _DEFINITIONS)):
            raise _Unsayable(f"it refers to {target}")
        kept = {name: value for name, value in said.items() if name in _DEFINITIONS}
        if left or kept != said:
            self.changes.add("what stood beside a reference left out")
        return {**kept, "$ref": target}

    def _what(self, said: JsonObject, left: JsonObject) -> None:
        """The keywords that the grammar is made of move from `left` to `said`."""
        if self._literals(said, left):
            kind = left.pop("type", None)
            if isinstance(kind, str):
                said["type"] = kind
            elif kind is not None:  # the values say it
                self.changes.add("types one at a time")
            return
        for name in ("anyOf", "oneOf", "allOf"):
            parts = left.get(name)
            if isinstance(parts, list) and parts:
                self._combined(said, name, [self.schema(part) for part in parts])
                del left[name]
                if left.pop("type", None) is not None:
                    self.changes.add("types named where they stand")
                return
        kind = left.pop("type", None)
        if isinstance(kind, list):
            self._one_of_types(said, left, kind)
        else:
            self._typed(said, left, kind)

    def _typed(self, said: JsonObject, left: JsonObject, kind: Json) -> None:
        if kind is None:
            kind = "object" if "properties" in left else "array" if "items" in left else None
            if kind is None:
                raise _Unsayable("a part of it allows anything")
            self.changes.add("types named")
        said["type"] = kind
        if kind == "object":
            self._object(said, left)
        elif kind == "array":
            if "items" in left:
                said["items"] = self.schema(left.pop("items"))
            if left.get("minItems") in (0, 1):
                said["minItems"] = left.pop("minItems")
        elif kind == "string" and left.get("format") in _FORMATS:
            said["format"] = left.pop("format")

    @staticmethod
    def _literals(said: JsonObject, left: JsonObject) -> bool:
        for name, values in (("enum", left.get("enum")), ("const", [left.get("const")])):
            if name not in left:
                continue
            if not isinstance(values, list) or not all(isinstance(value, _SCALARS) for value in values):
                raise _Unsayable(f"its {name} is not of plain values")
            said[name] = left.pop(name)
        return "enum" in said or "const" in said

    def _combined(self, said: JsonObject, name: str, parts: list[JsonObject]) -> None:
        if name == "allOf" and len(parts) == 1:  # how older generators write a reference with words beside it
            self.changes.add("allOf of one taken for that one")
            words = {key: said[key] for key in _WORDS if key in said and "$ref" not in parts[0]}
            definitions = {key: said[key] for key in _DEFINITIONS if key in said}
            said.clear()
            said.update({**definitions, **parts[0], **words})
            return
        if name == "allOf" and any("$ref" in part for part in parts):
            raise _Unsayable("its allOf has references")
        if name == "oneOf":
            self.changes.add("oneOf became anyOf")
        said["anyOf" if name == "oneOf" else name] = list(parts)

    def _one_of_types(self, said: JsonObject, left: JsonObject, kinds: list[Json]) -> None:
        self.changes.add("types one at a time")
        parts: list[Json] = [
            {"type": "null"} if kind == "null" else self.schema({**left, "type": kind}) for kind in kinds
        ]
        left.clear()
        said["anyOf"] = parts

    def _object(self, said: JsonObject, left: JsonObject) -> None:
        properties = left.pop("properties", None)
        more = left.pop("additionalProperties", None)
        if more is not False:
            if not properties:
                raise _Unsayable("it has an object of any properties")
            self.changes.add("objects closed")
        said["properties"] = (
            {name: self.schema(value) for name, value in properties.items()} if isinstance(properties, dict) else {}
        )
        said["additionalProperties"] = False
        if "required" in left:
            said["required"] = left.pop("required")

    def _with_the_rest(self, said: JsonObject, left: JsonObject) -> JsonObject:
        """What the grammar cannot say goes into the description: the model may follow it, and we check it."""
        if left and "$ref" in said:
            self.changes.add("what stood beside a reference left out")
        elif left:
            self.changes.add(f"{', '.join(sorted(left))} said in words")
            words = f"It must satisfy {json.dumps(left, ensure_ascii=False)}"
            said["description"] = f"{said['description']}\n\n{words}" if "description" in said else words
        return said


def _refuse_recursion(schema: JsonObject) -> None:
    """Raises `_Unsayable` where a definition refers to itself, be it by way of others."""
    refers: dict[str, set[str]] = {}
    for place in _DEFINITIONS:
        definitions = schema.get(place)
        if isinstance(definitions, dict):
            refers.update({f"#/{place}/{name}": set(_references(value)) for name, value in definitions.items()})
    for name, first in refers.items():
        seen: set[str] = set()
        ahead = set(first)
        while ahead:
            following = ahead.pop()
            if following == name:
                raise _Unsayable(f"{name} is recursive")
            if following not in seen:
                seen.add(following)
                ahead |= refers.get(following, set())


def _references(value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str):
            yield target
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list):
        for below in value:
            yield from _references(below)
