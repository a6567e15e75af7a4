"""The real Claude Code CLI, and the stand-in for the API that it talks to without a gateway between them."""

from __future__ import annotations

from tests.clients.conftest import claude, home, upstream

__all__ = ["claude", "home", "upstream"]  # fixtures of the clients' own tests
