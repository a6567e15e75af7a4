"""The body of a batch: its requests, each by its own bytes, and the same body with other parameters for some of them.

A request may say `tierwise` beside `custom_id` and `params`: what the `x-tierwise-*` headers say of a call, for it
alone. That is taken out before anything is sent; what is not changed stays byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from tierwise.core.json import Json, JsonObject
from tierwise.gateway.incoming import BadRequest, parsed_json
from tierwise.wire.splice import SpliceError, elements, members, splice

__all__ = ["BatchBody", "BatchRequest", "merged", "read_batch"]

Header = tuple[bytes, bytes]

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAY_SAY = ("task", "task_type", "min_tier", "max_tier", "tags")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request of a batch: its name, its parameters as they came, and what holds for it alone, as headers."""

    custom_id: str
    params: bytes
    headers: tuple[Header, ...]
    start: int  # where it stands in the body
    end: int


@dataclass(frozen=True, slots=True)
class BatchBody:
    """A batch as it came."""

    body: bytes
    requests: tuple[BatchRequest, ...]

    def with_params(self, changed: Mapping[str, bytes]) -> bytes:
        """The body as it goes on, with these parameters by `custom_id`, and nothing in it that is for us."""
        pieces: list[bytes] = []
        position = 0
        for request in self.requests:
            params = changed.get(request.custom_id)
            if params is None and not request.headers:
                continue
            changes: dict[str, bytes | None] = {} if params is None else {"params": params}
            if request.headers:
                changes["tierwise"] = None
            pieces += (self.body[position : request.start], splice(self.body[request.start : request.end], changes))
            position = request.end
        return b"".join((*pieces, self.body[position:]))


def read_batch(body: bytes) -> BatchBody:
    """The requests of a batch, checked as far as they must be told apart; their parameters are for others to judge.

    Raises:
        BadRequest: no JSON object, no requests, or a request without a name or parameters of its own.
    """
    try:
        value = parsed_json(body)
        found = _requests(body, value) if isinstance(value, dict) else []
    except (SpliceError, ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:120]}") from None
    if not found:
        raise BadRequest("requests: a batch has a list of them")
    names: set[str] = set()
    for at, request in enumerate(found):
        if request.custom_id in names:
            raise BadRequest(f"requests.{at}.custom_id: {request.custom_id!r} stands in the batch twice")
        names.add(request.custom_id)
    return BatchBody(body, tuple(found))


def _requests(body: bytes, value: JsonObject) -> list[BatchRequest]:
    listed = value.get("requests")
    spans = [(member.start, member.end) for member in members(body) if member.key == "requests"]
    if not isinstance(listed, list) or len(spans) != 1:
        return []
    return [
        _request(f"requests.{at}", body, span, one)
        for at, (span, one) in enumerate(zip(elements(body, *spans[0]), listed, strict=True))
    ]


def _request(where: str, body: bytes, span: tuple[int, int], value: Json) -> BatchRequest:
    if not isinstance(value, dict) or not isinstance(value.get("params"), dict):
        raise BadRequest(f"{where}.params: an object is required")
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
        raise BadRequest(f"{where}.custom_id: 1 to 64 letters, digits, - and _ are required")
    start, end = span
    params = [body[start + m.start : start + m.end] for m in members(body[start:end]) if m.key == "params"]
    if len(params) != 1:
        raise BadRequest(f"{where}.params: stands there twice")
    return BatchRequest(custom_id, params[0], _said(where, value.get("tierwise")), start, end)


def _said(where: str, said: Json) -> tuple[Header, ...]:
    """What a request says for us, as the headers that say it of a call."""
    if said is None:
        return ()
    if not isinstance(said, dict) or not said:
        raise BadRequest(f"{where}.tierwise: an object of {', '.join(_MAY_SAY)}")
    headers: list[Header] = []
    for name, value in said.items():
        if name not in _MAY_SAY:
            raise BadRequest(f"{where}.tierwise.{name}: unknown; use {', '.join(_MAY_SAY)}")
        match name, value:
            case "tags", dict(tags):
                text = ",".join(f"{tag}={told}" for tag, told in tags.items())
            case "task", str(task):
                text = quote(task, safe=" ")
            case _, str(told):
                text = told
            case _:
                raise BadRequest(f"{where}.tierwise.{name}: a text is required")
        headers.append((b"x-tierwise-" + name.replace("_", "-").encode("ascii"), text.encode("latin-1", "replace")))
    return tuple(headers)


def merged(headers: Sequence[Header], own: Sequence[Header]) -> Sequence[Header]:
    """A batch's headers with what one of its requests says for itself, which goes over them."""
    if not own:
        return headers
    names = {name for name, _ in own}
    return [*(pair for pair in headers if pair[0] not in names), *own]
