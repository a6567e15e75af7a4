"""What LiteLLM tells of a request that comes and of an attempt that ended, as values: pure, without LiteLLM.

A request is in OpenAI's dialect, or in Anthropic's where a client of LiteLLM's speaks that (`/v1/messages`); whoever
decides looks at Messages. An attempt's end is told to callbacks in one large dict, of which little is promised; what is
not there is not made up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tierwise.core.decisions import OutcomeKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage, usd_to_nanousd
from tierwise.gateway.incoming import Incoming, directions
from tierwise.importers.litellm import usage_told
from tierwise.integrations.options import CallOptions
from tierwise.providers.litellm import outcome_of
from tierwise.wire.chat import ChatError, messages_request
from tierwise.wire.endings import Dialect

__all__ = ["CALL_TYPES", "Ended", "ended", "incoming_of", "metadata_of", "tier_name_of"]

CALL_TYPES = frozenset({"completion", "acompletion", "anthropic_messages"})
"""The calls of LiteLLM's that are answered by a chat model; embeddings, images and others are none of ours."""
TIER = "tierwise_tier"  # of a deployment's `model_info`
_OF_A_REQUEST = ("messages", "system", "tools", "tool_choice", "response_format", "output_config", "thinking")
_MESSAGES_ONLY = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "document"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An attempt that LiteLLM made, and what became of it."""

    key: str  # tells it from every other attempt
    call_id: str | None  # of the call in tierwise's ledger that it belongs to
    model: str
    provider: str
    tier: str | None  # as its deployment says
    started_at_ms: int
    latency_ms: int
    ttft_ms: int | None
    outcome: OutcomeKind
    detail: str
    usage: Usage | None  # None: not told
    cost_nanousd: int | None  # by LiteLLM's own prices, where it has one
    request_id: str | None  # the provider's
    reported_model: str | None


def metadata_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Where LiteLLM keeps what goes with a request through all of its attempts: the dict itself."""
    for name in ("litellm_metadata", "metadata"):
        found = request.get(name)
        if isinstance(found, dict):
            return found
    return {}


def incoming_of(
    model: str, messages: Any, request: Mapping[str, Any], options: CallOptions, *, project: str | None = None
) -> Incoming:
    """A request as the gateway would have it.

    Args:
        model: the name that it is decided under.
        messages: what is said, where LiteLLM gives it apart.
        request: LiteLLM's keywords.
        options: what holds for calls here; goes over what a client of LiteLLM's proxy said in headers.
        project: whose call it is, where neither says.

    Raises:
        BadRequest: a header that cannot be read.
    """
    body: dict[str, Any] = {name: request[name] for name in _OF_A_REQUEST if request.get(name) is not None}
    body["messages"] = messages if messages is not None else body.get("messages", [])
    # LiteLLM hands on what it is given, objects included: here it is only looked at.
    written = json.dumps(body, default=_plain).encode("utf-8", "replace")
    value = _as_messages(json.loads(written), model)
    headers = {**_headers(request), **options.headers()}
    if project is not None:
        headers.setdefault("x-tierwise-project", project)
    return Incoming(
        dialect=Dialect.OPENAI,
        body=written,
        value=value,
        model=model,
        stream=bool(request.get("stream")),
        query="",
        headers=headers,
        raw_headers=(),
        directions=directions(headers),
    )


def tier_name_of(model_info: Any) -> str | None:
    """The tier that a deployment says it is of."""
    found = model_info.get(TIER) if isinstance(model_info, Mapping) else None
    return found if isinstance(found, str) and found else None


def ended(told: Mapping[str, Any], response: Any, start: datetime, end: datetime, *, failed: bool) -> Ended:
    """An attempt's end, as a callback is told it."""
    params = told.get("litellm_params")
    metadata = metadata_of(params if isinstance(params, Mapping) else {})
    own = metadata.get("tierwise")
    error = told.get("exception")
    provider = str(told.get("custom_llm_provider") or "unknown")
    outcome, detail = OutcomeKind.ACCEPTED, ""
    if failed:
        outcome = outcome_of(error) if isinstance(error, Exception) else OutcomeKind.SERVER_ERROR
        detail = f"{provider} through LiteLLM: {type(error).__name__ if error is not None else 'failed'}"
    elif _finish_reason(response) == "content_filter":
        outcome = OutcomeKind.REFUSED
    return Ended(
        key=f"{told.get('litellm_call_id')} {start.isoformat()}",
        call_id=_text(own.get("call_id")) if isinstance(own, Mapping) else None,
        model=str(told.get("model") or "unknown"),
        provider=provider,
        tier=tier_name_of(metadata.get("model_info")),
        started_at_ms=_ms(start),
        latency_ms=max(0, _ms(end) - _ms(start)),
        ttft_ms=_ttft(told, start),
        outcome=outcome,
        detail=detail,
        usage=_usage(told, response),
        cost_nanousd=_cost(told.get("response_cost")),
        request_id=_request_id(response),
        reported_model=_text(getattr(response, "model", None)),
    )


def _as_messages(body: JsonObject, model: str) -> JsonObject:
    if not _speaks_messages(body):
        try:
            return messages_request({**body, "model": model})[0]
        except ChatError:
            pass  # what neither dialect has: that is for the model to judge, and what was said is there to be seen
    return {**body, "model": model}


def _speaks_messages(body: JsonObject) -> bool:
    match body:
        case {"system": _} | {"tools": [{"input_schema": _}, *_]}:
            return True
        case {"messages": list(messages)}:
            return any(_has_block(message) for message in messages)
        case _:
            return False


def _has_block(message: Json) -> bool:
    match message:
        case {"content": list(blocks)}:
            return any(isinstance(block, dict) and block.get("type") in _MESSAGES_ONLY for block in blocks)
        case _:
            return False


def _headers(request: Mapping[str, Any]) -> dict[str, str]:
    """A proxy's client's own, in lower case; its keys are not among them."""
    proxied = request.get("proxy_server_request")
    found = proxied.get("headers") if isinstance(proxied, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name).lower(): str(text)
        for name, text in found.items()
        if str(name).lower().startswith(("x-tierwise-", "x-claude-code-"))
    }


def _finish_reason(response: Any) -> str | None:
    choices = getattr(response, "choices", None)
    return _text(getattr(choices[0], "finish_reason", None)) if choices else None


def _usage(told: Mapping[str, Any], response: Any) -> Usage | None:
    """Of the whole answer, streams included; of one that broke off, what LiteLLM kept of it."""
    found = getattr(response, "usage", None) or told.get("combined_usage_object")
    plain = _plain(found) if found is not None else None
    return usage_told(plain) if isinstance(plain, dict) else None


def _cost(cost: Any) -> int | None:
    """Zero is what LiteLLM says of what it has no price for, too: it is no price."""
    if not isinstance(cost, int | float) or isinstance(cost, bool) or not 0 < cost < 1e9:
        return None
    return usd_to_nanousd(Decimal(str(cost)))


def _ttft(told: Mapping[str, Any], start: datetime) -> int | None:
    first = told.get("completion_start_time")
    if not told.get("stream") or not isinstance(first, datetime):
        return None
    return max(0, _ms(first) - _ms(start))


def _request_id(response: Any) -> str | None:
    hidden = getattr(response, "_hidden_params", None)
    headers = hidden.get("additional_headers") if isinstance(hidden, dict) else None
    return _text(headers.get("llm_provider-request-id")) if isinstance(headers, dict) else None


def _plain(value: Any) -> Any:
    """pydantic's objects as JSON; of what is neither, its name, since nothing of it is sent from here."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_none=True) if callable(dump) else str(type(value).__name__)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)  # LiteLLM's are in local time, without saying so, and so is this


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value else None
