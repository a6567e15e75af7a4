"""Claude Code, with no proxy in between: scripts around `claude -p`, and a plugin inside of it.

`models` knows what the CLI calls a model, `command` a command line of it, `report` what it prints of a run; `execution`
runs one task up the ladder, `batch` a file of them. `companion` answers the plugin's hooks, `transcripts` records what
a session used, `installing` puts the plugin in its place and takes it away.

Observed with Claude Code 2.1.330.
"""
