"""The short forms that people drop into a script, over one router that is made when first needed.

That router reads tierwise.toml and the environment once and records into the configured ledger. Make a `Router` of
your own for anything else.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from typing import Any

from tierwise.core.catalog import Tier
from tierwise.core.json import Json
from tierwise.core.tasks import Task
from tierwise.engine.sync import Router

__all__ = [
    "TOOL_TIER_OVERRIDES",
    "adispatch_tool",
    "classify",
    "default_router",
    "dispatch_tool",
    "get_model",
    "route",
    "run_subtask",
]

TOOL_TIER_OVERRIDES: dict[str, str | Tier] = {}
"""Tier by tool name, for `dispatch_tool` and `model_tool`: fill it at start-up. A call's `tier_overrides` win."""

_lock = threading.Lock()
_router: Router | None = None


def default_router() -> Router:
    """The router behind the short forms. Raises `ConfigError` where the configuration cannot be used."""
    global _router  # noqa: PLW0603 one per process, made once, is what this function is for
    with _lock:
        if _router is None:
            _router = Router()
            atexit.register(_router.close)
        return _router


def classify(task: str | Task, **options: Any) -> Tier:
    """The tier that a task belongs to, as the policy sees it. Sends nothing.

    Raises:
        InvalidTask: there is nothing to classify.
    """
    return default_router().route(task, **options).tier


def route(task: str | Task, **options: Any) -> tuple[Tier, str]:
    """The tier that a task belongs to, and the id of the model there. Sends nothing."""
    decision = default_router().route(task, **options)
    return decision.tier, decision.model.id


def get_model(tier: str | Tier) -> str:
    """The id of the model that a tier prefers. Raises `UnknownTier`, which lists the tiers."""
    return default_router().settings.catalog.tier(tier).models[0].id


def run_subtask(task_description: str, prompt: str, **options: Any) -> str:
    """Runs `prompt` on the tier that fits `task_description`, and returns the answer.

    The description only routes; the prompt is what the model gets. The call is recorded in the ledger.

    Raises:
        RunError: there is no acceptable answer; see `Router.run`.
    """
    return default_router().run(task_description, prompt=prompt, **options).text


def dispatch_tool(
    tool_name: str,
    tool_input: Json,
    *,
    tier_overrides: Mapping[str, str | Tier] | None = None,
    **options: Any,
) -> str:
    """Runs a tool call on a model of the tier that fits the tool, and returns the answer.

    `tier_overrides` (tier by tool name) take precedence over `TOOL_TIER_OVERRIDES`, and those over the configuration's
    `overrides.tools`.
    """
    overrides = {**TOOL_TIER_OVERRIDES, **(tier_overrides or {})}
    return default_router().dispatch_tool(tool_name, tool_input, tier_overrides=overrides, **options).text


async def adispatch_tool(
    tool_name: str,
    tool_input: Json,
    *,
    tier_overrides: Mapping[str, str | Tier] | None = None,
    **options: Any,
) -> str:
    """Like `dispatch_tool`, awaited."""
    overrides = {**TOOL_TIER_OVERRIDES, **(tier_overrides or {})}
    result = await default_router().adispatch_tool(tool_name, tool_input, tier_overrides=overrides, **options)
    return result.text
