"""Filters apply everywhere, live in the address, and can be worked with mouse and keyboard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from tests.dashboard.page.conftest import NARROW, VIEWS, Look, queried
from tests.gateway.conftest import Served

MONTH = "range=30d"


def test_a_filter_goes_into_the_address_and_every_question(look: Look, full: Served) -> None:
    """Chosen once, it holds for every view, and for every question that a view asks."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    page.get_by_role("combobox", name="Tier", exact=True).select_option("sonnet")
    page.get_by_role("combobox", name="Project", exact=True).select_option("checkout")
    seen.settled()
    assert seen.query == {"range": "30d", "tier": "sonnet", "project": "checkout"}
    seen.asked.clear()
    for view in reversed(VIEWS):
        page.locator("main").focus()
        page.keyboard.press(str(VIEWS.index(view) + 1))
        seen.settled()
        expected = {"range": "30d", "tier": "sonnet", "project": "checkout"}
        assert seen.query == (expected if view == "overview" else {**expected, "view": view})
    for path in ("overview", "series", "task-types", "quality", "calls", "cache"):
        assert seen.queries(path), path
        assert all(
            queried(url)["tier"] == "sonnet" and queried(url)["project"] == "checkout" for url in seen.queries(path)
        )


def test_filtered_figures_are_smaller(look: Look, full: Served) -> None:
    """What is shown is what the filters let through, and clearing them brings the rest back."""
    seen = look(full)
    page = seen.open(f"?view=calls&{MONTH}&task_type=translation")
    assert set(page.locator("tbody td:nth-child(2)").all_inner_texts()) == {"translation"}
    page.get_by_role("button", name="Clear filters").press("Enter")
    seen.settled()
    assert seen.query == {"view": "calls", "range": "30d"}
    expect(page.get_by_role("combobox", name="Time", exact=True)).to_be_focused()
    assert len(set(page.locator("tbody td:nth-child(2)").all_inner_texts())) > 3


def test_dragging_across_a_chart_zooms(look: Look, full: Served) -> None:
    """What was dragged over is what all views show then; going back shows the whole again."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    box = page.locator(".chart .u-over").first.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.move(box["x"] + box["width"] * 0.6, y)
    page.mouse.up()
    page.wait_for_url("**since=**")
    seen.settled()
    expect(page.get_by_role("combobox", name="Time", exact=True)).to_have_value("custom")
    asked = queried(seen.queries("overview")[-1])
    assert asked["since"] < asked["until"]
    assert seen.query["since"] == asked["since"]
    page.go_back()
    seen.settled()
    expect(page.get_by_role("combobox", name="Time", exact=True)).to_have_value("30d")


def test_time_moves_by_keys_and_buttons(look: Look, full: Served) -> None:
    """Earlier and nearer, without a mouse; a preset goes on with the clock again."""
    seen = look(full)
    page = seen.open(f"?{MONTH}")
    page.keyboard.press("[")
    seen.settled()
    earlier = seen.query
    page.keyboard.press("+")
    seen.settled()
    nearer = seen.query
    assert earlier["since"] < nearer["since"] < nearer["until"] < earlier["until"]
    page.get_by_role("button", name="Later").click()
    seen.settled()
    later = seen.query
    assert later["since"] > nearer["since"]
    time = page.get_by_role("combobox", name="Time", exact=True)
    time.dispatch_event("change")  # of a keyboard that came back to "As chosen"
    assert seen.query == later
    time.select_option("24h")
    seen.settled()
    assert seen.query == {"range": "24h"}


def test_filters_follow_from_what_is_shown_then(look: Look, full: Served) -> None:
    """Long after the page was opened, earlier is earlier than now, and what was closed since stays closed."""
    seen = look(full)
    seen.page.clock.install()
    page = seen.open("?view=limits&range=1h&call=call-01000")
    opened = datetime.now(UTC)
    page.get_by_role("button", name="Close").click()
    shown = page.locator(".shown").inner_text()
    page.clock.fast_forward("03:00:00")
    expect(page.locator(".shown")).not_to_have_text(shown)
    page.get_by_role("button", name="Earlier").click()
    seen.settled()
    asked = seen.query
    assert set(asked) == {"view", "since", "until"}
    assert datetime.fromisoformat(asked["until"]) > opened + timedelta(hours=2)
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_calls_without_a_project_can_be_chosen(look: Look, full: Served) -> None:
    """They are a choice of their own, which is in the address and is not that of all calls."""
    seen = look(full)
    page = seen.open(f"?view=calls&{MONTH}")
    everything = seen.again("calls")["items"]
    assert any(call["project"] for call in everything)
    page.get_by_role("combobox", name="Project", exact=True).select_option(label="No project")
    seen.settled()
    assert seen.query == {"view": "calls", "range": "30d", "project": ""}
    assert {call["project"] for call in seen.again("calls")["items"]} == {None}
    page.reload()
    seen.settled()
    assert page.locator("#filter-project option:checked").inner_text() == "No project"
    assert set(page.locator("tbody td:nth-child(12)").all_inner_texts()) == {""}
    page.get_by_role("button", name="Clear filters").click()
    seen.settled()
    assert seen.query == {"view": "calls", "range": "30d"}


def test_what_is_not_offered_is_still_shown(look: Look, full: Served) -> None:
    """A link with a filter that no picker has (any more) says what it filters by."""
    page = look(full).open(f"?{MONTH}&model=gone-model")
    expect(page.get_by_role("combobox", name="Model", exact=True)).to_have_value("gone-model")


def test_pickers_fold_on_a_narrow_screen(look: Look, full: Served) -> None:
    """They open at a touch, and say how many are set."""
    seen = look(full, width=NARROW)
    page = seen.open(f"?{MONTH}&tier=haiku")
    expect(page.get_by_role("combobox", name="Tier", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Filters (1)").click()
    expect(page.get_by_role("combobox", name="Tier", exact=True)).to_be_visible()
    assert seen.overflows == []
