"""Several workers behind one address: starts them, starts them again, tells them to stop, keeps what they share.

Theory of operation. The supervisor binds the socket and serves nobody itself: it hands each connection to the worker
that has the fewest (`tierwise.gateway.handing`), and while none serves, connections wait in the socket's queue. Workers
are fresh interpreters: nothing is forked after an event loop, a thread or a database was opened. Each has one end of a
line (`tierwise.gateway.line`); the supervisor has the other, and `Commons` behind it.

A worker that ends unasked is replaced, later the sooner it died. Where they die as soon as they start, again and again
and none serves, that is told as an error and it ends.

A configuration is read here. One worker tries it; only if that can use it do the others get it, and those that start
later. So a bad one is told of once, and changes nothing anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tierwise.core.errors import ConfigError, TierwiseError
from tierwise.core.settings import Settings
from tierwise.gateway.commons import Commons, Member
from tierwise.gateway.handing import hand_over
from tierwise.gateway.line import Frame, Line, pair, write_first
from tierwise.gateway.metrics import Figures, samples_from
from tierwise.gateway.server import keep_reading, loop_factory
from tierwise.gateway.setup import Setup, packed_settings

__all__ = ["Supervisor", "WorkersFail", "check_supported"]

_log = logging.getLogger("tierwise.gateway")

_MOST_EARLY_ENDS = 6  # of one worker in a row, until that is an error
_EARLY_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_GRACE_SECONDS = 5.0  # over the time for draining, until a worker that does not end is killed
_COUNT_SECONDS = 1.0  # that a worker may take to tell its figures
_RELOAD_SECONDS = 30.0
_MOST_ACCEPTED = 64  # at once: what workers say is heard in between


class WorkersFail(TierwiseError):
    """Workers end as soon as they start."""


def check_supported(workers: int) -> None:
    """Refuses several workers where there cannot be any.

    Raises:
        ConfigError: says what to do.
    """
    if workers > 1 and sys.platform == "win32":
        raise ConfigError(
            f"{workers} workers need Linux or macOS (processes there share a listening socket); on Windows leave "
            "gateway.workers at 1"
        )


class _Worker(Member):
    """A worker's process, and what the supervisor knows of it."""

    def __init__(self, slot: int, process: Process, hand: socket.socket) -> None:
        super().__init__()
        self.slot = slot
        self.process = process
        self.hand = hand
        self.connections = 0
        self.drains = False  # it should get no more of them, where another worker can take them
        self.served = False
        self.hung_up = asyncio.Event()
        self.counted: asyncio.Future[None] | None = None
        self.reloaded: asyncio.Future[str | None] | None = None

    @property
    def name(self) -> str:
        return f"worker {self.slot} (process {self.process.pid})"

    def has_counted(self) -> None:
        """Its figures are there, as far as they come."""
        if self.counted is not None and not self.counted.done():
            self.counted.set_result(None)

    def has_reloaded(self, error: str | None) -> None:
        """It has the configuration that it was given, or cannot use it."""
        if self.reloaded is not None and not self.reloaded.done():
            self.reloaded.set_result(error)


class Supervisor:
    """Runs workers until it is told to stop. Use it once: `Supervisor(…).run()`.

    Args:
        settings: the configuration.
        sock: a listening socket, as `tierwise.gateway.server.listen` makes it.
        workers: how many.
        setup: what else they are started with.
        reload: reads the configuration anew.
        watched: files whose change reloads it.
    """

    def __init__(
        self,
        settings: Settings,
        sock: socket.socket,
        *,
        workers: int,
        setup: Setup,
        reload: Callable[[], Settings],
        watched: Sequence[Path] = (),
    ) -> None:
        self._settings = settings
        self._sock = sock
        self._count = workers
        self._setup = setup
        self._reload = reload
        self._watched = tuple(watched)
        self._figures = Figures()
        self._workers: set[_Worker] = set()
        self._failed: str | None = None
        self._listens = self._paused = self._ended = False
        self._turns = TemporaryFile()  # noqa: SIM115  closed where the socket is

    def run(self) -> None:
        """Serves until it is told to stop.

        Raises:
            WorkersFail: none can.
        """
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._supervise())
        if self._failed is not None:
            raise WorkersFail(self._failed)

    async def _supervise(self) -> None:
        self._commons = Commons(self._settings.gateway)
        self._stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        port = self._sock.getsockname()[1]
        reading = asyncio.ensure_future(keep_reading(self._reload, self._watched, port, self._apply))
        try:
            await asyncio.gather(*(self._keep(slot) for slot in range(1, self._count + 1)))
        finally:
            reading.cancel()
            self._ended = self._paused = True
            self._listen()
            self._sock.close()
            self._turns.close()
            for worker in self._workers:
                worker.process.kill()

    # ------------------------------------------------------------------ lives

    async def _keep(self, slot: int) -> None:
        """Keeps one worker running."""
        loop = asyncio.get_running_loop()
        early = 0
        while not self._stopping.is_set():
            began = loop.time()
            served, how = await self._live(slot)
            if self._stopping.is_set():
                return
            early = 0 if served and loop.time() - began > _EARLY_SECONDS else early + 1
            if early >= _MOST_EARLY_ENDS and not any(other.ready for other in self._workers):
                self._failed = (
                    f"the gateway's workers end as soon as they start ({how}, {early} times in a row); "
                    "what they said before this is the reason. `tierwise serve --workers 1` shows it alone"
                )
                self._told_to_stop()
                return
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** max(0, early - 1))
            _log.error("worker %d ended (%s); another one starts in %.1f s", slot, how, pause)
            await _within(self._stopping.wait(), pause)

    async def _live(self, slot: int) -> tuple[bool, str]:
        """One worker's life: whether it served, and how it ended."""
        try:
            worker = await self._start(slot)
        except OSError as error:
            return False, f"it cannot be started: {error.strerror}"
        status = await worker.process.wait()
        await worker.hung_up.wait()  # what it told in the end was heard
        served = worker.served
        self._workers.discard(worker)
        self._commons.leaves(worker)
        self._figures.gone(worker)
        return served, f"process {worker.process.pid}, {_how(status)}"

    async def _start(self, slot: int) -> _Worker:
        root = str(Path(__file__).parents[2])  # where `tierwise` was found
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        ours, theirs = pair()
        hand, taking = pair()
        hand.setblocking(False)
        inherited = (taking.fileno(), theirs.fileno(), self._turns.fileno())
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # what lies in the working directory is no part of it
                "-m",
                "tierwise.gateway.worker",
                *map(str, inherited),
                stdin=DEVNULL,
                stdout=DEVNULL,
                pass_fds=inherited,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError:
            ours.close()
            hand.close()
            raise
        finally:
            theirs.close()
            taking.close()
        worker = _Worker(slot, process, hand)
        setup = self._setup
        try:
            write_first(ours, [slot, packed_settings(self._settings), setup.log_level, setup.log_format, setup.trace])
        except OSError:  # it has ended already; its line says so as well
            _log.debug("worker %d was gone at once", slot)
        worker.line = Line(ours, lambda frame: self._heard(worker, frame), lambda: self._hung_up(worker))
        self._workers.add(worker)
        self._commons.members.add(worker)
        if self._stopping.is_set():
            worker.tell("drain")
        return worker

    def _hung_up(self, worker: _Worker) -> None:
        worker.hung_up.set()
        worker.hand.close()
        worker.line, worker.ready = None, False
        self._listen()
        worker.has_counted()
        worker.has_reloaded(f"{worker.name} ended while it read it")

    def _told_to_stop(self) -> None:
        """The first time, running calls finish; the second time, nothing is waited for."""
        again = self._stopping.is_set()
        self._stopping.set()
        for worker in self._workers:
            worker.tell("stop" if again else "drain")
        if not again:
            seconds = self._settings.gateway.drain_seconds + _GRACE_SECONDS
            asyncio.get_running_loop().call_later(seconds, self._kill)

    def _kill(self) -> None:
        for worker in self._workers:
            _log.error("%s did not end in time and was killed", worker.name)
            worker.process.kill()

    # ------------------------------------------------------------------ connections

    def _listen(self) -> None:
        """Accepts connections while there is a worker to hand them to; otherwise they wait in the socket's queue."""
        listens = any(worker.ready for worker in self._workers) and not self._paused
        if listens and not self._listens:
            asyncio.get_running_loop().add_reader(self._sock.fileno(), self._accept)
        elif self._listens and not listens:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._listens = listens

    def _accept(self) -> None:
        for _ in range(_MOST_ACCEPTED):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # too many files are open, as a rule
                _log.error("connections cannot be accepted (%s); tried again in 1 s", error.strerror)
                self._paused = True
                self._listen()
                asyncio.get_running_loop().call_later(1.0, self._go_on)
                return
            with connection:
                self._hand(connection)

    def _go_on(self) -> None:
        self._paused = False
        if not self._ended:
            self._listen()

    def _hand(self, connection: socket.socket) -> None:
        ready = [worker for worker in self._workers if worker.ready]
        for worker in sorted(ready, key=lambda worker: (worker.drains, worker.connections, worker.slot)):
            try:
                hand_over(worker.hand, connection)
            except OSError:  # it is going away, or does not come to take what it was given
                continue
            worker.connections += 1
            return

    # ------------------------------------------------------------------ what workers say

    def _heard(self, worker: _Worker, frame: Frame) -> None:
        match frame:
            case ["ready"]:
                worker.ready = worker.served = True
                self._listen()
            case ["lost"]:
                worker.connections -= 1
            case ["drains"]:
                worker.drains = True
            case ["figures", samples]:
                self._figures.told(worker, samples_from(samples))
            case ["total", int(number)]:
                self._counting = asyncio.ensure_future(self._total(worker, number))
            case ["counted", _]:
                worker.has_counted()
            case ["reloaded", error]:
                worker.has_reloaded(None if error is None else str(error))
            case _:
                try:
                    known = self._commons.heard(worker, frame)
                except Exception as error:  # noqa: BLE001  a fault of ours with one call must not end all workers
                    _log.error("a fault in the supervisor, %s at: %s", type(error).__name__, str(frame[0])[:40])
                else:
                    if not known:
                        _log.error("%s said something unknown: %s", worker.name, str(frame[0])[:40])

    async def _total(self, asked_by: _Worker, number: int) -> None:
        """Has all workers tell their figures, and tells the sum."""
        loop = asyncio.get_running_loop()
        waits = []
        for worker in self._workers:
            if worker.ready and worker.line is not None:
                if worker.counted is None or worker.counted.done():
                    worker.counted = loop.create_future()
                    worker.tell("count", number)
                waits.append(worker.counted)
        if waits:
            await asyncio.wait(waits, timeout=_COUNT_SECONDS)
        asked_by.tell(number, [sample.frame() for sample in self._figures.total()])

    # ------------------------------------------------------------------ configurations

    async def _apply(self, settings: Settings) -> None:
        """Goes on with another configuration.

        Raises:
            ConfigError: a worker cannot use it.
        """
        packed = packed_settings(settings)
        tried = next((worker for worker in self._workers if worker.ready), None)
        if tried is not None and (error := await self._give(tried, packed)) is not None:
            raise ConfigError(error)
        self._settings = settings  # of those, too, that start from now on
        self._commons.configure(settings.gateway)
        others = [worker for worker in self._workers if worker is not tried and worker.line is not None]
        errors = {error for error in await asyncio.gather(*(self._give(one, packed) for one in others)) if error}
        for error in errors:
            _log.error("some workers could not use the configuration: %s", error)

    async def _give(self, worker: _Worker, packed: str) -> str | None:
        """Hands a configuration to a worker; why it cannot use it, if it cannot."""
        worker.reloaded = asyncio.get_running_loop().create_future()
        if worker.line is None:
            return f"{worker.name} is gone"
        worker.tell("settings", packed)
        done, _ = await asyncio.wait([worker.reloaded], timeout=_RELOAD_SECONDS)
        return worker.reloaded.result() if done else f"{worker.name} did not answer"


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


async def _within(waits: Coroutine[Any, Any, Any], seconds: float) -> None:
    task = asyncio.ensure_future(waits)
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
