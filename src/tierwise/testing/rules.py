"""Which requests the real API refuses, model by model, so that the stand-in refuses them too.

From the public documents of 2026-11-22: sampling parameters, prefill, thinking types, effort and forced tool use
differ by model, and a wrong one is a 400. This table is kept apart from the product's own catalog on purpose: a
mistake there must show here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tierwise.core.json import Json, JsonObject
from tierwise.testing.replies import request_tokens

__all__ = ["CLAUDE_MODELS", "ModelRules", "violations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRules:
    """What requests a model takes."""

    context_tokens: int = 200_000
    max_output_tokens: int = 64_000
    sampling: bool = True
    prefill: bool = True
    thinking: frozenset[str] = frozenset({"enabled", "disabled"})
    effort: bool = False
    forced_tool_use: bool = True


def _new(*thinking: str, forced: bool) -> ModelRules:
    return ModelRules(
        context_tokens=1_000_000,
        max_output_tokens=128_000,
        sampling=False,
        prefill=False,
        thinking=frozenset(thinking),
        effort=True,
        forced_tool_use=forced,
    )


CLAUDE_MODELS: dict[str, ModelRules] = {
    "claude-haiku-5-5": _new("adaptive", "disabled", forced=True),
    "claude-sonnet-5-5": _new("adaptive", "between_tools", forced=False),
    "claude-opus-5-5": _new("adaptive", forced=False),
    "claude-fable-5-2": _new("adaptive", forced=False),
    "claude-fable-5-1": _new("adaptive", forced=False),
    "claude-opus-5": _new("adaptive", "disabled", forced=True),
    "claude-haiku-4-5": ModelRules(),
    "claude-sonnet-4-5": ModelRules(),
    "claude-opus-4-5": ModelRules(),
}

# What a local server takes: nearly everything, in a small context.
LENIENT = ModelRules(
    context_tokens=8_192,
    max_output_tokens=8_192,
    thinking=frozenset({"adaptive", "enabled", "disabled", "between_tools"}),
    effort=True,
)


def violations(body: Json, rules: ModelRules) -> Iterator[str]:
    """Why the API would refuse this request, in its manner of speaking; nothing where it would take it."""
    if not isinstance(body, dict):
        yield "The request body is not valid JSON"
        return
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "messages: at least one message is required"
        return
    limit = body.get("max_tokens")
    if not isinstance(limit, int) or isinstance(limit, bool):
        yield "max_tokens: Field required"
    elif limit < 1:
        yield "max_tokens: Input should be greater than or equal to 1"
    elif limit > rules.max_output_tokens:
        yield f"max_tokens: {limit} > {rules.max_output_tokens}, which is the maximum for {body.get('model')}"
    prompt = request_tokens(body)
    if prompt > rules.context_tokens:
        yield f"prompt is too long: {prompt} tokens > {rules.context_tokens} maximum"
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant", "system"):
            yield "messages: each needs a role of user or assistant"
    yield from _parameters(body, rules)
    last = messages[-1]
    if not rules.prefill and isinstance(last, dict) and last.get("role") == "assistant":
        yield "This model does not support assistant message prefill. The conversation must end with a user message."


def _parameters(body: JsonObject, rules: ModelRules) -> Iterator[str]:
    for name, usual in (("temperature", 1), ("top_p", 1), ("top_k", None)):
        if name in body and body[name] != usual and not rules.sampling:
            yield f"`{name}` may not be set on this model"
    thinking = body.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if thinking is not None and kind not in rules.thinking:
        yield f'thinking.type "{kind}" is not supported by this model'
    if kind == "enabled" and isinstance(thinking, dict):
        yield from _budget(body, thinking)
    config = body.get("output_config")
    if isinstance(config, dict) and "effort" in config and not rules.effort:
        yield "output_config.effort is not supported by this model"
    asked = config.get("format") if isinstance(config, dict) else None
    if isinstance(asked, dict):
        yield from (f"output_config.format.schema: {why}" for why in _uncompilable(asked.get("schema")))
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
        if not rules.forced_tool_use:
            yield "tool_choice: forced tool use is not supported by this model"
        if kind == "enabled":
            yield "Thinking may not be enabled when tool_choice forces tool use."


def _uncompilable(schema: Json) -> Iterator[str]:
    """Why the API would make no grammar of a schema; the commonest of its reasons."""
    if isinstance(schema, list):
        for part in schema:
            yield from _uncompilable(part)
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind == "object" and schema.get("additionalProperties") is not False:
        yield "For 'object' type, 'additionalProperties' must be explicitly set to false"
    if isinstance(kind, str):
        for name in ("minimum", "maximum", "minLength", "maxLength", "maxItems"):
            if name in schema:
                yield f"For '{kind}' type, property '{name}' is not supported"
    for name in ("properties", "$defs"):
        named = schema.get(name)
        if isinstance(named, dict):
            yield from _uncompilable(list(named.values()))
    for name in ("items", "anyOf", "allOf"):
        yield from _uncompilable(schema.get(name))


def _budget(body: JsonObject, thinking: JsonObject) -> Iterator[str]:
    budget, limit = thinking.get("budget_tokens"), body.get("max_tokens")
    if not isinstance(budget, int) or budget < 1024:
        yield "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
    elif isinstance(limit, int) and budget >= limit:
        yield "`max_tokens` must be greater than `thinking.budget_tokens`"
    if body.get("temperature", 1) != 1:
        yield "`temperature` may only be set to 1 when thinking is enabled"
