"""Writing what is recommended, and taking it back, whatever happened to the files in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.config.changes import FileChange, Journal, Undone, claude_code_change, diff, policy_change
from tierwise.core.errors import ConfigError

URL = "http://127.0.0.1:8484"
KEYS = {("env", "ANTHROPIC_BASE_URL"): URL}
STAMP = "20261128T050000Z"
SETTINGS = (
    '{\n    "model": "opus",\n    "env": {\n        "MINE": "a\\u00e4"\n    },\n    "x": [1, 2.50, {"y": null}]\n}'
)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Claude Code's settings as somebody has them, for their own eyes."""
    path = tmp_path / "settings.json"
    path.write_text(SETTINGS)
    path.chmod(0o600)
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal that does not exist yet."""
    return Journal(tmp_path / "data" / "applied.json")


def test_a_planned_change_touches_nothing_and_shows_its_diff(settings: Path) -> None:
    """Planning reads; the diff says which lines come and go, in the file's own indentation."""
    shown = diff(claude_code_change(settings, KEYS))
    assert settings.read_text() == SETTINGS
    assert '+        "ANTHROPIC_BASE_URL": "http://127.0.0.1:8484"\n' in shown
    assert '-    "model"' not in shown


def test_applying_keeps_every_other_setting_and_a_private_copy(settings: Path, journal: Journal) -> None:
    """Unknown settings keep their values and their order; the copy is no more readable than the file was."""
    (copy,) = journal.apply([claude_code_change(settings, KEYS)], STAMP)
    found = json.loads(settings.read_text())
    assert list(found) == ["model", "env", "x"]
    assert found == {**json.loads(SETTINGS), "env": {"MINE": "aä", "ANTHROPIC_BASE_URL": URL}}
    assert (copy.read_text(), copy.stat().st_mode & 0o777) == (SETTINGS, 0o600)
    assert settings.stat().st_mode & 0o777 == 0o600


def test_undoing_restores_every_byte(settings: Path, journal: Journal, tmp_path: Path) -> None:
    """What was there is there again letter by letter, what was not is gone, and a second undo has nothing to do."""
    policy = tmp_path / "config" / "tierwise.toml"
    journal.apply([claude_code_change(settings, KEYS), policy_change(policy, {("", "baseline"): "opus"})], STAMP)
    assert policy.read_text() == 'baseline = "opus"\n'
    assert journal.undo() == (Undone(settings, "restored"), Undone(policy, "removed"))
    assert settings.read_text() == SETTINGS
    assert not policy.exists()
    assert journal.undo() == ()


def test_applying_twice_is_undone_in_two_steps(settings: Path, journal: Journal) -> None:
    """Each undo takes back one application, the latest first."""
    journal.apply([claude_code_change(settings, {("model",): "haiku"})], STAMP)
    once = settings.read_text()
    journal.apply([claude_code_change(settings, {("model",): "sonnet"})], STAMP)
    journal.undo()
    assert settings.read_text() == once
    journal.undo()
    assert settings.read_text() == SETTINGS


def test_settings_that_changed_since_lose_only_our_keys(settings: Path, journal: Journal) -> None:
    """What Claude Code wrote into them meanwhile stays; a key that somebody set anew stays, and is told of."""
    journal.apply([claude_code_change(settings, {**KEYS, ("model",): "haiku", ("new", "a"): "1"})], STAMP)
    changed = {**json.loads(settings.read_text()), "permissions": {"allow": ["Bash"]}, "model": "fable"}
    settings.write_text(json.dumps(changed))
    assert journal.undo() == (Undone(settings, "reverted", ("model",)),)
    assert json.loads(settings.read_text()) == {
        **json.loads(SETTINGS),
        "permissions": {"allow": ["Bash"]},
        "model": "fable",
    }


def test_a_policy_that_was_edited_since_is_left_alone(tmp_path: Path, journal: Journal) -> None:
    """Undo says so, names the copy, and changes no file at all."""
    policy = tmp_path / "tierwise.toml"
    policy.write_text("# mine\n")
    (copy,) = journal.apply([policy_change(policy, {("", "baseline"): "opus"})], STAMP)
    policy.write_text('baseline = "haiku"\n')
    with pytest.raises(ConfigError, match=f"was edited since, .*{copy.name}"):
        journal.undo()
    assert policy.read_text() == 'baseline = "haiku"\n'


def test_what_was_interrupted_can_be_undone(settings: Path, journal: Journal) -> None:
    """Where the journal was written and the file was not, undo finds it as it was."""
    change = claude_code_change(settings, KEYS)
    journal.apply([change], STAMP)
    settings.write_text(SETTINGS)
    assert journal.undo() == (Undone(settings, "untouched"),)


def test_a_file_that_changed_after_the_diff_is_not_written(settings: Path, journal: Journal) -> None:
    """What was agreed to was another change: nothing is written, not even a copy."""
    change = claude_code_change(settings, KEYS)
    settings.write_text("{}")
    with pytest.raises(ConfigError, match="changed meanwhile"):
        journal.apply([change], STAMP)
    assert [path.name for path in settings.parent.iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "cannot be read"),
        (b"[]", "not a JSON object"),
        (b'{"env": 3}', "'env' is not an object"),
        (b'{"env": {"ANTHROPIC_BASE_URL": 3}}', "is not a text"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1e999}', "numbers"),
        (b'{"a": 0.1000000000000000055511151231257827}', "numbers"),
        (b"[" * 100_000, "cannot be read"),
        (b"\xff", "not UTF-8"),
        (b"// a comment\n{}", "cannot be read"),
    ],
)
def test_settings_that_cannot_be_kept_are_left_alone(settings: Path, text: bytes, says: str) -> None:
    """What is no JSON, or would not come back as it is, gives an error that says so, and no byte changes."""
    settings.write_bytes(text)
    with pytest.raises(ConfigError, match=f"settings.json.*{says}"):
        claude_code_change(settings, KEYS)
    assert settings.read_bytes() == text


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=12,
        ),
        max_size=6,
    )
)
def test_any_settings_survive(tmp_path_factory: pytest.TempPathFactory, anything: dict[str, object]) -> None:
    """Whatever JSON object it is: with our key it says the same beside that key."""
    anything.pop("env", None)
    path = tmp_path_factory.mktemp("claude") / "settings.json"
    path.write_text(json.dumps(anything))
    assert json.loads(claude_code_change(path, KEYS).after) == {**anything, "env": {"ANTHROPIC_BASE_URL": URL}}


def test_a_damaged_journal_undoes_nothing(journal: Journal) -> None:
    """It says where the copies are; nothing is guessed."""
    journal.path.parent.mkdir()
    for text in ("{", '{"applied": 3}', '{"applied": [{"files": [{}]}]}'):
        journal.path.write_text(text)
        with pytest.raises(ConfigError, match="damaged"):
            journal.undo()


def test_a_lost_copy_undoes_nothing(settings: Path, journal: Journal) -> None:
    """Without the copy nothing is guessed either."""
    (copy,) = journal.apply([claude_code_change(settings, KEYS)], STAMP)
    copy.unlink()
    with pytest.raises(ConfigError, match="is gone"):
        journal.undo()
    assert json.loads(settings.read_text())["env"]["ANTHROPIC_BASE_URL"] == URL


def test_a_change_of_nothing_has_no_diff(tmp_path: Path) -> None:
    """Where a file already says it, there is nothing to show."""
    assert diff(FileChange(tmp_path / "a", "x\n", "x\n")) == ""
