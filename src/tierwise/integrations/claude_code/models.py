"""What Claude Code calls a model: its aliases (`haiku`, `sonnet`, `opus`, `fable`), and which rungs have one."""

from __future__ import annotations

from collections.abc import Mapping

from tierwise.core.catalog import Model
from tierwise.core.decisions import Decision, Rung
from tierwise.core.errors import NoRouteError
from tierwise.core.settings import ProviderSettings

__all__ = ["alias_of", "claude_rungs"]

_FAMILIES = ("haiku", "sonnet", "opus", "fable")


def alias_of(model_id: str) -> str:
    """The alias of a Claude model's family, which the CLI resolves to the newest of it; any other id as it is."""
    parts = model_id.split("-")
    if parts[0] != "claude":
        return model_id
    return next((family for family in _FAMILIES if family in parts), model_id)


def claude_rungs(decision: Decision, providers: Mapping[str, ProviderSettings]) -> tuple[Rung, ...]:
    """The rungs that the CLI can reach by itself: models on Anthropic's API. Local ones it cannot.

    Raises:
        NoRouteError: there is none.
    """
    rungs = tuple(rung for rung in decision.ladder if _is_claude(rung.model, providers))
    if not rungs:
        ladder = ", ".join(rung.model.id for rung in decision.ladder)
        raise NoRouteError(
            f"Claude Code cannot run {ladder}: it knows only Claude models. Raise the maximum tier, or put it before "
            "the gateway, which serves any model: tierwise claude --model claude-tierwise-auto"
        )
    return rungs


def _is_claude(model: Model, providers: Mapping[str, ProviderSettings]) -> bool:
    provider = providers.get(model.provider)
    return model.id.startswith("claude-") and provider is not None and provider.kind == "anthropic"
