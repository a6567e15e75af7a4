"""Middleware for LangChain's agents: each step of a loop on the tier that fits it.

An agent asks its model again after every tool call. What a step is for is known: at first what the person asked, later
the result of this tool or that one. So the tier of a step is looked up by the tools whose results it reads, and, where
none of them is listed, decided by what was asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from tierwise.core.catalog import Tier
from tierwise.core.errors import InvalidTask
from tierwise.integrations.langchain.model import ChatTierwise

if TYPE_CHECKING:
    from tierwise.engine.sync import Router

__all__ = ["TierPerStep"]

_NOTHING = "(nothing is said)"


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step of an agent answers to: what was asked, and the tools whose results came last."""

    ask: str
    tools: tuple[str, ...]


class TierPerStep(AgentMiddleware[Any, Any]):
    """Chooses the model of each step of an agent.

        create_agent(ChatTierwise(), tools=[…], middleware=[TierPerStep(after_tools={"search": "haiku"})])

    With a `ChatTierwise` a step after such a tool goes to that tier and no other; all other steps it routes itself, as
    turns of a conversation. With `models` of any other kind each step's model is one of them, and nothing of it is
    recorded by tierwise. To move in the middle of a turn throws away what the model before had cached: list the tools
    after which that is worth it.

    Args:
        after_tools: the tier of a step that reads the result of this tool; of several, the highest.
        models: a chat model by tier; where a tier has none, the next one above. None: the agent's own model, which
            must be a `ChatTierwise`.
        router: decides about steps that `after_tools` does not; the process's own when None.

    Raises:
        UnknownTier: a tier that is not configured.
        InvalidTask: an agent's model that cannot be routed, or `models` without one that is high enough.
    """

    def __init__(
        self,
        *,
        after_tools: Mapping[str, str] | None = None,
        models: Mapping[str, BaseChatModel] | None = None,
        router: Router | None = None,
    ) -> None:
        super().__init__()
        if router is None:
            from tierwise.api import default_router  # noqa: PLC0415  reads the configuration

            router = default_router()
        self._router = router
        catalog = router.settings.catalog
        self._after = {name: catalog.tier(tier).tier for name, tier in (after_tools or {}).items()}
        self._models = (
            None
            if models is None
            else sorted(((catalog.tier(name).tier, model) for name, model in models.items()), key=lambda pair: pair[0])
        )

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """One step."""
        return handler(self._routed(request))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """One step of an asynchronous agent."""
        return await handler(self._routed(request))

    def _routed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        step = _step(request.messages)
        listed = [self._after[name] for name in step.tools if name in self._after]
        if self._models is not None:
            tier = max(listed) if listed else self._decided(step, request)
            return request.override(model=_at_least(tier, self._models))
        if not isinstance(request.model, ChatTierwise):
            kind = type(request.model).__name__
            raise InvalidTask(
                f"TierPerStep cannot route {kind}; give it models={{tier: model}}, or the agent ChatTierwise"
            )
        if not listed:
            return request  # its own routing knows the conversation, and what is cached of it
        name = max(listed).name
        return request.override(model_settings={**request.model_settings, "min_tier": name, "max_tier": name})

    def _decided(self, step: _Step, request: ModelRequest[Any]) -> Tier:
        return self._router.route(step.ask, has_tools=bool(request.tools)).tier


def _at_least(tier: Tier, models: Sequence[tuple[Tier, BaseChatModel]]) -> BaseChatModel:
    for found, model in models:
        if found >= tier:
            return model
    highest = models[-1][0] if models else "none"
    raise InvalidTask(f"TierPerStep has no model of {tier} or above (the highest is {highest}); add one to `models`")


def _step(messages: Sequence[BaseMessage]) -> _Step:
    tools: list[str] = []
    ask = ""
    before = False  # whether what comes is from before the model spoke last
    for message in reversed(messages):
        match message:
            case ToolMessage() if not before:
                tools.append(message.name or "")
            case AIMessage():
                before = True
            case HumanMessage():
                ask = str(message.text)
                break
            case _:
                pass
    return _Step(ask or _NOTHING, tuple(tools))
