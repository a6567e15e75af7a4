"""What Claude Code runs at each event: hands the event to tierwise's companion process, and its answer back.

Nothing but the interpreter is needed, and as little of it as can be: `json` or `socket` alone take longer to import
than all the rest. The companion has the classifier in memory. Where it does not run it is started, for the next
event; where it does not answer in time, nothing is said, and Claude Code goes on as it would have.
"""

from __future__ import annotations

import os
import sys
from time import time

try:
    from _socket import AF_UNIX, SHUT_WR, SOCK_STREAM, socket
except ImportError:
    from socket import AF_UNIX, SHUT_WR, SOCK_STREAM, socket  # type: ignore[assignment]

ANSWER_SECONDS = float(os.environ.get("TIERWISE_HOOK_SECONDS") or 0.03)  # at most, for the companion to answer
STARTS_AGAIN_SECONDS = 20  # what did not come up is not started by every event


def main(event: str, payload: bytes) -> None:
    """Hands over one event. `TIERWISE_RECORDS` says that somebody else counts what this session uses."""
    if os.environ.get("TIERWISE_RECORDS") and event != "PreToolUse":
        return
    place = socket_path(os.environ)
    message = f"{event} {os.environ.get('ANTHROPIC_MODEL', '')}\n".encode() + payload
    try:
        answer = ask(place, message)
    except OSError:
        start(place, b"" if event == "PreToolUse" else message)
        return
    sys.stdout.buffer.write(answer)


def socket_path(environment: os._Environ[str] | dict[str, str]) -> str:
    """Where the companion of this user listens; the same rule as in tierwise itself."""
    named = environment.get("TIERWISE_CLAUDE_SOCKET")
    if named:
        return named
    home = environment.get("HOME", "")
    base = environment.get("XDG_RUNTIME_DIR") or environment.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return f"{base}/tierwise/claude.sock"


def ask(place: str, message: bytes) -> bytes:
    """The companion's answer; nothing where it takes too long. Raises OSError where none listens."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    connection.settimeout(ANSWER_SECONDS)
    connection.connect(place)
    pieces = []
    try:
        connection.sendall(message)
        connection.shutdown(SHUT_WR)
        while piece := connection.recv(65536):
            pieces.append(piece)
    except TimeoutError:
        return b""  # whatever came of it is not whole
    finally:
        connection.close()
    return b"".join(pieces)


def start(place: str, message: bytes) -> None:
    """Starts the companion, which is handed this event, as a process that outlives the session."""
    command = companion()
    folder = os.path.dirname(place)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if command is None or started_lately(f"{place}.started"):
        return
    given = os.open(f"{place}.{os.getpid()}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(f"{place}.{os.getpid()}")  # a file without a name: a pipe could be full before anybody reads
    while message:
        message = message[os.write(given, message) :]
    os.lseek(given, 0, os.SEEK_SET)
    if os.fork():
        return
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for to, source in ((0, given), (1, nothing), (2, nothing)):
        os.dup2(source, to)
    try:
        os.execvp(command[0], [*command, "claude", "_companion", place])
    finally:
        os._exit(1)


def started_lately(mark: str) -> bool:
    """Whether it was started a moment ago; else marks that it is now."""
    try:
        if abs(time() - os.stat(mark).st_mtime) < STARTS_AGAIN_SECONDS:
            return True
    except OSError:
        pass
    os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    os.utime(mark)
    return False


def companion() -> list[str] | None:
    """How tierwise is started: with the Python that it was installed with, or by its name."""
    here = os.path.dirname(os.path.abspath(__file__))
    if os.path.exists(f"{here}/python"):
        return [sys.executable, "-P", "-m", "tierwise"]  # nothing of the session's own directory
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if os.access(f"{folder}/tierwise", os.X_OK):
            return [f"{folder}/tierwise"]
    return None


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer.read())
