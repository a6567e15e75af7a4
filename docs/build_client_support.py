"""Writes docs/reference/client-support.md from the tests in tests/clients: what they promise, and on which models."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reference_page import finish, table

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "clients"
AUTO = "claude-tierwise-auto"
COLUMNS = ("local", "haiku", "sonnet", "opus", AUTO)

INTRO = """\
# Client support

What the clients that people use can do through [the gateway](../how-to/gateway.md), tier by tier. Each row is a test
that runs the real client, with the stand-in for Anthropic's API behind the gateway and, on the local tier, with the
real embedded model. No test has spoken to Anthropic's own API.

`●`: run on this model. Under haiku, sonnet and opus a concrete model was asked for, and its name passed through;
*routed* is `claude-tierwise-auto`. A blank is no loss: it was not run there. What is lost is
[listed apart](#what-is-lost).
"""

# What is lost, where, and the test or the reason that says so.
LOST = (
    (
        "Claude Code, routed",
        "its own cost display takes the unknown name for Opus. What it really cost: `tierwise report`, receipts",
        "`test_routing`",
    ),
    (
        "Claude Code, routed",
        "it does not know the name: a line on stderr says so, it assumes a context of a million tokens, and asks for "
        "at most 32,000 tokens of output",
        "seen in 2.1.330",
    ),
    (
        "Claude Code, routed",
        "`/context` counts as the baseline model does, wherever the conversation is",
        "`test_context`",
    ),
    (
        "Claude Code",
        "what a broken stream had used is on the bill and in the ledger, but not in the cost that the client reports",
        "`test_faults_that_pass`",
    ),
    (
        "Claude Code without tools, routed",
        "after a stream broke it asks again in one piece. A process that did not see that stream (the gateway was "
        "started anew) takes it for a safety call: the baseline model answers",
        "by design: what may be a safety call is never moved",
    ),
    (
        "Claude Code, auto mode",
        "the server's verdicts pass, and none is invented: where there is none (the local tier, other providers), the "
        "client refuses to act",
        "`test_auto_mode_without_a_verdict`",
    ),
    (
        "local",
        "the embedded model answers only where `gateway.embedded` lets it. No tools, no images, 8,192 tokens of "
        "context: a call of Claude Code with its usual prompt and tools goes up, one with `--bare` and no tools "
        "stays. Streams come in one piece",
        "`test_local`, `test_sdks_local`",
    ),
    (
        "routed",
        "where an answer may still be replaced by a better one, its first words come later",
        "by design: [climbing](../explanation/climbing.md)",
    ),
    (
        "Anthropic's SDK, routed",
        "no threads that the server holds: they are refused as the API refuses them, and the tool runner sends the "
        'whole conversation; `beta.messages.thread()` only with `unsupported_request_behavior="continue_unthreaded"`',
        "`test_anthropic_tools`",
    ),
    (
        "OpenAI's dialect",
        "thinking, and what else [has no counterpart](chat-completions.md)",
        "the translation's own tests",
    ),
    (
        "ChatAnthropic of LangChain",
        "`with_structured_output` as it comes forces a tool, which Sonnet 5.5 and Opus 5.5 refuse: take "
        '`method="json_schema"`',
        "LangChain's own warning",
    ),
    (
        "SDKs",
        "message batches, files, skills, embeddings, the Responses API and administration are not served: 404",
        "not built",
    ),
)


@dataclass(frozen=True)
class Row:
    """A test: what it promises, and the models that it runs on."""

    name: str
    promise: str
    models: frozenset[str]


def rows(module: Path) -> Iterator[tuple[str, Row]]:
    """The module's tests, each with the section that it stands in."""
    text = module.read_text("utf-8")
    sections = {
        number: line.removeprefix("# ").strip("- ")
        for number, line in enumerate(text.splitlines(), 1)
        if line.startswith("# -----")
    }
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            section = next((title for line, title in reversed(sections.items()) if line < node.lineno), "")
            yield section, Row(node.name, ast.get_docstring(node) or "", frozenset(models(node)))


def models(test: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """What its decorators `on(…)` and `embedded` say."""
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Name) and decorator.id == "embedded":
            yield from ("local", AUTO)
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "on":
            for given in decorator.args:
                yield AUTO if isinstance(given, ast.Name) else str(ast.literal_eval(given))


def versions(file: str, *packages: str) -> str:
    """The pinned versions of packages."""
    pins = (ROOT / "requirements" / file).read_text("utf-8").split()
    found = (pin.replace("==", "@").rpartition("@") for pin in pins if pin.startswith(packages))
    return ", ".join(f"`{name}` {version}" for name, _, version in found)


def lines() -> list[str]:
    """The page."""
    out = [INTRO]
    for heading, module, tested in (
        ("Claude Code", "test_claude_code.py", versions("claude-code.txt", "@anthropic-ai")),
        ("SDKs", "test_sdks.py", versions("dev.txt", "anthropic", "openai", "langchain-anthropic", "langchain-openai")),
    ):
        out += [f"## {heading}", "", f"Tested: {tested}.", ""]
        before = None
        found: list[tuple[str, ...]] = []
        titles: list[tuple[str, list[tuple[str, ...]]]] = []
        for section, row in rows(TESTS / module):
            if section != before:
                found, before = [], section
                titles.append((section, found))
            ran = ("●" if column in row.models else "" for column in COLUMNS)
            found.append((row.promise, *ran, f"`{row.name}`"))
        for title, entries in titles:
            out += [f"### {title}", ""]
            out += table(("what holds", *COLUMNS[:-1], "routed", "test"), entries)
    out += ["## What is lost", ""]
    out += table(("where", "what", "known from"), LOST)
    return out


if __name__ == "__main__":
    sys.exit(finish("client-support.md", "build_client_support.py", lines()))
