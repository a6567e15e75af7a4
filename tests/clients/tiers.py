"""On which models a test runs. The page docs/reference/client-support.md reads the same decorator."""

from __future__ import annotations

import pytest

AUTO = "claude-tierwise-auto"
IDS = {"haiku": "claude-haiku-5-5", "sonnet": "claude-sonnet-5-5", "opus": "claude-opus-5-5"}
EVERY = (*IDS, AUTO)


def on(*models: str) -> pytest.MarkDecorator:
    """Runs a test with each of these as `model`: aliases as Claude Code knows them, or the routed name."""
    return pytest.mark.parametrize("model", models)
