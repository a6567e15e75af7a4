"""Commands in the documentation exist, and say what the pages say they say."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import click
import pytest

from tierwise import Router
from tierwise.cli import VERBS, cli
from tierwise.config.load import load_settings

from .pages import PAGES, blocks, name, spans


def parse(arguments: list[str]) -> click.Context | None:
    """Parses a command line as tierwise does, and runs nothing. None where it only prints help or the version.

    Raises `click.UsageError` for a verb or an option that is not there, or a value that it does not take.
    """
    try:
        context = cli.make_context("tierwise", arguments)
        verb, *rest = [*context._protected_args, *context.args]
        if verb not in VERBS:
            raise click.UsageError(f"no verb {verb!r}")
        command: click.Command = import_module(f"tierwise.cli.{verb}").command
        context = command.make_context(verb, rest, parent=context)
        while isinstance(command, click.Group) and (context._protected_args or context.args):
            name, part, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert part is not None
            command, context = part, part.make_context(name, rest, parent=context)
        return context
    except click.exceptions.Exit:
        return None


def commands(page: Path) -> list[str]:
    """What the page's console blocks start."""
    found = []
    for block in blocks(page, "console", "bash"):
        lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
        found += [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?(echo .*\| *)?tierwise ", line)]
    return [re.sub(r"^echo .*\| *", "", line).split(" | ")[0].split(" > ")[0] for line in found]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_commands_exist(page: Path) -> None:
    """Every `tierwise …` in a console block has an existing verb and options, with values that they take."""
    for command in commands(page):
        words = shlex.split(command, comments=True)
        try:
            parse(words[1:])
        except click.UsageError as error:
            pytest.fail(f"{command}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_prose_exist(page: Path) -> None:
    """Every `tierwise …` in a sentence has an existing verb and options."""
    for span in spans(page):
        if not re.match(r"tierwise [a-z-]", span) or "…" in span:
            continue
        try:
            parse(shlex.split(span)[1:])
        except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
            pass  # a verb by itself stands for the verb
        except click.UsageError as error:
            pytest.fail(f"{span}: {error.format_message()}")


def shown_decisions() -> list[tuple[str, list[str], str]]:
    """Page, arguments and first line of output of every `tierwise route` that is shown with its output."""
    found = []
    for page in PAGES:
        for block in blocks(page, "console"):
            lines = block.text.splitlines()
            for line, after in pairwise(lines):
                if line.startswith("$ tierwise route ") and re.match(r"\w+ +\S+ +\w+, \d+% sure", after):
                    found.append((name(page), shlex.split(line)[3:], after))
    return found


@pytest.mark.parametrize(("page", "arguments", "first_line"), shown_decisions())
def test_shown_decisions_are_made(page: str, arguments: list[str], first_line: str, tmp_path: Path) -> None:
    """A decision that a page shows, its tier, task type and model, is what tierwise decides by default."""
    context = parse(["route", *arguments])
    assert context is not None, page
    wanted = {key: value for key, value in context.params.items() if value and key not in {"task", "as_json", "check"}}
    settings = load_settings(env={"HOME": str(tmp_path)}, cwd=tmp_path)
    with Router(settings, record=False) as router:
        decision = router.route(context.params["task"], **wanted)
    shown = re.match(r"(\w+) +(\S+) +(\w+),", first_line)
    assert shown is not None
    tier, model, task_type = shown.groups()
    assert (tier, task_type) == (decision.tier.name, decision.classification.task_type.name)
    # Which local model it is depends on the machine.
    assert model == decision.model.id or tier == "local"
