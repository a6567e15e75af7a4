"""What a piece of work is: the request's text and shape, its task type, and what a classifier says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tierwise.core.json import Json, JsonObject

__all__ = ["Alternative", "Classification", "Needs", "Stakes", "Task", "TaskType"]


class Needs(StrEnum):
    """What a task type asks of a model; ordered by `rank`, the stricter the higher."""

    PROCESSING = "processing"  # a right answer is easy to define in advance
    JUDGMENT = "judgment"  # synthesis, generation, multi-step reasoning, ambiguous interpretation
    CRITICAL = "critical"  # judgment whose mistakes are irreversible or very expensive

    @property
    def rank(self) -> int:
        """0 for processing, 1 for judgment, 2 for critical."""
        return _NEEDS_RANK[self]


_NEEDS_RANK = {Needs.PROCESSING: 0, Needs.JUDGMENT: 1, Needs.CRITICAL: 2}


class Stakes(StrEnum):
    """How bad a wrong answer would be, as the caller knows it."""

    NORMAL = "normal"  # what the task type says
    HIGH = "high"  # must be right the first time, and goes one tier higher than the tree says
    CRITICAL = "critical"  # the top tier


@dataclass(frozen=True, slots=True)
class TaskType:
    """One of the 58 built-in types of work, or a user's own. Names are labels in ledger, CLI and API."""

    name: str
    family: str
    needs: Needs
    recoverable: bool  # a wrong answer is cheap to notice and to retry downstream
    description: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A task type that the text might also be, with its calibrated probability in 0..1."""

    task_type: TaskType
    confidence: float


@dataclass(frozen=True, slots=True)
class Classification:
    """What a classifier says of a task.

    `confidence` means frequency: of all texts classified at 0.8, 80 % are right. `abstained` says that the evidence
    is too thin or from outside what the classifier knows; `task_type` is then its best guess and must not be
    relied on. `also` holds further tasks asked for in the same text: the policy takes the strictest of all.
    """

    task_type: TaskType
    confidence: float
    abstained: bool = False
    alternatives: tuple[Alternative, ...] = ()  # best first, `task_type` itself left out
    also: tuple[TaskType, ...] = ()
    evidence: tuple[str, ...] = ()  # in plain words, for the decision's reasons; no payload text

    @property
    def family(self) -> str:
        """The family of `task_type`."""
        return self.task_type.family

    @property
    def needs(self) -> Needs:
        """What `task_type` needs."""
        return self.task_type.needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work, before anything is decided about it.

    `text` says what to do (and may hold the payload too); `input_text` is a payload kept apart, such as the
    document to summarise. `prompt`, when given, is what is sent instead of both; they then only describe it. Token
    counts, when None, are estimated from the texts. Everything else narrows the
    decision or is recorded with it.
    """

    text: str
    input_text: str | None = None
    prompt: str | None = None
    system: str | None = None
    tool_name: str | None = None  # a tool call to carry out, with `tool_input`
    tool_input: Json = None
    json_schema: JsonObject | None = None  # the reply must be JSON that satisfies this
    labels: tuple[str, ...] = ()  # the reply must be one of these
    has_images: bool = False
    has_tools: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None
    max_output_tokens: int | None = None
    max_latency_seconds: float | None = None
    max_cost_usd: str | None = None  # a decimal number in a string: money is never a float
    stakes: Stakes = Stakes.NORMAL
    task_type: str | None = None  # known to the caller: not classified
    tier: str | None = None  # forced
    min_tier: str | None = None
    max_tier: str | None = None
    model: str | None = None  # forced
    temperature: float | None = None
    session: str | None = None
    project: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
