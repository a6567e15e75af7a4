"""The stand-in's message batches: made, answered by the script, listed, cancelled, read and deleted as at the real API.

A batch ends when it is next looked at, unless `hold` says to let it run. Its results stand in another order than its
requests, which the API allows itself too. The parameters of its requests are judged one by one, once it is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tierwise.core.json import Json, JsonObject
from tierwise.testing.faults import Fault

__all__ = ["BatchError", "StandInBatches"]

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST_REQUESTS = 100_000
_PATH = "/v1/messages/batches"
Perform = Callable[[JsonObject], JsonObject]


class BatchError(Exception):
    """What is refused, as the API would."""

    def __init__(self, code: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.code, self.kind = code, kind


@dataclass(slots=True)
class _Batch:
    id: str
    requests: list[tuple[str, JsonObject]]
    created: datetime
    status: str = "in_progress"
    ended: datetime | None = None
    cancelled: datetime | None = None
    results: list[JsonObject] = field(default_factory=list)


class StandInBatches:
    """All batches of one stand-in.

    Attributes:
        hold: batches go on running; what is cancelled meanwhile ends as cancelled.
        expire: those that end from now on end expired.
        cut_after: results break off after so many lines.
        fault: what happens to the answer to the next batch that is made; a status means that it is not.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.hold = False
        self.expire = False
        self.cut_after: int | None = None
        self._batches: dict[str, _Batch] = {}

    @property
    def ids(self) -> list[str]:
        """The names of all batches that there are, in the order in which they were made."""
        return list(self._batches)

    def create(self, body: Json, url: str) -> JsonObject:
        """Takes a batch, and tells of it.

        Raises:
            BatchError: it is none.
        """
        listed = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(listed, list) or not listed:
            raise BatchError(400, "invalid_request_error", "requests: Field required")
        if len(listed) > _MOST_REQUESTS:
            raise BatchError(400, "invalid_request_error", f"requests: at most {_MOST_REQUESTS}")
        requests: list[tuple[str, JsonObject]] = []
        names: set[str] = set()
        for at, one in enumerate(listed):
            if not isinstance(one, dict) or not isinstance(params := one.get("params"), dict):
                raise BatchError(400, "invalid_request_error", f"requests.{at}.params: Field required")
            for extra in one.keys() - {"custom_id", "params"}:
                raise BatchError(400, "invalid_request_error", f"requests.{at}.{extra}: Extra inputs are not permitted")
            name = one.get("custom_id")
            if not isinstance(name, str) or not _CUSTOM_ID.fullmatch(name):
                raise BatchError(400, "invalid_request_error", f"requests.{at}.custom_id: invalid")
            if name in names:
                raise BatchError(400, "invalid_request_error", f"requests.{at}.custom_id: must be unique")
            names.add(name)
            requests.append((name, params))
        made = _Batch(f"msgbatch_standin_{len(self._batches) + 1:06d}", requests, datetime.now(UTC))
        self._batches[made.id] = made
        return self._told(made, url)

    def forget_last(self) -> None:
        """The latest batch was not made after all."""
        self._batches.popitem()

    def answer(self, method: str, path: str, query: Mapping[str, str], url: str, perform: Perform) -> JsonObject | str:
        """What the API answers of a batch that was made; a text is lines of results.

        Raises:
            BatchError: it refuses.
        """
        if path == _PATH:
            names = list(reversed(self._batches))  # the latest first
            after = query.get("after_id")
            rest = names[names.index(after) + 1 :] if after in names else names
            page = rest[: int(query.get("limit", "20"))]
            data: list[Json] = [self._told(self._looked_at(name, perform), url) for name in page]
            more = len(rest) > len(page)
            first, last = (page[0], page[-1]) if page else (None, None)
            return {"data": data, "has_more": more, "first_id": first, "last_id": last}
        name, _, action = path.removeprefix(f"{_PATH}/").partition("/")
        if name not in self._batches:
            raise BatchError(404, "not_found_error", f"message batch {name} not found")
        batch = self._batches[name]
        match (method, action):
            case ("POST", "cancel"):
                if batch.status == "ended":
                    raise BatchError(400, "invalid_request_error", "the batch has ended")
                batch.status, batch.cancelled = "canceling", datetime.now(UTC)
                return self._told(batch, url)
            case ("DELETE", ""):
                if batch.status != "ended":
                    raise BatchError(400, "invalid_request_error", "the batch has not ended")
                del self._batches[name]
                return {"id": name, "type": "message_batch_deleted"}
            case ("GET", ""):
                return self._told(self._looked_at(name, perform), url)
            case ("GET", "results") if self._looked_at(name, perform).status == "ended":
                return "".join(f"{json.dumps(line)}\n" for line in batch.results)
            case ("GET", "results"):
                raise BatchError(404, "not_found_error", "the batch has no results yet")
            case _:
                raise BatchError(404, "not_found_error", f"{method} {path}: not found")

    def _looked_at(self, name: str, perform: Perform) -> _Batch:
        """The batch; it ends now, if it is to."""
        batch = self._batches[name]
        if batch.status == "ended" or (self.hold and batch.status != "canceling"):
            return batch
        lines: list[JsonObject] = []
        for custom_id, params in batch.requests:
            if batch.status == "canceling":
                result: JsonObject = {"type": "canceled"}
            elif self.expire:
                result = {"type": "expired"}
            else:
                result = perform(params)
            lines.append({"custom_id": custom_id, "result": result})
        batch.results = lines[::-1]
        batch.status, batch.ended = "ended", datetime.now(UTC)
        return batch

    @staticmethod
    def _told(batch: _Batch, url: str) -> JsonObject:
        kinds = [result.get("type") for line in batch.results if isinstance(result := line["result"], dict)]
        counts: JsonObject = {kind: kinds.count(kind) for kind in ("succeeded", "errored", "canceled", "expired")}
        counts["processing"] = len(batch.requests) - len(kinds)
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": batch.status,
            "request_counts": counts,
            "created_at": batch.created.isoformat(),
            "expires_at": (batch.created + timedelta(days=1)).isoformat(),
            "ended_at": None if batch.ended is None else batch.ended.isoformat(),
            "cancel_initiated_at": None if batch.cancelled is None else batch.cancelled.isoformat(),
            "archived_at": None,
            "results_url": f"{url}{_PATH}/{batch.id}/results" if batch.status == "ended" else None,
        }
