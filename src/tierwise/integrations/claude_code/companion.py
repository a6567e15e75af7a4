"""The process that answers the plugin's hooks: the classifier stays in memory, so that a hook takes milliseconds.

Theory of operation. A hook connects to a socket in a directory of this user's, writes one line (the event and the
model that the environment asks for) and the JSON that Claude Code gave it, and reads the answer to the end. A call of
`Agent` is decided at once, one after another. Other events say that a session has gone on: they are answered with
nothing and looked at by a thread of its own, which reads the transcript and writes the ledger, one session at a time,
several events of one as one.

One companion runs for a user, whatever the number of sessions: it holds a lock beside the socket. It ends after half an
hour without an event, or when its socket is taken away. Nothing that goes wrong with an event ends it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tierwise.config import load_settings
from tierwise.config.edit import replace_file
from tierwise.config.load import config_paths
from tierwise.core.calls import ImportedCall
from tierwise.core.errors import InvalidTask, TierwiseError
from tierwise.core.json import JsonObject
from tierwise.core.tasks import Classification
from tierwise.engine.router import AsyncRouter
from tierwise.integrations.claude_code.climbing import Climbing, Given
from tierwise.integrations.claude_code.places import Places
from tierwise.integrations.claude_code.subagents import SubagentCall, answer, decide
from tierwise.integrations.claude_code.transcripts import agents_decided, read_session, record_session
from tierwise.ledger import Ledger
from tierwise.replay.tariff import Tariff

__all__ = ["Companion", "ask", "serve"]

_IDLE_SECONDS = 1800.0
_LOOKS_SECONDS = 60.0
_FLUSH_SECONDS = 0.5  # the rows of a turn are written after the event that ends it
_KEEPS_SECONDS = 60 * 86_400.0
_MOST_BYTES = 16 * 1024 * 1024
_MOST_ROUTERS = 16
_MOST_DECISIONS = 1000  # of a session that are remembered
# Classified once at the start: clear, and in doubt, so that the encoder is in memory too.
_WARMS_UP = ("Summarise this ticket in one line", "hm, look at the thing from before, the other one")


@dataclass(frozen=True, slots=True)
class _Known:
    """A configuration in use, and the files that it was read from."""

    files: tuple[tuple[str, float], ...]
    router: AsyncRouter


class Companion:
    """Decides and records. Safe to be used by several threads."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._places = Places.of(environment)
        self._lock = threading.Lock()
        self._routers: dict[Path, _Known] = {}
        self._waiting: dict[str, tuple[Path, Path]] = {}  # by session: transcript and directory
        self._climbing = Climbing()
        self._decided: dict[str, dict[str, Given]] = {}  # by session and tool call: what is not yet written down
        self._something = threading.Condition()
        self._stopping = False
        self._working = False

    # ------------------------------------------------------------------ events

    def event(self, message: bytes) -> bytes:
        """The answer to one event; whatever is wrong with it is answered with nothing."""
        try:
            head, _, body = message.partition(b"\n")
            name, _, model = head.decode("utf-8", "replace").partition(" ")
            payload = json.loads(body) if body.strip() else {}
            if isinstance(payload, dict):
                return self._event(name, model, payload)
        except (ValueError, RecursionError, OSError, TierwiseError) as error:
            _complain(error)
        return b""

    def _event(self, name: str, model: str, payload: JsonObject) -> bytes:
        match name:
            case "PreToolUse":
                return self._subagent(payload, model)
            case "SessionStart":
                with self._lock:
                    self._router(_path(payload, "cwd") or Path.cwd())
            case "Stop" | "SubagentStop" | "SessionEnd":
                transcript, session = _path(payload, "transcript_path"), payload.get("session_id")
                if transcript is not None and isinstance(session, str) and session:
                    self._enqueue(session, transcript, _path(payload, "cwd") or Path.cwd())
        return b""

    def _subagent(self, payload: JsonObject, model: str) -> bytes:
        call = SubagentCall.read(payload, model)
        if call is None:
            return b""
        with self._lock:
            rungs = decide(call, self._router(call.cwd), self._places.config)
            if rungs is None:
                return b""
            given = self._climbing.give(call, rungs, time.monotonic())
        if call.id:
            with self._something:
                self._decided.setdefault(call.session, {})[call.id] = given
        return answer(call, given.alias, given.why)

    def _router(self, cwd: Path) -> AsyncRouter:
        """For the configuration of this directory, as its files are now."""
        files = tuple((str(path), path.stat().st_mtime) for path in config_paths(self._environment, cwd))
        known = self._routers.get(cwd)
        if known is None or known.files != files:
            router = AsyncRouter(load_settings(env=self._environment, cwd=cwd))
            for text in _WARMS_UP:
                router.route(text)
            while len(self._routers) >= _MOST_ROUTERS:
                self._routers.pop(next(iter(self._routers)))
            known = self._routers[cwd] = _Known(files, router)
        return known.router

    # ------------------------------------------------------------------ what was decided

    def _decisions(self, session: str) -> dict[str, Given]:
        """The model of each call of `Agent` that was given one; written down now, not while a hook waits."""
        path = self._places.state / f"{session}.decided.json"
        known = _read_decisions(path)
        with self._something:
            new = self._decided.pop(session, {})
        if new:
            known = dict([*known.items(), *new.items()][-_MOST_DECISIONS:])
            replace_file(path, json.dumps({name: [given.alias, given.why] for name, given in known.items()}))
        return known

    # ------------------------------------------------------------------ recording

    def _enqueue(self, session: str, transcript: Path, cwd: Path) -> None:
        with self._something:
            self._waiting[session] = (transcript, cwd)
            self._something.notify()

    def work(self) -> None:
        """Records sessions until `stop`; whatever waits then is still recorded."""
        while True:
            with self._something:
                while not self._waiting and not self._stopping:
                    self._something.wait()
                if not self._waiting:
                    return
                session = next(iter(self._waiting))
                transcript, cwd = self._waiting.pop(session)
                self._working = True
            try:
                time.sleep(_FLUSH_SECONDS)
                self.record(session, transcript, cwd)
            except Exception as error:  # noqa: BLE001  the thread is the only one, and other sessions wait
                _complain(error)
            finally:
                self._working = False

    def record(self, session: str, transcript: Path, cwd: Path) -> None:
        """Records what a session used up to now, and writes its totals for the status line.

        Raises:
            TierwiseError, OSError: it could not be; the next event tries again.
        """
        with self._lock:
            router = self._router(cwd)

        def classify(call: ImportedCall) -> Classification | None:
            with self._lock, suppress(InvalidTask):
                return router.classify(call.ask, has_tools=call.has_tools, has_images=call.has_images)
            return None

        if not router.settings.ledger.enabled or not session.replace("-", "").isalnum():
            return
        calls = read_session(transcript, session, classify)
        self._places.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        decided = agents_decided(transcript, self._decisions(session))
        tariff = Tariff(router.settings.catalog, router.planner.prices)
        with Ledger.of(router.settings.ledger) as ledger:
            totals = record_session(calls, decided, ledger, tariff)
        replace_file(self._places.state / f"{session}.json", totals.as_json())

    def forget_old(self) -> None:
        """Removes what is known of sessions that nothing was heard of for long."""
        with suppress(OSError):
            for path in self._places.state.glob("*.json"):
                if path != self._places.journal and path.stat().st_mtime < time.time() - _KEEPS_SECONDS:
                    path.unlink()

    def stop(self) -> None:
        """Lets `work` end."""
        with self._something:
            self._stopping = True
            self._something.notify_all()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to record."""
        with self._something:
            return not self._waiting and not self._working


# ------------------------------------------------------------------ the process


def serve(
    place: Path, environment: Mapping[str, str], first: bytes = b"", *, idle_seconds: float = _IDLE_SECONDS
) -> None:
    """Answers events on this socket until it is idle for long. Where another one does already, hands `first` over."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Path(f"{place}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if first:
                ask(place, first, seconds=5.0)
            return
        companion = Companion(environment)
        companion.forget_old()
        worker = threading.Thread(target=companion.work, name="recording")
        worker.start()
        try:
            asyncio.run(_listen(place, companion, first, idle_seconds))
        finally:
            companion.stop()
            worker.join()


async def _listen(place: Path, companion: Companion, first: bytes, idle_seconds: float) -> None:
    last = time.monotonic()
    over = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last
        last = time.monotonic()
        with suppress(OSError, ConnectionError):
            message = await reader.read(_MOST_BYTES)
            while (more := await reader.read(_MOST_BYTES)) and len(message) < _MOST_BYTES:
                message += more
            if message.startswith(b"PreToolUse "):
                writer.write(await asyncio.to_thread(companion.event, message))
            writer.close()  # whoever tells of other events need not wait for what comes of them
            await writer.wait_closed()
            if message.startswith(b"stop "):
                over.set()
            elif not message.startswith(b"PreToolUse "):
                await asyncio.to_thread(companion.event, message)

    listening = _bound(place)
    inode = _inode(place)
    server = await asyncio.start_unix_server(connected, sock=listening, limit=_MOST_BYTES)
    async with server:
        if first:
            await asyncio.to_thread(companion.event, first)
        while time.monotonic() - last < idle_seconds or not companion.idle:
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), min(_LOOKS_SECONDS, idle_seconds))
            if over.is_set() or _inode(place) != inode:
                break
    if _inode(place) == inode:
        os.unlink(place)  # noqa: PTH108  nothing waits for it any more


def _bound(place: Path) -> socket.socket:
    """The socket, for this user alone."""
    place.unlink(missing_ok=True)  # of one that was killed: its lock is ours now
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(place))
    finally:
        os.umask(before)
    return listening


def ask(place: Path, message: bytes, *, seconds: float) -> bytes:
    """What the companion there answers.

    Raises:
        OSError: there is none, or it takes too long.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect(str(place))
        connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def _inode(place: Path) -> int | None:
    try:
        return place.stat().st_ino
    except OSError:
        return None


def _read_decisions(path: Path) -> dict[str, Given]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    known: dict[str, Given] = {}
    for name, told in found.items() if isinstance(found, dict) else ():
        match told:
            case [str(alias), str(why)]:
                known[name] = Given(alias, why)
            case str(alias):  # as versions wrote it that knew no reason
                known[name] = Given(alias)
            case _:
                pass
    return known


def _path(payload: JsonObject, name: str) -> Path | None:
    value = payload.get(name)
    return Path(value) if isinstance(value, str) and value else None


def _complain(error: Exception) -> None:
    print(f"tierwise: {error}", file=sys.stderr, flush=True)
