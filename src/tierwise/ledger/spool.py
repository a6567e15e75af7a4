"""Where records wait while the database cannot be written.

A spool is a file of JSON lines beside the ledger, one for each process, only ever appended to. Each line is on the
disk (fsync) before the append returns. Whoever opens the ledger next folds all spools in; applying a record twice
changes nothing, so a crash between folding and removing is harmless. A lock on the file keeps one process from
removing what another is just appending.

Where the ledger's own directory cannot be written, the next directory of a list is tried; there the file's name
carries a digest of the ledger's path.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["SpoolFile", "append_line", "candidate_paths", "claim", "default_spool_dirs", "spool_files"]


def default_spool_dirs() -> tuple[Path, ...]:
    """Where to spool when the ledger's own directory cannot be written: the user's state directory, then temp."""
    state = os.environ.get("XDG_STATE_HOME")
    home = Path(state) if state else Path("~/.local/state").expanduser()
    # What `tempfile` would say, without the twenty modules that it imports.
    temporary = Path(os.environ.get("TMPDIR") or os.environ.get("TEMP") or "/tmp")  # noqa: S108 a private directory in it
    user = os.getuid() if sys.platform != "win32" else os.environ.get("USERNAME", "user")
    return (home / "tierwise", temporary / f"tierwise-{user}")


def _stem(ledger: Path, directory: Path) -> str:
    if directory == ledger.parent:
        return ledger.name
    return f"{ledger.name}-{sha256(os.fsencode(ledger.absolute())).hexdigest()[:12]}"


def candidate_paths(ledger: Path, directories: Sequence[Path], suffix: str) -> Iterator[Path]:
    """Paths of that suffix, best first: beside the ledger, then in the other directories."""
    for directory in (ledger.parent, *directories):
        yield directory / f"{_stem(ledger, directory)}.{suffix}"


def spool_files(ledger: Path, directories: Sequence[Path]) -> list[Path]:
    """All spools of this ledger, of every process."""
    found: list[Path] = []
    for directory in (ledger.parent, *directories):
        prefix = f"{_stem(ledger, directory)}.spool-"
        with contextlib.suppress(OSError):
            found.extend(
                path for path in directory.iterdir() if path.name.startswith(prefix) and path.name.endswith(".jsonl")
            )
    return sorted(found)


def _lock(fd: int, *, wait: bool) -> bool:
    """Whether the file is ours now. Without file locks (Windows) it always is, and a race only repeats a record."""
    if sys.platform != "win32":
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except OSError:
        return False


def _own_directory(directory: Path) -> None:
    """Make a private directory; refuse one that somebody else prepared (temp is open to all)."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = directory.lstat()
    if sys.platform != "win32" and (not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid()):
        raise PermissionError(f"{directory} belongs to another user")


def append_line(path: Path, line: str, *, shared_directory: bool = False) -> None:
    """Append one line, on the disk when this returns.

    `shared_directory`: the directory is one of the fallbacks, and made private first.

    Raises:
        OSError: it could not be written; then the file is as it was.
    """
    if shared_directory:
        _own_directory(path.parent)
    data = (line + "\n").encode("ascii")
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            _lock(fd, wait=True)
            if not _same_file(fd, path):
                continue  # folded and removed between opening and locking
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # a torn line of a process of the same id before us
            try:
                written = 0
                while written < len(data):
                    written += os.write(fd, data[written:])
                os.fsync(fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size)
                raise
            if size == 0:
                _sync_directory(path.parent)
            return
        finally:
            os.close(fd)


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a directory be synced
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@dataclass(slots=True)
class SpoolFile:
    """A spool that is ours to fold. `torn` is an unfinished last line: it was never acknowledged."""

    path: Path
    lines: list[str]
    torn: str | None

    def remove(self) -> None:
        """Take the file away; its records are safe elsewhere."""
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def claim(path: Path) -> Iterator[SpoolFile | None]:
    """The spool at `path`, locked while the block runs; None where another process folds it or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        yield None
        return
    try:
        if not _lock(fd, wait=False) or not _same_file(fd, path):
            yield None
            return
        with os.fdopen(os.dup(fd), "rb") as file:
            data = file.read()
        whole, _, rest = data.rpartition(b"\n")
        lines = [line.decode("utf-8", "backslashreplace") for line in whole.split(b"\n") if line.strip()]
        yield SpoolFile(path, lines, rest.decode("utf-8", "backslashreplace") or None)
    finally:
        os.close(fd)
