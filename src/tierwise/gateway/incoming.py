"""A request as it came: its bytes, what of it routing needs, and the headers that are meant for us.

The body is parsed once and never written out again: what goes upstream is the bytes that came, with single values
spliced (`tierwise.wire.splice`). So a body that names two models could mean one to us and the other to the upstream,
which whoever has a key of ours could use to get more than that allows: such a body is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import orjson

from tierwise.core.json import Json, JsonObject
from tierwise.engine.checks import UserCheck
from tierwise.ledger.keys import ApiKey
from tierwise.wire.endings import Dialect
from tierwise.wire.splice import members

__all__ = ["BadRequest", "Directions", "Incoming", "directions", "forwarded", "parsed_json", "read_incoming"]

_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}=[^,=\x00-\x1f]{0,128}")
_LONGEST_MODEL = 256
_LONGEST_TASK = 4_000
_MODEL = b'"model"'
_MODELS_LOOKED_AT = 1000  # of those that stand anywhere in a body
_VALUE = re.compile(rb'\s*+:\s*+"')  # that is a text: tools have parameters of that name
_NAME = re.compile(r"[A-Za-z0-9_.:@/ -]{1,128}")
# Of this connection and not of the request, or set anew by whoever sends it on.
_HOP_BY_HOP = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"cookie"})


class BadRequest(Exception):
    """The request cannot be worked with; the message says what is wrong with it, `details` tell it to programs."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        details: JsonObject | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.details = details
        self.param, self.code = param, code  # as OpenAI tells them


@dataclass(frozen=True, slots=True)
class Directions:
    """What the `x-tierwise-*` headers of a request say."""

    min_tier: str | None = None
    max_tier: str | None = None
    project: str | None = None
    task: str | None = None  # what is asked for, in the caller's words: routes in place of the last turn
    task_type: str | None = None
    deadline_seconds: float | None = None
    tags: tuple[tuple[str, str], ...] = ()
    no_route: bool = False


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request. `headers` are in lower case, the last of a name wins; `raw_headers` are as they came."""

    dialect: Dialect
    body: bytes
    value: JsonObject  # the body, parsed; for the OpenAI dialect, as an Anthropic Messages request
    model: str  # as asked for
    stream: bool
    query: str
    headers: Mapping[str, str]
    raw_headers: Sequence[tuple[bytes, bytes]]
    directions: Directions
    key: ApiKey | None = None  # of ours, where the client identified itself with one
    checks: Sequence[UserCheck] = ()  # of a caller in this process: no answer that fails one is handed on
    trailers: bool = False  # the caller takes what is known only when a stream ends: what it cost

    @property
    def project(self) -> str | None:
        """Whose project the call counts to: its key's, which no header may leave, else what it says itself."""
        own = self.key.project if self.key is not None else None
        return own or self.directions.project


def read_incoming(
    dialect: Dialect,
    body: bytes,
    query: str,
    raw_headers: Sequence[tuple[bytes, bytes]],
    *,
    key: ApiKey | None = None,
) -> Incoming:
    """A request, checked as far as routing needs it; everything else is the upstream's to judge.

    Raises:
        BadRequest: no JSON object, or no name of a model.
    """
    try:
        value = parsed_json(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model: a model's name is required")
    if key is not None and dialect is Dialect.ANTHROPIC and _names_two_models(body):
        raise BadRequest("model: stands in the request twice; leave one out")
    if len(model) > _LONGEST_MODEL or not model.isprintable():
        raise BadRequest(f"model: a name has at most {_LONGEST_MODEL} printable characters")
    headers = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in raw_headers}
    return Incoming(
        dialect=dialect,
        body=body,
        value=value,
        model=model,
        stream=value.get("stream") is True,
        query=query,
        headers=headers,
        raw_headers=raw_headers,
        directions=directions(headers),
        key=key,
    )


def _names_two_models(body: bytes) -> bool:
    """Whether `model` stands in this JSON object twice. The object is read only where it stands twice anywhere."""
    if not _may_name_two_models(body):
        return False
    return sum(member.key == "model" for member in members(body.removeprefix(b"\xef\xbb\xbf"))) > 1


def _may_name_two_models(body: bytes) -> bool:
    found = body.count(rb"\u006")  # an escape that may hide one: letters are escaped by nobody
    at = body.find(_MODEL)
    for _ in range(_MODELS_LOOKED_AT):
        if at < 0 or found > 1:
            return found > 1
        at += len(_MODEL)
        found += _VALUE.match(body, at) is not None
        at = body.find(_MODEL, at)
    return True


def parsed_json(body: bytes) -> Json:
    """A body as JSON. The quick parser refuses what the grammar allows and few send (deep nesting): then the other.

    Raises:
        ValueError, RecursionError: it is none.
    """
    try:
        parsed: Json = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = json.loads(body)
    return parsed


def directions(headers: Mapping[str, str]) -> Directions:
    """What the headers that are meant for us say.

    Raises:
        BadRequest: one of them cannot be read; names it.
    """
    found = {name[11:]: value.strip() for name, value in headers.items() if name.startswith("x-tierwise-")}
    if not found:
        return _NO_DIRECTIONS
    deadline = found.get("deadline")
    seconds: float | None = None
    if deadline is not None:
        try:
            seconds = float(deadline)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= 86_400:
            raise BadRequest(f"x-tierwise-deadline is {deadline!r}; give seconds, such as 30")
    tags = []
    for part in filter(None, (part.strip() for part in found.get("tags", "").split(","))):
        if not _TAG.fullmatch(part):
            raise BadRequest("x-tierwise-tags cannot be read; give name=value, separated by commas")
        name, _, text = part.partition("=")
        tags.append((name, text))
    project = found.get("project")
    if project is not None and not _NAME.fullmatch(project):
        raise BadRequest("x-tierwise-project cannot be read; give a name of letters, digits and ._:@/- only")
    return Directions(
        min_tier=found.get("min-tier"),
        max_tier=found.get("max-tier"),
        project=project,
        task=_task(found.get("task")),
        task_type=found.get("task-type"),
        deadline_seconds=seconds,
        tags=tuple(tags),
        no_route=found.get("no-route", "").lower() in ("1", "true", "yes"),
    )


def _task(told: str | None) -> str | None:
    """The description of a task; percent-encoded, as headers hold no more than ASCII safely."""
    if told is None:
        return None
    text = unquote(told).strip()
    if not text or len(text) > _LONGEST_TASK:
        raise BadRequest(f"x-tierwise-task describes the task in 1 to {_LONGEST_TASK:,} characters, percent-encoded")
    return text


_NO_DIRECTIONS = Directions()


def forwarded(raw_headers: Sequence[tuple[bytes, bytes]], *, credentials: bool) -> list[tuple[bytes, bytes]]:
    """The headers that go on: all but those of this connection and those for us.

    Args:
        credentials: whether the client's own key goes on too (to Anthropic only).
    """
    return [
        (name, value)
        for name, value in raw_headers
        if name not in _HOP_BY_HOP and not name.startswith(b"x-tierwise-") and (credentials or name not in _CREDENTIALS)
    ]
