"""Claude Code's events, as calls of the ledger: `api_request` and `api_error`, as seen of 2.1.330.

An `api_request` is a request that was answered, an `api_error` one that was given up, after tries that Claude Code does
not tell of one by one. Each is a call of one attempt. Nobody decided anything about it: its baseline is what it cost,
and it saves nothing.

**Money.** Tokens are priced by our prices of the event's day. What Claude Code says that the request cost is compared
to the micro-dollar; where the two differ, a reason of the call says both. An error has no tokens and costs nothing.

**Which request.** `request_id` is the upstream's. Where there is none (nothing answered, or an endpoint that has none)
the event itself is the identity: its session, time and number. One that was sent twice is still one.

**What it was about.** Events hold no text, unless the user has Claude Code send prompts (`OTEL_LOG_USER_PROMPTS`). Then
a prompt is classified when it comes, what was said of it is kept for the requests of that prompt, and the text is not.
What subagents and side calls are asked is never told.

Numbers come as text from some versions, and are read either way. An event that cannot be one says so: `BadEvent`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from enum import Enum

from tierwise.core.calls import CallKind, ImportedCall
from tierwise.core.decisions import AttemptRecord, CallRecord, CallStatus, OutcomeKind, Reason, recorded_kind
from tierwise.core.money import Conditions, Price, Usage, format_usd, nanousd_to_usd, usd_to_nanousd
from tierwise.core.tasks import Classification
from tierwise.ledger.ids import reported_id
from tierwise.ledger.reported import SOURCE_TAG, Reported, Source
from tierwise.replay.pricing import canonical_id, terms
from tierwise.replay.tariff import Tariff
from tierwise.wire.claude_code import is_note, without_reminders
from tierwise.wire.otlp import LogRecord, Scalar

__all__ = ["COST_STEP", "BadEvent", "Events", "Kind", "kind_of"]

COST_STEP = "claude_cost"  # of the reason that says what Claude Code took a request to cost
_PREFIX = "claude_code."
_MOST_TOKENS = 10**9  # of one request: a thousand times the largest context there is
_MOST_MS = 7 * 86_400_000
_EARLIEST_MS = 1_577_836_800_000  # 2020
_DAY_MS = 86_400_000
_LONGEST = 200  # of ids and names
_LONGEST_PROMPT = 20_000  # of which the classifier looks at less
_MOST_PROMPTS = 1_000
_REDACTED = "<REDACTED>"
_NANO_PER_MICRO = 1_000
_PROJECT = ("tierwise.project", "project")  # attributes, of OTEL_RESOURCE_ATTRIBUTES
_STATUS = {
    400: OutcomeKind.INVALID_REQUEST,
    401: OutcomeKind.UNAUTHORIZED,
    403: OutcomeKind.UNAUTHORIZED,
    404: OutcomeKind.UNAVAILABLE,
    413: OutcomeKind.TOO_LARGE,
    429: OutcomeKind.RATE_LIMITED,
    503: OutcomeKind.OVERLOADED,
    529: OutcomeKind.OVERLOADED,
}
_TITLES = frozenset({"generate_session_title", "rename_generate_name", "teleport_generate_title"})

Classify = Callable[[str], Classification | None]


class Kind(Enum):
    """Which of Claude Code's events matter."""

    REQUEST = "api_request"
    ERROR = "api_error"
    PROMPT = "user_prompt"


class BadEvent(ValueError):
    """An event that cannot be recorded; the message says why, and quotes nothing of it."""


def kind_of(record: LogRecord) -> Kind | None:
    """Which event a record is; None: none that matters, or not of Claude Code."""
    if not record.name.startswith(_PREFIX):
        return None
    name = record.name.removeprefix(_PREFIX)
    return next((kind for kind in Kind if kind.value == name), None)


class Events:
    """Makes calls of events. Used by one thread at a time.

    Args:
        classify: what a prompt asks for; None where there is nothing to classify.
    """

    def __init__(self, classify: Classify) -> None:
        self._classify = classify
        self._prompts: OrderedDict[tuple[str, str], Classification | None] = OrderedDict()

    def prompt(self, record: LogRecord) -> None:
        """Takes what a person asked, where Claude Code was told to send that."""
        text = record.get("prompt")
        name = (_name(record, "session.id"), _name(record, "prompt.id"))
        if not isinstance(text, str) or text == _REDACTED or not all(name):
            return
        ask = without_reminders(text[:_LONGEST_PROMPT])
        self._prompts[name] = self._classify(ask) if ask and not is_note(ask) else None
        while len(self._prompts) > _MOST_PROMPTS:
            self._prompts.popitem(last=False)

    def call(
        self,
        record: LogRecord,
        kind: Kind,
        tariff: Tariff,
        *,
        now_ms: int,
        project: str | None = None,
        otherwise: str | None = None,
        key_id: str | None = None,
    ) -> Reported:
        """The call that an event of a request or of an error tells of.

        Args:
            project: whose it is, whatever the event says; None: as that says.
            otherwise: whose it is where the event does not say.
            key_id: of the key that it came with.

        Raises:
            BadEvent: it cannot be one.
        """
        call = _call(record, kind, now_ms, project, otherwise)
        said = self._prompts.get((call.session, _name(record, "prompt.id"))) if call.kind is CallKind.MAIN else None
        reported = _reported(record, kind, call, said, tariff)
        return Reported(replace(reported.call, key_id=key_id), reported.attempt)


def _call(record: LogRecord, kind: Kind, now_ms: int, project: str | None, otherwise: str | None) -> ImportedCall:
    ended_ms = _moment_ms(record)
    if ended_ms > now_ms + _DAY_MS:
        raise BadEvent("its time is more than a day ahead of this machine's clock")
    session, model = _name(record, "session.id"), _text(record, "model")
    if not model:
        raise BadEvent("it names no model")
    request = _text(record, "request_id")
    agent = _name(record, "agent_id")
    return ImportedCall(
        id=request or "\0".join((session, str(record.time_ns), str(record.get("event.sequence")), kind.value)),
        at_ms=ended_ms - _number(record, "duration_ms", _MOST_MS),
        session=session,
        agent=agent or None,
        kind=_what_for(_name(record, "query_source"), agent),
        model=model,
        usage=_usage(record) if kind is Kind.REQUEST else Usage(),
        conditions=Conditions(fast=record.get("speed") == "fast"),
        project=project or next((name for name in (_name(record, one) for one in _PROJECT) if name), otherwise),
        failed=kind is Kind.ERROR,
    )


def _reported(
    record: LogRecord,
    kind: Kind,
    call: ImportedCall,
    said: Classification | None,
    tariff: Tariff,
) -> Reported:
    price = None if call.failed else tariff.price(call.model, call.day, terms(call))
    cost = _cost(call, price)
    latency_ms = _number(record, "duration_ms", _MOST_MS) or None
    tier, model = tariff.tier(call.model), canonical_id(call.model)
    outcome, error = (OutcomeKind.ACCEPTED, None) if not call.failed else _failure(record)
    tags = {SOURCE_TAG: Source.TELEMETRY.value, "kind": call.kind.value}
    if call.agent is not None:
        tags["agent"] = call.agent
    attempt = AttemptRecord(
        call_id=reported_id(call.id),
        number=1,
        tier=tier,
        model=model,
        provider=call.provider,
        started_at_ms=call.at_ms,
        outcome=outcome,
        detail=error or "",
        usage=call.usage,
        price=price,
        cost_nanousd=cost,
        latency_ms=latency_ms,
        ttft_ms=_number(record, "ttft_ms", _MOST_MS) or None,
        request_id=_text(record, "request_id") or None,
    )
    return Reported(
        CallRecord(
            call_id=attempt.call_id,
            started_at_ms=call.at_ms,
            status=CallStatus.FAILED if call.failed else CallStatus.ANSWERED,
            **recorded_kind(said),
            tier=tier,
            model=model,
            planned_tier=tier,
            baseline_model=model,
            baseline_nanousd=None if call.failed else cost,
            latency_ms=latency_ms,
            session=call.session or None,
            project=call.project,
            tags=tuple(sorted(tags.items())),
            reasons=() if kind is Kind.ERROR else _compared(record, cost),
            error=error,
        ),
        attempt,
    )


def _cost(call: ImportedCall, price: Price | None) -> int | None:
    if price is None:
        return 0 if call.failed else None
    return usd_to_nanousd(price.cost_usd(call.usage))


def _compared(record: LogRecord, cost_nanousd: int | None) -> tuple[Reason, ...]:
    """What Claude Code says that it cost, where we say something else."""
    told = record.get("cost_usd_micros")
    if told is None and isinstance(dollars := record.get("cost_usd"), int | float) and 0 <= dollars < 1e9:
        told = round(dollars * 1e6)
    micros = _whole(told)
    if micros is None or not 0 <= micros < 10**15:
        return ()
    theirs = format_usd(nanousd_to_usd(micros * _NANO_PER_MICRO))
    if cost_nanousd is None:
        return (Reason(COST_STEP, f"no price is known here; Claude Code says {theirs}"),)
    if abs(cost_nanousd - micros * _NANO_PER_MICRO) <= _NANO_PER_MICRO // 2:
        return ()
    ours = format_usd(nanousd_to_usd(cost_nanousd))
    return (Reason(COST_STEP, f"Claude Code says {theirs}, its tokens at the prices here come to {ours}"),)


def _failure(record: LogRecord) -> tuple[OutcomeKind, str]:
    """What became of a request that was given up. The error's own text may quote the request, and is not kept."""
    status = _whole(record.get("status_code"))
    tries = _whole(record.get("attempt")) or 1
    after = f" after {tries} tries" if 1 < tries < 1_000 else ""
    if status is None or not 100 <= status < 600:
        return OutcomeKind.SERVER_ERROR, f"no answer came{after}"
    return _STATUS.get(status, OutcomeKind.SERVER_ERROR), f"the API answered {status}{after}"


def _what_for(source: str, agent: str) -> CallKind:
    """What a request is for, by who in Claude Code sent it."""
    if agent or source.startswith("agent:") or source == "hook_agent":
        return CallKind.SUBAGENT
    if source in ("", "sdk") or source.startswith("repl_main_thread"):
        return CallKind.MAIN
    if source == "compact":
        return CallKind.COMPACTION
    if source.startswith("auto_mode"):
        return CallKind.SAFETY
    return CallKind.TITLE if source in _TITLES else CallKind.SIDE


def _usage(record: LogRecord) -> Usage:
    written = _tokens(record, "cache_creation_tokens")
    hour = min(_tokens(record, "cache_creation_1h_tokens"), written)
    # Where versions do not tell how long it is kept, the usual five minutes are taken.
    told = record.get("cache_creation_1h_tokens") is not None or record.get("cache_creation_5m_tokens") is not None
    return Usage(
        input_tokens=_tokens(record, "input_tokens"),
        output_tokens=_tokens(record, "output_tokens"),
        cache_read_tokens=_tokens(record, "cache_read_tokens"),
        cache_write_5m_tokens=written - hour,
        cache_write_1h_tokens=hour,
        estimated=bool(written) and not told,
    )


# ------------------------------------------------------------------ values


def _tokens(record: LogRecord, name: str) -> int:
    return _number(record, name, _MOST_TOKENS)


def _number(record: LogRecord, name: str, most: int) -> int:
    value = record.get(name)
    if value is None:
        return 0
    found = _whole(value)
    if found is None or not 0 <= found <= most:
        raise BadEvent(f"{name} is no number from 0 to {most}")
    return found


def _whole(value: Scalar | None) -> int | None:
    match value:
        case bool() | None:
            return None
        case int():
            return value
        case float():
            return int(value) if value.is_integer() else None
        case str():
            return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None


def _text(record: LogRecord, name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        return ""
    if len(value) > _LONGEST or not value.isprintable():
        raise BadEvent(f"{name} is longer than {_LONGEST} characters, or has some that cannot be printed")
    return value


def _name(record: LogRecord, name: str) -> str:
    """As `_text`, of what no call is told from others by: it is left out where it cannot be kept."""
    try:
        return _text(record, name)
    except BadEvent:
        return ""


def _moment_ms(record: LogRecord) -> int:
    """When it happened: the record's own time, else what Claude Code says."""
    found = record.time_ns // 1_000_000
    if not found and isinstance(told := record.get("event.timestamp"), str):
        try:
            found = int(datetime.fromisoformat(told).timestamp() * 1000)
        except (ValueError, OverflowError, OSError):
            found = 0
    if found < _EARLIEST_MS:
        raise BadEvent("it does not say when it was")
    return found
