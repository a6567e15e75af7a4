"""The log of calls: it follows what happens, can be searched, and a call tells how it was decided and what it cost."""

from __future__ import annotations

import json
import re
import time
from urllib.parse import quote

import pytest
from playwright.sync_api import Route, expect

from tests.dashboard.page.conftest import PATIENCE_MS, Look
from tests.gateway.conftest import HEADERS, HTTP, Serve, Served
from tests.gateway.test_routing import SCHEMA, body
from tests.ledger.records import attempt, call
from tierwise.config import load_settings
from tierwise.core.money import nanousd_to_usd
from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream

MONTH = "range=30d"


def test_new_calls_appear_as_they_are_made(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """A call through the gateway is in the log without anybody asking, held back while the log is held still, and not
    lost where the log was being read meanwhile."""
    gateway = serve(upstream)
    gateway.post(body())
    seen = look(gateway)
    seen.intercept("calls")
    page = seen.open("?view=calls")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(page.get_by_text("today")).to_be_visible()
    gateway.post(body("Write a short story about a lighthouse keeper who collects storms"))
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("claude-sonnet-5-5")
    page.get_by_role("button", name="Hold still").click()
    gateway.post(body())
    expect(page.get_by_role("button", name="Go on (1 new)")).to_be_visible()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Go on").click()
    expect(rows).to_have_count(3)

    def meanwhile(route: Route) -> None:
        before = route.fetch()
        gateway.post(body())
        expect(rows).to_have_count(4)
        route.fulfill(response=before)

    seen.answering = meanwhile
    page.keyboard.press("r")
    seen.settled()
    expect(rows).to_have_count(4)


def test_what_was_missed_while_held_still_is_read(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """Where more calls came than are told of, a log that was held still is read anew once it goes on."""
    gateway = serve(upstream)
    gateway.post(body())
    seen = look(gateway)
    seen.page.clock.install()
    page = seen.open("?view=calls")
    expect(page.get_by_text("today")).to_be_visible()  # it listens
    page.get_by_role("button", name="Hold still").click()
    now = time.time_ns() // 1_000_000
    with Ledger(gateway.ledger_path) as ledger:
        ledger.record_many([(call(f"c{n}", started_at_ms=now + n), [attempt(f"c{n}")]) for n in range(250)])
    going_on = page.get_by_role("button", name=re.compile(r"Go on \(20\d new\)"))
    expect(going_on).to_be_visible()
    page.clock.fast_forward(60_000)  # the page has had its time to read again, and did not
    with page.expect_response(lambda answer: "/api/v1/calls?" in answer.url) as read:
        going_on.click()
        page.clock.fast_forward(60_000)
    assert {item["call_id"] for item in read.value.json()["items"]} <= {f"c{n}" for n in range(200, 250)}


@pytest.mark.parametrize("view", ["overview", "calls"])
def test_the_first_call_of_all_is_shown(look: Look, serve: Serve, upstream: StandInUpstream, view: str) -> None:
    """A page that was opened before there was a call goes on from its first steps by itself."""
    gateway = serve(upstream)
    page = look(gateway).open(f"?view={view}")
    expect(page.get_by_role("heading", name="No calls yet")).to_be_visible()
    expect(page.get_by_text("today")).to_be_visible()  # it listens
    gateway.post(body())
    expect(page.get_by_role("heading", name="No calls yet")).to_have_count(0)
    expect(page.locator("main").get_by_text("summarization").first).to_be_visible()


def test_a_call_that_comes_leaves_the_others_alone(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """Rows that were there are not drawn anew: what is about to be clicked, or has the focus, stays what it was."""
    gateway = serve(upstream)
    gateway.post(body())
    page = look(gateway).open("?view=calls")
    rows = page.locator("tbody tr")
    was = rows.first.element_handle()
    rows.first.locator("button").first.focus()
    gateway.post(body("Write a short story about a lighthouse keeper who collects storms"))
    expect(rows).to_have_count(2)
    expect(rows.last.locator("button").first).to_be_focused()
    assert rows.last.evaluate("(row, was) => row === was", was)


def test_live_calls_obey_the_filters(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """What the filters do not let through does not come in by the live way either."""
    gateway = serve(upstream)
    gateway.post(body())
    page = look(gateway).open("?view=calls&tier=haiku")
    rows = page.locator("tbody tr")
    gateway.post(body("Write a short story about a lighthouse keeper who collects storms"))
    gateway.post(body())
    expect(rows).to_have_count(2)
    assert set(page.locator("tbody td:nth-child(4)").all_inner_texts()) == {"claude-haiku-5-5"}


def test_a_conversation_is_followed_alone(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """Opened and narrowed to its calls, the log goes on live with this conversation's, and no other's."""
    gateway = serve(upstream)
    first, other = {"x-claude-code-session-id": "first"}, {"x-claude-code-session-id": "other"}
    gateway.post(body(), **first)
    seen = look(gateway)
    page = seen.open("?view=calls&conversation=first")
    page.get_by_role("button", name="Show only its calls").click()
    seen.settled()
    expect(page).to_have_url(re.compile("session=first"))
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    gateway.post(body(), **other)
    gateway.post(body(), **first)
    expect(rows).to_have_count(2)
    assert set(page.locator("tbody td:last-child").all_inner_texts()) == {"first"}
    # What began after the page was opened is offered, too.
    expect(page.locator("#filter-session option", has_text="other")).to_have_count(1, timeout=PATIENCE_MS)


def test_a_call_that_climbed_tells_the_whole_way(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """The ladder with real and estimated cost, each attempt on the waterfall, tokens by class, the reasons."""
    upstream.reply("no JSON at all", times=2)
    upstream.reply_json({"title": "Printer on fire"})
    gateway = serve(upstream)
    gateway.post(body("Give this chat a title", output_config={"format": {"type": "json_schema", "schema": SCHEMA}}))
    seen = look(gateway)
    page = seen.open("?view=calls")
    page.locator("tbody tr").first.click()
    seen.settled()
    dialog = page.get_by_role("dialog")
    told = seen.api(f"calls/{gateway.call().call.call_id}")
    expect(dialog.locator(".waterfall .lane")).to_have_count(3)
    expect(dialog.locator(".waterfall .tag")).to_have_text(["rejected", "rejected", "accepted"])
    ladder = dialog.get_by_role("region", name="The ladder of the decision").locator("tbody tr")
    expect(ladder).to_have_count(len(told["ladder"]))
    expect(ladder.filter(has_text="claude-haiku-5-5")).to_contain_text("planned")
    expect(ladder.filter(has_text="claude-sonnet-5-5")).to_contain_text("answered")
    kept = gateway.call().call.ladder
    assert kept is not None
    assert [rung["estimated_usd"] for rung in told["ladder"]] == [
        format(nanousd_to_usd(rung.estimated_nanousd), "f") for rung in kept
    ]
    expect(dialog.get_by_text("not kept")).to_have_count(0)
    for reason in told["reasons"]:
        expect(dialog.get_by_text(reason["text"], exact=True)).to_be_visible()
    tokens = dialog.get_by_role("region", name="Tokens by class and attempt")
    expect(tokens.locator("tr", has_text="Output")).to_contain_text(str(told["attempts"][0]["output_tokens"]))


def test_feedback_is_given_where_the_call_is_seen(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """What is said on the page, however quickly, stands in the ledger, as what `tierwise feedback` says does."""
    gateway = serve(upstream)
    gateway.post(body())
    seen = look(gateway)
    call_id = gateway.call().call.call_id
    page = seen.open(f"?view=calls&call={call_id}")
    at_once = """(bad) => {
      const type = document.getElementById("feedback-type");
      bad.click();
      type.value = "translation";
      type.dispatchEvent(new Event("change"));
    }"""
    page.get_by_role("button", name="Bad", exact=True).evaluate(at_once)
    expect(page.get_by_text("Noted. bad, really translation")).to_be_visible()
    assert seen.api(f"calls/{call_id}")["feedback"]["verdict"] == "bad"
    assert seen.api(f"calls/{call_id}")["feedback"]["task_type"] == "translation"


def test_a_conversation_is_a_tree(look: Look, full: Served) -> None:
    """Subagents hang below the calls beside which they ran, and each can be opened."""
    seen = look(full)
    page = seen.open(f"?view=calls&{MONTH}")
    page.locator("tbody tr").first.locator("button").last.click()
    seen.settled()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Conversation")).to_be_visible()
    told = seen.api(f"conversations/{quote(seen.query['conversation'], safe='')}")
    shown = dialog.locator(".tree .node").count()
    assert shown == told["calls"]
    assert dialog.locator(".tree ul .node").count() > 0
    dialog.locator(".tree .node button").first.click()
    seen.settled()
    expect(page.get_by_role("dialog").get_by_role("heading", name="Call", exact=True)).to_be_visible()


def test_the_log_is_searched(look: Look, full: Served) -> None:
    """By text, by how calls ended and by cost; what is searched for is in the address, and no letter of it is lost
    while the log is drawn anew."""
    seen = look(full)
    seen.intercept("calls")
    page = seen.open(f"?view=calls&{MONTH}")
    page.get_by_role("combobox", name="Outcome").select_option("failed")
    seen.settled()
    assert set(page.locator("tbody .tag").all_inner_texts()) == {"failed"}
    search = page.get_by_role("searchbox", name="Search")

    def meanwhile(route: Route) -> None:
        page.keyboard.type("-0")
        route.continue_()

    seen.answering = meanwhile
    search.fill("call")
    page.wait_for_url("**text=call**")
    seen.settled()
    page.keyboard.type("1")
    page.wait_for_url("**text=call-01**")
    seen.settled()
    expect(search).to_be_focused()
    expect(search).to_have_value("call-01")
    cost = page.get_by_role("textbox", name="Cost from, $")
    cost.press_sequentially("0")
    page.wait_for_url("**min_cost_usd=0")
    seen.settled()
    page.keyboard.type(".05")
    page.wait_for_url("**min_cost_usd=0.05")
    seen.settled()
    page.keyboard.type("e9")
    expect(cost).to_have_value("0.05e9")
    assert not cost.evaluate("(field) => field.validity.valid")
    page.goto(f"{seen.url}/dashboard/?view=calls&{MONTH}&text=nothing-is-called-so")
    seen.settled()
    expect(page.get_by_text("No such calls")).to_be_visible()


def test_older_calls_are_read_on(look: Look, full: Served) -> None:
    """Page by page, none twice, and with the keyboard, too."""
    seen = look(full)
    page = seen.open(f"?view=calls&{MONTH}")
    older = page.get_by_role("button", name="Older calls")
    older.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(100)
    expect(older).to_be_focused()
    times = [row.get_attribute("datetime") for row in page.locator("tbody time").all()]
    assert times == sorted(times, key=str, reverse=True)


def test_older_calls_are_read_on_after_many_came(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """More calls come than an open log keeps: what it shows, and what it reads on to, leaves none out."""
    gateway = serve(upstream)
    gateway.post(body())
    seen = look(gateway)
    page = seen.open("?view=calls")
    expect(page.get_by_text("today")).to_be_visible()  # it listens
    now_ms = time.time_ns() // 1_000_000
    with Ledger(gateway.ledger_path) as ledger:
        ledger.record_many(
            [
                (
                    call(f"c{n:03d}", started_at_ms=now_ms + n),
                    (attempt(f"c{n:03d}", started_at_ms=now_ms + n),),
                )
                for n in range(130)
            ]
        )
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(100)
    page.get_by_role("button", name="Older calls").click()
    expect(rows.last).to_be_visible()
    expect(page.locator("#announcer")).to_have_text("50 older calls")
    shown = [one.get_attribute("data-key") for one in page.locator("tbody tr td:first-child button").all()]
    assert shown == [f"calls-c{n:03d}" for n in range(129, 29, -1)]


def test_budgets_are_set_and_removed(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """A budget of the page is one of the gateway's; what is typed and what was refused stay while the page goes on."""
    gateway = serve(upstream)
    gateway.post(body())
    seen = look(gateway)
    page = seen.open("?view=limits")
    expect(page.get_by_text("No budgets")).to_be_visible()
    limit = page.get_by_role("textbox", name="Limit, $")
    limit.fill("12.5")
    page.get_by_role("combobox", name="Of", exact=True).select_option("key")
    page.get_by_role("textbox", name="Which").fill("nobody's")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.get_by_text("no key has that id")).to_be_visible()
    page.keyboard.press("r")
    seen.settled()
    expect(page.get_by_text("no key has that id")).to_be_visible()
    expect(limit).to_have_value("12.5")
    page.get_by_role("combobox", name="Of", exact=True).select_option("all")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.get_by_role("region", name="Budgets").first).to_contain_text("of $12.50")
    expect(limit).to_have_value("")
    assert seen.api("budgets")["items"][0]["limit_usd"] == "12.5"
    seen.expects = "Remove the budget"
    page.get_by_role("button", name="Remove the budget").click()
    expect(page.get_by_text("No budgets")).to_be_visible()
    seen.complaints = [one for one in seen.complaints if "404" not in one]


def test_rate_limits_of_the_upstream_are_shown(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """What the first reply's headers told."""
    gateway = serve(upstream)
    gateway.post(body())
    page = look(gateway).open("?view=limits")
    expect(page.get_by_role("region", name="Rate limits").first).to_contain_text("haiku")
    expect(page.get_by_role("meter").first).to_be_visible()


@pytest.mark.embedded
def test_a_real_local_model_is_on_the_page(
    look: Look, serve: Serve, upstream: StandInUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A call that the embedded model really answered costs nothing, and saved what the baseline would have cost."""
    folder = tmp_path_factory.mktemp("embedded")
    path = folder / "embedded.toml"
    path.write_text("[gateway]\nembedded = true\n", encoding="utf-8")
    env = {"HOME": str(folder), "ANTHROPIC_BASE_URL": upstream.url, "TIERWISE_LEDGER": str(folder / "ledger.db")}
    gateway = serve(upstream, settings=load_settings(path=path, env=env, cwd=folder))
    url, asked = f"{gateway.url}/v1/messages", body("Translate to French: the bread")
    answer = HTTP.post(url, content=asked, headers=HEADERS, timeout=120.0)  # two cores, and others at work on them
    assert answer.headers["x-tierwise-tier"] == "local", json.dumps(dict(answer.headers))
    with Ledger(folder / "ledger.db") as ledger:
        (found,) = ledger.calls()
    seen = look(gateway)
    page = seen.open("?view=calls")
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("local")
    expect(row).to_contain_text("$0.00")
    expect(row).to_contain_text("+$")
    assert found.call.baseline_nanousd
