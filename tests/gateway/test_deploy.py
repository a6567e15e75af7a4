"""The unit and the container file of `deploy/` start what there is to start. Neither is really run here."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.records import attempt, call
from tierwise.core.settings import GatewaySettings
from tierwise.gateway import app
from tierwise.gateway.metrics import Gauge, Metrics

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


# ------------------------------------------------------------------ Grafana and Prometheus


def told() -> dict[str, set[str]]:
    """Names of `/metrics`, as they are, with their labels: of a gateway through which a call of each kind went."""
    metrics = Metrics([Gauge(name, "", lambda: 0.0) for name in gauges()])
    metrics.call(call("c"))
    metrics.attempt(attempt("c"))
    metrics.attempt(attempt("c", 2, cost_nanousd=None))
    found: dict[str, set[str]] = {}
    for sample in metrics.samples():
        found.setdefault(sample.name, set()).update(name for name, _ in sample.labels)
    return found


def gauges() -> set[str]:
    """The gauges that the application has."""
    return set(re.findall(r'Gauge\(\s*"(\w+)"', Path(app.__file__).read_text()))


def expressions() -> list[str]:
    """Every PromQL expression of the dashboard and of the alerts."""
    board = json.loads((DEPLOY / "grafana" / "tierwise.json").read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    found += [alert["expr"] for alert in alerts()]
    return [re.sub(r"\$__(range|rate_interval)", "5m", expr) for expr in found]


def alerts() -> list[dict[str, Any]]:
    """The alerts, each with all that it has."""
    yaml = pytest.importorskip("yaml")
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "tierwise.rules.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def selectors(node: Any) -> Iterator[Any]:
    """The metrics that a parsed expression selects."""
    if hasattr(node, "matchers"):
        yield node
    for part in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if (inner := getattr(node, part, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from selectors(inner)


def test_grafana_and_prometheus_ask_for_what_there_is() -> None:
    """Every expression is PromQL, its metrics and labels are those that `/metrics` tells."""
    parser = pytest.importorskip("promql_parser")
    known = told()
    asked = set()
    for expression in expressions():
        for selector in selectors(parser.parse(expression)):
            asked.add(selector.name)
            assert selector.name in known, expression
            labels = {matcher.name for matcher in selector.matchers.matchers} - {"instance"}
            assert labels <= known[selector.name], expression
    assert len(asked) > 10


def test_labels_that_alerts_and_variables_name_are_there() -> None:
    """In a legend, a variable or a text: what does not exist would be shown as nothing."""
    board = json.loads((DEPLOY / "grafana" / "tierwise.json").read_text())
    labels = set().union(*told().values()) | {"instance"}
    for panel in board["panels"]:
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
    variables = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"]))) - {"__range", "__rate_interval"}
    assert used <= variables
    for alert in alerts():
        assert {"summary", "description"} <= alert["annotations"].keys()
        assert set(re.findall(r"\$labels\.(\w+)", json.dumps(alert))) <= labels


def test_panels_stand_beside_each_other() -> None:
    """None lies over another, none is wider than the page, and each has an id of its own."""
    panels = json.loads((DEPLOY / "grafana" / "tierwise.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
