"""The ASGI application: paths, access, errors in the client's dialect; what all calls share lives here.

    POST /v1/messages                 Anthropic's dialect, JSON and SSE
    POST /v1/messages/count_tokens    passed on
    *    /v1/messages/batches…        each request routed, each result settled (tierwise.gateway.batches)
    GET  /v1/models, /v1/models/{id}  the upstream's, and the routed names
    POST /v1/chat/completions         OpenAI's dialect, JSON and SSE
    GET  /tierwise/calls/{id}         the receipt of a call
    GET  /healthz /readyz /metrics    for whoever operates it
    POST /v1/logs                     Claude Code's telemetry (tierwise.otlp); /v1/metrics, /v1/traces are dropped
    GET  /dashboard /api/v1/…         what a person looks at, and what that asks (tierwise.dashboard)
    HEAD / /api/hello                 Claude Code asks whether somebody is there

Upstreams are configuration, never a request's choice. Nothing of a request's text is logged.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import re
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tierwise.core.catalog import Model
from tierwise.core.errors import LedgerError, TierwiseError
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import nanousd_to_usd
from tierwise.core.settings import ProviderSettings, Settings, UpstreamKey
from tierwise.engine.router import AsyncRouter
from tierwise.gateway.accounts import Accounts
from tierwise.gateway.admission import Admission, Admits
from tierwise.gateway.asgi import (
    CHECKS,
    NOT_PASSED_ON,
    TRAILERS,
    ClientGone,
    Receive,
    Scope,
    Send,
    read_body,
    send_error,
    send_json,
    send_whole,
    without_keys,
)
from tierwise.gateway.batches import BatchRoutes
from tierwise.gateway.bounds import ceiling_by_name
from tierwise.gateway.connections import CONNECTION
from tierwise.gateway.conversations import Conversations
from tierwise.gateway.hosting import Exporters, Hosted, is_dashboards, is_exporters
from tierwise.gateway.incoming import BadRequest, Incoming, forwarded, read_incoming
from tierwise.gateway.metrics import Gauge, Metrics, Over
from tierwise.gateway.outlook import Outlook
from tierwise.gateway.planning import Plan, Planning
from tierwise.gateway.run import Run
from tierwise.gateway.shared import Shared
from tierwise.gateway.telemetry import CallTelemetry
from tierwise.ledger import Ledger
from tierwise.ledger.budgets import Budgets
from tierwise.ledger.desk import BudgetDesk
from tierwise.ledger.keys import ApiKey, Keys, KeyScope
from tierwise.ledger.store import StoredCall
from tierwise.ledger.turns import turns_after
from tierwise.ledger.writer import LedgerWriter
from tierwise.policy.ratelimits import Family, Limits, family_of
from tierwise.providers.anthropic import DEFAULT_BASE_URL
from tierwise.providers.passthrough import Answer, Endpoint, PassThrough, UpstreamFailed
from tierwise.wire.chat import ChatError, messages_request
from tierwise.wire.endings import Dialect
from tierwise.wire.splice import SpliceError, splice

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["LOOPBACK", "Gateway", "receipt"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEY_PREFIX = b"tw-"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_LEARNED_DAYS = 30  # how far back it looks to learn how long conversations are
_log = logging.getLogger("tierwise.gateway")
_NOTHING: Mapping[str, Any] = {}
_DEFAULT_URLS = {"anthropic": DEFAULT_BASE_URL, "ollama": "http://127.0.0.1:11434"}


class Gateway:
    """An ASGI application. Its life is the server's: `lifespan` opens and closes what it holds.

    Args:
        settings: the configuration.
        ledger: where calls are recorded; the configured one when None.
        tracer: OpenTelemetry's, where traces are collected.
        shared: what it shares with other workers; None where it is the only process.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger | None = None,
        tracer: Tracer | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.settings = settings
        self.ledger = (
            ledger if ledger is not None else (Ledger.of(settings.ledger) if settings.ledger.enabled else None)
        )
        turnstile = None if shared is None else shared.turnstile
        self.writer = LedgerWriter(self.ledger, turnstile=turnstile) if self.ledger is not None else None
        self.shared = shared
        self.router = self._router(settings)
        self.upstream = PassThrough()
        self.conversations = Conversations() if shared is None else shared.conversations
        self.outlook = Outlook()
        self.planning = Planning(settings, self.router, self.conversations, self.outlook)
        self.telemetry = CallTelemetry(tracer)
        if shared is not None:
            self.planning.broken = shared.broken
        self.accounts = Accounts(time.monotonic)
        self.keys = Keys(self.ledger) if self.ledger is not None else None
        self.desk = BudgetDesk(Budgets(self.ledger), turnstile=turnstile) if self.ledger is not None else None
        self.admission: Admits | None = None  # belongs to the event loop, so it begins with it
        self.keys_required = settings.gateway.host not in LOOPBACK
        self.version = importlib.metadata.version("tierwise")
        self.running = 0
        self.draining = False
        self.dashboard = Hosted(self)
        self.batches = BatchRoutes(self)
        self.exporters = Exporters(self)
        self._endpoints: dict[str, Endpoint] = {}
        self._retired: set[Planning] = set()  # of configurations before, of which calls still run
        self._retiring: set[asyncio.Future[None]] = set()
        self.metrics = Metrics(
            [
                Gauge("tierwise_running_calls", "Calls that run now.", lambda: self.running),
                Gauge(
                    "tierwise_waiting_calls",
                    "Calls that wait for a rate limit.",
                    lambda: self.admission.waiting if self.admission is not None else 0,
                ),
                Gauge(
                    "tierwise_records_waiting",
                    "Records not yet in the ledger.",
                    lambda: self.writer.waiting if self.writer is not None else 0,
                ),
                Gauge(
                    "tierwise_ledger_healthy",
                    "1 where the last write reached the ledger.",
                    lambda: 1.0 if self.ledger is None or self.ledger.healthy else 0.0,
                    Over.WORST,
                ),
            ]
        )

    # ------------------------------------------------------------------ life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if is_dashboards(scope["path"]):
                await self.dashboard(scope, receive, send)
            elif is_exporters(scope["path"]):
                await self.exporters(scope, receive, send)
            else:
                await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.admission = (
                    Admission(Limits(self.settings.gateway.limits), asyncio.get_running_loop())
                    if self.shared is None
                    else self.shared.admission
                )
                await asyncio.get_running_loop().run_in_executor(None, self._open)
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _open(self) -> None:
        if self.writer is not None:
            self.writer.start()
        if self.desk is not None:
            self.desk.start()
        if self.ledger is not None and self.ledger.path.exists():
            month_ago = time.time_ns() // 1_000_000 - _LEARNED_DAYS * 86_400_000
            with suppress(LedgerError):  # of one in trouble nothing is learned; writing to it says why
                self.conversations.learn(self.ledger.session_lengths(month_ago))
                self.outlook.learn(turns_after(self.ledger, month_ago))

    def _router(self, settings: Settings) -> AsyncRouter:
        router = AsyncRouter(settings, record=False)
        if self.shared is not None:
            router.circuits = self.shared.circuits(settings.limits)
        return router

    def reload(self, settings: Settings) -> None:
        """Goes on with another configuration: for new calls. What listens, and the ledger, stay as they are."""
        router = self._router(settings)
        # What cannot be used fails here, and nothing changes.
        planning = Planning(settings, router, self.conversations, self.outlook)
        if self.shared is not None:
            planning.broken = self.shared.broken
        before = self.planning
        self.router, self.planning, self.settings = router, planning, settings
        self._retired.add(before)
        if not before.calls:
            self._retiring.add(asyncio.ensure_future(self._retire(before)))
        if self.admission is not None:
            self.admission.configure(settings.gateway.limits)

    def hold(self) -> Planning:
        """The planning for a call, to its end, whatever is configured meanwhile; `let_go` of it then."""
        self.planning.calls += 1
        return self.planning

    async def let_go(self, planning: Planning) -> None:
        """A call is over."""
        planning.calls -= 1
        if not planning.calls and planning in self._retired:
            await self._retire(planning)

    async def _retire(self, planning: Planning) -> None:
        """Lets go of a configuration that no call has any more."""
        self._retired.discard(planning)
        planning.close()
        await planning.router.aclose()

    async def aclose(self) -> None:
        """Closes what it holds; every record is written first."""
        self.dashboard.close()
        await self.upstream.aclose()
        for planning in (*self._retired, self.planning):
            await self._retire(planning)
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._close_records)
        except RuntimeError:  # in the thread of a process that ends: there are no other threads to be had
            self._close_records()

    def _close_records(self) -> None:
        for part in (self.desk, self.writer, self.ledger):
            if part is not None:
                part.close()

    # ------------------------------------------------------------------ what calls share

    def endpoint(self, provider: ProviderSettings) -> Endpoint:
        """Where a provider is reached."""
        url = provider.base_url or _DEFAULT_URLS.get(provider.kind, DEFAULT_BASE_URL)
        found = self._endpoints.get(url)  # not by its name, which another configuration may give to another
        if found is None:
            found = self._endpoints[url] = Endpoint.of(url)
        return found

    def upstream_headers(
        self, raw_headers: Sequence[tuple[bytes, bytes]], provider: ProviderSettings, key: UpstreamKey | None = None
    ) -> list[tuple[bytes, bytes]]:
        """The client's headers as they go on: its own key only to Anthropic, ours in its place where one is set.

        `key` is the one to go with, of a provider that has several.
        """
        own = (provider.api_key or "" if key is None else key.secret).encode("latin-1", "ignore")
        # A client gave its key for where it would go without us: not for others that speak the same wire.
        stands_in = provider.kind == "anthropic" and provider.name == self.settings.gateway.upstream
        theirs = stands_in and not own and _secret(raw_headers) is None
        configured = {name.lower().encode("latin-1") for name in provider.headers}
        headers = [pair for pair in forwarded(raw_headers, credentials=theirs) if pair[0] not in configured]
        if theirs:
            headers = _keys_in_place(headers)
        if own:
            headers.append((b"authorization", b"Bearer " + own) if provider.auth == "bearer" else (b"x-api-key", own))
        names = {name for name, _ in headers}
        if b"anthropic-version" not in names:
            headers.append((b"anthropic-version", b"2023-06-01"))
        if b"content-type" not in names:
            headers.append((b"content-type", b"application/json"))
        headers += [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in provider.headers.items()]
        return headers

    def family(self, model: Model, account: str | None = None) -> Family:
        """Whose rate limits a model shares, with the account of a provider that has several."""
        return Family(account or model.provider, family_of(model.id))

    def learn(self, model: Model, headers: Mapping[str, str], status: int, account: str | None = None) -> None:
        """What an upstream's answer tells of its limits (names of headers in lower case)."""
        if self.admission is not None:
            self.admission.learn(self.family(model, account), headers, status=status)

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]], scope: KeyScope) -> ApiKey | None:
        """The key of ours that a client identifies itself with; None where it does not and need not.

        Raises:
            BadRequest: a key is demanded and missing, unknown, revoked, or not for this.
        """
        secret = _secret(headers)
        if secret is None:
            if self.keys_required:
                raise BadRequest(
                    "this gateway demands a key of its own (tierwise keys create), as x-api-key or bearer token",
                    status=401,
                    kind="authentication_error",
                )
            return None
        try:
            key = self.keys.verify(secret, time.time_ns() // 1_000_000) if self.keys is not None else None
        except LedgerError as error:
            raise BadRequest(f"keys cannot be checked: {error}", status=503, kind="api_error") from None
        if key is None:
            raise BadRequest("the key is unknown or was revoked", status=401, kind="authentication_error")
        if scope not in key.scopes:
            raise BadRequest(f"the key {key.name!r} is not for {scope.value}", status=403, kind="permission_error")
        return key

    # ------------------------------------------------------------------ paths

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        dialect = Dialect.OPENAI if scope["path"].startswith("/v1/chat") else Dialect.ANTHROPIC
        try:
            await self._answer(dialect, scope, receive, send)
        except BadRequest as error:
            await send_error(
                send,
                dialect,
                status=error.status,
                kind=error.kind,
                message=f"tierwise: {error}",
                param=error.param,
                code=error.code,
                details=error.details,
            )
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001  a fault of ours must neither hang a client nor show its text
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a fault in the gateway, %s at:\n%s", type(error).__name__, where)
            what = f"tierwise: a fault in the gateway ({type(error).__name__}); its log says where"
            with suppress(Exception):  # an answer that has begun cannot be taken back: the server closes it
                await send_error(send, dialect, status=500, kind="api_error", message=what)

    async def _answer(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        key = self._admit(method, path, scope["headers"])
        match (method, path):
            case ("POST", "/v1/messages" | "/v1/chat/completions"):
                await self._call(dialect, scope, receive, send, key)
            case ("POST", "/v1/messages/count_tokens"):
                await self._count_tokens(scope, receive, send, key)
            case (_, "/v1/messages/batches"):
                await self.batches.answer(scope, receive, send, key)
            case (_, _) if path.startswith("/v1/messages/batches/"):
                await self.batches.answer(scope, receive, send, key)
            case ("GET", "/v1/models"):
                await self._models(scope, send)
            case ("GET", _) if path.startswith("/v1/models/"):
                await self._model(path.removeprefix("/v1/models/"), scope, send)
            case ("GET", "/metrics"):
                text = self.metrics.text(None if self.shared is None else await self.shared.figures())
                await send_whole(send, 200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")], text)
            case ("GET", "/healthz"):
                await send_json(send, {"status": "ok", "version": self.version})
            case ("GET", "/readyz"):
                await self._ready(scope["headers"], send)
            case ("HEAD" | "GET", "/" | "/api/hello"):
                await send_json(send, {"service": "tierwise", "version": self.version})
            case ("GET", _) if path.startswith("/tierwise/calls/"):
                await self._receipt(path.removeprefix("/tierwise/calls/"), send)
            case _:
                await send_error(
                    send,
                    dialect,
                    status=404,
                    kind="not_found_error",
                    message=f"tierwise: no {method} {path[:100]} here",
                )

    def _admit(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> ApiKey | None:
        """Who asks, where it matters who does."""
        if path.startswith("/v1/"):
            return self.authenticate(headers, KeyScope.CALLS)
        if path.startswith("/tierwise/"):
            return self.authenticate(headers, KeyScope.RECEIPTS)
        if path == "/metrics":
            return self.authenticate(headers, KeyScope.METRICS)
        return None

    async def _call(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send, key: ApiKey | None) -> None:
        full = self.running >= self.settings.gateway.max_connections
        if self.draining or full or (self.shared is not None and not await self.shared.enter()):
            why = "the gateway is stopping" if self.draining else "too many calls at once (gateway.max_connections)"
            await send_error(
                send,
                dialect,
                status=503,
                kind="overloaded_error",
                message=f"tierwise: {why}",
                headers=[(b"retry-after", b"1")],
            )
            return
        self.running += 1
        planning = None
        try:
            incoming = await self._read(dialect, scope, receive, key)
            planning = self.hold()
            try:
                plan = await planning.plan(incoming, time.time())
            except TierwiseError as error:
                raise BadRequest(str(error)) from None
            self.allow(planning, key, plan)
            connection = scope.get("extensions", _NOTHING).get(CONNECTION)
            await Run(self, planning, incoming, plan, send, receive, connection).go()
        finally:
            self.running -= 1
            if self.shared is not None:
                self.shared.leave()
            if planning is not None:
                await self.let_go(planning)

    def allow(self, planning: Planning, key: ApiKey | None, plan: Plan) -> None:
        """Refuses a model by name above the highest tier of a key or project; what is routed stays below it anyway."""
        if plan.decision is not None:
            return
        catalog = planning.settings.catalog
        try:
            ceiling = ceiling_by_name(key, plan.project, planning.ruled(plan.project), catalog)
        except TierwiseError as error:
            raise BadRequest(str(error), status=403, kind="permission_error") from None
        if ceiling is None:
            return
        allowed = {spec.tier.name for spec in catalog if spec.tier <= ceiling.tier}
        if plan.target.tier not in allowed:
            raise BadRequest(
                f"{ceiling.source} is for tiers up to {ceiling.tier}, and {plan.target.model.id} is of tier "
                f"{plan.target.tier}",
                status=403,
                kind="permission_error",
            )

    async def _read(self, dialect: Dialect, scope: Scope, receive: Receive, key: ApiKey | None = None) -> Incoming:
        limits = self.settings.gateway
        connection = scope.get("extensions", _NOTHING).get(CONNECTION)
        body = await read_body(
            receive,
            most_bytes=limits.max_body_bytes,
            seconds=limits.body_timeout_seconds,
            whole=connection is not None and connection.whole,
        )
        query = scope.get("query_string", b"").decode("latin-1")
        incoming = read_incoming(dialect, body, query, scope["headers"], key=key)
        extensions = scope.get("extensions", _NOTHING)
        if CHECKS in extensions or TRAILERS in extensions:
            incoming = replace(incoming, checks=extensions.get(CHECKS, ()), trailers=TRAILERS in extensions)
        if dialect is Dialect.ANTHROPIC:
            return incoming
        try:
            value, _ = messages_request(incoming.value)
        except ChatError as error:
            raise BadRequest(str(error), status=error.status, param=error.param, code=error.code) from None
        kept = [(name, text) for name, text in incoming.raw_headers if not name.startswith(b"openai-")]
        return replace(incoming, value=value, query="", raw_headers=kept)

    # ------------------------------------------------------------------ passed on

    async def _count_tokens(self, scope: Scope, receive: Receive, send: Send, key: ApiKey | None) -> None:
        incoming = await self._read(Dialect.ANTHROPIC, scope, receive, key)
        body = incoming.body
        if self.planning.is_routed(incoming.model, self.planning.project_of(incoming)):
            # Nobody knows yet where it would go: counted as the baseline counts.
            try:
                body = splice(body, {"model": json.dumps(self.settings.catalog.baseline.id).encode()})
            except SpliceError as error:
                raise BadRequest(str(error)) from None
        query = f"?{incoming.query}" if incoming.query else ""
        answer = await self._ask("POST", f"/v1/messages/count_tokens{query}", incoming.raw_headers, body)
        await self._hand_on(send, answer)

    async def _models(self, scope: Scope, send: Send) -> None:
        query = scope.get("query_string", b"").decode("latin-1")
        first_page = "after_id=" not in query and "before_id=" not in query
        try:
            answer = await self._ask("GET", f"/v1/models{f'?{query}' if query else ''}", scope["headers"], b"")
            content = await answer.read(4 * 1024 * 1024)
            page = json.loads(content) if answer.status == 200 else None
        except (BadRequest, UpstreamFailed, ValueError, RecursionError) as error:
            _log.warning("the upstream's models cannot be listed: %s", type(error).__name__)
            answer, page, content = None, {"data": [], "has_more": False}, b""
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            status = answer.status if answer is not None else 502
            content = without_keys(content, self.settings.providers[self.settings.gateway.upstream].secrets)
            await send_whole(send, status, [(b"content-type", b"application/json")], content)
            return
        if first_page:
            own: list[Json] = [_routed_model(name) for name in self.settings.gateway.routed_models]
            page = {**page, "data": [*own, *page["data"]], "first_id": self.settings.gateway.routed_models[0]}
            if page.get("last_id") is None:
                page["last_id"] = self.settings.gateway.routed_models[-1]
        await send_json(send, page)

    async def _model(self, name: str, scope: Scope, send: Send) -> None:
        if self.planning.is_routed(name):
            await send_json(send, _routed_model(name))
        elif _MODEL_NAME.fullmatch(name):
            await self._hand_on(send, await self._ask("GET", f"/v1/models/{name}", scope["headers"], b""))
        else:
            raise BadRequest("the model's name cannot be read", status=404, kind="not_found_error")

    async def _ask(self, method: str, target: str, raw_headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Answer:
        provider = self.settings.providers[self.settings.gateway.upstream]
        headers = self.upstream_headers(raw_headers, provider, self.accounts.any_key(provider))
        try:
            return await self.upstream.request(self.endpoint(provider), method, target, headers, body=body)
        except UpstreamFailed as failure:
            raise BadRequest(str(failure), status=502, kind="api_error") from None

    async def _hand_on(self, send: Send, answer: Answer) -> None:
        try:
            content = await answer.read(64 * 1024 * 1024)
        except UpstreamFailed as failure:
            raise BadRequest(str(failure), status=502, kind="api_error") from None
        if answer.status != 200:
            content = without_keys(content, self.settings.providers[self.settings.gateway.upstream].secrets)
        headers = [(name, value) for name, value in answer.headers if name not in NOT_PASSED_ON]
        await send_whole(send, answer.status, headers, content)

    # ------------------------------------------------------------------ about itself

    async def _ready(self, headers: Iterable[tuple[bytes, bytes]], send: Send) -> None:
        ok = not self.draining
        problem = self.ledger.problem_kind if self.ledger is not None else None
        if problem and self.ledger is not None and self._operates(headers):
            problem = self.ledger.problem
        value: JsonObject = {"ready": ok, "running": self.running, "ledger": problem or "ok"}
        if self.shared is not None:
            value |= {"worker": self.shared.worker, "workers": await self.shared.workers()}
        await send_json(send, value, status=200 if ok else 503)

    def _operates(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether who asks may know of this machine: where its files are, say. Nobody is refused for that."""
        for scope in (KeyScope.METRICS, KeyScope.RECEIPTS):
            with suppress(BadRequest):
                self.authenticate(headers, scope)
                return True
        return False

    async def _receipt(self, call_id: str, send: Send) -> None:
        found: StoredCall | None = None
        if self.ledger is not None and len(call_id) < 64:
            try:
                found = await asyncio.get_running_loop().run_in_executor(None, self.ledger.get, call_id)
            except LedgerError as error:
                await send_error(send, Dialect.ANTHROPIC, status=503, kind="api_error", message=f"tierwise: {error}")
                return
        if found is None:
            await send_error(
                send, Dialect.ANTHROPIC, status=404, kind="not_found_error", message="tierwise: no call of that id"
            )
            return
        await send_json(send, receipt(found))


def _routed_model(name: str) -> JsonObject:
    return {
        "type": "model",
        "id": name,
        "display_name": f"tierwise: {name}",
        "created_at": "2026-11-28T00:00:00Z",
    }


def _secret(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key of ours among a client's credentials: it is never sent on."""
    for name, value in headers:
        if name == b"x-api-key" and value.startswith(KEY_PREFIX):
            return value.decode("latin-1")
        if name == b"authorization" and value[7:].lstrip().startswith(KEY_PREFIX) and value[:7].lower() == b"bearer ":
            return value[7:].strip().decode("latin-1")
    return None


def _keys_in_place(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """OpenAI's clients send a key as a bearer token, where Anthropic expects one of OAuth: it goes on as x-api-key."""
    for at, (name, value) in enumerate(headers):
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            token = value[7:].strip()
            if token.startswith(b"sk-ant-") and not token.startswith(b"sk-ant-oat"):
                return [*headers[:at], (b"x-api-key", token), *headers[at + 1 :]]
    return headers


def receipt(found: StoredCall) -> JsonObject:
    """A call as JSON: what it was, where it went, what each attempt cost."""
    call = found.call
    costs = [attempt.cost_nanousd for attempt in found.attempts]
    total = None if any(cost is None for cost in costs) else sum(cost or 0 for cost in costs)
    return {
        "call_id": call.call_id,
        "started_at": datetime.fromtimestamp(call.started_at_ms / 1000, UTC).isoformat(),
        "status": call.status.value,
        "task_type": call.task_type,
        "confidence": call.confidence,
        "tier": call.tier,
        "model": call.model,
        "planned_tier": call.planned_tier,
        "session": call.session,
        "project": call.project,
        "tags": dict(call.tags),
        "cost_usd": None if total is None else str(nanousd_to_usd(total)),
        "baseline_model": call.baseline_model,
        "baseline_cost_usd": None if call.baseline_nanousd is None else str(nanousd_to_usd(call.baseline_nanousd)),
        "latency_ms": call.latency_ms,
        "error": call.error,
        "batch_id": call.batch_id,
        "custom_id": call.custom_id,
        "reasons": [{"step": reason.step, "text": reason.text} for reason in call.reasons],
        "attempts": [
            {
                "number": attempt.number,
                "tier": attempt.tier,
                "model": attempt.model,
                "outcome": attempt.outcome.value,
                "detail": attempt.detail,
                "cost_usd": None if attempt.cost_nanousd is None else str(nanousd_to_usd(attempt.cost_nanousd)),
                "estimated": attempt.usage.estimated,
                "input_tokens": attempt.usage.input_tokens,
                "output_tokens": attempt.usage.output_tokens,
                "cache_read_tokens": attempt.usage.cache_read_tokens,
                "cache_write_5m_tokens": attempt.usage.cache_write_5m_tokens,
                "cache_write_1h_tokens": attempt.usage.cache_write_1h_tokens,
                "thinking_tokens": attempt.usage.thinking_tokens,
                "latency_ms": attempt.latency_ms,
                "ttft_ms": attempt.ttft_ms,
            }
            for attempt in found.attempts
        ],
    }
