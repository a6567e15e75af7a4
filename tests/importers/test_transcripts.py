"""The generator of transcripts: what it says is in them is in them, by a plain reading that shares nothing with it."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

import make_transcripts
from tierwise.config import load_settings
from tierwise.core.catalog import Model
from tierwise.core.money import Conditions, Usage, usd_to_nanousd
from tierwise.prices import PriceBook

SIZE = {"sessions": 120, "size_bytes": 16_000_000}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small directory."""
    directory = tmp_path_factory.mktemp("made")
    make_transcripts.make(directory, **SIZE)
    return directory


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    """The shipped prices."""
    settings = load_settings(env={"HOME": str(tmp_path_factory.mktemp("home"))}, cwd=tmp_path_factory.mktemp("cwd"))
    return PriceBook(settings.prices, settings.providers)


def test_repeatable(made: Path, tmp_path: Path) -> None:
    """The same arguments write the same bytes; another seed writes others."""
    make_transcripts.make(tmp_path / "again", **SIZE)
    names = {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    again = tmp_path / "again"
    assert {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()} == names
    other = make_transcripts.make(tmp_path / "other", sessions=1, size_bytes=1, seed=2)
    assert not set(other.by_session) & set(json.loads((made / "answer.json").read_text())["by_session"])


def test_the_answer(made: Path, book: PriceBook) -> None:
    """A plain reading, at the product's own prices, finds the calls, spend and rows that the answer tells of."""
    answer = json.loads((made / "answer.json").read_text(encoding="utf-8"))
    rows, broken, kinds = 0, 0, Counter[str]()
    calls: dict[str, tuple[str, str, dict[str, int], str]] = {}
    for path in sorted((made / "projects").rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            rows += 1
            try:
                row = json.loads(line)
            except ValueError:
                broken += 1
                continue
            kinds[row["type"]] += 1
            if row["type"] == "assistant" and row["message"]["model"] != "<synthetic>":
                message = row["message"]
                calls[row["requestId"]] = (message["model"], row["timestamp"][:10], message["usage"], row["cwd"])
    assert (rows, broken, len(calls)) == (answer["rows"], answer["broken_lines"], answer["calls"])
    assert kinds[make_transcripts.UNKNOWN_KIND] == answer["unknown_kinds"].get(make_transcripts.UNKNOWN_KIND, 0)
    by_day, by_project = Counter[str](), Counter[str]()
    for model, day, usage, cwd in calls.values():
        if model != make_transcripts.UNPRICED:
            nanousd = _nanousd(book, model, day, usage)
            by_day[day] += nanousd
            by_project[Path(cwd).name] += nanousd
    assert by_day.total() == answer["nanousd"]
    assert dict(by_day) == {day: found["nanousd"] for day, found in answer["by_day"].items() if found["nanousd"]}
    assert by_project == Counter({name: found["nanousd"] for name, found in answer["by_project"].items()})


def _nanousd(book: PriceBook, model: str, day: str, usage: dict[str, object]) -> int:
    writes, searches = usage["cache_creation"], usage["server_tool_use"]
    assert isinstance(writes, dict)
    assert isinstance(searches, dict)
    tokens = Usage(
        input_tokens=int(str(usage["input_tokens"])),
        output_tokens=int(str(usage["output_tokens"])),
        cache_read_tokens=int(str(usage["cache_read_input_tokens"])),
        cache_write_5m_tokens=writes["ephemeral_5m_input_tokens"],
        cache_write_1h_tokens=writes["ephemeral_1h_input_tokens"],
        web_searches=searches["web_search_requests"],
    )
    named = Model(id=model, provider="anthropic", context_tokens=1_000_000, max_output_tokens=128_000)
    conditions = Conditions(inference_geo=str(usage["inference_geo"]) or None)
    return usd_to_nanousd(book.price(named, date.fromisoformat(day), conditions).cost_usd(tokens))


def test_everything_occurs(made: Path) -> None:
    """Even a small directory has forks, agents, both times to live, models without a price, and what is missing."""
    answer = json.loads((made / "answer.json").read_text(encoding="utf-8"))
    assert any(session["fork_of"] for session in answer["by_session"].values())
    assert answer["by_kind"]["subagent"]["calls"]
    assert all(answer["tokens"].values())
    assert answer["unpriced_calls"]
    assert answer["reconciled"]["unknown_model_sessions"]
    assert 0 < answer["reconciled"]["agreeing"] < answer["reconciled"]["sessions"]
    assert set(answer["by_model"]) == {*make_transcripts.PRICES, make_transcripts.UNPRICED}
