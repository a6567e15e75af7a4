"""Messages calls through the gateway inside this process, for libraries that have a model class of their own.

Such a class turns its library's messages into a Messages request and the reply back; what lies between is here: the
gateway that the calls go through, calls whole and streamed, waiting and not, what became of them, and why there is no
answer. Nothing is tried again here: what was worth trying again, the gateway tried.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cached_property

import httpx2

from tierwise.core.errors import (
    ConfigError,
    DeadlineExceeded,
    LadderExhausted,
    RequestRefusedByProvider,
    RunError,
)
from tierwise.core.json import JsonObject
from tierwise.core.settings import Settings
from tierwise.integrations.inside import InsideGateway
from tierwise.integrations.sdk import inside_gateway
from tierwise.integrations.transport import TRAILERS, AsyncTransport, Part, Transport
from tierwise.ledger import Ledger
from tierwise.wire.sse import SseParser

__all__ = ["INSIDE_URL", "AsyncEvents", "Events", "Messages", "Told", "everything", "gateway_for"]

INSIDE_URL = "http://tierwise.invalid"  # never looked up: the transport answers
_MESSAGES = "/v1/messages"
_REFUSED = frozenset({400, 401, 402, 403, 404, 413})


def gateway_for(
    settings: object, *, base_url: str | None = None, own_key: bool = False, ledger: Ledger | None = None
) -> InsideGateway:
    """The gateway of a host's model.

    Args:
        settings: a `Settings`; read from tierwise.toml and the environment when None.
        base_url: in place of the configured one of Anthropic's.
        own_key: the model brings a key of Anthropic's, which goes in place of the configured ones.
        ledger: where calls are recorded; the configured one when None.

    Raises:
        ConfigError: `settings` is something else.
    """
    if settings is None:
        from tierwise.config import load_settings  # noqa: PLC0415  pydantic: only when there is a file to read

        settings = load_settings()
    if not isinstance(settings, Settings):
        raise ConfigError(f"settings is {type(settings).__name__}; give what tierwise.load_settings() returns")
    upstream = settings.providers[settings.gateway.upstream]
    if base_url is not None:
        upstream = replace(upstream, base_url=base_url)
    if own_key:
        upstream = replace(upstream, api_key=None, api_keys=())
    return inside_gateway(replace(settings, providers={**settings.providers, upstream.name: upstream}), ledger)


def everything(request: httpx2.Request, body: bytes) -> Part:
    """All requests are for the gateway: there is no other place that they could go to."""
    return Part(request.url.path, [(name.lower(), value) for name, value in request.headers.raw], body)


@dataclass(frozen=True, slots=True)
class Told:
    """What the gateway says of a call beside its answer: an empty text is nothing, no cost is unknown, or not yet."""

    call_id: str = ""
    task_type: str = ""
    tier: str = ""
    model: str = ""
    warning: str = ""
    cost_usd: Decimal | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Told:
        """Out of an answer's headers."""

        def said(name: str) -> str:
            return headers.get(f"x-tierwise-{name}", "")

        return cls(
            call_id=said("call-id"),
            task_type=said("task-type"),
            tier=said("tier"),
            model=said("model"),
            warning=said("warning"),
            cost_usd=_cost(said("cost-usd")),
        )

    @classmethod
    def at_end(cls, response: httpx2.Response) -> Told | None:
        """Of a stream that was read to its end; None where it was not, or said nothing more."""
        trailers = response.extensions.get(TRAILERS)
        return cls.of(trailers) if trailers else None

    def metadata(self) -> JsonObject:
        """As a host keeps it beside a reply."""
        found: JsonObject = {
            "call_id": self.call_id,
            "task_type": self.task_type,
            "tier": self.tier,
            "cost_usd": "" if self.cost_usd is None else str(self.cost_usd),
            "warning": self.warning,
        }
        return {name: text for name, text in found.items() if text}


class Events:
    """The events of a streamed reply, as they come. Once they were read to their end, `told` has what the call cost.

    Iterating raises `RunError` where the stream breaks off, or nothing more comes in time.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self.told = Told.of(response.headers)
        self._response = response
        self._parser = SseParser()

    def __iter__(self) -> Iterator[JsonObject]:
        with _failing(self.told):
            for piece in self._response.iter_bytes():
                yield from _read(self._parser, piece, self.told)
        self.told = Told.at_end(self._response) or self.told


class AsyncEvents:
    """The same, for callers on an event loop."""

    def __init__(self, response: httpx2.Response) -> None:
        self.told = Told.of(response.headers)
        self._response = response
        self._parser = SseParser()

    async def __aiter__(self) -> AsyncIterator[JsonObject]:
        with _failing(self.told):
            async for piece in self._response.aiter_bytes():
                for event in _read(self._parser, piece, self.told):
                    yield event
        self.told = Told.at_end(self._response) or self.told


class Messages:
    """Calls of one model of a host. Safe to use from any thread and event loop.

    A deep copy of it is the same; pickled, it is None. So models that keep it can be copied and pickled as before.

    Args:
        gateway: answers them.
        api_key: goes with them; the configured ones when None.
        timeout: seconds to wait for the next bytes of an answer.
    """

    def __init__(self, gateway: InsideGateway, *, api_key: str | None = None, timeout: float | None = None) -> None:
        self._gateway = gateway
        self._headers = {} if api_key is None else {"x-api-key": api_key}
        self._timeout = timeout
        self._settings: object = None
        self._made_of: tuple[object, ...] = ()

    @classmethod
    def of(
        cls,
        known: Messages | None,
        *,
        settings: object,
        base_url: str | None,
        api_key: str | None,
        timeout: float | None,
    ) -> Messages:
        """The calls of a model with these fields: `known`, unless it is of others, as that of a changed copy is."""
        made_of = (base_url, api_key, timeout)
        if known is not None and known._settings is settings and known._made_of == made_of:
            return known
        gateway = gateway_for(settings, base_url=base_url, own_key=api_key is not None)
        made = cls(gateway, api_key=api_key, timeout=timeout)
        made._settings, made._made_of = settings, made_of
        return made

    def __deepcopy__(self, memo: object) -> Messages:
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def create(self, body: JsonObject) -> tuple[JsonObject, Told]:
        """The reply. Raises `RunError` where there is none."""
        with _failing():
            response = self._client.send(self._request(self._client, body))
        return _reply(response)

    async def acreate(self, body: JsonObject) -> tuple[JsonObject, Told]:
        """The reply. Raises `RunError` where there is none."""
        client = self._new_async_client()
        with _failing():
            response = await client.send(self._request(client, body))
        return _reply(response)

    @contextmanager
    def stream(self, body: JsonObject) -> Iterator[Events]:
        """The reply as it comes. Who leaves before its end cancels the call."""
        with _failing():
            response = self._client.send(self._request(self._client, {**body, "stream": True}), stream=True)
        try:
            if response.status_code != 200:
                response.read()
                raise _failure(response)
            yield Events(response)
        finally:
            response.close()

    @asynccontextmanager
    async def astream(self, body: JsonObject) -> AsyncIterator[AsyncEvents]:
        """The reply as it comes. Who leaves before its end cancels the call."""
        client = self._new_async_client()
        with _failing():
            response = await client.send(self._request(client, {**body, "stream": True}), stream=True)
        try:
            if response.status_code != 200:
                await response.aread()
                raise _failure(response)
            yield AsyncEvents(response)
        finally:
            await response.aclose()

    def _request(self, client: httpx2.Client | httpx2.AsyncClient, body: JsonObject) -> httpx2.Request:
        return client.build_request("POST", f"{INSIDE_URL}{_MESSAGES}", json=body, headers=self._headers)

    @cached_property
    def _client(self) -> httpx2.Client:
        return httpx2.Client(transport=Transport(self._gateway, everything, None), timeout=self._timeout)

    def _new_async_client(self) -> httpx2.AsyncClient:
        """One a call: they belong to an event loop, and hold nothing but the way to the gateway."""
        return httpx2.AsyncClient(transport=AsyncTransport(self._gateway, everything, None), timeout=self._timeout)


@contextmanager
def _failing(told: Told | None = None) -> Iterator[None]:
    """What keeps an answer from coming goes on as an exception of ours, not as one of the connection that is none."""
    call_id = "" if told is None else told.call_id
    try:
        yield
    except httpx2.TimeoutException as error:
        raise DeadlineExceeded(f"{error}; `timeout` says how long to wait", call_id=call_id) from error
    except httpx2.TransportError as error:
        raise RunError(str(error), call_id=call_id) from error


def _read(parser: SseParser, piece: bytes, told: Told) -> Iterator[JsonObject]:
    for event in parser.feed(piece):
        match json.loads(event.data):
            case {"type": "error", "error": {"message": str(message)}}:
                raise RunError(message, call_id=told.call_id)
            case dict() as value:
                yield value
            case _:
                pass


def _reply(response: httpx2.Response) -> tuple[JsonObject, Told]:
    if response.status_code != 200:
        raise _failure(response)
    message: JsonObject = json.loads(response.content)
    return message, Told.of(response.headers)


def _failure(response: httpx2.Response) -> RunError:
    """Why there is no answer, as an exception of ours; its record is named by `call_id`."""
    status, message = response.status_code, f"the gateway answered {response.status_code}"
    with suppress(ValueError, LookupError, TypeError):
        message = str(json.loads(response.content)["error"]["message"])
    match status:
        case 422:
            kind: type[RunError] = LadderExhausted
        case 504:
            kind = DeadlineExceeded
        case _:
            kind = RequestRefusedByProvider if status in _REFUSED else RunError
    return kind(message, call_id=Told.of(response.headers).call_id)


def _cost(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None
