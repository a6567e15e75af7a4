"""The dashboard of a running gateway: who sees it, what only the gateway knows, and that calls do not wait for it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.conftest import HTTP, Serve, Served
from tests.gateway.test_access import key, message
from tierwise.core.settings import RateLimit
from tierwise.gateway.admission import Standing
from tierwise.gateway.app import Gateway
from tierwise.gateway.commons import standing_frame, standing_from
from tierwise.ledger import Ledger
from tierwise.ledger.keys import KeyScope
from tierwise.policy.ratelimits import Family, Headroom, Measure
from tierwise.report.export import export_rows
from tierwise.report.spend import spend
from tierwise.testing import StandInUpstream

CHANGE = {"x-tierwise-request": "1"}
ALL = frozenset(KeyScope) - {KeyScope.MANAGE}


def get(served: Served, path: str, secret: str | None = None, **headers: str) -> httpx2.Response:
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    if secret is not None:
        given["authorization"] = f"Bearer {secret}"
    return HTTP.get(f"{served.url}{path}", headers=given)


def test_what_went_through_the_gateway_is_seen(serve: Serve, upstream: StandInUpstream) -> None:
    """The call that was just answered is in the figures, at what its receipt says."""
    served = serve(upstream)
    assert served.post(json.dumps(message("claude-tierwise-auto"))).status_code == 200
    stored = served.call()
    now = get(served, "/api/v1/overview").json()["now"]
    assert now["calls"] == 1
    receipt = get(served, f"/tierwise/calls/{stored.call.call_id}").json()
    assert Decimal(now["cost_usd"]) == Decimal(receipt["cost_usd"])
    found = get(served, f"/api/v1/calls/{stored.call.call_id}").json()
    assert found["summary"]["model"] == stored.call.model
    assert found["captured_text"] is None


def test_page_report_metrics_and_export_agree(serve: Serve, upstream: StandInUpstream) -> None:
    """Spent, baseline, saved, calls and attempts are the same, whoever is asked, after calls of several kinds."""
    served = serve(upstream)
    for name, text in (
        ("claude-tierwise-auto", "Summarise: it burns"),
        ("claude-opus-5-5", "Prove that it halts"),
        ("claude-haiku-5-5", "Translate: it burns"),
    ):
        assert served.post(json.dumps(message(name, text))).status_code == 200
    with Ledger(served.ledger_path) as ledger:
        report = spend(ledger, "tier").total
        exported = [json.loads(line) for line in export_rows(ledger, "jsonl", what="attempts")]
        calls = [json.loads(line) for line in export_rows(ledger, "jsonl", what="calls")]
    now = get(served, "/api/v1/overview").json()["now"]
    told: Counter[str] = Counter()
    for family in text_string_to_metric_families(get(served, "/metrics").text):
        for sample in family.samples:
            told[sample.name] += round(sample.value * 1_000_000_000)
    cost, baseline = Decimal(now["cost_usd"]), Decimal(now["baseline_usd"])
    assert cost == report.cost_usd == sum(Decimal(str(one["cost_usd"])) for one in exported) > 0
    assert told["tierwise_cost_usd_total"] == cost * 1_000_000_000
    assert baseline == report.baseline_cost_usd
    assert told["tierwise_baseline_usd_total"] == baseline * 1_000_000_000
    assert Decimal(now["saved_usd"]) == report.saved_usd == baseline - cost
    assert now["calls"] == report.totals.calls == len(calls) == told["tierwise_calls_total"] // 1_000_000_000 == 3
    assert now["attempts"] == len(exported) == told["tierwise_attempts_total"] // 1_000_000_000
    sums = sum(Decimal(one["cost_usd"]) for one in get(served, "/api/v1/task-types").json()["items"])
    assert sums == cost


def test_calls_are_told_while_they_flow(serve: Serve, upstream: StandInUpstream) -> None:
    """Whoever listens hears of each; a listener does not hold the gateway up when it stops."""
    served = serve(upstream)
    heard: list[str] = []
    listening = threading.Event()

    def listen() -> None:
        with HTTP.stream("GET", f"{served.url}/api/v1/live", timeout=60) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                listening.set()
                if line.startswith("data:") and '"items"' in line:
                    heard.extend(one["call_id"] for one in json.loads(line[5:])["items"])

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(60)
    sent = set()
    for _ in range(3):
        served.post(json.dumps(message("claude-tierwise-auto")))
    sent = {one.call.call_id for one in served.calls()}
    ends = time.monotonic() + 60
    while set(heard) != sent:
        assert time.monotonic() < ends, (heard, sent)
        time.sleep(0.05)
    served.stop()
    thread.join(60)
    assert not thread.is_alive()


def test_where_keys_are_demanded_the_dashboard_demands_them(serve: Serve, upstream: StandInUpstream) -> None:
    """Figures, calls and changes each need a scope of their own; the page's files, which say nothing, need none."""
    served = serve(upstream)
    served.gateway.keys_required = True
    assert get(served, "/dashboard").status_code == 308
    answer = get(served, "/api/v1/overview")
    assert answer.status_code == 401
    assert "tierwise keys create" in answer.json()["error"]["do"]
    calls, _ = key(served, "calls", scopes=[KeyScope.CALLS, KeyScope.RECEIPTS])
    metrics, _ = key(served, "metrics", scopes=[KeyScope.METRICS])
    reads, _ = key(served, "reads", scopes=[KeyScope.METRICS, KeyScope.RECEIPTS])
    manages, _ = key(served, "manages", scopes=list(KeyScope))
    for secret, path, status in (
        (calls, "/api/v1/overview", 403),
        (metrics, "/api/v1/overview", 200),
        (metrics, "/api/v1/calls", 403),
        (metrics, "/api/v1/live", 403),
        (reads, "/api/v1/calls", 200),
        ("tw-000000000000-" + "x" * 43, "/api/v1/overview", 401),
    ):
        assert get(served, path, secret).status_code == status, (path, status)
    budget = json.dumps({"limit_usd": "5"})
    for secret, status in ((reads, 403), (manages, 200)):
        answer = HTTP.post(
            f"{served.url}/api/v1/budgets",
            content=budget,
            headers={"x-api-key": secret, "content-type": "application/json", **CHANGE},
        )
        assert answer.status_code == status


def test_a_foreign_name_for_loopback_sees_nothing(serve: Serve, upstream: StandInUpstream) -> None:
    """A page that rebinds its name to 127.0.0.1 is refused; a key speaks for itself, whatever the name."""
    served = serve(upstream)
    assert get(served, "/api/v1/overview", host="evil.example").status_code == 403
    assert get(served, "/api/v1/overview", sec_fetch_site="cross-site").status_code == 403
    secret, _ = key(served, "reads", scopes=list(ALL))
    assert get(served, "/api/v1/overview", secret, host="dash.example").status_code == 200


def test_headroom_and_circuits_are_told(serve: Serve, upstream: StandInUpstream) -> None:
    """As the gateway knows them now."""
    served = serve(upstream, limits={"haiku": RateLimit(requests_per_minute=10)})
    assert get(served, "/api/v1/limits").json()["headroom"] == []
    served.post(json.dumps(message("claude-haiku-5-5")))
    found = get(served, "/api/v1/limits").json()
    assert found["available"]
    (requests,) = (one for one in found["headroom"] if one["measure"] == "requests")
    assert requests["family"] == "haiku"
    assert requests["left"] < requests["limit_per_minute"]


def test_a_gateway_that_nobody_looks_at_does_not_load_it(serve: Serve, upstream: StandInUpstream) -> None:
    """Nothing of the dashboard is made before somebody opens it."""
    served = serve(upstream)
    served.post(json.dumps(message("claude-haiku-5-5")))
    assert served.gateway.dashboard._dashboard is None


def test_how_limits_stand_travels_between_processes() -> None:
    """What a worker hears is what its supervisor knows; what cannot be read is left out."""
    one = Headroom(Family("anthropic", "opus"), Measure.REQUESTS, 50, 49, 1.5, 0.0)
    standing = Standing((one,), 3, 2)
    assert standing_from(json.loads(json.dumps(standing_frame(standing)))) == standing
    endless = Standing((Headroom(Family("a", "b"), Measure.REQUESTS, 1, 0, float("inf"), 0.0),), 0, None)
    assert json.dumps(standing_frame(endless), allow_nan=False)
    assert standing_from([None, 0, ["nonsense", [1]]]) == Standing((), 0)
    assert standing_from(["?"]) == Standing((), 0)


async def test_a_call_does_not_wait_for_a_slow_question(tmp_path: Any, upstream: StandInUpstream) -> None:
    """Reading is done in threads of the dashboard's own: the loop that calls go through goes on."""
    from tests.gateway.conftest import settings_for

    gateway = Gateway(settings_for(upstream, tmp_path))
    dashboard = gateway.dashboard._made()
    asked, released = threading.Event(), threading.Event()

    def slow() -> int:
        asked.set()
        released.wait(60)
        return 1

    waiting = asyncio.ensure_future(dashboard.api.read(slow))
    while not asked.is_set():
        await asyncio.sleep(0.01)
    assert not waiting.done()
    released.set()
    assert await waiting == 1
    dashboard.close()
    await gateway.aclose()


@pytest.mark.parametrize("path", ["/api/v1", "/api/v2/overview", "/dashboards"])
def test_only_its_own_paths_are_the_dashboards(serve: Serve, upstream: StandInUpstream, path: str) -> None:
    """Others are answered as before."""
    answer = get(serve(upstream), path)
    assert answer.status_code == 404
    assert answer.json()["type"] == "error"
