"""A question of an index and an agent of LlamaIndex with one LLM: each call, and each step, goes where it belongs.

pip install 'tierwise[llama-index]'
ANTHROPIC_API_KEY=… python examples/llama_index_agent.py
"""

from __future__ import annotations

import asyncio

from llama_index.core import Document, PromptTemplate, SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent
from pydantic import BaseModel

from tierwise.integrations.llama_index import TierwiseLLM

TICKET = "The lamp of order 48213 arrived broken. I want a new one before Friday, or I will sue."
TERMS = [
    Document(text="We replace what arrives broken within 14 days."),
    Document(text="We pay no compensation for delay unless it was agreed in writing."),
]


class Topic(BaseModel):
    """What a ticket is about; an answer that is none is asked of the next model."""

    topic: str


def stock(article: str) -> str:
    """How many of an article are left."""
    return f"7 of {article} are left"


async def main() -> None:
    """Sorts a ticket, asks the terms, has an agent answer."""
    llm = TierwiseLLM(project="example")

    prompt = PromptTemplate("What is this ticket about?\n\n{ticket}")
    options = {"task": "classify a support ticket by topic", "max_tier": "haiku"}
    topic = await llm.astructured_predict(Topic, prompt, llm_kwargs=options, ticket=TICKET)
    print("Topic:", topic.topic)

    lawyer = TierwiseLLM(task="check a claim for legal liability", min_tier="opus", project="example")
    terms = SummaryIndex.from_documents(TERMS).as_query_engine(llm=lawyer)
    answer = await terms.aquery("What do we owe for a broken lamp, and for delay?")
    print("Terms:", answer)

    agent = FunctionAgent(tools=[stock], llm=llm, system_prompt="Write a short reply to this customer.")
    reply = await agent.run(f"{TICKET}\n\nOur terms: {answer}")
    print(f"Reply, by {reply.raw['model']} for {reply.raw['tierwise']['cost_usd']} USD:", reply)


if __name__ == "__main__":
    asyncio.run(main())
