"""From a task to a decision, with what this process knows: prices of the day, measured speeds, open circuits.

Everything here is in memory and takes microseconds; what must be asked of a server (is the local model up?) is asked
by the router and handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import date
from difflib import get_close_matches
from typing import Any

from tierwise.classifier.base import Classifier
from tierwise.core.decisions import Decision
from tierwise.core.errors import InvalidTask, UnpricedModel
from tierwise.core.money import Price
from tierwise.core.settings import Settings
from tierwise.core.tasks import Classification, Stakes, Task
from tierwise.policy import World, decide
from tierwise.prices import PriceBook

__all__ = ["Planner", "as_task"]

_TASK_FIELDS = frozenset(field.name for field in fields(Task))


def as_task(task: str | Task, options: Mapping[str, Any]) -> Task:
    """A `Task` from what the caller gave.

    Raises:
        InvalidTask: not a text, an unknown option, or a value of the wrong kind.
    """
    known = _TASK_FIELDS if isinstance(task, Task) else _TASK_FIELDS - {"text"}
    unknown = sorted(set(options) - known)
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        raise InvalidTask(
            f"unknown option {unknown[0]!r}{f'; did you mean {near[0]!r}?' if near else '.'} "
            f"Options: {', '.join(sorted(_TASK_FIELDS - {'text'}))}"
        )
    values = dict(options)
    if "stakes" in values and not isinstance(values["stakes"], Stakes):
        try:
            values["stakes"] = Stakes(values["stakes"])
        except ValueError:
            raise InvalidTask(
                f"stakes are {values['stakes']!r}; use one of {', '.join(s.value for s in Stakes)}"
            ) from None
    for name in ("tier", "min_tier", "max_tier"):
        if values.get(name) is not None:
            values[name] = str(values[name])  # a Tier is welcome too
    if values.get("max_cost_usd") is not None:
        values["max_cost_usd"] = str(values["max_cost_usd"])
    if isinstance(values.get("labels"), list):
        values["labels"] = tuple(values["labels"])
    if isinstance(task, Task):
        return replace(task, **values) if values else task
    if not isinstance(task, str):
        raise InvalidTask(f"a task is a text or a tierwise.Task, not {type(task).__name__}")
    return Task(text=task, **values)


class Planner:
    """Classifies and decides.

    Args:
        settings: the configuration.
        classifier: text and shape in, task type out.
        prices: the price book; resolved once a day for every model of the catalog.
    """

    def __init__(self, settings: Settings, classifier: Classifier, prices: PriceBook) -> None:
        self.settings = settings
        self.classifier = classifier
        self.prices = prices
        self._day: date | None = None
        self._priced: dict[str, Price] = {}
        self._unpriced: dict[str, str] = {}
        self._plain = self._world({}, {})

    def classify(self, task: Task) -> Classification:
        """What the task is. Raises `InvalidTask` where there is nothing to classify."""
        return self.classifier.classify(task)

    def plan(
        self,
        task: Task,
        today: date,
        *,
        classification: Classification | None = None,
        unavailable: Mapping[str, str] | None = None,
        speeds: Mapping[str, tuple[float, float]] | None = None,
    ) -> Decision:
        """Where the task goes. Raises as `tierwise.policy.decide` does."""
        return decide(
            task,
            self.classify(task) if classification is None else classification,
            self.world(today, unavailable=unavailable, speeds=speeds),
        )

    def world(
        self,
        today: date,
        *,
        unavailable: Mapping[str, str] | None = None,
        speeds: Mapping[str, tuple[float, float]] | None = None,
    ) -> World:
        """Everything a decision depends on, as of `today` (UTC)."""
        if self._day != today:
            self._resolve(today)
        if not unavailable and not speeds:
            return self._plain
        return self._world(unavailable or {}, speeds or {})

    def _world(self, unavailable: Mapping[str, str], speeds: Mapping[str, tuple[float, float]]) -> World:
        settings = self.settings
        return World(
            catalog=settings.catalog,
            policy=settings.policy,
            overrides=settings.overrides,
            limits=settings.limits,
            prices=self._priced,
            unpriced=self._unpriced,
            unavailable=unavailable,
            speeds=speeds,
        )

    def _resolve(self, today: date) -> None:
        priced: dict[str, Price] = {}
        unpriced: dict[str, str] = {}
        for model in (*self.settings.catalog.models, self.settings.catalog.baseline):
            try:
                priced[model.id] = self.prices.price(model, today)
            except UnpricedModel as error:
                unpriced[model.id] = str(error)
        self._priced, self._unpriced, self._day = priced, unpriced, today
        self._plain = self._world({}, {})
