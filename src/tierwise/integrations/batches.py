"""`judge_batch`: which results of a batch are good enough, and what to send again, one tier up.

Within a batch there is no second try: when an answer is seen, the batch is over. So climbing is the caller's step,
taken where he sees it: judge the results, send what came back as `again` as the next batch. Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, cast

from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import InvalidTask
from tierwise.core.json import JsonObject
from tierwise.core.settings import Settings
from tierwise.engine.checks import UserCheck, check_message, run_user_checks
from tierwise.wire.anthropic import message_text

__all__ = ["BatchVerdict", "judge_batch"]


@dataclass(frozen=True, slots=True)
class BatchVerdict:
    """What became of one request of a batch.

    `again` is the request to send next: one tier up where an answer was refused, as it was where none came. It is None
    where the answer is accepted, and where sending it again would not help: no tier is above, the request is wrong, it
    was cancelled, or its model was asked for by name.
    """

    custom_id: str
    accepted: bool
    why: str = ""  # it is not
    model: str | None = None  # that answered
    again: Any = None  # as `messages.batches.create` takes it


def judge_batch(
    requests: Iterable[Any],
    results: Iterable[Any],
    *,
    check: UserCheck | Sequence[UserCheck] | None = None,
    route: Iterable[str] = (),
    settings: Settings | None = None,
) -> list[BatchVerdict]:
    """What became of each request of a batch, in the order of `requests`, and what to send again.

        verdicts = tierwise.judge_batch(requests, client.messages.batches.results(batch.id), check=one_line)
        again = [verdict.again for verdict in verdicts if verdict.again is not None]

    An answer is judged like that of a single call: it must not be empty, refused or cut off by the model, must fit the
    request's schema and its tools' schemas, and must pass your own checks.

    Args:
        requests: what the batch was made of.
        results: of the batch, as the SDK gives them, in any order; those of other requests are left out.
        check: as in `call_options`.
        route: as in `wrap`: models that are routed too.
        settings: the configuration, whose tiers are climbed; read from tierwise.toml and the environment when None.

    Raises:
        InvalidTask: a check that is no plain function.
        ConfigError: a configuration that cannot be used.
    """
    checks = () if check is None else (check,) if callable(check) else tuple(check)
    for one in checks:
        if not callable(one) or iscoroutinefunction(one):
            raise InvalidTask(f"check is {type(one).__name__}; give a plain function that takes the answer's text")
    if settings is None:
        from tierwise.config import load_settings  # noqa: PLC0415  pydantic: only when there is a file to read

        settings = load_settings()
    routed = frozenset({*settings.gateway.routed_models, *route})
    found = {str(plain.get("custom_id")): plain.get("result") for plain in map(_plain, results)}
    return [_verdict(_plain(request), found, checks, routed, settings) for request in requests]


def _plain(value: Any) -> JsonObject:
    """A request or result as JSON, whether it is the SDK's model or a dict."""
    told = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return cast("JsonObject", dict(told))


def _verdict(
    request: JsonObject,
    results: Mapping[str, Any],
    checks: Sequence[UserCheck],
    routed: Collection[str],
    settings: Settings,
) -> BatchVerdict:
    name, params = str(request.get("custom_id")), cast("JsonObject", request.get("params"))
    match results.get(name):
        case {"type": "succeeded", "message": dict(message)}:
            model = message.get("model")
            checked = check_message(message, params)
            if checked.kind is OutcomeKind.ACCEPTED and message.get("stop_reason") != "tool_use":
                checked = run_user_checks(message_text(message), checks) or checked
            if checked.kind is OutcomeKind.ACCEPTED:
                return BatchVerdict(name, True, model=model)
            may_climb = params.get("model") in routed and isinstance(model, str)
            again = _one_up(request, settings, str(model)) if may_climb else None
            return BatchVerdict(name, False, checked.note or str(checked.kind), model, again)
        case {"type": "errored", "error": error}:
            kind = _kind(error)
            return BatchVerdict(name, False, f"error: {kind}", again=None if kind in _WRONG else request)
        case {"type": "expired"}:
            return BatchVerdict(name, False, "expired: the provider had not come to it within a day", again=request)
        case {"type": "canceled"}:
            return BatchVerdict(name, False, "the batch was cancelled")
        case _:
            return BatchVerdict(name, False, "no result of it was given")


_WRONG = frozenset({"invalid_request_error", "not_found_error", "request_too_large"})


def _kind(error: Any) -> str:
    match error:
        case {"type": "error", "error": {"type": str(told)}} | {"type": str(told)}:
            return told
        case _:
            return "unknown"


def _one_up(request: JsonObject, settings: Settings, model: str) -> JsonObject | None:
    """The request with the next tier above this model's as its floor; None where it must go to none.

    A floor that contradicts a ceiling, or that no model of the provider satisfies, has the whole next batch refused.
    """
    told = request.get("tierwise")
    said = told if isinstance(told, dict) else {}
    tiers = settings.catalog.tiers
    at = [at for at, spec in enumerate(tiers) for one in spec.models if model == one.id or _is_dated(model, one.id)]
    if not at:
        return None
    of_project = settings.gateway.projects.get(settings.project) if settings.project is not None else None
    ceilings = (said.get("max_tier") or settings.overrides.max_tier, of_project and of_project.max_tier)
    names = [spec.tier.name for spec in tiers]
    top = min([len(names) - 1, *(names.index(name) for name in ceilings if isinstance(name, str) and name in names)])
    upstream = settings.gateway.upstream
    above = (spec for spec in tiers[at[0] + 1 : top + 1] if any(one.provider == upstream for one in spec.models))
    floor = next(above, None)
    return None if floor is None else {**request, "tierwise": {**said, "min_tier": floor.tier.name}}


def _is_dated(model: str, name: str) -> bool:
    """Whether this is that model with its date: the API may answer with one."""
    head, _, day = model.rpartition("-")
    return head == name and len(day) == 8 and day.isdigit()
