"""`ChatTierwise`: a LangChain chat model that is routed, checked, priced and recorded in this process.

It speaks Messages to the gateway inside this process, as a wrapped SDK does; LangChain's side of it (callbacks, caches,
rate limiters, batches, tracing) is `BaseChatModel`'s own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, SecretStr

from tierwise.core.errors import (
    ConfigError,
    DeadlineExceeded,
    LadderExhausted,
    RequestRefusedByProvider,
    RunError,
)
from tierwise.core.json import Json, JsonObject
from tierwise.core.settings import Settings
from tierwise.integrations.langchain.messages import ChunkReader, conversation, message_of, tool_choice_of, tool_of
from tierwise.integrations.options import call_options
from tierwise.integrations.sdk import inside_gateway
from tierwise.wire.schemas import close_schemas
from tierwise.wire.sse import SseParser

if TYPE_CHECKING:
    import httpx2

__all__ = ["ChatTierwise"]

_OPTIONS = ("task", "task_type", "min_tier", "max_tier", "project", "deadline_seconds", "check")
_NOT_OF_A_REQUEST = ("ls_structured_output_format", "stream_usage")
_REFUSED = frozenset({400, 401, 402, 403, 404, 413})
_URL = "http://tierwise.invalid/v1/messages"  # never looked up: the transport answers
_DEFAULT_MAX_TOKENS = 4_096

StructuredMethod = Literal["json_schema", "function_calling", "json_mode"]


class ChatTierwise(BaseChatModel):
    """A chat model whose every call goes to the cheapest tier that does it well.

        model = ChatTierwise(min_tier="haiku", project="support")
        model.invoke("Summarise this ticket in one line: …")
        model.bind(task="review a contract clause").invoke(…)

    `task`, `task_type`, `min_tier`, `max_tier`, `project`, `deadline_seconds` and `check` mean what they do in
    `tierwise.call_options`, and may be given here, bound, or with a call. What became of a call is in
    `response_metadata["tierwise"]`. A call without an acceptable answer raises a `tierwise.RunError`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    model: str = "claude-tierwise-auto"
    """A routed name, or a model, which is then used and recorded as it is."""
    max_tokens: int = _DEFAULT_MAX_TOKENS
    temperature: float | None = None
    """Left out for models that take none."""
    stop: list[str] | None = None
    thinking: dict[str, Any] | None = None
    timeout: float | None = None
    """Seconds to wait for the next bytes of an answer."""
    streaming: bool = False
    api_key: SecretStr | None = None
    """In place of the configured one of Anthropic's."""
    base_url: str | None = None
    """In place of the configured one of Anthropic's."""
    task: str | None = None
    task_type: str | None = None
    min_tier: str | None = None
    max_tier: str | None = None
    project: str | None = None
    deadline_seconds: float | None = None
    check: Callable[[str], object] | Sequence[Callable[[str], object]] | None = Field(default=None, exclude=True)
    settings: Any = Field(default=None, exclude=True, repr=False)
    """A `tierwise.Settings`; read from tierwise.toml and the environment when None."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further fields of Messages requests."""

    # ------------------------------------------------------------------ what LangChain asks

    @property
    def _llm_type(self) -> str:
        return "tierwise"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("model", "max_tokens", "temperature", "thinking", *_OPTIONS[:-1])
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "tierwise"
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools: functions, pydantic models, LangChain's, or Anthropic's own as dicts.

        Calls of them are held back until their arguments satisfy the tool's schema.
        """
        told = [tool_of(tool) for tool in tools]
        if strict is not None:
            told = [{**tool, "strict": strict} if "input_schema" in tool else tool for tool in told]
        choice = tool_choice_of(tool_choice, parallel=parallel_tool_calls)
        if choice is not None:
            kwargs["tool_choice"] = choice
        return self.bind(tools=told, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: StructuredMethod = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model, answering with the schema's class, or with a dict.

        Args:
            schema: a pydantic model, a TypedDict, or a JSON schema.
            method: "json_schema" has the reply checked for the schema, and the next model asked where it is not kept;
                "json_mode" is the same here. "function_calling" offers one tool, which not every model can be made
                to call.
            include_raw: a dict of `raw`, `parsed` and `parsing_error` instead.
            strict: for "function_calling"; the other methods are strict anyway.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, strict=strict, **kwargs)
        if kwargs:
            raise ValueError(f"with_structured_output does not know {', '.join(sorted(kwargs))}")
        wanted = convert_to_json_schema(schema)
        model = self.bind(
            output_config={"format": {"type": "json_schema", "schema": wanted}},
            ls_structured_output_format={"kwargs": {"method": method, "strict": strict}, "schema": wanted},
        )
        parser: Runnable[Any, Any] = (
            PydanticOutputParser(pydantic_object=schema)
            if isinstance(schema, type) and is_basemodel_subclass(schema)
            else JsonOutputParser()
        )
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")

    # ------------------------------------------------------------------ calls

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        options = self._options(kwargs)
        body = self._body(messages, stop, kwargs)
        with options:
            answer = self._client.post(_URL, json=body, headers=self._headers)
        return _result(answer.status_code, answer.headers, answer.content)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        options = self._options(kwargs)
        body = self._body(messages, stop, kwargs)
        client = self._new_async_client()
        with options:
            answer = await client.post(_URL, json=body, headers=self._headers)
        return _result(answer.status_code, answer.headers, answer.content)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        options = self._options(kwargs)
        body = {**self._body(messages, stop, kwargs), "stream": True}
        with options:
            answer = self._client.send(
                self._client.build_request("POST", _URL, json=body, headers=self._headers), stream=True
            )
        try:
            if answer.status_code != 200:
                raise _failure(answer.status_code, answer.headers, answer.read())
            events = _Events(answer.headers, body)
            for piece in answer.iter_bytes():
                for chunk in events.read(piece):
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
        finally:
            answer.close()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        options = self._options(kwargs)
        body = {**self._body(messages, stop, kwargs), "stream": True}
        client = self._new_async_client()
        with options:
            answer = await client.send(
                client.build_request("POST", _URL, json=body, headers=self._headers), stream=True
            )
        try:
            if answer.status_code != 200:
                raise _failure(answer.status_code, answer.headers, await answer.aread())
            events = _Events(answer.headers, body)
            async for piece in answer.aiter_bytes():
                for chunk in events.read(piece):
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
        finally:
            await answer.aclose()

    def _options(self, kwargs: dict[str, Any]) -> AbstractContextManager[None]:
        """What is said of a call, taken out of `kwargs`; with a call over bound over the model's own."""
        said: dict[str, Any] = {name: getattr(self, name) for name in _OPTIONS}
        said.update({name: kwargs.pop(name) for name in _OPTIONS if name in kwargs})
        return call_options(**said)

    def _body(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> JsonObject:
        system, turns = conversation(messages)
        body: JsonObject = {"model": self.model, "max_tokens": self.max_tokens}
        if system is not None:
            body["system"] = system
        body["messages"] = turns
        stops: Any = stop or self.stop
        own: dict[str, Any] = {
            "temperature": self.temperature,
            "thinking": self.thinking,
            "stop_sequences": list(stops) if stops else None,
            **self.model_kwargs,
            **{name: value for name, value in kwargs.items() if name not in _NOT_OF_A_REQUEST},
        }
        body.update({name: value for name, value in own.items() if value is not None})
        return close_schemas(body)[0]

    # ------------------------------------------------------------------ the gateway

    @cached_property
    def _gateway(self) -> Any:
        settings = self.settings
        if settings is None:
            from tierwise.config import load_settings  # noqa: PLC0415

            settings = load_settings()
        if not isinstance(settings, Settings):
            raise ConfigError(f"settings is {type(settings).__name__}; give what tierwise.load_settings() returns")
        upstream = settings.providers[settings.gateway.upstream]
        if self.base_url is not None:
            upstream = replace(upstream, base_url=self.base_url)
        if self.api_key is not None:
            upstream = replace(upstream, api_key=None, api_keys=())
        return inside_gateway(replace(settings, providers={**settings.providers, upstream.name: upstream}))

    @property
    def _headers(self) -> dict[str, str]:
        return {} if self.api_key is None else {"x-api-key": self.api_key.get_secret_value()}

    @cached_property
    def _client(self) -> httpx2.Client:
        import httpx2  # noqa: PLC0415

        from tierwise.integrations.transport import Transport  # noqa: PLC0415

        transport = Transport(self._gateway, _all, None)
        return httpx2.Client(transport=transport, timeout=self.timeout)

    def _new_async_client(self) -> httpx2.AsyncClient:
        """One a call: they belong to an event loop, and hold nothing but the way to the gateway."""
        import httpx2  # noqa: PLC0415

        from tierwise.integrations.transport import AsyncTransport  # noqa: PLC0415

        transport = AsyncTransport(self._gateway, _all, None)
        return httpx2.AsyncClient(transport=transport, timeout=self.timeout)


def _all(request: httpx2.Request, body: bytes) -> Any:
    from tierwise.integrations.transport import Part  # noqa: PLC0415

    return Part(request.url.path, [(name.lower(), value) for name, value in request.headers.raw], body)


class _Events:
    """The bytes of a stream as LangChain's chunks."""

    def __init__(self, headers: Mapping[str, str], body: JsonObject) -> None:
        self._parser = SseParser()
        self._headers = headers
        self._reader = ChunkReader(_told(headers), blocks=bool(body.get("tools") or body.get("thinking")))

    def read(self, piece: bytes) -> Iterator[ChatGenerationChunk]:
        for event in self._parser.feed(piece):
            value = json.loads(event.data)
            match value:
                case {"type": "error", "error": {"message": str(message)}}:
                    raise RunError(message, call_id=self._headers.get("x-tierwise-call-id", ""))
                case dict():
                    chunk = self._reader.read(value)
                    if chunk is not None:
                        yield ChatGenerationChunk(message=chunk)
                case _:
                    pass


def _result(status: int, headers: Mapping[str, str], content: bytes) -> ChatResult:
    if status != 200:
        raise _failure(status, headers, content)
    message = message_of(json.loads(content), _told(headers))
    return ChatResult(generations=[ChatGeneration(message=message)])


def _told(headers: Mapping[str, str]) -> JsonObject:
    names = ("call-id", "task-type", "tier", "cost-usd", "warning")
    found: dict[str, Json] = {name.replace("-", "_"): headers.get(f"x-tierwise-{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _failure(status: int, headers: Mapping[str, str], content: bytes) -> RunError:
    """Why there is no answer, as an exception of ours; its record is named by `call_id`."""
    try:
        message = json.loads(content)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = f"the gateway answered {status}"
    match status:
        case 422:
            kind: type[RunError] = LadderExhausted
        case 504:
            kind = DeadlineExceeded
        case _:
            kind = RequestRefusedByProvider if status in _REFUSED else RunError
    return kind(str(message), call_id=headers.get("x-tierwise-call-id", ""))
