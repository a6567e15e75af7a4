"""What could be changed beside the model, and what that would have saved.

Each lever is tried alone, on the models that were really used, so the values overlap and must not be added up. None is
kind: what cannot be told from the records (whether somebody waited for an answer, whether a summary would have done)
is taken to speak against the lever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tierwise.core.calls import CallKind, ImportedSession
from tierwise.core.tasks import Needs
from tierwise.replay.asked import Asked
from tierwise.replay.cache import TTL_1H_MS, Held
from tierwise.replay.pricing import Prompt, RateBook, terms
from tierwise.replay.values import Lever, LeverValue
from tierwise.replay.world import ReplayWorld

__all__ = ["levers"]

_HARD_EFFORT = frozenset({"high", "xhigh", "max"})


def levers(session: ImportedSession, world: ReplayWorld) -> Mapping[Lever, LeverValue]:
    """What each lever would have saved in one session; one that touches nothing is left out."""
    found: dict[Lever, LeverValue] = {}

    def add(lever: Lever, saved: int, calls: int = 1) -> None:
        found[lever] = found.get(lever, LeverValue()) + LeverValue(saved, calls)

    conversations: dict[str | int, list[_Step]] = {}
    for number, one in enumerate(world.asked(session)):
        if isinstance(one, Asked) and one.call.usage.prompt_tokens:
            name = number if one.conversation is None else one.conversation
            conversations.setdefault(name, []).append(_Step(one))
    for steps in conversations.values():
        for lever, for_an_hour in ((Lever.CACHE_1H, True), (Lever.CACHE_5M, False)):
            saved, calls = _other_ttl(steps, for_an_hour=for_an_hour)
            if calls:
                add(lever, saved, calls)
        for saved in _batch(steps, world.rates):
            add(Lever.BATCH, saved)
        for saved in _effort(steps, world):
            add(Lever.EFFORT, saved)
        for saved, calls in _over_band(steps, world):
            add(Lever.PRICE_BAND, saved, calls)
        for saved in _cold_resumes(steps, world):
            add(Lever.COLD_RESUME, saved)
    return found


class _Step:
    """One call of a conversation, with what it cost."""

    __slots__ = ("ask", "call", "model", "nanousd", "rates")

    def __init__(self, asked: Asked) -> None:
        self.call = asked.call
        self.ask = asked.ask
        self.model = asked.model
        self.rates = asked.rates
        self.nanousd = asked.now_nanousd

    def cost(self, prompt: Prompt, output: int | None = None) -> int:
        """What it would cost with another prompt, or another answer."""
        said = self.ask.output if output is None else output
        return self.rates.nanousd(prompt, said, self.call.usage.web_searches)


# ------------------------------------------------------------------ how long the cache lives


def _other_ttl(steps: Iterable[_Step], *, for_an_hour: bool) -> tuple[int, int]:
    """What is saved if all that was marked for five minutes were marked for an hour, or the other way round.

    What is read more, or less, than in reality is what pauses made expire there and not here, or the other way round;
    a beginning that others wrote is read as it was.
    """
    held: dict[str, Held] = {}
    saved = calls = 0
    for step in steps:
        ask, told = step.ask, step.ask.sent
        before = held.get(step.model.id)
        warm = 0 if before is None else before.warm_at(ask.at_ms)
        read = told.read
        if warm > ask.warm:
            read = max(read, min(warm, ask.cached) if ask.intact is None else 0)
        elif warm < ask.warm:
            read = min(read, max(warm, ask.beginning))
        written = ask.cached - read
        prompt = Prompt(told.fresh, read, 0 if for_an_hour else written, written if for_an_hour else 0)
        if (told.write_5m if for_an_hour else told.write_1h) or read != told.read:
            calls += 1
            saved += step.nanousd - step.cost(prompt)
        if ask.cached:
            held[step.model.id] = Held(ask.cached if for_an_hour else 0, ask.cached, ask.at_ms)
    return saved, calls


# ------------------------------------------------------------------ what can wait


def _batch(steps: list[_Step], rates: RateBook) -> Iterable[int]:
    """Half price for what nobody waits for, as far as a record can tell: one processing request alone, without tools.

    A batch may find nothing in the cache: all of its prompt is taken to be fresh.
    """
    if len(steps) != 1:
        return
    (step,) = steps
    call, found = step.call, step.call.classification
    deferrable = (
        call.kind in (CallKind.MAIN, CallKind.SIDE)
        and not call.has_tools
        and not call.in_tool_loop
        and not call.conditions.batch
        and not call.conditions.fast
        and not call.failed
        and found is not None
        and found.needs is Needs.PROCESSING
        and not found.abstained
    )
    if not deferrable:
        return
    batch = rates.rates(step.model, call.at_ms, replace(terms(call), batch=True))
    if batch is not None:
        yield step.nanousd - batch.nanousd(Prompt(step.ask.prompt), step.ask.output, call.usage.web_searches)


def _effort(steps: Iterable[_Step], world: ReplayWorld) -> Iterable[int]:
    """Part of the thinking, where work is processing and was asked for with high effort."""
    for step in steps:
        call, found = step.call, step.call.classification
        thought = min(call.usage.thinking_tokens, step.ask.output)
        if thought and call.effort in _HARD_EFFORT and found is not None and found.needs is Needs.PROCESSING:
            spared = int(thought * world.assumptions.thinking_spared)
            yield step.nanousd - step.cost(step.ask.sent, step.ask.output - spared)


# ------------------------------------------------------------------ compacting earlier


def _over_band(steps: list[_Step], world: ReplayWorld) -> Iterable[tuple[int, int]]:
    """Runs of calls whose prompts are just over a price band: compacted before the first of them, they are not.

    The compaction is paid for: it reads the prompt as it was before and writes a summary; then the beginning and the
    summary are written. After it, each prompt is taken to be as long as the limit allows: no shorter.
    """
    run: list[_Step] = []
    limit = 0
    for step in steps:
        over = max((band for band in step.rates.band_limits if step.ask.prompt > band), default=0)
        if over and step.ask.prompt <= over * (1 + world.assumptions.over_band):
            if run and (step.model.id != run[0].model.id or over != limit):
                yield from _compacted(run, limit, world)
                run = []
            run.append(step)
            limit = over
        elif run:
            yield from _compacted(run, limit, world)
            run = []
    if run:
        yield from _compacted(run, limit, world)


def _compacted(run: list[_Step], limit: int, world: ReplayWorld) -> Iterable[tuple[int, int]]:
    spent = sum(step.nanousd for step in run)
    below = sum(step.cost(_shortened(step.ask.sent, limit)) for step in run)
    saved = spent - below - _compaction(run[0], limit, world)
    if saved > 0:
        yield saved, len(run)


def _shortened(prompt: Prompt, limit: int) -> Prompt:
    """No longer than `limit`; what is read goes first, so that nothing dear is taken to be spared."""
    over = max(0, sum(prompt) - limit)
    kept = []
    for tokens in (prompt.read, prompt.fresh, prompt.write_5m, prompt.write_1h):
        less = min(over, tokens)
        over -= less
        kept.append(tokens - less)
    read, fresh, write_5m, write_1h = kept
    return Prompt(fresh, read, write_5m, write_1h)


def _compaction(step: _Step, prompt: int, world: ReplayWorld) -> int:
    """What it costs to have a warm prompt summarized, and to write the beginning and the summary then."""
    assumed = world.assumptions
    for_an_hour = 2 * step.ask.hour > step.ask.cached
    written = assumed.beginning_tokens + assumed.summary_tokens
    after = Prompt(0, 0, 0 if for_an_hour else written, written if for_an_hour else 0)
    return step.rates.nanousd(Prompt(0, prompt), assumed.summary_tokens) + step.rates.nanousd(after, 0)


def _cold_resumes(steps: list[_Step], world: ReplayWorld) -> Iterable[int]:
    """Conversations that went on after a pause longer than any cache lives: had they been compacted before it, only the
    beginning and a summary would have been written again."""
    before: _Step | None = None
    for step in steps:
        ask = step.ask
        if before is not None and before.model.id == step.model.id and ask.intact is None and not step.call.compacts:
            pause = ask.at_ms - before.ask.at_ms
            again = min(ask.cached - ask.sent.read, before.ask.cached)  # what was written before, and is now again
            if pause >= TTL_1H_MS and again > 0:
                unwritten = _unwritten(ask.sent, again)
                saved = step.nanousd - step.cost(unwritten) - _compaction(before, before.ask.prompt, world)
                if saved > 0:
                    yield saved
        before = step


def _unwritten(prompt: Prompt, tokens: int) -> Prompt:
    less = min(tokens, prompt.write_1h)
    return Prompt(
        prompt.fresh, prompt.read, prompt.write_5m - min(tokens - less, prompt.write_5m), prompt.write_1h - less
    )
