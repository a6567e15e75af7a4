"""What a provider is: takes an Anthropic Messages request for one model, gives back a reply or raises.

A provider makes exactly one attempt: no retries, no routing, no checks. Whatever was used when it failed is on
the exception, because failed attempts cost money too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tierwise.core.catalog import Model
from tierwise.core.decisions import OutcomeKind
from tierwise.core.errors import ProviderError
from tierwise.core.json import JsonObject
from tierwise.core.money import Usage

if TYPE_CHECKING:
    import asyncio  # 20 ms that only the words of a signature need

__all__ = [
    "Availability",
    "ModelRequest",
    "Provider",
    "ProviderFailure",
    "Reply",
    "note_spent",
    "spent_before_cancel",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One attempt. `body` is an Anthropic Messages request already adapted to `model` (`tierwise.wire.adapt`)."""

    model: Model
    body: JsonObject
    timeout_seconds: float | None = None  # for the whole attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A complete answer, as an Anthropic message.

    `stop_reason` is Anthropic's (end_turn, max_tokens, tool_use, refusal, …). `text` is all text blocks joined.
    """

    message: JsonObject
    text: str
    stop_reason: str | None
    usage: Usage
    model: str  # as the provider reports it
    request_id: str | None = None
    ttft_ms: int | None = None
    latency_ms: int = 0
    rate_limits: dict[str, str] = field(default_factory=dict)  # anthropic-ratelimit-* headers, as they came


class ProviderFailure(ProviderError):
    """One attempt failed.

    `kind` says what that means for the climb. `usage` is what had been used (a cut stream's input was billed);
    None where nothing was sent or nothing is known to have been billed. The message is for whoever made the call;
    `note` is what may be recorded: an upstream's own words can quote the prompt, so they are not in it.
    """

    def __init__(
        self,
        kind: OutcomeKind,
        message: str,
        *,
        usage: Usage | None = None,
        retry_after_seconds: float | None = None,
        status: int | None = None,
        request_id: str | None = None,
        ttft_ms: int | None = None,
        note: str | None = None,
    ) -> None:
        super().__init__(message)
        self.note = message if note is None else note
        self.kind = kind
        self.usage = usage
        self.retry_after_seconds = retry_after_seconds
        self.status = status
        self.request_id = request_id
        self.ttft_ms = ttft_ms


def note_spent(cancelled: asyncio.CancelledError, usage: Usage | None) -> None:
    """Write on a cancellation what the attempt had used: a cancelled answer is billed up to where it got."""
    if usage is not None:
        cancelled.tierwise_usage = usage  # type: ignore[attr-defined] # the one thing that travels with it


def spent_before_cancel(cancelled: BaseException) -> Usage | None:
    """What a cancelled attempt had used, for the record; None where nothing is known to have been billed."""
    usage = getattr(cancelled, "tierwise_usage", None)
    return usage if isinstance(usage, Usage) else None


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a provider can serve a model now; `detail` says why not and what to do."""

    ok: bool
    detail: str = ""


class Provider(Protocol):
    """The interface that entry points of group `tierwise.providers` build.

    An entry point is a callable `build(settings: ProviderSettings) -> Provider`. Building opens no connection and
    starts no process.
    """

    async def send(self, request: ModelRequest) -> Reply:
        """Make one attempt.

        Raises:
            ProviderFailure: the attempt failed; `.kind` and `.usage` say how and what it used.
            asyncio.CancelledError: the upstream request is closed before this propagates.
        """
        ...

    async def check(self, model: Model) -> Availability:
        """Whether `model` can be served now: cheap (under a second), sends no prompt, costs nothing."""
        ...

    async def aclose(self) -> None:
        """Close connections and stop what was started."""
        ...
