"""Message batches: each request routed before the batch is sent, each result settled when somebody reads it.

    POST   /v1/messages/batches               every request is a call, and routed where it names a routed model
    GET    /v1/messages/batches, …/{id}       passed on; with a key of ours, only what was sent with that key
    GET    /v1/messages/batches/{id}/results  passed on line by line, once what a line says is in the ledger
    POST   …/{id}/cancel, DELETE …/{id}       passed on

Theory of operation. A batch goes to one provider, the gateway's upstream, so its requests are routed among that one's
models. Batch and calls are in the ledger before it is sent, and belong to no process (`tierwise.ledger.batches`); there
is no second try within a batch, so a refused or truncated answer is handed on as it is, for the caller to judge.

A line of results goes to the client once its call is settled. Results are read to their end also where the client
leaves, so that what was paid for is known; where this process ends first, the next reading settles the rest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from tierwise.core.catalog import Model
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, Reason, recorded_kind
from tierwise.core.errors import LedgerError, TierwiseError
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import usd_to_nanousd
from tierwise.core.settings import UpstreamKey
from tierwise.core.tasks import Classification
from tierwise.gateway.asgi import (
    CHECKS,
    NOT_PASSED_ON,
    Receive,
    Scope,
    Send,
    read_body,
    send_error,
    send_whole,
    without_keys,
)
from tierwise.gateway.batching import BatchBody, BatchRequest, merged, read_batch
from tierwise.gateway.incoming import BadRequest, Incoming, parsed_json, read_incoming
from tierwise.gateway.planning import Plan, Planning
from tierwise.gateway.settling import BatchResult, read_result, settled
from tierwise.ledger import new_call_id
from tierwise.ledger.batches import Batch, Batches
from tierwise.ledger.budgets import BudgetExceeded, Reservation, ReservationRequest
from tierwise.ledger.codec import Entry
from tierwise.ledger.keys import ApiKey
from tierwise.providers._http import error_body as read_error
from tierwise.providers._http import failure_kind
from tierwise.providers.passthrough import Answer, Timeouts, UpstreamFailed
from tierwise.wire.adapt import adapt
from tierwise.wire.endings import Dialect
from tierwise.wire.splice import SpliceError, compact, splice, splice_changes

if TYPE_CHECKING:
    from tierwise.gateway.app import Gateway

__all__ = ["BatchRoutes"]

T = TypeVar("T")

_PATH = "/v1/messages/batches"
_ONE = re.compile(r"/v1/messages/batches/([A-Za-z0-9_-]{1,128})(/results|/cancel)?")
_MOST_ANSWER_BYTES = 64 * 1024 * 1024
# What the event loop does of a batch before others have their turn: some milliseconds.
_LINES_AT_ONCE = 100  # results that are settled together, and then handed on
_PLANS_AT_ONCE = 16
# How far apart the provider's clock and ours, and sending a batch and its being made, may be.
_EARLIER_MS, _LATER_MS = 120_000, 900_000
_CHECKED_LATER = (
    "a check cannot hold for a batch, which has no second try; read its results, and let tierwise.judge_batch say "
    "which requests to send again one tier up"
)
_PERHAPS_TAKEN = "the batch may have been taken: look for it in the list of batches before you send it again"
_NO_DEADLINE = "a batch may take a day; leave the deadline out, or send the requests one by one"
_log = logging.getLogger("tierwise.gateway")


@dataclass(frozen=True, slots=True)
class _Planned:
    """A request of a batch, and where it goes."""

    incoming: Incoming
    plan: Plan
    classification: Classification
    reasons: tuple[Reason, ...]


@dataclass(slots=True)
class _Sending:
    """A batch on its way."""

    batch: Batch
    entries: list[Entry] = field(default_factory=list)
    body: bytes = b""
    most_nanousd: int = 0  # that it may cost
    unpriced: str | None = None  # a model in it of which no price is known
    project: str | None = None  # the same of all its requests
    reservation: Reservation | None = None
    warning: str = ""

    def add(self, planned: _Planned, sent: JsonObject, entry: Entry) -> None:
        """One more request, with the parameters that it is sent with."""
        target = planned.plan.target
        self.project = planned.plan.project
        if target.price is None:
            self.unpriced = target.model.id
        else:
            most = target.price.cost_usd(target.at_most(sent, planned.incoming.body))
            self.most_nanousd += usd_to_nanousd(most)
        self.entries.append(entry)


class BatchRoutes:
    """The gateway's paths of batches."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._batches = None if gateway.ledger is None else Batches(gateway.ledger)
        self._settling = asyncio.Lock()

    async def answer(self, scope: Scope, receive: Receive, send: Send, key: ApiKey | None) -> None:
        """Answers a request.

        Raises:
            BadRequest: it cannot be.
        """
        gateway, method, path = self._gateway, scope["method"], scope["path"]
        one = _ONE.fullmatch(path)
        if gateway.settings.providers[gateway.settings.gateway.upstream].kind != "anthropic":
            raise BadRequest("the upstream takes no batches", status=404, kind="not_found_error")
        match (method, one[2] if one else None):
            case ("POST", None) if path == _PATH:
                await self._create(scope, receive, send, key)
            case ("GET", None) if path == _PATH:
                await self._list(scope, send, key)
            case ("GET", "/results") if one:
                await self._results(one[1], scope, receive, send, key)
            case ("GET" | "DELETE", None) | ("POST", "/cancel") if one:
                batch = await self._own(one[1], key)
                answer = await self._ask(scope, batch)
                await self._hand_on(scope, send, answer, await _content(answer))
            case _:
                raise BadRequest(f"no {method} {path[:100]} here", status=404, kind="not_found_error")

    # ------------------------------------------------------------------ sending

    async def _create(self, scope: Scope, receive: Receive, send: Send, key: ApiKey | None) -> None:
        gateway, limits = self._gateway, self._gateway.settings.gateway
        if gateway.draining or gateway.running >= limits.max_connections:
            why = "the gateway is stopping" if gateway.draining else "too many calls at once (gateway.max_connections)"
            raise BadRequest(why, status=503, kind="overloaded_error")
        if scope.get("extensions", {}).get(CHECKS):
            raise BadRequest(_CHECKED_LATER)
        gateway.running += 1
        planning = gateway.hold()
        try:
            body = await read_body(receive, most_bytes=limits.max_body_bytes, seconds=limits.body_timeout_seconds)
            sending = await self._plan(planning, await _in_thread(lambda: read_batch(body)), scope, key)
            await self._reserve(sending)
            try:
                if self._batches is not None:
                    await _in_thread(lambda: self._begin(sending))
            except BaseException:
                self._release(sending)
                raise
            await self._send(sending, scope, send)
        finally:
            gateway.running -= 1
            await gateway.let_go(planning)

    async def _plan(self, planning: Planning, given: BatchBody, scope: Scope, key: ApiKey | None) -> _Sending:
        gateway, headers = self._gateway, scope["headers"]
        now_ms = time.time_ns() // 1_000_000
        upstream = planning.settings.providers[planning.settings.gateway.upstream]
        account = gateway.accounts.any_key(upstream)
        batch = Batch(
            batch_id=new_call_id(now_ms),
            upstream_id=None,
            provider=upstream.name,
            account=None if account is None else account.account,
            key_id=None if key is None else key.key_id,
            requests=len(given.requests),
            sent_at_ms=now_ms,
        )
        sending = _Sending(batch)
        changed: dict[str, bytes] = {}
        for at, request in enumerate(given.requests):
            if at % _PLANS_AT_ONCE == 0:
                await asyncio.sleep(0)
            planned = await self._planned(planning, request, headers, key)
            sent, value = _params(planned.plan, planned.incoming)
            if sent is not planned.incoming.body:
                changed[request.custom_id] = sent
            sending.add(planned, value, _entry(batch, request.custom_id, planned, planning.settings.catalog.baseline))
        try:
            sending.body = await _in_thread(lambda: given.with_params(changed))
        except SpliceError as error:
            raise BadRequest(str(error)) from None
        return sending

    async def _planned(
        self, planning: Planning, request: BatchRequest, headers: Sequence[tuple[bytes, bytes]], key: ApiKey | None
    ) -> _Planned:
        try:
            incoming = read_incoming(Dialect.ANTHROPIC, request.params, "", merged(headers, request.headers), key=key)
            if incoming.directions.deadline_seconds is not None:
                raise BadRequest(_NO_DEADLINE)
            plan = await planning.plan_batched(incoming)
            self._gateway.allow(planning, key, plan)
            if plan.decision is not None:
                return _Planned(incoming, plan, plan.decision.classification, plan.reasons)
            classification, observed = await planning.observe(incoming, plan)
            return _Planned(incoming, plan, classification, (*plan.reasons, *observed))
        except BadRequest as error:
            raise BadRequest(f"{request.custom_id}: {error}", status=error.status, kind=error.kind) from None
        except TierwiseError as error:
            raise BadRequest(f"{request.custom_id}: {error}") from None

    async def _reserve(self, sending: _Sending) -> None:
        """Sets aside what all of it may cost at most, or refuses all of it."""
        desk, batch = self._gateway.desk, sending.batch
        if desk is None:
            return
        try:
            applying = desk.budgets.applying(batch.sent_at_ms, key_id=batch.key_id, project=sending.project)
            hard = next((budget for budget in applying if budget.hard), None)
            if sending.unpriced is not None and hard is not None:
                raise _over(f"{hard}: no price of {sending.unpriced} is known, so it cannot be kept to")
            answer = await desk.reserve(
                ReservationRequest(batch.batch_id, sending.most_nanousd, batch.key_id, sending.project),
                batch.sent_at_ms,
            )
        except LedgerError as error:
            raise BadRequest(f"budgets cannot be checked: {error}", status=503, kind="api_error") from None
        if isinstance(answer, BudgetExceeded):
            raise _over(str(answer))
        sending.reservation = answer
        sending.warning = "; ".join(map(str, answer.warnings))

    def _release(self, sending: _Sending) -> None:
        if sending.reservation is not None and self._gateway.desk is not None:
            self._gateway.desk.release(sending.reservation)

    def _begin(self, sending: _Sending) -> None:
        """Writes all of it down; what is not on record must not be sent, since nobody could tell what it cost."""
        assert self._batches is not None  # noqa: S101  asked before
        try:
            self._batches.begin(sending.batch, sending.entries)
        except LedgerError as error:
            raise BadRequest(f"the batch cannot be recorded: {error}", status=503, kind="api_error") from None

    async def _send(self, sending: _Sending, scope: Scope, send: Send) -> None:
        try:
            answer = await self._ask(scope, sending.batch, body=sending.body)
            content = await answer.read(_MOST_ANSWER_BYTES)
        except UpstreamFailed as failure:
            if not failure.sent:
                await self._refused(sending, OutcomeKind.CONNECTION, str(failure))
                raise BadRequest(str(failure), status=502, kind="api_error") from None
            # It may have been taken: its calls stay open, its results will tell, and no client shall send it again.
            await send_error(
                send,
                Dialect.ANTHROPIC,
                status=502,
                kind="api_error",
                message=f"tierwise: {failure}; {_PERHAPS_TAKEN}",
                headers=[(b"x-should-retry", b"false")],
            )
            return
        if answer.status != 200:
            error_type, message = read_error(content)
            kind = failure_kind(answer.status, error_type, message)
            named = f" ({error_type})" if error_type.isidentifier() else ""
            await self._refused(sending, kind, f"{sending.batch.provider} answered {answer.status}{named}")
        elif self._batches is not None:
            upstream_id = _field(content, "id")
            if isinstance(upstream_id, str):
                try:
                    await _in_thread(lambda: self._claim(sending.batch, upstream_id))
                except LedgerError as error:
                    _log.warning("the name of a batch could not be noted; its results will tell: %s", error)
        headers = [(b"x-tierwise-batch-id", sending.batch.batch_id.encode("ascii"))]
        if sending.warning:
            printable = "".join(char if char.isascii() and char.isprintable() else "?" for char in sending.warning)
            headers.append((b"x-tierwise-warning", printable.encode("ascii")))
        await self._hand_on(scope, send, answer, content, headers)

    def _claim(self, batch: Batch, upstream_id: str) -> bool:
        assert self._batches is not None  # noqa: S101  asked before
        return self._batches.claim(batch, upstream_id)

    async def _refused(self, sending: _Sending, outcome: OutcomeKind, why: str) -> None:
        """It was not taken, so it costs nothing."""
        self._release(sending)
        batches = self._batches
        if batches is None:
            return
        ended: list[Entry] = []
        for call, attempts in sending.entries:
            if call is not None:
                tried = tuple(replace(one, outcome=outcome, detail=why, cost_nanousd=0) for one in attempts)
                ended.append((replace(call, status=CallStatus.FAILED, error=why), tried))
        try:
            await _in_thread(lambda: batches.refused(sending.batch, ended))
        except LedgerError as error:
            _log.warning("that a batch was refused could not be noted: %s", error)

    # ------------------------------------------------------------------ reading

    async def _results(self, name: str, scope: Scope, receive: Receive, send: Send, key: ApiKey | None) -> None:
        planning = self._gateway.hold()
        try:
            batch = await self._own(name, key)
            reading = _Reading(self, planning, batch, [] if batch else await self._candidates(name, scope), name)
            answer = await self._ask(scope, batch)
            if answer.status != 200:
                await self._hand_on(scope, send, answer, await _content(answer))
                return
            headers = [pair for pair in answer.headers if pair[0] not in NOT_PASSED_ON]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            leaving = asyncio.ensure_future(_left(receive))
            try:
                if await reading.run(answer, send, leaving):
                    await send({"type": "http.response.body", "body": b""})
            finally:
                leaving.cancel()
                answer.close()
        finally:
            await self._gateway.let_go(planning)

    async def _candidates(self, name: str, scope: Scope) -> list[Batch]:
        """Batches that this one may be, of which nobody heard whether they were taken; nearest in time first."""
        batches, upstream = self._batches, self._gateway.settings.gateway.upstream
        if batches is None:
            return []
        answer = await self._ask({**scope, "method": "GET", "path": f"{_PATH}/{name}", "query_string": b""}, None)
        match _parsed(await _content(answer)):
            case {"created_at": str(created), "request_counts": dict(counts)}:
                requests = sum(count for count in counts.values() if isinstance(count, int))
            case _:
                return []
        try:
            at_ms = int(datetime.fromisoformat(created).timestamp() * 1000)
            found = await _in_thread(lambda: batches.nameless(upstream, requests))
        except (ValueError, LedgerError):
            return []
        near = [batch for batch in found if -_EARLIER_MS <= at_ms - batch.sent_at_ms <= _LATER_MS]
        return sorted(near, key=lambda batch: abs(at_ms - batch.sent_at_ms))

    async def settle(self, planning: Planning, batch: Batch, results: Sequence[BatchResult]) -> None:
        """Ends the calls that waited for these results; in the ledger when this returns, or safe in a spool.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        gateway, batches = self._gateway, self._batches
        if batches is None or gateway.writer is None:
            return
        by_name = {result.custom_id: result for result in results}
        async with self._settling:  # who reads the same meanwhile finds it settled, and metrics count it once
            waiting = await _in_thread(lambda: batches.open_calls(batch, by_name))
            written = []
            for stored in waiting:
                if stored.attempts and stored.call.custom_id in by_name:
                    call, attempt = settled(stored.call, stored.attempts[0], by_name[stored.call.custom_id], planning)
                    written.append(gateway.writer.written(call, (attempt,)))
                    gateway.metrics.attempt(attempt)
                    gateway.metrics.call(call)
            await asyncio.gather(*written)

    async def claim(self, candidates: Sequence[Batch], name: str, results: Sequence[BatchResult]) -> Batch | None:
        """The batch that these results can only be of, which has its name from now on."""
        batches, names = self._batches, {result.custom_id for result in results}
        for batch in candidates if batches is not None and names else ():
            assert batches is not None  # noqa: S101  asked above
            found = await _in_thread(lambda batch=batch: batches.open_calls(batch, names))  # type: ignore[misc]  # mypy: no type for a default
            if len(found) == len(names) and await _in_thread(lambda batch=batch: batches.claim(batch, name)):  # type: ignore[misc]  # as above
                return batch
        return None

    async def end(self, batch: Batch) -> None:
        """All results were read: budgets are settled, if every call is."""
        batches = self._batches
        if batches is not None:
            with suppress(LedgerError):  # the next reading does it
                await _in_thread(lambda: batches.end(batch, time.time_ns() // 1_000_000))

    # ------------------------------------------------------------------ passed on

    async def _list(self, scope: Scope, send: Send, key: ApiKey | None) -> None:
        answer = await self._ask(scope, None)
        content = await _content(answer)
        page = _parsed(content)
        if key is not None and isinstance(page, dict) and isinstance(listed := page.get("data"), list):
            own = [one for one in listed if isinstance(one, dict) and await self._is_own(str(one.get("id")), key)]
            content = compact({**page, "data": list(own)})
        await self._hand_on(scope, send, answer, content)

    async def _is_own(self, name: str, key: ApiKey) -> bool:
        with suppress(BadRequest):
            return await self._own(name, key) is not None
        return False

    async def _own(self, name: str, key: ApiKey | None) -> Batch | None:
        """The batch of that name, where it was sent from here. A key of ours sees what was sent with it, and no more.

        Raises:
            BadRequest: it is somebody else's, or cannot be told.
        """
        batches, upstream = self._batches, self._gateway.settings.gateway.upstream
        if batches is None:
            return None
        try:
            found = await _in_thread(lambda: batches.find(upstream, name))
        except LedgerError as error:
            if key is None:  # results are worth more than their record: the next reading settles them
                _log.warning("batch %s cannot be looked for: %s", name, error)
                return None
            raise BadRequest(f"batches cannot be told apart: {error}", status=503, kind="api_error") from None
        if key is not None and (found is None or found.key_id != key.key_id):
            raise BadRequest(f"this key has sent no batch {name}", status=404, kind="not_found_error")
        return found

    async def _ask(self, scope: Scope, batch: Batch | None, *, body: bytes = b"") -> Answer:
        """Asks the upstream; a batch that was sent with one of several accounts, with that one."""
        gateway = self._gateway
        provider = gateway.settings.providers[gateway.settings.gateway.upstream]
        key: UpstreamKey | None = gateway.accounts.any_key(provider)
        if (
            batch is not None
            and batch.account is not None
            and any(k.account == batch.account for k in provider.api_keys)
        ):
            key = gateway.accounts.key(provider, batch.account)
        query = scope.get("query_string", b"").decode("latin-1")
        headers = gateway.upstream_headers(scope["headers"], provider, key)
        try:
            return await gateway.upstream.request(
                gateway.endpoint(provider),
                scope["method"],
                scope["path"] + (f"?{query}" if query else ""),
                headers,
                body=body,
                timeouts=Timeouts(connect=provider.connect_timeout_seconds, idle=provider.idle_timeout_seconds),
            )
        except UpstreamFailed as failure:
            if body:
                raise
            raise BadRequest(str(failure), status=502, kind="api_error") from None

    async def _hand_on(
        self, scope: Scope, send: Send, answer: Answer, content: bytes, more: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        if answer.status == 200:
            content = _reached_here(scope, content)
        else:
            provider = self._gateway.settings.providers[self._gateway.settings.gateway.upstream]
            content = without_keys(content, provider.secrets)
        headers = [pair for pair in answer.headers if pair[0] not in NOT_PASSED_ON]
        await send_whole(send, answer.status, [*headers, *more], content)


class _Reading:
    """Results on their way to a client."""

    def __init__(
        self, routes: BatchRoutes, planning: Planning, batch: Batch | None, candidates: Sequence[Batch], name: str
    ) -> None:
        self._routes = routes
        self._planning = planning
        self._batch = batch
        self._candidates = candidates
        self._name = name

    async def run(self, answer: Answer, send: Send, leaving: asyncio.Future[None]) -> bool:
        """Hands on all of it, as it comes; False where the upstream broke off."""
        held = b""
        try:
            async for piece in answer:
                whole, newline, held = (held + piece).rpartition(b"\n")
                await self._lines(whole + newline, send, leaving)
            await self._lines(held, send, leaving)
        except UpstreamFailed as failure:
            _log.warning("the results of batch %s broke off: %s", self._name, failure)
            return False
        if self._batch is not None:
            await self._routes.end(self._batch)
        return True

    async def _lines(self, text: bytes, send: Send, leaving: asyncio.Future[None]) -> None:
        lines = text.splitlines(keepends=True)
        for start in range(0, len(lines), _LINES_AT_ONCE):
            some = lines[start : start + _LINES_AT_ONCE]
            await self._settle([result for line in some if (result := read_result(line)) is not None])
            if not leaving.done():
                await send({"type": "http.response.body", "body": b"".join(some), "more_body": True})

    async def _settle(self, results: Sequence[BatchResult]) -> None:
        if not results:
            return
        try:
            if self._batch is None and self._candidates:
                self._batch = await self._routes.claim(self._candidates, self._name, results)
                self._candidates = ()
            if self._batch is not None:
                await self._routes.settle(self._planning, self._batch, results)
        except LedgerError as error:
            # An answer that came must not be lost for its record: the next reading settles what this one could not.
            _log.warning("results of batch %s are not settled: %s", self._name, error)


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, work)


async def _left(receive: Receive) -> None:
    """Returns when the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _content(answer: Answer) -> bytes:
    try:
        return await answer.read(_MOST_ANSWER_BYTES)
    except UpstreamFailed as failure:
        raise BadRequest(str(failure), status=502, kind="api_error") from None


def _over(why: str) -> BadRequest:
    return BadRequest(why, status=402, kind="billing_error")


def _entry(batch: Batch, custom_id: str, planned: _Planned, baseline: Model) -> Entry:
    """The record of a request that is about to be sent."""
    plan, classification = planned.plan, planned.classification
    target, call_id = plan.target, new_call_id(batch.sent_at_ms)
    call = CallRecord(
        call_id=call_id,
        started_at_ms=batch.sent_at_ms,
        status=CallStatus.OPEN,
        **recorded_kind(classification),
        tier=target.tier,
        model=target.model.id,
        planned_tier=target.tier,
        baseline_model=baseline.id,
        baseline_nanousd=None,
        session=plan.key.session,
        project=plan.project,
        tags=tuple(sorted({"kind": plan.kind.value, **dict(planned.incoming.directions.tags)}.items())),
        reasons=planned.reasons,
        key_id=batch.key_id,
        ladder=plan.ladder,
        batch_id=batch.batch_id,
        custom_id=custom_id,
    )
    attempt = AttemptRecord(
        call_id=call_id,
        number=1,
        tier=target.tier,
        model=target.model.id,
        provider=batch.provider,
        started_at_ms=batch.sent_at_ms,
        outcome=OutcomeKind.OPEN,
        usage=target.estimated,
        price=target.price,
        cost_nanousd=target.estimated_nanousd,
    )
    return call, (attempt,)


def _params(plan: Plan, incoming: Incoming) -> tuple[bytes, JsonObject]:
    """The parameters that a request goes with: the bytes that came, but for what its model needs; and what they say."""
    model = plan.target.model
    if plan.decision is None and model.id == incoming.model:
        return incoming.body, incoming.value
    after, _ = adapt(incoming.value, model)
    try:
        return splice_changes(incoming.body, incoming.value, after), after
    except SpliceError:
        return compact(after), after


def _parsed(content: bytes) -> Json:
    try:
        return parsed_json(content)
    except (ValueError, RecursionError):
        return None


def _field(content: bytes, name: str) -> Json:
    value = _parsed(content)
    return value.get(name) if isinstance(value, dict) else None


def _reached_here(scope: Scope, content: bytes) -> bytes:
    """A batch, or a page of them, whose results are to be had from us. Within a process there is no other address."""
    value, scheme = _parsed(content), scope.get("scheme")
    headers = {name: text.decode("latin-1") for name, text in scope["headers"]}
    host = headers.get(b"host")
    if scheme is None or host is None or not isinstance(value, dict):
        return content
    origin = f"{headers.get(b'x-forwarded-proto', scheme)}://{host}"

    def moved(batch: Json) -> Json:
        if not isinstance(batch, dict) or not isinstance(batch.get("results_url"), str):
            return batch
        return {**batch, "results_url": f"{origin}{_PATH}/{batch.get('id')}/results"}

    listed = value.get("data")
    if isinstance(listed, list):
        return compact({**value, "data": [moved(one) for one in listed]})
    after = moved(value)
    if not isinstance(after, dict) or after is value:
        return content
    with suppress(SpliceError):
        return splice(content, {"results_url": json.dumps(after["results_url"]).encode("ascii")})
    return compact(after)
