"""The command line. One module a verb, imported only when that verb runs: `tierwise --help` is instant.

Exit codes (documented in docs/reference/cli.md, checked by a test):

    0    done
    1    the task was tried and has no acceptable answer; doctor, ledger: something is broken; train: it would not help
    2    the command, the input or the configuration cannot be used
    3    not run: no API key, or no model reachable
    4    stopped at a cost ceiling or a deadline
    5    the ledger cannot be read or written
    130  interrupted (Ctrl-C)
    141  the reader of a pipe went away
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from tierwise import __version__

__all__ = ["main"]

# Verb → its line in `tierwise --help`, in the order in which a newcomer needs them. Each lives in
# `tierwise.cli.<verb>` as `command`; a test holds these lines against the commands' own first lines.
VERBS = {
    "analyze": "What you spent, and what routing would have saved, from transcripts on this machine.",
    "demo": "Run an agent task of five steps and see what routing does to its cost.",
    "route": "Say where a task would go, and why. Sends nothing.",
    "classify": "Say what texts ask for: task type, confidence, needs, tier.",
    "eval": "Measure how good the classifier is on your own labelled data.",
    "run": "Run a task on the cheapest tier that does it well.",
    "exec": "Run `claude -p` on the cheapest model that does it well.",
    "serve": "Serve tools that can set a base URL: Claude Code, the Anthropic and OpenAI SDKs.",
    "claude": "Run the Claude Code CLI through the gateway, which is started if none runs.",
    "mcp": "Serve route, report and feedback to agents as tools, over MCP on stdin and stdout.",
    "types": "Teach the classifier task types of your own, from a dozen examples.",
    "feedback": "Say what a call really was, or whether it was good.",
    "train": "Learn from feedback that names the right task type.",
    "replay": "The same calls under other policies, prices or models, side by side.",
    "estimate": "What a workload costs a day and a month, before and after routing.",
    "report": "What was spent and saved, from the ledger.",
    "comment": "Say on a pull request what its agents cost, in one comment that sums up all runs.",
    "dashboard": "See money, quality and routing in a browser, from the ledger.",
    "export": "Write the ledger out as JSON Lines or CSV.",
    "prices": "Show the prices that apply on a day.",
    "keys": "Make, list and revoke keys for the gateway's clients.",
    "budgets": "Set, list and remove limits of what may be spent.",
    "ledger": "Look after the ledger: size, batches, verify, backup, prune, rebuild.",
    "init": "Write a first tierwise.toml and install the embedded local model.",
    "doctor": "Check keys, local models, prices, ledger and configuration.",
}


class _LazyGroup(click.Group):
    """A group whose verbs are imported when they run; `--help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = import_module(f"tierwise.cli.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 a mistake of ours, not of the user's
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="tierwise %(version)s")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Read this configuration file instead of looking for tierwise.toml.",
)
@click.pass_context
def cli(ctx: click.Context, config: str | None) -> None:
    """Send each piece of an agent's work to the cheapest model tier that does it well.

    Every command takes --json. Exit codes: 0 done, 1 no acceptable answer, 2 unusable command, input or
    configuration, 3 not run (no key, no model), 4 cost ceiling or deadline, 5 ledger, 130 interrupted.
    """
    ctx.obj = config


def main(args: list[str] | None = None) -> None:
    """The console script. Turns every expected error into one message and an exit code."""
    _open_missing_streams()
    _escape_what_cannot_be_encoded()
    code: object = 0
    try:
        code = _run(args)
        sys.stdout.flush()  # here a broken pipe or a full disk can still be told of; at exit it could not
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt, EOFError):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:
        code = 141  # the reader went away (`tierwise classify … | head`): nothing more to say
    except Exception as error:
        from tierwise.cli.failures import exit_code_of

        known = exit_code_of(error)
        if known is None:
            raise
        click.echo(f"tierwise: {_words(error)}", file=sys.stderr)
        code = known
    finally:
        _give_up_on_broken_streams()
    sys.exit(code if isinstance(code, int) else 0)


def _words(error: Exception) -> str:
    """The message; of the system's own errors without their numbers."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _run(args: list[str] | None) -> object:
    """What `Command.main` does, but for its own way with a broken pipe: it would make that an exit code of 1."""
    if "_TIERWISE_COMPLETE" in os.environ:
        return cli.main(args, prog_name="tierwise")  # the shell asks for completions
    try:
        with cli.make_context("tierwise", list(sys.argv[1:] if args is None else args)) as ctx:
            return cli.invoke(ctx)
    except click.exceptions.Exit as ended:
        return ended.exit_code


def _open_missing_streams() -> None:
    """A closed stdin, stdout or stderr (`<&-`) becomes the null device: the next file opened would take its place."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


def _escape_what_cannot_be_encoded() -> None:
    """What cannot be said in the terminal's encoding (a lone surrogate, a € in ASCII) is escaped, never a crash."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _give_up_on_broken_streams() -> None:
    """Python flushes at exit once more, and would complain: what nobody can take goes to the null device."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
