"""Runs an analysis: sessions from importers, each looked at once, added up.

A session that has not changed, under the same prices, policies and program, is taken from the store beside the ledger:
its calls are not even read. The others are replayed, here where they are few and in processes of their own where they
are many. Sessions are added up in the order in which importers find them, whoever computed them: the result does not
depend on how many processes there were.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from functools import cached_property, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tierwise.analysis import findings as f
from tierwise.analysis.advise import advised
from tierwise.analysis.aggregate import Summing, Totals
from tierwise.analysis.asks import AskClassifier
from tierwise.analysis.learned import Learned
from tierwise.analysis.session import FORMAT, Lens, Scope, SessionFindings, look_at
from tierwise.core.calls import ImportedSession
from tierwise.core.catalog import Model
from tierwise.core.settings import Settings
from tierwise.core.tasks import TaskType
from tierwise.importers import claude_code, ledger_calls
from tierwise.importers.base import FoundSession, Importer, ImportRun, Progress, Skipped
from tierwise.importers.scanning import interrupts_wait, serve_parent
from tierwise.ledger.readings import Readings
from tierwise.prices import PriceBook
from tierwise.prices.book import priced_names
from tierwise.replay import (
    AllOn,
    OpusPlan,
    RateBook,
    Replayer,
    ReplayPolicy,
    ReplayWorld,
    Routed,
    SubagentsOn,
    known_models,
    levers,
    shipped_assumptions,
)

if TYPE_CHECKING:
    from tierwise.classifier import Classifier

__all__ = [
    "Plan",
    "Watch",
    "all_models",
    "analyse",
    "fixed_tiers",
    "looked_at",
    "own_levers",
    "remote_tiers",
    "ways_of_routing",
]

_HERE_CALLS = 6_000  # replayed in this process before others are started: that takes as long
_BATCH_CALLS = 1_000
_AT_ONCE = 500  # sessions that are looked up together
_AHEAD = 2  # batches that each of the others has or gets next
_MOST_WAYS = 3
_BATCH_RESULTS = _MOST_WAITING = 500


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What figures depend on beside the calls. Goes to other processes as it is."""

    settings: Settings
    ways: tuple[ReplayPolicy, ...]  # of routing; the best of them is what is shown
    others: tuple[ReplayPolicy, ...] = ()  # that it is compared with
    priced_on: date | None = None
    with_local: bool = False  # whether models on this machine may answer
    with_levers: bool = True  # whether what could be changed beside the model is priced too
    scope: Scope = field(default_factory=Scope)
    learned: Learned = field(default_factory=Learned)  # from the user's own ledger

    @cached_property
    def lens(self) -> Lens:
        """What sessions are looked at with."""
        settings = self.settings
        prices = PriceBook(settings.prices, settings.providers)
        models = all_models(settings)
        unavailable = {}
        if not self.with_local:
            for policy in (*self.ways, *self.others):
                of = policy.settings or settings
                local = {name for name, provider in of.providers.items() if provider.local}
                unavailable.update(
                    {model.id: "on this machine" for model in of.catalog.models if model.provider in local}
                )
        world = ReplayWorld(
            prices=prices,
            models=models,
            priced_on=self.priced_on,
            assumptions=replace(shipped_assumptions(), escalation=self.learned.escalation),
            turns=self.learned.turns,
            harder=self.learned.harder,
            unavailable=unavailable,
        )
        return Lens(
            rates=RateBook(prices, models),
            ways=tuple(Replayer(policy, world) for policy in self.ways),
            others=tuple(Replayer(policy, world) for policy in self.others),
            below=lambda session: world.deciding(settings).below(world.asked(session)),
            levers=(lambda session: levers(session, world)) if self.with_levers else lambda _: {},
            repriced=self.priced_on is not None,
        )

    @cached_property
    def digest(self) -> str:
        """Changes whenever a session's figures might."""
        from genai_prices import __version__ as prices_version  # noqa: PLC0415  its data come with it

        hashed = hashlib.blake2b(digest_size=16)
        policies = [len(self.ways), *map(_told, (*self.ways, *self.others))]
        for part in (
            FORMAT,
            prices_version,
            _program(),
            self.settings,
            policies,
            self.priced_on,
            self.with_local,
            self.with_levers,
            self.learned,
        ):
            hashed.update(repr(part).encode("utf-8", "surrogatepass") + b"\0")
        return hashed.hexdigest()

    def __getstate__(self) -> dict[str, object]:
        """Without what is made anew elsewhere."""
        return {name: value for name, value in self.__dict__.items() if name not in ("lens", "digest")}


def _told(policy: ReplayPolicy) -> str:
    """All that a policy is, the same in every process: a set has no order."""
    if isinstance(policy, Routed) and policy.requests_for is not None:
        return f"{sorted(policy.requests_for)} {replace(policy, requests_for=None)!r}"
    return repr(policy)


def remote_tiers(settings: Settings) -> tuple[str, ...]:
    """The tiers that are not on this machine alone, cheapest first."""
    return tuple(
        spec.tier.name
        for spec in settings.catalog
        if not all(settings.providers[model.provider].local for model in spec.models)
    )


def ways_of_routing(settings: Settings) -> tuple[ReplayPolicy, ...]:
    """Route everything, or only what asks for a dear model: work that was given to a cheap one then stays there."""
    levels = {spec.tier.name: spec.tier.level for spec in settings.catalog}
    known = all_models(settings)
    ways: list[ReplayPolicy] = [Routed(settings=settings)]
    for name in remote_tiers(settings)[1:][-_MOST_WAYS:]:
        dear = frozenset(model.id for model in known if _level(model.id, settings) >= levels[name])
        ways.append(Routed(settings=settings, name=f"routed-from-{name}", requests_for=dear))
    return tuple(ways)


_CLAUDE = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d+))?$")
_NEWER_TOKENIZER = (4, 7)  # from then on the same text is about 30 % more tokens


def all_models(settings: Settings) -> tuple[Model, ...]:
    """The models that the configuration describes, and Claude's others: people used them, whatever is offered now.

    Of those, only their name, price and tokenizer matter: nothing is ever sent there.
    """
    found = {model.id: model for model in known_models(settings)}
    if "anthropic" in settings.providers:
        for name in priced_names("anthropic"):
            version = _CLAUDE.match(name)
            told = (0, 0) if version is None else (int(version[1]), int(version[2] or 0))
            factor = Decimal("1.3") if told >= _NEWER_TOKENIZER else Decimal(1)
            for spelled in (name, name.removesuffix("-0")):
                model = Model(
                    id=spelled,
                    provider="anthropic",
                    context_tokens=200_000,
                    max_output_tokens=32_000,
                    tokenizer_factor=factor,
                )
                found.setdefault(spelled, model)
    return tuple(found.values())


def _level(model_id: str, settings: Settings) -> int:
    """How high a model stands; one that is in no tier stands with that whose name it bears, or above all."""
    for spec in settings.catalog:
        if any(model.id == model_id for model in spec.models):
            return spec.tier.level
    named = [spec.tier.level for spec in settings.catalog if spec.tier.name in model_id]
    return named[0] if named else settings.catalog.top.tier.level + 1


def own_levers(settings: Settings) -> tuple[ReplayPolicy, ...]:
    """Claude Code's own levers, as policies: opusplan, and one cheaper model for all subagents."""
    names = remote_tiers(settings)
    plans = (OpusPlan(settings=settings),) if {"opus", "sonnet"} <= set(names) else ()
    return (*plans, *(SubagentsOn(settings=settings, tier=name) for name in names if name in ("haiku", "sonnet")))


def fixed_tiers(settings: Settings) -> tuple[ReplayPolicy, ...]:
    """Everything on one tier, for each that is not local."""
    return tuple(AllOn(settings=settings, tier=name) for name in remote_tiers(settings))


def _program() -> tuple[object, ...]:
    """Tells one state of the program from another, also where its version is the same."""
    folder = Path(__file__).parents[1]
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".toml"))
    return tuple((str(path), info.st_size, info.st_mtime_ns) for path, info in files)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who wants to know how far it is."""

    reading: Callable[[Progress], None] = lambda _: None
    sessions: Callable[[int], None] = lambda _: None  # so many are done


def analyse(
    plan: Plan,
    sources: Sequence[tuple[Importer, Sequence[Path]]],
    classifier: Classifier,
    taxonomy: Mapping[str, TaskType],
    *,
    classifier_id: str = "",
    readings: Readings | None = None,
    processes: int = 1,
    now_ms: int | None = None,
    watch: Watch = Watch(),
) -> Totals:
    """Everything that these sources tell. `readings` remembers what was read and computed; None remembers nothing."""
    asks = AskClassifier(classifier, plan.lens.rates.nanousd)
    run = ImportRun(
        classify=asks,
        classified_all=asks.rest,
        classifier_id=classifier_id,
        task_types=taxonomy,
        readings=readings,
        skipped=Skipped(),
        progress=watch.reading,
        processes=processes,
        now_ms=now_ms,
    )
    summing = Summing(plan.ways)
    told: set[str] = set()
    # The ledger last: it has what it was told of the same sessions.
    for importer, roots in sorted(sources, key=lambda source: source[0].name == ledger_calls.NAME):
        sessions = _each_once(importer.sessions(roots, run), importer.name, told)
        for session in looked_at(sessions, plan, readings, processes):
            summing.take(session)
            watch.sessions(summing.sessions)
    totals = summing.totals(
        types=taxonomy,
        skipped=_skipped(run.skipped),
        roots={importer.name: [str(root) for root in roots] for importer, roots in sources},
    )
    learned_from = f.LearnedFrom(
        conversations=plan.learned.conversations,
        turns=plan.learned.followed_turns,
        answers=plan.learned.answers,
    )
    found = replace(totals.findings, counterfactual=replace(totals.findings.counterfactual, learned_from=learned_from))
    return replace(totals, findings=advised(found, plan.settings))


def _each_once(sessions: Iterable[FoundSession], source: str, told: set[str]) -> Iterator[FoundSession]:
    """Sessions of Claude Code once, where both its transcripts and the ledger are read: transcripts tell more."""
    for session in sessions:
        if source == claude_code.NAME:
            told.add(session.id)
        if source != ledger_calls.NAME or session.id not in told:
            yield session


def looked_at(
    sessions: Iterable[FoundSession],
    plan: Plan,
    readings: Readings | None = None,
    processes: int = 1,
    *,
    here_calls: int = _HERE_CALLS,
) -> Iterator[SessionFindings]:
    """The figures of each session, in their order; after `here_calls` other processes help."""
    line = _Line(plan, readings, processes, here_calls)
    try:
        coming = iter(sessions)
        while some := list(islice(coming, _AT_ONCE)):
            yield from line.take(some)
        yield from line.rest()
    finally:
        line.close()


def _skipped(skipped: Skipped) -> f.Skipped:
    def kinds(counted: Mapping[str, int]) -> tuple[f.UnknownKind, ...]:
        ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        return tuple(f.UnknownKind(kind=name, rows=count) for name, count in ordered)

    return f.Skipped(
        lines=skipped.line_count,
        unknown_kinds=kinds(skipped.unknown_kinds),
        unknown_fields=kinds(skipped.unknown_fields),
        examples=tuple(f.SkippedRow(file=line.file, line=line.line, why=line.why) for line in skipped.lines),
    )


# ------------------------------------------------------------------ one after the other, or side by side


_Read: TypeAlias = Callable[[], ImportedSession]


class _Batch:
    """Sessions that are looked at together: by another process, or at once where there is no pool."""

    def __init__(self, sessions: Sequence[_Read], plan: Plan, pool: ProcessPoolExecutor | None) -> None:
        self._sessions = sessions
        self._plan = plan
        self._results = _looked_at(sessions, plan) if pool is None else None
        self._future: Future[list[bytes]] | None = None
        if pool is not None:
            with suppress(BrokenProcessPool), interrupts_wait():
                self._future = pool.submit(_work, sessions)

    @property
    def done(self) -> bool:
        return self._future is None or self._future.done()

    def result(self, place: int) -> bytes:
        """What came of one of them; waits for it."""
        if self._results is None:
            with suppress(BrokenProcessPool):  # it was killed, or there can be none: then it is done here
                self._results = None if self._future is None else self._future.result()
            if self._results is None:
                self._results = _looked_at(self._sessions, self._plan)
            self._sessions = ()
        return self._results[place]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A session in line: its figures are known, or come out of a batch."""

    known: SessionFindings | None
    digest: str = ""  # "": not to be kept
    batch: _Batch | None = None
    place: int = 0


class _Line:
    """Sessions in order, whoever looks at them."""

    def __init__(self, plan: Plan, readings: Readings | None, processes: int, here_calls: int) -> None:
        self._plan, self._readings, self._processes, self._most_here = plan, readings, processes, here_calls
        self._pool: ProcessPoolExecutor | None = None
        self._kept: list[tuple[str, str, bytes]] = []
        self._waiting: deque[_Waiting] = deque()
        self._batch: list[tuple[_Read, str]] = []
        self._batch_calls = self._here_calls = 0
        self._elsewhere: list[_Batch] = []  # that other processes have not done yet, as far as is known

    def take(self, sessions: Sequence[FoundSession]) -> Iterator[SessionFindings]:
        """Some more; and the figures of those in front that are known by now."""
        scope = self._plan.scope
        wanted = [
            (found, "" if scope.may_cut(found.first_ms, found.last_ms) else found.digest)
            for found in sessions
            if found.calls and not scope.misses(found.first_ms, found.last_ms)
        ]
        named = [(found, f"{digest}:{self._plan.digest}" if digest else "") for found, digest in wanted]
        known: dict[tuple[str, str], bytes] = {}
        if self._readings is not None:
            known = self._readings.results([(found.id, digest) for found, digest in named if digest])
        for found, digest in named:
            data = known.pop((found.id, digest), None)
            self._take(found, digest, None if data is None else SessionFindings.from_bytes(data))
            yield from self.ready()

    def _take(self, found: FoundSession, digest: str, known: SessionFindings | None) -> None:
        """One session. Its figures are remembered, computed now, or handed to another process."""
        if known is not None:
            self._hand_over()
            self._waiting.append(_Waiting(known))
        elif self._pool is None and (self._processes < 2 or self._here_calls < self._most_here):
            self._here_calls += found.calls
            session = look_at(found.read(), self._plan.lens, self._plan.scope)
            self._keep(found.id, digest, session.to_bytes())
            self._waiting.append(_Waiting(session))
        else:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    self._processes - 1, get_context("spawn"), initializer=_begin, initargs=(self._plan,)
                )
            read = partial(_itself, found.read()) if found.packed is None else found.packed()
            self._batch.append((read, digest))
            self._batch_calls += found.calls
            if self._batch_calls >= _BATCH_CALLS:
                self._hand_over()

    def ready(self, *, most: int = _MOST_WAITING) -> Iterator[SessionFindings]:
        """Those in front that are done; waits while more than `most` are in line."""
        while self._waiting:
            first = self._waiting[0]
            if first.batch is not None and not first.batch.done and len(self._waiting) <= most:
                return
            self._waiting.popleft()
            found = first.known
            if first.batch is not None:
                data = first.batch.result(first.place)
                found = SessionFindings.from_bytes(data)
                if found is not None:
                    self._keep(found.id, first.digest, data)
            if found is not None:
                yield found

    def rest(self) -> Iterator[SessionFindings]:
        """All that are left."""
        self._hand_over()
        yield from self.ready(most=0)
        self._write()

    def close(self) -> None:
        """Ends the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _hand_over(self) -> None:
        if self._pool is not None and self._batch:
            # Where the others have enough to do, this process helps: it takes no memory that it has not already.
            self._elsewhere = [batch for batch in self._elsewhere if not batch.done]
            help_out = len(self._elsewhere) >= _AHEAD * (self._processes - 1)
            batch = _Batch([read for read, _ in self._batch], self._plan, None if help_out else self._pool)
            self._elsewhere.append(batch)
            self._waiting.extend(_Waiting(None, digest, batch, place) for place, (_, digest) in enumerate(self._batch))
            self._batch, self._batch_calls = [], 0

    def _keep(self, session_id: str, digest: str, data: bytes) -> None:
        if digest:
            self._kept.append((session_id, digest, data))
            if len(self._kept) >= _BATCH_RESULTS:
                self._write()

    def _write(self) -> None:
        if self._readings is not None and self._kept:
            self._readings.put_results(self._kept)
        self._kept.clear()


_plan: Plan | None = None  # of a process that was started for it


def _begin(plan: Plan) -> None:
    global _plan  # noqa: PLW0603  what a process of its own is for
    serve_parent()
    _plan = plan


def _work(sessions: Sequence[_Read]) -> list[bytes]:
    assert _plan is not None  # noqa: S101  `_begin` ran
    return _looked_at(sessions, _plan)


def _looked_at(sessions: Sequence[_Read], plan: Plan) -> list[bytes]:
    return [look_at(read(), plan.lens, plan.scope).to_bytes() for read in sessions]


def _itself(session: ImportedSession) -> ImportedSession:
    return session
