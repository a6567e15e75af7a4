"""Sessions to replay: written by hand, or grown as a client grows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.policy.worlds import classified, settings
from tierwise.core.calls import CallKind, ImportedCall, ImportedSession
from tierwise.core.catalog import Model
from tierwise.core.money import Usage
from tierwise.policy.outlook import HarderTurns
from tierwise.prices import PriceBook
from tierwise.replay import Escalation, Range, ReplayWorld, known_models, shipped_assumptions

SETTINGS = settings()
BOOK = PriceBook(SETTINGS.prices, SETTINGS.providers)
MODELS = known_models(SETTINGS)
NOON_MS = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp() * 1000)
LOCAL_MODELS = {model.id: "not installed" for model in MODELS if model.provider != "anthropic"}
MINUTE = 60


def model(model_id: str) -> Model:
    """A model of the shipped configuration."""
    return SETTINGS.catalog.model(model_id)[1]


HAIKU, SONNET, OPUS = model("claude-haiku-5-5"), model("claude-sonnet-5-5"), model("claude-opus-5-5")
OLD_HAIKU, OLD_SONNET = model("claude-haiku-4-5"), model("claude-sonnet-4-5")


def world(**changes: Any) -> ReplayWorld:
    """The shipped assumptions and prices; no local model."""
    given: dict[str, Any] = {"prices": BOOK, "models": MODELS, "unavailable": LOCAL_MODELS, **changes}
    return ReplayWorld(**given)


def plain(**changes: Any) -> ReplayWorld:
    """A world in which nothing is assumed: no escalation, answers of one length, no turn harder than the one before."""
    one = Range(1.0, 1.0, 1.0)
    assumed = replace(shipped_assumptions(), escalation=Escalation.never(), output_length=one, tokenizer_spread=one)
    return world(assumptions=assumed, **{"harder": HarderTurns(assumed=0.0), **changes})


def call(number: int = 0, *, seconds: float = 0.0, model: Model | str = OPUS, **fields: Any) -> ImportedCall:
    """A call, so many seconds after noon. Token classes may be given by name."""
    tokens = {name: fields.pop(name) for name in Usage.__slots__ if name in fields}
    given: dict[str, Any] = {
        "id": f"call-{number}",
        "at_ms": NOON_MS + round(seconds * 1000),
        "session": "s",
        "model": model if isinstance(model, str) else model.id,
        "usage": Usage(**tokens),
        "classification": classified("code_generation"),
        **fields,
    }
    return ImportedCall(**given)


def session(*calls: ImportedCall) -> ImportedSession:
    """One session of these calls."""
    return ImportedSession(id="s", source="test", calls=calls)


def grown(
    turns: Sequence[tuple[float, int, int]],
    *,
    hour: bool = True,
    model: Model | str = OPUS,
    task_type: str = "code_generation",
    asks: Sequence[int] = (0,),
    **fields: Any,
) -> list[ImportedCall]:
    """A conversation as the provider of its model would count it.

    `turns` are (seconds, tokens that are new in the prompt, tokens of the answer); `asks` says which begin with
    something that a person said. All but the new tokens is read where the cache still lives.
    """
    calls = []
    prompt, before = 0, None
    alive = 3_600 if hour else 300
    for number, (seconds, new, output) in enumerate(turns):
        warm = prompt if before is not None and seconds - before < alive else 0
        prompt += new
        written = prompt - warm
        calls.append(
            call(
                number,
                seconds=seconds,
                model=model,
                cache_read_tokens=warm,
                cache_write_1h_tokens=written if hour else 0,
                cache_write_5m_tokens=0 if hour else written,
                output_tokens=output,
                in_tool_loop=number not in asks,
                classification=classified(task_type),
                **fields,
            )
        )
        before = seconds
    return calls


def agent(calls: Sequence[ImportedCall], name: str, kind: str = "Explore") -> list[ImportedCall]:
    """The same calls by a subagent."""
    return [replace(one, id=f"{name}-{one.id}", agent=name, agent_type=kind, kind=CallKind.SUBAGENT) for one in calls]
