"""Takes a request of an exporter to its end: the records in it into the ledger, and what the exporter is to hear.

Exporters send again what was not answered, or answered with 429 or 503, and throw away what was answered with anything
else. So whatever may be otherwise later (a ledger that is locked, full or damaged) is 503, what never will be is 400,
and a request of which only some records are bad is taken, with word of those (`partialSuccess`). An answer says that
the calls are in the database; a request that was taken and whose answer was lost comes again, and changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from tierwise.core.errors import InvalidTask, LedgerError
from tierwise.core.settings import Settings
from tierwise.core.tasks import Classification
from tierwise.engine.router import AsyncRouter
from tierwise.ledger import Ledger
from tierwise.ledger.keys import ApiKey
from tierwise.ledger.reported import Reported, record_reported
from tierwise.otlp.claude_code import COST_STEP, BadEvent, Events, Kind, kind_of
from tierwise.replay.tariff import Tariff
from tierwise.wire.otlp import Encoding, Logs, NotOtlp, accepted, refused

__all__ = ["Answer", "Host", "Receiver"]

_log = logging.getLogger("tierwise.otlp")
_AGAIN_SECONDS = 1  # Claude Code waits two at its end
_MOST_TOLD = 100  # models of which it was said that prices differ


class Host(Protocol):
    """The process that telemetry comes to."""

    @property
    def settings(self) -> Settings:
        """The configuration, as it is now."""

    @property
    def router(self) -> AsyncRouter:
        """What classifies, and has the prices."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an exporter is to hear."""

    status: int
    encoding: Encoding
    body: bytes
    retry_after_seconds: int | None = None

    @classmethod
    def refusing(cls, status: int, encoding: Encoding, why: str, *, again: bool = False) -> Answer:
        """Nothing was taken; `again`: it may be sent again."""
        return cls(status, encoding, refused(encoding, f"tierwise: {why}"), _AGAIN_SECONDS if again else None)


class Receiver:
    """Where telemetry goes. Safe to be used by several threads.

    Args:
        ledger: where calls are recorded; None where it is switched off.
        host: whose configuration and router are used.
    """

    def __init__(
        self, ledger: Ledger | None, host: Host, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._ledger = ledger
        self._host = host
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._events = Events(self._classified)
        self._told: set[str] = set()

    def logs(self, body: bytes, encoding: Encoding, key: ApiKey | None = None) -> Answer:
        """Records what a request of log records tells of.

        Args:
            key: that it came with; its project goes before what events say.
        """
        if self._ledger is None:
            return Answer.refusing(
                400, encoding, "the ledger is switched off (ledger.enabled), so nothing can be recorded"
            )
        try:
            logs = Logs.read(body, encoding)
        except NotOtlp as error:
            return Answer.refusing(400, encoding, str(error))
        with self._lock:
            reports, refused_for = self._reports(logs, key)
        try:
            recorded = record_reported(self._ledger, reports)
        except LedgerError as error:
            _log.error("telemetry has to be sent again: %s", error)
            return Answer.refusing(503, encoding, "the ledger cannot be written now", again=True)
        self._tell([one for one in reports if one.call.call_id in recorded.written])
        return Answer(200, encoding, accepted(encoding, rejected=sum(refused_for.values()), why="; ".join(refused_for)))

    def _reports(self, logs: Logs, key: ApiKey | None) -> tuple[list[Reported], Counter[str]]:
        """The calls, and why records that should be some cannot be."""
        refused_for = Counter({"a record is no object": logs.broken} if logs.broken else {})
        found = [(kind, record) for record in logs.records if (kind := kind_of(record)) is not None]
        for kind, record in found:  # before the requests for them, in whatever order they come
            if kind is Kind.PROMPT:
                self._events.prompt(record)
        host = self._host
        tariff = Tariff(host.settings.catalog, host.router.planner.prices)
        now_ms = self._now_ms()
        project = None if key is None else key.project
        reports: list[Reported] = []
        for kind, record in found:
            if kind is Kind.PROMPT:
                continue
            try:
                reports.append(
                    self._events.call(
                        record,
                        kind,
                        tariff,
                        now_ms=now_ms,
                        project=project,
                        otherwise=host.settings.project,
                        key_id=None if key is None else key.key_id,
                    )
                )
            except BadEvent as error:
                refused_for[f"{kind.value}: {error}"] += 1
        return reports, refused_for

    def _classified(self, text: str) -> Classification | None:
        with suppress(InvalidTask):
            return self._host.router.classify(text, has_tools=True)
        return None

    def _tell(self, reports: list[Reported]) -> None:
        """Once for each model: that Claude Code reckons with other prices."""
        for one in reports:
            model = one.call.model
            said = next((reason.text for reason in one.call.reasons if reason.step == COST_STEP), None)
            if said is not None and model not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(model)
                _log.warning("%s: %s (told once; each such call says so)", model, said)
