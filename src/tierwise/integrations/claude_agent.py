"""The Claude Agent SDK: it runs Claude Code as a program, which is told by its environment where the API is."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tierwise.core.errors import InvalidTask
from tierwise.core.settings import Settings
from tierwise.integrations.listening import SECRET_HEADER, ListeningGateway
from tierwise.integrations.options import current_options

if TYPE_CHECKING:
    from tierwise.ledger import Ledger

__all__ = ["wrap_options"]

_lock = threading.Lock()
_gateways: list[ListeningGateway] = []


def wrap_options(options: Any, settings: Settings, ledger: Ledger | None) -> Any:
    """`ClaudeAgentOptions` like these, with the gateway in the place of the API.

    What `call_options` says here holds for all that the agent does.

    Raises:
        InvalidTask: a check, which cannot be told to another program.
    """
    said = current_options()
    if said.checks:
        raise InvalidTask(
            "a check cannot be given to Claude Code, which is another program; give it with a client's calls"
        )
    gateway = _gateway(settings, ledger)
    headers = {SECRET_HEADER: gateway.secret, **said.headers()}
    before = options.env.get("ANTHROPIC_CUSTOM_HEADERS")
    lines = [*([before] if before else []), *(f"{name}: {text}" for name, text in headers.items())]
    env = {**options.env, "ANTHROPIC_BASE_URL": gateway.url, "ANTHROPIC_CUSTOM_HEADERS": "\n".join(lines)}
    return replace(options, env=env)


def _gateway(settings: Settings, ledger: Ledger | None) -> ListeningGateway:
    """One for all agents that are alike in their configuration."""
    if ledger is not None:
        return ListeningGateway(settings, ledger=ledger)
    with _lock:
        for found in _gateways:
            if found.settings == settings and not found.closed:
                return found
        made = ListeningGateway(settings)
        _gateways.append(made)
    return made
