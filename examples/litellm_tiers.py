"""A script with LiteLLM, of which two lines are tierwise's. Each call goes where it belongs, and tells what it cost.

pip install 'tierwise[litellm]'
ANTHROPIC_API_KEY=… python examples/litellm_tiers.py
"""

from __future__ import annotations

from typing import Any

import litellm
from pydantic import BaseModel

from tierwise.integrations.litellm import register

TICKET = "The lamp of order 48213 arrived broken. I want a new one before Friday, or my money back."


class Topic(BaseModel):
    """What the ticket is about; an answer that is not in this shape is asked of the next model."""

    topic: str


def ask(prompt: str, **given: Any) -> str:
    """As it was before tierwise, but for the name of the model."""
    messages = [{"role": "user", "content": f"{prompt}\n\n{TICKET}"}]
    response = litellm.completion(model="tierwise/auto", messages=messages, project="example", **given)
    print(f"[{response.model}] {response._hidden_params['response_cost']} US$:", end=" ")
    return str(response.choices[0].message.content)


def main() -> None:
    """Classifies, summarises, answers."""
    register()  # from here on, `tierwise/…` is one of LiteLLM's providers

    print(ask("Classify this ticket by topic.", response_format=Topic))
    print(ask("Summarise this ticket in one line."))
    print(ask("Write a reply to this customer, and weigh what we owe them by law.", min_tier="sonnet"))


if __name__ == "__main__":
    main()
