"""Tools for agent loops written by hand: some are plain code, some are carried out by a model of the tier that fits.

    @model_tool(tier="haiku")
    def summarize_page(text: str) -> str:
        '''Summarise a page in one sentence.'''

    tools = Toolbox([summarize_page, search_orders])
    ...
    message = client.messages.create(tools=tools.definitions, …)
    results = tools.results(message.content)

A model tool is declared like a function and called like one: what it is given is the input, its docstring is what is
to be done, what it returns says what the answer is held to. `TOOL_TIER_OVERRIDES` and the configuration go on saying
where tools go, without a change of code. The toolbox knows both kinds, whatever loop and SDK they are called from.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, get_origin

from pydantic import TypeAdapter, ValidationError, validate_call
from pydantic_core import to_json, to_jsonable_python

from tierwise.api import TOOL_TIER_OVERRIDES, default_router
from tierwise.core.catalog import Tier
from tierwise.core.errors import InvalidTask
from tierwise.core.json import Json, JsonObject
from tierwise.engine.checks import UserCheck

if TYPE_CHECKING:
    from tierwise.engine.result import Result
    from tierwise.engine.sync import Router

__all__ = ["Toolbox", "model_tool"]

P = ParamSpec("P")
R = TypeVar("R")
_NOT_NAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
_WRAPPED = "result"  # under which an answer stands that is no object, since a schema must be one


def model_tool(
    *,
    tier: str | Tier | None = None,
    name: str | None = None,
    checks: Sequence[UserCheck] = (),
    router: Router | None = None,
    **options: Any,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turns a function into a tool that a model carries out and that is recorded like any call.

    The function's parameters are the tool's input, its docstring says what is to be done, and its body is never run:
    write nothing after the docstring, or `raise NotImplementedError` where a type checker wants a body. Its return type
    says what the answer must be, and the next model is asked where it is not: `str` is any text, a `Literal` of texts
    is one of them, and everything else that pydantic knows (a model, a TypedDict, `list[str]`, `bool`) is JSON that
    fits its schema, and is returned as that type. An `async def` is awaited.

    Args:
        tier: where it goes. `TOOL_TIER_OVERRIDES` takes precedence; where neither says anything, the configuration's
            `overrides.tools` applies; otherwise what the tool does decides.
        name: the tool's name, if it is not the function's.
        checks: further checks of the answer's text.
        router: carries it out; the process's own when None.
        options: fields of `Task` (session, project, tags, stakes, max_output_tokens, …).

    Raises:
        InvalidTask: no docstring, or parameters that have no name of their own.
    """

    def made(function: Callable[P, R]) -> Callable[P, R]:
        return _model_tool(function, tier, name, tuple(checks), router, options)

    return made


def _model_tool(  # noqa: PLR0917  each is something of its own
    function: Callable[P, R],
    tier: str | Tier | None,
    name: str | None,
    checks: tuple[UserCheck, ...],
    router: Router | None,
    options: Mapping[str, Any],
) -> Callable[P, R]:
    known = name or function.__name__
    what = inspect.getdoc(function)
    if not what:
        raise InvalidTask(f"the tool {known} has no docstring; say there what is to be done")
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind in _NOT_NAMED:
            raise InvalidTask(f"the tool {known} has a parameter {parameter}; give each input a name")
    answer = _Answer(function)

    def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Json, dict[str, Any]]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        tiers = {**({} if tier is None else {known: tier}), **TOOL_TIER_OVERRIDES}
        said = {"text": what, "tier_overrides": tiers, "checks": checks, **answer.options, **options}
        return known, to_jsonable_python(bound.arguments), said

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def later(*args: P.args, **kwargs: P.kwargs) -> Any:
            tool, given, said = call(args, kwargs)
            return answer.of(await (router or default_router()).adispatch_tool(tool, given, **said))

        later.__name__ = known
        return cast("Callable[P, R]", later)

    @wraps(function)
    def now(*args: P.args, **kwargs: P.kwargs) -> R:
        tool, given, said = call(args, kwargs)
        return cast("R", answer.of((router or default_router()).dispatch_tool(tool, given, **said)))

    now.__name__ = known
    return now


class _Answer:
    """What a tool returns: what the model is held to for it, and how it is read."""

    def __init__(self, function: Callable[..., Any]) -> None:
        returns = typing.get_type_hints(function, include_extras=True).get("return", str)
        self.options: dict[str, Any] = {}
        self._adapter: TypeAdapter[Any] | None = None
        self._wrapped = False
        if returns is str:
            return
        if get_origin(returns) is Literal and all(isinstance(label, str) for label in typing.get_args(returns)):
            self.options = {"labels": typing.get_args(returns)}
            return
        self._adapter = TypeAdapter(returns)
        schema = self._adapter.json_schema()
        self._wrapped = schema.get("type") != "object"
        self.options = {"json_schema": _in_object(schema) if self._wrapped else schema}

    def of(self, result: Result) -> Any:
        """The answer as the function's type."""
        if self._adapter is None:
            return result.text
        value = result.value
        if self._wrapped and isinstance(value, dict):
            value = value[_WRAPPED]
        return self._adapter.validate_python(value)


def _in_object(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of an object that holds what the schema is of; definitions stay on top, where references look."""
    inner = {name: value for name, value in schema.items() if name != "$defs"}
    outer = {"type": "object", "properties": {_WRAPPED: inner}, "required": [_WRAPPED], "additionalProperties": False}
    return {**outer, "$defs": schema["$defs"]} if "$defs" in schema else outer


class Toolbox:
    """The tools of an agent loop: functions, asynchronous functions, and model tools, by name.

    Args:
        tools: each is known by its `__name__`; its docstring describes it to the model, its annotations say what it
            takes.

    Raises:
        InvalidTask: two tools of one name, or one whose parameters cannot be said as JSON.
    """

    def __init__(self, tools: Iterable[Callable[..., Any]]) -> None:
        self._tools: dict[str, Callable[..., Any]] = {}
        self._definitions: list[JsonObject] = []
        for tool in tools:
            name = tool.__name__
            if name in self._tools:
                raise InvalidTask(f"there are two tools of the name {name!r}; rename one")
            try:
                schema = TypeAdapter(cast("Any", tool)).json_schema()
                self._tools[name] = validate_call(tool)
            except Exception as error:  # pydantic has many, for as many kinds of annotations
                raise InvalidTask(f"the parameters of {name} cannot be said as JSON: {error}") from error
            self._definitions.append(
                {"name": name, "description": inspect.getdoc(tool) or name, "input_schema": schema}
            )

    @property
    def definitions(self) -> list[Any]:
        """The tools as a Messages request lists them."""
        return [dict(definition) for definition in self._definitions]

    @property
    def functions(self) -> list[Any]:
        """The tools as OpenAI's chat completions list them."""
        return [
            {
                "type": "function",
                "function": {
                    "name": one["name"],
                    "description": one["description"],
                    "parameters": one["input_schema"],
                },
            }
            for one in self._definitions
        ]

    def call(self, name: str, arguments: Mapping[str, Any] | str) -> str:
        """Carries out one call, and gives its result as text: JSON, where it is no text by itself.

        Args:
            name: the tool's.
            arguments: as a mapping, or as the JSON text that OpenAI's SDK gives.

        Raises:
            InvalidTask: no such tool, arguments that are no JSON object, or a tool that has to be awaited.
            Exception: whatever the tool raises, `pydantic.ValidationError` for arguments that are not its own included.
        """
        tool, given = self._prepared(name, arguments)
        if inspect.iscoroutinefunction(tool):
            raise InvalidTask(f"the tool {name} is asynchronous; await acall")
        return _as_text(tool(**given))

    async def acall(self, name: str, arguments: Mapping[str, Any] | str) -> str:
        """As `call`; a tool that is not asynchronous runs in a thread."""
        tool, given = self._prepared(name, arguments)
        if inspect.iscoroutinefunction(tool):
            return _as_text(await tool(**given))
        return _as_text(await asyncio.to_thread(tool, **given))

    def results(self, content: Iterable[Any]) -> list[Any]:
        """The results of all calls in a message's content, in order, as blocks of the next user turn.

        Takes the SDK's blocks, or dicts. What a tool raises is told to the model (`is_error`), not to you.
        """
        found = []
        for id_, name, arguments in _calls(content):
            try:
                found.append(_result(id_, self.call(name, arguments)))
            except Exception as error:  # noqa: BLE001  the model is to know, whatever it is
                found.append(_result(id_, _told(error), is_error=True))
        return found

    async def aresults(self, content: Iterable[Any]) -> list[Any]:
        """As `results`, with all calls at once."""

        async def one(id_: str, name: str, arguments: Mapping[str, Any]) -> JsonObject:
            try:
                return _result(id_, await self.acall(name, arguments))
            except Exception as error:  # noqa: BLE001  the model is to know, whatever it is
                return _result(id_, _told(error), is_error=True)

        return list(await asyncio.gather(*(one(*call) for call in _calls(content))))

    def _prepared(self, name: str, arguments: Mapping[str, Any] | str) -> tuple[Callable[..., Any], dict[str, Any]]:
        tool = self._tools.get(name)
        if tool is None:
            raise InvalidTask(f"there is no tool {name!r}; the tools are: {', '.join(self._tools)}")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError) as error:
                raise InvalidTask(f"the arguments of {name} are not JSON: {error}") from None
        if not isinstance(arguments, Mapping):
            raise InvalidTask(f"the arguments of {name} are not a JSON object")
        return tool, dict(arguments)


def _calls(content: Iterable[Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for block in content:
        told = block if isinstance(block, Mapping) else vars(block)
        match told:
            case {"type": "tool_use", "id": str(id_), "name": str(name), "input": Mapping() as arguments}:
                yield id_, name, arguments
            case _:
                pass


def _result(id_: str, text: str, *, is_error: bool = False) -> JsonObject:
    block: JsonObject = {"type": "tool_result", "tool_use_id": id_, "content": text}
    return {**block, "is_error": True} if is_error else block


def _as_text(value: object) -> str:
    if value is None:
        return "done"
    return value if isinstance(value, str) else to_json(value).decode()


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problems = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
        return f"the arguments are wrong: {'; '.join(problems)}"
    return f"{type(error).__name__}: {error}"
