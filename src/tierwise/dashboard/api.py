"""What the dashboard's API does: each question, who answers it, and with what. The OpenAPI document is made of this.

Reading a ledger takes milliseconds, in threads of the dashboard's own: the event loop, which calls go through, does not
wait for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from tierwise.classifier import load_taxonomy
from tierwise.core.decisions import CallStatus, OutcomeKind
from tierwise.core.errors import LedgerError, TierwiseError, UnpricedModel
from tierwise.core.money import Price, usd_to_nanousd
from tierwise.core.settings import Settings
from tierwise.core.tasks import TaskType
from tierwise.dashboard import models, questions, whatif
from tierwise.dashboard.access import Need
from tierwise.dashboard.models import moment
from tierwise.dashboard.questions import milliseconds
from tierwise.dashboard.refusals import Refused, not_found
from tierwise.dashboard.runtime import Runtime
from tierwise.dashboard.views import View
from tierwise.ledger import Feedback, Judgement, Ledger
from tierwise.ledger.budgets import MOST_NANOUSD, BudgetPeriod, Budgets, BudgetScope, period_start_ms
from tierwise.ledger.keys import Keys
from tierwise.report.figures import CallPage, Figures, Scope

__all__ = ["ROUTES", "Api", "Route"]

T = TypeVar("T")
Q = TypeVar("Q", bound=BaseModel)
A = TypeVar("A", bound=BaseModel)

_THREADS = 3
_MOST_PAGES = 20  # of calls that are looked through for a page of those that climbed, or did not
_CHOICES_SECONDS = 5.0  # what pickers offer may be so old
_GATEWAY_OFF = "set ledger.enabled = true in tierwise.toml: without a ledger nothing is recorded"


class Api:
    """Answers. For one event loop.

    Args:
        ledger: where calls are; None where it is switched off.
        runtime: the process.
        version: of tierwise.
        now_ms: Unix time, UTC.
    """

    def __init__(
        self,
        ledger: Ledger | None,
        runtime: Runtime,
        *,
        version: str,
        now_ms: Callable[[], int],
    ) -> None:
        self.runtime = runtime
        self.now_ms = now_ms
        self._ledger = ledger
        self._version = version
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tierwise-dashboard")
        self._replaying = asyncio.Semaphore(1)
        self._named: tuple[Settings, View, dict[str, TaskType]] | None = None
        self._choices: tuple[float, models.Choices] | None = None

    def close(self) -> None:
        """Lets go of its threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ what answers share

    @property
    def ledger(self) -> Ledger:
        """The ledger.

        Raises:
            Refused: it is switched off.
        """
        if self._ledger is None:
            raise Refused(503, "the ledger is switched off", where="tierwise.toml", do=_GATEWAY_OFF)
        return self._ledger

    @property
    def figures(self) -> Figures:
        """What reads figures."""
        return Figures(self.ledger)

    @property
    def view(self) -> View:
        """What names them."""
        return self._names()[0]

    def _names(self) -> tuple[View, dict[str, TaskType]]:
        settings = self.runtime.settings
        if self._named is None or self._named[0] is not settings:
            types = dict(load_taxonomy().with_user_types(settings.task_types).items())
            families = {name: one.family for name, one in types.items()}
            self._named = settings, View(settings.catalog, families), types
        return self._named[1], self._named[2]

    async def read(self, ask: Callable[[], T]) -> T:
        """What a reader finds, in a thread.

        Raises:
            Refused: the ledger cannot be read.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except LedgerError as error:
            raise Refused(503, str(error), where="the ledger", do="`tierwise doctor` says what helps") from None

    def scope(self, asked: questions.Scoped, status: CallStatus | None = None) -> Scope:
        """Which calls are meant. What has a begin and no end ends now."""
        since, until = milliseconds(asked.since), milliseconds(asked.until)
        if since is not None and until is None:
            until = max(since, self.now_ms() + 1)
        return Scope(
            since_ms=since,
            until_ms=until,
            project=asked.project,
            session=asked.session,
            key=asked.key,
            model=asked.model,
            tier=asked.tier,
            task_type=asked.task_type,
            status=status,
        )

    # ------------------------------------------------------------------ figures

    async def overview(self, asked: questions.Scoped) -> models.Overview:
        """Spent, saved, calls and latency of a period, beside the period before it."""
        figures = self.figures
        found = await self.read(partial(figures.overview, self.scope(asked)))
        choices = await self._all_choices()
        last = choices.last_call_at
        return self.view.overview(found, milliseconds(last))

    async def series(self, asked: questions.SeriesOf) -> models.Series:
        """One measure over time, split by tier, model, task type, project or key."""
        view = self.view
        found = await self.read(
            partial(
                self.figures.series,
                self.scope(asked),
                view.measure(asked.measure),
                view.by(asked.by),
                points=asked.points,
            )
        )
        return view.series(found)

    async def task_types(self, asked: questions.Scoped) -> models.TaskTypes:
        """All task types of a period, dearest first."""
        return self.view.task_types(await self.read(partial(self.figures.task_types, self.scope(asked))))

    async def task_type(self, asked: questions.AboutTaskType) -> models.TaskTypeDetail:
        """One task type: its figures, its history by tier, and its latest calls with their reasons."""
        figures, scope = self.figures, self.scope(asked)
        view, types = self._names()
        found = await self.read(partial(figures.task_type, scope, asked.name))
        if found is None:
            raise not_found(
                f"no call of the period is of the task type {asked.name[:100]!r}",
                "the path",
                "take a name of /api/v1/task-types, or a longer period",
            )
        everything = await self.read(partial(figures.measures, scope))
        examples = [await self._call(one.call_id) for one in found.examples[:10]]
        known = types.get(asked.name)
        return models.TaskTypeDetail(
            summary=view.task_type(found.figures, everything.totals.calls),
            description=None if known is None else known.description or None,
            cost=view.series(found.spent),
            calls=view.series(found.calls),
            examples=[one for one in examples if one is not None],
        )

    async def quality(self, asked: questions.Scoped) -> models.Quality:
        """How reliable the classifier was, how often replies stood, and why rungs were left."""
        return self.view.quality(await self.read(partial(self.figures.quality, self.scope(asked))))

    async def cache(self, asked: questions.Scoped) -> models.Cache:
        """What prompt caches saved, or cost."""
        return self.view.cache(await self.read(partial(self.figures.cache, self.scope(asked))))

    # ------------------------------------------------------------------ calls

    async def calls(self, asked: questions.Calls) -> models.CallPage:
        """Calls, newest first. A search may bring a short page, or an empty one, that goes on."""
        scope = self.scope(asked, asked.status)
        try:
            return self.view.page(await self.read(partial(self._matching, asked, scope)))
        except ValueError:
            raise Refused(
                422, "the cursor is none", where="the query, cursor", do="give a `next_cursor` as it came, or none"
            ) from None

    def _matching(self, asked: questions.Calls, scope: Scope) -> CallPage:
        figures, cursor = self.figures, asked.cursor
        for _ in range(_MOST_PAGES):
            page = figures.calls(
                scope,
                text=asked.text or "",
                least_usd=asked.min_cost_usd,
                most_usd=asked.max_cost_usd,
                cursor=cursor,
                limit=asked.limit,
            )
            found = tuple(one for one in page.calls if asked.climbed is None or (one.models > 1) is asked.climbed)
            cursor = page.cursor
            if found or cursor is None or len(found) == len(page.calls):
                break
        return CallPage(found, cursor, page.searched_to_ms)

    async def call(self, asked: questions.AboutCall) -> models.Call:
        """One call: its decision's ladder, every attempt with timings, tokens and cost, the reasons."""
        found = await self._call(asked.id)
        if found is None:
            raise not_found("no call has that id", "the path", "take a call_id of /api/v1/calls")
        return found

    async def _call(self, call_id: str) -> models.Call | None:
        ledger, figures = self.ledger, self.figures
        found = await self.read(partial(figures.call, call_id))
        if found is None:
            return None
        text = await self.read(partial(ledger.captured_text, call_id))
        day = datetime.fromtimestamp(found.call.started_at_ms / 1000, UTC).date()
        return self.view.call(found, self._prices(day), text=text)

    def _prices(self, day: date) -> Mapping[str, Price]:
        book, found = self.runtime.router.planner.prices, {}
        for model in self.runtime.settings.catalog.models:
            try:
                found[model.id] = book.price(model, day)
            except UnpricedModel:
                continue
        return found

    async def conversation(self, asked: questions.AboutConversation) -> models.Conversation:
        """The calls of a session, as a tree."""
        found = await self.read(partial(self.figures.conversation, asked.session))
        if found is None or not any(thread.calls for thread in found.threads):
            raise not_found("no call is of that session", "the path", "take a session of /api/v1/choices")
        return self.view.conversation(found)

    # ------------------------------------------------------------------ limits, budgets, choices

    async def limits(self, _: questions.Nothing) -> models.Limits:
        """What is left of upstreams' rate limits, and which models are left alone after failures."""
        return await self.runtime.limits()

    async def budgets(self, _: questions.Nothing) -> models.Budgets:
        """Budgets, how they stand, and where they will be at their end at the present pace."""
        now_ms = self.now_ms()
        month = Scope(since_ms=period_start_ms(BudgetPeriod.MONTH, now_ms), until_ms=now_ms + 1)
        ledger, figures = self.ledger, self.figures
        spent = await self.read(partial(figures.measures, month))
        standings = await self.read(lambda: Budgets(ledger).standings(now_ms))
        return self.view.budgets(standings, spent, now_ms)

    async def set_budget(self, asked: models.BudgetChange) -> models.Budgets:
        """Sets a budget, changes the limit of the one that is there, or removes it."""
        await self.read(partial(self._set_budget, asked))
        return await self.budgets(questions.Nothing())

    def _set_budget(self, asked: models.BudgetChange) -> None:
        scope, period = BudgetScope(asked.scope), BudgetPeriod(asked.period)
        if (scope is BudgetScope.ALL) != (asked.subject == ""):
            raise Refused(
                422,
                "only a budget of all calls has no subject",
                where="the body, subject",
                do="name a key's id or a project, or leave scope and subject away",
            )
        budgets, now_ms = Budgets(self.ledger), self.now_ms()
        if asked.limit_usd is None:
            for one in budgets.standings(now_ms):
                known = one.budget
                if (known.scope, known.subject, known.period) == (scope, asked.subject, period):
                    budgets.remove(known.budget_id)
                    return
            raise not_found("there is no such budget", "the body", "take one of GET /api/v1/budgets")
        limit = usd_to_nanousd(Decimal(asked.limit_usd))
        if limit > MOST_NANOUSD:
            raise Refused(422, "that is more than a budget can be", where="the body, limit_usd", do="give less")
        known_keys = {key.key_id for key in Keys(self.ledger).all()} if scope is BudgetScope.KEY else {asked.subject}
        if asked.subject not in known_keys:
            raise not_found("no key has that id", "the body, subject", "`tierwise keys list` shows them")
        budgets.set(scope, asked.subject, period, limit, now_ms, hard=asked.hard)

    async def feedback(self, asked: models.FeedbackGiven) -> models.FeedbackAnswer:
        """Says what a call was; in place of what was said before. With neither verdict nor type, takes that back."""
        types = self._names()[1]
        if asked.task_type is not None and asked.task_type not in types:
            raise Refused(
                422,
                f"there is no task type {asked.task_type[:100]!r}",
                where="the body, task_type",
                do="take one of `task_types` of /api/v1/choices",
            )
        if not await self.read(partial(self._feedback, asked)):
            raise not_found("no call has that id", "the body, call_id", "take a call_id of /api/v1/calls")
        return models.FeedbackAnswer(noted=True)

    def _feedback(self, asked: models.FeedbackGiven) -> bool:
        ledger = self.ledger
        if asked.verdict is None and asked.task_type is None:
            return ledger.forget_feedback(asked.call_id) or ledger.get(asked.call_id) is not None
        verdict = None if asked.verdict is None else Judgement(asked.verdict)
        said = Feedback(
            call_id=asked.call_id,
            at_ms=self.now_ms(),
            verdict=verdict,
            task_type=asked.task_type,
            source="dashboard",
        )
        return ledger.give_feedback(said)

    async def choices(self, _: questions.Nothing) -> models.Choices:
        """What the page's pickers offer."""
        return await self._all_choices()

    async def _all_choices(self) -> models.Choices:
        kept, now = self._choices, time.monotonic()
        if kept is not None and now - kept[0] < _CHOICES_SECONDS:
            return kept[1]
        found = await self.read(self._read_choices)
        self._choices = now, found
        return found

    def _read_choices(self) -> models.Choices:
        ledger, settings = self.ledger, self.runtime.settings
        found = self.figures.choices()
        view, types = self._names()
        names = {key.key_id: key.name for key in Keys(ledger).all()}
        tiers = {spec.tier.name: spec for spec in settings.catalog}
        homes = {model.id: spec.tier.name for spec in settings.catalog for model in spec.models}
        return models.Choices(
            version=self._version,
            captures_text=settings.ledger.capture_text,
            first_call_at=None if found.first_ms is None else moment(found.first_ms),
            last_call_at=None if found.last_ms is None else moment(found.last_ms),
            ledger_bytes=_size(ledger),
            baseline_model=settings.catalog.baseline.id,
            projects=list(found.projects),
            sessions=list(found.sessions[:100]),
            keys=[
                models.KeyChoice(key=one.key_id, name=one.name or names.get(one.key_id, one.key_id))
                for one in found.keys
            ],
            tiers=[
                models.TierChoice(name=name, level=view.level(name), configured=name in tiers)
                for name in [*tiers, *(one for one in found.tiers if one not in tiers)]
            ],
            models=[
                models.ModelChoice(name=name, tier=homes.get(name)) for name in dict.fromkeys([*homes, *found.models])
            ],
            task_types=[
                models.TaskTypeChoice(name=name, family=types[name].family if name in types else None)
                for name in dict.fromkeys([*types, *found.task_types])
            ],
            statuses=[status.value for status in CallStatus],
            outcomes=[outcome.value for outcome in OutcomeKind],
            policies=whatif.policies(settings),
        )

    # ------------------------------------------------------------------ what if

    async def decision(self, asked: models.DecisionQuestion) -> models.Decision:
        """Where a text would go, with alternatives and reasons. Nothing is sent, logged or kept."""
        try:
            return await self.read(partial(whatif.decide, asked, self.runtime.router))
        except Refused:
            raise
        except TierwiseError as error:
            raise Refused(422, str(error)[:500], where="the body", do="change what the error names") from None

    async def replay(self, asked: questions.ReplayOf) -> models.Replay:
        """What the newest calls of a period would have cost under another policy, or at another day's prices."""
        view, types = self._names()
        if self._replaying.locked():
            raise Refused(
                429,
                "a replay runs already",
                where="this machine",
                do="ask again in 2 s",
                headers=((b"retry-after", b"2"),),
            )
        async with self._replaying:
            try:
                return await self.read(
                    partial(
                        whatif.replayed,
                        self.ledger,
                        self.scope(asked),
                        settings=self.runtime.settings,
                        prices=self.runtime.router.planner.prices,
                        task_types=types,
                        view=view,
                        policy=asked.policy,
                        priced_on=asked.priced_on,
                        points=asked.points,
                    )
                )
            except Refused:
                raise
            except TierwiseError as error:
                raise Refused(
                    422, str(error)[:500], where="the query", do="take one of `policies` of /api/v1/choices"
                ) from None


def _size(ledger: Ledger) -> int:
    total = 0
    for suffix in ("", "-wal"):
        try:
            total += ledger.path.with_name(ledger.path.name + suffix).stat().st_size
        except OSError:
            continue
    return total


@dataclass(frozen=True, slots=True)
class Route(Generic[Q, A]):
    """One question: where it is asked, what of it, who answers, and with what."""

    method: str
    path: str  # below /api/v1; `{name}` is a field of `asks`
    answer: Callable[[Api, Q], Awaitable[A]]
    asks: type[Q]
    answers: type[A]
    tag: str
    need: Need = Need.FIGURES

    @property
    def operation(self) -> str:
        """Its name in the OpenAPI document."""
        return self.answer.__name__

    @property
    def summary(self) -> str:
        """What it is for: the first line of what answers it."""
        return (self.answer.__doc__ or "").strip().split("\n", maxsplit=1)[0]

    @property
    def in_path(self) -> str | None:
        """The field that stands in the path."""
        return self.path[self.path.index("{") + 1 : -1] if "{" in self.path else None


ROUTES: tuple[Route[Any, Any], ...] = (
    Route("GET", "/overview", Api.overview, questions.Scoped, models.Overview, "figures"),
    Route("GET", "/series", Api.series, questions.SeriesOf, models.Series, "figures"),
    Route("GET", "/task-types", Api.task_types, questions.Scoped, models.TaskTypes, "figures"),
    Route(
        "GET",
        "/task-types/{name}",
        Api.task_type,
        questions.AboutTaskType,
        models.TaskTypeDetail,
        "figures",
        Need.CALLS,
    ),
    Route("GET", "/quality", Api.quality, questions.Scoped, models.Quality, "figures"),
    Route("GET", "/cache", Api.cache, questions.Scoped, models.Cache, "figures"),
    Route("GET", "/calls", Api.calls, questions.Calls, models.CallPage, "calls", Need.CALLS),
    Route("GET", "/calls/{id}", Api.call, questions.AboutCall, models.Call, "calls", Need.CALLS),
    Route(
        "GET",
        "/conversations/{session}",
        Api.conversation,
        questions.AboutConversation,
        models.Conversation,
        "calls",
        Need.CALLS,
    ),
    Route("POST", "/feedback", Api.feedback, models.FeedbackGiven, models.FeedbackAnswer, "calls", Need.CHANGES),
    Route("GET", "/limits", Api.limits, questions.Nothing, models.Limits, "limits"),
    Route("GET", "/budgets", Api.budgets, questions.Nothing, models.Budgets, "limits"),
    Route("POST", "/budgets", Api.set_budget, models.BudgetChange, models.Budgets, "limits", Need.CHANGES),
    Route("GET", "/choices", Api.choices, questions.Nothing, models.Choices, "page", Need.CALLS),
    Route("POST", "/what-if/decision", Api.decision, models.DecisionQuestion, models.Decision, "what if"),
    Route("GET", "/what-if/replay", Api.replay, questions.ReplayOf, models.Replay, "what if"),
)
