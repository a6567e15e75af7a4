"""`tierwise keys`: the keys that the gateway's clients identify themselves with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.options import ledger_of, settings_of
from tierwise.cli.output import console, echo_json, json_option, literal, moment, table

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.ledger.keys import ApiKey, Keys

__all__ = ["SCOPES", "command", "existing_ledger", "key_named"]

SCOPES = ("calls", "receipts", "metrics", "manage")  # those of `KeyScope`, which a test compares


@click.group("keys")
def command() -> None:
    """Make, list and revoke keys for the gateway's clients.

    Every subcommand takes --json.
    """


@command.command("create")
@click.argument("name")
@click.option("--project", metavar="NAME", help="The project of its calls, whatever their headers say.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="What it may be used for; may be given several times. Otherwise calls and receipts.",
)
@click.option("--min-tier", metavar="TIER", help="Its calls go to no tier below this one.")
@click.option("--max-tier", metavar="TIER", help="Its calls go to no tier above this one.")
@json_option
@click.pass_context
def create(
    ctx: click.Context,
    /,
    *,
    name: str,
    project: str | None,
    scopes: tuple[str, ...],
    min_tier: str | None,
    max_tier: str | None,
    as_json: bool,
) -> None:
    """Make a key, and show its secret this once.

    NAME is what lists and logs call it. Only the secret is written to stdout. Only its hash is stored: when it is
    lost, revoke the key and make another.
    """
    from tierwise.ledger import Ledger
    from tierwise.ledger.keys import DEFAULT_SCOPES, KeyPolicy, Keys, KeyScope

    settings = settings_of(ctx)
    tiers = [settings.catalog.tier(tier) for tier in (min_tier, max_tier) if tier is not None]
    if len(tiers) == 2 and tiers[1].tier < tiers[0].tier:
        raise click.UsageError(f"--min-tier {min_tier} is above --max-tier {max_tier}")
    if not name.strip():
        raise click.UsageError("NAME is empty; a key needs a name to be recognised by")
    with Ledger.of(settings.ledger) as ledger:
        made = Keys(ledger).create(
            name,
            _now_ms(),
            project=project,
            scopes=[KeyScope(scope) for scope in scopes] or DEFAULT_SCOPES,
            policy=KeyPolicy(min_tier, max_tier),
        )
    if as_json:
        echo_json({**_as_json(made.key), "secret": made.secret})
        return
    click.echo(made.secret)
    click.echo(
        f"key {made.key.key_id} {name!r} is made. Its secret is shown this once: keep it somewhere safe.", err=True
    )


@command.command("list")
@json_option
@click.pass_context
def show(ctx: click.Context, /, *, as_json: bool) -> None:
    """List the keys, revoked ones too."""
    from tierwise.ledger.keys import Keys

    settings = settings_of(ctx)
    ledger = ledger_of(settings)
    found: list[ApiKey] = []
    if ledger is not None:
        with ledger:
            found = Keys(ledger).all()
    if as_json:
        echo_json({"ledger": settings.ledger.path, "keys": [_as_json(key) for key in found]})
        return
    out = console()
    if not found:
        out.print(f"No keys are in {settings.ledger.path}. `tierwise keys create NAME` makes one.", markup=False)
        return
    drawn = table("id", "name", "project", "scopes", "tiers", "made", "revoked")
    for key in found:
        cells = (
            key.key_id,
            key.name,
            key.project or "–",
            ", ".join(sorted(key.scopes)),
            _tiers(key),
            moment(key.created_at_ms),
            moment(key.revoked_at_ms),
        )
        drawn.add_row(*map(literal, cells), style="dim" if key.revoked_at_ms is not None else None)
    out.print(drawn)


@command.command("revoke")
@click.argument("key", metavar="ID")
@json_option
@click.pass_context
def revoke(ctx: click.Context, /, *, key: str, as_json: bool) -> None:
    """Refuse a key from now on.

    ID is what `tierwise keys list` shows; the key's name will do where only one active key has it. Running gateways
    notice within about a second. Running calls go on.
    """
    from tierwise.ledger.keys import Keys

    with existing_ledger(ctx, "keys", "`tierwise keys create NAME` makes one") as ledger:
        keys = Keys(ledger)
        revoked = keys.revoke(key_named(keys, key).key_id, _now_ms())
    if revoked is None:
        raise click.UsageError(f"no key {key!r} is there any more; `tierwise keys list` shows those that are")
    if as_json:
        echo_json(_as_json(revoked))
        return
    click.echo(f"key {revoked.key_id} {revoked.name!r} is revoked since {moment(revoked.revoked_at_ms)}")


def existing_ledger(ctx: click.Context, what: str, todo: str) -> Ledger:
    """The configured ledger.

    Raises:
        click.UsageError: there is none, so it holds no `what` either.
    """
    settings = settings_of(ctx)
    ledger = ledger_of(settings)
    if ledger is None:
        raise click.UsageError(f"there are no {what}: there is no ledger {settings.ledger.path} yet; {todo}")
    return ledger


def key_named(keys: Keys, text: str) -> ApiKey:
    """The key of that id, or the one in use of that name.

    Raises:
        click.UsageError: there is none, or more than one of that name.
    """
    known = keys.all()
    found = [key for key in known if key.key_id == text] or [
        key for key in known if key.name == text and key.revoked_at_ms is None
    ]
    if not found:
        raise click.UsageError(f"no key {text!r}; `tierwise keys list` shows the keys")
    if len(found) > 1:
        ids = ", ".join(key.key_id for key in found)
        raise click.UsageError(f"{len(found)} keys are named {text!r}; say which by its id: {ids}")
    return found[0]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _tiers(key: ApiKey) -> str:
    low, high = key.policy.min_tier, key.policy.max_tier
    return f"{low or ''}…{high or ''}" if low or high else "all"


def _as_json(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "project": key.project,
        "scopes": sorted(key.scopes),
        "min_tier": key.policy.min_tier,
        "max_tier": key.policy.max_tier,
        "created_at_ms": key.created_at_ms,
        "revoked_at_ms": key.revoked_at_ms,
    }
