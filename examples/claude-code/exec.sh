#!/usr/bin/env bash
# The cheapest model whose answer passes: a schema for the one, a command for the other.
set -eu
schema='{"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}'
tierwise exec -- claude -p "Give the ticket in ticket.txt a title" --json-schema "$schema" --allowedTools Read
tierwise exec --check 'grep -q README' --before-retry 'git checkout -q . || true' -- \
    claude -p "Check the spelling in README.md" --allowedTools Read Edit
