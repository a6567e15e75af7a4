"""The programs in `examples/` run as they are, without a key, over the stand-in."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tierwise.ledger import Ledger
from tierwise.testing import StandInUpstream

EXAMPLES = Path(__file__).parents[2] / "examples"
# What each needs, and what it prints of the models that it was sent to.
RUNS = {
    "anthropic_batch.py": ("anthropic", "ticket-1 [claude-sonnet-5-5] fine"),
    "anthropic_sdk.py": ("anthropic", "[claude-haiku-5-5]"),
    "litellm_tiers.py": ("litellm", "[claude-haiku-5-5]"),
    "langgraph_tiers.py": ("langgraph", "claude-haiku-5-5 → claude-sonnet-5-5 → claude-opus-5-5"),
    "llama_index_agent.py": ("llama_index", "Reply, by claude-"),
    "mcp_agent.py": ("mcp", "3 calls, 0.0"),
    "pydantic_ai_agents.py": ("pydantic_ai", "claude-haiku-5-5 → claude-sonnet-5-5 → claude-opus-5-5 for 0."),
}


@pytest.mark.parametrize("name", RUNS)
def test_example_runs(name: str, tmp_path: Path) -> None:
    """An example runs to its end, goes where it says that it goes, and is recorded."""
    needs, said = RUNS[name]
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed: pip install -r requirements/dev.txt")
    ledger = tmp_path / "ledger.db"
    with StandInUpstream() as upstream:
        if name == "anthropic_sdk.py":
            upstream.reply("damage")
        if name == "anthropic_batch.py":
            for answer in ("damage", "It is late.", "delivery"):
                upstream.reply(answer)
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name)],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "HOME": str(tmp_path),
                "ANTHROPIC_BASE_URL": upstream.url,
                "ANTHROPIC_API_KEY": "sk-ant-example",
                "TIERWISE_LEDGER": str(ledger),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network for prices
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    with Ledger(ledger) as recorded:
        calls = list(recorded.calls())
    assert {found.call.project for found in calls} == {"example"}
    batches = [one.json for one in upstream.calls("/v1/messages/batches") if isinstance(one.json, dict)]
    assert len(calls) == len(upstream.calls()) + sum(len(batch["requests"]) for batch in batches) == 3


def test_every_example_is_run() -> None:
    """No program in `examples/` is left out."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS)
