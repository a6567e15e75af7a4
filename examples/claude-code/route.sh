#!/usr/bin/env bash
# Picks the model of one run; everything else is Claude Code's own. Stops where no model can be named.
set -eu
ask="Summarise README.md in one line"
model=$(tierwise route --claude-alias "$ask")
claude -p "$ask" --model "$model" --allowedTools Read
