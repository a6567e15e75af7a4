"""Whatever is wrong in a file, the message names the file, the key and what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.config.conftest import Load
from tierwise.config import load_settings
from tierwise.core.errors import ConfigError

PRICE = "[[prices]]\nmodel = 'm'\ninput = '1'\noutput = '2'\n"
PROVIDER = "[providers.p]\nkind = 'openai'\n"

# What is written, then parts of the message that must be there.
MISTAKES: list[tuple[str, list[str]]] = [
    # unknown keys, at every level
    ("basline = 'opus'", ["unknown key 'basline'", "did you mean 'baseline'?", "here: baseline, classifier, gateway"]),
    ("[tiers.haiku]\nretry = 2", ["unknown key 'tiers.haiku.retry'", "after, enabled, models, retries"]),
    ("[models.claude-x]\ncontext = 1", ["unknown key 'models.claude-x.context'", "context_tokens"]),
    ("[providers.anthropic]\napi_key = 'sk-secret'", ["'providers.anthropic.api_key'", "did you mean 'api_key_env'"]),
    ("[policy]\nconfident = 1", ["unknown key 'policy.confident'", "confident_above"]),
    (
        "[[policy.rules]]\nname='a'\nto='top'\nbecause='b'\nwhen=1",
        ["unknown key 'policy.rules.0.when'", "fits_local", "stakes"],
    ),
    ("[overrides]\ntool = {}", ["unknown key 'overrides.tool'", "did you mean 'tools'?"]),
    ("[[overrides.patterns]]\nregex='a'\ntier='opus'\nmatch='b'", ["overrides.patterns.0.regex", "match, tier"]),
    ("[limits]\nmax_cost = 1", ["unknown key 'limits.max_cost'", "max_cost_usd"]),
    ("[ledger]\nfile = 'x'", ["unknown key 'ledger.file'", "path"]),
    (PRICE + "price = 1", ["unknown key 'prices.0.price'", "from", "usd_per_hour"]),
    (PRICE + "bands = [{input='1', output='2', above=3}]", ["prices.0.bands.0.above", "above_prompt_tokens"]),
    (
        "[task_types.t]\nfamily='f'\nneeds='judgment'\nrecoverable=true\nname='x'",
        ["unknown key 'task_types.t.name'", "recoverable"],
    ),
    # names that are not there
    ("baseline = 'sonet'", ["baseline = 'sonet' is neither a tier nor a model", "local, haiku, sonnet, opus"]),
    ("[overrides]\nmin_tier = 'hiku'", ["unknown tier 'hiku'", "overrides.min_tier", "use one of local, haiku"]),
    ("[gateway.projects.a]\nmax_tier = 'hiku'", ["unknown tier 'hiku'", "gateway.projects.a.max_tier"]),
    (
        "[gateway.projects.a]\nmin_tier = 'opus'\nmax_tier = 'haiku'",
        ["gateway.projects.a.min_tier = 'opus' is above gateway.projects.a.max_tier = 'haiku'"],
    ),
    ("[gateway.projects.a]\nmin = 'opus'", ["unknown key 'gateway.projects.a.min'", "max_tier, min_tier"]),
    ("[overrides.tools]\ngrep = 'lokal'", ["'lokal' at overrides.tools.grep", "did you mean 'local'"]),
    ("[overrides.types]\nsummarization = 'x'", ["overrides.types.summarization", "local, haiku, sonnet, opus"]),
    ("[overrides.tags]\n'team=a' = 'x'", ["overrides.tags.team=a"]),
    ("[[overrides.patterns]]\nmatch='a'\ntier='x'", ["overrides.patterns[0].tier"]),
    ("[policy.roles]\ntop = 'x'", ["policy.roles.top = 'x'", "local, haiku, sonnet, opus", "@top"]),
    ("[policy.roles]\nbottom = 'local'", ["policy.roles.bottom", "'local', 'processing', 'judgment' or 'top'"]),
    ("[tiers.haiku]\nmodels = ['gpt-9']", ["tiers.haiku.models", "unknown model 'gpt-9'", "PROVIDER:MODEL"]),
    ("[tiers.haiku]\nmodels = ['claud-haiku-5-5']", ["did you mean 'claude-haiku-5-5'?"]),
    ("[tiers.haiku]\nmodels = ['olama:qwen']", ["unknown model 'olama:qwen'", "ollama"]),
    ("[tiers.haiku]\nmodels = ['ollama:']", ["'ollama:' without a model after the colon"]),
    ("tiers.x = ['m']\n[models.m]\ncontext_tokens = 9", ["models.m.provider is missing", "anthropic"]),
    ("tiers.x = ['m']\n[models.m]\nprovider = 'q'", ["models.m.provider = 'q'", "anthropic"]),
    ("tiers.x = ['claude-opus-5']", ["'claude-opus-5' is in both tiers.opus and tiers.x"]),
    ("[tiers.x]\nretries = 1", ["tiers.x.models is missing"]),
    ("[tiers.x]\nmodels = ['claude-x']\nafter = 'y'", ["tiers.x.after = 'y'", "local, haiku, sonnet, opus"]),
    ("tiers.'a b' = ['claude-x']", ["tier name 'a b'", "letters, digits"]),
    ("[providers.p]\nbase_url = 'http://127.0.0.1'", ["providers.p.kind is missing", "anthropic, ollama"]),
    (
        "baseline = 'openrouter:claude-sonnet-5-5'\n[models.'openrouter:claude-sonnet-5-5']\ncontext_tokens = 9",
        ["baseline = 'openrouter:claude-sonnet-5-5'", "of another provider"],
    ),
    # values that cannot be
    (PRICE.replace("'1'", "-1"), ["prices.0.input", "greater than or equal to 0", "(it is -1)"]),
    (PRICE.replace("'1'", "'-0.01'"), ["prices.0.input", "greater than or equal to 0"]),
    (PRICE.replace("'1'", "nan"), ["prices.0.input"]),
    (PRICE.replace("'1'", "true"), ["prices.0.input", "not true or false"]),
    (PRICE.replace("'1'", "'cheap'"), ["prices.0.input", "(it is 'cheap')"]),
    (PRICE.replace("'1'", "'1e400'"), ["prices.0.input"]),
    (PRICE + "bands = [{input='1', output='2'}]", ["prices of m", "bands must ascend by above_prompt_tokens"]),
    ("[[prices]]\nmodel = 'm'\ninput = '1'", ["prices.0.output", "required"]),
    ("[limits]\nmax_cost_usd = -0.5", ["limits.max_cost_usd", "(it is -0.5)"]),
    ("[limits]\ndeadline_seconds = '30s'", ["limits.deadline_seconds", "valid number", "(it is '30s')"]),
    ("[limits]\ndeadline_seconds = inf", ["limits.deadline_seconds", "finite"]),
    ("[limits]\ndeadline_seconds = 0", ["limits.deadline_seconds", "greater than 0"]),
    ("[limits]\ntransient_retries = 1.5", ["limits.transient_retries", "(it is 1.5)"]),
    ("[limits]\ntransient_retries = true", ["limits.transient_retries", "integer"]),
    ("[policy]\nconfident_above = 60", ["policy.confident_above", "less than or equal to 1"]),
    ("[policy]\nconfident_above = nan", ["policy.confident_above", "finite"]),
    ("[policy]\nconfident_above = true", ["policy.confident_above"]),
    ("[policy]\nrules = []", ["policy.rules", "at least 1"]),
    ("[[policy.rules]]\nname='a'\nto='up'\nbecause='b'", ["policy.rules.0.to", "'top'", "(it is 'up')"]),
    ("[[policy.rules]]\nname='a'\nto='top'\nbecause='b'\nneeds=['love']", ["policy.rules.0.needs.0", "'judgment'"]),
    ("[policy.output_tokens]\nsummarization = 0", ["policy.output_tokens.summarization"]),
    ("[tiers.haiku]\nmodels = []", ["tiers.haiku.models", "at least 1"]),
    ("tiers.haiku = 'claude-haiku-5-5'", ["tiers.haiku", "list the models"]),
    ("[tiers.haiku]\nmodels = 'claude-haiku-5-5'", ["tiers.haiku.models", "tuple"]),
    ("[tiers.haiku]\nretries = -1", ["tiers.haiku.retries"]),
    ("[tiers.haiku]\nenabled = 'no'", ["tiers.haiku.enabled", "boolean"]),
    ("[models.claude-x]\nthinking = 'hard'", ["models.claude-x.thinking", "'adaptive'", "(it is 'hard')"]),
    ("[models.claude-x]\neffort = 'huge'", ["models.claude-x.effort:", "'low', 'medium'"]),
    ("[models.claude-x]\ncontext_tokens = 0", ["models.claude-x.context_tokens", "greater than 0"]),
    ("[models.claude-x]\nreleased = 'soon'", ["models.claude-x.released", "date"]),
    ("[models.claude-x]\ntokenizer_factor = 0", ["models.claude-x.tokenizer_factor"]),
    (PROVIDER + "base_url = 'localhost:1'", ["providers.p.base_url", "not an address", "http://"]),
    (PROVIDER + "base_url = 'http://[bad'", ["providers.p.base_url", "not an address"]),
    (PROVIDER + "base_url = 'http://h:99999'", ["providers.p.base_url", "not an address"]),
    (PROVIDER + "auth = 'basic'", ["providers.p.auth", "'x-api-key' or 'bearer'"]),
    ("[ledger]\nsynchronous = 'off'", ["ledger.synchronous", "'normal' or 'full'"]),
    ("[task_types.t]\nfamily='f'\nneeds='love'\nrecoverable=true", ["task_types.t.needs", "'processing'"]),
    ("[[overrides.patterns]]\nmatch='(a'\ntier='opus'", ["overrides.patterns[0].match = '(a'", "regular expression"]),
    (
        "[overrides]\nmin_tier='opus'\nmax_tier='haiku'",
        ["overrides.min_tier = 'opus' is above overrides.max_tier = 'haiku'"],
    ),
    ("tiers.local.enabled=false\ntiers.haiku.enabled=false\ntiers.sonnet.enabled=false\ntiers.opus.enabled=false",
     ["no tier is enabled"]),
    ("[tiers.sonnet]\nenabled = false", ["baseline = 'sonnet' is neither a tier", "local, haiku, opus"]),
    ("[overrides]\nmin_tier = 'sonnet'\n[tiers.sonnet]\nenabled = false\n", ["sonnet"]),
    ("limits = 3", ["limits", "dictionary"]),
    ("tiers = []", ["tiers", "dictionary"]),
    # not TOML
    ("a = ]", ["is not valid TOML", "line 1, column 5"]),
    ("a = ", ["is not valid TOML"]),
    ("a = 1\na = 2", ["is not valid TOML"]),
    ("a = " + "9" * 5000, ["is not valid TOML"]),
    ("a = " + "[" * 5000, ["is not valid TOML"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "parts"), MISTAKES, ids=[" ".join(t.split())[:50] for t, _ in MISTAKES])
def test_mistakes_are_explained(load: Load, text: str, parts: list[str]) -> None:
    """A mistake is an error that names the file, the key, and what would be right."""
    with pytest.raises(ConfigError) as caught:
        load(user=text)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "tierwise.toml" in message or "providers.p.kind" in message
    assert "pydantic" not in message
    assert "secret" not in message


def test_a_key_written_into_the_file_is_not_repeated(load: Load) -> None:
    """Whoever puts a key where its variable's name belongs does not find it in an error message."""
    with pytest.raises(ConfigError) as caught:
        load(user="[providers.anthropic]\napi_key_env = 'sk-ant-secret'")
    assert "providers.anthropic.api_key_env" in str(caught.value)
    assert "name of an environment variable" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_all_mistakes_of_a_file_are_reported_at_once(load: Load) -> None:
    """Two mistakes are two lines of one message."""
    with pytest.raises(ConfigError, match=r"has 2 mistakes:\n  limits.transient_retries.*\n  .*'basline'"):
        load("basline = 1\n[limits]\ntransient_retries = -1")


def test_a_mistake_between_files_names_both(load: Load, tmp_path: Path) -> None:
    """What only two files together get wrong names both, the stronger first."""
    with pytest.raises(ConfigError, match=r"work/tierwise.toml over .*\.config/tierwise/tierwise.toml"):
        load("[overrides]\nmax_tier = 'haiku'", user="[overrides]\nmin_tier = 'opus'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"project = '\xff'", r"is not UTF-8 \(byte 11\)"),
        (b"#" * (4 * 1024 * 1024 + 1), r"too long.*4,194,304"),
        ("project = 'x'".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Bytes that are not UTF-8, and megabytes, are refused with the file's name."""
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}.*{message}"):
        load_settings(env={"HOME": str(tmp_path)}, cwd=tmp_path, path=path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """A file saved by an editor that writes a byte order mark reads like any other."""
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbfproject = 'x'")
    assert load_settings(env={"HOME": str(tmp_path)}, cwd=tmp_path, path=path).project == "x"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.toml", "there is no configuration file .*missing.toml.*tierwise init"),
        ("folder", "cannot read .*folder: Is a directory"),
        ("folder/missing/x.toml", "there is no configuration file"),
    ],
)
def test_a_named_file_must_be_there(tmp_path: Path, name: str, message: str) -> None:
    """A file that was named and is missing, or is a directory, is an error; it is not passed over."""
    (tmp_path / "folder").mkdir()
    for how in ({"path": tmp_path / name}, {"env": {"HOME": str(tmp_path), "TIERWISE_CONFIG": str(tmp_path / name)}}):
        with pytest.raises(ConfigError, match=message):
            load_settings(**{"env": {"HOME": str(tmp_path)}, "cwd": tmp_path, **how})  # type: ignore[arg-type]


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A device that never ends is refused like any file that is too long."""
    with pytest.raises(ConfigError, match="too long"):
        load_settings(env={"HOME": str(tmp_path)}, cwd=tmp_path, path=Path("/dev/zero"))
