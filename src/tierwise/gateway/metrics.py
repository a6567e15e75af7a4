"""What `/metrics` tells, in Prometheus' text format. Counted from the records that go into the ledger.

Where several workers serve, each counts its own, and `Figures`, at their supervisor, puts that together. What a worker
that died had counted stays in the sums, as it was last told: a counter that went back would look like a restart.

Counting happens for every call and telling hardly ever. So what is counted lies in plain dictionaries by labels, and
becomes Prometheus' families when somebody asks: its own counters take a lock and two calls for each figure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from tierwise.core.decisions import AttemptRecord, CallRecord
from tierwise.core.json import Json

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["OTHER_TIER", "Figures", "Gauge", "Metrics", "Over", "Sample", "samples_from"]

OTHER_TIER = "other"  # of models that are in no tier
_MOST_OTHERS = 50

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BUCKETS = (*(str(float(bound)) for bound in _SECONDS), "+Inf")
_NANO = 1_000_000_000
_CLASSES = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")


_Values: TypeAlias = Iterable[tuple[tuple[str, ...], float]]  # by labels


class _Times:
    """A histogram: how many took up to which bound, and all of them together."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.total = 0.0

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds


class Over(StrEnum):
    """How one figure is made of those of several workers."""

    SUM = "sum"  # of all there ever were
    NOW = "now"  # the sum of those that serve
    WORST = "worst"  # the least of those that serve

    @property
    def outlasts(self) -> bool:
        """Whether what a worker told counts when that is gone."""
        return self is Over.SUM

    def of(self, one: float, other: float) -> float:
        """Both in one."""
        return min(one, other) if self is Over.WORST else one + other


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure that is asked for when `/metrics` is."""

    name: str
    words: str
    ask: Callable[[], float]
    over: Over = Over.NOW


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of what is told."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float
    over: Over

    def frame(self) -> list[Json]:
        """As it travels between processes."""
        return [self.name, [[*label] for label in self.labels], self.value, self.over.value]


def samples_from(frame: Json) -> list[Sample]:
    """What `Sample.frame` sent, of several; what cannot be read is left out."""
    found = []
    for one in frame if isinstance(frame, list) else []:
        match one:
            case [str(name), list(labels), int() | float() as value, str(over)]:
                pairs = tuple((str(label[0]), str(label[1])) for label in labels if isinstance(label, list))
                found.append(Sample(name, pairs, float(value), Over(over)))
            case _:
                continue
    return found


class Figures:
    """What all workers of a gateway have counted."""

    def __init__(self) -> None:
        self._past: list[Sample] = []
        self._latest: dict[Hashable, list[Sample]] = {}

    def told(self, worker: Hashable, samples: Iterable[Sample]) -> None:
        """What a worker has counted since it began."""
        self._latest[worker] = list(samples)

    def gone(self, worker: Hashable) -> None:
        """A worker has ended."""
        latest = self._latest.pop(worker, [])
        self._past = _together([*self._past, *(sample for sample in latest if sample.over.outlasts)])

    def total(self) -> list[Sample]:
        """All of it."""
        return _together([*self._past, *(sample for latest in self._latest.values() for sample in latest)])


def _together(samples: Iterable[Sample]) -> list[Sample]:
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}
    for sample in samples:
        key = (sample.name, sample.labels)
        known = found.get(key)
        found[key] = sample if known is None else Sample(*key, sample.over.of(known.value, sample.value), sample.over)
    return list(found.values())


class Metrics:
    """Counters and histograms of one process.

    Args:
        gauges: asked when `/metrics` is.
    """

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415  the gateway's extra
        from prometheus_client import Gauge as Shown  # noqa: PLC0415  as above

        self.registry: CollectorRegistry = CollectorRegistry()
        self._gauges = {gauge.name: gauge.over for gauge in gauges}
        for gauge in gauges:
            Shown(gauge.name, gauge.words, registry=self.registry).set_function(gauge.ask)
        self._others: set[str] = set()
        self._calls: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        self._attempts: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._nanousd: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._tokens: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * len(_CLASSES))
        self._unpriced: defaultdict[tuple[str], int] = defaultdict(int)
        self._baseline_nanousd = 0
        self._seconds: defaultdict[tuple[str], _Times] = defaultdict(_Times)
        self._first: defaultdict[tuple[str], _Times] = defaultdict(_Times)
        self.registry.register(self)

    def attempt(self, attempt: AttemptRecord) -> None:
        """Counts an attempt that has ended."""
        tier, model, usage = attempt.tier, self._model(attempt.tier, attempt.model), attempt.usage
        self._attempts[tier, model, attempt.outcome.value] += 1
        if attempt.cost_nanousd is None:
            self._unpriced[model,] += 1
        elif attempt.cost_nanousd:
            self._nanousd[tier, model] += attempt.cost_nanousd
        tokens = self._tokens[tier, model]
        tokens[0] += usage.input_tokens
        tokens[1] += usage.output_tokens
        tokens[2] += usage.cache_read_tokens
        tokens[3] += usage.cache_write_5m_tokens
        tokens[4] += usage.cache_write_1h_tokens
        if attempt.ttft_ms is not None:
            self._first[tier,].note(attempt.ttft_ms / 1000)

    def call(self, call: CallRecord) -> None:
        """Counts a call that has ended."""
        self._calls[call.tier, self._model(call.tier, call.model), call.task_type, call.status.value] += 1
        if call.baseline_nanousd:
            self._baseline_nanousd += call.baseline_nanousd
        if call.latency_ms is not None:
            self._seconds[call.tier,].note(call.latency_ms / 1000)

    def _model(self, tier: str, model: str) -> str:
        """A model's name as a label. Names that no tier has are the clients' words: not every one gets its series."""
        if tier != OTHER_TIER or model in self._others:
            return model
        if len(self._others) >= _MOST_OTHERS:
            return "(other)"
        self._others.add(model)
        return model

    def collect(self) -> Iterator[Metric]:
        """What was counted, as Prometheus' registry asks for it."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily  # noqa: PLC0415

        def counted(name: str, words: str, labels: tuple[str, ...], values: _Values) -> Metric:
            family = CounterMetricFamily(name, words, labels=labels)
            for key, value in values:
                family.add_metric(key, value)
            return family

        def timed(name: str, words: str, values: dict[tuple[str], _Times]) -> Metric:
            family = HistogramMetricFamily(name, words, labels=("tier",))
            for key, times in values.items():
                family.add_metric(key, list(zip(_BUCKETS, accumulate(times.counts), strict=True)), times.total)
            return family

        model = ("tier", "model")
        words = "Calls by how they ended."
        yield counted("tierwise_calls", words, (*model, "task_type", "status"), self._calls.items())
        yield counted("tierwise_attempts", "Attempts by outcome.", (*model, "outcome"), self._attempts.items())
        costs = [(key, nanousd / _NANO) for key, nanousd in self._nanousd.items()]
        yield counted("tierwise_cost_usd", "US$ spent, failed attempts included.", model, costs)
        words = "Attempts that no price is known for."
        yield counted("tierwise_unpriced_attempts", words, ("model",), self._unpriced.items())
        words = "US$ that answered calls would have cost on the baseline."
        yield counted("tierwise_baseline_usd", words, (), [((), self._baseline_nanousd / _NANO)])
        tokens = [
            ((*key, name), count)
            for key, counts in self._tokens.items()
            for name, count in zip(_CLASSES, counts, strict=True)
            if count
        ]
        yield counted("tierwise_tokens", "Tokens by class.", (*model, "class"), tokens)
        yield timed("tierwise_call_seconds", "Time of a call.", self._seconds)
        yield timed("tierwise_first_token_seconds", "Time to first token.", self._first)

    def samples(self) -> list[Sample]:
        """All of it, to be put together with that of other processes."""
        return [
            Sample(
                sample.name,
                tuple(sorted(sample.labels.items())),
                sample.value,
                self._gauges.get(metric.name, Over.SUM),
            )
            for metric in self.registry.collect()
            for sample in metric.samples
        ]

    def text(self, samples: Iterable[Sample] | None = None) -> bytes:
        """All of it, or what was put together of several processes', as Prometheus reads it."""
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

        if samples is None:
            return generate_latest(self.registry)
        told = CollectorRegistry()
        told.register(_Told(self.registry, samples))
        return generate_latest(told)


class _Told:
    """The figures of a registry, with samples that were counted elsewhere."""

    def __init__(self, registry: CollectorRegistry, samples: Iterable[Sample]) -> None:
        self._registry = registry
        self._samples = list(samples)

    def collect(self) -> Iterator[Metric]:
        """As `prometheus_client` asks for it."""
        from prometheus_client.core import Metric  # noqa: PLC0415  the gateway's extra

        for known in self._registry.collect():
            metric = Metric(known.name, known.documentation, known.type)
            names = {f"{known.name}{ending}" for ending in ("", "_total", "_bucket", "_sum", "_count")}
            for sample in self._samples:
                if sample.name in names:
                    metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric
