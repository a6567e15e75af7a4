"""tierwise as an MCP server: agents ask where work should go and what was spent, and say which calls were wrong.

`answers` has what the tools answer, `desk` answers, `server` puts them before a client. `tierwise mcp` runs it. Needs
`pip install 'tierwise[mcp]'`.
"""
