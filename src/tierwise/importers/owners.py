"""Which session each call belongs to, once all files are known, and reading a session's calls out of the cache.

**Who owns a call.** Of the sessions that tell of the same call, the one that made the request has it, where the rows
say so; else the one that began first. If that one's file was deleted, as Claude Code does after a month, the next one
has it: once is always counted, and only once. A `Summary` holds 32 bytes a call: identity, time, tokens, sessions.

**What the program itself counted** goes on when a session is forked: what the older session had come to by then is
taken off. Where that cannot be known, nothing is said of what the forked one cost.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b

from tierwise.core.calls import CallKind, ImportedSession, OwnCost
from tierwise.core.tasks import Classification, TaskType
from tierwise.importers.base import FoundSession, Skipped, SkippedLine
from tierwise.importers.claude_code import CostState, TranscriptReader
from tierwise.importers.drafts import BROKEN, Draft, pack_classifications, unpack, unpack_classifications
from tierwise.ledger.readings import FileReading, Readings

__all__ = ["Shelf", "Summary", "joined", "sessions_of", "split", "summarize"]


# ------------------------------------------------------------------ what is known of a file without its calls


@dataclass(frozen=True, slots=True)
class Summary:
    path: str
    digest: str  # of the calls and of what was said of them
    sessions: tuple[str, ...]  # names that `session` and `origin` refer to
    born_ms: dict[str, int]
    costs: dict[str, list[CostState]]
    project: str
    skipped: Skipped
    keys: bytes  # arrays, one item a call: unsigned 64 bits
    times: bytes  # 64 bits
    weights: bytes  # 64 bits: tokens, to see which copy of a call says more
    session: bytes  # 32 bits
    origin: bytes  # 32 bits; -1: the row does not say who made the request

    @classmethod
    def of(cls, path: str, packed: bytes) -> Summary:
        """Understands what `summarize` wrote.

        Raises:
            BROKEN: one of these, where it is none of ours.
        """
        length = int.from_bytes(packed[:4], "little")
        told = json.loads(packed[4 : 4 + length])
        count, arrays = told["calls"], packed[4 + length :]
        if len(arrays) != count * 32:
            raise ValueError("arrays of another length")
        skipped = Skipped([SkippedLine(path, line, why) for line, why in told["lines"]], told["line_count"])
        skipped.unknown_kinds.update(told["kinds"])
        skipped.unknown_fields.update(told["fields"])
        return cls(
            path,
            told["digest"],
            tuple(told["sessions"]),
            told["born_ms"],
            {
                session: [CostState(at, total, tuple(map(tuple, models)), odd) for at, total, models, odd in states]
                for session, states in told["costs"].items()
            },
            told["project"],
            skipped,
            arrays[: count * 8],
            arrays[count * 8 : count * 16],
            arrays[count * 16 : count * 24],
            arrays[count * 24 : count * 28],
            arrays[count * 28 :],
        )


def summarize(reader: TranscriptReader, calls: bytes) -> bytes:
    drafts = list(reader.drafts.values())
    names = dict.fromkeys(draft.session for draft in drafts)
    names.update(dict.fromkeys(draft.origin for draft in drafts if draft.origin))
    names.update(dict.fromkeys(reader.costs))
    number = {name: position for position, name in enumerate(names)}
    skipped = reader.skipped
    told = {
        "digest": blake2b(calls, digest_size=16).hexdigest(),
        "sessions": list(names),
        "born_ms": reader.born_ms,
        "costs": {
            session: [[state.at_ms, state.total_usd, state.by_model, state.unknown_model] for state in states]
            for session, states in reader.costs.items()
        },
        "project": drafts[0].project if drafts else "",
        "lines": [[line.line, line.why] for line in skipped.lines],
        "line_count": skipped.line_count,
        "kinds": skipped.unknown_kinds,
        "fields": skipped.unknown_fields,
        "calls": len(drafts),
    }
    head = json.dumps(told, separators=(",", ":")).encode("ascii")
    return b"".join(
        (
            len(head).to_bytes(4, "little"),
            head,
            array("Q", [draft.key for draft in drafts]).tobytes(),
            array("q", [draft.at_ms for draft in drafts]).tobytes(),
            array("q", [draft.spent.total for draft in drafts]).tobytes(),
            array("i", [number[draft.session] for draft in drafts]).tobytes(),
            array("i", [number[draft.origin] if draft.origin else -1 for draft in drafts]).tobytes(),
        )
    )


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

    def calls(self, path: str) -> tuple[list[Draft], list[Classification | None]]:
        """A file's calls, and what was said of their groups."""
        known = self.file(path)
        if known is None or known.calls is None:
            return [], []  # another process has read it anew under another classifier, a moment ago
        try:
            classified, calls = split(known.calls)
            return unpack(calls), unpack_classifications(classified, self.types)
        except BROKEN:
            return [], []


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


@dataclass(slots=True)
class _Session:
    """What is found out about a session before its calls are read."""

    name: str
    files: list[int] = field(default_factory=list)  # positions of summaries
    born_ms: int | None = None
    first_ms: int = 0
    last_ms: int = 0
    calls: int = 0
    not_its_own: set[int] = field(default_factory=set)  # keys of calls that another session owns
    parents: dict[str, int] = field(default_factory=dict)  # sessions that own them, and when the last one was
    elsewhere: dict[int, set[int]] = field(default_factory=dict)  # by file: keys of which a copy there says more
    costs: list[CostState] = field(default_factory=list)


def sessions_of(summaries: list[Summary], shelf: Shelf) -> Iterator[FoundSession]:
    """All sessions in these files, by the time of their first call."""
    sessions = _gathered(summaries)
    _share_out(summaries, sessions)
    by_name = {session.name: session for session in sessions}
    found = []
    for session in sessions:
        session.calls -= len(session.not_its_own)
        if session.not_its_own:
            _put_in_time(session, summaries)
        cost = _own_cost(session, by_name)
        if session.calls <= 0 and (cost is None or not cost.total_usd):
            continue
        found.append(_found(session, cost, summaries, shelf))
    found.sort(key=lambda session: (session.first_ms, session.id))
    yield from found


def _gathered(summaries: list[Summary]) -> list[_Session]:
    """The sessions that the files tell of."""
    import numpy as np  # noqa: PLC0415 - 0.1 s, only where something is read

    sessions: dict[str, _Session] = {}
    for position, summary in enumerate(summaries):
        of = np.frombuffer(summary.session, np.int32)
        times = np.frombuffer(summary.times, np.int64)
        for number, session_name in enumerate(summary.sessions):
            its_times = times[of == number]
            states = summary.costs.get(session_name)
            if not len(its_times) and states is None:
                continue
            session = sessions.setdefault(session_name, _Session(session_name))
            session.files.append(position)
            if len(its_times):
                first, last = int(its_times.min()), int(its_times.max())
                session.first_ms = min(first, session.first_ms) if session.calls else first
                session.last_ms = max(last, session.last_ms)
                session.calls += len(its_times)
            born_ms = summary.born_ms.get(session_name)
            if born_ms is not None and (session.born_ms is None or born_ms < session.born_ms):
                session.born_ms = born_ms
            if states is not None and (not session.costs or states[-1].at_ms > session.costs[-1].at_ms):
                session.costs = states
    return list(sessions.values())


def _share_out(summaries: list[Summary], sessions: list[_Session]) -> None:
    """Gives each call that several sessions tell of to one of them."""
    import numpy as np  # noqa: PLC0415 - see above

    if not summaries:
        return
    number = {session.name: position for position, session in enumerate(sessions)}
    local = [np.array([number.get(name, -1) for name in summary.sessions] or [-1], np.int32) for summary in summaries]
    keys = np.concatenate([np.frombuffer(summary.keys, np.uint64) for summary in summaries])
    of = np.concatenate(
        [names[np.frombuffer(summary.session, np.int32)] for names, summary in zip(local, summaries, strict=True)]
    )
    order = np.argsort(keys, kind="stable")
    keys, of = keys[order], of[order]
    same = keys[1:] == keys[:-1]
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    ends = np.concatenate((starts[1:], [len(keys)]))
    if not same.any():
        return
    # Several drafts in one session are one call too: it is counted once.
    shared = starts[ends - starts > 1]
    shared_ends = ends[ends - starts > 1]
    times = np.concatenate([np.frombuffer(summary.times, np.int64) for summary in summaries])
    weights = np.concatenate([np.frombuffer(summary.weights, np.int64) for summary in summaries])
    file_of = np.concatenate(
        [np.full(len(summary.keys) // 8, position, np.int32) for position, summary in enumerate(summaries)]
    )
    origins = np.concatenate(
        [
            np.where(asked >= 0, names[np.maximum(asked, 0)], -1)
            for names, summary in zip(local, summaries, strict=True)
            for asked in (np.frombuffer(summary.origin, np.int32),)
        ]
    )
    for start, end in zip(shared.tolist(), shared_ends.tolist(), strict=True):
        key, rows, told = int(keys[start]), order[start:end], of[start:end].tolist()
        for position in set(told):
            sessions[position].calls -= told.count(position) - 1
        owner = _owner(sessions, set(told), set(origins[rows].tolist()))
        heaviest: dict[int, tuple[int, int]] = {}  # by session: tokens of the copy that says most, and its file
        for position, weight, file in zip(told, weights[rows].tolist(), file_of[rows].tolist(), strict=True):
            heaviest[position] = max(heaviest.get(position, (-1, -1)), (weight, file))
        at_ms = int(times[rows].min())
        for position in heaviest.keys() - {owner}:
            session = sessions[position]
            session.not_its_own.add(key)
            parents = session.parents
            parents[sessions[owner].name] = max(at_ms, parents.get(sessions[owner].name, at_ms))
        most, file = max(heaviest.values())
        if most > heaviest[owner][0]:
            sessions[owner].elsewhere.setdefault(file, set()).add(key)


def _put_in_time(session: _Session, summaries: list[Summary]) -> None:
    """Its first and last times, without the calls that it does not own."""
    import numpy as np  # noqa: PLC0415 - see above

    others = np.array(sorted(session.not_its_own), np.uint64)
    times = []
    for summary in (summaries[file] for file in session.files):
        if session.name in summary.sessions:
            its = np.frombuffer(summary.session, np.int32) == summary.sessions.index(session.name)
            owned = its & ~np.isin(np.frombuffer(summary.keys, np.uint64), others)
            times += np.frombuffer(summary.times, np.int64)[owned].tolist()
    if times:
        session.first_ms, session.last_ms = min(times), max(times)


def _owner(sessions: list[_Session], told: set[int], origins: set[int]) -> int:
    if len(told) == 1:
        return next(iter(told))
    candidates = (told & origins) or told

    def age(position: int) -> tuple[int, str]:
        session = sessions[position]
        return (session.last_ms if session.born_ms is None else session.born_ms), session.name

    return min(candidates, key=age)


def _own_cost(session: _Session, by_name: dict[str, _Session]) -> OwnCost | None:
    """What the program counted for this session alone."""
    if not session.costs:
        return None
    last = session.costs[-1]
    models = {model: Decimal(cost) for model, cost in last.by_model}
    total = Decimal(last.total_usd)
    if session.parents:
        # Its parent is the session that owns the latest of the calls that it began with.
        parent = by_name[max(session.parents, key=lambda name: (session.parents[name], name))]
        forked_ms = session.born_ms if session.born_ms is not None else session.parents[parent.name]
        before = [state for state in parent.costs if state.at_ms <= forked_ms]
        if not before:
            return None
        base = before[-1]
        if Decimal(base.total_usd) <= total:  # else it did not carry it on
            total -= Decimal(base.total_usd)
            for model, cost in base.by_model:
                models[model] = models.get(model, Decimal(0)) - Decimal(cost)
    by_model = tuple((model, cost) for model, cost in models.items() if cost)
    return OwnCost(total, by_model, has_unknown_model=last.unknown_model)


def _found(session: _Session, cost: OwnCost | None, summaries: list[Summary], shelf: Shelf) -> FoundSession:
    digest = blake2b(f"{shelf.reader}\0{session.name}\0{cost}".encode("utf-8", "surrogatepass"), digest_size=16)
    places: list[tuple[str, set[int] | None]] = [(summaries[file].path, None) for file in session.files]
    places += [(summaries[file].path, keys) for file, keys in session.elsewhere.items()]
    for told in sorted(summaries[file].digest for file in (*session.files, *session.elsewhere)):
        digest.update(told.encode())
    for keys in (session.not_its_own, *(session.elsewhere[file] for file in session.elsewhere)):
        digest.update(array("Q", sorted(keys)).tobytes() + b"|")

    def read() -> ImportedSession:
        calls: dict[int, tuple[Draft, list[Classification | None]]] = {}
        for path, wanted in places:
            drafts, said = shelf.calls(path)
            for draft in drafts:
                if draft.session != session.name if wanted is None else draft.key not in wanted:
                    continue
                if draft.key in session.not_its_own:
                    continue
                known = calls.get(draft.key)
                if known is None:
                    calls[draft.key] = draft, said
                else:
                    known[0].merge(draft)
        calls = _without_replays(calls)
        # What a reply's usage says of a compaction happened before it, at the same time.
        ordered = sorted(calls.values(), key=lambda one: (one[0].at_ms, one[0].kind is not CallKind.COMPACTION))
        return ImportedSession(
            id=session.name,
            source=shelf.source,
            calls=tuple(draft.call(session.name, said) for draft, said in ordered),
            own_cost=cost,
        )

    return FoundSession(
        session.name,
        shelf.source,
        digest.hexdigest(),
        read,
        calls=session.calls,
        first_ms=session.first_ms,
        last_ms=session.last_ms,
        project=next((summaries[file].project for file in session.files if summaries[file].project), None),
    )


def _without_replays(
    calls: dict[int, tuple[Draft, list[Classification | None]]],
) -> dict[int, tuple[Draft, list[Classification | None]]]:
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
