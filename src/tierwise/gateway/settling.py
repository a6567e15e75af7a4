"""What a batch's result means for the ledger: the end of the call and of its attempt, at a batch's price.

Pure: the same result gives the same records, whoever reads it and how often.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind
from tierwise.core.json import Json, JsonObject
from tierwise.core.money import Price, Usage, usd_to_nanousd
from tierwise.gateway.incoming import parsed_json
from tierwise.gateway.planning import Planning, conditions_of
from tierwise.prices.book import Conditions
from tierwise.providers._http import failure_kind
from tierwise.wire.anthropic import usage_of

__all__ = ["BatchResult", "read_result", "settled"]

_PLAIN = Conditions(batch=True)
_LATE = "expired: the provider had not come to it within a day"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One line of a batch's results."""

    custom_id: str
    kind: str  # succeeded, errored, canceled or expired
    message: JsonObject | None  # of one that succeeded
    error_type: str = ""  # of one that did not


def read_result(line: bytes) -> BatchResult | None:
    """A line of results; None where it is none, or of a kind that is not known: then its call stays open."""
    try:
        value = parsed_json(line)
    except (ValueError, RecursionError):
        return None
    match value:
        case {"custom_id": str(name), "result": {"type": "succeeded", "message": dict(message)}}:
            return BatchResult(name, "succeeded", message)
        case {"custom_id": str(name), "result": {"type": "errored", "error": error}}:
            return BatchResult(name, "errored", None, _error_type(error))
        case {"custom_id": str(name), "result": {"type": "canceled" | "expired" as kind}}:
            return BatchResult(name, kind, None)
        case _:
            return None


def settled(
    call: CallRecord, attempt: AttemptRecord, result: BatchResult, planning: Planning
) -> tuple[CallRecord, AttemptRecord]:
    """The end of a call that waited for this result, and of its attempt. What was not answered costs nothing."""
    if result.message is not None:
        return _answered(call, attempt, result.message, planning)
    match result.kind:
        case "canceled":
            status, outcome, detail = CallStatus.CANCELLED, OutcomeKind.CANCELLED, "the batch was cancelled"
        case "expired":
            status, outcome, detail = CallStatus.FAILED, OutcomeKind.TIMEOUT, _LATE
        case _:
            named = f" ({result.error_type})" if result.error_type.isidentifier() else ""
            status, outcome = CallStatus.FAILED, failure_kind(200, result.error_type)
            detail = f"{attempt.provider} answered with an error{named}"
    ended = replace(attempt, outcome=outcome, detail=detail, usage=Usage(), cost_nanousd=0)
    return replace(call, status=status, error=detail), ended


def _answered(
    call: CallRecord, attempt: AttemptRecord, message: JsonObject, planning: Planning
) -> tuple[CallRecord, AttemptRecord]:
    usage, told = usage_of(message, prompt_tokens=attempt.usage.prompt_tokens), message.get("usage")
    day = datetime.fromtimestamp(call.started_at_ms / 1000, UTC).date()
    model, reported = planning.model(attempt.model), message.get("model")
    price = attempt.price
    if isinstance(told, dict) and replace(conditions_of({}, told), batch=True) != _PLAIN and model is not None:
        price = planning.batch_price(model, day, {}, told) or price
    ended = replace(
        attempt,
        outcome=OutcomeKind.REFUSED if message.get("stop_reason") == "refusal" else OutcomeKind.ACCEPTED,
        usage=usage,
        price=price,
        cost_nanousd=_cost(price, usage),
        reported_model=reported if isinstance(reported, str) else None,
    )
    baseline = planning.model(call.baseline_model)
    compared: int | None = None
    if baseline is not None:
        # In a batch, too: what routing saves, and not what batches do.
        theirs, ours = baseline.tokenizer_factor, baseline.tokenizer_factor if model is None else model.tokenizer_factor
        compared = _cost(
            planning.batch_price(baseline, day, {}), usage if ours == theirs else usage.scaled(theirs / ours)
        )
    return replace(call, status=CallStatus.ANSWERED, baseline_nanousd=compared, error=None), ended


def _cost(price: Price | None, usage: Usage) -> int | None:
    return None if price is None else usd_to_nanousd(price.cost_usd(usage))


def _error_type(error: Json) -> str:
    """Of an error, or of the whole answer of which it is a part, as the API tells it."""
    match error:
        case {"type": "error", "error": {"type": str(told)}} | {"type": str(told)}:
            return told
        case _:
            return ""
