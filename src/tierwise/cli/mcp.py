"""`tierwise mcp`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from tierwise.cli.output import echo_json

__all__ = ["command"]


@click.command("mcp")
@click.option("--json", "as_json", is_flag=True, help="Print the tools and their schemas as JSON, and serve nothing.")
@click.pass_context
def command(ctx: click.Context, /, *, as_json: bool) -> None:
    """Serve route, report and feedback to agents as tools, over MCP on stdin and stdout.

    An MCP client starts it: claude mcp add tierwise -- tierwise mcp
    """
    from tierwise.integrations.mcp.server import check_installed, server

    check_installed()
    from tierwise.integrations.mcp.desk import Desk

    named = ctx.find_root().obj
    desk = Desk(os.environ, Path.cwd(), Path(named) if named else None)
    made = server(desk)
    if as_json:
        import asyncio

        tools = asyncio.run(made.list_tools())
        echo_json({"tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]})
        return
    if sys.stdin.isatty():
        click.echo("An MCP client starts this and talks to it: claude mcp add tierwise -- tierwise mcp", err=True)
    # The SDK reads stdin in a thread that nothing interrupts: Ctrl-C would wait for a line. Nothing is lost by ending.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        made.run("stdio")
    finally:
        desk.close()
