"""Records to rows and to lines of a spool, and back.

Text that UTF-8 cannot hold (a lone surrogate out of somebody's JSON) is escaped, not refused: a record is worth more
than the spelling of a tag. Prices are canonical JSON with decimal strings, so that equal prices have equal digests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import date
from decimal import Decimal
from hashlib import sha256
from typing import Any, Generic, TypeAlias, TypeVar

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, PlannedRung, Reason
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Price, PriceBand, Usage, usd_to_nanousd
from tierwise.ledger.rollup import AttemptFacts, CallFacts

__all__ = [
    "ATTEMPT_COLUMNS",
    "CALL_COLUMNS",
    "Entry",
    "attempt_facts",
    "attempt_from_row",
    "attempt_row",
    "cache_saved_nanousd",
    "call_facts",
    "call_from_row",
    "call_row",
    "entry_from_line",
    "entry_to_line",
    "price_digest",
    "price_from_text",
    "price_to_text",
    "printable",
]

Entry: TypeAlias = tuple[CallRecord | None, tuple[AttemptRecord, ...]]
Cell: TypeAlias = str | int | float | None
_Part = TypeVar("_Part")

CALL_COLUMNS = (
    "call_id",
    "started_at_ms",
    "status",
    "task_type",
    "family",
    "needs",
    "confidence",
    "abstained",
    "tier",
    "model",
    "planned_tier",
    "baseline_model",
    "baseline_nanousd",
    "latency_ms",
    "session",
    "project",
    "tags",
    "reasons",
    "error",
    "writer",
    "key_id",
    "ladder",
    "batch_id",
    "custom_id",
)
ATTEMPT_COLUMNS = (
    "call_id",
    "number",
    "tier",
    "model",
    "provider",
    "started_at_ms",
    "outcome",
    "detail",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
    "web_searches",
    "estimated",
    "price",
    "cost_nanousd",
    "latency_ms",
    "ttft_ms",
    "wait_ms",
    "request_id",
    "reported_model",
    "cache_saved_nanousd",
)

_encode = json.JSONEncoder(separators=(",", ":")).encode


def printable(text: str) -> str:
    """The text with whatever UTF-8 cannot hold written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _decimal(value: Decimal) -> str:
    text = format(value.normalize(), "f")
    return "0" if text == "-0" else text


def price_to_text(price: Price) -> str:
    """Canonical JSON: equal prices give equal texts."""
    return json.dumps(
        {
            "model": price.model,
            "source": price.source,
            "valid_from": price.valid_from.isoformat() if price.valid_from else None,
            "conditions": list(price.conditions),
            "usd_per_web_search": _decimal(price.usd_per_web_search),
            "usd_per_hour": _decimal(price.usd_per_hour),
            "bands_usd_per_million": [
                {
                    "above_prompt_tokens": band.above_prompt_tokens,
                    "input": _decimal(band.input),
                    "output": _decimal(band.output),
                    "cache_read": _decimal(band.cache_read),
                    "cache_write_5m": _decimal(band.cache_write_5m),
                    "cache_write_1h": _decimal(band.cache_write_1h),
                }
                for band in price.bands
            ],
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def price_from_text(text: str) -> Price:
    """The price again, exactly.

    Raises:
        ValueError, KeyError, TypeError: it is not a price's text.
    """
    data = json.loads(text)
    return Price(
        model=data["model"],
        source=data["source"],
        valid_from=date.fromisoformat(data["valid_from"]) if data["valid_from"] else None,
        conditions=tuple(data["conditions"]),
        usd_per_web_search=Decimal(data["usd_per_web_search"]),
        usd_per_hour=Decimal(data["usd_per_hour"]),
        bands=tuple(
            PriceBand(
                input=Decimal(band["input"]),
                output=Decimal(band["output"]),
                cache_read=Decimal(band["cache_read"]),
                cache_write_5m=Decimal(band["cache_write_5m"]),
                cache_write_1h=Decimal(band["cache_write_1h"]),
                above_prompt_tokens=band["above_prompt_tokens"],
            )
            for band in data["bands_usd_per_million"]
        ),
    )


def price_digest(text: str) -> str:
    """The name of a price in the table `prices`."""
    return sha256(text.encode("utf-8")).hexdigest()[:16]


_MOST_TEXTS = 256


class _TextsOf(Generic[_Part]):
    """Makes texts, and keeps them by the identity of what they are of: a call writes its reasons, ladder and tags when
    it begins and when it ends, and calls share them."""

    def __init__(self, make: Callable[[tuple[_Part, ...]], str]) -> None:
        self._make = make
        self._known: dict[int, tuple[tuple[_Part, ...], str]] = {}

    def __call__(self, parts: tuple[_Part, ...]) -> str:
        known = self._known.get(id(parts))
        if known is None or known[0] is not parts:
            if len(self._known) >= _MOST_TEXTS:
                self._known.clear()
            known = self._known[id(parts)] = (parts, self._make(parts))
        return known[1]


def _planned(rung: PlannedRung) -> list[Json]:
    return [rung.tier, rung.model, rung.estimated_nanousd]


_reasons_text = _TextsOf[Reason](lambda reasons: _encode([[reason.step, reason.text] for reason in reasons]))
_ladder_text = _TextsOf[PlannedRung](lambda ladder: _encode([_planned(rung) for rung in ladder]))
_tags_text = _TextsOf[tuple[str, str]](lambda tags: _encode(dict(tags)))


def call_row(call: CallRecord, writer: str | None) -> tuple[Cell, ...]:
    """The row of a call, in the order of `CALL_COLUMNS`. `writer` is kept while the call is open."""
    return (
        call.call_id,
        call.started_at_ms if call.started_at_ms > 0 else 0,  # a clock before 1970 is a broken clock
        call.status.value,
        call.task_type,
        call.family,
        call.needs,
        call.confidence,
        1 if call.abstained else 0,
        call.tier,
        call.model,
        call.planned_tier,
        call.baseline_model,
        call.baseline_nanousd,
        call.latency_ms,
        call.session,
        call.project,
        _tags_text(call.tags) if call.tags else "{}",
        _reasons_text(call.reasons) if call.reasons else "[]",
        call.error,
        writer,
        call.key_id,
        None if call.ladder is None else _ladder_text(call.ladder),
        call.batch_id,
        call.custom_id,
    )


def attempt_row(attempt: AttemptRecord, price: str | None) -> tuple[Cell, ...]:
    """The row of an attempt, in the order of `ATTEMPT_COLUMNS`. `price` is the digest of its price."""
    usage = attempt.usage
    return (
        attempt.call_id,
        attempt.number,
        attempt.tier,
        attempt.model,
        attempt.provider,
        attempt.started_at_ms if attempt.started_at_ms > 0 else 0,
        attempt.outcome.value,
        attempt.detail,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        usage.thinking_tokens,
        usage.web_searches,
        1 if usage.estimated else 0,
        price,
        attempt.cost_nanousd,
        attempt.latency_ms,
        attempt.ttft_ms,
        attempt.wait_ms,
        attempt.request_id,
        attempt.reported_model,
        None if attempt.price is None else _cache_saved_nanousd(attempt.price, usage),
    )


def _cache_saved_nanousd(price: Price, usage: Usage) -> int:
    """What the cache saved, or cost (negative), against sending the same tokens without one."""
    if not (usage.cache_read_tokens or usage.cache_write_5m_tokens or usage.cache_write_1h_tokens):
        return 0
    return usd_to_nanousd(price.cache_saved_usd(usage))


def cache_saved_nanousd(price: str, fresh: int, read: int, write_5m: int, write_1h: int) -> int:
    """The same of a row's columns and its price's text: for a ledger that was written without it."""
    usage = Usage(fresh, cache_read_tokens=read, cache_write_5m_tokens=write_5m, cache_write_1h_tokens=write_1h)
    return _cache_saved_nanousd(price_from_text(price), usage)


# A row as the database gives it; which column has which type is the schema's (STRICT) promise.
Row: TypeAlias = Sequence[Any]


def call_facts(row: Row) -> CallFacts:
    """What the roll-up needs of a row of `calls`."""
    return CallFacts(row[1], row[2], row[15], row[20], row[3], row[8], row[9], row[12], row[13], row[6], row[7])


def attempt_facts(row: Row) -> AttemptFacts:
    """What the roll-up needs of a row of `attempts`."""
    return AttemptFacts(row[1], row[2], row[3], row[6], row[17], row[23], row[15], *row[8:15])


def call_from_row(row: Row) -> CallRecord:
    """The record of a row of `calls`."""
    return CallRecord(
        call_id=row[0],
        started_at_ms=row[1],
        status=CallStatus(row[2]),
        task_type=row[3],
        family=row[4],
        needs=row[5],
        confidence=row[6],
        abstained=bool(row[7]),
        tier=row[8],
        model=row[9],
        planned_tier=row[10],
        baseline_model=row[11],
        baseline_nanousd=row[12],
        latency_ms=row[13],
        session=row[14],
        project=row[15],
        tags=tuple(json.loads(row[16]).items()),
        reasons=tuple(Reason(step, text) for step, text in json.loads(row[17])),
        error=row[18],
        key_id=row[20],
        ladder=None if row[21] is None else tuple(PlannedRung(*rung) for rung in json.loads(row[21])),
        batch_id=row[22],
        custom_id=row[23],
    )


def attempt_from_row(row: Row, price: Price | None) -> AttemptRecord:
    """The record of a row of `attempts`."""
    return AttemptRecord(
        call_id=row[0],
        number=row[1],
        tier=row[2],
        model=row[3],
        provider=row[4],
        started_at_ms=row[5],
        outcome=OutcomeKind(row[6]),
        detail=row[7],
        usage=Usage(
            input_tokens=row[8],
            output_tokens=row[9],
            cache_read_tokens=row[10],
            cache_write_5m_tokens=row[11],
            cache_write_1h_tokens=row[12],
            thinking_tokens=row[13],
            web_searches=row[14],
            estimated=bool(row[15]),
        ),
        price=price,
        cost_nanousd=row[17],
        latency_ms=row[18],
        ttft_ms=row[19],
        wait_ms=row[20],
        request_id=row[21],
        reported_model=row[22],
    )


def _part(value: Reason | PlannedRung | tuple[str, str]) -> list[Json]:
    match value:
        case Reason():
            return [value.step, value.text]
        case PlannedRung():
            return _planned(value)
        case _:
            return list(value)


def _plain(record: CallRecord | AttemptRecord) -> JsonObject:
    found: JsonObject = {}
    for f in fields(record):
        value = getattr(record, f.name)
        match value:
            case Usage():
                found[f.name] = {u.name: getattr(value, u.name) for u in fields(value)}
            case Price():
                found[f.name] = price_to_text(value)
            case CallStatus() | OutcomeKind():
                found[f.name] = value.value
            case tuple():
                found[f.name] = [_part(x) for x in value]
            case _:
                found[f.name] = value
    return found


def entry_to_line(entry: Entry) -> str:
    """One line of a spool: ASCII JSON, no line end. Holds what the ledger would have, and so no prompt either."""
    call, attempts = entry
    plain: JsonObject = {"call": _plain(call) if call else None, "attempts": [_plain(a) for a in attempts]}
    return _encode(plain)


def _known(kind: type[CallRecord | AttemptRecord | Usage], data: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {name: value for name, value in data.items() if name in names}  # a newer version's extra is ignored


def entry_from_line(line: str) -> Entry:
    """What `entry_to_line` wrote.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is not such a line.
    """
    data: Json = json.loads(line)
    if not isinstance(data, dict) or not data.keys() >= {"call", "attempts"}:
        raise ValueError("not a record of a call")
    plain: dict[str, Any] = data
    call: CallRecord | None = None
    if plain["call"] is not None:
        known = _known(CallRecord, plain["call"])
        known["status"] = CallStatus(known["status"])
        known["tags"] = tuple((str(k), str(v)) for k, v in known.get("tags", ()))
        known["reasons"] = tuple(Reason(step, text) for step, text in known.get("reasons", ()))
        if known.get("ladder") is not None:
            known["ladder"] = tuple(PlannedRung(*rung) for rung in known["ladder"])
        call = CallRecord(**known)
    attempts = []
    for item in plain["attempts"]:
        known = _known(AttemptRecord, item)
        known["outcome"] = OutcomeKind(known["outcome"])
        known["usage"] = Usage(**_known(Usage, known.get("usage", {})))
        known["price"] = price_from_text(known["price"]) if known.get("price") else None
        attempts.append(AttemptRecord(**known))
    return call, tuple(attempts)


def printable_entry(entry: Entry) -> Entry:
    """The same entry with every text made fit for UTF-8."""

    def mend(record: CallRecord | AttemptRecord) -> dict[str, Any]:
        return {
            f.name: printable(getattr(record, f.name))
            for f in fields(record)
            if isinstance(getattr(record, f.name), str) and f.name not in {"status", "outcome"}
        }

    call, attempts = entry
    mended: list[AttemptRecord] = []
    for attempt in attempts:
        price = attempt.price
        if price:
            price = replace(price, model=printable(price.model), source=printable(price.source))
        mended.append(replace(attempt, price=price, **mend(attempt)))
    return (replace(call, **mend(call)) if call else None), tuple(mended)
