"""An agent that asks tierwise's MCP server where each piece of work belongs, and what all of it cost.

    pip install 'tierwise[anthropic,mcp]'
    ANTHROPIC_API_KEY=… python examples/mcp_agent.py

Any MCP client can ask; here it is the SDK's. The calls themselves go through a wrapped client, which records them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import anthropic
from mcp import Client, StdioServerParameters, stdio_client

import tierwise

SERVER = StdioServerParameters(command=sys.executable, args=["-m", "tierwise", "mcp"], env=dict(os.environ))
WORK = (
    "Summarise this ticket in one line: the printer on floor 2 burns, again",
    "Write a short story about a lighthouse keeper who collects storms",
    "Is this indemnity clause enforceable under German law? We sign tomorrow.",
)


async def ask(agent: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """What a tool of the server answers."""
    answer = await agent.call_tool(tool, arguments)
    return answer.structured_content


async def main() -> None:
    """Asks, does, and asks for the bill."""
    models = tierwise.wrap(anthropic.AsyncAnthropic())
    async with Client(stdio_client(SERVER)) as agent:
        for task in WORK:
            where = await ask(agent, "route", task=task, min_tier="haiku")
            with tierwise.call_options(project="example"):
                await models.messages.create(
                    model=where["model"], max_tokens=500, messages=[{"role": "user", "content": task}]
                )
            print(f"{where['model']}: {where['reasons'][-1]}")
        bill = await ask(agent, "report", project="example", by=["model"])
        print(f"{bill['total']['calls']} calls, {bill['total']['cost_usd']} US$")


if __name__ == "__main__":
    asyncio.run(main())
