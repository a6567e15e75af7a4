"""A LangGraph whose nodes have tiers of their own: triage is cheap, drafting is routed, the legal check is never cheap.

pip install 'tierwise[langchain]' langgraph
ANTHROPIC_API_KEY=… python examples/langgraph_tiers.py
"""

from __future__ import annotations

from typing import Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from tierwise.integrations.langchain import ChatTierwise

TICKET = "The lamp of order 48213 arrived broken. I want a new one before Friday, or I will sue."


class Ticket(TypedDict, total=False):
    """What the nodes hand on."""

    text: str
    topic: str
    draft: str
    answer: str
    models: list[str]


class Topic(BaseModel):
    """What triage finds out."""

    topic: Literal["legal", "other"]


triage = ChatTierwise(task="classify a support ticket by topic", max_tier="haiku", project="example")
writer = ChatTierwise(task="write a reply to a customer", project="example")
lawyer = ChatTierwise(task="check a letter for legal liability", min_tier="opus", project="example")


def find_topic(state: Ticket) -> Ticket:
    """Haiku at most; the answer is held to the schema before it is seen."""
    found = triage.with_structured_output(Topic, include_raw=True).invoke(f"What is this about?\n\n{state['text']}")
    return {"topic": found["parsed"].topic, "models": [found["raw"].response_metadata["model_name"]]}


def write(state: Ticket) -> Ticket:
    """Where it goes is tierwise's to say."""
    message = writer.invoke(f"Write a short reply.\n\n{state['text']}")
    return {"draft": message.text, "models": [*state["models"], message.response_metadata["model_name"]]}


def check(state: Ticket) -> Ticket:
    """Opus at least."""
    message = lawyer.invoke(f"Correct what could cost us in court; reply with the letter only.\n\n{state['draft']}")
    return {"answer": message.text, "models": [*state["models"], message.response_metadata["model_name"]]}


def main() -> None:
    """Runs the graph once."""
    graph = StateGraph(Ticket)
    graph.add_node("find_topic", find_topic)
    graph.add_node("write", write)
    graph.add_node("check", check)
    graph.add_edge(START, "find_topic")
    graph.add_edge("find_topic", "write")
    graph.add_conditional_edges("write", lambda state: "check" if state["topic"] == "legal" else END)
    graph.add_edge("check", END)

    done = graph.compile().invoke({"text": TICKET})
    print(" → ".join(done["models"]))
    print(done.get("answer") or done["draft"])


if __name__ == "__main__":
    main()
