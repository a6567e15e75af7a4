"""Whatever stands in a configuration file, it is usable or refused; nothing else comes out."""

from __future__ import annotations

import re
import tempfile
from importlib.resources import files
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tierwise.config import load_settings
from tierwise.core.errors import ConfigError, TierwiseError
from tierwise.engine.router import AsyncRouter

LINES = (files("tierwise") / "data" / "defaults.toml").read_text("utf-8").splitlines()
KEYS = [n for n, line in enumerate(LINES) if re.match(r'^[\w."\-:]+ = ', line)]
VALUES = [
    "true", "-1", "0", "1", '"x"', '"claude-x"', '"haiku"', "[]", "{}", "nan", "inf", "1e999", '"1e999"', '"1e-14"',
    '["claude-x"]', '[["a"]]', "2026-01-01", "2026-01-01T00:00:00", '""', '"\\u0000"', "{a=1}", "9" * 25, "0.5",
    '"(a"', '"http://[x"', '"~"',
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), min_size=1, max_size=3))
def test_any_configuration_works_or_is_refused(changes: dict[int, str]) -> None:
    """Any value at any key: settings that can route, or an error of ours; never a traceback of something else."""
    lines = list(LINES)
    for number, value in changes.items():
        lines[number] = f"{lines[number].partition(' = ')[0]} = {value}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.toml"
        path.write_text("\n".join(lines), "utf-8")
        try:
            found = load_settings(env={"HOME": folder}, cwd=Path(folder), path=path)
        except ConfigError as error:
            assert str(path) in str(error) or "providers." in str(error)
            return
        try:
            router = AsyncRouter(found, record=False)
            for task_type in ("summarization", "ranking", "debugging", "legal_analysis"):
                decision = router.route("do it", task_type=task_type)
                assert decision.ladder
                assert decision.first.estimated_cost_usd >= 0
        except TierwiseError as error:
            assert str(error)
