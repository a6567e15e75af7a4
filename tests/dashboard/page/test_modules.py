"""The page's own modules, in the browser that they are for: addresses, figures as text, exports, events, elements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboard.page.conftest import Gateways, Look, Seen, opened
from tests.gateway.conftest import Served

NOW_MS = 1_780_000_000_000


@pytest.fixture
def page(look: Look, bare: Served) -> Seen:
    """A page of its own, for what draws in it."""
    seen = look(bare)
    seen.open()
    return seen


@pytest.fixture(scope="module")
def shared(chromium: Browser, gateways: Gateways) -> Iterator[Seen]:
    """A page for what draws nothing."""
    seen = opened(chromium, gateways.over("bare", lambda ledger: None))
    seen.open()
    yield seen
    seen.page.context.close()


@pytest.fixture
def modules(shared: Seen) -> Iterator[Seen]:
    """A page whose modules can be imported."""
    yield shared
    assert shared.complaints == []


def run(seen: Seen, module: str, code: str, given: Any = None) -> Any:
    """What some code finds that has a module of the page as `m`."""
    return seen.page.evaluate(f"async (given) => {{ const m = await import('./{module}.js'); {code} }}", given)


@pytest.mark.parametrize(
    "address",
    [
        "?",
        "?view=calls&range=24h&tier=haiku&text=a+b%26c",
        "?view=task-types&since=2026-11-01T00%3A00%3A00.000Z&until=2026-11-02T00%3A00%3A00.000Z&project=%3Cb%3E",
        "?view=calls&status=failed&min_cost_usd=0.5&call=x%2Fy",
        "?project=&key=&tier=haiku",
    ],
)
def test_an_address_comes_back_as_it_was(modules: Seen, address: str) -> None:
    """What the page is looking at can be sent to somebody else."""
    assert run(modules, "state", "return m.serialize(m.parse(given))", address) == address


@pytest.mark.parametrize(
    "address",
    [
        "?view=nonsense",
        "?range=toString",
        "?since=never&until=2026-11-02",
        "?since=2026-11-02T00:00:00Z&until=2026-11-01T00:00:00Z",
        "?since=-200000-01-01T00:00:00Z&until=%2B200000-01-01T00:00:00Z",
        "?__proto__=1&constructor=2",
        "?session=&tier=&text=&call=",
    ],
)
def test_an_address_that_makes_no_sense_is_the_usual_one(modules: Seen, address: str) -> None:
    """A mangled link opens the page, not an error."""
    assert run(modules, "state", "return m.serialize(m.parse(given))", address) == "?"


def test_time_can_be_moved_and_zoomed(modules: Seen) -> None:
    """Half of what is seen earlier; half and twice as much about the same middle; never less than a minute, nor beyond
    what the server can be asked of."""
    code = """
      const state = m.between(m.parse("?"), given - 7_200_000, given - 3_600_000);
      const hours = (next) => Object.values(m.span(next, given)).map((at) => (at - given) / 3_600_000);
      const [earlier, nearer] = [m.shifted(state, -0.5, given), m.zoomed(state, 0.5, given)];
      let [widest, latest] = [state, state];
      for (let times = 0; times < 100; times += 1) widest = m.shifted(m.zoomed(widest, 2, given), 0.5, given);
      for (let times = 0; times < 100; times += 1) latest = m.shifted(m.zoomed(latest, 2, given), -0.5, given);
      return [
        [earlier, nearer, m.zoomed(state, 2, given), m.between(state, given, given)].map(hours),
        [widest.since, widest.until, latest.since].map((at) => at.slice(0, 4)),
      ];
    """
    (earlier, nearer, wider, shortest), years = run(modules, "state", code, NOW_MS)
    assert all("1970" <= year <= "9999" for year in years)
    assert earlier == [-2.5, -1.5]
    assert nearer == [-1.75, -1.25]
    assert wider == [-2.5, -0.5]
    assert shortest == [0, pytest.approx(1 / 60)]


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", "$0.00"),
        ("1234.5", "$1,234.50"),
        ("-0.31", "−$0.31"),
        ("0.123456", "$0.123"),
        ("0.00012345", "$0.000123"),
        ("123456789012345678.01", "$123,456,789,012,345,678.01"),
        (None, "—"),
    ],
)
def test_money_is_formatted_from_its_digits(modules: Seen, usd: str | None, text: str) -> None:
    """Never through a float; little money shows digits that say something; what nobody knows is no zero."""
    assert run(modules, "format", "return m.money(given)", usd) == text


def test_a_duration_is_rounded_to_what_is_shown(modules: Seen) -> None:
    """Never to sixty of a unit that has sixty."""
    code = "return given.map(m.duration)"
    given = [0.2, 999.4, 999.6, 9_996, 59_949, 59_960, 119_800, 3_599_600, 7_199_000]
    texts = ["0 ms", "999 ms", "1.00 s", "10.0 s", "59.9 s", "1 min 0 s", "2 min 0 s", "1 h 0 min", "2 h 0 min"]
    assert run(modules, "format", code, given) == texts


def test_money_is_shorter_where_there_is_little_room(page: Seen) -> None:
    """A figure on a card is not broken over lines; what it is exactly stands in the sentence above."""
    given = [None, "999.5", "31415.92", "-31415.92", "891000", "143000000"]
    texts = ["—", "$999.50", "$31,416", "−$31,416", "$891.0K", "$143.0M"]
    assert run(page, "format", "return given.map(m.moneyShort)", given) == texts


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        ("12", "10", "+20 %"),
        ("9.5", "10", "−5.0 %"),
        ("10", "10", "no change"),
        ("3", "0", "new"),
        ("1", "-1", "+200 %"),
        (None, "1", None),
        ("500", "1", "+500×"),
    ],
)
def test_a_change_says_how_much(modules: Seen, now: str | None, before: str, text: str | None) -> None:
    """Against the period before, signed, also where that was a loss."""
    assert run(modules, "format", "return m.change(...given)", [now, before]) == text


@pytest.mark.parametrize(
    ("values", "step", "texts"),
    [
        ([0, 0.025, 0.05], 0.025, ["$0", "$0.025", "$0.050"]),
        ([0.5, 1], 0.5, ["$0.50", "$1.00"]),
        ([-2, 4], 2, ["−$2", "$4"]),
        ([0, 2e-8], 2e-8, ["$0", "$0.00000002"]),
        ([2_000_000], 2_000_000, ["$2M"]),
    ],
)
def test_an_axis_tells_its_ticks_apart(modules: Seen, values: list[float], step: float, texts: list[str]) -> None:
    """Ticks of one axis have as many digits as their step needs, all of them the same."""
    code = "return given.values.map((value) => m.moneyTick(value, given.step))"
    assert run(modules, "format", code, {"values": values, "step": step}) == texts


def test_a_moment_of_another_year_tells_the_year(modules: Seen) -> None:
    """The last year does not begin and end on the same day."""
    code = """
      const [now, before] = [new Date(), new Date()];
      before.setFullYear(now.getFullYear() - 1);
      const ticks = m.timeTicks([before / 1000, now / 1000], 604_800);
      return [m.spanOf(before, now), ...ticks, String(now.getFullYear()), String(now.getFullYear() - 1)];
    """
    span, first, last, this_year, that_year = run(modules, "format", code)
    assert that_year in span
    assert this_year not in span
    assert first.endswith(that_year)
    assert last.endswith(this_year)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3_600, "1 hour"), (10_800, "3 hours"), (86_400, "1 day (UTC)"), (1_209_600, "2 weeks (UTC)")]
)
def test_a_chart_says_how_long_its_bars_are(modules: Seen, seconds: int, text: str) -> None:
    """In hours, days and weeks."""
    assert run(modules, "format", "return m.stretchOf(given)", seconds) == text


def test_a_chart_tells_of_the_bar_under_the_mouse(page: Seen) -> None:
    """Over the right half of a bar, too, with when it begins and ends, and what its layers add up to."""
    code = """
      const lines = [{ name: "low", level: 0, values: [1, 30] }, { name: "high", level: 1, values: [2, 40] }];
      const starts = ["2020-11-01T00:00:00Z", "2020-11-02T00:00:00Z"];
      const [interval_seconds, kind, whole, tick, tell] = [86_400, "stack", true, String, String];
      const chart = m.timeChart({ title: "T", starts, interval_seconds, lines, kind, whole, tick, tell });
      document.getElementById("view").replaceChildren(chart.element);
    """
    run(page, "charts", code)
    box = page.page.locator(".chart .u-over").bounding_box()
    assert box is not None
    page.page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 10)
    tip = page.page.locator(".chart .tip")
    expect(tip).to_contain_text("together3")
    expect(tip).to_contain_text(re.compile(r"1 Nov 2020.*2 Nov 2020"))


def test_a_chart_that_is_not_shown_holds_nothing(page: Seen) -> None:
    """Off the page it lets go of what it was drawn with, can still be taken along as a picture, and comes back."""
    code = """
      const lines = [{ name: "low", level: 0, values: [1, 30] }];
      const starts = ["2020-11-01T00:00:00Z", "2020-11-02T00:00:00Z"];
      const [interval_seconds, kind, tick, tell] = [86_400, "stack", String, String];
      window.chart = m.timeChart({ title: "T", starts, interval_seconds, lines, kind, tick, tell });
      document.getElementById("view").replaceChildren(chart.element);
    """
    pixels = """async () => {
      const picture = await createImageBitmap(await chart.png());
      const pen = new OffscreenCanvas(picture.width, picture.height).getContext("2d", { willReadFrequently: true });
      pen.drawImage(picture, 0, 0);
      return [0.05, 0.75].map((x) => [...pen.getImageData(picture.width * x, picture.height / 2, 1, 1).data]);
    }"""
    run(page, "charts", code)
    canvas = page.page.locator(".chart canvas")
    expect(canvas).to_have_count(1)
    page.page.evaluate("document.getElementById('view').replaceChildren()")
    page.page.wait_for_function("() => !chart.element.querySelector('canvas')")
    ground, bar = page.page.evaluate(pixels)
    assert bar != ground
    page.page.evaluate("document.getElementById('view').replaceChildren(chart.element)")
    expect(canvas).to_have_count(1)


def test_csv_cannot_become_a_formula(modules: Seen) -> None:
    """A spreadsheet shows what stood there; numbers stay numbers."""
    rows = [["a", "b"], ["=1+1", "-2.5"], ["@x", '"q", r'], ["line\nbreak", None]]
    assert run(modules, "parts", "return m.csvText(given)", rows) == (
        'a,b\r\n\'=1+1,-2.5\r\n\'@x,"""q"", r"\r\n"line\nbreak",\r\n'
    )


def test_events_are_read_however_they_are_cut(modules: Seen) -> None:
    """A stream split at every byte, in the middle of a character too, brings the same events."""
    code = """
      const bytes = new TextEncoder().encode(given);
      const found = [];
      for (let at = 0; at <= bytes.length; at += 1) {
        const halves = [bytes.slice(0, at), bytes.slice(at)];
        const body = new ReadableStream({
          pull(controller) { halves.length ? controller.enqueue(halves.shift()) : controller.close(); },
        });
        const heard = [];
        for await (const event of m.events(body)) heard.push(event);
        found.push(JSON.stringify(heard));
      }
      return [...new Set(found)];
    """
    sent = ': hello\n\nevent: calls\ndata: {"é":1}\n\ndata: two\ndata: lines\n\n'
    assert run(modules, "api", code, sent) == ['[["calls","{\\"é\\":1}"],["message","two\\nlines"]]']


def test_layers_and_shares_add_up(modules: Seen) -> None:
    """A stacked chart's top is the whole; shares are of that, and nothing of nothing is no share."""
    code = "return [m.sums(given), m.shares(given)]"
    sums, shares = run(modules, "charts", code, [[1, 0, None], [3, 0, 2]])
    assert sums == [[1, 0, 0], [4, 0, 2]]
    assert shares == [[0.25, None, 0], [0.75, None, 1]]


def test_a_chart_of_losses_shows_them(modules: Seen) -> None:
    """As large as they are, below zero; a chart of nothing still has an axis."""
    code = "return given.map((values) => m.heights(...values))"
    found = run(modules, "charts", code, [[-2e-5, -1e-5], [-1, 1], [1, 2], [0, 0]])
    assert found == [[pytest.approx(-2.12e-5), 0], [-1.06, 1.06], [0, 2.12], [0, 1]]


def test_an_element_takes_no_script(modules: Seen) -> None:
    """Listeners and styles cannot be set as attributes, where data could get into them."""
    code = """
      const refused = (name) => {
        try { m.h("p", { [name]: "x" }); return false; } catch { return true; }
      };
      return ["onclick", "style", "srcdoc"].map(refused);
    """
    assert run(modules, "dom", code) == [True, True, True]


def test_text_is_cut_between_characters(modules: Seen) -> None:
    """Never in the middle of one that takes two units."""
    code = 'return [m.short("😀😀😀", 2), m.short("abc", 3), m.short("x".repeat(10_000), 5)]'
    assert run(modules, "dom", code) == ["😀…", "abc", "xxxx…"]


def test_drawing_anew_keeps_the_place(page: Seen) -> None:
    """Focus, what is unfolded, and the caret stay where they were."""
    code = """
      const root = m.h("div");
      document.body.append(root);
      const details = () => m.h("details", { data: { key: "b" } }, "x");
      const draw = () => m.replace(root, m.h("input", { data: { key: "a" }, value: "hello" }), details());
      draw();
      root.querySelector("input").focus();
      root.querySelector("input").setSelectionRange(2, 3);
      root.querySelector("details").open = true;
      draw();
      const at = document.activeElement;
      return [at.dataset.key, at.selectionStart, at.selectionEnd, root.querySelector("details").open];
    """
    assert run(page, "dom", code) == ["a", 2, 3, True]


def test_a_live_table_draws_what_changed(modules: Seen) -> None:
    """New rows, changed ones, others in another order, none left: it shows just those, and what is the same stays."""
    code = """
      const row = (key, text = key) => ({ key, text });
      const [a, b, c] = ["a", "b", "c"].map((key) => row(key));
      const columns = [{ name: "text", title: "Text", cell: (one) => one.text }];
      const made = m.liveTable({ name: "t", caption: "T", columns, rows: [a, b], keyOf: (one) => one.key });
      const body = made.element.querySelector("tbody");
      const shown = () => [...body.children].map((one) => one.textContent + (one.matches(".fresh") ? "*" : ""));
      const [of_a, of_b] = body.children;
      const told = [];
      for (const [rows, fresh] of [
        [[c, a, b], ["c"]],
        [[c, a, row("b", "B")], []],
        [[b, c, a], []],
        [[a, row("d")], ["d"]],
        [[], []],
      ]) {
        made.update(rows, new Set(fresh));
        told.push([shown(), of_a.parentElement === body, of_b.parentElement === body]);
      }
      return told;
    """
    assert run(modules, "parts", code) == [
        [["c*", "a", "b"], True, True],
        [["c", "a", "B"], True, False],
        [["b", "c", "a"], True, False],
        [["a", "d*"], True, False],
        [[], False, False],
    ]


def test_a_log_that_is_held_still_keeps_the_last_of_a_call(page: Seen) -> None:
    """A call that began and ended meanwhile has ended when the log goes on; one that was shown already is not new."""
    code = """
      const state = { view: "calls", range: "7d" };
      const context = { state, query: () => new URLSearchParams(), goOn: () => {} };
      const log = await m.show(context, new AbortController().signal);
      document.getElementById("view").replaceChildren(...log.elements);
      const hold = document.getElementById("hold");
      const tell = (call_id, status) => log.calls([{ call_id, status, started_at: "2026-11-01T00:00:00Z" }]);
      const told = () => [hold.textContent, ...[...document.querySelectorAll("td .tag")].map((one) => one.textContent)];
      tell("a", "open");
      const states = [told()];
      hold.click();
      tell("a", "answered");
      states.push(told());
      tell("b", "open");
      tell("b", "failed");
      states.push(told());
      hold.click();
      return [...states, told().sort()];
    """
    assert run(page, "views/calls", code) == [
        ["Hold still", "open"],
        ["Go on", "open"],
        ["Go on (1 new)", "open"],
        ["Hold still", "answered", "failed"],
    ]


def test_a_long_table_is_drawn_in_part(page: Seen) -> None:
    """A hundred rows, and all of them for who asks, also after it is sorted and drawn anew."""
    code = """
      const rows = Array.from({ length: 250 }, (_, n) => ({ n }));
      const columns = [{ name: "n", title: "N", number: true, value: (one) => one.n, cell: (one) => one.n }];
      const sort = { name: "n", descending: false };
      const made = () => m.table({ name: "long", caption: "Long", columns, rows, sort, keyOf: (one) => one.n });
      const told = (table) => [
        table.querySelectorAll("tbody tr").length,
        table.querySelector("tbody").textContent.slice(0, 6),
        [...table.querySelectorAll("button:not([hidden])")].map((one) => one.textContent),
      ];
      const table = made();
      document.getElementById("view").replaceChildren(table);
      const first = told(table);
      table.querySelector("th button").click();
      const turned = told(table);
      table.querySelector("button[data-key=long-all]").click();
      return [first, turned, told(table), told(made()), document.activeElement.getAttribute("aria-label")];
    """
    first, turned, whole, again, focused = run(page, "parts", code)
    assert first == [100, "012345", ["N", "Show all 250"]]
    assert turned == [100, "249248", ["N", "Show all 250"]]
    assert whole == again == [250, "249248", ["N"]]
    assert focused == "Long: table"


def test_tiers_beyond_the_colours_are_striped(modules: Seen) -> None:
    """A seventh tier is told from the first, and one that is no tier any more from those that are."""
    code = """
      const cases = [[0, "a"], [6, "g"], [null, "old"], [null, "old"], [undefined, ""]];
      return cases.map(([level, name]) => m.fill(level, name));
    """
    first, seventh, old, again, none = run(modules, "tiers", code)
    assert (first, seventh, none) == ("fill-0", "fill-0 striped", "fill-none")
    assert old == again
    assert old.endswith(" striped")
