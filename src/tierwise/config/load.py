"""Reads the configuration: shipped defaults, the user's file, the project's file, the environment, in that order.

A file found by looking around (tierwise.toml in the working directory or above it) may come with somebody else's
repository. It can route as it likes, but it cannot send this machine's keys to another host: a provider's address
outside loopback, its headers and the name of its key variable are only taken from the user's own file or from one
named explicitly (`--config`, `TIERWISE_CONFIG`). So is `ledger.capture_text`, which keeps what people asked.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tierwise.config.build import build_settings, default_ledger_path, home
from tierwise.core.errors import ConfigError
from tierwise.core.settings import Settings

if TYPE_CHECKING:
    from pydantic import ValidationError

    from tierwise.config.schema import ConfigFile

__all__ = ["config_paths", "default_ledger_path", "load_settings", "shipped_settings", "user_config_path"]

FILE_NAME = "tierwise.toml"
_MAX_FILE_BYTES = 4 * 1024 * 1024
# pydantic names the arm of a union in an error's location; a user's file has no such key.
_UNION_ARMS = frozenset({"bool", "literal['low','medium','high','xhigh','max']"})


def user_config_path(env: Mapping[str, str]) -> Path:
    """The user's own configuration file (it need not exist)."""
    base = env.get("XDG_CONFIG_HOME")
    return (Path(base) if base else home(env) / ".config") / "tierwise" / FILE_NAME


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    trusted: bool  # may set where keys are sent


def config_paths(env: Mapping[str, str], cwd: Path, explicit: Path | None = None) -> tuple[Path, ...]:
    """The files that would be read, lowest precedence first."""
    return tuple(source.path for source in _sources(env, cwd, explicit))


def _sources(env: Mapping[str, str], cwd: Path, explicit: Path | None) -> tuple[_Source, ...]:
    named = explicit or (Path(env["TIERWISE_CONFIG"]) if env.get("TIERWISE_CONFIG") else None)
    if named is not None:
        return (_Source(cwd / named.expanduser(), trusted=True),)
    found: list[_Source] = []
    user = user_config_path(env)
    if _is_file(user):
        found.append(_Source(user, trusted=True))
    for folder in (cwd, *cwd.parents):
        candidate = folder / FILE_NAME
        if _is_file(candidate):
            if candidate != user:
                found.append(_Source(candidate, trusted=False))
            break
        if (folder / ".git").exists():
            break  # the project ends here
    return tuple(found)


def _is_file(path: Path) -> bool:
    # Path.is_file raises where a directory above may not be looked into; there is nothing to be read there either.
    try:
        return path.is_file()
    except OSError:
        return False


def load_settings(
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    path: Path | None = None,
) -> Settings:
    """Reads everything that is configured.

    Args:
        env: the environment, os.environ when None.
        cwd: where to look for tierwise.toml, the working directory when None.
        path: read this file instead of looking for any.

    Raises:
        ConfigError: names the file, the key, what is wrong and what is allowed.
    """
    env = os.environ if env is None else env
    if cwd is None:
        try:
            cwd = Path.cwd()
        except FileNotFoundError:
            raise ConfigError("the working directory does not exist any more; change to one that does") from None
    return _load(_sources(env, cwd, path), env)


def shipped_settings(env: Mapping[str, str] | None = None) -> Settings:
    """The configuration as it is shipped, whatever files say here; without `env` its ledger is nowhere."""
    return _load((), {"HOME": os.devnull} if env is None else env)


def _load(sources: tuple[_Source, ...], env: Mapping[str, str]) -> Settings:
    merged = _defaults()
    dated: list[dict[str, Any]] = []
    for source in sources:
        raw = _read(source.path)
        _validate(raw, source.path)
        if not source.trusted:
            _refuse_foreign_providers(raw, source.path)
            _refuse_foreign_capture(raw, source.path)
        dated.extend(raw.pop("prices", ()))
        merged = _merge(merged, _long_form(raw))
    where = " over ".join(str(source.path) for source in reversed(sources)) or "the defaults"
    from tierwise.config.schema import DatedPrice  # noqa: PLC0415

    return build_settings(
        _validate(merged, Path(where)),
        private_prices=[DatedPrice.model_validate(entry) for entry in dated],
        shipped_prices=[DatedPrice.model_validate(entry) for entry in tomllib.loads(_defaults_text()[1])["prices"]],
        env=env,
        where=where,
        sources=tuple(s.path for s in sources),
    )


@cache
def _defaults_text() -> tuple[str, str]:
    data = files("tierwise") / "data"
    return (data / "defaults.toml").read_text("utf-8"), (data / "prices.toml").read_text("utf-8")


def _defaults() -> dict[str, Any]:
    return tomllib.loads(_defaults_text()[0])


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)  # not by its size: a device has none
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path} is too long: a configuration file may have {_MAX_FILE_BYTES:,} bytes")
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}; create it with `tierwise init`") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError of another kind
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _validate(raw: Mapping[str, Any], path: Path) -> ConfigFile:
    from pydantic import ValidationError  # noqa: PLC0415  pydantic costs 45 ms: not for `--help`

    from tierwise.config.schema import ConfigFile  # noqa: PLC0415

    try:
        return ConfigFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(error, raw, path)) from None


def _explain(error: ValidationError, raw: Mapping[str, Any], path: Path) -> str:
    """A message per mistake: key, what is wrong, what is allowed."""
    lines: list[str] = []
    seen: dict[str, int] = {}
    for problem in error.errors(include_url=False):
        loc = [str(part) for part in problem["loc"] if not str(part).startswith(("function-", "tagged-"))]
        loc = [part for part in loc if part not in _UNION_ARMS and part != "[key]"]
        key = ".".join(loc) or "(the whole file)"
        if key in seen:  # another arm of a union: it would have been right, too
            lines[seen[key]] += f", or {problem['msg'][:1].lower()}{problem['msg'][1:]}"
            continue
        seen[key] = len(lines)
        if problem["type"] == "extra_forbidden":
            allowed = _allowed_keys(loc[:-1])
            near = difflib.get_close_matches(loc[-1], allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            lines.append(f"unknown key {key!r}{hint} Allowed here: {', '.join(allowed)}")
        else:
            value = problem.get("input")
            shown = f" (it is {_short(value)})"
            if isinstance(value, dict):
                shown = ""
            elif {"api_key_env", "api_key_envs"} & set(loc):
                shown = "; give the name of an environment variable, not the key itself"
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {message[:1].lower()}{message[1:]}{shown}")
    head = f"{path}: " if len(lines) == 1 else f"{path} has {len(lines)} mistakes:\n  "
    return head + "\n  ".join(lines)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _allowed_keys(loc: list[str]) -> list[str]:
    from tierwise.config import schema  # noqa: PLC0415

    if not loc:
        return sorted(schema.ConfigFile.model_fields)
    sections: dict[str, type[Any]] = {
        "tiers": schema.TierSection,
        "models": schema.ModelSection,
        "providers": schema.ProviderSection,
        "policy": schema.PolicySection,
        "overrides": schema.OverridesSection,
        "limits": schema.LimitsSection,
        "ledger": schema.LedgerSection,
        "gateway": schema.GatewaySection,
        "prices": schema.DatedPrice,
        "task_types": schema.TaskTypeSection,
    }
    if loc[0] == "policy" and "rules" in loc:
        section: type[Any] = schema.RuleSection
    elif loc[0] == "overrides" and "patterns" in loc:
        section = schema.PatternSection
    elif loc[0] == "gateway" and "limits" in loc:
        section = schema.RateLimitSection
    elif loc[0] == "gateway" and "projects" in loc:
        section = schema.ProjectSection
    elif loc[0] == "prices" and "bands" in loc:
        section = schema.PriceSection
    else:
        section = sections.get(loc[0], schema.ConfigFile)
    return sorted(field.alias or name for name, field in section.model_fields.items())


def _refuse_foreign_providers(raw: Mapping[str, Any], path: Path) -> None:
    for name, section in raw.get("providers", {}).items():
        url = section.get("base_url")
        host = urlsplit(url).hostname if url else None
        if url and host not in {"127.0.0.1", "localhost", "::1"}:
            key = f"providers.{name}.base_url"
        elif "api_key_env" in section:
            key = f"providers.{name}.api_key_env"
        elif "api_key_envs" in section:
            key = f"providers.{name}.api_key_envs"
        elif "headers" in section:
            key = f"providers.{name}.headers"
        else:
            continue
        raise ConfigError(
            f"{path}: {key} decides where this machine's keys are sent, so it is not taken from a file that was "
            f"only found here. Put it in your own configuration (~/.config/tierwise/{FILE_NAME}), or name this file: "
            f"--config {path} or TIERWISE_CONFIG={path}"
        )


def _refuse_foreign_capture(raw: Mapping[str, Any], path: Path) -> None:
    if raw.get("ledger", {}).get("capture_text"):
        raise ConfigError(
            f"{path}: ledger.capture_text keeps parts of your prompts, so it is not taken from a file that was only "
            f"found here. Put it in your own configuration (~/.config/tierwise/{FILE_NAME}), or name this file: "
            f"--config {path} or TIERWISE_CONFIG={path}"
        )


def _long_form(raw: dict[str, Any]) -> dict[str, Any]:
    """The same with every tier as a section, so that another file can add to it: tiers.local = ["…"]."""
    tiers = raw.get("tiers")
    if tiers is None:
        return raw
    return {
        **raw,
        "tiers": {name: {"models": tier} if isinstance(tier, list) else tier for name, tier in tiers.items()},
    }


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged
