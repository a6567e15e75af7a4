"""Putting a task type into a tierwise.toml and taking it out again, without touching what people wrote."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.config.edit import (
    Value,
    declared_types,
    replace_file,
    with_task_type,
    with_values,
    without_task_type,
)
from tierwise.core.errors import ConfigError
from tierwise.core.tasks import Needs, TaskType

OWN = TaskType("invoice_coding", "extract", Needs.PROCESSING, True, 'says "what" \\ it is\n')
FILE = Path("tierwise.toml")
TEXTS = [
    "",
    "# a comment only",
    'project = "x"  # kept\n\n[overrides.types]\n# mine\ncode_review = "opus"\n',
    'project = "x"\r\n[ledger]\r\nenabled = true\r\n',
    '[task_types.other]\nfamily = "a"\nneeds = "critical"\nrecoverable = false\n\n# of the ledger\n[ledger]\n',
    '[task_types]\nother = { family = "a", needs = "judgment", recoverable = false }\n',
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_type_goes_in_and_out_and_the_rest_stays(text: str) -> None:
    """What stood in the file still stands there, letter by letter, with the type and after it is taken out."""
    edited = with_task_type(text, OWN, FILE)
    assert edited.startswith(text.rstrip())
    assert tomllib.loads(edited)["task_types"]["invoice_coding"]["description"] == OWN.description
    assert "invoice_coding" in declared_types(edited)
    assert without_task_type(edited, OWN.name, FILE).strip() == text.strip()


def test_comments_of_the_next_section_stay() -> None:
    """Only the type's own lines go: a comment in front of the next section is that section's."""
    assert without_task_type(TEXTS[4], "other", FILE) == "# of the ledger\n[ledger]\n"


@pytest.mark.parametrize("text", ["task_types = {}\n", 'x = """\n[task_types.other]\n"""\n[task_types]\nother = {}\n'])
def test_what_cannot_be_edited_safely_is_left_to_the_user(text: str) -> None:
    """A form that a section cannot be added to or taken out of is an error that says what to do by hand."""
    with pytest.raises(ConfigError, match=r"tierwise\.toml cannot be added to safely|by hand"):
        without_task_type(with_task_type(text, OWN, FILE), "other", FILE)


@given(st.text(), st.text())
def test_any_words_survive(family: str, description: str) -> None:
    """Whatever is in a family's name or a description comes back as it was."""
    words = [text.encode("utf-8", "ignore").decode() for text in (family, description)]
    edited = with_task_type("", TaskType("own", words[0], Needs.JUDGMENT, False, words[1]), FILE)
    found = tomllib.loads(edited)["task_types"]["own"]
    assert [found["family"], found["description"]] == words


def test_a_file_is_replaced_whole_with_its_permissions(tmp_path: Path) -> None:
    """A link stays a link, the mode stays, and nothing else is left behind."""
    real, link = tmp_path / "real.toml", tmp_path / "tierwise.toml"
    real.write_text("a = 1\n")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_file(link, "a = 2\r\n")
    assert link.is_symlink()
    assert (real.read_bytes(), real.stat().st_mode & 0o777) == (b"a = 2\r\n", 0o640)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.toml", "tierwise.toml"]


def test_a_new_file_is_made_with_its_folder(tmp_path: Path) -> None:
    """Where there is no file yet, there is one afterwards, readable as any file of that user's."""
    replace_file(tmp_path / "a" / "tierwise.toml", "a = 1\n")
    assert (tmp_path / "a" / "tierwise.toml").read_text() == "a = 1\n"


VALUES: dict[tuple[str, str], Value] = {
    ("", "baseline"): "opus",
    ("gateway", "routed_models"): ("claude-tierwise-auto", 'a"b'),
}


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("", 'baseline = "opus"\n\n[gateway]\nrouted_models = ["claude-tierwise-auto", "a\\"b"]\n'),
        (
            "# mine\n\n[gateway] # here\nport = 1 # kept\n\n# of the ledger\n[ledger]\nenabled = true",
            '# mine\n\nbaseline = "opus"\n\n[gateway] # here\nport = 1 # kept\n'
            'routed_models = ["claude-tierwise-auto", "a\\"b"]\n\n# of the ledger\n[ledger]\nenabled = true\n',
        ),
        (
            'baseline = "haiku"\n[gateway]\nrouted_models = [ # old\n  "x",\n]\nport = 1\n',
            'baseline = "opus"\n[gateway]\nrouted_models = ["claude-tierwise-auto", "a\\"b"]\nport = 1\n',
        ),
    ],
)
def test_values_go_where_they_belong(text: str, edited: str) -> None:
    """Each is set in place, or added at the end of its section; comments, order and other values stay."""
    assert with_values(text, VALUES, FILE) == edited
    assert with_values(edited, VALUES, FILE) == edited


@pytest.mark.parametrize("text", TEXTS)
def test_values_leave_everything_else_as_it_was(text: str) -> None:
    """Only the keys that were asked for say something else afterwards, whatever the file's form."""
    before, after = tomllib.loads(text), tomllib.loads(with_values(text, VALUES, FILE))
    assert after == {**before, "baseline": "opus", "gateway": {"routed_models": ["claude-tierwise-auto", 'a"b']}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gateway = { port = 1 }\n", r'by hand:\nbaseline = "opus"\n\[gateway\]\nrouted_models = '),
        ("gateway.port = 1\n", "by hand"),
        ("gateway = 3\n", "by hand"),
        ("x = [", "not valid TOML"),
    ],
)
def test_values_that_cannot_be_set_safely_are_left_to_the_user(text: str, says: str) -> None:
    """A form in which a section cannot be added is an error that says what to write."""
    with pytest.raises(ConfigError, match=says):
        with_values(text, VALUES, FILE)
