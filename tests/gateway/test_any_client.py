"""The commands of docs/how-to/http.md and the requests of n8n's workflow, against the real gateway."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.docs.pages import DOCS, ROOT, blocks
from tests.gateway.conftest import KEY, Serve, Served
from tierwise.testing import RecordedRequest, StandInReply, StandInUpstream

PAGE = DOCS / "how-to" / "http.md"
USUAL = "http://127.0.0.1:8484"
HAIKU = "claude-haiku-5-5"
TICKET = {"topic": "printer", "urgency": "high"}


def replies(request: RecordedRequest) -> StandInReply | None:
    """What the schema of a request asks for; else the stand-in's own words."""
    match request.json:
        case {"output_config": {"format": {"schema": {"properties": dict(wanted)}}}}:
            return StandInReply.of_json({name: TICKET[name] for name in wanted})
    return None


@pytest.fixture
def upstream() -> Iterator[StandInUpstream]:
    """A stand-in for the API that answers as schemas ask."""
    with StandInUpstream(handler=replies) as stand_in:
        yield stand_in


@pytest.fixture
def gateway(serve: Serve, upstream: StandInUpstream) -> Served:
    """A gateway before it."""
    return serve(upstream)


def commands() -> dict[str, str]:
    """The page's bash blocks, by the heading that they stand under."""
    text = PAGE.read_text("utf-8")
    found = {}
    for block in blocks(PAGE, "bash"):
        above = "\n".join(text.splitlines()[: block.line - 1])
        found[re.findall(r"^## (.+)$", above, re.MULTILINE)[-1]] = block.text
    return found


def run(command: str, gateway: Served, folder: Path) -> str:
    """What a command prints, which must go well."""
    assert USUAL in command
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace(USUAL, gateway.url)],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "ANTHROPIC_API_KEY": KEY},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout


# ------------------------------------------------------------------ curl

needs_curl = pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="curl is not here")
WITH_CURL: dict[str, Callable[[str], bool]] = {
    "A request in Anthropic's dialect": lambda said: json.loads(said)["model"] == HAIKU,
    "A request in OpenAI's dialect": lambda said: json.loads(said)["choices"][0]["finish_reason"] == "stop",
    "Say what you know": lambda said: json.loads(json.loads(said)["content"][0]["text"]) == {"topic": "printer"},
    "Stream": lambda said: (
        said.startswith("event: message_start") and said.rstrip().endswith('{"type": "message_stop"}')
    ),
    "What it cost": lambda said: [one["outcome"] for one in json.loads(said)["attempts"]] == ["accepted"],
    "Where would it go?": lambda said: json.loads(said)["tier"] == "opus",
}


def test_every_command_is_run() -> None:
    """No block of the page is left out."""
    assert set(commands()) == set(WITH_CURL)


@needs_curl
@pytest.mark.parametrize("heading", WITH_CURL)
def test_the_page_s_commands_work(gateway: Served, upstream: StandInUpstream, tmp_path: Path, heading: str) -> None:
    """A command of the page gets the answer that its text promises; the client's key went on, and to the API alone."""
    said = run(commands()[heading], gateway, tmp_path)
    assert WITH_CURL[heading](said), said
    sent = upstream.calls()
    assert len(sent) == (0 if heading == "Where would it go?" else 1)
    assert {request.headers["x-api-key"] for request in sent} <= {KEY}


@needs_curl
def test_what_is_said_counts(gateway: Served, tmp_path: Path) -> None:
    """The headers of the page are obeyed and recorded."""
    run(commands()["Say what you know"], gateway, tmp_path)
    (stored,) = gateway.calls()
    assert (stored.call.project, stored.call.task_type) == ("support", "topic_classification")


# ------------------------------------------------------------------ n8n


def value(text: Any, item: Mapping[str, Any], env: Mapping[str, str]) -> Any:
    """A parameter as n8n would have it: the few expressions that the workflow uses, and no others."""
    if not isinstance(text, str) or not text.startswith("="):
        return text

    def evaluated(match: re.Match[str]) -> str:
        match match[1].strip():
            case "$env.TIERWISE_URL || 'http://127.0.0.1:8484'":
                return env.get("TIERWISE_URL") or USUAL
            case "$env.ANTHROPIC_API_KEY":
                return env["ANTHROPIC_API_KEY"]
            case "JSON.stringify($json.ticket)":
                return json.dumps(item["ticket"])
            case '$json.headers["x-tierwise-call-id"]':
                return str(item["headers"]["x-tierwise-call-id"])
            case other:
                raise AssertionError(f"the test does not know {other}")

    return re.sub(r"\{\{(.+?)\}\}", evaluated, text[1:])


def test_the_workflow_s_nodes_are_requests_that_work(gateway: Served, upstream: StandInUpstream) -> None:
    """n8n's nodes, carried out in order as their parameters say, end with its cost; no secret is in the file."""
    path = ROOT / "deploy" / "n8n" / "tierwise.json"
    workflow = json.loads(path.read_text("utf-8"))
    assert not re.search(r"\b(sk|tw)-", path.read_text("utf-8"))
    nodes = {node["name"]: node for node in workflow["nodes"]}
    assert len({node["id"] for node in workflow["nodes"]}) == len(nodes)
    env = {"TIERWISE_URL": gateway.url, "ANTHROPIC_API_KEY": KEY}
    item: dict[str, Any] = {}
    at: str | None = "Start"
    passed = []
    while at is not None:
        passed.append(at)
        node = nodes[at]
        parameters = node["parameters"]
        match node["type"]:
            case "n8n-nodes-base.manualTrigger":
                pass
            case "n8n-nodes-base.set":
                item = {one["name"]: one["value"] for one in parameters["assignments"]["assignments"]}
            case "n8n-nodes-base.httpRequest":
                headers = {
                    one["name"]: value(one["value"], item, env)
                    for one in parameters.get("headerParameters", {}).get("parameters", ())
                }
                body = json.loads(value(parameters["jsonBody"], item, env)) if parameters.get("sendBody") else None
                method, url = parameters.get("method", "GET"), value(parameters["url"], item, env)
                answer = httpx2.request(method, url, headers=headers, json=body, timeout=60)
                assert answer.status_code == 200, answer.text
                whole = parameters["options"].get("response", {}).get("response", {}).get("fullResponse")
                item = {"headers": dict(answer.headers), "body": answer.json()} if whole else answer.json()
            case other:
                raise AssertionError(f"the test does not know {other}")
        following = workflow["connections"].get(at, {"main": [[]]})["main"][0]
        at = following[0]["node"] if following else None
    assert passed == list(nodes)
    (sent,) = upstream.calls()
    assert sent.json["messages"][0]["content"] == 'The printer on floor 2 "burns", again.\nPlease hurry.'
    (stored,) = gateway.calls()
    assert item["call_id"] == stored.call.call_id
    assert (item["project"], item["tier"], item["status"]) == ("support", "haiku", "answered")
