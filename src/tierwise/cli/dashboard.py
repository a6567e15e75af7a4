"""`tierwise dashboard`."""

from __future__ import annotations

import sys
import threading
import time

import click

from tierwise.cli.options import settings_of
from tierwise.cli.output import console, echo_json, json_option

__all__ = ["command"]


@click.command("dashboard")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Listen there.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8485,
    show_default=True,
    help="Listen on this port; 0 takes any free one.",
)
@click.option("--open/--no-open", "opens", default=True, help="Open a browser.", show_default=True)
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, host: str, port: int, opens: bool, as_json: bool) -> None:
    """See money, quality and routing in a browser, from the ledger.

    It also receives Claude Code's telemetry into the ledger. No gateway has to run; a running one serves the same page
    at /dashboard, with its rate limits and circuits, and takes telemetry as well. Anything but loopback demands keys:
    with the scopes metrics and receipts for the page, and calls for telemetry.
    """
    from tierwise import __version__
    from tierwise.core.errors import ConfigError
    from tierwise.gateway.extra import check_installed

    check_installed()
    from tierwise.core.settings import http_url
    from tierwise.dashboard.app import Dashboard
    from tierwise.dashboard.runtime import Alone
    from tierwise.dashboard.serving import serve
    from tierwise.gateway.app import LOOPBACK
    from tierwise.gateway.server import listen
    from tierwise.ledger import Ledger
    from tierwise.ledger.keys import Keys, KeyScope
    from tierwise.ledger.summing import Summing
    from tierwise.otlp.app import Beside, Receiving
    from tierwise.otlp.receiver import Receiver

    settings = settings_of(ctx)
    demands_keys = host not in LOOPBACK
    with Ledger.of(settings.ledger) as ledger, Summing(ledger):
        if demands_keys and not Keys(ledger).exist(time.time_ns() // 1_000_000):
            raise ConfigError(
                f"--host is {host}, where others can reach it, and there is no key: make one with "
                "`tierwise keys create NAME --scope metrics --scope receipts`, or listen on 127.0.0.1"
            )
        sock = listen(host, port)
        url = f"{http_url(host, sock.getsockname()[1])}/dashboard/"
        if as_json:
            echo_json({"url": url, "ledger": settings.ledger.path})
        else:
            console().print(f"[bold]tierwise[/] shows {settings.ledger.path} at {url} until Ctrl-C", soft_wrap=True)
        sys.stdout.flush()
        if opens:
            threading.Thread(target=click.launch, args=(url,), daemon=True).start()
        runtime = Alone(settings, ledger, demands_keys=demands_keys)
        receiving = Receiving(
            Receiver(ledger if settings.ledger.enabled else None, runtime),
            lambda headers: runtime.identify(headers, KeyScope.CALLS),
            demands_keys=demands_keys,
            ends=lambda: runtime.stopping,
        )
        serve(Beside(Dashboard(ledger, runtime, version=__version__), receiving), sock, runtime)
