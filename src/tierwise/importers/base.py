"""What every importer offers, and what one run of them shares.

An importer finds sessions below some roots and hands over one `FoundSession` each: its name, a digest that changes
whenever its calls would, and a way to read them. Who has worked something out of a session keeps it under the digest
(`Readings.result`), and need not read the calls of a session that has not changed.

**How asks are classified.** The text of an ask lives in memory only, so an importer that remembers what it read must
remember the classification instead. It therefore calls `ImportRun.classify` itself, with the calls that it has just
read, text and all, before it writes anything; what `FoundSession.read` returns later holds classifications and no
asks (`ask == ""`). `classify` gets calls in batches, of one file or several, and answers one classification a call, in
order; None where there is nothing to classify. An importer that remembers nothing passes its calls through
`ImportRun.classified`. Many calls share an ask: whoever writes `classify` keeps what it said of a text for as long as
the run lasts, and only then. What another `classifier_id` said is not taken: such files are read again.

**What is skipped is counted**, never an exception: broken lines with file and line number, kinds of rows and of usage
fields that nobody knew. What is remembered includes what was skipped, so that a second run reports the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tierwise.core.calls import ImportedCall, ImportedSession
from tierwise.core.tasks import Classification, TaskType

if TYPE_CHECKING:
    from tierwise.ledger.readings import Readings

__all__ = ["Classify", "FoundSession", "ImportRun", "Importer", "Progress", "Skipped", "SkippedLine"]

Classify = Callable[[Sequence[ImportedCall]], Sequence[Classification | None]]


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A line that could not be used. No part of its text is kept."""

    file: str
    line: int  # from 1; 0: the whole file
    why: str


@dataclass(slots=True)
class Skipped:
    """What was not counted, so that a report can say so. Lists the first lines, counts all."""

    lines: list[SkippedLine] = field(default_factory=list)
    line_count: int = 0
    unknown_kinds: Counter[str] = field(default_factory=Counter)  # of rows
    unknown_fields: Counter[str] = field(default_factory=Counter)  # of usage: they may cost something
    most_lines: int = 100  # that are listed
    most_names: int = 200  # of kinds, and of fields, that are told apart

    def line(self, file: str | Path, line: int, why: str) -> None:
        """A line (0: a file) that could not be used."""
        self.line_count += 1
        if len(self.lines) < self.most_lines:
            self.lines.append(SkippedLine(str(file), line, why))

    def kind(self, name: str, count: int = 1) -> None:
        """Rows of a kind that nobody here knows."""
        self._count(self.unknown_kinds, name, count)

    def usage_field(self, name: str, count: int = 1) -> None:
        """A field of usage that nobody here knows."""
        self._count(self.unknown_fields, name, count)

    def add(self, other: Skipped) -> None:
        """Everything that was skipped elsewhere too."""
        self.line_count += other.line_count
        self.lines.extend(other.lines[: max(0, self.most_lines - len(self.lines))])
        for name, count in other.unknown_kinds.items():
            self.kind(name, count)
        for name, count in other.unknown_fields.items():
            self.usage_field(name, count)

    def _count(self, counter: Counter[str], name: str, count: int) -> None:
        # Names come out of files: they are bounded in length and in number.
        name = name[:60] if name[:60].isprintable() else "(not printable)"
        if name not in counter and len(counter) >= self.most_names:
            name = "(others)"
        counter[name] += count


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an importer is."""

    files: int  # that there are
    files_done: int
    bytes: int  # that must be read
    bytes_done: int
    sessions: int = 0  # handed over


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session that an importer found, its calls not yet in memory."""

    id: str
    source: str  # the importer's name
    digest: str  # changes whenever what `read` returns would; "": not known, nothing may be kept under it
    read: Callable[[], ImportedSession] = field(repr=False)
    calls: int = 0  # at most: reading may find that one repeats another
    first_ms: int = 0  # Unix milliseconds of its first and last calls
    last_ms: int = 0
    project: str | None = None  # of its first call
    # What another process reads it with, where that is less to send there than the session itself.
    packed: Callable[[], Callable[[], ImportedSession]] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, session: ImportedSession, *, digest: str = "") -> FoundSession:
        """A session that is in memory already."""
        times = [call.at_ms for call in session.calls]
        return cls(
            session.id,
            session.source,
            digest,
            lambda: session,
            calls=len(times),
            first_ms=min(times, default=0),
            last_ms=max(times, default=0),
            project=next((call.project for call in session.calls if call.project is not None), None),
        )


def _unclassified(calls: Sequence[ImportedCall]) -> Sequence[Classification | None]:
    return [None] * len(calls)


def _nothing() -> None:
    return


def _unseen(_: Progress) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRun:
    """What the importers of one run share."""

    classify: Classify = _unclassified
    classified_all: Callable[[], None] = _nothing  # to be called where no more is to be classified: it frees memory
    classifier_id: str = ""  # another one says other things: what is remembered under it is not taken
    task_types: Mapping[str, TaskType] = field(default_factory=dict)  # by name, to understand what is remembered
    readings: Readings | None = None  # None: nothing is remembered
    skipped: Skipped = field(default_factory=Skipped)
    progress: Callable[[Progress], None] = _unseen
    processes: int = 1  # that may read at once
    now_ms: int | None = (
        None  # Unix milliseconds: what happened a day later than that is a clock's mistake; None: unknown
    )

    def classified(self, calls: Sequence[ImportedCall]) -> tuple[ImportedCall, ...]:
        """The calls with what `classify` says of them, and without their asks."""
        said = self.classify(calls)
        return tuple(
            replace(call, ask="", classification=classification)
            for call, classification in zip(calls, said, strict=True)
        )


class Importer(Protocol):
    """Another program's records."""

    @property
    def name(self) -> str:
        """As in `--source` and in `ImportedSession.source`."""
        ...

    def default_roots(self, environment: Mapping[str, str], home: Path) -> Sequence[Path]:
        """Where the program keeps its records on this machine: those that exist. Empty: they must be named."""
        ...

    def sessions(self, roots: Iterable[Path], run: ImportRun) -> Iterator[FoundSession]:
        """The sessions in these files and directories, each once, by their first calls' time where that is known.

        Nothing that a file holds, or is, raises; it is counted in `run.skipped`, which is complete when this ends.
        """
        ...
