"""Claude Code's transcripts as generated, with an answer that was worked out apart: all of it, to the nano-dollar."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import make_transcripts
from tierwise.config import load_settings
from tierwise.core.calls import ImportedCall, ImportedSession, OwnCost
from tierwise.core.catalog import Model
from tierwise.core.errors import UnpricedModel
from tierwise.core.money import usd_to_nanousd
from tierwise.importers.base import ImportRun
from tierwise.importers.registry import importer
from tierwise.ledger.readings import Readings
from tierwise.prices import PriceBook


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A month of somebody who does not do much."""
    directory = tmp_path_factory.mktemp("made")
    make_transcripts.make(directory, sessions=150, size_bytes=25_000_000, seed=5)
    return directory


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    """The shipped prices."""
    settings = load_settings(env={"HOME": str(tmp_path_factory.mktemp("home"))}, cwd=tmp_path_factory.mktemp("cwd"))
    return PriceBook(settings.prices, settings.providers)


@dataclass
class Sums:
    """What was found, as the answer sums it up."""

    by_day: Counter[str] = field(default_factory=Counter)
    by_model: Counter[str] = field(default_factory=Counter)
    by_project: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    by_session: Counter[str] = field(default_factory=Counter)
    own: dict[str, OwnCost | None] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def take(self, session: ImportedSession, book: PriceBook) -> None:
        """One more session."""
        self.own[session.id] = session.own_cost
        for call in session.calls:
            nanousd = _nanousd(call, book)
            self.ids.append(call.id)
            self.by_day[call.day.isoformat()] += nanousd
            self.by_model[call.model] += nanousd
            self.by_project[Path(call.project or "").name] += nanousd
            self.by_kind[call.kind] += nanousd
            self.by_session[session.id] += nanousd


def _nanousd(call: ImportedCall, book: PriceBook) -> int:
    model = Model(id=call.model, provider=call.provider, context_tokens=1_000_000, max_output_tokens=128_000)
    try:
        return usd_to_nanousd(book.price(model, call.day, call.conditions).cost_usd(call.usage))
    except UnpricedModel:
        return 0


def _spent(sums: dict[str, Any]) -> Counter[str]:
    """A part of the answer, what cost nothing left out."""
    return +Counter({name: found["nanousd"] for name, found in sums.items()})


def test_known_answer(made: Path, book: PriceBook, tmp_path: Path) -> None:
    """Calls, spend by whatever it is summed up, Claude Code's own figures and what was skipped; cold and remembered."""
    answer = json.loads((made / "answer.json").read_text(encoding="utf-8"))
    for _ in ("cold", "remembered"):
        sums = Sums()
        with Readings(tmp_path / "readings.db") as readings:
            run = ImportRun(readings=readings, now_ms=None)
            for found in importer("claude_code").sessions([made / "projects"], run):
                sums.take(found.read(), book)
        assert len(sums.ids) == len(set(sums.ids)) == answer["calls"]
        for name in ("by_day", "by_model", "by_project", "by_kind", "by_session"):
            assert +getattr(sums, name) == _spent(answer[name]), name
        assert sums.by_day.total() == answer["nanousd"]
        assert min(map(date.fromisoformat, sums.by_day)).isoformat() == answer["first_day"]
        assert run.skipped.line_count == answer["broken_lines"]
        assert run.skipped.unknown_kinds == answer["unknown_kinds"]
        assert not run.skipped.unknown_fields
        for name, told in answer["by_session"].items():
            own = sums.own[name]
            if told["claude_code_nanousd"] is None:
                assert own is None
                continue
            assert own is not None
            # Claude Code adds up floating-point numbers: its nano-dollars are not to be relied on, micro-dollars are.
            expected = told["claude_code_nanousd"] - told["taken_over_nanousd"]
            assert abs(usd_to_nanousd(own.total_usd) - expected) < 1_000, name
            assert own.has_unknown_model is told["unknown_model"]


def test_nothing_of_a_text_is_kept(made: Path, tmp_path: Path) -> None:
    """No word of an ask, a reply, an argument or a result is in what is remembered or handed over."""
    path = tmp_path / "readings.db"
    with Readings(path) as readings:
        for found in importer("claude_code").sessions([made / "projects"], ImportRun(readings=readings)):
            assert make_transcripts.CANARY not in repr(found.read())
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert make_transcripts.CANARY.encode() in (next((made / "projects").rglob("*.jsonl"))).read_bytes()
    assert make_transcripts.CANARY.encode() not in written
