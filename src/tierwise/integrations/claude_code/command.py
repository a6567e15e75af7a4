"""A command line of `claude -p …`, taken apart far enough to run it again on another model.

Which words are options and which the prompt is known only to whoever knows the CLI's options: those that take a value
stand here, as `claude --help` of 2.1.330 lists them. An option that is not known is taken to be a switch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from tierwise.core.errors import InvalidTask
from tierwise.core.json import JsonObject

__all__ = ["ClaudeCommand", "OutputFormat"]


def _words(options: str) -> frozenset[str]:
    return frozenset(options.split())


_ONE_VALUE = _words(
    "--agent --agents --append-system-prompt --append-system-prompt-file --autocompact --debug-file --effort "
    "--environment --fallback-model --input-format --json-schema --max-budget-usd --max-turns --model -n "
    "--name --output-format --permission-mode --permission-prompt-tool --permission-prompts --plugin-dir "
    "--plugin-url --remote-control-session-name-prefix --session-id --setting-sources --settings --system-prompt "
    "--system-prompt-file --system-prompt-snapshot"
)
_MAY_HAVE_VALUE = frozenset(["-d", "--debug", "--prompt-suggestions", "-w", "--worktree"])
# They take every word up to the next option.
_MANY_VALUES = _words(
    "--add-dir --allowedTools --allowed-tools --betas --disallowedTools --disallowed-tools --file --mcp-config --tools"
)
_GO_ON = frozenset(["-c", "--continue", "-r", "--resume", "--from-pr", "--teleport", "--fork-session"])
_NOT_HERE = frozenset(["--bg", "--background", "--cloud", "--remote-control", "--ide", "--tmux"])


class OutputFormat(StrEnum):
    """How the answer is printed. A stream cannot be: it would be gone before it was checked."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ClaudeCommand:
    """`claude -p …` without what is different, or read by us, in each run of it."""

    program: str
    options: tuple[str, ...]  # as given, without prompt, --model, --output-format, --json-schema and --session-id
    prompt: str | None
    output: OutputFormat = OutputFormat.TEXT
    json_schema: JsonObject | None = None
    session: str | None = None  # the id that it names: a session has it once, so it is the first attempt's

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """Takes a command line apart.

        Raises:
            InvalidTask: it is not `claude -p …`, or has an option that cannot be had together with climbing.
        """
        if not words:
            raise InvalidTask('there is no command; write it behind two dashes: tierwise exec -- claude -p "…"')
        program, *rest = words
        options: list[str] = []
        prompts: list[str] = []
        output, schema, session, prints = OutputFormat.TEXT, None, None, False
        for name, values in _parts(rest):
            match name:
                case None:
                    prompts += values
                case "-p" | "--print":
                    prints = True
                case "--model":
                    raise InvalidTask(
                        f"the command names a model ({' '.join(values)}), which is what is to be found out; leave "
                        "--model out, or give bounds: tierwise exec --min-tier sonnet -- …"
                    )
                case "--output-format" | "--input-format":
                    output = _format(name, values, output)
                case "--json-schema":
                    schema = _schema(values)
                case "--session-id" if values:
                    session = values[0]
                case _ if name in _GO_ON or name in _NOT_HERE:
                    raise InvalidTask(
                        f"{name} cannot be climbed: each attempt is a session of its own, from its beginning to its "
                        "end; leave it out, or run `claude` itself"
                    )
                case _:
                    options += [name, *values]
        if not prints:
            raise InvalidTask("the command has no -p: only a session that ends by itself can be checked")
        if len(prompts) > 1:
            raise InvalidTask(f"there are {len(prompts)} prompts; put quotes around one, or name it with --task")
        return cls(program, tuple(options), prompts[0] if prompts else None, output, schema, session)

    def words(self, model_id: str, prompt: str | None = None, *, session: str | None = None) -> list[str]:
        """The command line that runs it on this model, in this session, and with this prompt if it has none."""
        said = self.prompt if self.prompt is not None else prompt
        schema = [] if self.json_schema is None else ["--json-schema", json.dumps(self.json_schema)]
        named = [] if session is None else ["--session-id", session]
        words = [self.program, "-p", *self.options, *named, *schema, "--model", model_id, "--output-format", "json"]
        return words if said is None else [*words, "--", said]  # behind the dashes no prompt is an option


def _parts(words: Sequence[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Each option with its values; None for words that belong to none."""
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            yield None, list(words[position:])
            return
        if len(word) < 2 or not word.startswith("-"):
            yield None, [word]
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        values = [value] if equals else []
        while position < len(words) and _takes(name, words[position], len(values)):
            values.append(words[position])
            position += 1
        yield name, values


def _takes(option: str, word: str, values: int) -> bool:
    """Whether an option that has so many values takes the next word as one."""
    if option in _ONE_VALUE:
        return values == 0
    if word.startswith("-"):
        return False
    return option in _MANY_VALUES or (option in _MAY_HAVE_VALUE and values == 0)


def _format(name: str, values: Sequence[str], before: OutputFormat) -> OutputFormat:
    value = values[0] if values else ""
    if name == "--input-format" and value == "text":
        return before
    if name == "--output-format" and value in tuple(OutputFormat):
        return OutputFormat(value)
    raise InvalidTask(f"{name} {value} cannot be checked before it is passed on; use --output-format text or json")


def _schema(values: Sequence[str]) -> JsonObject:
    try:
        schema = json.loads(values[0] if values else "")
    except (ValueError, RecursionError) as error:
        raise InvalidTask(f"the command's --json-schema is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise InvalidTask("the command's --json-schema is not an object")
    return schema
