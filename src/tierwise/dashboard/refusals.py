"""Why there is no answer, as the client is told: what, where, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["Refused", "cannot_read", "not_found"]

_HELP = "see /api/v1/openapi.json for what can be asked"


class Refused(Exception):
    """There is no answer.

    Args:
        status: of HTTP.
        what: went wrong.
        where: in which part of the request, or of this machine.
        do: what helps.
        headers: beside the usual ones.
    """

    def __init__(
        self, status: int, what: str, *, where: str, do: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(what)
        self.status = status
        self.what = what
        self.where = where
        self.do = do
        self.headers = headers


def cannot_read(error: ValidationError, part: str) -> Refused:
    """A request that is not as its type says (400), or contradicts itself (422); `part` is the query or the body."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(step)[:100] for step in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    what = f"{name}: {message}" if name else message
    status = (
        400 if name or first["type"] == "json_invalid" else 422
    )  # each part can be read, and together they cannot be
    return Refused(status, what[:300], where=f"the {part}{f', {name}' if name else ''}", do=_HELP)


def not_found(what: str, where: str, do: str) -> Refused:
    """What was asked for is not there."""
    return Refused(404, what, where=where, do=do)
