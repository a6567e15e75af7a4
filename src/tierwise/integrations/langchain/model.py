"""`ChatTierwise`: a LangChain chat model that is routed, checked, priced and recorded in this process.

It speaks Messages to the gateway inside this process, as a wrapped SDK does; LangChain's side of it (callbacks, caches,
rate limiters, batches, tracing) is `BaseChatModel`'s own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from tierwise.core.json import JsonObject
from tierwise.integrations.langchain.messages import (
    ChunkReader,
    conversation,
    format_of,
    message_of,
    tool_choice_of,
    tool_of,
)
from tierwise.integrations.options import call_options
from tierwise.integrations.turns import request_body

if TYPE_CHECKING:
    from tierwise.integrations.calling import Messages, Told

__all__ = ["ChatTierwise"]

_OPTIONS = ("task", "task_type", "min_tier", "max_tier", "project", "deadline_seconds", "check")
_NOT_OF_A_REQUEST = ("ls_structured_output_format", "stream_usage")
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
    _known_calls: Any = PrivateAttr(default=None)

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
            reply, told = self._calls.create(body)
        return _result(reply, told)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        options = self._options(kwargs)
        body = self._body(messages, stop, kwargs)
        with options:
            reply, told = await self._calls.acreate(body)
        return _result(reply, told)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        options = self._options(kwargs)
        body = self._body(messages, stop, kwargs)

        def told(chunk: AIMessageChunk) -> ChatGenerationChunk:
            generation = ChatGenerationChunk(message=chunk)
            if run_manager is not None:
                run_manager.on_llm_new_token(generation.text, chunk=generation)
            return generation

        with ExitStack() as stack:
            with options:
                events = stack.enter_context(self._calls.stream(body))
            reader = _reader(events.told, body)
            for event in events:
                if (chunk := reader.read(event)) is not None:
                    yield told(chunk)
            yield told(reader.end(events.told.metadata()))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        options = self._options(kwargs)
        body = self._body(messages, stop, kwargs)

        async def told(chunk: AIMessageChunk) -> ChatGenerationChunk:
            generation = ChatGenerationChunk(message=chunk)
            if run_manager is not None:
                await run_manager.on_llm_new_token(generation.text, chunk=generation)
            return generation

        async with AsyncExitStack() as stack:
            with options:
                events = await stack.enter_async_context(self._calls.astream(body))
            reader = _reader(events.told, body)
            async for event in events:
                if (chunk := reader.read(event)) is not None:
                    yield await told(chunk)
            yield await told(reader.end(events.told.metadata()))

    def _options(self, kwargs: dict[str, Any]) -> AbstractContextManager[None]:
        """What is said of a call, taken out of `kwargs`; with a call over bound over the model's own."""
        said: dict[str, Any] = {name: getattr(self, name) for name in _OPTIONS}
        said.update({name: kwargs.pop(name) for name in _OPTIONS if name in kwargs})
        return call_options(**said)

    def _body(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> JsonObject:
        stops: Any = stop or self.stop
        own: dict[str, Any] = {
            "temperature": self.temperature,
            "thinking": self.thinking,
            "stop_sequences": list(stops) if stops else None,
            **self.model_kwargs,
            **{name: value for name, value in kwargs.items() if name not in _NOT_OF_A_REQUEST},
        }
        if (wanted := own.pop("response_format", None)) is not None:
            own["output_config"] = {**(own.get("output_config") or {}), "format": format_of(wanted)}
        return request_body(self.model, self.max_tokens, conversation(messages), own)

    @property
    def _calls(self) -> Messages:
        from tierwise.integrations.calling import Messages  # noqa: PLC0415  starts httpx2

        calls = Messages.of(
            self._known_calls,
            settings=self.settings,
            base_url=self.base_url,
            api_key=None if self.api_key is None else self.api_key.get_secret_value(),
            timeout=self.timeout,
        )
        self._known_calls = calls
        return calls


def _reader(told: Told, body: JsonObject) -> ChunkReader:
    return ChunkReader(told.metadata(), blocks=bool(body.get("tools") or body.get("thinking")))


def _result(reply: JsonObject, told: Told) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message_of(reply, told.metadata()))])
