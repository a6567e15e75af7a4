"""`TierwiseModel`: a model for Pydantic AI whose requests are routed, checked, priced and recorded in this process.

It is Pydantic AI's own Anthropic model, over a provider whose connections end in the gateway inside this process. Ours
is what the provider cannot say: which capabilities hold whatever tier a request goes to, the options of a call, and
what a call cost with all its attempts, which no list of prices tells.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings, AnthropicStreamedResponse
from pydantic_ai.models.batch import Batch, BatchRequest, EncodedBatchRequest
from pydantic_ai.native_tools import CodeExecutionTool, MCPServerTool, MemoryTool, WebFetchTool, WebSearchTool
from pydantic_ai.profiles import ModelProfileSpec, merge_profile
from pydantic_ai.profiles.anthropic import AnthropicModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.settings import ModelSettings, merge_model_settings

from tierwise.core.errors import ConfigError
from tierwise.engine.checks import UserCheck
from tierwise.integrations.options import call_options
from tierwise.integrations.pydantic_ai.provider import Heard, TierwiseProvider

__all__ = ["TierwiseModel", "TierwiseModelSettings"]

_OURS = "tierwise_"
# What the Claude models of all tiers have in common is that of the middle one, but for these. The gateway fits a
# request to the model that it goes to; what it cannot put in other words is not offered.
_ALIKE = "claude-sonnet-5-5"
_ROUTED = AnthropicModelProfile(
    anthropic_binds_thinking_blocks=False,  # the gateway sees to it
    anthropic_disables_thinking_with_between_tools=False,  # likewise: each model has its own word for it
    anthropic_disallows_budget_thinking=False,
    anthropic_disallows_sampling_settings=False,
    anthropic_disallows_top_effort_when_thinking_disabled=False,
    anthropic_max_output_tokens=None,  # the most that the largest gives would be set aside for each call
    anthropic_supports_on_demand_compaction=False,
    anthropic_supports_task_budgets=False,
    default_structured_output_mode="native",  # a schema is checked, and the next model asked where it is not kept
    supports_forced_tool_choice=True,  # in words, where a model cannot be forced
    supported_native_tools=frozenset({WebSearchTool, WebFetchTool, CodeExecutionTool, MemoryTool, MCPServerTool}),
    supports_mid_conversation_effort=False,
    supports_request_scoped_system_prompts=False,
    tool_addition_mode=None,
    tool_deferral_mode=None,
)


class TierwiseModelSettings(AnthropicModelSettings, total=False):  # type: ignore[call-arg]  # without the extra
    """Settings of a request: Pydantic AI's, those of its Anthropic model, and what `tierwise.call_options` takes."""

    tierwise_task: str
    """The task in a few words; it is what is routed, in place of the last thing said to the model."""

    tierwise_task_type: str
    """What it is, where you know it."""

    tierwise_min_tier: str
    """The lowest tier that may answer."""

    tierwise_max_tier: str
    """The highest tier that may answer."""

    tierwise_project: str
    """Recorded with the call."""

    tierwise_tags: Mapping[str, str]
    """Recorded with the call."""

    tierwise_deadline_seconds: float
    """How long the call may take, attempts and waits included."""

    tierwise_route: bool
    """False sends the request to the baseline model."""

    tierwise_check: UserCheck | Sequence[UserCheck]
    """Takes the answer's text; an answer that it refuses is not handed on: the next model is asked."""


class TierwiseModel(AnthropicModel):
    """A model whose every request goes to the cheapest tier that does it well.

        agent = Agent(TierwiseModel(), instructions="Answer in one line.")
        agent.run_sync("Summarise this ticket: …", model_settings=TierwiseModelSettings(tierwise_min_tier="haiku"))

    Each step of an agent is a request. What became of it is in its response: `model_name` is who answered,
    `usage.cost` what it cost with all attempts, `provider_details["tierwise"]` its tier, its task type, and its id in
    the ledger. A request without an acceptable answer raises a `ModelHTTPError`, as with Anthropic's model.

    Args:
        model_name: a routed name, or a model, which is then used and recorded as it is.
        provider: a `TierwiseProvider`, which takes a key, an address, a configuration.
        profile: what of the model's profile you know better.
        settings: the model's own; those of an agent and of a run go over them.
    """

    def __init__(
        self,
        model_name: str = "claude-tierwise-auto",
        *,
        provider: Literal["tierwise"] | TierwiseProvider = "tierwise",
        profile: ModelProfileSpec | None = None,
        settings: ModelSettings | None = None,
    ) -> None:
        if isinstance(provider, str):
            if provider != "tierwise":
                raise ConfigError(f"provider is {provider!r}; give a TierwiseProvider, or leave it out")
            provider = TierwiseProvider()
        if not isinstance(provider, TierwiseProvider):
            raise ConfigError(
                f"provider is {type(provider).__name__}; give a TierwiseProvider, or use AnthropicModel over an "
                "AnthropicProvider(anthropic_client=tierwise.wrap(…))"
            )
        if provider.gateway.is_routed(model_name):
            profile = _over_routed(profile)
        self._tierwise = provider
        super().__init__(model_name, provider=provider, profile=profile, settings=settings)

    def __repr__(self) -> str:
        """Without the profile, which is long and says nothing that the name does not."""
        return f"{type(self).__name__}({self.model_name!r}, settings={self.settings!r})"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """One request, answered whole."""
        with self._options(model_settings), self._tierwise.hearing() as heard:
            response = await super().request(messages, model_settings, model_request_parameters)
        response.usage.cost = heard.cost_usd
        response.provider_details = _details(response.provider_details, heard)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """One request, answered as it comes."""
        async with AsyncExitStack() as stack:
            # They hold for the beginning of the call, and not for what the caller does while the answer comes.
            with self._options(model_settings), self._tierwise.hearing():
                stream = super().request_stream(messages, model_settings, model_request_parameters, run_context)
                streamed = await stack.enter_async_context(stream)
            yield streamed

    async def batch_encode(self, request: BatchRequest) -> EncodedBatchRequest:
        """One request of a batch. What is said of it for tierwise would be lost, so it is refused."""
        own = sorted(name for name in request.model_settings or {} if name.startswith(_OURS))
        if own:
            raise ConfigError(
                f"{', '.join(own)} cannot be set for one request of a batch; set it for the model, or put "
                "tierwise.call_options around the batch"
            )
        return await super().batch_encode(request)

    async def batch_create(self, requests: Sequence[EncodedBatchRequest]) -> Batch:
        """Sends a batch, whose requests are routed each; the model's own settings hold for all of them."""
        with self._options(None):
            return await super().batch_create(requests)

    async def _process_streamed_response(self, *args: Any, **kwargs: Any) -> AnthropicStreamedResponse:
        streamed = await super()._process_streamed_response(*args, **kwargs)
        given = {each.name: getattr(streamed, each.name) for each in fields(streamed) if each.init}
        ours = _StreamedResponse(**given, _heard=self._tierwise.heard())
        ours.canonical_system = streamed.canonical_system
        return ours

    def _options(self, model_settings: ModelSettings | None) -> AbstractContextManager[None]:
        """What is said of a call; by a run over by the agent over by the model, as Pydantic AI merges them."""
        merged = cast("Mapping[str, Any]", merge_model_settings(self.settings, model_settings) or {})
        said = {name.removeprefix(_OURS): value for name, value in merged.items() if name.startswith(_OURS)}
        known = {name.removeprefix(_OURS) for name in TierwiseModelSettings.__annotations__ if name.startswith(_OURS)}
        if unknown := said.keys() - known:
            names = ", ".join(sorted(f"{_OURS}{name}" for name in unknown))
            raise ConfigError(f"unknown model settings: {names}; TierwiseModelSettings has those that there are")
        return call_options(**said)


@dataclass
class _StreamedResponse(AnthropicStreamedResponse):
    """A stream that knows at its end what its call cost."""

    _heard: Heard = field(kw_only=True)

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        self.provider_details = _details(self.provider_details, self._heard)  # type: ignore[has-type]  # likewise
        async for event in super()._get_event_iterator():
            yield event
        self._usage.cost = self._heard.cost_usd


def _details(details: dict[str, Any] | None, heard: Heard) -> dict[str, Any]:
    """What a response keeps of its provider: Anthropic's, and ours. What it cost is in its usage."""
    said = heard.last.metadata()
    said.pop("cost_usd", None)
    return {**(details or {}), "tierwise": said}


def _over_routed(own: ModelProfileSpec | None) -> ModelProfileSpec:
    """The profile of a model that is not known yet, and what the caller knows better."""
    routed = merge_profile(AnthropicProvider.model_profile(_ALIKE), _ROUTED)
    if callable(own):
        return lambda default: own(merge_profile(default, routed))
    return merge_profile(routed, own)
