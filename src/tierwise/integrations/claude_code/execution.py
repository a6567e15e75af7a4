"""Runs `claude -p …` on the cheapest model that does it well: decide, run, check, and climb where the check fails.

Theory of operation. The decision is the router's own, less the models that the CLI cannot reach. Its ladder is walked
by the same generator as every call's (`tierwise.engine.climb`), with two differences. A model that was rejected is not
asked again: a whole agent's run is no cheap second try. And faults of the API are not waited for: the CLI has done so.

Each attempt is a session of its own, started with `--output-format json`, from whose report come the answer and the
tokens of every model that it used. A CLI that was ended or crashed reports nothing: then its transcript tells what was
used, and what it may have been waiting for is estimated. The model that was asked for is the attempt of the ledger;
others, such as subagents', become calls of their own, tagged with the id of the first. What the gateway has recorded of
a session is not counted again here, hooks of the plugin that run inside of it are told so (`TIERWISE_RECORDS`), and its
telemetry is left out (`claim_session`): the session's id is given, so that this is known before it begins.

A failed attempt leaves the working directory as it is: what the next model begins with is for `before_retry` to say.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tierwise.core.calls import CallKind
from tierwise.core.decisions import (
    Attempt,
    AttemptRecord,
    CallRecord,
    CallStatus,
    Decision,
    Outcome,
    OutcomeKind,
    recorded_kind,
)
from tierwise.core.errors import ConfigError, CostCeilingExceeded, InvalidTask, LedgerError, TierwiseError
from tierwise.core.money import Usage, nanousd_to_usd
from tierwise.core.tasks import Task
from tierwise.engine.checks import check_reply, check_schema
from tierwise.engine.climb import Climbed, Ending, climb
from tierwise.engine.planner import as_task
from tierwise.engine.recording import Recording
from tierwise.engine.router import AsyncRouter
from tierwise.integrations.claude_code.command import ClaudeCommand
from tierwise.integrations.claude_code.models import claude_rungs
from tierwise.integrations.claude_code.places import Places
from tierwise.integrations.claude_code.report import ModelUse, RunReport, Used
from tierwise.integrations.claude_code.transcripts import used_in
from tierwise.ledger import Filter, new_call_id
from tierwise.ledger.reported import SOURCE_TAG, Source, claim_session, source_of
from tierwise.replay.tariff import Tariff

__all__ = ["RECORDS_VARIABLE", "Executed", "Executor", "Job"]

RECORDS_VARIABLE = "TIERWISE_RECORDS"  # tells hooks inside a session that somebody else records it
_GRACE_SECONDS = 5.0
_API_ERRORS = {
    400: OutcomeKind.INVALID_REQUEST,
    401: OutcomeKind.UNAUTHORIZED,
    403: OutcomeKind.UNAUTHORIZED,
    404: OutcomeKind.UNAVAILABLE,
    413: OutcomeKind.TOO_LARGE,
    429: OutcomeKind.RATE_LIMITED,
    503: OutcomeKind.OVERLOADED,
    529: OutcomeKind.OVERLOADED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command to be run, and what its answer must pass.

    Args:
        command: `claude -p …`.
        task: what it is asked; None: the command's own prompt.
        given: what it gets on its standard input.
        check: a command of the shell, run after it in the same directory, the answer on its standard input; it passes
            with 0.
        before_retry: a command of the shell, run before each further attempt.
        options: fields of `Task` that narrow the decision.
    """

    command: ClaudeCommand
    task: str | None = None
    given: str | None = None
    check: str | None = None
    before_retry: str | None = None
    cwd: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # as the router takes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """How a job ended. `report` is the last attempt's; None where the CLI made none."""

    ok: bool
    why: str  # in plain words; empty where all went well
    ending: Ending
    decision: Decision
    call_id: str
    attempts: tuple[AttemptRecord, ...]
    report: RunReport | None
    printed: bytes  # what the CLI printed, as it did
    beside_nanousd: int  # what other models than the attempts' own cost
    counted_elsewhere: bool  # the gateway recorded what it used
    said: str  # the last line on the CLI's standard error: for the caller, since it may quote anything

    @property
    def cost_nanousd(self) -> int | None:
        """Everything that was spent, failed attempts included; None where a price is not known."""
        costs = [attempt.cost_nanousd for attempt in self.attempts]
        return None if None in costs else sum(cost or 0 for cost in costs) + self.beside_nanousd


@dataclass(frozen=True, slots=True)
class _Ran:
    status: int | None  # None: it took too long, and was ended
    printed: bytes
    said: str  # the last line on its standard error


@dataclass(slots=True)
class _Run:
    """A job under way."""

    job: Job
    task: Task
    decision: Decision
    recording: Recording
    began: float
    report: RunReport | None = None
    printed: bytes = b""
    beside_nanousd: int = 0
    counted_elsewhere: bool = False
    said: str = ""
    answers: list[Usage] = field(default_factory=list)


class Executor:
    """Runs jobs, several at once if asked to.

    Args:
        router: decides, and has the ledger.
        environment: of the commands.
        checks_output: where a check's own output goes, as a file descriptor; None: nowhere.
    """

    def __init__(
        self,
        router: AsyncRouter,
        environment: Mapping[str, str],
        *,
        checks_output: int | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.router = router
        self._environment = {**environment, RECORDS_VARIABLE: "exec"}
        self._checks_output = asyncio.subprocess.DEVNULL if checks_output is None else checks_output
        self._jitter = jitter
        self._tariff = Tariff(router.settings.catalog, router.planner.prices)
        self._transcripts = Places.of(environment).config / "projects"

    def decide(self, job: Job) -> tuple[Task, Decision]:
        """Where a job would go. Raises as `AsyncRouter.route`, and `NoRouteError` where no Claude model may be used."""
        text = job.task if job.task is not None else job.command.prompt
        given = job.given
        if text is None:
            text, given = given, None
        if not text or not text.strip():
            raise InvalidTask('the command has no prompt; give one: claude -p "…", or --task, or a text on stdin')
        schema = job.command.json_schema
        if schema is not None:
            check_schema(schema)
        task = as_task(text, {"has_tools": True, "input_text": given, "json_schema": schema, **job.options})
        decision = self.router.route(task)
        rungs = tuple(replace(rung, retries=0) for rung in claude_rungs(decision, self.router.settings.providers))
        return task, replace(decision, ladder=rungs)

    async def run(self, job: Job) -> Executed:
        """Runs a job to its end.

        Raises:
            InvalidTask, NoRouteError, …: as `decide`; nothing was run.
            CostCeilingExceeded: not even the first attempt fits under the ceiling.
            ConfigError: there is no such program.
        """
        began = time.monotonic()
        task, decision = self.decide(job)
        tags = {**task.tags, SOURCE_TAG: Source.EXEC.value}
        recording = Recording(
            self.router.ledger,
            replace(task, tags=tags),
            decision,
            call_id=new_call_id(),
            now=datetime.now(UTC),
            project=self.router.settings.project,
        )
        if decision.blockers:
            why = decision.blockers[0].text
            recording.call_ends(CallStatus.NOT_RUN, seconds=0.0, error=why)
            raise CostCeilingExceeded(why, call_id=recording.call_id, decision=decision)
        run = _Run(job, task, decision, recording, began)
        try:
            climbed = await self._climb(run)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
            recording.interrupted(error, cancelled=cancelled, seconds=time.monotonic() - began)
            raise
        return self._settle(run, climbed)

    async def _climb(self, run: _Run) -> Climbed:
        limits = replace(self.router.settings.limits, transient_retries=0)
        steps = climb(run.decision, limits, random=self._jitter)
        attempt = next(steps)
        while True:
            if attempt.number > 1 and run.job.before_retry is not None:
                status = await self._shell(run.job.before_retry, run, b"")
                if status is None:
                    return Climbed(Ending.DEADLINE, attempt.rung, "the command before a retry took too long")
                if status != 0:
                    return Climbed(Ending.EXHAUSTED, attempt.rung, f"the command before a retry ended with {status}")
            outcome = await self._attempt(run, attempt)
            try:
                attempt = steps.send(outcome)
            except StopIteration as end:
                climbed: Climbed = end.value
                return climbed

    async def _attempt(self, run: _Run, attempt: Attempt) -> Outcome:
        model = attempt.rung.model.id
        named = run.job.command.session if attempt.number == 1 else None  # no other session can have its id again
        session = named or str(uuid.uuid4())
        words = run.job.command.words(model, run.job.task, session=session)
        record = run.recording.attempt_starts(attempt, datetime.now(UTC))
        began = time.monotonic()
        self._claim(session)
        try:
            ran = await self._claude(words, run.job, _left(run))
        except TierwiseError:  # it never began
            run.recording.attempt_ended(
                record,
                kind=OutcomeKind.NOT_RUN,
                detail="the CLI could not be started",
                usage=Usage(),
                price=attempt.rung.price,
                seconds=time.monotonic() - began,
            )
            raise
        report = run.report = RunReport.read(ran.printed)
        run.printed, run.said = ran.printed, ran.said
        kind, detail = await self._check(run, ran, report)
        usage, price, used = Usage(), attempt.rung.price, None if report is None else report.used
        if report is not None:
            record = replace(record, ttft_ms=report.ttft_ms, request_id=None)
            if report.session != session:
                self._claim(session := report.session)
        if self._gateway_has(session, record.started_at_ms):
            run.counted_elsewhere = True
            detail = detail or "the gateway recorded what it used"
        else:
            used = used or used_in(self._transcripts, session)
            usage = used.of(model)
            run.beside_nanousd += self._record_beside(run, used, model, session, record.started_at_ms)
            if report is None and (ran.status is None or ran.status < 0):
                usage = _at_least(usage, attempt.rung.estimated_usage)  # nobody will ever say what it waited for
        nanousd = run.recording.attempt_ended(
            record,
            kind=kind,
            detail=detail,
            usage=usage,
            price=price,
            seconds=time.monotonic() - began,
            requests=1 if used is None else used.requests,
        )
        run.answers.append(usage)
        return Outcome(kind, detail, nanousd_to_usd(nanousd), time.monotonic() - run.began)

    # ------------------------------------------------------------------ checks

    async def _check(self, run: _Run, ran: _Ran, report: RunReport | None) -> tuple[OutcomeKind, str]:
        """What became of an attempt, and why, in words that quote nothing of it."""
        if ran.status is None:
            return OutcomeKind.TIMEOUT, "it took too long"
        if report is None:
            if ran.status < 0:
                return OutcomeKind.SERVER_ERROR, f"the CLI was ended by signal {-ran.status}"
            # Its options or its settings are wrong: on no model would that be otherwise.
            return OutcomeKind.INVALID_REQUEST, f"the CLI ended with {ran.status} and no report"
        if report.api_status is not None:
            kind = _API_ERRORS.get(report.api_status, OutcomeKind.SERVER_ERROR)
            return kind, f"the API answered {report.api_status}"
        if report.failed or ran.status:
            return OutcomeKind.REJECTED, f"the CLI ended with {ran.status} ({report.kind})"
        answer = _answer(report, run.job.command)
        if run.job.command.json_schema is not None and report.structured is None:
            return OutcomeKind.REJECTED, "the answer is not of the schema"
        if run.job.check is None or run.job.command.json_schema is not None:
            checked = check_reply(run.task, answer, "end_turn")
            if checked.kind is not OutcomeKind.ACCEPTED:
                return checked.kind, checked.note
        if run.job.check is not None:
            status = await self._shell(run.job.check, run, answer.encode("utf-8", "replace"))
            if status is None:
                return OutcomeKind.TIMEOUT, "the check took too long"
            if status:
                return OutcomeKind.REJECTED, f"the check ended with {status}"
        return OutcomeKind.ACCEPTED, ""

    async def _claude(self, words: list[str], job: Job, seconds: float | None) -> _Ran:
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd=job.cwd,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL if job.given is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise _not_started(error, words[0], job.cwd) from None
        given = None if job.given is None else job.given.encode("utf-8", "replace")
        try:
            printed, said = await asyncio.wait_for(process.communicate(given), seconds)
        except TimeoutError:
            await _end(process)
            return _Ran(None, b"", "")
        except BaseException:
            await _end(process)
            raise
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return _Ran(process.returncode, printed, lines[-1][:200] if lines else "")

    async def _shell(self, command: str, run: _Run, given: bytes) -> int | None:
        """The exit code of a command of the shell; None: it went on past the deadline, and was ended."""
        process = await asyncio.create_subprocess_shell(
            command,
            cwd=run.job.cwd,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=self._checks_output,
            stderr=self._checks_output,
            start_new_session=True,
        )
        try:
            await asyncio.wait_for(process.communicate(given), _left(run))
        except TimeoutError:
            await _end(process)
            return None
        except BaseException:
            await _end(process)
            raise
        return process.returncode or 0

    # ------------------------------------------------------------------ records

    def _claim(self, session: str) -> None:
        """What is recorded here of a session, its telemetry must not tell again."""
        if self.router.ledger is not None and session:
            with suppress(LedgerError):  # in trouble: what is to be written waits, and is told of there
                claim_session(self.router.ledger, session, time.time_ns() // 1_000_000)

    def _gateway_has(self, session: str, since_ms: int) -> bool:
        """Whether the gateway's calls of this session are in the ledger: what it used was recorded on its way."""
        ledger = self.router.ledger
        if ledger is None or not session:
            return False
        try:
            of_session = ledger.calls(Filter(session=session, since_ms=since_ms - 1_000))
            return any(source_of(stored.call) is None for stored in of_session)
        except LedgerError:
            return False  # as above

    def _record_beside(self, run: _Run, used: Used, model: str, session: str, started_at_ms: int) -> int:
        """Records what other models did in the same run, each as a call; nothing was routed, and nothing is saved."""
        total = 0
        for use in used.beside(model):
            call, attempt = self._beside(run, use, session, used.requests, started_at_ms)
            total += attempt.cost_nanousd or 0
            if self.router.ledger is not None:
                self.router.ledger.record(call, [attempt])
        return total

    def _beside(
        self, run: _Run, use: ModelUse, session: str, requests: int, started_at_ms: int
    ) -> tuple[CallRecord, AttemptRecord]:
        call_id = new_call_id()
        day = datetime.fromtimestamp(started_at_ms / 1000, UTC).date()
        cost = self._tariff.nanousd(use.model, use.usage, day, requests=requests)
        tier = self._tariff.tier(use.model)
        tags = {SOURCE_TAG: Source.EXEC.value, "kind": CallKind.SIDE.value, "of": run.recording.call_id}
        attempt = AttemptRecord(
            call_id=call_id,
            number=1,
            tier=tier,
            model=use.model,
            provider="anthropic",
            started_at_ms=started_at_ms,
            outcome=OutcomeKind.ACCEPTED,
            usage=use.usage,
            price=self._tariff.price(use.model, day),
            cost_nanousd=cost,
        )
        call = CallRecord(
            call_id=call_id,
            started_at_ms=started_at_ms,
            status=CallStatus.ANSWERED,
            **recorded_kind(None),
            tier=tier,
            model=use.model,
            planned_tier=tier,
            baseline_model=use.model,
            baseline_nanousd=cost,
            session=session,
            project=run.task.project or self.router.settings.project,
            tags=tuple(sorted(tags.items())),
        )
        return call, attempt

    def _settle(self, run: _Run, climbed: Climbed) -> Executed:
        recording, seconds = run.recording, time.monotonic() - run.began
        ok = climbed.ending is Ending.ACCEPTED
        if ok:
            baseline = None
            if not run.counted_elsewhere:
                baseline = self._tariff.nanousd(
                    run.decision.baseline_model.id,
                    run.answers[-1],
                    datetime.now(UTC).date(),
                    instead_of=climbed.rung.model.id,
                    requests=1 if run.report is None else run.report.used.requests,
                )
            recording.call_ends(CallStatus.ANSWERED, seconds=seconds, baseline_nanousd=baseline)
        else:
            recording.call_ends(CallStatus.FAILED, seconds=seconds, error=climbed.why)
        return Executed(
            ok=ok,
            why="" if ok else climbed.why,
            ending=climbed.ending,
            decision=run.decision,
            call_id=recording.call_id,
            attempts=tuple(recording.attempts),
            report=run.report,
            printed=run.printed,
            beside_nanousd=run.beside_nanousd,
            counted_elsewhere=run.counted_elsewhere,
            said=run.said,
        )


def _left(run: _Run) -> float | None:
    """The seconds that are left of those that it may take; None: there is no limit."""
    deadline = run.decision.deadline_seconds
    return None if deadline is None else max(0.001, deadline - (time.monotonic() - run.began))


def _not_started(error: OSError, program: str, cwd: Path | None) -> TierwiseError:
    """Why the CLI could not be run, and what to do."""
    if cwd is not None and not cwd.is_dir():
        return InvalidTask(f"there is no directory {cwd}")
    if error.errno == errno.E2BIG:
        return InvalidTask("the prompt is too long for a command line; give its bulk on standard input (`input`)")
    if error.errno == errno.ENOENT:
        return ConfigError(
            f"there is no {program}; Claude Code is installed with: npm install -g @anthropic-ai/claude-code"
        )
    return ConfigError(f"{program} cannot be run: {error.strerror}")


def _at_least(told: Usage, estimated: Usage) -> Usage:
    """Of two counts of a run that was broken off, the larger. What is told lacks the request that it waited for."""
    if told.prompt_tokens + told.output_tokens > estimated.prompt_tokens + estimated.output_tokens:
        return replace(told, estimated=True)
    return estimated


def _answer(report: RunReport, command: ClaudeCommand) -> str:
    return report.text if command.json_schema is None else json.dumps(report.structured)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a process and what it started: asks first, unless somebody is in a hurry (a second Ctrl-C)."""
    try:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
