"""Reading many transcripts at once, and reading only what is new the next time.

**What is read.** A file whose inode, size and time of change are those that are remembered is not opened. One that is
at least as long as before, and whose first bytes and last bytes before the offset are the same, is read from there,
with the state that the reader had. Any other is read from its beginning. A last line without an end may still be
written: it counts if it is whole, and is read again next time if it is not.

**Who reads.** Files go in batches to processes of their own (`ImportRun.processes`), which hand back packed calls and
the asks that must be classified. This process classifies, writes the cache, and forgets the asks. Little to read is
read here. Which session each call belongs to is decided when all files are known: `tierwise.importers.owners`.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import BinaryIO

from tierwise.core.collector import calm_collector
from tierwise.importers.base import FoundSession, ImportRun, Progress, Skipped
from tierwise.importers.claude_code import TranscriptReader
from tierwise.importers.drafts import BROKEN, Draft, Group, pack, unpack, used
from tierwise.importers.owners import Shelf, Summary, joined, sessions_of, split, summarize
from tierwise.ledger.readings import FileMark, FileReading, Readings

__all__ = ["LONGEST_LINE", "scan"]

_FORMAT = 7  # of what is remembered; another one is not understood
LONGEST_LINE = 64 * 1024 * 1024  # bytes; what is longer is skipped
_ENDS = 4096  # bytes at both ends that tell whether a file is still the same
_BATCH_BYTES, _BATCH_FILES = 8 * 1024 * 1024, 200
_WORTH_PROCESSES = 24 * 1024 * 1024  # bytes; to start two takes as long as reading this much
_DEEPEST = 24  # directories below a root


# ------------------------------------------------------------------ one file


@dataclass(frozen=True, slots=True)
class _Job:
    path: str
    known: FileReading | None  # what was read before, with calls and state


@dataclass(frozen=True, slots=True)
class _Read:
    """What came of a file. `mark` None: it could not be read."""

    path: str
    mark: FileMark | None
    summary: bytes = b""
    calls: bytes = b""
    state: bytes = b""
    classified: bytes = b""  # of the groups that were known before
    groups: tuple[Group, ...] = field(default=(), repr=False)  # to be classified
    session: str = ""
    why: str = ""


def read_files(jobs: Sequence[_Job], now_ms: int | None, longest_line: int = LONGEST_LINE) -> list[_Read]:
    """Read these files. Runs in a process of its own, or here."""
    return [_read(job, now_ms, longest_line) for job in jobs]


def _read(job: _Job, now_ms: int | None, longest_line: int) -> _Read:
    try:
        # Never waits for a pipe that somebody named .jsonl.
        descriptor = os.open(job.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb", buffering=1 << 18) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                return _Read(job.path, None, why="not a regular file")
            reader = TranscriptReader(job.path, now_ms=now_ms)
            offset, number, classified = _resumed(job, file, reader, info.st_size)
            file.seek(offset)
            before = len(reader.groups)
            while line := file.readline(longest_line):
                if not line.endswith(b"\n"):
                    if len(line) == longest_line:
                        length = _rest_of_line(file)
                        if length is not None:
                            number += 1
                            offset += longest_line + length
                            reader.skipped.line(job.path, number, f"longer than {longest_line:,} bytes")
                            continue
                    elif reader.is_whole(line):
                        reader.line(line, number + 1)
                        offset += len(line)
                        break
                    # Not counted as read: what it becomes is seen next time.
                    reader.skipped.line(job.path, number + 1, _UNFINISHED)
                    break
                number += 1
                offset += len(line)
                reader.line(line, number)
            reader.finished()
            mark = FileMark(
                f"{info.st_dev}:{info.st_ino}",
                info.st_size,
                info.st_mtime_ns,
                offset,
                number,
                _hash(file, 0, min(_ENDS, offset)),
                _hash(file, max(0, offset - _ENDS), offset),
            )
    except OSError as error:
        return _Read(job.path, None, why=f"cannot be read: {error.strerror or error}")
    calls = pack(reader.drafts.values())
    groups = _with_what_they_used(reader, before)
    session = next(iter(reader.drafts.values())).session if reader.drafts else ""
    return _Read(job.path, mark, summarize(reader, calls), calls, reader.state(), classified, groups, session)


def _with_what_they_used(reader: TranscriptReader, before: int) -> tuple[Group, ...]:
    """The groups that are new, with what their calls used."""
    members: dict[int, list[Draft]] = {}
    for draft in reader.drafts.values():
        if draft.group >= before:
            members.setdefault(draft.group, []).append(draft)
    found = []
    for number, group in enumerate(reader.groups[before:], start=before):
        if group is not None:
            drafts = members.get(number, ())
            first = drafts[0] if drafts else None
            found.append(
                Group(
                    group.ask,
                    group.kind,
                    group.agent_type,
                    group.has_images,
                    group.json_schema,
                    at_ms=0 if first is None else first.at_ms,
                    model="" if first is None else first.model,
                    usage=used([draft.spent for draft in drafts]),
                )
            )
    return tuple(found)


_UNFINISHED = "the last line is not finished; it is read again when the file changes"


def _rest_of_line(file: BinaryIO) -> int | None:
    """Skips to the end of a line; how long that was. None: the file ends first."""
    length = 0
    while part := file.readline(1 << 20):
        length += len(part)
        if part.endswith(b"\n"):
            return length
    return None


def _hash(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return blake2b(file.read(end - start), digest_size=16).digest()


def _resumed(job: _Job, file: BinaryIO, reader: TranscriptReader, size: int) -> tuple[int, int, bytes]:
    """Where to begin: offset, lines before it, and classifications of groups that are known."""
    known = job.known
    if known is None or known.calls is None or known.state is None:
        return 0, 0, b"[]"
    mark = known.mark
    if (
        size < mark.offset
        or _hash(file, 0, min(_ENDS, mark.offset)) != mark.head
        or _hash(file, max(0, mark.offset - _ENDS), mark.offset) != mark.tail
    ):
        return 0, 0, b"[]"
    try:
        classified, calls = split(known.calls)
        summary = Summary.of(job.path, known.summary)
        reader.resume(known.state, unpack(calls))
    except BROKEN:
        return 0, 0, b"[]"
    reader.costs = {session: list(states) for session, states in summary.costs.items()}
    reader.born_ms = dict(summary.born_ms)
    reader.skipped = Skipped() if summary.skipped is None else _finished(summary.skipped)
    return mark.offset, mark.line, classified


def _finished(skipped: Skipped) -> Skipped:
    """What was skipped, but for an unfinished line at the end, which is seen anew."""
    lines = [line for line in skipped.lines if line.why != _UNFINISHED]
    return Skipped(
        lines,
        skipped.line_count - (len(skipped.lines) - len(lines)),
        skipped.unknown_kinds,
        skipped.unknown_fields,
    )


# ------------------------------------------------------------------ all files


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    inode: str
    size: int
    mtime_ns: int


def find_files(roots: Iterable[Path], skipped: Skipped) -> list[_File]:
    """All transcripts below these, each once, whatever links lead to it."""
    found: list[_File] = []
    seen: set[tuple[int, int]] = set()

    def look_at(path: str, depth: int, *, named: bool) -> None:
        try:
            info = os.stat(path)  # noqa: PTH116 - 20,000 files: a Path for each takes longer than the call
            if info.st_ino and (info.st_dev, info.st_ino) in seen:
                return
            seen.add((info.st_dev, info.st_ino))
            if stat.S_ISDIR(info.st_mode):
                if depth > _DEEPEST:
                    skipped.line(path, 0, f"more than {_DEEPEST} directories deep")
                    return
                with os.scandir(path) as entries:
                    inside = sorted(entry.path for entry in entries if _may_matter(entry))
                for entry in inside:
                    look_at(entry, depth + 1, named=False)
            elif stat.S_ISREG(info.st_mode):
                found.append(_File(path, f"{info.st_dev}:{info.st_ino}", info.st_size, info.st_mtime_ns))
            elif named or path.endswith(".jsonl"):
                skipped.line(path, 0, "not a regular file")
        except OSError as error:
            skipped.line(path, 0, f"cannot be read: {error.strerror or error}")

    for root in roots:
        look_at(str(root), 0, named=True)
    return found


def _may_matter(entry: os.DirEntry[str]) -> bool:
    if entry.name.endswith(".jsonl"):
        return True
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def scan(
    name: str, roots: Iterable[Path], run: ImportRun, *, longest_line: int = LONGEST_LINE
) -> Iterator[FoundSession]:
    """All sessions in the transcripts below these roots."""
    roots = [Path(os.path.abspath(root)) for root in roots]  # noqa: PTH100 - keeps links
    readings = run.readings if run.readings is not None else Readings(None)
    shelf = Shelf(readings, name, f"{_FORMAT}:{run.classifier_id}", dict(run.task_types))
    files = find_files(roots, run.skipped)
    paths = {file.path for file in files}
    summaries: dict[str, Summary] = {}
    changed, gone = {file.path: file for file in files}, []
    for known in readings.files(name, shelf.reader):
        file = changed.get(known.path)
        if file is None:
            if known.path not in paths and any(Path(known.path).is_relative_to(root) for root in roots):
                gone.append(known.path)
        elif (file.inode, file.size, file.mtime_ns) == (known.mark.inode, known.mark.size, known.mark.mtime_ns):
            try:
                summaries[known.path] = Summary.of(known.path, known.summary)
            except BROKEN:
                continue
            del changed[known.path]
    todo = _Progress(run.progress, len(files), len(files) - len(changed), sum(file.size for file in changed.values()))
    todo.tell()
    jobs = (
        (file.size, _Job(file.path, shelf.file(file.path)))
        for file in sorted(changed.values(), key=lambda file: -file.size)
    )
    for batch in _read_all(jobs, run, todo, longest_line):
        _classify(batch, run, shelf, summaries)
    run.classified_all()
    if gone:
        readings.forget_files(name, gone)
    for path in sorted(summaries):
        skipped = summaries[path].skipped
        if skipped is not None:
            run.skipped.add(skipped)
    yield from sessions_of(list(summaries.values()), shelf)


class _Progress:
    """Tells how far it is."""

    def __init__(self, tell: Callable[[Progress], None], files: int, done: int, todo_bytes: int) -> None:
        self._tell, self._files, self._done, self._bytes, self._bytes_done = tell, files, done, todo_bytes, 0
        self.small = todo_bytes < _WORTH_PROCESSES

    def tell(self, files: int = 0, read_bytes: int = 0) -> None:
        self._done += files
        self._bytes_done += read_bytes
        self._tell(Progress(self._files, self._done, self._bytes, self._bytes_done))


def _batches(jobs: Iterable[tuple[int, _Job]]) -> Iterator[tuple[int, list[_Job]]]:
    batch: list[_Job] = []
    size = 0
    for length, job in jobs:
        batch.append(job)
        size += length
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            yield size, batch
            batch, size = [], 0
    if batch:
        yield size, batch


def _read_all(
    jobs: Iterable[tuple[int, _Job]], run: ImportRun, todo: _Progress, longest_line: int
) -> Iterator[list[_Read]]:
    """What came of all jobs, batch by batch, in their order: who is faster must not decide what is classified first."""
    batches = _batches(jobs)
    if run.processes < 2 or todo.small:
        for size, batch in batches:
            yield read_files(batch, run.now_ms, longest_line)
            todo.tell(len(batch), size)
        return
    pool = ProcessPoolExecutor(run.processes, mp_context=get_context("spawn"), initializer=serve_parent)
    pending: deque[tuple[Future[list[_Read]], int, list[_Job]]] = deque()

    def ended() -> Iterator[list[_Read]]:
        future, size, batch = pending.popleft()
        try:
            read = future.result()
        except BrokenProcessPool:  # it was killed, or there can be none: it is done here
            read = read_files(batch, run.now_ms, longest_line)
        yield read
        todo.tell(len(batch), size)

    try:
        for size, batch in batches:
            pending.append((_submitted(pool, batch, run.now_ms, longest_line), size, batch))
            if len(pending) >= 3 * run.processes:
                yield from ended()
        while pending:
            yield from ended()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """A process that is started in here leaves Ctrl-C to this one from its first moment, imports included.

    It inherits the mask. An interrupt that comes meanwhile is taken afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve_parent() -> None:
    """For a process that reads for another one: it ends with that one, however that ends, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calm_collector()
    parent = parent_process()
    if parent is None:
        return

    def end_with_it() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()


def _submitted(
    pool: ProcessPoolExecutor, batch: list[_Job], now_ms: int | None, longest_line: int
) -> Future[list[_Read]]:
    try:
        with interrupts_wait():
            return pool.submit(read_files, batch, now_ms, longest_line)
    except BrokenProcessPool as error:
        failed: Future[list[_Read]] = Future()
        failed.set_exception(error)
        return failed


def _classify(batch: list[_Read], run: ImportRun, shelf: Shelf, summaries: dict[str, Summary]) -> None:
    """Classifies what is new, and remembers it all."""
    groups = [group.example(read.session) for read in batch for group in read.groups]
    said = iter(run.classify(groups) if groups else ())
    kept = []
    for read in batch:
        if read.mark is None:
            run.skipped.line(read.path, 0, read.why)
            continue
        new = [next(said) for _ in read.groups]
        for one in new:
            if one is not None:
                for type_ in (one.task_type, *(other.task_type for other in one.alternatives), *one.also):
                    shelf.types.setdefault(type_.name, type_)
        body = joined(read.classified, new, read.calls)
        kept.append(FileReading(read.path, read.mark, read.summary, body, read.state))
        summaries[read.path] = Summary.of(read.path, read.summary)
    shelf.put(kept)
