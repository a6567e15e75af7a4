"""Writes docs/reference/analysis-json.md, and the JSON Schema beside it, from the classes of the findings."""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from dataclasses import is_dataclass
from decimal import Decimal

from reference_page import finish, table

from tierwise.analysis.findings import SCHEMA_VERSION, Findings, classes, json_schema, keys_of

SCRIPT = "build_analysis_reference.py"
SCHEMA = "analysis.schema.json"
INTRO = f"""\
# JSON of `tierwise analyze`

`tierwise analyze --json` prints one document, of version {SCHEMA_VERSION} (`schema_version`). Keys may be added within
a version; when one goes away or changes its meaning, the version is raised. The same as a JSON Schema:
[{SCHEMA}]({SCHEMA}).

Amounts are US$ as numbers: sums of whole nano-dollars, which a double holds up to millions of dollars. Days and times
are UTC. Nothing in it is text of a prompt, a reply or a tool's argument; names of projects, models and agents are.
"""
_SIMPLE = {int: "whole number", str: "text", bool: "true or false"}


def lines() -> list[str]:
    """The page."""
    out = [INTRO]
    for kind in classes():
        title = "The document" if kind is Findings else f"`{kind.__name__}`"
        out += [f"## {title}", "", " ".join((inspect.getdoc(kind) or "").split()), ""]
        rows = [(f"`{key.name}`", _type(key.hint, key.name), key.means) for key in keys_of(kind)]
        out += table(("key", "type", "meaning"), rows)
    return out


def _type(hint: object, name: str) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return f"list of {_type(arguments[0], name)}"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _type(a, name) for a in arguments)
    if hint is Decimal:
        return "percent" if name.endswith("_pct") else "US$"
    if isinstance(hint, type) and is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return _SIMPLE[typing.cast("type", hint)]


if __name__ == "__main__":
    schema = json.dumps(json_schema(), indent=2) + "\n"
    sys.exit(finish("analysis-json.md", SCRIPT, lines(), beside={SCHEMA: schema}))
