"""`tierwise init`: a file that is valid in every line, written once, and the embedded model."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Tierwise
from tierwise.cli.init import template
from tierwise.config import load_settings
from tierwise.providers import embedded
from tierwise.testing import StandInUpstream

KEY_LINE = re.compile(r'^# ([a-z_]+|"[^"]+") = ')


@pytest.fixture(autouse=True)
def weights_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test here downloads anything: the weights are found, unless a test says otherwise."""
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"GGUF")
    monkeypatch.setattr(embedded, "find_weights", lambda _settings: weights)
    return weights


def _load(text: str, tmp_path: Path) -> object:
    path = tmp_path / "try.toml"
    path.write_text(text)
    return load_settings(env={"HOME": str(tmp_path)}, cwd=tmp_path, path=path)


@pytest.mark.parametrize("user", [False, True])
def test_every_line_of_the_file_is_valid(tmp_path: Path, user: bool) -> None:
    """The file as written loads, so does it with any one commented key taken in, and with all of them."""
    text = template(["qwen3:8b", 'odd"name'], "http://127.0.0.1:11434", {"ANTHROPIC_API_KEY": True}, user=user)
    lines = text.splitlines()
    keys = [number for number, line in enumerate(lines) if KEY_LINE.match(line)]
    assert len(keys) > 20
    _load(text, tmp_path)
    for number in keys:
        tried = [line[2:] if index == number else line for index, line in enumerate(lines)]
        _load("\n".join(tried), tmp_path)
    everything = "\n".join(line[2:] if index in keys else line for index, line in enumerate(lines))
    _load(everything, tmp_path)
    assert len(tomllib.loads(everything)) >= 9


def test_no_prose_line_looks_like_a_key(tmp_path: Path) -> None:
    """What is commented out and is no key is a sentence: taking its # away is never valid TOML by accident."""
    text = template([], "http://127.0.0.1:11434", {}, user=True)
    for line in text.splitlines():
        if line.startswith("# ") and not KEY_LINE.match(line) and not line.startswith("# --"):
            with pytest.raises(tomllib.TOMLDecodeError):
                tomllib.loads(line[2:])


def test_file_is_written_once(tierwise: Tierwise, home: Path) -> None:
    """The second run leaves the file alone and succeeds; --force overwrites it."""
    first = tierwise("init", "--json").json
    assert (first["written"], first["config"]) == (True, str(home / "tierwise.toml"))
    (home / "tierwise.toml").write_text("# mine\n")
    second = tierwise("init")
    assert second.code == 0
    assert "left alone" in second.out
    assert (home / "tierwise.toml").read_text() == "# mine\n"
    assert tierwise("init", "--force", "--json").json["written"] is True
    assert "[tiers.local]" in (home / "tierwise.toml").read_text()
    assert [path.name for path in home.iterdir()] == ["tierwise.toml"]
    assert tierwise("route", "x", "--json").code == 0


def test_file_can_be_read_by_others_as_the_umask_says(tierwise: Tierwise, home: Path) -> None:
    """A project's file is shared like any other file of the project."""
    tierwise("init")
    (home / "other").touch()
    assert stat.S_IMODE((home / "tierwise.toml").stat().st_mode) == stat.S_IMODE((home / "other").stat().st_mode)


def test_user_file_goes_where_the_configuration_is_read(tierwise: Tierwise, home: Path) -> None:
    """--user writes the user's own file, which is then in use everywhere."""
    made = tierwise("init", "--user", "--json").json
    assert made["config"] == str(home.parent / ".config" / "tierwise" / "tierwise.toml")
    assert "api_key_env" in Path(made["config"]).read_text()
    assert made["config"] in tierwise("doctor", "--no-speed").out


def test_models_of_ollama_are_listed(tierwise: Tierwise, home: Path) -> None:
    """What Ollama has goes into the local tier, the preferred ones first, models that only embed left out."""
    with StandInUpstream(ollama_models=["nomic-embed-text:latest", "aya:8b", "qwen3:8b"]) as ollama:
        done = tierwise("init", env={"OLLAMA_HOST": ollama.url})
        routed = tierwise("route", "Summarise this", "--json", env={"OLLAMA_HOST": ollama.url})
    assert "qwen3:8b" in done.out
    models = tomllib.loads((home / "tierwise.toml").read_text())["tiers"]["local"]["models"]
    assert models == ["ollama:qwen3:8b", "ollama:aya:8b", "embedded:smollm2-135m-instruct"]
    assert routed.json["model"] == "qwen3:8b"


def test_without_ollama_the_default_models_stay(tierwise: Tierwise, home: Path) -> None:
    """Where none answers, the local tier is left to the defaults: an Ollama that comes later is used."""
    tierwise("init")
    assert tomllib.loads((home / "tierwise.toml").read_text())["tiers"]["local"] == {}


def test_keys_are_named_and_never_shown(tierwise: Tierwise, home: Path) -> None:
    """Which keys are set is told by name; no value is on the screen or in the file."""
    done = tierwise("init", env={"ANTHROPIC_API_KEY": "sk-very-secret"})
    assert "ANTHROPIC_API_KEY: set" in done.out
    assert "sk-very-secret" not in done.out + done.err + (home / "tierwise.toml").read_text()


def test_missing_weights_are_installed(
    tierwise: Tierwise, monkeypatch: pytest.MonkeyPatch, weights_are_there: Path
) -> None:
    """Where the weights are missing they are installed, and told of; a failure ends with code 2 and the reason."""
    monkeypatch.setattr(embedded, "find_weights", lambda _settings: None)
    monkeypatch.setattr(embedded, "install_weights", lambda: weights_are_there)
    done = tierwise("init", "--json")
    assert done.json["weights"] == {"status": "installed", "path": str(weights_are_there), "detail": None}

    def offline() -> Path:
        raise embedded.InstallFailed("is this machine online?")

    monkeypatch.setattr(embedded, "install_weights", offline)
    failed = tierwise("init", "--json")
    assert failed.code == 2
    assert failed.json["weights"]["detail"] == "is this machine online?"
    assert "is this machine online?" in tierwise("init").out
    assert tierwise("init", "--no-weights", "--json").json["weights"]["status"] == "skipped"


def test_place_that_cannot_be_written_is_told_of(tierwise: Tierwise, home: Path) -> None:
    """Where a file stands in the way of the directory, the code is 2 and the message names it."""
    (home.parent / ".config").write_text("a file")
    done = tierwise("init", "--user")
    assert done.code == 2
    assert ".config" in done.err
