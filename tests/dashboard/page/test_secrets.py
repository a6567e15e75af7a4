"""What not everybody may see: the page asks for a key where one is demanded, and shows text only where it was kept."""

from __future__ import annotations

import json
import time
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.dashboard.page.conftest import VIEWS, Look, Seen
from tests.gateway.conftest import Serve, Served, settings_for
from tests.gateway.test_routing import body
from tierwise import Router
from tierwise.ledger import Ledger
from tierwise.ledger.keys import Keys, KeyScope
from tierwise.testing import StandInUpstream

ELSEWHERE = "0.0.0.0"  # noqa: S104  whoever listens there demands keys; the tests themselves stay on loopback
EVERYTHING = (KeyScope.CALLS, KeyScope.METRICS, KeyScope.RECEIPTS)


def key_of(gateway: Served, *scopes: KeyScope) -> str:
    """A new key of a gateway."""
    with Ledger(gateway.ledger_path) as ledger:
        return Keys(ledger).create("viewer", time.time_ns() // 1_000_000, scopes=scopes).secret


def refused(seen: Seen) -> Page:
    """The page, once it asks for a key. That it was refused stands on the console, as a browser tells of it."""
    page = seen.page
    expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
    seen.complaints = [one for one in seen.complaints if "status of 40" not in one]
    return page


def test_the_page_asks_for_a_key(look: Look, serve: Serve, upstream: StandInUpstream, tmp_path: Path) -> None:
    """Away from loopback, before it shows anything; a wrong one is told of, and asked for again."""
    settings = settings_for(upstream, tmp_path, ANTHROPIC_API_KEY="sk-ant-own")
    gateway = serve(upstream, settings=settings, host=ELSEWHERE)
    secret = key_of(gateway, *EVERYTHING)
    assert gateway.post(body(), x_api_key=secret).status_code == 200
    seen = look(gateway)
    seen.page.goto(f"{gateway.url}/dashboard/?view=calls")
    page = refused(seen)
    expect(page.get_by_text("tierwise keys create")).to_be_visible()
    field = page.get_by_label("Key (kept in this tab only)")
    field.fill("tw-000000000000-wrong")
    page.get_by_role("button", name="Show the figures").click()
    expect(page.get_by_text("unknown or was revoked")).to_be_visible()
    refused(seen)
    field.fill(f"  {secret} ")
    field.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("#filter-task_type")).to_be_enabled()
    assert gateway.post(body(), x_api_key=secret).status_code == 200
    expect(page.locator("tbody tr")).to_have_count(2)  # the live events, too, come with the key


def test_a_key_stays_in_its_tab(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """It is there after a reload, in no address, in no cookie and in no other tab."""
    gateway = serve(upstream, host=ELSEWHERE)
    secret = key_of(gateway, *EVERYTHING)
    seen = look(gateway)
    seen.page.goto(f"{gateway.url}/dashboard/?view=limits")
    page = refused(seen)
    page.get_by_label("Key (kept in this tab only)").fill(secret)
    page.get_by_role("button", name="Show the figures").click()
    expect(page.get_by_role("heading", name="Budgets", exact=True)).to_be_visible()
    page.reload()
    seen.settled()
    expect(page.get_by_role("heading", name="Budgets", exact=True)).to_be_visible()
    assert secret not in page.url
    assert not any(secret in request.url for request in seen.asked)
    assert page.context.cookies() == []
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("heading", name="A key is needed")).to_be_visible()


def test_a_key_for_figures_shows_figures_alone(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """Single calls need another scope, which the page names; the figures go on."""
    gateway = serve(upstream, host=ELSEWHERE)
    seen = look(gateway)
    seen.page.goto(f"{gateway.url}/dashboard/?view=quality")
    page = refused(seen)
    page.get_by_label("Key (kept in this tab only)").fill(key_of(gateway, KeyScope.METRICS))
    page.get_by_role("button", name="Show the figures").click()
    expect(page.get_by_role("heading", name="Is confidence honest?")).to_be_visible()
    page.get_by_role("link", name="Calls").click()
    expect(page.get_by_text("--scope receipts")).to_be_visible()
    refused(seen)
    page.get_by_role("link", name="Task types").click()
    expect(page.get_by_role("heading", name="A key is needed")).to_have_count(0)
    seen.complaints.clear()  # each refusal stands on the console


def test_text_is_shown_where_it_was_kept(look: Look, serve: Serve, upstream: StandInUpstream, tmp_path: Path) -> None:
    """What the classifier saw, as text, in the call and in its type's examples; nowhere else."""
    settings = settings_for(upstream, tmp_path, "[ledger]\ncapture_text = true", ANTHROPIC_API_KEY="sk-ant-own")
    said = "Give this chat a title: <b>printer</b> on fire"
    with Router(settings) as router:  # a gateway keeps no text, whatever is configured
        router.run(said)
    gateway = serve(upstream, settings=settings)
    seen = look(gateway)
    found = gateway.call().call
    page = seen.open(f"?view=calls&call={found.call_id}")
    kept = page.get_by_role("dialog").get_by_label("What the classifier saw")
    expect(kept).to_contain_text(said)
    assert kept.locator("b").count() == 0
    page = seen.open(f"?view=task-types&type={found.task_type}")
    page.get_by_role("dialog").locator("details").first.locator("summary").click()
    expect(page.get_by_role("dialog").get_by_label("What the classifier saw")).to_contain_text(said)
    for view in VIEWS:
        assert "printer" not in seen.open(f"?view={view}").locator("body").inner_text()


def test_text_is_not_there_where_it_was_not_kept(look: Look, serve: Serve, upstream: StandInUpstream) -> None:
    """As shipped: an opened call has no such panel, and no answer of the API holds what was asked."""
    gateway = serve(upstream)
    gateway.post(body("Give this chat a title: printer on fire"))
    seen = look(gateway)
    call_id = gateway.call().call.call_id
    page = seen.open(f"?view=calls&call={call_id}")
    expect(page.get_by_role("dialog").get_by_role("heading", name="Why")).to_be_visible()
    expect(page.get_by_text("What the classifier saw")).to_have_count(0)
    assert "printer" not in json.dumps([seen.api(f"calls/{call_id}"), seen.api("calls")])
