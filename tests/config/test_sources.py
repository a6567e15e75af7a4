"""Which files are read, and which of them wins."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.config.conftest import Load
from tierwise.config import config_paths, default_ledger_path, load_settings, shipped_settings, user_config_path
from tierwise.core.errors import ConfigError

TOKEN = "a-token"  # noqa: S105 it opens nothing


def test_without_any_file_there_are_four_tiers(load: Load) -> None:
    """The defaults alone are a whole configuration: four tiers, Sonnet as the baseline, nothing read."""
    settings = load()
    assert [(str(s.tier), int(s.tier), s.models[0].id, s.retries) for s in settings.catalog] == [
        ("local", 0, "qwen3:8b", 2),
        ("haiku", 1, "claude-haiku-5-5", 1),
        ("sonnet", 2, "claude-sonnet-5-5", 1),
        ("opus", 3, "claude-opus-5-5", 1),
    ]
    assert settings.catalog.baseline.id == "claude-sonnet-5-5"
    assert settings.sources == ()


def test_shipped_settings_read_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shipped is the same wherever it is asked for; an environment is honoured when it is given."""
    (tmp_path / "tierwise.toml").write_text("baseline = 'opus'\n[tiers.local]\nenabled = false\n")
    monkeypatch.chdir(tmp_path)
    shipped = shipped_settings()
    assert (shipped.catalog.baseline.id, len(shipped.catalog.tiers), shipped.sources) == ("claude-sonnet-5-5", 4, ())
    environed = shipped_settings({"HOME": str(tmp_path), "OLLAMA_HOST": "box:1234"})
    assert environed.providers["ollama"].base_url == "http://box:1234"
    assert environed.sources == ()


def test_each_source_wins_over_the_one_before(load: Load, tmp_path: Path) -> None:
    """Defaults, then the user's file, then the project's, then the environment; key by key, not file by file."""
    user = "project = 'u'\nbaseline = 'opus'\n[limits]\nmax_cost_usd = 1\ntransient_retries = 7"
    project = "project = 'p'\n[limits]\nmax_cost_usd = '0.50'"
    assert load(user=user).project == "u"
    both = load(project, user=user)
    assert (both.project, both.catalog.baseline.id) == ("p", "claude-opus-5-5")
    assert (both.limits.max_cost_usd, both.limits.transient_retries) == (Decimal("0.50"), 7)
    assert both.limits.backoff_cap_seconds == 30.0
    environed = load(project, user=user, TIERWISE_PROJECT="e", TIERWISE_BASELINE="haiku", TIERWISE_MAX_COST_USD="0.1")
    assert (environed.project, environed.catalog.baseline.id) == ("e", "claude-haiku-5-5")
    assert environed.limits.max_cost_usd == Decimal("0.1")
    assert [p.parent.name for p in both.sources] == ["tierwise", "work"]


def test_an_explicit_file_is_the_only_one(load: Load) -> None:
    """A file that is named is read instead of the user's and the project's, over the defaults."""
    settings = load("project = 'p'", user="baseline = 'opus'", explicit="[limits]\ndeadline_seconds = 3")
    assert (settings.project, settings.catalog.baseline.id) == (None, "claude-sonnet-5-5")
    assert settings.limits.deadline_seconds == 3
    assert [path.name for path in settings.sources] == ["mine.toml"]


def test_the_variable_names_a_file_too(load: Load, tmp_path: Path) -> None:
    """TIERWISE_CONFIG names the only file, relative to the working directory or to home; a path given wins over it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "other.toml").write_text("project = 'o'")
    assert load("project = 'p'", TIERWISE_CONFIG="other.toml").project == "o"
    assert load(TIERWISE_CONFIG=str(tmp_path / "work" / "other.toml")).project == "o"
    assert load(explicit="project = 'x'", TIERWISE_CONFIG="other.toml").project == "x"


def test_the_projects_file_is_looked_for_up_to_its_repository(tmp_path: Path) -> None:
    """A file above the working directory counts, one above the repository does not."""
    deep = tmp_path / "repo" / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "tierwise.toml").write_text("project = 'outside'")
    env = {"HOME": str(tmp_path / "nobody")}
    assert config_paths(env, deep) == (tmp_path / "tierwise.toml",)
    (tmp_path / "repo" / ".git").mkdir()
    assert config_paths(env, deep) == ()
    (tmp_path / "repo" / "tierwise.toml").write_text("project = 'inside'")
    assert load_settings(env=env, cwd=deep).project == "inside"


def test_the_users_file_is_where_xdg_says(tmp_path: Path) -> None:
    """XDG_CONFIG_HOME and XDG_DATA_HOME move the user's file and the ledger; HOME is what they default to."""
    assert user_config_path({"HOME": "/h"}) == Path("/h/.config/tierwise/tierwise.toml")
    assert user_config_path({"HOME": "/h", "XDG_CONFIG_HOME": "/c"}) == Path("/c/tierwise/tierwise.toml")
    assert default_ledger_path({"HOME": "/h"}) == Path("/h/.local/share/tierwise/ledger.db")
    assert default_ledger_path({"HOME": "/h", "XDG_DATA_HOME": "/d"}) == Path("/d/tierwise/ledger.db")


def test_the_ledgers_path_follows_file_and_environment(load: Load, tmp_path: Path) -> None:
    """The ledger is where the environment says, else the file, else the user's data folder."""
    home = tmp_path / "home"
    assert load().ledger.path == home / ".local" / "share" / "tierwise" / "ledger.db"
    assert load("ledger.path = '/x/l.db'").ledger.path == Path("/x/l.db")
    assert load("ledger.path = '/x/l.db'", TIERWISE_LEDGER="/y/l.db").ledger.path == Path("/y/l.db")


def test_a_tier_in_short_form_can_be_added_to_by_another_file(load: Load) -> None:
    """`tiers.x = [...]` in one file and a section of the same tier in the next make one tier."""
    settings = load("[tiers.fable]\nretries = 4", user='tiers.fable = ["claude-fable-5-2"]')
    assert (settings.catalog.top.models[0].id, settings.catalog.top.retries) == ("claude-fable-5-2", 4)


# ------------------------------------------------------------------ what a file of the project may not do


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("anthropic.base_url = 'https://evil.example'", "base_url"),
        ("anthropic.base_url = 'http://127.0.0.1.evil.example'", "base_url"),
        ("anthropic.base_url = 'http://localhost@evil.example'", "base_url"),
        ("new = { kind = 'anthropic', base_url = 'https://evil.example' }", "base_url"),
        ("anthropic.api_key_env = 'AWS_SECRET_ACCESS_KEY'", "api_key_env"),
        ("anthropic.api_key_envs = ['AWS_SECRET_ACCESS_KEY']", "api_key_envs"),
        ("anthropic.headers = { x-forwarded = 'evil' }", "headers"),
    ],
)
def test_a_file_that_was_only_found_cannot_redirect_keys(load: Load, setting: str, key: str) -> None:
    """A repository's own file cannot choose where this machine's keys go; the user's and a named one can."""
    text = f"[providers]\n{setting}"
    with pytest.raises(ConfigError, match=rf"tierwise.toml: providers.\w+.{key} decides where .* are sent.*--config"):
        load(text)


@pytest.mark.parametrize("how", ["user", "explicit"])
def test_the_users_own_file_may_set_addresses_and_keys(load: Load, how: str) -> None:
    """What the user wrote or named may send keys where it likes."""
    text = (
        "[providers.anthropic]\nbase_url = 'https://gateway.example/'\napi_key_env = 'MY_KEY'\nauth = 'bearer'\n"
        "headers = { x-team = 'a' }"
    )
    provider = load(**{how: text}, MY_KEY=" k1 ").providers["anthropic"]
    assert (provider.base_url, provider.api_key, provider.auth) == ("https://gateway.example", "k1", "bearer")
    assert provider.headers == {"x-team": "a"}


def test_a_project_may_name_servers_on_this_machine(load: Load) -> None:
    """An address on loopback sends nothing away, so a project's file may give one."""
    settings = load("[providers.vllm]\nkind = 'anthropic'\nbase_url = 'http://localhost:8000'")
    assert settings.providers["vllm"].base_url == "http://localhost:8000"


# ------------------------------------------------------------------ keys and addresses from the environment


def test_keys_come_from_the_environment_and_are_never_shown() -> None:
    """A key is read from the variable that the provider names, and is nowhere in what the settings show."""
    settings = load_settings(
        env={"HOME": "/nowhere", "ANTHROPIC_API_KEY": "sk-secret-1", "OPENAI_API_KEY": "sk-secret-2"}, cwd=Path("/")
    )
    assert settings.providers["anthropic"].api_key == "sk-secret-1"
    assert settings.providers["openrouter"].key_missing
    assert not settings.providers["ollama"].key_missing
    assert "secret" not in repr(settings)


def test_headers_are_not_shown_either(load: Load) -> None:
    """A header may be a key: it is not in what the settings show."""
    settings = load(user="[providers.anthropic.headers]\nauthorization = 'Bearer secret'")
    assert "secret" not in repr(settings)


def test_variables_of_anthropics_own_programs_are_honoured(load: Load) -> None:
    """ANTHROPIC_BASE_URL and ANTHROPIC_AUTH_TOKEN work as in Anthropic's SDKs; a key wins over a token."""
    provider = load(ANTHROPIC_BASE_URL="http://gw.example:1/", ANTHROPIC_AUTH_TOKEN=TOKEN).providers["anthropic"]
    assert (provider.base_url, provider.api_key, provider.auth) == ("http://gw.example:1", TOKEN, "bearer")
    assert not provider.key_missing
    both = load(ANTHROPIC_AUTH_TOKEN=TOKEN, ANTHROPIC_API_KEY="key").providers["anthropic"]
    assert (both.api_key, both.auth) == ("key", "x-api-key")
    assert load(ANTHROPIC_API_KEY="  ").providers["anthropic"].key_missing


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 what a server binds, not what is bound here
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        (":9000", "http://127.0.0.1:9000"),
        ("gpu.local:9000", "http://gpu.local:9000"),
        ("http://gpu.local", "http://gpu.local:80"),
        ("https://gpu.local", "https://gpu.local:443"),
        ("https://gpu.local:8443/ollama/", "https://gpu.local:8443/ollama"),
        ("[::]:9000", "http://[::1]:9000"),
        ("::1", "http://[::1]:11434"),
        (" gpu.local ", "http://gpu.local:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(load: Load, host: str, url: str) -> None:
    """Scheme, host and port may each be missing; what a server binds becomes what a client calls."""
    assert load(OLLAMA_HOST=host).providers["ollama"].base_url == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OLLAMA_HOST", "host:99999"),
        ("OLLAMA_HOST", "[::1"),
        ("OLLAMA_HOST", "ftp://host"),
        ("OLLAMA_HOST", "two words"),
        ("ANTHROPIC_BASE_URL", "api.anthropic.com"),
        ("ANTHROPIC_BASE_URL", "http://[bad"),
    ],
)
def test_addresses_in_variables_are_checked(load: Load, name: str, value: str) -> None:
    """A variable that is no address is an error that names the variable, not a failure of the first call."""
    with pytest.raises(ConfigError, match=f"{name}=.* is not an address"):
        load(**{name: value})


@pytest.mark.parametrize("value", ["much", "-1", "nan", "inf", "1e"])
def test_a_ceiling_in_a_variable_is_checked(load: Load, value: str) -> None:
    """TIERWISE_MAX_COST_USD must be an amount."""
    with pytest.raises(ConfigError, match=r"TIERWISE_MAX_COST_USD=.* is not an amount in US"):
        load(TIERWISE_MAX_COST_USD=value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TIERWISE_MIN_TIER", "hiku", r"unknown tier 'hiku' at TIERWISE_MIN_TIER.*did you mean 'haiku'.*local, haiku"),
        ("TIERWISE_MAX_TIER", "x", r"unknown tier 'x' at TIERWISE_MAX_TIER"),
        ("TIERWISE_BASELINE", "gpt", r"TIERWISE_BASELINE: baseline = 'gpt' is neither a tier nor a model"),
    ],
)
def test_tiers_in_variables_are_checked(load: Load, name: str, value: str, message: str) -> None:
    """A variable that names no tier is an error that names the variable and the tiers there are."""
    with pytest.raises(ConfigError, match=message):
        load(**{name: value})


def test_variables_bound_the_tiers(load: Load) -> None:
    """TIERWISE_MIN_TIER and TIERWISE_MAX_TIER win over the files, and may not contradict each other."""
    overrides = load("[overrides]\nmin_tier = 'opus'", TIERWISE_MIN_TIER="haiku", TIERWISE_MAX_TIER="sonnet").overrides
    assert (overrides.min_tier, overrides.max_tier) == ("haiku", "sonnet")
    with pytest.raises(ConfigError, match=r"TIERWISE_MIN_TIER = 'opus' is above overrides.max_tier = 'haiku'"):
        load("[overrides]\nmax_tier = 'haiku'", TIERWISE_MIN_TIER="opus")
