"""Circuit breakers: a model that keeps failing is left alone for a while. State in memory, the clock an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tierwise.core.decisions import OutcomeKind

__all__ = ["Circuits"]

# What says that the model's server is in trouble. A 429 does not: it says that we are too fast.
_FAULTS = frozenset({OutcomeKind.OVERLOADED, OutcomeKind.SERVER_ERROR, OutcomeKind.TIMEOUT, OutcomeKind.CONNECTION})


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    open_until: float = 0.0


class Circuits:
    """One circuit per model. `failures` in a row open it for `open_seconds`; then it is half open.

    Half open, calls try the model again: the first failure opens the circuit anew, the first answer closes it.
    """

    def __init__(self, failures: int, open_seconds: float) -> None:
        self._failures = failures
        self._open_seconds = open_seconds
        self._circuits: dict[str, _Circuit] = {}

    def note(self, model_id: str, kind: OutcomeKind, now_seconds: float) -> None:
        """Takes an attempt's outcome into account (`now_seconds`: a monotonic clock)."""
        if kind in _FAULTS:
            circuit = self._circuits.setdefault(model_id, _Circuit())
            circuit.failures += 1
            if circuit.failures >= self._failures:
                circuit.open_until = now_seconds + self._open_seconds
        elif kind not in {OutcomeKind.CANCELLED, OutcomeKind.RATE_LIMITED, OutcomeKind.NOT_RUN}:
            self._circuits.pop(model_id, None)  # it answered, whatever it said

    def failures_of(self, model_id: str) -> int:
        """How often in a row it has failed."""
        circuit = self._circuits.get(model_id)
        return 0 if circuit is None else circuit.failures

    def open_now(self, now_seconds: float) -> Mapping[str, str]:
        """The models that are left alone now, and why."""
        return {
            model_id: (
                f"its circuit is open after {circuit.failures} failures in a row, for another "
                f"{circuit.open_until - now_seconds:.0f} s"
            )
            for model_id, circuit in list(self._circuits.items())  # another thread may note an outcome meanwhile
            if circuit.open_until > now_seconds
        }
