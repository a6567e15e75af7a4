"""Is this reply acceptable? Pure checks, the same for live calls, the gateway and replay.

A check looks at a reply and says what is wrong with it in words that the model itself can act on, or nothing. The
caller's own checks are plain callables over the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import InvalidTask
from tierwise.core.json import Json, JsonObject
from tierwise.core.tasks import Task
from tierwise.wire.anthropic import message_text, usage_from_message

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = [
    "Checked",
    "UserCheck",
    "check_message",
    "check_reply",
    "check_schema",
    "check_tool_call",
    "parse_json",
    "run_user_checks",
    "schema_problem",
    "tool_schemas",
]

UserCheck: TypeAlias = Callable[[str], object]
"""Takes the reply's text; returns None or True when it is fine, False or a string (what is wrong) when it is not.
An AssertionError or ValueError that it raises is what is wrong, too; anything else is a fault of the check itself
and ends the call."""

_FENCE = re.compile(r"\A\s*```[A-Za-z0-9_-]*[ \t]*\n(?P<inner>.*?)\n?```\s*\Z", re.DOTALL)
_MAX_PROBLEM = 300
_CUT_OFF = ("max_tokens", "model_context_window_exceeded")
_NO_ANSWER = ("text", "thinking", "redacted_thinking")  # blocks in which, without a word of text, nothing is said


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks say: `kind` is ACCEPTED, REJECTED, REFUSED or TRUNCATED.

    `text` is the reply as the caller gets it: a fence around JSON is taken off, a label is spelled as it was given.
    `value` is the parsed JSON where JSON was asked for. `problem` is for the model and may quote the reply; `note`
    is the same for the record, which never does.
    """

    kind: OutcomeKind
    text: str
    value: Json = None
    problem: str = ""
    note: str = ""


def check_reply(
    task: Task,
    text: str,
    stop_reason: str | None,
    message: JsonObject | None = None,
    user_checks: Sequence[UserCheck] = (),
) -> Checked:
    """Runs every check that applies to `task` over a complete reply."""
    if stop_reason == "refusal":
        return _refused(text)
    if stop_reason in _CUT_OFF:
        return _truncated(text)
    if stop_reason == "tool_use" and _has_tool_use(message):
        return Checked(OutcomeKind.ACCEPTED, text)
    if not text.strip():
        return _rejected(text, "the reply was empty")
    value: Json = None
    if task.labels:
        label = _label(text, task.labels)
        if label is None:
            problem = f"the reply must be exactly one of: {', '.join(task.labels)}"
            return _rejected(text, problem, "the reply is none of the labels")
        text = label
    elif task.json_schema is not None:
        parsed = _parsed(text)
        if isinstance(parsed, str):
            return _rejected(text, f"the reply must be one JSON document and nothing else: {parsed}")
        text, value = parsed
        found = schema_problem(value, task.json_schema)
        if found is not None:
            return _rejected(text, *found)
    return run_user_checks(text, user_checks) or Checked(OutcomeKind.ACCEPTED, text, value)


def run_user_checks(text: str, checks: Sequence[UserCheck]) -> Checked | None:
    """What the first of the caller's checks that refuses `text` says; None where none does."""
    for check in checks:
        said = _user_problem(check, text)
        if said is not None:
            name = getattr(check, "__name__", type(check).__name__)
            return _rejected(text, said, f"the check {name} refused it")
    return None


def check_message(message: JsonObject, body: JsonObject) -> Checked:
    """Whether a model's message answers a client's Messages request, so that it may be handed on as it is.

    Stricter than `check_reply` in one way: JSON in a Markdown fence is rejected where a schema was given, since
    nobody takes the fence off. A schema that cannot be used (it refers to elsewhere, it is none) rejects nothing.

    Args:
        message: the whole message.
        body: the request as the client made it: its `max_tokens` is the client's wish, and a reply that is cut off
            there is what was asked for. One that is cut off earlier met a limit of the model.
    """
    text = message_text(message)
    stop_reason = message.get("stop_reason")
    if stop_reason == "refusal":
        return _refused(text)
    if stop_reason in _CUT_OFF:
        if stop_reason == "max_tokens" and _met_own_limit(message, body):
            return Checked(OutcomeKind.ACCEPTED, text)
        return _truncated(text)
    content = message.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    if calls:
        schemas = tool_schemas(body)
        for call in calls:
            checked = check_tool_call(call, schemas)
            if checked.kind is not OutcomeKind.ACCEPTED:
                return checked
        return Checked(OutcomeKind.ACCEPTED, text)
    if not text.strip():
        if any(block.get("type") not in _NO_ANSWER for block in blocks):
            return Checked(OutcomeKind.ACCEPTED, text)  # a server's tool, or what is not known yet
        return _rejected(text, "the reply was empty")
    schema = _output_schema(body)
    if schema is None or stop_reason == "pause_turn":
        return Checked(OutcomeKind.ACCEPTED, text)
    parsed = _parsed(text)
    if isinstance(parsed, str) or parsed[0] != text.strip():
        wrong_with_it = parsed if isinstance(parsed, str) else "it stands in a Markdown fence"
        return _rejected(text, f"the reply must be one JSON document and nothing else: {wrong_with_it}")
    value = parsed[1]
    found = _usable_schema_problem(value, schema)
    return Checked(OutcomeKind.ACCEPTED, text, value) if found is None else _rejected(text, *found)


def tool_schemas(body: JsonObject) -> dict[str, JsonObject]:
    """The tools that a Messages request offers, by name, with what their input must satisfy; {} is anything."""
    tools = body.get("tools")
    found: dict[str, JsonObject] = {}
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and isinstance(name := tool.get("name"), str):
            schema = tool.get("input_schema")
            found[name] = schema if isinstance(schema, dict) else {}
    return found


def check_tool_call(block: JsonObject, schemas: Mapping[str, JsonObject]) -> Checked:
    """Whether a tool_use block calls a tool that there is, with arguments that satisfy its schema."""
    name, given = block.get("name"), block.get("input")
    schema = schemas.get(name) if isinstance(name, str) else None
    if schema is None:
        problem = f"there is no tool {name!r}; the tools are: {', '.join(schemas)}"
        return _rejected("", problem, "it calls a tool that was not offered")
    if not isinstance(given, dict):
        problem = "the arguments of a tool call are not a JSON object"
        return _rejected("", f"{problem}: {name}", problem)
    found = _usable_schema_problem(given, schema)
    if found is not None:
        return _rejected("", f"the arguments of {name}: {found[0]}", f"the arguments of a tool call: {found[1]}")
    return Checked(OutcomeKind.ACCEPTED, "", given)


def _usable_schema_problem(value: Json, schema: JsonObject) -> tuple[str, str] | None:
    """As `schema_problem`; nothing where the schema cannot be used: it is the client's fault and not the model's."""
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415  as in `_validator`

    if not schema or not isinstance(schema.get("$schema", ""), str):
        return None
    try:
        return schema_problem(value, schema)
    except (InvalidTask, SchemaError):
        return None


def _output_schema(body: JsonObject) -> JsonObject | None:
    match body:
        case {"output_config": {"format": {"schema": dict(schema)}}} | {"output_format": {"schema": dict(schema)}}:
            return schema
        case _:
            return None


def _met_own_limit(message: JsonObject, body: JsonObject) -> bool:
    asked = body.get("max_tokens")
    if not isinstance(asked, int):
        return False
    usage = usage_from_message(message)
    # One less: some servers do not count the token that was one too many. Uncounted, it is the only limit known.
    return usage.estimated or usage.output_tokens >= asked - 1


def _refused(text: str) -> Checked:
    problem = "the model declined to answer"
    return Checked(OutcomeKind.REFUSED, text, problem=problem, note=problem)


def _truncated(text: str) -> Checked:
    problem = "the reply was cut off at the limit of output tokens"
    return Checked(OutcomeKind.TRUNCATED, text, problem=problem, note=problem)


def _rejected(text: str, problem: str, note: str | None = None) -> Checked:
    note = problem if note is None else note
    return Checked(OutcomeKind.REJECTED, text, problem=problem[:_MAX_PROBLEM], note=note[:_MAX_PROBLEM])


def _has_tool_use(message: JsonObject | None) -> bool:
    content = (message or {}).get("content")
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_use" for block in content
    )


def _unfenced(text: str) -> str:
    match = _FENCE.match(text)
    return match.group("inner") if match else text


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parse_json(text: str) -> tuple[str, Json] | None:
    """The JSON document that a reply is, with or without a Markdown fence around it; None when it is not one.

    A document with words before or after it is not one: what a caller would parse must be all of it.
    """
    parsed = _parsed(text)
    return None if isinstance(parsed, str) else parsed


def _parsed(text: str) -> tuple[str, Json] | str:
    """As `parse_json`, or what keeps the reply from being a JSON document."""
    inner = _unfenced(text).strip()
    try:
        return inner, json.loads(inner, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return f"{error.msg} at line {error.lineno}"
    except (ValueError, RecursionError) as error:
        return str(error)


@lru_cache(maxsize=128)
def _validator(schema_text: str) -> Validator:
    from jsonschema.validators import validator_for  # noqa: PLC0415  costs 60 ms: only where a schema is used
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # noqa: PLC0415  untyped

    schema: dict[str, Any] = json.loads(schema_text)
    cls = validator_for(schema)
    cls.check_schema(schema)
    # A registry of its own: by default a reference to an address would be fetched from there.
    return cls(schema, registry=REGISTRY)


def check_schema(schema: JsonObject) -> None:
    """Whether replies can be held to this schema.

    Raises:
        InvalidTask: it is not a schema, or it refers to something that is not in it.
    """
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415
    from jsonschema_specifications import REGISTRY  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415
    from referencing.jsonschema import DRAFT202012, specification_with  # noqa: PLC0415

    try:
        _validator(json.dumps(schema, sort_keys=True))
    except SchemaError as error:
        raise InvalidTask(f"the JSON schema is not valid: {error.message}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTask(f"the JSON schema is not JSON: {error}") from None
    references, own_bases = _references(schema)
    if own_bases:
        return  # references inside them mean something else than they do here; they are found when they are used
    dialect = specification_with(str(schema.get("$schema")), default=DRAFT202012)
    resolver = REGISTRY.with_resource("", dialect.create_resource(schema)).resolver()
    for reference in references:
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise InvalidTask(_missing(reference)) from None


def _references(schema: Json) -> tuple[list[str], bool]:
    """Every `$ref` of a schema, and whether any part of it has an `$id` of its own."""
    found: list[str] = []
    bases = False
    waiting: list[Json] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend(part.values())
            bases = bases or isinstance(part.get("$id"), str)
            reference = part.get("$ref")
            if isinstance(reference, str):
                found.append(reference)
    return found, bases


def _missing(reference: str) -> str:
    return f"the JSON schema refers to {reference!r}, which is not in it; references to elsewhere are not fetched"


def schema_problem(value: Json, schema: JsonObject) -> tuple[str, str] | None:
    """What keeps `value` from satisfying `schema`: the most telling error, for the model and for the record.

    Raises:
        InvalidTask: the schema refers to something that is not in it.
    """
    from jsonschema.exceptions import best_match  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        error = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except Unresolvable as unresolvable:
        raise InvalidTask(_missing(unresolvable.ref)) from None
    except RecursionError:
        problem = "the JSON is nested too deeply"
        return problem, problem
    except OverflowError:
        problem = "the JSON holds a number that is too large"
        return problem, problem
    if error is None:
        return None
    path = "/".join(str(part) for part in error.absolute_path)
    # The place in the schema, not in the reply: it holds no word of the reply.
    place = "/".join(str(part) for part in error.absolute_schema_path)
    return (
        f"the JSON does not satisfy the schema{f' at {path}' if path else ''}: {error.message}",
        f"the JSON does not satisfy the schema ({place})",
    )


def _label(text: str, labels: tuple[str, ...]) -> str | None:
    candidate = text.strip()
    parsed = parse_json(candidate)
    if parsed is not None:
        value = parsed[1]
        if isinstance(value, dict) and isinstance(value.get("label"), str):
            candidate = str(value["label"])
        elif isinstance(value, str):
            candidate = value
    bare = candidate.strip().strip("\"'`*.!,;: \n").casefold()
    if candidate.strip() in labels:
        return candidate.strip()
    for label in labels:
        if label.casefold() == bare or label.casefold().strip("\"'`*.!,;: \n") == bare:
            return label
    return None


def _user_problem(check: UserCheck, text: str) -> str | None:
    name = getattr(check, "__name__", type(check).__name__)
    try:
        said = check(text)
    except (AssertionError, ValueError) as error:
        return str(error) or f"it did not pass the check {name}"
    if said is None or said is True:
        return None
    if isinstance(said, Awaitable):
        # Taken for true it would accept everything.
        raise TypeError(f"the check {name} is asynchronous; give a plain function")
    if isinstance(said, str):
        return said or None
    return None if said else f"it did not pass the check {name}"
