"""Whether a conversation moves down depends on how such conversations went on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Serve
from tests.ledger.records import attempt, call
from tests.policy.worlds import classified
from tierwise.core.tasks import Needs
from tierwise.gateway.outlook import Outlook
from tierwise.ledger import Ledger
from tierwise.ledger.turns import TurnsAfter
from tierwise.testing import StandInUpstream

AUTO = "claude-tierwise-auto"


def test_the_chance_is_that_of_turns_like_it_drawn_towards_an_assumption() -> None:
    """One in twenty where nothing is known; 30 of 180 make it 31 of 200; of other turns nothing is learned for it."""
    outlook, turn = Outlook(), classified("translation")
    assert outlook.needs_more(turn) == 0.05
    other = TurnsAfter(turn.family, Needs.CRITICAL, 1_000, 900)
    outlook.learn([TurnsAfter(turn.family, Needs.PROCESSING, 180, 30), other])
    assert outlook.needs_more(turn) == pytest.approx(31 / 200)
    outlook.learn([other])
    assert outlook.needs_more(turn) == 0.05


def test_a_turn_that_nobody_could_tell_is_taken_for_judgment() -> None:
    """As it is routed, and as it is counted."""
    outlook, turn = Outlook(), classified("translation", abstained=True)
    outlook.learn([TurnsAfter(turn.family, Needs.JUDGMENT, 80, 9)])
    assert outlook.needs_more(turn) == pytest.approx(0.1)


def _lived_through(path: Path, family: str, then: str) -> None:
    """A ledger of forty conversations in which a turn of that family was followed by one that needs this."""
    at_ms = time.time_ns() // 1_000_000 - 86_400_000
    with Ledger(path) as ledger:
        for number in range(40):
            for second, (kind, needs) in enumerate(((family, "processing"), ("other", then))):
                call_id = f"{number}-{second}"
                given = {"session": f"s{number}", "family": kind, "needs": needs, "tags": (("kind", "main"),)}
                started = at_ms + 1_000 * second
                ledger.record(call(call_id, started_at_ms=started, **given), [attempt(call_id, started_at_ms=started)])


@pytest.mark.parametrize(
    ("then", "model"), [("processing", "claude-haiku-5-5"), ("judgment", "claude-sonnet-5-5")], ids=["simple", "hard"]
)
def test_a_conversation_moves_down_only_where_what_follows_is_simple_too(
    serve: Serve, upstream: StandInUpstream, tmp_path: Path, then: str, model: str
) -> None:
    """The same turn of the same length: where hard turns usually follow, it stays, and the reasons say why."""
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 60_000, "output_tokens": 500}
    upstream.reply("a story", usage=usage, times=None)
    _lived_through(tmp_path / "ledger.db", classified("translation").family, then)
    gateway = serve(upstream)
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Write a short story about a lighthouse keeper"}]
    for ask in (None, "Translate the title to German"):
        if ask is not None:
            turns += [{"role": "assistant", "content": "a story"}, {"role": "user", "content": ask}]
        body = {"model": AUTO, "max_tokens": 1024, "stream": True, "messages": turns, "tools": [{"name": "look"}]}
        gateway.post(json.dumps(body), x_claude_code_session_id="conversation-1")
    last = max(gateway.calls(), key=lambda found: found.call.started_at_ms).call
    assert last.model == model
    assert "may_go_back" in {reason.step for reason in last.reasons}
