"""tierwise sends each piece of an agent's work to the cheapest model tier that does it well.

Short forms for scripts:

    from tierwise import Tier, classify, dispatch_tool, get_model, route, run_subtask

    classify("Summarise this ticket in one line")       # Tier(level=0, name='local')
    route("Review this contract clause for liability")   # (Tier(level=3, name='opus'), 'claude-opus-5-5')
    run_subtask("summarise a support ticket", prompt)    # the answer, recorded in the ledger

Everything else goes through `Router` (synchronous) or `AsyncRouter`.

Importing this module costs nothing: no file, environment variable or socket is touched before something is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tierwise.api import (
        TOOL_TIER_OVERRIDES,
        adispatch_tool,
        classify,
        dispatch_tool,
        get_model,
        route,
        run_subtask,
    )
    from tierwise.config import load_settings
    from tierwise.core.catalog import Tier
    from tierwise.core.decisions import AttemptRecord, Decision, OutcomeKind, Reason
    from tierwise.core.errors import (
        ConfigError,
        CostCeilingExceeded,
        DeadlineExceeded,
        InvalidTask,
        LadderExhausted,
        LedgerCorrupt,
        LedgerError,
        LedgerTooNew,
        LedgerUnavailable,
        NoRouteError,
        NotRun,
        ProviderError,
        RequestRefusedByProvider,
        RunError,
        TierwiseError,
        UnknownModel,
        UnknownTaskType,
        UnknownTier,
        UnpricedModel,
    )
    from tierwise.core.money import Price, Usage
    from tierwise.core.settings import Settings
    from tierwise.core.tasks import Classification, Needs, Stakes, Task, TaskType
    from tierwise.engine.result import Result
    from tierwise.engine.router import AsyncRouter
    from tierwise.engine.sync import Router
    from tierwise.integrations.batches import BatchVerdict, judge_batch
    from tierwise.integrations.options import call_options
    from tierwise.integrations.sdk import wrap
    from tierwise.integrations.tools import Toolbox, model_tool
    from tierwise.ledger import Ledger

_WHERE = {
    "tierwise.api": (
        "TOOL_TIER_OVERRIDES",
        "adispatch_tool",
        "classify",
        "dispatch_tool",
        "get_model",
        "route",
        "run_subtask",
    ),
    "tierwise.config": ("load_settings",),
    "tierwise.core.catalog": ("Tier",),
    "tierwise.core.decisions": ("AttemptRecord", "Decision", "OutcomeKind", "Reason"),
    "tierwise.core.errors": (
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
    ),
    "tierwise.core.money": ("Price", "Usage"),
    "tierwise.core.settings": ("Settings",),
    "tierwise.core.tasks": ("Classification", "Needs", "Stakes", "Task", "TaskType"),
    "tierwise.engine.result": ("Result",),
    "tierwise.engine.router": ("AsyncRouter",),
    "tierwise.engine.sync": ("Router",),
    "tierwise.integrations.batches": ("BatchVerdict", "judge_batch"),
    "tierwise.integrations.options": ("call_options",),
    "tierwise.integrations.sdk": ("wrap",),
    "tierwise.integrations.tools": ("Toolbox", "model_tool"),
    "tierwise.ledger": ("Ledger",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "TOOL_TIER_OVERRIDES",
    "AsyncRouter",
    "AttemptRecord",
    "BatchVerdict",
    "Classification",
    "ConfigError",
    "CostCeilingExceeded",
    "DeadlineExceeded",
    "Decision",
    "InvalidTask",
    "LadderExhausted",
    "Ledger",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerTooNew",
    "LedgerUnavailable",
    "Needs",
    "NoRouteError",
    "NotRun",
    "OutcomeKind",
    "Price",
    "ProviderError",
    "Reason",
    "RequestRefusedByProvider",
    "Result",
    "Router",
    "RunError",
    "Settings",
    "Stakes",
    "Task",
    "TaskType",
    "Tier",
    "TierwiseError",
    "Toolbox",
    "UnknownModel",
    "UnknownTaskType",
    "UnknownTier",
    "UnpricedModel",
    "Usage",
    "adispatch_tool",
    "call_options",
    "classify",
    "dispatch_tool",
    "get_model",
    "judge_batch",
    "load_settings",
    "model_tool",
    "route",
    "run_subtask",
    "wrap",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'tierwise' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    value = getattr(import_module(module), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
