"""`tierwise claude install`, `uninstall` and `status`: what was there stays, what came goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Tierwise, home, tierwise
from tierwise.cli.claude import command
from tierwise.integrations.claude_code.telemetry import telemetry

__all__ = ["home", "tierwise"]  # fixtures of the command line's own tests

MINE = '{\n    "model": "opus",\n    "env": {"A": "b"}\n}\n'


@pytest.fixture
def config(home: Path) -> Path:
    """Claude Code's directory, with settings of somebody's own."""
    folder = home.parent / ".claude"
    folder.mkdir()
    (folder / "settings.json").write_text(MINE)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """All files below it, but for the copies of settings."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".before-tierwise-" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_dry_run_changes_nothing(tierwise: Tierwise, config: Path) -> None:
    """`--dry-run` shows the diff of the settings and writes nothing; so does a no to the question."""
    before = everything(config)
    done = tierwise("claude", "install", "--dry-run")
    assert done.code == 0
    assert "+  " in done.out
    assert "statusline.py" in done.out
    assert tierwise("claude", "install", stdin="n\n").code == 130
    assert everything(config) == before


def test_there_and_back(tierwise: Tierwise, config: Path) -> None:
    """Installing adds a folder and one key and keeps a copy; uninstalling leaves everything byte for byte as it was."""
    before = everything(config)
    assert tierwise("claude", "install", "--yes").code == 0
    settings = json.loads((config / "settings.json").read_text())
    assert settings["statusLine"]["type"] == "command"
    assert {name: settings[name] for name in ("model", "env")} == json.loads(MINE)
    (copy,) = config.glob("settings.json.before-tierwise-*")
    assert copy.read_text() == MINE
    assert (config / "skills" / "tierwise" / "hooks" / "hook.py").is_file()
    found = tierwise("claude", "status", "--json").json
    assert (found["version"], found["python_works"], found["status_line"], found["changed"]) == (
        "0.1.0",
        True,
        True,
        [],
    )
    assert tierwise("claude", "uninstall").code == 0
    assert everything(config) == before
    assert not (config / "skills").exists() or not any((config / "skills").iterdir())
    assert "not installed" in tierwise("claude", "status").out


def test_installing_again_replaces(tierwise: Tierwise, config: Path) -> None:
    """A second installation brings the files up to date, and one uninstallation takes all of it away."""
    before = everything(config)
    assert tierwise("claude", "install", "--yes").code == 0
    again = tierwise("claude", "install", "--yes")
    assert (again.code, "in the settings already" in again.out) == (0, True)
    assert tierwise("claude", "uninstall", "--yes").code == 0
    assert everything(config) == before


def test_a_status_line_of_ones_own_stays(tierwise: Tierwise, config: Path) -> None:
    """A status line that is there is not replaced; it is told how to have ours."""
    (config / "settings.json").write_text('{"statusLine": {"type": "command", "command": "mine"}}')
    before = everything(config)
    done = tierwise("claude", "install", "--yes")
    assert (done.code, "it stays. Ours would be: sh " in done.out) == (0, True)
    assert everything(config)["settings.json"] == before["settings.json"]
    assert tierwise("claude", "uninstall").code == 0
    assert everything(config) == before


def test_settings_that_changed_since_lose_only_our_key(tierwise: Tierwise, config: Path) -> None:
    """What Claude Code or a person wrote into the settings after the installation stays."""
    tierwise("claude", "install", "--yes")
    settings = json.loads((config / "settings.json").read_text())
    (config / "settings.json").write_text(json.dumps({**settings, "theme": "dark"}))
    assert tierwise("claude", "uninstall").code == 0
    assert json.loads((config / "settings.json").read_text()) == {**json.loads(MINE), "theme": "dark"}


def test_files_that_are_not_ours_stay(tierwise: Tierwise, config: Path) -> None:
    """A file of the plugin that somebody changed, or put beside it, is left and named."""
    tierwise("claude", "install", "--yes")
    folder = config / "skills" / "tierwise"
    (folder / "agents" / "extractor.md").write_text("mine")
    (folder / "agents" / "own.md").write_text("mine too")
    assert tierwise("claude", "status", "--json").json["changed"] == ["agents/extractor.md"]
    done = tierwise("claude", "uninstall")
    assert done.out.count("left, since") == 2
    assert sorted(everything(folder)) == ["agents/extractor.md", "agents/own.md"]


def test_what_stands_in_the_way_is_not_overwritten(tierwise: Tierwise, config: Path) -> None:
    """Another skill of that name, and settings that are no JSON, end with 2 before anything is written."""
    (config / "skills" / "tierwise").mkdir(parents=True)
    (config / "skills" / "tierwise" / "SKILL.md").write_text("mine")
    before = everything(config)
    done = tierwise("claude", "install", "--yes")
    assert (done.code, "move it away first" in done.err) == (2, True)
    (config / "skills" / "tierwise" / "SKILL.md").unlink()
    for broken in ("[" * 100_000, "{oops"):
        (config / "settings.json").write_text(broken)
        done = tierwise("claude", "install", "--yes")
        assert (done.code, "left alone" in done.err, "--no-status-line" in done.err) == (2, True, True)
    assert everything(config) == {**{k: v for k, v in before.items() if "SKILL" not in k}, "settings.json": b"{oops"}
    assert tierwise("claude", "install", "--yes", "--no-status-line").code == 0
    assert (config / "settings.json").read_bytes() == b"{oops"


def test_uninstalling_what_is_not_there(tierwise: Tierwise, config: Path) -> None:
    """It says so, and does nothing."""
    before = everything(config)
    done = tierwise("claude", "uninstall")
    assert (done.code, "was not installed" in done.out) == (0, True)
    assert everything(config) == before


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ([], ()),
        (["-p", "install"], ("-p", "install")),
        (["--", "install"], ("install",)),
        (["--model", "opus", "--", "x"], ("--model", "opus", "--", "x")),
        (["mcp", "list"], ("mcp", "list")),
    ],
)
def test_everything_else_is_the_clis_own(words: list[str], passed: tuple[str, ...]) -> None:
    """All but our three words goes to `claude` as it was written; behind two dashes, they do too."""
    context = command.make_context("claude", list(words))
    assert (context.meta["tierwise.claude.arguments"], context.args) == (passed, [])


ON = {"CLAUDE_CODE_ENABLE_TELEMETRY": "1", "OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}


@pytest.mark.parametrize(
    ("environment", "settings", "says"),
    [
        ({}, {}, None),
        ({**ON, "CLAUDE_CODE_ENABLE_TELEMETRY": "0"}, {}, None),
        ({**ON, "OTEL_LOGS_EXPORTER": "console"}, {}, "set OTEL_LOGS_EXPORTER"),
        ({**ON, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {}, "set OTEL_EXPORTER_OTLP_PROTOCOL"),
        (ON, {}, "set OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({**ON, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://[x"}, {}, "set OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({}, {**ON, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:word@h:1/x"}, "sent to http://h:1 (http/json)"),
        (
            {**ON, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"},
            {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://b", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf"},
            "sent to http://b (http/protobuf)",
        ),
    ],
)
def test_where_telemetry_goes(environment: dict[str, str], settings: dict[str, str], says: str | None) -> None:
    """As the settings say, before the environment; what keeps it from arriving is told, and no password is."""
    found = telemetry(json.dumps({"env": settings}), environment)
    assert (found is None) is (says is None)
    assert (says or "") in (found or "")
    assert "word" not in (found or "")


@pytest.mark.parametrize("settings", ["", "{", "[]", '{"env": 5}', '{"env": {"CLAUDE_CODE_ENABLE_TELEMETRY": 1}}'])
def test_settings_that_say_nothing_of_telemetry(settings: str) -> None:
    """Settings that cannot be read, or hold something else, say nothing."""
    assert telemetry(settings, {}) is None
