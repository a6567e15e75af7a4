"""Importers of exports (plain JSON lines, LiteLLM's spend logs, the console's usage) and of the ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.core.calls import CallKind, ImportedCall, ImportedSession
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind
from tierwise.core.errors import ConfigError
from tierwise.core.money import Conditions, Price, PriceBand, Usage
from tierwise.core.tasks import Classification, Needs, TaskType
from tierwise.importers.base import ImportRun
from tierwise.importers.console import Console
from tierwise.importers.jsonl import JsonLines
from tierwise.importers.litellm import LiteLlm
from tierwise.importers.records import MOST_TOKENS, moment_ms, number
from tierwise.importers.registry import BUILT_IN, importer, importer_names
from tierwise.ledger import Ledger

TRANSLATION = TaskType("translation", "transform", Needs.PROCESSING, recoverable=True)
AT = 1_790_000_000_000
ASK = "Translate 'good morning' into French"


def read(name: str, *roots: Path, run: ImportRun | None = None) -> list[ImportedSession]:
    """All sessions that an importer finds."""
    return [found.read() for found in importer(name).sessions(roots, run or ImportRun())]


def call(name: str, path: Path, run: ImportRun | None = None) -> ImportedCall:
    """The only call in a file."""
    (session,) = read(name, path, run=run)
    (found,) = session.calls
    return found


def lines(path: Path, *records: object) -> Path:
    """A file of JSON lines; texts are written as they are."""
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


# ------------------------------------------------------------------ Plain JSON lines

PLAIN = {"id": "a", "time": "2026-10-20T10:00:00Z", "model": "claude-haiku-5-5", "input_tokens": 10, "output_tokens": 5}


def test_plain_calls(tmp_path: Path) -> None:
    """Every documented field arrives."""
    usage = {
        "input_tokens": 1,
        "output_tokens": 20,
        "cache_read_tokens": 3,
        "cache_write_5m_tokens": 4,
        "cache_write_1h_tokens": 5,
        "thinking_tokens": 6,
        "web_searches": 7,
    }
    told = {
        **PLAIN,
        **usage,
        "session": "s",
        "project": "shop",
        "agent": "a1",
        "agent_type": "Explore",
        "kind": "subagent",
        "phase": "exploring",
        "provider": "anthropic",
        "requested_model": "claude-tierwise-auto",
        "batch": True,
        "inference_geo": "us",
        "effort": "high",
        "stop_reason": "tool_use",
        "compacts": True,
        "tools": ["Read", "Bash"],
        "has_images": True,
        "in_tool_loop": True,
        "cost_usd": "0.25",
    }
    found = call("jsonl", lines(tmp_path / "calls.jsonl", told))
    assert found.usage == Usage(**usage)
    assert (found.session, found.project, found.agent, found.agent_type) == ("s", "shop", "a1", "Explore")
    assert (found.kind, found.phase, found.tools) == (CallKind.SUBAGENT, "exploring", ("Read", "Bash"))
    assert found.conditions == Conditions(batch=True, inference_geo="us")
    assert (found.effort, found.stop_reason, found.compacts) == ("high", "tool_use", True)
    assert (found.has_tools, found.has_images, found.in_tool_loop, found.has_thinking) == (True, True, True, False)
    assert (found.day, found.cost_nanousd) == (date(2026, 10, 20), 250_000_000)


def test_usage_of_either_api(tmp_path: Path) -> None:
    """`usage` may be Anthropic's or OpenAI's own; the latter's cached tokens come out of its prompt tokens."""
    anthropic = {"input_tokens": 100, "output_tokens": 5, "cache_read_input_tokens": 900}
    openai = {"prompt_tokens": 1_000, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 900}}
    for usage in (anthropic, openai):
        bare = {"time": AT, "model": "m", "usage": usage}
        assert call("jsonl", lines(tmp_path / "calls.jsonl", bare)).usage == Usage(100, 5, 900)


def test_sessions_and_repeats(tmp_path: Path) -> None:
    """Calls are grouped and put in order; an id that comes again replaces; what has no session stands alone."""
    file = lines(
        tmp_path / "calls.jsonl",
        {**PLAIN, "id": "late", "session": "s", "time": AT + 2},
        {**PLAIN, "id": "early", "session": "s", "time": AT + 1},
        {**PLAIN, "id": "late", "session": "s", "time": AT + 2, "output_tokens": 6},
        {**PLAIN, "id": "alone", "time": AT},
    )
    alone, together = read("jsonl", file, file)
    assert [found.id for found in alone.calls] == ["alone"]
    assert [(found.id, found.usage.output_tokens) for found in together.calls] == [("early", 5), ("late", 6)]


def test_asks_are_classified_and_forgotten(tmp_path: Path) -> None:
    """An ask reaches the classifier, and nothing that comes out."""
    seen: list[str] = []

    def classify(calls: Sequence[ImportedCall]) -> Sequence[Classification | None]:
        seen.extend(found.ask for found in calls)
        return [Classification(TRANSLATION, 0.9)] * len(calls)

    run = ImportRun(classify=classify)
    plain = lines(tmp_path / "calls.jsonl", {**PLAIN, "ask": ASK})
    logged = lines(tmp_path / "spend.json", spend_log(messages=json.dumps([{"role": "user", "content": ASK}])))
    for name, path in (("jsonl", plain), ("litellm", logged)):
        found = call(name, path, run)
        assert found.classification == Classification(TRANSLATION, 0.9)
        assert ASK not in repr(found)
        assert found.ask == ""
    assert seen == [ASK, ASK]


def test_digests(tmp_path: Path) -> None:
    """A session's digest stays while its calls do, and changes with any of them or with the classifier."""

    def digest(record: object, **run: str) -> str:
        path = lines(tmp_path / "calls.jsonl", record)
        (found,) = JsonLines().sessions([path], ImportRun(classifier_id=run.get("classifier", "")))
        return found.digest

    same = digest(PLAIN)
    others = {digest({**PLAIN, "output_tokens": 6}), digest({**PLAIN, "ask": ASK}), digest(PLAIN, classifier="b")}
    assert same == digest(PLAIN)
    assert len({same, *others}) == 4


# ------------------------------------------------------------------ LiteLLM


def spend_log(**changes: object) -> dict[str, object]:
    """A row of LiteLLM's table, as its API returns it."""
    return {
        "request_id": "chatcmpl-1",
        "call_type": "acompletion",
        "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "spend": 0.0123,
        "total_tokens": 1_050,
        "prompt_tokens": 1_000,
        "completion_tokens": 50,
        "startTime": "2026-10-20T10:00:00.123000+00:00",
        "endTime": "2026-10-20T10:00:02Z",
        "model": "anthropic/claude-sonnet-5-5",
        "model_group": "sonnet",
        "custom_llm_provider": "anthropic",
        "metadata": {"additional_usage_values": {}, "status": "success"},
        "cache_hit": "False",
        "team_id": "shop",
        "session_id": "s",
        "status": "success",
        **changes,
    }


@pytest.mark.parametrize(
    "told",
    [
        {"cache_read_input_tokens": 600, "cache_creation_input_tokens": 300},
        {"prompt_tokens_details": {"cached_tokens": 600, "cache_creation_tokens": 300}},
        # LiteLLM tells both where it can
        {
            "cache_read_input_tokens": 600,
            "cache_creation_input_tokens": 300,
            "prompt_tokens_details": {"cached_tokens": 600, "cache_creation_tokens": 300},
        },
    ],
)
@pytest.mark.parametrize("key", ["additional_usage_values", "usage_object"])
def test_cached_tokens_are_taken_out(tmp_path: Path, told: dict[str, object], key: str) -> None:
    """Cached tokens are inside `prompt_tokens`; they are counted once, whatever they are called."""
    found = call("litellm", lines(tmp_path / "spend.jsonl", spend_log(metadata={key: told})))
    assert found.usage == Usage(100, 50, 600, 300)
    assert (found.model, found.provider, found.requested_model) == ("claude-sonnet-5-5", "anthropic", "sonnet")
    assert (found.session, found.project, found.cost_nanousd) == ("s", "shop", 12_300_000)


def test_writes_by_time_to_live(tmp_path: Path) -> None:
    """One-hour writes are told apart from five-minute ones; thinking, searches, geography and speed are found."""
    told = {
        "prompt_tokens_details": {
            "cache_creation_tokens": 300,
            "cache_creation_token_details": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        },
        "completion_tokens_details": {"reasoning_tokens": 30},
        "server_tool_use": {"web_search_requests": 2},
        "inference_geo": "us",
        "speed": "fast",
    }
    found = call("litellm", lines(tmp_path / "s.jsonl", spend_log(metadata={"additional_usage_values": told})))
    assert found.usage == Usage(700, 50, 0, 100, 200, thinking_tokens=30, web_searches=2)
    assert found.conditions == Conditions(inference_geo="us", fast=True)


def test_prompt_without_its_cache(tmp_path: Path) -> None:
    """A row with more cached tokens than prompt tokens left them out: nothing becomes negative, nothing is lost."""
    told = {"additional_usage_values": {"cache_read_input_tokens": 90_000}}
    assert call("litellm", lines(tmp_path / "s.jsonl", spend_log(metadata=told))).usage == Usage(1_000, 50, 90_000)


def test_litellm_own_cache(tmp_path: Path) -> None:
    """What LiteLLM answered out of its own cache used nothing and cost nothing."""
    found = call("litellm", lines(tmp_path / "s.jsonl", spend_log(cache_hit="True", spend=0)))
    assert (found.usage, found.cost_nanousd) == (Usage(), 0)


def test_spend_log_as_a_table(tmp_path: Path) -> None:
    """The same row as CSV, as an array and under `data` is the same call; metadata may be JSON in a cell."""
    told = {"additional_usage_values": {"cache_read_input_tokens": 600}}
    row = spend_log(metadata=json.dumps(told), messages="")
    quoted = ['"' + str(value).replace('"', '""') + '"' for value in row.values()]
    table = tmp_path / "spend.csv"
    table.write_text("\ufeff" + ",".join(row) + "\r\n" + ",".join(quoted) + "\r\n", encoding="utf-8")
    array = lines(tmp_path / "array.json", [spend_log(metadata=told)])
    page = lines(tmp_path / "page.json", {"data": [spend_log(metadata=told)], "total": 1})
    expected = call("litellm", table)
    assert expected.usage == Usage(400, 50, 600)
    assert call("litellm", array) == call("litellm", page) == expected


def test_failures_and_batches(tmp_path: Path) -> None:
    """A failed request is one; a batch's row stands for many requests at half the price."""
    assert call("litellm", lines(tmp_path / "f.jsonl", spend_log(status="failure"))).failed
    batch = call("litellm", lines(tmp_path / "b.jsonl", spend_log(call_type="aretrieve_batch", prompt_tokens=10**10)))
    assert (batch.conditions, batch.is_sum, batch.usage.input_tokens) == (Conditions(batch=True), True, 10**10)


# ------------------------------------------------------------------ The console

HEADER = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
    "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
    "usage_output_tokens,web_search_count,inference_geo,speed"
)


def export(path: Path, *rows: str, header: str = HEADER) -> Path:
    """A usage export."""
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_console_usage(tmp_path: Path) -> None:
    """A row is spend of a day, under its conditions, and nothing to replay."""
    file = export(
        tmp_path / "usage.csv",
        '2026-10-20,claude-opus-5-5,key,"Shop, Inc",batch,≤ 200k,100,20,30,4000000,50,6,us,fast',
        "2026-10-21,claude-haiku-5-5,key,Default,standard,> 100k,1,0,0,0,1,0,not_available,",
    )
    first, second = (session.calls[0] for session in read("console", file))
    assert first.usage == Usage(100, 50, 4_000_000, 20, 30, web_searches=6)
    assert first.conditions == Conditions(batch=True, inference_geo="us", fast=True)
    assert (first.day, first.project, first.is_sum) == (date(2026, 10, 20), "Shop, Inc", True)
    assert (second.conditions, second.band_prompt_tokens) == (Conditions(), 100_001)


def test_bands_of_sums(tmp_path: Path) -> None:
    """A day's sum is not one long prompt: its band goes by the row's context window."""
    bands = tuple(PriceBand(*[Decimal(rate)] * 5, above_prompt_tokens=above) for rate, above in ((1, 0), (5, 100_000)))
    price = Price("claude-haiku-5-5", bands, "test")
    rows = [f"2026-10-20,claude-haiku-5-5,k,w,standard,{w},1000000,0,0,0,0,0,," for w in ("≤ 100k", "> 100k")]
    ((low, high),) = (session.calls for session in read("console", export(tmp_path / "usage.csv", *rows)))
    costs = [price.cost_usd(one.usage, band_prompt_tokens=one.band_prompt_tokens) for one in (low, high)]
    assert sorted(costs) == [Decimal(1), Decimal(5)]


def test_exports_that_overlap(tmp_path: Path) -> None:
    """A row that a later export has again, with more in it, is counted once, as it is there."""
    row = "2026-10-20,claude-opus-5-5,key,Default,standard,≤ 200k,{},0,0,0,1,0,,"
    export(tmp_path / "1.csv", row.format(100))
    export(tmp_path / "2.csv", row.format(150))
    (session,) = read("console", tmp_path)
    assert [one.usage.input_tokens for one in session.calls] == [150]


def test_older_exports(tmp_path: Path) -> None:
    """Columns that came later may be missing; writes that are not split are five-minute ones."""
    header = (
        "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write,usage_output_tokens"
    )
    file = export(tmp_path / "usage.csv", "2025-06-12,claude-opus-4-20250514,8,5,1", header=header)
    assert call("console", file).usage == Usage(8, 1, 0, 5)


def test_export_of_costs(tmp_path: Path) -> None:
    """The console's other export is refused, and told so: it would count everything twice."""
    header = "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,cost_type"
    file = export(tmp_path / "costs.csv", "2026-10-20,Claude Opus 5.5,w,k,message,,output,1.5,token", header=header)
    run = ImportRun()
    assert read("console", file, run=run) == []
    (skipped,) = run.skipped.lines
    assert "model_version" in skipped.why


# ------------------------------------------------------------------ The ledger


def _record(id: str, session: str | None, at_ms: int, **changes: object) -> CallRecord:
    return CallRecord(
        call_id=id,
        started_at_ms=at_ms,
        status=CallStatus.ANSWERED,
        task_type="translation",
        family="transform",
        needs="processing",
        confidence=0.9,
        abstained=False,
        tier="haiku",
        model="claude-haiku-5-5",
        planned_tier="haiku",
        baseline_model="claude-opus-5-5",
        baseline_nanousd=1,
        session=session,
        project="shop",
        tags=(("kind", "subagent"),),
    )


def _attempt(id: str, place: int, at_ms: int, outcome: OutcomeKind, model: str = "claude-haiku-5-5") -> AttemptRecord:
    return AttemptRecord(
        call_id=id,
        number=place,
        tier="haiku",
        model=model,
        provider="anthropic",
        started_at_ms=at_ms,
        outcome=outcome,
        usage=Usage(10 * place, 5),
        cost_nanousd=7,
    )


def test_ledger_calls(tmp_path: Path) -> None:
    """Attempts are calls: rejected ones cost, open ones and such as were never sent are left out."""
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        for id, session, at_ms in (("c1", "s", AT), ("c2", None, AT + 1), ("c3", "s", AT + 2)):
            ledger.begin(_record(id, session, at_ms))
            ledger.attempt_finished(_attempt(id, 1, at_ms, OutcomeKind.REJECTED))
            ledger.attempt_finished(_attempt(id, 2, at_ms + 1, OutcomeKind.ACCEPTED, "claude-sonnet-5-5"))
            ledger.attempt_finished(_attempt(id, 3, at_ms + 1, OutcomeKind.NOT_RUN))
    run = ImportRun(task_types={"translation": TRANSLATION})
    found = list(importer("ledger").sessions([path], run))
    assert [(one.id, one.calls, one.project) for one in found] == [("s", 4, "shop"), ("call c2", 2, "shop")]
    together, alone = (one.read() for one in found)
    assert [(one.id, one.failed) for one in together.calls] == [
        ("c1:1", True),
        ("c1:2", False),
        ("c3:1", True),
        ("c3:2", False),
    ]
    assert [one.model for one in alone.calls] == ["claude-haiku-5-5", "claude-sonnet-5-5"]
    assert {(one.kind, one.classification) for one in together.calls} == {
        (CallKind.SUBAGENT, Classification(TRANSLATION, 0.9))
    }
    assert [one.digest for one in importer("ledger").sessions([path], run)] == [one.digest for one in found]


def test_default_ledger(tmp_path: Path) -> None:
    """The user's own ledger is found where it is, and not missed where there is none."""
    source = importer("ledger")
    assert not source.default_roots({}, tmp_path)
    path = tmp_path / ".local/share/tierwise/ledger.db"
    with Ledger(path) as ledger:
        ledger.begin(_record("c", None, AT))
    assert list(source.default_roots({}, tmp_path)) == [path]
    assert list(source.default_roots({"TIERWISE_LEDGER": str(path)}, tmp_path / "other")) == [path]


@pytest.mark.parametrize("content", [None, b"", b"not a database" * 100])
def test_ledgers_that_are_none(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, empty or no ledger is told, and makes nothing."""
    path = tmp_path / "ledger.db"
    if content is not None:
        path.write_bytes(content)
    run = ImportRun()
    assert read("ledger", path, run=run) == []
    assert content == b"" or [line.file for line in run.skipped.lines] == [str(path)]
    assert path.exists() is (content is not None)


# ------------------------------------------------------------------ Hostile input

BROKEN: dict[str, str] = {
    "truncated": '{"id": "x", "time": "2026-10-20T10:0',
    "deep": "[" * 100_000 + "]" * 100_000,
    "list": "[1, 2]",
    "string": '"text"',
    "nul": "\0\0\0",
    "not-utf-8": "\udcff\udcfe",
    "huge-number": json.dumps({**PLAIN, "input_tokens": 10**400}),
    "digits": '{"time": 1790000000000, "model": "m", "input_tokens": ' + "9" * 5_000 + "}",
    "beyond-reason": json.dumps({**PLAIN, "input_tokens": MOST_TOKENS + 1}),
    "negative": json.dumps({**PLAIN, "output_tokens": -1}),
    "fraction": json.dumps({**PLAIN, "output_tokens": 1.5}),
    "nan": '{"time": "2026-10-20T10:00:00Z", "model": "m", "input_tokens": NaN, "output_tokens": 1}',
    "boolean": json.dumps({**PLAIN, "input_tokens": True}),
    "object": json.dumps({**PLAIN, "input_tokens": {}}),
    "no-time": json.dumps({**PLAIN, "time": None}),
    "ancient": json.dumps({**PLAIN, "time": "0001-01-01T00:00:00+14:00"}),
    "far-future": json.dumps({**PLAIN, "time": 10**30}),
    "nan-time": '{"time": NaN, "model": "m", "input_tokens": 1}',
    "no-model": json.dumps({**PLAIN, "model": ""}),
    "no-tokens": json.dumps({"time": AT, "model": "m"}),
    "strange-usage": json.dumps({"time": AT, "model": "m", "usage": {"input_tokens": "many", "output_tokens": 1}}),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_lines(tmp_path: Path, kind: str) -> None:
    """A line that cannot be used is counted with file and number; those around it are read."""
    path = tmp_path / "calls.jsonl"
    good = [json.dumps({**PLAIN, "id": id, "session": "s"}) for id in "ab"]
    path.write_bytes("\n".join([good[0], BROKEN[kind], good[1]]).encode("utf-8", "surrogateescape"))
    run = ImportRun()
    (session,) = read("jsonl", path, run=run)
    assert [one.id for one in session.calls] == ["a", "b"]
    assert [(line.file, line.line) for line in run.skipped.lines] == [(str(path), 2)]
    assert "good morning" not in run.skipped.lines[0].why


def test_numbers_as_texts(tmp_path: Path) -> None:
    """Whole numbers in quotes count; times may be seconds or milliseconds."""
    told = {**PLAIN, "input_tokens": "10", "output_tokens": 5.0, "time": AT // 1000}
    found = call("jsonl", lines(tmp_path / "calls.jsonl", told))
    assert (found.usage, found.at_ms) == (Usage(10, 5), AT)


def test_fields_nobody_knows(tmp_path: Path) -> None:
    """A count under a name that nobody knows may cost something, and is told."""
    run = ImportRun()
    call("jsonl", lines(tmp_path / "calls.jsonl", {**PLAIN, "hologram_tokens": 5, "colour": "red"}), run)
    assert run.skipped.unknown_fields == {"hologram_tokens": 1}


@pytest.mark.parametrize("name", ["jsonl", "litellm", "console"])
def test_files_that_are_none(tmp_path: Path, name: str) -> None:
    """Links in circles, pipes, files that are gone or may not be read, binaries: nothing hangs, nothing raises."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "round").symlink_to(folder)
    (folder / "dangling.csv").symlink_to(tmp_path / "gone")
    os.mkfifo(folder / "pipe.csv")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 50)
    (folder / "quote.csv").write_text(f'{HEADER}\n"never closed' + "x\n" * 1_000)
    (folder / "empty.json").touch()
    run = ImportRun()
    assert read(name, folder, tmp_path / "gone", folder / "pipe.csv", run=run) == []
    assert {str(tmp_path / "gone"), str(folder / "pipe.csv")} <= {line.file for line in run.skipped.lines}


def test_long_lines(tmp_path: Path) -> None:
    """A line of forty million bytes is passed over, its neighbours are not."""
    path = tmp_path / "calls.jsonl"
    with path.open("wb") as file:
        file.write(json.dumps({**PLAIN, "id": "a", "session": "s"}).encode() + b"\n")
        file.write(b'{"ask": "' + b"x" * 40_000_000 + b'"}\n')
        file.write(json.dumps({**PLAIN, "id": "b", "session": "s"}).encode())
    run = ImportRun()
    (session,) = read("jsonl", path, run=run)
    assert [one.id for one in session.calls] == ["a", "b"]
    assert [line.line for line in run.skipped.lines] == [2]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_any_value(value: object) -> None:
    """Counts and times are whole numbers in range, or nothing, whatever stands there."""
    count, at = number(value), moment_ms(value)  # type: ignore[arg-type]
    assert count is None or (type(count) is int and 0 <= count <= MOST_TOKENS)
    assert at is None or (type(at) is int and 0 < at < 10**13)


@given(st.dictionaries(st.sampled_from([*spend_log(), *PLAIN, *HEADER.split(","), "usage", "tools"]), VALUES))
def test_any_record(tmp_path_factory: pytest.TempPathFactory, record: dict[str, object]) -> None:
    """Any object is a call or is counted as skipped; nothing raises."""
    path = lines(tmp_path_factory.getbasetemp() / "any.jsonl", record)
    for source in (JsonLines(), LiteLlm(), Console()):
        run = ImportRun()
        found = list(source.sessions([path], run))
        assert len(found) + run.skipped.line_count == 1


# ------------------------------------------------------------------ By name


def test_names() -> None:
    """Every importer is found by its name; one that is not there is refused with the names of those that are."""
    assert set(BUILT_IN) <= set(importer_names())
    for name in set(BUILT_IN) - {"claude_code"}:
        assert importer(name).name == name
    with pytest.raises(ConfigError, match=r"'excel'.*console.*jsonl.*ledger.*litellm"):
        importer("excel")
