"""What every classifier offers, so that rules and a trained model can stand in for each other."""

from __future__ import annotations

from typing import Protocol

from tierwise.core.tasks import Classification, Task

__all__ = ["Classifier"]


class Classifier(Protocol):
    """Text and shape of a request in; type, calibrated confidence, alternatives and abstention out.

    Pure and in process: no files, network, clock or randomness after construction.
    """

    def classify(self, task: Task) -> Classification:
        """Say what `task` asks for.

        A type that the caller knows (`task.task_type`) comes back with confidence 1.0. Raises `InvalidTask` where there
        is no text to classify and `UnknownTaskType` where `task.task_type` names none.
        """
        ...
