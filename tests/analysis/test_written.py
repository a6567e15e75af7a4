"""What is written down of the findings: JSON and its schema, the screen, the page, and rows for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.analysis.sessions import session_of, totals_of
from tests.replay.sessions import SETTINGS
from tierwise.analysis.advise import advised
from tierwise.analysis.aggregate import Totals
from tierwise.analysis.findings import Skipped, SkippedRow, UnknownKind, as_json, classes, json_schema, keys_of
from tierwise.analysis.html import page
from tierwise.analysis.names import printable, short_names
from tierwise.analysis.screen import HEIGHT, WIDTH, plain, screen
from tierwise.analysis.table import csv_lines
from tierwise.cli.output import plain as plain_json

HOSTILE = '/x/<script>alert(1)</script>"&\x1b[31m\u202e\ud800'
SKIPPED = Skipped(
    lines=3,
    unknown_kinds=(UnknownKind(kind="hologram", rows=7),),
    unknown_fields=(UnknownKind(kind="dream_tokens", rows=1),),
    examples=(SkippedRow(file="/home/ana/a.jsonl", line=7, why="not JSON"),),
)


def totals() -> Totals:
    """A month of everything that a report can show, with names that mean harm."""
    models = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5", "x" * 200, HOSTILE]
    types = ["code_generation", "code_review", "summarization", "tagging", "unknown", "translation", "rewriting"]
    projects = ["/home/ana/shop", "/srv/shop", HOSTILE, "=cmd", "日本語" * 20, "", "/a", "/b"]
    sessions = [
        session_of(
            k,
            spent=3 + k,
            low=2 + k * 0.5,
            expected=2.5 + k * 0.6,
            high=4 + k,
            cell=(f"2026-11-{k % 28 + 1:02}", projects[k % 8], models[k % 6], types[k % 7]),
            agents={HOSTILE: [4, 0, (3 + k) * 10**9, *[0] * 8]},
            policies={"opusplan": (10**9, 1), "haiku-subagents": (2 * 10**9, 0)},
            levers={"cache_1h": (10**9, 3), "batch": (-(10**9), 3)},
            unpriced_models=(HOSTILE,),
            own_usd=str(3 + k if k % 5 else 4 + k),
        )
        for k in range(60)
    ]
    found = totals_of(sessions, skipped=SKIPPED)
    findings = replace(advised(found.findings, SETTINGS), unpriced_calls=4)
    return replace(found, findings=findings)


@pytest.fixture(scope="module")
def made() -> Totals:
    """Made once."""
    return totals()


def test_json_is_what_its_schema_says(made: Totals) -> None:
    """The schema is valid, describes what is written, and has the keys that others rely on."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(json.dumps(plain_json(as_json(made.findings)), allow_nan=False))
    jsonschema.validate(document, schema)
    assert set(document["period"]) == {"from", "to"}
    assert {
        "schema_version",
        "sessions",
        "calls",
        "actual_usd",
        "reconciled",
        "by_model",
        "by_task_type",
        "by_project",
        "by_day",
        "counterfactual",
        "levers",
        "skipped",
    } <= set(document)
    assert {
        "sessions",
        "agreeing",
        "claude_code_usd",
        "ours_usd",
        "not_in_transcript_usd",
        "unknown_model_sessions",
    } <= set(document["reconciled"])
    assert {"expected_usd", "low_usd", "high_usd", "saved_pct"} <= set(document["counterfactual"])
    assert {"lines", "unknown_kinds"} <= set(document["skipped"])


def test_a_schema_refuses_what_is_not_there(made: Totals) -> None:
    """A document that lacks a key, or says a number as a text, does not pass."""
    document = plain_json(as_json(made.findings))
    for broken in ({**document, "calls": "3"}, {key: value for key, value in document.items() if key != "levers"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, json_schema())


def test_no_two_keys_of_an_object_are_called_the_same() -> None:
    """Every class has its keys once, whatever it takes over from its sums."""
    for kind in classes():
        names = [key.name for key in keys_of(kind)]
        assert len(names) == len(set(names))


# ------------------------------------------------------------------ the screen


def test_it_fits_a_screen(made: Totals) -> None:
    """Whatever there is to say, it is at most 40 lines of 80 columns, a prompt included."""
    from rich.cells import cell_len

    lines = plain(screen(made.findings)).splitlines()
    assert len(lines) < HEIGHT
    assert max(map(cell_len, lines)) <= WIDTH


def test_it_says_what_matters(made: Totals) -> None:
    """Privacy, what was spent, what routing would have cost as a range, what to change, and what was not read."""
    shown = plain(screen(made.findings))
    assert "Everything stays on this machine" in shown
    assert "spent         $1,950.00" in shown
    assert "% less, between" in shown
    assert "changes worth most" in shown
    assert "agrees in 48 of 60 sessions" in shown
    assert "Skipped: 3 unreadable lines, 2 unknown kinds of rows and fields (--full: which)" in shown


def test_the_full_report_lists_everything(made: Totals) -> None:
    """Every model, session, difference and skipped line; what the range rests on; the other policies."""
    shown = plain(screen(made.findings, full=True))
    assert "/home/ana/a.jsonl:7: not JSON" in shown
    assert "hologram: 7" in shown
    assert "prompts written anew" in shown
    assert "opusplan" in shown
    assert len([line for line in shown.splitlines() if "session-" in line]) >= 60


def test_names_cannot_steer_a_terminal(made: Totals) -> None:
    """No control character of a project's or an agent's name comes through."""
    shown = plain(screen(made.findings, full=True))
    assert all(char.isprintable() for char in shown.replace("\n", ""))


def test_a_policy_that_costs_more_is_said_to() -> None:
    """Nobody is told to route where it does not pay."""
    found = advised(totals_of([session_of(spent=10, low=11, expected=12, high=13)]).findings, SETTINGS)
    shown = plain(screen(found))
    assert "it would cost $2.00 more: not advised" in shown
    assert "No change was found" in shown


def test_projects_are_told_apart_by_as_little_as_it_takes() -> None:
    """The last part of a path, more where two end alike, and something for none."""
    names = short_names(["/home/ana/shop", "/srv/shop", "C:\\work\\api", "", "/"])
    assert list(names.values()) == ["ana/shop", "srv/shop", "api", "(no project)", "/"]
    assert printable("a\x1b[1m\u202eb") == "a·[1m·b"


def test_nothing_of_a_home_directory_is_in_a_projects_name() -> None:
    """Below it a path begins with a tilde, as does a directory's name that stands for such a path; others are kept."""
    names = short_names(["/home/ana", "/home/ana/shop", "/srv/shop", "-home-ana-till", "/home/anan/x"], "/home/ana/")
    assert list(names.values()) == ["~", "~/shop", "srv/shop", "till", "x"]


# ------------------------------------------------------------------ the page


class Elements(HTMLParser):
    """What a browser would make of it, as far as it could do harm."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


def test_the_page_needs_nothing_and_runs_nothing(made: Totals) -> None:
    """No script, no handler, no address, no style that its own policy would refuse; names are text."""
    text = page(made)
    found = Elements()
    found.feed(text)
    assert not found.tags & {"script", "iframe", "object", "embed", "link", "img", "form", "base", "a", "foreignobject"}
    names = {name for name, _ in found.attributes}
    assert not names & {"src", "href", "style", "srcdoc", "action"}
    assert not any(name.startswith("on") for name in names)
    assert "http://" not in text.replace("http-equiv", "") and "https://" not in text and "url(" not in text
    assert "default-src 'none'" in text
    assert "<script>" not in text and "&lt;script&gt;" in text
    text.encode()  # half a surrogate pair would not be UTF-8


def test_its_policy_allows_its_own_style_alone(made: Totals) -> None:
    """The hash in the policy is that of the style sheet."""
    import base64
    import hashlib

    text = page(made)
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in text


def test_a_page_to_send_on_tells_no_home() -> None:
    """Whoever gets it does not learn what its maker's account is called."""
    cells = [("2026-11-02", project, "claude-opus-5-5", "tagging") for project in ("/home/ana", "/home/ana/shop")]
    text = page(totals_of([session_of(k, cell=cell) for k, cell in enumerate(cells)]), "/home/ana")
    assert "shop" in text
    assert "ana" not in re.findall(r"\w+", text)


def test_every_chart_has_a_title_and_its_figures_as_a_table(made: Totals) -> None:
    """Each drawing names itself for who cannot see it, is well-formed, and is followed by a table."""
    text = page(made)
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 7
    for chart in charts:
        drawn = ElementTree.fromstring(chart)  # noqa: S314  our own
        assert drawn.get("role") == "img"
        title = drawn.find("title")
        assert title is not None and title.text and drawn.get("aria-labelledby") == title.get("id")
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert text.count("<table>") >= len(charts)


def test_bars_are_as_long_as_what_they_show(made: Totals) -> None:
    """The dearest fills its width; none is longer, none below nothing."""
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([0-9.]+)%"', page(made))]
    assert max(widths) == 100
    assert min(widths) >= 0


def test_long_periods_are_shown_by_week() -> None:
    """A year of days would be hairlines."""
    cells = [("2025-11-05", "/a", "m", "tagging"), ("2026-11-02", "/a", "m", "tagging")]
    shown = page(totals_of([session_of(k, cell=cell) for k, cell in enumerate(cells)]))
    assert "US$ spent by week" in shown
    assert ">2025-11-03<" in shown  # the Monday before


def test_an_empty_page_is_a_page() -> None:
    """Nothing found is no reason to fail."""
    assert "No change was found" in page(totals_of([]))


def test_free_calls_divide_by_nothing() -> None:
    """Where nothing cost anything, shares are of nothing."""
    free = totals_of([session_of(spent=0, low=0, expected=0, high=0)])
    assert "$0.00" in page(free)
    assert "spent" in plain(screen(free.findings))


# ------------------------------------------------------------------ rows


def test_rows_are_exact_and_harmless_in_a_spreadsheet(made: Totals) -> None:
    """One row a cell, amounts that add up to the nano-dollar, and no text that is a formula."""
    rows = list(csv.DictReader(io.StringIO("".join(csv_lines(made.cells)))))
    assert len(rows) == len(made.cells)
    assert sum(Decimal(row["actual_usd"]) for row in rows) == made.findings.actual_usd
    assert sum(Decimal(row["routed_usd"]) for row in rows) == sum(row.routed_usd for row in made.findings.by_day)
    assert "'=cmd" in {row["project"] for row in rows}
    assert list(rows[0])[:6] == ["day", "project", "model", "task_type", "calls", "unpriced_calls"]
