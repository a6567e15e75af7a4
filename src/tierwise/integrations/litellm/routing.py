"""`TierRouting`: tierwise chooses the tier, LiteLLM's router the deployment; what LiteLLM says of it is recorded.

It is a callback of LiteLLM's, in two of its seams. `async_filter_deployments` is asked with the deployments of a model
group that are well (those that cool down are not among them), and leaves those of one tier; which of them it is stays
with LiteLLM's own strategy. The logging events tell what became of each attempt.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

from tierwise.core.catalog import Tier
from tierwise.core.decisions import Reason
from tierwise.core.errors import ConfigError, TierwiseError
from tierwise.core.settings import Settings
from tierwise.gateway.incoming import BadRequest, Incoming
from tierwise.integrations.litellm.desk import Desk
from tierwise.integrations.litellm.events import CALL_TYPES, attempt_of, metadata_of, request_of, tier_name_of, trace_of
from tierwise.integrations.litellm.failures import PROVIDER, refused
from tierwise.integrations.litellm.provider import TierwiseLLM
from tierwise.integrations.options import CallOptions, current_options
from tierwise.integrations.records import ForeignAttempt, Records, Routed
from tierwise.ledger import Ledger

__all__ = ["TierRouting", "tier_routing"]

_ASYNC_ONLY = (
    "the model group {group!r} is routed by tierwise, which LiteLLM's synchronous methods do not ask; use acompletion, "
    "or the provider: model='tierwise/auto'"
)


_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:@/ -]")


class TierRouting(CustomLogger):
    """Routes model groups of LiteLLM's router by tier, and records every chat call that goes through LiteLLM.

        litellm.callbacks = [TierRouting(groups=["auto"])]

    A group's deployments are of the tier that their `model_info` names (`{"tierwise_tier": "haiku"}`), or of the one
    that their model has in tierwise's configuration. A request goes to the lowest tier that is good enough for it and
    has a deployment that is well; after a failure to another deployment of that tier, and then up. Where no such tier
    is left, LiteLLM says that there is no deployment, and its `fallbacks` are next.

    What `tierwise.call_options` says holds, but for checks; so do the `x-tierwise-*` headers of a proxy's clients.

    Args:
        groups: the model groups that are routed; `gateway.routed_models` of the configuration when None.
        settings: the configuration; read from tierwise.toml and the environment by the first call when None.
        ledger: where calls are recorded; the configured one when None.
    """

    def __init__(
        self,
        *,
        groups: Iterable[str] | None = None,
        settings: Settings | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__()
        if isinstance(groups, str):
            raise ConfigError(f"groups is {groups!r}; give a list of model groups: groups=[{groups!r}]")
        self._groups = None if groups is None else frozenset(groups)
        self._settings = settings
        self._ledger = ledger
        self._lock = threading.Lock()
        self._made: Desk | None = None

    def close(self) -> None:
        """Writes what waits to be recorded. Goes on with the next call."""
        with self._lock:
            desk, self._made = self._made, None
        if desk is not None:
            desk.close()

    # ------------------------------------------------------------------ choosing

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[Any],
        messages: list[Any] | None,
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,
    ) -> list[Any]:
        """The deployments of a group that a request may go to."""
        desk = await self._desk_async()
        if not self._routes(model):
            return healthy_deployments
        request = request_kwargs if request_kwargs is not None else {}
        try:
            return await desk.begin(
                _chosen(desk.records, model, healthy_deployments, messages, request=request, options=current_options())
            )
        except (TierwiseError, BadRequest) as error:
            raise refused(error, model) from error

    def pre_call_check(self, deployment: Mapping[str, Any]) -> Any:
        """LiteLLM's synchronous way asks nobody but this: what it picked is of any tier."""
        group = deployment.get("model_name")
        if self._routes(group):
            raise litellm.BadRequestError(
                message=_ASYNC_ONLY.format(group=group), model=str(group), llm_provider=PROVIDER
            )

    # ------------------------------------------------------------------ recording

    async def async_log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """An attempt was answered; of a stream, to its end."""
        await self._record(_Told(kwargs, response_obj, start_time, end_time, failed=False))

    async def async_log_failure_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """An attempt failed."""
        await self._record(_Told(kwargs, response_obj, start_time, end_time, failed=True))

    def log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """An attempt of a synchronous call was answered."""
        self._record_waiting(_Told(kwargs, response_obj, start_time, end_time, failed=False))

    def log_failure_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """An attempt of a synchronous call failed."""
        self._record_waiting(_Told(kwargs, response_obj, start_time, end_time, failed=True))

    async def _record(self, told: _Told) -> None:
        """LiteLLM tells of an attempt once, as a rule while the caller's loop ends: it is recorded all the same."""
        if not told.counts:
            return
        try:
            desk = await self._desk_async()
        except asyncio.CancelledError:
            self._record_waiting(told)
            raise
        await asyncio.shield(asyncio.wrap_future(_handed(desk, told)))

    def _record_waiting(self, told: _Told) -> None:
        if told.counts:
            _handed(self._desk(), told).result()

    # ------------------------------------------------------------------ what both need

    async def _desk_async(self) -> Desk:
        desk = self._made
        if desk is None or desk.process != os.getpid():
            desk = await asyncio.to_thread(self._desk)  # which reads files
        return desk

    def _desk(self) -> Desk:
        settings = self._configured()
        with self._lock:
            if self._made is None or self._made.process != os.getpid():
                self._made = Desk(settings, ledger=self._ledger)
            return self._made

    def _configured(self) -> Settings:
        with self._lock:
            if self._settings is None:
                from tierwise.config import load_settings  # noqa: PLC0415  pydantic: when there is a file to read

                self._settings = load_settings()
            return self._settings

    def _routes(self, group: Any) -> bool:
        groups = self._groups
        return group in (self._configured().gateway.routed_models if groups is None else groups)


tier_routing = TierRouting()
"""With the configuration that is found, for a proxy: `callbacks: tierwise.integrations.litellm.tier_routing`."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What LiteLLM tells of an attempt that ended."""

    about: Mapping[str, Any]
    response: Any
    start: datetime
    end: datetime
    failed: bool

    @property
    def counts(self) -> bool:
        """Whether it is to be recorded: a chat call that was sent, and not by tierwise itself."""
        if self.about.get("call_type") not in CALL_TYPES or self.about.get("cache_hit") is True:
            return False
        return not _is_ours(self.about.get("custom_llm_provider"))

    def attempt(self) -> ForeignAttempt:
        """The attempt."""
        return attempt_of(self.about, self.response, self.start, self.end, failed=self.failed)

    def incoming(self) -> Incoming:
        """The request that it was made for, where that was not decided here."""
        model, messages = str(self.about.get("model")), self.about.get("messages")
        params = self.about.get("litellm_params") or {}
        try:
            return request_of(model, messages, params, current_options(), project=_project(metadata_of(params)))
        except BadRequest:  # a client's header that cannot be read: it was sent all the same
            return request_of(model, messages, {}, CallOptions())


def _handed(desk: Desk, told: _Told) -> concurrent.futures.Future[None]:
    attempt = told.attempt()
    known = desk.records.knows(attempt.call_id)
    return desk.record(desk.records.record(attempt, None if known else told.incoming()))


@dataclass(frozen=True, slots=True)
class _Place:
    """A deployment that is well."""

    deployment: Any
    id: str
    tier: Tier
    is_planned: bool  # of the very model that was decided for


async def _chosen(
    records: Records,
    group: str,
    deployments: Sequence[Any],
    messages: Any,
    *,
    request: Mapping[str, Any],
    options: CallOptions,
) -> list[Any]:
    """Raises `TierwiseError` or `BadRequest` where it can go nowhere."""
    metadata = metadata_of(request)
    trace = trace_of(request)
    routed = records.again(metadata.get("tierwise"), trace)
    if routed is None:
        incoming = request_of(
            records.settings.gateway.routed_models[0], messages, request, options, project=_project(metadata)
        )
        routed = await records.decide(incoming, trace)
        metadata["tierwise"] = routed.told
    failed = frozenset(
        str(before.get("deployment_id"))
        for before in metadata.get("previous_models") or ()
        if isinstance(before, Mapping)
    )
    left = _left([_place(records, group, routed, one) for one in deployments], routed, failed)
    if not left:
        wanted = ", ".join(tier.name for tier in routed.tiers)
        await records.not_run(routed, f"LiteLLM has no deployment in {group!r} that is well and of one of: {wanted}")
    return left


def _place(records: Records, group: str, routed: Routed, deployment: Mapping[str, Any]) -> _Place:
    info, params = deployment.get("model_info") or {}, deployment.get("litellm_params") or {}
    model, named = str(params.get("model")), tier_name_of(info)
    tier = records.tier_of(model, named)
    if tier is None:
        raise ConfigError(
            f"the deployment {model!r} of the group {group!r} is of no tier; add `model_info: {{tierwise_tier: …}}` to "
            "it, or its model to a tier in tierwise.toml"
        )
    return _Place(deployment, str(info.get("id")), tier, records.model_id(model) in routed.models)


def _left(places: Sequence[_Place], routed: Routed, failed: frozenset[str]) -> list[Any]:
    """The deployments of the first tier that has any; those that failed this request last, and none of another tier."""
    for fresh in (True, False):
        for tier in routed.tiers:
            there = [place for place in places if place.tier == tier and not (fresh and place.id in failed)]
            if not there:
                continue
            if tier != routed.tiers[0]:
                why = f"LiteLLM has no other deployment of {routed.tiers[0]} that is well: {tier}"
                routed.note(Reason("availability", why))
            planned = [place for place in there if place.is_planned]
            return [place.deployment for place in planned or there]
    return []


def _project(metadata: Mapping[str, Any]) -> str | None:
    """A proxy's team or key, by its name, where they have one."""
    for name in ("user_api_key_team_alias", "user_api_key_alias"):
        found = metadata.get(name)
        if isinstance(found, str) and found:
            return _NOT_IN_A_NAME.sub("_", found)[:128]
    return None


def _is_ours(provider: Any) -> bool:
    return any(
        item.get("provider") == provider and isinstance(item.get("custom_handler"), TierwiseLLM)
        for item in litellm.custom_provider_map
    )
