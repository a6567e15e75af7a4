"""What tierwise.toml may contain: every section and key, its type and its bounds.

Only shapes live here; cross-checks (a tier that names an unknown model) are in `tierwise.config.load`, which also
turns these into the values of `tierwise.core.settings`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tierwise.core.catalog import StructuredOutput, Thinking
from tierwise.core.settings import GatewayMode, Role
from tierwise.core.tasks import Needs, Stakes

__all__ = ["ConfigFile", "DatedPrice", "is_http_url"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def _decimal(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    # A TOML float such as 0.1 is read through its shortest text: money must not pass through binary fractions.
    return str(value) if isinstance(value, float) else value


def _url(value: str) -> str:
    if not is_http_url(value):
        raise ValueError("it is not an address; use one such as http://127.0.0.1:11434")
    return value


def is_http_url(value: str) -> bool:
    """Whether this is an http(s) address with a host and, where there is one, a possible port."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # parsed only when asked for
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not any(c.isspace() for c in value)


# The bounds only keep typing errors out: they are far beyond any price, and arithmetic on what is inside is exact.
Usd = Annotated[
    Decimal, BeforeValidator(_decimal), Field(ge=0, le=1_000_000_000, decimal_places=15, allow_inf_nan=False)
]
Factor = Annotated[Decimal, BeforeValidator(_decimal), Field(gt=0, le=100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(gt=0, strict=True)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
TooLowCost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class TierSection(_Section):
    """A tier: its models in order of preference."""

    models: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    retries: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    after: str | None = None
    enabled: Flag | None = None


class PriceSection(_Section):
    """Rates of a model, in US$ per million tokens."""

    input: Usd
    output: Usd
    cache_read: Usd | None = None
    cache_write_5m: Usd | None = None
    cache_write_1h: Usd | None = None
    above_prompt_tokens: Count = 0


class DatedPrice(_Section):
    """One entry of `[[prices]]`: the price of a model from a day on."""

    model: str
    valid_from: date | None = Field(None, alias="from")
    input: Usd
    output: Usd
    cache_read: Usd | None = None
    cache_write_5m: Usd | None = None
    cache_write_1h: Usd | None = None
    usd_per_web_search: Usd = Decimal(0)
    usd_per_hour: Usd = Decimal(0)
    bands: tuple[PriceSection, ...] = ()
    source: str = "tierwise.toml"


class ModelSection(_Section):
    """A model: where it is served, its limits, and what a request to it may carry."""

    provider: str | None = None
    context_tokens: Positive | None = None
    max_output_tokens: Positive | None = None
    tokenizer_factor: Factor | None = None
    released: date | None = None
    retired: date | None = None
    price_as: str | None = None
    prompt_tokens_per_second: Rate | None = None
    output_tokens_per_second: Rate | None = None
    effort: Flag | Literal["low", "medium", "high", "xhigh", "max"] | None = None
    tools: Flag | None = None
    images: Flag | None = None
    thinking: Thinking | None = None
    forced_tool_use: Flag | None = None
    sampling: Flag | None = None
    prefill: Flag | None = None
    structured_output: StructuredOutput | None = None


class ProviderSection(_Section):
    """How a provider is reached."""

    kind: str | None = None
    base_url: Annotated[str, AfterValidator(_url)] | None = None
    # The name of a variable, never the key itself: whoever puts the key here must not see it in a message or a log.
    api_key_env: Variable | None = None
    api_key_envs: Annotated[tuple[Variable, ...], Field(min_length=1, max_length=64)] | None = None
    one_account: Flag | None = None
    auth: Literal["x-api-key", "bearer"] | None = None
    headers: dict[str, str] | None = None
    stream: Flag | None = None
    connect_timeout_seconds: PositiveSeconds | None = None
    first_token_timeout_seconds: PositiveSeconds | None = None
    idle_timeout_seconds: PositiveSeconds | None = None
    local: Flag | None = None
    model_path: str | None = None
    context_tokens: Positive | None = None
    threads: Positive | None = None
    inference_geo: str | None = None
    speed: Literal["fast"] | None = None


class RuleSection(_Section):
    """One line of the decision tree."""

    name: str
    to: Role
    because: str
    needs: tuple[Needs, ...] | None = None
    recoverable: Flag | None = None
    unsure: Flag | None = None
    fits_local: Flag | None = None
    stakes: tuple[Stakes, ...] | None = None


class PolicySection(_Section):
    """The decision tree and its numbers."""

    rules: Annotated[tuple[RuleSection, ...], Field(min_length=1)] | None = None
    roles: dict[Role, str] | None = None
    confident_above: Share | None = None
    consider_alternatives_above: Share | None = None
    too_low_costs: tuple[TooLowCost, TooLowCost, TooLowCost] | None = None
    local_max_prompt_tokens: Count | None = None
    local_max_output_tokens: Count | None = None
    default_max_latency_seconds: PositiveSeconds | None = None
    output_tokens: dict[str, Positive] | None = None
    second_opinion: Flag | None = None
    second_opinion_below: Share | None = None


class PatternSection(_Section):
    """Texts that match go to a tier."""

    match: str
    tier: str


class OverridesSection(_Section):
    """Where the user knows better."""

    tools: dict[str, str] | None = None
    types: dict[str, str] | None = None
    tags: dict[str, str] | None = None
    patterns: tuple[PatternSection, ...] | None = None
    min_tier: str | None = None
    max_tier: str | None = None


class LimitsSection(_Section):
    """Bounds of one call."""

    max_cost_usd: Usd | None = None
    deadline_seconds: PositiveSeconds | None = None
    transient_retries: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    backoff_base_seconds: Seconds | None = None
    backoff_cap_seconds: Seconds | None = None
    max_retry_after_seconds: Seconds | None = None
    circuit_failures: Positive | None = None
    circuit_open_seconds: Seconds | None = None


class LedgerSection(_Section):
    """Where calls are recorded."""

    path: str | None = None
    synchronous: Literal["normal", "full"] | None = None
    busy_timeout_ms: Count | None = None
    enabled: Flag | None = None
    capture_text: Flag | None = None


class TaskTypeSection(_Section):
    """A task type of the user's own."""

    family: str
    needs: Needs
    recoverable: Flag
    description: str = ""


class RateLimitSection(_Section):
    """What may be sent to a family of models in a minute."""

    requests_per_minute: Positive | None = None
    input_tokens_per_minute: Positive | None = None
    output_tokens_per_minute: Positive | None = None


class ProjectSection(_Section):
    """What holds for one project's calls through the gateway."""

    min_tier: str | None = None
    max_tier: str | None = None
    routed_models: tuple[str, ...] | None = None
    observe: Flag | None = None


class GatewaySection(_Section):
    """How `tierwise serve` serves."""

    host: str | None = None
    port: Annotated[int, Field(ge=0, le=65_535, strict=True)] | None = None
    mode: GatewayMode | None = None
    workers: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    upstream: str | None = None
    routed_models: tuple[str, ...] | None = None
    embedded: Flag | None = None
    switch_margin: Share | None = None
    max_body_bytes: Positive | None = None
    max_connections: Positive | None = None
    body_timeout_seconds: PositiveSeconds | None = None
    drain_seconds: Seconds | None = None
    rate_limit_wait_seconds: Seconds | None = None
    limits: dict[str, RateLimitSection] | None = None
    projects: dict[str, ProjectSection] | None = None


def _tier(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(f'list the models: ["{value}"]')
    return {"models": value} if isinstance(value, list) else value  # tiers.fable = ["claude-fable-5-2"]


class ConfigFile(_Section):
    """A whole tierwise.toml."""

    baseline: str | None = None
    project: str | None = None
    classifier: Literal["trained", "rules"] | None = None
    tiers: dict[str, Annotated[TierSection, BeforeValidator(_tier)]] | None = None
    models: dict[str, ModelSection] | None = None
    providers: dict[str, ProviderSection] | None = None
    policy: PolicySection | None = None
    overrides: OverridesSection | None = None
    limits: LimitsSection | None = None
    ledger: LedgerSection | None = None
    gateway: GatewaySection | None = None
    prices: tuple[DatedPrice, ...] | None = None
    task_types: dict[str, TaskTypeSection] | None = None
