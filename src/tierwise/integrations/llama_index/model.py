"""`TierwiseLLM`: an LLM for LlamaIndex whose calls are routed, checked, priced and recorded in this process.

It speaks Messages to the gateway inside this process, as a wrapped SDK does; LlamaIndex's side of it (events,
callbacks, rate limiters, prompts, programs) is `FunctionCallingLLM`'s own. One call is one event: `complete` does not
go through the `chat` that callbacks see, or they would count its tokens twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.generic_utils import (
    achat_to_completion_decorator,
    astream_chat_to_completion_decorator,
    chat_to_completion_decorator,
    stream_chat_to_completion_decorator,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    ToolCallBlock,
)
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # it is how they do
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.program.streaming_utils import process_streaming_content_incremental
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import BaseTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from tierwise.core.json import JsonObject
from tierwise.integrations.llama_index.messages import (
    ResponseReader,
    conversation,
    response_of,
    tool_choice_of,
    tool_of,
)
from tierwise.integrations.options import call_options
from tierwise.integrations.turns import request_body

if TYPE_CHECKING:
    from tierwise.integrations.calling import Messages

__all__ = ["TierwiseLLM"]

_OPTIONS = (
    "task",
    "task_type",
    "min_tier",
    "max_tier",
    "project",
    "tags",
    "deadline_seconds",
    "route",
    "check",
)
_NOT_OF_A_REQUEST = ("formatted", "verbose")
_DEFAULT_MAX_TOKENS = 4_096
_DEFAULT_CONTEXT_WINDOW = 200_000

_dispatcher = get_dispatcher(__name__)


class TierwiseLLM(FunctionCallingLLM):
    """An LLM whose every call goes to the cheapest tier that does it well.

        Settings.llm = TierwiseLLM(project="support")
        Settings.llm.complete("Summarise this ticket in one line: …", min_tier="haiku")

    `task`, `task_type`, `min_tier`, `max_tier`, `project`, `tags`, `deadline_seconds`, `route` and `check` mean what
    they do in `tierwise.call_options`, and may be given here or with a call. What became of a call is in
    `response.raw["tierwise"]`. A call without an acceptable answer raises a `tierwise.RunError`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")  # a misspelt bound would bound nothing

    model: str = Field(default="claude-tierwise-auto", description="A routed name, or a model to use as it is.")
    max_tokens: int = Field(default=_DEFAULT_MAX_TOKENS, description="The most tokens of an answer.", gt=0)
    temperature: float | None = Field(default=None, description="Left out for models that take none.")
    context_window: int = Field(
        default=_DEFAULT_CONTEXT_WINDOW, description="What LlamaIndex packs into a prompt at most, in tokens.", gt=0
    )
    thinking: dict[str, Any] | None = Field(default=None, description="Thinking, as Messages requests have it.")
    timeout: float | None = Field(default=None, description="Seconds to wait for the next bytes of an answer.")
    api_key: SecretStr | None = Field(
        default=None, description="In place of the configured one of Anthropic's.", exclude=True
    )
    base_url: str | None = Field(default=None, description="In place of the configured one of Anthropic's.")
    additional_kwargs: dict[str, Any] = Field(default_factory=dict, description="Further fields of Messages requests.")
    task: str | None = Field(default=None, description="The task in a few words; it is what is routed.")
    task_type: str | None = Field(default=None, description="What it is, where you know it.")
    min_tier: str | None = Field(default=None, description="The lowest tier that may answer.")
    max_tier: str | None = Field(default=None, description="The highest tier that may answer.")
    project: str | None = Field(default=None, description="Recorded with the call.")
    tags: dict[str, str] | None = Field(default=None, description="Recorded with the call.")
    deadline_seconds: float | None = Field(default=None, description="That a call may take, attempts included.")
    route: bool | None = Field(default=None, description="False sends routed names to the baseline model.")
    check: Callable[[str], object] | Sequence[Callable[[str], object]] | None = Field(
        default=None, description="Refuses an answer, upon which the next model is asked.", exclude=True
    )
    settings: Any = Field(
        default=None,
        description="A tierwise.Settings; read from tierwise.toml and the environment when None.",
        exclude=True,
        repr=False,
    )
    _known_calls: Any = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex knows it again."""
        return "TierwiseLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model before it asks the model."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self.max_tokens,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model,
        )

    # ------------------------------------------------------------------ calls

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation."""
        return self._chat(messages, **kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation."""
        return await self._achat(messages, **kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer to a conversation, as it comes."""
        return self._stream_chat(messages, **kwargs)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The answer to a conversation, as it comes."""
        return await self._astream_chat(messages, **kwargs)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a prompt."""
        return chat_to_completion_decorator(self._chat)(prompt, **kwargs)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a prompt."""
        return await achat_to_completion_decorator(self._achat)(prompt, **kwargs)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer to a prompt, as it comes."""
        return stream_chat_to_completion_decorator(self._stream_chat)(prompt, **kwargs)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """The answer to a prompt, as it comes."""
        return await astream_chat_to_completion_decorator(self._astream_chat)(prompt, **kwargs)

    def _chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        options = self._options(kwargs)
        body = self._body(messages, kwargs)
        with options:
            reply, told = self._calls.create(body)
        return response_of(reply, told.metadata())

    async def _achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        options = self._options(kwargs)
        body = self._body(messages, kwargs)
        with options:
            reply, told = await self._calls.acreate(body)
        return response_of(reply, told.metadata())

    def _stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        options = self._options(kwargs)
        body = self._body(messages, kwargs)
        stack = ExitStack()
        with options:  # the call begins now, wherever its answer is read
            events = stack.enter_context(self._calls.stream(body))

        def responses() -> ChatResponseGen:
            with stack:
                reader = ResponseReader()
                for event in events:
                    response = reader.read(event, events.told.metadata())
                    if response is not None:
                        yield response
                yield reader.end(events.told.metadata())

        return responses()

    async def _astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        options = self._options(kwargs)
        body = self._body(messages, kwargs)
        stack = AsyncExitStack()
        with options:
            events = await stack.enter_async_context(self._calls.astream(body))

        async def responses() -> ChatResponseAsyncGen:
            async with stack:
                reader = ResponseReader()
                async for event in events:
                    response = reader.read(event, events.told.metadata())
                    if response is not None:
                        yield response
                yield reader.end(events.told.metadata())

        return responses()

    # ------------------------------------------------------------------ tools

    def _prepare_chat_with_tools(  # noqa: PLR0917  as LlamaIndex has it
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages.append(ChatMessage(user_msg) if isinstance(user_msg, str) else user_msg)
        choice = kwargs.pop("tool_choice", None)
        if not tools:
            return {"messages": messages, **kwargs}
        return {
            "messages": messages,
            "tools": [tool_of(tool) for tool in tools],
            "tool_choice": tool_choice_of(choice, required=tool_required, parallel=allow_parallel_tool_calls),
            **kwargs,
        }

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Keeps the first tool call where only one is wanted: not every model obeys."""
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not allow_parallel_tool_calls and len(calls) > 1:
            response.message.blocks = [block for block in response.message.blocks if block not in calls[1:]]
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of tools that an answer asks for."""
        calls = [
            ToolSelection(
                tool_id=block.tool_call_id or "",
                tool_name=block.tool_name,
                tool_kwargs=block.tool_kwargs if isinstance(block.tool_kwargs, dict) else {},
            )
            for block in response.message.blocks
            if isinstance(block, ToolCallBlock)
        ]
        if error_on_no_tool_call and not calls:
            raise ValueError(f"the answer calls no tool: {response.message.content or 'it says nothing'}")
        return calls

    # ------------------------------------------------------------------ structured output

    def structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """The answer, as an object. Its schema is checked, and the next model asked where it is not kept."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        _starts(output_cls, prompt, prompt_args)
        response = self.chat(self._asked(prompt, prompt_args), **_as_object(output_cls, llm_kwargs))
        return _ends(output_cls.model_validate_json(response.message.content or ""))

    async def astructured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """The answer, as an object. Its schema is checked, and the next model asked where it is not kept."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        _starts(output_cls, prompt, prompt_args)
        response = await self.achat(self._asked(prompt, prompt_args), **_as_object(output_cls, llm_kwargs))
        return _ends(output_cls.model_validate_json(response.message.content or ""))

    def _structured_stream_call(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            yield from super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
            return
        found: Any = None
        for response in self.stream_chat(self._asked(prompt, prompt_args), **_as_object(output_cls, llm_kwargs)):
            found = process_streaming_content_incremental(response, output_cls, found)
            yield found

    async def _structured_astream_call(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        stream = await self.astream_chat(self._asked(prompt, prompt_args), **_as_object(output_cls, llm_kwargs))

        async def objects() -> AsyncGenerator[Any, None]:
            found: Any = None
            async for response in stream:
                found = process_streaming_content_incremental(response, output_cls, found)
                yield found

        return objects()

    def _asked(self, prompt: PromptTemplate, prompt_args: Mapping[str, Any]) -> list[ChatMessage]:
        return self._extend_messages(prompt.format_messages(llm=self, **prompt_args))

    # ------------------------------------------------------------------ requests

    def _options(self, kwargs: dict[str, Any]) -> AbstractContextManager[None]:
        """What is said of a call, taken out of `kwargs`; with a call over the model's own."""
        said: dict[str, Any] = {name: getattr(self, name) for name in _OPTIONS}
        said.update({name: kwargs.pop(name) for name in _OPTIONS if name in kwargs})
        return call_options(**said)

    def _body(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> JsonObject:
        own: dict[str, Any] = {
            "temperature": self.temperature,
            "thinking": self.thinking,
            **self.additional_kwargs,
            **{name: value for name, value in kwargs.items() if name not in _NOT_OF_A_REQUEST},
        }
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


def _as_object(output_cls: type[BaseModel], llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """What asks for an object of the class, in the answer itself."""
    wanted = {"format": {"type": "json_schema", "schema": output_cls.model_json_schema()}}
    return {"output_config": wanted, **(llm_kwargs or {})}


def _starts(output_cls: type[BaseModel], prompt: PromptTemplate, prompt_args: Mapping[str, Any]) -> None:
    _dispatcher.event(
        LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=dict(prompt_args))
    )


def _ends(found: BaseModel) -> BaseModel:
    _dispatcher.event(LLMStructuredPredictEndEvent(output=found))
    return found
