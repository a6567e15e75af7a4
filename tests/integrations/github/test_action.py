"""The action in `deploy/github-action`: what it is made of, and its one step, run as the runner would run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import blocks
from tests.integrations.github.conftest import Job
from tests.integrations.github.stand_in import GitHubStandIn

yaml = pytest.importorskip("yaml", reason="pip install -r requirements/dev.txt")

ROOT = Path(__file__).parents[3]
ACTION = ROOT / "deploy" / "github-action"
PAGE = ROOT / "docs" / "how-to" / "github-action.md"


@pytest.fixture(scope="module")
def action() -> Any:
    """The action's file, as a parser understands it."""
    return yaml.safe_load((ACTION / "action.yml").read_text())


def test_inputs_are_variables_and_never_scripts(action: Any) -> None:
    """No expression is put into a script; each input reaches the step in a variable, and has a description."""
    (step,) = action["runs"]["steps"]
    assert action["runs"]["using"] == "composite"
    assert "${{" not in step["run"]
    assert step["shell"] == "bash"
    used = {match for value in step["env"].values() for match in re.findall(r"inputs\.([a-z-]+)", value)}
    assert used == set(action["inputs"])
    assert all(one["description"] for one in action["inputs"].values())


def test_the_page_lists_the_inputs(action: Any) -> None:
    """The page's table has every input, and its workflow is YAML that names the action's folder."""
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == list(action["inputs"])
    (block,) = blocks(PAGE, "yaml")
    workflow = yaml.safe_load(block.text)
    job = workflow["jobs"]["agent"]
    assert job["permissions"]["pull-requests"] == "write"
    last = job["steps"][-1]
    assert last["if"] == "always()"
    assert (ROOT / last["uses"].split("@")[0].split("/", 2)[2] / "action.yml").is_file()


def run(action: Any, job: Job, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The step, with these inputs and the others as they are by default."""
    (step,) = action["runs"]["steps"]
    program = job.folder / "tierwise"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tierwise "$@"\n')
    program.chmod(0o755)
    known = {name: one["default"] for name, one in action["inputs"].items()} | inputs
    known["github-token"] = job.environment["GITHUB_TOKEN"]

    def value(text: str) -> str:
        return re.sub(
            r"\$\{\{ *([a-z.-]+) *\}\}",
            lambda match: known[name] if (name := match[1].removeprefix("inputs.")) in known else "0",
            text,
        )

    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={
            **job.environment,
            **{name: value(text) for name, text in step["env"].items()},
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "GITHUB_ACTION_PATH": str(ACTION),
            "GITHUB_OUTPUT": str(job.folder / "output"),
            "TIERWISE_PROGRAM": str(program),
        },
        cwd=job.folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_the_step_comments(action: Any, job: Job, github: GitHubStandIn) -> None:
    """The step writes the comment, and its output is the result on one line."""
    done = run(action, job)
    assert done.returncode == 0, done.stderr
    (line,) = (job.folder / "output").read_text().splitlines()
    name, _, result = line.partition("=")
    assert (name, json.loads(result)["how"]) == ("result", "created")
    (body,) = github.bodies()
    assert '"1.1.agent.0"' in body


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_hostile_inputs_are_words(action: Any, job: Job, github: GitHubStandIn) -> None:
    """What a shell would run is an argument, several files are several, and a failure fails the step."""
    job.event({})
    (job.folder / "a b.json").write_text("[]")
    (job.folder / "$(touch pwned).json").write_text("[]")
    inputs = {"execution-files": "a b.json\n\n$(touch pwned).json\n", "pull-request": "7", "author": "`touch pwned`"}
    done = run(action, job, **inputs)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["unread_reports"] == 2
    assert not (job.folder / "pwned").exists()
    assert run(action, job, source="; touch pwned").returncode == 2
    assert not (job.folder / "pwned").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_nothing_of_the_pull_request_is_run(action: Any, job: Job, github: GitHubStandIn) -> None:
    """Modules in the working directory that bear names of the standard library's are not imported."""
    for name in ("json.py", "venv.py", "multiprocessing.py", "click.py"):
        (job.folder / name).write_text("open('pwned', 'w')\n")
    done = run(action, job)
    assert done.returncode == 0, done.stderr
    assert not (job.folder / "pwned").exists()
    text = (ACTION / "comment.sh").read_text()
    assert "python3 -I -m venv" in text
