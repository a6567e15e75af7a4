"""`wrap`: a client of Anthropic's or OpenAI's SDK whose calls are routed, checked, priced and recorded in this process.

The client that comes back is made by the SDK itself (`with_options(http_client=…)`, which is public in both), with a
transport of ours where its connections were. So it is of the same type, and everything of it works as before. What the
gateway does not know (files, embeddings) goes out as it would without us.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

from tierwise.core.errors import ConfigError
from tierwise.core.json import Json
from tierwise.core.settings import Settings
from tierwise.integrations.inside import InsideGateway
from tierwise.integrations.options import current_options

if TYPE_CHECKING:
    import httpx2

    from tierwise.integrations.transport import Part, Rewrite, Watched
    from tierwise.ledger import Ledger

__all__ = ["inside_gateway", "wrap"]

ClientT = TypeVar("ClientT")
_MESSAGES = ("/v1/messages", "/v1/messages/count_tokens")
_BATCHES = "/v1/messages/batches"
_FOR_A_BATCH = re.compile(rb'name="purpose"(?:\r\n[^\r\n]+)*\r\n\r\nbatch\r\n')
_RESULTS = re.compile(f"{_BATCHES}/[^/]+/results$")
_ANSWERED = ("/chat/completions", "/responses")  # of OpenAI's API: what a chat model answers
_THEIRS = ("anthropic.lib.", "openai.lib.")  # where the SDKs keep their clients of clouds
_NOT_ROUTED = "tierwise routes no {what}; name a model (`tierwise.route` says which) in place of {model!r}"
_lock = threading.Lock()
_gateways: list[InsideGateway] = []


def wrap(
    client: ClientT,
    *,
    route: Iterable[str] = (),
    settings: Settings | None = None,
    ledger: Ledger | None = None,
    http_client: Any = None,
) -> ClientT:
    """A client like this one, of the same type, whose calls go through tierwise.

    Calls that name `claude-tierwise-auto`, or a model of `route`, are routed. A client of Anthropic's sends its
    other calls where it always did, byte for byte, and they are recorded. So does a client of OpenAI's; what a chat
    model answers is recorded as it passes by. The client's own key is used for Anthropic's API; an OpenAI client's key
    is never sent anywhere else.

    `claude_agent_sdk.ClaudeAgentOptions` can be wrapped, too: the result has a gateway in this process as its API.

    Args:
        client: `anthropic.Anthropic`, `anthropic.AsyncAnthropic`, `openai.OpenAI`, `openai.AsyncOpenAI`, or
            `claude_agent_sdk.ClaudeAgentOptions`.
        route: further models whose calls are routed.
        settings: the configuration; read from tierwise.toml and the environment when None.
        ledger: where calls are recorded; the configured one when None.
        http_client: the `httpx2` client for what is not routed (files, …), where the SDK's defaults will
            not do.

    Raises:
        ConfigError: another kind of client, or a configuration that cannot be used.
    """
    known = _known(client)
    if known is None:
        kind = type(client)
        raise ConfigError(
            "wrap takes anthropic.Anthropic, anthropic.AsyncAnthropic, openai.OpenAI, openai.AsyncOpenAI and "
            f"claude_agent_sdk.ClaudeAgentOptions, not {kind.__module__}.{kind.__name__}; others reach tierwise "
            "through its gateway (`tierwise serve`)"
        )
    sdk, is_async = known
    if settings is None:
        from tierwise.config import load_settings  # noqa: PLC0415  pydantic: only when there is a file to read

        settings = load_settings()
    settings = replace(settings, gateway=_with_routes(settings, route))
    if sdk == "claude_agent_sdk":
        from tierwise.integrations.claude_agent import wrap_options  # noqa: PLC0415

        own = cast("Any", client).env.get("ANTHROPIC_BASE_URL") or _upstream_url(settings)
        return cast("ClientT", wrap_options(client, _in_place_of(own, settings), ledger))
    base_url = str(cast("Any", client).base_url)
    if sdk == "anthropic":
        settings = _in_place_of(base_url, settings)
    gateway = inside_gateway(settings, ledger)
    rewrite = (_anthropic if sdk == "anthropic" else _openai)(gateway, base_url)
    return cast("ClientT", _with_transport(client, sdk, is_async, gateway, rewrite, http_client))


def inside_gateway(settings: Settings, ledger: Ledger | None = None) -> InsideGateway:
    """The gateway inside this process with that configuration: one for all clients that are alike in it."""
    wanted = InsideGateway(settings, ledger=ledger)
    if ledger is not None:
        return wanted
    with _lock:
        for found in _gateways:
            if found.settings == wanted.settings and not found.closed:
                return found
        _gateways.append(wanted)
    return wanted


def _known(client: object) -> tuple[str, bool] | None:
    """Whose client it is, and whether it is an asynchronous one. The SDK is imported already: it made the client."""
    if any(base.__module__.startswith(_THEIRS) for base in type(client).__mro__):
        return None  # a cloud's: other paths, other keys
    for sdk, names in (
        ("anthropic", ("Anthropic", "AsyncAnthropic")),
        ("openai", ("OpenAI", "AsyncOpenAI")),
        ("claude_agent_sdk", ("ClaudeAgentOptions",)),
    ):
        module = sys.modules.get(sdk)
        for name in names if module is not None else ():
            if isinstance(client, getattr(module, name)):
                return sdk, name.startswith("Async")
    return None


def _upstream_url(settings: Settings) -> str:
    from tierwise.providers.anthropic import DEFAULT_BASE_URL  # noqa: PLC0415

    return settings.providers[settings.gateway.upstream].base_url or DEFAULT_BASE_URL


def _with_routes(settings: Settings, route: Iterable[str]) -> Any:
    if isinstance(route, str):
        raise ConfigError(f"route is {route!r}; give a list of models: route=[{route!r}]")
    names = dict.fromkeys([*settings.gateway.routed_models, *route])
    return replace(settings.gateway, routed_models=tuple(names))


def _in_place_of(base_url: str, settings: Settings) -> Settings:
    """The client goes on going where it went, with the key that it has, and no header of the configuration's."""
    upstream = settings.providers[settings.gateway.upstream]
    if upstream.kind != "anthropic":
        return settings
    there = _upstream_url(settings).rstrip("/") == base_url.rstrip("/")
    headers = upstream.headers if there else {}  # one of them may be a key, which is for where it was configured
    upstream = replace(upstream, base_url=base_url.rstrip("/"), api_key=None, api_keys=(), headers=headers)
    return replace(settings, providers={**settings.providers, upstream.name: upstream})


def _with_transport(  # noqa: PLR0917  each is something of its own
    client: Any, sdk: str, is_async: bool, gateway: InsideGateway, rewrite: Rewrite, http_client: Any
) -> Any:
    import httpx2  # noqa: PLC0415  the SDKs have imported it

    from tierwise.integrations.transport import AsyncTransport, Transport  # noqa: PLC0415

    module = sys.modules[sdk]
    # No client of the SDK's defaults around ours: HTTPS_PROXY would go before it.
    if is_async:
        beside = http_client or module.DefaultAsyncHttpxClient()
        own: Any = httpx2.AsyncClient(
            transport=AsyncTransport(gateway, rewrite, beside), timeout=client.timeout, follow_redirects=True
        )
    else:
        beside = http_client or module.DefaultHttpxClient()
        own = httpx2.Client(
            transport=Transport(gateway, rewrite, beside), timeout=client.timeout, follow_redirects=True
        )
    return client.with_options(http_client=own)


# ------------------------------------------------------------------ what of each SDK is for the gateway


def _anthropic(gateway: InsideGateway, base_url: str) -> Rewrite:
    """Messages and batches of them, their tokens, and models; where the client was pointed elsewhere since, nothing."""
    from httpx2 import URL  # noqa: PLC0415

    from tierwise.integrations.transport import Part  # noqa: PLC0415

    base = URL(base_url)
    prefix = base.path.rstrip("/")
    upstream = gateway.settings.providers[gateway.settings.gateway.upstream]
    takes_batches = upstream.kind == "anthropic"  # another upstream is not where this client's batches are

    def rewrite(request: httpx2.Request, body: bytes) -> Part | httpx2.Response | None:
        url = request.url
        results = _RESULTS.search(url.path) if takes_batches and request.method == "GET" else None
        if results is not None:  # at an address that the API gave, which a proxy before it may not have changed
            return Part(results[0], _headers(request), body)
        if (url.scheme, url.netloc) != (base.scheme, base.netloc) or not url.path.startswith(f"{prefix}/v1/"):
            return None
        path = url.path.removeprefix(prefix)
        posted, models = request.method == "POST", path == "/v1/models" or path.startswith("/v1/models/")
        batches = takes_batches and (path == _BATCHES or path.startswith(f"{_BATCHES}/"))
        if batches or (posted and path in _MESSAGES) or (request.method == "GET" and models):
            return Part(path, _headers(request), body)
        return None

    return rewrite


def _openai(gateway: InsideGateway, base_url: str) -> Rewrite:
    """Chat completions of models that tierwise knows; of other models it sees what they answer, and changes nothing."""
    from httpx2 import URL  # noqa: PLC0415

    from tierwise.integrations.transport import Part  # noqa: PLC0415

    prefix = URL(base_url).path.rstrip("/")
    provider = _provider_at(base_url, gateway.settings)

    def rewrite(request: httpx2.Request, body: bytes) -> Part | Watched | httpx2.Response | None:
        if request.method != "POST":
            return None
        path = request.url.path.removeprefix(prefix)
        ours = _ours_in_batch(body, gateway) if path == "/files" else None
        if ours is not None:
            said = _NOT_ROUTED.format(what="batches of OpenAI's API", model=ours)
            return _error(request, {"error": {"message": said, "type": "invalid_request_error"}})
        model = _field(body, "model")
        if not isinstance(model, str):
            return None
        if not gateway.is_known(model):
            return _watched(request, body, model, provider) if path in _ANSWERED else None
        if path == "/chat/completions":
            return Part("/v1/chat/completions", _without_foreign_key(_headers(request)), body)
        if gateway.is_routed(model):
            said = _NOT_ROUTED.format(what=f"{path} of OpenAI's API, only chat.completions", model=model)
            return _error(request, {"error": {"message": said, "type": "invalid_request_error"}})
        return _watched(request, body, model, provider) if path in _ANSWERED else None

    return rewrite


def _ours_in_batch(upload: bytes, gateway: InsideGateway) -> str | None:
    """A name of ours in a file for a batch, which OpenAI would refuse request by request, hours later."""
    if _FOR_A_BATCH.search(upload) is None:
        return None
    names = (name for name in gateway.settings.gateway.routed_models if name.startswith("claude-"))
    return next((name for name in names if f'"{name}"'.encode() in upload), None)


def _provider_at(base_url: str, settings: Settings) -> str:
    """Whose prices hold for what goes there: a configured provider's, or else those of nobody who is known."""
    from httpx2 import URL  # noqa: PLC0415

    there = base_url.rstrip("/")
    for provider in settings.providers.values():
        if (provider.base_url or "").rstrip("/") == there:
            return provider.name
    return URL(base_url).host


def _watched(request: httpx2.Request, body: bytes, model: str, provider: str) -> Watched:
    from tierwise.gateway.incoming import BadRequest  # noqa: PLC0415
    from tierwise.integrations.records import incoming_of  # noqa: PLC0415
    from tierwise.integrations.transport import Watched  # noqa: PLC0415
    from tierwise.integrations.witness import PassingBy, asked_in_responses  # noqa: PLC0415

    given = json.loads(body)
    asked = given if "messages" in given else {"messages": asked_in_responses(given.get("input"))}
    own = {name: text for name, text in request.headers.items() if name.startswith("x-tierwise-")}
    headers = {**current_options().headers(), **own}
    try:
        incoming = incoming_of(model, asked, headers, stream=given.get("stream") is True)
    except BadRequest:  # a header of ours that cannot be read; the call is none of ours
        incoming = incoming_of(model, asked, {})
    now_ms = time.time_ns() // 1_000_000
    return Watched(PassingBy(uuid4().hex, model, provider, now_ms), incoming)


def _headers(request: httpx2.Request) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in request.headers.raw]


def _without_foreign_key(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """A key of Anthropic's may have been given to OpenAI's client, and goes on; any other is for OpenAI alone."""
    return [pair for pair in headers if pair[0] != b"authorization" or pair[1].startswith(b"Bearer sk-ant-")]


def _field(body: bytes, name: str) -> Json:
    from tierwise.gateway.incoming import parsed_json  # noqa: PLC0415  is there: the gateway's extra is installed

    try:
        value = parsed_json(body)
    except (ValueError, RecursionError):
        return None
    return value.get(name) if isinstance(value, dict) else None


def _error(request: httpx2.Request, value: dict[str, Json]) -> httpx2.Response:
    import httpx2  # noqa: PLC0415

    return httpx2.Response(400, json=value, request=request)
