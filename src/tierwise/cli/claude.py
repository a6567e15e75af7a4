"""`tierwise claude`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import TYPE_CHECKING

import click

from tierwise.cli.options import settings_of

if TYPE_CHECKING:
    from tierwise.core.settings import GatewaySettings

__all__ = ["command"]

_START_SECONDS = 15.0


@click.command("claude", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, /, *, arguments: tuple[str, ...]) -> None:
    """Run the Claude Code CLI through the gateway, which is started if none runs.

    All arguments go to `claude`. A gateway that was started for it ends with it.
    """
    from tierwise.core.errors import ConfigError

    program = shutil.which("claude")
    if program is None:
        raise ConfigError("there is no `claude` on the PATH; install it with: npm install -g @anthropic-ai/claude-code")
    gateway = settings_of(ctx).gateway
    url = f"http://{gateway.host}:{gateway.port}"
    started = None if _answers(url) else _start(ctx.obj, gateway, url)
    try:
        environment = {**os.environ, "ANTHROPIC_BASE_URL": url}
        finished = subprocess.run([program, *arguments], env=environment, check=False)  # noqa: S603  the user's own command
    finally:
        if started is not None:
            started.terminate()
            started.wait()
    sys.exit(finished.returncode)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=1.0) as answer:  # noqa: S310  our own address
            return bool(json.load(answer).get("status") == "ok")
    except (OSError, ValueError):
        return False


def _start(config: str | None, gateway: GatewaySettings, url: str) -> subprocess.Popen[bytes]:
    from tierwise.core.errors import ConfigError

    command = [sys.executable, "-m", "tierwise", *(["--config", config] if config else [])]
    command += ["serve", "--host", gateway.host, "--port", str(gateway.port)]
    # Its clients' variable must not become its own upstream's.
    environment = {name: value for name, value in os.environ.items() if name != "ANTHROPIC_BASE_URL" or value != url}
    # Into a file: a pipe that nobody reads is full at some time, and then the gateway stands still.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)  # noqa: S603  as above
        ends = time.monotonic() + _START_SECONDS
        while time.monotonic() < ends:
            if _answers(url):
                return process
            if process.poll() is not None:
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip()
                raise ConfigError(f"the gateway did not start: {said.rsplit(chr(10), 1)[-1]}")
            time.sleep(0.05)
    process.terminate()
    raise ConfigError(f"the gateway did not answer at {url} within {_START_SECONDS:g} s; try `tierwise serve`")
