"""The examples in the documentation run."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierwise import load_settings
from tierwise.report.estimate import parse_workload
from tierwise.testing import RecordedRequest, StandInReply, StandInUpstream

from .pages import DOCS, PAGES, Block, blocks, name

# One namespace a page: what a page defined before is there further down, and the texts that short examples speak of.
# Errors name the page and its line.
RUN_PAGE = """
import sys
names = {"__name__": "__main__", "prompt": "Say it in one line: …", "invoice": "Invoice 1, total 1"}
for at in range(1, len(sys.argv), 2):
    with open(sys.argv[at], encoding="utf-8") as file:
        exec(compile(file.read(), sys.argv[at + 1], "exec"), names)
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[StandInUpstream]:
    """A stand-in for all models that the examples reach: the API's, and Ollama's."""
    with StandInUpstream(handler=with_required_keys, ollama_models=["qwen3:8b"]) as stand_in:
        yield stand_in


def with_required_keys(request: RecordedRequest) -> StandInReply | None:
    """A schema that only lists keys (the README's): they are there. For the rest, the stand-in's own reply."""
    match request.json:
        case {"response_format": {"json_schema": {"schema": {"required": list(keys), **others}}}} if (
            "properties" not in others
        ):
            return StandInReply.of_json({str(key): "1" for key in keys})
    return None


def environment(upstream: StandInUpstream, folder: Path) -> dict[str, str]:
    """What a page's examples see: a home of their own and the stand-in."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(folder),
        "ANTHROPIC_BASE_URL": upstream.url,
        "ANTHROPIC_API_KEY": "test-key",
        "OLLAMA_HOST": upstream.url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else LiteLLM asks the network for prices
    }


def python_pages() -> list[Path]:
    return [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", python_pages(), ids=name)
def test_python_examples_run(page: Path, upstream: StandInUpstream, tmp_path: Path) -> None:
    """The Python blocks of a page run in order, and nothing in them warns."""
    arguments = []
    for number, block in enumerate(blocks(page, "python")):
        if block.note.startswith("needs: "):
            pytest.importorskip(block.note.removeprefix("needs: "), reason="pip install -r requirements/dev.txt")
        file = tmp_path / (
            block.note.removeprefix("file: ") if block.note.startswith("file: ") else f"block{number}.py"
        )
        file.write_text("\n" * (block.line - 1) + block.text, "utf-8")
        arguments += [str(file), name(page)]
    done = subprocess.run(
        # The second: LiteLLM's own types, of which pydantic has something to say.
        [sys.executable, "-W", "error", "-W", "ignore:Item:UserWarning", "-c", RUN_PAGE, *arguments],
        cwd=tmp_path,
        env={**environment(upstream, tmp_path), "TIERWISE_PROJECT": "docs"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def toml_blocks() -> list[tuple[Path, Block]]:
    return [(page, block) for page in PAGES for block in blocks(page, "toml")]


@pytest.mark.parametrize(
    ("page", "block"), toml_blocks(), ids=lambda v: name(v) if isinstance(v, Path) else str(v.line)
)
def test_toml_examples_load(page: Path, block: Block, tmp_path: Path) -> None:
    """Every TOML block is a tierwise.toml that loads, or says what else it is and is that."""
    match block.note:
        case "workload":
            assert parse_workload(block.text, name(page), is_csv=False).steps
        case "pyproject.toml":
            assert tomllib.loads(block.text)["project"]
        case _:
            config = tmp_path / "tierwise.toml"
            config.write_text(block.text, "utf-8")
            assert load_settings(env={"HOME": str(tmp_path)}, cwd=tmp_path, path=config).sources == (config,)


def test_provider_by_entry_point_works(upstream: StandInUpstream, tmp_path: Path) -> None:
    """The provider of the how-to, installed as its page says, answers a run."""
    page = DOCS / "how-to" / "providers.md"
    module, *_ = (block for block in blocks(page, "python") if block.note == "file: shout.py")
    (tmp_path / "shout.py").write_text(module.text, "utf-8")
    project, config = blocks(page, "toml")
    packaged = tomllib.loads(project.text)["project"]
    # What installing a package leaves behind for entry points to be found by.
    info = tmp_path / f"{packaged['name'].replace('-', '_')}-{packaged['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {packaged['name']}\nVersion: {packaged['version']}\n")
    points = packaged["entry-points"]["tierwise.providers"]
    (info / "entry_points.txt").write_text(
        "[tierwise.providers]\n" + "".join(f"{kind} = {target}\n" for kind, target in points.items())
    )
    (tmp_path / "tierwise.toml").write_text(config.text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tierwise.cli", "run", "Rewrite this: keep quiet", "--tier", "local"],
        cwd=tmp_path,
        env=environment(upstream, tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "REWRITE THIS: KEEP QUIET\n", done.stderr


def test_importer_by_entry_point_works(tmp_path: Path) -> None:
    """The importer of the how-to, installed as its page says, is found by its name."""
    page = DOCS / "how-to" / "importers.md"
    module, *_ = (block for block in blocks(page, "python") if block.note == "file: receipts.py")
    (tmp_path / "receipts.py").write_text(module.text, "utf-8")
    (project,) = blocks(page, "toml")
    packaged = tomllib.loads(project.text)["project"]
    info = tmp_path / f"{packaged['name'].replace('-', '_')}-{packaged['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {packaged['name']}\nVersion: {packaged['version']}\n")
    points = packaged["entry-points"]["tierwise.importers"]
    (info / "entry_points.txt").write_text(
        "[tierwise.importers]\n" + "".join(f"{kind} = {target}\n" for kind, target in points.items())
    )
    code = "from tierwise.importers.registry import importer; print(importer('receipts').name)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "receipts\n", done.stderr
