"""Writes docs/reference/configuration.md from the schema of tierwise.toml, the shipped defaults and the environment.

What a key means stands here, in `KEYS`; a key of the schema without words, or words without a key, is an error.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from reference_page import finish, table

import tierwise
from tierwise.config import build, schema
from tierwise.core.settings import ProviderSettings

SCRIPT = "build_config_reference.py"

INTRO = """\
# Configuration

tierwise works without any configuration. What you set overrides the shipped defaults, key by key:

1. the shipped defaults;
2. your own file, `~/.config/tierwise/tierwise.toml` (`$XDG_CONFIG_HOME/tierwise/tierwise.toml`);
3. the project's file: the nearest `tierwise.toml` in the working directory or above it, up to the one with `.git`;
4. the environment.

`--config FILE` and `TIERWISE_CONFIG` name one file that is read instead of 2 and 3. Tables are merged; a list (the
models of a tier, the rules of the policy) is replaced as a whole; `[[prices]]` of all files are combined. An
unknown key is an error, and the message names the keys that are allowed there. Amounts and prices may be written as
strings: `"0.10"`; a TOML float is read as its shortest decimal text, never as a binary fraction.

A project's file that was only *found* cannot say where keys are sent: in it, a provider's `base_url` outside loopback,
its `headers`, its `api_key_env` and its `api_key_envs` are errors. See
[security and privacy](../explanation/security-and-privacy.md).

`tierwise doctor` says which files were read.
"""

# Section → (its class, its words, where its defaults stand in defaults.toml).
SECTIONS: Mapping[str, tuple[type[BaseModel], str]] = {
    "(top level)": (schema.ConfigFile, "Keys before the first section, and the sections that exist."),
    "[tiers.NAME]": (
        schema.TierSection,
        "A tier. Tiers are ordered as they are written, cheapest first; a new one goes to the top unless `after` says "
        'otherwise. `tiers.NAME = ["MODEL", …]` is short for a section with `models`.',
    ),
    "[models.ID]": (
        schema.ModelSection,
        "A model: its limits, and what a request to it may carry. `ID` is `PROVIDER:MODEL`, or a bare id with "
        "`provider`; ids that begin with `claude-` belong to the provider `anthropic`. A model that is named in a tier "
        "as `PROVIDER:MODEL` needs no section: what is not given is assumed from the provider's kind, see below.",
    ),
    "[providers.NAME]": (schema.ProviderSection, "How a provider is reached."),
    "[policy]": (schema.PolicySection, "The decision tree and its numbers."),
    "[[policy.rules]]": (
        schema.RuleSection,
        "One line of the decision tree. It applies when every given condition holds; the first that applies decides. "
        "Giving rules replaces all the shipped ones.",
    ),
    "[overrides]": (
        schema.OverridesSection,
        "For where you know better. Applied after the tree: tool, pattern, tag, type; the first that matches.",
    ),
    "[[overrides.patterns]]": (schema.PatternSection, "Texts that match go to a tier."),
    "[limits]": (schema.LimitsSection, "Limits of one call."),
    "[ledger]": (schema.LedgerSection, "Where calls are recorded."),
    "[gateway]": (schema.GatewaySection, "How `tierwise serve` serves."),
    "[gateway.limits.FAMILY]": (
        schema.RateLimitSection,
        "What may be sent to a family of models (`opus`, `sonnet`, `haiku`, `fable`, or a model's id) in a minute. The "
        "provider's own headers are obeyed anyway; these are additional ceilings.",
    ),
    "[gateway.projects.NAME]": (
        schema.ProjectSection,
        "Rules for the calls of one project, in addition to those for all. A call's project is that of its key, else "
        "what `x-tierwise-project` says, else `project`. Of the bounds of header, key and project the narrowest "
        "applies.",
    ),
    "[[prices]]": (
        schema.DatedPrice,
        "The price of a model from a given day, in US$ per million tokens. From the day of a model's first private "
        "price, its shipped prices do not apply.",
    ),
    "[[prices.bands]]": (schema.PriceSection, "Rates of requests with a longer prompt, in US$ per million tokens."),
    "[task_types.NAME]": (schema.TaskTypeSection, "A task type of your own."),
}

KEYS: Mapping[str, Mapping[str, str]] = {
    "(top level)": {
        "baseline": "What everything would go to without routing; savings are measured against it. A tier (its first "
        "model) or a model.",
        "project": "Recorded with each call that names none.",
        "tiers": "See [tiers.NAME].",
        "models": "See [models.ID].",
        "providers": "See [providers.NAME].",
        "policy": "See [policy].",
        "overrides": "See [overrides].",
        "classifier": "What recognises task types: the trained models, or the rules alone.",
        "limits": "See [limits].",
        "ledger": "See [ledger].",
        "gateway": "See [gateway].",
        "prices": "See [[prices]].",
        "task_types": "See [task_types.NAME].",
    },
    "[tiers.NAME]": {
        "models": "In order of preference: the first that can take the request and is available serves.",
        "retries": "How often a rejected or truncated reply is tried again on this tier.",
        "after": "The tier that it is placed above; without it, tiers are in the order in which they are written.",
        "enabled": "`false` takes a tier out.",
    },
    "[models.ID]": {
        "provider": "A name under `[providers]`.",
        "context_tokens": "Prompt and output together must fit.",
        "max_output_tokens": "The most that it can answer.",
        "tokenizer_factor": "How many tokens it counts where the tokenizer of Claude models up to 4.5 counts one.",
        "released": "Its first day; before that, `tierwise estimate` leaves it out.",
        "retired": "The first day without it.",
        "price_as": "The model whose prices apply to it.",
        "prompt_tokens_per_second": "Assumed speed of reading; for a local model, until it has been measured.",
        "output_tokens_per_second": "Assumed speed of writing, likewise.",
        "effort": "Whether it takes `output_config.effort`; a level is sent where the caller gives none.",
        "tools": "Takes tools.",
        "images": "Takes images.",
        "thinking": "Which `thinking` parameter it takes.",
        "forced_tool_use": "Takes `tool_choice` `any` and `tool`.",
        "sampling": "Takes `temperature`, `top_p`, `top_k`.",
        "prefill": "Takes a final assistant turn.",
        "structured_output": "How it is made to follow a JSON schema; `none`: it is asked in words.",
    },
    "[providers.NAME]": {
        "kind": "`anthropic`, `ollama`, `embedded`, `openai`, `litellm`, or an installed entry point of group "
        "`tierwise.providers`.",
        "base_url": "Where it is.",
        "api_key_env": "The *name* of the variable that holds the key. Without it, no key is sent.",
        "api_key_envs": "Several keys, in place of `api_key_env`: the variables' names. The gateway spreads what it "
        "sends to a provider of kind `anthropic` over those that are set; everything else uses the first.",
        "one_account": "Whether `api_key_envs` are keys of one account (one organisation or workspace, which shares "
        "its rate limits and its caches). Otherwise each is a separate account.",
        "auth": "How the key is sent.",
        "headers": "Sent with every request.",
        "stream": "Ask for a stream, which notices a dead server earlier.",
        "connect_timeout_seconds": "Until the connection is established.",
        "first_token_timeout_seconds": "Until the first piece of the answer; a cold local model may have to load.",
        "idle_timeout_seconds": "Between two pieces.",
        "local": "Runs on this machine: free unless a price is configured, and asked before use whether it is there.",
        "model_path": "Embedded: a GGUF file to use instead of the installed weights.",
        "context_tokens": "Embedded: the context to load the model with.",
        "threads": "Embedded: threads to compute with.",
        "inference_geo": "Anthropic: sent, and priced.",
        "speed": "Anthropic: sent, and priced where a price is known.",
    },
    "[policy]": {
        "rules": "See [[policy.rules]].",
        "roles": "Which tier plays which role of the tree: `local`, `processing`, `judgment`, `top`. `@top` is the "
        "highest tier, whichever that is.",
        "too_low_costs": "How many times worse it is to send work too low than to send it one tier too high, at three "
        "boundaries: processing that must be right the first time, judgment, critical work. A boundary is crossed "
        "where stricter work is likelier than 1 / (1 + cost). Higher is more careful and dearer.",
        "confident_above": "For the rules: below it, the strictest plausible alternative counts too.",
        "consider_alternatives_above": "For the rules: an alternative at least this likely is plausible.",
        "local_max_prompt_tokens": "Larger prompts do not go to the local role.",
        "local_max_output_tokens": "Nor do longer answers.",
        "default_max_latency_seconds": "Time that a step may take on the local tier where the caller sets no limit.",
        "output_tokens": "Expected tokens of output by task type; `default` for the rest.",
        "second_opinion": "Ask a model of the local tier where the classifier is in doubt, before a run. It chooses "
        "among the classifier's candidates, within 2 seconds, and never sends work lower than `too_low_costs` allows.",
        "second_opinion_below": "In doubt: a confidence below this.",
    },
    "[[policy.rules]]": {
        "name": "Short and stable; it becomes the `step` of the decision's reason.",
        "to": "The role of the tier.",
        "because": "The reason shown.",
        "needs": "The strictest of the text's types needs one of these.",
        "recoverable": "Whether a mistake would be noticed downstream.",
        "unsure": "The classifier abstained, or what is plausible stays below `confident_above`.",
        "fits_local": "Small enough and in time on the local tier.",
        "stakes": "The stakes that the caller gave.",
    },
    "[overrides]": {
        "tools": "Tool name → tier.",
        "types": "Task type → tier. Not applied where the classifier abstained or the text asks for several things.",
        "tags": "`key` or `key=value` → tier.",
        "patterns": "See [[overrides.patterns]].",
        "min_tier": "Nothing goes below it.",
        "max_tier": "Nothing goes, or climbs, above it.",
    },
    "[[overrides.patterns]]": {
        "match": "A regular expression, searched in the first and the last 4,000 characters of the task.",
        "tier": "Where matching texts go.",
    },
    "[limits]": {
        "max_cost_usd": "The whole climb. A task whose first rung is estimated above it is not run.",
        "deadline_seconds": "The whole climb, waits included.",
        "transient_retries": "Tries after a transient fault, on one rung.",
        "backoff_base_seconds": "Window of the first wait; it doubles each time, and the wait is a random part of it.",
        "max_retry_after_seconds": "If a server asks for a longer wait, the call does not wait, even on the last rung.",
        "backoff_cap_seconds": "The largest window. Where a server asks for a longer wait, the next rung is asked.",
        "circuit_failures": "Failures in a row after which a model is left alone.",
        "circuit_open_seconds": "For how long.",
    },
    "[ledger]": {
        "path": "The SQLite file.",
        "synchronous": "`full` also survives a power cut, and is slower.",
        "busy_timeout_ms": "How long to wait for another writer before a record goes to the spool.",
        "enabled": "`false` records nothing.",
        "capture_text": "Also keep what the classifier saw of each prompt (1,200 characters at most), for "
        "`tierwise train`. A decision about privacy: not taken from a file that was only found.",
    },
    "[[prices]]": {
        "model": "A model id, or `PROVIDER:MODEL`.",
        "from": "First day (UTC); without it, always.",
        "input": "Fresh input.",
        "output": "Output, thinking included.",
        "cache_read": "Without it, as fresh input.",
        "cache_write_5m": "Without it, as fresh input.",
        "cache_write_1h": "Without it, as fresh input.",
        "usd_per_web_search": "US$ per search.",
        "usd_per_hour": "US$ per hour of computing, for a local model that costs by time.",
        "bands": "See [[prices.bands]].",
        "source": "Where the number comes from; kept with the price.",
    },
    "[[prices.bands]]": {
        "above_prompt_tokens": "Applies to requests whose whole prompt is longer. Bands ascend.",
        "input": "Fresh input.",
        "output": "Output.",
        "cache_read": "Without it, as fresh input.",
        "cache_write_5m": "Without it, as fresh input.",
        "cache_write_1h": "Without it, as fresh input.",
    },
    "[gateway]": {
        "host": "The address to listen on. Anything but loopback demands keys.",
        "port": "The port to listen on; 0 takes any free one.",
        "mode": "`route`; or `observe`, which routes nothing and records what routing would have done.",
        "workers": "Processes that serve, on one address, with one ledger and one set of limits. Not on Windows; a new "
        "number needs a restart.",
        "upstream": "The provider that requests for a concrete model go to.",
        "routed_models": "Names of models that are routed; every other name passes through untouched.",
        "embedded": "Whether the embedded model may answer. It is demonstration grade: for trying out, not for work.",
        "switch_margin": "A conversation moves to a cheaper model only where that saves this share of what the rest "
        "of it would cost.",
        "max_body_bytes": "A larger request is refused.",
        "max_connections": "Connections beyond this number are refused with 503.",
        "body_timeout_seconds": "Time that a client has to send its request.",
        "rate_limit_wait_seconds": "Time that a call may wait for a rate limit where no other tier is left; then it "
        "gets 429 with an accurate `retry-after`.",
        "limits": "See [gateway.limits.FAMILY].",
        "projects": "See [gateway.projects.NAME].",
        "drain_seconds": "Time that running calls get when the gateway is told to stop.",
    },
    "[gateway.limits.FAMILY]": {
        "requests_per_minute": "Requests.",
        "input_tokens_per_minute": "Fresh input and cache writes; cache reads do not count.",
        "output_tokens_per_minute": "Output.",
    },
    "[gateway.projects.NAME]": {
        "min_tier": "What is routed does not go below it.",
        "max_tier": "What is routed does not go above it; a model asked for by name that is above it, or in no tier, "
        "is refused.",
        "routed_models": "Names of models that are routed for this project, in addition to `gateway.routed_models`.",
        "observe": "`true`: none of its calls are routed, and what routing would have done is recorded.",
    },
    "[task_types.NAME]": {
        "family": "A built-in family, or your own.",
        "needs": "What it asks of a model.",
        "recoverable": "A wrong answer is cheap to notice and to retry downstream.",
        "description": "What it is.",
    },
}

# Defaults that are in code, not in defaults.toml.
IN_WORDS: Mapping[tuple[str, str], str] = {
    ("(top level)", "project"): "none",
    ("[tiers.NAME]", "retries"): "1",
    ("[tiers.NAME]", "after"): "–",
    ("[tiers.NAME]", "enabled"): "`true`",
    ("[models.ID]", "provider"): "from the id",
    ("[models.ID]", "released"): "always there",
    ("[models.ID]", "retired"): "never",
    ("[models.ID]", "price_as"): "itself",
    ("[providers.NAME]", "kind"): "required",
    ("[providers.NAME]", "base_url"): "the kind's usual one",
    ("[overrides]", "min_tier"): "the lowest",
    ("[overrides]", "max_tier"): "the highest",
    ("[limits]", "max_cost_usd"): "no ceiling",
    ("[limits]", "deadline_seconds"): "no deadline",
    ("[ledger]", "path"): "`$XDG_DATA_HOME/tierwise/ledger.db`, or `~/.local/share/tierwise/ledger.db`",
}

ENVIRONMENT = (
    ("TIERWISE_CONFIG", "One configuration file, read instead of the user's and the project's."),
    ("TIERWISE_LEDGER", "The ledger's file; overrides `ledger.path`."),
    ("TIERWISE_PROJECT", "Overrides `project`."),
    ("TIERWISE_BASELINE", "Overrides `baseline`."),
    ("TIERWISE_MIN_TIER", "Overrides `overrides.min_tier`."),
    ("TIERWISE_MAX_TIER", "Overrides `overrides.max_tier`."),
    ("TIERWISE_MAX_COST_USD", "Overrides `limits.max_cost_usd`."),
    ("TIERWISE_RECORDS", "If set, the hooks of the plugin for Claude Code record nothing; `tierwise exec` sets it."),
    ("TIERWISE_CLAUDE_SOCKET", "Where the plugin's hooks find the process that answers them."),
    ("TIERWISE_HOOK_SECONDS", "How long a hook of the plugin waits for its answer; 0.03 by default."),
    ("TIERWISE_JOB_INDEX", "Which job of a matrix this is, for `tierwise comment`; set by the GitHub Action."),
    ("ANTHROPIC_API_KEY", "Key of `providers.anthropic` (its `api_key_env`), sent as `x-api-key`."),
    ("ANTHROPIC_AUTH_TOKEN", "Used where ANTHROPIC_API_KEY is not set; sent as a bearer token."),
    ("ANTHROPIC_BASE_URL", "Overrides `providers.anthropic.base_url`."),
    (
        "OLLAMA_HOST",
        "Overrides `providers.ollama.base_url`, read as Ollama reads it: scheme, host and port are optional.",
    ),
    ("OPENAI_API_KEY", "Key of `providers.openai`, sent as a bearer token."),
    ("OPENROUTER_API_KEY", "Key of `providers.openrouter`, sent as a bearer token."),
    ("XDG_CONFIG_HOME", "Where your own file is, in place of `~/.config`."),
    (
        "ANTHROPIC_MODEL",
        "Claude Code's own; where it names a model that the gateway routes, the plugin's hooks leave subagents alone.",
    ),
    ("XDG_DATA_HOME", "Where the ledger is, in place of `~/.local/share`."),
    (
        "XDG_STATE_HOME",
        "Where records wait while the ledger's folder cannot be written, and where the plugin keeps what it knows of "
        "sessions, in place of `~/.local/state`.",
    ),
    ("XDG_RUNTIME_DIR", "Where the plugin's socket is; else below `XDG_CACHE_HOME`."),
    ("XDG_CACHE_HOME", "Where the plugin's socket is, in place of `~/.cache`."),
    ("NO_COLOR", "If set, no colours."),
)


def lines() -> list[str]:
    """The page."""
    defaults = tomllib.loads((files("tierwise") / "data" / "defaults.toml").read_text("utf-8"))
    out = [INTRO, "## Sections", ""]
    for section, (model, words) in SECTIONS.items():
        out += [f"### {section}" if section != "(top level)" else "### Top level", "", words, ""]
        out += table(("key", "type", "default", "what it is"), _rows(section, model, defaults))
    out += _assumed()
    out += _shipped(defaults)
    return out + _environment()


def _rows(section: str, model: type[BaseModel], defaults: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    document = model.model_json_schema()
    known = KEYS[section]
    properties: Mapping[str, Any] = document["properties"]
    if missing := set(properties) ^ set(known):
        sys.exit(f"{SCRIPT}: {section}: keys and their words differ: {', '.join(sorted(missing))}")
    shipped = defaults.get(section.strip("[]"), {}) if section != "(top level)" else {"baseline": defaults["baseline"]}
    return [
        (f"`{key}`", _type(properties[key], document), _default(section, key, document, shipped), words)
        for key, words in known.items()
    ]


def _default(section: str, key: str, document: Mapping[str, Any], shipped: Mapping[str, Any]) -> str:
    if (section, key) in IN_WORDS:
        return IN_WORDS[section, key]
    value = shipped.get(key)
    if isinstance(value, dict | list):
        return "see below"
    if value is None and section == "[providers.NAME]":
        value = next((f.default for f in fields(ProviderSettings) if f.name == key and f.default is not MISSING), None)
    if value is None:
        value = document["properties"][key].get("default")
    if key in document.get("required", ()):
        return "required"
    if section == "[models.ID]":
        return "by kind"
    if value in (None, [], "") or isinstance(value, dict | list):
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(node: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        target = document["$defs"][name]
        return _type(target, document) if "enum" in target else "table"
    if arms := [arm for arm in node.get("anyOf", ()) if arm.get("type") != "null"]:
        decimal = {arm.get("type") for arm in arms} == {"number", "string"} and len(arms) == 2
        return f"decimal{_bounds(node)}" if decimal else " or ".join(_type(arm, document) for arm in arms)
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    match node.get("type"):
        case "array" if "prefixItems" in node:
            return f"list of {len(node['prefixItems'])}: {_type(node['prefixItems'][0], document)}"
        case "array":
            inner = {"table": "tables", "string": "strings"}.get(
                one := _type(node.get("items") or node["prefixItems"][0], document), one
            )
            return f"list of {inner}" + (", not empty" if node.get("minItems") else "")
        case "object":
            inside = node.get("additionalProperties")
            if "properties" in node or not isinstance(inside, dict):
                return "table"
            inner = {"string": "strings"}.get(one := _type(inside, document), one)
            return "tables by name" if inner == "table" else f"table of {inner}"
        case "boolean":
            return "true or false"
        case "string":
            return {"date": "date"}.get(node.get("format", ""), "string")
        case "integer" | "number" as kind:
            return f"{kind}{_bounds(node)}"
        case other:
            sys.exit(f"{SCRIPT}: no words for the type {other!r}: {node}")


def _bounds(node: Mapping[str, Any]) -> str:
    signs = (("minimum", "≥"), ("ge", "≥"), ("exclusiveMinimum", ">"), ("gt", ">"), ("maximum", "≤"), ("le", "≤"))
    found = [f"{sign} {node[name]:,}" for name, sign in signs if name in node]
    return f" {', '.join(found)}" if found else ""


def _assumed() -> list[str]:
    """What is assumed of a model that is not described, by the kind of its provider."""
    kinds = build._ASSUMED
    keys = list(dict.fromkeys(key for facts in kinds.values() for key in facts))
    usual = {"sampling": True, "prefill": True, "forced_tool_use": True, "images": True, "tools": True}
    usual |= {"structured_output": "none", "prompt_tokens_per_second": 5000.0, "output_tokens_per_second": 60.0}
    out = ["## What is assumed of a model", ""]
    out += [
        "Where its section says nothing, it depends on the kind of its provider. Other kinds count as `openai`.",
        "",
    ]
    rows = [[f"`{key}`", *(_show(facts.get(key, usual.get(key))) for facts in kinds.values())] for key in keys]
    rows += [["`thinking`", *["`none`"] * len(kinds)], ["`effort`", *["`false`"] * len(kinds)]]
    rows += [["`tokenizer_factor`", *["`1`"] * len(kinds)]]
    return out + table(("key", *kinds), rows)


def _show(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"{value:,.0f}"
    return f"`{value}`"


def _shipped(defaults: Mapping[str, Any]) -> list[str]:
    out = ["## Shipped tiers, models, providers and rules", ""]
    rows = [
        (f"`{name}`", ", ".join(f"`{model}`" for model in tier["models"]), str(tier.get("retries", 1)))
        for name, tier in defaults["tiers"].items()
    ]
    out += table(("tier", "models, in order of preference", "retries"), rows)
    keys = ("released", "context_tokens", "max_output_tokens", "tokenizer_factor", "thinking", "structured_output")
    rows = [
        (f"`{name}`", *("–" if key not in model else _plain(model[key]) for key in keys))
        for name, model in defaults["models"].items()
    ]
    out += table(("model", "released", "context", "output", "tokenizer factor", "thinking", "structured output"), rows)
    rows = [
        (f"`{name}`", *(_plain(p.get(key, "–")) for key in ("kind", "base_url", "api_key_env")), _plain("local" in p))
        for name, p in defaults["providers"].items()
    ]
    out += table(("provider", "kind", "base_url", "api_key_env", "local"), rows)
    conditions = ("stakes", "needs", "recoverable", "unsure", "fits_local")
    rows = [
        (
            f"`{rule['name']}`",
            ", ".join(f"{key} = {_toml(rule[key])}" for key in conditions if key in rule),
            rule["to"],
            rule["because"],
        )
        for rule in defaults["policy"]["rules"]
    ]
    out += table(("rule", "applies when", "to", "because"), rows)
    roles = ", ".join(f"{role} → `{tier}`" for role, tier in defaults["policy"]["roles"].items())
    out += [f"Roles: {roles}.", ""]
    return [*out, "Expected output of each task type: [task types](task-types.md).", ""]


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def _environment() -> list[str]:
    source = Path(tierwise.__file__).parent
    text = "".join(path.read_text("utf-8") for path in sorted(source.rglob("*.py")))
    text += (source / "data" / "defaults.toml").read_text("utf-8")
    in_code = set(re.findall(r"[\"']((?:TIERWISE|XDG|ANTHROPIC|OLLAMA|OPENAI|OPENROUTER)_[A-Z_]+)[\"']", text))
    in_code -= {"TIERWISE_COMPLETE", "ANTHROPIC_CUSTOM_HEADERS"}  # click's, and one that is set for Claude Code
    known = {name for name, _ in ENVIRONMENT} - {"NO_COLOR"}  # rich's own
    if wrong := in_code ^ known:
        sys.exit(f"{SCRIPT}: variables of code and page differ: {', '.join(sorted(wrong))}")
    out = ["## Environment", "", "Read together with the configuration; an empty value counts as not set.", ""]
    out += table(("variable", "what it does"), [(f"`{name}`", words) for name, words in ENVIRONMENT])
    return [
        *out,
        "The usual proxy variables (`HTTPS_PROXY`, `NO_PROXY`, …) apply to every provider that is not on this machine.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(finish("configuration.md", SCRIPT, lines()))
