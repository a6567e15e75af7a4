"""Writes docs/reference/errors.md: the exception tree, exit codes, and the outcomes and statuses of the ledger."""

from __future__ import annotations

import inspect
import re
import sys
from enum import StrEnum

from reference_page import finish, table

from tierwise import cli
from tierwise.cli.failures import exit_code_of
from tierwise.core import decisions, errors
from tierwise.core.decisions import CallStatus, OutcomeKind

SCRIPT = "build_errors_reference.py"

INTRO = """\
# Errors, exit codes, outcomes

## Exceptions

Everything that tierwise raises on purpose is a `TierwiseError`. All are in `tierwise`: `from tierwise import RunError`.
Messages say what is wrong, where, and what to do.
"""

RUN_ERROR = """\
A `RunError` carries `call_id` (its row in the [ledger](ledger.md)), `attempts` (what was tried and what that cost) and
`decision` (what was planned). A cancelled call raises `asyncio.CancelledError`, or `KeyboardInterrupt` from the
synchronous router; its record is written first.
"""

OUTCOMES = """\
## Outcomes of an attempt

The column `outcome` of the ledger's `attempts`. What each makes the climb do: [climbing](../explanation/climbing.md).
"""

STATUSES = """\
## Statuses of a call

The column `status` of the ledger's `calls`.
"""


def lines() -> list[str]:
    """The page."""
    tree = inspect.cleandoc(str(errors.__doc__)).partition("\n\n")[2].rpartition("\n\n")[0]
    out = [INTRO, "```text", inspect.cleandoc(tree), "```", "", RUN_ERROR]
    rows = []
    for name in errors.__all__:
        kind = getattr(errors, name)
        code = exit_code_of(kind(""))
        rows.append((f"`{name}`", inspect.getdoc(kind).splitlines()[0], str(code)))  # type: ignore[union-attr]
    out += table(("exception", "what it means", "exit code"), rows)
    out += ["## Exit codes", "", "Of every `tierwise` command.", ""]
    codes = re.findall(r"^ {4}(\d+) +(.+)$", str(cli.__doc__), flags=re.MULTILINE)
    out += table(("code", "meaning"), codes)
    out += [OUTCOMES]
    out += table(
        ("outcome", "what happened", "kind"),
        [(f"`{kind.value}`", words, _nature(kind)) for kind, words in _members(OutcomeKind)],
    )
    out += [STATUSES]
    return out + table(("status", "what it means"), [(f"`{s.value}`", words) for s, words in _members(CallStatus)])


def _members(enum: type[StrEnum]) -> list[tuple[StrEnum, str]]:
    """Members and the comments beside them."""
    source = inspect.getsource(enum)
    comments = dict(re.findall(r'^ {4}(\w+) = "\w+"(?:  # (.+))?$', source, flags=re.MULTILINE))
    usual = {"ACCEPTED": "the reply passed every check", "TIMEOUT": "no answer, or no next piece of it, in time"}
    usual |= {"ANSWERED": "there is an accepted answer", "FAILED": "there is none; `error` says why"}
    usual |= {"CANCELLED": "the caller gave up", "NOT_RUN": "nothing was sent"}
    return [(member, comments[member.name] or usual[member.name]) for member in enum]


def _nature(kind: StrEnum) -> str:
    assert isinstance(kind, decisions.OutcomeKind)  # noqa: S101 the page has only these
    if kind.is_transient:
        return "transient"
    if kind.is_fatal:
        return "fatal"
    return "rejection" if kind.is_rejection else ""


if __name__ == "__main__":
    sys.exit(finish("errors.md", SCRIPT, lines()))
