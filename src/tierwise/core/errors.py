"""The exception tree.

    TierwiseError
    ├── ConfigError            tierwise.toml or the environment says something that cannot be
    ├── InvalidTask            the task handed in cannot be worked with (empty, wrong type, unencodable, …)
    ├── UnknownTier            a tier name that the configuration does not have
    ├── UnknownModel           a model id that the configuration does not have
    ├── UnknownTaskType        a task type that neither the taxonomy nor the configuration has
    ├── UnpricedModel          no price is known for a model on that date, so no cost can be promised
    ├── NoRouteError           no model may or can take this task; says which were ruled out and why
    ├── RunError               a task was attempted and has no acceptable answer; `.call_id` names its record
    │   ├── NotRun             nothing was sent: no API key, or no model reachable
    │   ├── CostCeilingExceeded
    │   ├── DeadlineExceeded
    │   ├── LadderExhausted    every rung was tried and every reply was rejected or failed
    │   └── RequestRefusedByProvider   401, 403, 400: trying again would not help
    ├── ProviderError          one attempt failed on the wire (the engine turns these into outcomes)
    └── LedgerError
        ├── LedgerCorrupt      the file is not a database, or is damaged
        ├── LedgerTooNew       written by a newer tierwise
        └── LedgerUnavailable  locked, full disk, no permission; the row waits in the spool

Messages say what, where and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierwise.core.decisions import AttemptRecord, Decision

__all__ = [
    "ConfigError",
    "CostCeilingExceeded",
    "DeadlineExceeded",
    "InvalidTask",
    "LadderExhausted",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerTooNew",
    "LedgerUnavailable",
    "NoRouteError",
    "NotRun",
    "ProviderError",
    "RequestRefusedByProvider",
    "RunError",
    "TierwiseError",
    "UnknownModel",
    "UnknownTaskType",
    "UnknownTier",
    "UnpricedModel",
]


class TierwiseError(Exception):
    """Base of everything tierwise raises on purpose."""


class ConfigError(TierwiseError):
    """The configuration cannot be used; the message names the file, the key and the allowed values."""


class InvalidTask(TierwiseError, ValueError):
    """The task itself cannot be worked with."""


class UnknownTier(TierwiseError, LookupError):
    """A tier name that is not configured."""


class UnknownModel(TierwiseError, LookupError):
    """A model id that is not configured."""


class UnknownTaskType(TierwiseError, LookupError):
    """A task type that is neither built in nor configured."""


class UnpricedModel(TierwiseError, LookupError):
    """No price is known, so the model is never silently free."""


class NoRouteError(TierwiseError):
    """Every model was ruled out; the message lists each with its reason."""


class RunError(TierwiseError):
    """A task that was taken on has no acceptable answer.

    `call_id` is the ledger's record of it: whatever was spent on the way is there. `attempts` are the same rows,
    and `decision` the plan, for whoever wants to show them.
    """

    def __init__(
        self,
        message: str,
        *,
        call_id: str = "",
        attempts: tuple[AttemptRecord, ...] = (),
        decision: Decision | None = None,
    ) -> None:
        super().__init__(message)
        self.call_id = call_id
        self.attempts = attempts
        self.decision = decision


class NotRun(RunError):
    """Nothing was sent."""


class CostCeilingExceeded(RunError):
    """Going on would have cost more than allowed."""


class DeadlineExceeded(RunError):
    """Going on would have taken longer than allowed."""


class LadderExhausted(RunError):
    """Every rung was tried."""


class RequestRefusedByProvider(RunError):
    """The provider refuses the request itself (credentials, malformed request)."""


class ProviderError(TierwiseError):
    """One attempt failed on the wire; providers raise `tierwise.providers.base.ProviderFailure`."""


class LedgerError(TierwiseError):
    """The ledger could not do what was asked."""


class LedgerCorrupt(LedgerError):
    """The ledger file is damaged or not a database."""


class LedgerTooNew(LedgerError):
    """The ledger was written by a newer version."""


class LedgerUnavailable(LedgerError):
    """The ledger cannot be written right now."""
