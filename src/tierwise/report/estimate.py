"""What a workload costs before and after routing, at the models and prices of a given day. Pure but for reading a file.

Token counts of a workload are in one model's tokens (`counted_with`); other tokenizers count the same text
differently, and are converted. A month has thirty days.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from tierwise.classifier import RuleClassifier
from tierwise.classifier.taxonomy import Taxonomy
from tierwise.core.catalog import Catalog, Tier
from tierwise.core.errors import ConfigError, InvalidTask
from tierwise.core.money import EXACT, amount, ceil_tokens
from tierwise.core.settings import Role, Settings
from tierwise.core.tasks import Task
from tierwise.engine.planner import Planner
from tierwise.prices import PriceBook

__all__ = ["DAYS_A_MONTH", "Estimate", "EstimateRow", "Step", "Workload", "estimate", "parse_workload", "read_workload"]

DAYS_A_MONTH = 30
_MAX_BYTES = 16 * 1024 * 1024
_FIELDS = ("name", "task_type", "calls_a_day", "tokens_in", "tokens_out", "tier")
_REQUIRED = ("task_type", "calls_a_day", "tokens_in", "tokens_out")


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of call of a workload. `tier` pins it; otherwise the policy decides."""

    task_type: str
    calls_a_day: Decimal
    tokens_in: int
    tokens_out: int
    tier: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """What an application sends in a day. `days` are the price days it asks to be shown at."""

    steps: tuple[Step, ...]
    name: str = ""
    counted_with: str | None = None  # a model id; None: the baseline of the day
    baseline: str | None = None
    days: tuple[date, ...] = ()


@dataclass(frozen=True, slots=True)
class EstimateRow:
    """One step, priced. Costs are US$ a day."""

    step: Step
    tier: Tier
    model: str
    before_usd: Decimal
    after_usd: Decimal
    why: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A workload at the models and prices of a day."""

    on: date
    baseline_model: str
    rows: tuple[EstimateRow, ...]

    @property
    def before_usd(self) -> Decimal:
        """US$ a day, all on the baseline model."""
        return sum((row.before_usd for row in self.rows), Decimal(0))

    @property
    def after_usd(self) -> Decimal:
        """US$ a day, routed."""
        return sum((row.after_usd for row in self.rows), Decimal(0))

    @property
    def saved_share(self) -> Decimal:
        """The part of `before_usd` that routing saves; 0 where nothing was spent."""
        return EXACT.divide(self.before_usd - self.after_usd, self.before_usd) if self.before_usd else Decimal(0)


def read_workload(path: Path) -> Workload:
    """Reads a workload from a .toml or .csv file.

    Raises:
        ConfigError: says where the file is wrong and what it should hold.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(
                f"{path} is larger than {_MAX_BYTES // 2**20} MB; a workload has one line per kind of call"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the workload {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start})") from None
    return parse_workload(text, str(path), is_csv=path.suffix.lower() == ".csv")


def parse_workload(text: str, where: str, *, is_csv: bool) -> Workload:
    """As `read_workload`, from the file's text."""
    if is_csv:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = [
            ({str(k).strip(): v for k, v in row.items() if k is not None and v not in (None, "")}, f"line {line}")
            for line, row in enumerate(reader, start=2)
        ]
        head: Mapping[str, Any] = {}
    else:
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{where} is not valid TOML: {error}") from None
        steps = document.pop("step", None)
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise ConfigError(f"{where} has no [[step]]; each needs {', '.join(_REQUIRED)}")
        rows = [(step, f"step {index}") for index, step in enumerate(steps, start=1)]
        head = document
        unknown = sorted(set(head) - {"name", "counted_with", "baseline", "days"})
        if unknown:
            raise ConfigError(
                f"{where}: unknown key {unknown[0]!r}; use name, counted_with, baseline, days and [[step]]"
            )
    if not rows:
        raise ConfigError(f"{where} has no rows; each needs {', '.join(_REQUIRED)}")
    return Workload(
        steps=tuple(_step(row, f"{where}, {place}") for row, place in rows),
        name=str(head.get("name", "")),
        counted_with=head.get("counted_with"),
        baseline=head.get("baseline"),
        days=_days(head.get("days", ()), where),
    )


def _days(values: object, where: str) -> tuple[date, ...]:
    if not isinstance(values, list | tuple) or not all(type(value) is date for value in values):
        raise ConfigError(f"{where}: days is a list of dates, such as [2025-10-31]")
    return tuple(values)


def _step(row: Mapping[str, Any], where: str) -> Step:
    unknown = sorted(set(row) - set(_FIELDS))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; use {', '.join(_FIELDS)}")
    missing = [name for name in _REQUIRED if name not in row]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing")
    for name in ("task_type", "tier", "name"):
        if name in row and not isinstance(row[name], str):
            raise ConfigError(f"{where}: {name} = {row[name]!r} is not a text")
    return Step(
        task_type=row["task_type"].strip(),
        calls_a_day=_number(row["calls_a_day"], "calls_a_day", where),
        tokens_in=_whole(row["tokens_in"], "tokens_in", where),
        tokens_out=_whole(row["tokens_out"], "tokens_out", where),
        tier=row["tier"].strip() if row.get("tier") else None,
        name=row.get("name"),
    )


def _number(value: object, name: str, where: str) -> Decimal:
    number = amount(str(value).replace("_", "").replace(",", "").strip())
    if isinstance(value, bool) or number is None:
        raise ConfigError(f"{where}: {name} = {value!r} is not a number of 0 or more")
    return number


def _whole(value: object, name: str, where: str) -> int:
    number = _number(value, name, where)
    if number != number.to_integral_value() or number > 10**12:
        raise ConfigError(f"{where}: {name} = {value!r} is not a whole number of tokens")
    return int(number)


def estimate(
    workload: Workload,
    settings: Settings,
    prices: PriceBook,
    taxonomy: Taxonomy,
    on: date,
) -> Estimate:
    """Prices a workload at the models that existed on a day and what they cost then.

    Raises:
        ConfigError: no model of a needed tier existed on that day.
        UnknownTaskType, UnknownTier, UnpricedModel, NoRouteError.
    """
    catalog = _catalog_on(settings, on, workload.baseline)
    policy = replace(settings.policy, roles=_roles_on(settings, catalog))
    planner = Planner(replace(settings, catalog=catalog, policy=policy), RuleClassifier(taxonomy), prices)
    baseline = catalog.baseline
    counted = baseline if workload.counted_with is None else settings.catalog.model(workload.counted_with)[1]
    # `decide` takes counts in the baseline's tokens.
    factor = baseline.tokenizer_factor / counted.tokenizer_factor
    rows = []
    there = {spec.tier.name for spec in catalog}
    for step in workload.steps:
        if step.tier is not None and step.tier not in there:
            _existed(step.tier, settings, on)
        task = Task(
            text=step.name or step.task_type,
            task_type=step.task_type,
            tokens_in=ceil_tokens(step.tokens_in * factor),
            tokens_out=ceil_tokens(step.tokens_out * factor),
            tier=step.tier,
        )
        decision = planner.plan(task, on)
        before = decision.baseline_cost_usd
        if before is None:
            prices.price(baseline, on)  # says what is missing
            raise InvalidTask(f"no price is known for {baseline.id}")
        why = "pinned in the workload" if step.tier is not None else decision.reasons[1].text
        rows.append(
            EstimateRow(
                step=step,
                tier=decision.tier,
                model=decision.model.id,
                before_usd=before * step.calls_a_day,
                after_usd=decision.estimated_cost_usd * step.calls_a_day,
                why=why,
            )
        )
    return Estimate(on=on, baseline_model=baseline.id, rows=tuple(rows))


def _roles_on(settings: Settings, catalog: Catalog) -> dict[Role, str]:
    """Who plays each role on that day: where its tier had no model yet, the next one up that had."""
    there = {spec.tier.name for spec in catalog}
    order = [spec.tier.name for spec in settings.catalog]
    return {
        role: next((other for other in order[order.index(name) :] if other in there), catalog.top.tier.name)
        for role, name in settings.policy.roles.items()
    }


def _existed(tier: str, settings: Settings, on: date) -> None:
    """A tier that is configured and is missing in the catalog of a day had no model then: say so."""
    if any(spec.tier.name == tier for spec in settings.catalog):
        raise ConfigError(f"no model of the tier {tier} existed on {on}; use a later day")


def _catalog_on(settings: Settings, on: date, baseline: str | None) -> Catalog:
    """The catalog as it could have been configured on that day: models released since are not in it."""
    specs = []
    for spec in settings.catalog:
        models: Sequence[Any] = tuple(model for model in spec.models if model.available_on(on))
        if models:
            specs.append(replace(spec, models=tuple(models)))
    if not specs:
        raise ConfigError(f"none of the configured models existed on {on}; use a later day")
    catalog = Catalog(tuple(specs), settings.catalog.baseline)
    if baseline is not None:
        named = next((spec.models[0] for spec in specs if spec.tier.name == baseline), None)
        if named is None:
            _existed(baseline, settings, on)
        return replace(catalog, baseline=named or catalog.model(baseline)[1])
    if catalog.baseline.available_on(on):
        return catalog
    home = settings.catalog.model(settings.catalog.baseline.id)[0].tier.name
    same_tier = next((spec.models[0] for spec in specs if spec.tier.name == home), None)
    if same_tier is None:
        raise ConfigError(f"the baseline {catalog.baseline.id} did not exist on {on}, nor another model of its tier")
    return replace(catalog, baseline=same_tier)
