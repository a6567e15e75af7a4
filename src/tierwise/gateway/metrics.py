"""What `/metrics` tells, in Prometheus' text format. Counted from the records that go into the ledger.

Counting happens for every call and telling hardly ever. So what is counted lies in plain dictionaries by labels, and
becomes Prometheus' families when somebody asks: its own counters take a lock and two calls for each figure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from tierwise.core.decisions import AttemptRecord, CallRecord

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["OTHER_TIER", "Metrics"]

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


class Metrics:
    """Counters and histograms of one gateway.

    Args:
        gauges: name → (what it tells, its value), asked when `/metrics` is.
    """

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        from prometheus_client import CollectorRegistry, Gauge  # noqa: PLC0415  the gateway's extra

        self.registry: CollectorRegistry = CollectorRegistry()
        for name, (words, ask) in gauges.items():
            Gauge(name, words, registry=self.registry).set_function(ask)
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

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        from prometheus_client import generate_latest  # noqa: PLC0415

        return generate_latest(self.registry)
