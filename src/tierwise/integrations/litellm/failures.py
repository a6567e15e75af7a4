"""Why a call has no answer, as one of LiteLLM's exceptions: what its retries, fallbacks and users look for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import litellm

from tierwise.core.json import Json

__all__ = ["PROVIDER", "cut", "failure", "refused", "timed_out", "torn"]

PROVIDER = "tierwise"
_BY_STATUS: Mapping[int, Any] = {
    400: litellm.BadRequestError,
    401: litellm.AuthenticationError,
    402: litellm.PaymentRequiredError,
    403: litellm.PermissionDeniedError,
    404: litellm.NotFoundError,
    413: litellm.BadRequestError,
    422: litellm.UnprocessableEntityError,
    429: litellm.RateLimitError,
    502: litellm.BadGatewayError,
    503: litellm.ServiceUnavailableError,
    529: litellm.ServiceUnavailableError,
}
_TIMEOUTS = frozenset({408, 504})
# Of an error in the middle of a stream, whose status was 200: what it says of itself.
_BY_TYPE = {"rate_limit_error": 429, "service_unavailable_error": 503, "invalid_request_error": 400}
_URL = "http://tierwise.invalid/v1/chat/completions"


def failure(status: int, headers: Mapping[str, str], content: bytes, model: str) -> Exception:
    """An answer that is an error. Its `response` has the status, `retry-after`, and the call's id in the ledger."""
    try:
        error = json.loads(content)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, LookupError, TypeError, AttributeError):
        message, code = f"the gateway answered {status}", None
    if status in _TIMEOUTS:
        return timed_out(message, model)
    kind = _BY_STATUS.get(status, litellm.InternalServerError if status >= 500 else litellm.BadRequestError)
    if code == "context_length_exceeded":
        kind = litellm.ContextWindowExceededError
    kept = {name: text for name, text in headers.items() if name == "retry-after" or name.startswith("x-tierwise-")}
    response = httpx.Response(status, headers=kept, request=httpx.Request("POST", _URL))
    found: Exception = kind(message=message, model=model, llm_provider=PROVIDER, response=response)
    return found


def torn(error: Json, model: str) -> Exception:
    """A stream that ends with an error of its own."""
    kind = error.get("type") if isinstance(error, dict) else None
    status = _BY_TYPE.get(kind, 500) if isinstance(kind, str) else 500
    return failure(status, {}, json.dumps({"error": error}).encode(), model)


def refused(error: Exception, model: str) -> Exception:
    """A request that never left: it, or the configuration, cannot be used."""
    found: Exception = litellm.BadRequestError(message=str(error), model=model, llm_provider=PROVIDER)
    return found


def timed_out(message: str, model: str) -> Exception:
    """It took too long."""
    found: Exception = litellm.Timeout(message=message, model=model, llm_provider=PROVIDER)
    return found


def cut(error: Exception, model: str) -> Exception:
    """An answer that ended before it was whole."""
    found: Exception = litellm.APIConnectionError(message=str(error), model=model, llm_provider=PROVIDER)
    return found
