"""Batches through a gateway that listens: whose they are, where their results are, which account they are with."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import HEADERS, HTTP, KEY, Serve, Served, settings_for
from tierwise.core.decisions import CallStatus
from tierwise.core.settings import Settings
from tierwise.gateway.batching import read_batch
from tierwise.gateway.incoming import BadRequest
from tierwise.ledger import Ledger
from tierwise.ledger.keys import KeyPolicy, Keys
from tierwise.testing import StandInUpstream

PATH = "/v1/messages/batches"
AUTO = "claude-tierwise-auto"
HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"


@pytest.fixture
def own(upstream: StandInUpstream, tmp_path: Path) -> Settings:
    """A gateway with a key of its own for the provider."""
    return settings_for(upstream, tmp_path, ANTHROPIC_API_KEY="sk-ant-own")


def one(name: str, model: str = AUTO, **params: Any) -> dict[str, Any]:
    """A request of a batch."""
    messages = [{"role": "user", "content": "Summarise this ticket in one line: the printer burns"}]
    return {"custom_id": name, "params": {"model": model, "max_tokens": 50, "messages": messages, **params}}


def sent(served: Served, *requests: dict[str, Any], **headers: str) -> httpx2.Response:
    """A batch on its way."""
    return served.post(json.dumps({"requests": requests}), PATH, **headers)


def test_batch_through_the_gateway(serve: Serve, upstream: StandInUpstream) -> None:
    """A batch is routed and recorded, its results are had from the gateway, and settle its calls."""
    served = serve(upstream)
    made = sent(served, one("a"), one("b", SONNET)).json()
    assert [request["params"]["model"] for request in upstream.calls(PATH)[0].json["requests"]] == [HAIKU, SONNET]  # type: ignore[index, call-overload]
    told = HTTP.get(f"{served.url}{PATH}/{made['id']}", headers=HEADERS).json()
    assert told["results_url"] == f"{served.url}{PATH}/{made['id']}/results"
    page = HTTP.get(f"{served.url}{PATH}?limit=5", headers=HEADERS).json()
    assert page["data"] == [told]
    assert {found.call.status for found in served.calls()} == {CallStatus.OPEN}
    lines = HTTP.get(told["results_url"], headers=HEADERS).text.splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ["b", "a"]
    assert {found.call.status for found in served.calls()} == {CallStatus.ANSWERED}
    assert upstream.calls(PATH)[0].headers["x-api-key"] == KEY


def test_clients_see_their_own_batches(serve: Serve, upstream: StandInUpstream, own: Settings) -> None:
    """What was sent with one key of the gateway's, no other key sees, reads, cancels or deletes."""
    served = serve(upstream, settings=own)
    with Ledger(served.ledger_path) as ledger:
        mine, theirs = (Keys(ledger).create(name, 0).secret for name in ("mine", "theirs"))
    made = sent(served, one("a"), x_api_key=mine).json()["id"]
    for key, status, seen in ((mine, 200, [made]), (theirs, 404, [])):
        headers = {**HEADERS, "x-api-key": key}
        assert HTTP.get(f"{served.url}{PATH}/{made}", headers=headers).status_code == status
        assert HTTP.get(f"{served.url}{PATH}/{made}/results", headers=headers).status_code == status
        assert [found["id"] for found in HTTP.get(served.url + PATH, headers=headers).json()["data"]] == seen
    headers = {**HEADERS, "x-api-key": theirs}
    assert HTTP.post(f"{served.url}{PATH}/{made}/cancel", headers=headers).status_code == 404
    assert HTTP.delete(f"{served.url}{PATH}/{made}", headers=headers).status_code == 404
    assert upstream.batches.ids == [made]


def test_highest_tier_of_a_key_holds_in_a_batch(serve: Serve, upstream: StandInUpstream, own: Settings) -> None:
    """A model by name above a key's highest tier refuses the batch, and says which request."""
    served = serve(upstream, settings=own)
    with Ledger(served.ledger_path) as ledger:
        key = Keys(ledger).create("cheap", 0, policy=KeyPolicy(max_tier="haiku")).secret
    refused = sent(served, one("fine"), one("dear", OPUS), x_api_key=key)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
    assert "dear: the key" in refused.json()["error"]["message"]
    assert upstream.requests == []


def test_batch_stays_with_its_account(serve: Serve, upstream: StandInUpstream, tmp_path: Path) -> None:
    """Of a provider with several accounts, a batch is asked for with the one that it was sent with."""
    toml = '[providers.anthropic]\napi_key_envs = ["KEY_ONE", "KEY_TWO"]'
    settings = settings_for(upstream, tmp_path, toml, KEY_ONE="sk-ant-one", KEY_TWO="sk-ant-two")
    served = serve(upstream, settings=settings)
    made = sent(served, one("a")).json()["id"]
    first = upstream.requests[-1].headers["x-api-key"]
    provider = settings.providers["anthropic"]
    used = next(key for key in provider.api_keys if key.secret == first)
    served.gateway.accounts.refused(provider, used)  # new batches go elsewhere
    HTTP.get(f"{served.url}{PATH}/{made}", headers=HEADERS)
    assert upstream.requests[-1].headers["x-api-key"] == first
    sent(served, one("b"))
    assert upstream.requests[-1].headers["x-api-key"] != first


def test_models_of_others_are_refused(serve: Serve, upstream: StandInUpstream) -> None:
    """A batch goes to one provider as a whole: a model of another one is refused before anything is sent."""
    toml = """
[providers.other]
kind = "ollama"
base_url = "http://127.0.0.1:9"
[tiers.haiku]
models = ["claude-haiku-5-5", "qwen"]
[models.qwen]
provider = "other"
context_tokens = 8192
max_output_tokens = 1024
"""
    served = serve(upstream, toml)
    refused = sent(served, one("a", "qwen"))
    assert refused.status_code == 400
    assert "a batch goes to anthropic, and qwen is a model of other" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[]", "requests: a batch has a list"),
        ("{", "the body is not JSON"),
        ('{"requests": []}', "requests: a batch has a list"),
        ('{"requests": [{}]}', "requests.0.params: an object is required"),
        ('{"requests": [{"custom_id": "a b", "params": {}}]}', "requests.0.custom_id"),
        ('{"requests": [{"custom_id": "a", "params": {"max_tokens": 1}}]}', "a: model: a model's name is required"),
        (json.dumps({"requests": [one("a"), one("a")]}), "requests.1.custom_id: 'a' stands in the batch twice"),
        ('{"requests": [], "requests": []}', "requests: a batch has a list"),
        ('{"requests": [{"custom_id": "a", "params": {}, "params": {}}]}', "requests.0.params: stands there twice"),
    ],
)
def test_what_is_no_batch_is_refused(serve: Serve, upstream: StandInUpstream, body: str, said: str) -> None:
    """What cannot be told apart is refused with where it is wrong, before anything is sent or recorded."""
    served = serve(upstream)
    refused = served.post(body, PATH)
    assert refused.status_code == 400
    assert said in refused.json()["error"]["message"]
    assert (upstream.requests, served.calls()) == ([], [])


def test_what_is_not_changed_stays_as_it_came() -> None:
    """Only the parameters that change are written anew; blanks, escapes and numbers of the rest are the client's."""
    kept = b'{ "custom_id" : "k\\u0065pt", "params":{"model": "x", "n": 1.0e2} }'
    moved = b'{"params": {"model": "y"},  "tierwise": {"min_tier": "opus"}, "custom_id": "moved"}'
    body = read_batch(b'{"requests" : [ ' + kept + b" ,\n" + moved + b'], "later": true}')
    assert [request.params for request in body.requests] == [b'{"model": "x", "n": 1.0e2}', b'{"model": "y"}']
    after = body.with_params({"moved": b'{"model":"z"}'})
    assert after == (
        b'{"requests" : [ ' + kept + b' ,\n{"params": {"model":"z"}, "custom_id": "moved"}], "later": true}'
    )
    assert json.loads(after)["requests"][0]["custom_id"] == "kept"


def test_words_for_us_are_read_as_headers() -> None:
    """What a request says for itself becomes the headers that say it of a call; a wrong word is told."""
    told: dict[str, Any] = {"task": "été", "task_type": "summarization", "tags": {"a": "1", "b": "2"}}
    (request,) = read_batch(json.dumps({"requests": [{**one("a"), "tierwise": told}]}).encode()).requests
    assert dict(request.headers) == {
        b"x-tierwise-task": b"%C3%A9t%C3%A9",
        b"x-tierwise-task-type": b"summarization",
        b"x-tierwise-tags": b"a=1,b=2",
    }
    for wrong in ({"min_tier": 3}, {"project": "x"}, {}, "opus"):
        with pytest.raises(BadRequest, match=r"requests\.0\.tierwise"):
            read_batch(json.dumps({"requests": [{**one("a"), "tierwise": wrong}]}).encode())


def test_two_readers_at_once_settle_once(serve: Serve, upstream: StandInUpstream) -> None:
    """Several clients that read the same results at the same time leave each call with one attempt, priced once."""
    served = serve(upstream)
    made = sent(served, *(one(f"r{number}") for number in range(30))).json()["id"]
    HTTP.get(f"{served.url}{PATH}/{made}", headers=HEADERS)

    async def read() -> list[int]:
        async with httpx2.AsyncClient(timeout=60) as client:
            url = f"{served.url}{PATH}/{made}/results"
            answers = await asyncio.gather(*(client.get(url, headers=HEADERS) for _ in range(4)))
        return [len(answer.text.splitlines()) for answer in answers]

    assert asyncio.run(read()) == [30] * 4
    found = served.calls()
    assert [len(stored.attempts) for stored in found] == [1] * 30
    counted = [
        line for line in HTTP.get(f"{served.url}/metrics").text.splitlines() if line.startswith("tierwise_calls_total")
    ]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == 30
    assert {stored.call.status for stored in found} == {CallStatus.ANSWERED}


def test_results_that_break_off_end_as_broken(serve: Serve, upstream: StandInUpstream) -> None:
    """A client must not take half of the results for all: the connection breaks, after what came was settled."""
    served = serve(upstream)
    made = sent(served, one("a"), one("b"), one("c")).json()["id"]
    upstream.batches.cut_after = 2
    with pytest.raises(httpx2.RemoteProtocolError):
        HTTP.get(f"{served.url}{PATH}/{made}/results", headers=HEADERS)
    statuses = [found.call.status for found in served.calls()]
    assert statuses.count(CallStatus.ANSWERED) == 2
