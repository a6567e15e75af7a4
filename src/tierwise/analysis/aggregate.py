"""Sessions added up: tables of where the money went, the range of what routing would have cost, what to change.

**The range.** Each session is replayed under favourable, expected and unfavourable assumptions; that is one half of the
uncertainty. The other is which sessions there happened to be: sessions are redrawn, with replacement, as many as there
are, and the ratio of what they would have cost to what they did cost is taken, a thousand times from a fixed seed. The
lower end is the 5th percentile of that ratio under favourable assumptions, the upper end the 95th under unfavourable
ones, each times what was really spent. Both halves are also shown apart, so that one sees which of them matters.

A policy that is expected to cost more than was spent is not recommended, and what is expected is then what was spent:
nobody has to route. Its own figures stay beside that.
"""

from __future__ import annotations

import heapq
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from tierwise.analysis import findings as f
from tierwise.analysis.session import COLUMNS, UNKNOWN_TYPE, Cell, SessionFindings, Sums, add
from tierwise.core.money import EXACT, amount, nanousd_to_usd, usd_to_nanousd
from tierwise.core.tasks import TaskType
from tierwise.replay.policies import ReplayPolicy, Routed
from tierwise.replay.pricing import canonical_id
from tierwise.replay.values import Assumption, Lever, Scenario

__all__ = ["RESAMPLES", "Summing", "Totals", "percent"]

RESAMPLES = 1_000
_SEED = 20_261_128
_LISTED = 100  # sessions, and differences
_MICRO_NANOUSD = 1_000
_NANOUSD = COLUMNS.index("nanousd")

_ASSUMPTIONS = {
    Assumption.CACHE: "prompts written anew where the other model had cached nothing",
    Assumption.ESCALATION: "answers rejected, tried again, and given higher up",
    Assumption.TOKENIZER: "the same text counted by another model's tokenizer",
    Assumption.OUTPUT_LENGTH: "answers of another length",
    Assumption.TURNS_TO_COME: "moves decided without knowing how long the conversation goes on",
}
_LEVERS = {
    Lever.CACHE_1H: (
        "cache prompts for an hour where pauses are long",
        'set "ttl": "1h" in cache_control, in calls of your own',
    ),
    Lever.CACHE_5M: (
        "cache prompts for five minutes where pauses are short",
        'set "ttl": "5m" in cache_control, in calls of your own',
    ),
    Lever.BATCH: (
        "send what can wait through Message Batches",
        "use POST /v1/messages/batches for scheduled runs",
    ),
    Lever.EFFORT: ("ask for less thinking where the work is processing", "claude --effort low"),
    Lever.PRICE_BAND: ("compact before a prompt grows into a dearer price band", "/compact earlier, in Claude Code"),
    Lever.COLD_RESUME: ("compact before a pause that outlives the cache", "/compact before you leave, in Claude Code"),
}


@dataclass(frozen=True, slots=True)
class Totals:
    """Sessions added up: what was found, and the cells that the tables came from.

    A cell holds the sums of `session.COLUMNS`, and what it is expected to cost with routing.
    """

    findings: f.Findings
    cells: Mapping[Cell, Sequence[int]]
    ways: tuple[f.WayRow, ...] = ()


def percent(part: Decimal, whole: Decimal) -> Decimal:
    """`part` of `whole`, in percent to a tenth; 0 where there is no whole."""
    return EXACT.divide(100 * part, whole).quantize(Decimal("0.1"), context=EXACT) if whole else Decimal("0.0")


class Summing:
    """Takes sessions in, one at a time; what is kept of each is a few numbers.

    Args:
        ways: the ways of routing that sessions were replayed under, in the order of their figures.
    """

    def __init__(self, ways: Sequence[ReplayPolicy]) -> None:
        self.sessions = 0
        self._ways = tuple(ways)
        self._cells: dict[Cell, Sums] = {}
        self._agents: dict[str, Sums] = {}
        self._kinds: dict[str, Sums] = {}
        self._phases: dict[str, Sums] = {}
        self._classes: Counter[str] = Counter()
        self._levers: dict[str, list[int]] = {}
        self._contributions: list[Counter[str]] = [Counter() for _ in ways]
        self._moved = [0 for _ in ways]
        self._below = [0 for _ in ways]
        self._policies: dict[str, list[int]] = {}
        self._unpriced: set[str] = set()
        # Of each session: actual; then, of each way, what each scenario would have cost. And the sums of them all.
        self._draws: list[tuple[int, ...]] = []
        self._drawn: Sums = [0] * (1 + _SCENARIOS * len(self._ways))
        self._sources: Counter[str] = Counter()
        self._first_ms: int | None = None
        self._last_ms: int | None = None
        self._dearest: list[tuple[int, str, str, int, Sums]] = []  # cost, session, project, first call, sums
        self._own: list[tuple[str, int, int]] = []  # session, its program's figure, ours
        self._guessed = 0

    def take(self, session: SessionFindings) -> None:
        """One session. One without calls that are counted counts nowhere."""
        if not session.calls:
            return
        self.sessions += 1
        self._sources[session.source] += 1
        self._first_ms = session.first_ms if self._first_ms is None else min(self._first_ms, session.first_ms)
        self._last_ms = session.last_ms if self._last_ms is None else max(self._last_ms, session.last_ms)
        for cell, sums in session.cells.items():
            add(self._cells, cell, sums)
        for into, rows in (
            (self._agents, session.agents),
            (self._kinds, session.kinds),
            (self._phases, session.phases),
        ):
            for name, sums in rows.items():
                add(into, name, sums)
        _more(self._classes, session.token_classes)
        self._unpriced.update(session.unpriced_models)
        for place, way in enumerate(session.ways):
            _more(self._contributions[place], way.contributions)
            self._moved[place] += way.moved_calls
            self._below[place] += way.below_calls
        for name, figures in session.levers.items():
            _plus(self._levers, name, figures)
        for name, figures in session.policies.items():
            _plus(self._policies, name, figures)
        spent = session.nanousd
        draw = [spent]
        for way in session.ways:
            draw += (way.low, way.expected, way.high)
        self._draws.append(tuple(draw))
        for column, usd in enumerate(draw):
            self._drawn[column] += usd
        self._list(session, spent)
        if session.own_usd is not None:
            own = amount(session.own_usd)
            if own is None or session.own_guessed:
                self._guessed += 1
            else:
                self._own.append((session.id, usd_to_nanousd(own), session.whole_nanousd))

    def _list(self, session: SessionFindings, spent: int) -> None:
        if len(self._dearest) == _LISTED and (spent, session.id) <= self._dearest[0][:2]:
            return
        sums: dict[str, Sums] = {}
        by_project: Counter[str] = Counter()
        for (_, project, _, _), row in session.cells.items():
            add(sums, "", row)
            by_project[project] += row[_NANOUSD]
        project = max(by_project, key=lambda name: (by_project[name], name))
        push = heapq.heappush if len(self._dearest) < _LISTED else heapq.heappushpop
        push(self._dearest, (spent, session.id, project, session.first_ms, sums[""]))

    def totals(
        self, *, types: Mapping[str, TaskType], skipped: f.Skipped, roots: Mapping[str, Sequence[str]]
    ) -> Totals:
        """Everything that was taken in. `types` are known by name; `roots` says where each importer looked."""
        best = self._best()
        cells = {cell: (*sums[: len(COLUMNS)], sums[len(COLUMNS) + best]) for cell, sums in self._cells.items()}
        by_model: dict[str, Sums] = {}
        by_type: dict[str, Sums] = {}
        by_project: dict[str, Sums] = {}
        by_day: dict[str, Sums] = {}
        every: Sums = [0] * (len(COLUMNS) + 1)
        for (day, project, model, task_type), sums in cells.items():
            for into, name in ((by_day, day), (by_project, project), (by_model, model), (by_type, task_type)):
                add(into, name, sums)
            every = [a + b for a, b in zip(every, sums, strict=True)]
        agents, kinds, phases = (
            {name: [*sums[: len(COLUMNS)], sums[len(COLUMNS) + best]] for name, sums in rows.items()}
            for rows in (self._agents, self._kinds, self._phases)
        )
        families = {name: types[name].family if name in types else UNKNOWN_TYPE for name in by_type}
        calls, unpriced, nanousd = every[:3]
        actual = nanousd_to_usd(nanousd)
        findings = f.Findings(
            schema_version=f.SCHEMA_VERSION,
            period=f.Period(
                from_=None if self._first_ms is None else _moment(self._first_ms),
                to=None if self._last_ms is None else _moment(self._last_ms),
            ),
            sessions=self.sessions,
            calls=calls,
            unpriced_calls=unpriced,
            unpriced_models=tuple(sorted(self._unpriced)),
            actual_usd=actual,
            reconciled=self._reconciled(),
            by_model=tuple(f.ModelRow(model=name, **_spent(sums)) for name, sums in _dearest(by_model)),
            by_task_type=tuple(
                f.TypeRow(task_type=name, family=families[name], **_spent(sums)) for name, sums in _dearest(by_type)
            ),
            by_project=tuple(f.ProjectRow(project=name, **_spent(sums)) for name, sums in _dearest(by_project)),
            by_day=tuple(f.DayRow(day=name, **_spent(sums)) for name, sums in sorted(by_day.items())),
            by_agent=tuple(f.AgentRow(agent=name, **_spent(sums)) for name, sums in _dearest(agents)),
            by_kind=tuple(f.KindRow(kind=name, **_spent(sums)) for name, sums in _dearest(kinds)),
            by_phase=tuple(f.PhaseRow(phase=name, **_spent(sums)) for name, sums in _dearest(phases)),
            by_session=tuple(
                f.SessionRow(
                    session=name,
                    project=project,
                    first=_moment(first),
                    **_spent([*sums[: len(COLUMNS)], sums[len(COLUMNS) + best]]),
                )
                for _, name, project, first, sums in sorted(self._dearest, key=lambda entry: (-entry[0], entry[1]))
            ),
            by_token_class=tuple(
                f.TokenClassRow(token_class=name, actual_usd=nanousd_to_usd(of_class))
                for name, of_class in sorted(self._classes.items(), key=lambda item: (-item[1], item[0]))
            ),
            counterfactual=self._counterfactual(best, calls, [name for name, _ in _dearest(by_model)]),
            policies=self._compared(best, nanousd),
            levers=self._levers_found(),
            changes=(),
            skipped=skipped,
            sources=tuple(
                f.Source(importer=name, roots=tuple(where), sessions=self._sources[name])
                for name, where in roots.items()
            ),
        )
        return Totals(findings, cells, tuple(self._way(place, nanousd) for place in range(len(self._ways))))

    # ------------------------------------------------------------------ its parts

    def _best(self) -> int:
        """The way of routing that is expected to cost least; of equals, the one that routes most."""
        return min(range(len(self._ways)), key=lambda place: (self._expected(place), place))

    def _expected(self, place: int) -> int:
        return self._drawn[1 + _SCENARIOS * place + _EXPECTED]

    def _way(self, place: int, spent: int) -> f.WayRow:
        low, expected, high = (
            nanousd_to_usd(self._drawn[1 + _SCENARIOS * place + column]) for column in range(_SCENARIOS)
        )
        actual = nanousd_to_usd(spent)
        return f.WayRow(
            policy=self._ways[place].name,
            expected_usd=expected,
            low_usd=low,
            high_usd=high,
            saved_pct=percent(actual - expected, actual),
            moved_calls=self._moved[place],
            below_calls=self._below[place],
        )

    def _compared(self, best: int, spent: int) -> tuple[f.Compared, ...]:
        rows = [(way.name, self._expected(place), 0) for place, way in enumerate(self._ways) if place != best]
        rows += [(name, expected, below) for name, (expected, below) in self._policies.items()]
        return tuple(
            f.Compared(
                policy=name,
                expected_usd=nanousd_to_usd(expected),
                saved_pct=percent(nanousd_to_usd(spent - expected), nanousd_to_usd(spent)),
                below_calls=below,
            )
            for name, expected, below in sorted(rows, key=lambda row: (row[1], row[0]))
        )

    def _levers_found(self) -> tuple[f.LeverRow, ...]:
        rows = [(Lever(name), saved, calls) for name, (saved, calls) in self._levers.items()]
        return tuple(
            f.LeverRow(
                lever=lever.value,
                saves_usd=nanousd_to_usd(saved),
                calls=calls,
                means=_LEVERS[lever][0],
                how=_LEVERS[lever][1],
            )
            for lever, saved, calls in sorted(rows, key=lambda row: (-row[1], row[0]))
        )

    def _reconciled(self) -> f.Reconciled:
        differing = [(name, own, ours) for name, own, ours in self._own if abs(own - ours) >= _MICRO_NANOUSD]
        differing.sort(key=lambda entry: (-abs(entry[1] - entry[2]), entry[0]))
        return f.Reconciled(
            sessions=len(self._own),
            agreeing=len(self._own) - len(differing),
            claude_code_usd=nanousd_to_usd(sum(own for _, own, _ in self._own)),
            ours_usd=nanousd_to_usd(sum(ours for _, _, ours in self._own)),
            not_in_transcript_usd=nanousd_to_usd(sum(max(0, own - ours) for _, own, ours in differing)),
            beyond_claude_code_usd=nanousd_to_usd(sum(max(0, ours - own) for _, own, ours in differing)),
            unknown_model_sessions=self._guessed,
            differences=tuple(
                f.Difference(
                    session=name,
                    claude_code_usd=nanousd_to_usd(own),
                    ours_usd=nanousd_to_usd(ours),
                    not_in_transcript_usd=nanousd_to_usd(own - ours),
                )
                for name, own, ours in differing[:_LISTED]
            ),
        )

    def _counterfactual(self, best: int, calls: int, models: Sequence[str]) -> f.Counterfactual:
        way = self._ways[best]
        first, end = 1 + _SCENARIOS * best, 1 + _SCENARIOS * (best + 1)
        draws = [(draw[0], *draw[first:end]) for draw in self._draws]
        spent, low, expected, high = (self._drawn[0], *self._drawn[first:end])
        drawn = _resampled(draws)
        recommended = expected < spent
        at_worst = max(expected, drawn[Scenario.HIGH][1])
        likely = min(expected, spent)
        routed = way.requests_for if isinstance(way, Routed) else None
        usd = nanousd_to_usd
        return f.Counterfactual(
            policy=way.name,
            requests_for=tuple(name for name in models if routed is None or canonical_id(name) in routed),
            expected_usd=usd(likely),
            low_usd=usd(min(likely, drawn[Scenario.LOW][0])),
            high_usd=usd(min(at_worst, spent) if recommended else spent),
            saved_pct=percent(usd(spent - likely), usd(spent)),
            recommended=recommended,
            policy_expected_usd=usd(expected),
            at_worst_usd=usd(at_worst),
            assumptions=f.Range(low_usd=usd(low), high_usd=usd(high)),
            sampling=f.Range(low_usd=usd(drawn[Scenario.EXPECTED][0]), high_usd=usd(drawn[Scenario.EXPECTED][1])),
            resamples=RESAMPLES,
            contributions=tuple(
                f.Contribution(assumption=name, usd=usd(self._contributions[best][name]), means=means)
                for name, means in _ASSUMPTIONS.items()
                if self._contributions[best][name]
            ),
            left_alone_calls=calls - self._moved[best],
            moved_calls=self._moved[best],
        )


_SCENARIOS = len(Scenario)
_EXPECTED = list(Scenario).index(Scenario.EXPECTED)


def _more(into: Counter[str], figures: Mapping[str, int]) -> None:
    """As `Counter.update`, which takes three times as long for the few figures of a session."""
    for name, figure in figures.items():
        into[name] += figure


def _plus(into: dict[str, list[int]], name: str, figures: Sequence[int]) -> None:
    there = into.setdefault(name, [0] * len(figures))
    for place, figure in enumerate(figures):
        there[place] += figure


def _resampled(draws: Sequence[tuple[int, ...]]) -> dict[Scenario, tuple[int, int]]:
    """The 5th and the 95th percentile of what each scenario would have cost, for what was really spent."""
    import numpy as np  # noqa: PLC0415  80 ms: not for `--help`

    spent = sum(draw[0] for draw in draws)
    if not spent:
        return dict.fromkeys(Scenario, (0, 0))
    # Whole nano-dollars: 64 bits hold nine billion dollars.
    table = np.array(draws, np.int64).T.copy()
    size = len(draws)
    random = np.random.default_rng(_SEED)
    drawn = (np.bincount(random.integers(0, size, size), minlength=size) for _ in range(RESAMPLES))
    sums = [(table @ times).tolist() for times in drawn]
    found = {}
    for place, scenario in enumerate(Scenario, start=1):
        ratios = sorted(((row[place], row[0]) for row in sums if row[0]), key=lambda pair: pair[0] / pair[1])
        low, high = (ratios[round(share * (len(ratios) - 1))] for share in (0.05, 0.95))
        found[scenario] = (spent * low[0] // low[1], spent * high[0] // high[1])
    return found


def _dearest(rows: Mapping[str, Sums]) -> list[tuple[str, Sums]]:
    return sorted(rows.items(), key=lambda item: (-item[1][_NANOUSD], -item[1][0], item[0]))


class _SpentFields(typing.TypedDict):
    calls: int
    unpriced_calls: int
    actual_usd: Decimal
    routed_usd: Decimal
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int


def _spent(sums: Sequence[int]) -> _SpentFields:
    calls, unpriced, nanousd, fresh, output, read, write_5m, write_1h, routed = sums
    return {
        "calls": calls,
        "unpriced_calls": unpriced,
        "actual_usd": nanousd_to_usd(nanousd),
        "routed_usd": nanousd_to_usd(routed),
        "input_tokens": fresh,
        "output_tokens": output,
        "cache_read_tokens": read,
        "cache_write_5m_tokens": write_5m,
        "cache_write_1h_tokens": write_1h,
    }


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
