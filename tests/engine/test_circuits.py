"""Circuit breakers."""

from __future__ import annotations

import pytest

from tierwise.core.decisions import OutcomeKind
from tierwise.engine.circuits import Circuits

FAULTS = [OutcomeKind.OVERLOADED, OutcomeKind.SERVER_ERROR, OutcomeKind.TIMEOUT, OutcomeKind.CONNECTION]


def _failed(times: int, *, at: float = 0.0, kind: OutcomeKind = OutcomeKind.TIMEOUT) -> Circuits:
    circuits = Circuits(3, 30.0)
    for _ in range(times):
        circuits.note("m", kind, at)
    return circuits


@pytest.mark.parametrize("kind", FAULTS)
def test_failures_in_a_row_open_a_circuit(kind: OutcomeKind) -> None:
    """The third failure opens it, and the reason says for how long."""
    assert not _failed(2, kind=kind).open_now(0.0)
    assert _failed(3, kind=kind).open_now(10.0) == {
        "m": "its circuit is open after 3 failures in a row, for another 20 s"
    }


@pytest.mark.parametrize("kind", [k for k in OutcomeKind if k not in FAULTS])
def test_what_is_not_the_servers_trouble_opens_nothing(kind: OutcomeKind) -> None:
    """Being too fast, being wrong or giving up does not say that the server is in trouble."""
    assert not _failed(50, kind=kind).open_now(0.0)


def test_an_answer_closes_it() -> None:
    """Any answer, even one that was rejected, starts the count anew."""
    circuits = _failed(2)
    circuits.note("m", OutcomeKind.REJECTED, 0.0)
    circuits.note("m", OutcomeKind.TIMEOUT, 0.0)
    assert not circuits.open_now(0.0)


@pytest.mark.parametrize("kind", [OutcomeKind.CANCELLED, OutcomeKind.RATE_LIMITED, OutcomeKind.NOT_RUN])
def test_what_says_nothing_about_the_server_leaves_the_count(kind: OutcomeKind) -> None:
    """A cancelled call between two failures does not make them apart."""
    circuits = _failed(2)
    circuits.note("m", kind, 0.0)
    circuits.note("m", OutcomeKind.TIMEOUT, 0.0)
    assert circuits.open_now(0.0)


def test_after_its_time_it_is_half_open() -> None:
    """When the time is up calls may try; one more failure opens it at once, an answer closes it."""
    circuits = _failed(3)
    assert circuits.open_now(29.9)
    assert not circuits.open_now(30.0)
    circuits.note("m", OutcomeKind.TIMEOUT, 31.0)
    assert circuits.open_now(60.0)
    circuits.note("m", OutcomeKind.ACCEPTED, 62.0)
    circuits.note("m", OutcomeKind.TIMEOUT, 63.0)
    assert not circuits.open_now(63.0)


def test_models_have_circuits_of_their_own() -> None:
    """One model's trouble is not another's."""
    circuits = _failed(3)
    circuits.note("n", OutcomeKind.TIMEOUT, 0.0)
    assert set(circuits.open_now(0.0)) == {"m"}
