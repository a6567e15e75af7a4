"""Answers the tools of the MCP server, out of the configuration and the ledger of the directory that it was started in.

Nothing is imported, read or opened before the first question: a client starts the server with every session, and often
asks nothing. The configuration is read anew when its files have changed. Texts are classified and forgotten.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from tierwise.integrations.mcp.answers import (
    Alternative,
    Call,
    Calls,
    FeedbackCounts,
    NamedRow,
    Noted,
    Report,
    ReportBy,
    ReportRow,
    Route,
    Rung,
    Section,
    Verdict,
)

if TYPE_CHECKING:
    from tierwise.core.decisions import Decision
    from tierwise.core.settings import Settings
    from tierwise.engine.sync import Router
    from tierwise.ledger import Ledger
    from tierwise.ledger.listing import CallSummary
    from tierwise.report.spend import ReportRow as SpentRow

__all__ = ["Desk"]

_MOST_ROWS = 50
_PATIENCE_MS = 5_000  # an agent waits for it, and no call does

Text: TypeAlias = Annotated[str, Field(max_length=100_000)]
Name: TypeAlias = Annotated[str, Field(max_length=200)]
Tokens: TypeAlias = Annotated[int, Field(ge=0, le=100_000_000)]
When: TypeAlias = Annotated[
    str, Field(max_length=40, description="7d, 12h, 4w, today, a day (2026-11-01: its midnight, UTC) or a time")
]


class Desk:
    """Answers. Safe to be asked by several threads at once.

    Args:
        environment, cwd: where the configuration is looked for.
        config: the file to read instead.
        now: the wall clock.

    Every answer may raise `TierwiseError`, whose message says what to do.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        cwd: Path,
        config: Path | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._environment, self._cwd, self._config, self._now = environment, cwd, config, now
        self._lock = Lock()
        self._known: tuple[tuple[tuple[str, int], ...], Router] | None = None

    # ------------------------------------------------------------------ the tools

    def route(
        self,
        *,
        task: Annotated[Text, Field(min_length=1, description="What is to be done, as it would be asked of a model.")],
        tokens_in: Annotated[
            Tokens | None, Field(description="Tokens of the prompt, where it is longer than the text.")
        ] = None,
        tokens_out: Annotated[Tokens | None, Field(description="Tokens of the answer.")] = None,
        stakes: Annotated[
            Literal["normal", "high", "critical"], Field(description="How bad a wrong answer would be.")
        ] = "normal",
        task_type: Annotated[Name | None, Field(description="The task type, where it is known.")] = None,
        tool_name: Annotated[Name | None, Field(description="The task is a call of this tool.")] = None,
        min_tier: Annotated[Name | None, Field(description="Not below this tier.")] = None,
        max_tier: Annotated[Name | None, Field(description="Not above this tier.")] = None,
        max_latency_seconds: Annotated[float | None, Field(ge=0, le=86_400, allow_inf_nan=False)] = None,
        max_cost_usd: Annotated[
            str | None, Field(pattern=r"^\d{1,9}(\.\d{1,9})?$", description="Such as 0.05.")
        ] = None,
    ) -> Route:
        """Says which model tier a piece of work belongs to, before it is handed to a subagent or another model.

        The answer has the cheapest tier that does it well, its model, what Claude Code calls it, why, and what else the
        text might be. Nothing is sent to a model, and the text is not kept.
        """
        from tierwise.core.tasks import Stakes, Task

        wanted = Task(
            text=task,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            stakes=Stakes(stakes),
            task_type=task_type,
            tool_name=tool_name,
            min_tier=min_tier,
            max_tier=max_tier,
            max_latency_seconds=max_latency_seconds,
            max_cost_usd=max_cost_usd,
        )
        with self._lock:
            router = self._router()
            return _route(router.route_here(wanted), router.settings)

    def report(
        self,
        *,
        since: When | None = None,
        until: Annotated[When | None, Field(description="Exclusive; as `since`.")] = None,
        project: Annotated[Name | None, Field(description="Only this project; empty: calls without one.")] = None,
        by: Annotated[tuple[ReportBy, ...], Field(min_length=1, max_length=5, description="A section for each.")] = (
            "tier",
            "task_type",
        ),
    ) -> Report:
        """Says what model calls cost and what routing saved, from the ledger: in total, and by what you name.

        The figures are those of `tierwise report`. Without `since`, of all time.
        """
        from tierwise import ledger as stored
        from tierwise.report.spend import ReportRow as SpentRow
        from tierwise.report.spend import period, spend

        begin, end = self._moment("since", since), self._moment("until", until)
        total, counts, sections = SpentRow((), stored.Totals()), stored.FeedbackCounts(), []
        with self._reading() as ledger:
            for dimension in dict.fromkeys(by):
                if ledger is None:
                    sections.append(Section(by=dimension, rows=[], left_out=0))
                    continue
                made = spend(ledger, dimension, since=begin, until=end, project=project)
                total = made.total
                sections.append(_section(dimension, made.rows))
            if ledger is not None:
                since_ms, until_ms = period(begin, end)
                counts = ledger.feedback_counts(stored.Filter(since_ms=since_ms, until_ms=until_ms, project=project))
        return Report(
            since=None if begin is None else begin.isoformat(),
            until=None if end is None else end.isoformat(),
            project=project,
            total=_row(total),
            feedback=FeedbackCounts(good=counts.good, bad=counts.bad, typed=counts.typed),
            sections=sections,
        )

    def calls(
        self,
        *,
        limit: Annotated[int, Field(ge=1, le=100)] = 10,
        since: When | None = None,
        project: Annotated[Name | None, Field(description="Only this project; empty: calls without one.")] = None,
        session: Annotated[Name | None, Field(description="Only this session.")] = None,
        task_type: Name | None = None,
        tier: Name | None = None,
    ) -> Calls:
        """Lists the latest calls of the ledger, newest first, with their ids, which `feedback` takes."""
        from tierwise.ledger import Filter
        from tierwise.ledger.listing import list_calls
        from tierwise.report.spend import period

        since_ms, _ = period(self._moment("since", since), None)
        where = Filter(since_ms=since_ms, project=project, session=session, task_type=task_type, tier=tier)
        found: list[CallSummary] = []
        with self._reading() as ledger:
            cursor: str | None = None
            while ledger is not None:
                page = list_calls(ledger, where, cursor=cursor, limit=limit - len(found))
                found += page.calls
                cursor = page.cursor
                if cursor is None or len(found) >= limit:
                    break
        return Calls(calls=[_call(summary) for summary in found])

    def feedback(
        self,
        *,
        call_id: Annotated[str, Field(min_length=1, max_length=64, description="As `calls` lists it.")],
        verdict: Annotated[Verdict | None, Field(description="Whether its answer was good.")] = None,
        task_type: Annotated[
            Name | None, Field(description="What the call really was; `tierwise train` learns from it.")
        ] = None,
        better_tier: Annotated[
            Name | None, Field(description="Where its type should go; nothing is changed, the answer says how to.")
        ] = None,
    ) -> Noted:
        """Says of a call that its answer was good or bad, or what the task really was, in place of earlier feedback.

        Where a call went to the wrong tier, name the task type that it really was: the answer says which tier such work
        goes to. Where the type is right and goes to the wrong tier, name the better one.
        """
        from tierwise.core.errors import InvalidTask
        from tierwise.ledger import Feedback, Judgement, Ledger

        if verdict is None and task_type is None:
            raise InvalidTask("nothing was said of the call; give a verdict (good, bad), a task_type, or both")
        settings, tier = self._settings(), None
        if better_tier is not None:
            better_tier = settings.catalog.tier(better_tier).tier.name
        if task_type is not None:
            with self._lock:  # an unknown type is refused here
                tier = self._router().route(task_type, task_type=task_type).tier.name
        unknown = InvalidTask(f"the ledger {settings.ledger.path} has no call {call_id!r}; the tool `calls` lists them")
        if not settings.ledger.path.exists():
            raise unknown
        said = Feedback(
            call_id=call_id,
            at_ms=time.time_ns() // 1_000_000,
            verdict=None if verdict is None else Judgement(verdict),
            task_type=task_type,
            source="mcp",
        )
        with Ledger(
            settings.ledger.path, synchronous=settings.ledger.synchronous, busy_timeout_ms=_PATIENCE_MS
        ) as ledger:
            stored = ledger.get(call_id)
            if stored is None or not ledger.give_feedback(said):
                raise unknown
        override = None
        if better_tier is not None:
            override = (
                f"[overrides.types]\n{json.dumps(task_type or stored.call.task_type)} = {json.dumps(better_tier)}"
            )
        return Noted(call_id=call_id, verdict=verdict, task_type=task_type, tier_of_type=tier, override=override)

    def close(self) -> None:
        """Lets go of what was opened."""
        with self._lock:
            if self._known is not None:
                self._known[1].close()
                self._known = None

    # ------------------------------------------------------------------ what they share

    def _router(self) -> Router:
        """For the configuration as its files are now."""
        from tierwise.config.load import config_paths
        from tierwise.engine.sync import Router

        paths = config_paths(self._environment, self._cwd, self._config)
        files = tuple((str(path), path.stat().st_mtime_ns) for path in paths)
        if self._known is None or self._known[0] != files:
            router = Router(self._settings())
            if self._known is not None:
                self._known[1].close()
            self._known = files, router
        return self._known[1]

    def _settings(self) -> Settings:
        from tierwise.config import load_settings

        return load_settings(path=self._config, env=self._environment, cwd=self._cwd)

    def _reading(self) -> AbstractContextManager[Ledger | None]:
        """The ledger; None where nothing was ever recorded, so that reading does not create one."""
        from tierwise.ledger import Ledger

        ledger = Ledger.of(self._settings().ledger)
        return ledger if ledger.path.exists() or ledger.waiting() else nullcontext()

    def _moment(self, what: str, text: str | None) -> date | None:
        from tierwise.core.errors import InvalidTask
        from tierwise.core.moments import parse_moment

        if text is None:
            return None
        try:
            return parse_moment(text, self._now())
        except ValueError as error:
            raise InvalidTask(f"{what}: {error}") from None


def _route(decision: Decision, settings: Settings) -> Route:
    from tierwise.core.errors import NoRouteError
    from tierwise.integrations.claude_code.models import alias_of, claude_rungs

    try:
        alias = alias_of(claude_rungs(decision, settings.providers)[0].model.id)
    except NoRouteError:
        alias = None
    said = decision.classification
    return Route(
        tier=decision.tier.name,
        model=decision.model.id,
        claude_alias=alias,
        task_type=said.task_type.name,
        confidence=round(said.confidence, 4),
        abstained=said.abstained,
        needs=said.needs.value,
        reasons=[reason.text for reason in decision.reasons],
        alternatives=[
            Alternative(task_type=one.task_type.name, confidence=round(one.confidence, 4)) for one in said.alternatives
        ],
        ladder=[
            Rung(
                tier=rung.tier.name,
                model=rung.model.id,
                estimated_usd=rung.estimated_cost_usd,
                estimated_seconds=round(rung.estimated_seconds, 2),
            )
            for rung in decision.ladder
        ],
        baseline_model=decision.baseline_model.id,
        baseline_usd=decision.baseline_cost_usd,
        blockers=[reason.text for reason in decision.blockers],
    )


def _section(by: ReportBy, rows: Sequence[SpentRow]) -> Section:
    kept = rows[-_MOST_ROWS:] if by == "day" else rows[:_MOST_ROWS]
    named = [NamedRow(name=row.key[0], **_row(row).model_dump()) for row in kept]
    return Section(by=by, rows=named, left_out=len(rows) - len(kept))


def _row(row: SpentRow) -> ReportRow:
    totals, percent = row.totals, row.saved_percent
    return ReportRow(
        calls=totals.calls,
        answered_calls=totals.answered_calls,
        open_calls=totals.open_calls,
        unpriced_calls=totals.unpriced_calls,
        attempts=totals.attempts,
        failed_attempts=totals.failed_attempts,
        unpriced_attempts=totals.unpriced_attempts,
        cost_usd=row.cost_usd,
        open_cost_usd=row.open_cost_usd,
        baseline_cost_usd=row.baseline_cost_usd,
        saved_usd=row.saved_usd,
        saved_percent=None if percent is None else float(percent),
    )


def _call(summary: CallSummary) -> Call:
    from tierwise.core.money import nanousd_to_usd

    cost = summary.cost_nanousd
    return Call(
        call_id=summary.call_id,
        at=datetime.fromtimestamp(summary.started_at_ms / 1000, UTC),
        status=summary.status.value,
        task_type=summary.task_type,
        tier=summary.tier,
        model=summary.model,
        project=summary.project,
        session=summary.session,
        cost_usd=None if cost is None else nanousd_to_usd(cost),
        attempts=summary.attempts,
        feedback=None if summary.feedback is None else ("good" if summary.feedback == "good" else "bad"),
        feedback_task_type=summary.feedback_type,
    )
