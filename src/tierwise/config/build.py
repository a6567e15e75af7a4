"""Sections of a valid tierwise.toml into the values of `tierwise.core.settings`, with the checks that need more than
one section: a tier names a known model, an override a known tier, a role a tier that exists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tierwise.core.catalog import Capabilities, Catalog, Model, StructuredOutput, Thinking, Tier, TierSpec
from tierwise.core.errors import ConfigError
from tierwise.core.money import Price, PriceBand, amount
from tierwise.core.settings import (
    GatewaySettings,
    LedgerSettings,
    LimitSettings,
    Overrides,
    PatternOverride,
    PolicyRule,
    PolicySettings,
    ProjectSettings,
    ProviderSettings,
    RateLimit,
    Role,
    Settings,
    UpstreamKey,
)
from tierwise.core.tasks import Needs, TaskType

if TYPE_CHECKING:
    from tierwise.config.schema import ConfigFile, DatedPrice, PriceSection, ProviderSection

__all__ = ["build_settings", "default_ledger_path", "home"]

T = TypeVar("T")

_TOP = "@top"
# How a model that is not described is assumed to be, by the kind of its provider: nothing is assumed that could
# make a request fail, and no context that might not be there.
_ASSUMED: Mapping[str, Mapping[str, Any]] = {
    "anthropic": {
        "context_tokens": 200_000,
        "max_output_tokens": 32_000,
        "sampling": False,
        "prefill": False,
        "forced_tool_use": False,
    },
    "ollama": {
        "context_tokens": 8_192,
        "max_output_tokens": 4_096,
        "images": False,
        "structured_output": "response_format",
        "prompt_tokens_per_second": 300.0,
        "output_tokens_per_second": 25.0,
    },
    "embedded": {
        "context_tokens": 4_096,
        "max_output_tokens": 2_048,
        "images": False,
        "tools": False,
        "structured_output": "response_format",
        "prompt_tokens_per_second": 300.0,
        "output_tokens_per_second": 25.0,
    },
    "openai": {
        "context_tokens": 128_000,
        "max_output_tokens": 16_000,
        "prefill": False,
        "structured_output": "response_format",
    },
    "litellm": {
        "context_tokens": 128_000,
        "max_output_tokens": 8_000,
        "prefill": False,
        "structured_output": "response_format",
    },
}


def home(env: Mapping[str, str]) -> Path:
    home = env.get("HOME")
    return Path(home) if home else Path("~").expanduser()


def default_ledger_path(env: Mapping[str, str]) -> Path:
    """Where the ledger is when nothing says otherwise."""
    base = env.get("XDG_DATA_HOME")
    return (Path(base) if base else home(env) / ".local" / "share") / "tierwise" / "ledger.db"


def _given(value: T | None) -> T:
    """A section or a value that the shipped defaults always have."""
    if value is None:
        raise ConfigError("the shipped defaults are incomplete; reinstall tierwise")
    return value


def build_settings(
    config: ConfigFile,
    *,
    private_prices: list[DatedPrice],
    shipped_prices: list[DatedPrice],
    env: Mapping[str, str],
    where: str,
    sources: tuple[Path, ...],
) -> Settings:
    providers = _providers(config, env)
    catalog = _catalog(config, providers, env, where)
    policy = _given(config.policy)
    roles = {role: _role_tier(role, name, catalog, where) for role, name in _given(policy.roles).items()}
    overrides = _overrides(config, env, catalog, where)
    limits = _given(config.limits)
    ledger = _given(config.ledger)
    ledger_path = env.get("TIERWISE_LEDGER") or ledger.path
    max_cost = limits.max_cost_usd
    if env.get("TIERWISE_MAX_COST_USD"):
        max_cost = _env_usd(env, "TIERWISE_MAX_COST_USD")
    return Settings(
        catalog=catalog,
        providers=providers,
        policy=PolicySettings(
            rules=tuple(
                PolicyRule(
                    name=rule.name,
                    to=rule.to,
                    because=rule.because,
                    needs=tuple(n.value for n in rule.needs) if rule.needs is not None else None,
                    recoverable=rule.recoverable,
                    unsure=rule.unsure,
                    fits_local=rule.fits_local,
                    stakes=tuple(s.value for s in rule.stakes) if rule.stakes is not None else None,
                )
                for rule in _given(policy.rules)
            ),
            roles=roles,
            confident_above=_given(policy.confident_above),
            consider_alternatives_above=_given(policy.consider_alternatives_above),
            too_low_costs=_given(policy.too_low_costs),
            local_max_prompt_tokens=_given(policy.local_max_prompt_tokens),
            local_max_output_tokens=_given(policy.local_max_output_tokens),
            default_max_latency_seconds=_given(policy.default_max_latency_seconds),
            output_tokens=dict(_given(policy.output_tokens)),
            second_opinion=_given(policy.second_opinion),
            second_opinion_below=_given(policy.second_opinion_below),
        ),
        overrides=overrides,
        limits=LimitSettings(
            max_cost_usd=max_cost,
            deadline_seconds=limits.deadline_seconds,
            transient_retries=_given(limits.transient_retries),
            backoff_base_seconds=_given(limits.backoff_base_seconds),
            backoff_cap_seconds=_given(limits.backoff_cap_seconds),
            max_retry_after_seconds=_given(limits.max_retry_after_seconds),
            circuit_failures=_given(limits.circuit_failures),
            circuit_open_seconds=_given(limits.circuit_open_seconds),
        ),
        ledger=LedgerSettings(
            path=Path(ledger_path).expanduser() if ledger_path else default_ledger_path(env),
            synchronous=_given(ledger.synchronous),
            busy_timeout_ms=_given(ledger.busy_timeout_ms),
            enabled=_given(ledger.enabled),
            capture_text=_given(ledger.capture_text),
        ),
        prices=_prices(private_prices, shipped_prices, where),
        task_types=tuple(
            TaskType(name, section.family, Needs(section.needs), section.recoverable, section.description)
            for name, section in (config.task_types or {}).items()
        ),
        project=env.get("TIERWISE_PROJECT") or config.project,
        sources=sources,
        classifier=_given(config.classifier),
        gateway=_gateway(config, providers, catalog, where),
    )


def _gateway(
    config: ConfigFile, providers: Mapping[str, ProviderSettings], catalog: Catalog, where: str
) -> GatewaySettings:
    given = {} if config.gateway is None else config.gateway.model_dump(exclude_none=True)
    limits = {family: RateLimit(**limit) for family, limit in given.pop("limits", {}).items()}
    projects = {name: ProjectSettings(**project) for name, project in given.pop("projects", {}).items()}
    for name, project in projects.items():
        key = f"gateway.projects.{name}"
        _check_bounds(project.min_tier, project.max_tier, f"{key}.min_tier", f"{key}.max_tier", catalog, where)
    gateway = GatewaySettings(**given, limits=limits, projects=projects)
    upstream = providers.get(gateway.upstream)
    if upstream is None:
        raise ConfigError(
            f"gateway.upstream in {where} is {gateway.upstream!r}; use one of the providers {', '.join(providers)}"
        )
    return gateway


def _env_usd(env: Mapping[str, str], name: str) -> Decimal:
    value = amount(env[name])
    if value is None:
        raise ConfigError(f"{name}={env[name]!r} is not an amount in US$; use a number such as 0.05")
    return value


def _providers(config: ConfigFile, env: Mapping[str, str]) -> dict[str, ProviderSettings]:
    built: dict[str, ProviderSettings] = {}
    for name, section in (config.providers or {}).items():
        if section.kind is None:
            raise ConfigError(
                f"providers.{name}.kind is missing; use one of anthropic, ollama, embedded, openai, litellm, or the "
                "name of an installed entry point of group tierwise.providers"
            )
        auth = section.auth or "x-api-key"
        names = _key_variables(name, section)
        keys = _keys(name, section, env)
        key = keys[0].secret if keys else None
        base_url = section.base_url
        if name == "anthropic":
            # The variables that Anthropic's own SDKs and Claude Code honour.
            if env.get("ANTHROPIC_BASE_URL"):
                base_url = _env_url("ANTHROPIC_BASE_URL", env["ANTHROPIC_BASE_URL"].strip())
            if not key and env.get("ANTHROPIC_AUTH_TOKEN"):
                key, auth = env["ANTHROPIC_AUTH_TOKEN"].strip(), "bearer"
        elif name == "ollama" and env.get("OLLAMA_HOST"):
            base_url = _ollama_url(env["OLLAMA_HOST"].strip())
        defaults = {
            field: getattr(section, field)
            for field in (
                "stream",
                "connect_timeout_seconds",
                "first_token_timeout_seconds",
                "idle_timeout_seconds",
                "local",
                "context_tokens",
                "threads",
                "inference_geo",
                "speed",
            )
            if getattr(section, field) is not None
        }
        built[name] = ProviderSettings(
            name=name,
            kind=section.kind,
            base_url=base_url.rstrip("/") if base_url else None,
            api_key=key or None,
            api_key_env=names[0] if names else None,
            api_key_envs=section.api_key_envs or (),
            api_keys=keys if section.api_key_envs else (),
            auth=auth,
            headers=dict(section.headers or {}),
            model_path=Path(section.model_path).expanduser() if section.model_path else None,
            **defaults,
        )
    return built


def _key_variables(name: str, section: ProviderSection) -> tuple[str, ...]:
    """The variables that hold a provider's keys."""
    if section.api_key_envs is None:
        return (section.api_key_env,) if section.api_key_env else ()
    if len(set(section.api_key_envs)) < len(section.api_key_envs):
        raise ConfigError(f"providers.{name}.api_key_envs names a variable twice; name each once")
    return section.api_key_envs


def _keys(name: str, section: ProviderSection, env: Mapping[str, str]) -> tuple[UpstreamKey, ...]:
    """The keys that are set. An account is named by its place in the list: whoever reads it learns nothing of a key."""
    return tuple(
        UpstreamKey(name=variable, account=name if section.one_account else f"{name}#{place}", secret=secret)
        for place, variable in enumerate(_key_variables(name, section), 1)
        if (secret := env.get(variable, "").strip())
    )


def _env_url(name: str, value: str, url: str | None = None) -> str:
    from tierwise.config.schema import is_http_url  # noqa: PLC0415  pydantic: loaded by now, but not by importing this

    url = url or value
    if not is_http_url(url):
        raise ConfigError(f"{name}={value!r} is not an address; use one such as http://127.0.0.1:8080")
    return url


def _ollama_url(host: str) -> str:
    """The address that OLLAMA_HOST means, read as Ollama itself reads it: scheme, host and port are optional."""
    scheme, colon, rest = host.partition("://")
    if not colon:
        scheme, rest = "http", host
    usual = "11434" if not colon else {"http": "80", "https": "443"}.get(scheme, "11434")
    address, slash, path = rest.partition("/")
    if address.count(":") > 1 and not address.startswith("["):
        address = f"[{address}]"  # a bare IPv6 address
    if address.startswith(":") or not address:
        address = f"127.0.0.1{address}"
    url = f"{scheme}://{address}"
    _env_url("OLLAMA_HOST", host, url)
    parts = urlsplit(url)
    name = parts.hostname or ""
    # What a server binds is not what one calls.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 it is replaced, not bound
    port = parts.port or usual
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}{slash}{path}"


def _tier_order(config: ConfigFile, where: str) -> list[str]:
    """The enabled tiers, cheapest first: as they are listed, or `after` another."""
    tiers = config.tiers or {}
    order: list[str] = []
    for name, section in tiers.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
            raise ConfigError(f"{where}: tier name {name!r}; use letters, digits, '.', '_' and '-'")
        if section.enabled is False:
            continue
        if section.after is None:
            order.append(name)
        elif section.after in order:
            order.insert(order.index(section.after) + 1, name)
        else:
            raise ConfigError(
                f"{where}: tiers.{name}.after = {section.after!r}; use one of {', '.join(order) or '(none yet)'}"
            )
    if not order:
        raise ConfigError(f"{where}: no tier is enabled; enable at least one of {', '.join(tiers)}")
    return order


def _catalog(
    config: ConfigFile, providers: Mapping[str, ProviderSettings], env: Mapping[str, str], where: str
) -> Catalog:
    specs: list[TierSpec] = []
    placed: dict[str, str] = {}
    for level, name in enumerate(_tier_order(config, where)):
        section = (config.tiers or {})[name]
        if not section.models:
            raise ConfigError(f"{where}: tiers.{name}.models is missing; list at least one model")
        models = []
        for reference in section.models:
            model = _model(reference, config, providers, where, key=f"tiers.{name}.models")
            if model.id in placed:
                raise ConfigError(f"{where}: model {model.id!r} is in both tiers.{placed[model.id]} and tiers.{name}")
            placed[model.id] = name
            models.append(model)
        retries = 1 if section.retries is None else section.retries
        specs.append(TierSpec(tier=Tier(level, name), models=tuple(models), retries=retries))
    wanted = config.baseline or specs[-1].tier.name
    if env.get("TIERWISE_BASELINE"):
        wanted, where = env["TIERWISE_BASELINE"], "TIERWISE_BASELINE"
    baseline = _baseline(wanted, specs, config, providers, where)
    return Catalog(tuple(specs), baseline, _beside(config, providers, placed))


def _beside(
    config: ConfigFile, providers: Mapping[str, ProviderSettings], placed: Mapping[str, str]
) -> tuple[Model, ...]:
    """The models that are described and in no tier. One whose provider is not told is none yet."""
    found = []
    for reference in config.models or {}:
        try:
            model = _model(reference, config, providers, "", key="models")
        except ConfigError:
            continue
        if model.id not in placed:
            found.append(model)
    return tuple(found)


def _baseline(
    wanted: str,
    specs: list[TierSpec],
    config: ConfigFile,
    providers: Mapping[str, ProviderSettings],
    where: str,
) -> Model:
    for spec in specs:
        if spec.tier.name == wanted:
            return spec.models[0]
        for model in spec.models:
            if wanted in {model.id, f"{model.provider}:{model.id}"}:
                return model
    if wanted in (config.models or {}):
        found = _model(wanted, config, providers, where, key="baseline")
        if any(found.id == model.id for spec in specs for model in spec.models):
            # Prices and measurements go by id: the same id at two providers would be one model there.
            raise ConfigError(f"{where}: baseline = {wanted!r}: a tier has a model {found.id!r} of another provider")
        return found
    names = ", ".join(spec.tier.name for spec in specs)
    raise ConfigError(
        f"{where}: baseline = {wanted!r} is neither a tier nor a model; use one of {names}, or a model id"
    )


def _model(
    reference: str, config: ConfigFile, providers: Mapping[str, ProviderSettings], where: str, *, key: str
) -> Model:
    section = (config.models or {}).get(reference)
    prefix, colon, rest = reference.partition(":")
    if colon and prefix in providers:
        provider, model_id = prefix, rest
    elif section is not None and section.provider is not None:
        provider, model_id = section.provider, reference
    elif reference.startswith("claude-"):
        provider, model_id = "anthropic", reference
    elif section is not None:
        raise ConfigError(f"{where}: models.{reference}.provider is missing; use one of {', '.join(providers)}")
    else:
        known = ", ".join(sorted(config.models or {}))
        near = difflib.get_close_matches(reference, list(config.models or {}), n=1)
        raise ConfigError(
            f"{where}: {key} names the unknown model {reference!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f". Use PROVIDER:MODEL (providers: {', '.join(providers)}), describe it under [models.{reference!r}], or "
            f"use one of {known}"
        )
    if provider not in providers:
        raise ConfigError(f"{where}: models.{reference}.provider = {provider!r}; use one of {', '.join(providers)}")
    if not model_id:
        raise ConfigError(f"{where}: {key} has {reference!r} without a model after the colon")
    facts: dict[str, Any] = {**_ASSUMED.get(providers[provider].kind, _ASSUMED["openai"])}
    if section is not None:
        facts.update({k: v for k, v in section.model_dump(exclude={"provider"}).items() if v is not None})
    effort = facts.pop("effort", False)
    return Model(
        id=model_id,
        provider=provider,
        context_tokens=facts["context_tokens"],
        max_output_tokens=facts["max_output_tokens"],
        capabilities=Capabilities(
            tools=facts.get("tools", True),
            images=facts.get("images", True),
            thinking=Thinking(facts.get("thinking", "none")),
            effort=bool(effort),
            forced_tool_use=facts.get("forced_tool_use", True),
            sampling=facts.get("sampling", True),
            prefill=facts.get("prefill", True),
            structured_output=StructuredOutput(facts.get("structured_output", "none")),
        ),
        tokenizer_factor=facts.get("tokenizer_factor", Decimal(1)),
        released=facts.get("released"),
        retired=facts.get("retired"),
        price_as=facts.get("price_as"),
        prompt_tokens_per_second=facts.get("prompt_tokens_per_second", 5000.0),
        output_tokens_per_second=facts.get("output_tokens_per_second", 60.0),
        effort=effort if isinstance(effort, str) else None,
    )


def _role_tier(role: Role, name: str, catalog: Catalog, where: str) -> str:
    """The tier that plays a role; when that tier was disabled or renamed, the next one up, never down."""
    if name == _TOP:
        return catalog.top.tier.name
    names = [spec.tier.name for spec in catalog]
    if name in names:
        return name
    defaults = ["local", "haiku", "sonnet", "opus"]
    if name in defaults:
        for higher in defaults[defaults.index(name) :]:
            if higher in names:
                return higher
        return names[-1]
    raise ConfigError(f"{where}: policy.roles.{role.value} = {name!r}; use one of {', '.join(names)}, or {_TOP!r}")


def _check_tier(name: str, key: str, catalog: Catalog, where: str) -> str:
    names = [spec.tier.name for spec in catalog]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"unknown tier {name!r} at {key} in {where}{hint}; use one of {', '.join(names)}")
    return name


def _check_bounds(  # noqa: PLR0917  two bounds, each with its key
    low: str | None, high: str | None, low_key: str, high_key: str, catalog: Catalog, where: str
) -> None:
    names = [spec.tier.name for spec in catalog]
    for name, key in ((low, low_key), (high, high_key)):
        if name is not None:
            _check_tier(name, key, catalog, where)
    if low is not None and high is not None and names.index(low) > names.index(high):
        raise ConfigError(f"{where}: {low_key} = {low!r} is above {high_key} = {high!r}")


def _overrides(config: ConfigFile, env: Mapping[str, str], catalog: Catalog, where: str) -> Overrides:
    section = config.overrides

    def check(name: str, key: str) -> str:
        return _check_tier(name, key, catalog, where)

    def table(values: Mapping[str, str] | None, key: str) -> dict[str, str]:
        return {k: check(v, f"overrides.{key}.{k}") for k, v in (values or {}).items()}

    patterns = []
    for index, pattern in enumerate(section.patterns or () if section else ()):
        key = f"overrides.patterns[{index}]"
        try:
            re.compile(pattern.match)
        except re.error as error:
            raise ConfigError(
                f"{where}: {key}.match = {pattern.match!r} is not a regular expression: {error}"
            ) from None
        patterns.append(PatternOverride(pattern=pattern.match, tier=check(pattern.tier, f"{key}.tier")))
    low, high = section.min_tier if section else None, section.max_tier if section else None
    low_key, high_key = "overrides.min_tier", "overrides.max_tier"
    if env.get("TIERWISE_MIN_TIER"):
        low, low_key = env["TIERWISE_MIN_TIER"], "TIERWISE_MIN_TIER"
    if env.get("TIERWISE_MAX_TIER"):
        high, high_key = env["TIERWISE_MAX_TIER"], "TIERWISE_MAX_TIER"
    _check_bounds(low, high, low_key, high_key, catalog, where)
    return Overrides(
        tools=table(section.tools if section else None, "tools"),
        types=table(section.types if section else None, "types"),
        tags=table(section.tags if section else None, "tags"),
        patterns=tuple(patterns),
        min_tier=low,
        max_tier=high,
    )


def _prices(private: list[DatedPrice], shipped: list[DatedPrice], where: str) -> tuple[Price, ...]:
    """Private prices win: from the day of a model's first one on, its shipped entries do not count."""
    first: dict[str, date] = {}
    for entry in private:
        start = entry.valid_from or date.min
        first[entry.model] = min(start, first.get(entry.model, start))
    return (
        *(_price(entry, where) for entry in private),
        *(
            _price(entry, "the shipped price table")
            for entry in shipped
            if entry.model not in first or (entry.valid_from or date.min) < first[entry.model]
        ),
    )


def _price(entry: DatedPrice, where: str) -> Price:
    bands = [_band(entry)]
    for section in entry.bands:
        if section.above_prompt_tokens <= bands[-1].above_prompt_tokens:
            raise ConfigError(
                f"{where}: prices of {entry.model}: bands must ascend by above_prompt_tokens, from above 0"
            )
        bands.append(_band(section, section.above_prompt_tokens))
    return Price(
        model=entry.model,
        bands=tuple(bands),
        source=entry.source,
        valid_from=entry.valid_from,
        usd_per_web_search=entry.usd_per_web_search,
        usd_per_hour=entry.usd_per_hour,
    )


def _band(rates: DatedPrice | PriceSection, above_prompt_tokens: int = 0) -> PriceBand:
    """Unstated cache prices are the fresh input's: dearer than any real one, so never understated by silence on
    reads; writes are stated by whoever charges for them."""

    def or_input(rate: Decimal | None) -> Decimal:
        return rates.input if rate is None else rate

    return PriceBand(
        input=rates.input,
        output=rates.output,
        cache_read=or_input(rates.cache_read),
        cache_write_5m=or_input(rates.cache_write_5m),
        cache_write_1h=or_input(rates.cache_write_1h),
        above_prompt_tokens=above_prompt_tokens,
    )
