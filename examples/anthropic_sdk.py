"""An agent loop with Anthropic's SDK, of which one line is tierwise's. Each call goes where it belongs.

pip install 'tierwise[anthropic]'
ANTHROPIC_API_KEY=… python examples/anthropic_sdk.py
"""

from __future__ import annotations

import anthropic

import tierwise

TICKET = "The lamp of order 48213 arrived broken. I want a new one before Friday, or my money back."


def one_word(text: str) -> bool:
    """What the topic must be; an answer that is not is asked of the next model."""
    return len(text.split()) == 1


def ask(client: anthropic.Anthropic, prompt: str) -> str:
    """As it was before tierwise, but for the name of the model."""
    message = client.messages.create(
        model="claude-tierwise-auto", max_tokens=500, messages=[{"role": "user", "content": f"{prompt}\n\n{TICKET}"}]
    )
    print(f"[{message.model}]", end=" ")
    return "".join(block.text for block in message.content if block.type == "text")


def main() -> None:
    """Classifies, summarises, answers."""
    client = tierwise.wrap(anthropic.Anthropic())  # the one line

    with tierwise.call_options(project="example", check=one_word):
        print(ask(client, "Classify this ticket by topic. One word: delivery, damage, billing, or other."))
    with tierwise.call_options(project="example"):
        print(ask(client, "Summarise this ticket in one line."))
        print(ask(client, "Write a reply to this customer, and weigh what we owe them by law."))


if __name__ == "__main__":
    main()
