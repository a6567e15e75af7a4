"""Other programs' files of records, read with suspicion: lines, JSON and CSV, counts, times.

Whatever a file holds, reading it ends, takes bounded memory a record, and raises nothing: what cannot be used is noted
as skipped, with file and line. Symbolic links to directories are not followed, pipes and devices are not opened, a file
that is reached twice is read once.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

from tierwise.core.calls import ImportedCall, ImportedSession
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Usage, amount, usd_to_nanousd
from tierwise.importers.base import FoundSession, ImportRun, Progress, Skipped

__all__ = [
    "MOST_TOKENS",
    "Record",
    "csv_records",
    "files_below",
    "flag",
    "geography",
    "inside",
    "json_inside",
    "json_records",
    "moment_ms",
    "nanousd",
    "number",
    "sessions_of",
    "text",
    "usage_of",
]

MOST_TOKENS = 10**9  # of one request: a thousand times the largest context there is
_LONGEST_LINE = 32 * 1024 * 1024
_LARGEST_JSON = 64 * 1024 * 1024  # that is read in one piece; JSON lines may be of any size
_EARLIEST_MS = 1_577_836_800_000  # 2020: nobody had a bill of this kind before
_LATEST_MS = 4_102_444_800_000  # 2100


@dataclass(frozen=True, slots=True)
class Record:
    """One record, and where it stands."""

    path: Path
    line: int
    fields: JsonObject


# ------------------------------------------------------------------ Files


def files_below(roots: Iterable[Path], suffixes: Sequence[str], skipped: Skipped) -> list[Path]:
    """The regular files that are named, whatever their suffix, and those below the directories that are; sorted."""
    found: dict[tuple[int, int], Path] = {}
    for root in roots:
        try:
            below = _walk(root, suffixes) if root.is_dir() else [root]
            for path in below:
                told = path.stat()
                if stat.S_ISREG(told.st_mode):
                    found.setdefault((told.st_dev, told.st_ino), path)
                elif path == root:
                    skipped.line(path, 0, "is neither a file nor a directory")
        except OSError as error:
            skipped.line(root, 0, f"cannot be read: {error.strerror or error}")
    return sorted(found.values())


def _walk(root: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    for folder, _, names in os.walk(root):  # links to directories are not followed: they may go round in circles
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in suffixes and path.exists():
                yield path


def _opened(path: Path, skipped: Skipped) -> BinaryIO | None:
    try:
        return path.open("rb")
    except OSError as error:
        skipped.line(path, 0, f"cannot be read: {error.strerror or error}")
        return None


def _lines(file: BinaryIO, path: Path, skipped: Skipped) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; of one that is too long only the beginning is ever in memory."""
    number, long = 0, False
    while True:
        try:
            line = file.readline(_LONGEST_LINE)
        except OSError as error:
            skipped.line(path, number, f"cannot be read on: {error.strerror or error}")
            return
        if not line:
            return
        ends = line.endswith(b"\n") or len(line) < _LONGEST_LINE
        if not long:
            number += 1
            if ends:
                yield number, line
            else:
                skipped.line(path, number, f"is longer than {_LONGEST_LINE:,} bytes")
        long = not ends


# ------------------------------------------------------------------ JSON


def json_records(path: Path, skipped: Skipped) -> Iterator[Record]:
    """The objects of a file of JSON lines, of an array, or under `data` or `rows` of an object, as they are read."""
    file = _opened(path, skipped)
    if file is None:
        return
    with file:
        if path.suffix.lower() == ".json" and (whole := _whole(file, path, skipped)) is not None:
            yield from whole
            return
        file.seek(0)
        for line, content in _lines(file, path, skipped):
            if not content.strip():
                continue
            value = _parsed(content)
            if isinstance(value, dict):
                yield Record(path, line, value)
            else:
                skipped.line(path, line, "is not a JSON object")


def _whole(file: BinaryIO, path: Path, skipped: Skipped) -> Iterator[Record] | None:
    """The records of a document; None: it is no document, but lines."""
    content = file.read(_LARGEST_JSON + 1)
    if len(content) > _LARGEST_JSON:
        if content[:1] == b"[":
            skipped.line(path, 0, f"is an array of over {_LARGEST_JSON:,} bytes; write one object a line instead")
            return iter(())
        return None
    value = _parsed(content)
    if isinstance(value, dict):
        listed = next((told for key in ("data", "rows") if isinstance(told := value.get(key), list)), None)
        return _objects([value] if listed is None else listed, path, skipped)
    return _objects(value, path, skipped) if isinstance(value, list) else None


def _objects(values: list[Json], path: Path, skipped: Skipped) -> Iterator[Record]:
    for place, value in enumerate(values, 1):
        if isinstance(value, dict):
            yield Record(path, place, value)
        else:
            skipped.line(path, place, "is not a JSON object")


def _parsed(content: bytes | str) -> Json:
    """What the JSON says; None where it says nothing that can be read."""
    try:
        value: Json = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value


def inside(sources: Iterable[JsonObject], *keys: str) -> list[JsonObject]:
    """The objects that stand under these keys, where they do."""
    return [told for source in sources for key in keys if isinstance(told := source.get(key), dict)]


def json_inside(value: Json) -> Json:
    """A value that may be JSON in a string, as columns of tables hold it."""
    return _parsed(value) if isinstance(value, str) and value[:1] in ("{", "[") else value


# ------------------------------------------------------------------ CSV


def csv_records(path: Path, skipped: Skipped, *, needs: Sequence[str], what: str) -> Iterator[Record]:
    """The rows of a table under its header; a file whose header lacks one of `needs` is skipped, and told so."""
    file = _opened(path, skipped)
    if file is None:
        return
    with file:
        yield from _rows(file, path, skipped, needs, what)


def _rows(file: BinaryIO, path: Path, skipped: Skipped, needs: Sequence[str], what: str) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST_LINE)  # of the process: prompts may stand in a cell
    at = 0

    def decoded() -> Iterator[str]:
        nonlocal at
        for at, line in _lines(file, path, skipped):
            yield line.decode("utf-8-sig" if at == 1 else "utf-8", "replace")

    rows = csv.reader(decoded())
    header: list[str] | None = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            skipped.line(path, at, f"is not CSV: {error}")
            continue
        if not any(row):
            continue
        if header is None:
            header = [name.strip() for name in row]
            if missing := [name for name in needs if name not in header]:
                skipped.line(path, at, f"is not {what}: there is no column {', '.join(missing)}")
                return
        elif len(row) != len(header):
            skipped.line(path, at, f"has {len(row)} cells, the header {len(header)}")
        else:
            yield Record(path, at, dict(zip(header, row, strict=True)))


# ------------------------------------------------------------------ Values


def number(value: Json, most: int = MOST_TOKENS) -> int | None:
    """A count: whole, not negative, not beyond reason; nothing counts 0, and None says that it cannot be one."""
    if value is None or value == "":
        return 0
    if isinstance(value, str):
        value = value.strip()
        if not value.isascii() or not value.isdecimal() or len(value) > len(str(most)):
            return None
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    return None


def usage_of(counts: Mapping[str, int | None]) -> Usage | None:
    """Counts by the names of `Usage`'s fields; None where one of them cannot be."""
    if None in counts.values():
        return None

    def of(name: str) -> int:
        return counts.get(name) or 0

    return Usage(
        input_tokens=of("input_tokens"),
        output_tokens=of("output_tokens"),
        cache_read_tokens=of("cache_read_tokens"),
        cache_write_5m_tokens=of("cache_write_5m_tokens"),
        cache_write_1h_tokens=of("cache_write_1h_tokens"),
        thinking_tokens=min(of("thinking_tokens"), of("output_tokens")),
        web_searches=of("web_searches"),
    )


def nanousd(value: Json) -> int | None:
    """Dollars in a number or a text, as whole nano-dollars; None where there are none."""
    if value is None or isinstance(value, bool | dict | list) or value == "":
        return None
    usd = amount(value)
    return usd_to_nanousd(usd) if usd is not None and usd < Decimal(10**9) else None


def text(value: Json, most: int = 200) -> str | None:
    """A name: not empty, not long, printable."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    value = value.strip()[:most]
    return value if value and value.isprintable() else None


def geography(value: Json) -> str | None:
    """Where a request was worked on, if that changes its price: not told and everywhere do not."""
    told = text(value)
    return None if told in ("not_available", "global") else told


def flag(value: Json) -> bool:
    """True where it says so in one of the usual ways."""
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "t", "1", "yes"))


def moment_ms(value: Json) -> int | None:
    """A time in ISO 8601 (UTC where it names no zone), or in seconds or milliseconds since 1970; Unix milliseconds."""
    if isinstance(value, str):
        value = value.strip()
        if value.isascii() and value.isdecimal() and len(value) in (10, 13):
            value = int(value)
        else:
            try:
                moment = datetime.fromisoformat(value)
                moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
                value = int(moment.timestamp() * 1000)
            except (ValueError, OverflowError):
                return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        at = int(value if value >= _EARLIEST_MS else value * 1000)
    except (ValueError, OverflowError):  # not a number, or infinite
        return None
    return at if _EARLIEST_MS <= at <= _LATEST_MS else None


# ------------------------------------------------------------------ Sessions


def sessions_of(calls: Mapping[str, ImportedCall], source: str, run: ImportRun) -> Iterator[FoundSession]:
    """Calls by their ids, grouped by session and classified, the earliest session first."""
    grouped: dict[str, list[ImportedCall]] = {}
    for call in calls.values():
        grouped.setdefault(call.session, []).append(call)
    for found in grouped.values():
        found.sort(key=lambda call: (call.at_ms, call.id))
    ordered = sorted(grouped.items(), key=lambda item: (item[1][0].at_ms, item[0]))
    for done, (name, found) in enumerate(ordered, 1):
        # The digest is of what was read, asks included: what is said of a call follows from those.
        digest = hashlib.sha256(repr([(call, call.ask) for call in found]).encode("utf-8", "surrogatepass"))
        digest.update(run.classifier_id.encode())
        session = ImportedSession(id=name, source=source, calls=run.classified(found))
        run.progress(Progress(files=0, files_done=0, bytes=0, bytes_done=0, sessions=done))
        yield FoundSession.of(session, digest=digest.hexdigest())
