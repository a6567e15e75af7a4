"""`tierwise serve`."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierwise.cli.options import settings_of
from tierwise.cli.output import console, echo_json, json_option

if TYPE_CHECKING:
    from tierwise.core.settings import GatewaySettings, Settings

__all__ = ["command"]


@click.command("serve")
@click.option("--host", metavar="ADDRESS", help="Listen there. Anything but loopback demands keys.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Listen on this port; 0 takes any free one.")
@click.option(
    "--mode", type=click.Choice(["route", "observe"]), help="observe routes nothing and records what routing would do."
)
@click.option("--workers", type=click.IntRange(1, 64), help="Serve with that many processes.")
@click.option("--check", is_flag=True, help="Say what would be served, and exit.")
@click.option(
    "--log-level",
    type=click.Choice(["error", "warning", "info"]),
    default="warning",
    show_default=True,
    help="How much to log to stderr; info has a line for each call.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines of text, or of JSON.",
)
@click.option("--trace", is_flag=True, help="Export traces by OTLP, as OpenTelemetry's variables (OTEL_…) say.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    host: str | None,
    port: int | None,
    mode: str | None,
    workers: int | None,
    check: bool,
    log_level: str,
    log_format: str,
    trace: bool,
    as_json: bool,
) -> None:
    """Serve tools that can set a base URL: Claude Code, the Anthropic and OpenAI SDKs.

    ANTHROPIC_BASE_URL=http://127.0.0.1:8484 claude. A request for `claude-tierwise-auto` is routed; one for any other
    model passes through untouched. Both are priced and recorded.
    """
    from tierwise.config import config_paths
    from tierwise.core.errors import ConfigError
    from tierwise.core.settings import GatewayMode
    from tierwise.gateway.extra import check_installed

    check_installed()
    from tierwise.gateway.app import LOOPBACK, Gateway
    from tierwise.gateway.server import GatewayServer, check_upstreams, listen
    from tierwise.gateway.setup import Setup
    from tierwise.gateway.supervisor import Supervisor, check_supported
    from tierwise.gateway.telemetry import otlp_tracer, set_up_logging
    from tierwise.ledger import Ledger
    from tierwise.ledger.keys import Keys

    def read() -> Settings:
        settings = settings_of(ctx)
        gateway = settings.gateway
        return replace(
            settings,
            gateway=replace(
                gateway,
                host=host or gateway.host,
                port=gateway.port if port is None else port,
                mode=GatewayMode(mode) if mode else gateway.mode,
                workers=workers or gateway.workers,
            ),
        )

    set_up_logging(log_level, log_format)
    settings = read()
    where = settings.gateway
    check_supported(where.workers)
    if where.host not in LOOPBACK:
        with Ledger.of(settings.ledger) as ledger:
            if not Keys(ledger).exist(time.time_ns() // 1_000_000):
                raise ConfigError(
                    f"gateway.host is {where.host}, where others can reach it, and there is no key: make one with "
                    "`tierwise keys create NAME`, or listen on 127.0.0.1"
                )
    try:
        tracer = otlp_tracer() if trace else None
    except ImportError as error:
        raise ConfigError(f"traces need {error.name}: pip install 'tierwise[otel]'") from None
    if check:
        _tell(where, where.port, settings.providers[where.upstream].name, as_json=as_json)
        return
    sock = listen(where.host, where.port)
    at = sock.getsockname()[1]
    try:
        check_upstreams(settings, at)
        named = ctx.obj
        watched = config_paths(os.environ, Path.cwd(), Path(named) if named else None)
        server: GatewayServer | Supervisor
        if where.workers > 1:
            setup = Setup(log_level, log_format, trace)
            server = Supervisor(settings, sock, workers=where.workers, setup=setup, reload=read, watched=watched)
        else:
            server = GatewayServer(Gateway(settings, tracer=tracer), sock, reload=read, watched=watched)
    except BaseException:
        sock.close()
        raise
    _tell(where, at, settings.providers[where.upstream].name, as_json=as_json)
    server.run()


def _tell(where: GatewaySettings, port: int, upstream: str, *, as_json: bool) -> None:
    from tierwise.core.settings import http_url

    url = http_url(where.host, port)
    if as_json:
        echo_json(
            {
                "url": url,
                "mode": where.mode.value,
                "routed_models": list(where.routed_models),
                "upstream": upstream,
            }
        )
        sys.stdout.flush()
        return
    out = console()
    out.print(f"[bold]tierwise[/] serves {url} until Ctrl-C   [dim]mode {where.mode.value}[/]")
    for client, setting in (
        ("Claude Code", f"ANTHROPIC_BASE_URL={url} claude --model {where.routed_models[0]}"),
        ("OpenAI SDK", f"base_url={url}/v1"),
    ):
        out.print(f"  {client:<12} {setting}", soft_wrap=True, highlight=False)
    names = ", ".join(where.routed_models)
    out.print(f"  [dim]{names} is routed; every other model passes through to {upstream}[/]", soft_wrap=True)
    sys.stdout.flush()
