"""Errors of the OpenAI dialect: what every status and every error of Anthropic's is called in it."""

from __future__ import annotations

from collections.abc import Mapping

from tierwise.core.json import JsonObject

__all__ = ["ChatError", "error_body"]

# Anthropic's error types as OpenAI's `type` and `code`.
_ERRORS: Mapping[str, tuple[str, str | None]] = {
    "invalid_request_error": ("invalid_request_error", None),
    "authentication_error": ("invalid_request_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "permission_error": ("invalid_request_error", "permission_denied"),
    "not_found_error": ("invalid_request_error", "model_not_found"),
    "conflict_error": ("invalid_request_error", "conflict"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "rate_limit_error": ("rate_limit_error", "rate_limit_exceeded"),
    "timeout_error": ("server_error", "timeout"),
    "overloaded_error": ("service_unavailable_error", "server_is_overloaded"),
    "api_error": ("server_error", None),
}
_TYPE_BY_STATUS: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(
    status: int,
    type: str,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
) -> JsonObject:
    """An error in OpenAI's shape. `type` is Anthropic's; an empty one is told by the status, others stay as they are.

    A prompt that is too long gets the code that clients of this dialect look for.
    """
    known = type or _TYPE_BY_STATUS.get(status, "invalid_request_error" if status < 500 else "api_error")
    kind, usual = _ERRORS.get(known, (known, None))
    if known == "invalid_request_error" and "prompt is too long" in message:
        usual = "context_length_exceeded"
    return {"error": {"message": message, "type": kind, "param": param, "code": code if code is not None else usual}}


class ChatError(ValueError):
    """The request cannot be what Messages understands; `body` is the reply, in OpenAI's shape, with `status`."""

    status = 400

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code

    @property
    def body(self) -> JsonObject:
        """The JSON body of the refusal."""
        return error_body(self.status, "invalid_request_error", str(self), param=self.param, code=self.code)
