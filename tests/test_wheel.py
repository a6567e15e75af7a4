"""The wheel: what a user installs, in an environment that has nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the working tree."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_code_and_data_only(wheel: Path) -> None:
    """Data files and type information travel; tests, benchmarks and anything local do not."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "tierwise/py.typed" in names
    for name in ("task_types", "classifier_rules", "defaults", "prices"):
        assert f"tierwise/data/{name}.toml" in names
    plugin = ROOT / "src" / "tierwise" / "integrations" / "claude_code" / "plugin"
    files = [path for path in plugin.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT / "src").as_posix() for path in files} <= set(names)
    assert len(files) > 10
    assert not [name for name in names if not name.startswith(("tierwise/", "tierwise-"))]
    for name in ("manifest.json", "encoder.onnx", "ngrams.npz", "ngrams.txt", "vocab.txt"):
        assert f"tierwise/data/classifier/{name}" in names
    assert not [name for name in names if name.endswith((".pyc", ".db", ".jsonl"))]


def test_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """A new user's first commands work with the core's own dependencies, away from the checkout."""
    home = tmp_path / "environment"
    venv.create(home)
    # With the pip that is here: to install another one, and to compile what nobody imports, takes most of the time.
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-compile", "-c", str(ROOT / "requirements" / "core.txt"), str(wheel)],
        check=True,
        capture_output=True,
    )
    env = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}

    def tierwise(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [home / "bin" / "tierwise", *args], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    assert tierwise("--version").stdout.startswith("tierwise ")
    routed = tierwise("route", "Summarise this ticket in one line", "--json")
    assert routed.returncode == 0, routed.stderr
    assert json.loads(routed.stdout)["task_type"] == "summarization"
    estimated = tierwise("estimate", str(ROOT / "examples" / "article-workload.toml"), "--json")
    assert estimated.returncode == 0, estimated.stderr
    ran = tierwise("run", "Summarise this ticket in one line: it rains")
    assert ran.returncode == 3, "without a key or a local model nothing is sent, and the exit code says so"
    assert "ANTHROPIC_API_KEY" in ran.stderr
