"""Three agents of Pydantic AI with one model: triage is cheap, drafting is routed, the legal check is never cheap.

pip install 'tierwise[pydantic-ai]'
ANTHROPIC_API_KEY=… python examples/pydantic_ai_agents.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, RunContext, RunUsage

from tierwise.integrations.pydantic_ai import TierwiseModel, TierwiseModelSettings

TICKET = "The lamp of order 48213 arrived broken. I want a new one before Friday, or I will sue."


class Topic(BaseModel):
    """What triage finds out; an answer that is none is asked of the next model."""

    topic: Literal["legal", "other"]


@dataclass
class Shop:
    """What the agents know of where they work."""

    lamps_left: int


model = TierwiseModel(settings=TierwiseModelSettings(tierwise_project="example"))
triage = Agent(
    model,
    output_type=Topic,
    instructions="What is this about?",
    model_settings=TierwiseModelSettings(tierwise_task="classify a support ticket by topic", tierwise_max_tier="haiku"),
)
writer = Agent(
    model,
    deps_type=Shop,
    instructions="Write a short reply to this customer.",
    model_settings=TierwiseModelSettings(tierwise_task="write a reply to a customer"),
)
lawyer = Agent(
    model,
    instructions="Correct what could cost us in court; reply with the letter only.",
    model_settings=TierwiseModelSettings(tierwise_task="check a letter for legal liability", tierwise_min_tier="opus"),
)


@writer.tool
def lamps_left(ctx: RunContext[Shop]) -> int:
    """How many lamps are left to replace a broken one."""
    return ctx.deps.lamps_left


def main() -> None:
    """Runs them one after the other."""
    usage = RunUsage()
    found = triage.run_sync(TICKET, usage=usage)
    draft = writer.run_sync(TICKET, deps=Shop(lamps_left=7), usage=usage)
    models, letter = [found.response.model_name, draft.response.model_name], draft.output
    if found.output.topic == "legal":
        checked = lawyer.run_sync(letter, usage=usage)
        models, letter = [*models, checked.response.model_name], checked.output
    print(" → ".join(str(name) for name in models), f"for {usage.cost} USD")
    print(letter)


if __name__ == "__main__":
    main()
