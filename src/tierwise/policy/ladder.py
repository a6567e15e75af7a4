"""The ladder: how large a step is, which models can take it, what each would cost and take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from tierwise.core.catalog import Model, StructuredOutput, TierSpec
from tierwise.core.decisions import Decision, Reason, Rung
from tierwise.core.errors import InvalidTask, NoRouteError, UnpricedModel
from tierwise.core.json import Json
from tierwise.core.money import EXACT, Usage, amount, ceil_tokens, format_usd
from tierwise.core.tasks import Classification, Task
from tierwise.core.tokens import estimate_tokens
from tierwise.policy.world import World

__all__ = ["Size", "build_ladder", "first_fit", "measure", "seconds_on"]


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of the step, in tokens of Claude's tokenizer up to 4.5 (factor 1)."""

    prompt: Decimal
    output: Decimal
    _by_factor: dict[Decimal, Usage] = field(default_factory=dict, compare=False, repr=False)

    def usage_on(self, model: Model) -> Usage:
        """The step's tokens as `model` counts them. Kept by factor: few models count differently."""
        known = self._by_factor.get(model.tokenizer_factor)
        if known is None:
            known = self._by_factor[model.tokenizer_factor] = self._usage(model.tokenizer_factor)
        return known

    def _usage(self, factor: Decimal) -> Usage:
        if factor == 1:
            prompt, output = self.prompt, self.output
        else:
            prompt, output = EXACT.multiply(self.prompt, factor), EXACT.multiply(self.output, factor)
        return Usage(input_tokens=ceil_tokens(prompt), output_tokens=ceil_tokens(output), estimated=True)


def seconds_on(model: Model, prompt: int, output: int, world: World) -> float:
    prompt_rate, output_rate = world.speeds.get(model.id) or (
        model.prompt_tokens_per_second,
        model.output_tokens_per_second,
    )
    return prompt / max(prompt_rate, 1e-9) + output / max(output_rate, 1e-9)


def first_fit(spec: TierSpec, task: Task, size: Size, world: World) -> tuple[Model | None, list[str]]:
    """The first model of a tier that can take the request, and why those before it cannot."""
    against: list[str] = []
    for model in spec.models:
        why = _why_not(model, task, size) or world.unavailable.get(model.id)
        if why is None:
            return model, against
        against.append(f"{model.id} ({spec.tier}): {why}")
    return None, against


def _why_not(model: Model, task: Task, size: Size) -> str | None:
    capabilities = model.capabilities
    if task.has_tools and not capabilities.tools:
        return "it takes no tools"
    if task.has_images and not capabilities.images:
        return "it takes no images"
    usage = size.usage_on(model)
    if usage.prompt_tokens + usage.output_tokens > model.context_tokens:
        return (
            f"about {usage.prompt_tokens + usage.output_tokens:,} tokens do not fit its context of "
            f"{model.context_tokens:,}"
        )
    if max(usage.output_tokens, task.max_output_tokens or 0) > model.max_output_tokens:
        return f"it gives at most {model.max_output_tokens:,} tokens of output"
    return None


def measure(task: Task, classification: Classification, world: World) -> Size:
    """Tokens of the step. Counts given by the caller are the baseline model's; estimates are of its text."""
    reference = world.catalog.baseline.tokenizer_factor
    if task.tokens_in is None:
        prompt = Decimal(sum(estimate_tokens(part or "") for part in _sent(task)))
    else:
        prompt = EXACT.divide(task.tokens_in, reference)
    if task.tokens_out is not None:
        output = EXACT.divide(task.tokens_out, reference)
    else:
        table = world.policy.output_tokens
        output = Decimal(table.get(classification.task_type.name, table.get("default", 500)))
        if task.max_output_tokens is not None:
            output = min(output, EXACT.divide(task.max_output_tokens, reference))
    return Size(prompt, output)


def _sent(task: Task) -> Iterator[str | None]:
    """Every text that goes into the request."""
    yield task.system
    if task.json_schema is not None:
        yield _as_json(task.json_schema)
    if task.prompt is not None:
        yield task.prompt
        return
    yield task.text
    yield task.input_text
    if task.tool_name is not None:
        yield _as_json(task.tool_input)


def _as_json(value: Json) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # circular: it cannot be sent either, and whoever sends it says so
        return ""


def build_ladder(
    task: Task,
    classification: Classification,
    world: World,
    *,
    size: Size,
    chosen: Iterable[tuple[TierSpec, Model]],
    reasons: list[Reason],
    pinned: bool = False,
) -> Decision:
    """Prices the chosen models and applies the cost ceiling.

    Raises:
        UnpricedModel: one of them has no known price.
        NoRouteError: `pinned` to a model that cannot take the task.
    """
    rungs = []
    for spec, model in chosen:
        price = world.prices.get(model.id)
        if price is None:
            raise UnpricedModel(world.unpriced.get(model.id) or f"no price is known for {model.id!r}")
        usage = size.usage_on(model)
        seconds = seconds_on(model, usage.prompt_tokens, usage.output_tokens, world)
        cost = price.cost_usd(usage, seconds=Decimal(str(round(seconds, 3))) if price.usd_per_hour else Decimal(0))
        rungs.append(Rung(spec.tier, model, price, usage, cost, seconds, spec.retries))
    if pinned:
        why = _why_not(rungs[0].model, task, size) or world.unavailable.get(rungs[0].model.id)
        if why is not None:
            raise NoRouteError(f"{rungs[0].model.id} was asked for by name and cannot take this task: {why}")
    baseline = world.catalog.baseline
    baseline_usage = size.usage_on(baseline)
    on_ladder = next((rung for rung in rungs if rung.model is baseline and not rung.price.usd_per_hour), None)
    baseline_price = world.prices.get(baseline.id)
    if on_ladder is not None:
        baseline_cost: Decimal | None = on_ladder.estimated_cost_usd
    else:
        baseline_cost = None if baseline_price is None else baseline_price.cost_usd(baseline_usage)
    ceiling = _ceiling(task, world)
    blockers = _apply_ceiling(rungs, ceiling, reasons)
    if task.json_schema is not None and rungs[0].model.capabilities.structured_output is StructuredOutput.NONE:
        reasons.append(Reason("schema_in_words", f"{rungs[0].model.id} gets the JSON schema in words"))
    return Decision(
        classification=classification,
        ladder=tuple(rungs),
        reasons=tuple(reasons),
        baseline_model=baseline,
        baseline_cost_usd=baseline_cost,
        baseline_usage=baseline_usage,
        max_cost_usd=ceiling,
        deadline_seconds=_deadline(task, world),
        blockers=tuple(blockers),
    )


def _apply_ceiling(rungs: list[Rung], ceiling: Decimal | None, reasons: list[Reason]) -> list[Reason]:
    """Cuts rungs that are over the ceiling off the top. A start that is over it blocks: cheaper would be worse."""
    if ceiling is None:
        return []
    first = rungs[0]
    if first.estimated_cost_usd > ceiling:
        return [
            Reason(
                "max_cost",
                f"{first.model.id} is estimated at {format_usd(first.estimated_cost_usd)}, over the ceiling of "
                f"{format_usd(ceiling)}; a cheaper tier would trade quality for price, so raise the ceiling, or lower "
                "the tier yourself",
            )
        ]
    over = [rung for rung in rungs if rung.estimated_cost_usd > ceiling]
    reasons.extend(
        Reason("max_cost", f"no climb to {rung.tier}: over the ceiling of {format_usd(ceiling)}") for rung in over
    )
    rungs[:] = [rung for rung in rungs if rung not in over]
    return []


def _ceiling(task: Task, world: World) -> Decimal | None:
    ceiling = world.limits.max_cost_usd
    if task.max_cost_usd is not None:
        own = amount(task.max_cost_usd)
        if own is None:
            raise InvalidTask(f"maximum cost {task.max_cost_usd!r} is not an amount in US$; use a number such as 0.05")
        ceiling = own if ceiling is None else min(own, ceiling)
    return ceiling


def _deadline(task: Task, world: World) -> float | None:
    limits = [v for v in (task.max_latency_seconds, world.limits.deadline_seconds) if v is not None]
    return min(limits) if limits else None
