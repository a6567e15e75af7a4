"""Turns at writing: one process at a time, nobody starves, and who dies holds nobody up."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pytest

from tierwise.ledger.turnstile import Turnstile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no workers on Windows")

HOLDS = """
import sys, time
from tierwise.ledger.turnstile import Turnstile
with Turnstile(int(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
NEVER_PAUSES = """
import os, sys
from tierwise.ledger.turnstile import Turnstile
turns, log = Turnstile(int(sys.argv[1])), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
print("begins", flush=True)
while True:
    with turns:
        os.write(log, b"<")
        os.write(log, b">")
"""


@contextmanager
def other(program: str, *arguments: str, descriptor: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has the same file, once it has begun."""
    command = [sys.executable, "-c", program, str(descriptor), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[descriptor]) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
def file() -> Iterator[IO[bytes]]:
    with TemporaryFile() as found:
        yield found


def test_who_dies_holds_nobody_up(file: IO[bytes]) -> None:
    """A process that is killed while it writes gives its turn to who waits."""
    through = threading.Event()

    def waits() -> None:
        with Turnstile(file.fileno()):
            through.set()

    with other(HOLDS, descriptor=file.fileno()) as process:
        assert not Turnstile(file.fileno()).enter_at_once()
        thread = threading.Thread(target=waits)
        thread.start()
        assert not through.wait(0.2)
        process.kill()
        assert through.wait(60)
        thread.join()


def test_nobody_is_starved_and_nobody_intrudes(file: IO[bytes], tmp_path: Path) -> None:
    """Beside one that never pauses, two threads get their turns, and no turn begins within another."""
    log = tmp_path / "log"
    log.touch()
    turns = Turnstile(file.fileno())

    def writes() -> None:
        for _ in range(30):
            with turns, log.open("ab", buffering=0) as opened:
                opened.write(b"[")
                opened.write(b"]")

    with other(NEVER_PAUSES, str(log), descriptor=file.fileno()):
        threads = [threading.Thread(target=writes) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        with turns:
            written = log.read_bytes()
    assert written.count(b"[]") == 60
    assert not written.replace(b"[]", b"").replace(b"<>", b"")


def test_a_turn_ends_with_its_fault(file: IO[bytes]) -> None:
    """What goes wrong within leaves the turn to the next."""
    turns = Turnstile(file.fileno())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), turns:
            assert not turns.enter_at_once()
            raise ZeroDivisionError
    assert turns.enter_at_once()
    turns.leave()
