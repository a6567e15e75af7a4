"""What `/metrics` tells, in Prometheus' text format. Counted from the records that go into the ledger."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tierwise.core.decisions import AttemptRecord, CallRecord

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["OTHER_TIER", "Metrics"]

OTHER_TIER = "other"  # of models that are in no tier
_MOST_OTHERS = 50

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters and histograms of one gateway.

    Args:
        gauges: name → (what it tells, its value), asked when `/metrics` is.
    """

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: PLC0415  the gateway's extra

        self.registry: CollectorRegistry = CollectorRegistry()
        of: dict[str, Any] = {"registry": self.registry}
        calls = Counter("tierwise_calls", "Calls by how they ended.", ["tier", "model", "task_type", "status"], **of)
        attempts = Counter("tierwise_attempts", "Attempts by outcome.", ["tier", "model", "outcome"], **of)
        cost = Counter("tierwise_cost_usd", "US$ spent, failed attempts included.", ["tier", "model"], **of)
        unpriced = Counter("tierwise_unpriced_attempts", "Attempts that no price is known for.", ["model"], **of)
        baseline = Counter("tierwise_baseline_usd", "US$ that answered calls would have cost on the baseline.", **of)
        tokens = Counter("tierwise_tokens", "Tokens by class.", ["tier", "model", "class"], **of)
        seconds = Histogram("tierwise_call_seconds", "Time of a call.", ["tier"], buckets=_SECONDS, **of)
        first = Histogram("tierwise_first_token_seconds", "Time to first token.", ["tier"], buckets=_SECONDS, **of)
        for name, (words, ask) in gauges.items():
            Gauge(name, words, **of).set_function(ask)
        self._others: set[str] = set()
        # Finding a child costs more than counting on it.
        self._calls = lru_cache(4096)(calls.labels)
        self._attempts = lru_cache(4096)(attempts.labels)
        self._cost = lru_cache(1024)(cost.labels)
        self._tokens = lru_cache(4096)(tokens.labels)
        self._seconds = lru_cache(64)(seconds.labels)
        self._first = lru_cache(64)(first.labels)
        self._unpriced, self._baseline = unpriced, baseline

    def attempt(self, attempt: AttemptRecord) -> None:
        """Counts an attempt that has ended."""
        tier, model, usage = attempt.tier, self._model(attempt.tier, attempt.model), attempt.usage
        self._attempts(tier, model, attempt.outcome.value).inc()
        if attempt.cost_nanousd is None:
            self._unpriced.labels(model).inc()
        elif attempt.cost_nanousd:
            self._cost(tier, model).inc(attempt.cost_nanousd / 1e9)
        for name, count in (
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write_5m", usage.cache_write_5m_tokens),
            ("cache_write_1h", usage.cache_write_1h_tokens),
        ):
            if count:
                self._tokens(tier, model, name).inc(count)
        if attempt.ttft_ms is not None:
            self._first(tier).observe(attempt.ttft_ms / 1000)

    def call(self, call: CallRecord) -> None:
        """Counts a call that has ended."""
        self._calls(call.tier, self._model(call.tier, call.model), call.task_type, call.status.value).inc()
        if call.baseline_nanousd:
            self._baseline.inc(call.baseline_nanousd / 1e9)
        if call.latency_ms is not None:
            self._seconds(call.tier).observe(call.latency_ms / 1000)

    def _model(self, tier: str, model: str) -> str:
        """A model's name as a label. Names that no tier has are the clients' words: not every one gets its series."""
        if tier != OTHER_TIER or model in self._others:
            return model
        if len(self._others) >= _MOST_OTHERS:
            return "(other)"
        self._others.add(model)
        return model

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        from prometheus_client import generate_latest  # noqa: PLC0415

        return generate_latest(self.registry)
