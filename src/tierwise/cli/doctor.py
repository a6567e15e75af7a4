"""`tierwise doctor`.

Each check looks at one thing, catches what can go wrong with it, and says how to mend it: one broken thing must not
keep the others from being looked at.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierwise import __version__
from tierwise.cli.options import settings_of
from tierwise.cli.output import console, echo_json, json_option
from tierwise.core.errors import ConfigError, LedgerCorrupt, LedgerError, LedgerTooNew, TierwiseError, UnpricedModel

if TYPE_CHECKING:
    from tierwise.core.catalog import Model
    from tierwise.core.settings import Settings
    from tierwise.ledger import Ledger, ModelSpeed
    from tierwise.providers.base import Availability, Provider, Reply

__all__ = ["command"]

_OLD_PRICES_DAYS = 60
_SHOWN_CALLS = 20
_SPEED_SECONDS = 120.0
_SPEED_TOKENS = 64
_SPEED_PROMPT = "Write the numbers from one to fifty in words, separated by commas."


class _Status(StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing, nothing to mend
    WARNING = "warning"  # works, but not as well as it could
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class _Check:
    """What was looked at and found, and what to do about it."""

    area: str
    status: _Status
    text: str
    mend: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@click.command("doctor")
@click.option("--recover", is_flag=True, help="Save what can be read of a damaged ledger into a fresh one.")
@click.option("--speed/--no-speed", default=True, help="Measure the local models with a short answer (takes seconds).")
@json_option
@click.pass_context
def command(ctx: click.Context, /, *, recover: bool, speed: bool, as_json: bool) -> None:
    """Check keys, local models, prices, ledger and configuration.

    Says how to fix what is wrong. Exit code 0 when everything can be used (warnings allowed), 1 when something is
    broken. Keys are never shown, only whether they are set; nothing is sent to an API.
    """
    checks: list[_Check] = [_python()]
    settings, found = _configuration(ctx)
    checks += found
    ledger_checks = _recover(settings) if recover else []
    ledger_checks += _ledger(settings)
    with _working("asking the local models …"):
        models = asyncio.run(_models(settings, speed=speed))
    checks += _keys(settings)
    checks += models
    checks += _any_model(settings, models)
    checks.append(_classifier(settings))
    checks += _prices(settings)
    checks += ledger_checks
    broken = any(check.status is _Status.BROKEN for check in checks)
    if as_json:
        echo_json({"ok": not broken, "version": __version__, "checks": [_as_json(check) for check in checks]})
    else:
        _show(checks)
    if broken:
        ctx.exit(1)


def _as_json(check: _Check) -> dict[str, Any]:
    return {
        "area": check.area,
        "status": check.status,
        "text": check.text,
        "mend": check.mend or None,
        "facts": check.facts,
    }


def _show(checks: list[_Check]) -> None:
    from rich.text import Text

    styles = {_Status.OK: "green", _Status.NOTE: "dim", _Status.WARNING: "yellow", _Status.BROKEN: "bold red"}
    out = console()
    for check in checks:
        line = Text(f"{check.status.value:<8}", style=styles[check.status])
        line.append(f"{check.area:<14}", style="dim").append(check.text, style="default")
        out.print(line, soft_wrap=True)
        if check.mend:
            out.print(Text(f"{'':<22}to mend it: {check.mend}", style="default"), soft_wrap=True)
    counts = {status: sum(check.status is status for check in checks) for status in _Status}
    if counts[_Status.BROKEN]:
        out.print(f"\n{counts[_Status.BROKEN]} broken, {counts[_Status.WARNING]} warnings", style="bold red")
    else:
        out.print(f"\nAll can be used; {counts[_Status.WARNING]} warnings", style="bold")


@contextmanager
def _working(text: str) -> Iterator[None]:
    """Progress, where somebody looks."""
    if not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(text):
        yield


# ------------------------------------------------------------------ the program and its configuration


def _python() -> _Check:
    text = f"tierwise {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return _Check("program", _Status.OK, text, facts={"python": platform.python_version(), "tierwise": __version__})


def _configuration(ctx: click.Context) -> tuple[Settings, list[_Check]]:
    """The settings, or those that are shipped where the configuration cannot be used."""
    from tierwise.config import shipped_settings

    try:
        settings = settings_of(ctx)
    except (ConfigError, OSError) as error:
        check = _Check(
            "configuration",
            _Status.BROKEN,
            f"{error}",
            "correct it as the message says; everything below was checked with the defaults",
        )
        mine = {name: value for name, value in os.environ.items() if not name.startswith("TIERWISE_")}
        return shipped_settings(mine), [check]
    if not settings.sources:
        return settings, [
            _Check(
                "configuration",
                _Status.NOTE,
                "no tierwise.toml: the defaults apply",
                "`tierwise init` writes one, if you want to change them",
                {"files": []},
            )
        ]
    names = ", ".join(str(path) for path in settings.sources)
    return settings, [
        _Check("configuration", _Status.OK, f"valid: {names}", facts={"files": [str(p) for p in settings.sources]})
    ]


def _keys(settings: Settings) -> list[_Check]:
    """Which key variables are set, for the providers that some tier uses; of others only those that are."""
    used = {model.provider: spec.tier.name for spec in reversed(settings.catalog.tiers) for model in spec.models}
    checks = []
    for name, provider in settings.providers.items():
        held = {key.name for key in provider.api_keys}
        for variable in provider.api_key_envs or filter(None, (provider.api_key_env,)):
            one_of_several = len(provider.api_key_envs) > 1
            is_set = variable in held if provider.api_key_envs else not provider.key_missing
            facts = {"provider": name, "env": variable, "set": is_set, "used": name in used}
            if is_set:
                via = "" if os.environ.get(variable) else " (by ANTHROPIC_AUTH_TOKEN)"
                checks.append(_Check("keys", _Status.OK, f"{variable} is set{via}, for {name}", facts=facts))
            elif name in used and one_of_several and held:
                text = f"{variable} is not set: {name} is used with its other keys ({', '.join(sorted(held))}) alone"
                checks.append(_Check("keys", _Status.WARNING, text, f"export {variable}=…", facts))
            elif name in used:
                text = f"{variable} is not set: models of {name} (from tier {used[name]} up) cannot be run, only priced"
                checks.append(_Check("keys", _Status.WARNING, text, f"export {variable}=…", facts))
    return checks


# ------------------------------------------------------------------ local models


async def _models(settings: Settings, *, speed: bool) -> list[_Check]:
    from tierwise.providers.registry import build_provider

    recorded = _recorded_speeds(settings)
    providers: dict[str, Provider] = {}
    checks = []
    try:
        for model in settings.catalog.models:
            configured = settings.providers[model.provider]
            if not configured.local:
                continue
            try:
                provider = providers.get(model.provider)
                if provider is None:
                    provider = providers[model.provider] = build_provider(configured)
                available = await provider.check(model)
            except TierwiseError as error:
                checks.append(_Check("local model", _Status.BROKEN, f"{model.id}: {error}", "see the message"))
                continue
            checks.append(await _model(provider, model, available, recorded.get(model.id), speed=speed))
    finally:
        for provider in providers.values():
            await provider.aclose()
    return checks


def _recorded_speeds(settings: Settings) -> Mapping[str, ModelSpeed]:
    from tierwise.ledger import Ledger

    if not settings.ledger.path.exists():
        return {}
    try:
        with Ledger.of(settings.ledger) as ledger:
            return ledger.model_speeds()
    except LedgerError:
        return {}  # told of where the ledger is checked


async def _model(
    provider: Provider, model: Model, available: Availability, recorded: ModelSpeed | None, *, speed: bool
) -> _Check:
    facts: dict[str, Any] = {
        "model": model.id,
        "provider": model.provider,
        "available": available.ok,
        "loaded": None,
        "measured_output_tokens_per_second": None,
        "recorded_output_tokens_per_second": None,
        "assumed_output_tokens_per_second": model.output_tokens_per_second,
    }
    if recorded is not None and recorded.output_tokens_per_second is not None:
        facts["recorded_output_tokens_per_second"] = round(recorded.output_tokens_per_second, 1)
    if not available.ok:
        # Others of the tier may do; whether any can is a check of its own.
        return _Check("local model", _Status.NOTE, f"{model.id}: {available.detail}", facts=facts)
    loaded = getattr(provider, "loaded", None)
    if loaded is not None:
        facts["loaded"] = await loaded(model)
    words = [f"{model.id} can be used"]
    if facts["loaded"] is not None:
        words.append("in memory" if facts["loaded"] else "not in memory yet: the first answer waits for it")
    if speed:
        try:
            reply = await _short_answer(provider, model)
        except TierwiseError as error:
            mend = "look at the server's log; `tierwise doctor --no-speed` leaves this out"
            return _Check("local model", _Status.BROKEN, f"{model.id} does not answer: {error}", mend, facts)
        measured = _tokens_per_second(reply)
        facts["measured_output_tokens_per_second"] = measured
        words.append("too short an answer to measure" if measured is None else f"measured {measured:,} tokens/s")
    known = facts["recorded_output_tokens_per_second"]
    words.append(
        f"recorded {known:,} tokens/s" if known is not None else f"assumed {model.output_tokens_per_second:,} tokens/s"
    )
    return _Check("local model", _Status.OK, "; ".join(words), facts=facts)


async def _short_answer(provider: Provider, model: Model) -> Reply:
    from tierwise.providers.base import ModelRequest

    body: dict[str, Any] = {
        "model": model.id,
        "max_tokens": _SPEED_TOKENS,
        "messages": [{"role": "user", "content": _SPEED_PROMPT}],
    }
    return await provider.send(ModelRequest(model=model, body=body, timeout_seconds=_SPEED_SECONDS))


def _tokens_per_second(reply: Reply) -> float | None:
    """Of the answer alone, without the wait for its first token."""
    milliseconds = reply.latency_ms - (reply.ttft_ms or 0)
    tokens = reply.usage.output_tokens
    return round(tokens * 1000 / milliseconds, 1) if tokens > 1 and milliseconds > 0 else None


def _any_model(settings: Settings, models: list[_Check]) -> list[_Check]:
    """Something must be able to answer."""
    local = any(check.facts.get("available") for check in models)
    remote = any(
        not provider.local and not provider.key_missing
        for model in settings.catalog.models
        if (provider := settings.providers[model.provider])
    )
    if not local and not remote:
        mend = "export ANTHROPIC_API_KEY=…, or start Ollama, or install the embedded model with `tierwise init`"
        return [_Check("models", _Status.BROKEN, "no model can be used: no key, no local model", mend)]
    if not local and models:
        mend = "start Ollama and pull a model, or install the embedded one with `tierwise init`"
        return [_Check("models", _Status.WARNING, "no local model can be used: its work goes a tier up", mend)]
    return []


# ------------------------------------------------------------------ classifier


def _classifier(settings: Settings) -> _Check:
    """The classifier that would be used, really asked: a damaged artifact shows here and not in the middle of a run."""
    import time

    from tierwise.classifier import TrainedClassifier, choose_classifier, load_taxonomy
    from tierwise.core.errors import ConfigError
    from tierwise.core.tasks import Task

    taxonomy = load_taxonomy().with_user_types(settings.task_types)
    try:
        classifier = choose_classifier(taxonomy, settings.classifier, settings.taught)
    except ConfigError as error:  # what was taught, or the artifact that it was taught on
        return _Check("classifier", _Status.BROKEN, str(error), 'set classifier = "rules" until then', {})
    facts: dict[str, Any] = {"kind": "trained" if isinstance(classifier, TrainedClassifier) else "rules"}
    if not isinstance(classifier, TrainedClassifier):
        if settings.classifier == "rules":
            return _Check("classifier", _Status.OK, "rules, as configured", "", facts)
        mend = "pip install onnxruntime, or reinstall tierwise"
        text = "rules: the trained models cannot run here, so more work is sent up"
        return _Check("classifier", _Status.WARNING, text, mend, facts)
    try:
        artifact = classifier.artifact
        classifier.classify(Task(text="hm, that thing of last week with Ana"))  # loads the encoder
        began = time.perf_counter()
        classifier.classify(Task(text="well, could you sort of see what became of the other thing?"))
    except ConfigError as error:
        return _Check("classifier", _Status.BROKEN, str(error), 'set classifier = "rules" until then', facts)
    milliseconds = (time.perf_counter() - began) * 1000
    facts |= {"milliseconds": round(milliseconds, 2), "test": artifact.metrics.get("test", {})}
    text = f"trained models, {len(artifact.types)} types; {milliseconds:.1f} ms for a doubtful text"
    return _Check("classifier", _Status.OK, text, "", facts)


# ------------------------------------------------------------------ prices


def _prices(settings: Settings) -> list[_Check]:
    from tierwise.prices import PriceBook

    book = PriceBook(settings.prices, settings.providers)
    today = datetime.now(UTC).date()
    info = book.info(today)
    age = None if info.package_date is None else (today - info.package_date).days
    facts = {
        "package": info.package,
        "version": info.package_version,
        "age_days": age,
        "shipped_until": info.shipped_until,
    }
    name = f"{info.package} {info.package_version}"
    if age is not None and age > _OLD_PRICES_DAYS:
        mend = f"pip install --upgrade {info.package}"
        checks = [
            _Check(
                "prices",
                _Status.WARNING,
                f"{name}: its newest dated price is {age} days old, others may have changed since",
                mend,
                facts,
            )
        ]
    else:
        checks = [
            _Check(
                "prices",
                _Status.OK,
                f"{name}, {'age unknown' if age is None else f'its newest dated price is {age} days old'}",
                "",
                facts,
            )
        ]
    for spec in settings.catalog:
        for model in spec.models:
            try:
                book.price(model, today)
            except UnpricedModel as error:
                checks.append(
                    _Check(
                        "prices",
                        _Status.BROKEN,
                        f"{model.id} of tier {spec.tier} is unpriced: nothing is routed to it",
                        str(error),
                        {"model": model.id},
                    )
                )
    return checks


# ------------------------------------------------------------------ the ledger


def _recover(settings: Settings) -> list[_Check]:
    """Only what is damaged is recovered: a sound ledger stays as it is."""
    from tierwise.ledger import Ledger, recover

    path = settings.ledger.path
    if not path.exists():
        return [_Check("recovery", _Status.NOTE, f"there is no ledger at {path}: nothing to recover")]
    try:
        with Ledger.of(settings.ledger) as ledger:
            ledger.open()
            problems = ledger.check()
    except LedgerCorrupt as error:
        problems = [str(error)]
    except LedgerError as error:
        return [_Check("recovery", _Status.BROKEN, f"not tried: {error}", "mend that first")]
    if not problems:
        return [_Check("recovery", _Status.NOTE, "the ledger is sound: nothing to recover")]
    try:
        with _working("recovering the ledger …"):
            report = recover(path)
    except LedgerError as error:
        return [_Check("recovery", _Status.BROKEN, str(error), "as the message says")]
    facts = {
        "calls": report.calls,
        "attempts": report.attempts,
        "unreadable_rows": report.unreadable_rows,
        "kept_as": report.kept_as,
    }
    return [_Check("recovery", _Status.OK, str(report), facts=facts)]


def _ledger(settings: Settings) -> list[_Check]:
    from tierwise.ledger import Ledger

    path = settings.ledger.path
    if not settings.ledger.enabled:
        return [_Check("ledger", _Status.NOTE, "switched off (ledger.enabled = false): nothing is recorded")]
    ledger = Ledger.of(settings.ledger)
    waiting = ledger.waiting()
    checks = []
    if not path.exists() and not waiting:
        return [_new_ledger(path)]
    try:
        with ledger, _working("checking the ledger …"):
            ledger.open()
            checks += _sound_ledger(ledger, waiting)
    except LedgerTooNew as error:
        checks.append(_Check("ledger", _Status.BROKEN, str(error), "pip install --upgrade tierwise"))
    except LedgerCorrupt as error:
        checks.append(
            _Check("ledger", _Status.BROKEN, str(error), "`tierwise doctor --recover`; the damaged file is kept")
        )
    except LedgerError as error:
        checks.append(_Check("ledger", _Status.BROKEN, str(error), "as the message says; records wait until then"))
    return checks


def _new_ledger(path: Path) -> _Check:
    folder = next((parent for parent in path.parents if parent.exists()), path.parent)
    facts = {"path": path, "exists": False}
    if _takes_files(folder):
        return _Check("ledger", _Status.OK, f"{path}: none yet, the first call makes it", facts=facts)
    mend = "name another path under [ledger] in tierwise.toml, or in TIERWISE_LEDGER"
    return _Check("ledger", _Status.BROKEN, f"{path} cannot be made: {folder} cannot be written", mend, facts)


def _takes_files(folder: Path) -> bool:
    """Tried, not looked up: permissions do not tell of read-only mounts, quotas or /proc. Leaves nothing behind."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _sound_ledger(ledger: Ledger, waited: list[Path]) -> list[_Check]:
    from tierwise.ledger.schema import LATEST

    path = ledger.path
    problems = ledger.check(quick=True)
    size = sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists())
    totals = ledger.totals(())
    calls = totals[0][1].calls if totals else 0
    facts = {"path": path, "exists": True, "bytes": size, "calls": calls, "schema": LATEST, "problems": problems}
    checks = []
    if problems:
        mend = "`tierwise doctor --recover`; the damaged file is kept"
        checks.append(_Check("ledger", _Status.BROKEN, f"{path} is damaged: {problems[0]}", mend, facts))
    elif not os.access(path, os.W_OK) or not _takes_files(path.parent):
        mend = "give yourself the right to write to the file and its directory; records wait in a spool until then"
        checks.append(_Check("ledger", _Status.BROKEN, f"{path} cannot be written", mend, facts))
    else:
        text = f"{path}: {calls:,} calls, {size / 1e6:,.1f} MB, schema {LATEST}, sound"
        checks.append(_Check("ledger", _Status.OK, text, facts=facts))
    still = ledger.waiting()
    spools = {"waited": len(waited), "waiting": [str(file) for file in still]}
    if still:
        mend = "they are folded in when the ledger can be written; see the line above"
        checks.append(_Check("ledger", _Status.WARNING, f"records wait in {', '.join(map(str, still))}", mend, spools))
    elif waited:
        checks.append(_Check("ledger", _Status.NOTE, f"{len(waited)} waiting spools were folded in", facts=spools))
    abandoned = ledger.abandoned()
    if abandoned:
        checks.append(
            _Check(
                "ledger",
                _Status.NOTE,
                f"{len(abandoned):,} calls were left behind by processes that ended in the middle; what they may have "
                "cost is in `tierwise report` as open",
                facts={
                    "abandoned_calls": len(abandoned),
                    "newest_call_ids": [one.call.call_id for one in abandoned[-_SHOWN_CALLS:]],
                },
            )
        )
    return checks
