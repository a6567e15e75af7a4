"""From what the caller gave to a plan."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.policy.worlds import TYPES, settings
from tierwise.config import load_settings
from tierwise.core.catalog import Tier
from tierwise.core.errors import InvalidTask, UnpricedModel
from tierwise.core.tasks import Classification, Stakes, Task
from tierwise.engine.planner import Planner, as_task
from tierwise.prices import PriceBook


class Always:
    """A classifier that says the same of everything."""

    def __init__(self, name: str) -> None:
        self.answer = Classification(TYPES[name], 1.0)
        self.asked = 0

    def classify(self, task: Task) -> Classification:
        """Its one answer."""
        self.asked += 1
        return self.answer


def test_options_become_a_task() -> None:
    """Texts for stakes, numbers for money, tiers and lists of labels are taken as they are meant."""
    task = as_task("do", {"stakes": "high", "tier": Tier.OPUS, "max_cost_usd": 0.1, "labels": ["a", "b"]})
    assert (task.text, task.stakes, task.tier, task.max_cost_usd, task.labels) == (
        "do", Stakes.HIGH, "opus", "0.1", ("a", "b"),
    )  # fmt: skip


def test_options_change_a_task() -> None:
    """A Task goes through as it is, or with the options laid over it."""
    task = Task(text="do", session="s")
    assert as_task(task, {}) is task
    assert as_task(task, {"text": "else", "project": "p"}) == Task(text="else", session="s", project="p")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("do", {"token_in": 1}, r"'token_in'; did you mean 'tokens_in'\? Options: has_images, .*tool_name"),
        ("do", {"zzz": 1}, r"unknown option 'zzz'\. Options: has_images"),
        ("do", {"text": "twice"}, "unknown option 'text'"),
        ("do", {"stakes": "huge"}, "stakes are 'huge'; use one of normal, high, critical"),
        ("do", {"labels": "yes"}, "labels are 'yes'"),
        ("do", {"tokens_in": float("nan")}, "tokens_in is nan"),
        (b"do", {}, "a task is a text or a tierwise.Task, not bytes"),
        (None, {}, "not NoneType"),
    ],
)  # fmt: skip
def test_what_is_no_task_is_said(task: Any, options: dict[str, Any], message: str) -> None:
    """An unknown option names a near one and lists all; a value of the wrong kind names its field."""
    with pytest.raises(InvalidTask, match=message):
        as_task(task, options)


def test_prices_follow_the_day() -> None:
    """A plan is priced as of its day, also when the clock jumps back."""
    planner = Planner(settings(), Always("debugging"), PriceBook(settings().prices, settings().providers))
    reads = [
        planner.plan(Task(text="x"), day).first.price.bands[0].cache_read
        for day in (date(2026, 11, 22), date(2026, 10, 1), date(2026, 11, 22))
    ]
    assert [str(rate) for rate in reads] == ["0.10", "0.20", "0.10"]


def test_a_classification_at_hand_is_not_made_again() -> None:
    """Planning twice classifies once."""
    classifier = Always("debugging")
    planner = Planner(settings(), classifier, PriceBook(settings().prices, settings().providers))
    task = Task(text="x")
    planner.plan(task, date(2026, 11, 22), classification=planner.classify(task))
    assert classifier.asked == 1


def test_a_model_without_a_price_is_an_error_where_it_is_on_the_ladder(tmp_path: Path) -> None:
    """The price book's message, which says what to add, reaches the caller; tasks that do not meet it go on."""
    path = tmp_path / "tierwise.toml"
    path.write_text("tiers.next = ['claude-next-9']")
    found = load_settings(env={"HOME": "/nowhere"}, cwd=tmp_path, path=path)
    planner = Planner(found, Always("debugging"), PriceBook(found.prices, found.providers))
    with pytest.raises(UnpricedModel, match=r"no price is known for 'claude-next-9'.*\[\[prices\]\]"):
        planner.plan(Task(text="x"), date(2026, 11, 22))
    assert planner.plan(Task(text="x", max_tier="opus"), date(2026, 11, 22)).tier.name == "sonnet"
