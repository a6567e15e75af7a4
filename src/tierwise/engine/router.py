"""The router: takes a task, decides, drives the climb on real models, checks, prices and records."""

from __future__ import annotations

import asyncio
import random as random_module
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from difflib import get_close_matches
from functools import cached_property
from inspect import iscoroutinefunction
from types import MappingProxyType, TracebackType
from typing import Any, NoReturn, Protocol, Self, assert_never

from tierwise.classifier.base import Classifier
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.core.catalog import Model, StructuredOutput, Tier
from tierwise.core.decisions import (
    Attempt,
    AttemptRecord,
    CallStatus,
    Decision,
    Outcome,
    OutcomeKind,
    Reason,
    Rung,
)
from tierwise.core.errors import (
    ConfigError,
    CostCeilingExceeded,
    DeadlineExceeded,
    InvalidTask,
    LadderExhausted,
    LedgerError,
    NoRouteError,
    NotRun,
    RequestRefusedByProvider,
)
from tierwise.core.json import Json
from tierwise.core.money import Price, Usage, format_usd, nanousd_to_usd, usd_to_nanousd
from tierwise.core.settings import Role, Settings
from tierwise.core.tasks import Classification, Task
from tierwise.core.tokens import estimate_tokens
from tierwise.engine.checks import Checked, UserCheck, check_reply, check_schema
from tierwise.engine.circuits import Circuits
from tierwise.engine.climb import Climbed, Ending, climb
from tierwise.engine.planner import Planner, as_task
from tierwise.engine.recording import Recording
from tierwise.engine.request import build_body, check_tool_input
from tierwise.engine.result import Result, spent_usd
from tierwise.engine.second_opinion import DETAIL, MAX_OUTPUT_TOKENS, TIMEOUT_SECONDS, in_doubt, question, reranked
from tierwise.ledger import Ledger, new_call_id
from tierwise.prices import PriceBook
from tierwise.providers.base import (
    Availability,
    ModelRequest,
    Provider,
    ProviderFailure,
    Reply,
    spent_before_cancel,
)
from tierwise.wire.adapt import adapt
from tierwise.wire.schemas import close_schemas

__all__ = ["AsyncRouter", "Clock"]

# How long what a local server said of itself is believed.
_AVAILABLE_SECONDS = 10.0
_UNAVAILABLE_SECONDS = 3.0
_MIN_SAMPLES = 1


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """The wall clock, with a time zone."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


class _SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class _Call:
    """A call in progress."""

    task: Task
    decision: Decision
    recording: Recording
    started: float  # monotonic
    checks: Sequence[UserCheck]
    reply: Reply | None = None
    checked: Checked | None = None
    notes: tuple[str, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)  # model id → why
    last_words: str = ""  # of a provider that failed: for the caller, not for the record, which may not quote them


class AsyncRouter:
    """Routes and runs tasks. Use it as an async context manager, or call `aclose()`.

    Args:
        settings: the configuration; read from tierwise.toml and the environment when None.
        classifier: the configured one when None.
        ledger: where calls are recorded; the configured one when None, nowhere when `record` is False.
        providers: by name, over those that the configuration describes.
        clock, random: time and jitter.

    Raises:
        ConfigError: the configuration cannot be used.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        classifier: Classifier | None = None,
        ledger: Ledger | None = None,
        record: bool = True,
        providers: Mapping[str, Provider] | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        if settings is None:
            from tierwise.config import load_settings  # noqa: PLC0415  pydantic: only when there is a file to read

            settings = load_settings()
        if classifier is None:
            from tierwise.classifier import choose_classifier, load_taxonomy  # noqa: PLC0415

            taxonomy = load_taxonomy().with_user_types(settings.task_types)
            _check_type_names(settings, taxonomy)
            classifier = choose_classifier(taxonomy, settings.classifier, settings.taught)
        self.settings = settings
        self.planner = Planner(settings, classifier, PriceBook(settings.prices, settings.providers))
        self._owns_ledger = ledger is None
        if ledger is None and record and settings.ledger.enabled:
            ledger = Ledger.of(settings.ledger)
        self.ledger = ledger if record else None
        self._providers: dict[str, Provider] = dict(providers or {})
        self._given = frozenset(self._providers)  # these need no key of ours
        self._clock: Clock = clock or _SystemClock()
        self._random = random
        self.circuits = Circuits(settings.limits.circuit_failures, settings.limits.circuit_open_seconds)
        self._availability: dict[str, tuple[float, Availability]] = {}
        self._speeds: dict[str, tuple[float, float]] | None = None

    # ------------------------------------------------------------------ deciding

    def classify(self, task: str | Task, **options: Any) -> Classification:
        """What a task is. Raises `InvalidTask` where there is nothing to classify."""
        return self.planner.classify(as_task(task, options))

    def route(self, task: str | Task, **options: Any) -> Decision:
        """Where a task would go, and why. Sends nothing and asks no server.

        Args:
            task: the text, or a `Task`.
            options: fields of `Task` (tokens_in, max_latency_seconds, stakes, min_tier, …).

        Raises:
            InvalidTask, UnknownTier, UnknownModel, UnpricedModel, NoRouteError.
        """
        return self._plan(as_task(task, options), {})

    async def route_here(self, task: str | Task, **options: Any) -> Decision:
        """As `route`, with the local model that this machine has.

        Asks the local models whether they are there (milliseconds). The tier stays what the policy says: where no
        local model can be used, a reason says so, and where a run would start instead.
        """
        wanted = as_task(task, options)
        decision = self._plan(wanted, {})
        local = self.settings.catalog.tiers[decision.tier.level].models
        if not self._is_local(decision.model) or wanted.model is not None:
            return decision
        missing: dict[str, str] = {}
        for model in local:
            if self._is_local(model):
                found = await self._available(model)
                if found.ok:
                    return self._plan(wanted, missing, decision.classification) if missing else decision
                missing[model.id] = found.detail
        above = next((rung for rung in decision.ladder if rung.tier != decision.tier), None)
        note = f"no model of {decision.tier} can be used on this machine now: `tierwise doctor` says why"
        if above is not None:
            note += f"; a run would start at {above.tier} ({above.model.id})"
        return replace(decision, reasons=(*decision.reasons, Reason("availability", note)))

    async def route_checked(self, task: str | Task, **options: Any) -> Decision:
        """As `route`, after asking whether the local models are there and which keys are set."""
        decision, _ = await self.plan_available(as_task(task, options))
        return decision

    def _plan(
        self, task: Task, unavailable: Mapping[str, str], classification: Classification | None = None
    ) -> Decision:
        closed = self.circuits.open_now(self._clock.monotonic())
        return self.planner.plan(
            task,
            self._today(),
            classification=classification,
            unavailable={**closed, **unavailable} if closed else unavailable,
            speeds=self._measured_speeds(),
        )

    def _today(self) -> date:
        return self._clock.now().astimezone(UTC).date()

    def _measured_speeds(self) -> Mapping[str, tuple[float, float]]:
        """Speeds of local models, from the ledger, read once: they change slowly."""
        if self._speeds is None:
            self._speeds = {}
            if self.ledger is not None and self.ledger.path.exists():
                assumed = {model.id: model for model in self.settings.catalog.models}
                try:
                    measured = self.ledger.model_speeds()
                except LedgerError:
                    return self._speeds  # a ledger in trouble is told of when it is written, not here
                for model_id, speed in measured.items():
                    model = assumed.get(model_id)
                    if model is None or speed.samples < _MIN_SAMPLES or not self._is_local(model):
                        continue
                    self._speeds[model_id] = (
                        speed.prompt_tokens_per_second or model.prompt_tokens_per_second,
                        speed.output_tokens_per_second or model.output_tokens_per_second,
                    )
        return self._speeds

    def _is_local(self, model: Model) -> bool:
        provider = self.settings.providers.get(model.provider)
        return provider is not None and provider.local

    async def plan_available(
        self,
        task: Task,
        classification: Classification | None = None,
        *,
        keyed: frozenset[str] = frozenset(),
        withheld: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[Decision, dict[str, str]]:
        """Plans with what can really be reached: where the way starts at a model that is not there, plans again.

        `keyed` names providers whose key comes with the request and need not be configured; `withheld` are models that
        may not be used, with the reason.

        Returns the decision, and why each model that was left out cannot be used. Raises as `route` does.
        """
        if classification is None:
            classification = self.planner.classify(task)
        unavailable = dict(withheld)
        unavailable.update({model.id: why for model, why in self._without_key if model.provider not in keyed})
        now = self._clock.monotonic()
        for model_id, (until, known) in self._availability.items():
            if now < until and not known.ok:  # else one plan after the other finds that it is not there
                unavailable.setdefault(model_id, known.detail)
        while True:
            decision = self._plan(task, unavailable, classification)
            missing = {}
            for rung in decision.ladder:
                if self._is_local(rung.model):
                    found = await self._available(rung.model)
                    if not found.ok:
                        missing[rung.model.id] = found.detail
            if not missing:
                return decision, unavailable
            unavailable.update(missing)

    @cached_property
    def _without_key(self) -> tuple[tuple[Model, str], ...]:
        """The models whose provider's key is not configured, and what to do about it."""
        found = []
        for model in self.settings.catalog.models:
            provider = self.settings.providers[model.provider]
            if provider.key_missing and model.provider not in self._given:
                found.append((model, f"no API key: set {provider.api_key_env}"))
        return tuple(found)

    async def _available(self, model: Model) -> Availability:
        now = self._clock.monotonic()
        known = self._availability.get(model.id)
        if known is not None and now < known[0]:
            return known[1]
        found = await self.provider(model.provider).check(model)
        self._availability[model.id] = (now + (_AVAILABLE_SECONDS if found.ok else _UNAVAILABLE_SECONDS), found)
        return found

    async def local_models(self) -> dict[str, Availability]:
        """Every model that runs on this machine, and whether it can be used now."""
        return {
            model.id: await self._available(model) for model in self.settings.catalog.models if self._is_local(model)
        }

    def provider(self, name: str) -> Provider:
        """The provider of that name, built when it is first needed."""
        provider = self._providers.get(name)
        if provider is None:
            from tierwise.providers.registry import build_provider  # noqa: PLC0415

            provider = self._providers[name] = build_provider(self.settings.providers[name])
        return provider

    # ------------------------------------------------------------------ running

    async def run(self, task: str | Task, *, checks: Sequence[UserCheck] = (), **options: Any) -> Result:
        """Runs a task on the cheapest tier that does it well.

        Args:
            task: the text, or a `Task`.
            checks: callables over the reply's text; see `tierwise.engine.checks.UserCheck`.
            options: fields of `Task`.

        Raises:
            InvalidTask, UnknownTier, UnknownModel, UnpricedModel, NoRouteError: nothing was sent.
            NotRun: no API key, or no model reachable; the plan is on `.decision`.
            CostCeilingExceeded, DeadlineExceeded, LadderExhausted, RequestRefusedByProvider: it was tried; what was
                spent is on `.attempts` and in the ledger under `.call_id`.
        """
        started = self._clock.monotonic()
        wanted = as_task(task, options)
        if wanted.json_schema is not None:
            check_schema(wanted.json_schema)
        if wanted.tool_name is not None:
            check_tool_input(wanted)
        _check_callables(checks)
        call_id = new_call_id(int(self._clock.now().timestamp() * 1000))
        try:
            decision, unavailable = await self.plan_available(wanted)
        except NoRouteError as error:
            self._not_run(call_id, wanted, error)
        call = self._open_call(call_id, wanted, decision, checks, started)
        call.unavailable = unavailable
        if decision.blockers:
            call.recording.call_ends(CallStatus.NOT_RUN, seconds=0.0, error=decision.blockers[0].text)
            raise CostCeilingExceeded(decision.blockers[0].text, call_id=call_id, decision=decision)
        try:
            if in_doubt(wanted, decision.classification, self.settings.policy):
                await self._second_opinion(call)
            climbed = await self._climb(call)
        except BaseException as error:
            # Whatever interrupts (Ctrl-C, a cancelled task, a fault of a caller's check): no record is lost.
            cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
            call.recording.interrupted(error, cancelled=cancelled, seconds=self._since(call.started))
            raise
        return self._settle(call, climbed)

    async def dispatch_tool(
        self,
        tool_name: str,
        tool_input: Json,
        *,
        tier_overrides: Mapping[str, str | Tier] | None = None,
        checks: Sequence[UserCheck] = (),
        **options: Any,
    ) -> Result:
        """Runs a tool call on a model of the tier that fits it.

        Args:
            tool_name: the tool; its name is what is classified, in any case style.
            tool_input: its input, as JSON.
            tier_overrides: tier by tool name, over `overrides.tools` of the configuration.
        """
        if not isinstance(tool_name, str) or not tool_name.strip():
            raise InvalidTask("the tool has no name")
        if tier_overrides is not None and tool_name in tier_overrides:
            options.setdefault("tier", str(tier_overrides[tool_name]))
        text = options.pop("text", None) or f"Tool call: {tool_name}"
        return await self.run(text, checks=checks, tool_name=tool_name, tool_input=tool_input, **options)

    async def aclose(self) -> None:
        """Closes connections, stops what was started, and writes what still waits."""
        providers, self._providers = self._providers, {}
        for provider in providers.values():
            await provider.aclose()
        if self.ledger is not None and self._owns_ledger:
            self.ledger.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # ------------------------------------------------------------------ one call

    async def _climb(self, call: _Call) -> Climbed:
        generator = climb(
            call.decision,
            self.settings.limits,
            random=self._random,
            fixed_max_output_tokens=call.task.max_output_tokens,
        )
        outcome: Outcome | None = None
        while True:
            try:
                attempt = next(generator) if outcome is None else generator.send(outcome)
            except StopIteration as stop:
                climbed: Climbed = stop.value
                return climbed
            if attempt.wait_seconds > 0:
                await self._clock.sleep(attempt.wait_seconds)
            outcome = await self._attempt(call, attempt)

    async def _attempt(self, call: _Call, attempt: Attempt) -> Outcome:
        rung = attempt.rung
        model, price = rung.model, rung.price
        clock = self._clock
        rejected = call.reply.text if attempt.feedback is not None and call.reply is not None else None
        body = build_body(
            call.task,
            model,
            max_output_tokens=attempt.max_output_tokens or model.max_output_tokens,
            rejected_reply=rejected,
            feedback=attempt.feedback,
        )
        body, call.notes = adapt(body, model)
        if model.capabilities.structured_output is StructuredOutput.OUTPUT_CONFIG:
            body, closed = close_schemas(body)
            call.notes += closed
        provider = self.provider(model.provider)  # what cannot be built is not recorded as sent
        record = call.recording.attempt_starts(attempt, clock.now())
        began = clock.monotonic()
        deadline = call.decision.deadline_seconds
        remaining = None if deadline is None else max(0.001, deadline - (began - call.started))
        try:
            reply = await provider.send(ModelRequest(model=model, body=body, timeout_seconds=remaining))
        except ProviderFailure as failure:
            self._note_failure(model, failure)
            call.last_words = str(failure)
            record = replace(record, request_id=failure.request_id, ttft_ms=failure.ttft_ms)
            usage = failure.usage
            if usage is None and failure.kind is OutcomeKind.TIMEOUT and failure.status is None:
                usage = _prompt_alone(rung)
            return self._outcome(
                call,
                record,
                failure.kind,
                failure.note,
                usage=usage or Usage(),
                price=price,
                began=began,
                retry_after_seconds=failure.retry_after_seconds,
            )
        except asyncio.CancelledError as cancelled:
            usage = spent_before_cancel(cancelled) or _prompt_alone(rung)
            self._outcome(
                call,
                record,
                OutcomeKind.CANCELLED,
                "the caller gave up",
                usage=usage or Usage(),
                price=price,
                began=began,
            )
            raise
        self.circuits.note(model.id, OutcomeKind.ACCEPTED, clock.monotonic())
        call.reply = reply
        record = replace(record, ttft_ms=reply.ttft_ms, request_id=reply.request_id, reported_model=reply.model)
        try:
            checked = check_reply(call.task, reply.text, reply.stop_reason, reply.message, call.checks)
        except BaseException as error:
            # A fault of the caller's own check: the reply was paid for all the same.
            detail = f"a check of the caller's failed with {type(error).__name__}"
            self._outcome(call, record, OutcomeKind.REJECTED, detail, usage=reply.usage, price=price, began=began)
            raise
        call.checked = checked
        outcome = self._outcome(call, record, checked.kind, checked.note, usage=reply.usage, price=price, began=began)
        return replace(outcome, feedback=checked.problem or None)

    async def _second_opinion(self, call: _Call) -> None:
        """Asks a model of the local tier which of the classifier's candidates it is, and decides again by its answer.

        Whatever goes wrong is recorded, and nothing comes of it: the decision stays.
        """
        decision = call.decision
        rung = await self._opinion_rung(call)
        if rung is None:
            return
        asked = question(call.task, decision.classification)
        body, _ = adapt(build_body(asked, rung.model, max_output_tokens=MAX_OUTPUT_TOKENS), rung.model)
        record = call.recording.attempt_starts(Attempt(rung, 0, 0, 1, why=DETAIL), self._clock.now())
        began = self._clock.monotonic()
        seconds = min(TIMEOUT_SECONDS, decision.deadline_seconds or TIMEOUT_SECONDS)
        answer: str | None = None
        try:
            reply = await self.provider(rung.model.provider).send(
                ModelRequest(model=rung.model, body=body, timeout_seconds=seconds)
            )
        except ProviderFailure as failure:
            self._note_failure(rung.model, failure)
            kind, why, usage = failure.kind, f": {failure.note}", failure.usage or Usage()
        else:
            self.circuits.note(rung.model.id, OutcomeKind.ACCEPTED, self._clock.monotonic())
            record = replace(record, ttft_ms=reply.ttft_ms, request_id=reply.request_id, reported_model=reply.model)
            checked = check_reply(asked, reply.text, reply.stop_reason, reply.message, ())
            kind, why, usage = checked.kind, f": {checked.note}" if checked.note else "", reply.usage
            answer = checked.text if kind is OutcomeKind.ACCEPTED else None
        self._outcome(call, record, kind, f"{DETAIL}{why}", usage=usage, price=rung.price, began=began)
        if answer is None:
            return
        classification = reranked(decision.classification, answer, rung.model.id)
        try:
            again = self._plan(call.task, call.unavailable, classification)
        except NoRouteError:
            return  # what could be reached for the first decision still can
        if not again.blockers:
            call.decision = again
            call.recording.decided_again(again)

    async def _opinion_rung(self, call: _Call) -> Rung | None:
        """The first model of the local tier that can be asked; none where it would cost money out of a ceiling."""
        policy, catalog = self.settings.policy, self.settings.catalog
        prices = self.planner.world(self._today()).prices
        spec = catalog.tier(policy.roles[Role.LOCAL])
        for model in spec.models:
            price = prices.get(model.id)
            if price is None or model.id in call.unavailable:
                continue
            if not price.is_free and call.decision.max_cost_usd is not None:
                continue
            if self._is_local(model) and not (await self._available(model)).ok:
                continue
            asked = question(call.task, call.decision.classification)
            usage = Usage(estimate_tokens(asked.text), MAX_OUTPUT_TOKENS, estimated=True)
            return Rung(spec.tier, model, price, usage, price.cost_usd(usage), TIMEOUT_SECONDS, 0)
        return None

    def _outcome(
        self,
        call: _Call,
        record: AttemptRecord,
        kind: OutcomeKind,
        detail: str,
        *,
        usage: Usage,
        price: Price,
        began: float,
        retry_after_seconds: float | None = None,
    ) -> Outcome:
        cost_nanousd = call.recording.attempt_ended(
            record, kind=kind, detail=detail, usage=usage, price=price, seconds=self._since(began)
        )
        return Outcome(
            kind=kind,
            detail=detail,
            cost_usd=nanousd_to_usd(cost_nanousd),
            elapsed_seconds=self._since(call.started),
            retry_after_seconds=retry_after_seconds,
        )

    def _note_failure(self, model: Model, failure: ProviderFailure) -> None:
        now = self._clock.monotonic()
        self.circuits.note(model.id, failure.kind, now)
        if failure.kind is OutcomeKind.UNAVAILABLE:
            self._availability[model.id] = (now + _UNAVAILABLE_SECONDS, Availability(False, str(failure)))

    def _since(self, moment: float) -> float:
        return self._clock.monotonic() - moment

    # ------------------------------------------------------------------ the ends of a call

    def _open_call(
        self, call_id: str, task: Task, decision: Decision, checks: Sequence[UserCheck], started: float
    ) -> _Call:
        recording = Recording(
            self.ledger,
            task,
            decision,
            call_id=call_id,
            now=self._clock.now(),
            project=self.settings.project,
            captured_text=self._captured(task),
        )
        return _Call(task, decision, recording, started, checks)

    def _captured(self, task: Task) -> str | None:
        """What the classifier saw, where the user chose to keep it."""
        if not self.settings.ledger.capture_text:
            return None
        from tierwise.classifier.features import shown  # noqa: PLC0415  only for whoever chose it

        return shown(task.text, task.tool_name, task.tool_input)

    def _not_run(self, call_id: str, task: Task, why: NoRouteError) -> NoReturn:
        """Nothing can be reached: says what was planned, so that the caller sees what is missing."""
        # Without the open circuits, or there would be nothing to show of a model that is only in trouble now.
        decision = self.planner.plan(task, self._today(), speeds=self._measured_speeds())
        self._open_call(call_id, task, decision, (), 0.0).recording.call_ends(
            CallStatus.NOT_RUN, seconds=0.0, error=str(why)
        )
        raise NotRun(f"not run: {why}", call_id=call_id, decision=decision) from why

    def _settle(self, call: _Call, climbed: Climbed) -> Result:
        """Writes the end of the call, then gives the answer or raises."""
        decision, recording = call.decision, call.recording
        attempts = tuple(recording.attempts)
        seconds = self._since(call.started)
        reply, checked = call.reply, call.checked
        if climbed.ending is not Ending.ACCEPTED or reply is None or checked is None:
            why = climbed.why
            if climbed.ending is Ending.EXHAUSTED:
                above = self.settings.catalog.tiers[climbed.rung.tier.level + 1 :]
                missing = [
                    f"{m.id}: {call.unavailable[m.id]}" for s in above for m in s.models[:1] if m.id in call.unavailable
                ]
                why += f"; it could not climb further ({'; '.join(missing)})" if missing else ""
            cancelled = climbed.ending is Ending.CANCELLED
            status = CallStatus.CANCELLED if cancelled else CallStatus.FAILED if attempts else CallStatus.NOT_RUN
            recording.call_ends(status, seconds=seconds, error=why)
            _raise(call, replace(climbed, why=why))
        accepted = attempts[-1]
        baseline_nanousd = self._baseline_nanousd(decision, climbed.rung.model, accepted.usage)
        recording.call_ends(CallStatus.ANSWERED, seconds=seconds, baseline_nanousd=baseline_nanousd)
        return Result(
            text=checked.text,
            value=checked.value,
            tier=climbed.rung.tier,
            model=accepted.model,
            call_id=recording.call_id,
            decision=decision,
            attempts=attempts,
            usage=accepted.usage,
            cost_usd=spent_usd(attempts),
            baseline_cost_usd=None if baseline_nanousd is None else nanousd_to_usd(baseline_nanousd),
            latency_ms=round(seconds * 1000),
            stop_reason=reply.stop_reason,
            message=reply.message,
            notes=call.notes,
            recorded=self.ledger is not None and self.ledger.healthy,
        )

    def _baseline_nanousd(self, decision: Decision, model: Model, usage: Usage) -> int | None:
        """What the baseline model would have cost for the same texts: its tokens, its price, one attempt."""
        price = self.planner.world(self._today()).prices.get(decision.baseline_model.id)
        if price is None:
            return None
        factor = decision.baseline_model.tokenizer_factor / model.tokenizer_factor
        return usd_to_nanousd(price.cost_usd(usage.scaled(factor)))


def _raise(call: _Call, climbed: Climbed) -> NoReturn:
    attempts = tuple(call.recording.attempts)
    count = f"{len(attempts)} attempt{'s' if len(attempts) != 1 else ''}, {format_usd(spent_usd(attempts))} spent"
    why = climbed.why
    if call.last_words and call.last_words not in why and not attempts[-1].outcome.is_rejection:
        why = f"{why}: {call.last_words}"
    context: dict[str, Any] = {"call_id": call.recording.call_id, "attempts": attempts, "decision": call.decision}
    match climbed.ending:
        case Ending.COST_CEILING:
            raise CostCeilingExceeded(f"stopped at the cost ceiling ({count}): {why}", **context)
        case Ending.DEADLINE:
            raise DeadlineExceeded(f"stopped at the deadline ({count}): {why}", **context)
        case Ending.REFUSED_REQUEST:
            raise RequestRefusedByProvider(f"the provider refuses the request ({count}): {why}", **context)
        case Ending.CANCELLED:
            raise asyncio.CancelledError(climbed.why)
        case Ending.EXHAUSTED | Ending.ACCEPTED:
            raise LadderExhausted(f"no acceptable answer ({count}): {why}", **context)
        case _ as never:
            assert_never(never)


def _prompt_alone(rung: Rung) -> Usage | None:
    """Of a request that was sent and nobody will say what it used: its prompt was, so that counts, as an estimate."""
    return None if rung.price.is_free else replace(rung.estimated_usage, output_tokens=0)


def _check_callables(checks: Sequence[UserCheck]) -> None:
    for check in checks:
        if not callable(check) or iscoroutinefunction(check):
            raise InvalidTask(f"the check {check!r} is no plain function of the reply's text")


def _check_type_names(settings: Settings, taxonomy: Taxonomy) -> None:
    """A misspelt task type in the configuration would never match, and nobody would know."""
    for section, names in (
        ("overrides.types", settings.overrides.types),
        ("policy.output_tokens", settings.policy.output_tokens),
    ):
        for name in names:
            if name not in taxonomy and name != "default":
                near = get_close_matches(name, taxonomy, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "; `tierwise classify` shows the names in use"
                where = f" in {settings.sources[-1]}" if settings.sources else ""
                raise ConfigError(f"{section}.{name}{where} is no task type{hint}")
