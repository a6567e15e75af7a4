"""What LiteLLM reports of a new request and of an attempt that ended, as values: pure, without LiteLLM.

A request is in OpenAI's dialect, or in Anthropic's where a client of LiteLLM's speaks that (`/v1/messages`); whoever
decides looks at Messages. An attempt's end is told to callbacks in one large dict, of which little is promised; what is
not there is not made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from tierwise.core.decisions import OutcomeKind
from tierwise.core.money import Usage, usd_to_nanousd
from tierwise.gateway.incoming import Incoming
from tierwise.importers.litellm import usage_told
from tierwise.integrations.options import CallOptions
from tierwise.integrations.records import ForeignAttempt, incoming_of, plain
from tierwise.integrations.witness import asked_in_responses, chat_usage
from tierwise.providers.litellm import outcome_of

__all__ = ["CALL_TYPES", "attempt_of", "metadata_of", "request_of", "tier_name_of", "trace_of"]

CALL_TYPES = frozenset({"completion", "acompletion", "responses", "aresponses", "anthropic_messages"})
"""The calls of LiteLLM's that are answered by a chat model; embeddings, images and others are none of ours."""
TIER = "tierwise_tier"  # of a deployment's `model_info`
_OF_A_REQUEST = ("messages", "system", "tools", "tool_choice", "response_format", "output_config", "thinking")


def metadata_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Where LiteLLM keeps what goes with a request through all of its attempts: the dict itself."""
    for name in ("litellm_metadata", "metadata"):
        found = request.get(name)
        if isinstance(found, dict):
            return found
    return {}


def request_of(
    model: str, messages: Any, request: Mapping[str, Any], options: CallOptions, *, project: str | None = None
) -> Incoming:
    """A request that comes.

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
    body["messages"] = messages or body.get("messages") or asked_in_responses(request.get("input"))
    headers = {**_headers(request), **options.headers()}
    if project is not None:
        headers.setdefault("x-tierwise-project", project)
    return incoming_of(model, body, headers, stream=bool(request.get("stream")))


def trace_of(request: Mapping[str, Any]) -> str:
    """LiteLLM's name for a request, which all of its attempts share; an empty text where it has none."""
    return _text(request.get("litellm_trace_id")) or ""


def tier_name_of(model_info: Any) -> str | None:
    """The tier that a deployment says it is of."""
    found = model_info.get(TIER) if isinstance(model_info, Mapping) else None
    return found if isinstance(found, str) and found else None


def attempt_of(
    told: Mapping[str, Any], response: Any, start: datetime, end: datetime, *, failed: bool
) -> ForeignAttempt:
    """An attempt's end, as a callback is told it."""
    params = told.get("litellm_params")
    metadata = metadata_of(params if isinstance(params, Mapping) else {})
    own = metadata.get("tierwise")
    error = told.get("exception")
    provider = str(told.get("custom_llm_provider") or "unknown")
    usage = _usage(told, response)
    outcome, detail = OutcomeKind.ACCEPTED, ""
    if failed:
        outcome = outcome_of(error) if isinstance(error, Exception) else OutcomeKind.SERVER_ERROR
        detail = f"{provider} through LiteLLM: {type(error).__name__ if error is not None else 'failed'}"
    elif _finish_reason(response) == "content_filter":
        outcome = OutcomeKind.REFUSED
    return ForeignAttempt(
        key=f"{told.get('litellm_call_id')} {start.isoformat()}",
        call_id=_text(own.get("call_id")) if isinstance(own, Mapping) else None,
        trace=trace_of(params if isinstance(params, Mapping) else {}),
        model=str(told.get("model") or "unknown"),
        provider=provider,
        tier=tier_name_of(metadata.get("model_info")),
        started_at_ms=_ms(start),
        latency_ms=max(0, _ms(end) - _ms(start)),
        ttft_ms=_ttft(told, start),
        outcome=outcome,
        detail=detail,
        usage=usage if usage is not None or not failed else Usage(),
        cost_nanousd=_cost(told.get("response_cost")),
        request_id=_request_id(response),
        reported_model=_text(getattr(response, "model", None)),
    )


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
    told_so = plain(found) if found is not None else None
    return usage_told(chat_usage(told_so)) if isinstance(told_so, dict) else None


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


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)  # LiteLLM's are in local time, without saying so, and so is this


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value else None
