#!/usr/bin/env bash
# A file of tasks, two at once. Run it again, and only what did not go well is done.
set -eu
cat > tasks.jsonl <<'TASKS'
{"id": "summary", "text": "Summarise ticket.txt in one line"}
{"id": "contract", "text": "Is the clause in ticket.txt enforceable?", "min_tier": "sonnet", "check": "grep -q ."}
TASKS
tierwise exec --tasks tasks.jsonl --out results.jsonl --concurrency 2 --resume -- claude -p --allowedTools Read
cat results.jsonl
