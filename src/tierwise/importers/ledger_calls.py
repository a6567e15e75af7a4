"""The ledger's own calls: what tierwise routed or passed on, seen as any other program's.

Every attempt is a call here: one that was rejected or broke off cost money too. What the classifier said at the time
is taken over, since the text is gone. Calls that were never sent, and attempts of which nobody knows the end, are left
out. A ledger may be large, so only what names a session is kept; its calls are read again when they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.core.calls import CallKind, ImportedCall, ImportedSession
from tierwise.core.decisions import AttemptRecord, CallRecord, OutcomeKind
from tierwise.core.errors import LedgerError
from tierwise.core.money import Conditions
from tierwise.core.tasks import Classification, TaskType
from tierwise.importers.base import FoundSession, Importer, ImportRun, Progress

if TYPE_CHECKING:
    from tierwise.ledger import StoredCall

__all__ = ["LedgerCalls", "attempt_of", "build", "sessions_of"]

NAME = "ledger"
_LEFT_OUT = frozenset({OutcomeKind.NOT_RUN, OutcomeKind.OPEN})


@dataclass
class _Seen:
    """What is known of a session while the ledger is read."""

    first_ms: int
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    last_ms: int = 0
    calls: int = 0
    project: str | None = None


class LedgerCalls:
    """The importer. Roots are ledger files."""

    name = NAME

    def default_roots(self, environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
        """The ledger of this user."""
        from tierwise.config.build import default_ledger_path  # noqa: PLC0415 - pydantic, only where it is asked for

        named = environment.get("TIERWISE_LEDGER")
        path = Path(named).expanduser() if named else default_ledger_path({"HOME": str(home), **environment})
        return (path,) if path.is_file() else ()

    def sessions(self, roots: Iterable[Path], run: ImportRun) -> Iterator[FoundSession]:
        """By the session that the client named; other calls stand alone."""
        for root in roots:
            if not root.is_file():
                run.skipped.line(root, 0, "is not a file")
                continue
            try:
                found = _seen(root, run)
            except LedgerError as error:
                run.skipped.line(root, 0, str(error))
                continue
            for done, (name, seen) in enumerate(found.items(), 1):
                run.progress(Progress(files=1, files_done=1, bytes=0, bytes_done=0, sessions=done))
                yield FoundSession(
                    name,
                    NAME,
                    seen.digest.hexdigest(),
                    partial(_read, root, name, seen, run.task_types),
                    calls=seen.calls,
                    first_ms=seen.first_ms,
                    last_ms=seen.last_ms,
                    project=seen.project,
                )


def build() -> Importer:
    """The importer of this module."""
    return LedgerCalls()


def _seen(path: Path, run: ImportRun) -> dict[str, _Seen]:
    from tierwise.ledger import Ledger  # noqa: PLC0415 - sqlite3, only where a ledger is read

    found: dict[str, _Seen] = {}
    for stored in Ledger(path).calls():
        attempts = _sent(stored)
        if not attempts:
            continue
        call = stored.call
        seen = found.setdefault(_session(call), _Seen(call.started_at_ms))
        seen.last_ms = max(seen.last_ms, call.started_at_ms)
        seen.calls += len(attempts)
        seen.project = seen.project or call.project
        seen.digest.update(repr([_imported(call, attempt, None) for attempt in attempts]).encode("utf-8", "replace"))
        seen.digest.update(f"{call.task_type} {call.confidence} {run.classifier_id}".encode("utf-8", "replace"))
    return found


def _read(path: Path, name: str, seen: _Seen, task_types: Mapping[str, TaskType]) -> ImportedSession:
    from tierwise.ledger import Filter, Ledger  # noqa: PLC0415 - sqlite3, only where a ledger is read

    ledger = Ledger(path)
    if name.startswith(_ALONE):
        alone = ledger.get(name.removeprefix(_ALONE))
        stored: Iterable[StoredCall] = [alone] if alone is not None else []
    else:
        stored = ledger.calls(Filter(session=name, since_ms=seen.first_ms, until_ms=seen.last_ms + 1))
    calls = [
        _imported(one.call, attempt, _classification(one.call, task_types)) for one in stored for attempt in _sent(one)
    ]
    return ImportedSession(id=name, source=NAME, calls=tuple(sorted(calls, key=lambda call: (call.at_ms, call.id))))


def sessions_of(calls: Iterable[StoredCall], task_types: Mapping[str, TaskType]) -> list[ImportedSession]:
    """Calls that were read already, by session, as the importer would bring them."""
    found: dict[str, list[ImportedCall]] = {}
    for one in calls:
        said = _classification(one.call, task_types)
        sent = [_imported(one.call, attempt, said) for attempt in _sent(one)]
        if sent:
            found.setdefault(_session(one.call), []).extend(sent)
    return [
        ImportedSession(id=name, source=NAME, calls=tuple(sorted(session, key=lambda call: (call.at_ms, call.id))))
        for name, session in found.items()
    ]


def attempt_of(call: ImportedCall) -> tuple[str, int]:
    """Which attempt a call of the ledger's is here: its call's id there, and its number."""
    call_id, _, number = call.id.rpartition(":")
    return call_id, int(number)


_ALONE = "call "


def _session(call: CallRecord) -> str:
    return call.session if call.session is not None else f"{_ALONE}{call.call_id}"


def _sent(stored: StoredCall) -> list[AttemptRecord]:
    return [attempt for attempt in stored.attempts if attempt.outcome not in _LEFT_OUT]


def _imported(call: CallRecord, attempt: AttemptRecord, said: Classification | None) -> ImportedCall:
    tags = dict(call.tags)
    kind = tags.get("kind")
    priced = attempt.price.conditions if attempt.price is not None else ()
    return ImportedCall(
        id=f"{call.call_id}:{attempt.number}",
        at_ms=attempt.started_at_ms,
        session=_session(call),
        kind=CallKind(kind) if kind in tuple(CallKind) else CallKind.MAIN,
        model=attempt.model,
        provider=attempt.provider,
        usage=attempt.usage,
        conditions=Conditions(
            batch="batch" in priced,
            inference_geo=next((one.removeprefix("geo:") for one in priced if one.startswith("geo:")), None),
            fast="fast" in priced,
        ),
        project=call.project,
        failed=attempt.outcome is not OutcomeKind.ACCEPTED,
        classification=said,
        cost_nanousd=attempt.cost_nanousd,
    )


def _classification(call: CallRecord, task_types: Mapping[str, TaskType]) -> Classification | None:
    task_type = task_types.get(call.task_type)
    if task_type is None:
        return None
    return Classification(task_type, call.confidence, abstained=call.abstained)
