"""Writes docs/reference/cli.md from the commands themselves; the JSON shapes are kept here, and a test holds them
against what the commands print."""

from __future__ import annotations

import inspect
import json
import re
import sys
from importlib import import_module
from typing import Any

import click
from reference_page import finish, table

import tierwise.cli

INTRO = """\
# Command line

`tierwise VERB`, or `python -m tierwise VERB`. Results go to stdout, everything else (progress, receipts, errors) to
stderr. In a pipe, tables are plain text; `NO_COLOR` switches colours off everywhere. What the terminal's encoding
cannot say is escaped. A text that is not UTF-8 is read with its broken bytes replaced.

Every verb takes `--json`: one JSON document (JSON Lines where rows are streamed) in ASCII, with the keys below. Keys
may be added in a minor version, and are never renamed or removed in one. Money is in US$, a day is a UTC day.
"""

CODES_INTRO = """\
## Exit codes
"""

# Keys of every JSON result, with an example of each value. In a list, one example stands for all.
ATTEMPT = {
    "number": 1,
    "tier": "haiku",
    "model": "claude-haiku-5-5",
    "outcome": "accepted",
    "detail": "",
    "cost_usd": 0.0001956,
    "latency_ms": 810,
    "ttft_ms": 320,
    "input_tokens": 112,
    "output_tokens": 24,
    "cache_read_tokens": 0,
    "cache_write_5m_tokens": 0,
    "cache_write_1h_tokens": 0,
    "estimated": False,
}
DECISION = {
    "task_type": "summarization",
    "family": "transform",
    "confidence": 0.92,
    "needs": "processing",
    "abstained": False,
    "tier": "local",
    "model": "qwen3:8b",
    "ladder": [
        {
            "tier": "local",
            "model": "qwen3:8b",
            "estimated_cost_usd": 0.0,
            "estimated_seconds": 12.0,
            "retries": 2,
        }
    ],
    "reasons": ["recoverable processing, small enough and in time on the local tier: local"],
    "estimated_cost_usd": 0.0,
    "baseline_cost_usd": 0.003912,
    "baseline_model": "claude-sonnet-5-5",
    "alternatives": [{"task_type": "rewriting", "confidence": 0.04}],
    "blockers": [],
}
TOTALS = {
    "calls": 12,
    "answered_calls": 11,
    "open_calls": 0,
    "unpriced_calls": 0,
    "attempts": 15,
    "failed_attempts": 4,
    "open_attempts": 0,
    "unpriced_attempts": 0,
    "input_tokens": 8000,
    "cache_read_tokens": 0,
    "cache_write_5m_tokens": 0,
    "cache_write_1h_tokens": 0,
    "output_tokens": 900,
    "cost_usd": 0.0042,
    "open_cost_usd": 0.0,
    "baseline_cost_usd": 0.031,
    "saved_usd": 0.0268,
    "saved_percent": 86.5,
    "mean_latency_ms": 740,
}
SCORE = {
    "texts": 400,
    "top1": 0.82,
    "top3": 0.94,
    "family_accuracy": 0.91,
    "tier_accuracy": 0.9,
    "sent_too_low": 0.015,
    "sent_too_high": 0.085,
    "critical_texts": 40,
    "critical_recall": 0.975,
    "not_critical_texts": 360,
    "critical_false_alarms": 0.0222,
    "abstained": 0.12,
    "answered_accuracy": 0.89,
}
KEY = {
    "key_id": "3f9a1c2b77d0",
    "name": "laptop",
    "project": "search",
    "scopes": ["calls", "receipts"],
    "min_tier": None,
    "max_tier": "sonnet",
    "created_at_ms": 1790000000000,
    "revoked_at_ms": None,
}
BUDGET = {
    "budget_id": "8c1f02aa",
    "scope": "project",
    "subject": "search",
    "period": "day",
    "limit_usd": 5.0,
    "hard": True,
    "created_at_ms": 1790000000000,
}
STANDING = {**BUDGET, "spent_usd": 3.2, "reserved_usd": 0.05, "left_usd": 1.75, "resets_at_ms": 1790035200000}
OWN_TYPE = {
    "name": "invoice_coding",
    "family": "extract",
    "needs": "processing",
    "recoverable": True,
    "description": "ledger accounts for the lines of an invoice",
    "declared_in": "/home/ana/project/tierwise.toml",
    "examples": 13,
    "recognised": 0.8462,
    "false_alarms": 0.0014,
    "near": [{"task_type": "field_extraction", "texts": 1}],
    "resembles": [{"task_type": "tagging", "texts": 2}],
}
HELD_BACK = {"texts": 6, "right": 5, "sent_too_low": 0}
TIMING = {"texts": 400, "p50_us": 74.0, "p99_us": 188.0, "texts_per_second": 12600}
SHAPES: dict[str, Any] = {
    "serve": {
        "url": "http://127.0.0.1:8484",
        "mode": "route",
        "routed_models": ["claude-tierwise-auto"],
        "upstream": "anthropic",
    },
    "dashboard": {
        "url": "http://127.0.0.1:8485/dashboard/",
        "ledger": "/home/ana/.local/share/tierwise/ledger.db",
    },
    "demo": {
        "steps": [
            {
                "step": "summarise them",
                "task_type": "summarization",
                "confidence": 0.92,
                "tier": "local",
                "model": "smollm2-135m-instruct",
                "status": "ran",
                "estimated": False,
                "attempts": 1,
                "answer": "…",
                "cost_usd": 0.0,
                "baseline_cost_usd": 0.0021,
                "why": "recoverable processing, small enough and in time on the local tier: local",
            }
        ],
        "cost_usd": 0.004,
        "baseline_cost_usd": 0.02,
        "saved_usd": 0.016,
        "ledger": "/home/ana/.local/share/tierwise/ledger.db",
    },
    "route": DECISION,
    "classify": {
        "task_type": "summarization",
        "family": "transform",
        "confidence": 0.92,
        "needs": "processing",
        "abstained": False,
        "tier": "local",
        "alternatives": [{"task_type": "rewriting", "confidence": 0.04}],
    },
    "eval classify": {
        **SCORE,
        "ece": 0.0312,
        "timing": TIMING,
        "timing_short": TIMING,
        "by_form": [{"form": "prompt", **SCORE}],
        "by_lang": [{"lang": "en", **SCORE}],
        "by_hard": [{"hard": False, **SCORE}],
        "types": [
            {
                "task_type": "summarization",
                "family": "transform",
                "support": 40,
                "predicted": 38,
                "right": 36,
                "precision": 0.9474,
                "recall": 0.9,
            }
        ],
        "type_confusion": [{"label": "summarization", "predicted": "rewriting", "n": 3}],
        "family_confusion": [{"label": "transform", "predicted": "transform", "n": 120}],
        "reliability": [{"low": 0.8, "high": 0.8667, "n": 30, "mean_confidence": 0.83, "accuracy": 0.8333}],
        "risk_coverage": [{"confidence": 0.91, "coverage": 0.5, "risk": 0.02}],
        "errors": [
            {
                "where": "labelled.jsonl, line 7",
                "accepted": ["advice"],
                "predicted": "summarization",
                "confidence": 0.71,
                "abstained": False,
                "tier": "local",
                "needed_tier": "sonnet",
                "text": "Sum up what you would do in my place",
            }
        ],
    },
    "run": {
        "text": "The lamp is replaced free of charge.",
        "value": None,
        "tier": "haiku",
        "model": "claude-haiku-5-5",
        "task_type": "summarization",
        "call_id": "019ab3c2-…",
        "cost_usd": 0.0001956,
        "baseline_cost_usd": 0.003912,
        "saved_usd": 0.0037164,
        "latency_ms": 820,
        "stop_reason": "end_turn",
        "recorded": True,
        "notes": [],
        "attempts": [ATTEMPT],
        "decision": DECISION,
    },
    "exec": {
        "ok": True,
        "why": "",
        "text": "The lamp is replaced free of charge.",
        "value": None,
        "tier": "haiku",
        "model": "claude-haiku-5-5",
        "task_type": "summarization",
        "call_id": "019ab3c2-…",
        "session": "745280b8-…",
        "cost_usd": 0.0132,
        "counted_elsewhere": False,
        "attempts": [{"model": "claude-haiku-5-5", "outcome": "accepted", "detail": ""}],
    },
    "claude install": {
        "installed": True,
        "folder": "/home/ana/.claude/skills/tierwise",
        "files": ["hooks/hook.py"],
        "settings": "/home/ana/.claude/settings.json",
        "diff": "--- …",
        "note": "",
        "copies": ["/home/ana/.claude/settings.json.before-tierwise-…"],
    },
    "claude uninstall": {
        "folder": "/home/ana/.claude/skills/tierwise",
        "files": 12,
        "kept": [],
        "settings": [{"path": "/home/ana/.claude/settings.json", "how": "restored", "kept": []}],
    },
    "claude status": {
        "folder": "/home/ana/.claude/skills/tierwise",
        "version": "0.1.0",
        "python_works": True,
        "status_line": True,
        "companion": False,
        "changed": [],
        "telemetry": "sent to http://127.0.0.1:8485 (http/protobuf)",
    },
    "types add": {**OWN_TYPE, "duplicates": 0, "warnings": []},
    "types list": {"types": [OWN_TYPE]},
    "types remove": {"removed": "invoice_coding", "declared_in": "/home/ana/project/tierwise.toml"},
    "types relearn": {"relearned": ["invoice_coding"], "correction_lost": False},
    "feedback": {
        "call_id": "019ab3c2-…",
        "verdict": "bad",
        "task_type": "code_review",
        "text_kept": False,
        "forgotten": False,
    },
    "train": {
        "written": True,
        "refused_because": [],
        "folder": "/home/ana/project/tierwise.types",
        "trained_on": 14,
        "skipped": 0,
        "feedback": {"before": HELD_BACK, "after": HELD_BACK},
        "background": {"before": HELD_BACK, "after": HELD_BACK},
    },
    "estimate": {
        "workload": "agent application of the article",
        "estimates": [
            {
                "prices_on": "2025-10-31",
                "baseline_model": "claude-sonnet-4-5",
                "before_usd_a_day": 2.2815,
                "after_usd_a_day": 0.8955,
                "before_usd_a_month": 68.445,
                "after_usd_a_month": 26.865,
                "saved_percent": 60.7,
                "rows": [
                    {
                        "name": "intent classification",
                        "task_type": "intent_classification",
                        "calls_a_day": 120.0,
                        "tokens_in": 800,
                        "tokens_out": 50,
                        "tier": "local",
                        "model": "qwen3:8b",
                        "before_usd_a_day": 0.378,
                        "after_usd_a_day": 0.0,
                        "before_usd_a_month": 11.34,
                        "after_usd_a_month": 0.0,
                        "why": "pinned in the workload",
                    }
                ],
            }
        ],
    },
    "replay": {
        "period": {"from": "2026-11-01T08:12:03Z", "to": "2026-11-28T17:40:55Z"},
        "sessions": 412,
        "calls": 31204,
        "unpriced_calls": 0,
        "actual_usd": 1204.11,
        "prices_on": None,
        "policies": [
            {
                "policy": "routed",
                "expected_usd": 790.1,
                "low_usd": 741.2,
                "high_usd": 861.0,
                "saved_pct": 34.4,
                "moved_calls": 15200,
                "below_calls": 0,
            }
        ],
    },
    "comment": {
        "how": "dry run",
        "url": None,
        "why": None,
        "run": {
            "calls": 41,
            "unpriced_calls": 0,
            "spent_usd": 0.8213,
            "routed_usd": 0.3127,
            "routed_low_usd": 0.2204,
            "routed_high_usd": 0.553,
            "saved_usd": 0.0,
        },
        "models": [{"model": "claude-opus-5-5", "calls": 41, "spent_usd": 0.8213}],
        "unread_reports": 0,
        "pull_request": None,
    },
    "report": {
        "ledger": "/home/ana/.local/share/tierwise/ledger.db",
        "since": "2026-11-16",
        "until": None,
        "project": None,
        "key_id": None,
        "total": TOTALS,
        "feedback": {"good": 3, "bad": 1, "typed": 1},
        "by": {"tier": [{"tier": "local", **TOTALS}]},
    },
    "prices": {
        "on": "2026-11-23",
        "baseline_model": "claude-sonnet-5-5",
        "models": [
            {
                "model": "claude-haiku-5-5",
                "provider": "anthropic",
                "tier": "haiku",
                "priced": True,
                "valid_from": None,
                "source": "genai-prices 0.2.3 (anthropic/claude-haiku-5-5)",
                "conditions": [],
                "bands": [
                    {
                        "above_prompt_tokens": 0,
                        "input_usd": 0.1,
                        "output_usd": 0.5,
                        "cache_read_usd": 0.01,
                        "cache_write_5m_usd": 0.125,
                        "cache_write_1h_usd": 0.2,
                    }
                ],
                "usd_per_web_search": 0.01,
                "usd_per_hour": 0.0,
                "problem": None,
            }
        ],
    },
    "keys create": {**KEY, "secret": "tw-3f9a1c2b77d0-…"},
    "keys list": {"ledger": "/home/ana/.local/share/tierwise/ledger.db", "keys": [KEY]},
    "keys revoke": KEY,
    "budgets set": STANDING,
    "budgets list": {"ledger": "/home/ana/.local/share/tierwise/ledger.db", "budgets": [STANDING]},
    "budgets remove": BUDGET,
    "ledger size": {
        "path": "/home/ana/.local/share/tierwise/ledger.db",
        "database_bytes": 48_259_072,
        "log_bytes": 4_120_032,
        "free_bytes": 0,
        "calls": 81_204,
        "attempts": 93_411,
        "pruned_calls": 0,
        "pruned_before_ms": None,
        "first_ms": 1_788_220_800_000,
        "last_ms": 1_795_849_200_000,
        "waiting": [],
        "bytes": 52_379_104,
        "is_behind": False,
    },
    "ledger batches": {
        "ledger": "/home/ana/.local/share/tierwise/ledger.db",
        "batches": [
            {
                "batch_id": "01a22143-dc37-7000-94cd-39da7649cdf9",
                "upstream_id": "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF",
                "provider": "anthropic",
                "sent_at_ms": 1_795_854_425_143,
                "requests": 2_000,
                "unread_requests": 2_000,
                "expected_nanousd": 1_204_000_000,
                "unpriced_requests": 0,
            }
        ],
    },
    "ledger verify": {"ledger": "/home/ana/.local/share/tierwise/ledger.db", "faults": []},
    "ledger rebuild": {"ledger": "/home/ana/.local/share/tierwise/ledger.db", "calls": 81_204, "attempts": 93_411},
    "ledger prune": {
        "before_ms": 1_788_220_800_000,
        "calls": 12_804,
        "attempts": 14_001,
        "kept_rollups": True,
    },
    "ledger backup": {
        "ledger": "/home/ana/.local/share/tierwise/ledger.db",
        "file": "ledger-copy.db",
        "bytes": 48_259_072,
    },
    "init": {
        "config": "/home/ana/project/tierwise.toml",
        "written": True,
        "ollama": {"base_url": "http://127.0.0.1:11434", "models": ["qwen3:8b"]},
        "keys": [{"env": "ANTHROPIC_API_KEY", "set": True}],
        "weights": {"status": "installed", "path": "…/SmolLM2-135M-Instruct.Q4_1.gguf", "detail": None},
    },
    "doctor": {
        "ok": True,
        "version": "0.1.0",
        "checks": [
            {
                "area": "keys",
                "status": "warning",
                "text": "ANTHROPIC_API_KEY is not set: …",
                "mend": "export ANTHROPIC_API_KEY=…",
                "facts": {"provider": "anthropic", "env": "ANTHROPIC_API_KEY", "set": False, "used": True},
            }
        ],
    },
}

NOTES = {
    "analyze": """\
The keys of its JSON: [analysis-json](analysis-json.md). `--undo --json` gives `{"undone": [{"path", "how", "kept"}]}`.
Where no call is found it says where it looked, and ends with 0. More: [analyze](../how-to/analyze.md).""",
    "replay": """\
`low_usd` and `high_usd` are the costs of the same calls under favourable and unfavourable assumptions. `prices_on` is
null where each call has the prices of its day. `below_calls` go to a lower tier than their work asks for.""",
    "serve": """\
Ctrl-C and SIGTERM let running calls finish; SIGHUP, or a change of a file, reads the configuration anew. More:
[the gateway](../how-to/gateway.md).""",
    "claude": """\
Its own options come before the verb: `tierwise --config FILE claude -p "…"`. Exit code: that of `claude`; 2 where
there is none, or the gateway cannot be started.""",
    "dashboard": "More: [the dashboard](../how-to/dashboard.md).",
    "classify": """\
One line for each line of input, in order; `id` comes back where the input has one. `tier` is null where no model takes
so long a text. A line that cannot be used gives `{"error": "line 7: …", "line": 7}`.

Fields of an input line: `text`, and optionally `tool_name`, `tool_input`, `json_schema`, `labels`, `has_tools`, `id`.
A line is answered as soon as it is there, so another program can converse with it.""",
    "eval classify": """\
Shares are 0 to 1, and null where there is nothing to divide by. Where several types are accepted, what is counted
favours the classifier: any of them is right; a tier is too low only where all of them need a higher one; a text is
critical only where all of them are, and among those that are not only where none is. `top1`, `top3`, `family_accuracy`,
`ece` and `risk_coverage` take the best guess also where it abstained; the tier is where the policy sends it then.

`timing_short` is of texts up to 2,000 characters, null where there are none. `errors` are those of `--errors N`: sent
too low first, then the surest. A point of `risk_coverage`: answering only texts at least `confidence` sure answers
`coverage` of all, `risk` of them wrong. A line that cannot be used ends it with exit code 2 and a message that names
the line; empty lines are skipped.""",
    "run": """\
`value` is the parsed answer where a JSON schema or labels were asked for. Where there is no answer, the exit code tells
why and the document has `error`, `kind`, `call_id`, `attempts` and `decision`: what was spent on the way is in it.""",
    "exec": """\
Everything behind `--` is the command. Where no run passed, `ok` is false, `why` says why, and the exit code is 1, or 4
at a ceiling or a deadline. `counted_elsewhere`: it ran through the gateway, whose records hold what it used. With
`--tasks`, each result is one line with the task's `id` and the `digest` of its line, and the exit code is 1 if any task
failed.
How to use it: [Claude Code](../how-to/claude-code.md).""",
    "claude install": """\
`settings` is null where they stay as they are; `note` says why. What is done, and what it is for:
[Claude Code](../how-to/claude-code.md#the-plugin).""",
    "claude uninstall": "`kept` are files that are not as they were installed. `how` is what became of the settings.",
    "claude status": "`version` is null where it is not installed; `companion`: the process that answers hooks runs. "
    "`telemetry` says where Claude Code sends its own, or what keeps it from that; null where it is off.",
    "comment": """\
`how` is `created`, `updated`, `summary` (`why` says why it is not on the pull request), `nothing` (no call) or
`dry run`. `pull_request` has the number of `runs` and the keys of `run`, all runs together; it is null where no comment
was read. What cannot be replayed is in `routed_usd` as it was; `saved_usd` is what routing did save, with
`--source ledger`. [How it counts](../how-to/github-action.md#what-is-counted).""",
    "mcp": "`--json` has `tools`: each with `name`, `description`, `annotations`, `inputSchema` and `outputSchema`.",
    "report": """\
`by` has one list for each section, whose rows also hold the section's own key: `tier`, `task_type`, `model`, `day` or
`project`. `saved_percent` is null where there is nothing to compare with.""",
    "prices": "Prices are US$ per million tokens. An unpriced model has `priced: false` and says why in `problem`.",
    "keys create": "Without `--json`, the secret is all that is on stdout. It cannot be shown again.",
    "budgets list": "`resets_at_ms` is null where a budget never begins anew. `subject` is empty where all count.",
    "ledger size": """\
Times are those of the first and last call, to the hour; of long ago to the day (UTC). `calls` and `attempts` have rows;
`pruned_calls` are in the sums alone. `is_behind`: their sums are still being made, and what these lack is read from the
rows, which is right, and slow.""",
    "ledger batches": """\
`upstream_id` is null of one that was being sent when its process ended, or its connection: it may or may not have been
taken.""",
    "ledger verify": "`faults` are sentences. Exit code 1 where there is one.",
    "ledger prune": "With `--json` nothing is asked.",
    "init": "`status` of the weights is `present`, `installed`, `skipped` or `failed` (exit code 2).",
    "doctor": """\
`status` is `ok`, `note`, `warning` or `broken`. `facts` depend on the area (`program`, `configuration`, `keys`,
`local model`, `models`, `prices`, `ledger`, `recovery`).""",
    "export": """\
`--json` is `--format jsonl`: one object for each attempt, or for each call with `--what calls`. Their keys are the
columns of the CSV, and those of the [ledger](ledger.md). Costs are decimal texts, exact to a billionth of a dollar. In
CSV, a text that a spreadsheet would take for a formula has an apostrophe in front.""",
}


def exit_codes() -> list[tuple[str, str]]:
    """The codes, out of the docstring of `tierwise.cli`."""
    found = re.findall(r"^    (\d+) +(.+)$", tierwise.cli.__doc__ or "", re.MULTILINE)
    if not found:
        raise SystemExit("the docstring of tierwise.cli lists no exit codes any more")
    return found


def section(name: str, command: click.Command) -> list[str]:
    """The section of a verb, and those of its subcommands."""
    context = click.Context(command, info_name=f"tierwise {name}")
    usage = " ".join([f"tierwise {name}", *command.collect_usage_pieces(context)])
    level = "#" * (1 + len(name.split()))
    lines = [f"{level} tierwise {name}", "", f"    {usage}", "", inspect.cleandoc(command.help or ""), ""]
    if isinstance(command, click.Group):
        for part in command.list_commands(context):
            if command.commands[part].hidden:
                continue  # what other programs start
            lines += section(f"{name} {part}", command.commands[part])
        return lines
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None and "--help" not in parameter.opts:
            rows.append((f"`{record[0]}`", record[1]))
    lines += table(("option", "what it does"), rows)
    if name in SHAPES:
        lines += ["With `--json`:", "", "```json", json.dumps(SHAPES[name], indent=2, ensure_ascii=False), "```", ""]
    if name in NOTES:
        lines += [NOTES[name], ""]
    return lines


def page() -> list[str]:
    """The whole page."""
    group = tierwise.cli.cli
    context = click.Context(group, info_name="tierwise")
    lines = [INTRO, CODES_INTRO]
    lines += table(("code", "meaning"), [(f"`{code}`", meaning) for code, meaning in exit_codes()])
    lines += ["## Options of tierwise itself", "", "They stand before the verb.", ""]
    records = [parameter.get_help_record(context) for parameter in group.get_params(context)]
    lines += table(("option", "what it does"), [(f"`{record[0]}`", record[1]) for record in records if record])
    for name in tierwise.cli.VERBS:
        lines += section(name, import_module(f"tierwise.cli.{name}").command)
    return lines


if __name__ == "__main__":
    sys.exit(finish("cli.md", "build_cli_reference.py", page()))
