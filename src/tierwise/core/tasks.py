"""What a piece of work is: the request's text and shape, its task type, and what a classifier says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import assert_never

from tierwise.core.errors import InvalidTask
from tierwise.core.json import Json, JsonObject

__all__ = ["TOP_LEVEL", "Alternative", "Classification", "Needs", "Stakes", "Task", "TaskType"]


class Needs(StrEnum):
    """What a task type asks of a model; ordered by `rank`, the stricter the higher."""

    PROCESSING = "processing"  # a right answer is easy to define in advance
    JUDGMENT = "judgment"  # synthesis, generation, multi-step reasoning, ambiguous interpretation
    CRITICAL = "critical"  # judgment whose mistakes are irreversible or very expensive

    @property
    def rank(self) -> int:
        """0 for processing, 1 for judgment, 2 for critical."""
        return _NEEDS_RANK[self]


TOP_LEVEL = 3

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

    @property
    def level(self) -> int:
        """How strict: 0 recoverable processing, 1 other processing, 2 judgment, 3 critical (`TOP_LEVEL`)."""
        match self.needs:
            case Needs.PROCESSING:
                return 0 if self.recoverable else 1
            case Needs.JUDGMENT:
                return 2
            case Needs.CRITICAL:
                return TOP_LEVEL
            case other:
                assert_never(other)


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

    `at_least`, where the classifier knows its whole distribution, holds the probabilities that the text is at least
    processing that must be right the first time, at least judgment, and critical: the policy weighs them against
    the price of going up. `stated_stakes` is what the text itself says of a mistake's consequences.
    """

    task_type: TaskType
    confidence: float
    abstained: bool = False
    alternatives: tuple[Alternative, ...] = ()  # best first, `task_type` itself left out
    also: tuple[TaskType, ...] = ()
    evidence: tuple[str, ...] = ()  # in plain words, for the decision's reasons; no payload text
    at_least: tuple[float, float, float] | None = None
    stated_stakes: Stakes = Stakes.NORMAL

    @property
    def sure(self) -> str:
        """The confidence for people, as in `92%`; only what is certain is called 100%."""
        return ">99%" if 0.995 <= self.confidence < 1 else f"{self.confidence:.0%}"

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

    Raises:
        InvalidTask: a value of the wrong kind, or a number that cannot be; the message names the field.
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

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InvalidTask(f"the task's text must be a str, not {type(self.text).__name__}; decode it first")
        values = _OPTIONAL(self)
        if any(value is not None for value in values):  # made for every decision: most tasks are a text alone
            for name, value in zip(_TEXTS, values, strict=False):
                if value is not None and not isinstance(value, str):
                    raise InvalidTask(f"{name} must be a str, not {type(value).__name__}")
            _check_numbers(self)
        if not isinstance(self.stakes, Stakes):
            raise InvalidTask(f"stakes are {self.stakes!r}; use one of {', '.join(s.value for s in Stakes)}")
        if self.json_schema is not None and not isinstance(self.json_schema, dict):
            raise InvalidTask(f"a JSON schema is an object, not {type(self.json_schema).__name__}")
        if not isinstance(self.labels, tuple) or not (
            not self.labels or all(isinstance(x, str) and x.strip() for x in self.labels)
        ):
            raise InvalidTask(f"labels are {self.labels!r}; give texts, none of them blank")
        if (type(self.tags) is not dict and not isinstance(self.tags, Mapping)) or not (
            not self.tags or all(isinstance(key, str) and isinstance(value, str) for key, value in self.tags.items())
        ):
            raise InvalidTask(f"tags are {self.tags!r}; give texts by name")


def _check_numbers(task: Task) -> None:
    for name, least in _COUNTS:
        value = getattr(task, name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST_TOKENS:
            raise InvalidTask(f"{name} is {value!r}; it must be a whole number from {least} to {_MOST_TOKENS:,}")
    for name in ("max_latency_seconds", "temperature"):
        value = getattr(task, name)
        if value is None:
            continue
        # A NaN is in no range either.
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOST_SECONDS:
            raise InvalidTask(f"{name} is {value!r}; it must be a number, 0 or more")


_TEXTS = (
    "input_text",
    "prompt",
    "system",
    "tool_name",
    "max_cost_usd",
    "task_type",
    "tier",
    "min_tier",
    "max_tier",
    "model",
    "session",
    "project",
)
_OPTIONAL = attrgetter(*_TEXTS, "tokens_in", "tokens_out", "max_output_tokens", "max_latency_seconds", "temperature")
_COUNTS = (("tokens_in", 0), ("tokens_out", 0), ("max_output_tokens", 1))
_MOST_TOKENS = 1_000_000_000_000  # beyond any context; keeps typing errors out of the arithmetic
_MOST_SECONDS = 1e9
