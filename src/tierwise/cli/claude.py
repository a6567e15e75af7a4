"""`tierwise claude`."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierwise.cli.options import settings_of
from tierwise.cli.output import echo_json, json_option
from tierwise.cli.signals import ending_signals

if TYPE_CHECKING:
    from tierwise.core.settings import GatewaySettings

__all__ = ["command", "gateway_answers"]

_START_SECONDS = 15.0
_ARGUMENTS = "tierwise.claude.arguments"


class _Claude(click.Group):
    """`tierwise claude install` is ours; anything else is the CLI's own, word for word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        if not ours:
            ctx.meta[_ARGUMENTS] = tuple(args[1:] if args[:1] == ["--"] else args)
        return super().parse_args(ctx, args if ours else [])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[install|uninstall|status] | [ARGUMENTS OF claude]..."]


@click.group("claude", cls=_Claude, invoke_without_command=True, no_args_is_help=False)
@click.pass_context
def command(ctx: click.Context, /) -> None:
    """Run the Claude Code CLI through the gateway, which is started if none runs.

    All arguments go to `claude`, except `install`, `uninstall` and `status`, which manage tierwise's plugin for it
    (the CLI's own: `tierwise claude -- install`). A gateway that was started for it ends with it.
    """
    if ctx.invoked_subcommand is None:
        _run(ctx, ctx.meta[_ARGUMENTS])


@command.command("install")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--no-status-line", is_flag=True, help="Leave the settings alone.")
@json_option
def install(*, yes: bool, dry_run: bool, no_status_line: bool, as_json: bool) -> None:
    """Install the plugin: subagents get the model that suits, sessions are recorded, /tierwise reports.

    Shows first what is written and what changes in Claude Code's settings, and keeps a copy of them.
    """
    from datetime import UTC, datetime

    from tierwise.config.changes import diff
    from tierwise.integrations.claude_code import installing
    from tierwise.integrations.claude_code.places import Places

    places = Places.of(os.environ)
    wanted = installing.plan(places, status_line=not no_status_line)
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json asks nothing: add --yes or --dry-run")
    if not as_json:
        click.echo(f"{wanted.folder}: {len(wanted.files)} files")
        click.echo(diff(wanted.settings) if wanted.settings else f"{places.settings}: {wanted.note}")
    if not dry_run and not yes:
        click.confirm("Install?", abort=True)
    copies = () if dry_run else installing.install(places, wanted, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    if as_json:
        echo_json(
            {
                "installed": not dry_run,
                "folder": wanted.folder,
                "files": wanted.files,
                "settings": places.settings if wanted.settings else None,
                "diff": diff(wanted.settings) if wanted.settings else "",
                "note": wanted.note,
                "copies": copies,
            }
        )
    elif not dry_run:
        for copy in copies:
            click.echo(f"the settings as they were: {copy}")
        click.echo("installed; it takes effect in the next session. To remove it: tierwise claude uninstall")


@command.command("uninstall")
@click.option("--yes", is_flag=True, help="As of install; nothing is asked here.")
@json_option
def uninstall(*, yes: bool, as_json: bool) -> None:
    """Remove the plugin, and restore the settings.

    Nothing is asked: what somebody has changed or added since stays, and is named.
    """
    from tierwise.integrations.claude_code import installing
    from tierwise.integrations.claude_code.places import Places

    done = installing.uninstall(Places.of(os.environ))
    if as_json:
        echo_json(
            {
                "folder": done.folder,
                "files": done.files,
                "kept": done.kept,
                "settings": [{"path": step.path, "how": step.how, "kept": step.kept} for step in done.settings],
            }
        )
        return
    click.echo(f"{done.folder}: {done.files} files removed" if done.files else "the plugin was not installed")
    for path in done.kept:
        click.echo(f"left, since it is not as it was installed: {path}")
    for step in done.settings:
        click.echo(f"{step.path}: {step.how}{f', kept {chr(44).join(step.kept)}' if step.kept else ''}")


@command.command("status")
@json_option
def status(*, as_json: bool) -> None:
    """Say whether the plugin is installed and works, and where Claude Code sends its telemetry."""
    from tierwise.integrations.claude_code import installing
    from tierwise.integrations.claude_code.places import Places

    found = installing.status(Places.of(os.environ), os.environ)
    if as_json:
        echo_json(found)
        return
    click.echo(f"telemetry: {found.telemetry or 'off'}")
    if found.version is None:
        click.echo("the plugin is not installed: tierwise claude install")
        return
    click.echo(f"plugin {found.version} in {found.folder}")
    if not found.python_works:
        click.echo("  its Python is gone: tierwise claude install")
    for name in found.changed:
        click.echo(f"  changed since: {name}")
    click.echo(f"  status line: {'in the settings' if found.status_line else 'not in the settings'}")
    click.echo(f"  companion: {'running' if found.companion else 'not running; the next session starts it'}")


@command.command("_companion", hidden=True)
@click.argument("place", type=click.Path(path_type=Path))
def companion(*, place: Path) -> None:
    """Answer the plugin's hooks on this socket; the first event is on stdin."""
    from tierwise.integrations.claude_code.companion import serve

    serve(place, os.environ, sys.stdin.buffer.read())


def _run(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    from tierwise.core.errors import ConfigError

    program = shutil.which("claude")
    if program is None:
        raise ConfigError("there is no `claude` on the PATH; install it with: npm install -g @anthropic-ai/claude-code")
    gateway = settings_of(ctx).gateway
    url = gateway.url
    _when_told_to_end(lambda number: sys.exit(128 + number))
    started = None if gateway_answers(url) else _start(ctx.obj, gateway, url)
    try:
        environment = {**os.environ, **_past_proxies(gateway.host), "ANTHROPIC_BASE_URL": url}
        code = _until_it_ends([program, *arguments], environment)
    finally:
        if started is not None:
            started.terminate()
            started.wait()
    sys.exit(code if code >= 0 else 128 - code)


def _past_proxies(host: str) -> dict[str, str]:
    """The variables that keep proxies from being asked for the gateway; some programs read the one, some the other."""
    said = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    hosts = said if said == "*" else f"{said},{host}" if said else host
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def _when_told_to_end(then: Callable[[int], object]) -> None:
    """What happens at a signal that would end us, and leave the gateway behind."""
    for number in ending_signals():
        signal.signal(number, lambda told, _: then(told))


def _until_it_ends(command: list[str], environment: dict[str, str]) -> int:
    """Runs the CLI; its exit code. Ctrl-C is for it alone, which hears of it from the terminal as we do."""
    told: list[int] = []
    _when_told_to_end(told.append)
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)  # not ignored: that, it would inherit
    try:
        cli = subprocess.Popen(command, env=environment)  # noqa: S603  the user's own command
        _when_told_to_end(cli.send_signal)
        for number in told:  # while it was started
            cli.send_signal(number)
        return cli.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def gateway_answers(url: str) -> bool:
    """Whether what listens there is a gateway that can be used."""
    here = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to it
    try:
        with here.open(f"{url}/healthz", timeout=1.0) as answer:
            told = json.load(answer)
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return False  # nobody, or somebody else
    return isinstance(told, dict) and told.get("status") == "ok"


def _start(config: str | None, gateway: GatewaySettings, url: str) -> subprocess.Popen[bytes]:
    from tierwise.core.errors import ConfigError

    # -P: what lies in the working directory is no part of it.
    command = [sys.executable, "-P", "-m", "tierwise", *(["--config", config] if config else [])]
    command += ["serve", "--host", gateway.host, "--port", str(gateway.port)]
    # Its clients' variable must not become its own upstream's.
    environment = {name: value for name, value in os.environ.items() if name != "ANTHROPIC_BASE_URL" or value != url}
    # Into a file: a pipe that nobody reads is full at some time, and then the gateway stands still.
    with tempfile.TemporaryFile() as log:
        # A session of its own, since its Ctrl-C would be the CLI's, whose interrupted calls it is to hear of.
        process = subprocess.Popen(  # noqa: S603  as above
            command, stdout=subprocess.DEVNULL, stderr=log, env=environment, start_new_session=True
        )
        try:
            ends = time.monotonic() + _START_SECONDS
            while time.monotonic() < ends:
                if gateway_answers(url):
                    return process
                if process.poll() is not None:
                    log.seek(0)
                    said = log.read().decode("utf-8", "replace").strip()
                    raise ConfigError(f"the gateway did not start: {said.rsplit(chr(10), 1)[-1]}")
                time.sleep(0.05)
            raise ConfigError(f"the gateway did not answer at {url} within {_START_SECONDS:g} s; try `tierwise serve`")
        except BaseException:
            process.terminate()
            raise
