"""The unit and the container file of `deploy/` start what there is to start. Neither is really run here."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from tierwise.core.settings import GatewaySettings

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "tierwise.service"
CONTAINER = DEPLOY / "Containerfile"


def checks(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """`tierwise …` that ends before it listens."""
    return subprocess.run(
        [sys.executable, "-m", "tierwise", *arguments, "--check"],
        env={"HOME": str(home), "PYTHONPATH": ":".join(sys.path), "TIERWISE_LEDGER": str(home / "ledger.db")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_unit_starts_the_gateway_and_lets_it_drain(tmp_path: Path) -> None:
    """Its command is understood, and it is given longer to stop than running calls are."""
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # names as they are written
    unit.read(UNIT)
    service = unit["Service"]
    _, *arguments = shlex.split(service["ExecStart"])
    config = tmp_path / "tierwise.toml"
    config.touch()
    done = checks([str(config) if word == "/etc/tierwise/tierwise.toml" else word for word in arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(service["TimeoutStopSec"]) > GatewaySettings().drain_seconds
    assert "-HUP" in service["ExecReload"]


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """Where systemd is there to be asked."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/tierwise/bin/tierwise", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert not [line for line in done.stderr.splitlines() if UNIT.name in line], done.stderr


def test_the_container_listens_where_it_says_and_demands_a_key(tmp_path: Path) -> None:
    """Its command is understood; without a key it does not open to the outside, with one it does."""
    text = CONTAINER.read_text()
    exposed = re.search(r"^EXPOSE (\d+)$", text, re.MULTILINE)
    command = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert exposed is not None
    assert command is not None
    assert int(exposed[1]) == GatewaySettings().port
    arguments: list[str] = json.loads(command[1])
    refused = checks(arguments, tmp_path)
    assert refused.returncode != 0
    assert "tierwise keys create" in refused.stderr
    made = subprocess.run(
        [sys.executable, "-m", "tierwise", "keys", "create", "laptop"],
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "TIERWISE_LEDGER": str(tmp_path / "ledger.db")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.startswith("tw-")
    done = checks(arguments, tmp_path)
    assert done.returncode == 0, done.stderr
