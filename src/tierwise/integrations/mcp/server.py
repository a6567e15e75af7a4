"""Offers the desk's answers to MCP clients: which tools there are, what they may change, and how they refuse."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from tierwise import __version__
from tierwise.core.errors import ConfigError, TierwiseError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.tools import Tool
    from mcp.types import ToolAnnotations

    from tierwise.integrations.mcp.desk import Desk

__all__ = ["check_installed", "server"]

P = ParamSpec("P")
T = TypeVar("T")

_INSTRUCTIONS = """\
tierwise sends work to the cheapest model tier that does it well. Call `route` before you hand work to a subagent or \
another model, and use its `claude_alias` as that one's model. `report` says what was spent and saved. When an answer \
turned out wrong, find its call with `calls` and say so with `feedback`."""


def check_installed() -> None:
    """Raises `ConfigError`, with the command that mends it, where the MCP SDK is missing or too old."""
    try:
        import mcp.server.mcpserver  # noqa: F401
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("mcp", "mcp_types"):
            raise
        raise ConfigError(f"the MCP server needs {package} 2.3 or newer: pip install 'tierwise[mcp]'") from None


def server(desk: Desk) -> MCPServer[object]:
    """An MCP server with the tools of this desk; `run()` it."""
    from mcp.server.mcpserver import MCPServer
    from mcp.types import ToolAnnotations

    reads = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    # It takes the place of what was said of the call before.
    writes = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
    return MCPServer(
        "tierwise",
        title="tierwise",
        version=__version__,
        website_url="https://tierwise.dev",
        instructions=_INSTRUCTIONS,
        log_level="WARNING",  # of refusals the client is told; its log need not repeat them
        tools=[
            _tool(desk.route, "Which model a task should go to", reads),
            _tool(desk.report, "What was spent and saved", reads),
            _tool(desk.calls, "The latest calls", reads),
            _tool(desk.feedback, "Say that a call was right or wrong", writes),
        ],
    )


def _tool(function: Callable[..., object], title: str, hints: ToolAnnotations) -> Tool:
    """A tool that knows its arguments: the SDK leaves others out, and a misspelt filter would show everything."""
    from mcp.server.mcpserver.tools import Tool
    from pydantic import create_model

    made = Tool.from_function(_refusing(function), title=title, description=inspect.getdoc(function), annotations=hints)
    known = made.fn_metadata.arg_model
    strict = create_model(known.__name__, __base__=known, __cls_kwargs__={"extra": "forbid"})
    made.fn_metadata.arg_model, made.parameters = strict, strict.model_json_schema()
    return made


def _refusing(function: Callable[P, T]) -> Callable[P, T]:
    """With what tierwise says on purpose as an error of the tool, which the model reads; anything else is a fault."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except TierwiseError as error:
            raise ToolError(str(error)) from None

    return wrapped
