"""Every view shows what the API says, lives in the address, and tells what to do where there is nothing."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.dashboard.page.conftest import NARROW, VIEWS, WIDE, Look
from tests.gateway.conftest import Served

MONTH = "range=30d"


def figure(page: Page, label: str) -> str:
    """What stands under a label, on the card of the overview."""
    return page.get_by_role("region", name=label, exact=True).locator(".value").inner_text()


def test_overview_shows_the_figures_of_the_api(look: Look, full: Served) -> None:
    """Money, calls and rates are the API's, to the last digit that is shown."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    now = seen.again("overview")["now"]
    assert figure(page, "Calls") == f"{now['calls']:,}"
    assert figure(page, "Spent") == f"${float(now['cost_usd']):,.2f}"
    assert figure(page, "Saved") == f"{'+' if float(now['saved_usd']) > 0 else '−'}${abs(float(now['saved_usd'])):,.2f}"
    assert float(figure(page, "Escalated").removesuffix(" %")) == pytest.approx(now["escalation_rate"] * 100, abs=0.051)
    baseline = f"{seen.api('choices')['baseline_model']} alone would have cost ${float(now['baseline_usd']):,.2f}"
    expect(page.locator(".lead")).to_contain_text(baseline)
    assert page.locator(".chart canvas").count() == 2
    assert page.locator(".ranked li").count() >= 8


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("dark", [False, True])
def test_every_view_fits_its_screen(look: Look, full: Served, view: str, width: int, dark: bool) -> None:
    """In both themes, on a desk and on a telephone, nothing sticks out and nothing complains."""
    seen = look(full, width=width, dark=dark)
    page = seen.open(f"?view={view}&{MONTH}")
    expect(page.get_by_role("navigation").locator("[aria-current=page]")).to_be_in_viewport(ratio=0.9)
    assert seen.overflows == []


def test_an_empty_ledger_says_how_to_begin(look: Look, bare: Served) -> None:
    """Who has no calls yet is told three ways to make one."""
    page = look(bare).open()
    expect(page.get_by_role("heading", name="No calls yet")).to_be_visible()
    expect(page.get_by_text("tierwise demo")).to_be_visible()


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_an_empty_ledger_says_something(look: Look, bare: Served, view: str) -> None:
    """No view is blank, and none is an error."""
    seen = look(bare, width=NARROW)
    page = seen.open(f"?view={view}")
    expect(page.locator("main .panel").first).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert seen.overflows == []


def test_an_unknown_price_is_never_nothing(look: Look, unpriced: Served) -> None:
    """What calls of a model without a price cost is unknown wherever it is told, and so is what they saved."""
    seen = look(unpriced)
    page = seen.open()
    assert (figure(page, "Spent"), figure(page, "Saved"), figure(page, "Calls")) == ("unknown", "unknown", "3")
    expect(page.locator(".lead")).to_have_text(re.compile("What you spent is unknown"))
    expect(page.locator(".ranked .amount")).to_contain_text("unknown")
    expect(page.locator(".status")).to_contain_text("cost unknown")
    for view in ("overview", "task-types", "calls", "limits", "what-if&policy=all-haiku"):
        seen.open(f"?view={view}")
        expect(page.locator("main").get_by_text("$0", exact=False)).to_have_count(0)
    for opened in ("conversation=unpriced", "type=summarization"):
        told = seen.open(f"?{opened}").get_by_role("dialog").locator("dl div")
        for term in ("Spent", "Saved"):
            expect(told.filter(has=page.get_by_text(term, exact=True)).locator("dd")).to_have_text("unknown")


def test_a_time_without_calls_offers_a_longer_one(look: Look, full: Served) -> None:
    """An empty view of a full ledger says when the last call was, and one click shows it."""
    seen = look(full)
    page = seen.open("?since=2020-01-01T00%3A00%3A00.000Z&until=2020-01-02T00%3A00%3A00.000Z")
    page.get_by_role("button", name="Show the last year").click()
    seen.settled()
    expect(page).to_have_url(re.compile("range=365d"))
    assert figure(page, "Calls") != "0"


def test_going_back_shows_what_was_shown(look: Look, full: Served) -> None:
    """The browser's own buttons go through views, filters and what was opened."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    page.get_by_role("link", name="Quality").click()
    expect(page).to_have_title(re.compile("Quality"))
    page.go_back()
    expect(page).to_have_title(re.compile("Overview"))
    page.go_forward()
    expect(page).to_have_title(re.compile("Quality"))


def test_a_task_type_opens_its_history(look: Look, full: Served) -> None:
    """A row of the table, clicked anywhere, shows figures, charts and how calls were decided; a link to it works."""
    seen = look(full)
    page = seen.open(f"?view=task-types&{MONTH}")
    page.get_by_role("button", name="summarization").click()
    seen.settled()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="summarization")).to_be_visible()
    expect(dialog.locator(".chart canvas")).to_have_count(2)
    dialog.locator("details").first.locator("summary").click()
    expect(dialog.locator("details").first).to_contain_text("processing work is done well by haiku")
    page.reload()
    seen.settled()
    expect(dialog.locator(".chart canvas")).to_have_count(2)
    dialog.get_by_role("group", name="chart over time").first.focus()
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".tip").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog.locator(".tip").first).to_be_hidden()
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).not_to_have_url(re.compile("type="))


def test_what_is_opened_next_stays_open(look: Look, full: Served) -> None:
    """Closed and another one opened at once: the first one's end does not close the second."""
    seen = look(full)
    page = seen.open(f"?view=calls&{MONTH}")
    rows = page.locator("tbody tr.opens")
    rows.first.click()
    seen.settled()
    next_id = str(rows.nth(3).locator("button").first.get_attribute("data-key")).removeprefix("calls-")
    quick = """() => new Promise((resolve) => {
      const dialog = document.querySelector("dialog");
      dialog.addEventListener("close", () => setTimeout(resolve), { once: true });
      document.getElementById("close").click();
      document.querySelectorAll("tbody tr.opens")[3].click();
    })"""
    page.evaluate(quick)
    seen.settled()
    expect(page.get_by_role("dialog")).to_contain_text(next_id)
    assert seen.query["call"] == next_id
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("call="))


def test_quality_shows_rates_with_their_intervals(look: Look, full: Served) -> None:
    """Acceptance by type and tier, reliability on feedback, and why rungs were left."""
    seen = look(full)
    page = seen.open(f"?view=quality&{MONTH}")
    told = seen.api("quality")
    accepted = page.get_by_role("region", name="Accepted replies, by task type and tier").first
    expect(accepted.locator("tbody tr").first).to_be_visible()
    assert page.locator("svg.interval").count() >= len(told["acceptance"]) // 2
    expect(page.get_by_role("img", name=re.compile("Reliability"))).to_be_visible()
    expect(page.get_by_text("truncated").first).to_be_visible()


def test_columns_sort(look: Look, full: Served) -> None:
    """A click on a head sorts by it, a second the other way, and screen readers are told."""
    page = look(full).open(f"?view=task-types&{MONTH}")
    head = page.get_by_role("columnheader", name="Calls", exact=True)
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    calls = [int(text.replace(",", "")) for text in page.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert calls == sorted(calls, reverse=True)
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")


def test_drawing_a_view_anew_undoes_nothing(look: Look, full: Served) -> None:
    """A chart that is read as a table, an order that was chosen, and the place in the page stay as calls come."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    panel = page.get_by_role("region", name="Cost over time, by tier", exact=True).first
    panel.get_by_role("button", name="Table").click()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    place = page.evaluate("scrollY")
    assert place > 0
    page.keyboard.press("r")
    seen.settled()
    expect(panel.get_by_role("columnheader", name="haiku")).to_be_visible()
    assert page.evaluate("scrollY") == place
    panel.get_by_role("button", name="Table").click()
    expect(panel.locator("canvas")).to_have_count(1)
    page.keyboard.press("2")
    seen.settled()
    head = page.get_by_role("columnheader", name="Calls", exact=True)
    head.get_by_role("button").click()
    page.keyboard.press("r")
    seen.settled()
    expect(head).to_have_attribute("aria-sort", "descending")


def test_a_server_that_went_away_is_told_of(look: Look, full: Served) -> None:
    """What went wrong and what to do, not a blank page; and it goes on by itself once the server is back."""
    seen = look(full)
    seen.page.clock.install()
    page = seen.open("?since=2026-11-01T00%3A00%3A00.000Z&until=2026-11-02T00%3A00%3A00.000Z")
    page.context.set_offline(True)
    page.keyboard.press("r")
    expect(page.get_by_role("alert")).to_contain_text("the server does not answer")
    page.context.set_offline(False)
    page.clock.fast_forward("01:00")
    expect(page.get_by_role("alert")).to_have_count(0)
    seen.complaints = [one for one in seen.complaints if "ERR_INTERNET_DISCONNECTED" not in one]


def test_a_view_that_takes_long_is_waited_for(look: Look, full: Served) -> None:
    """However long it is read, the page does not begin anew by itself."""
    seen = look(full)
    seen.page.clock.install()
    seen.intercept("overview")
    page = seen.open(f"?{MONTH}")
    given_up: list[str] = []
    page.on("requestfailed", lambda request: given_up.append(request.url))

    def slowly(route: Route) -> None:
        page.clock.fast_forward("02:00")
        route.continue_()

    seen.answering = slowly
    with page.expect_response("**/api/v1/overview?*"):
        page.keyboard.press("r")
    seen.settled()
    assert given_up == []


def test_times_are_the_viewers(look: Look, full: Served) -> None:
    """The same moment reads as the clock on the viewer's wall says it; what is asked is in UTC."""
    texts = []
    for zone in ("Asia/Tokyo", "America/New_York"):
        seen = look(full, zone=zone)
        page = seen.open(f"?view=calls&{MONTH}")
        expect(page.locator(".shown")).to_contain_text(zone)
        texts.append(page.locator("tbody time").first.inner_text())
        assert seen.queries("calls")[-1].split("since=")[1].split("&")[0].endswith("Z")
    assert texts[0] != texts[1]


def test_where_a_text_would_go(look: Look, full: Served) -> None:
    """What if: a text gets its decision, with ladder and reasons, and goes to no model."""
    seen = look(full)
    page = seen.open("?view=what-if")
    before = len(full.upstream.requests)
    page.get_by_role("textbox", name="Task").fill("Summarise this ticket in one line: the printer burns")
    page.get_by_role("button", name="Decide").click()
    expect(
        page.get_by_role("region", name="Where would this go?").get_by_text("summarization", exact=True)
    ).to_be_visible()
    ladder = page.get_by_role("region", name="The ladder of the decision")
    expect(ladder).to_contain_text("claude-haiku")
    page.get_by_role("combobox", name="Stakes").select_option("critical")
    page.get_by_role("button", name="Decide").click()
    expect(ladder.locator("tbody tr").first).to_contain_text("claude-opus")
    assert len(full.upstream.requests) == before


def test_what_another_policy_would_have_cost(look: Look, full: Served) -> None:
    """What if: the calls of the time, replayed, beside what they really cost, however quickly others are chosen."""
    seen = look(full)
    page = seen.open(f"?view=what-if&{MONTH}")
    page.get_by_role("combobox", name="Policy").select_option("all-opus")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("Really spent")).to_be_visible()
    expect(page).to_have_url(re.compile("policy=all-opus"))
    expect(page.get_by_role("region", name="Where calls go").first).to_contain_text("opus")
    others = """() => {
      for (const tier of ["sonnet", "opus", "haiku"]) {
        const filter = document.getElementById("filter-tier");
        filter.value = tier;
        filter.dispatchEvent(new Event("change"));
      }
    }"""
    page.evaluate(others)
    seen.settled()
    expect(page.get_by_text("Really spent")).to_be_visible()
    expect(page.get_by_role("combobox", name="Tier", exact=True)).to_have_value("haiku")
    seen.complaints = [one for one in seen.complaints if "429" not in one]
