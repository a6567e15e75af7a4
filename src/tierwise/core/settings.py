"""The configuration, parsed: what `tierwise.config` reads from tierwise.toml and the environment, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from tierwise.core.catalog import Catalog
from tierwise.core.money import Price
from tierwise.core.tasks import TaskType

__all__ = [
    "GatewayMode",
    "GatewaySettings",
    "LedgerSettings",
    "LimitSettings",
    "Overrides",
    "PatternOverride",
    "PolicyRule",
    "PolicySettings",
    "ProjectSettings",
    "ProviderSettings",
    "RateLimit",
    "Role",
    "Settings",
    "UpstreamKey",
    "http_url",
]


def http_url(host: str, port: int) -> str:
    """The address of a server here; one of IPv6 goes in brackets."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamKey:
    """One of several keys of a provider."""

    name: str  # of the variable that holds it
    account: str  # of which it is: limits, caches and thinking blocks belong to accounts
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """How a provider is reached. `kind` names the entry point of group `tierwise.providers` that builds it."""

    name: str
    kind: str  # anthropic, ollama, embedded, openai, litellm, or an entry point of another package
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)  # resolved from `api_key_env`; never logged or stored
    api_key_env: str | None = None  # None: this provider needs no key
    api_key_envs: tuple[str, ...] = ()  # in place of `api_key_env`, which is then the first of them
    api_keys: tuple[UpstreamKey, ...] = ()  # those of them that are set; `api_key` is the first
    auth: str = "x-api-key"  # or "bearer"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # one of them may be a key
    stream: bool = True
    connect_timeout_seconds: float = 10.0
    first_token_timeout_seconds: float = 120.0  # a cold local model can take tens of seconds to load
    idle_timeout_seconds: float = 60.0  # between two pieces of a stream
    local: bool = False  # runs on this machine: costs what is configured, is probed before use
    model_path: Path | None = None  # embedded: the GGUF file
    context_tokens: int | None = None  # embedded, ollama: context to load the model with
    threads: int | None = None  # embedded
    inference_geo: str | None = None  # priced and sent
    speed: str | None = None  # "fast", where a model offers it

    @property
    def key_missing(self) -> bool:
        """A key is needed and there is none."""
        return self.api_key_env is not None and not self.api_key

    @property
    def secrets(self) -> tuple[str, ...]:
        """All keys: what must not be shown to anybody."""
        return tuple(dict.fromkeys([*(key.secret for key in self.api_keys), *filter(None, (self.api_key,))]))


class Role(StrEnum):
    """What the decision tree calls a tier; `PolicySettings.roles` says which tier plays it."""

    LOCAL = "local"  # recoverable, small, latency-tolerant processing
    PROCESSING = "processing"  # other processing
    JUDGMENT = "judgment"
    TOP = "top"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One line of the decision tree. It applies when every condition given (not None) holds; the first one wins."""

    name: str
    to: Role
    because: str  # the reason shown, in plain words
    needs: tuple[str, ...] | None = None
    recoverable: bool | None = None
    unsure: bool | None = None  # abstained, or confidence below `confident_above`
    fits_local: bool | None = None  # small enough and in time on the local tier
    stakes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """The decision tree and its numbers."""

    rules: tuple[PolicyRule, ...]
    roles: Mapping[Role, str]  # role → tier name
    confident_above: float
    consider_alternatives_above: float
    # What it costs to send work too low, in units of what it costs to send work one tier too high, at each boundary:
    # to processing that must be right the first time, to judgment, to critical work.
    too_low_costs: tuple[float, float, float]
    local_max_prompt_tokens: int
    local_max_output_tokens: int
    default_max_latency_seconds: float
    output_tokens: Mapping[str, int]  # expected output by task type, "default" for the rest
    second_opinion: bool = False  # a local model is asked where the classifier is in doubt
    second_opinion_below: float = 0.6  # a confidence below which it is in doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternOverride:
    """Texts that match `pattern` (a regular expression, searched in the ask) go to `tier`."""

    pattern: str
    tier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Where the user knows better. Applied after the tree: tool, pattern, tag, type (the first that matches)."""

    tools: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)  # "key=value" or "key" → tier
    patterns: tuple[PatternOverride, ...] = ()
    min_tier: str | None = None
    max_tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Bounds of one call."""

    max_cost_usd: Decimal | None = None
    deadline_seconds: float | None = None
    transient_retries: int = 3  # on one rung
    backoff_base_seconds: float = 0.5
    backoff_cap_seconds: float = 30.0
    max_retry_after_seconds: float = 120.0  # a server that asks for more is not waited for, even on the last rung
    circuit_failures: int = 5  # in a row, until a model's circuit opens
    circuit_open_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """Where calls are recorded."""

    path: Path
    synchronous: str = "normal"  # "full" survives a power cut too, at about a tenth of the speed
    busy_timeout_ms: int = 500
    enabled: bool = True
    capture_text: bool = False  # also what the classifier saw of each prompt: a decision about privacy


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """What may be sent to one family of models in a minute; None where only the provider's headers say.

    It holds until the provider's headers tell a lower limit, and is never exceeded where they tell a higher one.
    """

    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None  # cache reads do not count
    output_tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}; leave it out where there is no limit")


class GatewayMode(StrEnum):
    """What the gateway does with a request to one of the names in `routed_models`."""

    ROUTE = "route"
    OBSERVE = "observe"  # routes nothing, and records what it would have done


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSettings:
    """What holds for one project's calls through the gateway, beside what holds for all."""

    min_tier: str | None = None
    max_tier: str | None = None
    routed_models: tuple[str, ...] = ()  # besides those that are routed for all
    observe: bool = False  # routes nothing of it, and records what would have been done


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """How `tierwise serve` serves."""

    host: str = "127.0.0.1"
    port: int = 8484
    mode: GatewayMode = GatewayMode.ROUTE
    workers: int = 1  # processes that serve
    upstream: str = "anthropic"  # the provider that requests for a concrete model go to
    routed_models: tuple[str, ...] = ("claude-tierwise-auto",)
    embedded: bool = False  # whether the embedded model, which is demonstration grade, may answer
    switch_margin: float = 0.2  # a conversation moves down only where that is cheaper by this share
    max_body_bytes: int = 64 * 1024 * 1024
    max_connections: int = 2_000
    body_timeout_seconds: float = 60.0  # to receive a request
    drain_seconds: float = 600.0  # that running calls get when it is told to stop
    rate_limit_wait_seconds: float = 30.0  # that a call may wait for a rate limit where no other tier is left
    limits: Mapping[str, RateLimit] = field(default_factory=dict)  # by family of models: opus, sonnet, haiku, …
    projects: Mapping[str, ProjectSettings] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return http_url(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that was configured. `sources` names the files that were read, for `tierwise doctor`."""

    catalog: Catalog
    providers: Mapping[str, ProviderSettings]
    policy: PolicySettings
    overrides: Overrides
    limits: LimitSettings
    ledger: LedgerSettings
    prices: tuple[Price, ...]  # private and shipped prices, over genai-prices'
    task_types: tuple[TaskType, ...] = ()  # the user's own
    project: str | None = None
    classifier: str = "trained"  # or "rules"
    gateway: GatewaySettings = GatewaySettings()
    sources: tuple[Path, ...] = ()

    @property
    def taught(self) -> tuple[Path, ...]:
        """Where what the user taught the classifier is kept: a folder beside each file, which need not exist."""
        return tuple(dict.fromkeys(source.parent / "tierwise.types" for source in self.sources))
