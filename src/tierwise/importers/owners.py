"""Which session each call belongs to, once all files are known, and reading a session's calls out of the cache.

**Who owns a call.** Of the sessions that tell of the same call, the one that made the request has it, where the rows
say so; else the one that began first. If that one's file was deleted, as Claude Code does after a month, the next one
has it: once is always counted, and only once. A `Summary` holds 32 bytes a call.

**What the program itself counted** goes on when a session is forked: what the older session had come to by then is
taken off. Where that cannot be known, nothing is said of what the forked one cost.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

from tierwise.core.calls import CallKind, ImportedSession, OwnCost
from tierwise.core.tasks import Classification, TaskType
from tierwise.importers.base import FoundSession, Skipped, SkippedLine
from tierwise.importers.claude_code import CostRow, TranscriptReader
from tierwise.importers.drafts import BROKEN, Draft, pack_classifications, unpack, unpack_classifications
from tierwise.ledger.readings import FileReading, Readings

__all__ = ["Shelf", "StoredSession", "Summary", "joined", "sessions_of", "split", "summarize"]


# ------------------------------------------------------------------ what is known of a file without its calls

# Of a call: its key, its time, its tokens (to see which copy of a call says more), its session, and the session that
# made the request (-1: the row does not say), as positions in the summary's names.
_ROW = struct.Struct("<Qqqii")
_ROW_FIELDS = [("key", "<u8"), ("at_ms", "<i8"), ("total", "<i8"), ("session", "<i4"), ("origin", "<i4")]


class Summary(NamedTuple):
    """All that must be known of a file unless its calls are wanted."""

    path: str
    digest: str  # of all that was read in it
    sessions: list[str]  # that its rows name
    told: int  # of so many, the first ones, it tells; the others only made requests of which it has copies
    born_ms: dict[str, int]
    costs: dict[str, list[CostRow]]
    project: str
    skipped: Skipped | None
    calls: int
    rows: bytes  # one a call, as in `_ROW`

    @classmethod
    def of(cls, path: str, packed: bytes) -> Summary:
        """Understands what `summarize` wrote.

        Raises:
            BROKEN: one of these, where it is none of ours.
        """
        length = int.from_bytes(packed[:4], "little")
        told = json.loads(packed[4 : 4 + length].decode("ascii"))
        count, arrays = told["calls"], packed[4 + length :]
        if len(arrays) != count * _ROW.size:
            raise ValueError("rows of another length")
        skipped = None
        if told["line_count"] or told["kinds"] or told["fields"]:
            skipped = Skipped([SkippedLine(path, line, why) for line, why in told["lines"]], told["line_count"])
            skipped.unknown_kinds.update(told["kinds"])
            skipped.unknown_fields.update(told["fields"])
        return cls(
            path,
            told["digest"],
            told["sessions"],
            told["told"],
            told["born_ms"],
            told["costs"],
            told["project"],
            skipped,
            count,
            arrays,
        )


def summarize(reader: TranscriptReader, calls: bytes) -> bytes:
    drafts = list(reader.drafts.values())
    names = dict.fromkeys(draft.session for draft in drafts)
    names.update(dict.fromkeys(reader.costs))
    of_them = len(names)
    names.update(dict.fromkeys(draft.origin for draft in drafts if draft.origin))
    number = {name: position for position, name in enumerate(names)}
    skipped = reader.skipped
    told = {
        "digest": blake2b(calls + repr(reader.costs).encode(), digest_size=16).hexdigest(),
        "sessions": list(names),
        "told": of_them,
        "born_ms": reader.born_ms,
        "costs": reader.costs,
        "project": drafts[0].project if drafts else "",
        "lines": [[line.line, line.why] for line in skipped.lines],
        "line_count": skipped.line_count,
        "kinds": skipped.unknown_kinds,
        "fields": skipped.unknown_fields,
        "calls": len(drafts),
    }
    rows = b"".join(
        _ROW.pack(
            draft.key,
            draft.at_ms,
            draft.spent.total,
            number[draft.session],
            number[draft.origin] if draft.origin else -1,
        )
        for draft in drafts
    )
    head = json.dumps(told, separators=(",", ":")).encode("ascii")
    return len(head).to_bytes(4, "little") + head + rows


# ------------------------------------------------------------------ the calls of a file


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where an importer's files are remembered: calls, and what was said of their asks."""

    readings: Readings
    source: str
    reader: str  # what made it: format and classifier
    types: dict[str, TaskType]  # by name

    def put(self, readings: Sequence[FileReading]) -> None:
        """Remember these files."""
        self.readings.put_files(self.source, self.reader, readings)

    def file(self, path: str) -> FileReading | None:
        """All that is remembered of a file."""
        return self.readings.file(self.source, self.reader, path)

    def body(self, path: str) -> bytes:
        """A file's calls, and what was said of their groups, as `joined` packed them."""
        known = self.file(path)
        # None: another process has read it anew under another classifier, a moment ago
        return b"" if known is None or known.calls is None else known.calls


def joined(classified: bytes, new: Sequence[Classification | None], calls: bytes) -> bytes:
    """What is kept of a file's calls: what was said of their groups, earlier and now, and the calls."""
    if new:
        begun = classified[:-1] + b"," if len(classified) > 2 else b"["
        classified = begun + pack_classifications(new)[1:]
    return len(classified).to_bytes(4, "little") + classified + calls


def split(body: bytes) -> tuple[bytes, bytes]:
    """What `joined` joined: what was said, and the calls."""
    length = int.from_bytes(body[:4], "little")
    return body[4 : 4 + length], body[4 + length :]


# ------------------------------------------------------------------ sessions

_Calls: TypeAlias = dict[int, tuple[Draft, list[Classification | None]]]  # by key; and what was said of its groups


@dataclass(slots=True)
class _Session:
    """What is found out about a session before its calls are read."""

    name: str
    files: list[int] = field(default_factory=list)  # positions of summaries
    born_ms: int | None = None
    first_ms: int = 0  # of the calls that it owns
    last_ms: int = 0
    calls: int = 0
    not_its_own: set[int] = field(default_factory=set)  # keys of calls that another session owns
    parents: dict[str, int] = field(default_factory=dict)  # sessions that own them, and when the last one was
    elsewhere: dict[int, set[int]] = field(default_factory=dict)  # by file: keys of which a copy there says more
    costs: list[CostRow] = field(default_factory=list)


def sessions_of(summaries: list[Summary], shelf: Shelf) -> Iterator[FoundSession]:
    """All sessions in these files, by the time of their first call."""
    sessions = _shared_out(summaries)
    by_name = {session.name: session for session in sessions}
    told = (session for session in sessions if session.calls or session.costs)
    found = [_found(session, by_name, summaries, shelf) for session in told]
    yield from sorted(found, key=lambda session: (session.first_ms, session.id))


def _told_of(summaries: list[Summary]) -> tuple[list[_Session], dict[str, int]]:
    """The sessions that the files tell of, and their positions by name."""
    names: dict[str, int] = {}
    for summary in summaries:
        for name in summary.sessions:
            names.setdefault(name, len(names))
    sessions = [_Session(name) for name in names]
    for position, summary in enumerate(summaries):
        for name in summary.sessions[: summary.told]:
            sessions[names[name]].files.append(position)
        for name, born_ms in summary.born_ms.items():
            if name in names:
                session = sessions[names[name]]
                session.born_ms = born_ms if session.born_ms is None else min(born_ms, session.born_ms)
        for name, states in summary.costs.items():
            session = sessions[names[name]]
            if not session.costs or states[-1][0] > session.costs[-1][0]:
                session.costs = states
    return sessions, names


def _shared_out(summaries: list[Summary]) -> list[_Session]:
    """The sessions that the files tell of, each call given to one of them.

    What is done here for each call is done in arrays: there may be a million.
    """
    import numpy as np  # noqa: PLC0415 - 0.1 s, only where something is read

    sessions, names = _told_of(summaries)
    if not any(summary.calls for summary in summaries):
        return sessions

    counts = np.array([summary.calls for summary in summaries])
    sizes = np.array([len(summary.sessions) for summary in summaries])
    offset = np.repeat(np.cumsum(sizes) - sizes, counts)
    numbers = np.array([names[name] for summary in summaries for name in summary.sessions])
    told = np.frombuffer(b"".join(summary.rows for summary in summaries), np.dtype(_ROW_FIELDS))
    keys, times, totals = told["key"].copy(), told["at_ms"].copy(), told["total"]
    of = numbers[told["session"] + offset]
    origins = np.where(told["origin"] < 0, -1, numbers[np.maximum(told["origin"], 0) + offset])
    files = np.repeat(np.arange(len(summaries)), counts)

    last = np.zeros(len(sessions), np.int64)
    np.maximum.at(last, of, times)
    age = [
        (last_ms if session.born_ms is None else session.born_ms, session.name)
        for session, last_ms in zip(sessions, last.tolist(), strict=True)
    ]
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.concatenate(([True], keys[order][1:] != keys[order][:-1])))
    ends = np.concatenate((starts[1:], [len(keys)]))
    counted = np.ones(len(keys), bool)
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        rows = order[start:end]
        tellers, key = of[rows].tolist(), int(keys[rows[0]])
        candidates = set(tellers)
        owner = min(candidates & set(origins[rows].tolist()) or candidates, key=age.__getitem__)
        counted[rows] = False
        counted[rows[tellers.index(owner)]] = True  # several files of one session may tell of it
        copies = list(zip(totals[rows].tolist(), files[rows].tolist(), tellers, strict=True))
        heaviest = max(copies)
        if heaviest[0] > max(weight for weight, _, teller in copies if teller == owner):
            sessions[owner].elsewhere.setdefault(heaviest[1], set()).add(key)
        at_ms = int(times[rows].min())
        for teller in set(tellers) - {owner}:
            sessions[teller].not_its_own.add(key)
            parents, parent = sessions[teller].parents, sessions[owner].name
            parents[parent] = max(at_ms, parents.get(parent, at_ms))

    of, times = of[counted], times[counted]
    calls = np.bincount(of, minlength=len(sessions))
    first = np.full(len(sessions), np.iinfo(np.int64).max)
    np.minimum.at(first, of, times)
    last[:] = 0
    np.maximum.at(last, of, times)
    for session, owned, first_ms, last_ms in zip(sessions, calls.tolist(), first.tolist(), last.tolist(), strict=True):
        session.calls, session.first_ms, session.last_ms = owned, first_ms if owned else 0, last_ms
    return sessions


def _own_cost(session: _Session, by_name: dict[str, _Session]) -> OwnCost | None:
    """What the program counted for this session alone."""
    if not session.costs:
        return None
    _, total_usd, by_model, unknown_model = session.costs[-1]
    models = {model: Decimal(cost) for model, cost in by_model}
    total = Decimal(total_usd)
    if session.parents:
        # Its parent is the session that owns the latest of the calls that it began with.
        parent = by_name[max(session.parents, key=lambda name: (session.parents[name], name))]
        forked_ms = session.first_ms if session.born_ms is None else session.born_ms
        before = [state for state in parent.costs if state[0] <= forked_ms]
        if not before:
            return None
        _, base_usd, base_by_model, _ = before[-1]
        if Decimal(base_usd) <= total:  # else it did not carry it on
            total -= Decimal(base_usd)
            for model, cost in base_by_model:
                models[model] = models.get(model, Decimal(0)) - Decimal(cost)
    return OwnCost(total, tuple((model, cost) for model, cost in models.items() if cost), unknown_model)


def _found(session: _Session, by_name: dict[str, _Session], summaries: list[Summary], shelf: Shelf) -> FoundSession:
    places: list[tuple[str, set[int] | None]] = [(summaries[file].path, None) for file in session.files]
    digests = [shelf.reader, session.name, *sorted(summaries[file].digest for file in session.files)]
    if session.not_its_own or session.elsewhere:
        places += [(summaries[file].path, keys) for file, keys in session.elsewhere.items()]
        digests += sorted(summaries[file].digest for file in session.elsewhere)
        digests += [str(sorted(keys)) for keys in (session.not_its_own, *session.elsewhere.values())]
        digests.append(str(_own_cost(session, by_name)))
    digest = blake2b("\0".join(digests).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def packed() -> Callable[[], ImportedSession]:
        bodies = tuple((shelf.body(path), wanted) for path, wanted in places)
        own_cost = _own_cost(session, by_name)
        return StoredSession(session.name, shelf.source, bodies, session.not_its_own, own_cost, shelf.types).read

    def read() -> ImportedSession:
        return packed()()

    return FoundSession(
        session.name,
        shelf.source,
        digest,
        read,
        calls=session.calls,
        first_ms=session.first_ms,
        last_ms=session.last_ms,
        project=next((summaries[file].project for file in session.files if summaries[file].project), None),
        packed=packed,
    )


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session's calls as they lie in the cache, with all that it takes to make them out, here or elsewhere."""

    name: str
    source: str
    bodies: tuple[tuple[bytes, set[int] | None], ...]  # of its files; of others, with the keys that are taken from them
    not_its_own: set[int]
    own_cost: OwnCost | None
    types: Mapping[str, TaskType]  # by name

    def read(self) -> ImportedSession:
        """The session."""
        calls: _Calls = {}
        for body, wanted in self.bodies:
            drafts, said = _unpacked(body, self.types)
            for draft in drafts:
                if draft.session != self.name if wanted is None else draft.key not in wanted:
                    continue
                if draft.key in self.not_its_own:
                    continue
                known = calls.get(draft.key)
                if known is None:
                    calls[draft.key] = draft, said
                elif known[0].group < 0 <= draft.group:  # this one knows the ask
                    draft.merge(known[0])
                    calls[draft.key] = draft, said
                else:
                    known[0].merge(draft)
        calls = _without_replays(calls)
        # What a reply's usage says of a compaction happened before it, at the same time.
        ordered = sorted(calls.values(), key=lambda one: (one[0].at_ms, one[0].kind is not CallKind.COMPACTION))
        _plan_together(draft for draft, _ in ordered)
        return ImportedSession(
            id=self.name,
            source=self.source,
            calls=tuple(draft.call(self.name, said) for draft, said in ordered),
            own_cost=self.own_cost,
        )


def _unpacked(body: bytes, types: Mapping[str, TaskType]) -> tuple[list[Draft], list[Classification | None]]:
    try:
        classified, calls = split(body)
        return unpack(calls), unpack_classifications(classified, types)
    except BROKEN:
        return [], []


def _plan_together(drafts: Iterable[Draft]) -> None:
    """Agents are in the mode that the main loop is in when they are asked: their own rows do not tell."""
    plans = False
    for draft in drafts:
        if draft.agent:
            draft.plan_mode = plans
        else:
            plans = draft.plan_mode


def _without_replays(calls: _Calls) -> _Calls:
    """Within a session: rows of one message where one lacks the request id, or is a side chain's copy of the other."""
    by_message: dict[str, int] = {}
    kept = dict(calls)
    for key, (draft, _) in sorted(calls.items(), key=lambda one: (one[1][0].sidechain, one[1][0].at_ms, one[0])):
        if not draft.message_id:
            continue
        first = by_message.setdefault(draft.message_id, key)
        if first == key:
            continue
        known = kept[first][0]
        lacks = bool(known.request_id) != bool(draft.request_id)
        copied = known.sidechain != draft.sidechain and known.at_ms == draft.at_ms
        if lacks or copied:
            known.merge(draft)
            del kept[key]
    return kept
