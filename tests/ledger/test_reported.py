"""What others report of a call counts once: whoever reports it, in whatever order, beside what we sent ourselves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.ledger.records import DAY_MS, START_MS, attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind, Reason
from tierwise.core.errors import LedgerUnavailable
from tierwise.core.money import Usage
from tierwise.ledger import Feedback, Filter, Ledger, new_call_id, recover
from tierwise.ledger.care import prune, verify
from tierwise.ledger.connection import open_database
from tierwise.ledger.ids import reported_id
from tierwise.ledger.reported import Recorded, Reported, Source, claim_session, record_reported, source_of
from tierwise.ledger.schema import MIGRATIONS

UNKNOWN = {"task_type": "unknown", "family": "unknown", "needs": "unknown", "confidence": 0.0, "abstained": True}


def report(source: Source, request: str = "req_1", *, has_id: bool = True, **changes: Any) -> Reported:
    """A call as this source tells it, at one dollar-billionth a rank, so that it can be told whose is kept."""
    call_id = reported_id(request)
    told = {**UNKNOWN, "reasons": (), "latency_ms": None, **changes}
    made = call(call_id, tags=(("source", source.value),), **told)
    one = attempt(
        call_id,
        started_at_ms=made.started_at_ms,
        cost_nanousd=1_000 + source.rank,
        request_id=request if has_id else None,
        latency_ms=None,
        ttft_ms=None,
    )
    return Reported(made, one)


def sent(ledger: Ledger, request: str | None = "req_1", **changes: Any) -> str:
    """The same call as the gateway records it: first open, then with its end."""
    call_id = new_call_id()
    began = attempt(call_id, outcome=OutcomeKind.OPEN, cost_nanousd=8_000)
    ledger.start(call(call_id, **{**changes, "status": CallStatus.OPEN}), began)
    ledger.end(attempt(call_id, request_id=request, cost_nanousd=9_000), call(call_id, **changes))
    return call_id


def costs(ledger: Ledger) -> list[int | None]:
    """Of all attempts; the sums say the same, and nothing is wrong with the ledger."""
    found = [one.cost_nanousd for stored in ledger.calls() for one in stored.attempts]
    (_, totals) = ledger.totals(())[0] if ledger.totals(()) else ((), None)
    assert (totals.cost_nanousd if totals else 0) == sum(cost or 0 for cost in found)
    assert verify(ledger) == []
    return sorted(found, key=lambda cost: cost or 0)


def test_names_of_reported_calls() -> None:
    """They are ids like others, the same for a request, of another for another, and before all of our own."""
    names = {reported_id(f"req_{number}") for number in range(1_000)}
    assert len(names) == 1_000
    assert all(str(UUID(name)) == name and UUID(name).version == 8 and name < new_call_id() for name in names)
    assert reported_id("req_1") == reported_id("req_1")


@pytest.mark.parametrize("order", list(permutations(["telemetry", "transcript", "gateway"])), ids="-".join)
def test_one_request_in_any_order(ledger: Ledger, order: tuple[str, ...]) -> None:
    """Of one that we sent, and two sources report, our own record stays, and nothing else."""
    tell: dict[str, Callable[[], object]] = {
        "telemetry": lambda: record_reported(ledger, [report(Source.TELEMETRY)]),
        "transcript": lambda: record_reported(ledger, [report(Source.TRANSCRIPT)]),
        "gateway": lambda: sent(ledger),
    }
    for who in (*order, "telemetry", "transcript"):
        tell[who]()
    assert costs(ledger) == [9_000]


def test_a_report_while_our_call_runs(ledger: Ledger) -> None:
    """One that comes between a call's beginning and its end goes with the end."""
    call_id = new_call_id()
    ledger.start(call(call_id, status=CallStatus.OPEN), attempt(call_id, outcome=OutcomeKind.OPEN))
    assert record_reported(ledger, [report(Source.TELEMETRY)]).added == 1
    ledger.end(attempt(call_id, request_id="req_1", cost_nanousd=9_000), call(call_id))
    assert costs(ledger) == [9_000]


def test_a_report_by_another_process_after_calls_without_any(ledger: Ledger) -> None:
    """One that comes to a ledger of which its writer knows that it had none goes with the call, too."""
    sent(ledger, "req_0")
    with Ledger(ledger.path) as other:
        assert record_reported(other, [report(Source.TELEMETRY), report(Source.TELEMETRY, "req_2")]).added == 2
    sent(ledger)
    call_id = new_call_id()
    ledger.record(call(call_id), [attempt(call_id, request_id="req_2", cost_nanousd=9_000)])
    assert costs(ledger) == [9_000, 9_000, 9_000]


def test_a_report_and_our_call_in_one_transaction(ledger: Ledger) -> None:
    """What waited in one spool counts once, where nothing was reported before."""
    sent(ledger, "req_0")
    reported, call_id = report(Source.TELEMETRY), new_call_id()
    ours = call(call_id), (attempt(call_id, request_id="req_1", cost_nanousd=9_000),)
    ledger.write_entries([(reported.call, (reported.attempt,)), ours])
    assert costs(ledger) == [9_000, 9_000]


def test_our_record_out_of_a_spool(ledger: Ledger) -> None:
    """Our own record goes before a report also where it had to wait until after it."""
    ledger.open()
    blocked = Ledger(ledger.path, busy_timeout_ms=0, spool_dirs=(), on_problem=lambda _: None)
    with ledger._transaction():
        sent(blocked)
    assert ledger.waiting()
    assert record_reported(ledger, [report(Source.TELEMETRY)]).added == 1
    blocked.close()
    assert ledger.waiting() == []
    assert costs(ledger) == [9_000]


@pytest.mark.parametrize("turned", [False, True], ids=["telemetry first", "transcript first"])
def test_two_reports_complete_each_other(ledger: Ledger, *, turned: bool) -> None:
    """The better source's figures stay, with what only the other one tells; whichever came first."""
    event = report(Source.TELEMETRY, reasons=(Reason("claude_cost", "says $1"),), latency_ms=70, project="shop")
    event = Reported(event.call, attempt(event.call.call_id, request_id="req_1", cost_nanousd=7, ttft_ms=30))
    known = {"task_type": "summarization", "family": "transform", "abstained": False, "confidence": 0.5}
    row = report(Source.TRANSCRIPT, project=None, **known)
    became = [record_reported(ledger, [one]) for one in ([row, event] if turned else [event, row])]
    assert became == [Recorded(added=1), Recorded(completed=1)]
    (stored,) = ledger.calls()
    assert (stored.call.latency_ms, stored.attempts[0].ttft_ms, stored.call.project) == (70, 30, "shop")
    assert [reason.step for reason in stored.call.reasons] == ["claude_cost"]
    assert (stored.call.task_type, source_of(stored.call)) == ("summarization", Source.TRANSCRIPT)
    assert costs(ledger) == [1_001]


@pytest.mark.parametrize("better", [Source.TELEMETRY, Source.TRANSCRIPT])
@pytest.mark.parametrize("turned", [False, True])
def test_an_answer_goes_before_none(ledger: Ledger, better: Source, *, turned: bool) -> None:
    """Whoever saw a request answered is believed, whatever others who did not say, and whenever they do."""
    cut = report(Source.TRANSCRIPT, status=CallStatus.CANCELLED)
    cut = Reported(cut.call, replace(cut.attempt, cost_nanousd=3, outcome=OutcomeKind.CANCELLED))
    reports = [cut, report(better)]
    for one in reports[::-1] if turned else reports:
        record_reported(ledger, [one])
    assert costs(ledger) == [1_000 + better.rank]


@pytest.mark.parametrize("turned", [False, True], ids=["less first", "more first"])
def test_whoever_read_more_of_a_transcript(ledger: Ledger, *, turned: bool) -> None:
    """Of two readings of a reply that was being written the one that saw more stays, also where it is written first."""
    less, more = (
        Reported(one.call, replace(one.attempt, usage=Usage(100, output), cost_nanousd=output))
        for one, output in ((report(Source.TRANSCRIPT), 2), (report(Source.TRANSCRIPT), 500))
    )
    for one in (more, less) if turned else (less, more):
        record_reported(ledger, [one])
    assert costs(ledger) == [500]
    assert record_reported(ledger, [less, more]) == Recorded(known=2)


def test_a_client_that_tags_its_calls_as_reported(ledger: Ledger) -> None:
    """Tags are the client's to choose: what we sent stays ours, and is neither doubled nor claimed."""
    for source in Source:
        sent(ledger, f"req_{source}", tags=(("source", source.value),))
        assert record_reported(ledger, [report(Source.TELEMETRY, f"req_{source}")]).known == 1
    claim_session(ledger, "s", START_MS)
    assert costs(ledger) == [9_000] * 3


def test_an_event_that_says_something_else(ledger: Ledger) -> None:
    """The first that is told of a request by telemetry stays: another event does not change it."""
    record_reported(ledger, [report(Source.TELEMETRY)])
    other = report(Source.TELEMETRY, project="theirs")
    changed = Reported(other.call, replace(other.attempt, cost_nanousd=5))
    assert record_reported(ledger, [changed]).known == 1
    assert costs(ledger) == [1_000]


def test_reports_that_come_again(ledger: Ledger) -> None:
    """One that was recorded changes nothing, also within one batch."""
    some = [report(Source.TELEMETRY, f"req_{number}") for number in (1, 2, 1)]
    assert record_reported(ledger, some) == Recorded(added=2, known=1)
    assert record_reported(ledger, some) == Recorded(known=3)
    assert len(costs(ledger)) == 2


def test_what_is_learned_of_a_call_stays(ledger: Ledger) -> None:
    """What was said of a report is said of the call, once we have it ourselves."""
    record_reported(ledger, [report(Source.TELEMETRY)])
    ledger.give_feedback(Feedback(call_id=reported_id("req_1"), at_ms=START_MS, task_type="translation"))
    call_id = sent(ledger)
    stored = ledger.get(call_id)
    assert stored is not None and stored.feedback is not None and stored.feedback.task_type == "translation"


def test_our_call_of_several_attempts(ledger: Ledger) -> None:
    """A client sees the id of the attempt that answered it: by any of them the call is found."""
    record_reported(ledger, [report(Source.TELEMETRY, "req_2")])
    call_id = new_call_id()
    refused = attempt(call_id, 1, request_id="req_1", outcome=OutcomeKind.OVERLOADED, cost_nanousd=0, usage=Usage())
    ledger.record(call(call_id), [refused, attempt(call_id, 2, request_id="req_2", cost_nanousd=9_000)])
    record_reported(ledger, [report(Source.TELEMETRY, "req_1"), report(Source.TELEMETRY, "req_2")])
    assert costs(ledger) == [0, 9_000]


@pytest.mark.parametrize("first", [Source.TELEMETRY, Source.TRANSCRIPT])
def test_without_request_ids_a_session_is_of_whoever_was_first(ledger: Ledger, first: Source) -> None:
    """Nothing tells which call is which: who records one of a session records all of it, others none."""
    second = next(source for source in (Source.TELEMETRY, Source.TRANSCRIPT) if source is not first)
    assert record_reported(ledger, [report(first, "a", has_id=False)]).added == 1
    assert record_reported(ledger, [report(second, "b", has_id=False)]).known == 1
    assert record_reported(ledger, [report(first, "c", has_id=False)]).added == 1
    assert record_reported(ledger, [report(second, "d", has_id=False, session="other")]).added == 1
    sent(ledger, None, session="third")
    assert record_reported(ledger, [report(second, "e", has_id=False, session="third")]).known == 1


def test_without_a_session_the_time_tells(ledger: Ledger) -> None:
    """A request of ours is found by its id among the calls of that day where a report names no session."""
    sent(ledger)
    assert record_reported(ledger, [report(Source.TELEMETRY, session=None)]).known == 1
    assert record_reported(ledger, [report(Source.TELEMETRY, "req_2", session=None)]).added == 1


@pytest.mark.parametrize("turned", [False, True], ids=["claimed first", "reported first"])
def test_claimed_sessions(ledger: Ledger, *, turned: bool) -> None:
    """Who records a session whole has it: reports of its calls go, or never come; what we sent ourselves stays."""
    reports = [report(Source.TELEMETRY), report(Source.TRANSCRIPT, "req_2"), report(Source.TELEMETRY, session="other")]
    steps = [lambda: record_reported(ledger, reports[:2]), lambda: claim_session(ledger, "s", START_MS)]
    for step in steps if turned else reversed(steps):
        step()
    sent(ledger, "req_3")
    record_reported(ledger, [report(Source.TELEMETRY, "req_4", session="other")])
    assert costs(ledger) == [1_000, 9_000]


def test_reports_at_the_same_time(tmp_path: Path) -> None:
    """Several who report the same calls at once, beside a gateway that records half of them, pass nobody."""
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    start = threading.Barrier(5)

    def tell(source: Source) -> None:
        with Ledger(path) as own:
            start.wait()
            for number in range(40):
                record_reported(own, [report(source, f"req_{number}")])

    def send() -> None:
        with Ledger(path) as own:
            start.wait()
            for number in range(0, 40, 2):
                sent(own, f"req_{number}")

    threads = [threading.Thread(target=tell, args=(source,)) for source in (*Source, Source.TELEMETRY)][:4]
    threads.append(threading.Thread(target=send))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Ledger(path) as ledger:
        assert costs(ledger) == [1_002] * 20 + [9_000] * 20


def test_what_was_pruned_does_not_come_again(ledger: Ledger) -> None:
    """Calls that are in the sums alone are not told from others: what began in their time is left out."""
    record_reported(
        ledger, [report(Source.TELEMETRY), report(Source.TELEMETRY, "req_2", started_at_ms=START_MS + DAY_MS)]
    )
    prune(ledger, START_MS + DAY_MS, keep_rollups=True)
    assert record_reported(ledger, [report(Source.TELEMETRY)]).known == 1
    assert ledger.totals(())[0][1].calls == 2


def test_a_ledger_that_cannot_be_written(ledger: Ledger, tmp_path: Path) -> None:
    """Reports do not wait in a spool, where nobody could look what else is recorded: they have to come again."""
    ledger.open()
    blocked = Ledger(ledger.path, busy_timeout_ms=0, spool_dirs=())
    with ledger._transaction(), pytest.raises(LedgerUnavailable):
        record_reported(blocked, [report(Source.TELEMETRY)])
    blocked.close()
    assert ledger.waiting() == []
    assert record_reported(ledger, [report(Source.TELEMETRY)]).added == 1


def test_odd_text_in_reports(ledger: Ledger) -> None:
    """Text that no database takes is kept as an escape, and known again."""
    odd = report(Source.TELEMETRY, session="a\ud800", project="\udcff")
    assert record_reported(ledger, [odd]).added == 1
    assert record_reported(ledger, [odd]).known == 1
    assert [stored.call.project for stored in ledger.calls(Filter())] == ["\\udcff"]


def test_a_ledger_from_before_there_were_claims(tmp_path: Path) -> None:
    """It is brought up to date, and takes reports and claims."""
    path = tmp_path / "ledger.db"
    open_database(path, synchronous="normal", busy_timeout_ms=100, migrations=MIGRATIONS[:7]).close()
    with Ledger(path) as ledger:
        claim_session(ledger, "s", START_MS)
        assert record_reported(ledger, [report(Source.TELEMETRY)]).known == 1


def test_claims_outlive_a_recovery(ledger: Ledger) -> None:
    """A ledger that was made anew out of a damaged one still knows which sessions are recorded whole."""
    claim_session(ledger, "s", START_MS)
    sent(ledger, session="other")
    ledger.close()
    recover(ledger.path)
    assert record_reported(ledger, [report(Source.TELEMETRY)]).known == 1
