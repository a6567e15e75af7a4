"""Writes docs/reference/task-types.md from the shipped task types and the default policy."""

from __future__ import annotations

import sys
import tomllib
from importlib.resources import files
from itertools import groupby

from reference_page import finish, table

from tierwise.config.load import shipped_settings
from tierwise.core.tasks import Classification, Needs, TaskType
from tierwise.policy import judge

INTRO = """\
# Task types

The types of work that tierwise recognises. The names are the labels in the ledger, the CLI and the library.

- **needs**: `processing` (a right answer is easy to define in advance), `judgment` (synthesis, generation, multi-step
  reasoning, ambiguous interpretation) or `critical` (judgment whose mistakes are irreversible or very expensive).
- **recoverable**: a wrong answer is cheap to notice and to retry downstream.
- **tier**: where the default policy sends it when the classifier is sure, the step fits the local tier and nothing else
  is said. See [how it decides](../explanation/how-it-decides.md).
- **output**: tokens of output that are expected where the caller does not say (`policy.output_tokens`).

What a text *asks for* decides, not the words in its payload. Where two types fit, the more specific one wins. Types of
your own: [how-to](../how-to/overrides.md#task-types-of-your-own).
"""


def lines() -> list[str]:
    """The page."""
    raw = tomllib.loads((files("tierwise") / "data" / "task_types.toml").read_text("utf-8"))["types"]
    settings = shipped_settings()
    out = [INTRO, f"There are {len(raw)} types in {len({entry['family'] for entry in raw})} families.", ""]
    for family, entries in groupby(raw, key=lambda entry: str(entry["family"])):
        out += [f"## {family}", ""]
        rows = []
        for entry in entries:
            kind = TaskType(entry["name"], family, Needs(entry["needs"]), entry["recoverable"], entry["description"])
            verdict = judge(Classification(kind, 1.0), settings.policy, fits_local=True)
            rows.append(
                (
                    f"`{kind.name}`",
                    kind.needs.value,
                    "yes" if kind.recoverable else "no",
                    settings.policy.roles[verdict.role],
                    f"{settings.policy.output_tokens.get(kind.name, settings.policy.output_tokens['default']):,}",
                    kind.description,
                )
            )
        out += table(("type", "needs", "recoverable", "tier", "output", "what it is"), rows)
    return out


if __name__ == "__main__":
    sys.exit(finish("task-types.md", "build_task_types_reference.py", lines()))
