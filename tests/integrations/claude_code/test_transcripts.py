"""Transcripts into the ledger: every request once, whoever else wrote it down, at what it really used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.importers.transcripts import OPUS, OTHER, SESSION, human, reply, usage, write
from tierwise.config import load_settings
from tierwise.core.decisions import CallStatus
from tierwise.integrations.claude_code.climbing import Given
from tierwise.integrations.claude_code.transcripts import SessionTotals, read_session, record_session
from tierwise.ledger import Ledger, new_call_id
from tierwise.ledger.store import StoredCall
from tierwise.prices import PriceBook
from tierwise.replay.tariff import OTHER_TIER, Tariff

FILE = f"{SESSION}.jsonl"
AGENT = "a0123456789abcdef"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty one."""
    with Ledger(tmp_path / "ledger.db") as made:
        yield made


@pytest.fixture
def tariff(tmp_path: Path) -> Tariff:
    """The shipped prices."""
    settings = load_settings(env={"HOME": str(tmp_path)}, cwd=tmp_path)
    return Tariff(settings.catalog, PriceBook(settings.prices, settings.providers))


def record(path: Path, ledger: Ledger, tariff: Tariff, decided: dict[str, Given] | None = None) -> SessionTotals:
    """Reads the session's transcript and records it."""
    return record_session(read_session(path, SESSION, lambda call: None), decided or {}, ledger, tariff)


def outputs(ledger: Ledger) -> list[int]:
    """The output tokens of what is recorded, in order."""
    return [stored.attempts[0].usage.output_tokens for stored in ledger.calls()]


def test_a_session_that_grows(tmp_path: Path, ledger: Ledger, tariff: Tariff) -> None:
    """Read again and again while it is written, each request is one call, at the last that was told of it."""
    rows: list[Any] = [human("Fix it"), reply(1, 1, usage(5)), reply(1, 2, usage(20)), reply(2, 3, usage(7))]
    spent = []
    for count in range(1, len(rows) + 1):
        totals = record(write(tmp_path / FILE, rows[:count]), ledger, tariff)
        spent.append(totals.spent_nanousd)
        totals = record(tmp_path / FILE, ledger, tariff)
        assert totals.spent_nanousd == spent[-1]
    assert outputs(ledger) == [20, 7]
    assert spent == sorted(spent)
    assert sum(stored.attempts[0].cost_nanousd or 0 for stored in ledger.calls()) == spent[-1]


def test_half_a_row_waits(tmp_path: Path, ledger: Ledger, tariff: Tariff) -> None:
    """A row that is being written is read when it is whole."""
    path = write(tmp_path / FILE, [human("Fix it"), reply(1)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    record(path, ledger, tariff)
    assert outputs(ledger) == []
    path.write_bytes(whole)
    record(path, ledger, tariff)
    assert outputs(ledger) == [20]


def test_copies_of_a_forked_session_are_the_others(tmp_path: Path, ledger: Ledger, tariff: Tariff) -> None:
    """Rows that a fork took over say which session made them, and are recorded there."""
    rows = [human("Fix it"), reply(1, 1, requestSessionId=OTHER), reply(2, 3, usage(7))]
    record(write(tmp_path / FILE, rows), ledger, tariff)
    assert outputs(ledger) == [7]


def gateway_call(stored: StoredCall, request_id: str | None) -> tuple[Any, list[Any]]:
    """The same call, as the gateway would have recorded it."""
    call = replace(stored.call, call_id=new_call_id(stored.call.started_at_ms), tags=(("kind", "main"),))
    return call, [replace(stored.attempts[0], call_id=call.call_id, request_id=request_id)]


@pytest.mark.parametrize("has_ids", [True, False], ids=["request ids", "no request ids"])
def test_what_the_gateway_recorded_is_left_out(
    tmp_path: Path, ledger: Ledger, tariff: Tariff, *, has_ids: bool
) -> None:
    """By the request's id; where the rows have none, all of a session that went through the gateway."""
    row = reply(1) if has_ids else reply(1, requestId=...)
    path = write(tmp_path / FILE, [human("Fix it"), row])
    with Ledger(tmp_path / "other.db") as other:
        record(path, other, tariff)
        (stored,) = other.calls()
    ledger.record(*gateway_call(stored, "req_0001" if has_ids else None))
    totals = record(path, ledger, tariff)
    assert len(list(ledger.calls())) == 1
    assert totals.spent_nanousd == stored.attempts[0].cost_nanousd  # the status line tells of it all the same
    write(path, [human("Fix it"), row, reply(2, 3, usage(7))])
    record(path, ledger, tariff)
    assert outputs(ledger) == [20, 7]  # a request that did not go through it


def test_copies_of_what_the_gateway_recorded(tmp_path: Path, ledger: Ledger, tariff: Tariff) -> None:
    """Rows that a fork took over, and that do not say so, are no second call of what the gateway recorded."""
    path = write(tmp_path / FILE, [human("Fix it"), reply(1), reply(2, 3)])
    with Ledger(tmp_path / "other.db") as other:
        record(path, other, tariff)
        for stored in other.calls():
            sent, attempts = gateway_call(stored, stored.attempts[0].request_id)
            ledger.record(replace(sent, session=OTHER, started_at_ms=sent.started_at_ms - 60_000), attempts)
    write(path, [human("Fix it"), reply(1), reply(2, 3), human("Go on"), reply(3, 9, usage(7))])
    for _ in range(2):
        record(path, ledger, tariff)
        assert outputs(ledger) == [20, 20, 7]


@pytest.mark.parametrize(
    "decided", [{}, {AGENT: Given("haiku", "the one before failed")}], ids=["nothing decided", "decided"]
)
def test_only_what_was_decided_saves(tmp_path: Path, ledger: Ledger, tariff: Tariff, decided: dict[str, Given]) -> None:
    """A subagent on another model saves something only where the hook chose it: then, against the main loop's model."""
    path = write(tmp_path / FILE, [human("Fix it"), reply(1, 1, message={"model": OPUS}), reply(3, 9)])
    sub = {"isSidechain": True, "agentId": AGENT, "message": {"model": "claude-haiku-5-5-20261001"}}
    write(tmp_path / SESSION / "subagents" / f"agent-{AGENT}.jsonl", [human("Look"), reply(2, 4, usage(50), **sub)])
    totals = record(path, ledger, tariff, decided)
    first, agent, _ = ledger.calls()
    assert (agent.call.tier, agent.call.model) == ("haiku", "claude-haiku-5-5")
    assert agent.call.baseline_model == (OPUS if decided else "claude-haiku-5-5")
    assert (totals.saved_nanousd > 0) is bool(decided)
    assert first.call.baseline_nanousd == first.attempts[0].cost_nanousd
    assert [reason.text for reason in agent.call.reasons] == (
        ["the plugin gave this subagent haiku: the one before failed"] if decided else []
    )


def test_models_that_nobody_has_a_price_for(tmp_path: Path, ledger: Ledger, tariff: Tariff) -> None:
    """A model that is not known is recorded with its tokens and without a cost, never at zero."""
    totals = record(write(tmp_path / FILE, [human("x"), reply(1, message={"model": "claude-nova-9"})]), ledger, tariff)
    (stored,) = ledger.calls()
    assert (stored.call.status, stored.call.tier) == (CallStatus.ANSWERED, OTHER_TIER)
    assert (stored.attempts[0].cost_nanousd, stored.call.baseline_nanousd) == (None, None)
    assert (totals.unpriced_calls, totals.spent_nanousd) == (1, 0)
    assert tariff.price("claude-nova-9", date(2026, 11, 2)) is None


def test_counts_beyond_reason(tmp_path: Path, ledger: Ledger, tariff: Tariff) -> None:
    """A row whose counts no ledger could hold keeps no other request of its session from being recorded."""
    mad = usage(5, server_tool_use={"web_search_requests": 10**12})
    record(write(tmp_path / FILE, [human("x"), reply(1, 1, mad), reply(2, 2)]), ledger, tariff)
    assert outputs(ledger) == [20]
