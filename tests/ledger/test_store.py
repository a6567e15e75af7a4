"""What is written is read back, counted once, and summed up right, however it arrives."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.ledger import records
from tests.ledger.records import DAY_MS, HOUR_MS, PRICE, START_MS, attempt, call
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind
from tierwise.core.money import Usage, usd_to_nanousd
from tierwise.ledger import Dimension, Filter, Ledger, ModelSpeed, StoredCall, Totals
from tierwise.ledger.codec import entry_from_line, entry_to_line, price_from_text, price_to_text
from tierwise.ledger.folding import week_of
from tierwise.ledger.sums import Stretches, read_sums, scan_sums, widened

KEYS: tuple[Dimension, ...] = ("day", "project", "key_id", "task_type", "tier", "model")


def total(ledger: Ledger) -> Totals:
    return ledger.totals(())[0][1]


def test_recorded_call_is_read_back_whole(ledger: Ledger) -> None:
    """Every field of a call and its attempts comes back as it was."""
    usage = Usage(1, 2, 3, 4, 5, 6, 7, estimated=True)
    failed = attempt(outcome=OutcomeKind.REJECTED, detail="not JSON", usage=usage, request_id="r", reported_model="m")
    ledger.record(call(), [failed, attempt(number=2)])
    assert ledger.get("call-1") == StoredCall(call(), (failed, attempt(number=2)))


@given(records.calls, st.lists(records.attempts, max_size=3, unique_by=lambda a: a.number))
def test_any_record_survives_spool_and_price_text(one: CallRecord, some: list[AttemptRecord]) -> None:
    """A line of a spool and the text of a price give back exactly what went in."""
    entry = (one, tuple(some))
    assert entry_from_line(entry_to_line(entry)) == entry
    for a in some:
        if a.price:
            assert price_from_text(price_to_text(a.price)) == a.price


def test_equal_prices_are_stored_once(ledger: Ledger) -> None:
    """A thousand attempts at one price keep one price; another spelling of the number is the same price."""
    same = replace(PRICE, usd_per_hour=Decimal("0.000"))
    ledger.record(call(), [attempt(), attempt(number=2, price=same), attempt(number=3, price=None)])
    with sqlite3.connect(ledger.path) as db:
        assert db.execute("SELECT count(*) FROM prices").fetchone() == (1,)
    db.close()
    stored = ledger.get("call-1")
    assert stored is not None
    assert [a.price for a in stored.attempts] == [PRICE, PRICE, None]


def test_file_and_directories_are_private(opened: Callable[..., Ledger], tmp_path: Path) -> None:
    """A new ledger, its log and its directory can be read by the user alone."""
    path = tmp_path / "new" / "deep" / "ledger.db"
    ledger = opened(path)
    ledger.record(call(), [])
    for name in ("ledger.db", "ledger.db-wal"):
        assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("synchronous", ["normal", "full"])
def test_write_ahead_log_and_synchronous_are_set(opened: Callable[..., Ledger], synchronous: str) -> None:
    """The database is in WAL mode, at the durability that was asked for."""
    ledger = opened(synchronous=synchronous)
    ledger.open()
    connection = ledger._connection
    assert connection is not None
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == ({"normal": 1, "full": 2}[synchronous],)


def test_unknown_synchronous_is_refused(tmp_path: Path) -> None:
    """A misspelt durability is an error, not a weaker one."""
    with pytest.raises(ValueError, match="use normal or full"):
        Ledger(tmp_path / "x.db", synchronous="ful")


def test_path_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    """A path that no system takes is an error at once, not trouble at every write."""
    with pytest.raises(ValueError, match="zero byte"):
        Ledger(tmp_path / "x\0.db")


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    """Making a ledger touches no file."""
    Ledger(tmp_path / "sub" / "ledger.db").close()
    assert list(tmp_path.iterdir()) == []


def test_open_attempt_counts_as_open_with_its_estimate_apart(ledger: Ledger) -> None:
    """A request in flight is neither free nor spent."""
    ledger.start(call(status=CallStatus.OPEN), attempt(outcome=OutcomeKind.OPEN, cost_nanousd=777))
    found = total(ledger)
    assert (found.open_calls, found.open_attempts, found.open_cost_nanousd) == (1, 1, 777)
    assert (found.cost_nanousd, found.baseline_nanousd, found.input_tokens) == (0, 0, 0)
    ledger.end(attempt(), call())
    found = total(ledger)
    assert (found.open_calls, found.open_attempts, found.open_cost_nanousd) == (0, 0, 0)
    assert (found.calls, found.attempts, found.cost_nanousd, found.baseline_nanousd) == (1, 1, 2000, 5000)


def test_replayed_records_count_once(ledger: Ledger) -> None:
    """Any step of a call may arrive again, and the sums stay."""
    opening, started = call(status=CallStatus.OPEN), attempt(outcome=OutcomeKind.OPEN)
    for _ in range(2):
        ledger.begin(opening)
        ledger.attempt_started(started)
        ledger.attempt_finished(attempt())
        ledger.finish(call())
        ledger.record(call(), [attempt()])
    found = total(ledger)
    assert (found.calls, found.attempts, found.cost_nanousd) == (1, 1, 2000)
    assert ledger.get("call-1") == StoredCall(call(), (attempt(),))


def test_late_opening_does_not_reopen(ledger: Ledger) -> None:
    """An opening record that comes after the end (out of a spool) changes nothing."""
    ledger.record(call(), [attempt()])
    ledger.start(call(status=CallStatus.OPEN, latency_ms=None), attempt(outcome=OutcomeKind.OPEN, cost_nanousd=1))
    assert ledger.get("call-1") == StoredCall(call(), (attempt(),))


def test_attempt_without_its_call_still_counts(ledger: Ledger) -> None:
    """Money is not forgotten because the call's own record is late; when it comes, the sums move to it."""
    ledger.attempt_finished(attempt())
    assert ledger.totals(("task_type",))[0][0] == ("unknown",)
    assert total(ledger).cost_nanousd == 2000
    ledger.finish(call())
    assert [key for key, _ in ledger.totals(("task_type",))] == [("summarization",)]
    assert (total(ledger).calls, total(ledger).cost_nanousd) == (1, 2000)


def test_an_attempt_that_came_before_its_call(ledger: Ledger) -> None:
    """What is only known of the call when it comes stands in its row then, and in the indexes on it."""
    ledger.attempt_finished(attempt())
    whole = call(batch_id="batch", custom_id="one")
    ledger.finish(whole)
    stored = ledger.get("call-1")
    assert stored is not None and stored.call == whole
    assert [found.call.call_id for found in ledger.calls(Filter(session="s"))] == ["call-1"]
    assert ledger.check() == []


def test_unpriced_is_counted_never_zero(ledger: Ledger) -> None:
    """A call with an attempt of unknown price is in no comparison, and said to be so."""
    ledger.record(call("a"), [attempt("a", price=None, cost_nanousd=None), attempt("a", 2)])
    ledger.record(call("b", baseline_nanousd=None), [attempt("b")])
    ledger.record(call("c"), [attempt("c")])
    found = total(ledger)
    assert (found.unpriced_calls, found.unpriced_attempts) == (2, 1)
    assert (found.cost_nanousd, found.compared_cost_nanousd) == (6000, 2000)
    assert (found.baseline_nanousd, found.compared_baseline_nanousd) == (10_000, 5000)


def test_what_was_not_run_costs_nothing(ledger: Ledger) -> None:
    """An estimate of something that was never sent is neither tokens nor money."""
    ledger.record(
        call(status=CallStatus.NOT_RUN), [attempt(outcome=OutcomeKind.NOT_RUN, cost_nanousd=5), attempt(number=2)]
    )
    found = total(ledger)
    assert (found.attempts, found.failed_attempts, found.cost_nanousd, found.input_tokens) == (2, 0, 2000, 100)


def test_costs_stand_with_the_model_that_caused_them(ledger: Ledger) -> None:
    """The rejected attempt is the cheap model's cost, the baseline the answering model's."""
    ledger.record(
        call(tier="sonnet", model="sonnet"),
        [attempt(outcome=OutcomeKind.REJECTED, cost_nanousd=10), attempt(number=2, tier="sonnet", model="sonnet")],
    )
    by_model = {key[0]: t for key, t in ledger.totals(("model",))}
    assert (by_model["haiku"].calls, by_model["haiku"].cost_nanousd, by_model["haiku"].failed_attempts) == (0, 10, 1)
    assert (by_model["sonnet"].calls, by_model["sonnet"].baseline_nanousd) == (1, 5000)


def test_filters_choose_calls(ledger: Ledger) -> None:
    """Each condition narrows; `until` is exclusive; an empty project means calls without one."""
    ledger.record(call("a", started_at_ms=START_MS), [])
    ledger.record(call("b", started_at_ms=START_MS + 1, project=None, status=CallStatus.FAILED), [])
    ledger.record(call("c", started_at_ms=START_MS + DAY_MS, session="t", tier="opus", model="opus"), [])

    def found(where: Filter) -> list[str]:
        return [stored.call.call_id for stored in ledger.calls(where)]

    assert found(Filter()) == ["a", "b", "c"]
    assert found(Filter(since_ms=START_MS + 1, until_ms=START_MS + DAY_MS)) == ["b"]
    assert found(Filter(project="")) == ["b"]
    assert found(Filter(session="t")) == found(Filter(tier="opus")) == found(Filter(model="opus")) == ["c"]
    assert found(Filter(status=CallStatus.FAILED)) == ["b"]
    assert found(Filter(task_type="tagging")) == []


def test_totals_within_a_day_come_from_the_rows(ledger: Ledger) -> None:
    """A time that cuts a day is answered exactly, by a scan."""
    ledger.record(call("a", started_at_ms=START_MS), [attempt("a")])
    ledger.record(call("b", started_at_ms=START_MS + 5), [attempt("b")])
    assert ledger.totals((), Filter(since_ms=START_MS + 1))[0][1].calls == 1
    with pytest.raises(ValueError, match="whole UTC days"):
        ledger.totals((), Filter(since_ms=START_MS + 1), scan=False)
    with pytest.raises(ValueError, match="unknown dimension 'colour'"):
        ledger.totals(("colour",))  # type: ignore[arg-type]


def test_speed_is_measured_from_accepted_attempts(ledger: Ledger) -> None:
    """Prompt speed comes from the time to the first token (cached tokens aside), output speed from the rest."""
    fast = attempt("a", usage=Usage(1000, 90, 5000), latency_ms=1000, ttft_ms=100)
    ledger.record(call("a"), [fast])
    ledger.record(call("a"), [fast])
    ledger.record(call("b"), [attempt("b", outcome=OutcomeKind.REJECTED, usage=Usage(1, 1), latency_ms=9, ttft_ms=1)])
    assert ledger.model_speeds() == {"haiku": ModelSpeed(10_000.0, 100.0, 1)}
    ledger.record(call("c"), [attempt("c", model="local", usage=Usage(10, 50), latency_ms=500, ttft_ms=None)])
    assert ledger.model_speeds()["local"] == ModelSpeed(None, 100.0, 1)


def test_recent_speed_outweighs_old(ledger: Ledger) -> None:
    """After a model became slower, its speed follows within some tens of attempts."""
    for n, ms in enumerate([1000] * 30 + [10_000] * 30):
        ledger.record(call(str(n)), [attempt(str(n), usage=Usage(0, 100), latency_ms=ms, ttft_ms=None)])
    speed = ledger.model_speeds()["haiku"].output_tokens_per_second
    assert speed is not None
    assert 10 <= speed < 11


def test_one_transaction_moves_shared_rows_as_many_would(tmp_path: Path) -> None:
    """Entries written together leave the sums and speeds that they leave one by one, and no empty rows."""
    entries: list[tuple[CallRecord | None, tuple[AttemptRecord, ...]]] = []
    for n in range(40):
        name = str(n)
        begun = attempt(name, model="sonnet", tier="sonnet", outcome=OutcomeKind.OPEN)
        entries.append((call(name, status=CallStatus.OPEN, tier="sonnet", model="sonnet"), (begun,)))
        ended = attempt(name, usage=Usage(n, 100), latency_ms=1000 + n, ttft_ms=n or None)
        entries.append((call(name, latency_ms=n), (ended,)))
    with Ledger(tmp_path / "together.db") as together, Ledger(tmp_path / "apart.db") as apart:
        together.write_entries(entries)
        for entry in entries:
            apart.write_entries([entry])
        by = ("tier", "model")
        assert together.totals(by) == apart.totals(by) == together.totals(by, scan=True)
        assert [key for key, _ in together.totals(by)] == [("haiku", "haiku")]
        one, other = together.model_speeds()["haiku"], apart.model_speeds()["haiku"]
        assert one.samples == other.samples == 40
        assert one.output_tokens_per_second == pytest.approx(other.output_tokens_per_second)
        assert one.prompt_tokens_per_second == pytest.approx(other.prompt_tokens_per_second)


def test_odd_text_is_kept_in_escapes(opened: Callable[..., Ledger]) -> None:
    """A lone surrogate in a tag or a detail costs neither the record nor the money in it."""
    ledger = opened()
    ledger.record(
        call(session="x\ud800", tags=(("k\udc00", "v"),)),
        [attempt(detail="\udfff", price=replace(PRICE, source="\ud801"))],
    )
    stored = ledger.get("call-1")
    assert stored is not None
    assert stored.call.session == "x\\ud800"
    assert stored.attempts[0].detail == "\\udfff"
    assert ledger.healthy
    assert total(ledger).cost_nanousd == 2000


def test_record_that_fits_nowhere_is_kept_aside(opened: Callable[..., Ledger]) -> None:
    """A number beyond 64 bits does not stop the ledger; the record lands in a file of its own, and is reported."""
    ledger = opened()
    ledger.record(call(), [attempt(cost_nanousd=10**30)])
    ledger.record(call("call-2"), [attempt("call-2")])
    assert (total(ledger).calls, ledger.healthy) == (1, True)
    aside = ledger.path.with_name("ledger.db.rejected.jsonl")
    assert entry_from_line(aside.read_text()) == (call(), (attempt(cost_nanousd=10**30),))
    assert "rejected.jsonl" in ledger._on_problem.__self__[0]  # type: ignore[attr-defined]


def model(entries: list[tuple[CallRecord | None, tuple[AttemptRecord, ...]]]) -> dict[tuple[str, ...], dict[str, int]]:
    """The sums, computed from the records in the plainest way: what the roll-up is held against."""
    calls: dict[str, CallRecord] = {}
    attempts: dict[tuple[str, int], AttemptRecord] = {}
    for one, some in entries:
        if one is not None:
            known = calls.get(one.call_id)
            if known is None or known.status is CallStatus.OPEN or one.status is not CallStatus.OPEN:
                calls[one.call_id] = one
        for a in some:
            old = attempts.get((a.call_id, a.number))
            if old is None or old.outcome is OutcomeKind.OPEN or a.outcome is not OutcomeKind.OPEN:
                attempts[a.call_id, a.number] = a
    sums: dict[tuple[str, ...], dict[str, int]] = defaultdict(
        lambda: dict.fromkeys((f.name for f in fields(Totals)), 0)
    )
    for one in calls.values():
        mine = [a for (call_id, _), a in attempts.items() if call_id == one.call_id]
        answered = one.status is CallStatus.ANSWERED
        unpriced = (answered and one.baseline_nanousd is None) or any(
            a.cost_nanousd is None for a in mine if a.outcome is not OutcomeKind.NOT_RUN
        )
        day = str(one.started_at_ms // DAY_MS + 1).zfill(2)
        row = sums[f"1970-01-{day}", one.project or "", one.key_id or "", one.task_type, one.tier, one.model]
        row["calls"] += 1
        row["answered_calls"] += answered
        row["failed_calls"] += one.status is CallStatus.FAILED
        row["cancelled_calls"] += one.status is CallStatus.CANCELLED
        row["abstained_calls"] += one.abstained
        row["climbed_calls"] += len({a.model for a in mine if a.number and a.outcome is not OutcomeKind.NOT_RUN}) > 1
        row["confidence_millionths"] += int(one.confidence * 1_000_000)
        row["open_calls"] += one.status is CallStatus.OPEN
        row["unpriced_calls"] += unpriced
        row["baseline_nanousd"] += (one.baseline_nanousd or 0) * answered
        row["compared_baseline_nanousd"] += (one.baseline_nanousd or 0) * answered * (not unpriced)
        row["timed_calls"] += one.latency_ms is not None
        row["latency_ms"] += one.latency_ms or 0
        for a in mine:
            row = sums[f"1970-01-{day}", one.project or "", one.key_id or "", one.task_type, a.tier, a.model]
            row["attempts"] += 1
            row["accepted_attempts"] += a.outcome is OutcomeKind.ACCEPTED
            row["rejected_attempts"] += a.outcome.is_rejection
            if a.outcome is OutcomeKind.OPEN:
                row["open_attempts"] += 1
                row["open_cost_nanousd"] += a.cost_nanousd or 0
            if a.outcome is not OutcomeKind.NOT_RUN:
                row["unpriced_attempts"] += a.cost_nanousd is None
            if a.outcome not in {OutcomeKind.OPEN, OutcomeKind.NOT_RUN}:
                row["failed_attempts"] += a.outcome is not OutcomeKind.ACCEPTED
                row["estimated_attempts"] += a.usage.estimated
                row["cost_nanousd"] += a.cost_nanousd or 0
                row["cache_saved_nanousd"] += usd_to_nanousd(a.price.cache_saved_usd(a.usage)) if a.price else 0
                row["compared_cost_nanousd"] += (a.cost_nanousd or 0) * (not unpriced)
                for name in Usage.__dataclass_fields__:
                    if name != "estimated":
                        row[name] += getattr(a.usage, name)
    return {key: row for key, row in sums.items() if row["calls"] or row["attempts"]}


class AnyOrder(RuleBasedStateMachine):
    """Records of three calls, in any order, any number of times, through every way of writing.

    Between them the roll-up takes calls in from both ends, or is begun anew and never ended.
    """

    days_later = 100  # so that sums are kept by the day and the week alone

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.ledger = Ledger(
            Path(self.directory.name) / "ledger.db", spool_dirs=(), clock_ms=lambda: self.days_later * DAY_MS
        )
        self.entries: list[tuple[CallRecord | None, tuple[AttemptRecord, ...]]] = []
        self.begun: set[str] = set()

    def teardown(self) -> None:
        self.ledger.close()
        self.directory.cleanup()

    @rule(one=records.calls)
    def write_call(self, one: CallRecord) -> None:
        self.ledger.finish(one)
        self.begun.add(one.call_id)
        self.entries.append((one, ()))

    @precondition(lambda self: self.begun)
    @rule(a=records.attempts, data=st.data())
    def write_attempt(self, a: AttemptRecord, data: st.DataObject) -> None:
        a = replace(a, call_id=data.draw(st.sampled_from(sorted(self.begun))))
        self.ledger.attempt_finished(a)
        self.entries.append((None, (a,)))

    @rule(one=records.calls, some=st.lists(records.attempts, max_size=3))
    def write_whole(self, one: CallRecord, some: list[AttemptRecord]) -> None:
        entry = (one, tuple(replace(a, call_id=one.call_id) for a in {a.number: a for a in some}.values()))
        self.ledger.record(*entry)
        self.begun.add(one.call_id)
        self.entries.append(entry)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def write_last_again(self, data: st.DataObject) -> None:
        self.ledger.write_entries([self.entries[-1]])

    @rule()
    def reopen(self) -> None:
        self.ledger.close()

    @rule()
    def rebuild(self) -> None:
        self.ledger.rebuild_rollup()

    @rule()
    def begin_anew(self) -> None:
        self.ledger.begin_rollup()

    @rule(calls=st.integers(1, 2))
    def extend(self, calls: int) -> None:
        self.ledger.extend_rollup(calls)

    @rule()
    def fold(self) -> None:
        self.ledger.sum_up(left=0)

    @rule(
        by=st.lists(st.sampled_from(KEYS), unique=True),
        hours=st.tuples(st.integers(0, 80), st.integers(0, 80)),
        where=st.builds(
            Filter,
            project=st.sampled_from([None, "", "p"]),
            key_id=st.sampled_from([None, "", "k"]),
            task_type=st.sampled_from([None, "tagging"]),
            tier=st.sampled_from([None, "haiku"]),
            model=st.sampled_from([None, "haiku"]),
        ),
        step=st.integers(1, 30) | st.sampled_from([168, 336]),
        from_monday=st.booleans(),
    )
    def any_view_is_the_sum_of_its_rows(
        self, by: list[Dimension], hours: tuple[int, int], where: Filter, step: int, from_monday: bool
    ) -> None:
        """Grouped and filtered in any way, over any hours, along time: roll-up and rows agree."""
        where = replace(where, since_ms=min(hours) * HOUR_MS, until_ms=max(hours) * HOUR_MS)
        with self.ledger._reading() as connection:
            span = widened(connection, where.since_ms, where.until_ms)
            assert span.since is not None
            assert span.until is not None
            exact = replace(where, since_ms=span.since * HOUR_MS, until_ms=span.until * HOUR_MS)
            if self.days_later > 40 and step < 168:
                step *= 24
            stretches = Stretches(week_of(span.since) if from_monday else span.since, step)
            summed = read_sums(connection, by, where, stretches=stretches, counts=True)
            assert summed == scan_sums(connection, by, exact, stretches=stretches, counts=True)

    @invariant()
    def rollup_is_the_sum_of_the_rows(self) -> None:
        assert self.ledger.healthy
        summed = self.ledger.totals(KEYS, scan=False)
        assert summed == self.ledger.totals(KEYS, scan=True)
        assert {key: {f.name: getattr(t, f.name) for f in fields(t)} for key, t in summed} == model(self.entries)


class AnyOrderByTheHour(AnyOrder):
    """The same while sums by the hour are still kept."""

    days_later = 26


TestRollup = AnyOrder.TestCase
TestRollup.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestHourlyRollup = AnyOrderByTheHour.TestCase
TestHourlyRollup.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_lengths_of_sessions_are_told(ledger: Ledger) -> None:
    """Answered turns of main loops by session, the latest sessions first; calls without a session do not count."""

    def turn(call_id: str, session: str | None, at_ms: int, kind: str = "main", **changes: Any) -> Any:
        return call(call_id, session=session, started_at_ms=at_ms, tags=(("kind", kind),), **changes), ()

    ledger.record_many(
        [
            *(turn(f"a{k}", "a", START_MS) for k in range(3)),
            *(turn(f"b{k}", "b", START_MS + 1) for k in range(2)),
            turn("subagent", "a", START_MS, "subagent"),
            turn("title", "a", START_MS, "title"),
            turn("failed", "b", START_MS + 1, status=CallStatus.FAILED),
            turn("alone", None, START_MS + 2),
            turn("old", "old", START_MS - 1),
        ]
    )
    assert ledger.session_lengths(START_MS) == [2, 3]
    assert ledger.session_lengths(START_MS, most=1) == [2]
