"""What the API answers: the ledger's figures and calls, in their types, whatever stands in them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from urllib.parse import quote

import pytest

from tests.dashboard.conftest import CHANGE, HOSTILE, HOUR_MS, NOW_MS, START_MS, Asked, fill
from tests.ledger.records import attempt, call
from tierwise.core.decisions import CallStatus, OutcomeKind, PlannedRung
from tierwise.dashboard.models import moment
from tierwise.ledger.keys import Keys, KeyScope

FIGURES = ("/overview", "/series", "/task-types", "/quality", "/cache", "/calls", "/what-if/replay")


def at(hours: int) -> str:
    return moment(START_MS + hours * HOUR_MS).isoformat()


async def test_a_ledger_without_calls_is_answered_from(empty: Asked) -> None:
    """Everything is there and zero, and what nobody can know is null."""
    asked = empty
    for path in (*FIGURES, "/limits", "/budgets", "/choices"):
        await asked.get(path)
    found = await asked.get("/overview")
    assert found["last_call_at"] is None
    assert found["now"]["calls"] == 0
    assert found["now"]["saved_percent"] is None
    assert found["now"]["p95_latency_ms"] is None


async def test_the_overview_adds_up(asked: Asked) -> None:
    """Spent is every attempt, saved is signed and leaves out what has no price."""
    now = (await asked.get("/overview", since=at(0), until=at(24)))["now"]
    assert now["calls"] == 5
    assert now["unpriced_calls"] == 1
    assert Decimal(now["cost_usd"]) == Decimal("0.015002")
    assert Decimal(now["saved_usd"]) == Decimal(now["baseline_usd"]) - Decimal("0.000005") - Decimal("0.015002")
    assert Decimal(now["saved_usd"]) > Decimal("0.001")


async def test_a_loss_is_negative(asked: Asked) -> None:
    """The climbed call cost more than the baseline would have."""
    now = (await asked.get("/overview", task_type="code_review"))["now"]
    assert Decimal(now["saved_usd"]) == Decimal("-0.005")
    assert now["saved_percent"] < 0
    assert now["escalation_rate"] == 1.0


async def test_the_period_before_is_told(asked: Asked) -> None:
    """As long as the one asked for, and just before it."""
    found = await asked.get("/overview", since="2026-11-21", until="2026-11-22")
    assert (found["now"]["calls"], found["before"]["calls"]) == (0, 5)
    assert (await asked.get("/overview"))["before"] is None


@pytest.mark.parametrize("path", FIGURES)
async def test_the_ends_of_time_can_be_asked_of(asked: Asked, path: str) -> None:
    """Where a whole hour, day or week about what is asked of would lie beyond the years that there are."""
    await asked.get(path, since="0001-01-01T01:00:00+02:00", until="0001-01-01T00:30:00Z")
    await asked.get(path, since="9999-12-01", until="9999-12-31T23:59:59.999Z")


@pytest.mark.parametrize("path", FIGURES)
async def test_filters_apply_everywhere(asked: Asked, path: str) -> None:
    """One project's calls, one model's, one type's, one session's."""
    for name, value in (
        ("project", "p"),
        ("project", ""),
        ("session", "s/1"),
        ("model", "claude-haiku-4-5"),
        ("tier", "haiku"),
        ("task_type", "code_review"),
        ("key", ""),
        ("until", "2030-01-01"),
        ("session", HOSTILE[:200]),
    ):
        await asked.get(path, **{name: value})


async def test_filters_count(asked: Asked) -> None:
    """Each leaves what it says."""
    for name, value, calls in (("project", "p", 2), ("project", "", 1), ("task_type", "code_review", 1)):
        assert (await asked.get("/overview", **{name: value}))["now"]["calls"] == calls
        assert len((await asked.get("/calls", **{name: value}))["items"]) == calls


async def test_a_series_has_a_value_for_each_start(asked: Asked) -> None:
    """Tiers stand cheapest first, money is text, and the sum is what was spent."""
    found = await asked.get("/series", measure="cost_usd", by="tier", since=at(0), until=at(24), points=12)
    assert found["unit"] == "usd"
    levels = [line["level"] for line in found["lines"]]
    assert levels == sorted(levels)
    assert all(len(line["values"]) == len(found["starts"]) for line in found["lines"])
    total = sum((Decimal(value) for line in found["lines"] for value in line["values"]), Decimal(0))
    assert total == Decimal("0.015002")


async def test_task_types_are_told_with_their_tiers(asked: Asked) -> None:
    """The one that climbed has both."""
    found = await asked.get("/task-types")
    by_name = {one["task_type"]: one for one in found["items"]}
    assert [tier["tier"] for tier in by_name["code_review"]["tiers"]] == ["haiku", "sonnet"]
    assert by_name["code_review"]["climbs"] == 1
    assert by_name["code_review"]["p95_latency_ms"] == pytest.approx(4_000, rel=1 / 16)
    for name, one in by_name.items():
        alone = (await asked.get("/overview", task_type=name))["now"] if len(name) <= 200 else one
        assert one["p95_latency_ms"] == alone["p95_latency_ms"]
    detail = await asked.get("/task-types/code_review")
    assert detail["summary"] == by_name["code_review"] | {"share_of_calls": detail["summary"]["share_of_calls"]}
    assert detail["examples"][0]["reasons"][1] == {"step": "climb", "text": "schema"}
    assert "no call" in (await asked.refused("/task-types/nothing", 404))["what"]


async def test_calls_are_told_newest_first_page_by_page(asked: Asked) -> None:
    """A cursor leads to those before, until there are none."""
    found, cursor = [], None
    while True:
        page = await asked.get("/calls", limit=2, **({} if cursor is None else {"cursor": cursor}))
        found += [one["call_id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ["hostile", "unpriced", "failed", "climbed", "plain"]
    assert "cursor" in (await asked.refused("/calls", 422, cursor="no cursor"))["where"]


async def test_savings_of_calls_add_up(asked: Asked) -> None:
    """To the saving of the overview: one that failed saved what it cost, below zero."""
    cost = [attempt("lost", outcome=OutcomeKind.TIMEOUT, cost_nanousd=7_000_000, started_at_ms=START_MS)]
    asked.ledger.record(
        call("lost", status=CallStatus.FAILED, baseline_nanousd=9_000_000, started_at_ms=START_MS), cost
    )
    saved = {one["call_id"]: one["saved_usd"] for one in (await asked.get("/calls"))["items"]}
    assert saved["lost"] == "-0.007"
    assert saved["unpriced"] is None
    total = sum((Decimal(usd) for usd in saved.values() if usd is not None), Decimal(0))
    assert total == Decimal((await asked.get("/overview"))["now"]["saved_usd"])


async def test_calls_are_searched(asked: Asked) -> None:
    """By text, status, cost and whether they climbed."""
    for query, expected in (
        ({"text": "overloaded"}, ["failed"]),
        ({"status": "failed"}, ["failed"]),
        ({"climbed": "true"}, ["climbed"]),
        ({"min_cost_usd": "0.01"}, ["climbed"]),
        ({"min_cost_usd": "0.001", "max_cost_usd": "0.002"}, ["plain"]),
        ({"text": "no such thing"}, []),
    ):
        found = await asked.get("/calls", **query)
        assert [one["call_id"] for one in found["items"]] == expected, query


async def test_a_page_of_a_search_by_cost_is_full(asked: Asked) -> None:
    """Calls of another cost take no place in a page, however many lie in between."""
    found = await asked.get("/calls", min_cost_usd="0.002", limit="2")
    assert [one["call_id"] for one in found["items"]] == ["climbed", "plain"]


async def test_a_call_tells_its_way(asked: Asked) -> None:
    """The decision's rungs, tried or not, at what each was expected to cost and what it did."""
    found = await asked.get("/calls/climbed")
    assert found["ladder_kept"]
    said = ("tier", "planned", "answered", "attempts", "estimated_usd", "cost_usd")
    assert [tuple(rung[name] for name in said) for rung in found["ladder"]] == [
        ("haiku", True, False, 1, "0.0009", "0.001"),
        ("sonnet", False, True, 1, "0.011", "0.012"),
        ("opus", False, False, 0, "0.055", None),
    ]
    assert all(Decimal(rung["same_tokens_usd"]) > 0 for rung in found["ladder"])
    assert [(one["offset_ms"], one["wait_ms"]) for one in found["attempts"]] == [(0, 0), (1_000, 100)]
    assert found["attempts"][0]["detail"] == "the reply is no JSON"
    assert found["captured_text"] is None
    assert "take a call_id" in (await asked.refused("/calls/nothing", 404))["do"]


async def test_a_call_whose_ladder_was_not_kept_says_so(asked: Asked) -> None:
    """What was tried and the tiers above, at no estimate: not one that was made up afterwards."""
    found = await asked.get("/calls/plain")
    assert not found["ladder_kept"]
    assert [(rung["tier"], rung["cost_usd"]) for rung in found["ladder"]] == [
        ("haiku", "0.002"),
        ("sonnet", None),
        ("opus", None),
    ]
    assert {rung["estimated_usd"] for rung in found["ladder"]} == {None}


async def test_what_was_tried_off_the_ladder_stands_where_it_was_tried(asked: Asked) -> None:
    """A model that took the place of another is told behind the one before it, without an estimate."""
    ladder = (PlannedRung("haiku", "a", 1_000), PlannedRung("opus", "c", 9_000))
    attempts = [attempt("off", n, model=model) for n, model in enumerate("ab", 1)]
    asked.ledger.record(call("off", ladder=ladder, model="b"), attempts)
    found = (await asked.get("/calls/off"))["ladder"]
    assert [(rung["model"], rung["estimated_usd"]) for rung in found] == [
        ("a", "0.000001"),
        ("b", None),
        ("c", "0.000009"),
    ]


async def test_a_call_is_the_same_in_the_list_and_opened(asked: Asked) -> None:
    """Asking what the task is, and what was not sent, make it neither climbed nor unpriced, here as there."""
    asked.ledger.record(
        call("asked", model="b"),
        [
            attempt("asked", 0, tier="local", model="a", cost_nanousd=0),
            attempt("asked", 1, model="b"),
            attempt("asked", 2, model="c", outcome=OutcomeKind.NOT_RUN, cost_nanousd=None),
        ],
    )
    listed = {one["call_id"]: one for one in (await asked.get("/calls"))["items"]}
    assert not listed["asked"]["climbed"]
    for call_id, summary in listed.items():
        opened = await asked.get(f"/calls/{call_id}")
        assert opened["summary"] == summary
    opened = await asked.get("/calls/asked")
    assert [one["number"] for one in opened["attempts"]] == [0, 1, 2]
    assert "a" not in [rung["model"] for rung in opened["ladder"]]


async def test_a_conversation_is_a_tree(asked: Asked) -> None:
    """A subagent's call hangs below the main call before it; a session's name may have slashes."""
    found = await asked.get(f"/conversations/{quote('s/1', safe='')}")
    (node,) = found["nodes"]
    assert node["call"]["call_id"] == "plain"
    assert [child["call"]["call_id"] for child in node["children"]] == ["climbed"]
    assert Decimal(found["cost_usd"]) == Decimal("0.015")
    await asked.refused("/conversations/nothing", 404)


async def test_names_are_told_as_they_are(asked: Asked) -> None:
    """Markup, controls, right-to-left and length are text in JSON, and nothing breaks over them."""
    found = await asked.get("/calls/hostile")
    assert found["summary"]["project"].startswith("<script>")
    assert HOSTILE.replace("\u0000", "\\u0000") in (HOSTILE.replace("\u0000", "\\u0000"), found["reasons"][0]["text"])
    (await asked.get(f"/conversations/{quote(HOSTILE[:200], safe='')}")) if len(HOSTILE) <= 200 else None


@pytest.mark.parametrize(
    "query",
    [
        {"sinse": "2026-01-01"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "1764288000"},
        {"model": "x" * 201},
    ],
)
async def test_a_filter_that_cannot_be_read_is_an_error(asked: Asked, query: dict[str, str]) -> None:
    """It says which; a misspelt one must not show everything."""
    error = await asked.refused("/overview", 400, **query)
    assert next(iter(query)) in error["what"]


async def test_filters_that_contradict_each_other_are_an_error(asked: Asked) -> None:
    """An empty page would look as if there were nothing."""
    error = await asked.refused("/overview", 422, since="2026-02-01", until="2026-01-01")
    assert "swap them" in error["what"]


async def test_what_is_not_there_is_told(asked: Asked) -> None:
    """A path, a method, a parameter twice, a body that is no JSON."""
    await asked.refused("/nothing", 404)
    answer = await asked.client.post("/api/v1/overview")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    answer = await asked.client.get("/api/v1/overview?tier=a&tier=b")
    assert (answer.status_code, answer.json()["error"]["what"]) == (400, "tier comes twice")
    assert (await asked.client.get("/api/v1/overview?tier=%ff")).status_code == 400
    answer = await asked.client.post("/api/v1/feedback", content="{", headers=CHANGE)
    assert answer.status_code == 400
    answer = await asked.client.post("/api/v1/feedback", content=b" " * 2_000_000, headers=CHANGE)
    assert answer.status_code == 413


async def test_feedback_is_noted_and_taken_back(asked: Asked) -> None:
    """It is in the ledger under the dashboard's name."""
    assert (await asked.post("/feedback", {"call_id": "plain", "verdict": "bad", "task_type": "tagging"})).json() == {
        "noted": True
    }
    said = (await asked.get("/calls/plain"))["feedback"]
    assert (said["verdict"], said["task_type"], said["source"]) == ("bad", "tagging", "dashboard")
    assert (await asked.get("/quality"))["feedback"]["bad"] == 1
    assert (await asked.post("/feedback", {"call_id": "plain"})).status_code == 200
    assert (await asked.get("/calls/plain"))["feedback"] is None
    assert (await asked.post("/feedback", {"call_id": "nothing", "verdict": "good"})).status_code == 404
    assert (await asked.post("/feedback", {"call_id": "plain", "task_type": "nothing"})).status_code == 422


async def test_a_change_that_a_foreign_page_could_send_is_refused(asked: Asked) -> None:
    """Without our header, with another content type, or from another origin; nothing is changed."""
    body = '{"call_id": "plain", "verdict": "bad"}'
    for headers in (
        {"content-type": "application/json"},
        {"content-type": "text/plain", "x-tierwise-request": "1"},
        {**CHANGE, "origin": "http://evil.example"},
        {**CHANGE, "sec-fetch-site": "cross-site"},
        {**CHANGE, "host": "evil.example"},
    ):
        answer = await asked.client.post("/api/v1/feedback", content=body, headers=headers)
        assert answer.status_code in (403, 415)
        assert "access-control-allow-origin" not in answer.headers
    assert (await asked.get("/calls/plain"))["feedback"] is None


async def test_budgets_are_set_told_and_removed(asked: Asked) -> None:
    """With how they stand, and where they will be at their end."""
    change = {"scope": "project", "subject": "p", "period": "month", "limit_usd": "5.00"}
    (standing,) = (await asked.post("/budgets", change)).json()["items"]
    assert (standing["limit_usd"], standing["hard"], standing["subject"]) == ("5", True, "p")
    found = await asked.get("/budgets")
    assert Decimal(found["month_spent_usd"]) == Decimal("0.015002")
    assert Decimal(found["month_projected_usd"]) > Decimal(found["month_spent_usd"])
    assert (await asked.post("/budgets", {**change, "limit_usd": None})).json()["items"] == []
    assert (await asked.post("/budgets", {**change, "limit_usd": None})).status_code == 404
    for wrong in (
        {**change, "limit_usd": "-1"},
        {**change, "limit_usd": 5.0},
        {**change, "scope": "all"},
        {**change, "scope": "key"},
        {**change, "period": "week"},
    ):
        assert (await asked.post("/budgets", wrong)).status_code in (400, 404, 422)


async def test_choices_are_what_there_is(asked: Asked) -> None:
    """Of the configuration and of the ledger; keys by name, never by secret."""
    made = Keys(asked.ledger).create("laptop", START_MS, scopes=[KeyScope.CALLS])
    asked.ledger.record(call("keyed", started_at_ms=START_MS, key_id=made.key.key_id), [attempt("keyed")])
    found = await asked.get("/choices")
    assert {"key": made.key.key_id, "name": "laptop"} in found["keys"]
    assert made.secret not in str(found)
    assert [tier["level"] for tier in found["tiers"]][:4] == [0, 1, 2, 3]
    assert "code_review" in [one["name"] for one in found["task_types"]]
    assert {"routed", "all-opus", "actual"} <= {one["name"] for one in found["policies"]}


async def test_a_text_is_decided_about(asked: Asked) -> None:
    """As a call with it would be, with alternatives and reasons; nothing is recorded."""
    before = (await asked.get("/overview"))["now"]["calls"]
    question = {"text": "Summarise this article in two sentences.", "tokens_in": 2_000}
    found = (await asked.post("/what-if/decision", question)).json()
    assert found["task_type"] == asked.runtime.router.route(question["text"]).classification.task_type.name
    assert found["ladder"][0]["model"] == found["model"]
    assert found["reasons"]
    assert (await asked.get("/overview"))["now"]["calls"] == before
    assert (await asked.post("/what-if/decision", {"text": ""})).status_code == 400
    wrong = await asked.post("/what-if/decision", {"text": "x", "min_tier": "opus", "max_tier": "haiku"})
    assert "minimum tier" in wrong.json()["error"]["what"]


async def test_calls_are_replayed_under_another_policy(asked: Asked) -> None:
    """Everything on opus costs more than what was done; points and tiers add up to the sums."""
    found = await asked.get("/what-if/replay", policy="all-opus", session="s/1")
    assert Decimal(found["replayed_usd"]) > 0
    assert Decimal(found["low_usd"]) <= Decimal(found["replayed_usd"]) <= Decimal(found["high_usd"])
    assert sum(Decimal(point["real_usd"]) for point in found["points"]) == Decimal(found["real_usd"])
    assert sum(Decimal(tier["real_usd"]) for tier in found["tiers"]) == Decimal(found["real_usd"])
    assert [tier["tier"] for tier in found["tiers"] if tier["replayed_calls"]] == ["opus"]
    assert not found["more"]
    # One of the two calls climbed: what its two attempts cost is there, and it is one call.
    assert found["calls"] == sum(tier["real_calls"] for tier in found["tiers"]) == 2
    assert found["moved_calls"] == 2
    assert found["saved_percent"] == round(100 * float(found["saved_usd"]) / float(found["real_usd"]), 1)
    assert "no policy" in (await asked.refused("/what-if/replay", 422, policy="nothing"))["what"]


async def test_weeks_of_a_replay_begin_on_mondays(asked: Asked) -> None:
    """As those of every other chart do, however long ago the first call was."""
    for weeks in (1, 9, 30):
        at_ms = NOW_MS - weeks * 7 * 86_400_000
        asked.ledger.record(call(f"w{weeks}", started_at_ms=at_ms), [attempt(f"w{weeks}", started_at_ms=at_ms)])
    found = await asked.get("/what-if/replay", policy="actual", points=10, since=at(-24 * 365))
    assert found["interval_seconds"] % (7 * 86_400) == 0
    assert {datetime.fromisoformat(point["at"]).weekday() for point in found["points"]} == {0}
    assert sum(Decimal(point["real_usd"]) for point in found["points"]) == Decimal(found["real_usd"])


async def test_a_replay_has_the_calls_of_the_overview(asked: Asked) -> None:
    """What was sent, each call once, those without a price told apart."""
    found = await asked.get("/what-if/replay", policy="actual")
    overview = (await asked.get("/overview"))["now"]
    assert found["calls"] == overview["calls"]
    assert found["unpriced_calls"] == overview["unpriced_calls"] == 1
    assert sum(tier["real_calls"] for tier in found["tiers"]) == found["calls"] - found["unpriced_calls"]
    assert found["moved_calls"] == 0


async def test_a_ledger_in_trouble_says_so(asked: Asked) -> None:
    """What it is, and what helps; nothing is shown as if it were nothing."""
    asked.ledger.close()
    for path in asked.ledger.path.parent.glob("ledger.db*"):
        path.unlink()
    asked.ledger.path.write_bytes(b"this is no ledger" * 100)
    error = await asked.refused("/overview", 503)
    assert "doctor" in error["do"]


async def test_a_ledger_that_is_off_says_how_to_switch_it_on(empty: Asked) -> None:
    """Instead of an empty page."""
    asked = empty
    asked.dashboard.api._ledger = None
    assert "ledger.enabled" in (await asked.refused("/overview", 503))["do"]


async def test_figures_are_those_of_the_report(asked: Asked) -> None:
    """The page and `tierwise report` cannot disagree."""
    from tierwise.report.spend import spend

    total = spend(asked.ledger, "tier").total
    now = (await asked.get("/overview"))["now"]
    assert Decimal(now["cost_usd"]) == total.cost_usd
    assert Decimal(now["saved_usd"]) == total.saved_usd
    assert Decimal(now["baseline_usd"]) == total.baseline_cost_usd
    assert now["calls"] == total.totals.calls
    fill(asked.ledger)  # the same calls again are not counted again
    assert (await asked.get("/overview"))["now"] == now
