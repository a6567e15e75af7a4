"""One call of the gateway, carried out: attempts, what of them reaches the client and when, and the record of all.

Theory of operation. Where a request goes through several models, the climb (`tierwise.engine.climb`) says what to try
next, as everywhere else. An attempt whose model may still be left holds its answer back until that is worth committing
(`tierwise.engine.holding`); from then on everything flows as it arrives. The last model's answer is never held, unless
the caller is in this process and brought checks of its own: then no answer goes that they refuse.

Nothing is lost and nothing is told too early: the record of an attempt is durable before its request leaves, and that
of the call before the client has its last byte. A stream that breaks after it was committed ends with an error in the
client's dialect, and as a failure in the ledger. A client that hangs up ends the attempt, and what that had used by
then is recorded.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tierwise.core.calls import CallKind
from tierwise.core.decisions import Attempt, CallRecord, CallStatus, Outcome, OutcomeKind, Reason, recorded_kind
from tierwise.core.errors import LedgerError, UnpricedModel
from tierwise.core.headers import retry_after_seconds
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Price, Usage, nanousd_to_usd, usd_to_nanousd
from tierwise.engine.checks import Checked, run_user_checks, tool_schemas
from tierwise.engine.climb import Climbed, Ending, climb
from tierwise.engine.holding import Hold, Holding, check_message, hold_mode
from tierwise.gateway.accounts import KeysOfCall
from tierwise.gateway.admission import Ticket, WouldWait
from tierwise.gateway.asgi import (
    ClientGone,
    Receive,
    Send,
    error_body,
    without_keys,
)
from tierwise.gateway.conversations import contents_of
from tierwise.gateway.incoming import Incoming, parsed_json
from tierwise.gateway.planning import Plan, Planning, Target, conditions_of
from tierwise.gateway.records import CallLog
from tierwise.gateway.replying import Refused, Reply
from tierwise.ledger import new_call_id
from tierwise.ledger.budgets import BudgetExceeded, Reservation, ReservationRequest
from tierwise.prices.book import Conditions
from tierwise.providers._http import error_body as read_error
from tierwise.providers._http import failure_kind
from tierwise.providers.base import ModelRequest, ProviderFailure
from tierwise.providers.passthrough import Answer, Timeouts, UpstreamFailed, UpstreamTimeout
from tierwise.wire.adapt import adapt
from tierwise.wire.anthropic import estimate_prompt_tokens, message_text, usage_of
from tierwise.wire.endings import Dialect
from tierwise.wire.schemas import close_schemas
from tierwise.wire.splice import SpliceError, compact, splice_changes
from tierwise.wire.tap import StreamTap

if TYPE_CHECKING:
    from tierwise.gateway.app import Gateway

__all__ = ["Run"]

Header = tuple[bytes, bytes]

_log = logging.getLogger("tierwise.gateway")

_MOST_ERROR_BYTES = 1024 * 1024
_MOST_REPLY_BYTES = 256 * 1024 * 1024
_STANDARD = Conditions()
_SPEAKS_MESSAGES = frozenset({"anthropic", "ollama"})  # kinds of providers that serve /v1/messages over HTTP
_LONGEST_RETRY_AFTER = 3_600.0
_HUNG_UP = "the client hung up"
_SIGNATURE = ("signature", "bound to a different", "thinking block")


@dataclass(slots=True)
class _Running:
    """An attempt that runs."""

    target: Target
    sent: JsonObject
    last: bool  # no other model comes after it
    began: float  # monotonic
    answer: Answer | None = None

    @property
    def request_id(self) -> str | None:
        """The upstream's."""
        return None if self.answer is None else _text(self.answer.header(b"request-id"))


class _WhileThere:
    """A client's hanging up breaks off what is awaited within, as `ClientGone`.

    Reused: neither a task nor a future is made for it, since every call comes through here.
    """

    __slots__ = ("_broken_off", "_gone", "_task", "_waits")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._gone = self._waits = self._broken_off = False

    def __enter__(self) -> None:
        if self._gone:
            raise ClientGone
        self._waits = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._waits = False
        if not self._broken_off:
            return
        self._broken_off = False
        if self._task is not None and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGone from None  # and no stop of ours besides

    def left(self) -> None:
        """The client hung up."""
        self._gone = True
        if self._waits and self._task is not None:
            self._broken_off = True
            self._task.cancel()


class Run:
    """Carries one call out. Use it once: `await Run(…).go()`."""

    def __init__(  # noqa: PLR0917  each is something of its own
        self,
        gateway: Gateway,
        planning: Planning,
        incoming: Incoming,
        plan: Plan,
        send: Send,
        receive: Receive,
        connection: Any = None,
    ) -> None:
        self.gateway = gateway
        # As they were when the call came: the configuration may be read anew meanwhile.
        self.settings, self.router, self.planning = planning.settings, planning.router, planning
        self.incoming = incoming
        self.plan = plan
        self._receive = receive
        self._connection = connection  # tells that the client hung up; None: it has to be waited for
        self._started = time.monotonic()
        self._gone = False  # the client hung up
        self._there = _WhileThere()
        self._answer: Answer | None = None
        self._refused: Refused | None = None
        self._check_failed = False  # one of the caller's own has a fault
        self._stripped = False  # thinking blocks were stripped after a signature error
        self._observing: asyncio.Task[None] | None = None
        self._reservation: Reservation | None = None
        self._ticket: Ticket | None = None
        self._keys: KeysOfCall | None = None  # where the provider that is asked has several
        now_ms = time.time_ns() // 1_000_000
        decision = plan.decision
        classification = None if decision is None else decision.classification
        self.log = CallLog(
            gateway.writer,
            CallRecord(
                call_id=new_call_id(now_ms),
                started_at_ms=now_ms,
                status=CallStatus.OPEN,
                **recorded_kind(classification),
                tier=plan.target.tier,
                model=plan.target.model.id,
                planned_tier=plan.target.tier,
                baseline_model=(decision.baseline_model if decision else self.settings.catalog.baseline).id,
                baseline_nanousd=None,
                session=plan.key.session,
                project=plan.project,
                tags=_tags(plan.kind, incoming.directions.tags),
                reasons=plan.reasons,
                key_id=None if incoming.key is None else incoming.key.key_id,
                ladder=plan.ladder,
            ),
        )
        self._reply = Reply(send, incoming, self.log, plan.target)

    @property
    def call_id(self) -> str:
        """The call's id in the ledger."""
        return self.log.call.call_id

    async def go(self) -> None:
        """Answers the client. Never raises for what an upstream does."""
        watcher = None
        if self._connection is None:
            watcher = asyncio.ensure_future(self._watch())
        else:
            self._connection.gone = self._client_left
            if self._connection.transport.is_closing():
                self._client_left()
        if self.plan.decision is None:
            self._observing = asyncio.ensure_future(self._observe())
        try:
            if self.plan.decision is None:
                outcome = await self._attempt(self.plan.target, last=True)
                await self._passed(outcome)
            else:
                await self._climbed(await self._climb(self.plan.decision.ladder))
        except BaseException as error:
            await self._interrupted(error)
            raise
        finally:
            self._settle()
            if watcher is not None:
                watcher.cancel()
            else:
                self._connection.gone = None
            if self._observing is not None:
                self._observing.cancel()

    def _settle(self) -> None:
        """What was set aside gives way to what was spent."""
        if self._ticket is not None:
            self._ticket.cancel()
        reservation, desk = self._reservation, self.gateway.desk
        if reservation is not None and desk is not None:
            # What is not priced counts as what was set aside for it.
            desk.settle(reservation, sum(attempt.cost_nanousd or 0 for attempt in self.log.attempts))

    async def _watch(self) -> None:
        """Notices that the client hung up, also while nothing flows."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._client_left()
                return

    def _client_left(self) -> None:
        """The client hung up."""
        self._gone = True
        self._there.left()
        if self._answer is not None:
            self._answer.close()

    def _hung_up(self) -> bool:
        """Whether the client did; a call, since it may happen at every `await`."""
        return self._gone

    async def _observe(self) -> None:
        """Finds out, while the upstream answers, what a request is that passes through."""
        classification, reasons = await self.planning.observe(self.incoming, self.plan)
        self.log.classified(classification, reasons)

    # ------------------------------------------------------------------ the climb

    async def _climb(self, ladder: Sequence[object]) -> Climbed:
        decision = self.plan.decision
        assert decision is not None  # noqa: S101  only routed calls climb
        generator: Generator[Attempt, Outcome, Climbed] = climb(
            decision,
            self.settings.limits,
            random=random.random,
            fixed_max_output_tokens=1,  # the client's own limit: a reply cut there is its wish
        )
        outcome: Outcome | None = None
        while True:
            try:
                attempt = next(generator) if outcome is None else generator.send(outcome)
            except StopIteration as stop:
                climbed: Climbed = stop.value
                return climbed
            if attempt.wait_seconds > 0:
                try:
                    with self._there:
                        await asyncio.sleep(attempt.wait_seconds)
                except ClientGone:
                    return Climbed(Ending.CANCELLED, attempt.rung, _HUNG_UP)
            if self.log.attempts:
                self.log.goes_on()
            last = attempt.rung is ladder[-1]
            first = attempt.rung is decision.first
            target = self.plan.target if first else Target.of(attempt.rung)
            outcome = await self._attempt(target, last=last, attempt=attempt)
            if self._check_failed or (self._reply.committed and outcome.kind is not OutcomeKind.ACCEPTED):
                # A check's own fault is there for the next model, too. Or the client has a part of the answer: there is
                # no going on, whatever the climb would do.
                return Climbed(Ending.CANCELLED, attempt.rung, outcome.detail)

    async def _climbed(self, climbed: Climbed) -> None:
        if climbed.ending is not Ending.ACCEPTED:
            late = climbed.ending is Ending.DEADLINE
            await self._without_answer(climbed.why, f"no acceptable answer: {climbed.why}", late=late)

    async def _passed(self, outcome: Outcome) -> None:
        await self._without_answer(outcome.detail, outcome.detail, late=outcome.kind is OutcomeKind.TIMEOUT)

    async def _without_answer(self, why: str, message: str, *, late: bool) -> None:
        """Nothing was let through: the client gets the upstream's own error, or ours, once the record is safe."""
        if self._reply.committed:
            return
        await self._classified()
        await _done(self.log.finish(self._unanswered, error=why))
        self._told()
        if self._gone:
            return
        if self._refused is not None:
            await self._reply.refuse(self._refused)
            return
        status, kind = (504, "timeout_error") if late else (502, "api_error")
        more: list[Header] = []
        if self.incoming.checks and self.log.attempts and self.log.attempts[-1].outcome is OutcomeKind.REJECTED:
            # Every model was asked. Clients ask again after a 5xx, and would pay for all of them once more.
            status, more = 422, [(b"x-should-retry", b"false")]
        await self._reply.fail(status, kind, f"tierwise: {message}", more)

    def _told(self) -> None:
        """The call is over: counted, logged, traced."""
        call, attempts = self.log.call, self.log.attempts
        self.gateway.metrics.call(call)
        self.gateway.telemetry.ended(call, attempts, requested=self.incoming.model, headers=self.incoming.headers)

    @property
    def _unanswered(self) -> CallStatus:
        """How a call ended that nobody answered."""
        if self._gone:
            return CallStatus.CANCELLED
        return CallStatus.FAILED if self.log.attempts else CallStatus.NOT_RUN

    async def _interrupted(self, error: BaseException) -> None:
        """Something broke in (a stop, a fault of ours): what was open is written down."""
        if self.log.call.status is not CallStatus.OPEN:
            return
        cancelled = isinstance(error, asyncio.CancelledError)
        why = "interrupted" if cancelled else f"{type(error).__name__} in the gateway"
        self.log.breaks_off(OutcomeKind.CANCELLED if cancelled else OutcomeKind.SERVER_ERROR, why)
        self.log.finish(CallStatus.CANCELLED if cancelled else CallStatus.FAILED, error=why)
        if cancelled and self._reply.committed and self.incoming.stream:
            message = "tierwise: the gateway stopped before the answer was whole"
            await self._reply.break_off(message, mid_event=True)

    # ------------------------------------------------------------------ one attempt

    async def _attempt(
        self, target: Target, *, last: bool, attempt: Attempt | None = None, keys: KeysOfCall | None = None
    ) -> Outcome:
        self._reply.target, self._refused, self._keys = target, None, keys
        if self._hung_up():
            return self._unsent(OutcomeKind.CANCELLED, "the client hung up")
        model = target.model
        provider = self.settings.providers[model.provider]
        body, sent = self._body(target)
        refused = await self._reserved(target, sent) or await self._admitted(target, sent, last=last)
        if refused is not None:
            return refused
        await _done(
            self.log.begins(
                tier=target.tier,
                model=model.id,
                provider=model.provider,
                price=target.price,
                estimated=target.estimated,
                estimated_nanousd=target.estimated_nanousd,
                detail=attempt.why if attempt is not None and attempt.number > 1 else "",
                wait_seconds=attempt.wait_seconds if attempt is not None else 0.0,
            )
        )
        running = _Running(target, sent, last, time.monotonic())
        if provider.kind not in _SPEAKS_MESSAGES:
            return await self._through_provider(running)
        try:
            with self._there:
                answer = await self.gateway.upstream.request(
                    self.gateway.endpoint(provider),
                    "POST",
                    "/v1/messages" + (f"?{self.incoming.query}" if self.incoming.query else ""),
                    self.gateway.upstream_headers(
                        self.incoming.raw_headers, provider, self._keys.key if self._keys is not None else None
                    ),
                    body=body,
                    timeouts=Timeouts(
                        connect=provider.connect_timeout_seconds,
                        first_byte=self._left(provider.first_token_timeout_seconds if provider.local else 600.0),
                        idle=provider.idle_timeout_seconds,
                    ),
                )
        except UpstreamFailed as failure:
            # A model may have been at work when the time was over, and nobody will say what that used.
            at_work = isinstance(failure, UpstreamTimeout) and failure.sent
            usage = _prompt_alone(running.sent) if at_work else None
            return self._failed(running, _kind_of(failure), str(failure), usage=usage)
        except ClientGone:
            return self._failed(running, OutcomeKind.CANCELLED, _HUNG_UP, usage=_prompt_alone(running.sent))
        running.answer = self._answer = answer
        if self._gone:
            answer.close()
        try:
            if answer.status != 200:
                return await self._refusal(running, answer)
            if (answer.header(b"content-type") or b"").startswith(b"text/event-stream"):
                return await self._stream(running, answer)
            return await self._whole(running, answer)
        finally:
            self._answer = None
            answer.close()

    async def _reserved(self, target: Target, sent: JsonObject) -> Outcome | None:
        """Sets aside what the attempt may cost at most; an outcome where a hard budget has no room for it."""
        desk = self.gateway.desk
        if desk is None:
            return None
        now_ms = time.time_ns() // 1_000_000
        key_id = self.log.call.key_id
        try:
            applying = desk.budgets.applying(now_ms, key_id=key_id, project=self.plan.project)
            if not applying:
                return None
            if target.price is None:
                hard = next((budget for budget in applying if budget.hard), None)
                return None if hard is None else self._over_budget(f"{hard}: {_unpriced(target)}")
            amount = usd_to_nanousd(target.price.cost_usd(target.at_most(sent, self.incoming.body)))
            answer = await desk.reserve(ReservationRequest(self.call_id, amount, key_id, self.plan.project), now_ms)
        except LedgerError as error:
            # A budget that cannot be kept is not spent: better no answer than an unbounded bill.
            return self._over_budget(f"budgets cannot be checked: {error}", status=503, kind="api_error")
        if isinstance(answer, BudgetExceeded):
            return self._over_budget(str(answer))
        self._reservation = answer
        if answer.warnings and not self._reply.warning:
            self._reply.warning = "; ".join(map(str, answer.warnings))
            self.log.call = replace(
                self.log.call, reasons=(*self.log.call.reasons, Reason("budget", f"let through: {self._reply.warning}"))
            )
        return None

    def _over_budget(self, why: str, *, status: int = 402, kind: str = "billing_error") -> Outcome:
        body = compact(error_body(kind, f"tierwise: {why}"))
        self._refused = Refused(status, [(b"content-type", b"application/json")], body)
        return self._unsent(OutcomeKind.UNAUTHORIZED, why)

    async def _admitted(self, target: Target, sent: JsonObject, *, last: bool) -> Outcome | None:
        """Waits for the model's rate limits; an outcome where they have no room in time."""
        admission = self.gateway.admission
        if admission is None:
            return None
        known = self.gateway.conversations.get(self.plan.key)
        warm = known.warm.get(target.model.id) if known is not None else None
        cached = warm.tokens_at(time.time()) if warm is not None else 0
        provider = self.settings.providers[target.model.provider]
        if provider.api_keys and provider.kind in _SPEAKS_MESSAGES and self._keys is None:
            thinking = not self._stripped and contents_of(self.incoming.value).thinking
            on = known.account if known is not None else None
            self._keys = KeysOfCall(self.gateway.accounts, admission, provider, on=on, thinking=thinking)
        try:
            with self._there:
                self._ticket = await (self._keys or admission).admit(
                    self.gateway.family(target.model),
                    self.plan.key.session,
                    interactive=self.plan.kind is not CallKind.SUBAGENT,
                    input_tokens=max(0, target.estimated.prompt_tokens - cached),
                    output_tokens=target.estimated.output_tokens,
                    deadline_seconds=self._left(self.settings.gateway.rate_limit_wait_seconds if last else 0.0),
                )
        except ClientGone:
            return self._unsent(OutcomeKind.CANCELLED, _HUNG_UP)
        except WouldWait as refused:
            seconds = min(refused.retry_after_seconds, _LONGEST_RETRY_AFTER)
            body = compact(error_body("rate_limit_error", f"tierwise: {refused}"))
            headers = [(b"content-type", b"application/json"), (b"retry-after", b"%d" % math.ceil(seconds))]
            self._refused = Refused(429, headers, body)
            return self._unsent(OutcomeKind.RATE_LIMITED, str(refused), seconds)
        return None

    def _unsent(self, kind: OutcomeKind, detail: str, retry_after_seconds: float | None = None) -> Outcome:
        """What is found out before anything is sent: it costs nothing, and is no attempt."""
        return Outcome(
            kind=kind,
            detail=detail,
            elapsed_seconds=time.monotonic() - self._started,
            retry_after_seconds=retry_after_seconds,
        )

    def _body(self, target: Target) -> tuple[bytes, JsonObject]:
        """What goes upstream: the bytes that came, but for what this model needs; and what it says."""
        incoming = self.incoming
        value = incoming.value
        if self.plan.decision is None and target.model.id == incoming.model:
            if incoming.dialect is Dialect.ANTHROPIC:
                return incoming.body, value
            after = self._translated(value, target)
            return compact(after), after
        # Thinking blocks are signed for the model that the conversation is on, not for the name that was asked for.
        state = self.gateway.conversations.get(self.plan.key)
        signed_for = "" if self._stripped or state is None else state.model_id
        after, _ = adapt({**value, "model": signed_for or incoming.model}, target.model)
        if incoming.dialect is Dialect.OPENAI:
            after = self._translated(after, target)
            return compact(after), after
        try:
            return splice_changes(incoming.body, value, after), after
        except SpliceError:
            return compact(after), after

    def _translated(self, body: JsonObject, target: Target) -> JsonObject:
        """A request that came in OpenAI's dialect, with schemas that Anthropic's API takes where it goes there."""
        anthropic = self.settings.providers[target.model.provider].kind == "anthropic"
        return close_schemas(body)[0] if anthropic else body

    def _left(self, seconds: float) -> float:
        deadline = self.plan.decision.deadline_seconds if self.plan.decision is not None else None
        deadline = deadline or self.incoming.directions.deadline_seconds
        return seconds if deadline is None else max(0.05, min(seconds, deadline - (time.monotonic() - self._started)))

    # ------------------------------------------------------------------ answers

    async def _refusal(self, running: _Running, answer: Answer) -> Outcome:
        """An answer that is none: what it means for the climb. It is kept for the client, if nothing better comes."""
        try:
            content = await answer.read(_MOST_ERROR_BYTES)
        except UpstreamFailed as failure:
            return self._failed(running, _kind_of(failure), str(failure))
        headers = _as_text(answer.headers)
        provider, model = running.target.model.provider, running.target.model
        if self._ticket is not None:
            self._ticket.cancel()  # before what the headers say is learned, which knows of this request
        self.gateway.learn(model, headers, answer.status, self._account)
        error_type, message = read_error(content)
        kind = failure_kind(answer.status, error_type, message)
        if self._keys is not None and self._keys.go_on(answer.status, signature=_speaks_of_thinking(kind, message)):
            self._failed(running, kind, f"{provider} refused its key ({answer.status}); with another one")
            self.log.goes_on()
            return await self._attempt(running.target, last=running.last, keys=self._keys)
        if kind is OutcomeKind.INVALID_REQUEST and self._is_signature(message):
            # Thinking that this model cannot read: once more without it.
            self._stripped = True
            self._failed(running, kind, "thinking blocks are signed for another model; left out")
            self.log.goes_on()
            return await self._attempt(running.target, last=running.last)
        secrets = self.settings.providers[provider].secrets
        self._refused = Refused(answer.status, answer.headers, without_keys(content, secrets))
        named = f" ({error_type})" if error_type.isidentifier() else ""
        return self._failed(
            running,
            kind,
            f"{provider} answered {answer.status}{named}",
            request_id=headers.get("request-id"),
            retry_after_seconds=retry_after_seconds(headers, now=datetime.now(UTC)),
        )

    @property
    def _account(self) -> str | None:
        """Of several at the provider, the one that the request went with."""
        return None if self._keys is None or self._keys.key is None else self._keys.key.account

    def _is_signature(self, message: str) -> bool:
        """Whether an error speaks of thinking blocks that routing could have moved to a model they are not for."""
        return (
            not self._stripped
            and self.plan.decision is not None
            and _speaks_of_thinking(OutcomeKind.INVALID_REQUEST, message)
        )

    async def _stream(self, running: _Running, answer: Answer) -> Outcome:
        tap = StreamTap()
        holding = self._holding(last=running.last)
        first: float | None = None
        failure: UpstreamFailed | None = None
        told = b""  # an upstream's own word that it breaks off
        flows = False  # what comes goes on as it is
        refused: Checked | None = None  # by the caller's own checks
        try:
            async for piece in answer:
                tap.feed(piece)
                if first is None and tap.first_content:
                    first = time.monotonic() - running.began
                if flows and not tap.over:  # as nearly all of them: nothing is left to be decided
                    await self._reply.flow(piece)
                    continue
                out = piece if holding is None else holding.feed(piece)
                if tap.stopped and holding is not None:
                    out += holding.end()
                if holding is not None and _refuses(holding.verdict):
                    break
                if tap.stopped and holding is not None and self.incoming.checks:
                    refused = await self._checked_by_caller(holding.message)
                    if refused is not None:
                        break
                if tap.stopped:
                    # Its record is safe before its last bytes go.
                    price, usage = self._price(running, tap.raw_usage), tap.usage_so_far(running.sent) or Usage()
                    await self._accepted(running, usage, tap.stop_reason, tap.model, first=first, price=price)
                    await self._reply.put(answer, out, end=True)
                    return self._outcome(OutcomeKind.ACCEPTED)
                if tap.error is not None:
                    told = out if holding is None or self._reply.committed else b""
                    break
                if out:
                    await self._reply.put(answer, out)
                    flows = self._reply.as_it_is and (holding is None or holding.flows)
        except UpstreamFailed as error:
            failure = error
        answer.close()
        verdict = refused or (None if holding is None else holding.verdict)
        kind, detail = self._why_broken(running, tap, verdict, failure)
        self.log.ends(
            kind,
            usage=tap.usage_so_far(running.sent) or Usage(),
            detail=detail,
            seconds=time.monotonic() - running.began,
            ttft_seconds=first,
            request_id=_text(answer.header(b"request-id")),
            reported_model=tap.model,
            price=self._price(running, tap.raw_usage),
        )
        if self._reply.committed or told:
            await self._broken_off(answer, kind, detail, told=told, mid_event=tap.mid_event)
        return self._outcome(kind, detail)

    def _why_broken(
        self, running: _Running, tap: StreamTap, verdict: Checked | None, failure: UpstreamFailed | None
    ) -> tuple[OutcomeKind, str]:
        """Why a stream did not come to its end, or was not let through."""
        if tap.error is not None:  # first: a client that sees it hangs up
            kind = failure_kind(200, tap.error.type, tap.error.message)
            named = f" ({tap.error.type})" if tap.error.type.isidentifier() else ""
            return kind, f"{running.target.model.provider} broke off{named}"
        if self._gone:
            return OutcomeKind.CANCELLED, _HUNG_UP
        if verdict is not None and _refuses(verdict):
            return verdict.kind, verdict.note
        if failure is not None:
            return _kind_of(failure), str(failure)
        return OutcomeKind.CONNECTION, "the stream was cut before its end"

    async def _broken_off(
        self, answer: Answer, kind: OutcomeKind, detail: str, *, told: bytes, mid_event: bool
    ) -> None:
        """A stream that the client has a part of ends as a failure: with the upstream's own error, or with ours."""
        self.planning.broken.note(self.plan.key.session, self.incoming.value, self.plan.kind, time.time())
        await self._classified()
        status = CallStatus.CANCELLED if kind is OutcomeKind.CANCELLED else CallStatus.FAILED
        await _done(self.log.finish(status, error=detail))
        self._told()
        if not self._gone:
            if told:
                await self._reply.put(answer, told, end=True)
            else:
                await self._reply.break_off(f"tierwise: {detail}", answer, mid_event=mid_event)

    async def _whole(self, running: _Running, answer: Answer) -> Outcome:
        try:
            content = await answer.read(_MOST_REPLY_BYTES)
            message = parsed_json(content)
        except UpstreamFailed as failure:
            return self._failed(running, _kind_of(failure), str(failure), usage=_prompt_alone(running.sent))
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            usage = _prompt_alone(running.sent)
            return self._failed(running, OutcomeKind.SERVER_ERROR, "an answer that is no JSON object", usage=usage)
        return await self._judge(running, message, content)

    async def _through_provider(self, running: _Running) -> Outcome:
        """A model that is not reached by Messages over HTTP: through its provider, in one piece."""
        model = running.target.model
        body = {key: value for key, value in running.sent.items() if key != "stream"}
        request = ModelRequest(model=model, body=body, timeout_seconds=self._left(600.0))
        try:
            with self._there:
                reply = await self.router.provider(model.provider).send(request)
        except ClientGone:
            return self._failed(running, OutcomeKind.CANCELLED, _HUNG_UP, usage=_prompt_alone(running.sent))
        except ProviderFailure as failure:
            return self._failed(
                running,
                failure.kind,
                failure.note,
                usage=failure.usage,
                retry_after_seconds=failure.retry_after_seconds,
            )
        return await self._judge(running, {**reply.message, "model": reply.message.get("model") or model.id}, None)

    async def _judge(self, running: _Running, message: JsonObject, content: bytes | None) -> Outcome:
        """A whole message: checked where its model may be left, and handed on, as the bytes that came if there are."""
        usage = usage_of(message, running.sent)
        price = self._price(running, message.get("usage"))
        model, stop = message.get("model"), message.get("stop_reason")
        reported = model if isinstance(model, str) else None
        if not running.last or self.incoming.checks:
            checked = check_message(message, self.incoming.value)
            if not _refuses(checked) and self.incoming.checks:
                checked = await self._checked_by_caller(message) or checked
            if _refuses(checked):
                self.log.ends(
                    checked.kind,
                    usage=usage,
                    detail=checked.note,
                    seconds=time.monotonic() - running.began,
                    request_id=running.request_id,
                    reported_model=reported,
                    price=price,
                )
                return self._outcome(checked.kind, checked.note)
        await self._accepted(running, usage, stop if isinstance(stop, str) else None, reported, price=price)
        await self._reply.message(running.answer, message, content)
        return self._outcome(OutcomeKind.ACCEPTED)

    async def _checked_by_caller(self, message: JsonObject) -> Checked | None:
        """What the caller's own checks say of a message; None where they let it pass, and of a call of tools.

        In a thread: they may take their time. A check that fails itself refuses the answer, which was paid for.
        """
        if message.get("stop_reason") == "tool_use":
            return None
        checks, text = self.incoming.checks, message_text(message)
        try:
            return await asyncio.get_running_loop().run_in_executor(None, run_user_checks, text, checks)
        except (Exception, SystemExit) as error:  # noqa: BLE001  a caller's code may raise anything
            self._check_failed = True
            what = f"a check of the caller's failed with {type(error).__name__}"
            _log.error("%s at:\n%s", what, "".join(traceback.format_tb(error.__traceback__)))
            return Checked(OutcomeKind.REJECTED, text, note=what)

    def _holding(self, *, last: bool) -> Holding | None:
        decision = self.plan.decision
        asked = self.incoming.value
        if self.incoming.checks:  # also of the last model, and of one that was asked for by name
            return Holding(
                Hold.WHOLE, check=lambda message: check_message(message, asked), tool_schemas=tool_schemas(asked)
            )
        if decision is None or last:
            return None
        mode = hold_mode(
            decision.classification.task_type,
            asked,
            may_climb=True,
            expected_output_tokens=decision.first.estimated_usage.output_tokens,
        )
        if mode is Hold.NONE:
            return None
        return Holding(mode, check=lambda message: check_message(message, asked), tool_schemas=tool_schemas(asked))

    # ------------------------------------------------------------------ what is written down

    async def _accepted(
        self,
        running: _Running,
        usage: Usage,
        stop_reason: str | None,
        reported: str | None,
        *,
        first: float | None = None,
        price: Price | None = None,
    ) -> None:
        """The answer stands: it is recorded, and what calls share learns of it."""
        gateway, model = self.gateway, running.target.model
        if self._ticket is not None:
            self._ticket.settle(usage)
        if running.answer is not None and gateway.admission is not None:
            gateway.learn(model, _as_text(running.answer.headers), 200, self._account)
        ended = self.log.ends(
            OutcomeKind.REFUSED if stop_reason == "refusal" else OutcomeKind.ACCEPTED,
            usage=usage,
            seconds=time.monotonic() - running.began,
            ttft_seconds=first,
            request_id=running.request_id,
            reported_model=reported,
            price=price or self._price(running, None),
        )
        if self.plan.kind.converses:
            gateway.conversations.note(self.plan.key, model.id, usage, time.time(), self._account)
        self.router.circuits.note(model.id, OutcomeKind.ACCEPTED, time.monotonic())
        gateway.metrics.attempt(ended)
        await self._classified()
        await _done(self.log.finish(CallStatus.ANSWERED, baseline_nanousd=self._baseline(running.target, usage)))
        self._told()

    async def _classified(self) -> None:
        """What passes through is classified meanwhile; the record waits for it, the request never does."""
        observing, self._observing = self._observing, None
        if observing is not None:
            try:
                await observing
            except Exception as error:  # noqa: BLE001  a fault of the classifier must not lose an answer
                self.log.call = replace(
                    self.log.call, reasons=(*self.log.call.reasons, Reason("unclassified", type(error).__name__))
                )

    def _failed(
        self,
        running: _Running,
        kind: OutcomeKind,
        detail: str,
        *,
        usage: Usage | None = None,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> Outcome:
        """An attempt without an answer."""
        if self._gone:
            kind, detail = OutcomeKind.CANCELLED, _HUNG_UP
        attempt = self.log.ends(
            kind,
            usage=usage or Usage(),
            detail=detail,
            seconds=time.monotonic() - running.began,
            request_id=request_id or running.request_id,
        )
        self.router.circuits.note(running.target.model.id, kind, time.monotonic())
        self.gateway.metrics.attempt(attempt)
        return self._outcome(kind, detail, retry_after_seconds)

    def _outcome(self, kind: OutcomeKind, detail: str = "", retry_after_seconds: float | None = None) -> Outcome:
        if self._ticket is not None:
            self._ticket.settle(self.log.attempts[-1].usage)  # where it was not before
        cost = self.log.attempts[-1].cost_nanousd
        return Outcome(
            kind=kind,
            detail=detail,
            cost_usd=None if cost is None else nanousd_to_usd(cost),
            elapsed_seconds=time.monotonic() - self._started,
            retry_after_seconds=retry_after_seconds,
        )

    def _price(self, running: _Running, usage: Json) -> Price | None:
        """The price under the conditions that the answer tells (geography, speed), where they differ."""
        target = running.target
        told = conditions_of(running.sent, usage if isinstance(usage, dict) else None)
        if target.price is not None and told == _STANDARD:
            return target.price
        try:
            return self.router.planner.prices.price(target.model, datetime.now(UTC).date(), told)
        except UnpricedModel:
            return target.price

    def _baseline(self, target: Target, usage: Usage) -> int | None:
        """What the baseline model would have cost for the same texts."""
        catalog = self.settings.catalog
        price = self.router.planner.world(datetime.now(UTC).date()).prices.get(catalog.baseline.id)
        if price is None:
            return None
        ours, theirs = target.model.tokenizer_factor, catalog.baseline.tokenizer_factor
        return usd_to_nanousd(price.cost_usd(usage if ours == theirs else usage.scaled(theirs / ours)))


@lru_cache(1024)
def _tags(kind: CallKind, given: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"kind": kind.value, **dict(given)}.items()))


def _unpriced(target: Target) -> str:
    return f"no price of {target.model.id} is known, so it cannot be kept to; give it one ([[prices]])"


async def _done(written: asyncio.Future[None] | None) -> None:
    if written is not None:
        await written


def _refuses(checked: Checked | None) -> bool:
    return checked is not None and checked.kind is not OutcomeKind.ACCEPTED


def _speaks_of_thinking(kind: OutcomeKind, message: str) -> bool:
    """Whether a request was refused for thinking blocks that are signed for somebody else."""
    return kind is OutcomeKind.INVALID_REQUEST and any(word in message.lower() for word in _SIGNATURE)


def _kind_of(failure: UpstreamFailed) -> OutcomeKind:
    return OutcomeKind.TIMEOUT if isinstance(failure, UpstreamTimeout) else OutcomeKind.CONNECTION


def _prompt_alone(body: JsonObject) -> Usage:
    """Of an answer that cannot be read: its prompt was taken, more is not known."""
    return Usage(input_tokens=estimate_prompt_tokens(body), estimated=True)


def _as_text(headers: Sequence[Header]) -> dict[str, str]:
    return {str(name, "latin-1"): str(value, "latin-1") for name, value in headers}


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")[:200]
